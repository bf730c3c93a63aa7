//! Transcripts as plain text: a line a caption, and nothing else.
//!
//! In: [`Fragment`]s. Out: text.

use std::io;

use super::Fragment;
use super::cue::write_plain;
use super::writer::Encode;

#[derive(Debug)]
pub(super) struct Txt;

impl Encode for Txt {
    fn push(&mut self, fragment: &Fragment, out: &mut String) -> io::Result<()> {
        let begun = out.len();
        write_plain(out, &fragment.text);
        if out.len() > begun {
            out.push('\n');
        }
        Ok(())
    }
}
