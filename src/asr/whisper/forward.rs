//! The seam between decoding and the network: who decodes need not know what computes.
//!
//! In: log-mel of a segment, tokens. Out: logits, and cross-attention where asked for.
//! A segment is one piece of audio with its caches; several may be decoded in one pass, which reads the weights once.

use crate::asr::{Cancel, DecodeError};

/// Tokens that continue one segment.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// Which segment.
    pub segment: usize,
    /// Tokens behind those already held; at least one.
    pub tokens: &'a [u32],
    /// The first of `tokens` whose logits are wanted; those of all later ones are given too.
    pub logits_from: usize,
}

/// Cross-attention of chosen heads, filled by [`Forward::decode`].
#[derive(Clone, Debug, Default)]
pub struct CrossAttention {
    /// The heads asked for: (layer, head).
    pub heads: Vec<(usize, usize)>,
    /// For each token in the order of the steps: `[heads, positions encoded of its segment]`. What a row lacks to one lies
    /// in the silence behind them.
    pub weights: Vec<f32>,
}

/// Runs the network. One serves one thread.
pub trait Forward: Send {
    /// How many positions to encode for audio of so many samples, where silence follows to the end of the window; `None`
    /// for the whole window.
    fn positions(&self, samples: usize) -> Option<usize>;

    /// Encodes so many positions of a segment and forgets what was decoded of it: the whole window, or as many as
    /// [`Forward::positions`] gives for some audio; then silence follows. `mel` is log-mel `[frames, bands]`, two frames a
    /// position, and one more where silence follows. Segments are numbered from 0 without gaps.
    ///
    /// # Errors
    /// [`DecodeError::Cancelled`] between layers; [`DecodeError::Invalid`] for a shape or number that cannot be.
    fn encode(&mut self, segment: usize, mel: &[f32], positions: usize, cancel: &Cancel) -> Result<(), DecodeError>;

    /// Appends tokens to segments. `logits` becomes `[wanted tokens, vocabulary]`, in the order of the steps, for the first
    /// `vocabulary` of the model's tokens; a segment takes part at most once. What a token gets does not depend on how
    /// many are appended together, to the bit.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`] for an unknown segment or token, or more tokens than the model holds.
    fn decode(
        &mut self,
        steps: &[Step<'_>],
        vocabulary: usize,
        logits: &mut Vec<f32>,
        attention: Option<&mut CrossAttention>,
    ) -> Result<(), DecodeError>;

    /// Tokens that a segment holds.
    fn position(&self, segment: usize) -> usize;

    /// Drops a segment's tokens from `position` on.
    fn rewind(&mut self, segment: usize, position: usize);
}
