//! Requests of any kind to a real server, over a real socket.
//!
//! In: bytes, which say which operation is asked for, by whom and how. Out: nothing, or a panic: where there is no answer in time,
//! or a fault of the server's; where an error is none that clients can read; where a status is not in the server's own document;
//! where a thread of the server's has panicked.

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use serde_json::{Value, json};

use super::Dice;
use super::json::{anything, grown, text};
use super::world::{Answer, KEY, PATIENCE, USERS, World, token, world};
use crate::api::route::{Asker, Operation, Row, TABLE};

/// Longest body that is filled up; the server takes a MiB.
const FILLED: [usize; 3] = [70_000, 1 << 20, (1 << 20) + 1];
/// A storage that exists, to which nothing is stored: names that are asked for are others.
const STORAGE: &str = "kept-apart";

/// A request.
pub fn http(data: &[u8]) {
    let mut world = world();
    let mut dice = Dice(data);
    if dice.below(16) == 15 {
        let answers = world.say(dice.0);
        check_raw(&answers);
    } else {
        let row = &TABLE[usize::from(dice.byte()) % TABLE.len()];
        ask(&mut world, row, &mut dice);
    }
    world.is_well();
}

/// Whoever says anything gets HTTP, and no fault.
fn check_raw(answers: &[u8]) {
    if answers.is_empty() {
        return;
    }
    let answers = String::from_utf8_lossy(answers);
    assert!(answers.starts_with("HTTP/1."), "{answers}");
    for line in answers.lines().filter(|line| line.starts_with("HTTP/1.")) {
        assert_ne!(line.get(9..10), Some("5"), "a fault: {answers}");
    }
}

/// A part of a path, or of a query.
fn encoded(part: &str) -> String {
    percent_encode(part.as_bytes(), NON_ALPHANUMERIC).to_string()
}

fn part_of(name: &str, row: &Row, dice: &mut Dice<'_>) -> String {
    let known: &[&str] = match name {
        "type" => &["default", "development", "livestream", "audio_room", "missing"],
        "id" => &["a", "b", "c"],
        "name" if row.path.starts_with("external_storage") => &[STORAGE, "missing"],
        "name" => &["default", "development", "made", "missing"],
        "port" => &["30000", "30001", "1", "65536", "-1"],
        _ => &["x", "f.jsonl", "../x", "default_a"],
    };
    let is_sent_out = row.operation == Operation::CheckStorage;
    match dice.below(8) {
        _ if is_sent_out => "missing".into(),
        0..7 => dice.pick(known).into(),
        // An empty one would make it another path.
        _ => encoded(&format!("{}x", text(dice))),
    }
}

fn path_of(row: &Row, dice: &mut Dice<'_>) -> String {
    let prefix = match (row.path.starts_with('/'), dice.below(8)) {
        (true, _) => "",
        (false, 0..4) => "/api/v2/",
        (false, 4..7) => "/",
        (false, _) => "//api//v2/",
    };
    let parts = row.path.split('/').map(|part| match part.strip_prefix('{') {
        Some(name) => part_of(name.trim_end_matches('}'), row, dice),
        None => part.to_string(),
    });
    format!("{prefix}{}", parts.collect::<Vec<_>>().join("/"))
}

fn token_of(row: &Row, dice: &mut Dice<'_>) -> Option<String> {
    let user = || Some(USERS[0]);
    Some(match dice.below(16) {
        0..6 if row.asker == Asker::Server => token(None, 60),
        0..3 => token(None, 60),
        3..9 => token(Some(dice.pick(&USERS)), 60),
        9 => token(Some(&text(dice)).filter(|user_id| !user_id.is_empty()).map(String::as_str).or(user()), 60),
        10 => token(user(), -60),
        11 => format!("Bearer {}", token(user(), 60)),
        12 => {
            let mut signed = token(user(), 60);
            let place = dice.byte() as usize % signed.len();
            signed.replace_range(place..=place, "x");
            signed
        }
        13 => visible(&text(dice)),
        14 => "x".repeat(9_000),
        _ => return None,
    })
}

/// As a header may have it.
fn visible(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic()).collect()
}

fn ask(world: &mut World, row: &Row, dice: &mut Dice<'_>) {
    let path = path_of(row, dice);
    let described = &world.document["paths"][documented(row, &path)][row.method.to_lowercase()].clone();
    let mut query = match dice.below(8) {
        0..6 => format!("?api_key={KEY}"),
        6 => "?api_key=another".into(),
        _ => "?".into(),
    };
    for parameter in described["parameters"].as_array().into_iter().flatten().filter(|one| one["in"] == "query") {
        if dice.below(4) == 3 {
            let value = match (&parameter["name"], dice.below(4)) {
                (name, 0..3) if name == "payload" => anything(dice, 4).to_string(),
                (_, 0) => dice.byte().to_string(),
                _ => text(dice),
            };
            query.push_str(&format!("&{}={}", parameter["name"].as_str().unwrap_or_default(), encoded(&value)));
        }
    }
    let mut head = format!("{} {path}{query} HTTP/1.1\r\nHost: x\r\n", row.method);
    let mut with = |name: &str, value: &str| head.push_str(&format!("{name}: {value}\r\n"));
    if let Some(token) = token_of(row, dice) {
        with("Authorization", &token);
    }
    match dice.below(8) {
        5 => with("stream-auth-type", "anonymous"),
        6 => with("x-client-request-id", &visible(&text(dice))),
        7 => with("Range", dice.pick(&["bytes=0-", "bytes=5-1", "bytes=-0", "x", "bytes=0-1,3-4"])),
        _ => {}
    }
    let kinds = ["application/json", "", "application/x-www-form-urlencoded", "text/plain; charset=utf-16", "x"];
    with("Content-Type", dice.pick(&kinds));
    let schema = &described["requestBody"]["content"]["application/json"]["schema"];
    let body = body_of(world, row, schema, dice);
    if dice.below(8) == 7 {
        with("Transfer-Encoding", "chunked");
    } else {
        with("Content-Length", &body.len().to_string());
    }
    head.push_str("\r\n");
    let is_chunked = head.contains("Transfer-Encoding");
    let mut request = head.into_bytes();
    if is_chunked {
        for chunk in body.chunks(1 + body.len() / 3) {
            request.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
            request.extend_from_slice(chunk);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"0\r\n\r\n");
    } else {
        request.extend_from_slice(&body);
    }
    let began = std::time::Instant::now();
    let answer = world.ask(&request, row.method == "HEAD");
    assert!(began.elapsed() < PATIENCE, "{} took {:?}", row.name, began.elapsed());
    check(row, described, &answer, &String::from_utf8_lossy(&request));
}

fn body_of(world: &World, row: &Row, schema: &Value, dice: &mut Dice<'_>) -> Vec<u8> {
    let is_storage = matches!(row.operation, Operation::CreateStorage | Operation::UpdateStorage);
    match dice.below(16) {
        // The whole rest.
        13 if !is_storage => dice.take(usize::MAX).to_vec(),
        14 => Vec::new(),
        15 => {
            let mut body = b"{\"custom\":{\"x\":\"".to_vec();
            body.resize(dice.pick(&FILLED) - 3, b'x');
            body.extend_from_slice(b"\"}}");
            body
        }
        12 if !is_storage => anything(dice, 0).to_string().into_bytes(),
        _ => {
            let mut body = grown(&world.document, schema, dice);
            if let Some(fields) = body.as_object_mut().filter(|_| is_storage) {
                fields.insert("name".into(), json!(STORAGE));
            }
            body.to_string().into_bytes()
        }
    }
}

/// The path under which the document has an operation, for the family that asks.
fn documented(row: &Row, path: &str) -> String {
    if row.path.starts_with('/') {
        row.path.to_string()
    } else if path.starts_with("/api") || path.starts_with("//api") || !row.path.starts_with("video/") {
        format!("/api/v2/{}", row.path)
    } else {
        format!("/{}", row.path)
    }
}

/// An answer that clients can read, and that the document has.
fn check(row: &Row, described: &Value, answer: &Answer, request: &str) {
    let Answer { status, body, .. } = answer;
    let shown: String = request.chars().take(3_000).collect();
    let text = String::from_utf8_lossy(body);
    // A head that is too long is no request yet.
    if matches!(status, 414 | 431) && body.is_empty() && request.len() > 8192 {
        return;
    }
    assert!(answer.header("x-request-id").is_some(), "{shown}\n{answer:?}");
    assert!(*status < 500 || *status == 503, "{status}: a fault of the server's\n{shown}\n{text}");
    // What names no operation is `not offered here`, and a path's part may make it so.
    let is_documented = described["responses"].get(status.to_string()).is_some();
    assert!(
        is_documented || matches!(status, 401 | 404),
        "{} answers {status}, which is not documented\n{shown}\n{text}",
        row.name
    );
    let kind = answer.header("content-type").unwrap_or_default();
    if row.method == "HEAD" || matches!(row.operation, Operation::Health | Operation::Readiness) && *status < 400 {
        return;
    }
    if *status >= 400 && body.is_empty() {
        assert!(matches!(status, 412 | 416), "an error without a word\n{shown}\n{answer:?}");
        return;
    }
    if kind == "application/jsonl" || row.operation == Operation::Readiness {
        return;
    }
    assert_eq!(kind, "application/json", "{shown}\n{answer:?}");
    let said: Value = serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}\n{shown}\n{text}"));
    if *status < 400 {
        let is_document = row.operation == Operation::OpenApi;
        assert!(is_document || said["duration"].is_string(), "clients need a duration\n{shown}\n{text}");
        return;
    }
    let is_error = said["StatusCode"] == json!(status)
        && said["code"].is_i64()
        && said["message"].as_str().is_some_and(|message| !message.is_empty())
        && said["duration"].is_string()
        && said["more_info"].is_string()
        && said["details"].is_array();
    assert!(is_error, "an error that clients cannot read\n{shown}\n{text}");
}
