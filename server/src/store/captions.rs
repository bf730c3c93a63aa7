//! The captions of sessions that go on, for those who missed some.
//!
//! In: captions as those who watch are told of them, in the same commit. Out: the session's captions from some time on.

use cuewire::time::Timestamp;
use rusqlite::{OptionalExtension as _, params};

use super::{Store, StoreError};
use crate::call::Cid;

impl Store {
    /// Writes a caption that is shown, as JSON.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn put_caption(
        &self,
        cid: &Cid,
        session_id: &str,
        at: Timestamp,
        caption: &str,
    ) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO captions (type, id, session_id, number, at, caption) VALUES (?1, ?2, ?3,
             (SELECT coalesce(max(number), 0) + 1 FROM captions WHERE type = ?1 AND id = ?2 AND session_id = ?3), ?4, ?5)",
            params![cid.call_type(), cid.id(), session_id, at.as_nanos(), caption],
        )
    }

    /// How many captions of a session were shown before the first that was shown at this time or later. The clock may have been
    /// set back in between: what was shown behind that one counts as later.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn captions_before(&self, cid: &Cid, session_id: &str, since: Timestamp) -> Result<i64, StoreError> {
        let sql = "SELECT number - 1 FROM captions WHERE type = ?1 AND id = ?2 AND session_id = ?3 AND at >= ?4
                   ORDER BY number LIMIT 1";
        let mut query = self.connection.prepare_cached(sql)?;
        let parameters = params![cid.call_type(), cid.id(), session_id, since.as_nanos()];
        Ok(query.query_row(parameters, |row| row.get(0)).optional()?.unwrap_or(i64::MAX))
    }

    /// A session's captions behind so many, in the order in which they were shown, and when; at most `most`, and no more behind the
    /// first than come to so many bytes. Whether that was a limit.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn captions(
        &self,
        cid: &Cid,
        session_id: &str,
        behind: i64,
        most: u32,
        most_bytes: usize,
    ) -> Result<(Vec<(Timestamp, String)>, bool), StoreError> {
        let sql = "SELECT at, caption FROM captions WHERE type = ?1 AND id = ?2 AND session_id = ?3 AND number > ?4
                   ORDER BY number LIMIT ?5";
        let mut query = self.connection.prepare_cached(sql)?;
        let mut rows = query.query(params![cid.call_type(), cid.id(), session_id, behind, most])?;
        let (mut found, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let caption: String = row.get(1)?;
            bytes += caption.len();
            if bytes > most_bytes && !found.is_empty() {
                return Ok((found, true));
            }
            found.push((Timestamp::from_nanos(row.get(0)?), caption));
        }
        let is_full = found.len() == most as usize;
        Ok((found, is_full))
    }

    /// A session is over: its captions are in its transcript, if anywhere.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn forget_captions(&self, cid: &Cid, session_id: &str) -> Result<(), StoreError> {
        let sql = "DELETE FROM captions WHERE type = ?1 AND id = ?2 AND session_id = ?3";
        self.execute(sql, params![cid.call_type(), cid.id(), session_id])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn captions_are_found_from_when_they_were_shown_also_behind_a_clock_that_was_set_back() {
        let store = Store::in_memory().unwrap();
        let cid = Cid::new("default", "c").unwrap();
        let at = Timestamp::from_nanos;
        for (number, time) in [10, 20, 20, 30, 15, 40].into_iter().enumerate() {
            store.put_caption(&cid, "s", at(time), &number.to_string()).unwrap();
        }
        store.put_caption(&cid, "another", at(25), "of another session").unwrap();
        let since = |time: i64| -> Vec<String> {
            let behind = store.captions_before(&cid, "s", at(time)).unwrap();
            store.captions(&cid, "s", behind, 9, 99).unwrap().0.into_iter().map(|(_, caption)| caption).collect()
        };
        assert_eq!(since(0), ["0", "1", "2", "3", "4", "5"]);
        assert_eq!(since(20), ["1", "2", "3", "4", "5"], "all of one moment");
        assert_eq!(since(30), ["3", "4", "5"], "with what came when the clock had been set back");
        assert!(since(41).is_empty());
        let page = |most, most_bytes| store.captions(&cid, "s", 2, most, most_bytes).unwrap();
        let one = (vec![(at(20), "2".to_string())], true);
        assert_eq!((page(1, 99), page(9, 1), page(9, 0)), (one.clone(), one.clone(), one));
        assert_eq!((page(9, 2).0.len(), page(9, 4).0.len(), page(9, 4).1), (2, 4, false));
        store.forget_captions(&cid, "s").unwrap();
        assert!(since(0).is_empty());
        assert_eq!(store.captions(&cid, "another", 0, 9, 99).unwrap().0.len(), 1);
    }
}
