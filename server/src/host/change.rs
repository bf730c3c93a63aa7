//! One change of everything it concerns, within one transaction.
//!
//! In: what somebody wants, or what happened. Out: calls, call types, users and settings as they are written, and an [`Outcome`]: what
//! is to be done once that is committed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cuewire::engine::Ledger;
use cuewire::time::Timestamp;
use serde_json::{Value, json};

use super::Host;
use crate::app::AppSettings;
use crate::call::grants::Capability;
use crate::call::settings::{Recognition, Settings};
use crate::call::{Actor, Call, CallError, CallType, Cid, Command, Effect, Env, Input, Session, Transcript, User};
use crate::clock::{new_id, now};
use crate::events::Text;
use crate::limits::Limits;
use crate::stages::{Seated, Taken};
use crate::storage::StorageConfig;
use crate::store::{Outgoing, Store, StoreError, StoredTranscript};
use crate::user::Profile;
use crate::wire::error::{ApiError, Code};
use crate::wire::render;

/// What a job wants done once it is committed.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) posts: Vec<Post>,
    pub(super) effects: Vec<(Cid, Effect)>,
    /// Calls that are watched by somebody more.
    pub(super) watched: Vec<Cid>,
    /// Connections that may see no more, and participants who may no longer speak.
    pub(super) lost: Vec<String>,
    pub(super) silenced: Vec<(Cid, String)>,
    /// Calls and their sessions that are over.
    pub(super) over: Vec<(Cid, String)>,
    /// Calls, and whether they are in session from now on.
    pub(super) in_session: Vec<(Cid, bool)>,
    /// Types of events that happened.
    pub(super) happened: Vec<String>,
    /// Whether a transcript can be finished.
    pub(super) finished: bool,
    /// Events, and the hooks that want them.
    pub(super) events: Vec<(Arc<Outgoing>, Vec<String>)>,
    /// How many calls there are more, or fewer.
    pub(super) calls: i64,
    /// Which hooks there are.
    pub(super) configured: Option<Configured>,
    /// Seats of those who join; given back where this is dropped.
    pub(super) taken: Vec<Taken>,
}

/// Which hooks there are from some commit on.
pub(crate) struct Configured {
    pub(crate) app: Arc<AppSettings>,
    /// Of each hook: calls of which something waits.
    pub(crate) waiting: HashMap<String, Vec<Cid>>,
}

impl Configured {
    /// What is on disk.
    pub(super) fn read(store: &Store) -> Result<Self, StoreError> {
        let (app, mut waiting) = (store.app()?, HashMap::new());
        // Also of those that have a lane: by the time that this is carried out they may have lost it.
        for hook in app.hooks.iter().filter(|hook| hook.enabled) {
            waiting.insert(hook.id.clone(), store.calls_waiting(&hook.id)?);
        }
        Ok(Self { app, waiting })
    }
}

/// An event, and who is told.
pub(super) struct Post {
    pub(super) connections: Vec<String>,
    pub(super) text: Text,
    /// What the next such thing makes up for.
    pub(super) is_interim: bool,
}

/// Whether something may be kept that takes so much.
fn check_kept(what: &str, name: &str, bytes: usize, most: u32) -> Result<(), ApiError> {
    if bytes <= most as usize {
        return Ok(());
    }
    let name: String = name.chars().take(100).collect();
    Err(ApiError::new(Code::Input, format!("{what} {name} would take {bytes} bytes: allowed are {most}")))
}

/// One change of everything it concerns.
pub(crate) struct Change<'a> {
    pub(super) host: &'a Host,
    /// The database, within one transaction.
    pub(crate) store: &'a Store,
    /// UTC.
    pub(crate) now: Timestamp,
    pub(super) ledger: Option<Ledger>,
    pub(super) outcome: Outcome,
}

fn participants(call: &Call) -> usize {
    call.session().map_or(0, |session| session.participants().len())
}

impl<'a> Change<'a> {
    pub(super) fn new(host: &'a Host, store: &'a Store) -> Self {
        Self { host, store, now: now(), ledger: None, outcome: Outcome::default() }
    }

    /// Somebody, known or not. Of whom the database cannot tell has a role that is granted nothing.
    pub(crate) fn profile(&self, id: &str) -> Profile {
        match self.store.user(id) {
            Ok(Some(profile)) => profile,
            Ok(None) => Profile::unknown(id, self.now),
            Err(error) => {
                tracing::error!("{error}");
                let mut profile = Profile::unknown(id, self.now);
                profile.user.role.clear();
                profile
            }
        }
    }

    /// Writes somebody.
    pub(crate) fn put_user(&mut self, profile: Profile) -> Result<(), ApiError> {
        let bytes = self.store.put_user(&profile)?;
        check_kept("the user", &profile.user.id, bytes, self.limits().user_bytes)
    }

    /// Somebody is known from now on: who creates a call, joins it or is its member.
    pub(crate) fn keep_user(&mut self, id: &str) -> Result<(), ApiError> {
        match self.store.user(id)? {
            Some(_) => Ok(()),
            None => self.put_user(Profile::unknown(id, self.now)),
        }
    }

    /// A call type.
    pub(crate) fn call_type(&self, name: &str) -> Result<CallType, ApiError> {
        let missing = || ApiError::new(Code::DoesNotExist, format!("the call type {name} does not exist"));
        self.store.call_type(name)?.ok_or_else(missing)
    }

    /// A call.
    pub(crate) fn call(&self, cid: &Cid) -> Result<Call, ApiError> {
        let missing = || ApiError::new(Code::DoesNotExist, format!("the call {cid} does not exist"));
        self.store.call(cid)?.ok_or_else(missing)
    }

    /// Does something with a call, and keeps what it has become. Gives the bytes that it takes.
    fn act(
        &mut self,
        call: &mut Call,
        act: impl FnOnce(&mut Call, &mut Env<'_>) -> Result<(), CallError>,
    ) -> Result<usize, ApiError> {
        let call_type = self.call_type(call.cid().call_type())?;
        let session_before = call.session().map(|session| session.id().to_string());
        self.with_env(&call_type, |env| act(call, env))?;
        self.drain(call, &call_type)?;
        let bytes = self.store.put_call(call)?;
        if session_before.is_some() != call.session().is_some() {
            self.outcome.in_session.push((call.cid().clone(), call.session().is_some()));
        }
        if let Some(before) = session_before.filter(|id| call.session().is_none_or(|session| session.id() != id)) {
            self.store.forget_captions(call.cid(), &before)?;
            self.outcome.over.push((call.cid().clone(), before));
        }
        Ok(bytes)
    }

    /// Tells a call what happened. One that was deleted meanwhile needs to know nothing.
    pub(crate) fn tell(&mut self, cid: &Cid, input: Input) -> Result<(), ApiError> {
        self.store.call(cid)?.map_or(Ok(()), |mut call| self.input(&mut call, input))
    }

    /// Tells what became of the file of a run. Those who watch are told where it was a run of the call that they watch, and not
    /// of one that was deleted, and made anew under its id; hooks are told in any case.
    pub(crate) fn tell_of_file(
        &mut self,
        of: &StoredTranscript,
        outcome: Result<Transcript, String>,
    ) -> Result<(), ApiError> {
        let (cid, egress_id) = (&of.cid, of.egress_id.clone());
        if let Some(mut call) = self.store.call(cid)?.filter(|call| call.created_at() <= of.start_time) {
            let input = match outcome {
                Ok(transcript) => Input::TranscriptStored { egress_id, transcript },
                Err(error) => Input::TranscriptFailed { egress_id, error },
            };
            return self.input(&mut call, input);
        }
        let outcome = outcome.as_ref().map_err(String::as_str);
        let rendered = render::file_event(cid, &egress_id, outcome, self.now);
        self.put_event(cid, &rendered)
    }

    pub(super) fn input(&mut self, call: &mut Call, input: Input) -> Result<(), ApiError> {
        self.act(call, |call, env| {
            call.handle_input(env, input);
            Ok(())
        })
        .map(drop)
    }

    /// Does what somebody wants with a call, and gives the call.
    pub(crate) fn command(&mut self, cid: &Cid, actor: &Actor, command: Command) -> Result<Call, ApiError> {
        let is_read = matches!(command, Command::Read | Command::ListTranscriptions);
        let is_deleted = matches!(command, Command::Delete);
        let is_of_access = matches!(command, Command::UpdatePermissions { .. } | Command::UpdateMembers { .. });
        if is_read {
            return self.could(cid, actor, command);
        }
        // What ends a call, or happens in it, is done however much it takes.
        let is_written = matches!(
            command,
            Command::Update { .. } | Command::UpdateMembers { .. } | Command::UpdatePermissions { .. }
        );
        let mut call = self.call(cid)?;
        let is_join = matches!(command, Command::Join);
        let before = participants(&call);
        let bytes = self.act(&mut call, |call, env| call.handle_command(env, actor, command))?;
        if is_written {
            check_kept("the call", &cid.to_string(), bytes, self.limits().call_bytes)?;
        }
        if is_join && participants(&call) > before {
            self.check_room(&call, participants(&call), actor)?;
        }
        if is_deleted {
            self.outcome.calls -= 1;
            // Its runs go on to their files by themselves.
            self.store.delete_call(cid)?;
            self.outcome.in_session.push((cid.clone(), false));
        }
        if is_of_access {
            self.check_speakers(&call)?;
        }
        Ok(call)
    }

    /// Gives somebody who joins their seat: before the commit, so that the track is there when the join's effects are carried out.
    /// `None` where the server is shutting down.
    pub(crate) fn seat(
        &mut self,
        host: &Arc<Host>,
        cid: &Cid,
        session_id: &str,
        user_id: &str,
    ) -> Result<Option<Seated>, ApiError> {
        let seated = host.stages.seat(cid, session_id, user_id);
        let seated = seated.map_err(|error| ApiError::new(Code::Internal, error.to_string()))?;
        if let Some(seated) = &seated {
            self.outcome.taken.push(Taken::new(
                host.stages.clone(),
                cid.clone(),
                user_id.to_string(),
                seated.connection,
            ));
        }
        Ok(seated)
    }

    /// Whether somebody who is new in a session can be heard.
    fn check_room(&self, call: &Call, participants: usize, actor: &Actor) -> Result<(), ApiError> {
        let most = self.limits().participants_per_call as usize;
        if participants > most {
            return Err(ApiError::new(Code::Full, format!("the call is full: {most} participants are there")));
        }
        self.host.stages.check_room(call.cid(), actor.user_id().unwrap_or_default())
    }

    /// What may come.
    pub(crate) fn limits(&self) -> &'a Limits {
        &self.host.limits
    }

    /// Whether somebody could do what they want with a call, which is not done; gives the call as it would be.
    pub(crate) fn could(&self, cid: &Cid, actor: &Actor, command: Command) -> Result<Call, ApiError> {
        let (mut call, call_type) = (self.call(cid)?, self.call_type(cid.call_type())?);
        self.with_env(&call_type, |env| call.handle_command(env, actor, command))?;
        Ok(call)
    }

    /// Whether somebody could join, which is not done.
    pub(crate) fn could_join(&self, cid: &Cid, actor: &Actor) -> Result<(), ApiError> {
        let before = participants(&self.call(cid)?);
        let call = self.could(cid, actor, Command::Join)?;
        if participants(&call) > before {
            self.check_room(&call, participants(&call), actor)?;
        }
        Ok(())
    }

    /// A call that was not there.
    pub(crate) fn create(&mut self, actor: &Actor, cid: &Cid, new: crate::call::NewCall) -> Result<Call, ApiError> {
        let call_type = self.call_type(cid.call_type())?;
        // Creations in one commit do not see each other: a few more may be let in.
        let (there, most) = (self.host.calls.load(Ordering::Relaxed), self.limits().calls);
        if there >= i64::from(most) {
            return Err(ApiError::new(Code::Input, format!("there are {there} calls, and may be {most}: delete some")));
        }
        let mut call = self.with_env(&call_type, |env| Call::create(env, actor, cid.clone(), new))?;
        self.outcome.calls += 1;
        self.drain(&mut call, &call_type)?;
        let bytes = self.store.put_call(&call)?;
        check_kept("the call", &cid.to_string(), bytes, self.limits().call_bytes)?;
        Ok(call)
    }

    /// Writes a call type, and tells the calls that are in session.
    pub(crate) fn put_call_type(&mut self, call_type: &CallType, written: &Settings) -> Result<(), ApiError> {
        let bytes = self.store.put_call_type(call_type)?;
        check_kept("the call type", &call_type.name, bytes, self.limits().call_bytes)?;
        for mut call in self.store.calls_of(&call_type.name)? {
            if !written.is_empty() {
                self.input(&mut call, Input::TypeUpdated(written.clone()))?;
            }
            self.check_speakers(&call)?;
        }
        let watched = self.host.hub.watched_of(&call_type.name);
        self.check_watchers(watched)
    }

    /// Participants who may no longer speak are sent away.
    fn check_speakers(&mut self, call: &Call) -> Result<(), ApiError> {
        let Some(session) = call.session() else { return Ok(()) };
        for participant in session.participants().values() {
            let user = self.profile(&participant.user_id).user;
            let role = participant.token_role.as_deref();
            let may = |capability| self.may(call, &user, role, capability);
            if !(may(Capability::JoinCall)? && may(Capability::SendAudio)?) {
                self.outcome.silenced.push((call.cid().clone(), user.id));
            }
        }
        Ok(())
    }

    /// Connections that may no longer see what they watch lose it.
    pub(crate) fn check_watchers(&mut self, calls: impl IntoIterator<Item = Cid>) -> Result<(), ApiError> {
        for cid in calls {
            if let Some(call) = self.store.call(&cid)? {
                self.readers(&call, false)?;
            }
        }
        Ok(())
    }

    /// Where users watch or speak, whether they still may.
    pub(crate) fn check_users(&mut self, user_ids: &[&str]) -> Result<(), ApiError> {
        for call in self.store.calls_in_session()? {
            let participants = call.session().map(Session::participants);
            if participants.is_some_and(|there| user_ids.iter().any(|user_id| there.contains_key(*user_id))) {
                self.check_speakers(&call)?;
            }
        }
        for user_id in user_ids {
            self.check_watchers(self.host.hub.watched_by(user_id))?;
        }
        Ok(())
    }

    /// From here on, a connection is told of a call: also of what jobs behind this one do within the same commit.
    pub(crate) fn watch(&mut self, connection: &str, cid: &Cid) {
        if self.host.hub.watch(connection, cid) {
            self.outcome.watched.push(cid.clone());
        }
    }

    /// What somebody may in a call.
    pub(crate) fn own_capabilities(&self, call: &Call, actor: &Actor) -> Result<Value, ApiError> {
        let call_type = self.call_type(call.cid().call_type())?;
        Ok(match actor {
            Actor::Server { .. } => json!(Capability::ALL.map(Capability::as_str)),
            Actor::User { user, token_role } => {
                json!(self.with_env(&call_type, |env| call.capabilities(env, user, token_role.as_deref())))
            }
        })
    }

    /// Whether somebody may do something in a call.
    pub(crate) fn may(
        &self,
        call: &Call,
        user: &User,
        token_role: Option<&str>,
        capability: Capability,
    ) -> Result<bool, ApiError> {
        let call_type = self.call_type(call.cid().call_type())?;
        let capabilities = self.with_env(&call_type, |env| call.capabilities(env, user, token_role));
        Ok(capabilities.contains(capability.as_str()))
    }

    /// Whether speech can be recognised as these settings say.
    pub(crate) fn check_recognition(&self, settings: &Settings) -> Result<(), ApiError> {
        let input = |why: String| ApiError::new(Code::Input, why);
        let mut recognition = Recognition::default();
        settings.leaves().map_err(|error| input(error.to_string()))?.recognition.apply_to(&mut recognition);
        self.host.stages.check(&recognition).map_err(input)
    }

    pub(super) fn with_env<R>(&self, call_type: &CallType, act: impl FnOnce(&mut Env<'_>) -> R) -> R {
        let check = |recognition: &Recognition| self.host.stages.check(recognition);
        let mut env = Env {
            now: self.now,
            call_type,
            new_id: &mut new_id,
            check: &check,
            first_participant_s: self.host.first_participant_s,
        };
        act(&mut env)
    }

    /// How a storage is reached.
    pub(crate) fn storage(&self, name: &str) -> Result<Option<StorageConfig>, ApiError> {
        match self.host.storages.configured().get(name) {
            Some(config) => Ok(Some(config.clone())),
            None => Ok(self.store.storage(name)?),
        }
    }

    /// All storages, by name.
    pub(crate) fn storages(&self) -> Result<BTreeMap<String, StorageConfig>, ApiError> {
        let mut all: BTreeMap<_, _> = self.store.storages()?.into_iter().collect();
        all.extend(self.host.storages.configured().clone());
        Ok(all)
    }

    /// Writes the platform's settings.
    pub(crate) fn put_app(&mut self, app: &AppSettings) -> Result<(), ApiError> {
        let before = self.store.app()?;
        for gone in before.hooks.iter().filter(|hook| app.hook(&hook.id).is_none()) {
            self.store.forget_hook(&gone.id)?;
        }
        self.store.put_app(app)?;
        self.outcome.configured = Some(Configured::read(self.store)?);
        Ok(())
    }

    /// Who commands, by a user's token.
    pub(crate) fn user_actor(&self, token: &crate::wire::token::UserToken, cid: &Cid) -> Actor {
        let user: User = self.profile(&token.user_id).user;
        Actor::User { user, token_role: token.role_in(&cid.to_string()).map(str::to_string) }
    }
}
