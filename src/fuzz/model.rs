//! Models that somebody wrote wrongly, or on purpose.

use std::collections::BTreeMap;
use std::sync::Arc;

use arbitrary::{Result, Unstructured};

use super::on_disk;
use crate::asr::whisper::{WhisperDecoder, WhisperModel};
use crate::asr::{Cancel, DecodeJob, Decoder as _, JobId};
use crate::config::LanguageSetting;

/// Changes made to one model.
const MOST_EDITS: usize = 16;
/// Changes at the beginning of a file are in this much of it: where headers are.
const HEADER: u32 = 4096;

/// A model's files by their names. The first is what is loaded; one with the name `.` stands for the folder.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Changes one of `models` as `data` says, loads it, and where that goes well lets it hear something.
///
/// # Panics
/// Where loading or decoding does.
pub fn model(data: &[u8], models: &[Files]) {
    let mut u = Unstructured::new(data);
    // Where the bytes are over, so are the changes.
    let Ok(model) = u.choose(models) else { return };
    let mut files = model.clone();
    for _ in 0..MOST_EDITS {
        if u.is_empty() || edit(&mut u, &mut files).is_err() {
            break;
        }
    }
    let named: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])).collect();
    on_disk(&named, |folder| match &named[..] {
        [(name, _)] => load(&folder.join(name)),
        _ => load(folder),
    });
}

fn load(path: &std::path::Path) {
    let model = match WhisperModel::load(path) {
        Ok(model) => model,
        Err(error) => {
            let text = error.to_string();
            assert!(
                text.len() < 4000,
                "an error of {} bytes: {}",
                text.len(),
                text.chars().take(400).collect::<String>()
            );
            return;
        }
    };
    let samples: Vec<f32> = (0..8000).map(|i| ((i * 37 % 200) as f32 - 100.0) / 200.0).collect();
    let job = DecodeJob::new(JobId(0), samples.into(), LanguageSetting::default());
    // What a model without sense says, if anything, is not looked at.
    let _ = WhisperDecoder::new(Arc::new(model)).decode(&job, &Cancel::new());
}

fn edit(u: &mut Unstructured<'_>, files: &mut Files) -> Result<()> {
    let which = u.choose_index(files.len())?;
    let Some(file) = files.values_mut().nth(which) else { return Ok(()) };
    let how = u.int_in_range(0..=7u8)?;
    let place = if u.ratio(1, 4)? { u.arbitrary::<u32>()? } else { u.int_in_range(0..=HEADER)? };
    let place = place as usize % (file.len() + 1);
    let count = usize::from(u.arbitrary::<u8>()?);
    match how {
        0 => file.truncate(place),
        1 => drop(file.drain(place..(place + count).min(file.len()))),
        2 => {
            let bytes = u.bytes(count.min(u.len()))?;
            drop(file.splice(place..place, bytes.iter().copied()));
        }
        // A number as headers have them.
        3 | 4 => {
            let number = if u.arbitrary()? { u.arbitrary::<u64>()? } else { u.arbitrary::<u32>()?.into() };
            let width = if how == 3 { 4 } else { 8 };
            let bytes = number.to_le_bytes();
            file.iter_mut().skip(place).zip(&bytes[..width]).for_each(|(byte, new)| *byte = *new);
        }
        5 => file.clear(),
        _ => {
            let bytes = u.bytes((count / 16).min(u.len()))?;
            file.iter_mut().skip(place).zip(bytes).for_each(|(byte, new)| *byte = *new);
        }
    }
    Ok(())
}
