//! Datagrams of anybody to a participant's RTP port, without its sockets: what decides whose they are, and what is heard of them.
//!
//! In: bytes, which say what was agreed, and which datagrams come from where and when. Out: nothing, or a panic: where something
//! is taken that is not of the sender, the stream and the payload type that were agreed, more than their pace allows, or what a
//! receiver or a session refuses.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cuewire::asr::DecodeError;
use cuewire::audio::rtp::{MAX_PAYLOAD_BYTES, ReorderWindow, RtpCodec, RtpFormat, RtpPacket, RtpReceiver};
use cuewire::config::Config;
use cuewire::session::{Input, Output, Session};
use cuewire::time::Timestamp;

use super::Dice;
use crate::ingest::rtp::{Agreed, Gate, MAX_DATAGRAM_BYTES, Progress, Taken};

/// Operations of one run.
const MOST_OPERATIONS: usize = 300;
const BEGIN: Timestamp = Timestamp::from_nanos(1_800_000_000_000_000_000);
/// From 1900, when NTP's first era begins, to 1970.
const NTP_TO_UNIX_S: i64 = 2_208_988_800;
const SSRC: u32 = 7;
const PAYLOAD_TYPE: u8 = 96;
/// The third is the first, as a socket of both families has it.
const SOURCES: [&str; 5] =
    ["10.0.0.1:4000", "10.0.0.1:4002", "[::ffff:10.0.0.1]:4000", "10.0.0.2:4000", "[fe80::1]:4000"];
/// What pace allows beyond real time: at once, by a second, and by a packet that is longer than what is left.
const BURST_S: f64 = 2.0;
const FASTEST: f64 = 8.0;
const LONGEST_S: f64 = 1.0;

/// What comes to a port from its first datagram to its last.
pub fn datagram(data: &[u8]) {
    let mut dice = Dice(data);
    let mut port = Port::new(agreed(&mut dice));
    let mut last = Vec::new();
    for _ in 0..MOST_OPERATIONS {
        if dice.is_over() {
            break;
        }
        let mut from = port.from;
        match dice.operation(9) {
            // As agreed, in real time.
            0 => {
                for _ in 0..=dice.below(10) {
                    port.pass(20);
                    last = port.next();
                    port.take(&last, from);
                }
                continue;
            }
            // All at once.
            1 => {
                for _ in 0..=dice.below(10) * 100 {
                    last = port.next();
                    port.take(&last, from);
                }
                continue;
            }
            2 => {
                port.pass(dice.pick(&[1, 100, 1_000, 5_000, 60_000, 400_000]));
                continue;
            }
            3 => {
                port.is_overloaded = dice.maybe();
                continue;
            }
            // One thing of it is another.
            4 => {
                last = port.next();
                match dice.below(6) {
                    0 => last[1] = dice.byte(),
                    1 => last[11] = dice.byte(),
                    2 => last[2] = dice.byte(),
                    3 => last[4] = dice.byte(),
                    4 => from = dice.below(SOURCES.len()),
                    // Who sends from now on.
                    _ => port.from = dice.below(SOURCES.len()),
                }
            }
            // Contributing sources, an extension, padding: as many as the first byte says, or fewer.
            5 => {
                let first = dice.byte();
                let count = usize::from(dice.byte());
                last = [&[first], &port.next()[1..12], dice.take(count)].concat();
            }
            6 => {
                let (said, ssrc) = (dice.pick(&[0, -300, 5_000, -11_000, 86_400_000]), dice.pick(&[SSRC, 8]));
                last = port.report(said, ssrc);
                // Behind it what else RTCP has, which need be none.
                let count = usize::from(dice.byte().wrapping_sub(b'0'));
                last.extend_from_slice(dice.take(count));
                from = dice.below(SOURCES.len());
            }
            // The last one once more, and something of it is another; or it is longer than any.
            7 => {
                let place = usize::from(dice.byte()) % (last.len() + 1);
                match dice.below(4) {
                    0 => last.truncate(place),
                    1 => last.iter_mut().skip(place).take(1).for_each(|byte| *byte = dice.byte()),
                    2 => last.resize(MAX_DATAGRAM_BYTES - usize::from(dice.maybe()), 1),
                    _ => {}
                }
            }
            _ => {
                let count = usize::from(dice.byte()) * 8;
                last = dice.take(count).to_vec();
                from = dice.below(SOURCES.len());
            }
        }
        port.take(&last, from);
    }
    port.receiver.flush();
    port.drain();
    port.session.handle_input(Input::End).expect("a track can always end");
    port.drain();
    let accounting = port.session.accounting();
    assert_eq!(accounting.total(), port.session.end().0, "every sample is accounted for: {accounting:?}");
}

fn agreed(dice: &mut Dice<'_>) -> Agreed {
    let format = match dice.below(5) {
        0 => RtpFormat::OPUS,
        1 => RtpFormat::new(RtpCodec::Pcmu, 8_000, 1).unwrap(),
        2 => RtpFormat::new(RtpCodec::Pcma, 8_000, 1).unwrap(),
        3 => RtpFormat::new(RtpCodec::L16, 16_000, 1).unwrap(),
        _ => RtpFormat::new(RtpCodec::L16, 44_100, 2).unwrap(),
    };
    let ssrc = dice.pick(&[None, Some(SSRC), Some(8)]);
    let ip = SOURCES[0].parse::<SocketAddr>().unwrap().ip();
    let from = dice.pick(&[None, Some((ip, None)), Some((ip, Some(4000))), Some((ip, Some(4002)))]);
    Agreed { format, payload_type: PAYLOAD_TYPE, ssrc, from }
}

/// A port without its sockets, and what must be so of it.
struct Port {
    agreed: Agreed,
    gate: Gate,
    progress: Progress,
    receiver: RtpReceiver,
    session: Session,
    /// Who sends, by what was taken.
    sender: Option<SocketAddr>,
    heard_s: f64,
    begin: Instant,
    passed: Duration,
    is_overloaded: bool,
    /// Whose packets are next, and what they hold.
    from: usize,
    sequence: u16,
    timestamp: u32,
}

impl Port {
    fn new(agreed: Agreed) -> Self {
        Self {
            gate: Gate::new(agreed.clone()),
            progress: Progress::default(),
            receiver: RtpReceiver::new(agreed.format, ReorderWindow::default()).unwrap(),
            session: Session::new("fuzz", Config::default()),
            sender: None,
            heard_s: 0.0,
            begin: Instant::now(),
            passed: Duration::ZERO,
            is_overloaded: false,
            from: 0,
            sequence: 65_500,
            timestamp: u32::MAX - 10_000,
            agreed,
        }
    }

    fn pass(&mut self, ms: u64) {
        self.passed += Duration::from_millis(ms);
    }

    fn now(&self) -> Timestamp {
        BEGIN.plus_nanos(self.passed.as_nanos() as i64)
    }

    /// The next packet of 20 ms, as agreed.
    fn next(&mut self) -> Vec<u8> {
        let format = self.agreed.format;
        let ticks = format.clock_rate() / 50;
        let payload = match format.codec() {
            RtpCodec::Opus => vec![0x48; 40],
            RtpCodec::L16 => vec![0x11; ticks as usize * 2 * format.channels()],
            _ => vec![0x55; ticks as usize],
        };
        let bytes = [
            &[0x80, PAYLOAD_TYPE][..],
            &self.sequence.to_be_bytes(),
            &self.timestamp.to_be_bytes(),
            &SSRC.to_be_bytes(),
            &payload,
        ]
        .concat();
        (self.sequence, self.timestamp) = (self.sequence.wrapping_add(1), self.timestamp.wrapping_add(ticks));
        bytes
    }

    /// A sender report of a wall clock that is so many milliseconds ahead.
    fn report(&self, ahead_ms: i64, ssrc: u32) -> Vec<u8> {
        let seconds = self.now().plus_nanos(ahead_ms * 1_000_000).as_nanos() / 1_000_000_000 + NTP_TO_UNIX_S;
        let mut bytes = vec![0x80, 200, 0, 6];
        bytes.extend_from_slice(&ssrc.to_be_bytes());
        bytes.extend_from_slice(&((seconds as u64) << 32).to_be_bytes());
        for word in [self.timestamp, 100, 64_000] {
            bytes.extend_from_slice(&word.to_be_bytes());
        }
        bytes
    }

    fn take(&mut self, bytes: &[u8], from: usize) {
        let from: SocketAddr = SOURCES[from].parse().unwrap();
        let clocks = (self.now(), self.begin + self.passed);
        let Ok(taken) = self.gate.take(bytes, from, clocks, self.is_overloaded) else { return };
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        assert!(bytes.len() < MAX_DATAGRAM_BYTES, "{} bytes are taken", bytes.len());
        match taken {
            Taken::Control => {
                let sender = self.sender.map(|sender| sender.ip()).or(self.agreed.from.map(|(ip, _)| ip));
                assert!(sender.is_none_or(|sender| sender == from.ip()), "a report of {from}");
                for ssrc in reports(bytes) {
                    assert!(self.agreed.ssrc.is_none_or(|agreed| agreed == ssrc), "a report of the stream {ssrc}");
                }
            }
            Taken::Audio(packet, nanos) => {
                assert_eq!(bytes[1] & 0x7f, PAYLOAD_TYPE, "only what was agreed is audio");
                assert!((0..1_000_000_000).contains(&nanos), "a packet of {nanos} ns");
                self.is_of_sender(bytes, packet, from);
                self.heard_s += Duration::from_nanos(nanos.unsigned_abs()).as_secs_f64();
                let most_s = BURST_S + FASTEST * self.passed.as_secs_f64() + LONGEST_S;
                assert!(self.heard_s <= most_s, "{} s are taken within {:?}", self.heard_s, self.passed);
                let _ = self.progress.end(&packet, self.agreed.format.clock_rate(), nanos);
                self.receiver.handle_packet(packet).expect("the gate lets through what a receiver takes");
            }
            Taken::Other(packet) => {
                assert!(self.sender.is_some(), "nobody is the sender by what is no audio");
                assert!(bytes[1] & 0x7f != PAYLOAD_TYPE && packet.payload.is_empty(), "{packet:?}");
                self.is_of_sender(bytes, packet, from);
                self.receiver.handle_packet(packet).expect("the gate lets through what a receiver takes");
            }
        }
        self.drain();
    }

    /// What was taken is of who was agreed on, or was the first.
    fn is_of_sender(&mut self, bytes: &[u8], packet: RtpPacket<'_>, from: SocketAddr) {
        let is_agreed =
            self.agreed.from.is_none_or(|(ip, port)| ip == from.ip() && port.is_none_or(|port| port == from.port()));
        assert!(self.sender.map_or(is_agreed, |sender| sender == from), "{from} is taken for {:?}", self.sender);
        self.sender = Some(from);
        assert_eq!(packet.ssrc.to_be_bytes(), bytes[8..12], "a packet is of its stream");
        assert!(self.agreed.ssrc.is_none_or(|agreed| agreed == packet.ssrc), "a packet of {}", packet.ssrc);
        let longest = MAX_PAYLOAD_BYTES.min(bytes.len() - 12);
        assert!(packet.payload.len() <= longest, "{} bytes of {}", packet.payload.len(), bytes.len());
        assert!(packet.at.nanos_since(self.now()).abs() < 12_000_000_000, "a packet of {}", packet.at);
    }

    fn drain(&mut self) {
        let mut most = 10_000;
        while let Some(piece) = self.receiver.poll_output() {
            most -= 1;
            assert!(most > 0, "what a packet gives has an end");
            let pushed = self.session.handle_input(Input::Audio { at: piece.at, pcm: piece.pcm });
            assert_eq!(pushed, Ok(()), "a session takes every piece");
        }
        loop {
            match self.session.poll_output() {
                Output::Wait(_) => return,
                Output::Decode(job) => {
                    let answer = Input::Decoded { job: job.id, result: Err(DecodeError::Shed) };
                    self.session.handle_input(answer).expect("what was asked may be answered");
                }
                _ => {}
            }
        }
    }
}

/// The streams of all sender reports in a compound packet (RFC 3550, 6.1).
fn reports(mut bytes: &[u8]) -> Vec<u32> {
    let mut all = Vec::new();
    while let [_, kind, high, low, rest @ ..] = bytes {
        if let (200, Some(ssrc)) = (kind, rest.first_chunk()) {
            all.push(u32::from_be_bytes(*ssrc));
        }
        let words = usize::from(u16::from_be_bytes([*high, *low])) + 1;
        bytes = bytes.get(words * 4..).unwrap_or_default();
    }
    all
}
