//! `cuewire live`: raw PCM in, events out, as they happen.
//!
//! The tracks of a stream share its clock, its pauses and the workers; each has a session of its own.

use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{after, at, never, select_biased};
use cuewire::audio::Pcm;
use cuewire::caption::CaptionEvent;
use cuewire::engine::{Answer, default_threads};
use cuewire::session::{Input, Session};
use cuewire::time::{Timestamp, nanos_of_samples};

use crate::args::{LiveArgs, SampleFormat};
use crate::recognizer::{Recognizer, Stopped, Track};
use crate::record::Record;
use crate::run::{Interrupt, drain, stdin_blocks, warn_of_failure};
use crate::{FAILED, Failure, INTERRUPTED, complain, model};

pub(crate) fn run(args: &LiveArgs) -> Result<ExitCode, Failure> {
    // The shape is checked before the model is loaded.
    let (channels, speakers) = args.shape()?;
    let record = args.output.as_deref().map(|path| Record::open(path, args.sync)).transpose()?;
    let interrupt = Interrupt::listen()?;
    let model = model::load(args.recognition.model.as_deref())?;
    model.check_language(args.recognition.language)?;
    let mut config = args.recognition.config(args.interim_interval_ms, args.word_times)?;
    config.early_finals = true;
    model.check_vocabulary(&config.vocabulary)?;
    model.check_task(config.task)?;
    let threads = args.recognition.threads.unwrap_or_else(default_threads);
    let mut live = Live {
        recognizer: Recognizer::start(&model, threads)?,
        tracks: speakers.iter().map(|speaker_id| Session::new(speaker_id, config.clone())).collect(),
        rate: args.rate,
        channels,
        format: args.sample_format,
        start: args.start_time.unwrap_or_else(|| SystemTime::now().into()),
        frames: 0,
        torn: Vec::new(),
        wake_up: None,
        last_audio: Instant::now(),
        record,
        nobody_reads: false,
        failed: false,
    };
    match live.listen(&interrupt).and_then(|read_error| live.finish().map(|()| read_error)) {
        Ok(None) => {}
        Ok(Some(error)) => live.fail(&format!("cannot read standard input any further: {error}")),
        Err(Failure(error)) => live.fail(&error),
    }
    if let Some(Err(error)) = live.record.take().map(Record::finish) {
        live.fail(&error);
    }
    live.recognizer.cancel_all();
    Ok(match (interrupt.is_asked(), live.failed) {
        (true, _) => ExitCode::from(INTERRUPTED),
        (false, true) => ExitCode::from(FAILED),
        (false, false) => ExitCode::SUCCESS,
    })
}

struct Live {
    recognizer: Recognizer,
    /// Each hears as many channels as the others, in their order.
    tracks: Vec<Session>,
    rate: u32,
    /// Of the stream.
    channels: usize,
    format: SampleFormat,
    start: Timestamp,
    /// Frames pushed.
    frames: u64,
    /// Bytes of a frame whose rest has not come yet.
    torn: Vec<u8>,
    /// When the first of the sessions wants a tick, in the stream's time.
    wake_up: Option<Timestamp>,
    last_audio: Instant,
    record: Option<Record>,
    /// Standard output is closed: there is nothing more to do.
    nobody_reads: bool,
    failed: bool,
}

impl Live {
    /// Until the end of input, Ctrl-C, or an error of reading, which is returned.
    fn listen(&mut self, interrupt: &Interrupt) -> Result<Option<std::io::Error>, Failure> {
        let input = stdin_blocks()?;
        let nothing = never();
        while !self.nobody_reads {
            // While the workers are behind, input waits in the pipe: nothing is lost, and memory stays bounded.
            let unfinished = self.tracks.iter().map(Session::unfinished).max().unwrap_or(0);
            let busy = self.recognizer.is_busy(unfinished);
            let blocks = if busy { &nothing } else { &input };
            let stalled = match self.wake_up {
                Some(due) if !busy => after(self.wait_for(due)),
                _ => never(),
            };
            // Nothing may be said for hours.
            let unwritten = self.record.as_ref().and_then(Record::due).map_or_else(never, at);
            // In this order: audio that waited for the workers, and its end, are no stall.
            select_biased! {
                recv(interrupt.signal()) -> _ => {
                    // What was read already was heard, as far as the speaker knows.
                    for block in input.try_iter().map_while(Result::ok) {
                        self.push(&block)?;
                    }
                    return Ok(None);
                }
                recv(self.recognizer.answers()) -> answer => {
                    let answer = answer.map_err(|_| Stopped)?;
                    self.take(answer)?;
                }
                recv(blocks) -> block => match block {
                    Err(_) => return Ok(None),
                    Ok(Err(error)) => return Ok(Some(error)),
                    Ok(Ok(bytes)) => self.push(&bytes)?,
                },
                recv(unwritten) -> _ => self.record.iter_mut().for_each(Record::write),
                recv(stalled) -> _ => {
                    if let Some(due) = self.wake_up {
                        self.tracks.iter_mut().try_for_each(|session| session.handle_input(Input::Tick(due)))?;
                        self.drain()?;
                    }
                }
            }
        }
        Ok(None)
    }

    fn fail(&mut self, message: &str) {
        complain(message);
        self.failed = true;
    }

    fn finish(&mut self) -> Result<(), Failure> {
        if !self.torn.is_empty() {
            complain(&format!("the input ends inside a frame: its last {} bytes are left out", self.torn.len()));
        }
        self.tracks.iter_mut().try_for_each(|session| session.handle_input(Input::End))?;
        self.drain()?;
        while !self.tracks.iter().all(Session::is_finished) && !self.nobody_reads {
            let answer = self.recognizer.answers().recv().map_err(|_| Stopped)?;
            self.take(answer)?;
        }
        Ok(())
    }

    fn take(&mut self, answer: Answer<Track>) -> Result<(), Failure> {
        self.recognizer.answered(&answer);
        let session = &mut self.tracks[answer.tag.channel];
        if let Err(error) = &answer.result {
            self.failed |= warn_of_failure(session.speaker_id(), error);
        }
        session.handle_input(Input::Decoded { job: answer.job, result: answer.result })?;
        self.drain()
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.last_audio = Instant::now();
        self.torn.extend_from_slice(bytes);
        let sample_bytes = match self.format {
            SampleFormat::S16le => 2,
            SampleFormat::F32le => 4,
        };
        let whole = self.torn.len() - self.torn.len() % (sample_bytes * self.channels);
        let at = self.start.plus_nanos(nanos_of_samples(self.frames, self.rate));
        self.frames += (whole / (sample_bytes * self.channels)) as u64;
        let bytes = &self.torn[..whole];
        let samples: Vec<f32> = match self.format {
            SampleFormat::S16le => {
                bytes.as_chunks::<2>().0.iter().map(|x| f32::from(i16::from_le_bytes(*x)) / 32_768.0).collect()
            }
            SampleFormat::F32le => bytes.as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x)).collect(),
        };
        self.torn.drain(..whole);
        let each = self.channels / self.tracks.len();
        for (i, session) in self.tracks.iter_mut().enumerate() {
            let own = samples.chunks_exact(self.channels).flat_map(|frame| &frame[i * each..][..each]);
            let own: Vec<f32> = own.copied().collect();
            session.handle_input(Input::Audio { at, pcm: Pcm::interleaved(self.rate, each, &own[..])? })?;
        }
        self.drain()
    }

    fn drain(&mut self) -> Result<(), Failure> {
        let Self { tracks, recognizer, nobody_reads, record, .. } = self;
        let mut written = Ok(());
        self.wake_up = None;
        for (channel, session) in tracks.iter_mut().enumerate() {
            let due = drain(session, Track { recording: 0, channel }, recognizer, |event| {
                record.iter_mut().for_each(|record| record.take(&event));
                if written.is_ok() && !*nobody_reads {
                    written = print(&event);
                }
            });
            self.wake_up = self.wake_up.into_iter().chain(due).min();
        }
        record.iter_mut().for_each(Record::write);
        match written {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                *nobody_reads = true;
                Ok(())
            }
            Err(error) => Err(Failure(format!("cannot write standard output: {error}"))),
        }
    }

    /// How long to wait for audio before the stream counts as stalled: what the session asks for, from the last audio on.
    fn wait_for(&self, due: Timestamp) -> Duration {
        let end = self.start.plus_nanos(nanos_of_samples(self.frames, self.rate));
        let patience = Duration::from_nanos(u64::try_from(due.nanos_since(end)).unwrap_or(0));
        patience.saturating_sub(self.last_audio.elapsed())
    }
}

/// One event a line, in one write.
fn print(event: &CaptionEvent) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&line)?;
    stdout.flush()
}
