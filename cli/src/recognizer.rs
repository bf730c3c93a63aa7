//! The decode workers, as the command line uses them: jobs of many tracks, finals first, cancelled ones dropped.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cuewire::asr::whisper::{WhisperDecoder, WhisperModel};
use cuewire::asr::{Cancel, DecodeError, DecodeJob, Decoder, Hypothesis, JobId, JobKind};
use cuewire::engine::{Answer, Idle, Job, SubmitError, Workers};

/// Which session asked.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Track {
    /// The number of its recording, from 0 in the order of the command line.
    pub(crate) recording: usize,
    /// From 0; 0 too where channels are mixed.
    pub(crate) channel: usize,
}

pub(crate) struct Recognizer {
    workers: Workers<Track>,
    /// Jobs that no worker has taken yet: finals, then interims.
    finals: VecDeque<Job<Track>>,
    interims: VecDeque<Job<Track>>,
    /// Every job that is not answered yet.
    cancels: HashMap<(Track, JobId), Cancel>,
    threads: usize,
    decode_nanos: Arc<AtomicU64>,
}

impl Recognizer {
    pub(crate) fn start(model: &Arc<WhisperModel>, threads: NonZeroUsize) -> Result<Self, String> {
        let decode_nanos = Arc::new(AtomicU64::new(0));
        let (model, nanos) = (model.clone(), decode_nanos.clone());
        let workers = Workers::start(threads, move |idle: &Idle| Timed {
            decoder: WhisperDecoder::assisted(model.clone(), Arc::new(idle.clone())),
            nanos: nanos.clone(),
        })
        .map_err(|error| format!("cannot start {threads} decode threads: {error}"))?;
        Ok(Self {
            workers,
            finals: VecDeque::new(),
            interims: VecDeque::new(),
            cancels: HashMap::new(),
            threads: threads.get(),
            decode_nanos,
        })
    }

    /// Takes a job; it starts as soon as a worker is free.
    pub(crate) fn ask(&mut self, tag: Track, job: DecodeJob) -> Result<(), Stopped> {
        let cancel = Cancel::new();
        self.cancels.insert((tag, job.id), cancel.clone());
        match job.kind {
            JobKind::Final => self.finals.push_back(Job { tag, job, cancel }),
            JobKind::Interim => self.interims.push_back(Job { tag, job, cancel }),
        }
        self.submit()
    }

    pub(crate) fn cancel(&mut self, track: Track, job: JobId) {
        if let Some(cancel) = self.cancels.get(&(track, job)) {
            cancel.cancel();
        }
    }

    /// Nobody waits for an answer any more.
    pub(crate) fn cancel_all(&self) {
        self.cancels.values().for_each(Cancel::cancel);
    }

    /// Jobs not answered yet.
    pub(crate) fn backlog(&self) -> usize {
        self.cancels.len()
    }

    /// Whether so much waits that reading on would only take memory; `unfinished` captions that a session waits for.
    pub(crate) fn is_busy(&self, unfinished: usize) -> bool {
        self.backlog().max(unfinished) >= 3 * self.threads
    }

    /// Where answers arrive. Give each to [`Recognizer::answered`].
    pub(crate) fn answers(&self) -> &crossbeam_channel::Receiver<Answer<Track>> {
        self.workers.answers()
    }

    /// Notes an answer, and gives the worker that is free its next job.
    pub(crate) fn answered(&mut self, answer: &Answer<Track>) -> Result<(), Stopped> {
        self.cancels.remove(&(answer.tag, answer.job));
        self.submit()
    }

    /// Time spent decoding, summed over the workers.
    pub(crate) fn decode_time(&self) -> Duration {
        Duration::from_nanos(self.decode_nanos.load(Ordering::Relaxed))
    }

    fn submit(&mut self) -> Result<(), Stopped> {
        while let Some(job) = self.finals.pop_front().or_else(|| self.interims.pop_front()) {
            match self.workers.submit(job) {
                Ok(()) => {}
                Err(SubmitError::Full(job)) => {
                    let queue = if job.job.kind == JobKind::Final { &mut self.finals } else { &mut self.interims };
                    queue.push_front(job);
                    return Ok(());
                }
                Err(SubmitError::Stopped(_)) => return Err(Stopped),
            }
        }
        Ok(())
    }
}

/// The workers are gone; nothing more will be recognised.
#[derive(Debug)]
pub(crate) struct Stopped;

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the decode workers have stopped")
    }
}

/// A decoder that adds up its time.
struct Timed {
    decoder: WhisperDecoder,
    nanos: Arc<AtomicU64>,
}

impl Decoder for Timed {
    fn decode(&mut self, job: &DecodeJob, cancel: &Cancel) -> Result<Hypothesis, DecodeError> {
        let start = Instant::now();
        let result = self.decoder.decode(job, cancel);
        let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
        result
    }
}
