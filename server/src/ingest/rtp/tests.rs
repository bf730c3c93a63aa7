//! Datagrams without sockets.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cuewire::audio::rtp::{RtpCodec, RtpFormat};
use cuewire::time::Timestamp;
use proptest::prelude::*;

use super::RtpConfig;
use super::gate::{Agreed, Dropped, Gate, MAX_DATAGRAM_BYTES, Taken};

const NOW: Timestamp = Timestamp::from_nanos(1_800_000_000_000_000_000);

fn agreed(ssrc: Option<u32>, from: Option<&str>) -> Agreed {
    let from = from.map(|from| match from.parse::<SocketAddr>() {
        Ok(addr) => (addr.ip(), Some(addr.port())),
        Err(_) => (from.parse().unwrap(), None),
    });
    let format = RtpFormat::new(RtpCodec::L16, 16_000, 1).unwrap();
    Agreed { format, payload_type: 96, ssrc, from }
}

/// A packet of 20 ms.
fn packet(payload_type: u8, ssrc: u32, sequence: u16) -> Vec<u8> {
    let timestamp = u32::from(sequence) * 320;
    let mut bytes = vec![0x80, payload_type];
    bytes.extend_from_slice(&sequence.to_be_bytes());
    bytes.extend_from_slice(&timestamp.to_be_bytes());
    bytes.extend_from_slice(&ssrc.to_be_bytes());
    bytes.extend_from_slice(&[sequence as u8; 640]);
    bytes
}

/// A sender report, with what FFmpeg and GStreamer send behind it: who it is.
fn report(ssrc: u32, ntp: u64, timestamp: u32) -> Vec<u8> {
    let mut bytes = vec![0x80, 200, 0, 6];
    bytes.extend_from_slice(&ssrc.to_be_bytes());
    bytes.extend_from_slice(&ntp.to_be_bytes());
    for word in [timestamp, 100, 64_000] {
        bytes.extend_from_slice(&word.to_be_bytes());
    }
    bytes.extend_from_slice(&[0x81, 202, 0, 3]);
    bytes.extend_from_slice(&ssrc.to_be_bytes());
    bytes.extend_from_slice(&[1, 4, b'n', b'a', b'm', b'e', 0, 0]);
    bytes
}

fn ntp(at: Timestamp) -> u64 {
    ((at.as_nanos() / 1_000_000_000 + 2_208_988_800) as u64) << 32
}

fn take(gate: &mut Gate, datagram: &[u8], from: &str) -> Result<Option<(Timestamp, u16, Vec<u8>)>, Dropped> {
    let taken = gate.take(datagram, from.parse().unwrap(), (NOW, Instant::now()), false)?;
    Ok(match taken {
        Taken::Audio(packet, _) => Some((packet.at, packet.sequence, packet.payload.to_vec())),
        Taken::Other(_) | Taken::Control => None,
    })
}

#[test]
fn the_first_that_sends_what_was_agreed_is_the_sender() {
    let mut gate = Gate::new(agreed(None, None));
    assert_eq!(take(&mut gate, &packet(97, 1, 0), "10.0.0.1:4000"), Err(Dropped::PayloadType));
    assert!(take(&mut gate, &packet(96, 1, 1), "10.0.0.2:4000").is_ok());
    assert_eq!(take(&mut gate, &packet(96, 1, 2), "10.0.0.2:4002"), Err(Dropped::Elsewhere));
    assert_eq!(take(&mut gate, &packet(96, 1, 2), "10.0.0.1:4000"), Err(Dropped::Elsewhere));
    // A socket of both families gives addresses of the old one like this.
    assert!(take(&mut gate, &packet(96, 1, 2), "[::ffff:10.0.0.2]:4000").is_ok());
    assert!(take(&mut gate, &packet(96, 9, 700), "10.0.0.2:4000").is_ok(), "another stream of theirs");

    let mut gate = Gate::new(agreed(Some(7), Some("10.0.0.2")));
    assert_eq!(take(&mut gate, &packet(96, 7, 0), "10.0.0.1:4000"), Err(Dropped::Elsewhere));
    assert_eq!(take(&mut gate, &packet(96, 1, 0), "10.0.0.2:4000"), Err(Dropped::Ssrc));
    assert!(take(&mut gate, &packet(96, 7, 0), "10.0.0.2:4002").is_ok());
    assert_eq!(take(&mut gate, &packet(96, 7, 1), "10.0.0.2:4000"), Err(Dropped::Elsewhere), "there can be one");

    let mut gate = Gate::new(agreed(None, Some("10.0.0.2:4000")));
    assert_eq!(take(&mut gate, &packet(96, 7, 0), "10.0.0.2:4002"), Err(Dropped::Elsewhere));
    assert!(take(&mut gate, &packet(96, 7, 0), "10.0.0.2:4000").is_ok());
}

#[test]
fn sources_extensions_and_padding_are_no_audio() {
    let mut gate = Gate::new(agreed(None, None));
    let plain = packet(96, 1, 5);
    let (header, payload) = plain.split_at(12);
    // Two contributing sources, an extension of one word, four bytes of padding; the marker.
    let mut full = header.to_vec();
    (full[0], full[1]) = (0x80 | 0x20 | 0x10 | 2, 0x80 | 96);
    full.extend_from_slice(&[0; 8]);
    full.extend_from_slice(&[0xbe, 0xde, 0, 1, 0x10, 0xff, 0, 0]);
    full.extend_from_slice(payload);
    full.extend_from_slice(&[0, 0, 0, 4]);
    let expected = Some((NOW.plus_nanos(-20_000_000), 5, payload.to_vec()));
    assert_eq!(take(&mut gate, &full, "10.0.0.1:4000"), Ok(expected));
    // Nothing but padding keeps a path open.
    let mut padding = header.to_vec();
    padding[0] |= 0x20;
    padding.extend_from_slice(&[0, 0, 0, 4]);
    assert_eq!(take(&mut gate, &padding, "10.0.0.1:4000"), Ok(Some((NOW, 5, vec![]))));

    let mut wrong = [plain.clone(), plain.clone(), plain.clone(), padding, plain];
    wrong[0][0] = 0x40;
    wrong[1].truncate(11);
    wrong[2].truncate(12 + 639);
    // More padding than packet.
    wrong[3][15] = 5;
    wrong[4].resize(MAX_DATAGRAM_BYTES, 0);
    for (index, datagram) in wrong.iter().enumerate() {
        assert_eq!(take(&mut gate, datagram, "10.0.0.1:4000"), Err(Dropped::Malformed), "{index}");
    }
    assert_eq!(take(&mut gate, &[], "10.0.0.1:4000"), Err(Dropped::Malformed));
}

#[test]
fn reports_tie_the_clocks_whichever_port_they_come_from() {
    let at = |ms: i64| NOW.plus_nanos(ms * 1_000_000);
    let mut gate = Gate::new(agreed(None, None));
    // Before the first packet, as FFmpeg has it.
    assert_eq!(take(&mut gate, &report(1, ntp(at(-2_000)), 3_200), "10.0.0.1:4001"), Ok(None));
    let taken = take(&mut gate, &packet(96, 1, 11), "10.0.0.1:4000").unwrap().unwrap();
    assert_eq!(taken.0, at(-2_000 + 20));
    assert_eq!(
        take(&mut gate, &report(1, ntp(at(-1_000)), 3_200), "10.0.0.1:4000"),
        Ok(None),
        "on the port of the audio"
    );
    assert_eq!(take(&mut gate, &packet(96, 1, 11), "10.0.0.1:4000").unwrap().unwrap().0, at(-1_000 + 20));
    assert_eq!(take(&mut gate, &report(1, ntp(at(-3_000)), 3_200), "10.0.0.2:4001"), Err(Dropped::Elsewhere));
    assert_eq!(take(&mut gate, &report(1, 86_400 << 32, 3_200), "10.0.0.1:4001"), Err(Dropped::Report));
    assert_eq!(take(&mut gate, &report(1, ntp(NOW), 0)[..20], "10.0.0.1:4001"), Err(Dropped::Malformed));
    assert_eq!(take(&mut gate, &packet(96, 1, 11), "10.0.0.1:4000").unwrap().unwrap().0, at(-1_000 + 20));

    let mut gate = Gate::new(agreed(Some(1), Some("10.0.0.1")));
    assert_eq!(take(&mut gate, &report(2, ntp(NOW), 0), "10.0.0.1:4001"), Err(Dropped::Ssrc));
    assert_eq!(take(&mut gate, &report(1, ntp(NOW), 0), "10.0.0.2:4001"), Err(Dropped::Elsewhere));
}

#[test]
fn who_sends_faster_than_audio_is_taken_loses_what_is_too_much() {
    let mut gate = Gate::new(agreed(None, None));
    let (start, from) = (Instant::now(), "10.0.0.1:4000".parse().unwrap());
    let mut taken = 0;
    for sequence in 0..1_000 {
        taken += usize::from(gate.take(&packet(96, 1, sequence), from, (NOW, start), false).is_ok());
    }
    assert!((100..=102).contains(&taken), "two seconds come at once: {taken}");
    assert!(
        gate.take(&packet(96, 1, 1_000), from, (NOW, start + Duration::from_millis(5)), false).is_ok(),
        "and then it goes on"
    );
}

#[test]
fn a_real_sender_loses_nothing_to_overload_and_one_that_is_faster_does() {
    let mut gate = Gate::new(agreed(None, None));
    let (start, from) = (Instant::now(), "10.0.0.1:4000".parse().unwrap());
    let mut take = |sequence: u16, ms: u64| {
        let came = (NOW, start + Duration::from_millis(ms));
        gate.take(&packet(96, 1, sequence), from, came, true).is_ok()
    };
    // A minute of real time, in bursts of a second.
    assert!((0..3_000).all(|sequence| take(sequence, u64::from(sequence) / 50 * 1_000)));
    // Twice as fast.
    let taken = (3_000..6_000).filter(|&sequence| take(sequence, 60_000 + u64::from(sequence - 3_000) * 10)).count();
    assert!((1_500..1_700).contains(&taken), "half of it, and the two seconds that may come at once: {taken}");
}

#[test]
fn other_types_of_the_sender_say_that_they_are_there_and_hold_nothing() {
    let mut gate = Gate::new(agreed(None, None));
    let mut take = |payload_type, from: &str| {
        let bytes = packet(payload_type, 1, 7);
        let taken = gate.take(&bytes, from.parse().unwrap(), (NOW, Instant::now()), false);
        taken.map(|taken| match taken {
            Taken::Other(packet) => Some((packet.sequence, packet.payload.len())),
            Taken::Audio(..) | Taken::Control => None,
        })
    };
    assert_eq!(take(13, "10.0.0.1:4000"), Err(Dropped::PayloadType), "comfort noise is nobody's first word");
    assert_eq!(take(96, "10.0.0.1:4000"), Ok(None));
    assert_eq!(take(13, "10.0.0.1:4000"), Ok(Some((7, 0))));
    assert_eq!(take(13, "10.0.0.2:4000"), Err(Dropped::Elsewhere));
}

#[test]
fn ranges_without_a_port_and_the_next_are_refused() {
    let check = |first, last| RtpConfig { ports: [first, last], ..RtpConfig::default() }.check();
    for (first, last) in [(20_000, 20_001), (20_001, 20_003), (1_024, 65_535), (65_534, 65_535)] {
        assert_eq!(check(first, last), Ok(()), "{first} – {last}");
    }
    for (first, last) in [(20_000, 20_000), (20_001, 20_002), (20_002, 20_000), (80, 90), (65_535, 65_535)] {
        assert!(check(first, last).unwrap_err().contains(&format!("[{first}, {last}]")));
    }
}

fn datagram() -> impl Strategy<Value = Vec<u8>> {
    let random = prop::collection::vec(any::<u8>(), 0..200);
    let control = (random.clone(), 200..207_u8).prop_map(|(mut bytes, kind)| {
        bytes.splice(..bytes.len().min(2), [0x81, kind]);
        bytes
    });
    let damaged = (any::<u16>(), prop::collection::vec((0..60_usize, any::<u8>()), 0..4), 0..700_usize).prop_map(
        |(sequence, damages, length)| {
            let mut bytes = if sequence % 2 == 0 { packet(96, 1, sequence) } else { report(1, ntp(NOW), 5) };
            let end = bytes.len();
            damages.into_iter().filter(|(at, _)| *at < end).for_each(|(at, byte)| bytes[at] = byte);
            bytes.truncate(length.max(1));
            bytes
        },
    );
    prop_oneof![random, control, damaged]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// No panic, whatever comes, and no payload that the engine would refuse.
    #[test]
    fn random_bytes_do_no_harm(datagrams in prop::collection::vec(datagram(), 1..60), codec in 0..3_usize) {
        let format = [RtpFormat::OPUS, RtpFormat::new(RtpCodec::Pcmu, 8_000, 1).unwrap(), agreed(None, None).format][codec];
        let mut gate = Gate::new(Agreed { format, ..agreed(None, None) });
        for bytes in datagrams {
            let taken = gate.take(&bytes, "10.0.0.1:4000".parse().unwrap(), (NOW, Instant::now()), false);
            if let Ok(Taken::Audio(packet, nanos)) = taken {
                prop_assert!(packet.payload.len() < bytes.len() && nanos < 1_000_000_000);
            }
        }
    }
}
