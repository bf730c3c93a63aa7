//! The encoder on the CPU.
//!
//! In: log-mel `[frames, bands]`. Out: positions `[positions, d_model]`, and from them the keys and values of every
//! decoder layer's cross-attention.
//!
//! Rows go through a layer in parts that stay in the cache: attention and feed-forward of one layer, then queries, keys
//! and values of the next. Only attention looks at other rows than its own, so all parts must be done with one layer
//! before the next begins, and keys and values are kept twice.

#![expect(unsafe_code, reason = "parts of one buffer are written by two threads")]

use super::kernels::{Finish, Floats, Keys, LANES, Level, attend};
use super::linear::Work;
use super::model::WhisperModel;
use super::tail::Tail;
use crate::asr::team::{Parts, Team};
use crate::asr::{Cancel, DecodeError};

/// Most rows of a part: their widest activations stay in the second-level cache, and a layer's weights, which may not,
/// are read as seldom as that allows.
const ROWS: usize = 10 * LANES;

/// Rows of each part: whole blocks of keys, and an even number of parts where that rounding allows it, so that two threads
/// have about as much to do.
fn rows_of_a_part(positions: usize) -> usize {
    let parts = 2 * positions.div_ceil(2 * ROWS);
    positions.div_ceil(parts).next_multiple_of(LANES)
}

/// What the encoder begins with.
#[derive(Clone, Copy)]
pub(super) enum Input<'a> {
    /// Log-mel `[frames, bands]` for so many positions: two frames each, and what the convolutions see behind them.
    Mel { mel: &'a [f32], positions: usize },
    /// Rows behind the convolutions, their places added, and what is added to the scores of each.
    Rows { x: &'a [f32], bias: &'a [f32] },
}

/// Activations of one run; grows to the largest and stays.
#[derive(Default)]
pub(super) struct Encoder {
    /// `[1 + frames + 1, bands]`, the first and the last zero: what the convolution sees outside.
    mel: Floats,
    /// `[positions, d_model]`, as the next.
    x: Floats,
    queries: Floats,
    /// Blocks as of [`Keys`], of the current layer and of the next.
    blocks: [Floats; 2],
}

impl Encoder {
    /// The output of the last run: `[positions, d_model]`.
    pub(super) fn output(&self) -> &[f32] {
        &self.x
    }

    /// The rows behind the convolutions, places not added: `[positions, d_model]`. `mel` is all there is.
    pub(super) fn convolved(
        &mut self,
        model: &WhisperModel,
        level: Level,
        team: &mut Team<Work>,
        mel: &[f32],
        positions: usize,
    ) -> &[f32] {
        self.take(model, Input::Mel { mel, positions });
        convolve(model, level, &mut team.work[0], &self.mel, 0, &mut self.x);
        &self.x
    }

    /// Sizes the buffers, and copies what comes from outside.
    fn take(&mut self, model: &WhisperModel, input: Input<'_>) -> usize {
        let (bands, width) = (model.config.num_mel_bins, model.config.d_model);
        let positions = match input {
            Input::Mel { mel, positions } => {
                let frames = mel.len().min((2 * positions + 1) * bands);
                self.mel.resize((2 * positions + 2) * bands);
                self.mel[..bands].fill(0.0);
                self.mel[bands..][..frames].copy_from_slice(&mel[..frames]);
                self.mel[bands + frames..].fill(0.0);
                positions
            }
            Input::Rows { x, .. } => x.len() / width,
        };
        self.x.resize(positions * width);
        if let Input::Rows { x, .. } = input {
            self.x.copy_from_slice(x);
        }
        self.queries.resize(positions * width);
        let layout = model.layers.encoder[0].attention.layout(model.config.encoder_attention_heads);
        for blocks in &mut self.blocks {
            blocks.resize(positions.div_ceil(LANES) * layout.block());
        }
        positions
    }

    /// Runs all layers. `tail` is the silence behind the positions, with its bias. `cross` becomes the keys and values
    /// of cross-attention, `[decoder layers]` of blocks as of [`Keys`]. `each_layer` sees each layer's.
    #[expect(clippy::too_many_arguments, reason = "two of them are where results go")]
    pub(super) fn run(
        &mut self,
        model: &WhisperModel,
        level: Level,
        team: &mut Team<Work>,
        input: Input<'_>,
        tail: Option<(&Tail, &[f32])>,
        cross: &mut Floats,
        cancel: &Cancel,
        each_layer: &mut dyn FnMut(&[f32]),
    ) -> Result<(), DecodeError> {
        let positions = self.take(model, input);
        let (layers, config) = (&model.layers, &model.config);
        let width = config.d_model;
        let layout = layers.encoder[0].attention.layout(config.encoder_attention_heads);
        let cross_layout = layers.decoder[0].cross.layout(config.decoder_attention_heads);
        let part_rows = rows_of_a_part(positions);
        let all_blocks = positions.div_ceil(LANES) * cross_layout.block();
        cross.resize(config.decoder_layers * all_blocks);
        let bias = if let Input::Rows { bias, .. } = input { bias } else { &[] };
        for pass in 0..=layers.encoder.len() {
            let [current, next] = &mut self.blocks;
            let (current, frames) = (&*current, &self.mel);
            let (x, queries, next, cross) =
                (Parts::new(&mut self.x), Parts::new(&mut self.queries), Parts::new(next), Parts::new(cross));
            team.run(positions.div_ceil(part_rows), |work, part| {
                // A pass over half a minute takes a tenth of a second and more; a part, some milliseconds.
                if cancel.is_cancelled() {
                    return;
                }
                let rows = part * part_rows..((part + 1) * part_rows).min(positions);
                let blocks = rows.start / LANES..rows.end.div_ceil(LANES);
                // SAFETY: rows, and with them blocks, are this part's alone: they come in whole blocks.
                let (x, queries) = unsafe {
                    let rows = rows.start * width..rows.end * width;
                    (x.part(rows.clone()), queries.part(rows))
                };
                // Attention and feed-forward of the layer before, or what there is before the first.
                if let Some(layer) = pass.checked_sub(1).map(|before| &layers.encoder[before]) {
                    let own = Keys { blocks: current, count: positions, bias };
                    let silence = tail.map(|(tail, bias)| tail.encoder(pass - 1, bias));
                    let sets = [Some(own), silence];
                    let sets: &[Keys<'_>] = match &sets {
                        [Some(own), Some(silence)] => &[*own, *silence],
                        _ => &[own],
                    };
                    work.normed.resize(x.len());
                    attend(level, layout, queries, sets, &mut work.attention, &mut work.normed, None);
                    let (normed, acts, hidden) = (&mut work.normed, &mut work.acts, &mut work.hidden);
                    layer.attention.out.run(level, acts, normed, Finish::Add, x);
                    let feed_forward = &layer.feed_forward;
                    feed_forward.norm.apply(level, x, normed);
                    hidden.resize(rows.len() * feed_forward.up.weight.outputs);
                    feed_forward.up.run(level, acts, normed, Finish::Gelu, hidden);
                    feed_forward.down.run(level, acts, hidden, Finish::Add, x);
                } else if let Input::Mel { .. } = input {
                    convolve(model, level, work, frames, rows.start, x);
                    let places = &layers.encoder_positions[rows.start * width..rows.end * width];
                    x.iter_mut().zip(places).for_each(|(x, place)| *x += place);
                }
                // Queries, keys and values of the next layer, or of cross-attention behind the last.
                let Work { acts, normed, keys, values, filed, .. } = work;
                normed.resize(x.len());
                keys.resize(x.len());
                values.resize(x.len());
                if let Some(layer) = layers.encoder.get(pass) {
                    layer.norm.apply(level, x, normed);
                    let attention = &layer.attention;
                    attention.query.run(level, acts, normed, Finish::Store, queries);
                    attention.key.apply(level, acts, Finish::Store, keys);
                    attention.value.apply(level, acts, Finish::Store, values);
                    // SAFETY: as for the rows.
                    let to = unsafe { next.part(blocks.start * layout.block()..blocks.end * layout.block()) };
                    layout.file(level, filed, to, 0, keys, values);
                } else {
                    layers.encoder_norm.apply(level, x, normed);
                    x.copy_from_slice(normed);
                    for (index, layer) in layers.decoder.iter().enumerate() {
                        let attention = &layer.cross;
                        if index == 0 {
                            acts.load(level, attention.key.weight.packing(), x, width, width);
                        }
                        attention.key.apply(level, acts, Finish::Store, keys);
                        attention.value.apply(level, acts, Finish::Store, values);
                        let (first, block) = (index * all_blocks, cross_layout.block());
                        // SAFETY: as for the rows, within this layer's blocks.
                        let to = unsafe { cross.part(first + blocks.start * block..first + blocks.end * block) };
                        cross_layout.file(level, filed, to, 0, keys, values);
                    }
                }
            });
            if cancel.is_cancelled() {
                return Err(DecodeError::Cancelled);
            }
            self.blocks.swap(0, 1);
            if pass < layers.encoder.len() {
                each_layer(&self.blocks[0]);
            }
        }
        Ok(())
    }
}

/// Both convolutions, for the positions from `first` on that `x` has room for.
fn convolve(model: &WhisperModel, level: Level, work: &mut Work, mel: &[f32], first: usize, x: &mut [f32]) {
    let (layers, bands, width) = (&model.layers, model.config.num_mel_bins, model.config.d_model);
    let positions = x.len() / width;
    let Work { acts, hidden, .. } = work;
    // A position sees three frames behind the first convolution, `2 p − 1` to `2 p + 1`, and each of these three of mel.
    // Before the first frame of all there is none, but zeros.
    let missing = usize::from(first == 0);
    let frames = 2 * first + missing..2 * (first + positions) + 1;
    let seen = &mel[(frames.start - 1) * bands..(frames.end + 1) * bands];
    hidden.resize((2 * positions + 1) * width);
    hidden[..missing * width].fill(0.0);
    acts.load(level, layers.conv1.weight.packing(), seen, 3 * bands, bands);
    layers.conv1.apply(level, acts, Finish::Gelu, &mut hidden[missing * width..]);
    acts.load(level, layers.conv2.weight.packing(), hidden, 3 * width, 2 * width);
    layers.conv2.apply(level, acts, Finish::Gelu, x);
}
