//! Words with their places in time.
//!
//! In: what alignment found. Out: [`Word`]s, as events and transcripts hold them.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::time::Timestamp;

/// One word of a caption, punctuation that belongs to it included.
///
/// The words of a caption are its text, in order: between two of them the text has white space or nothing, as the
/// language writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    /// The word as the text has it, without white space at its ends.
    pub text: String,
    /// Where it begins.
    pub start_time: Timestamp,
    /// Where it ends; not before `start_time`.
    pub end_time: Timestamp,
    /// How sure the recogniser is: the mean probability of the word's tokens.
    pub confidence: Probability,
}

/// A probability in steps of a ten-thousandth, so that events can be compared and replayed to the byte. Written as a
/// number from 0 to 1 with up to four decimals.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Probability(u16);

impl Probability {
    const STEPS: u16 = 10_000;

    /// The nearest step; what is no number counts as 0, what lies outside 0 … 1 as its end.
    #[must_use]
    pub fn from_f32(value: f32) -> Self {
        Self((value.clamp(0.0, 1.0) * f32::from(Self::STEPS)).round() as u16)
    }

    /// From 0 to 1.
    #[must_use]
    pub fn to_f64(self) -> f64 {
        f64::from(self.0) / f64::from(Self::STEPS)
    }
}

impl fmt::Debug for Probability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_f64().fmt(f)
    }
}

impl fmt::Display for Probability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_f64().fmt(f)
    }
}

impl Serialize for Probability {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.to_f64())
    }
}

impl<'de> Deserialize<'de> for Probability {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = f64::deserialize(deserializer)?;
        if (0.0..=1.0).contains(&value) {
            Ok(Self::from_f32(value as f32))
        } else {
            Err(serde::de::Error::custom(format!("{value} is no probability: allowed are 0 to 1")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probability_is_a_short_number_and_comes_back() {
        for (value, json) in [(0.0, "0.0"), (0.123_456, "0.1235"), (1.0, "1.0"), (7.0, "1.0"), (f32::NAN, "0.0")] {
            let probability = Probability::from_f32(value);
            assert_eq!(serde_json::to_string(&probability).unwrap(), json);
            assert_eq!(serde_json::from_str::<Probability>(json).unwrap(), probability);
        }
        assert!(serde_json::from_str::<Probability>("1.5").unwrap_err().to_string().contains("0 to 1"));
    }
}
