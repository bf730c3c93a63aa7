//! From the pipeline to whoever listens.
//!
//! In: events. Out: the same, for each subscriber at its own pace: one that sleeps holds up nobody and costs bounded
//! memory.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_core::Stream;

use super::{EngineEvent, after, telemetry};
use crate::sync::{Condvar, Mutex, MutexGuard, now};

/// Events that wait for one subscriber.
pub const MAX_WAITING_EVENTS: usize = 4096;

/// A subscriber's end: blocking, polling, or a [`Stream`] for any async runtime. Dropping it unsubscribes.
///
/// Of one caption's interims only the newest waits. Where [`MAX_WAITING_EVENTS`] wait, the oldest interim goes first, and
/// other events only when there is none: then [`EngineEvent::Missed`] says how many.
pub struct Subscription(Arc<Shared>);

/// There is no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoEvent {
    /// For now.
    #[error("no event is waiting")]
    Yet,
    /// The engine was shut down, and everything was received.
    #[error("the engine was shut down")]
    Ended,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<EngineEvent>,
    missed: u64,
    waker: Option<Waker>,
    ended: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and wakes who waits for it.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let waker = state.waker.take();
        drop(state);
        self.arrived.notify_all();
        // Foreign code, and so outside the lock; its panic is no fault of the track that is told of.
        let _ = catch_unwind(AssertUnwindSafe(|| waker.into_iter().for_each(Waker::wake)));
    }
}

impl State {
    fn push(&mut self, event: EngineEvent) {
        if let Some(passing) = event.passing()
            && let Some(older) = self.waiting.iter_mut().rev().find(|older| older.passing() == Some(passing))
        {
            *older = event;
            return;
        }
        if self.waiting.len() >= MAX_WAITING_EVENTS {
            match self.waiting.iter().position(|older| older.passing().is_some()) {
                Some(passing) => drop(self.waiting.remove(passing)),
                None => {
                    self.waiting.pop_front();
                    self.missed += 1;
                    telemetry::missed();
                }
            }
        }
        self.waiting.push_back(event);
    }

    fn pop(&mut self) -> Result<EngineEvent, NoEvent> {
        if self.missed > 0 {
            return Ok(EngineEvent::Missed { events: std::mem::take(&mut self.missed) });
        }
        self.waiting.pop_front().ok_or(if self.ended { NoEvent::Ended } else { NoEvent::Yet })
    }
}

impl Subscription {
    /// The next event, without waiting.
    ///
    /// # Errors
    /// [`NoEvent`].
    pub fn try_recv(&self) -> Result<EngineEvent, NoEvent> {
        self.0.lock().pop()
    }

    /// Waits for the next event; `None` once the engine was shut down and everything was received.
    #[must_use]
    pub fn recv(&self) -> Option<EngineEvent> {
        let mut state = self.0.lock();
        loop {
            match state.pop() {
                Ok(event) => return Some(event),
                Err(NoEvent::Ended) => return None,
                Err(NoEvent::Yet) => state = self.0.arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Waits for the next event, but no longer than `patience`.
    ///
    /// # Errors
    /// [`NoEvent`].
    pub fn recv_timeout(&self, patience: Duration) -> Result<EngineEvent, NoEvent> {
        let deadline = after(patience);
        let mut state = self.0.lock();
        loop {
            let left = deadline.saturating_duration_since(now());
            match state.pop() {
                Err(NoEvent::Yet) if !left.is_zero() => {
                    state = self.0.arrived.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
                }
                next => return next,
            }
        }
    }
}

impl Stream for Subscription {
    type Item = EngineEvent;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<EngineEvent>> {
        let mut state = self.0.lock();
        match state.pop() {
            Ok(event) => Poll::Ready(Some(event)),
            Err(NoEvent::Ended) => Poll::Ready(None),
            Err(NoEvent::Yet) => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// All subscribers of an engine.
#[derive(Default)]
pub(super) struct Subscribers(Mutex<Vec<Weak<Shared>>>);

impl Subscribers {
    /// Those that are still there.
    fn present(&self) -> Vec<Arc<Shared>> {
        let mut all = self.lock();
        all.retain(|subscriber| subscriber.strong_count() > 0);
        all.iter().filter_map(Weak::upgrade).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Shared>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self) -> Subscription {
        let shared = Arc::new(Shared::default());
        self.lock().push(Arc::downgrade(&shared));
        Subscription(shared)
    }

    pub(super) fn publish(&self, event: &EngineEvent) {
        for subscriber in self.present() {
            subscriber.change(|state| state.push(event.clone()));
        }
    }

    pub(super) fn end(&self) {
        for subscriber in self.present() {
            subscriber.change(|state| state.ended = true);
        }
    }
}

#[cfg(test)]
#[cfg(not(any(shuttle, pthread_sync)))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;
    use crate::caption::{CaptionEvent, CaptionId, GapReason};
    use crate::config::Language;
    use crate::engine::TrackId;
    use crate::time::Timestamp;

    fn interim(track: u64, id: u64, revision: u32) -> EngineEvent {
        let event = CaptionEvent::Interim {
            id: CaptionId(id),
            revision,
            start_time: Timestamp::EPOCH,
            end_time: Timestamp::EPOCH,
            speaker_id: "a".into(),
            language: Language::ENGLISH,
            language_probability: None,
            spoken_language: None,
            text: String::new(),
            stable_chars: 0,
            translated: false,
        };
        EngineEvent::Caption { track: TrackId(track), event, mark: 0, ledger: None }
    }

    /// An event that must not be lost, told apart by its time.
    fn gap(number: i64) -> EngineEvent {
        let (from, to) = (Timestamp::from_nanos(number), Timestamp::from_nanos(number + 1));
        let event = CaptionEvent::Gap { from, to, speaker_id: "a".into(), reason: GapReason::NoAudio };
        EngineEvent::Caption { track: TrackId(0), event, mark: 0, ledger: None }
    }

    fn told(subscription: &Subscription) -> String {
        match subscription.try_recv() {
            Ok(EngineEvent::Caption { track, event: CaptionEvent::Interim { id, revision, .. }, .. }) => {
                format!("interim {}.{}.{revision}", track.0, id.0)
            }
            Ok(EngineEvent::Caption { event: CaptionEvent::Gap { from, .. }, .. }) => {
                format!("gap {}", from.as_nanos())
            }
            Ok(EngineEvent::Marked { mark, .. }) => format!("mark {mark}"),
            Ok(EngineEvent::Missed { events }) => format!("missed {events}"),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn of_a_captions_interims_the_newest_waits() {
        let subscribers = Subscribers::default();
        let subscription = subscribers.add();
        for event in [interim(0, 7, 1), interim(1, 7, 1), gap(1), interim(0, 7, 2), interim(0, 8, 1)] {
            subscribers.publish(&event);
        }
        let expected = ["interim 0.7.2", "interim 1.7.1", "gap 1", "interim 0.8.1", "Err(Yet)"];
        assert_eq!(expected.map(|_| told(&subscription)), expected);
        subscribers.end();
        assert_eq!(subscription.try_recv().unwrap_err(), NoEvent::Ended);
        assert!(subscription.recv().is_none());
    }

    #[test]
    fn a_mark_is_not_replaced_and_goes_after_every_interim() {
        let subscribers = Subscribers::default();
        let subscription = subscribers.add();
        let mark = EngineEvent::Marked { track: TrackId(0), mark: 7 };
        [mark.clone(), mark, interim(0, 0, 1)].iter().for_each(|event| subscribers.publish(event));
        (0..MAX_WAITING_EVENTS as i64 - 2).for_each(|number| subscribers.publish(&gap(number)));
        assert_eq!(["mark 7", "mark 7", "gap 0"].map(|_| told(&subscription)), ["mark 7", "mark 7", "gap 0"]);
    }

    #[test]
    fn who_sleeps_misses_interims_first_and_is_told_what_else() {
        let subscribers = Subscribers::default();
        let (sleeper, awake) = (subscribers.add(), subscribers.add());
        subscribers.publish(&interim(0, 0, 1));
        let events = MAX_WAITING_EVENTS as i64 + 2;
        for number in 0..events {
            subscribers.publish(&gap(number));
            if number == 0 {
                assert_eq!(told(&awake), "interim 0.0.1");
            }
            assert_eq!(told(&awake), format!("gap {number}"), "one that sleeps holds up nobody");
        }
        assert_eq!(told(&sleeper), "missed 2");
        for number in 2..events {
            assert_eq!(told(&sleeper), format!("gap {number}"));
        }
        assert_eq!(told(&sleeper), "Err(Yet)");
    }

    #[test]
    fn a_waker_that_panics_is_no_fault_of_who_tells() {
        struct Panics;
        impl Wake for Panics {
            fn wake(self: Arc<Self>) {
                panic!("a host's fault");
            }
        }
        let subscribers = Subscribers::default();
        let mut subscription = subscribers.add();
        let waker = Waker::from(Arc::new(Panics));
        assert!(Pin::new(&mut subscription).poll_next(&mut Context::from_waker(&waker)).is_pending());
        subscribers.publish(&gap(1));
        assert_eq!(told(&subscription), "gap 1");
    }

    #[test]
    fn a_subscriber_waits_blocking_with_patience_or_by_a_waker() {
        struct Count(AtomicUsize);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let subscribers = Arc::new(Subscribers::default());
        let mut subscription = subscribers.add();
        assert_eq!(subscription.recv_timeout(Duration::from_millis(1)).unwrap_err(), NoEvent::Yet);
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(count.clone());
        let mut context = Context::from_waker(&waker);
        assert!(Pin::new(&mut subscription).poll_next(&mut context).is_pending());
        subscribers.publish(&gap(1));
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert!(matches!(Pin::new(&mut subscription).poll_next(&mut context), Poll::Ready(Some(_))));
        assert!(Pin::new(&mut subscription).poll_next(&mut context).is_pending());
        let publisher = subscribers.clone();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            publisher.publish(&gap(2));
            publisher.end();
        });
        assert!(subscription.recv().is_some());
        assert!(subscription.recv().is_none());
        assert!(matches!(Pin::new(&mut subscription).poll_next(&mut context), Poll::Ready(None)));
        thread.join().unwrap();
    }
}
