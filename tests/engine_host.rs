//! What a host tells an engine of its tracks while they run.
#![cfg(feature = "engine")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use cuewire::Pcm;
use cuewire::asr::DecodeError;
use cuewire::caption::CaptionEvent;
use cuewire::engine::{Engine, EngineEvent, Idle, OverloadLevel, Subscription};
use futures_core::Stream;
use host::*;
use support::*;

#[path = "support/engine.rs"]
mod host;
#[path = "support/session.rs"]
mod support;

#[test]
fn a_pause_begins_and_ends_behind_what_was_pushed() {
    // With a caption that is over when the pause begins, and one that is open.
    for (is_over, expected) in [(true, &[(0, 2_000), (4_000, 6_000)][..]), (false, &[(0, 6_000)])] {
        let engine = engine(1, says_length);
        let events = engine.subscribe();
        let (mut sender, track) = engine.add_track(unhurried("alice")).unwrap();
        let speaking = sound(48_000, 2_000, &[(0, 2_000)]);
        for (i, paused) in [false, true, false].into_iter().enumerate() {
            let mut config = unhurried("alice").config;
            config.paused = paused;
            engine.reconfigure(track, config).unwrap();
            push_all(&mut sender, 2_000 * i as i64, &speaking);
            if is_over {
                engine.flush(track).unwrap();
            }
        }
        drop(sender);
        let (told, report) = until_end(&events, track);
        let spans: Vec<_> = told
            .iter()
            .map(|(event, _)| match event {
                CaptionEvent::Final { start_time, end_time, .. } => {
                    (start_time.as_nanos() / MS, end_time.as_nanos() / MS)
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(spans.len(), expected.len(), "{spans:?}");
        for ((start, end), (from, to)) in spans.iter().zip(expected) {
            // The detector hears an onset some frames late; nothing of it lies under the pause.
            assert!((*from..from + 100).contains(start) && (to - 100..=*to).contains(end), "{spans:?}");
        }
        assert_eq!(report.accounting.silence + report.accounting.captioned, 96_000, "{report:?}");
    }
}

/// Holds the thread that wakes it, until the sender at the other end is gone.
struct Hold(Sender<()>, Mutex<Receiver<()>>);

impl Wake for Hold {
    fn wake(self: Arc<Self>) {
        self.0.send(()).unwrap();
        let _ = self.1.lock().unwrap().recv();
    }
}

#[test]
fn what_is_pushed_behind_a_command_is_heard_behind_it() {
    let engine = engine(1, says_length);
    let (mut events, all) = (engine.subscribe(), engine.subscribe());
    let (mut sender, track) = engine.add_track(unhurried("alice")).unwrap();
    let ((reached, held), (release, gate)) = (channel(), channel());
    let waker = Waker::from(Arc::new(Hold(reached, Mutex::new(gate))));
    assert!(Pin::new(&mut events).poll_next(&mut Context::from_waker(&waker)).is_pending());
    // A push that is refused holds the pipeline while it hears: what is pushed meanwhile is there for it.
    for ms in [1_000, 0] {
        sender.push(at_ms(ms), Pcm::mono(48_000, &[0i16; 960][..]).unwrap()).unwrap();
    }
    held.recv().unwrap();
    let mut config = unhurried("alice").config;
    config.paused = true;
    engine.reconfigure(track, config).unwrap();
    push_all(&mut sender, 1_020, &sound(48_000, 1_000, &[(0, 1_000)]));
    drop((release, sender));
    let (told, report) = until_end(&all, track);
    assert_eq!((told.len(), report.accounting.silence), (0, 1_020 * 16), "{told:?}");
}

/// The next events, as they are told apart here.
fn told<const N: usize>(events: &Subscription) -> [String; N] {
    std::array::from_fn(|_| match events.recv_timeout(PATIENCE).unwrap() {
        EngineEvent::Caption { event: CaptionEvent::Interim { id, .. }, mark, .. } => {
            format!("{mark}: interim {}", id.0)
        }
        EngineEvent::Caption { event: CaptionEvent::Final { id, .. }, mark, .. } => format!("{mark}: final {}", id.0),
        EngineEvent::Caption { event: CaptionEvent::Gap { reason, .. }, mark, .. } => format!("{mark}: {reason:?}"),
        EngineEvent::Marked { mark, .. } => format!("mark {mark}"),
        EngineEvent::Ended { .. } => "end".to_string(),
        other => panic!("{other:?}"),
    })
}

#[test]
fn captions_have_the_mark_before_them_and_each_mark_comes_behind_what_had_opened() {
    let is_stuck = Arc::new(AtomicBool::new(false));
    let stuck = is_stuck.clone();
    let mut config = with_workers(1);
    config.pipelines = NonZeroUsize::MIN;
    let engine = Engine::start(config, Arc::new(move |_: &Idle| Stuck(stuck.clone()))).unwrap();
    let events = engine.subscribe();
    let (mut sender, track) = engine.add_track(unhurried("alice")).unwrap();
    let (_other, silent) = engine.add_track(unhurried("bob")).unwrap();
    let speaking = sound(48_000, 2_000, &[(0, 2_000)]);
    push_all(&mut sender, 0, &speaking);
    engine.flush(track).unwrap();
    assert_eq!(told(&events), ["0: final 0"]);
    // Nothing is open: at once. A number may be given again.
    engine.mark(track, 7).unwrap();
    engine.mark(track, 7).unwrap();
    assert_eq!(told(&events), ["mark 7", "mark 7"]);

    is_stuck.store(true, Ordering::SeqCst);
    for (i, mark) in [3, 9].into_iter().enumerate() {
        push_all(&mut sender, 2_000 * (i as i64 + 1), &speaking);
        engine.mark(track, mark).unwrap();
        engine.flush(track).unwrap();
    }
    engine.mark(track, 9).unwrap();
    // A hole behind them, and a caption that is still open at the end.
    push_all(&mut sender, 20_000, &speaking);
    engine.mark(track, 10).unwrap();
    engine.mark(silent, 0).unwrap();
    assert_eq!(told(&events), ["mark 0"], "all of that was heard, and waits");
    is_stuck.store(false, Ordering::SeqCst);
    assert_eq!(told(&events), ["7: final 1", "mark 3", "3: final 2", "10: NoAudio", "mark 9", "mark 9"]);
    drop(sender);
    assert_eq!(told(&events), ["9: final 3", "mark 10", "end"]);
    assert!(engine.mark(track, 1).is_err());
}

#[test]
fn a_caption_that_is_lost_has_its_mark_and_is_over_for_those_behind_it() {
    let engine = engine(1, |_| Err(DecodeError::Invalid("wrong".into())));
    let events = engine.subscribe();
    let (mut sender, track) = engine.add_track(unhurried("alice")).unwrap();
    engine.mark(track, 1).unwrap();
    push_all(&mut sender, 0, &sound(48_000, 2_000, &[(0, 2_000)]));
    engine.mark(track, 2).unwrap();
    drop(sender);
    assert_eq!(told(&events), ["mark 1"]);
    assert!(matches!(events.recv_timeout(PATIENCE), Ok(EngineEvent::Failed { .. })));
    assert_eq!(told(&events), ["1: DecodeFailed", "mark 2", "end"]);
}

#[test]
fn a_track_that_is_given_up_says_its_marks_before_its_end() {
    let stuck = Arc::new(AtomicBool::new(true));
    let engine = Engine::start(with_workers(1), Arc::new(move |_: &Idle| Stuck(stuck.clone()))).unwrap();
    let events = engine.subscribe();
    let (mut sender, track) = engine.add_track(unhurried("alice")).unwrap();
    push_all(&mut sender, 0, &sound(48_000, 2_000, &[(0, 2_000)]));
    engine.mark(track, 4).unwrap();
    engine.shutdown(Duration::from_millis(100));
    assert_eq!(told(&events), ["0: Abandoned", "mark 4", "end"]);
}

#[test]
fn where_nobody_is_left_overload_is_over() {
    let engine = engine(1, |job| {
        std::thread::sleep(Duration::from_millis(200));
        says_length(job)
    });
    let events = engine.subscribe();
    let tracks = 16;
    for i in 0..tracks {
        let mut config = patient(&format!("speaker {i}"));
        config.patience = Duration::from_millis(300);
        push_all(&mut engine.add_track(config).unwrap().0, 0, &sound(48_000, 1_000, &[(0, 1_000)]));
    }
    let (mut ended, mut highest) = (0, OverloadLevel::None);
    while ended < tracks {
        match events.recv_timeout(PATIENCE).unwrap() {
            EngineEvent::Ended { .. } => ended += 1,
            EngineEvent::Overload { level } => highest = highest.max(level),
            _ => {}
        }
    }
    assert!(highest > OverloadLevel::None);
    // Step by step, and each is told, with no track that would have anything looked at.
    let told = || match events.recv_timeout(PATIENCE) {
        Ok(EngineEvent::Overload { level }) => level,
        other => panic!("{other:?}"),
    };
    while engine.overload() > OverloadLevel::None {
        assert!(told() < OverloadLevel::Shedding);
    }
}
