//! The two clocks of a track: its samples, and the wall.
//!
//! In: sample counts and RFC 3339 text. Out: [`SampleIndex`] (16 kHz samples since the track began) and
//! [`Timestamp`] (nanoseconds UTC). No float holds a time.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// Sample rate of everything behind the resampler, in Hz.
pub const SAMPLE_RATE: u32 = 16_000;

/// A place in one track: 16 kHz samples since its start. At 16 kHz a `u64` lasts 36 million years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SampleIndex(pub u64);

impl SampleIndex {
    /// The place `samples` later.
    #[must_use]
    pub const fn plus(self, samples: u64) -> Self {
        Self(self.0.saturating_add(samples))
    }

    /// The place `samples` earlier, or the start of the track.
    #[must_use]
    pub const fn minus(self, samples: u64) -> Self {
        Self(self.0.saturating_sub(samples))
    }

    /// Samples from `earlier` to here; 0 where `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// An instant: nanoseconds since the Unix epoch, UTC. Reaches from 1677 to 2262.
///
/// Text form: RFC 3339 in UTC with nine decimals, `2024-02-28T08:18:18.061031795Z`; parsing takes any offset and
/// any number of decimals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);

    /// From nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// Later by `nanos` (earlier where negative), saturating at the ends of the range.
    #[must_use]
    pub const fn plus_nanos(self, nanos: i64) -> Self {
        Self(self.0.saturating_add(nanos))
    }

    /// Nanoseconds from `earlier` to here; negative where `earlier` is later. Saturates.
    #[must_use]
    pub const fn nanos_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Nanoseconds that `frames` samples last at `rate` Hz, rounded to the nearest, saturating.
#[must_use]
pub fn nanos_of_samples(frames: u64, rate: u32) -> i64 {
    let rate = u128::from(rate.max(1));
    let nanos = (u128::from(frames) * 1_000_000_000 + rate / 2) / rate;
    i64::try_from(nanos).unwrap_or(i64::MAX)
}

/// Samples at `rate` Hz in `nanos`, rounded to the nearest; 0 where `nanos` is negative.
#[must_use]
pub fn samples_of_nanos(nanos: i64, rate: u32) -> u64 {
    let nanos = u128::try_from(nanos).unwrap_or(0);
    let samples = (nanos * u128::from(rate) + 500_000_000) / 1_000_000_000;
    u64::try_from(samples).unwrap_or(u64::MAX)
}

/// 16 kHz samples in `ms` milliseconds.
#[must_use]
pub const fn samples_of_ms(ms: u32) -> u64 {
    ms as u64 * (SAMPLE_RATE as u64 / 1000)
}

impl From<SystemTime> for Timestamp {
    /// As the system's clock has it; the nearest there is, where that is beyond the range.
    fn from(time: SystemTime) -> Self {
        let nanos = |duration: Duration| i64::try_from(duration.as_nanos());
        Self(match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => nanos(since).unwrap_or(i64::MAX),
            Err(before) => nanos(before.duration()).map_or(i64::MIN, |nanos| -nanos),
        })
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Every i64 of nanoseconds lies within jiff's range.
        let instant = jiff::Timestamp::from_nanosecond(i128::from(self.0)).map_err(|_| fmt::Error)?;
        write!(f, "{instant:.9}")
    }
}

/// A text is not an instant in RFC 3339.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a time: RFC 3339 between 1677 and 2262 is expected, for example 2024-02-28T08:18:18.061031795Z"
)]
pub struct ParseTimestampError {
    text: String,
}

/// Without what lies below a nanosecond, which RFC 3339 allows.
fn nine_decimals(text: &str) -> Cow<'_, str> {
    let Some((whole, behind)) = text.split_once('.') else { return Cow::Borrowed(text) };
    let zone = behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len());
    if zone <= 9 { Cow::Borrowed(text) } else { Cow::Owned(format!("{whole}.{}{}", &behind[..9], &behind[zone..])) }
}

impl FromStr for Timestamp {
    type Err = ParseTimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        nine_decimals(text)
            .parse::<jiff::Timestamp>()
            .ok()
            .and_then(|instant| i64::try_from(instant.as_nanosecond()).ok())
            .map(Self)
            .ok_or_else(|| ParseTimestampError { text: text.chars().take(80).collect() })
    }
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_nine_decimals_and_round_trips() {
        for (nanos, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (1_709_108_298_061_031_795, "2024-02-28T08:18:18.061031795Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
            (i64::MAX, "2262-04-11T23:47:16.854775807Z"),
            (i64::MIN, "1677-09-21T00:12:43.145224192Z"),
        ] {
            let time = Timestamp::from_nanos(nanos);
            assert_eq!(time.to_string(), text);
            assert_eq!(text.parse::<Timestamp>().unwrap(), time);
        }
    }

    #[test]
    fn offsets_are_understood_and_nonsense_is_named() {
        let time: Timestamp = "2024-02-28T09:18:18.061031795999+01:00".parse().unwrap();
        assert_eq!(time.to_string(), "2024-02-28T08:18:18.061031795Z", "what is below a nanosecond is cut");
        let time: Timestamp = "2024-02-28T09:18:18.5+01:00".parse().unwrap();
        assert_eq!(time.to_string(), "2024-02-28T08:18:18.500000000Z");
        for text in ["", "yesterday", "2024-02-30T00:00:00Z", "9999-01-01T00:00:00Z", "2024-02-28T08:18:18"] {
            let error = text.parse::<Timestamp>().unwrap_err().to_string();
            assert!(error.contains("RFC 3339") && error.contains(text), "{error}");
        }
    }

    #[test]
    fn the_systems_time_is_taken_on_both_sides_of_the_epoch() {
        let epoch = SystemTime::UNIX_EPOCH;
        for (nanos, expected) in [(0, 0), (1, 1), (i64::MAX as u64, i64::MAX), (u64::MAX, i64::MAX)] {
            assert_eq!(Timestamp::from(epoch + Duration::from_nanos(nanos)), Timestamp(expected));
            let before = if nanos > i64::MAX as u64 { i64::MIN } else { -expected };
            assert_eq!(Timestamp::from(epoch - Duration::from_nanos(nanos)), Timestamp(before));
        }
    }

    #[test]
    fn samples_and_nanoseconds_agree() {
        for rate in [8_000, 11_025, 16_000, 44_100, 48_000, 192_000] {
            for samples in [0, 1, 441, 16_000, 1 << 40] {
                assert_eq!(samples_of_nanos(nanos_of_samples(samples, rate), rate), samples, "{samples} at {rate} Hz");
            }
        }
        assert_eq!(samples_of_nanos(-5, 16_000), 0);
        assert_eq!(nanos_of_samples(u64::MAX, 8_000), i64::MAX);
    }
}
