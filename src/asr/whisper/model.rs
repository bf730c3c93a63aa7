//! A loaded model.
//!
//! In: a path, or a GGUF file compiled into the program. Out: [`WhisperModel`]: weights packed for the kernels, silence,
//! configuration, tokenizer; immutable, shared by all decoders through an `Arc`.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::Path;

use super::config::{GenerationConfig, WhisperConfig};
use super::error::ModelError;
use super::kernels::Level;
use super::load::{self, Container, Form, Store};
use super::tail::{Tail, TailShape};
use super::tokenizer::Tokens;
use super::weights::{Layers, Precision, Spec};
use crate::config::{Language, LanguageSetting};

/// Metadata of our GGUF files: the JSON of a Hugging Face folder, as it was.
pub(crate) const CONFIG_KEY: &str = "whisper.huggingface.config_json";
pub(crate) const GENERATION_KEY: &str = "whisper.huggingface.generation_config_json";
pub(crate) const TOKENIZER_KEY: &str = "tokenizer.huggingface.json";

/// A Whisper model. Immutable; share it through an `Arc`.
pub struct WhisperModel {
    pub(crate) name: String,
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
}

/// The texts a model was made from, kept for conversion.
pub(crate) struct Source {
    pub(crate) config: String,
    pub(crate) generation: Option<String>,
    pub(crate) tokenizer: String,
}

/// What `cuewire model info` prints.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct ModelInfo {
    /// Name: of the folder, or as the GGUF file says.
    pub name: String,
    /// Size within OpenAI's family: `tiny`, `base`, … or `custom`.
    pub size: &'static str,
    /// Weights.
    pub parameters: u64,
    /// Bytes that the weights take in the file.
    pub weight_bytes: u64,
    /// How most of the weights are stored: `q8_0`, `f16`, `bf16`, `f32`.
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

impl fmt::Debug for WhisperModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WhisperModel").field("name", &self.name).field("config", &self.config).finish_non_exhaustive()
    }
}

/// What a folder is called: `ORG/NAME` for a snapshot in the Hugging Face hub's cache, whose own name is a commit.
fn folder_name(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    let of_hub = || {
        let snapshots = path.parent().filter(|parent| parent.ends_with("snapshots"))?;
        let repository = snapshots.parent()?.file_name()?.to_str()?.strip_prefix("models--")?;
        Some(repository.replacen("--", "/", 1))
    };
    of_hub().or_else(|| Some(path.file_name()?.to_string_lossy().into_owned()))
}

impl WhisperModel {
    /// Reads a model from a Hugging Face folder (`config.json`, `tokenizer.json`, `model.safetensors` in f32, f16 or
    /// bf16, and if it is there `generation_config.json`), or from one GGUF file that [`convert`](super::convert()) wrote.
    /// Which of the two it is, is told by what is there, not by its name.
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
        Self::read(path, precision).map_err(|error| error.within(path))
    }

    fn read(path: &Path, precision: Precision) -> Result<Self, ModelError> {
        let failed = |source| ModelError::Read { path: path.to_path_buf(), source };
        let label = path.display().to_string();
        let kind = std::fs::metadata(path).map_err(failed)?;
        if kind.is_dir() {
            return Self::load_folder(path, precision);
        }
        let unrecognised = |found: String| ModelError::Unrecognised { path: path.to_path_buf(), found };
        if !kind.is_file() {
            return Err(unrecognised("it is neither a file nor a folder".to_string()));
        }
        let mut start = Vec::new();
        let mut file = std::fs::File::open(path).map_err(failed)?;
        file.by_ref().take(8).read_to_end(&mut start).map_err(failed)?;
        if !load::is_gguf(&start) {
            return Err(unrecognised(format!("it is a file that starts with the bytes {start:02x?}, not with `GGUF`")));
        }
        drop(file);
        Self::from_container(&label, load::gguf(path)?, precision)
    }

    /// A GGUF model that is part of the program (`include_bytes!`).
    ///
    /// # Errors
    /// [`ModelError`], whatever the bytes hold.
    pub fn from_static(bytes: &'static [u8]) -> Result<Self, ModelError> {
        let label = "the built-in model";
        Self::from_container(label, load::gguf_static(label, bytes)?, Precision::default())
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
        Self::from_container(label, load::gguf_bytes(label, bytes)?, precision)
    }

    fn load_folder(path: &Path, precision: Precision) -> Result<Self, ModelError> {
        let weights = path.join("model.safetensors");
        if !weights.is_file() {
            let found = if path.join("model.safetensors.index.json").is_file() {
                "its weights are split over several files (model.safetensors.index.json), which is not read"
            } else {
                "the folder has no model.safetensors"
            };
            return Err(ModelError::Unrecognised { path: path.to_path_buf(), found: found.to_string() });
        }
        let text = |name: &str| {
            let path = path.join(name);
            std::fs::read_to_string(&path).map_err(|source| ModelError::Read { path, source })
        };
        let source = Source {
            config: text("config.json")?,
            generation: match text("generation_config.json") {
                Ok(text) => Some(text),
                Err(ModelError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => None,
                Err(e) => return Err(e),
            },
            tokenizer: text("tokenizer.json")?,
        };
        let name = folder_name(path);
        let store = load::safetensors(&weights)?;
        Self::assemble(&path.display().to_string(), name, source, store, precision)
    }

    fn from_container(file: &str, container: Container, precision: Precision) -> Result<Self, ModelError> {
        let Container { store, mut texts } = container;
        match texts.get("general.architecture").map(String::as_str) {
            Some("whisper") => {}
            found => {
                let found = found.unwrap_or("missing").chars().take(40).collect::<String>();
                let reason = format!("`general.architecture` is {found}, `whisper` is read");
                return Err(ModelError::Corrupt { file: file.to_string(), reason });
            }
        }
        let mut text = |key: &'static str| {
            texts.remove(key).ok_or_else(|| ModelError::MissingMetadata { file: file.to_string(), key })
        };
        let source = Source {
            config: text(CONFIG_KEY)?,
            tokenizer: text(TOKENIZER_KEY)?,
            generation: text(GENERATION_KEY).ok(),
        };
        Self::assemble(file, texts.remove("general.name"), source, store, precision)
    }

    fn assemble(
        file: &str,
        name: Option<String>,
        source: Source,
        store: Store,
        precision: Precision,
    ) -> Result<Self, ModelError> {
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
        forbid(&mut mask, generation.suppress_tokens.as_deref().unwrap_or_default());
        forbid(&mut mask, &tokens.special);
        mask[tokens.end as usize] = 0.0; // or a text could never end
        let mut first_mask = mask.clone();
        forbid(&mut first_mask, generation.begin_suppress_tokens.as_deref().unwrap_or_default());
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
        let model = Self { name, config, generation, tokens, layers, tail, store, specs, source, mask, first_mask };
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
