//! Audio by RTP: every codec, what networks and strangers do, clocks, and how a participant's stay begins and ends.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use cuewire::time::Timestamp;
use cuewire_server::now;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use opus_pure::{Application, OpusEncoder};
use serde_json::{Value, json};

mod support;

use support::{Service, Socket, eventually, sounds::sound, time, types, utterance};

const CALL: &str = "/api/v2/video/call/default/a";

/// A server whose ports are its own among the tests that run beside each other.
fn start(change: impl FnOnce(&mut cuewire_server::ServerConfig)) -> Service {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let first = 21_000 + 100 * NEXT.fetch_add(1, Ordering::Relaxed) as u16;
    Service::start_with(|config| {
        config.rtp.ports = [first, first + 99];
        change(config);
    })
}

/// A call with captions, and who watches it.
fn captioned(service: &Service) -> Socket {
    let timeout = json!({"session": {"inactivity_timeout_seconds": 2}});
    service.ok("POST", CALL, "", &json!({"data": {"created_by_id": "carol", "settings_override": timeout}}));
    let (watcher, connection) = service.watch("carol", "");
    service.ok("GET", &format!("/video/call/default/a?connection_id={connection}"), "carol", &json!({}));
    service.ok("POST", &format!("{CALL}/start_closed_captions"), "carol", &json!({}));
    watcher
}

/// The next final caption, and how long it is, in milliseconds.
fn next(watcher: &mut Socket) -> (Value, i64) {
    let caption = watcher.until("call.closed_caption").last().unwrap()["closed_caption"].clone();
    let ms = time(&caption["end_time"]).nanos_since(time(&caption["start_time"])) / 1_000_000;
    (caption, ms)
}

fn open(service: &Service, body: &Value) -> Value {
    service.ok("POST", &format!("{CALL}/rtp"), "", body)
}

fn l16(user_id: &str) -> Value {
    json!({"user_id": user_id, "payload_type": 96, "codec": "L16", "clock_rate": 16_000, "channels": 1})
}

/// Somebody's media server.
struct Sender {
    socket: UdpSocket,
    to: SocketAddr,
    payload_type: u8,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
}

impl Sender {
    fn new(answer: &Value) -> Self {
        let to = format!("{}:{}", answer["address"].as_str().unwrap(), answer["port"]).parse().unwrap();
        let payload_type = answer["payload_type"].as_u64().unwrap() as u8;
        let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        // Both counters wrap early on.
        Self { socket, to, payload_type, ssrc: 7, sequence: u16::MAX - 20, timestamp: u32::MAX - 9_000 }
    }

    fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x80, self.payload_type];
        bytes.extend_from_slice(&self.sequence.to_be_bytes());
        bytes.extend_from_slice(&self.timestamp.to_be_bytes());
        bytes.extend_from_slice(&self.ssrc.to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    fn send(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.to).unwrap();
    }

    /// Packets, each with its ticks, as they are to be sent: in this order, with what is changed of it.
    fn packets(&mut self, payloads: &[Vec<u8>], ticks: u32) -> Vec<Vec<u8>> {
        let packets = payloads.iter().map(|payload| {
            let packet = self.packet(payload);
            self.sequence = self.sequence.wrapping_add(1);
            self.timestamp = self.timestamp.wrapping_add(ticks);
            packet
        });
        packets.collect()
    }

    /// Twice as fast as one speaks: what a port holds that is not read at once is less than a second of it.
    fn send_all(&self, packets: &[Vec<u8>]) {
        for packet in packets {
            self.send(packet);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// An utterance of a second, in 2.5 s, as L16 at 16 kHz.
    fn speak(&mut self) {
        let packets = self.packets(&plain(&utterance(), 320), 320);
        self.send_all(&packets);
    }

    /// Says to which port of the server that the RTP timestamp of the next packet is this time.
    fn report(&self, at: Timestamp, port: u16) {
        let mut bytes = vec![0x80, 200, 0, 6];
        bytes.extend_from_slice(&self.ssrc.to_be_bytes());
        let (seconds, nanos) = (at.as_nanos() / 1_000_000_000, at.as_nanos() % 1_000_000_000);
        bytes.extend_from_slice(&((seconds + 2_208_988_800) as u32).to_be_bytes());
        bytes.extend_from_slice(&(((nanos as u64) << 32) / 1_000_000_000).to_be_bytes()[4..]);
        for word in [self.timestamp, 1, 640] {
            bytes.extend_from_slice(&word.to_be_bytes());
        }
        self.socket.send_to(&bytes, (self.to.ip(), port)).unwrap();
    }
}

/// Payloads of L16, of so many samples each.
fn plain(samples: &[i16], frame: usize) -> Vec<Vec<u8>> {
    samples.chunks_exact(frame).map(|frame| frame.iter().flat_map(|sample| sample.to_be_bytes()).collect()).collect()
}

/// G.711's coding, from its definition.
fn mu_law(sample: i16) -> u8 {
    let magnitude = sample.unsigned_abs().min(32_635) + 132;
    let segment = magnitude.ilog2() as u8 - 7;
    let sign = if sample < 0 { 0x80 } else { 0 };
    !(sign | segment << 4 | (magnitude >> (segment + 3)) as u8 & 0xf)
}

fn a_law(sample: i16) -> u8 {
    let (magnitude, sign) = if sample < 0 { (!sample >> 4, 0) } else { (sample >> 4, 0x80) };
    let segment = if magnitude < 16 { 0 } else { magnitude.ilog2() as u8 - 3 };
    (sign | segment << 4 | (magnitude >> segment.saturating_sub(1)) as u8 & 0xf) ^ 0x55
}

fn opus(samples: &[i16]) -> Vec<Vec<u8>> {
    let mut encoder = OpusEncoder::new(48_000, 1, Application::Voip).unwrap();
    let mut buffer = vec![0; 4000];
    let samples: Vec<f32> = samples.iter().map(|sample| f32::from(*sample) / 32_768.0).collect();
    let packets = samples.chunks_exact(960).map(|pcm| {
        let bytes = encoder.encode(pcm, 960, &mut buffer).unwrap();
        buffer[..bytes].to_vec()
    });
    packets.collect()
}

#[test]
fn every_codec_is_heard_from_the_first_packet_to_the_close() {
    let service = start(|_| ());
    let mut watcher = captioned(&service);
    let at = |rate| sound(rate, 2_500, &[(300, 1_300)]);
    let coded = |law: fn(i16) -> u8| -> Vec<Vec<u8>> {
        at(8_000).chunks_exact(160).map(|frame| frame.iter().map(|sample| law(*sample)).collect()).collect()
    };
    let stereo: Vec<i16> = at(44_100).iter().flat_map(|sample| [*sample, 0]).collect();
    for (payload_type, codec, rate, channels, payloads) in [
        (111, "opus", 48_000, 2, opus(&at(48_000))),
        (0, "pcmu", 8_000, 1, coded(mu_law)),
        (8, "pcma", 8_000, 1, coded(a_law)),
        (96, "L16", 16_000, 1, plain(&at(16_000), 320)),
        (96, "L16", 48_000, 1, plain(&at(48_000), 960)),
        (10, "L16", 44_100, 2, plain(&stereo, 2 * 882)),
    ] {
        let answer = open(
            &service,
            &json!({"user_id": "alice", "payload_type": payload_type, "codec": codec, "clock_rate": rate, "channels": channels}),
        );
        let said = [&answer["user_id"], &answer["codec"], &answer["clock_rate"], &answer["address"]];
        assert_eq!(said, [&json!("alice"), &json!(codec), &json!(rate), &json!("127.0.0.1")]);
        let port = answer["port"].as_u64().unwrap();
        assert_eq!((port % 2, answer["rtcp_port"].as_u64().unwrap()), (0, port + 1));
        // Who has a port has not joined.
        let call = service.ok("GET", CALL, "", &json!({}));
        assert_eq!(call["call"]["session"]["participants"].as_array().map_or(0, Vec::len), 0, "{codec}");
        let mut sender = Sender::new(&answer);
        let packets = sender.packets(&payloads, rate / 50);
        sender.send_all(&packets);
        let events = watcher.until("call.closed_caption");
        assert_eq!(
            types(&events).iter().filter(|kind| **kind == "call.session_participant_joined").count(),
            1,
            "{codec}"
        );
        let caption = &events.last().unwrap()["closed_caption"];
        assert_eq!((&caption["text"], &caption["speaker_id"]), (&json!("heard en"), &json!("alice")), "{codec}");
        let ms = time(&caption["end_time"]).nanos_since(time(&caption["start_time"])) / 1_000_000;
        assert!((900..1_300).contains(&ms), "{codec}: {caption}");
        service.ok("DELETE", &format!("{CALL}/rtp/{port}"), "", &json!({}));
        watcher.until("call.session_participant_left");
        let (code, message) = service.refused("DELETE", &format!("{CALL}/rtp/{port}"), "", &json!({}));
        assert_eq!((code, message.contains(&port.to_string())), (16, true), "it was given back: {message}");
    }
}

/// Counters by name and reason, of this whole process.
#[derive(Clone, Default)]
struct Counted(Arc<Mutex<HashMap<String, Arc<AtomicU64>>>>);

impl Recorder for Counted {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let reason = key.labels().map(|label| label.value()).collect::<Vec<_>>().join(",");
        let mut counters = self.0.lock().unwrap();
        Counter::from_arc(counters.entry(format!("{} {reason}", key.name())).or_default().clone())
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// How often something was dropped so far.
fn dropped(reason: &str) -> u64 {
    let counted = counted().0.lock().unwrap();
    counted.get(&format!("cuewire_rtp_dropped_total {reason}")).map_or(0, |count| count.load(Ordering::Relaxed))
}

fn counted() -> &'static Counted {
    static COUNTED: OnceLock<Counted> = OnceLock::new();
    COUNTED.get_or_init(|| {
        let counted = Counted::default();
        metrics::set_global_recorder(counted.clone()).unwrap_or_else(|error| panic!("{error}"));
        counted
    })
}

#[test]
fn loss_disorder_and_strangers_change_nothing_that_is_heard() {
    counted();
    let service = start(|_| ());
    let mut watcher = captioned(&service);
    let mut body = l16("alice");
    body["ssrc"] = json!(7);
    let mut sender = Sender::new(&open(&service, &body));
    let mut packets = sender.packets(&plain(&utterance(), 320), 320);
    // Every tenth is lost, pairs are the wrong way round, and some come twice.
    for pair in (0..packets.len() - 1).step_by(5) {
        packets.swap(pair, pair + 1);
    }
    let mut sent: Vec<Vec<u8>> =
        packets.iter().enumerate().filter(|(index, _)| index % 10 != 9).map(|(_, packet)| packet.clone()).collect();
    for twice in [3, 30, 60, 100] {
        sent.insert(twice, sent[twice].clone());
    }
    let stranger = Sender { ssrc: 7, ..Sender::new(&open(&service, &l16("bob"))) };
    let stranger = Sender { to: sender.to, ..stranger };
    sender.send(&sent[0]);
    watcher.until("call.session_participant_joined");
    for (index, packet) in sent.iter().enumerate().skip(1) {
        sender.send(packet);
        // Noise in the same stream, from elsewhere; and from here in another stream, of another type, and of no kind.
        stranger.send(&stranger.packet(&[0x55; 640]));
        sender.send(&Sender { ssrc: 8, socket: sender.socket.try_clone().unwrap(), ..sender }.packet(&[0x55; 640]));
        let mut other = packet.clone();
        other[1] = 97;
        sender.send(&other);
        sender.send(&[0x55; 100][..index % 100]);
        std::thread::sleep(Duration::from_millis(10));
    }
    let (caption, ms) = next(&mut watcher);
    assert_eq!(caption["speaker_id"], "alice");
    assert!((900..1_300).contains(&ms), "{caption}");
    let times = sent.len() as u64 - 1;
    for reason in ["elsewhere", "ssrc", "payload_type", "malformed"] {
        eventually(&format!("{reason} is counted"), || dropped(reason) >= times);
    }
    // Five seconds that are lost are no silence that was heard: what is behind them has its time.
    let start = sender.timestamp;
    sender.sequence = sender.sequence.wrapping_add(250);
    sender.timestamp = start.wrapping_add(5 * 16_000);
    std::thread::sleep(Duration::from_millis(1_500));
    sender.speak();
    let (later, _) = next(&mut watcher);
    let apart_ms = time(&later["start_time"]).nanos_since(time(&caption["start_time"])) / 1_000_000;
    assert!((7_350..7_650).contains(&apart_ms), "{apart_ms}");
}

#[test]
fn sender_reports_date_captions_and_another_stream_of_the_sender_goes_on() {
    let service = start(|_| ());
    let mut watcher = captioned(&service);
    let answer = open(&service, &l16("alice"));
    let (port, rtcp) = (answer["port"].as_u64().unwrap() as u16, answer["rtcp_port"].as_u64().unwrap() as u16);
    let mut sender = Sender::new(&answer);
    // Their clock is behind by three seconds. A word before the first packet, on the port of its own.
    let began = now().plus_nanos(-3_000_000_000);
    sender.report(began, rtcp);
    std::thread::sleep(Duration::from_millis(50));
    sender.speak();
    let (caption, _) = next(&mut watcher);
    let at_ms = time(&caption["start_time"]).nanos_since(began) / 1_000_000;
    assert!((250..350).contains(&at_ms), "300 ms behind the report, by the sender's clock: {at_ms}");
    // Another stream, whose numbers have nothing to do with the old ones', and its report on the port of the audio.
    let before = service.ok("GET", CALL, "", &json!({}))["call"]["session"]["participants"].clone();
    (sender.ssrc, sender.sequence, sender.timestamp) = (99, 40_000, 5);
    // Ahead by so much that what lies between is a gap, and no silence that was heard.
    let again = now().plus_nanos(4_000_000_000);
    sender.report(again, port);
    sender.speak();
    let (caption, ms) = next(&mut watcher);
    let at_ms = time(&caption["start_time"]).nanos_since(again) / 1_000_000;
    assert!((250..350).contains(&at_ms), "{at_ms}: {caption}");
    assert!((900..1_300).contains(&ms), "{caption}");
    let behind = service.ok("GET", CALL, "", &json!({}))["call"]["session"]["participants"].clone();
    assert_eq!((before.as_array().unwrap().len(), &behind), (1, &before), "nobody has left");

    // A clock that counts from when a machine was started is none: arrival dates it, but for a moment of patience.
    let mut bob = Sender::new(&open(&service, &l16("bob")));
    bob.report(Timestamp::from_nanos(86_400_000_000_000), bob.to.port() + 1);
    std::thread::sleep(Duration::from_millis(50));
    let began = now();
    bob.speak();
    let (caption, _) = next(&mut watcher);
    let at_ms = time(&caption["start_time"]).nanos_since(began) / 1_000_000;
    assert!((200..3_000).contains(&at_ms), "{at_ms}");
}

#[test]
fn silence_is_a_leave_and_a_port_that_nobody_uses_is_given_back() {
    let service = start(|config| config.rtp.unused_s = 1);
    let mut watcher = captioned(&service);
    let unused = open(&service, &l16("bob"))["port"].as_u64().unwrap();
    let answer = open(&service, &l16("alice"));
    let mut sender = Sender::new(&answer);
    sender.speak();
    let began = now();
    watcher.until("call.session_participant_left");
    // The call's own timeout.
    let ms = now().nanos_since(began) / 1_000_000;
    assert!((1_000..8_000).contains(&ms), "{ms}");
    for port in [unused, answer["port"].as_u64().unwrap()] {
        let gone = || service.request("DELETE", &format!("{CALL}/rtp/{port}"), "", &json!({})).1["code"] == 16;
        eventually("the port is given back", gone);
    }
    // The end of the call is one too.
    let mut sender = Sender::new(&open(&service, &l16("alice")));
    sender.speak();
    watcher.until("call.session_participant_joined");
    service.ok("POST", &format!("{CALL}/mark_ended"), "carol", &json!({}));
    watcher.until("call.session_participant_left");
    let (code, _) = service.refused("POST", &format!("{CALL}/rtp"), "alice", &l16("alice"));
    assert_eq!(code, 17, "an ended call takes nobody who may not join it");
}

#[test]
fn users_have_a_quota_and_need_send_audio() {
    let service = start(|_| ());
    let mut watcher = captioned(&service);
    let path = format!("{CALL}/rtp");
    let permissions = |field: &str| {
        let body = json!({"user_id": "alice", field: ["send-audio"]});
        service.ok("POST", &format!("{CALL}/user_permissions"), "", &body);
    };
    let first = service.ok("POST", &path, "alice", &l16("alice"));
    let mut body = l16("alice");
    body.as_object_mut().unwrap().remove("user_id");
    let second = service.ok("POST", &path, "alice", &body);
    let (code, message) = service.refused("POST", &path, "alice", &body);
    assert_eq!((code, message.contains("allowed are 2")), (17, true), "{message}");
    assert_eq!(service.refused("POST", &path, "alice", &l16("bob")).0, 5, "speaking as another");
    assert_eq!(service.refused("POST", &path, "", &body).0, 4, "a server says who speaks");
    let close = |user: &str, port: &Value| service.request("DELETE", &format!("{path}/{port}"), user, &json!({}));
    assert_eq!(close("bob", &second["port"]).1["code"], 17, "closing another's");
    assert_eq!(close("alice", &second["port"]).0, 200);
    assert_eq!(close("alice", &json!("x")).1["code"], 4);

    let mut sender = Sender::new(&first);
    sender.speak();
    next(&mut watcher);
    permissions("revoke_permissions");
    watcher.until("call.session_participant_left");
    eventually("the port is given back", || close("alice", &first["port"]).1["code"] == 16);
    assert_eq!(service.refused("POST", &path, "alice", &l16("alice")).0, 17);
    assert_eq!(service.refused("POST", &path, "", &l16("alice")).0, 17, "nor by a server for who was silenced");
    permissions("grant_permissions");
    // A server is held to no quota, but to the ports there are.
    let ports: Vec<Value> = (0..10).map(|_| open(&service, &l16("alice"))["port"].clone()).collect();
    ports.iter().for_each(|port| assert_eq!(close("", port).0, 200));

    for (fields, part) in [
        (json!({"user_id": "alice", "payload_type": 96, "codec": "opus", "clock_rate": 8_000}), "48000"),
        (json!({"user_id": "alice", "payload_type": 0, "codec": "opus"}), "pcmu/8000/1"),
        (json!({"user_id": "alice", "payload_type": 300, "codec": "opus"}), "payload_type"),
        (json!({"user_id": "alice", "payload_type": 96, "codec": "opus", "from": "nowhere"}), "`nowhere`"),
        (json!({"user_id": "alice"}), "payload_type"),
    ] {
        let (code, message) = service.refused("POST", &path, "", &fields);
        assert_eq!((code, message.contains(part)), (4, true), "{fields}: {message}");
    }
    assert_eq!(service.refused("POST", "/api/v2/video/call/default/none/rtp", "", &l16("alice")).0, 16);
}

#[test]
fn ports_run_out_and_come_back() {
    let service = start(|config| config.rtp.ports[1] = config.rtp.ports[0] + 3);
    captioned(&service);
    let ports: Vec<u64> = (0..2).map(|_| open(&service, &l16("alice"))["port"].as_u64().unwrap()).collect();
    let (code, message) = service.refused("POST", &format!("{CALL}/rtp"), "", &l16("alice"));
    assert_eq!((code, message.contains("2 are in use")), (-1, true), "{message}");
    service.ok("DELETE", &format!("{CALL}/rtp/{}", ports[0]), "", &json!({}));
    assert_eq!(open(&service, &l16("alice"))["port"], ports[0]);
}

#[test]
fn an_address_that_is_not_this_machines_is_named() {
    let service = start(|config| config.rtp.address = "203.0.113.7".parse().unwrap());
    captioned(&service);
    let (code, message) = service.refused("POST", &format!("{CALL}/rtp"), "", &l16("alice"));
    assert_eq!((code, message.contains("203.0.113.7: ")), (-1, true), "{message}");
}

#[test]
fn a_full_server_says_so_and_who_had_a_port_before_joins_once_there_is_room() {
    let service = start(|config| config.limits.max_tracks = 1);
    let mut watcher = captioned(&service);
    let timeout = json!({"session": {"inactivity_timeout_seconds": 2}});
    let other = "/api/v2/video/call/default/b";
    service.ok("POST", other, "", &json!({"data": {"created_by_id": "carol", "settings_override": timeout}}));
    let (mut beside, connection) = service.watch("carol", "");
    service.ok("GET", &format!("/video/call/default/b?connection_id={connection}"), "carol", &json!({}));
    let (alice, bob) = (open(&service, &l16("alice")), service.ok("POST", &format!("{other}/rtp"), "", &l16("bob")));
    Sender::new(&alice).speak();
    watcher.until("call.session_participant_joined");
    let (code, message) = service.refused("POST", &format!("{other}/rtp"), "", &l16("dave"));
    assert_eq!((code, message.contains("the server is full: it has 1 tracks")), (-1, true), "{message}");
    assert_eq!(open(&service, &l16("alice"))["user_id"], "alice", "who is there may come another way");
    // He sends all the time; her session ends when she was silent for long enough, and with it her track.
    let mut bob = Sender::new(&bob);
    let (payloads, began) = (plain(&[0; 320], 320), now());
    bob.speak();
    loop {
        let packets = bob.packets(&payloads, 320);
        bob.send_all(&packets);
        if service.ok("GET", other, "", &json!({}))["call"]["session"].is_object() {
            break;
        }
        assert!(now().nanos_since(began) < 20_000_000_000, "bob was refused once, and never again let in");
    }
    beside.until("call.session_participant_joined");
    let gone = now().nanos_since(began) / 1_000_000_000;
    assert!(gone >= 2, "while she was there, he was not: {gone} s");
}

#[test]
fn comfort_noise_is_no_silence_and_the_timeout_is_the_calls_as_it_is_now() {
    let service = start(|_| ());
    let mut watcher = captioned(&service);
    let mut body = l16("alice");
    body["from"] = json!("127.0.0.1");
    let answer = open(&service, &body);
    let mut sender = Sender::new(&answer);
    let elsewhere = Sender { socket: UdpSocket::bind(("127.0.0.2", 0)).unwrap(), ..Sender::new(&answer) };
    elsewhere.send(&elsewhere.packet(&[0; 640]));
    sender.speak();
    next(&mut watcher);
    let was_silent_for = |watcher: &mut Socket, began: Timestamp| {
        watcher.until("call.session_participant_left");
        now().nanos_since(began) / 1_000_000
    };
    // For twice as long as one may be silent.
    sender.payload_type = 13;
    for _ in 0..20 {
        let packets = sender.packets(&[vec![40]], 3_200);
        sender.send_all(&packets);
        std::thread::sleep(Duration::from_millis(200));
    }
    let timeout = json!({"settings_override": {"session": {"inactivity_timeout_seconds": 5}}});
    service.ok("PATCH", CALL, "", &timeout);
    let ms = was_silent_for(&mut watcher, now());
    assert!((4_000..8_000).contains(&ms), "{ms}");
}

#[test]
fn a_second_connection_takes_the_place_of_the_first_whichever_way_they_come() {
    let service = start(|_| ());
    let mut watcher = captioned(&service);
    let mut socket = service.join("default/a", "alice");
    socket.speak(&utterance());
    let (first, _) = next(&mut watcher);
    let answer = open(&service, &l16("alice"));
    let mut sender = Sender::new(&answer);
    sender.speak();
    assert_eq!(socket.close_code(), 1000);
    let (second, _) = next(&mut watcher);
    assert!(time(&second["start_time"]).nanos_since(time(&first["end_time"])) > 0);
    let mut socket = service.join("default/a", "alice");
    eventually("the port is given back", || {
        service.request("DELETE", &format!("{CALL}/rtp/{}", answer["port"]), "", &json!({})).1["code"] == 16
    });
    socket.speak(&utterance());
    let (third, ms) = next(&mut watcher);
    assert!((900..1_300).contains(&ms), "{third}");
    assert!(time(&third["start_time"]).nanos_since(time(&second["end_time"])) > 0);
    socket.leave();
    let events = watcher.until("call.session_participant_left");
    assert!(!types(&events).contains(&"call.session_participant_joined"), "they were there all the time");
}

#[test]
fn who_asks_again_behind_a_restart_goes_on() {
    let mut service = start(|_| ());
    let mut watcher = captioned(&service);
    // Time enough for who returns.
    service.ok("PATCH", CALL, "", &json!({"settings_override": {"session": {"inactivity_timeout_seconds": 5}}}));
    let mut sender = Sender::new(&open(&service, &l16("alice")));
    sender.speak();
    next(&mut watcher);
    let session = service.ok("GET", CALL, "", &json!({}))["call"]["current_session_id"].clone();
    service.restart_with(|config| config.rtp.ports = [29_000, 29_099]);
    let (mut watcher, connection) = service.watch("carol", "");
    service.ok("GET", &format!("/video/call/default/a?connection_id={connection}"), "carol", &json!({}));
    let answer = open(&service, &l16("alice"));
    sender.to.set_port(answer["port"].as_u64().unwrap() as u16);
    sender.speak();
    let events = watcher.until("call.closed_caption");
    assert!(!types(&events).contains(&"call.session_participant_left"), "{:?}", types(&events));
    assert_eq!(service.ok("GET", CALL, "", &json!({}))["call"]["current_session_id"], session);
}
