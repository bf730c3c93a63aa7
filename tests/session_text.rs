//! Languages that are detected, and what is done to texts: promises of the session, with a scripted decoder.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use cuewire::asr::{DecodeError, DecodeJob, Decoder, HeardWord, Hypothesis, JobKind, ScriptedDecoder, Suppression};
use cuewire::caption::{CaptionEvent, Retraction, StabilityCount};
use cuewire::config::{Config, LanguageSetting, Replacement, Stability, Task};
use cuewire::session::{Input, Output, Session};
use support::*;

#[path = "support/session.rs"]
mod support;

/// Four captions of a second.
const SPANS: [(u64, u64); 4] = [(100, 1_100), (2_100, 3_100), (4_100, 5_100), (6_100, 7_100)];

/// Hears `spoken`, one language a caption: says so where it is asked to detect; in another language its words are unlikely.
fn hears(spoken: [&'static str; 4]) -> impl FnMut(&DecodeJob) -> Result<Hypothesis, DecodeError> + Send {
    move |job| {
        let spoken: cuewire::config::Language = spoken[((job.start.0 + 8_000) / 32_000) as usize].parse().unwrap();
        let (language, language_probability) = match job.language {
            LanguageSetting::Auto => (spoken, Some(0.9)),
            LanguageSetting::Fixed(language) => (language, None),
        };
        let mean_log_probability = if language == spoken { -0.2 } else { -0.8 };
        let text = format!("{language} asked {}", job.language);
        let hypothesis = Hypothesis::certain(&text, job);
        Ok(Hypothesis { language, language_probability, mean_log_probability, ..hypothesis })
    }
}

fn auto() -> Config {
    let mut config = no_interims();
    config.language = LanguageSetting::Auto;
    config
}

/// The finals' texts and languages; the answers come `late` pushes after they were asked for.
fn finals(config: Config, late: usize, decoder: &mut dyn Decoder) -> Vec<String> {
    let samples = sound(16_000, 9_000, &SPANS);
    let mut session = Session::with_vad("alice", config, Box::new(Loudness));
    let (mut waiting, mut events) = (std::collections::VecDeque::new(), Vec::new());
    let mut answer = |session: &mut Session, due: usize, events: &mut Vec<CaptionEvent>| {
        loop {
            match session.poll_output() {
                Output::Decode(job) => waiting.push_back((due + late, job)),
                Output::Event(event) => events.push(event),
                Output::Cancel(_) | Output::Closed { .. } => {}
                Output::Wait(_) if waiting.front().is_some_and(|(when, _)| *when <= due) => {
                    let (_, job) = waiting.pop_front().unwrap();
                    let result = decoder.decode(&job, &cuewire::asr::Cancel::new());
                    session.handle_input(Input::Decoded { job: job.id, result }).unwrap();
                }
                Output::Wait(_) => return,
            }
        }
    };
    for (i, piece) in samples.chunks(1600).enumerate() {
        push(&mut session, at_ms(i as i64 * 100), 16_000, piece).unwrap();
        answer(&mut session, i, &mut events);
    }
    session.handle_input(Input::End).unwrap();
    for i in 0..1000 {
        answer(&mut session, 90 + i, &mut events);
    }
    assert!(session.is_finished());
    let line = |event: CaptionEvent| match event {
        CaptionEvent::Final { text, language, language_probability, .. } => {
            format!("{language} {}: {text}", language_probability.map_or("-".to_string(), |p| p.to_string()))
        }
        other => panic!("{other:?}"),
    };
    events.into_iter().map(line).collect()
}

#[test]
fn a_language_is_detected_once_and_again_when_the_words_become_unlikely() {
    let expected = [
        "fr 0.9: fr asked auto",
        "fr 0.9: fr asked fr",
        // Asked in French, doubted, and asked again.
        "de 0.9: de asked auto",
        "de 0.9: de asked de",
    ];
    // However late the answers come: captions wait for those before them.
    for late in [0, 7, 40, 200] {
        let found = finals(auto(), late, &mut ScriptedDecoder::new(hears(["fr", "fr", "de", "de"])));
        assert_eq!(found, expected, "answers {late} pushes late");
    }
}

#[test]
fn a_fixed_language_is_never_detected() {
    let mut config = no_interims();
    config.language = "pt-BR".parse().unwrap();
    let found = finals(config, 0, &mut ScriptedDecoder::new(hears(["de"; 4])));
    assert_eq!(found, ["pt -: pt asked pt"; 4]);
}

#[test]
fn a_language_that_was_hardly_detected_is_not_believed() {
    let mut decoder = ScriptedDecoder::new(|job: &DecodeJob| {
        let text = format!("asked {}", job.language);
        Ok(Hypothesis { language_probability: Some(0.4), ..Hypothesis::certain(&text, job) })
    });
    assert_eq!(finals(auto(), 0, &mut decoder), ["en 0.4: asked auto"; 4]);
}

#[test]
fn a_translation_is_marked_and_is_english() {
    let mut config = no_interims();
    (config.language, config.task) = ("fr".parse().unwrap(), Task::Translate);
    let mut session = Session::with_vad("alice", config, Box::new(Loudness));
    push(&mut session, at_ms(0), 16_000, &sound(16_000, 2_500, &[(100, 1_100)])).unwrap();
    let mut decoder = ScriptedDecoder::new(|job: &DecodeJob| {
        assert_eq!(job.task, Task::Translate);
        Ok(Hypothesis { translated: true, ..Hypothesis::certain("hello", job) })
    });
    let events = drain(&mut session, &mut decoder);
    let [CaptionEvent::Final { language, translated: true, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(language.code(), "en");
}

#[test]
fn rules_hold_for_interims_and_finals_and_what_they_leave_empty_is_no_caption() {
    let mut config = Config::default();
    config.text_rules.replacements =
        vec![Replacement { from: "new york".into(), to: "NYC".into() }].try_into().unwrap();
    config.text_rules.mask_profanity = true;
    let samples = sound(16_000, 9_000, &[(100, 5_000), (6_500, 8_000)]);
    let mut session = Session::with_vad("alice", config, Box::new(Loudness));
    let texts = ["in new", "in new", "in new york, shit", "in new york, shit"];
    let mut interims = 0;
    let mut decoder = ScriptedDecoder::new(move |job: &DecodeJob| {
        let text = match (job.kind == JobKind::Interim, job.start.0 < 16_000 * 5) {
            (true, true) => {
                interims += 1;
                texts[(interims - 1).min(3)]
            }
            (false, true) => "[Music] in New York, shit.",
            (true, false) => "la la",
            (false, false) => "(singing) ♪",
        };
        Ok(Hypothesis::certain(text, job))
    });
    let mut events = Vec::new();
    for (i, piece) in samples.chunks(320).enumerate() {
        push(&mut session, at_ms(i as i64 * 20), 16_000, piece).unwrap();
        events.extend(drain(&mut session, &mut decoder));
    }
    session.handle_input(Input::End).unwrap();
    events.extend(drain(&mut session, &mut decoder));
    let lines: Vec<String> = events
        .iter()
        .map(|event| match event {
            CaptionEvent::Interim { text, stable_chars, .. } => format!("{text} | {stable_chars}"),
            CaptionEvent::Final { text, .. } => text.clone(),
            CaptionEvent::Retracted { reason: Retraction::Suppressed, .. } => "retracted".to_string(),
            CaptionEvent::Suppressed { reason: Suppression::Empty, .. } => "empty".to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    // "new" may become "NYC": it is not stable before it did not.
    let expected = [
        "in new | 0",
        "in new | 2",
        "in NYC, s*** | 2",
        "in NYC, s*** | 7",
        "in NYC, s*** | 7",
        "in NYC, s***.",
        "la la | 0",
        "la la | 2",
        "retracted",
        "empty",
    ];
    assert_eq!(lines, expected);
    assert_eq!(session.suppressions().iter().collect::<Vec<_>>(), [(&Suppression::Empty, &1)]);
}

#[test]
fn words_lie_within_their_caption() {
    let mut config = no_interims();
    config.word_times = true;
    let mut session = Session::with_vad("alice", config, Box::new(Loudness));
    push(&mut session, at_ms(1_000_000), 16_000, &sound(16_000, 4_000, &[(1_000, 3_000)])).unwrap();
    let mut decoder = ScriptedDecoder::new(|job: &DecodeJob| {
        assert!(job.word_times);
        let word = |text: &str, start_ms: u32, end_ms: u32| HeardWord {
            text: text.to_string(),
            start: start_ms * 16,
            end: end_ms * 16,
            probability: 0.75,
        };
        // Of audio that begins before the caption and ends behind it.
        let words = vec![word("one", 0, 700), word("two", 700, 1_500), word("three", 1_500, 60_000)];
        Ok(Hypothesis { words, ..Hypothesis::certain("one two three", job) })
    });
    let events = drain(&mut session, &mut decoder);
    let [CaptionEvent::Final { start_time, end_time, words, .. }] = &events[..] else { panic!("{events:?}") };
    let at = |ms: i64| at_ms(1_000_000 + ms);
    assert_eq!((*start_time, *end_time), (at(1_000), at(3_000)));
    let heard_from = 1_000 - 300; // the pre-roll
    let expected = [
        ("one", 1_000, heard_from + 700),
        ("two", heard_from + 700, heard_from + 1_500),
        ("three", heard_from + 1_500, 3_000),
    ];
    for (word, (text, start, end)) in words.iter().zip(expected) {
        assert_eq!((word.text.as_str(), word.start_time, word.end_time), (text, at(start), at(end)));
        assert_eq!(word.confidence.to_f64(), 0.75);
    }
    assert_eq!(words.len(), 3);
}

#[test]
fn stability_is_a_setting_of_the_next_caption_and_what_finals_change_is_counted() {
    let samples = sound(16_000, 12_000, &[(0, 4_100), (6_000, 10_100)]);
    // Each interim hears three words more; the final has the seventh otherwise.
    let said = |words: usize| (1..=words).map(|n| format!("w{n} ")).collect::<String>().trim_end().to_string();
    for (stability, stable, changed) in
        [(Stability::Low, [1, 4, 7, 10], 1), (Stability::Medium, [0, 3, 6, 9], 1), (Stability::High, [0, 0, 3, 6], 0)]
    {
        let mut interims = 0;
        let mut decoder = ScriptedDecoder::new(|job: &DecodeJob| {
            interims = if job.kind == JobKind::Final { 0 } else { interims + 1 };
            let text = if interims == 0 { said(12).replace("w7", "seven") } else { said(3 * interims) };
            Ok(Hypothesis::certain(&text, job))
        });
        let mut session = Session::with_vad("alice", Config::default(), Box::new(Loudness));
        let mut shown = Vec::new();
        for (i, piece) in samples.chunks(320).enumerate() {
            push(&mut session, at_ms(i as i64 * 20), 16_000, piece).unwrap();
            if i == 50 {
                let mut config = Config::default();
                config.stability = stability;
                session.handle_input(Input::Configure(config)).unwrap();
            }
            shown.extend(drain(&mut session, &mut decoder));
        }
        let stable_words = |caption: u64| -> Vec<usize> {
            let count = |event: &CaptionEvent| match event {
                CaptionEvent::Interim { id, text, stable_chars, .. } if id.0 == caption => {
                    Some(text[..*stable_chars].split_whitespace().count())
                }
                _ => None,
            };
            shown.iter().filter_map(count).collect()
        };
        assert_eq!(stable_words(0), [0, 3, 6, 9], "{stability:?}: not while a caption is open");
        assert_eq!(stable_words(1), stable, "{stability:?}");
        let expected = StabilityCount { stable_words: 9 + stable[3] as u64, changed_by_final: 1 + changed };
        assert_eq!(session.stability(), expected, "{stability:?}");
    }
}
