//! Who asks for what is not theirs: every operation with every way not to be who one says, and what else is tried at an edge.
//! Each is refused with its code, nothing has changed behind it, and no secret is in an answer. Bodies without an end are in
//! `tests/penetration_bodies.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cuewire_server::now;
use cuewire_server::storage::Local;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::{Sha256, Sha384, Sha512};
use tungstenite::client::IntoClientRequest as _;

mod places;
mod rights;
#[path = "../support/mod.rs"]
mod support;
mod tokens;
mod wire;

use support::receiver::Receiver;
use support::{KEY, SECRET, Service, Socket, check_error, eventually, token, token_for};

use tokens::{signed, strangers, tokens};

const C: &str = "/video/call/locked/a";
/// In no answer.
const STORED_SECRET: &str = "very secret";
const ORIGIN: &str = "https://app.example.org";

/// An operation, and how it would be asked for.
struct Attacked {
    /// Of `enum Operation`.
    operation: &'static str,
    method: &'static str,
    path: String,
    body: Value,
    needs: Needs,
}

#[derive(Clone, Copy, PartialEq)]
enum Needs {
    /// A server's token.
    Server,
    /// A capability in the call.
    Grant,
    /// Nothing: what one may not see is not there.
    Sight,
    /// Nothing.
    Key,
    /// A WebSocket.
    Socket,
}

/// Every operation, at a call of alice's.
fn operations(session: &str, file: &str, port: &str) -> Vec<Attacked> {
    use Needs::{Grant, Key, Server, Sight, Socket};
    let of_call = |verb: &str| format!("{C}/{verb}");
    let (call_type, storage) = ("/video/calltypes/locked", "/external_storage/archive");
    let s3 = json!({"bucket": "b", "storage_type": "s3", "aws_s3": {"s3_region": "r"}});
    let mut named = s3.clone();
    named["name"] = json!("another");
    let rows: Vec<(&str, &str, String, Value, Needs)> = vec![
        ("UpdateUsers", "POST", "/users".into(), json!({"users": {"eve": {"id": "eve", "role": "admin"}}}), Server),
        (
            "UpdateUsersPartial",
            "PATCH",
            "/users".into(),
            json!({"users": [{"id": "alice", "set": {"role": "guest"}}]}),
            Server,
        ),
        ("QueryUsers", "GET", "/users".into(), json!({}), Server),
        ("GetOrCreateCall", "POST", C.into(), json!({}), Grant),
        ("GetCall", "GET", C.into(), json!({}), Grant),
        ("UpdateCall", "PATCH", C.into(), json!({"custom": {"x": 1}}), Grant),
        ("DeleteCall", "POST", of_call("delete"), json!({}), Server),
        ("MarkEnded", "POST", of_call("mark_ended"), json!({"user_id": "alice"}), Grant),
        ("QueryCalls", "POST", "/video/calls".into(), json!({"filter_conditions": {"cid": "locked:a"}}), Sight),
        ("QueryMembers", "POST", "/video/call/members".into(), json!({"type": "locked", "id": "a"}), Grant),
        (
            "UpdateMembers",
            "POST",
            of_call("members"),
            json!({"update_members": [{"user_id": "eve", "role": "admin"}, {"user_id": "new"}]}),
            Grant,
        ),
        (
            "UpdateUserPermissions",
            "POST",
            of_call("user_permissions"),
            json!({"user_id": "eve", "grant_permissions": ["end-call"]}),
            Grant,
        ),
        ("StartTranscription", "POST", of_call("start_transcription"), json!({}), Grant),
        ("StopTranscription", "POST", of_call("stop_transcription"), json!({}), Grant),
        ("StartClosedCaptions", "POST", of_call("start_closed_captions"), json!({}), Grant),
        ("StopClosedCaptions", "POST", of_call("stop_closed_captions"), json!({}), Grant),
        (
            "SendClosedCaption",
            "POST",
            of_call("closed_captions"),
            json!({"speaker_id": "alice", "text": "never said", "user_id": "alice"}),
            Grant,
        ),
        ("ListClosedCaptions", "GET", of_call("closed_captions"), json!({}), Grant),
        ("ListTranscriptions", "GET", of_call("transcriptions"), json!({}), Grant),
        ("DeleteTranscription", "DELETE", of_call(&format!("{session}/transcriptions/{file}")), json!({}), Server),
        ("ListCallTypes", "GET", "/video/calltypes".into(), json!({}), Server),
        ("CreateCallType", "POST", "/video/calltypes".into(), json!({"name": "mine"}), Server),
        ("GetCallType", "GET", call_type.into(), json!({}), Server),
        ("UpdateCallType", "PUT", call_type.into(), json!({"grants": {"user": ["end-call"]}}), Server),
        ("DeleteCallType", "DELETE", "/video/calltypes/livestream".into(), json!({}), Server),
        ("ListRoles", "GET", "/roles".into(), json!({}), Server),
        ("CreateRole", "POST", "/roles".into(), json!({"name": "mine"}), Server),
        ("ListPermissions", "GET", "/permissions".into(), json!({}), Server),
        ("GetApp", "GET", "/app".into(), json!({}), Server),
        ("UpdateApp", "PATCH", "/app".into(), json!({"webhook_url": "https://eve.example.org/"}), Server),
        ("ListDeadLetters", "GET", "/app/dead_letters".into(), json!({}), Server),
        ("CheckSqs", "POST", "/check_sqs".into(), json!({"sqs_url": "https://eve.example.org/"}), Server),
        ("ListStorages", "GET", "/external_storage".into(), json!({}), Server),
        ("CreateStorage", "POST", "/external_storage".into(), named, Server),
        ("UpdateStorage", "PUT", storage.into(), s3, Server),
        ("DeleteStorage", "DELETE", storage.into(), json!({}), Server),
        ("CheckStorage", "GET", format!("{storage}/check"), json!({}), Server),
        ("CallClientEvent", "POST", "/video/call_client_event".into(), json!({}), Key),
        ("Connect", "GET", "/video/connect".into(), json!({}), Socket),
        ("Audio", "GET", of_call("audio"), json!({}), Socket),
        ("OpenRtp", "POST", of_call("rtp"), json!({"payload_type": 0}), Grant),
        ("CloseRtp", "DELETE", of_call(&format!("rtp/{port}")), json!({}), Grant),
    ];
    let row = |(operation, method, path, body, needs)| Attacked { operation, method, path, body, needs };
    rows.into_iter().map(row).collect()
}

/// Of both families, where the browser's has it.
fn families(path: &str) -> Vec<String> {
    let servers = format!("/api/v2{path}");
    if path.starts_with("/video") { vec![servers, path.to_string()] } else { vec![servers] }
}

/// All rows of all tables.
fn contents(service: &Service) -> BTreeMap<String, Vec<String>> {
    let database = rusqlite::Connection::open(service.folder.path().join("cuewire.db")).unwrap();
    let mut names = database.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").unwrap();
    let names: Vec<String> = names.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let rows = |name: &String| {
        let mut rows = database.prepare(&format!("SELECT * FROM {name}")).unwrap();
        let width = rows.column_count();
        let text = |value: rusqlite::types::ValueRef<'_>| match value {
            rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            other => format!("{other:?}"),
        };
        let row = |row: &rusqlite::Row<'_>| {
            Ok((0..width).map(|i| text(row.get_ref(i).unwrap())).collect::<Vec<_>>().join(" | "))
        };
        rows.query_map([], row).unwrap().map(Result::unwrap).collect()
    };
    // The same row is written again and again.
    names.iter().filter(|name| *name != "probe").map(|name| (name.clone(), rows(name))).collect()
}

/// Alice's call, in which nobody else may do anything, with a transcript: its session and its file.
fn world(service: &Service) -> (String, String) {
    let all: Vec<_> = cuewire_server::call::grants::Capability::ALL.map(|one| one.as_str()).into();
    let grants = json!({"user": [], "guest": [], "call_member": [], "host": all, "admin": all, "speaker": all});
    service.ok("POST", "/api/v2/video/calltypes", "", &json!({"name": "locked", "grants": grants}));
    let user = |id: &str, role: &str| json!({"id": id, "role": role});
    let users = json!({"alice": user("alice", "user"), "eve": user("eve", "user"), "guest": user("guest", "guest")});
    service.ok("POST", "/api/v2/users", "", &json!({"users": users}));
    for call in ["a", "b"] {
        let body = json!({"data": {"created_by_id": "alice", "members": [{"user_id": "alice", "role": "speaker"}]}});
        service.ok("POST", &format!("/api/v2/video/call/locked/{call}"), "", &body);
    }
    let storage = json!({"name": "archive", "bucket": "captions", "storage_type": "s3", "aws_s3": {
        "s3_region": "eu-west-1", "s3_api_key": "AKIAXXXX", "s3_secret": STORED_SECRET,
        "s3_custom_endpoint_url": "https://storage.invalid"}});
    service.ok("POST", "/api/v2/external_storage", "", &storage);
    let call = format!("/api/v2{C}");
    service.ok("POST", &format!("{call}/start_transcription"), "", &json!({}));
    service.ok("POST", &format!("{call}/stop_transcription"), "", &json!({}));
    let list = || service.ok("GET", &format!("{call}/transcriptions"), "", &json!({}))["transcriptions"].clone();
    eventually("there is a transcript", || list()[0].is_object());
    let field = |name: &str| list()[0][name].as_str().unwrap().to_string();
    (field("session_id"), field("filename"))
}

/// A request with these headers, whatever is in them; checked to be no fault of the server's, and to give away nothing.
fn ask(service: &Service, method: &str, url: &str, headers: &[(&str, &[u8])], body: &[u8]) -> (u16, Value) {
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, ureq::http::HeaderValue::from_bytes(value).unwrap());
    }
    let (status, answer) = service.send_bytes(request, body);
    if status >= 400 {
        check_error(status, &answer);
    }
    check_harmless(&format!("{method} {url}: {status}"), &answer.to_string());
    assert!(status < 500, "{method} {url}: {status} {answer}");
    (status, answer)
}

fn check_harmless(what: &str, answer: &str) {
    for secret in [SECRET, STORED_SECRET, "AKIAXXXX", "panicked", "SELECT ", "sqlite"] {
        assert!(!answer.contains(secret), "{what}: `{secret}` is in {answer}");
    }
}

fn refused_as(what: &str, answer: &(u16, Value), status: u16, code: i64) {
    assert_eq!((answer.0, &answer.1["code"]), (status, &json!(code)), "{what}: {}", answer.1);
}

/// Names of operations in the lines of the log behind these.
fn logged(log: &Path, behind: usize) -> BTreeSet<String> {
    let text = std::fs::read_to_string(log).unwrap();
    let name = |line: &str| {
        assert!(!line.contains(SECRET) && !line.contains("eyJ"), "{line}");
        serde_json::from_str::<Value>(line).unwrap()["operation"].as_str().unwrap().to_string()
    };
    text.lines().skip(behind).map(name).collect()
}

/// What the server's table has, but for what is for anybody: the rows are `Name "name" METHOD "path" Asker 200`.
fn variants() -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api/route.rs");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, rows) = text.split_once("\noperations! {").expect("there is a table of operations");
    let rows = rows.split_once("\n}").unwrap().0.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
    let rows = rows.filter(|row| matches!(row[..], [_, _, _, _, "Server" | "Caller" | "KeyHolder" | "Reporter", _]));
    rows.map(|row| row[0].to_string()).collect()
}

#[test]
fn every_operation_is_in_the_list() {
    let listed: Vec<_> = operations("s", "f", "1").iter().map(|row| row.operation.to_string()).collect();
    let all = variants();
    assert!(all.len() >= 40, "{all:?}");
    let missing: Vec<_> = all.iter().filter(|name| !listed.contains(name)).collect();
    assert!(missing.is_empty(), "nobody attacks {missing:?}: add them to the list above");
    assert_eq!(listed.len(), all.len(), "each once, and none that is gone: {listed:?}");
}

#[test]
fn every_operation_refuses_every_way_not_to_be_who_one_says() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let service = Service::start_with(|config| config.request_log = Some(log.path().into()));
    let (session, file) = world(&service);
    let alices = json!({"user_id": "alice", "payload_type": 0});
    let port = service.ok("POST", &format!("/api/v2{C}/rtp"), "", &alices)["port"].to_string();
    let (tokens, strangers) = (tokens(), strangers());
    let before = contents(&service);
    let mut names: BTreeMap<String, &str> = BTreeMap::new();
    for row in operations(&session, &file, &port) {
        let lines = std::fs::read_to_string(log.path()).unwrap().lines().count();
        let is_socket = row.needs == Needs::Socket;
        for path in families(&row.path) {
            let url = service.url(&path);
            let body = if row.method == "GET" { String::new() } else { row.body.to_string() };
            let ask_with =
                |url: &str, headers: &[(&str, &[u8])]| ask(&service, row.method, url, headers, body.as_bytes());
            let what = |how: &str| format!("{} {path}, {how}", row.method);
            // Without a WebSocket's handshake nobody looks at who it is.
            let expected = |status: u16, code: i64| if is_socket { (400, 4) } else { (status, code) };
            let refuse = |how: &str, answer: (u16, Value), (status, code): (u16, i64)| {
                refused_as(&what(how), &answer, status, code);
            };
            let (alice, server) = (token("alice"), token(""));

            // Whose server.
            for key in
                ["", "?api_key=", "?api_key=KEY", "?api_key=key%00", "?api_key=keykey", "?api_key=ke", "?api-key=key"]
            {
                let url = format!("{}{key}", url.split('?').next().unwrap());
                refuse(key, ask_with(&url, &[("Authorization", server.as_bytes())]), expected(401, 2));
            }
            // Who.
            for (how, token, code) in &tokens {
                let mut headers = vec![("Authorization", token.as_bytes())];
                refuse(how, ask_with(&url, &headers), expected(401, *code));
                headers.push(("stream-auth-type", b"jwt"));
                if *code == 5 && row.needs != Needs::Key {
                    headers[1].1 = b"anonymous";
                    refuse(how, ask_with(&url, &headers), expected(401, 5));
                }
            }
            refuse("no header", ask_with(&url, &[]), expected(401, 5));
            let head = format!(
                "{} {path}?api_key={KEY} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: ",
                row.method
            );
            let bytes = raw(&service, &[head.as_bytes(), b"\xff\xfe.\xff.\xff\r\n\r\n"].concat());
            let (status, code) = expected(401, 5);
            assert_eq!(code_of(&bytes), (status, Some(code)), "{}", what("bytes"));
            if row.needs != Needs::Key {
                refuse("nobody", ask_with(&format!("{url}&stream-auth-type=anonymous"), &[]), expected(401, 5));
                let by_query = format!("{url}&authorization={server}&token={server}");
                refuse("a token elsewhere", ask_with(&by_query, &[("Cookie", server.as_bytes())]), expected(401, 5));
            }
            for user_id in ["eve", "", "ALICE", "alice%00", "alice%20", "alice&user_id=eve"] {
                let answer = ask_with(&format!("{url}&user_id={user_id}"), &[("Authorization", alice.as_bytes())]);
                refuse(&format!("as {user_id}"), answer, expected(401, 5));
            }
            // What they may.
            let may = |how: &str, token: &str| {
                let answer = ask_with(&url, &[("Authorization", token.as_bytes())]);
                match row.needs {
                    Needs::Server | Needs::Grant => refuse(how, answer, (403, 17)),
                    Needs::Sight => assert_eq!((answer.0, &answer.1["calls"]), (200, &json!([])), "{}", what(how)),
                    Needs::Key => assert_eq!(answer.0, 201, "{}", what(how)),
                    Needs::Socket => refuse(how, answer, (400, 4)),
                }
            };
            for (how, token) in &strangers {
                may(how, token);
            }
            if row.needs == Needs::Server {
                may("the call's host", &alice);
                may(
                    "a role by a token",
                    &signed(&json!({"user_id": "alice", "role": "admin", "call_cids": ["locked:a"]})),
                );
            }
        }
        assert_eq!(contents(&service), before, "{} has changed something", row.operation);
        let log: Vec<_> = logged(log.path(), lines).into_iter().collect();
        assert_eq!(log.len(), 1, "{}: {log:?}", row.operation);
        assert_ne!(log[0], "unknown", "{}", row.operation);
        if let Some(other) = names.insert(log[0].clone(), row.operation) {
            panic!("{} and {other} are the same: {}", row.operation, log[0]);
        }
    }
    // Who is who they say is not refused.
    let call = service.ok("GET", C, "alice", &json!({}));
    assert_eq!(call["call"]["cid"], "locked:a");
    let speaker = signed(&json!({"user_id": "eve", "role": "speaker", "call_cids": ["locked:a"]}));
    assert_eq!(ask(&service, "GET", &service.url(C), &[("Authorization", speaker.as_bytes())], b"").0, 200);
}

/// A WebSocket, with a token in the handshake's header or none.
fn connect(service: &Service, path: &str, authorization: Option<&str>) -> Socket {
    let stream = TcpStream::connect(address(service)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut request = service.url(path).replace("http://", "ws://").into_client_request().unwrap();
    if let Some(token) = authorization {
        request.headers_mut().insert("Authorization", token.parse().unwrap());
    }
    Socket(tungstenite::client(request, stream).unwrap().0)
}

fn address(service: &Service) -> String {
    service.url("/").trim_start_matches("http://").split('/').next().unwrap().to_string()
}

/// The refusal of a socket, and its close code.
fn refusal(mut socket: Socket, what: &str) -> (u16, Value) {
    let error = socket.next().unwrap_or_else(|code| panic!("{what}: closed with {code}"));
    assert_eq!((&error["type"], error.get("code")), (&json!("connection.error"), None), "{what}: {error}");
    check_harmless(what, &error.to_string());
    let error = error["error"].clone();
    let status = u16::try_from(error["StatusCode"].as_u64().unwrap()).unwrap();
    check_error(status, &error);
    assert_eq!(socket.close_code(), 4000 + status, "{what}");
    (status, error)
}

#[test]
fn both_sockets_refuse_every_way_not_to_be_who_one_says() {
    let service = Service::start();
    world(&service);
    let before = contents(&service);
    let audio = |path: &str, query: &str| format!("{path}/audio?encoding=linear16&sample_rate=16000{query}");
    for family in families(C) {
        let watch = family.replace("/call/locked/a", "/connect");
        for (how, token, code) in &tokens() {
            let mut socket = connect(&service, &watch, None);
            socket.say(&json!({"token": token, "user_details": {"id": "alice"}}));
            refused_as(how, &refusal(socket, how), 401, *code);
            let mut socket = connect(&service, &audio(&family, "&user_id=alice"), None);
            socket.say(&json!({"token": token}));
            refused_as(how, &refusal(socket, how), 401, *code);
            if !token.is_empty() {
                let socket = connect(&service, &audio(&family, ""), Some(token));
                refused_as(how, &refusal(socket, how), 401, *code);
            }
        }
        // A header of the handshake is none of the first frame's.
        let mut socket = connect(&service, &watch, Some(&token("alice")));
        socket.say(&json!({"token": ""}));
        refused_as("an empty token", &refusal(socket, "an empty token"), 401, 5);
        for (query, token, details, status, code) in [
            ("", token(""), json!({"id": "alice"}), 403, 17),
            ("&user_id=alice", token(""), json!({}), 403, 17),
            ("", token("eve"), json!({"id": "alice"}), 401, 5),
            ("&user_id=alice", token("eve"), json!({"id": "eve"}), 401, 5),
            ("&user_id=eve", token("eve"), json!({"id": "alice"}), 401, 5),
            ("&user_id=eve&user_id=alice", token("eve"), json!({}), 401, 5),
        ] {
            let mut socket = connect(&service, &format!("{watch}?x{query}"), None);
            socket.say(&json!({"token": token, "user_details": details}));
            refused_as(query, &refusal(socket, query), status, code);
        }
        for (query, token, status, code) in [
            ("&user_id=alice", token(""), 403, 17),
            ("&user_id=alice", token("eve"), 401, 5),
            ("&user_id=", token("eve"), 401, 5),
        ] {
            refused_as(query, &refusal(connect(&service, &audio(&family, query), Some(&token)), query), status, code);
        }
        for (how, token) in &strangers() {
            refused_as(how, &refusal(connect(&service, &audio(&family, ""), Some(token)), how), 403, 17);
        }
        for path in [&watch, &format!("{family}/audio")] {
            for key in ["", "?api_key=", "?api_key=wrong", "?api_key=key%00"] {
                let answer = raw(&service, &closing(&handshake(&format!("{path}{key}"))));
                assert_eq!(code_of(&answer), (401, Some(2)), "{path}{key}: {answer}");
            }
        }
        for id in ["%2e%2e", "a%2fb", "%00", "..%2f..%2fx", "a'--", &"x".repeat(65)] {
            let path = format!("{}/audio", family.replace("locked/a", &format!("locked/{id}")));
            refused_as(id, &refusal(connect(&service, &path, Some(&token("alice"))), id), 400, 4);
        }
    }
    assert_eq!(contents(&service), before);
}

/// Bytes as they are; all that is answered until the server closes.
fn raw(service: &Service, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address(service)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
    // What is too long is not read to its end.
    let _ = stream.write_all(request);
    let (mut answer, mut part) = (Vec::new(), [0; 16 * 1024]);
    let began = Instant::now();
    loop {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&part[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => {
                let (asked, answer) = (String::from_utf8_lossy(request), String::from_utf8_lossy(&answer));
                panic!("{error} behind {:?}: {asked:.500}\nwas answered with {answer:.500}", began.elapsed());
            }
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn handshake(target: &str) -> Vec<u8> {
    let key = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    format!("GET {target} HTTP/1.1\r\nHost: x\r\n{key}\r\n\r\n").into_bytes()
}

/// A handshake behind whose refusal nothing comes.
fn closing(handshake: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(handshake).replace("Connection: upgrade", "Connection: upgrade, close").into_bytes()
}

/// Status and code of the first answer.
fn code_of(answer: &str) -> (u16, Option<i64>) {
    check_harmless("an answer", answer);
    let status = answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").and_then(|(_, body)| serde_json::from_str::<Value>(body).ok());
    if let Some(body) = body.as_ref().filter(|_| status >= 400) {
        check_error(status, body);
    }
    (status, body.and_then(|body| body["code"].as_i64()))
}

/// A request of a server's, with a target as it is.
fn target(service: &Service, method: &str, path: &str) -> (u16, Option<i64>) {
    let sign = if path.contains('?') { '&' } else { '?' };
    let head = format!(
        "{method} {path}{sign}api_key={KEY} HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nConnection: close\r\n\r\n",
        token("")
    );
    code_of(&raw(service, head.as_bytes()))
}
