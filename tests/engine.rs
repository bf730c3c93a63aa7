//! The engine with a scripted decoder: what is pushed, asked, answered and said, whatever happens meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cuewire::asr::{DecodeError, DecodeJob, Decoder, Hypothesis, ScriptedDecoder};
use cuewire::caption::{CaptionEvent, GapReason};
use cuewire::config::Config;
use cuewire::engine::{
    AudioSender, Engine, EngineError, EngineEvent, Idle, Model, ModelId, NoEvent, OverloadLevel, Priority, PushError,
    RING_FRAMES, ThreadRole, TrackConfig,
};
use cuewire::time::Timestamp;
use cuewire::{Input, Pcm, Session};
use host::*;
use support::*;
use time::{in_time, unless};

#[path = "support/engine.rs"]
mod host;
#[path = "support/session.rs"]
mod support;
#[path = "support/time.rs"]
mod time;

/// What a session says of the same audio, driven by hand.
fn offline(config: Config, samples: &[i16]) -> Vec<CaptionEvent> {
    let mut session = Session::new("alice", config);
    push(&mut session, at_ms(0), 48_000, samples).unwrap();
    session.handle_input(Input::End).unwrap();
    drain(&mut session, &mut ScriptedDecoder::new(says_length))
}

/// Twelve seconds with three captions.
fn speech() -> Vec<i16> {
    sound(48_000, 12_000, &[(500, 2_500), (4_000, 5_000), (7_000, 10_500)])
}

#[test]
fn finals_are_those_of_the_offline_path_whatever_the_threads_and_pushes() {
    let samples = speech();
    let expected: Vec<_> = offline(patient("alice").config, &samples)
        .into_iter()
        .filter(|e| matches!(e, CaptionEvent::Final { .. }))
        .collect();
    assert_eq!(expected.len(), 3);
    for (workers, tracks, push_frames) in [(1, 1, 960), (2, 5, 441), (3, 3, 7_001)] {
        let engine = engine(workers, says_length);
        let events = engine.subscribe();
        let mut senders: Vec<_> = (0..tracks).map(|_| engine.add_track(patient("alice")).unwrap().0).collect();
        let mut from = 0;
        while from < samples.len() {
            let to = samples.len().min(from + push_frames);
            let at = Timestamp::from_nanos(cuewire::time::nanos_of_samples(from as u64, 48_000));
            for sender in &mut senders {
                while sender.push(at, Pcm::mono(48_000, &samples[from..to]).unwrap()).is_err() {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            from = to;
        }
        drop(senders);
        let mut finals = vec![Vec::new(); tracks];
        let mut ended = 0;
        while ended < tracks {
            match events.recv_timeout(PATIENCE).unwrap() {
                EngineEvent::Caption { track, event: event @ CaptionEvent::Final { .. }, ledger, .. } => {
                    let ledger = ledger.expect("a final has a ledger");
                    assert!(ledger.queued <= ledger.decode_start && ledger.decode_start <= ledger.decode_end);
                    assert!(ledger.speech_end <= ledger.silence_reached && ledger.silence_reached <= ledger.emitted);
                    assert!(ledger.decode_end <= ledger.emitted && ledger.latency_nanos() >= 0);
                    finals[track.0 as usize].push(event);
                }
                EngineEvent::Ended { report, .. } => {
                    ended += 1;
                    assert_eq!((report.accounting.total(), report.accounting.pending), (192_000, 0));
                    assert_eq!((report.full, report.finals_shed, report.failure), (report.full, 0, None));
                }
                other => panic!("{other:?}"),
            }
        }
        for (track, finals) in finals.iter().enumerate() {
            assert_eq!(*finals, expected, "track {track}, {workers} workers, {push_frames} frames a push");
        }
    }
}

#[test]
fn interims_come_while_one_speaks_and_the_final_is_ready_when_the_silence_is_over() {
    let samples = sound(48_000, 6_000, &[(500, 3_500)]);
    in_time(|| {
        let engine = engine(2, says_length);
        let events = engine.subscribe();
        let (mut sender, track) = engine.add_track(TrackConfig::new("alice")).unwrap();
        // In real time: what is early and what is late is told by the clock.
        let (start, samples) = (Instant::now(), &samples);
        let (told, report) = std::thread::scope(|scope| {
            scope.spawn(move || {
                for (i, push) in samples.chunks(960).enumerate() {
                    std::thread::sleep(Duration::from_millis(20 * i as u64 + 20).saturating_sub(start.elapsed()));
                    push_one(&mut sender, 20 * i as i64, push);
                }
            });
            until_end(&events, track)
        });
        assert_eq!(report.accounting.total(), 96_000);
        let interims = told.iter().filter(|(event, _)| matches!(event, CaptionEvent::Interim { .. })).count();
        unless((2..=3).contains(&interims), || format!("{interims} interims: {told:?}"))?;
        let ledger = told.iter().find_map(|(_, ledger)| *ledger).unwrap();
        unless(ledger.decode_end < ledger.silence_reached, || format!("decoded behind the silence: {ledger:?}"))?;
        let silence = ledger.silence_reached.nanos_since(ledger.speech_end) / MS;
        unless((690..800).contains(&silence), || format!("{silence} ms of silence: {ledger:?}"))
    });
}

#[test]
fn flush_mute_and_other_settings_reach_a_track_in_their_order() {
    let engine = engine(1, says_length);
    let events = engine.subscribe();
    let (mut sender, track) = engine.add_track(unhurried("alice")).unwrap();
    let speaking = sound(48_000, 2_000, &[(0, 2_000)]);
    push_all(&mut sender, 0, &speaking);
    engine.flush(track).unwrap();
    engine.mute(track, true).unwrap();
    push_all(&mut sender, 2_000, &speaking);
    engine.mute(track, false).unwrap();
    let mut other = unhurried("alice").config;
    other.word_times = true;
    engine.reconfigure(track, other).unwrap();
    push_all(&mut sender, 4_000, &speaking);
    drop(sender);
    let (told, report) = until_end(&events, track);
    let spans: Vec<_> = told
        .iter()
        .map(|(event, _)| match event {
            CaptionEvent::Final { start_time, end_time, .. } => (start_time.as_nanos() / MS, end_time.as_nanos() / MS),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(spans.len(), 2, "{spans:?}");
    assert!(
        spans[0].0 < 100 && (1_900..2_100).contains(&spans[0].1) && spans[1].0 >= 4_000 && spans[1].1 == 6_000,
        "{spans:?}"
    );
    assert!(report.accounting.silence > 31_000, "{report:?}");
    for error in [engine.flush(track).unwrap_err(), engine.mute(track, true).unwrap_err()] {
        assert!(matches!(error, EngineError::UnknownTrack(of) if of == track), "{error}");
    }
}

#[test]
fn a_ring_that_is_full_says_so_and_the_loss_is_declared() {
    // The pipeline's thread is held before it hears anything.
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let mut config = with_workers(1);
    config.on_thread_start = Some(Arc::new(move |role| {
        if role == ThreadRole::Pipeline(0) {
            let _ = gate.lock().unwrap().recv();
        }
    }));
    let model = Arc::new(|_: &Idle| ScriptedDecoder::new(says_length));
    let engine = Engine::start(config, model).unwrap();
    let events = engine.subscribe();
    let (mut sender, track) = engine.add_track(patient("alice")).unwrap();
    let samples = vec![0i16; RING_FRAMES + 1];
    let too_long = sender.push(at_ms(0), Pcm::mono(48_000, &samples[..]).unwrap()).unwrap_err();
    assert_eq!(too_long, PushError::TooLong { frames: RING_FRAMES + 1 });
    let push =
        |sender: &mut AudioSender, i: i64| sender.push(at_ms(i * PUSH_MS), Pcm::mono(48_000, &samples[..960]).unwrap());
    (0..100).for_each(|i| push(&mut sender, i).unwrap());
    (100..150).for_each(|i| assert_eq!(push(&mut sender, i), Err(PushError::Full)));
    drop(release);
    while push(&mut sender, 150) == Err(PushError::Full) {
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(sender);
    let (told, report) = until_end(&events, track);
    match &told[..] {
        [(CaptionEvent::Gap { from, to, reason: GapReason::Overload, .. }, None)] => {
            assert_eq!((*from, *to), (at_ms(2_000), at_ms(3_000)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!((report.accounting.lost, report.accounting.silence), (16_000, 101 * 320));
    assert!(report.full >= 50);
}

#[test]
fn a_decoder_that_panics_costs_one_caption_and_no_thread() {
    let tries = Arc::new(AtomicU64::new(0));
    let count = tries.clone();
    let engine = engine(1, move |job| {
        if job.start.0 < 16_000 {
            count.fetch_add(1, Ordering::SeqCst);
            panic!("the first caption");
        }
        says_length(job)
    });
    let events = engine.subscribe();
    let mut config = patient("alice");
    config.config.early_finals = false;
    let (mut sender, track) = engine.add_track(config).unwrap();
    push_all(&mut sender, 0, &speech());
    drop(sender);
    let mut failures = Vec::new();
    let mut told = Vec::new();
    let report = loop {
        match events.recv_timeout(PATIENCE).unwrap() {
            EngineEvent::Caption { event, .. } => told.push(event),
            EngineEvent::Failed { track: of, error } => failures.push((of, error)),
            EngineEvent::Ended { report, .. } => break report,
            _ => {}
        }
    };
    assert!(matches!(told[0], CaptionEvent::Gap { reason: GapReason::DecodeFailed, .. }), "{told:?}");
    assert!(told[1..].iter().all(|event| matches!(event, CaptionEvent::Final { .. })) && told.len() == 3, "{told:?}");
    assert_eq!(tries.load(Ordering::SeqCst), 2, "it was tried twice");
    let [(of, DecodeError::Failed(text))] = &failures[..] else { panic!("{failures:?}") };
    assert!(*of == track && text.contains("the first caption"), "{text}");
    assert_eq!((report.accounting.total(), report.accounting.pending), (192_000, 0));
}

#[test]
fn shutting_down_finalises_what_is_open_and_gives_up_the_rest_at_the_deadline() {
    let stuck = Arc::new(AtomicBool::new(false));
    for is_stuck in [false, true] {
        stuck.store(is_stuck, Ordering::SeqCst);
        let flag = stuck.clone();
        let engine = Engine::start(with_workers(1), Arc::new(move |_: &Idle| Stuck(flag.clone()))).unwrap();
        let events = engine.subscribe();
        let mut senders: Vec<_> = (0..3).map(|_| engine.add_track(patient("alice")).unwrap().0).collect();
        for sender in &mut senders {
            push_all(sender, 0, &sound(48_000, 2_000, &[(500, 2_000)]));
        }
        let start = Instant::now();
        let reports = engine.shutdown(if is_stuck { Duration::from_millis(300) } else { Duration::MAX });
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        assert_eq!(reports.len(), 3);
        let told: Vec<_> = std::iter::from_fn(|| events.recv_timeout(Duration::MAX).ok()).collect();
        let is_final =
            |event: &&EngineEvent| matches!(event, EngineEvent::Caption { event: CaptionEvent::Final { .. }, .. });
        let is_abandoned = |event: &&EngineEvent| {
            matches!(event, EngineEvent::Caption { event: CaptionEvent::Gap { reason: GapReason::Abandoned, .. }, .. })
        };
        let ended = told.iter().filter(|event| matches!(event, EngineEvent::Ended { .. })).count();
        let counts = (told.iter().filter(is_final).count(), told.iter().filter(is_abandoned).count(), ended);
        assert_eq!(counts, if is_stuck { (0, 3, 3) } else { (3, 0, 3) });
        for (_, report) in reports {
            assert_eq!((report.accounting.total(), report.accounting.pending), (32_000, 0));
        }
        assert_eq!(senders[0].push(at_ms(9_000), Pcm::mono(48_000, &[0i16; 960][..]).unwrap()), Err(PushError::Ended));
    }
}

#[test]
fn threads_have_names_and_may_be_set_up_by_the_host() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let named = seen.clone();
    let mut config = with_workers(2);
    config.pipelines = NonZeroUsize::new(2).unwrap();
    config.on_thread_start = Some(Arc::new(move |role| {
        named.lock().unwrap().push((role, std::thread::current().name().unwrap_or_default().to_string()));
        if let ThreadRole::Decode(_) = role {
            let cores = core_affinity::get_core_ids().unwrap();
            assert!(core_affinity::set_for_current(cores[0]));
        }
        panic!("a host's fault costs no thread");
    }));
    let says_cores = |job: &DecodeJob| {
        let cores = core_affinity::get_core_ids().unwrap().len();
        Ok(Hypothesis::certain(&format!("{cores} core"), job))
    };
    let engine = Engine::start(config, Arc::new(move |_: &Idle| ScriptedDecoder::new(says_cores))).unwrap();
    let events = engine.subscribe();
    let (mut sender, track) = engine.add_track(patient("alice")).unwrap();
    push_all(&mut sender, 0, &speech());
    drop(sender);
    assert_eq!(texts(&until_end(&events, track).0), ["1 core"; 3], "it stays where the host put it");
    drop(engine);
    let mut seen = std::mem::take(&mut *seen.lock().unwrap());
    seen.sort_by_key(|(_, name)| name.clone());
    let expected = [
        (ThreadRole::Decode(0), "cuewire-decode-0"),
        (ThreadRole::Decode(1), "cuewire-decode-1"),
        (ThreadRole::Pipeline(0), "cuewire-pipeline-0"),
        (ThreadRole::Pipeline(1), "cuewire-pipeline-1"),
    ];
    assert_eq!(seen, expected.map(|(role, name)| (role, name.to_string())));
}

/// Understands English only.
struct English;

impl Model for English {
    fn decoder(self: Arc<Self>, _: &Idle) -> Box<dyn Decoder> {
        Box::new(ScriptedDecoder::new(|job: &DecodeJob| Ok(Hypothesis::certain("english", job))))
    }
    fn check(&self, config: &Config) -> Result<(), String> {
        let english = Config::default().language;
        if config.language == english { Ok(()) } else { Err(format!("{:?} is not spoken here", config.language)) }
    }
}

#[test]
fn each_track_has_its_model_of_those_loaded_and_settings_that_it_can_do() {
    let any = Arc::new(|_: &Idle| ScriptedDecoder::new(|job: &DecodeJob| Ok(Hypothesis::certain("any", job))));
    let models: Vec<Arc<dyn Model>> = vec![any, Arc::new(English)];
    let engine = Engine::start(with_workers(1), models).unwrap();
    assert!(matches!(Engine::start(with_workers(1), Vec::new()), Err(EngineError::NoModel)));
    let events = engine.subscribe();
    let config = |model: usize, language: &str| {
        let mut config = patient("alice");
        config.model = ModelId(model);
        config.config.language = language.parse().unwrap();
        config
    };
    let error = engine.add_track(config(2, "en")).err().unwrap().to_string();
    assert!(error.contains("model 2") && error.contains("there are 2"), "{error}");
    let error = engine.add_track(config(1, "fr")).err().unwrap().to_string();
    assert!(error.contains("not spoken here"), "{error}");
    for (model, language, expected) in [(0, "fr", "any"), (1, "en", "english")] {
        let (mut sender, track) = engine.add_track(config(model, language)).unwrap();
        if model == 1 {
            assert!(engine.reconfigure(track, config(1, "fr").config).is_err());
        }
        push_all(&mut sender, 0, &speech());
        drop(sender);
        assert_eq!(texts(&until_end(&events, track).0), [expected; 3]);
    }
}

#[test]
fn one_that_floods_waits_behind_the_others_and_priority_goes_before() {
    in_time(|| {
        let (started, start) = std::sync::mpsc::channel::<()>();
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let doors = Mutex::new(Some((started, gate)));
        let doors = Arc::new(doors);
        let model = Arc::new(move |_: &Idle| {
            let doors = doors.clone();
            ScriptedDecoder::new(move |job: &DecodeJob| {
                // The first job of all holds the only worker, until all the others wait.
                if let Some((started, gate)) = doors.lock().unwrap().take() {
                    started.send(()).unwrap();
                    let _ = gate.recv();
                }
                says_length(job)
            })
        });
        let mut config = with_workers(1);
        config.pipelines = NonZeroUsize::MIN;
        let engine = Engine::start(config, model).unwrap();
        let events = engine.subscribe();
        let five = sound(48_000, 11_000, &[(0, 1_000), (2_000, 3_000), (4_000, 5_000), (6_000, 7_000), (8_000, 9_000)]);
        let add = |name: &str, priority| {
            let mut config = patient(name);
            config.priority = priority;
            engine.add_track(config).unwrap()
        };
        let (mut flood, flooded) = add("flood", Priority::Normal);
        let (_silent, silent) = add("silent", Priority::Normal);
        push_all(&mut flood, 0, &five[..48_000 * 2]);
        start.recv().unwrap();
        let began = Instant::now();
        push_all(&mut flood, 2_000, &five[48_000 * 2..]);
        let others: Vec<_> = [("low", Priority::Low), ("normal", Priority::Normal), ("high", Priority::High)]
            .into_iter()
            .map(|(name, priority)| {
                let (mut sender, track) = add(name, priority);
                push_all(&mut sender, 0, &five[..48_000 * 2]);
                engine.flush(track).unwrap();
                (sender, track)
            })
            .collect();
        // Until the pipeline has heard all of it: a mark is behind what was pushed, and the last one waits for no caption.
        engine.mark(flooded, 1).unwrap();
        engine.mark(silent, 2).unwrap();
        while !matches!(events.recv_timeout(PATIENCE).unwrap(), EngineEvent::Marked { mark: 2, .. }) {}
        let took = began.elapsed();
        drop(release);
        let mut order = Vec::new();
        while order.len() < 8 {
            if let EngineEvent::Caption { event: CaptionEvent::Final { speaker_id, .. }, .. } =
                events.recv_timeout(PATIENCE).unwrap()
            {
                order.push(speaker_id.to_string());
            }
        }
        // What is due when is told by the clock.
        unless(took < Duration::from_millis(400), || format!("pushed within {took:?}"))?;
        // Its four that wait are due half a second later each than the one before; a priority is worth one second.
        assert_eq!(order[..4], ["flood", "high", "normal", "flood"], "{order:?}");
        assert_eq!(order[6..], ["flood"; 2], "{order:?}");
        drop(others);
        Ok(())
    });
}

#[test]
fn what_was_polled_before_it_came_is_not_there_yet() {
    let engine = engine(1, says_length);
    let events = engine.subscribe();
    assert_eq!(events.try_recv().unwrap_err(), NoEvent::Yet);
    assert_eq!((engine.overload(), engine.capacity()), (OverloadLevel::None, None));
    drop(engine);
    assert_eq!(events.try_recv().unwrap_err(), NoEvent::Ended);
}
