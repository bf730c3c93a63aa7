//! The bytes of one file or pipe, with a look ahead that is given again.
//!
//! In: a file or any reader, in pieces as they come. Out: the byte source the demuxers read, from where the audio
//! container begins.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use symphonia::core::io::MediaSource;

enum Inner {
    File(File),
    Pipe(Box<dyn Read + Send + Sync>),
}

/// Bytes from `base` on. What [`peek`](Self::peek) saw is kept in `head`, may be corrected there, and is read again.
pub(super) struct Source {
    inner: Inner,
    /// Bytes before the container: tags that were skipped.
    base: u64,
    /// The first bytes from `base` on.
    head: Vec<u8>,
    /// Next byte to give.
    pos: u64,
    /// Next byte that `inner` gives.
    inner_pos: u64,
    /// Length in all, where it is known: for jumps from the end.
    len: Option<u64>,
    /// Where the audio ends although bytes follow.
    end: u64,
    /// Whether the demuxer may jump. Some of them guess lengths if they may.
    pub(super) seekable: bool,
}

impl Source {
    pub(super) fn file(file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        if metadata.is_file() {
            return Ok(Self::new(Inner::File(file), Some(metadata.len())));
        }
        // A named pipe or a device.
        Ok(Self::pipe(Box::new(file)))
    }

    pub(super) fn pipe(reader: Box<dyn Read + Send + Sync>) -> Self {
        Self::new(Inner::Pipe(reader), None)
    }

    fn new(inner: Inner, len: Option<u64>) -> Self {
        let seekable = len.is_some();
        // The first read of a file jumps to its start.
        let inner_pos = if seekable { u64::MAX } else { 0 };
        Self { inner, base: 0, head: Vec::new(), pos: 0, inner_pos, len, end: u64::MAX, seekable }
    }

    /// Length from the container's first byte to the end, where it is known.
    pub(super) fn known_len(&self) -> Option<u64> {
        self.len.map(|len| len.saturating_sub(self.base).min(self.end))
    }

    /// The first `len` bytes, or all there are.
    pub(super) fn peek(&mut self, len: usize) -> io::Result<&mut [u8]> {
        while self.head.len() < len {
            let from = self.head.len();
            // In steps, so that a length which a file only claims is never allocated.
            let step = (len - from).min(64 * 1024);
            self.head.resize(from + step, 0);
            let got = self.read_inner(from as u64, from..from + step);
            self.head.truncate(from + got.as_ref().copied().unwrap_or(0));
            if got? == 0 {
                break;
            }
        }
        let len = len.min(self.head.len());
        Ok(&mut self.head[..len])
    }

    /// Fills `buffer` from `at` on as far as there are bytes. A pipe keeps all bytes before the end of `buffer`.
    pub(super) fn read_at(&mut self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let in_head = usize::try_from(at).ok().filter(|_| !matches!(self.inner, Inner::File(_)));
        if let Some(from) = in_head {
            let seen = self.peek(from.saturating_add(buffer.len()))?;
            let bytes = seen.get(from..).unwrap_or_default();
            buffer[..bytes.len()].copy_from_slice(bytes);
            return Ok(bytes.len());
        }
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_raw(at + filled as u64, &mut buffer[filled..])? {
                0 => break,
                got => filled += got,
            }
        }
        Ok(filled)
    }

    /// Whether bytes far ahead can be had without holding all before them.
    pub(super) fn is_file(&self) -> bool {
        matches!(self.inner, Inner::File(_))
    }

    /// Drops the first `len` bytes: the container begins behind them.
    pub(super) fn skip_front(&mut self, len: u64) -> io::Result<()> {
        let from_head = usize::try_from(len).unwrap_or(usize::MAX).min(self.head.len());
        self.head.drain(..from_head);
        let rest = len - from_head as u64;
        if self.is_file() {
            self.base += len;
            // The next read jumps.
            self.inner_pos = u64::MAX;
        } else {
            if let Inner::Pipe(reader) = &mut self.inner {
                io::copy(&mut reader.take(rest), &mut io::sink())?;
            }
            self.inner_pos = self.head.len() as u64;
        }
        Ok(())
    }

    /// Ends the audio at `end`, although more bytes may follow.
    pub(super) fn end_at(&mut self, end: u64) {
        self.end = end;
    }

    /// Says that a file has at least `len` bytes; those that are not there end the reading as any end does.
    pub(super) fn pretend_len(&mut self, len: u64) {
        let base = self.base;
        self.len = self.len.map(|known| known.max(base.saturating_add(len)));
    }

    fn read_inner(&mut self, at: u64, range: std::ops::Range<usize>) -> io::Result<usize> {
        let mut head = std::mem::take(&mut self.head);
        let got = self.read_raw(at, &mut head[range]);
        self.head = head;
        got
    }

    fn read_raw(&mut self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let got = match &mut self.inner {
                Inner::File(file) => {
                    if self.inner_pos != at {
                        file.seek(SeekFrom::Start(self.base.saturating_add(at)))?;
                        self.inner_pos = at;
                    }
                    file.read(buffer)
                }
                Inner::Pipe(reader) => reader.read(buffer),
            };
            match got {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(got) => {
                    self.inner_pos += got as u64;
                    return Ok(got);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.pos)).unwrap_or(usize::MAX);
        let len = buffer.len().min(left);
        let buffer = &mut buffer[..len];
        let seen = usize::try_from(self.pos).ok().and_then(|from| self.head.get(from..)).unwrap_or_default();
        let got = if seen.is_empty() {
            if !self.head.is_empty() && !self.seekable {
                // Read through; nobody comes back for it.
                self.head = Vec::new();
            }
            self.read_raw(self.pos, buffer)?
        } else {
            let got = seen.len().min(buffer.len());
            buffer[..got].copy_from_slice(&seen[..got]);
            got
        };
        self.pos += got as u64;
        Ok(got)
    }
}

impl Seek for Source {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let unseekable = || io::Error::new(io::ErrorKind::Unsupported, "a pipe has no other places");
        let len = self.known_len().filter(|_| self.seekable).ok_or_else(unseekable)?;
        let pos = match to {
            SeekFrom::Start(pos) => Some(pos),
            SeekFrom::End(delta) => len.checked_add_signed(delta),
            SeekFrom::Current(delta) => self.pos.checked_add_signed(delta),
        };
        self.pos = pos.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.pos)
    }
}

impl MediaSource for Source {
    fn is_seekable(&self) -> bool {
        self.seekable
    }

    fn byte_len(&self) -> Option<u64> {
        self.known_len().filter(|_| self.seekable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its bytes a few at a time, interrupted now and then, as pipes do.
    struct Trickle(Vec<u8>, usize);

    impl Read for Trickle {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 += 1;
            if self.1.is_multiple_of(3) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let got = self.0.len().min(buffer.len()).min(7);
            buffer[..got].copy_from_slice(&self.0[..got]);
            self.0.drain(..got);
            Ok(got)
        }
    }

    fn bytes() -> Vec<u8> {
        (0..1000_u32).map(|byte| byte as u8).collect()
    }

    fn sources() -> Vec<Source> {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, &bytes()).unwrap();
        vec![Source::file(file).unwrap(), Source::pipe(Box::new(Trickle(bytes(), 0)))]
    }

    #[test]
    fn what_was_peeked_is_read_again_with_its_corrections() {
        for mut source in sources() {
            assert_eq!(source.peek(100).unwrap(), &bytes()[..100]);
            let mut far = [0; 5];
            assert_eq!(source.read_at(300, &mut far).unwrap(), 5);
            assert_eq!(far, bytes()[300..305]);
            assert_eq!(source.read_at(998, &mut far).unwrap(), 2);
            source.peek(4).unwrap()[1] = 77;
            let mut all = Vec::new();
            source.read_to_end(&mut all).unwrap();
            let mut expected = bytes();
            expected[1] = 77;
            assert_eq!(all, expected);
        }
    }

    #[test]
    fn a_skipped_front_and_a_cut_end_are_never_seen() {
        for peeked in [0, 10, 500] {
            for mut source in sources() {
                source.peek(peeked).unwrap();
                source.skip_front(200).unwrap();
                source.end_at(700);
                assert_eq!(source.peek(3).unwrap(), &bytes()[200..203]);
                let mut all = Vec::new();
                source.read_to_end(&mut all).unwrap();
                assert_eq!(all, bytes()[200..900]);
            }
        }
    }

    #[test]
    fn files_jump_and_pipes_refuse() {
        for mut source in sources() {
            source.peek(50).unwrap();
            let mut byte = [0];
            let jumped = source.seek(SeekFrom::End(-1));
            if source.is_file() {
                assert_eq!(jumped.unwrap(), 999);
                source.read_exact(&mut byte).unwrap();
                assert_eq!(byte[0], bytes()[999]);
                source.seek(SeekFrom::Start(3)).unwrap();
                source.read_exact(&mut byte).unwrap();
                assert_eq!(byte[0], 3);
                assert!(source.seek(SeekFrom::Current(-5)).is_err());
            } else {
                assert!(jumped.is_err());
            }
        }
    }
}
