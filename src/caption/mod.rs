//! Captions as subscribers see them.
//!
//! In: hypotheses about open and closed captions. Out: [`CaptionEvent`]s. Their JSON, one object an event with its
//! kind under `type`, is the wire format of `cuewire live`; each field's doc says what it holds.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::asr::Suppression;
use crate::config::Language;
use crate::time::Timestamp;

pub mod cues;
mod fragment;
mod rules;
mod stable;
mod word;

pub use fragment::Fragment;
#[cfg(test)]
pub(crate) use fragment::testing;
pub(crate) use rules::Rules;
pub use stable::StabilityCount;
pub(crate) use stable::StablePrefix;
pub use word::{Probability, Word};

/// Identifies a caption within its track. Grows in order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CaptionId(pub u64);

/// Something that became known about a track's captions.
///
/// Finals, suppressed captions and gaps come in order of the track's samples, each span once, and so in order of time
/// but for [`GapReason::ClockRestarted`], behind which the sender's time is an earlier one. Interims come only while
/// their caption is open, translations behind their finals, as each is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum CaptionEvent {
    /// What was said so far in a caption that is still open.
    Interim {
        /// The caption; its final has the same.
        id: CaptionId,
        /// Counts the interims of one caption from 1.
        revision: u32,
        /// Detected onset of speech.
        start_time: Timestamp,
        /// The end of the audio heard so far.
        end_time: Timestamp,
        /// Who speaks.
        speaker_id: Arc<str>,
        /// The language of `text`.
        language: Language,
        /// How likely the language is that is spoken, where it was detected.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        language_probability: Option<Probability>,
        /// The language that is spoken, where `text` is a translation.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        spoken_language: Option<Language>,
        /// The words so far.
        text: String,
        /// How many characters (Unicode scalar values) at the start of `text` no later interim will change.
        stable_chars: usize,
        /// Whether `text` is a translation into English.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        translated: bool,
    },
    /// A caption, as it stands.
    Final {
        /// The caption.
        id: CaptionId,
        /// Detected onset of speech.
        start_time: Timestamp,
        /// Detected end of speech.
        end_time: Timestamp,
        /// Who spoke.
        speaker_id: Arc<str>,
        /// The language of `text`.
        language: Language,
        /// How likely the language is that was spoken, where it was detected: in this caption, or in an earlier one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        language_probability: Option<Probability>,
        /// The language that was spoken, where `text` is a translation.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        spoken_language: Option<Language>,
        /// The words.
        text: String,
        /// Whether `text` is a translation into English.
        translated: bool,
        /// The words with their times; none where they were not asked for.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        words: Vec<Word>,
    },
    /// What a final is in English. It stands beside the final, and is no part of a transcript; where it cannot be had, nothing
    /// is said.
    Translation {
        /// The caption: its final's.
        id: CaptionId,
        /// Its final's.
        start_time: Timestamp,
        /// Its final's.
        end_time: Timestamp,
        /// Who spoke.
        speaker_id: Arc<str>,
        /// The language of `text`: English.
        language: Language,
        /// The language that was spoken: its final's.
        spoken_language: Language,
        /// The words.
        text: String,
    },
    /// Interims were shown of a caption that comes to nothing: take them off the screen.
    Retracted {
        /// The caption.
        id: CaptionId,
        /// Who seemed to speak.
        speaker_id: Arc<str>,
        /// What became of it; the event that follows has the details.
        reason: Retraction,
    },
    /// Speech-like audio in which the guards found no words.
    Suppressed {
        /// The caption that it would have been.
        id: CaptionId,
        /// Detected onset.
        start_time: Timestamp,
        /// Detected end.
        end_time: Timestamp,
        /// Who seemed to speak.
        speaker_id: Arc<str>,
        /// Which guard, and so why.
        reason: Suppression,
    },
    /// A span of time for which there is no caption, whatever was said.
    Gap {
        /// Where it begins.
        from: Timestamp,
        /// Where it ends; before `from` where the sender's clock went back.
        to: Timestamp,
        /// Whose track.
        speaker_id: Arc<str>,
        /// Why.
        reason: GapReason,
    },
}

impl CaptionEvent {
    /// The caption that it is about; a gap does not say.
    #[must_use]
    pub fn id(&self) -> Option<CaptionId> {
        match self {
            Self::Interim { id, .. }
            | Self::Final { id, .. }
            | Self::Translation { id, .. }
            | Self::Retracted { id, .. }
            | Self::Suppressed { id, .. } => Some(*id),
            Self::Gap { .. } => None,
        }
    }
}

/// What became of a caption whose interims were shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Retraction {
    /// The guards found no words in it.
    Suppressed,
    /// It was not recognised: its recognition failed, was given up or called off.
    Lost,
}

/// Why there is no caption for a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GapReason {
    /// The sender sent no audio for it.
    NoAudio,
    /// The sender's clock started anew.
    ClockRestarted,
    /// There was speech, and its recognition failed.
    DecodeFailed,
    /// More was said than could be taken in or recognised.
    Overload,
    /// There was speech, and it was called off before it was recognised.
    Abandoned,
}
