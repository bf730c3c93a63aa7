//! Transcripts as JSONL: one object a line, UTF-8, each line ended by `\n`.
//!
//! In: [`Fragment`]s, or lines. Out: lines, or fragments and what is wrong with the lines between them.
//!
//! ```json
//! {"type":"speech","start_time":"2024-02-28T08:18:18.061031795Z","stop_time":"2024-02-28T08:18:22.401031795Z","speaker_id":"alice","text":"hello"}
//! ```
//!
//! | key, in this order | value |
//! |---|---|
//! | `type` | `"speech"`. Readers skip lines of a type that they do not know. |
//! | `start_time` | [`Fragment::start_time`], RFC 3339 in UTC with nine decimals; readers take any offset and any decimals |
//! | `stop_time` | [`Fragment::stop_time`], likewise |
//! | `speaker_id` | [`Fragment::speaker_id`] |
//! | `text` | [`Fragment::text`] |
//!
//! Readers ignore further keys and blank lines.
//!
//! The format is the same for a journal, whose lines come in the order in which captions became final, and for a
//! finished transcript, whose lines come in [`Fragment::transcript_order`].

use std::borrow::Cow;
use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};

use super::lines::{Line, Lines};
use super::writer::Encode;
use super::{Fragment, ReadError};
use crate::time::Timestamp;

const SPEECH: &str = "speech";

/// A line as it is written. The order of the fields is the order of the keys.
#[derive(Serialize)]
struct SpeechLine<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    start_time: Timestamp,
    stop_time: Timestamp,
    speaker_id: &'a str,
    text: &'a str,
}

/// What every line has, whatever its type.
#[derive(Deserialize)]
struct AnyLine<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
}

/// What is read from a line of the type `speech`.
#[derive(Deserialize)]
struct SpeechLineRead {
    start_time: Timestamp,
    stop_time: Timestamp,
    speaker_id: String,
    text: String,
}

/// Holds nothing back.
#[derive(Debug)]
pub(super) struct Jsonl;

impl Encode for Jsonl {
    fn push(&mut self, fragment: &Fragment, out: &mut String) -> io::Result<()> {
        let mut line = Vec::new();
        write_fragment(&mut line, fragment)?;
        out.push_str(&String::from_utf8_lossy(&line));
        Ok(())
    }
}

/// Writes `fragment` as one line, in one `write_all`.
///
/// # Errors
/// Those of `writer`.
pub fn write_fragment(writer: &mut impl Write, fragment: &Fragment) -> io::Result<()> {
    writer.write_all(&line(fragment)?)
}

/// The line of a fragment, with its end.
pub(super) fn line(fragment: &Fragment) -> io::Result<Vec<u8>> {
    let Fragment { start_time, stop_time, speaker_id, text, .. } = fragment;
    let line = SpeechLine { kind: SPEECH, start_time: *start_time, stop_time: *stop_time, speaker_id, text };
    let mut bytes = serde_json::to_vec(&line)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Reads the fragments of a transcript, in the order of its lines.
///
/// A line that is wrong is an error that names it, and the reader goes on behind it; see [`ReadError`] for what ends
/// the reading. A last line without `\n` is taken if it is whole.
pub struct Reader<R> {
    lines: Lines<R>,
}

impl<R: BufRead> Reader<R> {
    /// A reader of `input`, from its current place.
    pub fn new(input: R) -> Self {
        Self { lines: Lines::new(input) }
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Fragment, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = match self.lines.read() {
                Ok(line) => line?,
                Err(error) => return Some(Err(error)),
            };
            if let Some(fragment) = fragment(&line).transpose() {
                return Some(fragment);
            }
        }
    }
}

/// The fragment in a line; `None` where it is blank or of another type.
pub(super) fn fragment(line: &Line<'_>) -> Result<Option<Fragment>, ReadError> {
    let bytes = line.without_zeros();
    match bytes.trim_ascii_start().first() {
        None if bytes.len() == line.bytes.len() => return Ok(None),
        None | Some(b'{') => {}
        Some(_) => return Err(ReadError::malformed(line.number, "a JSON object is expected")),
    }
    let wrong = |error: serde_json::Error| {
        if error.is_eof() && !line.ended {
            ReadError::Torn { line: line.number, whole_bytes: line.offset }
        } else {
            ReadError::malformed(line.number, describe(&error))
        }
    };
    if serde_json::from_slice::<AnyLine<'_>>(bytes).map_err(wrong)?.kind != SPEECH {
        return Ok(None);
    }
    let SpeechLineRead { start_time, stop_time, speaker_id, text } = serde_json::from_slice(bytes).map_err(wrong)?;
    Ok(Some(Fragment { start_time, stop_time, speaker_id, text, ..Fragment::default() }))
}

/// What is wrong, without serde's own line number: every line is its first.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let what: String = text.strip_suffix(&place).unwrap_or(&text).chars().take(200).collect();
    format!("{what} (column {})", error.column())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::caption::testing::{any_fragment, fragment};

    const ALICE: &str = concat!(
        r#"{"type":"speech","start_time":"2024-02-28T08:18:18.061031795Z","#,
        r#""stop_time":"2024-02-28T08:18:22.401031795Z","speaker_id":"alice","text":"hello"}"#
    );

    fn read(input: impl AsRef<[u8]>) -> Vec<Result<Fragment, ReadError>> {
        Reader::new(input.as_ref()).collect()
    }

    #[test]
    fn the_line_is_the_specified_one_to_the_byte() {
        let fragment = Fragment {
            start_time: "2024-02-28T08:18:18.061031795Z".parse().unwrap(),
            stop_time: "2024-02-28T08:18:22.401031795Z".parse().unwrap(),
            speaker_id: "alice".to_string(),
            text: "hello".to_string(),
            ..Fragment::default()
        };
        let mut written = Vec::new();
        write_fragment(&mut written, &fragment).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), format!("{ALICE}\n"));
        assert_eq!(read(ALICE).pop().unwrap().unwrap(), fragment);
    }

    #[test]
    fn what_may_stand_between_fragments_is_passed_over() {
        let with_more_keys = ALICE.replace("}", r#","language":"en"}"#);
        let reordered = r#"{"text":"b","speaker_id":"bob","stop_time":"1970-01-01T01:00:02+01:00","start_time":"1970-01-01T00:00:01Z","type":"speech"}"#;
        let input = format!("\n{ALICE}\r\n  \n{{\"type\":\"gap\",\"from\":0}}\n{with_more_keys}\n{reordered}");
        let fragments: Vec<_> = read(input).into_iter().map(Result::unwrap).collect();
        assert_eq!(fragments.len(), 3);
        assert_eq!(fragments[0], fragments[1]);
        assert_eq!(fragments[2], fragment(1000, 2000, "bob", "b"));
    }

    #[test]
    fn an_error_names_the_line_and_what_is_wrong_and_reading_goes_on() {
        for (line, what) in [
            ("hello", "a JSON object is expected"),
            ("[]", "a JSON object is expected"),
            ("\u{feff}{}", "a JSON object is expected"),
            ("{\"type\":\"speech\"", "EOF while parsing an object (column 16)"),
            ("{}", "missing field `type` (column 2)"),
            (r#"{"type":7}"#, "invalid type: integer `7`, expected a string (column 9)"),
            (&ALICE.replace(r#""alice""#, "null"), "invalid type: null, expected a string (column 125)"),
            (&ALICE.replace(r#","text":"hello""#, ""), "missing field `text` (column 129)"),
            (&ALICE.replace("2024-02-28T08:18:22", "yesterday"), "`yesterday.401031795Z` is not a time: RFC 3339"),
            (&format!("{ALICE}{ALICE}"), "trailing characters (column 145)"),
        ] {
            let seen = read(format!("{ALICE}\n{line}\n{ALICE}\n"));
            assert_eq!(seen.len(), 3, "{line}");
            let error = seen[1].as_ref().unwrap_err();
            assert!(matches!(error, ReadError::Malformed { line: 2, .. }), "{error}");
            assert!(error.to_string().starts_with(&format!("line 2: {what}")), "{error}");
            assert!(seen[0].is_ok() && seen[2].is_ok());
        }
        let not_text = read(b"{\"type\":\"\xff\"}\n");
        assert!(matches!(not_text.as_slice(), [Err(ReadError::Malformed { line: 1, .. })]));
    }

    #[test]
    fn a_line_that_is_too_long_costs_only_itself() {
        let long = ALICE.replace("hello", &"x".repeat(super::super::MAX_LINE_BYTES));
        let seen = read(format!("{long}\n{ALICE}\n{long}"));
        assert!(matches!(
            seen.as_slice(),
            [Err(ReadError::TooLong { line: 1 }), Ok(_), Err(ReadError::TooLong { line: 3 })]
        ));
    }

    #[test]
    fn a_torn_last_line_is_told_apart_from_garbage() {
        let whole = format!("{ALICE}\n");
        let torn = |tail: &[u8]| {
            let mut seen = read([whole.as_bytes(), tail].concat());
            assert_eq!(seen.len(), 2);
            let error = seen.pop().unwrap().unwrap_err();
            matches!(error, ReadError::Torn { line: 2, whole_bytes } if whole_bytes == whole.len() as u64)
        };
        let wide = ALICE.replace("hello", "привет");
        for cut in 1..wide.len() {
            assert!(torn(&wide.as_bytes()[..cut]), "cut at {cut}");
        }
        for tail in [&b"\0\0\0\0"[..], b"{\"type\":\"spe\0\0\0"] {
            assert!(torn(tail), "{tail:?}");
        }
        for tail in [&b"hello"[..], b"{]", b"\0\0\n", b"{\"type\":\n"] {
            assert!(!torn(tail), "{tail:?}");
        }
    }

    proptest! {
        #[test]
        fn every_fragment_survives(fragments in prop::collection::vec(any_fragment(), 0..8)) {
            let mut written = Vec::new();
            for fragment in &fragments {
                write_fragment(&mut written, fragment).unwrap();
            }
            prop_assert_eq!(written.iter().filter(|&&byte| byte == b'\n').count(), fragments.len());
            let read: Vec<_> = read(&written).into_iter().map(Result::unwrap).collect();
            prop_assert_eq!(read, fragments);
        }

        #[test]
        fn no_input_makes_the_reader_panic_or_stay(input in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(read(&input).len() <= input.len());
        }
    }
}
