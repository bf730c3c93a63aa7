//! Sessions as sequences of operations, with a checker that knows the rules and not the code.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Write;

use arbitrary::{Result, Unstructured};

use crate::asr::{
    Cancel, DecodeError, DecodeJob, Decoder, HeardWord, Hypothesis, JobId, JobKind, ScriptedDecoder, Suppression,
};
use crate::audio::{Pcm, Samples};
use crate::caption::{CaptionEvent, CaptionId, GapReason};
use crate::config::{Config, Language, LanguageSetting, Stability, Task, VadMode};
use crate::session::trace::TraceWriter;
use crate::session::{Input, InputError, Output, Session};
use crate::time::{SAMPLE_RATE, SampleIndex, Timestamp, nanos_of_samples, samples_of_nanos};
use crate::vad::{FRAME, Vad, WebRtcVad};

const MS: i64 = 1_000_000;
/// Pushes begin no later: where times saturate, what is cut ends earlier than what is whole.
const LATEST: i64 = i64::MAX / 2;
/// Operations of one run.
const MOST_OPS: usize = 48;
/// Audio of one run, at 16 kHz: four captions of the longest.
const MOST_SAMPLES: u64 = 40 * 16_000;
/// The longest audio of a job: the window of the recogniser.
const MOST_HEARD: usize = 30 * 16_000;

/// Runs the operations that `data` describes, twice: as they are, and with each push cut into pieces.
///
/// # Panics
/// Where a caption is longer than allowed, overlaps another, is told twice or never, where samples are lost or counted
/// twice, where outputs do not end, or where the way in which audio was cut changes a caption.
pub fn session(data: &[u8]) {
    let run = Run::parse(data);
    let whole = run.play(&Way { cuts: None, answers_at_once: false }, None::<&mut TraceWriter<Vec<u8>>>);
    let cut = run.play(&Way { cuts: Some(run.cuts), answers_at_once: true }, None::<&mut TraceWriter<Vec<u8>>>);
    assert_eq!(whole.captions, cut.captions, "how audio is cut changes no caption");
    assert_eq!(whole.translations, cut.translations, "nor a translation");
    assert_eq!(whole.accounting, cut.accounting, "nor what became of the samples");
}

/// A session, described.
pub(super) struct Run {
    pub(super) config: Config,
    loud: bool,
    cuts: u32,
    ops: Vec<Op>,
}

#[derive(Debug)]
enum Op {
    Audio { offset: i64, rate: u32, channels: usize, frames: usize, sound: Sound, float: bool },
    Lost { offset: i64, nanos: i64 },
    Answer { count: usize, newest: bool },
    Configure(Box<Config>),
    Tick(i64),
    Flush,
    End,
}

#[derive(Clone, Copy, Debug)]
enum Sound {
    Silence,
    Hiss,
    Voice,
    Noise,
    /// Speech and silence by turns, each of so many milliseconds.
    Turns(u32),
}

impl Run {
    /// Whatever the bytes are, they describe a run; where they are over, so is it.
    pub(super) fn parse(data: &[u8]) -> Self {
        let mut u = Unstructured::new(data);
        let config = config(&mut u).unwrap_or_default();
        let (loud, cuts) = (u.arbitrary().unwrap_or(false), u.arbitrary().unwrap_or(1));
        let (mut ops, mut samples) = (Vec::new(), 0);
        while ops.len() < MOST_OPS && samples < MOST_SAMPLES && !u.is_empty() {
            let Ok(op) = op(&mut u) else { break };
            if let Op::Audio { rate, frames, .. } = op {
                samples += samples_of_nanos(nanos_of_samples(frames as u64, rate), SAMPLE_RATE);
            }
            ops.push(op);
        }
        Self { config, loud, cuts, ops }
    }

    pub(super) fn vad(&self) -> Box<dyn Vad> {
        if self.loud { Box::new(Loudness) } else { Box::new(WebRtcVad::new(self.config.vad_mode)) }
    }

    #[allow(clippy::print_stderr, reason = "where somebody asked for it")]
    pub(super) fn play<W: Write>(&self, way: &Way, trace: Option<&mut TraceWriter<W>>) -> Told {
        let session = Session::with_vad("fuzz", self.config.clone(), self.vad());
        let mut player = Player { checker: Checker::new(&session), session, trace, jobs: VecDeque::new(), way };
        let mut clock = 0_i64;
        for op in &self.ops {
            if std::env::var_os("CUEWIRE_FUZZ_SHOW").is_some() {
                eprintln!("at {clock} ns: {op:?}");
            }
            clock = player.op(op, clock);
        }
        player.input(Input::End).expect("a track can always end");
        // A language that is to be detected is asked for caption by caption.
        while player.answer(true) {}
        player.checker.finish(&player.session)
    }
}

/// How a run is played.
pub(super) struct Way {
    /// Pushes are cut into pieces, drawn with this seed.
    pub(super) cuts: Option<u32>,
    pub(super) answers_at_once: bool,
}

struct Player<'a, W: Write> {
    session: Session,
    checker: Checker,
    trace: Option<&'a mut TraceWriter<W>>,
    /// Asked and neither answered nor cancelled.
    jobs: VecDeque<DecodeJob>,
    way: &'a Way,
}

impl<W: Write> Player<'_, W> {
    /// Returns the sender's time behind the operation.
    fn op(&mut self, op: &Op, clock: i64) -> i64 {
        let at = |offset: &i64| Timestamp::from_nanos(clock.saturating_add(*offset).clamp(-LATEST, LATEST));
        match op {
            Op::Audio { offset, rate, channels, frames, sound, float } => {
                let samples = sound.samples(*rate, *channels, *frames);
                let floats: Vec<f32> = samples.iter().map(|&x| f32::from(x) / 32_768.0).collect();
                let begins = at(offset);
                for (from, to) in pieces(*frames, self.way.cuts) {
                    let range = from * channels..to * channels;
                    let samples = if *float { Samples::F32(&floats[range]) } else { Samples::I16(&samples[range]) };
                    let pcm = Pcm::new(*rate, *channels, samples).expect("the shape is one that is allowed");
                    let at = begins.plus_nanos(nanos_of_samples(from as u64, *rate));
                    match self.input(Input::Audio { at, pcm }) {
                        Ok(()) => self.checker.heard += (to - from) as f64 * f64::from(SAMPLE_RATE) / f64::from(*rate),
                        // The rest of a push is refused with its beginning.
                        Err(_) => return clock,
                    }
                }
                begins.plus_nanos(nanos_of_samples(*frames as u64, *rate)).as_nanos()
            }
            Op::Lost { offset, nanos } => {
                let (from, to) = (at(offset), at(offset).plus_nanos(*nanos));
                if self.input(Input::Lost { from, to }).is_err() {
                    return clock;
                }
                if to > from {
                    self.checker.lost += samples_of_nanos(to.nanos_since(from), SAMPLE_RATE);
                    self.checker.losses += 1;
                }
                to.max(from).as_nanos()
            }
            Op::Answer { count, newest } => {
                for _ in 0..*count {
                    self.answer(*newest);
                }
                clock
            }
            Op::Configure(config) => {
                let _ = self.input(Input::Configure((**config).clone()));
                clock
            }
            Op::Tick(offset) => {
                self.input(Input::Tick(at(offset))).expect("time may always pass");
                clock
            }
            Op::Flush => {
                self.input(Input::Flush).expect("a turn may always end");
                clock
            }
            Op::End => {
                self.input(Input::End).expect("a track can always end");
                clock
            }
        }
    }

    /// Answers one job, where one waits.
    fn answer(&mut self, newest: bool) -> bool {
        let job = if newest { self.jobs.pop_back() } else { self.jobs.pop_front() };
        let Some(job) = job else { return false };
        let result = ScriptedDecoder::new(script).decode(&job, &Cancel::new());
        self.input(Input::Decoded { job: job.id, result }).expect("what was asked may be answered");
        true
    }

    fn input(&mut self, input: Input<'_>) -> std::result::Result<(), InputError> {
        if let Some(trace) = &mut self.trace {
            trace.record(&input).expect("memory takes what is written");
        }
        self.checker.before(&self.session);
        let ends = matches!(input, Input::End);
        let answer = self.session.handle_input(input);
        match &answer {
            Ok(()) => self.checker.after(&self.session),
            Err(_) => self.checker.refused(&mut self.session),
        }
        self.checker.ended |= ends;
        let mut most = 100_000;
        loop {
            most -= 1;
            assert!(most > 0, "outputs have an end");
            match self.session.poll_output() {
                Output::Wait(_) => break,
                Output::Decode(job) => {
                    self.checker.asked(&job, &self.session);
                    self.jobs.push_back(job);
                }
                Output::Cancel(id) => {
                    self.checker.cancelled(id);
                    self.jobs.retain(|job| job.id != id);
                }
                Output::Closed { id, .. } => self.checker.closed(id),
                Output::Event(event) => self.checker.event(event),
            }
        }
        while self.way.answers_at_once && self.answer(false) {}
        answer
    }
}

/// Where a push of so many frames is cut.
fn pieces(frames: usize, cuts: Option<u32>) -> Vec<(usize, usize)> {
    let Some(mut state) = cuts else { return vec![(0, frames)] };
    let (mut all, mut from) = (Vec::new(), 0);
    while from < frames {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Some of a few samples, some of seconds.
        let length = 1 + (state >> 16) as usize % [7, 320, 960, 50_000][(state >> 30) as usize];
        let to = (from + length).min(frames);
        all.push((from, to));
        from = to;
    }
    all
}

/// What was said of a run, in its order.
pub(super) struct Told {
    /// Without what depends on when answers came: interims, and that they are taken back.
    pub(super) captions: Vec<CaptionEvent>,
    pub(super) translations: BTreeMap<CaptionId, CaptionEvent>,
    pub(super) accounting: crate::session::Accounting,
}

/// What a session promises, kept beside it.
struct Checker {
    told: Told,
    /// Longest span of each caption, in milliseconds.
    limits: Vec<u32>,
    limit_before: u32,
    next_before: u64,
    accounting_before: crate::session::Accounting,
    end_before: SampleIndex,
    next_job: u64,
    open_jobs: BTreeSet<JobId>,
    next_closed: u64,
    /// The latest interim of each caption: revision and stable text.
    shown: BTreeMap<CaptionId, (u32, String)>,
    over: BTreeSet<CaptionId>,
    /// Gaps that stand for captions or for lost audio.
    gaps: u64,
    last: Option<Timestamp>,
    /// 16 kHz samples of the pushes that were taken.
    heard: f64,
    lost: u64,
    losses: u64,
    inputs: u64,
    ended: bool,
}

impl Checker {
    fn new(session: &Session) -> Self {
        Self {
            told: Told { captions: Vec::new(), translations: BTreeMap::new(), accounting: session.accounting() },
            limits: Vec::new(),
            limit_before: 0,
            next_before: 0,
            accounting_before: session.accounting(),
            end_before: session.end(),
            next_job: 0,
            open_jobs: BTreeSet::new(),
            next_closed: 0,
            shown: BTreeMap::new(),
            over: BTreeSet::new(),
            gaps: 0,
            last: None,
            heard: 0.0,
            lost: 0,
            losses: 0,
            inputs: 0,
            ended: false,
        }
    }

    fn before(&mut self, session: &Session) {
        self.limit_before = limit_ms(session);
        self.next_before = session.next_caption().0;
        self.accounting_before = session.accounting();
        self.end_before = session.end();
        self.inputs += 1;
    }

    fn after(&mut self, session: &Session) {
        let limit = self.limit_before.max(limit_ms(session));
        self.limits.extend((self.next_before..session.next_caption().0).map(|_| limit));
        assert!(session.end() >= self.end_before, "samples do not go away");
        let accounting = session.accounting();
        // What a loss adds is counted by the caller, behind this.
        let declared = accounting.total() - session.end().0;
        assert!(declared >= self.lost, "{declared} samples are declared beyond what was heard, of {} lost", self.lost);
        for (now, then) in [
            (accounting.captioned, self.accounting_before.captioned),
            (accounting.suppressed, self.accounting_before.suppressed),
            (accounting.silence, self.accounting_before.silence),
            (accounting.lost, self.accounting_before.lost),
        ] {
            assert!(now >= then, "what became of a sample stands: {accounting:?} behind {:?}", self.accounting_before);
        }
    }

    fn refused(&self, session: &mut Session) {
        assert_eq!(session.accounting(), self.accounting_before, "what is refused changes nothing");
        assert_eq!((session.end(), session.next_caption().0), (self.end_before, self.next_before));
        let next = session.poll_output();
        assert!(matches!(next, Output::Wait(_)), "what is refused says nothing: {next:?}");
    }

    fn asked(&mut self, job: &DecodeJob, session: &Session) {
        assert_eq!(job.id.0, self.next_job, "jobs are counted");
        self.next_job += 1;
        self.open_jobs.insert(job.id);
        assert!(!job.audio.is_empty() && job.audio.len() <= MOST_HEARD, "a job of {} samples", job.audio.len());
        assert!(job.start.plus(job.audio.len() as u64) <= session.end(), "a job is of what was heard");
        assert!(job.audio.iter().all(|sample| sample.is_finite()), "samples are numbers");
    }

    fn cancelled(&mut self, id: JobId) {
        assert!(id.0 < self.next_job, "only what was asked is called off: {id:?}");
    }

    fn closed(&mut self, id: CaptionId) {
        assert_eq!(id.0, self.next_closed, "captions close in their order, each once");
        self.next_closed += 1;
    }

    fn event(&mut self, event: CaptionEvent) {
        match &event {
            CaptionEvent::Interim { id, revision, start_time, end_time, text, stable_chars, .. } => {
                assert!(!self.over.contains(id) && id.0 >= self.next_closed, "an interim of a caption that is closed");
                assert!(start_time <= end_time && !text.trim().is_empty());
                let (before, stable) = self.shown.entry(*id).or_default();
                assert_eq!(*revision, *before + 1, "revisions are counted");
                let now: String = text.chars().take(*stable_chars).collect();
                assert!(now.starts_with(&*stable), "{stable:?} was stable, and then {now:?}");
                (*before, *stable) = (*revision, now);
                return;
            }
            CaptionEvent::Retracted { id, .. } => {
                assert!(self.shown.remove(id).is_some_and(|(revision, _)| revision > 0), "nothing was shown of {id:?}");
                return;
            }
            CaptionEvent::Translation { id, text, .. } => {
                assert!(self.over.contains(id), "a translation comes behind its final");
                assert!(!text.trim().is_empty());
                let twice = self.told.translations.insert(*id, event);
                assert!(twice.is_none(), "a caption is translated once");
                return;
            }
            CaptionEvent::Final { id, start_time, end_time, text, words, .. } => {
                assert!(!text.trim().is_empty(), "a final says something");
                self.shown.remove(id);
                self.span(*id, *start_time, *end_time);
                let within = words.iter().all(|word| word.start_time <= word.end_time);
                assert!(within, "words do not end before they begin: {words:?}");
                let first = words.first().is_none_or(|word| word.start_time >= *start_time);
                assert!(first && words.iter().all(|word| word.end_time <= *end_time), "words lie in their caption");
            }
            CaptionEvent::Suppressed { id, start_time, end_time, .. } => {
                assert!(!self.shown.contains_key(id), "what was shown is taken back first");
                self.span(*id, *start_time, *end_time);
            }
            CaptionEvent::Gap { from, to, reason, .. } => {
                if *reason == GapReason::ClockRestarted {
                    assert!(to < from, "a clock that starts anew is an earlier one");
                } else {
                    assert!(from <= to, "{event:?}");
                    assert!(
                        self.last.is_none_or(|last| last <= *from),
                        "{event:?} overlaps what ends at {:?}",
                        self.last
                    );
                }
                self.last = Some(*to);
                self.gaps += u64::from(!matches!(reason, GapReason::NoAudio | GapReason::ClockRestarted));
            }
        }
        self.told.captions.push(event);
    }

    fn span(&mut self, id: CaptionId, start: Timestamp, end: Timestamp) {
        assert!(id.0 < self.next_closed, "what is not closed is not final: {id:?}");
        assert!(self.over.last().is_none_or(|last| *last < id), "captions come in their order, each once: {id:?}");
        self.over.insert(id);
        assert!(start <= end, "{id:?} ends before it begins");
        assert!(
            self.last.is_none_or(|last| last <= start),
            "{id:?} begins at {start} and overlaps what ends at {:?}",
            self.last
        );
        let limit = i64::from(self.limits[id.0 as usize]) * MS;
        assert!(end.nanos_since(start) <= limit, "{id:?} lasts {} ns, allowed are {limit}", end.nanos_since(start));
        self.last = Some(end);
    }

    fn finish(mut self, session: &Session) -> Told {
        let accounting = session.accounting();
        assert!(session.is_finished(), "an ended track of which all was answered is finished");
        assert_eq!(accounting.pending, 0, "nothing is undecided behind the end");
        assert_eq!(
            accounting.total(),
            session.end().0 + self.lost,
            "every sample is accounted for once: {accounting:?}"
        );
        // Each stretch of one rate is rounded to whole samples.
        let (expected, stretches) = (self.heard + accounting.filled as f64, self.inputs as f64 + 1.0);
        let heard = session.end().0 as f64;
        assert!((heard - expected).abs() <= stretches, "{heard} samples were heard of {expected}");
        let captions = session.next_caption().0;
        assert_eq!(self.next_closed, captions, "every caption is closed");
        assert_eq!(self.over.len() as u64 + self.gaps, captions + self.losses, "of every caption one thing is said");
        self.told.accounting = accounting;
        self.told
    }
}

fn limit_ms(session: &Session) -> u32 {
    session.config().speech_segment_config.max_speech_caption_ms.ms()
}

/// What a decoder hears depends on the audio, its place and the language, and on nothing else.
pub(super) fn script(job: &DecodeJob) -> std::result::Result<Hypothesis, DecodeError> {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ job.start.0;
    for sample in job.audio.iter().step_by(97) {
        hash = (hash ^ u64::from(sample.to_bits())).wrapping_mul(0x0100_0000_01b3);
    }
    let seconds = job.audio.len() / SAMPLE_RATE as usize;
    let words =
        if job.kind == JobKind::Interim { "one two three ".repeat(1 + seconds / 2) } else { format!("{hash:x} said") };
    let mut heard = Hypothesis::certain(words.trim(), job);
    if job.language == LanguageSetting::Auto {
        let codes = ["en", "fr", "ru", "ja"];
        heard.language = codes[(hash >> 8) as usize % codes.len()].parse().unwrap_or(Language::ENGLISH);
        heard.language_probability = Some((hash >> 16) as u8 as f32 / 255.0);
    }
    heard.translated = job.task == Task::Translate || job.kind == JobKind::Translation;
    heard.mean_log_probability = -((hash >> 24) as u8 as f32) / 200.0;
    heard.tokens = vec![(hash >> 32) as u32];
    match (hash >> 40) % 12 {
        0 => return Err(DecodeError::Failed("as scripted".to_string())),
        1 => return Err(DecodeError::Shed),
        2 => heard.suppressed = Some(Suppression::NoSpeech),
        3 => heard.text = "  ".to_string(),
        4 => heard.no_speech_probability = f32::NAN,
        5 if job.word_times => {
            let end = hash as u32;
            heard.words = vec![
                HeardWord { text: "said".to_string(), start: 0, end: u32::MAX, probability: f32::NAN },
                HeardWord { text: heard.text.clone(), start: end, end: end / 2, probability: 2.0 },
            ];
        }
        _ if job.word_times => {
            let length = job.audio.len() as u32;
            let word = |(text, i): (&str, u32)| {
                let at = |part: u32| (length as u64 * u64::from(part) / 2) as u32;
                HeardWord { text: text.to_string(), start: at(i), end: at(i + 1), probability: 0.5 }
            };
            heard.words = heard.text.split_whitespace().zip(0..2).map(word).collect();
        }
        _ => {}
    }
    Ok(heard)
}

/// Calls loud frames speech, without a hangover.
pub(super) struct Loudness;

impl Vad for Loudness {
    fn is_speech(&mut self, frame: &[i16; FRAME]) -> bool {
        frame.iter().any(|x| x.unsigned_abs() > 3_000)
    }

    fn reset(&mut self, _: VadMode) {}

    fn hangover_frames(&self, _: u64) -> u64 {
        0
    }
}

impl Sound {
    fn samples(self, rate: u32, channels: usize, frames: usize) -> Vec<i16> {
        let mut state = 1_u32;
        let mut all = Vec::with_capacity(frames * channels);
        for i in 0..frames {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let hiss = ((state >> 24) as i32 - 128) / 4;
            // Pulses of a voice, 140 Hz.
            let phase = (i as u64 * 140 % u64::from(rate)) as i32 * 100 / rate as i32;
            let pulse = if phase < 50 { 12_000 - phase * 400 } else { -400 };
            let voiced = match self {
                Self::Silence | Self::Hiss | Self::Noise => false,
                Self::Voice => true,
                Self::Turns(ms) => (i as u64 * 1000 / u64::from(rate) / u64::from(ms)).is_multiple_of(2),
            };
            let sample = match self {
                Self::Silence => 0,
                Self::Noise => (state >> 16) as i16 as i32,
                _ if voiced => pulse + hiss,
                _ => hiss,
            };
            all.extend(std::iter::repeat_n(sample.clamp(-32_768, 32_767) as i16, channels));
        }
        all
    }
}

pub(super) fn config(u: &mut Unstructured<'_>) -> Result<Config> {
    let mut config = Config::default();
    let max = *u.choose(&[9000, 5000, 10_000, 5001])?;
    let silence = *u.choose(&[700, 300, 2000, 310, 1999])?;
    let interim = *u.choose(&[1000, 0, 250, 5000])?;
    config.speech_segment_config.max_speech_caption_ms = max.try_into().unwrap_or_default();
    config.speech_segment_config.silence_duration_ms = silence.try_into().unwrap_or_default();
    config.interim_interval_ms = interim.try_into().unwrap_or_default();
    config.language = u.choose(&["en", "auto", "fr", "ja"])?.parse().unwrap_or_default();
    config.vad_mode = *u.choose(&[VadMode::Aggressive, VadMode::Quality, VadMode::VeryAggressive])?;
    config.stability = *u.choose(&[Stability::Medium, Stability::Low, Stability::High])?;
    config.task = *u.choose(&[Task::Transcribe, Task::Transcribe, Task::Translate])?;
    let flags = u.arbitrary::<u8>()?;
    config.early_finals = flags & 1 != 0;
    config.word_times = flags & 2 != 0;
    config.translations = flags & 4 != 0;
    config.paused = flags & 56 == 56;
    Ok(config)
}

/// How far what a sender states lies from where its audio ended.
fn offset(u: &mut Unstructured<'_>) -> Result<i64> {
    // Off the borders of the rules by a little: what a rounding decides is decided by how audio was cut.
    let off = |ms: i64| ms.saturating_mul(MS).saturating_add(3_333 * ms.signum());
    Ok(match u.int_in_range(0..=11u8)? {
        0 => off(u.int_in_range(-25..=25)?),
        1 => off(u.int_in_range(70..=2_900)?),
        2 => off(u.int_in_range(3_100..=100_000)?),
        3 => off(u.int_in_range(-9_900..=-120)?),
        4 => off(u.int_in_range(-100_000..=-10_200)?),
        5 => off(i64::from(u.arbitrary::<i32>()?) * 86_400),
        _ => 0,
    })
}

fn op(u: &mut Unstructured<'_>) -> Result<Op> {
    Ok(match u.int_in_range(0..=19u8)? {
        0 => Op::Lost { offset: offset(u)?, nanos: i64::from(u.int_in_range(-50..=20_000)?) * MS },
        1 | 2 => Op::Answer { count: u.int_in_range(1..=8)?, newest: u.arbitrary()? },
        3 => Op::Configure(Box::new(config(u)?)),
        4 => Op::Tick(i64::from(u.int_in_range(-1_000..=10_000)?) * MS),
        5 => Op::Flush,
        6 if u.ratio(1, 16)? => Op::End,
        _ => {
            let rate = *u.choose(&[16_000, 48_000, 8_000, 16_000, 44_101, 16_000])?;
            let channels = *u.choose(&[1, 1, 1, 2, 6])?;
            let longest_ms = *u.choose(&[20_u32, 200, 2_000, 12_000])?;
            let ms = u.int_in_range(0..=longest_ms)?;
            let sound = match u.int_in_range(0..=6u8)? {
                0 => Sound::Silence,
                1 => Sound::Hiss,
                2 => Sound::Noise,
                3 => Sound::Turns(u.int_in_range(20..=2_500)?),
                _ => Sound::Voice,
            };
            let frames = (u64::from(ms) * u64::from(rate) / 1000) as usize + usize::from(u.int_in_range(0..=7u8)?);
            Op::Audio { offset: offset(u)?, rate, channels, frames, sound, float: u.arbitrary()? }
        }
    })
}
