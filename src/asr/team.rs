//! One decode on two threads, where another one has nothing to do.
//!
//! In: work cut into parts. Out: every part done once, by this thread or by one that an [`Assistant`] found idle. Which
//! of them does a part changes no byte of its result. Nobody spins: the other thread is woken, and waited for asleep.

#![expect(unsafe_code, reason = "a task borrows from the thread that waits for it")]

use std::any::Any;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, PoisonError};

use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// Knows threads that may be idle.
pub trait Assistant: Send + Sync {
    /// Hands the task to a thread that is idle now; without waiting, and dropping it where there is none.
    fn offer(&self, task: Task);
}

/// A share of somebody's work. [`Task::run`] takes it; a task that nobody runs, or runs late, delays nobody.
pub struct Task(Arc<Shared>);

impl Task {
    /// Does parts of the work until none is left.
    pub fn run(self) {
        let Some(call) = self.0.join() else { return };
        let result = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: `join` found the task open, so its owner waits for `leave` before what `call` borrows ends.
            unsafe { (*call.0)() }
        }));
        self.0.leave(result.err());
    }
}

/// The owner's closure, without the lifetime of what it borrows.
#[derive(Clone, Copy)]
struct Call(*const (dyn Fn() + Sync));

// SAFETY: the closure is `Sync`, and is called only while its owner waits.
unsafe impl Send for Call {}

enum State {
    /// Nobody joined yet.
    Open(Call),
    Joined,
    /// Whoever comes now comes too late.
    Closed,
    /// Who joined has left, with a panic perhaps.
    Left(Option<Box<dyn Any + Send>>),
}

struct Shared {
    state: Mutex<State>,
    left: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(&self) -> Option<Call> {
        let mut state = self.lock();
        let State::Open(call) = *state else { return None };
        *state = State::Joined;
        Some(call)
    }

    fn leave(&self, panic: Option<Box<dyn Any + Send>>) {
        *self.lock() = State::Left(panic);
        self.left.notify_one();
    }

    /// Returns when nobody is in the task, or can come into it.
    fn close(&self) -> Option<Box<dyn Any + Send>> {
        let mut state = self.lock();
        if matches!(*state, State::Open(_)) {
            *state = State::Closed;
        }
        while matches!(*state, State::Joined) {
            state = self.left.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        match std::mem::replace(&mut *state, State::Closed) {
            State::Left(panic) => panic,
            _ => None,
        }
    }
}

/// Closes the task even where its owner panics.
struct Closing<'a>(&'a Shared);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        if let Some(panic) = self.0.close()
            && !std::thread::panicking()
        {
            resume_unwind(panic);
        }
    }
}

/// A decoder's scratch, one for each of the two threads, and who may help.
pub(crate) struct Team<W> {
    assistant: Option<Arc<dyn Assistant>>,
    shared: Arc<Shared>,
    pub(crate) work: [W; 2],
}

impl<W: Default + Send> Team<W> {
    pub(crate) fn new(assistant: Option<Arc<dyn Assistant>>) -> Self {
        let shared = Arc::new(Shared { state: Mutex::new(State::Closed), left: Condvar::new() });
        Self { assistant, shared, work: <[W; 2]>::default() }
    }

    /// Calls `part` for all of `0 .. parts`, in any order.
    pub(crate) fn run(&mut self, parts: usize, part: impl Fn(&mut W, usize) + Sync) {
        let [mine, other] = &mut self.work;
        let Some(assistant) = self.assistant.as_ref().filter(|_| parts > 1) else {
            (0..parts).for_each(|i| part(mine, i));
            return;
        };
        let next = AtomicUsize::new(0);
        let take = |work: &mut W| {
            while let Some(i) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&i| i < parts) {
                part(work, i);
            }
        };
        let other = Mutex::new(other);
        let call = || take(&mut other.lock().unwrap_or_else(PoisonError::into_inner));
        let call: &(dyn Fn() + Sync) = &call;
        // SAFETY: only the lifetime changes. `Closing` waits, at the end of this scope, for whoever joined, and after it
        // nobody can: so the closure is not called when what it borrows is gone.
        let call = Call(unsafe { std::mem::transmute::<&(dyn Fn() + Sync), *const (dyn Fn() + Sync)>(call) });
        // A task of an earlier call may still lie in somebody's hands; then it keeps its memory.
        if Arc::get_mut(&mut self.shared).is_none() {
            self.shared = Arc::new(Shared { state: Mutex::new(State::Closed), left: Condvar::new() });
        }
        *self.shared.lock() = State::Open(call);
        let closing = Closing(&self.shared);
        assistant.offer(Task(self.shared.clone()));
        take(mine);
        drop(closing);
    }
}

/// A slice of which threads write different parts.
pub(crate) struct Parts<'a> {
    first: *mut f32,
    length: usize,
    slice: PhantomData<&'a mut [f32]>,
}

// SAFETY: it gives out no more than `part`, whose caller answers for two threads never having the same element.
unsafe impl Sync for Parts<'_> {}

impl<'a> Parts<'a> {
    pub(crate) fn new(slice: &'a mut [f32]) -> Self {
        Self { first: slice.as_mut_ptr(), length: slice.len(), slice: PhantomData }
    }

    /// # Safety
    /// No element of the range may be within another part that is in use.
    #[expect(clippy::mut_from_ref, reason = "that is what it is for")]
    pub(crate) unsafe fn part(&self, range: Range<usize>) -> &mut [f32] {
        assert!(range.start <= range.end && range.end <= self.length);
        // SAFETY: within the slice, and by the caller's promise nobody else's.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(range.start), range.len()) }
    }

    /// The slice's first element, for writers of columns.
    pub(crate) fn as_mut_ptr(&self) -> *mut f32 {
        self.first
    }
}

#[cfg(test)]
#[cfg(not(any(shuttle, pthread_sync)))]
mod tests {
    use super::*;

    /// An idle thread that comes at once, late, or never.
    struct Idle(std::time::Duration);

    impl Assistant for Idle {
        fn offer(&self, task: Task) {
            let wait = self.0;
            std::thread::spawn(move || {
                std::thread::sleep(wait);
                task.run();
            });
        }
    }

    struct Nobody;

    impl Assistant for Nobody {
        fn offer(&self, _: Task) {}
    }

    fn teams() -> Vec<Team<()>> {
        let late = std::time::Duration::from_millis(20);
        let assistants: [Option<Arc<dyn Assistant>>; 4] =
            [None, Some(Arc::new(Nobody)), Some(Arc::new(Idle(late))), Some(Arc::new(Idle(std::time::Duration::ZERO)))];
        assistants.into_iter().map(Team::new).collect()
    }

    #[test]
    fn every_part_is_done_once_whoever_helps() {
        for mut team in teams() {
            for parts in [0, 1, 2, 40] {
                let done: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
                team.run(parts, |_, i| {
                    std::thread::sleep(std::time::Duration::from_micros(200));
                    done[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(done.iter().all(|times| times.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn a_panic_in_a_part_reaches_the_owner_who_has_waited() {
        for mut team in teams() {
            let result = catch_unwind(AssertUnwindSafe(|| {
                team.run(64, |_, i| {
                    std::thread::sleep(std::time::Duration::from_micros(200));
                    assert!(i != 40, "forty");
                });
            }));
            let panic = result.unwrap_err();
            assert_eq!(panic.downcast_ref::<&str>(), Some(&"forty"));
        }
    }
}
