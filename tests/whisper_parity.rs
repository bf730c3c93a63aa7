//! Whisper against references: a numpy oracle (files under testdata/whisper) and candle-transformers.
//!
//! `CUEWIRE_TEST_MODELS` names a folder that holds `tiny.en/`, `CUEWIRE_TEST_SPEECH` one that holds `en/*.flac` at 16 kHz.
//! Without them the tests that need them say so and check nothing.
#![cfg(feature = "whisper")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use cuewire::asr::whisper::mel::LogMel;
use cuewire::asr::whisper::testing::RandomModel;
use cuewire::asr::whisper::{
    CpuForward, Forward, Precision, Quantization, Step, WhisperDecoder, WhisperModel, convert,
};
use cuewire::asr::{Cancel, DecodeJob, Decoder, JobId};
use cuewire::audio::file::AudioFile;
use cuewire::config::LanguageSetting;

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/whisper").join(name)
}

fn floats(name: &str) -> Vec<f32> {
    let bytes = std::fs::read(testdata(name)).unwrap();
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn audio() -> Vec<f32> {
    let bytes = std::fs::read(testdata("audio.raw")).unwrap();
    bytes.chunks_exact(2).map(|b| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32768.0).collect()
}

fn references() -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(testdata("references.json")).unwrap()).unwrap()
}

fn folder(variable: &str, part: &str) -> Option<PathBuf> {
    match std::env::var_os(variable) {
        Some(folder) => Some(PathBuf::from(folder).join(part)),
        None => {
            // Not `eprintln!`: what tests print that way is shown only when they fail.
            let line = format!("SKIPPED: {variable} is not set; it should name a folder that holds {part}\n");
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            None
        }
    }
}

fn tiny(precision: Precision) -> Option<Arc<WhisperModel>> {
    static TINY: [OnceLock<Option<Arc<WhisperModel>>>; 2] = [OnceLock::new(), OnceLock::new()];
    let load = || Some(Arc::new(WhisperModel::load_as(folder("CUEWIRE_TEST_MODELS", "tiny.en")?, precision).unwrap()));
    TINY[usize::from(precision == Precision::Float)].get_or_init(load).clone()
}

fn assert_close(what: &str, ours: impl IntoIterator<Item = f32>, theirs: &[f32], tolerance: f32) {
    let mut count = 0;
    for (i, (a, b)) in ours.into_iter().zip(theirs).enumerate() {
        assert!((a - b).abs() <= tolerance, "{what}, element {i}: {a}, the reference has {b}");
        count += 1;
    }
    assert_eq!(count, theirs.len(), "{what}");
}

fn log_mel(audio: &[f32], bands: usize) -> Vec<f32> {
    let mut out = Vec::new();
    LogMel::new(bands).compute(audio, 3000, &mut out);
    out
}

#[test]
fn mel_is_the_reference() {
    let mel = log_mel(&audio(), 80);
    let sampled = (0..80).flat_map(|band| (0..480).step_by(8).map(move |t| (band, t)));
    assert_close("mel", sampled.map(|(band, t)| mel[t * 80 + band]), &floats("mel.f32"), 1e-4);
}

#[test]
fn encoder_and_first_logits_are_the_reference() {
    let Some(model) = tiny(Precision::Float) else { return };
    let mut forward = CpuForward::new(model.clone());
    forward.encode(0, &log_mel(&audio(), 80), 1500, &Cancel::new()).unwrap();
    let rows: Vec<usize> = serde_json::from_value(references()["encoder_rows"].clone()).unwrap();
    let width = model.config().d_model;
    let encoded = forward.encoded();
    let sampled = rows.iter().flat_map(|&row| &encoded[row * width..(row + 1) * width]).copied();
    assert_close("encoder", sampled, &floats("encoder.f32"), 1e-2);
    let (start, no_timestamps) = (50257, 50362);
    let mut logits = Vec::new();
    let step = Step { segment: 0, tokens: &[start, no_timestamps], logits_from: 1 };
    forward.decode(&[step], model.config().vocab_size, &mut logits, None).unwrap();
    assert_close("logits", logits.iter().step_by(4).copied(), &floats("logits.f32"), 1e-2);
}

/// The stated bound of 8 bits on real activations: what rounding to 127 steps does to the encoder's output, and to what
/// is said next.
#[test]
fn eight_bits_stay_near_the_float_path() {
    let (Some(float), Some(int8)) = (tiny(Precision::Float), tiny(Precision::Int8)) else { return };
    let mel = log_mel(&audio(), 80);
    for positions in [1500, 320] {
        let run = |model: &Arc<WhisperModel>| {
            let mut forward = CpuForward::new(model.clone());
            forward.encode(0, &mel, positions, &Cancel::new()).unwrap();
            let mut logits = Vec::new();
            let step = Step { segment: 0, tokens: &[50257, 50362], logits_from: 1 };
            forward.decode(&[step], 50257, &mut logits, None).unwrap();
            (forward.encoded().to_vec(), logits)
        };
        let ((exact, exact_logits), (ours, logits)) = (run(&float), run(&int8));
        let power = |v: &mut dyn Iterator<Item = f32>| v.map(|v| f64::from(v).powi(2)).sum::<f64>();
        let off = power(&mut ours.iter().zip(&exact).map(|(a, b)| a - b)) / power(&mut exact.iter().copied());
        assert!(off.sqrt() < 0.05, "the encoder's output is off by {:.4} of its size", off.sqrt());
        let largest = logits.iter().zip(&exact_logits).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(largest < 0.6, "a logit is off by {largest}");
    }
}

/// The silence that is not computed is hardly missed: the distribution of every token of ten utterances against that of
/// the whole window.
#[test]
fn the_cached_silence_stands_for_the_window() {
    let Some(model) = tiny(Precision::Float) else { return };
    let Some(speech) = folder("CUEWIRE_TEST_SPEECH", "en") else { return };
    let (mut forward, mut front_end) = (CpuForward::new(model), LogMel::new(80));
    let (mut divergence, mut count, mut mel) = (0.0, 0, Vec::new());
    for utterance in references()["utterances"].as_array().unwrap() {
        let samples = read_flac(&speech.join(utterance["file"].as_str().unwrap()));
        let tokens: Vec<u32> = serde_json::from_value(utterance["tokens"].clone()).unwrap();
        let shortened = forward.positions(samples.len()).unwrap();
        assert!(shortened < samples.len() / 320 + 96, "{shortened} positions of {} samples", samples.len());
        let mut ask = |positions: usize| {
            front_end.compute(&samples, 2 * positions + 1, &mut mel);
            forward.encode(0, &mel, positions, &Cancel::new()).unwrap();
            let mut logits = Vec::new();
            let step = Step { segment: 0, tokens: &tokens[..tokens.len() - 1], logits_from: 1 };
            forward.decode(&[step], 50257, &mut logits, None).unwrap();
            logits
        };
        let log_softmax = |logits: &[f32]| {
            let total = logits.iter().map(|v| f64::from(*v).exp()).sum::<f64>().ln();
            logits.iter().map(|v| f64::from(*v) - total).collect::<Vec<_>>()
        };
        for (p, q) in ask(1500).chunks(50257).zip(ask(shortened).chunks(50257)) {
            let (p, q) = (log_softmax(p), log_softmax(q));
            divergence += p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
            count += 1;
        }
    }
    let mean = divergence / f64::from(count);
    assert!(mean < 0.006, "{mean} nats a token over {count} tokens");
}

fn read_flac(path: &Path) -> Vec<f32> {
    let mut file = AudioFile::open(path).unwrap();
    let mut samples = Vec::new();
    while let Some(block) = file.next_block().unwrap() {
        assert_eq!((block.sample_rate, block.channels), (16_000, 1), "{}", path.display());
        samples.extend_from_slice(block.samples);
    }
    samples
}

/// Silence that stands for the window, and 8 bits, may let two tokens change places that are as likely as each other: a
/// comma and a full stop in one of the ten. No word may change.
#[test]
fn ten_utterances_have_the_reference_text() {
    let Some(speech) = folder("CUEWIRE_TEST_SPEECH", "en") else { return };
    for precision in [Precision::Float, Precision::Int8] {
        let Some(model) = tiny(precision) else { return };
        let mut decoder = WhisperDecoder::new(model);
        let mut other = Vec::new();
        for utterance in references()["utterances"].as_array().unwrap() {
            let file = utterance["file"].as_str().unwrap();
            let job = DecodeJob::new(JobId(0), read_flac(&speech.join(file)).into(), LanguageSetting::default());
            let found = decoder.decode(&job, &Cancel::new()).unwrap();
            let text = utterance["text"].as_str().unwrap();
            let words = |text: &str| text.to_lowercase().replace(|c: char| c.is_ascii_punctuation(), "");
            assert_eq!(words(&found.text), words(text), "{file}");
            // The reference lists prompt and end too.
            let tokens: Vec<u32> = serde_json::from_value(utterance["tokens"].clone()).unwrap();
            if found.tokens != tokens[2..tokens.len() - 1] || found.text != text {
                other.push(found.text.clone());
            }
            assert_eq!(found.suppressed, None, "{file}");
            assert!(
                (-0.7..0.0).contains(&found.mean_log_probability) && found.no_speech_probability < 0.6,
                "{found:?}"
            );
        }
        assert!(other.len() <= 1, "{precision:?}: {other:?}");
    }
}

#[test]
fn one_file_in_half_precision_says_the_same() {
    let Some(model) = tiny(Precision::Int8) else { return };
    let decode = |model| {
        let job = DecodeJob::new(JobId(0), audio().into(), LanguageSetting::default());
        WhisperDecoder::new(Arc::new(model)).decode(&job, &Cancel::new()).unwrap()
    };
    let expected = references()["utterances"][1]["text"].as_str().unwrap().to_string();
    for (form, name) in [(Quantization::F16, "f16"), (Quantization::Q8_0, "q8_0")] {
        let mut file = Vec::new();
        convert(&model, form, &mut file).unwrap();
        let model = WhisperModel::from_bytes(file).unwrap();
        assert_eq!((model.info().name.as_str(), model.info().quantization), ("tiny.en", name));
        assert_eq!(decode(model).text, expected);
    }
}

/// An independent implementation on the same weights. It takes the tanh GELU, which is off by up to 5e-4 a unit, hence
/// the tolerance; a wrong transposition, scale or mask is off by far more.
#[test]
fn candle_transformers_agrees() {
    use candle_core::{Device, Tensor};
    use candle_transformers::models::whisper::{Config, model::Whisper};

    let random = RandomModel { positions: 1500, ..RandomModel::default() };
    let tensors = random.tensors().into_iter().map(|(name, shape, mean)| {
        let values = random.values(&name, &shape, mean);
        (name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
    });
    let builder = candle_nn::VarBuilder::from_tensors(tensors.collect(), candle_core::DType::F32, &Device::Cpu);
    let config: Config = serde_json::from_value(random.config()).unwrap();
    let mut theirs = Whisper::load(&builder, config).unwrap();
    let mel = log_mel(&audio(), 80);
    let input = Tensor::from_vec(mel.clone(), (1, 3000, 80), &Device::Cpu).unwrap().transpose(1, 2).unwrap();
    let input = input.contiguous().unwrap();
    let encoded = theirs.encoder.forward(&input, true).unwrap();
    let tokens = [95u32, 96, 100, 104, 7, 8, 9];
    let input = Tensor::new(&tokens, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    let decoded = theirs.decoder.forward(&input, &encoded, true).unwrap();
    let logits = theirs.decoder.final_linear(&decoded).unwrap();

    let model = WhisperModel::from_bytes_as(random.gguf().unwrap(), Precision::Float).unwrap();
    let vocabulary = model.config().vocab_size;
    let mut forward = CpuForward::new(Arc::new(model));
    forward.encode(0, &mel, 1500, &Cancel::new()).unwrap();
    let theirs = encoded.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_close("encoder", forward.encoded().iter().copied(), &theirs, 5e-3);
    let mut ours = Vec::new();
    forward.decode(&[Step { segment: 0, tokens: &tokens, logits_from: 0 }], vocabulary, &mut ours, None).unwrap();
    assert_close("logits", ours, &logits.flatten_all().unwrap().to_vec1::<f32>().unwrap(), 5e-3);
}
