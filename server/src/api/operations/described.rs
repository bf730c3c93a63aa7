//! What operations on calls take and answer, and those that are no handler's.
//!
//! In: an operation. Out: what it says of itself; of other groups it is beside their handlers.

use cuewire::audio::{MAX_CHANNELS, check_rate};
use serde_json::{Value, json};

use super::users::user_request;
use super::{
    CAPTIONS_PAGE, MAX_CAPTION_BYTES, MAX_LABEL_BYTES, MOST_ENTRIES, Operation, app, call_types, rtp, storages, users,
};
use crate::api::models::{self, language, speech_segment_config, user_id, written_time};
use crate::api::schema::{
    Described, any_object, component, flag, integer, list, list_of_most, object, one_of, request, text, text_of, with,
};
use crate::limits::Limits;

/// Errors of what is done with a call: it is not there, or whoever asks may not.
const OF_CALL: &[u16] = &[403, 404];

/// What an operation takes and answers.
pub(in crate::api) fn described(operation: Operation, limits: &Limits) -> Described {
    use Operation as O;
    let nothing = || object(json!({}));
    match operation {
        O::UpdateUsers | O::UpdateUsersPartial | O::QueryUsers | O::ListRoles | O::CreateRole | O::ListPermissions => {
            users::described(operation, limits)
        }
        O::ListCallTypes | O::CreateCallType | O::GetCallType | O::UpdateCallType | O::DeleteCallType => {
            call_types::described(operation)
        }
        O::GetApp | O::UpdateApp | O::ListDeadLetters | O::CheckSqs => app::described(operation, limits),
        O::ListStorages | O::CreateStorage | O::UpdateStorage | O::DeleteStorage | O::CheckStorage => {
            storages::described(operation)
        }
        O::GetOrCreateCall => Described::new("A call, which is made where there is none", with_created())
            .body(request(&[], json!({"data": new_call()})))
            .errors(OF_CALL),
        O::GetCall => Described::new("A call", models::call_state()).errors(OF_CALL),
        O::UpdateCall => {
            let fields = json!({
                "settings_override": component("CallSettingsRequest"), "custom": any_object(), "starts_at": written_time(),
            });
            Described::new("Changes a call; what is left out stays", models::call_state())
                .body(request(&[], fields))
                .errors(OF_CALL)
        }
        O::DeleteCall => {
            Described::new("Deletes a call; its transcripts stay", object(json!({"call": component("CallResponse")})))
                .body(request(&[], json!({})))
                .errors(OF_CALL)
        }
        O::MarkEnded => Described::new("Ends a call for good", nothing()).body(on_behalf(json!({}))).errors(OF_CALL),
        O::QueryCalls => {
            let fields = with(paged(limits), json!({"watch": json!({"type": ["boolean", "null"]})}));
            let answer = object(json!({"calls": list(component("CallStateResponse"))}));
            Described::new("Calls that are like this, and that whoever asks may read", with_pages(answer)).body(fields)
        }
        O::QueryMembers => {
            let mut fields = with(paged(limits), json!({"type": models::id(), "id": models::id()}));
            fields["required"] = json!(["type", "id"]);
            let answer = object(json!({"members": list(component("MemberResponse"))}));
            Described::new("Members of a call that are like this", with_pages(answer)).body(fields).errors(OF_CALL)
        }
        O::UpdateMembers => {
            let fields = json!({
                "update_members": members(), "remove_members": list_of_most(MOST_ENTRIES, text()),
            });
            let answer = object(json!({"members": list(component("MemberResponse"))}));
            Described::new("Adds, changes and removes members", answer).body(on_behalf(fields)).errors(OF_CALL)
        }
        O::UpdateUserPermissions => {
            let names = || list_of_most(MOST_ENTRIES, text());
            let fields = json!({"user_id": user_id(), "grant_permissions": names(), "revoke_permissions": names()});
            Described::new("Changes what a user may in a call", nothing())
                .body(request(&["user_id"], fields))
                .errors(OF_CALL)
        }
        O::StartTranscription => Described::new("Starts transcription", nothing())
            .body(start(json!({"enable_closed_captions": flag(), "transcription_external_storage": text()})))
            .errors(OF_CALL),
        O::StartClosedCaptions => Described::new("Starts closed captions", nothing())
            .body(start(json!({"enable_transcription": flag(), "external_storage": text()})))
            .errors(OF_CALL),
        O::StopTranscription => Described::new("Stops transcription", nothing())
            .body(on_behalf(json!({"stop_closed_captions": flag()})))
            .errors(OF_CALL),
        O::StopClosedCaptions => Described::new("Stops closed captions", nothing())
            .body(on_behalf(json!({"stop_transcription": flag()})))
            .errors(OF_CALL),
        O::SendClosedCaption => {
            Described::new("A caption from elsewhere", nothing()).body(sent_caption()).errors(OF_CALL)
        }
        O::ListClosedCaptions => {
            let answer =
                with(object(json!({"closed_captions": list(component("CallClosedCaption"))})), json!({"next": text()}));
            Described::new("Captions of the session that goes on", answer)
                .query("since", "Of captions that were shown then or later: RFC 3339, or nanoseconds", text())
                .query("limit", "How many at most", integer(1..=CAPTIONS_PAGE.1))
                .query("next", "Behind which: as an answer said", integer(0..=i64::MAX))
                .errors(OF_CALL)
        }
        O::ListTranscriptions => {
            let answer = object(json!({"transcriptions": list(component("CallTranscription"))}));
            Described::new("Transcripts of a call, with URLs to fetch them by", answer).errors(OF_CALL)
        }
        O::DeleteTranscription => {
            Described::new("Deletes a transcript of the default storage", nothing()).errors(&[404])
        }
        O::CallClientEvent => {
            Described::new("What a client reports of itself: it is read, and forgotten", nothing()).body(json!({}))
        }
        O::Connect => Described::new("A WebSocket, of events of the calls that its user watches", Value::Null)
            .query("interim", "`1`: with captions that are not final", one_of(["0", "1"]))
            .query("stream-auth-type", "As the header of this name", one_of(["jwt", "anonymous"])),
        O::Audio => {
            let rates = || (1..=1_000_000).filter(|rate| check_rate(*rate).is_ok()).map(i64::from);
            let (least, most) = (rates().min().unwrap_or_default(), rates().max().unwrap_or_default());
            Described::new("A WebSocket that is a participant: its binary frames are audio", Value::Null)
                .query("encoding", "What frames hold", one_of(["linear16", "float32", "opus"]))
                .query("sample_rate", "Hz", integer(least..=most))
                .query("channels", "Interleaved", integer(1..=MAX_CHANNELS as i64))
        }
        O::OpenRtp | O::CloseRtp => rtp::described(operation).errors(&[403, 404, 429]),
        O::DownloadTranscript | O::ProbeTranscript => {
            Described::new("A transcript's file, or a range of it", Value::Null)
                .needed("expires", "Until when the URL does, in Unix seconds", text())
                .needed("signature", "That the URL was made here", text())
                .errors(&[206, 304, 403, 404, 412, 416])
        }
        O::Health => Described::new("Whether the server runs", Value::Null),
        O::Readiness => {
            Described::new("Whether it could serve a request, and keep what it changes", Value::Null).errors(&[503])
        }
        O::OpenApi => Described::new("This document", Value::Null).errors(&[429]),
    }
}

fn with_created() -> Value {
    let mut state = models::call_state();
    state["properties"]["created"] = flag();
    if let Some(needed) = state["required"].as_array_mut() {
        needed.push(json!("created"));
    }
    state
}

fn members() -> Value {
    let member = request(&["user_id"], json!({"user_id": user_id(), "role": text(), "custom": any_object()}));
    list_of_most(MOST_ENTRIES, member)
}

fn new_call() -> Value {
    request(
        &[],
        json!({
            "created_by_id": user_id(), "created_by": user_request(&["id"]), "members": members(),
            "settings_override": component("CallSettingsRequest"), "custom": any_object(), "starts_at": written_time(),
            "team": text(),
        }),
    )
}

/// With the user on whose behalf a server asks.
fn on_behalf(fields: Value) -> Value {
    with(request(&[], fields), request(&[], json!({"user_id": user_id()}))["properties"].clone())
}

fn start(fields: Value) -> Value {
    let mut language = language();
    if let Some(allowed) = language["anyOf"].as_array_mut() {
        allowed.push(json!({"enum": ["", null], "description": "That of the settings"}));
    }
    let recognition = json!({"language": language, "speech_segment_config": speech_segment_config()});
    with(on_behalf(fields), request(&[], recognition)["properties"].clone())
}

fn sent_caption() -> Value {
    request(
        &["speaker_id", "text"],
        json!({
            "speaker_id": user_id(), "text": text_of(0..=MAX_CAPTION_BYTES), "language": text_of(0..=MAX_LABEL_BYTES),
            "service": text_of(0..=MAX_LABEL_BYTES), "start_time": written_time(), "end_time": written_time(),
            "translated": flag(), "user_id": user_id(),
        }),
    )
}

/// Which of many, in which order, and which page of them.
pub(super) fn paged(limits: &Limits) -> Value {
    request(
        &[],
        json!({
            "filter_conditions": any_object(), "sort": component("Sort"), "limit": integer(0..=limits.page.into()),
            "next": component("Cursor"), "prev": component("Cursor"),
        }),
    )
}

fn with_pages(answer: Value) -> Value {
    with(answer, json!({"next": text(), "prev": text()}))
}
