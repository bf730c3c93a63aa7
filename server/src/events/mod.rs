//! From what was committed to those who watch.
//!
//! In: events with their readers, connections. Out: text frames, in a bounded queue a connection.
//!
//! Nobody waits for a client: one that reads too slowly loses interims first, and then its connection.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::extract::ws::Utf8Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::call::Cid;
use crate::telemetry;
use crate::wire::token::UserToken;

/// Events that wait for one connection.
const MAX_WAITING: usize = 256;
/// Interims are let in only while fewer wait.
const MAX_WAITING_WITH_INTERIMS: usize = 64;

/// Close codes, as clients act on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseCode {
    /// Come back: the server restarts, or the client reads too slowly.
    Restart = 1012,
    /// Come back with another token: this one has expired, or does no longer do.
    TokenExpired = 4001,
}

/// Who is told.
#[derive(Clone, Debug)]
pub(crate) struct Watcher {
    /// Of which connection.
    pub(crate) connection: String,
    /// Whose it is.
    pub(crate) token: UserToken,
}

/// A connection's end.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// Names the connection.
    pub(crate) connection: String,
    /// What it is told.
    pub(crate) events: mpsc::Receiver<Utf8Bytes>,
    /// Why it is to be closed; gone without a word where the hub is.
    pub(crate) close: oneshot::Receiver<CloseCode>,
}

/// Text for two kinds of connections.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    /// For those that did not ask for interims; `None`: not for them.
    pub(crate) plain: Option<Utf8Bytes>,
    /// For those that did.
    pub(crate) detailed: Utf8Bytes,
}

/// All connections, and what they watch.
#[derive(Debug, Default)]
pub(crate) struct Hub(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    connections: HashMap<String, Connection>,
    watchers: HashMap<Cid, BTreeSet<String>>,
}

#[derive(Debug)]
struct Connection {
    token: UserToken,
    interims: bool,
    /// Gone once it is to be closed: until its task says that it has, it is there and told nothing.
    events: Option<mpsc::Sender<Utf8Bytes>>,
    close: Option<oneshot::Sender<CloseCode>>,
    watched: BTreeSet<Cid>,
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new connection of somebody, with an id that nobody can guess.
    pub(crate) fn connect(&self, connection: String, token: UserToken, interims: bool) -> Inbox {
        let (events, receiver) = mpsc::channel(MAX_WAITING);
        let (close, closed) = oneshot::channel();
        let entry = Connection { token, interims, events: Some(events), close: Some(close), watched: BTreeSet::new() };
        self.lock().connections.insert(connection.clone(), entry);
        Inbox { connection, events: receiver, close: closed }
    }

    /// It is gone. Gives the calls that it watched.
    pub(crate) fn disconnect(&self, connection: &str) -> BTreeSet<Cid> {
        self.lock().remove(connection)
    }

    /// Whose connection this is.
    pub(crate) fn user_of(&self, connection: &str) -> Option<String> {
        let state = self.lock();
        state
            .connections
            .get(connection)
            .filter(|entry| entry.events.is_some())
            .map(|entry| entry.token.user_id.clone())
    }

    /// From now on a connection is told of a call; whether it is there.
    pub(crate) fn watch(&self, connection: &str, cid: &Cid) -> bool {
        let mut state = self.lock();
        let State { connections, watchers } = &mut *state;
        let Some(entry) = connections.get_mut(connection).filter(|entry| entry.events.is_some()) else { return false };
        entry.watched.insert(cid.clone());
        watchers.entry(cid.clone()).or_default().insert(connection.to_string());
        true
    }

    /// Who watches a call, or only who wants its interims.
    pub(crate) fn watchers(&self, cid: &Cid, of_interims: bool) -> Vec<Watcher> {
        let state = self.lock();
        let watchers = state.watchers.get(cid).into_iter().flatten();
        watchers.filter_map(|connection| state.watcher(connection, of_interims)).collect()
    }

    /// Whether anybody who watches a call asked for interims.
    pub(crate) fn wants_interims(&self, cid: &Cid) -> bool {
        let state = self.lock();
        let mut watchers = state.watchers.get(cid).into_iter().flatten();
        watchers.any(|connection| state.watcher(connection, true).is_some())
    }

    /// The connections of these users, whatever they watch.
    pub(crate) fn of_users(&self, is_one: impl Fn(&str) -> bool) -> Vec<Watcher> {
        let state = self.lock();
        let theirs = state.connections.iter().filter(|(_, entry)| is_one(&entry.token.user_id));
        theirs.filter_map(|(connection, _)| state.watcher(connection, false)).collect()
    }

    /// The calls that somebody's connections watch.
    pub(crate) fn watched_by(&self, user_id: &str) -> BTreeSet<Cid> {
        let state = self.lock();
        let theirs = state.connections.values().filter(|entry| entry.token.user_id == user_id);
        theirs.flat_map(|entry| entry.watched.iter().cloned()).collect()
    }

    /// The calls of a type that are watched.
    pub(crate) fn watched_of(&self, call_type: &str) -> Vec<Cid> {
        self.lock().watchers.keys().filter(|cid| cid.call_type() == call_type).cloned().collect()
    }

    /// Tells these connections. Never waits.
    pub(crate) fn send<'a>(&self, connections: impl IntoIterator<Item = &'a str>, text: &Text) {
        let mut state = self.lock();
        let (mut told, mut slow) = (0, Vec::new());
        for connection in connections {
            let Some(entry) = state.connections.get(connection) else { continue };
            let text = if entry.interims { Some(&text.detailed) } else { text.plain.as_ref() };
            let Some(text) = text else { continue };
            match entry.events.as_ref().map(|events| events.try_send(text.clone())) {
                Some(Ok(())) => told += 1,
                Some(Err(_)) => slow.push(connection),
                None => {}
            }
        }
        telemetry::told(told, slow.len() as u64);
        slow.into_iter().for_each(|connection| state.close(connection, CloseCode::Restart));
    }

    /// Tells these connections of something that the next such thing makes up for. Never waits.
    pub(crate) fn send_interim<'a>(&self, connections: impl IntoIterator<Item = &'a str>, text: &Utf8Bytes) {
        let state = self.lock();
        let entries = connections.into_iter().filter_map(|connection| state.connections.get(connection));
        for entry in entries.filter(|entry| entry.interims) {
            let has_room = |events: &&mpsc::Sender<_>| events.capacity() > MAX_WAITING - MAX_WAITING_WITH_INTERIMS;
            if let Some(events) = entry.events.as_ref().filter(has_room) {
                // One that is closed needs none.
                let _ = events.try_send(text.clone());
            }
        }
    }

    /// Closes a connection: it is told nothing more.
    pub(crate) fn close(&self, connection: &str, code: CloseCode) {
        self.lock().close(connection, code);
    }

    /// Closes all.
    pub(crate) fn close_all(&self) {
        let mut state = self.lock();
        let all: Vec<_> = state.connections.keys().cloned().collect();
        all.iter().for_each(|connection| state.close(connection, CloseCode::Restart));
    }
}

impl State {
    fn watcher(&self, connection: &str, of_interims: bool) -> Option<Watcher> {
        let entry = self.connections.get(connection)?;
        let is_one = entry.events.is_some() && (entry.interims || !of_interims);
        is_one.then(|| Watcher { connection: connection.to_string(), token: entry.token.clone() })
    }

    fn remove(&mut self, connection: &str) -> BTreeSet<Cid> {
        let Some(entry) = self.connections.remove(connection) else { return BTreeSet::new() };
        for cid in &entry.watched {
            if let Some(watchers) = self.watchers.get_mut(cid) {
                watchers.remove(connection);
                if watchers.is_empty() {
                    self.watchers.remove(cid);
                }
            }
        }
        entry.watched
    }

    fn close(&mut self, connection: &str, code: CloseCode) {
        let Some(entry) = self.connections.get_mut(connection) else { return };
        if let Some(close) = entry.close.take() {
            // Its task is gone already, then.
            let _ = close.send(code);
        }
        entry.events = None;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn token(user_id: &str) -> UserToken {
        UserToken { user_id: user_id.into(), role: None, call_cids: Vec::new(), expires_at: None }
    }

    #[test]
    fn a_slow_client_loses_interims_first_and_then_its_connection() {
        let hub = Hub::default();
        let cid = Cid::new("default", "c").unwrap();
        let mut slow = hub.connect("slow".into(), token("alice"), true);
        let mut quick = hub.connect("quick".into(), token("bob"), false);
        assert!(hub.watch("slow", &cid) && hub.watch("quick", &cid));
        let both = ["slow", "quick"];
        for i in 0..MAX_WAITING {
            hub.send_interim(both, &format!("interim {i}").into());
            // The interims that were let in take the place of as many events, later.
            if i < MAX_WAITING - MAX_WAITING_WITH_INTERIMS / 2 {
                hub.send(both, &Text { plain: Some(i.to_string().into()), detailed: i.to_string().into() });
                assert_eq!(quick.events.try_recv().unwrap(), i.to_string(), "no interim for who did not ask");
            }
        }
        let had: Vec<_> = std::iter::from_fn(|| slow.events.try_recv().ok()).collect();
        let interims = had.iter().filter(|text| text.starts_with("interim")).count();
        assert_eq!(interims, MAX_WAITING_WITH_INTERIMS / 2, "none where so much waits");
        assert_eq!(had.len() - interims, MAX_WAITING - MAX_WAITING_WITH_INTERIMS / 2, "and no final was lost");

        for i in 0..MAX_WAITING {
            hub.send(["slow"], &Text { plain: None, detailed: i.to_string().into() });
        }
        assert!(slow.close.try_recv().is_err(), "as many as may wait");
        hub.send(["slow"], &Text { plain: None, detailed: "one more".into() });
        assert_eq!(slow.close.try_recv().unwrap(), CloseCode::Restart);
        assert_eq!(hub.watchers(&cid, false).len(), 1, "the other one goes on");
        hub.close_all();
        assert_eq!(quick.close.try_recv().unwrap(), CloseCode::Restart);
        assert!(hub.watchers(&cid, false).is_empty());
        assert_eq!(hub.disconnect("slow"), BTreeSet::from([cid]), "whose interims may end then");
    }
}
