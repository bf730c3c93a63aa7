//! One checkpoint in every container: the same weights say the same, and no file makes the loader panic.
#![cfg(feature = "whisper")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::quantized::GgmlDType;
use cuewire::asr::whisper::{
    CpuForward, Forward, Lack, Precision, Quantization, Step, WhisperDecoder, WhisperModel, convert, lack, testing,
};
use cuewire::asr::{Cancel, DecodeJob, Decoder, Hypothesis, JobId};
use cuewire::config::LanguageSetting;

#[path = "support/containers.rs"]
mod containers;

use containers::{Checkpoint, ENGLISH, Form, MULTILINGUAL, Sizes, TURBO};

fn noise(count: usize, seed: u32) -> Vec<f32> {
    testing::noise(count, seed, 0.5)
}

fn load(path: &Path) -> Arc<WhisperModel> {
    Arc::new(WhisperModel::load(path).unwrap_or_else(|e| panic!("{e}")))
}

fn decode(model: &Arc<WhisperModel>) -> Hypothesis {
    let job = DecodeJob::new(JobId(0), noise(12_000, 4).into(), LanguageSetting::Auto);
    WhisperDecoder::new(model.clone()).decode(&job, &Cancel::new()).unwrap()
}

/// In single precision, so that nothing is rounded that the file did not round.
fn logits(path: &Path) -> Vec<f32> {
    let model = WhisperModel::load_as(path, Precision::Float).unwrap_or_else(|e| panic!("{e}"));
    let config = model.config().clone();
    let mut forward = CpuForward::new(Arc::new(model));
    forward.encode(0, &noise(config.num_mel_bins * 100, 1), 50, &Cancel::new()).unwrap();
    let mut logits = Vec::new();
    let step = Step { segment: 0, tokens: &[50_258, 7, 300, 1999], logits_from: 0 };
    forward.decode(&[step], config.vocab_size, &mut logits, None).unwrap();
    logits
}

/// A folder or file for each container of weights in this form.
fn write(checkpoint: &Checkpoint, root: &Path, form: Form) -> Vec<(&'static str, PathBuf)> {
    let folder = |name: &str| {
        let folder = root.join(name);
        fs::create_dir_all(&folder).unwrap();
        folder
    };
    let mut written = Vec::new();
    if matches!(form, Form::F32 | Form::F16 | Form::Bf16) {
        for (name, shards) in [("whole", 1), ("sharded", 3)] {
            checkpoint.write_folder(&folder(name), form, shards);
            written.push(("Hugging Face folder", root.join(name)));
        }
    }
    if matches!(form, Form::F32 | Form::F16 | Form::Blocks(_)) {
        let candle = folder("candle").join("model-small-xyz.gguf");
        checkpoint.write_candle(&candle, form, false);
        checkpoint.write_texts(&root.join("candle"), "-small");
        written.push(("GGUF (candle)", candle));
        // Its name says nothing.
        let ggml = root.join("weights");
        fs::write(&ggml, checkpoint.ggml(form)).unwrap();
        written.push(("ggml (whisper.cpp)", ggml));
    }
    if !matches!(form, Form::Blocks(_)) {
        for (name, vocabulary) in
            [("ct2", None), ("ct2-json", Some("vocabulary.json")), ("ct2-txt", Some("vocabulary.txt"))]
        {
            let folder = folder(name);
            fs::write(folder.join("model.bin"), checkpoint.ct2(form)).unwrap();
            match vocabulary {
                None => fs::write(folder.join("tokenizer.json"), checkpoint.tokenizer().to_string()).unwrap(),
                Some(name) => fs::write(folder.join(name), checkpoint.vocabulary(name.ends_with("json"))).unwrap(),
            }
            let config = r#"{"alignment_heads": null, "lang_ids": [50259], "suppress_ids": [-1]}"#;
            fs::write(folder.join("config.json"), config).unwrap();
            written.push(("CTranslate2", folder));
        }
    }
    written
}

fn all_say_the_same(sizes: Sizes, form: Form) {
    let checkpoint = Checkpoint::new(sizes);
    let root = tempfile::tempdir().unwrap();
    let written = write(&checkpoint, root.path(), form);
    let mut said: Option<(Hypothesis, Vec<f32>)> = None;
    for (container, path) in &written {
        let model = load(path);
        let info = model.info();
        assert_eq!(info.container, *container);
        assert_eq!((info.mel_bands, info.vocabulary), (sizes.bands, sizes.vocabulary), "{container}");
        assert_eq!(model.is_multilingual(), sizes.vocabulary > 51_864, "{container}");
        let found = (decode(&model), logits(path));
        assert!(found.0.tokens.len() > 3 && !found.0.text.is_empty(), "{:?}", found.0);
        match &said {
            None => said = Some(found),
            Some(said) => {
                assert_eq!(found.0, said.0, "{} in {form:?}", path.display());
                assert!(found.1 == said.1, "the logits of {} in {form:?} are others", path.display());
            }
        }
        // From every container our own file can be made, which says the same.
        if matches!(form, Form::F16) {
            let file = root.path().join("converted.gguf");
            convert(&model, Quantization::F16, &mut fs::File::create(&file).unwrap()).unwrap();
            assert_eq!(
                Some(decode(&load(&file))),
                said.as_ref().map(|(said, _)| said.clone()),
                "{container} converted"
            );
        }
    }
    assert!(written.len() >= 2);
}

#[test]
fn half_precision_says_the_same_from_every_container() {
    for sizes in [ENGLISH, MULTILINGUAL, TURBO] {
        all_say_the_same(sizes, Form::F16);
    }
}

#[test]
fn every_form_says_the_same_from_every_container() {
    use GgmlDType::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
    for form in [Form::F32, Form::Bf16].into_iter().chain([Q8_0, Q5_1, Q5_0, Q4_1, Q4_0].map(Form::Blocks)) {
        all_say_the_same(MULTILINGUAL, form);
    }
}

/// What Transformers' tokenizer in Python is saved as.
#[test]
fn a_folder_without_tokenizer_json_says_the_same() {
    for sizes in [ENGLISH, MULTILINGUAL] {
        let checkpoint = Checkpoint::new(sizes);
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        checkpoint.write_folder(root.path(), Form::F16, 1);
        let whole = load(root.path());
        let tokenizer = checkpoint.tokenizer();
        let (mut vocabulary, mut added) = (tokenizer["model"]["vocab"].clone(), serde_json::Map::new());
        for token in tokenizer["added_tokens"].as_array().unwrap() {
            let (name, id) = (token["content"].as_str().unwrap(), token["id"].clone());
            match name {
                "<|endoftext|>" => vocabulary[name] = id,
                _ => drop(added.insert(name.to_string(), id)),
            }
        }
        let zero = added["<|notimestamps|>"].as_u64().unwrap() + 1;
        added.insert("<|0.00|>".to_string(), zero.into());
        fs::remove_file(at("tokenizer.json")).unwrap();
        assert!(WhisperModel::load(root.path()).unwrap_err().to_string().contains("tokenizer.json"));
        fs::write(at("vocab.json"), vocabulary.to_string()).unwrap();
        assert!(WhisperModel::load(root.path()).unwrap_err().to_string().contains("added_tokens.json"));
        assert_eq!(lack(root.path()), Some(Lack::File("added_tokens.json".to_string())));
        fs::write(at("added_tokens.json"), "[1]").unwrap();
        assert!(WhisperModel::load(root.path()).unwrap_err().to_string().contains("added_tokens.json cannot be"));
        fs::write(at("added_tokens.json"), serde_json::Value::Object(added).to_string()).unwrap();
        assert_eq!(lack(root.path()), None);
        let made = load(root.path());
        assert_eq!(made.info().languages, whole.info().languages);
        let said = decode(&made);
        assert!(said.tokens.len() > 3 && !said.text.is_empty(), "{said:?}");
        assert_eq!(said, decode(&whole));
    }
}

#[test]
fn positions_may_be_in_blocks() {
    let checkpoint = Checkpoint::new(MULTILINGUAL);
    let root = tempfile::tempdir().unwrap();
    checkpoint.write_texts(root.path(), "");
    let [with, without] = [true, false].map(|positions| {
        let path = root.path().join(format!("{positions}.gguf"));
        checkpoint.write_candle(&path, Form::Blocks(GgmlDType::Q8_0), positions);
        load(&path);
        logits(&path)
    });
    let most = with.iter().zip(&without).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(most > 0.0 && most < 0.1, "{most}");
}

#[test]
fn super_blocks_say_the_same_from_every_container() {
    use GgmlDType::{Q2K, Q3K, Q4K, Q5K, Q6K};
    // A super-block is 256 weights of a row.
    for form in [Q2K, Q3K, Q4K, Q5K, Q6K].map(Form::Blocks) {
        all_say_the_same(Sizes { width: 256, encoder_layers: 1, decoder_layers: 1, ..ENGLISH }, form);
    }
}

#[test]
fn eight_bits_of_ctranslate2_are_what_they_stand_for() {
    for sizes in [MULTILINGUAL, TURBO] {
        let checkpoint = Checkpoint::new(sizes);
        let root = tempfile::tempdir().unwrap();
        let written = write(&checkpoint, root.path(), Form::Int8);
        let exact = root.path().join("exact");
        fs::create_dir(&exact).unwrap();
        checkpoint.rounded().write_folder(&exact, Form::F32, 1);
        assert_eq!(load(&written[0].1).info().quantization, "int8");
        for (container, path) in written {
            assert!(logits(&path) == logits(&exact), "{container}");
            assert_eq!(decode(&load(&path)), decode(&load(&exact)), "{container}");
        }
    }
}

#[test]
fn what_is_missing_is_said_and_where() {
    let checkpoint = Checkpoint::new(Sizes { width: 32, ..MULTILINGUAL });
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let message = |path: &Path| WhisperModel::load(path).unwrap_err().to_string();
    let has = |path: &Path, parts: &[&str]| {
        let message = message(path);
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    };

    let gguf = at("bare.gguf");
    checkpoint.write_candle(&gguf, Form::F16, false);
    has(&gguf, &["bare.gguf", "config.json", root.path().to_str().unwrap()]);
    let mut other = checkpoint.config();
    other["vocab_size"] = 51_864.into();
    fs::write(at("config-other.json"), other.to_string()).unwrap();
    has(&gguf, &["config-other.json", "51865"]);
    fs::write(at("config-this.json"), checkpoint.config().to_string()).unwrap();
    has(&gguf, &["tokenizer.json"]);
    fs::write(at("tokenizer-this.json"), checkpoint.tokenizer().to_string()).unwrap();
    load(&gguf);
    fs::rename(at("tokenizer-this.json"), at("tokenizer-that.json")).unwrap();
    let english = Checkpoint::new(Sizes { width: 32, ..ENGLISH }).tokenizer();
    fs::write(at("tokenizer-english.json"), english.to_string()).unwrap();
    assert_eq!(load(&gguf).token("<|notimestamps|>"), Some(50_363), "the tokenizer that fits");
    fs::write(at("config-twin.json"), checkpoint.config().to_string()).unwrap();
    has(&gguf, &["config-this.json", "config-twin.json", "alike"]);
    fs::rename(at("config-twin.json"), at("config.json")).unwrap();
    load(&gguf);

    // A tokenizer of whatever name fits or is not taken.
    let plain = at("plain");
    fs::create_dir(&plain).unwrap();
    checkpoint.write_candle(&plain.join("x.gguf"), Form::F16, false);
    fs::write(plain.join("tokenizer.json"), english.to_string()).unwrap();
    for config in ["config-x.json", "config.json"] {
        fs::write(plain.join(config), checkpoint.config().to_string()).unwrap();
        has(&plain.join("x.gguf"), &["none of tokenizer.json", config, "51865"]);
    }
    fs::write(plain.join("tokenizer-y.json"), checkpoint.tokenizer().to_string()).unwrap();
    assert_eq!(load(&plain.join("x.gguf")).token("<|notimestamps|>"), Some(50_363));

    let ct2 = at("ct2");
    fs::create_dir(&ct2).unwrap();
    fs::write(ct2.join("model.bin"), checkpoint.ct2(Form::F16)).unwrap();
    has(&ct2, &["tokenizer.json", "vocabulary.json", "vocabulary.txt"]);
    fs::write(ct2.join("vocabulary.txt"), checkpoint.vocabulary(false)).unwrap();
    assert_eq!(load(&ct2).info().container, "CTranslate2", "a folder without config.json is one of the older");
    assert_eq!(load(&ct2.join("model.bin")).info().name, "ct2");
    for version in [3u32, 4, 5, 7] {
        let mut bytes = checkpoint.ct2(Form::F16);
        bytes[..4].copy_from_slice(&version.to_le_bytes());
        fs::write(ct2.join("model.bin"), bytes).unwrap();
        match version {
            4 | 5 => drop(load(&ct2)),
            _ => has(&ct2, &["binary version", "4 to 6"]),
        }
    }
    let mut bytes = checkpoint.ct2(Form::F16);
    bytes[6..13].copy_from_slice(b"Marian_");
    fs::write(ct2.join("model.bin"), bytes).unwrap();
    has(&ct2, &["another kind"]);
    fs::write(ct2.join("model.bin"), checkpoint.ct2_with(Form::F16, 50)).unwrap();
    has(&ct2, &["name", "over 3 times"]);

    let sharded = at("sharded");
    fs::create_dir(&sharded).unwrap();
    checkpoint.write_folder(&sharded, Form::F16, 2);
    fs::remove_file(sharded.join("model-00002-of-00002.safetensors")).unwrap();
    has(&sharded, &["model-00002-of-00002.safetensors"]);
    for name in ["../secret", "/etc/passwd", "", ".."] {
        let index = serde_json::json!({"weight_map": {"a": name}});
        fs::write(sharded.join("model.safetensors.index.json"), index.to_string()).unwrap();
        has(&sharded, &["is not one beside it"]);
    }

    let two = at("two");
    fs::create_dir(&two).unwrap();
    fs::write(two.join("a.bin"), checkpoint.ggml(Form::F16)).unwrap();
    load(&two);
    fs::write(two.join("b.bin"), checkpoint.ggml(Form::F16)).unwrap();
    has(&two, &["give the path of one", "a.bin, b.bin"]);
    for i in 0..1000 {
        fs::write(two.join(i.to_string()), "").unwrap();
    }
    has(&two, &["more than 1000 files", "give the path"]);

    // Texts have an end: these bytes take no room on the disk.
    let endless = at("endless");
    fs::create_dir(&endless).unwrap();
    checkpoint.write_folder(&endless, Form::F16, 1);
    for name in ["config.json", "tokenizer.json", "generation_config.json"] {
        let good = fs::read(endless.join(name)).ok();
        fs::File::create(endless.join(name)).unwrap().set_len((64 << 20) + 1).unwrap();
        has(&endless, &[name, "more than 67108864 bytes"]);
        if let Some(good) = good {
            fs::write(endless.join(name), good).unwrap();
        }
    }

    let mut ggml = checkpoint.ggml(Form::F16);
    ggml[4..8].copy_from_slice(&51_870u32.to_le_bytes());
    fs::write(at("x.bin"), ggml).unwrap();
    has(&at("x.bin"), &["51870", "51864"]);
}

/// Whatever a file holds, the loader answers: it does not panic and does not believe sizes.
#[test]
fn hostile_files_are_errors() {
    let checkpoint = Checkpoint::new(Sizes { width: 32, ..ENGLISH });
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("ct2");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("tokenizer.json"), checkpoint.tokenizer().to_string()).unwrap();
    checkpoint.write_texts(root.path(), "");
    let gguf = root.path().join("x.gguf");
    checkpoint.write_candle(&gguf, Form::F16, false);
    // Where numbers stand: all of the header, and the names and shapes between the weights.
    for (path, good, header) in [
        (root.path().join("model.bin"), checkpoint.ggml(Form::F16), 64),
        (folder.join("model.bin"), checkpoint.ct2(Form::Int8), 30),
        (gguf.clone(), fs::read(&gguf).unwrap(), 96),
    ] {
        fs::write(&path, &good).unwrap();
        assert!(WhisperModel::load(&path).is_ok());
        let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        let mut put = |at: usize, bytes: &[u8]| {
            file.seek(SeekFrom::Start(at as u64)).unwrap();
            file.write_all(bytes).unwrap();
        };
        for at in 0..header {
            for value in [u32::MAX, i32::MAX as u32, 1 << 30, 0] {
                put(at, &value.to_le_bytes());
                let _ = WhisperModel::load(&path);
                put(at, &good[at..at + 4]);
            }
        }
        let mut state = 9u32;
        for round in 0..400 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Half of them in names and shapes: those of this name stand after each other.
            let places: &[u8] = if round % 2 == 0 { b"coder" } else { b"" };
            let from = (state >> 8) as usize % (good.len() - 64);
            let found = good[from..].windows(places.len().max(1)).position(|w| w == places).unwrap_or(0);
            let at = (from + found + (state >> 24) as usize % 48).saturating_sub(24).min(good.len() - 4);
            let flipped = match round % 3 {
                0 => [0xff; 4],
                1 => [good[at] ^ 1 << (state >> 29), good[at + 1], good[at + 2], good[at + 3]],
                _ => [0; 4],
            };
            put(at, &flipped);
            let _ = WhisperModel::load(&path);
            put(at, &good[at..at + 4]);
        }
        assert!(WhisperModel::load(&path).is_ok(), "all was put back");
        let mut lengths: Vec<usize> = (0..good.len()).step_by(good.len() / 200).chain(0..200).collect();
        lengths.sort_unstable();
        for length in lengths.into_iter().rev() {
            file.set_len(length as u64).unwrap();
            assert!(WhisperModel::load(&path).is_err(), "{} cut at {length}", path.display());
        }
    }
}
