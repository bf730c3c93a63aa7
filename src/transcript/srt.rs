//! Transcripts as SubRip (SRT): numbered cues, blank lines between them.
//!
//! In: [`Fragment`]s, or a file. Out: cues as text, or [`Cue`]s and what is wrong between them.
//!
//! ```text
//! 1
//! 00:00:01,061 --> 00:00:05,401
//! hello
//! ```
//!
//! A fragment becomes as many cues as its [`Profile`](crate::caption::cues::Profile) asks for.
//!
//! SRT has no specification, no escapes and no speakers. What players agree on is written: times with a comma, the text
//! in short lines. The text cannot break the file: it has no blank line, and a `-->` in it becomes `-- >`. A `<` stays
//! as it is; a player may take it for markup.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::io::{self, BufRead};

use super::cue::{Block, Blocks, write_span};
use super::writer::Encode;
use super::{Cue, Fragment, ReadError};
use crate::caption::cues::{CueCounts, DisplayCue, DisplayCues};

/// The fragment as SRT can hold it: a `-->` in its text would be taken for the times of a cue.
fn without_arrows(fragment: &Fragment) -> Cow<'_, Fragment> {
    if !fragment.text.contains("-->") {
        return Cow::Borrowed(fragment);
    }
    let mut fragment = fragment.clone();
    fragment.text = fragment.text.replace("-->", "-- >");
    for word in &mut fragment.words {
        word.text = word.text.replace("-->", "-- >");
    }
    Cow::Owned(fragment)
}

/// Appends a cue to `out`.
fn write_cue(out: &mut String, number: u64, cue: &DisplayCue) -> fmt::Result {
    writeln!(out, "{number}")?;
    write_span(out, (cue.start_ms, cue.end_ms), ',')?;
    for line in &cue.lines {
        writeln!(out, "{line}")?;
    }
    out.push('\n');
    Ok(())
}

/// Cues with their numbers.
#[derive(Debug)]
pub(super) struct Srt {
    cues: DisplayCues,
    /// The number of the last cue.
    number: u64,
}

impl Srt {
    pub(super) fn new(cues: DisplayCues) -> Self {
        Self { cues, number: 0 }
    }

    fn write(&mut self, out: &mut String) -> io::Result<()> {
        while let Some(cue) = self.cues.poll() {
            self.number += 1;
            write_cue(out, self.number, &cue).map_err(io::Error::other)?;
        }
        Ok(())
    }
}

impl Encode for Srt {
    fn push(&mut self, fragment: &Fragment, out: &mut String) -> io::Result<()> {
        self.cues.push(&without_arrows(fragment));
        self.write(out)
    }

    fn finish(&mut self, out: &mut String) -> io::Result<()> {
        self.cues.finish();
        self.write(out)
    }

    fn cues(&self) -> Option<CueCounts> {
        Some(self.cues.counts())
    }
}

/// Reads the cues of an SRT file.
///
/// Takes what [`TranscriptWriter`](super::TranscriptWriter) writes, and a byte order mark, CRLF, missing or wrong
/// numbers, a point for the comma, and whatever follows the times. Markup is left in the text. A cue that is wrong is
/// an error, and the reader goes on behind the next blank line.
pub struct Reader<R> {
    blocks: Blocks<R>,
}

impl<R: BufRead> Reader<R> {
    /// A reader of `input`, from its current place.
    pub fn new(input: R) -> Self {
        Self { blocks: Blocks::new(input) }
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Cue, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let cue = |block: Block| {
            let (start_ms, end_ms, text) = block.cue()?;
            Ok(Cue { start_ms, end_ms, speaker_id: None, text })
        };
        self.blocks.read().transpose().map(|block| block.and_then(cue))
    }
}
