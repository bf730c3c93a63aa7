//! What a call says and wants, taken into a change: events for those who watch and for hooks, and transcripts.
//!
//! In: a call's outputs. Out: rows in the database, and posts to connections that may read the call.

use std::sync::Arc;

use axum::extract::ws::Utf8Bytes;
use cuewire::transcript::{Fragment, jsonl};
use serde_json::Value;

use super::change::{Change, Post};
use crate::call::grants::Capability;
use crate::call::{Call, CallType, Cid, Effect, Event, Interim, Output};
use crate::clock::new_id;
use crate::events::{Text, Watcher};
use crate::store::Outgoing;
use crate::wire::error::ApiError;
use crate::wire::render;

impl Change<'_> {
    /// As a `CallResponse`.
    pub(crate) fn render_call(&self, call: &Call) -> Result<Value, ApiError> {
        let call_type = self.call_type(call.cid().call_type())?;
        Ok(render::call(call, &call_type, &|id| self.profile(id)))
    }

    /// Its members, as `MemberResponse`s.
    pub(crate) fn render_members(&self, call: &Call) -> Vec<Value> {
        render::members(call, &|id| self.profile(id))
    }

    /// Takes what a call says and wants into the change.
    pub(super) fn drain(&mut self, call: &mut Call, call_type: &CallType) -> Result<(), ApiError> {
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
    pub(super) fn put_event(&mut self, cid: &Cid, rendered: &Value) -> Result<(), ApiError> {
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

    /// The connections that watch a call and may read it, or only those of them that want interims. Those that may no longer
    /// lose it.
    pub(super) fn readers(&mut self, call: &Call, of_interims: bool) -> Result<Vec<String>, ApiError> {
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

    pub(super) fn post_interim(&mut self, call: &Call, event: &Interim) -> Result<(), ApiError> {
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
    pub(super) fn write(&mut self, cid: &Cid, effect: &Effect) -> Result<(), ApiError> {
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
                self.outcome.finished = true;
            }
            Effect::Hear { .. } | Effect::Disconnect { .. } => {}
        }
        Ok(())
    }
}
