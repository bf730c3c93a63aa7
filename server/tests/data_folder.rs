//! The data folder: from the version before, and copied while a server runs over it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use cuewire_server::backup::{BackupError, backup};
use serde_json::{Value, json};
use support::{Service, eventually, utterance};

fn list(service: &Service, call: &str) -> Vec<Value> {
    let path = format!("/api/v2/video/call/default/{call}/transcriptions");
    service.ok("GET", &path, "", &json!({}))["transcriptions"].as_array().unwrap().clone()
}

fn text(service: &Service, transcript: &Value) -> String {
    service.fetch(transcript["url"].as_str().unwrap(), None).1
}

#[test]
fn a_database_of_the_version_before_goes_on() {
    let mut service = Service::start();
    service.end();
    let path = service.folder.path().join("cuewire.db");
    for file in ["cuewire.db", "cuewire.db-wal", "cuewire.db-shm"] {
        // Which of them there are is SQLite's own affair.
        let _ = std::fs::remove_file(service.folder.path().join(file));
    }
    let before = rusqlite::Connection::open(&path).unwrap();
    before.execute_batch(include_str!("data/version-2.sql")).unwrap();
    let version: i64 = before.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 2);
    drop(before);
    service.begin();
    assert_eq!(list(&service, "finished").len(), 1);
    // The session of the other one waits for nobody who comes back: its transcript is finished from its journal.
    let killed = || service.ok("GET", "/api/v2/video/call/default/killed", "", &json!({}))["call"].clone();
    assert_eq!(killed()["transcribing"], true);
    service.ok("POST", "/api/v2/video/call/default/killed/mark_ended", "", &json!({}));
    eventually("it is finished", || list(&service, "killed").len() == 1);
    let lines = text(&service, &list(&service, "killed")[0]);
    assert_eq!(lines.lines().count(), 1);
    assert!(lines.contains("austen-0880"), "{lines}");
    // And what is new works with what is old.
    let body = json!({"members": [], "settings_override": {"transcription": {"language": "en"}}});
    service.ok("PATCH", "/api/v2/video/call/default/finished", "", &body);
}

#[test]
fn a_copy_made_while_a_call_goes_on_is_a_whole_data_folder() {
    let service = Service::start();
    for call in ["over", "open"] {
        service.ok("POST", &format!("/api/v2/video/call/default/{call}"), "", &json!({"data": {"created_by_id": "a"}}));
        let start = format!("/api/v2/video/call/default/{call}/start_transcription");
        service.ok("POST", &start, "", &json!({"enable_closed_captions": true}));
        let (mut watcher, connection) = service.watch("alice", "");
        let watch = format!("/video/call/default/{call}?connection_id={connection}");
        service.ok("GET", &watch, "alice", &json!({}));
        let mut alice = service.join(&format!("default/{call}"), "alice");
        alice.speak(&utterance());
        watcher.until("call.closed_caption");
        if call == "over" {
            service.ok("POST", "/api/v2/video/call/default/over/mark_ended", "", &json!({}));
            watcher.until("call.transcription_ready");
        }
    }
    let place = tempfile::tempdir().unwrap();
    let to = place.path().join("copy");
    let done = backup(service.folder.path(), &to).unwrap();
    assert_eq!(done.files, 1);
    assert!(matches!(backup(service.folder.path(), &to), Err(BackupError::NotEmpty(_))));
    assert!(matches!(backup(&place.path().join("none"), &place.path().join("x")), Err(BackupError::NoData(_))));
    #[cfg(unix)]
    for name in ["cuewire.db", "url_key"] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(to.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let expected = text(&service, &list(&service, "over")[0]);
    drop(service);

    let copy = Service::start_over(&to);
    let restored = list(&copy, "over");
    assert_eq!(text(&copy, &restored[0]), expected);
    copy.ok("POST", "/api/v2/video/call/default/open/mark_ended", "", &json!({}));
    eventually("what was open is finished from the copy", || list(&copy, "open").len() == 1);
    assert!(text(&copy, &list(&copy, "open")[0]).contains("heard en"));
}
