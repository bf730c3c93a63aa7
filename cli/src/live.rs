//! `cuewire live`: raw PCM in, events out, as they happen.

use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{after, never, select_biased};
use cuewire::audio::Pcm;
use cuewire::caption::CaptionEvent;
use cuewire::engine::{Answer, default_threads};
use cuewire::session::{Input, Session};
use cuewire::time::{Timestamp, nanos_of_samples};

use crate::args::{LiveArgs, SampleFormat};
use crate::recognizer::{Recognizer, Stopped, Track};
use crate::run::{Interrupt, drain, stdin_blocks, warn_of_failure};
use crate::{FAILED, Failure, INTERRUPTED, complain, model};

const TRACK: Track = Track { recording: 0, channel: 0 };

pub(crate) fn run(args: &LiveArgs) -> Result<ExitCode, Failure> {
    // The shape is checked before the model is loaded.
    Pcm::interleaved(args.rate, args.channels, &[] as &[i16])?;
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
        session: Session::new(&args.speaker_id, config),
        rate: args.rate,
        channels: args.channels,
        format: args.sample_format,
        start: args.start_time.unwrap_or_else(now),
        frames: 0,
        torn: Vec::new(),
        wake_up: None,
        last_audio: Instant::now(),
        nobody_reads: false,
        failed: false,
    };
    match live.listen(&interrupt).and_then(|read_error| live.finish().map(|()| read_error)) {
        Ok(None) => {}
        Ok(Some(error)) => live.fail(&format!("cannot read standard input any further: {error}")),
        Err(Failure(error)) => live.fail(&error),
    }
    live.recognizer.cancel_all();
    Ok(match (interrupt.is_asked(), live.failed) {
        (true, _) => ExitCode::from(INTERRUPTED),
        (false, true) => ExitCode::from(FAILED),
        (false, false) => ExitCode::SUCCESS,
    })
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

struct Live {
    recognizer: Recognizer,
    session: Session,
    rate: u32,
    channels: usize,
    format: SampleFormat,
    start: Timestamp,
    /// Frames pushed.
    frames: u64,
    /// Bytes of a frame whose rest has not come yet.
    torn: Vec<u8>,
    /// When the session wants a tick, in the stream's time.
    wake_up: Option<Timestamp>,
    last_audio: Instant,
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
            let busy = self.recognizer.is_busy(self.session.unfinished());
            let blocks = if busy { &nothing } else { &input };
            let stalled = match self.wake_up {
                Some(due) if !busy => after(self.wait_for(due)),
                _ => never(),
            };
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
                recv(stalled) -> _ => {
                    if let Some(due) = self.wake_up {
                        self.session.handle_input(Input::Tick(due))?;
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
        self.session.handle_input(Input::End)?;
        self.drain()?;
        while !self.session.is_finished() && !self.nobody_reads {
            let answer = self.recognizer.answers().recv().map_err(|_| Stopped)?;
            self.take(answer)?;
        }
        Ok(())
    }

    fn take(&mut self, answer: Answer<Track>) -> Result<(), Failure> {
        self.recognizer.answered(&answer)?;
        if let Err(error) = &answer.result {
            self.failed |= warn_of_failure(self.session.speaker_id(), error);
        }
        self.session.handle_input(Input::Decoded { job: answer.job, result: answer.result })?;
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
        let bytes: Vec<u8> = self.torn.drain(..whole).collect();
        match self.format {
            SampleFormat::S16le => {
                let samples: Vec<i16> = bytes.as_chunks::<2>().0.iter().map(|x| i16::from_le_bytes(*x)).collect();
                let pcm = Pcm::interleaved(self.rate, self.channels, &samples[..])?;
                self.session.handle_input(Input::Audio { at, pcm })?;
            }
            SampleFormat::F32le => {
                let samples: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x)).collect();
                let pcm = Pcm::interleaved(self.rate, self.channels, &samples[..])?;
                self.session.handle_input(Input::Audio { at, pcm })?;
            }
        }
        self.drain()
    }

    fn drain(&mut self) -> Result<(), Failure> {
        let Self { session, recognizer, nobody_reads, .. } = self;
        let mut written = Ok(());
        self.wake_up = drain(session, TRACK, recognizer, |event| {
            if written.is_ok() && !*nobody_reads {
                written = print(&event);
            }
        })?;
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
