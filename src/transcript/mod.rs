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

mod cue;
mod format;
mod journal;
pub mod json;
pub mod jsonl;
mod lines;
pub mod srt;
mod txt;
pub mod webvtt;
mod writer;

pub use crate::caption::Fragment;
pub use cue::Cue;
pub use format::{Format, UnknownFormat};
pub use journal::{Journal, JournalError, Recovered, Sync, UnknownSync};
pub use lines::{MAX_LINE_BYTES, ReadError};
pub use writer::{Finished, TranscriptWriter};

/// Puts fragments into [`Fragment::transcript_order`]. What is equal in it keeps its place, so that the same journal
/// always gives the same file.
pub fn sort(fragments: &mut [Fragment]) {
    fragments.sort_by(Fragment::transcript_order);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caption::testing::fragment;

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
