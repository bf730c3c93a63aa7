//! Random numbers that are the same in every replay.
//!
//! In: a caption's place in its track, and a temperature. Out: numbers from 0 to 1.
//! SplitMix64 (Steele, Lea, Flood: *Fast splittable pseudorandom number generators*, 2014): its whole state is its seed.

use crate::time::SampleIndex;

/// The numbers of one attempt.
pub(crate) struct Draws {
    state: u64,
    temperature: f32,
}

impl Draws {
    /// `None` for temperature 0, at which nothing is drawn.
    pub(crate) fn new(start: SampleIndex, temperature_tenths: u8) -> Option<Self> {
        let temperature = f32::from(temperature_tenths) / 10.0;
        let state = start.0.wrapping_mul(16).wrapping_add(u64::from(temperature_tenths));
        (temperature_tenths > 0).then_some(Self { state, temperature })
    }

    pub(crate) fn temperature(&self) -> f32 {
        self.temperature
    }

    /// The next number, 0 included, 1 not.
    pub(crate) fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_spread_and_repeat() {
        let draws = |start| {
            let mut draws = Draws::new(SampleIndex(start), 2).unwrap();
            (0..1000).map(|_| draws.uniform()).collect::<Vec<_>>()
        };
        assert_eq!(draws(5), draws(5));
        assert_ne!(draws(5), draws(6));
        let mean = draws(0).iter().sum::<f64>() / 1000.0;
        assert!((mean - 0.5).abs() < 0.03 && draws(0).iter().all(|v| (0.0..1.0).contains(v)), "{mean}");
        assert!(Draws::new(SampleIndex(0), 0).is_none());
    }
}
