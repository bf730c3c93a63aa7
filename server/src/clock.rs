//! What no state machine makes itself: the time, and ids.
//!
//! In: the system's clock, and its randomness. Out: what is handed to calls as an argument.

use std::time::SystemTime;

use cuewire::time::Timestamp;

/// UTC now.
#[must_use]
pub fn now() -> Timestamp {
    SystemTime::now().into()
}

/// An id that nobody has, and nobody can guess.
#[must_use]
pub(crate) fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
