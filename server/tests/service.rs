//! The service, as clients see it: over sockets, with a decoder that is scripted.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use serde_json::{Value, json};

mod support;

use support::{Service, check_error, eventually, sounds, time, token, token_for, types, utterance};

const CALL: &str = "/api/v2/video/call/default/a";

fn server_creates(service: &Service, path: &str, data: Value) -> Value {
    let mut data = data;
    data["created_by_id"] = json!("carol");
    service.ok("POST", &format!("/api/v2/video/call/{path}"), "", &json!({"data": data}))
}

#[test]
fn plain_requests_do() {
    let service = Service::start();
    server_creates(&service, "default/a", json!({}));
    let request = |method: &str, path: &str| {
        ureq::http::Request::builder().method(method).uri(service.url(path)).header("Authorization", token(""))
    };
    // As `curl -X POST`: neither a body nor a content type.
    let (status, answer) = service.send(request("POST", &format!("{CALL}/start_transcription")), None);
    assert_eq!(status, 201, "{answer}");
    let form = request("POST", &format!("{CALL}/stop_transcription"));
    let (status, answer) = service.send(form.header("Content-Type", "application/x-www-form-urlencoded"), None);
    assert_eq!(status, 200, "{answer}");

    let answer = service.ok("PATCH", CALL, "", &json!({"custom": {"colour": "red"}, "unknown": {"x": 1}}));
    assert_eq!(answer["call"]["custom"], json!({"colour": "red"}));
    let settings = json!({"settings": {"transcription": {"language": "fr"}}});
    let answer = service.ok("PUT", "/api/v2/video/calltypes/default", "", &settings);
    assert_eq!(answer["settings"]["transcription"]["language"], "fr");
    eventually("the transcript is written", || {
        !service.ok("GET", &format!("{CALL}/transcriptions"), "", &json!({}))["transcriptions"]
            .as_array()
            .unwrap()
            .is_empty()
    });
    let list = service.ok("GET", "//video//call/default/a/transcriptions", "", &json!({}));
    let transcript = &list["transcriptions"][0];
    assert!(transcript["start_time"].is_string(), "a browser's rendering");
    let (session, filename) = (transcript["session_id"].as_str().unwrap(), transcript["filename"].as_str().unwrap());
    let path = |session: &str, filename: &str| format!("/video/call/default/a/{session}/transcriptions/{filename}");
    let (code, why) = service.refused("DELETE", &path(session, "another.jsonl"), "", &json!({}));
    assert!(code == 16 && why.contains("another.jsonl"), "{code} {why}");
    let file = service.folder.path().join("transcripts").join(filename);
    assert!(file.exists());
    assert_eq!(service.refused("DELETE", &path(session, filename), "carol", &json!({})).0, 17);
    service.ok("DELETE", &path(session, filename), "", &json!({}));
    assert!(!file.exists());
    assert_eq!(service.refused("DELETE", &path(session, filename), "", &json!({})).0, 16);
    assert_eq!(service.fetch(transcript["url"].as_str().unwrap(), None).0, 404);
}

#[test]
fn whatever_is_wrong_is_said_in_the_clients_format() {
    let service = Service::start();
    server_creates(&service, "default/a", json!({}));
    let none = json!({});
    for (method, path, user, body, code) in [
        ("GET", "/api/v2/video/call/default/none", "", &none, 16),
        ("POST", "/api/v2/video/call/unheard/a", "", &json!({"data": {"created_by_id": "x"}}), 16),
        ("POST", "/api/v2/video/call/default/b", "", &none, 4),
        ("POST", "/api/v2/video/call/default/%2e%2e%2fx", "", &none, 4),
        ("POST", "/api/v2/video/call/default/a/go_live", "", &none, 16),
        ("GET", "/api/v2/nothing", "", &none, 16),
        ("POST", "/api/v2/check_sqs", "carol", &none, 17),
        ("DELETE", "/api/v2/external_storage/none", "", &none, 16),
        ("GET", "/api/v2/external_storage/none/check", "", &none, 16),
        ("GET", "/api/v2/external_storage", "carol", &none, 17),
        ("GET", "/", "", &none, 16),
        ("POST", "/api/v2/video/call/default/a/start_transcription", "bob", &none, 17),
        ("POST", "/api/v2/video/call/default/a/delete", "carol", &none, 17),
        ("GET", "/api/v2/video/calltypes", "carol", &none, 17),
        ("POST", "/api/v2/users", "carol", &json!({"users": {"carol": {"id": "carol", "role": "admin"}}}), 17),
        ("GET", "/video/call/default/a?user_id=bob", "carol", &none, 5),
        ("GET", "/video/call/default/a?connection_id=gone", "carol", &none, 46),
        (
            "POST",
            "/api/v2/video/call/default/a/start_closed_captions",
            "",
            &json!({"speech_segment_config": {"max_speech_caption_ms": 1}}),
            4,
        ),
        ("POST", "/api/v2/video/call/default/a/start_transcription", "", &json!({"language": "xx"}), 4),
        (
            "POST",
            "/api/v2/video/call/default/a/start_transcription",
            "",
            &json!({"transcription_external_storage": "s3"}),
            16,
        ),
        ("POST", "/api/v2/video/call/default/a/stop_closed_captions", "", &none, 4),
        ("POST", "/api/v2/video/calls", "", &json!({"filter_conditions": {"colour": 1}}), 4),
        ("POST", "/api/v2/video/calls", "", &json!({"sort": [{"field": "members"}]}), 4),
        ("POST", "/api/v2/video/calls", "", &json!({"limit": 1000}), 4),
        ("POST", "/api/v2/video/calls", "", &json!({"next": "x"}), 4),
        ("PATCH", "/api/v2/video/call/default/a", "", &json!({"settings_override": {"transcription": {"mode": 7}}}), 4),
        ("PATCH", "/api/v2/video/call/default/a", "", &json!({"starts_at": "soon"}), 4),
    ] {
        let (found, why) = service.refused(method, path, user, body);
        assert_eq!(found, code, "{method} {path} {body}: {why}");
    }
    let request = |name: &'static str, value: String| {
        ureq::http::Request::builder().method("GET").uri(service.url(CALL)).header(name, value)
    };
    let (expired, other) = (token_for("carol", -60), token("carol").chars().rev().collect::<String>());
    for (request, status, code) in [
        (request("Authorization", String::new()), 401, 5),
        (request("Authorization", other), 401, 5),
        (request("Authorization", expired), 401, 40),
        (ureq::http::Request::builder().uri(service.url(CALL).replace("api_key=key", "api_key=kez")), 401, 2),
    ] {
        let (found, answer) = service.send(request, None);
        check_error(found, &answer);
        assert_eq!((found, answer["code"].as_i64()), (status, Some(code)), "{answer}");
    }
    let request = ureq::http::Request::builder().method("POST").uri(service.url(CALL));
    let (status, answer) = service.send(request.header("Authorization", token("")), Some("{\"data\":"));
    assert!(status == 400 && answer["message"].as_str().unwrap().contains("JSON"), "{answer}");
}

#[test]
fn a_session_says_what_happens_in_the_documented_order() {
    let service = Service::start();
    let short = json!({"session": {"inactivity_timeout_seconds": 1}});
    server_creates(&service, "default/a", json!({"settings_override": short}));
    let (mut watcher, connection) = service.watch("carol", "");
    service.ok("POST", &format!("/video/call/default/a?connection_id={connection}"), "carol", &json!({}));
    let mut alice = service.join("default/a", "alice");
    service.ok("POST", &format!("{CALL}/start_transcription"), "carol", &json!({"enable_closed_captions": true}));
    alice.speak(&utterance());
    alice.leave();
    let events = watcher.until("call.transcription_ready");
    assert_eq!(
        types(&events),
        [
            "call.session_started",
            "call.session_participant_joined",
            "call.transcription_started",
            "call.closed_captions_started",
            "call.closed_caption",
            "call.session_participant_left",
            "call.closed_captions_stopped",
            "call.session_ended",
            "call.transcription_ready",
        ]
    );
    let caption = &events[4]["closed_caption"];
    assert_eq!((&caption["text"], &caption["speaker_id"]), (&json!("heard en"), &json!("alice")));
    assert_eq!(caption["user"]["id"], "alice");
    let length = time(&caption["end_time"]).nanos_since(time(&caption["start_time"]));
    assert!((900_000_000..1_300_000_000).contains(&length), "{caption}");
    let ended = &events[7]["call"];
    assert_eq!((&ended["transcribing"], &ended["captioning"]), (&json!(false), &json!(false)));

    let url = events[8]["call_transcription"]["url"].as_str().unwrap();
    let (status, text, _) = service.fetch(url, None);
    let fragment: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &fragment["text"], &fragment["start_time"]), (200, &caption["text"], &caption["start_time"]));
    let (status, part, range) = service.fetch(url, Some("bytes=2-5"));
    assert_eq!((status, part.as_str()), (206, &text[2..6]));
    assert_eq!(range, format!("bytes 2-5/{}", text.len()));
    assert_eq!(service.fetch(&url.replace("signature=", "signature=0"), None).0, 403);

    // Stopped by somebody, each says so, behind its last caption.
    let (mut early, connection) = service.watch("carol", "&interim=1");
    service.ok("GET", &format!("/video/call/default/a?connection_id={connection}"), "carol", &json!({}));
    let mut alice = service.join("default/a", "alice");
    service.ok("POST", &format!("{CALL}/start_closed_captions"), "carol", &json!({"enable_transcription": true}));
    // Longer than interims take to come: by the first of them the caption is open.
    let speech = sounds::sound(16_000, 6_000, &[(300, 4_500)]);
    alice.speak(&speech[..48_000]);
    watcher.until("call.transcription_started");
    early.until("call.closed_caption_interim");
    service.ok("POST", &format!("{CALL}/stop_closed_captions"), "carol", &json!({"stop_transcription": true}));
    alice.speak(&speech[48_000..]);
    // What is said behind the stop is in neither.
    alice.speak(&utterance());
    let events = watcher.until("call.transcription_ready");
    assert_eq!(
        types(&events),
        [
            "call.closed_caption",
            "call.closed_captions_stopped",
            "call.transcription_stopped",
            "call.transcription_ready"
        ]
    );
    let (_, text, _) = service.fetch(events[3]["call_transcription"]["url"].as_str().unwrap(), None);
    assert_eq!(text.lines().count(), 1);
    alice.leave();
}

#[test]
fn who_may_not_is_told_nothing() {
    let service = Service::start();
    server_creates(&service, "default/a", json!({"members": [{"user_id": "bob"}]}));
    let (mut bob, connection) = service.watch("bob", "");
    // Members hear of calls that they do not watch yet.
    server_creates(&service, "default/b", json!({"members": [{"user_id": "bob"}]}));
    assert_eq!(bob.next().unwrap()["type"], "call.created");
    let watch = json!({"watch": true, "filter_conditions": {"cid": {"$in": ["default:a", "default:none"]}}});
    let found = service.ok("POST", &format!("/video/calls?connection_id={connection}"), "bob", &watch);
    assert_eq!(found["calls"].as_array().unwrap().len(), 1);
    assert_eq!(service.refused("POST", &format!("/video/calls?connection_id={connection}"), "carol", &watch).0, 46);
    service.ok("PATCH", CALL, "", &json!({"custom": {"x": 1}}));
    assert_eq!(bob.next().unwrap()["type"], "call.updated");
    let revoke = json!({"user_id": "bob", "revoke_permissions": ["read-call"]});
    service.ok("POST", &format!("{CALL}/user_permissions"), "", &revoke);
    assert_eq!(bob.close_code(), 4001, "access is lost");
    let (_bob, connection) = service.watch("bob", "");
    let found = service.ok("POST", &format!("/video/calls?connection_id={connection}"), "bob", &watch);
    assert_eq!(found["calls"], json!([]));
    assert_eq!(service.refused("GET", CALL, "bob", &json!({})).0, 17);

    // By the call type, and by one's role.
    let (mut dave, connection) = service.watch("dave", "");
    service.ok("GET", &format!("/video/call/default/a?connection_id={connection}"), "dave", &json!({}));
    service.ok("POST", "/api/v2/users", "", &json!({"users": {"dave": {"id": "dave", "role": "nobody"}}}));
    assert_eq!(dave.close_code(), 4001);
    let (mut erin, connection) = service.watch("erin", "");
    service.ok("GET", &format!("/video/call/default/a?connection_id={connection}"), "erin", &json!({}));
    service.ok("PUT", "/api/v2/video/calltypes/default", "", &json!({"grants": {"user": []}}));
    assert_eq!(erin.close_code(), 4001);
}

#[test]
fn sockets_are_greeted_checked_and_closed_as_clients_expect() {
    let service = Service::start();
    server_creates(&service, "default/a", json!({}));
    let (mut watcher, connection) = service.watch("carol", "");
    watcher.say(&json!([{"type": "health.check", "client_id": connection}]));
    let answer = watcher.next().unwrap();
    assert_eq!((&answer["type"], &answer["connection_id"]), (&json!("health.check"), &json!(connection)));
    assert!(answer["created_at"].is_string());
    // A token that expires on an open socket.
    let (mut short, _) = service.watch_with(&token_for("carol", 2), "carol", "");
    assert_eq!(short.close_code(), 4001);
    for (token, user, code) in [(token_for("carol", -5), "carol", 40), (token("carol"), "bob", 5), (token(""), "", 17)]
    {
        let mut socket = service.connect("/video/connect");
        socket.say(&json!({"token": token, "user_details": {"id": user}}));
        let refused = socket.next().unwrap();
        assert_eq!(refused["type"], "connection.error");
        assert!(refused.get("code").is_none(), "the client would take it for another thing");
        check_error(refused["error"]["StatusCode"].as_u64().unwrap() as u16, &refused["error"]);
        assert_eq!(refused["error"]["code"], code, "{refused}");
        socket.close_code();
    }
    // Audio: whose token, which call, which format.
    for (path, query, user, why) in [
        ("default/a", "user_id=bob", "carol", "user_id"),
        ("default/none", "", "carol", "does not exist"),
        ("default/a", "encoding=mp3", "carol", "linear16"),
        ("default/a", "", "", "server's token"),
        ("default/a", "sample_rate=1", "carol", "1"),
    ] {
        let mut socket = service.audio(path, query);
        socket.say(&json!({"token": token(user)}));
        let refused = socket.next().unwrap();
        assert!(refused["error"]["message"].as_str().unwrap().contains(why), "{refused}");
        assert!((4400..4500).contains(&socket.close_code()));
    }
    let mut torn = service.join("default/a", "carol");
    torn.0.send(tungstenite::Message::binary(vec![0; 3])).unwrap();
    assert_eq!(torn.close_code(), 1007);
    // A second connection takes the place of the first.
    let mut first = service.join("default/a", "carol");
    let second = service.join("default/a", "carol");
    assert_eq!(first.close_code(), 1000);
    second.leave();
    // Who was ended is sent home.
    let mut carol = service.join("default/a", "carol");
    service.ok("POST", &format!("{CALL}/mark_ended"), "carol", &json!({}));
    assert_eq!(carol.close_code(), 1000);
    let mut bob = service.audio("default/a", "");
    bob.say(&json!({"token": token("bob")}));
    assert_eq!(bob.next().unwrap()["error"]["code"], 17, "it has ended");
}

#[test]
fn a_change_of_language_reaches_who_speaks_with_their_next_caption() {
    let service = Service::start();
    server_creates(&service, "default/a", json!({}));
    let (mut watcher, connection) = service.watch("carol", "&interim=1");
    service.ok("GET", &format!("/video/call/default/a?connection_id={connection}"), "carol", &json!({}));
    service.ok("POST", &format!("{CALL}/start_closed_captions"), "carol", &json!({"language": "fr"}));
    let mut alice = service.join("default/a", "alice");
    let next_final = |watcher: &mut support::Socket| {
        let events = watcher.until("call.closed_caption");
        let last = events.last().unwrap()["closed_caption"].clone();
        (last["text"].as_str().unwrap().to_string(), last)
    };
    alice.speak(&utterance());
    assert_eq!(next_final(&mut watcher).0, "heard fr");
    service.ok("PATCH", CALL, "", &json!({"settings_override": {"transcription": {"language": "de"}}}));
    alice.speak(&utterance());
    assert_eq!(next_final(&mut watcher).0, "heard de", "by the call");
    // By its type only where it has no override of its own.
    let settings = json!({"settings": {"transcription": {"language": "it", "translation": {"enabled": true}}}});
    service.ok("PUT", "/api/v2/video/calltypes/default", "", &settings);
    alice.speak(&utterance());
    let (text, original) = next_final(&mut watcher);
    assert_eq!(text, "heard de");
    assert!(original["translated"] == false && original["id"].is_string());
    let (text, translation) = next_final(&mut watcher);
    assert_eq!(
        (text.as_str(), &translation["translated"], &translation["language"]),
        ("translated de", &json!(true), &json!("en"))
    );
    assert_ne!(translation["id"], original["id"]);
    assert_eq!(time(&translation["start_time"]).nanos_since(time(&original["start_time"])), 1);
    alice.leave();
}

#[test]
fn after_a_restart_those_who_return_go_on() {
    let mut service = Service::start();
    // Time enough for who returns.
    let short = json!({"session": {"inactivity_timeout_seconds": 5}});
    server_creates(&service, "default/a", json!({"settings_override": short}));
    let (mut watcher, _) = service.watch("carol", "");
    service.ok("POST", &format!("{CALL}/start_transcription"), "carol", &json!({}));
    let mut alice = service.join("default/a", "alice");
    let mut bob = service.join("default/a", "bob");
    // The server ends while the caption is open: it is finalised.
    alice.speak(&utterance()[..20_000]);
    alice.is_read();
    let before = service.ok("GET", CALL, "", &json!({}));
    service.restart();
    assert_eq!(watcher.close_code(), 1012);
    assert_eq!((alice.close_code(), bob.close_code()), (1012, 1012));
    let after = service.ok("GET", CALL, "", &json!({}));
    assert_eq!(after["call"]["session"]["id"], before["call"]["session"]["id"]);
    assert_eq!(after["call"]["transcribing"], true);
    let (mut watcher, connection) = service.watch("carol", "");
    service.ok("GET", &format!("/video/call/default/a?connection_id={connection}"), "carol", &json!({}));
    let mut alice = service.join("default/a", "alice");
    alice.speak(&utterance());
    let events = watcher.until("call.session_participant_left");
    assert_eq!(types(&events), ["call.session_participant_left"], "bob did not return; alice did not leave");
    assert_eq!(events[0]["participant"]["user"]["id"], "bob");
    alice.leave();
    let events = watcher.until("call.transcription_ready");
    let (_, text, _) = service.fetch(events.last().unwrap()["call_transcription"]["url"].as_str().unwrap(), None);
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[test]
fn every_operation_answers_as_the_clients_models_say() {
    let service = Service::start();
    for path in ["/api/v2", ""] {
        let call = format!("{path}/video/call/default/a");
        let data = json!({
            "created_by_id": "carol", "members": [{"user_id": "bob", "role": "admin", "custom": {"x": 1}}],
            "custom": {"created_at": 5}, "starts_at": "2027-01-01T00:00:00+01:00", "team": "red",
            "settings_override": {"ring": {"auto_cancel_timeout_ms": 5}},
        });
        service.ok("POST", &call, "", &json!({"data": data}));
        let answer = service.ok("GET", &call, "carol", &json!({}));
        assert_eq!(answer["call"]["custom"], json!({"created_at": 5}), "what is the platform's is left alone");
        service.ok("PATCH", &call, "", &json!({"starts_at": 1_800_000_000_000_000_000_i64}));
        service.ok("POST", &format!("{call}/members"), "", &json!({"update_members": [{"user_id": "dave"}]}));
        let removed = json!({"remove_members": ["dave"]});
        assert_eq!(
            service.ok("POST", &format!("{call}/members"), "", &removed)["members"].as_array().unwrap().len(),
            1
        );
        let members = json!({"type": "default", "id": "a", "filter_conditions": {"user_id": "bob"}});
        let members = service.ok("POST", &format!("{path}/video/call/members"), "", &members);
        assert_eq!(members["members"][0]["user_id"], "bob");
        let grant = json!({"user_id": "bob", "grant_permissions": ["end-call"]});
        service.ok("POST", &format!("{call}/user_permissions"), "", &grant);
        service.ok("POST", &format!("{call}/start_closed_captions"), "", &json!({"enable_transcription": true}));
        let caption = json!({
            "speaker_id": "bob", "text": "hello", "language": "en", "service": "elsewhere", "user_id": "bob",
            "start_time": "2026-01-01T00:00:00", "end_time": "2026-01-01T00:00:01Z", "translated": false,
        });
        service.ok("POST", &format!("{call}/closed_captions"), "", &caption);
        service.ok("POST", &format!("{call}/stop_closed_captions"), "", &json!({}));
        assert_eq!(service.refused("POST", &format!("{call}/closed_captions"), "", &caption).0, 4);
        service.ok("POST", &format!("{call}/stop_transcription"), "", &json!({}));
        eventually("the transcript is written", || {
            let list = service.ok("GET", &format!("{call}/transcriptions"), "", &json!({}));
            !list["transcriptions"].as_array().unwrap().is_empty()
        });
        service.ok("POST", &format!("{call}/mark_ended"), "", &json!({}));
        assert_eq!(service.refused("POST", &format!("{call}/start_transcription"), "", &json!({})).0, 4);
        service.ok("POST", &format!("{call}/delete"), "", &json!({"hard": true}));
        assert_eq!(service.refused("GET", &call, "", &json!({})).0, 16);
    }
    let users = json!({"users": {"alice": {"id": "alice", "role": "user", "name": "Alice", "custom": {"x": 1}}}});
    let users = service.ok("POST", "/api/v2/users", "", &users);
    assert_eq!(users["users"]["alice"]["name"], "Alice");
    let patch = json!({"users": [{"id": "alice", "set": {"role": "admin", "colour": "red"}, "unset": ["x"]}]});
    let users = service.ok("PATCH", "/api/v2/users", "", &patch);
    assert_eq!(users["users"]["alice"]["custom"], json!({"colour": "red"}));
    assert_eq!(
        (&users["users"]["alice"]["role"], &users["users"]["alice"]["name"]),
        (&json!("admin"), &json!("Alice"))
    );
    let payload = "%7B%22filter_conditions%22%3A%7B%22role%22%3A%22admin%22%7D%7D";
    let users = service.ok("GET", &format!("/api/v2/users?payload={payload}"), "", &json!({}));
    assert_eq!(users["users"][0]["id"], "alice");

    let types = "/api/v2/video/calltypes";
    let podcast = json!({
        "name": "podcast", "grants": {"user": ["read-call", "StartTranscription"]},
        "settings": {"transcription": {"mode": "auto-on"}}, "notification_settings": {"enabled": true},
    });
    let podcast = service.ok("POST", types, "", &podcast);
    assert_eq!(podcast["grants"]["user"], json!(["read-call", "start-transcription-call"]));
    assert_eq!(podcast["notification_settings"]["enabled"], true);
    assert_eq!(service.refused("POST", types, "", &json!({"name": "podcast"})).0, 4);
    service.ok("GET", &format!("{types}/podcast"), "", &json!({}));
    let names = service.ok("GET", types, "", &json!({}));
    let names: Vec<_> = names["call_types"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["audio_room", "default", "development", "livestream", "podcast"]);
    service.ok("DELETE", &format!("{types}/podcast"), "", &json!({}));
    assert_eq!(service.refused("GET", &format!("{types}/podcast"), "", &json!({})).0, 16);
}

#[test]
fn calls_are_found_page_by_page() {
    let service = Service::start();
    for i in 0..7 {
        let by = if i % 2 == 0 { "carol" } else { "erin" };
        let data = json!({
            "created_by_id": by, "custom": {"number": i}, "team": format!("team-{}", i % 3),
            "members": [{"user_id": format!("member-{i}")}],
        });
        service.ok("POST", &format!("/api/v2/video/call/default/c{i}"), "", &json!({"data": data}));
    }
    let ids = |found: &Value| -> Vec<String> {
        let calls = found["calls"].as_array().unwrap();
        calls.iter().map(|call| call["call"]["id"].as_str().unwrap().to_string()).collect()
    };
    let find = |query: Value| service.ok("POST", "/api/v2/video/calls", "", &query);
    for (filter, expected) in [
        (json!({}), &["c0", "c1", "c2", "c3", "c4", "c5", "c6"][..]),
        (json!({"id": "c3"}), &["c3"]),
        (json!({"cid": {"$in": ["default:c1", "default:c5", "x:y"]}}), &["c1", "c5"]),
        (json!({"created_by_user_id": {"$eq": "erin"}, "team": "team-0"}), &["c3"]),
        (json!({"members": {"$in": ["member-2", "member-6"]}}), &["c2", "c6"]),
        (json!({"$or": [{"id": "c0"}, {"custom.number": {"$gte": 5}}]}), &["c0", "c5", "c6"]),
        (json!({"$and": [{"team": "team-1"}, {"id": {"$ne": "c1"}}]}), &["c4"]),
        (json!({"ended_at": {"$exists": true}}), &[]),
        (json!({"ongoing": true}), &[]),
        (json!({"created_at": {"$lt": "2020-01-01T00:00:00Z"}}), &[]),
        (json!({"id": {"$nin": ["c0", "c1", "c2", "c3", "c4"]}, "ended_at": null}), &["c5", "c6"]),
        (json!({"team": "' OR 1 --"}), &[]),
    ] {
        assert_eq!(ids(&find(json!({"filter_conditions": filter}))), expected, "{filter}");
    }
    let sort = json!([{"field": "created_by_user_id", "direction": -1}, {"field": "created_at", "direction": -1}]);
    let first = find(json!({"sort": sort, "limit": 4}));
    assert_eq!(ids(&first), ["c5", "c3", "c1", "c6"]);
    let second = find(json!({"sort": sort, "limit": 4, "next": first["next"]}));
    assert_eq!(ids(&second), ["c4", "c2", "c0"]);
    assert!(second.get("next").is_none());
    assert_eq!(ids(&find(json!({"sort": sort, "limit": 4, "prev": second["prev"]}))), ids(&first));
}

#[test]
fn a_client_that_closes_has_an_answer() {
    let service = Service::start();
    service.ok("POST", CALL, "", &json!({"data": {"created_by_id": "carol"}}));
    for mut socket in [service.watch("carol", "").0, service.join("default/a", "carol")] {
        socket.0.close(None).unwrap();
        let end = socket.until_gone();
        assert!(matches!(end, tungstenite::Error::ConnectionClosed), "{end:?}");
    }
}
