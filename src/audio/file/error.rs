//! What can be wrong with an audio file.
//!
//! In: the findings of the reader. Out: [`FileError`], sorted by what the caller does next.

use std::fmt;
use std::io;

use super::{Container, FORMATS};

/// Lowest sample rate that is read, in Hz.
pub const MIN_SAMPLE_RATE: u32 = 8_000;
/// Highest sample rate that is read, in Hz.
pub const MAX_SAMPLE_RATE: u32 = 192_000;
/// Most channels that are read.
pub const MAX_CHANNELS: usize = 64;

/// Why an audio file gives no audio, or no more of it.
///
/// The first group ends the matter: name another file, or tell the user. The last three come after audio was
/// returned, and that audio is good: keep it and note the error ([`keeps_audio`](Self::keeps_audio)).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// Correct the path or its permissions.
    #[error("cannot open {name}: {source}; a readable file is expected")]
    Open {
        /// The file.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// Name another file.
    #[error("{name} is not an audio file: {found}; understood are {FORMATS}")]
    NotAudio {
        /// The file.
        name: String,
        /// What its first bytes are instead.
        found: String,
    },
    /// Save the stream to a file first, or write it with its index in front.
    #[error(
        "{name} is an MP4 whose index (moov) comes after the audio, which cannot be read from a pipe; give it as a file, or \
         move the index to the front (ffmpeg -i in.m4a -c copy -movflags +faststart out.m4a)"
    )]
    NeedsSeeking {
        /// The stream.
        name: String,
    },
    /// Name another file.
    #[error("{name} ({container}) has no audio track; a file with sound is expected")]
    NoAudioTrack {
        /// The file.
        name: String,
        /// Its container.
        container: Container,
    },
    /// Convert the file.
    #[error("{name} ({container}): {codec} is not supported; convert it (ffmpeg -i in out.flac) to one of {FORMATS}")]
    UnsupportedCodec {
        /// The file.
        name: String,
        /// Its container.
        container: Container,
        /// The codec and, where known, which of its features.
        codec: String,
    },
    /// Convert the file.
    #[error(
        "{name} has {channels} channels at {sample_rate} Hz; 1 to {MAX_CHANNELS} channels at {MIN_SAMPLE_RATE} to \
         {MAX_SAMPLE_RATE} Hz are allowed"
    )]
    Shape {
        /// The file.
        name: String,
        /// Its channel count.
        channels: usize,
        /// Its sample rate, in Hz.
        sample_rate: u32,
    },
    /// Look for another copy of the file: nothing in it can be read.
    #[error("{name} ({container}) is damaged before its first sound: {reason}")]
    Header {
        /// The file.
        name: String,
        /// Its container.
        container: Container,
        /// What does not fit.
        reason: String,
    },

    /// Keep what was returned: the rest is not there.
    #[error(
        "{name} is truncated: it declares {} and ends after {}",
        Seconds(*declared_frames, *sample_rate),
        Seconds(*decoded_frames, *sample_rate)
    )]
    Truncated {
        /// The file.
        name: String,
        /// Frames that its header declares.
        declared_frames: u64,
        /// Frames that were returned.
        decoded_frames: u64,
        /// Their rate, in Hz.
        sample_rate: u32,
    },
    /// Keep what was returned: the rest cannot be decoded.
    #[error(
        "{name} is damaged after {}: {reason}; {bad_packets} packets could not be decoded",
        Seconds(*decoded_frames, *sample_rate)
    )]
    Corrupt {
        /// The file.
        name: String,
        /// Frames that were returned.
        decoded_frames: u64,
        /// Their rate, in Hz.
        sample_rate: u32,
        /// Bad packets in the whole file.
        bad_packets: u64,
        /// What was wrong with the last of them.
        reason: String,
    },
    /// Keep what was returned; the same file may be read again when the disk or network is well.
    #[error("cannot read {name} any further: {source}; {} were read", Seconds(*decoded_frames, *sample_rate))]
    Read {
        /// The file.
        name: String,
        /// Frames that were returned.
        decoded_frames: u64,
        /// Their rate, in Hz; 0 where the fault came before the first sound.
        sample_rate: u32,
        /// What the system said.
        source: io::Error,
    },
}

impl FileError {
    /// Whether audio came before this error and is good.
    #[must_use]
    pub fn keeps_audio(&self) -> bool {
        match self {
            Self::Truncated { decoded_frames, .. }
            | Self::Corrupt { decoded_frames, .. }
            | Self::Read { decoded_frames, .. } => *decoded_frames > 0,
            _ => false,
        }
    }
}

/// A length for a message, cut to milliseconds. (frames, Hz)
struct Seconds(u64, u32);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = u128::from(self.0) * 1000 / u128::from(self.1.max(1));
        write!(f, "{}.{:03} s", ms / 1000, ms % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_file_the_fault_and_what_is_allowed() {
        let name = || "call.wav".to_owned();
        for (error, parts) in [
            (
                FileError::Truncated {
                    name: name(),
                    declared_frames: 48_000 * 90 + 24_000,
                    decoded_frames: 48_017,
                    sample_rate: 48_000,
                },
                vec!["90.500 s", "1.000 s"],
            ),
            (
                FileError::Shape { name: name(), channels: 65, sample_rate: 4000 },
                vec!["65 channels", "4000 Hz", "1 to 64", "8000 to 192000"],
            ),
            (FileError::NotAudio { name: name(), found: "it is empty".to_owned() }, vec!["empty", "WAV", "WebM"]),
            (
                FileError::UnsupportedCodec { name: name(), container: Container::Mp4, codec: "AC-3".to_owned() },
                vec!["AC-3", "MP4", "FLAC"],
            ),
        ] {
            let message = error.to_string();
            assert!(message.contains("call.wav") && parts.iter().all(|part| message.contains(part)), "{message}");
        }
    }
}
