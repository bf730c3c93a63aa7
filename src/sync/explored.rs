//! How the other `explored` modules explore: whatever the order in which threads run, it must hold.
//!
//! In: a program of threads. Out: a panic with the schedule that broke it, which `shuttle::replay` repeats.

use std::sync::Arc;

use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};

use super::channel::{Either, bounded, either, unbounded};
use super::thread;

fn config() -> Config {
    let mut config = Config::new();
    // A session's buffers are on it for a moment.
    config.stack_size = 1 << 20;
    config.silence_warnings = true;
    config
}

/// Half of the times at random; half by priorities, with up to three changes of them, which finds what needs one thread to
/// stand still for long.
pub(crate) fn explore(times: usize, program: impl Fn() + Send + Sync + 'static) {
    let program = Arc::new(program);
    let again = program.clone();
    Runner::new(RandomScheduler::new(times / 2), config()).run(move || again());
    Runner::new(PctScheduler::new(3, times / 2), config()).run(move || program());
}

/// Every order there is, which are fewer than `limit`.
pub(crate) fn exhaust(limit: usize, program: impl Fn() + Send + Sync + 'static) {
    let times = Runner::new(DfsScheduler::new(Some(limit), false), config()).run(program);
    assert!(times < limit, "more than {times} orders: not all were tried");
    eprintln!("all of {times} orders");
}

#[test]
fn a_message_is_received_once_and_the_last_senders_end_is_seen() {
    explore(2_000, || {
        let (sender, receiver) = unbounded();
        let receivers: Vec<_> = (0..2)
            .map(|_| {
                let receiver = receiver.clone();
                thread::spawn(move || std::iter::from_fn(|| receiver.recv().ok()).collect::<Vec<u32>>())
            })
            .collect();
        let senders: Vec<_> = (0..2)
            .map(|i| {
                let sender = sender.clone();
                thread::spawn(move || (0..2).for_each(|j| sender.send(i * 10 + j).unwrap()))
            })
            .collect();
        drop(sender);
        senders.into_iter().for_each(|thread| thread.join().unwrap());
        let mut all: Vec<_> = receivers.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 10, 11]);
    });
}

#[test]
fn who_waits_at_two_channels_loses_nothing_that_was_handed_over() {
    explore(2_000, || {
        let ((tokens, wake_ups), (tasks, help)) = (unbounded(), bounded(0));
        let receivers: Vec<_> = (0..2)
            .map(|_| {
                let (wake_ups, help) = (wake_ups.clone(), help.clone());
                thread::spawn(move || {
                    let (mut tokens, mut tasks) = (0, 0);
                    loop {
                        match either(&wake_ups, &help) {
                            Either::First(Ok(())) => tokens += 1,
                            Either::First(Err(_)) => return (tokens, tasks),
                            Either::Second(task) => tasks += i32::from(task.is_ok()),
                        }
                    }
                })
            })
            .collect();
        let helped = thread::spawn(move || {
            let taken = (0..2).filter(|_| tasks.try_send(()).is_ok()).count();
            // The channel stays, as that of workers does.
            (taken, tasks)
        });
        (0..2).for_each(|_| tokens.send(()).unwrap());
        let (taken, tasks) = helped.join().unwrap();
        drop(tokens);
        let all: Vec<_> = receivers.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(all.iter().map(|(tokens, _)| tokens).sum::<i32>(), 2);
        assert_eq!(all.iter().map(|(_, tasks)| tasks).sum::<i32>(), taken as i32);
        drop(tasks);
    });
}
