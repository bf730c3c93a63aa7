//! The settings of a track.
//!
//! In: numbers and JSON under the names of the product's specification. Out: types that hold allowed values only, or
//! an error that names the field, the value and the range. Nothing is clamped.

use std::fmt;

use serde::{Deserialize, Serialize};

mod language;
mod text;

pub use language::{Language, LanguageSetting, UnknownLanguage};
pub use text::{MOST_ENTRIES, Replacement, Replacements, TextError, TextRules, Vocabulary, Words};

/// A setting is outside its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}: allowed are {allowed}")]
pub struct RangeError {
    field: &'static str,
    value: u32,
    allowed: &'static str,
}

/// A number of milliseconds that parses only within its range.
macro_rules! milliseconds {
    ($(#[$doc:meta])* $name:ident, $field:literal, $default:literal, $allowed:literal, $pattern:pat) => {
        $(#[$doc])*
        #[doc = concat!("\n\nMilliseconds; default ", $default, ", allowed ", $allowed, ".")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(try_from = "u32", into = "u32")]
        pub struct $name(u32);

        impl $name {
            /// The number of milliseconds.
            #[must_use]
            pub const fn ms(self) -> u32 {
                self.0
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self($default)
            }
        }

        impl TryFrom<u32> for $name {
            type Error = RangeError;

            fn try_from(value: u32) -> Result<Self, RangeError> {
                match value {
                    $pattern => Ok(Self(value)),
                    _ => Err(RangeError { field: $field, value, allowed: $allowed }),
                }
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                text.parse::<u32>()
                    .map_err(|_| format!("{} is `{text}`: allowed are whole milliseconds, {}", $field, $allowed))
                    .and_then(|value| Self::try_from(value).map_err(|error| error.to_string()))
            }
        }

        impl From<$name> for u32 {
            fn from(value: $name) -> u32 {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

milliseconds!(
    /// Longest single caption during continuous speech.
    MaxSpeechCaptionMs, "max_speech_caption_ms", 9000, "5000 – 10000", 5000..=10_000
);
milliseconds!(
    /// Silence that finalises a caption and lets the next one start.
    SilenceDurationMs, "silence_duration_ms", 700, "300 – 2000", 300..=2000
);
milliseconds!(
    /// How often an open caption is decoded for an interim result; 0 turns interims off.
    InterimIntervalMs, "interim_interval_ms", 1000, "0 and 250 – 5000", 0 | 250..=5000
);

/// When a caption ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpeechSegmentConfig {
    /// Longest single caption during continuous speech.
    pub max_speech_caption_ms: MaxSpeechCaptionMs,
    /// Silence that finalises a caption.
    pub silence_duration_ms: SilenceDurationMs,
}

/// How readily the voice activity detector calls a frame speech: WebRTC's four modes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VadMode {
    /// Misses the least speech, takes the most noise for speech.
    Quality,
    /// A little stricter.
    LowBitrate,
    /// Strict.
    #[default]
    Aggressive,
    /// Takes the least noise for speech, misses the most speech.
    VeryAggressive,
}

/// What the recogniser does with speech.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Writes it down.
    #[default]
    Transcribe,
    /// Says it in English: the one language that Whisper translates into.
    Translate,
}

/// When a word of an interim counts as stable: no later interim changes it. The final still may; the sooner words are
/// stable, the more often it does ([`Session::stability`](crate::Session::stability) counts).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stability {
    /// At once, but for the last two words of each interim (where a script has no spaces: characters): mostly one interim
    /// sooner than `medium`, on one hypothesis alone. A misheard word stays until the final.
    Low,
    /// Once two consecutive hypotheses agree on it.
    #[default]
    Medium,
    /// Once three do: one interim later than `medium`, and the least is taken back by the final.
    High,
}

/// Everything that can be set for one track. Fields missing in JSON take their defaults; unknown ones are errors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// When a caption ends.
    pub speech_segment_config: SpeechSegmentConfig,
    /// What is spoken; default `en`.
    pub language: LanguageSetting,
    /// How often interims are made.
    pub interim_interval_ms: InterimIntervalMs,
    /// How readily sound counts as speech.
    pub vad_mode: VadMode,
    /// When words of interims count as stable; default `medium`.
    #[serde(skip_serializing_if = "is_default")]
    pub stability: Stability,
    /// Whether captions are what was said, or its translation into English; default `transcribe`.
    #[serde(skip_serializing_if = "is_default")]
    pub task: Task,
    /// Names and terms to expect.
    #[serde(skip_serializing_if = "is_default")]
    pub vocabulary: Vocabulary,
    /// What is changed in texts.
    #[serde(skip_serializing_if = "is_default")]
    pub text_rules: TextRules,
    /// Whether finals are decoded inside the silence that must pass before they are shown, so that they are ready when it is
    /// over: for live audio. Where speech goes on the work was in vain. Default off; it changes no text.
    #[serde(skip_serializing_if = "is_default")]
    pub early_finals: bool,
    /// Whether finals have their words with times; default off: it takes time.
    #[serde(skip_serializing_if = "is_default")]
    pub word_times: bool,
    /// Whether each caption that was said in another language is also translated into English, once its final is said;
    /// default off: it is a second decode of the same audio.
    #[serde(skip_serializing_if = "is_default")]
    pub translations: bool,
    /// Whether no caption opens; the one that is open goes on to its end. Unlike other settings it takes effect at once. Where
    /// it is lifted and no caption is open, nothing before that moment is heard. Default off.
    #[serde(skip_serializing_if = "is_default")]
    pub paused: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_the_specified_ones() {
        let json = serde_json::to_string(&Config::default()).unwrap();
        assert_eq!(
            json,
            r#"{"speech_segment_config":{"max_speech_caption_ms":9000,"silence_duration_ms":700},"language":"en","interim_interval_ms":1000,"vad_mode":"aggressive"}"#
        );
        assert_eq!(serde_json::from_str::<Config>("{}").unwrap(), Config::default());
        assert_eq!(serde_json::from_str::<Config>(&json).unwrap(), Config::default());
    }

    #[test]
    fn a_value_outside_its_range_names_field_value_and_range() {
        for (json, parts) in [
            (
                r#"{"speech_segment_config":{"max_speech_caption_ms":4999}}"#,
                ["max_speech_caption_ms", "4999", "5000 – 10000"],
            ),
            (
                r#"{"speech_segment_config":{"max_speech_caption_ms":10001}}"#,
                ["max_speech_caption_ms", "10001", "5000 – 10000"],
            ),
            (r#"{"speech_segment_config":{"silence_duration_ms":299}}"#, ["silence_duration_ms", "299", "300 – 2000"]),
            (
                r#"{"speech_segment_config":{"silence_duration_ms":2001}}"#,
                ["silence_duration_ms", "2001", "300 – 2000"],
            ),
            (r#"{"interim_interval_ms":249}"#, ["interim_interval_ms", "249", "0 and 250 – 5000"]),
            (r#"{"interim_interval_ms":5001}"#, ["interim_interval_ms", "5001", "0 and 250 – 5000"]),
            (r#"{"language":"tlh"}"#, ["language", "`tlh`", "auto, en"]),
            (r#"{"stability":"none"}"#, ["`none`", "low", "`high`"]),
            (r#"{"silence":5}"#, ["silence", "unknown field", "speech_segment_config"]),
        ] {
            let error = serde_json::from_str::<Config>(json).unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{json}: {error}");
        }
    }

    #[test]
    fn the_ends_of_every_range_are_allowed() {
        for ms in [5000, 10_000] {
            assert_eq!(MaxSpeechCaptionMs::try_from(ms).unwrap().ms(), ms);
        }
        for ms in [300, 2000] {
            assert_eq!(SilenceDurationMs::try_from(ms).unwrap().ms(), ms);
        }
        for ms in [0, 250, 5000] {
            assert_eq!(InterimIntervalMs::try_from(ms).unwrap().ms(), ms);
        }
        assert!("700ms".parse::<SilenceDurationMs>().unwrap_err().contains("`700ms`"));
    }
}
