//! Recognition, as the session sees it: jobs go in, hypotheses come out.
//!
//! In: [`DecodeJob`], the speech of one caption. Out: [`Hypothesis`], its text and what the guards made of it.
//! The session never waits for a decoder; whoever drives it runs one, here, on a worker thread or on another machine.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::{Language, LanguageSetting, Task, Vocabulary};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::time::SampleIndex;

#[cfg(all(test, shuttle, feature = "engine"))]
mod explored;
mod features;
mod scripted;
#[cfg(any(feature = "whisper", shuttle, pthread_sync))]
#[cfg_attr(
    not(feature = "whisper"),
    allow(dead_code, unreachable_pub, reason = "what is public and what is used, is so with Whisper")
)]
pub(crate) mod team;
#[cfg(feature = "whisper")]
pub mod whisper;

pub use features::FeatureCache;
pub use scripted::ScriptedDecoder;

/// Identifies a decode job within its session. Grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub u64);

/// Why a caption is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// The caption is still open: a look at what was said so far.
    Interim,
    /// The caption is closed: this text stands.
    Final,
    /// Its final was said: what that is in English.
    Translation,
}

/// The speech of one caption, to be recognised.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DecodeJob {
    /// Comes back with the answer.
    pub id: JobId,
    /// What the answer is for.
    pub kind: JobKind,
    /// Mono samples at 16 kHz, nominally within −1 … 1: pre-roll, speech, margin. At most 30 s.
    pub audio: Arc<[f32]>,
    /// Where `audio` begins in its track. Seeds whatever is drawn at random, so that a replay is exact.
    pub start: SampleIndex,
    /// The sample of the track at which the answer is due: what is scheduled by it changes no answer.
    pub due: SampleIndex,
    /// What is spoken.
    pub language: LanguageSetting,
    /// What to make of it.
    pub task: Task,
    /// Names and terms to expect. They never get into the text by themselves.
    pub vocabulary: Vocabulary,
    /// Whether the words' times are wanted.
    pub word_times: bool,
    /// Whether names of sounds, `[Music]`, are wanted beside words.
    pub sound_tags: bool,
    /// Tokens of an earlier hypothesis over the beginning of the same speech, or empty. A decoder may verify them
    /// in one pass instead of finding them one by one; the text must not depend on them.
    pub draft: Arc<[u32]>,
    /// What a front end has computed of this caption's audio so far. Jobs whose audio begins at the same sample of the
    /// same track may share one, and then compute no frame twice; the answer does not depend on it.
    pub features: FeatureCache,
}

impl DecodeJob {
    /// A final job without a draft, with a cache of its own; the fields are public for everything else.
    #[must_use]
    pub fn new(id: JobId, audio: Arc<[f32]>, language: LanguageSetting) -> Self {
        let features = FeatureCache::default();
        Self {
            id,
            kind: JobKind::Final,
            audio,
            start: SampleIndex(0),
            due: SampleIndex(0),
            language,
            task: Task::default(),
            vocabulary: Vocabulary::default(),
            word_times: false,
            sound_tags: false,
            draft: Arc::from([]),
            features,
        }
    }
}

/// What a decoder heard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hypothesis {
    /// The text, trimmed. Empty where nothing was said. Kept also where `suppressed` is set, for whoever looks into it.
    pub text: String,
    /// The text's tokens, without prompt and end; a later job's draft.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<u32>,
    /// The language spoken: the job's, or the one detected.
    pub language: Language,
    /// How likely that is, among the languages that the model and cuewire know; nothing where it was the job's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language_probability: Option<f32>,
    /// Whether `text` is a translation into English.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub translated: bool,
    /// The words with their places, in order, where the job asked for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<HeardWord>,
    /// Mean natural log-probability of the text's tokens, the end included.
    #[serde(deserialize_with = "null_is_nan")]
    pub mean_log_probability: f32,
    /// Probability that the audio holds no speech.
    #[serde(deserialize_with = "null_is_nan")]
    pub no_speech_probability: f32,
    /// Set where a guard found that these are no words of the speaker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suppressed: Option<Suppression>,
    /// Whether a guard doubted what was heard with less than the whole window, and it was decoded again with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fallback: bool,
    /// The temperature at which the tokens were drawn, in tenths; 0: the likeliest each.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub temperature_tenths: u8,
}

/// Longest text of a hypothesis, in bytes, and most of its tokens and words: many times what is said in 30 s, small enough to hold
/// and to be shown. An answer with more is no answer.
pub const MAX_TEXT_BYTES: usize = 1 << 16;

impl Hypothesis {
    /// The same, where it can be an answer: a decoder may be anybody's, and what it says is kept and shown.
    pub(crate) fn checked(self) -> Result<Self, DecodeError> {
        let of_words: usize = self.words.iter().map(|word| word.text.len()).sum();
        for (what, count) in [
            ("bytes of text", self.text.len()),
            ("bytes of words", of_words),
            ("words", self.words.len()),
            ("tokens", self.tokens.len()),
        ] {
            if count > MAX_TEXT_BYTES {
                return Err(DecodeError::Failed(format!("it answered {count} {what}: allowed are {MAX_TEXT_BYTES}")));
            }
        }
        Ok(self)
    }
}

/// A word of a hypothesis, and where in the job's audio it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeardWord {
    /// The word as the text has it, without white space at its ends.
    pub text: String,
    /// Its first sample (16 kHz), from the beginning of the job's audio.
    pub start: u32,
    /// Behind its last sample.
    pub end: u32,
    /// Mean probability of its tokens.
    #[serde(deserialize_with = "null_is_nan")]
    pub probability: f32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(value: &u8) -> bool {
    *value == 0
}

/// JSON has no NaN and no infinity: they are written as null.
fn null_is_nan<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f32, D::Error> {
    Option::<f32>::deserialize(deserializer).map(|number| number.unwrap_or(f32::NAN))
}

/// Why speech-like audio gave no caption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Suppression {
    /// The recogniser found no words.
    Empty,
    /// Probably no speech, and the words are unlikely too.
    NoSpeech,
    /// The words are too unlikely.
    LowProbability,
    /// The text repeats itself (it compresses too well, or never ended).
    Repetition,
    /// More tokens than speech of that length has.
    TooManyTokens,
    /// There were words, and the rules for texts left none.
    Removed,
}

impl fmt::Display for Suppression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the recogniser found no words",
            Self::NoSpeech => "probably no speech",
            Self::LowProbability => "the words are too unlikely",
            Self::Repetition => "the text repeats itself",
            Self::TooManyTokens => "more tokens than speech of that length has",
            Self::Removed => "the rules for texts left no word",
        })
    }
}

/// Why a job came to nothing. Sorted by what the caller does next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DecodeError {
    /// [`Cancel`] was set: nothing to do.
    #[error("the job was cancelled")]
    Cancelled,
    /// There is more to decode than can be: nobody tried, and by now it would come too late.
    #[error("the recogniser is overloaded: the job was given up")]
    Shed,
    /// The job itself is wrong for this decoder: do not try it again.
    #[error("the job cannot be decoded: {0}")]
    Invalid(String),
    /// The decoder failed: another try, or another decoder, may do.
    #[error("the decoder failed: {0}")]
    Failed(String),
}

/// A flag by which a job in progress is called off. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A flag that is not set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls the job off. The decoder looks between steps.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the job is called off.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Turns speech into text. One decoder serves one thread.
pub trait Decoder: Send {
    /// Decodes one job. The answer depends on the job alone, not on what was decoded before.
    ///
    /// # Errors
    /// [`DecodeError`]; the decoder stays usable.
    fn decode(&mut self, job: &DecodeJob, cancel: &Cancel) -> Result<Hypothesis, DecodeError>;
}
