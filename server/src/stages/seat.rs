//! A participant's seat: their track, and the connection that they have.
//!
//! In: joins and leaves. Out: who has which connection, and who was told to close it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use cuewire::engine::TrackId;
use tokio::sync::oneshot;

use super::{Line, Stages};
use crate::call::Cid;

/// One participant's.
pub(super) struct Seat {
    pub(super) track: TrackId,
    /// In which session they were last.
    pub(super) session_id: String,
    /// The same, as it is on disk; none before the first join is.
    pub(super) kept: Option<String>,
    /// Names the track in the ids of its captions.
    pub(super) name: String,
    pub(super) line: Arc<Mutex<Line>>,
    /// Counts the connections.
    pub(super) connection: u64,
    /// Closes the connection, where there is one.
    pub(super) close: Option<oneshot::Sender<Closed>>,
    /// What was marked, in the order in which the engine will say so.
    pub(super) marked: VecDeque<Marked>,
    /// Since when all that was said was given up, and when the last of it was.
    pub(super) missed: Option<(Instant, Instant)>,
}

pub(super) enum Marked {
    /// How the call is heard from here on.
    Hear(u64),
    /// The connection with this number is closed.
    Left(u64),
}

/// A participant's connection, as the one who reads it needs it.
pub(crate) struct Seated {
    /// Where audio goes.
    pub(crate) line: Arc<Mutex<Line>>,
    /// The track.
    pub(crate) track: TrackId,
    /// Which of the participant's connections it is.
    pub(crate) connection: u64,
    /// Told, or gone, when it is to be closed.
    pub(crate) closed: oneshot::Receiver<Closed>,
}

/// A seat that was taken by a join which is not on disk yet. Where it never is, this is dropped, and the seat given back.
pub(crate) struct Taken {
    stages: Arc<Stages>,
    cid: Cid,
    user_id: String,
    connection: u64,
    is_kept: bool,
}

impl Taken {
    pub(crate) fn new(stages: Arc<Stages>, cid: Cid, user_id: String, connection: u64) -> Self {
        Self { stages, cid, user_id, connection, is_kept: false }
    }

    /// The join is on disk.
    pub(crate) fn keep(mut self) {
        self.is_kept = true;
        let mut state = self.stages.lock();
        if let Some(seat) = state.calls.get_mut(&self.cid).and_then(|stage| stage.seats.get_mut(&self.user_id)) {
            seat.kept = Some(seat.session_id.clone());
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.is_kept {
            self.stages.give_back(&self.cid, &self.user_id, self.connection);
        }
    }
}

/// Why a connection is closed, where it is not because the place was taken or the call has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// Who speaks may do so no longer.
    AccessLost,
}
