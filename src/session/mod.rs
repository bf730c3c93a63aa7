//! One track, from audio to caption events, without a clock, a thread, a file or a lock.
//!
//! In: [`Input`]s — audio with its time, answers of the recogniser, settings. Out: [`Output`]s — decode jobs to be
//! answered, caption events, and when to wake up.
//!
//! The one rule: change something with [`Session::handle_input`], then drain [`Session::poll_output`] until it says
//! [`Output::Wait`]. The same inputs give the same outputs, byte for byte, and the way audio is cut into pushes changes
//! no caption as long as each piece states the time of its own first sample. (Interims also depend on how much audio
//! was pushed before the answer to the one before came. And where a stated time lies on the border of one of
//! [`Timeline`]'s rules to the nanosecond, how the times of pieces were rounded decides on which side.)
//!
//! A caption's jobs: interims while it is open, its final, and, once that was said, its translation, where
//! [`Config::translations`] wants one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::asr::{DecodeError, Hypothesis, JobId, Suppression};
use crate::audio::{Resampler, Timeline};
use crate::caption::{CaptionId, Rules, StabilityCount};
use crate::config::Config;
use crate::segment::{Boundary, Segmenter};
use crate::time::{SampleIndex, Timestamp, samples_of_ms};
use crate::vad::{self, Lift, Vad};

mod buffer;
mod finals;
mod hearing;
mod open;
mod protocol;
pub mod trace;

pub use protocol::{Accounting, Input, InputError, Output};

use buffer::SampleBuffer;
use finals::{Awaited, ClosedCaption, Detected, FinalState, Translating};
use open::OpenCaption;

/// A stream counts as stalled when nothing came for `silence_duration_ms` and this much more.
const STALL_GRACE_MS: u32 = 500;
/// Samples handled at a time where there are many, so that no push needs memory of its own size.
const SLICE: usize = 4096;

/// One track. See the module's documentation.
pub struct Session {
    speaker_id: Arc<str>,
    config: Config,
    /// Settings that wait for the next caption.
    next_config: Option<Config>,
    timeline: Timeline,
    resampler: Option<Resampler>,
    vad: Box<dyn Vad>,
    lift: Lift,
    segmenter: Segmenter,
    buffer: SampleBuffer,
    /// The first sample that no frame has held.
    framed: SampleIndex,
    mono: Vec<f32>,
    resampled: Vec<f32>,
    boundaries: Vec<Boundary>,
    open: Option<OpenCaption>,
    awaited: VecDeque<Awaited>,
    /// By their jobs, and so in the order of their captions.
    translating: BTreeMap<JobId, Translating>,
    next_caption: u64,
    next_job: u64,
    /// Every sample before this is counted in `accounting`.
    accounted_to: SampleIndex,
    accounting: Accounting,
    suppressions: BTreeMap<Suppression, u64>,
    stability: StabilityCount,
    /// The rules of `config`.
    rules: Arc<Rules>,
    /// Counts the changes of the language setting.
    epoch: u32,
    /// What is spoken, where it is to be detected and was.
    detected: Option<Detected>,
    /// The end of the last caption: where the anchor slews back, the next one still begins no earlier.
    last_end: Option<Timestamp>,
    ended: bool,
    outputs: VecDeque<Output>,
}

impl Session {
    /// A track that has not begun, with WebRTC's voice activity detector.
    #[must_use]
    pub fn new(speaker_id: &str, config: Config) -> Self {
        let vad = vad::detector(config.vad_mode);
        Self::with_vad(speaker_id, config, vad)
    }

    /// A track with another voice activity detector.
    #[must_use]
    pub fn with_vad(speaker_id: &str, config: Config, mut vad: Box<dyn Vad>) -> Self {
        vad.reset(config.vad_mode);
        let rules = Arc::new(Rules::new(&config.text_rules));
        let mut segmenter = Segmenter::new(config.speech_segment_config);
        segmenter.pause(config.paused);
        Self {
            speaker_id: Arc::from(speaker_id),
            segmenter,
            config,
            next_config: None,
            timeline: Timeline::new(),
            resampler: None,
            vad,
            lift: Lift::default(),
            buffer: SampleBuffer::default(),
            framed: SampleIndex(0),
            mono: Vec::with_capacity(SLICE),
            resampled: Vec::with_capacity(SLICE),
            boundaries: Vec::new(),
            open: None,
            awaited: VecDeque::new(),
            translating: BTreeMap::new(),
            next_caption: 0,
            next_job: 0,
            accounted_to: SampleIndex(0),
            accounting: Accounting::default(),
            suppressions: BTreeMap::new(),
            stability: StabilityCount::default(),
            rules,
            epoch: 0,
            detected: None,
            last_end: None,
            ended: false,
            outputs: VecDeque::new(),
        }
    }

    /// The same track, which has taken no input yet, with samples counted from `first`: one that goes on where another
    /// session stopped. What is drawn at random in recognition is then what it would have been.
    #[doc(hidden)]
    #[must_use]
    pub fn starting_at(mut self, first: SampleIndex) -> Self {
        self.segmenter.stop(first, first, &mut self.boundaries);
        self.buffer = SampleBuffer::starting_at(first);
        (self.framed, self.accounted_to) = (first, first);
        self
    }

    /// Who speaks.
    #[must_use]
    pub fn speaker_id(&self) -> &str {
        &self.speaker_id
    }

    /// The settings in force; others may wait for the next caption.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What became of the samples so far.
    #[must_use]
    pub fn accounting(&self) -> Accounting {
        let waiting: u64 = self.awaited_captions().map(|caption| caption.samples).sum();
        let pending = waiting + self.buffer.end().since(self.accounted_to);
        Accounting { pending, ..self.accounting }
    }

    /// Behind the last sample heard. What a [`DecodeJob::due`](crate::asr::DecodeJob::due) lies ahead of it is the time that is left.
    #[must_use]
    pub fn end(&self) -> SampleIndex {
        self.buffer.end()
    }

    /// Captions that are closed and not final yet, or not translated: each holds its audio. A driver that can wait stops
    /// pushing where they become many; a decoder that is behind is one reason, a language that must be detected first another.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.awaited_captions().count() + self.translating.len()
    }

    /// The id that the next caption to open will have.
    #[must_use]
    pub fn next_caption(&self) -> CaptionId {
        CaptionId(self.next_caption)
    }

    /// The first caption of which something is still to be said, outputs that wait aside: its translation or its final is
    /// awaited, or it is open; else [`next_caption`](Self::next_caption).
    #[must_use]
    pub fn unfinished_from(&self) -> CaptionId {
        let translating = self.translating.values().map(|translating| translating.id);
        let awaited = self.awaited_captions().map(|caption| caption.id);
        let open = self.open.iter().map(|open| open.id);
        translating.chain(awaited).chain(open).next().unwrap_or(self.next_caption())
    }

    fn awaited_captions(&self) -> impl Iterator<Item = &ClosedCaption> {
        self.awaited.iter().filter_map(|awaited| match awaited {
            Awaited::Caption(caption) => Some(&**caption),
            Awaited::Gap(_) => None,
        })
    }

    /// Captions that the guards suppressed, by reason.
    #[must_use]
    pub fn suppressions(&self) -> &BTreeMap<Suppression, u64> {
        &self.suppressions
    }

    /// Of the finals so far that had interims: how many words were stable, and how many of these the final changed.
    #[must_use]
    pub fn stability(&self) -> StabilityCount {
        self.stability
    }

    /// Takes one input. Drain [`Session::poll_output`] afterwards.
    ///
    /// # Errors
    /// [`InputError`]; the session is as it was before.
    pub fn handle_input(&mut self, input: Input<'_>) -> Result<(), InputError> {
        match input {
            Input::Audio { at, pcm } => self.handle_audio(at, pcm),
            Input::Lost { from, to } => self.handle_lost(from, to),
            Input::Decoded { job, result } => self.handle_decoded(job, result),
            Input::Configure(config) => self.handle_configure(config),
            Input::Tick(now) => {
                self.handle_tick(now);
                Ok(())
            }
            Input::Flush => {
                if self.segmenter.is_open() {
                    self.stop_stream();
                }
                Ok(())
            }
            Input::End => {
                self.handle_end();
                Ok(())
            }
        }
    }

    /// The next output; [`Output::Wait`] when there is none until the next input.
    pub fn poll_output(&mut self) -> Output {
        self.outputs.pop_front().unwrap_or_else(|| Output::Wait(self.wake_up()))
    }

    /// Whether the track has ended and everything was said.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.ended && self.awaited.is_empty() && self.translating.is_empty()
    }

    fn wake_up(&self) -> Option<Timestamp> {
        let stall_ms = self.config.speech_segment_config.silence_duration_ms.ms() + STALL_GRACE_MS;
        let end = self.timeline.end().filter(|_| self.segmenter.is_open())?;
        Some(end.plus_nanos(i64::from(stall_ms) * 1_000_000))
    }

    fn handle_boundaries(&mut self) {
        let mut boundaries = std::mem::take(&mut self.boundaries);
        for boundary in boundaries.drain(..) {
            match boundary {
                Boundary::Opened { start, heard_from } => self.open_caption(start, heard_from),
                Boundary::Closed(segment) => {
                    self.close_caption(segment);
                    // Also where a cut opens the next caption at once: it is the next one's settings already.
                    self.apply_config();
                }
            }
        }
        self.boundaries = boundaries;
    }

    fn handle_decoded(&mut self, job: JobId, result: Result<Hypothesis, DecodeError>) -> Result<(), InputError> {
        if job.0 >= self.next_job {
            return Err(InputError::UnknownJob(job));
        }
        let result = result.and_then(Hypothesis::checked);
        let is_asked = |awaited: &Awaited| match awaited {
            Awaited::Caption(caption) => {
                caption.job.id == job && matches!(caption.state, FinalState::Asked | FinalState::AskedAgain(_))
            }
            Awaited::Gap(_) => false,
        };
        if let Some(place) = self.awaited.iter().position(is_asked) {
            self.answer(place, result);
            return Ok(());
        }
        if let Some(translating) = self.translating.remove(&job) {
            self.finish_translation(translating, result);
            return Ok(());
        }
        // Neither a final nor the interim in progress: its caption closed meanwhile.
        let Some(open) = &mut self.open else { return Ok(()) };
        let interval = samples_of_ms(self.config.interim_interval_ms.ms());
        if let Some(early) = open.early.as_mut().filter(|early| early.job.id == job) {
            let heard_to = early.heard_to;
            let answer = early.answer.insert(result);
            if let Ok(hypothesis) = answer
                && interval > 0
                && heard_to.since(open.interim_to) >= interval
            {
                let hypothesis = hypothesis.clone();
                open.interim_to = heard_to;
                self.show(&hypothesis, self.timeline.time_of(heard_to));
            }
            return Ok(());
        }
        let Some(interim) = open.interim.take_if(|interim| interim.job == job) else { return Ok(()) };
        // An interim that failed or found nothing is not shown; the next one, or the final, will tell.
        if let Ok(hypothesis) = result {
            self.show(&hypothesis, interim.end);
        }
        Ok(())
    }

    fn handle_configure(&mut self, config: Config) -> Result<(), InputError> {
        if self.ended {
            return Err(InputError::Ended);
        }
        let is_open = self.segmenter.is_open();
        if self.config.paused && !config.paused && !is_open {
            // Neither what was said under the pause nor the detector's hangover of it opens a caption.
            self.stop_stream();
        }
        self.config.paused = config.paused;
        self.segmenter.pause(config.paused);
        self.next_config = Some(config);
        if !is_open {
            self.apply_config();
        }
        Ok(())
    }

    fn apply_config(&mut self) {
        if let Some(config) = self.next_config.take() {
            if config.vad_mode != self.config.vad_mode {
                self.vad.reset(config.vad_mode);
            }
            self.segmenter.configure(config.speech_segment_config);
            self.epoch += u32::from(config.language != self.config.language);
            if config.text_rules != self.config.text_rules {
                self.rules = Arc::new(Rules::new(&config.text_rules));
            }
            self.config = config;
        }
    }

    /// Closes the caption of a stream that stalled as it stands. The detector's hangover must not open another.
    fn handle_tick(&mut self, now: Timestamp) {
        if self.wake_up().is_some_and(|due| now >= due) {
            self.segmenter.stop(self.framed, self.framed, &mut self.boundaries);
            self.handle_boundaries();
            self.vad.reset(self.config.vad_mode);
        }
    }

    fn handle_end(&mut self) {
        if !self.ended {
            self.stop_stream();
            self.ended = true;
        }
    }
}
