//! Calls, members and events as clients read them.
//!
//! In: the state. Out: JSON with times as integers of nanoseconds; [`for_browser`] turns them into RFC 3339.

use std::collections::{BTreeMap, BTreeSet};

use cuewire::engine::Ledger;
use cuewire::time::Timestamp;
use serde_json::{Value, json};

use crate::call::settings::{DEFAULT_INACTIVITY_S, Mode, Settings, SettingsError};
use crate::call::{
    Call, CallType, Caption, Cid, Env, Event, Interim, Membership, Participant, Process, Session, Transcript,
};
use crate::user::Profile;

/// Fields in which nothing is a time: somebody keeps there what they like, or what they name.
const NO_TIMES: &[&str] = &["custom", "settings", "notification_settings", "participants_count_by_role"];
/// Fields that hold a time, wherever they are but there.
const TIMES: &[&str] = &[
    "created_at",
    "updated_at",
    "deleted_at",
    "starts_at",
    "started_at",
    "ended_at",
    "joined_at",
    "start_time",
    "end_time",
    "last_active",
];

/// Who the people of a call are.
pub type Profiles<'a> = &'a dyn Fn(&str) -> Profile;

fn put(object: &mut Value, name: &str, value: Option<Value>) {
    if let (Some(object), Some(value)) = (object.as_object_mut(), value) {
        object.insert(name.to_string(), value);
    }
}

fn nanos(at: Option<Timestamp>) -> Option<Value> {
    at.map(|at| json!(at.as_nanos()))
}

/// Turns times into RFC 3339.
pub fn for_browser(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(for_browser),
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut().filter(|(name, _)| !NO_TIMES.contains(&name.as_str())) {
                match value.as_i64().filter(|_| TIMES.contains(&name.as_str())) {
                    Some(nanos) => *value = json!(Timestamp::from_nanos(nanos).to_string()),
                    None => for_browser(value),
                }
            }
        }
        _ => {}
    }
}

/// What is set where nothing is: the devices stay off, and what cuewire does not do is disabled.
pub(crate) fn defaults() -> Value {
    let layout = || json!({"name": "", "external_app_url": "", "external_css_url": ""});
    json!({
        "audio": {
            "access_request_enabled": false, "default_device": "speaker", "hifi_audio_enabled": false,
            "mic_default_on": false, "opus_dtx_enabled": true, "redundant_coding_enabled": true,
            "speaker_default_on": true,
        },
        "backstage": {"enabled": false},
        "broadcasting": {
            "enabled": false,
            "hls": {"auto_on": false, "enabled": false, "quality_tracks": [], "layout": layout()},
            "rtmp": {"enabled": false, "quality": "", "layout": layout()},
        },
        "encryption": {"mode": "disabled"},
        "frame_recording": {"capture_interval_in_seconds": 0, "mode": "disabled"},
        "geofencing": {"names": []},
        "individual_recording": {"mode": "disabled"},
        "limits": {"max_participants_exclude_roles": []},
        "raw_recording": {"mode": "disabled"},
        "recording": {"audio_only": false, "mode": "disabled", "quality": "", "layout": layout()},
        "ring": {"auto_cancel_timeout_ms": 0, "incoming_call_timeout_ms": 0, "missed_call_timeout_ms": 0},
        "screensharing": {"access_request_enabled": false, "enabled": false},
        "session": {"inactivity_timeout_seconds": DEFAULT_INACTIVITY_S},
        "thumbnails": {"enabled": false},
        "transcription": {
            "mode": Mode::default(), "closed_caption_mode": Mode::default(), "language": "en",
            "speech_segment_config": cuewire::config::SpeechSegmentConfig::default(),
            "translation": {"enabled": false, "languages": []},
        },
        "video": {
            "access_request_enabled": false, "camera_default_on": false, "camera_facing": "front", "enabled": false,
            "target_resolution": {"height": 720, "width": 1280},
        },
    })
}

/// Whether settings are of the kinds that clients expect.
///
/// # Errors
/// The first that is not.
pub fn check_kinds(settings: &Settings) -> Result<(), SettingsError> {
    fn check(field: &str, given: &Value, default: &Value) -> Result<(), SettingsError> {
        let allowed = match default {
            Value::Bool(_) if !given.is_boolean() => "true, false",
            Value::Number(_) if !given.is_number() => "a number",
            Value::String(_) if !given.is_string() => "a text",
            Value::Array(_) if !given.is_array() => "a list",
            Value::Object(_) if !given.is_object() => "an object",
            _ => {
                let pairs = default.as_object().into_iter().flatten();
                let given = |name: &String| given.get(name).filter(|given| !given.is_null());
                let mut pairs = pairs.filter_map(|(name, default)| Some((name, given(name)?, default)));
                return pairs.try_for_each(|(name, given, default)| check(&format!("{field}.{name}"), given, default));
            }
        };
        let value = given.to_string().chars().take(100).collect();
        Err(SettingsError { field: field.trim_start_matches('.').into(), value, allowed: allowed.into() })
    }
    check("", &Value::Object(settings.tree().clone()), &defaults())
}

/// Settings as a `CallSettingsResponse`, whole.
#[must_use]
pub fn settings(settings: &Settings) -> Value {
    let Value::Object(defaults) = defaults() else { return Value::Null };
    let whole = Settings::parse(defaults).map(|defaults| defaults.overridden(settings));
    // The defaults are settings; a test says so.
    whole.map_or(Value::Null, |whole| Value::Object(whole.tree().clone()))
}

/// A call as a `CallResponse`.
#[must_use]
pub fn call(call: &Call, call_type: &CallType, profiles: Profiles<'_>) -> Value {
    let (cid, runs) = (call.cid(), call.runs());
    let mut rendered = json!({
        "type": cid.call_type(),
        "id": cid.id(),
        "cid": cid.to_string(),
        "created_at": call.created_at().as_nanos(),
        "updated_at": call.updated_at().as_nanos(),
        "created_by": profiles(call.created_by()).json(),
        "current_session_id": call.session().map_or("", Session::id),
        "custom": call.custom(),
        "backstage": false,
        "recording": false,
        "transcribing": runs.of(Process::Transcription).is_some(),
        "captioning": runs.of(Process::Captions).is_some(),
        "translating": runs.recognition().is_some_and(|recognition| recognition.translate),
        "blocked_user_ids": [],
        "egress": {"broadcasting": false, "rtmps": []},
        "ingress": {"rtmp": {"address": ""}, "srt": {"address": ""}, "whip": {"address": ""}},
        "settings": settings(&call.settings_in(call_type)),
    });
    put(&mut rendered, "starts_at", nanos(call.starts_at()));
    put(&mut rendered, "ended_at", nanos(call.ended_at()));
    put(&mut rendered, "team", call.team().map(|team| json!(team)));
    put(&mut rendered, "session", call.session().map(|session| self::session(session, profiles)));
    rendered
}

fn session(session: &Session, profiles: Profiles<'_>) -> Value {
    let participants = || session.participants().values();
    let mut by_role: BTreeMap<&str, u32> = BTreeMap::new();
    participants().for_each(|participant| *by_role.entry(&participant.role).or_default() += 1);
    json!({
        "id": session.id(),
        "started_at": session.started_at().as_nanos(),
        "participants": participants().map(|one| participant(one, profiles)).collect::<Vec<_>>(),
        "participants_count_by_role": by_role,
        "anonymous_participant_count": 0,
        "accepted_by": {},
        "missed_by": {},
        "rejected_by": {},
    })
}

fn participant(participant: &Participant, profiles: Profiles<'_>) -> Value {
    json!({
        "joined_at": participant.joined_at.as_nanos(),
        "role": participant.role,
        "user_session_id": participant.user_session_id,
        "user": profiles(&participant.user_id).json(),
    })
}

/// A member as a `MemberResponse`.
#[must_use]
pub fn member(user_id: &str, membership: &Membership, profiles: Profiles<'_>) -> Value {
    let Membership { member, created_at, updated_at } = membership;
    let mut rendered = json!({
        "user_id": user_id,
        "user": profiles(user_id).json(),
        "custom": member.custom,
        "created_at": created_at.as_nanos(),
        "updated_at": updated_at.as_nanos(),
    });
    put(&mut rendered, "role", member.role.as_ref().map(|role| json!(role)));
    rendered
}

/// A transcript as a `CallTranscription`.
#[must_use]
pub fn transcript(transcript: &Transcript) -> Value {
    json!({
        "filename": transcript.filename,
        "url": transcript.url,
        "session_id": transcript.session_id,
        "start_time": transcript.start_time.as_nanos(),
        "end_time": transcript.end_time.as_nanos(),
    })
}

/// A call type as a `CallTypeResponse`.
#[must_use]
pub fn call_type(call_type: &CallType) -> Value {
    let mut notifications = json!({"enabled": false});
    for name in ["call_live_started", "call_missed", "call_notification", "call_ring", "session_started"] {
        let text = || json!({"title": "", "body": ""});
        notifications[name] = json!({"enabled": false, "apns": text(), "fcm": {"data": {}}});
    }
    if let Some(notifications) = notifications.as_object_mut() {
        notifications.extend(call_type.notification_settings.clone());
    }
    let mut rendered = json!({
        "name": call_type.name,
        "created_at": call_type.created_at.as_nanos(),
        "updated_at": call_type.updated_at.as_nanos(),
        "grants": call_type.grants,
        "settings": settings(&call_type.settings),
        "notification_settings": notifications,
    });
    put(&mut rendered, "external_storage", call_type.external_storage.as_ref().map(|name| json!(name)));
    rendered
}

/// When a caption came about.
#[must_use]
pub fn ledger(ledger: &Ledger) -> Value {
    json!({
        "speech_end": ledger.speech_end,
        "silence_reached": ledger.silence_reached,
        "queued": ledger.queued,
        "decode_start": ledger.decode_start,
        "decode_end": ledger.decode_end,
        "emitted": ledger.emitted,
    })
}

/// What is known of a caption that is open.
#[must_use]
pub fn interim(cid: &Cid, event: &Interim, now: Timestamp, profiles: Profiles<'_>) -> Value {
    let (name, mut fields) = match event {
        Interim::Text { caption: said, revision, stable_chars } => (
            "call.closed_caption_interim",
            json!({"closed_caption": caption(said, profiles), "revision": revision, "stable_chars": stable_chars}),
        ),
        Interim::Retracted { id, reason } => ("call.closed_caption_retracted", json!({"id": id, "reason": reason})),
    };
    put(&mut fields, "type", Some(json!(name)));
    put(&mut fields, "call_cid", Some(json!(cid.to_string())));
    put(&mut fields, "created_at", nanos(Some(now)));
    fields
}

/// All members.
#[must_use]
pub fn members(call: &Call, profiles: Profiles<'_>) -> Vec<Value> {
    call.members().iter().map(|(user_id, membership)| member(user_id, membership, profiles)).collect()
}

/// Of each role of the call type what it may.
fn capabilities_by_role(call_type: &CallType) -> BTreeMap<&str, &BTreeSet<String>> {
    call_type.grants.iter().collect()
}

fn caption(caption: &Caption, profiles: Profiles<'_>) -> Value {
    let mut rendered = json!({
        "id": caption.id,
        "text": caption.text,
        "language": caption.language,
        "speaker_id": caption.speaker_id,
        "start_time": caption.start_time.as_nanos(),
        "end_time": caption.end_time.as_nanos(),
        "translated": caption.translated,
        "user": profiles(&caption.speaker_id).json(),
    });
    put(&mut rendered, "service", caption.service.as_ref().map(|service| json!(service)));
    rendered
}

/// An event, with the call as it was then.
#[must_use]
pub fn event(then: &Call, event: &Event, env: &Env<'_>, profiles: Profiles<'_>) -> Value {
    let whole = || call(then, env.call_type, profiles);
    let members_of = |user_ids: &[String]| -> Vec<Value> {
        let all = user_ids.iter().filter_map(|id| then.members().get_key_value(id));
        all.map(|(user_id, membership)| member(user_id, membership, profiles)).collect()
    };
    let (name, mut fields) = match event {
        Event::Created => ("call.created", json!({"call": whole(), "members": members(then, profiles)})),
        Event::Updated => {
            ("call.updated", json!({"call": whole(), "capabilities_by_role": capabilities_by_role(env.call_type)}))
        }
        Event::Ended { by } => {
            let mut fields = json!({"call": whole()});
            put(&mut fields, "user", by.as_ref().map(|user_id| profiles(user_id).json()));
            ("call.ended", fields)
        }
        Event::Deleted => ("call.deleted", json!({"call": whole()})),
        Event::SessionStarted { session_id } => {
            ("call.session_started", json!({"call": whole(), "session_id": session_id}))
        }
        Event::SessionEnded { session_id } => {
            ("call.session_ended", json!({"call": whole(), "session_id": session_id}))
        }
        Event::ParticipantJoined { session_id, participant: one } => (
            "call.session_participant_joined",
            json!({"session_id": session_id, "participant": participant(one, profiles)}),
        ),
        Event::ParticipantLeft { session_id, participant: one, at } => (
            "call.session_participant_left",
            json!({
                "session_id": session_id,
                "participant": participant(one, profiles),
                "duration_seconds": at.nanos_since(one.joined_at).max(0) / 1_000_000_000,
            }),
        ),
        Event::MembersAdded { user_ids } => {
            ("call.member_added", json!({"call": whole(), "members": members_of(user_ids)}))
        }
        Event::MembersUpdated { user_ids } => (
            "call.member_updated",
            json!({
                "call": whole(), "members": members_of(user_ids),
                "capabilities_by_role": capabilities_by_role(env.call_type),
            }),
        ),
        Event::MembersRemoved { user_ids } => ("call.member_removed", json!({"call": whole(), "members": user_ids})),
        Event::PermissionsUpdated { user_id, own_capabilities } => (
            "call.permissions_updated",
            json!({"user": profiles(user_id).json(), "own_capabilities": own_capabilities}),
        ),
        Event::ProcessStarted { process, egress_id } => match process {
            Process::Transcription => ("call.transcription_started", json!({"egress_id": egress_id})),
            Process::Captions => ("call.closed_captions_started", json!({})),
        },
        Event::ProcessStopped { process, egress_id } => match process {
            Process::Transcription => ("call.transcription_stopped", json!({"egress_id": egress_id})),
            Process::Captions => ("call.closed_captions_stopped", json!({})),
        },
        Event::ProcessFailed { process, egress_id, error } => match process {
            Process::Transcription => transcription_failed(egress_id, error),
            Process::Captions => ("call.closed_captions_failed", json!({"error": error})),
        },
        Event::TranscriptionReady { egress_id, transcript } => transcription_ready(egress_id, transcript),
        Event::ClosedCaption(said) => ("call.closed_caption", json!({"closed_caption": caption(said, profiles)})),
    };
    head(&mut fields, name, then.cid(), env.now);
    fields
}

/// What became of the file of a run whose call is not there any more: the event that would have told of it.
#[must_use]
pub fn file_event(cid: &Cid, egress_id: &str, outcome: Result<&Transcript, &str>, now: Timestamp) -> Value {
    let (name, mut fields) = match outcome {
        Ok(transcript) => transcription_ready(egress_id, transcript),
        Err(error) => transcription_failed(egress_id, error),
    };
    head(&mut fields, name, cid, now);
    fields
}

fn transcription_ready(egress_id: &str, file: &Transcript) -> (&'static str, Value) {
    ("call.transcription_ready", json!({"egress_id": egress_id, "call_transcription": transcript(file)}))
}

fn transcription_failed(egress_id: &str, error: &str) -> (&'static str, Value) {
    ("call.transcription_failed", json!({"egress_id": egress_id, "error": error}))
}

/// What all events have.
fn head(fields: &mut Value, name: &str, cid: &Cid, now: Timestamp) {
    put(fields, "type", Some(json!(name)));
    put(fields, "call_cid", Some(json!(cid.to_string())));
    put(fields, "created_at", nanos(Some(now)));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_set_is_given_back_among_the_defaults() {
        let Value::Object(own) = json!({
            "transcription": {"language": "fr"}, "ring": {"auto_cancel_timeout_ms": 5}, "of_others": {"x": 1}
        }) else {
            panic!()
        };
        let rendered = settings(&Settings::parse(own).unwrap());
        assert_eq!(rendered["transcription"]["language"], "fr");
        assert_eq!(rendered["transcription"]["speech_segment_config"]["max_speech_caption_ms"], 9000);
        assert_eq!(
            rendered["ring"],
            json!({"auto_cancel_timeout_ms": 5, "incoming_call_timeout_ms": 0, "missed_call_timeout_ms": 0})
        );
        assert_eq!((&rendered["of_others"]["x"], rendered.as_object().unwrap().len()), (&json!(1), 17));
    }

    #[test]
    fn times_are_integers_for_servers_and_text_for_browsers_and_what_others_keep_is_left_alone() {
        let mut value = json!({
            "created_at": 1_800_000_000_000_000_001_i64, "custom": {"created_at": 5}, "n": 5,
            "a": [{"start_time": 0, "end_time": null}], "settings": {"of_others": {"start_time": 5}},
            "session": {"participants_count_by_role": {"created_at": 5}},
        });
        for_browser(&mut value);
        let expected = json!({
            "created_at": "2027-01-15T08:00:00.000000001Z", "custom": {"created_at": 5}, "n": 5,
            "a": [{"start_time": "1970-01-01T00:00:00.000000000Z", "end_time": null}],
            "settings": {"of_others": {"start_time": 5}}, "session": {"participants_count_by_role": {"created_at": 5}},
        });
        assert_eq!(value, expected);
    }
}
