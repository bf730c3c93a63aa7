//! `cuewire transcribe`: recordings in, transcripts out.
//!
//! One recording is read at a time, block by block. While its last captions are decoded the next one is read already,
//! so that the workers always have something to do; transcripts come out in the order of the files. Tracks that are
//! merged wait for each other as text: their transcript is written when all of them are finished.

use std::collections::{BTreeMap, VecDeque};
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cuewire::asr::Suppression;
use cuewire::audio::Pcm;
use cuewire::audio::file::{AudioFile, FileError};
use cuewire::caption::CaptionEvent;
use cuewire::caption::cues::CueCounts;
use cuewire::config::Config;
use cuewire::engine::{Answer, default_threads};
use cuewire::session::{Input, Session};
use cuewire::time::{Timestamp, nanos_of_samples};
use cuewire::transcript::{self, Fragment};
use indicatif::{ProgressBar, ProgressStyle};

use crate::args::TranscribeArgs;
use crate::output::{Destination, Sink, WriteError};
use crate::recognizer::{Recognizer, Stopped, Track};
use crate::run::{Interrupt, InterruptibleStdin, drain, warn_of_failure};
use crate::stats::{CueStats, Stats, peak_rss_bytes};
use crate::tracks::stem;
use crate::{FAILED, Failure, INTERRUPTED, complain, model, places, tracks};

pub(crate) fn run(args: &TranscribeArgs) -> Result<ExitCode, Failure> {
    let started = Instant::now();
    let inputs = tracks::inputs(args)?;
    let config = args.recognition.config(0.try_into()?, args.word_times || args.cues_need_word_times())?;
    let destination = Destination::new(args, &inputs)?;
    places::check(args, &inputs, &destination)?;
    if inputs.iter().filter(|input| input.path == Path::new("-")).count() > 1 {
        return Err(Failure("standard input (`-`) can be read only once".into()));
    }
    let interrupt = Interrupt::listen()?;
    let model = model::load(args.recognition.model.as_deref())?;
    model.check_language(args.recognition.language)?;
    let model_load_s = started.elapsed().as_secs_f64();
    let threads = args.recognition.threads.unwrap_or_else(default_threads);
    model.check_vocabulary(&config.vocabulary)?;
    model.check_task(config.task)?;
    let recognizer = Recognizer::start(&model, threads)?;
    destination.make_folder()?;
    let mut run = Run {
        args,
        config,
        interrupt,
        recognizer,
        destination,
        merged: args.merge.then(Vec::new),
        any_is_readable: false,
        waiting: inputs.into(),
        recordings: VecDeque::new(),
        first: 0,
        progress: Progress::new(),
        failed: false,
        nobody_reads: false,
        audio: Duration::ZERO,
        captions: 0,
        suppressed: BTreeMap::new(),
        cues: None,
    };
    if let Err(Failure(error)) = run.all() {
        run.fail(&error);
    }
    run.write_merged();
    run.progress.clear();
    if let Some(path) = &args.stats {
        let stats = Stats {
            model_load_s,
            audio_s: run.audio.as_secs_f64(),
            decode_s: run.recognizer.decode_time().as_secs_f64(),
            wall_s: started.elapsed().as_secs_f64(),
            captions: run.captions,
            suppressed: run.suppressed.values().sum(),
            suppressed_by_reason: run.suppressed.clone(),
            cues: run.cues.map(|counts| CueStats { profile: args.profile.name(), counts }),
            peak_rss_bytes: peak_rss_bytes(),
        };
        if let Err(error) = stats.write(path) {
            run.fail(&error);
        }
    }
    Ok(match (run.interrupt.is_asked(), run.failed) {
        (true, _) => ExitCode::from(INTERRUPTED),
        (false, true) => ExitCode::from(FAILED),
        (false, false) => ExitCode::SUCCESS,
    })
}

struct Run<'a> {
    args: &'a TranscribeArgs,
    config: Config,
    interrupt: Interrupt,
    recognizer: Recognizer,
    destination: Destination,
    /// The captions that wait for every track, where one transcript is written of all.
    merged: Option<Vec<Fragment>>,
    /// Whether any recording could be opened: if none, a merged transcript is not touched.
    any_is_readable: bool,
    waiting: VecDeque<tracks::Input>,
    /// Recordings in progress, in their order: all but the last are read to their end.
    recordings: VecDeque<Recording>,
    /// The number of the first of them.
    first: usize,
    progress: Progress,
    failed: bool,
    /// Standard output is closed: there is nothing more to do.
    nobody_reads: bool,
    audio: Duration,
    captions: u64,
    suppressed: BTreeMap<Suppression, u64>,
    cues: Option<CueCounts>,
}

struct Recording {
    path: PathBuf,
    reader: Option<AudioFile>,
    /// One a channel where channels are split, else one.
    sessions: Vec<Session>,
    /// The time of the next frame.
    at: Timestamp,
    began: Timestamp,
    /// Frames since the rate last changed, and that rate: times do not drift by rounding.
    frames: u64,
    rate: u32,
    rate_since: Timestamp,
    sink: Option<Sink>,
    /// Captions that must wait: for the recordings before, or for the other channels.
    fragments: Vec<Fragment>,
}

impl Run<'_> {
    fn all(&mut self) -> Result<(), Failure> {
        loop {
            while let Ok(answer) = self.recognizer.answers().try_recv() {
                self.take(answer)?;
            }
            self.write_finished();
            if self.nobody_reads {
                self.end_reading(None)?;
                self.recognizer.cancel_all();
                return Ok(());
            }
            if self.interrupt.is_asked() {
                self.waiting.clear();
                self.end_reading(None)?;
            }
            let reading = self.recordings.back().is_some_and(|recording| recording.reader.is_some());
            if !reading && self.waiting.is_empty() && self.recordings.is_empty() {
                return Ok(());
            }
            let sessions = self.recordings.back().into_iter().flat_map(|recording| &recording.sessions);
            let unfinished = sessions.map(Session::unfinished).max().unwrap_or(0);
            if self.recognizer.is_busy(unfinished) || (!reading && self.waiting.is_empty()) {
                let answer = self.recognizer.answers().recv().map_err(|_| Stopped)?;
                self.take(answer)?;
            } else if reading {
                self.read_block()?;
            } else if let Some(input) = self.waiting.pop_front() {
                self.open(input);
            }
        }
    }

    fn open(&mut self, input: tracks::Input) {
        let tracks::Input { path, speaker_id, offset_nanos } = input;
        let reader = if path == Path::new("-") {
            match InterruptibleStdin::new(&self.interrupt) {
                Ok(stdin) => AudioFile::from_reader("standard input", Box::new(stdin)),
                Err(error) => return self.fail(&format!("standard input: {error}")),
            }
        } else {
            AudioFile::open(&path)
        };
        let reader = match reader {
            Ok(reader) => reader,
            Err(error) => return self.fail(&error.to_string()),
        };
        let sink = match self.merged {
            Some(_) => None,
            None => match self.destination.open(&path) {
                Ok(sink) => Some(sink),
                Err(error) => return self.written(Err(error)),
            },
        };
        self.any_is_readable = true;
        let began = self.args.start_time.plus_nanos(offset_nanos);
        let sessions = if self.args.split_channels {
            (1..=reader.channels()).map(|i| Session::new(&format!("{speaker_id}-{i}"), self.config.clone())).collect()
        } else {
            vec![Session::new(&speaker_id, self.config.clone())]
        };
        self.progress.begin(&stem(&path), reader.declared_duration());
        self.recordings.push_back(Recording {
            path,
            rate: reader.sample_rate(),
            reader: Some(reader),
            sessions,
            at: began,
            began,
            rate_since: began,
            frames: 0,
            sink,
            fragments: Vec::new(),
        });
    }

    /// Reads and hears the next block of the recording that is being read.
    fn read_block(&mut self) -> Result<(), Failure> {
        let Some(recording) = self.recordings.back_mut() else { return Ok(()) };
        let Some(reader) = &mut recording.reader else { return Ok(()) };
        let block = match reader.next_block() {
            Ok(Some(block)) => block,
            Ok(None) => return self.end_reading(None),
            Err(error) => return self.end_reading(Some(error)),
        };
        if block.sample_rate != recording.rate {
            (recording.rate, recording.rate_since, recording.frames) = (block.sample_rate, recording.at, 0);
        }
        let at = recording.at;
        if let [session] = &mut recording.sessions[..] {
            let pcm = Pcm::interleaved(block.sample_rate, block.channels, block.samples)?;
            session.handle_input(Input::Audio { at, pcm })?;
        } else {
            // A channel that goes away in the middle is silent from there on; one that comes has no speaker.
            for (i, session) in recording.sessions.iter_mut().enumerate() {
                let channel: Vec<f32> = block
                    .samples
                    .chunks_exact(block.channels)
                    .map(|frame| frame.get(i).copied().unwrap_or(0.0))
                    .collect();
                session.handle_input(Input::Audio { at, pcm: Pcm::mono(block.sample_rate, &channel[..])? })?;
            }
        }
        recording.frames += (block.samples.len() / block.channels) as u64;
        recording.at = recording.rate_since.plus_nanos(nanos_of_samples(recording.frames, recording.rate));
        let seconds = recording.at.nanos_since(recording.began) / 1_000_000_000;
        self.progress.set(u64::try_from(seconds).unwrap_or(0));
        self.drain(self.first + self.recordings.len() - 1);
        Ok(())
    }

    /// The recording that is being read is over, or cannot be read any further: what was heard of it is captioned.
    fn end_reading(&mut self, error: Option<FileError>) -> Result<(), Failure> {
        let Some(recording) = self.recordings.back_mut() else { return Ok(()) };
        let Some(reader) = recording.reader.take() else { return Ok(()) };
        let lasted = recording.at.nanos_since(recording.began);
        self.audio += Duration::from_nanos(u64::try_from(lasted).unwrap_or(0));
        for session in &mut recording.sessions {
            session.handle_input(Input::End)?;
        }
        let bad = reader.bad_packets();
        let path = recording.path.display().to_string();
        if let Some(error) = error {
            self.fail(&error.to_string());
        } else if bad > 0 {
            self.fail(&format!("{path}: {bad} damaged packets were taken as silence"));
        }
        self.drain(self.first + self.recordings.len() - 1);
        Ok(())
    }

    fn take(&mut self, answer: Answer<Track>) -> Result<(), Failure> {
        self.recognizer.answered(&answer);
        let Track { recording: number, channel } = answer.tag;
        let recording = &mut self.recordings[number - self.first];
        if let Err(error) = &answer.result {
            let path = recording.path.display().to_string();
            self.failed |= self.progress.suspend(|| warn_of_failure(&path, error));
        }
        recording.sessions[channel].handle_input(Input::Decoded { job: answer.job, result: answer.result })?;
        self.drain(number);
        Ok(())
    }

    fn drain(&mut self, number: usize) {
        let recording = &mut self.recordings[number - self.first];
        for (channel, session) in recording.sessions.iter_mut().enumerate() {
            drain(session, Track { recording: number, channel }, &mut self.recognizer, |event| match event {
                CaptionEvent::Final {
                    start_time,
                    end_time,
                    speaker_id,
                    text,
                    language,
                    language_probability,
                    translated,
                    words,
                    ..
                } => {
                    self.captions += 1;
                    recording.fragments.push(Fragment {
                        start_time,
                        stop_time: end_time,
                        speaker_id: speaker_id.to_string(),
                        text,
                        language: Some(language),
                        language_probability,
                        translated,
                        words,
                    });
                }
                CaptionEvent::Suppressed { reason, .. } => *self.suppressed.entry(reason).or_default() += 1,
                _ => {}
            });
        }
        // Where nothing has to wait, a caption is written as soon as it is final.
        let is_front = (number == self.first || !self.destination.is_shared()) && self.merged.is_none();
        let written = if is_front && recording.sessions.len() == 1 {
            self.progress.suspend(|| recording.write_captions())
        } else {
            Ok(())
        };
        self.written(written.map(|()| None));
    }

    fn write_finished(&mut self) {
        while let Some(recording) = self.recordings.front() {
            if recording.reader.is_some() || !recording.sessions.iter().all(Session::is_finished) {
                break;
            }
            let Some(mut recording) = self.recordings.pop_front() else { break };
            self.first += 1;
            if let Some(merged) = &mut self.merged {
                merged.append(&mut recording.fragments);
                continue;
            }
            transcript::sort(&mut recording.fragments);
            let written = self
                .progress
                .suspend(|| recording.write_captions().and_then(|()| recording.sink.map_or(Ok(None), Sink::finish)));
            self.written(written);
        }
        // The one that is first now may have waited for the others only.
        if self.merged.is_none()
            && let Some(recording) = self.recordings.front_mut()
            && recording.sessions.len() == 1
        {
            let written = self.progress.suspend(|| recording.write_captions());
            self.written(written.map(|()| None));
        }
    }

    fn write_merged(&mut self) {
        let Some(mut fragments) = self.merged.take().filter(|_| self.any_is_readable) else { return };
        transcript::sort(&mut fragments);
        let written = self.progress.suspend(|| {
            let mut sink = self.destination.open(Path::new(""))?;
            fragments.iter().try_for_each(|fragment| sink.write(fragment))?;
            sink.finish()
        });
        self.written(written);
    }

    /// A transcript is written, or a part of it, or could not be.
    fn written(&mut self, result: Result<Option<CueCounts>, WriteError>) {
        match result {
            Ok(Some(counts)) => self.cues.get_or_insert_default().add(&counts),
            Ok(None) => {}
            Err(WriteError::NobodyReads) => self.nobody_reads = true,
            Err(WriteError::Failed(error)) => self.fail(&error),
        }
    }

    fn fail(&mut self, message: &str) {
        self.progress.suspend(|| complain(message));
        self.failed = true;
    }
}

impl Recording {
    /// Writes what is there. After an error nothing more is written: the transcript would have a hole.
    fn write_captions(&mut self) -> Result<(), WriteError> {
        let Some(sink) = &mut self.sink else { return Ok(()) };
        for fragment in self.fragments.drain(..) {
            if let Err(error) = sink.write(&fragment) {
                self.sink = None;
                return Err(error);
            }
        }
        Ok(())
    }
}

/// A bar on a terminal, nothing in a pipe.
struct Progress {
    bar: ProgressBar,
}

impl Progress {
    fn new() -> Self {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::no_length() } else { ProgressBar::hidden() };
        Self { bar }
    }

    fn begin(&self, name: &str, duration: Option<Duration>) {
        let template = match duration {
            Some(duration) => {
                self.bar.set_length(duration.as_secs_f64().ceil() as u64);
                "{msg} {wide_bar} {pos} of {len} s, {eta} left"
            }
            None => {
                self.bar.unset_length();
                "{msg} {spinner} {pos} s"
            }
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        self.bar.reset();
        self.bar.set_message(name.to_string());
    }

    fn set(&self, seconds: u64) {
        self.bar.set_position(seconds);
    }

    /// Takes the bar off the screen while something else is printed.
    fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
