//! Streams: standard input as it is spoken, and many at a time.

use super::time::{in_time, unless};
use super::*;

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
    let mut finals = Vec::new();
    in_time(|| {
        let args = ["--rate", &rate, "--channels", "1", "--start-time", "2024-02-28T08:00:00Z"];
        let events = live(&args, &s16, Some(block));
        finals = events.iter().filter(|event| event["type"] == "final").cloned().collect();
        let text: Vec<&str> = finals.iter().map(|event| event["text"].as_str().unwrap()).collect();
        unless(words(&text.join(" ")).join(" ") == GREETING_WORDS, || format!("{events:?}"))?;
        assert!(finals[0]["start_time"].as_str().unwrap().starts_with("2024-02-28T08:00:00."));
        let is_interim = |event: &serde_json::Value| event["type"] == "interim" && event["id"] == finals[0]["id"];
        unless(events.iter().any(is_interim), || format!("{events:?}"))
    });
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
        let attempt = || {
            let events = live(&[&["--rate", &rate.to_string()], args].concat(), bytes, pace);
            let told = speakers.map(|speaker| texts(&events, speaker));
            unless(told == expected, || format!("{args:?}: {told:?}, expected were {expected:?}"))?;
            let order: Vec<&str> = events.iter().map(|event| event["speaker_id"].as_str().unwrap()).collect();
            // Of audio that comes at once all answers do.
            let is_as_it_happens = pace.is_none() || order.chunk_by(|a, b| a == b).count() > 4;
            unless(is_as_it_happens, || format!("{args:?}: not as they happen: {order:?}"))
        };
        if pace.is_some() {
            in_time(attempt);
        } else {
            attempt().unwrap();
        }
    }
}

/// Waits until the pipe is empty and no thread of the process has anything to do.
#[cfg(unix)]
fn wait_until_heard(pipe: &std::process::ChildStdin, process: u32) {
    let is_at_rest = || {
        // Where there is no such folder, the wait below has to do.
        let threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten();
        let mut states = threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("stat")).ok());
        states.all(|stat| stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('S')))
    };
    let (began, mut looks) = (std::time::Instant::now(), 0);
    while looks < 10 {
        let is_heard = rustix::io::ioctl_fionread(pipe).unwrap() == 0 && is_at_rest();
        looks = if is_heard { looks + 1 } else { 0 };
        assert!(began.elapsed() < std::time::Duration::from_secs(120), "it does not come to rest");
        std::thread::sleep(std::time::Duration::from_millis(20));
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
        // It stays open.
        wait_until_heard(&stdin, child.id());
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
    let mut report = serde_json::Value::Null;
    in_time(|| {
        let (code, out, err) = run(cuewire().args(bench).arg(&call));
        assert_eq!((code, err.as_str()), (0, ""));
        report = serde_json::from_str(&out).unwrap();
        assert_eq!((report["streams"].as_u64(), report["seconds"].as_f64()), (Some(2), Some(6.0)), "{report}");
        assert!(report["push_us"]["p99_9"].as_f64().unwrap() > 0.0, "{report}");
        assert!(report["cpu_per_audio_s"].as_f64().unwrap() > 0.0, "{report}");
        let end = report["end_latency_ms"]["max"].as_f64().unwrap_or_default();
        let are_said = report["finals"].as_u64().unwrap() >= 2 && report["drops"] == 0;
        unless(are_said && end < 5_000.0, || report.to_string())
    });
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
