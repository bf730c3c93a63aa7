//! When a cue goes.
//!
//! In: when it begins, when its speech ends, how long it takes to read, when the next one begins. Out: its end, and what
//! it could not keep.

use super::profile::ProfileRules;

/// What decides about the end of a cue.
pub(super) struct Ending {
    pub(super) start_ms: u64,
    pub(super) speech_end_ms: u64,
    pub(super) reading_ms: u64,
    /// When the next cue of the speaker begins, if that is near.
    pub(super) next_ms: Option<u64>,
}

/// A gap that looks like a flicker is closed where that costs nothing, also where a profile does not ask for it:
/// [`ProfileRules::open_gap_ms`] of Netflix.
const FLICKER_MS: u64 = 500;

/// The best end. Of two, that is better which breaks fewer rules, then that which leaves more time to read, then that
/// which does not flicker, then the earlier.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct End {
    /// ProfileRules on duration and gap that it breaks.
    pub(super) wrong: u64,
    /// Milliseconds too few to read it, or for the shortest cue.
    pub(super) missing_ms: u64,
    flickers: bool,
    pub(super) end_ms: u64,
}

/// Whether a gap is one that the rules do not want.
pub(super) fn is_bad_gap(rules: &ProfileRules, gap_ms: u64) -> bool {
    gap_ms < rules.min_gap_ms || (gap_ms > rules.min_gap_ms && gap_ms < rules.open_gap_ms)
}

/// A cue lasts as long as its speech, but for the gap that the next one needs, and lingers where that keeps a rule; never
/// so far behind its speech that it is out of sync, never into the next.
pub(super) fn end_of_cue(rules: &ProfileRules, ending: &Ending) -> End {
    let &Ending { start_ms, speech_end_ms, reading_ms, next_ms } = ending;
    let next = next_ms.unwrap_or(u64::MAX);
    let floor = speech_end_ms.min(next.saturating_sub(rules.min_gap_ms)).max(start_ms + 1);
    let bound = speech_end_ms.saturating_add(rules.max_linger_ms).min(next).max(floor);
    let candidates = [
        floor,
        speech_end_ms,
        start_ms.saturating_add(rules.min_ms),
        start_ms.saturating_add(reading_ms),
        start_ms.saturating_add(rules.max_ms),
        next.saturating_sub(rules.min_gap_ms),
        next.saturating_sub(rules.open_gap_ms),
        bound,
    ];
    let end = |candidate: u64| {
        let end_ms = candidate.clamp(floor, bound);
        let lasts = end_ms - start_ms;
        let gap_ms = next - end_ms.min(next);
        let bad_gap = next_ms.is_some_and(|_| is_bad_gap(rules, gap_ms));
        End {
            wrong: u64::from(lasts < rules.min_ms) + u64::from(lasts > rules.max_ms) + u64::from(bad_gap),
            missing_ms: reading_ms.max(rules.min_ms).saturating_sub(lasts),
            flickers: gap_ms > rules.min_gap_ms && gap_ms < FLICKER_MS,
            end_ms,
        }
    };
    let first = end(floor);
    candidates.into_iter().map(end).fold(first, End::min)
}

#[cfg(test)]
mod tests {
    use super::super::Profile;
    use super::*;

    #[test]
    fn a_cue_lingers_where_that_keeps_a_rule() {
        use Profile::{Bbc, Cea608, Dcmp, Netflix};
        for (profile, speech_end_ms, reading_ms, next_ms, end_ms, wrong) in [
            // Long enough, read in time: it goes with its speech.
            (Netflix, 3000, 1000, None, 3000, 0),
            // A gap of less than half a second is closed to two frames; half a second stays.
            (Netflix, 3000, 1000, Some(3400), 3316, 0),
            (Netflix, 3000, 1000, Some(3500), 3000, 0),
            // The speech goes on: two frames are taken from it.
            (Netflix, 3000, 1000, Some(3000), 2916, 0),
            // Half a second is all it may linger, for duration and for reading.
            (Netflix, 1200, 100, None, 1700, 1),
            (Netflix, 1500, 600, None, 1834, 0),
            (Netflix, 3000, 3000, None, 3500, 0),
            // Reading would leave a gap that must be closed: it is.
            (Netflix, 3000, 2300, Some(3550), 3466, 0),
            // Too long, but the speech is not over.
            (Netflix, 8500, 1000, None, 8500, 1),
            (Bbc, 3000, 1000, Some(3900), 3900, 0),
            (Bbc, 3000, 2400, Some(4100), 4100, 0),
            (Bbc, 3000, 1000, Some(4000), 3000, 0),
            (Dcmp, 1100, 400, Some(5000), 2334, 0),
            (Dcmp, 1100, 400, Some(1500), 1500, 1),
            (Cea608, 2000, 0, Some(2499), 2499, 0),
            (Cea608, 2000, 0, Some(2500), 2000, 0),
        ] {
            let ending = Ending { start_ms: 1000, speech_end_ms, reading_ms, next_ms };
            let end = end_of_cue(&profile.rules(), &ending);
            assert_eq!((end.end_ms, end.wrong), (end_ms, wrong), "{profile} {speech_end_ms} {next_ms:?}");
        }
    }
}
