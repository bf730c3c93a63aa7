//! CTranslate2's folders, as faster-whisper has them.
//!
//! In: `model.bin`, and beside it `config.json` and `tokenizer.json` or `vocabulary.json` or `vocabulary.txt`. Out: an
//! index of its tensors under Hugging Face's names, and the texts of a Hugging Face folder. Source of the layout:
//! CTranslate2, `python/ctranslate2/specs/model_spec.py` and `src/models/model.cc`.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::form::Form;
use super::ranks::{Ranks, steers};
use super::store::{Bytes, Entry, Scan, Store};
use super::{Source, optional_text};
use crate::asr::whisper::bytes::byte_of;
use crate::asr::whisper::error::ModelError;

/// Binary versions that are laid out alike; since the fourth, types are written.
const VERSIONS: std::ops::RangeInclusive<u32> = 4..=6;
/// What a model's kind may be called at most, and how many variables it may have (large: 1 000).
const LONGEST_NAME: usize = 256;
const MOST_VARIABLES: usize = 1 << 14;
/// How often a byte may be named on average. Embeddings, which may be most of a file, are the output layer too; vectors that are
/// equal are stored once.
const MOST_NAMED: u64 = 3;

/// Whether a file starts with a version and the name of a specification, as `model.bin` does.
pub(super) fn is(start: &[u8]) -> bool {
    let Some((version, rest)) = start.split_first_chunk::<4>() else { return false };
    let Some((length, rest)) = rest.split_first_chunk::<2>() else { return false };
    let name = rest.get(..usize::from(u16::from_le_bytes(*length)));
    u32::from_le_bytes(*version) < 256 && name.is_some_and(|name| name.ends_with(b"Spec\0"))
}

/// The variables of a file, some under several names.
struct Variables {
    entries: HashMap<String, Entry>,
    /// Small numbers that stand beside the weights.
    numbers: HashMap<String, usize>,
}

fn text(scan: &mut Scan<'_>) -> Result<String, String> {
    let length = usize::from(scan.u16()?);
    if length > LONGEST_NAME {
        return Err(format!("a name has {length} bytes: at most {LONGEST_NAME} are allowed"));
    }
    let bytes = scan.take(length)?;
    Ok(String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(bytes)).into_owned())
}

fn header(scan: &mut Scan<'_>) -> Result<usize, String> {
    let version = scan.u32()?;
    if !VERSIONS.contains(&version) {
        return Err(format!("its binary version is {version}: 4 to 6 are read"));
    }
    let kind = text(scan)?;
    if kind != "WhisperSpec" {
        return Err(format!("it is a CTranslate2 model of another kind: `{kind}`, and not `WhisperSpec`"));
    }
    let _revision = scan.u32()?;
    count(scan)
}

fn count(scan: &mut Scan<'_>) -> Result<usize, String> {
    match scan.u32()? as usize {
        count if count <= MOST_VARIABLES => Ok(count),
        count => Err(format!("it announces {count} variables: {MOST_VARIABLES} are allowed")),
    }
}

/// Name, type, shape and bytes.
fn variable(scan: &mut Scan<'_>) -> Result<(String, u8, Vec<usize>, usize), String> {
    let name = text(scan)?;
    let rank = scan.u8()?;
    if rank > 4 {
        return Err(format!("variable `{name}` has {rank} dimensions: at most 4 are allowed"));
    }
    let shape = (0..rank).map(|_| scan.u32().map(|d| d as usize)).collect::<Result<_, _>>()?;
    Ok((name, scan.u8()?, shape, scan.u32()? as usize))
}

impl Variables {
    fn read(store: &Store) -> Result<Self, ModelError> {
        let mut scan = Scan::new(store.bytes());
        let corrupt = |reason: String| store.corrupt(reason);
        let (mut entries, mut numbers) = (HashMap::new(), HashMap::new());
        for _ in 0..header(&mut scan).map_err(corrupt)? {
            let (name, kind, shape, size) = variable(&mut scan).map_err(corrupt)?;
            let offset = scan.position();
            let form = match kind {
                0 => Ok(Form::F32),
                1 => Ok(Form::Int8),
                4 => Ok(Form::F16),
                5 => Ok(Form::Bf16),
                2 => Err("int16".to_string()),
                3 => Err("int32".to_string()),
                kind => Err(format!("CTranslate2 type {kind}")),
            };
            if let Some(expected) = form.as_ref().ok().and_then(|form| form.stored(&shape))
                && expected != size
            {
                return Err(corrupt(format!(
                    "variable `{name}` of shape {shape:?} takes {size} bytes, not {expected}"
                )));
            }
            if shape.is_empty() && (1..=8).contains(&size) {
                let bytes = scan.take(size).map_err(corrupt)?;
                numbers.insert(name.clone(), bytes.iter().rev().fold(0, |v, &b| v << 8 | usize::from(b)));
            } else {
                scan.skip(size).map_err(corrupt)?;
            }
            let entry = store.entry(&name, form, shape, offset)?;
            if entries.insert(name.clone(), entry).is_some() {
                return Err(corrupt(format!("variable `{name}` is there twice")));
            }
        }
        for _ in 0..count(&mut scan).map_err(corrupt)? {
            let names = text(&mut scan).and_then(|alias| Ok((alias, text(&mut scan)?)));
            let (alias, name) = names.map_err(corrupt)?;
            let Some(entry) = entries.get(&name).cloned() else {
                return Err(corrupt(format!("`{alias}` stands for `{name}`, which is not there")));
            };
            entries.insert(alias, entry);
        }
        // Each is packed by itself: memory is to be of the file's order.
        let named: u64 = entries.values().map(|entry| entry.range.len() as u64).sum();
        let bytes = store.bytes().len();
        if named / MOST_NAMED > bytes {
            let reason = format!("its variables and aliases name {named} bytes, over {MOST_NAMED} times its {bytes}");
            return Err(store.corrupt(reason));
        }
        Ok(Self { entries, numbers })
    }

    fn entry(&self, name: &str) -> Result<&Entry, ModelError> {
        self.entries.get(name).ok_or_else(|| ModelError::MissingTensor { name: name.to_string() })
    }

    /// A matrix, with its scales where it has 8 bits.
    fn weight(&self, name: &str) -> Result<Entry, ModelError> {
        let entry = self.entry(name)?;
        if entry.form != Ok(Form::Int8) {
            return Ok(entry.clone());
        }
        let scales = self.entry(&format!("{name}_scale"))?;
        entry.clone().scaled(scales).ok_or_else(|| ModelError::Shape {
            name: format!("{name}_scale"),
            expected: entry.shape.iter().take(1).copied().collect(),
            found: scales.shape.clone(),
        })
    }

    /// The size of one of a tensor's dimensions.
    fn size(&self, name: &str, dimension: usize) -> Result<usize, ModelError> {
        let shape = &self.entry(name)?.shape;
        shape.get(dimension).copied().ok_or_else(|| ModelError::Shape {
            name: name.to_string(),
            expected: vec![0; dimension + 1],
            found: shape.clone(),
        })
    }

    fn layers(&self, part: &str) -> usize {
        let known = |layer: &usize| self.entries.contains_key(&format!("{part}/layer_{layer}/ffn/linear_0/weight"));
        (0..MOST_VARIABLES).take_while(known).count()
    }
}

/// Reads `model.bin`, and what lies beside it.
pub(super) fn read(model: &Path) -> Result<(Source, Store), ModelError> {
    let mut store = Store::new(&model.display().to_string(), Bytes::open(model)?);
    let variables = Variables::read(&store)?;
    let width = variables.size("decoder/embeddings/weight", 1)?;
    // Every Whisper's heads are 64 wide; CTranslate2 has the number since its third version.
    let heads = |part: &str| variables.numbers.get(&format!("{part}/num_heads")).copied().unwrap_or(width / 64);
    let config = json!({
        "architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper", "scale_embedding": false,
        "vocab_size": variables.size("decoder/embeddings/weight", 0)?, "d_model": width,
        "num_mel_bins": variables.size("encoder/conv1/weight", 1)?,
        "encoder_layers": variables.layers("encoder"), "decoder_layers": variables.layers("decoder"),
        "encoder_attention_heads": heads("encoder"), "decoder_attention_heads": heads("decoder"),
        "encoder_ffn_dim": variables.size("encoder/layer_0/ffn/linear_0/weight", 0)?,
        "decoder_ffn_dim": variables.size("decoder/layer_0/ffn/linear_0/weight", 0)?,
        "max_source_positions": variables.size("encoder/position_encodings/encodings", 0)?,
        "max_target_positions": variables.size("decoder/position_encodings/encodings", 0)?,
    });
    for part in ["encoder", "decoder"] {
        file(&mut store, &variables, part, width)?;
    }
    let generation = generation(&model.with_file_name("config.json"))?;
    Ok((Source { config: config.to_string(), generation: Some(generation), tokenizer: tokenizer(model)? }, store))
}

/// Files the tensors of the encoder or the decoder under Hugging Face's names.
fn file(store: &mut Store, variables: &Variables, part: &str, width: usize) -> Result<(), ModelError> {
    let mut put = |name: String, entry: Entry| store.insert(&format!("model.{part}.{name}"), entry);
    let mut linear = |name: &str, theirs: &str, rows: Option<Range<usize>>, bias: bool| {
        for leaf in if bias { &["weight", "bias"][..] } else { &["weight"] } {
            let theirs = format!("{part}/{theirs}/{leaf}");
            let entry = variables.weight(&theirs)?;
            let entry = match rows.clone() {
                None => entry,
                Some(rows) => entry.rows(rows.clone()).ok_or_else(|| ModelError::Shape {
                    name: theirs,
                    expected: vec![rows.end],
                    found: entry.shape.clone(),
                })?,
            };
            put(format!("{name}.{leaf}"), entry)?;
        }
        Ok::<(), ModelError>(())
    };
    for i in 0..variables.layers(part) {
        let (name, theirs) = (format!("layers.{i}"), format!("layer_{i}"));
        // Queries, keys and values are one matrix; keys have no bias (theirs would change no softmax).
        for (at, projection) in ["q", "k", "v"].into_iter().enumerate() {
            let rows = Some(width.saturating_mul(at)..width.saturating_mul(at + 1));
            let name = format!("{name}.self_attn.{projection}_proj");
            linear(&name, &format!("{theirs}/self_attention/linear_0"), rows, projection != "k")?;
        }
        linear(&format!("{name}.self_attn.out_proj"), &format!("{theirs}/self_attention/linear_1"), None, true)?;
        if part == "decoder" {
            let (name, theirs) = (format!("{name}.encoder_attn"), format!("{theirs}/attention"));
            linear(&format!("{name}.q_proj"), &format!("{theirs}/linear_0"), None, true)?;
            linear(&format!("{name}.k_proj"), &format!("{theirs}/linear_1"), Some(0..width), false)?;
            linear(
                &format!("{name}.v_proj"),
                &format!("{theirs}/linear_1"),
                Some(width..width.saturating_mul(2)),
                true,
            )?;
            linear(&format!("{name}.out_proj"), &format!("{theirs}/linear_2"), None, true)?;
        }
        linear(&format!("{name}.fc1"), &format!("{theirs}/ffn/linear_0"), None, true)?;
        linear(&format!("{name}.fc2"), &format!("{theirs}/ffn/linear_1"), None, true)?;
    }
    if part == "encoder" {
        linear("conv1", "conv1", None, true)?;
        linear("conv2", "conv2", None, true)?;
    }
    let mut plain = vec![("embed_positions.weight".to_string(), "position_encodings/encodings".to_string())];
    let mut norm = |name: String, theirs: String| {
        plain.push((format!("{name}.weight"), format!("{theirs}/gamma")));
        plain.push((format!("{name}.bias"), format!("{theirs}/beta")));
    };
    norm("layer_norm".to_string(), "layer_norm".to_string());
    for i in 0..variables.layers(part) {
        let (name, theirs) = (format!("layers.{i}"), format!("layer_{i}"));
        norm(format!("{name}.self_attn_layer_norm"), format!("{theirs}/self_attention/layer_norm"));
        if part == "decoder" {
            norm(format!("{name}.encoder_attn_layer_norm"), format!("{theirs}/attention/layer_norm"));
        }
        norm(format!("{name}.final_layer_norm"), format!("{theirs}/ffn/layer_norm"));
    }
    if part == "decoder" {
        plain.push(("embed_tokens.weight".to_string(), "embeddings/weight".to_string()));
    }
    for (name, theirs) in plain {
        store.insert(&format!("model.{part}.{name}"), variables.weight(&format!("{part}/{theirs}"))?)?;
    }
    Ok(())
}

/// `generation_config.json` from CTranslate2's `config.json`. What that does not say, as in folders of its older versions,
/// is OpenAI's default (−1).
fn generation(path: &Path) -> Result<String, ModelError> {
    #[derive(Default, Deserialize)]
    struct Config {
        #[serde(default)]
        alignment_heads: Value,
        #[serde(default)]
        suppress_ids: Value,
        #[serde(default)]
        suppress_ids_begin: Value,
    }
    let config = match optional_text(path)? {
        None => Config::default(),
        Some(json) => serde_json::from_str(&json)
            .map_err(|e| ModelError::Json { file: path.display().to_string(), reason: e.to_string() })?,
    };
    let default = |value: Value| if value.is_null() { json!([-1]) } else { value };
    let generation = json!({
        "alignment_heads": config.alignment_heads, "suppress_tokens": default(config.suppress_ids),
        "begin_suppress_tokens": default(config.suppress_ids_begin),
    });
    Ok(generation.to_string())
}

/// `tokenizer.json`, or one made from the vocabulary.
fn tokenizer(model: &Path) -> Result<String, ModelError> {
    if let Some(json) = optional_text(&model.with_file_name("tokenizer.json"))? {
        return Ok(json);
    }
    let tokens = if let Some(json) = optional_text(&model.with_file_name("vocabulary.json"))? {
        let file = model.with_file_name("vocabulary.json").display().to_string();
        serde_json::from_str::<Vec<String>>(&json).map_err(|e| ModelError::Json { file, reason: e.to_string() })?
    } else if let Some(text) = optional_text(&model.with_file_name("vocabulary.txt"))? {
        text.strip_suffix('\n')
            .unwrap_or(&text)
            .split('\n')
            .map(|line| line.trim_end_matches('\r').to_string())
            .collect()
    } else {
        return Err(ModelError::Companion {
            file: model.display().to_string(),
            missing: "beside it are neither tokenizer.json nor vocabulary.json nor vocabulary.txt".to_string(),
        });
    };
    let end = tokens.iter().position(|token| token == "<|endoftext|>").unwrap_or(tokens.len());
    let bytes = |token: &String| token.chars().filter_map(byte_of).collect::<Vec<u8>>();
    let text = Ranks::new(tokens[..end].iter().map(bytes));
    let special: Vec<(u32, String)> = (0..).zip(tokens).skip(end).filter(|(_, name)| steers(name)).collect();
    Ok(text.tokenizer(&special))
}
