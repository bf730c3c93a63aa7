//! The words of the rules: capabilities, settings, grants.
//!
//! In: the service's documentation. Out: its tables, and settings as clients write them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::call::Process;
use crate::call::settings::{Recognition, Settings};

pub(in crate::fuzz) const PROCESSES: [Process; 2] = [Process::Transcription, Process::Captions];
/// Capabilities, each with its other spelling.
pub(super) const CAPABILITIES: [(&str, &str); 16] = [
    ("create-call", ""),
    ("read-call", ""),
    ("join-call", ""),
    ("join-ended-call", ""),
    ("send-audio", ""),
    ("start-transcription-call", "StartTranscription"),
    ("stop-transcription-call", "StopTranscription"),
    ("start-closed-captions-call", "StartClosedCaptions"),
    ("stop-closed-captions-call", "StopClosedCaptions"),
    ("send-closed-captions-call", ""),
    ("list-transcriptions", "ListTranscriptions"),
    ("update-call", ""),
    ("update-call-settings", ""),
    ("update-call-member", ""),
    ("update-call-permissions", ""),
    ("end-call", ""),
];

/// All spellings of all capabilities, and one that is another's business.
pub(in crate::fuzz) fn spellings() -> Vec<&'static str> {
    let both = CAPABILITIES.iter().flat_map(|(name, other)| [*name, *other]).filter(|name| !name.is_empty());
    both.chain(["mute-users"]).collect()
}

pub(in crate::fuzz) fn plain(name: &str) -> &str {
    CAPABILITIES.iter().find(|(_, other)| *other == name).map_or(name, |(name, _)| name)
}

pub(in crate::fuzz) fn other(process: Process) -> Process {
    if process == Process::Captions { Process::Transcription } else { Process::Captions }
}

pub(super) fn start_of(process: Process) -> &'static str {
    if process == Process::Captions { "start-closed-captions-call" } else { "start-transcription-call" }
}

pub(super) fn stop_of(process: Process) -> &'static str {
    if process == Process::Captions { "stop-closed-captions-call" } else { "stop-transcription-call" }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fuzz) enum Refusal {
    NotAllowed,
    Input,
}

/// Settings of a call or a call type.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::fuzz) struct Leaves {
    pub(in crate::fuzz) mode: Option<&'static str>,
    pub(in crate::fuzz) closed_caption_mode: Option<&'static str>,
    pub(in crate::fuzz) heard: Heard,
    pub(in crate::fuzz) timeout_s: Option<i64>,
}

/// How speech is recognised, or some of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::fuzz) struct Heard {
    pub(in crate::fuzz) language: Option<&'static str>,
    pub(in crate::fuzz) max_ms: Option<i64>,
    pub(in crate::fuzz) silence_ms: Option<i64>,
    pub(in crate::fuzz) translate: Option<bool>,
}

impl Heard {
    pub(super) fn over(self, below: Self) -> Self {
        Self {
            language: self.language.or(below.language),
            max_ms: self.max_ms.or(below.max_ms),
            silence_ms: self.silence_ms.or(below.silence_ms),
            translate: self.translate.or(below.translate),
        }
    }

    /// Only what the other one does not say.
    pub(super) fn without(self, other: Self) -> Self {
        Self {
            language: self.language.filter(|_| other.language.is_none()),
            max_ms: self.max_ms.filter(|_| other.max_ms.is_none()),
            silence_ms: self.silence_ms.filter(|_| other.silence_ms.is_none()),
            translate: self.translate.filter(|_| other.translate.is_none()),
        }
    }

    pub(super) fn whole(self) -> Self {
        let defaults = Self { language: Some("en"), max_ms: Some(9000), silence_ms: Some(700), translate: Some(false) };
        self.over(defaults)
    }

    pub(super) fn is_known(self) -> bool {
        self.whole().language != Some(UNKNOWN_LANGUAGE)
    }

    pub(super) fn is(self, recognition: &Recognition) -> bool {
        let Self { language, max_ms, silence_ms, translate } = self.whole();
        let segments = recognition.speech_segment_config;
        language == Some(recognition.language.to_string().as_str())
            && max_ms == Some(segments.max_speech_caption_ms.ms().into())
            && silence_ms == Some(segments.silence_duration_ms.ms().into())
            && translate == Some(recognition.translate)
    }
}

/// What the model does not know.
pub(in crate::fuzz) const UNKNOWN_LANGUAGE: &str = "uk";

impl Leaves {
    pub(in crate::fuzz) fn over(self, below: Self) -> Self {
        Self {
            mode: self.mode.or(below.mode),
            closed_caption_mode: self.closed_caption_mode.or(below.closed_caption_mode),
            heard: self.heard.over(below.heard),
            timeout_s: self.timeout_s.or(below.timeout_s),
        }
    }

    /// As a client writes them; `None` where a value is out of its range.
    pub(in crate::fuzz) fn settings(self) -> Option<Settings> {
        let Self { mode, closed_caption_mode, heard, timeout_s } = self;
        let segments = json!({"max_speech_caption_ms": heard.max_ms, "silence_duration_ms": heard.silence_ms});
        let mut tree = Map::new();
        let transcription = json!({
            "mode": mode, "closed_caption_mode": closed_caption_mode, "language": heard.language,
            "speech_segment_config": segments, "translation": {"enabled": heard.translate},
        });
        if self != (Self { timeout_s, ..Self::default() }) {
            tree.insert("transcription".into(), transcription);
        }
        if timeout_s.is_some() {
            tree.insert("session".into(), json!({"inactivity_timeout_seconds": timeout_s}));
        }
        let is_within = heard.max_ms.is_none_or(|ms| (5_000..=10_000).contains(&ms))
            && heard.silence_ms.is_none_or(|ms| (300..=2_000).contains(&ms))
            && timeout_s.is_none_or(|s| (1..=900).contains(&s))
            && [mode, closed_caption_mode]
                .iter()
                .flatten()
                .all(|mode| ["disabled", "available", "auto-on"].contains(mode));
        let parsed = Settings::parse(tree.clone());
        assert_eq!(parsed.is_ok(), is_within, "{} is {parsed:?}", Value::Object(tree));
        parsed.ok()
    }

    pub(super) fn mode_of(self, process: Process) -> &'static str {
        let mode = if process == Process::Captions { self.closed_caption_mode } else { self.mode };
        mode.unwrap_or("available")
    }
}

/// Each role's capabilities.
pub(in crate::fuzz) type GrantsOf = BTreeMap<String, BTreeSet<String>>;

pub(in crate::fuzz) fn default_grants(call_type: &str) -> GrantsOf {
    let all = CAPABILITIES.map(|(name, _)| name);
    let of_users = ["create-call", "read-call", "join-call", "send-audio", "list-transcriptions"];
    let signed_in: &[&str] = if call_type == "development" { &all } else { &of_users };
    let roles: [(&str, &[&str]); 6] = [
        ("admin", &all),
        ("host", &all),
        ("user", signed_in),
        ("call_member", signed_in),
        ("guest", &["read-call"]),
        ("anonymous", &["read-call"]),
    ];
    roles.map(|(role, names)| (role.to_string(), names.iter().map(ToString::to_string).collect())).into()
}
