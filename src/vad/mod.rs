//! Voice activity: which frames are speech-like.
//!
//! In: frames of 20 ms, 16-bit at 16 kHz. Out: speech-like or not. Hysteresis and pre-roll are the segmenter's.

use crate::config::VadMode;

mod lift;
mod webrtc;

pub(crate) use lift::Lift;
pub use webrtc::WebRtcVad;

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
