//! Many tracks on threads: what a media server embeds.
//!
//! In: each participant's audio, from whatever thread holds it ([`AudioSender`]). Out: [`EngineEvent`]s, for any number of
//! [`Subscription`]s.
//!
//! ```
//! use cuewire::asr::{DecodeJob, Hypothesis, ScriptedDecoder};
//! use cuewire::engine::{Engine, EngineConfig, EngineEvent, Idle, TrackConfig};
//! use cuewire::{CaptionEvent, Pcm, Timestamp};
//! use std::{sync::Arc, time::Duration};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A real one is `Arc::new(WhisperModel::load(path)?)`.
//! let model = Arc::new(|_: &Idle| ScriptedDecoder::new(|job: &DecodeJob| Ok(Hypothesis::certain("hello", job))));
//! let engine = Engine::start(EngineConfig::default(), model)?;
//! let events = engine.subscribe();
//! let (mut alice, track) = engine.add_track(TrackConfig::new("alice"))?;
//! # let (now, samples) = (Timestamp::EPOCH, [0i16; 960]);
//! alice.push(now, Pcm::mono(48_000, &samples[..])?)?; // wait-free: from the thread that received the packet
//! drop(alice); // she left
//! # engine.shutdown(Duration::from_secs(2));
//! while let Some(event) = events.recv() {
//!     match event {
//!         EngineEvent::Caption { event: CaptionEvent::Final { speaker_id, text, .. }, .. } => {
//!             println!("{speaker_id}: {text}");
//!         }
//!         EngineEvent::Ended { track: ended, .. } if ended == track => break,
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # The threads
//!
//! `cuewire-pipeline-N` hears the tracks' rings every 5 ms: resampling, voice activity, segments; one serves several
//! hundred tracks. `cuewire-decode-N` decodes; there are as many as the container's CPU quota allows. Both sleep where there
//! is nothing to do. [`EngineConfig::on_thread_start`] is where their priority and affinity are set.
//!
//! # Which job is next
//!
//! Finals before interims, these before translations; among them the one whose answer is due first. A track's [`Priority`]
//! moves that by a second, and so, by half of one, does each of its own finals that wait already: one that floods the queue
//! waits behind the others.
//!
//! # Overload
//!
//! Where jobs wait for long, less is done, in the order of [`OverloadLevel`]: translations are left out, and every second
//! interim; all interims are; a smaller model decodes, where one is loaded; and a final that would come later than the track's
//! [`patience`](TrackConfig::patience) is given up, and its span becomes a gap with the reason `overload`. Half a second
//! after the last need the ladder goes down by a step. Each is an [`EngineEvent::Overload`]. Memory is bounded by patience:
//! nothing waits for longer.
//!
//! # Metrics and spans
//!
//! With the feature `metrics`, whatever recorder the host has installed for the [`metrics`](https://docs.rs/metrics) facade
//! hears:
//!
//! | name | kind | labels | |
//! |---|---|---|---|
//! | `cuewire_tracks` | gauge | | tracks that are there |
//! | `cuewire_overload_level` | gauge | | 0 – 4, as [`OverloadLevel`] |
//! | `cuewire_capacity_tracks` | gauge | | how many more tracks fit |
//! | `cuewire_audio_samples_total` | counter | `fate`: `captioned`, `suppressed`, `silence`, `lost` | what became of the audio (16 kHz), once that is known |
//! | `cuewire_captions_total` | counter | `outcome`: `interim`, `final`, `translation`, `suppressed`, `retracted` | |
//! | `cuewire_gaps_total` | counter | `reason`, as in transcripts | declared gaps |
//! | `cuewire_rtp_faulty_packets_total` | counter | `fault`: `lost`, `late`, `duplicate`, `damaged`, `stray` | as [`ReceiverStats`](crate::audio::rtp::ReceiverStats) has them (feature `opus`) |
//! | `cuewire_pushes_refused_total` | counter | | pushes that found the ring full |
//! | `cuewire_interims_declined_total` | counter | | interims left out for want of time |
//! | `cuewire_translations_declined_total` | counter | | translations left out for want of time |
//! | `cuewire_decode_failures_total` | counter | `kind`: `final`, `interim`, `translation` | decodes that failed twice |
//! | `cuewire_events_missed_total` | counter | | events that subscribers were too slow for |
//! | `cuewire_final_latency_seconds` | histogram | | from the end of the silence to the final |
//! | `cuewire_queue_seconds` | histogram | `kind` | how long a job waited for a worker |
//! | `cuewire_decode_seconds` | histogram | `kind` | how long a decode took |
//!
//! With the feature `tracing` each caption is a span `caption` (`track`, `id`, `outcome`, `latency_ms`) from its first job
//! until something was said of it, and its translation was decoded, with a span `decode` for each of its jobs (`job`,
//! `kind`, `model`, `audio_ms`), which a worker enters; changes of the ladder and failed decodes are events. Neither holds
//! what was said, nor who said it; nothing of either happens in a push.

use std::collections::HashMap;
use std::io;
use std::num::NonZeroUsize;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

#[cfg(feature = "opus")]
use crate::audio::rtp::{ReceiveError, ReorderWindow};
use crate::config::Config;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::channel::{Sender, unbounded};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Mutex, MutexGuard, now};
use crate::time::Timestamp;

mod event;
#[cfg(test)]
#[cfg(shuttle)]
mod explored;
mod hear;
mod load;
mod model;
mod pipeline;
mod ring;
#[cfg(test)]
#[cfg(pthread_sync)]
mod stressed;
mod subscribe;
mod telemetry;
mod track;
mod workers;

pub use event::{EngineEvent, Ledger, OverloadLevel, TrackId, TrackReport};
pub use model::{Model, ModelId, Models};
pub use ring::{AudioSender, PushError, RING_FRAMES};
pub use subscribe::{MAX_WAITING_EVENTS, NoEvent, Subscription};
pub use workers::{Answer, Idle, Job, ThreadHook, ThreadRole, Workers, default_threads};

use load::{Ladder, Load};
use pipeline::{Command, Message, Pipeline};
use ring::Shared;
use subscribe::Subscribers;
use track::Track;

/// Settings of an engine.
#[derive(Clone)]
#[non_exhaustive]
pub struct EngineConfig {
    /// Threads that decode; default [`default_threads`].
    pub workers: NonZeroUsize,
    /// Threads that hear tracks; default one for eight workers.
    pub pipelines: NonZeroUsize,
    /// Called on each thread of the engine before anything else: sets its priority and affinity.
    pub on_thread_start: Option<ThreadHook>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        let workers = default_threads();
        let pipelines = NonZeroUsize::new(workers.get().div_ceil(8)).unwrap_or(NonZeroUsize::MIN);
        Self { workers, pipelines, on_thread_start: None }
    }
}

/// Settings of a track.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TrackConfig {
    /// Who speaks.
    pub speaker_id: String,
    /// What is captioned and how.
    pub config: Config,
    /// Whose answers come first.
    pub priority: Priority,
    /// Which of the engine's models.
    pub model: ModelId,
    /// How late a final may be, after its silence is over, before it is given up, and how long a translation may wait;
    /// default 2 s. Who records rather than shows takes minutes: what waits is held in memory.
    pub patience: Duration,
    /// How RTP packets that are out of order are waited for.
    #[cfg(feature = "opus")]
    pub reorder_window: ReorderWindow,
}

impl TrackConfig {
    /// A track with the default settings for live audio: those of [`Config`], with early finals.
    #[must_use]
    pub fn new(speaker_id: impl Into<String>) -> Self {
        Self {
            speaker_id: speaker_id.into(),
            config: Config { early_finals: true, ..Config::default() },
            priority: Priority::default(),
            model: ModelId::default(),
            patience: Duration::from_secs(2),
            #[cfg(feature = "opus")]
            reorder_window: ReorderWindow::default(),
        }
    }
}

/// Whose answers come first where they cannot all come in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// As if they were due a second later than others.
    Low,
    /// As others.
    #[default]
    Normal,
    /// As if they were due a second earlier.
    High,
}

/// What an engine was asked for does not go.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The system starts no more threads.
    #[error("cannot start the engine's threads: {0}")]
    Threads(#[from] io::Error),
    /// There is nothing to decode with.
    #[error("an engine needs a model: none was given")]
    NoModel,
    /// It was not among those given to [`Engine::start`].
    #[error("{model} is not loaded: there are {loaded}, counted from 0")]
    UnknownModel {
        /// The one asked for.
        model: ModelId,
        /// How many there are.
        loaded: usize,
    },
    /// The track's model cannot do what its settings ask for.
    #[error("{0}")]
    Model(String),
    /// The reorder window makes no sense.
    #[cfg(feature = "opus")]
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    /// It was never added, or it has ended.
    #[error("{0} is not there: it has ended, or was never added")]
    UnknownTrack(TrackId),
}

/// Whose job it is, and how it is judged while it waits.
#[derive(Clone, Copy, Debug)]
struct Tag {
    track: TrackId,
    /// When the answer is due.
    due: Instant,
    /// How late it may be: of an interim, until the next one.
    patience: Duration,
}

/// What the engine's threads share.
struct Core {
    workers: Workers<Tag>,
    models: Models,
    load: Load,
    ladder: Mutex<Ladder>,
    subscribers: Subscribers,
    clock: Clock,
    tracks: Mutex<HashMap<TrackId, Handle>>,
    pipelines: Vec<Sender<Message>>,
}

/// What the engine knows of a track that is there.
struct Handle {
    shared: Arc<Shared>,
    model: ModelId,
}

/// From the threads' clock to UTC: as the system had it when the engine started, and never set again.
#[derive(Clone, Copy, Debug)]
struct Clock {
    start: Instant,
    utc: Timestamp,
}

impl Clock {
    fn start() -> Self {
        Self { start: now(), utc: SystemTime::now().into() }
    }

    /// Since it started.
    fn nanos(&self) -> u64 {
        u64::try_from(now().duration_since(self.start).as_nanos()).unwrap_or(u64::MAX)
    }

    fn utc(&self, instant: Instant) -> Timestamp {
        let since = instant.saturating_duration_since(self.start);
        self.utc.plus_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }
}

impl Core {
    fn tracks(&self) -> MutexGuard<'_, HashMap<TrackId, Handle>> {
        self.tracks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pipeline_of(&self, track: TrackId) -> &Sender<Message> {
        &self.pipelines[pipeline_of(track, self.pipelines.len())]
    }

    /// Whether the model can do what `config` asks for.
    fn check(&self, model: ModelId, config: &Config) -> Result<(), EngineError> {
        let loaded = self.models.len();
        let checked = self.models.get(model).ok_or(EngineError::UnknownModel { model, loaded })?.check(config);
        checked.map_err(EngineError::Model)
    }

    /// The next smaller model that can do what `config` asks for; the same where there is none.
    fn smaller(&self, model: ModelId, config: &Config) -> ModelId {
        let smaller = (model.0 + 1..self.models.len()).map(ModelId);
        smaller.into_iter().find(|smaller| self.check(*smaller, config).is_ok()).unwrap_or(model)
    }
}

/// When so much time will have passed. Who waits for ever gives a duration that no instant has room for.
fn after(patience: Duration) -> Instant {
    const AGES: Duration = Duration::from_secs(1 << 32);
    now() + patience.min(AGES)
}

fn pipeline_of(track: TrackId, pipelines: usize) -> usize {
    (track.0 % pipelines as u64) as usize
}

/// Captions for many tracks. See the module's documentation. All methods take `&self`: share it in an [`Arc`].
///
/// Dropping it ends everything at once; [`shutdown`](Self::shutdown) finalises what is open first.
pub struct Engine {
    core: Arc<Core>,
    next_track: AtomicU64,
    pipelines: Vec<JoinHandle<Vec<(TrackId, TrackReport)>>>,
}

impl Engine {
    /// Starts the threads. `models`: one, or several from the most accurate to the fastest.
    ///
    /// # Errors
    /// [`EngineError::Threads`], [`EngineError::NoModel`].
    pub fn start(config: EngineConfig, models: impl Into<Models>) -> Result<Self, EngineError> {
        let EngineConfig { workers, pipelines, on_thread_start: hook } = config;
        let models = models.into();
        if models.len() == 0 {
            return Err(EngineError::NoModel);
        }
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..pipelines.get()).map(|_| unbounded()).unzip();
        let answers: Vec<Sender<Message>> = senders.clone();
        let threads = Workers::start_hooked(workers, models.clone(), hook.clone(), move |answer: Answer<Tag>| {
            let pipeline = &answers[pipeline_of(answer.tag.track, answers.len())];
            // A pipeline that is gone has abandoned its tracks.
            let _ = pipeline.send(Message::Answer(answer));
        })?;
        telemetry::describe();
        let clock = Clock::start();
        let processors = default_threads().get().min(workers.get() + pipelines.get());
        let core = Arc::new(Core {
            workers: threads,
            load: Load::new(models.len(), processors),
            models,
            ladder: Mutex::new(Ladder::new(clock.start)),
            subscribers: Subscribers::default(),
            clock,
            tracks: Mutex::default(),
            pipelines: senders,
        });
        let mut engine = Self { core, next_track: AtomicU64::new(0), pipelines: Vec::new() };
        for (i, messages) in receivers.into_iter().enumerate() {
            let (core, hook) = (engine.core.clone(), hook.clone());
            let thread = thread::Builder::new().name(format!("cuewire-pipeline-{i}"));
            let thread = thread.spawn(move || {
                workers::call(hook.as_ref(), ThreadRole::Pipeline(i));
                Pipeline::new(core, messages).run()
            })?;
            engine.pipelines.push(thread);
        }
        Ok(engine)
    }

    /// Adds a track. Its first push begins it.
    ///
    /// # Errors
    /// [`EngineError::UnknownModel`], [`EngineError::Model`], [`EngineError::Receive`].
    pub fn add_track(&self, config: TrackConfig) -> Result<(AudioSender, TrackId), EngineError> {
        self.core.check(config.model, &config.config)?;
        let id = TrackId(self.next_track.fetch_add(1, Ordering::Relaxed));
        let shared = Arc::new(Shared::default());
        let pipeline = self.core.pipeline_of(id);
        let (sender, receiver) = ring::ring(id, shared.clone(), pipeline.clone());
        let model = config.model;
        let smaller = self.core.smaller(model, &config.config);
        let track = Track::new(id, config, smaller, receiver, shared.clone())?;
        self.core.tracks().insert(id, Handle { shared, model });
        // The pipelines are there as long as this is.
        let _ = pipeline.send(Message::Add(Box::new(track)));
        Ok((sender, id))
    }

    /// Closes the track's open caption as if its silence were over: behind what was pushed by now, before what will be.
    ///
    /// # Errors
    /// [`EngineError::UnknownTrack`].
    pub fn flush(&self, track: TrackId) -> Result<(), EngineError> {
        self.command(track, Command::Flush)
    }

    /// Tells captions that open in what will be pushed from those before: their events have this number, and once everything
    /// was said of those before comes [`EngineEvent::Marked`]; at once where nothing was open. A number may be given again. Of
    /// a track that ends at the same time [`EngineEvent::Ended`] may come without it.
    ///
    /// # Errors
    /// [`EngineError::UnknownTrack`].
    pub fn mark(&self, track: TrackId, mark: u64) -> Result<(), EngineError> {
        self.command(track, Command::Mark(mark))
    }

    /// From the next push on, what is pushed counts as silence, or no longer so.
    ///
    /// # Errors
    /// [`EngineError::UnknownTrack`].
    pub fn mute(&self, track: TrackId, muted: bool) -> Result<(), EngineError> {
        self.handle(track, |handle| handle.shared.muted.store(muted, Ordering::Relaxed))
    }

    /// Gives the track other settings, from the next caption on; [`Config::paused`] at once, behind what was pushed by now and
    /// before what will be.
    ///
    /// # Errors
    /// [`EngineError::UnknownTrack`], [`EngineError::Model`]: nothing has changed.
    pub fn reconfigure(&self, track: TrackId, config: Config) -> Result<(), EngineError> {
        let model = self.handle(track, |handle| handle.model)?;
        self.core.check(model, &config)?;
        let smaller = self.core.smaller(model, &config);
        self.command(track, Command::Configure { config: Box::new(config), smaller })
    }

    /// For how long the track's oldest caption has been open or awaited: since speech was heard of which nothing final was
    /// said. Zero where there is none. A caption is open for `max_speech_caption_ms` at most; much more is a decoder that hangs.
    ///
    /// # Errors
    /// [`EngineError::UnknownTrack`].
    pub fn unfinished_for(&self, track: TrackId) -> Result<Duration, EngineError> {
        let since = self.handle(track, |handle| handle.shared.unfinished_since.load(Ordering::Relaxed))?;
        Ok(if since == 0 {
            Duration::ZERO
        } else {
            Duration::from_nanos(self.core.clock.nanos().saturating_sub(since))
        })
    }

    /// Everything that happens from now on.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        self.core.subscribers.add()
    }

    /// What is done without at present.
    #[must_use]
    pub fn overload(&self) -> OverloadLevel {
        self.core.load.level()
    }

    /// How many more tracks like those so far can be captioned without doing without anything, from what those cost.
    /// `None` until that was measured for a second; it is better after ten.
    #[must_use]
    pub fn capacity(&self) -> Option<usize> {
        self.core.load.capacity(self.core.tracks().len())
    }

    /// Ends all tracks, waits for what is open to become final, but no longer than `patience`, and stops the threads.
    /// What is not final by then is a gap with the reason `abandoned`. Gives what became of the tracks that were there. A decoder
    /// that does not stop when it is called off takes two seconds more, and then its thread is left behind.
    pub fn shutdown(mut self, patience: Duration) -> Vec<(TrackId, TrackReport)> {
        self.stop(after(patience))
    }

    fn stop(&mut self, deadline: Instant) -> Vec<(TrackId, TrackReport)> {
        for pipeline in &self.core.pipelines {
            // One that is gone has failed, and its tracks with it.
            let _ = pipeline.send(Message::Finish { deadline });
        }
        let threads = self.pipelines.drain(..);
        let mut reports: Vec<_> = threads.filter_map(|thread| thread.join().ok()).flatten().collect();
        reports.sort_by_key(|(track, _)| *track);
        self.core.subscribers.end();
        reports
    }

    fn handle<R>(&self, track: TrackId, of: impl FnOnce(&Handle) -> R) -> Result<R, EngineError> {
        self.core.tracks().get(&track).map(of).ok_or(EngineError::UnknownTrack(track))
    }

    /// Behind what was pushed by now, before what will be.
    fn command(&self, track: TrackId, command: Command) -> Result<(), EngineError> {
        let pushes = self.handle(track, |handle| handle.shared.taken.load(Ordering::Acquire))?;
        // The pipelines are there as long as this is.
        let _ = self.core.pipeline_of(track).send(Message::Command { track, pushes, command });
        Ok(())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if !self.pipelines.is_empty() {
            self.stop(now());
        }
    }
}
