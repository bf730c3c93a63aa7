//! Opus into the engine: lost, late, twice, paused, muted.
#![cfg(all(feature = "engine", feature = "opus"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cuewire::asr::{DecodeError, DecodeJob, Hypothesis, ScriptedDecoder};
use cuewire::audio::rtp::{MAX_PAYLOAD_BYTES, ReorderWindow, RtpCodec, RtpFormat, RtpPacket, RtpReceiver};
use cuewire::caption::{CaptionEvent, GapReason};
use cuewire::engine::{
    Engine, EngineConfig, EngineEvent, Idle, PushError, Subscription, ThreadRole, TrackConfig, TrackReport,
};
use cuewire::session::{Accounting, Input, Session};
use opus_pure::{Application, OpusEncoder};
use support::*;

#[path = "support/session.rs"]
mod support;

/// A packet of 20 ms: its place in the sound, its sequence number, what it holds.
#[derive(Clone)]
struct Packet {
    place: i64,
    sequence: u16,
    payload: Vec<u8>,
}

impl Packet {
    fn opus(&self) -> RtpPacket<'_> {
        // The RTP timestamp wraps around within the sound, as the sequence number does.
        let timestamp = (u32::MAX - 96_000).wrapping_add(self.place as u32 * 960);
        RtpPacket { at: at_ms(self.place * 20), ssrc: 7, sequence: self.sequence, timestamp, payload: &self.payload }
    }
}

/// 12 s with three spans of speech.
fn packets() -> Vec<Packet> {
    let mut encoder = OpusEncoder::new(48_000, 1, Application::Voip).unwrap();
    let mut buffer = vec![0; 4000];
    let samples = sound(48_000, 12_000, &[(500, 2_500), (4_000, 6_500), (8_500, 10_500)]);
    let packet = |(place, pcm): (usize, &[i16])| {
        let pcm: Vec<f32> = pcm.iter().map(|x| f32::from(*x) / 32_768.0).collect();
        let bytes = encoder.encode(&pcm, 960, &mut buffer).unwrap();
        let sequence = 65_400_u16.wrapping_add(place as u16);
        Packet { place: place as i64, sequence, payload: buffer[..bytes].to_vec() }
    };
    samples.chunks(960).enumerate().map(packet).collect()
}

fn says_what_it_hears(job: &DecodeJob) -> Result<Hypothesis, DecodeError> {
    let sum: f64 = job.audio.iter().map(|x| f64::from(x.abs())).sum();
    Ok(Hypothesis::certain(&format!("{} at {}, {sum:.3}", job.audio.len(), job.start.0), job))
}

fn config() -> TrackConfig {
    let mut config = TrackConfig::new("alice");
    config.config = no_interims();
    config.patience = Duration::from_secs(600);
    config
}

/// What a session says to them, driven by hand.
fn by_hand(packets: &[Packet]) -> (Vec<CaptionEvent>, Accounting) {
    let mut receiver = RtpReceiver::new(RtpFormat::OPUS, ReorderWindow::default()).unwrap();
    let mut session = Session::new("alice", config().config);
    let mut decoder = ScriptedDecoder::new(says_what_it_hears);
    let mut events = Vec::new();
    for end in packets.iter().map(Some).chain([None]) {
        match end {
            Some(packet) => receiver.handle_packet(packet.opus()).unwrap(),
            None => receiver.flush(),
        }
        while let Some(piece) = receiver.poll_output() {
            session.handle_input(Input::Audio { at: piece.at, pcm: piece.pcm }).unwrap();
            events.append(&mut drain(&mut session, &mut decoder));
        }
    }
    session.handle_input(Input::End).unwrap();
    events.append(&mut drain(&mut session, &mut decoder));
    (events, session.accounting())
}

/// What an engine says, with the ring never full; `mute` is asked before each packet.
fn by_engine(packets: &[Packet], mute: impl Fn(&Packet) -> bool) -> (Vec<CaptionEvent>, TrackReport) {
    let model = Arc::new(|_: &Idle| ScriptedDecoder::new(says_what_it_hears));
    let engine = Engine::start(EngineConfig::default(), model).unwrap();
    let events = engine.subscribe();
    let (mut sender, track) = engine.add_track(config()).unwrap();
    let long = vec![0; MAX_PAYLOAD_BYTES + 1];
    let bytes = long.len();
    let refused = sender.push_opus(RtpPacket { payload: &long, ..packets[0].opus() });
    assert_eq!(refused, Err(PushError::PayloadTooLong { bytes }));
    for packet in packets {
        engine.mute(track, mute(packet)).unwrap();
        while sender.push_opus(packet.opus()) == Err(PushError::Full) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    drop(sender);
    until_end(&events)
}

/// What is told of the only track until it has ended.
fn until_end(events: &Subscription) -> (Vec<CaptionEvent>, TrackReport) {
    let mut told = Vec::new();
    loop {
        match events.recv_timeout(Duration::from_secs(30)).unwrap() {
            EngineEvent::Caption { event, .. } => told.push(event),
            EngineEvent::Ended { report, .. } => return (told, report),
            other => panic!("{other:?}"),
        }
    }
}

fn finals(events: &[CaptionEvent]) -> usize {
    events.iter().filter(|event| matches!(event, CaptionEvent::Final { .. })).count()
}

#[test]
fn what_the_network_does_to_packets_is_what_the_receiver_makes_of_it() {
    let all = packets();
    let in_order = by_hand(&all);
    assert_eq!((finals(&in_order.0), in_order.1.total()), (3, 192_000));

    // Neighbours change places, some come twice: nothing is different.
    let mut shuffled = all.clone();
    shuffled.chunks_mut(5).for_each(|five| five.swap(1, 3));
    shuffled.insert(100, shuffled[99].clone());
    // Every tenth is lost: concealed, with as many samples.
    let lossy: Vec<_> = all.iter().filter(|packet| packet.place % 10 != 3).cloned().collect();
    // The sender pauses for 4 s: no packets, and the sequence goes on behind them.
    let mut paused: Vec<_> = all.iter().filter(|packet| !(130..330).contains(&packet.place)).cloned().collect();
    paused
        .iter_mut()
        .filter(|packet| packet.place >= 330)
        .for_each(|packet| packet.sequence = packet.sequence.wrapping_sub(200));
    // The same 4 s are lost.
    let lost: Vec<_> = all.iter().filter(|packet| !(130..330).contains(&packet.place)).cloned().collect();
    for (what, packets, captions, gap) in [
        ("in order", &all, 3, false),
        ("shuffled", &shuffled, 3, false),
        ("every tenth lost", &lossy, 3, false),
        ("a pause", &paused, 2, true),
        ("a long loss", &lost, 2, true),
    ] {
        let (told, report) = by_engine(packets, |_| false);
        let (expected, accounting) = by_hand(packets);
        assert_eq!(told, expected, "{what}");
        assert_eq!(report.accounting, accounting, "{what}");
        assert_eq!(finals(&told), captions, "{what}: {told:?}");
        if what == "shuffled" {
            assert_eq!(told, in_order.0);
        }
        if what == "every tenth lost" {
            assert!((191_000..=192_000).contains(&accounting.total()), "{accounting:?}");
        }
        let is_gap = |event: &CaptionEvent| matches!(event, CaptionEvent::Gap { reason: GapReason::NoAudio, .. });
        assert_eq!(told.iter().any(is_gap), gap, "{what}: {told:?}");
    }
}

#[test]
fn muted_packets_are_silence_of_their_length() {
    // The second of three is not heard.
    let (told, report) = by_engine(&packets(), |packet| (150..350).contains(&packet.place));
    assert_eq!(finals(&told), 2, "{told:?}");
    assert_eq!((report.accounting.total(), report.accounting.lost), (192_000, 0));
}

#[test]
fn a_packet_that_is_missing_is_waited_for_no_longer_than_the_window() {
    let model = Arc::new(|_: &Idle| ScriptedDecoder::new(says_what_it_hears));
    let engine = Engine::start(EngineConfig::default(), model).unwrap();
    let events = engine.subscribe();
    let mut config = config();
    // Longer than the thread that pushes may not run.
    config.config.speech_segment_config.silence_duration_ms = 2_000.try_into().unwrap();
    let (mut sender, _) = engine.add_track(config).unwrap();
    // Speech whose last packet is held behind one that never comes; nothing follows, and the track does not end.
    for packet in packets().iter().take(100).filter(|packet| packet.place != 98) {
        while sender.push_opus(packet.opus()) == Err(PushError::Full) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let event = events.recv_timeout(Duration::from_secs(30)).unwrap();
    let EngineEvent::Caption { event: CaptionEvent::Final { end_time, .. }, .. } = event else { panic!("{event:?}") };
    assert_eq!(end_time, at_ms(2_000), "all packets were heard");
    drop(sender);
}

#[test]
fn a_ring_that_is_full_of_packets_says_so_and_the_loss_is_declared() {
    // The pipeline's thread is held before it hears anything.
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let mut engine_config = EngineConfig::default();
    engine_config.on_thread_start = Some(Arc::new(move |role| {
        if role == ThreadRole::Pipeline(0) {
            let _ = gate.lock().unwrap().recv();
        }
    }));
    let model = Arc::new(|_: &Idle| ScriptedDecoder::new(says_what_it_hears));
    let engine = Engine::start(engine_config, model).unwrap();
    let events = engine.subscribe();
    let (mut sender, _) = engine.add_track(config()).unwrap();
    let payload = [0; 640];
    let format = RtpFormat::new(RtpCodec::L16, 16_000, 1).unwrap();
    let packet = |place: i64| {
        let timestamp = place as u32 * 320;
        RtpPacket { at: at_ms(place * 20), ssrc: 7, sequence: place as u16, timestamp, payload: &payload }
    };
    let taken = (0..).find(|&place| sender.push_rtp(format, packet(place)) == Err(PushError::Full)).unwrap();
    assert!((100..110).contains(&taken), "two seconds: {taken}");
    // A second.
    (taken + 1..taken + 50).for_each(|place| assert_eq!(sender.push_rtp(format, packet(place)), Err(PushError::Full)));
    drop(release);
    while sender.push_rtp(format, packet(taken + 50)) == Err(PushError::Full) {
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(sender);
    let (told, report) = until_end(&events);
    let [CaptionEvent::Gap { from, to, reason: GapReason::Overload, .. }] = told[..] else { panic!("{told:?}") };
    assert_eq!((from, to), (at_ms(taken * 20), at_ms((taken + 50) * 20)));
    assert_eq!((report.accounting.lost, report.accounting.silence), (16_000, (taken as u64 + 1) * 320));
    assert_eq!((report.rtp.received, report.rtp.lost, report.rtp.concealed_samples), (taken as u64 + 1, 0, 0));
}

#[test]
fn padding_keeps_no_caption_open() {
    let model = Arc::new(|_: &Idle| ScriptedDecoder::new(says_what_it_hears));
    let engine = Engine::start(EngineConfig::default(), model).unwrap();
    let events = engine.subscribe();
    let (mut sender, _) = engine.add_track(config()).unwrap();
    let mut packets = packets();
    packets.truncate(100);
    let mut push = |packet: RtpPacket<'_>| {
        while sender.push_opus(packet) == Err(PushError::Full) {
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    packets.iter().for_each(|packet| push(packet.opus()));
    // They are in the middle of a word, and from now on there is comfort noise, with numbers and without sound.
    let began = Instant::now();
    let told = loop {
        let last = packets.last_mut().unwrap();
        (last.place, last.sequence) = (last.place + 1, last.sequence.wrapping_add(1));
        push(RtpPacket { payload: &[], ..packets.last().unwrap().opus() });
        match events.recv_timeout(Duration::from_millis(20)) {
            Ok(event) => break event,
            Err(_) => assert!(began.elapsed() < Duration::from_secs(10), "a stream without sound has stalled"),
        }
    };
    assert!(matches!(&told, EngineEvent::Caption { event: CaptionEvent::Final { .. }, .. }), "{told:?}");
}
