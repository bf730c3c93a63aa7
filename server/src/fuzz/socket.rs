//! WebSocket frames of any kind to a real server: of clients that watch, and of participants that speak.
//!
//! In: bytes, which say whose socket it is, what is said first, and the frames behind it. Out: nothing, or a panic: where the
//! server neither goes on nor closes in time, sends a frame that is none, has panicked, or is not there for others.
//!
//! Each frame is written by hand, for no client's library writes what is tried here; and what the server sends is read by hand, so
//! that nothing is forgiven.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use serde_json::{Value, json};

use super::Dice;
use super::json::{anything, text};
use super::world::{KEY, PATIENCE, USERS, World, read_all, token, world};

/// More frames say nothing more; and audio that comes faster than real time is held back.
const MOST_FRAMES: usize = 24;
const MAX_PAYLOAD: usize = 2_000;
/// What the last ping says.
const NONCE: &[u8] = b"the last one";
/// Texts that mean something to either socket.
const SAID: &[&str] = &[
    "[{\"type\":\"health.check\"}]",
    "{\"type\":\"time\",\"at\":0}",
    "{\"type\":\"time\",\"at\":9223372036854775807}",
    "{\"type\":\"time\",\"at\":\"2026-11-28T12:00:00.000000001+23:59\"}",
    "{\"type\":\"time\",\"at\":-1e300}",
    "{\"type\":\"mute\"}",
    "{\"type\":\"mute\",\"muted\":0}",
    "{\"type\":\"unmute\"}",
    "{\"type\":\"flush\"}",
    "{\"type\":\"close\"}",
    "{\"type\":[]}",
    "[",
    "",
];

/// A socket from its handshake to its end.
pub fn socket(data: &[u8]) {
    let mut world = world();
    let mut dice = Dice(data);
    let audio = dice.maybe();
    let mut stream = world.connect();
    if shake_hands(&mut stream, audio, &mut dice) {
        let (bytes, is_well_formed) = frames(audio, &mut dice);
        // Who has had enough closes before all is written.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let began = Instant::now();
        let (said, is_whole) = read_all(&mut stream);
        assert!(began.elapsed() < PATIENCE, "the server goes on for {:?}", began.elapsed());
        let is_answered = check(&said);
        // What is reset may have lost the last word.
        assert!(is_answered || !is_whole || !is_well_formed, "the server goes without a word: {said:02x?}");
    }
    world.is_well();
    if dice.0.len().is_multiple_of(16) {
        greets(&world);
    }
}

/// The handshake, and whether it was answered with one.
fn shake_hands(stream: &mut TcpStream, audio: bool, dice: &mut Dice<'_>) -> bool {
    let user = dice.pick(&USERS);
    let path = if audio {
        let call = dice.pick(&["default/a", "development/a", "default/missing", "none/a", "default/%00"]);
        let encoding = dice.pick(&["linear16", "opus", "float32", "mp3", ""]);
        let rate = dice.pick(&["16000", "48000", "8000", "44100", "1", "0", "4294967296", "x", "192000"]);
        let channels = dice.pick(&["1", "2", "8", "0", "65536", "-1"]);
        format!("/video/call/{call}/audio?encoding={encoding}&sample_rate={rate}&channels={channels}&api_key={KEY}")
    } else {
        format!("/video/connect?api_key={KEY}&stream-auth-type=jwt{}", dice.pick(&["", "&interim=1", "&interim=x"]))
    };
    let id = dice.pick(&["", "&user_id=ann", "&user_id=%ff"]);
    let header = match dice.below(8) {
        6 => format!("Authorization: {}\r\n", token(Some(user), 60)),
        7 => format!("Authorization: {}\r\n", dice.pick(&["x", "", "a.b.c"])),
        _ => String::new(),
    };
    let request = format!(
        "GET {path}{id} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{header}\r\n"
    );
    stream.write_all(request.as_bytes()).expect("the server reads a handshake");
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("the server answers a handshake");
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head);
    assert!(!head.starts_with("HTTP/1.1 5"), "a fault: {head}");
    head.starts_with("HTTP/1.1 101")
}

/// One frame: its first byte, its payload, whether it is masked, and how long it says that it is.
fn frame(first: u8, payload: &[u8], is_masked: bool, length: u64, widest: bool) -> Vec<u8> {
    let mask = if is_masked { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match length {
        0..=125 if !widest => bytes.push(mask | length as u8),
        126..=0xffff if !widest => {
            bytes.push(mask | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(mask | 127);
            bytes.extend(length.to_be_bytes());
        }
    }
    let key = [0x37, 0xfa, 0x21, 0x3d];
    if is_masked {
        bytes.extend(key);
        bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    } else {
        bytes.extend(payload);
    }
    bytes
}

/// A frame as clients write it.
fn whole(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(first, payload, true, payload.len() as u64, false)
}

fn hello(dice: &mut Dice<'_>) -> Value {
    let user = dice.pick(&USERS);
    match dice.below(8) {
        0..5 => json!({"token": token(Some(user), 60), "products": ["video"], "user_details": {"id": user}}),
        5 => {
            json!({"token": token(Some(user), 60), "user_details": {"id": user, "name": text(dice), "custom": anything(dice, 4)}})
        }
        6 => {
            json!({"token": dice.pick(&[token(None, 60), token(Some(user), -60), "x".into(), String::new()].each_ref())})
        }
        _ => anything(dice, 0),
    }
}

/// Frames, and whether the server owes a close or an answer to the last of them: each is one that a client may send.
fn frames(audio: bool, dice: &mut Dice<'_>) -> (Vec<u8>, bool) {
    let (mut bytes, mut is_well_formed) = (Vec::new(), true);
    if dice.below(8) != 7 {
        bytes.extend(whole(0x81, hello(dice).to_string().as_bytes()));
    }
    for _ in 0..MOST_FRAMES {
        if dice.is_over() {
            break;
        }
        let count = usize::from(dice.byte()) * 8 % MAX_PAYLOAD;
        let operation = dice.operation(14);
        // Others are what no client sends, or a close of the client's own, whose answer is not looked for.
        is_well_formed &= operation < 7;
        match operation {
            0 => bytes.extend(whole(0x81, dice.pick(SAID).as_bytes())),
            1 => bytes.extend(whole(0x81, anything(dice, 0).to_string().as_bytes())),
            // Samples, or a packet of Opus.
            2 => bytes.extend(whole(0x82, &vec![0x10; count & !7])),
            3 => bytes.extend(whole(0x82, &[&[dice.byte()], dice.take(count)].concat())),
            4 => {
                // In three frames, with a ping between them.
                let (text, rest) = (dice.pick(SAID).as_bytes(), dice.take(3));
                is_well_formed &= audio || std::str::from_utf8(rest).is_ok();
                bytes.extend(whole(if audio { 0x02 } else { 0x01 }, text));
                bytes.extend(whole(0x89, rest));
                bytes.extend(whole(0x00, rest));
                bytes.extend(whole(0x80, rest));
            }
            5 => bytes.extend(whole(0x89, dice.take(count.min(125)))),
            6 => bytes.extend(whole(0x8a, dice.take(count.min(125)))),
            7 => {
                let code: [u8; 2] = dice.pick(&[1000_u16, 1001, 1005, 1006, 999, 4000, 0, 65_535, 1012]).to_be_bytes();
                bytes.extend(whole(0x88, &[&code, dice.take(count.min(123))].concat()));
            }
            8 => bytes.extend(whole(0x88, dice.take(count.min(2)))),
            // Any first byte, and any length that it says.
            9 => {
                let first = dice.byte();
                bytes.extend(whole(first, dice.take(count)));
            }
            10 => {
                let first = dice.pick(&[0x81, 0x82, 0x01, 0x00, 0x89]);
                let length =
                    dice.pick(&[0, 125, 126, 65_535, 65_537, 600_000, 1 << 31, 1 << 40, u64::MAX >> 1, u64::MAX]);
                bytes.extend(frame(first, dice.take(count), true, length, dice.maybe()));
            }
            11 => bytes.extend(frame(0x82, dice.take(count), false, count as u64, false)),
            12 => bytes.extend(frame(0x81, b"{}", true, 2, true)),
            _ => bytes.extend(dice.take(count)),
        }
    }
    bytes.extend(whole(0x89, NONCE));
    (bytes, is_well_formed)
}

/// Each frame is one, as RFC 6455 has it for a server, and nothing is behind a close. Whether there was a close, or an answer to
/// the last ping.
fn check(mut said: &[u8]) -> bool {
    let all = said;
    let (mut is_closed, mut has_pong) = (false, false);
    let mut is_open = false;
    while let Some((first, rest)) = said.split_first() {
        assert!(!is_closed, "something is said behind a close: {all:02x?}");
        // A connection that is reset may break off anywhere.
        let Some((second, mut rest)) = rest.split_first() else { return has_pong };
        let (is_last, operation) = (first & 0x80 != 0, first & 0x0f);
        assert!(first & 0x70 == 0 && second & 0x80 == 0, "reserved bits, or a mask: {all:02x?}");
        let wide = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if rest.len() < wide {
            return has_pong;
        }
        let length = rest[..wide].iter().fold(0_u64, |length, byte| length << 8 | u64::from(*byte));
        let length = if wide == 0 { u64::from(second & 0x7f) } else { length };
        let least = [0, 0, 126, 0, 0, 0, 0, 0, 65_536][wide];
        assert!(length >= least, "a length of {length} in {wide} bytes");
        rest = &rest[wide..];
        let length = usize::try_from(length).expect("a length that memory has");
        if rest.len() < length {
            return has_pong;
        }
        let payload = &rest[..length];
        said = &rest[length..];
        match operation {
            0 => {
                assert!(is_open, "a part of nothing");
                is_open = !is_last;
            }
            1 => {
                assert!(!is_open && is_last, "answers come whole");
                let said: Value = serde_json::from_slice(payload).expect("each text is JSON");
                assert!(said["type"].is_string(), "each is of a type: {said}");
                let fault = said["error"]["StatusCode"].as_i64().is_some_and(|status| status == 500);
                assert!(!fault, "a fault: {said}");
            }
            8 => {
                assert!(is_last && length <= 125 && length != 1, "a close of {length} bytes");
                if let [high, low, reason @ ..] = payload {
                    let code = u16::from_be_bytes([*high, *low]);
                    let is_code = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
                    assert!(is_code && std::str::from_utf8(reason).is_ok(), "closed with {code} {reason:02x?}");
                }
                is_closed = true;
            }
            9 | 10 => {
                assert!(is_last && length <= 125, "a ping or pong of {length} bytes");
                has_pong |= operation == 10 && payload == NONCE;
            }
            _ => panic!("a frame of kind {operation}: {all:02x?}"),
        }
    }
    is_closed || has_pong
}

/// Others are served: somebody connects, and is greeted.
fn greets(world: &World) {
    let mut stream = world.connect();
    assert!(shake_hands(&mut stream, false, &mut Dice(b"")));
    let hello = json!({"token": token(Some("bob"), 60), "user_details": {"id": "bob"}}).to_string();
    stream.write_all(&whole(0x81, hello.as_bytes())).expect("the server reads a frame");
    let mut head = [0; 2];
    let read = stream.read_exact(&mut head);
    let is_late = read.as_ref().is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
    assert!(!is_late && read.is_ok(), "nobody is greeted: {read:?}");
    assert_eq!(head[0], 0x81, "somebody is greeted with a text");
    let _ = stream.write_all(&whole(0x88, &1000_u16.to_be_bytes()));
    let _ = stream.shutdown(Shutdown::Write);
    let (rest, _) = read_all(&mut stream);
    assert!(String::from_utf8_lossy(&rest).contains("connection.ok"), "{:?}", String::from_utf8_lossy(&rest));
}
