//! The thread that owns the database.
//!
//! In: jobs from any thread. Out: their results, once what they changed is on disk.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Store, StoreError};
use crate::retry::Seldom;
use crate::telemetry;

/// Jobs that are committed together.
const MOST_JOBS: usize = 256;
/// A transaction is begun so often, at such intervals, before its jobs are given up; once, where the one before it was: those
/// behind it have waited as long.
const MOST_TRIES: u32 = 2;
const RETRY: Duration = Duration::from_millis(200);

/// What is to happen once the commit is known to have succeeded, or failed.
type Answer = Box<dyn FnOnce(&Result<(), Gone>) + Send>;
/// Without a store there is nothing but the answer.
type Change = Box<dyn FnOnce(Option<&Store>) -> (bool, Answer) + Send>;

enum Job {
    /// Is committed with those beside it, or not at all.
    Change(Change),
    /// Changes nothing: it is done also where nothing can be written.
    Read(Box<dyn FnOnce(&Store) + Send>),
}

/// The job was not done, or is not on disk: the writer has ended, or the database failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal cannot be written: {0}")]
pub(crate) struct Gone(Arc<str>);

impl Gone {
    pub(crate) fn ended() -> Self {
        Self("the server is shutting down".into())
    }

    fn panicked() -> Self {
        Self("a fault of the server's".into())
    }
}

/// Where jobs go. Dropping it waits for those that are there.
pub(crate) struct Writer {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread, `cuewire-store`.
    ///
    /// # Errors
    /// Where the system starts no more threads.
    pub(crate) fn start(store: Store) -> io::Result<Self> {
        let (jobs, queue) = channel();
        let thread = std::thread::Builder::new().name("cuewire-store".into()).spawn(move || {
            // What surrounds the jobs is foreign too: whoever takes the log, for one. Nothing goes on without this thread.
            while catch_unwind(AssertUnwindSafe(|| work(&store, &queue))).is_err() {
                let _ = store.connection.execute_batch("ROLLBACK");
                store.forget_remembered();
            }
        })?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Does a job on the writer's thread, and then gives its result to `answer`, there too: once it is committed, or the reason
    /// why it is not. A job that gives an error has changed nothing.
    pub(crate) fn submit<R, E>(
        &self,
        job: impl FnOnce(&Store) -> Result<R, E> + Send + 'static,
        answer: impl FnOnce(Result<Result<R, E>, Gone>) + Send + 'static,
    ) where
        R: Send + 'static,
        E: Send + 'static,
    {
        // What is logged on the way belongs to whoever asked.
        let span = tracing::Span::current();
        let job: Change = Box::new(move |store| {
            let within = |store| catch_unwind(AssertUnwindSafe(|| span.in_scope(|| job(store))));
            let Some(done) = store.map(within) else {
                return (false, Box::new(move |committed| answer(Err(lost(committed)))));
            };
            let Ok(result) = done else { return (false, Box::new(|_| answer(Err(Gone::panicked())))) };
            let keep = result.is_ok();
            let answer = move |committed: &Result<(), Gone>| {
                span.in_scope(|| answer(if committed.is_ok() { Ok(result) } else { Err(lost(committed)) }));
            };
            (keep, Box::new(answer))
        });
        self.send(Job::Change(job));
    }

    /// Looks something up behind what was committed, and then gives it to `answer`, on the writer's thread.
    pub(crate) fn read<R>(
        &self,
        job: impl FnOnce(&Store) -> R + Send + 'static,
        answer: impl FnOnce(R) + Send + 'static,
    ) {
        let span = tracing::Span::current();
        self.send(Job::Read(Box::new(move |store| span.in_scope(|| answer(job(store))))));
    }

    fn send(&self, job: Job) {
        // The thread is there as long as this is; a job that it cannot take drops its answer, and with it who waits.
        let _ = self.jobs.as_ref().map(|jobs| jobs.send(job));
    }

    /// Does a job and waits until it is committed.
    #[cfg(test)]
    fn run<R, E>(&self, job: impl FnOnce(&Store) -> Result<R, E> + Send + 'static) -> Result<Result<R, E>, Gone>
    where
        R: Send + 'static,
        E: Send + 'static,
    {
        let (sender, receiver) = channel();
        self.submit(job, move |result| drop(sender.send(result)));
        receiver.recv().unwrap_or_else(|_| Err(Gone::ended()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A job's panic was its own.
            let _ = thread.join();
        }
    }
}

/// Why a job that was not done, or not kept, is not on disk.
fn lost(committed: &Result<(), Gone>) -> Gone {
    committed.clone().err().unwrap_or_else(Gone::ended)
}

fn work(store: &Store, queue: &Receiver<Job>) {
    let (failures, mut has_failed) = (Seldom::default(), false);
    while let Ok(first) = queue.recv() {
        let (mut changes, mut reads) = (Vec::new(), Vec::new());
        for job in std::iter::once(first).chain(queue.try_iter().take(MOST_JOBS - 1)) {
            match job {
                Job::Change(change) => changes.push(change),
                Job::Read(read) => reads.push(read),
            }
        }
        if !changes.is_empty() {
            let (mut answers, began) = (Vec::new(), Instant::now());
            let tries = if has_failed { 1 } else { MOST_TRIES };
            let committed = together(store, changes.into_iter(), &mut answers, tries).map_err(|error| {
                store.forget_remembered();
                has_failed = true;
                if let Some(others) = failures.is_due(Instant::now()) {
                    let changes = answers.len();
                    tracing::error!(
                        "{changes} changes are not on disk: {error}; {others} failures before it were not logged"
                    );
                }
                Gone(error.to_string().into())
            });
            telemetry::committed(began, committed.is_ok());
            if committed.is_ok() && std::mem::take(&mut has_failed) {
                tracing::warn!("the database can be written again");
            }
            for answer in answers {
                // Foreign code.
                let _ = catch_unwind(AssertUnwindSafe(|| answer(&committed)));
            }
        }
        for read in reads {
            let _ = catch_unwind(AssertUnwindSafe(|| read(store)));
        }
    }
}

/// All jobs in one transaction, and each in one of its own within. Every job has an answer.
fn together(
    store: &Store,
    jobs: impl Iterator<Item = Change>,
    answers: &mut Vec<Answer>,
    tries: u32,
) -> Result<(), StoreError> {
    let connection = &store.connection;
    // What a look-up between two transactions came to is no matter of theirs.
    store.take_failure();
    let mut state = begin(store, tries).map_err(StoreError::from);
    for job in jobs {
        let begun = state.and_then(|()| Ok(connection.execute_batch("SAVEPOINT job")?));
        if begun.is_err() {
            state = begun;
            answers.push(job(None).1);
            continue;
        }
        let (keep, answer) = job(Some(store));
        answers.push(answer);
        state = if keep {
            connection.execute_batch("RELEASE job")
        } else {
            store.forget_remembered();
            connection.execute_batch("ROLLBACK TO job; RELEASE job")
        }
        .map_err(StoreError::from);
        state = store.take_failure().map_or(state, Err);
    }
    let committed = state.and_then(|()| Ok(connection.execute_batch("COMMIT")?));
    if committed.is_err() {
        // There may be nothing to take back.
        let _ = connection.execute_batch("ROLLBACK");
    }
    committed
}

/// Begins, once whoever else has the database lets it go.
fn begin(store: &Store, mut tries: u32) -> rusqlite::Result<()> {
    loop {
        let begun = store.connection.execute_batch("BEGIN IMMEDIATE");
        tries -= 1;
        if begun.is_ok() || tries == 0 {
            return begun;
        }
        std::thread::sleep(RETRY);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::super::Sync;
    use super::*;
    use crate::call::CallType;

    fn put(name: String) -> impl FnOnce(&Store) -> Result<(), String> + Send {
        move |store| {
            let put = store.put_call_type(&CallType::new(&name, cuewire::time::Timestamp::EPOCH));
            put.map(drop).map_err(|error| error.to_string())
        }
    }

    fn names(store: &Store) -> Vec<String> {
        store.call_types().unwrap().into_iter().map(|call_type| call_type.name).collect()
    }

    #[test]
    fn a_job_that_fails_or_panics_changes_nothing_and_costs_no_other() {
        let writer = Writer::start(Store::in_memory().unwrap()).unwrap();
        // They come together: the first one holds the thread.
        let (release, gate) = channel::<()>();
        let (sender, answers) = channel();
        writer.submit(
            move |_| {
                let _ = gate.recv();
                Ok::<_, String>(())
            },
            |_| (),
        );
        for i in 0..9 {
            let sender = sender.clone();
            let job = move |store: &Store| {
                put(format!("type-{i}"))(store)?;
                assert!(i != 4, "four");
                if i % 3 == 2 { Err(format!("{i} fails")) } else { Ok(i) }
            };
            writer.submit(job, move |answer| drop(sender.send((i, answer))));
        }
        drop((release, sender));
        let answers: Vec<_> = answers.iter().collect();
        let expected: Vec<_> = (0..9)
            .map(|i| match i {
                4 => (i, Err(Gone::panicked())),
                i if i % 3 == 2 => (i, Ok(Err(format!("{i} fails")))),
                i => (i, Ok(Ok(i))),
            })
            .collect();
        assert_eq!(answers, expected);
        let kept = writer.run(|store| Ok::<_, String>(names(store))).unwrap().unwrap();
        assert_eq!(kept, ["type-0", "type-1", "type-3", "type-6", "type-7"]);
    }

    /// The process that the test below starts, and that dies in the middle.
    #[test]
    fn writes_until_it_dies() {
        use std::io::Write as _;
        let Some(path) = std::env::var_os("CUEWIRE_TEST_DATABASE") else { return };
        let from: usize = std::env::var("CUEWIRE_TEST_FROM").unwrap().parse().unwrap();
        let writer = Writer::start(Store::open(path.as_ref(), Sync::Each).unwrap()).unwrap();
        for i in from.. {
            let said = writer.run(put(format!("type-{i:05}"))).unwrap();
            if said.is_ok() {
                // Past the test's own capture.
                writeln!(std::io::stdout().lock(), "kept {i}").unwrap();
            }
        }
    }

    #[test]
    fn what_was_answered_is_there_after_each_of_200_kill_9() {
        use std::io::{BufRead as _, BufReader};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let mut from = 0;
        for time in 0..200_u64 {
            let mut child = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["writes_until_it_dies", "--nocapture", "--test-threads=1"])
                .envs([("CUEWIRE_TEST_DATABASE", path.as_os_str()), ("CUEWIRE_TEST_FROM", from.to_string().as_ref())])
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let mut kept = Vec::new();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let mut next = |kept: &mut Vec<usize>| {
                let line = lines.next()?.ok()?;
                kept.extend(line.split("kept ").nth(1).and_then(|i| i.parse::<usize>().ok()));
                Some(())
            };
            // Somewhere in the first writes, or before them.
            while kept.len() < (time % 7) as usize {
                next(&mut kept).unwrap();
            }
            std::thread::sleep(std::time::Duration::from_micros(time.wrapping_mul(7_919) % 3_000));
            child.kill().unwrap();
            child.wait().unwrap();
            while next(&mut kept).is_some() {}
            let there = names(&Store::open(&path, Sync::Each).unwrap());
            let is_there = |i: &usize| there.binary_search(&format!("type-{i:05}")).is_ok();
            assert!(kept.iter().all(is_there), "time {time}: {} there, {kept:?} were answered", there.len());
            // One more may have been committed, whose answer nobody heard; and none twice.
            let answered = kept.last().map_or(from, |last| last + 1);
            assert!((answered..=answered + 1).contains(&there.len()), "time {time}: {answered}, {}", there.len());
            from = there.len();
        }
        assert!(from >= 400, "next to nothing was written: {from}");
    }
}
