use proptest::prelude::*;

use super::*;
use crate::config::VadMode;
use crate::config::{MaxSpeechCaptionMs, SilenceDurationMs};

/// A detector whose decisions are scripted, and whose hangover is this many frames.
struct Hangover(u64);

impl Vad for Hangover {
    fn is_speech(&mut self, _: &[i16; FRAME]) -> bool {
        false
    }
    fn reset(&mut self, _: VadMode) {}
    fn hangover_frames(&self, _: u64) -> u64 {
        self.0
    }
}

fn config(max_ms: u32, silence_ms: u32) -> SpeechSegmentConfig {
    SpeechSegmentConfig {
        max_speech_caption_ms: MaxSpeechCaptionMs::try_from(max_ms).unwrap(),
        silence_duration_ms: SilenceDurationMs::try_from(silence_ms).unwrap(),
    }
}

/// Runs a script of (speech?, frames) through a segmenter, stops it, and gives each closed segment with the frame
/// number at which it closed.
fn run(config: SpeechSegmentConfig, script: &[(bool, usize)]) -> Vec<(Segment, u64)> {
    let mut segmenter = Segmenter::new(config);
    let (mut boundaries, mut closed, mut frames) = (Vec::new(), Vec::new(), 0);
    let mut collect = |boundaries: &mut Vec<Boundary>, at| {
        closed.extend(boundaries.drain(..).filter_map(|boundary| match boundary {
            Boundary::Closed(segment) => Some((segment, at)),
            Boundary::Opened { .. } => None,
        }));
    };
    for &(speech, count) in script {
        for _ in 0..count {
            // Speech gets quieter every now and then, so that cuts have somewhere to fall.
            let energy = if speech { 0.01 + (frames % 37) as f32 * 0.001 } else { 0.0 };
            frames += 1;
            segmenter.push(speech, energy, &Hangover(0), &mut boundaries);
            collect(&mut boundaries, frames);
        }
    }
    let end = SampleIndex(frames * FRAME_SAMPLES);
    segmenter.stop(end, end, &mut boundaries);
    collect(&mut boundaries, frames);
    closed
}

const MS: u64 = 16;

#[test]
fn captions_open_at_the_onset_and_close_when_silence_reaches_its_limit() {
    for silence_ms in [300, 301, 310, 320, 500, 700, 2000] {
        let closed = run(config(9000, silence_ms), &[(false, 50), (true, 100), (false, 150), (true, 20), (false, 10)]);
        let (first, at) = closed[0];
        assert_eq!((first.start.0, first.end.0), (1000 * MS, 3000 * MS), "{silence_ms}");
        assert_eq!(first.heard_from.0, 700 * MS);
        assert_eq!(first.closing, Closing::Silence);
        let waited_ms = at * 20 - 3000;
        assert!((u64::from(silence_ms)..u64::from(silence_ms) + 20).contains(&waited_ms), "{silence_ms}: {waited_ms}");
        let (second, _) = closed[1];
        assert_eq!((second.start.0, second.end.0, second.closing), (6000 * MS, 6400 * MS, Closing::Stop));
    }
}

#[test]
fn a_pause_shorter_than_the_limit_does_not_end_a_caption() {
    let closed = run(config(9000, 700), &[(true, 50), (false, 34), (true, 50), (false, 35)]);
    assert_eq!(closed.len(), 1);
    assert_eq!(closed[0].0.end.0, 134 * 20 * MS);
}

#[test]
fn clicks_do_not_open_a_caption() {
    assert_eq!(run(config(9000, 700), &[(false, 20), (true, 5), (false, 20), (true, 3), (false, 50)]), []);
}

#[test]
fn continuous_speech_is_cut_before_the_maximum_and_nothing_is_lost_at_the_cut() {
    for max_ms in [5000, 5010, 9000, 10_000] {
        let closed = run(config(max_ms, 700), &[(true, 3000), (false, 50)]);
        assert!(closed.len() > 5);
        for (segment, _) in &closed {
            let lasts_ms = (segment.end.0 - segment.start.0) / MS;
            assert!(lasts_ms <= u64::from(max_ms), "{lasts_ms} > {max_ms}");
            if segment.closing == Closing::Maximum {
                assert!(lasts_ms >= u64::from(max_ms) - 20 * (cut::SEARCH + 2), "{lasts_ms} is cut too early");
            }
        }
        for pair in closed.windows(2) {
            assert_eq!(pair[0].0.heard_to, pair[1].0.heard_from, "what is heard goes on where it was cut");
            assert_eq!(pair[0].0.end, pair[1].0.start);
        }
    }
}

#[test]
fn the_hangover_of_the_detector_is_silence() {
    let mut segmenter = Segmenter::new(config(9000, 300));
    let mut boundaries = Vec::new();
    let mut frames = 0;
    for speech in [vec![true; 55], vec![false; 50]].concat() {
        segmenter.push(speech, 0.1, &Hangover(5), &mut boundaries);
        frames += 1;
        if boundaries.len() == 2 {
            break;
        }
    }
    let Boundary::Closed(segment) = boundaries[1] else { panic!("{boundaries:?}") };
    assert_eq!(segment.end.0, 1000 * MS);
    assert_eq!(frames * 20, 1300, "silence counts from the end of speech, not from the end of the hangover");
}

#[test]
fn a_cut_in_a_pause_leaves_the_hangover_out() {
    let mut segmenter = Segmenter::new(config(5000, 700));
    let mut boundaries = Vec::new();
    // 4 s of speech, a pause of 600 ms, speech on.
    for (speech, count) in [(true, 200), (false, 30), (true, 100)] {
        for _ in 0..count {
            segmenter.push(speech, if speech { 0.1 } else { 0.0 }, &Hangover(3), &mut boundaries);
        }
    }
    let Boundary::Closed(first) = boundaries[1] else { panic!("{boundaries:?}") };
    assert_eq!((first.closing, first.end.0), (Closing::Maximum, 3940 * MS));
    let Boundary::Opened { start, .. } = boundaries[2] else { panic!("{boundaries:?}") };
    assert_eq!(start.0, 4600 * MS);
}

proptest! {
    #[test]
    fn spans_are_ordered_bounded_and_apart(
        script in prop::collection::vec((any::<bool>(), 1usize..600), 1..30),
        max_ms in 5000u32..=10_000,
        silence_ms in 300u32..=2000,
    ) {
        let closed = run(config(max_ms, silence_ms), &script);
        for (segment, _) in &closed {
            prop_assert!(segment.heard_from <= segment.start && segment.start < segment.end && segment.end <= segment.heard_to);
            prop_assert!(segment.end.since(segment.start) <= samples_of_ms(max_ms));
        }
        for pair in closed.windows(2) {
            prop_assert!(pair[0].0.end <= pair[1].0.start);
            prop_assert!(pair[0].0.heard_to <= pair[1].0.heard_from);
        }
    }
}
