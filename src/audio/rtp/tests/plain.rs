//! Streams of plain samples: the same order, loss and time as Opus'.

use super::*;

/// Formats of plain samples.
fn formats() -> [RtpFormat; 6] {
    [
        (RtpCodec::Pcmu, 8_000, 1),
        (RtpCodec::Pcma, 8_000, 1),
        (RtpCodec::Pcmu, 16_000, 2),
        (RtpCodec::L16, 16_000, 1),
        (RtpCodec::L16, 44_100, 2),
        (RtpCodec::L16, 48_000, 1),
    ]
    .map(|(codec, rate, channels)| RtpFormat::new(codec, rate, channels).unwrap())
}

fn ticks(format: RtpFormat) -> u32 {
    format.clock_rate() / 50
}

/// Packets of 20 ms, each of one value, from places where both counters wrap.
fn stream(format: RtpFormat, count: usize) -> Vec<Sent> {
    let bytes = ticks(format) as usize * format.channels() * if format.codec() == RtpCodec::L16 { 2 } else { 1 };
    let sent = |index: usize| Sent {
        at: at_ms(index as i64 * 20),
        ssrc: 7,
        sequence: (u16::MAX - 10).wrapping_add(index as u16),
        timestamp: (u32::MAX - 20 * ticks(format)).wrapping_add(index as u32 * ticks(format)),
        payload: vec![0x40 + index as u8 % 0x20; bytes],
    };
    (0..count).map(sent).collect()
}

#[derive(Debug, Default, PartialEq)]
struct Heard {
    pieces: Vec<(Timestamp, usize)>,
    samples: Vec<f32>,
}

impl Heard {
    fn drain(&mut self, receiver: &mut RtpReceiver) {
        let (is_opus, clock_rate) = (receiver.format() == RtpFormat::OPUS, receiver.format().clock_rate());
        while let Some(Piece { at, pcm }) = receiver.poll_output() {
            let rate = if is_opus { SAMPLE_RATE } else { clock_rate };
            assert_eq!((pcm.rate(), pcm.channels()), (rate, 1));
            self.pieces.push((at, pcm.frames()));
            pcm.mix_into(0, pcm.frames(), &mut self.samples);
        }
    }
}

fn hear(format: RtpFormat, sent: &[Sent], order: impl IntoIterator<Item = usize>) -> (Heard, ReceiverStats) {
    let mut receiver = RtpReceiver::new(format, ReorderWindow::default()).unwrap();
    let mut heard = Heard::default();
    for index in order {
        receiver.handle_packet(sent[index].packet()).unwrap();
        heard.drain(&mut receiver);
    }
    receiver.flush();
    heard.drain(&mut receiver);
    (heard, receiver.stats())
}

#[test]
fn order_duplicates_and_wraps_change_nothing() {
    for format in formats() {
        let sent = stream(format, 60);
        let (whole, stats) = hear(format, &sent, 0..60);
        assert_eq!(stats, ReceiverStats { received: 60, ..ReceiverStats::default() }, "{format:?}");
        let expected: Vec<_> = sent.iter().map(|sent| (sent.at, ticks(format) as usize)).collect();
        assert_eq!(whole.pieces, expected, "{format:?}");
        // Each second pair the wrong way round, and each tenth twice.
        let order = (0..60).map(|index| if index % 4 >= 2 { index ^ 1 } else { index });
        let order = order.flat_map(|index| std::iter::repeat_n(index, 1 + usize::from(index % 10 == 0)));
        let (heard, stats) = hear(format, &sent, order);
        assert_eq!((heard.samples, stats.duplicate, stats.lost), (whole.samples, 6, 0), "{format:?}");
    }
}

#[test]
fn short_losses_are_concealed_and_long_ones_are_jumps() {
    for format in formats() {
        let sent = stream(format, 60);
        let frames = ticks(format) as usize;
        let (whole, _) = hear(format, &sent, 0..60);
        // One packet is lost, six, and seven: the last is more than 120 ms.
        let is_lost = |index: &usize| *index == 5 || (15..21).contains(index) || (30..37).contains(index);
        let (heard, stats) = hear(format, &sent, (0..60).filter(|index| !is_lost(index)));
        assert_eq!((stats.lost, stats.concealed_samples), (14, 7 * frames as u64), "{format:?}");
        assert_eq!(heard.samples.len(), whole.samples.len() - 7 * frames, "{format:?}");
        let mut jumps = Vec::new();
        for pair in heard.pieces.windows(2) {
            let jump = pair[1].0.nanos_since(pair[0].0) - nanos_of_samples(pair[0].1 as u64, format.clock_rate());
            if jump.abs() > 100_000 {
                jumps.push((jump + MS / 2) / MS);
            }
        }
        assert_eq!(jumps, [140], "{format:?}");
        // But for where it goes over, what was not lost is as it was.
        let crossed = format.clock_rate() as usize / 200;
        assert_eq!(heard.samples[6 * frames + crossed..15 * frames], whole.samples[6 * frames + crossed..15 * frames]);
    }
}

#[test]
fn another_stream_takes_over_and_so_does_another_format() {
    let [mu_law, .., wide] = formats();
    let (first, mut second) = (stream(mu_law, 20), stream(mu_law, 20));
    second.iter_mut().for_each(|sent| (sent.ssrc, sent.at) = (9, sent.at.plus_nanos(400 * MS)));
    let sent = [first, second].concat();
    let (heard, stats) = hear(mu_law, &sent, 0..40);
    assert_eq!((heard.samples.len(), stats.restarts, stats.lost), (40 * 160, 1, 0));

    let mut receiver = RtpReceiver::new(mu_law, ReorderWindow::default()).unwrap();
    let mut heard = Heard::default();
    for (place, format) in [mu_law, wide, RtpFormat::OPUS, wide].into_iter().enumerate() {
        if format != receiver.format() {
            receiver.flush();
            heard.drain(&mut receiver);
            receiver.change_format(format).unwrap();
        }
        let voice = encode(10, 20, |_| {});
        for (index, mut sent) in stream(wide, 10).into_iter().enumerate() {
            if format == mu_law {
                sent = stream(mu_law, 10).swap_remove(index);
            } else if format == RtpFormat::OPUS {
                sent.payload.clone_from(&voice[index]);
            }
            sent.at = sent.at.plus_nanos(place as i64 * 200 * MS);
            receiver.handle_packet(sent.packet()).unwrap();
            heard.drain(&mut receiver);
        }
    }
    let times: Vec<_> = heard.pieces.iter().map(|(at, _)| at.nanos_since(START) / MS).collect();
    assert_eq!(times, (0..40).map(|index| index * 20).collect::<Vec<_>>());
    assert_eq!(receiver.stats(), ReceiverStats { received: 40, restarts: 3, ..ReceiverStats::default() });
    assert_eq!(heard.samples.len(), 10 * (160 + 960 + 320 + 960));
}

#[test]
fn what_is_no_frame_is_lost_and_padding_is_nothing() {
    let format = RtpFormat::new(RtpCodec::L16, 44_100, 2).unwrap();
    let mut sent = stream(format, 10);
    sent[4].payload.pop();
    sent[6].payload.clear();
    let (heard, stats) = hear(format, &sent, 0..10);
    assert_eq!((stats.damaged, stats.lost), (1, 0));
    assert_eq!(heard.samples.len(), 10 * 882, "both took their time");
}
