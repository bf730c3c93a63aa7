//! Models as they are stored: told apart by their content, and seen as one shape.
//!
//! In: a Hugging Face folder, a GGUF file, a ggml file of whisper.cpp or a CTranslate2 folder, from disk; GGUF also from
//! memory or compiled into the program. Out: [`Opened`]: a [`Store`] of checked byte ranges under Hugging Face's names,
//! and the texts of a Hugging Face folder. Of a file on disk only the header is read at once, and a tensor when it is
//! asked for: a model is packed for its kernels as it is read, and the two are never in memory together.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::Path;

use super::error::ModelError;

mod beside;
mod ct2;
mod folder;
mod form;
mod ggml;
mod gguf;
mod openai;
mod ranks;
mod safetensors;
mod store;
#[cfg(test)]
mod tests;

pub use folder::{Lack, lack};
pub use form::Form;
pub(crate) use form::{BLOCK, FORMS};
pub(crate) use openai::{alignment_heads, blank, non_speech};
pub(crate) use ranks::Ranks;
pub(crate) use store::{Matrix, Store};

use store::Bytes;

/// Metadata of our GGUF files: the JSON of a Hugging Face folder, as it was.
pub(crate) const CONFIG_KEY: &str = "whisper.huggingface.config_json";
pub(crate) const GENERATION_KEY: &str = "whisper.huggingface.generation_config_json";
pub(crate) const TOKENIZER_KEY: &str = "tokenizer.huggingface.json";

/// The texts a model is made from, those of a Hugging Face folder; where a container has none, made from what it has.
pub(crate) struct Source {
    pub(crate) config: String,
    pub(crate) generation: Option<String>,
    pub(crate) tokenizer: String,
}

/// A model whose weights were not looked at yet.
pub(crate) struct Opened {
    /// The kind of container, for people.
    pub(crate) container: &'static str,
    pub(crate) name: Option<String>,
    pub(crate) source: Source,
    pub(crate) store: Store,
}

/// What a file holds, told by its first bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Safetensors,
    Gguf,
    Ggml,
    Ct2,
}

/// As many bytes as tell a file's kind.
const START: u64 = 64;

fn kind(start: &[u8]) -> Option<Kind> {
    if start.starts_with(b"GGUF") {
        return Some(Kind::Gguf);
    }
    if start.starts_with(ggml::MAGIC) {
        return Some(Kind::Ggml);
    }
    if ct2::is(start) {
        return Some(Kind::Ct2);
    }
    let (length, rest) = start.split_first_chunk()?;
    (u64::from_le_bytes(*length) <= 100_000_000 && rest.first() == Some(&b'{')).then_some(Kind::Safetensors)
}

fn start(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut start = Vec::new();
    File::open(path)?.take(START).read_to_end(&mut start)?;
    Ok(start)
}

/// No configuration, tokenizer, vocabulary or index has more bytes (the largest tokenizers: 4 MB). What has no end, as a
/// link to `/dev/zero`, ends here.
const MOST_TEXT_BYTES: u64 = 64 << 20;

/// A text file.
fn text(path: &Path) -> Result<String, ModelError> {
    let read = || {
        let mut text = String::new();
        File::open(path)?.take(MOST_TEXT_BYTES + 1).read_to_string(&mut text)?;
        if text.len() as u64 > MOST_TEXT_BYTES {
            return Err(std::io::Error::other(format!(
                "it has more than {MOST_TEXT_BYTES} bytes, the most that are read"
            )));
        }
        Ok(text)
    };
    read().map_err(|source| ModelError::Read { path: path.to_path_buf(), source })
}

/// A text file that may be missing.
fn optional_text(path: &Path) -> Result<Option<String>, ModelError> {
    match text(path) {
        Ok(text) => Ok(Some(text)),
        Err(ModelError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Opens whatever model is at `path`.
pub(crate) fn open(path: &Path) -> Result<Opened, ModelError> {
    let failed = |source| ModelError::Read { path: path.to_path_buf(), source };
    let unrecognised = |found: String| ModelError::Unrecognised { path: path.to_path_buf(), found };
    let at = std::fs::metadata(path).map_err(failed)?;
    if at.is_dir() {
        return open_folder(path);
    }
    if !at.is_file() {
        return Err(unrecognised("it is neither a file nor a folder".to_string()));
    }
    let start = start(path).map_err(failed)?;
    match kind(&start) {
        Some(kind) => open_file(path, kind),
        None => {
            let start = &start[..start.len().min(8)];
            Err(unrecognised(format!("it is a file that starts with the bytes {start:02x?}, as none of these does")))
        }
    }
}

fn open_folder(path: &Path) -> Result<Opened, ModelError> {
    let unrecognised = |found: String| ModelError::Unrecognised { path: path.to_path_buf(), found };
    // The names that programs look for go first: beside them lie the same weights for other programs.
    let usual = path.join(folder::WEIGHTS);
    if usual.is_file() {
        return open_file(&usual, Kind::Safetensors);
    }
    let index = path.join(folder::INDEX);
    if index.is_file() {
        let store = safetensors::read_sharded(&index)?;
        return huggingface(path, store);
    }
    match folder::weights(path)?.as_slice() {
        [] => Err(unrecognised("the folder has no file of weights that is known".to_string())),
        [(file, kind)] => open_file(file, *kind),
        several => {
            let names = folder::names(several).join(", ");
            Err(unrecognised(format!("the folder has several files of weights, give the path of one: {names}")))
        }
    }
}

fn open_file(path: &Path, kind: Kind) -> Result<Opened, ModelError> {
    let label = path.display().to_string();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match kind {
        Kind::Safetensors => huggingface(folder, safetensors::read(&label, Bytes::open(path)?)?),
        Kind::Gguf => {
            let container = gguf::read(&label, Bytes::open(path)?)?;
            if container.texts.contains_key("general.architecture") {
                return from_gguf(&label, container);
            }
            let source = beside::find(path, &container.store)?;
            Ok(Opened { container: "GGUF (candle)", name: file_name(path), source, store: container.store })
        }
        Kind::Ggml => {
            let (source, store) = ggml::read(&label, Bytes::open(path)?)?;
            Ok(Opened { container: "ggml (whisper.cpp)", name: file_name(path), source, store })
        }
        Kind::Ct2 => {
            let (source, store) = ct2::read(path)?;
            Ok(Opened { container: "CTranslate2", name: folder_name(folder), source, store })
        }
    }
}

/// A file's name without its ending.
fn file_name(path: &Path) -> Option<String> {
    path.file_stem().map(|name| name.to_string_lossy().into_owned())
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

/// A Hugging Face folder's `tokenizer.json`, or one made of what Transformers' tokenizer in Python leaves instead.
fn tokenizer(folder: &Path) -> Result<String, ModelError> {
    let path = folder.join("tokenizer.json");
    let (None, Some(vocabulary)) = (optional_text(&path)?, optional_text(&folder.join(folder::VOCABULARY))?) else {
        return text(&path);
    };
    let ids = |name: &str, json: &str| {
        let file = folder.join(name).display().to_string();
        serde_json::from_str(json).map_err(|e| ModelError::Json { file, reason: e.to_string() })
    };
    let added = text(&folder.join(folder::ADDED))?;
    Ok(ranks::tokenizer(ids(folder::VOCABULARY, &vocabulary)?, ids(folder::ADDED, &added)?))
}

fn huggingface(folder: &Path, store: Store) -> Result<Opened, ModelError> {
    let source = Source {
        config: text(&folder.join("config.json"))?,
        generation: optional_text(&folder.join("generation_config.json"))?,
        tokenizer: tokenizer(folder)?,
    };
    Ok(Opened { container: "Hugging Face folder", name: folder_name(folder), source, store })
}

fn from_gguf(file: &str, container: gguf::Container) -> Result<Opened, ModelError> {
    let gguf::Container { store, mut texts } = container;
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
    let source =
        Source { config: text(CONFIG_KEY)?, tokenizer: text(TOKENIZER_KEY)?, generation: text(GENERATION_KEY).ok() };
    Ok(Opened { container: "GGUF", name: texts.remove("general.name"), source, store })
}

/// A GGUF file in memory.
pub(crate) fn gguf_bytes(file: &str, bytes: Vec<u8>) -> Result<Opened, ModelError> {
    from_gguf(file, gguf::read(file, Bytes::Owned(bytes))?)
}

/// A GGUF file that lives as long as the program, whose weights are borrowed.
pub(crate) fn gguf_static(file: &str, bytes: &'static [u8]) -> Result<Opened, ModelError> {
    from_gguf(file, gguf::read(file, Bytes::Static(bytes))?)
}
