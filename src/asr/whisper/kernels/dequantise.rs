//! Weights as files hold them, unpacked.
//!
//! In: stored weights as bytes. Out: `f32`.

#![cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "calls into code compiled for instructions that were checked for")
)]

use super::packed::BLOCK;
use super::simd::Simd;
use super::{dispatched, k_quants};
use crate::asr::whisper::load::Form;

dispatched! {
    /// The stored weights `bytes` as floats: `out.len()` of them.
    pub(crate) dequantise(form: Form, bytes: &[u8], out: &mut [f32]), dequantise_body
}

/// IEEE half to single without a table or a branch; subnormals, infinities and NaN included.
#[inline(always)]
pub(crate) fn half(bits: u16) -> f32 {
    let magnitude = u32::from(bits & 0x7fff) << 13;
    let exponent = magnitude & 0x0f80_0000;
    let normal = f32::from_bits(magnitude.wrapping_add(112 << 23));
    let special = f32::from_bits(magnitude | 0x7f80_0000);
    let subnormal = f32::from_bits(magnitude.wrapping_add(113 << 23)) - f32::from_bits(113 << 23);
    let value = if exponent == 0x0f80_0000 { special } else { normal };
    let value = if exponent == 0 { subnormal } else { value };
    f32::from_bits(value.to_bits() | (u32::from(bits & 0x8000) << 16))
}

// `S` is not named: that the loops are compiled with its instructions is what it is for.
#[inline(always)]
fn dequantise_body<S: Simd>(form: Form, bytes: &[u8], out: &mut [f32]) {
    match form {
        Form::F32 => {
            for (v, four) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *v = f32::from_le_bytes(*four);
            }
        }
        Form::F16 => {
            for (v, two) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *v = half(u16::from_le_bytes(*two));
            }
        }
        Form::Bf16 => {
            for (v, two) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *v = f32::from_bits(u32::from(u16::from_le_bytes(*two)) << 16);
            }
        }
        Form::Q8_0 => blocks::<34, BLOCK>(bytes, out, |block, out| {
            let scale = half(u16::from_le_bytes([block[0], block[1]]));
            for (v, &q) in out.iter_mut().zip(&block[2..]) {
                *v = scale * f32::from(q as i8);
            }
        }),
        // The low halves of the bytes are the first sixteen weights: ggml, `dequantize_row_q4_0` and its siblings.
        Form::Q4_0 => blocks::<18, BLOCK>(bytes, out, |block, out| {
            let scale = half(u16::from_le_bytes([block[0], block[1]]));
            for (i, v) in out.iter_mut().enumerate() {
                *v = (nibble(&block[2..], i) - 8.0) * scale;
            }
        }),
        Form::Q4_1 => blocks::<20, BLOCK>(bytes, out, |block, out| {
            let scale = half(u16::from_le_bytes([block[0], block[1]]));
            let least = half(u16::from_le_bytes([block[2], block[3]]));
            for (i, v) in out.iter_mut().enumerate() {
                *v = nibble(&block[4..], i) * scale + least;
            }
        }),
        Form::Q5_0 => blocks::<22, BLOCK>(bytes, out, |block, out| {
            let scale = half(u16::from_le_bytes([block[0], block[1]]));
            for (i, v) in out.iter_mut().enumerate() {
                *v = (nibble(&block[6..], i) + fifth(&block[2..6], i) - 16.0) * scale;
            }
        }),
        Form::Q5_1 => blocks::<24, BLOCK>(bytes, out, |block, out| {
            let scale = half(u16::from_le_bytes([block[0], block[1]]));
            let least = half(u16::from_le_bytes([block[2], block[3]]));
            for (i, v) in out.iter_mut().enumerate() {
                *v = (nibble(&block[8..], i) + fifth(&block[4..8], i)) * scale + least;
            }
        }),
        Form::Q2K => blocks(bytes, out, k_quants::q2),
        Form::Q3K => blocks(bytes, out, k_quants::q3),
        Form::Q4K => blocks(bytes, out, k_quants::q4),
        Form::Q5K => blocks(bytes, out, k_quants::q5),
        Form::Q6K => blocks(bytes, out, k_quants::q6),
        Form::Int8 => {
            // Each row has four bytes more than weights.
            let rows = bytes.len().saturating_sub(out.len()) / 4;
            let columns = out.len().checked_div(rows).unwrap_or(0).max(1);
            for (row, out) in bytes.chunks_exact(columns + 4).zip(out.chunks_exact_mut(columns)) {
                let scale = f32::from_le_bytes([row[0], row[1], row[2], row[3]]);
                for (v, &q) in out.iter_mut().zip(&row[4..]) {
                    *v = f32::from(q as i8) / scale;
                }
            }
        }
    }
}

#[inline(always)]
fn blocks<const N: usize, const W: usize>(
    bytes: &[u8],
    out: &mut [f32],
    mut each: impl FnMut(&[u8; N], &mut [f32; W]),
) {
    for (block, out) in bytes.as_chunks::<N>().0.iter().zip(out.as_chunks_mut::<W>().0) {
        each(block, out);
    }
}

/// The four bits of a block's weight.
#[inline(always)]
fn nibble(bytes: &[u8], i: usize) -> f32 {
    f32::from(if i < BLOCK / 2 { bytes[i] & 15 } else { bytes[i - BLOCK / 2] >> 4 })
}

/// What the fifth bit of a block's weight adds.
#[inline(always)]
fn fifth(bytes: &[u8], i: usize) -> f32 {
    f32::from(bytes[i / 8] >> (i % 8) & 1) * 16.0
}
