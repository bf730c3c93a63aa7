//! How a track is heard, and what it says.
//!
//! In: how a call is recognised; captions as the engine has them. Out: a track's settings; captions as the call has them.

use std::sync::Arc;

use cuewire::caption::{CaptionEvent, CaptionId, GapReason};
use cuewire::config::{Config, InterimIntervalMs, Language};
use cuewire::time::Timestamp;

use crate::call::settings::Recognition;
use crate::call::{Caption, Interim};

/// How a track is heard.
pub(super) fn config_of(recognition: Option<&Recognition>, interims: bool) -> Config {
    let mut config = Config::default();
    config.early_finals = true;
    config.paused = recognition.is_none();
    if let Some(Recognition { language, speech_segment_config, translate }) = recognition {
        config.language = *language;
        config.speech_segment_config = *speech_segment_config;
        config.translations = *translate;
    }
    if !interims {
        config.interim_interval_ms = InterimIntervalMs::try_from(0).unwrap_or_default();
    }
    config
}

/// What somebody said is no caption, and will be none.
#[derive(Clone, Debug)]
pub(crate) struct Missed {
    pub(crate) speaker_id: String,
    pub(crate) start_time: Timestamp,
    pub(crate) end_time: Timestamp,
    /// As the engine has it: `overload`, `decode_failed`, `abandoned`.
    pub(crate) reason: String,
}

/// What is to be handed on.
pub(super) enum Said {
    Caption(Caption),
    Interim(Interim),
    Missed(Missed),
}

/// Whether a gap is of what was said, and not of what was not sent.
pub(super) fn is_missed(reason: GapReason) -> bool {
    matches!(reason, GapReason::DecodeFailed | GapReason::Overload | GapReason::Abandoned)
}

/// What a track says, as its call has it.
pub(super) fn said(name: &str, event: CaptionEvent) -> Option<Said> {
    let id_of = |id: CaptionId| format!("{name}-{}", id.0);
    let caption = |id, (start_time, end_time), speaker_id: Arc<str>, language: Language, text, translated| Caption {
        id,
        speaker_id: speaker_id.to_string(),
        start_time,
        end_time,
        text,
        language: language.to_string(),
        translated,
        service: None,
    };
    Some(match event {
        CaptionEvent::Final { id, start_time, end_time, speaker_id, language, text, translated, .. } => {
            Said::Caption(caption(id_of(id), (start_time, end_time), speaker_id, language, text, translated))
        }
        CaptionEvent::Translation { id, start_time, end_time, speaker_id, language, text, .. } => {
            let id = format!("{}-{language}", id_of(id));
            // Clients take two captions with one speaker and one beginning for the same.
            Said::Caption(caption(id, (start_time.plus_nanos(1), end_time), speaker_id, language, text, true))
        }
        CaptionEvent::Interim {
            id,
            revision,
            start_time,
            end_time,
            speaker_id,
            language,
            text,
            stable_chars,
            translated,
            ..
        } => {
            let caption = caption(id_of(id), (start_time, end_time), speaker_id, language, text, translated);
            Said::Interim(Interim::Text { caption, revision, stable_chars })
        }
        CaptionEvent::Retracted { id, reason, .. } => {
            let reason = serde_json::to_value(reason).ok()?.as_str()?.to_string();
            Said::Interim(Interim::Retracted { id: id_of(id), reason })
        }
        CaptionEvent::Gap { from, to, speaker_id, reason } if is_missed(reason) => {
            let reason = serde_json::to_value(reason).ok()?.as_str()?.to_string();
            Said::Missed(Missed { speaker_id: speaker_id.to_string(), start_time: from, end_time: to, reason })
        }
        _ => return None,
    })
}
