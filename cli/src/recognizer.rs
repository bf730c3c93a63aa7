//! The decode workers, as the command line uses them: jobs of many tracks, finals first, cancelled ones dropped.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use cuewire::asr::whisper::WhisperModel;
use cuewire::asr::{Cancel, DecodeJob, JobId};
use cuewire::engine::{Answer, Job, Workers};

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
    answers: Receiver<Answer<Track>>,
    /// Every job that is not answered yet.
    cancels: HashMap<(Track, JobId), Cancel>,
    threads: usize,
}

impl Recognizer {
    pub(crate) fn start(model: &Arc<WhisperModel>, threads: NonZeroUsize) -> Result<Self, String> {
        let (sender, answers) = unbounded();
        // Where nobody receives any more, the command is over.
        let workers = Workers::start(threads, model.clone(), move |answer| drop(sender.send(answer)))
            .map_err(|error| format!("cannot start {threads} decode threads: {error}"))?;
        Ok(Self { workers, answers, cancels: HashMap::new(), threads: threads.get() })
    }

    /// Takes a job; it starts as soon as a worker is free.
    pub(crate) fn ask(&mut self, tag: Track, job: DecodeJob) {
        let job = Job::new(tag, job);
        self.cancels.insert((tag, job.job.id), job.cancel.clone());
        self.workers.submit(job);
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
    pub(crate) fn answers(&self) -> &Receiver<Answer<Track>> {
        &self.answers
    }

    /// Notes an answer.
    pub(crate) fn answered(&mut self, answer: &Answer<Track>) {
        self.cancels.remove(&(answer.tag, answer.job));
    }

    /// Time spent decoding, summed over the workers.
    pub(crate) fn decode_time(&self) -> Duration {
        self.workers.busy()
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
