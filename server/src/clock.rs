//! What no state machine makes itself: the time, and ids.

use std::time::{SystemTime, UNIX_EPOCH};

use cuewire::time::Timestamp;

/// UTC now.
#[must_use]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// An id that nobody has, and nobody can guess.
#[must_use]
pub fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
