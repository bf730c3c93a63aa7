//! The team in whatever order its threads run.
//!
//! In: teams with parts to do, and threads that help at once, late, or again later. Out: what must hold of all of them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};

use super::team::{Assistant, Parts, Task, Team};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::explored::{exhaust, explore};
use crate::sync::{Mutex, thread};

/// Each offer is taken by a new thread, which may come too late.
#[derive(Default)]
struct Idle(Mutex<Vec<thread::JoinHandle<()>>>);

impl Idle {
    fn join(&self) {
        let threads = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

impl Assistant for Idle {
    fn offer(&self, task: Task) {
        let thread = thread::spawn(move || task.run());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
    }
}

/// Runs the team `runs` times and asks each time what must hold: every part done once, by who has its own scratch, into
/// memory that is there, and nobody in it afterwards.
fn run_and_check(runs: usize, parts: usize) {
    let idle = Arc::new(Idle::default());
    let mut team = Team::<Vec<usize>>::new(Some(idle.clone()));
    for _ in 0..runs {
        let mut out = vec![0.0; parts];
        // What outlives the closure sees whether anybody uses it when it is gone.
        let (over, inside) = (Arc::new(AtomicBool::new(false)), AtomicUsize::new(0));
        {
            let (over, inside) = (over.clone(), &inside);
            let places = Parts::new(&mut out);
            team.run(parts, move |scratch, i| {
                assert!(!over.load(Ordering::SeqCst), "the owner has gone");
                inside.fetch_add(1, Ordering::SeqCst);
                scratch.push(i);
                #[expect(unsafe_code, reason = "as an encoder does")]
                // SAFETY: no part has the same number, which this test would see.
                let place = unsafe { places.part(i..i + 1) };
                place[0] += 1.0;
                inside.fetch_sub(1, Ordering::SeqCst);
            });
        }
        assert_eq!(inside.load(Ordering::SeqCst), 0, "somebody is still in the work");
        over.store(true, Ordering::SeqCst);
        assert_eq!(out, vec![1.0; parts]);
        let mut done: Vec<_> = team.work.iter_mut().flat_map(std::mem::take).collect();
        done.sort_unstable();
        assert_eq!(done, (0..parts).collect::<Vec<_>>());
    }
    idle.join();
}

#[test]
fn every_part_is_done_once_and_the_owner_leaves_last_in_every_order() {
    exhaust(2_000_000, || run_and_check(1, 2));
}

#[test]
fn a_task_that_comes_late_finds_another_run_and_does_nothing() {
    explore(20_000, || run_and_check(3, 3));
}

#[test]
fn a_helpers_panic_reaches_the_owner_who_has_waited() {
    explore(4_000, || {
        let idle = Arc::new(Idle::default());
        let mut team = Team::<()>::new(Some(idle.clone()));
        let owner = thread::current().id();
        let helper_came = AtomicBool::new(false);
        let result = catch_unwind(AssertUnwindSafe(|| {
            team.run(3, |(), _| {
                if thread::current().id() != owner {
                    helper_came.store(true, Ordering::SeqCst);
                    std::panic::resume_unwind(Box::new("the helper's"));
                }
            });
        }));
        assert_eq!(result.is_err(), helper_came.load(Ordering::SeqCst));
        if let Err(panic) = result {
            assert_eq!(panic.downcast_ref::<&str>(), Some(&"the helper's"));
        }
        // It is as good as new.
        let sum = AtomicUsize::new(0);
        team.run(3, |(), i| {
            sum.fetch_add(i, Ordering::SeqCst);
        });
        assert_eq!(sum.load(Ordering::SeqCst), 3);
        idle.join();
    });
}
