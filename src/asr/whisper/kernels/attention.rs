//! Attention, one head after the other, from scores to mixed values without leaving the cache.
//!
//! In: queries `[rows, width]` and sets of [`Keys`]. Out: mixed values `[rows, width]`.
//! Keys and values come in blocks of sixteen positions: for each head first `[size, 16]` keys, transposed, and behind
//! those of all heads `[16, size]` values for each head.

#![expect(unsafe_code, reason = "kernels read blocks through pointers; sizes are checked first")]

use super::float::{exp, greater, sum};
use super::packed::LANES;
use super::simd::Simd;
use super::{by_rows, dispatched};

/// Most registers of a tile's row.
const COLUMNS: usize = 2;

/// Keys and values of a number of positions.
#[derive(Clone, Copy)]
pub(crate) struct Keys<'a> {
    /// `[count / 16 rounded up, 2 * width * 16]`
    pub(crate) blocks: &'a [f32],
    /// How many positions are there; what is behind them in the last block is not looked at.
    pub(crate) count: usize,
    /// Added to the scores of all queries: `count` of them, or none.
    pub(crate) bias: &'a [f32],
}

impl Keys<'_> {
    /// Floats of the block of sixteen positions.
    pub(crate) const fn block(width: usize) -> usize {
        2 * width * LANES
    }

    /// Files the rows of `keys` and `values`, `[positions, width]` each, from `position` on.
    pub(crate) fn file(blocks: &mut [f32], position: usize, size: usize, width: usize, keys: &[f32], values: &[f32]) {
        for (i, (key, value)) in keys.chunks_exact(width).zip(values.chunks_exact(width)).enumerate() {
            let (block, lane) = ((position + i) / LANES, (position + i) % LANES);
            let block = &mut blocks[block * Self::block(width)..(block + 1) * Self::block(width)];
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
    pub(crate) fn read(blocks: &[f32], position: usize, size: usize, width: usize, key: &mut [f32], value: &mut [f32]) {
        let block = &blocks[position / LANES * Self::block(width)..];
        let (k, v) = block.split_at(width * LANES);
        let lane = position % LANES;
        for (key, k) in key.iter_mut().zip(k[lane..].iter().step_by(LANES)) {
            *key = *k;
        }
        for (value, v) in value.chunks_exact_mut(size).zip(v.chunks_exact(size * LANES)) {
            value.copy_from_slice(&v[lane * size..(lane + 1) * size]);
        }
    }
}

/// Called with head, row, and the row's distribution over the positions.
pub(crate) type OnWeights<'a> = dyn FnMut(usize, usize, &[f32]) + 'a;

/// Attention of `queries` `[rows, width]` over all positions of all sets, into `out` `[rows, width]`.
///
/// All sets but the last hold whole blocks. Scores are divided by the root of `size`, the width of a head, a multiple of
/// sixteen. `scores` is scratch.
#[expect(clippy::too_many_arguments, reason = "operands of a kernel")]
pub(crate) fn attend(
    level: super::Level,
    queries: &[f32],
    width: usize,
    size: usize,
    sets: &[Keys<'_>],
    scores: &mut super::Floats,
    out: &mut [f32],
    mut weights: Option<&mut OnWeights<'_>>,
) {
    let rows = queries.len() / width;
    assert!(width.is_multiple_of(size) && size.is_multiple_of(LANES));
    assert!(queries.len() == rows * width && out.len() == queries.len());
    for (i, set) in sets.iter().enumerate() {
        assert!(set.blocks.len() >= set.count.div_ceil(LANES) * Keys::block(width));
        assert!(set.bias.is_empty() || set.bias.len() >= set.count);
        assert!(i + 1 == sets.len() || set.count.is_multiple_of(LANES));
    }
    let count: usize = sets.iter().map(|set| set.count).sum();
    // Room behind each row for the factor that makes its weights sum to one.
    let stride = (count + 1).next_multiple_of(LANES);
    scores.resize(rows * stride);
    for head in 0..width / size {
        let shape = Shape { rows, width, size, head, stride, count };
        attend_head(level, shape, queries, sets, scores, out);
        if let Some(weights) = &mut weights {
            for (row, scores) in scores.chunks_exact_mut(stride).enumerate() {
                let scores = &mut scores[..count];
                let total: f32 = scores.iter().sum();
                scores.iter_mut().for_each(|v| *v /= total);
                weights(head, row, scores);
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Shape {
    rows: usize,
    width: usize,
    size: usize,
    head: usize,
    /// Floats from one row of scores to the next.
    stride: usize,
    count: usize,
}

dispatched! {
    /// One head. Leaves unnormalised weights in `scores`.
    attend_head(shape: Shape, queries: &[f32], sets: &[Keys<'_>], scores: &mut [f32], out: &mut [f32]), attend_head_body
}

#[inline(always)]
fn attend_head_body<S: Simd>(shape: Shape, queries: &[f32], sets: &[Keys<'_>], scores: &mut [f32], out: &mut [f32]) {
    let Shape { rows, size, stride, count, .. } = shape;
    let mut from = 0;
    for set in sets {
        let blocks = set.count.div_ceil(LANES);
        let mut block = 0;
        while block < blocks {
            // SAFETY: `attend` has checked all sizes; scores have room for whole blocks.
            unsafe {
                let to = scores.as_mut_ptr().add(from + block * LANES);
                if S::WIDE && blocks - block >= COLUMNS {
                    by_rows!(rows, scores_tile, 2, (shape, queries, set, block, to));
                    block += COLUMNS;
                } else {
                    by_rows!(rows, scores_tile, 1, (shape, queries, set, block, to));
                    block += 1;
                }
            }
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
    let vectors = size / LANES;
    let mut vector = 0;
    while vector < vectors {
        // SAFETY: as above.
        unsafe {
            if S::WIDE && vectors - vector >= COLUMNS {
                by_rows!(rows, values_tile, 2, (shape, sets, scores, vector, out.as_mut_ptr()));
                vector += COLUMNS;
            } else {
                by_rows!(rows, values_tile, 1, (shape, sets, scores, vector, out.as_mut_ptr()));
                vector += 1;
            }
        }
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
    let Shape { width, size, head, stride, .. } = shape;
    let step = Keys::block(width);
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
    let Shape { width, size, head, stride, .. } = shape;
    // SAFETY: rows, positions and columns exist, as `attend` has checked.
    unsafe {
        let rows = scores.as_ptr().add(row * stride);
        let mut scores = rows;
        let mut sums = [[S::splat(0.0); N]; M];
        for set in sets {
            let first = set.blocks.as_ptr().add((width + head * size) * LANES + vector * LANES);
            for block in 0..set.count.div_ceil(LANES) {
                let v = first.add(block * Keys::block(width));
                for i in 0..LANES.min(set.count - block * LANES) {
                    let mut values = [S::load(v.add(i * size)); N];
                    for (n, values) in values.iter_mut().enumerate().skip(1) {
                        *values = S::load(v.add(i * size + n * LANES));
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
