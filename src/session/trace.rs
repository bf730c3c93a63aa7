//! A session's inputs, written down and played back.
//!
//! In: a session and its inputs. Out: a trace — one JSON object a line, the settings first, then every input in order —
//! and from a trace the same session again: the same inputs give the same outputs.

use std::io::{BufRead, Read as _, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use super::{Input, InputError, Output, Session};
use crate::asr::{DecodeError, Hypothesis, JobId};
use crate::audio::{Pcm, PcmError, Samples};
use crate::config::Config;
use crate::time::Timestamp;
use crate::vad::{Vad, detector};

/// Version of the format, in the first line.
const VERSION: u32 = 1;
/// Longest line read or written: some minutes of stereo audio in one push.
const MAX_LINE_BYTES: usize = 64 << 20;

/// A trace could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// Reading or writing failed.
    #[error("trace: {0}")]
    Io(#[from] std::io::Error),
    /// A line is not what a trace holds there.
    #[error("trace, line {line}: {reason}")]
    Malformed {
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// The push is larger than a line of a trace may be (64 MiB).
    #[error("a push of {0} bytes is too large for a trace: push less at a time")]
    TooLarge(usize),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    cuewire_trace: u32,
    speaker_id: String,
    config: Config,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Record {
    /// `pcm`: base64 of little-endian samples, interleaved.
    Audio {
        at: Timestamp,
        rate: u32,
        channels: usize,
        format: Format,
        pcm: String,
    },
    Lost {
        from: Timestamp,
        to: Timestamp,
    },
    Decoded {
        job: JobId,
        result: Result<Hypothesis, DecodeError>,
    },
    Configure(Config),
    Tick(Timestamp),
    Flush {},
    End {},
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    S16,
    F32,
}

/// Writes a session's inputs as they are given to it.
pub struct TraceWriter<W> {
    writer: W,
}

impl<W: Write> TraceWriter<W> {
    /// Begins the trace of a session that has taken no input yet. Its detector is not part of a trace: a session with
    /// one of its own is replayed by [`TraceReader::with_vad`].
    ///
    /// # Errors
    /// [`TraceError::Io`].
    pub fn new(mut writer: W, session: &Session) -> Result<Self, TraceError> {
        let header = Header {
            cuewire_trace: VERSION,
            speaker_id: session.speaker_id().to_string(),
            config: session.config().clone(),
        };
        write_line(&mut writer, &header)?;
        Ok(Self { writer })
    }

    /// Writes one input. Write it before the session takes it; one that the session refuses is refused in the replay too.
    ///
    /// # Errors
    /// [`TraceError::Io`], [`TraceError::TooLarge`].
    pub fn record(&mut self, input: &Input<'_>) -> Result<(), TraceError> {
        let record = match input {
            Input::Audio { at, pcm } => {
                let (format, bytes) = to_bytes(pcm);
                if bytes.len() > MAX_LINE_BYTES / 2 {
                    return Err(TraceError::TooLarge(bytes.len()));
                }
                Record::Audio { at: *at, rate: pcm.rate(), channels: pcm.channels(), format, pcm: BASE64.encode(bytes) }
            }
            Input::Lost { from, to } => Record::Lost { from: *from, to: *to },
            Input::Decoded { job, result } => Record::Decoded { job: *job, result: result.clone() },
            Input::Configure(config) => Record::Configure(config.clone()),
            Input::Tick(now) => Record::Tick(*now),
            Input::Flush => Record::Flush {},
            Input::End => Record::End {},
        };
        write_line(&mut self.writer, &record)
    }

    /// Hands everything recorded so far on to the system.
    ///
    /// # Errors
    /// [`TraceError::Io`].
    pub fn flush(&mut self) -> Result<(), TraceError> {
        Ok(self.writer.flush()?)
    }

    /// The writer.
    pub fn into_inner(self) -> W {
        self.writer
    }
}

fn write_line(writer: &mut impl Write, value: &impl Serialize) -> Result<(), TraceError> {
    serde_json::to_writer(&mut *writer, value).map_err(std::io::Error::from)?;
    writer.write_all(b"\n")?;
    Ok(())
}

/// Plays a trace.
pub struct TraceReader<R> {
    reader: R,
    line: u64,
    session: Session,
}

impl<R: BufRead> TraceReader<R> {
    /// Reads the beginning of a trace and sets up its session, with the voice activity detector of sessions that bring none.
    ///
    /// # Errors
    /// [`TraceError`] where this is no trace, or one of another version.
    pub fn new(reader: R) -> Result<Self, TraceError> {
        Self::with_vad(reader, |config| detector(config.vad_mode))
    }

    /// [`TraceReader::new`] with the detector that the session had.
    ///
    /// # Errors
    /// As [`TraceReader::new`].
    pub fn with_vad(reader: R, vad: impl FnOnce(&Config) -> Box<dyn Vad>) -> Result<Self, TraceError> {
        let mut this = Self { reader, line: 0, session: Session::new("", Config::default()) };
        let Some(header) = this.read_line::<Header>()? else { return Err(this.malformed("the file is empty")) };
        if header.cuewire_trace != VERSION {
            return Err(this.malformed(format!("version {} is not understood, {VERSION} is", header.cuewire_trace)));
        }
        let vad = vad(&header.config);
        this.session = Session::with_vad(&header.speaker_id, header.config, vad);
        Ok(this)
    }

    /// Gives the session its next input, and `on_output` everything that follows from it. `false` at the end of the
    /// trace; the answer of the session where it refused the input.
    ///
    /// # Errors
    /// [`TraceError`] where the trace is damaged.
    pub fn step(&mut self, mut on_output: impl FnMut(Output)) -> Result<Option<Result<(), InputError>>, TraceError> {
        let Some(record) = self.read_line::<Record>()? else { return Ok(None) };
        let answer = match record {
            Record::Audio { at, rate, channels, format, pcm } => {
                let bytes = BASE64.decode(pcm).map_err(|error| self.malformed(error))?;
                let samples = from_bytes(format, &bytes).ok_or_else(|| self.malformed("a torn sample"))?;
                let pcm = samples.pcm(rate, channels).map_err(|error| self.malformed(error))?;
                self.session.handle_input(Input::Audio { at, pcm })
            }
            Record::Lost { from, to } => self.session.handle_input(Input::Lost { from, to }),
            Record::Decoded { job, result } => self.session.handle_input(Input::Decoded { job, result }),
            Record::Configure(config) => self.session.handle_input(Input::Configure(config)),
            Record::Tick(now) => self.session.handle_input(Input::Tick(now)),
            Record::Flush {} => self.session.handle_input(Input::Flush),
            Record::End {} => self.session.handle_input(Input::End),
        };
        loop {
            let output = self.session.poll_output();
            let wait = matches!(output, Output::Wait(_));
            on_output(output);
            if wait {
                return Ok(Some(answer));
            }
        }
    }

    /// The session, as far as it was played.
    pub fn session(&self) -> &Session {
        &self.session
    }

    fn read_line<T: for<'de> Deserialize<'de>>(&mut self) -> Result<Option<T>, TraceError> {
        self.line += 1;
        let mut line = Vec::new();
        (&mut self.reader).take(MAX_LINE_BYTES as u64).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        if line.pop() != Some(b'\n') {
            return Err(self.malformed("the line does not end"));
        }
        serde_json::from_slice(&line).map(Some).map_err(|error| self.malformed(error))
    }

    fn malformed(&self, reason: impl ToString) -> TraceError {
        TraceError::Malformed { line: self.line, reason: reason.to_string() }
    }
}

/// Planar audio is written interleaved: it mixes to the same samples.
fn to_bytes(pcm: &Pcm<'_>) -> (Format, Vec<u8>) {
    let frames = 0..pcm.frames();
    match pcm.samples() {
        Samples::I16(s) => (Format::S16, s.iter().flat_map(|x| x.to_le_bytes()).collect()),
        Samples::F32(s) => (Format::F32, s.iter().flat_map(|x| x.to_le_bytes()).collect()),
        Samples::PlanarI16(planes) => {
            (Format::S16, frames.flat_map(|i| planes.iter().flat_map(move |p| p[i].to_le_bytes())).collect())
        }
        Samples::PlanarF32(planes) => {
            (Format::F32, frames.flat_map(|i| planes.iter().flat_map(move |p| p[i].to_le_bytes())).collect())
        }
    }
}

enum OwnedSamples {
    I16(Vec<i16>),
    F32(Vec<f32>),
}

impl OwnedSamples {
    fn pcm(&self, rate: u32, channels: usize) -> Result<Pcm<'_>, PcmError> {
        match self {
            Self::I16(s) => Pcm::interleaved(rate, channels, &s[..]),
            Self::F32(s) => Pcm::interleaved(rate, channels, &s[..]),
        }
    }
}

fn from_bytes(format: Format, bytes: &[u8]) -> Option<OwnedSamples> {
    Some(match format {
        Format::S16 => {
            let (samples, rest) = bytes.as_chunks::<2>();
            if !rest.is_empty() {
                return None;
            }
            OwnedSamples::I16(samples.iter().map(|x| i16::from_le_bytes(*x)).collect())
        }
        Format::F32 => {
            let (samples, rest) = bytes.as_chunks::<4>();
            if !rest.is_empty() {
                return None;
            }
            OwnedSamples::F32(samples.iter().map(|x| f32::from_le_bytes(*x)).collect())
        }
    })
}
