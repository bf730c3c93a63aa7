//! Which container a file is, told by its first bytes and never by its name, and what reads it.
//!
//! In: the head of a [`Source`]. Out: a [`Container`], with the source moved to its first byte, and its demuxer; or a
//! description of what the bytes are instead. All that is known of each container is here, but for what [`riff`](super::riff)
//! and [`mp4`](super::mp4) look up before.

use std::fmt;
use std::io;

use symphonia::core::errors::Error;
use symphonia::core::formats::{FormatOptions, FormatReader};
use symphonia::core::io::{MediaSourceStream, MediaSourceStreamOptions, ReadBytes};
use symphonia::default::formats::{
    AdtsReader, AiffReader, FlacReader, IsoMp4Reader, MkvReader, MpaReader, OggReader, WavReader,
};

use super::source::Source;

/// Formats that are understood, for messages.
pub const FORMATS: &str = "WAV, AIFF, FLAC, MP3, AAC (ADTS), Ogg (Vorbis, Opus, FLAC), WebM and Matroska (Opus, Vorbis, AAC, MP3, \
                           FLAC, PCM), MP4 and M4A (AAC-LC, ALAC, Opus, MP3, FLAC)";

/// Containers that are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Container {
    /// RIFF WAVE, RF64 and BW64.
    Wav,
    /// AIFF and AIFF-C.
    Aiff,
    /// Native FLAC.
    Flac,
    /// Ogg.
    Ogg,
    /// Matroska and WebM.
    Matroska,
    /// MP4, M4A and QuickTime.
    Mp4,
    /// MPEG audio frames, MP3 among them.
    Mpeg,
    /// AAC in ADTS frames.
    Adts,
}

impl Container {
    /// Whether its demuxer is better off jumping in a file than reading it as a pipe.
    pub(super) fn needs_jumps(self) -> bool {
        matches!(self, Self::Ogg | Self::Mp4)
    }
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wav => "WAV",
            Self::Aiff => "AIFF",
            Self::Flac => "FLAC",
            Self::Ogg => "Ogg",
            Self::Matroska => "WebM/Matroska",
            Self::Mp4 => "MP4",
            Self::Mpeg => "MPEG audio",
            Self::Adts => "AAC (ADTS)",
        })
    }
}

/// How far into a file the first MPEG or ADTS frame is looked for: recordings of a stream begin inside a frame.
const FRAME_SEARCH_BYTES: [usize; 3] = [4 * 1024, 16 * 1024, 64 * 1024];
/// So many frames in a row must fit together: a single frame header is found in any random data.
const FRAMES_IN_A_ROW: usize = 4;
/// Tags before the container.
const MAX_LEADING_TAGS: usize = 8;

/// The container that begins at the source's first byte, behind any ID3 tags.
pub(super) fn sniff(source: &mut Source) -> io::Result<Option<Container>> {
    for _ in 0..MAX_LEADING_TAGS {
        match id3_len(source.peek(10)?) {
            Some(len) => source.skip_front(len)?,
            None => break,
        }
    }
    let head = source.peek(12)?;
    let word = |at: usize| head.get(at..at + 4).unwrap_or_default();
    let found = match (word(0), word(4), word(8)) {
        (b"RIFF" | b"RF64" | b"BW64", _, b"WAVE") => Some(Container::Wav),
        (b"FORM", _, b"AIFF" | b"AIFC") => Some(Container::Aiff),
        (b"fLaC", ..) => Some(Container::Flac),
        (b"OggS", ..) => Some(Container::Ogg),
        (b"\x1a\x45\xdf\xa3", ..) => Some(Container::Matroska),
        (_, b"ftyp", _) => Some(Container::Mp4),
        _ => None,
    };
    if found.is_some() {
        return Ok(found);
    }
    // In steps: a live stream is not kept waiting for more than its first frames.
    for len in FRAME_SEARCH_BYTES {
        if let Some((container, at)) = first_frame(source.peek(len)?) {
            source.skip_front(at as u64)?;
            return Ok(Some(container));
        }
    }
    Ok(None)
}

/// The demuxer of a container. It is chosen here and not by the library's own search, which takes the first two bytes
/// anywhere in a megabyte that look like a format.
pub(super) fn demuxer(container: Container, source: Source) -> Result<Box<dyn FormatReader>, Error> {
    let mut stream = MediaSourceStream::new(Box::new(source), MediaSourceStreamOptions::default());
    let options = FormatOptions::default();
    Ok(match container {
        Container::Wav => Box::new(WavReader::try_new(stream, options)?),
        Container::Aiff => Box::new(AiffReader::try_new(stream, options)?),
        Container::Flac => Box::new(FlacReader::try_new(stream, options)?),
        Container::Ogg => Box::new(OggReader::try_new(stream, options)?),
        Container::Matroska => Box::new(MkvReader::try_new(stream, options)?),
        Container::Mp4 => {
            // It expects to stand behind the length of the first box.
            stream.ignore_bytes(4)?;
            Box::new(IsoMp4Reader::try_new(stream, options)?)
        }
        Container::Mpeg => Box::new(MpaReader::try_new(stream, options)?),
        Container::Adts => Box::new(AdtsReader::try_new(stream, options)?),
    })
}

/// What the bytes are instead of audio, for a message.
pub(super) fn describe(source: &mut Source) -> io::Result<String> {
    let head = source.peek(512)?;
    let known: [(&[u8], &str); 9] = [
        (b"%PDF", "it is a PDF document"),
        (b"PK\x03\x04", "it is a ZIP archive or office document"),
        (b"\x1f\x8b", "it is a gzip archive"),
        (b"\x89PNG", "it is a PNG picture"),
        (b"\xff\xd8\xff", "it is a JPEG picture"),
        (b"GIF8", "it is a GIF picture"),
        (b"#!AMR", "it is AMR audio, which is not supported"),
        (b"\x30\x26\xb2\x75", "it is a Windows Media (ASF) file, which is not supported"),
        (b"caff", "it is Core Audio (CAF), which is not supported"),
    ];
    if head.is_empty() {
        return Ok("it is empty".to_owned());
    }
    if let Some((_, what)) = known.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Ok((*what).to_owned());
    }
    if head.iter().all(|&byte| byte >= 0x20 || byte.is_ascii_whitespace()) && std::str::from_utf8(head).is_ok() {
        return Ok("it is text".to_owned());
    }
    let first: Vec<String> = head.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("its first bytes ({}) are unknown", first.join(" ")))
}

/// Length of an ID3v2 tag with header and footer (id3.org, ID3v2.4 structure, 3.1).
fn id3_len(head: &[u8]) -> Option<u64> {
    let head: &[u8; 10] = head.try_into().ok()?;
    let size = &head[6..];
    if !head.starts_with(b"ID3") || size.iter().any(|&byte| byte > 127) {
        return None;
    }
    let body = size.iter().fold(0, |len, &byte| len << 7 | u64::from(byte));
    let footer = if head[5] & 0x10 == 0 { 0 } else { 10 };
    Some(10 + body + footer)
}

/// Where the first run of frames begins.
fn first_frame(head: &[u8]) -> Option<(Container, usize)> {
    let runs = |from: usize, kind: Container| {
        let mut at = from;
        let mut like = None;
        for frame in 0..FRAMES_IN_A_ROW {
            let Some(bytes) = head.get(at..).filter(|bytes| bytes.len() >= 4) else {
                // A very short file: whole frames up to its last byte.
                return frame > 0 && at == head.len();
            };
            let Some((found, len, shape)) = frame_header(bytes) else { return false };
            if found != kind || like.is_some_and(|like| like != shape) {
                return false;
            }
            like = Some(shape);
            at += len;
        }
        true
    };
    (0..head.len().saturating_sub(3)).find_map(|at| {
        let (kind, ..) = frame_header(&head[at..])?;
        runs(at, kind).then_some((kind, at))
    })
}

/// Kind and length of the frame that `bytes` begin with, and the bits that do not change from frame to frame.
/// (ISO 11172-3, 2.4.1.3; ISO 13818-7, 6.2)
fn frame_header(bytes: &[u8]) -> Option<(Container, usize, u32)> {
    let word = u32::from_be_bytes(*bytes.first_chunk()?);
    if word >> 20 == 0xfff && (word >> 17) & 3 == 0 {
        let len = u32::from_be_bytes(*bytes.get(3..)?.first_chunk()?) >> 13 & 0x1fff;
        let rate = word >> 10 & 15;
        return (rate < 13 && len > 7).then_some((Container::Adts, len as usize, word & 0xfffe_fdc0));
    }
    // In kbit/s, by [layer I, II, III of MPEG-1; layer I, II and III of MPEG-2].
    const KBITS: [[u16; 15]; 5] = [
        [0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
        [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
        [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
        [0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
        [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
    ];
    let version = word >> 19 & 3;
    let layer = 4 - (word >> 17 & 3);
    let kbits_index = (word >> 12 & 15) as usize;
    let rate_index = (word >> 10 & 3) as usize;
    if word >> 21 != 0x7ff || version == 1 || layer == 4 || rate_index == 3 || !(1..15).contains(&kbits_index) {
        return None;
    }
    let mpeg1 = version == 3;
    let row = match (mpeg1, layer) {
        (true, layer) => layer as usize - 1,
        (false, 1) => 3,
        (false, _) => 4,
    };
    let kbits = u32::from(KBITS[row][kbits_index]);
    let halvings = match version {
        3 => 0,
        2 => 1,
        _ => 2,
    };
    let rate = [44_100, 48_000, 32_000][rate_index] >> halvings;
    let padding = word >> 9 & 1;
    let len = match (layer, mpeg1) {
        (1, _) => (12_000 * kbits / rate + padding) * 4,
        (3, false) => 72_000 * kbits / rate + padding,
        _ => 144_000 * kbits / rate + padding,
    };
    // Version, layer and rate stay; bit rate, padding and channel mode may change.
    Some((Container::Mpeg, len as usize, word & 0xfffe_0c00))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sniff(bytes: &[u8]) -> Option<Container> {
        super::sniff(&mut Source::pipe(Box::new(io::Cursor::new(bytes.to_vec())))).unwrap()
    }

    #[test]
    fn frame_lengths_follow_the_standard() {
        for (header, kind, len) in [
            ([0xff, 0xfb, 0x90, 0x00, 0, 0, 0], Container::Mpeg, 417),
            ([0xff, 0xfb, 0x92, 0x00, 0, 0, 0], Container::Mpeg, 418),
            ([0xff, 0xf3, 0x48, 0xc4, 0, 0, 0], Container::Mpeg, 144),
            ([0xff, 0xfd, 0xa4, 0x00, 0, 0, 0], Container::Mpeg, 576),
            ([0xff, 0xf1, 0x60, 0x40, 0x0e, 0x9f, 0xfc], Container::Adts, 116),
        ] {
            let (found, found_len, _) = frame_header(&header).unwrap();
            assert_eq!((found, found_len), (kind, len), "{header:02x?}");
        }
    }

    #[test]
    fn tags_and_junk_before_the_frames_are_skipped() {
        let mut frame = vec![0xff, 0xf3, 0x48, 0xc4];
        frame.resize(144, 0);
        let frames = frame.repeat(6);
        assert_eq!(sniff(&frames), Some(Container::Mpeg));
        assert_eq!(sniff(&frame.repeat(2)), Some(Container::Mpeg));
        assert_eq!(sniff(&[&b"ID3\x04\0\0\0\0\x01\x00"[..], &[0xff; 128], &frames].concat()), Some(Container::Mpeg));
        assert_eq!(sniff(&[&[0x55; 3000][..], &frames].concat()), Some(Container::Mpeg));
        assert_eq!(sniff(&[&b"ID3\x04\0\0\0\0\0\x05hello"[..], b"fLaC"].concat()), Some(Container::Flac));
    }

    #[test]
    fn what_is_no_audio_is_said() {
        let mut random = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 56) as u8
        })
        .take(200_000)
        .collect();
        for (bytes, expected) in [
            (&b""[..], "empty"),
            (b"hello, this is text\n", "text"),
            (b"%PDF-1.7", "PDF"),
            (b"\x00\x01\x02\x03", "00 01 02 03"),
            (&noise, "first bytes"),
            (b"RIFF\x10\0\0\0AVI LIST", "first bytes"),
            (b"ID3", "text"),
            (&[0xff; 70_000], "first bytes"),
        ] {
            let mut source = Source::pipe(Box::new(io::Cursor::new(bytes.to_vec())));
            assert_eq!(super::sniff(&mut source).unwrap(), None);
            let found = describe(&mut source).unwrap();
            assert!(found.contains(expected), "{found}");
        }
    }
}
