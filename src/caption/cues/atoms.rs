//! A caption's text as atoms: what no line break may divide.
//!
//! In: a [`Fragment`]. Out: [`Atom`]s with their widths, times, and how good a break behind each is. A word between
//! spaces is an atom; in scripts without spaces, what the Unicode line breaking algorithm (UAX #14) keeps together, and
//! in Thai, Lao, Khmer and Burmese, where that needs a dictionary, a grapheme cluster.

use std::collections::BTreeSet;
use std::ops::Range;

use unicode_linebreak::linebreaks;
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

use super::phrases::{Break, Phrases, behind_punctuation};
use crate::caption::Fragment;
use crate::script::{is_dictionary, is_unspaced};
use crate::time::Timestamp;

/// A piece of text that is never divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Atom<'a> {
    pub(super) text: &'a str,
    /// Characters, full-width ones as two; at least one.
    pub(super) columns: u64,
    /// Characters of scripts without spaces, and six for each other word: see [`sixths_of_words`].
    pub(super) sixths: u64,
    /// Bytes in CEA-608.
    pub(super) sent_bytes: u64,
    /// Whether a space separates it from the atom before.
    pub(super) spaced: bool,
    pub(super) start_ms: u64,
    /// How far before the origin it really begins.
    pub(super) lost_ms: u64,
    /// Not before its start, not behind the next atom's start.
    pub(super) end_ms: u64,
    /// Where a recognised word begins in this atom: its time.
    pub(super) stamp_ms: Option<u64>,
    pub(super) break_after: Break,
}

/// Whether a text may be broken here. What is glued by a no-break space stays together: French « ! » and its word.
fn is_space(c: char) -> bool {
    c.is_control() || (c.is_whitespace() && !matches!(c, '\u{a0}' | '\u{2007}' | '\u{202f}'))
}

/// Milliseconds from `origin` to `time`, rounded; 0 where it lies before.
pub(crate) fn ms_since(origin: Timestamp, time: Timestamp) -> u64 {
    signed_ms_since(origin, time).max(0).unsigned_abs()
}

fn signed_ms_since(origin: Timestamp, time: Timestamp) -> i64 {
    let nanos = i128::from(time.as_nanos()) - i128::from(origin.as_nanos());
    // Fits: two instants are less than 2^64 ns apart.
    (nanos + 500_000).div_euclid(1_000_000) as i64
}

/// Start and end of a fragment in milliseconds since `origin`, an end after the start: WebVTT wants one (4.1, "WebVTT cue
/// timings").
fn span_ms(fragment: &Fragment, origin: Timestamp) -> (i64, i64) {
    let start_ms = signed_ms_since(origin, fragment.start_time);
    (start_ms, signed_ms_since(origin, fragment.stop_time).max(start_ms + 1))
}

/// Vowels that are written before their consonant, and signs that belong to what is before them (Thai, Lao): grapheme
/// clusters by Unicode, but no place to break.
fn is_bound(before: char, after: char) -> bool {
    matches!(before, '\u{e40}'..='\u{e44}' | '\u{ec0}'..='\u{ec4}')
        || matches!(after, '\u{e2f}'..='\u{e33}' | '\u{e45}' | '\u{e46}' | '\u{eaf}'..='\u{eb3}' | '\u{ec6}')
}

/// Words of a text, in sixths: a character of a script without spaces is one (a full-width one two), a run of anything
/// else with a letter or a digit in it six. Six characters, the space with them, are the standard word of typing.
pub(super) fn sixths_of_words(text: &str) -> u64 {
    let mut sixths = 0;
    let mut counted = false;
    for c in text.chars() {
        if is_space(c) {
            counted = false;
        } else if is_unspaced(c) {
            sixths += unicode_width::UnicodeWidthChar::width(c).unwrap_or(0) as u64;
            counted = false;
        } else if c.is_alphanumeric() && !counted {
            sixths += 6;
            counted = true;
        }
    }
    sixths
}

/// The atoms of a fragment whose words have one space between them, their times since `origin`. Punctuation that stands
/// alone belongs to a word where both fit into a line.
pub(super) fn atoms(fragment: &Fragment, origin: Timestamp, line_chars: usize) -> Vec<Atom<'_>> {
    let text = fragment.text.as_str();
    let clock = Clock::new(fragment, origin);
    let mut phrases = Phrases::new(fragment.language);
    let mut atoms: Vec<Atom<'_>> = Vec::new();
    let mut last_word = "";
    for word in glued(text, line_chars) {
        let base = word.as_ptr() as usize - text.as_ptr() as usize;
        if let Some(last) = atoms.last_mut() {
            last.break_after = phrases.next(last_word, word);
        }
        last_word = word;
        let mut begin = 0;
        for (end, break_after) in divisions(word) {
            let piece = &word[begin..end];
            let (start_ms, end_ms, stamp_ms) = clock.times(base + begin, base + end);
            let since_origin = |ms: i64| ms.max(0).unsigned_abs();
            atoms.push(Atom {
                text: piece,
                columns: (piece.width() as u64).max(1),
                sixths: sixths_of_words(piece),
                sent_bytes: piece.chars().map(super::profile::sent_bytes).sum(),
                spaced: begin == 0 && !atoms.is_empty(),
                start_ms: since_origin(start_ms),
                lost_ms: since_origin(start_ms.saturating_neg()),
                end_ms: since_origin(end_ms),
                stamp_ms: stamp_ms.map(since_origin),
                break_after,
            });
            begin = end;
        }
    }
    atoms
}

/// The words of a text with one space between two, each with what has neither a letter nor a digit beside it: opening
/// punctuation with the word behind it, the rest with the one before.
fn glued(text: &str, line_chars: usize) -> Vec<&str> {
    let is_mark = |text: &str| !text.chars().any(char::is_alphanumeric);
    let mut glued: Vec<Range<usize>> = Vec::new();
    let mut opens = false;
    for word in words(text) {
        let begin = word.as_ptr() as usize - text.as_ptr() as usize;
        let end = begin + word.len();
        let last = glued.last_mut().filter(|last| text[last.start..end].width() <= line_chars);
        let before = last.as_ref().map_or("", |last| &text[last.start..last.end]);
        // Nothing follows what opens at the end of the text.
        let is_last = end == text.len();
        let begins = is_mark(word) && !is_last && (is_mark(before) || is_opening(before, word));
        match last {
            Some(last) if opens || (is_mark(word) && !begins) => last.end = end,
            _ => glued.push(begin..end),
        }
        opens = begins;
    }
    glued.into_iter().map(|range| &text[range]).collect()
}

/// Whether punctuation belongs to what follows it. A dash behind a sentence is the next speaker's.
fn is_opening(before: &str, mark: &str) -> bool {
    let is_dash = |c: char| matches!(c, '-' | '–' | '—');
    mark.chars().all(|c| matches!(c, '«' | '‹' | '“' | '„' | '(' | '[' | '{' | '¿' | '¡'))
        || (mark.chars().all(is_dash) && behind_punctuation(before) == Some(Break::Sentence))
}

/// When the first word of a fragment begins, in milliseconds since `origin`.
pub(super) fn first_ms(fragment: &Fragment, origin: Timestamp) -> u64 {
    let spans = known_spans(fragment, origin);
    let first_ms = spans.and_then(|spans| spans.first().map(|span| span.ms.0));
    first_ms.unwrap_or(span_ms(fragment, origin).0).max(0).unsigned_abs()
}

/// The words of a text, without the spaces and control characters between them.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).map(str::trim).filter(|word| !word.is_empty())
}

/// Where a word between spaces may be divided, its end included, and how well.
fn divisions(word: &str) -> Vec<(usize, Break)> {
    let mut places = BTreeSet::from([word.len()]);
    if word.chars().any(is_unspaced) {
        places.extend(linebreaks(word).map(|(at, _)| at));
        if word.chars().any(is_dictionary) {
            places.extend(word.grapheme_indices(true).map(|(at, _)| at).filter(|&at| {
                let sides = (word[..at].chars().next_back(), word[at..].chars().next());
                matches!(sides, (Some(a), Some(b)) if is_dictionary(a) && is_dictionary(b) && !is_bound(a, b))
            }));
        }
    }
    // Not at the space before or behind punctuation that belongs to the word.
    let may_divide = |&at: &usize| {
        at == word.len()
            || matches!((word[..at].chars().next_back(), word[at..].chars().next()),
                        (Some(a), Some(b)) if (is_unspaced(a) || is_unspaced(b)) && !is_space(a) && !is_space(b))
    };
    let mut begin = 0;
    let mut divisions = Vec::new();
    for at in places.into_iter().filter(may_divide) {
        divisions.push((at, behind_punctuation(&word[begin..at]).unwrap_or(Break::Awkward)));
        begin = at;
    }
    divisions
}

/// When each byte of a text is spoken.
struct Clock {
    /// Spans of the text in order, without overlap in bytes or time: where and when each begins and ends, and whether
    /// it is a recognised word.
    spans: Vec<Span>,
    /// Characters before each byte, for interpolation; empty for a text of one byte a character.
    chars: Vec<u32>,
    known: bool,
}

struct Span {
    bytes: (usize, usize),
    /// Since the origin, or before it.
    ms: (i64, i64),
}

impl Clock {
    fn new(fragment: &Fragment, origin: Timestamp) -> Self {
        let text = fragment.text.as_str();
        let known = known_spans(fragment, origin);
        let chars = if text.is_ascii() {
            Vec::new()
        } else {
            let mut count = 0;
            (0..=text.len())
                .map(|at| {
                    let before = count;
                    count += u32::from(at < text.len() && text.is_char_boundary(at + 1));
                    before
                })
                .collect()
        };
        let offset = |word: &str| word.as_ptr() as usize - text.as_ptr() as usize;
        let begin = words(text).next().map_or(0, offset);
        let end = words(text).last().map_or(begin, |word| offset(word) + word.len());
        let whole = || vec![Span { bytes: (begin, end), ms: span_ms(fragment, origin) }];
        Self { known: known.is_some(), spans: known.unwrap_or_else(whole), chars }
    }

    /// Start and end of these bytes, and where a word begins in them.
    fn times(&self, begin: usize, end: usize) -> (i64, i64, Option<i64>) {
        let first = self.spans.partition_point(|span| span.bytes.1 <= begin);
        let last = self.spans.partition_point(|span| span.bytes.0 < end).saturating_sub(1);
        let (Some(from), Some(to)) = (self.spans.get(first), self.spans.get(last)) else { return (0, 0, None) };
        let start_ms = self.at(from, begin);
        let end_ms = self.at(to, end).max(start_ms);
        let word = self.spans[first..].iter().find(|span| span.bytes.0 >= begin && span.bytes.0 < end);
        (start_ms, end_ms, word.filter(|_| self.known).map(|span| span.ms.0))
    }

    fn at(&self, span: &Span, byte: usize) -> i64 {
        let chars = |byte: usize| self.chars.get(byte).map_or(byte as u128, |&n| u128::from(n));
        let (begin, end) = (chars(span.bytes.0), chars(span.bytes.1));
        let place = chars(byte).clamp(begin, end) - begin;
        let lasts = u128::from(span.ms.1.abs_diff(span.ms.0));
        span.ms.0 + i64::try_from(lasts * place / (end - begin).max(1)).unwrap_or(0)
    }
}

/// The words of a fragment in its text, their times in order and within the fragment; `None` where there are none, or
/// they are not its text.
fn known_spans(fragment: &Fragment, origin: Timestamp) -> Option<Vec<Span>> {
    let (start_ms, stop_ms) = span_ms(fragment, origin);
    let text = fragment.text.as_str();
    let skip =
        |at: usize| text.len() - text[at..].trim_start_matches(|c: char| c.is_whitespace() || c.is_control()).len();
    let mut spans: Vec<Span> = Vec::new();
    let mut at = 0;
    let mut now = start_ms;
    for word in &fragment.words {
        let trimmed = word.text.trim_matches(|c: char| c.is_whitespace() || c.is_control());
        if trimmed.is_empty() {
            continue;
        }
        at = skip(at);
        if !text[at..].starts_with(trimmed) {
            return None;
        }
        let start = signed_ms_since(origin, word.start_time).clamp(now, stop_ms.max(now));
        let end = signed_ms_since(origin, word.end_time).clamp(start, stop_ms.max(start));
        // A word that goes on into the next one ends where that begins.
        if let Some(last) = spans.last_mut() {
            last.ms.1 = last.ms.1.min(start).max(last.ms.0);
        }
        spans.push(Span { bytes: (at, at + trimmed.len()), ms: (start, end) });
        now = start;
        at += trimmed.len();
    }
    (!spans.is_empty() && skip(at) == text.len()).then_some(spans)
}
