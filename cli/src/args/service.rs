//! The options of the service: of `cuewire serve`, and of its clients.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use cuewire::config::LanguageSetting;

use crate::logs::{LogFormat, LogLevel};

pub(super) const SERVE_NOTES: &str = "\
Nothing needs to be set. The first start makes an API key and a secret, which `cuewire key show` prints; CUEWIRE_API_KEY and
CUEWIRE_API_SECRET set others. Official clients of the hosted service work with their base URL set to this server's:
`http://HOST:PORT` for the server SDKs, `http://HOST:PORT/video` for the browser's.

Keys of the --config file, each with its default; an environment variable wins over the file, a flag over both:
  data_dir = \"…\"                      # $XDG_DATA_HOME/cuewire, or ~/.local/share/cuewire
  listen = \"127.0.0.1:8080\"
  model = \"…\"                         # the built-in one
  api_key = \"…\"                       # both, or neither
  api_secret = \"…\"
  tls_cert = \"…\"                      # PEM files, both or neither; taken anew when they change; none: HTTP
  tls_key = \"…\"
  public_url = \"http://127.0.0.1:8080\"  # what the URLs of transcripts begin with
  cors_origins = []                     # [\"https://example.org\"]; empty: any
  first_participant_timeout_s = 3600    # how long a session waits for somebody
  transcript_retention_days = 14
  request_log = \"…\"                   # a line of JSON a request; none
  default_storage = \"archive\"           # one of [storages]; none: the data folder
  upload_give_up_s = 86400              # an upload that fails for so long is call.transcription_failed
  sync = \"each\"                       # what a loss of power leaves: each, second (all but the last), never (no promise)
  stall_event_s = 30                    # speech without a caption for so long is call.captions_stalled
  hooks_to_private_addresses = false    # whether hooks, and storages of requests, may lead into this network
  hook_max_age_s = 259200               # an event that a hook does not take for so long is given up
  metrics_listen = \"127.0.0.1:9464\"     # where Prometheus finds /metrics; none
  log_format = \"text\"                   # or json, a line an event
  log_level = \"warn\"                    # error, warn, info (each request), debug; of other crates warnings at most
  rtp_address = \"127.0.0.1\"             # where participants' RTP comes, on ports that requests ask for:
  rtp_ports = [20000, 20999]            # of these, RTP on even ones, RTCP there or on the one behind
  rtp_ports_per_user = 2                # that a user may have open with tokens of their own; 0: none
  rtp_unused_s = 300                    # a port that nothing comes on for so long is given back

Storages beside the data folder, here or by requests, under the clients' names; keep the file to yourself (mode 0600):
  [storages.archive]
  storage_type = \"s3\"                  # s3, gcs, abs
  bucket = \"captions\"
  path = \"2026\"
  aws_s3 = { s3_region = \"eu-west-1\", s3_api_key = \"…\", s3_secret = \"…\" }  # s3_custom_endpoint_url
  # gcs_credentials = '{ … }'           # a service account's key
  # azure_blob = { abs_account_name, abs_tenant_id, abs_client_id, abs_client_secret }  # or abs_account_key

What may come, how much of it and how often, with the defaults:
  [limits]
  body_bytes = 1048576                  # longest body
  head_s = 10                           # for a TLS handshake and a head, idle time included
  body_s = 20                           # for a body
  write_s = 30                          # a client that reads nothing for so long is closed
  connections = 16384                   # open at a time; those that say nothing make room for others
  connections_per_address = 0           # of IPv6 of a network (/64); 0: as many as there may be
  frame_bytes = 524288                  # longest frame of audio
  messages_per_s = 50                   # of one WebSocket, audio apart
  call_bytes = 524288                   # a call as it is kept: settings, custom fields, members, who is there
  user_bytes = 65536                    # a user as they are kept
  calls = 1000000                       # kept
  participants_per_call = 1000
  max_tracks = 2000                     # in all; the engine's own capacity is less
  refuse_overload = true                # whether that refuses who is new; else all get less
  members_per_call = 1000
  hooks = 20
  page = 100                            # calls, members, users in one answer
  user_requests_per_min = 3000          # of each user
  server_requests_per_min = 60000       # with a server's token
  address_requests_per_min = 600        # without a token, or with a bad one, of each address
  connects_per_min = 300                # WebSockets that a user opens
  sockets_per_user = 50                 # WebSockets that a user has open
  trusted_proxies = []                  # addresses whose X-Forwarded-For tells a client's

GET /healthz says that it runs, GET /readyz that it takes requests. Ctrl-C and SIGTERM finalise what is open, within 10 s;
sessions go on with the next server. docs/service.md is the manual.

--check-config looks at the settings, the data folder, the database, the addresses, the request log, the model, and, unless
--offline, at each storage (by a test file, which stays there) and where hooks lead; also beside a server that runs. It says all
that it finds, a line each on standard error: `ok`, `warning` or `error`, and what.

Exit codes:
  0    it was told to end; with --check-config: nothing would fail
  2    the configuration makes no sense, the model cannot be loaded, or it cannot listen; with --check-config: something would fail";

pub(super) const CALL_NOTES: &str = "\
Each recording is a participant, named like its file. Captions go to standard error as they come, on a terminal the interims
too; the transcript goes to standard output, as JSONL.

Examples:
  cuewire call testdata/speech/*.flac
  cuewire call --fast alice.webm bob.webm > transcript.jsonl
  cuewire call --url http://media-1:8080 --language fr film.mp4

Exit codes:
  0    everything was captioned
  1    a recording could not be read to its end, or recognition broke; what was captioned is printed
  2    the command line makes no sense, a recording cannot be opened, or there is no server, or no longer
  130  interrupted (Ctrl-C); what was said by then is finalised and printed";

pub(super) const BENCH_CALLS_NOTES: &str = "\
Server and load should run on one machine: they share its clock. Standard output is one JSON object:
  finals, interims        what was said
  ledger_ms               by the captions' ledgers: from the end of the silence until the engine said it
  delivery_ms             from there until it was read from a watcher's socket, each watcher
  final_ms                both, of the first watcher
  missing                 finals that a watcher should have had and had not

Examples:
  cuewire bench calls --participants 8 --watchers 200 --seconds 60 --call calls/1
  cuewire bench calls --participants 8 --rtp --seconds 60 --call calls/1
  cuewire bench calls --participants 0 --watchers 1 --idle-calls 2000 --seconds 60

Exit codes:
  0    it was measured
  2    the command line makes no sense, there is no server, or a recording cannot be read
  130  interrupted (Ctrl-C); what was measured by then is printed";

pub(super) const BACKUP_NOTES: &str = "\
The copy has all that was committed when it was begun: database, finished transcripts, keys. It is a data folder: to restore it,
end the server and start one with `--data-dir` and the copy. Sessions that were open end there, with their transcripts. The copy
holds the secrets of storages and hooks, and is its owner's alone. What is in buckets is not copied, nor is the --config file.

Examples:
  cuewire backup /backups/2026-11-24
  cuewire backup --data-dir /var/lib/cuewire /backups/2026-11-24

Exit codes:
  0    it is whole, and on disk
  2    there is nothing to copy, or the copy cannot be written";

#[derive(Args)]
pub(crate) struct BackupArgs {
    /// Where the copy goes: a folder that is not there, or empty
    #[arg(value_name = "DIR")]
    pub(crate) to: PathBuf,

    /// The server's data folder [default: as of `cuewire serve`]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct ServeArgs {
    /// Where database, transcripts and keys are kept [default: $XDG_DATA_HOME/cuewire, or ~/.local/share/cuewire]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,

    /// Where to listen [default: 127.0.0.1:8080]; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Option<std::net::SocketAddr>,

    /// Model: as of `cuewire transcribe` [default: the built-in Whisper base]
    #[arg(long, value_name = "PATH|NAME")]
    pub(crate) model: Option<PathBuf>,

    /// Settings, as TOML
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Append a line of JSON a request to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) request_log: Option<PathBuf>,

    /// Where to serve /metrics, without a token [default: nowhere]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) metrics_listen: Option<std::net::SocketAddr>,

    /// How the log on standard error is written [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,

    /// What is logged [default: warn]
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<LogLevel>,

    /// Look for what would fail later, say all of it, and end
    #[arg(long)]
    pub(crate) check_config: bool,

    /// With --check-config: ask no other machine
    #[arg(long, requires = "check_config")]
    pub(crate) offline: bool,
}

#[derive(Args)]
pub(crate) struct CallArgs {
    /// Recordings, each a participant
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,

    #[command(flatten)]
    pub(crate) server: ServerArgs,

    /// The call, as TYPE:ID [default: a new one of the type default]
    #[arg(long, value_name = "CID")]
    pub(crate) call: Option<String>,

    /// Spoken language: a code such as en, fr, pt-BR, or auto
    #[arg(long, value_name = "CODE", default_value_t)]
    pub(crate) language: LanguageSetting,

    /// As fast as the server takes it, and not in real time
    #[arg(long)]
    pub(crate) fast: bool,
}

/// Which server.
#[derive(Args)]
pub(crate) struct ServerArgs {
    /// The server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,

    #[command(flatten)]
    pub(crate) key: KeyArgs,
}

#[derive(Subcommand)]
pub(crate) enum KeyCommand {
    /// Print the API key and the secret.
    Show(KeyArgs),
    /// Print a token: for the header Authorization of a request by hand.
    Token(TokenArgs),
}

#[derive(Args)]
pub(crate) struct TokenArgs {
    #[command(flatten)]
    pub(crate) of: KeyArgs,

    /// Whose [default: a server's, which may everything]
    #[arg(long, value_name = "ID")]
    pub(crate) user: Option<String>,

    /// How long it does, in hours
    #[arg(long, value_name = "H", default_value = "1")]
    pub(crate) hours: NonZeroU32,
}

/// Where a server's key is, unless CUEWIRE_API_KEY and CUEWIRE_API_SECRET are set: in its file, or else its data folder.
#[derive(Args)]
pub(crate) struct KeyArgs {
    /// The server's settings, for its key and where it keeps its data
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Where the server keeps its data [default: as of `cuewire serve`]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct BenchCallsArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,

    /// Participants who speak all the time
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub(crate) participants: usize,

    /// Connections that watch the call, interims included
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) watchers: usize,

    /// Further calls, each with a connection that watches it, in which nothing happens
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) idle_calls: usize,

    /// A folder of recordings, which the participants stream in turn; can be given again
    #[arg(long, value_name = "DIR")]
    pub(crate) call: Vec<PathBuf>,

    /// How long, in seconds
    #[arg(long, value_name = "S", default_value = "60", value_parser = clap::value_parser!(NonZeroU32))]
    pub(crate) seconds: NonZeroU32,

    /// Spoken language: a code such as en, fr, pt-BR, or auto
    #[arg(long, value_name = "CODE", default_value_t)]
    pub(crate) language: LanguageSetting,

    /// With a transcription beside the captions
    #[arg(long)]
    pub(crate) transcription: bool,

    /// Participants send L16 by RTP, as media servers do, and not floats by WebSocket
    #[arg(long)]
    pub(crate) rtp: bool,
}
