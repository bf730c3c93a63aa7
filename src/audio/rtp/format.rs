//! What a stream's payloads hold.
//!
//! In: codec, clock rate and channels, as a session description has them. Out: a format that can be decoded, or an error that
//! names what is allowed.

use opus_pure::packet;

use crate::audio::check_rate;
use crate::time::nanos_of_samples;

/// Most channels of a stream.
pub const MAX_RTP_CHANNELS: usize = 8;
/// The rate of RTP timestamps of Opus, whatever the sender's rate (RFC 7587, 4.1).
const OPUS_RATE: u32 = 48_000;

/// How samples are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RtpCodec {
    /// Opus (RFC 7587).
    Opus,
    /// G.711 with the μ-law (RFC 3551, 4.5.14).
    Pcmu,
    /// G.711 with the A-law (RFC 3551, 4.5.14).
    Pcma,
    /// Signed 16-bit samples, big-endian (RFC 3551, 4.5.11).
    L16,
}

/// How a stream's payloads are coded, and what its timestamps count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RtpFormat {
    codec: RtpCodec,
    clock_rate: u32,
    channels: u8,
}

/// There is no such format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// Opus has one clock rate.
    #[error("Opus with a clock rate of {0} Hz: allowed is 48000, whatever the sender's rate")]
    OpusRate(u32),
    /// A rate that is not understood.
    #[error("a clock rate of {0} Hz: allowed are 8000 – 192000")]
    Rate(u32),
    /// None, or too many.
    #[error("{channels} channels: allowed are 1 – {most}")]
    Channels {
        /// How many were asked for.
        channels: usize,
        /// How many may be.
        most: usize,
    },
}

impl RtpFormat {
    /// Opus, mono or stereo: each packet says which.
    pub const OPUS: Self = Self { codec: RtpCodec::Opus, clock_rate: OPUS_RATE, channels: 1 };

    /// A format of `channels` interleaved channels whose timestamps count at `clock_rate` Hz.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn new(codec: RtpCodec, clock_rate: u32, channels: usize) -> Result<Self, FormatError> {
        let most = if codec == RtpCodec::Opus { 2 } else { MAX_RTP_CHANNELS };
        if !(1..=most).contains(&channels) {
            return Err(FormatError::Channels { channels, most });
        }
        match codec {
            RtpCodec::Opus if clock_rate != OPUS_RATE => Err(FormatError::OpusRate(clock_rate)),
            RtpCodec::Opus => Ok(Self::OPUS),
            _ => {
                let clock_rate = check_rate(clock_rate).map_err(|_| FormatError::Rate(clock_rate))?;
                Ok(Self { codec, clock_rate, channels: channels as u8 })
            }
        }
    }

    /// How samples are coded.
    #[must_use]
    pub fn codec(self) -> RtpCodec {
        self.codec
    }

    /// Ticks a second of the RTP timestamp, in Hz: but for Opus, the samples a second too.
    #[must_use]
    pub fn clock_rate(self) -> u32 {
        self.clock_rate
    }

    /// Interleaved channels; of Opus 1, as each packet says its own.
    #[must_use]
    pub fn channels(self) -> usize {
        self.channels.into()
    }

    /// Bytes of one sample of all channels; 0 of Opus.
    pub(super) fn frame_bytes(self) -> usize {
        match self.codec {
            RtpCodec::Opus => 0,
            RtpCodec::Pcmu | RtpCodec::Pcma => self.channels(),
            RtpCodec::L16 => 2 * self.channels(),
        }
    }

    /// How long a payload lasts, in nanoseconds: an empty one, which is padding, not at all. `None`: it is not of this format.
    #[must_use]
    pub fn payload_nanos(self, payload: &[u8]) -> Option<i64> {
        let ticks = match self.codec {
            _ if payload.is_empty() => 0,
            RtpCodec::Opus => packet::samples(payload, OPUS_RATE as i32).ok()?,
            _ if payload.len().is_multiple_of(self.frame_bytes()) => payload.len() / self.frame_bytes(),
            _ => return None,
        };
        Some(nanos_of_samples(ticks as u64, self.clock_rate))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn payloads_tell_how_long_they_last() {
        let ms = |ms: f64| Some((ms * 1e6) as i64);
        for (payload, lasts) in [
            (&[0b0100_1000_u8][..], ms(20.0)),        // SILK, wideband, 20 ms
            (&[0b1111_1000], ms(20.0)),               // CELT, fullband, 20 ms
            (&[0b1110_0001], ms(5.0)),                // CELT, 2.5 ms, twice
            (&[0b1111_1011, 0b0000_0110], ms(120.0)), // six of 20 ms
            (&[0b1111_1011, 0b0000_0111], None),      // 140 ms
            (&[0b1111_1011], None),
            (&[], Some(0)),
        ] {
            assert_eq!(RtpFormat::OPUS.payload_nanos(payload), lasts, "{payload:02x?}");
        }
        let stereo = RtpFormat::new(RtpCodec::L16, 16_000, 2).unwrap();
        for (format, bytes, lasts) in [
            (RtpFormat::new(RtpCodec::Pcmu, 8_000, 1).unwrap(), 160, ms(20.0)),
            (stereo, 1280, ms(20.0)),
            (stereo, 1279, None),
            (stereo, 0, Some(0)),
        ] {
            assert_eq!(format.payload_nanos(&vec![0; bytes]), lasts, "{format:?}, {bytes}");
        }
    }

    #[test]
    fn formats_that_cannot_be_are_refused_with_what_is_allowed() {
        assert_eq!(RtpFormat::new(RtpCodec::Opus, 48_000, 2), Ok(RtpFormat::OPUS));
        for (codec, rate, channels, parts) in [
            (RtpCodec::Opus, 16_000, 1, ["16000", "48000"]),
            (RtpCodec::Opus, 48_000, 3, ["3", "1 – 2"]),
            (RtpCodec::Pcmu, 7_999, 1, ["7999", "8000 – 192000"]),
            (RtpCodec::L16, 192_001, 1, ["192001", "8000 – 192000"]),
            (RtpCodec::L16, 44_100, 9, ["9", "1 – 8"]),
            (RtpCodec::Pcma, 8_000, 0, ["0", "1 – 8"]),
        ] {
            let error = RtpFormat::new(codec, rate, channels).unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }
}
