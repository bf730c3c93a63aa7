//! A model as one file.
//!
//! In: a [`WhisperModel`] of any form. Out: a self-contained GGUF file with its weights, both configurations and the
//! tokenizer. The same model gives the same bytes.

use std::io::Write;

use super::error::ModelError;
use super::kernels::{self, Level, half};
use super::load::{BLOCK, CONFIG_KEY, Form, GENERATION_KEY, Matrix, TOKENIZER_KEY};
use super::model::WhisperModel;
use super::weights::{Role, Spec};

/// How the linear layers and the token embedding of a converted model are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quantization {
    /// Eight bits, with a scale for every 32 weights (ggml's q8_0).
    Q8_0,
    /// Half precision.
    F16,
}

/// Writes `model` as GGUF 3. Tensors keep their Hugging Face names. Norms and biases are f32, convolutions and
/// positions f16, all else as `quantization` says. Rows that are no multiple of 32 stay f16.
///
/// # Errors
/// [`ModelError::Weight`] where a weight is not finite or too large for its form; [`ModelError::Write`].
pub fn convert(model: &WhisperModel, quantization: Quantization, out: &mut impl Write) -> Result<(), ModelError> {
    let mut metadata = vec![("general.architecture", "whisper"), ("general.name", model.name.as_str())];
    metadata.push((CONFIG_KEY, &model.source.config));
    if let Some(generation) = &model.source.generation {
        metadata.push((GENERATION_KEY, generation));
    }
    metadata.push((TOKENIZER_KEY, &model.source.tokenizer));
    let forms: Vec<Form> = model.specs.iter().map(|spec| form(spec, quantization)).collect();
    let tensors: Vec<(&str, &[usize], Form)> =
        model.specs.iter().zip(&forms).map(|(spec, &form)| (spec.name.as_str(), spec.shape.as_slice(), form)).collect();
    let mut bytes = Vec::new();
    write_gguf(out, &metadata, &tensors, |index, out| {
        let spec = &model.specs[index];
        let stored = model.store.matrix(&spec.name, &spec.shape)?;
        bytes.clear();
        encode(model, spec, &stored, forms[index], &mut bytes)?;
        out.write_all(&bytes).map_err(ModelError::Write)
    })
}

fn form(spec: &Spec, quantization: Quantization) -> Form {
    match (spec.role, quantization) {
        (Role::Vector, _) => Form::F32,
        (Role::Linear, Quantization::Q8_0)
            if spec.shape.last().is_some_and(|columns| columns.is_multiple_of(BLOCK)) =>
        {
            Form::Q8_0
        }
        _ => Form::F16,
    }
}

/// Appends a tensor in another form.
fn encode(model: &WhisperModel, spec: &Spec, stored: &Matrix, form: Form, out: &mut Vec<u8>) -> Result<(), ModelError> {
    let mut buffer = Vec::new();
    let bytes = model.store.read(stored, 0..stored.rows, &mut buffer)?;
    if stored.form == form {
        out.extend_from_slice(bytes);
        return Ok(());
    }
    let mut row = vec![0.0; stored.columns];
    for (index, bytes) in bytes.chunks_exact(stored.form.bytes(stored.columns).max(1)).enumerate() {
        kernels::dequantise(Level::detect(), stored.form, bytes, &mut row);
        let most = if form == Form::Q8_0 { 127.0 * 65504.0 } else { 65504.0 };
        if let Some(&value) = row.iter().find(|v| !v.is_finite() || form != Form::F32 && v.abs() > most) {
            let (name, form) = (spec.name.clone(), form.name());
            return Err(ModelError::Weight { name, row: index, value, most, form });
        }
        match form {
            Form::F32 => out.extend(row.iter().flat_map(|v| v.to_le_bytes())),
            Form::F16 | Form::Bf16 => out.extend(row.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes())),
            // What `form` chooses beside these is q8_0.
            _ => quantise(&row, out),
        }
    }
    Ok(())
}

/// Appends a row as q8_0 blocks: each has its scale, the largest magnitude / 127 in half precision.
///
/// One scale a row of the encoder would let a row-wise kernel take the blocks as they are, but costs accuracy: Whisper
/// `base` over 384 utterances in five languages makes 446 word errors so, 427 with a scale a block, 427 in half precision.
fn quantise(row: &[f32], out: &mut Vec<u8>) {
    for block in row.chunks(BLOCK) {
        let most = block.iter().fold(0.0f32, |a, v| a.max(v.abs()));
        let stored = half::f16::from_f32(most / 127.0);
        // The scale as it will be read, so that rounding it costs nothing.
        let scale = half(stored.to_bits());
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        out.extend(stored.to_le_bytes());
        out.extend(block.iter().map(|v| (v * inverse).round().clamp(-127.0, 127.0) as i8 as u8));
    }
}

/// Alignment of tensors within the file, GGUF's default.
const ALIGNMENT: u64 = 32;

/// Writes a GGUF file: texts, then tensors in this order, each written by `data` (as many bytes as its form takes).
/// Layout: ggml, `docs/gguf.md`.
pub(crate) fn write_gguf<W: Write>(
    out: &mut W,
    texts: &[(&str, &str)],
    tensors: &[(&str, &[usize], Form)],
    mut data: impl FnMut(usize, &mut W) -> Result<(), ModelError>,
) -> Result<(), ModelError> {
    const TEXT: u32 = 8;
    let string = |header: &mut Vec<u8>, text: &str| {
        header.extend((text.len() as u64).to_le_bytes());
        header.extend(text.as_bytes());
    };
    let size = |shape: &[usize], form: Form| form.bytes(shape.iter().product()) as u64;
    let mut header = b"GGUF".to_vec();
    header.extend(3u32.to_le_bytes());
    header.extend((tensors.len() as u64).to_le_bytes());
    header.extend((texts.len() as u64).to_le_bytes());
    for (key, text) in texts {
        string(&mut header, key);
        header.extend(TEXT.to_le_bytes());
        string(&mut header, text);
    }
    let mut offset = 0u64;
    for (name, shape, form) in tensors {
        string(&mut header, name);
        header.extend((shape.len() as u32).to_le_bytes());
        for &d in shape.iter().rev() {
            header.extend((d as u64).to_le_bytes());
        }
        let kind = form.ggml().ok_or_else(|| ModelError::Form {
            name: (*name).to_string(),
            found: format!("{}, which GGUF has not", form.name()),
        })?;
        header.extend(kind.to_le_bytes());
        header.extend(offset.to_le_bytes());
        offset += size(shape, *form).next_multiple_of(ALIGNMENT);
    }
    header.resize(header.len().next_multiple_of(ALIGNMENT as usize), 0);
    out.write_all(&header).map_err(ModelError::Write)?;
    for (index, (_, shape, form)) in tensors.iter().enumerate() {
        data(index, out)?;
        let size = size(shape, *form);
        let padding = size.next_multiple_of(ALIGNMENT) - size;
        out.write_all(&[0; ALIGNMENT as usize][..padding as usize]).map_err(ModelError::Write)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bits_are_off_by_half_a_step() {
        let row: Vec<f32> = (0..128).map(|i| ((i * 37 % 101) as f32 / 50.0 - 1.0) * (1.0 + i as f32 / 16.0)).collect();
        let mut bytes = Vec::new();
        quantise(&row, &mut bytes);
        assert_eq!(bytes.len(), Form::Q8_0.bytes(row.len()));
        let mut back = vec![0.0; row.len()];
        kernels::dequantise(Level::detect(), Form::Q8_0, &bytes, &mut back);
        for (row, back) in row.chunks(BLOCK).zip(back.chunks(BLOCK)) {
            let step = row.iter().fold(0.0f32, |a, v| a.max(v.abs())) / 127.0;
            for (a, b) in row.iter().zip(back) {
                // Half a step, and what rounding the scale to 11 bits takes from the largest.
                assert!((a - b).abs() <= 0.57 * step, "{a} came back as {b}, a step is {step}");
            }
        }
        let mut zeros = Vec::new();
        quantise(&[0.0; 32], &mut zeros);
        assert_eq!(zeros, [0; 34]);
    }
}
