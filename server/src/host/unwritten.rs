//! What happened and cannot be written: it waits, in its order, until it can.
//!
//! In: what the engine said, as changes that may be tried again. Out: the same changes on disk, each once.
//!
//! What a request wants is refused where it cannot be written. What happened cannot be refused: a caption that was spoken while the
//! disk was full, or the database somebody else's, is written and shown once that is over, behind those before it. Only so many
//! captions wait; of a call that lost some its processes have failed, and say so.

use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Change, Host, Outcome, report};
use crate::call::{Cid, Input};
use crate::wire::error::{ApiError, Code};

/// Captions that wait.
const MOST_CAPTIONS: usize = 20_000;
/// How often a server that ends looks whether what waits is written.
const SETTLED_EVERY: Duration = Duration::from_millis(50);
/// Changes that are tried again together.
const MOST_AT_ONCE: usize = 256;

type Job = dyn Fn(&mut Change<'_>) -> Result<(), ApiError> + Send + Sync;

/// A change that is not given up.
#[derive(Clone)]
pub(super) struct Must {
    job: Arc<Job>,
    /// The call whose caption it is, if it is one.
    pub(super) caption_of: Option<Cid>,
}

impl Must {
    pub(super) fn new(job: impl Fn(&mut Change<'_>) -> Result<(), ApiError> + Send + Sync + 'static) -> Self {
        Self { job: Arc::new(job), caption_of: None }
    }

    /// A panic is a fault of the server's own: such a job is not tried again, else it would hold up what is behind it for ever.
    fn run(&self, change: &mut Change<'_>) -> Result<(), ApiError> {
        let fault = |_| Err(ApiError::new(Code::Internal, "a fault of the server's"));
        catch_unwind(AssertUnwindSafe(|| (self.job)(change))).unwrap_or_else(fault)
    }
}

/// What waits.
#[derive(Default)]
pub(crate) struct Unwritten(Mutex<State>);

#[derive(Default)]
struct State {
    waiting: VecDeque<Must>,
    captions: usize,
    /// Calls of which captions were given up.
    broken: BTreeSet<Cid>,
    since: Option<Instant>,
    is_tried: bool,
}

impl State {
    fn push(&mut self, must: Must) {
        if let Some(cid) = &must.caption_of {
            if self.captions >= MOST_CAPTIONS {
                self.broken.insert(cid.clone());
                return;
            }
            self.captions += 1;
        }
        self.since.get_or_insert_with(Instant::now);
        self.waiting.push_back(must);
    }
}

impl Unwritten {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For how long nothing could be written.
    pub(crate) fn lasts(&self) -> Option<Duration> {
        self.lock().since.map(|since| since.elapsed())
    }

    /// Says in the log what is lost now that the server ends.
    pub(crate) fn report_lost(&self) {
        let state = self.lock();
        if !state.waiting.is_empty() {
            let (changes, captions) = (state.waiting.len(), state.captions);
            tracing::error!(
                "the journal cannot be written: {changes} changes are lost, {captions} captions among them"
            );
        }
    }

    /// Captions that wait.
    pub(crate) fn captions(&self) -> usize {
        self.lock().captions
    }

    /// Calls of which captions wait, or were given up.
    pub(crate) fn calls(&self) -> BTreeSet<Cid> {
        let state = self.lock();
        state.waiting.iter().filter_map(|must| must.caption_of.clone()).chain(state.broken.iter().cloned()).collect()
    }
}

impl Host {
    /// Waits until all that was to be written is, as far as it can be.
    pub(crate) async fn settle(self: &Arc<Self>) {
        // What is under way comes before this.
        let _ = self.run(|_| Ok(())).await;
        while !self.unwritten.lock().waiting.is_empty() {
            self.retry();
            tokio::time::sleep(SETTLED_EVERY).await;
        }
    }

    /// Does something that happened, now or as soon as it can be written.
    pub(super) fn must(self: &Arc<Self>, must: Must) {
        let (host, of, again) = (self.clone(), must.clone(), must);
        let waits = Arc::new(AtomicBool::new(false));
        let waits_already = waits.clone();
        self.submit_raw(
            move |change| {
                // On the store's thread, where nothing comes in between: what waits goes first.
                let mut state = host.unwritten.lock();
                if !state.waiting.is_empty() {
                    waits.store(true, Ordering::Relaxed);
                    state.push(of);
                    return Ok(());
                }
                drop(state);
                of.run(change)
            },
            move |host, result| match result {
                Ok(result) => host.report_unless_done(&again, result),
                Err(_) if waits_already.load(Ordering::Relaxed) => {}
                // The writer says so in the log.
                Err(_) => host.unwritten.lock().push(again),
            },
        );
    }

    /// What the database holds of a call may be unreadable: its captions are lost, and that is said.
    fn report_unless_done(self: &Arc<Self>, must: &Must, result: Result<(), ApiError>) {
        let Err(error) = result else { return };
        if let Some(cid) = &must.caption_of {
            let error = format!("a caption could not be written: {error}");
            self.tell(cid.clone(), Input::Failed { error });
        }
        report("what happened in a call", Err(error));
    }

    /// Tries again what waits.
    pub(super) fn retry(self: &Arc<Self>) {
        let mut state = self.unwritten.lock();
        if state.waiting.is_empty() || state.is_tried {
            return;
        }
        state.is_tried = true;
        let some: Vec<Must> = state.waiting.iter().take(MOST_AT_ONCE).cloned().collect();
        drop(state);
        let (count, host) = (some.len(), self.clone());
        self.submit_raw(
            move |change| {
                let mut outcomes: Vec<Outcome> = Vec::new();
                for must in &some {
                    change.outcome = Outcome::default();
                    change.ledger = None;
                    let store = change.store;
                    match store.apart(|| must.run(change))? {
                        Ok(()) => outcomes.push(std::mem::take(&mut change.outcome)),
                        Err(error) => host.report_unless_done(must, Err(error)),
                    }
                }
                change.outcome = Outcome::default();
                Ok(outcomes)
            },
            move |host, result| {
                let outcomes = match result {
                    Ok(result) => result,
                    Err(gone) => Err(ApiError::new(Code::Internal, gone.to_string())),
                };
                let mut state = host.unwritten.lock();
                state.is_tried = false;
                let Ok(outcomes) = outcomes else { return };
                let captions = state.waiting.drain(..count).filter(|must| must.caption_of.is_some()).count();
                state.captions -= captions;
                let is_over = state.waiting.is_empty();
                let broken = if is_over { std::mem::take(&mut state.broken) } else { BTreeSet::new() };
                if is_over {
                    state.since = None;
                }
                drop(state);
                outcomes.into_iter().for_each(|outcome| host.carry_out(outcome));
                for cid in broken {
                    let error = "captions were lost while the journal could not be written".to_string();
                    host.tell(cid, Input::Failed { error });
                }
                if !is_over {
                    host.retry();
                }
            },
        );
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_so_many_captions_wait_and_the_calls_that_lost_one_are_known() {
        let mut state = State::default();
        let caption = |call: &str| {
            let mut must = Must::new(|_| Ok(()));
            must.caption_of = Some(Cid::new("default", call).unwrap());
            must
        };
        (0..MOST_CAPTIONS).for_each(|_| state.push(caption("whole")));
        assert!(state.broken.is_empty());
        state.push(caption("broken"));
        // What is no caption waits all the same: that somebody has left is not given up.
        state.push(Must::new(|_| Ok(())));
        assert_eq!((state.captions, state.waiting.len()), (MOST_CAPTIONS, MOST_CAPTIONS + 1));
        assert_eq!(state.broken, BTreeSet::from([Cid::new("default", "broken").unwrap()]));
    }
}
