//! Another recogniser behind the engine: here one that says how long and how loud each utterance was.
//!
//! `cargo run --release --example custom_decoder -- RECORDING` prints what the engine makes of its answers: captions with
//! their times, after the rules for texts. It needs no model, and so none of the feature `whisper`.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use cuewire::asr::{Cancel, DecodeError, DecodeJob, Decoder, Hypothesis};
use cuewire::audio::file::AudioFile;
use cuewire::caption::CaptionEvent;
use cuewire::config::Config;
use cuewire::engine::{Engine, EngineConfig, EngineEvent, Idle, Model, PushError, TrackConfig};
use cuewire::time::{SAMPLE_RATE, nanos_of_samples};
use cuewire::{Pcm, Timestamp};

/// What all decoders share: weights, a connection, or as here a number.
struct LevelMeter {
    /// Decibels of full scale under which it hears nothing.
    floor_db: f32,
}

/// One worker's own. It is used by that thread alone.
struct LevelDecoder {
    meter: Arc<LevelMeter>,
}

impl Model for LevelMeter {
    fn decoder(self: Arc<Self>, _: &Idle) -> Box<dyn Decoder> {
        Box::new(LevelDecoder { meter: self })
    }

    fn check(&self, config: &Config) -> Result<(), String> {
        // Asked before a track is added or reconfigured, so that nobody waits for what will not come.
        if config.word_times { Err("a level has no words, and so no times of them".into()) } else { Ok(()) }
    }
}

impl Decoder for LevelDecoder {
    fn decode(&mut self, job: &DecodeJob, cancel: &Cancel) -> Result<Hypothesis, DecodeError> {
        let mut energy = 0.0;
        // 16 kHz mono. Looking at `cancel` every few milliseconds keeps the worker free for what is still wanted.
        for second in job.audio.chunks(SAMPLE_RATE as usize) {
            if cancel.is_cancelled() {
                return Err(DecodeError::Cancelled);
            }
            energy += second.iter().map(|sample| sample * sample).sum::<f32>();
        }
        let db = 10.0 * (energy / job.audio.len().max(1) as f32).log10();
        let seconds = job.audio.len() as f32 / SAMPLE_RATE as f32;
        // An empty text is no caption: the engine says that it was suppressed, and why.
        let text = if db < self.meter.floor_db { String::new() } else { format!("{seconds:.1} s at {db:.0} dB") };
        Ok(Hypothesis::certain(&text, job))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: custom_decoder RECORDING")?;
    let mut recording = AudioFile::open(Path::new(&path))?;
    let engine = Engine::start(EngineConfig::default(), Arc::new(LevelMeter { floor_db: -50.0 }))?;
    let events = engine.subscribe();
    let mut config = TrackConfig::new("somebody");
    // A recording: nobody waits for a caption, and none may be given up.
    config.patience = Duration::from_secs(3600);
    let (mut sender, _) = engine.add_track(config)?;

    let mut frames = 0;
    while let Some(block) = recording.next_block()? {
        let pcm = Pcm::interleaved(block.sample_rate, block.channels, block.samples)?;
        let at = Timestamp::from_nanos(nanos_of_samples(frames, block.sample_rate));
        frames += pcm.frames() as u64;
        // Faster than it was spoken: where the ring is full, wait.
        while let Err(error) = sender.push(at, pcm) {
            if error != PushError::Full {
                return Err(error.into());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
    drop(sender);

    while let Some(event) = events.recv() {
        match event {
            EngineEvent::Caption { event: CaptionEvent::Final { start_time, end_time, text, .. }, .. } => {
                println!("{:.2} – {:.2}: {text}", start_time.as_nanos() as f64 / 1e9, end_time.as_nanos() as f64 / 1e9);
            }
            EngineEvent::Ended { .. } => break,
            _ => {}
        }
    }
    Ok(())
}
