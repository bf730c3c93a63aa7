//! Transcripts as WebVTT: cues with voice tags.
//!
//! In: [`Fragment`]s, or a file. Out: cues as text, or [`Cue`]s and what is wrong between them.
//!
//! ```text
//! WEBVTT
//!
//! 00:00:01.061 --> 00:00:05.401
//! <v alice>hello <00:00:02.400>there
//! ```
//!
//! A fragment becomes as many cues as its [`Profile`](crate::caption::cues::Profile) asks for. Where the times of its words
//! are known, they stand before each word behind a cue's first (section 4.2.2, "WebVTT cue timestamp"): players can mark
//! what is being said.
//!
//! Written and read after W3C, *WebVTT: The Web Video Text Tracks Format*, sections 4 and 6. `&`, `<` and `>` are
//! escaped in the text and in the speaker, which takes care of `-->` too; nothing but spaces and control characters is
//! lost.
//!
//! WebVTT wants cues in the order of their starts: give the writer fragments in
//! [`Fragment::transcript_order`].

use std::fmt::{self, Write};
use std::io::{self, BufRead};

use super::cue::{Block, Blocks, CueTime, write_plain, write_span};
use super::writer::Encode;
use super::{Cue, Fragment, ReadError};
use crate::caption::cues::{CueCounts, DisplayCue, DisplayCues};

/// The signature, and the blank line behind it.
const HEADER: &str = "WEBVTT\n\n";

/// Cues in voices, their words marked.
#[derive(Debug)]
pub(super) struct WebVtt {
    cues: DisplayCues,
    /// Whether words are marked where they begin.
    marks: bool,
}

impl WebVtt {
    pub(super) fn new(cues: DisplayCues) -> Self {
        Self { cues, marks: true }
    }

    fn write(&mut self, out: &mut String) -> io::Result<()> {
        while let Some(mut cue) = self.cues.poll() {
            if !self.marks {
                cue.stamps.clear();
            }
            write_cue(out, &cue).map_err(io::Error::other)?;
        }
        Ok(())
    }
}

impl Encode for WebVtt {
    fn header(&self) -> &'static str {
        HEADER
    }

    fn push(&mut self, fragment: &Fragment, out: &mut String) -> io::Result<()> {
        self.cues.push(fragment);
        self.write(out)
    }

    fn finish(&mut self, out: &mut String) -> io::Result<()> {
        self.cues.finish();
        self.write(out)
    }

    fn leave_out_word_marks(&mut self) {
        self.marks = false;
    }

    fn cues(&self) -> Option<CueCounts> {
        Some(self.cues.counts())
    }
}

/// Appends a cue to `out`.
fn write_cue(out: &mut String, cue: &DisplayCue) -> fmt::Result {
    write_span(out, (cue.start_ms, cue.end_ms), '.')?;
    let mut speaker = String::new();
    write_plain(&mut speaker, &cue.speaker_id);
    // A voice needs a name. A cue that has one voice needs no end tag.
    if !speaker.is_empty() {
        out.push_str("<v ");
        escape(out, &speaker);
        out.push('>');
    }
    let mut stamps = cue.stamps.iter().peekable();
    for (index, line) in cue.lines.iter().enumerate() {
        let mut written = 0;
        while let Some(stamp) = stamps.next_if(|stamp| stamp.line == index) {
            escape(out, &line[written..stamp.byte]);
            write!(out, "<{}>", CueTime { ms: stamp.ms, mark: '.' })?;
            written = stamp.byte;
        }
        escape(out, &line[written..]);
        out.push('\n');
    }
    out.push('\n');
    Ok(())
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
