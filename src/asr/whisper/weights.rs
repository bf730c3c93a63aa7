//! The model's layers by name.
//!
//! In: a [`Store`] and the configuration. Out: [`Layers`], every tensor found and its shape checked; small vectors
//! unpacked, matrices left where they are.

use super::config::WhisperConfig;
use super::error::ModelError;
use super::kernels::{self, Level};
use super::linear::Linear;
use super::load::{Matrix, Store};

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

/// Weight and bias of a layer norm, `[d_model]` each.
#[derive(Debug)]
pub(crate) struct Norm {
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

/// The four linear layers of an attention.
#[derive(Debug)]
pub(crate) struct Attention {
    pub(crate) query: Linear,
    pub(crate) key: Linear,
    pub(crate) value: Linear,
    pub(crate) out: Linear,
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
    /// `[d_model, bands * 3]`: the kernel's taps are the faster index.
    pub(crate) conv1: Linear,
    /// `[d_model, d_model * 3]`, stride 2.
    pub(crate) conv2: Linear,
    /// `[max_source_positions, d_model]`.
    pub(crate) encoder_positions: Matrix,
    pub(crate) encoder: Vec<EncoderLayer>,
    pub(crate) encoder_norm: Norm,
    /// `[vocabulary, d_model]`: tokens in, logits out.
    pub(crate) embedding: Matrix,
    /// `[max_target_positions, d_model]`.
    pub(crate) decoder_positions: Matrix,
    pub(crate) decoder: Vec<DecoderLayer>,
    pub(crate) decoder_norm: Norm,
}

/// Finds tensors, and remembers which were asked for.
struct Finder<'a> {
    store: &'a Store,
    specs: Vec<Spec>,
}

impl Finder<'_> {
    fn matrix(&mut self, name: String, shape: &[usize], role: Role) -> Result<Matrix, ModelError> {
        let matrix = self.store.matrix(&name, shape)?;
        self.specs.push(Spec { name, shape: shape.to_vec(), role });
        Ok(matrix)
    }

    fn vector(&mut self, name: String, length: usize) -> Result<Vec<f32>, ModelError> {
        let matrix = self.matrix(name, &[length], Role::Vector)?;
        let mut out = vec![0.0; length];
        kernels::dequantise(Level::detect(), matrix.form, self.store.bytes(&matrix), &mut out);
        Ok(out)
    }

    fn linear(&mut self, name: &str, shape: &[usize], role: Role, bias: bool) -> Result<Linear, ModelError> {
        let weight = self.matrix(format!("{name}.weight"), shape, role)?;
        let bias = if bias { Some(self.vector(format!("{name}.bias"), weight.rows)?) } else { None };
        Ok(Linear { weight, bias })
    }

    fn norm(&mut self, name: &str, width: usize) -> Result<Norm, ModelError> {
        Ok(Norm {
            weight: self.vector(format!("{name}.weight"), width)?,
            bias: self.vector(format!("{name}.bias"), width)?,
        })
    }

    fn attention(&mut self, name: &str, width: usize) -> Result<Attention, ModelError> {
        let mut linear = |part, bias| self.linear(&format!("{name}.{part}_proj"), &[width, width], Role::Linear, bias);
        Ok(Attention {
            query: linear("q", true)?,
            key: linear("k", false)?,
            value: linear("v", true)?,
            out: linear("out", true)?,
        })
    }

    fn feed_forward(&mut self, name: &str, width: usize, hidden: usize) -> Result<FeedForward, ModelError> {
        Ok(FeedForward {
            norm: self.norm(&format!("{name}.final_layer_norm"), width)?,
            up: self.linear(&format!("{name}.fc1"), &[hidden, width], Role::Linear, true)?,
            down: self.linear(&format!("{name}.fc2"), &[width, hidden], Role::Linear, true)?,
        })
    }
}

impl Layers {
    /// Finds every tensor; gives also the list of them, in the order of the model.
    pub(crate) fn find(store: &Store, config: &WhisperConfig) -> Result<(Self, Vec<Spec>), ModelError> {
        let (width, encoder, decoder) = (config.d_model, "model.encoder", "model.decoder");
        let mut find = Finder { store, specs: Vec::new() };
        let layers = Self {
            conv1: find.linear(&format!("{encoder}.conv1"), &[width, config.num_mel_bins, 3], Role::Table, true)?,
            conv2: find.linear(&format!("{encoder}.conv2"), &[width, width, 3], Role::Table, true)?,
            encoder_positions: find.matrix(
                format!("{encoder}.embed_positions.weight"),
                &[config.max_source_positions, width],
                Role::Table,
            )?,
            encoder: (0..config.encoder_layers)
                .map(|i| {
                    let name = format!("{encoder}.layers.{i}");
                    Ok(EncoderLayer {
                        norm: find.norm(&format!("{name}.self_attn_layer_norm"), width)?,
                        attention: find.attention(&format!("{name}.self_attn"), width)?,
                        feed_forward: find.feed_forward(&name, width, config.encoder_ffn_dim)?,
                    })
                })
                .collect::<Result<_, ModelError>>()?,
            encoder_norm: find.norm(&format!("{encoder}.layer_norm"), width)?,
            embedding: find.matrix(
                format!("{decoder}.embed_tokens.weight"),
                &[config.vocab_size, width],
                Role::Linear,
            )?,
            decoder_positions: find.matrix(
                format!("{decoder}.embed_positions.weight"),
                &[config.max_target_positions, width],
                Role::Table,
            )?,
            decoder: (0..config.decoder_layers)
                .map(|i| {
                    let name = format!("{decoder}.layers.{i}");
                    Ok(DecoderLayer {
                        norm: find.norm(&format!("{name}.self_attn_layer_norm"), width)?,
                        attention: find.attention(&format!("{name}.self_attn"), width)?,
                        cross_norm: find.norm(&format!("{name}.encoder_attn_layer_norm"), width)?,
                        cross: find.attention(&format!("{name}.encoder_attn"), width)?,
                        feed_forward: find.feed_forward(&name, width, config.decoder_ffn_dim)?,
                    })
                })
                .collect::<Result<_, ModelError>>()?,
            decoder_norm: find.norm(&format!("{decoder}.layer_norm"), width)?,
        };
        Ok((layers, find.specs))
    }
}
