//! Weights as they are stored: one blob of bytes and an index into it.
//!
//! In: a GGUF or safetensors file, from disk or compiled into the program. Out: [`Store`], whose tensors are checked
//! byte ranges. Of a file on disk only the header is read at once, and a tensor when it is asked for: a model is packed
//! for its kernels as it is read, and the two are never in memory together. Sizes are believed only after they were
//! checked against the file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::error::ModelError;

mod gguf;
mod safetensors;

/// How weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Form {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of IEEE single precision.
    Bf16,
    /// GGML's `Q8_0`: blocks of 32 signed bytes under one half-precision scale, 34 bytes each.
    Q8_0,
}

/// Weights of one block of [`Form::Q8_0`].
pub(crate) const BLOCK: usize = 32;

impl Form {
    /// Bytes of `weights` contiguous weights; a form in blocks takes whole blocks.
    #[must_use]
    pub const fn bytes(self, weights: usize) -> usize {
        match self {
            Self::F32 => weights * 4,
            Self::F16 | Self::Bf16 => weights * 2,
            Self::Q8_0 => weights / BLOCK * (BLOCK + 2),
        }
    }

    /// As written in messages and by `general.file_type`'s names.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
        }
    }

    /// Bytes of a tensor of this shape, or `None` where they overflow or blocks do not fit its rows.
    fn checked_bytes(self, shape: &[usize]) -> Option<usize> {
        let weights = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        if self == Self::Q8_0 && !shape.last()?.is_multiple_of(BLOCK) {
            return None;
        }
        weights.checked_mul(4)?;
        Some(self.bytes(weights))
    }
}

/// Where a tensor lies.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// `Err` with its name for what this crate does not read.
    pub(crate) form: Result<Form, String>,
    pub(crate) shape: Vec<usize>,
    range: Range<usize>,
}

/// A tensor seen as a matrix, its range checked.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    pub(crate) form: Form,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    range: Range<usize>,
}

enum Bytes {
    Owned(Vec<u8>),
    Static(&'static [u8]),
    /// Locked for the time of a seek and a read.
    File(Mutex<File>, u64),
}

impl Bytes {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Self::File(Mutex::new(file), length))
    }

    fn len(&self) -> u64 {
        match self {
            Self::Owned(bytes) => bytes.len() as u64,
            Self::Static(bytes) => bytes.len() as u64,
            Self::File(_, length) => *length,
        }
    }

    /// The bytes of a range that lies within, in `buffer` where they are on disk.
    fn read<'a>(&'a self, range: Range<usize>, buffer: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
        let bytes = match self {
            Self::Owned(bytes) => bytes,
            Self::Static(bytes) => *bytes,
            Self::File(file, _) => {
                buffer.resize(range.len(), 0);
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(range.start as u64))?;
                file.read_exact(buffer)?;
                return Ok(buffer);
            }
        };
        Ok(&bytes[range])
    }
}

/// All tensors of a model, in the form they are stored.
pub(crate) struct Store {
    /// Its name in messages.
    file: String,
    bytes: Bytes,
    tensors: BTreeMap<String, Entry>,
}

/// A container's contents: its tensors and its texts (GGUF metadata).
pub(crate) struct Container {
    pub(crate) store: Store,
    pub(crate) texts: BTreeMap<String, String>,
}

impl Store {
    /// The stored weights of some of a tensor's rows; `buffer` is room for those that are on disk.
    pub(crate) fn read<'a>(
        &'a self,
        matrix: &Matrix,
        rows: Range<usize>,
        buffer: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], ModelError> {
        let (start, row) = (matrix.range.start, matrix.form.bytes(matrix.columns));
        let range = start + rows.start * row..(start + rows.end * row).min(matrix.range.end);
        self.bytes.read(range, buffer).map_err(|error| ModelError::Corrupt {
            file: self.file.clone(),
            reason: format!("it can no longer be read: {error}"),
        })
    }

    /// The tensor `name`, which must have this shape, as a matrix: all but the first dimension are its columns.
    pub(crate) fn matrix(&self, name: &str, shape: &[usize]) -> Result<Matrix, ModelError> {
        let entry = self.tensors.get(name).ok_or_else(|| ModelError::MissingTensor { name: name.to_string() })?;
        if entry.shape != shape {
            return Err(ModelError::Shape {
                name: name.to_string(),
                expected: shape.to_vec(),
                found: entry.shape.clone(),
            });
        }
        let form = match &entry.form {
            Ok(form) if *form != Form::Q8_0 || shape.len() == 2 => *form,
            Ok(form) => {
                return Err(ModelError::Form { name: name.to_string(), found: form.name().to_string() });
            }
            Err(found) => return Err(ModelError::Form { name: name.to_string(), found: found.clone() }),
        };
        let rows = shape.first().copied().unwrap_or(1);
        let columns = shape.iter().skip(1).product();
        Ok(Matrix { form, rows, columns, range: entry.range.clone() })
    }

    /// Bytes of all tensors.
    pub(crate) fn tensor_bytes(&self) -> usize {
        self.tensors.values().map(|entry| entry.range.len()).sum()
    }

    /// Files a tensor whose bytes start at `offset`, all checked.
    fn insert(
        &mut self,
        name: &str,
        form: Result<Form, String>,
        shape: Vec<usize>,
        offset: u64,
    ) -> Result<(), ModelError> {
        let corrupt = |reason: String| ModelError::Corrupt { file: self.file.clone(), reason };
        let size = match &form {
            Ok(form) => form.checked_bytes(&shape).ok_or_else(|| {
                corrupt(format!("tensor `{name}` has shape {shape:?}, which no {} tensor can have", form.name()))
            })?,
            Err(_) => 0,
        };
        let length = usize::try_from(self.bytes.len()).unwrap_or(usize::MAX);
        let range = usize::try_from(offset)
            .ok()
            .and_then(|start| Some(start..start.checked_add(size)?))
            .filter(|range| range.end <= length)
            .ok_or_else(|| {
                corrupt(format!("tensor `{name}` takes {size} bytes at offset {offset}, the file has {length}"))
            })?;
        if self.tensors.insert(name.to_string(), Entry { form, shape, range }).is_some() {
            return Err(corrupt(format!("tensor `{name}` is there twice")));
        }
        Ok(())
    }

    /// No two tensors share a byte.
    fn check_overlap(&self) -> Result<(), ModelError> {
        let mut ranges: Vec<_> = self.tensors.iter().map(|(name, entry)| (&entry.range, name)).collect();
        ranges.retain(|(range, _)| !range.is_empty());
        ranges.sort_by_key(|(range, _)| range.start);
        for pair in ranges.windows(2) {
            if let [(a, a_name), (b, b_name)] = pair
                && a.end > b.start
            {
                let reason = format!("tensors `{a_name}` and `{b_name}` overlap at byte {}", b.start);
                return Err(ModelError::Corrupt { file: self.file.clone(), reason });
            }
        }
        Ok(())
    }
}

/// Whether a file starts as GGUF does.
pub(crate) fn is_gguf(bytes: &[u8]) -> bool {
    bytes.starts_with(b"GGUF")
}

/// Reads a GGUF file from disk.
pub(crate) fn gguf(path: &Path) -> Result<Container, ModelError> {
    let bytes = Bytes::open(path).map_err(|source| ModelError::Read { path: path.to_path_buf(), source })?;
    gguf::read(&path.display().to_string(), bytes)
}

/// Reads a GGUF file from memory.
pub(crate) fn gguf_bytes(file: &str, bytes: Vec<u8>) -> Result<Container, ModelError> {
    gguf::read(file, Bytes::Owned(bytes))
}

/// Reads a GGUF file that lives as long as the program, borrowing its weights.
pub(crate) fn gguf_static(file: &str, bytes: &'static [u8]) -> Result<Container, ModelError> {
    gguf::read(file, Bytes::Static(bytes))
}

/// Reads a safetensors file from disk.
pub(crate) fn safetensors(path: &Path) -> Result<Store, ModelError> {
    let bytes = Bytes::open(path).map_err(|source| ModelError::Read { path: path.to_path_buf(), source })?;
    safetensors::read(&path.display().to_string(), bytes)
}
