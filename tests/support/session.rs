//! Sounds with known spans, a detector without hysteresis, and a session drained at once.
#![allow(dead_code, clippy::unwrap_used)]

use cuewire::asr::{Cancel, Decoder};
use cuewire::audio::Pcm;
use cuewire::caption::CaptionEvent;
use cuewire::config::{Config, InterimIntervalMs, VadMode};
use cuewire::session::{Input, InputError, Output, Session};
use cuewire::time::Timestamp;
use cuewire::vad::{FRAME, Vad};

pub(crate) const MS: i64 = 1_000_000;

pub(crate) fn at_ms(ms: i64) -> Timestamp {
    Timestamp::from_nanos(ms * MS)
}

/// Calls loud frames speech, without hysteresis: boundaries can be computed by hand.
pub(crate) struct Loudness;

impl Vad for Loudness {
    fn is_speech(&mut self, frame: &[i16; FRAME]) -> bool {
        frame.iter().any(|x| x.unsigned_abs() > 3_000)
    }
    fn reset(&mut self, _: VadMode) {}
    fn hangover_frames(&self, _: u64) -> u64 {
        0
    }
}

/// A voice-like sound where `spans` (ms) say so, a soft hiss elsewhere.
pub(crate) fn sound(rate: u32, total_ms: u64, spans: &[(u64, u64)]) -> Vec<i16> {
    let mut noise = 1u32;
    (0..total_ms * u64::from(rate) / 1000)
        .map(|i| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let hiss = ((noise >> 24) as f32 - 128.0) * 0.2;
            let t = i as f32 / rate as f32;
            let ms = i * 1000 / u64::from(rate);
            let voiced = spans.iter().any(|&(from, to)| (from..to).contains(&ms));
            let pulse: f32 = (1..20).map(|h| (t * 140.0 * h as f32 * std::f32::consts::TAU).sin() / h as f32).sum();
            let syllables = 0.75 + 0.25 * (t * 4.0 * std::f32::consts::TAU).sin();
            (hiss + if voiced { pulse * 9_000.0 * syllables } else { 0.0 }) as i16
        })
        .collect()
}

pub(crate) fn no_interims() -> Config {
    let mut config = Config::default();
    config.interim_interval_ms = InterimIntervalMs::try_from(0).unwrap();
    config
}

/// Drains a session, answering each job at once; returns the events.
pub(crate) fn drain(session: &mut Session, decoder: &mut dyn Decoder) -> Vec<CaptionEvent> {
    let mut events = Vec::new();
    loop {
        match session.poll_output() {
            Output::Decode(job) => {
                let result = decoder.decode(&job, &Cancel::new());
                session.handle_input(Input::Decoded { job: job.id, result }).unwrap();
            }
            Output::Event(event) => events.push(event),
            Output::Cancel(_) | Output::Closed { .. } => {}
            Output::Wait(_) => return events,
        }
    }
}

pub(crate) fn push(session: &mut Session, at: Timestamp, rate: u32, samples: &[i16]) -> Result<(), InputError> {
    session.handle_input(Input::Audio { at, pcm: Pcm::mono(rate, samples).unwrap() })
}
