//! An engine whose decoder is scripted, and a host that pushes and listens.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cuewire::Pcm;
use cuewire::asr::{Cancel, DecodeError, DecodeJob, Decoder, Hypothesis, JobKind, ScriptedDecoder};
use cuewire::caption::CaptionEvent;
use cuewire::config::InterimIntervalMs;
use cuewire::engine::{
    AudioSender, Engine, EngineConfig, EngineEvent, Idle, Ledger, PushError, Subscription, TrackConfig, TrackId,
    TrackReport,
};

use super::support::at_ms;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const PUSH_MS: i64 = 20;

/// An engine of `workers` decode threads whose decoder is `says`.
pub(crate) fn engine<F>(workers: usize, says: F) -> Engine
where
    F: Fn(&DecodeJob) -> Result<Hypothesis, DecodeError> + Clone + Send + Sync + 'static,
{
    Engine::start(with_workers(workers), Arc::new(move |_: &Idle| ScriptedDecoder::new(says.clone()))).unwrap()
}

pub(crate) fn with_workers(workers: usize) -> EngineConfig {
    let mut config = EngineConfig::default();
    config.workers = NonZeroUsize::new(workers).unwrap();
    config
}

pub(crate) fn says_length(job: &DecodeJob) -> Result<Hypothesis, DecodeError> {
    Ok(Hypothesis::certain(&format!("{:?} of {} at {}", job.kind, job.audio.len(), job.start.0), job))
}

/// Says nothing while it is told to wait, or until the job is called off.
pub(crate) struct Stuck(pub(crate) Arc<AtomicBool>);

impl Decoder for Stuck {
    fn decode(&mut self, job: &DecodeJob, cancel: &Cancel) -> Result<Hypothesis, DecodeError> {
        while self.0.load(Ordering::SeqCst) {
            if cancel.is_cancelled() {
                return Err(DecodeError::Cancelled);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        says_length(job)
    }
}

/// A track without interims that waits for its finals however long.
pub(crate) fn patient(speaker_id: &str) -> TrackConfig {
    let mut config = TrackConfig::new(speaker_id);
    config.config.interim_interval_ms = InterimIntervalMs::try_from(0).unwrap();
    config.patience = Duration::from_secs(3600);
    config
}

/// A patient track whose caption stays open though the thread that pushes does not run for two seconds.
pub(crate) fn unhurried(speaker_id: &str) -> TrackConfig {
    let mut config = patient(speaker_id);
    config.config.speech_segment_config.silence_duration_ms = 2_000.try_into().unwrap();
    config
}

/// Pushes `samples` (48 kHz), waiting where the ring is full.
pub(crate) fn push_one(sender: &mut AudioSender, from_ms: i64, samples: &[i16]) {
    while let Err(error) = sender.push(at_ms(from_ms), Pcm::mono(48_000, samples).unwrap()) {
        assert_eq!(error, PushError::Full);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Pushes `samples` (48 kHz) from `from_ms` on in pushes of 20 ms, waiting where the ring is full.
pub(crate) fn push_all(sender: &mut AudioSender, from_ms: i64, samples: &[i16]) {
    for (i, push) in samples.chunks(960).enumerate() {
        push_one(sender, from_ms + i as i64 * PUSH_MS, push);
    }
}

/// Takes a tenth of the audio's time for a final, and a quarter of that for an interim.
pub(crate) fn sleeps(job: &DecodeJob) -> Result<Hypothesis, DecodeError> {
    let micros = job.audio.len() as u64 * 625 / 100;
    std::thread::sleep(Duration::from_micros(if job.kind == JobKind::Final { micros } else { micros / 4 }));
    says_length(job)
}

/// What is said of the track until it has ended.
pub(crate) fn until_end(events: &Subscription, track: TrackId) -> (Vec<(CaptionEvent, Option<Ledger>)>, TrackReport) {
    let mut told = Vec::new();
    loop {
        match events.recv_timeout(PATIENCE).expect("the track ends") {
            EngineEvent::Caption { track: of, event, ledger, .. } if of == track => told.push((event, ledger)),
            EngineEvent::Ended { track: of, report } if of == track => return (told, report),
            EngineEvent::Missed { events } => panic!("{events} events missed"),
            _ => {}
        }
    }
}

pub(crate) fn texts(told: &[(CaptionEvent, Option<Ledger>)]) -> Vec<String> {
    let text = |(event, _): &(CaptionEvent, _)| match event {
        CaptionEvent::Final { text, .. } => Some(text.clone()),
        _ => None,
    };
    told.iter().filter_map(text).collect()
}
