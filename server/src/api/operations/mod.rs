//! What each operation does.
//!
//! In: who asks, the path's names, the query and the body. Out: the answer's fields, with times as integers.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::models::{MOST_SORTS, USER_ID_BYTES};
use super::route::{Asker, Operation};
use super::shared::{App, Call as Request, text};
use crate::call::settings::Settings;
use crate::call::{Actor, Cid, Command, Member};
use crate::host::Change;
use crate::store::QueryError;
use crate::transcripts::{URLS_WITHIN, delete, urls};
use crate::wire::error::{ApiError, Code};
use crate::wire::token::Token;
use crate::wire::{render, time_of};

mod app;
mod call_types;
mod calls;
mod described;
mod pages;
mod rtp;
mod storages;
mod users;

use app::{check_sqs, dead_letters, get_app, update_app};
use call_types::call_types;
use calls::{closed_captions, get_or_create, on_call};
pub(super) use described::described;
use pages::{page, query_calls, query_members, sorts};
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
        O::CheckSqs => check_sqs(app, request.body).await,
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
                match change.store.file_named(&cid, &session, &filename)? {
                    Some(file) if !file.is_external => Ok(file),
                    found => {
                        let shown = short(&filename);
                        let why = match found.and_then(|file| file.storage) {
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
            let urls = urls(&app.transcripts, &host, &files, URLS_WITHIN).await;
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
