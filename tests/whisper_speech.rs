//! Whisper with the model and the recordings that the repository holds.
#![cfg(all(feature = "whisper", feature = "files"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use cuewire::asr::whisper::{WhisperDecoder, WhisperModel, testing};
use cuewire::asr::{Cancel, DecodeJob, Decoder, Hypothesis, JobId};
use cuewire::audio::file::AudioFile;
use cuewire::audio::{Pcm, Resampler};
use cuewire::config::{Language, LanguageSetting, Task, Vocabulary};

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

fn decode(job: &DecodeJob) -> Hypothesis {
    static MODEL: OnceLock<Arc<WhisperModel>> = OnceLock::new();
    let load = || Arc::new(WhisperModel::load(testdata("models/whisper-base-q8_0.gguf")).unwrap());
    WhisperDecoder::new(MODEL.get_or_init(load).clone()).decode(job, &Cancel::new()).unwrap()
}

/// Mono at 16 kHz.
fn speech(name: &str) -> Vec<f32> {
    let mut file = AudioFile::open(&testdata("speech").join(name)).unwrap();
    let mut resampler = Resampler::new(file.sample_rate()).unwrap();
    let (mut mono, mut samples) = (Vec::new(), Vec::new());
    while let Some(block) = file.next_block().unwrap() {
        let pcm = Pcm::interleaved(block.sample_rate, block.channels, block.samples).unwrap();
        mono.clear();
        pcm.mix_into(0, pcm.frames(), &mut mono);
        resampler.process(&mono, &mut samples);
    }
    resampler.finish(&mut samples);
    samples
}

fn job(audio: Vec<f32>, language: LanguageSetting) -> DecodeJob {
    DecodeJob::new(JobId(0), audio.into(), language)
}

#[test]
fn words_are_where_they_are_said() {
    // Two sentences with a pause that is longer than any of theirs.
    let (first, second) = (speech("en-number-not-answering.flac"), speech("en-tt-monkeysintro.flac"));
    let pause = 24_000;
    let audio = [first.clone(), vec![0.0; pause], second.clone()].concat();
    let length = audio.len() as u32;
    let mut job = job(audio, LanguageSetting::Fixed(Language::ENGLISH));
    let without = decode(&job);
    job.word_times = true;
    let found = decode(&job);
    assert!(without.words.is_empty() && !found.words.is_empty());
    assert_eq!(without, Hypothesis { words: Vec::new(), ..found.clone() }, "times change nothing else");

    let texts: Vec<&str> = found.words.iter().map(|word| word.text.as_str()).collect();
    assert_eq!(texts.join(" "), found.text);
    let said = texts.iter().map(|text| text.to_lowercase()).collect::<Vec<_>>().join(" ");
    assert!(said.starts_with("the number is not answering") && said.contains("monkeys"), "{said}");
    for pair in found.words.windows(2) {
        assert!(pair[0].start <= pair[0].end && pair[0].end <= pair[1].start, "{pair:?}");
    }
    assert!(found.words.iter().all(|word| word.end <= length && word.probability > 0.0 && word.probability <= 1.0));
    // 100 ms of leeway on either side of the pause.
    let (pause_from, pause_to) = (first.len() as u32, (first.len() + pause) as u32);
    for (i, word) in found.words.iter().enumerate() {
        let fits = if i < 5 { word.end < pause_from + 1600 } else { word.start + 1600 > pause_to };
        assert!(fits, "{word:?} and a pause from {pause_from} to {pause_to}");
    }
}

#[test]
fn the_language_is_heard_and_how_surely() {
    for (name, language) in
        [("fr-conf-now-recording.flac", "fr"), ("ru-vm-reenterpassword.flac", "ru"), ("en-agent-alreadyon.flac", "en")]
    {
        let found = decode(&job(speech(name), LanguageSetting::Auto));
        let probability = found.language_probability.unwrap();
        assert!(found.language.to_string() == language && (0.5..=1.0).contains(&probability), "{name}: {found:?}");
        let told = decode(&job(speech(name), LanguageSetting::Fixed(found.language)));
        assert_eq!((told.text, told.language_probability), (found.text, None), "{name}");
    }
}

#[test]
fn french_is_translated_and_english_is_left() {
    let mut french = job(speech("fr-conf-now-recording.flac"), LanguageSetting::Fixed("fr".parse().unwrap()));
    french.task = Task::Translate;
    let found = decode(&french);
    assert!(found.translated && found.text.to_lowercase().contains("is now"), "{found:?}");
    let mut english = job(speech("en-tt-monkeysintro.flac"), LanguageSetting::Fixed(Language::ENGLISH));
    english.task = Task::Translate;
    assert!(!decode(&english).translated);
}

#[test]
fn a_vocabulary_does_not_leak() {
    let terms = ["Kubernetes", "Zbigniew", "Anneliese Quaresma", "monkeys"].map(str::to_string).to_vec();
    // Clean, and in white noise at 10, 3 and 0 dB, where Whisper likes to write what it was told to expect.
    for (name, snr_db) in ["en-tt-monkeysintro.flac", "austen-0880.flac", "en-agent-alreadyon.flac"]
        .into_iter()
        .flat_map(|name| [f32::INFINITY, 10.0, 3.0, 0.0].map(|snr| (name, snr)))
    {
        let mut audio = speech(name);
        let level = (audio.iter().map(|x| x * x).sum::<f32>() / audio.len() as f32).sqrt();
        let peak = 3f32.sqrt() * level * 10f32.powf(-snr_db / 20.0);
        audio.iter_mut().zip(testing::noise(1 << 20, 3, peak)).for_each(|(x, noise)| *x += noise);
        let mut job = job(audio, LanguageSetting::Fixed(Language::ENGLISH));
        job.vocabulary = Vocabulary::try_from(terms.clone()).unwrap();
        let found = decode(&job);
        let leaked = terms[..3].iter().any(|term| found.text.contains(term));
        assert!(found.suppressed.is_some() || !(found.text.is_empty() || leaked), "{name}, {snr_db} dB: {found:?}");
    }
    // Nor where nothing is said.
    let mut silent = job(vec![0.0; 32_000], LanguageSetting::Fixed(Language::ENGLISH));
    silent.vocabulary = Vocabulary::try_from(terms).unwrap();
    let found = decode(&silent);
    assert!(found.suppressed.is_some(), "{found:?}");
}
