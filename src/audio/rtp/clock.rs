//! RTP time to the sender's time.
//!
//! In: each packet's RTP timestamp and the time stated with it, in the order of sequence. Out: how much time lies
//! between one packet and the next, and when each begins.
//!
//! The RTP timestamp counts samples and does not jitter, but knows no date and follows the sender's crystal. The stated
//! time has a date but jitters, often by more than [`Timeline`] takes for contiguous. So distances come from the former
//! and the date from the latter, as a [`Timeline`] at the rate of the RTP clock joins them: it slews by at most 500 parts per million,
//! which follows a drift and lets no jitter through. What it gives out therefore deviates from the session's timeline,
//! which slews in the same way, by far less than the jitter that is tolerated there.
//!
//! Only where the two disagree for good does the stated time win, because a sender may have paused its RTP time with
//! its sound: at once where they are 10 s apart, and where the stated time is ahead by a quarter of a second for one
//! second. A stated time that lags behind by less than 10 s is only slewed to: sound cannot be put where there is some.

use crate::audio::Timeline;
use crate::time::{SampleIndex, Timestamp, nanos_of_samples};

const MS: i64 = 1_000_000;
/// No network delays a packet by so much; the bound is that of [`Timeline`].
const APART_NANOS: i64 = 10_000 * MS;
/// What is given out goes back by more than this or not at all: the session's end may be a little before ours, and
/// refuses what goes back by less than [`APART_NANOS`].
const BACK_NANOS: i64 = APART_NANOS + 1_000 * MS;
/// Stated times that are late by less are jitter.
const SHIFT_NANOS: i64 = 250 * MS;
/// A shift holds where the lateness sinks by no more than this. Where it does, packets held up somewhere are being
/// delivered.
const SETTLED_NANOS: i64 = 60 * MS;
/// A shift is believed when it has held for so long, by the stated times.
const BELIEVED_NANOS: i64 = 1_000 * MS;

/// Stated times that are all late.
#[derive(Clone, Copy, Debug)]
struct Shift {
    since: Timestamp,
    first_nanos: i64,
    least_nanos: i64,
}

/// Where each packet of a stream lies in time.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    /// Ticks a second of the RTP timestamps.
    rate: u32,
    timeline: Timeline,
    /// The RTP timestamp at which the sound so far ends; none before the first packet of a stream.
    next: Option<u32>,
    shift: Option<Shift>,
}

impl Clock {
    pub(super) fn new(rate: u32) -> Self {
        Self { rate, timeline: Timeline::new(), next: None, shift: None }
    }

    /// The next packet begins another stream, whose RTP timestamps count at another rate.
    pub(super) fn change_rate(&mut self, rate: u32) {
        self.rate = rate;
        self.restart();
    }

    /// When the sound so far ends; `None` before the first packet.
    pub(super) fn end(&self) -> Option<Timestamp> {
        self.timeline.end()
    }

    /// The next packet begins another stream, whose RTP timestamps are unrelated.
    pub(super) fn restart(&mut self) {
        self.next = None;
    }

    /// Goes to the start of a packet, which is [`end`](Self::end) afterwards, and gives the ticks that were skipped;
    /// `None` where its time has nothing to do with what came before.
    pub(super) fn go_to(&mut self, timestamp: u32, at: Timestamp) -> Option<u32> {
        let last = self.next.replace(timestamp).zip(self.timeline.end());
        let Some((next, end)) = last else {
            self.anchor(at);
            return None;
        };
        // RTP time that goes back, where the sequence goes on, is a mistake: the packet follows.
        let ticks = timestamp.wrapping_sub(next);
        let ticks = if ticks > u32::MAX / 2 { 0 } else { ticks };
        let late = at.nanos_since(end.plus_nanos(nanos_of_samples(u64::from(ticks), self.rate)));
        if late.saturating_abs() > APART_NANOS {
            self.anchor(at);
            return None;
        }
        self.timeline.fill(u64::from(ticks));
        if let Some(shift_nanos) = self.believed_shift(at, late) {
            self.anchor(self.timeline.end().unwrap_or(at).plus_nanos(shift_nanos));
            return None;
        }
        Some(ticks)
    }

    /// Takes the `ticks` of the packet gone to, which the sender dates `at`.
    pub(super) fn advance(&mut self, at: Timestamp, ticks: u32) {
        self.timeline.advance(at, u64::from(ticks));
        self.next = self.next.map(|next| next.wrapping_add(ticks));
    }

    fn anchor(&mut self, at: Timestamp) {
        let end = self.timeline.end();
        let kept = end.filter(|end| (0..BACK_NANOS).contains(&end.nanos_since(at)));
        self.timeline.anchor(SampleIndex(0), kept.unwrap_or(at), self.rate);
        self.shift = None;
    }

    fn believed_shift(&mut self, at: Timestamp, late: i64) -> Option<i64> {
        if late < SHIFT_NANOS {
            self.shift = None;
            return None;
        }
        let fresh = Shift { since: at, first_nanos: late, least_nanos: late };
        let held = self.shift.filter(|shift| late >= shift.first_nanos - SETTLED_NANOS).unwrap_or(fresh);
        let shift = Shift { least_nanos: held.least_nanos.min(late), ..held };
        self.shift = Some(shift);
        (at.nanos_since(shift.since) >= BELIEVED_NANOS).then_some(shift.least_nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives the time between what the clock says and the true one after each packet.
    fn drift(hours: i64, ppm: i64, jitter_ms: i64) -> Vec<i64> {
        let (mut clock, mut true_nanos, mut timestamp) = (Clock::new(48_000), 0_i64, 7_u32);
        let mut errors = Vec::new();
        for index in 0..hours * 3600 * 50 {
            let jitter = (index * 7_919 % 11 - 5) * jitter_ms * MS / 5;
            let at = Timestamp::from_nanos(true_nanos + jitter);
            let skipped = clock.go_to(timestamp, at);
            assert!(skipped == Some(0) || index == 0, "{index}: {skipped:?}");
            clock.advance(at, 960);
            timestamp = timestamp.wrapping_add(960);
            true_nanos += 20 * MS + 20 * MS * ppm / 1_000_000;
            errors.push(clock.end().unwrap().nanos_since(Timestamp::from_nanos(true_nanos)));
        }
        errors
    }

    #[test]
    fn a_clock_that_drifts_for_hours_is_followed() {
        for ppm in [-100, 0, 100] {
            for jitter_ms in [0, 5, 100] {
                // The first packet may have been early by the whole jitter.
                let errors = drift(4, ppm, jitter_ms);
                let settled = &errors[(jitter_ms * 50 * 5) as usize..];
                let worst = settled.iter().map(|error| error.abs()).max().unwrap();
                assert!(worst < (10 + jitter_ms / 2) * MS, "{ppm} ppm, {jitter_ms} ms: off by {worst} ns");
            }
        }
    }
}
