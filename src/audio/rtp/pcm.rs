//! Payloads of plain samples (RFC 3551, 4.5): G.711, L16, and what stands in for those that were lost.
//!
//! In: payloads as RTP carries them, and the lengths of those that were lost.
//! Out: mono `f32` at the rate of the RTP clock.

use super::MAX_PAYLOAD_BYTES;
use super::format::{RtpCodec, RtpFormat};
use crate::audio::opus::{PacketDecoder, PacketError};

/// Periods of a voice that are looked for, and how much is compared, in milliseconds (G.711, Appendix I: 5 – 15 ms, 20 ms).
const SHORTEST_PERIOD_MS: usize = 5;
const LONGEST_PERIOD_MS: usize = 15;
const COMPARED_MS: usize = 20;
/// Until here the last period is repeated as it was, and from there it fades away (G.711, Appendix I).
const HELD_MS: usize = 10;
const FADED_MS: usize = 60;
/// How long what is invented goes over into what comes next.
const CROSSED_MS: usize = 5;
/// Longest concealment at a time.
const MAX_CONCEALED_MS: usize = 120;

/// [`PacketDecoder`] for plain samples. Its channels are mixed to one.
#[derive(Debug)]
pub(super) struct PcmPacketDecoder {
    format: RtpFormat,
    /// The last sound, as much as concealing looks at.
    last: Vec<f32>,
    /// The period that is repeated; none while nothing is invented.
    period: Option<usize>,
    /// Frames invented since the last sound.
    invented: usize,
}

/// A sample of the μ-law, in 16 bits (G.711).
const fn mu_law(byte: u8) -> i16 {
    let bits = !byte;
    let magnitude = (((bits as i16 & 0xf) << 3) + 0x84) << ((bits >> 4) & 7);
    if bits & 0x80 == 0 { magnitude - 0x84 } else { 0x84 - magnitude }
}

/// A sample of the A-law, in 16 bits (G.711).
const fn a_law(byte: u8) -> i16 {
    let bits = byte ^ 0x55;
    let (step, segment) = (((bits as i16 & 0xf) << 4) + 8, (bits >> 4) & 7);
    let magnitude = if segment == 0 { step } else { (step + 0x100) << (segment - 1) };
    if bits & 0x80 == 0 { -magnitude } else { magnitude }
}

impl PcmPacketDecoder {
    pub(super) fn new(format: RtpFormat) -> Self {
        let frames = |ms| format.clock_rate() as usize * ms / 1000;
        let last = Vec::with_capacity(frames(LONGEST_PERIOD_MS + COMPARED_MS) + frames(MAX_CONCEALED_MS));
        Self { format, last, period: None, invented: 0 }
    }

    fn frames(&self, ms: usize) -> usize {
        self.format.clock_rate() as usize * ms / 1000
    }

    /// Bytes of a frame.
    fn sample(&self, bytes: &[u8]) -> f32 {
        let sample = match (self.format.codec(), bytes) {
            (RtpCodec::Pcmu, [byte, ..]) => mu_law(*byte),
            (RtpCodec::Pcma, [byte, ..]) => a_law(*byte),
            (_, [high, low, ..]) => i16::from_be_bytes([*high, *low]),
            _ => 0,
        };
        f32::from(sample) / 32_768.0
    }

    /// What is invented, `frame` frames behind the last sound.
    fn invention(&self, period: usize, frame: usize) -> f32 {
        let (held, faded) = (self.frames(HELD_MS), self.frames(FADED_MS));
        let Some(start) = self.last.len().checked_sub(period).filter(|_| period > 0 && frame < faded) else {
            return 0.0;
        };
        let gain = if frame < held { 1.0 } else { (faded - frame) as f32 / (faded - held) as f32 };
        gain * self.last[start + frame % period]
    }

    /// The period after which the last sound is most like itself; 0 where there is too little of it.
    fn find_period(&self) -> usize {
        let compared = self.frames(COMPARED_MS);
        let Some(start) = self.last.len().checked_sub(compared) else { return 0 };
        // A voice's period is as well told at 8 kHz.
        let step = (self.format.clock_rate() as usize / 8_000).max(1);
        let likeness = |period: usize| {
            let (mut product, mut energy) = (0.0, 1e-9_f32);
            for at in (start..self.last.len()).step_by(step) {
                product += self.last[at] * self.last[at - period];
                energy += self.last[at - period] * self.last[at - period];
            }
            product / energy.sqrt()
        };
        let longest = self.frames(LONGEST_PERIOD_MS).min(start);
        let periods = (self.frames(SHORTEST_PERIOD_MS)..=longest).step_by(step);
        periods
            .map(|period| (period, likeness(period)))
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .map_or(0, |(period, _)| period)
    }
}

impl PacketDecoder for PcmPacketDecoder {
    fn sample_rate(&self) -> u32 {
        self.format.clock_rate()
    }

    fn channels(&self) -> usize {
        1
    }

    fn max_frames(&self) -> usize {
        (MAX_PAYLOAD_BYTES / self.format.frame_bytes()).max(self.frames(MAX_CONCEALED_MS))
    }

    fn packet_frames(&self, packet: &[u8]) -> Result<usize, PacketError> {
        let (bytes, frame) = (packet.len(), self.format.frame_bytes());
        if bytes == 0 || !bytes.is_multiple_of(frame) {
            let reason = format!("samples of all channels have {frame} bytes");
            return Err(PacketError::Damaged { bytes, reason });
        }
        Ok(bytes / frame)
    }

    fn decode(&mut self, packet: &[u8], output: &mut [f32]) -> Result<usize, PacketError> {
        let frames = self.packet_frames(packet)?;
        let provided = output.len();
        let output = output.get_mut(..frames).ok_or(PacketError::Buffer { needed: frames, provided })?;
        let channels = self.format.channels();
        for (sample, frame) in output.iter_mut().zip(packet.chunks_exact(self.format.frame_bytes())) {
            let mixed: f32 = frame.chunks_exact(frame.len() / channels).map(|bytes| self.sample(bytes)).sum();
            *sample = mixed / channels as f32;
        }
        if let Some(period) = self.period.take() {
            let crossed = self.frames(CROSSED_MS).min(frames);
            for (at, sample) in output[..crossed].iter_mut().enumerate() {
                let weight = at as f32 / crossed as f32;
                *sample = *sample * weight + self.invention(period, self.invented + at) * (1.0 - weight);
            }
            self.invented = 0;
        }
        let kept = self.frames(LONGEST_PERIOD_MS + COMPARED_MS);
        let fresh = &output[frames.saturating_sub(kept)..];
        self.last.drain(..(self.last.len() + fresh.len()).saturating_sub(kept));
        self.last.extend_from_slice(fresh);
        Ok(frames)
    }

    fn conceal(&mut self, frames: usize, output: &mut [f32]) -> Result<usize, PacketError> {
        let (most, provided) = (self.frames(MAX_CONCEALED_MS), output.len());
        if frames > most {
            return Err(PacketError::TooLong { frames, most });
        }
        let output = output.get_mut(..frames).ok_or(PacketError::Buffer { needed: frames, provided })?;
        let period = self.period.unwrap_or_else(|| self.find_period());
        for (at, sample) in output.iter_mut().enumerate() {
            *sample = self.invention(period, self.invented + at);
        }
        self.period = Some(period);
        self.invented = self.invented.saturating_add(frames);
        Ok(frames)
    }

    fn reset(&mut self) {
        self.last.clear();
        self.period = None;
        self.invented = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::opus::tests::voice;

    fn decoder(codec: RtpCodec, rate: u32, channels: usize) -> PcmPacketDecoder {
        PcmPacketDecoder::new(RtpFormat::new(codec, rate, channels).unwrap())
    }

    fn level(samples: &[f32]) -> f32 {
        (samples.iter().map(|sample| sample * sample).sum::<f32>() / samples.len() as f32).sqrt()
    }

    #[test]
    fn the_laws_are_those_of_g711() {
        // Of the tables of G.711: the ends, what is next to nothing, and one segment's first step.
        for (byte, mu, a) in [
            (0x00_u8, -32_124_i16, -5_504_i16),
            (0x80, 32_124, 5_504),
            (0xff, 0, 848),
            (0x7f, 0, -848),
            (0xd5, 716, 8),
            (0x55, -716, -8),
            (0xaa, 5_372, 32_256),
            (0x2a, -5_372, -32_256),
        ] {
            assert_eq!((mu_law(byte), a_law(byte)), (mu, a), "{byte:#x}");
        }
    }

    #[test]
    fn channels_are_mixed_and_halves_of_frames_refused() {
        let mut output = vec![0.0; 4];
        let mut stereo = decoder(RtpCodec::L16, 44_100, 2);
        assert_eq!(stereo.decode(&[0x40, 0, 0x20, 0, 0x80, 0, 0x80, 0], &mut output), Ok(2));
        assert_eq!(output[..2], [0.375, -1.0]);
        for bytes in [0, 1, 2, 3, 6] {
            assert!(matches!(stereo.decode(&vec![0; bytes], &mut output), Err(PacketError::Damaged { .. })), "{bytes}");
        }
        assert!(matches!(stereo.decode(&[0; 20], &mut output), Err(PacketError::Buffer { needed: 5, provided: 4 })));
        assert!(matches!(stereo.conceal(5_293, &mut output), Err(PacketError::TooLong { frames: 5_293, most: 5_292 })));
    }

    #[test]
    fn what_was_lost_goes_on_as_it_sounded_fades_and_goes_over_into_what_comes_next() {
        for rate in [8_000, 16_000, 48_000] {
            let step = 48_000 / rate;
            let samples: Vec<f32> = voice(0, 48_000).into_iter().step_by(step).collect();
            let payload = |samples: &[f32]| -> Vec<u8> {
                samples.iter().flat_map(|sample| ((sample * 32_767.0) as i16).to_be_bytes()).collect()
            };
            let mut decoder = decoder(RtpCodec::L16, rate as u32, 1);
            let frame = rate / 50;
            let mut output = vec![0.0; rate];
            let mut at = 0;
            while at < 10 * frame {
                decoder.decode(&payload(&samples[at..at + frame]), &mut output).unwrap();
                at += frame;
            }
            assert_eq!(decoder.conceal(frame, &mut output), Ok(frame));
            let error: Vec<f32> = output.iter().zip(&samples[at..at + frame]).map(|(a, b)| a - b).collect();
            let silence = level(&samples[at..at + frame]);
            assert!(level(&error) < 0.7 * silence, "{rate} Hz: {} of {silence}", level(&error));
            at += frame;
            decoder.decode(&payload(&samples[at..at + frame]), &mut output).unwrap();
            let crossed = rate / 200;
            let rest: f32 = (crossed..frame).map(|i| (output[i] - samples[at + i]).abs()).fold(0.0, f32::max);
            assert!(rest < 1e-4, "{rate} Hz: {rest}");

            assert_eq!(decoder.conceal(5 * frame, &mut output), Ok(5 * frame));
            assert_eq!(level(&output[3 * frame..5 * frame]), 0.0, "it has faded away");
            decoder.reset();
            assert_eq!(decoder.conceal(frame, &mut output), Ok(frame));
            assert_eq!(level(&output[..frame]), 0.0, "of nothing comes nothing");
        }
    }
}
