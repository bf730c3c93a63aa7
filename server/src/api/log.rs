//! The log of requests.
//!
//! In: who asked what, and how it was answered. Out: a line of JSON a request, the same in the log, and the metrics.

use std::net::IpAddr;

use axum::http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value, json};

use crate::clock::now;
use crate::wire::request as this_request;
use crate::wire::token::Token;

/// Characters of what a client says that it is, in the request log.
const MOST_OF_CLIENT: usize = 200;

/// A line of JSON a request, without secrets and without anything that was said.
pub(crate) struct RequestLog(pub(crate) Option<std::sync::Mutex<std::fs::File>>);

impl RequestLog {
    /// A request was answered, or a WebSocket greeted: for the request log, the log and the metrics.
    pub(super) fn answered(&self, operation: &'static str, who: &Who, status: StatusCode) {
        let ((request_id, took), status) = (this_request::current(), status.as_u16());
        let duration_ms = took.as_micros() as f64 / 1e3;
        let Who { client, address, token, user_id } = who;
        crate::telemetry::answered(operation, status, took);
        tracing::info!(client, token, status, duration_ms, "answered");
        self.write(&json!({
            "at": now(), "request_id": request_id, "operation": operation, "client": client, "address": address.to_canonical(),
            "token": token, "user_id": user_id, "status": status, "duration_ms": duration_ms,
        }));
    }

    fn write(&self, line: &Value) {
        use std::io::Write as _;
        if let Some(file) = &self.0 {
            // Whole: what writes a value as it goes asks the system once a word.
            let line = format!("{line}\n");
            let mut file = file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            // A log that cannot be written stops no request.
            let _ = file.write_all(line.as_bytes());
        }
    }
}

/// Who asks, as the request log has it.
pub(crate) struct Who {
    /// What they say that their client is.
    pub(super) client: String,
    pub(super) address: IpAddr,
    /// The kind of their token.
    pub(super) token: &'static str,
    /// Of a user's token that was verified.
    pub(super) user_id: Option<String>,
}

impl Who {
    pub(super) fn new(client: String, address: IpAddr) -> Self {
        Self { client, address, token: "none", user_id: None }
    }

    pub(crate) fn address(&self) -> IpAddr {
        self.address
    }

    /// Their token was verified.
    pub(crate) fn is(&mut self, token: &Token) {
        match token {
            Token::Server => self.token = "server",
            Token::User(user) => (self.token, self.user_id) = ("user", Some(user.user_id.clone())),
        }
    }
}

/// What a client says that it is. Browsers cannot set headers of a WebSocket's handshake.
pub(super) fn client_of(headers: &HeaderMap, query: &Map<String, Value>) -> String {
    let said = query.iter().find(|(name, _)| name.eq_ignore_ascii_case("x-stream-client"));
    let header = headers.get("x-stream-client").or(headers.get(header::USER_AGENT));
    let header = header.and_then(|value| value.to_str().ok());
    said.and_then(|(_, value)| value.as_str()).or(header).unwrap_or_default().chars().take(MOST_OF_CLIENT).collect()
}
