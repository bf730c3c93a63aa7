//! Translations in the engine: behind their originals, behind all other work, and the first to be done without.
#![cfg(feature = "engine")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cuewire::asr::{Cancel, DecodeError, DecodeJob, Decoder, Hypothesis, JobKind, ScriptedDecoder};
use cuewire::caption::CaptionEvent;
use cuewire::config::Config;
use cuewire::engine::{
    Engine, EngineError, EngineEvent, Idle, Model, OverloadLevel, Subscription, TrackConfig, TrackId, TrackReport,
};
use host::*;
use support::*;

#[path = "support/engine.rs"]
mod host;
#[path = "support/session.rs"]
mod support;

/// A track whose captions are translated.
fn french(speaker_id: &str) -> TrackConfig {
    let mut config = unhurried(speaker_id);
    (config.config.language, config.config.translations) = ("fr".parse().unwrap(), true);
    config
}

/// Speech from 0 to 2 s.
fn speaking() -> Vec<i16> {
    sound(48_000, 2_000, &[(0, 2_000)])
}

/// What is said until the track has ended, and what became of it.
fn until_end(events: &Subscription, track: TrackId) -> (Vec<String>, TrackReport) {
    let mut told = Vec::new();
    loop {
        match events.recv_timeout(PATIENCE).unwrap() {
            EngineEvent::Caption { event: CaptionEvent::Final { id, .. }, mark, ledger: Some(_), .. } => {
                told.push(format!("{mark}: final {}", id.0));
            }
            EngineEvent::Caption { event: CaptionEvent::Translation { id, .. }, mark, ledger: None, .. } => {
                told.push(format!("{mark}: translation {}", id.0));
            }
            EngineEvent::Marked { mark, .. } => told.push(format!("mark {mark}")),
            EngineEvent::Failed { error, .. } => told.push(error.to_string()),
            EngineEvent::Ended { track: of, report } if of == track => return (told, report),
            EngineEvent::Ended { .. } | EngineEvent::Overload { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_translation_comes_behind_its_original_and_marks_and_the_end_behind_it() {
    let engine = engine(1, says_length);
    let events = engine.subscribe();
    let (mut sender, track) = engine.add_track(french("alice")).unwrap();
    engine.mark(track, 1).unwrap();
    push_all(&mut sender, 0, &speaking());
    engine.mark(track, 2).unwrap();
    drop(sender);
    let (told, report) = until_end(&events, track);
    assert_eq!(told, ["mark 1", "1: final 0", "1: translation 0", "mark 2"]);
    assert_eq!((report.translations_declined, report.accounting.captioned), (0, report.accounting.total()));
}

#[test]
fn a_translation_that_fails_costs_nothing_of_its_original() {
    let engine = engine(1, |job| match job.kind {
        JobKind::Translation => Err(DecodeError::Failed("out of order".into())),
        _ => says_length(job),
    });
    let events = engine.subscribe();
    let (mut sender, track) = engine.add_track(french("alice")).unwrap();
    push_all(&mut sender, 0, &speaking());
    drop(sender);
    let (told, report) = until_end(&events, track);
    assert_eq!(told, ["0: final 0", "the decoder failed: out of order"]);
    assert_eq!(report.accounting.captioned, report.accounting.total());
}

#[test]
fn overload_drops_translations_first() {
    let is_stuck = Arc::new(AtomicBool::new(true));
    let stuck = is_stuck.clone();
    let engine = Engine::start(with_workers(1), Arc::new(move |_: &Idle| Stuck(stuck.clone()))).unwrap();
    let events = engine.subscribe();
    let tracks: Vec<_> = ["alice", "bob"]
        .into_iter()
        .map(|name| {
            let mut config = french(name);
            config.patience = Duration::from_secs(8);
            let (mut sender, track) = engine.add_track(config).unwrap();
            push_all(&mut sender, 0, &speaking());
            engine.flush(track).unwrap();
            (sender, track)
        })
        .collect();
    // The final that waits for the one in progress asks for something to be done without.
    let wait_for = |is_level: &dyn Fn(OverloadLevel) -> bool| {
        let mut translations = 0;
        loop {
            match events.recv_timeout(PATIENCE).unwrap() {
                EngineEvent::Overload { level } if is_level(level) => return translations,
                EngineEvent::Caption { event: CaptionEvent::Translation { .. }, .. } => translations += 1,
                EngineEvent::Caption { event: CaptionEvent::Final { .. }, .. } | EngineEvent::Overload { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    };
    wait_for(&|level| level > OverloadLevel::None);
    is_stuck.store(false, Ordering::SeqCst);
    assert_eq!(wait_for(&|level| level == OverloadLevel::None), 0, "both finals were said, and no translation");
    for (sender, track) in tracks {
        drop(sender);
        let (told, report) = until_end(&events, track);
        assert!(!told.iter().any(|told| told.contains("translation")), "{told:?}");
        assert_eq!((report.translations_declined, report.finals_shed, report.accounting.lost), (1, 0, 0), "{report:?}");
    }
    // Once it is over they are made again; of tracks that never ask for something to be done without.
    for name in ["carol", "dave"] {
        let (mut sender, track) = engine.add_track(french(name)).unwrap();
        push_all(&mut sender, 0, &speaking());
        drop(sender);
        let (told, report) = until_end(&events, track);
        assert_eq!(told, ["0: final 0", "0: translation 0"]);
        assert_eq!((report.translations_declined, report.accounting.lost), (0, 0), "{report:?}");
    }
}

#[test]
fn shutting_down_waits_for_translations_until_its_deadline() {
    /// Translates nothing until it is called off.
    struct Slow(Stuck);
    impl Decoder for Slow {
        fn decode(&mut self, job: &DecodeJob, cancel: &Cancel) -> Result<Hypothesis, DecodeError> {
            if job.kind == JobKind::Translation { self.0.decode(job, cancel) } else { says_length(job) }
        }
    }
    for (is_stuck, patience, expected) in [
        (false, Duration::MAX, &["0: final 0", "0: translation 0", "mark 1"][..]),
        (true, Duration::from_millis(300), &["0: final 0", "mark 1"]),
    ] {
        let stuck = Arc::new(AtomicBool::new(is_stuck));
        let model = Arc::new(move |_: &Idle| Slow(Stuck(stuck.clone())));
        let engine = Engine::start(with_workers(1), model).unwrap();
        let events = engine.subscribe();
        let (mut sender, track) = engine.add_track(french("alice")).unwrap();
        push_all(&mut sender, 0, &speaking());
        engine.mark(track, 1).unwrap();
        let start = Instant::now();
        let reports = engine.shutdown(patience);
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        let (told, report) = until_end(&events, track);
        assert_eq!(told, expected);
        assert_eq!((report.translations_declined, report.accounting.lost), (0, 0));
        assert_eq!(reports, [(track, report)]);
    }
}

/// Does not translate.
struct Mute;

impl Model for Mute {
    fn decoder(self: Arc<Self>, _: &Idle) -> Box<dyn Decoder> {
        Box::new(ScriptedDecoder::new(says_length))
    }
    fn check(&self, config: &Config) -> Result<(), String> {
        if config.translations { Err("nothing is translated here".into()) } else { Ok(()) }
    }
}

#[test]
fn a_model_that_cannot_translate_is_not_asked_to() {
    let engine = Engine::start(with_workers(1), Arc::new(Mute)).unwrap();
    let refused = engine.add_track(french("alice")).err().unwrap();
    assert!(matches!(&refused, EngineError::Model(text) if text.contains("nothing is translated")), "{refused}");
    let (_sender, track) = engine.add_track(patient("alice")).unwrap();
    assert!(matches!(engine.reconfigure(track, french("alice").config), Err(EngineError::Model(_))));
}
