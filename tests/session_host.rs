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
        // A loss that is shorter than the jitter by which it is stated early.
        ((1_950, 1_960), 1_960, &["Overload 2000 – 2000", "final 2000 – 3960"], 0),
        // A hole behind what is stated early begins where that ends.
        ((1_950, 1_960), 9_000, &["Overload 2000 – 2000", "NoAudio 2000 – 9000", "final 9000 – 11000"], 0),
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
        assert!(heard.windows(2).all(|pair| pair[0].1 == pair[1].0), "{flush_ms} ms: {heard:?}");
        // Behind 1510 ms frames begin anew there.
        let margin_ms = if flush_ms == 1_510 { 3_310 } else { 3_300 };
        assert_eq!(heard.last().unwrap().1, margin_ms * 16, "{flush_ms} ms: the margin");
        if flush_ms == 1_510 {
            assert_eq!(heard[0].1, 1_510 * 16, "what was pushed belongs to the caption, also the last half of a frame");
        }
    }
}

#[test]
fn a_flush_behind_a_resampler_loses_nothing_and_repeats_nothing() {
    let samples = sound(48_000, 4_000, &[(500, 3_000)]);
    let (one, two) = samples.split_at(1_517 * 48);
    let mut session = Session::with_vad("alice", no_interims(), Box::new(Loudness));
    let mut decoder = ScriptedDecoder::new(hears);
    push(&mut session, at_ms(0), 48_000, one).unwrap();
    session.handle_input(Input::Flush).unwrap();
    assert_eq!(told(&drain(&mut session, &mut decoder)), ["final 500 – 1517"]);
    push(&mut session, at_ms(1_517), 48_000, two).unwrap();
    session.handle_input(Input::End).unwrap();
    let rest = told(&drain(&mut session, &mut decoder));
    assert!(rest.len() == 1 && rest[0].starts_with("final 1517 – 30"), "{rest:?}");
    assert_eq!(session.accounting().total(), 4_000 * 16);
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

/// What is said of speech in `spans`, and the milliseconds that its jobs hear, where pauses begin and end at these times.
fn with_pauses(rate: u32, spans: &[(u64, u64)], pauses: &[(i64, bool)]) -> (Vec<String>, Vec<(u64, u64)>, Session) {
    let config = |paused| {
        let mut config = Config::default();
        config.paused = paused;
        config
    };
    let mut session = Session::with_vad("alice", config(pauses[0] == (0, true)), Box::new(Loudness));
    let (mut heard, mut events) = (Vec::new(), Vec::new());
    let mut decoder = ScriptedDecoder::new(|job: &DecodeJob| {
        heard.push((job.start.0 / 16, (job.start.0 + job.audio.len() as u64) / 16));
        hears(job)
    });
    for (i, piece) in sound(rate, 14_000, spans).chunks(rate as usize / 100).enumerate() {
        let ms = i as i64 * 10;
        if let Some((_, paused)) = pauses.iter().find(|(at, _)| *at == ms) {
            session.handle_input(Input::Configure(config(*paused))).unwrap();
            assert_eq!(session.config().paused, *paused, "at once");
        }
        push(&mut session, at_ms(ms), rate, piece).unwrap();
        events.extend(drain(&mut session, &mut decoder));
    }
    session.handle_input(Input::End).unwrap();
    events.extend(drain(&mut session, &mut decoder));
    (told(&events), heard, session)
}

#[test]
fn under_a_pause_the_open_caption_ends_and_none_opens() {
    let spans = [(500, 2_000), (3_000, 4_000), (5_000, 6_000)];
    for (pauses, expected, from) in [
        (&[(0, true)][..], &[][..], 0),
        (&[(0, true), (2_500, false)], &["3000 – 4000", "5000 – 6000"], 2_700),
        // In speech. Frames begin anew there, and so end 10 ms later.
        (&[(1_500, true), (3_510, false)], &["500 – 2000", "3510 – 4010", "4990 – 6010"], 200),
        // The silence that ends the caption is not over: it is as if there had been no pause.
        (&[(1_500, true), (2_400, false)], &["500 – 2000", "3000 – 4000", "5000 – 6000"], 200),
        // No pre-roll from under the pause.
        (&[(2_800, true), (2_900, false)], &["500 – 2000", "3000 – 4000", "5000 – 6000"], 200),
        (&[(4_900, true), (5_010, true), (5_200, false)], &["500 – 2000", "3000 – 4000", "5200 – 6000"], 200),
    ] {
        for rate in [16_000, 48_000] {
            let (told, heard, session) = with_pauses(rate, &spans, pauses);
            let told: Vec<_> = told.iter().map(|told| told.replace("final ", "")).collect();
            assert_eq!(told, expected, "{rate} Hz, {pauses:?}");
            assert_eq!(heard.first().map_or(0, |heard| heard.0), from, "{rate} Hz, {pauses:?}: {heard:?}");
            // Of the caption that was open when the pause began jobs are asked under it.
            let lifted = pauses.iter().find(|(_, paused)| !paused).map_or(i64::MAX, |(at, _)| *at) as u64;
            let began = pauses[0].0 as u64;
            let under = |heard: &&(u64, u64)| heard.0 > began && heard.0 < lifted;
            assert_eq!(heard.iter().find(under), None, "{rate} Hz, {pauses:?}: {heard:?}");
            let (of, ms) = (session.accounting(), |span: &&str| {
                let (from, to) = span.split_once(" – ").unwrap();
                to.parse::<u64>().unwrap() - from.parse::<u64>().unwrap()
            });
            let captioned = expected.iter().map(ms).sum::<u64>() * 16;
            assert_eq!((of.captioned, of.silence, of.total()), (captioned, 14_000 * 16 - captioned, 14_000 * 16));
        }
    }
}

#[test]
fn a_cut_under_a_pause_opens_no_caption() {
    let (told, heard, session) = with_pauses(16_000, &[(500, 13_000)], &[(3_000, true), (11_000, false)]);
    let (from, to) = told[0].strip_prefix("final ").unwrap().split_once(" – ").unwrap();
    assert!(from == "500" && (6_000..=9_500).contains(&to.parse::<i64>().unwrap()), "{told:?}");
    assert_eq!(told[1..], ["final 11000 – 13000"]);
    assert!(heard.iter().all(|heard| heard.0 == 200 || heard.0 == 11_000), "{heard:?}");
    assert_eq!(session.accounting().silence, 14_000 * 16 - session.accounting().captioned);
}

#[test]
fn a_pause_is_at_once_and_other_settings_wait_for_the_next_caption() {
    let mut session = Session::with_vad("alice", no_interims(), Box::new(Loudness));
    push(&mut session, at_ms(0), 16_000, &sound(16_000, 2_000, &[(500, 2_000)])).unwrap();
    let mut config = no_interims();
    (config.paused, config.language) = (true, "fr".parse().unwrap());
    session.handle_input(Input::Configure(config)).unwrap();
    assert_eq!((session.config().paused, session.config().language.to_string().as_str()), (true, "en"));
    session.handle_input(Input::Flush).unwrap();
    assert_eq!((session.config().paused, session.config().language.to_string().as_str()), (true, "fr"));
    let before = session.accounting();
    push(&mut session, at_ms(2_000), 16_000, &sound(16_000, 2_000, &[(0, 2_000)])).unwrap();
    session.handle_input(Input::Configure(no_interims())).unwrap();
    let now = session.accounting();
    assert_eq!((now.pending, now.silence - before.silence), (before.pending, 32_000), "it is known to be silence");
}

#[test]
fn the_real_detectors_hangover_opens_no_caption_behind_a_pause() {
    for mode in [VadMode::Quality, VadMode::LowBitrate, VadMode::Aggressive, VadMode::VeryAggressive] {
        let mut config = Config::default();
        (config.vad_mode, config.paused) = (mode, true);
        let mut session = Session::new("alice", config.clone());
        push(&mut session, at_ms(0), 16_000, &sound(16_000, 2_000, &[(500, 2_000)])).unwrap();
        config.paused = false;
        session.handle_input(Input::Configure(config)).unwrap();
        push(&mut session, at_ms(2_000), 16_000, &[0; 32_000]).unwrap();
        session.handle_input(Input::End).unwrap();
        let told = told(&drain(&mut session, &mut ScriptedDecoder::new(hears)));
        assert_eq!(told, [""; 0], "{mode:?}");
    }
}

#[test]
fn the_first_unfinished_caption_is_awaited_or_open_or_the_next() {
    let mut session = Session::with_vad("alice", no_interims(), Box::new(Loudness));
    let known = |session: &Session| (session.unfinished_from().0, session.next_caption().0);
    let mut jobs = Vec::new();
    assert_eq!(known(&session), (0, 0));
    for (i, expected) in [(0, 1), (0, 2)].into_iter().enumerate() {
        push(&mut session, at_ms(2_000 * i as i64), 16_000, &sound(16_000, 2_000, &[(500, 2_000)])).unwrap();
        assert_eq!(known(&session), expected, "open");
        session.handle_input(Input::Flush).unwrap();
        assert_eq!(known(&session), expected, "awaited");
        while let output @ (Output::Decode(_) | Output::Closed { .. }) = session.poll_output() {
            jobs.extend(if let Output::Decode(job) = output { Some(job) } else { None });
        }
    }
    push(&mut session, at_ms(4_000), 16_000, &sound(16_000, 2_000, &[(500, 2_000)])).unwrap();
    for (place, expected) in [(1, (0, 3)), (0, (2, 3))] {
        let answer = Input::Decoded { job: jobs[place].id, result: hears(&jobs[place]) };
        session.handle_input(answer).unwrap();
        assert_eq!(known(&session), expected);
    }
    session.handle_input(Input::End).unwrap();
    drain(&mut session, &mut ScriptedDecoder::new(hears));
    assert_eq!(known(&session), (3, 3));
}
