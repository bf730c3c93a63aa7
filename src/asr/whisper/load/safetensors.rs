//! safetensors, through candle.
//!
//! In: the file's bytes. Out: an index of its tensors.
//! candle (the `safetensors` crate) checks the header's length, the offsets and that they leave no gap.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use candle_core::DType;
use candle_core::safetensors::SliceSafetensors;
use serde::Deserialize;

use super::form::Form;
use super::store::{Bytes, Store};
use crate::asr::whisper::error::ModelError;

/// As many bytes as the file has, of which only the header is read: candle wants to see them all and looks at no others.
/// Systems that give memory when it is touched give none to the rest.
fn header(bytes: &Bytes) -> io::Result<Vec<u8>> {
    let length = usize::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut all = Vec::<u8>::new();
    all.try_reserve_exact(length).map_err(io::Error::other)?;
    drop(all);
    let mut all = vec![0; length];
    let mut buffer = Vec::new();
    // Its first eight bytes are the header's length.
    let first = length.min(8);
    all[..first].copy_from_slice(bytes.read(0..first, &mut buffer)?);
    let announced = all.first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
    let end = usize::try_from(announced.saturating_add(8)).unwrap_or(usize::MAX).min(length);
    // candle takes headers of up to 100 MB; a damaged length is no reason to read all.
    if end <= 8 + 100_000_000 {
        all[first..end].copy_from_slice(bytes.read(first..end, &mut buffer)?);
    }
    Ok(all)
}

/// The files that an index (`model.safetensors.index.json`) names; they lie beside it.
pub(super) fn shards(index: &Path) -> Result<BTreeSet<String>, ModelError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let label = index.display().to_string();
    let json = super::text(index)?;
    let Index { weight_map } =
        serde_json::from_str(&json).map_err(|e| ModelError::Json { file: label.clone(), reason: e.to_string() })?;
    let names: BTreeSet<String> = weight_map.into_values().collect();
    // Names within the folder: an index is no reason to read elsewhere.
    let reason = match names.iter().find(|file| Path::new(file).file_name() != Some(file.as_ref())) {
        Some(file) => format!("it names the file `{file}`, which is not one beside it"),
        None if names.is_empty() => "its `weight_map` is empty".to_string(),
        None => return Ok(names),
    };
    Err(ModelError::Corrupt { file: label, reason })
}

/// Reads all files that an index names.
pub(super) fn read_sharded(index: &Path) -> Result<Store, ModelError> {
    let mut all: Option<Store> = None;
    for file in shards(index)? {
        let path = index.with_file_name(file);
        let part = read(&path.display().to_string(), Bytes::open(&path)?)?;
        match &mut all {
            None => all = Some(part),
            Some(all) => all.merge(part)?,
        }
    }
    all.ok_or_else(|| ModelError::Corrupt { file: index.display().to_string(), reason: "it is empty".to_string() })
}

pub(super) fn read(file: &str, bytes: Bytes) -> Result<Store, ModelError> {
    let mut found = Vec::new();
    {
        let corrupt = |e: &dyn std::fmt::Display| ModelError::Corrupt {
            file: file.to_string(),
            reason: format!("it is no safetensors file: {e}"),
        };
        let all = header(&bytes).map_err(|e| corrupt(&e))?;
        let tensors = SliceSafetensors::new(&all).map_err(|e| corrupt(&e))?;
        for (name, view) in tensors.tensors() {
            let form = match DType::try_from(view.dtype()) {
                Ok(DType::F32) => Ok(Form::F32),
                Ok(DType::F16) => Ok(Form::F16),
                Ok(DType::BF16) => Ok(Form::Bf16),
                _ => Err(format!("{:?}", view.dtype())),
            };
            // The view borrows from `all`: its place is the distance of their addresses.
            let offset = view.data().as_ptr().addr() - all.as_ptr().addr();
            found.push((name, form, view.shape().to_vec(), offset));
        }
    }
    let mut store = Store::new(file, bytes);
    for (name, form, shape, offset) in found {
        let entry = store.entry(&name, form, shape, offset)?;
        store.insert(&name, entry)?;
    }
    store.check_overlap()?;
    Ok(store)
}
