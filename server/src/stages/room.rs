//! Whether one more track fits.
//!
//! In: what the engine says of itself, with each tick. Out: a yes, or why not.
//!
//! Who is there keeps what they have: an engine that does without something, or of which what the tracks so far cost says that
//! no more of them fit, gets no new one. One moment decides nothing: the first seconds of a track say little of what it costs,
//! and a burst is over soon. Where there is no track, one fits: or what the last ones cost would keep all others out.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cuewire::engine::{Engine, OverloadLevel};

use crate::limits::Limits;
use crate::wire::error::{ApiError, Code};

/// What tracks cost is believed when there were some for so long,
const MEASURED: Duration = Duration::from_secs(10);
/// and overload when it has lasted for so long.
const OVERLOADED: Duration = Duration::from_secs(5);
const FULL: &str = "cuewire_full";
const REFUSED: &str = "cuewire_tracks_refused_total";

pub(super) struct Room {
    max_tracks: usize,
    refuse_overload: bool,
    known: Mutex<Known>,
}

/// What was seen over time.
#[derive(Default)]
struct Known {
    looked: Option<Instant>,
    /// How long there were tracks.
    measured: Duration,
    overloaded_since: Option<Instant>,
}

impl Room {
    pub(super) fn new(limits: &Limits) -> Self {
        metrics::describe_gauge!(FULL, "1 where no new track is let in, else 0");
        metrics::describe_counter!(REFUSED, "Tracks that were not let in because the server was full");
        metrics::counter!(REFUSED).increment(0);
        let Limits { max_tracks, refuse_overload, .. } = *limits;
        Self { max_tracks: max_tracks as usize, refuse_overload, known: Mutex::default() }
    }

    /// Looks at the engine: with each tick.
    pub(super) fn look(&self, engine: &Engine, tracks: usize, now: Instant) {
        let is_overloaded = engine.overload() > OverloadLevel::None;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.look(is_overloaded, tracks, now);
        let is_full = self.why_full(&known, engine.capacity(), tracks, now).is_some();
        metrics::gauge!(FULL).set(f64::from(u8::from(is_full)));
    }

    /// Whether one more fits beside so many.
    ///
    /// # Errors
    /// [`Code::Full`].
    pub(super) fn check(&self, engine: &Engine, tracks: usize) -> Result<(), ApiError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(why) = self.why_full(&known, engine.capacity(), tracks, Instant::now()) else { return Ok(()) };
        metrics::counter!(REFUSED).increment(1);
        Err(ApiError::new(Code::Full, format!("the server is full: {why}; try again later")))
    }

    fn why_full(&self, known: &Known, capacity: Option<usize>, tracks: usize, now: Instant) -> Option<String> {
        let lasts = known.overloaded_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        match tracks {
            0 => None,
            _ if tracks >= self.max_tracks => Some(format!("it has {tracks} tracks, and may have {}", self.max_tracks)),
            _ if !self.refuse_overload => None,
            _ if lasts >= OVERLOADED => Some(format!("its {tracks} tracks are more than it can caption in time")),
            _ if known.measured >= MEASURED && capacity == Some(0) => {
                Some(format!("it captions {tracks} tracks, and could not one more in time"))
            }
            _ => None,
        }
    }
}

impl Known {
    fn look(&mut self, is_overloaded: bool, tracks: usize, now: Instant) {
        let since = self.looked.replace(now).map_or(Duration::ZERO, |looked| now.saturating_duration_since(looked));
        if tracks > 0 {
            self.measured = self.measured.saturating_add(since);
        }
        self.overloaded_since = is_overloaded.then(|| self.overloaded_since.unwrap_or(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_fits_until_overload_lasts_or_what_tracks_cost_is_known_to_be_too_much() {
        let room = Room::new(&Limits { max_tracks: 5, ..Limits::default() });
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let mut known = Known::default();
        let is_full = |known: &Known, capacity, tracks, s| room.why_full(known, capacity, tracks, at(s)).is_some();
        known.look(false, 2, at(0));
        known.look(true, 2, at(1));
        assert!(!is_full(&known, Some(0), 2, 2), "neither has lasted");
        known.look(true, 2, at(5));
        assert!(is_full(&known, Some(9), 2, 6) && is_full(&known, None, 1, 6));
        assert!(!is_full(&known, Some(0), 0, 6), "where nobody is");
        let patient = Room::new(&Limits { refuse_overload: false, max_tracks: 5, ..Limits::default() });
        assert!(patient.why_full(&known, Some(0), 2, at(6)).is_none(), "by the setting");
        assert!(patient.why_full(&known, None, 5, at(6)).is_some());
        known.look(false, 2, at(7));
        assert!(!is_full(&known, Some(0), 2, 7));
        known.look(false, 0, at(60));
        assert!(!is_full(&known, Some(0), 2, 60), "nothing was measured meanwhile");
        known.look(false, 2, at(63));
        assert!(is_full(&known, Some(0), 2, 63) && !is_full(&known, Some(1), 2, 63) && !is_full(&known, None, 2, 63));
        assert!(is_full(&known, Some(9), 5, 63) && !is_full(&known, Some(9), 4, 63), "by the setting");
    }
}
