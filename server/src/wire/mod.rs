//! What clients are spoken to in: errors, tokens, times, and calls and events as JSON.
//!
//! In: what a client sends of these, and the state. Out: what it expects. Everything that answers a client, or tells one of an
//! event, stands above this; nothing in here knows of sockets or of the database.

use cuewire::time::Timestamp;
use serde_json::Value;

pub mod error;
pub mod render;
pub(crate) mod request;
pub mod token;

/// A time as clients send it: RFC 3339 with any offset, or without one in UTC; or nanoseconds.
#[must_use]
pub fn time_of(value: &Value) -> Option<Timestamp> {
    match value {
        Value::Number(nanos) => nanos.as_i64().map(Timestamp::from_nanos),
        Value::String(text) => text.parse().ok().or_else(|| format!("{text}Z").parse().ok()),
        _ => None,
    }
}
