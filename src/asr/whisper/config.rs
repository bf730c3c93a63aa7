//! What a model is: its sizes, and what must not be said.
//!
//! In: Hugging Face's `config.json` and `generation_config.json`. Out: [`WhisperConfig`] and `GenerationConfig`,
//! checked. Sizes are told by shape alone, so tiny to large, turbo and fine-tuned models are read alike.

use serde::Deserialize;

use super::error::ModelError;
use super::load::alignment_heads;

/// Sizes of a Whisper model, from Hugging Face's `config.json`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct WhisperConfig {
    /// Tokens that the model knows, special ones included.
    pub vocab_size: usize,
    /// Mel bands of the front end: 80, or 128 from large-v3 on.
    pub num_mel_bins: usize,
    /// Width of the model.
    pub d_model: usize,
    /// Layers of the encoder.
    pub encoder_layers: usize,
    /// Layers of the decoder.
    pub decoder_layers: usize,
    /// Attention heads of an encoder layer.
    pub encoder_attention_heads: usize,
    /// Attention heads of a decoder layer.
    pub decoder_attention_heads: usize,
    /// Width of the encoder's feed-forward layers.
    pub encoder_ffn_dim: usize,
    /// Width of the decoder's feed-forward layers.
    pub decoder_ffn_dim: usize,
    /// Positions of the window, 20 ms each: 1500.
    pub max_source_positions: usize,
    /// Tokens that the decoder can hold, the prompt included: 448.
    pub max_target_positions: usize,
    /// Tokens never said, where there is no generation config.
    #[serde(default, rename = "suppress_tokens")]
    suppress: Option<Suppressed>,
    /// Tokens not said first, where there is no generation config.
    #[serde(default, rename = "begin_suppress_tokens")]
    suppress_first: Option<Suppressed>,
}

/// Tokens that are not said. OpenAI's option has -1 for its default list, and so have configurations made from it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Vec<i64>")]
pub(crate) struct Suppressed {
    pub(crate) tokens: Vec<u32>,
    /// Whether the default list is meant beside these.
    pub(crate) default: bool,
}

impl From<Vec<i64>> for Suppressed {
    fn from(ids: Vec<i64>) -> Self {
        Self { tokens: ids.iter().filter_map(|id| u32::try_from(*id).ok()).collect(), default: ids.contains(&-1) }
    }
}

impl WhisperConfig {
    pub(crate) fn parse(file: &str, json: &str) -> Result<Self, ModelError> {
        let config: Self = serde_json::from_str(json)
            .map_err(|e| ModelError::Json { file: file.to_string(), reason: e.to_string() })?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ModelError> {
        let within = |field, value: usize, least: usize, most: usize| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(ModelError::Config { field, value: value.to_string(), allowed: format!("{least} to {most}") })
            }
        };
        if ![80, 128].contains(&self.num_mel_bins) {
            let value = self.num_mel_bins.to_string();
            return Err(ModelError::Config { field: "num_mel_bins", value, allowed: "80 or 128".to_string() });
        }
        within("vocab_size", self.vocab_size, 16, 1 << 20)?;
        // Kernels take 32 inputs and 16 outputs at a time; every Whisper is made of such.
        let whole = |field, value: usize, of: usize, most: usize| {
            if value > 0 && value <= most && value.is_multiple_of(of) {
                Ok(())
            } else {
                let allowed = format!("a multiple of {of} up to {most}");
                Err(ModelError::Config { field, value: value.to_string(), allowed })
            }
        };
        whole("d_model", self.d_model, 32, 1 << 13)?;
        within("encoder_layers", self.encoder_layers, 1, 128)?;
        within("decoder_layers", self.decoder_layers, 1, 128)?;
        whole("encoder_ffn_dim", self.encoder_ffn_dim, 32, 1 << 15)?;
        whole("decoder_ffn_dim", self.decoder_ffn_dim, 32, 1 << 15)?;
        within("max_source_positions", self.max_source_positions, 2, 1500)?;
        within("max_target_positions", self.max_target_positions, 8, 4096)?;
        for (field, heads) in [
            ("encoder_attention_heads", self.encoder_attention_heads),
            ("decoder_attention_heads", self.decoder_attention_heads),
        ] {
            if heads == 0 || !self.d_model.is_multiple_of(16 * heads) {
                let allowed = format!("what divides d_model ({}) into multiples of 16", self.d_model);
                return Err(ModelError::Config { field, value: heads.to_string(), allowed });
            }
        }
        Ok(())
    }

    /// Samples at 16 kHz that the window holds: 480 000, 30 s.
    #[must_use]
    pub const fn window(&self) -> usize {
        self.max_source_positions * 2 * super::mel::HOP
    }

    /// The size's name in OpenAI's family, by shape; `custom` for any other.
    #[must_use]
    pub fn size(&self) -> &'static str {
        match (self.d_model, self.encoder_layers, self.decoder_layers, self.num_mel_bins) {
            (384, 4, 4, 80) => "tiny",
            (512, 6, 6, 80) => "base",
            (768, 12, 12, 80) => "small",
            (1024, 24, 24, 80) => "medium",
            (1280, 32, 32, 80) => "large",
            (1280, 32, 32, 128) => "large-v3",
            (1280, 32, 4, 128) => "large-v3-turbo",
            _ => "custom",
        }
    }
}

/// What steers decoding, from `generation_config.json`.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct GenerationConfig {
    #[serde(default)]
    pub(crate) is_multilingual: Option<bool>,
    /// Heads of cross-attention that follow the audio: (layer, head).
    #[serde(default, deserialize_with = "or_none")]
    pub(crate) alignment_heads: Vec<(usize, usize)>,
    #[serde(default)]
    pub(crate) suppress_tokens: Option<Suppressed>,
    #[serde(default)]
    pub(crate) begin_suppress_tokens: Option<Suppressed>,
}

/// A list that may be `null`.
fn or_none<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<(usize, usize)>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl GenerationConfig {
    /// From its own file where there is one, completed from `config`, and from OpenAI's models for the heads.
    pub(crate) fn parse(file: &str, json: Option<&str>, config: &WhisperConfig) -> Result<Self, ModelError> {
        let mut generation: Self = match json {
            None => Self::default(),
            Some(json) => serde_json::from_str(json)
                .map_err(|e| ModelError::Json { file: file.to_string(), reason: e.to_string() })?,
        };
        generation.suppress_tokens = generation.suppress_tokens.or_else(|| config.suppress.clone());
        generation.begin_suppress_tokens = generation.begin_suppress_tokens.or_else(|| config.suppress_first.clone());
        generation
            .alignment_heads
            .retain(|&(layer, head)| layer < config.decoder_layers && head < config.decoder_attention_heads);
        if generation.alignment_heads.is_empty() {
            generation.alignment_heads = alignment_heads(config).to_vec();
        }
        generation.alignment_heads.sort_unstable();
        generation.alignment_heads.dedup();
        Ok(generation)
    }
}
