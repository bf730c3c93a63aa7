//! What was pushed, told to the session.
//!
//! In: samples, silence and RTP packets, as they come out of a track's ring. Out: [`Input`]s, and how far they reach.

#[cfg(feature = "opus")]
use std::time::Instant;

use crate::audio::Pcm;
#[cfg(feature = "opus")]
use crate::audio::rtp::{Piece, RtpReceiver};
use crate::session::{Input, InputError, Session};
use crate::time::{Timestamp, nanos_of_samples};

/// Silence that is heard in place of a muted push, at a time.
static SILENCE: [f32; 4096] = [0.0; 4096];

/// What turns packets into sound.
#[cfg(feature = "opus")]
pub(super) struct Rtp {
    pub(super) receiver: RtpReceiver,
    /// The time of the last packet, and when it came.
    pub(super) packet: Option<(Timestamp, Instant)>,
    /// Whether it was muted.
    pub(super) muted: bool,
}

/// Hears samples in two parts, each dated by its own first sample.
pub(super) fn hear_parts(
    session: &mut Session,
    heard_to: &mut Timestamp,
    mut at: Timestamp,
    rate: u32,
    parts: [&[f32]; 2],
) -> Result<(), InputError> {
    for part in parts {
        // The push's rate was checked.
        if let Ok(pcm) = Pcm::mono(rate, part) {
            session.handle_input(Input::Audio { at, pcm })?;
            at = at.plus_nanos(nanos_of_samples(part.len() as u64, rate));
            *heard_to = at;
        }
    }
    Ok(())
}

pub(super) fn hear_silence(
    session: &mut Session,
    heard_to: &mut Timestamp,
    at: Timestamp,
    rate: u32,
    frames: usize,
) -> Result<(), InputError> {
    let mut heard = 0;
    while heard < frames {
        let part = &SILENCE[..SILENCE.len().min(frames - heard)];
        let part_at = at.plus_nanos(nanos_of_samples(heard as u64, rate));
        hear_parts(session, heard_to, part_at, rate, [part, &[]])?;
        heard += part.len();
    }
    Ok(())
}

#[cfg(feature = "opus")]
impl Rtp {
    /// Hears what is held: what comes next has nothing to do with it.
    pub(super) fn end_stream(&mut self, session: &mut Session, heard_to: &mut Timestamp) -> Result<(), InputError> {
        self.receiver.flush();
        let heard = self.hear(session, heard_to);
        self.receiver.restart();
        heard
    }

    /// Hears all that is to be had of the packets so far.
    pub(super) fn hear(&mut self, session: &mut Session, heard_to: &mut Timestamp) -> Result<(), InputError> {
        let mut heard = Ok(());
        while let Some(Piece { at, pcm }) = self.receiver.poll_output() {
            *heard_to = at.plus_nanos(nanos_of_samples(pcm.frames() as u64, pcm.rate()));
            let piece = if self.muted {
                hear_silence(session, heard_to, at, pcm.rate(), pcm.frames())
            } else {
                session.handle_input(Input::Audio { at, pcm })
            };
            heard = heard.and(piece);
        }
        heard
    }
}
