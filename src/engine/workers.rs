//! Decode workers behind a bounded queue.
//!
//! In: jobs. Out: answers. One worker is one thread with one decoder; who waits sleeps, and no other thread is started.

use std::io;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded, select, unbounded};

use crate::asr::{Cancel, DecodeError, DecodeJob, Decoder, Hypothesis, JobId};

/// A job on its way to a worker.
#[derive(Debug)]
pub struct Job<T> {
    /// Whose job it is; comes back with the answer.
    pub tag: T,
    /// What to decode.
    pub job: DecodeJob,
    /// Set it to call the job off: queued or in progress.
    pub cancel: Cancel,
}

/// What became of a job.
#[derive(Debug)]
pub struct Answer<T> {
    /// Whose job it was.
    pub tag: T,
    /// The job.
    pub job: JobId,
    /// What the decoder said.
    pub result: Result<Hypothesis, DecodeError>,
}

/// The queue did not take a job, and hands it back.
#[derive(Debug)]
pub enum SubmitError<T> {
    /// As many jobs wait as there are workers: receive an answer first.
    Full(Job<T>),
    /// Every worker has ended.
    Stopped(Job<T>),
}

/// Workers that wait for a job. They may take a share of another's decode, which changes nothing in its answer.
#[derive(Clone)]
pub struct Idle {
    #[cfg(feature = "whisper")]
    tasks: Sender<Task>,
}

#[cfg(feature = "whisper")]
use crate::asr::whisper::Task;

#[cfg(feature = "whisper")]
impl Idle {
    fn channel() -> (Self, Receiver<Task>) {
        // Without room: a task is taken by a worker that waits at this moment, or by none.
        let (tasks, help) = bounded(0);
        (Self { tasks }, help)
    }
}

#[cfg(feature = "whisper")]
impl crate::asr::whisper::Assistant for Idle {
    fn offer(&self, task: Task) {
        // Nobody waits: its owner does all of it.
        drop(self.tasks.try_send(task));
    }
}

/// Without Whisper nobody asks for help.
#[cfg(not(feature = "whisper"))]
struct Task;

#[cfg(not(feature = "whisper"))]
impl Task {
    fn run(self) {}
}

#[cfg(not(feature = "whisper"))]
impl Idle {
    fn channel() -> (Self, Receiver<Task>) {
        (Self {}, crossbeam_channel::never())
    }
}

/// A number of threads, each with a decoder of its own.
pub struct Workers<T> {
    jobs: Option<Sender<Job<T>>>,
    answers: Receiver<Answer<T>>,
    threads: Vec<JoinHandle<()>>,
}

/// As many threads as the process may use at a time: the machine's cores, or fewer where the container's CPU quota or
/// the affinity mask allows fewer.
#[must_use]
pub fn default_threads() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

impl<T: Send + 'static> Workers<T> {
    /// Starts `threads` workers; `decoder` makes the decoder of each, on the worker's own thread, and another one after
    /// a panic. It may give the decoder the [`Idle`] workers' help.
    ///
    /// # Errors
    /// Where the system starts no more threads.
    pub fn start<D, F>(threads: NonZeroUsize, decoder: F) -> io::Result<Self>
    where
        D: Decoder,
        F: Fn(&Idle) -> D + Clone + Send + 'static,
    {
        let (jobs, queue) = bounded::<Job<T>>(threads.get());
        // Bounded by the jobs in the queue and on the workers: never more than the submitter put in.
        let (results, answers) = unbounded();
        let (idle, help) = Idle::channel();
        let threads = (0..threads.get())
            .map(|i| {
                let (queue, help, results) = (queue.clone(), help.clone(), results.clone());
                let (idle, decoder) = (idle.clone(), decoder.clone());
                std::thread::Builder::new()
                    .name(format!("cuewire-decode-{i}"))
                    .spawn(move || work(&queue, &help, &results, || decoder(&idle)))
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { jobs: Some(jobs), answers, threads })
    }

    /// Puts a job into the queue, without waiting.
    ///
    /// # Errors
    /// [`SubmitError`] hands the job back.
    pub fn submit(&self, job: Job<T>) -> Result<(), SubmitError<T>> {
        match &self.jobs {
            None => Err(SubmitError::Stopped(job)),
            Some(jobs) => jobs.try_send(job).map_err(|error| match error {
                TrySendError::Full(job) => SubmitError::Full(job),
                TrySendError::Disconnected(job) => SubmitError::Stopped(job),
            }),
        }
    }

    /// Where the answers arrive; one for every job that was taken.
    #[must_use]
    pub fn answers(&self) -> &Receiver<Answer<T>> {
        &self.answers
    }
}

impl<T> Drop for Workers<T> {
    /// Ends the workers after the jobs they have; waits for them.
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A worker's panic was answered as a failed job.
            let _ = thread.join();
        }
    }
}

fn work<T, D: Decoder>(
    queue: &Receiver<Job<T>>,
    help: &Receiver<Task>,
    results: &Sender<Answer<T>>,
    new_decoder: impl Fn() -> D,
) {
    let mut decoder = None;
    loop {
        // A job of its own comes before anybody's help.
        let job = match queue.try_recv() {
            Ok(job) => job,
            Err(TryRecvError::Disconnected) => return,
            Err(TryRecvError::Empty) => select! {
                recv(queue) -> job => match job {
                    Ok(job) => job,
                    Err(_) => return,
                },
                recv(help) -> task => {
                    if let Ok(task) = task {
                        task.run();
                    }
                    continue;
                }
            },
        };
        let Job { tag, job, cancel } = job;
        let id = job.id;
        let result = if cancel.is_cancelled() {
            Err(DecodeError::Cancelled)
        } else {
            // What a panic leaves behind is thrown away with the decoder.
            catch_unwind(AssertUnwindSafe(|| decoder.get_or_insert_with(&new_decoder).decode(&job, &cancel)))
                .unwrap_or_else(|panic| {
                    decoder = None;
                    Err(DecodeError::Failed(format!("the decoder panicked: {}", message(&*panic))))
                })
        };
        if results.send(Answer { tag, job: id, result }).is_err() {
            return;
        }
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "no message",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::asr::ScriptedDecoder;
    use crate::config::LanguageSetting;

    fn job(id: u64, cancel: &Cancel) -> Job<u64> {
        let audio = Arc::from([0.0f32; 16]);
        Job { tag: id * 10, job: DecodeJob::new(JobId(id), audio, LanguageSetting::default()), cancel: cancel.clone() }
    }

    #[test]
    fn every_job_is_answered_once_a_panic_too() {
        let workers = Workers::start(NonZeroUsize::new(2).unwrap(), |_| {
            ScriptedDecoder::new(|job: &DecodeJob| {
                assert!(job.id.0 != 7, "seven");
                Ok(Hypothesis::certain("yes", job))
            })
        })
        .unwrap();
        let (mut answers, never) = (Vec::new(), Cancel::new());
        let mut next = (0..20).map(|id| job(id, &never)).collect::<std::collections::VecDeque<_>>();
        while answers.len() < 20 {
            while let Some(job) = next.pop_front() {
                match workers.submit(job) {
                    Ok(()) => {}
                    Err(SubmitError::Full(job)) => {
                        next.push_front(job);
                        break;
                    }
                    Err(SubmitError::Stopped(_)) => panic!("the workers are there"),
                }
            }
            answers.push(workers.answers().recv_timeout(Duration::from_secs(20)).unwrap());
        }
        answers.sort_by_key(|answer| answer.job);
        for (id, answer) in answers.iter().enumerate() {
            assert_eq!((answer.job.0, answer.tag), (id as u64, id as u64 * 10));
            match &answer.result {
                Err(DecodeError::Failed(text)) => assert!(id == 7 && text.contains("seven"), "{text}"),
                result => assert!(id != 7 && result.is_ok()),
            }
        }
    }

    #[test]
    fn a_job_called_off_in_the_queue_is_not_decoded() {
        let workers = Workers::start(NonZeroUsize::MIN, |_| {
            ScriptedDecoder::new(|job: &DecodeJob| Ok(Hypothesis::certain("decoded", job)))
        })
        .unwrap();
        let cancel = Cancel::new();
        cancel.cancel();
        assert!(workers.submit(job(1, &cancel)).is_ok());
        assert_eq!(workers.answers().recv().unwrap().result, Err(DecodeError::Cancelled));
    }
}
