//! Transcripts: what was said, by whom and when, and the files that say so.
//!
//! In: [`Fragment`]s, or a transcript through [`BufRead`](std::io::BufRead). Out: JSONL, JSON, SRT, WebVTT or plain text
//! through [`Write`](std::io::Write), or what was read. Knows no thread, no file but a [`Journal`]'s, and holds a caption a speaker.
//!
//! | module | one fragment is | times | speaker |
//! |---|---|---|---|
//! | [`jsonl`] | a line of JSON | UTC, nanoseconds | `speaker_id` |
//! | [`json`] | an element of an array; nothing is lost | UTC, nanoseconds | `speaker_id` |
//! | [`srt`] | numbered [display cues](crate::caption::cues) | since the recording began, milliseconds | left out: SRT has no place for it |
//! | [`webvtt`] | display cues | since the recording began, milliseconds | voice tag |
//! | `txt` | a line | left out | left out |

use std::cmp::Ordering;

use crate::caption::{Probability, Word};
use crate::config::Language;
use crate::time::Timestamp;

mod cue;
mod format;
mod journal;
pub mod json;
pub mod jsonl;
mod lines;
pub mod srt;
pub mod webvtt;
mod writer;

pub use cue::Cue;
pub use format::{Format, UnknownFormat};
pub use journal::{Journal, JournalError, Recovered, Sync, UnknownSync};
pub use lines::{MAX_LINE_BYTES, ReadError};
pub use writer::{Finished, TranscriptWriter};

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

/// Puts fragments into [`Fragment::transcript_order`]. What is equal in it keeps its place, so that the same journal
/// always gives the same file.
pub fn sort(fragments: &mut [Fragment]) {
    fragments.sort_by(Fragment::transcript_order);
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

#[cfg(test)]
mod tests {
    use super::testing::fragment;
    use super::*;

    #[test]
    fn a_transcript_is_ordered_by_start_then_speaker_and_is_stable() {
        let mut fragments = vec![
            fragment(20, 30, "alice", "third"),
            fragment(10, 90, "bob", "second"),
            fragment(10, 20, "alice", "first, said first"),
            fragment(10, 15, "alice", "first, said second"),
        ];
        sort(&mut fragments);
        let texts: Vec<_> = fragments.iter().map(|fragment| fragment.text.as_str()).collect();
        assert_eq!(texts, ["first, said first", "first, said second", "second", "third"]);
    }
}
