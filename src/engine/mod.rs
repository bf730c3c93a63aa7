//! The threads: decode workers that answer what sessions ask.
//!
//! In: [`DecodeJob`](crate::asr::DecodeJob)s, each with a tag that says whose it is. Out: [`Answer`]s with the same tag,
//! in the order in which they are ready.

mod model;
mod workers;

pub use model::{Model, ModelId, Models};
pub use workers::{Answer, Idle, Job, ThreadHook, ThreadRole, Workers, default_threads};
