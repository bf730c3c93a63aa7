//! The model's layers by name.
//!
//! In: a [`Store`] and the configuration. Out: [`Layers`], every tensor found, its shape checked, and packed for the
//! kernels.

use super::config::WhisperConfig;
use super::error::ModelError;
use super::kernels::{self, LANES, Layout, Level, Packed, Packing};
use super::linear::{Linear, Norm};
use super::load::{Form, Store};

/// What a tensor is, which decides how a converted model stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A linear layer, or the token embedding.
    Linear,
    /// A convolution or an embedding of positions.
    Table,
    /// A norm or a bias.
    Vector,
}

/// A tensor that the model consists of.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) role: Role,
}

/// The four linear layers of an attention.
#[derive(Debug)]
pub(crate) struct Attention {
    pub(crate) query: Linear,
    pub(crate) key: Linear,
    pub(crate) value: Linear,
    pub(crate) out: Linear,
}

impl Attention {
    /// How its keys and values are kept.
    pub(crate) fn layout(&self, heads: usize) -> Layout {
        Layout::new(self.key.weight.outputs, heads, self.key.weight.packing())
    }
}

/// The feed-forward part of a layer.
#[derive(Debug)]
pub(crate) struct FeedForward {
    pub(crate) norm: Norm,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
}

#[derive(Debug)]
pub(crate) struct EncoderLayer {
    pub(crate) norm: Norm,
    pub(crate) attention: Attention,
    pub(crate) feed_forward: FeedForward,
}

#[derive(Debug)]
pub(crate) struct DecoderLayer {
    pub(crate) norm: Norm,
    pub(crate) attention: Attention,
    pub(crate) cross_norm: Norm,
    pub(crate) cross: Attention,
    pub(crate) feed_forward: FeedForward,
}

/// All of a model.
#[derive(Debug)]
pub(crate) struct Layers {
    /// `[d_model, 3 * bands]`: the kernel's taps are the slower index, so that three rows of input lie as they are read.
    pub(crate) conv1: Linear,
    /// `[d_model, 3 * d_model]`, stride 2.
    pub(crate) conv2: Linear,
    /// `[max_source_positions, d_model]`.
    pub(crate) encoder_positions: Vec<f32>,
    pub(crate) encoder: Vec<EncoderLayer>,
    pub(crate) encoder_norm: Norm,
    /// `[vocabulary, d_model]`: tokens in, logits out.
    pub(crate) embedding: Packed,
    /// `[max_target_positions, d_model]`.
    pub(crate) decoder_positions: Vec<f32>,
    pub(crate) decoder: Vec<DecoderLayer>,
    pub(crate) decoder_norm: Norm,
}

/// In which numbers a model computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Weights and the activations that meet them in 8 bits: fast.
    #[default]
    Int8,
    /// Single precision throughout: the reference that the other is tested against, several times slower and larger.
    Float,
}

/// Finds tensors, packs them, and remembers which were asked for.
struct Finder<'a> {
    store: &'a Store,
    precision: Precision,
    specs: Vec<Spec>,
    stored: Vec<u8>,
    values: Vec<f32>,
}

impl Finder<'_> {
    /// Calls `tile` with each sixteen rows of a tensor: their stored bytes and form, and their values.
    fn tiles(
        &mut self,
        name: String,
        shape: &[usize],
        role: Role,
        most: f32,
        mut tile: impl FnMut(usize, Form, &[u8], &[f32]),
    ) -> Result<(), ModelError> {
        let matrix = self.store.matrix(&name, shape)?;
        // A vector is a column: all of it at once.
        let height = if matrix.columns == 1 { matrix.rows.max(1) } else { LANES };
        self.values.resize(height * matrix.columns, 0.0);
        for index in 0..matrix.rows.div_ceil(height) {
            let rows = height.min(matrix.rows - index * height);
            let bytes = self.store.read(&matrix, index * height..index * height + rows, &mut self.stored)?;
            let values = &mut self.values[..rows * matrix.columns];
            kernels::dequantise(Level::detect(), matrix.form, bytes, values);
            if let Some(at) = values.iter().position(|v| v.is_nan() || v.abs() > most) {
                let form = if most == f32::MAX { "f32" } else { "8 bits" };
                let row = index * height + at / matrix.columns.max(1);
                return Err(ModelError::Weight { name, row, value: values[at], most, form });
            }
            tile(index, matrix.form, bytes, values);
        }
        self.specs.push(Spec { name, shape: shape.to_vec(), role });
        Ok(())
    }

    fn matrix(&mut self, name: String, shape: &[usize], role: Role, packing: Packing) -> Result<Packed, ModelError> {
        // Before anything is allocated by sizes that only the configuration states.
        self.store.matrix(&name, shape)?;
        let packing = if self.precision == Precision::Float { Packing::Float } else { packing };
        let (outputs, inputs) = (shape[0], shape[1..].iter().product());
        let mut packed = Packed::new(packing, outputs, inputs);
        let taps = shape.get(2).copied().unwrap_or(1);
        let mut turned = Vec::new();
        // A block's scale is a half-precision number.
        let most = if packing == Packing::Float { f32::MAX } else { 127.0 * 65504.0 };
        self.tiles(name, shape, role, most, |index, form, stored, values| {
            if form == Form::Q8_0 && packing == Packing::Blocks {
                packed.set_blocks(index, stored);
            } else if taps == 1 {
                packed.set_tile(index, values);
            } else {
                let channels = inputs / taps;
                turned.clear();
                for row in values.chunks_exact(inputs) {
                    turned.extend((0..inputs).map(|i| row[i % channels * taps + i / channels]));
                }
                packed.set_tile(index, &turned);
            }
        })?;
        Ok(packed)
    }

    fn table(&mut self, name: String, shape: &[usize], role: Role) -> Result<Vec<f32>, ModelError> {
        self.store.matrix(&name, shape)?;
        let mut out = Vec::with_capacity(shape.iter().product());
        self.tiles(name, shape, role, f32::MAX, |_, _, _, values| out.extend_from_slice(values))?;
        Ok(out)
    }

    fn vector(&mut self, name: String, length: usize) -> Result<Vec<f32>, ModelError> {
        self.table(name, &[length], Role::Vector)
    }

    fn linear(
        &mut self,
        name: &str,
        shape: &[usize],
        (role, packing): (Role, Packing),
        bias: bool,
    ) -> Result<Linear, ModelError> {
        let weight = self.matrix(format!("{name}.weight"), shape, role, packing)?;
        let bias = if bias { Some(self.vector(format!("{name}.bias"), weight.outputs)?) } else { None };
        Ok(Linear { weight, bias })
    }

    fn norm(&mut self, name: &str, width: usize) -> Result<Norm, ModelError> {
        Ok(Norm {
            weight: self.vector(format!("{name}.weight"), width)?,
            bias: self.vector(format!("{name}.bias"), width)?,
        })
    }

    /// `from`: the packing of keys and values; `to`: that of the others.
    fn attention(&mut self, name: &str, width: usize, from: Packing, to: Packing) -> Result<Attention, ModelError> {
        let mut linear = |part, packing, bias| {
            self.linear(&format!("{name}.{part}_proj"), &[width, width], (Role::Linear, packing), bias)
        };
        Ok(Attention {
            query: linear("q", to, true)?,
            key: linear("k", from, false)?,
            value: linear("v", from, true)?,
            out: linear("out", to, true)?,
        })
    }

    fn feed_forward(
        &mut self,
        name: &str,
        width: usize,
        hidden: usize,
        packing: Packing,
    ) -> Result<FeedForward, ModelError> {
        let kind = (Role::Linear, packing);
        Ok(FeedForward {
            norm: self.norm(&format!("{name}.final_layer_norm"), width)?,
            up: self.linear(&format!("{name}.fc1"), &[hidden, width], kind, true)?,
            down: self.linear(&format!("{name}.fc2"), &[width, hidden], kind, true)?,
        })
    }
}

impl Layers {
    /// Finds and packs every tensor; gives also the list of them, in the order of the model.
    ///
    /// All that meets the positions of the audio has a scale a row: its products are large and make the speed. The
    /// decoder, which waits for memory, has blocks, which cost no accuracy.
    pub(crate) fn find(
        store: &Store,
        config: &WhisperConfig,
        precision: Precision,
    ) -> Result<(Self, Vec<Spec>), ModelError> {
        let (width, encoder, decoder) = (config.d_model, "model.encoder", "model.decoder");
        let (rows, blocks) = (Packing::Rows, Packing::Blocks);
        let mut find = Finder { store, precision, specs: Vec::new(), stored: Vec::new(), values: Vec::new() };
        let conv = (Role::Table, rows);
        let layers = Self {
            conv1: find.linear(&format!("{encoder}.conv1"), &[width, config.num_mel_bins, 3], conv, true)?,
            conv2: find.linear(&format!("{encoder}.conv2"), &[width, width, 3], conv, true)?,
            encoder_positions: find.table(
                format!("{encoder}.embed_positions.weight"),
                &[config.max_source_positions, width],
                Role::Table,
            )?,
            encoder: (0..config.encoder_layers)
                .map(|i| {
                    let name = format!("{encoder}.layers.{i}");
                    Ok(EncoderLayer {
                        norm: find.norm(&format!("{name}.self_attn_layer_norm"), width)?,
                        attention: find.attention(&format!("{name}.self_attn"), width, rows, rows)?,
                        feed_forward: find.feed_forward(&name, width, config.encoder_ffn_dim, rows)?,
                    })
                })
                .collect::<Result<_, ModelError>>()?,
            encoder_norm: find.norm(&format!("{encoder}.layer_norm"), width)?,
            embedding: find.matrix(
                format!("{decoder}.embed_tokens.weight"),
                &[config.vocab_size, width],
                Role::Linear,
                blocks,
            )?,
            decoder_positions: find.table(
                format!("{decoder}.embed_positions.weight"),
                &[config.max_target_positions, width],
                Role::Table,
            )?,
            decoder: (0..config.decoder_layers)
                .map(|i| {
                    let name = format!("{decoder}.layers.{i}");
                    Ok(DecoderLayer {
                        norm: find.norm(&format!("{name}.self_attn_layer_norm"), width)?,
                        attention: find.attention(&format!("{name}.self_attn"), width, blocks, blocks)?,
                        cross_norm: find.norm(&format!("{name}.encoder_attn_layer_norm"), width)?,
                        cross: find.attention(&format!("{name}.encoder_attn"), width, rows, blocks)?,
                        feed_forward: find.feed_forward(&name, width, config.decoder_ffn_dim, blocks)?,
                    })
                })
                .collect::<Result<_, ModelError>>()?,
            decoder_norm: find.norm(&format!("{decoder}.layer_norm"), width)?,
        };
        Ok((layers, find.specs))
    }
}
