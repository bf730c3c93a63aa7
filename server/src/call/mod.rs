//! Calls: who may do what, who is there, and whether they are transcribed and captioned.
//!
//! In: [`Command`]s of somebody, and [`Input`]s — what happened to connections, tracks and files. Out: [`Event`]s for those who
//! watch, and [`Effect`]s for the host to bring about.
//!
//! The one rule is that of [`cuewire::Session`]: change something with [`Call::handle_command`] or [`Call::handle_input`], then
//! drain [`Call::poll_output`]. No clock is read, nothing is sent or stored: [`Env::now`] is an argument, and the whole state
//! is [`Serialize`], so that a host writes it and the events that it caused in one commit.
//!
//! # A host's part
//!
//! A participant is a connection that sends audio, and a track of the engine. [`Effect::Hear`] says how all tracks of the
//! call are to be heard; captions come back as [`Input::Caption`], and a track's end, once its last caption is there, as
//! [`Input::Left`]. At [`Call::wake_up`] an [`Input::Tick`] is due.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use cuewire::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub mod grants;
mod process;
mod protocol;
mod session;
pub mod settings;
#[cfg(test)]
mod tests;

pub use process::{Caption, Interim, Process, Run, Runs};
pub use protocol::{CallError, Command, Effect, Env, Event, Input, Output, Transcript};
pub use session::{Participant, Session, Waiting};

use grants::{Capabilities, Capability, Changed, Grants};
use settings::{Leaves, Mode, Recognition, RecognitionPatch, Settings};

/// Longest name of a call type or a call.
pub(crate) const MAX_ID_CHARS: usize = 64;
/// The role of a member of whom none is said.
const MEMBER: &str = "call_member";

/// Which call: its type and its id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cid {
    call_type: String,
    id: String,
}

impl Cid {
    /// Of both parts, each of 1 – 64 letters, digits, `_` and `-`.
    ///
    /// # Errors
    /// [`CallError::Input`].
    pub fn new(call_type: &str, id: &str) -> Result<Self, CallError> {
        for (what, name) in [("the call's type", call_type), ("the call's id", id)] {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if name.is_empty() || name.len() > MAX_ID_CHARS || !name.chars().all(is_plain) {
                let shown: String = name.chars().take(100).collect();
                let why = format!("{what} is `{shown}`: allowed are 1 – {MAX_ID_CHARS} letters, digits, `_` and `-`");
                return Err(CallError::Input(why));
            }
        }
        Ok(Self { call_type: call_type.to_string(), id: id.to_string() })
    }

    /// The call type's name.
    #[must_use]
    pub fn call_type(&self) -> &str {
        &self.call_type
    }

    /// The call's id within its type.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl fmt::Display for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.call_type, self.id)
    }
}

/// What calls of one kind have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallType {
    /// Its name.
    pub name: String,
    /// What calls override.
    pub settings: Settings,
    /// Who may do what.
    pub grants: Grants,
    /// Which storage transcripts go to, where it is not the default one.
    pub external_storage: Option<String>,
    /// What clients are notified of: kept as it was set.
    pub notification_settings: Map<String, Value>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl CallType {
    /// One without settings of its own, with the default grants.
    #[must_use]
    pub fn new(name: &str, now: Timestamp) -> Self {
        Self {
            name: name.to_string(),
            settings: Settings::default(),
            grants: Grants::default_for(name),
            external_storage: None,
            notification_settings: Map::new(),
            created_at: now,
            updated_at: now,
        }
    }
}

/// Somebody whom the host knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Who.
    pub id: String,
    /// Their role everywhere.
    pub role: String,
}

/// Who commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// The platform's own server: it may do everything.
    Server {
        /// On whose behalf it acts, where it said so.
        user_id: Option<String>,
    },
    /// Somebody with a token.
    User {
        /// Who.
        user: User,
        /// The role that their token grants in this call.
        token_role: Option<String>,
    },
}

impl Actor {
    /// Whose id it acts under.
    #[must_use]
    pub fn user_id(&self) -> Option<&str> {
        match self {
            Self::Server { user_id } => user_id.as_deref(),
            Self::User { user, .. } => Some(&user.id),
        }
    }
}

/// Somebody who belongs to a call, there or not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Their role in the call.
    pub role: Option<String>,
    /// Whatever the platform keeps here.
    pub custom: Map<String, Value>,
}

/// A member, and since when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// What was said of them.
    pub member: Member,
    /// When they were added.
    pub created_at: Timestamp,
    /// When that was last changed.
    pub updated_at: Timestamp,
}

/// What a call begins with.
#[derive(Clone, Debug, Default)]
pub struct NewCall {
    /// Its members.
    pub members: Vec<(String, Member)>,
    /// Settings of its own.
    pub settings: Settings,
    /// Whatever the platform keeps here.
    pub custom: Map<String, Value>,
    /// When it is to start.
    pub starts_at: Option<Timestamp>,
    /// Whose it is, among several customers of a platform.
    pub team: Option<String>,
}

/// One call. See the module's documentation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    cid: Cid,
    created_by: String,
    created_at: Timestamp,
    updated_at: Timestamp,
    starts_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    team: Option<String>,
    custom: Map<String, Value>,
    settings: Settings,
    members: BTreeMap<String, Membership>,
    permissions: BTreeMap<String, Changed>,
    session: Option<Session>,
    runs: Runs,
    #[serde(skip)]
    outputs: VecDeque<Output>,
}

impl Call {
    /// A call that was not there.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn create(env: &mut Env<'_>, actor: &Actor, cid: Cid, new: NewCall) -> Result<Self, CallError> {
        let Some(created_by) = actor.user_id().map(str::to_string) else {
            return Err(CallError::Input("a call needs somebody who created it: created_by_id".into()));
        };
        let mut call = Self {
            cid,
            created_by: created_by.clone(),
            created_at: env.now,
            updated_at: env.now,
            starts_at: new.starts_at,
            ended_at: None,
            team: new.team,
            custom: new.custom,
            settings: new.settings,
            members: BTreeMap::new(),
            permissions: BTreeMap::new(),
            session: None,
            runs: Runs::default(),
            outputs: VecDeque::new(),
        };
        if let Actor::User { user, token_role } = actor {
            // Not as its host, who somebody becomes by this.
            let roles = [Some(&user.role), token_role.as_ref()].into_iter().flatten().map(String::as_str);
            if !env.call_type.grants.of(roles).contains(Capability::CreateCall.as_str()) {
                return Err(not_allowed(actor, Capability::CreateCall, &call.cid));
            }
            if !call.settings.is_empty() {
                call.require(env, actor, Capability::UpdateCallSettings)?;
            }
        }
        call.require_roles(env, actor, &new.members)?;
        call.check_settings(env, &call.settings)?;
        let membership = |member| Membership { member, created_at: env.now, updated_at: env.now };
        call.members = new.members.into_iter().map(|(user_id, member)| (user_id, membership(member))).collect();
        call.tell(Event::Created);
        Ok(call)
    }

    /// Does what somebody wants, if they may. Drain [`Call::poll_output`] afterwards.
    ///
    /// # Errors
    /// [`CallError`]: nothing has changed.
    pub fn handle_command(&mut self, env: &mut Env<'_>, actor: &Actor, command: Command) -> Result<(), CallError> {
        match command {
            Command::Read => self.require(env, actor, Capability::ReadCall),
            Command::Update { settings, custom, starts_at } => self.update(env, actor, settings, custom, starts_at),
            Command::UpdateMembers { update, remove } => self.update_members(env, actor, update, remove),
            Command::UpdatePermissions { user, grant, revoke } => {
                self.require(env, actor, Capability::UpdateCallPermissions)?;
                self.permissions.entry(user.id.clone()).or_default().change(&grant, &revoke);
                let own_capabilities = self.capabilities(env, &user, None);
                self.tell(Event::PermissionsUpdated { user_id: user.id, own_capabilities });
                Ok(())
            }
            Command::Join => self.join(env, actor),
            Command::Start { process, recognition, with_other, storage } => {
                self.start(env, actor, process, &recognition, with_other, storage)
            }
            Command::Stop { process, with_other } => self.stop(env, actor, process, with_other),
            Command::SendCaption(caption) => self.send_caption(env, actor, caption),
            Command::ListTranscriptions => self.require(env, actor, Capability::ListTranscriptions),
            Command::MarkEnded => {
                self.require(env, actor, Capability::EndCall)?;
                if self.ended_at.is_none() {
                    self.ended_at = Some(env.now);
                    self.tell(Event::Ended { by: actor.user_id().map(str::to_string) });
                    self.empty_session(env);
                }
                Ok(())
            }
            Command::Delete => {
                self.require_server(actor, "delete a call")?;
                self.ended_at = self.ended_at.or(Some(env.now));
                self.end_session_at_once(env);
                self.tell(Event::Deleted);
                Ok(())
            }
        }
    }

    /// Takes what happened. Drain [`Call::poll_output`] afterwards.
    pub fn handle_input(&mut self, env: &mut Env<'_>, input: Input) {
        match input {
            Input::Left { user_id } => self.left(env, &user_id),
            Input::Caption { caption, mark } => self.heard(caption, mark),
            Input::Passed { mark } => self.passed(env, mark),
            Input::TypeUpdated(settings) => {
                // What does not parse was refused when it was written.
                let (theirs, own) = (settings.leaves().unwrap_or_default(), self.settings.leaves().unwrap_or_default());
                self.settings_changed(env, theirs.recognition.without(&own.recognition));
            }
            Input::Failed { error } => self.failed(env, &error),
            Input::TranscriptStored { egress_id, transcript } => {
                self.tell(Event::TranscriptionReady { egress_id, transcript });
            }
            Input::TranscriptFailed { egress_id, error } => {
                self.tell(Event::ProcessFailed { process: Process::Transcription, egress_id, error });
            }
            Input::Restarted => self.suspend(env),
            Input::Tick => self.tick(env),
        }
    }

    /// What is to be said and done; `None` when that was all.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When an [`Input::Tick`] is due.
    #[must_use]
    pub fn wake_up(&self) -> Option<Timestamp> {
        self.session.as_ref()?.waiting().map(|waiting| waiting.until())
    }

    /// Which call it is.
    #[must_use]
    pub fn cid(&self) -> &Cid {
        &self.cid
    }

    /// Who created it: its host.
    #[must_use]
    pub fn created_by(&self) -> &str {
        &self.created_by
    }

    /// When it was created.
    #[must_use]
    pub fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// When its data were last changed.
    #[must_use]
    pub fn updated_at(&self) -> Timestamp {
        self.updated_at
    }

    /// When it is to start.
    #[must_use]
    pub fn starts_at(&self) -> Option<Timestamp> {
        self.starts_at
    }

    /// When it was ended.
    #[must_use]
    pub fn ended_at(&self) -> Option<Timestamp> {
        self.ended_at
    }

    /// Whose it is, among several customers of a platform.
    #[must_use]
    pub fn team(&self) -> Option<&str> {
        self.team.as_deref()
    }

    /// Whatever the platform keeps here.
    #[must_use]
    pub fn custom(&self) -> &Map<String, Value> {
        &self.custom
    }

    /// Its own settings; [`Call::settings_in`] are those in force.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Its members.
    #[must_use]
    pub fn members(&self) -> &BTreeMap<String, Membership> {
        &self.members
    }

    /// The session, while there is one.
    #[must_use]
    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// The processes.
    #[must_use]
    pub fn runs(&self) -> &Runs {
        &self.runs
    }

    /// The settings in force: those of the type, overridden by the call's own.
    #[must_use]
    pub fn settings_in(&self, call_type: &CallType) -> Settings {
        call_type.settings.overridden(&self.settings)
    }

    /// What somebody may in this call.
    #[must_use]
    pub fn capabilities(&self, env: &Env<'_>, user: &User, token_role: Option<&str>) -> Capabilities {
        let member = self.members.get(&user.id);
        let member_role = member.map(|membership| membership.member.role.as_deref().unwrap_or(MEMBER));
        let host = (user.id == self.created_by).then_some("host");
        let roles = [Some(user.role.as_str()), member_role, token_role, host];
        let granted = env.call_type.grants.of(roles.into_iter().flatten());
        match self.permissions.get(&user.id) {
            Some(changed) => changed.applied_to(granted),
            None => granted,
        }
    }

    fn may(&self, env: &Env<'_>, actor: &Actor, capability: Capability) -> bool {
        match actor {
            Actor::Server { .. } => true,
            Actor::User { user, token_role } => {
                self.capabilities(env, user, token_role.as_deref()).contains(capability.as_str())
            }
        }
    }

    fn require(&self, env: &Env<'_>, actor: &Actor, capability: Capability) -> Result<(), CallError> {
        if self.may(env, actor, capability) { Ok(()) } else { Err(not_allowed(actor, capability, &self.cid)) }
    }

    /// A member's role that grants more than one may oneself is a change of what somebody may.
    fn require_roles(&self, env: &Env<'_>, actor: &Actor, members: &[(String, Member)]) -> Result<(), CallError> {
        let Actor::User { user, token_role } = actor else { return Ok(()) };
        let given = members.iter().filter_map(|(_, member)| member.role.as_deref()).filter(|role| *role != MEMBER);
        let own = self.capabilities(env, user, token_role.as_deref());
        if env.call_type.grants.of(given).is_subset(&own) {
            return Ok(());
        }
        self.require(env, actor, Capability::UpdateCallPermissions)
    }

    fn require_server(&self, actor: &Actor, what: &str) -> Result<(), CallError> {
        match actor {
            Actor::Server { .. } => Ok(()),
            Actor::User { .. } => Err(CallError::NotAllowed(format!("only a server's token may {what}"))),
        }
    }

    /// The leaves in force. Each was checked when it was written.
    fn leaves(&self, call_type: &CallType) -> Leaves {
        self.settings_in(call_type).leaves().unwrap_or_default()
    }

    /// How speech is recognised by the settings.
    fn recognition(&self, call_type: &CallType) -> Recognition {
        let mut recognition = Recognition::default();
        self.leaves(call_type).recognition.apply_to(&mut recognition);
        recognition
    }

    /// Whether the call could be heard with `own` as its settings.
    fn check_settings(&self, env: &Env<'_>, own: &Settings) -> Result<(), CallError> {
        let mut recognition = Recognition::default();
        env.call_type.settings.overridden(own).leaves()?.recognition.apply_to(&mut recognition);
        (env.check)(&recognition).map_err(CallError::Input)
    }

    fn update(
        &mut self,
        env: &mut Env<'_>,
        actor: &Actor,
        settings: Settings,
        custom: Option<Map<String, Value>>,
        starts_at: Option<Timestamp>,
    ) -> Result<(), CallError> {
        if settings.is_empty() || custom.is_some() || starts_at.is_some() {
            self.require(env, actor, Capability::UpdateCall)?;
        }
        if !settings.is_empty() {
            self.require(env, actor, Capability::UpdateCallSettings)?;
        }
        let own = self.settings.overridden(&settings);
        self.check_settings(env, &own)?;
        let patch = settings.leaves()?.recognition;
        self.settings = own;
        self.custom = custom.unwrap_or(std::mem::take(&mut self.custom));
        self.starts_at = starts_at.or(self.starts_at);
        self.updated_at = env.now;
        self.tell(Event::Updated);
        self.settings_changed(env, patch);
        Ok(())
    }

    /// What was written explicitly reaches what runs; modes start and stop.
    fn settings_changed(&mut self, env: &mut Env<'_>, patch: RecognitionPatch) {
        self.recognise_also(&patch);
        let leaves = self.leaves(env.call_type);
        self.stop_runs(env, leaves.processes_in(Mode::Disabled));
        self.start_automatic(env);
    }

    fn update_members(
        &mut self,
        env: &Env<'_>,
        actor: &Actor,
        update: Vec<(String, Member)>,
        remove: Vec<String>,
    ) -> Result<(), CallError> {
        self.require(env, actor, Capability::UpdateCallMember)?;
        self.require_roles(env, actor, &update)?;
        let (mut added, mut updated) = (Vec::new(), Vec::new());
        for (user_id, member) in update {
            let known = self.members.get(&user_id);
            let created_at = known.map_or(env.now, |known| known.created_at);
            if known.is_some() { &mut updated } else { &mut added }.push(user_id.clone());
            self.members.insert(user_id, Membership { member, created_at, updated_at: env.now });
        }
        let removed: Vec<_> = remove.into_iter().filter(|user_id| self.members.remove(user_id).is_some()).collect();
        for (user_ids, event) in [
            (added, (|user_ids| Event::MembersAdded { user_ids }) as fn(_) -> _),
            (updated, |user_ids| Event::MembersUpdated { user_ids }),
            (removed, |user_ids| Event::MembersRemoved { user_ids }),
        ] {
            if !user_ids.is_empty() {
                self.tell(event(user_ids));
            }
        }
        Ok(())
    }

    /// Says something, with the call as it is now.
    fn tell(&mut self, event: Event) {
        let now = Self { outputs: VecDeque::new(), ..self.clone_without_outputs() };
        self.outputs.push_back(Output::Event(Box::new(now), event));
    }

    fn clone_without_outputs(&mut self) -> Self {
        let outputs = std::mem::take(&mut self.outputs);
        let now = self.clone();
        self.outputs = outputs;
        now
    }

    fn want(&mut self, effect: Effect) {
        self.outputs.push_back(Output::Effect(effect));
    }
}

fn not_allowed(actor: &Actor, capability: Capability, cid: &Cid) -> CallError {
    let who = actor.user_id().unwrap_or("somebody");
    CallError::NotAllowed(format!("{who} may not do this in {cid}: the capability {} is missing", capability.as_str()))
}
