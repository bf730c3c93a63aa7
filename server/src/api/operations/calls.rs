//! Calls: made, changed, started, stopped.
//!
//! In: what somebody wants of a call. Out: the call as it is then.

use serde_json::{Map, Value, json};

use super::{
    CAPTIONS_PAGE, MAX_CAPTION_BYTES, MAX_LABEL_BYTES, MOST_ANSWERED_BYTES, Request, actor, check_members,
    check_user_id, flag, input, known_storage, members, object, settings, short, text, texts, time, upsert,
};
use crate::api::route::Operation;
use crate::call::Actor;
use crate::call::settings::{RecognitionPatch, Settings};
use crate::call::{Call, Caption, Cid, Command, Member, NewCall, Process};
use crate::clock::new_id;
use crate::host::Change;
use crate::wire::error::{ApiError, Code};
use crate::wire::time_of;
use crate::wire::token::Token;

pub(super) fn get_or_create(
    change: &mut Change<'_>,
    cid: &Cid,
    mut request: Request,
    connection: Option<String>,
) -> Result<Value, ApiError> {
    let mut data = object(&mut request.body, "data")?.unwrap_or_default();
    let created_by = object(&mut data, "created_by")?;
    let on_behalf = text(&data, "created_by_id").or(created_by.as_ref().and_then(|user| text(user, "id")));
    on_behalf.map_or(Ok(()), check_user_id)?;
    let actor = actor(change, &request.token, cid, on_behalf);
    if let Some(mut user) = created_by {
        // Whom a platform's server tells of while it creates a call.
        if request.token == Token::Server {
            let creator = upsert(change, &mut user)?;
            change.check_users(&[&creator.user.id])?;
        }
    }
    let created = change.store.call(cid)?.is_none();
    let call = if created {
        let new = NewCall {
            members: members(&data, "members")?,
            settings: settings(&mut data, "settings_override")?,
            custom: object(&mut data, "custom")?.unwrap_or_default(),
            starts_at: time(&data, "starts_at")?,
            team: text(&data, "team").map(str::to_string),
        };
        check_members(change, new.members.len())?;
        let creator = actor.user_id().map(str::to_string);
        for id in new_users(&request.token, &new.members).chain(creator.as_deref()) {
            change.keep_user(id)?;
        }
        change.create(&actor, cid, new)?
    } else {
        change.command(cid, &actor, Command::Read)?
    };
    if let Some(connection) = connection {
        // Who may create and not read sees the answer, and no events.
        if change.command(cid, &actor, Command::Read).is_ok() {
            change.watch(&connection, cid);
        }
    }
    let mut answer = whole(change, &call, &actor)?;
    answer["created"] = json!(created);
    Ok(answer)
}

/// Members that become users. Whom a user names may be anybody, and in any number: they are users once they come.
fn new_users<'a>(token: &Token, members: &'a [(String, Member)]) -> impl Iterator<Item = &'a str> {
    let named = if *token == Token::Server { members } else { &[] };
    named.iter().map(|(id, _)| id.as_str())
}

/// A call, its members, and what the one who asks may.
pub(super) fn whole(change: &Change<'_>, call: &Call, actor: &Actor) -> Result<Value, ApiError> {
    Ok(json!({
        "call": change.render_call(call)?,
        "members": change.render_members(call),
        "own_capabilities": change.own_capabilities(call, actor)?,
    }))
}

/// What is commanded of a call that is there.
pub(super) fn on_call(
    change: &mut Change<'_>,
    operation: Operation,
    cid: &Cid,
    request: Request,
    connection: Option<String>,
) -> Result<Value, ApiError> {
    use Operation as O;
    let Request { token, mut body, .. } = request;
    text(&body, "user_id").map_or(Ok(()), check_user_id)?;
    let actor = actor(change, &token, cid, text(&body, "user_id"));
    let command = match operation {
        O::GetCall => Command::Read,
        O::UpdateCall => Command::Update {
            settings: settings(&mut body, "settings_override")?,
            custom: object(&mut body, "custom")?,
            starts_at: time(&body, "starts_at")?,
        },
        O::DeleteCall => Command::Delete,
        O::MarkEnded => Command::MarkEnded,
        O::UpdateMembers => {
            let (update, remove) = (members(&body, "update_members")?, texts(&body, "remove_members")?);
            for id in new_users(&token, &update) {
                change.keep_user(id)?;
            }
            Command::UpdateMembers { update, remove }
        }
        O::UpdateUserPermissions => {
            let Some(user_id) = text(&body, "user_id") else { return input("user_id is missing") };
            check_user_id(user_id)?;
            let user = change.profile(user_id).user;
            let (grant, revoke) = (texts(&body, "grant_permissions")?, texts(&body, "revoke_permissions")?);
            Command::UpdatePermissions { user, grant, revoke }
        }
        O::StartTranscription | O::StartClosedCaptions => {
            let is_transcription = operation == O::StartTranscription;
            let (process, other, storage) = if is_transcription {
                (Process::Transcription, "enable_closed_captions", "transcription_external_storage")
            } else {
                (Process::Captions, "enable_transcription", "external_storage")
            };
            let storage = known_storage(change, &body, storage)?;
            let recognition = recognition(&mut body)?;
            Command::Start { process, recognition, with_other: flag(&body, other)?, storage }
        }
        O::StopTranscription => {
            Command::Stop { process: Process::Transcription, with_other: flag(&body, "stop_closed_captions")? }
        }
        O::StopClosedCaptions => {
            Command::Stop { process: Process::Captions, with_other: flag(&body, "stop_transcription")? }
        }
        O::SendClosedCaption => Command::SendCaption(caption(change, &body)?),
        _ => return input("this is no operation of a call"),
    };
    let call = change.command(cid, &actor, command)?;
    Ok(match operation {
        O::GetCall => {
            if let Some(connection) = connection {
                change.watch(&connection, cid);
            }
            whole(change, &call, &actor)?
        }
        O::UpdateCall => whole(change, &call, &actor)?,
        O::DeleteCall => json!({"call": change.render_call(&call)?}),
        O::UpdateMembers => {
            check_members(change, call.members().len())?;
            json!({"members": change.render_members(&call)})
        }
        _ => json!({}),
    })
}

/// The captions of the session that goes on, for who was away or came late.
pub(super) fn closed_captions(change: &mut Change<'_>, cid: &Cid, request: &Request) -> Result<Value, ApiError> {
    let actor = actor(change, &request.token, cid, None);
    let call = change.command(cid, &actor, Command::Read)?;
    let number = |name: &str| match text(&request.query, name).filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => match text.parse::<i64>() {
            Ok(number) if number >= 0 => Ok(Some(number)),
            _ => input(format!("{name} is `{}`: allowed is a number", short(text))),
        },
    };
    let since = match text(&request.query, "since").filter(|since| !since.is_empty()) {
        None => None,
        Some(since) => {
            let time = time_of(&since.parse::<i64>().map_or_else(|_| json!(since), |nanos| json!(nanos)));
            let wrong = || ApiError::new(Code::Input, format!("since is `{}`: allowed is a time", short(since)));
            Some(time.ok_or_else(wrong)?)
        }
    };
    let limit = number("limit")?.unwrap_or(CAPTIONS_PAGE.0);
    if !(1..=CAPTIONS_PAGE.1).contains(&limit) {
        return input(format!("limit is {limit}: allowed are 1 – {}", CAPTIONS_PAGE.1));
    }
    let Some(session) = call.session() else { return Ok(json!({"closed_captions": []})) };
    let behind = match (number("next")?, since) {
        (Some(next), _) => next,
        (None, Some(since)) => change.store.captions_before(cid, session.id(), since)?,
        (None, None) => 0,
    };
    let (found, is_cut) = change.store.captions(cid, session.id(), behind, limit as u32, MOST_ANSWERED_BYTES)?;
    let next = is_cut.then_some(behind.saturating_add(found.len() as i64));
    let captions = found.into_iter().map(|(at, caption)| {
        let mut caption: Value = serde_json::from_str(&caption).unwrap_or_default();
        caption["created_at"] = json!(at.as_nanos());
        caption
    });
    let mut answer = json!({"closed_captions": captions.collect::<Vec<_>>()});
    if let Some(next) = next {
        answer["next"] = json!(next.to_string());
    }
    Ok(answer)
}

/// What a start says of how speech is recognised: the settings of the same names.
fn recognition(body: &mut Map<String, Value>) -> Result<RecognitionPatch, ApiError> {
    let mut tree = Map::new();
    for name in ["language", "speech_segment_config"] {
        // An empty language is none.
        if let Some(value) = body.remove(name).filter(|value| *value != json!("")) {
            tree.insert(name.into(), value);
        }
    }
    let settings = Map::from_iter([("transcription".to_string(), Value::Object(tree))]);
    let leaves = Settings::parse(settings).and_then(|settings| settings.leaves());
    // The request's own fields are meant.
    leaves
        .map(|leaves| leaves.recognition)
        .map_err(|error| ApiError::new(Code::Input, error.to_string().replace("settings.transcription.", "")))
}

/// A caption from elsewhere.
fn caption(change: &Change<'_>, body: &Map<String, Value>) -> Result<Caption, ApiError> {
    let (Some(speaker_id), Some(said)) = (text(body, "speaker_id"), text(body, "text")) else {
        return input("speaker_id and text are needed");
    };
    if said.len() > MAX_CAPTION_BYTES {
        return input(format!("text is longer than {} KiB", MAX_CAPTION_BYTES / 1024));
    }
    check_user_id(speaker_id)?;
    for name in ["language", "service"] {
        if text(body, name).is_some_and(|value| value.len() > MAX_LABEL_BYTES) {
            return input(format!("{name} is longer than {MAX_LABEL_BYTES} bytes"));
        }
    }
    let start_time = time(body, "start_time")?.unwrap_or(change.now);
    Ok(Caption {
        id: new_id(),
        speaker_id: speaker_id.to_string(),
        start_time,
        end_time: time(body, "end_time")?.unwrap_or(start_time),
        text: said.to_string(),
        language: text(body, "language").unwrap_or_default().to_string(),
        translated: flag(body, "translated")?,
        service: text(body, "service").map(str::to_string),
    })
}
