//! A token costs no allocation: counted, not believed.
#![cfg(feature = "whisper")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use cuewire::asr::Cancel;
use cuewire::asr::whisper::testing::RandomModel;
use cuewire::asr::whisper::{CpuForward, CrossAttention, Forward, Step, WhisperModel};

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: it is the system's allocator; counting touches nothing but a number of this thread.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is the system allocator's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn decoding_again_allocates_nothing() {
    let random = RandomModel { positions: 1500, ..RandomModel::default() };
    let model = Arc::new(WhisperModel::from_bytes(random.gguf().unwrap()).unwrap());
    let mut forward = CpuForward::new(model.clone());
    let positions = forward.positions(16_000).unwrap();
    let mel = vec![0.1; (2 * positions + 1) * 80];
    let (mut logits, vocabulary) = (Vec::new(), model.config().vocab_size);
    let mut attention = CrossAttention { heads: vec![(0, 0), (1, 1)], weights: Vec::new() };
    let mut counts = Vec::new();
    let cancel = Cancel::new();
    for _ in 0..2 {
        let before = COUNT.get();
        forward.encode(0, &mel, positions, &cancel).unwrap();
        for token in 0..40 {
            let step = Step { segment: 0, tokens: &[token], logits_from: 0 };
            forward.decode(&[step], vocabulary, &mut logits, Some(&mut attention)).unwrap();
        }
        counts.push(COUNT.get() - before);
    }
    assert!(counts[0] > 0, "the counter does not count");
    assert_eq!(counts[1], 0, "allocations of the second time, behind {} of the first", counts[0]);
}
