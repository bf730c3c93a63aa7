//! Memory that starts on a cache line, so that no load of sixteen floats, or 64 weights, straddles two.

#![expect(unsafe_code, reason = "a vector of aligned lines seen as its bytes or floats")]

use std::ops::{Deref, DerefMut};

/// A cache line of floats.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct FloatLine([f32; 16]);

/// Floats on cache lines. Grows, and keeps what it has.
#[derive(Default)]
pub(crate) struct Floats {
    lines: Vec<FloatLine>,
    length: usize,
}

impl Floats {
    /// So many zeros.
    pub(crate) fn zeros(length: usize) -> Self {
        Self { lines: vec![FloatLine([0.0; 16]); length.div_ceil(16)], length }
    }

    /// Makes room for `length` floats; the memory never shrinks. What is in them is what was left there.
    pub(crate) fn resize(&mut self, length: usize) {
        if self.lines.len() < length.div_ceil(16) {
            self.lines.resize(length.div_ceil(16), FloatLine([0.0; 16]));
        }
        self.length = length;
    }
}

impl Deref for Floats {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        // SAFETY: the lines are contiguous arrays of sixteen floats, and `length` never exceeds them.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.length) }
    }
}

impl DerefMut for Floats {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.length) }
    }
}

/// A cache line of weights.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [u8; 64]);

/// The bytes that floats are made of.
pub(super) fn bytes(floats: &[f32]) -> &[u8] {
    // SAFETY: every byte of a float may be read as one, and bytes need no alignment.
    unsafe { std::slice::from_raw_parts(floats.as_ptr().cast(), size_of_val(floats)) }
}

/// The same, to be changed.
pub(super) fn bytes_mut(floats: &mut [f32]) -> &mut [u8] {
    // SAFETY: as above; a float may be made of any bytes, and bytes need no alignment.
    unsafe { std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast(), size_of_val(floats)) }
}
