//! What is kept of a final caption: a piece of a transcript.
//!
//! In: who said what, and when. Out: [`Fragment`]s, which [cues](super::cues) are made of and transcripts are written from.

use std::cmp::Ordering;

use super::{Probability, Word};
use crate::config::Language;
use crate::time::Timestamp;

/// One piece of speech of one speaker: the transcript's side of a final caption.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// Detected onset of the speech.
    pub start_time: Timestamp,
    /// Detected end of the speech.
    pub stop_time: Timestamp,
    /// Who spoke, as the caller named the track.
    pub speaker_id: String,
    /// What was said.
    pub text: String,
    /// The language of `text`, where it is known: lines are broken by its words.
    pub language: Option<Language>,
    /// How likely it is what was spoken, where it was detected; JSON alone keeps it.
    pub language_probability: Option<Probability>,
    /// Whether `text` is a translation into English; JSON alone says so.
    pub translated: bool,
    /// The words with their times, where they are known; JSONL does not keep them.
    pub words: Vec<Word>,
}

impl Fragment {
    /// The order of a finished transcript: by `start_time`, then by `speaker_id` (its bytes, no locale).
    #[must_use]
    pub fn transcript_order(&self, other: &Self) -> Ordering {
        self.start_time.cmp(&other.start_time).then_with(|| self.speaker_id.cmp(&other.speaker_id))
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use proptest::prelude::*;

    use super::Fragment;
    use crate::time::Timestamp;

    /// A fragment that starts and ends at these milliseconds after the epoch.
    pub(crate) fn fragment(start_ms: i64, stop_ms: i64, speaker_id: &str, text: &str) -> Fragment {
        let at = |ms: i64| Timestamp::from_nanos(ms * 1_000_000);
        Fragment {
            start_time: at(start_ms),
            stop_time: at(stop_ms),
            speaker_id: speaker_id.to_string(),
            text: text.to_string(),
            ..Fragment::default()
        }
    }

    /// Text of any characters, with a bias to those that mean something in one of the formats.
    pub(crate) fn any_text() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            4 => "[a-zé,. ]{1,12}",
            1 => prop::sample::select(vec![
                "-->", "--->", "<v bob>", "</v>", "&amp;", "&#62;", "&", "<", ">", "\n\n", "\r", "\0", "\u{85}", "\u{2028}",
                "\u{a0}", "\u{feff}", "NOTE", "WEBVTT", "STYLE", "42", "00:00:01,000 --> 00:00:02,000", "{\\an8}", "\"", "\\",
            ]).prop_map(str::to_string),
            1 => any::<char>().prop_map(String::from),
        ];
        prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    /// Any fragment: every instant, every text, also an end before the start.
    pub(crate) fn any_fragment() -> impl Strategy<Value = Fragment> {
        (any::<i64>(), any::<i64>(), any_text(), any_text()).prop_map(|(start, stop, speaker_id, text)| Fragment {
            start_time: Timestamp::from_nanos(start),
            stop_time: Timestamp::from_nanos(stop),
            speaker_id,
            text,
            ..Fragment::default()
        })
    }

    /// The words of a text: what survives every format.
    pub(crate) fn words(text: &str) -> String {
        text.split(|c: char| c.is_control() || c.is_whitespace())
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>()
            .join(" ")
    }
}
