//! The inner loops, compiled for the baseline and for AVX2 with FMA and F16C, chosen at run time.
//!
//! In: stored weights as bytes, activations as `f32`. Out: `f32`.
//! What is not plain safe Rust here are the calls into code compiled for AVX2.

#![expect(unsafe_code, reason = "functions compiled for AVX2 are called behind a run-time check")]

use super::load::Form;

/// Which of the two compilations runs. Made by [`Level::detect`] only: to hold `Avx2` is proof of the features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level {
    avx2: bool,
}

impl Level {
    /// What this processor can do.
    pub(crate) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        let avx2 = std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("fma")
            && std::arch::is_x86_feature_detected!("f16c");
        #[cfg(not(target_arch = "x86_64"))]
        let avx2 = false;
        Self { avx2 }
    }

    /// The baseline, wherever we run.
    #[cfg(test)]
    pub(crate) const PORTABLE: Self = Self { avx2: false };
}

/// Defines a function that runs `$body::<true>` compiled for AVX2, FMA and F16C, or `$body::<false>` for the baseline.
macro_rules! dispatched {
    ($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?, $body:ident) => {
        $(#[$doc])*
        pub(crate) fn $name(level: Level, $($argument: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2($($argument: $type),*) $(-> $result)? {
                    $body::<true>($($argument),*)
                }
                if level.avx2 {
                    // SAFETY: `Level::detect` found AVX2, FMA and F16C, and nothing else sets the flag.
                    return unsafe { avx2($($argument),*) };
                }
            }
            $body::<false>($($argument),*)
        }
    };
}

dispatched! {
    /// The stored weights `bytes` as floats: `out.len()` of them.
    dequantise(form: Form, bytes: &[u8], out: &mut [f32]), dequantise_body
}
dispatched! {
    /// `out[row] = weights[row] · x` for weights `[out.len(), x.len()]` in their stored form.
    gemv(form: Form, bytes: &[u8], x: &[f32], out: &mut [f32]), gemv_body
}
dispatched! {
    /// `out[row] = rows[row] · x` for rows `[out.len(), x.len()]`.
    dots(rows: &[f32], x: &[f32], out: &mut [f32]), dots_body
}
dispatched! {
    /// `out = Σ weights[row] rows[row]` for rows `[weights.len(), out.len()]`.
    weighted_sum(rows: &[f32], weights: &[f32], out: &mut [f32]), weighted_sum_body
}
dispatched! {
    /// Softmax of each row of `rows`, `[rows, width]`, in place.
    softmax(rows: &mut [f32], width: usize), softmax_body
}
dispatched! {
    /// Layer norm of each row, ε = 1e-5 (Whisper's), then times `weight` plus `bias`: `[rows, weight.len()]`.
    layer_norm(x: &[f32], weight: &[f32], bias: &[f32], out: &mut [f32]), layer_norm_body
}
dispatched! {
    /// `x + bias` through the exact GELU, in place: `[rows, bias.len()]`.
    ///
    /// erf by Abramowitz and Stegun, 7.1.26 (|error| ≤ 1.5e-7); with rounding, GELU is off by less than 1e-6.
    bias_gelu(x: &mut [f32], bias: &[f32]), bias_gelu_body
}
dispatched! {
    /// The largest of `x[i] + mask[i]`, NaN left out; −∞ where nothing is left.
    masked_max(x: &[f32], mask: &[f32]) -> f32, masked_max_body
}
dispatched! {
    /// `Σ exp(x[i] + mask[i] − max)`.
    masked_sum_exp(x: &[f32], mask: &[f32], max: f32) -> f32, masked_sum_exp_body
}

const LANES: usize = 8;
type Lanes = [f32; LANES];
/// Weights that are unpacked at a time: one block of q8_0.
const CHUNK: usize = 32;
type Chunk = [Lanes; CHUNK / LANES];

#[inline(always)]
fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    // Without FMA `f32::mul_add` would be a call of the C library.
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

#[inline(always)]
fn lanes_mul_add<const FMA: bool>(a: &Lanes, b: &Lanes, c: &Lanes) -> Lanes {
    let mut out = *c;
    for i in 0..LANES {
        out[i] = mul_add::<FMA>(a[i], b[i], c[i]);
    }
    out
}

#[inline(always)]
fn lanes(x: &[f32], from: usize) -> Lanes {
    let mut out = [0.0; LANES];
    out.copy_from_slice(&x[from..from + LANES]);
    out
}

#[inline(always)]
fn sum(a: &Lanes) -> f32 {
    ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
}

/// IEEE half to single without a table or a branch; subnormals, infinities and NaN included.
#[inline(always)]
pub(super) fn half(bits: u16) -> f32 {
    let magnitude = u32::from(bits & 0x7fff) << 13;
    let exponent = magnitude & 0x0f80_0000;
    let normal = f32::from_bits(magnitude.wrapping_add(112 << 23));
    let special = f32::from_bits(magnitude | 0x7f80_0000);
    let subnormal = f32::from_bits(magnitude.wrapping_add(113 << 23)) - f32::from_bits(113 << 23);
    let value = if exponent == 0x0f80_0000 { special } else { normal };
    let value = if exponent == 0 { subnormal } else { value };
    f32::from_bits(value.to_bits() | (u32::from(bits & 0x8000) << 16))
}

/// How 32 weights are stored.
trait Unpack {
    const BYTES: usize;
    /// `AVX2` only within code compiled for it.
    fn unpack<const AVX2: bool>(bytes: &[u8]) -> Chunk;
}

struct F32;
struct F16;
struct Bf16;
struct Q8;

impl Unpack for F32 {
    const BYTES: usize = 4 * CHUNK;
    #[inline(always)]
    fn unpack<const AVX2: bool>(bytes: &[u8]) -> Chunk {
        let mut out = Chunk::default();
        for (v, four) in out.as_flattened_mut().iter_mut().zip(bytes.chunks_exact(4)) {
            *v = f32::from_le_bytes([four[0], four[1], four[2], four[3]]);
        }
        out
    }
}

impl Unpack for F16 {
    const BYTES: usize = 2 * CHUNK;
    #[inline(always)]
    fn unpack<const AVX2: bool>(bytes: &[u8]) -> Chunk {
        #[cfg(target_arch = "x86_64")]
        if AVX2 {
            // SAFETY: only code behind `Level::detect`, which found F16C, sets `AVX2`.
            return unsafe { halves(bytes) };
        }
        let mut out = Chunk::default();
        for (v, two) in out.as_flattened_mut().iter_mut().zip(bytes.chunks_exact(2)) {
            *v = half(u16::from_le_bytes([two[0], two[1]]));
        }
        out
    }
}

impl Unpack for Bf16 {
    const BYTES: usize = 2 * CHUNK;
    #[inline(always)]
    fn unpack<const AVX2: bool>(bytes: &[u8]) -> Chunk {
        let mut out = Chunk::default();
        for (v, two) in out.as_flattened_mut().iter_mut().zip(bytes.chunks_exact(2)) {
            *v = f32::from_bits(u32::from(u16::from_le_bytes([two[0], two[1]])) << 16);
        }
        out
    }
}

impl Unpack for Q8 {
    const BYTES: usize = 2 + CHUNK;
    #[inline(always)]
    fn unpack<const AVX2: bool>(bytes: &[u8]) -> Chunk {
        let scale = half(u16::from_le_bytes([bytes[0], bytes[1]]));
        let mut out = Chunk::default();
        for (v, &q) in out.as_flattened_mut().iter_mut().zip(&bytes[2..2 + CHUNK]) {
            *v = scale * f32::from(q as i8);
        }
        out
    }
}

/// 32 half-precision numbers, 8 at a time.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn halves(bytes: &[u8]) -> Chunk {
    use std::arch::x86_64::{_mm_set_epi64x, _mm256_cvtph_ps, _mm256_storeu_ps};
    let mut out = Chunk::default();
    for (lanes, bytes) in out.iter_mut().zip(bytes.chunks_exact(16)) {
        let mut halves = [[0u8; 8]; 2];
        halves.as_flattened_mut().copy_from_slice(bytes);
        let [low, high] = halves.map(i64::from_le_bytes);
        // SAFETY: `lanes` holds eight floats.
        unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), _mm256_cvtph_ps(_mm_set_epi64x(high, low))) };
    }
    out
}

/// The last weights of a row or tensor that do not fill a chunk, padded with zeros.
#[inline(always)]
fn unpack_rest<U: Unpack, const AVX2: bool>(bytes: &[u8]) -> Chunk {
    let mut padded = [0u8; 4 * CHUNK];
    padded[..bytes.len()].copy_from_slice(bytes);
    U::unpack::<AVX2>(&padded[..U::BYTES])
}

#[inline(always)]
fn dequantise_as<U: Unpack, const AVX2: bool>(bytes: &[u8], out: &mut [f32]) {
    let mut stored = bytes.chunks_exact(U::BYTES);
    let mut chunks = out.chunks_exact_mut(CHUNK);
    for (chunk, bytes) in chunks.by_ref().zip(stored.by_ref()) {
        chunk.copy_from_slice(U::unpack::<AVX2>(bytes).as_flattened());
    }
    let rest = chunks.into_remainder();
    if !rest.is_empty() {
        rest.copy_from_slice(&unpack_rest::<U, AVX2>(stored.remainder()).as_flattened()[..rest.len()]);
    }
}

#[inline(always)]
fn dequantise_body<const FMA: bool>(form: Form, bytes: &[u8], out: &mut [f32]) {
    match form {
        Form::F32 => dequantise_as::<F32, FMA>(bytes, out),
        Form::F16 => dequantise_as::<F16, FMA>(bytes, out),
        Form::Bf16 => dequantise_as::<Bf16, FMA>(bytes, out),
        Form::Q8_0 => dequantise_as::<Q8, FMA>(bytes, out),
    }
}

#[inline(always)]
fn gemv_as<U: Unpack, const FMA: bool>(bytes: &[u8], row_bytes: usize, x: &[f32], out: &mut [f32]) {
    let whole = x.len() / CHUNK;
    let mut x_rest = [0.0f32; CHUNK];
    x_rest[..x.len() - whole * CHUNK].copy_from_slice(&x[whole * CHUNK..]);
    for (y, row) in out.iter_mut().zip(bytes.chunks_exact(row_bytes)) {
        let mut sums = Chunk::default();
        for (bytes, x) in row.chunks_exact(U::BYTES).zip(x.chunks_exact(CHUNK)) {
            let w = U::unpack::<FMA>(bytes);
            for j in 0..CHUNK / LANES {
                sums[j] = lanes_mul_add::<FMA>(&w[j], &lanes(x, j * LANES), &sums[j]);
            }
        }
        let rest = &row[whole * U::BYTES..];
        if !rest.is_empty() {
            let w = unpack_rest::<U, FMA>(rest);
            for j in 0..CHUNK / LANES {
                sums[j] = lanes_mul_add::<FMA>(&w[j], &lanes(&x_rest, j * LANES), &sums[j]);
            }
        }
        let mut total = [0.0; LANES];
        for i in 0..LANES {
            total[i] = (sums[0][i] + sums[1][i]) + (sums[2][i] + sums[3][i]);
        }
        *y = sum(&total);
    }
}

#[inline(always)]
fn gemv_body<const FMA: bool>(form: Form, bytes: &[u8], x: &[f32], out: &mut [f32]) {
    let row_bytes = form.bytes(x.len()).max(1);
    match form {
        Form::F32 => gemv_as::<F32, FMA>(bytes, row_bytes, x, out),
        Form::F16 => gemv_as::<F16, FMA>(bytes, row_bytes, x, out),
        Form::Bf16 => gemv_as::<Bf16, FMA>(bytes, row_bytes, x, out),
        Form::Q8_0 => gemv_as::<Q8, FMA>(bytes, row_bytes, x, out),
    }
}

#[inline(always)]
fn dots_body<const FMA: bool>(rows: &[f32], x: &[f32], out: &mut [f32]) {
    for (y, row) in out.iter_mut().zip(rows.chunks_exact(x.len().max(1))) {
        let (mut a, mut b) = ([0.0; LANES], [0.0; LANES]);
        let mut left = row.chunks_exact(2 * LANES);
        let mut right = x.chunks_exact(2 * LANES);
        for (l, r) in left.by_ref().zip(right.by_ref()) {
            a = lanes_mul_add::<FMA>(&lanes(l, 0), &lanes(r, 0), &a);
            b = lanes_mul_add::<FMA>(&lanes(l, LANES), &lanes(r, LANES), &b);
        }
        let mut total = 0.0;
        for (l, r) in left.remainder().iter().zip(right.remainder()) {
            total += l * r;
        }
        for i in 0..LANES {
            a[i] += b[i];
        }
        *y = total + sum(&a);
    }
}

#[inline(always)]
fn weighted_sum_body<const FMA: bool>(rows: &[f32], weights: &[f32], out: &mut [f32]) {
    out.fill(0.0);
    for (row, &w) in rows.chunks_exact(out.len().max(1)).zip(weights) {
        for (o, &v) in out.iter_mut().zip(row) {
            *o = mul_add::<FMA>(w, v, *o);
        }
    }
}

/// exp within 2 ulp for −60 ≤ x ≤ 88 and clamped outside; NaN gives exp(−60). Cody–Waite reduction and the
/// polynomial of Cephes' `expf`.
///
/// exp(−60) is 9e-27, nothing beside the largest of a softmax. Smaller results would make denormal products behind it,
/// and a matrix product over denormals takes a hundred times as long.
#[expect(clippy::manual_clamp, reason = "`clamp` would let NaN through to the bits of the exponent")]
#[inline(always)]
fn exp<const FMA: bool>(x: f32) -> f32 {
    const LOWEST_EXPONENT: f32 = -60.0;
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³: adding it rounds to an integer, held in the low bits
    let x = x.max(LOWEST_EXPONENT).min(88.0);
    let shifted = mul_add::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = mul_add::<FMA>(n, -0.693_359_4, x);
    let r = mul_add::<FMA>(n, 2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = mul_add::<FMA>(p, r, c);
    }
    let p = mul_add::<FMA>(p, r * r, r) + 1.0;
    let scale = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    p * f32::from_bits(scale)
}

/// `max` that vectorises; NaN on the right is left out.
#[inline(always)]
fn greater(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

#[inline(always)]
fn softmax_body<const FMA: bool>(rows: &mut [f32], width: usize) {
    for row in rows.chunks_exact_mut(width.max(1)) {
        let mut top = [f32::NEG_INFINITY; 2 * LANES];
        let chunks = row.chunks_exact(2 * LANES);
        let rest = chunks.remainder();
        for c in chunks {
            for i in 0..2 * LANES {
                top[i] = greater(top[i], c[i]);
            }
        }
        let max = rest.iter().chain(&top).fold(f32::NEG_INFINITY, |a, &b| greater(a, b));
        let mut sums = [0.0f32; 2 * LANES];
        let mut chunks = row.chunks_exact_mut(2 * LANES);
        for c in chunks.by_ref() {
            for i in 0..2 * LANES {
                c[i] = exp::<FMA>(c[i] - max);
                sums[i] += c[i];
            }
        }
        let mut total = 0.0;
        for v in chunks.into_remainder() {
            *v = exp::<FMA>(*v - max);
            total += *v;
        }
        let scale = 1.0 / (total + sums.iter().sum::<f32>());
        for v in row.iter_mut() {
            *v *= scale;
        }
    }
}

#[inline(always)]
fn lane_sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0f32; 2 * LANES];
    let chunks = x.chunks_exact(2 * LANES);
    let mut total = 0.0;
    for &v in chunks.remainder() {
        total += f(v);
    }
    for c in chunks {
        for i in 0..2 * LANES {
            sums[i] += f(c[i]);
        }
    }
    total + sums.iter().sum::<f32>()
}

#[inline(always)]
fn layer_norm_body<const FMA: bool>(x: &[f32], weight: &[f32], bias: &[f32], out: &mut [f32]) {
    let width = weight.len().max(1);
    for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        let mean = lane_sum(x, |v| v) / width as f32;
        let variance = lane_sum(x, |v| (v - mean) * (v - mean)) / width as f32;
        let scale = 1.0 / (variance + 1e-5).sqrt();
        for (((o, &v), &w), &b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
            *o = mul_add::<FMA>((v - mean) * scale, w, b);
        }
    }
}

#[inline(always)]
fn gelu<const FMA: bool>(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / mul_add::<FMA>(0.327_591_1, z, 1.0);
    let mut p = 1.061_405_4f32;
    for c in [-1.453_152, 1.421_413_8, -0.284_496_72, 0.254_829_6] {
        p = mul_add::<FMA>(p, t, c);
    }
    // Half of erfc(z): the share that the other side of zero keeps.
    let other = 0.5 * p * t * exp::<FMA>(-z * z);
    if x > 0.0 { x - x * other } else { x * other }
}

#[inline(always)]
fn bias_gelu_body<const FMA: bool>(x: &mut [f32], bias: &[f32]) {
    for row in x.chunks_exact_mut(bias.len().max(1)) {
        for (v, &b) in row.iter_mut().zip(bias) {
            *v = gelu::<FMA>(*v + b);
        }
    }
}

#[inline(always)]
fn masked_max_body<const FMA: bool>(x: &[f32], mask: &[f32]) -> f32 {
    let mut top = [f32::NEG_INFINITY; 2 * LANES];
    let (xs, masks) = (x.chunks_exact(2 * LANES), mask.chunks_exact(2 * LANES));
    let mut max = f32::NEG_INFINITY;
    for (&v, &m) in xs.remainder().iter().zip(masks.remainder()) {
        max = greater(max, v + m);
    }
    for (c, m) in xs.zip(masks) {
        for i in 0..2 * LANES {
            top[i] = greater(top[i], c[i] + m[i]);
        }
    }
    top.iter().fold(max, |a, &b| greater(a, b))
}

#[inline(always)]
fn masked_sum_exp_body<const FMA: bool>(x: &[f32], mask: &[f32], max: f32) -> f32 {
    let mut sums = [0.0f32; 2 * LANES];
    let (xs, masks) = (x.chunks_exact(2 * LANES), mask.chunks_exact(2 * LANES));
    let mut total = 0.0;
    for (&v, &m) in xs.remainder().iter().zip(masks.remainder()) {
        total += exp::<FMA>(v + m - max);
    }
    for (c, m) in xs.zip(masks) {
        for i in 0..2 * LANES {
            sums[i] += exp::<FMA>(c[i] + m[i] - max);
        }
    }
    total + sums.iter().sum::<f32>()
}

#[cfg(test)]
mod tests;
