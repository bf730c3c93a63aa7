//! What the service's documentation says of a call, written a second time and in another way.
//!
//! In: what somebody wants or what happened, and what a call said to it. Out: nothing, or a panic where a rule was broken.
//!
//! Before: whether a command is refused, and what the call is to be like behind it. Then each output in its place. At rest: that
//! the call is what it was to be, that it said so, and that nothing is owed.

use std::collections::{BTreeMap, BTreeSet};

use cuewire::time::Timestamp;

use crate::call::settings::Recognition;
use crate::call::{Actor, Caption, Process, Transcript};

mod said;
mod terms;

use terms::{CAPABILITIES, start_of, stop_of};
pub(super) use terms::{
    GrantsOf, Heard, Leaves, PROCESSES, Refusal, UNKNOWN_LANGUAGE, default_grants, other, plain, spellings,
};

/// What somebody wants.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    Read,
    List,
    Update { leaves: Leaves, is_empty: bool, custom: bool },
    Members { update: Vec<(String, Option<String>)>, remove: Vec<String> },
    Permissions { user_id: String, role: String, grant: Vec<String>, revoke: Vec<String> },
    Join,
    Start { process: Process, heard: Heard, with_other: bool, storage: Option<String> },
    Stop { process: Process, with_other: bool },
    Send(Caption),
    End,
    Delete,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Wait {
    First(Timestamp),
    Empty(Timestamp),
    Suspended(Timestamp),
}

#[derive(Clone, Debug, Default)]
struct Session {
    /// Who is there, and whether without a connection since a restart.
    here: BTreeMap<String, bool>,
    waiting: Option<Wait>,
    is_visited: bool,
    stopped: BTreeSet<Process>,
}

/// A run that was told of.
#[derive(Clone, Debug)]
struct Told {
    process: Process,
    egress_id: String,
    /// When it was stopped, and the mark that was said then.
    stopped: Option<(Timestamp, Option<u64>)>,
}

#[derive(Clone, Debug)]
struct File {
    session_id: String,
    from: Timestamp,
    is_closed: bool,
}

/// What may come of one command or input.
#[derive(Default)]
struct Cause {
    starts: Vec<Process>,
    storage: Option<String>,
    /// The whole session is over.
    is_over: bool,
    has_failed: bool,
    is_restarted: bool,
    passed: Option<u64>,
    joins: Option<String>,
    leave: BTreeSet<String>,
    /// Whose connections are closed.
    sent_away: BTreeSet<String>,
    is_ended: bool,
    is_deleted: bool,
    is_updated: bool,
    /// Of these capabilities somebody is told.
    permissions: Option<(String, BTreeSet<String>)>,
    added: Vec<String>,
    changed: Vec<String>,
    removed: Vec<String>,
    caption: Option<Caption>,
    writes_to: Option<String>,
    shows: bool,
    stored: Option<(String, Result<Transcript, String>)>,
}

pub(super) struct Rules {
    pub(super) now: Timestamp,
    pub(super) grants: GrantsOf,
    pub(super) of_type: Leaves,
    pub(super) storage_of_type: Option<String>,
    pub(super) created_by: String,
    own: Leaves,
    members: BTreeMap<String, Option<String>>,
    /// Of each user, what was granted (or else revoked) last.
    permissions: BTreeMap<String, BTreeMap<String, bool>>,
    is_ended: bool,
    session: Option<Session>,
    running: BTreeSet<Process>,
    heard: Option<Heard>,
    // What was told by now.
    told: Option<String>,
    here: BTreeSet<String>,
    runs: Vec<Told>,
    hearing: Option<Recognition>,
    pub(super) mark: u64,
    files: BTreeMap<String, File>,
    /// Files that are to be stored.
    pub(super) to_store: Vec<(String, String)>,
    ids: BTreeSet<String>,
    cause: Cause,
}

/// Seconds that a session waits for its first participant.
pub(super) const FIRST_S: u32 = 3600;

impl Rules {
    /// Whether somebody may make a call, and what it is to be like.
    pub(super) fn creates(
        actor: &Actor,
        (grants, of_type): (GrantsOf, Leaves),
        members: &[(String, Option<String>)],
        own: Leaves,
        has_settings: bool,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        let created_by = match actor {
            Actor::Server { user_id } => user_id.clone().ok_or(Refusal::Input)?,
            Actor::User { user, .. } => user.id.clone(),
        };
        if let Actor::User { user, token_role } = actor {
            // Nobody is a host before there is a call.
            let roles = [Some(&user.role), token_role.as_ref()];
            let may =
                roles.into_iter().flatten().any(|role| grants.get(role).is_some_and(|of| of.contains("create-call")));
            if !may {
                return Err(Refusal::NotAllowed);
            }
        }
        let mut rules = Self {
            now,
            grants,
            of_type,
            storage_of_type: None,
            created_by,
            own,
            members: BTreeMap::new(),
            permissions: BTreeMap::new(),
            is_ended: false,
            session: None,
            running: BTreeSet::new(),
            heard: None,
            told: None,
            here: BTreeSet::new(),
            runs: Vec::new(),
            hearing: None,
            mark: 0,
            files: BTreeMap::new(),
            to_store: Vec::new(),
            ids: BTreeSet::new(),
            cause: Cause::default(),
        };
        if has_settings {
            rules.needs(actor, "update-call-settings")?;
        }
        rules.may_give(actor, members)?;
        if !own.heard.over(of_type.heard).is_known() {
            return Err(Refusal::Input);
        }
        rules.members = members.iter().cloned().collect();
        Ok(rules)
    }

    fn capabilities(&self, user_id: &str, role: &str, token_role: Option<&str>) -> BTreeSet<String> {
        let mut roles = vec![role];
        roles.extend(token_role);
        roles.extend(self.members.get(user_id).map(|role| role.as_deref().unwrap_or("call_member")));
        roles.extend((user_id == self.created_by).then_some("host"));
        let mut all: BTreeSet<String> =
            roles.iter().filter_map(|role| self.grants.get(*role)).flatten().cloned().collect();
        for (name, is_granted) in self.permissions.get(user_id).into_iter().flatten() {
            if *is_granted {
                all.insert(name.clone())
            } else {
                all.remove(name)
            };
        }
        all
    }

    fn of(&self, actor: &Actor) -> Option<BTreeSet<String>> {
        match actor {
            Actor::Server { .. } => None,
            Actor::User { user, token_role } => Some(self.capabilities(&user.id, &user.role, token_role.as_deref())),
        }
    }

    fn needs(&self, actor: &Actor, capability: &str) -> Result<(), Refusal> {
        assert!(CAPABILITIES.iter().any(|(name, _)| *name == capability));
        self.of(actor).is_none_or(|all| all.contains(capability)).then_some(()).ok_or(Refusal::NotAllowed)
    }

    /// Who gives a role that may more than they may themselves changes permissions.
    fn may_give(&self, actor: &Actor, members: &[(String, Option<String>)]) -> Result<(), Refusal> {
        let given: BTreeSet<_> = members
            .iter()
            .filter_map(|(_, role)| role.as_ref())
            .filter(|role| *role != "call_member")
            .filter_map(|role| self.grants.get(role))
            .flatten()
            .cloned()
            .collect();
        match self.of(actor) {
            Some(own) if !given.is_subset(&own) => self.needs(actor, "update-call-permissions"),
            _ => Ok(()),
        }
    }

    fn leaves(&self) -> Leaves {
        self.own.over(self.of_type)
    }

    fn runs(&self, process: Process) -> bool {
        self.running.contains(&process)
    }

    /// Somebody who could be heard.
    pub(super) fn speakers(&self) -> Vec<String> {
        let here = self.session.iter().flat_map(|session| &session.here);
        here.filter(|(_, is_away)| !**is_away).map(|(user_id, _)| user_id.clone()).collect()
    }

    /// Whether captions open, and are translated.
    pub(super) fn hears(&self) -> Option<bool> {
        self.hearing.as_ref().map(|recognition| recognition.translate)
    }

    /// The runs that a caption belongs to which opens now.
    pub(super) fn runs_now(&self) -> Vec<String> {
        self.runs.iter().filter(|run| run.stopped.is_none()).map(|run| run.egress_id.clone()).collect()
    }

    /// Whether a command is done, or why not; and what it is to lead to.
    pub(super) fn want(&mut self, actor: &Actor, wanted: &Wanted) -> Result<(), Refusal> {
        self.cause = Cause::default();
        match wanted {
            Wanted::Read => self.needs(actor, "read-call"),
            Wanted::List => self.needs(actor, "list-transcriptions"),
            Wanted::Update { leaves, is_empty, custom } => {
                if *is_empty || *custom {
                    self.needs(actor, "update-call")?;
                }
                if !is_empty {
                    self.needs(actor, "update-call-settings")?;
                }
                let own = leaves.over(self.own);
                if !own.heard.over(self.of_type.heard).is_known() {
                    return Err(Refusal::Input);
                }
                self.own = own;
                self.cause.is_updated = true;
                self.settings_change(leaves.heard);
                Ok(())
            }
            Wanted::Members { update, remove } => {
                self.needs(actor, "update-call-member")?;
                self.may_give(actor, update)?;
                for (user_id, role) in update {
                    let known = self.members.insert(user_id.clone(), role.clone());
                    let told = if known.is_some() { &mut self.cause.changed } else { &mut self.cause.added };
                    told.push(user_id.clone());
                }
                for user_id in remove {
                    if self.members.remove(user_id).is_some() {
                        self.cause.removed.push(user_id.clone());
                    }
                }
                Ok(())
            }
            Wanted::Permissions { user_id, role, grant, revoke } => {
                self.needs(actor, "update-call-permissions")?;
                let of = self.permissions.entry(user_id.clone()).or_default();
                of.extend(grant.iter().map(|name| (plain(name).to_string(), true)));
                of.extend(revoke.iter().map(|name| (plain(name).to_string(), false)));
                self.cause.permissions = Some((user_id.clone(), self.capabilities(user_id, role, None)));
                Ok(())
            }
            Wanted::Join => {
                let Actor::User { user, .. } = actor else { return Err(Refusal::NotAllowed) };
                self.needs(actor, "join-call")?;
                self.needs(actor, "send-audio")?;
                if self.is_ended {
                    self.needs(actor, "join-ended-call")?;
                }
                self.joins(&user.id);
                Ok(())
            }
            Wanted::Start { process, heard, with_other, storage } => {
                let all: Vec<_> = [*process].into_iter().chain(with_other.then_some(other(*process))).collect();
                all.iter().try_for_each(|process| self.needs(actor, start_of(*process)))?;
                let is_disabled = all.iter().any(|process| self.leaves().mode_of(*process) == "disabled");
                let heard = heard.over(self.heard.unwrap_or(self.leaves().heard));
                if self.is_ended || is_disabled || self.runs(*process) || !heard.is_known() {
                    return Err(Refusal::Input);
                }
                self.opens_session();
                self.heard = Some(heard);
                self.cause.storage = storage.clone().or(self.storage_of_type.clone());
                self.starts(all);
                Ok(())
            }
            Wanted::Stop { process, with_other } => {
                self.needs(actor, stop_of(*process))?;
                if *with_other {
                    self.needs(actor, stop_of(other(*process)))?;
                }
                if !self.runs(*process) {
                    return Err(Refusal::Input);
                }
                self.stops([*process].into_iter().chain(with_other.then_some(other(*process))));
                Ok(())
            }
            Wanted::Send(caption) => {
                self.needs(actor, "send-closed-captions-call")?;
                if !self.runs(Process::Captions) {
                    return Err(Refusal::Input);
                }
                let running = self.runs_now();
                self.expect_caption(caption.clone(), &running);
                Ok(())
            }
            Wanted::End => {
                self.needs(actor, "end-call")?;
                if !self.is_ended {
                    self.cause.sent_away = self.speakers().into_iter().collect();
                    (self.is_ended, self.cause.is_ended) = (true, true);
                    let away = self.session.iter().flat_map(|session| &session.here).filter(|(_, is_away)| **is_away);
                    self.leave(away.map(|(user_id, _)| user_id.clone()).collect());
                }
                Ok(())
            }
            Wanted::Delete => {
                if matches!(actor, Actor::User { .. }) {
                    return Err(Refusal::NotAllowed);
                }
                self.is_ended = true;
                self.cause.is_deleted = true;
                let here: Vec<_> = self.session.iter().flat_map(|session| session.here.keys().cloned()).collect();
                self.cause.sent_away = here.iter().cloned().collect();
                self.leave(here);
                Ok(())
            }
        }
    }

    /// The session that there is, or a new one.
    fn opens_session(&mut self) {
        let first = Wait::First(self.now.plus_nanos(i64::from(FIRST_S) * 1_000_000_000));
        self.session.get_or_insert_with(|| Session { waiting: Some(first), ..Session::default() });
    }

    fn joins(&mut self, user_id: &str) {
        self.opens_session();
        let Some(session) = &mut self.session else { return };
        session.is_visited = true;
        let before = session.here.insert(user_id.to_string(), false);
        let is_suspended = matches!(session.waiting, Some(Wait::Suspended(_)));
        if !is_suspended || before.is_some() && session.here.values().all(|is_away| !is_away) {
            session.waiting = None;
        }
        if before.is_none() {
            self.cause.joins = Some(user_id.to_string());
        }
        // Whose place is only taken by another connection of theirs is there already.
        if before != Some(false) {
            self.starts_by_itself();
        }
    }

    /// Some leave; behind the last of an ended call its session is over.
    fn leave(&mut self, user_ids: Vec<String>) {
        let timeout_s = self.leaves().timeout_s.unwrap_or(30);
        let Some(session) = &mut self.session else { return };
        session.here.retain(|user_id, _| !user_ids.contains(user_id));
        self.cause.leave.extend(user_ids);
        if session.here.is_empty() {
            session.waiting = Some(Wait::Empty(self.now.plus_nanos(timeout_s * 1_000_000_000)));
            if self.is_ended {
                self.is_over();
            }
        }
    }

    fn is_over(&mut self) {
        self.cause.is_over = true;
        (self.session, self.heard) = (None, None);
        self.running.clear();
    }

    fn starts(&mut self, processes: impl IntoIterator<Item = Process>) {
        for process in processes {
            if self.running.insert(process) {
                self.cause.starts.push(process);
            }
        }
    }

    fn starts_by_itself(&mut self) {
        let leaves = self.leaves();
        let Some(session) = self.session.as_ref().filter(|_| !self.is_ended && !self.speakers().is_empty()) else {
            return;
        };
        let automatic: Vec<_> = PROCESSES
            .into_iter()
            .filter(|process| leaves.mode_of(*process) == "auto-on" && !session.stopped.contains(process))
            .filter(|process| !self.runs(*process))
            .collect();
        if !automatic.is_empty() {
            self.heard.get_or_insert(leaves.heard);
            self.cause.storage = self.storage_of_type.clone();
            self.starts(automatic);
        }
    }

    fn stops(&mut self, processes: impl IntoIterator<Item = Process>) {
        for process in processes {
            if self.running.remove(&process) {
                let run = self.runs.iter_mut().find(|run| run.process == process && run.stopped.is_none());
                run.expect("it was told to run").stopped = Some((self.now, None));
                self.session.as_mut().expect("what runs has a session").stopped.insert(process);
            }
        }
        if self.running.is_empty() {
            self.heard = None;
        }
    }

    fn settings_change(&mut self, said: Heard) {
        self.heard = self.heard.map(|heard| said.over(heard));
        let leaves = self.leaves();
        self.stops(PROCESSES.into_iter().filter(|process| leaves.mode_of(*process) == "disabled"));
        self.starts_by_itself();
    }

    fn expect_caption(&mut self, caption: Caption, of: &[String]) {
        let run = |process| {
            self.runs.iter().find(|run| run.process == process && of.contains(&run.egress_id)).map(|run| &run.egress_id)
        };
        let writes_to = run(Process::Transcription).cloned().filter(|_| !caption.translated);
        let shows = run(Process::Captions).is_some();
        (self.cause.writes_to, self.cause.shows, self.cause.caption) = (writes_to, shows, Some(caption));
    }

    /// A caption is final that opened when these ran.
    pub(super) fn caption(&mut self, caption: Caption, of: &[String]) {
        self.cause = Cause::default();
        self.expect_caption(caption, of);
    }

    pub(super) fn left(&mut self, user_id: &str) {
        self.cause = Cause::default();
        if self.session.as_ref().is_some_and(|session| session.here.contains_key(user_id)) {
            self.leave(vec![user_id.to_string()]);
        }
    }

    pub(super) fn passed(&mut self, mark: u64) {
        self.cause = Cause { passed: Some(mark), ..Cause::default() };
    }

    pub(super) fn type_updated(&mut self, written: Leaves) {
        self.cause = Cause::default();
        self.of_type = written.over(self.of_type);
        self.settings_change(written.heard.without(self.own.heard));
    }

    pub(super) fn failed(&mut self) {
        self.cause = Cause { has_failed: true, ..Cause::default() };
        self.running.clear();
        self.heard = None;
    }

    pub(super) fn stored(&mut self, egress_id: &str, stored: Result<Transcript, String>) {
        self.cause = Cause { stored: Some((egress_id.to_string(), stored)), ..Cause::default() };
    }

    pub(super) fn restarted(&mut self) {
        self.cause = Cause { is_restarted: true, passed: Some(u64::MAX), ..Cause::default() };
        let timeout_s = self.leaves().timeout_s.unwrap_or(30);
        let Some(session) = self.session.as_mut().filter(|session| !session.here.is_empty()) else { return };
        session.here.values_mut().for_each(|is_away| *is_away = true);
        session.waiting = Some(Wait::Suspended(self.now.plus_nanos(timeout_s * 1_000_000_000)));
        session.is_visited = false;
        if self.is_ended {
            self.leave(self.session.iter().flat_map(|session| session.here.keys().cloned()).collect());
        }
    }

    pub(super) fn tick(&mut self) {
        self.cause = Cause::default();
        let Some(session) = &mut self.session else { return };
        match session.waiting {
            Some(Wait::First(until) | Wait::Empty(until)) if until <= self.now => self.is_over(),
            Some(Wait::Suspended(until)) if until <= self.now => {
                session.waiting = None;
                let is_visited = session.is_visited;
                let away = session.here.iter().filter(|(_, is_away)| **is_away).map(|(user_id, _)| user_id.clone());
                let away = away.collect();
                self.leave(away);
                if !is_visited && self.session.as_ref().is_some_and(|session| session.here.is_empty()) {
                    self.is_over();
                }
            }
            _ => {}
        }
    }
}
