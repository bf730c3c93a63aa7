//! What a second of audio costs, part by part: `cargo bench`.
//!
//! `frontend` is everything but recognition (mixing, resampling, voice activity, segmentation) for 10 s of one track;
//! `whisper` is one utterance through the model under testdata/, on one thread.

#![allow(clippy::expect_used, reason = "a bench stops where its input is missing")]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use cuewire::asr::whisper::{WhisperDecoder, WhisperModel, mel::LogMel};
use cuewire::asr::{Cancel, DecodeJob, Decoder, Hypothesis, JobId};
use cuewire::audio::file::AudioFile;
use cuewire::config::{Config, LanguageSetting};
use cuewire::{Input, Output, Pcm, Session, Timestamp};

const SECONDS: usize = 10;

/// Mono samples of a test recording at 16 kHz.
fn recording(name: &str) -> Vec<f32> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/speech").join(name);
    let mut file = AudioFile::open(&path).expect("a recording of the repository");
    let mut samples = Vec::new();
    while let Some(block) = file.next_block().expect("a whole recording") {
        samples.extend_from_slice(block.samples);
    }
    samples
}

fn frontend(criterion: &mut Criterion) {
    let speech = recording("en-queue-periodic-announce.flac");
    let mut group = criterion.benchmark_group("frontend");
    for rate in [16_000u32, 44_100, 48_000] {
        // The rate is a label here: the cost does not depend on what is said.
        let samples: Vec<f32> = speech.iter().copied().cycle().take(rate as usize * SECONDS).collect();
        group.bench_function(format!("{SECONDS} s at {rate} Hz"), |bencher| {
            bencher.iter(|| {
                let mut session = Session::new("alice", Config::default());
                for (i, packet) in samples.chunks(rate as usize / 50).enumerate() {
                    let at = Timestamp::from_nanos(i as i64 * 20_000_000);
                    let pcm = Pcm::mono(rate, packet).expect("a valid shape");
                    session.handle_input(Input::Audio { at, pcm }).expect("in order");
                    loop {
                        match session.poll_output() {
                            Output::Decode(job) => {
                                let result = Ok(Hypothesis::certain("", &job));
                                session.handle_input(Input::Decoded { job: job.id, result }).expect("asked for");
                            }
                            Output::Wait(_) => break,
                            output => {
                                black_box(output);
                            }
                        }
                    }
                }
            });
        });
    }
    group.finish();
}

fn whisper(criterion: &mut Criterion) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/models/whisper-base-q8_0.gguf");
    let model = Arc::new(WhisperModel::load(path).expect("the repository's model"));
    let audio: Arc<[f32]> = recording("en-agent-alreadyon.flac").into();
    let mut group = criterion.benchmark_group("whisper");
    group.sample_size(10);
    group.bench_function("mel of 30 s", |bencher| {
        let (mut mel, mut out) = (LogMel::new(80), Vec::new());
        bencher.iter(|| mel.compute(black_box(&audio), 3000, &mut out));
    });
    group.bench_function("an utterance of 5.5 s", |bencher| {
        let mut decoder = WhisperDecoder::new(model.clone());
        let job = DecodeJob::new(JobId(0), audio.clone(), LanguageSetting::default());
        bencher.iter(|| decoder.decode(black_box(&job), &Cancel::new()).expect("a hypothesis"));
    });
    group.finish();
}

criterion_group!(benches, frontend, whisper);
criterion_main!(benches);
