//! How long one look may take.
//!
//! What clients ask for is looked up on the thread that every caption and every answer waits for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;

/// A look that takes longer is called off.
pub(super) const MOST_OF_A_LOOK: Duration = Duration::from_millis(250);
/// SQLite's steps between two looks at the clock: one may read a whole row.
const STEPS: i32 = 1000;

/// When what a connection does is called off.
pub(super) struct Deadline {
    began: Instant,
    /// Nanoseconds behind that; 0 where it has all the time.
    end: Arc<AtomicU64>,
}

impl Deadline {
    pub(super) fn of(connection: &mut Connection) -> rusqlite::Result<Self> {
        let (began, end) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let of_handler = end.clone();
        let is_over = move || match of_handler.load(Ordering::Relaxed) {
            0 => false,
            end => began.elapsed().as_nanos() >= u128::from(end),
        };
        connection.progress_handler(STEPS, Some(is_over))?;
        Ok(Self { began, end })
    }

    /// What is done while this is kept ends by itself.
    pub(super) fn begin(&self) -> Look<'_> {
        let end = (self.began.elapsed() + MOST_OF_A_LOOK).as_nanos();
        self.end.store(u64::try_from(end).unwrap_or(u64::MAX), Ordering::Relaxed);
        Look(&self.end)
    }
}

/// A look that goes on.
pub(super) struct Look<'a>(&'a AtomicU64);

impl Drop for Look<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Relaxed);
    }
}
