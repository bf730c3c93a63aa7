//! What SRT and WebVTT share: a cue, its times, and the lines its text is broken into.
//!
//! In: a [`Fragment`], or lines of a file. Out: its place in the recording in milliseconds and its text in lines, or a
//! [`Cue`].

use std::fmt::{self, Write};
use std::io::BufRead;

use super::lines::Lines;
use super::{Fragment, MAX_LINE_BYTES, ReadError};
use crate::time::Timestamp;

/// Most characters that a line of a cue holds, unless a single word is longer.
///
/// Netflix, *English (USA) Timed Text Style Guide*, "Character Limitation": 42.
pub const MAX_LINE_CHARS: usize = 42;

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

/// Where a fragment lies in the recording that began at `origin`: start and end in milliseconds.
///
/// What began before the recording starts with it. WebVTT (4.1, "WebVTT cue timings") wants an end after the start, so
/// a cue lasts a millisecond at least.
pub(super) fn span_ms(fragment: &Fragment, origin: Timestamp) -> (u64, u64) {
    let ms = |time: Timestamp| (time.nanos_since(origin).max(0).unsigned_abs() + 500_000) / 1_000_000;
    let start = ms(fragment.start_time);
    (start, ms(fragment.stop_time).max(start + 1))
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

/// Whether a text may be broken here. What is glued by a no-break space stays together: French « ! » and its word.
fn is_space(c: char) -> bool {
    c.is_control() || (c.is_whitespace() && !matches!(c, '\u{a0}' | '\u{2007}' | '\u{202f}'))
}

/// The words of a text, without the spaces and control characters between them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).map(str::trim).filter(|word| !word.is_empty())
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

/// Breaks a text into lines of at most [`MAX_LINE_CHARS`], each without spaces at its ends.
///
/// As few lines as it takes, about equally long, rather broken after punctuation. A word that is longer than a line is
/// a line of its own: where a script has no spaces, the player breaks.
pub(super) fn wrap(text: &str) -> Vec<String> {
    /// What a break in the midst of a phrase costs, in squared characters: a break is moved by up to eight characters
    /// to come after punctuation.
    const MID_PHRASE: u64 = 150;

    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    struct Cost {
        lines: u64,
        // Sum of the squares of their lengths, least where they are equally long, and of what their breaks cost.
        raggedness: u64,
    }

    let words: Vec<(&str, usize)> = words(text).map(|word| (word, word.chars().count())).collect();
    // best[n]: the cost of the first n words in whole lines, and the word that begins the last of these lines.
    let mut best = vec![(Cost { lines: 0, raggedness: 0 }, 0)];
    for end in 1..=words.len() {
        let mid_phrase = end < words.len() && !words[end - 1].0.ends_with(|c| ",.;:!?…—、。，！？؟،".contains(c));
        let break_cost = if mid_phrase { MID_PHRASE } else { 0 };
        let mut chars = 0;
        let mut least = None;
        for begin in (0..end).rev() {
            chars += words[begin].1 + usize::from(begin + 1 < end);
            if chars > MAX_LINE_CHARS && begin + 1 < end {
                break;
            }
            let Cost { lines, raggedness } = best[begin].0;
            let square = (chars as u64).saturating_mul(chars as u64);
            let cost =
                Cost { lines: lines + 1, raggedness: raggedness.saturating_add(square).saturating_add(break_cost) };
            if least.is_none_or(|(other, _)| cost < other) {
                least = Some((cost, begin));
            }
        }
        best.extend(least);
    }

    let mut lines = Vec::new();
    let mut end = words.len();
    while end > 0 {
        let begin = best[end].1;
        lines.push(words[begin..end].iter().map(|word| word.0).collect::<Vec<_>>().join(" "));
        end = begin;
    }
    lines.reverse();
    lines
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
    use proptest::prelude::*;

    use super::super::testing::{any_fragment, any_text, fragment, words as words_of};
    use super::*;

    #[test]
    fn times_are_rounded_clamped_and_never_run_backwards() {
        let origin = Timestamp::from_nanos(10_000_000_000);
        for (start_ms, stop_ms, expected) in [
            (11_000, 12_500, (1000, 2500)),
            (9_000, 11_000, (0, 1000)),
            (1_000, 2_000, (0, 1)),
            (12_000, 12_000, (2000, 2001)),
            (12_000, 11_000, (2000, 2001)),
            (400 * 3_600_000 + 10_000, 400 * 3_600_000 + 10_001, (1_440_000_000, 1_440_000_001)),
        ] {
            assert_eq!(span_ms(&fragment(start_ms, stop_ms, "", ""), origin), expected, "{start_ms} {stop_ms}");
        }
        let rounded = Fragment {
            start_time: origin.plus_nanos(1_499_999),
            stop_time: origin.plus_nanos(2_500_000),
            speaker_id: String::new(),
            text: String::new(),
            language: None,
            words: Vec::new(),
        };
        assert_eq!(span_ms(&rounded, origin), (1, 3));
    }

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

    #[test]
    fn a_text_is_broken_into_few_balanced_lines() {
        let unbroken = "x".repeat(50);
        for (text, lines) in [
            ("", &[][..]),
            (" \n\t\u{7}\u{a0} ", &[]),
            ("hello", &["hello"]),
            ("Forty-two characters are exactly one line.", &["Forty-two characters are exactly one line."]),
            ("Forty-three characters are one and one more.", &["Forty-three characters", "are one and one more."]),
            (
                "That agent is already logged on. Please enter your agent number.",
                &["That agent is already logged on.", "Please enter your agent number."],
            ),
            (
                "Yes, I am certain, we are going to do it all again.",
                &["Yes, I am certain,", "we are going to do it all again."],
            ),
            (
                "All of our representatives are currently busy. Please stay on the line and your call will be answered by the next \
                 available representative.",
                &[
                    "All of our representatives are",
                    "currently busy. Please stay on the",
                    "line and your call will be answered",
                    "by the next available representative.",
                ],
            ),
            ("Vraiment\u{202f}! \r\n\r\n Oui\u{a0}!", &["Vraiment\u{202f}! Oui\u{a0}!"]),
            (&format!("a {unbroken} b"), &["a", &unbroken, "b"]),
        ] {
            assert_eq!(wrap(text), lines, "{text}");
        }
    }

    proptest! {
        #[test]
        fn lines_hold_the_words_and_no_more_than_a_line_holds(text in any_text()) {
            let lines = wrap(&text);
            prop_assert_eq!(words_of(&lines.join("\n")), words_of(&text));
            for line in &lines {
                prop_assert_eq!(line.trim(), line);
                prop_assert!(!line.is_empty());
                prop_assert!(line.chars().count() <= MAX_LINE_CHARS || !line.contains(' '), "{}", line);
            }
            // The fewest lines are those that are filled one after the other.
            let mut fewest = 0;
            let mut room = 0;
            for chars in words(&text).map(|word| word.chars().count()) {
                if room < chars + 1 {
                    fewest += 1;
                    room = MAX_LINE_CHARS.saturating_sub(chars);
                } else {
                    room -= chars + 1;
                }
            }
            prop_assert_eq!(lines.len(), fewest);
        }

        #[test]
        fn spans_are_right_to_the_millisecond(fragment in any_fragment(), origin in any::<i64>()) {
            let (start, end) = span_ms(&fragment, Timestamp::from_nanos(origin));
            let exact = |time: Timestamp| ((time.as_nanos() as f64 - origin as f64) / 1e6).max(0.0).min(i64::MAX as f64 / 1e6);
            prop_assert!(start < end);
            prop_assert!((start as f64 - exact(fragment.start_time)).abs() < 1.0);
            prop_assert!(end == start + 1 || (end as f64 - exact(fragment.stop_time)).abs() < 1.0);
        }
    }
}
