//! Recordings to samples, block by block: any container and codec, from a file or a pipe.
//!
//! In: a path, or bytes as they come. Out: [`AudioBlock`]s that begin with the recording's first sample and end with
//! its last, or a [`FileError`] that says what to do next.
//!
//! The encoder's delay and padding are cut off where the file tells them: MP3 with a LAME tag, MP4 with an edit list or
//! Apple's comment, Opus everywhere, Vorbis. Raw ADTS, MP3 without a LAME tag, and both of these codecs in Matroska do
//! not tell: they come about 1000 to 2100 samples late. WebM does not tell the end, which is up to two packets late.
//!
//! Time is contiguous: a bad packet between good ones, and a hole in the container's clock, become silence of their
//! length. Nothing is read ahead but the header, so a file of any length takes the same memory.

mod container;
mod error;
mod mp4;
mod riff;
mod source;
mod track;
mod trim;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use symphonia::core::errors::Error;
use symphonia::core::formats::{FormatReader, TrackType};

pub use container::{Container, FORMATS};
pub use error::{FileError, MAX_CHANNELS, MAX_SAMPLE_RATE, MIN_SAMPLE_RATE};

use source::Source;
use track::{Facts, Shape, Track};

/// So many bad packets in a row, and the rest of the file is given up: two seconds of Opus.
const MAX_BAD_PACKETS_IN_A_ROW: u32 = 100;
/// So many times in a row the container itself cannot be read, and the rest is given up.
const MAX_DEMUXER_ERRORS_IN_A_ROW: u32 = 16;
/// So many packets without a sound for this track, and the file is a trap: a video has some hundreds.
const MAX_PACKETS_WITHOUT_SOUND: u32 = 100_000;
/// Longest hole in the container's clock that becomes silence, in seconds; a longer one is a clock that jumped.
const MAX_HOLE_S: u64 = 600;
/// Most silence put into one file, in seconds: a small file must not become days of audio.
const MAX_SILENCE_S: u64 = 12 * 3600;

/// Some of the audio, in order and without gaps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AudioBlock<'a> {
    /// Rate in Hz. May change from block to block, in joined recordings.
    pub sample_rate: u32,
    /// Channel count. May change from block to block.
    pub channels: usize,
    /// Interleaved, `[frames, channels]`, never empty. Lossy codecs may pass ±1 a little; always finite.
    pub samples: &'a [f32],
}

impl AudioBlock<'_> {
    /// Samples of each channel.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.samples.len() / self.channels
    }
}

/// A recording that is decoded as it is read.
///
/// ```no_run
/// # fn main() -> Result<(), cuewire::audio::file::FileError> {
/// let mut file = cuewire::audio::file::AudioFile::open("call.m4a".as_ref())?;
/// while let Some(block) = file.next_block()? {
///     println!("{} frames at {} Hz", block.frames(), block.sample_rate);
/// }
/// # Ok(())
/// # }
/// ```
pub struct AudioFile {
    name: String,
    container: Container,
    format: Box<dyn FormatReader>,
    facts: Facts,
    track: Track,
    first: Shape,
    declared_frames: Option<u64>,
    /// What the next call returns.
    ahead: Ahead,
    block: Vec<f32>,
    shape: Shape,
    /// Decoded, behind some silence.
    waiting: Option<Shape>,
    next: Vec<f32>,
    silence_left: u64,
    over: bool,
    /// The stream ended inside a packet.
    cut: bool,
    frames: u64,
    silence_frames: u64,
    /// Frames of bad packets since the last good one.
    lost: u64,
    bad_packets: u64,
    bad_in_a_row: u32,
    /// Times that the demuxer found no packet.
    lost_in_a_row: u32,
    without_sound: u32,
    last_reason: String,
}

enum Ahead {
    Nothing,
    Block,
    End,
    Failed(FileError),
}

impl AudioFile {
    /// Opens the file and decodes its first block. A named pipe or a device is read as a pipe.
    ///
    /// # Errors
    /// Every [`FileError`] that concerns the file as a whole. What concerns only its end comes from
    /// [`next_block`](Self::next_block).
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let name = path.display().to_string();
        let source = File::open(path).and_then(|file| {
            if file.metadata()?.is_dir() {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            Source::file(file)
        });
        match source {
            Ok(source) => Self::new(name, source),
            Err(source) => Err(FileError::Open { name, source }),
        }
    }

    /// Reads a recording from a pipe, for example standard input; `name` is what messages call it. Waits for the first
    /// block.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`FileError::NeedsSeeking`] for an MP4 whose index comes last.
    pub fn from_reader(name: &str, reader: Box<dyn Read + Send + Sync>) -> Result<Self, FileError> {
        Self::new(name.to_owned(), Source::pipe(reader))
    }

    fn new(name: String, mut source: Source) -> Result<Self, FileError> {
        let unreadable = |source| FileError::Read { name: name.clone(), decoded_frames: 0, sample_rate: 0, source };
        let Some(container) = container::sniff(&mut source).map_err(unreadable)? else {
            let found = container::describe(&mut source).map_err(unreadable)?;
            return Err(FileError::NotAudio { name, found });
        };
        let mut facts = Facts::default();
        match container {
            Container::Wav => {
                let wav = riff::prepare(&mut source).map_err(unreadable)?;
                if let Some((channels, sample_rate)) = wav.shape {
                    let channels = usize::from(channels);
                    Shape { sample_rate, channels }.check(&name)?;
                    if channels > riff::MAX_WAV_CHANNELS {
                        let codec = format!("{channels} channels (of a WAV up to {} are read)", riff::MAX_WAV_CHANNELS);
                        return Err(FileError::UnsupportedCodec { name, container, codec });
                    }
                }
                facts.wav_length = wav.length;
            }
            Container::Mp4 => match mp4::index(&mut source).map_err(unreadable)? {
                mp4::Index::Found(edits) => facts.edits = edits,
                mp4::Index::BehindAudio => return Err(FileError::NeedsSeeking { name }),
                mp4::Index::Missing => {
                    let reason = "its index (moov) is missing, as when a recording is cut off before it is finished";
                    return Err(FileError::Header { name, container, reason: reason.to_owned() });
                }
            },
            _ => {}
        }
        // The others need no jumps. Those of MPEG and ADTS would guess a length, and those of AIFF and Matroska refuse
        // a file that was cut.
        source.seekable &= container.needs_jumps();
        let mut format =
            guard(|| container::demuxer(container, source)).map_err(|error| refused(&name, container, error))?;
        let track = Track::select(&name, container, format.as_mut(), &facts)?;
        let mut file = Self {
            name,
            container,
            format,
            facts,
            first: track.shape,
            shape: track.shape,
            declared_frames: track.declared_frames,
            track,
            ahead: Ahead::Nothing,
            block: Vec::new(),
            waiting: None,
            next: Vec::new(),
            silence_left: 0,
            over: false,
            cut: false,
            frames: 0,
            silence_frames: 0,
            lost: 0,
            bad_packets: 0,
            bad_in_a_row: 0,
            lost_in_a_row: 0,
            without_sound: 0,
            last_reason: String::new(),
        };
        file.ahead = match file.advance() {
            Ok(true) => Ahead::Block,
            Ok(false) => Ahead::End,
            // These concern the end of the audio, even if it is at its beginning.
            Err(error @ (FileError::Truncated { .. } | FileError::Corrupt { .. } | FileError::Read { .. })) => {
                Ahead::Failed(error)
            }
            Err(error) => return Err(error),
        };
        file.first = file.shape;
        if matches!(file.ahead, Ahead::Block) {
            file.first.check(&file.name)?;
        }
        Ok(file)
    }

    /// The next block, or `None` behind the last.
    ///
    /// # Errors
    /// [`FileError::Truncated`], [`FileError::Corrupt`] and [`FileError::Read`] after all audio that could be had, and
    /// [`FileError::Shape`] where the rate or the channel count changes to something that is not allowed. Behind an
    /// error comes `None`.
    pub fn next_block(&mut self) -> Result<Option<AudioBlock<'_>>, FileError> {
        let there = match std::mem::replace(&mut self.ahead, Ahead::Nothing) {
            Ahead::Nothing => self.advance()?,
            Ahead::Block => true,
            Ahead::End => false,
            Ahead::Failed(error) => return Err(error),
        };
        let Shape { sample_rate, channels } = self.shape;
        Ok(there.then_some(AudioBlock { sample_rate, channels, samples: &self.block }))
    }

    /// What messages call the file.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is.
    #[must_use]
    pub fn container(&self) -> Container {
        self.container
    }

    /// Channel count of the first block; as declared where there is none.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.first.channels
    }

    /// Rate of the first block in Hz; as declared where there is none.
    #[must_use]
    pub fn sample_rate(&self) -> u32 {
        self.first.sample_rate
    }

    /// Frames at [`sample_rate`](Self::sample_rate) that the container declares. For a progress bar: pipes often do not
    /// say, WebM counts in milliseconds and with all tracks, and of joined recordings only the first is counted.
    #[must_use]
    pub fn declared_frames(&self) -> Option<u64> {
        self.declared_frames
    }

    /// [`declared_frames`](Self::declared_frames) as time.
    #[must_use]
    pub fn declared_duration(&self) -> Option<Duration> {
        let nanos = u128::from(self.declared_frames?) * 1_000_000_000 / u128::from(self.first.sample_rate.max(1));
        u64::try_from(nanos).ok().map(Duration::from_nanos)
    }

    /// Packets that could not be decoded so far.
    #[must_use]
    pub fn bad_packets(&self) -> u64 {
        self.bad_packets
    }

    /// Frames of silence so far that stand for bad packets and for holes in the container's clock.
    #[must_use]
    pub fn silence_frames(&self) -> u64 {
        self.silence_frames
    }

    /// Puts the next block into `block`, or says that there is none.
    fn advance(&mut self) -> Result<bool, FileError> {
        while !self.over {
            if self.silence_left > 0 {
                // A tenth of a second at a time.
                let frames = self.silence_left.min(u64::from(self.shape.sample_rate) / 10 + 1);
                self.silence_left -= frames;
                self.block.clear();
                self.block.resize(frames as usize * self.shape.channels, 0.0);
            } else if let Some(shape) = self.waiting.take() {
                self.shape = shape;
                std::mem::swap(&mut self.block, &mut self.next);
            } else {
                let step = if self.track.trim.is_over() { Ok(false) } else { self.read_packet() };
                match step {
                    Ok(true) => {}
                    Ok(false) => {
                        self.over = true;
                        return self.check_end().map(|()| false);
                    }
                    Err(error) => {
                        self.over = true;
                        return Err(error);
                    }
                }
                continue;
            }
            self.track.trim.apply(&mut self.block, self.shape.channels);
            if !self.block.is_empty() {
                self.frames += (self.block.len() / self.shape.channels) as u64;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads and decodes one packet to `next`, with the silence that goes before it. False at the end.
    fn read_packet(&mut self) -> Result<bool, FileError> {
        let packet = match guard(|| self.format.next_packet()) {
            Ok(Some(packet)) => packet,
            Ok(None) => return Ok(false),
            Err(Error::IoError(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.cut = true;
                return Ok(false);
            }
            Err(Error::IoError(source)) => {
                return Err(FileError::Read {
                    name: self.name.clone(),
                    decoded_frames: self.frames,
                    sample_rate: self.shape.sample_rate,
                    source,
                });
            }
            Err(Error::ResetRequired) => {
                // Another recording was joined to the first.
                self.track = Track::select(&self.name, self.container, self.format.as_mut(), &self.facts)?;
                self.lost = 0;
                return Ok(true);
            }
            Err(error) => {
                // Some demuxers find the next packet again, others stay where they are.
                self.lost_in_a_row += 1;
                if self.lost_in_a_row == 1 {
                    self.bad_packet(0, error.to_string())?;
                } else if self.lost_in_a_row > MAX_DEMUXER_ERRORS_IN_A_ROW {
                    return Err(self.corrupt(error.to_string()));
                }
                return Ok(true);
            }
        };
        self.lost_in_a_row = 0;
        self.without_sound += 1;
        if self.without_sound > MAX_PACKETS_WITHOUT_SOUND {
            return Err(self.corrupt(format!("{MAX_PACKETS_WITHOUT_SOUND} packets without a sound")));
        }
        if packet.track_id != self.track.id {
            return Ok(true);
        }
        let shape = match self.track.decode(&packet, &mut self.next) {
            Ok(shape) => shape,
            Err(reason) => {
                let frames = self.track.frames_lost(&packet);
                self.bad_packet(frames, reason)?;
                return Ok(true);
            }
        };
        self.bad_in_a_row = 0;
        if self.next.is_empty() {
            return Ok(true);
        }
        shape.check(&self.name)?;
        self.without_sound = 0;
        if self.frames == 0 {
            self.shape = shape;
        }
        self.put_silence(&packet);
        self.track.elapse((self.next.len() / shape.channels) as u64);
        self.waiting = Some(shape);
        Ok(true)
    }

    /// Silence for what is missing before `packet`.
    fn put_silence(&mut self, packet: &symphonia::core::packet::Packet) {
        let rate = u64::from(self.shape.sample_rate);
        let missing = self.track.hole_before(self.container, packet).max(self.lost);
        self.lost = 0;
        if missing > MAX_HOLE_S * rate || self.silence_frames.saturating_add(missing) > MAX_SILENCE_S * rate {
            self.track.restart_clock();
            self.track.hole_before(self.container, packet);
            return;
        }
        self.silence_left = missing;
        self.silence_frames += missing;
        self.track.elapse(missing);
    }

    fn bad_packet(&mut self, frames: u64, reason: String) -> Result<(), FileError> {
        self.bad_packets += 1;
        self.bad_in_a_row += 1;
        self.lost = self.lost.saturating_add(frames);
        self.last_reason = reason;
        if self.bad_in_a_row > MAX_BAD_PACKETS_IN_A_ROW {
            return Err(self.corrupt(self.last_reason.clone()));
        }
        Ok(())
    }

    fn corrupt(&self, reason: String) -> FileError {
        FileError::Corrupt {
            name: self.name.clone(),
            decoded_frames: self.frames,
            sample_rate: self.shape.sample_rate,
            bad_packets: self.bad_packets,
            reason,
        }
    }

    /// Whether the end is where the container said it would be.
    fn check_end(&self) -> Result<(), FileError> {
        // How much may be missing, in frames: headers are written by many hands. `None` where a length is only a hint.
        let rate = u64::from(self.shape.sample_rate);
        let tolerance = match self.container {
            Container::Flac => Some(0),
            Container::Wav | Container::Aiff => Some(rate / 50),
            Container::Mp4 | Container::Mpeg => Some(2 * 2048),
            // The length is that of the longest track.
            Container::Matroska if self.cut && self.format.first_track(TrackType::Video).is_none() => Some(rate / 2),
            _ => None,
        };
        if let (Some(declared), Some(tolerance)) = (self.track.declared_frames, tolerance)
            && declared > self.frames.saturating_add(tolerance)
        {
            return Err(FileError::Truncated {
                name: self.name.clone(),
                declared_frames: declared,
                decoded_frames: self.frames,
                sample_rate: self.shape.sample_rate,
            });
        }
        if self.frames == 0 && self.bad_packets > 0 {
            return Err(self.corrupt(self.last_reason.clone()));
        }
        Ok(())
    }
}

impl fmt::Debug for AudioFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AudioFile")
            .field("name", &self.name)
            .field("container", &self.container)
            .field("first", &self.first)
            .field("frames", &self.frames)
            .finish_non_exhaustive()
    }
}

/// Calls the library. Hostile files make it panic in places (0.6.1: a Vorbis codebook with codewords of more than 32
/// bits); that is a damaged packet like any other. Demuxers and decoders hold nothing that outlives them.
fn guard<T>(call: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(call))
        .unwrap_or(Err(Error::DecodeError("the library gave up on it")))
}

/// Why the demuxer did not begin.
fn refused(name: &str, container: Container, error: Error) -> FileError {
    let name = name.to_owned();
    match error {
        Error::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            let reason = "it ends before its first sound, or holds only streams that are not understood".to_owned();
            FileError::Header { name, container, reason }
        }
        Error::IoError(source) => FileError::Read { name, decoded_frames: 0, sample_rate: 0, source },
        Error::Unsupported(what) if matches!(container, Container::Wav | Container::Aiff | Container::Adts) => {
            FileError::UnsupportedCodec { name, container, codec: format!("its encoding ({what})") }
        }
        error => FileError::Header { name, container, reason: error.to_string() },
    }
}
