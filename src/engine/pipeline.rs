//! The threads that drive sessions.
//!
//! In: the tracks' rings, looked at every few milliseconds, and messages. Out: jobs for the workers, events for the
//! subscribers.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ring::Span;
use super::track::Track;
use super::workers::{Answer, message};
use super::{Core, EngineEvent, ModelId, Tag, TrackId, TrackReport, telemetry};
use crate::asr::DecodeError;
use crate::config::Config;
use crate::sync::channel::{Receiver, RecvTimeoutError};
use crate::sync::now;

/// How often the rings are looked at: a quarter of the usual packet.
const POLL: Duration = Duration::from_millis(5);

/// What a pipeline is told.
pub(super) enum Message {
    Add(Box<Track>),
    /// Behind as many pushes.
    Command {
        track: TrackId,
        pushes: u64,
        command: Command,
    },
    /// The sender is gone; what it could not push last.
    End {
        track: TrackId,
        lost: Option<Span>,
    },
    Answer(Answer<Tag>),
    /// End all tracks, and what is not final by then.
    Finish {
        deadline: Instant,
    },
}

/// What a host wants of a track.
pub(super) enum Command {
    Flush,
    Mark(u64),
    Configure { config: Box<Config>, smaller: ModelId },
}

pub(super) struct Pipeline {
    core: Arc<Core>,
    messages: Receiver<Message>,
    tracks: BTreeMap<TrackId, Track>,
    finish: Option<Instant>,
    /// Whether it can wait for a track without looking at the load.
    at_rest: bool,
    reports: Vec<(TrackId, TrackReport)>,
}

impl Pipeline {
    pub(super) fn new(core: Arc<Core>, messages: Receiver<Message>) -> Self {
        Self { core, messages, tracks: BTreeMap::new(), finish: None, at_rest: true, reports: Vec::new() }
    }

    /// Until it is told to finish, and has. What became of the tracks that were there then.
    pub(super) fn run(mut self) -> Vec<(TrackId, TrackReport)> {
        while self.finish.is_none() || !self.tracks.is_empty() {
            let first = if self.tracks.is_empty() && self.at_rest {
                self.messages.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                self.messages.recv_timeout(POLL)
            };
            let start = now();
            self.tracks.values_mut().for_each(Track::look);
            match first {
                Ok(message) => self.handle(message),
                Err(RecvTimeoutError::Timeout) => {}
                // Every sender is gone, the engine's own too.
                Err(RecvTimeoutError::Disconnected) => break,
            }
            while let Ok(message) = self.messages.try_recv() {
                self.handle(message);
            }
            self.each(|track, core| track.hear(core));
            self.assess(start);
            if self.finish.is_some_and(|deadline| deadline <= start) {
                self.each(|track, core| track.abandon(core));
            }
            self.core.load.pipeline_was_busy(now().duration_since(start));
        }
        self.reports
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Add(track) => {
                let id = track.id();
                self.tracks.insert(id, *track);
                if self.finish.is_some() {
                    self.with(id, |track, core| track.end(None, core));
                }
            }
            Message::Command { track, pushes, command } => {
                self.with(track, |track, core| track.obey(pushes, command, core));
            }
            Message::End { track, lost } => self.with(track, |track, core| track.end(lost, core)),
            Message::Answer(answer) => self.with(answer.tag.track, |track, core| track.answer(answer, core)),
            Message::Finish { deadline } => {
                self.finish = Some(deadline);
                self.each(|track, core| track.end(None, core));
            }
        }
    }

    fn each(&mut self, mut act: impl FnMut(&mut Track, &Core)) {
        let mut next = TrackId(0);
        while let Some((&track, _)) = self.tracks.range(next..).next() {
            self.with(track, &mut act);
            next = TrackId(track.0 + 1);
        }
    }

    /// Does something with a track that may have gone meanwhile. A panic ends this track and no other.
    fn with(&mut self, id: TrackId, act: impl FnOnce(&mut Track, &Core)) {
        let Some(track) = self.tracks.get_mut(&id) else { return };
        let core = &*self.core;
        let failure = match catch_unwind(AssertUnwindSafe(|| act(track, core))) {
            Ok(()) if !track.is_finished() => return,
            Ok(()) => None,
            Err(panic) => Some(message(&*panic).to_string()),
        };
        let Some(track) = self.tracks.remove(&id) else { return };
        let report = track.report(failure, core);
        core.tracks().remove(&id);
        if self.finish.is_some() {
            self.reports.push((id, report.clone()));
        }
        core.subscribers.publish(&EngineEvent::Ended { track: id, report });
    }

    /// Takes its turn at looking after the load, if no other pipeline is at it.
    fn assess(&mut self, now: Instant) {
        self.at_rest = false;
        let Ok(mut ladder) = self.core.ladder.try_lock() else { return };
        let tracks = self.core.tracks().len();
        let (given_up, level) = ladder.assess(now, tracks, &self.core.workers, &self.core.load);
        // Where there are tracks, their pipelines look.
        self.at_rest = tracks > 0 || ladder.is_at_rest();
        drop(ladder);
        for job in given_up {
            let answer =
                Answer { tag: job.tag, job: job.job.id, result: Err(DecodeError::Shed), started: now, ended: now };
            // A pipeline that is gone has abandoned its tracks.
            let _ = self.core.pipeline_of(job.tag.track).send(Message::Answer(answer));
        }
        if let Some(level) = level {
            telemetry::overloaded(level);
            self.core.subscribers.publish(&EngineEvent::Overload { level });
        }
    }
}
