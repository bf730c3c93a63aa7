//! What a host tells a session besides audio: what was lost, what was given up, and when a turn is over.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use cuewire::asr::{DecodeError, DecodeJob, Hypothesis, ScriptedDecoder};
use cuewire::caption::{CaptionEvent, Retraction};
use cuewire::config::{Config, VadMode};
use cuewire::session::{Input, InputError, Output, Session};
use cuewire::time::Timestamp;
use support::*;

#[path = "support/session.rs"]
mod support;

fn hears(job: &DecodeJob) -> Result<Hypothesis, DecodeError> {
    Ok(Hypothesis::certain("words", job))
}

/// What became of which span, in milliseconds; interims left out.
fn told(events: &[CaptionEvent]) -> Vec<String> {
    let span = |from: Timestamp, to: Timestamp| format!("{} – {}", from.as_nanos() / MS, to.as_nanos() / MS);
    let told = |event: &CaptionEvent| match event {
        CaptionEvent::Final { start_time, end_time, .. } => Some(format!("final {}", span(*start_time, *end_time))),
        CaptionEvent::Gap { from, to, reason, .. } => Some(format!("{reason:?} {}", span(*from, *to))),
        CaptionEvent::Retracted { reason: Retraction::Lost, .. } => Some("retracted".to_string()),
        CaptionEvent::Interim { .. } => None,
        other => panic!("{other:?}"),
    };
    events.iter().filter_map(told).collect()
}

#[test]
fn a_caption_that_is_given_up_or_called_off_is_a_gap_that_says_so() {
    let samples = sound(16_000, 4_000, &[(1_000, 3_000)]);
    for (error, expected) in [
        (DecodeError::Shed, "Overload"),
        (DecodeError::Cancelled, "Abandoned"),
        (DecodeError::Failed("a fault".into()), "DecodeFailed"),
        (DecodeError::Invalid("a wrong job".into()), "DecodeFailed"),
    ] {
        let mut session = Session::with_vad("alice", no_interims(), Box::new(Loudness));
        push(&mut session, at_ms(0), 16_000, &samples).unwrap();
        session.handle_input(Input::End).unwrap();
        let events = drain(&mut session, &mut ScriptedDecoder::new(|_: &DecodeJob| Err(error.clone())));
        assert_eq!(told(&events), [format!("{expected} 1000 – 3000")], "{error}");
        let accounting = session.accounting();
        assert_eq!((accounting.lost, accounting.total()), (32_000, samples.len() as u64), "{error}");
    }
}

/// Speech from 500 ms to 2 s, a loss, and 2 s of speech at `next`.
fn with_loss(lost: (i64, i64), next: i64) -> (Vec<CaptionEvent>, Session) {
    let mut session = Session::with_vad("alice", no_interims(), Box::new(Loudness));
    let mut decoder = ScriptedDecoder::new(hears);
    push(&mut session, at_ms(0), 48_000, &sound(48_000, 2_000, &[(500, 2_000)])).unwrap();
    session.handle_input(Input::Lost { from: at_ms(lost.0), to: at_ms(lost.1) }).unwrap();
    push(&mut session, at_ms(next), 48_000, &sound(48_000, 2_000, &[(0, 2_000)])).unwrap();
    session.handle_input(Input::End).unwrap();
    (drain(&mut session, &mut decoder), session)
}

#[test]
fn lost_audio_ends_the_caption_and_is_declared_once() {
    for (lost, next, expected, filled_ms) in [
        ((2_000, 2_500), 2_500, &["Overload 2000 – 2500", "final 2500 – 4500"][..], 0),
        // The next push is dated by itself, and lies behind the gap all the same.
        ((2_000, 2_500), 2_560, &["Overload 2000 – 2500", "final 2560 – 4560"], 0),
        ((2_000, 2_500), 2_440, &["Overload 2000 – 2500", "final 2500 – 4440"], 0),
        // What is missing behind it is treated as behind any audio.
        ((2_000, 2_500), 3_500, &["Overload 2000 – 2500", "final 3500 – 5500"], 1_000),
        ((2_000, 2_500), 9_000, &["Overload 2000 – 2500", "NoAudio 2500 – 9000", "final 9000 – 11000"], 0),
        // So is what is missing before it.
        ((2_060, 2_500), 2_500, &["Overload 2060 – 2500", "final 2500 – 4500"], 0),
        ((1_940, 2_500), 2_500, &["Overload 2000 – 2500", "final 2500 – 4500"], 0),
        ((2_061, 2_500), 2_500, &["NoAudio 2000 – 2061", "Overload 2061 – 2500", "final 2500 – 4500"], 0),
        ((9_000, 9_500), 9_500, &["NoAudio 2000 – 9000", "Overload 9000 – 9500", "final 9500 – 11500"], 0),
        (
            (-20_000, -19_000),
            -19_000,
            &["ClockRestarted 2000 – -20000", "Overload -20000 – -19000", "final -19000 – -17000"],
            0,
        ),
    ] {
        let (events, session) = with_loss(lost, next);
        let told = told(&events);
        assert_eq!(told[0], "final 500 – 2000", "{lost:?}, {next}: the caption before is over");
        assert_eq!(told[1..], *expected, "{lost:?}, {next}");
        let accounting = session.accounting();
        let lost_samples = (lost.1 - lost.0) as u64 * 16;
        assert_eq!((accounting.lost, accounting.filled), (lost_samples, filled_ms * 16), "{lost:?}, {next}");
        assert_eq!(accounting.total(), lost_samples + (4_000 + filled_ms) * 16, "{lost:?}, {next}");
    }
}

#[test]
fn a_loss_waits_behind_captions_and_a_wrong_one_changes_nothing() {
    let mut session = Session::with_vad("alice", no_interims(), Box::new(Loudness));
    let lose = |session: &mut Session, from: i64, to: i64| {
        session.handle_input(Input::Lost { from: at_ms(from), to: at_ms(to) })
    };
    lose(&mut session, 0, 1_000).unwrap();
    push(&mut session, at_ms(1_000), 16_000, &sound(16_000, 2_000, &[(0, 2_000)])).unwrap();
    let before = session.accounting();
    lose(&mut session, 3_000, 3_000).unwrap();
    lose(&mut session, 3_000, 2_000).unwrap();
    assert!(matches!(lose(&mut session, 1_500, 4_000), Err(InputError::TimeWentBack(_))));
    assert_eq!(session.accounting(), before);
    assert!(
        !std::iter::from_fn(|| Some(session.poll_output()))
            .take_while(|output| !matches!(output, Output::Wait(_)))
            .any(|output| matches!(output, Output::Closed { .. }))
    );
    // Two in a row: a gap each, both behind the caption that is still to be recognised.
    lose(&mut session, 3_000, 3_500).unwrap();
    lose(&mut session, 3_490, 4_000).unwrap();
    assert_eq!(session.accounting().pending, 32_000);
    let events = drain(&mut session, &mut ScriptedDecoder::new(hears));
    assert_eq!(told(&events), ["final 1000 – 3000", "Overload 3000 – 3500", "Overload 3500 – 4000"]);
    session.handle_input(Input::End).unwrap();
    assert_eq!(lose(&mut session, 4_000, 5_000), Err(InputError::Ended));
}

#[test]
fn a_flush_closes_the_open_caption_at_once_and_the_audio_goes_on() {
    // In speech, at its end, and inside the silence that would close it.
    for (ms, expected) in [
        (1_500, &["final 500 – 1500", "final 1500 – 2000", "final 4000 – 5000"][..]),
        (2_000, &["final 500 – 2000", "final 4000 – 5000"]),
        (2_400, &["final 500 – 2000", "final 4000 – 5000"]),
    ] {
        let samples = sound(16_000, 6_000, &[(500, 2_000), (4_000, 5_000)]);
        let (one, two) = samples.split_at(ms * 16);
        for early in [false, true] {
            let mut config = no_interims();
            config.early_finals = early;
            let mut session = Session::with_vad("alice", config, Box::new(Loudness));
            let mut decoder = ScriptedDecoder::new(hears);
            push(&mut session, at_ms(0), 16_000, one).unwrap();
            assert_eq!(drain(&mut session, &mut decoder), [], "{ms} ms");
            session.handle_input(Input::Flush).unwrap();
            let mut events = drain(&mut session, &mut decoder);
            assert_eq!(told(&events), [expected[0]], "{ms} ms: a flush gives the caption without more audio");
            push(&mut session, at_ms(ms as i64), 16_000, two).unwrap();
            session.handle_input(Input::End).unwrap();
            session.handle_input(Input::Flush).unwrap();
            events.extend(drain(&mut session, &mut decoder));
            assert_eq!(told(&events), expected, "{ms} ms");
            assert_eq!(session.accounting().total(), samples.len() as u64);
        }
    }
}

#[test]
fn a_flush_hears_nothing_twice_and_without_a_caption_it_changes_nothing() {
    let samples = sound(16_000, 4_000, &[(500, 3_000)]);
    for (flush_ms, captions) in [(100, 1), (600, 1), (1_510, 2)] {
        let mut session = Session::with_vad("alice", no_interims(), Box::new(Loudness));
        let mut heard = Vec::new();
        let (one, two) = samples.split_at(flush_ms * 16);
        push(&mut session, at_ms(0), 16_000, one).unwrap();
        session.handle_input(Input::Flush).unwrap();
        push(&mut session, at_ms(flush_ms as i64), 16_000, two).unwrap();
        let events = drain(
            &mut session,
            &mut ScriptedDecoder::new(|job: &DecodeJob| {
                heard.push((job.start.0, job.start.0 + job.audio.len() as u64));
                hears(job)
            }),
        );
        assert_eq!(told(&events).len(), captions, "{flush_ms} ms");
        assert_eq!(heard[0].0, 200 * 16, "{flush_ms} ms: the pre-roll");
        // The last frame is not whole at 1510 ms: it is the next caption's.
        assert!(heard.windows(2).all(|pair| pair[0].1 == pair[1].0), "{flush_ms} ms: {heard:?}");
        assert_eq!(heard.last().unwrap().1, 3_300 * 16, "{flush_ms} ms: the margin");
    }
}

#[test]
fn the_real_detectors_hangover_opens_no_caption_behind_a_flush() {
    let samples = sound(16_000, 2_000, &[(500, 2_000)]);
    for mode in [VadMode::Quality, VadMode::LowBitrate, VadMode::Aggressive, VadMode::VeryAggressive] {
        let mut config = Config::default();
        config.vad_mode = mode;
        let mut session = Session::new("alice", config);
        push(&mut session, at_ms(0), 16_000, &samples).unwrap();
        session.handle_input(Input::Flush).unwrap();
        push(&mut session, at_ms(2_000), 16_000, &[0; 32_000]).unwrap();
        session.handle_input(Input::End).unwrap();
        let told = told(&drain(&mut session, &mut ScriptedDecoder::new(hears)));
        assert_eq!(told.len(), 1, "{mode:?}: {told:?}");
    }
}
