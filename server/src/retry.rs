//! When what did not work is tried again: ever later, and not all at once.

use std::time::Duration;

/// Between the first attempt and the second, and at most between two.
const FIRST: Duration = Duration::from_secs(1);
pub(crate) const LONGEST: Duration = Duration::from_secs(60);

/// How long to wait behind the attempt before which there were so many. `jitter` is of 0 to 1: half of the time is chance.
pub(crate) fn backoff(before: u32, jitter: f64) -> Duration {
    let longest = FIRST.saturating_mul(1 << before.min(16)).min(LONGEST);
    longest.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
}

/// Chance, of 0 to 1.
pub(crate) fn jitter() -> f64 {
    f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX)
}
