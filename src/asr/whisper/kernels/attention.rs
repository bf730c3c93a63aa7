//! Attention, one head after the other, from scores to mixed values without leaving the cache.
//!
//! In: queries `[rows, width]` and sets of [`Keys`]. Out: mixed values `[rows, width]`.
//! Keys and values come in blocks of sixteen positions. In floats a block holds, for each head, `[size, 16]` keys,
//! transposed, and behind those of all heads `[16, size]` values for each head. In 8 bits it holds the same as
//! `[size / 4, 16, 4]`, with the offset of weights, and as `[16, size]`, and behind both their scales, one for each head and
//! position, `[heads, 16]` each. Scores are integer products then, with queries in 8 bits too; the distribution over the
//! positions and the sums of values stay floats.

#![expect(unsafe_code, reason = "kernels read blocks through pointers; sizes are checked first")]

use super::aligned::{Floats, bytes, bytes_mut};
use super::float::{exp, greater, sum};
use super::packed::{LANES, Packing};
use super::product::Activations;
use super::simd::Simd;
use super::{Level, by_rows, dispatched};

/// Most registers of a tile's row.
const COLUMNS: usize = 2;
/// The same for a row alone: with fewer, each sum waits for itself.
const ALONE: usize = 4;

/// How keys and values are laid out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// Floats of all heads.
    width: usize,
    /// Floats of one head.
    size: usize,
    /// In 8 bits.
    bytes: bool,
}

impl Layout {
    /// `width` is that of all `heads`, each a multiple of sixteen. Keys are held as the weights are that make them: in 8
    /// bits where those have one scale for each output, else in floats.
    pub(crate) fn new(width: usize, heads: usize, weights: Packing) -> Self {
        let size = width / heads;
        assert!(width == size * heads && size.is_multiple_of(LANES));
        Self { width, size, bytes: weights == Packing::Rows }
    }

    /// Floats that a block of sixteen positions takes.
    pub(crate) fn block(self) -> usize {
        if self.bytes { self.scales() + 2 * LANES * (self.width / self.size) } else { 2 * LANES * self.width }
    }

    /// Of a block in 8 bits, the floats before its scales.
    fn scales(self) -> usize {
        2 * LANES * self.width / size_of::<f32>()
    }

    /// Files the rows of `keys` and `values`, `[positions, width]` each, from `position` on. `rows` is scratch.
    pub(crate) fn file(
        self,
        level: Level,
        rows: &mut Activations,
        blocks: &mut [f32],
        position: usize,
        keys: &[f32],
        values: &[f32],
    ) {
        let Self { width, size, .. } = self;
        for (i, (key, value)) in keys.chunks_exact(width).zip(values.chunks_exact(width)).enumerate() {
            let (block, lane) = ((position + i) / LANES, (position + i) % LANES);
            let block = &mut blocks[block * self.block()..(block + 1) * self.block()];
            if self.bytes {
                let (data, scales) = block.split_at_mut(self.scales());
                let (k, v) = bytes_mut(data).split_at_mut(width * LANES);
                let (k_scales, v_scales) = scales.split_at_mut(width / size * LANES);
                rows.load(level, Packing::Rows, key, size, size);
                for (head, k) in k.chunks_exact_mut(size * LANES).enumerate() {
                    let (key, scale) = rows.row(head);
                    k_scales[head * LANES + lane] = scale;
                    for (line, four) in k.as_chunks_mut::<{ 4 * LANES }>().0.iter_mut().zip(key.as_chunks::<4>().0) {
                        line.as_chunks_mut::<4>().0[lane] = four.map(|v| v as u8 ^ 0x80);
                    }
                }
                rows.load(level, Packing::Rows, value, size, size);
                for (head, v) in v.chunks_exact_mut(size * LANES).enumerate() {
                    let (value, scale) = rows.row(head);
                    v_scales[head * LANES + lane] = scale;
                    let v = &mut v[lane * size..(lane + 1) * size];
                    v.iter_mut().zip(value).for_each(|(v, &value)| *v = value as u8);
                }
                continue;
            }
            let (k, v) = block.split_at_mut(width * LANES);
            // [heads, size, 16] is [width, 16].
            for (k, &key) in k[lane..].iter_mut().step_by(LANES).zip(key) {
                *k = key;
            }
            for (v, value) in v.chunks_exact_mut(size * LANES).zip(value.chunks_exact(size)) {
                v[lane * size..(lane + 1) * size].copy_from_slice(value);
            }
        }
    }

    /// The key and the value of one position, `[width]` each.
    pub(crate) fn read(self, blocks: &[f32], position: usize, key: &mut [f32], value: &mut [f32]) {
        let Self { width, size, .. } = self;
        let lane = position % LANES;
        let block = &blocks[position / LANES * self.block()..];
        if self.bytes {
            let (data, scales) = block.split_at(self.scales());
            let (k, v) = bytes(data).split_at(width * LANES);
            let (k_scales, v_scales) = scales.split_at(width / size * LANES);
            for (head, key) in key.chunks_exact_mut(size).enumerate() {
                let lines = k[head * size * LANES..].as_chunks::<{ 4 * LANES }>().0;
                for (four, line) in key.as_chunks_mut::<4>().0.iter_mut().zip(lines) {
                    *four = line.as_chunks::<4>().0[lane]
                        .map(|v| f32::from((v ^ 0x80) as i8) * k_scales[head * LANES + lane]);
                }
            }
            for (head, value) in value.chunks_exact_mut(size).enumerate() {
                let v = &v[(head * LANES + lane) * size..];
                value.iter_mut().zip(v).for_each(|(to, &v)| *to = f32::from(v as i8) * v_scales[head * LANES + lane]);
            }
            return;
        }
        let (k, v) = block.split_at(width * LANES);
        for (key, k) in key.iter_mut().zip(k[lane..].iter().step_by(LANES)) {
            *key = *k;
        }
        for (value, v) in value.chunks_exact_mut(size).zip(v.chunks_exact(size * LANES)) {
            value.copy_from_slice(&v[lane * size..(lane + 1) * size]);
        }
    }
}

/// Keys and values of a number of positions.
#[derive(Clone, Copy)]
pub(crate) struct Keys<'a> {
    /// `[count / 16 rounded up]` blocks.
    pub(crate) blocks: &'a [f32],
    /// How many positions are there; what is behind them in the last block is not looked at.
    pub(crate) count: usize,
    /// Added to the scores of all queries: `count` of them, or none.
    pub(crate) bias: &'a [f32],
}

/// Memory of one thread's attention; grows to the largest call and stays.
#[derive(Default)]
pub(crate) struct Scratch {
    /// `[rows, positions]`
    scores: Floats,
    /// Queries in 8 bits.
    queries: Activations,
}

/// Called with head, row, and what the row takes of each position, not yet divided by their sum.
pub(crate) type OnWeights<'a> = dyn FnMut(usize, usize, &[f32]) + 'a;

/// Attention of `queries` `[rows, width]` over all positions of all sets, into `out` `[rows, width]`.
///
/// All sets but the last hold whole blocks. Scores are divided by the root of a head's width.
pub(crate) fn attend(
    level: Level,
    layout: Layout,
    queries: &[f32],
    sets: &[Keys<'_>],
    scratch: &mut Scratch,
    out: &mut [f32],
    mut weights: Option<&mut OnWeights<'_>>,
) {
    let Layout { width, size, bytes } = layout;
    let rows = queries.len() / width;
    assert!(queries.len() == rows * width && out.len() == queries.len());
    for (i, set) in sets.iter().enumerate() {
        assert!(set.blocks.len() >= set.count.div_ceil(LANES) * layout.block());
        assert!(set.bias.is_empty() || set.bias.len() >= set.count);
        assert!(i + 1 == sets.len() || set.count.is_multiple_of(LANES));
    }
    let count: usize = sets.iter().map(|set| set.count).sum();
    // Room behind each row for the factor that makes its weights sum to one.
    let stride = (count + 1).next_multiple_of(LANES);
    let Scratch { scores, queries: quantised } = scratch;
    scores.resize(rows * stride);
    if bytes {
        quantised.load(level, Packing::Rows, queries, size, size);
    }
    for head in 0..width / size {
        let shape = Shape { layout, rows, head, stride, count };
        weigh(level, shape, queries, quantised, sets, scores);
        if let Some(weights) = &mut weights {
            scores.chunks_exact(stride).enumerate().for_each(|(row, scores)| weights(head, row, &scores[..count]));
        }
        mix(level, shape, sets, scores, out);
    }
}

#[derive(Clone, Copy)]
struct Shape {
    layout: Layout,
    rows: usize,
    head: usize,
    /// Floats from one row of scores to the next.
    stride: usize,
    count: usize,
}

dispatched! {
    /// What each row takes of each position, of one head: exp of its score over the greatest; behind them, one over
    /// their sum.
    weigh(shape: Shape, queries: &[f32], quantised: &Activations, sets: &[Keys<'_>], scores: &mut [f32]), weigh_body
}

#[inline(always)]
fn weigh_body<S: Simd>(shape: Shape, queries: &[f32], quantised: &Activations, sets: &[Keys<'_>], scores: &mut [f32]) {
    let Shape { layout: Layout { size, bytes, .. }, rows, stride, count, .. } = shape;
    let mut from = 0;
    for set in sets {
        let blocks = set.count.div_ceil(LANES);
        let mut block = 0;
        while block < blocks {
            let columns = match blocks - block {
                ALONE.. if S::WIDE && rows == 1 => ALONE,
                COLUMNS.. if S::WIDE => COLUMNS,
                _ => 1,
            };
            // SAFETY: `attend` has checked all sizes; scores have room for whole blocks.
            unsafe {
                let to = scores.as_mut_ptr().add(from + block * LANES);
                match (bytes, columns) {
                    (false, ALONE) => scores_tile::<S, 1, ALONE>(0, shape, queries, set, block, to),
                    (false, COLUMNS) => by_rows!(rows, scores_tile, 2, (shape, queries, set, block, to)),
                    (false, _) => by_rows!(rows, scores_tile, 1, (shape, queries, set, block, to)),
                    (true, ALONE) => byte_scores_tile::<S, 1, ALONE>(0, shape, quantised, set, block, to),
                    (true, COLUMNS) => by_rows!(rows, byte_scores_tile, 2, (shape, quantised, set, block, to)),
                    (true, _) => by_rows!(rows, byte_scores_tile, 1, (shape, quantised, set, block, to)),
                }
            }
            block += columns;
        }
        from += blocks * LANES;
    }
    let scale = 1.0 / (size as f32).sqrt();
    for scores in scores.chunks_exact_mut(stride) {
        let (scores, rest_of_row) = scores.split_at_mut(count);
        let mut from = 0;
        for set in sets {
            let scores = &mut scores[from..from + set.count];
            if set.bias.is_empty() {
                scores.iter_mut().for_each(|v| *v *= scale);
            } else {
                for (v, b) in scores.iter_mut().zip(set.bias) {
                    *v = *v * scale + b;
                }
            }
            from += set.count;
        }
        let (whole, rest) = scores.as_chunks_mut::<LANES>();
        let mut top = [f32::NEG_INFINITY; LANES];
        for v in &*whole {
            for i in 0..LANES {
                top[i] = greater(top[i], v[i]);
            }
        }
        let top = top.into_iter().chain(rest.iter().copied()).fold(f32::NEG_INFINITY, greater);
        let mut sums = [0.0f32; LANES];
        for v in whole {
            for i in 0..LANES {
                v[i] = exp::<S>(v[i] - top);
                sums[i] += v[i];
            }
        }
        let mut total = sum(&sums);
        for v in rest {
            *v = exp::<S>(*v - top);
            total += *v;
        }
        if let Some(factor) = rest_of_row.last_mut() {
            *factor = 1.0 / total;
        }
    }
}

dispatched! {
    /// The sums of values, one head of `out`. `scores` are what [`weigh`] left, and serve as scratch.
    mix(shape: Shape, sets: &[Keys<'_>], scores: &mut [f32], out: &mut [f32]), mix_body
}

#[inline(always)]
fn mix_body<S: Simd>(shape: Shape, sets: &[Keys<'_>], scores: &mut [f32], out: &mut [f32]) {
    let Shape { layout, rows, head, stride, .. } = shape;
    if layout.bytes {
        // The scales of values in 8 bits.
        let first = layout.scales() + (layout.width / layout.size + head) * LANES;
        for scores in scores.chunks_exact_mut(stride) {
            let mut scores = scores.iter_mut();
            for set in sets {
                for (i, block) in set.blocks.chunks_exact(layout.block()).take(set.count.div_ceil(LANES)).enumerate() {
                    let scales = &block[first..first + LANES.min(set.count - i * LANES)];
                    scores.by_ref().zip(scales).for_each(|(score, scale)| *score *= scale);
                }
            }
        }
    }
    let vectors = layout.size / LANES;
    let mut vector = 0;
    while vector < vectors {
        let columns = match vectors - vector {
            ALONE.. if S::WIDE && rows == 1 => ALONE,
            COLUMNS.. if S::WIDE => COLUMNS,
            _ => 1,
        };
        // SAFETY: `attend` has checked all sizes.
        unsafe {
            let out = out.as_mut_ptr();
            match columns {
                ALONE => values_tile::<S, 1, ALONE>(0, shape, sets, scores, vector, out),
                COLUMNS => by_rows!(rows, values_tile, 2, (shape, sets, scores, vector, out)),
                _ => by_rows!(rows, values_tile, 1, (shape, sets, scores, vector, out)),
            }
        }
        vector += columns;
    }
}

/// Scores of M queries and N blocks of keys.
#[inline(always)]
unsafe fn scores_tile<S: Simd, const M: usize, const N: usize>(
    row: usize,
    shape: Shape,
    queries: &[f32],
    set: &Keys<'_>,
    block: usize,
    to: *mut f32,
) {
    let Shape { layout: Layout { width, size, .. }, head, stride, .. } = shape;
    let step = shape.layout.block();
    // SAFETY: rows and blocks exist, as `attend` has checked.
    unsafe {
        let q = queries.as_ptr().add(row * width + head * size);
        let k = set.blocks.as_ptr().add(block * step + head * size * LANES);
        let mut sums = [[S::splat(0.0); N]; M];
        for i in 0..size {
            let mut keys = [S::load(k.add(i * LANES)); N];
            for (n, keys) in keys.iter_mut().enumerate().skip(1) {
                *keys = S::load(k.add(n * step + i * LANES));
            }
            for (m, sums) in sums.iter_mut().enumerate() {
                let q = S::splat(*q.add(m * width + i));
                for (sum, keys) in sums.iter_mut().zip(keys) {
                    *sum = S::mul_add(q, keys, *sum);
                }
            }
        }
        for (m, sums) in sums.into_iter().enumerate() {
            for (n, sum) in sums.into_iter().enumerate() {
                S::store(to.add((row + m) * stride + n * LANES), sum);
            }
        }
    }
}

/// The same in 8 bits: integer sums, then both scales.
#[inline(always)]
unsafe fn byte_scores_tile<S: Simd, const M: usize, const N: usize>(
    row: usize,
    shape: Shape,
    queries: &Activations,
    set: &Keys<'_>,
    block: usize,
    to: *mut f32,
) {
    let Shape { layout: Layout { width, size, .. }, head, stride, .. } = shape;
    let (step, heads) = (shape.layout.block(), width / size);
    // SAFETY: rows and blocks exist, as `attend` has checked; queries are rows of one head each.
    unsafe {
        let first = set.blocks.as_ptr().add(block * step);
        let (q, k) = (queries.bytes().add(row * width + head * size), first.cast::<u8>().add(head * size * LANES));
        let scales = first.add(shape.layout.scales() + head * LANES);
        let mut sums = [[S::splat_i(0); N]; M];
        if S::OFFSET {
            for (m, sums) in sums.iter_mut().enumerate() {
                *sums = [S::splat_i(queries.correction((row + m) * heads + head)); N];
            }
        }
        for line in 0..size / 4 {
            let mut keys = [S::weights(k.add(line * 4 * LANES)); N];
            for (n, keys) in keys.iter_mut().enumerate().skip(1) {
                *keys = S::weights(k.add(n * step * size_of::<f32>() + line * 4 * LANES));
            }
            for (m, sums) in sums.iter_mut().enumerate() {
                let four = q.add(m * width + line * 4).cast::<i32>().read_unaligned();
                for (sum, keys) in sums.iter_mut().zip(keys) {
                    *sum = S::dot(*sum, keys, four);
                }
            }
        }
        for (m, sums) in sums.into_iter().enumerate() {
            let scale = S::splat(queries.row((row + m) * heads + head).1);
            for (n, sum) in sums.into_iter().enumerate() {
                let scale = S::mul(scale, S::load(scales.add(n * step)));
                S::store(to.add((row + m) * stride + n * LANES), S::mul(S::to_f(sum), scale));
            }
        }
    }
}

/// Mixed values of M queries: N registers of the head's width from `vector` on.
#[inline(always)]
unsafe fn values_tile<S: Simd, const M: usize, const N: usize>(
    row: usize,
    shape: Shape,
    sets: &[Keys<'_>],
    scores: &[f32],
    vector: usize,
    out: *mut f32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if shape.layout.bytes {
            values_tile_of::<S, M, N, true>(row, shape, sets, scores, vector, out);
        } else {
            values_tile_of::<S, M, N, false>(row, shape, sets, scores, vector, out);
        }
    }
}

#[inline(always)]
unsafe fn values_tile_of<S: Simd, const M: usize, const N: usize, const BYTES: bool>(
    row: usize,
    shape: Shape,
    sets: &[Keys<'_>],
    scores: &[f32],
    vector: usize,
    out: *mut f32,
) {
    let Shape { layout: Layout { width, size, .. }, head, stride, .. } = shape;
    // SAFETY: rows, positions and columns exist, as `attend` has checked.
    unsafe {
        let rows = scores.as_ptr().add(row * stride);
        let mut scores = rows;
        let mut sums = [[S::splat(0.0); N]; M];
        for set in sets {
            for block in 0..set.count.div_ceil(LANES) {
                let block_start = set.blocks.as_ptr().add(block * shape.layout.block());
                // The values of this head, behind the keys of all: as many bytes or floats in either form.
                let first = (width + head * size + vector) * LANES;
                for i in 0..LANES.min(set.count - block * LANES) {
                    let mut values = [S::splat(0.0); N];
                    for (n, values) in values.iter_mut().enumerate() {
                        let at = first + i * size + n * LANES;
                        *values = if BYTES {
                            S::bytes(block_start.cast::<i8>().add(at))
                        } else {
                            S::load(block_start.add(at))
                        };
                    }
                    for (m, sums) in sums.iter_mut().enumerate() {
                        let weight = S::splat(*scores.add(m * stride + i));
                        for (sum, values) in sums.iter_mut().zip(values) {
                            *sum = S::mul_add(weight, values, *sum);
                        }
                    }
                }
                scores = scores.add(LANES);
            }
        }
        for (m, sums) in sums.into_iter().enumerate() {
            let line = out.add((row + m) * width + head * size);
            let factor = S::splat(*rows.add((m + 1) * stride - 1));
            for (n, sum) in sums.into_iter().enumerate() {
                S::store(line.add((vector + n) * LANES), S::mul(sum, factor));
            }
        }
    }
}
