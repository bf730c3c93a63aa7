//! One track, from audio to caption events, without a clock, a thread, a file or a lock.
//!
//! In: [`Input`]s — audio with its time, answers of the recogniser, settings. Out: [`Output`]s — decode jobs to be
//! answered, caption events, and when to wake up.
//!
//! The one rule: change something with [`Session::handle_input`], then drain [`Session::poll_output`] until it says
//! [`Output::Wait`]. The same inputs give the same outputs, byte for byte, and the way audio is cut into pushes changes
//! no caption as long as each piece states the time of its own first sample. (Interims also depend on how much audio
//! was pushed before the answer to the one before came.)
//!
//! A caption's jobs: interims while it is open, its final, and, once that was said, its translation, where
//! [`Config::translations`] wants one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::asr::{DecodeError, DecodeJob, FeatureCache, Hypothesis, JobId, JobKind, Suppression};
use crate::audio::{Pcm, Placement, Resampler, TimeWentBack, Timeline};
use crate::caption::{CaptionEvent, CaptionId, GapReason, Rules, StabilityCount, StablePrefix};
use crate::config::{Config, Language, LanguageSetting};
use crate::segment::{Boundary, Segment, Segmenter};
use crate::time::{SAMPLE_RATE, SampleIndex, Timestamp, nanos_of_samples, samples_of_ms, samples_of_nanos};
use crate::vad::{FRAME, Lift, Vad, WebRtcVad};

mod buffer;
mod finals;
pub mod trace;

use buffer::SampleBuffer;
use finals::{Awaited, ClosedCaption, Detected, FinalState, Translating, probability};

/// A stream counts as stalled when nothing came for `silence_duration_ms` and this much more.
const STALL_GRACE_MS: u32 = 500;
/// Samples handled at a time where there are many, so that no push needs memory of its own size.
const SLICE: usize = 4096;

/// What a session is told.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// Audio whose first sample was recorded `at`.
    Audio {
        /// The sender's time of the first sample.
        at: Timestamp,
        /// The samples.
        pcm: Pcm<'a>,
    },
    /// Audio of this span was lost on its way to the session: it ends the open caption and is declared as a gap. Placed
    /// by `from` as a push would be; the next push is expected at `to`, and its own time dates what follows. A span
    /// that is empty, or ends before it begins, is ignored: nothing was lost.
    Lost {
        /// The sender's time of the first sample lost.
        from: Timestamp,
        /// Behind the last one.
        to: Timestamp,
    },
    /// The answer to an [`Output::Decode`].
    Decoded {
        /// The job's id.
        job: JobId,
        /// What the decoder said.
        result: Result<Hypothesis, DecodeError>,
    },
    /// Other settings, from the next caption on; [`Config::paused`] at once.
    Configure(Config),
    /// It is now this late, and no audio came. Closes the caption of a stream that stalled; nothing else.
    Tick(Timestamp),
    /// The host knows that nothing more belongs to the open caption (end of turn, push-to-talk released, somebody left): closes
    /// it now, as if its silence were over, with all that was pushed. The audio goes on. Without an open caption: nothing.
    Flush,
    /// No more audio will come: closes the open caption.
    End,
}

/// What a session wants or has to say.
#[derive(Clone, Debug)]
pub enum Output {
    /// Decode this and give the answer back as [`Input::Decoded`]; in any order, now or later.
    Decode(DecodeJob),
    /// The answer to this job is no longer of use. One that comes all the same is ignored.
    Cancel(JobId),
    /// A caption is over, as far as the audio goes: what became of it will be an event, in the order in which captions close.
    Closed {
        /// The caption.
        id: CaptionId,
        /// Where the audio of its jobs begins ([`DecodeJob::start`]).
        heard_from: SampleIndex,
        /// Detected end of speech.
        end_time: Timestamp,
    },
    /// Something became known.
    Event(CaptionEvent),
    /// Nothing more until the next input; where a time is given, a [`Input::Tick`] is due then if no audio comes.
    Wait(Option<Timestamp>),
}

/// An input was refused; the session is as it was before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// Skip the push, or correct its time.
    #[error(transparent)]
    TimeWentBack(#[from] TimeWentBack),
    /// The job was never asked for.
    #[error("job {} was never asked for", .0.0)]
    UnknownJob(JobId),
    /// Audio, lost audio or settings after [`Input::End`].
    #[error("the track has ended: audio and settings come too late")]
    Ended,
}

/// What became of a track's samples (16 kHz). Each is in exactly one of the first five; so is what was lost before it came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accounting {
    /// Within a final caption.
    pub captioned: u64,
    /// Speech-like, but without words.
    pub suppressed: u64,
    /// Between captions.
    pub silence: u64,
    /// Declared as gaps: speech that was not recognised, and audio that never arrived ([`Input::Lost`]).
    pub lost: u64,
    /// Not decided yet.
    pub pending: u64,
    /// Of all these, silence that fills short holes.
    pub filled: u64,
    /// Input samples (at their own rate) that were no finite number and count as zero.
    pub non_finite: u64,
}

impl Accounting {
    /// All samples of the track, and those that never arrived: of these, [`SampleIndex`] counts none.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.captioned + self.suppressed + self.silence + self.lost + self.pending
    }
}

/// The caption that is open.
struct OpenCaption {
    id: CaptionId,
    start: Timestamp,
    heard_from: SampleIndex,
    /// Where the last interim job's audio ended, or the onset.
    interim_to: SampleIndex,
    interim: Option<InterimJob>,
    revision: u32,
    prefix: StablePrefix,
    draft: Arc<[u32]>,
    /// The final, asked for before the silence was over.
    early: Option<EarlyFinal>,
    /// Of the audio from `heard_from` on, which is where that of every job of the caption begins.
    features: FeatureCache,
}

struct InterimJob {
    job: JobId,
    end: Timestamp,
    /// Where the one before ended.
    after: SampleIndex,
}

struct EarlyFinal {
    job: DecodeJob,
    heard_to: SampleIndex,
    answer: Option<Result<Hypothesis, DecodeError>>,
}

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
        let vad = Box::new(WebRtcVad::new(config.vad_mode));
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

    /// Behind the last sample heard. What a [`DecodeJob::due`] lies ahead of it is the time that is left.
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

    fn handle_audio(&mut self, at: Timestamp, pcm: Pcm<'_>) -> Result<(), InputError> {
        if self.ended {
            return Err(InputError::Ended);
        }
        if pcm.frames() == 0 {
            return Ok(());
        }
        let rate = pcm.rate();
        let placement = self.timeline.place(at, rate)?;
        // What the track begins with, here or behind lost audio, is dated by the push and not by what came before.
        let begins = self.timeline.is_at_anchor() && placement == Placement::Contiguous;
        if let Placement::Break { from, to } = placement {
            self.break_stream(from, to);
        }
        if self.resampler.as_ref().is_none_or(|resampler| resampler.rate() != rate) {
            self.finish_resampler();
            // `Pcm` holds rates that the resampler takes.
            self.resampler = Resampler::new(rate).ok();
            self.timeline.change_rate(self.buffer.end(), rate);
        }
        if begins || matches!(placement, Placement::Break { .. }) {
            self.timeline.anchor(self.buffer.end(), at, rate);
        }
        if let Placement::Fill { frames } = placement {
            self.timeline.fill(frames);
            self.feed_silence(frames);
            self.accounting.filled += samples_of_nanos(nanos_of_samples(frames, rate), SAMPLE_RATE);
        }
        // The anchor slews only between these slices, whatever the pushes: the same samples get the same times.
        let mut from = 0;
        while from < pcm.frames() {
            let slice = usize::try_from(self.timeline.frames_to_grid()).unwrap_or(SLICE);
            let to = from.saturating_add(slice).min(pcm.frames());
            let mut mono = std::mem::take(&mut self.mono);
            mono.clear();
            self.accounting.non_finite += pcm.mix_into(from, to, &mut mono);
            self.feed(&mono);
            self.mono = mono;
            let sliced_at = at.plus_nanos(nanos_of_samples(from as u64, rate));
            self.timeline.advance(sliced_at, (to - from) as u64);
            from = to;
        }
        Ok(())
    }

    fn handle_lost(&mut self, from: Timestamp, to: Timestamp) -> Result<(), InputError> {
        if self.ended {
            return Err(InputError::Ended);
        }
        if to <= from {
            return Ok(());
        }
        let placement = self.timeline.place(from, SAMPLE_RATE)?;
        match (placement, self.timeline.end()) {
            (Placement::Break { from: end, .. }, _) | (Placement::Fill { .. }, Some(end)) => {
                self.break_stream(end, from);
            }
            _ => self.stop_stream(),
        }
        self.accounting.lost += samples_of_nanos(to.nanos_since(from), SAMPLE_RATE);
        // Stated early by no more than jitter, the gap still lies behind what came before it.
        let from = self.last_end.map_or(from, |end| end.max(from).min(to));
        self.declare_gap(from, to, GapReason::Overload);
        self.timeline.anchor(self.buffer.end(), to, SAMPLE_RATE);
        self.last_end = Some(to);
        Ok(())
    }

    /// Ends what is there: the sender's time goes on at `to`.
    fn break_stream(&mut self, from: Timestamp, to: Timestamp) {
        self.stop_stream();
        self.declare_gap(from, to, if to < from { GapReason::ClockRestarted } else { GapReason::NoAudio });
        self.last_end = None;
    }

    fn feed_silence(&mut self, mut frames: u64) {
        let mut zeros = std::mem::take(&mut self.mono);
        zeros.clear();
        zeros.resize(SLICE, 0.0);
        while frames > 0 {
            let now = frames.min(SLICE as u64);
            self.feed(&zeros[..now as usize]);
            frames -= now;
        }
        self.mono = zeros;
    }

    /// Resamples `mono` and hears every whole frame that results.
    fn feed(&mut self, mono: &[f32]) {
        let mut resampled = std::mem::take(&mut self.resampled);
        resampled.clear();
        if let Some(resampler) = &mut self.resampler {
            resampler.process(mono, &mut resampled);
        }
        self.hear(&resampled);
        self.resampled = resampled;
    }

    fn hear(&mut self, samples: &[f32]) {
        for piece in samples.chunks(SLICE) {
            self.buffer.extend(piece);
            while self.buffer.end().since(self.framed) >= FRAME as u64 {
                self.hear_frame(FRAME);
            }
        }
    }

    /// Judges the next frame, of which `held` samples are there and the rest is silence.
    fn hear_frame(&mut self, held: usize) {
        let lift = self.lift.factor(self.buffer.iter_from(self.framed).take(held));
        let mut frame = [0i16; FRAME];
        let mut energy = 0.0;
        for (quantised, sample) in frame.iter_mut().zip(self.buffer.iter_from(self.framed).take(held)) {
            energy += sample * sample;
            *quantised = (sample * lift * 32_768.0).round().clamp(-32_768.0, 32_767.0) as i16;
        }
        self.framed = self.framed.plus(held as u64);
        let speech = self.vad.is_speech(&frame);
        self.segmenter.push(speech, energy / FRAME as f32, &*self.vad, &mut self.boundaries);
        self.handle_boundaries();
        self.ask_early();
        self.ask_for_interim();
        self.buffer.forget_before(self.segmenter.needed_from());
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

    fn open_caption(&mut self, start: SampleIndex, heard_from: SampleIndex) {
        let id = CaptionId(self.next_caption);
        self.next_caption += 1;
        let begins = self.timeline.time_of(start);
        self.open = Some(OpenCaption {
            id,
            start: self.last_end.map_or(begins, |end| end.max(begins)),
            heard_from,
            interim_to: start,
            interim: None,
            revision: 0,
            prefix: StablePrefix::new(self.config.stability),
            draft: Arc::from([]),
            early: None,
            features: FeatureCache::default(),
        });
    }

    fn close_caption(&mut self, segment: Segment) {
        let Some(open) = self.open.take() else { return };
        if let Some(interim) = &open.interim {
            self.outputs.push_back(Output::Cancel(interim.job));
        }
        let audio = (segment.heard_from, segment.heard_to);
        let (job, asked) = match open.early {
            Some(early) if early.heard_to == segment.heard_to => (early.job, Some(early.answer)),
            early => {
                self.outputs
                    .extend(early.filter(|early| early.answer.is_none()).map(|early| Output::Cancel(early.job.id)));
                (self.job(JobKind::Final, audio, self.framed, open.draft, open.features), None)
            }
        };
        let samples = segment.end.since(segment.start);
        // Where the anchor slewed meanwhile, the caption is no longer than its samples, and may be a little shorter.
        let longest = open.start.plus_nanos(nanos_of_samples(samples, SAMPLE_RATE));
        let end = self.timeline.time_of(segment.end).clamp(open.start, longest);
        self.last_end = Some(end);
        self.accounting.silence += segment.start.since(self.accounted_to);
        self.accounted_to = segment.end;
        self.awaited.push_back(Awaited::Caption(Box::new(ClosedCaption {
            id: open.id,
            start: open.start,
            end,
            samples,
            shown: open.revision > 0,
            prefix: open.prefix,
            heard_at: self.timeline.time_of(segment.heard_from),
            auto: self.config.language == LanguageSetting::Auto,
            epoch: self.epoch,
            rules: self.rules.clone(),
            translate: self.config.translations,
            job,
            state: if asked.is_some() { FinalState::Asked } else { FinalState::Held },
        })));
        self.outputs.push_back(Output::Closed { id: open.id, heard_from: segment.heard_from, end_time: end });
        match asked.flatten() {
            Some(answer) => self.answer(self.awaited.len() - 1, answer),
            None => self.ask_for_finals(),
        }
    }

    /// Asks for the open caption's final as soon as all that it hears is there. Where speech went on, takes that back.
    fn ask_early(&mut self) {
        let ending = self.segmenter.ending();
        let Some(open) = &mut self.open else { return };
        if let Some(early) = open.early.take_if(|early| ending.is_none_or(|ending| ending.heard_to != early.heard_to)) {
            match early.answer {
                None => self.outputs.push_back(Output::Cancel(early.job.id)),
                Some(Ok(hypothesis)) if hypothesis.suppressed.is_none() => open.draft = Arc::from(hypothesis.tokens),
                Some(_) => {}
            }
        }
        // A language that is to be detected is known when the captions before are answered, not before.
        let settled = self.config.language != LanguageSetting::Auto || self.awaited.is_empty();
        let Some(ending) = ending.filter(|_| self.config.early_finals && settled && open.early.is_none()) else {
            return;
        };
        // The final says more, and is shown in its place.
        if let Some(interim) = open.interim.take() {
            open.interim_to = interim.after;
            self.outputs.push_back(Output::Cancel(interim.job));
        }
        let (heard_from, draft, features) = (open.heard_from, open.draft.clone(), open.features.clone());
        let mut job = self.job(JobKind::Final, (heard_from, ending.heard_to), ending.due, draft, features);
        self.number(&mut job);
        if let Some(open) = &mut self.open {
            self.outputs.push_back(Output::Decode(job.clone()));
            open.early = Some(EarlyFinal { job, heard_to: ending.heard_to, answer: None });
        }
    }

    /// Gives a job its id, and the language that was detected where it is to be.
    fn number(&mut self, job: &mut DecodeJob) {
        job.id = JobId(self.next_job);
        self.next_job += 1;
        if let Some(Detected { language, .. }) = self.detected_in(job.language == LanguageSetting::Auto, self.epoch) {
            job.language = LanguageSetting::Fixed(language);
        }
    }

    /// A job over the audio from one sample to another, not asked yet.
    fn job(
        &self,
        kind: JobKind,
        (from, to): (SampleIndex, SampleIndex),
        due: SampleIndex,
        draft: Arc<[u32]>,
        features: FeatureCache,
    ) -> DecodeJob {
        DecodeJob {
            id: JobId(u64::MAX),
            kind,
            audio: self.buffer.copy(from, to),
            start: from,
            due,
            language: self.config.language,
            task: self.config.task,
            vocabulary: self.config.vocabulary.clone(),
            word_times: self.config.word_times && kind == JobKind::Final,
            sound_tags: self.config.text_rules.keep_sound_tags,
            draft,
            features,
        }
    }

    fn ask_for_interim(&mut self) {
        let interval = samples_of_ms(self.config.interim_interval_ms.ms());
        let framed = self.framed;
        let Some(open) = &self.open else { return };
        if interval == 0 || open.interim.is_some() || open.early.is_some() || framed.since(open.interim_to) < interval {
            return;
        }
        let (heard_from, draft, features) = (open.heard_from, open.draft.clone(), open.features.clone());
        let mut request = self.job(JobKind::Interim, (heard_from, framed), framed, draft, features);
        self.number(&mut request);
        let job = request.id;
        self.outputs.push_back(Output::Decode(request));
        let end = self.timeline.time_of(framed);
        if let Some(open) = &mut self.open {
            open.interim = Some(InterimJob { job, end, after: open.interim_to });
            open.interim_to = framed;
        }
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

    /// Shows what was said in the open caption up to `end`, where anything was.
    fn show(&mut self, hypothesis: &Hypothesis, end: Timestamp) {
        let Some(open) = self.open.as_mut().filter(|_| hypothesis.suppressed.is_none()) else { return };
        if hypothesis.text.trim().is_empty() {
            return;
        }
        open.draft = Arc::from(&hypothesis.tokens[..]);
        let (shown, _) = self.rules.apply(self.rules.without_open_tag(&hypothesis.text), Vec::new());
        if shown.trim().is_empty() {
            return;
        }
        open.revision += 1;
        let (text, stable_chars) = open.prefix.advance(&shown, self.rules.undecided_words());
        let auto = self.config.language == LanguageSetting::Auto;
        let interim = CaptionEvent::Interim {
            id: open.id,
            revision: open.revision,
            start_time: open.start,
            end_time: end,
            speaker_id: self.speaker_id.clone(),
            language: if hypothesis.translated { Language::ENGLISH } else { hypothesis.language },
            language_probability: probability(hypothesis.language_probability, self.detected_in(auto, self.epoch)),
            spoken_language: hypothesis.translated.then_some(hypothesis.language),
            text,
            stable_chars,
            translated: hypothesis.translated,
        };
        self.outputs.push_back(Output::Event(interim));
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

    fn finish_resampler(&mut self) {
        if let Some(mut resampler) = self.resampler.take() {
            let mut rest = std::mem::take(&mut self.resampled);
            rest.clear();
            resampler.finish(&mut rest);
            self.hear(&rest);
            self.resampled = rest;
        }
    }

    /// Hears what is still inside, closes the open caption and forgets what was heard.
    fn stop_stream(&mut self) {
        self.finish_resampler();
        let end = self.buffer.end();
        let rest = end.since(self.framed);
        if rest > 0 {
            self.hear_frame(rest as usize);
        }
        self.segmenter.stop(end, end, &mut self.boundaries);
        self.handle_boundaries();
        self.vad.reset(self.config.vad_mode);
        self.accounting.silence += end.since(self.accounted_to);
        self.accounted_to = end;
    }
}
