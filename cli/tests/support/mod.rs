//! The binary, and what is given to it.
#![allow(dead_code, clippy::unwrap_used, reason = "each test uses some of it, and fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A recording of a sentence and its end.
pub(crate) const GREETING: &str = "speech/en-agent-alreadyon.flac";
/// An address where nobody listens: a port that no socket has which asked for any.
pub(crate) const UNREACHABLE: &str = "127.0.0.1:1";

pub(crate) fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata").join(name)
}

pub(crate) fn cuewire() -> Command {
    Command::new(env!("CARGO_BIN_EXE_cuewire"))
}

/// Runs to the end; gives exit code, standard output, standard error.
pub(crate) fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// 16-bit mono samples of a test recording, and their rate.
pub(crate) fn pcm(name: &str) -> (u32, Vec<i16>) {
    let mut file = cuewire::audio::file::AudioFile::open(&testdata(name)).unwrap();
    let (rate, mut samples) = (file.sample_rate(), Vec::new());
    while let Some(block) = file.next_block().unwrap() {
        samples.extend(block.samples.iter().map(|x| (x * 32_768.0).clamp(-32_768.0, 32_767.0) as i16));
    }
    (rate, samples)
}
