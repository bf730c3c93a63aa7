//! What a host tells an engine of its tracks while they run.
#![cfg(feature = "engine")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};

use cuewire::Pcm;
use cuewire::caption::CaptionEvent;
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
        let (mut sender, track) = engine.add_track(patient("alice")).unwrap();
        let speaking = sound(48_000, 2_000, &[(0, 2_000)]);
        for (i, paused) in [false, true, false].into_iter().enumerate() {
            let mut config = patient("alice").config;
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
    let (mut sender, track) = engine.add_track(patient("alice")).unwrap();
    let ((reached, held), (release, gate)) = (channel(), channel());
    let waker = Waker::from(Arc::new(Hold(reached, Mutex::new(gate))));
    assert!(Pin::new(&mut events).poll_next(&mut Context::from_waker(&waker)).is_pending());
    // A push that is refused holds the pipeline while it hears: what is pushed meanwhile is there for it.
    for ms in [1_000, 0] {
        sender.push(at_ms(ms), Pcm::mono(48_000, &[0i16; 960][..]).unwrap()).unwrap();
    }
    held.recv().unwrap();
    let mut config = patient("alice").config;
    config.paused = true;
    engine.reconfigure(track, config).unwrap();
    push_all(&mut sender, 1_020, &sound(48_000, 1_000, &[(0, 1_000)]));
    drop((release, sender));
    let (told, report) = until_end(&all, track);
    assert_eq!((told.len(), report.accounting.silence), (0, 1_020 * 16), "{told:?}");
}
