//! From the outbox to hooks: at least once, and in order in each call.
//!
//! In: events that were committed, with the hooks that want them. Out: requests and messages, and what became of them on disk.
//!
//! Each hook has a task of its own and a lane: none waits for another, and nothing waits for any of them. Calls of a
//! hook are told of side by side. What fails is tried again, later and later, until the event is too old: then it is a dead
//! letter. That an event was delivered is written a moment later, so that after a crash its last events are delivered again, under
//! the same `X-Webhook-Id`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use cuewire::time::Timestamp;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::Hook;
use crate::call::Cid;
use crate::clock::now;
use crate::host::{Configured, Deliver, Host};
use crate::retry::{Seldom, jitter};
use crate::sinks::{Parcel, Sinks};
use crate::store::{DeadLetter, Outgoing};
use crate::telemetry;
use crate::wire::render;

mod lane;

use lane::{Lane, MOST_OF_A_CALL, Next};

/// Calls that one hook is told of side by side.
const MOST_AT_ONCE: usize = 16;
/// How often it is written what was delivered.
const WRITTEN_EVERY: Duration = Duration::from_millis(200);
/// Events that are too old are given up without an attempt each once the server has had this time to tell of them, or this many
/// times the age that events may have,
const SWEPT_BEHIND: Duration = Duration::from_secs(600);
const SWEPT_BEHIND_AGES: u32 = 10;
/// which is looked at so often,
const SWEPT_EVERY: Duration = Duration::from_secs(10);
/// so many in one change, in so many changes: more than can happen in that time.
const SWEPT_AT_ONCE: u32 = 200;
const SWEEPS: u32 = 500;

/// Where all events go that leave the house.
pub(crate) struct Hooks {
    lanes: Mutex<HashMap<String, Arc<Running>>>,
    delivered: Mutex<Vec<(String, Cid, i64)>>,
    pub(crate) sinks: Sinks,
    /// Nanoseconds after which an event is too old.
    max_age_nanos: i64,
    started: Instant,
    runtime: Handle,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// One hook.
struct Running {
    hook: Mutex<Arc<(Hook, bool)>>,
    lane: Mutex<Lane>,
    changed: Notify,
    failures: Seldom,
    stop: CancellationToken,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hooks {
    /// Without any hook so far.
    ///
    /// # Errors
    /// Where TLS cannot be had.
    pub(crate) fn new(
        api_key: String,
        api_secret: String,
        may_be_private: bool,
        max_age_s: u32,
        runtime: Handle,
    ) -> Result<Self, reqwest::Error> {
        Ok(Self {
            lanes: Mutex::default(),
            delivered: Mutex::default(),
            sinks: Sinks::new(api_key, api_secret, may_be_private)?,
            max_age_nanos: i64::from(max_age_s) * 1_000_000_000,
            started: Instant::now(),
            runtime,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        })
    }

    /// Writes what was delivered and gives up what is too old, again and again.
    pub(crate) async fn keep_written(self: Arc<Self>, host: Weak<Host>, stop: CancellationToken) {
        let mut swept = Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep(WRITTEN_EVERY) => {}
                () = stop.cancelled() => return,
            }
            let Some(host) = host.upgrade() else { return };
            self.write(&host).await;
            if self.sweeps() && swept.elapsed() > SWEPT_EVERY {
                swept = Instant::now();
                for _ in 0..SWEEPS {
                    if self.give_up_old(&host).await < SWEPT_AT_ONCE as usize {
                        break;
                    }
                }
            }
        }
    }

    fn sweeps(&self) -> bool {
        let max_age = Duration::from_nanos(self.max_age_nanos.unsigned_abs());
        self.started.elapsed() > SWEPT_BEHIND.min(max_age.saturating_mul(SWEPT_BEHIND_AGES))
    }

    /// Gives up events that are too old, also those whose turn never came: more may happen than a hook that hangs can be told,
    /// and what waits must not grow for ever. How many there were.
    async fn give_up_old(&self, host: &Arc<Host>) -> usize {
        let given_up_at = now();
        let limit = given_up_at.plus_nanos(-self.max_age_nanos);
        let swept = host.run(move |change| {
            let old = change.store.deliveries_before(limit, SWEPT_AT_ONCE)?;
            let count = old.len();
            for (hook, event) in old {
                let error = "it was too old before its turn came".into();
                change.store.give_up(&DeadLetter { hook, event, given_up_at, attempts: 0, error })?;
            }
            Ok(count)
        });
        // Where it cannot be written, the log says so already.
        swept.await.unwrap_or(0)
    }

    async fn write(&self, host: &Arc<Host>) {
        let delivered = std::mem::take(&mut *lock(&self.delivered));
        if delivered.is_empty() {
            return;
        }
        let all = delivered.clone();
        let written = host.run(move |change| {
            all.iter().try_for_each(|(hook, cid, number)| change.store.delivered(hook, cid, *number))?;
            Ok(())
        });
        if let Err(error) = written.await {
            tracing::error!("what hooks were told cannot be written: {error}; trying again");
            lock(&self.delivered).extend(delivered);
        }
    }

    /// Begins no more deliveries, and waits for those on their way, but for no longer than `patience`; writes what was delivered.
    pub(crate) async fn shutdown(&self, host: &Arc<Host>, patience: Duration) {
        self.stop.cancel();
        self.tasks.close();
        // What is on its way for longer is told again by the next server.
        let _ = tokio::time::timeout(patience, self.tasks.wait()).await;
        self.write(host).await;
    }

    async fn deliver(&self, hook: &Hook, compressed: bool, event: &Outgoing, attempt: u32) -> Result<(), String> {
        let body = if hook.rfc3339 { for_humans(&event.event) } else { event.event.clone() };
        let timeout = Duration::from_millis(hook.timeout_ms.into());
        let Outgoing { webhook_id, cid, .. } = event;
        self.sinks.deliver(&hook.target, Parcel { webhook_id, cid, body: &body, compressed, attempt, timeout }).await
    }
}

impl Deliver for Hooks {
    fn configure(self: Arc<Self>, host: &Arc<Host>, configured: Configured) {
        let Configured { app, mut waiting } = configured;
        let mut lanes = lock(&self.lanes);
        lanes.retain(|id, running| {
            let stays = app.hook(id).is_some_and(|hook| hook.enabled);
            if !stays {
                running.stop.cancel();
            }
            stays
        });
        for hook in app.hooks.iter().filter(|hook| hook.enabled) {
            let settings = Arc::new((hook.clone(), app.compression));
            if let Some(running) = lanes.get(&hook.id) {
                *lock(&running.hook) = settings;
                continue;
            }
            let (mut lane, now) = (Lane::default(), Instant::now());
            for cid in waiting.remove(&hook.id).unwrap_or_default() {
                lane.add_from_disk(cid, now);
            }
            let running = Arc::new(Running {
                hook: Mutex::new(settings),
                lane: Mutex::new(lane),
                changed: Notify::new(),
                failures: Seldom::default(),
                stop: self.stop.child_token(),
            });
            lanes.insert(hook.id.clone(), running.clone());
            self.tasks.spawn_on(run(self.clone(), running, Arc::downgrade(host)), &self.runtime);
        }
    }

    fn hand_on(&self, event: &Arc<Outgoing>, hooks: &[String]) {
        let lanes = lock(&self.lanes);
        for running in hooks.iter().filter_map(|id| lanes.get(id)) {
            lock(&running.lane).add(event, Instant::now());
            running.changed.notify_one();
        }
    }
}

/// An event with times as text.
fn for_humans(event: &str) -> String {
    let mut value: Value = serde_json::from_str(event).unwrap_or_default();
    render::for_browser(&mut value);
    value.to_string()
}

/// One hook, to its end.
async fn run(hooks: Arc<Hooks>, running: Arc<Running>, host: Weak<Host>) {
    let (mut attempts, mut calls) = (JoinSet::new(), HashMap::new());
    loop {
        while attempts.len() < MOST_AT_ONCE && !running.stop.is_cancelled() {
            let Some(next) = lock(&running.lane).next(Instant::now()) else { break };
            let Some(host) = host.upgrade() else { return };
            let (of, hooks, running) = (next.cid().clone(), hooks.clone(), running.clone());
            let attempt = attempts.spawn(async move {
                match next {
                    Next::Read(cid, behind) => read(&running, &host, cid, behind).await,
                    Next::Deliver(event, before) => attempt(&hooks, &running, &host, &event, before).await,
                }
            });
            calls.insert(attempt.id(), of);
        }
        let wake_up = lock(&running.lane).wake_up().filter(|_| attempts.len() < MOST_AT_ONCE);
        let wake_up = wake_up.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        tokio::select! {
            Some(ended) = attempts.join_next_with_id() => {
                let cid = calls.remove(&ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id));
                // A panic is a fault of the server's own: the call's turn comes again all the same.
                if let (Err(error), Some(cid)) = (ended, cid) {
                    tracing::error!("telling of {cid}: {error}");
                    lock(&running.lane).failed(&cid, Instant::now(), jitter());
                }
            }
            () = running.changed.notified() => {}
            () = tokio::time::sleep_until(wake_up.into()) => {}
            () = running.stop.cancelled() => {
                while attempts.join_next().await.is_some() {}
                return;
            }
        }
    }
}

async fn read(running: &Arc<Running>, host: &Arc<Host>, cid: Cid, behind: i64) {
    let (id, of, of_read, lane) = (lock(&running.hook).0.id.clone(), cid.clone(), cid.clone(), running.clone());
    let (sender, done) = tokio::sync::oneshot::channel();
    host.submit_read(
        move |change| Ok(change.store.events_waiting(&id, &of, behind, MOST_OF_A_CALL)?),
        // On the store's thread: no event that is committed behind it is handed on before.
        move |read| {
            // Whoever waited is gone with the server.
            let _ = sender.send(read.map(|events| lock(&lane.lane).read(&of_read, events)));
        },
    );
    // Without an answer, the store has ended or the job has panicked.
    if !matches!(done.await, Ok(Ok(()))) {
        lock(&running.lane).failed(&cid, Instant::now(), jitter());
    }
}

async fn attempt(hooks: &Hooks, running: &Running, host: &Arc<Host>, event: &Outgoing, before: u32) {
    let settings = lock(&running.hook).clone();
    let (hook, compressed) = (&settings.0, settings.1);
    let is_too_old = || is_too_old(event.at, now(), hooks.max_age_nanos);
    if before == 0 && hooks.sweeps() && is_too_old() {
        // It is given up with the others, or was already.
        lock(&running.lane).done(&event.cid, Instant::now());
        return;
    }
    let result = hooks.deliver(hook, compressed, event, before + 1).await;
    telemetry::delivered(result.is_ok());
    if let Err(error) = result {
        let is_too_old = is_too_old();
        if !(is_too_old && give_up(host, &hook.id, event, before + 1, error.clone()).await) {
            if let Some(others) = running.failures.is_due(Instant::now()) {
                let (id, cid, event_type) = (&hook.id, &event.cid, &event.event_type);
                tracing::warn!("hook {id}: {cid} {event_type}: {error}; {others} failures before it were not logged");
            }
            lock(&running.lane).failed(&event.cid, Instant::now(), jitter());
            return;
        }
    } else {
        lock(&hooks.delivered).push((hook.id.clone(), event.cid.clone(), event.number));
    }
    lock(&running.lane).done(&event.cid, Instant::now());
}

fn is_too_old(at: Timestamp, now: Timestamp, max_age_nanos: i64) -> bool {
    now.nanos_since(at) >= max_age_nanos
}

/// Whether it is written that an event is a dead letter.
async fn give_up(host: &Arc<Host>, hook: &str, event: &Outgoing, attempts: u32, error: String) -> bool {
    let (hook, event) = (hook.to_string(), event.clone());
    let letter = DeadLetter { hook, event, given_up_at: now(), attempts, error };
    host.run(move |change| Ok(change.store.give_up(&letter)?)).await.is_ok()
}
