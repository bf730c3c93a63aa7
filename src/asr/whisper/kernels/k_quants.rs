//! ggml's super-blocks of 256 weights, unpacked.
//!
//! In: a super-block. Out: its weights as `f32`. Source of the layouts: ggml, `ggml-common.h`, and `ggml-quants.c`,
//! `dequantize_row_q2_K` to `dequantize_row_q6_K`.

use super::dequantise::half;

/// Weights of a super-block.
pub(super) const SUPER: usize = 256;

fn half_at(bytes: &[u8], at: usize) -> f32 {
    half(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

pub(super) fn q2(block: &[u8; 84], out: &mut [f32; SUPER]) {
    let (scale, least) = (half_at(block, 80), half_at(block, 82));
    for (i, out) in out.chunks_exact_mut(16).enumerate() {
        let (factor, offset) = (scale * f32::from(block[i] & 15), least * f32::from(block[i] >> 4));
        let (from, shift) = (16 + i / 8 * 32 + i % 2 * 16, i % 8 / 2 * 2);
        for (v, q) in out.iter_mut().zip(&block[from..from + 16]) {
            *v = factor * f32::from(q >> shift & 3) - offset;
        }
    }
}

pub(super) fn q3(block: &[u8; 110], out: &mut [f32; SUPER]) {
    let (high, low, scales, scale) = (&block[..32], &block[32..96], &block[96..108], half_at(block, 108));
    for (i, out) in out.chunks_exact_mut(16).enumerate() {
        let four = if i < 8 { scales[i] & 15 } else { scales[i - 8] >> 4 };
        let two = scales[8 + i % 4] >> (i / 4 * 2) & 3;
        let factor = scale * (f32::from(four | two << 4) - 32.0);
        let (from, bit, shift) = (i % 2 * 16, i / 2, i % 8 / 2 * 2);
        let low = &low[i / 8 * 32 + from..];
        for ((v, q), h) in out.iter_mut().zip(low).zip(&high[from..]) {
            let taken = if h >> bit & 1 == 1 { 0.0 } else { 4.0 };
            *v = factor * (f32::from(q >> shift & 3) - taken);
        }
    }
}

/// The six-bit scale and minimum of the part `i` of eight.
fn scale_and_least(scales: &[u8], i: usize) -> (f32, f32) {
    let (scale, least) = if i < 4 {
        (scales[i] & 63, scales[i + 4] & 63)
    } else {
        (scales[i + 4] & 15 | scales[i - 4] >> 6 << 4, scales[i + 4] >> 4 | scales[i] >> 6 << 4)
    };
    (f32::from(scale), f32::from(least))
}

pub(super) fn q4(block: &[u8; 144], out: &mut [f32; SUPER]) {
    let (scale, least) = (half_at(block, 0), half_at(block, 2));
    for (i, out) in out.chunks_exact_mut(32).enumerate() {
        let (s, m) = scale_and_least(&block[4..16], i);
        let (factor, offset) = (scale * s, least * m);
        for (v, q) in out.iter_mut().zip(&block[16 + i / 2 * 32..]) {
            *v = factor * f32::from(q >> (i % 2 * 4) & 15) - offset;
        }
    }
}

pub(super) fn q5(block: &[u8; 176], out: &mut [f32; SUPER]) {
    let (scale, least) = (half_at(block, 0), half_at(block, 2));
    for (i, out) in out.chunks_exact_mut(32).enumerate() {
        let (s, m) = scale_and_least(&block[4..16], i);
        let (factor, offset) = (scale * s, least * m);
        for ((v, q), h) in out.iter_mut().zip(&block[48 + i / 2 * 32..]).zip(&block[16..48]) {
            *v = factor * f32::from(q >> (i % 2 * 4) & 15 | (h >> i & 1) << 4) - offset;
        }
    }
}

pub(super) fn q6(block: &[u8; 210], out: &mut [f32; SUPER]) {
    let (low, high, scales, scale) = (&block[..128], &block[128..192], &block[192..208], half_at(block, 208));
    for (i, out) in out.chunks_exact_mut(32).enumerate() {
        // Four parts of 32 weights share 64 bytes of low bits and 32 of high bits, twice.
        let (half, part) = (i / 4, i % 4);
        let low = &low[half * 64 + part % 2 * 32..];
        for (at, ((v, q), h)) in out.iter_mut().zip(low).zip(&high[half * 32..]).enumerate() {
            let factor = scale * f32::from(scales[half * 8 + part * 2 + at / 16] as i8);
            *v = factor * (f32::from(q >> (part / 2 * 4) & 15 | (h >> (part * 2) & 3) << 4) - 32.0);
        }
    }
}
