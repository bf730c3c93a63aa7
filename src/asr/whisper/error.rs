//! What can be wrong with a model.
//!
//! In: nothing. Out: [`ModelError`], whose message says what is wrong, where, with which value, and what is allowed.
//! A model file comes from elsewhere: whatever it holds ends here, never in a panic.

use std::path::{Path, PathBuf};

/// Longest text of a file in a message, in characters.
const MOST_SHOWN: usize = 400;

/// What comes from a file as a message has it: in part, and without what a terminal would obey.
fn shown(text: &str) -> String {
    let plain = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    let mut shown: String = text.chars().take(MOST_SHOWN).map(plain).collect();
    if text.chars().nth(MOST_SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// Why a model could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The file system failed.
    #[error("cannot read {path}: {source}")]
    Read {
        /// What was read.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The converted model could not be written.
    #[error("cannot write the model: {0}")]
    Write(#[source] std::io::Error),
    /// The path is no kind of model that is known.
    #[error(
        "{path} is no model: {found}; read are a Hugging Face folder (config.json, tokenizer.json, model.safetensors in \
         one file or several), a CTranslate2 folder (model.bin), a GGUF file and a ggml file of whisper.cpp"
    )]
    Unrecognised {
        /// What was looked at.
        path: PathBuf,
        /// What was found there.
        found: String,
    },
    /// The container contradicts itself.
    #[error("{file} is damaged: {}", shown(reason))]
    Corrupt {
        /// The file.
        file: String,
        /// What contradicts what.
        reason: String,
    },
    /// A GGUF file lacks a text.
    #[error("{file} has no metadata `{key}` (a text): it was not written by cuewire; convert the original once more")]
    MissingMetadata {
        /// The file.
        file: String,
        /// The key.
        key: &'static str,
    },
    /// A file of weights alone, which needs files beside it.
    #[error("{file} holds weights alone: {missing}")]
    Companion {
        /// The file.
        file: String,
        /// What is missing, and where it was looked for.
        missing: String,
    },
    /// A configuration is not the JSON it should be.
    #[error("{file} cannot be understood: {}", shown(reason))]
    Json {
        /// The file, or the metadata key.
        file: String,
        /// What the parser says.
        reason: String,
    },
    /// Something within the model at this path.
    #[error("{path}: {source}")]
    Within {
        /// The model.
        path: PathBuf,
        /// What is wrong in it.
        source: Box<ModelError>,
    },
    /// A value of the configuration is out of its range.
    #[error("the configuration has `{field}` {value}, allowed is {allowed}")]
    Config {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What would do.
        allowed: String,
    },
    /// A tensor is not there.
    #[error("tensor `{name}` is missing")]
    MissingTensor {
        /// Its name.
        name: String,
    },
    /// A tensor has another shape than the configuration says.
    #[error("tensor `{name}` has shape {found:?}, the configuration asks for {expected:?}")]
    Shape {
        /// Its name.
        name: String,
        /// By the configuration.
        expected: Vec<usize>,
        /// In the file.
        found: Vec<usize>,
    },
    /// A tensor is stored in a form that is not read.
    #[error("tensor `{name}` is stored as {found}; {FORMS}", FORMS = super::load::FORMS)]
    Form {
        /// Its name.
        name: String,
        /// The form in the file.
        found: String,
    },
    /// A weight is not a number, or too large to be stored.
    #[error("tensor `{name}` holds {value} in row {row}: only finite numbers up to {most} can be stored as {form}")]
    Weight {
        /// Its name.
        name: String,
        /// The row.
        row: usize,
        /// What is there.
        value: f32,
        /// The largest magnitude that can be stored.
        most: f32,
        /// The form asked for.
        form: &'static str,
    },
    /// The tokenizer lacks a token, or gives it an id that the model does not have.
    #[error("the tokenizer's token `{token}` {problem}")]
    Token {
        /// The token.
        token: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl ModelError {
    /// Names the model, unless the error does already.
    pub(super) fn within(self, path: &Path) -> Self {
        match self {
            Self::Config { .. }
            | Self::MissingTensor { .. }
            | Self::Shape { .. }
            | Self::Form { .. }
            | Self::Token { .. } => Self::Within { path: path.to_path_buf(), source: Box::new(self) },
            error => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ModelError;

    #[test]
    fn a_message_shows_no_more_of_a_file_than_a_line() {
        let name = format!("\u{1b}[31m{}", "x".repeat(70_000));
        for error in [
            ModelError::Corrupt { file: "model.gguf".into(), reason: format!("tensor `{name}` is there twice") },
            ModelError::Json { file: "config.json".into(), reason: format!("unknown variant `{name}`") },
        ] {
            let text = error.to_string();
            assert!(text.chars().count() < 500 && text.ends_with('…'), "{text}");
            assert!(!text.contains('\u{1b}'), "{text}");
        }
    }
}
