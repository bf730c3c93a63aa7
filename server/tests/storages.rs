//! External storages as they are set, and what becomes of a transcript that cannot be stored. What real storages make of uploads is
//! in `tests/clients`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cuewire_server::ServerConfig;
use cuewire_server::storage::{Bucket, S3, StorageConfig, StorageType};
use serde_json::{Value, json};
use support::bucket::{FakeBucket, in_order};
use support::receiver::Receiver;
use support::{Service, eventually, types, utterance};

const CALL: &str = "/api/v2/video/call/default/c";

/// Nobody listens there.
fn lost() -> Value {
    json!({
        "storage_type": "s3", "bucket": "captions", "path": "a/b",
        "aws_s3": {
            "s3_region": "eu-west-1", "s3_api_key": "AKIAXXXX", "s3_secret": "very secret",
            "s3_custom_endpoint_url": "http://127.0.0.1:1",
        },
    })
}

fn named(name: &str, mut storage: Value) -> Value {
    storage["name"] = json!(name);
    storage
}

/// A watcher of a call whose transcription runs, in which one thing was said.
fn transcribed(service: &Service, start: &Value) -> support::Socket {
    service.ok("POST", CALL, "", &json!({"data": {"created_by_id": "alice"}}));
    let (mut watcher, connection) = service.watch("alice", "");
    service.ok("GET", &format!("/video/call/default/c?connection_id={connection}"), "alice", &json!({}));
    service.ok("POST", &format!("{CALL}/start_transcription"), "", start);
    let mut alice = service.join("default/c", "alice");
    alice.speak(&utterance());
    alice.leave();
    watcher.until("call.session_participant_left");
    service.ok("POST", &format!("{CALL}/mark_ended"), "", &json!({}));
    watcher
}

/// Fakes are on this machine.
fn may_be_private(config: &mut ServerConfig) {
    config.hooks_to_private_addresses = true;
}

#[test]
fn storages_are_made_changed_and_listed_without_their_secrets() {
    let service = Service::start_with(|config| config.hooks_to_private_addresses = true);
    let list = || service.ok("GET", "/api/v2/external_storage", "", &json!({}))["external_storages"].clone();
    assert_eq!(list(), json!({}));
    service.ok("POST", "/api/v2/external_storage", "", &named("archive", lost()));
    let expected = json!({"archive": {"name": "archive", "bucket": "captions", "path": "a/b", "type": "s3"}});
    assert_eq!(list(), expected);
    let (code, why) = service.refused("POST", "/api/v2/external_storage", "", &named("archive", lost()));
    assert!(code == 4 && why.contains("there already"), "{why}");
    for (field, value, what) in [
        ("/bucket", json!(""), "bucket"),
        ("/path", json!("../x"), "path"),
        ("/storage_type", json!("ftp"), "storage_type"),
        ("/aws_s3/s3_region", json!(""), "s3_region"),
        ("/aws_s3/s3_region", json!("a b\u{7f}"), "s3_region"),
        ("/bucket", json!("a<b"), "bucket"),
        ("/aws_s3/s3_secret", json!(""), "both"),
        ("/aws_s3/s3_custom_endpoint_url", json!("ftp://x"), "endpoint"),
    ] {
        let mut storage = named("other", lost());
        *storage.pointer_mut(field).unwrap() = value;
        let (code, why) = service.refused("POST", "/api/v2/external_storage", "", &storage);
        assert!(code == 4 && why.contains(what), "{field}: {why}");
        assert!(!why.contains("very secret"), "{why}");
    }
    let (code, _) = service.refused("POST", "/api/v2/external_storage", "", &named("a/b", lost()));
    assert_eq!(code, 4);
    for (storage, what) in [
        (
            json!({"name": "g", "storage_type": "gcs", "bucket": "b", "gcs_credentials": "{\"secret\": 1}"}),
            "gcs_credentials",
        ),
        (
            json!({"name": "z", "storage_type": "abs", "bucket": "b", "azure_blob": {"abs_account_name": "a"}}),
            "azure_blob",
        ),
    ] {
        let (code, why) = service.refused("POST", "/api/v2/external_storage", "", &storage);
        assert!(code == 4 && why.contains(what), "{why}");
    }
    let (code, why) = service.refused("GET", "/api/v2/external_storage/archive/check", "", &json!({}));
    assert!(code == 4 && why.contains("archive"), "a check tells: {why}");

    // What a secret is left out of keeps it.
    let mut changed = lost();
    changed["path"] = json!("");
    changed["aws_s3"].as_object_mut().unwrap().remove("s3_secret");
    service.ok("PUT", "/api/v2/external_storage/archive", "", &changed);
    assert_eq!(list()["archive"]["path"], "");
    // One that is used stays.
    service.ok("PUT", "/api/v2/video/calltypes/default", "", &json!({"external_storage": "archive"}));
    let (_, why) = service.refused("DELETE", "/api/v2/external_storage/archive", "", &json!({}));
    assert!(why.contains("call type default"), "{why}");
    let (code, _) = service.refused("PUT", "/api/v2/video/calltypes/default", "", &json!({"external_storage": "no"}));
    assert_eq!(code, 16);
    service.ok("PUT", "/api/v2/video/calltypes/default", "", &json!({"external_storage": ""}));
    service.ok("DELETE", "/api/v2/external_storage/archive", "", &json!({}));
    assert_eq!(list(), json!({}));
    let database = std::fs::read(service.folder.path().join("cuewire.db-wal")).unwrap();
    assert!(database.windows(11).any(|bytes| bytes == b"very secret"), "they are in the database");
    #[cfg(unix)]
    for name in ["cuewire.db", "cuewire.db-wal"] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(service.folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "which only its owner reads: {name}");
    }
}

#[test]
fn an_upload_that_fails_for_too_long_is_said_and_the_file_stays_on_disk() {
    let mut service = Service::start_with(|config| {
        (config.upload_give_up_s, config.hooks_to_private_addresses) = (2, true);
    });
    service.ok("POST", "/api/v2/external_storage", "", &named("archive", lost()));
    let mut watcher = transcribed(&service, &json!({"transcription_external_storage": "archive"}));
    watcher.until("call.session_ended");
    let (_, why) = service.refused("DELETE", "/api/v2/external_storage/archive", "", &json!({}));
    assert!(why.contains("still to go"), "{why}");
    let events = watcher.until("call.transcription_failed");
    assert!(!types(&events).contains(&"call.transcription_ready"));
    let error = events.last().unwrap()["error"].as_str().unwrap().to_string();
    assert!(error.contains("the storage archive"), "{error}");
    let path = error.split(" in ").last().unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains("heard en"), "{text}");
    // It is listed, can be fetched, and stays over a restart.
    service.restart();
    let list = service.ok("GET", &format!("{CALL}/transcriptions"), "", &json!({}))["transcriptions"].clone();
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert_eq!(service.fetch(list[0]["url"].as_str().unwrap(), None).1, text);
    service.ok("DELETE", "/api/v2/external_storage/archive", "", &json!({}));
}

#[test]
fn the_disk_that_fails_is_said_once_and_the_file_is_written_when_it_works_again() {
    let service = Service::start_with(|config| config.upload_give_up_s = 1);
    let folder = service.folder.path().join("transcripts");
    std::fs::remove_dir(&folder).unwrap();
    let mut watcher = transcribed(&service, &json!({}));
    let events = watcher.until("call.transcription_failed");
    let error = events.last().unwrap()["error"].as_str().unwrap();
    assert!(error.contains("cannot be written"), "{error}");
    std::fs::create_dir(&folder).unwrap();
    let events = watcher.until("call.transcription_ready");
    assert_eq!(types(&events), ["call.transcription_ready"], "nothing was said twice");
    let url = events[0]["call_transcription"]["url"].as_str().unwrap();
    assert!(service.fetch(url, None).1.contains("heard en"));
}

#[test]
fn a_configured_storage_may_be_the_default_one_and_no_request_changes_it() {
    let config = StorageConfig {
        storage_type: StorageType::S3,
        bucket: "captions".into(),
        path: String::new(),
        aws_s3: Some(S3 {
            s3_region: "eu-west-1".into(),
            s3_api_key: "AKIAXXXX".into(),
            s3_secret: cuewire_server::app::Secret("very secret".into()),
            s3_custom_endpoint_url: "http://127.0.0.1:1".into(),
        }),
        gcs_credentials: None,
        azure_blob: None,
    };
    assert!(!format!("{config:?}").contains("very secret"));
    let service = Service::start_with(|server| {
        server.storages.insert("ours".into(), config);
        server.default_storage = Some("ours".into());
        server.upload_give_up_s = 1;
    });
    for (method, path) in [("PUT", "/api/v2/external_storage/ours"), ("DELETE", "/api/v2/external_storage/ours")] {
        let (code, why) = service.refused(method, path, "", &lost());
        assert!(code == 4 && why.contains("configuration"), "{why}");
    }
    let mut watcher = transcribed(&service, &json!({}));
    let events = watcher.until("call.transcription_failed");
    assert!(events.last().unwrap()["error"].as_str().unwrap().contains("the storage ours"));
    eventually("it can be deleted", || {
        let list = service.ok("GET", &format!("{CALL}/transcriptions"), "", &json!({}))["transcriptions"].clone();
        let Some(file) = list.get(0) else { return false };
        let (session, name) = (file["session_id"].as_str().unwrap(), file["filename"].as_str().unwrap());
        service.ok("DELETE", &format!("{CALL}/{session}/transcriptions/{name}"), "", &json!({}));
        true
    });
}

/// An S3 bucket that is reached there.
fn s3_at(url: &str) -> Value {
    let mut storage = lost();
    storage["aws_s3"]["s3_custom_endpoint_url"] = json!(url);
    storage
}

/// The default storage, as the configuration has it.
fn as_default(storage: &Value) -> impl FnOnce(&mut ServerConfig) + use<> {
    let storage: StorageConfig = serde_json::from_value(storage.clone()).unwrap();
    move |config| {
        may_be_private(config);
        config.storages.insert("ours".into(), storage);
        config.default_storage = Some("ours".into());
    }
}

/// A bucket that answers 500 until it `works`.
fn broken(works: &Arc<AtomicBool>) -> FakeBucket {
    let works = works.clone();
    FakeBucket::answering(
        move |asked| {
            if works.load(Ordering::Relaxed) { in_order(asked) } else { ("500 Broken", String::new()) }
        },
    )
}

fn list(service: &Service, call: &str) -> Vec<Value> {
    let path = format!("/api/v2/video/call/default/{call}/transcriptions");
    service.ok("GET", &path, "", &json!({}))["transcriptions"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_file_counts_as_stored_where_the_storage_says_that_it_is_there_and_nowhere_else() {
    let conflict = |code: &str| ("409 Conflict", format!("<Error><Code>{code}</Code></Error>"));
    let precondition = || ("412 Precondition Failed", "<Error><Code>PreconditionFailed</Code></Error>".to_string());
    for (kind, answer, is_stored) in [
        ("s3", ("200 OK", String::new()), true),
        ("s3", precondition(), true),
        ("s3", conflict("ConditionalRequestConflict"), false),
        ("s3", conflict("OperationAborted"), false),
        ("s3", ("409 Conflict", String::new()), false),
        ("gcs", precondition(), true),
        ("gcs", conflict("Conflict"), false),
        ("abs", precondition(), true),
        ("abs", conflict("BlobAlreadyExists"), true),
        ("abs", conflict("ContainerBeingDeleted"), false),
        ("abs", conflict("ContainerDisabled"), false),
        ("abs", conflict("BlobImmutableDueToPolicy"), false),
    ] {
        let said = answer.clone();
        let fake = FakeBucket::answering(move |_| said.clone());
        let key = json!({
            "private_key": "key", "private_key_id": "id", "client_email": "a@example.org", "disable_oauth": true,
            "gcs_base_url": fake.url,
        });
        let mut storage = s3_at(&fake.url);
        storage["storage_type"] = json!(kind);
        storage["gcs_credentials"] = json!(key.to_string());
        storage["azure_blob"] =
            json!({"abs_account_name": "us", "abs_account_key": "a2V5", "abs_custom_endpoint_url": fake.url});
        let bucket = Bucket::open(&serde_json::from_value(storage).unwrap(), true).unwrap();
        let stored = bucket.put("f.txt", b"text".to_vec(), "text/plain").await;
        assert_eq!(stored.is_ok(), is_stored, "{kind} {answer:?}: {stored:?}");
        match stored {
            Ok(place) => {
                assert_eq!((place.key, place.url), ("a/b/f.txt".into(), format!("{}/captions/a/b/f.txt", fake.url)))
            }
            Err(why) => {
                assert!(answer.1.is_empty() || answer.1.contains(why.split(['(', ')']).nth(1).unwrap()), "{why}")
            }
        }
        assert_eq!(fake.of("PUT")[0].body, "text");
    }
}

#[test]
fn what_a_storage_did_not_take_is_tried_again_when_its_time_has_come_over_a_restart_too() {
    let works = Arc::new(AtomicBool::new(false));
    let fake = broken(&works);
    let mut service = Service::start_with(may_be_private);
    service.ok("POST", "/api/v2/external_storage", "", &named("archive", s3_at(&fake.url)));
    transcribed(&service, &json!({"transcription_external_storage": "archive"}));
    // Each attempt is two requests; behind the third there are more than two seconds.
    eventually("it is tried thrice", || fake.asked().len() >= 6);
    service.end();
    assert_eq!(fake.asked().len(), 6, "whose time has not come is not tried at the end");
    works.store(true, Ordering::Relaxed);
    service.begin_with(may_be_private);
    eventually("it is listed", || list(&service, "c").len() == 1);
    let asked = fake.asked();
    assert_eq!(asked.len(), 7, "once");
    assert!(asked.iter().all(|one| one.path == asked[0].path && one.body == asked[0].body), "{asked:?}");
    assert!(asked[0].body.contains("heard en"));
    assert_eq!(list(&service, "c")[0]["url"], format!("{}{}", fake.url, asked[0].path));
}

#[test]
fn a_storage_that_hangs_does_not_take_all_the_time_that_the_end_has() {
    let fake = FakeBucket::answering(|_| {
        std::thread::sleep(Duration::from_secs(60));
        ("200 OK", String::new())
    });
    let mut service = Service::start_with(may_be_private);
    service.ok("POST", "/api/v2/external_storage", "", &named("archive", s3_at(&fake.url)));
    transcribed(&service, &json!({"transcription_external_storage": "archive"}));
    eventually("it is tried", || !fake.asked().is_empty());
    let began = Instant::now();
    service.end();
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
}

#[test]
fn a_server_that_was_off_for_long_gives_nothing_up_before_it_has_tried_for_a_while() {
    let works = Arc::new(AtomicBool::new(false));
    let fake = broken(&works);
    let mut service = Service::start_with(may_be_private);
    service.ok("POST", "/api/v2/external_storage", "", &named("archive", s3_at(&fake.url)));
    transcribed(&service, &json!({"transcription_external_storage": "archive"}));
    eventually("it is tried", || !fake.asked().is_empty());
    service.end();
    let database = rusqlite::Connection::open(service.folder.path().join("cuewire.db")).unwrap();
    let three_days = 3 * 24 * 3600 * 1_000_000_000_i64;
    let changed = database.execute("UPDATE transcripts SET end_time = end_time - ?1", [three_days]).unwrap();
    assert_eq!(changed, 1);
    drop(database);
    let before = fake.asked().len();
    service.begin_with(may_be_private);
    eventually("it is tried again and again", || fake.asked().len() >= before + 4);
    assert!(list(&service, "c").is_empty(), "and is not given up");
    works.store(true, Ordering::Relaxed);
    eventually("it is there", || list(&service, "c").len() == 1);
    assert!(list(&service, "c")[0]["url"].as_str().unwrap().starts_with(&fake.url));
}

#[test]
fn a_file_is_where_it_was_put_whatever_becomes_of_its_storage() {
    let fake = FakeBucket::answering(in_order);
    let moved = FakeBucket::answering(in_order);
    let mut service = Service::start_with(as_default(&s3_at(&fake.url)));
    service.ok("POST", "/api/v2/external_storage", "", &named("archive", s3_at(&fake.url)));
    for start in [json!({}), json!({"transcription_external_storage": "archive"})] {
        service.ok("POST", CALL, "", &json!({"data": {"created_by_id": "alice"}}));
        service.ok("POST", &format!("{CALL}/start_transcription"), "", &start);
        service.ok("POST", &format!("{CALL}/stop_transcription"), "", &json!({}));
    }
    eventually("both are there", || list(&service, "c").len() == 2);
    // The first one's URL is signed.
    let plain = |service: &Service| -> Vec<String> {
        let plain = |file: &Value| file["url"].as_str().unwrap().split('?').next().unwrap().to_string();
        list(service, "c").iter().map(plain).collect()
    };
    let before = plain(&service);
    assert!(before.iter().all(|url| url.starts_with(&format!("{}/captions/a/b/transcript_", fake.url))), "{before:?}");

    let mut other = s3_at(&fake.url);
    (other["bucket"], other["path"]) = (json!("others"), json!("c"));
    service.ok("PUT", "/api/v2/external_storage/archive", "", &other);
    service.restart_with(as_default(&other));
    assert_eq!(plain(&service), before, "another bucket and path are for new files");

    // Elsewhere, or nowhere: the log says so, and nothing is asked of another place.
    service.ok("DELETE", "/api/v2/external_storage/archive", "", &json!({}));
    let first = list(&service, "c")[0].clone();
    let file = format!(
        "{CALL}/{}/transcriptions/{}",
        first["session_id"].as_str().unwrap(),
        first["filename"].as_str().unwrap()
    );
    let elsewhere = s3_at(&moved.url);
    for change in [Box::new(as_default(&elsewhere)) as Box<dyn FnOnce(&mut ServerConfig)>, Box::new(|_| ())] {
        service.restart_with(change);
        assert_eq!(plain(&service), ["", &before[1]]);
        let (status, answer) = service.request("DELETE", &file, "", &json!({}));
        assert_eq!(status, 500, "{answer}");
        assert_eq!(list(&service, "c").len(), 2, "what is still there is still listed");
    }
    assert!(moved.asked().is_empty(), "{:?}", moved.asked());

    service.restart_with(as_default(&other));
    service.ok("DELETE", &file, "", &json!({}));
    let deleted = fake.of("POST");
    let key = before[0].strip_prefix(&format!("{}/captions/", fake.url)).unwrap();
    assert!(deleted.len() == 1 && deleted[0].path.starts_with("/captions"), "{deleted:?}");
    assert!(deleted[0].body.contains(&format!("<Key>{key}</Key>")), "{deleted:?}");
    assert_eq!(plain(&service), before[1..]);
}

#[test]
fn the_file_of_a_deleted_call_is_told_to_hooks_and_to_nobody_who_watches_the_call_of_the_same_id() {
    let works = Arc::new(AtomicBool::new(false));
    let fake = broken(&works);
    let receiver = Receiver::start();
    let service = Service::start_with(|config| config.hooks_to_private_addresses = true);
    service.ok("POST", "/api/v2/external_storage", "", &named("archive", s3_at(&fake.url)));
    service.ok("PATCH", "/api/v2/app", "", &json!({"webhook_url": receiver.url}));
    for call in ["anew", "gone"] {
        let path = format!("/api/v2/video/call/default/{call}");
        service.ok("POST", &path, "", &json!({"data": {"created_by_id": "alice"}}));
        let start = json!({"transcription_external_storage": "archive"});
        service.ok("POST", &format!("{path}/start_transcription"), "", &start);
        service.ok("POST", &format!("{path}/delete"), "", &json!({}));
    }
    eventually("both are tried", || fake.asked().len() >= 4);
    service.ok("POST", "/api/v2/video/call/default/anew", "", &json!({"data": {"created_by_id": "alice"}}));
    let (mut watcher, connection) = service.watch("alice", "");
    service.ok("GET", &format!("/video/call/default/anew?connection_id={connection}"), "alice", &json!({}));
    works.store(true, Ordering::Relaxed);
    for call in ["anew", "gone"] {
        let ready = || receiver.types(call).iter().filter(|name| *name == "call.transcription_ready").count();
        eventually("hooks are told in any case", || ready() == 1);
    }
    let told = receiver.got();
    let told = told.iter().map(support::receiver::Got::event).find(|event| event["type"] == "call.transcription_ready");
    let told = told.unwrap();
    assert!(told["created_at"].is_i64() && told["egress_id"].is_string(), "{told}");
    assert!(told["call_transcription"]["url"].as_str().unwrap().starts_with(&fake.url), "{told}");
    assert!(watcher.is_silent(Duration::from_millis(500)), "what was said in the old call is not theirs");
    assert!(list(&service, "anew").is_empty());
}

#[test]
fn the_list_is_answered_in_time_where_a_bucket_does_not_sign() {
    let hangs = Arc::new(AtomicBool::new(false));
    let fake = {
        let hangs = hangs.clone();
        FakeBucket::answering(move |asked| {
            if hangs.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_secs(60));
            }
            match asked.path.as_str() {
                path if path.ends_with("/oauth2/v2.0/token") => {
                    ("200 OK", json!({"token_type": "Bearer", "access_token": "t", "expires_in": 3600}).to_string())
                }
                // The key that is signed with.
                path if path.contains("userdelegationkey") => ("403 Forbidden", String::new()),
                _ => ("201 Created", String::new()),
            }
        })
    };
    let azure = json!({
        "storage_type": "abs", "bucket": "captions",
        "azure_blob": {
            "abs_account_name": "us", "abs_client_id": "app", "abs_client_secret": "very secret", "abs_tenant_id": "t",
            "abs_custom_endpoint_url": fake.url, "abs_authority_host": fake.url,
        },
    });
    let mut service = Service::start();
    for server in ["disk", "bucket"] {
        if server == "bucket" {
            service.restart_with(as_default(&azure));
        }
        service.ok("POST", CALL, "", &json!({"data": {"created_by_id": "alice"}}));
        service.ok("POST", &format!("{CALL}/start_transcription"), "", &json!({}));
        service.ok("POST", &format!("{CALL}/stop_transcription"), "", &json!({}));
        let count = if server == "disk" { 1 } else { 2 };
        eventually("it is there", || list(&service, "c").len() == count);
    }
    hangs.store(true, Ordering::Relaxed);
    // Another server knows no token.
    service.restart_with(as_default(&azure));
    let began = Instant::now();
    let urls: Vec<_> = list(&service, "c").iter().map(|file| file["url"].as_str().unwrap().to_string()).collect();
    assert!(began.elapsed() < Duration::from_millis(2900), "{:?}", began.elapsed());
    assert!(urls[0].starts_with("http") && urls[1].is_empty(), "{urls:?}");
}
