//! The system's clock is set back and forward while a service runs.
//!
//! A test process of its own sees a clock that the test sets: a shared object, made by the C compiler, stands before the C library.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::{Service, time, utterance};

const CALL: &str = "/api/v2/video/call/default/c";
const CLOCK: &str = "CUEWIRE_TEST_CLOCK";
const HOUR: i64 = 3600;

#[test]
fn a_clock_that_is_set_back_and_forward_loses_no_caption_and_no_order() {
    let folder = tempfile::tempdir().unwrap();
    let (object, clock) = (folder.path().join("clock.so"), folder.path().join("clock"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/clock.c");
    let made = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&object).arg(source).status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("!!!! SKIPPED: no C compiler (`cc`) that makes shared objects: the clock cannot be set");
        return;
    }
    std::fs::write(&clock, 0_i64.to_le_bytes()).unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["under_a_clock_that_is_set", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env("LD_PRELOAD", &object)
        .env(CLOCK, &clock)
        .output()
        .unwrap();
    let said = [child.stdout, child.stderr].concat();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&said));
    assert!(String::from_utf8_lossy(&said).contains("1 passed"), "{}", String::from_utf8_lossy(&said));
}

/// Sets this process's clock so many seconds from the system's.
fn set_clock(seconds: i64) {
    use std::io::Write as _;
    let path = std::env::var_os(CLOCK).unwrap();
    // In its place: it is mapped.
    let mut file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    let before = cuewire_server::now();
    file.write_all(&seconds.to_le_bytes()).unwrap();
    eprintln!("the clock was {before} and is {}", cuewire_server::now());
}

fn list(service: &Service, call: &str) -> Vec<Value> {
    let list = service.ok("GET", &format!("{call}/transcriptions"), "", &json!({}));
    list["transcriptions"].as_array().unwrap().clone()
}

#[test]
#[ignore = "the test above starts it, under its clock"]
fn under_a_clock_that_is_set() {
    if std::env::var_os(CLOCK).is_none() {
        return;
    }
    let began = cuewire_server::now();
    let mut service = Service::start();
    service.ok("POST", CALL, "", &json!({"data": {"created_by_id": "alice"}}));
    let (mut watcher, connection) = service.watch("alice", "");
    service.ok("GET", &format!("/video/call/default/c?connection_id={connection}"), "alice", &json!({}));
    service.ok("POST", &format!("{CALL}/start_transcription"), "", &json!({"enable_closed_captions": true}));
    let mut captions = Vec::new();
    let mut alice = service.join("default/c", "alice");
    alice.speak(&utterance());
    captions.push(watcher.until("call.closed_caption").pop().unwrap());

    set_clock(-HOUR);
    assert!(cuewire_server::now() < began, "the clock is set");
    // Who speaks goes on in their own time; who comes now has the new one.
    alice.speak(&utterance());
    captions.push(watcher.until("call.closed_caption").pop().unwrap());
    let mut bob = service.join("default/c", "bob");
    bob.speak(&utterance());
    captions.push(watcher.until("call.closed_caption").pop().unwrap());
    // Somebody who comes back into the earlier time.
    let mut alice = service.join("default/c", "alice");
    alice.speak(&utterance());
    captions.push(watcher.until("call.closed_caption").pop().unwrap());

    set_clock(0);
    bob.speak(&utterance());
    captions.push(watcher.until("call.closed_caption").pop().unwrap());

    let of = |event: &Value, field: &str| time(&event["closed_caption"][field]);
    let seconds = |n: usize, field: &str| of(&captions[n], field).nanos_since(began) / 1_000_000_000;
    assert!(of(&captions[0], "start_time") < of(&captions[1], "start_time"), "one connection's time does not go back");
    assert!((-HOUR - 60..-HOUR + 60).contains(&seconds(2, "start_time")), "{}", seconds(2, "start_time"));
    assert!(captions.iter().all(|event| of(event, "start_time") < of(event, "end_time")));
    let ids: BTreeSet<_> = captions.iter().map(|event| event["closed_caption"]["id"].to_string()).collect();
    assert_eq!(ids.len(), captions.len(), "no id is used twice");

    set_clock(-2 * HOUR);
    service.ok("POST", &format!("{CALL}/mark_ended"), "", &json!({}));
    let ready = watcher.until("call.transcription_ready").pop().unwrap();
    let url = ready["call_transcription"]["url"].as_str().unwrap().to_string();
    let (status, text, _) = service.fetch(&url, None);
    assert_eq!(status, 200);
    let starts: Vec<_> =
        text.lines().map(|line| time(&serde_json::from_str::<Value>(line).unwrap()["start_time"])).collect();
    assert!(starts.len() == captions.len() && starts.is_sorted(), "in order of time, none missing: {starts:?}");
    assert_eq!(list(&service, CALL).len(), 1);

    // Forward: what was signed is over, what is kept is there, and a restart changes nothing of it.
    set_clock(24 * HOUR);
    assert_eq!(service.fetch(&url, None).0, 403);
    service.restart();
    let again = list(&service, CALL);
    assert_eq!(again.len(), 1);
    assert_eq!(service.fetch(again[0]["url"].as_str().unwrap(), None).1, text);
    // And what is made, runs and is over, each under an earlier clock than the one before.
    let another = "/api/v2/video/call/default/d";
    service.ok("POST", another, "", &json!({"data": {"created_by_id": "alice"}}));
    set_clock(-24 * HOUR);
    service.restart();
    assert_eq!(list(&service, CALL).len(), 1, "what was written under a later clock is not lost");
    let (mut watcher, connection) = service.watch("alice", "");
    service.ok("GET", &format!("/video/call/default/d?connection_id={connection}"), "alice", &json!({}));
    service.ok("POST", &format!("{another}/start_transcription"), "", &json!({"enable_closed_captions": true}));
    let mut alice = service.join("default/d", "alice");
    alice.speak(&utterance());
    watcher.until("call.closed_caption");
    set_clock(-25 * HOUR);
    service.ok("POST", &format!("{another}/mark_ended"), "", &json!({}));
    watcher.until("call.transcription_ready");
    assert_eq!(list(&service, another).len(), 1);
}
