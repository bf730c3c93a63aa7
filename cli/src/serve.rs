//! `cuewire serve`: the service; `cuewire key`: what its clients need to know; `cuewire backup`.
//!
//! In: flags, over the environment, over a file. Out: a server that runs until it is told to end.

use std::collections::BTreeMap;
use std::env;
use std::io::{self, IsTerminal as _};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use cuewire::engine::{Engine, EngineConfig, Model};
use cuewire_server::backup::Backup;
use cuewire_server::certificate::Certificate;
use cuewire_server::check::{Finding, Severity};
use cuewire_server::keys::ApiKey;
use cuewire_server::limits::{Limits, raise_open_files};
use cuewire_server::storage::StorageConfig;
use cuewire_server::{Metrics, Server, ServerConfig, Sync, now};
use serde::Deserialize;

use crate::args::{BackupArgs, KeyArgs, KeyCommand, ServeArgs, TokenArgs};
use crate::logs::{self, LogFormat, LogLevel};
use crate::output::print;
use crate::run::Interrupt;
use crate::{Failure, USAGE, complain, model};

/// What a server takes to finalise when it is told to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// The file of `--config`.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct File {
    data_dir: Option<PathBuf>,
    listen: Option<SocketAddr>,
    model: Option<PathBuf>,
    api_key: Option<String>,
    api_secret: Option<String>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    public_url: Option<String>,
    cors_origins: Option<Vec<String>>,
    first_participant_timeout_s: Option<u32>,
    transcript_retention_days: Option<u32>,
    request_log: Option<PathBuf>,
    hooks_to_private_addresses: Option<bool>,
    hook_max_age_s: Option<u32>,
    rtp_address: Option<IpAddr>,
    rtp_ports: Option<[u16; 2]>,
    rtp_ports_per_user: Option<u32>,
    rtp_unused_s: Option<u32>,
    upload_give_up_s: Option<u32>,
    stall_event_s: Option<u32>,
    sync: Sync,
    metrics_listen: Option<SocketAddr>,
    log_format: LogFormat,
    log_level: LogLevel,
    default_storage: Option<String>,
    storages: BTreeMap<String, StorageConfig>,
    limits: Limits,
}

impl File {
    /// The key that is set: in the environment, or here.
    fn key(&self) -> Result<Option<ApiKey>, Failure> {
        match (key_of_environment()?, &self.api_key, &self.api_secret) {
            (Some(key), ..) => Ok(Some(key)),
            (None, Some(api_key), Some(api_secret)) if api_key.is_empty() || api_secret.is_empty() => {
                Err(Failure("api_key and api_secret of the file: neither may be empty".into()))
            }
            (None, Some(api_key), Some(api_secret)) => {
                Ok(Some(ApiKey { api_key: api_key.clone(), api_secret: api_secret.clone() }))
            }
            (None, None, None) => Ok(None),
            (None, ..) => Err(Failure("the file sets one of api_key and api_secret: set both, or neither".into())),
        }
    }
}

/// Where data are kept when nothing else is said.
fn default_data_dir() -> PathBuf {
    let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".local").join("share"));
    let data = env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute()).or_else(home);
    data.unwrap_or_default().join("cuewire")
}

/// Of the environment, where both are set.
fn key_of_environment() -> Result<Option<ApiKey>, Failure> {
    let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
    match (variable("CUEWIRE_API_KEY"), variable("CUEWIRE_API_SECRET")) {
        (Some(api_key), Some(api_secret)) => Ok(Some(ApiKey { api_key, api_secret })),
        (None, None) => Ok(None),
        _ => Err(Failure("set both CUEWIRE_API_KEY and CUEWIRE_API_SECRET, or neither".into())),
    }
}

fn read_file(path: Option<&Path>) -> Result<File, Failure> {
    let Some(path) = path else { return Ok(File::default()) };
    let named = |error: &dyn std::fmt::Display| Failure(format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| named(&error))?;
    warn_of_readers(path, &text);
    // Its own text would show the line, and with it the secrets there.
    toml::from_str(&text).map_err(|error: toml::de::Error| {
        let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        named(&format!("line {line}: {}", error.message()))
    })
}

/// Secrets that others may read are worth a word.
fn warn_of_readers(path: &Path, text: &str) {
    #[cfg(unix)]
    if let Ok(found) = std::fs::metadata(path)
        && std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o077 != 0
        && ["secret", "_key", "credentials"].iter().any(|word| text.contains(word))
    {
        complain(&format!("{}: it seems to hold secrets, and others may read it: chmod 600", path.display()));
    }
    let _ = (path, text);
}

/// Buffers of this size and more, as the audio of a caption, are given back to the system when they are free. glibc would
/// take them for small ones, once the first was free, and keep what lies between others: a server of many days would grow.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const GIVEN_BACK_BYTES: i32 = 128 << 10;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the allocator has no other interface")]
fn give_memory_back() {
    // SAFETY: no thread runs beside this one yet, and the value is one that glibc allows; where it is refused, nothing changes.
    let _ = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, GIVEN_BACK_BYTES) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_memory_back() {}

pub(crate) fn run(args: &ServeArgs) -> Result<ExitCode, Failure> {
    give_memory_back();
    let file = read_file(args.config.as_deref())?;
    let key = file.key()?;
    let data_dir = args.data_dir.clone().or(file.data_dir).unwrap_or_else(default_data_dir);
    let mut config = ServerConfig::new(&data_dir, "", "");
    config.listen = args.listen.or(file.listen).unwrap_or(config.listen);
    config.certificate = match (file.tls_cert, file.tls_key) {
        (Some(cert), Some(key)) => Some(Certificate { cert, key }),
        (None, None) => None,
        _ => return Err(Failure("the file sets one of tls_cert and tls_key: set both, or neither".into())),
    };
    config.limits = file.limits;
    config.public_url = file.public_url;
    config.cors_origins = file.cors_origins.unwrap_or_default();
    config.first_participant_timeout_s = file.first_participant_timeout_s.unwrap_or(config.first_participant_timeout_s);
    config.transcript_retention_days = file.transcript_retention_days.unwrap_or(config.transcript_retention_days);
    config.request_log = args.request_log.clone().or(file.request_log);
    config.hooks_to_private_addresses = file.hooks_to_private_addresses.unwrap_or_default();
    config.hook_max_age_s = file.hook_max_age_s.unwrap_or(config.hook_max_age_s);
    config.rtp.address = file.rtp_address.unwrap_or(config.rtp.address);
    config.rtp.ports = file.rtp_ports.unwrap_or(config.rtp.ports);
    config.rtp.per_user = file.rtp_ports_per_user.unwrap_or(config.rtp.per_user);
    config.rtp.unused_s = file.rtp_unused_s.unwrap_or(config.rtp.unused_s);
    config.stall_event_s = file.stall_event_s.unwrap_or(config.stall_event_s);
    config.sync = file.sync;
    config.upload_give_up_s = file.upload_give_up_s.unwrap_or(config.upload_give_up_s);
    (config.storages, config.default_storage) = (file.storages, file.default_storage);
    let metrics_listen = args.metrics_listen.or(file.metrics_listen);
    let path = args.model.clone().or(file.model);
    if args.check_config {
        config.metrics = metrics_listen.map(|listen| Metrics::new(listen, String::new));
        config.api_secret = key.map(|key| key.api_secret).unwrap_or_default();
        return check(args, &config, path.as_deref());
    }
    config.check()?;
    logs::begin(args.log_format.unwrap_or(file.log_format), args.log_level.unwrap_or(file.log_level));
    config.metrics = metrics_listen.map(Metrics::install).transpose()?;
    raise_open_files();
    let interrupt = Interrupt::listen()?;
    let model: Arc<dyn Model> = model::load(path.as_deref())?;
    let kept = |error: io::Error| Failure(format!("the key in {}: {error}", data_dir.display()));
    let (key, is_new) = match key {
        Some(key) => (key, false),
        None => match ApiKey::load(&data_dir).map_err(kept)? {
            Some(key) => (key, false),
            None => (ApiKey::make(&data_dir).map_err(kept)?, true),
        },
    };
    if is_new && io::stderr().is_terminal() {
        complain(&format!("made a key: api_key {}, api_secret {}", key.api_key, key.api_secret));
    }
    (config.api_key, config.api_secret) = (key.api_key, key.api_secret);
    let engine = Engine::start(EngineConfig::default(), vec![model.clone()])?;
    let scheme = if config.certificate.is_some() { "https" } else { "http" };
    let server = Server::start(config, engine, model)?;
    complain(&format!("listening on {scheme}://{}; data in {}", server.local_addr(), data_dir.display()));
    if let Some(address) = server.metrics_addr() {
        complain(&format!("metrics on http://{address}/metrics"));
    }
    notify(true);
    // It is only ever sent to, and its sender lives as long as the process.
    let _ = interrupt.signal().recv();
    notify(false);
    server.shutdown(PATIENCE);
    Ok(ExitCode::SUCCESS)
}

/// Tells systemd, where it has started this, that requests are taken, or are no more.
fn notify(is_ready: bool) {
    #[cfg(target_os = "linux")]
    {
        use sd_notify::NotifyState::{Ready, Stopping};
        // Who has asked for it and cannot be told will say so.
        let _ = sd_notify::notify(&[if is_ready { Ready } else { Stopping }]);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = is_ready;
}

/// Looks for what would fail later, and says all of it, a line each.
fn check(args: &ServeArgs, config: &ServerConfig, model: Option<&Path>) -> Result<ExitCode, Failure> {
    let mut findings = cuewire_server::check::check(config, !args.offline)?;
    let what = model.map_or_else(|| "model".into(), |path| format!("model {}", path.display()));
    findings.push(match model::load(model) {
        Ok(model) => Finding::new(Severity::Ok, what, format!("{} is loaded", model.info().name)),
        Err(Failure(why)) => Finding::new(Severity::Error, what, why),
    });
    findings.extend(args.config.as_deref().and_then(|path| exposed(path, config)));
    findings.iter().for_each(|finding| complain(&finding.to_string()));
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    if errors > 0 {
        complain(&format!("{errors} of these would fail"));
        return Ok(ExitCode::from(USAGE));
    }
    complain("the configuration is good");
    Ok(ExitCode::SUCCESS)
}

/// Whether others read a file with secrets in it.
fn exposed(path: &Path, config: &ServerConfig) -> Option<Finding> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let mode = path.metadata().ok()?.mode() & 0o777;
        let has_secrets = !config.api_secret.is_empty() || !config.storages.is_empty();
        let found = format!("mode {mode:o}, with secrets in it: 600 keeps it to its owner");
        (has_secrets && mode & 0o077 != 0).then(|| Finding::new(Severity::Warning, path.display().to_string(), found))
    }
    #[cfg(not(unix))]
    {
        let _ = (path, config);
        None
    }
}

pub(crate) fn backup(args: &BackupArgs) -> Result<ExitCode, Failure> {
    let data_dir = args.data_dir.clone().unwrap_or_else(default_data_dir);
    let Backup { files, bytes } = cuewire_server::backup::backup(&data_dir, &args.to)?;
    let megabytes = bytes as f64 / 1e6;
    complain(&format!("copied the database and {files} transcripts, {megabytes:.1} MB, to {}", args.to.display()));
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn key(command: &KeyCommand) -> Result<ExitCode, Failure> {
    let (KeyCommand::Show(args) | KeyCommand::Token(TokenArgs { of: args, .. })) = command;
    let key = key_of(args)?;
    let text = match command {
        KeyCommand::Show(_) => format!("api_key     {}\napi_secret  {}\n", key.api_key, key.api_secret),
        KeyCommand::Token(TokenArgs { user, hours, .. }) => {
            let until = now().plus_nanos(i64::from(hours.get()) * 3600 * 1_000_000_000);
            format!("{}\n", cuewire_server::api::token::sign(user.as_deref(), until, &key.api_secret)?)
        }
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// A server's key, read as the server reads it.
pub(crate) fn key_of(args: &KeyArgs) -> Result<ApiKey, Failure> {
    let file = read_file(args.config.as_deref())?;
    if let Some(key) = file.key()? {
        return Ok(key);
    }
    let data_dir = args.data_dir.clone().or(file.data_dir).unwrap_or_else(default_data_dir);
    let named = |why: String| Failure(format!("the key in {}: {why}", data_dir.display()));
    let kept = ApiKey::load(&data_dir).map_err(|error| named(error.to_string()))?;
    kept.ok_or_else(|| {
        let why = "`cuewire serve` makes one at its first start; or name the server's --config or --data-dir, or set CUEWIRE_API_KEY and CUEWIRE_API_SECRET";
        Failure(format!("there is no key in {}: {why}", data_dir.display()))
    })
}
