//! What a call is set to: a call type's settings, overridden by a call's own, leaf by leaf.
//!
//! In: JSON as clients send it. Out: the same JSON, whole, and the leaves that cuewire acts on, checked.
//!
//! Settings are kept as a tree because most of them are others' business: what cuewire does not act on is kept as it was set.

use cuewire::config::{LanguageSetting, MaxSpeechCaptionMs, SilenceDurationMs, SpeechSegmentConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Process;

/// Settings, or some of them: an object of objects. `null` is "left out".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Settings(Map<String, Value>);

/// A setting that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("settings.{field} is {value}: allowed is {allowed}")]
pub struct SettingsError {
    /// Where, as `transcription.language`.
    pub field: String,
    /// What it was set to, as JSON.
    pub value: String,
    /// What it may be.
    pub allowed: String,
}

/// When a process runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Never: a start is refused, and one that runs is stopped.
    Disabled,
    /// When it is started.
    #[default]
    Available,
    /// Also when the first participant joins.
    AutoOn,
}

/// How speech is recognised: the same for both processes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recognition {
    /// What is spoken.
    pub language: LanguageSetting,
    /// When captions end.
    pub speech_segment_config: SpeechSegmentConfig,
    /// Whether each caption is also translated, into English.
    pub translate: bool,
}

/// Some of how speech is recognised: what an override or a request says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecognitionPatch {
    /// What is spoken.
    pub language: Option<LanguageSetting>,
    /// Longest caption.
    pub max_speech_caption_ms: Option<MaxSpeechCaptionMs>,
    /// Silence that ends one.
    pub silence_duration_ms: Option<SilenceDurationMs>,
    /// Whether each caption is also translated.
    pub translate: Option<bool>,
}

impl RecognitionPatch {
    /// Overwrites what this says.
    pub fn apply_to(&self, recognition: &mut Recognition) {
        let Recognition { language, speech_segment_config, translate } = recognition;
        *language = self.language.unwrap_or(*language);
        let SpeechSegmentConfig { max_speech_caption_ms, silence_duration_ms } = speech_segment_config;
        *max_speech_caption_ms = self.max_speech_caption_ms.unwrap_or(*max_speech_caption_ms);
        *silence_duration_ms = self.silence_duration_ms.unwrap_or(*silence_duration_ms);
        *translate = self.translate.unwrap_or(*translate);
    }

    /// Only what `other` does not say.
    #[must_use]
    pub fn without(self, other: &Self) -> Self {
        Self {
            language: self.language.filter(|_| other.language.is_none()),
            max_speech_caption_ms: self.max_speech_caption_ms.filter(|_| other.max_speech_caption_ms.is_none()),
            silence_duration_ms: self.silence_duration_ms.filter(|_| other.silence_duration_ms.is_none()),
            translate: self.translate.filter(|_| other.translate.is_none()),
        }
    }
}

/// The leaves that cuewire acts on; what is not set is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaves {
    /// Of transcription.
    pub mode: Option<Mode>,
    /// Of captions.
    pub closed_caption_mode: Option<Mode>,
    /// Of what both hear.
    pub recognition: RecognitionPatch,
    /// Seconds without participants that end a session.
    pub inactivity_timeout_s: Option<u32>,
}

impl Leaves {
    /// The processes that are set to this mode.
    pub(super) fn processes_in(&self, mode: Mode) -> impl Iterator<Item = Process> + use<> {
        let modes = [(Process::Transcription, self.mode), (Process::Captions, self.closed_caption_mode)];
        modes.into_iter().filter(move |(_, set)| *set == Some(mode)).map(|(process, _)| process)
    }
}

/// Longest inactivity timeout: 15 minutes.
pub(crate) const MAX_INACTIVITY_S: u32 = 900;
/// Seconds without participants that end a session where nothing else is set.
pub const DEFAULT_INACTIVITY_S: u32 = 30;

impl Settings {
    /// Of a JSON object, checked.
    ///
    /// # Errors
    /// The first leaf that makes no sense.
    pub fn parse(tree: Map<String, Value>) -> Result<Self, SettingsError> {
        if let Some((field, value)) = tree.iter().find(|(_, value)| !value.is_object() && !value.is_null()) {
            return Err(SettingsError {
                field: field.chars().take(100).collect(),
                value: value.to_string().chars().take(100).collect(),
                allowed: "an object".into(),
            });
        }
        let settings = Self(tree);
        settings.leaves()?;
        Ok(settings)
    }

    /// The whole tree.
    #[must_use]
    pub fn tree(&self) -> &Map<String, Value> {
        &self.0
    }

    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// These, overridden by `other` leaf by leaf. A list is a leaf.
    #[must_use]
    pub fn overridden(&self, other: &Self) -> Self {
        let mut tree = self.0.clone();
        merge(&mut tree, &other.0);
        Self(tree)
    }

    /// The leaves that cuewire acts on.
    ///
    /// # Errors
    /// The first that makes no sense.
    pub fn leaves(&self) -> Result<Leaves, SettingsError> {
        let mode = |field| {
            self.leaf(field, "disabled, available, auto-on", |value| serde_json::from_value(value.clone()).ok())
        };
        Ok(Leaves {
            mode: mode("transcription.mode")?,
            closed_caption_mode: mode("transcription.closed_caption_mode")?,
            recognition: RecognitionPatch {
                language: self
                    .leaf("transcription.language", "a language code, or auto", |value| value.as_str()?.parse().ok())?,
                max_speech_caption_ms: self.leaf(
                    "transcription.speech_segment_config.max_speech_caption_ms",
                    "5000 – 10000",
                    |value| MaxSpeechCaptionMs::try_from(number(value)?).ok(),
                )?,
                silence_duration_ms: self.leaf(
                    "transcription.speech_segment_config.silence_duration_ms",
                    "300 – 2000",
                    |value| SilenceDurationMs::try_from(number(value)?).ok(),
                )?,
                translate: self.translate()?,
            },
            inactivity_timeout_s: self.leaf(
                "session.inactivity_timeout_seconds",
                &format!("1 – {MAX_INACTIVITY_S}"),
                |value| number(value).filter(|s| (1..=MAX_INACTIVITY_S).contains(s)),
            )?,
        })
    }

    fn translate(&self) -> Result<Option<bool>, SettingsError> {
        let enabled = self.leaf("transcription.translation.enabled", "true, false", Value::as_bool)?;
        let english = |value: &Value| value.as_array()?.iter().all(|language| language == "en").then_some(());
        self.leaf("transcription.translation.languages", "[\"en\"]: Whisper translates into English only", english)?;
        Ok(enabled)
    }

    fn leaf<T>(
        &self,
        field: &str,
        allowed: &str,
        parse: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, SettingsError> {
        let mut node = None;
        let mut tree = Some(&self.0);
        let refused = |field: &str, value: &Value, allowed: &str| SettingsError {
            field: field.to_string(),
            value: value.to_string().chars().take(100).collect(),
            allowed: allowed.to_string(),
        };
        for (i, part) in field.split('.').enumerate() {
            let Some(parent) = tree else {
                let parent = field.split('.').take(i).collect::<Vec<_>>().join(".");
                return Err(refused(&parent, node.unwrap_or(&Value::Null), "an object"));
            };
            node = parent.get(part).filter(|value| !value.is_null());
            let Some(value) = node else { return Ok(None) };
            tree = value.as_object();
        }
        let Some(value) = node else { return Ok(None) };
        parse(value).map(Some).ok_or_else(|| refused(field, value, allowed))
    }
}

fn number(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok()
}

/// Objects leaf by leaf; everything else is replaced, but not by `null`.
fn merge(into: &mut Map<String, Value>, from: &Map<String, Value>) {
    for (name, value) in from {
        match (into.get_mut(name), value) {
            (_, Value::Null) => {}
            (Some(Value::Object(into)), Value::Object(from)) => merge(into, from),
            (_, Value::Object(from)) => {
                let mut whole = Map::new();
                merge(&mut whole, from);
                into.insert(name.clone(), Value::Object(whole));
            }
            (_, value) => drop(into.insert(name.clone(), value.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use serde_json::json;

    use super::*;

    fn settings(tree: Value) -> Settings {
        let Value::Object(tree) = tree else { panic!("{tree} is no object") };
        Settings(tree)
    }

    #[test]
    fn what_an_update_leaves_out_stays() {
        let before =
            json!({"transcription": {"mode": "auto-on", "language": "fr"}, "audio": {"noise": {"mode": "off"}}});
        for (update, after) in [
            (json!({}), before.clone()),
            (
                json!({"transcription": {"language": "de", "mode": null}}),
                json!({"transcription": {"mode": "auto-on", "language": "de"}, "audio": {"noise": {"mode": "off"}}}),
            ),
            (
                json!({"audio": {"noise": {"x": [1]}}, "video": {"y": {"z": null, "w": 1}}}),
                json!({
                    "transcription": {"mode": "auto-on", "language": "fr"},
                    "audio": {"noise": {"mode": "off", "x": [1]}}, "video": {"y": {"w": 1}}
                }),
            ),
        ] {
            assert_eq!(settings(before.clone()).overridden(&settings(update.clone())), settings(after), "{update}");
        }
    }

    #[test]
    fn leaves_are_checked_and_errors_name_field_value_and_range() {
        let rules = |max: u32| json!({"transcription": {"speech_segment_config": {"max_speech_caption_ms": max}}});
        let leaves = settings(rules(5_000)).leaves().unwrap();
        assert_eq!(leaves.recognition.max_speech_caption_ms.unwrap().ms(), 5_000);
        assert_eq!(leaves.recognition.silence_duration_ms, None);
        for (tree, parts) in [
            (rules(4_999), ["transcription.speech_segment_config.max_speech_caption_ms", "4999", "5000"]),
            (
                json!({"transcription": {"speech_segment_config": {"silence_duration_ms": "7"}}}),
                ["transcription.speech_segment_config.silence_duration_ms", "\"7\"", "300"],
            ),
            (json!({"transcription": {"mode": "on"}}), ["transcription.mode", "\"on\"", "auto-on"]),
            (json!({"transcription": {"closed_caption_mode": 1}}), ["closed_caption_mode", "1", "available"]),
            (json!({"transcription": {"language": "xx"}}), ["transcription.language", "\"xx\"", "auto"]),
            (json!({"transcription": []}), ["settings.transcription ", "[]", "an object"]),
            (
                json!({"transcription": {"translation": {"enabled": true, "languages": ["en", "fr"]}}}),
                ["translation.languages", "\"fr\"", "English only"],
            ),
            (json!({"audio": 5}), ["settings.audio ", "5", "an object"]),
            (json!({"session": {"inactivity_timeout_seconds": 0}}), ["inactivity_timeout_seconds", "0", "1 – 900"]),
        ] {
            let Value::Object(map) = tree.clone() else { panic!("{tree}") };
            let error = Settings::parse(map).unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }
}
