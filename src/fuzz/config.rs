//! Settings of any JSON.

use crate::config::Config;
use crate::session::Session;

/// Reads `data` as a track's settings.
///
/// # Panics
/// Where settings that were read are not written as what reads as the same, or where one is outside its range.
pub fn config(data: &[u8]) {
    let settings = match serde_json::from_slice::<Config>(data) {
        Ok(settings) => settings,
        Err(error) => {
            // Of what came from outside a little is shown; but serde shows a name or a text whole that it has no use for,
            // with up to six characters for one that is not printed.
            let (text, shown) = (error.to_string(), error.to_string().chars().count());
            let is_serde_s = ["unknown ", "invalid "].iter().any(|begin| text.starts_with(begin));
            let most = if is_serde_s { 1_000 + 6 * data.len() } else { 1_000 };
            assert!(shown < most, "an error of {shown} characters: {}", text.chars().take(400).collect::<String>());
            return;
        }
    };
    let segment = settings.speech_segment_config;
    assert!((5000..=10_000).contains(&segment.max_speech_caption_ms.ms()), "{segment:?}");
    assert!((300..=2000).contains(&segment.silence_duration_ms.ms()), "{segment:?}");
    assert!(matches!(settings.interim_interval_ms.ms(), 0 | 250..=5000), "{settings:?}");
    let written = serde_json::to_string(&settings).expect("settings can be written");
    let again: Config = serde_json::from_str(&written).expect("what was written can be read");
    assert_eq!(again, settings, "settings survive being written");
    assert_eq!(serde_json::to_string(&again).ok(), Some(written), "and are written in one way");
    drop(Session::new("fuzz", settings));
}
