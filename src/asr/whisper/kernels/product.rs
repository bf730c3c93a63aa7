//! Rows of activations times packed weights.
//!
//! In: rows `[rows, inputs]` and [`Packed`] weights `[outputs, inputs]`. Out: `[rows, outputs]`.
//! Activations are quantised as they are found, each row (or block of a row) to ±127 of its own largest. Sums of 8-bit
//! products are exact 32-bit integers: with the weights' offset at most 255 · 127 · 32 768 inputs, 1.06e9.

#![expect(unsafe_code, reason = "kernels read tiles through pointers; the safe functions here check all sizes first")]

use std::ops::Range;

use super::aligned::Line;
use super::float::{gelu, round_i8};
use super::packed::{BLOCK, LANES, Packed, Packing, Weights};
use super::simd::Simd;
use super::{by_rows, dispatched};

/// What 8-bit weights are offset by, times the inputs' sum, is what their sums are too large by.
const OFFSET: i32 = 128;

/// What follows the sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    /// Written.
    Store,
    /// Through the GELU, then written.
    Gelu,
    /// Added to what is there: a residual.
    Add,
}

/// Rows ready to meet weights of one packing.
#[derive(Default)]
pub(crate) struct Activations {
    /// The packing they are ready for.
    packing: Option<Packing>,
    rows: usize,
    inputs: usize,
    float: Vec<f32>,
    /// `[rows, inputs]`
    bytes: Vec<i8>,
    /// One for each row, or block of a row; as the next.
    scales: Vec<f32>,
    /// Minus [`OFFSET`] times the sum of the bytes.
    corrections: Vec<i32>,
}

impl Activations {
    /// Takes rows `[rows, inputs]`, each starting `stride` after the one before.
    pub(crate) fn load(&mut self, level: super::Level, packing: Packing, x: &[f32], inputs: usize, stride: usize) {
        let rows = if x.len() < inputs { 0 } else { (x.len() - inputs) / stride + 1 };
        self.packing = None;
        if packing == Packing::Float {
            self.float.clear();
            for row in x.windows(inputs).step_by(stride).take(rows) {
                self.float.extend_from_slice(row);
            }
            (self.packing, self.rows, self.inputs) = (Some(packing), rows, inputs);
            return;
        }
        let block = if packing == Packing::Blocks { BLOCK } else { inputs };
        assert!(inputs.is_multiple_of(block));
        self.bytes.resize(self.bytes.len().max(rows * inputs), 0);
        let scales = rows * inputs / block;
        self.scales.resize(self.scales.len().max(scales), 0.0);
        self.corrections.resize(self.corrections.len().max(scales), 0);
        let parts = (&mut self.scales[..scales], &mut self.corrections[..scales]);
        quantise(level, x, rows, inputs, stride, block, &mut self.bytes[..rows * inputs], parts.0, parts.1);
        (self.packing, self.rows, self.inputs) = (Some(packing), rows, inputs);
    }

    /// A row's bytes, and the scale of a row that has only one.
    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> (&[i8], f32) {
        (&self.bytes[row * self.inputs..(row + 1) * self.inputs], self.scales[row])
    }

    /// All rows' bytes, `[rows, inputs]`.
    #[inline(always)]
    pub(super) fn bytes(&self) -> *const i8 {
        self.bytes.as_ptr()
    }

    /// What the sums of a row start from where weights keep their offset.
    #[inline(always)]
    pub(super) fn correction(&self, row: usize) -> i32 {
        self.corrections[row]
    }

    /// The bytes and their corrections: what must be the same on every level.
    #[cfg(test)]
    pub(super) fn integers(&self) -> (&[i8], &[i32]) {
        (&self.bytes, &self.corrections)
    }
}

dispatched! {
    /// Rows to bytes, blocks of `block` under one scale each.
    quantise(
        x: &[f32], rows: usize, inputs: usize, stride: usize, block: usize,
        bytes: &mut [i8], scales: &mut [f32], corrections: &mut [i32],
    ), quantise_body
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "operands of a kernel")]
fn quantise_body<S: Simd>(
    x: &[f32],
    rows: usize,
    inputs: usize,
    stride: usize,
    block: usize,
    bytes: &mut [i8],
    scales: &mut [f32],
    corrections: &mut [i32],
) {
    let mut blocks = bytes.chunks_exact_mut(block).zip(scales).zip(corrections);
    for row in x.windows(inputs).step_by(stride).take(rows) {
        for x in row.chunks_exact(block) {
            let Some(((bytes, scale), correction)) = blocks.next() else { return };
            // By their bits: in them infinity is above every number and NaN above infinity, so that what is not finite
            // makes the scale, and with it the product, not finite either.
            let (whole, rest) = x.as_chunks::<LANES>();
            // SAFETY: the level's instructions exist, and each pointer is good for sixteen floats.
            let mut top = unsafe {
                let top = whole.iter().fold(S::splat_i(0), |top, x| S::max_bits(top, x.as_ptr()));
                S::greatest(top)
            };
            for x in rest {
                top = top.max(x.to_bits() & !(1 << 31));
            }
            let top = f32::from_bits(top);
            // What is nothing beside a weight counts as zero: its scale would be denormal, its inverse infinite.
            let (step, inverse) = if top < 1e-30 { (0.0, 0.0) } else { (top / 127.0, 127.0 / top) };
            *scale = step;
            // SAFETY: both pointers are good for sixteen elements: `x` and `bytes` are as long, cut into sixteens.
            let mut sum = unsafe {
                let mut sums = S::splat_i(0);
                let inverse = S::splat(inverse);
                for (x, bytes) in whole.iter().zip(bytes.chunks_exact_mut(LANES)) {
                    let scaled = S::mul(S::load(x.as_ptr()), inverse);
                    sums = S::add_i(sums, S::round_i8(bytes.as_mut_ptr(), scaled));
                }
                S::sum(sums)
            };
            // Wrapping: what is not finite gives bytes beyond ±127, and no panic.
            for (x, byte) in rest.iter().zip(&mut bytes[whole.len() * LANES..]) {
                *byte = round_i8(x * inverse);
                sum = sum.wrapping_add(i32::from(*byte));
            }
            *correction = sum.wrapping_mul(-OFFSET);
        }
    }
}

/// `out = x · weightᵀ + bias`, then `finish`; `out` has contiguous rows of [`Packed::outputs`], which must be whole tiles.
pub(crate) fn product(
    level: super::Level,
    x: &Activations,
    weights: &Packed,
    bias: Option<&[f32]>,
    finish: Finish,
    out: &mut [f32],
) {
    assert!(weights.outputs.is_multiple_of(LANES));
    assert_eq!(out.len(), x.rows * weights.outputs);
    let to = out.as_mut_ptr();
    // SAFETY: the assertion is what is asked for: every tile is whole.
    unsafe { product_into(level, x, weights, 0..weights.tiles(), bias, finish, to, weights.outputs) }
}

/// Some of the tiles: writes columns `16 * tiles.start ..` of rows that start `stride` apart at `out`.
///
/// # Safety
/// `out` must be good for `(rows − 1) · stride + 16 · tiles.end` floats, and nobody else may touch columns
/// `16 · tiles.start .. 16 · tiles.end` of the rows meanwhile.
#[expect(clippy::too_many_arguments, reason = "operands of a kernel")]
pub(crate) unsafe fn product_into(
    level: super::Level,
    x: &Activations,
    weights: &Packed,
    tiles: Range<usize>,
    bias: Option<&[f32]>,
    finish: Finish,
    out: *mut f32,
    stride: usize,
) {
    assert_eq!(x.packing, Some(weights.packing()));
    assert_eq!(x.inputs, weights.inputs);
    assert!(tiles.end <= weights.tiles() && bias.is_none_or(|bias| bias.len() >= tiles.end * LANES));
    let target = Target { out, stride, bias: bias.map_or(std::ptr::null(), <[f32]>::as_ptr), finish };
    match &weights.weights {
        Weights::Float(w) => floats(level, x, w, tiles, target),
        Weights::Rows(w, scales) => rows(level, x, w, scales, tiles, target),
        Weights::Blocks(w, scales) => blocks(level, x, w, scales, tiles, target),
    }
}

/// Where sums go.
#[derive(Clone, Copy)]
struct Target {
    out: *mut f32,
    stride: usize,
    /// Null for none.
    bias: *const f32,
    finish: Finish,
}

impl Target {
    /// Finishes a tile whose first element is at (`row`, 16 · `tile`).
    #[inline(always)]
    unsafe fn write<S: Simd, const M: usize, const N: usize>(self, row: usize, tile: usize, sums: [[S::F; N]; M]) {
        let column = tile * LANES;
        for (m, sums) in sums.into_iter().enumerate() {
            // SAFETY: `product_into`'s caller promised all rows and columns of the tiles it named.
            let line = unsafe { self.out.add((row + m) * self.stride + column) };
            for (n, mut sum) in sums.into_iter().enumerate() {
                // SAFETY: as above; a bias has an element for each output of whole tiles.
                unsafe {
                    if !self.bias.is_null() {
                        sum = S::add(sum, S::load(self.bias.add(column + n * LANES)));
                    }
                    if self.finish == Finish::Add {
                        sum = S::add(sum, S::load(line.add(n * LANES)));
                    }
                    S::store(line.add(n * LANES), sum);
                }
            }
            if self.finish == Finish::Gelu {
                // SAFETY: just written.
                let line = unsafe { std::slice::from_raw_parts_mut(line, N * LANES) };
                line.iter_mut().for_each(|v| *v = gelu::<S>(*v));
            }
        }
    }
}

dispatched! {
    rows(x: &Activations, w: &[Line], scales: &[f32], tiles: Range<usize>, target: Target), rows_body
}

#[inline(always)]
fn rows_body<S: Simd>(x: &Activations, w: &[Line], scales: &[f32], tiles: Range<usize>, target: Target) {
    let mut tile = tiles.start;
    while tile < tiles.end {
        // SAFETY: `product_into` has checked packing and sizes; a tile holds `inputs / 4` lines and sixteen scales.
        unsafe {
            if S::WIDE && tiles.end - tile >= 2 {
                by_rows!(x.rows, rows_tile, 2, (x, w, scales, tile, target));
                tile += 2;
            } else {
                by_rows!(x.rows, rows_tile, 1, (x, w, scales, tile, target));
                tile += 1;
            }
        }
    }
}

#[inline(always)]
unsafe fn rows_tile<S: Simd, const M: usize, const N: usize>(
    row: usize,
    x: &Activations,
    w: &[Line],
    scales: &[f32],
    tile: usize,
    target: Target,
) {
    let (inputs, lines) = (x.inputs, x.inputs / 4);
    // SAFETY: rows `row .. row + M` and tiles `tile .. tile + N` exist.
    unsafe {
        let (bytes, w) = (x.bytes.as_ptr().add(row * inputs), w.as_ptr().add(tile * lines));
        let mut sums = [[S::splat_i(0); N]; M];
        if S::OFFSET {
            for (m, sums) in sums.iter_mut().enumerate() {
                *sums = [S::splat_i(*x.corrections.get_unchecked(row + m)); N];
            }
        }
        for line in 0..lines {
            let mut weights = [S::weights(w.add(line).cast()); N];
            for (n, weights) in weights.iter_mut().enumerate().skip(1) {
                *weights = S::weights(w.add(n * lines + line).cast());
            }
            for (m, sums) in sums.iter_mut().enumerate() {
                let four = bytes.add(m * inputs + line * 4).cast::<i32>().read_unaligned();
                for (sum, w) in sums.iter_mut().zip(weights) {
                    *sum = S::dot(*sum, w, four);
                }
            }
        }
        let mut out = [[S::splat(0.0); N]; M];
        for (m, out) in out.iter_mut().enumerate() {
            let scale = S::splat(*x.scales.get_unchecked(row + m));
            for (n, out) in out.iter_mut().enumerate() {
                let scale = S::mul(scale, S::load(scales.as_ptr().add((tile + n) * LANES)));
                *out = S::mul(S::to_f(sums[m][n]), scale);
            }
        }
        target.write::<S, M, N>(row, tile, out);
    }
}

dispatched! {
    blocks(x: &Activations, w: &[Line], scales: &[u16], tiles: Range<usize>, target: Target), blocks_body
}

#[inline(always)]
fn blocks_body<S: Simd>(x: &Activations, w: &[Line], scales: &[u16], tiles: Range<usize>, target: Target) {
    let mut tile = tiles.start;
    while tile < tiles.end {
        // SAFETY: as in `rows_body`; a tile has sixteen scales for every block.
        unsafe {
            if S::WIDE && x.rows == 1 && tiles.end - tile >= 4 {
                blocks_tile::<S, 1, 4>(0, x, w, scales, tile, target);
                tile += 4;
            } else {
                by_rows!(x.rows, blocks_tile, 1, (x, w, scales, tile, target));
                tile += 1;
            }
        }
    }
}

#[inline(always)]
unsafe fn blocks_tile<S: Simd, const M: usize, const N: usize>(
    row: usize,
    x: &Activations,
    w: &[Line],
    scales: &[u16],
    tile: usize,
    target: Target,
) {
    const LINES: usize = BLOCK / 4;
    let (inputs, blocks) = (x.inputs, x.inputs / BLOCK);
    // SAFETY: rows `row .. row + M` and tiles `tile .. tile + N` exist.
    unsafe {
        let (bytes, w) = (x.bytes.as_ptr().add(row * inputs), w.as_ptr().add(tile * blocks * LINES));
        let scales = scales.as_ptr().add(tile * blocks * LANES);
        let mut out = [[S::splat(0.0); N]; M];
        for block in 0..blocks {
            let mut sums = [[S::splat_i(0); N]; M];
            if S::OFFSET {
                for (m, sums) in sums.iter_mut().enumerate() {
                    *sums = [S::splat_i(*x.corrections.get_unchecked((row + m) * blocks + block)); N];
                }
            }
            for line in block * LINES..(block + 1) * LINES {
                let mut weights = [S::weights(w.add(line).cast()); N];
                for (n, weights) in weights.iter_mut().enumerate().skip(1) {
                    *weights = S::weights(w.add(n * blocks * LINES + line).cast());
                }
                for (m, sums) in sums.iter_mut().enumerate() {
                    let four = bytes.add(m * inputs + line * 4).cast::<i32>().read_unaligned();
                    for (sum, w) in sums.iter_mut().zip(weights) {
                        *sum = S::dot(*sum, w, four);
                    }
                }
            }
            for n in 0..N {
                let weights_scale = S::halves(scales.add((n * blocks + block) * LANES));
                for (m, (out, sums)) in out.iter_mut().zip(&sums).enumerate() {
                    let scale = S::splat(*x.scales.get_unchecked((row + m) * blocks + block));
                    out[n] = S::mul_add(S::to_f(sums[n]), S::mul(scale, weights_scale), out[n]);
                }
            }
        }
        target.write::<S, M, N>(row, tile, out);
    }
}

dispatched! {
    floats(x: &Activations, w: &[f32], tiles: Range<usize>, target: Target), floats_body
}

#[inline(always)]
fn floats_body<S: Simd>(x: &Activations, w: &[f32], tiles: Range<usize>, target: Target) {
    let mut tile = tiles.start;
    while tile < tiles.end {
        // SAFETY: as in `rows_body`; a tile holds sixteen weights for each input.
        unsafe {
            if S::WIDE && tiles.end - tile >= 2 {
                by_rows!(x.rows, floats_tile, 2, (x, w, tile, target));
                tile += 2;
            } else {
                by_rows!(x.rows, floats_tile, 1, (x, w, tile, target));
                tile += 1;
            }
        }
    }
}

#[inline(always)]
unsafe fn floats_tile<S: Simd, const M: usize, const N: usize>(
    row: usize,
    x: &Activations,
    w: &[f32],
    tile: usize,
    target: Target,
) {
    let inputs = x.inputs;
    // SAFETY: rows `row .. row + M` and tiles `tile .. tile + N` exist.
    unsafe {
        let (x, w) = (x.float.as_ptr().add(row * inputs), w.as_ptr().add(tile * inputs * LANES));
        let mut sums = [[S::splat(0.0); N]; M];
        for input in 0..inputs {
            let mut weights = [S::load(w.add(input * LANES)); N];
            for (n, weights) in weights.iter_mut().enumerate().skip(1) {
                *weights = S::load(w.add((n * inputs + input) * LANES));
            }
            for (m, sums) in sums.iter_mut().enumerate() {
                let x = S::splat(*x.add(m * inputs + input));
                for (sum, w) in sums.iter_mut().zip(weights) {
                    *sum = S::mul_add(x, w, *sum);
                }
            }
        }
        target.write::<S, M, N>(row, tile, sums);
    }
}
