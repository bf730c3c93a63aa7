//! What goes wrong, and what is said of it: files, options, readers that have enough.

use super::*;

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
