//! Speech without a caption: somebody is told.
//!
//! In: what the engine gave up or has not answered, and what could not be written. Out, to those who watch and to hooks: of each
//! span that was given up `call.captions_gap`, with `speaker_id`, `start_time`, `end_time`, `reason`; where it goes on, a metric, and
//! `call.captions_stalled`: `speaker_id` where it is one speaker's captions that are missing, `seconds`, `reason`.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::ws::Utf8Bytes;
use serde_json::json;

use super::unwritten::Must;
use super::{Change, Host, Post};
use crate::call::{Call, Cid};
use crate::events::Text;
use crate::wire::error::ApiError;
use crate::wire::render;

/// Tracks, and calls, of which this is so for longer than half of the event's time.
const METRIC: &str = "cuewire_stalled_captions";

/// Of whom was told.
pub(crate) struct Stalls {
    /// After so long somebody is told; after half of it the metric counts it.
    pub(crate) told_after: Duration,
    told: Mutex<HashSet<(Cid, String)>>,
}

impl Stalls {
    pub(crate) fn new(told_after: Duration) -> Self {
        metrics::describe_gauge!(METRIC, "Speakers and calls with speech and no caption for half of stall_event_s");
        Self { told_after, told: Mutex::default() }
    }
}

impl Host {
    /// Looks whether captions are missing.
    pub(super) fn look_for_stalls(self: &Arc<Self>) {
        let Stalls { told_after, told } = &self.stalls;
        let mut stalled = self.stages.stalled(*told_after / 2);
        if let Some(lasts) = self.unwritten.lasts().filter(|lasts| *lasts >= *told_after / 2) {
            stalled.extend(self.unwritten.calls().into_iter().map(|cid| (cid, String::new(), lasts)));
        }
        metrics::gauge!(METRIC).set(stalled.len() as f64);
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        let late: Vec<_> = stalled.into_iter().filter(|(.., lasts)| lasts >= told_after).collect();
        told.retain(|known| late.iter().any(|(cid, user_id, _)| (cid, user_id) == (&known.0, &known.1)));
        for (cid, speaker_id, lasts) in late {
            if !told.insert((cid.clone(), speaker_id.clone())) {
                continue;
            }
            tracing::error!("{cid}: speech and no caption for {} s", lasts.as_secs());
            self.tell_of_stall(&cid, speaker_id, lasts);
        }
    }

    fn tell_of_stall(self: &Arc<Self>, cid: &Cid, speaker_id: String, lasts: Duration) {
        let reason = if speaker_id.is_empty() {
            "captions cannot be written"
        } else {
            "recognition does not keep up, or does not answer"
        };
        let event = move |change: &Change<'_>, call: &Call| {
            let mut event = json!({
                "type": "call.captions_stalled", "call_cid": call.cid().to_string(),
                "created_at": change.now.as_nanos(), "seconds": lasts.as_secs(), "reason": reason,
            });
            if !speaker_id.is_empty() {
                event["speaker_id"] = json!(speaker_id);
            }
            event
        };
        let (of, for_watchers) = (cid.clone(), event.clone());
        // Nothing of this is written: where nothing can be, it is said all the same.
        self.submit_read(
            move |change| {
                let Some(call) = change.store.call(&of)?.filter(|call| call.runs().is_any()) else { return Ok(()) };
                let mut event = for_watchers(change, &call);
                render::for_browser(&mut event);
                change.post(&call, event.to_string().into())
            },
            |result| super::report("telling of a stall", result),
        );
        let of = cid.clone();
        self.must(Must::new(move |change| {
            let Some(call) = change.store.call(&of)?.filter(|call| call.runs().is_any()) else { return Ok(()) };
            let event = event(change, &call);
            change.put_event(&of, &event)
        }));
    }
}

impl Change<'_> {
    pub(super) fn post(&mut self, call: &Call, text: Utf8Bytes) -> Result<(), ApiError> {
        let connections = self.readers(call, false)?;
        let text = Text { plain: Some(text.clone()), detailed: text };
        self.outcome.posts.push(Post { connections, text, is_interim: false });
        Ok(())
    }
}
