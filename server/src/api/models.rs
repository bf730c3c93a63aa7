//! The components of the document: what [`crate::wire::render`] and others render, and what several requests hold.
//!
//! In: the constants and the defaults that the code itself goes by. Out: a schema by each name.

use std::collections::BTreeSet;

use cuewire::config::{Language, MaxSpeechCaptionMs, SilenceDurationMs};
use serde_json::{Map, Value, json};

use super::schema::{
    any_object, component, flag, integer, kinds, list, list_of_most, map, object, one_of, request, text, text_of, time,
    with,
};
use crate::app;
use crate::call::MAX_ID_CHARS;
use crate::call::settings::{MAX_INACTIVITY_S, Mode};
use crate::wire::error::Code;
use crate::wire::render;

/// Bytes of users' ids.
pub(super) const USER_ID_BYTES: std::ops::RangeInclusive<usize> = 1..=255;
/// Fields that one query is sorted by.
pub(super) const MOST_SORTS: usize = 8;

/// Of calls, call types and storages.
pub(super) fn id() -> Value {
    json!({"type": "string", "pattern": format!("^[A-Za-z0-9_-]{{1,{MAX_ID_CHARS}}}$")})
}

/// Of a user: the platform's.
pub(super) fn user_id() -> Value {
    let mut schema = text_of(USER_ID_BYTES);
    schema["pattern"] = json!("^[^\\u0000-\\u001f\\u007f-\\u009f]+$");
    schema
}

/// A time in a request.
pub(super) fn written_time() -> Value {
    let why = "RFC 3339 with any offset and fraction, without one in UTC; or nanoseconds since 1970";
    // The format `date-time` has a zone.
    let without_zone = "^\\d{4}-\\d\\d-\\d\\d[Tt ]\\d\\d:\\d\\d(:\\d\\d(\\.\\d{1,9})?)?$";
    json!({"description": why, "anyOf": [
        integer(i64::MIN..=i64::MAX), {"type": "string", "format": "date-time"}, {"type": "string", "pattern": without_zone},
    ]})
}

/// What is spoken.
pub(super) fn language() -> Value {
    let codes: Vec<_> = std::iter::once("auto").chain(Language::all().map(Language::code)).collect();
    let any_case =
        |text: &str| -> String { text.chars().map(|c| format!("[{}{c}]", c.to_ascii_uppercase())).collect() };
    let all: Vec<_> = Language::codes().map(any_case).collect();
    let tag = format!("^({}|({})([-_][A-Za-z0-9]{{1,8}})*)$", any_case("auto"), all.join("|"));
    json!({
        "type": "string", "description": "A code that the loaded model has, with or without a region, or `auto`",
        "anyOf": [{"enum": codes}, {"pattern": tag}],
    })
}

/// Where captions end. The ends of the ranges are those that the settings' own types take.
pub(super) fn speech_segment_config() -> Value {
    fn range<T: TryFrom<u32>>() -> Value {
        let allowed = || (0..=60_000).filter(|ms| T::try_from(*ms).is_ok()).map(i64::from);
        integer(allowed().min().unwrap_or_default()..=allowed().max().unwrap_or_default())
    }
    request(
        &[],
        json!({
            "max_speech_caption_ms": range::<MaxSpeechCaptionMs>(), "silence_duration_ms": range::<SilenceDurationMs>(),
        }),
    )
}

/// Settings of a call type, or a call's own: of the kinds that clients expect, and the leaves that are acted on.
fn settings_request() -> Value {
    let modes = || {
        one_of(
            [Mode::Disabled, Mode::Available, Mode::AutoOn]
                .map(|mode| json!(mode).as_str().unwrap_or_default().to_string()),
        )
    };
    let mut schema = kinds(&render::defaults(), true);
    schema["type"] = json!("object");
    // Those of others are kept as they are.
    schema["additionalProperties"] = json!({"type": ["object", "null"]});
    let english = json!({"type": "array", "items": {"const": "en"}});
    let translation = request(&[], json!({"enabled": flag(), "languages": english}));
    let transcription = request(
        &[],
        json!({
            "mode": modes(), "closed_caption_mode": modes(), "language": language(),
            "speech_segment_config": speech_segment_config(), "translation": translation,
        }),
    );
    let timeout = request(&[], json!({"inactivity_timeout_seconds": integer(1..=i64::from(MAX_INACTIVITY_S))}));
    let own = request(&[], json!({"transcription": transcription, "session": timeout}));
    if let (Some(all), Value::Object(own)) = (schema["properties"].as_object_mut(), own["properties"].clone()) {
        all.extend(own);
    }
    schema
}

fn user_response() -> Value {
    let user = object(json!({
        "id": text(), "role": text(), "language": text(), "teams": list(text()), "custom": any_object(),
        "created_at": time(), "updated_at": time(), "banned": flag(), "invisible": flag(), "online": flag(), "shadow_banned": flag(),
        "blocked_user_ids": list(text()),
    }));
    with(user, json!({"name": text(), "image": text()}))
}

fn full_user_response() -> Value {
    let counts = ["total_unread_count", "unread_channels", "unread_count", "unread_threads"];
    let counts = counts.map(|name| (name.to_string(), json!({"type": "integer"})));
    let lists = ["channel_mutes", "devices", "mutes"].map(|name| (name.to_string(), json!({"type": "array"})));
    let more = object(Value::Object(counts.into_iter().chain(lists).collect()));
    let mut user = with(user_response(), more["properties"].clone());
    if let (Some(names), Some(more)) = (user["required"].as_array_mut(), more["required"].as_array()) {
        names.extend(more.iter().cloned());
    }
    user
}

fn call_response() -> Value {
    let rtmp = object(json!({"address": text()}));
    let call = object(json!({
        "type": text(), "id": text(), "cid": text(), "created_at": time(), "updated_at": time(),
        "created_by": component("UserResponse"), "current_session_id": text(), "custom": any_object(), "backstage": flag(),
        "recording": flag(), "transcribing": flag(), "captioning": flag(), "translating": flag(),
        "blocked_user_ids": list(text()), "egress": object(json!({"broadcasting": flag(), "rtmps": list(any_object())})),
        "ingress": object(json!({"rtmp": rtmp, "srt": rtmp, "whip": rtmp})), "settings": component("CallSettingsResponse"),
    }));
    let session = component("CallSessionResponse");
    with(call, json!({"starts_at": time(), "ended_at": time(), "team": text(), "session": session}))
}

/// A call, its members, and what the one who asks may.
pub(super) fn call_state() -> Value {
    object(json!({
        "call": component("CallResponse"), "members": list(component("MemberResponse")), "own_capabilities": list(text()),
    }))
}

fn caption() -> Value {
    let caption = object(json!({
        "id": text(), "text": text(), "language": text(), "speaker_id": text(), "start_time": time(), "end_time": time(),
        "translated": flag(), "user": component("UserResponse"), "created_at": time(),
    }));
    with(caption, json!({"service": text()}))
}

pub(super) fn call_type_response() -> Value {
    let call_type = object(json!({
        "name": text(), "created_at": time(), "updated_at": time(), "grants": map(list(text())),
        "settings": component("CallSettingsResponse"), "notification_settings": any_object(),
    }));
    with(call_type, json!({"external_storage": text()}))
}

fn app_response() -> Value {
    let mut app = kinds(&app::defaults(), false);
    app["properties"]["event_hooks"] = list(component("EventHook"));
    app["properties"]["webhook_events"] = list(text());
    app["properties"]["enable_hook_payload_compression"] = flag();
    app
}

fn event_hook() -> Value {
    let hook = object(json!({
        "id": text(), "enabled": flag(), "event_types": list(text()), "rfc3339": flag(),
        "timeout_ms": {"type": "integer"}, "product": text(), "created_at": time(), "updated_at": time(), "hook_type": one_of(["webhook", "sqs"]),
    }));
    with(hook, json!({"webhook_url": text(), "sqs_queue_url": text(), "sqs_region": text()}))
}

/// What is wrong, as clients read it.
fn error() -> Value {
    // Two of them have one number.
    let numbers: BTreeSet<_> = Code::ALL.map(Code::number).into();
    object(json!({
        "code": json!({"type": "integer", "enum": numbers, "description": codes()}),
        "message": text(), "StatusCode": json!({"type": "integer"}), "duration": text(), "more_info": text(),
        "details": json!({"type": "array"}),
    }))
}

fn codes() -> String {
    let rows = Code::ALL.map(|code| format!("{} {code:?} ({})", code.number(), code.status()));
    format!("Which kind of error it is, and the status that it comes with: {}", rows.join(", "))
}

/// What answers hold, as servers read it.
pub(super) fn of_answers() -> Map<String, Value> {
    let role = json!({
        "name": text(), "custom": flag(), "scopes": list(text()), "created_at": time(), "updated_at": time(),
    });
    let permission = json!({
        "id": text(), "name": text(), "action": text(), "description": text(), "custom": flag(), "level": text(),
        "owner": flag(), "owner_resource": text(), "same_team": flag(), "tags": list(text()),
    });
    let session = json!({
        "id": text(), "started_at": time(), "participants": list(component("CallParticipantResponse")),
        "participants_count_by_role": map(json!({"type": "integer"})),
        "anonymous_participant_count": json!({"type": "integer"}), "accepted_by": any_object(), "missed_by": any_object(),
        "rejected_by": any_object(),
    });
    let participant = json!({
        "joined_at": time(), "role": text(), "user_session_id": text(), "user": component("UserResponse"),
    });
    let member = json!({
        "user_id": text(), "user": component("UserResponse"), "custom": any_object(), "created_at": time(),
        "updated_at": time(),
    });
    let transcription = json!({
        "filename": text(), "url": text(), "session_id": text(), "start_time": time(), "end_time": time(),
    });
    let storage = json!({"name": text(), "bucket": text(), "path": text(), "type": one_of(["s3", "gcs", "abs"])});
    let letter = json!({
        "hook_id": text(), "webhook_id": text(), "call_cid": text(), "created_at": time(),
        "given_up_at": {"type": "integer"}, "attempts": {"type": "integer"}, "error": text(), "event": any_object(),
    });
    let all = [
        ("Time", json!({"type": "integer", "format": "int64", "description": "Nanoseconds since 1970, UTC"})),
        ("UserResponse", user_response()),
        ("FullUserResponse", full_user_response()),
        ("CallResponse", call_response()),
        ("CallSettingsResponse", kinds(&render::defaults(), false)),
        ("CallSessionResponse", object(session)),
        ("CallParticipantResponse", object(participant)),
        ("MemberResponse", with(object(member), json!({"role": text()}))),
        ("CallStateResponse", call_state()),
        ("CallTranscription", object(transcription)),
        ("CallClosedCaption", caption()),
        ("CallTypeResponse", call_type_response()),
        ("AppResponseFields", app_response()),
        ("EventHook", event_hook()),
        ("ExternalStorageResponse", object(storage)),
        ("DeadLetter", object(letter)),
        ("Role", object(role)),
        ("Permission", object(permission)),
    ];
    all.into_iter().map(|(name, schema)| (name.to_string(), schema)).collect()
}

/// What requests hold, and what is the same for all.
pub(super) fn of_requests() -> Map<String, Value> {
    let page = "Behind which page: as an answer said";
    let all = [
        ("Error", error()),
        ("CallSettingsRequest", settings_request()),
        (
            "Sort",
            list_of_most(
                MOST_SORTS,
                request(
                    &["field"],
                    json!({
                        "field": text(), "direction": {"type": "integer", "enum": [1, -1]},
                    }),
                ),
            ),
        ),
        ("Cursor", json!({"type": "string", "description": page, "pattern": "^(p[0-9]{1,7})?$"})),
    ];
    all.into_iter().map(|(name, schema)| (name.to_string(), schema)).collect()
}
