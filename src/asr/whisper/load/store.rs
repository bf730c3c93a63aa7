//! Tensors as they are stored: blobs of bytes and an index into them.
//!
//! In: names, forms, shapes and places, from a container's header. Out: [`Store`], whose tensors are checked byte ranges
//! and are read when they are asked for. Sizes are believed only after they were checked against the file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::form::Form;
use crate::asr::whisper::error::ModelError;

/// Where a tensor lies.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// `Err` with its name for what this crate does not read.
    pub(super) form: Result<Form, String>,
    pub(super) shape: Vec<usize>,
    file: usize,
    pub(super) range: Range<usize>,
    /// Of [`Form::Int8`]: a single-precision number for each row.
    scales: Range<usize>,
}

impl Entry {
    /// Some of its rows as a tensor of their own; `None` where it has not so many.
    pub(super) fn rows(&self, rows: Range<usize>) -> Option<Self> {
        let all = *self.shape.first()?;
        if rows.start > rows.end || rows.end > all {
            return None;
        }
        let mut part = self.clone();
        part.shape[0] = rows.len();
        // A tensor that cannot be read has no bytes to share out.
        if self.form.is_ok() && all > 0 {
            let row = self.range.len() / all;
            part.range = self.range.start + rows.start * row..self.range.start + rows.end * row;
        }
        if !self.scales.is_empty() {
            part.scales = self.scales.start + rows.start * 4..self.scales.start + rows.end * 4;
        }
        Some(part)
    }

    /// The same with the scales of another tensor, single-precision numbers, one a row; `None` where they do not fit.
    pub(super) fn scaled(mut self, scales: &Self) -> Option<Self> {
        let fits = scales.form == Ok(Form::F32)
            && scales.file == self.file
            && scales.shape.iter().product::<usize>() == *self.shape.first()?;
        self.scales = scales.range.clone();
        fits.then_some(self)
    }
}

/// A tensor seen as a matrix, its range checked.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    pub(crate) form: Form,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    file: usize,
    range: Range<usize>,
    scales: Range<usize>,
}

/// The bytes of a file, wherever they are.
pub(super) enum Bytes {
    Owned(Vec<u8>),
    Static(&'static [u8]),
    /// Locked for the time of a seek and a read.
    File(Mutex<File>, u64),
}

impl Bytes {
    pub(super) fn open(path: &Path) -> Result<Self, ModelError> {
        let failed = |source| ModelError::Read { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        Ok(Self::File(Mutex::new(file), length))
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Owned(bytes) => bytes.len() as u64,
            Self::Static(bytes) => bytes.len() as u64,
            Self::File(_, length) => *length,
        }
    }

    /// The bytes of a range that lies within, in `buffer` where they are on disk.
    pub(super) fn read<'a>(&'a self, range: Range<usize>, buffer: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
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

/// Reads a header that is not known to end anywhere: nothing is allocated before the file was seen to be long enough.
pub(super) struct Scan<'a> {
    bytes: &'a Bytes,
    at: usize,
    length: usize,
    window: Vec<u8>,
    start: usize,
}

/// Bytes read ahead.
const AHEAD: usize = 1 << 16;

impl<'a> Scan<'a> {
    pub(super) fn new(bytes: &'a Bytes) -> Self {
        Self::within(bytes, usize::MAX)
    }

    /// Of the first `most` bytes.
    pub(super) fn within(bytes: &'a Bytes, most: usize) -> Self {
        let length = usize::try_from(bytes.len()).unwrap_or(usize::MAX).min(most);
        Self { bytes, at: 0, length, window: Vec::new(), start: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn left(&self) -> usize {
        self.length - self.at
    }

    /// Goes on `count` bytes later.
    pub(super) fn skip(&mut self, count: usize) -> Result<(), String> {
        if count > self.left() {
            return Err(format!("it ends early: {count} bytes are announced, {} are left", self.left()));
        }
        self.at += count;
        Ok(())
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&[u8], String> {
        let from = self.at;
        self.skip(count)?;
        if from < self.start || self.at > self.start + self.window.len() {
            let range = from..(from + count.max(AHEAD)).min(self.length);
            self.start = from;
            let mut buffer = Vec::new();
            let read = self.bytes.read(range, &mut buffer).map_err(|e| format!("it cannot be read: {e}"))?;
            if matches!(self.bytes, Bytes::File(..)) {
                self.window = buffer;
            } else {
                self.window.clear();
                self.window.extend_from_slice(read);
            }
        }
        Ok(&self.window[from - self.start..from - self.start + count])
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut number = [0; N];
        number.copy_from_slice(self.take(N)?);
        Ok(number)
    }

    pub(super) fn u8(&mut self) -> Result<u8, String> {
        self.number::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, String> {
        self.number().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, String> {
        self.number().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, String> {
        self.number().map(u64::from_le_bytes)
    }

    /// A length of 64 bits; what is longer than any memory is longer than the file too.
    pub(super) fn length(&mut self) -> Result<usize, String> {
        self.u64().map(|length| usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// A count or size, which no file has negative.
    pub(super) fn count(&mut self) -> Result<usize, String> {
        let count = self.number().map(i32::from_le_bytes)?;
        usize::try_from(count).map_err(|_| format!("it announces a count of {count}"))
    }
}

/// All tensors of a model, in the form they are stored.
pub(crate) struct Store {
    /// Names in messages, and contents.
    files: Vec<(String, Bytes)>,
    tensors: BTreeMap<String, Entry>,
}

impl Store {
    /// Of one file, without tensors yet.
    pub(super) fn new(file: &str, bytes: Bytes) -> Self {
        Self { files: vec![(file.to_string(), bytes)], tensors: BTreeMap::new() }
    }

    /// The bytes of its first file.
    pub(super) fn bytes(&self) -> &Bytes {
        &self.files[0].1
    }

    /// The stored weights of some of a tensor's rows, each `form.bytes(columns)` long; `buffer` is room for those that
    /// are not in memory as they are asked for.
    pub(crate) fn read<'a>(
        &'a self,
        matrix: &Matrix,
        rows: Range<usize>,
        buffer: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], ModelError> {
        let (name, bytes) = &self.files[matrix.file];
        let corrupt = |error: io::Error| ModelError::Corrupt {
            file: name.clone(),
            reason: format!("it can no longer be read: {error}"),
        };
        let within =
            |all: &Range<usize>, row: usize| all.start + rows.start * row..(all.start + rows.end * row).min(all.end);
        if matrix.form != Form::Int8 {
            let row = matrix.form.bytes(matrix.columns);
            return bytes.read(within(&matrix.range, row), buffer).map_err(corrupt);
        }
        let (mut scales, mut weights) = (Vec::new(), Vec::new());
        let scales = bytes.read(within(&matrix.scales, 4), &mut scales).map_err(corrupt)?;
        let weights = bytes.read(within(&matrix.range, matrix.columns), &mut weights).map_err(corrupt)?;
        buffer.clear();
        for (scale, row) in scales.chunks_exact(4).zip(weights.chunks_exact(matrix.columns.max(1))) {
            buffer.extend_from_slice(scale);
            buffer.extend_from_slice(row);
        }
        Ok(buffer)
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
            Ok(form) => *form,
            Err(found) => return Err(ModelError::Form { name: name.to_string(), found: found.clone() }),
        };
        let fits = match form {
            Form::Int8 => shape.len() >= 2 && entry.scales.len() == shape[0] * 4,
            form => form.block().is_none() || shape.len() == 2,
        };
        if !fits {
            return Err(ModelError::Form { name: name.to_string(), found: form.name().to_string() });
        }
        let rows = shape.first().copied().unwrap_or(1);
        let columns = shape.iter().skip(1).product();
        let (file, range, scales) = (entry.file, entry.range.clone(), entry.scales.clone());
        Ok(Matrix { form, rows, columns, file, range, scales })
    }

    /// Bytes of all tensors.
    pub(crate) fn tensor_bytes(&self) -> usize {
        self.tensors.values().map(|entry| entry.range.len() + entry.scales.len()).sum()
    }

    /// The shape of a tensor.
    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|entry| entry.shape.as_slice())
    }

    /// A tensor of the first file whose bytes start at `offset`, all checked.
    pub(super) fn entry(
        &self,
        name: &str,
        form: Result<Form, String>,
        shape: Vec<usize>,
        offset: usize,
    ) -> Result<Entry, ModelError> {
        let size = match &form {
            Ok(form) => form.stored(&shape).ok_or_else(|| {
                self.corrupt(format!("tensor `{name}` has shape {shape:?}, which no {} tensor can have", form.name()))
            })?,
            Err(_) => 0,
        };
        let length = usize::try_from(self.bytes().len()).unwrap_or(usize::MAX);
        let end = offset.checked_add(size).filter(|end| *end <= length).ok_or_else(|| {
            self.corrupt(format!("tensor `{name}` takes {size} bytes at offset {offset}, the file has {length}"))
        })?;
        Ok(Entry { form, shape, file: 0, range: offset..end, scales: 0..0 })
    }

    /// Files a tensor of the first file.
    pub(super) fn insert(&mut self, name: &str, entry: Entry) -> Result<(), ModelError> {
        if self.tensors.insert(name.to_string(), entry).is_some() {
            return Err(self.corrupt(format!("tensor `{name}` is there twice")));
        }
        Ok(())
    }

    /// Takes over the files and tensors of another.
    pub(super) fn merge(&mut self, other: Self) -> Result<(), ModelError> {
        let first = self.files.len();
        self.files.extend(other.files);
        for (name, mut entry) in other.tensors {
            entry.file += first;
            if self.tensors.insert(name.clone(), entry).is_some() {
                let file = self.files[first].0.clone();
                let reason = format!("tensor `{name}` is there and in another file of the model");
                return Err(ModelError::Corrupt { file, reason });
            }
        }
        Ok(())
    }

    /// Says what contradicts what in the first file.
    pub(super) fn corrupt(&self, reason: String) -> ModelError {
        ModelError::Corrupt { file: self.files[0].0.clone(), reason }
    }

    /// No two tensors share a byte.
    pub(super) fn check_overlap(&self) -> Result<(), ModelError> {
        let mut ranges: Vec<_> = self.tensors.iter().map(|(name, entry)| (&entry.range, name)).collect();
        ranges.retain(|(range, _)| !range.is_empty());
        ranges.sort_by_key(|(range, _)| range.start);
        for pair in ranges.windows(2) {
            if let [(a, a_name), (b, b_name)] = pair
                && a.end > b.start
            {
                let reason = format!("tensors `{a_name}` and `{b_name}` overlap at byte {}", b.start);
                return Err(self.corrupt(reason));
            }
        }
        Ok(())
    }
}
