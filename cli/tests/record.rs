//! The transcript that a live stream leaves, whatever becomes of the process and of the disk.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure is the report")]

use std::fs;
use std::io::{BufRead as _, BufReader, Lines, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use cuewire::transcript::{Fragment, jsonl};
use disk::Disk;
use support::{GREETING, cuewire, pcm, testdata};

#[path = "../../tests/support/disk.rs"]
mod disk;
mod support;

/// The greeting as raw PCM with a silence behind it, and its rate.
fn greeting() -> (u32, Vec<u8>) {
    let (rate, mut samples) = pcm(GREETING);
    samples.extend(vec![0; rate as usize * 2]);
    (rate, samples.iter().flat_map(|x| x.to_le_bytes()).collect())
}

/// A stream that is captioned.
struct Live {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    speech: Vec<u8>,
}

impl Live {
    fn start(output: &Path) -> Self {
        let (rate, speech) = greeting();
        let mut command = cuewire();
        command.args([
            "live",
            "--channels",
            "1",
            "--interim-interval-ms",
            "0",
            "--rate",
            &rate.to_string(),
            "--output",
        ]);
        command.arg(output).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().unwrap());
        Self { child, stdin, lines: BufReader::new(stdout).lines(), speech }
    }

    /// Says the greeting, and waits for its final: what was printed.
    fn speak(&mut self) -> String {
        self.stdin.as_mut().unwrap().write_all(&self.speech).unwrap();
        loop {
            let event: serde_json::Value = serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap();
            if event["type"] == "final" {
                return event["text"].as_str().unwrap().to_string();
            }
        }
    }

    /// Ends the stream; the exit code, and standard error.
    fn end(mut self) -> (Option<i32>, String) {
        drop(self.stdin.take());
        self.lines.by_ref().for_each(drop);
        let mut err = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (self.child.wait().unwrap().code(), err)
    }
}

fn read(path: &Path) -> Vec<Fragment> {
    let bytes = fs::read(path).unwrap();
    jsonl::Reader::new(bytes.as_slice()).map(Result::unwrap).collect()
}

#[test]
fn what_was_printed_is_in_the_journal_after_kill_9_and_the_same_command_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (target, journal) = (folder.path().join("call.jsonl"), folder.path().join("call.jsonl.journal"));
    for time in 1..=2 {
        let mut live = Live::start(&target);
        let text = live.speak();
        live.child.kill().unwrap();
        live.child.wait().unwrap();
        let there = read(&journal);
        assert_eq!((there.len(), &there.last().unwrap().text), (time, &text));
        assert!(!target.exists());
    }
    // As if it had been killed in the middle of a line.
    let mut torn = fs::OpenOptions::new().append(true).open(&journal).unwrap();
    torn.write_all(b"{\"type\":\"speech\",\"start_ti").unwrap();
    let mut live = Live::start(&target);
    live.speak();
    let (code, err) = live.end();
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("2 captions are there, 26 bytes"), "{err}");
    let there = read(&target);
    assert!(there.len() == 3 && there.is_sorted_by_key(|fragment| fragment.start_time), "{there:?}");
    assert!(!journal.exists());
    // A transcript that is whole is nobody's to write over.
    let (code, err) = Live::start(&target).end();
    assert!(code == Some(2) && err.contains("is there already"), "{err}");
    let (code, err) = Live::start(&folder.path().join("no/call.jsonl")).end();
    assert!(
        code == Some(2) && err.contains("no/call.jsonl.journal") && err.contains("a folder that is there"),
        "{err}"
    );
    assert_eq!(read(&target).len(), 3);
}

#[test]
fn while_the_disk_is_full_captions_are_printed_and_they_are_written_once_there_is_room() {
    let Some(disk) = Disk::of_kib(256) else { return };
    let target = disk.path().join("call.jsonl");
    let mut live = Live::start(&target);
    live.speak();
    let ballast = disk.fill();
    // The last block of the journal has room for some.
    let journal = disk.path().join("call.jsonl.journal");
    let mut spoken = 1;
    while read(&journal).len() == spoken {
        live.speak();
        spoken += 1;
        assert!(spoken < 60, "the disk is full");
    }
    assert_eq!(read(&journal).len(), spoken - 1, "none in part");
    fs::remove_file(ballast).unwrap();
    // Nobody says anything meanwhile.
    let since = Instant::now();
    while read(&journal).len() < spoken {
        assert!(since.elapsed() < Duration::from_secs(20), "what waits is tried again by itself");
        sleep(Duration::from_millis(20));
    }
    live.speak();
    let (code, err) = live.end();
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("make room") && err.contains(journal.to_str().unwrap()), "{err}");
    assert_eq!(read(&target).len(), spoken + 1, "each once");
}

#[test]
fn a_stream_that_ends_on_a_full_disk_says_where_its_captions_are() {
    let Some(disk) = Disk::of_kib(256) else { return };
    let target = disk.path().join("call.jsonl");
    let mut live = Live::start(&target);
    live.speak();
    let ballast = disk.fill();
    let (code, err) = live.end();
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("make room") && err.contains("every caption is in"), "{err}");
    assert_eq!(read(&disk.path().join("call.jsonl.journal")).len(), 1);
    fs::remove_file(ballast).unwrap();
    let (code, err) = Live::start(&target).end();
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(read(&target).len(), 1, "the same command finishes it");
}

#[test]
fn a_transcript_in_a_file_is_synced_as_the_policy_says() {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        eprintln!("!!!! SKIPPED: `strace` is not installed, which shows what is synced");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (sync, at_least) in [("each", 2), ("second", 1), ("never", 0)] {
        let (trace, output) = (folder.path().join("trace"), folder.path().join("call.jsonl"));
        let mut command = Command::new("strace");
        command.args(["-f", "-y", "-e", "trace=fdatasync,fsync", "-o"]).arg(&trace).arg(env!("CARGO_BIN_EXE_cuewire"));
        command.args(["transcribe", "--sync", sync, "--output"]).arg(&output).arg(testdata(GREETING));
        assert!(command.status().unwrap().success());
        let trace = fs::read_to_string(&trace).unwrap();
        let synced = trace.lines().filter(|call| call.contains("call.jsonl>")).count();
        assert!(if at_least == 0 { synced == 0 } else { synced >= at_least }, "{sync}: {trace}");
        assert_eq!(read(&output).len(), 1);
    }
}
