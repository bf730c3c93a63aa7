//! Recordings of any bytes, read as a file and as a pipe.

use std::io::Cursor;

use super::on_disk;
use crate::audio::file::{AudioFile, FileError, MAX_CHANNELS, MAX_SAMPLE_RATE, MIN_SAMPLE_RATE};

/// As much is read of one recording: a small file may be hours of silence.
const MOST_SAMPLES: usize = 1 << 22;

/// Reads `data` as a recording.
///
/// # Panics
/// Where a block is empty, torn, or holds what is no number, or where something comes behind an error.
pub fn audio(data: &[u8]) {
    read(AudioFile::from_reader("fuzz", Box::new(Cursor::new(data.to_vec()))));
    // Only in a file can a reader go back and forth.
    on_disk(&[("recording", data)], |folder| read(AudioFile::open(&folder.join("recording"))));
}

fn read(file: Result<AudioFile, FileError>) {
    let Ok(mut file) = file else { return };
    let mut samples = 0;
    while samples < MOST_SAMPLES {
        match file.next_block() {
            Ok(Some(block)) => {
                assert!(!block.samples.is_empty(), "a block is never empty");
                assert!((1..=MAX_CHANNELS).contains(&block.channels), "{} channels", block.channels);
                let rates = MIN_SAMPLE_RATE..=MAX_SAMPLE_RATE;
                assert!(rates.contains(&block.sample_rate), "{} Hz", block.sample_rate);
                assert_eq!(block.samples.len() % block.channels, 0, "a block is whole frames");
                assert!(block.samples.iter().all(|sample| sample.is_finite()), "samples are numbers");
                samples += block.samples.len();
            }
            Ok(None) => return,
            Err(_) => {
                assert!(matches!(file.next_block(), Ok(None)), "nothing comes behind an error");
                return;
            }
        }
    }
}
