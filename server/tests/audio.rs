//! Audio by WebSocket: every encoding, pauses, dates, mute, flush; and clients that read too slowly.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cuewire_server::Sync;
use opus_pure::{Application, OpusEncoder};
use serde_json::{Value, json};
use tungstenite::Message;

mod support;

use support::{Service, Socket, eventually, sounds::sound, time, token, types, utterance};

const CALL: &str = "/api/v2/video/call/default/a";

/// A call with captions, and who watches it.
fn captioned(service: &Service) -> Socket {
    service.ok("POST", CALL, "", &json!({"data": {"created_by_id": "carol"}}));
    let (watcher, connection) = service.watch("carol", "");
    service.ok("GET", &format!("/video/call/default/a?connection_id={connection}"), "carol", &json!({}));
    service.ok("POST", &format!("{CALL}/start_closed_captions"), "carol", &json!({}));
    watcher
}

fn join(service: &Service, query: &str) -> Socket {
    let mut socket = service.audio("default/a", &format!("user_id=alice&{query}"));
    socket.say(&json!({"token": token("alice")}));
    assert_eq!(socket.next().unwrap()["type"], "joined", "{query}");
    socket
}

/// The next final caption, and how long it is, in milliseconds.
fn next(watcher: &mut Socket) -> (Value, i64) {
    let caption = watcher.until("call.closed_caption").last().unwrap()["closed_caption"].clone();
    let ms = time(&caption["end_time"]).nanos_since(time(&caption["start_time"])) / 1_000_000;
    (caption, ms)
}

fn as_float(samples: &[i16]) -> Vec<f32> {
    samples.iter().map(|sample| f32::from(*sample) / 32_768.0).collect()
}

#[test]
fn samples_floats_and_packets_of_opus_are_heard() {
    let service = Service::start();
    let mut watcher = captioned(&service);
    // The same second of speech at other rates, the last one as packets of 20 and of 60 ms.
    let at = |rate| sound(rate, 2_500, &[(300, 1_300)]);
    let stereo: Vec<u8> =
        as_float(&at(48_000)).iter().flat_map(|sample| [*sample, 0.0]).flat_map(f32::to_le_bytes).collect();
    let opus = |frames: usize| -> Vec<Vec<u8>> {
        let mut encoder = OpusEncoder::new(48_000, 1, Application::Voip).unwrap();
        let mut buffer = vec![0; 4000];
        let samples = as_float(&at(48_000));
        let packets = samples.chunks_exact(frames).map(|pcm| {
            let bytes = encoder.encode(pcm, frames, &mut buffer).unwrap();
            buffer[..bytes].to_vec()
        });
        packets.collect()
    };
    let linear: Vec<u8> = at(44_100).iter().flat_map(|sample| sample.to_le_bytes()).collect();
    for (query, frames) in [
        ("encoding=linear16&sample_rate=44100&channels=1", linear.chunks(1_764).map(<[u8]>::to_vec).collect()),
        ("encoding=float32&sample_rate=48000&channels=2", stereo.chunks(7_680).map(<[u8]>::to_vec).collect()),
        ("encoding=opus", opus(960)),
        ("encoding=opus&sample_rate=48000&channels=2", opus(2_880)),
    ] {
        let mut alice = join(&service, query);
        let frames: Vec<Vec<u8>> = frames;
        frames.into_iter().for_each(|frame| alice.0.send(Message::binary(frame)).unwrap());
        let (caption, ms) = next(&mut watcher);
        assert_eq!((&caption["text"], &caption["speaker_id"]), (&json!("heard en"), &json!("alice")), "{query}");
        assert!((900..1_300).contains(&ms), "{query}: {caption}");
        alice.leave();
    }
    let mut alice = join(&service, "encoding=opus");
    alice.0.send(Message::binary(vec![0b1111_1011, 0b0000_0111])).unwrap();
    assert_eq!(alice.close_code(), 1007, "140 ms are no packet");
}

#[test]
fn what_is_dated_muted_flushed_or_paused_is_heard_so() {
    let service = Service::start();
    let mut watcher = captioned(&service);
    let mut alice = join(&service, "encoding=linear16&sample_rate=16000&channels=1");
    alice.say(&json!({"type": "time", "at": "2026-01-02T03:04:05.5+02:00"}));
    alice.speak(&utterance());
    let (first, _) = next(&mut watcher);
    assert!(first["start_time"].as_str().unwrap().starts_with("2026-01-02T01:04:05.8"), "{first}");
    // Nanoseconds since 1970 do as well; and a minute that nobody sent is no silence that was heard.
    alice.say(&json!({"type": "time", "at": 1_767_315_907_500_000_000_i64 + 60_000_000_000}));
    alice.speak(&utterance());
    let (second, _) = next(&mut watcher);
    assert!(second["start_time"].as_str().unwrap().starts_with("2026-01-02T01:06:07.8"), "{second}");

    alice.say(&json!({"type": "mute"}));
    alice.speak(&utterance());
    alice.say(&json!({"type": "mute", "muted": false}));
    // In the middle of a word, and of a frame: all of it is the caption's.
    alice.speak(&utterance()[..13_000]);
    alice.say(&json!({"type": "flush"}));
    let (third, ms) = next(&mut watcher);
    let end_ms = time(&third["end_time"]).nanos_since(time(&second["start_time"])) / 1_000_000;
    // 2.2 s of the second utterance, 2.5 s under mute, and 812 ms.
    assert!((5_500..5_525).contains(&end_ms), "what was muted took its time, and what was pushed is heard: {end_ms}");
    assert!(ms < 830, "what was muted was not heard: {ms}");

    // Who comes back goes on by the clock that they had, later by what has passed.
    std::thread::sleep(Duration::from_millis(900));
    alice.leave();
    let mut alice = join(&service, "encoding=linear16&sample_rate=16000&channels=1");
    alice.speak(&utterance());
    let (fourth, _) = next(&mut watcher);
    let later_ms = time(&fourth["start_time"]).nanos_since(time(&third["end_time"])) / 1_000_000;
    assert!((300..3_000).contains(&later_ms), "{later_ms}");
    alice.leave();
}

#[test]
fn both_processes_cost_the_decodes_of_one_and_neither_costs_none() {
    let service = Service::start();
    let mut watcher = captioned(&service);
    service.ok("POST", &format!("{CALL}/stop_closed_captions"), "carol", &json!({}));
    let mut decodes = Vec::new();
    for start in [None, Some("start_closed_captions"), Some("start_transcription"), Some("both")] {
        let path = |verb: &str| format!("{CALL}/{verb}");
        let both = json!({"enable_closed_captions": start == Some("both")});
        if let Some(start) = start {
            let start = if start == "both" { "start_transcription" } else { start };
            service.ok("POST", &path(start), "carol", &both);
        }
        let before = service.decodes.load(Ordering::Relaxed);
        let mut alice = join(&service, "encoding=linear16&sample_rate=16000&channels=1");
        (0..3).for_each(|_| alice.speak(&utterance()));
        alice.leave();
        watcher.until("call.session_participant_left");
        decodes.push(service.decodes.load(Ordering::Relaxed) - before);
        match start {
            Some("start_closed_captions") => service.ok("POST", &path("stop_closed_captions"), "carol", &json!({})),
            Some(_) => service.ok("POST", &path("stop_transcription"), "carol", &json!({"stop_closed_captions": true})),
            None => Value::Null,
        };
    }
    assert_eq!(decodes, [0, 3, 3, 3], "neither, captions, transcription, both");
}

#[test]
fn a_client_that_does_not_read_is_closed_with_1012_and_holds_up_nobody() {
    let service = Service::start_with(|config| config.sync = Sync::Never);
    let mut watcher = captioned(&service);
    let (mut slow, connection) = service.watch("erin", "");
    let path = format!("/video/call/default/a?connection_id={connection}");
    let is_there = || service.request("GET", &path, "erin", &json!({})).1["code"] != 46;
    assert!(is_there());
    let says = |text: &str| {
        let says = json!({
            "speaker_id": "alice", "text": text, "language": "en", "user_id": "carol",
            "start_time": "2026-01-02T03:04:05Z", "end_time": "2026-01-02T03:04:06Z",
        });
        service.ok("POST", &format!("{CALL}/closed_captions"), "", &says);
    };
    let (text, is_given_up) = ("x".repeat(16 * 1024), AtomicBool::new(false));
    let (said, had, code) = std::thread::scope(|scope| {
        // A frame now and then: a socket that takes none for seconds is closed without a word.
        let reads = scope.spawn(|| {
            let mut had = 0;
            loop {
                match slow.next() {
                    Ok(_) => had += 1,
                    Err(code) => return (had, code),
                }
                if !is_given_up.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(75));
                }
            }
        });
        let quick = scope.spawn(|| (1..).find(|_| next(&mut watcher).0["text"] == "the last").unwrap());
        let mut said = 0;
        while is_there() {
            assert!(said < 5_000, "it is told all the same");
            (0..16).for_each(|_| says(&text));
            said += 16;
        }
        is_given_up.store(true, Ordering::Relaxed);
        says("the last");
        assert_eq!(quick.join().unwrap(), said + 1, "who reads has all");
        let (had, code) = reads.join().unwrap();
        (said, had, code)
    });
    assert_eq!(code, 1012);
    assert!(had < said, "{had} of {said}");
    drop(watcher);
}

#[test]
fn a_transcript_is_deleted_when_its_time_is_over() {
    let service = Service::start_with(|config| config.transcript_retention_days = 0);
    let mut watcher = captioned(&service);
    service.ok("POST", &format!("{CALL}/start_transcription"), "carol", &json!({}));
    service.ok("POST", &format!("{CALL}/stop_transcription"), "carol", &json!({}));
    let events = watcher.until("call.transcription_ready");
    assert_eq!(types(&events).last(), Some(&"call.transcription_ready"));
    let file = events.last().unwrap()["call_transcription"]["filename"].as_str().unwrap();
    let file = service.folder.path().join("transcripts").join(file);
    eventually("the file is gone", || !file.exists());
    eventually("and nobody is told of it", || {
        service.ok("GET", &format!("{CALL}/transcriptions"), "", &json!({}))["transcriptions"] == json!([])
    });
}
