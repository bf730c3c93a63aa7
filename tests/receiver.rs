//! A packet costs no allocation: counted, not believed.
#![cfg(feature = "opus")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use cuewire::Timestamp;
use cuewire::audio::rtp::{ReorderWindow, RtpFormat, RtpPacket, RtpReceiver};
use opus_pure::{Application, OpusEncoder};
use support::COUNT;

#[path = "support/counting.rs"]
mod support;

#[test]
fn packets_in_any_order_allocate_nothing() {
    for application in [Application::Voip, Application::Audio] {
        let mut encoder = OpusEncoder::new(48_000, 1, application).unwrap();
        let (mut buffer, pcm) = (vec![0; 4000], vec![0.1; 960]);
        let payloads: Vec<Vec<u8>> = (0..8)
            .map(|_| {
                let bytes = encoder.encode(&pcm, 960, &mut buffer).unwrap();
                buffer[..bytes].to_vec()
            })
            .collect();
        let mut receiver = RtpReceiver::new(RtpFormat::OPUS, ReorderWindow::default()).unwrap();
        let mut counts = Vec::new();
        for round in 0..3_u32 {
            let before = COUNT.get();
            // Every fourth packet comes three places late, every tenth twice; a stray comes now and then, and once a
            // round another stream takes over.
            for index in (0..400_u32).map(|index| if index % 4 == 3 { index - 3 } else { index + 1 }) {
                let count = round * 400 + index;
                let packet = RtpPacket {
                    at: Timestamp::from_nanos(i64::from(count) * 20_000_000),
                    ssrc: count / 300,
                    sequence: count as u16,
                    timestamp: count * 960,
                    payload: &payloads[count as usize % payloads.len()],
                };
                for again in 0..=u32::from(index % 10 == 0) {
                    receiver.handle_packet(packet).unwrap();
                    if index % 50 == 7 {
                        receiver.handle_packet(RtpPacket { ssrc: 99 + again, ..packet }).unwrap();
                    }
                    while receiver.poll_output().is_some() {}
                }
            }
            counts.push(COUNT.get() - before);
        }
        let stats = receiver.stats();
        assert!(stats.duplicate > 50 && stats.stray > 10 && stats.restarts > 1 && stats.damaged == 0, "{stats:?}");
        assert_eq!(stats.lost, 0, "{stats:?}");
        assert!(counts[0] > 0, "the counter does not count");
        assert_eq!(counts[2], 0, "{application:?}: {counts:?}");
    }
}
