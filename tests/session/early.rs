//! Finals that are asked for inside the silence that must pass anyway.

use super::*;

/// Finals of speech with a pause that is too short to end a caption and long enough for a final to be asked in vain.
fn asked_early(early: bool, late: bool) -> (Vec<String>, Vec<String>) {
    let samples = sound(16_000, 8_000, &[(500, 2_000), (2_500, 4_000), (5_200, 6_000)]);
    let mut config = no_interims();
    config.early_finals = early;
    let mut session = Session::with_vad("alice", config, Box::new(Loudness));
    let (mut finals, mut steps, mut waiting) = (Vec::new(), Vec::new(), VecDeque::new());
    for (i, piece) in samples.chunks(320).enumerate() {
        let ms = i as i64 * 20;
        push(&mut session, at_ms(ms), 16_000, piece).unwrap();
        // Answers come at once, or a second later.
        loop {
            match session.poll_output() {
                Output::Decode(job) => {
                    steps.push(format!("{ms} ask {}", job.id.0));
                    waiting.push_back((ms + if late { 1000 } else { 0 }, job));
                }
                Output::Cancel(job) => {
                    steps.push(format!("{ms} cancel {}", job.0));
                    waiting.retain(|(_, waiting)| waiting.id != job);
                }
                Output::Closed { id, heard_from, .. } => steps.push(format!("{ms} closed {} {}", id.0, heard_from.0)),
                Output::Event(event) => {
                    steps.push(format!("{ms} final"));
                    finals.push(format!("{event:?}"));
                }
                Output::Wait(_) => {
                    match waiting.front().is_some_and(|(due, _)| *due <= ms).then(|| waiting.pop_front()).flatten() {
                        Some((_, job)) => {
                            let heard = format!("{} from {}", job.audio.len(), job.start.0);
                            let result = Ok(Hypothesis::certain(&heard, &job));
                            session.handle_input(Input::Decoded { job: job.id, result }).unwrap();
                        }
                        None => break,
                    }
                }
            }
        }
    }
    (finals, steps)
}

#[test]
fn where_an_early_final_takes_an_interims_place_one_is_shown_all_the_same() {
    // An interim is asked for at 1.5 s, a final in vain in the pause at 1.7 s.
    let samples = sound(16_000, 4_000, &[(500, 1_700), (2_200, 4_000)]);
    for (answered, expected) in [
        (true, ["1480 ask Interim", "1980 cancel", "1980 ask Final", "1980 shown to 2000", "2980 ask Interim"]),
        (false, ["1480 ask Interim", "1980 cancel", "1980 ask Final", "2200 cancel", "2200 ask Interim"]),
    ] {
        let mut config = Config::default();
        config.early_finals = true;
        let mut session = Session::with_vad("alice", config, Box::new(Loudness));
        let mut steps = Vec::new();
        for (i, piece) in samples.chunks(320).enumerate() {
            let ms = i as i64 * 20;
            push(&mut session, at_ms(ms), 16_000, piece).unwrap();
            loop {
                match session.poll_output() {
                    Output::Decode(job) => {
                        steps.push(format!("{ms} ask {:?}", job.kind));
                        if answered && job.kind == JobKind::Final {
                            let result = Ok(Hypothesis::certain("so far", &job));
                            session.handle_input(Input::Decoded { job: job.id, result }).unwrap();
                        }
                    }
                    Output::Cancel(_) => steps.push(format!("{ms} cancel")),
                    Output::Event(CaptionEvent::Interim { end_time, text, revision: 1, .. }) if text == "so far" => {
                        steps.push(format!("{ms} shown to {}", end_time.as_nanos() / MS));
                    }
                    Output::Event(event) => panic!("{event:?}"),
                    Output::Closed { .. } => {}
                    Output::Wait(_) => break,
                }
            }
        }
        assert_eq!(steps[..5], expected, "{steps:?}");
    }
}

#[test]
fn a_final_is_asked_inside_the_silence_and_says_what_it_would_have_said() {
    let (finals, steps) = asked_early(false, false);
    assert_eq!(steps.iter().filter(|step| step.contains("ask")).count(), 2, "{steps:?}");
    for late in [false, true] {
        let (early, steps) = asked_early(true, late);
        assert_eq!(early, finals, "{steps:?}");
        // 300 ms into the pause at 2 s, in vain; into the one at 4 s, 400 ms before it ends the caption; and into the last.
        let expected = if late {
            ["2280 ask 0", "2500 cancel 0", "4280 ask 1", "4680 closed 0 3200", "5280 final", "6280 ask 2"].to_vec()
        } else {
            ["2280 ask 0", "4280 ask 1", "4680 closed 0 3200", "4680 final", "6280 ask 2"].to_vec()
        };
        assert_eq!(steps[..expected.len()], expected, "{steps:?}");
    }
}
