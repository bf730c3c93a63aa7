//! The outbox: events that hooks are still to be told of.
//!
//! In: events with the hooks that want them, and what became of deliveries. Out: what waits, of a hook and a call in its order.
//!
//! A delivery is a row of its own, in the same commit as the change that caused the event. An event that no hook wants is not
//! written, and one that every hook has had is gone with the last delivery.

use std::sync::Arc;

use cuewire::time::Timestamp;
use rusqlite::{OptionalExtension as _, Row, params};

use super::{Store, StoreError};
use crate::call::Cid;

/// Dead letters that are kept, the newest.
pub(crate) const MOST_DEAD_LETTERS: i64 = 10_000;

/// An event that was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outgoing {
    /// Grows by commit; none is used twice.
    pub(crate) number: i64,
    /// The same in every delivery of this event.
    pub(crate) webhook_id: String,
    /// Of which call.
    pub(crate) cid: Cid,
    /// When it happened.
    pub(crate) at: Timestamp,
    /// Its type.
    pub(crate) event_type: String,
    /// As JSON, with times as integers.
    pub(crate) event: String,
}

/// One delivery that came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeadLetter {
    /// To which hook.
    pub(crate) hook: String,
    /// What it should have been told.
    pub(crate) event: Outgoing,
    /// When it was given up.
    pub(crate) given_up_at: Timestamp,
    /// How often it was tried.
    pub(crate) attempts: u32,
    /// What came of the last attempt.
    pub(crate) error: String,
}

const FIELDS: &str = "outbox.number, webhook_id, outbox.type, outbox.id, at, event_type, event";

fn outgoing(row: &Row<'_>) -> rusqlite::Result<Outgoing> {
    Ok(Outgoing {
        number: row.get(0)?,
        webhook_id: row.get(1)?,
        cid: cid(row, 2)?,
        at: Timestamp::from_nanos(row.get(4)?),
        event_type: row.get(5)?,
        event: row.get(6)?,
    })
}

fn cid(row: &Row<'_>, column: usize) -> rusqlite::Result<Cid> {
    let (call_type, id): (String, String) = (row.get(column)?, row.get(column + 1)?);
    // Only what is a cid was ever written.
    Cid::new(&call_type, &id).map_err(|_| rusqlite::Error::InvalidQuery)
}

impl Store {
    /// Writes an event that the present change causes, for these hooks; it has its number then.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn put_event<'a>(
        &self,
        event: &mut Outgoing,
        hooks: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), StoreError> {
        let Outgoing { webhook_id, cid, at, event_type, event: text, .. } = &*event;
        self.execute(
            "INSERT INTO outbox (webhook_id, type, id, at, event_type, event) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![webhook_id, cid.call_type(), cid.id(), at.as_nanos(), event_type, text],
        )?;
        event.number = self.connection.last_insert_rowid();
        for hook in hooks {
            let Outgoing { number, cid, .. } = &*event;
            let sql = "INSERT INTO deliveries (hook, type, id, number) VALUES (?1, ?2, ?3, ?4)";
            self.execute(sql, params![hook, cid.call_type(), cid.id(), number])?;
        }
        Ok(())
    }

    /// The calls of which a hook is still to be told something.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn calls_waiting(&self, hook: &str) -> Result<Vec<Cid>, StoreError> {
        let sql = "SELECT DISTINCT type, id FROM deliveries WHERE hook = ?1";
        let mut query = self.connection.prepare_cached(sql)?;
        let rows = query.query_map(params![hook], |row| cid(row, 0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What a hook is still to be told of a call, behind this number, in its order; at most `most`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn events_waiting(
        &self,
        hook: &str,
        cid: &Cid,
        behind: i64,
        most: usize,
    ) -> Result<Vec<Arc<Outgoing>>, StoreError> {
        let sql = format!(
            "SELECT {FIELDS} FROM deliveries JOIN outbox ON outbox.number = deliveries.number
             WHERE hook = ?1 AND deliveries.type = ?2 AND deliveries.id = ?3 AND deliveries.number > ?4
             ORDER BY deliveries.number LIMIT ?5"
        );
        let mut query = self.connection.prepare_cached(&sql)?;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let rows = query.query_map(params![hook, cid.call_type(), cid.id(), behind, most], outgoing)?;
        Ok(rows.map(|row| row.map(Arc::new)).collect::<Result<_, _>>()?)
    }

    /// How many deliveries wait, of all hooks.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn deliveries_waiting(&self) -> Result<i64, StoreError> {
        let sql = "SELECT count(*) FROM deliveries";
        Ok(self.connection.prepare_cached(sql)?.query_row(params![], |row| row.get(0))?)
    }

    /// A hook has had an event.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn delivered(&self, hook: &str, cid: &Cid, number: i64) -> Result<(), StoreError> {
        let sql = "DELETE FROM deliveries WHERE hook = ?1 AND type = ?2 AND id = ?3 AND number = ?4";
        self.execute(sql, params![hook, cid.call_type(), cid.id(), number])?;
        let sql = "DELETE FROM outbox WHERE number = ?1
                   AND NOT EXISTS (SELECT 1 FROM deliveries WHERE deliveries.number = ?1)";
        self.execute(sql, params![number])
    }

    /// Deliveries of events from before this time, the first that were committed; at most `most`.
    ///
    /// Numbers grow with time, so only the first are looked at: what has to wait until then is as cheap as what does not.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn deliveries_before(&self, at: Timestamp, most: u32) -> Result<Vec<(String, Outgoing)>, StoreError> {
        let sql = format!(
            "SELECT {FIELDS}, hook FROM (SELECT * FROM outbox ORDER BY number LIMIT ?2) AS outbox
             JOIN deliveries ON deliveries.number = outbox.number WHERE at < ?1 ORDER BY outbox.number LIMIT ?2"
        );
        let mut query = self.connection.prepare_cached(&sql)?;
        let rows = query.query_map(params![at.as_nanos(), most], |row| Ok((row.get(7)?, outgoing(row)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// A delivery that still waits has come to nothing: it is kept for those who look, and no longer tried.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn give_up(&self, letter: &DeadLetter) -> Result<(), StoreError> {
        let DeadLetter { hook, event, given_up_at, attempts, error } = letter;
        let Outgoing { webhook_id, cid, at, event_type, event: text, number } = event;
        let sql = "SELECT EXISTS (SELECT 1 FROM deliveries WHERE hook = ?1 AND type = ?2 AND id = ?3 AND number = ?4)";
        let mut waits = self.connection.prepare_cached(sql)?;
        if !waits.query_row(params![hook, cid.call_type(), cid.id(), number], |row| row.get(0))? {
            return Ok(());
        }
        self.execute(
            "INSERT INTO dead_letters (hook, webhook_id, type, id, at, event_type, event, given_up_at, attempts, error)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            params![
                hook,
                webhook_id,
                cid.call_type(),
                cid.id(),
                at.as_nanos(),
                event_type,
                text,
                given_up_at.as_nanos(),
                attempts,
                error
            ],
        )?;
        let newest = self.connection.last_insert_rowid();
        self.execute("DELETE FROM dead_letters WHERE number <= ?1", params![newest - MOST_DEAD_LETTERS])?;
        self.delivered(hook, cid, event.number)
    }

    /// Dead letters before this number, the newest first, each with its number; at most `most`. How many there have ever been.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn dead_letters(&self, before: i64, most: u32) -> Result<(i64, Vec<(i64, DeadLetter)>), StoreError> {
        // Numbers are those of rows, and none is used twice.
        let sql = "SELECT seq FROM sqlite_sequence WHERE name = 'dead_letters'";
        let count = self.connection.prepare_cached(sql)?.query_row(params![], |row| row.get(0)).optional()?;
        let sql = "SELECT number, webhook_id, type, id, at, event_type, event, hook, given_up_at, attempts, error
                   FROM dead_letters WHERE number < ?1 ORDER BY number DESC LIMIT ?2";
        let mut query = self.connection.prepare_cached(sql)?;
        let rows = query.query_map(params![before, most], |row| {
            let letter = DeadLetter {
                event: outgoing(row)?,
                hook: row.get(7)?,
                given_up_at: Timestamp::from_nanos(row.get(8)?),
                attempts: row.get(9)?,
                error: row.get(10)?,
            };
            Ok((row.get(0)?, letter))
        })?;
        Ok((count.unwrap_or(0), rows.collect::<Result<_, _>>()?))
    }

    /// A hook is gone, and with it what it was to be told.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn forget_hook(&self, hook: &str) -> Result<(), StoreError> {
        self.execute("DELETE FROM deliveries WHERE hook = ?1", params![hook])?;
        self.execute(
            "DELETE FROM outbox WHERE NOT EXISTS (SELECT 1 FROM deliveries WHERE deliveries.number = outbox.number)",
            params![],
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn event(call: &str, text: &str) -> Outgoing {
        Outgoing {
            number: 0,
            webhook_id: text.into(),
            cid: Cid::new("default", call).unwrap(),
            at: Timestamp::EPOCH,
            event_type: "call.updated".into(),
            event: text.into(),
        }
    }

    fn rows(store: &Store) -> i64 {
        store.connection.query_row("SELECT count(*) FROM outbox", params![], |row| row.get(0)).unwrap()
    }

    #[test]
    fn each_hook_has_its_own_place_in_each_call_and_an_event_is_gone_with_its_last_delivery() {
        let store = Store::in_memory().unwrap();
        let put = |call: &str, text: &str, hooks: &[&str]| {
            let mut event = event(call, text);
            store.put_event(&mut event, hooks.iter().copied()).unwrap();
            event
        };
        let (a1, b1, a2) = (put("a", "a1", &["one", "two"]), put("b", "b1", &["one"]), put("a", "a2", &["one", "two"]));
        let waiting = |hook: &str, of: &Outgoing, behind, most| -> Vec<String> {
            let events = store.events_waiting(hook, &of.cid, behind, most).unwrap();
            events.iter().map(|event| event.event.clone()).collect()
        };
        assert_eq!(store.calls_waiting("one").unwrap(), [a1.cid.clone(), b1.cid.clone()]);
        assert_eq!(waiting("one", &a1, 0, 9), ["a1", "a2"]);
        assert_eq!(waiting("one", &a1, a1.number, 9), ["a2"]);
        assert_eq!(waiting("two", &a1, 0, 1), ["a1"]);
        store.delivered("one", &a1.cid, a1.number).unwrap();
        assert_eq!(
            (waiting("one", &a1, 0, 9), rows(&store)),
            (vec!["a2".to_string()], 3),
            "the other one waits for it"
        );
        store.delivered("two", &a1.cid, a1.number).unwrap();
        assert_eq!((rows(&store), store.deliveries_waiting().unwrap()), (2, 3));
        store.forget_hook("one").unwrap();
        assert_eq!(waiting("two", &a2, 0, 9), ["a2"]);
        assert_eq!(rows(&store), 1, "what only that hook was to be told is gone");
    }

    #[test]
    fn what_was_given_up_is_counted_and_the_newest_are_kept() {
        let store = Store::in_memory().unwrap();
        assert_eq!(store.dead_letters(i64::MAX, 9).unwrap(), (0, vec![]));
        let total = MOST_DEAD_LETTERS + 2;
        for i in 0..total {
            let mut event = event("a", &i.to_string());
            store.put_event(&mut event, ["one"]).unwrap();
            let (hook, error) = ("one".into(), "status 500".into());
            store.give_up(&DeadLetter { hook, event, given_up_at: Timestamp::EPOCH, attempts: 7, error }).unwrap();
        }
        let (count, newest) = store.dead_letters(i64::MAX, 2).unwrap();
        assert_eq!(count, total);
        let texts: Vec<_> = newest.iter().map(|(_, letter)| letter.event.event.clone()).collect();
        assert_eq!(texts, [(total - 1).to_string(), (total - 2).to_string()]);
        assert_eq!((newest[0].1.attempts, &*newest[0].1.error), (7, "status 500"));
        assert_eq!(store.dead_letters(newest[1].0, 1).unwrap().1[0].1.event.event, (total - 3).to_string());
        assert_eq!(store.dead_letters(3, 9).unwrap().1, [], "the oldest are gone");
        assert_eq!((rows(&store), store.deliveries_waiting().unwrap()), (0, 0));
        store.give_up(&newest[0].1).unwrap();
        assert_eq!(store.dead_letters(i64::MAX, 2).unwrap(), (total, newest), "what does not wait is not given up");
    }

    #[test]
    fn what_waits_from_before_a_time_is_found_first_come_first() {
        let store = Store::in_memory().unwrap();
        for i in 0..5 {
            let at = Timestamp::from_nanos(i);
            let mut event = Outgoing { at, ..event(&format!("c{}", i % 2), &i.to_string()) };
            store.put_event(&mut event, ["one", "two"].into_iter().take(1 + usize::from(i == 1))).unwrap();
        }
        let before = |at, most| -> Vec<(String, String)> {
            let found = store.deliveries_before(Timestamp::from_nanos(at), most).unwrap();
            found.into_iter().map(|(hook, event)| (hook, event.event)).collect()
        };
        let pairs = |all: &[(&str, &str)]| all.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect::<Vec<_>>();
        assert_eq!(before(0, 9), []);
        assert_eq!(before(2, 9), pairs(&[("one", "0"), ("one", "1"), ("two", "1")]));
        assert_eq!(before(9, 2), pairs(&[("one", "0"), ("one", "1")]));
    }
}
