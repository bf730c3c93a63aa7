//! The service around the engine: calls, who may do what in them, and their two processes, transcription and captions.
//!
//! [`call`] is the domain: a state machine without clock, thread, file or socket, for hosts that have all of these
//! themselves. [`store`] is where its state and the events that it causes are kept; [`api`] is how clients
//! speak of them.

pub mod api;
pub mod call;
pub mod store;
