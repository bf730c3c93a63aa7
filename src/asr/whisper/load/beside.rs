//! The texts of a GGUF file that holds weights alone, as candle writes them.
//!
//! In: the file's place and its tensors. Out: the configuration and the tokenizer that lie beside it: `config.json` and
//! `tokenizer.json`, or such as `config-tiny.json` and `tokenizer-tiny.json`, where one of them fits the tensors.

use std::path::{Path, PathBuf};

use super::store::Store;
use super::{Source, optional_text, text};
use crate::asr::whisper::config::WhisperConfig;
use crate::asr::whisper::error::ModelError;
use crate::asr::whisper::tokenizer::Tokens;

/// Timestamps of OpenAI's vocabularies: 0.00 to 30.00 s.
const TIMESTAMPS: usize = 1501;

/// What stands between `stem` and `.json` in the names of the folder's files: nothing, or such as `-tiny`. In order.
fn variants(folder: &Path, stem: &str) -> Vec<String> {
    let mut variants: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| Some(name.strip_prefix(stem)?.strip_suffix(".json")?.to_string()))
        .filter(|variant| variant.is_empty() || variant.starts_with('-'))
        .collect();
    variants.sort_unstable();
    variants
}

/// Whether a configuration is that of these tensors.
fn fits(store: &Store, config: &WhisperConfig) -> Result<(), String> {
    let shape = |name: &str, expected: &[usize]| match store.shape(name) {
        Some(found) if found == expected => Ok(()),
        Some(found) => Err(format!("`{name}` is {found:?}, it has {expected:?}")),
        None => Err(format!("`{name}` is missing")),
    };
    let width = config.d_model;
    shape("model.decoder.embed_tokens.weight", &[config.vocab_size, width])?;
    shape("model.encoder.conv1.weight", &[width, config.num_mel_bins, 3])?;
    for (part, layers, hidden, positions) in [
        ("encoder", config.encoder_layers, config.encoder_ffn_dim, config.max_source_positions),
        ("decoder", config.decoder_layers, config.decoder_ffn_dim, config.max_target_positions),
    ] {
        shape(&format!("model.{part}.embed_positions.weight"), &[positions, width])?;
        shape(&format!("model.{part}.layers.{}.fc1.weight", layers - 1), &[hidden, width])?;
        if store.shape(&format!("model.{part}.layers.{layers}.fc1.weight")).is_some() {
            return Err(format!("it has {layers} layers in the {part}, there are more"));
        }
    }
    Ok(())
}

/// Whether a tokenizer's ids fill a vocabulary of this size.
fn fills(json: &str, vocabulary: usize) -> bool {
    Tokens::parse("", json, true, vocabulary).is_ok_and(|tokens| {
        let (first, last) = (tokens.no_timestamps as usize, tokens.last() as usize);
        first + 1 + TIMESTAMPS == vocabulary || last + 1 == vocabulary
    })
}

/// The one of several that is meant, or the reason why none is.
fn only(folder: &Path, stem: &str, fitting: &[String], all: &[String]) -> Result<String, String> {
    let names = |variants: &[String]| variants.iter().map(|v| format!("{stem}{v}.json")).collect::<Vec<_>>().join(", ");
    match (fitting, all) {
        // The plain name is meant for what lies there.
        ([first, ..], _) if first.is_empty() => Ok(String::new()),
        ([one], _) => Ok(one.clone()),
        ([], []) => Err(format!("there is neither {stem}.json nor a {stem}-….json in {}", folder.display())),
        ([], all) => Err(format!("none of {} in {} fits it", names(all), folder.display())),
        (several, _) => {
            Err(format!("{} in {} fit it alike; the right one should be {stem}.json", names(several), folder.display()))
        }
    }
}

/// Finds the texts for the weights in the file `path`.
pub(super) fn find(path: &Path, store: &Store) -> Result<Source, ModelError> {
    let missing = |missing: String| ModelError::Companion { file: path.display().to_string(), missing };
    if store.shape("model.encoder.conv1.weight").is_none() {
        let what = "it has no tensor `model.encoder.conv1.weight`, as a Whisper model from Hugging Face has";
        return Err(missing(what.to_string()));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let at = |stem: &str, variant: &str| -> PathBuf { folder.join(format!("{stem}{variant}.json")) };
    let (configs, mut reasons) = (variants(folder, "config"), Vec::new());
    let mut fitting = configs.clone();
    fitting.retain(|variant| {
        let config = text(&at("config", variant)).and_then(|json| WhisperConfig::parse("", &json));
        let fit = config.map_err(|e| e.to_string()).and_then(|config| fits(store, &config));
        fit.map_err(|reason| reasons.push(format!("config{variant}.json: {reason}"))).is_ok()
    });
    let variant = only(folder, "config", &fitting, &configs).map_err(|reason| match reasons.as_slice() {
        [] => missing(reason),
        reasons => missing(format!("{reason} ({})", reasons.join("; "))),
    })?;
    let config = text(&at("config", &variant))?;
    let vocabulary = WhisperConfig::parse(&at("config", &variant).display().to_string(), &config)?.vocab_size;
    // Of whatever name: another model's gives other words, and no error.
    let fills = |variant: &String| text(&at("tokenizer", variant)).is_ok_and(|json| fills(&json, vocabulary));
    let tokenizer = if fills(&variant) {
        variant.clone()
    } else {
        let all = variants(folder, "tokenizer");
        let fitting: Vec<String> = all.iter().filter(|variant| fills(variant)).cloned().collect();
        only(folder, "tokenizer", &fitting, &all)
            .map_err(|reason| missing(format!("{reason} (config{variant}.json has {vocabulary} tokens)")))?
    };
    let tokenizer = text(&at("tokenizer", &tokenizer))?;
    // The same variant alone: beside `config-tiny.json` the plain name is as likely another model's.
    let generation = optional_text(&at("generation_config", &variant))?;
    Ok(Source { config, generation, tokenizer })
}
