//! The engine with Whisper: the same words as offline, whatever happens at the same time, and jobs that stop when told to.
//!
//! `CUEWIRE_TEST_CALLS` may name folders of recordings (separated as in `PATH`), each a call whose recordings are tracks.
#![cfg(all(feature = "engine", feature = "whisper", feature = "files"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use cuewire::asr::whisper::{WhisperDecoder, WhisperModel};
use cuewire::asr::{DecodeError, DecodeJob, JobId};
use cuewire::audio::file::AudioFile;
use cuewire::caption::CaptionEvent;
use cuewire::config::{Config, InterimIntervalMs, Language, LanguageSetting};
use cuewire::engine::{Engine, EngineConfig, EngineEvent, Job, PushError, TrackConfig, Workers};
use cuewire::session::{Input, Session};
use cuewire::time::nanos_of_samples;
use cuewire::{Pcm, Timestamp};
use support::drain;

#[path = "support/session.rs"]
mod support;

/// One measures time, and all are at work on every core.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

fn model() -> Arc<WhisperModel> {
    static MODEL: OnceLock<Arc<WhisperModel>> = OnceLock::new();
    let load = || Arc::new(WhisperModel::load(testdata("models/whisper-base-q8_0.gguf")).unwrap());
    MODEL.get_or_init(load).clone()
}

/// A recording, mono at its own rate.
struct Recording {
    rate: u32,
    samples: Vec<f32>,
}

impl Recording {
    fn read(path: &Path) -> Self {
        let mut file = AudioFile::open(path).unwrap();
        let mut read = Self { rate: file.sample_rate(), samples: Vec::new() };
        while let Some(block) = file.next_block().unwrap() {
            let pcm = Pcm::interleaved(block.sample_rate, block.channels, block.samples).unwrap();
            pcm.mix_into(0, pcm.frames(), &mut read.samples);
        }
        read
    }

    fn pushes(&self, frames: usize) -> impl Iterator<Item = (Timestamp, Pcm<'_>)> {
        self.samples.chunks(frames).enumerate().map(move |(i, push)| {
            let at = Timestamp::from_nanos(nanos_of_samples((i * frames) as u64, self.rate));
            (at, Pcm::mono(self.rate, push).unwrap())
        })
    }
}

fn recordings(folder: &Path) -> Vec<Recording> {
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "flac" || ending == "wav"));
    paths.sort();
    paths.iter().map(|path| Recording::read(path)).collect()
}

fn is_final(event: &CaptionEvent) -> bool {
    matches!(event, CaptionEvent::Final { .. })
}

/// What one session and one decoder make of a recording, each job answered at once.
fn offline(recording: &Recording) -> Vec<CaptionEvent> {
    let mut decoder = WhisperDecoder::new(model());
    let mut config = Config::default();
    config.interim_interval_ms = InterimIntervalMs::try_from(0).unwrap();
    let mut session = Session::new("speaker", config);
    for (at, pcm) in recording.pushes(4_000) {
        session.handle_input(Input::Audio { at, pcm }).unwrap();
    }
    session.handle_input(Input::End).unwrap();
    drain(&mut session, &mut decoder).into_iter().filter(is_final).collect()
}

/// The finals of all recordings at a time, as fast as the workers are, with interims and early finals.
fn live(recordings: &[Recording], workers: usize, push_ms: u32) -> Vec<Vec<CaptionEvent>> {
    let mut config = EngineConfig::default();
    config.workers = NonZeroUsize::new(workers).unwrap();
    let engine = Engine::start(config, model()).unwrap();
    let events = engine.subscribe();
    let mut finals = BTreeMap::new();
    std::thread::scope(|scope| {
        for recording in recordings {
            let mut config = TrackConfig::new("speaker");
            config.patience = Duration::from_secs(3600);
            let (mut sender, track) = engine.add_track(config).unwrap();
            finals.insert(track, Vec::new());
            scope.spawn(move || {
                for (at, pcm) in recording.pushes((recording.rate * push_ms / 1000) as usize) {
                    while let Err(error) = sender.push(at, pcm) {
                        assert_eq!(error, PushError::Full);
                        std::thread::sleep(Duration::from_millis(5));
                    }
                }
            });
        }
        let mut open = recordings.len();
        while open > 0 {
            match events.recv_timeout(Duration::from_secs(600)).unwrap() {
                EngineEvent::Caption { track, event, .. } if is_final(&event) => {
                    finals.entry(track).or_default().push(event);
                }
                EngineEvent::Ended { .. } => open -= 1,
                EngineEvent::Failed { error, .. } => panic!("{error}"),
                _ => {}
            }
        }
    });
    finals.into_values().collect()
}

fn check(recordings: &[Recording]) {
    let expected: Vec<_> = recordings.iter().map(offline).collect();
    let count: usize = expected.iter().map(Vec::len).sum();
    assert!(count >= recordings.len(), "{count} captions of {} recordings", recordings.len());
    for (workers, push_ms) in [(1, 20), (2, 10), (3, 177)] {
        let told = live(recordings, workers, push_ms);
        assert_eq!(told, expected, "{workers} workers, pushes of {push_ms} ms");
    }
    println!("{count} finals of {} tracks are those of the offline path", recordings.len());
}

#[test]
fn finals_are_those_of_the_offline_path() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    check(&recordings(&testdata("speech")));
}

#[test]
fn finals_of_whole_calls_are_those_of_the_offline_path() {
    let Some(calls) = std::env::var_os("CUEWIRE_TEST_CALLS") else {
        use std::io::Write as _;
        let why = b"SKIPPED: CUEWIRE_TEST_CALLS is not set; it should name folders of recordings\n";
        std::io::stderr().write_all(why).unwrap();
        return;
    };
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    for call in std::env::split_paths(&calls) {
        check(&recordings(&call));
    }
}

#[test]
fn a_job_that_is_called_off_stops_within_20_ms() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (sender, answers) = std::sync::mpsc::channel();
    let workers =
        Workers::start(NonZeroUsize::MIN, model(), move |answer| drop(sender.send((Instant::now(), answer)))).unwrap();
    let speech = Recording::read(&testdata("speech/austen-0880.flac"));
    let audio: Arc<[f32]> = speech.samples.iter().copied().cycle().take(20 * 16_000).collect();
    let submit = |id: u32| {
        let language = LanguageSetting::Fixed(Language::ENGLISH);
        let job = Job::new((), DecodeJob::new(JobId(id.into()), audio.clone(), language));
        let cancel = job.cancel.clone();
        workers.submit(job);
        cancel
    };
    let answer = || answers.recv_timeout(Duration::from_secs(600)).unwrap();
    // How long a whole one takes here and now; the first of all has more to do.
    let whole = (0..2).map(|id| {
        let start = Instant::now();
        submit(id);
        let (ended, answer) = answer();
        assert!(answer.result.is_ok(), "{:?}", answer.result);
        ended.duration_since(start)
    });
    let whole = whole.min().unwrap();
    let mut took = Vec::new();
    for id in 2..17 {
        let cancel = submit(id);
        // In the encoder, and in the decoder.
        std::thread::sleep(whole * (id - 1) / 20);
        let start = Instant::now();
        cancel.cancel();
        let (ended, answer) = answer();
        if answer.result == Err(DecodeError::Cancelled) {
            took.push(ended.duration_since(start));
        }
    }
    took.sort();
    println!("called off within {took:?}, of {whole:?}");
    assert!(took.len() >= 8, "most were still decoding: {took:?}, of {whole:?}");
    // A machine with other work makes some late, and the rest of a decode would be late by half of it.
    assert!(took[took.len() / 4] <= Duration::from_millis(20).max(whole / 100), "{took:?}, of {whole:?}");
    assert!(took[took.len() / 2] <= Duration::from_millis(20).max(whole / 10), "{took:?}, of {whole:?}");
}
