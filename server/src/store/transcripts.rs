//! Transcripts: what is being written, and where the finished files are.
//!
//! In: captions of runs. Out: a run's fragments, and what there is of files.
//!
//! The journal of a run is a table: so a fragment is on disk with the event that shows its caption, or neither is.

use cuewire::time::Timestamp;
use rusqlite::{OptionalExtension as _, Row, params};

use super::{Store, StoreError};
use crate::call::{Cid, Run, Transcript};
use crate::storage::Place;

/// A transcript whose run is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredTranscript {
    /// Of which call.
    pub(crate) cid: Cid,
    /// The run.
    pub(crate) egress_id: String,
    /// Of which session.
    pub(crate) session_id: String,
    /// When the run started.
    pub(crate) start_time: Timestamp,
    /// When it ended.
    pub(crate) end_time: Timestamp,
    /// The file's name; empty where it is not written yet.
    pub(crate) filename: String,
    /// Which bucket it goes to, or is in; `None`: the server's disk.
    pub(crate) storage: Option<String>,
    /// Whether that is not the default storage.
    pub(crate) is_external: bool,
    /// Where it is in a bucket; `None`: it is not there yet, or on the server's disk.
    pub(crate) place: Option<Place>,
    /// Whether it was said that it cannot be stored.
    pub(crate) has_failed: bool,
}

impl StoredTranscript {
    /// As a call tells of it.
    #[must_use]
    pub(crate) fn with_url(self, url: String) -> Transcript {
        let Self { session_id, start_time, end_time, filename, .. } = self;
        Transcript { filename, url, session_id, start_time, end_time }
    }
}

const FIELDS: &str = "type, id, egress_id, session_id, start_time, end_time, coalesce(filename, ''),
     storage, is_external, has_failed, bucket, object, url";

fn transcript(row: &Row<'_>) -> rusqlite::Result<StoredTranscript> {
    let (call_type, id): (String, String) = (row.get(0)?, row.get(1)?);
    let place = |bucket| Ok::<_, rusqlite::Error>(Place { bucket, key: row.get(11)?, url: row.get(12)? });
    Ok(StoredTranscript {
        // Only what is a cid was ever written.
        cid: Cid::new(&call_type, &id).map_err(|_| rusqlite::Error::InvalidQuery)?,
        egress_id: row.get(2)?,
        session_id: row.get(3)?,
        start_time: Timestamp::from_nanos(row.get(4)?),
        end_time: Timestamp::from_nanos(row.get(5)?),
        filename: row.get(6)?,
        storage: row.get(7)?,
        is_external: row.get(8)?,
        has_failed: row.get(9)?,
        place: row.get::<_, Option<String>>(10)?.map(place).transpose()?,
    })
}

impl Store {
    /// Begins a run's transcript, which goes to the storage that the run names, or else to the default one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn open_transcript(&self, cid: &Cid, run: &Run, default: Option<&str>) -> Result<(), StoreError> {
        let storage = run.storage.as_deref().or(default);
        self.execute(
            "INSERT INTO transcripts (egress_id, type, id, session_id, start_time, storage, is_external)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                run.egress_id,
                cid.call_type(),
                cid.id(),
                run.session_id,
                run.from.as_nanos(),
                storage,
                run.storage.is_some()
            ],
        )
    }

    /// Writes a fragment, as a line of JSONL.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn append_fragment(&self, egress_id: &str, fragment: &str) -> Result<(), StoreError> {
        self.execute("INSERT INTO fragments (egress_id, fragment) VALUES (?1, ?2)", params![egress_id, fragment])
    }

    /// Nothing more comes of a run.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn close_transcript(&self, egress_id: &str, end_time: Timestamp) -> Result<(), StoreError> {
        let sql = "UPDATE transcripts SET end_time = ?2 WHERE egress_id = ?1";
        self.execute(sql, params![egress_id, end_time.as_nanos()])
    }

    /// Transcripts that are closed and have no file yet.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn unfinished_transcripts(&self) -> Result<Vec<StoredTranscript>, StoreError> {
        self.transcripts("end_time IS NOT NULL AND filename IS NULL ORDER BY end_time, egress_id", params![])
    }

    /// One that is closed and has no file yet.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn unfinished_transcript(&self, egress_id: &str) -> Result<Option<StoredTranscript>, StoreError> {
        let condition = "egress_id = ?1 AND end_time IS NOT NULL AND filename IS NULL";
        Ok(self.transcripts(condition, params![egress_id])?.pop())
    }

    /// A run's fragments in the order in which they were written, as lines of JSONL.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn fragments(&self, egress_id: &str) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT fragment FROM fragments WHERE egress_id = ?1 ORDER BY number";
        let mut query = self.connection.prepare_cached(sql)?;
        let rows = query.query_map(params![egress_id], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// A run's file is written: its journal is needed no more. Without `expires_at` it is never deleted by itself.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn file_written(
        &self,
        transcript: &StoredTranscript,
        expires_at: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        let StoredTranscript { egress_id, filename, storage, is_external, place, .. } = transcript;
        self.execute(
            "UPDATE transcripts SET filename = ?2, expires_at = ?3, storage = ?4, is_external = ?5,
             bucket = ?6, object = ?7, url = ?8 WHERE egress_id = ?1",
            params![
                egress_id,
                filename,
                expires_at.map(Timestamp::as_nanos),
                storage,
                is_external,
                place.as_ref().map(|place| &place.bucket),
                place.as_ref().map(|place| &place.key),
                place.as_ref().map(|place| &place.url),
            ],
        )?;
        self.execute("DELETE FROM fragments WHERE egress_id = ?1", params![egress_id])
    }

    /// It was said that a run's file cannot be stored.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn file_failed(&self, egress_id: &str) -> Result<(), StoreError> {
        self.execute("UPDATE transcripts SET has_failed = 1 WHERE egress_id = ?1", params![egress_id])
    }

    /// Whether a file is still to go to this storage.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn is_waited_for(&self, storage: &str) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM transcripts WHERE storage = ?1 AND filename IS NULL)";
        Ok(self.connection.prepare_cached(sql)?.query_row(params![storage], |row| row.get(0))?)
    }

    /// The file of this name, of a session of a call.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn file_named(
        &self,
        cid: &Cid,
        session: &str,
        filename: &str,
    ) -> Result<Option<StoredTranscript>, StoreError> {
        let condition = "type = ?1 AND id = ?2 AND session_id = ?3 AND filename = ?4";
        Ok(self.transcripts(condition, params![cid.call_type(), cid.id(), session, filename])?.pop())
    }

    /// The latest files of a call whose runs started since then, the oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn latest_files_of(
        &self,
        cid: &Cid,
        since: Timestamp,
        most: u32,
    ) -> Result<Vec<StoredTranscript>, StoreError> {
        let condition = "type = ?1 AND id = ?2 AND start_time >= ?3 AND filename IS NOT NULL
             ORDER BY start_time DESC, egress_id DESC LIMIT ?4";
        let mut files = self.transcripts(condition, params![cid.call_type(), cid.id(), since.as_nanos(), most])?;
        files.reverse();
        Ok(files)
    }

    /// A run's file, where there is one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn file(&self, egress_id: &str) -> Result<Option<StoredTranscript>, StoreError> {
        let sql = format!("SELECT {FIELDS} FROM transcripts WHERE egress_id = ?1 AND filename IS NOT NULL");
        Ok(self.connection.prepare_cached(&sql)?.query_row(params![egress_id], transcript).optional()?)
    }

    /// Files that are to be kept no longer, the longest over first: at most so many, behind so many that are skipped.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn expired_files(
        &self,
        now: Timestamp,
        skipped: u32,
        most: u32,
    ) -> Result<Vec<StoredTranscript>, StoreError> {
        let condition = "filename IS NOT NULL AND expires_at <= ?1 ORDER BY expires_at LIMIT ?2 OFFSET ?3";
        self.transcripts(condition, params![now.as_nanos(), most, skipped])
    }

    /// Forgets a run's file.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn forget_file(&self, egress_id: &str) -> Result<(), StoreError> {
        self.execute("DELETE FROM transcripts WHERE egress_id = ?1", params![egress_id])
    }

    fn transcripts(&self, condition: &str, params: impl rusqlite::Params) -> Result<Vec<StoredTranscript>, StoreError> {
        let sql = format!("SELECT {FIELDS} FROM transcripts WHERE {condition}");
        let mut query = self.connection.prepare_cached(&sql)?;
        let rows = query.query_map(params, transcript)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::store::Sync;

    #[test]
    fn of_many_files_the_latest_are_listed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("x.db"), Sync::Never).unwrap();
        let cid = Cid::new("default", "a").unwrap();
        for i in 0..5 {
            let sql =
                "INSERT INTO transcripts (egress_id, type, id, session_id, start_time, end_time, filename, is_external)
                       VALUES (?1, 'default', 'a', 's', ?2, ?2, 'f', 0)";
            store.execute(sql, params![format!("run-{i}"), i]).unwrap();
        }
        let listed = |since, most| {
            let files = store.latest_files_of(&cid, Timestamp::from_nanos(since), most).unwrap();
            files.into_iter().map(|file| file.egress_id).collect::<Vec<_>>()
        };
        assert_eq!(listed(0, 2), ["run-3", "run-4"]);
        assert_eq!(listed(4, 2), ["run-4"]);
    }

    #[test]
    fn expired_files_are_listed_page_by_page() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("x.db"), Sync::Never).unwrap();
        for (i, expires_at) in [Some(3), Some(1), None, Some(2), Some(9)].into_iter().enumerate() {
            let sql = "INSERT INTO transcripts (egress_id, type, id, session_id, start_time, end_time, filename,
                       is_external, expires_at) VALUES (?1, 'default', 'a', 's', 0, 0, 'f', 0, ?2)";
            store.execute(sql, params![format!("run-{i}"), expires_at]).unwrap();
        }
        let listed = |skipped| {
            let files = store.expired_files(Timestamp::from_nanos(3), skipped, 2).unwrap();
            files.into_iter().map(|file| file.egress_id).collect::<Vec<_>>()
        };
        assert_eq!(listed(0), ["run-1", "run-3"]);
        assert_eq!(listed(2), ["run-0"]);
        assert_eq!(listed(3), [] as [&str; 0]);
    }
}
