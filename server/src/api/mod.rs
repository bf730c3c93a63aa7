//! The API that the official clients of a large hosted service speak.
//!
//! In: what clients send. Out: what they expect, in two renderings: server SDKs (`/api/v2/…`) have times as integers of
//! nanoseconds, the browser's client (`/video/…`) as RFC 3339 strings.

pub mod error;
pub mod render;
pub mod token;
