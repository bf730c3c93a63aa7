//! When what did not work is tried again: ever later, and not all at once; and how often its failing is logged.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between the first attempt and the second, and at most between two.
const FIRST: Duration = Duration::from_secs(1);
pub(crate) const LONGEST: Duration = Duration::from_secs(60);

/// How long to wait behind the attempt before which there were so many. `jitter` is of 0 to 1: half of the time is chance.
pub(crate) fn backoff(before: u32, jitter: f64) -> Duration {
    let longest = FIRST.saturating_mul(1 << before.min(16)).min(LONGEST);
    longest.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
}

/// How often a failure that lasts is logged.
const LOGGED_EVERY: Duration = Duration::from_secs(30);

/// What keeps a failure that lasts from filling the log.
#[derive(Debug, Default)]
pub(crate) struct Seldom(Mutex<(Option<Instant>, u64)>);

impl Seldom {
    /// Whether to log this one: then how many went by since the last one that was logged.
    pub(crate) fn is_due(&self, now: Instant) -> Option<u64> {
        let (logged, since) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.is_some_and(|at| now.saturating_duration_since(at) < LOGGED_EVERY) {
            *since += 1;
            return None;
        }
        *logged = Some(now);
        Some(std::mem::take(since))
    }
}

/// Chance, of 0 to 1.
pub(crate) fn jitter() -> f64 {
    f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_lasts_is_logged_every_so_often_with_the_count_of_the_others() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        let logged: Vec<_> =
            (0..=60).filter_map(|s| Some((s, seldom.is_due(start + Duration::from_secs(s))?))).collect();
        assert_eq!(logged, [(0, 0), (30, 29), (60, 29)]);
    }
}
