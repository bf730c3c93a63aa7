//! From the first participant to the last.
//!
//! In: who joins, who has left, the time. Out: the session's beginning and end, and with it those of the processes.

use std::collections::{BTreeMap, BTreeSet};

use cuewire::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::grants::Capability;
use super::settings::{DEFAULT_INACTIVITY_S, Mode};
use super::{Actor, Call, CallError, Effect, Env, Event, Process};

/// One session of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    id: String,
    started_at: Timestamp,
    participants: BTreeMap<String, Participant>,
    waiting: Option<Waiting>,
    /// Stopped by somebody: what starts by itself does so in the next session again.
    pub(super) stopped: BTreeSet<Process>,
    /// Whether anybody was there since the host was started anew.
    #[serde(default)]
    visited: bool,
}

/// Somebody who is heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Participant {
    /// Who.
    pub user_id: String,
    /// Their role in the call.
    pub role: String,
    /// Names this stay.
    pub user_session_id: String,
    /// When they joined.
    pub joined_at: Timestamp,
    /// The role that their token grants in this call.
    #[serde(default)]
    pub token_role: Option<String>,
    /// Without a connection since the host was started anew.
    pub away: bool,
}

/// Nobody is there, and the session goes on until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Waiting {
    /// Nobody has been there yet.
    ForFirst(Timestamp),
    /// All have left.
    Empty(Timestamp),
    /// The host was started anew, and some may come back.
    Suspended(Timestamp),
}

impl Waiting {
    /// When it is over.
    #[must_use]
    pub fn until(self) -> Timestamp {
        match self {
            Self::ForFirst(until) | Self::Empty(until) | Self::Suspended(until) => until,
        }
    }
}

impl Session {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// When it began.
    #[must_use]
    pub fn started_at(&self) -> Timestamp {
        self.started_at
    }

    /// Those who are there, by their ids.
    #[must_use]
    pub fn participants(&self) -> &BTreeMap<String, Participant> {
        &self.participants
    }

    /// What it waits for, where nobody is there.
    #[must_use]
    pub fn waiting(&self) -> Option<Waiting> {
        self.waiting
    }
}

fn seconds(s: u32) -> i64 {
    i64::from(s) * 1_000_000_000
}

impl Call {
    pub(super) fn join(&mut self, env: &mut Env<'_>, actor: &Actor) -> Result<(), CallError> {
        let Actor::User { user, token_role } = actor else {
            return Err(CallError::NotAllowed("a server's token is nobody: participants join with a user's".into()));
        };
        self.require(env, actor, Capability::JoinCall)?;
        self.require(env, actor, Capability::SendAudio)?;
        if self.ended_at.is_some() {
            self.require(env, actor, Capability::JoinEndedCall)?;
        }
        let member = self.members.get(&user.id).and_then(|membership| membership.member.role.clone());
        let host = (user.id == self.created_by).then(|| "host".to_string());
        let role = host.or(member).or(token_role.clone()).unwrap_or_else(|| user.role.clone());
        self.open_session(env);
        let now = env.now;
        let user_session_id = (env.new_id)();
        let Some(session) = &mut self.session else { return Ok(()) };
        session.visited = true;
        if !matches!(session.waiting, Some(Waiting::Suspended(_))) {
            session.waiting = None;
        }
        if let Some(known) = session.participants.get_mut(&user.id) {
            // Their second connection, or they come back: their stay goes on.
            let is_back = std::mem::take(&mut known.away);
            known.token_role.clone_from(token_role);
            if session.participants.values().all(|participant| !participant.away) {
                session.waiting = None;
            }
            if is_back {
                // What was set meanwhile to start by itself had nobody to start with.
                self.start_automatic(env);
            }
            return Ok(());
        }
        let (user_id, token_role) = (user.id.clone(), token_role.clone());
        let joined = Participant { user_id, role, user_session_id, joined_at: now, token_role, away: false };
        session.participants.insert(user.id.clone(), joined.clone());
        let session_id = session.id.clone();
        self.tell(Event::ParticipantJoined { session_id, participant: joined });
        self.start_automatic(env);
        Ok(())
    }

    /// The session that is there, or a new one, which waits for its first participant.
    pub(super) fn open_session(&mut self, env: &mut Env<'_>) {
        if self.session.is_none() {
            let id = (env.new_id)();
            self.session = Some(Session {
                id: id.clone(),
                started_at: env.now,
                participants: BTreeMap::new(),
                waiting: Some(Waiting::ForFirst(env.now.plus_nanos(seconds(env.first_participant_s)))),
                stopped: BTreeSet::new(),
                visited: false,
            });
            self.tell(Event::SessionStarted { session_id: id });
        }
    }

    pub(super) fn left(&mut self, env: &mut Env<'_>, user_id: &str) {
        let Some(session) = &mut self.session else { return };
        let Some(participant) = session.participants.remove(user_id) else { return };
        let session_id = session.id.clone();
        self.tell(Event::ParticipantLeft { session_id, participant, at: env.now });
        self.wait_where_empty(env);
    }

    /// Where nobody is left, the session waits for somebody; but not where the call has ended.
    fn wait_where_empty(&mut self, env: &mut Env<'_>) {
        let timeout = seconds(self.leaves(env.call_type).inactivity_timeout_s.unwrap_or(DEFAULT_INACTIVITY_S));
        let Some(session) = self.session.as_mut().filter(|session| session.participants.is_empty()) else { return };
        session.waiting = Some(Waiting::Empty(env.now.plus_nanos(timeout)));
        if self.ended_at.is_some() {
            self.end_session(env);
        }
    }

    /// Sends all home: when they have left, the session ends.
    pub(super) fn empty_session(&mut self, env: &mut Env<'_>) {
        let Some(session) = &mut self.session else { return };
        let (away, here): (Vec<_>, Vec<_>) =
            session.participants.values().cloned().partition(|participant| participant.away);
        for Participant { user_id, .. } in here {
            self.want(Effect::Disconnect { user_id });
        }
        // Of whom no connection will tell.
        for Participant { user_id, .. } in away {
            self.left(env, &user_id);
        }
        self.wait_where_empty(env);
    }

    /// Nobody is waited for: what is open is lost with the call.
    pub(super) fn end_session_at_once(&mut self, env: &mut Env<'_>) {
        let Some(session) = &self.session else { return };
        let user_ids: Vec<_> = session.participants.keys().cloned().collect();
        for user_id in user_ids {
            self.want(Effect::Disconnect { user_id: user_id.clone() });
            self.left(env, &user_id);
        }
        self.end_session(env);
    }

    fn end_session(&mut self, env: &mut Env<'_>) {
        let Some(session_id) = self.session.as_ref().map(|session| session.id.clone()) else { return };
        let transcripts = self.end_runs(env);
        self.session = None;
        self.tell(Event::SessionEnded { session_id });
        for transcript in transcripts {
            self.want(transcript);
        }
    }

    /// The host was started anew: whoever returns in time goes on.
    pub(super) fn suspend(&mut self, env: &mut Env<'_>) {
        let timeout = seconds(self.leaves(env.call_type).inactivity_timeout_s.unwrap_or(DEFAULT_INACTIVITY_S));
        // Captions that were open are lost with the tracks they were heard in.
        self.pass_all(env);
        if let Some(session) = self.session.as_mut().filter(|session| !session.participants.is_empty()) {
            session.participants.values_mut().for_each(|participant| participant.away = true);
            session.waiting = Some(Waiting::Suspended(env.now.plus_nanos(timeout)));
            session.visited = false;
        }
        if self.runs.is_any() {
            self.hear();
        }
        if self.ended_at.is_some() {
            self.empty_session(env);
        }
    }

    pub(super) fn tick(&mut self, env: &mut Env<'_>) {
        let waiting = self.session.as_ref().and_then(|session| session.waiting);
        match waiting.filter(|waiting| waiting.until() <= env.now) {
            None => {}
            Some(Waiting::ForFirst(_) | Waiting::Empty(_)) => self.end_session(env),
            Some(Waiting::Suspended(_)) => {
                let Some(session) = &mut self.session else { return };
                session.waiting = None;
                let away: Vec<_> =
                    session.participants.values().filter(|one| one.away).map(|one| one.user_id.clone()).collect();
                for user_id in away {
                    self.left(env, &user_id);
                }
                // Where nobody came, they have been away for as long as that takes.
                if self.session.as_ref().is_some_and(|session| session.participants.is_empty() && !session.visited) {
                    self.end_session(env);
                }
            }
        }
    }

    /// Starts what starts by itself, where somebody is there and nobody has stopped it.
    pub(super) fn start_automatic(&mut self, env: &mut Env<'_>) {
        let leaves = self.leaves(env.call_type);
        let Some(session) = &self.session else { return };
        let is_here = session.participants.values().any(|participant| !participant.away);
        if !is_here || self.ended_at.is_some() {
            return;
        }
        let stopped = session.stopped.clone();
        self.start_runs(
            env,
            leaves.processes_in(Mode::AutoOn).filter(|process| !stopped.contains(process)),
            None,
            None,
        );
    }
}
