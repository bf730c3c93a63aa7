//! The one track of a file that is heard: which one, its decoder, what is cut off, and its clock.
//!
//! In: the demuxer's tracks and packets. Out: decoded frames, and the length of those that cannot be decoded.

use opus_pure::ChannelLayout;
use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::well_known::*;
use symphonia::core::codecs::audio::{AudioCodecId, AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::formats::{FormatReader, Track as Found, TrackFlags};
use symphonia::core::meta::RawValue;
use symphonia::core::packet::Packet;
use symphonia::core::units::TimeBase;

use super::guard;
use super::mp4::{Edit, itunes_gapless};
use super::riff::WavLength;
use super::trim::Trim;
use super::{Container, FileError, MAX_CHANNELS, MAX_SAMPLE_RATE, MIN_SAMPLE_RATE};
use crate::audio::opus::{OpusPacketDecoder, PacketDecoder};

/// Opus is decoded at the rate in which its delay and its timestamps are counted (RFC 7845, 4), in Hz.
const OPUS_RATE: u32 = 48_000;
/// Frames behind an MP3's declared end that are padding; more are audio that its header does not count. The header
/// has room for 4095 (LAME tag), and the last frame of 1152 may lie wholly behind the end.
const MOST_MP3_PADDING: usize = 4095 + 1152;

/// What was learnt before the demuxer took over.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) wav_length: WavLength,
    pub(super) edits: Vec<Edit>,
}

/// Rate and channel count of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) sample_rate: u32,
    pub(super) channels: usize,
}

impl Shape {
    pub(super) fn check(self, name: &str) -> Result<Self, FileError> {
        let Self { sample_rate, channels } = self;
        if (1..=MAX_CHANNELS).contains(&channels) && (MIN_SAMPLE_RATE..=MAX_SAMPLE_RATE).contains(&sample_rate) {
            return Ok(self);
        }
        Err(FileError::Shape { name: name.to_owned(), channels, sample_rate })
    }
}

enum Codec {
    Opus { decoder: Box<dyn PacketDecoder>, buffer: Vec<f32> },
    Other(Box<dyn AudioDecoder>),
}

/// The selected track.
pub(super) struct Track {
    pub(super) id: u32,
    pub(super) trim: Trim,
    /// Frames that the container declares, without delay and padding.
    pub(super) declared_frames: Option<u64>,
    /// As declared, and then as decoded.
    pub(super) shape: Shape,
    codec: Codec,
    time_base: Option<TimeBase>,
    /// Frames of the last good packet.
    last_frames: u64,
    /// Timestamp of the first packet, in frames.
    origin: Option<i128>,
    /// Frames decoded or replaced by silence since then.
    elapsed: u64,
}

impl Track {
    /// The default track, or else the first, of those whose codec is supported.
    pub(super) fn select(
        name: &str,
        container: Container,
        format: &mut dyn FormatReader,
        facts: &Facts,
    ) -> Result<Self, FileError> {
        let mut candidates: Vec<(Found, AudioCodecParameters)> = format
            .tracks()
            .iter()
            .filter_map(|track| match &track.codec_params {
                Some(CodecParameters::Audio(params)) => Some((track.clone(), params.clone())),
                _ => None,
            })
            .collect();
        candidates.sort_by_key(|(track, _)| !track.flags.contains(TrackFlags::DEFAULT));
        let mut refusal = None;
        for (track, params) in &candidates {
            match Self::open(container, track, params) {
                Ok(mut opened) => {
                    opened.measure(container, format, track, params, facts);
                    return Ok(opened);
                }
                Err(codec) => refusal = refusal.or(Some(codec)),
            }
        }
        let name = name.to_owned();
        Err(match refusal {
            Some(codec) => FileError::UnsupportedCodec { name, container, codec },
            None => FileError::NoAudioTrack { name, container },
        })
    }

    /// The error says which codec it is that cannot be decoded.
    fn open(container: Container, track: &Found, params: &AudioCodecParameters) -> Result<Self, String> {
        let channels = params.channels.as_ref().map_or(0, |channels| channels.count());
        let mut shape = Shape { sample_rate: params.sample_rate.unwrap_or(0), channels };
        let codec = if params.codec == CODEC_ID_OPUS {
            let head = OpusHead::read(params.extra_data.as_deref(), channels, container)?;
            let decoder = OpusPacketDecoder::new(OPUS_RATE, head.channels).map_err(|error| error.to_string())?;
            shape = Shape { sample_rate: OPUS_RATE, channels: head.channels };
            let decoder = decoder.with_gain_q8(head.gain_q8);
            let buffer = vec![0.0; decoder.max_frames() * head.channels];
            Codec::Opus { decoder: Box::new(decoder), buffer }
        } else {
            // MP3 is trimmed here: the demuxer believes a header that counts only the first of several joined files.
            let options = AudioDecoderOptions::default().gapless(container != Container::Mpeg);
            let decoder = guard(|| symphonia::default::get_codecs().make_audio_decoder(params, &options))
                .map_err(|error| format!("{} ({error})", codec_name(params.codec)))?;
            Codec::Other(decoder)
        };
        Ok(Self {
            id: track.id,
            trim: Trim::default(),
            declared_frames: None,
            shape,
            codec,
            time_base: track.time_base,
            last_frames: 0,
            origin: None,
            elapsed: 0,
        })
    }

    /// Finds out where the audio begins and ends.
    fn measure(
        &mut self,
        container: Container,
        format: &mut dyn FormatReader,
        track: &Found,
        params: &AudioCodecParameters,
        facts: &Facts,
    ) {
        let opus = matches!(self.codec, Codec::Opus { .. });
        let pre_skip = if opus {
            OpusHead::read(params.extra_data.as_deref(), 1, container).map_or(0, |head| head.pre_skip)
        } else {
            0
        };
        let in_frames = |ticks: u64, time_base: Option<TimeBase>| {
            let frames = frames_of(i128::from(ticks), time_base?, self.shape.sample_rate);
            u64::try_from(frames).ok().filter(|&frames| frames > 0)
        };
        let track_len = track.duration.and_then(|len| in_frames(len.get(), track.time_base));
        match container {
            Container::Wav => {
                self.declared_frames = match facts.wav_length {
                    WavLength::Unknown => None,
                    WavLength::Frames(frames) => Some(frames),
                    WavLength::AsDemuxed => track.num_frames,
                };
            }
            Container::Aiff | Container::Flac => self.declared_frames = track.num_frames,
            Container::Mpeg => {
                self.declared_frames = track.num_frames;
                self.trim = Trim::skip(u64::from(track.delay.unwrap_or(0)));
                if let Some(len) = track.num_frames {
                    self.trim = std::mem::take(&mut self.trim).soft_end(len, MOST_MP3_PADDING);
                }
            }
            Container::Adts => {}
            Container::Ogg => {
                self.trim = Trim::skip(pre_skip);
                self.declared_frames = track.num_frames.and_then(|frames| frames.checked_sub(pre_skip));
            }
            Container::Matroska => {
                self.trim = Trim::skip(pre_skip);
                let media = *format.media_info();
                self.declared_frames = media.duration.and_then(|len| in_frames(len.get(), media.time_base));
            }
            Container::Mp4 => {
                let edit = facts.edits.iter().find(|edit| edit.track_id == self.id);
                let (skip, len) = match edit.and_then(|edit| edited(edit, track_len, self.shape.sample_rate)) {
                    Some(found) => found,
                    None => match gapless_comment(format).filter(|_| params.codec == CODEC_ID_AAC) {
                        Some((delay, len)) => (delay, Some(len)),
                        None => (pre_skip, track_len.map(|len| len.saturating_sub(pre_skip))),
                    },
                };
                self.trim = Trim::skip(skip);
                if let Some(len) = len {
                    self.trim = std::mem::take(&mut self.trim).hard_end(len);
                }
                self.declared_frames = len;
            }
        }
    }

    /// Decodes `packet` to `out`, `[frames, channels]`; the error says why it cannot be.
    pub(super) fn decode(&mut self, packet: &Packet, out: &mut Vec<f32>) -> Result<Shape, String> {
        out.clear();
        let shape = match &mut self.codec {
            Codec::Opus { decoder, buffer } => {
                let frames = decoder.decode(&packet.data, buffer).map_err(|error| error.to_string())?;
                // Ogg says with the last page how much of it is padding.
                let padding = usize::try_from(packet.trim_end.get()).unwrap_or(frames).min(frames);
                out.extend_from_slice(&buffer[..(frames - padding) * decoder.channels()]);
                Shape { sample_rate: decoder.sample_rate(), channels: decoder.channels() }
            }
            Codec::Other(decoder) => {
                let decoded = guard(|| decoder.decode(packet)).map_err(|error| error.to_string())?;
                let spec = decoded.spec();
                let shape = Shape { sample_rate: spec.rate(), channels: spec.channels().count() };
                // Refused by the caller, and not worth the copy.
                if shape.channels <= MAX_CHANNELS {
                    decoded.copy_to_vec_interleaved::<f32>(out);
                }
                for sample in out.iter_mut() {
                    if !sample.is_finite() {
                        *sample = 0.0;
                    }
                }
                shape
            }
        };
        let frames = (out.len() / shape.channels.max(1)) as u64;
        if frames > 0 {
            self.last_frames = frames;
            self.shape = shape;
        }
        Ok(shape)
    }

    /// Frames that a packet would have given.
    pub(super) fn frames_lost(&self, packet: &Packet) -> u64 {
        let told = match &self.codec {
            Codec::Opus { decoder, .. } => decoder.packet_frames(&packet.data).ok().map(|frames| frames as u64),
            Codec::Other(_) => self.time_base.and_then(|time_base| {
                u64::try_from(frames_of(i128::from(packet.block_dur().get()), time_base, self.shape.sample_rate)).ok()
            }),
        };
        // Nothing is longer than FLAC's longest block.
        told.filter(|&frames| frames > 0).unwrap_or(self.last_frames).min(65_536)
    }

    /// Frames between the end of what was decoded and the start of `packet`, as far as the container's clock tells.
    pub(super) fn hole_before(&mut self, container: Container, packet: &Packet) -> u64 {
        let tolerance = match container {
            Container::Flac => 0,
            // Clocks in milliseconds that live recorders set by the arrival of the sound.
            Container::Ogg | Container::Matroska => u64::from(self.shape.sample_rate) / 10,
            // Their packets carry no times of their own.
            _ => return 0,
        };
        let Some(time_base) = self.time_base else { return 0 };
        let at = frames_of(i128::from(packet.pts.get()), time_base, self.shape.sample_rate);
        let origin = *self.origin.get_or_insert(at);
        let hole = u64::try_from(at - origin - i128::from(self.elapsed)).unwrap_or(0);
        if hole > tolerance { hole } else { 0 }
    }

    /// Counts frames on the container's clock.
    pub(super) fn elapse(&mut self, frames: u64) {
        self.elapsed = self.elapsed.saturating_add(frames);
    }

    /// Believes the clock of the next packet, whatever it says.
    pub(super) fn restart_clock(&mut self) {
        self.origin = None;
        self.elapsed = 0;
    }
}

/// Ticks to frames at `rate` Hz, to the nearest.
fn frames_of(ticks: i128, time_base: TimeBase, rate: u32) -> i128 {
    let denominator = i128::from(time_base.denom.get());
    // What a file says may be anything.
    let scaled = ticks.saturating_mul(i128::from(time_base.numer.get())).saturating_mul(i128::from(rate));
    scaled.saturating_add(denominator / 2).div_euclid(denominator)
}

/// First frame and count of those that an edit list leaves; `track_len` is the length of all of them.
fn edited(edit: &Edit, track_len: Option<u64>, rate: u32) -> Option<(u64, Option<u64>)> {
    let media = TimeBase::try_new(1, edit.media_timescale)?;
    let skip = u64::try_from(frames_of(i128::from(edit.media_start), media, rate)).ok()?;
    let to_the_end = track_len.map(|len| len.saturating_sub(skip));
    let movie = TimeBase::try_new(1, edit.movie_timescale).filter(|_| edit.movie_len > 0);
    let Some(movie) = movie else { return Some((skip, to_the_end)) };
    let len = u64::try_from(frames_of(i128::from(edit.movie_len), movie, rate)).ok()?;
    // The movie's clock is often one of milliseconds; where both say the same, the track's says it exactly.
    let tick = u64::try_from(frames_of(1, movie, rate)).unwrap_or(0) + 1;
    let len = match to_the_end {
        Some(exact) if exact.abs_diff(len) <= tick || exact < len => exact,
        _ => len,
    };
    Some((skip, Some(len)))
}

fn gapless_comment(format: &mut dyn FormatReader) -> Option<(u64, u64)> {
    let mut metadata = format.metadata();
    let revision = metadata.skip_to_latest()?;
    revision.media.tags.iter().find_map(|tag| match &tag.raw.value {
        RawValue::String(comment) if tag.raw.key.ends_with("iTunSMPB") => itunes_gapless(comment),
        _ => None,
    })
}

/// What a stream's first packet says about decoding it (RFC 7845, 5.1).
#[derive(Debug, PartialEq, Eq)]
struct OpusHead {
    channels: usize,
    /// Frames at 48 kHz that the decoder gives before the recording begins.
    pre_skip: u64,
    gain_q8: i16,
}

impl OpusHead {
    /// A container may leave the header out; then `channels` is all that is known.
    fn read(header: Option<&[u8]>, channels: usize, container: Container) -> Result<Self, String> {
        let Some(header) = header.filter(|header| header.len() >= 19 && header.starts_with(b"OpusHead")) else {
            return Ok(Self { channels: channels.clamp(1, 2), pre_skip: 0, gain_q8: 0 });
        };
        let channels = usize::from(header[9]);
        let family = header[18];
        let layout = ChannelLayout::surround(channels, family)
            .map_err(|_| format!("Opus with {channels} channels in mapping family {family}"))?;
        let streams = [layout.nb_streams as u8, layout.nb_coupled_streams as u8];
        if family != 0
            && (header.get(19..21) != Some(&streams) || header.get(21..21 + channels) != Some(&layout.mapping))
        {
            return Err(format!("Opus with {channels} channels in an unusual order"));
        }
        // MP4 has the same fields with the high byte first; the demuxer passes them on as they are.
        let word = |at: usize| match container {
            Container::Mp4 => u16::from_be_bytes([header[at], header[at + 1]]),
            _ => u16::from_le_bytes([header[at], header[at + 1]]),
        };
        Ok(Self { channels, pre_skip: u64::from(word(10)), gain_q8: word(16) as i16 })
    }
}

fn codec_name(codec: AudioCodecId) -> &'static str {
    match codec {
        CODEC_ID_AAC => "this kind of AAC: only AAC-LC in mono or stereo",
        CODEC_ID_AC3 => "AC-3",
        CODEC_ID_AC4 => "AC-4",
        CODEC_ID_ALAC => "this kind of ALAC",
        CODEC_ID_DCA => "DTS",
        CODEC_ID_EAC3 => "E-AC-3",
        CODEC_ID_FLAC => "this kind of FLAC",
        CODEC_ID_MP1 => "MPEG audio layer I",
        CODEC_ID_MP2 => "MPEG audio layer II",
        CODEC_ID_TRUEHD => "TrueHD",
        CODEC_ID_VORBIS => "this kind of Vorbis",
        CODEC_ID_WAVPACK => "WavPack",
        CODEC_ID_WMA => "Windows Media Audio",
        _ => "its codec",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_is_as_exact_as_the_track_where_both_agree() {
        let edit = |movie_len| Edit {
            track_id: 1,
            media_start: 1024,
            media_timescale: 16_000,
            movie_len,
            movie_timescale: 1000,
        };
        for (movie_len, track_len, expected) in [
            (1698, Some(1024 + 27_166), (1024, Some(27_166))),
            (1698, None, (1024, Some(27_168))),
            (0, Some(5024), (1024, Some(4000))),
            (100, Some(1024 + 27_168), (1024, Some(1600))),
            (9000, Some(1024 + 27_168), (1024, Some(27_168))),
        ] {
            assert_eq!(edited(&edit(movie_len), track_len, 16_000), Some(expected), "{movie_len} {track_len:?}");
        }
    }

    #[test]
    fn opus_headers_tell_delay_gain_and_order() {
        let head = |channels: u8, family: u8, rest: &[u8]| {
            let fixed =
                [&b"OpusHead\x01"[..], &[channels, 0x38, 0x01], &48_000_u32.to_le_bytes(), &[0x00, 0xff, family]];
            [&fixed.concat(), rest].concat()
        };
        assert_eq!(
            OpusHead::read(Some(&head(2, 0, &[])), 1, Container::Ogg),
            Ok(OpusHead { channels: 2, pre_skip: 312, gain_q8: -256 })
        );
        assert_eq!(
            OpusHead::read(Some(&head(6, 1, &[4, 2, 0, 4, 1, 2, 3, 5])), 1, Container::Ogg).unwrap().channels,
            6
        );
        assert_eq!(OpusHead::read(None, 7, Container::Matroska), Ok(OpusHead { channels: 2, pre_skip: 0, gain_q8: 0 }));
        for (bad, part) in [
            (head(3, 0, &[]), "3 channels"),
            (head(0, 0, &[]), "0 channels"),
            (head(6, 1, &[4, 2, 5, 4, 1, 2, 3, 0]), "order"),
            (head(6, 1, &[4]), "order"),
            (head(4, 255, &[4, 0, 0, 1, 2, 3]), "family 255"),
        ] {
            assert!(OpusHead::read(Some(&bad), 1, Container::Ogg).unwrap_err().contains(part));
        }
    }
}
