//! The engine's real threads, all busy at once, for valgrind and the thread sanitizer to look at.
//!
//! In: tracks that speak, workers that help each other, subscribers that come and go. Out: the tool's report; what the test
//! itself asserts is only that all was done.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::workers::Idle;
use super::{Engine, EngineConfig, EngineEvent, PushError, TrackConfig};
use crate::asr::team::Team;
use crate::asr::{Cancel, DecodeError, DecodeJob, Decoder, Hypothesis};
use crate::audio::Pcm;
use crate::caption::CaptionEvent;
use crate::time::Timestamp;
use support::sound;

#[path = "../../tests/support/session.rs"]
mod support;

/// Sums the audio in parts, each with a scratch that is not shared.
struct Summing(Team<Vec<f32>>);

impl Decoder for Summing {
    fn decode(&mut self, job: &DecodeJob, cancel: &Cancel) -> Result<Hypothesis, DecodeError> {
        const PARTS: usize = 8;
        self.0.run(PARTS, |scratch, part| {
            let from = job.audio.len() * part / PARTS;
            scratch.push(job.audio[from..job.audio.len() * (part + 1) / PARTS].iter().sum());
            std::thread::sleep(Duration::from_micros(200));
        });
        let [mine, other] = &mut self.0.work;
        assert_eq!(mine.len() + other.len(), PARTS);
        let sum: f32 = mine.drain(..).chain(other.drain(..)).sum();
        if cancel.is_cancelled() {
            Err(DecodeError::Cancelled)
        } else {
            Ok(Hypothesis::certain(&format!("{sum}"), job))
        }
    }
}

#[test]
fn tracks_workers_and_subscribers_all_at_once() {
    let mut config = EngineConfig::default();
    (config.workers, config.pipelines) = (NonZeroUsize::new(3).unwrap(), NonZeroUsize::new(2).unwrap());
    let model = Arc::new(|idle: &Idle| Summing(Team::new(Some(Arc::new(idle.clone())))));
    let engine = Arc::new(Engine::start(config, model).unwrap());
    let all = engine.subscribe();
    let listener = std::thread::spawn(move || {
        let (mut finals, mut ended) = (0, 0);
        while let Some(event) = all.recv() {
            match event {
                EngineEvent::Caption { event: CaptionEvent::Final { .. }, .. } => finals += 1,
                EngineEvent::Ended { report, .. } => {
                    assert_eq!(report.failure, None);
                    ended += 1;
                }
                _ => {}
            }
        }
        (finals, ended)
    });
    let over = Arc::new(AtomicBool::new(false));
    let passing = {
        let (engine, over) = (engine.clone(), over.clone());
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let events = engine.subscribe();
                while events.recv_timeout(Duration::from_millis(3)).is_ok() {}
            }
        })
    };
    let samples: Arc<[i16]> = sound(16_000, 2_500, &[(200, 1_500)]).into();
    let speakers: Vec<_> = (0..4)
        .map(|i| {
            let (engine, samples) = (engine.clone(), samples.clone());
            std::thread::spawn(move || {
                let mut config = TrackConfig::new(format!("speaker {i}"));
                config.patience = Duration::from_secs(600);
                let (mut sender, track) = engine.add_track(config).unwrap();
                for (k, part) in samples.chunks(1_600).enumerate() {
                    let at = Timestamp::from_nanos(k as i64 * 100_000_000);
                    while sender.push(at, Pcm::mono(16_000, part).unwrap()) == Err(PushError::Full) {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    match k % 8 {
                        3 => engine.mark(track, k as u64).unwrap(),
                        5 => drop(engine.unfinished_for(track).unwrap()),
                        7 => drop((engine.overload(), engine.capacity())),
                        _ => {}
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            })
        })
        .collect();
    speakers.into_iter().for_each(|thread| thread.join().unwrap());
    over.store(true, Ordering::Relaxed);
    passing.join().unwrap();
    let engine = Arc::into_inner(engine).unwrap();
    engine.shutdown(Duration::from_secs(600));
    let (finals, ended) = listener.join().unwrap();
    assert!(finals >= 4 && ended == 4, "{finals} finals of {ended} tracks");
}
