//! The command line.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use cuewire::asr::whisper::Quantization;
use cuewire::audio::{MAX_CHANNELS, Pcm};
use cuewire::caption::cues::Profile;
use cuewire::config::InterimIntervalMs;
use cuewire::time::{ParseTimestampError, Timestamp};
use cuewire::transcript::{Format, Sync};

mod offset;
mod recognition;
#[cfg(feature = "serve")]
mod service;

pub(crate) use offset::Offset;
pub(crate) use recognition::RecognitionArgs;
#[cfg(feature = "serve")]
pub(crate) use service::{BackupArgs, BenchCallsArgs, CallArgs, KeyArgs, KeyCommand, ServeArgs, ServerArgs, TokenArgs};

use crate::Failure;
use crate::cache::{MAIN, ModelName, Revision};

/// Of the commands that caption.
const EXIT_CODES: &str = "\
Exit codes:
  0    everything was captioned
  1    an input could not be read, or only in part; what could be captioned was written
  2    the command line makes no sense, the model cannot be loaded, or a place not be written; nothing was written
  130  interrupted (Ctrl-C); captions up to then are finalised and written";

/// Of what takes a value or a file.
const FILE_NOTES: &str = "\
In an @FILE, lines that begin with # are comments. A value itself begins with @ where it is given as @@.";

const TRANSCRIBE_EXAMPLES: &str = "\
Cues of srt and vtt: a caption is divided, and its lines are broken, by the rules of a profile:
  netflix  42 characters x 2 lines, 20 characters/s, 5/6 to 7 s
  bbc      37 x 2, 180 words/min, no gap or one of a second
  dcmp     32 x 2, 160 words/min, 1 1/3 to 6 s
  cea608   32 x 4, 480 bit/s
  none     42 characters a line, one cue a caption
What cannot be kept is counted in --stats.

Figures of --stats, one JSON object:
  model_load_s, wall_s      seconds to load the model; from the start of the command to its end
  audio_s, decode_s         seconds of audio read, a channel of split ones once; of decoding, summed over the threads
  captions, suppressed      captions written; speech-like spans that gave none
  suppressed_by_reason      the latter by reason: empty, no_speech, low_probability, repetition; those that there were
  cues                      of srt and vtt, else null: profile, cues, and for each rule how often it could not be kept:
                            line_too_long, late, too_short, too_long, gap, too_fast, split_phrase, overlap
  peak_rss_bytes            largest resident memory; null where the system does not say

Tracks of --merge are SPEAKER=FILE. The first `=` ends the speaker; the file's name may contain `=` and `@`. Without `=`
the file's name without its extension is the speaker. An --offset is in seconds, up to nine decimals; bob=-0.25 began
before the others. Times in srt and vtt count from --start-time, or from the earliest track that began before it.

Examples:
  cuewire transcribe meeting.webm
  cuewire transcribe --language fr --format srt film.mp4 > film.srt
  cuewire transcribe --split-channels --output-dir out calls/*.wav
  cuewire transcribe --merge alice=a.webm bob=b.webm --offset bob=1.5 --output call.vtt --format vtt
  ffmpeg -i rtsp://camera/1 -t 60 -f wav - | cuewire transcribe -";

const INFO_EXAMPLES: &str = "\
Examples:
  cuewire model info
  cuewire model info tiny.en
  cuewire model info models/whisper-small.gguf

Exit codes:
  0    the model is described
  2    it cannot be loaded: standard error says why";

const CONVERT_EXAMPLES: &str = "\
Examples:
  cuewire model convert tiny.en tiny.en.gguf --quantize q8_0
  cuewire model convert faster-whisper-small/ small.gguf --quantize f16

Exit codes:
  0    the file is written, whole
  2    it is not: standard error says why";

const PULL_NOTES: &str = "\
Names: tiny, base, small, medium, each also as .en; large (the first), large-v2, large-v3, large-v3-turbo or turbo;
distil-small.en, distil-medium.en, distil-large-v2, distil-large-v3, distil-large-v3.5; or org/name.

The model goes into the cache that other programs share ($HF_HUB_CACHE, or hub/ in $HF_HOME, or ~/.cache/huggingface/hub),
and afterwards --model NAME finds it, or --model NAME@REV that of a --revision. Its path is the one line on standard output.
Only what is needed is fetched: settings, tokenizer and model.safetensors (of a CTranslate2 repository model.bin; of others
their one GGUF or ggml file). A transfer that breaks off is gone on with by the same command, and every file is checked
against the hub's checksum.

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

With --tracks N, N people are captioned at the same time: track 1 is the first channel (or, of 2 N channels, the mix of the
first two), and so on. Their events come as they happen, each with its `speaker_id`; an `id` counts one speaker's captions.
ffmpeg's amerge puts the channels of several inputs into one stream, which ends with the shortest.

With --output FILE each final is in FILE.journal before it is printed, and FILE is written behind the last, in order of time.
Who is killed meanwhile loses no caption that was printed: the same command goes on with the journal. While the disk is full
captions are printed all the same, and written once there is room.

Examples:
  ffmpeg -i rtmp://host/live -vn -f s16le -ar 48000 -ac 1 - | cuewire live --rate 48000 --channels 1
  arecord -q -f S16_LE -r 16000 -c 1 | cuewire live --rate 16000 --channels 1 --language auto
  arecord -q -f S16_LE -r 48000 -c 2 | cuewire live --rate 48000 --tracks 2 --output meeting.jsonl
  ffmpeg -i rtsp://host/alice -i rtsp://host/bob -filter_complex amerge=inputs=2 -f s16le -ar 48000 - |
    cuewire live --rate 48000 --tracks 2 --speaker-id alice --speaker-id bob";

const BENCH_NOTES: &str = "\
A call is a folder of recordings, each a track of its own: NAME.wav or NAME.flac. Streams have different tracks until they
run out; a track that is over begins again. All are pushed in real time, 20 ms at a time, whatever the engine does.

Standard output is one JSON object. Of `bench streams`:
  final_latency_ms        from the push with which a caption's silence is over to its final
  cut_latency_ms          of captions cut at their longest time: from the cut to the final
  end_latency_ms          the same of captions that were open when their stream ended
  ledger_ms               of all finals, by their ledgers: from the end of the silence, the cut or the end until it was said
  first_interim_ms        from the push with the onset of speech to the first interim
  interim_churn           words that were shown and then replaced, with all behind them, for each word of the finals
  stability               words of interims that were called stable, and those that finals changed all the same
  push_us                 time that a push takes, in microseconds
  push_late_ms            how late this harness itself pushed; where that is much, the machine is too busy to measure
  drops                   captions that were given up or failed, and pushes that were refused
  interims                interims that were shown
  interims_declined       interims that were left out for want of time
  overload                how often each step of doing without was reached
  capacity_estimate       how many streams the engine says fit
  cpu_per_audio_s         processor seconds for a second of a stream, this harness included
  peak_rss_bytes          largest resident memory of the process
Of `bench capacity`: `streams`, the largest number in time; `engine_estimate`, what the engine said then; and all `runs`.

Examples:
  cuewire bench streams --streams 24 --seconds 60 --call calls/1 --call calls/2
  cuewire bench capacity --model tiny.en --interim-interval-ms 0 --call calls/1

Exit codes:
  0    it was measured
  2    the command line makes no sense, or the model or a call cannot be read
  130  interrupted (Ctrl-C); what was measured by then is printed";

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
    #[command(after_help = format!("{FILE_NOTES}\n\n{TRANSCRIBE_EXAMPLES}\n\n{EXIT_CODES}"))]
    Transcribe(TranscribeArgs),
    /// Caption raw PCM on standard input while it is spoken.
    #[command(after_help = format!("{FILE_NOTES}\n\n{LIVE_EXAMPLES}\n\n{EXIT_CODES}"))]
    Live(LiveArgs),
    /// Serve calls: captions and transcripts for the official clients of a large hosted service.
    #[cfg(feature = "serve")]
    #[command(after_help = service::SERVE_NOTES)]
    Serve(ServeArgs),
    /// Hold a call with recordings as its participants, at a server; print its captions and its transcript.
    #[cfg(feature = "serve")]
    #[command(after_help = service::CALL_NOTES)]
    Call(CallArgs),
    /// Show the key of a server, or make a token with it.
    #[cfg(feature = "serve")]
    #[command(subcommand)]
    Key(KeyCommand),
    /// Copy a server's data folder, also while it runs.
    #[cfg(feature = "serve")]
    #[command(after_help = service::BACKUP_NOTES)]
    Backup(BackupArgs),
    /// Fetch models, look into them and convert them.
    #[command(subcommand)]
    Model(ModelCommand),
    /// Measure how many people this machine captions at a time.
    #[command(subcommand)]
    Bench(BenchCommand),
}

#[derive(Subcommand)]
pub(crate) enum BenchCommand {
    /// Caption so many streams in real time; print how late and at what cost.
    #[command(after_help = BENCH_NOTES)]
    Streams(BenchStreamsArgs),
    /// Find how many streams come in time: 99 of 100 finals within 500 ms, no caption dropped, 99 of 100 interims made.
    #[command(after_help = BENCH_NOTES)]
    Capacity(BenchCapacityArgs),
    /// Hold a call at a server, in real time, with so many participants and watchers; print how late captions were.
    #[cfg(feature = "serve")]
    #[command(after_help = service::BENCH_CALLS_NOTES)]
    Calls(BenchCallsArgs),
}

#[derive(Subcommand)]
pub(crate) enum ModelCommand {
    /// Fetch a model from the Hugging Face hub: the one command that goes to the network.
    #[command(after_help = PULL_NOTES)]
    Pull(PullArgs),
    /// Print a model's name, sizes and languages.
    #[command(after_help = INFO_EXAMPLES)]
    Info(InfoArgs),
    /// Write a model as one GGUF file that holds everything: weights, tokenizer, settings.
    #[command(after_help = CONVERT_EXAMPLES)]
    Convert(ConvertArgs),
}

impl TranscribeArgs {
    /// Whether captions are divided, and so where their words are decides when cues come and go.
    pub(crate) fn cues_need_word_times(&self) -> bool {
        self.format.has_cues() && self.profile != Profile::None
    }
}

fn formats() -> String {
    format!("What to write: {}", Format::ALL.map(Format::extension).join(", "))
}

fn start_time(text: &str) -> Result<Timestamp, String> {
    within_range(text.parse().map_err(|error: ParseTimestampError| error.to_string())?)
}

/// Refuses a start so near to the ends of what a [`Timestamp`] holds that the times of a recording would not fit.
pub(crate) fn within_range(start_time: Timestamp) -> Result<Timestamp, String> {
    const YEAR_NANOS: i64 = 366 * 86_400 * 1_000_000_000;
    const FIRST: Timestamp = Timestamp::from_nanos(i64::MIN + YEAR_NANOS);
    const LAST: Timestamp = Timestamp::from_nanos(i64::MAX - YEAR_NANOS);
    let error = || format!("the start is {start_time}: allowed are {FIRST} – {LAST}");
    (FIRST..=LAST).contains(&start_time).then_some(start_time).ok_or_else(error)
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

    /// Show the time of each word: json lists them, vtt marks them as they are spoken. Cues are timed by them without it
    /// too, but for the profile none
    #[arg(long)]
    pub(crate) word_times: bool,

    /// Who speaks [default: the file's name without its extension]
    #[arg(long, value_name = "ID")]
    pub(crate) speaker_id: Option<String>,

    /// Each channel is a speaker: <ID>-1, <ID>-2, …
    #[arg(long)]
    pub(crate) split_channels: bool,

    /// When the recording began, RFC 3339
    #[arg(long, value_name = "TIME", default_value_t = Timestamp::EPOCH, value_parser = start_time)]
    pub(crate) start_time: Timestamp,

    #[arg(long, value_name = "FORMAT", default_value_t = Format::Jsonl, help = formats())]
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

    /// When a transcript in a file is on disk, so that it survives a loss of power: each (with each caption), second (about
    /// once a second, and at its end), never (when the system likes)
    #[arg(long, value_name = "WHEN", default_value_t = Sync::Second)]
    pub(crate) sync: Sync,

    /// Write figures about the run to this file, as JSON; also which rules cues could not keep
    #[arg(long, value_name = "FILE")]
    pub(crate) stats: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct LiveArgs {
    /// Sample rate, Hz: 8000 – 192000
    #[arg(long, value_name = "HZ")]
    pub(crate) rate: u32,

    /// Channels of the stream: 1 – 255, a multiple of the tracks. Those of a track are mixed into one [default with
    /// --tracks: one a track]
    #[arg(long, value_name = "C", required_unless_present = "tracks")]
    channels: Option<usize>,

    /// Speakers in the stream, each in as many neighbouring channels as the others: 1 – 255
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = tracks)]
    tracks: usize,

    /// Format of the samples
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) sample_format: SampleFormat,

    #[command(flatten)]
    pub(crate) recognition: RecognitionArgs,

    /// List the words of each final with their times
    #[arg(long)]
    pub(crate) word_times: bool,

    /// Who speaks; with --tracks once for each, in order [default: speaker, or speaker-1, speaker-2, …]
    #[arg(long, value_name = "ID")]
    speaker_id: Vec<String>,

    /// How often the open caption is shown: 0 (never) or 250 – 5000 ms
    #[arg(long, value_name = "MS", default_value_t)]
    pub(crate) interim_interval_ms: InterimIntervalMs,

    /// When the stream began, RFC 3339 [default: now]
    #[arg(long, value_name = "TIME", value_parser = start_time)]
    pub(crate) start_time: Option<Timestamp>,

    /// Write the transcript to this file too, as JSONL, which must not be there: see below
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// With --output: when a caption is on disk, so that it survives a loss of power: each (before it is printed), second
    /// (about once a second), never (when the system likes)
    #[arg(long, value_name = "WHEN", default_value_t, requires = "output")]
    pub(crate) sync: Sync,
}

impl LiveArgs {
    /// Channels of the stream, and who speaks in each of its tracks.
    pub(crate) fn shape(&self) -> Result<(usize, Vec<String>), Failure> {
        let (given, tracks) = (&self.speaker_id, self.tracks);
        let channels = self.channels.unwrap_or(tracks);
        Pcm::interleaved(self.rate, channels, &[] as &[i16])?;
        if !channels.is_multiple_of(tracks) {
            return Err(Failure(format!(
                "channels are {channels}: with {tracks} tracks allowed are multiples of {tracks}, up to {MAX_CHANNELS}"
            )));
        }
        if let Some(twice) = (1..given.len()).find(|&i| given[..i].contains(&given[i])) {
            return Err(Failure(format!("two tracks are {}: name each speaker once", given[twice])));
        }
        match (given.len(), tracks) {
            (0, 1) => Ok((channels, vec!["speaker".into()])),
            (0, _) => Ok((channels, (1..=tracks).map(|i| format!("speaker-{i}")).collect())),
            (count, _) if count == tracks => Ok((channels, given.clone())),
            (count, _) => Err(Failure(format!(
                "speaker ids are {count} ({}): with --tracks {tracks} allowed are {tracks}, or none",
                given.join(", ")
            ))),
        }
    }
}

fn tracks(text: &str) -> Result<usize, String> {
    let tracks = text.parse().ok().filter(|tracks| (1..=MAX_CHANNELS).contains(tracks));
    tracks.ok_or_else(|| format!("tracks are `{text}`: allowed are 1 – {MAX_CHANNELS}"))
}

#[derive(Args)]
pub(crate) struct LoadArgs {
    /// A folder of recordings, each a track; can be given again
    #[arg(long, value_name = "DIR", required = true)]
    pub(crate) call: Vec<PathBuf>,

    /// How long each run takes, in seconds
    #[arg(long, value_name = "S", default_value = "60", value_parser = clap::value_parser!(NonZeroU32))]
    pub(crate) seconds: NonZeroU32,

    /// How often the open caption is shown: 0 (never) or 250 – 5000 ms
    #[arg(long, value_name = "MS", default_value_t)]
    pub(crate) interim_interval_ms: InterimIntervalMs,

    #[command(flatten)]
    pub(crate) recognition: RecognitionArgs,
}

#[derive(Args)]
pub(crate) struct BenchStreamsArgs {
    /// Streams at a time: 1 – 10000
    #[arg(long, value_name = "N", value_parser = streams)]
    pub(crate) streams: NonZeroUsize,

    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

#[derive(Args)]
pub(crate) struct BenchCapacityArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

fn streams(text: &str) -> Result<NonZeroUsize, String> {
    const MOST_STREAMS: usize = 10_000;
    let streams = text.parse().ok().filter(|streams: &NonZeroUsize| streams.get() <= MOST_STREAMS);
    streams.ok_or_else(|| format!("streams are `{text}`: allowed are 1 – {MOST_STREAMS}"))
}

#[derive(Args)]
pub(crate) struct PullArgs {
    /// The model: a short name such as tiny.en, or org/name
    pub(crate) name: ModelName,

    /// Branch, tag or commit: --model NAME@REV finds it afterwards
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
