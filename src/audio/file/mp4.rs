//! The parts of an MP4 that the demuxer does not tell: where its index is, and what its edit lists cut off.
//!
//! In: a [`Source`] at the first box. Out: one [`Edit`] a track, or why the file cannot be read.

use std::io;

use super::source::Source;

/// Most boxes that are looked at: a fragmented recording has thousands, an index some hundreds.
const MAX_BOXES: usize = 100_000;
/// Longest index that is kept for a pipe: more than a day of AAC.
const MAX_PIPED_INDEX_BYTES: u64 = 64 * 1024 * 1024;

/// What of a track is to be heard (ISO 14496-12, 8.6.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edit {
    pub(super) track_id: u32,
    /// First tick to be heard, of `media_timescale`.
    pub(super) media_start: u64,
    /// Ticks a second of the track.
    pub(super) media_timescale: u32,
    /// Length in ticks of `movie_timescale`; 0 means to the end.
    pub(super) movie_len: u64,
    /// Ticks a second of the movie.
    pub(super) movie_timescale: u32,
}

/// What the walk over the boxes found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Index {
    /// The index and the edits in it.
    Found(Vec<Edit>),
    /// Audio comes first, and the index cannot be jumped to.
    BehindAudio,
    /// There is none.
    Missing,
}

struct Box4 {
    kind: [u8; 4],
    body: u64,
    end: u64,
}

struct Walker<'a> {
    source: &'a mut Source,
    boxes_left: usize,
}

/// Looks for the index.
pub(super) fn index(source: &mut Source) -> io::Result<Index> {
    let mut walker = Walker { source, boxes_left: MAX_BOXES };
    let mut found_edits = None;
    let mut at = 0;
    while let Some(found) = walker.next(at, u64::MAX)? {
        if !walker.source.is_file() {
            if matches!(&found.kind, b"mdat" | b"moof") {
                return Ok(Index::BehindAudio);
            }
            if found.end > MAX_PIPED_INDEX_BYTES {
                // Readable, but nothing is known about its edits.
                return Ok(Index::Found(Vec::new()));
            }
        }
        if &found.kind == b"moov" {
            let edits = walker.movie(&found)?;
            if !walker.source.is_file() {
                return Ok(Index::Found(edits));
            }
            found_edits = Some(edits);
        }
        at = found.end;
        // The demuxer refuses a box that was cut off, and with it all that is there.
        if at < u64::MAX && found_edits.is_some() {
            walker.source.pretend_len(at);
        }
    }
    Ok(found_edits.map_or(Index::Missing, Index::Found))
}

impl Walker<'_> {
    /// The box at `at`, which must begin before `end`.
    fn next(&mut self, at: u64, end: u64) -> io::Result<Option<Box4>> {
        let mut header = [0; 16];
        if at.saturating_add(8) > end || self.boxes_left == 0 {
            return Ok(None);
        }
        self.boxes_left -= 1;
        let got = self.source.read_at(at, &mut header)?;
        let (Some(&[a, b, c, d, e, f, g, h]), true) = (header.first_chunk(), got >= 8) else { return Ok(None) };
        let (body, len) = match u32::from_be_bytes([a, b, c, d]) {
            0 => (8, u64::MAX),
            1 => (16, header.last_chunk().copied().map_or(0, u64::from_be_bytes)),
            len => (8, u64::from(len)),
        };
        let (body, box_end) = (at.saturating_add(body), at.saturating_add(len).min(end));
        // Also where the longer header does not fit into what is around it.
        if box_end < body {
            return Ok(None);
        }
        Ok(Some(Box4 { kind: [e, f, g, h], body, end: box_end }))
    }

    fn children(&mut self, parent: &Box4, visit: &mut dyn FnMut(&mut Self, &Box4) -> io::Result<()>) -> io::Result<()> {
        let mut at = parent.body;
        while let Some(child) = self.next(at, parent.end)? {
            visit(self, &child)?;
            at = child.end;
        }
        Ok(())
    }

    /// The first bytes of a box, as many as it has.
    fn body<const N: usize>(&mut self, of: &Box4) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        let len = usize::try_from(of.end - of.body).unwrap_or(N).min(N);
        self.source.read_at(of.body, &mut bytes[..len])?;
        Ok(bytes)
    }

    fn movie(&mut self, moov: &Box4) -> io::Result<Vec<Edit>> {
        let mut edits = Vec::new();
        let mut movie_timescale = 0;
        self.children(moov, &mut |walker, child| {
            match &child.kind {
                b"mvhd" => movie_timescale = timescale(&walker.body(child)?),
                b"trak" => edits.extend(walker.track(child)?),
                _ => {}
            }
            Ok(())
        })?;
        for edit in &mut edits {
            edit.movie_timescale = movie_timescale;
        }
        Ok(edits)
    }

    fn track(&mut self, trak: &Box4) -> io::Result<Option<Edit>> {
        let mut track_id = 0;
        let mut media_timescale = 0;
        let mut heard = None;
        self.children(trak, &mut |walker, child| {
            match &child.kind {
                b"tkhd" => track_id = track_id_of(&walker.body(child)?),
                b"mdia" => walker.children(child, &mut |walker, child| {
                    if &child.kind == b"mdhd" {
                        media_timescale = timescale(&walker.body(child)?);
                    }
                    Ok(())
                })?,
                b"edts" => walker.children(child, &mut |walker, child| {
                    if &child.kind == b"elst" {
                        heard = edit_of(&walker.body(child)?);
                    }
                    Ok(())
                })?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(heard.map(|(media_start, movie_len)| Edit {
            track_id,
            media_start,
            media_timescale,
            movie_len,
            movie_timescale: 0,
        }))
    }
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).copied().map_or(0, u32::from_be_bytes)
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).copied().map_or(0, u64::from_be_bytes)
}

/// Ticks a second, in `mvhd` and `mdhd`: behind two dates of four or eight bytes.
fn timescale(header: &[u8; 32]) -> u32 {
    be32(header, if header[0] == 1 { 20 } else { 12 })
}

fn track_id_of(header: &[u8; 32]) -> u32 {
    be32(header, if header[0] == 1 { 20 } else { 12 })
}

/// Start and length of the one stretch that is heard. Of several stretches nothing is cut: an edited film, not a delay.
fn edit_of(list: &[u8; 96]) -> Option<(u64, u64)> {
    let long = list[0] == 1;
    let width = if long { 20 } else { 12 };
    let count = be32(list, 4) as usize;
    if count > 4 {
        return None;
    }
    let mut heard = (0..count).filter_map(|entry| {
        let at = 8 + entry * width;
        let (len, start) = if long {
            (be64(list, at), be64(list, at + 8) as i64)
        } else {
            (u64::from(be32(list, at)), i64::from(be32(list, at + 4) as i32))
        };
        // A start of -1 is an empty edit: the track is heard later than the others.
        u64::try_from(start).ok().map(|start| (start, len))
    });
    let first = heard.next()?;
    heard.next().is_none().then_some(first)
}

/// Delay and length in samples from the `iTunSMPB` comment that Apple's encoders write: twelve words in hexadecimal,
/// of which the second is the delay, the third the padding and the fourth the length.
pub(super) fn itunes_gapless(comment: &str) -> Option<(u64, u64)> {
    let mut words = comment.split_ascii_whitespace().map(|word| u64::from_str_radix(word, 16).ok());
    let delay = words.nth(1)??;
    let len = words.nth(1)??;
    // Encoders delay by a few thousand samples; more is no delay.
    (delay <= 16_384 && len > 0).then_some((delay, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apples_comment_gives_delay_and_length() {
        let comment = " 00000000 00000840 000001CA 00000000003F31F6 00000000 00000000 00000000 00000000";
        assert_eq!(itunes_gapless(comment), Some((0x840, 0x3F_31F6)));
        for bad in ["", "0", "0 0 0", "0 zz 0 1", "0 FFFFFFFF 0 1", "0 840 0 0"] {
            assert_eq!(itunes_gapless(bad), None, "{bad}");
        }
    }

    #[test]
    fn one_stretch_is_an_edit_and_several_are_not() {
        let list = |entries: &[(u32, i32)]| {
            let mut bytes = [0; 96];
            bytes[7] = entries.len() as u8;
            for (at, (len, start)) in entries.iter().enumerate() {
                bytes[8 + at * 12..][..4].copy_from_slice(&len.to_be_bytes());
                bytes[12 + at * 12..][..4].copy_from_slice(&start.to_be_bytes());
            }
            bytes
        };
        assert_eq!(edit_of(&list(&[(1698, 1024)])), Some((1024, 1698)));
        assert_eq!(edit_of(&list(&[(50, -1), (1698, 1024)])), Some((1024, 1698)));
        assert_eq!(edit_of(&list(&[(10, 0), (10, 50)])), None);
        assert_eq!(edit_of(&list(&[])), None);
    }
}
