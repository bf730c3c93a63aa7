//! Properties of the session over any settings, rates, gaps and pushes: what an example would only sample.
#![allow(clippy::unwrap_used, clippy::panic)]

use cuewire::asr::{Cancel, DecodeError, DecodeJob, Decoder as _, Hypothesis, ScriptedDecoder};
use cuewire::audio::Pcm;
use cuewire::caption::{CaptionEvent, GapReason};
use cuewire::config::Config;
use cuewire::session::{Accounting, Input, Output, Session};
use cuewire::time::{Timestamp, nanos_of_samples};
use proptest::prelude::*;
use support::*;

#[path = "support/session.rs"]
mod support;

/// Samples of a millisecond at 16 kHz.
const MS_SAMPLES: usize = 16;

/// What a track said and asked.
struct Told {
    events: Vec<CaptionEvent>,
    jobs: Vec<DecodeJob>,
    accounting: Accounting,
}

impl Told {
    /// Finals, in milliseconds.
    fn finals_ms(&self) -> Vec<(i64, i64)> {
        let span = |event: &CaptionEvent| match event {
            CaptionEvent::Final { start_time, end_time, .. } => {
                Some((start_time.as_nanos() / MS, end_time.as_nanos() / MS))
            }
            _ => None,
        };
        self.events.iter().filter_map(span).collect()
    }
}

fn says_length(job: &DecodeJob) -> Result<Hypothesis, DecodeError> {
    Ok(Hypothesis::certain(&format!("{} samples", job.audio.len()), job))
}

/// Gives a session these pushes (begin in ms, samples at `rate`) in pieces of `piece` samples, and its end.
fn run(config: Config, rate: u32, pushes: &[(i64, Vec<i16>)], piece: usize) -> Told {
    let mut session = Session::with_vad("alice", config, Box::new(Loudness));
    let mut told = Told { events: Vec::new(), jobs: Vec::new(), accounting: session.accounting() };
    for (begin_ms, samples) in pushes {
        for (index, samples) in samples.chunks(piece).enumerate() {
            let at = at_ms(*begin_ms).plus_nanos(nanos_of_samples((index * piece) as u64, rate));
            session.handle_input(Input::Audio { at, pcm: Pcm::mono(rate, samples).unwrap() }).unwrap();
            drain(&mut session, &mut told);
        }
    }
    session.handle_input(Input::End).unwrap();
    drain(&mut session, &mut told);
    assert!(session.is_finished());
    told.accounting = session.accounting();
    told
}

fn drain(session: &mut Session, told: &mut Told) {
    loop {
        match session.poll_output() {
            Output::Decode(job) => {
                let result = ScriptedDecoder::new(says_length).decode(&job, &Cancel::new());
                session.handle_input(Input::Decoded { job: job.id, result }).unwrap();
                told.jobs.push(job);
            }
            Output::Event(event) => told.events.push(event),
            Output::Cancel(_) | Output::Closed { .. } => {}
            Output::Wait(_) => return,
        }
    }
}

fn any_config() -> impl Strategy<Value = Config> {
    (5_000u32..=10_000, 300u32..=2_000, prop_oneof![Just(0u32), 250u32..=5_000], any::<bool>()).prop_map(
        |(longest, silence, interim, early_finals)| {
            let mut config = Config::default();
            config.speech_segment_config.max_speech_caption_ms = longest.try_into().unwrap();
            config.speech_segment_config.silence_duration_ms = silence.try_into().unwrap();
            config.interim_interval_ms = interim.try_into().unwrap();
            config.early_finals = early_finals;
            config
        },
    )
}

/// Loud everywhere, and no two seconds of it alike.
fn speech(samples: usize) -> Vec<i16> {
    let mut state = 7u32;
    (0..samples)
        .map(|i| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let loud = 3_500 + (i / 1_600 % 11) as i16 * 700 + (state >> 25) as i16;
            if i % 2 == 0 { loud } else { -loud }
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Speech without a pause is cut into captions that touch, and each job is the audio that was pushed, to the sample.
    #[test]
    fn a_forced_cut_loses_no_sample_and_repeats_none(
        config in any_config(), seconds in 1usize..45, piece in prop_oneof![1usize..400, 400usize..40_000],
    ) {
        let samples = speech(seconds * 16_000);
        let longest = i64::from(config.speech_segment_config.max_speech_caption_ms.ms());
        let told = run(config, 16_000, &[(0, samples.clone())], piece);
        let finals = told.finals_ms();
        prop_assert_eq!(finals[0].0, 0);
        prop_assert_eq!(finals.last().unwrap().1, seconds as i64 * 1_000);
        for pair in finals.windows(2) {
            prop_assert_eq!(pair[0].1, pair[1].0, "a cut is one place: {:?}", finals);
        }
        prop_assert!(finals.iter().all(|(start, end)| end - start <= longest), "{:?}", finals);
        prop_assert_eq!(told.accounting.captioned, samples.len() as u64);
        for job in &told.jobs {
            let from = job.start.0 as usize;
            let pushed: Vec<f32> =
                samples[from..from + job.audio.len()].iter().map(|&x| f32::from(x) / 32_768.0).collect();
            prop_assert_eq!(&job.audio[..], &pushed[..]);
        }
        for (start, end) in &finals {
            let heard = |job: &DecodeJob| {
                let from = job.start.0 as usize;
                from <= *start as usize * MS_SAMPLES && from + job.audio.len() >= *end as usize * MS_SAMPLES
            };
            prop_assert!(told.jobs.iter().any(heard), "{} – {} was never heard whole", start, end);
        }
    }

    /// A hole is ignored, filled or declared by its length alone, and every sample is counted once.
    #[test]
    fn a_gap_is_where_the_hole_was(
        config in any_config(),
        rate in prop::sample::select(vec![8_000u32, 16_000, 44_100, 48_000]),
        parts in prop::collection::vec((40i64..3_000, prop_oneof![Just(0i64), 1i64..55, 70i64..2_990, 3_010i64..100_000]), 1..6),
        piece in 50usize..20_000,
    ) {
        let (mut pushes, mut expected_gaps, mut filled_ms, mut at) = (Vec::new(), Vec::new(), 0, 1_000_000);
        let (mut late_ms, mut is_jittered) = (0, false);
        for (index, (length_ms, hole_ms)) in parts.iter().enumerate() {
            pushes.push((at + late_ms, sound(rate, *length_ms as u64, &[(0, *length_ms as u64)])));
            at += length_ms;
            late_ms = 0;
            if index + 1 < parts.len() {
                match hole_ms {
                    // Within the jitter of packets: the sound goes on where it was.
                    0..=60 => (late_ms, is_jittered) = (*hole_ms, is_jittered || *hole_ms > 0),
                    61..=3_000 => { filled_ms += hole_ms; at += hole_ms; }
                    _ => { expected_gaps.push((at, at + hole_ms)); at += hole_ms; }
                }
            }
        }
        let told = run(config, rate, &pushes, piece);
        let gap = |event: &CaptionEvent| match event {
            CaptionEvent::Gap { from, to, reason: GapReason::NoAudio, .. } => Some((from.as_nanos() / MS, to.as_nanos() / MS)),
            _ => None,
        };
        let gaps: Vec<_> = told.events.iter().filter_map(gap).collect();
        let length_ms: i64 = parts.iter().map(|(length, _)| length).sum();
        // To the millisecond: samples at 44.1 kHz do not last whole nanoseconds. A push that is late is followed as a clock that
        // drifts would be, by 500 parts per million.
        let off_ms = if is_jittered { length_ms / 2_000 + 2 } else { 1 };
        let near = |(a, b): (&(i64, i64), &(i64, i64))| (a.0 - b.0).abs() <= off_ms && (a.1 - b.1).abs() <= off_ms;
        let as_expected = gaps.len() == expected_gaps.len() && gaps.iter().zip(&expected_gaps).all(near);
        prop_assert!(as_expected, "{gaps:?}, expected were {expected_gaps:?}");
        let off_samples = if is_jittered { off_ms * MS_SAMPLES as i64 } else { 0 } + parts.len() as i64;
        let samples = (length_ms + filled_ms) * MS_SAMPLES as i64;
        let counted = told.accounting.total() as i64;
        prop_assert!((counted - samples).abs() <= off_samples, "{counted} of {samples} samples");
        let filled = told.accounting.filled as i64;
        prop_assert!((filled - filled_ms * MS_SAMPLES as i64).abs() <= off_samples, "{filled} samples of {filled_ms} ms");
    }

    /// Whatever the settings: captions come in order of time, none is too long, and between two of them lies the silence that
    /// ends one, unless one was cut.
    #[test]
    fn finals_are_monotone_and_keep_the_settings(
        config in any_config(),
        rate in prop::sample::select(vec![8_000u32, 11_025, 16_000, 48_000, 96_000]),
        spans in prop::collection::vec((20u64..4_000, 20u64..9_000), 1..5),
        piece in 100usize..50_000,
    ) {
        let (mut at, mut loud) = (0, Vec::new());
        for (pause, length) in spans {
            loud.push((at + pause, at + pause + length));
            at += pause + length;
        }
        let samples = sound(rate, at + 2_500, &loud);
        let total = samples.len() as u64;
        let limits = config.speech_segment_config;
        let told = run(config, rate, &[(0, samples)], piece);
        let finals = told.finals_ms();
        for (start, end) in &finals {
            prop_assert!(start < end && end - start <= i64::from(limits.max_speech_caption_ms.ms()), "{finals:?}");
        }
        for pair in finals.windows(2) {
            let pause = pair[1].0 - pair[0].1;
            let silence = i64::from(limits.silence_duration_ms.ms());
            // Where both together are too long, they were cut apart, in a pause if there was one.
            let cut = pair[1].1 - pair[0].0 > i64::from(limits.max_speech_caption_ms.ms()) - 40;
            prop_assert!(pause >= 0 && (pause >= silence || cut), "{pause} ms between {pair:?}");
        }
        let ids: Vec<u64> = told.events.iter().filter_map(|event| match event {
            CaptionEvent::Final { id, .. } => Some(id.0),
            _ => None,
        }).collect();
        prop_assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
        let expected = Timestamp::from_nanos(nanos_of_samples(total, rate)).as_nanos() / 62_500;
        prop_assert!((told.accounting.total() as i64 - expected).abs() <= 1, "every sample is counted once");
    }
}
