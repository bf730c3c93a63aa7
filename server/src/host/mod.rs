//! What a call's host does: state on disk, events to who watches, effects to tracks and transcripts.
//!
//! In: jobs, each one change of everything it concerns ([`Change`]). Out: their answers, once they are on disk.
//!
//! All jobs run one behind the other on the store's thread. What a job says and wants is carried out there too, right behind its
//! commit: so events and effects come in the order of the commits, and nobody is told of what is not on disk.

use std::collections::HashSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Notify;

use crate::call::{CallType, Cid, Effect, Input};
use crate::clock::now;
use crate::events::{CloseCode, Hub};
use crate::limits::Limits;
use crate::stages::{Stages, Taken};
use crate::storage::Storages;
use crate::store::{Gone, Outgoing, Store, StoreError, Writer};
use crate::telemetry;
use crate::wire::error::{ApiError, Code};
use crate::wire::request::kept;

mod change;
mod figures;
mod heard;
mod outputs;
mod stalls;
mod unwritten;

pub(crate) use change::{Change, Configured};
use change::{Outcome, Post};
pub(crate) use figures::keep_current;
pub(crate) use stalls::Stalls;

use unwritten::{Must, Unwritten};

/// The call types that are there from the start.
const CALL_TYPES: [&str; 4] = ["default", "audio_room", "livestream", "development"];
/// Calls whose time has come that are taken at a time.
const MOST_DUE: u32 = 100;

/// Who delivers events. Called on the store's thread, right behind the commit: who reads the outbox there misses no event, and is
/// handed none twice.
pub(crate) trait Deliver: Send + Sync {
    /// From here on these are the hooks.
    fn configure(self: Arc<Self>, host: &Arc<Host>, configured: Configured);

    /// An event was committed that these hooks want.
    fn hand_on(&self, event: &Arc<Outgoing>, hooks: &[String]);
}

/// Everything that serves calls.
pub(crate) struct Host {
    store: Mutex<Option<Writer>>,
    pub(crate) hub: Hub,
    pub(crate) stages: Arc<Stages>,
    pub(crate) storages: Storages,
    hooks: Arc<dyn Deliver>,
    /// There is a transcript to finish.
    pub(crate) finished: Notify,
    pub(crate) unwritten: Unwritten,
    stalls: Stalls,
    in_session: Mutex<HashSet<Cid>>,
    limits: Limits,
    /// Calls that are there, as of the last commit.
    calls: AtomicI64,
    /// Seconds that a session waits for its first participant.
    pub(crate) first_participant_s: u32,
}

impl Host {
    /// Over a database, which gets the call types that are there from the start, and where sessions that were open are
    /// suspended.
    ///
    /// # Errors
    /// [`StoreError`], or that no thread could be started.
    pub(crate) fn start(
        store: Store,
        stages: Stages,
        storages: Storages,
        hooks: Arc<dyn Deliver>,
        stalls: Stalls,
        limits: Limits,
        first_participant_s: u32,
    ) -> Result<Arc<Self>, crate::ServerError> {
        for name in CALL_TYPES {
            if store.call_type(name)?.is_none() {
                store.put_call_type(&CallType::new(name, now()))?;
            }
        }
        let configured = Configured::read(&store)?;
        let suspended: Vec<_> = store.calls_in_session()?.iter().map(|call| call.cid().clone()).collect();
        let calls = AtomicI64::new(store.count_calls()?);
        let writer = Writer::start(store)?;
        let host = Arc::new(Self {
            store: Mutex::new(Some(writer)),
            hub: Hub::default(),
            stages: Arc::new(stages),
            storages,
            hooks,
            finished: Notify::new(),
            unwritten: Unwritten::default(),
            stalls,
            in_session: Mutex::new(suspended.iter().cloned().collect()),
            limits,
            calls,
            first_participant_s,
        });
        let listener: Weak<Self> = Arc::downgrade(&host);
        host.stages.listen(listener);
        host.hooks.clone().configure(&host, configured);
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
    pub(crate) fn close(&self) {
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
    pub(crate) async fn run<R: Send + 'static>(
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
    pub(crate) fn tell(self: &Arc<Self>, cid: Cid, input: Input) {
        self.must(Must::new(move |change| change.tell(&cid, input.clone())));
    }

    /// Wakes the calls whose time has come.
    pub(crate) fn tick(self: &Arc<Self>) {
        self.submit(
            |change| {
                for mut call in change.store.calls_due(change.now, MOST_DUE)? {
                    change.input(&mut call, Input::Tick)?;
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
            self.hooks.clone().configure(self, configured);
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
                Effect::Hear { recognition, mark } => self.stages.hear(&cid, recognition, mark),
                Effect::Disconnect { user_id } => self.stages.disconnect(&cid, &user_id),
                // Part of the change itself.
                Effect::OpenTranscript(_) | Effect::AppendTranscript { .. } | Effect::CloseTranscript { .. } => {}
            }
        }
        for (cid, user_id) in silenced {
            self.stages.silence(&cid, &user_id);
        }
        over.iter().for_each(|(cid, session_id)| self.stages.end(cid, session_id));
        if finished {
            self.finished.notify_one();
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
        if let StoreError::TooLong = error {
            return Self::new(Code::Input, error.to_string());
        }
        tracing::error!("{error}");
        Self::new(Code::Internal, "the server's database failed: its log says why")
    }
}
