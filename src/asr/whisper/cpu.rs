//! The network on the CPU.
//!
//! In: log-mel, tokens. Out: logits. One instance serves one thread, and may be given an [`Assistant`].

use std::sync::Arc;

use super::decoder::Scratch;
use super::encoder::{Encoder, Input};
use super::forward::{CrossAttention, Forward, Step};
use super::kernels::{Floats, Level};
use super::linear::Work;
use super::model::WhisperModel;
use crate::asr::team::{Assistant, Team};
use crate::asr::{Cancel, DecodeError};

/// Positions of the longest caption, 10 s with all its margins and some room.
const CAPTION: usize = 640;
/// Segments that one instance holds at most.
const SEGMENTS: usize = 64;

/// One piece of audio and what was decoded of it.
#[derive(Default)]
pub(super) struct Segment {
    /// Positions encoded; 0 before.
    pub(super) positions: usize,
    /// What is added to the scores of the silence behind them; empty for a whole window.
    pub(super) silence: Vec<f32>,
    /// Keys and values of cross-attention: `[layers]` of blocks as of [`Keys`](super::kernels::Keys).
    pub(super) cross: Floats,
    /// Keys and values of self-attention: for each layer, blocks for as many tokens as there were at most.
    pub(super) cached: Vec<Floats>,
    /// Tokens held in `cached`.
    pub(super) tokens: usize,
}

/// The network on CPU threads: our kernels, no thread pool, no environment.
pub struct CpuForward {
    pub(super) model: Arc<WhisperModel>,
    pub(super) level: Level,
    pub(super) team: Team<Work>,
    pub(super) encoder: Encoder,
    pub(super) segments: Vec<Segment>,
    pub(super) scratch: Scratch,
}

impl CpuForward {
    /// An instance without segments; scratch grows with the first.
    #[must_use]
    pub fn new(model: Arc<WhisperModel>) -> Self {
        Self::build(model, Level::detect(), None)
    }

    /// An instance that lets idle threads share its work. The results are the same, byte for byte.
    #[must_use]
    pub fn assisted(model: Arc<WhisperModel>, assistant: Arc<dyn Assistant>) -> Self {
        Self::build(model, Level::detect(), Some(assistant))
    }

    pub(super) fn build(model: Arc<WhisperModel>, level: Level, assistant: Option<Arc<dyn Assistant>>) -> Self {
        Self {
            model,
            level,
            team: Team::new(assistant),
            encoder: Encoder::default(),
            segments: Vec::new(),
            scratch: Scratch::default(),
        }
    }

    /// The encoder's output of the segment encoded last, `[positions, d_model]`: for tests.
    #[doc(hidden)]
    #[must_use]
    pub fn encoded(&self) -> &[f32] {
        self.encoder.output()
    }
}

impl Forward for CpuForward {
    fn positions(&self, samples: usize) -> Option<usize> {
        self.model.tail.as_ref()?.positions(samples)
    }

    fn encode(&mut self, segment: usize, mel: &[f32], positions: usize, cancel: &Cancel) -> Result<(), DecodeError> {
        let Self { model, level, team, encoder, segments, .. } = self;
        let (bands, window) = (model.config.num_mel_bins, model.config.max_source_positions);
        let tail = if positions < window { model.tail.as_ref() } else { None };
        let frames = 2 * positions + usize::from(tail.is_some());
        // Silence begins behind whole blocks, and before those of its positions that are kept one by one.
        let fits = tail.is_none_or(|tail| tail.fits(positions));
        if !(1..=window).contains(&positions) || !fits || mel.len() < frames * bands {
            return Err(DecodeError::Invalid(format!(
                "{} mel values are not {bands} bands of {frames} frames, for {positions} of {window} positions",
                mel.len(),
            )));
        }
        if segment > segments.len() || segment >= SEGMENTS {
            return Err(DecodeError::Invalid(format!(
                "segment {segment} cannot follow {} segments, at most {SEGMENTS}",
                segments.len()
            )));
        }
        if segment == segments.len() {
            segments.push(Segment::default());
        }
        // A whole window takes ten times the memory of a caption, and is rare: it is given back with the next caption.
        if positions <= CAPTION && segments[segment].positions > CAPTION {
            *encoder = Encoder::default();
            segments[segment].cross = Floats::default();
        }
        let Segment { positions: held, silence, cross, tokens, .. } = &mut segments[segment];
        (*held, *tokens) = (0, 0);
        silence.clear();
        if let Some(tail) = tail {
            tail.bias(positions, silence);
        }
        let tail = tail.map(|tail| (tail, silence.as_slice()));
        encoder.run(
            model,
            *level,
            team,
            Input::Mel { mel: &mel[..frames * bands], positions },
            tail,
            cross,
            cancel,
            &mut |_| {},
        )?;
        *held = positions;
        Ok(())
    }

    fn decode(
        &mut self,
        steps: &[Step<'_>],
        vocabulary: usize,
        logits: &mut Vec<f32>,
        attention: Option<&mut CrossAttention>,
    ) -> Result<(), DecodeError> {
        self.run_decoder(steps, vocabulary, logits, attention)
    }

    fn position(&self, segment: usize) -> usize {
        self.segments.get(segment).map_or(0, |segment| segment.tokens)
    }

    fn rewind(&mut self, segment: usize, position: usize) {
        if let Some(segment) = self.segments.get_mut(segment) {
            segment.tokens = segment.tokens.min(position);
        }
    }
}
