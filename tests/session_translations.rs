//! Translations beside their originals: promises of the session, with a scripted decoder.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use cuewire::asr::{DecodeError, DecodeJob, Hypothesis, JobKind, ScriptedDecoder, Suppression};
use cuewire::caption::{CaptionEvent, CaptionId};
use cuewire::config::{Config, LanguageSetting, Replacement, Task};
use cuewire::session::{Input, Output, Session};
use support::*;

#[path = "support/session.rs"]
mod support;

type Answer = Result<Hypothesis, DecodeError>;
type Says<'a> = &'a (dyn Fn(&DecodeJob) -> Answer + Sync);

fn french() -> Config {
    let mut config = no_interims();
    (config.language, config.translations) = ("fr".parse().unwrap(), true);
    config
}

/// Hears French, and knows what it is in English.
fn hears(job: &DecodeJob) -> Answer {
    Ok(match job.task {
        Task::Transcribe => Hypothesis { tokens: vec![1, 2], ..Hypothesis::certain("bonjour", job) },
        Task::Translate => Hypothesis { translated: true, ..Hypothesis::certain("hello", job) },
    })
}

/// A track with speech from 0.5 to 2 s and from 3 to 4 s, to its end; its events and the jobs asked.
fn run(
    config: Config,
    mut says: impl FnMut(&DecodeJob) -> Answer + Send,
) -> (Vec<CaptionEvent>, Vec<DecodeJob>, Session) {
    let mut session = Session::with_vad("alice", config, Box::new(Loudness));
    let (mut events, mut jobs) = (Vec::new(), Vec::new());
    let mut decoder = ScriptedDecoder::new(|job: &DecodeJob| {
        jobs.push(job.clone());
        says(job)
    });
    for (i, piece) in sound(16_000, 6_000, &[(500, 2_000), (3_000, 4_000)]).chunks(320).enumerate() {
        push(&mut session, at_ms(i as i64 * 20), 16_000, piece).unwrap();
        events.extend(drain(&mut session, &mut decoder));
    }
    session.handle_input(Input::End).unwrap();
    events.extend(drain(&mut session, &mut decoder));
    assert!(session.is_finished());
    (events, jobs, session)
}

fn translations(events: &[CaptionEvent]) -> Vec<&str> {
    let texts = events.iter().filter_map(|event| match event {
        CaptionEvent::Translation { text, .. } => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

#[test]
fn a_translation_is_asked_of_the_finals_audio_and_said_behind_the_final() {
    let mut config = french();
    (config.interim_interval_ms, config.early_finals, config.word_times) =
        (Config::default().interim_interval_ms, true, true);
    config.vocabulary = vec!["Orléans".to_string()].try_into().unwrap();
    let (events, jobs, session) = run(config.clone(), hears);
    let said: Vec<_> = events.into_iter().filter(|event| !matches!(event, CaptionEvent::Interim { .. })).collect();
    for (i, pair) in said.chunks(2).enumerate() {
        let [CaptionEvent::Final { start_time, end_time, .. }, translation] = pair else { panic!("{pair:?}") };
        let expected = CaptionEvent::Translation {
            id: CaptionId(i as u64),
            start_time: *start_time,
            end_time: *end_time,
            speaker_id: "alice".into(),
            language: "en".parse().unwrap(),
            spoken_language: "fr".parse().unwrap(),
            text: "hello".into(),
        };
        assert_eq!(*translation, expected);
        let json = serde_json::to_string(translation).unwrap();
        assert!(json.starts_with(r#"{"type":"translation","id":"#), "{json}");
        assert_eq!(serde_json::from_str::<CaptionEvent>(&json).unwrap(), expected);
    }
    assert_eq!(said.len(), 4);
    let of = |kind| jobs.iter().filter(move |job| job.kind == kind);
    for (job, original) in of(JobKind::Translation).zip(of(JobKind::Final)) {
        assert!(Arc::ptr_eq(&job.audio, &original.audio) && job.features.shares_with(&original.features));
        assert_eq!((job.start, job.task, job.word_times), (original.start, Task::Translate, false));
        assert_eq!(job.language, LanguageSetting::Fixed("fr".parse().unwrap()));
        assert!(job.draft.is_empty() && !original.draft.is_empty() && original.word_times);
        assert_eq!(job.vocabulary, original.vocabulary);
    }
    // Nothing else is another for it.
    config.translations = false;
    let (events, _, without) = run(config, hears);
    assert_eq!(events.iter().filter(|event| matches!(event, CaptionEvent::Final { .. })).count(), 2);
    assert_eq!((translations(&events), without.accounting()), (vec![], session.accounting()));
}

#[test]
fn what_is_english_or_translated_or_not_said_is_not_translated() {
    let (mut auto, mut english, mut translated) = (french(), french(), french());
    auto.language = LanguageSetting::Auto;
    english.language = "en".parse().unwrap();
    translated.task = Task::Translate;
    let suppressed = |job: &DecodeJob| Ok(Hypothesis { suppressed: Some(Suppression::NoSpeech), ..hears(job)? });
    let removed = |job: &DecodeJob| Ok(Hypothesis { text: "[Musique]".into(), ..hears(job)? });
    let german = |probability| {
        move |job: &DecodeJob| {
            let language_probability = (job.language == LanguageSetting::Auto).then_some(probability);
            Ok(Hypothesis { language: "de".parse().unwrap(), language_probability, ..hears(job)? })
        }
    };
    let cases: [(&str, Config, Says<'_>, usize); 9] = [
        ("French", french(), &hears, 2),
        ("detected to be German", auto.clone(), &german(0.9), 2),
        ("hardly detected to be German", auto.clone(), &german(0.4), 2),
        ("detected to be English", auto, &hears, 0),
        ("English", english, &hears, 0),
        ("itself a translation", translated, &hears, 0),
        ("suppressed", french(), &suppressed, 0),
        ("without words", french(), &removed, 0),
        ("lost", french(), &|_| Err(DecodeError::Failed("a fault".into())), 0),
    ];
    for (name, config, says, expected) in cases {
        let (events, jobs, _) = run(config, says);
        let asked: Vec<_> = jobs.iter().filter(|job| job.kind == JobKind::Translation).collect();
        assert_eq!((asked.len(), translations(&events).len()), (expected, expected), "{name}");
        for job in asked {
            let spoken = if name == "French" { "fr" } else { "de" };
            assert_eq!(job.language, LanguageSetting::Fixed(spoken.parse().unwrap()), "{name}");
        }
    }
}

#[test]
fn what_cannot_be_translated_is_not_spoken_of() {
    let (_, _, whole) = run(french(), hears);
    let suppressed = |job: &DecodeJob| Hypothesis { suppressed: Some(Suppression::Repetition), ..hears(job).unwrap() };
    let answers: [Says<'_>; 7] = [
        &|job| Ok(suppressed(job)),
        &|job| Ok(Hypothesis::certain(" ", job)),
        &|job| Ok(Hypothesis::certain("[Music]", job)),
        &|_| Err(DecodeError::Failed("a fault".into())),
        &|_| Err(DecodeError::Invalid("a wrong job".into())),
        &|_| Err(DecodeError::Shed),
        &|_| Err(DecodeError::Cancelled),
    ];
    for (i, answer) in answers.iter().enumerate() {
        let (events, jobs, session) =
            run(french(), |job| if job.kind == JobKind::Translation { answer(job) } else { hears(job) });
        assert_eq!(jobs.len(), 4, "{i}");
        assert!(events.iter().all(|event| matches!(event, CaptionEvent::Final { .. })), "{i}: {events:?}");
        assert_eq!((session.accounting(), session.suppressions()), (whole.accounting(), whole.suppressions()), "{i}");
    }
}

#[test]
fn settings_are_those_with_which_the_caption_was_closed() {
    let mut config = french();
    config.text_rules.replacements =
        vec![Replacement { from: "new york".into(), to: "NYC".into() }].try_into().unwrap();
    config.text_rules.mask_profanity = true;
    for (first, second, expected) in [(&config, &no_interims(), vec!["s*** in NYC"]), (&no_interims(), &config, vec![])]
    {
        let mut session = Session::with_vad("alice", first.clone(), Box::new(Loudness));
        push(&mut session, at_ms(0), 16_000, &sound(16_000, 4_000, &[(500, 2_000)])).unwrap();
        session.handle_input(Input::Configure(second.clone())).unwrap();
        let events = drain(
            &mut session,
            &mut ScriptedDecoder::new(|job: &DecodeJob| match job.kind {
                JobKind::Translation => Ok(Hypothesis::certain(" shit in New York ", job)),
                _ => Ok(Hypothesis { language: "fr".parse().unwrap(), ..hears(job)? }),
            }),
        );
        assert_eq!(translations(&events), expected);
    }
}

#[test]
fn the_end_waits_for_translations_in_whatever_order_they_come() {
    let mut session = Session::with_vad("alice", french(), Box::new(Loudness));
    push(&mut session, at_ms(0), 16_000, &sound(16_000, 4_000, &[(500, 2_000), (3_000, 4_000)])).unwrap();
    session.handle_input(Input::End).unwrap();
    let (mut jobs, mut told) = (Vec::new(), Vec::new());
    let mut poll = |session: &mut Session, jobs: &mut Vec<DecodeJob>| {
        loop {
            match session.poll_output() {
                Output::Decode(job) => jobs.push(job),
                Output::Event(CaptionEvent::Final { id, .. }) => told.push(format!("final {}", id.0)),
                Output::Event(CaptionEvent::Translation { id, .. }) => told.push(format!("translation {}", id.0)),
                Output::Wait(_) => return,
                _ => {}
            }
        }
    };
    for (place, unfinished) in [(1, (0, 2)), (0, (0, 2)), (3, (0, 1)), (2, (2, 0))] {
        poll(&mut session, &mut jobs);
        assert!(!session.is_finished());
        session.handle_input(Input::Decoded { job: jobs[place].id, result: hears(&jobs[place]) }).unwrap();
        assert_eq!((session.unfinished_from().0, session.unfinished()), unfinished, "{place} was answered");
    }
    assert!(session.is_finished());
    poll(&mut session, &mut jobs);
    assert_eq!(told, ["final 0", "final 1", "translation 1", "translation 0"]);
    assert!(jobs[2].due == session.end() && jobs[0].due < session.end(), "due now");
    // A second answer is ignored, as any.
    session.handle_input(Input::Decoded { job: jobs[2].id, result: hears(&jobs[2]) }).unwrap();
    assert!(matches!(session.poll_output(), Output::Wait(None)));
}
