//! The decoder on the CPU.
//!
//! In: tokens behind those that segments already hold. Out: logits `[wanted tokens, vocabulary]`.
//! All tokens of all segments pass each linear layer together; attention is a segment's own.

use super::encoder::{CpuForward, Segment};
use super::forward::{CrossAttention, Step};
use super::kernels;
use super::linear::{Products, Strided};
use super::weights::FeedForward;
use crate::asr::DecodeError;

/// Activations of the tokens of one call; grows to the largest call and stays.
#[derive(Default)]
pub(super) struct Scratch {
    /// `[tokens, d_model]`, as the next four.
    x: Vec<f32>,
    normed: Vec<f32>,
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    /// `[tokens, decoder_ffn_dim]`
    hidden: Vec<f32>,
    /// `[tokens of a step, keys]`
    scores: Vec<f32>,
}

impl Scratch {
    fn resize(&mut self, tokens: usize, width: usize, inner: usize) {
        for v in [&mut self.x, &mut self.normed, &mut self.queries, &mut self.keys, &mut self.values] {
            v.resize(tokens * width, 0.0);
        }
        self.hidden.resize(tokens * inner, 0.0);
    }
}

/// Sizes that attention needs.
#[derive(Clone, Copy)]
struct Heads {
    count: usize,
    size: usize,
    /// Tokens that a segment can hold.
    capacity: usize,
}

impl CpuForward {
    /// What is wrong with the steps, if anything.
    fn check(&self, steps: &[Step<'_>]) -> Result<(), DecodeError> {
        let config = &self.model.config;
        for (i, step) in steps.iter().enumerate() {
            let problem = match self.segments.get(step.segment) {
                _ if steps[..i].iter().any(|other| other.segment == step.segment) => "takes part twice".to_string(),
                Some(segment) if segment.positions > 0 => {
                    let held = segment.tokens.saturating_add(step.tokens.len());
                    if step.tokens.is_empty() {
                        "has no tokens".to_string()
                    } else if held > config.max_target_positions {
                        format!("would hold {held} tokens, the model holds {}", config.max_target_positions)
                    } else if let Some(token) = step.tokens.iter().find(|&&t| t as usize >= config.vocab_size) {
                        format!("has token {token}, the model has {}", config.vocab_size)
                    } else {
                        continue;
                    }
                }
                _ => "was not encoded".to_string(),
            };
            return Err(DecodeError::Invalid(format!("segment {} {problem}", step.segment)));
        }
        Ok(())
    }

    pub(super) fn run_decoder(
        &mut self,
        steps: &[Step<'_>],
        logits: &mut Vec<f32>,
        mut attention: Option<&mut CrossAttention>,
    ) -> Result<(), DecodeError> {
        self.check(steps)?;
        let Self { model, products, segments, scratch, .. } = self;
        let (config, store, layers) = (&model.config, &model.store, &model.layers);
        let width = config.d_model;
        let heads = Heads {
            count: config.decoder_attention_heads,
            size: width / config.decoder_attention_heads,
            capacity: config.max_target_positions,
        };
        let tokens: usize = steps.iter().map(|step| step.tokens.len()).sum();
        scratch.resize(tokens, width, config.decoder_ffn_dim);
        if let Some(attention) = attention.as_deref_mut() {
            let positions: usize = steps.iter().map(|s| s.tokens.len() * segments[s.segment].positions).sum();
            attention.weights.clear();
            attention.weights.resize(attention.heads.len() * positions, 0.0);
        }
        let mut rows = scratch.x.chunks_exact_mut(width).zip(scratch.normed.chunks_exact_mut(width));
        for step in steps {
            let segment = &mut segments[step.segment];
            segment.cached.resize(config.decoder_layers * 2 * heads.capacity * width, 0.0);
            for (i, (&token, (x, position))) in step.tokens.iter().zip(rows.by_ref()).enumerate() {
                let (embedding, positions) = (&layers.embedding, &layers.decoder_positions);
                kernels::dequantise(products.level, embedding.form, store.row(embedding, token as usize), x);
                let stored = store.row(positions, segment.tokens + i);
                kernels::dequantise(products.level, positions.form, stored, position);
                x.iter_mut().zip(position).for_each(|(x, p)| *x += *p);
            }
        }
        drop(rows);
        let scale = 1.0 / (heads.size as f32).sqrt();
        for (index, layer) in layers.decoder.iter().enumerate() {
            let Scratch { x, normed, queries, keys, values, hidden, scores } = scratch;
            kernels::layer_norm(products.level, x, &layer.norm.weight, &layer.norm.bias, normed);
            products.linear(store, &layer.attention.query, normed, queries);
            queries.iter_mut().for_each(|v| *v *= scale);
            products.linear(store, &layer.attention.key, normed, keys);
            products.linear(store, &layer.attention.value, normed, values);
            let mut from = 0;
            for step in steps {
                let part = from * width..(from + step.tokens.len()) * width;
                let segment = &mut segments[step.segment];
                append(segment, index, heads, &keys[part.clone()], &values[part.clone()]);
                attend_self(products, segment, index, heads, &queries[part.clone()], scores, &mut normed[part]);
                from += step.tokens.len();
            }
            products.linear(store, &layer.attention.out, normed, queries);
            x.iter_mut().zip(&*queries).for_each(|(x, y)| *x += y);

            kernels::layer_norm(products.level, x, &layer.cross_norm.weight, &layer.cross_norm.bias, normed);
            products.linear(store, &layer.cross.query, normed, queries);
            queries.iter_mut().for_each(|v| *v *= scale);
            let (mut from, mut weights_from) = (0, 0);
            for step in steps {
                let part = from * width..(from + step.tokens.len()) * width;
                let segment = &segments[step.segment];
                let wanted = attention.as_deref_mut().map(|a| (index, a, weights_from));
                attend_cross(
                    products,
                    segment,
                    index,
                    heads,
                    &queries[part.clone()],
                    scores,
                    &mut normed[part],
                    wanted,
                );
                from += step.tokens.len();
                let asked = attention.as_deref().map_or(0, |a| a.heads.len());
                weights_from += step.tokens.len() * asked * segment.positions;
            }
            products.linear(store, &layer.cross.out, normed, queries);
            x.iter_mut().zip(&*queries).for_each(|(x, y)| *x += y);

            let FeedForward { norm, up, down } = &layer.feed_forward;
            kernels::layer_norm(products.level, x, &norm.weight, &norm.bias, normed);
            products.linear_gelu(store, up, normed, hidden);
            products.linear(store, down, hidden, queries);
            x.iter_mut().zip(&*queries).for_each(|(x, y)| *x += y);
        }
        // Rows whose logits are wanted move to the front.
        let (mut from, mut wanted) = (0, 0);
        for step in steps {
            segments[step.segment].tokens += step.tokens.len();
            for row in from + step.logits_from.min(step.tokens.len())..from + step.tokens.len() {
                scratch.x.copy_within(row * width..(row + 1) * width, wanted * width);
                wanted += 1;
            }
            from += step.tokens.len();
        }
        let Scratch { x, normed, .. } = scratch;
        let (x, normed) = (&x[..wanted * width], &mut normed[..wanted * width]);
        kernels::layer_norm(products.level, x, &layers.decoder_norm.weight, &layers.decoder_norm.bias, normed);
        logits.resize(wanted * config.vocab_size, 0.0);
        if wanted > 0 {
            products.matrix(store, &layers.embedding, normed, logits);
        }
        Ok(())
    }
}

/// Files keys and values `[tokens, d_model]` behind those that the segment holds.
fn append(segment: &mut Segment, layer: usize, heads: Heads, keys: &[f32], values: &[f32]) {
    let width = heads.count * heads.size;
    for (part, rows) in [keys, values].into_iter().enumerate() {
        for (i, row) in rows.chunks_exact(width).enumerate() {
            for (head, row) in row.chunks_exact(heads.size).enumerate() {
                let line = ((layer * 2 + part) * heads.count + head) * heads.capacity + segment.tokens + i;
                segment.cached[line * heads.size..(line + 1) * heads.size].copy_from_slice(row);
            }
        }
    }
}

/// Self-attention of a step's tokens over those before them and themselves: `[tokens, d_model]`.
fn attend_self(
    products: &Products,
    segment: &Segment,
    layer: usize,
    heads: Heads,
    queries: &[f32],
    scores: &mut Vec<f32>,
    out: &mut [f32],
) {
    let width = heads.count * heads.size;
    scores.resize(scores.len().max(heads.capacity), 0.0);
    for (i, (q, out)) in queries.chunks_exact(width).zip(out.chunks_exact_mut(width)).enumerate() {
        let seen = segment.tokens + i + 1;
        let scores = &mut scores[..seen];
        for (head, (q, out)) in q.chunks_exact(heads.size).zip(out.chunks_exact_mut(heads.size)).enumerate() {
            let lines = |part: usize| {
                let first = ((layer * 2 + part) * heads.count + head) * heads.capacity;
                &segment.cached[first * heads.size..(first + seen) * heads.size]
            };
            kernels::dots(products.level, lines(0), q, scores);
            kernels::softmax(products.level, scores, seen);
            kernels::weighted_sum(products.level, lines(1), scores, out);
        }
    }
}

/// Cross-attention of a step's tokens over its segment's positions. `wanted`: the layer, where to file the weights of
/// the heads asked for, and from which element on.
#[expect(clippy::too_many_arguments, reason = "all are operands; a struct would be filled in one place only")]
fn attend_cross(
    products: &Products,
    segment: &Segment,
    layer: usize,
    heads: Heads,
    queries: &[f32],
    scores: &mut Vec<f32>,
    out: &mut [f32],
    mut wanted: Option<(usize, &mut CrossAttention, usize)>,
) {
    let (width, positions) = (heads.count * heads.size, segment.positions);
    let tokens = queries.len() / width;
    scores.resize(scores.len().max(tokens * positions), 0.0);
    let scores = &mut scores[..tokens * positions];
    for head in 0..heads.count {
        let lines = |part: usize| {
            let first = ((layer * 2 + part) * heads.count + head) * positions;
            &segment.cross[first * heads.size..(first + positions) * heads.size]
        };
        let here = head * heads.size;
        if tokens == 1 {
            kernels::dots(products.level, lines(0), &queries[here..here + heads.size], scores);
            kernels::softmax(products.level, scores, positions);
            kernels::weighted_sum(products.level, lines(1), scores, &mut out[here..here + heads.size]);
        } else {
            products.multiply(
                (tokens, positions, heads.size),
                Strided { data: &queries[here..], rows: width, columns: 1 },
                Strided { data: lines(0), rows: 1, columns: heads.size },
                scores,
                positions,
            );
            kernels::softmax(products.level, scores, positions);
            products.multiply(
                (tokens, heads.size, positions),
                Strided { data: scores, rows: positions, columns: 1 },
                Strided { data: lines(1), rows: heads.size, columns: 1 },
                &mut out[here..],
                width,
            );
        }
        if let Some((layer, attention, from)) = &mut wanted {
            let asked = attention.heads.len();
            for (slot, &wanted) in attention.heads.iter().enumerate() {
                if wanted == (*layer, head) {
                    for (token, scores) in scores.chunks_exact(positions).enumerate() {
                        let at = *from + (token * asked + slot) * positions;
                        attention.weights[at..at + positions].copy_from_slice(scores);
                    }
                }
            }
        }
    }
}
