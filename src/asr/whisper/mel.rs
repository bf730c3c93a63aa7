//! The front end: log-mel with OpenAI's parameters.
//!
//! In: mono samples at 16 kHz. Out: log-mel `[frames, bands]`, one frame every 160 samples (10 ms), for a window that
//! is padded with zeros. Source of the formulas: openai/whisper, `audio.py`; the filters are librosa's default.
//!
//! A growing caption computes no frame twice: [`LogMel::extend`] adds the rows of frames that more samples cannot
//! change, [`LogMel::window`] makes the model's input of them. A frame's value never depends on how many came before it.

use std::ops::Range;
use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};

/// Samples from one frame to the next: 10 ms.
pub const HOP: usize = 160;
/// Samples of a frame: 25 ms.
pub const FFT: usize = 400;
/// Frames of Whisper's window: 30 s.
const FRAMES: usize = 3000;
const BINS: usize = FFT / 2 + 1;
/// Power that counts as silence; less is taken for it.
const SMALLEST: f32 = 1e-10;
/// Frames that pass the filters at a time, each in a lane of its own: what one gets does not depend on the others.
const LANES: usize = 8;

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
    /// `[bins, lanes]`.
    power: Vec<[f32; LANES]>,
    /// Rows that hold for one window only.
    tail: Vec<f32>,
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
            power: vec![[0.0; LANES]; BINS],
            tail: Vec::new(),
            fft,
        }
    }

    /// Mel bands of a row.
    #[must_use]
    pub fn bands(&self) -> usize {
        self.filters.len()
    }

    /// Appends to `rows`, `[frames, bands]`, the log10 of the mel energies of every frame behind them that lies wholly
    /// within `samples`. They hold for whatever follows these samples.
    ///
    /// The first half frame sees the samples reflected, as torch's centred STFT.
    pub fn extend(&mut self, samples: &[f32], rows: &mut Vec<f32>) {
        let from = rows.len() / self.bands();
        self.append(samples, from..whole(samples.len()), rows);
    }

    /// Writes the log-mel of the first `frames` frames of `samples`, padded with zeros, to `out`: `[frames, bands]`.
    /// Returns the floor: the value of every frame that holds no audio.
    ///
    /// `rows` are those of [`Self::extend`] for these samples, for fewer of them or for more; none are needed, and the
    /// result is the same to the bit. Values lie within 2 of the largest (8 decades of power, divided by 4), nominally
    /// within −1 … 1, and none below −1.5 (a power of 1e-10). The largest is that of all frames that hold audio, of the
    /// first 30 s, whether `frames` is less or more than those.
    pub fn window(&mut self, samples: &[f32], rows: &[f32], frames: usize, out: &mut Vec<f32>) -> f32 {
        let bands = self.bands();
        let held = (samples.len() + FFT / 2).div_ceil(HOP).min(FRAMES);
        let known = whole(samples.len()).min(rows.len() / bands).min(held);
        let rows = &rows[..known * bands];
        let mut tail = std::mem::take(&mut self.tail);
        tail.clear();
        self.append(samples, known..held, &mut tail);
        // Silence counts too: the window may hold some behind the audio.
        let silence = log10(SMALLEST);
        let floor = largest(rows).max(largest(&tail)).max(silence) - 8.0;
        let scaled = |v: f32| (v.max(floor) + 4.0) * 0.25;
        out.clear();
        out.reserve(frames * bands);
        out.extend(rows.iter().take(frames * bands).map(|&v| scaled(v)));
        let left = frames * bands - out.len();
        out.extend(tail.iter().take(left).map(|&v| scaled(v)));
        out.resize(frames * bands, scaled(silence));
        self.tail = tail;
        scaled(silence)
    }

    /// [`Self::window`] of samples of which nothing is known yet.
    pub fn compute(&mut self, samples: &[f32], frames: usize, out: &mut Vec<f32>) -> f32 {
        self.window(samples, &[], frames, out)
    }

    fn append(&mut self, samples: &[f32], frames: Range<usize>, rows: &mut Vec<f32>) {
        let (bands, from) = (self.bands(), rows.len());
        rows.resize(from + frames.len() * bands, 0.0);
        let rows = &mut rows[from..];
        for (first, rows) in frames.step_by(LANES).zip(rows.chunks_mut(LANES * bands)) {
            for lane in 0..rows.len() / bands {
                self.transform(samples, first + lane);
                for (power, bin) in self.power.iter_mut().zip(&self.spectrum) {
                    power[lane] = bin.norm_sqr();
                }
            }
            for (band, filter) in self.filters.iter().enumerate() {
                let mut energies = [0.0; LANES];
                for (power, weight) in self.power[filter.first..].iter().zip(&filter.weights) {
                    for (energy, power) in energies.iter_mut().zip(power) {
                        *energy += power * weight;
                    }
                }
                for (row, energy) in rows.chunks_exact_mut(bands).zip(energies) {
                    row[band] = energy;
                }
            }
        }
        for v in rows {
            // NaN counts as silence.
            *v = log10(if *v > SMALLEST { *v } else { SMALLEST });
        }
    }

    /// The spectrum of a frame.
    fn transform(&mut self, samples: &[f32], frame: usize) {
        let inside = (frame * HOP).checked_sub(FFT / 2).and_then(|first| samples.get(first..first + FFT));
        if let Some(inside) = inside {
            for ((v, x), w) in self.frame.iter_mut().zip(inside).zip(&self.window) {
                *v = x * w;
            }
        } else {
            for (i, (v, w)) in self.frame.iter_mut().zip(&self.window).enumerate() {
                let x = samples.get((frame * HOP + i).abs_diff(FFT / 2));
                *v = x.copied().unwrap_or(0.0) * w;
            }
        }
        // Fails only for buffers of another size than its own.
        if self.fft.process_with_scratch(&mut self.frame, &mut self.spectrum, &mut self.scratch).is_err() {
            self.spectrum.fill(Complex::default());
        }
    }
}

/// Frames that lie wholly within so many samples: more samples do not change them.
fn whole(samples: usize) -> usize {
    // The first frame's reflection reaches one sample further than its right half.
    if samples <= FFT / 2 { 0 } else { (samples - FFT / 2) / HOP + 1 }
}

fn largest(rows: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = rows.as_chunks();
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk as &[f32; 16]) {
            *lane = lane.max(*v);
        }
    }
    rest.iter().chain(&lanes).fold(f32::NEG_INFINITY, |a, &b| a.max(b))
}

/// log10 of a normal positive number, the same wherever it is compiled; off by at most 6e-7 for 1e-10 … 1e10, of which
/// 4.8e-7 are the result's own rounding. Infinity counts as 2^128. Formula: Cephes, `log10f.c` (Moshier).
#[inline(always)]
fn log10(x: f32) -> f32 {
    const SQRT_HALF: u32 = 0x3f35_04f3;
    // log10 e and log10 2 in two parts each: products with the first are exact or nearly so.
    const E: (f32, f32) = (4.335_937_5e-1, 7.007_319e-4);
    const TWO: (f32, f32) = (3.007_812_5e-1, 2.487_456_6e-4);
    // x = (1 + m) 2^e with 1 + m in √½ … √2
    let exponent = x.to_bits().wrapping_sub(SQRT_HALF) as i32 >> 23;
    let m = f32::from_bits(x.to_bits().wrapping_sub((exponent as u32) << 23)) - 1.0;
    let e = exponent as f32;
    let mut p = 7.037_683_6e-2;
    p = p * m - 1.151_461e-1;
    p = p * m + 1.167_699_87e-1;
    p = p * m - 1.242_014_1e-1;
    p = p * m + 1.424_932_3e-1;
    p = p * m - 1.666_805_8e-1;
    p = p * m + 2.000_071_5e-1;
    p = p * m - 2.499_999_4e-1;
    p = p * m + 3.333_333e-1;
    // ln(1 + m) = m + y
    let y = m * m * (m * p - 0.5);
    (m + y) * E.1 + y * E.0 + m * E.0 + e * TWO.1 + e * TWO.0
}

/// What was computed of a growing audio.
#[derive(Default)]
pub(crate) struct Features {
    /// The samples that `rows` were computed of, or more.
    audio: Arc<[f32]>,
    bands: usize,
    /// `[frames, bands]`, as [`LogMel::extend`] gives them.
    rows: Vec<f32>,
}

impl Features {
    /// The rows of `audio`'s whole frames, for [`LogMel::window`]; computes those that are missing.
    pub(crate) fn rows(&mut self, audio: &Arc<[f32]>, mel: &mut LogMel) -> &[f32] {
        if self.bands != mel.bands() || !agree(&self.audio, audio) {
            *self = Self { bands: mel.bands(), ..Self::default() };
        }
        mel.extend(audio, &mut self.rows);
        if audio.len() > self.audio.len() {
            self.audio = audio.clone();
        }
        &self.rows
    }
}

/// Whether one begins with the other. Exact, so that no cache can give the features of other audio; it costs a few
/// hundredths of the frames it saves.
fn agree(a: &[f32], b: &[f32]) -> bool {
    // In pieces: a comparison that may end at any sample is not vectorised.
    let shared = a.len().min(b.len());
    a[..shared].chunks(256).zip(b[..shared].chunks(256)).all(|(a, b)| {
        let differing = a.iter().zip(b).fold(0, |bits, (a, b)| bits | (a.to_bits() ^ b.to_bits()));
        differing == 0
    })
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
    use proptest::prelude::*;

    use super::super::testing;
    use super::*;

    /// Loud and soft by turns, so that the floor is somewhere within.
    fn noise(count: usize, seed: u32) -> Vec<f32> {
        let noise = testing::noise(count, seed, 1.0).into_iter().enumerate();
        noise.map(|(i, x)| x * if i / 700 % 2 == 0 { 0.5 } else { 1e-5 }).collect()
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|v| v.to_bits()).collect()
    }

    #[test]
    fn silence_is_the_floor_everywhere() {
        let mut mel = LogMel::new(80);
        let mut out = Vec::new();
        for (samples, frames) in [(0, 10), (90, 3000), (16_000, 20)] {
            let floor = mel.compute(&vec![0.0; samples], frames, &mut out);
            assert_eq!(out.len(), 80 * frames);
            assert!((floor - -1.5).abs() < 1e-6 && out.iter().all(|v| *v == floor));
        }
    }

    #[test]
    fn a_tone_lies_in_its_band_and_bad_samples_do_not_panic() {
        for bands in [80, 128] {
            let mut mel = LogMel::new(bands);
            let tone: Vec<f32> = (0..16_000).map(|i| (i as f32 * std::f32::consts::FRAC_PI_8).sin()).collect(); // 1 kHz
            let mut out = Vec::new();
            let floor = mel.compute(&tone, 120, &mut out);
            let row = &out[50 * bands..51 * bands];
            let loudest = (0..bands).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
            let filter = &mel.filters[loudest];
            assert!((filter.first..filter.first + filter.weights.len()).contains(&25), "band {loudest}");
            assert!((floor - (row[loudest] - 2.0)).abs() < 1e-6);
            assert!(out[102 * bands..].iter().all(|v| *v == floor));
            mel.compute(&[f32::NAN, f32::INFINITY, 1e30, -1.0], 4, &mut out);
            assert!(out.iter().all(|v| v.is_finite()));
        }
    }

    /// The definition, in double precision: the edges count as much as the middle.
    #[test]
    fn frames_are_those_of_the_definition() {
        for count in [1, 150, 200, 201, 399, 400, 1000, 2345] {
            let samples = noise(count, 3);
            let mut out = Vec::new();
            let mut mel = LogMel::new(80);
            let frames = (count + 200).div_ceil(160);
            mel.compute(&samples, frames, &mut out);
            let energies = (0..frames).flat_map(|t| {
                let frame: Vec<f64> = (0..FFT)
                    .map(|i| {
                        let window = 0.5 - 0.5 * (std::f64::consts::TAU * i as f64 / 400.0).cos();
                        let at = (160 * t + i) as isize - 200;
                        samples.get(at.unsigned_abs()).map_or(0.0, |x| f64::from(*x) * window)
                    })
                    .collect();
                let turn = |k: usize, i: usize| std::f64::consts::TAU * (k * i % FFT) as f64 / 400.0;
                let sum = |part: fn(f64) -> f64, k| (0..FFT).map(|i| frame[i] * part(turn(k, i))).sum::<f64>();
                let power: Vec<f64> = (0..BINS).map(|k| sum(f64::cos, k).powi(2) + sum(f64::sin, k).powi(2)).collect();
                let energy = |filter: &Filter| {
                    power[filter.first..].iter().zip(&filter.weights).map(|(p, w)| p * f64::from(*w)).sum::<f64>()
                };
                mel.filters.iter().map(energy).collect::<Vec<_>>()
            });
            let logs: Vec<f64> = energies.map(|energy| energy.max(1e-10).log10()).collect();
            let floor = logs.iter().fold(f64::MIN, |a, b| a.max(*b)) - 8.0;
            for (i, (ours, log)) in out.iter().zip(&logs).enumerate() {
                let expected = (log.max(floor) + 4.0) / 4.0;
                assert!((f64::from(*ours) - expected).abs() < 1e-4, "{count} samples, {i}: {ours}, not {expected}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// However a caption grows, and though its end may be dropped again.
        #[test]
        fn growing_changes_no_bit(
            steps in prop::collection::vec(0..3000usize, 1..8),
            dropped in 0..4000usize,
            frames in 1..200usize,
            wide: bool,
            seed: u32,
        ) {
            let bands = if wide { 128 } else { 80 };
            let audio = noise(steps.iter().sum(), seed);
            let (mut mel, mut fresh) = (LogMel::new(bands), LogMel::new(bands));
            let (mut rows, mut out, mut expected) = (Vec::new(), Vec::new(), Vec::new());
            let mut to = 0;
            let grown = steps.iter().map(|step| {
                to += step;
                to
            });
            for to in grown.chain([audio.len().saturating_sub(dropped)]) {
                let audio = &audio[..to];
                mel.extend(audio, &mut rows);
                let floor = mel.window(audio, &rows, frames, &mut out);
                prop_assert_eq!(fresh.compute(audio, frames, &mut expected).to_bits(), floor.to_bits());
                prop_assert_eq!(bits(&out), bits(&expected));
                // Fewer frames are the beginning of more.
                fresh.compute(audio, FRAMES, &mut expected);
                prop_assert_eq!(bits(&out), bits(&expected[..out.len()]));
            }
        }
    }

    #[test]
    fn features_are_those_of_the_audio_at_hand() {
        let audio = noise(9000, 1);
        let mut early = audio.clone();
        early[3] += 0.1;
        let mut late = audio.clone();
        late[8999] = -late[8999];
        let mut features = Features::default();
        let (mut out, mut expected) = (Vec::new(), Vec::new());
        let jobs: [(&[f32], usize); 9] = [
            (&audio[..4000], 80),
            (&audio, 80),
            (&audio[..2500], 80),
            (&late, 80),
            (&early, 80),
            (&early, 128),
            (&audio, 80),
            (&audio[..100], 80),
            (&audio, 80),
        ];
        for (i, (audio, bands)) in jobs.into_iter().enumerate() {
            let mut mel = LogMel::new(bands);
            mel.compute(audio, 100, &mut expected);
            let rows = features.rows(&audio.into(), &mut mel);
            assert!(rows.len() >= whole(audio.len()) * bands);
            mel.window(audio, rows, 100, &mut out);
            assert_eq!(bits(&out), bits(&expected), "job {i}");
        }
        // A mark on the first frame shows who computes it again.
        let mut mel = LogMel::new(80);
        for (next, kept) in [(&audio, true), (&late, false)] {
            features.rows(&audio[..8999].into(), &mut mel);
            features.rows[0] = 7.0;
            assert_eq!(features.rows(&Arc::from(&next[..]), &mut mel)[0] == 7.0, kept);
        }
    }

    #[test]
    fn the_logarithm_is_as_close_as_it_says() {
        let (from, to) = (SMALLEST.to_bits(), 1e10f32.to_bits());
        for x in (from..=to).step_by(997).map(f32::from_bits) {
            let off = f64::from(log10(x)) - f64::from(x).log10();
            assert!(off.abs() <= 6e-7, "log10 {x} is off by {off}");
        }
        assert_eq!(log10(1.0), 0.0);
    }
}
