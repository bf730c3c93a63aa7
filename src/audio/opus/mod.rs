//! Opus packets to samples: the seam in front of the codec, one decoder a stream.
//!
//! In: whole packets as a container or RTP carries them, and the lengths of those that were lost.
//! Out: interleaved `f32` at the rate the decoder was made for, at most 120 ms a call.

use std::fmt;

mod decoder;
#[cfg(test)]
pub(super) mod tests;

pub use decoder::OpusPacketDecoder;

/// Rates a decoder can be made for, in Hz: Opus decodes to any of them, whatever the sender's was.
pub const OPUS_RATES: [u32; 5] = [8_000, 12_000, 16_000, 24_000, 48_000];

/// Most channels of a stream: more than two are several streams in one packet, in Vorbis order (RFC 7845, 5.1.1.2).
pub const OPUS_MAX_CHANNELS: usize = 8;

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
