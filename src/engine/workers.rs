//! Decode workers behind one queue in the order of deadlines.
//!
//! In: jobs. Out: answers. One worker is one thread with a decoder of each model it was asked for; who waits sleeps.
//!
//! The queue is a sorted map behind a lock that is held for a few pointer moves, by who submits and by a worker that is
//! free. A dispatcher's thread with a channel to each worker would do without, at the price of a thread switch between
//! two jobs on a machine whose cores are all busy decoding; and what waits can be looked at and taken back.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::model::{ModelId, Models};
use super::telemetry::DecodeSpan;
use crate::asr::{Cancel, DecodeError, DecodeJob, Decoder, Hypothesis, JobId, JobKind};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::channel::{Either, Receiver, Sender, TryRecvError, either, unbounded};
use crate::sync::join_within;
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Mutex, MutexGuard, now};

/// A job on its way to a worker.
#[derive(Debug)]
#[non_exhaustive]
pub struct Job<T> {
    /// Whose job it is; comes back with the answer.
    pub tag: T,
    /// What to decode.
    pub job: DecodeJob,
    /// Set it to call the job off: queued or in progress.
    pub cancel: Cancel,
    /// Who decodes it.
    pub model: ModelId,
    /// When the answer is wanted: of the finals that wait, then of the interims, and then of the translations, the earliest
    /// is next.
    pub deadline: Instant,
    /// How long it will take, as far as one knows.
    pub cost: Duration,
    pub(super) span: DecodeSpan,
}

impl<T> Job<T> {
    /// A job for the first model that is wanted at once and of unknown cost; the fields are public for everything else.
    #[must_use]
    pub fn new(tag: T, job: DecodeJob) -> Self {
        let (cancel, model) = (Cancel::new(), ModelId::default());
        Self { tag, job, cancel, model, deadline: now(), cost: Duration::ZERO, span: DecodeSpan::default() }
    }
}

/// What became of a job.
#[derive(Debug)]
#[non_exhaustive]
pub struct Answer<T> {
    /// Whose job it was.
    pub tag: T,
    /// The job.
    pub job: JobId,
    /// What the decoder said.
    pub result: Result<Hypothesis, DecodeError>,
    /// When the worker took the job.
    pub started: Instant,
    /// When it was done with it.
    pub ended: Instant,
}

/// Workers that wait for a job. They may take a share of another's decode, which changes nothing in its answer.
#[derive(Clone)]
pub struct Idle {
    #[cfg(any(feature = "whisper", shuttle, pthread_sync))]
    tasks: Sender<Task>,
}

#[cfg(any(feature = "whisper", shuttle, pthread_sync))]
use crate::asr::team::{Assistant, Task};

#[cfg(any(feature = "whisper", shuttle, pthread_sync))]
impl Idle {
    fn channel() -> (Self, Receiver<Task>) {
        // Without room: a task is taken by a worker that waits at this moment, or by none.
        let (tasks, help) = crate::sync::channel::bounded(0);
        (Self { tasks }, help)
    }
}

#[cfg(any(feature = "whisper", shuttle, pthread_sync))]
impl Assistant for Idle {
    fn offer(&self, task: Task) {
        // Nobody waits: its owner does all of it.
        drop(self.tasks.try_send(task));
    }
}

/// Without Whisper nobody asks for help.
#[cfg(not(any(feature = "whisper", shuttle, pthread_sync)))]
struct Task;

#[cfg(not(any(feature = "whisper", shuttle, pthread_sync)))]
impl Task {
    fn run(self) {}
}

#[cfg(not(any(feature = "whisper", shuttle, pthread_sync)))]
impl Idle {
    fn channel() -> (Self, Receiver<Task>) {
        (Self {}, crate::sync::channel::never())
    }
}

/// Which of the engine's threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ThreadRole {
    /// `cuewire-decode-N`: busy whenever there is something to decode.
    Decode(usize),
    /// `cuewire-pipeline-N`: hears the tracks every few milliseconds.
    Pipeline(usize),
}

/// Called on each new thread before anything else: the place to set its priority and affinity.
pub type ThreadHook = Arc<dyn Fn(ThreadRole) + Send + Sync>;

/// How long a decoder that is called off has until its thread is left behind.
const LEFT_AFTER: Duration = Duration::from_secs(2);

/// One that panics costs no thread.
pub(super) fn call(hook: Option<&ThreadHook>, role: ThreadRole) {
    if let Some(hook) = hook {
        let _ = catch_unwind(AssertUnwindSafe(|| hook(role)));
    }
}

/// A number of threads that decode.
pub struct Workers<T> {
    queue: Arc<Queue<T>>,
    /// One token a job that was put into the queue; a worker that finds nothing there goes on waiting.
    tokens: Option<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

/// As many threads as the process may use at a time: the machine's cores, or fewer where the container's CPU quota or
/// the affinity mask allows fewer.
#[must_use]
pub fn default_threads() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// Finals before interims, these before translations, then by deadline, then in the order in which they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    kind: u8,
    deadline: Instant,
    number: u64,
}

struct Queue<T> {
    jobs: Mutex<BTreeMap<Rank, Job<T>>>,
    submitted: AtomicU64,
    busy_nanos: AtomicU64,
}

impl<T> Queue<T> {
    fn jobs(&self) -> MutexGuard<'_, BTreeMap<Rank, Job<T>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the time since `start` to what the workers have done.
    fn was_busy(&self, start: Instant) -> Instant {
        let now = now();
        let nanos = u64::try_from(now.duration_since(start).as_nanos()).unwrap_or(u64::MAX);
        self.busy_nanos.fetch_add(nanos, Ordering::Relaxed);
        now
    }
}

impl<T: Send + 'static> Workers<T> {
    /// Starts `threads` workers. A job's answer is given to `on_answer`, on the worker's thread.
    ///
    /// # Errors
    /// Where the system starts no more threads.
    pub fn start<F>(threads: NonZeroUsize, models: impl Into<Models>, on_answer: F) -> io::Result<Self>
    where
        F: Fn(Answer<T>) + Clone + Send + 'static,
    {
        Self::start_hooked(threads, models.into(), None, on_answer)
    }

    pub(super) fn start_hooked<F>(
        threads: NonZeroUsize,
        models: Models,
        hook: Option<ThreadHook>,
        on_answer: F,
    ) -> io::Result<Self>
    where
        F: Fn(Answer<T>) + Clone + Send + 'static,
    {
        let jobs = Mutex::new(BTreeMap::new());
        let queue = Arc::new(Queue { jobs, submitted: AtomicU64::new(0), busy_nanos: AtomicU64::new(0) });
        let (tokens, wake_ups) = unbounded();
        let (idle, help) = Idle::channel();
        let threads = (0..threads.get())
            .map(|i| {
                let (hook, on_answer) = (hook.clone(), on_answer.clone());
                let mut worker = Worker {
                    queue: queue.clone(),
                    wake_ups: wake_ups.clone(),
                    help: help.clone(),
                    idle: idle.clone(),
                    models: models.clone(),
                    decoders: BTreeMap::new(),
                };
                thread::Builder::new().name(format!("cuewire-decode-{i}")).spawn(move || {
                    call(hook.as_ref(), ThreadRole::Decode(i));
                    worker.work(&on_answer);
                })
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { queue, tokens: Some(tokens), threads })
    }

    /// Puts a job into the queue, without waiting. The queue has no limit: who submits knows how much is out.
    pub fn submit(&self, job: Job<T>) {
        let number = self.queue.submitted.fetch_add(1, Ordering::Relaxed);
        let kind = match job.job.kind {
            JobKind::Final => 0,
            JobKind::Interim => 1,
            JobKind::Translation => 2,
        };
        let rank = Rank { kind, deadline: job.deadline, number };
        self.queue.jobs().insert(rank, job);
        // The workers are there as long as this is.
        let _ = self.tokens.as_ref().map(|tokens| tokens.send(()));
    }

    /// Goes through what waits, in its order: each job with the time until a worker will be free for it, as far as the
    /// costs are known. Takes back those of which `take` says so; they are not answered.
    pub(crate) fn take_back(&self, mut take: impl FnMut(&Job<T>, Duration) -> bool) -> Vec<Job<T>> {
        let mut jobs = self.queue.jobs();
        let workers = u32::try_from(self.threads.len()).unwrap_or(u32::MAX);
        let mut ahead = Duration::ZERO;
        let mut taken = Vec::new();
        for (rank, job) in jobs.iter() {
            if take(job, ahead / workers) {
                taken.push(*rank);
            } else {
                ahead += job.cost;
            }
        }
        taken.iter().filter_map(|rank| jobs.remove(rank)).collect()
    }

    /// Time that the workers have been busy, summed over them.
    #[must_use]
    pub fn busy(&self) -> Duration {
        Duration::from_nanos(self.queue.busy_nanos.load(Ordering::Relaxed))
    }
}

impl<T> Drop for Workers<T> {
    /// Forgets what waits, without an answer, and waits for what is in progress: set its [`Cancel`] first. A decoder that does
    /// not look at it for two seconds is left behind, with its thread: it may never end.
    fn drop(&mut self) {
        self.queue.jobs().clear();
        self.tokens = None;
        // A decoder's panic was answered as a failed job.
        join_within(&mut self.threads, LEFT_AFTER);
    }
}

struct Worker<T> {
    queue: Arc<Queue<T>>,
    wake_ups: Receiver<()>,
    help: Receiver<Task>,
    idle: Idle,
    models: Models,
    decoders: BTreeMap<ModelId, Box<dyn Decoder>>,
}

impl<T> Worker<T> {
    fn work(&mut self, on_answer: &impl Fn(Answer<T>)) {
        loop {
            // A job of its own comes before anybody's help.
            match self.wake_ups.try_recv() {
                Ok(()) => {}
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => match either(&self.wake_ups, &self.help) {
                    Either::First(Ok(())) => {}
                    Either::First(Err(_)) => return,
                    Either::Second(task) => {
                        if let Ok(task) = task {
                            let start = now();
                            task.run();
                            self.queue.was_busy(start);
                        }
                        continue;
                    }
                },
            }
            let Some((_, job)) = self.queue.jobs().pop_first() else { continue };
            let started = now();
            let result = job.span.within(|| match self.decode(&job) {
                Err(DecodeError::Failed(_)) => self.decode(&job),
                result => result,
            });
            let ended = self.queue.was_busy(started);
            on_answer(Answer { tag: job.tag, job: job.job.id, result, started, ended });
        }
    }

    fn decode(&mut self, Job { job, cancel, model, .. }: &Job<T>) -> Result<Hypothesis, DecodeError> {
        if cancel.is_cancelled() {
            return Err(DecodeError::Cancelled);
        }
        let Some(maker) = self.models.get(*model) else {
            return Err(DecodeError::Invalid(format!("{model} is not loaded")));
        };
        let (decoders, idle) = (&mut self.decoders, &self.idle);
        let decoder = || decoders.entry(*model).or_insert_with(|| maker.decoder(idle));
        let decode = || decoder().decode(job, cancel).and_then(Hypothesis::checked);
        // What a panic leaves behind is thrown away with the decoder.
        catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|panic| {
            self.decoders.remove(model);
            Err(DecodeError::Failed(format!("the decoder panicked: {}", message(&*panic))))
        })
    }
}

/// What a panic says.
pub(super) fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "no message",
    }
}

#[cfg(test)]
#[cfg(not(any(shuttle, pthread_sync)))]
mod tests {
    use crossbeam_channel::bounded;

    use super::*;
    use crate::asr::ScriptedDecoder;
    use crate::config::LanguageSetting;

    fn job(id: u64) -> Job<u64> {
        Job::new(id * 10, DecodeJob::new(JobId(id), Arc::from([0.0f32; 16]), LanguageSetting::default()))
    }

    /// Workers whose decoder is `says`, and where their answers arrive.
    fn workers<F>(threads: usize, says: F) -> (Workers<u64>, Receiver<Answer<u64>>)
    where
        F: Fn(&DecodeJob) -> Result<Hypothesis, DecodeError> + Clone + Send + Sync + 'static,
    {
        let (sender, answers) = unbounded();
        let model = Arc::new(move |_: &Idle| ScriptedDecoder::new(says.clone()));
        let threads = NonZeroUsize::new(threads).unwrap();
        (Workers::start(threads, model, move |answer| drop(sender.send(answer))).unwrap(), answers)
    }

    fn next(answers: &Receiver<Answer<u64>>) -> Answer<u64> {
        answers.recv_timeout(Duration::from_secs(20)).unwrap()
    }

    #[test]
    fn every_job_is_answered_once_and_one_that_panics_is_tried_twice() {
        let tries = Arc::new(AtomicU64::new(0));
        let count = tries.clone();
        let (workers, answers) = workers(2, move |job| {
            let first = job.id.0 == 7 || (job.id.0 == 8 && count.fetch_add(1, Ordering::SeqCst) == 0);
            assert!(!first, "number {}", job.id.0);
            Ok(Hypothesis::certain("yes", job))
        });
        (0..20).for_each(|id| workers.submit(job(id)));
        let mut answers: Vec<_> = (0..20).map(|_| next(&answers)).collect();
        answers.sort_by_key(|answer| answer.job);
        for (id, answer) in answers.iter().enumerate() {
            assert_eq!((answer.job.0, answer.tag), (id as u64, id as u64 * 10));
            match &answer.result {
                Err(DecodeError::Failed(text)) => assert!(id == 7 && text.contains("number 7"), "{text}"),
                result => assert!(id != 7 && result.is_ok()),
            }
        }
        assert_eq!(tries.load(Ordering::SeqCst), 2, "the caption was tried again after the panic");
    }

    /// One worker, held up by job 0 until the returned sender is dropped; what is submitted meanwhile waits.
    fn held_up() -> (Workers<u64>, Receiver<Answer<u64>>, Sender<()>) {
        let ((started, start), (release, gate)) = (bounded::<()>(1), bounded::<()>(0));
        let (workers, answers) = workers(1, move |job| {
            if job.id.0 == 0 {
                started.send(()).unwrap();
                gate.recv().unwrap_err();
            }
            Ok(Hypothesis::certain("decoded", job))
        });
        workers.submit(job(0));
        start.recv().unwrap();
        (workers, answers, release)
    }

    #[test]
    fn finals_come_before_interims_and_translations_and_the_earliest_deadline_first() {
        let (workers, answers, release) = held_up();
        let now = Instant::now();
        for (id, kind, due_ms) in [
            (1, JobKind::Interim, 0),
            (2, JobKind::Final, 30),
            (3, JobKind::Final, 10),
            (4, JobKind::Interim, 5),
            (5, JobKind::Final, 10),
            (6, JobKind::Translation, 0),
            (7, JobKind::Interim, 40),
        ] {
            let mut job = job(id);
            (job.job.kind, job.deadline) = (kind, now + Duration::from_millis(due_ms));
            workers.submit(job);
        }
        drop(release);
        let order: Vec<u64> = (0..8).map(|_| next(&answers).job.0).collect();
        assert_eq!(order, [0, 3, 5, 2, 1, 4, 7, 6]);
    }

    #[test]
    fn what_waits_is_called_off_or_taken_back_with_the_time_it_would_wait() {
        let (workers, answers, release) = held_up();
        let called_off = job(1);
        let cancel = called_off.cancel.clone();
        workers.submit(called_off);
        for id in 2..6 {
            let mut job = job(id);
            job.cost = Duration::from_millis(100);
            workers.submit(job);
        }
        cancel.cancel();
        let taken = workers.take_back(|_, ahead| ahead >= Duration::from_millis(200));
        assert_eq!(taken.iter().map(|job| job.job.id.0).collect::<Vec<_>>(), [4, 5]);
        drop(release);
        let results: Vec<_> = (0..4).map(|_| next(&answers)).map(|answer| (answer.job.0, answer.result)).collect();
        assert_eq!(results.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(results[1].1, Err(DecodeError::Cancelled));
    }
}
