//! safetensors, through candle.
//!
//! In: the file's bytes. Out: an index of its tensors.
//! candle (the `safetensors` crate) checks the header's length, the offsets and that they leave no gap.

use std::collections::BTreeMap;

use candle_core::DType;
use candle_core::safetensors::SliceSafetensors;

use super::{Bytes, Form, Store};
use crate::asr::whisper::error::ModelError;

pub(super) fn read(file: &str, bytes: Bytes) -> Result<Store, ModelError> {
    let mut found = Vec::new();
    {
        let all = match &bytes {
            Bytes::Owned(bytes) => bytes.as_slice(),
            Bytes::Static(bytes) => bytes,
        };
        let corrupt = |e: candle_core::Error| ModelError::Corrupt {
            file: file.to_string(),
            reason: format!("it is no safetensors file: {e}"),
        };
        let tensors = SliceSafetensors::new(all).map_err(corrupt)?;
        for (name, view) in tensors.tensors() {
            let form = match DType::try_from(view.dtype()) {
                Ok(DType::F32) => Ok(Form::F32),
                Ok(DType::F16) => Ok(Form::F16),
                Ok(DType::BF16) => Ok(Form::Bf16),
                _ => Err(format!("{:?}", view.dtype())),
            };
            // The view borrows from `all`: its place is the distance of their addresses.
            let offset = view.data().as_ptr().addr() - all.as_ptr().addr();
            found.push((name, form, view.shape().to_vec(), offset as u64));
        }
    }
    let mut store = Store { bytes, tensors: BTreeMap::new() };
    for (name, form, shape, offset) in found {
        store.insert(file, &name, form, shape, offset)?;
    }
    store.check_overlap(file)?;
    Ok(store)
}
