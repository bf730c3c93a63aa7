//! Faults around a running engine: decoders, models, subscribers and senders that do not do as they should. Each costs what is
//! declared, and the books balance: audio in = captioned + suppressed + silence + declared gaps.
//!
//! A decoder that panics, a ring that is full: `engine.rs`; overload: `engine_overload.rs`.
#![cfg(feature = "engine")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cuewire::asr::{
    Cancel, DecodeError, DecodeJob, Decoder, HeardWord, Hypothesis, MAX_TEXT_BYTES, ScriptedDecoder, Suppression,
};
use cuewire::caption::{CaptionEvent, GapReason};
use cuewire::config::Language;
use cuewire::engine::{AudioSender, Engine, EngineEvent, Idle, MAX_WAITING_EVENTS, NoEvent, TrackConfig, TrackReport};
use cuewire::transcript::{Fragment, jsonl};
use cuewire::{Pcm, Timestamp};
use host::*;
use support::*;

#[path = "support/engine.rs"]
mod host;
#[path = "support/session.rs"]
mod support;

/// Of a track that was at rest when it ended: everything is decided, and of `pushed` samples (48 kHz) each is somewhere.
fn balances(report: &TrackReport, pushed: usize) {
    let books = report.accounting;
    assert_eq!((books.total(), books.pending, report.failure.as_ref()), (pushed as u64 / 3, 0, None), "{report:?}");
}

fn gaps(told: &[CaptionEvent]) -> Vec<GapReason> {
    let reason = |event: &CaptionEvent| match event {
        CaptionEvent::Gap { reason, .. } => Some(*reason),
        _ => None,
    };
    told.iter().filter_map(reason).collect()
}

fn finals(told: &[CaptionEvent]) -> usize {
    told.iter().filter(|event| matches!(event, CaptionEvent::Final { .. })).count()
}

/// What is said of a track until it has ended, and what of its decodes failed.
fn heard(
    engine: &Engine,
    config: TrackConfig,
    push: impl FnOnce(&mut AudioSender),
) -> (Vec<CaptionEvent>, Vec<DecodeError>, TrackReport) {
    let events = engine.subscribe();
    let (mut sender, track) = engine.add_track(config).unwrap();
    push(&mut sender);
    drop(sender);
    let (mut told, mut failed) = (Vec::new(), Vec::new());
    loop {
        match events.recv_timeout(PATIENCE).expect("the track ends") {
            EngineEvent::Caption { event, .. } => told.push(event),
            EngineEvent::Failed { error, .. } => failed.push(error),
            EngineEvent::Ended { track: of, report } if of == track => return (told, failed, report),
            _ => {}
        }
    }
}

#[test]
fn a_decoder_that_cannot_even_be_made_costs_a_try_and_no_caption() {
    let made = Arc::new(AtomicU64::new(0));
    let count = made.clone();
    let model = move |_: &Idle| {
        assert!(count.fetch_add(1, Ordering::SeqCst) > 0, "the first is not to be had");
        ScriptedDecoder::new(says_length)
    };
    let engine = Engine::start(with_workers(1), Arc::new(model)).unwrap();
    let samples = sound(48_000, 3_000, &[(500, 1_500)]);
    let (told, failed, report) = heard(&engine, patient("alice"), |sender| push_all(sender, 0, &samples));
    assert_eq!((finals(&told), told.len(), failed.len(), made.load(Ordering::SeqCst)), (1, 1, 0, 2));
    balances(&report, samples.len());
}

/// Its first answer never comes: it does not even look whether it is called off.
struct Hanging {
    hangs: Arc<AtomicBool>,
    is_first: Arc<AtomicBool>,
}

impl Decoder for Hanging {
    fn decode(&mut self, job: &DecodeJob, _: &Cancel) -> Result<Hypothesis, DecodeError> {
        if self.is_first.swap(false, Ordering::SeqCst) {
            while self.hangs.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        says_length(job)
    }
}

#[test]
fn a_decoder_that_hangs_holds_up_its_own_track_and_no_other_and_the_engine_ends_all_the_same() {
    let (hangs, is_first) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(true)));
    let model = {
        let (hangs, is_first) = (hangs.clone(), is_first.clone());
        move |_: &Idle| Hanging { hangs: hangs.clone(), is_first: is_first.clone() }
    };
    let engine = Engine::start(with_workers(2), Arc::new(model)).unwrap();
    let events = engine.subscribe();
    let samples = sound(48_000, 6_000, &[(500, 1_500), (3_500, 4_500)]);
    let (mut alice, of_alice) = engine.add_track(patient("alice")).unwrap();
    push_all(&mut alice, 0, &samples);
    while is_first.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(5));
    }
    // The other worker serves whoever else speaks.
    for _ in 0..3 {
        let (told, failed, report) = heard(&engine, patient("bob"), |sender| push_all(sender, 0, &samples));
        assert_eq!((finals(&told), failed.len()), (2, 0), "{told:?}");
        balances(&report, samples.len());
    }
    std::thread::sleep(Duration::from_millis(200));
    assert!(engine.unfinished_for(of_alice).unwrap() >= Duration::from_millis(200), "which says that it hangs");
    let began = Instant::now();
    let reports = engine.shutdown(Duration::from_millis(300));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let EngineEvent::Caption { track, event, .. } = event
            && track == of_alice
        {
            told.push(event);
        }
    }
    // Her second caption was decoded, and waits behind the first: it is said in its order.
    assert_eq!((gaps(&told), finals(&told)), (vec![GapReason::Abandoned], 1), "{told:?}");
    let report = reports.iter().find(|(track, _)| *track == of_alice).map(|(_, report)| report).unwrap();
    balances(report, samples.len());
    hangs.store(false, Ordering::SeqCst);
}

/// What became of the one caption of a track whose decoder answers so.
fn answered(
    answer: impl Fn(&DecodeJob) -> Result<Hypothesis, DecodeError> + Clone + Send + Sync + 'static,
) -> (CaptionEvent, Vec<DecodeError>) {
    let engine = engine(1, answer);
    let samples = sound(48_000, 3_000, &[(500, 1_500)]);
    let (mut told, failed, report) = heard(&engine, patient("alice"), |sender| push_all(sender, 0, &samples));
    balances(&report, samples.len());
    assert_eq!(told.len(), 1, "{told:?}");
    (told.pop().unwrap(), failed)
}

#[test]
fn answers_without_end_are_failures_and_their_caption_a_gap() {
    let word = |text: &str| HeardWord { text: text.into(), start: 0, end: 1, probability: 1.0 };
    let word = &word;
    for (what, change) in [
        ("bytes of text", (|answer| answer.text = "x".repeat(MAX_TEXT_BYTES + 1)) as fn(&mut Hypothesis)),
        ("tokens", |answer| answer.tokens = vec![7; MAX_TEXT_BYTES + 1]),
    ] {
        let (event, failed) = answered(move |job| {
            let mut answer = says_length(job)?;
            change(&mut answer);
            Ok(answer)
        });
        assert!(matches!(event, CaptionEvent::Gap { reason: GapReason::DecodeFailed, .. }), "{what}: {event:?}");
        assert!(matches!(&failed[..], [DecodeError::Failed(why)] if why.contains(what)), "{failed:?}");
    }
    for (what, words) in [
        ("bytes of words", vec![word(&"x".repeat(MAX_TEXT_BYTES)), word("y")]),
        ("words", vec![word(""); MAX_TEXT_BYTES + 1]),
    ] {
        let (event, failed) = answered(move |job| Ok(Hypothesis { words: words.clone(), ..says_length(job)? }));
        assert!(matches!(event, CaptionEvent::Gap { reason: GapReason::DecodeFailed, .. }), "{what}: {event:?}");
        assert!(matches!(&failed[..], [DecodeError::Failed(why)] if why.contains(what)), "{failed:?}");
    }
    // What a decoder may say is said, and fits a line of a transcript.
    let (event, _) = answered(|job| Ok(Hypothesis { text: "\u{1}".repeat(MAX_TEXT_BYTES), ..says_length(job)? }));
    let CaptionEvent::Final { text, .. } = event else { panic!("{event:?}") };
    let mut line = Vec::new();
    jsonl::write_fragment(&mut line, &Fragment { text, ..Fragment::default() }).unwrap();
    assert_eq!(jsonl::Reader::new(line.as_slice()).map(Result::unwrap).count(), 1);
}

#[test]
fn words_that_are_anywhere_are_brought_into_their_caption_and_numbers_that_are_none_are_zero() {
    let (event, failed) = answered(|job| {
        let end = job.audio.len() as u32;
        let word = |start, end, probability| HeardWord { text: "word".into(), start, end, probability };
        Ok(Hypothesis {
            words: vec![
                word(u32::MAX - 1, u32::MAX, f32::NAN),
                word(end, 0, f32::INFINITY),
                word(5, 3, -1.0),
                word(end * 2, end * 3, 1e30),
            ],
            language_probability: Some(f32::NAN),
            mean_log_probability: f32::NAN,
            no_speech_probability: f32::NEG_INFINITY,
            ..says_length(job)?
        })
    });
    assert!(failed.is_empty(), "{failed:?}");
    let json = serde_json::to_string(&event).unwrap();
    let CaptionEvent::Final { start_time, end_time, words, language_probability, .. } = event else { panic!("{json}") };
    assert_eq!(words.len(), 4);
    for word in &words {
        assert!(start_time <= word.start_time && word.start_time <= word.end_time && word.end_time <= end_time);
    }
    let confidences: Vec<f64> = words.iter().map(|word| word.confidence.to_f64()).collect();
    assert_eq!(confidences, [0.0, 1.0, 0.0, 1.0]);
    assert!(language_probability.is_none_or(|probability| probability.to_f64() == 0.0));
    assert!(!json.contains("null"), "{json}");
}

#[test]
fn what_else_a_decoder_may_answer_has_its_place() {
    let french: Language = "fr".parse().unwrap();
    let (event, _) = answered(move |job| Ok(Hypothesis { language: french, ..says_length(job)? }));
    // The decoder knows what it has heard: its word stands, also where another language was set.
    assert!(matches!(event, CaptionEvent::Final { language, .. } if language == french), "{event:?}");
    for text in ["", " \n\t\u{3000} "] {
        let (event, _) = answered(move |job| Ok(Hypothesis { text: text.into(), ..says_length(job)? }));
        assert!(matches!(event, CaptionEvent::Suppressed { reason: Suppression::Empty, .. }), "{event:?}");
    }
    for (error, expected, failures) in [
        (DecodeError::Failed("no".into()), GapReason::DecodeFailed, 1),
        (DecodeError::Invalid("no".into()), GapReason::DecodeFailed, 1),
        (DecodeError::Shed, GapReason::Overload, 0),
        (DecodeError::Cancelled, GapReason::Abandoned, 0),
    ] {
        let (event, failed) = answered(move |_| Err(error.clone()));
        assert!(matches!(event, CaptionEvent::Gap { reason, .. } if reason == expected), "{event:?}");
        assert_eq!(failed.len(), failures, "{failed:?}");
    }
}

#[test]
fn one_who_stops_reading_misses_the_oldest_and_is_told_and_others_miss_nothing() {
    let engine = engine(1, says_length);
    let (sleeper, reader) = (engine.subscribe(), engine.subscribe());
    let samples = sound(48_000, 3_000, &[(500, 1_500)]);
    let (mut sender, track) = engine.add_track(patient("alice")).unwrap();
    push_all(&mut sender, 0, &samples);
    let marks = MAX_WAITING_EVENTS as u64 + 500;
    let mut read = 0;
    let mut others = vec![reader.recv_timeout(PATIENCE).unwrap()];
    for mark in 0..marks {
        engine.mark(track, mark).unwrap();
        // Who reads is never far behind.
        while read + 500 < mark {
            match reader.recv_timeout(PATIENCE).unwrap() {
                EngineEvent::Marked { .. } => read += 1,
                other => others.push(other),
            }
        }
    }
    drop(sender);
    loop {
        match reader.recv_timeout(PATIENCE).unwrap() {
            EngineEvent::Marked { .. } => read += 1,
            EngineEvent::Ended { report, .. } => {
                balances(&report, samples.len());
                break;
            }
            other => others.push(other),
        }
    }
    assert_eq!(read, marks);
    assert!(matches!(&others[..], [EngineEvent::Caption { event: CaptionEvent::Final { .. }, .. }]), "{others:?}");
    // The final, the marks and the end, but for as many as there was no room for.
    let EngineEvent::Missed { events } = sleeper.try_recv().unwrap() else { panic!("it is told first") };
    assert_eq!(events, 1 + marks + 1 - MAX_WAITING_EVENTS as u64);
    let rest = std::iter::from_fn(|| sleeper.try_recv().ok()).collect::<Vec<_>>();
    assert_eq!(rest.len(), MAX_WAITING_EVENTS);
    assert!(matches!(rest.last(), Some(EngineEvent::Ended { .. })), "the newest are there");
    assert_eq!(sleeper.try_recv().unwrap_err(), NoEvent::Yet);
}

#[test]
fn a_track_that_stops_sending_has_its_caption_all_the_same() {
    let engine = engine(1, says_length);
    let events = engine.subscribe();
    let (mut sender, track) = engine.add_track(patient("alice")).unwrap();
    let samples = sound(48_000, 1_500, &[(500, 1_500)]);
    push_all(&mut sender, 0, &samples);
    // No silence, no end: nothing more comes.
    let event = events.recv_timeout(Duration::from_secs(5)).expect("its final");
    assert!(matches!(event, EngineEvent::Caption { event: CaptionEvent::Final { .. }, .. }), "{event:?}");
    // An hour later it goes on.
    push_all(&mut sender, 3_600_000, &samples);
    drop(sender);
    let (told, report) = until_end(&events, track);
    let told: Vec<_> = told.into_iter().map(|(event, _)| event).collect();
    assert_eq!((gaps(&told), finals(&told)), (vec![GapReason::NoAudio], 1), "{told:?}");
    balances(&report, 2 * samples.len());
}

#[test]
fn a_track_that_floods_loses_what_there_was_no_room_for_and_says_so() {
    let engine = engine(2, says_length);
    let events = engine.subscribe();
    let (mut sender, track) = engine.add_track(patient("alice")).unwrap();
    let samples = sound(48_000, 60_000, &[(500, 5_500), (20_000, 24_000), (50_000, 55_000)]);
    let mut refused = 0;
    for (i, push) in samples.chunks(960).enumerate() {
        // Whatever was answered: this one does not wait.
        refused += usize::from(sender.push(at_ms(20 * i as i64), Pcm::mono(48_000, push).unwrap()).is_err());
    }
    assert!(refused > 0, "there was room for a minute at once");
    drop(sender);
    let (told, report) = until_end(&events, track);
    let told: Vec<_> = told.into_iter().map(|(event, _)| event).collect();
    assert!(gaps(&told).contains(&GapReason::Overload), "{told:?}");
    balances(&report, samples.len());
    assert_eq!(report.accounting.lost, refused as u64 * 320, "{report:?}");
}

#[test]
fn a_track_that_jumps_a_day_or_to_the_ends_of_time_loses_nothing_of_what_it_sent() {
    const DAY_MS: i64 = 86_400_000;
    let engine = engine(1, says_length);
    let samples = sound(48_000, 3_000, &[(500, 1_500)]);
    let start = 1_800_000_000_000;
    for (jump, expected) in [(DAY_MS, GapReason::NoAudio), (-DAY_MS, GapReason::ClockRestarted)] {
        let (told, _, report) = heard(&engine, patient("alice"), |sender| {
            push_all(sender, start, &samples);
            push_all(sender, start + jump, &samples);
        });
        assert_eq!((gaps(&told), finals(&told)), (vec![expected], 2), "{told:?}");
        let [first, CaptionEvent::Gap { from, to, .. }, second] = &told[..] else { panic!("{told:?}") };
        assert_eq!(to.nanos_since(*from), (jump - 3_000) * MS, "by as much as it jumped");
        let start_of = |event: &CaptionEvent| match event {
            CaptionEvent::Final { start_time, .. } => *start_time,
            other => panic!("{other:?}"),
        };
        assert_eq!(start_of(second).nanos_since(start_of(first)), jump * MS, "and is dated as it says");
        balances(&report, 2 * samples.len());
    }
    // In the middle of a word; and where no time can follow.
    for at in [i64::MAX, i64::MIN, 0] {
        let speaking = sound(48_000, 1_000, &[(0, 1_000)]);
        let (told, _, report) = heard(&engine, patient("alice"), |sender| {
            push_all(sender, start, &speaking);
            for push in speaking.chunks(960) {
                while sender.push(Timestamp::from_nanos(at), Pcm::mono(48_000, push).unwrap()).is_err() {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        });
        assert!(finals(&told) >= 1, "{told:?}");
        assert_eq!((report.accounting.pending, report.failure), (0, None), "at {at}: {told:?}");
    }
}

/// Whatever becomes of the file, a model that is loaded is in memory.
#[cfg(feature = "whisper")]
#[test]
fn a_model_whose_file_is_cut_and_deleted_goes_on() {
    use cuewire::asr::whisper::WhisperModel;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let original = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/models/whisper-base-q8_0.gguf");
    std::fs::copy(original, &path).unwrap();
    let model = Arc::new(WhisperModel::load(&path).unwrap());
    let mut said = Vec::new();
    let samples = sound(48_000, 3_000, &[(500, 1_500)]);
    for step in ["whole", "cut", "deleted"] {
        match step {
            // Where it were mapped, the next look at it would end the process.
            "cut" => std::fs::File::create(&path).map(drop).unwrap(),
            "deleted" => std::fs::remove_file(&path).unwrap(),
            _ => {}
        }
        // Decoders that are made now, too.
        let engine = Engine::start(with_workers(1), model.clone()).unwrap();
        let (told, failed, report) = heard(&engine, patient("alice"), |sender| push_all(sender, 0, &samples));
        assert!(failed.is_empty(), "{step}: {failed:?}");
        balances(&report, samples.len());
        said.push(told);
    }
    assert!(said[0] == said[1] && said[1] == said[2] && !said[0].is_empty(), "{said:?}");
    let error = WhisperModel::load(&path).unwrap_err().to_string();
    assert!(error.contains("model.gguf"), "{error}");
}
