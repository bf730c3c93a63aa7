//! Transcripts as WebVTT: cues with voice tags.
//!
//! In: [`Fragment`]s, or a file. Out: cues as text, or [`Cue`]s and what is wrong between them.
//!
//! ```text
//! WEBVTT
//!
//! 00:00:01.061 --> 00:00:05.401
//! <v alice>hello
//! ```
//!
//! Written and read after W3C, *WebVTT: The Web Video Text Tracks Format*, sections 4 and 6. `&`, `<` and `>` are
//! escaped in the text and in the speaker, which takes care of `-->` too; nothing but spaces and control characters is
//! lost. Text in lines of up to [`MAX_LINE_CHARS`](super::MAX_LINE_CHARS).
//!
//! WebVTT wants cues in the order of their starts: give the writer fragments in
//! [`Fragment::transcript_order`].

use std::fmt;
use std::io::BufRead;

use super::cue::{Block, Blocks, span_ms, wrap, write_plain, write_span};
use super::{Cue, Fragment, ReadError};
use crate::time::Timestamp;

/// The signature, and the blank line behind it.
pub(super) const HEADER: &str = "WEBVTT\n\n";

/// Appends a cue to `out`; says whether there was text to show.
pub(super) fn write_cue(out: &mut String, fragment: &Fragment, origin: Timestamp) -> Result<bool, fmt::Error> {
    let lines = wrap(&fragment.text);
    if lines.is_empty() {
        return Ok(false);
    }
    write_span(out, span_ms(fragment, origin), '.')?;
    let mut speaker = String::new();
    write_plain(&mut speaker, &fragment.speaker_id);
    // A voice needs a name. A cue that has one voice needs no end tag.
    if !speaker.is_empty() {
        out.push_str("<v ");
        escape(out, &speaker);
        out.push('>');
    }
    for line in lines {
        escape(out, &line);
        out.push('\n');
    }
    out.push('\n');
    Ok(true)
}

fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            _ => out.push(c),
        }
    }
}

/// Reads the cues of a WebVTT file.
///
/// Takes what [`TranscriptWriter`](super::TranscriptWriter) writes, and a byte order mark, CRLF, identifiers, cue
/// settings, and times without hours. Passes over `NOTE`, `STYLE` and `REGION` blocks, and drops all tags but the first
/// voice. A cue that is wrong is an error, and the reader goes on behind the next blank line; where the first line is
/// not `WEBVTT`, nothing follows.
pub struct Reader<R> {
    blocks: Blocks<R>,
    place: Place,
}

enum Place {
    Start,
    Cues,
    End,
}

impl<R: BufRead> Reader<R> {
    /// A reader of `input`, from its current place.
    pub fn new(input: R) -> Self {
        Self { blocks: Blocks::new(input), place: Place::Start }
    }

    /// The next block behind the header that can be a cue.
    fn block(&mut self) -> Result<Option<Block>, ReadError> {
        loop {
            match self.place {
                Place::Start => {
                    self.place = Place::End;
                    let header = self.blocks.read()?;
                    if !header.is_some_and(|block| block.line == 1 && begins_with_word(&block.lines[0], "WEBVTT")) {
                        return Err(ReadError::malformed(1, "`WEBVTT` is expected"));
                    }
                    self.place = Place::Cues;
                }
                Place::Cues => match self.blocks.read()? {
                    Some(block) if is_comment(&block.lines[0]) => {}
                    block => return Ok(block),
                },
                Place::End => return Ok(None),
            }
        }
    }
}

fn is_comment(line: &str) -> bool {
    !line.contains("-->") && ["NOTE", "STYLE", "REGION"].into_iter().any(|word| begins_with_word(line, word))
}

/// Whether a line is `word`, or begins with it and a space or tab.
fn begins_with_word(line: &str, word: &str) -> bool {
    line.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t']))
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Cue, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let cue = |block: Block| {
            let (start_ms, end_ms, payload) = block.cue()?;
            let (speaker_id, text) = without_tags(&payload);
            Ok(Cue { start_ms, end_ms, speaker_id, text })
        };
        self.block().transpose().map(|block| block.and_then(cue))
    }
}

/// The first voice and the text of a cue's payload.
fn without_tags(payload: &str) -> (Option<String>, String) {
    let mut voice = None;
    let mut text = String::new();
    let mut rest = payload;
    while let Some((before, tag)) = rest.split_once('<') {
        unescape(&mut text, before);
        let (tag, after) = tag.split_once('>').unwrap_or((tag, ""));
        // `<v name>`, `<v.class name>`
        let (kind, name) = tag.split_once([' ', '\t']).unwrap_or((tag, ""));
        if voice.is_none() && kind.split('.').next() == Some("v") {
            let mut decoded = String::new();
            unescape(&mut decoded, name.trim());
            voice = Some(decoded);
        }
        rest = after;
    }
    unescape(&mut text, rest);
    (voice, text)
}

/// Appends `text` to `out`, with the character references that WebVTT names, and numbers, resolved.
fn unescape(out: &mut String, text: &str) {
    let mut rest = text;
    while let Some((before, reference)) = rest.split_once('&') {
        out.push_str(before);
        let resolved = reference.split_once(';').and_then(|(name, after)| Some((resolve(name)?, after)));
        let (c, after) = resolved.unwrap_or(('&', reference));
        out.push(c);
        rest = after;
    }
    out.push_str(rest);
}

fn resolve(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "nbsp" => Some('\u{a0}'),
        "lrm" => Some('\u{200e}'),
        "rlm" => Some('\u{200f}'),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => number.parse(),
            };
            code.ok().and_then(char::from_u32)
        }
    }
}
