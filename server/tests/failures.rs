//! What becomes of captions when something fails: the model, the journal.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use cuewire::asr::{DecodeError, DecodeJob, Hypothesis, ScriptedDecoder};
use cuewire::engine::{Idle, Model};
use serde_json::json;
use support::receiver::Receiver;
use support::{Service, eventually, types, utterance};

const CALL: &str = "/api/v2/video/call/default/c";

/// A model that answers as a script says.
fn scripted(
    script: impl Fn(&DecodeJob) -> Result<Hypothesis, DecodeError> + Send + Sync + Clone + 'static,
) -> Arc<dyn Model> {
    Arc::new(move |_: &Idle| ScriptedDecoder::new(script.clone()))
}

#[test]
fn a_model_that_fails_again_and_again_ends_both_processes_and_says_so() {
    let works = Arc::new(AtomicBool::new(true));
    let model = {
        let works = works.clone();
        scripted(move |job| {
            let answer = Hypothesis::certain("heard", job);
            if works.load(Ordering::Relaxed) { Ok(answer) } else { Err(DecodeError::Failed("out of order".into())) }
        })
    };
    let service = Service::start_model(model, |_| ());
    let mut watcher = service.watched();
    let mut alice = service.join("default/c", "alice");
    alice.speak(&utterance());
    watcher.until("call.closed_caption");
    works.store(false, Ordering::Relaxed);
    // One failure is a gap and no more.
    for _ in 0..3 {
        alice.speak(&utterance());
    }
    let mut events = watcher.until("call.transcription_ready");
    let gaps: Vec<_> = events.extract_if(.., |event| event["type"] == "call.captions_gap").collect();
    assert!((2..=3).contains(&gaps.len()), "each of them is said: {gaps:?}");
    assert_eq!((&gaps[0]["speaker_id"], &gaps[0]["reason"]), (&json!("alice"), &json!("decode_failed")));
    assert!(support::time(&gaps[0]["start_time"]) < support::time(&gaps[0]["end_time"]));
    assert_eq!(
        types(&events),
        ["call.closed_captions_failed", "call.transcription_failed", "call.transcription_ready"],
        "what was heard by then is kept"
    );
    assert!(events[1]["error"].as_str().unwrap().contains("out of order"));
    let url = events[2]["call_transcription"]["url"].as_str().unwrap();
    assert_eq!(service.fetch(url, None).1.lines().count(), 1);
    works.store(true, Ordering::Relaxed);
    service.ok("POST", &format!("{CALL}/start_closed_captions"), "", &json!({}));
    alice.speak(&utterance());
    watcher.until("call.closed_caption");
}

#[test]
fn a_model_that_does_not_answer_is_told_of_and_its_caption_comes_when_it_does() {
    let (release, gate) = mpsc::channel::<()>();
    let gate = Arc::new(std::sync::Mutex::new(gate));
    let hangs = Arc::new(AtomicU64::new(1));
    let model = {
        let hangs = hangs.clone();
        scripted(move |job| {
            if hangs.swap(0, Ordering::Relaxed) == 1 {
                let _ = gate.lock().unwrap().recv();
            }
            Ok(Hypothesis::certain("heard", job))
        })
    };
    let receiver = Receiver::start();
    let service = Service::start_model(model, |config| {
        (config.stall_event_s, config.hooks_to_private_addresses) = (2, true);
    });
    service.ok("PATCH", "/api/v2/app", "", &json!({"webhook_url": receiver.url}));
    let mut watcher = service.watched();
    let mut alice = service.join("default/c", "alice");
    let began = Instant::now();
    alice.speak(&utterance());
    let stalled = watcher.until("call.captions_stalled").pop().unwrap();
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(stalled["speaker_id"], "alice");
    assert!((2..5).contains(&stalled["seconds"].as_u64().unwrap()), "{stalled}");
    assert!(stalled["created_at"].is_string() && stalled["reason"].is_string());
    eventually("hooks too", || receiver.types("c").contains(&"call.captions_stalled".to_string()));
    release.send(()).unwrap();
    let events = watcher.until("call.closed_caption");
    assert_eq!(types(&events), ["call.closed_caption"], "it is said once, and nothing is lost");
    alice.speak(&utterance());
    assert_eq!(types(&watcher.until("call.closed_caption")), ["call.closed_caption"]);
}

#[test]
fn an_engine_that_cannot_keep_up_says_what_is_missing_and_that_it_goes_on() {
    // Longer than captions may be late.
    let model = scripted(|job| {
        std::thread::sleep(Duration::from_secs(4));
        Ok(Hypothesis::certain("heard", job))
    });
    let receiver = Receiver::start();
    let service = Service::start_model(model, |config| {
        (config.stall_event_s, config.hooks_to_private_addresses) = (3, true);
    });
    service.ok("PATCH", "/api/v2/app", "", &json!({"webhook_url": receiver.url}));
    let mut watcher = service.watched();
    let speakers: Vec<_> = (0..12).map(|i| format!("speaker-{i}")).collect();
    let mut sockets: Vec<_> = speakers.iter().map(|user| service.join("default/c", user)).collect();
    std::thread::scope(|scope| {
        for socket in &mut sockets {
            scope.spawn(|| (0..3).for_each(|_| socket.speak(&utterance())));
        }
    });
    let gap = watcher.until("call.captions_gap").pop().unwrap();
    assert_eq!(gap["reason"], "overload");
    assert!(speakers.iter().any(|user| gap["speaker_id"] == **user));
    let stalled = watcher.until("call.captions_stalled").pop().unwrap();
    assert!(speakers.iter().any(|user| stalled["speaker_id"] == **user), "{stalled}");
    eventually("hooks too", || receiver.types("c").contains(&"call.captions_gap".to_string()));
}

#[test]
fn captions_that_wait_are_written_by_a_server_that_ends_as_soon_as_they_can_be() {
    let mut service = Service::start();
    let mut watcher = service.watched();
    let mut alice = service.join("default/c", "alice");
    alice.speak(&utterance());
    watcher.until("call.closed_caption");
    let other = rusqlite::Connection::open(service.folder.path().join("cuewire.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    alice.speak(&utterance());
    eventually("nothing can be written", || service.fetch(&service.url("/readyz"), None).0 == 503);
    // Whoever has the database lets it go while the server ends.
    let lets_go = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(3));
        other.execute_batch("COMMIT").unwrap();
    });
    service.restart();
    lets_go.join().unwrap();
    service.ok("POST", &format!("{CALL}/mark_ended"), "", &json!({}));
    let list = || service.ok("GET", &format!("{CALL}/transcriptions"), "", &json!({}))["transcriptions"].clone();
    eventually("the transcript is written", || list() != json!([]));
    let text = service.fetch(list()[0]["url"].as_str().unwrap(), None).1;
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[test]
fn while_the_journal_cannot_be_written_new_processes_are_refused_and_captions_wait() {
    let service = Service::start_with(|config| config.stall_event_s = 3);
    let mut watcher = service.watched();
    let mut alice = service.join("default/c", "alice");
    alice.speak(&utterance());
    watcher.until("call.closed_caption");
    let ready = || service.fetch(&service.url("/readyz"), None);
    assert_eq!(ready().0, 200);

    // Somebody else has the database.
    let other = rusqlite::Connection::open(service.folder.path().join("cuewire.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for _ in 0..3 {
        alice.speak(&utterance());
    }
    alice.leave();
    eventually("it is not ready, and says why", || {
        let (status, text, _) = ready();
        status == 503 && text.contains("not ready: the journal cannot be written")
    });
    let start = service.request("POST", &format!("{CALL}/start_transcription"), "", &json!({}));
    assert_eq!(start.0, 500, "{start:?}");
    service.ok("GET", CALL, "", &json!({}));
    let stalled = watcher.until("call.captions_stalled").pop().unwrap();
    assert_eq!(stalled["reason"], "captions cannot be written");
    assert!(watcher.is_silent(Duration::from_secs(2)), "nobody sees what is not on disk");

    other.execute_batch("COMMIT").unwrap();
    let events = watcher.until("call.session_participant_left");
    let captions = ["call.closed_caption"; 3];
    assert_eq!(types(&events)[..3], captions, "all of it comes, in its order, and each once");
    assert_eq!(types(&events)[3..], ["call.session_participant_left"]);
    let starts: Vec<_> =
        events[..3].iter().map(|event| support::time(&event["closed_caption"]["start_time"])).collect();
    assert!(starts.is_sorted(), "{starts:?}");
    eventually("it is ready again", || ready().0 == 200);
    service.ok("POST", &format!("{CALL}/mark_ended"), "", &json!({}));
    let ended = watcher.until("call.transcription_ready").pop().unwrap();
    let text = service.fetch(ended["call_transcription"]["url"].as_str().unwrap(), None).1;
    assert_eq!(text.lines().count(), 4, "{text}");
}

#[test]
fn a_join_that_does_not_come_to_be_on_disk_leaves_no_track_and_who_was_there_has_left() {
    let service = Service::start_with(|config| config.limits.max_tracks = 1);
    let mut watcher = service.watched();
    let database = rusqlite::Connection::open(service.folder.path().join("cuewire.db")).unwrap();
    database.busy_timeout(Duration::from_secs(5)).unwrap();
    let tables = "CREATE TABLE missing (id INTEGER PRIMARY KEY);
        CREATE TABLE fails (id INTEGER REFERENCES missing (id) DEFERRABLE INITIALLY DEFERRED);";
    database.execute_batch(tables).unwrap();
    // Every change of a call is done then, and fails as it is committed.
    let breaks = "CREATE TRIGGER breaks AFTER INSERT ON calls BEGIN INSERT INTO fails VALUES (1); END";
    let fails_to_join = |user: &str| {
        database.execute_batch(breaks).unwrap();
        let mut socket = service.audio("default/c", "");
        socket.say(&json!({"token": support::token(user)}));
        let said = socket.next().unwrap();
        assert!(said["error"]["message"].as_str().unwrap().contains("FOREIGN KEY"), "{said}");
        assert_eq!(socket.close_code(), 4500);
    };
    let mend = || database.execute_batch("DROP TRIGGER breaks").unwrap();
    fails_to_join("bob");
    mend();
    // There is room for one.
    let mut alice = service.join("default/c", "alice");
    fails_to_join("alice");
    assert_eq!(alice.close_code(), 1000, "her place was taken");
    mend();
    let left = watcher.until("call.session_participant_left").pop().unwrap();
    assert_eq!(left["participant"]["user"]["id"], "alice");
    // It is still hers, until the session is over.
    let mut alice = service.join("default/c", "alice");
    alice.speak(&utterance());
    watcher.until("call.closed_caption");
    service.ok("POST", &format!("{CALL}/mark_ended"), "", &json!({}));
    service.ok("POST", "/api/v2/video/call/default/d", "", &json!({"data": {"created_by_id": "alice"}}));
    service.join("default/d", "bob");
}
