//! The command line.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use cuewire::asr::whisper::Quantization;
use cuewire::caption::cues::Profile;
use cuewire::config::{
    Config, InterimIntervalMs, LanguageSetting, MaxSpeechCaptionMs, SilenceDurationMs, SpeechSegmentConfig,
};
use cuewire::time::Timestamp;
use cuewire::transcript::Format;

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
before the others. Times in srt and vtt count from --start-time.

Examples:
  cuewire transcribe meeting.webm
  cuewire transcribe --language fr --format srt film.mp4 > film.srt
  cuewire transcribe --split-channels --output-dir out calls/*.wav
  cuewire transcribe --merge alice=a.webm bob=b.webm --offset bob=1.5 --output call.vtt --format vtt
  ffmpeg -i rtsp://camera/1 -t 60 -f wav - | cuewire transcribe -";

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
    /// Look into models and convert them.
    #[command(subcommand)]
    Model(ModelCommand),
}

#[derive(Subcommand)]
pub(crate) enum ModelCommand {
    /// Print a model's name, sizes and languages.
    Info(InfoArgs),
    /// Write a model as one GGUF file that holds everything: weights, tokenizer, settings.
    Convert(ConvertArgs),
}

#[derive(Args)]
pub(crate) struct RecognitionArgs {
    /// Model: a Hugging Face folder or a GGUF file [default: the built-in Whisper base]
    #[arg(long, value_name = "PATH")]
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

    /// Find the time of each word: json lists them, vtt marks them as they are spoken
    #[arg(long)]
    pub(crate) word_times: bool,

    /// Threads that decode [default: as many as the machine, or its container, has cores]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,
}

impl RecognitionArgs {
    /// The settings of each track.
    pub(crate) fn config(&self, interim_interval_ms: InterimIntervalMs) -> Config {
        let mut config = Config::default();
        config.speech_segment_config = SpeechSegmentConfig {
            max_speech_caption_ms: self.max_speech_caption_ms,
            silence_duration_ms: self.silence_duration_ms,
        };
        config.language = self.language;
        config.interim_interval_ms = interim_interval_ms;
        config
    }
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
pub(crate) struct InfoArgs {
    /// A Hugging Face folder or a GGUF file [default: the built-in model]
    pub(crate) path: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct ConvertArgs {
    /// The model: a Hugging Face folder or a GGUF file
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
