//! WebSockets: clients that watch, and participants that speak.
//!
//! In: handshakes, health checks. Out: events, as the hub hands them out.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, Utf8Bytes, WebSocket};
use axum::http::StatusCode;
use cuewire::time::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::bodies::check_nesting;
use super::log::Who;
use super::route::Operation;
use super::shared::{App, identify, text};
use crate::call::Cid;
use crate::clock::{new_id, now};
use crate::connections::Place;
use crate::events::{CloseCode, Inbox};
use crate::ingest::audio::{self, Format, close};
use crate::rates::Messages;
use crate::sockets::Socket;
use crate::wire::error::{ApiError, Code};
use crate::wire::render::for_browser;
use crate::wire::token::{Token, UserToken, expiry};

/// A client says who it is within this.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// One of which nothing was heard for this long is asked whether it is there,
const PING: Duration = Duration::from_secs(40);
/// and is gone after as many of these without a word.
const PINGS: u32 = 2;
/// A socket that takes no bytes for this long is closed without a word.
const SEND: Duration = Duration::from_secs(5);
/// What is waiting when the server closes a connection is sent within this.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Whom the database cannot tell of within this comes back later.
const PATIENCE: Duration = Duration::from_secs(4);

/// Longest first frame: what a client that watches says of itself is kept, and part of each event about them.
const MAX_HELLO_BYTES: usize = 16 * 1024;
/// The close code of who connects, or says something, too often.
const TOO_MANY: u16 = 4000 + 429;

const NO_TOKEN: &str = "the first frame should be {\"token\": …}, within 5 s";

/// The first frame.
#[derive(Deserialize)]
struct Hello {
    token: String,
    #[serde(default)]
    user_details: Option<Details>,
}

/// What somebody says of themselves; never a role.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Details {
    id: Option<String>,
    name: Option<String>,
    image: Option<String>,
    language: Option<String>,
    custom: Option<Map<String, Value>>,
}

async fn send(socket: &mut WebSocket, message: Message) -> bool {
    matches!(tokio::time::timeout(SEND, socket.send(message)).await, Ok(Ok(())))
}

/// The client's first frame; `None` where none came in time.
async fn first_frame(socket: &mut WebSocket) -> Option<Utf8Bytes> {
    let first = async {
        loop {
            match socket.recv().await? {
                Ok(Message::Text(text)) => return Some(text),
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                _ => return None,
            }
        }
    };
    tokio::time::timeout(HANDSHAKE, first).await.ok().flatten()
}

/// A line for the log, once it is known whose socket it is.
fn log_greeting(app: &App, operation: Operation, who: &Who, refused: Option<&ApiError>) {
    let status = refused.map_or(Ok(StatusCode::SWITCHING_PROTOCOLS), |error| StatusCode::from_u16(error.code.status()));
    app.log.answered(operation.name(), who, status.unwrap_or_default());
}

/// Serves a client that watches, to its end.
pub(super) async fn serve_client(
    app: &Arc<App>,
    mut socket: WebSocket,
    query: Map<String, Value>,
    mut who: Who,
    place: &Place,
) {
    let Some(first) = first_frame(&mut socket).await else {
        return close(&mut socket, 4000, NO_TOKEN, SEND).await;
    };
    let late = |_| Err(ApiError::new(Code::Internal, "the server is too busy"));
    let greeted = tokio::time::timeout(PATIENCE, greet(app, &first, &query, &mut who)).await.unwrap_or_else(late);
    let greeted = greeted.map_err(|error| app.rates.refused(who.address(), error));
    let serving = greeted.is_ok().then(|| place.serve()).flatten();
    // A client takes an error for the last word, and this close for a wait.
    let is_passing = greeted.as_ref().map_or_else(|error| error.code == Code::Internal, |_| serving.is_none());
    if is_passing || app.shutdown.is_cancelled() {
        if let Ok((inbox, ..)) = greeted {
            app.host.hub.disconnect(&inbox.connection);
        }
        return close(&mut socket, CloseCode::Restart as u16, "connect again", SEND).await;
    }
    log_greeting(app, Operation::Connect, &who, greeted.as_ref().err());
    if greeted.as_ref().is_err_and(|error| error.code == Code::RateLimit) {
        return close(&mut socket, TOO_MANY, "too many connections: connect again later", SEND).await;
    }
    // The connection may last for hours, and needs them no more.
    drop((query, who, first));
    let (inbox, me, token, _socket) = match greeted {
        Ok(greeted) => greeted,
        Err(error) => {
            let text = json!({"type": "connection.error", "error": error.body("0ms")}).to_string();
            let _ = send(&mut socket, Message::Text(text.into())).await;
            return close(&mut socket, 4000 + error.code.status(), "", SEND).await;
        }
    };
    let _open = crate::telemetry::Open::new("watch");
    let connection = inbox.connection.clone();
    let mut ok = json!({
        "type": "connection.ok", "connection_id": connection, "created_at": now().as_nanos(), "me": me,
    });
    for_browser(&mut ok);
    if send(&mut socket, Message::Text(ok.to_string().into())).await {
        let (code, reason) = watch(&mut socket, inbox, token.expires_at, app.host.limits().messages_per_s).await;
        close(&mut socket, code, reason, SEND).await;
    }
    for cid in app.host.hub.disconnect(&connection) {
        app.host.interims_changed(&cid);
    }
}

/// Who it is: known from now on, with what they say of themselves.
async fn greet(
    app: &Arc<App>,
    first: &str,
    query: &Map<String, Value>,
    who: &mut Who,
) -> Result<(Inbox, Value, UserToken, Socket), ApiError> {
    check_hello(first)?;
    let hello: Hello = serde_json::from_str(first)
        .map_err(|_| ApiError::new(Code::Input, "the first frame should be an object with a token"))?;
    let details = hello.user_details.unwrap_or_default();
    details.custom.as_ref().map_or(Ok(()), check_nesting)?;
    let token = identify(app, &hello.token, text(query, "user_id").or(details.id.as_deref()))?;
    who.is(&token);
    let Token::User(token) = token else {
        return Err(ApiError::new(Code::NotAllowed, "a server's token is nobody: connect with a user's"));
    };
    app.rates.connect(&token.user_id)?;
    let socket = app.sockets_of_users.open(&token.user_id)?;
    let user_id = token.user_id.clone();
    if details.id.as_ref().is_some_and(|id| *id != user_id) {
        return Err(ApiError::new(Code::Authentication, "user_details.id is not the token's"));
    }
    let me = app.host.run(move |change| {
        let is_known = change.store.user(&user_id)?.is_some();
        let before = change.profile(&user_id);
        let mut profile = before.clone();
        profile.name = details.name.or(profile.name);
        profile.image = details.image.or(profile.image);
        profile.language = details.language.unwrap_or(profile.language);
        profile.custom = details.custom.unwrap_or(profile.custom);
        if profile != before || !is_known {
            profile.updated_at = change.now;
            change.put_user(profile.clone())?;
        }
        Ok(profile.own_json())
    });
    let me = me.await?;
    let interims = text(query, "interim") == Some("1");
    Ok((app.host.hub.connect(new_id(), token.clone(), interims), me, token, socket))
}

/// Until either side has enough. Gives the code to close with.
async fn watch(
    socket: &mut WebSocket,
    mut inbox: Inbox,
    expires_at: Option<Timestamp>,
    messages_per_s: u32,
) -> (u16, &'static str) {
    let (expires, mut messages) = (expiry(expires_at), Messages::new(messages_per_s));
    tokio::pin!(expires);
    let mut unanswered = 0;
    loop {
        tokio::select! {
            biased;
            code = &mut inbox.close => {
                if matches!(code, Ok(CloseCode::TokenExpired)) {
                    return (CloseCode::TokenExpired as u16, "access was lost");
                }
                // What was said by then; the hub has nothing more.
                let rest = async {
                    while let Some(text) = inbox.events.recv().await {
                        if socket.send(Message::Text(text)).await.is_err() {
                            break;
                        }
                    }
                };
                let _ = tokio::time::timeout(LAST_WORDS, rest).await;
                return (CloseCode::Restart as u16, "connect again");
            }
            () = &mut expires => return (CloseCode::TokenExpired as u16, "the token has expired"),
            message = socket.recv() => match message {
                Some(Ok(_)) if messages.are_too_many() => return (TOO_MANY, "too many messages"),
                Some(Ok(Message::Text(text))) => {
                    unanswered = 0;
                    if is_health_check(&text) {
                        let mut answer = json!({
                            "type": "health.check", "connection_id": inbox.connection, "created_at": now().as_nanos(),
                            "cid": "*", "custom": {},
                        });
                        for_browser(&mut answer);
                        if !send(socket, Message::Text(answer.to_string().into())).await {
                            return (CloseCode::Restart as u16, "");
                        }
                    }
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return (1000, ""),
                Some(Ok(_)) => unanswered = 0,
            },
            text = inbox.events.recv() => {
                let Some(text) = text else { return (CloseCode::Restart as u16, "") };
                if !send(socket, Message::Text(text)).await {
                    return (CloseCode::Restart as u16, "nothing was read");
                }
            }
            () = tokio::time::sleep(PING) => {
                unanswered += 1;
                if unanswered > PINGS || !send(socket, Message::Ping(Vec::new().into())).await {
                    return (CloseCode::Restart as u16, "nothing was heard");
                }
            }
        }
    }
}

fn is_health_check(text: &str) -> bool {
    let is_one = |value: &Value| value["type"] == "health.check";
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Array(values)) => values.iter().any(is_one),
        Ok(value) => is_one(&value),
        Err(_) => false,
    }
}

/// Serves a participant that speaks, to their end.
pub(super) async fn serve_audio(
    app: &Arc<App>,
    mut socket: WebSocket,
    (call_type, id): (&str, &str),
    query: &Map<String, Value>,
    mut who: Who,
    authorization: Option<String>,
    place: &Place,
) {
    let call = Cid::new(call_type, id).map_err(ApiError::from);
    let greeted = match call {
        Ok(cid) => greet_speaker(app, &mut socket, cid, query, authorization, &mut who).await,
        Err(error) => Err(error),
    };
    let greeted = greeted.map_err(|error| app.rates.refused(who.address(), error));
    let serving = greeted.is_ok().then(|| place.serve()).flatten();
    log_greeting(app, Operation::Audio, &who, greeted.as_ref().err());
    drop(who);
    match greeted {
        // Others came meanwhile, and all places were taken.
        Ok(_) if serving.is_none() => close(&mut socket, CloseCode::Restart as u16, "connect again", SEND).await,
        Ok((cid, token, format, _socket)) => {
            let _open = crate::telemetry::Open::new("audio");
            let expires = expiry(token.expires_at);
            let shutdown = app.shutdown.clone();
            let ended = async move {
                tokio::select! {
                    () = expires => audio::Ended::TokenExpired,
                    () = shutdown.cancelled() => audio::Ended::ShuttingDown,
                }
            };
            audio::serve(app.host.clone(), socket, cid, token, format, ended).await;
        }
        Err(error) => audio::refuse_and_close(socket, &error).await,
    }
}

async fn greet_speaker(
    app: &App,
    socket: &mut WebSocket,
    cid: Cid,
    query: &Map<String, Value>,
    authorization: Option<String>,
    who: &mut Who,
) -> Result<(Cid, UserToken, Format, Socket), ApiError> {
    let token = match authorization {
        Some(token) => token,
        None => hello_of_speaker(app, socket, who.address()).await?.token,
    };
    let token = identify(app, &token, text(query, "user_id"))?;
    who.is(&token);
    let Token::User(token) = token else {
        return Err(ApiError::new(Code::NotAllowed, "a server's token is nobody: speak with a user's"));
    };
    app.rates.connect(&token.user_id)?;
    let socket = app.sockets_of_users.open(&token.user_id)?;
    Ok((cid, token, Format::parse(|name| text(query, name).map(str::to_string))?, socket))
}

/// What a speaker says first. Their socket takes frames of audio, and nobody knows yet who they are: only so many such frames are
/// read at a time, and who has waited for longest makes room.
async fn hello_of_speaker(app: &App, socket: &mut WebSocket, address: IpAddr) -> Result<Hello, ApiError> {
    let missing = || ApiError::new(Code::Authentication, NO_TOKEN);
    let place = app.first_frames.take(address, true).await.ok_or_else(missing)?;
    let mut first = None;
    place.hold(async { first = first_frame(socket).await }).await;
    match first {
        Some(first) => {
            check_hello(&first)?;
            serde_json::from_str(&first).map_err(|_| missing())
        }
        None if place.serve().is_none() => {
            Err(ApiError::new(Code::Full, "too many connections have not said who they are: connect again"))
        }
        None => Err(missing()),
    }
}

fn check_hello(first: &str) -> Result<(), ApiError> {
    if first.len() <= MAX_HELLO_BYTES {
        return Ok(());
    }
    Err(ApiError::new(Code::Input, format!("the first frame is longer than {} KiB", MAX_HELLO_BYTES / 1024)))
}
