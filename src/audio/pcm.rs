//! The shapes in which audio is pushed.
//!
//! In: i16 or f32 samples, interleaved or planar. Out: mono f32, nominally within −1 … 1.

use std::ops::RangeInclusive;

/// Channels that one push may have.
pub const MAX_CHANNELS: usize = 255;
/// Sample rates understood, in Hz.
const RATES: RangeInclusive<u32> = 8_000..=192_000;
/// Float samples beyond this are limited to it (12 dB over full scale): everything behind stays finite.
const LIMIT: f32 = 4.0;

/// Audio of one push: borrowed samples with their rate and shape.
#[derive(Clone, Copy, Debug)]
pub struct Pcm<'a> {
    rate: u32,
    channels: usize,
    samples: Samples<'a>,
}

/// Samples in one of four shapes.
#[derive(Clone, Copy, Debug)]
pub enum Samples<'a> {
    /// `[frames × channels]`, full scale ±32768.
    I16(&'a [i16]),
    /// `[frames × channels]`, full scale ±1; beyond ±4 they are limited to it.
    F32(&'a [f32]),
    /// `[channels][frames]`, full scale ±32768.
    PlanarI16(&'a [&'a [i16]]),
    /// `[channels][frames]`, full scale ±1.
    PlanarF32(&'a [&'a [f32]]),
}

/// The shape of a push makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PcmError {
    /// The sample rate is outside what is understood.
    #[error("sample rate is {0} Hz: allowed are 8000 – 192000 Hz")]
    Rate(u32),
    /// The number of channels is outside what is understood.
    #[error("channels are {0}: allowed are 1 – 255")]
    Channels(usize),
    /// Interleaved samples do not make whole frames.
    #[error("{samples} interleaved samples do not make whole frames of {channels} channels")]
    TornFrame {
        /// Samples given.
        samples: usize,
        /// Channels stated.
        channels: usize,
    },
    /// Planar channels differ in length.
    #[error("channel {channel} holds {found} samples, channel 0 holds {expected}")]
    UnequalChannels {
        /// The first channel that differs.
        channel: usize,
        /// Its length.
        found: usize,
        /// The length of channel 0.
        expected: usize,
    },
}

/// Whether a sample rate (Hz) is understood.
///
/// # Errors
/// [`PcmError::Rate`] outside 8 – 192 kHz.
pub fn check_rate(rate: u32) -> Result<u32, PcmError> {
    if RATES.contains(&rate) { Ok(rate) } else { Err(PcmError::Rate(rate)) }
}

impl<'a> Pcm<'a> {
    /// Interleaved samples: `samples[frame * channels + channel]`. `rate` in Hz.
    ///
    /// # Errors
    /// [`PcmError`] where rate, channels or length make no sense.
    pub fn interleaved<S: Interleaved<'a>>(rate: u32, channels: usize, samples: S) -> Result<Self, PcmError> {
        Self::new(rate, channels, samples.into_samples())
    }

    /// Mono samples. `rate` in Hz.
    ///
    /// # Errors
    /// [`PcmError::Rate`].
    pub fn mono<S: Interleaved<'a>>(rate: u32, samples: S) -> Result<Self, PcmError> {
        Self::interleaved(rate, 1, samples)
    }

    /// Samples of any shape. `rate` in Hz; `channels` must be the number of slices where they are planar.
    ///
    /// # Errors
    /// [`PcmError`] where rate, channels or lengths make no sense.
    pub fn new(rate: u32, channels: usize, samples: Samples<'a>) -> Result<Self, PcmError> {
        check_rate(rate)?;
        if !(1..=MAX_CHANNELS).contains(&channels) {
            return Err(PcmError::Channels(channels));
        }
        match samples {
            Samples::I16(s) => whole_frames(s.len(), channels)?,
            Samples::F32(s) => whole_frames(s.len(), channels)?,
            Samples::PlanarI16(planes) => equal_channels(channels, planes.iter().map(|plane| plane.len()))?,
            Samples::PlanarF32(planes) => equal_channels(channels, planes.iter().map(|plane| plane.len()))?,
        }
        Ok(Self { rate, channels, samples })
    }

    /// Sample rate in Hz.
    #[must_use]
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// Channels in every frame.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// The samples as they were given.
    #[must_use]
    pub fn samples(&self) -> Samples<'a> {
        self.samples
    }

    /// Frames: samples a channel.
    #[must_use]
    pub fn frames(&self) -> usize {
        match self.samples {
            Samples::I16(s) => s.len() / self.channels,
            Samples::F32(s) => s.len() / self.channels,
            Samples::PlanarI16(planes) => planes[0].len(),
            Samples::PlanarF32(planes) => planes[0].len(),
        }
    }

    /// Appends frames `from .. to`, mixed down to their mean, to `mono`. NaN and infinite samples count as zero;
    /// returns how many there were.
    pub fn mix_into(&self, from: usize, to: usize, mono: &mut Vec<f32>) -> u64 {
        let channels = self.channels;
        let mut non_finite = 0;
        let mut float = |x: f32| {
            if x.is_finite() {
                x.clamp(-LIMIT, LIMIT)
            } else {
                non_finite += 1;
                0.0
            }
        };
        let int = |x: i16| f32::from(x) * (1.0 / 32_768.0);
        let mean = 1.0 / channels as f32;
        match self.samples {
            Samples::I16(s) => {
                let frames = s[from * channels..to * channels].chunks_exact(channels);
                mono.extend(frames.map(|frame| frame.iter().map(|&x| int(x)).sum::<f32>() * mean));
            }
            Samples::F32(s) => {
                let frames = s[from * channels..to * channels].chunks_exact(channels);
                mono.extend(frames.map(|frame| frame.iter().map(|&x| float(x)).sum::<f32>() * mean));
            }
            Samples::PlanarI16(planes) => {
                mono.extend((from..to).map(|i| planes.iter().map(|plane| int(plane[i])).sum::<f32>() * mean));
            }
            Samples::PlanarF32(planes) => {
                mono.extend((from..to).map(|i| planes.iter().map(|plane| float(plane[i])).sum::<f32>() * mean));
            }
        }
        non_finite
    }
}

fn whole_frames(samples: usize, channels: usize) -> Result<(), PcmError> {
    if samples.is_multiple_of(channels) { Ok(()) } else { Err(PcmError::TornFrame { samples, channels }) }
}

fn equal_channels(channels: usize, mut lengths: impl ExactSizeIterator<Item = usize>) -> Result<(), PcmError> {
    if lengths.len() != channels {
        return Err(PcmError::Channels(lengths.len()));
    }
    let expected = lengths.next().unwrap_or(0);
    match lengths.enumerate().find(|(_, found)| *found != expected) {
        Some((i, found)) => Err(PcmError::UnequalChannels { channel: i + 1, found, expected }),
        None => Ok(()),
    }
}

/// Sample slices that [`Pcm::interleaved`] takes: `&[i16]` and `&[f32]`.
pub trait Interleaved<'a> {
    /// The samples, with their format.
    fn into_samples(self) -> Samples<'a>;
}

impl<'a> Interleaved<'a> for &'a [i16] {
    fn into_samples(self) -> Samples<'a> {
        Samples::I16(self)
    }
}

impl<'a> Interleaved<'a> for &'a [f32] {
    fn into_samples(self) -> Samples<'a> {
        Samples::F32(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mix(pcm: Pcm<'_>) -> (Vec<f32>, u64) {
        let mut mono = Vec::new();
        let bad = pcm.mix_into(0, pcm.frames(), &mut mono);
        (mono, bad)
    }

    #[test]
    fn every_shape_mixes_to_the_same_mean() {
        let (left, right) = ([16_384i16, -32_768, 0], [0i16, 0, 8_192]);
        let expected = vec![0.25, -0.5, 0.125];
        let inter: Vec<i16> = left.iter().zip(&right).flat_map(|(l, r)| [*l, *r]).collect();
        let float: Vec<f32> = inter.iter().map(|&x| f32::from(x) / 32_768.0).collect();
        let planes: Vec<Vec<f32>> =
            [left, right].iter().map(|c| c.iter().map(|&x| f32::from(x) / 32_768.0).collect()).collect();
        for samples in [
            Samples::I16(&inter),
            Samples::F32(&float),
            Samples::PlanarI16(&[&left, &right]),
            Samples::PlanarF32(&[&planes[0], &planes[1]]),
        ] {
            assert_eq!(mix(Pcm::new(48_000, 2, samples).unwrap()), (expected.clone(), 0), "{samples:?}");
        }
    }

    #[test]
    fn samples_that_are_no_numbers_are_zero_and_counted() {
        let (mono, bad) =
            mix(Pcm::mono(16_000, &[f32::NAN, 0.5, f32::INFINITY, f32::NEG_INFINITY, f32::MAX][..]).unwrap());
        assert_eq!((mono, bad), (vec![0.0, 0.5, 0.0, 0.0, LIMIT], 3));
    }

    #[test]
    fn a_shape_that_makes_no_sense_is_named() {
        let x = [0i16; 5];
        for (result, message) in [
            (Pcm::mono(7_999, &x[..]), "7999"),
            (Pcm::mono(192_001, &x[..]), "192001"),
            (Pcm::interleaved(16_000, 0, &x[..]), "channels are 0"),
            (Pcm::interleaved(16_000, 256, &x[..]), "channels are 256"),
            (Pcm::interleaved(16_000, 2, &x[..]), "5 interleaved samples"),
            (Pcm::new(16_000, 2, Samples::PlanarI16(&[&x, &x[1..]])), "channel 1 holds 4"),
            (Pcm::new(16_000, 3, Samples::PlanarI16(&[&x, &x])), "channels are 2"),
        ] {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
