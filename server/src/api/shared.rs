//! What handlers share: what they serve from, and what a request carries.
//!
//! In: tokens, as clients send them. Out: whose they are.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::bodies::Bodies;
use super::log::RequestLog;
use crate::clock::now;
use crate::connections::Places;
use crate::hooks::Hooks;
use crate::host::Host;
use crate::rates::Rates;
use crate::sockets::Sockets;
use crate::transcripts::Transcripts;
use crate::wire::error::{ApiError, Code};
use crate::wire::token::{Token, verify};

/// What they serve from.
pub(crate) struct App {
    pub(crate) host: Arc<Host>,
    pub(crate) hooks: Arc<Hooks>,
    pub(crate) transcripts: Arc<Transcripts>,
    pub(crate) api_key: String,
    pub(crate) api_secret: String,
    pub(crate) hooks_to_private_addresses: bool,
    pub(crate) places: Arc<Places>,
    /// Of sockets that may send frames of audio, and of which nobody knows yet whose they are.
    pub(crate) first_frames: Arc<Places>,
    pub(crate) rates: Rates,
    pub(crate) sockets_of_users: Arc<Sockets>,
    pub(crate) bodies: Bodies,
    /// What `/openapi.json` is.
    pub(crate) document: Bytes,
    /// Where a line a request goes; none in tests.
    pub(crate) log: RequestLog,
    /// Whether it was ready when somebody last asked.
    pub(crate) probed: tokio::sync::Mutex<Probed>,
    /// Where participants' RTP comes.
    pub(crate) rtp: Arc<crate::ingest::rtp::Ports>,
    /// Sockets are to be closed.
    pub(crate) shutdown: CancellationToken,
    /// Sockets that are open.
    pub(crate) sockets: tokio_util::task::TaskTracker,
}

/// What was found out when.
pub(crate) type Probed = Option<(Instant, Result<(), String>)>;

/// A request's parameters, whoever sent it.
pub(super) struct Call {
    /// Whose token it carries.
    pub(super) token: Token,
    pub(super) query: Map<String, Value>,
    pub(super) body: Map<String, Value>,
}

pub(super) fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    fields.get(name)?.as_str()
}

/// Whose token this is; where a `user_id` is said beside it, it must be theirs.
pub(super) fn identify(app: &App, token: &str, user_id: Option<&str>) -> Result<Token, ApiError> {
    let token = verify(token, &app.api_secret, now())?;
    match (&token, user_id) {
        (Token::User(user), Some(said)) if user.user_id != said => {
            Err(ApiError::new(Code::Authentication, "the user_id is not the token's"))
        }
        _ => Ok(token),
    }
}
