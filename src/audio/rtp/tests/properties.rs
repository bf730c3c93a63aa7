//! What holds whatever comes.

use proptest::prelude::*;

use super::*;
use crate::audio::{Placement, Timeline};
use crate::time::SampleIndex;

/// Keeps the session's rule for times, without a session.
#[derive(Default)]
struct Strict(Timeline);

impl Strict {
    fn push(&mut self, at: Timestamp, frames: usize, rate: u32) {
        match self.0.place(at, rate).unwrap() {
            Placement::Break { .. } => self.0.anchor(SampleIndex(0), at, rate),
            Placement::Fill { frames } => self.0.fill(frames),
            Placement::Contiguous if self.0.end().is_none() => {
                self.0.anchor(SampleIndex(0), at, rate);
            }
            Placement::Contiguous => {}
        }
        self.0.advance(at, frames as u64);
    }
}

/// What a hostile or broken sender may state.
#[derive(Clone, Debug)]
struct Hostile {
    ssrc: u32,
    sequence: u16,
    ticks: u32,
    elapsed: i64,
    payload: Vec<u8>,
    flush: bool,
}

fn hostile() -> impl Strategy<Value = Hostile> {
    let ssrc = prop_oneof![20 => Just(1_u32), 1 => 2..4_u32, 1 => any::<u32>()];
    // Steps from the packet before.
    let sequence = prop_oneof![
        20 => Just(1_u16),
        5 => (0..8_u16).prop_map(|step| step.wrapping_sub(4)),
        1 => 0..4000_u16,
        1 => (0..200_u16).prop_map(u16::wrapping_neg),
        1 => any::<u16>(),
    ];
    let ticks = prop_oneof![20 => Just(960_u32), 5 => 0..12_000_u32, 1 => any::<u32>()];
    let elapsed = prop_oneof![
        20 => Just(20 * MS),
        10 => -300 * MS..300 * MS,
        3 => -15_000 * MS..15_000 * MS,
        1 => any::<i64>(),
    ];
    let payload = prop_oneof![
        10 => (0..20_usize).prop_map(|index| VOICE.with(|voice| voice[index].clone())),
        5 => prop::collection::vec(any::<u8>(), 0..4),
        5 => prop::collection::vec(any::<u8>(), 0..80),
        1 => prop::collection::vec(any::<u8>(), 0..MAX_PAYLOAD_BYTES + 10),
    ];
    (ssrc, sequence, ticks, elapsed, payload, prop::bool::weighted(0.05)).prop_map(
        |(ssrc, sequence, ticks, elapsed, payload, flush)| Hostile { ssrc, sequence, ticks, elapsed, payload, flush },
    )
}

thread_local! {
    static VOICE: Vec<Vec<u8>> = encode(20, 20, |encoder| encoder.use_inband_fec = true);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// No panic, no growth, nothing that a session would refuse, and every packet accounted for.
    #[test]
    fn hostile_packets_do_no_harm(
        operations in prop::collection::vec(hostile(), 1..150),
        packets in 0..6_usize,
        ms in 0..100_u32,
        format in prop_oneof![
            2 => Just(RtpFormat::OPUS),
            1 => Just(RtpFormat::new(RtpCodec::Pcmu, 8_000, 1).unwrap()),
            1 => Just(RtpFormat::new(RtpCodec::L16, 44_100, 2).unwrap()),
        ],
    ) {
        let mut receiver = RtpReceiver::new(format, ReorderWindow { packets, ms }).unwrap();
        let room = (receiver.held.capacity(), receiver.spare.capacity(), receiver.output.capacity());
        let (mut sequence, mut timestamp, mut at) = (0_u16, 0_u32, START);
        let (mut strict, mut sound, mut received) = (Strict::default(), 0_u64, 0);
        for Hostile { ssrc, sequence: step, ticks, elapsed, payload, flush } in operations {
            sequence = sequence.wrapping_add(step);
            timestamp = timestamp.wrapping_add(ticks);
            at = at.plus_nanos(elapsed);
            match receiver.handle_packet(RtpPacket { at, ssrc, sequence, timestamp, payload: &payload }) {
                Ok(()) => received += 1,
                Err(error) => prop_assert_eq!(error, ReceiveError::TooLong(payload.len())),
            }
            if flush {
                receiver.flush();
            }
            while let Some(Piece { at, pcm }) = receiver.poll_output() {
                let mut samples = Vec::new();
                prop_assert!((1..=room.2).contains(&pcm.frames()));
                prop_assert_eq!(pcm.mix_into(0, pcm.frames(), &mut samples), 0);
                sound += pcm.frames() as u64;
                strict.push(at, pcm.frames(), pcm.rate());
            }
            prop_assert!(receiver.held.len() <= packets);
            prop_assert_eq!((receiver.held.capacity(), receiver.spare.capacity(), receiver.output.capacity()), room);
            let buffers = receiver.held.len() + receiver.spare.len() + usize::from(receiver.candidate.is_some());
            prop_assert!(buffers <= packets + 3);
            let ReceiverStats { received: counted, late, duplicate, damaged, stray, .. } = receiver.stats();
            prop_assert_eq!(counted, received);
            prop_assert!(late + duplicate + damaged + stray <= received);
        }
        let stats = receiver.stats();
        prop_assert!(stats.concealed_samples + stats.recovered_samples <= sound);
    }

    /// Whatever is lost, doubled or out of order: the samples and the jumps are what the timestamps say.
    #[test]
    fn the_output_is_as_long_as_the_timestamps_say(
        fates in prop::collection::vec((prop::bool::weighted(0.3), prop::bool::weighted(0.1), 0..70_i64), 2..120),
        burst in (0..120_usize, 0..30_usize),
    ) {
        let count = fates.len();
        let sent = VOICE.with(|voice| {
            let payloads: Vec<Vec<u8>> = (0..count).map(|index| voice[index % voice.len()].clone()).collect();
            stream(&payloads, 20, 65_500, u32::MAX - 50_000)
        });
        let mut arrivals = vec![(0, 0)];
        for (index, &(lost, twice, delay)) in fates.iter().enumerate().skip(1) {
            let lost = lost || (burst.0..burst.0 + burst.1).contains(&index);
            let ms = index as i64 * 20 + delay;
            arrivals.extend(std::iter::repeat_n((ms, index), usize::from(!lost) + usize::from(!lost && twice)));
        }
        arrivals.sort_unstable();
        let arrived: Vec<Sent> =
            arrivals.iter().map(|&(ms, index)| Sent { at: at_ms(ms), ..sent[index].clone() }).collect();
        let heard = hear(&arrived);
        let newest = arrivals.iter().map(|&(_, index)| index).max().unwrap_or(0);
        let jumps: i64 = heard.jumps().iter().map(|&(_, jump)| jump).sum();
        for (_, jump) in heard.jumps() {
            prop_assert!(jump >= 140 * MS - MS && jump % (20 * MS) < MS, "{}", jump);
        }
        let skipped = (jumps + 10 * MS) / (20 * MS);
        prop_assert_eq!(heard.samples.len() / 320 + skipped as usize, newest + 1);
        prop_assert_eq!(heard.samples.len() % 320, 0);
        let stats = heard.stats;
        let played = stats.received - stats.late - stats.duplicate;
        prop_assert_eq!((played + stats.lost, stats.damaged, stats.stray), (newest as u64 + 1, 0, 0));
        let made = stats.concealed_samples + stats.recovered_samples;
        prop_assert_eq!(played * 320 + made, heard.samples.len() as u64);
    }
}
