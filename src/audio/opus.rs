//! Opus packets to samples: the seam in front of the codec, one decoder a stream.
//!
//! In: whole packets as a container or RTP carries them, and the lengths of those that were lost.
//! Out: interleaved `f32` at the rate the decoder was made for, at most 120 ms a call.

use std::fmt;

use opus_pure::{OpusDecoder, OpusMSDecoder, OpusMode, packet};

/// Rates a decoder can be made for, in Hz: Opus decodes to any of them, whatever the sender's was.
pub const OPUS_RATES: [u32; 5] = [8_000, 12_000, 16_000, 24_000, 48_000];

/// Most channels of a stream: more than two are several streams in one packet, in Vorbis order (RFC 7845, 5.1.1.2).
pub const OPUS_MAX_CHANNELS: usize = 8;

/// Longest packet and longest concealment, in milliseconds (RFC 6716, 2.1.4).
const MAX_PACKET_MS: usize = 120;

/// Lengths that the codec conceals, in microseconds (its own frame lengths). With others `opus-pure` 0.2.2 panics, so
/// any length is made of these.
const CONCEALED_US: [u64; 4] = [2_500, 5_000, 10_000, 20_000];

/// Packets up to this long hold no sound: a sender in DTX says with them that nothing is to be heard. They are
/// concealed, which is comfort noise after silence, as libopus does; `opus-pure` 0.2.2 would decode their zero bits.
const DTX_BYTES: usize = 2;

/// What a decoder of packets refuses. The decoder stays usable: conceal, or go on with the next packet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PacketError {
    /// The decoder cannot be made.
    #[error(
        "Opus at {sample_rate} Hz with {channels} channels is not possible: 8000, 12000, 16000, 24000 or 48000 Hz and 1 to 8 channels are allowed"
    )]
    Shape {
        /// The rate asked for, in Hz.
        sample_rate: u32,
        /// The channel count asked for.
        channels: usize,
    },
    /// The packet is not what it should be: drop it and conceal its length.
    #[error("a packet of {bytes} bytes is damaged: {reason}")]
    Damaged {
        /// Its length.
        bytes: usize,
        /// What the codec found.
        reason: String,
    },
    /// The caller's buffer is too small. Nothing was decoded.
    #[error("the buffer holds {provided} samples, {needed} are needed")]
    Buffer {
        /// Samples of all channels that must fit.
        needed: usize,
        /// Samples that fit.
        provided: usize,
    },
    /// A concealment longer than a packet can be was asked for: ask in pieces.
    #[error("{frames} frames cannot be concealed at once: at most {most} are allowed")]
    TooLong {
        /// Frames asked for.
        frames: usize,
        /// Frames in 120 ms.
        most: usize,
    },
}

/// A decoder of one stream of packets. It keeps state from packet to packet: feed them in order, conceal what is lost.
///
/// A frame is one sample of each channel. The output may pass ±1 a little, as lossy codecs do; it is always finite.
pub trait PacketDecoder: Send + fmt::Debug {
    /// Rate of the output, in Hz.
    fn sample_rate(&self) -> u32;

    /// Channels of the output, interleaved.
    fn channels(&self) -> usize;

    /// Most frames that one call gives.
    fn max_frames(&self) -> usize;

    /// Frames that `packet` will give, without decoding it.
    ///
    /// # Errors
    /// [`PacketError::Damaged`] where its first bytes say nothing sensible.
    fn packet_frames(&self, packet: &[u8]) -> Result<usize, PacketError>;

    /// Decodes `packet` to the start of `output`, `[frames, channels]`, and says how many frames it gave.
    ///
    /// # Errors
    /// [`PacketError::Damaged`]; [`PacketError::Buffer`] where `output` is too small for this packet.
    fn decode(&mut self, packet: &[u8], output: &mut [f32]) -> Result<usize, PacketError>;

    /// Invents `frames` frames for a packet that was lost: a continuation of the last sound that fades away.
    ///
    /// # Errors
    /// [`PacketError::TooLong`] above [`max_frames`](Self::max_frames); [`PacketError::Buffer`].
    fn conceal(&mut self, frames: usize, output: &mut [f32]) -> Result<usize, PacketError>;

    /// Frames of sound before `next` that it carries a copy of (in-band FEC; RFC 6716, 2.1.7); 0 where none.
    fn fec_frames(&self, next: &[u8]) -> usize {
        let _ = next;
        0
    }

    /// Decodes the copy that `next` carries, where what lies before it was lost: [`fec_frames`](Self::fec_frames)
    /// frames. `next` itself is decoded afterwards, as always.
    ///
    /// # Errors
    /// [`PacketError::Damaged`]; [`PacketError::Buffer`].
    fn decode_fec(&mut self, next: &[u8], output: &mut [f32]) -> Result<usize, PacketError> {
        let _ = (next, output);
        Ok(0)
    }

    /// Forgets the stream: the next packet begins another one. The gain stays.
    fn reset(&mut self);
}

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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use opus_pure::{Application, OpusEncoder, OpusMSEncoder};

    /// 20 ms packets of a 440 Hz tone, mono.
    fn packets(count: usize, application: Application) -> Vec<Vec<u8>> {
        let mut encoder = OpusEncoder::new(48_000, 1, application).unwrap();
        encoder.bitrate_bps = 24_000;
        let mut buffer = vec![0; 4000];
        (0..count)
            .map(|packet| {
                let tone = tone(packet * 960, 960);
                let bytes = encoder.encode(&tone, 960, &mut buffer).unwrap();
                buffer[..bytes].to_vec()
            })
            .collect()
    }

    fn tone(from: usize, frames: usize) -> Vec<f32> {
        let phase = |frame: usize| frame as f32 * 440.0 * std::f32::consts::TAU / 48_000.0;
        (from..from + frames).map(|frame| 0.5 * phase(frame).sin()).collect()
    }

    fn level(samples: &[f32]) -> f32 {
        (samples.iter().map(|sample| sample * sample).sum::<f32>() / samples.len() as f32).sqrt()
    }

    #[test]
    fn decoders_can_move_to_another_thread() {
        fn check<T: Send + 'static>() {}
        check::<OpusPacketDecoder>();
        check::<Box<dyn PacketDecoder>>();
    }

    #[test]
    fn every_rate_and_channel_count_gives_the_packet_in_full() {
        let stream = packets(25, Application::Voip);
        for sample_rate in OPUS_RATES {
            for channels in [1, 2] {
                let mut decoder = OpusPacketDecoder::new(sample_rate, channels).unwrap();
                let mut output = vec![0.0; decoder.max_frames() * channels];
                for packet in &stream {
                    assert_eq!(decoder.packet_frames(packet).unwrap(), sample_rate as usize / 50);
                    let frames = decoder.decode(packet, &mut output).unwrap();
                    assert_eq!(frames, sample_rate as usize / 50);
                }
                let last = &output[..sample_rate as usize / 50 * channels];
                assert!((0.25..0.45).contains(&level(last)), "{sample_rate} Hz, {channels}: {}", level(last));
            }
        }
    }

    #[test]
    fn wrong_shapes_and_sizes_are_named() {
        for (sample_rate, channels) in [(44_100, 1), (0, 1), (48_000, 0), (48_000, 9)] {
            let error = OpusPacketDecoder::new(sample_rate, channels).unwrap_err();
            assert_eq!(error, PacketError::Shape { sample_rate, channels });
            assert!(error.to_string().contains("48000"));
        }
        let mut decoder = OpusPacketDecoder::new(48_000, 2).unwrap();
        let mut output = vec![0.0; 5760 * 2];
        assert!(matches!(decoder.decode(&[], &mut output), Err(PacketError::Damaged { bytes: 0, .. })));
        assert!(matches!(decoder.decode(&[0xff, 0xff], &mut output), Err(PacketError::Damaged { bytes: 2, .. })));
        let packet = &packets(1, Application::Audio)[0];
        assert_eq!(
            decoder.decode(packet, &mut output[..100]),
            Err(PacketError::Buffer { needed: 1920, provided: 100 })
        );
        assert_eq!(decoder.conceal(5761, &mut output), Err(PacketError::TooLong { frames: 5761, most: 5760 }));
        assert_eq!(decoder.conceal(0, &mut output), Ok(0));
    }

    #[test]
    fn a_loss_goes_on_with_the_sound_and_fades() {
        for application in [Application::Voip, Application::Audio] {
            let stream = packets(50, application);
            let mut decoder = OpusPacketDecoder::new(48_000, 1).unwrap();
            let mut output = vec![0.0; decoder.max_frames()];
            for packet in &stream[..25] {
                decoder.decode(packet, &mut output).unwrap();
            }
            let before = output[959];
            assert_eq!(decoder.conceal(960, &mut output), Ok(960));
            assert!((output[0] - before).abs() < 0.1, "{application:?}: {before} to {}", output[0]);
            assert!(level(&output[..960]) > 0.05, "{application:?}: {}", level(&output[..960]));
            let mut last = 1.0;
            for _ in 0..10 {
                assert_eq!(decoder.conceal(5760, &mut output), Ok(5760));
                last = level(&output);
            }
            assert!(last < 0.03, "{application:?}: {last}");
            // The stream recovers.
            for packet in &stream[35..] {
                decoder.decode(packet, &mut output).unwrap();
            }
            assert!((0.25..0.45).contains(&level(&output[..960])));
        }
    }

    #[test]
    fn a_reset_decoder_is_as_a_new_one() {
        let stream = packets(20, Application::Voip);
        let mut fresh = OpusPacketDecoder::new(16_000, 1).unwrap();
        let mut used = OpusPacketDecoder::new(16_000, 1).unwrap();
        let (mut a, mut b) = (vec![0.0; 1920], vec![0.0; 1920]);
        for packet in stream.iter().rev() {
            used.decode(packet, &mut b).unwrap();
        }
        used.reset();
        for packet in &stream {
            fresh.decode(packet, &mut a).unwrap();
            used.decode(packet, &mut b).unwrap();
            assert_eq!(a[..320], b[..320]);
        }
    }

    #[test]
    fn the_gain_is_in_256ths_of_a_decibel() {
        let stream = packets(20, Application::Audio);
        let mut plain = OpusPacketDecoder::new(48_000, 1).unwrap();
        let mut quiet = OpusPacketDecoder::new(48_000, 1).unwrap().with_gain_q8(-6 * 256);
        let (mut a, mut b) = (vec![0.0; 5760], vec![0.0; 5760]);
        for packet in &stream {
            plain.decode(packet, &mut a).unwrap();
            quiet.decode(packet, &mut b).unwrap();
        }
        let ratio = level(&b[..960]) / level(&a[..960]);
        assert!((ratio - 0.5012).abs() < 0.001, "{ratio}");
    }

    /// A voice: harmonics of a pitch that glides, in syllables.
    pub(in crate::audio) fn voice(from: usize, frames: usize) -> Vec<f32> {
        (from..from + frames)
            .map(|frame| {
                let t = frame as f32 / 48_000.0;
                let phase = std::f32::consts::TAU * (120.0 * t - 5.0 * (t * 3.0).cos());
                let pulse: f32 = (1..30).map(|harmonic| (phase * harmonic as f32).sin() / harmonic as f32).sum();
                0.2 * pulse * (0.6 + 0.4 * (t * 5.0 * std::f32::consts::TAU).sin())
            })
            .collect()
    }

    #[test]
    fn a_lost_packet_is_recovered_from_the_copy_in_the_next() {
        for (frames, channels, samples_48k) in [(160, 1, 480), (320, 1, 960), (960, 1, 2880), (320, 2, 960)] {
            let mut encoder = OpusEncoder::new(48_000, channels, Application::Voip).unwrap();
            encoder.bitrate_bps = 24_000;
            encoder.signal_type = Some(opus_pure::Signal::Voice);
            encoder.use_inband_fec = true;
            encoder.packet_loss_perc = 20;
            encoder.max_bandwidth = opus_pure::Bandwidth::Wideband;
            let mut buffer = vec![0; 4000];
            let stream: Vec<Vec<u8>> = (0..200)
                .map(|packet| {
                    let mono = voice(packet * samples_48k, samples_48k);
                    let pcm: Vec<f32> = mono.iter().flat_map(|&sample| vec![sample; channels]).collect();
                    let bytes = encoder.encode(&pcm, samples_48k, &mut buffer).unwrap();
                    buffer[..bytes].to_vec()
                })
                .collect();
            let (mut whole, mut recovering, mut concealing) = (
                OpusPacketDecoder::new(16_000, 1).unwrap(),
                OpusPacketDecoder::new(16_000, 1).unwrap(),
                OpusPacketDecoder::new(16_000, 1).unwrap(),
            );
            let (mut a, mut b) = (vec![0.0; 1920], vec![0.0; 1920]);
            let (mut recovered, mut invented, mut times) = (0.0, 0.0, 0);
            for (index, packet) in stream.iter().enumerate() {
                whole.decode(packet, &mut a).unwrap();
                let next = stream.get(index + 1).filter(|next| recovering.fec_frames(next) > 0);
                if let Some(next) = next.filter(|_| index % 5 == 4) {
                    assert_eq!(recovering.decode_fec(next, &mut b), Ok(frames));
                    let error = |b: &[f32]| level(&a[..frames].iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>());
                    recovered += error(&b[..frames]);
                    concealing.conceal(frames, &mut b).unwrap();
                    invented += error(&b[..frames]);
                    times += 1;
                } else {
                    recovering.decode(packet, &mut b).unwrap();
                    concealing.decode(packet, &mut b).unwrap();
                }
            }
            assert!(
                times >= 8 && recovered < 0.5 * invented,
                "{frames}, {channels}: {times} times, {recovered} to {invented}"
            );
        }
    }

    #[test]
    fn only_a_packet_that_carries_a_copy_is_asked_for_it() {
        let mut decoder = OpusPacketDecoder::new(16_000, 1).unwrap();
        let (silk_20, silk_60, hybrid_20, celt_20, stereo) = (9 << 3, 11 << 3, 15 << 3, 31 << 3, 4);
        for (packet, frames) in [
            (&[][..], 0),
            (&[silk_20], 0),
            (&[silk_20, 0xbf, 0xff], 0),
            (&[silk_20, 0x40, 0], 320),
            (&[hybrid_20, 0x40, 0], 320),
            (&[celt_20, 0xff, 0], 0),
            (&[silk_60, 0xef, 0], 0),
            (&[silk_60, 0x10, 0], 960),
            (&[silk_20, 0x10, 0], 0),
            (&[silk_20 | stereo, 0x10, 0], 320),
            (&[silk_60 | stereo, 0x01, 0], 960),
            (&[silk_20 | 1, 0x40, 0], 320),
            (&[silk_20 | 2, 1, 0x40, 0], 320),
            (&[silk_20 | 2, 0, 0x40, 0], 0),
            (&[silk_20 | 2, 252, 0, 0x40, 0], 320),
            (&[silk_20 | 3, 2, 0x40, 0], 320),
            (&[silk_20 | 3, 0x42, 2, 0x40, 0, 0, 0], 320),
            (&[silk_20 | 3, 0x41, 255, 3, 0x40, 0], 320),
            (&[silk_20 | 3, 0x83, 1, 1, 0x40, 0, 0], 320),
            (&[silk_20 | 3, 0x83, 0, 1, 0x40, 0], 0),
            (&[silk_20 | 3, 0x83], 0),
            (&[silk_20 | 3], 0),
        ] {
            assert_eq!(decoder.fec_frames(packet), frames, "{packet:x?}");
        }
        assert_eq!(decoder.decode_fec(&[celt_20, 0xff, 0], &mut []), Ok(0));
        assert_eq!(
            decoder.decode_fec(&[silk_20, 0x40, 0], &mut []),
            Err(PacketError::Buffer { needed: 320, provided: 0 })
        );
        assert_eq!(OpusPacketDecoder::new(48_000, 6).unwrap().fec_frames(&[silk_20, 0x40, 0]), 0);
    }

    #[test]
    fn a_packet_without_sound_is_quiet() {
        for application in [Application::Voip, Application::Audio] {
            let stream = packets(25, application);
            let mut decoder = OpusPacketDecoder::new(16_000, 1).unwrap();
            let mut output = vec![0.0; 1920];
            for packet in &stream {
                decoder.decode(packet, &mut output).unwrap();
            }
            for bytes in [1, 2] {
                for _ in 0..15 {
                    assert_eq!(decoder.decode(&stream[24][..bytes], &mut output), Ok(320));
                }
                assert!(level(&output[..320]) < 0.02, "{application:?}, {bytes}: {}", level(&output[..320]));
            }
        }
    }

    #[test]
    fn surround_decodes_and_conceals_each_channel() {
        let mut encoder = OpusMSEncoder::new(48_000, 6, 1, Application::Audio).unwrap();
        let mut decoder = OpusPacketDecoder::new(48_000, 6).unwrap();
        let mut buffer = vec![0; 20_000];
        let mut output = vec![0.0; 5760 * 6];
        for packet in 0..25 {
            // The tone in the second channel only.
            let pcm: Vec<f32> =
                tone(packet * 960, 960).iter().flat_map(|&sample| [0.0, sample, 0.0, 0.0, 0.0, 0.0]).collect();
            let bytes = encoder.encode(&pcm, 960, &mut buffer).unwrap();
            assert_eq!(decoder.decode(&buffer[..bytes], &mut output), Ok(960));
        }
        let levels = |output: &[f32]| -> Vec<f32> {
            (0..6).map(|channel| level(&output.iter().skip(channel).step_by(6).copied().collect::<Vec<_>>())).collect()
        };
        let decoded = levels(&output[..960 * 6]);
        assert!(
            decoded[1] > 0.2 && decoded.iter().enumerate().all(|(at, &level)| at == 1 || level < 0.05),
            "{decoded:?}"
        );
        decoder.conceal(960, &mut output).unwrap();
        let concealed = levels(&output[..960 * 6]);
        let loudest = (0..6).max_by(|&a, &b| concealed[a].total_cmp(&concealed[b]));
        assert!(loudest == Some(1) && concealed[1] > 0.05, "{concealed:?}");
    }

    /// Damaged packets are refused or decoded to something finite; never more than they may hold, never a panic.
    #[test]
    fn damaged_packets_do_no_harm() {
        let mut seed = 1_u64;
        let mut random = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        let stream = [packets(40, Application::Voip), packets(40, Application::Audio)].concat();
        for (rate, channels) in [(48_000, 1), (16_000, 1), (48_000, 2), (48_000, 3), (48_000, 6)] {
            let mut decoder = OpusPacketDecoder::new(rate, channels).unwrap();
            let mut output = vec![0.0; decoder.max_frames() * channels];
            for round in 0..3000 {
                let mut packet = stream[round % stream.len()].clone();
                for _ in 0..random() % 8 {
                    let at = random() as usize % packet.len();
                    packet[at] ^= 1 << (random() % 8);
                }
                if random().is_multiple_of(4) {
                    packet.truncate(random() as usize % packet.len());
                }
                if random().is_multiple_of(4)
                    && let Ok(frames) = decoder.decode_fec(&packet, &mut output)
                {
                    assert_eq!(frames, decoder.fec_frames(&packet));
                    assert!(output[..frames * channels].iter().all(|sample| sample.is_finite()));
                }
                match decoder.decode(&packet, &mut output) {
                    Ok(frames) => assert!(output[..frames * channels].iter().all(|sample| sample.is_finite())),
                    Err(_) => {
                        decoder.conceal(random() as usize % (rate as usize * 120 / 1000 + 1), &mut output).unwrap();
                        assert!(output.iter().all(|sample| sample.is_finite()));
                    }
                }
            }
        }
    }
}
