//! One track in an engine: its session, and what surrounds it.
//!
//! In: what its ring holds, answers, commands. Out: jobs with their deadlines, events with their ledgers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::{EngineEvent, Ledger, OverloadLevel, TrackId, TrackReport};
#[cfg(feature = "opus")]
use super::hear::Rtp;
use super::hear::{hear_parts, hear_silence};
use super::load::Work;
use super::pipeline::Command;
use super::ring::{AudioReceiver, Pushed, Shared, Span};
use super::telemetry::{self, CaptionSpan, DecodeSpan, Meter};
use super::workers::{Answer, Job};
use super::{Core, EngineError, ModelId, Priority, Tag, TrackConfig};
use crate::asr::{Cancel, DecodeError, DecodeJob, FeatureCache, JobId, JobKind};
#[cfg(feature = "opus")]
use crate::audio::rtp::{RtpFormat, RtpReceiver};
use crate::caption::{CaptionEvent, CaptionId};
use crate::session::{Input, InputError, Output, Session};
use crate::sync::atomic::Ordering;
use crate::sync::now;
use crate::time::{SAMPLE_RATE, SampleIndex, Timestamp, nanos_of_samples};

/// By how much a priority moves what is due.
const PRIORITY_STEP: Duration = Duration::from_secs(1);
/// By how much a track's own finals that wait do.
const FAIRNESS_STEP: Duration = Duration::from_millis(500);

pub(super) struct Track {
    id: TrackId,
    session: Session,
    /// None once the track has ended.
    audio: Option<AudioReceiver>,
    #[cfg(feature = "opus")]
    rtp: Rtp,
    /// Pushes heard, and how many may be.
    pushes: u64,
    ready: u64,
    shared: Arc<Shared>,
    priority: Priority,
    patience: Duration,
    model: ModelId,
    /// Who decodes under overload.
    smaller: ModelId,
    /// Whose tokens a draft has.
    drafted_by: ModelId,
    /// Jobs that are not answered.
    asked: BTreeMap<JobId, Asked>,
    /// Captions of which something was asked and nothing final was said, by where their audio begins.
    captions: BTreeMap<SampleIndex, Caption>,
    /// Captions that are closed and of which nothing was said.
    closed: VecDeque<Closed>,
    /// The first caption behind each mark before which captions are unfinished.
    marks: VecDeque<(CaptionId, u64)>,
    /// The last mark of the others.
    marked: u64,
    /// The oldest caption that is open or awaited.
    unfinished: Option<CaptionId>,
    /// Where the last audio ended, by the sender's clock, and when it came.
    heard_to: Timestamp,
    heard_at: Instant,
    /// When the session wants a tick, by the sender's clock.
    wake_up: Option<Timestamp>,
    /// Whether the last interim was left out.
    left_out: bool,
    abandoned: bool,
    report: TrackReport,
    meter: Meter,
}

struct Asked {
    cancel: Cancel,
    work: Work,
    start: SampleIndex,
    queued: Instant,
}

struct Caption {
    span: CaptionSpan,
    /// Of its final.
    decode: Option<Decode>,
}

/// When a final was decoded.
struct Decode {
    queued: Instant,
    started: Instant,
    ended: Instant,
    model: ModelId,
}

struct Closed {
    id: CaptionId,
    heard_from: SampleIndex,
    /// Detected end of speech, by the sender's clock.
    end_time: Timestamp,
    speech_end: Timestamp,
    silence_reached: Timestamp,
}

impl Track {
    pub(super) fn new(
        id: TrackId,
        config: TrackConfig,
        smaller: ModelId,
        audio: AudioReceiver,
        shared: Arc<Shared>,
    ) -> Result<Self, EngineError> {
        Ok(Self {
            id,
            session: Session::new(&config.speaker_id, config.config),
            audio: Some(audio),
            #[cfg(feature = "opus")]
            rtp: Rtp {
                receiver: RtpReceiver::new(RtpFormat::OPUS, config.reorder_window)?,
                packet: None,
                muted: false,
            },
            pushes: 0,
            ready: 0,
            shared,
            priority: config.priority,
            patience: config.patience,
            model: config.model,
            smaller,
            drafted_by: config.model,
            asked: BTreeMap::new(),
            captions: BTreeMap::new(),
            closed: VecDeque::new(),
            marks: VecDeque::new(),
            marked: 0,
            unfinished: None,
            heard_to: Timestamp::EPOCH,
            heard_at: now(),
            wake_up: None,
            left_out: false,
            abandoned: false,
            report: TrackReport::default(),
            meter: Meter::default(),
        })
    }

    pub(super) fn id(&self) -> TrackId {
        self.id
    }

    pub(super) fn is_finished(&self) -> bool {
        self.session.is_finished()
    }

    /// Notes how much was pushed by now. Commands are handled between this and [`hear`](Self::hear): one that was given
    /// before a push is obeyed before it.
    pub(super) fn look(&mut self) {
        self.ready = self.shared.taken.load(Ordering::Acquire);
    }

    /// Hears what was pushed, or that nothing was.
    pub(super) fn hear(&mut self, core: &Core) {
        self.hear_up_to(self.ready, core);
        #[cfg(feature = "opus")]
        self.flush_rtp(false, core);
        // As far behind the last audio as the session says, by the sender's clock; unless this thread is what was late.
        if let Some(due) = self.wake_up
            && nanos_since(self.heard_at) >= due.nanos_since(self.heard_to)
            && self.shared.taken.load(Ordering::Acquire) <= self.ready
        {
            self.tell(Input::Tick(due), core);
        }
    }

    fn hear_up_to(&mut self, pushes: u64, core: &Core) {
        while self.pushes < pushes && self.hear_push(core) {}
    }

    /// Hears one push; whether there was one.
    fn hear_push(&mut self, core: &Core) -> bool {
        let Some(audio) = &mut self.audio else { return false };
        let before = self.heard_to;
        let (session, heard_to) = (&mut self.session, &mut self.heard_to);
        #[cfg(feature = "opus")]
        let rtp = &mut self.rtp;
        let Some(heard) = audio.next(|at, lost, pushed| {
            if let Some((from, to)) = lost {
                #[cfg(feature = "opus")]
                rtp.end_stream(session, heard_to)?;
                session.handle_input(Input::Lost { from, to })?;
            }
            match pushed {
                Pushed::Pcm { rate, parts } => hear_parts(session, heard_to, at, rate, parts),
                Pushed::Silence { rate, frames } => hear_silence(session, heard_to, at, rate, frames),
                #[cfg(feature = "opus")]
                Pushed::Rtp { format, packet, muted } => {
                    let mut rest = Ok(());
                    if format != rtp.receiver.format() {
                        rtp.receiver.flush();
                        rest = rtp.hear(session, heard_to);
                        // A decoder of its rate could be made before.
                        let _ = rtp.receiver.change_format(format);
                    }
                    rtp.packet = Some((packet.at, now()));
                    rtp.muted = muted;
                    // The ring takes no payload that is too long, and the receiver is drained.
                    let _ = rtp.receiver.handle_packet(packet);
                    rest.and(rtp.hear(session, heard_to))
                }
            }
        }) else {
            return false;
        };
        self.pushes += 1;
        // Padding, or a packet that waits for another, is no audio: a stream that has stalled has so all the same.
        if self.heard_to != before {
            self.heard_at = now();
        }
        self.was_heard(heard, core);
        true
    }

    fn was_heard(&mut self, heard: Result<(), InputError>, core: &Core) {
        if let Err(error) = heard {
            core.subscribers.publish(&EngineEvent::Refused { track: self.id, error });
        }
        self.drain(core);
    }

    /// Gives up packets that are missing, where it is time to.
    #[cfg(feature = "opus")]
    fn flush_rtp(&mut self, now: bool, core: &Core) {
        let Rtp { receiver, packet, .. } = &self.rtp;
        let Some((held_until, (at, came))) = receiver.held_until().zip(*packet) else { return };
        if now || nanos_since(came) >= held_until.nanos_since(at) {
            self.rtp.receiver.flush();
            let heard = self.rtp.hear(&mut self.session, &mut self.heard_to);
            self.was_heard(heard, core);
        }
    }

    fn tell(&mut self, input: Input<'_>, core: &Core) {
        let heard = self.session.handle_input(input);
        self.was_heard(heard, core);
    }

    pub(super) fn obey(&mut self, pushes: u64, command: Command, core: &Core) {
        self.hear_up_to(pushes, core);
        match command {
            Command::Flush => self.tell(Input::Flush, core),
            Command::Mark(mark) => {
                self.marks.push_back((self.session.next_caption(), mark));
                self.say_marks(self.session.unfinished_from(), core);
            }
            Command::Configure { config, smaller } => {
                self.smaller = smaller;
                if self.audio.is_some() {
                    self.tell(Input::Configure(*config), core);
                }
            }
        }
    }

    /// Hears the rest; `lost` was refused after it.
    pub(super) fn end(&mut self, lost: Option<Span>, core: &Core) {
        self.ready = u64::MAX;
        self.hear(core);
        if self.audio.take().is_none() {
            return;
        }
        #[cfg(feature = "opus")]
        self.flush_rtp(true, core);
        if let Some((from, to)) = lost {
            self.tell(Input::Lost { from, to }, core);
        }
        self.tell(Input::End, core);
    }

    /// Gives up what is not answered: the time is over.
    pub(super) fn abandon(&mut self, core: &Core) {
        self.abandoned = true;
        while let Some((job, asked)) = self.asked.pop_first() {
            self.call_off(job, &asked, core);
            self.tell(Input::Decoded { job, result: Err(DecodeError::Cancelled) }, core);
        }
    }

    /// What became of the track, which is over.
    pub(super) fn report(mut self, failure: Option<String>, core: &Core) -> TrackReport {
        for (job, asked) in std::mem::take(&mut self.asked) {
            self.call_off(job, &asked, core);
        }
        // A track that failed finishes no caption.
        self.say_marks(CaptionId(u64::MAX), core);
        self.count();
        let mut accounting = self.session.accounting();
        accounting.non_finite += self.shared.non_finite.load(Ordering::Relaxed);
        TrackReport {
            accounting,
            stability: self.session.stability(),
            full: self.shared.refused.load(Ordering::Relaxed),
            #[cfg(feature = "opus")]
            rtp: self.rtp.receiver.stats(),
            failure,
            ..self.report
        }
    }

    fn count(&mut self) {
        self.meter.count(&self.session, &self.shared);
        #[cfg(feature = "opus")]
        self.meter.count_rtp(self.rtp.receiver.stats());
    }

    /// Takes the answer to a job, unless it was called off.
    pub(super) fn answer(&mut self, answer: Answer<Tag>, core: &Core) {
        let Answer { job, result, started, ended, .. } = answer;
        let Some(Asked { work, start, queued, .. }) = self.asked.remove(&job) else { return };
        telemetry::answered(self.id, work.kind, result.as_ref().err());
        match &result {
            Ok(_) => {
                if work.kind != JobKind::Translation {
                    self.drafted_by = work.model;
                }
                core.load.was_decoded(work, ended.duration_since(started));
                telemetry::decoded(
                    work.kind,
                    started.duration_since(queued).as_secs_f64(),
                    ended.duration_since(started).as_secs_f64(),
                );
            }
            Err(DecodeError::Shed) => self.was_shed(work.kind),
            Err(DecodeError::Cancelled) => {}
            Err(error) => {
                core.subscribers.publish(&EngineEvent::Failed { track: self.id, error: error.clone() });
            }
        }
        if work.kind == JobKind::Final
            && let Some(caption) = self.captions.get_mut(&start)
        {
            caption.decode = Some(Decode { queued, started, ended, model: work.model });
        }
        self.tell(Input::Decoded { job, result }, core);
    }

    fn was_shed(&mut self, kind: JobKind) {
        *match kind {
            JobKind::Final => &mut self.report.finals_shed,
            JobKind::Interim => &mut self.report.interims_declined,
            JobKind::Translation => &mut self.report.translations_declined,
        } += 1;
    }

    fn drain(&mut self, core: &Core) {
        // The caption of which something was said last: its translation is asked right behind that.
        let mut said = CaptionSpan::default();
        loop {
            match self.session.poll_output() {
                Output::Decode(job) => self.ask(job, &said, core),
                Output::Cancel(job) => {
                    if let Some(asked) = self.asked.remove(&job) {
                        self.call_off(job, &asked, core);
                    }
                }
                Output::Closed { id, heard_from, end_time } => {
                    let now = core.clock.utc(now());
                    let speech_end = now.plus_nanos(-self.heard_to.nanos_since(end_time).max(0));
                    self.closed.push_back(Closed { id, heard_from, end_time, speech_end, silence_reached: now });
                }
                Output::Event(event) => said = self.emit(event, core),
                Output::Wait(wake_up) => {
                    self.wake_up = wake_up;
                    self.count();
                    let unfinished = self.session.unfinished_from();
                    self.note_unfinished(unfinished, core);
                    self.say_marks(unfinished, core);
                    return;
                }
            }
        }
    }

    /// Notes since when the oldest caption has been open or awaited.
    fn note_unfinished(&mut self, unfinished: CaptionId, core: &Core) {
        let oldest = Some(unfinished).filter(|id| *id < self.session.next_caption());
        if oldest != self.unfinished {
            self.unfinished = oldest;
            let since = oldest.map_or(0, |_| core.clock.nanos().max(1));
            self.shared.unfinished_since.store(since, Ordering::Relaxed);
        }
    }

    /// Says the marks of which every caption before is over: those before `unfinished` are.
    fn say_marks(&mut self, unfinished: CaptionId, core: &Core) {
        while let Some((_, mark)) = self.marks.front().copied().filter(|(from, _)| *from <= unfinished) {
            self.marks.pop_front();
            self.marked = mark;
            core.subscribers.publish(&EngineEvent::Marked { track: self.id, mark });
        }
    }

    fn call_off(&self, job: JobId, asked: &Asked, core: &Core) {
        asked.cancel.cancel();
        core.workers.take_back(|queued, _| queued.tag.track == self.id && queued.job.id == job);
    }

    /// Puts a job into the queue, or answers it at once where it is to be done without.
    fn ask(&mut self, mut job: DecodeJob, said: &CaptionSpan, core: &Core) {
        let (kind, id, samples) = (job.kind, job.id, job.audio.len());
        let level = core.load.level();
        let model = if level >= OverloadLevel::SmallerModel { self.smaller } else { self.model };
        // Another model has other tokens, and may have other features.
        if model != self.drafted_by {
            job.draft = Arc::from([]);
        }
        if model != self.model {
            job.features = FeatureCache::default();
        }
        let work = Work { kind, model, samples };
        let cost = core.load.cost(work);
        if self.abandoned || self.leaves_out(kind, level) {
            let error = if self.abandoned { DecodeError::Cancelled } else { DecodeError::Shed };
            telemetry::answered(self.id, kind, Some(&error));
            if error == DecodeError::Shed {
                self.was_shed(kind);
                core.load.was_declined(kind, cost);
            }
            // The job is the session's own.
            let _ = self.session.handle_input(Input::Decoded { job: id, result: Err(error) });
            return;
        }
        let now = now();
        let left = nanos_of_samples(job.due.since(self.session.end()), SAMPLE_RATE);
        let due = now + Duration::from_nanos(left.unsigned_abs());
        let waiting = self.asked.values().filter(|asked| asked.work.kind == JobKind::Final).count();
        let step = Priority::High as u32 - self.priority as u32;
        let patience = match kind {
            JobKind::Final | JobKind::Translation => self.patience,
            JobKind::Interim => Duration::from_millis(self.session.config().interim_interval_ms.ms().into()),
        };
        let start = job.start;
        let mut job = Job::new(Tag { track: self.id, due, patience }, job);
        job.deadline = due + PRIORITY_STEP * step + FAIRNESS_STEP * u32::try_from(waiting).unwrap_or(u32::MAX).min(100);
        (job.model, job.cost) = (model, cost);
        let track = self.id;
        let span = match kind {
            JobKind::Translation => said,
            JobKind::Final | JobKind::Interim => {
                let caption = self.captions.entry(start);
                &caption.or_insert_with(|| Caption { span: CaptionSpan::begin(track), decode: None }).span
            }
        };
        job.span = DecodeSpan::begin(span, &job);
        self.asked.insert(id, Asked { cancel: job.cancel.clone(), work, start, queued: now });
        core.workers.submit(job);
    }

    fn leaves_out(&mut self, kind: JobKind, level: OverloadLevel) -> bool {
        match kind {
            JobKind::Final => false,
            JobKind::Translation => level > OverloadLevel::None,
            JobKind::Interim => {
                self.left_out = match level {
                    OverloadLevel::None => false,
                    OverloadLevel::SpacedInterims => !self.left_out,
                    _ => true,
                };
                self.left_out
            }
        }
    }

    /// Tells what was said; the span of the caption that it ended.
    fn emit(&mut self, event: CaptionEvent, core: &Core) -> CaptionSpan {
        let place = self.closed.iter().position(|closed| match &event {
            CaptionEvent::Final { id, .. } | CaptionEvent::Suppressed { id, .. } => closed.id == *id,
            // Of its own, or of audio that was lost.
            CaptionEvent::Gap { to, .. } => closed.end_time == *to,
            CaptionEvent::Interim { .. } | CaptionEvent::Retracted { .. } | CaptionEvent::Translation { .. } => false,
        });
        let closed = place.and_then(|place| self.closed.remove(place));
        let of = event.id().or(closed.as_ref().map(|closed| closed.id));
        let before = self.marks.iter().rev().find(|(from, _)| of.is_none_or(|of| *from <= of));
        let mark = before.map_or(self.marked, |(_, mark)| *mark);
        let caption = closed.as_ref().and_then(|closed| self.captions.remove(&closed.heard_from));
        let is_final = matches!(event, CaptionEvent::Final { .. });
        let decode = caption.as_ref().and_then(|caption| caption.decode.as_ref()).filter(|_| is_final);
        let utc = |instant| core.clock.utc(instant);
        let ledger = closed.zip(decode).map(|(closed, decode)| Ledger {
            speech_end: closed.speech_end,
            silence_reached: closed.silence_reached,
            queued: utc(decode.queued),
            decode_start: utc(decode.started),
            decode_end: utc(decode.ended),
            emitted: utc(now()),
            model: decode.model,
        });
        telemetry::said(&event, ledger.as_ref());
        let span = caption.map(|caption| caption.span).unwrap_or_default();
        span.end(&event, ledger.as_ref());
        core.subscribers.publish(&EngineEvent::Caption { track: self.id, event, mark, ledger });
        span
    }
}

fn nanos_since(instant: Instant) -> i64 {
    i64::try_from(now().duration_since(instant).as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[cfg(not(any(shuttle, pthread_sync)))]
mod tests {
    use super::super::{Engine, EngineConfig, Idle, ring};
    use super::*;
    use crate::asr::{Hypothesis, ScriptedDecoder};

    #[test]
    fn a_track_that_fails_says_its_marks() {
        let model = Arc::new(|_: &Idle| ScriptedDecoder::new(|job: &DecodeJob| Ok(Hypothesis::certain("", job))));
        let engine = Engine::start(EngineConfig::default(), model).unwrap();
        let (events, id, shared) = (engine.subscribe(), TrackId(7), Arc::<Shared>::default());
        let (_sender, receiver) = ring::ring(id, shared.clone(), engine.core.pipeline_of(id).clone());
        let mut track = Track::new(id, TrackConfig::new("alice"), ModelId(0), receiver, shared).unwrap();
        track.marks.extend([(CaptionId(1), 5), (CaptionId(2), 6)]);
        track.report(Some("a fault".into()), &engine.core);
        for expected in [5, 6] {
            assert!(
                matches!(events.try_recv(), Ok(EngineEvent::Marked { track: TrackId(7), mark }) if mark == expected)
            );
        }
    }
}
