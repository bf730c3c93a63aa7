//! Transcripts as one JSON object a file, for programs that read a whole file: a line a caption, and words with their
//! times where they are known.
//!
//! In: [`Fragment`]s. Out: text. What is written grows with the transcript; the object is whole when it is finished,
//! and so what is known only then comes last.
//!
//! ```json
//! {"captions":[
//! {"start_time":"2024-02-28T08:18:18.061031795Z","stop_time":"2024-02-28T08:18:22.401031795Z","speaker_id":"alice","language":"en","text":"hello","translated":false,"words":[{"text":"hello","start_time":"2024-02-28T08:18:18.061031795Z","end_time":"2024-02-28T08:18:18.501031795Z","confidence":0.98}]}
//! ],"languages":["en"],"speakers":["alice"]}
//! ```
//!
//! | key | value |
//! |---|---|
//! | `captions` | the fragments, in the order in which they were written |
//! | `captions[].start_time`, `stop_time` | RFC 3339 in UTC with nine decimals |
//! | `captions[].speaker_id`, `text` | as in [`jsonl`](super::jsonl) |
//! | `captions[].language` | the code of its language; `null` where it is not known |
//! | `captions[].language_probability` | how likely that language is, 0 to 1; left out where it was not detected |
//! | `captions[].translated` | whether `text` is a translation into English |
//! | `captions[].words` | `text`, `start_time`, `end_time` and `confidence` (0 to 1) of each word; left out where they are not known |
//! | `languages` | the code of every language that is known, once, in the order of the codes |
//! | `speakers` | every `speaker_id`, once, in the order of their bytes |

use std::collections::BTreeSet;
use std::io;

use serde::Serialize;

use super::Fragment;
use super::writer::Encode;
use crate::caption::{Probability, Word};
use crate::config::Language;
use crate::time::Timestamp;

/// A caption as it is written. The order of the fields is the order of the keys.
#[derive(Serialize)]
struct Caption<'a> {
    start_time: Timestamp,
    stop_time: Timestamp,
    speaker_id: &'a str,
    language: Option<Language>,
    #[serde(skip_serializing_if = "Option::is_none")]
    language_probability: Option<Probability>,
    text: &'a str,
    translated: bool,
    #[serde(skip_serializing_if = "<[Word]>::is_empty")]
    words: &'a [Word],
}

/// What the end of the object says about all of it.
#[derive(Debug, Default)]
pub(super) struct Document {
    /// Whether there is a caption yet.
    begun: bool,
    /// Codes.
    languages: BTreeSet<&'static str>,
    speakers: BTreeSet<String>,
}

const BEGIN: &str = "{\"captions\":[";

impl Encode for Document {
    fn push(&mut self, fragment: &Fragment, out: &mut String) -> io::Result<()> {
        let Fragment { start_time, stop_time, speaker_id, text, language, language_probability, translated, words } =
            fragment;
        let (start_time, stop_time, language) = (*start_time, *stop_time, *language);
        let (language_probability, translated) = (*language_probability, *translated);
        let caption =
            Caption { start_time, stop_time, speaker_id, language, language_probability, text, translated, words };
        let caption = serde_json::to_string(&caption)?;
        out.push_str(if self.begun { "," } else { BEGIN });
        out.push('\n');
        out.push_str(&caption);
        self.begun = true;
        self.languages.extend(language.map(Language::code));
        if !self.speakers.contains(speaker_id) {
            self.speakers.insert(speaker_id.clone());
        }
        Ok(())
    }

    /// The end of the object, or all of one without captions.
    fn finish(&mut self, out: &mut String) -> io::Result<()> {
        let languages = serde_json::to_string(&self.languages)?;
        let speakers = serde_json::to_string(&self.speakers)?;
        out.push_str(if self.begun { "\n" } else { BEGIN });
        out.push_str("],\"languages\":");
        out.push_str(&languages);
        out.push_str(",\"speakers\":");
        out.push_str(&speakers);
        out.push_str("}\n");
        Ok(())
    }
}
