//! Connections from their first word to their last: who comes, comes back, falls silent, is sent away.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::time::Duration;

use serde_json::json;

mod support;

use support::{Service, Socket, eventually, sounds::sound, types, utterance};

const CALL: &str = "/api/v2/video/call/default/a";

/// A call with captions, and who watches it.
fn captioned(service: &Service) -> Socket {
    service.ok("POST", CALL, "", &json!({"data": {"created_by_id": "carol"}}));
    let (watcher, connection) = service.watch("carol", "&interim=1");
    service.ok("GET", &format!("/video/call/default/a?connection_id={connection}"), "carol", &json!({}));
    service.ok("POST", &format!("{CALL}/start_closed_captions"), "carol", &json!({"enable_transcription": true}));
    watcher
}

/// Speech for longer than interims take to come.
fn long() -> Vec<i16> {
    sound(16_000, 6_000, &[(300, 4_500)])
}

fn participants(service: &Service) -> Vec<String> {
    let call = service.ok("GET", CALL, "", &json!({}));
    let participants = call["call"]["session"]["participants"].as_array().unwrap().clone();
    participants.iter().map(|one| one["user"]["id"].as_str().unwrap().to_string()).collect()
}

#[test]
fn what_is_final_when_the_server_ends_is_told_before_it_closes() {
    let mut service = Service::start();
    let mut watcher = captioned(&service);
    let mut alice = service.join("default/a", "alice");
    alice.speak(&long()[..48_000]);
    watcher.until("call.closed_caption_interim");
    service.restart();
    let said = watcher.until("call.closed_caption");
    assert_eq!(said.last().unwrap()["closed_caption"]["speaker_id"], "alice");
    assert_eq!(watcher.close_code(), 1012);
}

#[test]
fn who_may_no_longer_speak_is_sent_away() {
    let service = Service::start();
    let mut watcher = captioned(&service);
    let permissions = format!("{CALL}/user_permissions");
    let users = |role: &str| json!({"users": {"alice": {"id": "alice", "role": role}}});
    let grants = |names: &[&str]| json!({"grants": {"user": names}});
    for (what, method, path, body, back) in [
        (
            "a capability",
            "POST",
            permissions.as_str(),
            json!({"user_id": "alice", "revoke_permissions": ["send-audio"]}),
            json!({"user_id": "alice", "grant_permissions": ["send-audio"]}),
        ),
        ("a role", "POST", "/api/v2/users", users("guest"), users("user")),
        (
            "a call type's grants",
            "PUT",
            "/api/v2/video/calltypes/default",
            grants(&["read-call", "send-audio"]),
            grants(&["read-call", "join-call", "send-audio"]),
        ),
    ] {
        // What was granted by name would outlast the rest.
        let is_granted = what == "a capability";
        let mut alice = service.join("default/a", "alice");
        service.ok(method, path, "", &body);
        assert_eq!(alice.close_code(), 4001, "{what}");
        let told = watcher.until("call.session_participant_left");
        assert_eq!(told.last().unwrap()["participant"]["user"]["id"], "alice", "{what}");
        service.ok(method, path, "", &back);
        if is_granted {
            continue;
        }
        service.ok("POST", &permissions, "", &json!({"user_id": "alice", "revoke_permissions": []}));
    }
}

#[test]
fn who_comes_back_while_their_last_caption_is_on_its_way_stays() {
    let service = Service::start();
    let _watcher = captioned(&service);
    let speech = utterance();
    for _ in 0..12 {
        let mut alice = service.join("default/a", "alice");
        alice.speak(&speech[..16_000]);
        // Without a word, as when a network goes.
        drop(alice);
        std::thread::sleep(Duration::from_millis(5));
    }
    let alice = service.join("default/a", "alice");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(participants(&service), ["alice"]);
    alice.leave();
    eventually("she has left", || participants(&service).is_empty());
}

#[test]
fn who_says_nothing_for_five_seconds_is_nobody() {
    let service = Service::start();
    captioned(&service);
    let mut client = service.connect("/video/connect");
    let mut speaker = service.audio("default/a", "");
    assert_eq!(client.close_code(), 4000);
    let refused = speaker.next().unwrap();
    assert_eq!(refused["error"]["code"], 5, "{refused}");
    assert_eq!(speaker.close_code(), 4401);
}

#[test]
fn interims_end_with_the_last_who_wants_them_and_other_watchers_have_none() {
    let service = Service::start();
    let mut watcher = captioned(&service);
    let (mut plain, connection) = service.watch("erin", "");
    service.ok("GET", &format!("/video/call/default/a?connection_id={connection}"), "erin", &json!({}));
    let mut alice = service.join("default/a", "alice");
    let (one, two) = (&long()[..48_000], &long()[48_000..]);
    alice.speak(one);
    watcher.until("call.closed_caption_interim");
    alice.speak(two);
    let with = watcher.until("call.closed_caption");
    let without = plain.until("call.closed_caption");
    assert!(!types(&without).contains(&"call.closed_caption_interim"), "{without:?}");
    assert!(with.last().unwrap()["ledger"].is_object() && without.last().unwrap().get("ledger").is_none());

    // Who loses the call loses the interims, and nobody makes them any more.
    service.ok("POST", "/api/v2/users", "", &json!({"users": {"carol": {"id": "carol", "role": "nobody"}}}));
    let revoke = json!({"user_id": "carol", "revoke_permissions": ["read-call"]});
    service.ok("POST", &format!("{CALL}/user_permissions"), "", &revoke);
    assert_eq!(watcher.close_code(), 4001);
    // The close is said before that is so.
    watcher.until_gone();
    let before = service.decodes.load(std::sync::atomic::Ordering::Relaxed);
    alice.speak(one);
    std::thread::sleep(Duration::from_millis(300));
    alice.speak(two);
    alice.leave();
    // More than one where this machine paused for so long that the caption was closed.
    let events = plain.until("call.session_participant_left");
    let finals = types(&events).iter().filter(|of| **of == "call.closed_caption").count() as u64;
    let decodes = service.decodes.load(std::sync::atomic::Ordering::Relaxed) - before;
    assert!(finals > 0 && decodes == finals, "the finals alone: {decodes} for {finals}");
}

#[test]
fn who_was_away_or_comes_late_catches_up() {
    let mut service = Service::start();
    let mut watcher = captioned(&service);
    let mut alice = service.join("default/a", "alice");
    let mut shown = Vec::new();
    for _ in 0..3 {
        alice.speak(&utterance());
        shown.push(watcher.until("call.closed_caption").pop().unwrap());
    }
    let list = |service: &Service, query: &str| {
        let path = format!("/video/call/default/a/closed_captions?{query}");
        service.ok("GET", &path, "bob", &json!({}))
    };
    let ids = |answer: &serde_json::Value| -> Vec<String> {
        let captions = answer["closed_captions"].as_array().unwrap();
        captions.iter().map(|caption| caption["id"].as_str().unwrap().to_string()).collect()
    };
    let expected: Vec<_> =
        shown.iter().map(|event| event["closed_caption"]["id"].as_str().unwrap().to_string()).collect();
    // In whole, and as they were shown.
    let all = list(&service, "");
    assert_eq!(ids(&all), expected);
    let mut first = all["closed_captions"][0].clone();
    assert_eq!(first.as_object_mut().unwrap().remove("created_at").unwrap(), shown[0]["created_at"]);
    assert_eq!(first, shown[0]["closed_caption"]);
    // From the last that was seen on: with it, lest another one of the same moment is missed.
    let since = shown[1]["created_at"].as_str().unwrap();
    assert_eq!(ids(&list(&service, &format!("since={since}"))), expected[1..]);
    assert!(ids(&list(&service, "since=2100-01-01T00:00:00Z")).is_empty());
    // In pages.
    let page = list(&service, "limit=2");
    assert_eq!(ids(&page), expected[..2]);
    assert_eq!(ids(&list(&service, &format!("next={}", page["next"].as_str().unwrap()))), expected[2..]);
    for query in ["since=soon", "limit=0", "limit=5000", "next=x"] {
        let path = format!("/video/call/default/a/closed_captions?{query}");
        assert_eq!(service.refused("GET", &path, "bob", &json!({})).0, 4, "{query}");
    }
    // Over a restart, and until the session is over.
    service.restart();
    assert_eq!(ids(&list(&service, "")), expected);
    service.ok("POST", "/api/v2/video/call/default/a/mark_ended", "", &json!({}));
    assert!(ids(&list(&service, "")).is_empty());
    let revoke = json!({"user_id": "bob", "revoke_permissions": ["read-call"]});
    service.ok("POST", &format!("{CALL}/user_permissions"), "", &revoke);
    assert_eq!(service.refused("GET", "/video/call/default/a/closed_captions", "bob", &json!({})).0, 17);
}
