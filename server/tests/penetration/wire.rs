//! Bodies, requests and frames that are none.

use super::*;

#[test]
fn a_body_that_is_none_is_refused_and_one_that_is_kept_can_be_read_again() {
    let service = Service::start();
    world(&service);
    let before = contents(&service);
    let members = |count: usize| {
        let members: Vec<_> = (0..count).map(|i| json!({"user_id": i.to_string()})).collect();
        json!({"data": {"created_by_id": "alice", "members": members}}).to_string()
    };
    let data = |fields: &str| format!("{{\"data\":{{\"created_by_id\":\"alice\",{fields}}}}}").into_bytes();
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&vec![b' '; 100 << 20]).unwrap();
        encoder.finish().unwrap()
    };
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("a hundred thousand lists", "[".repeat(100_000).into_bytes()),
        ("a hundred thousand objects", "{\"a\":".repeat(100_000).into_bytes()),
        ("lists that are closed", format!("{}{}", "[".repeat(50_000), "]".repeat(50_000)).into_bytes()),
        ("a hundred lists", data(&format!("\"custom\":{{\"x\":{}{}}}", "[".repeat(100), "]".repeat(100)))),
        ("no end", b"{\"data\":{".to_vec()),
        ("more behind the end", b"{} {}".to_vec()),
        ("a list", b"[]".to_vec()),
        ("a number", b"7".to_vec()),
        ("a form", b"data=x&created_by_id=alice".to_vec()),
        ("a number without an end", data(&format!("\"custom\":{{\"x\":1{}}}", "0".repeat(5000)))),
        ("a number beyond numbers", data("\"custom\":{\"x\":1e999}")),
        ("no number", data("\"custom\":{\"x\":NaN}")),
        (
            "bytes",
            data("\"custom\":{\"x\":\"\u{7f}\"}").iter().map(|byte| if *byte == 0x7f { 0xff } else { *byte }).collect(),
        ),
        ("half a character", data("\"custom\":{\"x\":\"\\ud800\"}")),
        ("a byte order mark", [&b"\xef\xbb\xbf"[..], &data("\"x\":1")].concat()),
        ("UTF-16", "{}".encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("a zero byte", b"{}\0".to_vec()),
        ("a field twice, the second no object", b"{\"data\":{\"created_by_id\":\"alice\"},\"data\":[]}".to_vec()),
        ("a million members", members(1_000_000).into_bytes()),
        ("a thousand and one members", members(1001).into_bytes()),
        ("a long id", data(&format!("\"members\":[{{\"user_id\":\"{}\"}}]", "x".repeat(256)))),
        ("an id with a zero in it", data("\"members\":[{\"user_id\":\"a\\u0000\"}]")),
        ("an id that is a number", data("\"members\":[{\"user_id\":1}]")),
        ("members that are none", data("\"members\":{\"alice\":1}")),
        ("a time beyond times", data("\"starts_at\":1e300")),
        ("a time that is none", data("\"starts_at\":{\"$gt\":0}")),
        ("a compressed bomb", gzip),
    ];
    for (what, body) in rows {
        for (token, headers) in [(token(""), "application/json"), (token("alice"), "text/plain")] {
            let headers = [("Authorization", token.as_bytes()), ("Content-Type", headers.as_bytes())];
            let answer = ask(&service, "POST", &service.url("/api/v2/video/call/locked/new"), &headers, &body);
            refused_as(what, &answer, 400, 4);
        }
    }
    assert_eq!(contents(&service), before);

    // As deep as it goes: whatever is taken can be read again, with all that is kept beside it.
    let call = "/api/v2/video/call/default/deep";
    service.ok("POST", call, "", &json!({"data": {"created_by_id": "alice"}}));
    let (mut taken, mut refused) = (0, 0);
    for depth in [1, 32, 50, 59, 60, 61, 62, 63, 64, 65, 90, 110, 119, 120, 121, 122, 123, 124, 125, 126, 127, 128] {
        let deep = (0..depth).fold(json!(1), |inner, _| json!({"x": inner}));
        for (method, path, body) in [
            ("PATCH", call.to_string(), json!({"custom": {"x": deep}})),
            ("PATCH", call.to_string(), json!({"settings_override": {"audio": {"x": deep}}})),
            ("POST", format!("{call}/members"), json!({"update_members": [{"user_id": "m", "custom": {"x": deep}}]})),
            ("POST", "/api/v2/users".into(), json!({"users": {"m": {"id": "m", "custom": {"x": deep}}}})),
            (
                "PATCH",
                "/api/v2/users".into(),
                json!({"users": [{"id": "alice", "set": {"custom": {"x": deep}, "y": deep}}]}),
            ),
            (
                "PUT",
                "/api/v2/video/calltypes/default".into(),
                json!({"settings": {"audio": {"x": deep}},
                "notification_settings": {"x": deep}}),
            ),
        ] {
            let (status, answer) = service.request(method, &path, "", &body);
            assert!(
                status < 300 || (status == 400 && answer["code"] == 4),
                "{depth}: {method} {path}: {status} {answer:.300}"
            );
            *(if status < 300 { &mut taken } else { &mut refused }) += 1;
        }
        for (method, path) in [
            ("GET", call),
            ("POST", "/api/v2/video/calls"),
            ("GET", "/api/v2/users"),
            ("GET", "/api/v2/video/calltypes"),
        ] {
            let (status, answer) = service.request(method, path, "", &json!({}));
            assert_eq!(status / 100, 2, "{depth}: {method} {path}: {answer:.300}");
        }
        let mut socket = service.connect("/video/connect");
        socket.say(&json!({"token": token("m"), "user_details": {"id": "m", "custom": {"x": deep}}}));
        let answer = socket.next().unwrap();
        assert!(answer["type"] == "connection.ok" || answer["error"]["code"] == 4, "{depth}: {answer:.300}");
    }
    assert!(taken > 0 && refused > 0, "{taken} {refused}");
}

#[test]
fn requests_that_are_two_or_none_are_answered_once() {
    let service = Service::start_with(|config| config.cors_origins = vec![ORIGIN.into()]);
    let auth = format!("Host: x\r\nAuthorization: {}\r\n", token(""));
    let post = |head: &str, body: &str| {
        format!("POST /api/v2/video/calls?api_key={KEY} HTTP/1.1\r\n{auth}{head}\r\n\r\n{body}")
    };
    let hidden = format!("GET /api/v2/users?api_key={KEY} HTTP/1.1\r\n{auth}\r\n");
    let many: String = (0..200).map(|i| format!("X-{i}: x\r\n")).collect();
    let long = format!("X: {}\r\nY: y", "x".repeat(256 * 1024));
    let rows: Vec<(&str, String, &[u16])> = vec![
        (
            "a length and chunks",
            post("Content-Length: 4\r\nTransfer-Encoding: chunked", &format!("0\r\n\r\n{hidden}")),
            &[200],
        ),
        (
            "chunks and a length",
            post("Transfer-Encoding: chunked\r\nContent-Length: 4", &format!("0\r\n\r\n{hidden}")),
            &[200],
        ),
        ("two lengths", post("Content-Length: 0\r\nContent-Length: 44", &hidden), &[400]),
        ("two lengths in one", post("Content-Length: 0, 44", &hidden), &[400]),
        ("a length with a sign", post("Content-Length: +2", "{}"), &[400]),
        ("a length below nothing", post("Content-Length: -1", "{}"), &[400]),
        ("a length beyond lengths", post("Content-Length: 18446744073709551616", "{}"), &[400]),
        ("a length in hex", post("Content-Length: 0x2", "{}"), &[400]),
        ("chunks that are not the last", post("Transfer-Encoding: chunked, identity", &hidden), &[400]),
        ("chunks of another kind", post("Transfer-Encoding: xchunked", &hidden), &[400]),
        ("chunks twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", &hidden), &[400]),
        (
            "a chunk beyond lengths",
            post("Transfer-Encoding: chunked\r\nConnection: close", "fffffffffffffffff\r\nx"),
            &[400],
        ),
        (
            "a chunk below nothing",
            post("Transfer-Encoding: chunked\r\nConnection: close", "-1\r\nx\r\n0\r\n\r\n"),
            &[400],
        ),
        (
            "a chunk that ends elsewhere",
            post("Transfer-Encoding: chunked\r\nConnection: close", "1\r\nxx\r\n0\r\n\r\n"),
            &[400],
        ),
        (
            "chunks in HTTP/1.0",
            format!(
                "POST /api/v2/video/calls?api_key={KEY} HTTP/1.0\r\n{auth}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
            &[400],
        ),
        ("a blank before the colon", post("Content-Length : 2\r\nConnection: close", "{}"), &[400]),
        ("a folded header", post("X: a\r\n b: c\r\nConnection: close", ""), &[400]),
        ("a zero in a header", post("X: a\0b", ""), &[400]),
        ("a header without a colon", post("X", ""), &[400]),
        ("a long header", post(&long, ""), &[431, 400]),
        ("a long target", format!("GET /video/{} HTTP/1.1\r\n\r\n", "x".repeat(256 * 1024)), &[414, 431, 400]),
        ("many headers", post(&format!("{many}Z: z"), ""), &[431, 400]),
        ("no HTTP", "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03".into(), &[400]),
        ("HTTP/0.9", "GET /\r\n\r\n".into(), &[400]),
        ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), &[400, 404, 505, 0]),
        ("HTTP/9", format!("GET /healthz HTTP/9.9\r\n{auth}\r\n"), &[400, 505]),
        ("a tunnel", format!("CONNECT 127.0.0.1:22 HTTP/1.1\r\n{auth}Connection: close\r\n\r\n"), &[401, 404]),
        ("a trace", format!("TRACE /api/v2/app?api_key={KEY} HTTP/1.1\r\n{auth}Connection: close\r\n\r\n"), &[404]),
        (
            "another host's",
            format!("GET http://127.0.0.1:22/api/v2/x?api_key={KEY} HTTP/1.1\r\n{auth}Connection: close\r\n\r\n"),
            &[404],
        ),
        ("a method that is none", format!("GE\u{fc}T / HTTP/1.1\r\n{auth}\r\n"), &[400]),
    ];
    for (what, request, statuses) in rows {
        let answer = raw(&service, request.as_bytes());
        assert!(answer.matches("HTTP/1.").count() <= 1, "{what}: {answer}");
        let (status, _) = code_of(&answer);
        assert!(statuses.contains(&status), "{what}: {status} {answer}");
    }
    // Lines that end in other ways end where they do.
    let bare = format!(
        "POST /api/v2/video/calls?api_key={KEY} HTTP/1.1\n{}Connection: close\nContent-Length: 2\n\n{{}}",
        auth.replace('\r', "")
    );
    let answer = raw(&service, bare.as_bytes());
    assert!(answer.matches("HTTP/1.").count() == 1 && matches!(code_of(&answer).0, 200 | 400), "{answer}");

    let preflight = |origin: &str| {
        let head = format!(
            "OPTIONS /video/calls?api_key={KEY} HTTP/1.1\r\nHost: x\r\nOrigin: {origin}\r\n\
            Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization\r\nConnection: close\r\n\r\n"
        );
        raw(&service, head.as_bytes()).to_lowercase()
    };
    assert!(preflight(ORIGIN).contains(&format!("access-control-allow-origin: {ORIGIN}\r\n")));
    for origin in [
        "https://evil.example.org",
        "null",
        "http://app.example.org",
        "https://app.example.org.evil.org",
        "https://xapp.example.org",
        "https://app.example.org:444",
        "*",
        "https://APP.example.org/",
    ] {
        let answer = preflight(origin);
        assert!(!answer.contains("access-control-allow-origin: "), "{origin}: {answer}");
        assert!(!answer.contains("access-control-allow-credentials"), "{answer}");
    }
}

#[test]
fn a_body_that_nobody_wants_costs_nobody_their_answer() {
    let service = Service::start();
    let body = vec![b'x'; 4 << 20];
    for path in ["/openapi.json", "/healthz", "/readyz", "/transcripts/x/y", "/video/connect", C] {
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
        let answer = raw(&service, &[head.as_bytes(), &body].concat());
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{path}: no answer"));
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        assert_eq!(length, body.len().to_string(), "{path} breaks off");
    }
}

/// A frame of a client's, as RFC 6455 has it.
fn frame(first: u8, masked: bool, length: u64, payload: &[u8]) -> Vec<u8> {
    let mask = if masked { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match length {
        0..=125 => bytes.push(mask | length as u8),
        126..=0xffff => {
            bytes.push(mask | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(mask | 127);
            bytes.extend(length.to_be_bytes());
        }
    }
    if masked {
        bytes.extend([0; 4]);
    }
    bytes.extend(payload);
    bytes
}

#[test]
fn a_frame_that_is_none_or_has_no_end_ends_its_connection() {
    let service = Service::start();
    world(&service);
    let hello = json!({"token": token("alice")}).to_string();
    let greeting = frame(0x81, true, hello.len() as u64, hello.as_bytes());
    let part = vec![b'x'; 60_000];
    let endless: Vec<u8> = (0..20).flat_map(|i| frame(if i == 0 { 1 } else { 0 }, true, 60_000, &part)).collect();
    let empty: Vec<u8> = (0..3).flat_map(|_| frame(0x81, true, 0, b"")).collect();
    let deep = "[".repeat(60_000);
    let big = json!({"token": token("alice"), "user_details": {"name": "x".repeat(20_000)}}).to_string();
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("beyond the bound", frame(0x81, true, 600 * 1024, &part)),
        ("of a gigabyte", frame(0x82, true, 1 << 30, &part)),
        ("of all there is", frame(0x82, true, u64::MAX >> 1, &part)),
        ("of more than there is", frame(0x82, true, u64::MAX, &part)),
        ("fragments without an end", endless),
        ("unmasked", frame(0x81, false, hello.len() as u64, hello.as_bytes())),
        ("a bit that nobody agreed on", frame(0xc1, true, 2, b"{}")),
        ("an opcode that is none", frame(0x83, true, 2, b"{}")),
        ("the end of nothing", frame(0x80, true, 2, b"{}")),
        ("a ping in fragments", frame(0x09, true, 2, b"{}")),
        ("a long ping", frame(0x89, true, 126, &[0; 126])),
        ("no text", frame(0x81, true, 2, b"\xff\xfe")),
        ("a close of one byte", frame(0x88, true, 1, b"x")),
    ];
    let sockets = ["/video/connect", "/video/call/locked/a/audio"].map(|path| format!("{path}?api_key={KEY}"));
    for path in &sockets {
        for (what, bytes) in &rows {
            for is_greeted in [false, true] {
                let mut all = handshake(path);
                if is_greeted {
                    all.extend(&greeting);
                }
                all.extend(bytes);
                let began = Instant::now();
                let answer = raw(&service, &all);
                assert!(answer.starts_with("HTTP/1.1 101"), "{what}: {answer}");
                assert!(began.elapsed() < Duration::from_secs(4), "{path}, {what}: {:?}", began.elapsed());
                check_harmless(what, &answer);
            }
        }
        // What is no greeting is none. Who speaks says nothing that is kept.
        let no_greetings = ["", "{}", "[]", "null", "{\"token\":1}", "{\"token\":{}}", deep.as_str()];
        for first in no_greetings.into_iter().chain(path.contains("connect").then_some(big.as_str())) {
            let mut bytes = handshake(path);
            bytes.extend(frame(0x81, true, first.len() as u64, first.as_bytes()));
            let answer = raw(&service, &bytes);
            assert!(answer.contains("connection.error"), "{path}, {first:.40}: {answer:.300}");
        }
        let mut bytes = handshake(path);
        bytes.extend(&empty);
        assert!(raw(&service, &bytes).contains("connection.error"));
    }
    // The server is there for others.
    let (mut socket, id) = service.watch("alice", "");
    socket.say(&json!([{"type": "health.check"}]));
    assert_eq!(socket.next().unwrap()["connection_id"], json!(id));
    for text in [
        "[",
        "[[[",
        "{\"type\":{}}",
        "\"\"",
        &"[".repeat(60_000),
        "[{\"type\":\"health.check\",\"connection_id\":\"another\"}]",
    ] {
        socket.0.send(tungstenite::Message::text(text)).unwrap();
    }
    assert_eq!(socket.next().unwrap()["connection_id"], json!(id), "it goes on");
}

#[test]
fn what_is_secret_is_compared_in_constant_time() {
    let source =
        |name: &str| std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(name)).unwrap();
    let compares = |text: &str, what: &str| assert!(text.contains(what), "{what} is gone");
    compares(&source("api/http.rs"), "ct_eq(key.as_bytes(), app.api_key.as_bytes())");
    compares(&source("storage/local.rs"), "verify_slice(&signature)");
    // What is told of a refusal does not tell how much was right.
    let service = Service::start();
    let answers: Mutex<BTreeSet<String>> = Mutex::default();
    for key in ["a", "k", "ke", "kex", "key1"] {
        let url = service.url("/api/v2/app").replace(&format!("api_key={KEY}"), &format!("api_key={key}"));
        let (_, mut answer) = ask(&service, "GET", &url, &[], b"");
        answer["duration"] = json!("");
        answers.lock().unwrap().insert(answer.to_string());
    }
    assert_eq!(answers.into_inner().unwrap().len(), 1);
}
