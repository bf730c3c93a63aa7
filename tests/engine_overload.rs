//! More audio than the workers decode: what is lost is declared, memory stays, and it passes.
//!
//! Alone in their process and one behind the other: memory and time are measured.
#![cfg(feature = "engine")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cuewire::caption::{CaptionEvent, GapReason};
use cuewire::engine::{AudioSender, Engine, EngineEvent, OverloadLevel, Priority, TrackConfig};
use host::*;
use memory::resident_kib;
use support::*;
use time::{in_time, unless};

#[path = "support/engine.rs"]
mod host;
#[path = "support/memory.rs"]
mod memory;
#[path = "support/session.rs"]
mod support;
#[path = "support/time.rs"]
mod time;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// One who waits a second for their finals.
fn speaker(engine: &Engine, i: usize, priority: Priority) -> AudioSender {
    let mut config = TrackConfig::new(format!("speaker {i}"));
    config.priority = priority;
    config.patience = Duration::from_millis(1_000);
    engine.add_track(config).unwrap().0
}

/// Ten seconds of so many who speak three quarters of the time, before one worker that is fast enough for eight of them.
fn ten_seconds(tracks: usize, is_overloaded: Option<bool>) -> Result<(), String> {
    let cycle = sound(48_000, 4_000, &[(0, 3_000)]);
    let engine = engine(1, sleeps);
    let events = engine.subscribe();
    let priority = |i| [Priority::Low, Priority::Normal, Priority::High][i % 3];
    let mut senders: Vec<_> = (0..tracks).map(|i| speaker(&engine, i, priority(i))).collect();
    let start = Instant::now();
    let pusher = std::thread::spawn(move || {
        for k in 0..500 {
            std::thread::sleep(Duration::from_millis(20 * k as u64).saturating_sub(start.elapsed()));
            for (i, sender) in senders.iter_mut().enumerate() {
                // Staggered: they do not end at the same moment.
                let push = (k + 200 * i / tracks) % 200 * 960;
                push_one(sender, 20 * k as i64, &cycle[push..push + 960]);
            }
        }
    });
    let (mut ended, mut shed, mut highest) = (0, 0, OverloadLevel::None);
    let mut late = Vec::new();
    while ended < tracks {
        match events.recv_timeout(PATIENCE).unwrap() {
            EngineEvent::Ended { report, .. } => {
                ended += 1;
                shed += report.finals_shed;
                let of = report.accounting;
                assert_eq!(of.pending, 0, "{report:?}");
                assert_eq!(of.captioned + of.suppressed + of.silence + of.lost, 160_000, "{report:?}");
                assert!(report.finals_shed > 0 || of.lost == 0, "{report:?}");
            }
            EngineEvent::Overload { level } => highest = highest.max(level),
            EngineEvent::Caption { event: CaptionEvent::Final { .. }, ledger, .. } => {
                late.push(ledger.unwrap().latency_nanos() / MS);
            }
            EngineEvent::Missed { events } => panic!("{events} events missed"),
            _ => {}
        }
    }
    pusher.join().unwrap();
    println!("{tracks} tracks: {} finals, latest {:?} ms, {shed} shed, {highest:?}", late.len(), late.iter().max());
    if let Some(is_overloaded) = is_overloaded {
        unless((shed > 0) == is_overloaded, || format!("{tracks} tracks: {shed} shed"))?;
        let is_shedding = highest == OverloadLevel::Shedding;
        unless(is_shedding == is_overloaded, || format!("{tracks} tracks: {highest:?}"))?;
    }
    let latest = late.into_iter().max().unwrap();
    unless(latest < 1_500, || format!("{tracks} tracks: a final {latest} ms late"))
}

#[test]
fn nothing_is_lost_undeclared_at_half_to_four_times_what_fits() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    for (tracks, is_overloaded) in [(4, Some(false)), (8, None), (16, Some(true)), (32, Some(true))] {
        in_time(|| ten_seconds(tracks, is_overloaded));
    }
}

/// Four times what fits, for ten seconds or `CUEWIRE_TEST_OVERLOAD_S`; then half of it.
fn four_times_what_fits() -> Result<(), String> {
    let overload = std::env::var("CUEWIRE_TEST_OVERLOAD_S").map_or(10, |text| text.parse().unwrap());
    let tracks = 32_usize;
    let cycle = sound(48_000, 4_000, &[(0, 3_000)]);
    let engine = engine(1, sleeps);
    let events = engine.subscribe();
    let mut senders: Vec<_> = (0..tracks).map(|i| Some(speaker(&engine, i, Priority::Normal))).collect();
    let start = Instant::now();
    let end_of_load = Duration::from_secs(overload);
    let pusher = std::thread::spawn(move || {
        let mut memory = Vec::new();
        for k in 0..(overload + 8) * 50 {
            let due = Duration::from_millis(20 * k);
            std::thread::sleep(due.saturating_sub(start.elapsed()));
            if due >= end_of_load {
                senders.iter_mut().enumerate().filter(|(i, _)| i % 8 > 0).for_each(|(_, sender)| *sender = None);
            } else if k % 50 == 0 {
                memory.extend(resident_kib());
            }
            for (i, sender) in senders.iter_mut().enumerate() {
                let push = (k as usize + 200 * i / tracks) % 200 * 960;
                if let Some(sender) = sender {
                    push_one(sender, 20 * k as i64, &cycle[push..push + 960]);
                }
            }
        }
        memory
    });
    let (mut ended, mut gaps, mut shed, mut full) = (0, 0, 0, 0);
    let mut over = None;
    while ended < tracks {
        match events.recv_timeout(PATIENCE).unwrap() {
            EngineEvent::Overload { level: OverloadLevel::None } if start.elapsed() > end_of_load => {
                over = over.or(Some(start.elapsed() - end_of_load));
            }
            EngineEvent::Caption { event: CaptionEvent::Gap { reason: GapReason::Overload, .. }, .. } => gaps += 1,
            EngineEvent::Ended { report, .. } => {
                ended += 1;
                shed += report.finals_shed;
                let of = report.accounting;
                let length = if track_is_short(of.total(), overload) { overload } else { overload + 8 };
                assert_eq!((of.total(), of.pending), (length * 16_000, 0), "{report:?}");
                full += report.full;
            }
            EngineEvent::Missed { events } => panic!("{events} events missed"),
            _ => {}
        }
    }
    let memory = pusher.join().unwrap();
    assert_eq!(gaps, shed, "each is declared");
    println!("{shed} shed in {overload} s; over after {over:?}; {memory:?} KiB");
    if let Some(most) = memory.iter().max() {
        // Once everything was there: rings, queues, the audio of captions that wait.
        let early = memory[memory.len() / 2];
        assert!(*most < early + 16 * 1024, "{memory:?} KiB");
    } else {
        println!("the memory of a process can be read on Linux only: not checked");
    }
    unless(shed > 0, || "nothing was shed".into())?;
    unless(full == 0, || format!("{full} pushes found no room: pipelines wait for the workers"))?;
    unless(over.is_some_and(|over| over < Duration::from_secs(5)), || format!("over after {over:?}"))
}

#[test]
fn overload_costs_no_memory_and_is_over_within_five_seconds_of_its_end() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    in_time(four_times_what_fits);
}

fn track_is_short(samples: u64, overload_s: u64) -> bool {
    samples < (overload_s + 1) * 16_000
}
