//! How far the shortened window, and 8 bits, are from what the whole window says in single precision.
//!
//! `divergence MODEL SPEECH [--language en] [--limit 40] [--noise 10] [--cut 5] --variant float|int8[,margin=64,…] …`
//!
//! Every utterance of `SPEECH/manifest.jsonl` is decoded with the whole window in f32. Then each variant is asked for its
//! distribution at each of those tokens: the mean Kullback–Leibler divergence a token (nats), the share of tokens whose
//! argmax changes, and the share of utterances whose own text is another. A word error rate of a few hundred words
//! moves by a point when one near-tie flips; this does not.
//! `--noise DB` adds white noise so far below the speech. `--cut S` joins the utterances and cuts every S seconds,
//! wherever that falls. A variant may set margin, last, group, stride, floor; what they mean, `src/asr/whisper/tail.rs` says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a measurement stops where it cannot go on")]

use std::path::Path;
use std::sync::Arc;

use cuewire::asr::whisper::mel::LogMel;
use cuewire::asr::whisper::{CpuForward, Forward, Precision, Step, TailShape, WhisperDecoder, WhisperModel};
use cuewire::asr::{Cancel, DecodeJob, Decoder, JobId};
use cuewire::audio::file::AudioFile;
use cuewire::config::{Language, LanguageSetting};

fn read(path: &Path) -> Vec<f32> {
    let mut file = AudioFile::open(path).expect("a recording");
    let mut samples = Vec::new();
    while let Some(block) = file.next_block().expect("a whole recording") {
        assert_eq!((block.sample_rate, block.channels), (16_000, 1));
        samples.extend_from_slice(block.samples);
    }
    samples
}

struct Variant {
    name: String,
    model: Arc<WhisperModel>,
    shape: TailShape,
    kl: f64,
    changed: usize,
    other: usize,
    fallbacks: usize,
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let top = logits.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    let total = logits.iter().map(|v| f64::from(v - top).exp()).sum::<f64>().ln();
    logits.iter().map(|v| f64::from(v - top) - total).collect()
}

fn argmax(x: &[f64]) -> usize {
    (0..x.len()).max_by(|&a, &b| x[a].total_cmp(&x[b])).unwrap()
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (folder, speech) = (&args[0], Path::new(&args[1]));
    let option = |name: &str| args.iter().position(|a| a == name).map(|i| args[i + 1].clone());
    let language: Language = option("--language").unwrap_or("en".into()).parse().unwrap();
    let limit: usize = option("--limit").map_or(usize::MAX, |v| v.parse().unwrap());
    let noise: Option<f32> = option("--noise").map(|v| v.parse().unwrap());
    let cut: Option<f32> = option("--cut").map(|v| v.parse().unwrap());
    let load = |precision| WhisperModel::load_as(folder, precision).unwrap();
    let reference = Arc::new(load(Precision::Float));
    let mut variants = Vec::new();
    for (i, _) in args.iter().enumerate().filter(|(_, a)| *a == "--variant") {
        let text = &args[i + 1];
        let mut shape = TailShape::default();
        let mut parts = text.split(',');
        let precision = if parts.next() == Some("float") { Precision::Float } else { Precision::Int8 };
        for part in parts {
            let (name, value) = part.split_once('=').expect("name=value");
            match name {
                "margin" => shape.margin = value.parse().unwrap(),
                "last" => shape.last = value.parse().unwrap(),
                "group" => shape.group = value.parse().unwrap(),
                "stride" => shape.stride = value.parse().unwrap(),
                "floor" => shape.floor = value.parse().unwrap(),
                _ => panic!("{name}"),
            }
        }
        let model = Arc::new(load(precision).with_tail(shape).unwrap());
        variants.push(Variant { name: text.clone(), model, shape, kl: 0.0, changed: 0, other: 0, fallbacks: 0 });
    }
    let manifest = std::fs::read_to_string(speech.join("manifest.jsonl")).unwrap();
    let files = manifest.lines().map(|line| {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        row["file"].as_str().unwrap().to_string()
    });
    let mut pieces: Vec<Vec<f32>> =
        files.take(if cut.is_some() { usize::MAX } else { limit }).map(|f| read(&speech.join(f))).collect();
    if let Some(seconds) = cut {
        let joined = pieces.concat();
        pieces = joined.chunks((seconds * 16_000.0) as usize).take(limit).map(<[f32]>::to_vec).collect();
    }
    if let Some(below) = noise {
        let mut state = 1u32;
        for piece in &mut pieces {
            let power = piece.iter().map(|v| v * v).sum::<f32>() / piece.len() as f32;
            let amplitude = (power * 10f32.powf(-below / 10.0) * 3.0).sqrt();
            for v in piece {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *v += amplitude * ((state >> 8) as f32 / (1 << 23) as f32 - 1.0);
            }
        }
    }
    let setting = LanguageSetting::Fixed(language);
    let mut mel = LogMel::new(reference.config().num_mel_bins);
    let mut window = Vec::new();
    let mut whole = WhisperDecoder::with_forward(reference.clone(), Whole(CpuForward::new(reference.clone())));
    let vocabulary = if reference.is_multilingual() { 50_258 } else { 50_257 };
    let (mut tokens_in_all, mut count) = (0, 0);
    for piece in &pieces {
        let job = DecodeJob::new(JobId(0), piece.clone().into(), setting);
        let found = whole.decode(&job, &Cancel::new()).unwrap();
        let mut tokens: Vec<u32> = if reference.is_multilingual() {
            vec![
                50_258,
                reference.token(&format!("<|{language}|>")).unwrap(),
                reference.token("<|transcribe|>").unwrap(),
                reference.token("<|notimestamps|>").unwrap(),
            ]
        } else {
            vec![50_257, reference.token("<|notimestamps|>").unwrap()]
        };
        let prompt = tokens.len();
        tokens.extend(&found.tokens);
        let mut ask = |forward: &mut CpuForward, positions: usize| {
            mel.compute(piece, if positions == 1500 { 3000 } else { 2 * positions + 1 }, &mut window);
            forward.encode(0, &window, positions, &Cancel::new()).unwrap();
            let mut logits = Vec::new();
            let step = Step { segment: 0, tokens: &tokens, logits_from: prompt - 1 };
            forward.decode(&[step], vocabulary, &mut logits, None).unwrap();
            logits
        };
        let right = ask(&mut CpuForward::new(reference.clone()), 1500);
        let right: Vec<Vec<f64>> = right.chunks(vocabulary).map(log_softmax).collect();
        tokens_in_all += right.len();
        count += 1;
        for variant in &mut variants {
            let mut forward = CpuForward::new(variant.model.clone());
            let positions = if variant.shape.margin >= 1500 { None } else { forward.positions(piece.len()) };
            let theirs = ask(&mut forward, positions.unwrap_or(1500));
            for (p, q) in right.iter().zip(theirs.chunks(vocabulary)) {
                let q = log_softmax(q);
                variant.kl +=
                    p.iter().zip(&q).filter(|(p, _)| **p > -30.0).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
                variant.changed += usize::from(argmax(p) != argmax(&q));
            }
            let own = WhisperDecoder::new(variant.model.clone()).decode(&job, &Cancel::new()).unwrap();
            variant.other += usize::from(own.text != found.text);
            variant.fallbacks += usize::from(own.fallback);
        }
    }
    println!("{count} utterances, {tokens_in_all} tokens");
    for v in &variants {
        println!(
            "{:60} KL {:.5}  argmax changed {:.2} %  other text {:.1} %  fallback {:.1} %",
            v.name,
            v.kl / tokens_in_all as f64,
            100.0 * v.changed as f64 / tokens_in_all as f64,
            100.0 * v.other as f64 / f64::from(count),
            100.0 * v.fallbacks as f64 / f64::from(count),
        );
    }
}

/// Never less than the whole window.
struct Whole(CpuForward);

impl Forward for Whole {
    fn positions(&self, _: usize) -> Option<usize> {
        None
    }
    fn encode(
        &mut self,
        segment: usize,
        mel: &[f32],
        positions: usize,
        cancel: &Cancel,
    ) -> Result<(), cuewire::asr::DecodeError> {
        self.0.encode(segment, mel, positions, cancel)
    }
    fn decode(
        &mut self,
        steps: &[Step<'_>],
        vocabulary: usize,
        logits: &mut Vec<f32>,
        attention: Option<&mut cuewire::asr::whisper::CrossAttention>,
    ) -> Result<(), cuewire::asr::DecodeError> {
        self.0.decode(steps, vocabulary, logits, attention)
    }
    fn position(&self, segment: usize) -> usize {
        self.0.position(segment)
    }
    fn rewind(&mut self, segment: usize, position: usize) {
        self.0.rewind(segment, position);
    }
}
