//! What a call's host does: state on disk, events to who watches, effects to tracks and transcripts.
//!
//! In: jobs, each one change of everything it concerns ([`Change`]). Out: their answers, once they are on disk.
//!
//! All jobs run one behind the other on the store's thread. What a job says and wants is carried out there too, right behind its
//! commit: so events and effects come in the order of the commits, and nobody is told of what is not on disk.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::ws::Utf8Bytes;
use cuewire::engine::Ledger;
use cuewire::time::Timestamp;
use cuewire::transcript::{Fragment, jsonl};
use serde_json::{Value, json};

use crate::api::error::{ApiError, Code};
use crate::api::render;
use crate::api::request::kept;
use crate::app::AppSettings;
use crate::call::grants::Capability;
use crate::call::settings::{Recognition, Settings};
use crate::call::{
    Actor, Call, CallError, CallType, Caption, Cid, Command, Effect, Env, Event, Input, Output, Transcript, User,
};
use crate::events::{CloseCode, Hub, Text, Watcher};
use crate::hooks::{Configured, Hooks};
use crate::ingest::{Seated, Stages, Taken};
use crate::limits::Limits;
use crate::storage::{StorageConfig, Storages};
use crate::store::{Gone, Outgoing, Store, StoreError, StoredTranscript, Writer};
use crate::telemetry;
use crate::transcripts::Transcripts;
use crate::user::Profile;

mod stalls;
mod unwritten;

pub(crate) use stalls::{Missed, Stalls};
use unwritten::{Must, Unwritten};

/// The call types that are there from the start.
const CALL_TYPES: [&str; 4] = ["default", "audio_room", "livestream", "development"];
/// Calls whose time has come that are taken at a time.
const MOST_DUE: u32 = 100;

/// UTC now.
#[must_use]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// An id that nobody has, and nobody can guess.
#[must_use]
pub fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// Everything that serves calls.
pub struct Host {
    store: Mutex<Option<Writer>>,
    pub(crate) hub: Hub,
    pub(crate) stages: Stages,
    pub(crate) transcripts: Transcripts,
    pub(crate) storages: Storages,
    pub(crate) hooks: Hooks,
    pub(crate) unwritten: Unwritten,
    stalls: Stalls,
    in_session: Mutex<HashSet<Cid>>,
    limits: Limits,
    /// Calls that are there, as of the last commit.
    calls: AtomicI64,
    /// Seconds that a session waits for its first participant.
    pub(crate) first_participant_s: u32,
}

/// What a job wants done once it is committed.
#[derive(Default)]
struct Outcome {
    posts: Vec<Post>,
    effects: Vec<(Cid, Effect)>,
    /// Calls that are watched by somebody more.
    watched: Vec<Cid>,
    /// Connections that may see no more, and participants who may no longer speak.
    lost: Vec<String>,
    silenced: Vec<(Cid, String)>,
    /// Calls and their sessions that are over.
    over: Vec<(Cid, String)>,
    /// Calls, and whether they are in session from now on.
    in_session: Vec<(Cid, bool)>,
    /// Types of events that happened.
    happened: Vec<String>,
    /// Whether a transcript can be finished.
    finished: bool,
    /// Events, and the hooks that want them.
    events: Vec<(Arc<Outgoing>, Vec<String>)>,
    /// How many calls there are more, or fewer.
    calls: i64,
    /// Which hooks there are.
    configured: Option<Configured>,
    /// Seats of those who join; given back where this is dropped.
    taken: Vec<Taken>,
}

/// An event, and who is told.
struct Post {
    connections: Vec<String>,
    text: Text,
    /// What the next such thing makes up for.
    is_interim: bool,
}

impl Host {
    /// Over a database, which gets the call types that are there from the start, and where sessions that were open are
    /// suspended.
    ///
    /// # Errors
    /// [`StoreError`], or that no thread could be started.
    #[expect(clippy::too_many_arguments, reason = "all of it is made before")]
    pub(crate) fn start(
        store: Store,
        stages: Stages,
        transcripts: Transcripts,
        storages: Storages,
        hooks: Hooks,
        stalls: Stalls,
        limits: Limits,
        first_participant_s: u32,
    ) -> Result<Arc<Self>, crate::ServerError> {
        for name in CALL_TYPES {
            if store.call_type(name)?.is_none() {
                store.put_call_type(&CallType::new(name, now()))?;
            }
        }
        let configured = hooks.configured(&store)?;
        let suspended: Vec<_> = store.calls_in_session()?.iter().map(|call| call.cid().clone()).collect();
        let calls = AtomicI64::new(store.count_calls()?);
        let writer = Writer::start(store)?;
        let host = Arc::new(Self {
            store: Mutex::new(Some(writer)),
            hub: Hub::default(),
            stages,
            transcripts,
            storages,
            hooks,
            unwritten: Unwritten::default(),
            stalls,
            in_session: Mutex::new(suspended.iter().cloned().collect()),
            limits,
            calls,
            first_participant_s,
        });
        host.hooks.configure(&host, configured);
        for cid in suspended {
            host.tell(cid, Input::Restarted);
        }
        Ok(host)
    }

    /// What may come.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Takes no more jobs, and waits for those that are there.
    pub fn close(&self) {
        let writer = self.store.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(writer);
    }

    /// Does a job, and gives its result to `answer` once it is committed. What gives an error has changed nothing.
    pub(crate) fn submit<R: Send + 'static>(
        self: &Arc<Self>,
        job: impl FnOnce(&mut Change<'_>) -> Result<R, ApiError> + Send + 'static,
        answer: impl FnOnce(Result<R, ApiError>) + Send + 'static,
    ) {
        let answer = move |_: &Arc<Self>, result: Result<_, Gone>| match result {
            Ok(result) => answer(result),
            Err(gone) => answer(Err(ApiError::new(Code::Internal, gone.to_string()))),
        };
        self.submit_raw(job, answer);
    }

    /// Looks something up, also where nothing can be written, and gives it to `answer`.
    pub(crate) fn submit_read<R: Send + 'static>(
        self: &Arc<Self>,
        job: impl FnOnce(&mut Change<'_>) -> Result<R, ApiError> + Send + 'static,
        answer: impl FnOnce(Result<R, ApiError>) + Send + 'static,
    ) {
        let (host, done) = (self.clone(), self.clone());
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(store) = store.as_ref() else { return answer(Err(ended())) };
        store.read(
            move |store| {
                let mut change = Change::new(&host, store);
                let result = job(&mut change)?;
                Ok::<_, ApiError>((result, change.outcome))
            },
            move |result| {
                answer(result.map(|(result, outcome)| {
                    done.carry_out(outcome);
                    result
                }));
            },
        );
    }

    /// Looks something up, also where nothing can be written.
    ///
    /// # Errors
    /// The job's own.
    pub(crate) async fn read<R: Send + 'static>(
        self: &Arc<Self>,
        job: impl FnOnce(&mut Change<'_>) -> Result<R, ApiError> + Send + 'static,
    ) -> Result<R, ApiError> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let (job, waiting) = waited_for(job);
        self.submit_read(job, move |result| drop(sender.send(result)));
        let result = receiver.await;
        drop(waiting);
        result.unwrap_or_else(|_| Err(ApiError::new(Code::Internal, "a fault of the server's")))
    }

    /// Does a job, for who acts on what could not be written.
    fn submit_raw<R: Send + 'static>(
        self: &Arc<Self>,
        job: impl FnOnce(&mut Change<'_>) -> Result<R, ApiError> + Send + 'static,
        answer: impl FnOnce(&Arc<Self>, Result<Result<R, ApiError>, Gone>) + Send + 'static,
    ) {
        let (host, committed) = (self.clone(), self.clone());
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(store) = store.as_ref() else { return answer(self, Err(Gone::ended())) };
        store.submit(
            move |store| {
                let mut change = Change::new(&host, store);
                let result = job(&mut change)?;
                Ok::<_, ApiError>((result, change.outcome))
            },
            move |result| {
                let result = result.map(|result| {
                    result.map(|(result, outcome)| {
                        committed.carry_out(outcome);
                        result
                    })
                });
                answer(&committed, result);
            },
        );
    }

    /// Does a job and waits until it is committed.
    ///
    /// # Errors
    /// The job's own.
    pub async fn run<R: Send + 'static>(
        self: &Arc<Self>,
        job: impl FnOnce(&mut Change<'_>) -> Result<R, ApiError> + Send + 'static,
    ) -> Result<R, ApiError> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let (job, waiting) = waited_for(job);
        self.submit(job, move |result| drop(sender.send(result)));
        let result = receiver.await;
        drop(waiting);
        result.unwrap_or_else(|_| Err(ended()))
    }

    /// Tells a call what happened.
    pub fn tell(self: &Arc<Self>, cid: Cid, input: Input) {
        self.must(Must::new(move |change| change.tell(&cid, input.clone())));
    }

    /// A participant's connection is closed, and their last caption is there: they have left, unless they are back by now.
    pub fn left(self: &Arc<Self>, cid: Cid, user_id: String) {
        self.must(Must::new(move |change| {
            // Who joins does so in a job too: no join comes in between.
            if change.host.stages.is_here(&cid, &user_id) {
                return Ok(());
            }
            change.tell(&cid, Input::Left { user_id: user_id.clone() })
        }));
    }

    /// A caption is final.
    pub fn heard(self: &Arc<Self>, cid: Cid, caption: Caption, mark: u64, ledger: Option<Ledger>) {
        let of = cid.clone();
        let mut job = Must::new(move |change| {
            change.ledger = ledger;
            change.tell(&cid, Input::Caption { caption: caption.clone(), mark })
        });
        job.caption_of = Some(of);
        self.must(job);
    }

    /// Something is known of a caption that is still open: told where captions are shown, and kept nowhere.
    pub fn interim(self: &Arc<Self>, cid: Cid, mark: u64, event: Interim) {
        self.submit(
            move |change| {
                let call = change.store.call(&cid)?.filter(|call| call.runs().shows(mark));
                call.map_or(Ok(()), |call| change.post_interim(&call, &event))
            },
            |result| report("telling of an interim", result),
        );
    }

    /// Wakes the calls whose time has come.
    pub fn tick(self: &Arc<Self>) {
        self.submit(
            |change| {
                for call in change.store.calls_due(change.now, MOST_DUE)? {
                    change.input(call, Input::Tick)?;
                }
                Ok(())
            },
            // Where it cannot be written it is tried again at the next tick, and the writer says so in the log.
            drop,
        );
        self.retry();
        self.stages.look();
        self.look_for_stalls();
    }

    fn carry_out(self: &Arc<Self>, outcome: Outcome) {
        let Outcome {
            posts,
            effects,
            watched,
            lost,
            silenced,
            over,
            in_session,
            happened,
            finished,
            events,
            calls,
            configured,
            taken,
        } = outcome;
        taken.into_iter().for_each(Taken::keep);
        self.calls.fetch_add(calls, Ordering::Relaxed);
        happened.into_iter().for_each(telemetry::committed_event);
        if !in_session.is_empty() {
            let mut all = self.in_session.lock().unwrap_or_else(PoisonError::into_inner);
            for (cid, is_in_session) in in_session {
                if is_in_session {
                    all.insert(cid)
                } else {
                    all.remove(&cid)
                };
            }
        }
        if let Some(configured) = configured {
            self.hooks.configure(self, configured);
        }
        watched.iter().for_each(|cid| self.interims_changed(cid));
        for Post { connections, text, is_interim } in posts {
            let connections = connections.iter().map(String::as_str);
            if is_interim {
                self.hub.send_interim(connections, &text.detailed);
            } else {
                self.hub.send(connections, &text);
            }
        }
        for connection in lost {
            self.hub.close(&connection, CloseCode::TokenExpired);
        }
        for (cid, effect) in effects {
            match effect {
                Effect::Hear { recognition, mark } => self.stages.hear(self, &cid, recognition, mark),
                Effect::Disconnect { user_id } => self.stages.disconnect(&cid, &user_id),
                // Part of the change itself.
                Effect::OpenTranscript(_) | Effect::AppendTranscript { .. } | Effect::CloseTranscript { .. } => {}
            }
        }
        for (cid, user_id) in silenced {
            self.stages.silence(&cid, &user_id);
        }
        over.iter().for_each(|(cid, session_id)| self.stages.end(self, cid, session_id));
        if finished {
            self.transcripts.wake();
        }
        events.iter().for_each(|(event, hooks)| self.hooks.hand_on(event, hooks));
    }

    /// How many calls are in session.
    pub(crate) fn calls_in_session(&self) -> usize {
        self.in_session.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Makes interims for a call only where somebody asked for them.
    pub(crate) fn interims_changed(&self, cid: &Cid) {
        self.stages.set_interims(cid, || self.hub.wants_interims(cid));
    }
}

/// A job that is done only while the other one is there: who has given up by the time that it would begin is told nothing, and so
/// nothing is done.
fn waited_for<R>(
    job: impl FnOnce(&mut Change<'_>) -> Result<R, ApiError>,
) -> (impl FnOnce(&mut Change<'_>) -> Result<R, ApiError>, Arc<()>) {
    let (waiting, kept) = (Arc::new(()), kept());
    let is_waited_for = Arc::downgrade(&waiting);
    let job = move |change: &mut Change<'_>| {
        let _kept = kept;
        match is_waited_for.upgrade() {
            Some(_) => job(change),
            None => Err(ApiError::new(Code::Internal, "nobody waits for it any more")),
        }
    };
    (job, waiting)
}

/// Whether something may be kept that takes so much.
fn check_kept(what: &str, name: &str, bytes: usize, most: u32) -> Result<(), ApiError> {
    if bytes <= most as usize {
        return Ok(());
    }
    let name: String = name.chars().take(100).collect();
    Err(ApiError::new(Code::Input, format!("{what} {name} would take {bytes} bytes: allowed are {most}")))
}

fn ended() -> ApiError {
    ApiError::new(Code::Internal, Gone::ended().to_string())
}

fn report(what: &str, result: Result<(), ApiError>) {
    if let Err(error) = result {
        tracing::error!("{what}: {error}");
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        tracing::error!("{error}");
        Self::new(Code::Internal, "the server's database failed: its log says why")
    }
}

/// What is known of a caption that is open.
#[derive(Clone, Debug)]
pub enum Interim {
    /// What was said so far.
    Text {
        /// As it would be shown.
        caption: Caption,
        /// Counts from 1.
        revision: u32,
        /// Characters that no later interim changes.
        stable_chars: usize,
    },
    /// It comes to nothing.
    Retracted {
        /// The caption.
        id: String,
        /// Why.
        reason: String,
    },
}

/// One change of everything it concerns.
pub struct Change<'a> {
    host: &'a Host,
    /// The database, within one transaction.
    pub(crate) store: &'a Store,
    /// UTC.
    pub(crate) now: Timestamp,
    ledger: Option<Ledger>,
    outcome: Outcome,
}

fn participants(call: &Call) -> usize {
    call.session().map_or(0, |session| session.participants().len())
}

impl<'a> Change<'a> {
    fn new(host: &'a Host, store: &'a Store) -> Self {
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
        self.store.call(cid)?.map_or(Ok(()), |call| self.input(call, input))
    }

    /// Tells what became of the file of a run. Those who watch are told where it was a run of the call that they watch, and not
    /// of one that was deleted, and made anew under its id; hooks are told in any case.
    pub(crate) fn tell_of_file(
        &mut self,
        of: &StoredTranscript,
        outcome: Result<Transcript, String>,
    ) -> Result<(), ApiError> {
        let (cid, egress_id) = (&of.cid, of.egress_id.clone());
        if let Some(call) = self.store.call(cid)?.filter(|call| call.created_at() <= of.start_time) {
            let input = match outcome {
                Ok(transcript) => Input::TranscriptStored { egress_id, transcript },
                Err(error) => Input::TranscriptFailed { egress_id, error },
            };
            return self.input(call, input);
        }
        let outcome = outcome.as_ref().map_err(String::as_str);
        let rendered = render::file_event(cid, &egress_id, outcome, self.now);
        self.put_event(cid, &rendered)
    }

    fn input(&mut self, mut call: Call, input: Input) -> Result<(), ApiError> {
        self.act(&mut call, |call, env| {
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
            self.outcome.taken.push(Taken::new(host.clone(), cid.clone(), user_id.to_string(), seated.connection));
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
        if !written.is_empty() {
            for call in self.store.calls_of(&call_type.name)? {
                self.input(call, Input::TypeUpdated(written.clone()))?;
            }
        }
        for call in self.store.calls_of(&call_type.name)? {
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

    /// Where a user watches or speaks, whether they still may.
    pub(crate) fn check_user(&mut self, user_id: &str) -> Result<(), ApiError> {
        for call in self.store.calls_in_session()? {
            if call.session().is_some_and(|session| session.participants().contains_key(user_id)) {
                self.check_speakers(&call)?;
            }
        }
        self.check_watchers(self.host.hub.watched_by(user_id))
    }

    /// From here on, a connection is told of a call: also of what jobs behind this one do within the same commit.
    pub(crate) fn watch(&mut self, connection: &str, cid: &Cid) {
        if self.host.hub.watch(connection, cid) {
            self.outcome.watched.push(cid.clone());
        }
    }

    /// A file is gone, or its place in the list.
    pub(crate) fn finished(&mut self) {
        self.outcome.finished = true;
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

    /// As a `CallResponse`.
    pub(crate) fn render_call(&self, call: &Call) -> Result<Value, ApiError> {
        let call_type = self.call_type(call.cid().call_type())?;
        Ok(render::call(call, &call_type, &|id| self.profile(id)))
    }

    /// Its members, as `MemberResponse`s.
    pub(crate) fn render_members(&self, call: &Call) -> Vec<Value> {
        render::members(call, &|id| self.profile(id))
    }

    fn with_env<R>(&self, call_type: &CallType, act: impl FnOnce(&mut Env<'_>) -> R) -> R {
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

    /// Takes what a call says and wants into the change.
    fn drain(&mut self, call: &mut Call, call_type: &CallType) -> Result<(), ApiError> {
        let mut events = Vec::new();
        while let Some(output) = call.poll_output() {
            match output {
                Output::Event(then, event) => events.push((then, event)),
                Output::Effect(effect) => {
                    self.write(call.cid(), &effect)?;
                    self.outcome.effects.push((call.cid().clone(), effect));
                }
            }
        }
        if events.is_empty() {
            return Ok(());
        }
        let readers = self.readers(call, false)?;
        for (then, event) in events {
            let mut rendered =
                self.with_env(call_type, |env| render::event(&then, &event, env, &|id| self.profile(id)));
            self.put_event(call.cid(), &rendered)?;
            self.outcome.happened.extend(rendered["type"].as_str().map(str::to_string));
            if let (Event::ClosedCaption(_), Some(session)) = (&event, then.session()) {
                let caption = rendered["closed_caption"].to_string();
                self.store.put_caption(call.cid(), session.id(), self.now, &caption)?;
            }
            render::for_browser(&mut rendered);
            let plain: Utf8Bytes = rendered.to_string().into();
            let detailed = match (&event, &self.ledger) {
                (Event::ClosedCaption(_), Some(ledger)) => {
                    rendered["ledger"] = render::ledger(ledger);
                    rendered.to_string().into()
                }
                _ => plain.clone(),
            };
            let connections = match &event {
                Event::Created => {
                    let members = self.host.hub.of_users(|user_id| call.members().contains_key(user_id));
                    self.of_these(call, members)?.0
                }
                _ => readers.clone(),
            };
            self.outcome.posts.push(Post {
                connections,
                text: Text { plain: Some(plain), detailed },
                is_interim: false,
            });
        }
        Ok(())
    }

    /// Writes an event for the hooks that want it.
    fn put_event(&mut self, cid: &Cid, rendered: &Value) -> Result<(), ApiError> {
        let event_type = rendered["type"].as_str().unwrap_or_default();
        let app = self.store.app()?;
        let hooks: Vec<String> = app.hooks_for(event_type).map(|hook| hook.id.clone()).collect();
        if hooks.is_empty() {
            return Ok(());
        }
        let mut event = Outgoing {
            number: 0,
            webhook_id: new_id(),
            cid: cid.clone(),
            at: self.now,
            event_type: event_type.to_string(),
            event: rendered.to_string(),
        };
        self.store.put_event(&mut event, hooks.iter().map(String::as_str))?;
        self.outcome.events.push((Arc::new(event), hooks));
        Ok(())
    }

    /// How a storage is reached.
    pub(crate) fn storage(&self, name: &str) -> Result<Option<StorageConfig>, ApiError> {
        Ok(self.host.storages.config(self.store, name)?)
    }

    /// All storages, by name.
    pub(crate) fn storages(&self) -> Result<BTreeMap<String, StorageConfig>, ApiError> {
        Ok(self.host.storages.all(self.store)?)
    }

    /// Writes the platform's settings.
    pub(crate) fn put_app(&mut self, app: &AppSettings) -> Result<(), ApiError> {
        let before = self.store.app()?;
        for gone in before.hooks.iter().filter(|hook| app.hook(&hook.id).is_none()) {
            self.store.forget_hook(&gone.id)?;
        }
        self.store.put_app(app)?;
        self.outcome.configured = Some(self.host.hooks.configured(self.store)?);
        Ok(())
    }

    /// The connections that watch a call and may read it, or only those of them that want interims. Those that may no longer
    /// lose it.
    fn readers(&mut self, call: &Call, of_interims: bool) -> Result<Vec<String>, ApiError> {
        let watchers = self.host.hub.watchers(call.cid(), of_interims);
        let (readers, lost) = self.of_these(call, watchers)?;
        self.outcome.lost.extend(lost);
        Ok(readers)
    }

    /// Of these connections, those that may read a call, and those that may not.
    fn of_these(&self, call: &Call, watchers: Vec<Watcher>) -> Result<(Vec<String>, Vec<String>), ApiError> {
        if watchers.is_empty() {
            return Ok(Default::default());
        }
        let (call_type, cid) = (self.call_type(call.cid().call_type())?, call.cid().to_string());
        let (readers, lost): (Vec<_>, Vec<_>) = self.with_env(&call_type, |env| {
            watchers.into_iter().partition(|Watcher { token, .. }| {
                let user = self.profile(&token.user_id).user;
                call.capabilities(env, &user, token.role_in(&cid)).contains(Capability::ReadCall.as_str())
            })
        });
        let connections = |watchers: Vec<Watcher>| watchers.into_iter().map(|watcher| watcher.connection).collect();
        Ok((connections(readers), connections(lost)))
    }

    fn post_interim(&mut self, call: &Call, event: &Interim) -> Result<(), ApiError> {
        let connections = self.readers(call, true)?;
        if connections.is_empty() {
            return Ok(());
        }
        let mut rendered = render::interim(call.cid(), event, self.now, &|id| self.profile(id));
        render::for_browser(&mut rendered);
        let text = Text { plain: None, detailed: rendered.to_string().into() };
        self.outcome.posts.push(Post { connections, text, is_interim: matches!(event, Interim::Text { .. }) });
        Ok(())
    }

    /// The part of an effect that is on disk.
    fn write(&mut self, cid: &Cid, effect: &Effect) -> Result<(), ApiError> {
        match effect {
            Effect::OpenTranscript(run) => {
                self.store.open_transcript(cid, run, self.host.storages.default())?;
            }
            Effect::AppendTranscript { egress_id, caption } => {
                let fragment = Fragment {
                    start_time: caption.start_time,
                    stop_time: caption.end_time,
                    speaker_id: caption.speaker_id.clone(),
                    text: caption.text.clone(),
                    ..Fragment::default()
                };
                let mut line = Vec::new();
                // Writing into memory does not fail.
                let _ = jsonl::write_fragment(&mut line, &fragment);
                self.store.append_fragment(egress_id, &String::from_utf8_lossy(&line))?;
            }
            Effect::CloseTranscript { egress_id, end_time, .. } => {
                self.store.close_transcript(egress_id, *end_time)?;
                self.finished();
            }
            Effect::Hear { .. } | Effect::Disconnect { .. } => {}
        }
        Ok(())
    }

    /// Who commands, by a user's token.
    pub(crate) fn user_actor(&self, token: &crate::api::token::UserToken, cid: &Cid) -> Actor {
        let user: User = self.profile(&token.user_id).user;
        Actor::User { user, token_role: token.role_in(&cid.to_string()).map(str::to_string) }
    }
}
