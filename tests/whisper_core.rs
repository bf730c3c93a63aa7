//! Whisper without a real model: the forward pass, the loader and conversion on random weights.
#![cfg(feature = "whisper")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;

use cuewire::asr::whisper::testing::{self, RandomModel};
use cuewire::asr::whisper::{
    CpuForward, CrossAttention, Forward, Guards, ModelError, Quantization, Step, WhisperDecoder, WhisperModel, convert,
};
use cuewire::asr::{Cancel, DecodeError, DecodeJob, Decoder, Hypothesis, JobId, JobKind, Suppression};
use cuewire::config::{Config, Language, LanguageSetting, Task};
use cuewire::time::SampleIndex;
use cuewire::{Input, Output, Pcm, Session, Timestamp};

fn model(random: RandomModel) -> Arc<WhisperModel> {
    Arc::new(WhisperModel::from_bytes(random.gguf().unwrap()).unwrap())
}

fn noise(count: usize, seed: u32) -> Vec<f32> {
    testing::noise(count, seed, 0.5)
}

fn logits(forward: &mut CpuForward, steps: &[Step<'_>]) -> Vec<f32> {
    let mut logits = Vec::new();
    forward.decode(steps, VOCABULARY, &mut logits, None).unwrap();
    logits
}

fn assert_close(a: &[f32], b: &[f32], tolerance: f32) {
    assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() <= tolerance, "element {i}: {a} and {b}");
    }
}

/// Of the random model.
const VOCABULARY: usize = 113;
const PROMPT: [u32; 4] = [95, 96, 100, 104];

#[test]
fn cached_steps_equal_the_whole_prefix_and_rewinding_takes_back() {
    let model = model(RandomModel::default());
    assert_eq!(model.config().vocab_size, VOCABULARY);
    let mut forward = CpuForward::new(model);
    let mel = noise(80 * 128, 1);
    let tokens: Vec<u32> = PROMPT.into_iter().chain((0..20).map(|i| i * 4)).collect();
    forward.encode(0, &mel, 64, &Cancel::new()).unwrap();
    let whole = logits(&mut forward, &[Step { segment: 0, tokens: &tokens, logits_from: 0 }]);
    assert_eq!(whole.len(), tokens.len() * VOCABULARY);
    for piece in [1, 3, 5, 9] {
        forward.rewind(0, 0);
        let mut all = Vec::new();
        for tokens in tokens.chunks(piece) {
            all.extend(logits(&mut forward, &[Step { segment: 0, tokens, logits_from: 0 }]));
        }
        assert_eq!(all, whole, "{piece} at a time");
    }
    forward.rewind(0, 10);
    assert_eq!(forward.position(0), 10);
    let other = logits(&mut forward, &[Step { segment: 0, tokens: &[7, 8], logits_from: 1 }]);
    assert_eq!(other.len(), VOCABULARY);
    forward.rewind(0, 10);
    let again = logits(&mut forward, &[Step { segment: 0, tokens: &tokens[10..], logits_from: 0 }]);
    assert_eq!(again, whole[10 * VOCABULARY..]);
    // Fewer logits are the first of all.
    forward.rewind(0, 10);
    let mut text = Vec::new();
    let step = Step { segment: 0, tokens: &tokens[10..11], logits_from: 0 };
    forward.decode(&[step], 50, &mut text, None).unwrap();
    assert_eq!(text, whole[10 * VOCABULARY..10 * VOCABULARY + 50]);
}

#[test]
fn two_segments_at_once_equal_each_alone() {
    let model = model(RandomModel::default());
    let mut forward = CpuForward::new(model.clone());
    // Of different lengths: the second has fewer positions.
    let mels = [noise(80 * 128, 1), noise(80 * 90, 2)];
    for (segment, mel) in mels.iter().enumerate() {
        forward.encode(segment, mel, mel.len() / 160, &Cancel::new()).unwrap();
    }
    let texts: [&[u32]; 2] = [&[5, 6, 7], &[9]];
    let mut alone = Vec::new();
    for (segment, text) in texts.iter().enumerate() {
        logits(&mut forward, &[Step { segment, tokens: &PROMPT, logits_from: 4 }]);
        alone.extend(logits(&mut forward, &[Step { segment, tokens: text, logits_from: 0 }]));
        forward.rewind(segment, 0);
    }
    let steps: Vec<Step<'_>> = (0..2).map(|segment| Step { segment, tokens: &PROMPT, logits_from: 4 }).collect();
    assert!(logits(&mut forward, &steps).is_empty());
    let steps: Vec<Step<'_>> =
        texts.iter().enumerate().map(|(segment, tokens)| Step { segment, tokens, logits_from: 0 }).collect();
    assert_eq!(logits(&mut forward, &steps), alone);
}

#[test]
fn cross_attention_is_a_distribution_over_positions() {
    let mut forward = CpuForward::new(model(RandomModel::default()));
    forward.encode(0, &noise(80 * 128, 1), 64, &Cancel::new()).unwrap();
    forward.encode(1, &noise(80 * 60, 3), 30, &Cancel::new()).unwrap();
    let mut attention = CrossAttention { heads: vec![(1, 1), (0, 0), (1, 0)], weights: Vec::new() };
    let steps =
        [Step { segment: 0, tokens: &PROMPT, logits_from: 0 }, Step { segment: 1, tokens: &[95], logits_from: 0 }];
    forward.decode(&steps, VOCABULARY, &mut Vec::new(), Some(&mut attention)).unwrap();
    assert_eq!(attention.weights.len(), 4 * 3 * 64 + 3 * 30);
    let (first, second) = attention.weights.split_at(4 * 3 * 64);
    for row in first.chunks(64).chain(second.chunks(30)) {
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-4 && row.iter().all(|&v| v > 0.0));
    }
}

#[test]
fn impossible_steps_and_mels_are_errors() {
    let mut forward = CpuForward::new(model(RandomModel::default()));
    let cancel = Cancel::new();
    for (segment, mel, positions) in [(0, 0, 1), (0, 80, 1), (0, 81, 0), (0, 80 * 130, 65), (1, 80 * 128, 64)] {
        let result = forward.encode(segment, &vec![0.0; mel], positions, &cancel);
        assert!(matches!(result, Err(DecodeError::Invalid(_))), "{mel}");
    }
    let step = |tokens| Step { segment: 0, tokens, logits_from: 0 };
    let mut out = Vec::new();
    assert!(forward.decode(&[step(&[95])], VOCABULARY, &mut out, None).is_err(), "nothing encoded");
    forward.encode(0, &vec![0.0; 80 * 128], 64, &cancel).unwrap();
    for steps in [vec![step(&[])], vec![step(&[9999])], vec![step(&[1; 65])], vec![step(&[1]), step(&[2])]] {
        assert!(matches!(forward.decode(&steps, VOCABULARY, &mut out, None), Err(DecodeError::Invalid(_))));
    }
    assert!(forward.decode(&[step(&[95])], VOCABULARY + 1, &mut out, None).is_err(), "more logits than tokens");
    assert_eq!(forward.position(0), 0);
    cancel.cancel();
    assert_eq!(forward.encode(0, &vec![0.0; 80 * 128], 64, &cancel), Err(DecodeError::Cancelled));
    assert!(forward.decode(&[step(&[95])], VOCABULARY, &mut out, None).is_err(), "a cancelled segment is not there");
}

fn decode(model: &Arc<WhisperModel>, audio: &[f32], language: LanguageSetting) -> Result<Hypothesis, DecodeError> {
    WhisperDecoder::new(model.clone()).decode(&DecodeJob::new(JobId(1), audio.into(), language), &Cancel::new())
}

/// The random model names no alignment heads: its words are timed by all of the upper half.
#[test]
fn words_are_timed_without_alignment_heads_too() {
    let model = model(RandomModel { scale: 0.5, ..RandomModel::default() });
    assert!(model.alignment_heads().is_empty());
    let mut job = DecodeJob::new(JobId(1), noise(15_000, 2).into(), LanguageSetting::default());
    job.word_times = true;
    let found = WhisperDecoder::new(model).decode(&job, &Cancel::new()).unwrap();
    let words: Vec<&str> = found.words.iter().map(|word| word.text.as_str()).collect();
    assert_eq!(words.join(" "), found.text);
    assert!(found.words.iter().all(|word| word.start <= word.end && word.end <= 15_000), "{:?}", found.words);
}

#[test]
fn the_answer_depends_on_the_job_alone() {
    let model = model(RandomModel { scale: 0.5, ..RandomModel::default() });
    let (a, b) = (noise(20_000, 1), noise(9_000, 2));
    let mut decoder = WhisperDecoder::new(model.clone());
    for language in [LanguageSetting::Auto, LanguageSetting::Fixed("fr".parse().unwrap())] {
        let mut job = DecodeJob::new(JobId(1), a.clone().into(), language);
        let first = decoder.decode(&job, &Cancel::new()).unwrap();
        assert!(first.tokens.iter().all(|t| *t < 94 && ![1, 2].contains(t)), "{:?}", first.tokens);
        assert_ne!(first.tokens.first(), Some(&3));
        assert!(first.tokens.len() <= 32, "half of the decoder's positions");
        decoder.decode(&DecodeJob::new(JobId(2), b.clone().into(), language), &Cancel::new()).unwrap();
        job.draft = vec![4, 5, 6].into();
        assert_eq!(decoder.decode(&job, &Cancel::new()).unwrap(), first);
        assert_eq!(decode(&model, &a, language).unwrap(), first);
    }
}

/// Interims and finals of one session: what they share changes no answer.
#[test]
fn shared_features_change_no_answer() {
    let model = model(RandomModel { scale: 0.5, positions: 512, ..RandomModel::default() });
    // A buzz, a pause, a buzz that is cut.
    let samples: Vec<f32> = (0..17 * 16_000)
        .zip(noise(17 * 16_000, 5))
        .map(|(i, hiss)| {
            let t = i as f32 / 16_000.0;
            let buzz: f32 = (1..20).map(|h| (t * 140.0 * h as f32 * std::f32::consts::TAU).sin() / h as f32).sum();
            let voiced = (0.5..3.5).contains(&t) || (5.0..16.0).contains(&t);
            hiss * 1e-3 + if voiced { 0.3 * buzz * (t * 25.0).sin().abs() } else { 0.0 }
        })
        .collect();
    let mut session = Session::new("alice", Config::default());
    let mut decoder = WhisperDecoder::new(model.clone());
    let (mut interims, mut finals, mut ended) = (0, 0, false);
    let mut pieces = samples.chunks(1600).enumerate();
    while !ended {
        match pieces.next() {
            Some((i, piece)) => {
                let at = Timestamp::from_nanos(i as i64 * 100_000_000);
                session.handle_input(Input::Audio { at, pcm: Pcm::mono(16_000, piece).unwrap() }).unwrap();
            }
            None => {
                session.handle_input(Input::End).unwrap();
                ended = true;
            }
        }
        loop {
            match session.poll_output() {
                Output::Decode(job) => {
                    let found = decoder.decode(&job, &Cancel::new()).unwrap();
                    assert_eq!(found, decode(&model, &job.audio, job.language).unwrap(), "{:?}", job.id);
                    *(if job.kind == JobKind::Interim { &mut interims } else { &mut finals }) += 1;
                    session.handle_input(Input::Decoded { job: job.id, result: Ok(found) }).unwrap();
                }
                Output::Wait(_) => break,
                _ => {}
            }
        }
    }
    assert!(finals >= 3 && interims >= 10, "{interims} interims, {finals} finals");
}

#[test]
fn jobs_that_cannot_be_decoded_are_refused() {
    let multilingual = model(RandomModel::default());
    let english = model(RandomModel { multilingual: false, ..RandomModel::default() });
    let (french, spanish) = ("fr".parse::<Language>().unwrap(), "es".parse::<Language>().unwrap());
    let audio = noise(1000, 1);
    for (model, audio, language, reason) in [
        (&multilingual, &audio[..0], LanguageSetting::Auto, "0 samples"),
        (&multilingual, &vec![0.0; 20_481], LanguageSetting::Auto, "1 to 20480"),
        (
            &multilingual,
            &audio,
            LanguageSetting::Fixed(spanish),
            "`random` does not know Spanish (`es`): it knows en, fr, de",
        ),
        (
            &english,
            &audio,
            LanguageSetting::Fixed(french),
            "`random` does not know French (`fr`): it knows English alone",
        ),
    ] {
        match decode(model, audio, language) {
            Err(DecodeError::Invalid(message)) => assert!(message.contains(reason), "{message}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(decode(&english, &audio, LanguageSetting::Auto).unwrap().language, Language::ENGLISH);
    let mut translation = DecodeJob::new(JobId(1), audio.clone().into(), LanguageSetting::Auto);
    translation.task = Task::Translate;
    let refused = WhisperDecoder::new(english.clone()).decode(&translation, &Cancel::new());
    assert!(matches!(&refused, Err(DecodeError::Invalid(text)) if text.contains("does not translate")), "{refused:?}");
    #[cfg(feature = "engine")]
    for (model, can) in [(&english, false), (&multilingual, true)] {
        let mut config = Config::default();
        config.translations = true;
        let checked = cuewire::engine::Model::check(&**model, &config);
        assert!(checked.is_ok() == can && checked.err().is_none_or(|error| error.contains("does not translate")));
    }
    assert!(english.check_language(LanguageSetting::Auto).is_ok() && !english.is_multilingual());
    let cancel = Cancel::new();
    cancel.cancel();
    let job = DecodeJob::new(JobId(1), audio.into(), LanguageSetting::Auto);
    assert_eq!(WhisperDecoder::new(multilingual).decode(&job, &cancel), Err(DecodeError::Cancelled));
}

/// A model with Whisper's own window, so that there is silence to leave out.
fn long_model() -> Arc<WhisperModel> {
    model(RandomModel { positions: 1500, scale: 0.5, ..RandomModel::default() })
}

#[test]
fn a_draft_changes_nothing() {
    for model in [model(RandomModel::default()), long_model()] {
        let mut decoder = WhisperDecoder::new(model.clone());
        for (audio, language) in
            [(noise(9000, 1), LanguageSetting::default()), (noise(15_000, 2), LanguageSetting::Auto)]
        {
            let mut job = DecodeJob::new(JobId(0), audio.into(), language);
            let plain = decoder.decode(&job, &Cancel::new()).unwrap();
            assert!(plain.tokens.len() > 3, "nothing to verify in {plain:?}");
            let (tokens, half) = (plain.tokens.clone(), plain.tokens.len() / 2);
            let drafts: [Vec<u32>; 7] = [
                tokens.clone(),
                tokens[..half].to_vec(),
                [&tokens[..half], &[1, 2, 3]].concat(),
                vec![5; 20],
                [tokens.as_slice(), &[7; 60]].concat(),
                [&tokens[..half], &[94], &tokens[half..]].concat(), // the end of text in the middle
                vec![9999; 4],
            ];
            for draft in drafts {
                job.draft = draft.into();
                assert_eq!(decoder.decode(&job, &Cancel::new()).unwrap(), plain, "draft {:?}", job.draft);
            }
        }
    }
}

/// Random weights say nothing likely: what the guards make of it is set by their thresholds.
#[test]
fn a_final_that_fails_is_drawn_at_rising_temperatures_and_what_fails_at_all_is_silence() {
    let model = model(RandomModel { scale: 0.5, ..RandomModel::default() });
    let audio: Arc<[f32]> = noise(15_000, 2).into();
    let mut guards = Guards::default();
    guards.compression_ratio = f32::INFINITY;
    guards.no_speech_probability = 1.0;
    guards.mean_log_probability = f32::NEG_INFINITY;
    let decode = |guards: Guards, kind: JobKind, start: u64| {
        let mut job = DecodeJob::new(JobId(0), audio.clone(), LanguageSetting::default());
        (job.kind, job.start) = (kind, SampleIndex(start));
        WhisperDecoder::new(model.clone()).guards(guards).decode(&job, &Cancel::new()).unwrap()
    };
    let plain = decode(guards, JobKind::Final, 0);
    assert_eq!((plain.suppressed, plain.temperature_tenths, plain.fallback), (None, 0, false));

    // Nothing is likely enough: silence at the end of the ladder, with the reason and what the first try said.
    guards.mean_log_probability = 0.0;
    let silent = decode(guards, JobKind::Final, 0);
    assert_eq!(silent, Hypothesis { suppressed: Some(Suppression::LowProbability), ..plain.clone() });

    // Greedy tokens that repeat themselves, which drawn ones do not: one of the temperatures stands.
    guards.mean_log_probability = f32::NEG_INFINITY;
    guards.compression_ratio = cuewire::asr::whisper::compression_ratio(&plain.text) - 0.01;
    let drawn = decode(guards, JobKind::Final, 0);
    assert!(drawn.suppressed.is_none() && drawn.temperature_tenths > 0 && drawn.text != plain.text, "{drawn:?}");
    assert_eq!(decode(guards, JobKind::Final, 0), drawn, "a replay is exact");
    assert_eq!(decode(guards, JobKind::Translation, 0), drawn, "a translation stands too");
    assert_ne!(decode(guards, JobKind::Final, 1).text, drawn.text, "another place in the track draws anew");
    // More tokens than speech of that length has: cut, and at the end of the ladder no caption.
    guards.compression_ratio = f32::INFINITY;
    (guards.tokens_per_second, guards.tokens_at_least) = (1.0, 4);
    let capped = decode(guards, JobKind::Final, 0);
    assert_eq!((capped.suppressed, capped.tokens.len()), (Some(Suppression::TooManyTokens), 5), "{capped:?}");
    (guards.tokens_per_second, guards.tokens_at_least) = (30.0, 20);
    guards.compression_ratio = cuewire::asr::whisper::compression_ratio(&plain.text) - 0.01;
    // An interim is not worth it.
    let interim = decode(guards, JobKind::Interim, 0);
    assert_eq!((interim.suppressed, interim.temperature_tenths), (Some(Suppression::Repetition), 0));
}

#[cfg(feature = "engine")]
#[test]
fn an_idle_worker_helps_and_changes_nothing() {
    use std::num::NonZeroUsize;

    use cuewire::asr::whisper::{Assistant, Task};
    use cuewire::engine::{Idle, Job, Workers};

    struct Counting(Idle, Arc<std::sync::atomic::AtomicUsize>);
    impl Assistant for Counting {
        fn offer(&self, task: Task) {
            self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            self.0.offer(task);
        }
    }
    let model = long_model();
    let jobs: Vec<DecodeJob> = (0..6)
        .map(|i| {
            DecodeJob::new(JobId(i), noise(20_000 + 9000 * i as usize, i as u32).into(), LanguageSetting::default())
        })
        .collect();
    let alone: Vec<Hypothesis> = {
        let mut decoder = WhisperDecoder::new(model.clone());
        jobs.iter().map(|job| decoder.decode(job, &Cancel::new()).unwrap()).collect()
    };
    let offered = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    for threads in [1, 2, 3] {
        let (model, offered) = (model.clone(), offered.clone());
        let assisted = move |idle: &Idle| {
            WhisperDecoder::assisted(model.clone(), Arc::new(Counting(idle.clone(), offered.clone())))
        };
        let (sender, answers) = std::sync::mpsc::channel();
        let answer = move |answer| drop(sender.send(answer));
        let workers = Workers::start(NonZeroUsize::new(threads).unwrap(), Arc::new(assisted), answer).unwrap();
        // One at a time, so that the others are idle.
        for (job, alone) in jobs.iter().zip(&alone) {
            for draft in [&[][..], &alone.tokens[..alone.tokens.len() / 2], &alone.tokens] {
                let mut job = job.clone();
                job.draft = draft.into();
                workers.submit(Job::new((), job));
                assert_eq!(answers.recv().unwrap().result.as_ref(), Ok(alone), "{threads} threads");
            }
        }
    }
    assert!(offered.load(std::sync::atomic::Ordering::Relaxed) > 0);
}

#[test]
fn weights_and_samples_that_are_not_finite_do_not_panic() {
    let random = RandomModel::default();
    let good = random.gguf().unwrap();
    let mut bad = good.clone();
    let tail = bad.len() - 40_000;
    for four in bad[tail..].chunks_exact_mut(4).step_by(7) {
        four.copy_from_slice(&f32::NAN.to_le_bytes());
    }
    let error = WhisperModel::from_bytes(bad).unwrap_err();
    assert!(matches!(&error, ModelError::Weight { value, .. } if value.is_nan()), "{error}");
    for value in [f32::NAN, f32::INFINITY, f32::MAX] {
        let _ = decode(&model(random), &[value; 3000], LanguageSetting::Auto);
    }
}

#[test]
fn conversion_is_reproducible_and_close() {
    let original = model(RandomModel::default());
    let write = |model: &WhisperModel, form| {
        let mut out = std::io::Cursor::new(Vec::new());
        convert(model, form, &mut out).unwrap();
        out.into_inner()
    };
    let mel = noise(80 * 128, 1);
    let run = |model: &Arc<WhisperModel>| {
        let mut forward = CpuForward::new(model.clone());
        forward.encode(0, &mel, 64, &Cancel::new()).unwrap();
        logits(&mut forward, &[Step { segment: 0, tokens: &PROMPT, logits_from: 0 }])
    };
    let exact = run(&original);
    for (form, name, tolerance) in [(Quantization::F16, "f16", 0.05), (Quantization::Q8_0, "q8_0", 0.1)] {
        let bytes = write(&original, form);
        assert_eq!(bytes, write(&original, form));
        let leaked: &'static [u8] = Box::leak(bytes.clone().into_boxed_slice());
        let converted = Arc::new(WhisperModel::from_static(leaked).unwrap());
        assert_eq!(converted.info().quantization, name);
        assert_eq!(converted.info().parameters, original.info().parameters);
        assert_close(&run(&converted), &exact, tolerance);
        assert_eq!(write(&converted, form), bytes, "converting again changes nothing");
    }
}

#[test]
fn missing_and_misshapen_tensors_are_named() {
    let random = RandomModel::default();
    let good = random.gguf().unwrap();
    let find = |needle: &[u8]| good.windows(needle.len()).position(|w| w == needle).unwrap();
    for (name, _, _) in random.tensors() {
        let mut bytes = good.clone();
        bytes[find(name.as_bytes())] = b'X';
        let error = WhisperModel::from_bytes(bytes).unwrap_err();
        assert!(matches!(&error, ModelError::MissingTensor { name: n } if *n == name), "{error}");
    }
    let mut bytes = good.clone();
    let name = b"model.decoder.layers.1.fc1.weight";
    let first = find(name) + name.len() + 4;
    bytes[first] = 16; // columns, of 32
    let error = WhisperModel::from_bytes(bytes).unwrap_err().to_string();
    assert!(
        error.contains("layers.1.fc1.weight") && error.contains("[128, 16]") && error.contains("[128, 32]"),
        "{error}"
    );
}

/// Whatever a file holds, the loader answers: it does not panic and does not believe sizes.
#[test]
fn hostile_files_are_errors() {
    let good = RandomModel::default().gguf().unwrap();
    for length in (0..good.len()).step_by(997).chain(0..200) {
        assert!(WhisperModel::from_bytes(good[..length].to_vec()).is_err(), "cut at {length}");
    }
    // Bytes of the header and the texts, flipped one after the other: most break it, none may panic.
    let header = good.len().min(24_000);
    let mut state = 9u32;
    for round in 0..600 {
        let mut bytes = good.clone();
        for _ in 0..1 + round % 3 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let at = (state >> 8) as usize % header;
            bytes[at] = match round % 4 {
                0 => 0xff,
                1 => 0,
                _ => bytes[at] ^ (1 << (state >> 29)),
            };
        }
        let _ = WhisperModel::from_bytes(bytes);
    }
    // Every length field of the start, huge.
    for at in 4..64 {
        let mut bytes = good.clone();
        bytes[at..at + 8].copy_from_slice(&(u64::MAX >> 2).to_le_bytes());
        assert!(WhisperModel::from_bytes(bytes).is_err());
    }
    let mut aligned = b"GGUF".to_vec();
    aligned.extend(3u32.to_le_bytes());
    aligned.extend(0u64.to_le_bytes());
    aligned.extend(1u64.to_le_bytes());
    aligned.extend(17u64.to_le_bytes());
    aligned.extend(b"general.alignment");
    aligned.extend(4u32.to_le_bytes());
    aligned.extend(0u32.to_le_bytes());
    let error = WhisperModel::from_bytes(aligned).unwrap_err().to_string();
    assert!(error.contains("general.alignment"), "{error}");
}

#[test]
fn a_folder_is_read_and_what_is_no_model_is_said() {
    let random = RandomModel::default();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let message = |path: &std::path::Path| WhisperModel::load(path).unwrap_err().to_string();
    assert!(message(&at("nowhere")).contains("nowhere"));
    assert!(message(folder.path()).contains("no file of weights"));
    std::fs::write(at("notes.gguf"), "GGML is not GGUF").unwrap();
    assert!(message(&at("notes.gguf")).contains("starts with the bytes [47, 47, 4d, 4c"));

    // safetensors: length of the header, header, data.
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape, mean) in random.tensors() {
        let start = data.len();
        data.extend(random.values(&name, &shape, mean).iter().flat_map(|v| v.to_le_bytes()));
        let entry = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
        header.insert(name, entry);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let file: Vec<u8> = (header.len() as u64).to_le_bytes().into_iter().chain(header).chain(data).collect();
    std::fs::write(at("model.safetensors"), &file).unwrap();
    assert!(message(folder.path()).contains("config.json"));
    std::fs::write(at("config.json"), random.config().to_string()).unwrap();
    std::fs::write(at("tokenizer.json"), random.tokenizer().to_string()).unwrap();
    std::fs::write(at("generation_config.json"), r#"{"is_multilingual": true}"#).unwrap();
    let ours = WhisperModel::load(folder.path()).unwrap();
    let theirs = model(random);
    let audio = noise(12_000, 4);
    let text = |m: &Arc<WhisperModel>| decode(m, &audio, LanguageSetting::Auto).unwrap();
    assert_eq!(text(&Arc::new(ours)), text(&theirs));

    for cut in [0, 7, 8, 500, file.len() - 1] {
        std::fs::write(at("model.safetensors"), &file[..cut]).unwrap();
        assert!(message(folder.path()).contains("model.safetensors"), "{cut}");
    }
    std::fs::write(at("model.safetensors"), &file).unwrap();
    for (field, value) in
        [("num_mel_bins", 81), ("d_model", 0), ("encoder_attention_heads", 5), ("encoder_layers", 1u64 << 40)]
    {
        let mut config = random.config();
        config[field] = value.into();
        std::fs::write(at("config.json"), config.to_string()).unwrap();
        let message = message(folder.path());
        assert!(message.contains(field) && message.contains(&value.to_string()), "{message}");
    }
}
