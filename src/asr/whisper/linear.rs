//! Linear layers, and what one thread needs to run them.
//!
//! In: rows of activations `[rows, inputs]`. Out: `[rows, outputs]`.

use super::kernels::{self, Activations, AttentionScratch, Finish, Floats, Level, Packed};

/// `x · weightᵀ + bias`.
#[derive(Debug)]
pub(crate) struct Linear {
    pub(crate) weight: Packed,
    /// `[outputs]`; keys have none.
    pub(crate) bias: Option<Vec<f32>>,
}

impl Linear {
    /// Of rows `[rows, inputs]`, which `acts` holds then.
    pub(crate) fn run(&self, level: Level, acts: &mut Activations, x: &[f32], finish: Finish, out: &mut [f32]) {
        let inputs = self.weight.inputs;
        acts.load(level, self.weight.packing(), x, inputs, inputs);
        self.apply(level, acts, finish, out);
    }

    /// Of rows that were loaded for its packing already.
    pub(crate) fn apply(&self, level: Level, x: &Activations, finish: Finish, out: &mut [f32]) {
        kernels::product(level, x, &self.weight, self.bias.as_deref(), finish, out);
    }
}

/// Weight and bias of a layer norm, `[d_model]` each.
#[derive(Debug)]
pub(crate) struct Norm {
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

impl Norm {
    pub(crate) fn apply(&self, level: Level, x: &[f32], out: &mut [f32]) {
        kernels::layer_norm(level, x, &self.weight, &self.bias, out);
    }
}

/// Scratch of one thread; grows to the largest call and stays.
#[derive(Default)]
pub(crate) struct Work {
    pub(crate) acts: Activations,
    /// `[rows, d_model]`, as the next three.
    pub(crate) normed: Floats,
    pub(crate) queries: Floats,
    pub(crate) keys: Floats,
    pub(crate) values: Floats,
    /// `[rows, feed-forward width]`, or the output of the first convolution.
    pub(crate) hidden: Floats,
    pub(crate) attention: AttentionScratch,
    /// One position's keys or values on their way into 8 bits.
    pub(crate) filed: Activations,
}
