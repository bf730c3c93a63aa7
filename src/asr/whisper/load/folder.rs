//! Folders: the files of weights in one, and whether it is a whole model.
//!
//! In: a folder. Out: its files of weights, told by their content; what it lacks, for whoever looks for a model in a cache
//! that may hold parts of one.

use std::fmt;
use std::path::{Path, PathBuf};

use super::{Kind, kind, safetensors, start};
use crate::asr::whisper::error::ModelError;

/// The names that programs look for: the weights, or the index of those that are spread over several files.
pub(super) const WEIGHTS: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// Of Transformers' tokenizer in Python, which is saved without `tokenizer.json`: tokens of text, and all others.
pub(super) const VOCABULARY: &str = "vocab.json";
pub(super) const ADDED: &str = "added_tokens.json";

/// More files than any model's folder has: a folder of everything is no model.
const MOST_FILES: usize = 1000;

/// The files of weights, in the order of their names.
pub(super) fn weights(folder: &Path) -> Result<Vec<(PathBuf, Kind)>, ModelError> {
    let entries = std::fs::read_dir(folder).and_then(|all| {
        // One more than may be: which of more would come first is the system's choice.
        all.take(MOST_FILES + 1).map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()
    });
    let mut files = entries.map_err(|source| ModelError::Read { path: folder.to_path_buf(), source })?;
    if files.len() > MOST_FILES {
        let found = format!("the folder has more than {MOST_FILES} files: give the path of the model's");
        return Err(ModelError::Unrecognised { path: folder.to_path_buf(), found });
    }
    files.sort_unstable();
    let known = |file: PathBuf| {
        let kind = kind(&start(&file).ok().filter(|_| file.is_file())?)?;
        Some((file, kind))
    };
    Ok(files.into_iter().filter_map(known).collect())
}

/// The names of files, for messages.
pub(super) fn names(files: &[(PathBuf, Kind)]) -> Vec<String> {
    files.iter().filter_map(|(file, _)| Some(file.file_name()?.to_string_lossy().into_owned())).collect()
}

/// What keeps a folder from being a whole model.
#[derive(Debug, PartialEq, Eq)]
pub enum Lack {
    /// This file is missing, or this is wrong with it.
    File(String),
    /// It holds several models, each in one of these files.
    Choice(Vec<String>),
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(what) => f.write_str(what),
            Self::Choice(names) => write!(f, "one model: it has several, {}", names.join(", ")),
        }
    }
}

/// What a folder lacks to be a whole model; `None` for one that is.
#[must_use]
pub fn lack(folder: &Path) -> Option<Lack> {
    let has = |name: &str| folder.join(name).is_file();
    let lacks = |name: &str| (!has(name)).then(|| Lack::File(name.to_string()));
    if has(WEIGHTS) || has(INDEX) {
        let shard = || match safetensors::shards(&folder.join(INDEX)) {
            Ok(names) => names.iter().find_map(|name| lacks(name)),
            Err(error) => Some(Lack::File(error.to_string())),
        };
        let tokenizer = if has(VOCABULARY) && !has("tokenizer.json") { ADDED } else { "tokenizer.json" };
        return lacks(WEIGHTS).and_then(|_| shard()).or_else(|| lacks("config.json")).or_else(|| lacks(tokenizer));
    }
    let found = match weights(folder) {
        Ok(found) => found,
        Err(error) => return Some(Lack::File(error.to_string())),
    };
    match found.as_slice() {
        [(_, Kind::Ct2)] => {
            let words = ["tokenizer.json", "vocabulary.json", "vocabulary.txt"];
            lacks("config.json").or_else(|| lacks(words.into_iter().find(|name| has(name)).unwrap_or(words[0])))
        }
        [(_, Kind::Gguf | Kind::Ggml)] => None,
        [_, _, ..] if found.iter().any(|(_, kind)| *kind != Kind::Safetensors) => Some(Lack::Choice(names(&found))),
        // What is spread over files is no model without its index.
        _ => lacks(WEIGHTS),
    }
}
