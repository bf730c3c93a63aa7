//! The silence behind a caption, computed once.
//!
//! In: a model. Out: [`Tail`]: keys and values of silence for every layer's attention, few enough to be looked at by all.
//!
//! Whisper hears windows of 30 s, and goes astray where the silence behind a short text is missing. Computing it is most
//! of the encoder's work, and it is nearly the same every time. So the encoder runs over silence once, when the model is
//! loaded, and later runs see its last positions one by one and those before them as the means of groups, each with the
//! logarithm of its size added to its score.
//!
//! Each group counts from the end, so that all captions share them; the first one of a caption is cut by the caption's
//! own positions, and only its weight tells. The silence itself is computed at a stride: its positions differ in
//! nothing but where they are.

use super::encoder::{Encoder, Input};
use super::kernels::{Activations, Floats, Keys, LANES, Layout, Level};
use super::mel;
use super::model::WhisperModel;
use crate::asr::team::Team;
use crate::asr::{Cancel, DecodeError};

/// What is kept of the silence. The defaults are what the sweep in docs/performance.md chose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TailShape {
    /// Positions encoded behind the audio.
    pub margin: usize,
    /// Last positions of the window that are kept one by one: Whisper's attention rests on them.
    pub last: usize,
    /// Positions that share one key and value, before them.
    pub group: usize,
    /// Of these, every so many is computed.
    pub stride: usize,
    /// The log-mel value of silence.
    pub floor: f32,
}

impl Default for TailShape {
    fn default() -> Self {
        Self { margin: 64, last: 64, group: 64, stride: 2, floor: -0.7 }
    }
}

/// Cached silence of one model.
pub(crate) struct Tail {
    shape: TailShape,
    /// Positions of the window that are in groups: all but the last.
    grouped: usize,
    /// For each encoder layer, blocks as of [`Keys`]: the last positions, then the groups, the latest first.
    encoder: Vec<Floats>,
    /// The same for each decoder layer's cross-attention.
    decoder: Vec<Floats>,
}

impl Tail {
    /// Runs the encoder over silence. `None` for a model whose window is too short to leave anything out.
    pub(crate) fn new(model: &WhisperModel, shape: TailShape, level: Level) -> Result<Option<Self>, DecodeError> {
        let shape = TailShape { group: shape.group.max(1), stride: shape.stride.max(1), ..shape };
        let config = &model.config;
        let positions = config.max_source_positions;
        let Some(grouped) = positions.checked_sub(shape.last).filter(|grouped| *grouped >= 2 * shape.group) else {
            return Ok(None);
        };
        // From the end: what each computed position stands for.
        let mut found: Vec<(usize, usize)> = (1..=shape.last).map(|i| (positions - i, 1)).collect();
        let mut end = grouped;
        while end > 0 {
            let size = shape.stride.min(end);
            found.push((end - size + size / 2, size));
            end -= size;
        }
        let bias: Vec<f32> = found.iter().map(|&(_, size)| (size as f32).ln()).collect();
        let mut encoder = Encoder::default();
        let mut team = Team::new(None);
        // Convolutions see three positions at most: these hold all there is to see, both ends included.
        let frames = vec![shape.floor; 16 * config.num_mel_bins];
        let rows = encoder.convolved(model, level, &mut team, &frames, 8);
        let width = config.d_model;
        let mut x = Vec::with_capacity(found.len() * width);
        for &(position, _) in &found {
            let row = if position == 0 { 0 } else { 4 + 3 * usize::from(position + 1 == positions) };
            let places = &model.layers.encoder_positions[position * width..(position + 1) * width];
            x.extend(rows[row * width..(row + 1) * width].iter().zip(places).map(|(x, p)| x + p));
        }
        let mut tail = Self { shape, grouped, encoder: Vec::new(), decoder: Vec::new() };
        let mut filed = Activations::default();
        let mut kept = |blocks: &[f32], layout: Layout| -> Floats {
            let groups = grouped.div_ceil(shape.group);
            let mut out = Floats::zeros((shape.last + groups).div_ceil(LANES) * layout.block());
            let (mut key, mut value) = (vec![0.0; width], vec![0.0; width]);
            let (mut keys, mut values) = (vec![0.0; width], vec![0.0; width]);
            for i in 0..shape.last {
                layout.read(blocks, i, &mut key, &mut value);
                layout.file(level, &mut filed, &mut out, i, &key, &value);
            }
            for group in 0..groups {
                let span = grouped.saturating_sub((group + 1) * shape.group)..grouped - group * shape.group;
                let members: Vec<usize> = (shape.last..found.len()).filter(|&i| span.contains(&found[i].0)).collect();
                let total: usize = members.iter().map(|&i| found[i].1).sum();
                keys.fill(0.0);
                values.fill(0.0);
                for member in members {
                    layout.read(blocks, member, &mut key, &mut value);
                    let weight = found[member].1 as f32 / total as f32;
                    keys.iter_mut().zip(&key).for_each(|(mean, v)| *mean += weight * v);
                    values.iter_mut().zip(&value).for_each(|(mean, v)| *mean += weight * v);
                }
                layout.file(level, &mut filed, &mut out, shape.last + group, &keys, &values);
            }
            out
        };
        let mut cross = Floats::default();
        let input = Input::Rows { x: &x, bias: &bias };
        let encoder_layout = model.layers.encoder[0].attention.layout(config.encoder_attention_heads);
        let decoder_layout = model.layers.decoder[0].cross.layout(config.decoder_attention_heads);
        let mut each_layer = Vec::new();
        encoder.run(model, level, &mut team, input, None, &mut cross, &Cancel::new(), &mut |blocks| {
            each_layer.push(kept(blocks, encoder_layout));
        })?;
        tail.encoder = each_layer;
        let layer = cross.len() / config.decoder_layers;
        tail.decoder = cross.chunks_exact(layer).map(|blocks| kept(blocks, decoder_layout)).collect();
        Ok(Some(tail))
    }

    /// How many positions to encode for audio of so many samples: they and the margin, in whole blocks. `None` where
    /// the window has too little silence left to make it worth while.
    pub(crate) fn positions(&self, samples: usize) -> Option<usize> {
        let positions = (samples.div_ceil(2 * mel::HOP) + self.shape.margin).next_multiple_of(LANES);
        (positions + self.shape.group <= self.grouped).then_some(positions)
    }

    /// Whether so many positions leave silence to stand for: whole blocks, none of the last ones.
    pub(crate) fn fits(&self, positions: usize) -> bool {
        positions.is_multiple_of(LANES) && positions <= self.grouped
    }

    /// Writes what is added to the scores of the silence behind so many positions, one number for each of its keys.
    pub(crate) fn bias(&self, positions: usize, bias: &mut Vec<f32>) {
        bias.clear();
        bias.resize(self.shape.last, 0.0);
        let mut left = self.grouped.saturating_sub(positions);
        while left > 0 {
            let size = left.min(self.shape.group);
            bias.push((size as f32).ln());
            left -= size;
        }
    }

    /// The keys of an encoder layer; `bias` is from [`Tail::bias`].
    pub(crate) fn encoder<'a>(&'a self, layer: usize, bias: &'a [f32]) -> Keys<'a> {
        Keys { blocks: &self.encoder[layer], count: bias.len(), bias }
    }

    /// The keys of a decoder layer's cross-attention.
    pub(crate) fn decoder<'a>(&'a self, layer: usize, bias: &'a [f32]) -> Keys<'a> {
        Keys { blocks: &self.decoder[layer], count: bias.len(), bias }
    }
}
