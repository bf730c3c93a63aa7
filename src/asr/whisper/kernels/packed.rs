//! Weights in the order in which products read them.
//!
//! In: a matrix `[outputs, inputs]`, row by row. Out: tiles of sixteen outputs, so that one register holds the same
//! inputs of all sixteen. In 8 bits a tile is `[inputs / 4, 16, 4]`, each weight with an offset of 128; in floats it is
//! `[inputs, 16]`. Missing outputs of the last tile are zero.

use super::aligned::{Floats, Line};
use super::dequantise::half;
use super::float::round_i8;

/// Outputs of a tile.
pub(crate) const LANES: usize = 16;
/// Weights under one scale in [`Packing::Blocks`], as in ggml's q8_0.
pub(crate) const BLOCK: usize = 32;

/// How weights, and the activations that meet them, are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    /// Single precision: the reference.
    Float,
    /// 8 bits with a scale for each output; activations in 8 bits with a scale for each row. Where products are large.
    Rows,
    /// 8 bits with a scale for every [`BLOCK`] inputs of an output, activations alike. Where few rows meet many weights:
    /// the time goes into reading them, and accuracy costs nothing.
    Blocks,
}

/// A packed matrix.
pub(crate) struct Packed {
    pub(crate) outputs: usize,
    pub(crate) inputs: usize,
    pub(super) weights: Weights,
}

pub(super) enum Weights {
    /// `[tiles, inputs, 16]`
    Float(Floats),
    /// `[tiles, inputs / 4]` lines, and scales `[tiles, 16]`.
    Rows(Vec<Line>, Floats),
    /// `[tiles, inputs / 4]` lines, and scales `[tiles, inputs / 32, 16]` in half precision.
    Blocks(Vec<Line>, Vec<u16>),
}

impl std::fmt::Debug for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Packed [{}, {}] {:?}", self.outputs, self.inputs, self.packing())
    }
}

impl Packed {
    /// An empty matrix to be filled by [`Packed::set_tile`]. `inputs` is a multiple of 4, in blocks one of 32.
    pub(crate) fn new(packing: Packing, outputs: usize, inputs: usize) -> Self {
        let tiles = outputs.div_ceil(LANES);
        // 128 is zero.
        let lines = || vec![Line([128; 64]); tiles * inputs / 4];
        let weights = match packing {
            Packing::Float => Weights::Float(Floats::zeros(tiles * LANES * inputs)),
            Packing::Rows => Weights::Rows(lines(), Floats::zeros(tiles * LANES)),
            Packing::Blocks => Weights::Blocks(lines(), vec![0; tiles * LANES * inputs / BLOCK]),
        };
        Self { outputs, inputs, weights }
    }

    pub(crate) fn packing(&self) -> Packing {
        match self.weights {
            Weights::Float(_) => Packing::Float,
            Weights::Rows(..) => Packing::Rows,
            Weights::Blocks(..) => Packing::Blocks,
        }
    }

    /// Tiles of sixteen outputs, the last one perhaps not full.
    pub(crate) fn tiles(&self) -> usize {
        self.outputs.div_ceil(LANES)
    }

    /// Quantises the weights of a tile's outputs, `[outputs, inputs]`, sixteen of them or fewer; they must be finite.
    pub(crate) fn set_tile(&mut self, tile: usize, rows: &[f32]) {
        let inputs = self.inputs;
        let mut bytes = vec![0i8; rows.len()];
        match &mut self.weights {
            Weights::Float(floats) => {
                let tile = &mut floats[tile * inputs * LANES..(tile + 1) * inputs * LANES];
                for (lane, row) in rows.chunks_exact(inputs).enumerate() {
                    for (v, w) in tile.iter_mut().skip(lane).step_by(LANES).zip(row) {
                        *v = *w;
                    }
                }
            }
            Weights::Rows(lines, scales) => {
                for (lane, (row, bytes)) in rows.chunks_exact(inputs).zip(bytes.chunks_exact_mut(inputs)).enumerate() {
                    let scale = largest(row) / 127.0;
                    scales[tile * LANES + lane] = scale;
                    quantise(row, inverse(scale), bytes);
                }
                interleave(&mut lines[tile * inputs / 4..(tile + 1) * inputs / 4], &bytes, inputs);
            }
            Weights::Blocks(lines, scales) => {
                for (lane, (row, bytes)) in rows.chunks_exact(inputs).zip(bytes.chunks_exact_mut(inputs)).enumerate() {
                    for (b, (row, bytes)) in row.chunks_exact(BLOCK).zip(bytes.chunks_exact_mut(BLOCK)).enumerate() {
                        let stored = half::f16::from_f32(largest(row) / 127.0).to_bits();
                        scales[(tile * inputs / BLOCK + b) * LANES + lane] = stored;
                        // The scale as it will be read, so that rounding it costs nothing.
                        quantise(row, inverse(half(stored)), bytes);
                    }
                }
                interleave(&mut lines[tile * inputs / 4..(tile + 1) * inputs / 4], &bytes, inputs);
            }
        }
    }

    /// Takes a tile's q8_0 blocks, row by row, as they are. For [`Packing::Blocks`] only.
    pub(crate) fn set_blocks(&mut self, tile: usize, rows: &[u8]) {
        let inputs = self.inputs;
        let Weights::Blocks(lines, scales) = &mut self.weights else { return };
        let row_bytes = inputs / BLOCK * (BLOCK + 2);
        let mut bytes = vec![0i8; rows.len() / row_bytes * inputs];
        for (lane, (row, bytes)) in rows.chunks_exact(row_bytes).zip(bytes.chunks_exact_mut(inputs)).enumerate() {
            for (b, (block, bytes)) in row.chunks_exact(BLOCK + 2).zip(bytes.chunks_exact_mut(BLOCK)).enumerate() {
                scales[(tile * inputs / BLOCK + b) * LANES + lane] = u16::from_le_bytes([block[0], block[1]]);
                // −128 is no weight that a q8_0 writer makes; the kernels count on ±127.
                bytes.iter_mut().zip(&block[2..]).for_each(|(v, &w)| *v = (w as i8).max(-127));
            }
        }
        interleave(&mut lines[tile * inputs / 4..(tile + 1) * inputs / 4], &bytes, inputs);
    }

    /// One output's weights as floats.
    pub(crate) fn row(&self, output: usize, out: &mut [f32]) {
        let (tile, lane, inputs) = (output / LANES, output % LANES, self.inputs);
        let unpack = |lines: &[Line], scale: f32, out: &mut [f32]| {
            for (line, four) in lines.iter().zip(out.as_chunks_mut::<4>().0) {
                for (v, w) in four.iter_mut().zip(&line.0[lane * 4..lane * 4 + 4]) {
                    *v = scale * f32::from((w ^ 0x80) as i8);
                }
            }
        };
        match &self.weights {
            Weights::Float(floats) => {
                let tile = &floats[tile * inputs * LANES..(tile + 1) * inputs * LANES];
                for (v, w) in out.iter_mut().zip(tile.iter().skip(lane).step_by(LANES)) {
                    *v = *w;
                }
            }
            Weights::Rows(lines, scales) => {
                unpack(&lines[tile * inputs / 4..(tile + 1) * inputs / 4], scales[output], out);
            }
            Weights::Blocks(lines, scales) => {
                for (b, out) in out.chunks_exact_mut(BLOCK).enumerate() {
                    let at = tile * inputs / BLOCK + b;
                    unpack(&lines[at * 8..(at + 1) * 8], half(scales[at * LANES + lane]), out);
                }
            }
        }
    }
}

fn largest(x: &[f32]) -> f32 {
    x.iter().fold(0.0f32, |a, v| a.max(v.abs()))
}

fn inverse(scale: f32) -> f32 {
    if scale > 0.0 { 1.0 / scale } else { 0.0 }
}

/// Clamped: a scale that is tiny in half precision may be rounded down by a third.
fn quantise(weights: &[f32], inverse: f32, bytes: &mut [i8]) {
    bytes.iter_mut().zip(weights).for_each(|(v, w)| *v = round_i8((w * inverse).clamp(-127.0, 127.0)));
}

/// Rows to lines: four inputs of each row, with their offset.
fn interleave(lines: &mut [Line], rows: &[i8], inputs: usize) {
    for (lane, row) in rows.chunks_exact(inputs).enumerate() {
        for (line, four) in lines.iter_mut().zip(row.as_chunks::<4>().0) {
            line.0.as_chunks_mut::<4>().0[lane] = four.map(|w| w as u8 ^ 0x80);
        }
    }
}
