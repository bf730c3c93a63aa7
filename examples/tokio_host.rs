//! The engine in a host that lives in tokio: pushes from a task, events as an async stream, no thread of its own.
//!
//! `cargo run --release --example tokio_host -- testdata/models/whisper-base-q8_0.gguf RECORDING` prints captions as JSON
//! lines. Ctrl-C ends the track as the end of the recording does: what is open becomes final.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cuewire::asr::whisper::WhisperModel;
use cuewire::audio::file::AudioFile;
use cuewire::engine::{AudioSender, Engine, EngineConfig, EngineEvent, TrackConfig};
use cuewire::time::nanos_of_samples;
use cuewire::{Pcm, Timestamp};
use tokio_stream::StreamExt as _;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: tokio_host MODEL RECORDING";
    let (model, path) = (args.next().ok_or(usage)?, args.next().ok_or(usage)?);
    // Loading reads a file for a while, and shutting down waits: neither on the runtime's own thread.
    let engine = tokio::task::spawn_blocking(move || {
        let model = Arc::new(WhisperModel::load(model)?);
        Ok::<_, Box<dyn Error + Send + Sync>>(Engine::start(EngineConfig::default(), model)?)
    });
    let engine = engine.await?.map_err(|error| error.to_string())?;
    let mut events = engine.subscribe();
    let (sender, track) = engine.add_track(TrackConfig::new(&path))?;

    let speaking = tokio::spawn(speak(AudioFile::open(Path::new(&path))?, sender));
    let abort = speaking.abort_handle();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            // Its sender goes with it, and so the track ends.
            abort.abort();
        }
    });

    while let Some(event) = events.next().await {
        match event {
            EngineEvent::Caption { event, .. } => println!("{}", serde_json::to_string(&event)?),
            EngineEvent::Ended { track: ended, .. } if ended == track => break,
            _ => {}
        }
    }
    tokio::task::spawn_blocking(move || engine.shutdown(Duration::from_secs(2))).await?;
    match speaking.await {
        Ok(spoken) => spoken.map_err(|error| error as Box<dyn Error>),
        Err(stopped) if stopped.is_cancelled() => Ok(()),
        Err(panicked) => Err(panicked.into()),
    }
}

/// Pushes the recording as if it were spoken now. A push never waits, so it may be done from a task.
async fn speak(mut recording: AudioFile, mut sender: AudioSender) -> Result<(), Box<dyn Error + Send + Sync>> {
    let now = Timestamp::from(SystemTime::now());
    let start = tokio::time::Instant::now();
    let mut frames = 0;
    while let Some(block) = recording.next_block()? {
        let since_start = nanos_of_samples(frames, block.sample_rate);
        frames += (block.samples.len() / block.channels) as u64;
        let at = now.plus_nanos(since_start);
        sender.push(at, Pcm::interleaved(block.sample_rate, block.channels, block.samples)?)?;
        let over = start + Duration::from_nanos(nanos_of_samples(frames, block.sample_rate).unsigned_abs());
        tokio::time::sleep_until(over).await;
    }
    Ok(())
}
