//! Channels of locks alone, for tools that look into locks.
//!
//! In: messages. Out: each to one receiver, as by crossbeam-channel, of which this has what is used.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

pub(crate) use crossbeam_channel::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};

use super::{Condvar, Mutex, MutexGuard};

/// A receiver that waits: at one channel or at two, and only one wakes it.
struct Waiter {
    woken: Mutex<bool>,
    wake: Condvar,
}

impl Waiter {
    fn new() -> Arc<Self> {
        Arc::new(Self { woken: Mutex::new(false), wake: Condvar::new() })
    }

    /// Whether it was the first to.
    fn wake(&self) -> bool {
        let first = !std::mem::replace(&mut *lock(&self.woken), true);
        self.wake.notify_one();
        first
    }

    fn sleep(&self) {
        let mut woken = lock(&self.woken);
        while !*woken {
            woken = self.wake.wait(woken).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether it was woken in time.
    #[cfg(shuttle)]
    fn sleep_for(&self, patience: Duration) -> bool {
        shuttle::thread::yield_now();
        let in_time = std::mem::replace(&mut *lock(&self.woken), true);
        if !in_time {
            super::pass(patience);
        }
        in_time
    }

    #[cfg(not(shuttle))]
    fn sleep_for(&self, patience: Duration) -> bool {
        let end = super::now() + patience;
        let mut woken = lock(&self.woken);
        while !*woken {
            let left = end.saturating_duration_since(super::now());
            if left.is_zero() {
                *woken = true;
                return false;
            }
            woken = self.wake.wait_timeout(woken, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Somebody at this channel, and where to put what it is handed: in a channel without room nothing lies about.
struct Place<T> {
    waiter: Arc<Waiter>,
    handed: Arc<Mutex<Option<T>>>,
}

struct State<T> {
    messages: VecDeque<T>,
    places: VecDeque<Place<T>>,
    senders: usize,
    receivers: usize,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    /// Whether messages wait, or receivers alone.
    queues: bool,
}

pub(crate) struct Sender<T>(Arc<Shared<T>>);
pub(crate) struct Receiver<T>(Arc<Shared<T>>);

pub(crate) fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    channel(true)
}

/// A channel without room, whose senders do not wait: they have `try_send`.
pub(crate) fn bounded<T>(room: usize) -> (Sender<T>, Receiver<T>) {
    assert_eq!(room, 0);
    channel(false)
}

fn channel<T>(queues: bool) -> (Sender<T>, Receiver<T>) {
    let state = State { messages: VecDeque::new(), places: VecDeque::new(), senders: 1, receivers: 1 };
    let shared = Arc::new(Shared { state: Mutex::new(state), queues });
    (Sender(shared.clone()), Receiver(shared))
}

impl<T> State<T> {
    fn pop(&mut self) -> Result<T, TryRecvError> {
        let none = if self.senders == 0 { TryRecvError::Disconnected } else { TryRecvError::Empty };
        self.messages.pop_front().ok_or(none)
    }
}

impl<T> Sender<T> {
    pub(crate) fn send(&self, message: T) -> Result<(), SendError<T>> {
        assert!(self.0.queues, "a sender that would wait: try_send");
        let mut state = lock(&self.0.state);
        if state.receivers == 0 {
            return Err(SendError(message));
        }
        state.messages.push_back(message);
        while let Some(place) = state.places.pop_front() {
            if place.waiter.wake() {
                break;
            }
        }
        Ok(())
    }

    /// Hands the message to a receiver that waits, if one does.
    pub(crate) fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        assert!(!self.0.queues, "a queue has room: send");
        let mut state = lock(&self.0.state);
        if state.receivers == 0 {
            return Err(TrySendError::Disconnected(message));
        }
        while let Some(place) = state.places.pop_front() {
            let mut handed = lock(&place.handed);
            if place.waiter.wake() {
                *handed = Some(message);
                return Ok(());
            }
        }
        Err(TrySendError::Full(message))
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        lock(&self.0.state).senders += 1;
        Self(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.senders -= 1;
        if state.senders == 0 {
            for place in state.places.drain(..) {
                place.waiter.wake();
            }
        }
    }
}

impl<T> Receiver<T> {
    pub(crate) fn try_recv(&self) -> Result<T, TryRecvError> {
        lock(&self.0.state).pop()
    }

    pub(crate) fn recv(&self) -> Result<T, RecvError> {
        loop {
            let waiter = Waiter::new();
            let place = match self.stay(&waiter) {
                Ok(place) => place,
                Err(result) => return result,
            };
            waiter.sleep();
            if let Some(result) = self.leave(&waiter, &place) {
                return result;
            }
        }
    }

    pub(crate) fn recv_timeout(&self, patience: Duration) -> Result<T, RecvTimeoutError> {
        let waiter = Waiter::new();
        let place = match self.stay(&waiter) {
            Ok(place) => place,
            Err(result) => return result.map_err(|RecvError| RecvTimeoutError::Disconnected),
        };
        waiter.sleep_for(patience);
        // Who comes back with nothing for another reason than time is a caller that looks again.
        let result = self.leave(&waiter, &place).unwrap_or_else(|| self.try_recv().map_err(|_| RecvError));
        let gone = lock(&self.0.state).senders == 0;
        result.map_err(|RecvError| if gone { RecvTimeoutError::Disconnected } else { RecvTimeoutError::Timeout })
    }

    /// Takes what is there, unless the waiter was woken by another channel, or leaves word where it waits.
    fn stay(&self, waiter: &Arc<Waiter>) -> Result<Arc<Mutex<Option<T>>>, Result<T, RecvError>> {
        let mut state = lock(&self.0.state);
        if !state.messages.is_empty() || state.senders == 0 {
            // Held until the message is taken: nobody else can mean this one.
            if waiter.wake() {
                return Err(state.pop().map_err(|_| RecvError));
            }
        }
        let handed = Arc::new(Mutex::new(None));
        state.places.push_back(Place { waiter: waiter.clone(), handed: handed.clone() });
        Ok(handed)
    }

    /// What the waiter has of this channel; `None` where another receiver was faster.
    fn leave(&self, waiter: &Arc<Waiter>, handed: &Mutex<Option<T>>) -> Option<Result<T, RecvError>> {
        let mut state = lock(&self.0.state);
        state.places.retain(|place| !Arc::ptr_eq(&place.waiter, waiter));
        if let Some(message) = lock(handed).take() {
            return Some(Ok(message));
        }
        match state.pop() {
            Ok(message) => Some(Ok(message)),
            Err(TryRecvError::Disconnected) => Some(Err(RecvError)),
            Err(TryRecvError::Empty) => None,
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        lock(&self.0.state).receivers += 1;
        Self(self.0.clone())
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.receivers -= 1;
        if state.receivers == 0 {
            let messages = std::mem::take(&mut state.messages);
            drop(state);
            drop(messages);
        }
    }
}

/// What came first.
pub(crate) enum Either<A, B> {
    First(Result<A, RecvError>),
    Second(Result<B, RecvError>),
}

/// Waits for whichever comes first.
pub(crate) fn either<A, B>(first: &Receiver<A>, second: &Receiver<B>) -> Either<A, B> {
    loop {
        let waiter = Waiter::new();
        let at_first = match first.stay(&waiter) {
            Ok(place) => place,
            Err(result) => return Either::First(result),
        };
        let at_second = match second.stay(&waiter) {
            Ok(place) => place,
            Err(result) => {
                // It was woken for this, and by nobody else.
                lock(&first.0.state).places.retain(|place| !Arc::ptr_eq(&place.waiter, &waiter));
                return Either::Second(result);
            }
        };
        waiter.sleep();
        // What was handed over has no other place to be; what lies in a queue waits there for the next look.
        let by_second = {
            lock(&second.0.state).places.retain(|place| !Arc::ptr_eq(&place.waiter, &waiter));
            lock(&at_second).take()
        };
        if let Some(message) = by_second {
            lock(&first.0.state).places.retain(|place| !Arc::ptr_eq(&place.waiter, &waiter));
            return Either::Second(Ok(message));
        }
        if let Some(result) = first.leave(&waiter, &at_first) {
            return Either::First(result);
        }
    }
}
