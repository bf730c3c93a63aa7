//! Voice activity: which frames are speech-like.
//!
//! In: frames of 20 ms, 16-bit at 16 kHz. Out: speech-like or not. Hysteresis and pre-roll are the segmenter's.
//!
//! A host brings one of its own by [`Session::with_vad`](crate::Session::with_vad); this is a whole one:
//!
//! ```
//! use cuewire::config::{Config, VadMode};
//! use cuewire::vad::{FRAME, Vad};
//!
//! /// Whatever is loud is speech.
//! struct Loud;
//!
//! impl Vad for Loud {
//!     fn is_speech(&mut self, frame: &[i16; FRAME]) -> bool {
//!         frame.iter().map(|&sample| u64::from(sample.unsigned_abs())).sum::<u64>() > 500 * FRAME as u64
//!     }
//!
//!     fn reset(&mut self, _: VadMode) {}
//!
//!     fn hangover_frames(&self, _: u64) -> u64 {
//!         0 // it says speech no longer than there is some
//!     }
//! }
//!
//! let session = cuewire::Session::with_vad("alice", Config::default(), Box::new(Loud));
//! # let _ = session;
//! ```

use crate::config::VadMode;

mod lift;
mod webrtc;

pub(crate) use lift::Lift;
pub use webrtc::WebRtcVad;

/// The detector of sessions that bring none, and so of the engine's tracks.
pub(crate) fn detector(mode: VadMode) -> Box<dyn Vad> {
    Box::new(WebRtcVad::new(mode))
}

/// Samples in a frame: 20 ms at 16 kHz.
pub const FRAME: usize = 320;

/// Tells speech-like frames from others. Deterministic: the same frames since [`Vad::reset`] give the same answers.
pub trait Vad: Send {
    /// Whether this frame sounds like speech.
    fn is_speech(&mut self, frame: &[i16; FRAME]) -> bool;

    /// Forgets everything heard, and listens in `mode` from here on.
    fn reset(&mut self, mode: VadMode);

    /// How many frames at the end of an unbroken run of `run` speech frames are the detector's hangover: it goes on
    /// saying speech for them after speech has ended. Less than `run`.
    fn hangover_frames(&self, run: u64) -> u64;
}
