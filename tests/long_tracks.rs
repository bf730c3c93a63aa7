//! Tracks of many hours, in virtual time: memory stays flat, times stay exact, a sender's clock is followed.
//!
//! The whole hundred hours, with the memory that the process takes (on Linux), in some minutes:
//! `cargo test --release -p cuewire --no-default-features --test long_tracks -- --ignored --nocapture`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Instant;

use cuewire::asr::{DecodeJob, Hypothesis, ScriptedDecoder};
use cuewire::caption::CaptionEvent;
use cuewire::config::Config;
use cuewire::session::{Input, Session};
use cuewire::time::{SampleIndex, Timestamp};
use memory::resident_kib;
use support::*;

#[path = "support/memory.rs"]
mod memory;
#[path = "support/session.rs"]
mod support;

/// When tracks begin: 2024-02-28T08:18:18.061031795Z.
const BEGIN: i64 = 1_709_108_298_061_031_795;
/// 16 kHz samples last a whole number of nanoseconds.
const SAMPLE_NANOS: i64 = 62_500;
const MINUTE_MS: i64 = 60_000;
/// Speech in a minute, in milliseconds: five sentences and a long pause.
const SPEECH: [(u64, u64); 5] = [(500, 4_500), (6_500, 10_500), (12_500, 16_500), (18_500, 22_500), (24_500, 28_500)];

fn decoder() -> ScriptedDecoder<impl FnMut(&DecodeJob) -> Result<Hypothesis, cuewire::asr::DecodeError> + Send> {
    ScriptedDecoder::new(|job: &DecodeJob| Ok(Hypothesis::certain(&"word ".repeat(job.audio.len() / 8_000), job)))
}

/// The spans of finals, in nanoseconds. Anything else but an interim is a fault.
fn spans(events: &[CaptionEvent]) -> Vec<(i64, i64)> {
    let span = |event: &CaptionEvent| match event {
        CaptionEvent::Final { start_time, end_time, .. } => Some((start_time.as_nanos(), end_time.as_nanos())),
        CaptionEvent::Interim { .. } => None,
        other => panic!("{other:?}"),
    };
    events.iter().filter_map(span).collect()
}

/// One track of `minutes` in pushes of 20 ms, with interims; every caption's time must be exact to the sample.
/// Returns the process's memory in KiB at its start, in the middle and at its end.
fn long_track(rate: u32, minutes: i64) -> Vec<u64> {
    let began = Instant::now();
    let minute = sound(rate, MINUTE_MS as u64, &SPEECH);
    let mut session = Session::with_vad("alice", Config::default(), Box::new(Loudness));
    let mut decoder = decoder();
    // Exact at any time: 20 ms are a whole number of frames and of nanoseconds.
    let packet = rate as usize / 50;
    let mut memory = Vec::new();
    for i in 0..minutes {
        let mut events = Vec::new();
        for (j, piece) in minute.chunks(packet).enumerate() {
            let at = Timestamp::from_nanos(BEGIN + (i * 3_000 + j as i64) * 20 * MS);
            push(&mut session, at, rate, piece).unwrap();
            events.extend(drain(&mut session, &mut decoder));
        }
        let at = |ms: u64| BEGIN + (i * MINUTE_MS + ms as i64) * 16 * SAMPLE_NANOS;
        assert_eq!(spans(&events), SPEECH.map(|(from, to)| (at(from), at(to))), "{rate} Hz, minute {i}");
        if [1, minutes / 2, minutes - 1].contains(&i) {
            memory.extend(resident_kib());
            println!("{rate} Hz, minute {i}: {:?} KiB, {:.1} s", memory.last(), began.elapsed().as_secs_f64());
        }
    }
    session.handle_input(Input::End).unwrap();
    let accounting = session.accounting();
    assert_eq!(accounting.total(), minutes as u64 * 60 * 16_000, "{rate} Hz: a sample more or less");
    assert_eq!(accounting.captioned, minutes as u64 * 20 * 16_000, "{rate} Hz");
    memory
}

#[test]
fn a_track_is_exact_past_what_a_small_float_counts() {
    // 2^24 samples are 17.5 minutes.
    long_track(16_000, 20);
    long_track(48_000, 6);
}

#[test]
#[ignore = "takes minutes: see the top of this file"]
fn a_hundred_hours_are_flat_and_exact() {
    // Samples pass 2^31 after 37.3 hours and 2^32 after 74.6; frames at 48 kHz after 12.4 and 24.9.
    for (rate, hours) in [(16_000, 100), (48_000, 25)] {
        let memory = long_track(rate, hours * 60);
        if let [first, .., last] = memory[..] {
            assert!(last.saturating_sub(first) < 2_048, "{rate} Hz: memory grew: {memory:?} KiB");
        } else {
            println!("{rate} Hz: the memory of a process can be read on Linux only: not checked");
        }
    }
}

#[test]
fn samples_pass_every_boundary_of_a_counter() {
    // Samples in 24, 31 and 32 bits, milliseconds in 31 and 32, and what a large float counts.
    for boundary in [1u64 << 24, 1 << 31, 1 << 32, 16 << 31, 16 << 32, 1 << 53] {
        for rate in [16_000u32, 48_000] {
            // 5 s before it and 5 s behind; the second caption and its interims reach across.
            let first = boundary - 5 * 16_000;
            let mut session =
                Session::with_vad("alice", Config::default(), Box::new(Loudness)).starting_at(SampleIndex(first));
            let (mut jobs, mut events) = (Vec::new(), Vec::new());
            let mut answer = decoder();
            let mut decoder = ScriptedDecoder::new(|job: &DecodeJob| {
                jobs.push((job.start.0, job.audio.len() as u64, job.due.0));
                cuewire::asr::Decoder::decode(&mut answer, job, &cuewire::asr::Cancel::new())
            });
            let speech = [(1_000, 2_000), (4_000, 6_000), (8_000, 9_000)];
            for (i, piece) in sound(rate, 10_000, &speech).chunks(rate as usize / 50).enumerate() {
                push(&mut session, Timestamp::from_nanos(BEGIN + i as i64 * 20 * MS), rate, piece).unwrap();
                events.extend(drain(&mut session, &mut decoder));
            }
            session.handle_input(Input::End).unwrap();
            events.extend(drain(&mut session, &mut decoder));
            let exact = speech.map(|(from, to)| (BEGIN + from as i64 * MS, BEGIN + to as i64 * MS));
            assert_eq!(spans(&events), exact, "{boundary}, {rate} Hz");
            assert!(events.len() > 5, "{boundary}, {rate} Hz: no interims: {events:?}");
            assert_eq!(session.accounting().total(), 160_000, "{boundary}, {rate} Hz");
            let starts: Vec<u64> = speech.iter().map(|(from, _)| first + (from - 300) * 16).collect();
            for (start, length, due) in jobs {
                assert!(starts.contains(&start), "{boundary}, {rate} Hz: a job from {start}, not one of {starts:?}");
                assert!(due >= start + length && due <= boundary + 80_000, "{boundary}: {start} + {length}, due {due}");
            }
        }
    }
}

/// How far captions are from the sender's time of their samples, at most, in nanoseconds, where its clock is off by `ppm`
/// and packets are stated up to `jitter_ms` early or late.
fn drifting(ppm: i64, jitter_ms: i64, minutes: i64) -> i64 {
    let minute = sound(16_000, MINUTE_MS as u64, &SPEECH);
    let mut session = Session::with_vad("alice", no_interims(), Box::new(Loudness));
    let mut decoder = decoder();
    // Its clock at a sample of the track.
    let sender = |sample: i64| BEGIN + sample * SAMPLE_NANOS + sample * SAMPLE_NANOS / 1_000_000 * ppm;
    let (mut worst, mut random) = (0, 1u32);
    for i in 0..minutes {
        let mut events = Vec::new();
        for (j, piece) in minute.chunks(320).enumerate() {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let jitter = ((i64::from(random >> 8) * 2 * jitter_ms * MS) >> 24) - jitter_ms * MS;
            let at = Timestamp::from_nanos(sender((i * 3_000 + j as i64) * 320) + jitter);
            push(&mut session, at, 16_000, piece).unwrap();
            events.extend(drain(&mut session, &mut decoder));
        }
        // A gap is no span: it is a fault there.
        let spans = spans(&events);
        assert_eq!(spans.len(), SPEECH.len(), "{ppm} ppm ± {jitter_ms} ms, minute {i}");
        for ((start, end), (from, to)) in spans.into_iter().zip(SPEECH) {
            for (time, ms) in [(start, from), (end, to)] {
                worst = worst.max((time - sender((i * MINUTE_MS + ms as i64) * 16)).abs());
            }
        }
    }
    assert_eq!(session.accounting().filled, 0, "{ppm} ppm ± {jitter_ms} ms: drift is no gap");
    worst
}

#[test]
fn a_clock_that_drifts_for_ten_hours_is_followed_and_makes_no_gap() {
    for (ppm, jitter_ms) in [(100, 0), (-100, 0), (100, 10)] {
        let began = Instant::now();
        let worst = drifting(ppm, jitter_ms, 10 * 60);
        println!("{ppm} ppm ± {jitter_ms} ms: off by at most {worst} ns; {:.1} s", began.elapsed().as_secs_f64());
        assert!(worst <= 50 * MS, "{ppm} ppm ± {jitter_ms} ms: a caption is off by {worst} ns");
    }
}
