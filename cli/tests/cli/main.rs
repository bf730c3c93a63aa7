//! The binary as people run it: real recordings, the built-in model, real pipes and signals.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure is the report")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use cuewire::asr::Suppression;
use cuewire::time::Timestamp;
use cuewire::transcript::webvtt;
use support::*;

mod live;
mod refusals;
#[path = "../support/mod.rs"]
mod support;
#[path = "../../../tests/support/time.rs"]
mod time;

fn words(text: &str) -> Vec<String> {
    let keep = |c: char| if c.is_alphanumeric() { c.to_lowercase().collect::<String>() } else { " ".into() };
    text.chars().map(keep).collect::<String>().split_whitespace().map(str::to_string).collect()
}

fn wav(rate: u32, channels: u16, samples: &[i16], declared_bytes: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(b"RIFF");
    bytes.extend((36 + declared_bytes).to_le_bytes());
    bytes.extend(b"WAVEfmt \x10\0\0\0\x01\0");
    bytes.extend(channels.to_le_bytes());
    bytes.extend(rate.to_le_bytes());
    bytes.extend((rate * u32::from(channels) * 2).to_le_bytes());
    bytes.extend((channels * 2).to_le_bytes());
    bytes.extend(b"\x10\0data");
    bytes.extend(declared_bytes.to_le_bytes());
    bytes.extend(samples.iter().flat_map(|x| x.to_le_bytes()));
    bytes
}

const GREETING_WORDS: &str = "that agent is already logged on please enter your agent number followed by the pound key";

#[test]
fn a_recording_becomes_captions_in_every_format() {
    let parts: [(&str, &[&str]); 5] = [
        (
            "jsonl",
            &[
                "{\"type\":\"speech\",\"start_time\":\"1970-01-01T00:00:00.",
                "\"speaker_id\":\"en-agent-alreadyon\",\"text\":\"",
            ],
        ),
        (
            "json",
            &["{\"captions\":[\n{\"start_time\":", "\"languages\":[\"en\"],\"speakers\":[\"en-agent-alreadyon\"]}\n"],
        ),
        ("srt", &["1\n00:00:00,", " --> 00:00:0"]),
        ("vtt", &["WEBVTT\n\n", "00:00:00.", "<v en-agent-alreadyon>"]),
        ("txt", &["That agent"]),
    ];
    for (format, parts) in parts {
        let (code, out, err) = run(cuewire().args(["transcribe", "--format", format]).arg(testdata(GREETING)));
        assert_eq!((code, err.as_str()), (0, ""), "{format}");
        for part in parts {
            assert!(out.contains(part), "{format}: {part:?} is not in {out}");
        }
        if format == "txt" {
            assert_eq!(words(&out).join(" "), GREETING_WORDS);
        }
        if format == "json" {
            let document: serde_json::Value = serde_json::from_str(&out).unwrap();
            let texts: Vec<_> = document["captions"]
                .as_array()
                .unwrap()
                .iter()
                .map(|caption| caption["text"].as_str().unwrap())
                .collect();
            assert_eq!(words(&texts.join(" ")).join(" "), GREETING_WORDS);
        }
    }
}

/// Start, end (ms) and lines of the cues of an SRT file, by another's parser.
fn srt_cues(text: &str) -> Vec<(u64, u64, Vec<String>)> {
    let ms = |time: &srtlib::Timestamp| {
        let (h, m, s, ms) = time.get();
        ((u64::from(h) * 60 + u64::from(m)) * 60 + u64::from(s)) * 1000 + u64::from(ms)
    };
    let cues = srtlib::Subtitles::parse_from_str(text.to_string()).unwrap().to_vec();
    let lines = |cue: &srtlib::Subtitle| cue.text.lines().map(str::to_string).collect();
    cues.iter().map(|cue| (ms(&cue.start_time), ms(&cue.end_time), lines(cue))).collect()
}

#[test]
fn cues_keep_the_rules_of_their_profile_and_the_figures_say_where_not() {
    let dir = tempfile::tempdir().unwrap();
    let stats = dir.path().join("stats.json");
    let recording = testdata("speech/en-queue-periodic-announce.flac");
    let plain = run(cuewire().args(["transcribe", "--format", "txt"]).arg(&recording)).1;
    for (profile, chars, lines, shortest, longest) in [
        ("netflix", 42, 2, 833, 7000),
        ("bbc", 37, 2, 1, u64::MAX),
        ("dcmp", 32, 2, 1333, 6000),
        ("cea608", 32, 4, 1, u64::MAX),
        ("none", 42, usize::MAX, 1, u64::MAX),
    ] {
        let args = ["transcribe", "--format", "srt", "--profile", profile, "--stats"];
        let (code, out, err) = run(cuewire().args(args).arg(&stats).arg(&recording));
        assert_eq!((code, err.as_str()), (0, ""), "{profile}");
        let cues = srt_cues(&out);
        let shown: Vec<String> = cues.iter().flat_map(|cue| cue.2.clone()).collect();
        assert_eq!(words(&shown.join(" ")), words(&plain), "{profile}");
        let figures: serde_json::Value = serde_json::from_slice(&std::fs::read(&stats).unwrap()).unwrap();
        let counts = &figures["cues"];
        assert_eq!((counts["profile"].as_str(), counts["cues"].as_u64()), (Some(profile), Some(cues.len() as u64)));
        for rule in ["line_too_long", "too_short", "too_long", "gap", "overlap", "crowded"] {
            assert_eq!(counts[rule], 0, "{profile}: {counts}");
        }
        // In CEA-608 the first cue takes its time to be sent.
        assert_eq!(counts["late"], u64::from(profile == "cea608"), "{counts}");
        assert!(counts["too_fast"].is_u64() && counts["split_phrase"].is_u64(), "{counts}");
        for (start, end, cue) in &cues {
            assert!(cue.len() <= lines && cue.iter().all(|line| line.chars().count() <= chars), "{profile}: {cue:?}");
            assert!((shortest..=longest).contains(&(end - start)), "{profile}: {start} to {end}");
        }
    }
    let default = run(cuewire().args(["transcribe", "--format", "srt"]).arg(&recording)).1;
    let netflix = run(cuewire().args(["transcribe", "--format", "srt", "--profile", "netflix"]).arg(&recording)).1;
    assert_eq!(default, netflix);
    run(cuewire().args(["transcribe", "--stats"]).arg(&stats).arg(&recording));
    let figures: serde_json::Value = serde_json::from_slice(&std::fs::read(&stats).unwrap()).unwrap();
    assert!(figures["cues"].is_null(), "JSONL has no cues: {figures}");
}

#[test]
fn cues_are_timed_by_the_words_which_are_shown_when_asked_for() {
    let recording = testdata("speech/en-queue-periodic-announce.flac");
    let transcript = |args: &[&str]| {
        let (code, out, err) = run(cuewire().arg("transcribe").args(args).arg(&recording));
        assert_eq!((code, err.as_str()), (0, ""), "{args:?}");
        out
    };
    let document: serde_json::Value = serde_json::from_str(&transcript(&["--format", "json", "--word-times"])).unwrap();
    let starts: Vec<u64> = document["captions"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|caption| caption["words"].as_array().unwrap())
        .map(|word| word["start_time"].as_str().unwrap().parse::<Timestamp>().unwrap().as_nanos() as u64 / 1_000_000)
        .collect();
    let cues = srt_cues(&transcript(&["--format", "srt"]));
    assert!(cues.len() > 1 && cues.iter().all(|cue| starts.contains(&cue.0)), "{cues:?} {starts:?}");
    let (plain, marked) = (transcript(&["--format", "vtt"]), transcript(&["--format", "vtt", "--word-times"]));
    assert!(!plain.contains("<00:") && marked.contains("<00:"), "{plain}{marked}");
    let read =
        |text: &str| cuewire::transcript::webvtt::Reader::new(text.as_bytes()).map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(read(&plain), read(&marked));
    assert!(!transcript(&["--format", "json"]).contains("words"));
}

#[test]
fn tracks_are_merged_into_one_transcript_in_order_of_time() {
    let dir = tempfile::tempdir().unwrap();
    // A name as names are.
    let bob = dir.path().join("x=y@+1s.flac");
    std::fs::copy(testdata("speech/en-queue-periodic-announce.flac"), &bob).unwrap();
    let track = |speaker: &str, path: &Path| format!("{speaker}={}", path.display());
    let tracks = [track("bob", &bob), track("alice", &testdata(GREETING)), track("eve", &testdata(GREETING))];
    let merge = |args: &[&str]| {
        let offsets = ["--offset", "alice=10", "--offset", "eve=10.000"];
        run(cuewire().args(["transcribe", "--merge"]).args(offsets).args(args).args(&tracks))
    };
    let (code, out, err) = merge(&[]);
    assert_eq!((code, err.as_str()), (0, ""));
    let captions: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let order: Vec<_> = captions
        .iter()
        .map(|caption| (caption["start_time"].as_str().unwrap(), caption["speaker_id"].as_str().unwrap()))
        .collect();
    assert!(order.is_sorted(), "{order:?}");
    let speakers: Vec<_> = order.iter().map(|(_, speaker)| *speaker).collect();
    assert_eq!((speakers[0], speakers[captions.len() - 2], speakers[captions.len() - 1]), ("bob", "alice", "eve"));
    assert!(order.iter().all(|(time, speaker)| (*speaker == "bob") == (*time < "1970-01-01T00:00:10")), "{order:?}");

    let file = dir.path().join("call.vtt");
    let (code, out, _) = merge(&["--format", "vtt", "--output", file.to_str().unwrap()]);
    assert_eq!((code, out.as_str()), (0, ""));
    let text = std::fs::read_to_string(&file).unwrap();
    let cues: Vec<_> = webvtt::Reader::new(text.as_bytes()).map(Result::unwrap).collect();
    assert!(cues.is_sorted_by_key(|cue| cue.start_ms), "{text}");
    for speaker in ["alice", "bob", "eve"] {
        assert!(cues.iter().any(|cue| cue.speaker_id.as_deref() == Some(speaker)), "{text}");
    }
    // A track that began earlier is where the file begins.
    let offset = ["transcribe", "--merge", "--format", "vtt", "--offset", "bob=-30"];
    let text = run(cuewire().args(offset).args(&tracks[..2])).1;
    let cues = webvtt::Reader::new(text.as_bytes()).map(Result::unwrap);
    let mut firsts = std::collections::BTreeMap::new();
    cues.for_each(|cue| _ = firsts.entry(cue.speaker_id.unwrap()).or_insert(cue.start_ms));
    assert!(firsts["bob"] < 10_000 && (30_000..40_000).contains(&firsts["alice"]), "{text}");
    let folder = dir.path().join("out");
    for format in ["json", "srt", "txt"] {
        assert_eq!(merge(&["--format", format, "--output-dir", folder.to_str().unwrap()]).0, 0);
    }
    let document = std::fs::read(folder.join("merged.json")).unwrap();
    let document: serde_json::Value = serde_json::from_slice(&document).unwrap();
    assert_eq!(document["speakers"], serde_json::json!(["alice", "bob", "eve"]));
    assert_eq!(document["captions"].as_array().unwrap().len(), captions.len());
    assert!(srt_cues(&std::fs::read_to_string(folder.join("merged.srt")).unwrap()).len() > captions.len());
    assert_eq!(std::fs::read_to_string(folder.join("merged.txt")).unwrap().lines().count(), captions.len());

    // One that cannot be read does not take the others with it.
    let (code, out, err) = run(cuewire().args(["transcribe", "--merge", "eve=missing.wav"]).arg(&tracks[1]));
    assert_eq!(code, 1);
    assert!(err.contains("missing.wav") && out.contains("\"alice\""), "{err}{out}");
}

#[test]
fn the_same_recording_gives_the_same_bytes_whatever_the_threads() {
    let files = ["speech/en-queue-periodic-announce.flac", GREETING].map(testdata);
    let outputs: Vec<_> = ["1", "2", "3"]
        .iter()
        .map(|threads| run(cuewire().args(["transcribe", "--threads", threads]).args(&files)))
        .collect();
    assert_eq!(outputs[0].0, 0, "{}", outputs[0].2);
    assert!(outputs[0].1.lines().count() >= 2);
    assert_eq!(outputs[0], outputs[1]);
    assert_eq!(outputs[0], outputs[2]);
}

#[test]
fn other_languages_are_understood_named_or_detected() {
    let recording = testdata("speech/fr-conf-now-recording.flac");
    let named = run(cuewire().args(["transcribe", "--format", "txt", "--language", "fr-CA"]).arg(&recording));
    let detected = run(cuewire().args(["transcribe", "--format", "txt", "--language", "auto"]).arg(&recording));
    assert_eq!(named.0, 0, "{}", named.2);
    assert!(!named.1.trim().is_empty());
    assert_eq!(named, detected);
    let args = ["transcribe", "--format", "json", "--language", "auto", "--translate"];
    let document: serde_json::Value = serde_json::from_str(&run(cuewire().args(args).arg(&recording)).1).unwrap();
    let caption = &document["captions"][0];
    assert_eq!(caption["translated"], true, "{document}");
    assert!(caption["language_probability"].as_f64().is_some_and(|p| p > 0.5 && p <= 1.0), "{document}");
}

#[test]
fn each_file_gets_its_own_transcript_and_the_figures_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let stats = dir.path().join("stats.json");
    let mut command = cuewire();
    command.args(["transcribe", "--start-time", "2024-02-28T09:18:18+01:00", "--speaker-id", "alice", "--output-dir"]);
    command.arg(dir.path().join("out")).arg("--stats").arg(&stats);
    command.args(["speech/austen-0880.flac", GREETING].map(testdata));
    let (code, out, err) = run(&mut command);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "", ""));
    for stem in ["austen-0880", "en-agent-alreadyon"] {
        let text = std::fs::read_to_string(dir.path().join("out").join(format!("{stem}.jsonl"))).unwrap();
        assert!(text.starts_with("{\"type\":\"speech\",\"start_time\":\"2024-02-28T08:18:18."), "{text}");
        assert!(text.contains("\"speaker_id\":\"alice\""), "{text}");
    }
    let stats: serde_json::Value = serde_json::from_slice(&std::fs::read(stats).unwrap()).unwrap();
    let figure = |name: &str| stats[name].as_f64().unwrap_or_else(|| panic!("{name} is not in {stats}"));
    assert!((figure("audio_s") - 8.5).abs() < 0.1, "{stats}");
    assert!(figure("captions") >= 2.0 && figure("decode_s") > 0.0 && figure("wall_s") > figure("model_load_s"));
    if cfg!(target_os = "linux") {
        assert!((50e6..400e6).contains(&figure("peak_rss_bytes")), "{stats}");
    }
}

#[test]
fn channels_are_speakers_when_split_and_one_when_not() {
    let (rate, speech) = pcm(GREETING);
    let quiet = vec![0i16; rate as usize];
    // Right answers left: turns do not overlap.
    let left = [&speech[..], &quiet, &vec![0; speech.len()]].concat();
    let right = [&vec![0; speech.len()][..], &quiet, &speech].concat();
    let stereo: Vec<i16> = left.iter().zip(&right).flat_map(|(l, r)| [*l, *r]).collect();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("call.wav");
    std::fs::write(&path, wav(rate, 2, &stereo, stereo.len() as u32 * 2)).unwrap();
    let (code, out, err) = run(cuewire().args(["transcribe", "--split-channels"]).arg(&path));
    assert_eq!((code, err.as_str()), (0, ""));
    let speakers: Vec<&str> = out.lines().map(|line| if line.contains("\"call-1\"") { "1" } else { "2" }).collect();
    let turns: Vec<_> = speakers.chunk_by(|a, b| a == b).map(|turn| turn[0]).collect();
    assert_eq!(turns, ["1", "2"], "in order of time: {out}");
    let (_, mixed, _) = run(cuewire().args(["transcribe"]).arg(&path));
    assert!(mixed.lines().all(|line| line.contains("\"speaker_id\":\"call\"")), "{mixed}");
}

#[test]
fn standard_input_is_a_file_too() {
    let mut child = cuewire()
        .args(["transcribe", "--format", "txt", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&std::fs::read(testdata(GREETING)).unwrap()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(words(&String::from_utf8(output.stdout).unwrap()).join(" "), GREETING_WORDS);
}

#[test]
fn models_are_described_and_converted() {
    let model = testdata("models/whisper-base-q8_0.gguf");
    let (code, built_in, err) = run(cuewire().args(["model", "info"]));
    assert_eq!(code, 0, "{err}");
    for part in ["base", "72.6 M", "q8_0", "languages     en fr"] {
        assert!(built_in.contains(part), "{part:?} is not in {built_in}");
    }
    assert_eq!(run(cuewire().args(["model", "info"]).arg(&model)).1, built_in);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("half.gguf");
    let convert = |out: &Path| run(cuewire().args(["model", "convert", "--quantize", "f16"]).arg(&model).arg(out));
    assert_eq!(convert(&out).0, 0);
    assert!(run(cuewire().args(["model", "info"]).arg(&out)).1.contains("f16"));
    let (code, _, err) = convert(&out);
    assert!(code == 2 && err.contains("exists"), "{err}");
    let cut = dir.path().join("cut.gguf");
    std::fs::write(&cut, &std::fs::read(&model).unwrap()[..40_000_000]).unwrap();
    let (code, _, err) = run(cuewire().args(["transcribe", "--model"]).arg(&cut).arg(testdata(GREETING)));
    assert!(code == 2 && err.contains("cut.gguf"), "{err}");
}

#[test]
fn nothing_is_invented_over_silence_noise_and_music() {
    let dir = tempfile::tempdir().unwrap();
    let mut seed = 1u32;
    // Uniform noise of ±√3 σ has the level of σ: −50 dB of full scale.
    let mut noise = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((f64::from(seed) / f64::from(u32::MAX) * 2.0 - 1.0) * 3f64.sqrt() * 32_768.0 * 10f64.powf(-50.0 / 20.0)) as i16
    };
    let noise: Vec<i16> = (0..40 * 16_000).map(|_| noise()).collect();
    let mut files = Vec::new();
    // The detector takes a tone for speech; the guards do not.
    let tone = |i: u32| ((f64::from(i) * 440.0 / 16_000.0 * std::f64::consts::TAU).sin() * 4000.0) as i16;
    let tone: Vec<i16> = (0..10 * 16_000).map(tone).collect();
    for (name, samples) in [("silence.wav", &vec![0; 40 * 16_000]), ("noise.wav", &noise), ("tone.wav", &tone)] {
        let path = dir.path().join(name);
        std::fs::write(&path, wav(16_000, 1, samples, samples.len() as u32 * 2)).unwrap();
        files.push(path);
    }
    match std::env::var_os("CUEWIRE_TEST_SPEECH") {
        Some(speech) => {
            let music = std::fs::read_dir(Path::new(&speech).join("music")).unwrap();
            files.extend(
                music.map(|entry| entry.unwrap().path()).filter(|path| path.extension() == Some("flac".as_ref())),
            );
        }
        None => skipped("CUEWIRE_TEST_SPEECH is not set; it should name a folder that holds music/*.flac"),
    }
    let stats = dir.path().join("stats.json");
    let (code, out, err) = run(cuewire().args(["transcribe", "--stats"]).arg(&stats).args(&files));
    assert_eq!((code, out.as_str(), err.as_str()), (0, "", ""));
    let stats: serde_json::Value = serde_json::from_slice(&std::fs::read(stats).unwrap()).unwrap();
    let reasons: BTreeMap<Suppression, u64> = serde_json::from_value(stats["suppressed_by_reason"].clone()).unwrap();
    assert!(reasons.get(&Suppression::NoSpeech).is_some_and(|&count| count > 0), "{stats}");
    assert!(reasons.values().all(|&count| count > 0), "{stats}");
    assert_eq!((stats["captions"].as_u64(), stats["suppressed"].as_u64()), (Some(0), Some(reasons.values().sum())));
}

#[test]
fn a_decoder_that_loops_keeps_what_was_said_before() {
    // A whole utterance and the beginning of another: the second sends the model into a loop.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("chain.ogg");
    let parts = ["formats/opus.ogg", "formats/surround.ogg"].map(|name| std::fs::read(testdata(name)).unwrap());
    std::fs::write(&path, parts.concat()).unwrap();
    let (code, out, err) = run(cuewire().args(["transcribe", "--format", "txt"]).arg(&path));
    assert_eq!((code, err.as_str()), (0, ""));
    let alone = run(cuewire().args(["transcribe", "--format", "txt"]).arg(testdata("formats/opus.ogg"))).1;
    let heard = words(&out);
    assert!(heard.starts_with(&words(&alone)) && heard.len() < words(&alone).len() + 20, "{out}\n{alone}");
}

/// Not `eprintln!`: what tests print that way is shown only when they fail.
fn skipped(what: &str) {
    std::io::stderr().write_all(format!("SKIPPED: {what}\n").as_bytes()).unwrap();
}
