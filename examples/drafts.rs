//! What drafts save: every recording as a live caption that is decoded each second, and the final with and without the
//! last interim's tokens as its draft.
//!
//! `drafts MODEL FOLDER [LANGUAGE]`: all FLAC files of the folder, 16 kHz mono. One thread. Prints the network's time in
//! the decoder for all finals, with and without, and fails where a text differs.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use cuewire::asr::whisper::{CpuForward, CrossAttention, Forward, Step, WhisperDecoder, WhisperModel};
use cuewire::asr::{Cancel, DecodeError, DecodeJob, Decoder, JobId};
use cuewire::audio::file::AudioFile;
use cuewire::config::LanguageSetting;

const SECOND: usize = 16_000;

/// Adds up the time in the decoder.
struct Timed(CpuForward, Arc<AtomicU64>);

impl Forward for Timed {
    fn positions(&self, samples: usize) -> Option<usize> {
        self.0.positions(samples)
    }
    fn encode(&mut self, segment: usize, mel: &[f32], positions: usize, cancel: &Cancel) -> Result<(), DecodeError> {
        self.0.encode(segment, mel, positions, cancel)
    }
    fn decode(
        &mut self,
        steps: &[Step<'_>],
        vocabulary: usize,
        logits: &mut Vec<f32>,
        attention: Option<&mut CrossAttention>,
    ) -> Result<(), DecodeError> {
        let start = Instant::now();
        let result = self.0.decode(steps, vocabulary, logits, attention);
        self.1.fetch_add(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        result
    }
    fn position(&self, segment: usize) -> usize {
        self.0.position(segment)
    }
    fn rewind(&mut self, segment: usize, position: usize) {
        self.0.rewind(segment, position);
    }
}

fn read(path: &Path) -> Result<Vec<f32>, Box<dyn Error>> {
    let mut file = AudioFile::open(path)?;
    let mut samples = Vec::new();
    while let Some(block) = file.next_block()? {
        if (block.sample_rate, block.channels) != (16_000, 1) {
            return Err(format!("{}: 16 kHz mono is expected", path.display()).into());
        }
        samples.extend_from_slice(block.samples);
    }
    Ok(samples)
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(model), Some(folder)) = (args.next(), args.next()) else {
        return Err("give a model and a folder of FLAC files: drafts MODEL FOLDER [LANGUAGE]".into());
    };
    let language = LanguageSetting::Fixed(args.next().as_deref().unwrap_or("en").parse()?);
    let model = Arc::new(WhisperModel::load(model)?);
    let nanos = Arc::new(AtomicU64::new(0));
    let forward = Timed(CpuForward::new(model.clone()), nanos.clone());
    let mut decoder = WhisperDecoder::with_forward(model, forward);
    let mut decode = |audio: &[f32], draft: &[u32]| -> Result<_, DecodeError> {
        let mut job = DecodeJob::new(JobId(0), audio.into(), language);
        job.draft = draft.into();
        let before = nanos.load(Ordering::Relaxed);
        let found = decoder.decode(&job, &Cancel::new())?;
        Ok((found, nanos.load(Ordering::Relaxed) - before))
    };
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|e| e == "flac"));
    files.sort();
    let (mut with, mut without, mut differing) = (0, 0, 0);
    for path in &files {
        let samples = read(path)?;
        let mut draft = Vec::new();
        for end in (SECOND..samples.len()).step_by(SECOND) {
            let (found, _) = decode(&samples[..end], &draft)?;
            if found.suppressed.is_none() {
                draft = found.tokens;
            }
        }
        let (plain, plain_nanos) = decode(&samples, &[])?;
        let (drafted, drafted_nanos) = decode(&samples, &draft)?;
        without += plain_nanos;
        with += drafted_nanos;
        if plain != drafted {
            differing += 1;
            eprintln!("{}: \"{}\" became \"{}\"", path.display(), plain.text, drafted.text);
        }
    }
    println!(
        "{} recordings: finals take {:.1} ms of the decoder without drafts, {:.1} ms with them ({:.0} %); {differing} differ",
        files.len(),
        without as f64 / 1e6,
        with as f64 / 1e6,
        100.0 * with as f64 / without.max(1) as f64,
    );
    Ok(if differing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
