//! Where a push lies in time.
//!
//! In: the time a sender states for each push. Out: what to do with it (append, fill a hole with silence, start anew)
//! and the time of every sample. One anchor joins samples and time; it slews where the sender's clock drifts.

use crate::time::{SAMPLE_RATE, SampleIndex, Timestamp, nanos_of_samples, samples_of_nanos};

const MS: i64 = 1_000_000;
/// A push may be this much early or late and still count as contiguous. Covers arrival times rounded to packets.
const JITTER_NANOS: i64 = 60 * MS;
/// Holes up to this long are filled with silence; longer ones end the caption. No fill exceeds it, so no jump in
/// time makes work or memory without bound.
const LONGEST_FILL_NANOS: i64 = 3_000 * MS;
/// `at` may go back by less than this only by mistake; beyond, the sender has started anew.
const RESTART_NANOS: i64 = 10_000 * MS;
/// Deviations within this are rounding, not drift: the anchor stays where it is. Off the half microseconds on which clocks
/// and 16 kHz samples lie: what is just there would be told by how the times of pieces were rounded.
const DEAD_BAND_NANOS: i64 = 2 * MS + 250;
/// While the deviation is larger, the anchor moves by this much every 20 ms of audio: 500 parts per million. Real
/// clocks drift by up to 100 ppm. A fixed step on a fixed grid, so that the size of the pushes makes no difference, and
/// one packet that is late by much counts no more than one that is late by little.
const SLEW_STEP_NANOS: i64 = 10_000;

/// What a push's time asks for before its samples are appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Nothing: it follows what is there.
    Contiguous,
    /// This many frames of silence (at the push's own rate), for a short hole.
    Fill {
        /// Frames at the push's rate.
        frames: u64,
    },
    /// An end of what came before: the hole is long, or the sender's time starts anew.
    Break {
        /// The end of what came before.
        from: Timestamp,
        /// The push's time; earlier than `from` where the sender's time went far back.
        to: Timestamp,
    },
}

/// `at` lies before the end of the audio that is already there, and not so far that the sender started anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("audio at {at} comes after audio that ends at {end}: times must not go back by 60 ms to 10 s")]
pub struct TimeWentBack {
    /// The time stated.
    pub at: Timestamp,
    /// The end of the audio before it.
    pub end: Timestamp,
}

/// One stretch of audio at one rate, tied to the clock by its first sample.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    index: SampleIndex,
    time: Timestamp,
    rate: u32,
    frames: u64,
}

impl Anchor {
    fn end(&self) -> Timestamp {
        self.time.plus_nanos(nanos_of_samples(self.frames, self.rate))
    }
}

/// The times of one track.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    anchor: Option<Anchor>,
}

impl Timeline {
    /// A track that has not begun.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says where a push of `frames` frames at `rate` Hz belongs whose first sample the sender dates `at`. Changes nothing.
    ///
    /// # Errors
    /// [`TimeWentBack`].
    pub fn place(&self, at: Timestamp, rate: u32) -> Result<Placement, TimeWentBack> {
        let Some(anchor) = &self.anchor else { return Ok(Placement::Contiguous) };
        let end = anchor.end();
        let late = at.nanos_since(end);
        if !(-RESTART_NANOS..=LONGEST_FILL_NANOS).contains(&late) {
            Ok(Placement::Break { from: end, to: at })
        } else if late > JITTER_NANOS {
            Ok(Placement::Fill { frames: samples_of_nanos(late, rate) })
        } else if late < -JITTER_NANOS {
            Err(TimeWentBack { at, end })
        } else {
            Ok(Placement::Contiguous)
        }
    }

    /// Ties sample `index` to the time `at`: the track begins, or begins anew after a break.
    pub fn anchor(&mut self, index: SampleIndex, at: Timestamp, rate: u32) {
        self.anchor = Some(Anchor { index, time: at, rate, frames: 0 });
    }

    /// Whether no audio has come since the last anchor, or ever.
    #[must_use]
    pub(crate) fn is_at_anchor(&self) -> bool {
        self.anchor.as_ref().is_none_or(|anchor| anchor.frames == 0)
    }

    /// Goes on at another rate from sample `index`, without a hole.
    pub(crate) fn change_rate(&mut self, index: SampleIndex, rate: u32) {
        if let Some(anchor) = &mut self.anchor {
            *anchor = Anchor { index, time: anchor.end(), rate, frames: 0 };
        }
    }

    /// Frames until the anchor may move next: up to 20 ms.
    #[must_use]
    pub(crate) fn frames_to_grid(&self) -> u64 {
        self.anchor.as_ref().map_or(u64::MAX, |anchor| {
            let grid = u64::from(anchor.rate / 50);
            grid - anchor.frames % grid
        })
    }

    /// Takes `frames` frames that the sender dates `at`; the anchor slews towards that time.
    pub fn advance(&mut self, at: Timestamp, frames: u64) {
        let Some(anchor) = &mut self.anchor else { return };
        let grid = u64::from(anchor.rate / 50);
        let first = anchor.frames;
        anchor.frames = first.saturating_add(frames);
        // The grid points passed; all of them see the same deviation but for what the steps take away.
        let mut late = at.nanos_since(anchor.time.plus_nanos(nanos_of_samples(first, anchor.rate)));
        for _ in 0..anchor.frames / grid - first / grid {
            if late.saturating_abs() <= DEAD_BAND_NANOS {
                break;
            }
            let step = SLEW_STEP_NANOS * late.signum();
            anchor.time = anchor.time.plus_nanos(step);
            late -= step;
        }
    }

    /// Takes `frames` frames of silence that fill a hole.
    pub(crate) fn fill(&mut self, frames: u64) {
        if let Some(anchor) = &mut self.anchor {
            anchor.frames += frames;
        }
    }

    /// When the audio so far ends; `None` before the first push.
    #[must_use]
    pub fn end(&self) -> Option<Timestamp> {
        self.anchor.as_ref().map(Anchor::end)
    }

    /// The time of a sample of the stretch since the last anchor, or shortly before it; the epoch before the first push.
    #[must_use]
    pub fn time_of(&self, index: SampleIndex) -> Timestamp {
        let Some(anchor) = &self.anchor else { return Timestamp::EPOCH };
        if index >= anchor.index {
            anchor.time.plus_nanos(nanos_of_samples(index.since(anchor.index), SAMPLE_RATE))
        } else {
            anchor.time.plus_nanos(-nanos_of_samples(anchor.index.since(index), SAMPLE_RATE))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_ms(ms: i64) -> Timestamp {
        Timestamp::from_nanos(ms * MS)
    }

    fn second_from(start_ms: i64) -> Timeline {
        let mut timeline = Timeline::new();
        timeline.anchor(SampleIndex(0), at_ms(start_ms), 48_000);
        timeline.advance(at_ms(start_ms), 48_000);
        timeline
    }

    #[test]
    fn pushes_are_placed_by_their_deviation() {
        let timeline = second_from(5_000);
        for (ms, expected) in [
            (6_000, Placement::Contiguous),
            (6_060, Placement::Contiguous),
            (5_940, Placement::Contiguous),
            (6_061, Placement::Fill { frames: 2_928 }),
            (9_000, Placement::Fill { frames: 144_000 }),
            (9_001, Placement::Break { from: at_ms(6_000), to: at_ms(9_001) }),
            (-4_001, Placement::Break { from: at_ms(6_000), to: at_ms(-4_001) }),
        ] {
            assert_eq!(timeline.place(at_ms(ms), 48_000), Ok(expected), "{ms} ms");
        }
        for ms in [5_939, -4_000] {
            let error = timeline.place(at_ms(ms), 48_000).unwrap_err();
            assert_eq!((error.at, error.end), (at_ms(ms), at_ms(6_000)));
            let text = error.to_string();
            assert!(text.contains(&at_ms(ms).to_string()) && text.contains(&at_ms(6_000).to_string()), "{text}");
        }
    }

    #[test]
    fn the_extremes_of_time_do_not_panic() {
        for at in [i64::MIN, -1, 0, 1, i64::MAX] {
            for other in [i64::MIN, 0, i64::MAX] {
                let mut timeline = Timeline::new();
                timeline.anchor(SampleIndex(u64::MAX / 2), Timestamp::from_nanos(at), 192_000);
                let _ = timeline.place(Timestamp::from_nanos(other), 8_000);
                timeline.advance(Timestamp::from_nanos(other), u64::from(u32::MAX));
                let _ = (timeline.end(), timeline.time_of(SampleIndex(0)), timeline.time_of(SampleIndex(u64::MAX)));
            }
        }
    }

    #[test]
    fn times_are_exact_behind_every_boundary_of_a_counter() {
        // What f32 holds exactly; frames, and milliseconds at 48 kHz, in 31 and 32 bits.
        for boundary in [1u64 << 24, 1 << 31, 1 << 32, 48 << 31, 48 << 32] {
            for rate in [8_000u32, 44_100, 48_000, 192_000] {
                let mut timeline = Timeline::new();
                timeline.anchor(SampleIndex(7), Timestamp::from_nanos(-3), rate);
                let nanos = |frames: u64, rate: u32| i128::from(frames) * 1_000_000_000 / i128::from(rate) - 3;
                timeline.advance(Timestamp::from_nanos(-3), boundary - 100);
                for frames in boundary - 100..boundary + 100 {
                    let end = timeline.end().unwrap();
                    let error = i128::from(end.as_nanos()) - nanos(frames, rate);
                    assert!((0..=1).contains(&error), "{frames} frames at {rate} Hz: {error} ns off");
                    let time = timeline.time_of(SampleIndex(7 + frames));
                    let exact = nanos(frames, SAMPLE_RATE);
                    assert_eq!(i128::from(time.as_nanos()), exact, "sample {frames}");
                    timeline.advance(end, 1);
                }
            }
        }
    }

    #[test]
    fn a_clock_that_drifts_for_hours_makes_no_gaps_and_is_followed() {
        for ppm in [-100i64, 100] {
            let mut timeline = Timeline::new();
            let frame_nanos = 20 * MS;
            let (mut true_nanos, mut index) = (0i64, 0u64);
            timeline.anchor(SampleIndex(0), Timestamp::EPOCH, 48_000);
            for i in 0..4 * 3600 * 50i64 {
                // 20 ms of samples take a little more or less of the sender's time; and packets jitter by ±5 ms.
                let jitter = (i * 7_919 % 11 - 5) * MS;
                let at = Timestamp::from_nanos(true_nanos + jitter);
                assert_eq!(timeline.place(at, 48_000), Ok(Placement::Contiguous), "{i}");
                timeline.advance(at, 960);
                true_nanos += frame_nanos + frame_nanos * ppm / 1_000_000;
                index += 320;
                let error = timeline.time_of(SampleIndex(index)).nanos_since(Timestamp::from_nanos(true_nanos));
                assert!(error.abs() < 10 * MS, "{ppm} ppm: off by {error} ns after {i} packets");
            }
        }
    }
}
