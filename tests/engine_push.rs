//! A push costs no allocation, whoever pushes and whatever becomes of it: counted, not believed.
#![cfg(feature = "engine")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cuewire::asr::{DecodeJob, Hypothesis, ScriptedDecoder};
use cuewire::engine::{Engine, EngineConfig, Idle, PushError, TrackConfig};
use cuewire::{Pcm, Timestamp};
use support::COUNT;

#[path = "support/counting.rs"]
mod support;

const THREADS: u64 = 4;
const PUSHES: u64 = 750_000;

#[test]
fn three_million_pushes_from_four_threads_allocate_nothing() {
    let says = |job: &DecodeJob| Ok(Hypothesis::certain("yes", job));
    let engine = Engine::start(EngineConfig::default(), Arc::new(move |_: &Idle| ScriptedDecoder::new(says))).unwrap();
    let (taken, full) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (mut sender, track) = engine.add_track(TrackConfig::new("alice")).unwrap();
            let (engine, taken, full) = (&engine, &taken, &full);
            scope.spawn(move || {
                // Two channels, as fast as it goes: most pushes find the ring full. Some are muted, some too long.
                let (samples, long) = (vec![0.1_f32; 2 * 480], vec![0_i16; 100_000]);
                assert!(COUNT.get() > 0, "the counter does not count");
                for push in 0..100 * PUSHES {
                    // Most are refused within moments: the pipeline may not have looked by then.
                    if push >= PUSHES && taken.load(Ordering::Relaxed) > 1_000 {
                        break;
                    }
                    if push % 100_000 == 0 {
                        engine.mute(track, push % 200_000 == 0).unwrap();
                    }
                    let at = Timestamp::from_nanos(i64::try_from(push).unwrap() * 10_000_000);
                    let (audio, late) = (Pcm::interleaved(48_000, 2, &samples[..]), Pcm::mono(48_000, &long[..]));
                    let before = COUNT.get();
                    let pushed = sender.push(at, if push % 1000 == 0 { late.unwrap() } else { audio.unwrap() });
                    assert_eq!(COUNT.get(), before, "push {push} of thread {thread} allocated: {pushed:?}");
                    match pushed {
                        Ok(()) => taken.fetch_add(1, Ordering::Relaxed),
                        Err(PushError::Full) => full.fetch_add(1, Ordering::Relaxed),
                        Err(PushError::TooLong { frames: 100_000 }) => continue,
                        Err(error) => panic!("{error}"),
                    };
                }
            });
        }
    });
    let (taken, full) = (taken.into_inner(), full.into_inner());
    assert!(taken + full >= THREADS * PUSHES * 999 / 1000, "{taken} taken, {full} refused");
    assert!(taken > 1_000 && full > 1_000, "{taken} taken, {full} refused");
}

#[cfg(feature = "opus")]
#[test]
fn nor_do_packets_of_opus() {
    use cuewire::audio::rtp::RtpPacket;

    let says = |job: &DecodeJob| Ok(Hypothesis::certain("yes", job));
    let engine = Engine::start(EngineConfig::default(), Arc::new(move |_: &Idle| ScriptedDecoder::new(says))).unwrap();
    let (mut sender, _) = engine.add_track(TrackConfig::new("alice")).unwrap();
    let (mut taken, mut full) = (0_u32, 0_u32);
    let payload = [0x48; 120];
    for push in 0..u32::MAX {
        // So many are refused within a few milliseconds: the pipeline may not have looked by then.
        if push >= 1_000_000 && taken > 500 {
            break;
        }
        let at = Timestamp::from_nanos(i64::from(push) * 20_000_000);
        let packet =
            RtpPacket { at, ssrc: 1, sequence: push as u16, timestamp: push.wrapping_mul(960), payload: &payload };
        let before = COUNT.get();
        let pushed = sender.push_opus(packet);
        assert_eq!(COUNT.get(), before, "packet {push} allocated: {pushed:?}");
        *if pushed.is_ok() { &mut taken } else { &mut full } += 1;
    }
    assert!(taken > 500 && full > 500, "{taken} taken, {full} refused");
}
