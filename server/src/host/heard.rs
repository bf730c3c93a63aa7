//! What the engine says of a call's tracks.
//!
//! In: captions, interims, what was given up, and that somebody has left. Out: changes of their calls, which are tried until they
//! are on disk; interims apart, which are told and kept nowhere.

use std::sync::Arc;

use cuewire::engine::Ledger;
use serde_json::json;

use super::unwritten::Must;
use super::{Host, report};
use crate::call::{Caption, Cid, Input, Interim};
use crate::stages::{Listener, Missed};
use crate::wire::render;

impl Listener for Host {
    fn tell(self: Arc<Self>, cid: Cid, input: Input) {
        Self::tell(&self, cid, input);
    }

    /// A participant's connection is closed, and their last caption is there: they have left, unless they are back by now.
    fn left(self: Arc<Self>, cid: Cid, user_id: String) {
        self.must(Must::new(move |change| {
            // Who joins does so in a job too: no join comes in between.
            if change.host.stages.is_here(&cid, &user_id) {
                return Ok(());
            }
            change.tell(&cid, Input::Left { user_id: user_id.clone() })
        }));
    }

    /// A caption is final.
    fn heard(self: Arc<Self>, cid: Cid, caption: Caption, mark: u64, ledger: Option<Ledger>) {
        let of = cid.clone();
        let mut job = Must::new(move |change| {
            change.ledger = ledger;
            change.tell(&cid, Input::Caption { caption: caption.clone(), mark })
        });
        job.caption_of = Some(of);
        self.must(job);
    }

    /// Something is known of a caption that is still open: told where captions are shown, and kept nowhere.
    fn interim(self: Arc<Self>, cid: Cid, mark: u64, event: Interim) {
        self.submit(
            move |change| {
                let call = change.store.call(&cid)?.filter(|call| call.runs().shows(mark));
                call.map_or(Ok(()), |call| change.post_interim(&call, &event))
            },
            |result| report("telling of an interim", result),
        );
    }

    /// What somebody said was given up.
    fn missed(self: Arc<Self>, cid: Cid, missed: Missed) {
        self.must(Must::new(move |change| {
            let Some(call) = change.store.call(&cid)?.filter(|call| call.runs().is_any()) else { return Ok(()) };
            let Missed { speaker_id, start_time, end_time, reason } = &missed;
            let mut event = json!({
                "type": "call.captions_gap", "call_cid": cid.to_string(), "created_at": change.now.as_nanos(),
                "speaker_id": speaker_id, "start_time": start_time.as_nanos(), "end_time": end_time.as_nanos(),
                "reason": reason,
            });
            change.put_event(&cid, &event)?;
            render::for_browser(&mut event);
            change.post(&call, event.to_string().into())
        }));
    }
}
