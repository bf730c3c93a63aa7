//! Promises of the session, kept without a model: a scripted decoder answers, a scripted or the real detector listens.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::VecDeque;

use cuewire::asr::{Cancel, DecodeError, DecodeJob, Decoder, Hypothesis, JobId, JobKind, ScriptedDecoder, Suppression};
use cuewire::audio::Pcm;
use cuewire::caption::{CaptionEvent, CaptionId, GapReason, Retraction};
use cuewire::config::Config;
use cuewire::session::trace::{TraceReader, TraceWriter};
use cuewire::session::{Input, InputError, Output, Session};
use cuewire::time::{Timestamp, nanos_of_samples};
use proptest::prelude::*;
use support::*;

#[path = "../support/session.rs"]
mod support;

mod early;

/// Says how much it heard: wrong audio gives wrong text.
fn says_length(job: &DecodeJob) -> Result<Hypothesis, DecodeError> {
    let sum: f64 = job.audio.iter().map(|x| f64::from(x.abs())).sum();
    Ok(Hypothesis::certain(&format!("{} samples {sum:.6}", job.audio.len()), job))
}

/// Pushes `samples` in pieces of the lengths given (repeated), ends the track, and returns its events.
fn run(mut session: Session, rate: u32, samples: &[i16], pieces: &[usize]) -> (Vec<CaptionEvent>, Session) {
    let mut decoder = ScriptedDecoder::new(says_length);
    let (mut events, mut from, mut pieces) = (Vec::new(), 0, pieces.iter().cycle());
    while from < samples.len() {
        let to = (from + pieces.next().unwrap()).min(samples.len());
        let at = Timestamp::from_nanos(nanos_of_samples(from as u64, rate));
        push(&mut session, at, rate, &samples[from..to]).unwrap();
        events.extend(drain(&mut session, &mut decoder));
        from = to;
    }
    session.handle_input(Input::End).unwrap();
    events.extend(drain(&mut session, &mut decoder));
    assert!(session.is_finished());
    (events, session)
}

fn spans_ms(events: &[CaptionEvent]) -> Vec<(i64, i64)> {
    events
        .iter()
        .filter_map(|event| match event {
            CaptionEvent::Final { start_time, end_time, .. }
            | CaptionEvent::Suppressed { start_time, end_time, .. } => {
                Some((start_time.as_nanos() / MS, end_time.as_nanos() / MS))
            }
            _ => None,
        })
        .collect()
}

/// The jobs that wait to be polled.
fn asked(session: &mut Session) -> Vec<DecodeJob> {
    let outputs =
        std::iter::from_fn(|| Some(session.poll_output()).filter(|output| !matches!(output, Output::Wait(_))));
    outputs.filter_map(|output| if let Output::Decode(job) = output { Some(job) } else { None }).collect()
}

#[test]
fn captions_lie_where_the_sound_is() {
    let samples = sound(16_000, 8_000, &[(1_000, 3_000), (5_000, 5_600)]);
    let (events, session) =
        run(Session::with_vad("alice", no_interims(), Box::new(Loudness)), 16_000, &samples, &[1600]);
    assert_eq!(spans_ms(&events), [(1_000, 3_000), (5_000, 5_600)]);
    let accounting = session.accounting();
    assert_eq!((accounting.captioned, accounting.total()), (2_600 * 16, samples.len() as u64));
    assert_eq!(accounting.silence, 5_400 * 16);
}

#[test]
fn the_real_detector_finds_the_sound_too() {
    for rate in [8_000, 44_100, 48_000] {
        let samples = sound(rate, 8_000, &[(1_000, 3_000), (5_000, 5_600)]);
        let (events, _) = run(Session::new("alice", no_interims()), rate, &samples, &[rate as usize / 50]);
        let spans = spans_ms(&events);
        assert_eq!(spans.len(), 2, "{rate} Hz: {spans:?}");
        for ((from, to), (start, end)) in spans.into_iter().zip([(1_000, 3_000), (5_000, 5_600)]) {
            assert!(
                (from - start).abs() <= 100 && (to - end).abs() <= 150,
                "{rate} Hz: {from} – {to}, not {start} – {end}"
            );
        }
    }
}

#[test]
fn a_short_hole_is_filled_and_a_long_one_is_declared() {
    let samples = sound(48_000, 4_000, &[(500, 4_000)]);
    let (one, two) = samples.split_at(48_000 * 2);
    for (hole_ms, filled_ms, gaps, captions) in
        [(50, 0, 0, 1), (61, 61, 0, 1), (500, 500, 0, 1), (1_500, 1_500, 0, 2), (3_001, 0, 1, 2), (3_600_000, 0, 1, 2)]
    {
        let mut session = Session::with_vad("alice", no_interims(), Box::new(Loudness));
        let mut decoder = ScriptedDecoder::new(says_length);
        push(&mut session, at_ms(0), 48_000, one).unwrap();
        push(&mut session, at_ms(2_000 + hole_ms), 48_000, two).unwrap();
        session.handle_input(Input::End).unwrap();
        let events = drain(&mut session, &mut decoder);
        let spans = spans_ms(&events);
        assert_eq!(spans.len(), captions, "{hole_ms} ms: {spans:?}");
        assert_eq!(session.accounting().filled, filled_ms * 16, "{hole_ms} ms");
        let declared: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                CaptionEvent::Gap { from, to, reason: GapReason::NoAudio, .. } => Some((*from, *to)),
                _ => None,
            })
            .collect();
        assert_eq!(declared.len(), gaps, "{hole_ms} ms");
        if gaps == 1 {
            assert_eq!(declared[0], (at_ms(2_000), at_ms(2_000 + hole_ms)));
            assert!(matches!(events[1], CaptionEvent::Gap { .. }), "in order of time: {events:?}");
            assert_eq!(spans[1], (2_000 + hole_ms, 4_000 + hole_ms));
        }
        assert_eq!(session.accounting().total(), samples.len() as u64 / 3 + filled_ms * 16);
    }
}

#[test]
fn time_that_goes_back_is_refused_and_nothing_is_lost() {
    let samples = sound(16_000, 2_000, &[(100, 2_000)]);
    let mut session = Session::with_vad("alice", no_interims(), Box::new(Loudness));
    push(&mut session, at_ms(10_000), 16_000, &samples).unwrap();
    let error = push(&mut session, at_ms(11_000), 16_000, &samples).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("00:00:11.000") && text.contains("00:00:12.000"), "{text}");
    push(&mut session, at_ms(12_000), 16_000, &samples).unwrap();
    assert_eq!(session.accounting().total(), 2 * samples.len() as u64);
    // Far back: the sender started anew.
    push(&mut session, at_ms(1_000), 16_000, &samples).unwrap();
    session.handle_input(Input::End).unwrap();
    let events = drain(&mut session, &mut ScriptedDecoder::new(says_length));
    assert!(events.iter().any(|event| matches!(event, CaptionEvent::Gap { reason: GapReason::ClockRestarted, .. })));
    assert!(matches!(push(&mut session, at_ms(30_000), 16_000, &samples), Err(InputError::Ended)));
}

#[test]
fn rate_and_channels_may_change_in_the_middle() {
    let mut session = Session::with_vad("alice", no_interims(), Box::new(Loudness));
    let mut at = 0;
    for (rate, channels) in [(48_000u32, 1usize), (44_100, 2), (8_000, 1), (16_000, 3), (44_101, 1)] {
        let mono = sound(rate, 1_000, &[(200, 800)]);
        let samples: Vec<i16> = mono.iter().flat_map(|x| std::iter::repeat_n(*x, channels)).collect();
        let pcm = Pcm::interleaved(rate, channels, &samples[..]).unwrap();
        session.handle_input(Input::Audio { at: at_ms(at), pcm }).unwrap();
        at += 1_000;
    }
    session.handle_input(Input::End).unwrap();
    assert_eq!(session.accounting().total(), 5 * 16_000);
    let events = drain(&mut session, &mut ScriptedDecoder::new(says_length));
    let spans = spans_ms(&events);
    assert_eq!(spans.len(), 1, "pauses of 400 ms do not end a caption: {spans:?}");
    assert!((spans[0].0 - 200).abs() <= 20 && (spans[0].1 - 4_800).abs() <= 20, "{spans:?}");
}

#[test]
fn a_stalled_stream_is_closed_by_a_tick_and_only_then() {
    let samples = sound(16_000, 2_000, &[(100, 2_000)]);
    let mut session = Session::with_vad("alice", no_interims(), Box::new(Loudness));
    push(&mut session, at_ms(0), 16_000, &samples).unwrap();
    let Output::Wait(Some(due)) = session.poll_output() else { panic!("an open caption must ask to be woken up") };
    assert_eq!(due, at_ms(2_000 + 700 + 500));
    session.handle_input(Input::Tick(due.plus_nanos(-1))).unwrap();
    assert!(matches!(session.poll_output(), Output::Wait(Some(_))));
    session.handle_input(Input::Tick(due)).unwrap();
    let events = drain(&mut session, &mut ScriptedDecoder::new(says_length));
    assert_eq!(spans_ms(&events), [(100, 2_000)]);
    assert!(matches!(session.poll_output(), Output::Wait(None)));
    // Late audio goes on where it stopped.
    push(&mut session, at_ms(2_000), 16_000, &samples).unwrap();
    session.handle_input(Input::End).unwrap();
    let events = drain(&mut session, &mut ScriptedDecoder::new(says_length));
    assert_eq!(spans_ms(&events), [(2_100, 4_000)]);
}

#[test]
fn interims_lead_to_their_final_and_are_cancelled_by_it() {
    let samples = sound(16_000, 5_000, &[(100, 4_000)]);
    let mut session = Session::with_vad("alice", Config::default(), Box::new(Loudness));
    let (mut interims, mut waiting, mut cancelled) = (Vec::new(), VecDeque::new(), Vec::new());
    for (i, piece) in samples.chunks(320).enumerate() {
        push(&mut session, at_ms(i as i64 * 20), 16_000, piece).unwrap();
        loop {
            match session.poll_output() {
                Output::Decode(job) if job.kind == JobKind::Interim && waiting.len() + interims.len() >= 3 => {
                    waiting.push_back(job); // never answered
                }
                Output::Decode(job) => {
                    let mut hypothesis = Hypothesis::certain(&"word ".repeat(job.audio.len() / 8_000), &job);
                    hypothesis.tokens = vec![job.audio.len() as u32];
                    if job.kind == JobKind::Final {
                        assert_eq!(job.draft.len(), 1, "the last interim is the draft");
                    }
                    session.handle_input(Input::Decoded { job: job.id, result: Ok(hypothesis) }).unwrap();
                }
                Output::Event(event) => interims.push(event),
                Output::Cancel(job) => cancelled.push(job),
                Output::Closed { .. } => {}
                Output::Wait(_) => break,
            }
        }
    }
    let revisions: Vec<(u32, usize)> = interims
        .iter()
        .filter_map(|event| match event {
            CaptionEvent::Interim { id: CaptionId(0), revision, stable_chars, .. } => Some((*revision, *stable_chars)),
            _ => None,
        })
        .collect();
    assert_eq!(revisions, [(1, 0), (2, "word word".len()), (3, "word word word word".len())]);
    assert!(matches!(interims.last(), Some(CaptionEvent::Final { id: CaptionId(0), .. })), "{interims:?}");
    assert_eq!(cancelled, waiting.iter().map(|job| job.id).collect::<Vec<_>>());
    // A late answer is ignored, one to a job never asked for is an error.
    let late = waiting.pop_front().unwrap();
    let result = says_length(&late);
    session.handle_input(Input::Decoded { job: late.id, result: result.clone() }).unwrap();
    assert!(matches!(session.poll_output(), Output::Wait(None)));
    let unknown = session.handle_input(Input::Decoded { job: JobId(99), result });
    assert_eq!(unknown, Err(InputError::UnknownJob(JobId(99))));
}

#[test]
fn the_jobs_of_a_caption_share_their_features() {
    // A caption that is cut, what lies behind the cut, and one behind a pause.
    let samples = sound(16_000, 16_000, &[(100, 12_000), (13_000, 15_000)]);
    let mut session = Session::with_vad("alice", Config::default(), Box::new(Loudness));
    let mut jobs = Vec::new();
    let mut decoder = ScriptedDecoder::new(|job: &DecodeJob| {
        jobs.push(job.clone());
        says_length(job)
    });
    for (i, piece) in samples.chunks(320).enumerate() {
        push(&mut session, at_ms(i as i64 * 20), 16_000, piece).unwrap();
        drain(&mut session, &mut decoder);
    }
    session.handle_input(Input::End).unwrap();
    drain(&mut session, &mut decoder);
    let finals = jobs.iter().filter(|job| job.kind == JobKind::Final).count();
    assert!(finals == 3 && jobs.len() > 12, "{finals} of {}", jobs.len());
    for (a, b) in jobs.iter().flat_map(|a| jobs.iter().map(move |b| (a, b))) {
        assert_eq!(a.features.shares_with(&b.features), a.start == b.start);
        let shared = a.audio.len().min(b.audio.len());
        assert!(a.start != b.start || a.audio[..shared] == b.audio[..shared], "one audio that grows");
    }
}

#[test]
fn what_comes_to_nothing_is_retracted_counted_and_explained() {
    let samples = sound(16_000, 10_000, &[(100, 2_000), (4_000, 6_000)]);
    let mut decoder = ScriptedDecoder::new(|job: &DecodeJob| match (job.kind, job.start.0 < 32_000) {
        (JobKind::Interim, _) => Ok(Hypothesis::certain("hm", job)),
        (_, true) => Ok(Hypothesis { suppressed: Some(Suppression::NoSpeech), ..Hypothesis::certain("hm", job) }),
        (_, false) => Err(DecodeError::Failed("out of order".into())),
    });
    let mut session = Session::with_vad("alice", Config::default(), Box::new(Loudness));
    let mut events = Vec::new();
    for (i, piece) in samples.chunks(320).enumerate() {
        push(&mut session, at_ms(i as i64 * 20), 16_000, piece).unwrap();
        events.extend(drain(&mut session, &mut decoder));
    }
    session.handle_input(Input::End).unwrap();
    let kinds: Vec<String> = events
        .iter()
        .filter(|event| !matches!(event, CaptionEvent::Interim { .. }))
        .map(|event| match event {
            CaptionEvent::Retracted { id, reason: Retraction::Suppressed, .. } => format!("{} suppressed", id.0),
            CaptionEvent::Retracted { id, reason: Retraction::Lost, .. } => format!("{} lost", id.0),
            CaptionEvent::Suppressed { id, reason: Suppression::NoSpeech, .. } => format!("{} no speech", id.0),
            CaptionEvent::Gap { reason: GapReason::DecodeFailed, from, .. } => {
                format!("gap at {}", from.as_nanos() / MS)
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(kinds, ["0 suppressed", "0 no speech", "1 lost", "gap at 4000"]);
    let accounting = session.accounting();
    assert_eq!((accounting.suppressed, accounting.lost), (1_900 * 16, 2_000 * 16));
    assert_eq!(accounting.total(), samples.len() as u64);
}

#[test]
fn finals_come_in_order_whatever_the_order_of_the_answers() {
    let samples = sound(16_000, 8_000, &[(100, 1_000), (2_500, 3_500), (5_000, 6_000)]);
    let mut session = Session::with_vad("alice", no_interims(), Box::new(Loudness));
    push(&mut session, at_ms(0), 16_000, &samples).unwrap();
    session.handle_input(Input::End).unwrap();
    let mut jobs = Vec::new();
    jobs.extend(asked(&mut session));
    assert_eq!(jobs.len(), 3);
    for job in jobs.into_iter().rev() {
        assert!(!session.is_finished());
        session.handle_input(Input::Decoded { job: job.id, result: says_length(&job) }).unwrap();
    }
    let ids: Vec<u64> = drain(&mut session, &mut ScriptedDecoder::new(says_length))
        .iter()
        .map(|event| if let CaptionEvent::Final { id, .. } = event { id.0 } else { panic!("{event:?}") })
        .collect();
    assert_eq!(ids, [0, 1, 2]);
}

#[test]
fn settings_change_with_the_next_caption() {
    let samples = sound(16_000, 6_000, &[(100, 2_000), (2_500, 4_000)]);
    let mut session = Session::with_vad("alice", no_interims(), Box::new(Loudness));
    push(&mut session, at_ms(0), 16_000, &samples[..16_000]).unwrap();
    let mut french = no_interims();
    french.language = "fr".parse().unwrap();
    french.speech_segment_config.silence_duration_ms = 300.try_into().unwrap();
    session.handle_input(Input::Configure(french)).unwrap();
    assert_eq!(session.config().language.to_string(), "en", "a caption is open");
    push(&mut session, at_ms(1_000), 16_000, &samples[16_000..]).unwrap();
    assert_eq!(session.config().language.to_string(), "fr");
    let events = drain(&mut session, &mut ScriptedDecoder::new(says_length));
    // 500 ms of silence did not end the caption that was open under the old rule.
    assert_eq!(spans_ms(&events), [(100, 4_000)]);
}

#[test]
fn a_trace_replays_to_the_same_bytes() {
    let samples = sound(44_100, 6_000, &[(100, 2_000), (3_500, 5_000)]);
    let mut config = Config::default();
    (config.language, config.translations) = ("fr".parse().unwrap(), true);
    let mut session = Session::new("alice", config.clone());
    let mut trace = TraceWriter::new(Vec::new(), &session).unwrap();
    let mut decoder = ScriptedDecoder::new(says_length);
    let mut outputs = Vec::new();
    let feed =
        |session: &mut Session, trace: &mut TraceWriter<Vec<u8>>, input: Input<'_>, outputs: &mut Vec<String>| {
            trace.record(&input).unwrap();
            let _ = session.handle_input(input);
            let mut jobs = Vec::new();
            loop {
                let output = session.poll_output();
                outputs.push(format!("{output:?}"));
                match output {
                    Output::Decode(job) => jobs.push(job),
                    Output::Wait(_) => return jobs,
                    _ => {}
                }
            }
        };
    let mut jobs = VecDeque::new();
    for (i, piece) in samples.chunks(4_410).enumerate() {
        let stereo: Vec<f32> = piece.iter().flat_map(|x| [f32::from(*x) / 32_768.0, 0.0]).collect();
        let pcm = Pcm::interleaved(44_100, 2, &stereo[..]).unwrap();
        let at = at_ms(i as i64 * 100 - if i == 20 { 5_000 } else { 0 }); // one push is refused
        jobs.extend(feed(&mut session, &mut trace, Input::Audio { at, pcm }, &mut outputs));
        if i == 10 {
            jobs.extend(feed(&mut session, &mut trace, Input::Flush, &mut outputs));
        }
        if i == 30 || i == 40 {
            config.paused = i == 30;
            feed(&mut session, &mut trace, Input::Configure(config.clone()), &mut outputs);
        }
        if i % 7 == 0
            && let Some(job) = jobs.pop_front()
        {
            let result = decoder.decode(&job, &Cancel::new());
            jobs.extend(feed(&mut session, &mut trace, Input::Decoded { job: job.id, result }, &mut outputs));
        }
    }
    let lost = Input::Lost { from: at_ms(6_000), to: at_ms(7_000) };
    feed(&mut session, &mut trace, lost, &mut outputs);
    feed(&mut session, &mut trace, Input::Tick(at_ms(9_000)), &mut outputs);
    feed(&mut session, &mut trace, Input::Configure(no_interims()), &mut outputs);
    feed(&mut session, &mut trace, Input::End, &mut outputs);

    assert!(outputs.iter().any(|output| output.contains("Translation {")), "{outputs:?}");

    let bytes = trace.into_inner();
    let mut reader = TraceReader::new(&bytes[..]).unwrap();
    let mut replayed = Vec::new();
    while reader.step(|output| replayed.push(format!("{output:?}"))).unwrap().is_some() {}
    assert_eq!(replayed, outputs);
    assert_eq!(reader.session().accounting(), session.accounting());

    let torn = &bytes[..bytes.len() - 3];
    let mut reader = TraceReader::new(torn).unwrap();
    let error = loop {
        match reader.step(|_| {}) {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a torn trace must not end quietly"),
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("does not end"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_way_audio_is_cut_into_pushes_changes_nothing(
        rate in prop::sample::select(vec![8_000u32, 16_000, 44_100, 44_101, 48_000]),
        pieces in prop::collection::vec(prop_oneof![1usize..50, 50usize..5_000, 5_000usize..100_000], 1..8),
        spans in prop::collection::vec((0u64..7_000, 100u64..4_000), 0..4),
    ) {
        let spans: Vec<_> = spans.into_iter().map(|(from, length)| (from, from + length)).collect();
        let samples = sound(rate, 8_000, &spans);
        let session = || Session::new("alice", Config::default());
        let (whole, one) = run(session(), rate, &samples, &[rate as usize]);
        let (cut, other) = run(session(), rate, &samples, &pieces);
        // Interims are asked for frame by frame; a push that holds several asks while the first is unanswered.
        let finals = |events: &[CaptionEvent]| -> Vec<CaptionEvent> {
            events.iter().filter(|event| !matches!(event, CaptionEvent::Interim { .. })).cloned().collect()
        };
        prop_assert_eq!(finals(&whole), finals(&cut));
        prop_assert_eq!(one.accounting(), other.accounting());
        prop_assert_eq!(one.accounting().total(), 8 * 16_000);
    }
}

/// Continuous speech whose stated times drift by `ppm`, jump within the jitter or both; pushed in pieces of 20 ms.
fn drifting(ppm: i64, jump: Option<(i64, i64)>, seconds: u64) -> Vec<CaptionEvent> {
    let samples = sound(16_000, seconds * 1_000, &[(500, seconds * 1_000)]);
    let mut session = Session::with_vad("alice", no_interims(), Box::new(Loudness));
    let mut decoder = ScriptedDecoder::new(says_length);
    let mut events = Vec::new();
    for (i, piece) in samples.chunks(320).enumerate() {
        let nominal = i as i64 * 20 * MS;
        let jumped = jump.filter(|(from_ms, _)| nominal >= from_ms * MS).map_or(0, |(_, by_ms)| by_ms * MS);
        let at = Timestamp::from_nanos(nominal + nominal / 1_000_000 * ppm + jumped);
        push(&mut session, at, 16_000, piece).unwrap();
        events.extend(drain(&mut session, &mut decoder));
    }
    session.handle_input(Input::End).unwrap();
    events.extend(drain(&mut session, &mut decoder));
    assert_eq!(session.accounting().filled, 0, "drift is no gap");
    events
}

#[test]
fn a_caption_does_not_begin_before_the_gap_in_front_of_it_is_over() {
    // What follows the gap is stated 25 ms early, so the anchor slews back while the caption opens.
    for gap_ms in [10_000, -20_000] {
        let mut session = Session::with_vad("alice", no_interims(), Box::new(Loudness));
        push(&mut session, at_ms(30_000), 16_000, &[0; 160]).unwrap();
        let behind = 30_010 + gap_ms;
        push(&mut session, at_ms(behind), 16_000, &[0; 80]).unwrap();
        let speech = sound(16_000, 2_000, &[(0, 1_000)]);
        push(&mut session, at_ms(behind - 20), 16_000, &speech).unwrap();
        session.handle_input(Input::End).unwrap();
        let events = drain(&mut session, &mut ScriptedDecoder::new(says_length));
        let Some(CaptionEvent::Final { start_time, .. }) = events.last() else { panic!("{events:?}") };
        assert!(*start_time >= at_ms(behind), "{start_time} lies in the gap, which ends at {}", at_ms(behind));
    }
}

#[test]
fn captions_do_not_overlap_while_the_anchor_slews() {
    for (ppm, jump) in [(-100, None), (100, None), (0, Some((20_000, -50))), (0, Some((20_000, 50))), (-500, None)] {
        let spans: Vec<_> = drifting(ppm, jump, 120)
            .into_iter()
            .map(|event| match event {
                CaptionEvent::Final { start_time, end_time, .. } => (start_time, end_time),
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(spans.len() > 10);
        for pair in spans.windows(2) {
            assert!(pair[0].0 < pair[0].1 && pair[0].1 <= pair[1].0, "{ppm} ppm, {jump:?}: {pair:?}");
        }
        let last = spans.last().unwrap().1.as_nanos() / MS;
        let expected = 120_000 + 120 * ppm / 1_000 + jump.map_or(0, |(_, by_ms)| by_ms);
        assert!((last - expected).abs() <= 20, "{ppm} ppm, {jump:?}: the end is at {last} ms, not {expected}");
    }
}

#[test]
fn the_way_audio_is_cut_changes_nothing_while_the_anchor_slews() {
    let samples = sound(16_000, 30_000, &[(500, 12_000), (14_000, 29_000)]);
    let run = |piece: usize| {
        let mut session = Session::with_vad("alice", no_interims(), Box::new(Loudness));
        let (mut decoder, mut events, mut from) = (ScriptedDecoder::new(says_length), Vec::new(), 0);
        while from < samples.len() {
            // The sender's clock steps back by 50 ms after a second, for good.
            let to = from.saturating_add(piece).min(samples.len()).min(if from < 16_000 { 16_000 } else { usize::MAX });
            let step = if from >= 16_000 { 50 * MS } else { 0 };
            let at = Timestamp::from_nanos(nanos_of_samples(from as u64, 16_000) - step);
            push(&mut session, at, 16_000, &samples[from..to]).unwrap();
            events.extend(drain(&mut session, &mut decoder));
            from = to;
        }
        session.handle_input(Input::End).unwrap();
        events.extend(drain(&mut session, &mut decoder));
        events
    };
    let whole = run(usize::MAX);
    assert!(whole.len() >= 4);
    for piece in [1, 160, 320, 999, 16_000] {
        assert_eq!(run(piece), whole, "pieces of {piece}");
    }
}

#[test]
fn how_times_of_pieces_are_rounded_decides_nothing() {
    // 11.5 ms early, the anchor slews by steps of 10 µs until just 2 ms are left; at this rate no sample lasts whole
    // nanoseconds.
    let samples = sound(44_101, 23_000, &[(500, 22_000)]);
    let run = |piece: usize| {
        let mut session = Session::with_vad("alice", no_interims(), Box::new(Loudness));
        let (mut decoder, mut events) = (ScriptedDecoder::new(says_length), Vec::new());
        push(&mut session, at_ms(0), 8_000, &[0; 92]).unwrap();
        for (index, samples) in samples.chunks(piece).enumerate() {
            let at = Timestamp::from_nanos(nanos_of_samples((index * piece) as u64, 44_101));
            push(&mut session, at, 44_101, samples).unwrap();
            events.extend(drain(&mut session, &mut decoder));
        }
        session.handle_input(Input::End).unwrap();
        events.extend(drain(&mut session, &mut decoder));
        events
    };
    let whole = run(usize::MAX);
    for piece in [1, 7, 320, 960, 50_000] {
        assert_eq!(run(piece), whole, "pieces of {piece}");
    }
}

#[test]
fn settings_change_at_a_forced_cut_too() {
    let samples = sound(16_000, 25_000, &[(100, 25_000)]);
    let mut session = Session::with_vad("alice", no_interims(), Box::new(Loudness));
    push(&mut session, at_ms(0), 16_000, &samples[..16_000]).unwrap();
    let mut french = no_interims();
    french.language = "fr".parse().unwrap();
    session.handle_input(Input::Configure(french)).unwrap();
    push(&mut session, at_ms(1_000), 16_000, &samples[16_000..]).unwrap();
    session.handle_input(Input::End).unwrap();
    let mut languages = Vec::new();
    languages.extend(asked(&mut session).iter().map(|job| job.language.to_string()));
    assert!(languages.len() >= 3, "{languages:?}");
    assert_eq!(languages[0], "en", "the caption that was open keeps its language");
    assert!(languages[1..].iter().all(|language| language == "fr"), "{languages:?}");
}

#[test]
fn samples_that_are_no_numbers_and_decoders_that_find_nothing_are_counted() {
    let mut samples: Vec<f32> =
        sound(16_000, 4_000, &[(500, 2_500)]).iter().map(|x| f32::from(*x) / 32_768.0).collect();
    samples[30_000] = f32::NAN;
    samples[60_000] = f32::INFINITY;
    let mut session = Session::with_vad("alice", no_interims(), Box::new(Loudness));
    let pcm = Pcm::mono(16_000, &samples[..]).unwrap();
    session.handle_input(Input::Audio { at: at_ms(0), pcm }).unwrap();
    session.handle_input(Input::End).unwrap();
    let events = drain(&mut session, &mut ScriptedDecoder::new(|job: &DecodeJob| Ok(Hypothesis::certain(" ", job))));
    assert!(matches!(events[..], [CaptionEvent::Suppressed { reason: Suppression::Empty, .. }]), "{events:?}");
    let accounting = session.accounting();
    assert_eq!((accounting.non_finite, accounting.suppressed), (2, 2_000 * 16));
}
