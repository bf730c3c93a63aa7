//! Lines of a transcript, bounded, with their numbers.
//!
//! In: a [`BufRead`]. Out: one line at a time, without its end; what can be wrong with one, as [`ReadError`].

use std::io::{self, BufRead, Read};

/// Longest line that a reader takes, in bytes: many times the longest caption, small enough to hold.
pub const MAX_LINE_BYTES: usize = 1 << 20;

/// A transcript cannot be read on, or a part of it cannot be read. Sorted by what the caller does next.
///
/// Lines are counted from 1.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// This line, or the cue it belongs to, is not what the format has here. Go on: the reader has left it behind.
    #[error("line {line}: {what}")]
    Malformed {
        /// Where.
        line: u64,
        /// What is wrong.
        what: String,
    },
    /// This line, or the cue it belongs to, is too long to be held. Go on: the reader has left it behind.
    #[error("line {line} is longer than {MAX_LINE_BYTES} bytes")]
    TooLong {
        /// Where.
        line: u64,
    },
    /// The last line breaks off: whoever wrote it was interrupted. Everything before it is whole; a journal can be
    /// cut off at `whole_bytes` and continued. Nothing follows.
    #[error("line {line}, the last, breaks off after {whole_bytes} bytes of whole lines: its writer was interrupted")]
    Torn {
        /// Where.
        line: u64,
        /// Length of the whole lines before it.
        whole_bytes: u64,
    },
    /// Reading failed. Nothing follows.
    #[error("line {line} cannot be read: {source}")]
    Io {
        /// Where.
        line: u64,
        /// Why.
        source: io::Error,
    },
}

impl ReadError {
    pub(super) fn malformed(line: u64, what: impl Into<String>) -> Self {
        Self::Malformed { line, what: what.into() }
    }
}

/// One line, without `\n` or `\r\n`.
pub(super) struct Line<'a> {
    /// Counted from 1.
    pub(super) number: u64,
    pub(super) bytes: &'a [u8],
    /// Bytes of the input before this line.
    pub(super) offset: u64,
    /// Whether a line end was there. Only a last line has none.
    pub(super) ended: bool,
}

impl<'a> Line<'a> {
    /// The line without the zeros that a loss of power leaves where a file had grown and its data was not there yet.
    pub(super) fn without_zeros(&self) -> &'a [u8] {
        let zeros = if self.ended { 0 } else { self.bytes.iter().rev().take_while(|&&byte| byte == 0).count() };
        &self.bytes[..self.bytes.len() - zeros]
    }

    /// The line as text.
    pub(super) fn text(&self) -> Result<&'a str, ReadError> {
        std::str::from_utf8(self.bytes).map_err(|_| ReadError::malformed(self.number, "is not UTF-8"))
    }
}

/// Reads lines of at most [`MAX_LINE_BYTES`].
pub(super) struct Lines<R> {
    input: R,
    /// Bytes consumed.
    offset: u64,
    /// The line that `buffer` holds.
    number: u64,
    buffer: Vec<u8>,
    failed: bool,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, offset: 0, number: 0, buffer: Vec::new(), failed: false }
    }

    /// The next line; `None` at the end, and after [`ReadError::Io`].
    pub(super) fn read(&mut self) -> Result<Option<Line<'_>>, ReadError> {
        if self.failed {
            return Ok(None);
        }
        self.number += 1;
        self.buffer.clear();
        let offset = self.offset;
        // The longest line, its `\r\n`, and one byte more to know that it is longer.
        let most = MAX_LINE_BYTES as u64 + 3;
        let read = self.input.by_ref().take(most).read_until(b'\n', &mut self.buffer);
        let read = self.counted(read)?;
        if read == 0 {
            return Ok(None);
        }
        let ended = self.buffer.ends_with(b"\n");
        if !ended && read as u64 == most {
            let skipped = self.input.skip_until(b'\n');
            self.counted(skipped)?;
        }
        let line = self.buffer.strip_suffix(b"\n").unwrap_or(&self.buffer);
        let bytes = line.strip_suffix(b"\r").unwrap_or(line);
        if bytes.len() > MAX_LINE_BYTES {
            return Err(ReadError::TooLong { line: self.number });
        }
        Ok(Some(Line { number: self.number, bytes, offset, ended }))
    }

    /// Bytes of the input before the next line.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    fn counted(&mut self, read: io::Result<usize>) -> Result<usize, ReadError> {
        match read {
            Ok(bytes) => {
                self.offset += bytes as u64;
                Ok(bytes)
            }
            Err(source) => {
                self.failed = true;
                Err(ReadError::Io { line: self.number, source })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_numbered_and_free_of_their_ends() {
        let mut input = b"one\r\n\n".to_vec();
        input.extend(vec![b'x'; MAX_LINE_BYTES]);
        input.extend(b"\r\n");
        input.extend(vec![b'x'; MAX_LINE_BYTES + 1]);
        input.extend(b"\n");
        input.extend(vec![b'x'; 3 * MAX_LINE_BYTES]);
        input.extend(b"\nlast");
        for capacity in [1, 7, 1 << 16] {
            let mut lines = Lines::new(io::BufReader::with_capacity(capacity, input.as_slice()));
            let mut seen = Vec::new();
            loop {
                match lines.read() {
                    Ok(Some(line)) => seen.push((line.number, line.bytes.len(), line.ended)),
                    Ok(None) => break,
                    Err(ReadError::TooLong { line }) => seen.push((line, usize::MAX, true)),
                    Err(error) => panic!("{error}"),
                }
            }
            let long = usize::MAX;
            let expected = [
                (1, 3, true),
                (2, 0, true),
                (3, MAX_LINE_BYTES, true),
                (4, long, true),
                (5, long, true),
                (6, 4, false),
            ];
            assert_eq!(seen, expected);
        }
    }

    #[test]
    fn a_failing_reader_fails_once() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("pulled"))
            }
        }
        let mut lines = Lines::new(io::BufReader::new(b"one\n".chain(Broken)));
        assert!(lines.read().unwrap().is_some());
        assert!(matches!(lines.read(), Err(ReadError::Io { line: 2, .. })));
        assert!(lines.read().unwrap().is_none());
    }
}
