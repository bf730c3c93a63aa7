//! Where the library's threads meet: locks, channels, rings, threads, and the clock they wait by.
//!
//! In: what std, crossbeam-channel and rtrb have. Out: the same, in every build that anybody uses.
//!
//! Two builds have something else behind the same names, so that what is examined is the code itself and not a copy of it.
//! `.ci/concurrency` makes both, by a flag of the compiler that no feature sets.
//!
//! - `--cfg shuttle`: shuttle's types. One thread runs at a time, and at each use of a type of this module shuttle says which
//!   is next: at random, by priorities that change at few points, or in all orders where these can be counted. loom tries
//!   all orders, and weak memory besides, but only of a few steps of up to four threads: a worker's life is longer than that.
//!   Shuttle takes every atomic access as sequentially consistent. Here no atomic guards memory: locks and rings do, and
//!   what is read from an atomic is a number.
//! - `--cfg pthread_sync`: pthread's mutex and condition variable, which valgrind and the thread sanitizer know. Those of std
//!   are futexes: neither sees what they order, and both would call everything behind them a race.
//!
//! In both, channels and rings are written with these locks, as neither tool sees into crossbeam-channel or rtrb: they are
//! trusted to do what their documentation says.

#[cfg(all(feature = "engine", any(shuttle, pthread_sync)))]
pub(crate) mod channel;
#[cfg(all(test, shuttle, feature = "engine"))]
pub(crate) mod explored;
#[cfg(pthread_sync)]
mod pthread;
#[cfg(all(feature = "engine", any(shuttle, pthread_sync)))]
pub(crate) mod ring;

#[cfg(not(shuttle))]
mod types {
    #[cfg(all(not(pthread_sync), any(feature = "engine", feature = "whisper")))]
    pub(crate) use std::sync::Condvar;
    pub(crate) use std::sync::atomic;
    #[cfg(all(not(pthread_sync), any(feature = "engine", feature = "whisper")))]
    pub(crate) use std::sync::{Mutex, MutexGuard};
    #[cfg(feature = "engine")]
    pub(crate) use std::thread;

    #[cfg(pthread_sync)]
    pub(crate) use super::pthread::{Condvar, Mutex, MutexGuard};

    /// By the clock that threads wait by.
    #[cfg(feature = "engine")]
    pub(crate) fn now() -> std::time::Instant {
        std::time::Instant::now()
    }

    /// Waits for threads, but no longer than so: what goes on then is left behind.
    #[cfg(feature = "engine")]
    pub(crate) fn join_within(threads: &mut Vec<thread::JoinHandle<()>>, patience: std::time::Duration) {
        let deadline = now() + patience;
        while now() < deadline && !threads.iter().all(thread::JoinHandle::is_finished) {
            thread::sleep(std::time::Duration::from_millis(1));
        }
        for thread in threads.drain(..).filter(thread::JoinHandle::is_finished) {
            let _ = thread.join();
        }
    }
}

#[cfg(shuttle)]
mod types {
    use std::cell::Cell;
    use std::time::{Duration, Instant};

    pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard, atomic};
    pub(crate) use shuttle::thread;

    thread_local! {
        /// All threads of an execution are one to the system.
        static CLOCK: Cell<Option<Instant>> = const { Cell::new(None) };
    }

    /// It stands still while anybody does anything, so that an execution can be repeated: only waiting takes time.
    pub(crate) fn now() -> Instant {
        CLOCK.with(|clock| {
            let now = clock.get().unwrap_or_else(Instant::now);
            clock.set(Some(now));
            now
        })
    }

    pub(crate) fn pass(time: Duration) {
        let then = now() + time;
        CLOCK.with(|clock| clock.set(Some(then)));
    }

    /// Waits for threads. None of an exploration goes on for ever, and shuttle cannot say of one whether it does.
    #[cfg(feature = "engine")]
    pub(crate) fn join_within(threads: &mut Vec<thread::JoinHandle<()>>, _: Duration) {
        for thread in threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(shuttle)]
pub(crate) use types::pass;
pub(crate) use types::*;

#[cfg(all(feature = "engine", not(any(shuttle, pthread_sync))))]
pub(crate) mod channel {
    #[cfg(feature = "whisper")]
    pub(crate) use crossbeam_channel::bounded;
    #[cfg(not(feature = "whisper"))]
    pub(crate) use crossbeam_channel::never;
    pub(crate) use crossbeam_channel::{
        Receiver, RecvError, RecvTimeoutError, Sender, TryRecvError, select, unbounded,
    };

    /// What came first.
    pub(crate) enum Either<A, B> {
        First(Result<A, RecvError>),
        Second(Result<B, RecvError>),
    }

    /// Waits for whichever comes first.
    pub(crate) fn either<A, B>(first: &Receiver<A>, second: &Receiver<B>) -> Either<A, B> {
        select! {
            recv(first) -> message => Either::First(message),
            recv(second) -> message => Either::Second(message),
        }
    }
}

#[cfg(all(feature = "engine", not(any(shuttle, pthread_sync))))]
pub(crate) use rtrb as ring;
