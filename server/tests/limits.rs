//! What comes too much, too long, too slowly, too often; and a server that is full.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cuewire::asr::{DecodeJob, Hypothesis, ScriptedDecoder};
use cuewire::engine::{Idle, Model};
use cuewire_server::ServerConfig;
use cuewire_server::limits::Limits;
use serde_json::{Value, json};
use support::{KEY, Service, Socket, check_error, eventually, sounds, token};
use tungstenite::Message;

const CALL: &str = "/api/v2/video/call/default/a";

/// A server with such limits.
fn limited(change: impl FnOnce(&mut Limits)) -> Service {
    Service::start_with(|config: &mut ServerConfig| change(&mut config.limits)).keeping_no_connection()
}

fn create(service: &Service, id: &str) {
    let data = json!({"data": {"created_by_id": "carol"}});
    service.ok("POST", &format!("/api/v2/video/call/default/{id}"), "", &data);
}

fn raw(service: &Service) -> TcpStream {
    let stream = TcpStream::connect(&service.addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// What comes until the server closes, and when it did.
fn rest(stream: &mut TcpStream) -> (String, Duration) {
    let (start, mut bytes) = (Instant::now(), Vec::new());
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("expected that the server closes, got {error}"),
    }
    (String::from_utf8_lossy(&bytes).into_owned(), start.elapsed())
}

/// The head of a request of `user`, without the empty line behind it.
fn head(method: &str, path: &str, user: &str, more: &str) -> String {
    let token = token(user);
    format!("{method} {path}?api_key={KEY} HTTP/1.1\r\nhost: x\r\nauthorization: {token}\r\n{more}")
}

/// Why a participant is not let in, and the code that their connection is closed with.
fn refused(mut socket: Socket, user: &str) -> (Value, u16) {
    socket.say(&json!({"token": token(user)}));
    let said = socket.next().unwrap();
    assert_eq!(said["type"], "connection.error", "{said}");
    let error = said["error"].clone();
    check_error(error["StatusCode"].as_u64().unwrap() as u16, &error);
    (error, socket.close_code())
}

#[test]
fn what_is_too_much_is_refused_and_changes_nothing() {
    let service = limited(|limits| {
        (limits.body_bytes, limits.hooks, limits.page) = (16 * 1024, 1, 10);
        (limits.members_per_call, limits.calls) = (2, 2);
    });
    create(&service, "a");
    create(&service, "b");
    let member = |id: &str| json!({"user_id": id});
    let hook = |i: u32| json!({"hook_type": "webhook", "enabled": true, "webhook_url": format!("https://1.1.1.1/{i}")});
    let custom = json!({"custom": {"text": "x".repeat(16 * 1024)}});
    for (method, path, body, part) in [
        ("PATCH", CALL, custom, "the body is longer than 16 KiB"),
        ("PATCH", "/api/v2/app", json!({"event_hooks": [hook(1), hook(2)]}), "2 hooks: allowed are 1"),
        ("POST", "/api/v2/video/calls", json!({"limit": 11}), "limit is 11: allowed are 1 – 10"),
        (
            "POST",
            "/api/v2/video/call/default/a/members",
            json!({"update_members": [member("b"), member("c"), member("d")]}),
            "3 members: a call may have 2",
        ),
        ("POST", "/api/v2/video/call/default/c", json!({"data": {"created_by_id": "carol"}}), "there are 2 calls"),
    ] {
        let (code, message) = service.refused(method, path, "", &body);
        assert!(code == 4 && message.contains(part), "{path}: {code} {message}");
    }
    let call = service.ok("GET", CALL, "", &json!({}));
    assert_eq!((&call["members"], &call["call"]["custom"]), (&json!([]), &json!({})));
    service.ok("PATCH", "/api/v2/app", "", &json!({"event_hooks": [hook(1)]}));
    assert_eq!(service.ok("POST", "/api/v2/video/calls", "", &json!({}))["calls"].as_array().unwrap().len(), 2);
    // One that is deleted makes room for another.
    service.ok("POST", "/api/v2/video/call/default/b/delete", "", &json!({}));
    create(&service, "c");
    let too_many = json!({"data": {"created_by_id": "carol", "members": [member("b"), member("c"), member("d")]}});
    service.ok("POST", "/api/v2/video/call/default/c/delete", "", &json!({}));
    assert!(service.refused("POST", "/api/v2/video/call/default/d", "", &too_many).1.contains("3 members"));
    create(&service, "d");
}

#[test]
fn what_a_call_and_a_user_keep_is_bounded_however_it_is_written() {
    let service = limited(|limits| (limits.call_bytes, limits.user_bytes) = (16 * 1024, 4096));
    create(&service, "a");
    let text = |bytes: usize| "x".repeat(bytes);
    let (call, bound) = ("the call default:a would take", "bytes: allowed are 16384");
    let is_bounded = |method: &str, path: &str, body: &Value, what: &str, bound: &str| {
        let (code, message) = service.refused(method, path, "", body);
        assert!(code == 4 && message.starts_with(what) && message.ends_with(bound), "{code} {message}");
    };
    // Each is small, and all of them are kept.
    let leaf = |i: usize| json!({"settings_override": {"recording": {format!("leaf-{i}"): text(1000)}}});
    (0..12).for_each(|i| drop(service.ok("PATCH", CALL, "", &leaf(i))));
    let member = |i: usize| json!({"update_members": [{"user_id": format!("m-{i}"), "custom": {"text": text(1000)}}]});
    let members = format!("{CALL}/members");
    (0..2).for_each(|i| drop(service.ok("POST", &members, "", &member(i))));
    let before = service.ok("GET", CALL, "", &json!({}));
    let custom = json!({"custom": {"text": text(4000)}});
    for (method, path, body) in [
        (
            "PATCH",
            CALL,
            (12..15).fold(json!({"settings_override": {"recording": {}}}), |mut all, i| {
                all["settings_override"]["recording"][format!("leaf-{i}")] = json!(text(1000));
                all
            }),
        ),
        ("PATCH", CALL, custom),
        ("POST", &*members, json!({"update_members": [{"user_id": "m-2", "custom": {"text": text(3000)}}]})),
    ] {
        is_bounded(method, path, &body, call, bound);
    }
    let new = json!({"data": {"created_by_id": "carol", "custom": {"text": text(20_000)}}});
    is_bounded("POST", "/api/v2/video/call/default/b", &new, "the call default:b would take", bound);
    assert_eq!(service.refused("GET", "/api/v2/video/call/default/b", "", &json!({})).0, 16);
    let grown = json!({"settings": {"recording": {"leaf": text(20_000)}}});
    is_bounded("PUT", "/api/v2/video/calltypes/default", &grown, "the call type default would take", bound);
    let mut after = service.ok("GET", CALL, "", &json!({}));
    after["duration"] = before["duration"].clone();
    assert_eq!(after, before, "nothing has changed");
    // Users, by a server and by themselves.
    let user = json!({"users": {"carol": {"id": "carol", "custom": {"text": text(5000)}}}});
    is_bounded("POST", "/api/v2/users", &user, "the user carol would take", "bytes: allowed are 4096");
    let mut watcher = service.connect("/video/connect");
    watcher.say(&json!({"token": token("carol"), "user_details": {"id": "carol", "custom": {"text": text(5000)}}}));
    let error = watcher.next().unwrap();
    assert_eq!((&error["type"], &error["error"]["code"]), (&json!("connection.error"), &json!(4)));
    // Who comes, and what ends it, is no matter of that.
    service.ok("PATCH", CALL, "", &json!({"custom": {"text": text(500)}}));
    (0..10).for_each(|i| drop(service.join("default/a", &format!("speaker-{i}"))));
    service.ok("POST", &format!("{CALL}/mark_ended"), "", &json!({}));
}

#[test]
fn what_is_answered_all_at_once_has_a_bound() {
    let service = Service::start_with(|config| config.sync = cuewire_server::Sync::Never);
    for (path, list, most, there) in [("calltypes", "call_types", 100, 4), ("roles", "roles", 250, 6)] {
        let path = format!("/api/v2/{}{path}", if list == "roles" { "" } else { "video/" });
        let roles = if list == "roles" { most } else { most - there };
        (0..roles).for_each(|i| drop(service.ok("POST", &path, "", &json!({"name": format!("one-{i}")}))));
        let (code, why) = service.refused("POST", &path, "", &json!({"name": "more"}));
        assert!(code == 4 && why.contains(&format!("{most} ")), "{why}");
        let all = service.ok("GET", &path, "", &json!({}))[list].clone();
        let count = all.as_array().map(Vec::len).or(all.as_object().map(serde_json::Map::len));
        assert_eq!(count, Some(roles + there), "{path}");
    }
    service.ok("DELETE", "/api/v2/video/calltypes/one-7", "", &json!({}));
    service.ok("POST", "/api/v2/video/calltypes", "", &json!({"name": "more"}));
}

#[test]
fn a_page_of_large_calls_is_cut_short_and_the_next_one_goes_on_behind_it() {
    let service = limited(|_| ());
    let custom = json!({"text": "x".repeat(400 * 1024)});
    let ids: Vec<_> = (0..45).map(|i| format!("call-{i:02}")).collect();
    for id in &ids {
        let data = json!({"data": {"created_by_id": "carol", "custom": custom}});
        service.ok("POST", &format!("/api/v2/video/call/default/{id}"), "", &data);
    }
    let (mut found, mut pages, mut next) = (Vec::new(), 0, json!(null));
    loop {
        let body = json!({"sort": [{"field": "id", "direction": 1}], "limit": 30, "next": next});
        let page = service.ok("POST", "/api/v2/video/calls", "", &body);
        let calls = page["calls"].as_array().unwrap();
        assert!(!calls.is_empty() && page.to_string().len() < 9 * 1024 * 1024, "{} calls", calls.len());
        found.extend(calls.iter().map(|call| call["call"]["id"].as_str().unwrap().to_string()));
        pages += 1;
        next = page["next"].clone();
        if next.is_null() {
            break;
        }
    }
    assert_eq!(found, ids);
    assert_eq!(pages, 3, "by what they take, and not by the limit");
}

#[test]
fn a_user_has_so_many_sockets_and_gets_them_back_however_they_end() {
    let service = limited(|limits| limits.sockets_per_user = 3);
    create(&service, "a");
    let (first, _) = service.watch("dave", "");
    let (second, _) = service.watch("dave", "");
    let third = service.join("default/a", "dave");
    let is_full = || {
        let (error, code) = refused(service.audio("default/a", ""), "dave");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("3 sockets are open: a user may have 3"), "{message}");
        assert_eq!((&error["code"], &error["StatusCode"], code), (&json!(9), &json!(429), 4429));
        let mut watcher = service.connect("/video/connect");
        watcher.say(&json!({"token": token("dave")}));
        assert_eq!(watcher.close_code(), 4429);
    };
    is_full();
    let (_other, _) = service.watch("erin", "");
    third.leave();
    // One that is refused for something else has had its place for a moment.
    for _ in 0..5 {
        let (error, _) = refused(service.audio("default/a", "encoding=mp3"), "dave");
        assert_eq!(error["code"], 4);
    }
    let third = service.join("default/a", "dave");
    is_full();
    // Without a word.
    drop((first, second, third));
    let mut held = Vec::new();
    eventually("all of them are there again", || {
        let mut socket = service.audio("default/a", "");
        socket.say(&json!({"token": token("dave")}));
        let is_in = socket.next().unwrap()["type"] == "joined";
        held.extend(is_in.then_some(socket));
        held.len() == 3
    });
}

#[test]
fn speakers_who_do_not_say_who_they_are_make_room_and_say_it_in_few_words() {
    // As many as frames of the longest kind may come of nobody.
    const PLACES: usize = 16;
    let service = limited(|limits| limits.frame_bytes = 16 * 1024 * 1024);
    create(&service, "a");
    let mut silent: Vec<_> = (0..PLACES + 10).map(|_| service.audio("default/a", "")).collect();
    for mut first in silent.drain(..10) {
        let said = first.next().unwrap();
        assert_eq!((&said["error"]["StatusCode"], first.close_code()), (&json!(503), 4503), "{said}");
    }
    let _alice = service.join("default/a", "alice");
    silent.remove(0);
    assert!(silent[PLACES / 2].is_silent(Duration::from_millis(200)));
    silent[PLACES / 2].say(&json!({"token": token("bob")}));
    assert_eq!(silent[PLACES / 2].next().unwrap()["type"], "joined");
    let (error, code) = {
        let mut socket = service.audio("default/a", "");
        socket.say(&json!({"token": token("carol"), "more": "x".repeat(17 * 1024)}));
        (socket.next().unwrap()["error"].clone(), socket.close_code())
    };
    assert!(error["message"].as_str().unwrap().contains("longer than 16 KiB"), "{error}");
    assert_eq!(code, 4400);
}

#[test]
fn a_call_that_is_full_and_a_server_that_has_its_tracks_let_nobody_in_but_those_who_were_there() {
    let service = limited(|limits| (limits.participants_per_call, limits.max_tracks) = (2, 3));
    create(&service, "a");
    create(&service, "b");
    let alice = service.join("default/a", "alice");
    let _bob = service.join("default/a", "bob");
    let (error, code) = refused(service.audio("default/a", ""), "carol");
    assert!(error["message"].as_str().unwrap().contains("the call is full: 2"), "{error}");
    assert_eq!((&error["StatusCode"], &error["code"], code), (&json!(503), &json!(-1), 4503));
    let _dave = service.join("default/b", "dave");
    let (error, code) = refused(service.audio("default/b", ""), "erin");
    assert!(error["message"].as_str().unwrap().contains("has 3 tracks, and may have 3"), "{error}");
    assert_eq!(code, 4503);
    // Nothing of theirs is left: not in the session either.
    let session = service.ok("GET", CALL, "", &json!({}))["call"]["session"].clone();
    assert_eq!(session["participants"].as_array().unwrap().len(), 2);
    // Their seats are kept for them, whether they went or the network did.
    alice.leave();
    service.join("default/a", "alice");
    service.join("default/a", "bob");
    let ready = service.fetch(&service.url("/readyz"), None);
    assert_eq!((ready.0, ready.1.as_str()), (200, "ready\n"));
}

#[test]
fn who_says_nothing_or_says_it_slowly_is_closed() {
    let service = limited(|limits| (limits.head_s, limits.body_s) = (1, 1));
    create(&service, "a");
    let soon = Duration::from_millis(900)..Duration::from_secs(6);
    // Nothing; half a head; a head, and then nothing more: what is idle counts too.
    for (said, answered) in [
        (String::new(), false),
        (head("GET", CALL, "", ""), false),
        (head("GET", CALL, "", "\r\n"), true),
        ("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".into(), true),
    ] {
        let start = Instant::now();
        let mut stream = raw(&service);
        stream.write_all(said.as_bytes()).unwrap();
        let (heard, took) = (rest(&mut stream).0, start.elapsed());
        assert!(
            heard.starts_with("HTTP/1.1 200") == answered && soon.contains(&took),
            "{said:.40}: {took:?} {heard:.100}"
        );
    }
    // A byte each 100 ms is no progress.
    let mut stream = raw(&service);
    let start = Instant::now();
    let slow = head("GET", CALL, "", "");
    let ended = slow.bytes().find(|byte| {
        std::thread::sleep(Duration::from_millis(100));
        stream.write_all(&[*byte]).is_err()
    });
    assert!(ended.is_some() && start.elapsed() < soon.end, "{:?}", start.elapsed());
    // Bodies, of somebody and of nobody.
    for (more, status) in [("", 400), ("authorization: rubbish\r\n", 401)] {
        let start = Instant::now();
        let mut stream = raw(&service);
        let user = if status == 400 {
            head("PATCH", CALL, "", "")
        } else {
            format!("PATCH {CALL}?api_key={KEY} HTTP/1.1\r\nhost: x\r\n{more}")
        };
        stream.write_all(format!("{user}content-length: 100\r\n\r\n{{").as_bytes()).unwrap();
        let (heard, took) = (rest(&mut stream).0, start.elapsed());
        assert!(soon.contains(&took), "{took:?}");
        assert!(heard.starts_with(&format!("HTTP/1.1 {status}")), "{heard}");
        if status == 400 {
            assert!(heard.contains("the body did not come within 1 s"), "{heard}");
        }
    }
}

#[test]
fn who_reads_nothing_is_closed() {
    let service = limited(|limits| (limits.write_s, limits.call_bytes) = (1, 1024 * 1024));
    create(&service, "a");
    let custom = json!({"custom": {"text": "x".repeat(900 * 1024)}});
    service.ok("PATCH", CALL, "", &custom);
    let mut stream = raw(&service);
    const ASKED: usize = 40;
    for _ in 0..ASKED {
        stream.write_all(head("GET", CALL, "", "\r\n").as_bytes()).unwrap();
    }
    std::thread::sleep(Duration::from_millis(2500));
    let (heard, _) = rest(&mut stream);
    assert!(heard.len() < ASKED / 2 * 900 * 1024, "what the system's buffers hold, and no more: {} bytes", heard.len());
    // A client that watches.
    let (mut watcher, connection) = service.watch("carol", "");
    service.ok("GET", &format!("/video/call/default/a?connection_id={connection}"), "carol", &json!({}));
    let start = Instant::now();
    loop {
        service.ok("PATCH", CALL, "", &custom);
        let asked =
            service.request("GET", &format!("/video/call/default/a?connection_id={connection}"), "carol", &json!({}));
        if asked.0 == 400 {
            assert_eq!(asked.1["code"], 46);
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "it is still there");
    }
    // What was on its way is still read, and then it is over.
    let ended = std::iter::repeat_with(|| watcher.0.read()).take(1000).find(Result::is_err);
    assert!(ended.is_some());
}

#[test]
fn long_frames_and_many_messages_end_a_connection() {
    let service = limited(|limits| (limits.frame_bytes, limits.messages_per_s) = (16 * 1024, 5));
    create(&service, "a");
    let mut alice = service.join("default/a", "alice");
    alice.0.send(Message::binary(vec![0; 16 * 1024])).unwrap();
    alice.0.send(Message::binary(vec![0; 16 * 1024 + 2])).unwrap();
    assert_eq!(alice.close_code(), 1009);
    let many = |mut socket: Socket, message: Value| {
        // It may be closed by then.
        for _ in 0..10 {
            let _ = socket.0.send(Message::text(message.to_string()));
        }
        socket.close_code()
    };
    assert_eq!(many(service.join("default/a", "alice"), json!({"type": "flush"})), 4429);
    let (carol, _) = service.watch("carol", "");
    assert_eq!(many(carol, json!([{"type": "health.check"}])), 4429);
    // Audio in small frames is none of it.
    let mut alice = service.join("default/a", "alice");
    alice.speak(&sounds::sound(16_000, 1000, &[]));
    alice.leave();
}

#[test]
fn who_asks_too_often_is_told_when_to_ask_again() {
    let service = limited(|limits| {
        (limits.user_requests_per_min, limits.server_requests_per_min, limits.connects_per_min) = (4, 30, 2);
        (limits.address_requests_per_min, limits.trusted_proxies) = (3, vec!["127.0.0.1".parse().unwrap()]);
    });
    create(&service, "a");
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let ask = |token: &str, from: &str| {
        let request = agent.get(service.url("/video/call/default/a")).header("Authorization", token);
        let mut answer =
            request.header("Origin", "https://example.org").header("X-Forwarded-For", from).call().unwrap();
        let headers = answer.headers().clone();
        let number = move |name: &str| headers.get(name).map(|value| value.to_str().unwrap().parse::<i64>());
        let number = move |name: &str| number(name).map(|number| number.unwrap_or(-1));
        let exposed = answer.headers()["access-control-expose-headers"].to_str().unwrap().to_string();
        assert!(exposed.contains("x-ratelimit-limit") && exposed.contains("retry-after"), "{exposed}");
        let status = answer.status().as_u16();
        let body: Value = serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
        (status, body, number)
    };
    let carol = token("carol");
    for left in [3, 2, 1, 0] {
        let (status, _, number) = ask(&carol, "203.0.113.1");
        assert_eq!((status, number("x-ratelimit-limit"), number("x-ratelimit-remaining")), (200, Some(4), Some(left)));
        assert_eq!(number("retry-after"), None);
    }
    let (status, body, number) = ask(&carol, "203.0.113.1");
    check_error(429, &body);
    assert_eq!((status, &body["code"], number("x-ratelimit-remaining")), (429, &json!(9), Some(0)));
    assert!(body["message"].as_str().unwrap().contains("4 a minute"), "{body}");
    assert!((1..=15).contains(&number("retry-after").unwrap()), "{:?}", number("retry-after"));
    let now_s = cuewire_server::now().as_nanos() / 1_000_000_000;
    assert!((now_s + 40..now_s + 80).contains(&number("x-ratelimit-reset").unwrap()));
    // Others go on, each with their own.
    assert_eq!(ask(&token("bob"), "203.0.113.1").0, 200);
    let (status, _, number) = ask(&token(""), "203.0.113.1");
    assert_eq!((status, number("x-ratelimit-limit")), (200, Some(30)));
    // Nobody in particular: by address; this machine's is not counted.
    let nobody = |from: &str| ask("rubbish", from).0;
    assert_eq!([0; 4].map(|_| nobody("203.0.113.1")), [401, 401, 401, 429]);
    assert_eq!(nobody("203.0.113.2"), 401);
    assert_eq!([0; 5].map(|_| nobody("127.0.0.1")), [401; 5]);
    // Connections, of who watches and who speaks; and those whose token is refused.
    let (_first, _) = service.watch("dave", "");
    let _second = service.join("default/a", "dave");
    let (error, code) = refused(service.audio("default/a", ""), "dave");
    assert_eq!((&error["code"], &error["StatusCode"], code), (&json!(9), &json!(429), 4429));
    let mut third = service.connect("/video/connect");
    third.say(&json!({"token": token("dave")}));
    assert_eq!(third.close_code(), 4429, "the client comes back later: an error would be the last word");
    let (_erin, _) = service.watch("erin", "");
}

#[test]
fn connections_that_say_nothing_make_room_and_those_that_speak_stay() {
    let service = limited(|limits| limits.connections = 8);
    create(&service, "a");
    let (mut watcher, connection) = service.watch("carol", "");
    service.ok("GET", &format!("/video/call/default/a?connection_id={connection}"), "carol", &json!({}));
    let alice = service.join("default/a", "alice");
    watcher.until("call.session_participant_joined");
    let silent: Vec<_> = (0..40).map(|_| raw(&service)).collect();
    // Handshakes without a token are as silent.
    let mute: Vec<_> = (0..10).map(|_| service.audio("default/a", "")).collect();
    let start = Instant::now();
    service.ok("PATCH", CALL, "", &json!({"custom": {"x": 1}}));
    // Behind those fifty, each of which may have to be waited for.
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(watcher.until("call.updated").len(), 1);
    alice.leave();
    let closed = silent.into_iter().filter(|stream| {
        stream.set_nonblocking(true).unwrap();
        !matches!((&*stream).read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
    });
    assert!(closed.count() >= 34);
    drop(mute);
    // By address.
    let service = limited(|limits| limits.connections_per_address = 2);
    let mut held = [raw(&service), raw(&service)];
    held.iter_mut().for_each(|stream| stream.write_all(b"GET /healthz").unwrap());
    assert_eq!(rest(&mut raw(&service)).0, "");
    drop(held);
    eventually("there is room again", || {
        let mut stream = raw(&service);
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        rest(&mut stream).0.starts_with("HTTP/1.1 200")
    });
}

#[test]
fn an_answer_that_is_still_read_and_a_file_with_a_good_signature_keep_their_connection() {
    let service = limited(|limits| (limits.connections, limits.head_s, limits.call_bytes) = (8, 3, 1024 * 1024));
    create(&service, "a");
    service.ok("POST", &format!("{CALL}/start_transcription"), "", &json!({}));
    service.join("default/a", "alice").leave();
    service.ok("POST", &format!("{CALL}/mark_ended"), "", &json!({}));
    let list = || service.ok("GET", &format!("{CALL}/transcriptions"), "", &json!({}))["transcriptions"].clone();
    eventually("the transcript is there", || list() != json!([]));
    let url = list()[0]["url"].as_str().unwrap().to_string();
    let file = std::fs::read_dir(service.folder.path().join("transcripts")).unwrap().next().unwrap().unwrap().path();
    std::fs::write(file, vec![b'x'; 30_000_000]).unwrap();
    service.ok("PATCH", CALL, "", &json!({"custom": {"text": "x".repeat(900 * 1024)}}));

    const ASKED: usize = 30;
    let (mut asks, mut fetches) = (raw(&service), raw(&service));
    for _ in 0..ASKED {
        asks.write_all(head("GET", CALL, "", "\r\n").as_bytes()).unwrap();
    }
    let path = url.split_once("//").unwrap().1.split_once('/').unwrap().1;
    fetches.write_all(format!("GET /{path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let silent: Vec<_> = (0..40).map(|_| raw(&service)).collect();
    service.ok("GET", CALL, "", &json!({}));
    std::thread::sleep(Duration::from_millis(500));
    let (heard, _) = rest(&mut asks);
    assert_eq!(heard.matches("HTTP/1.1 200").count(), ASKED);
    assert!(heard.len() > ASKED * 900 * 1024, "{}", heard.len());
    let (heard, _) = rest(&mut fetches);
    assert!(heard.starts_with("HTTP/1.1 200") && heard.len() > 30_000_000, "{} bytes: {heard:.200}", heard.len());
    drop(silent);
}

#[test]
fn a_server_that_cannot_keep_up_lets_nobody_new_in_and_keeps_who_is_there() {
    let is_slow = Arc::new(AtomicBool::new(true));
    let model: Arc<dyn Model> = {
        let is_slow = is_slow.clone();
        Arc::new(move |_: &Idle| {
            let is_slow = is_slow.clone();
            ScriptedDecoder::new(move |job: &DecodeJob| {
                if is_slow.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(1500));
                }
                Ok(Hypothesis::certain("heard", job))
            })
        })
    };
    let service = Service::start_model(model, |_| ());
    create(&service, "a");
    service.ok("POST", &format!("{CALL}/start_closed_captions"), "", &json!({}));
    let (mut watcher, connection) = service.watch("carol", "");
    service.ok("GET", &format!("/video/call/default/a?connection_id={connection}"), "carol", &json!({}));
    // As many as there are processors are more than they can decode.
    let stop = Arc::new(AtomicBool::new(false));
    let speakers: Vec<_> = (0..8)
        .map(|i| {
            let (mut socket, stop) = (service.join("default/a", &format!("speaker-{i}")), stop.clone());
            std::thread::spawn(move || {
                let words = sounds::sound(16_000, 1000, &[(100, 600)]);
                while !stop.load(Ordering::Relaxed) {
                    socket.speak(&words);
                    std::thread::sleep(Duration::from_secs(1));
                }
                socket
            })
        })
        .collect();
    let join = |user: &str| {
        let mut socket = service.audio("default/a", "");
        socket.say(&json!({"token": token(user)}));
        (socket.next().unwrap(), socket)
    };
    let start = Instant::now();
    let mut next = 0;
    let error = loop {
        let (said, _socket) = join(&format!("late-{next}"));
        if said["type"] == "connection.error" {
            break said["error"].clone();
        }
        assert!(start.elapsed() < Duration::from_secs(25), "everybody is let in");
        next += 1;
        std::thread::sleep(Duration::from_millis(500));
    };
    check_error(503, &error);
    assert!(error["message"].as_str().unwrap().starts_with("the server is full: "), "{error}");
    assert!(start.elapsed() > Duration::from_secs(2), "a moment of overload is none");
    // Who was there comes back; requests are answered.
    let (said, _) = join("late-0");
    assert_eq!(said["type"], "joined", "{said}");
    assert_eq!(service.fetch(&service.url("/readyz"), None).0, 200);
    watcher.until("call.closed_caption");
    // Where nobody speaks any more, somebody is let in, whatever those before have cost.
    stop.store(true, Ordering::Relaxed);
    is_slow.store(false, Ordering::Relaxed);
    speakers.into_iter().for_each(|speaker| drop(speaker.join().unwrap()));
    service.ok("POST", &format!("{CALL}/mark_ended"), "", &json!({}));
    create(&service, "b");
    eventually("somebody is let in", || {
        let mut socket = service.audio("default/b", "");
        socket.say(&json!({"token": token("alice")}));
        socket.next().unwrap()["type"] == "joined"
    });
}
