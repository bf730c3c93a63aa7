//! Webhooks: what goes out, in which order, and what becomes of what does not get through.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::receiver::Receiver;
use support::{SECRET, Service, eventually, types, utterance};

fn service() -> Service {
    Service::start_with(|config| config.hooks_to_private_addresses = true)
}

fn set_hooks(service: &Service, hooks: Value) {
    service.ok("PATCH", "/api/v2/app", "", &json!({"event_hooks": hooks}));
}

fn hook(id: &str, receiver: &Receiver) -> Value {
    json!({"id": id, "hook_type": "webhook", "webhook_url": receiver.url, "enabled": true})
}

fn create(service: &Service, call: &str) {
    let body = json!({"data": {"created_by_id": "alice"}});
    service.ok("POST", &format!("/api/v2/video/call/default/{call}"), "", &body);
}

/// Changes a call: one event.
fn update(service: &Service, call: &str, n: usize) {
    service.ok("PATCH", &format!("/api/v2/video/call/default/{call}"), "", &json!({"custom": {"n": n}}));
}

/// The numbers of the changes that a hook was told of, each once, in the order of their first deliveries.
fn told(receiver: &Receiver, call: &str) -> Vec<u64> {
    let (mut ids, mut numbers) = (Vec::new(), Vec::new());
    for got in receiver.got().into_iter().filter(|got| got.what() == ("call.updated".into(), call.to_string())) {
        if !ids.contains(&got.id().to_string()) {
            ids.push(got.id().to_string());
            numbers.push(got.event()["call"]["custom"]["n"].as_u64().unwrap());
        }
    }
    numbers
}

#[test]
fn hooks_are_told_what_watchers_are_told_signed_and_with_times_as_servers_read_them() {
    let service = service();
    let (all, some, human) = (Receiver::start(), Receiver::start(), Receiver::start());
    let mut only = hook("some", &some);
    only["event_types"] = json!(["call.closed_caption"]);
    let mut text = hook("human", &human);
    text["rfc3339"] = json!(true);
    set_hooks(&service, json!([hook("all", &all), only, text]));
    create(&service, "c");
    let (mut watcher, connection) = service.watch("alice", "");
    service.ok("GET", &format!("/video/call/default/c?connection_id={connection}"), "alice", &json!({}));
    let start = json!({"enable_closed_captions": true});
    service.ok("POST", "/api/v2/video/call/default/c/start_transcription", "", &start);
    let mut alice = service.join("default/c", "alice");
    alice.speak(&utterance());
    alice.leave();
    let mut seen = watcher.until("call.session_participant_left");
    service.ok("POST", "/api/v2/video/call/default/c/mark_ended", "", &json!({}));
    seen.extend(watcher.until("call.transcription_ready"));
    eventually("the hook has everything", || all.types("c").last().is_some_and(|last| last.ends_with("_ready")));

    let got = all.got();
    assert!(got.iter().all(|got| got.is_signed(SECRET)));
    assert_eq!(all.types("c")[0], "call.created");
    assert_eq!(all.types("c")[1..], types(&seen)[..], "the same, in the same order");
    for (got, seen) in got[1..].iter().zip(&seen) {
        let mut of_servers = got.event();
        assert!(of_servers["created_at"].is_i64(), "{of_servers}");
        cuewire_server::api::render::for_browser(&mut of_servers);
        assert_eq!(of_servers, *seen);
    }
    eventually("the others too", || human.got().len() == got.len() && !some.got().is_empty());
    assert_eq!(some.types("c"), ["call.closed_caption"]);
    assert!(human.got()[0].event()["created_at"].is_string());
    assert!(human.got().iter().all(|got| got.is_signed(SECRET)));
    let mut ids: Vec<_> = got.iter().map(|got| got.id().to_string()).collect();
    assert!(human.got().iter().zip(&ids).all(|(got, id)| got.id() == id), "an event has one id, wherever it goes");
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), got.len());

    // Compressed, from here on.
    service.ok("PATCH", "/api/v2/app", "", &json!({"enable_hook_payload_compression": true}));
    create(&service, "d");
    eventually("it comes", || !all.types("d").is_empty());
    let last = all.got().pop().unwrap();
    assert_eq!(last.headers["content-encoding"], "gzip");
    assert!(last.is_signed(SECRET), "of the uncompressed body");
}

#[test]
fn what_a_hook_does_not_take_is_tried_again_in_order_and_holds_up_no_other_call_or_hook() {
    let service = service();
    let is_seen = Arc::new(AtomicBool::new(false));
    let bad = {
        let (is_seen, refused) = (is_seen.clone(), AtomicUsize::new(0));
        Receiver::answering(move |got| {
            // The first change of one call, twice and until it was seen that it holds up nothing.
            let is_first = got.event()["call"]["custom"]["n"] == 0 && got.what().1 == "bad";
            let is_refused = || refused.fetch_add(1, Ordering::Relaxed) < 2 || !is_seen.load(Ordering::Relaxed);
            if is_first && is_refused() { "500 No" } else { "200 OK" }
        })
    };
    // Redirects are failures.
    let moved = Receiver::answering(|_| "302 Found\r\nlocation: http://127.0.0.1:1/");
    let good = Receiver::start();
    set_hooks(&service, json!([hook("moved", &moved), hook("bad", &bad), hook("good", &good)]));
    for call in ["bad", "other"] {
        create(&service, call);
        (0..5).for_each(|n| update(&service, call, n));
    }
    let expected: Vec<u64> = (0..5).collect();
    eventually("a hook that works has all", || ["bad", "other"].iter().all(|call| told(&good, call) == expected));
    eventually("the other call too", || told(&bad, "other") == expected);
    eventually("what fails is tried, and nothing behind it", || told(&bad, "bad") == [0]);
    is_seen.store(true, Ordering::Relaxed);
    eventually("in the end", || told(&bad, "bad") == expected);
    let firsts: Vec<_> = bad.got().into_iter().filter(|got| got.what().1 == "bad").collect();
    let attempts: Vec<_> = firsts[1..4].iter().map(|got| got.headers["x-webhook-attempt"].clone()).collect();
    assert_eq!(attempts, ["1", "2", "3"]);
    assert_eq!(firsts[1].id(), firsts[3].id(), "each attempt has the event's id");
    let of_moved = moved.got().len();
    assert!((2..12).contains(&of_moved), "{of_moved} attempts: the first events of two calls, and not each at once");
}

#[test]
fn what_was_not_delivered_goes_out_from_the_next_server_and_what_is_too_old_is_a_dead_letter() {
    let mut service = service();
    let is_up = Arc::new(AtomicBool::new(false));
    let receiver = {
        let is_up = is_up.clone();
        Receiver::answering(move |_| if is_up.load(Ordering::Relaxed) { "204 No Content" } else { "503 Not now" })
    };
    set_hooks(&service, json!([hook("one", &receiver)]));
    create(&service, "c");
    // More than are held in memory.
    (0..60).for_each(|n| update(&service, "c", n));
    let letters = |service: &Service| service.ok("GET", "/api/v2/app/dead_letters", "", &json!({}));
    assert_eq!((&letters(&service)["waiting"], &letters(&service)["count"]), (&json!(61), &json!(0)));
    // Also one that begins while somebody else has the database.
    let path = service.folder.path().join("cuewire.db");
    let mut other = None;
    service.restart_with(|config| {
        config.hooks_to_private_addresses = true;
        let connection = rusqlite::Connection::open(path).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        other = Some(connection);
    });
    eventually("nothing can be written", || service.fetch(&service.url("/readyz"), None).0 == 503);
    is_up.store(true, Ordering::Relaxed);
    other.unwrap().execute_batch("COMMIT").unwrap();
    eventually("all of it", || told(&receiver, "c") == (0..60).collect::<Vec<_>>());
    eventually("which is written", || letters(&service)["waiting"] == 0);

    is_up.store(false, Ordering::Relaxed);
    service.restart_with(|config| (config.hooks_to_private_addresses, config.hook_max_age_s) = (true, 1));
    update(&service, "c", 60);
    eventually("it is given up", || letters(&service)["count"] == 1);
    let letter = letters(&service)["dead_letters"][0].clone();
    assert_eq!((&letter["hook_id"], &letter["error"]), (&json!("one"), &json!("status 503")));
    assert!(letter["attempts"].as_u64().unwrap() >= 2, "{letter}");
    assert_eq!(letter["event"]["call"]["custom"]["n"], 60);
    is_up.store(true, Ordering::Relaxed);
    update(&service, "c", 61);
    eventually("what comes behind it goes out", || told(&receiver, "c").last() == Some(&61));
}

#[test]
fn what_a_hook_that_hangs_is_not_told_in_time_is_given_up_without_an_attempt_each() {
    let hanging = Receiver::answering(|_| {
        std::thread::sleep(Duration::from_secs(2));
        "500 No"
    });
    let service = Service::start_with(|config| (config.hooks_to_private_addresses, config.hook_max_age_s) = (true, 1));
    set_hooks(&service, json!([hook("one", &hanging)]));
    create(&service, "c");
    // One call: each takes 2 s and more.
    (0..40).for_each(|n| update(&service, "c", n));
    let letters = || service.ok("GET", "/api/v2/app/dead_letters?limit=100", "", &json!({}));
    let began = Instant::now();
    while letters()["waiting"] != 0 {
        assert!(began.elapsed() < Duration::from_secs(25), "{} wait", letters()["waiting"]);
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(letters()["count"], 41, "each is counted, and once");
    let all = letters()["dead_letters"].as_array().unwrap().clone();
    let untried = all.iter().filter(|letter| letter["attempts"] == 0).count();
    assert!((30..41).contains(&untried), "{untried}");
}

#[test]
fn hooks_that_are_written_again_are_the_same_hooks() {
    let service = service();
    let (one, two) = (Receiver::answering(|_| "500 No"), Receiver::answering(|_| "500 No"));
    let plain = |receiver: &Receiver, types: &[&str]| json!({"hook_type": "webhook", "webhook_url": receiver.url, "event_types": types});
    let hooks = || service.ok("GET", "/api/v2/app", "", &json!({}))["app"]["event_hooks"].clone();
    let ids = || -> Vec<String> {
        hooks().as_array().unwrap().iter().map(|hook| hook["id"].as_str().unwrap().to_string()).collect()
    };
    set_hooks(&service, json!([plain(&one, &[]), plain(&two, &[]), plain(&one, &["call.ended"])]));
    create(&service, "c");
    let before = ids();
    set_hooks(&service, json!([plain(&two, &["call.created"]), plain(&one, &[]), plain(&one, &["call.ended"])]));
    assert_eq!(ids(), [&before[1], &before[0], &before[2]].map(String::clone), "by their URLs, in their order");
    let waiting = service.ok("GET", "/api/v2/app/dead_letters", "", &json!({}))["waiting"].clone();
    assert_eq!(waiting, 2, "what waits for them is not lost");
    set_hooks(&service, json!([plain(&two, &[])]));
    assert_eq!(ids(), [before[1].clone()]);
}

#[test]
fn a_hook_that_is_disabled_and_enabled_is_told_what_waits_in_its_order() {
    let service = service();
    let is_up = Arc::new(AtomicBool::new(false));
    let receiver = {
        let is_up = is_up.clone();
        Receiver::answering(move |_| if is_up.load(Ordering::Relaxed) { "200 OK" } else { "503 Not now" })
    };
    set_hooks(&service, json!([hook("one", &receiver)]));
    create(&service, "c");
    (0..5).for_each(|n| update(&service, "c", n));
    let mut off = hook("one", &receiver);
    off["enabled"] = json!(false);
    // Together, so that both may be in one commit.
    std::thread::scope(|scope| {
        scope.spawn(|| set_hooks(&service, json!([off])));
        std::thread::sleep(Duration::from_millis(1));
        scope.spawn(|| set_hooks(&service, json!([hook("one", &receiver)])));
    });
    is_up.store(true, Ordering::Relaxed);
    set_hooks(&service, json!([hook("one", &receiver)]));
    (5..10).for_each(|n| update(&service, "c", n));
    eventually("all, in order", || told(&receiver, "c") == (0..10).collect::<Vec<_>>());
}

#[test]
fn a_slow_hook_holds_up_neither_captions_nor_other_hooks() {
    let service = service();
    let may_go_on = Arc::new(AtomicBool::new(false));
    let waits = || {
        let may_go_on = may_go_on.clone();
        Receiver::answering(move |_| {
            while !may_go_on.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(10));
            }
            "200 OK"
        })
    };
    let (slow, too_slow, quick) = (waits(), waits(), Receiver::start());
    let mut hooks = vec![hook("slow", &slow), hook("too-slow", &too_slow), hook("quick", &quick)];
    (hooks[0]["timeout_ms"], hooks[1]["timeout_ms"]) = (json!(30_000), json!(100));
    set_hooks(&service, json!(hooks));
    create(&service, "c");
    let (mut watcher, connection) = service.watch("alice", "");
    service.ok("GET", &format!("/video/call/default/c?connection_id={connection}"), "alice", &json!({}));
    service.ok("POST", "/api/v2/video/call/default/c/start_closed_captions", "", &json!({}));
    let mut alice = service.join("default/c", "alice");
    for _ in 0..3 {
        alice.speak(&utterance());
        watcher.until("call.closed_caption");
    }
    eventually("the quick one has it", || {
        quick.types("c").iter().filter(|of| *of == "call.closed_caption").count() == 3
    });
    assert_eq!(slow.types("c"), ["call.created"], "all of it while the slow one has not answered the first");
    eventually("what takes too long is tried again", || too_slow.got().len() >= 2);
    assert!(too_slow.got().iter().all(|got| got.what().0 == "call.created"), "it was not taken");
    may_go_on.store(true, Ordering::Relaxed);
    eventually("then it is told the rest", || slow.types("c") == quick.types("c"));
}

#[test]
fn what_leads_to_this_network_is_refused_when_it_is_set_and_when_its_name_is_resolved() {
    let service = Service::start();
    let receiver = Receiver::start();
    let port = receiver.url.rsplit(':').next().unwrap().to_string();
    for url in
        ["http://127.0.0.1:1/", "http://169.254.169.254/latest/meta-data", "http://[::1]/", "ftp://example.org/x"]
    {
        let hook = json!([{"hook_type": "webhook", "webhook_url": url}]);
        let (code, why) = service.refused("PATCH", "/api/v2/app", "", &json!({"event_hooks": hook}));
        assert_eq!(code, 4, "{url} {why}");
        let (code, _) = service.refused("PATCH", "/api/v2/app", "", &json!({"webhook_url": url}));
        assert_eq!(code, 4, "{url}");
    }
    // A name may lead anywhere.
    set_hooks(
        &service,
        json!([{"id": "n", "hook_type": "webhook", "webhook_url": format!("http://localhost:{port}")}]),
    );
    create(&service, "c");
    eventually("it is tried", || {
        let letters = service.ok("GET", "/api/v2/app/dead_letters", "", &json!({}));
        letters["waiting"] == 1
    });
    std::thread::sleep(Duration::from_millis(1500));
    assert!(receiver.got().is_empty(), "nothing reaches it");
}

#[test]
fn the_apps_settings_are_kept_and_given_back_without_secrets() {
    let service = service();
    let receiver = Receiver::start();
    let app = || service.ok("GET", "/api/v2/app", "", &json!({}))["app"].clone();
    assert_eq!((&app()["webhook_url"], &app()["event_hooks"]), (&json!(""), &json!([])));
    let plain = json!({
        "webhook_url": receiver.url, "webhook_events": ["call.created"], "name": "ours", "sqs_secret": "s", "sns_secret": "s",
        "reminders_interval": "a text", "unknown": 1,
    });
    service.ok("PATCH", "/api/v2/app", "", &plain);
    let now = app();
    assert_eq!((&now["webhook_url"], &now["webhook_events"]), (&json!(receiver.url), &json!(["call.created"])));
    assert_eq!((&now["name"], &now["reminders_interval"], &now["sns_secret"]), (&json!("ours"), &json!(0), &json!("")));
    set_hooks(&service, json!([hook("one", &receiver)]));
    create(&service, "c");
    eventually("both hooks are told", || receiver.types("c") == ["call.created", "call.created"]);
    update(&service, "c", 0);
    eventually("one of them of this", || receiver.types("c").last().unwrap() == "call.updated");
    // What is left out stays; and an empty URL is no hook.
    service.ok("PATCH", "/api/v2/app", "", &json!({"webhook_url": ""}));
    assert_eq!((&app()["webhook_url"], app()["event_hooks"].as_array().unwrap().len()), (&json!(""), 1));
    // The filter waits for a URL, and is the next one's.
    assert_eq!(app()["webhook_events"], json!(["call.created"]));
    service.ok("PATCH", "/api/v2/app", "", &json!({"webhook_events": ["call.ended"]}));
    assert_eq!(app()["webhook_events"], json!(["call.ended"]));
    service.ok("PATCH", "/api/v2/app", "", &json!({"webhook_url": receiver.url}));
    let now = app();
    assert_eq!((&now["webhook_url"], &now["webhook_events"]), (&json!(receiver.url), &json!(["call.ended"])));
    service.ok("PATCH", "/api/v2/app", "", &json!({"webhook_url": ""}));
    assert_eq!(app()["event_hooks"][0]["id"], "one");
    let made = app()["event_hooks"][0]["created_at"].clone();
    set_hooks(&service, json!([hook("one", &receiver)]));
    assert_eq!((&app()["event_hooks"][0]["created_at"], &app()["event_hooks"][0]["updated_at"]), (&made, &made));
    for (hooks, what) in [
        (json!([{"hook_type": "webhook"}]), "webhook_url is missing"),
        (json!([{"hook_type": "sns"}]), "allowed are webhook, sqs"),
        (json!([{"hook_type": "webhook", "webhook_url": receiver.url, "timeout_ms": 1}]), "timeout_ms"),
        (json!([hook("one", &receiver), hook("one", &receiver)]), "twice"),
        (json!((0..21).map(|i| hook(&i.to_string(), &receiver)).collect::<Vec<_>>()), "21 hooks"),
        (json!({"a": 1}), "a list"),
    ] {
        let (code, why) = service.refused("PATCH", "/api/v2/app", "", &json!({"event_hooks": hooks}));
        assert!(code == 4 && why.contains(what), "{why}");
    }
    assert_eq!(app()["event_hooks"].as_array().unwrap().len(), 1, "and nothing has changed");
    let (code, _) = service.refused("GET", "/api/v2/app", "alice", &json!({}));
    assert_eq!(code, 17);
}
