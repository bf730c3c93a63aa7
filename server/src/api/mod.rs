//! The API that the official clients of a large hosted service speak.
//!
//! In: what clients send. Out: what they expect, in two renderings: server SDKs (`/api/v2/…`) have times as integers of
//! nanoseconds, the browser's client (`/video/…`) as RFC 3339 strings.

pub(crate) mod bodies;
pub(crate) mod document;
pub(crate) mod http;
pub(crate) mod log;
mod models;
mod operations;
pub(crate) mod route;
mod schema;
pub(crate) mod shared;
pub(crate) mod socket;

pub use crate::wire::{error, render, time_of, token};
