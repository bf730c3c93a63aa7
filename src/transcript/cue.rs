//! What SRT and WebVTT share: times, and a cue as it is read.
//!
//! In: milliseconds, or lines of a file. Out: text, or a [`Cue`].

use std::fmt::{self, Write};
use std::io::BufRead;

use super::lines::Lines;
use super::{MAX_LINE_BYTES, ReadError};
use crate::caption::cues::words;

/// One cue, as it was read from SRT or WebVTT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cue {
    /// Milliseconds from the start of the recording to the start of the cue.
    pub start_ms: u64,
    /// Milliseconds from the start of the recording to the end of the cue.
    pub end_ms: u64,
    /// Who speaks, where the file says so: in WebVTT the first voice tag.
    pub speaker_id: Option<String>,
    /// The text, its lines joined by spaces.
    pub text: String,
}

/// A time of a cue: `hh:mm:ss`, the decimal mark, `mmm`; more digits of hours where they are needed.
pub(super) struct CueTime {
    pub(super) ms: u64,
    pub(super) mark: char,
}

impl fmt::Display for CueTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, ms) = (self.ms / 1000, self.ms % 1000);
        let (minutes, s) = (seconds / 60, seconds % 60);
        write!(f, "{:02}:{:02}:{s:02}{}{ms:03}", minutes / 60, minutes % 60, self.mark)
    }
}

/// Start and end in milliseconds from `00:00:01.000 --> 00:00:02,000 settings`. Takes either decimal mark, and times
/// without hours.
pub(super) fn parse_span_ms(line: &str) -> Option<(u64, u64)> {
    let (start, rest) = line.split_once("-->")?;
    let end = rest.split_whitespace().next()?;
    Some((parse_ms(start.trim())?, parse_ms(end)?))
}

fn parse_ms(text: &str) -> Option<u64> {
    let (clock, ms) = text.split_once([',', '.'])?;
    let mut total = 0_u64;
    let mut parts = clock.rsplitn(3, ':');
    for (unit_ms, digits) in [(1000, 2), (60_000, 2)] {
        let part = number(parts.next().filter(|part| part.len() == digits)?)?;
        total += unit_ms * (part < 60).then_some(part)?;
    }
    if let Some(hours) = parts.next() {
        total = number(hours)?.checked_mul(3_600_000)?.checked_add(total)?;
    }
    total.checked_add(number(ms).filter(|_| ms.len() == 3)?)
}

/// `str::parse` alone would take a sign.
fn number(digits: &str) -> Option<u64> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Writes the words of `text` to `out` with one space between two. Nothing where there are none.
pub(super) fn write_plain(out: &mut String, text: &str) {
    for (index, word) in words(text).enumerate() {
        if index > 0 {
            out.push(' ');
        }
        out.push_str(word);
    }
}

/// Writes `start --> end` and a line end.
pub(super) fn write_span(out: &mut String, (start_ms, end_ms): (u64, u64), mark: char) -> fmt::Result {
    writeln!(out, "{} --> {}", CueTime { ms: start_ms, mark }, CueTime { ms: end_ms, mark })
}

/// Reads what lies between blank lines.
pub(super) struct Blocks<R> {
    lines: Lines<R>,
}

/// Lines of a block: its head, up to and with the line of times, and its text.
pub(super) struct Block {
    /// Number of the first line.
    pub(super) line: u64,
    /// The lines, without blank ones. Never empty.
    pub(super) lines: Vec<String>,
}

impl<R: BufRead> Blocks<R> {
    pub(super) fn new(input: R) -> Self {
        Self { lines: Lines::new(input) }
    }

    /// The next block; `None` at the end. A block that cannot be read is left behind whole.
    pub(super) fn read(&mut self) -> Result<Option<Block>, ReadError> {
        let mut block: Option<Block> = None;
        let mut wrong = None;
        let mut bytes = 0;
        loop {
            let line = match self.lines.read() {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(error @ ReadError::Io { .. }) => return Err(error),
                Err(error) => {
                    wrong.get_or_insert(error);
                    continue;
                }
            };
            if line.bytes.iter().all(|byte| matches!(byte, b' ' | b'\t')) {
                if block.is_none() && wrong.is_none() {
                    continue;
                }
                break;
            }
            bytes += line.bytes.len() + 1;
            if bytes > MAX_LINE_BYTES {
                wrong.get_or_insert(ReadError::TooLong { line: line.number });
            }
            if wrong.is_some() {
                continue;
            }
            match line.text() {
                Ok(text) => {
                    // A byte order mark is no part of the first line.
                    let text = if line.number == 1 { text.trim_start_matches('\u{feff}') } else { text };
                    let block = block.get_or_insert_with(|| Block { line: line.number, lines: Vec::new() });
                    block.lines.push(text.to_string());
                }
                Err(error) => wrong = Some(error),
            }
        }
        match wrong {
            Some(error) => Err(error),
            None => Ok(block),
        }
    }
}

impl Block {
    /// Times and text of a cue with an optional line before its times.
    pub(super) fn cue(self) -> Result<(u64, u64, String), ReadError> {
        let head = usize::from(!self.lines[0].contains("-->"));
        let line = self.line + head as u64;
        let times = self.lines.get(head).filter(|line| line.contains("-->"));
        let times = times.ok_or_else(|| ReadError::malformed(line, "the times of a cue are expected"))?;
        let (start_ms, end_ms) = parse_span_ms(times).ok_or_else(|| {
            ReadError::malformed(line, format!("`{times:.80}` are no times of a cue: hh:mm:ss,mmm --> hh:mm:ss,mmm"))
        })?;
        Ok((start_ms, end_ms, self.lines[head + 1..].join(" ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read() {
        for (ms, text) in [
            (0, "00:00:00,000"),
            (3_723_004, "01:02:03,004"),
            (359_999_999, "99:59:59,999"),
            (360_000_000, "100:00:00,000"),
            (u64::MAX, "5124095576030:25:51,615"),
        ] {
            assert_eq!(CueTime { ms, mark: ',' }.to_string(), text);
            assert_eq!(parse_ms(text), Some(ms));
        }
        assert_eq!(parse_span_ms("00:01.000-->1:00:00,250\tline:0 align:start"), Some((1000, 3_600_250)));
        for text in [
            "",
            "00:00",
            "00:00:00",
            "00:60.000",
            "60:00.000",
            "00:00.00",
            "00:00.0000",
            "0:00.000",
            "-1:00:00.000",
            "+1:00:00.000",
            "00:+1.000",
            "1:00:00:00.000",
            ":00:00.000",
            "99999999999999999999:00:00.000",
            "9999999999999999:00:00.000",
        ] {
            assert_eq!(parse_ms(text), None, "{text}");
        }
        assert_eq!(parse_span_ms("00:01.000 -->"), None);
    }
}
