//! The command line.

use std::fs::File;
use std::io::Read as _;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use cuewire::asr::whisper::Quantization;
use cuewire::caption::cues::Profile;
use cuewire::config::{
    Config, InterimIntervalMs, LanguageSetting, MaxSpeechCaptionMs, Replacement, SilenceDurationMs,
    SpeechSegmentConfig, Task,
};
use cuewire::time::Timestamp;
use cuewire::transcript::Format;

use crate::Failure;
use crate::cache::{MAIN, ModelName, Revision};
use crate::tracks::Offset;

const EXIT_CODES: &str = "\
Exit codes:
  0    everything was captioned
  1    an input could not be read, or only in part; what could be captioned was written
  2    the command line makes no sense, or the model cannot be loaded; nothing was written
  130  interrupted (Ctrl-C); captions up to then are finalised and written";

const TRANSCRIBE_EXAMPLES: &str = "\
Cues of srt and vtt: a caption is divided, and its lines are broken, by the rules of a profile:
  netflix  42 characters x 2 lines, 20 characters/s, 5/6 to 7 s
  bbc      37 x 2, 180 words/min, no gap or one of a second
  dcmp     32 x 2, 160 words/min, 1 1/3 to 6 s
  cea608   32 x 4, 480 bit/s
  none     42 characters a line, one cue a caption
What cannot be kept is counted in --stats.

Tracks of --merge are SPEAKER=FILE. The first `=` ends the speaker; the file's name may contain `=` and `@`. Without `=`
the file's name without its extension is the speaker. An --offset is in seconds, up to nine decimals; bob=-0.25 began
before the others. Times in srt and vtt count from --start-time, or from the earliest track that began before it.

Examples:
  cuewire transcribe meeting.webm
  cuewire transcribe --language fr --format srt film.mp4 > film.srt
  cuewire transcribe --split-channels --output-dir out calls/*.wav
  cuewire transcribe --merge alice=a.webm bob=b.webm --offset bob=1.5 --output call.vtt --format vtt
  ffmpeg -i rtsp://camera/1 -t 60 -f wav - | cuewire transcribe -";

const PULL_NOTES: &str = "\
Names: tiny, base, small, medium, each also as .en; large (the first), large-v2, large-v3, large-v3-turbo or turbo;
distil-small.en, distil-medium.en, distil-large-v2, distil-large-v3, distil-large-v3.5; or org/name.

The model goes into the cache that other programs share ($HF_HUB_CACHE, or hub/ in $HF_HOME, or ~/.cache/huggingface/hub),
and afterwards --model NAME finds it. Its path is the one line on standard output. Only what is needed is fetched:
settings, tokenizer and model.safetensors (of a CTranslate2 repository model.bin). A transfer
that breaks off is gone on with by the same command, and every file is checked against the hub's checksum.

Environment: HF_ENDPOINT (another hub), HF_TOKEN or the file $HF_TOKEN_PATH (private and gated models), HF_HUB_OFFLINE=1
(take what the cache has), HF_HUB_DOWNLOAD_TIMEOUT (seconds of silence, 10), HTTPS_PROXY, SSL_CERT_FILE.

Examples:
  cuewire model pull tiny.en && cuewire transcribe --model tiny.en meeting.webm
  cuewire model pull openai/whisper-small --revision main
  cuewire model convert $(cuewire model pull turbo) turbo.gguf --quantize q8_0

Exit codes:
  0    the model is in the cache, whole
  2    it is not: standard error says why
  130  interrupted (Ctrl-C); what was fetched is kept";

const LIVE_EXAMPLES: &str = "\
Standard output is one JSON object a line, as it happens:
  {\"type\":\"interim\", …}     what was said so far; `stable_chars` of its text will not change
  {\"type\":\"final\", …}       a caption as it stands
  {\"type\":\"retracted\", …}   interims of this id were nothing: take them away
  {\"type\":\"suppressed\", …}  speech-like sound without words, and why
  {\"type\":\"gap\", …}         a span without captions, and why

Examples:
  ffmpeg -i rtmp://host/live -vn -f s16le -ar 48000 -ac 1 - | cuewire live --rate 48000 --channels 1
  arecord -q -f S16_LE -r 16000 -c 1 | cuewire live --rate 16000 --channels 1 --language auto";

/// Captions and transcripts of speech, on this machine alone.
#[derive(Parser)]
#[command(name = "cuewire", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Caption recordings.
    #[command(after_help = TRANSCRIBE_EXAMPLES)]
    Transcribe(TranscribeArgs),
    /// Caption raw PCM on standard input while it is spoken.
    #[command(after_help = LIVE_EXAMPLES)]
    Live(LiveArgs),
    /// Fetch models, look into them and convert them.
    #[command(subcommand)]
    Model(ModelCommand),
}

#[derive(Subcommand)]
pub(crate) enum ModelCommand {
    /// Fetch a model from the Hugging Face hub: the one command that goes to the network.
    #[command(after_help = PULL_NOTES)]
    Pull(PullArgs),
    /// Print a model's name, sizes and languages.
    Info(InfoArgs),
    /// Write a model as one GGUF file that holds everything: weights, tokenizer, settings.
    Convert(ConvertArgs),
}

#[derive(Args)]
pub(crate) struct RecognitionArgs {
    /// Model: a Hugging Face or CTranslate2 folder, a GGUF or ggml file, or a name from the Hugging Face cache such as
    /// tiny.en [default: the built-in Whisper base]
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

    /// Find the time of each word: json lists them, vtt marks them as they are spoken
    #[arg(long)]
    pub(crate) word_times: bool,

    /// Threads that decode [default: as many as the machine, or its container, has cores]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,
}

impl RecognitionArgs {
    /// The settings of each track.
    pub(crate) fn config(&self, interim_interval_ms: InterimIntervalMs) -> Result<Config, Failure> {
        let mut config = Config::default();
        config.speech_segment_config = SpeechSegmentConfig {
            max_speech_caption_ms: self.max_speech_caption_ms,
            silence_duration_ms: self.silence_duration_ms,
        };
        config.language = self.language;
        config.interim_interval_ms = interim_interval_ms;
        config.task = if self.translate { Task::Translate } else { Task::Transcribe };
        config.word_times = self.word_times;
        config.vocabulary = list("--vocabulary", self.vocabulary.as_slice())?.try_into()?;
        let rules = &mut config.text_rules;
        rules.keep_sound_tags = self.keep_sound_tags;
        rules.mask_profanity = self.mask_profanity;
        rules.masked_words = list("--mask-words", self.mask_words.as_slice())?.try_into()?;
        let mut rows = Vec::new();
        for given in &self.replace {
            for row in given.strip_prefix('@').map_or(Ok(vec![given.clone()]), |path| lines("--replace", path))? {
                let (from, to) = row
                    .split_once('=')
                    .ok_or_else(|| Failure(format!("--replace: `{row}` has no `=`: FROM=TO is expected")))?;
                rows.push(Replacement { from: from.trim().to_string(), to: to.trim().to_string() });
            }
        }
        rules.replacements = rows.try_into()?;
        Ok(config)
    }
}

/// What is separated by commas, or the lines of a file.
fn list(option: &str, given: &[String]) -> Result<Vec<String>, Failure> {
    let mut all = Vec::new();
    for given in given {
        match given.strip_prefix('@') {
            Some(path) => all.extend(lines(option, path)?),
            None => all.extend(given.split(',').map(|part| part.trim().to_string()).filter(|part| !part.is_empty())),
        }
    }
    Ok(all)
}

/// The lines of a small file that say something.
fn lines(option: &str, path: &str) -> Result<Vec<String>, Failure> {
    const MOST_BYTES: u64 = 1 << 20;
    let failed = |problem: String| Failure(format!("{option}: {path}: {problem}"));
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    let mut text = String::new();
    let read = file.take(MOST_BYTES + 1).read_to_string(&mut text).map_err(|error| failed(error.to_string()))?;
    if read as u64 > MOST_BYTES {
        return Err(failed(format!("it is larger than {MOST_BYTES} bytes")));
    }
    Ok(text.lines().map(|line| line.trim().to_string()).filter(|line| !line.is_empty()).collect())
}

#[derive(Args)]
pub(crate) struct TranscribeArgs {
    /// Recordings: WAV, FLAC, MP3, Ogg, WebM, MP4, AIFF; `-` is standard input. With --merge: SPEAKER=FILE
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,

    /// The recordings are tracks of one conversation: write one transcript, in order of time
    #[arg(long, conflicts_with = "speaker_id")]
    pub(crate) merge: bool,

    /// With --merge: this speaker's recording began so many seconds behind --start-time
    #[arg(long, value_name = "SPEAKER=SECONDS", requires = "merge")]
    pub(crate) offset: Vec<Offset>,

    #[command(flatten)]
    pub(crate) recognition: RecognitionArgs,

    /// Who speaks [default: the file's name without its extension]
    #[arg(long, value_name = "ID")]
    pub(crate) speaker_id: Option<String>,

    /// Each channel is a speaker: <ID>-1, <ID>-2, …
    #[arg(long)]
    pub(crate) split_channels: bool,

    /// When the recording began, RFC 3339
    #[arg(long, value_name = "TIME", default_value_t = Timestamp::EPOCH)]
    pub(crate) start_time: Timestamp,

    /// What to write: jsonl, json, srt, vtt or txt
    #[arg(long, value_name = "FORMAT", default_value_t = Format::Jsonl)]
    pub(crate) format: Format,

    /// Whose rules the cues of srt and vtt keep: netflix, bbc, dcmp, cea608, or none (one cue a caption)
    #[arg(long, value_name = "PROFILE", default_value_t)]
    pub(crate) profile: Profile,

    /// Write to this file, instead of standard output
    #[arg(long, short, value_name = "FILE", conflicts_with = "output_dir")]
    pub(crate) output: Option<PathBuf>,

    /// Write <name>.<format> for each file into this folder, merged.<format> with --merge
    #[arg(long, value_name = "DIR")]
    pub(crate) output_dir: Option<PathBuf>,

    /// Write figures about the run to this file, as JSON; also which rules cues could not keep
    #[arg(long, value_name = "FILE")]
    pub(crate) stats: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct LiveArgs {
    /// Sample rate, Hz: 8000 – 192000
    #[arg(long, value_name = "HZ")]
    pub(crate) rate: u32,

    /// Channels, mixed into one
    #[arg(long, value_name = "N")]
    pub(crate) channels: usize,

    /// Format of the samples
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) sample_format: SampleFormat,

    #[command(flatten)]
    pub(crate) recognition: RecognitionArgs,

    /// Who speaks
    #[arg(long, value_name = "ID", default_value = "speaker")]
    pub(crate) speaker_id: String,

    /// How often the open caption is shown: 0 (never) or 250 – 5000 ms
    #[arg(long, value_name = "MS", default_value_t)]
    pub(crate) interim_interval_ms: InterimIntervalMs,

    /// When the stream began, RFC 3339 [default: now]
    #[arg(long, value_name = "TIME")]
    pub(crate) start_time: Option<Timestamp>,
}

#[derive(Args)]
pub(crate) struct PullArgs {
    /// The model: a short name such as tiny.en, or org/name
    pub(crate) name: ModelName,

    /// Branch, tag or commit
    #[arg(long, value_name = "REV", default_value = MAIN)]
    pub(crate) revision: Revision,
}

#[derive(Args)]
pub(crate) struct InfoArgs {
    /// A Hugging Face or CTranslate2 folder, a GGUF or ggml file, or a name from the Hugging Face cache [default: the
    /// built-in model]
    #[arg(value_name = "PATH|NAME")]
    pub(crate) path: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct ConvertArgs {
    /// The model: a Hugging Face or CTranslate2 folder, a GGUF or ggml file, or a name from the Hugging Face cache
    #[arg(value_name = "IN")]
    pub(crate) input: PathBuf,

    /// The GGUF file to write; it must not exist
    #[arg(value_name = "OUT")]
    pub(crate) output: PathBuf,

    /// How the large matrices are stored
    #[arg(long, value_name = "KIND", value_enum)]
    pub(crate) quantize: QuantizationArg,
}

/// Raw samples, little-endian.
#[derive(Clone, Copy, Default, ValueEnum)]
pub(crate) enum SampleFormat {
    /// Signed 16-bit
    #[default]
    S16le,
    /// 32-bit float, full scale ±1
    F32le,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum QuantizationArg {
    /// 8 bits a weight
    #[value(name = "q8_0")]
    Q8_0,
    /// 16-bit float
    F16,
}

impl From<QuantizationArg> for Quantization {
    fn from(arg: QuantizationArg) -> Self {
        match arg {
            QuantizationArg::Q8_0 => Self::Q8_0,
            QuantizationArg::F16 => Self::F16,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
