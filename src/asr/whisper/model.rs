//! A loaded model.
//!
//! In: a path, or a GGUF file compiled into the program. Out: [`WhisperModel`]: weights packed for the kernels, silence,
//! configuration, tokenizer; immutable, shared by all decoders through an `Arc`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::config::{GenerationConfig, WhisperConfig};
use super::error::ModelError;
use super::kernels::Level;
use super::load::{self, Form, Opened, Ranks, Source, Store};
use super::tail::{Tail, TailShape};
use super::tokenizer::Tokens;
use super::weights::{Layers, Precision, Spec};
use crate::config::{Language, LanguageSetting, Task};

/// A Whisper model. Immutable; share it through an `Arc`.
pub struct WhisperModel {
    pub(crate) name: String,
    container: &'static str,
    pub(crate) config: WhisperConfig,
    pub(crate) generation: GenerationConfig,
    pub(crate) tokens: Tokens,
    pub(crate) layers: Layers,
    /// Silence computed once; `None` where windows are too short for it.
    pub(crate) tail: Option<Tail>,
    /// Where the weights came from, for conversion.
    pub(crate) store: Store,
    pub(crate) specs: Vec<Spec>,
    pub(crate) source: Source,
    /// Added to logits: 0, or −∞ for what is never said. Text and its end alone: `[tokens.end + 1]`
    pub(crate) mask: Vec<f32>,
    /// The same for the first token.
    pub(crate) first_mask: Vec<f32>,
    /// Tokens that these forbid only because names of sounds are written with them.
    pub(crate) tag_marks: Vec<u32>,
}

/// What `cuewire model info` prints.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct ModelInfo {
    /// Name: of the folder or the file, or as the GGUF file says.
    pub name: String,
    /// What holds it: `Hugging Face folder`, `GGUF`, `GGUF (candle)`, `ggml (whisper.cpp)` or `CTranslate2`.
    pub container: &'static str,
    /// Size within OpenAI's family: `tiny`, `base`, … or `custom`.
    pub size: &'static str,
    /// Weights.
    pub parameters: u64,
    /// Bytes that the weights take in the file.
    pub weight_bytes: u64,
    /// How most of the weights are stored: `f16`, `q8_0`, `int8` and so on, as [`Form::name`] says.
    pub quantization: &'static str,
    /// Languages that both the model and cuewire know.
    pub languages: Vec<Language>,
    /// Width of the model.
    pub d_model: usize,
    /// Layers of the encoder.
    pub encoder_layers: usize,
    /// Layers of the decoder.
    pub decoder_layers: usize,
    /// Mel bands of the front end.
    pub mel_bands: usize,
    /// Tokens, special ones included.
    pub vocabulary: usize,
}

/// A model is asked for a language that it does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model `{model}` does not know {} (`{language}`): it knows {known}", language.name())]
pub struct UnsupportedLanguage {
    /// The model's name.
    pub model: String,
    /// The language asked for.
    pub language: Language,
    /// The languages that would do.
    pub known: String,
}

/// A model is asked to translate and cannot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model `{model}` does not translate: one that knows more languages than English does")]
pub struct UnsupportedTask {
    /// The model's name.
    pub model: String,
}

impl fmt::Debug for WhisperModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WhisperModel").field("name", &self.name).field("config", &self.config).finish_non_exhaustive()
    }
}

impl WhisperModel {
    /// Reads a Whisper model, whatever holds it:
    ///
    /// - a Hugging Face folder: `config.json`, `tokenizer.json`, `model.safetensors` in f32, f16 or bf16, in one file or
    ///   in several (`model.safetensors.index.json`), and if it is there `generation_config.json`;
    /// - a CTranslate2 folder, as faster-whisper has them: `model.bin` in f32, f16, bf16 or int8, `config.json`, and
    ///   `tokenizer.json` or `vocabulary.json` or `vocabulary.txt`;
    /// - a GGUF file that [`convert`](super::convert()) wrote, or one of candle's with `config.json` and `tokenizer.json`
    ///   (or such as `config-tiny.json` and `tokenizer-tiny.json`) beside it;
    /// - a ggml file of whisper.cpp, which holds everything.
    ///
    /// GGUF and ggml files may be in f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0 and q2_k to q6_k.
    ///
    /// Which it is, is told by what is there, not by its name. The same weights give the same captions.
    ///
    /// # Errors
    /// [`ModelError`], whatever the files hold.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        Self::load_as(path, Precision::default())
    }

    /// [`WhisperModel::load`], to compute in other numbers.
    ///
    /// # Errors
    /// [`ModelError`], whatever the files hold.
    pub fn load_as(path: impl AsRef<Path>, precision: Precision) -> Result<Self, ModelError> {
        let path = path.as_ref();
        let opened = load::open(path).map_err(|error| error.within(path))?;
        Self::assemble(&path.display().to_string(), opened, precision).map_err(|error| error.within(path))
    }

    /// A GGUF model that is part of the program (`include_bytes!`).
    ///
    /// # Errors
    /// [`ModelError`], whatever the bytes hold.
    pub fn from_static(bytes: &'static [u8]) -> Result<Self, ModelError> {
        let label = "the built-in model";
        Self::assemble(label, load::gguf_static(label, bytes)?, Precision::default())
    }

    /// A GGUF model in memory.
    ///
    /// # Errors
    /// [`ModelError`], whatever the bytes hold.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, ModelError> {
        Self::from_bytes_as(bytes, Precision::default())
    }

    /// [`WhisperModel::from_bytes`], to compute in other numbers.
    ///
    /// # Errors
    /// [`ModelError`], whatever the bytes hold.
    pub fn from_bytes_as(bytes: Vec<u8>, precision: Precision) -> Result<Self, ModelError> {
        let label = "the model in memory";
        Self::assemble(label, load::gguf_bytes(label, bytes)?, precision)
    }

    fn assemble(file: &str, opened: Opened, precision: Precision) -> Result<Self, ModelError> {
        let Opened { container, name, source, store } = opened;
        let label = |part: &str| format!("{part} of {file}");
        let config = WhisperConfig::parse(&label("config.json"), &source.config)?;
        let generation =
            GenerationConfig::parse(&label("generation_config.json"), source.generation.as_deref(), &config)?;
        let (layers, specs) = Layers::find(&store, &config, precision)?;
        // The English models have one token less: openai/whisper, model.py.
        let multilingual = generation.is_multilingual.unwrap_or(config.vocab_size >= 51_865);
        let tokens = Tokens::parse(&label("tokenizer.json"), &source.tokenizer, multilingual, config.vocab_size)?;
        let mut mask = vec![0.0; tokens.end as usize + 1];
        let forbid = |mask: &mut [f32], ids: &[u32]| {
            for &id in ids {
                if let Some(v) = mask.get_mut(id as usize) {
                    *v = f32::NEG_INFINITY;
                }
            }
        };
        let (always, first) = suppressed(&generation, &source, tokens.end)
            .map_err(|e| ModelError::Json { file: label("tokenizer.json"), reason: e.to_string() })?;
        forbid(&mut mask, &always);
        forbid(&mut mask, &tokens.special);
        mask[tokens.end as usize] = 0.0; // or a text could never end
        let mut first_mask = mask.clone();
        forbid(&mut first_mask, &first);
        // What names of sounds are written with; no model is told apart by it.
        let marks = ["[", "]", "(", ")", "*", "♪", "♫", "♬"];
        let is_mark =
            |id: u32| String::from_utf8(tokens.bytes(id)).is_ok_and(|text| marks.iter().any(|m| text.contains(m)));
        let tag_marks = (0..tokens.end).filter(|&id| mask[id as usize] < 0.0 && is_mark(id)).collect();
        if !first_mask.contains(&0.0) {
            return Err(ModelError::Token {
                token: "<|endoftext|>".to_string(),
                problem: format!("is the only one that suppress_tokens leaves, of {}", config.vocab_size),
            });
        }
        let name = name
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| format!("whisper-{}{}", config.size(), if multilingual { "" } else { ".en" }));
        let tail = None;
        let model = Self {
            name,
            container,
            config,
            generation,
            tokens,
            layers,
            tail,
            store,
            specs,
            source,
            mask,
            first_mask,
            tag_marks,
        };
        model.with_tail(TailShape::default())
    }

    /// Another silence behind captions, for sweeps over it.
    ///
    /// # Errors
    /// None that a model that was loaded can raise.
    #[doc(hidden)]
    pub fn with_tail(mut self, shape: TailShape) -> Result<Self, ModelError> {
        let failed = |error: crate::asr::DecodeError| ModelError::Corrupt {
            file: self.name.clone(),
            reason: format!("its encoder cannot run over silence: {error}"),
        };
        self.tail = Tail::new(&self, shape, Level::detect()).map_err(failed)?;
        Ok(self)
    }

    /// Its sizes.
    #[must_use]
    pub fn config(&self) -> &WhisperConfig {
        &self.config
    }

    /// Whether it knows more than English.
    #[must_use]
    pub fn is_multilingual(&self) -> bool {
        !self.tokens.languages.is_empty()
    }

    /// Heads to take words' times from: the alignment heads, or where these are not known all of the upper half of the
    /// layers, as openai/whisper, `model.py` does.
    pub(crate) fn timing_heads(&self) -> Vec<(usize, usize)> {
        let (layers, heads) = (self.config.decoder_layers, self.config.decoder_attention_heads);
        match self.alignment_heads() {
            [] => (layers / 2..layers).flat_map(|layer| (0..heads).map(move |head| (layer, head))).collect(),
            known => known.to_vec(),
        }
    }

    /// Whether jobs with this task can be decoded.
    ///
    /// # Errors
    /// [`UnsupportedTask`] names the model.
    pub fn check_task(&self, task: Task) -> Result<(), UnsupportedTask> {
        match task {
            Task::Translate if self.tokens.translate.is_none() => Err(UnsupportedTask { model: self.name.clone() }),
            Task::Transcribe | Task::Translate => Ok(()),
        }
    }

    /// Heads of cross-attention that follow the audio, as (layer, head); empty where the model does not say.
    #[must_use]
    pub fn alignment_heads(&self) -> &[(usize, usize)] {
        &self.generation.alignment_heads
    }

    /// The id of a token that steers, such as `<|transcribe|>`.
    #[doc(hidden)]
    #[must_use]
    pub fn token(&self, name: &str) -> Option<u32> {
        self.tokens.id(name)
    }

    /// The id of a language's token; `None` for a model of English alone asked for English.
    pub(crate) fn language_token(&self, language: Language) -> Result<Option<u32>, UnsupportedLanguage> {
        if !self.is_multilingual() && language == Language::ENGLISH {
            return Ok(None);
        }
        self.tokens.languages.iter().find(|(known, _)| *known == language).map(|&(_, id)| Some(id)).ok_or_else(|| {
            let known = if self.is_multilingual() {
                self.tokens.languages.iter().map(|(known, _)| known.code()).collect::<Vec<_>>().join(", ")
            } else {
                "English alone".to_string()
            };
            UnsupportedLanguage { model: self.name.clone(), language, known }
        })
    }

    /// Whether jobs in this language can be decoded. `auto` always can: a model of English alone takes it as English.
    ///
    /// # Errors
    /// [`UnsupportedLanguage`] names the model, the language and those that would do.
    pub fn check_language(&self, setting: LanguageSetting) -> Result<(), UnsupportedLanguage> {
        match setting {
            LanguageSetting::Auto => Ok(()),
            LanguageSetting::Fixed(language) => self.language_token(language).map(|_| ()),
        }
    }

    /// Name, sizes, languages.
    #[must_use]
    pub fn info(&self) -> ModelInfo {
        let mut forms: BTreeMap<Form, u64> = BTreeMap::new();
        for spec in &self.specs {
            if let Ok(matrix) = self.store.matrix(&spec.name, &spec.shape) {
                *forms.entry(matrix.form).or_default() += (matrix.rows * matrix.columns) as u64;
            }
        }
        let languages = self.tokens.languages.iter().map(|&(language, _)| language);
        ModelInfo {
            name: self.name.clone(),
            container: self.container,
            size: self.config.size(),
            parameters: forms.values().sum(),
            weight_bytes: self.store.tensor_bytes() as u64,
            quantization: forms.iter().max_by_key(|&(_, &weights)| weights).map_or("", |(form, _)| form.name()),
            languages: if self.is_multilingual() { languages.collect() } else { vec![Language::ENGLISH] },
            d_model: self.config.d_model,
            encoder_layers: self.config.encoder_layers,
            decoder_layers: self.config.decoder_layers,
            mel_bands: self.config.num_mel_bins,
            vocabulary: self.config.vocab_size,
        }
    }
}

/// Tokens that are never said, and those not said first; OpenAI's lists where a configuration says no more than -1.
fn suppressed(
    generation: &GenerationConfig,
    source: &Source,
    end: u32,
) -> Result<(Vec<u32>, Vec<u32>), serde_json::Error> {
    let always = generation.suppress_tokens.clone().unwrap_or_default();
    let first = generation.begin_suppress_tokens.clone().unwrap_or_default();
    let (mut ids, mut first_ids) = (always.tokens, first.tokens);
    if always.default || first.default {
        let vocabulary = Ranks::parse(&source.tokenizer)?;
        if always.default {
            ids.extend(load::non_speech(&vocabulary));
        }
        if first.default {
            first_ids.extend(load::blank(&vocabulary, end));
        }
    }
    Ok((ids, first_ids))
}
