//! Participants' audio, as it comes in: by WebSocket, and as RTP.
//!
//! In: a connection, or datagrams. Out: a join, pushes into the participant's track, a leave. The tracks themselves, and what the
//! engine says of them, are the stages'.

pub(crate) mod audio;
pub(crate) mod rtp;
