//! The binary as people run it: real recordings, the built-in model, real pipes and signals.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure is the report")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use cuewire::asr::Suppression;
use cuewire::time::Timestamp;
use cuewire::transcript::webvtt;

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata").join(name)
}

fn cuewire() -> Command {
    Command::new(env!("CARGO_BIN_EXE_cuewire"))
}

/// Runs to the end; gives exit code, standard output, standard error.
fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn words(text: &str) -> Vec<String> {
    let keep = |c: char| if c.is_alphanumeric() { c.to_lowercase().collect::<String>() } else { " ".into() };
    text.chars().map(keep).collect::<String>().split_whitespace().map(str::to_string).collect()
}

/// 16-bit mono samples of a test recording, and their rate.
fn pcm(name: &str) -> (u32, Vec<i16>) {
    let mut file = cuewire::audio::file::AudioFile::open(&testdata(name)).unwrap();
    let (rate, mut samples) = (file.sample_rate(), Vec::new());
    while let Some(block) = file.next_block().unwrap() {
        samples.extend(block.samples.iter().map(|x| (x * 32_768.0).clamp(-32_768.0, 32_767.0) as i16));
    }
    (rate, samples)
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

const GREETING: &str = "speech/en-agent-alreadyon.flac";
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
fn one_bad_file_does_not_stop_the_others_and_the_exit_code_tells() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("notes.wav");
    std::fs::write(&text, "Dear all, please find attached nothing.").unwrap();
    let missing = dir.path().join("missing.flac");
    let (code, out, err) =
        run(cuewire().args(["transcribe", "--format", "txt"]).args([&missing, &text, &testdata(GREETING)]));
    assert_eq!(code, 1);
    assert_eq!(words(&out).join(" "), GREETING_WORDS);
    for (line, part) in err.lines().zip(["missing.flac", "notes.wav is not an audio file"]) {
        assert!(line.starts_with("cuewire: ") && line.contains(part), "{line}");
    }
}

#[test]
fn a_truncated_recording_gives_its_captions_and_then_the_error() {
    let (rate, speech) = pcm(GREETING);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broken.wav");
    std::fs::write(&path, wav(rate, 1, &speech, speech.len() as u32 * 4)).unwrap();
    let (code, out, err) = run(cuewire().args(["transcribe", "--format", "txt"]).arg(&path));
    assert_eq!(code, 1, "{err}");
    assert_eq!(words(&out).join(" "), GREETING_WORDS);
    assert!(err.contains("broken.wav") && err.contains("truncated"), "{err}");
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_read() {
    let recording = testdata(GREETING);
    let recording = recording.to_str().unwrap();
    let cases: [(&[&str], &[&str]); 26] = [
        (&["transcribe"], &["FILE"]),
        (
            &["transcribe", "--max-speech-caption-ms", "4999", recording],
            &["max_speech_caption_ms is 4999", "5000 – 10000"],
        ),
        (&["transcribe", "--silence-duration-ms", "2001", recording], &["silence_duration_ms is 2001", "300 – 2000"]),
        (&["transcribe", "--language", "tlh", recording], &["`tlh`", "auto, en"]),
        (&["transcribe", "--start-time", "noon", recording], &["`noon`", "RFC 3339"]),
        (
            &["transcribe", "--start-time", "2262-04-11T23:47:15Z", recording],
            &["2262-04-11T23:47:15", "1678-09-22T00:12:43", "2261-04-10T23:47:16"],
        ),
        (&["live", "--rate", "16000", "--channels", "1", "--start-time", "1677-10-01T00:00:00Z"], &["1678-09-22T"]),
        (&["transcribe", "--threads", "100000", recording], &["threads are `100000`", "1 – 1024"]),
        (&["transcribe", "--threads", "0", recording], &["threads are `0`", "1 – 1024"]),
        (&["transcribe", "--format", "srt", recording, recording], &["several files", "--output-dir"]),
        (&["transcribe", "--output-dir", "/tmp", recording, recording], &["cannot be both the transcript of"]),
        (&["transcribe", "--format", "json", recording, recording], &["several files", "--merge"]),
        (&["transcribe", "--output", "/tmp/x", recording, recording], &["several files", "/tmp/x"]),
        (&["transcribe", "--profile", "ebu", recording], &["`ebu`", "netflix, bbc, dcmp, cea608, none"]),
        (&["transcribe", "--merge", "a=1.wav", "a=2.wav"], &["1.wav and 2.wav are both a"]),
        (&["transcribe", "--model", "/nonexistent", recording], &["/nonexistent"]),
        (&["live", "--rate", "7999", "--channels", "1"], &["7999", "8000 – 192000"]),
        (&["live", "--rate", "16000"], &["--channels"]),
        (&["live", "--rate", "16000", "--tracks", "0"], &["tracks are `0`", "1 – 255"]),
        (&["live", "--rate", "16000", "--tracks", "256"], &["tracks are `256`", "1 – 255"]),
        (
            &["live", "--rate", "16000", "--tracks", "2", "--channels", "3"],
            &["channels are 3", "with 2 tracks", "multiples of 2"],
        ),
        (&["live", "--rate", "16000", "--tracks", "2", "--channels", "0"], &["channels are 0", "1 – 255"]),
        (
            &["live", "--rate", "16000", "--tracks", "2", "--speaker-id", "alice"],
            &["speaker ids are 1 (alice)", "--tracks 2 allowed are 2, or none"],
        ),
        (
            &["live", "--rate", "16000", "--channels", "2", "--speaker-id", "alice", "--speaker-id", "bob"],
            &["speaker ids are 2 (alice, bob)", "--tracks 1 allowed are 1"],
        ),
        (
            &["live", "--rate", "16000", "--tracks", "2", "--speaker-id", "alice", "--speaker-id", "alice"],
            &["two tracks are alice"],
        ),
        (
            &["live", "--rate", "48000", "--channels", "1", "--interim-interval-ms", "249"],
            &["interim_interval_ms is 249"],
        ),
    ];
    for (args, parts) in cases {
        let (code, out, err) = run(cuewire().args(args).stdin(Stdio::null()));
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
        assert!(parts.iter().all(|part| err.contains(part)), "{args:?}: {err}");
    }
}

#[test]
fn what_is_read_is_never_written() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let (recording, list, model, free) = (place("a.flac"), place("list"), place("model.gguf"), place("free"));
    std::fs::copy(testdata(GREETING), &recording).unwrap();
    std::fs::copy(testdata(GREETING), place("b.txt")).unwrap();
    std::fs::write(&list, "Ann=Anne").unwrap();
    std::fs::write(&model, "x").unwrap();
    std::fs::hard_link(&recording, place("hard")).unwrap();
    std::fs::create_dir(place("sub")).unwrap();
    let (hard, around, at_list, track) =
        (place("hard"), place("sub/../a.flac"), format!("@{list}"), format!("a={recording}"));
    let (dir_path, missing) = (place("."), place("none.wav"));
    let before = || {
        let mut files: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.into_iter().map(|path| (std::fs::read(&path).ok(), path)).collect::<Vec<_>>()
    };
    let files = before();
    let cases: [(&[&str], &str); 11] = [
        (&["-o", &recording, &recording], "the input"),
        (&["-o", &around, &recording], "the input"),
        (&["-o", &hard, &recording], "the input"),
        (&["--merge", "-o", &recording, &track], "the input"),
        (&["--stats", &recording, &recording], "the input"),
        (&["--output-dir", &dir_path, "--format", "txt", &place("b.txt")], "the input"),
        (&["--vocabulary", &at_list, "-o", &list, &recording], "the list"),
        (&["--replace", &at_list, "--stats", &list, &recording], "the list"),
        (&["--model", &model, "-o", &model, &recording], "the model"),
        (&["-o", &free, "--stats", &place("sub/../free"), &recording], "the transcript"),
        (&["-o", &recording, "-"], "the input -"),
    ];
    for (args, part) in cases {
        let stdin = std::fs::File::open(&recording).unwrap();
        let (code, out, err) = run(cuewire().arg("transcribe").args(args).stdin(stdin));
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
        assert!(err.contains("cannot be both") && err.contains(part), "{args:?}: {err}");
        assert!(before() == files, "{args:?}");
    }
    // A place that cannot be written, or a model that is none, is known before anything is made.
    let (new, nowhere, below) = (place("new/folder"), place("nowhere/x"), place("list/x"));
    for args in [
        &["-o", &nowhere, &recording][..],
        &["--merge", "-o", &nowhere, &recording],
        &["--stats", &nowhere, &recording],
        &["-o", &dir_path, &recording],
        &["--output-dir", &below, &recording],
        &["--output-dir", &new, "--model", "/nonexistent", &recording],
        &["-o", &free, "--stats", &place("s"), "--model", "/nonexistent", &recording],
    ] {
        let (code, out, err) = run(cuewire().arg("transcribe").args(args));
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
        assert!(before() == files, "{args:?}");
    }
    // A merged transcript takes the place of the one before when there is one.
    for target in [&list, &free] {
        let merge = |track: &str| run(cuewire().args(["transcribe", "--merge", "-o", target, track]));
        assert_eq!(merge(&missing).0, 1);
        assert!(before() == files, "{target}");
    }
    assert_eq!(run(cuewire().args(["transcribe", "--merge", "-o", &list, &missing, &recording])).0, 1);
    assert!(std::fs::read_to_string(&list).unwrap().contains("agent"));
    assert_eq!(before().len(), files.len());
    let stats = place("new/folder/stats.json");
    assert_eq!(run(cuewire().args(["transcribe", "--output-dir", &new, "--stats", &stats, &missing])).0, 1);
    assert!(Path::new(&stats).is_file());
}

#[test]
fn a_reader_that_has_enough_ends_the_work_and_hides_no_failure() {
    const TIMES: usize = 30;
    let (rate, speech) = pcm(GREETING);
    let long = [speech, vec![0; rate as usize]].concat().repeat(TIMES);
    let long_s = long.len() as f64 / f64::from(rate);
    let dir = tempfile::tempdir().unwrap();
    let (path, stats) = (dir.path().join("long.wav"), dir.path().join("stats.json"));
    std::fs::write(&path, wav(rate, 1, &long, long.len() as u32 * 2)).unwrap();
    let rate = rate.to_string();
    for (args, expected) in [
        (
            &["transcribe", "--format", "txt", "--threads", "1", "--stats", stats.to_str().unwrap(), "missing.wav"][..],
            1,
        ),
        (&["live", "--channels", "1", "--threads", "1", "--rate", &rate], 0),
        (&["live", "--tracks", "2", "--threads", "1", "--rate", &rate], 0),
    ] {
        let is_live = args[0] == "live";
        let mut command = cuewire();
        command.args(args).args((!is_live).then_some(&path)).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.stdin(Stdio::from(std::fs::File::open(&path).unwrap())).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(!line.is_empty());
        assert_eq!(child.wait().unwrap().code(), Some(expected), "{args:?}");
    }
    let stats: serde_json::Value = serde_json::from_slice(&std::fs::read(stats).unwrap()).unwrap();
    let audio_s = stats["audio_s"].as_f64().unwrap();
    assert!(audio_s > 5.0 && audio_s < long_s / 2.0, "{audio_s} of {long_s} s");
}

#[test]
fn lists_have_comments_a_way_to_begin_with_an_at_sign_and_errors_with_their_line() {
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("list.txt");
    let from_file = |option: &str, content: &[u8]| {
        std::fs::write(&list, content).unwrap();
        let value = format!("@{}", list.display());
        run(cuewire().args(["transcribe", "--format", "txt", option, &value]).arg(testdata(GREETING)))
    };
    for (option, content, part) in [
        ("--replace", &b"# agents\n\na=b\nagent\n"[..], "list.txt: line 4: `agent` has no `=`"),
        ("--replace", b"a=b\n...=c\n", "list.txt: line 2: replacements has the entry `...`"),
        ("--mask-words", b"# none\n-\n", "list.txt: line 2: masked_words has the entry `-`"),
        ("--vocabulary", b"Ann\nL\xe9e\n", "list.txt: line 2: it is no UTF-8"),
    ] {
        let (code, _, err) = from_file(option, content);
        assert!(code == 2 && err.contains(part), "{option}: {err}");
    }
    let (code, out, err) = from_file("--replace", b"# that agent=nobody\n  # =\nagent=@gent\n");
    assert!(code == 0 && out.contains("That @gent is"), "{out}{err}");
    let at = ["--replace", "@@x=y", "--replace", "agent=@gent", "--vocabulary", "@@home, Ann"];
    let (code, again, err) = run(cuewire().args(["transcribe", "--format", "txt"]).args(at).arg(testdata(GREETING)));
    assert_eq!((code, again), (0, out), "{err}");
}

#[test]
fn the_help_of_each_command_has_options_examples_and_exit_codes() {
    let of_models = [&["model", "pull"][..], &["model", "info"], &["model", "convert"]];
    let others = [&["transcribe"][..], &["live"], &["bench", "streams"], &["bench", "capacity"]];
    for command in others.into_iter().chain(of_models) {
        let (code, help, _) = run(cuewire().args(command).arg("--help"));
        assert_eq!(code, 0, "{command:?}");
        for part in ["Options:", "Examples:\n  ", "Exit codes:\n  0 "] {
            assert!(help.contains(part), "{command:?}: {part:?} is not in {help}");
        }
    }
    let live = run(cuewire().args(["live", "--help"])).1;
    assert!(live.contains("1 – 255") && !live.contains("vtt"), "{live}");
}

/// Feeds raw PCM, 100 ms worth at a time where `pace` says how many bytes that is, else as fast as the pipe takes it;
/// gives the events.
fn live(args: &[&str], bytes: &[u8], pace: Option<usize>) -> Vec<serde_json::Value> {
    let mut child = cuewire().arg("live").args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || {
        for block in bytes.chunks(pace.unwrap_or(bytes.len())) {
            stdin.write_all(block)?;
            if pace.is_some() {
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
        }
        std::io::Result::Ok(())
    });
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let events = lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    writer.join().unwrap().unwrap();
    assert!(child.wait().unwrap().success());
    events
}

#[test]
fn a_live_stream_shows_interims_and_then_the_final() {
    let (rate, speech) = pcm(GREETING);
    let samples = [&speech[..], &vec![0; rate as usize]].concat();
    let s16: Vec<u8> = samples.iter().flat_map(|x| x.to_le_bytes()).collect();
    let block = rate as usize / 10 * 2;
    let rate = rate.to_string();
    let events = live(&["--rate", &rate, "--channels", "1", "--start-time", "2024-02-28T08:00:00Z"], &s16, Some(block));
    let finals: Vec<_> = events.iter().filter(|event| event["type"] == "final").collect();
    let text: Vec<&str> = finals.iter().map(|event| event["text"].as_str().unwrap()).collect();
    assert_eq!(words(&text.join(" ")).join(" "), GREETING_WORDS);
    assert!(finals[0]["start_time"].as_str().unwrap().starts_with("2024-02-28T08:00:00."));
    assert!(events.iter().any(|event| event["type"] == "interim" && event["id"] == finals[0]["id"]), "{events:?}");
    let f32: Vec<u8> =
        samples.iter().flat_map(|x| [f32::from(*x) / 32_768.0; 2].map(f32::to_le_bytes)).flatten().collect();
    let stereo = live(
        &[
            "--rate",
            &rate,
            "--channels",
            "2",
            "--sample-format",
            "f32le",
            "--interim-interval-ms",
            "0",
            "--start-time",
            "2024-02-28T08:00:00Z",
        ],
        &f32,
        None,
    );
    assert!(stereo.iter().all(|event| event["type"] == "final"));
    assert_eq!(
        stereo.iter().map(|event| &event["text"]).collect::<Vec<_>>(),
        finals.iter().map(|event| &event["text"]).collect::<Vec<_>>()
    );
}

#[test]
fn each_track_of_a_live_stream_is_captioned_as_its_channel_is_alone() {
    let ((rate, left), (_, right)) = (pcm("speech/en-queue-periodic-announce.flac"), pcm(GREETING));
    // Twice, and no silence at the end: the last captions are open when the input ends.
    let (left, right) = (left.repeat(2), right.repeat(2));
    let frames = left.len().max(right.len());
    let at = |samples: &[i16], i: usize| samples.get(i).copied().unwrap_or(0);
    let frames: Vec<[i16; 2]> = (0..frames).map(|i| [at(&left, i), at(&right, i)]).collect();
    let stereo: Vec<i16> = frames.iter().flatten().copied().collect();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("speaker.wav");
    std::fs::write(&path, wav(rate, 2, &stereo, stereo.len() as u32 * 2)).unwrap();
    let (code, out, err) = run(cuewire().args(["transcribe", "--split-channels"]).arg(&path));
    assert_eq!((code, err.as_str()), (0, ""));
    let offline: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let texts = |events: &[serde_json::Value], speaker: &str| -> Vec<String> {
        let of_speaker = |event: &&serde_json::Value| {
            event["speaker_id"] == speaker && (event["type"] == "final" || event["type"] == "speech")
        };
        events.iter().filter(of_speaker).map(|event| event["text"].as_str().unwrap().to_string()).collect()
    };
    let expected = ["speaker-1", "speaker-2"].map(|speaker| texts(&offline, speaker));
    assert!(expected.iter().all(|texts| texts.len() >= 2), "{expected:?}");

    let s16: Vec<u8> = stereo.iter().flat_map(|x| x.to_le_bytes()).collect();
    let float = |x: i16| (f32::from(x) / 32_768.0).to_le_bytes();
    let f32: Vec<u8> = frames.iter().flatten().flat_map(|&x| [float(x); 2]).flatten().collect();
    let names = ["--speaker-id", "alice", "--speaker-id", "bob"];
    // Blocks that end inside a frame.
    let torn = rate as usize / 10 * 4 + 3;
    for (args, bytes, pace, speakers) in [
        (&["--tracks", "2"][..], &s16, Some(torn), ["speaker-1", "speaker-2"]),
        (
            &["--tracks", "2", "--channels", "4", "--sample-format", "f32le", "--interim-interval-ms", "0"],
            &f32,
            None,
            ["speaker-1", "speaker-2"],
        ),
        (&[&["--tracks", "2", "--threads", "1"], &names[..]].concat(), &s16, None, ["alice", "bob"]),
    ] {
        let events = live(&[&["--rate", &rate.to_string()], args].concat(), bytes, pace);
        assert_eq!(speakers.map(|speaker| texts(&events, speaker)), expected, "{args:?}");
        let order: Vec<&str> = events.iter().map(|event| event["speaker_id"].as_str().unwrap()).collect();
        // Of audio that comes at once all answers do.
        assert!(pace.is_none() || order.chunk_by(|a, b| a == b).count() > 4, "{args:?}: as they happen: {order:?}");
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_finalises_the_open_caption() {
    let (rate, speech) = pcm(GREETING);
    for command in [
        &["live", "--rate", "RATE", "--channels", "1"][..],
        &["live", "--rate", "RATE", "--tracks", "2"],
        &["transcribe", "-"],
        &["transcribe", "--format", "json", "-"],
        &["transcribe", "--merge", "--format", "vtt", "caller=-"],
    ] {
        let rate_text = rate.to_string();
        let mut child = cuewire()
            .args(command.iter().map(|arg| if *arg == "RATE" { rate_text.as_str() } else { arg }))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let bytes: Vec<u8> = if command[0] == "live" {
            let tracks = if command.contains(&"--tracks") { 2 } else { 1 };
            speech.iter().flat_map(|x| x.to_le_bytes().repeat(tracks)).collect()
        } else {
            wav(rate, 1, &speech, u32::MAX - 36)
        };
        stdin.write_all(&bytes).unwrap();
        stdin.flush().unwrap();
        // The pipe is empty once everything was taken; give the reader time to hear it. It stays open.
        std::thread::sleep(std::time::Duration::from_secs(4));
        let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        let (mut out, mut err) = (String::new(), String::new());
        child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{command:?}: {err}");
        assert!(words(&out).join(" ").contains("followed by the pound"), "{command:?}: {out}");
        if command.contains(&"--tracks") {
            let finals = out.lines().filter(|line| line.contains("\"final\"")).map(words).map(|words| words.join(" "));
            assert_eq!(finals.filter(|words| words.contains("pound key")).count(), 2, "{out}");
        }
        assert!(!command.contains(&"json") || serde_json::from_str::<serde_json::Value>(&out).is_ok(), "{out}");
        assert!(err.contains("finalising"), "{command:?}: {err}");
        drop(stdin);
    }
}

#[test]
fn streams_are_captioned_in_real_time_and_the_figures_are_told() {
    let call = testdata("speech");
    let bench = ["bench", "streams", "--streams", "2", "--seconds", "6", "--call"];
    let (code, out, err) = run(cuewire().args(bench).arg(&call));
    assert_eq!((code, err.as_str()), (0, ""));
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((report["streams"].as_u64(), report["seconds"].as_f64()), (Some(2), Some(6.0)), "{report}");
    assert!(report["finals"].as_u64().unwrap() >= 2 && report["drops"] == 0, "{report}");
    assert!(report["push_us"]["p99_9"].as_f64().unwrap() > 0.0, "{report}");
    assert!(report["cpu_per_audio_s"].as_f64().unwrap() > 0.0, "{report}");
    let end = report["end_latency_ms"]["max"].as_f64().unwrap_or_default();
    assert!(end < 5_000.0, "{report}");
    let (_, help, _) = run(cuewire().args(["bench", "streams", "--help"]));
    for key in
        report.as_object().unwrap().keys().filter(|key| !["streams", "seconds", "finals"].contains(&key.as_str()))
    {
        assert!(help.contains(&format!("\n  {key} ")), "{key} is told and not explained:\n{help}");
    }

    let (code, out, err) = run(cuewire().args(bench).arg(testdata("nobody")));
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("cannot read the call") && err.contains("nobody"), "{err}");
    let (code, out, err) = run(cuewire().args(bench).arg(testdata("models")));
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("holds no track"), "{err}");
    let (code, _, err) = run(cuewire().args(["bench", "streams", "--streams", "0", "--call"]).arg(&call));
    assert!(code == 2 && err.contains("1 – 10000"), "{err}");
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
