//! Options of how speech is recognised, which every command that captions has.
//!
//! In: options, and the lists in their files. Out: a track's [`Config`].

use std::fs::File;
use std::io::Read as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::Args;
use cuewire::config::{
    Config, InterimIntervalMs, LanguageSetting, MaxSpeechCaptionMs, Replacement, Replacements, SilenceDurationMs,
    SpeechSegmentConfig, Task, TextError, Words,
};

use crate::Failure;

#[derive(Args)]
pub(crate) struct RecognitionArgs {
    /// Model: a Hugging Face or CTranslate2 folder, a GGUF or ggml file, or a name from the Hugging Face cache such as
    /// tiny.en or org/name@REV (a branch, tag or commit) [default: the built-in Whisper base]
    #[arg(long, value_name = "PATH|NAME")]
    pub(crate) model: Option<PathBuf>,

    /// Spoken language: a code such as en, fr, pt-BR, or auto
    #[arg(long, value_name = "CODE", default_value_t)]
    pub(crate) language: LanguageSetting,

    /// Longest caption during continuous speech: 5000 – 10000 ms
    #[arg(long, value_name = "MS", default_value_t)]
    pub(crate) max_speech_caption_ms: MaxSpeechCaptionMs,

    /// Silence that ends a caption: 300 – 2000 ms
    #[arg(long, value_name = "MS", default_value_t)]
    pub(crate) silence_duration_ms: SilenceDurationMs,

    /// Say it in English, whatever is spoken
    #[arg(long)]
    pub(crate) translate: bool,

    /// Names and terms to expect, separated by commas; @FILE: one a line. They help only where they are spoken
    #[arg(long, value_name = "TERMS|@FILE")]
    pub(crate) vocabulary: Option<String>,

    /// Show TO where FROM is recognised, as whole words in any case; can be given again; @FILE: one FROM=TO a line
    #[arg(long, value_name = "FROM=TO|@FILE")]
    pub(crate) replace: Vec<String>,

    /// Show English swear words as their first letter and stars
    #[arg(long)]
    pub(crate) mask_profanity: bool,

    /// Mask these words too, separated by commas; @FILE: one a line
    #[arg(long, value_name = "WORDS|@FILE")]
    pub(crate) mask_words: Option<String>,

    /// Keep names of sounds in brackets: [Music], (applause)
    #[arg(long)]
    pub(crate) keep_sound_tags: bool,

    /// Threads that decode: 1 – 1024 [default: as many as the machine, or its container, has cores]
    #[arg(long, value_name = "N", value_parser = threads)]
    pub(crate) threads: Option<NonZeroUsize>,
}

impl RecognitionArgs {
    /// The settings of each track.
    pub(crate) fn config(&self, interim_interval_ms: InterimIntervalMs, word_times: bool) -> Result<Config, Failure> {
        let mut config = Config::default();
        config.speech_segment_config = SpeechSegmentConfig {
            max_speech_caption_ms: self.max_speech_caption_ms,
            silence_duration_ms: self.silence_duration_ms,
        };
        config.language = self.language;
        config.interim_interval_ms = interim_interval_ms;
        config.task = if self.translate { Task::Translate } else { Task::Transcribe };
        config.word_times = word_times;
        let terms = self.vocabulary.as_deref().map_or(Ok(Vec::new()), |given| entries("--vocabulary", given, true))?;
        config.vocabulary = terms.into_iter().map(|(_, term)| term).collect::<Vec<_>>().try_into()?;
        let rules = &mut config.text_rules;
        rules.keep_sound_tags = self.keep_sound_tags;
        rules.mask_profanity = self.mask_profanity;
        // Entries are checked one by one too: an error says where.
        let at = |place: &str, error: TextError| Failure(format!("{place}: {error}"));
        let mut words = Vec::new();
        if let Some(given) = &self.mask_words {
            for (place, word) in entries("--mask-words", given, true)? {
                Words::try_from(vec![word.clone()]).map_err(|error| at(&place, error))?;
                words.push(word);
            }
        }
        rules.masked_words = words.try_into()?;
        let mut rows = Vec::new();
        for given in &self.replace {
            for (place, row) in entries("--replace", given, false)? {
                let (from, to) = row
                    .split_once('=')
                    .ok_or_else(|| Failure(format!("{place}: `{row}` has no `=`: FROM=TO is expected")))?;
                let row = Replacement { from: from.trim().to_string(), to: to.trim().to_string() };
                Replacements::try_from(vec![row.clone()]).map_err(|error| at(&place, error))?;
                rows.push(row);
            }
        }
        rules.replacements = rows.try_into()?;
        Ok(config)
    }

    /// The files of every `@FILE`.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        let given = self.vocabulary.iter().chain(&self.mask_words).chain(&self.replace);
        given.filter_map(|given| file(given).map(Path::new))
    }
}

/// The path of `@FILE`. `@@` is how text begins with `@`.
fn file(given: &str) -> Option<&str> {
    given.strip_prefix('@').filter(|path| !path.starts_with('@'))
}

/// The entries of a value, or the lines of its file; each with its place, for messages.
fn entries(option: &str, given: &str, by_commas: bool) -> Result<Vec<(String, String)>, Failure> {
    if let Some(path) = file(given) {
        return lines(option, path);
    }
    let text = given.strip_prefix('@').unwrap_or(given);
    let entries = text.split(|c| by_commas && c == ',').map(str::trim).filter(|entry| !by_commas || !entry.is_empty());
    Ok(entries.map(|entry| (option.to_string(), entry.to_string())).collect())
}

/// The lines of a small file, but for empty ones and comments.
fn lines(option: &str, path: &str) -> Result<Vec<(String, String)>, Failure> {
    const MOST_BYTES: u64 = 1 << 20;
    let failed = |problem: String| Failure(format!("{option}: {path}: {problem}"));
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    let mut bytes = Vec::new();
    let read = file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(|error| failed(error.to_string()))?;
    if read as u64 > MOST_BYTES {
        return Err(failed(format!("it is larger than {MOST_BYTES} bytes")));
    }
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count() + 1;
        failed(format!("line {line}: it is no UTF-8"))
    })?;
    let lines = text.lines().map(str::trim).zip(1..).filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(|(line, number): (_, u64)| (format!("{option}: {path}: line {number}"), line.to_string())).collect())
}

/// More than any machine that this is run on has cores; each costs memory, and at some thousands systems give up.
fn threads(text: &str) -> Result<NonZeroUsize, String> {
    const MOST_THREADS: usize = 1024;
    let threads = text.parse().ok().filter(|threads: &NonZeroUsize| threads.get() <= MOST_THREADS);
    threads.ok_or_else(|| format!("threads are `{text}`: allowed are 1 – {MOST_THREADS}"))
}
