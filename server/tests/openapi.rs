//! `/openapi.json` is true: that answers are as it says, all tests check (`support/document.rs`).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};

mod support;

use support::bucket::{FakeBucket, in_order};
use support::{KEY, SECRET, Service, eventually, token};

const CALL: &str = "/api/v2/video/call/default/a";
/// What the document has, and no test here sees: operation, status, why. `*` is any.
const UNSEEN: [(&str, &str, &str); 3] = [
    ("*", "500", "a fault of the server's: failures.rs, telemetry.rs"),
    ("*", "503", "no room for a large body: a unit test of http.rs"),
    ("check_sqs", "200", "the program has no queues without the feature `sqs`"),
];

fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str));
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn anybody_reads_it_and_it_is_whole() {
    let service = Service::start();
    let (status, text, _) = service.fetch(&service.url("/openapi.json").replace(&format!("?api_key={KEY}"), ""), None);
    assert_eq!(status, 200);
    assert!(!text.contains(SECRET));
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 30, "{found:?}");
    for reference in found {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        assert!(jsonschema::meta::is_valid(schema), "{name}");
    }
    let mut ids = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{method} {path}: its id is another's");
            let parameters = operation["parameters"].as_array().unwrap();
            let whole = |one: &Value| {
                let reference = one["$ref"].as_str().map(|reference| reference.trim_start_matches('#'));
                reference.map_or(one.clone(), |pointer| document.pointer(pointer).unwrap().clone())
            };
            let parameters: Vec<_> = parameters.iter().map(whole).collect();
            let parts = parameters.iter().filter(|parameter| parameter["in"] == "path").count();
            assert_eq!(parts, path.matches('{').count(), "{method} {path}");
            for parameter in &parameters {
                let schema = parameter.get("schema").or(parameter.pointer("/content/application~1json/schema"));
                assert!(jsonschema::meta::is_valid(schema.unwrap()), "{method} {path}: {parameter}");
            }
            let body = &operation["requestBody"];
            let needed = body.pointer("/content/application~1json/schema/required");
            assert!(body.is_null() || body["required"] == needed.is_some(), "{method} {path}: {body}");
            assert!(!operation["summary"].as_str().unwrap().is_empty(), "{method} {path}");
        }
    }
}

#[test]
fn what_it_has_is_served_and_what_it_has_not_is_not() {
    let service = Service::start();
    let document = service.document();
    let offered = |method: &str, path: &str| {
        let (_, answer, _) = service.fetch_as(method, &service.url(path), None, &support::token(""));
        !answer.contains("is not offered here")
    };
    let mut count = 0;
    for (path, methods) in document.whole["paths"].as_object().unwrap() {
        let path = path.replace(['{', '}'], "");
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let is_documented = methods.get(method.to_lowercase()).is_some();
            // Where several templates fit, as with the call whose id is `members`.
            let is_documented = is_documented || document.operation(method, &path).is_some();
            assert_eq!(offered(method, &path), is_documented, "{method} {path}");
            count += usize::from(is_documented);
        }
    }
    assert!(count > 60, "{count}");
    assert!(!offered("GET", "/app") && !offered("GET", "/api/v2/healthz") && !offered("GET", "/openapi"));
}

#[test]
fn its_limits_are_those_that_the_server_keeps() {
    let service = Service::start();
    service.ok("POST", CALL, "", &json!({"data": {"created_by_id": "carol"}}));
    let document = service.document();
    let of_settings = |transcription: Value| json!({"settings_override": {"transcription": transcription}});
    let rules = |name: &str, ms: Value| of_settings(json!({"speech_segment_config": {name: ms}}));
    let caption = |text: String| json!({"speaker_id": "alice", "text": text});
    let hook = |ms: u32| json!({"event_hooks": [{"hook_type": "webhook", "enabled": false, "webhook_url": "https://hooks.invalid", "timeout_ms": ms}]});
    let patch = |body: Value| ("PATCH", CALL.to_string(), body);
    let captions = |body: Value| ("POST", format!("{CALL}/closed_captions"), body);
    service.ok("POST", &format!("{CALL}/start_closed_captions"), "", &json!({}));
    for ((method, path, body), is_allowed) in [
        (patch(rules("max_speech_caption_ms", json!(4999))), false),
        (patch(rules("max_speech_caption_ms", json!(5000))), true),
        (patch(rules("max_speech_caption_ms", json!(10_000))), true),
        (patch(rules("max_speech_caption_ms", json!(10_001))), false),
        (patch(rules("silence_duration_ms", json!(299))), false),
        (patch(rules("silence_duration_ms", json!(300))), true),
        (patch(rules("silence_duration_ms", json!(2000))), true),
        (patch(rules("silence_duration_ms", json!(2001))), false),
        (patch(rules("silence_duration_ms", json!("700"))), false),
        (patch(rules("silence_duration_ms", Value::Null)), true),
        (patch(of_settings(json!({"mode": "auto-on"}))), true),
        (patch(of_settings(json!({"closed_caption_mode": "on"}))), false),
        (patch(of_settings(json!({"language": "pt-BR"}))), true),
        (patch(of_settings(json!({"language": "auto"}))), true),
        (patch(of_settings(json!({"language": ""}))), false),
        (patch(of_settings(json!({"language": "xx"}))), false),
        (patch(of_settings(json!({"language": "auto-DE"}))), false),
        (patch(of_settings(json!({"language": "AUTO"}))), true),
        (patch(of_settings(json!({"language": "nb_NO"}))), true),
        (patch(of_settings(json!({"language": "Fil"}))), true),
        (patch(of_settings(json!({"translation": {"languages": ["en"]}}))), true),
        (patch(of_settings(json!({"translation": {"languages": ["fr"]}}))), false),
        (patch(json!({"settings_override": {"session": {"inactivity_timeout_seconds": 901}}})), false),
        (patch(json!({"settings_override": {"audio": {"mic_default_on": 1}}})), false),
        (patch(json!({"settings_override": {"of_others": 1}})), false),
        (patch(json!({"settings_override": {"of_others": {"x": 1}}})), true),
        (patch(json!({"starts_at": 5})), true),
        (patch(json!({"starts_at": true})), false),
        (patch(json!({"custom": []})), false),
        (captions(caption("x".repeat(16 * 1024))), true),
        (captions(caption("x".repeat(16 * 1024 + 1))), false),
        (captions(json!({"speaker_id": "alice"})), false),
        (captions(json!({"speaker_id": "a\u{7}", "text": "x"})), false),
        (("POST", "/api/v2/roles".into(), json!({"name": "a b"})), false),
        (("POST", "/api/v2/roles".into(), json!({"name": "a".repeat(64)})), true),
        (("POST", "/api/v2/users".into(), json!({"users": {}})), false),
        (("POST", "/api/v2/users".into(), json!({"users": {"u": {"teams": null}}})), true),
        (("POST", "/api/v2/users".into(), json!({"users": {"u": {"teams": [1]}}})), false),
        (("PATCH", "/api/v2/users".into(), json!({"users": [{"id": "u", "set": null}]})), false),
        (("PATCH", "/api/v2/app".into(), hook(99)), false),
        (("PATCH", "/api/v2/app".into(), hook(100)), true),
        (("PATCH", "/api/v2/app".into(), hook(0)), true),
        (("POST", "/api/v2/video/calls".into(), json!({"limit": 101})), false),
        (
            ("POST", "/api/v2/video/calls".into(), json!({"limit": 100, "sort": [{"field": "id", "direction": -1}]})),
            true,
        ),
        (("POST", "/api/v2/video/calls".into(), json!({"sort": [{"field": "id", "direction": 2}]})), false),
        (("POST", "/api/v2/video/call/members".into(), json!({"type": "default"})), false),
    ] {
        let (status, answer) = service.request(method, &path, "", &body);
        assert_eq!(
            status < 300,
            is_allowed,
            "{method} {path} {}: {answer}",
            &body.to_string()[..body.to_string().len().min(200)]
        );
        let (_, pointer) = document.operation(method, &path).unwrap();
        let errors = document.errors(&format!("{pointer}/requestBody/content/application~1json/schema"), &body);
        assert_eq!(errors.is_empty(), is_allowed, "{method} {path}: {errors:?}");
    }
}

/// A request as it stands, also with a body that a client's library would not send; its answer's status, head and body.
fn ask(service: &Service, (method, path): (&str, &str), headers: &[(&str, &str)], body: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(&service.addr).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    let closing = [("connection", "close")];
    let closing = if headers.iter().any(|(name, _)| *name == "connection") { &[][..] } else { &closing[..] };
    let headers: String = headers.iter().chain(closing).map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n{headers}");
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, answer) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{method} {path}: {answer}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let kind = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default();
    let document = service.document();
    if kind == "application/json" && method != "HEAD" {
        document.check(method, path, body, status, kind, &serde_json::from_str(answer).unwrap());
    } else {
        document.saw(method, path, status);
    }
    // Its headers are there: those of limits where requests are counted, which those from this machine without a token are not.
    let (operation, _) = document.operation(method, path).unwrap();
    let has_token = operation["description"].as_str().unwrap().starts_with("For the platform's server");
    let is_counted = status == 429 || (status < 300 && has_token);
    let documented = operation["responses"][status.to_string()]["headers"].as_object().unwrap();
    for name in documented.keys().map(|name| name.to_lowercase()) {
        let is_there = head.to_lowercase().contains(&format!("\r\n{name}: "));
        assert!(
            is_there || (name.starts_with("x-ratelimit-") && !is_counted),
            "{method} {path} {status}: no {name}: {head}"
        );
    }
    (status, head.to_string(), answer.to_string())
}

/// What is granted, in its order: the method, the path behind a family's prefix, the body.
fn granted(id: &str) -> Vec<(&'static str, String, Value)> {
    let call = |rest: &str| format!("/video/call/default/{id}{rest}");
    let of_type = |rest: &str| format!("/video/calltypes{rest}");
    let empty = || json!({});
    vec![
        ("POST", call(""), json!({"data": {"created_by_id": "carol"}})),
        ("GET", call(""), empty()),
        ("PATCH", call(""), json!({"custom": {"colour": "red"}})),
        ("POST", "/video/calls".into(), empty()),
        ("POST", "/video/call/members".into(), json!({"type": "default", "id": id})),
        ("POST", call("/members"), json!({"update_members": [{"user_id": "bob"}]})),
        ("POST", call("/user_permissions"), json!({"user_id": "bob", "grant_permissions": ["read-call"]})),
        ("POST", call("/start_transcription"), empty()),
        ("POST", call("/start_closed_captions"), empty()),
        ("POST", call("/closed_captions"), json!({"speaker_id": "bob", "text": "Good morning."})),
        ("GET", call("/closed_captions"), empty()),
        ("POST", call("/stop_closed_captions"), empty()),
        ("POST", call("/stop_transcription"), empty()),
        ("GET", call("/transcriptions"), empty()),
        ("POST", call("/rtp"), json!({"user_id": "bob", "payload_type": 0})),
        ("DELETE", call("/rtp/{port}"), empty()),
        ("DELETE", call("/{session}/transcriptions/{filename}"), empty()),
        ("POST", call("/mark_ended"), empty()),
        ("POST", call("/delete"), empty()),
        ("GET", of_type(""), empty()),
        ("POST", of_type(""), json!({"name": id})),
        ("GET", of_type(&format!("/{id}")), empty()),
        ("PUT", of_type(&format!("/{id}")), empty()),
        ("DELETE", of_type(&format!("/{id}")), empty()),
        ("POST", "/video/call_client_event".into(), empty()),
    ]
}

/// The same of what only servers' paths have.
fn granted_to_servers(bucket: &str) -> Vec<(&'static str, String, Value)> {
    let empty = || json!({});
    let storage = json!({"name": "s", "storage_type": "s3", "bucket": "b", "aws_s3": {
        "s3_region": "r", "s3_api_key": "k", "s3_secret": "s", "s3_custom_endpoint_url": bucket}});
    vec![
        ("POST", "/users".into(), json!({"users": {"bob": {"name": "Bob"}}})),
        ("PATCH", "/users".into(), json!({"users": [{"id": "bob", "set": {"name": "B"}}]})),
        ("GET", "/users".into(), empty()),
        ("GET", "/roles".into(), empty()),
        ("POST", "/roles".into(), json!({"name": "guide"})),
        ("GET", "/permissions".into(), empty()),
        ("GET", "/app".into(), empty()),
        ("PATCH", "/app".into(), empty()),
        ("GET", "/app/dead_letters".into(), empty()),
        ("GET", "/external_storage".into(), empty()),
        ("POST", "/external_storage".into(), storage.clone()),
        ("PUT", "/external_storage/s".into(), storage),
        ("GET", "/external_storage/s/check".into(), empty()),
        ("DELETE", "/external_storage/s".into(), empty()),
    ]
}

#[test]
fn each_status_that_it_has_is_answered() {
    let bucket = FakeBucket::answering(in_order);
    let service = Service::start_with(|config| config.hooks_to_private_addresses = true);
    let (server, alice) = (token(""), token("alice"));
    let by = |token: &'_ str| [("authorization", token.to_string())];
    let with_key = |path: &str| format!("{path}?api_key={KEY}");
    // What is granted; and the bodies with which it was, by the operation.
    let mut bodies: BTreeMap<String, String> = BTreeMap::new();
    let families = [("/api/v2", "servers"), ("", "browsers")];
    let steps = families.into_iter().flat_map(|(prefix, id)| granted(id).into_iter().map(move |step| (prefix, step)));
    let of_servers = granted_to_servers(&bucket.url).into_iter().map(|step| ("/api/v2", step));
    let mut names: BTreeMap<&str, String> = BTreeMap::new();
    for (prefix, (method, path, body)) in steps.chain(of_servers) {
        let path = names.iter().fold(path, |path, (name, value)| path.replace(&format!("{{{name}}}"), value));
        let (path, body) = (format!("{prefix}{path}"), body.to_string());
        let [(name, value)] = by(&server);
        let granted = || {
            let (status, _, answer) = ask(&service, (method, &with_key(&path)), &[(name, &value)], &body);
            assert!(status < 300, "{method} {path}: {status} {answer}");
            serde_json::from_str::<Value>(&answer).unwrap()
        };
        let mut answer = granted();
        if path.ends_with("/transcriptions") {
            eventually("the transcript is there", || {
                answer = granted();
                answer["transcriptions"][0].is_object()
            });
            let one = &answer["transcriptions"][0];
            let text = |name: &str| one[name].as_str().unwrap().to_string();
            names.extend([("session", text("session_id")), ("filename", text("filename"))]);
            let url = text("url");
            let path = url.split_once(&service.addr).unwrap().1;
            downloads(&service, path);
        }
        if let Some(port) = answer["port"].as_u64() {
            names.insert("port", port.to_string());
        }
        let (operation, _) = service.document().operation(method, &path).unwrap();
        bodies.insert(operation["operationId"].as_str().unwrap().into(), body);
    }
    for path in ["/healthz", "/readyz", "/openapi.json"] {
        assert_eq!(ask(&service, ("GET", path), &[], "").0, 200);
    }

    // What is not: in a type in which nobody may anything, and of what is not there.
    service.ok("POST", "/api/v2/video/calltypes", "", &json!({"name": "shut", "grants": {"user": []}}));
    service.ok("POST", "/api/v2/video/call/shut/a", "", &json!({"data": {"created_by_id": "carol"}}));
    let of_bob = json!({"user_id": "bob", "payload_type": 0});
    let port = service.ok("POST", "/api/v2/video/call/shut/a/rtp", "", &of_bob)["port"].to_string();
    let few = Service::start_with(|config| {
        (config.limits.server_requests_per_min, config.limits.address_requests_per_min) = (1, 1);
        config.limits.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    });
    let document = service.document().whole.clone();
    for (template, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            let method = method.to_uppercase();
            let has = |status: &str| operation["responses"].get(status).is_some();
            let is_socket = has("101");
            let path = |call_type: &str, rest: &str| {
                let path = template.replace("{type}", call_type).replace("{id}", "a").replace("{port}", &port);
                path.replace(['{', '}'], "").replace("/name", rest)
            };
            let body = bodies.get(id).map_or("{}", |body| body).replace("servers", "a").replace("browsers", "a");
            let body_in = |call_type: &str| body.replace("\"default\"", &format!("\"{call_type}\""));
            let tried = |(call_type, rest): (&str, &str), token: &str, body: &str| {
                ask(&service, (&method, &with_key(&path(call_type, rest))), &[("authorization", token)], body).0
            };
            if has("401") {
                let path = path("default", "/s");
                let upgrade = [
                    ("connection", "upgrade, close"),
                    ("upgrade", "websocket"),
                    ("sec-websocket-version", "13"),
                    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
                ];
                let socket = if is_socket { &upgrade[..] } else { &[] };
                assert_eq!(ask(&service, (&method, &format!("{path}?api_key=another")), socket, "").0, 401, "{id}");
                let from = [&[("x-forwarded-for", "203.0.113.7"), ("authorization", &server)], socket].concat();
                let key = if is_socket { "another" } else { KEY };
                let limited = || ask(&few, (&method, &format!("{path}?api_key={key}")), &from, "").0 == 429;
                assert!(limited() || limited(), "{id} is not limited");
            }
            if has("400") {
                // Nobody looks into a report.
                let body = if id.starts_with("call_client_event") { " ".repeat(65 * 1024) } else { "[".into() };
                tried(("default", "/s"), &server, &body);
            }
            if has("403") && has("401") {
                tried(("shut", "/s"), &alice, &body_in("shut").replace("bob", "alice"));
            }
            if has("404") && has("401") {
                let of_none = json!({"name": "t", "external_storage": "none"}).to_string();
                let body = body_in("none").replace("bob", "stranger");
                let body = if id.starts_with("create_call_type") { of_none } else { body };
                tried(("none", "/none"), &server, &body);
            }
        }
    }
    let from = [("x-forwarded-for", "203.0.113.7")];
    let limited = || ask(&few, ("GET", "/openapi.json"), &from, "").0 == 429;
    assert!(limited() || limited());
    service.watch("carol", "");
    service.document().saw("GET", "/video/connect", 101);
    service.ok("POST", CALL, "", &json!({"data": {"created_by_id": "carol"}}));
    service.join("default/a", "bob").leave();
    service.document().saw("GET", "/video/call/default/a/audio", 101);
    for path in ["/api/v2/video/connect", "/api/v2/video/call/default/a/audio"] {
        service.connect(path);
        service.document().saw("GET", path, 101);
    }
    // Somebody else has the database.
    let other = rusqlite::Connection::open(service.folder.path().join("cuewire.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(ask(&service, ("GET", "/readyz"), &[], "").0, 503);
    other.execute_batch("COMMIT").unwrap();

    let is_known = |(id, status): &(String, String)| {
        UNSEEN.iter().any(|(of, known, _)| (*of == "*" || id == of) && status == known && id != "readiness")
    };
    let unseen: Vec<_> = service.document().unseen().into_iter().filter(|one| !is_known(one)).collect();
    assert!(unseen.is_empty(), "the document has what nobody has seen: {unseen:#?}");
}

/// All that a file's URL comes to, before it is deleted and behind.
fn downloads(service: &Service, url: &str) {
    for method in ["GET", "HEAD"] {
        let tried = |url: &str, headers: &[(&str, &str)]| ask(service, (method, url), headers, "");
        let (status, head, _) = tried(url, &[]);
        assert_eq!(status, 200);
        let modified = head.lines().find_map(|line| line.strip_prefix("last-modified: ")).unwrap().to_string();
        for (name, value, expected) in [
            ("range", "bytes=0-3", 206),
            ("if-modified-since", &*modified, 304),
            ("if-unmodified-since", "Sat, 28 Nov 1998 00:00:00 GMT", 412),
            ("range", "bytes=100000-", 416),
        ] {
            assert_eq!(tried(url, &[(name, value)]).0, expected, "{method} {name}: {value}");
        }
        assert_eq!(tried(&url[..url.len() - 1], &[]).0, 403);
    }
    let path = url.split('?').next().unwrap();
    let parts: Vec<_> = path.split('/').collect();
    let file = service.folder.path().join("transcripts").join(parts[parts.len() - 1]);
    let aside = file.with_extension("aside");
    std::fs::rename(&file, &aside).unwrap();
    for method in ["GET", "HEAD"] {
        assert_eq!(ask(service, (method, url), &[], "").0, 404);
    }
    std::fs::rename(&aside, &file).unwrap();
}

#[test]
fn who_reads_it_is_counted_by_address_and_in_the_log() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let service = Service::start_with(|config| {
        config.limits.address_requests_per_min = 2;
        config.limits.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
        config.request_log = Some(log.path().into());
    });
    let read = |from: &str| ask(&service, ("GET", "/openapi.json"), &[("x-forwarded-for", from)], "").0;
    assert_eq!([read("203.0.113.7"), read("203.0.113.7"), read("203.0.113.7")], [200, 200, 429]);
    assert_eq!((read("203.0.113.8"), read("127.0.0.1")), (200, 200), "others, and this machine, are others");
    let lines = std::fs::read_to_string(log.path()).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_it: Vec<_> = lines.iter().filter(|line| line["address"] == "203.0.113.7").collect();
    assert_eq!(of_it.len(), 3, "{lines:#?}");
    assert!(of_it.iter().all(|line| line["operation"] == "openapi" && line["token"] == "none"), "{lines:#?}");
}
