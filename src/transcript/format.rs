//! The formats of a transcript, by name and file extension.
//!
//! In: a name. Out: a [`Format`], and what makes it of fragments. A further format is a variant here, with its arms, and a file
//! beside this one that implements [`Encode`]; `txt` is the shortest.

use std::fmt;
use std::str::FromStr;

use super::json::Document;
use super::jsonl::Jsonl;
use super::srt::Srt;
use super::txt::Txt;
use super::webvtt::WebVtt;
use super::writer::Encode;
use crate::caption::cues::{DisplayCues, Profile};
use crate::time::Timestamp;

/// How a transcript is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// One JSON object a line: [`jsonl`](super::jsonl).
    Jsonl,
    /// One JSON object: [`json`](super::json).
    Json,
    /// SubRip: [`srt`](super::srt).
    Srt,
    /// WebVTT: [`webvtt`](super::webvtt).
    Vtt,
    /// The text alone, one caption a line.
    Txt,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 5] = [Self::Jsonl, Self::Json, Self::Srt, Self::Vtt, Self::Txt];

    /// File extension, without the dot. It is the format's name too.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Json => "json",
            Self::Srt => "srt",
            Self::Vtt => "vtt",
            Self::Txt => "txt",
        }
    }

    /// Whether it has display cues: text in lines that come and go.
    #[must_use]
    pub const fn has_cues(self) -> bool {
        matches!(self, Self::Srt | Self::Vtt)
    }

    /// Whether a file is one document, so that two of them, one behind the other, are none. Those of other formats are lines.
    #[must_use]
    pub const fn is_document(self) -> bool {
        matches!(self, Self::Json | Self::Srt | Self::Vtt)
    }

    pub(super) fn encoder(self, profile: Profile, origin: Timestamp) -> Box<dyn Encode> {
        match self {
            Self::Jsonl => Box::new(Jsonl),
            Self::Json => Box::new(Document::default()),
            Self::Srt => Box::new(Srt::new(DisplayCues::new(profile, origin))),
            Self::Vtt => Box::new(WebVtt::new(DisplayCues::new(profile, origin))),
            Self::Txt => Box::new(Txt),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.extension())
    }
}

/// A format is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("format is `{name}`: allowed are {}", Format::ALL.map(Format::extension).join(", "))]
pub struct UnknownFormat {
    name: String,
}

impl FromStr for Format {
    type Err = UnknownFormat;

    /// Takes an extension in any case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|format| format.extension().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownFormat { name: text.chars().take(40).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_known_by_its_extension() {
        for format in Format::ALL {
            for text in [format.to_string(), format.extension().to_uppercase()] {
                assert_eq!(text.parse::<Format>().unwrap(), format);
            }
        }
        for text in ["", "jso", ".srt", "webvtt"] {
            let error = text.parse::<Format>().unwrap_err().to_string();
            assert_eq!(error, format!("format is `{text}`: allowed are jsonl, json, srt, vtt, txt"));
        }
    }
}
