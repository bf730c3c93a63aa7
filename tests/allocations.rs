//! A token costs no allocation: counted, not believed.
#![cfg(feature = "whisper")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use cuewire::asr::Cancel;
use cuewire::asr::whisper::testing::RandomModel;
use cuewire::asr::whisper::{CpuForward, CrossAttention, Forward, Step, WhisperModel};
use support::COUNT;

#[path = "support/counting.rs"]
mod support;

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
