//! What is asked for and refused, and who sees what.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use serde_json::{Value, json};

mod support;

use support::{Service, check_error, eventually, token, token_for};

const CALL: &str = "/api/v2/video/call/default/a";

fn create(service: &Service, user: &str) -> Value {
    service.ok("POST", CALL, "", &json!({"data": {"created_by_id": user}}))
}

#[test]
fn what_was_said_in_a_call_that_was_deleted_is_not_the_next_ones() {
    let service = Service::start();
    create(&service, "carol");
    service.ok("POST", &format!("{CALL}/start_transcription"), "", &json!({}));
    service.ok("POST", &format!("{CALL}/stop_transcription"), "", &json!({}));
    let list = || service.ok("GET", &format!("{CALL}/transcriptions"), "", &json!({}))["transcriptions"].clone();
    eventually("the transcript is written", || list() != json!([]));
    let old = list()[0].clone();
    service.ok("POST", &format!("{CALL}/delete"), "", &json!({}));
    create(&service, "mallory");
    let theirs = service.ok("GET", &format!("{CALL}/transcriptions"), "mallory", &json!({}));
    assert_eq!(theirs["transcriptions"], json!([]));
    service.ok("POST", &format!("{CALL}/delete"), "", &json!({}));
    // Without a call too.
    let (session, file) = (old["session_id"].as_str().unwrap(), old["filename"].as_str().unwrap());
    service.ok("DELETE", &format!("{CALL}/{session}/transcriptions/{file}"), "", &json!({}));
    assert!(!service.folder.path().join("transcripts").join(file).exists());
}

#[test]
fn an_old_connection_is_refused_only_where_a_request_would_watch() {
    let service = Service::start();
    create(&service, "carol");
    let ask = |method: &str, path: &str, body: Value| {
        service.request(method, &format!("{path}?connection_id=gone"), "carol", &body)
    };
    for (method, path, body, status) in [
        ("POST", "/video/calls", json!({}), 201),
        ("POST", "/video/calls", json!({"watch": false}), 201),
        ("POST", "/video/calls", json!({"watch": true}), 400),
        ("GET", "/video/call/default/a", json!({}), 400),
        ("POST", "/video/call/default/a", json!({}), 400),
        ("POST", "/video/call/members", json!({"type": "default", "id": "a"}), 201),
    ] {
        let (got, answer) = ask(method, path, body.clone());
        assert_eq!(got / 100, status / 100, "{method} {path} {body}: {answer}");
        assert!(got < 400 || answer["code"] == 46, "{answer}");
    }
}

#[test]
fn reports_are_anonymous_or_signed() {
    let service = Service::start();
    let send = |query: &str, token: Option<String>| {
        let url = service.url(&format!("/video/call_client_event?{query}"));
        let mut request = ureq::http::Request::builder().method("POST").uri(url);
        if let Some(token) = token {
            request = request.header("Authorization", token);
        }
        service.send(request, Some("{}"))
    };
    assert_eq!(send("stream-auth-type=anonymous", None).0, 201);
    assert_eq!(send("", Some(token("carol"))).0, 201);
    for (token, code) in [(None, 5), (Some(token_for("carol", -5)), 40)] {
        let (status, answer) = send("", token);
        check_error(status, &answer);
        assert_eq!((status, &answer["code"]), (401, &json!(code)));
    }
}

#[test]
fn whatever_makes_no_sense_is_a_400_that_says_so() {
    let service = Service::start();
    create(&service, "carol");
    let many: Vec<_> = (0..1001).map(|_| json!({"id": null})).collect();
    let empty = vec![json!({}); 1001];
    let deep = (0..20).fold(json!({"id": "a"}), |inner, _| json!({"$or": [inner]}));
    let member = |id: &str| json!({"update_members": [{"user_id": id}]});
    for (method, path, body, part) in [
        ("POST", "/api/v2/video/calls", json!({"filter_conditions": {"$or": many}}), "100 conditions"),
        ("POST", "/api/v2/video/calls", json!({"filter_conditions": {"$or": empty}}), "100 conditions"),
        ("POST", &format!("{CALL}/mark_ended"), json!({"user_id": ""}), "user's id"),
        ("POST", "/api/v2/video/calls", json!({"filter_conditions": deep}), "deeper"),
        ("POST", "/api/v2/video/calls", json!({"next": "p4294967295"}), "not from here"),
        ("PATCH", CALL, json!({"settings_override": {"audio": 5}}), "settings.audio is 5"),
        ("PATCH", CALL, json!({"settings_override": {"video": {"enabled": "yes"}}}), "settings.video.enabled"),
        ("POST", &format!("{CALL}/members"), member(""), "user's id"),
        ("POST", &format!("{CALL}/members"), member(&"x".repeat(256)), "user's id"),
        ("POST", "/api/v2/video/call/default/b", json!({"data": {"created_by_id": ""}}), "user's id"),
        (
            "POST",
            "/api/v2/video/call/members",
            json!({"type": "default", "id": "a", "sort": [{"field": "user_id", "direction": 7}]}),
            "direction",
        ),
    ] {
        let (code, why) = service.refused(method, path, "", &body);
        assert!(code == 4 && why.contains(part), "{part}: {why}");
    }
    assert_eq!(service.refused("GET", CALL, &"x".repeat(256), &json!({})).0, 5, "a token of such a user");
    let call = service.ok("GET", CALL, "", &json!({}));
    assert!(call["call"]["settings"]["audio"].is_object());
}

#[test]
fn roles_and_permissions_are_listed() {
    let service = Service::start();
    let made = service.ok("POST", "/api/v2/roles", "", &json!({"name": "captioner"}));
    assert_eq!((&made["role"]["name"], &made["role"]["custom"]), (&json!("captioner"), &json!(true)));
    for name in ["captioner", "admin", "../x", ""] {
        assert_eq!(service.refused("POST", "/api/v2/roles", "", &json!({"name": name})).0, 4, "{name}");
    }
    let roles = service.ok("GET", "/api/v2/roles", "", &json!({}))["roles"].clone();
    assert_eq!(roles.as_array().unwrap().len(), 7);
    let permissions = service.ok("GET", "/api/v2/permissions", "", &json!({}))["permissions"].clone();
    let is_one = |one: &Value| one["id"] == "start-transcription-call" && one["action"] == "StartTranscription";
    assert!(permissions.as_array().unwrap().iter().any(is_one));
}

#[test]
fn a_user_token_may_not_what_is_the_servers() {
    let service = Service::start();
    create(&service, "carol");
    let admin = json!({"users": {"carol": {"id": "carol", "role": "admin"}}});
    service.ok("POST", "/api/v2/users", "", &admin);
    for (method, path) in [
        ("POST", "/api/v2/users"),
        ("PATCH", "/api/v2/users"),
        ("GET", "/api/v2/users"),
        ("GET", "/api/v2/roles"),
        ("POST", "/api/v2/roles"),
        ("GET", "/api/v2/permissions"),
        ("GET", "/api/v2/video/calltypes"),
        ("PUT", "/api/v2/video/calltypes/default"),
        ("DELETE", "/api/v2/video/calltypes/default"),
        ("POST", "/api/v2/video/call/default/a/delete"),
        ("DELETE", "/api/v2/video/call/default/a/session/transcriptions/file"),
    ] {
        assert_eq!(service.refused(method, path, "carol", &admin).0, 17, "{method} {path}");
    }
}
