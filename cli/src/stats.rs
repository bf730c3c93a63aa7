//! Figures about a run.

use std::collections::BTreeMap;
use std::path::Path;

use cuewire::asr::Suppression;
use cuewire::caption::cues::CueCounts;
use serde::Serialize;

/// What `--stats` writes, as one JSON object. Times in seconds.
#[derive(Serialize)]
pub(crate) struct Stats {
    /// From the start of loading the model to its end.
    pub(crate) model_load_s: f64,
    /// Audio read, all inputs together; a channel of a split recording counts once.
    pub(crate) audio_s: f64,
    /// Time in the decoder, summed over the threads.
    pub(crate) decode_s: f64,
    /// From the start of the command to its end, the model's loading included.
    pub(crate) wall_s: f64,
    /// Captions written.
    pub(crate) captions: u64,
    /// Speech-like spans that gave no caption.
    pub(crate) suppressed: u64,
    /// The same by reason, those that there were.
    pub(crate) suppressed_by_reason: BTreeMap<Suppression, u64>,
    /// Cues of srt and vtt, all transcripts together; null for other formats.
    pub(crate) cues: Option<CueStats>,
    /// Largest resident memory of the process; null where the system does not say.
    pub(crate) peak_rss_bytes: Option<u64>,
}

/// How many cues there are, and how often each rule of the profile could not be kept.
#[derive(Serialize)]
pub(crate) struct CueStats {
    pub(crate) profile: &'static str,
    #[serde(flatten)]
    pub(crate) counts: CueCounts,
}

impl Stats {
    pub(crate) fn write(&self, path: &Path) -> Result<(), String> {
        let write = || {
            let mut json = serde_json::to_vec_pretty(self)?;
            json.push(b'\n');
            std::fs::write(path, json)
        };
        write().map_err(|error: std::io::Error| format!("cannot write {}: {error}", path.display()))
    }
}

/// `VmHWM` of Linux.
pub(crate) fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}
