//! What fuzzers call: bodies of the targets under `fuzz/`, which feed them bytes.
//!
//! In: any bytes. Out: nothing, or a panic that says which rule was broken.
//!
//! Bytes are decoded by hand, so that a seed is a text that people write: a digit is a choice, a letter an operation, and blanks
//! between operations are skipped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a body fails by panicking")]

mod call;
mod datagram;
mod http;
mod json;
mod rules;
mod socket;
mod world;

pub use call::call;
pub use datagram::datagram;
pub use http::http;
pub use socket::socket;

/// Bytes, as choices.
struct Dice<'a>(&'a [u8]);

impl<'a> Dice<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return b'0' };
        self.0 = rest;
        *first
    }

    fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// One of so many: `0` is the first.
    fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte().wrapping_sub(b'0')) % count
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn maybe(&mut self) -> bool {
        self.below(2) == 1
    }

    /// The next operation of so many: `a` is the first.
    fn operation(&mut self, count: usize) -> usize {
        while let [b' ' | b'\n', rest @ ..] = self.0 {
            self.0 = rest;
        }
        usize::from(self.byte().wrapping_sub(b'a')) % count
    }

    /// So many bytes, or those that are left.
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
