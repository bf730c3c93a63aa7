//! Weights as files hold them, unpacked.
//!
//! In: stored weights as bytes. Out: `f32`.

#![cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "calls into code compiled for instructions that were checked for")
)]

use super::dispatched;
use super::packed::BLOCK;
use super::simd::Simd;
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
        Form::Q8_0 => {
            for (block, out) in bytes.chunks_exact(BLOCK + 2).zip(out.chunks_exact_mut(BLOCK)) {
                let scale = half(u16::from_le_bytes([block[0], block[1]]));
                for (v, &q) in out.iter_mut().zip(&block[2..]) {
                    *v = scale * f32::from(q as i8);
                }
            }
        }
    }
}
