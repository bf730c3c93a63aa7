//! What is on disk: one embedded SQL database.
//!
//! In: jobs, each a change of everything it concerns at once. Out: their answers, once they are on disk.
//!
//! One thread owns the connection ([`Writer`]) and commits what has come together: a change and the events that it causes are in
//! one commit, and who is answered was committed. Those who watch by WebSocket get what is committed as it is handed on in memory;
//! for hooks it stays until each has had it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cuewire::time::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, params};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::app::AppSettings;
use crate::call::{Call, CallType, Cid};
use crate::storage::StorageConfig;
use crate::user::Profile;

mod backlog;
mod captions;
mod look;
mod migrations;
mod outbox;
mod query;
mod transcripts;
mod writer;

use look::{Deadline, MOST_OF_A_LOOK};
use migrations::MIGRATIONS;
pub(crate) use outbox::{DeadLetter, Outgoing};
pub(crate) use query::{CALL_FIELDS, Query, QueryError, USER_FIELDS};
pub(crate) use transcripts::StoredTranscript;
pub(crate) use writer::{Gone, Writer};

/// The database cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database says so.
    #[error("the database: {0}")]
    Sql(#[from] rusqlite::Error),
    /// Nothing can be written.
    #[error("{0}")]
    Unwritable(String),
    /// A look took too long.
    #[error(
        "what is asked for takes longer than {} ms to be found: ask with fewer conditions, or for a `cid` or an `id`",
        MOST_OF_A_LOOK.as_millis()
    )]
    TooLong,
    /// What it holds is not what was written.
    #[error("the database holds {what} that cannot be read: {source}")]
    State {
        /// What it is.
        what: String,
        /// Why.
        source: serde_json::Error,
    },
    /// It was written by a later version.
    #[error("the database has version {found}, and this program knows versions up to {known}: use the newer program")]
    Newer {
        /// The database's.
        found: i64,
        /// This program's.
        known: i64,
    },
}

/// When what was committed is on disk, so that it survives a loss of power; that of the process it survives in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sync {
    /// Before anybody hears of it: with each caption, and each answer.
    #[default]
    Each,
    /// Within a second.
    Second,
    /// When the system writes it.
    Never,
}

/// The database, within one transaction or between two.
pub(crate) struct Store {
    connection: Connection,
    /// Rows that every event asks for, once for each who watches.
    users: RefCell<HashMap<String, Option<Profile>>>,
    call_types: RefCell<HashMap<String, Option<CallType>>>,
    app: RefCell<Option<Arc<AppSettings>>>,
    failure: Cell<Option<String>>,
    deadline: Deadline,
}

/// How long whoever else has the database is waited for at a time.
const BUSY: Duration = Duration::from_millis(500);
/// Users, and call types, that are remembered.
const MOST_REMEMBERED: usize = 10_000;

/// A row that is remembered, or is from now on.
fn remembered<T: Clone>(
    rows: &RefCell<HashMap<String, Option<T>>>,
    key: &str,
    load: impl FnOnce() -> Result<Option<T>, StoreError>,
) -> Result<Option<T>, StoreError> {
    if let Some(row) = rows.borrow().get(key) {
        return Ok(row.clone());
    }
    let row = load()?;
    let mut rows = rows.borrow_mut();
    if rows.len() >= MOST_REMEMBERED {
        rows.clear();
    }
    rows.insert(key.to_string(), row.clone());
    Ok(row)
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

impl Store {
    /// The database in this file, which is made where there is none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn open(path: &Path, sync: Sync) -> Result<Self, StoreError> {
        // What was said is its owner's, and so are the keys of storages; SQLite's other files have the mode of this one. Where it
        // cannot be made, SQLite says why.
        if let Ok(file) = crate::keys::owned_file().append(true).create(true).open(path) {
            crate::keys::own(&file);
        }
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // With NORMAL a loss of power takes the last commits with it, and breaks nothing.
        connection.pragma_update(None, "synchronous", if sync == Sync::Each { "FULL" } else { "NORMAL" })?;
        Self::migrated(connection)
    }

    /// A database that is gone with this.
    #[cfg(test)]
    pub(crate) fn in_memory() -> Result<Self, StoreError> {
        Self::migrated(Connection::open_in_memory()?)
    }

    /// The database in this file, for those who only look; of which version it is, and which this program writes.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn look(path: &Path) -> Result<(Self, i64, i64), StoreError> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(BUSY)?;
        let found = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        Ok((Self::over(connection)?, found, MIGRATIONS.len() as i64))
    }

    fn over(mut connection: Connection) -> Result<Self, StoreError> {
        let deadline = Deadline::of(&mut connection)?;
        Ok(Self {
            connection,
            users: RefCell::default(),
            call_types: RefCell::default(),
            app: RefCell::default(),
            failure: Cell::default(),
            deadline,
        })
    }

    fn migrated(mut connection: Connection) -> Result<Self, StoreError> {
        let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        for (version, step) in (1..).zip(MIGRATIONS) {
            if version > found {
                let transaction = connection.transaction()?;
                transaction.execute_batch(step)?;
                transaction.pragma_update(None, "user_version", version)?;
                transaction.commit()?;
            }
        }
        let known = MIGRATIONS.len() as i64;
        if found > known {
            return Err(StoreError::Newer { found, known });
        }
        Self::over(connection)
    }

    /// A change was taken back: what was remembered of it is not so.
    fn forget_remembered(&self) {
        self.users.borrow_mut().clear();
        self.call_types.borrow_mut().clear();
        *self.app.borrow_mut() = None;
    }

    /// A call.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn call(&self, cid: &Cid) -> Result<Option<Call>, StoreError> {
        self.one("SELECT state FROM calls WHERE type = ?1 AND id = ?2", params![cid.call_type(), cid.id()], "a call")
    }

    /// Writes a call as it is now. Gives the bytes that it takes.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn put_call(&self, call: &Call) -> Result<usize, StoreError> {
        let (cid, wake_up) = (call.cid(), call.wake_up().map(Timestamp::as_nanos));
        let state = json(call, "a call")?;
        self.execute(
            "INSERT OR REPLACE INTO calls (type, id, wake_up, state) VALUES (?1, ?2, ?3, ?4)",
            params![cid.call_type(), cid.id(), wake_up, state],
        )?;
        Ok(state.len())
    }

    /// Forgets a call; its events stay.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn delete_call(&self, cid: &Cid) -> Result<(), StoreError> {
        self.execute("DELETE FROM calls WHERE type = ?1 AND id = ?2", params![cid.call_type(), cid.id()])
    }

    /// How many calls there are.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn count_calls(&self) -> Result<i64, StoreError> {
        Ok(self.connection.query_row("SELECT count(*) FROM calls", params![], |row| row.get(0))?)
    }

    /// Calls whose time has come, the earliest first; at most `most`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn calls_due(&self, now: Timestamp, most: u32) -> Result<Vec<Call>, StoreError> {
        let sql = "SELECT state FROM calls WHERE wake_up <= ?1 ORDER BY wake_up LIMIT ?2";
        self.all(sql, params![now.as_nanos(), most], "a call")
    }

    /// Calls that have a session.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn calls_in_session(&self) -> Result<Vec<Call>, StoreError> {
        self.all("SELECT state FROM calls WHERE state ->> '$.session' IS NOT NULL", params![], "a call")
    }

    /// Whether there is a call of this type.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn has_calls_of(&self, call_type: &str) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM calls WHERE type = ?1)";
        Ok(self.connection.prepare_cached(sql)?.query_row(params![call_type], |row| row.get(0))?)
    }

    /// The calls of one type that have a session.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn calls_of(&self, call_type: &str) -> Result<Vec<Call>, StoreError> {
        let sql = "SELECT state FROM calls WHERE type = ?1 AND state ->> '$.session' IS NOT NULL";
        self.all(sql, params![call_type], "a call")
    }

    /// Looks at calls that a query finds, in its order, behind the first `offset`, at most at `most`; at one at a time, with the
    /// bytes that it takes, until there is enough.
    ///
    /// # Errors
    /// [`StoreError`], and those of `look`.
    pub(crate) fn look_at_calls<E: From<StoreError>>(
        &self,
        query: &Query,
        offset: u32,
        most: u32,
        mut look: impl FnMut(Call, usize) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        let _bounded = self.deadline.begin();
        let sql = sql_of("calls", query, "type, id", offset, most);
        let mut found = self.noted(self.connection.prepare_cached(&sql))?;
        let mut rows = self.noted(found.query(rusqlite::params_from_iter(&query.values)))?;
        while let Some(row) = self.noted(rows.next())? {
            let state: String = self.noted(row.get(0))?;
            if look(parse(&state, "a call")?, state.len())?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Users that a query finds, in its order, behind the first `offset`; at most `most`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn users_like(&self, query: &Query, offset: u32, most: u32) -> Result<Vec<Profile>, StoreError> {
        let _bounded = self.deadline.begin();
        let sql = sql_of("users", query, "id", offset, most);
        self.all(&sql, rusqlite::params_from_iter(&query.values), "a user")
    }

    /// A user.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn user(&self, id: &str) -> Result<Option<Profile>, StoreError> {
        remembered(&self.users, id, || self.one("SELECT state FROM users WHERE id = ?1", params![id], "a user"))
    }

    /// Writes a user as they are now. Gives the bytes that they take.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn put_user(&self, user: &Profile) -> Result<usize, StoreError> {
        let state = json(user, "a user")?;
        self.users.borrow_mut().remove(&user.user.id);
        self.execute("INSERT OR REPLACE INTO users (id, state) VALUES (?1, ?2)", params![user.user.id, state])?;
        Ok(state.len())
    }

    /// A call type.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn call_type(&self, name: &str) -> Result<Option<CallType>, StoreError> {
        let load = || self.one("SELECT state FROM call_types WHERE name = ?1", params![name], "a call type");
        remembered(&self.call_types, name, load)
    }

    /// All call types, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn call_types(&self) -> Result<Vec<CallType>, StoreError> {
        self.all("SELECT state FROM call_types ORDER BY name", params![], "a call type")
    }

    /// Writes a call type as it is now. Gives the bytes that it takes.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn put_call_type(&self, call_type: &CallType) -> Result<usize, StoreError> {
        let state = json(call_type, "a call type")?;
        self.call_types.borrow_mut().remove(&call_type.name);
        self.execute(
            "INSERT OR REPLACE INTO call_types (name, state) VALUES (?1, ?2)",
            params![call_type.name, state],
        )?;
        Ok(state.len())
    }

    /// Forgets a call type; whether it was there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn delete_call_type(&self, name: &str) -> Result<bool, StoreError> {
        self.call_types.borrow_mut().remove(name);
        Ok(self.connection.prepare_cached("DELETE FROM call_types WHERE name = ?1")?.execute(params![name])? > 0)
    }

    /// How a storage that was made by a request is reached.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn storage(&self, name: &str) -> Result<Option<StorageConfig>, StoreError> {
        self.one("SELECT state FROM storages WHERE name = ?1", params![name], "a storage")
    }

    /// All of them, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn storages(&self) -> Result<Vec<(String, StorageConfig)>, StoreError> {
        let mut query = self.connection.prepare_cached("SELECT name, state FROM storages ORDER BY name")?;
        let rows = query.query_map(params![], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
        rows.map(|row| row.map_err(StoreError::from).and_then(|(name, state)| Ok((name, parse(&state, "a storage")?))))
            .collect()
    }

    /// Writes how a storage is reached from now on.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn put_storage(&self, name: &str, config: &StorageConfig) -> Result<(), StoreError> {
        let state = json(config, "a storage")?;
        self.execute("INSERT OR REPLACE INTO storages (name, state) VALUES (?1, ?2)", params![name, state])
    }

    /// Forgets a storage; whether it was there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn delete_storage(&self, name: &str) -> Result<bool, StoreError> {
        Ok(self.connection.prepare_cached("DELETE FROM storages WHERE name = ?1")?.execute(params![name])? > 0)
    }

    /// Roles that were made, by name, and when.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn roles(&self) -> Result<Vec<(String, Timestamp)>, StoreError> {
        let mut query = self.connection.prepare_cached("SELECT name, created_at FROM roles ORDER BY name")?;
        let rows = query.query_map(params![], |row| Ok((row.get(0)?, Timestamp::from_nanos(row.get(1)?))))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Makes a role; whether it was not there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn put_role(&self, name: &str, at: Timestamp) -> Result<bool, StoreError> {
        let sql = "INSERT OR IGNORE INTO roles (name, created_at) VALUES (?1, ?2)";
        Ok(self.connection.prepare_cached(sql)?.execute(params![name, at.as_nanos()])? > 0)
    }

    /// The platform's settings.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn app(&self) -> Result<Arc<AppSettings>, StoreError> {
        if let Some(app) = &*self.app.borrow() {
            return Ok(app.clone());
        }
        let app: Option<AppSettings> = self.one("SELECT state FROM app", params![], "the app")?;
        Ok(self.app.borrow_mut().insert(Arc::new(app.unwrap_or_default())).clone())
    }

    /// Writes the platform's settings as they are now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn put_app(&self, app: &AppSettings) -> Result<(), StoreError> {
        let state = json(app, "the app")?;
        *self.app.borrow_mut() = None;
        self.execute("INSERT OR REPLACE INTO app (one, state) VALUES (1, ?1)", params![state])
    }

    fn execute(&self, sql: &str, params: impl rusqlite::Params) -> Result<(), StoreError> {
        self.noted(self.connection.prepare_cached(sql).and_then(|mut query| query.execute(params)))?;
        Ok(())
    }

    /// Remembers that the disk, or whoever else has the database, is why something failed: then nothing of the transaction is to
    /// stay, and what must happen is tried again.
    fn noted<T>(&self, done: rusqlite::Result<T>) -> Result<T, StoreError> {
        match done.as_ref().err().and_then(rusqlite::Error::sqlite_error_code) {
            None | Some(ErrorCode::ConstraintViolation) => {}
            Some(ErrorCode::OperationInterrupted) => return Err(StoreError::TooLong),
            Some(_) => self.failure.set(done.as_ref().err().map(ToString::to_string)),
        }
        Ok(done?)
    }

    /// Why nothing can be written, where that was found out: the disk is full, for one. Nothing of the transaction is to stay.
    fn take_failure(&self) -> Option<StoreError> {
        self.failure.take().map(StoreError::Unwritable)
    }

    /// Writes something that means nothing.
    ///
    /// # Errors
    /// Where nothing can be written.
    pub(crate) fn probe(&self, now: Timestamp) -> Result<(), StoreError> {
        self.execute("INSERT OR REPLACE INTO probe (one, at) VALUES (1, ?1)", params![now.as_nanos()])
    }

    /// Does something that leaves nothing behind where it fails, whatever was done before.
    ///
    /// # Errors
    /// The action's own, within; and [`StoreError`].
    pub(crate) fn apart<R, E>(&self, act: impl FnOnce() -> Result<R, E>) -> Result<Result<R, E>, StoreError> {
        self.connection.execute_batch("SAVEPOINT apart")?;
        let result = act();
        if result.is_err() {
            self.forget_remembered();
            self.connection.execute_batch("ROLLBACK TO apart")?;
        }
        self.connection.execute_batch("RELEASE apart")?;
        Ok(result)
    }

    fn one<T: DeserializeOwned>(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
        what: &str,
    ) -> Result<Option<T>, StoreError> {
        let found = self.connection.prepare_cached(sql).and_then(|mut query| query.query_row(params, |row| row.get(0)));
        let state: Option<String> = self.noted(found.optional())?;
        state.map(|state| parse(&state, what)).transpose()
    }

    fn all<T: DeserializeOwned>(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
        what: &str,
    ) -> Result<Vec<T>, StoreError> {
        let found = self.connection.prepare_cached(sql).and_then(|mut query| {
            let states = query.query_map(params, |row| row.get::<_, String>(0))?;
            states.collect::<Result<Vec<_>, _>>()
        });
        self.noted(found)?.iter().map(|state| parse(state, what)).collect()
    }
}

/// A query's text, of which nothing is a client's: values are parameters.
fn sql_of(table: &str, Query { condition, order, .. }: &Query, key: &str, offset: u32, most: u32) -> String {
    let order = if order.is_empty() { String::new() } else { format!("{order}, ") };
    format!("SELECT state FROM {table} WHERE {condition} ORDER BY {order}{key} LIMIT {most} OFFSET {offset}")
}

fn parse<T: DeserializeOwned>(state: &str, what: &str) -> Result<T, StoreError> {
    serde_json::from_str(state).map_err(|source| StoreError::State { what: what.to_string(), source })
}

fn json(value: &impl Serialize, what: &str) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|source| StoreError::State { what: what.to_string(), source })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_old_database_is_migrated_and_a_newer_one_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        Store::open(&path, Sync::Each).unwrap().put_call_type(&CallType::new("default", Timestamp::EPOCH)).unwrap();
        let again = Store::open(&path, Sync::Each).unwrap();
        assert_eq!(again.call_types().unwrap(), [CallType::new("default", Timestamp::EPOCH)]);
        again.connection.pragma_update(None, "user_version", MIGRATIONS.len() as i64 + 1).unwrap();
        let error = Store::open(&path, Sync::Each).unwrap_err().to_string();
        assert!(error.contains(&format!("version {}", MIGRATIONS.len() + 1)), "{error}");
    }

    #[test]
    fn a_look_that_would_take_for_ever_is_called_off_and_nothing_else_is() {
        let store = Store::in_memory().unwrap();
        let cid = Cid::new("default", "c").unwrap();
        store.put_user(&Profile::unknown("carol", Timestamp::EPOCH)).unwrap();
        let endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n";
        let query = Query { condition: format!("({endless}) > 0"), order: String::new(), values: Vec::new() };
        let began = std::time::Instant::now();
        assert!(matches!(store.users_like(&query, 0, 1), Err(StoreError::TooLong)));
        assert!(began.elapsed() >= MOST_OF_A_LOOK);
        let sql = "INSERT INTO calls (type, id, state) VALUES ('default', 'c', '{}')";
        store.execute(sql, params![]).unwrap();
        let look = |_, _| Ok::<_, StoreError>(ControlFlow::Continue(()));
        assert!(matches!(store.look_at_calls(&query, 0, 1, look), Err(StoreError::TooLong)));
        // Long behind the end of both.
        let count =
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 100000) SELECT count(*) FROM n";
        let counted: i64 = store.connection.query_row(count, [], |row| row.get(0)).unwrap();
        assert_eq!(counted, 100_000);
        assert!(store.take_failure().is_none() && store.call(&cid).is_err());
    }
}
