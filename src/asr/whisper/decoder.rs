//! The decoder on the CPU.
//!
//! In: tokens behind those that segments already hold. Out: logits `[wanted tokens, vocabulary]`.
//! All tokens of all segments pass each linear layer together, which reads its weights once; attention is a segment's
//! own. Every row is computed alike whatever stands beside it, so tokens appended together get what they would get one
//! by one: verifying a draft changes no bit.

#![expect(unsafe_code, reason = "two threads write different columns of the logits")]

use super::cpu::{CpuForward, Segment};
use super::forward::{CrossAttention, Step};
use super::kernels::{Finish, Floats, Keys, LANES, OnWeights, attend, product_into};
use super::weights::FeedForward;
use crate::asr::DecodeError;
use crate::asr::team::Parts;

/// Tiles of logits that one thread computes before it asks for more: 100 kB to 1 MB of weights.
const TILES: usize = 128;

/// Activations of the tokens of one call; grows to the largest call and stays.
#[derive(Default)]
pub(super) struct Scratch {
    /// `[tokens, d_model]`, as the next.
    x: Floats,
    mixed: Floats,
    /// `[wanted tokens, whole tiles of the vocabulary]`
    logits: Floats,
}

impl CpuForward {
    /// What is wrong with the steps, if anything.
    fn check(&self, steps: &[Step<'_>], vocabulary: usize) -> Result<(), DecodeError> {
        let config = &self.model.config;
        if vocabulary > config.vocab_size {
            let held = config.vocab_size;
            return Err(DecodeError::Invalid(format!(
                "logits of {vocabulary} tokens are wanted, the model has {held}"
            )));
        }
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
        vocabulary: usize,
        logits: &mut Vec<f32>,
        mut attention: Option<&mut CrossAttention>,
    ) -> Result<(), DecodeError> {
        self.check(steps, vocabulary)?;
        let Self { model, level, team, segments, scratch, .. } = self;
        let (config, layers, level) = (&model.config, &model.layers, *level);
        let width = config.d_model;
        let heads = config.decoder_attention_heads;
        let tokens: usize = steps.iter().map(|step| step.tokens.len()).sum();
        let Scratch { x, mixed, logits: padded } = scratch;
        x.resize(tokens * width);
        mixed.resize(tokens * width);
        if let Some(attention) = attention.as_deref_mut() {
            let positions: usize = steps.iter().map(|s| s.tokens.len() * segments[s.segment].positions).sum();
            attention.weights.clear();
            attention.weights.resize(attention.heads.len() * positions, 0.0);
        }
        let mut rows = x.chunks_exact_mut(width);
        for step in steps {
            let segment = &mut segments[step.segment];
            segment.cached.resize_with(config.decoder_layers, Floats::default);
            let blocks = (segment.tokens + step.tokens.len()).div_ceil(LANES);
            for (cached, layer) in segment.cached.iter_mut().zip(&layers.decoder) {
                cached.resize(blocks * layer.attention.layout(heads).block());
            }
            for (i, (&token, x)) in step.tokens.iter().zip(rows.by_ref()).enumerate() {
                layers.embedding.row(token as usize, x);
                let place = segment.tokens + i;
                let place = &layers.decoder_positions[place * width..(place + 1) * width];
                x.iter_mut().zip(place).for_each(|(x, p)| *x += p);
            }
        }
        let work = &mut team.work[0];
        for (index, layer) in layers.decoder.iter().enumerate() {
            for part in [&mut work.normed, &mut work.queries, &mut work.keys, &mut work.values] {
                part.resize(tokens * width);
            }
            layer.norm.apply(level, x, &mut work.normed);
            let own = &layer.attention;
            work.acts.load(level, own.query.weight.packing(), &work.normed, width, width);
            own.query.apply(level, &work.acts, Finish::Store, &mut work.queries);
            own.key.apply(level, &work.acts, Finish::Store, &mut work.keys);
            own.value.apply(level, &work.acts, Finish::Store, &mut work.values);
            let layout = own.layout(heads);
            let mut from = 0;
            for step in steps {
                let segment = &mut segments[step.segment];
                let cached = &mut segment.cached[index];
                let part = from * width..(from + step.tokens.len()) * width;
                let (keys, values) = (&work.keys[part.clone()], &work.values[part.clone()]);
                layout.file(level, &mut work.filed, cached, segment.tokens, keys, values);
                // Each token sees those before it and itself.
                let rows = work.queries[part.clone()].chunks_exact(width).zip(mixed[part].chunks_exact_mut(width));
                for (i, (query, out)) in rows.enumerate() {
                    let keys = Keys { blocks: cached, count: segment.tokens + i + 1, bias: &[] };
                    attend(level, layout, query, &[keys], &mut work.attention, out, None);
                }
                from += step.tokens.len();
            }
            own.out.run(level, &mut work.acts, mixed, Finish::Add, x);

            layer.cross_norm.apply(level, x, &mut work.normed);
            layer.cross.query.run(level, &mut work.acts, &work.normed, Finish::Store, &mut work.queries);
            let layout = layer.cross.layout(heads);
            let (mut from, mut weights_from) = (0, 0);
            for step in steps {
                let part = from * width..(from + step.tokens.len()) * width;
                let segment = &segments[step.segment];
                let asked = attention.as_deref().map_or(0, |a| a.heads.len());
                let mut file = |head: usize, row: usize, weights: &[f32]| {
                    if let Some(attention) = attention.as_deref_mut() {
                        let positions = segment.positions;
                        for slot in (0..asked).filter(|&slot| attention.heads[slot] == (index, head)) {
                            let at = weights_from + (row * asked + slot) * positions;
                            let total: f32 = weights.iter().sum();
                            let to = &mut attention.weights[at..at + positions];
                            to.iter_mut().zip(weights).for_each(|(to, weight)| *to = weight / total);
                        }
                    }
                };
                let file: Option<&mut OnWeights<'_>> = if asked > 0 { Some(&mut file) } else { None };
                let sets = cross_keys(segment, index, config.decoder_layers, model.tail.as_ref());
                let count = if segment.silence.is_empty() { 1 } else { 2 };
                let (queries, out) = (&work.queries[part.clone()], &mut mixed[part]);
                attend(level, layout, queries, &sets[..count], &mut work.attention, out, file);
                from += step.tokens.len();
                weights_from += step.tokens.len() * asked * segment.positions;
            }
            layer.cross.out.run(level, &mut work.acts, mixed, Finish::Add, x);

            let FeedForward { norm, up, down } = &layer.feed_forward;
            norm.apply(level, x, &mut work.normed);
            work.hidden.resize(tokens * up.weight.outputs);
            up.run(level, &mut work.acts, &work.normed, Finish::Gelu, &mut work.hidden);
            down.run(level, &mut work.acts, &work.hidden, Finish::Add, x);
        }
        // Rows whose logits are wanted move to the front.
        let (mut from, mut wanted) = (0, 0);
        for step in steps {
            segments[step.segment].tokens += step.tokens.len();
            for row in from + step.logits_from.min(step.tokens.len())..from + step.tokens.len() {
                x.copy_within(row * width..(row + 1) * width, wanted * width);
                wanted += 1;
            }
            from += step.tokens.len();
        }
        layers.decoder_norm.apply(level, &x[..wanted * width], &mut mixed[..wanted * width]);
        let tiles = vocabulary.div_ceil(LANES);
        let stride = tiles * LANES;
        padded.resize(wanted * stride);
        // Taken out, so that both threads may read it.
        let mut acts = std::mem::take(&mut team.work[0].acts);
        acts.load(level, layers.embedding.packing(), &mixed[..wanted * width], width, width);
        let out = Parts::new(padded);
        team.run(tiles.div_ceil(TILES), |_, part| {
            let tiles = part * TILES..((part + 1) * TILES).min(tiles);
            // SAFETY: there are `wanted` rows of whole tiles, and these columns are this part's alone.
            unsafe {
                let to = out.as_mut_ptr();
                product_into(level, &acts, &layers.embedding, tiles, None, Finish::Store, to, stride);
            }
        });
        team.work[0].acts = acts;
        logits.resize(wanted * vocabulary, 0.0);
        for (logits, padded) in logits.chunks_exact_mut(vocabulary.max(1)).zip(padded.chunks_exact(stride.max(1))) {
            logits.copy_from_slice(&padded[..vocabulary]);
        }
        Ok(())
    }
}

/// The positions encoded, and the silence behind them: the second counts only where there is any.
fn cross_keys<'a>(
    segment: &'a Segment,
    layer: usize,
    layers: usize,
    tail: Option<&'a super::tail::Tail>,
) -> [Keys<'a>; 2] {
    let blocks = segment.cross.len() / layers;
    let blocks = &segment.cross[layer * blocks..(layer + 1) * blocks];
    let own = Keys { blocks, count: segment.positions, bias: &[] };
    [own, tail.map_or(own, |tail| tail.decoder(layer, &segment.silence))]
}
