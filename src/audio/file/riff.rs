//! The header of a WAV file, corrected before the demuxer reads it.
//!
//! In: the head of a [`Source`]. Out: the same head with sizes that say "unknown" the one way the demuxer knows, and
//! what the header really declares.

use std::io;

use super::source::Source;

/// The audio of a usual file begins after 44 bytes, of a broadcast file after some hundred kilobytes.
const MAX_HEADER_BYTES: u64 = 4 * 1024 * 1024;
/// Format tag of `WAVEFORMATEXTENSIBLE`.
const EXTENSIBLE: u16 = 0xfffe;
/// "Up to the end of the file" in RIFF.
const UNKNOWN: [u8; 4] = [0xff; 4];

/// Most channels of a WAV: so many have names.
pub(super) const MAX_WAV_CHANNELS: usize = 26;

/// What the header declares.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wav {
    pub(super) length: WavLength,
    /// Channel count and rate, where there is a format at all.
    pub(super) shape: Option<(u16, u32)>,
}

/// What the header says about the length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum WavLength {
    /// As the demuxer reads it.
    #[default]
    AsDemuxed,
    /// It was written before the length was known.
    Unknown,
    /// Frames, from a size that only RF64 and BW64 have room for.
    Frames(u64),
}

/// Corrects the header in `source` and reads it.
pub(super) fn prepare(source: &mut Source) -> io::Result<Wav> {
    let mut wav = Wav::default();
    let Some((magic, riff_len)) = chunk(source, 0)? else { return Ok(wav) };
    // The form's length repeats what the data chunk says, and is wrong more often.
    overwrite(source, 0, b"RIFF")?;
    overwrite(source, 4, &UNKNOWN)?;
    let mut block_align = None;
    let mut long_data = None;
    let mut at = 12;
    while at < MAX_HEADER_BYTES {
        let Some((id, len)) = chunk(source, at)? else { break };
        let body = at + 8;
        match &id {
            b"fmt " => {
                if let Some(format) = bytes_at::<16>(source, body)? {
                    let word = |at: usize| u16::from_le_bytes([format[at], format[at + 1]]);
                    wav.shape = Some((word(2), u32::from(word(4)) | u32::from(word(6)) << 16));
                    block_align = Some(u64::from(word(12)));
                    // The names of the channels are of no use here, and the demuxer counts on them being right.
                    if word(0) == EXTENSIBLE && len >= 40 {
                        overwrite(source, body + 20, &[0; 4])?;
                    }
                }
            }
            b"ds64" if &magic != b"RIFF" => {
                let sizes = bytes_at::<16>(source, body)?;
                long_data = sizes.and_then(|sizes| sizes.last_chunk().copied()).map(u64::from_le_bytes);
            }
            // Titles and artists: nothing to gain, and a malformed list would end the file here.
            b"LIST" => overwrite(source, at, b"junk")?,
            b"data" => {
                if len == u32::MAX
                    && let Some(long) = long_data.filter(|&long| long != u64::MAX)
                {
                    source.end_at(body.saturating_add(long));
                    let frames = block_align.filter(|&align| align > 0).map(|align| long / align);
                    wav.length = frames.map_or(WavLength::Unknown, WavLength::Frames);
                    return Ok(wav);
                }
                let nothing_follows = riff_len == 0 || riff_len == u32::MAX || u64::from(riff_len) + 8 <= body;
                if len == 0 && nothing_follows {
                    overwrite(source, at + 4, &UNKNOWN)?;
                    wav.length = WavLength::Unknown;
                    return Ok(wav);
                }
                // What sox, arecord and others write into a pipe: about 2 or 4 GiB.
                let placeholder = (0x7fff_0000..=0x8000_0000).contains(&len) || len >= 0xffff_0000;
                if placeholder {
                    wav.length = WavLength::Unknown;
                }
                return Ok(wav);
            }
            _ => {}
        }
        at = body + u64::from(len) + u64::from(len & 1);
    }
    Ok(wav)
}

/// Name and length of the chunk at `at`.
fn chunk(source: &mut Source, at: u64) -> io::Result<Option<([u8; 4], u32)>> {
    Ok(bytes_at::<8>(source, at)?.map(|[a, b, c, d, len @ ..]| ([a, b, c, d], u32::from_le_bytes(len))))
}

fn bytes_at<const N: usize>(source: &mut Source, at: u64) -> io::Result<Option<[u8; N]>> {
    let Ok(at) = usize::try_from(at) else { return Ok(None) };
    Ok(source.peek(at + N)?.get(at..).and_then(|bytes| bytes.first_chunk().copied()))
}

fn overwrite(source: &mut Source, at: u64, bytes: &[u8; 4]) -> io::Result<()> {
    let Ok(at) = usize::try_from(at) else { return Ok(()) };
    if let Some(place) = source.peek(at + 4)?.get_mut(at..) {
        place.copy_from_slice(bytes);
    }
    Ok(())
}
