//! The front end: log-mel with OpenAI's parameters.
//!
//! In: mono samples at 16 kHz. Out: log-mel `[bands, frames]`, one frame every 160 samples (10 ms), for a window that
//! is padded with zeros. Source of the formulas: openai/whisper, `audio.py`; the filters are librosa's default.

use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};

/// Samples from one frame to the next: 10 ms.
pub const HOP: usize = 160;
/// Samples of a frame: 25 ms.
pub const FFT: usize = 400;
const BINS: usize = FFT / 2 + 1;

/// The bins that one mel band weighs.
struct Filter {
    first: usize,
    weights: Vec<f32>,
}

/// Computes log-mel spectra. Holds its filters and scratch; one a thread.
pub struct LogMel {
    filters: Vec<Filter>,
    window: Vec<f32>,
    fft: Arc<dyn RealToComplex<f32>>,
    frame: Vec<f32>,
    spectrum: Vec<Complex<f32>>,
    scratch: Vec<Complex<f32>>,
    power: Vec<f32>,
}

impl LogMel {
    /// For so many mel bands: 80, or 128 from large-v3 on.
    #[must_use]
    pub fn new(bands: usize) -> Self {
        let fft = RealFftPlanner::new().plan_fft_forward(FFT);
        // The periodic Hann window, as torch.hann_window.
        let window =
            (0..FFT).map(|i| (0.5 - 0.5 * (std::f64::consts::TAU * i as f64 / FFT as f64).cos()) as f32).collect();
        Self {
            filters: filters(bands),
            window,
            frame: fft.make_input_vec(),
            spectrum: fft.make_output_vec(),
            scratch: fft.make_scratch_vec(),
            power: vec![0.0; BINS],
            fft,
        }
    }

    /// Writes the log-mel of the first `frames` frames of `samples`, padded with zeros, to `out`: `[bands, frames]`.
    ///
    /// The first half frame sees the samples reflected, as torch's centred STFT. Values lie within 2 of the largest
    /// (8 decades of power, divided by 4), nominally within −1 … 1.
    pub fn compute(&mut self, samples: &[f32], frames: usize, out: &mut Vec<f32>) {
        const SMALLEST: f32 = 1e-10;
        out.clear();
        out.resize(self.filters.len() * frames, SMALLEST.log10());
        let sample = |index: isize| samples.get(index.unsigned_abs()).copied().unwrap_or(0.0);
        for t in 0..frames {
            let first = (t * HOP) as isize - (FFT / 2) as isize;
            if first >= samples.len() as isize {
                break; // nothing but zeros from here on
            }
            for (i, (v, w)) in self.frame.iter_mut().zip(&self.window).enumerate() {
                *v = sample(first + i as isize) * w;
            }
            // Fails only for buffers of another size than its own.
            if self.fft.process_with_scratch(&mut self.frame, &mut self.spectrum, &mut self.scratch).is_err() {
                continue;
            }
            for (p, c) in self.power.iter_mut().zip(&self.spectrum) {
                *p = c.norm_sqr();
            }
            for (band, filter) in self.filters.iter().enumerate() {
                let bins = &self.power[filter.first..filter.first + filter.weights.len()];
                let energy: f32 = bins.iter().zip(&filter.weights).map(|(p, w)| p * w).sum();
                out[band * frames + t] = energy.max(SMALLEST).log10();
            }
        }
        let floor = out.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b)) - 8.0;
        for v in out.iter_mut() {
            *v = (v.max(floor) + 4.0) / 4.0;
        }
    }
}

/// Slaney's mel scale (linear below 1 kHz, logarithmic above) and area normalisation.
fn filters(bands: usize) -> Vec<Filter> {
    let step = 6.4f64.ln() / 27.0;
    let to_mel = |hz: f64| if hz < 1000.0 { hz * 3.0 / 200.0 } else { 15.0 + (hz / 1000.0).ln() / step };
    let to_hz = |mel: f64| if mel < 15.0 { mel * 200.0 / 3.0 } else { 1000.0 * (step * (mel - 15.0)).exp() };
    let top = to_mel(8000.0);
    let edge = |i: usize| to_hz(top * i as f64 / (bands + 1) as f64);
    (0..bands)
        .map(|band| {
            let (low, centre, high) = (edge(band), edge(band + 1), edge(band + 2));
            let weights: Vec<f32> = (0..BINS)
                .map(|bin| {
                    let hz = bin as f64 * 8000.0 / (BINS - 1) as f64;
                    let ramp = ((hz - low) / (centre - low)).min((high - hz) / (high - centre));
                    (ramp.max(0.0) * 2.0 / (high - low)) as f32
                })
                .collect();
            let first = weights.iter().position(|&w| w > 0.0).unwrap_or(0);
            let last = weights.iter().rposition(|&w| w > 0.0).map_or(first, |i| i + 1);
            Filter { first, weights: weights[first..last].to_vec() }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_the_floor_everywhere() {
        let mut mel = LogMel::new(80);
        let mut out = Vec::new();
        mel.compute(&[], 10, &mut out);
        assert_eq!(out.len(), 800);
        assert!(out.iter().all(|&v| (v - -1.5).abs() < 1e-6));
        let short = vec![0.0; 90];
        mel.compute(&short, 3000, &mut out);
        assert_eq!(out.len(), 240_000);
        assert!(out.iter().all(|&v| (v - -1.5).abs() < 1e-6));
    }

    #[test]
    fn a_tone_lies_in_its_band_and_bad_samples_do_not_panic() {
        for bands in [80, 128] {
            let mut mel = LogMel::new(bands);
            let tone: Vec<f32> = (0..16_000).map(|i| (i as f32 * std::f32::consts::FRAC_PI_8).sin()).collect(); // 1 kHz
            let mut out = Vec::new();
            mel.compute(&tone, 100, &mut out);
            let loudest = (0..bands).max_by(|&a, &b| out[a * 100 + 50].total_cmp(&out[b * 100 + 50])).unwrap();
            let filter = &mel.filters[loudest];
            assert!((filter.first..filter.first + filter.weights.len()).contains(&25), "band {loudest}");
            mel.compute(&[f32::NAN, f32::INFINITY, 1e30, -1.0], 4, &mut out);
        }
    }
}
