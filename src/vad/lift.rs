//! Soft speakers, lifted before the detector listens.
//!
//! In: frames of samples. Out: by how much to lift them. The detector knows no speech below some −40 dBFS; the recogniser,
//! which normalises what it hears, does. So only the detector hears lifted frames.

use super::FRAME;

/// The peak to which soft tracks are lifted: −30 dBFS, at which the detector misses nothing that it finds in louder ones.
const TARGET: f32 = 0.031_6;
/// The most that they are: 15 dB. Noise at −50 dBFS stays what it is.
const MOST: f32 = 5.62;
/// What is left of a peak after each frame: half after 10 s.
const DECAY: f32 = 0.998_614_7;

/// How loud a track was lately.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lift {
    peak: f32,
}

impl Lift {
    /// What to multiply this frame by: 1 or more, and never so much that it exceeds the target.
    pub(crate) fn factor(&mut self, frame: impl Iterator<Item = f32>) -> f32 {
        let peak = frame.take(FRAME).fold(0.0f32, |peak, sample| if sample.abs() > peak { sample.abs() } else { peak });
        self.peak = (self.peak * DECAY).max(peak);
        (TARGET / self.peak.max(TARGET / MOST)).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_tracks_are_lifted_and_loud_ones_are_not() {
        let frame = |peak: f32| (0..FRAME).map(move |i| if i == 100 { -peak } else { 0.0 });
        let mut lift = Lift::default();
        assert_eq!(lift.factor(frame(0.0)), MOST);
        assert_eq!(lift.factor(frame(0.005_62)), MOST);
        assert!((lift.factor(frame(0.0158)) - 2.0).abs() < 0.01);
        assert_eq!(lift.factor(frame(0.5)), 1.0);
        // A pause after loud speech is not lifted for half a minute.
        for _ in 0..50 * 30 {
            assert_eq!(lift.factor(frame(0.001)), 1.0);
        }
        for _ in 0..50 * 60 {
            lift.factor(frame(0.001));
        }
        assert!(lift.factor(frame(0.001)) > 5.0);
    }
}
