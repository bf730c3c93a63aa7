//! `/openapi.json` is true: that answers are as it says, all tests check (`support/document.rs`).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use serde_json::{Value, json};

mod support;

use support::{KEY, SECRET, Service};

const CALL: &str = "/api/v2/video/call/default/a";

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
            let parts = parameters.iter().filter(|parameter| parameter["in"] == "path").count();
            assert_eq!(parts, path.matches('{').count(), "{method} {path}");
            for parameter in parameters {
                let schema = parameter.get("schema").or(parameter.pointer("/content/application~1json/schema"));
                assert!(jsonschema::meta::is_valid(schema.unwrap()), "{method} {path}: {parameter}");
            }
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
