//! Faults around a running service: its database held by somebody else or on a full disk, storages that lose the connection, tracks
//! whose time jumps. Each has its outcome, and costs nothing beyond what is said.
//!
//! What fails inside, a model or the journal for some seconds: `failures.rs`; storages that refuse: `storages.rs`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

#[path = "../../tests/support/disk.rs"]
mod disk;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use disk::Disk;
use serde_json::{Value, json};
use support::{Service, Socket, eventually, time, types, utterance};

const CALL: &str = "/api/v2/video/call/default/c";

/// Ends the call; the lines of its transcript.
fn transcript(service: &Service, watcher: &mut Socket) -> Vec<Value> {
    service.ok("POST", &format!("{CALL}/mark_ended"), "", &json!({}));
    let ready = watcher.until("call.transcription_ready").pop().unwrap();
    let text = service.fetch(ready["call_transcription"]["url"].as_str().unwrap(), None).1;
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn captions(events: &[Value]) -> usize {
    types(events).iter().filter(|of| **of == "call.closed_caption").count()
}

#[test]
fn a_database_that_somebody_else_has_for_long_loses_nothing_and_requests_are_answered_in_time() {
    let service = Service::start();
    let mut watcher = service.watched();
    let mut alice = service.join("default/c", "alice");
    let other = rusqlite::Connection::open(service.folder.path().join("cuewire.db")).unwrap();
    // Tens of times as long as is waited for it at a time.
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let began = Instant::now();
    let mut spoken = 0;
    while began.elapsed() < Duration::from_secs(12) {
        alice.speak(&utterance());
        spoken += 1;
        let asked = Instant::now();
        let (status, answer) = service.request("PATCH", CALL, "", &json!({"custom": {"title": "a change"}}));
        assert_eq!(status, 500, "{answer}");
        assert!(asked.elapsed() < Duration::from_secs(3), "clients wait for 3 s: {:?}", asked.elapsed());
        // Who only looks is answered; but on a loaded machine the server's patience may be over before two changes have failed.
        let looks = || service.request("GET", CALL, "", &json!({}));
        assert!((0..3).any(|_| looks().0 == 200), "nothing can be read");
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(service.fetch(&service.url("/readyz"), None).0, 503);
    other.execute_batch("COMMIT").unwrap();
    alice.leave();
    let events = watcher.until("call.session_participant_left");
    assert_eq!(captions(&events), spoken, "{:?}", types(&events));
    assert_eq!(transcript(&service, &mut watcher).len(), spoken, "each once");
}

#[test]
fn on_a_full_disk_captions_wait_and_go_on_by_themselves_when_there_is_room() {
    let mut service = Service::start();
    service.end();
    let Some(disk) = Disk::over(service.folder.path(), 8 << 10) else {
        service.begin();
        return;
    };
    service.begin();
    let mut watcher = service.watched();
    let mut alice = service.join("default/c", "alice");
    alice.speak(&utterance());
    watcher.until("call.closed_caption");
    let ballast = disk.fill();
    let mut spoken = 1;
    let ready = || service.fetch(&service.url("/readyz"), None);
    // There may be room in the database's files yet.
    while ready().0 == 200 {
        alice.speak(&utterance());
        spoken += 1;
        assert!(spoken < 2_000, "the disk is full");
    }
    let why = ready().1;
    assert!(why.contains("disk is full"), "{why}");
    for _ in 0..3 {
        alice.speak(&utterance());
        spoken += 1;
    }
    let (status, answer) = service.request("PATCH", CALL, "", &json!({"custom": {"title": "a change"}}));
    assert_eq!(status, 500, "{answer}");
    std::fs::remove_file(ballast).unwrap();
    eventually("it is ready again by itself", || ready().0 == 200);
    alice.leave();
    let events = watcher.until("call.session_participant_left");
    assert_eq!(1 + captions(&events), spoken, "{:?}", types(&events));
    assert_eq!(transcript(&service, &mut watcher).len(), spoken, "each once");
    service.end();
    drop(disk);
}

#[test]
fn who_sends_faster_than_one_speaks_is_held_back_and_loses_nothing() {
    let service = Service::start();
    let mut watcher = service.watched();
    let mut alice = service.join("default/c", "alice");
    let (began, spoken) = (Instant::now(), 16);
    (0..spoken).for_each(|_| alice.speak(&utterance()));
    alice.leave();
    // 40 s of audio: two of them at once, and eight times as fast as one speaks.
    assert!(began.elapsed() > Duration::from_millis(4_500), "{:?}", began.elapsed());
    let events = watcher.until("call.session_participant_left");
    assert_eq!(captions(&events), spoken, "{:?}", types(&events));
    assert_eq!(transcript(&service, &mut watcher).len(), spoken, "each once");
}

#[test]
#[ignore = "a client is given up behind a minute of silence"]
fn who_stops_sending_and_answers_no_ping_is_captioned_at_once_and_has_left_behind_a_minute() {
    let service = Service::start();
    let mut watcher = service.watched();
    let mut alice = service.join("default/c", "alice");
    let began = Instant::now();
    // In the middle of a word; nothing is read any more, pings neither.
    alice.speak(&utterance()[..13_000]);
    watcher.until("call.closed_caption");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    watcher.0.get_ref().set_read_timeout(Some(Duration::from_secs(100))).unwrap();
    let left = watcher.until("call.session_participant_left").pop().unwrap();
    assert_eq!(left["participant"]["user"]["id"], "alice");
    let took = began.elapsed();
    assert!((Duration::from_secs(59)..Duration::from_secs(90)).contains(&took), "{took:?}");
    assert_eq!(transcript(&service, &mut watcher).len(), 1);
    drop(alice);
}

/// Where a storage's end loses a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lost {
    /// Before it has read anything.
    AtOnce,
    /// Behind the first bytes of the body: it has nothing.
    InTheBody,
    /// Behind the body: it has the file, and says nothing.
    BeforeTheAnswer,
    /// Within the status line.
    InTheAnswer,
}

/// A storage that loses connections in this order, and then none; what it has, by path.
struct Losing {
    url: String,
    files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Losing {
    fn start(order: &[Lost]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let storage = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            files: Arc::default(),
            asked: Arc::default(),
        };
        let (files, asked) = (storage.files.clone(), storage.asked.clone());
        let order = order.to_vec();
        let mut order = order.into_iter();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let lost = order.next();
                let _ = serve(&stream, lost, &files, &asked);
            }
        });
        storage
    }
}

/// One request, on a connection of its own.
fn serve(
    mut stream: &TcpStream,
    lost: Option<Lost>,
    files: &Mutex<BTreeMap<String, Vec<u8>>>,
    asked: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    if lost == Some(Lost::AtOnce) {
        asked.lock().unwrap().push("?".into());
        return Ok(());
    }
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if line.trim_end().is_empty() {
            break;
        }
        head.push(line.trim_end().to_string());
    }
    let path = head[0].split(' ').nth(1).unwrap().to_string();
    asked.lock().unwrap().push(path.clone());
    let length = head.iter().find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_string));
    let mut body = vec![0; length.unwrap().parse().unwrap()];
    if lost == Some(Lost::InTheBody) {
        return reader.read_exact(&mut body[..10]);
    }
    reader.read_exact(&mut body)?;
    // As is asked for: what is there is not written again.
    assert!(head.iter().any(|line| line.to_lowercase() == "if-none-match: *"), "{head:?}");
    let mut files = files.lock().unwrap();
    let is_there = files.contains_key(&path);
    files.entry(path).or_insert(body);
    drop(files);
    let headers = "etag: \"1\"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    match (lost, is_there) {
        (Some(Lost::BeforeTheAnswer), _) => Ok(()),
        (Some(Lost::InTheAnswer), _) => stream.write_all(b"HTTP/1.1 20"),
        (_, true) => write!(stream, "HTTP/1.1 412 Precondition Failed\r\n{headers}"),
        (_, false) => write!(stream, "HTTP/1.1 200 OK\r\n{headers}"),
    }
}

#[test]
fn a_storage_that_loses_the_connection_wherever_it_does_has_the_file_once_and_whole() {
    use Lost::{AtOnce, BeforeTheAnswer, InTheAnswer, InTheBody};
    // What is lost within an attempt, and over several.
    for order in
        [&[AtOnce][..], &[InTheBody], &[BeforeTheAnswer], &[InTheAnswer], &[InTheBody, BeforeTheAnswer, InTheAnswer]]
    {
        let storage = Losing::start(order);
        let service = Service::start_with(|config| config.hooks_to_private_addresses = true);
        let archive = json!({
            "name": "archive", "storage_type": "s3", "bucket": "captions", "path": "a",
            "aws_s3": {
                "s3_region": "eu-west-1", "s3_api_key": "AKIAXXXX", "s3_secret": "secret",
                "s3_custom_endpoint_url": storage.url,
            },
        });
        service.ok("POST", "/api/v2/external_storage", "", &archive);
        service.ok("POST", CALL, "", &json!({"data": {"created_by_id": "alice"}}));
        let (mut watcher, connection) = service.watch("alice", "");
        service.ok("GET", &format!("/video/call/default/c?connection_id={connection}"), "alice", &json!({}));
        let start = json!({"transcription_external_storage": "archive"});
        service.ok("POST", &format!("{CALL}/start_transcription"), "", &start);
        let mut alice = service.join("default/c", "alice");
        alice.speak(&utterance());
        alice.leave();
        watcher.until("call.session_participant_left");
        service.ok("POST", &format!("{CALL}/mark_ended"), "", &json!({}));
        let events = watcher.until("call.transcription_ready");
        assert!(!types(&events).contains(&"call.transcription_failed"), "{order:?}: {:?}", types(&events));
        let files = storage.files.lock().unwrap().clone();
        assert_eq!(files.len(), 1, "{order:?}: under one name, however often it was tried: {files:?}");
        let (path, body) = files.first_key_value().unwrap();
        let text = String::from_utf8(body.clone()).unwrap();
        assert!(text.ends_with('\n') && text.lines().count() == 1 && text.contains("heard en"), "{order:?}: {text}");
        let url = events.last().unwrap()["call_transcription"]["url"].as_str().unwrap();
        assert_eq!(url, format!("{}{path}", storage.url));
        let asked = storage.asked.lock().unwrap().len();
        assert!(asked > order.len(), "{order:?}: it was tried again: {asked}");
        assert!(watcher.is_silent(Duration::from_millis(300)), "and said once");
    }
}

#[test]
fn a_track_whose_time_jumps_a_day_is_heard_and_its_transcript_is_in_order_of_time() {
    let service = Service::start();
    let mut watcher = service.watched();
    let mut alice = service.join("default/c", "alice");
    let day = 86_400_000_000_000;
    let now = cuewire_server::now();
    let at = [now, now.plus_nanos(day), now.plus_nanos(-day), now.plus_nanos(10_000_000_000)];
    for at in at {
        alice.say(&json!({"type": "time", "at": at.to_string()}));
        alice.speak(&utterance());
        let caption = watcher.until("call.closed_caption").pop().unwrap()["closed_caption"].clone();
        let (start, end) = (time(&caption["start_time"]), time(&caption["end_time"]));
        assert!((0..1_000_000_000).contains(&start.nanos_since(at)), "as its sender says: {caption}");
        assert!(start < end, "{caption}");
    }
    alice.leave();
    watcher.until("call.session_participant_left");
    let lines = transcript(&service, &mut watcher);
    let starts: Vec<_> = lines.iter().map(|line| time(&line["start_time"])).collect();
    assert!(starts.len() == 4 && starts.is_sorted(), "{starts:?}");
}
