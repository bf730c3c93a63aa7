//! GGUF, through candle, behind a check of what candle takes on trust.
//!
//! In: the file's bytes. Out: an index of its tensors and its texts.
//! Source of the layout: ggml, `docs/gguf.md`.

use std::collections::{BTreeMap, HashSet};
use std::io::Cursor;

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::{Content, Value};

use super::form::Form;
use super::store::{Bytes, Scan, Store};
use crate::asr::whisper::error::ModelError;

/// More metadata entries or tensors than any Whisper has (large: 1 259 tensors).
const MOST_ENTRIES: u64 = 1 << 14;
/// Elements of all metadata arrays: candle keeps 32 bytes for each, even for a single byte.
const MOST_ELEMENTS: u64 = 1 << 20;

/// Of a key (ggml, `docs/gguf.md`); tensors' names are shorter.
const LONGEST_NAME: usize = u16::MAX as usize;

/// A GGUF file's contents: its tensors and its texts (metadata).
pub(super) struct Container {
    pub(super) store: Store,
    pub(super) texts: BTreeMap<String, String>,
}

/// Skips a value of this type; gives integers back. `elements` counts those of arrays.
fn value(scan: &mut Scan<'_>, kind: u32, nested: bool, elements: &mut u64) -> Result<Option<u64>, String> {
    Ok(match kind {
        0 | 1 | 7 => Some(u64::from(scan.u8()?)),
        2 | 3 => Some(u64::from(scan.u16()?)),
        4 | 5 => Some(u64::from(scan.u32()?)),
        6 => scan.skip(4).map(|()| None)?,
        10 | 11 => Some(scan.u64()?),
        12 => scan.skip(8).map(|()| None)?,
        8 => {
            let length = scan.length()?;
            scan.skip(length).map(|()| None)?
        }
        9 if !nested => {
            let (kind, length) = (scan.u32()?, scan.u64()?);
            *elements = elements.saturating_add(length);
            if *elements > MOST_ELEMENTS {
                return Err(format!("its metadata arrays hold more than {MOST_ELEMENTS} elements"));
            }
            for _ in 0..length {
                value(scan, kind, true, elements)?;
            }
            None
        }
        9 => return Err("its metadata holds an array of arrays, which Whisper has no use for".to_string()),
        _ => return Err(format!("metadata type {kind} is unknown: 0 to 12 are defined")),
    })
}

/// What candle believes without a check: the alignment (it divides by it), the cost of arrays, keys and tensors there
/// twice. Leaves `scan` at the header's end.
fn check(scan: &mut Scan<'_>) -> Result<(), String> {
    scan.skip(4)?;
    let version = scan.u32()?;
    if !(2..=3).contains(&version) {
        return Err(format!("its GGUF version is {version}: 2 and 3 are read"));
    }
    let (tensors, entries) = (scan.u64()?, scan.u64()?);
    if tensors > MOST_ENTRIES || entries > MOST_ENTRIES {
        return Err(format!(
            "it announces {tensors} tensors and {entries} metadata entries: {MOST_ENTRIES} are allowed"
        ));
    }
    let (mut names, mut elements) = (HashSet::new(), 0);
    let name = |scan: &mut Scan<'_>| {
        let length = scan.length()?;
        if length > LONGEST_NAME {
            return Err(format!("a name has {length} bytes: at most {LONGEST_NAME} are allowed"));
        }
        Ok(scan.take(length)?.to_vec())
    };
    for _ in 0..entries {
        let key = name(scan)?;
        let kind = scan.u32()?;
        let value = value(scan, kind, false, &mut elements)?;
        if key == b"general.alignment" && !value.is_some_and(|v| v.is_power_of_two() && v <= 1 << 16) {
            return Err("`general.alignment` is no power of two up to 65536".to_string());
        }
        if let Some(key) = names.replace(key) {
            return Err(format!("metadata key `{}` is there twice", String::from_utf8_lossy(&key)));
        }
    }
    names.clear();
    for _ in 0..tensors {
        let name = name(scan)?;
        let dimensions = scan.u32()?;
        if dimensions > 4 {
            let name = String::from_utf8_lossy(&name);
            return Err(format!("tensor `{name}` has {dimensions} dimensions: at most 4 are allowed"));
        }
        scan.skip(dimensions as usize * 8 + 4 + 8)?;
        if let Some(name) = names.replace(name) {
            return Err(format!("tensor `{}` is there twice", String::from_utf8_lossy(&name)));
        }
    }
    Ok(())
}

/// No header is longer: most of a Whisper's is its tokenizer, 2.5 MB.
const MOST_HEADER: usize = 256 << 20;

pub(super) fn read(file: &str, bytes: Bytes) -> Result<Container, ModelError> {
    let corrupt = |reason: String| ModelError::Corrupt { file: file.to_string(), reason };
    let mut scan = Scan::within(&bytes, MOST_HEADER);
    check(&mut scan).map_err(corrupt)?;
    let (end, mut buffer) = (scan.position(), Vec::new());
    let header = bytes.read(0..end, &mut buffer).map_err(|e| corrupt(format!("it cannot be read: {e}")))?;
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
