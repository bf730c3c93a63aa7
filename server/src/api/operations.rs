//! What each operation does.
//!
//! In: who asks, the path's names, the query and the body. Out: the answer's fields, with times as integers.

use std::ops::ControlFlow;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::error::{ApiError, Code};
use super::http::{App, Call as Request, text};
use super::models::USER_ID_BYTES;
use super::route::{Asker, Operation};
use super::token::Token;
use super::{render, time_of};
use crate::call::grants::Capability;
use crate::call::settings::{RecognitionPatch, Settings};
use crate::call::{Actor, Call, Caption, Cid, Command, Member, NewCall, Process};
use crate::host::{Change, new_id};
use crate::store::{CALL_FIELDS, Query, QueryError};
use crate::transcripts::{URLS_WITHIN, delete, find, urls};

mod app;
mod call_types;
mod described;
mod rtp;
mod storages;
mod users;

use app::{check_sqs, dead_letters, get_app, update_app};
use call_types::call_types;
pub(super) use described::described;
use storages::{known_storage, storages};
use users::{create_role, list_permissions, list_roles, query_users, update_users, upsert};

/// Calls, members or users in one page, where nothing else is asked for.
const PAGE: u32 = 25;
/// A page begins no further on than this.
const MAX_OFFSET: u32 = 1_000_000;
/// Calls looked at for one request, those that one may not see among them, and what they take: behind them is another page.
const MOST_LOOKED_AT: u32 = 5000;
const MOST_LOOKED_AT_BYTES: usize = 64 * 1024 * 1024;
/// What the calls of a page take in its answer: of large ones there are fewer.
const MOST_ANSWERED_BYTES: usize = 8 * 1024 * 1024;
/// Members, users or capabilities in one request.
const MOST_ENTRIES: usize = 1000;
/// Fields that one query is sorted by.
pub(super) const MOST_SORTS: usize = 8;
/// Captions in one page, where nothing else is asked for, and at most.
const CAPTIONS_PAGE: (i64, i64) = (100, 1000);
/// Of a call's transcripts so many are listed, the latest: clients know no pages of them.
const MOST_FILES: u32 = 1000;
/// Longest text of a caption from elsewhere.
const MAX_CAPTION_BYTES: usize = 16 * 1024;
/// Longest name of its language, and of where it comes from.
const MAX_LABEL_BYTES: usize = 255;

fn input<T>(message: impl Into<String>) -> Result<T, ApiError> {
    Err(ApiError::new(Code::Input, message))
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        Self::new(Code::Input, error.to_string())
    }
}

/// A body, or a part of one, as a type. Unknown fields are ignored.
fn read<T: DeserializeOwned>(fields: Map<String, Value>) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| {
        let at = error.path().to_string();
        ApiError::new(Code::Input, format!("{}{}", if at == "." { String::new() } else { at + ": " }, error.inner()))
    })
}

/// A time, where there is one.
fn time(fields: &Map<String, Value>, name: &str) -> Result<Option<cuewire::time::Timestamp>, ApiError> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match time_of(value) {
            Some(time) => Ok(Some(time)),
            None => input(format!("{name} is {value}: allowed is a time, as 2024-02-28T08:18:18Z")),
        },
    }
}

/// An object, where there is one.
fn object(fields: &mut Map<String, Value>, name: &str) -> Result<Option<Map<String, Value>>, ApiError> {
    match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(_) => input(format!("{name} should be an object")),
    }
}

fn settings(fields: &mut Map<String, Value>, name: &str) -> Result<Settings, ApiError> {
    let tree = object(fields, name)?.unwrap_or_default();
    let checked = Settings::parse(tree).and_then(|settings| render::check_kinds(&settings).map(|()| settings));
    checked.map_err(|error| ApiError::new(Code::Input, error.to_string()))
}

fn texts(fields: &Map<String, Value>, name: &str) -> Result<Vec<String>, ApiError> {
    let Some(value) = fields.get(name).filter(|value| !value.is_null()) else { return Ok(Vec::new()) };
    let list = value.as_array().filter(|list| list.len() <= MOST_ENTRIES);
    let list = list.map(|list| list.iter().map(|text| text.as_str().map(str::to_string)).collect::<Option<Vec<_>>>());
    list.flatten().map_or_else(|| input(format!("{name} should be a list of at most {MOST_ENTRIES} texts")), Ok)
}

fn members(fields: &Map<String, Value>, name: &str) -> Result<Vec<(String, Member)>, ApiError> {
    #[derive(Deserialize)]
    struct Written {
        user_id: String,
        role: Option<String>,
        custom: Option<Map<String, Value>>,
    }
    let Some(value) = fields.get(name).filter(|value| !value.is_null()) else { return Ok(Vec::new()) };
    let written: Vec<Written> = serde_path_to_error::deserialize(value)
        .map_err(|error| ApiError::new(Code::Input, format!("{name}{}: {}", error.path(), error.inner())))?;
    if written.len() > MOST_ENTRIES {
        return input(format!("{name}: at most {MOST_ENTRIES}"));
    }
    written.iter().try_for_each(|member| check_user_id(&member.user_id))?;
    let member = |Written { user_id, role, custom }| (user_id, Member { role, custom: custom.unwrap_or_default() });
    Ok(written.into_iter().map(member).collect())
}

/// Whether a call may have so many members.
fn check_members(change: &Change<'_>, members: usize) -> Result<(), ApiError> {
    let most = change.limits().members_per_call;
    if members <= most as usize { Ok(()) } else { input(format!("{members} members: a call may have {most}")) }
}

/// Users' ids are the platform's: any text without control characters, of 1 – 255 bytes.
fn check_user_id(id: &str) -> Result<(), ApiError> {
    if USER_ID_BYTES.contains(&id.len()) && !id.chars().any(char::is_control) {
        return Ok(());
    }
    input(format!("the user's id `{}`: allowed are 1 – 255 bytes without control characters", short(id)))
}

/// Answers a request.
pub(super) async fn answer(
    app: &App,
    operation: Operation,
    names: &[&str],
    request: Request,
) -> Result<Value, ApiError> {
    use Operation as O;
    let host = app.host.clone();
    if operation.row().asker == Asker::Server && request.token != Token::Server {
        let what = operation.name().replace('_', " ");
        return Err(ApiError::new(Code::NotAllowed, format!("only a server's token may {what}")));
    }
    match operation {
        O::UpdateUsers | O::UpdateUsersPartial => {
            let is_partial = operation == O::UpdateUsersPartial;
            host.run(move |change| update_users(change, request.body, is_partial)).await
        }
        O::QueryUsers => {
            let payload = text(&request.query, "payload").unwrap_or("{}").to_string();
            let Ok(payload) = serde_json::from_str(&payload) else {
                return input("payload should be a JSON object");
            };
            host.read(move |change| query_users(change, payload)).await
        }
        O::ListRoles | O::CreateRole | O::ListPermissions => match operation {
            O::CreateRole => host.run(move |change| create_role(change, &request.body)).await,
            O::ListRoles => host.read(|change| list_roles(change)).await,
            _ => Ok(list_permissions()),
        },
        O::GetApp | O::UpdateApp | O::ListDeadLetters => {
            let private = app.hooks_to_private_addresses;
            match operation {
                O::UpdateApp => host.run(move |change| update_app(change, request.body, private)).await,
                O::GetApp => host.read(|change| get_app(change)).await,
                _ => host.read(move |change| dead_letters(change, &request.query)).await,
            }
        }
        O::CheckSqs => check_sqs(&host, request.body, app.hooks_to_private_addresses).await,
        O::ListCallTypes | O::CreateCallType | O::GetCallType | O::UpdateCallType | O::DeleteCallType => {
            let name = names.first().map(|name| (*name).to_string());
            let job = move |change: &mut Change<'_>| call_types(change, operation, name, request.body);
            if matches!(operation, O::ListCallTypes | O::GetCallType) {
                host.read(job).await
            } else {
                host.run(job).await
            }
        }
        O::QueryCalls => {
            let is_watching = request.body.get("watch") == Some(&json!(true));
            let connection = connection(app, &request, is_watching)?;
            host.read(move |change| query_calls(change, request, connection)).await
        }
        O::QueryMembers => {
            let field = |name| text(&request.body, name).unwrap_or_default();
            let cid = Cid::new(field("type"), field("id"))?;
            host.read(move |change| query_members(change, &cid, request)).await
        }
        O::CallClientEvent
        | O::Connect
        | O::Audio
        | O::DownloadTranscript
        | O::ProbeTranscript
        | O::Health
        | O::Readiness
        | O::OpenApi => input("this is no operation of a body"),
        O::DeleteTranscription => {
            let cid = Cid::new(names[0], names[1])?;
            let (session, filename) = (names[2].to_string(), names[3].to_string());
            let file = host.read(move |change| {
                // Of a call that was deleted too.
                let files = change.store.files_of(&cid)?;
                match find(&files, &session, &filename) {
                    Some(file) if !file.is_external => Ok(file.clone()),
                    found => {
                        let shown = short(&filename);
                        let why = match found.and_then(|file| file.storage.as_deref()) {
                            Some(name) => format!("the transcript {shown} is on the storage {name}: delete it there"),
                            None => format!("the call {cid} has no transcript {shown} of this session"),
                        };
                        Err(ApiError::new(Code::DoesNotExist, why))
                    }
                }
            });
            let file = file.await?;
            if let Err(why) = delete(&host, &file).await {
                tracing::error!("{} cannot be deleted: {why}", file.filename);
                let error = "the file cannot be deleted: the server's log says why";
                return Err(ApiError::new(Code::Internal, error));
            }
            Ok(json!({}))
        }
        O::ListTranscriptions => {
            let cid = Cid::new(names[0], names[1])?;
            connection(app, &request, false)?;
            let files = host.read(move |change| {
                let actor = actor(change, &request.token, &cid, None);
                change.command(&cid, &actor, Command::ListTranscriptions)?;
                // A call that was deleted and made anew has nothing to do with what was said in the old one.
                let since = change.call(&cid)?.created_at();
                Ok(change.store.latest_files_of(&cid, since, MOST_FILES)?)
            });
            let files = files.await?;
            let urls = urls(&host, &files, URLS_WITHIN).await;
            let files = files.into_iter().zip(urls).map(|(file, url)| render::transcript(&file.with_url(url)));
            Ok(json!({"transcriptions": files.collect::<Vec<_>>()}))
        }
        O::OpenRtp => rtp::open(app, Cid::new(names[0], names[1])?, request.token, request.body).await,
        O::CloseRtp => rtp::close(app, &Cid::new(names[0], names[1])?, names[2], &request.token).await,
        O::ListStorages | O::CreateStorage | O::UpdateStorage | O::DeleteStorage | O::CheckStorage => {
            storages(&host, operation, names.first().map(|name| (*name).to_string()), request.body).await
        }
        _ => {
            let cid = Cid::new(names[0], names[1])?;
            let is_watching = matches!(operation, O::GetCall | O::GetOrCreateCall);
            let connection = connection(app, &request, is_watching)?;
            let is_read = matches!(operation, O::GetCall | O::ListClosedCaptions);
            let job = move |change: &mut Change<'_>| match operation {
                O::GetOrCreateCall => get_or_create(change, &cid, request, connection),
                O::ListClosedCaptions => closed_captions(change, &cid, &request),
                _ => on_call(change, operation, &cid, request, connection),
            };
            if is_read { host.read(job).await } else { host.run(job).await }
        }
    }
}

/// The connection that the request names, if it would watch; it must be there, and in any case not another user's.
fn connection(app: &App, request: &Request, is_watching: bool) -> Result<Option<String>, ApiError> {
    let Some(connection) = text(&request.query, "connection_id").filter(|id| !id.is_empty()) else { return Ok(None) };
    let refused = |why: &str| Err(ApiError::new(Code::ConnectionId, why));
    match (app.host.hub.user_of(connection), &request.token) {
        (Some(user_id), Token::User(token)) if user_id != token.user_id => {
            refused("the connection_id is another user's connection")
        }
        (None, _) if is_watching => refused("the connection_id is of no connection: connect again"),
        (Some(_), _) if is_watching => Ok(Some(connection.to_string())),
        _ => Ok(None),
    }
}

/// Who commands in a call; a server on behalf of somebody.
fn actor(change: &Change<'_>, token: &Token, cid: &Cid, user_id: Option<&str>) -> Actor {
    match token {
        Token::Server => Actor::Server { user_id: user_id.map(str::to_string) },
        Token::User(token) => change.user_actor(token, cid),
    }
}

fn get_or_create(
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
            upsert(change, &mut user)?;
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
        let users: Vec<_> =
            new.members.iter().map(|(id, _)| id.clone()).chain(actor.user_id().map(str::to_string)).collect();
        for id in users {
            change.keep_user(&id)?;
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

/// A call, its members, and what the one who asks may.
fn whole(change: &Change<'_>, call: &Call, actor: &Actor) -> Result<Value, ApiError> {
    Ok(json!({
        "call": change.render_call(call)?,
        "members": change.render_members(call),
        "own_capabilities": change.own_capabilities(call, actor)?,
    }))
}

/// What is commanded of a call that is there.
fn on_call(
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
            for (user_id, _) in &update {
                change.keep_user(user_id)?;
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
fn closed_captions(change: &mut Change<'_>, cid: &Cid, request: &Request) -> Result<Value, ApiError> {
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
    let found = change.store.captions(cid, session.id(), behind, limit as u32)?;
    let next = (found.len() as i64 == limit).then_some(behind.saturating_add(limit));
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

fn short(text: &str) -> String {
    text.chars().take(100).collect()
}

fn flag(body: &Map<String, Value>, name: &str) -> Result<bool, ApiError> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(other) => input(format!("{name} is {other}: allowed are true, false")),
    }
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

/// A page: how many are wanted, and behind how many.
fn page(change: &Change<'_>, body: &Map<String, Value>) -> Result<(u32, u32), ApiError> {
    let most = change.limits().page;
    let limit = match body.get("limit").filter(|limit| !limit.is_null()) {
        None => PAGE.min(most),
        Some(limit) => {
            match limit.as_u64().and_then(|limit| u32::try_from(limit).ok()).filter(|limit| *limit <= most) {
                Some(0) => PAGE.min(most),
                Some(limit) => limit,
                None => return input(format!("limit is {limit}: allowed are 1 – {most}")),
            }
        }
    };
    let cursor = text(body, "next").filter(|next| !next.is_empty());
    let cursor = cursor.or(text(body, "prev").filter(|prev| !prev.is_empty()));
    let offset = match cursor {
        None => 0,
        Some(cursor) => match cursor.strip_prefix('p').and_then(|offset| offset.parse().ok()) {
            Some(offset) if offset <= MAX_OFFSET => offset,
            _ => return input(format!("next or prev is `{}`: it is not from here", short(cursor))),
        },
    };
    Ok((limit, offset))
}

/// Adds where the next and the previous page are.
fn with_pages(mut answer: Value, limit: u32, offset: u32, next: Option<u32>) -> Value {
    if let Some(next) = next {
        answer["next"] = json!(format!("p{next}"));
    }
    if offset > 0 {
        answer["prev"] = json!(format!("p{}", offset.saturating_sub(limit)));
    }
    answer
}

fn sorts(body: &Map<String, Value>) -> Result<Vec<Value>, ApiError> {
    match body.get("sort") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(sorts)) if sorts.len() <= MOST_SORTS => Ok(sorts.clone()),
        Some(_) => input(format!("sort should be a list of at most {MOST_SORTS} {{field, direction}}")),
    }
}

fn query_calls(change: &mut Change<'_>, request: Request, connection: Option<String>) -> Result<Value, ApiError> {
    let Request { token, mut body, .. } = request;
    let filter = object(&mut body, "filter_conditions")?.unwrap_or_default();
    let query = Query::new(CALL_FIELDS, &filter, &sorts(&body)?)?;
    let (limit, offset) = page(change, &body)?;
    let watching = connection.filter(|_| body.get("watch") == Some(&json!(true)));
    let (mut calls, mut answered, mut next) = (Vec::new(), 0, None);
    let (store, mut at, mut looked_at_bytes) = (change.store, offset, 0);
    // All matches are watched, and not one page of them: as far as one request looks.
    let look = |call: Call, bytes: usize| {
        looked_at_bytes += bytes;
        if at - offset >= MOST_LOOKED_AT || (at > offset && looked_at_bytes > MOST_LOOKED_AT_BYTES) {
            next = next.or(Some(at));
            return Ok(ControlFlow::Break(()));
        }
        let actor = actor(change, &token, call.cid(), None);
        let may_read = match &actor {
            Actor::Server { .. } => true,
            Actor::User { user, token_role } => change.may(&call, user, token_role.as_deref(), Capability::ReadCall)?,
        };
        if may_read && next.is_none() {
            let one = if calls.len() as u32 == limit { None } else { Some(whole(change, &call, &actor)?) };
            let bytes = one.as_ref().map_or(0, |one| one.to_string().len());
            match one.filter(|_| calls.is_empty() || answered + bytes <= MOST_ANSWERED_BYTES) {
                Some(one) => {
                    answered += bytes;
                    calls.push(one);
                }
                None => {
                    next = Some(at);
                    if watching.is_none() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
        }
        if let Some(connection) = watching.as_ref().filter(|_| may_read) {
            change.watch(connection, call.cid());
        }
        at += 1;
        Ok::<_, ApiError>(ControlFlow::Continue(()))
    };
    // One more, which says whether there is another page.
    store.look_at_calls(&query, offset, MOST_LOOKED_AT + 1, look)?;
    Ok(with_pages(json!({"calls": calls}), limit, offset, next))
}

fn query_members(change: &mut Change<'_>, cid: &Cid, request: Request) -> Result<Value, ApiError> {
    let Request { token, mut body, .. } = request;
    let actor = actor(change, &token, cid, None);
    let call = change.command(cid, &actor, Command::Read)?;
    let (limit, offset) = page(change, &body)?;
    let filter = object(&mut body, "filter_conditions")?.unwrap_or_default();
    let mut all = change.render_members(&call);
    for (field, wanted) in &filter {
        let pointer = match field.as_str() {
            "user_id" => "/user_id",
            "role" | "call_role" => "/role",
            "user.name" | "name" => "/user/name",
            other => {
                return input(format!("`{}` cannot be asked for: allowed are user_id, role, name", short(other)));
            }
        };
        let wanted = match wanted {
            Value::Object(operators) if operators.len() == 1 => match operators.iter().next() {
                Some((operator, Value::Array(list))) if operator == "$in" => list.clone(),
                Some((operator, value)) if operator == "$eq" => vec![value.clone()],
                _ => return input(format!("the test of `{field}`: allowed are $eq, $in")),
            },
            Value::Object(_) | Value::Array(_) => return input(format!("the test of `{field}`: allowed are $eq, $in")),
            value => vec![value.clone()],
        };
        all.retain(|member| member.pointer(pointer).is_some_and(|value| wanted.contains(value)));
    }
    for sort in sorts(&body)?.iter().rev() {
        let field = match sort["field"].as_str() {
            Some(field @ ("user_id" | "created_at")) => field,
            other => {
                return input(format!("a sort by `{}`: allowed are user_id, created_at", short(other.unwrap_or(""))));
            }
        };
        let is_descending = match &sort["direction"] {
            Value::Null => false,
            direction if *direction == json!(1) => false,
            direction if *direction == json!(-1) => true,
            direction => {
                return input(format!("the direction of the sort by `{field}` is {direction}: allowed are 1, -1"));
            }
        };
        all.sort_by(|one, other| {
            let key = |member: &Value| (member[field].as_i64(), member[field].as_str().map(str::to_string));
            let order = key(one).cmp(&key(other));
            if is_descending { order.reverse() } else { order }
        });
    }
    let end = offset + limit;
    let next = (all.len() > end as usize).then_some(end);
    let members: Vec<_> = all.into_iter().skip(offset as usize).take(limit as usize).collect();
    Ok(with_pages(json!({"members": members}), limit, offset, next))
}
