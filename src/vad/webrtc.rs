//! WebRTC's voice activity detector behind the [`Vad`] trait.
//!
//! In: frames of 20 ms. Out: its decision. The crate's handle is not `Send`, panics on an empty frame and loses rate
//! and mode on reset; none of that leaves this file.

#![expect(unsafe_code, reason = "the C handle is not marked Send")]

use webrtc_vad::{SampleRate, Vad as Handle, VadMode as HandleMode};

use super::{FRAME, Vad};
use crate::config::VadMode;

/// WebRTC's detector at 16 kHz.
pub struct WebRtcVad {
    handle: Handle,
    mode: VadMode,
}

// SAFETY: the handle owns one heap block of plain numbers that nothing else points to; the C code keeps no global and
// no thread-local state. It is not `Sync`, and every call takes `&mut self`.
unsafe impl Send for WebRtcVad {}

impl WebRtcVad {
    /// A detector that has heard nothing.
    #[must_use]
    pub fn new(mode: VadMode) -> Self {
        Self { handle: handle(mode), mode }
    }
}

fn handle(mode: VadMode) -> Handle {
    let mode = match mode {
        VadMode::Quality => HandleMode::Quality,
        VadMode::LowBitrate => HandleMode::LowBitrate,
        VadMode::Aggressive => HandleMode::Aggressive,
        VadMode::VeryAggressive => HandleMode::VeryAggressive,
    };
    Handle::new_with_rate_and_mode(SampleRate::Rate16kHz, mode)
}

impl Vad for WebRtcVad {
    fn is_speech(&mut self, frame: &[i16; FRAME]) -> bool {
        // The length is one of the three that the detector takes, so it has no error to give.
        self.handle.is_voice_segment(frame).unwrap_or(false)
    }

    fn reset(&mut self, mode: VadMode) {
        self.handle = handle(mode);
        self.mode = mode;
    }

    /// From vad_core.c, for 20 ms frames: `kOverHangMax2` once more than `kMaxSpeechFrames` frames were speech,
    /// `kOverHangMax1` before.
    fn hangover_frames(&self, run: u64) -> u64 {
        let (short, long) = match self.mode {
            VadMode::Quality | VadMode::LowBitrate => (4, 7),
            VadMode::Aggressive | VadMode::VeryAggressive => (3, 5),
        };
        if run > 6 + long { long } else { short.min(run.saturating_sub(1)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buzz(i: usize) -> [i16; FRAME] {
        std::array::from_fn(|j| {
            let phase = ((i * FRAME + j) % 100) as f32 / 100.0;
            ((1.0 - 2.0 * phase) * 9_000.0) as i16
        })
    }

    #[test]
    fn a_reset_detector_answers_like_a_new_one_in_every_mode() {
        for mode in [VadMode::Quality, VadMode::LowBitrate, VadMode::Aggressive, VadMode::VeryAggressive] {
            let answers = |vad: &mut WebRtcVad| -> Vec<bool> {
                (0..50).map(|i| vad.is_speech(&if (10..30).contains(&i) { buzz(i) } else { [0; FRAME] })).collect()
            };
            let mut vad = WebRtcVad::new(VadMode::Quality);
            answers(&mut vad);
            vad.reset(mode);
            let first = answers(&mut vad);
            assert!(first[15..30].iter().all(|&x| x) && !first[49], "{mode:?}: {first:?}");
            assert_eq!(answers(&mut WebRtcVad::new(mode)), first, "{mode:?}");
        }
    }
}
