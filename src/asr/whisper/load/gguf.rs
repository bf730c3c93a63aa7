//! GGUF, through candle, behind a check of what candle takes on trust.
//!
//! In: the file's bytes. Out: an index of its tensors and its texts.
//! Source of the layout: ggml, `docs/gguf.md`.

use std::collections::BTreeMap;
use std::io::Cursor;

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::{Content, Value};

use super::form::Form;
use super::store::{Bytes, Store};
use crate::asr::whisper::error::ModelError;

/// More metadata entries or tensors than any Whisper has (large: 1 259 tensors).
const MOST_ENTRIES: u64 = 1 << 14;
/// Elements of all metadata arrays: candle keeps 32 bytes for each, even for a single byte.
const MOST_ELEMENTS: u64 = 1 << 20;

/// A GGUF file's contents: its tensors and its texts (metadata).
pub(super) struct Container {
    pub(super) store: Store,
    pub(super) texts: BTreeMap<String, String>,
}

/// Walks over a header without keeping any of it.
struct Walk<'a> {
    rest: &'a [u8],
    elements: u64,
}

impl<'a> Walk<'a> {
    fn take(&mut self, count: u64) -> Result<&'a [u8], String> {
        let (head, rest) = usize::try_from(count)
            .ok()
            .and_then(|count| self.rest.split_at_checked(count))
            .ok_or_else(|| format!("it ends early: {count} bytes are announced, {} are left", self.rest.len()))?;
        self.rest = rest;
        Ok(head)
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(self.take(4)?.iter().rev().fold(0, |v, &b| v << 8 | u32::from(b)))
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(self.take(8)?.iter().rev().fold(0, |v, &b| v << 8 | u64::from(b)))
    }

    fn string(&mut self) -> Result<&'a [u8], String> {
        let length = self.u64()?;
        self.take(length)
    }

    /// Skips a value of this type; gives integers back.
    fn value(&mut self, kind: u32, nested: bool) -> Result<Option<u64>, String> {
        Ok(match kind {
            0 | 1 | 7 => self.take(1)?.first().map(|&v| u64::from(v)),
            2 | 3 => Some(self.take(2)?.iter().rev().fold(0, |v, &b| v << 8 | u64::from(b))),
            4 | 5 => Some(u64::from(self.u32()?)),
            6 => self.u32().map(|_| None)?,
            10 | 11 => Some(self.u64()?),
            12 => self.u64().map(|_| None)?,
            8 => self.string().map(|_| None)?,
            9 if !nested => {
                let (kind, length) = (self.u32()?, self.u64()?);
                self.elements = self.elements.saturating_add(length);
                if self.elements > MOST_ELEMENTS {
                    return Err(format!("its metadata arrays hold more than {MOST_ELEMENTS} elements"));
                }
                for _ in 0..length {
                    self.value(kind, true)?;
                }
                None
            }
            9 => return Err("its metadata holds an array of arrays, which Whisper has no use for".to_string()),
            _ => return Err(format!("metadata type {kind} is unknown: 0 to 12 are defined")),
        })
    }
}

/// What candle believes without a check: the alignment (it divides by it), the cost of arrays, keys and tensors there
/// twice.
fn check(bytes: &[u8]) -> Result<(), String> {
    let mut walk = Walk { rest: bytes, elements: 0 };
    walk.take(4)?;
    let version = walk.u32()?;
    if !(2..=3).contains(&version) {
        return Err(format!("its GGUF version is {version}: 2 and 3 are read"));
    }
    let (tensors, entries) = (walk.u64()?, walk.u64()?);
    if tensors > MOST_ENTRIES || entries > MOST_ENTRIES {
        return Err(format!(
            "it announces {tensors} tensors and {entries} metadata entries: {MOST_ENTRIES} are allowed"
        ));
    }
    let mut names = std::collections::HashSet::new();
    for _ in 0..entries {
        let key = walk.string()?;
        let kind = walk.u32()?;
        let value = walk.value(kind, false)?;
        if !names.insert(key) {
            return Err(format!("metadata key `{}` is there twice", String::from_utf8_lossy(key)));
        }
        if key == b"general.alignment" && !value.is_some_and(|v| v.is_power_of_two() && v <= 1 << 16) {
            return Err("`general.alignment` is no power of two up to 65536".to_string());
        }
    }
    names.clear();
    for _ in 0..tensors {
        let name = walk.string()?;
        if !names.insert(name) {
            return Err(format!("tensor `{}` is there twice", String::from_utf8_lossy(name)));
        }
        let dimensions = walk.u32()?;
        if dimensions > 4 {
            let name = String::from_utf8_lossy(name);
            return Err(format!("tensor `{name}` has {dimensions} dimensions: at most 4 are allowed"));
        }
        walk.take(u64::from(dimensions) * 8 + 4 + 8)?;
    }
    Ok(())
}

/// Bytes of a file that are read first: most of a Whisper's header is its tokenizer, 2.5 MB.
const FIRST_READ: usize = 4 << 20;
/// No header is longer.
const MOST_HEADER: usize = 256 << 20;

pub(super) fn read(file: &str, bytes: Bytes) -> Result<Container, ModelError> {
    let corrupt = |reason: String| ModelError::Corrupt { file: file.to_string(), reason };
    let length = usize::try_from(bytes.len()).unwrap_or(usize::MAX).min(MOST_HEADER);
    let (mut buffer, mut part) = (Vec::new(), FIRST_READ.min(length));
    let header = loop {
        let header = bytes.read(0..part, &mut buffer).map_err(|e| corrupt(format!("it cannot be read: {e}")))?;
        match check(header) {
            Ok(()) => break header,
            Err(reason) if part == length => return Err(corrupt(reason)),
            // It may only be longer than what was read; if it is damaged, the whole of it will tell.
            Err(_) => part = part.saturating_mul(4).min(length),
        }
    };
    let content = Content::read(&mut Cursor::new(header))
        .map_err(|e| corrupt(format!("it is no GGUF file that candle reads: {e}")))?;
    let mut store = Store::new(file, bytes);
    for (name, info) in &content.tensor_infos {
        let form = match info.ggml_dtype {
            GgmlDType::F32 => Ok(Form::F32),
            GgmlDType::F16 => Ok(Form::F16),
            GgmlDType::BF16 => Ok(Form::Bf16),
            GgmlDType::Q8_0 => Ok(Form::Q8_0),
            GgmlDType::Q4_0 => Ok(Form::Q4_0),
            GgmlDType::Q4_1 => Ok(Form::Q4_1),
            GgmlDType::Q5_0 => Ok(Form::Q5_0),
            GgmlDType::Q5_1 => Ok(Form::Q5_1),
            GgmlDType::Q2K => Ok(Form::Q2K),
            GgmlDType::Q3K => Ok(Form::Q3K),
            GgmlDType::Q4K => Ok(Form::Q4K),
            GgmlDType::Q5K => Ok(Form::Q5K),
            GgmlDType::Q6K => Ok(Form::Q6K),
            other => Err(format!("{other:?}")),
        };
        let offset = content.tensor_data_offset.saturating_add(info.offset);
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let entry = store.entry(name, form, info.shape.dims().to_vec(), offset)?;
        store.insert(name, entry)?;
    }
    store.check_overlap()?;
    let texts = content
        .metadata
        .into_iter()
        .filter_map(|(key, value)| if let Value::String(text) = value { Some((key, text)) } else { None })
        .collect();
    Ok(Container { store, texts })
}
