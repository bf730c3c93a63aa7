use opus_pure::{Application, OpusEncoder};

use super::*;
use crate::audio::opus::tests::voice;
use crate::time::nanos_of_samples;

mod heard;
mod plain;
mod properties;
mod takeover;
mod times;

const MS: i64 = 1_000_000;
const RTP_RATE: u32 = 48_000;
const START: Timestamp = Timestamp::from_nanos(1_700_000_000_000_000_000);

/// What an [`RtpPacket`] borrows, owned.
#[derive(Clone, Debug)]
struct Sent {
    at: Timestamp,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    payload: Vec<u8>,
}

impl Sent {
    fn packet(&self) -> RtpPacket<'_> {
        let Self { at, ssrc, sequence, timestamp, ref payload } = *self;
        RtpPacket { at, ssrc, sequence, timestamp, payload }
    }
}

fn at_ms(ms: i64) -> Timestamp {
    START.plus_nanos(ms * MS)
}

/// Packets of a voice, `ms` each.
fn encode(count: usize, ms: usize, prepare: impl FnOnce(&mut OpusEncoder)) -> Vec<Vec<u8>> {
    let mut encoder = OpusEncoder::new(48_000, 1, Application::Voip).unwrap();
    encoder.bitrate_bps = 24_000;
    prepare(&mut encoder);
    let mut buffer = vec![0; 4000];
    (0..count)
        .map(|packet| {
            let bytes = encoder.encode(&voice(packet * ms * 48, ms * 48), ms * 48, &mut buffer).unwrap();
            buffer[..bytes].to_vec()
        })
        .collect()
}

/// A sender that sends each of `payloads` in its time, from any place of both counters on.
fn stream(payloads: &[Vec<u8>], ms: usize, sequence: u16, timestamp: u32) -> Vec<Sent> {
    let sent = |(index, payload): (usize, &Vec<u8>)| Sent {
        at: at_ms((index * ms) as i64),
        ssrc: 7,
        sequence: sequence.wrapping_add(index as u16),
        timestamp: timestamp.wrapping_add((index * ms * 48) as u32),
        payload: payload.clone(),
    };
    payloads.iter().enumerate().map(sent).collect()
}

fn voice_stream(count: usize) -> Vec<Sent> {
    stream(&encode(count, 20, |_| {}), 20, 1000, 48_000)
}

/// Everything that was given out.
#[derive(Clone, Debug, Default, PartialEq)]
struct Heard {
    pieces: Vec<(Timestamp, usize)>,
    samples: Vec<f32>,
    stats: ReceiverStats,
}

impl Heard {
    fn drain(&mut self, receiver: &mut RtpReceiver) {
        while let Some(Piece { at, pcm }) = receiver.poll_output() {
            assert_eq!((pcm.rate(), pcm.channels()), (16_000, 1));
            assert!((1..=2 * 1920).contains(&pcm.frames()));
            self.pieces.push((at, pcm.frames()));
            pcm.mix_into(0, pcm.frames(), &mut self.samples);
        }
        self.stats = receiver.stats();
    }

    /// Jumps between the end of a piece and the next: after which sample, and by how many nanoseconds.
    fn jumps(&self) -> Vec<(usize, i64)> {
        let mut jumps = Vec::new();
        let (mut samples, mut end) = (0, None::<Timestamp>);
        for &(at, frames) in &self.pieces {
            let jump = end.map_or(0, |end| at.nanos_since(end));
            if jump.abs() > 100_000 {
                jumps.push((samples, jump));
            }
            samples += frames;
            end = Some(at.plus_nanos(nanos_of_samples(frames as u64, SAMPLE_RATE)));
        }
        jumps
    }
}

fn receiver() -> RtpReceiver {
    RtpReceiver::new(RtpFormat::OPUS, ReorderWindow::default()).unwrap()
}

fn hear<'a>(packets: impl IntoIterator<Item = &'a Sent>) -> Heard {
    let (mut receiver, mut heard) = (receiver(), Heard::default());
    for sent in packets {
        receiver.handle_packet(sent.packet()).unwrap();
        heard.drain(&mut receiver);
    }
    receiver.flush();
    heard.drain(&mut receiver);
    assert_eq!(receiver.poll_output().map(|piece| piece.at), None);
    heard
}

/// All but those that `is_lost` names.
fn hear_without(sent: &[Sent], is_lost: impl Fn(usize) -> bool) -> Heard {
    hear(sent.iter().enumerate().filter(|(index, _)| !is_lost(*index)).map(|(_, sent)| sent))
}

fn level(samples: &[f32]) -> f32 {
    (samples.iter().map(|sample| sample * sample).sum::<f32>() / samples.len() as f32).sqrt()
}

/// How far `heard` is from `whole`, against `whole`.
fn error(heard: &[f32], whole: &[f32]) -> f32 {
    level(&heard.iter().zip(whole).map(|(a, b)| a - b).collect::<Vec<_>>()) / level(whole)
}

#[test]
fn packets_in_order_go_through_at_once() {
    for ms in [10, 20, 40, 60] {
        let sent = stream(&encode(30, ms, |_| {}), ms, 1000, 48_000);
        let (mut receiver, mut heard) = (receiver(), Heard::default());
        let mut decoder = OpusPacketDecoder::new(16_000, 1).unwrap();
        let mut expected = vec![0.0; 1920];
        for (index, sent) in sent.iter().enumerate() {
            receiver.handle_packet(sent.packet()).unwrap();
            heard.drain(&mut receiver);
            assert_eq!(heard.pieces.len(), index + 1);
            assert_eq!(heard.pieces[index], (sent.at, ms * 16));
            assert_eq!(decoder.decode(&sent.payload, &mut expected), Ok(ms * 16));
            assert_eq!(heard.samples[index * ms * 16..], expected[..ms * 16]);
            assert_eq!(receiver.held_until(), None);
        }
        assert_eq!(heard.stats, ReceiverStats { received: 30, ..ReceiverStats::default() });
    }
}

#[test]
fn both_counters_wrap() {
    let payloads = encode(100, 20, |_| {});
    let expected = hear(&stream(&payloads, 20, 1000, 0));
    let heard = hear(&stream(&payloads, 20, u16::MAX - 49, u32::MAX - 60 * 960 + 1));
    assert_eq!(heard, expected);
    // With a loss at the wrap of each.
    let lost = |index| index == 50 || index == 60;
    let expected = hear_without(&stream(&payloads, 20, 1000, 0), lost);
    let heard = hear_without(&stream(&payloads, 20, u16::MAX - 49, u32::MAX - 60 * 960 + 1), lost);
    assert_eq!((heard.stats.lost, &heard), (2, &expected));
}

/// Three wraps of the sequence and hundreds of the timestamp: DTX with pauses of six hours.
#[test]
fn a_session_of_months_never_wraps() {
    let (mut receiver, mut heard) = (receiver(), Heard::default());
    let mut elapsed_ticks = 0;
    for index in 0..200_000_u32 {
        let at = START.plus_nanos(nanos_of_samples(elapsed_ticks, RTP_RATE));
        let timestamp = elapsed_ticks as u32;
        // 120 ms without sound; before there was any, the codec is silent at no cost.
        let packet = RtpPacket { at, ssrc: 7, sequence: index as u16, timestamp, payload: &[9 << 3 | 3, 6] };
        receiver.handle_packet(packet).unwrap();
        heard.drain(&mut receiver);
        assert_eq!(heard.pieces.pop(), Some((at, 1920)));
        heard.samples.clear();
        elapsed_ticks += if index % 100 == 0 { 1 << 30 } else { 5760 };
    }
    assert!(elapsed_ticks > 500 * 24 * 3600 * u64::from(RTP_RATE));
    assert_eq!(heard.stats, ReceiverStats { received: 200_000, ..ReceiverStats::default() });
}

fn permutations(of: usize) -> Vec<Vec<usize>> {
    if of == 0 {
        return vec![vec![]];
    }
    let shorter = permutations(of - 1);
    (0..of)
        .flat_map(|place| {
            shorter.iter().map(move |rest| {
                let mut order = rest.clone();
                order.insert(place, of - 1);
                order
            })
        })
        .collect()
}

#[test]
fn every_order_within_the_window_gives_the_same() {
    let sent = voice_stream(14);
    let mut expected = hear(&sent);
    for order in permutations(4) {
        for from in [1, 5, 10] {
            let mut shuffled = sent.clone();
            for (place, &index) in order.iter().enumerate() {
                shuffled[from + place] = sent[from + index].clone();
            }
            // The times are given by the first packet and the RTP timestamps: order changes neither.
            expected.stats = ReceiverStats { received: 14, ..ReceiverStats::default() };
            assert_eq!(hear(&shuffled), expected, "{order:?} from {from}");
        }
    }
}

#[test]
fn a_packet_that_is_four_places_late_is_lost_and_late() {
    let mut sent = voice_stream(20);
    let late = sent.remove(5);
    sent.insert(9, late);
    let heard = hear(&sent);
    assert_eq!((heard.stats.lost, heard.stats.late, heard.stats.duplicate), (1, 1, 0));
    assert_eq!((heard.samples.len(), heard.jumps()), (20 * 320, vec![]));
    assert_eq!(heard.stats.concealed_samples, 320);
}

#[test]
fn the_window_is_what_was_asked_for() {
    let sent = voice_stream(40);
    let late_by = |places: usize| {
        let mut late = sent.clone();
        late[5..=5 + places].rotate_left(1);
        late
    };
    let lost = |window, sent: &[Sent]| {
        let (mut receiver, mut heard) = (RtpReceiver::new(RtpFormat::OPUS, window).unwrap(), Heard::default());
        for sent in sent {
            receiver.handle_packet(sent.packet()).unwrap();
            heard.drain(&mut receiver);
        }
        heard.stats.lost
    };
    for (packets, ms, places) in
        [(0, 60, 0), (1, 60, 1), (3, 60, 3), (3, 0, 0), (3, 40, 2), (10, 60, 3), (10, 200, 10), (20, 1000, 20)]
    {
        let window = ReorderWindow { packets, ms };
        assert_eq!(lost(window, &late_by(places)), 0, "{window:?}");
        assert_eq!(lost(window, &late_by(places + 1)), 1, "{window:?}");
    }
    for (packets, ms) in [(51, 60), (3, 1001), (usize::MAX, u32::MAX)] {
        let window = ReorderWindow { packets, ms };
        let error = RtpReceiver::new(RtpFormat::OPUS, window).unwrap_err();
        assert_eq!(error, ReceiveError::Window(window));
        assert!(error.to_string().contains(&packets.to_string()) && error.to_string().contains("0 – 50"), "{error}");
    }
}

#[test]
fn losses_are_concealed_up_to_120_ms_and_left_out_beyond() {
    let sent = voice_stream(60);
    let whole = hear(&sent);
    for (lost, concealed) in [(1, 1), (2, 2), (5, 5), (6, 6), (7, 0), (20, 0), (40, 0)] {
        let heard = hear_without(&sent, |index| (10..10 + lost).contains(&index));
        let left_out = lost - concealed;
        assert_eq!(heard.stats.lost, lost as u64);
        assert_eq!(heard.stats.concealed_samples, concealed as u64 * 320);
        assert_eq!(heard.samples.len(), (60 - left_out) * 320, "{lost} lost");
        let jumps = if left_out > 0 { vec![(3200, left_out as i64 * 20 * MS)] } else { vec![] };
        assert_eq!(heard.jumps(), jumps, "{lost} lost");
        // The voice comes back.
        let behind = (60 - 10 - lost) * 320;
        let last = |heard: &Heard| heard.samples[heard.samples.len() - behind / 2..].to_vec();
        assert!(error(&last(&heard), &last(&whole)) < 0.3, "{lost} lost: {}", error(&last(&heard), &last(&whole)));
    }
}

#[test]
fn a_loss_is_recovered_from_the_copy_in_the_next_packet() {
    let sent = stream(
        &encode(120, 20, |encoder| {
            encoder.use_inband_fec = true;
            encoder.packet_loss_perc = 20;
            encoder.max_bandwidth = opus_pure::Bandwidth::Wideband;
        }),
        20,
        1,
        0,
    );
    let whole = hear(&sent);
    let decoder = OpusPacketDecoder::new(16_000, 1).unwrap();
    let carries = |index: usize| sent.get(index).is_some_and(|sent| decoder.fec_frames(&sent.payload) == 320);
    let losses: Vec<usize> = (10..110).filter(|index| index % 6 == 0 && carries(index + 1)).collect();
    assert!(losses.len() > 5);
    // One and two in a row: of two, only the second was copied.
    for run in [1, 2] {
        let heard = hear_without(&sent, |index| losses.iter().any(|&last| (last + 1 - run..=last).contains(&index)));
        let lost = (losses.len() * run) as u64;
        assert_eq!((heard.stats.lost, heard.samples.len(), heard.jumps()), (lost, 120 * 320, vec![]));
        assert_eq!(heard.stats.recovered_samples, losses.len() as u64 * 320);
        assert_eq!(heard.stats.concealed_samples, (run as u64 - 1) * losses.len() as u64 * 320);
        if run == 1 {
            let mut without = sent.clone();
            for &last in &losses {
                // The same, but for the flag that announces the copy.
                without[last + 1].payload[1] &= !0x40;
            }
            let of_loss = |heard: &Heard| {
                let lost = |&last: &usize| heard.samples[last * 320..][..320].to_vec();
                losses.iter().flat_map(lost).collect::<Vec<_>>()
            };
            let concealed = hear_without(&without, |index| losses.contains(&index));
            let (recovered, invented) =
                (error(&of_loss(&heard), &of_loss(&whole)), error(&of_loss(&concealed), &of_loss(&whole)));
            assert!(recovered < 0.5 * invented, "{recovered} against {invented}");
        }
    }
}

#[test]
fn duplicates_are_dropped_wherever_they_come() {
    let sent = voice_stream(30);
    let mut expected = hear(&sent);
    for behind in [0_usize, 1, 2, 20] {
        let twice = (0..30 + behind).flat_map(|index| {
            let again = index.checked_sub(behind).and_then(|index| sent.get(index));
            sent.get(index).into_iter().chain(again)
        });
        expected.stats = ReceiverStats { received: 60, duplicate: 30, ..ReceiverStats::default() };
        assert_eq!(hear(twice), expected, "{behind} behind");
    }
    // Of one that is held.
    let order = [0, 1, 3, 3, 2, 3, 4];
    expected.stats = ReceiverStats { received: 30, duplicate: 2, ..ReceiverStats::default() };
    let heard = hear(order.iter().map(|&index| &sent[index]));
    assert_eq!((heard.stats.duplicate, heard.stats.lost, heard.samples.len()), (2, 0, 5 * 320));
    assert_eq!(heard.samples, expected.samples[..5 * 320]);
}

/// A voice, a pause and a voice, with the packets of the pause sent, or left out as RFC 7587 (3.1.3) has it.
#[test]
fn dtx_is_no_loss() {
    let mut encoder = OpusEncoder::new(48_000, 1, Application::Voip).unwrap();
    encoder.bitrate_bps = 24_000;
    encoder.use_dtx = true;
    let mut buffer = vec![0; 4000];
    let payloads: Vec<Vec<u8>> = (0..200)
        .map(|packet| {
            let pcm = if (50..150).contains(&packet) { vec![0.0; 960] } else { voice(packet * 960, 960) };
            let bytes = encoder.encode(&pcm, 960, &mut buffer).unwrap();
            buffer[..bytes].to_vec()
        })
        .collect();
    let sent = stream(&payloads, 20, 65_500, u32::MAX - 1000);
    assert!(payloads.iter().filter(|payload| payload.len() <= 2).count() > 50);
    let heard = hear(&sent);
    assert_eq!((heard.samples.len(), heard.jumps()), (200 * 320, vec![]));
    assert_eq!(heard.stats, ReceiverStats { received: 200, ..ReceiverStats::default() });
    assert!(level(&heard.samples[70 * 320..150 * 320]) < 0.01);

    let mut left = sent.clone();
    left.retain(|sent| sent.payload.len() > 2);
    for (index, sent) in left.iter_mut().enumerate() {
        sent.sequence = index as u16;
    }
    let mut skipped = 0;
    let heard_left = hear(&left);
    for (_, jump) in heard_left.jumps() {
        assert!(jump > 120 * MS && jump <= 420 * MS, "{jump}");
        skipped += jump / (20 * MS);
    }
    assert!(skipped > 20 && heard_left.stats.lost == 0);
    assert_eq!(heard_left.samples.len() + skipped as usize * 320, 200 * 320);
    // The decoder went on: the voice behind the pause is the same.
    let end = |heard: &Heard| heard.samples[heard.samples.len() - 40 * 320..].to_vec();
    assert!(error(&end(&heard_left), &end(&heard)) < 0.1, "{}", error(&end(&heard_left), &end(&heard)));
}

#[test]
fn a_short_pause_is_silence() {
    let mut sent = voice_stream(30);
    for sent in &mut sent[15..] {
        sent.timestamp += 4 * 960;
        sent.at = sent.at.plus_nanos(80 * MS);
    }
    let heard = hear(&sent);
    assert_eq!((heard.samples.len(), heard.jumps()), (34 * 320, vec![]));
    assert_eq!((heard.stats.lost, heard.stats.concealed_samples), (0, 0));
    let whole = hear(&voice_stream(30));
    assert_eq!(heard.samples[..15 * 320], whole.samples[..15 * 320]);
    assert_eq!(heard.samples[15 * 320..19 * 320], [0.0; 4 * 320]);
    assert_eq!(heard.samples[19 * 320..], whole.samples[15 * 320..]);
}

#[test]
fn padding_and_packets_without_sound_take_no_time() {
    let mut sent = voice_stream(30);
    let expected = hear(&sent);
    let padding = Sent { payload: vec![], timestamp: sent[9].timestamp, at: sent[9].at, ..sent[10].clone() };
    sent.insert(10, padding);
    for sent in &mut sent[11..] {
        sent.sequence += 1;
    }
    let heard = hear(&sent);
    assert_eq!((&heard.samples, &heard.pieces), (&expected.samples, &expected.pieces));
    // And when it is lost.
    let heard = hear_without(&sent, |index| index == 10);
    assert_eq!((heard.stats.lost, &heard.samples, &heard.pieces), (1, &expected.samples, &expected.pieces));
}

#[test]
fn damaged_payloads_are_counted_and_concealed() {
    let whole = voice_stream(30);
    for damaged in [&[0xff, 0xff][..], &[9 << 3 | 2, 200, 1, 2], &[9 << 3 | 1, 1, 2, 3, 4, 5], &[9 << 3 | 3, 0, 1]] {
        let mut sent = whole.clone();
        for index in [10, 11, 20] {
            sent[index].payload = damaged.to_vec();
        }
        let heard = hear(&sent);
        let expected = hear_without(&whole, |index| [10, 11, 20].contains(&index));
        assert_eq!((heard.stats.damaged, heard.stats.lost, heard.stats.concealed_samples), (3, 0, 960), "{damaged:x?}");
        assert_eq!((heard.samples.len(), heard.jumps()), (30 * 320, vec![]), "{damaged:x?}");
        let error = error(&heard.samples, &expected.samples);
        assert!(error < 0.05, "{damaged:x?}: {error}");
    }
}

#[test]
fn a_flush_gives_out_what_is_held() {
    let sent = voice_stream(10);
    let (mut receiver, mut heard) = (receiver(), Heard::default());
    for index in [0, 1, 3, 5] {
        receiver.handle_packet(sent[index].packet()).unwrap();
        heard.drain(&mut receiver);
    }
    assert_eq!((heard.samples.len(), receiver.held_until()), (2 * 320, Some(at_ms(60 + 60))));
    receiver.flush();
    heard.drain(&mut receiver);
    assert_eq!((heard.samples.len(), receiver.held_until(), heard.stats.lost), (6 * 320, None, 2));
    // It is over for those before, not for those behind.
    for index in [2, 6, 7] {
        receiver.handle_packet(sent[index].packet()).unwrap();
        heard.drain(&mut receiver);
    }
    assert_eq!((heard.samples.len(), heard.stats.late, heard.stats.lost), (8 * 320, 1, 2));
    receiver.flush();
    assert!(receiver.poll_output().is_none());
}

#[test]
fn what_is_refused_changes_nothing() {
    let sent = voice_stream(10);
    let mut receiver = receiver();
    let payload = vec![0; MAX_PAYLOAD_BYTES + 1];
    let too_long = receiver.handle_packet(RtpPacket { payload: &payload, ..sent[0].packet() });
    assert_eq!(too_long, Err(ReceiveError::TooLong(MAX_PAYLOAD_BYTES + 1)));
    assert!(too_long.unwrap_err().to_string().contains(&MAX_PAYLOAD_BYTES.to_string()));
    for sent in &sent[..4] {
        receiver.handle_packet(sent.packet()).unwrap();
    }
    assert_eq!(receiver.handle_packet(sent[4].packet()), Err(ReceiveError::NotDrained(4)));
    assert_eq!(receiver.stats().received, 4);
    let mut heard = Heard::default();
    heard.drain(&mut receiver);
    for sent in &sent[4..] {
        receiver.handle_packet(sent.packet()).unwrap();
        heard.drain(&mut receiver);
    }
    assert_eq!(heard, hear(&sent));
}
