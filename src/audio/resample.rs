//! Any rate to 16 kHz, by rubato.
//!
//! In: mono samples at one rate, in pieces of any size. Out: mono samples at 16 kHz, the filter's delay taken out; how
//! the input was cut makes no difference. The windowed sinc serves every rate: rubato's FFT resampler needs blocks of
//! up to a second where rates share no large divisor, and one kind of resampler is enough.

use audioadapter_buffers::direct::SequentialSlice;
use rubato::{Async, FixedAsync, Resampler as _, SincInterpolationParameters, SincInterpolationType, WindowFunction};

use super::pcm::{PcmError, check_rate};
use crate::time::SAMPLE_RATE;

/// Taps a sample of the lower rate. The transition band of the filter ends near 7.4 kHz.
const TAPS: u32 = 96;
/// Points of the filter between two taps; linear interpolation between them leaves distortion below −90 dB.
const OVERSAMPLING: usize = 256;

/// Brings one stretch of audio at one rate to 16 kHz.
pub struct Resampler {
    rate: u32,
    sinc: Option<Sinc>,
}

struct Sinc {
    inner: Async<f32>,
    /// Input not yet given to rubato: less than a chunk.
    input: Vec<f32>,
    output: Vec<f32>,
    chunk: usize,
    /// Output still to be dropped: the filter's delay.
    delay: usize,
    taken: u64,
    given: u64,
}

impl Resampler {
    /// A resampler from `rate` Hz; at 16 kHz samples pass unchanged.
    ///
    /// # Errors
    /// [`PcmError::Rate`] outside 8 – 192 kHz.
    pub fn new(rate: u32) -> Result<Self, PcmError> {
        check_rate(rate)?;
        let sinc = if rate == SAMPLE_RATE { None } else { Some(Sinc::new(rate)?) };
        Ok(Self { rate, sinc })
    }

    /// Input rate in Hz.
    #[must_use]
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// Takes `samples`; appends what is ready at 16 kHz to `out`. The last 10 ms and half the filter stay inside.
    pub fn process(&mut self, samples: &[f32], out: &mut Vec<f32>) {
        match &mut self.sinc {
            None => out.extend_from_slice(samples),
            Some(sinc) => sinc.process(samples, out),
        }
    }

    /// Appends what is still inside, so that all output together lasts as long as all input (to the nearest sample).
    /// The stretch is over: use another resampler for the next one.
    pub fn finish(&mut self, out: &mut Vec<f32>) {
        if let Some(sinc) = &mut self.sinc {
            sinc.finish(self.rate, out);
        }
    }
}

/// rubato's output sample k shows the input at `k t − (h − t)`, where `t` is input samples an output sample and `h` half
/// the filter. Zeros put before the input make that delay a whole number of output samples to within 1/32: returns how
/// many zeros, and how many output samples to drop.
fn lead_and_delay(rate: u32, half: u32) -> (usize, usize) {
    let (rate, out) = (u64::from(rate), u64::from(SAMPLE_RATE));
    let off_grid = |lead: u64| {
        let rest = (u64::from(half) + lead) * out % rate;
        rest.min(rate - rest)
    };
    let chunk = rate / 100;
    let lead = (0..chunk).find(|&lead| off_grid(lead) * 32 <= rate).unwrap_or(0);
    let delay = ((u64::from(half) + lead) * out + rate / 2) / rate - 1;
    (lead as usize, delay as usize)
}

impl Sinc {
    fn new(rate: u32) -> Result<Self, PcmError> {
        let ratio = f64::from(SAMPLE_RATE) / f64::from(rate);
        // rubato rounds up to a multiple of 8 taps; its delay follows from their number.
        let taps = (TAPS * rate.max(SAMPLE_RATE)).div_ceil(SAMPLE_RATE).next_multiple_of(8);
        let (lead, delay) = lead_and_delay(rate, taps / 2);
        let parameters = SincInterpolationParameters::new(taps as usize, WindowFunction::BlackmanHarris2)
            .oversampling_factor(OVERSAMPLING)
            .interpolation(SincInterpolationType::Linear);
        let chunk = (rate / 100) as usize;
        // Rate and sizes are within rubato's limits by construction.
        let inner =
            Async::new_sinc(ratio, 1.0, &parameters, chunk, 1, FixedAsync::Input).map_err(|_| PcmError::Rate(rate))?;
        let output = vec![0.0; inner.output_frames_max()];
        let mut input = Vec::with_capacity(chunk);
        input.resize(lead, 0.0);
        Ok(Self { inner, input, output, chunk, delay, taken: 0, given: 0 })
    }

    fn process(&mut self, mut samples: &[f32], out: &mut Vec<f32>) {
        self.taken += samples.len() as u64;
        while !samples.is_empty() {
            let (head, rest) = samples.split_at(samples.len().min(self.chunk - self.input.len()));
            self.input.extend_from_slice(head);
            samples = rest;
            if self.input.len() == self.chunk {
                let ready = self.run_chunk();
                out.extend_from_slice(&self.output[ready.clone()]);
                self.given += ready.len() as u64;
            }
        }
    }

    fn finish(&mut self, rate: u32, out: &mut Vec<f32>) {
        let due = (u128::from(self.taken) * u128::from(SAMPLE_RATE) + u128::from(rate / 2)) / u128::from(rate);
        let due = u64::try_from(due).unwrap_or(u64::MAX);
        while self.given < due {
            self.input.resize(self.chunk, 0.0);
            let ready = self.run_chunk();
            if ready.is_empty() && self.delay == 0 {
                return;
            }
            let take = ready.len().min(usize::try_from(due - self.given).unwrap_or(usize::MAX));
            out.extend_from_slice(&self.output[ready][..take]);
            self.given += take as u64;
        }
    }

    /// Gives the full chunk to rubato; returns where in `output` the samples behind the delay lie.
    fn run_chunk(&mut self) -> std::ops::Range<usize> {
        let capacity = self.output.len();
        let written = match (
            SequentialSlice::new(&self.input, 1, self.chunk),
            SequentialSlice::new_mut(&mut self.output, 1, capacity),
        ) {
            (Ok(input), Ok(mut output)) => {
                self.inner.process_into_buffer(&input, &mut output, None).map_or(0, |(_, n)| n)
            }
            _ => 0,
        };
        debug_assert!(written > 0, "rubato refused a chunk of its own size");
        self.input.clear();
        let skip = self.delay.min(written);
        self.delay -= skip;
        skip..written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A smooth pulse (1 kHz under a 20 ms Gaussian) centred at `centre_s`.
    fn pulse(rate: u32, centre_s: f64, seconds: f64) -> Vec<f32> {
        (0..(seconds * f64::from(rate)) as usize)
            .map(|i| {
                let t = i as f64 / f64::from(rate) - centre_s;
                (0.5 * (-t * t / (2.0 * 0.01f64.powi(2))).exp() * (2.0 * std::f64::consts::PI * 1000.0 * t).cos())
                    as f32
            })
            .collect()
    }

    fn resample(rate: u32, input: &[f32], piece: usize) -> Vec<f32> {
        let mut resampler = Resampler::new(rate).unwrap();
        let mut out = Vec::new();
        for piece in input.chunks(piece) {
            resampler.process(piece, &mut out);
        }
        resampler.finish(&mut out);
        out
    }

    const RATES: [u32; 17] = [
        8_000, 8_001, 11_025, 12_000, 15_999, 16_000, 16_001, 22_050, 24_000, 32_000, 44_100, 44_101, 47_999, 48_000,
        96_000, 176_400, 192_000,
    ];

    #[test]
    fn a_pulse_stays_where_it_was_at_every_rate() {
        for rate in RATES {
            for centre_s in [0.1, 1.503] {
                let out = resample(rate, &pulse(rate, centre_s, 2.0), 4_096);
                let wanted = pulse(SAMPLE_RATE, centre_s, 2.0);
                assert_eq!(out.len(), wanted.len(), "{rate} Hz");
                // Half a sample off would leave an error of 0.1 at 1 kHz.
                let worst = out.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst < 0.02, "{rate} Hz: the pulse at {centre_s} s deviates by {worst}");
            }
        }
    }

    #[test]
    fn the_way_the_input_is_cut_changes_nothing() {
        for rate in RATES {
            let input = pulse(rate, 0.3, 0.5);
            let whole = resample(rate, &input, usize::MAX);
            for piece in [1, 7, 160, 441, 1_000] {
                assert_eq!(resample(rate, &input, piece), whole, "{rate} Hz in pieces of {piece}");
            }
        }
    }

    #[test]
    fn what_16_khz_cannot_hold_is_filtered_out() {
        let tone = |hz: f64| -> Vec<f32> {
            (0..48_000).map(|i| (2.0 * std::f64::consts::PI * hz * f64::from(i) / 48_000.0).sin() as f32).collect()
        };
        let level = |x: &[f32]| 10.0 * (x[2_000..14_000].iter().map(|x| x * x).sum::<f32>() / 6_000.0).log10();
        assert!(level(&resample(48_000, &tone(6_500.0), 480)) > -0.5);
        assert!(level(&resample(48_000, &tone(9_000.0), 480)) < -70.0);
        assert!(level(&resample(48_000, &tone(13_000.0), 480)) < -80.0);
    }

    #[test]
    fn lengths_agree_over_a_long_time() {
        for rate in [44_100, 44_101, 11_025] {
            let mut resampler = Resampler::new(rate).unwrap();
            let (mut out, block) = (Vec::new(), vec![0.25; rate as usize]);
            let mut given = 0;
            for _ in 0..600 {
                resampler.process(&block, &mut out);
                given += out.len();
                out.clear();
            }
            resampler.finish(&mut out);
            assert_eq!(given + out.len(), 600 * 16_000, "{rate} Hz");
        }
    }
}
