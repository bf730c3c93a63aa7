//! What a media server does with cuewire: a track for each participant, events for whoever shows them.
//!
//! `cargo run --release --example embed -- testdata/models/whisper-base-q8_0.gguf a.wav b.flac` treats each recording
//! as a participant and pushes them in real time.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use cuewire::asr::whisper::WhisperModel;
use cuewire::audio::file::AudioFile;
use cuewire::engine::{AudioSender, Engine, EngineConfig, EngineEvent, TrackConfig};
use cuewire::time::nanos_of_samples;
use cuewire::{CaptionEvent, Pcm, Timestamp};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let model = Arc::new(WhisperModel::load(args.next().ok_or("usage: embed MODEL RECORDING…")?)?);
    let engine = Engine::start(EngineConfig::default(), model)?;
    let events = engine.subscribe();

    let mut speaking = 0;
    for path in args {
        let (sender, _) = engine.add_track(TrackConfig::new(&path))?;
        let recording = AudioFile::open(Path::new(&path))?;
        speaking += 1;
        thread::spawn(move || {
            if let Err(error) = speak(recording, sender) {
                eprintln!("{path}: {error}");
            }
        });
    }

    while speaking > 0 {
        match events.recv() {
            Some(EngineEvent::Caption { event, .. }) => match event {
                CaptionEvent::Interim { speaker_id, text, .. } => println!("{speaker_id}… {text}"),
                CaptionEvent::Final { speaker_id, text, .. } => println!("{speaker_id}: {text}"),
                _ => {}
            },
            Some(EngineEvent::Ended { .. }) => speaking -= 1,
            Some(_) => {}
            None => break,
        }
    }
    engine.shutdown(Duration::from_secs(2));
    Ok(())
}

/// A participant: pushes the recording as if it were spoken now. The track ends with its sender.
fn speak(mut recording: AudioFile, mut sender: AudioSender) -> Result<(), Box<dyn Error + Send + Sync>> {
    let start = Instant::now();
    let now = Timestamp::from(SystemTime::now());
    let mut frames = 0;
    while let Some(block) = recording.next_block()? {
        let pcm = Pcm::interleaved(block.sample_rate, block.channels, block.samples)?;
        let since_start = nanos_of_samples(frames, block.sample_rate);
        frames += pcm.frames() as u64;
        thread::sleep(Duration::from_nanos(since_start.unsigned_abs()).saturating_sub(start.elapsed()));
        sender.push(now.plus_nanos(since_start), pcm)?;
    }
    Ok(())
}
