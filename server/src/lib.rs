//! The service around the engine: calls, who may do what in them, and their two processes, transcription and captions, with the
//! API that the official clients of a large hosted service speak.
//!
//! ```no_run
//! # use std::{sync::Arc, time::Duration};
//! use cuewire::engine::{Engine, EngineConfig, Model};
//! use cuewire_server::{Server, ServerConfig};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let model: Arc<dyn Model> = unimplemented!();
//! // let model: Arc<dyn Model> = Arc::new(WhisperModel::load(path)?);
//! let engine = Engine::start(EngineConfig::default(), vec![model.clone()])?;
//! let server = Server::start(ServerConfig::new("captions", "the key", "the secret"), engine, model)?;
//! println!("http://{}", server.local_addr());
//! server.shutdown(Duration::from_secs(10)); // finalises what is open
//! # Ok(())
//! # }
//! ```
//!
//! # The parts
//!
//! | module | |
//! |---|---|
//! | [`call`] | the domain: a state machine without clock, thread, file or socket, which a media server may embed without the rest |
//! | `store` | its state, and the events that it causes: one commit |
//! | `host` | what is to be brought about, right behind the commit |
//! | `events` | to those who watch |
//! | `hooks` | to webhooks and queues, from the outbox |
//! | `ingest` | participants' audio: by WebSocket, and as RTP |
//! | `transcripts` | from a run's journal to its file |
//! | [`storage`] | where files are kept: the disk, buckets |
//! | [`api`] | HTTP and WebSockets |
//! | [`telemetry`] | what an operator watches |
//! | [`check`] | what would fail later |
//!
//! Each knows what it stands on, and not what stands on it. From the top: `api` takes requests, `ingest` takes audio, and both make
//! changes through the `host`, which has the `store`, the `stages` (a track of the engine a participant; they tell it what was said),
//! `events`, the `storage` and the `call`s. `hooks` and `transcripts` stand on it too: they write through it what became of a
//! delivery or a file, and are told what is new as whoever delivers. At the bottom are `wire`, what clients are spoken to in;
//! `sinks`, where events go that leave the house; `outward`, how others are called.
//!
//! # What is durable
//!
//! What was answered with 2xx is on disk, and so is every event that somebody was told of, interims apart, and every fragment
//! of a transcript whose caption was shown. After a crash the sessions that were open wait for their participants as long as for
//! any who have left; who returns goes on, and the others' transcripts are finished.
//!
//! # The threads
//!
//! `cuewire-store` owns the database and does one change behind the other; `cuewire-captions` hands on what the engine says;
//! `cuewire-http` serves sockets, tells hooks and uploads files.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::HeaderValue;
use cuewire::engine::{Engine, Model};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub mod api;
pub mod app;
pub mod backup;
pub mod call;
pub mod certificate;
pub mod check;
mod clock;
mod connections;
mod events;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod hooks;
mod host;
mod ingest;
pub mod keys;
pub mod limits;
mod outward;
mod rates;
mod retry;
mod secret;
mod sinks;
mod sockets;
mod stages;
pub mod storage;
mod store;
pub mod telemetry;
mod transcripts;
pub mod user;
mod wire;

use api::http::router;
use api::log::RequestLog;
use api::shared::App;
use certificate::{Certificate, Current};
pub use clock::now;
use connections::{Places, Terms, accept};
use hooks::Hooks;
use host::{Host, Stalls};
use ingest::rtp::Ports;
pub use ingest::rtp::RtpConfig;
use limits::Limits;
use rates::Rates;
use sockets::Sockets;
use stages::Stages;
use storage::{Local, StorageConfig, Storages};
use store::Store;
pub use store::{StoreError, Sync};
pub use telemetry::Metrics;
use transcripts::Transcripts;

/// A year.
const MAX_PATIENCE_S: u32 = 365 * 24 * 3600;
/// RTP ports that a user may have: all of them.
const MOST_RTP_PORTS_PER_USER: u32 = 32_768;
/// A hundred years.
const MAX_RETENTION_DAYS: u32 = 36_500;
/// What the last write of a server that ends may take, whatever its patience.
const LAST_WRITE: Duration = Duration::from_secs(2);
/// How often calls are looked at whose time has come.
const TICK: Duration = Duration::from_millis(250);

/// Settings of a server.
#[derive(Clone)]
#[non_exhaustive]
pub struct ServerConfig {
    /// Where database, files and keys are kept; made where there is none.
    pub data_dir: PathBuf,
    /// Where it listens; default `127.0.0.1:8080`. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// What clients name in each request.
    pub api_key: String,
    /// What their tokens are signed with.
    pub api_secret: String,
    /// What it speaks TLS with; default none: a proxy does, or nobody.
    pub certificate: Option<Certificate>,
    /// What the URLs of transcripts begin with; default `http://`, or with a certificate `https://`, and where it listens.
    pub public_url: Option<String>,
    /// Whose pages may call, as `https://example.org`; default any: requests carry tokens, not cookies.
    pub cors_origins: Vec<String>,
    /// How long a session waits for its first participant, in seconds; 1 – a year, default an hour.
    pub first_participant_timeout_s: u32,
    /// How long transcripts are kept on default storage, in days; default 14.
    pub transcript_retention_days: u32,
    /// Storages by name, beside those that requests make.
    pub storages: BTreeMap<String, StorageConfig>,
    /// Which of them is the default storage; `None`: the data folder.
    pub default_storage: Option<String>,
    /// How long behind a run's end its transcript's upload is tried before it has failed, in seconds; default a day. A server that
    /// starts later than that tries for ten minutes, or for so long.
    pub upload_give_up_s: u32,
    /// After how long speech without a caption is an event, in seconds; default 30. Half of it is a metric.
    pub stall_event_s: u32,
    /// When what was committed survives a loss of power; default before anybody hears of it.
    pub sync: Sync,
    /// A file that gets a line of JSON a request.
    pub request_log: Option<PathBuf>,
    /// Whether hooks, and storages that requests set, may lead to addresses of private networks and of this machine.
    pub hooks_to_private_addresses: bool,
    /// After how long an event that a hook does not take is given up, in seconds; default three days.
    pub hook_max_age_s: u32,
    /// Where metrics are served; default nowhere.
    pub metrics: Option<Metrics>,
    /// What may come, how much of it, and how often.
    pub limits: Limits,
    /// Where participants' RTP comes.
    pub rtp: RtpConfig,
}

impl fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither key nor secret.
        let Self { data_dir, listen, public_url, .. } = self;
        f.debug_struct("ServerConfig")
            .field("data_dir", data_dir)
            .field("listen", listen)
            .field("public_url", public_url)
            .finish_non_exhaustive()
    }
}

impl ServerConfig {
    /// With the defaults.
    pub fn new(data_dir: impl Into<PathBuf>, api_key: impl Into<String>, api_secret: impl Into<String>) -> Self {
        Self {
            data_dir: data_dir.into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            api_key: api_key.into(),
            api_secret: api_secret.into(),
            certificate: None,
            public_url: None,
            cors_origins: Vec::new(),
            first_participant_timeout_s: 3600,
            transcript_retention_days: 14,
            storages: BTreeMap::new(),
            default_storage: None,
            upload_give_up_s: 24 * 3600,
            stall_event_s: 30,
            sync: Sync::Each,
            request_log: None,
            hooks_to_private_addresses: false,
            hook_max_age_s: 3 * 24 * 3600,
            metrics: None,
            limits: Limits::default(),
            rtp: RtpConfig::default(),
        }
    }

    /// Whether its values make sense.
    ///
    /// # Errors
    /// [`ServerError::Config`] names the first that does not.
    pub fn check(&self) -> Result<(), ServerError> {
        self.problems().into_iter().next().map_or(Ok(()), |problem| Err(ServerError::Config(problem)))
    }

    /// All values that make no sense, each with what is allowed.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self.origins().err().iter().map(ToString::to_string).collect();
        problems.extend(self.limits.check().err());
        problems.extend(self.certificate.as_ref().and_then(|certificate| certificate.check().err()));
        problems.extend(self.rtp.check().err());
        if self.transcript_retention_days > MAX_RETENTION_DAYS {
            let days = self.transcript_retention_days;
            problems.push(format!("transcript_retention_days is {days}: allowed are 0 – {MAX_RETENTION_DAYS}"));
        }
        for (name, storage) in &self.storages {
            let checked = call::Cid::new(name, "x").map_err(|_| "names are 1 – 64 letters, digits, `_` and `-`".into());
            let checked = checked.and_then(|_| storage::Bucket::open(storage, true));
            problems.extend(checked.err().map(|why| format!("storages.{name}: {why}")));
        }
        if let Some(name) = self.default_storage.as_ref().filter(|name| !self.storages.contains_key(*name)) {
            problems.push(format!("default_storage is `{name}`: there is no storages.{name}"));
        }
        for (name, value) in [
            ("first_participant_timeout_s", self.first_participant_timeout_s),
            ("stall_event_s", self.stall_event_s),
            ("hook_max_age_s", self.hook_max_age_s),
            ("upload_give_up_s", self.upload_give_up_s),
        ] {
            if !(1..=MAX_PATIENCE_S).contains(&value) {
                problems.push(format!("{name} is {value}: allowed are 1 – {MAX_PATIENCE_S}"));
            }
        }
        if self.rtp.per_user > MOST_RTP_PORTS_PER_USER {
            let ports = self.rtp.per_user;
            problems.push(format!(
                "rtp_ports_per_user is {ports}: allowed are 0 (only a server's token opens ports) – {MOST_RTP_PORTS_PER_USER}"
            ));
        }
        let is_url = |url: &str| url.starts_with("http://") || url.starts_with("https://");
        if let Some(url) = self.public_url.as_ref().filter(|url| !is_url(url)) {
            problems.push(format!("public_url is `{url}`: allowed is https://captions.example.org"));
        }
        problems
    }

    fn origins(&self) -> Result<Vec<HeaderValue>, ServerError> {
        let origins = self.cors_origins.iter().map(|origin| {
            let is_origin = origin.split_once("://").is_some_and(|(_, host)| !host.is_empty() && !host.contains('/'));
            HeaderValue::from_str(origin).ok().filter(|_| is_origin).ok_or_else(|| {
                ServerError::Config(format!("cors_origins: `{origin}` is none: allowed is https://example.org"))
            })
        });
        origins.collect()
    }
}

/// A server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// A setting makes no sense.
    #[error("{0}")]
    Config(String),
    /// The database cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It cannot listen there.
    #[error("cannot listen on {listen}: {source}")]
    Listen {
        /// Where.
        listen: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The data folder, or a thread.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl From<io::Error> for ServerError {
    fn from(source: io::Error) -> Self {
        Self::Io { what: "cannot start a thread".into(), source }
    }
}

/// A server that runs. Dropping it ends it at once; [`Server::shutdown`] finalises what is open first.
pub struct Server {
    app: Arc<App>,
    addr: SocketAddr,
    metrics_addr: Option<SocketAddr>,
    runtime: Option<Runtime>,
    /// Two servers over one folder would end each other's sessions.
    _lock: std::fs::File,
}

impl Server {
    /// Starts a server over an engine and the model that the engine was started with.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn start(config: ServerConfig, engine: Engine, model: Arc<dyn Model>) -> Result<Self, ServerError> {
        config.check()?;
        let origins = config.origins()?;
        let ServerConfig { data_dir, listen, api_key, api_secret, .. } = config;
        if api_key.is_empty() || api_secret.is_empty() {
            return Err(ServerError::Config("the API key and the secret are needed: neither may be empty".into()));
        }
        let file_error = |what: &str, path: &std::path::Path| {
            let what = format!("{what} {}", path.display());
            move |source| ServerError::Io { what, source }
        };
        keys::make_folder(&data_dir).map_err(file_error("cannot make the folder", &data_dir))?;
        let lock = keys::lock(&data_dir)
            .map_err(file_error("cannot take the folder: is another server using it?", &data_dir))?;
        let log = config.request_log.map(|path| {
            let file = std::fs::File::options().create(true).append(true).open(&path);
            file.map_err(file_error("cannot write to the request log", &path))
        });
        let log = RequestLog(log.transpose()?.map(std::sync::Mutex::new));

        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("cuewire-http")
            .enable_all()
            .build()?;
        let certificate = config.certificate.map(Current::load).transpose().map_err(ServerError::Config)?;
        let tls = certificate.as_ref().map(Current::acceptor).transpose();
        let tls = tls.map_err(|error| ServerError::Config(format!("TLS: {error}")))?;
        let bind = |listen| {
            let bound = runtime.block_on(async { connections::listen(listen) });
            let bound = bound.and_then(|listener| Ok((listener.local_addr()?, listener)));
            bound.map_err(|source| ServerError::Listen { listen, source })
        };
        let (addr, listener) = bind(listen)?;
        let of_metrics =
            config.metrics.map(|metrics| Ok::<_, ServerError>((bind(metrics.listen)?, metrics))).transpose()?;
        telemetry::describe(api::route::TABLE.iter().map(|row| row.name));

        let store = Store::open(&data_dir.join("cuewire.db"), config.sync)?;
        // Before anybody can ask: what was given up before this start is no increase.
        telemetry::given_up(store.backlog()?.dead_letters);
        let url_key = keys::url_key(&data_dir).map_err(file_error("cannot keep a key in", &data_dir))?;
        let public_url =
            config.public_url.unwrap_or_else(|| format!("http{}://{addr}", if tls.is_some() { "s" } else { "" }));
        if public_url.contains("://0.0.0.0") || public_url.contains("://[::]") {
            tracing::warn!("URLs of transcripts begin with {public_url}, which is nowhere: set public_url");
        }
        let folder = data_dir.join("transcripts");
        let local = Local::new(folder.clone(), url_key, &public_url);
        let local = local.map_err(file_error("cannot make the folder", &folder))?;
        let hooks_to_private_addresses = config.hooks_to_private_addresses;
        let storages = Storages::new(local, config.storages, config.default_storage, hooks_to_private_addresses);
        let transcripts = Arc::new(Transcripts::new(config.transcript_retention_days, config.upload_give_up_s));
        let stages = Stages::new(engine, model, &config.limits);
        let document = api::document::document(&config.limits).into();
        let hooks = Hooks::new(
            api_key.clone(),
            api_secret.clone(),
            hooks_to_private_addresses,
            config.hook_max_age_s,
            runtime.handle().clone(),
        );
        let hooks = hooks.map_err(|error| ServerError::Config(format!("TLS for hooks: {}", outward::chain(&error))))?;
        let hooks = Arc::new(hooks);
        let stalls = Stalls::new(Duration::from_secs(config.stall_event_s.into()));
        let limits = config.limits;
        let mut rtp = config.rtp;
        let connections = limits.connections_within(limits::open_files(), &mut rtp.ports);
        let places = Places::new(connections, limits.connections_per_address);
        let (rates, sockets_of_users) = (Rates::new(&limits), Sockets::new(limits.sockets_per_user));
        let first_frames = Places::new(limits.first_frames(), 0);
        let first_s = config.first_participant_timeout_s;
        let host = Host::start(store, stages, storages, hooks.clone(), stalls, limits, first_s)?;
        host.stages.hand_on()?;
        transcripts.start(&host, runtime.handle());

        let (shutdown, sockets) = (CancellationToken::new(), TaskTracker::new());
        let app = Arc::new(App {
            host,
            hooks,
            transcripts,
            api_key,
            api_secret,
            hooks_to_private_addresses,
            places,
            first_frames,
            rates,
            sockets_of_users,
            bodies: api::bodies::Bodies::default(),
            document,
            log,
            rtp: Ports::new(rtp),
            probed: tokio::sync::Mutex::default(),
            shutdown,
            sockets,
        });
        let (limits, of) = (app.host.limits(), app.clone());
        let terms = Terms {
            places: app.places.clone(),
            is_proxy: Box::new(move |address| of.rates.is_proxy(address)),
            head: Duration::from_secs(limits.head_s.into()),
            write: Duration::from_secs(limits.write_s.into()),
            shutdown: app.shutdown.clone(),
        };
        runtime.spawn(accept(listener, terms, router(app.clone(), &origins), tls));
        let in_use = certificate.as_ref().map(Current::in_use);
        if let Some(certificate) = certificate {
            runtime.spawn(certificate.watch(app.shutdown.clone()));
        }
        runtime.spawn(tick(app.clone()));
        if config.sync == Sync::Second {
            runtime.spawn(sync_each_second(data_dir.join("cuewire.db-wal"), app.shutdown.clone()));
        }
        runtime.spawn(app.hooks.clone().keep_written(Arc::downgrade(&app.host), app.shutdown.clone()));
        runtime.spawn(host::keep_current(Arc::downgrade(&app.host), data_dir, in_use, app.shutdown.clone()));
        let metrics_addr = of_metrics.map(|((addr, listener), metrics)| {
            runtime.spawn(telemetry::serve(listener, metrics, app.shutdown.clone()));
            addr
        });
        Ok(Self { app, addr, metrics_addr, runtime: Some(runtime), _lock: lock })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where metrics are.
    #[must_use]
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_addr
    }

    /// Takes no more, finalises open captions, tells those who watch, closes sockets with 1012, and ends; all within about
    /// `patience`. Sessions are suspended: who returns to the next server goes on.
    pub fn shutdown(mut self, patience: Duration) {
        self.stop(patience);
    }

    fn stop(&mut self, patience: Duration) {
        let Some(runtime) = self.runtime.take() else { return };
        let deadline = Instant::now() + patience;
        let left = || deadline.saturating_duration_since(Instant::now());
        let App { host, hooks, transcripts, shutdown, sockets, .. } = &*self.app;
        shutdown.cancel();
        host.stages.shutdown(left().mul_f64(0.7));
        // Behind the last captions, also those that could not be written at once.
        let _ = runtime.block_on(async { tokio::time::timeout(left(), host.settle()).await });
        host.unwritten.report_lost();
        host.hub.close_all();
        sockets.close();
        let _ = runtime.block_on(async { tokio::time::timeout(left(), sockets.wait()).await });
        // A storage that hangs takes no time from what was delivered, which has to be written in any case.
        let half = left() / 2;
        let _ = runtime.block_on(async { tokio::time::timeout(half, transcripts.shutdown()).await });
        let hooks = hooks.shutdown(host, left());
        let _ = runtime.block_on(async { tokio::time::timeout(left() + LAST_WRITE, hooks).await });
        host.close();
        runtime.shutdown_timeout(left());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

/// Has the journal written to disk, whoever wrote to it: what SQLite has committed by then is in this file.
async fn sync_each_second(journal: PathBuf, shutdown: CancellationToken) {
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = seconds.tick() => {}
            () = shutdown.cancelled() => return,
        }
        let journal = journal.clone();
        let synced = tokio::task::spawn_blocking(move || std::fs::File::open(journal)?.sync_data()).await;
        if let Ok(Err(error)) = synced {
            tracing::error!("the journal cannot be synced: {error}");
        }
    }
}

async fn tick(app: Arc<App>) {
    let mut ticks = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            _ = ticks.tick() => app.host.tick(),
            () = app.shutdown.cancelled() => return,
        }
    }
}
