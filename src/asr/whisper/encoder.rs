//! The encoder on the CPU, and the state shared with the decoder.
//!
//! In: log-mel `[bands, frames]`. Out: positions `[frames / 2, d_model]`, and from them each decoder layer's keys and
//! values. Work goes in blocks of rows, so that scratch is a few megabytes beside the activations themselves.

use std::sync::Arc;

use super::forward::{CrossAttention, Forward, Step};
use super::kernels;
use super::linear::{Products, Strided};
use super::model::WhisperModel;
use crate::asr::{Cancel, DecodeError};

/// Rows of activations that pass through a layer's parts at a time.
const ROWS: usize = 384;
/// Queries whose scores against all keys are held at a time.
const QUERIES: usize = 128;
/// Segments that one instance holds at most.
const SEGMENTS: usize = 64;

/// One piece of audio and what was decoded of it.
#[derive(Default)]
pub(super) struct Segment {
    /// Positions encoded; 0 before.
    pub(super) positions: usize,
    /// Keys and values of cross-attention: `[layers, 2, heads, positions, d_head]`.
    pub(super) cross: Vec<f32>,
    /// Keys and values of self-attention: `[layers, 2, heads, max_target_positions, d_head]`.
    pub(super) cached: Vec<f32>,
    /// Tokens held in `cached`.
    pub(super) tokens: usize,
}

/// The network on one CPU thread: plain kernels and `gemm`, no thread pool, no environment.
pub struct CpuForward {
    pub(super) model: Arc<WhisperModel>,
    pub(super) products: Products,
    pub(super) segments: Vec<Segment>,
    pub(super) scratch: super::decoder::Scratch,
    /// The encoder's activations: `[positions, d_model]`.
    x: Vec<f32>,
    queries: Vec<f32>,
    /// Keys, then values; before them the output of the first convolution, `[2 * positions, d_model]`.
    keys_values: Vec<f32>,
    /// A block's normed rows.
    block: Vec<f32>,
    /// A block's hidden rows, or its unfolded convolution input.
    hidden: Vec<f32>,
    scores: Vec<f32>,
}

impl CpuForward {
    /// An instance without segments; scratch grows with the first.
    #[must_use]
    pub fn new(model: Arc<WhisperModel>) -> Self {
        Self {
            model,
            products: Products::new(),
            segments: Vec::new(),
            scratch: super::decoder::Scratch::default(),
            x: Vec::new(),
            queries: Vec::new(),
            keys_values: Vec::new(),
            block: Vec::new(),
            hidden: Vec::new(),
            scores: Vec::new(),
        }
    }

    /// The encoder's output of the segment encoded last, `[positions, d_model]`: for tests.
    #[doc(hidden)]
    #[must_use]
    pub fn encoded(&self) -> &[f32] {
        &self.x
    }

    /// The two convolutions and the positions: `mel` to `x`.
    fn convolve(&mut self, mel: &[f32], frames: usize) {
        let Self { model, products, x, keys_values, hidden, .. } = self;
        let (layers, store) = (&model.layers, &model.store);
        let (bands, width) = (model.config.num_mel_bins, model.config.d_model);
        let first = &mut keys_values[..frames * width];
        hidden.resize(hidden.len().max(ROWS * 3 * bands.max(width)), 0.0);
        // Weights are [d_model, channels, 3]: a row unfolds to channels of three neighbours each.
        for (from, out) in (0..frames).step_by(ROWS).zip(first.chunks_mut(ROWS * width)) {
            let rows = out.len() / width;
            let unfolded = &mut hidden[..rows * 3 * bands];
            for (t, row) in (from..).zip(unfolded.chunks_exact_mut(3 * bands)) {
                for (band, taps) in row.chunks_exact_mut(3).enumerate() {
                    let line = &mel[band * frames..(band + 1) * frames];
                    taps[0] = if t == 0 { 0.0 } else { line[t - 1] };
                    taps[1] = line[t];
                    taps[2] = line.get(t + 1).copied().unwrap_or(0.0);
                }
            }
            products.linear_gelu(store, &layers.conv1, unfolded, out);
        }
        let mut position = Vec::with_capacity(width);
        position.resize(width, 0.0);
        for (from, out) in (0..frames / 2).step_by(ROWS).zip(x.chunks_mut(ROWS * width)) {
            let rows = out.len() / width;
            let unfolded = &mut hidden[..rows * 3 * width];
            for (t, row) in (from..).zip(unfolded.chunks_exact_mut(3 * width)) {
                for tap in 0..3 {
                    let source = (2 * t + tap).checked_sub(1).and_then(|s| first.get(s * width..(s + 1) * width));
                    for (i, v) in row.iter_mut().skip(tap).step_by(3).enumerate() {
                        *v = source.map_or(0.0, |s| s[i]);
                    }
                }
            }
            products.linear_gelu(store, &layers.conv2, unfolded, out);
            for (t, row) in (from..).zip(out.chunks_exact_mut(width)) {
                let stored = store.row(&layers.encoder_positions, t);
                kernels::dequantise(products.level, layers.encoder_positions.form, stored, &mut position);
                for (v, p) in row.iter_mut().zip(&position) {
                    *v += p;
                }
            }
        }
    }

    /// One layer, in place on `x`.
    fn layer(&mut self, index: usize, positions: usize) {
        let Self { model, products, x, queries, keys_values, block, hidden, scores, .. } = self;
        let (store, layer) = (&model.store, &model.layers.encoder[index]);
        let (width, heads) = (model.config.d_model, model.config.encoder_attention_heads);
        let size = width / heads;
        let (keys, values) = keys_values.split_at_mut(positions * width);
        let attention = &layer.attention;
        let rows = ROWS * width;
        for (((x, q), k), v) in
            x.chunks(rows).zip(queries.chunks_mut(rows)).zip(keys.chunks_mut(rows)).zip(values.chunks_mut(rows))
        {
            let normed = &mut block[..x.len()];
            kernels::layer_norm(products.level, x, &layer.norm.weight, &layer.norm.bias, normed);
            products.linear(store, &attention.query, normed, q);
            let scale = 1.0 / (size as f32).sqrt();
            q.iter_mut().for_each(|v| *v *= scale);
            products.linear(store, &attention.key, normed, k);
            products.linear(store, &attention.value, normed, v);
        }
        // Each block's output takes the place of its queries.
        for queries in queries.chunks_mut(QUERIES * width) {
            let rows = queries.len() / width;
            let scores = &mut scores[..rows * positions];
            for head in 0..heads {
                let from = head * size;
                products.multiply(
                    (rows, positions, size),
                    Strided { data: &queries[from..], rows: width, columns: 1 },
                    Strided { data: &keys[from..], rows: 1, columns: width },
                    scores,
                    positions,
                );
                kernels::softmax(products.level, scores, positions);
                products.multiply(
                    (rows, size, positions),
                    Strided { data: scores, rows: positions, columns: 1 },
                    Strided { data: &values[from..], rows: width, columns: 1 },
                    &mut queries[from..],
                    width,
                );
            }
        }
        let feed_forward = &layer.feed_forward;
        let inner = feed_forward.up.weight.rows;
        for (x, mixed) in x.chunks_mut(rows).zip(queries.chunks(rows)) {
            let count = x.len() / width;
            let out = &mut block[..x.len()];
            products.linear(store, &attention.out, mixed, out);
            x.iter_mut().zip(&*out).for_each(|(x, y)| *x += y);
            kernels::layer_norm(products.level, x, &feed_forward.norm.weight, &feed_forward.norm.bias, out);
            let hidden = &mut hidden[..count * inner];
            products.linear_gelu(store, &feed_forward.up, out, hidden);
            products.linear(store, &feed_forward.down, hidden, out);
            x.iter_mut().zip(&*out).for_each(|(x, y)| *x += y);
        }
    }

    /// Keys and values of every decoder layer's cross-attention, from the normed output in `x`.
    fn cross(&mut self, segment: usize, positions: usize) {
        let Self { model, products, segments, x, block, .. } = self;
        let (width, heads) = (model.config.d_model, model.config.decoder_attention_heads);
        let size = width / heads;
        let cross = &mut segments[segment].cross;
        cross.resize(model.config.decoder_layers * 2 * positions * width, 0.0);
        let parts = model.layers.decoder.iter().flat_map(|layer| [&layer.cross.key, &layer.cross.value]);
        for (linear, out) in parts.zip(cross.chunks_exact_mut(positions * width)) {
            for (first, x) in (0..).step_by(ROWS).zip(x.chunks(ROWS * width)) {
                let y = &mut block[..x.len()];
                products.linear(&model.store, linear, x, y);
                for (t, row) in (first..).zip(y.chunks_exact(width)) {
                    for (head, part) in row.chunks_exact(size).enumerate() {
                        let at = (head * positions + t) * size;
                        out[at..at + size].copy_from_slice(part);
                    }
                }
            }
        }
    }
}

impl Forward for CpuForward {
    fn encode(&mut self, segment: usize, mel: &[f32], cancel: &Cancel) -> Result<(), DecodeError> {
        let config = self.model.config.clone();
        let (bands, width) = (config.num_mel_bins, config.d_model);
        let frames = mel.len() / bands;
        let positions = frames / 2;
        if mel.len() != frames * bands
            || !frames.is_multiple_of(2)
            || !(1..=config.max_source_positions).contains(&positions)
        {
            return Err(DecodeError::Invalid(format!(
                "{} mel values are not {bands} bands of an even number of frames up to {}",
                mel.len(),
                2 * config.max_source_positions
            )));
        }
        if segment > self.segments.len() || segment >= SEGMENTS {
            return Err(DecodeError::Invalid(format!(
                "segment {segment} cannot follow {} segments, at most {SEGMENTS}",
                self.segments.len()
            )));
        }
        if segment == self.segments.len() {
            self.segments.push(Segment::default());
        }
        self.segments[segment].positions = 0;
        self.segments[segment].tokens = 0;
        let inner = config.encoder_ffn_dim;
        let rows = ROWS.min(positions);
        self.x.resize(positions * width, 0.0);
        self.queries.resize(positions * width, 0.0);
        self.keys_values.resize(2 * positions * width, 0.0);
        self.block.resize(self.block.len().max(rows * width), 0.0);
        self.hidden.resize(self.hidden.len().max(rows * inner), 0.0);
        self.scores.resize(self.scores.len().max(QUERIES.min(positions) * positions), 0.0);
        self.convolve(mel, frames);
        for layer in 0..config.encoder_layers {
            if cancel.is_cancelled() {
                return Err(DecodeError::Cancelled);
            }
            self.layer(layer, positions);
        }
        if cancel.is_cancelled() {
            return Err(DecodeError::Cancelled);
        }
        let norm = &self.model.layers.encoder_norm;
        for x in self.x.chunks_mut(ROWS * width) {
            let out = &mut self.block[..x.len()];
            kernels::layer_norm(self.products.level, x, &norm.weight, &norm.bias, out);
            x.copy_from_slice(out);
        }
        self.cross(segment, positions);
        self.segments[segment].positions = positions;
        Ok(())
    }

    fn decode(
        &mut self,
        steps: &[Step<'_>],
        logits: &mut Vec<f32>,
        attention: Option<&mut CrossAttention>,
    ) -> Result<(), DecodeError> {
        self.run_decoder(steps, logits, attention)
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
