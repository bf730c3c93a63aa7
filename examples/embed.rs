//! What a media server does with cuewire: several tracks, one model, a pool of workers, events as they happen.
//!
//! `cargo run --release --example embed -- testdata/models/whisper-base-q8_0.gguf a.wav b.flac` treats each recording
//! as a participant and pushes a block of each in turn, as fast as the workers keep up.

use std::error::Error;
use std::path::Path;
use std::sync::{Arc, mpsc};

use cuewire::asr::whisper::WhisperModel;
use cuewire::audio::file::AudioFile;
use cuewire::engine::{Job, Workers, default_threads};
use cuewire::time::nanos_of_samples;
use cuewire::{CaptionEvent, Config, Input, Output, Pcm, Session, Timestamp};

/// One participant: a session, and where its audio comes from.
struct Track {
    session: Session,
    recording: Option<AudioFile>,
    frames: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let model = Arc::new(WhisperModel::load(args.next().ok_or("usage: embed MODEL RECORDING…")?)?);
    let (sender, answers) = mpsc::channel();
    let workers = Workers::start(default_threads(), model, move |answer| drop(sender.send(answer)))?;
    let mut tracks = Vec::new();
    for path in args {
        let recording = Some(AudioFile::open(Path::new(&path))?);
        tracks.push(Track { session: Session::new(&path, Config::default()), recording, frames: 0 });
    }
    let mut unanswered = 0;

    while tracks.iter().any(|track| !track.session.is_finished()) {
        let mut all_read = true;
        for (number, track) in tracks.iter_mut().enumerate() {
            push_block(track)?;
            unanswered += drain(&mut track.session, number, &workers);
            all_read &= track.recording.is_none();
        }
        // In real time a server takes whatever answers are there; recordings also wait when jobs pile up.
        while unanswered > 0 {
            let answer = match answers.try_recv() {
                Ok(answer) => answer,
                Err(_) if all_read || unanswered > 8 => answers.recv()?,
                Err(_) => break,
            };
            unanswered -= 1;
            let session = &mut tracks[answer.tag].session;
            session.handle_input(Input::Decoded { job: answer.job, result: answer.result })?;
            unanswered += drain(session, answer.tag, &workers);
        }
    }
    Ok(())
}

/// Pushes the next block of the track's recording, or its end.
fn push_block(track: &mut Track) -> Result<(), Box<dyn Error>> {
    let Some(recording) = &mut track.recording else { return Ok(()) };
    if let Some(block) = recording.next_block()? {
        let at = Timestamp::from_nanos(nanos_of_samples(track.frames, block.sample_rate));
        let pcm = Pcm::interleaved(block.sample_rate, block.channels, block.samples)?;
        track.frames += pcm.frames() as u64;
        track.session.handle_input(Input::Audio { at, pcm })?;
    } else {
        track.recording = None;
        track.session.handle_input(Input::End)?;
    }
    Ok(())
}

/// Takes what a session has to say: jobs to the workers, events to the screen. How many jobs there were.
fn drain(session: &mut Session, number: usize, workers: &Workers<usize>) -> usize {
    let mut jobs = 0;
    loop {
        match session.poll_output() {
            Output::Decode(job) => {
                workers.submit(Job::new(number, job));
                jobs += 1;
            }
            // A real server keeps each job's `Cancel` and sets it here.
            Output::Cancel(_) | Output::Closed { .. } => {}
            Output::Event(CaptionEvent::Interim { speaker_id, text, .. }) => println!("{speaker_id}… {text}"),
            Output::Event(CaptionEvent::Final { speaker_id, text, .. }) => println!("{speaker_id}: {text}"),
            Output::Event(_) => {}
            Output::Wait(_) => return jobs,
        }
    }
}
