//! Bodies without an end, alone in their process, because its memory is measured.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

#[path = "../../tests/support/memory.rs"]
mod memory;
mod support;

use support::{KEY, Service, check_error, token};

const GIGABYTE: u64 = 1 << 30;
/// What the process may grow by meanwhile. The longest body that is taken is 1 MiB.
const MOST_GROWTH_KIB: u64 = 12 * 1024;

/// The most that it holds while something is done.
fn growth_kib(act: impl FnOnce()) -> u64 {
    let resident_kib = || memory::resident_kib().unwrap();
    let before = resident_kib();
    let (most, is_over) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
    let watch = {
        let (most, is_over) = (most.clone(), is_over.clone());
        std::thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                most.fetch_max(resident_kib(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(2));
            }
        })
    };
    act();
    is_over.store(true, Ordering::Relaxed);
    watch.join().unwrap();
    most.load(Ordering::Relaxed).saturating_sub(before)
}

/// Sends a body of a gigabyte, as long as somebody takes it: the answer, and how much was sent.
fn send(service: &Service, head: &str, is_chunked: bool) -> (Value, u64) {
    let address = service.url("/").trim_start_matches("http://").split('/').next().unwrap().to_string();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(25))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(25))).unwrap();
    let length = if is_chunked { "Transfer-Encoding: chunked".into() } else { format!("Content-Length: {GIGABYTE}") };
    write!(stream, "{head}{length}\r\n\r\n").unwrap();
    let mut sender = stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        let bytes = [b' '; 64 * 1024];
        let mut part = if is_chunked { b"10000\r\n".to_vec() } else { Vec::new() };
        part.extend_from_slice(&bytes);
        if is_chunked {
            part.extend_from_slice(b"\r\n");
        }
        let mut sent = 0;
        while sent < GIGABYTE && sender.write_all(&part).is_ok() {
            sent += bytes.len() as u64;
        }
        sent
    });
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = stream.read(&mut part) {
        answer.extend_from_slice(&part[..read]);
    }
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer}"));
    let body: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
    check_error(head[9..12].parse().unwrap(), &body);
    (body, sending.join().unwrap())
}

#[test]
fn a_body_of_a_gigabyte_is_refused_and_takes_no_memory() {
    let service = Service::start();
    service.ok("POST", "/api/v2/video/call/default/a", "", &json!({"data": {"created_by_id": "alice"}}));
    let head = |path: &str, token: &str| {
        let sign = if path.contains('?') { '&' } else { '?' };
        format!("POST {path}{sign}api_key={KEY} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n")
    };
    let call = "/api/v2/video/call/default/a";
    let began = Instant::now();
    for is_chunked in [false, true] {
        for (path, token, code) in [
            (call, token(""), 4),
            ("/video/calls", token("alice"), 4),
            (call, String::new(), 5),
            ("/nothing/here", token(""), 16),
            ("/video/call_client_event?stream-auth-type=anonymous", String::new(), 4),
        ] {
            let mut got = (Value::Null, 0);
            let growth = growth_kib(|| got = send(&service, &head(path, &token), is_chunked));
            let (answer, sent) = got;
            println!("{path}, chunks {is_chunked}: {} MiB sent, {growth} KiB more, {answer}", sent >> 20);
            assert_eq!(answer["code"], code, "{path}: {answer}");
            assert!(sent < GIGABYTE / 4, "{path}: {sent} bytes were read");
            assert!(growth < MOST_GROWTH_KIB, "{path}: {growth} KiB more");
        }
    }
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    service.ok("GET", call, "", &json!({}));
}
