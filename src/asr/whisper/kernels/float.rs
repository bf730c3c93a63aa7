//! Element by element: norms, the GELU, exp.
//!
//! In and out: rows of `f32`. Plain loops over sixteen lanes, which the compiler turns into each level's instructions.

#![cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "calls into code compiled for instructions that were checked for")
)]

use super::dispatched;
use super::packed::LANES;
use super::simd::Simd;

dispatched! {
    /// Layer norm of each row, ε = 1e-5 (Whisper's), then times `weight` plus `bias`: `[rows, weight.len()]`.
    pub(crate) layer_norm(x: &[f32], weight: &[f32], bias: &[f32], out: &mut [f32]), layer_norm_body
}
dispatched! {
    /// The largest of `x[i] + mask[i]`, NaN left out; −∞ where nothing is left.
    pub(crate) masked_max(x: &[f32], mask: &[f32]) -> f32, masked_max_body
}
dispatched! {
    /// `Σ exp(x[i] + mask[i] − max)`.
    pub(crate) masked_sum_exp(x: &[f32], mask: &[f32], max: f32) -> f32, masked_sum_exp_body
}

#[inline(always)]
pub(super) fn mul_add<S: Simd>(a: f32, b: f32, c: f32) -> f32 {
    // Without FMA `f32::mul_add` would be a call of the C library.
    if S::FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `max` that vectorises; NaN on the right is left out.
#[inline(always)]
pub(super) fn greater(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// exp within 2 ulp for −60 ≤ x ≤ 88 and clamped outside; NaN gives exp(−60). Cody–Waite reduction and the
/// polynomial of Cephes' `expf`.
///
/// exp(−60) is 9e-27, nothing beside the largest of a softmax. Smaller results would make denormal products behind it,
/// and products over denormals take a hundred times as long. That is why no kernel needs to change the processor's
/// treatment of denormals, which Rust leaves undefined and which would outlive the decoder on its caller's thread.
#[expect(clippy::manual_clamp, reason = "`clamp` would let NaN through to the bits of the exponent")]
#[inline(always)]
pub(super) fn exp<S: Simd>(x: f32) -> f32 {
    const LOWEST_EXPONENT: f32 = -60.0;
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³: adding it rounds to an integer, held in the low bits
    let x = x.max(LOWEST_EXPONENT).min(88.0);
    let shifted = mul_add::<S>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = mul_add::<S>(n, -0.693_359_4, x);
    let r = mul_add::<S>(n, 2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = mul_add::<S>(p, r, c);
    }
    let p = mul_add::<S>(p, r * r, r) + 1.0;
    let scale = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    p * f32::from_bits(scale)
}

/// The exact GELU, x Φ(x). erf by Abramowitz and Stegun, 7.1.26 (|error| ≤ 1.5e-7); with rounding off by less than 1e-6.
#[inline(always)]
pub(super) fn gelu<S: Simd>(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / mul_add::<S>(0.327_591_1, z, 1.0);
    let mut p = 1.061_405_4f32;
    for c in [-1.453_152, 1.421_413_8, -0.284_496_72, 0.254_829_6] {
        p = mul_add::<S>(p, t, c);
    }
    // Half of erfc(z): the share that the other side of zero keeps.
    let other = 0.5 * p * t * exp::<S>(-z * z);
    if x > 0.0 { x - x * other } else { x * other }
}

/// The nearest integer, ties to even, of −128 … 127: adding 1.5 · 2²³ leaves it in the low bits. `round_ties_even` would
/// be a call of the C library on the baseline.
#[inline(always)]
pub(super) fn round_i8(x: f32) -> i8 {
    (x + 12_582_912.0).to_bits() as i8
}

/// Sixteen lanes added in one fixed order.
#[inline(always)]
pub(super) fn sum(lanes: &[f32; LANES]) -> f32 {
    let eight: [f32; 8] = std::array::from_fn(|i| lanes[i] + lanes[i + 8]);
    ((eight[0] + eight[4]) + (eight[2] + eight[6])) + ((eight[1] + eight[5]) + (eight[3] + eight[7]))
}

#[inline(always)]
fn sum_of(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            sums[i] += f(chunk[i]);
        }
    }
    rest.iter().fold(sum(&sums), |total, &v| total + f(v))
}

#[inline(always)]
fn layer_norm_body<S: Simd>(x: &[f32], weight: &[f32], bias: &[f32], out: &mut [f32]) {
    let width = weight.len().max(1);
    for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        let mean = sum_of(x, |v| v) / width as f32;
        let variance = sum_of(x, |v| (v - mean) * (v - mean)) / width as f32;
        let scale = 1.0 / (variance + 1e-5).sqrt();
        for (((o, &v), &w), &b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
            *o = mul_add::<S>((v - mean) * scale, w, b);
        }
    }
}

#[inline(always)]
fn masked_max_body<S: Simd>(x: &[f32], mask: &[f32]) -> f32 {
    let mut top = [f32::NEG_INFINITY; LANES];
    let ((xs, x_rest), (masks, mask_rest)) = (x.as_chunks::<LANES>(), mask.as_chunks::<LANES>());
    for (x, m) in xs.iter().zip(masks) {
        for i in 0..LANES {
            top[i] = greater(top[i], x[i] + m[i]);
        }
    }
    let rest = x_rest.iter().zip(mask_rest).map(|(x, m)| x + m);
    top.into_iter().chain(rest).fold(f32::NEG_INFINITY, greater)
}

#[inline(always)]
fn masked_sum_exp_body<S: Simd>(x: &[f32], mask: &[f32], max: f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let ((xs, x_rest), (masks, mask_rest)) = (x.as_chunks::<LANES>(), mask.as_chunks::<LANES>());
    for (x, m) in xs.iter().zip(masks) {
        for i in 0..LANES {
            sums[i] += exp::<S>(x[i] + m[i] - max);
        }
    }
    x_rest.iter().zip(mask_rest).fold(sum(&sums), |total, (x, m)| total + exp::<S>(x + m - max))
}

#[cfg(test)]
#[inline(always)]
fn gelu_all<S: Simd>(x: &mut [f32]) {
    x.iter_mut().for_each(|v| *v = gelu::<S>(*v));
}

#[cfg(test)]
dispatched! {
    /// The GELU alone, in place.
    pub(super) gelu_in_place(x: &mut [f32]), gelu_all
}
