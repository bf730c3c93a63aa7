//! Recognition, from the kernels to an utterance: `cargo bench --bench recognition`. How to read it: benches/README.md.
//!
//! The model is the one under testdata/; `CUEWIRE_BENCH_MODEL` names another. All on one thread.

#![allow(clippy::expect_used, clippy::panic, reason = "a bench stops where its input is missing")]

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use cuewire::asr::whisper::mel::LogMel;
use cuewire::asr::whisper::testing::{Kernel, Probe, float_peak, int8_peak, level};
use cuewire::asr::whisper::{CpuForward, Forward, Step, WhisperDecoder, WhisperModel};
use cuewire::asr::{Cancel, DecodeJob, Decoder, JobId};
use cuewire::audio::file::AudioFile;
use cuewire::caption::CaptionEvent;
use cuewire::config::{Config, LanguageSetting};
use cuewire::{Input, Output, Pcm, Session, Timestamp};

/// Operations a nanosecond: the median of many runs.
fn giga(mut run: impl FnMut() -> f64) -> f64 {
    let mut found: Vec<f64> = (0..101)
        .map(|_| {
            let start = Instant::now();
            let operations = run();
            operations / start.elapsed().as_nanos().max(1) as f64
        })
        .collect();
    found.sort_by(f64::total_cmp);
    found[found.len() / 2]
}

/// Each kernel at the shapes of `tiny` and `base`, and what share of the processor's peak it reaches.
fn kernels(criterion: &mut Criterion) {
    let (int8, float) = (giga(int8_peak), giga(float_peak));
    println!("kernels of level {}: peak of 8-bit products {int8:.0} Gop/s, of floats {float:.0} Gop/s\n", level());
    let mut group = criterion.benchmark_group("kernels");
    let mut product = |kernel: Kernel, rows: usize, inputs: usize, outputs: usize| {
        let operations = (2 * rows * inputs * outputs) as u64;
        let mut probe = Probe::new(kernel, rows, inputs, outputs);
        let name = format!("{kernel:?} {rows} x {inputs} x {outputs}");
        let reached = giga(|| {
            probe.product();
            operations as f64
        });
        let peak = if kernel == Kernel::Float { float } else { int8 };
        println!("{name}: {reached:.0} Gop/s, {:.0} % of the peak", 100.0 * reached / peak);
        group.throughput(Throughput::Elements(operations));
        group.bench_function(&name, |bencher| bencher.iter(|| probe.product()));
    };
    for (width, inner) in [(384, 1536), (512, 2048)] {
        for (inputs, outputs) in [(width, width), (width, inner), (inner, width)] {
            product(Kernel::Rows, 160, inputs, outputs);
        }
        product(Kernel::Float, 160, width, width);
        for rows in [1, 4, 16] {
            product(Kernel::Blocks, rows, width, 50_256);
        }
    }
    for width in [384, 512] {
        let (rows, keys) = (160, 405);
        let mut probe = Probe::new(Kernel::Rows, rows, width, 4 * width);
        probe.file(keys);
        let operations = (4 * rows * keys * width) as u64;
        let name = format!("attention {rows} x {keys} x {width}");
        let reached = giga(|| {
            probe.attention();
            operations as f64
        });
        println!("{name}: {reached:.0} Gop/s, {:.0} % of the peak", 100.0 * reached / float);
        group.throughput(Throughput::Elements(operations));
        group.bench_function(&name, |bencher| bencher.iter(|| probe.attention()));
        group.throughput(Throughput::Elements((rows * width) as u64));
        group.bench_function(format!("quantise {rows} x {width}"), |bencher| bencher.iter(|| probe.quantise()));
        group.bench_function(format!("layer norm {rows} x {width}"), |bencher| bencher.iter(|| probe.layer_norm()));
        let mut probe = Probe::new(Kernel::Rows, rows, width, 4 * width);
        group.throughput(Throughput::Elements((2 * rows * width * 4 * width) as u64));
        group.bench_function(format!("Rows {rows} x {width} x {} with GELU", 4 * width), |bencher| {
            bencher.iter(|| probe.product_gelu());
        });
    }
    group.finish();
}

fn model() -> Arc<WhisperModel> {
    let shipped = || Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/models/whisper-base-q8_0.gguf");
    let path = std::env::var_os("CUEWIRE_BENCH_MODEL").map_or_else(shipped, PathBuf::from);
    Arc::new(WhisperModel::load(path).expect("a model"))
}

/// A test recording at 16 kHz.
fn recording(name: &str) -> Arc<[f32]> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/speech").join(name);
    let mut file = AudioFile::open(&path).expect("a recording of the repository");
    let mut samples = Vec::new();
    while let Some(block) = file.next_block().expect("a whole recording") {
        samples.extend_from_slice(block.samples);
    }
    samples.into()
}

fn network(criterion: &mut Criterion) {
    let model = model();
    let speech = recording("en-agent-alreadyon.flac");
    let mut forward = CpuForward::new(model.clone());
    let mut group = criterion.benchmark_group("encoder");
    group.sample_size(10);
    let mut log_mel = Vec::new();
    let whole: Vec<f32> = speech.iter().copied().cycle().take(480_000).collect();
    LogMel::new(model.config().num_mel_bins).compute(&whole, 3000, &mut log_mel);
    for seconds in 1..=10usize {
        let positions = forward.positions(seconds * 16_000).unwrap_or(1500);
        group.throughput(Throughput::Elements(positions as u64));
        group.bench_function(BenchmarkId::new("seconds", seconds), |bencher| {
            bencher.iter(|| forward.encode(0, black_box(&log_mel), positions, &Cancel::new()).expect("a valid shape"));
        });
    }
    group.bench_function("the whole window", |bencher| {
        bencher.iter(|| forward.encode(0, black_box(&log_mel), 1500, &Cancel::new()).expect("a valid shape"));
    });
    group.finish();

    let mut group = criterion.benchmark_group("decoder");
    let positions = forward.positions(80_000).unwrap_or(1500);
    forward.encode(0, &log_mel, positions, &Cancel::new()).expect("a valid shape");
    let (vocabulary, mut logits) = (50_257, Vec::new());
    for count in [1, 4, 8, 16, 32usize] {
        let tokens: Vec<u32> = (0..count as u32).map(|i| 300 + i).collect();
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::new("tokens in one pass", count), |bencher| {
            bencher.iter(|| {
                forward.rewind(0, 0);
                let step = Step { segment: 0, tokens: black_box(&tokens), logits_from: 0 };
                forward.decode(&[step], vocabulary, &mut logits, None).expect("valid tokens");
            });
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("utterance of 5.5 s");
    group.sample_size(20);
    let mut decoder = WhisperDecoder::new(model);
    let mut job = DecodeJob::new(JobId(0), speech, LanguageSetting::default());
    let mut decode = |job: &DecodeJob| decoder.decode(black_box(job), &Cancel::new()).expect("a hypothesis");
    let tokens = decode(&job).tokens;
    group.bench_function("alone", |bencher| bencher.iter(|| decode(&job)));
    job.draft = tokens.into();
    group.bench_function("with its draft", |bencher| bencher.iter(|| decode(&job)));
    group.finish();
}

/// How long the final takes, from the push that closes the caption on.
fn final_after(decoder: &mut WhisperDecoder, config: &Config, samples: &[f32]) -> Duration {
    let mut session = Session::new("alice", config.clone());
    for (i, packet) in samples.chunks(320).enumerate() {
        let at = Timestamp::from_nanos(i as i64 * 20_000_000);
        let pushed = Instant::now();
        session
            .handle_input(Input::Audio { at, pcm: Pcm::mono(16_000, packet).expect("a valid shape") })
            .expect("in order");
        loop {
            match session.poll_output() {
                Output::Decode(job) => {
                    let result = decoder.decode(&job, &Cancel::new());
                    session.handle_input(Input::Decoded { job: job.id, result }).expect("asked for");
                }
                Output::Event(CaptionEvent::Final { start_time, end_time, .. }) => {
                    let took = pushed.elapsed();
                    let lasted_ms = end_time.nanos_since(start_time) / 1_000_000;
                    assert!((4_500..5_500).contains(&lasted_ms), "the caption lasts {lasted_ms} ms");
                    return took;
                }
                Output::Wait(_) => break,
                _ => {}
            }
        }
    }
    panic!("no caption became final");
}

/// A caption of 5 s, from the silence that ends it to its final: through a session, without the early final that would
/// hide the decode in that silence. With interims their last one is its draft.
fn finalise(criterion: &mut Criterion) {
    let mut decoder = WhisperDecoder::new(model());
    let samples = [&recording("en-agent-alreadyon.flac")[..], &[0.0; 2 * 16_000]].concat();
    let mut group = criterion.benchmark_group("finalise 5 s");
    group.sample_size(10);
    for (name, interval_ms) in [("without interims", 0), ("with interims", 1000)] {
        let mut config = Config::default();
        config.early_finals = false;
        config.interim_interval_ms = interval_ms.try_into().expect("allowed");
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|times| (0..times).map(|_| final_after(&mut decoder, &config, &samples)).sum());
        });
    }
    group.finish();
}

criterion_group!(benches, kernels, network, finalise);
criterion_main!(benches);
