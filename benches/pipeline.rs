//! What a second of audio costs before recognition, part by part: `cargo bench --bench pipeline`.
//!
//! `push` is what a host's thread does for 20 ms. `frontend` is everything but recognition (mixing, resampling, voice
//! activity, segmentation) for 10 s of one track, and `resample`, `vad` and `segmenter` are its parts, 20 ms each; `mel` is
//! the log-mel of a caption, whole and as it grows; `receiver` is a packet of RTP, decoded.

#![allow(clippy::expect_used, reason = "a bench stops where its input is missing")]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use cuewire::asr::whisper::mel::LogMel;
use cuewire::asr::{DecodeJob, Hypothesis, ScriptedDecoder};
use cuewire::audio::Resampler;
use cuewire::audio::file::AudioFile;
use cuewire::audio::rtp::{ReorderWindow, RtpFormat, RtpPacket, RtpReceiver};
use cuewire::config::{Config, SpeechSegmentConfig, VadMode};
use cuewire::engine::{Engine, EngineConfig, Idle, TrackConfig};
use cuewire::segment::Segmenter;
use cuewire::vad::{FRAME, Vad, WebRtcVad};
use cuewire::{Input, Output, Pcm, Session, Timestamp};
use opus_pure::{Application, OpusEncoder};

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
        group.throughput(Throughput::Elements(samples.len() as u64));
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

/// A packet of 20 ms to 16 kHz, inside a stream; `elem/s` are samples of the packet's rate.
fn resample(criterion: &mut Criterion) {
    let speech = recording("en-queue-periodic-announce.flac");
    let mut group = criterion.benchmark_group("resample");
    for rate in [44_100u32, 48_000] {
        let mut packets = speech.chunks_exact(rate as usize / 50).cycle();
        let (mut resampler, mut out) = (Resampler::new(rate).expect("a valid rate"), Vec::new());
        group.throughput(Throughput::Elements(u64::from(rate / 50)));
        group.bench_function(format!("20 ms at {rate} Hz"), |bencher| {
            bencher.iter(|| {
                out.clear();
                resampler.process(packets.next().expect("an endless stream"), &mut out);
                black_box(&out);
            });
        });
    }
    group.finish();
}

/// Frames of 20 ms as a session hears them.
fn frames() -> Vec<[i16; FRAME]> {
    let quantised = |x: &f32| (x * 32_768.0).round().clamp(-32_768.0, 32_767.0) as i16;
    let samples: Vec<i16> = recording("en-queue-periodic-announce.flac").iter().map(quantised).collect();
    samples.as_chunks().0.to_vec()
}

/// A frame of 20 ms: speech-like or not.
fn vad(criterion: &mut Criterion) {
    let frames = frames();
    let (mut frames, mut vad) = (frames.iter().cycle(), WebRtcVad::new(VadMode::default()));
    let mut group = criterion.benchmark_group("vad");
    group.throughput(Throughput::Elements(FRAME as u64));
    group.bench_function("a frame", |bencher| {
        bencher.iter(|| vad.is_speech(black_box(frames.next().expect("an endless stream"))));
    });
    group.finish();
}

/// A frame of 20 ms whose detection is known: where captions begin, end and are cut. `elem/s` are frames.
fn segmenter(criterion: &mut Criterion) {
    let mut vad = WebRtcVad::new(VadMode::default());
    let judge = |frame: &[i16; FRAME]| {
        let energy = frame.iter().map(|&x| (f32::from(x) / 32_768.0).powi(2)).sum::<f32>() / FRAME as f32;
        (vad.is_speech(frame), energy)
    };
    let frames: Vec<(bool, f32)> = frames().iter().map(judge).collect();
    let (mut frames, mut boundaries) = (frames.iter().cycle(), Vec::new());
    let mut segmenter = Segmenter::new(SpeechSegmentConfig::default());
    let mut group = criterion.benchmark_group("segmenter");
    group.throughput(Throughput::Elements(1));
    group.bench_function("a frame", |bencher| {
        bencher.iter(|| {
            let &(speech, energy) = frames.next().expect("an endless stream");
            boundaries.clear();
            segmenter.push(black_box(speech), black_box(energy), &vad, &mut boundaries);
            black_box(segmenter.ending());
        });
    });
    group.finish();
}

/// Of a window of 11 s: the utterance and a margin.
fn mel(criterion: &mut Criterion) {
    let speech = recording("en-queue-periodic-announce.flac");
    let samples: Vec<f32> = speech.into_iter().cycle().take(16_000 * SECONDS).collect();
    let (mut mel, mut out, frames) = (LogMel::new(80), Vec::new(), 100 * (SECONDS + 1));
    let mut group = criterion.benchmark_group("mel");
    group.bench_function(format!("{SECONDS} s"), |bencher| {
        bencher.iter(|| mel.compute(black_box(&samples), frames, &mut out));
    });
    let mut rows = Vec::new();
    mel.extend(&samples[..16_000 * (SECONDS - 1)], &mut rows);
    let known = rows.len();
    group.bench_function(format!("one second more, {} s known", SECONDS - 1), |bencher| {
        bencher.iter(|| {
            rows.truncate(known);
            mel.extend(black_box(&samples), &mut rows);
            mel.window(black_box(&samples), &rows, frames, &mut out)
        });
    });
    group.finish();
}

/// A packet of 20 ms, received and decoded: of the speech layer alone, and of the other at twice the rate.
fn receiver(criterion: &mut Criterion) {
    let speech = recording("en-queue-periodic-announce.flac");
    let mut group = criterion.benchmark_group("receiver");
    for (application, bitrate_bps) in [(Application::Voip, 24_000), (Application::Audio, 48_000)] {
        let mut encoder = OpusEncoder::new(16_000, 1, application).expect("a valid shape");
        encoder.bitrate_bps = bitrate_bps;
        let mut buffer = vec![0; opus_pure::MAX_PACKET_BYTES];
        let mut encode = |pcm: &[f32]| {
            let bytes = encoder.encode(pcm, 320, &mut buffer).expect("a valid frame");
            buffer[..bytes].to_vec()
        };
        let payloads: Vec<Vec<u8>> = speech.chunks_exact(320).map(&mut encode).collect();
        let mut receiver = RtpReceiver::new(RtpFormat::OPUS, ReorderWindow::default()).expect("a valid window");
        let mut count = 0_u32;
        group.bench_function(format!("a packet at {} kbit/s", bitrate_bps / 1000), |bencher| {
            bencher.iter(|| {
                let packet = RtpPacket {
                    at: Timestamp::from_nanos(i64::from(count) * 20_000_000),
                    ssrc: 1,
                    sequence: count as u16,
                    timestamp: count.wrapping_mul(960),
                    payload: &payloads[count as usize % payloads.len()],
                };
                receiver.handle_packet(packet).expect("drained");
                while let Some(piece) = receiver.poll_output() {
                    black_box(piece);
                }
                count += 1;
            });
        });
    }
    group.finish();
}

/// A host's part: 20 ms at 48 kHz into the ring of a track, while the pipeline's thread empties it.
fn push(criterion: &mut Criterion) {
    let says = |job: &DecodeJob| Ok(Hypothesis::certain("", job));
    let model = Arc::new(move |_: &Idle| ScriptedDecoder::new(says));
    let engine = Engine::start(EngineConfig::default(), model).expect("threads");
    let samples: Vec<i16> =
        recording("en-queue-periodic-announce.flac").iter().map(|x| (x * 32_767.0) as i16).collect();
    let mut group = criterion.benchmark_group("push");
    // The ring empties at the speed of the front end, which is what most of the time goes by with.
    group.sample_size(10).warm_up_time(Duration::from_millis(50)).measurement_time(Duration::from_millis(300));
    group.throughput(Throughput::Elements(960));
    group.bench_function("20 ms at 48000 Hz", |bencher| {
        bencher.iter_custom(|pushes| {
            let (mut sender, _) = engine.add_track(TrackConfig::new("alice")).expect("a track");
            let (mut took, mut taken) = (Duration::ZERO, 0);
            let mut packets = samples.chunks_exact(960).cycle();
            while taken < pushes {
                let at = Timestamp::from_nanos(taken as i64 * 20_000_000);
                let pcm = Pcm::mono(48_000, packets.next().expect("endless")).expect("a valid shape");
                let start = Instant::now();
                let pushed = sender.push(at, black_box(pcm));
                let time = start.elapsed();
                match pushed {
                    Ok(()) => (took, taken) = (took + time, taken + 1),
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            }
            took
        });
    });
    group.finish();
}

criterion_group!(benches, push, frontend, resample, vad, segmenter, mel, receiver);
criterion_main!(benches);
