//! [`PacketDecoder`] over the codec, which conceals what the codec cannot.
//!
//! In: packets, lengths of losses. Out: finite samples, as the trait says.

use opus_pure::{OpusDecoder, OpusMSDecoder, OpusMode, packet};

use super::{OPUS_MAX_CHANNELS, OPUS_RATES, PacketDecoder, PacketError};

/// Longest packet and longest concealment, in milliseconds (RFC 6716, 2.1.4).
const MAX_PACKET_MS: usize = 120;

/// Lengths that the codec conceals, in microseconds (its own frame lengths). With others `opus-pure` 0.2.2 panics, so
/// any length is made of these.
const CONCEALED_US: [u64; 4] = [2_500, 5_000, 10_000, 20_000];

/// Packets up to this long hold no sound: a sender in DTX says with them that nothing is to be heard. They are
/// concealed, which is comfort noise after silence, as libopus does; `opus-pure` 0.2.2 would decode their zero bits.
const DTX_BYTES: usize = 2;

/// [`PacketDecoder`] for Opus (RFC 6716).
#[derive(Debug)]
pub struct OpusPacketDecoder {
    codec: Codec,
    sample_rate: u32,
    channels: usize,
    /// A piece of concealment, `[frames, channels]`.
    scratch: Vec<f32>,
}

#[derive(Debug)]
enum Codec {
    Plain(Box<OpusDecoder>),
    Surround(OpusMSDecoder),
}

impl OpusPacketDecoder {
    /// A decoder whose output has `sample_rate` and `channels`; neither needs to be the sender's where it is mono or
    /// stereo. More than two channels are decoded as the surround streams of RFC 7845 (mapping family 1).
    ///
    /// # Errors
    /// [`PacketError::Shape`] for a rate outside [`OPUS_RATES`] or a channel count outside 1 to [`OPUS_MAX_CHANNELS`].
    pub fn new(sample_rate: u32, channels: usize) -> Result<Self, PacketError> {
        let refused = PacketError::Shape { sample_rate, channels };
        if !OPUS_RATES.contains(&sample_rate) || !(1..=OPUS_MAX_CHANNELS).contains(&channels) {
            return Err(refused);
        }
        let rate = sample_rate as i32;
        let codec = if channels <= 2 {
            OpusDecoder::new(rate, channels).map(|decoder| Codec::Plain(Box::new(decoder)))
        } else {
            OpusMSDecoder::new(rate, channels, 1).map(Codec::Surround)
        };
        let scratch = Vec::with_capacity(sample_rate as usize / 50 * channels);
        Ok(Self { codec: codec.map_err(|_| refused)?, sample_rate, channels, scratch })
    }

    /// Applies the gain that a file's header asks for, in 1/256 dB (RFC 7845, 5.1).
    #[must_use]
    pub fn with_gain_q8(mut self, gain_q8: i16) -> Self {
        match &mut self.codec {
            Codec::Plain(decoder) => decoder.gain_q8 = i32::from(gain_q8),
            Codec::Surround(decoder) => {
                for stream in decoder.streams_mut() {
                    stream.gain_q8 = i32::from(gain_q8);
                }
            }
        }
        self
    }

    fn room<'a>(&self, frames: usize, output: &'a mut [f32]) -> Result<&'a mut [f32], PacketError> {
        let needed = frames * self.channels;
        let provided = output.len();
        output.get_mut(..needed).ok_or(PacketError::Buffer { needed, provided })
    }

    fn run(&mut self, packet: &[u8], frames: usize, output: &mut [f32]) -> Result<usize, PacketError> {
        let given = match &mut self.codec {
            Codec::Plain(decoder) => decoder.decode(packet, frames, output),
            Codec::Surround(decoder) if packet.is_empty() => conceal_surround(decoder, frames, output),
            Codec::Surround(decoder) => decoder.decode(packet, frames, output),
        };
        self.finish(packet, given, frames, output)
    }

    fn finish(
        &self,
        packet: &[u8],
        given: opus_pure::Result<usize>,
        frames: usize,
        output: &mut [f32],
    ) -> Result<usize, PacketError> {
        let frames = given.map_err(|error| damaged(packet, &error))?.min(frames);
        // Behind this seam nobody expects a NaN; a damaged packet may drive the filters there.
        for sample in &mut output[..frames * self.channels] {
            if !sample.is_finite() {
                *sample = 0.0;
            }
        }
        Ok(frames)
    }
}

fn damaged(packet: &[u8], error: &opus_pure::Error) -> PacketError {
    PacketError::Damaged { bytes: packet.len(), reason: error.to_string() }
}

/// Whether `packet` has the bits set that announce a copy of what lies before it (LBRR): they are the first of the first
/// frame, behind one for voice activity each 20 ms, for one or two channels, and each is worth a whole bit to the range
/// coder, so they can be read off (RFC 6716, 4.2.4).
fn has_lbrr(packet: &[u8]) -> bool {
    let has_speech_layer = packet::mode(packet).is_ok_and(|mode| mode != OpusMode::CeltOnly);
    let (Ok(samples), Some(flags)) = (packet::samples_per_frame(packet, 48_000), first_frame_byte(packet)) else {
        return false;
    };
    // One to three: the speech layer has no frames above 60 ms.
    let voice_flags = (samples / 960).max(1);
    let mid = 0x80 >> voice_flags;
    let side = if packet::channels(packet).is_ok_and(|channels| channels == 2) { mid >> (voice_flags + 1) } else { 0 };
    has_speech_layer && flags & (mid | side) != 0
}

/// The first byte of the packet's first frame (RFC 6716, 3.2); `None` where that is empty or lies behind the end.
fn first_frame_byte(packet: &[u8]) -> Option<u8> {
    let (&toc, mut rest) = packet.split_first()?;
    let mut lengths = usize::from(toc & 3 == 2);
    if toc & 3 == 3 {
        let (&count, after) = rest.split_first()?;
        rest = after;
        let mut padded = count & 0x40 != 0;
        while padded {
            let (&padding, after) = rest.split_first()?;
            rest = after;
            padded = padding == 255;
        }
        lengths = if count & 0x80 == 0 { 0 } else { usize::from(count & 0x3f).saturating_sub(1) };
    }
    for index in 0..lengths {
        let &length = rest.first()?;
        if index == 0 && length == 0 {
            return None;
        }
        rest = rest.get(if length < 252 { 1 } else { 2 }..)?;
    }
    rest.first().copied()
}

/// The library's surround decoder takes no empty packets: every stream conceals on its own, in the order of its layout.
fn conceal_surround(decoder: &mut OpusMSDecoder, frames: usize, output: &mut [f32]) -> opus_pure::Result<usize> {
    let layout = decoder.layout().clone();
    let mut stream_output = vec![0.0_f32; frames * 2];
    output.fill(0.0);
    for (index, stream) in decoder.streams_mut().iter_mut().enumerate() {
        let coupled = index < layout.nb_coupled_streams;
        let width = if coupled { 2 } else { 1 };
        let first = if coupled { 2 * index } else { layout.nb_coupled_streams + index };
        stream.decode(&[], frames, &mut stream_output)?;
        for (channel, &source) in layout.mapping.iter().enumerate() {
            let Some(offset) = usize::from(source).checked_sub(first).filter(|&offset| offset < width) else {
                continue;
            };
            for (frame, given) in output.chunks_exact_mut(layout.nb_channels).zip(stream_output.chunks_exact(width)) {
                frame[channel] = given[offset];
            }
        }
    }
    Ok(frames)
}

impl PacketDecoder for OpusPacketDecoder {
    fn sample_rate(&self) -> u32 {
        self.sample_rate
    }

    fn channels(&self) -> usize {
        self.channels
    }

    fn max_frames(&self) -> usize {
        self.sample_rate as usize * MAX_PACKET_MS / 1000
    }

    fn packet_frames(&self, packet: &[u8]) -> Result<usize, PacketError> {
        packet::samples(packet, self.sample_rate as i32).map_err(|error| damaged(packet, &error))
    }

    fn decode(&mut self, packet: &[u8], output: &mut [f32]) -> Result<usize, PacketError> {
        // An empty packet would mean "lost" to the codec; here a loss is always said aloud, with its length.
        let frames = self.packet_frames(packet)?;
        let output = self.room(frames, output)?;
        if packet.len() <= DTX_BYTES && matches!(self.codec, Codec::Plain(_)) {
            return self.conceal(frames, output);
        }
        self.run(packet, frames, output)
    }

    fn conceal(&mut self, frames: usize, output: &mut [f32]) -> Result<usize, PacketError> {
        let most = self.max_frames();
        if frames > most {
            return Err(PacketError::TooLong { frames, most });
        }
        self.room(frames, output)?;
        let sizes = CONCEALED_US.map(|us| (u64::from(self.sample_rate) * us / 1_000_000) as usize);
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut done = 0;
        while done < frames {
            let piece = (frames - done).min(sizes[3]);
            let size = sizes.into_iter().find(|&size| size >= piece).unwrap_or(sizes[3]);
            scratch.resize(size * self.channels, 0.0);
            self.run(&[], size, &mut scratch)?;
            let samples = piece * self.channels;
            output[done * self.channels..][..samples].copy_from_slice(&scratch[..samples]);
            done += piece;
        }
        self.scratch = scratch;
        Ok(frames)
    }

    fn fec_frames(&self, next: &[u8]) -> usize {
        let carries = matches!(self.codec, Codec::Plain(_)) && has_lbrr(next) && self.packet_frames(next).is_ok();
        if !carries {
            return 0;
        }
        packet::samples_per_frame(next, self.sample_rate as i32).unwrap_or(0)
    }

    fn decode_fec(&mut self, next: &[u8], output: &mut [f32]) -> Result<usize, PacketError> {
        let frames = self.fec_frames(next);
        let output = self.room(frames, output)?;
        let given = match &mut self.codec {
            Codec::Plain(decoder) if frames > 0 => decoder.decode_fec(next, frames, output),
            _ => Ok(0),
        };
        self.finish(next, given, frames, output)
    }

    fn reset(&mut self) {
        // The library's reset has no way to fail; its signature only says so.
        let _ = match &mut self.codec {
            Codec::Plain(decoder) => decoder.reset_state(),
            Codec::Surround(decoder) => decoder.reset_state(),
        };
    }
}
