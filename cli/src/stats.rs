//! Figures about a run.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

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

/// Where the figures will go.
pub(crate) struct StatsFile {
    path: PathBuf,
    file: File,
}

impl StatsFile {
    pub(crate) fn create(path: &Path) -> Result<Self, String> {
        let path = path.to_path_buf();
        match File::create(&path) {
            Ok(file) => Ok(Self { path, file }),
            Err(error) => Err(format!("cannot write {}: {error}", path.display())),
        }
    }

    pub(crate) fn write(mut self, stats: &Stats) -> Result<(), String> {
        serde_json::to_writer_pretty(&self.file, stats)
            .map_err(std::io::Error::from)
            .and_then(|()| self.file.write_all(b"\n"))
            .map_err(|error| format!("cannot write {}: {error}", self.path.display()))
    }
}

/// `VmHWM` of Linux.
pub(crate) fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}
