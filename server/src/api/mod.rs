//! The API that the official clients of a large hosted service speak.
//!
//! In: what clients send. Out: what they expect, in two renderings: server SDKs (`/api/v2/…`) have times as integers of
//! nanoseconds, the browser's client (`/video/…`) as RFC 3339 strings.

use cuewire::time::Timestamp;
use serde_json::Value;

pub(crate) mod document;
pub mod error;
pub(crate) mod http;
mod models;
mod operations;
pub mod render;
pub(crate) mod request;
pub(crate) mod route;
mod schema;
pub(crate) mod socket;
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
