//! The latest 16 kHz samples of a track.
//!
//! In: samples in order. Out: copies of spans that are still there.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::time::SampleIndex;

/// A window over a track's samples that moves with it.
#[derive(Default)]
pub(super) struct SampleBuffer {
    samples: VecDeque<f32>,
    first: SampleIndex,
}

impl SampleBuffer {
    pub(super) fn starting_at(first: SampleIndex) -> Self {
        Self { first, ..Self::default() }
    }

    /// Behind the last sample.
    pub(super) fn end(&self) -> SampleIndex {
        self.first.plus(self.samples.len() as u64)
    }

    pub(super) fn extend(&mut self, samples: &[f32]) {
        self.samples.extend(samples);
    }

    pub(super) fn forget_before(&mut self, index: SampleIndex) {
        let count = self.offset(index);
        self.samples.drain(..count);
        self.first = self.first.plus(count as u64);
    }

    pub(super) fn iter_from(&self, from: SampleIndex) -> impl Iterator<Item = f32> + '_ {
        self.samples.range(self.offset(from)..).copied()
    }

    /// The samples `from .. to` as far as they are there.
    pub(super) fn copy(&self, from: SampleIndex, to: SampleIndex) -> Arc<[f32]> {
        self.samples.range(self.offset(from)..self.offset(to).max(self.offset(from))).copied().collect()
    }

    fn offset(&self, index: SampleIndex) -> usize {
        usize::try_from(index.since(self.first)).unwrap_or(usize::MAX).min(self.samples.len())
    }
}
