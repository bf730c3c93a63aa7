//! What the processor reaches where nothing is read or written: the yardstick of the benches.

#![expect(unsafe_code, reason = "instructions of a level that was checked for")]

use super::dispatched;
use super::simd::Simd;

dispatched! {
    /// Multiplies and adds 24 registers with themselves `times` times: 8-bit operations done.
    pub(crate) int8_peak(times: usize) -> f64, int8_body
}
dispatched! {
    /// The same with floats.
    pub(crate) float_peak(times: usize) -> f64, float_body
}

#[inline(always)]
fn int8_body<S: Simd>(times: usize) -> f64 {
    let bytes = std::hint::black_box([129u8; 64]);
    // SAFETY: 64 bytes are there, and the level's instructions are.
    unsafe {
        let w = S::weights(bytes.as_ptr());
        let mut sums = [S::splat_i(0); 24];
        for i in 0..times {
            let x = std::hint::black_box(i as i32 & 0x0101_0101);
            for sum in &mut sums {
                *sum = S::dot(*sum, w, x);
            }
        }
        for sum in sums {
            std::hint::black_box(S::sum(sum));
        }
    }
    (times * 24 * 64 * 2) as f64
}

#[inline(always)]
fn float_body<S: Simd>(times: usize) -> f64 {
    // SAFETY: the level's instructions are there.
    unsafe {
        let w = S::splat(std::hint::black_box(0.5));
        let mut sums = [S::splat(0.0); 24];
        for _ in 0..times {
            let x = S::splat(std::hint::black_box(0.25));
            for sum in &mut sums {
                *sum = S::mul_add(w, x, *sum);
            }
        }
        for sum in sums {
            let mut out = [0f32; 16];
            S::store(out.as_mut_ptr(), sum);
            std::hint::black_box(out);
        }
    }
    (times * 24 * 16 * 2) as f64
}
