//! What waits: for hooks, and for storages.
//!
//! In: nothing. Out: counts, and when the oldest of it came about; cheap enough to be asked every few seconds.

use cuewire::time::Timestamp;
use rusqlite::{OptionalExtension as _, params};

use super::{Store, StoreError};

/// What is still to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backlog {
    /// Deliveries that hooks have not had.
    pub(crate) deliveries: i64,
    /// When the oldest event happened that some hook has not had.
    pub(crate) oldest_event: Option<Timestamp>,
    /// Deliveries that were ever given up.
    pub(crate) dead_letters: i64,
    /// Runs that are over and have no file.
    pub(crate) uploads: i64,
    /// When the first of them ended.
    pub(crate) oldest_run_end: Option<Timestamp>,
}

impl Store {
    /// What is still to be done.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn backlog(&self) -> Result<Backlog, StoreError> {
        let one = |sql: &str| -> Result<Option<i64>, StoreError> {
            let found = self.connection.prepare_cached(sql)?.query_row(params![], |row| row.get(0)).optional()?;
            Ok(found.flatten())
        };
        Ok(Backlog {
            deliveries: self.deliveries_waiting()?,
            oldest_event: one("SELECT at FROM outbox ORDER BY number LIMIT 1")?.map(Timestamp::from_nanos),
            dead_letters: one("SELECT seq FROM sqlite_sequence WHERE name = 'dead_letters'")?.unwrap_or(0),
            uploads: one("SELECT count(*) FROM transcripts WHERE end_time IS NOT NULL AND filename IS NULL")?
                .unwrap_or(0),
            oldest_run_end: one("SELECT min(end_time) FROM transcripts WHERE filename IS NULL")?
                .map(Timestamp::from_nanos),
        })
    }
}
