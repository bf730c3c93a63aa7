//! What would fail later: looked for before a server starts, or beside one that runs.
//!
//! In: a configuration. Out: findings, all of them.
//!
//! Nothing is made or changed but a file in the data folder, which is gone again, and a test file in each storage, as the API's own
//! check writes it; that of the default storage is gone again too.

use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;

use crate::app::AppSettings;
use crate::certificate::Validity;
use crate::clock::{new_id, now};
use crate::storage::{Bucket, StorageConfig};
use crate::store::{Store, StoreError};
use crate::{ServerConfig, keys, outward, telemetry};

/// Less is free than a day of captions may need; less, and nothing can be written soon.
const LITTLE_BYTES: u64 = 1024 * 1024 * 1024;
const TOO_LITTLE_BYTES: u64 = 64 * 1024 * 1024;
/// What is asked for over the network answers within this.
const PATIENCE: Duration = Duration::from_secs(10);
/// A certificate has been renewed by then.
const LITTLE_TIME_NANOS: i64 = 14 * 24 * 3600 * 1_000_000_000;
/// 2025: no clock of a machine that this runs on is earlier.
const EARLIEST_S: i64 = 1_735_689_600;

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Good.
    Ok,
    /// It works, and may be meant otherwise.
    Warning,
    /// The server does not start, or does not do what it should.
    Error,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How it is.
    pub severity: Severity,
    /// Which setting, or what.
    pub what: String,
    /// What was found.
    pub found: String,
}

impl Finding {
    /// Of something, so and so.
    pub fn new(severity: Severity, what: impl Into<String>, found: impl Into<String>) -> Self {
        Self { severity, what: what.into(), found: found.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { severity, what, found } = self;
        let severity = match severity {
            Severity::Ok => "ok",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{severity:<7}  {what}: {found}")
    }
}

/// What checks share.
struct Scene<'a> {
    config: &'a ServerConfig,
    /// Whether a server runs over the data folder.
    is_running: bool,
    /// What requests have set.
    storages: Vec<(String, StorageConfig)>,
    app: Option<AppSettings>,
    findings: Vec<Finding>,
}

/// What needs no network.
const LOCAL: [fn(&mut Scene<'_>); 9] =
    [settings, data_folder, database, addresses, rtp, public_url, certificate, request_log, clock];

/// Looks at everything that a server with this configuration needs; at what it needs from other machines only with `network`.
///
/// # Errors
/// Where the system gives no thread or socket to look with.
pub fn check(config: &ServerConfig, network: bool) -> io::Result<Vec<Finding>> {
    let mut scene = Scene { config, is_running: false, storages: Vec::new(), app: None, findings: Vec::new() };
    LOCAL.iter().for_each(|check| check(&mut scene));
    if network {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            storages(&mut scene).await;
            names_of_hooks(&mut scene).await;
        });
        // A look-up that does not answer is left behind.
        runtime.shutdown_background();
    }
    Ok(scene.findings)
}

impl Scene<'_> {
    fn find(&mut self, severity: Severity, what: impl Into<String>, found: impl Into<String>) {
        self.findings.push(Finding::new(severity, what, found));
    }

    fn ok(&mut self, what: impl Into<String>, found: impl Into<String>) {
        self.find(Severity::Ok, what, found);
    }

    fn warn(&mut self, what: impl Into<String>, found: impl Into<String>) {
        self.find(Severity::Warning, what, found);
    }

    fn error(&mut self, what: impl Into<String>, found: impl Into<String>) {
        self.find(Severity::Error, what, found);
    }
}

fn settings(scene: &mut Scene<'_>) {
    let problems = scene.config.problems();
    if problems.is_empty() {
        scene.ok("settings", "each makes sense");
    }
    problems.into_iter().for_each(|problem| scene.error("settings", problem));
}

/// The folder or the nearest one above it that is there.
fn nearest(path: &Path) -> PathBuf {
    let there = path.ancestors().find(|path| path.is_dir() && !path.as_os_str().is_empty());
    there.map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

fn may_write(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    rustix::fs::access(folder, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

/// A file is written there, and is gone again.
fn write_in(folder: &Path) -> io::Result<()> {
    let path = folder.join(format!("check-{}.part", new_id()));
    let mut file = keys::owned_file().write(true).create_new(true).open(&path)?;
    let written = file.write_all(&[0; 4096]).and_then(|()| file.sync_all());
    fs::remove_file(&path)?;
    written
}

fn data_folder(scene: &mut Scene<'_>) {
    let folder = scene.config.data_dir.clone();
    let what = format!("data_dir {}", folder.display());
    let free = telemetry::free_bytes(&nearest(&folder));
    let megabytes = |bytes: u64| format!("{} MB are free", bytes / 1_000_000);
    match free {
        Some(free) if free < TOO_LITTLE_BYTES => scene.error(&what, format!("{}: it will be full", megabytes(free))),
        Some(free) if free < LITTLE_BYTES => scene.warn(&what, megabytes(free)),
        _ => {}
    }
    let metadata = match fs::metadata(&folder) {
        Ok(metadata) if metadata.is_dir() => metadata,
        Ok(_) => return scene.error(what, "it is no folder"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let above = nearest(&folder);
            return match may_write(&above) {
                Ok(()) => scene.ok(what, "is made at the first start"),
                Err(error) => scene.error(what, format!("cannot be made in {}: {error}", above.display())),
            };
        }
        Err(error) => return scene.error(what, error.to_string()),
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let (owner, this) = (metadata.uid(), rustix::process::geteuid().as_raw());
        if this == 0 && owner != this {
            scene.warn(&what, format!("it is user {owner}'s, and this is root, who may write anywhere"));
        } else if owner != this {
            scene.warn(&what, format!("it is user {owner}'s, and this is user {this}: check as the user who serves"));
        }
        if metadata.mode() & 0o077 != 0 {
            scene.warn(
                &what,
                format!("mode {:o}: others may look into it; 700 keeps it to its owner", metadata.mode() & 0o777),
            );
        }
    }
    #[cfg(not(unix))]
    drop(metadata);
    // A read-only look at a lock that is not there leaves none.
    let lock = fs::File::options().append(true).open(folder.join("lock"));
    scene.is_running = lock.is_ok_and(|file| matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)));
    let inner = folder.join("transcripts");
    for folder in [&folder, &inner].into_iter().filter(|folder| folder.is_dir()) {
        let what = format!("folder {}", folder.display());
        match write_in(folder) {
            Ok(()) => scene.ok(what, "can be written"),
            Err(error) => scene.error(what, format!("cannot be written: {error}")),
        }
    }
    if scene.is_running {
        scene.ok(what, "a server runs over it: another one would not start");
    }
    for (name, result) in [("api_key.json", keys::ApiKey::load(&folder).map(drop)), ("url_key", key_is_whole(&folder))]
    {
        if let Err(error) = result {
            scene.error(folder.join(name).display().to_string(), error.to_string());
        }
    }
}

fn key_is_whole(folder: &Path) -> io::Result<()> {
    match fs::metadata(folder.join("url_key")) {
        Ok(file) if file.len() < 64 => Err(io::Error::other(format!("{} bytes: a key has 64", file.len()))),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn database(scene: &mut Scene<'_>) {
    let path = scene.config.data_dir.join("cuewire.db");
    let what = format!("database {}", path.display());
    let Ok(metadata) = fs::metadata(&path) else { return };
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let this = rustix::process::geteuid().as_raw();
        // SQLite's other files would be ours, and not the server's; root's it gives to the owner of this one.
        if this != 0 && metadata.uid() != this {
            return scene.warn(what, "is not looked into: it is another user's");
        }
    }
    #[cfg(not(unix))]
    drop(metadata);
    let looked = Store::look(&path).and_then(|(store, found, known)| {
        if found > known {
            return Err(StoreError::Newer { found, known });
        }
        // An older one has other tables.
        let set = if found == known { Some((store.storages()?, (*store.app()?).clone())) } else { None };
        Ok((found, known, set))
    });
    match looked {
        Ok((found, known, None)) => {
            scene.warn(
                what,
                format!(
                    "version {found}: the start makes it {known}, and older programs refuse it then; copy it first"
                ),
            );
        }
        Ok((found, _, Some((storages, app)))) => {
            scene.ok(what, format!("version {found}"));
            (scene.storages, scene.app) = (storages, Some(app));
        }
        Err(error) => scene.error(what, error.to_string()),
    }
}

fn addresses(scene: &mut Scene<'_>) {
    let of_metrics = scene.config.metrics.as_ref().map(|metrics| ("metrics_listen", metrics.listen));
    // Until both were tried: one is not free for the other.
    let mut bound = Vec::new();
    for (name, address) in [("listen", scene.config.listen)].into_iter().chain(of_metrics) {
        let what = format!("{name} {address}");
        if name == "metrics_listen" && address == scene.config.listen && address.port() != 0 {
            scene.error(what, "is that of `listen`: name another one");
            continue;
        }
        match TcpListener::bind(address) {
            Ok(listener) => {
                bound.push(listener);
                scene.ok(what, "is free");
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && scene.is_running => {
                scene.ok(what, "is in use, as is the data folder: by the server that runs");
            }
            Err(error) => scene.error(what, error.to_string()),
        }
        if name == "metrics_listen" && !address.ip().is_loopback() {
            scene.warn(format!("{name} {address}"), "whoever reaches it reads it: there is no token");
        }
    }
}

fn rtp(scene: &mut Scene<'_>) {
    let config = scene.config.rtp.clone();
    // Of a range that makes no sense that was said.
    if config.check().is_err() {
        return;
    }
    let bind = |port| UdpSocket::bind((config.address, port));
    if let Err(error) = bind(0) {
        return scene.error(format!("rtp_address {}", config.address), error.to_string());
    }
    let [first, last] = config.ports;
    let what = format!("rtp_ports {first} – {last} at {}", config.address);
    let is_free = |port: &u16| bind(*port).and_then(|rtp| bind(port + 1).map(|rtcp| (rtp, rtcp))).is_ok();
    match (first..last).filter(|port| port % 2 == 0).find(is_free) {
        Some(port) => scene.ok(what, format!("{port} is free, and the next")),
        None if scene.is_running => scene.warn(what, "none is free: the server that runs has them, or others"),
        None => scene.error(what, "none is free, with the next one"),
    }
}

fn is_here(address: SocketAddr) -> bool {
    address.ip().is_loopback()
}

fn public_url(scene: &mut Scene<'_>) {
    let listen = scene.config.listen;
    let Some(text) = scene.config.public_url.clone() else {
        if listen.ip().is_unspecified() {
            scene.warn(
                "public_url",
                format!("is not set: URLs of transcripts would begin with http://{listen}, which is nowhere"),
            );
        } else if !is_here(listen) {
            scene.warn("public_url", format!("is not set: URLs of transcripts begin with http://{listen}"));
        }
        return;
    };
    let what = format!("public_url {text}");
    let url = match Url::parse(&text) {
        Ok(url) => url,
        Err(error) => return scene.error(what, error.to_string()),
    };
    let host = url.host_str().unwrap_or_default();
    let is_local = ["localhost", "127.0.0.1", "[::1]"].contains(&host);
    if ["0.0.0.0", "[::]"].contains(&host) {
        scene.error(what, "is nowhere: name what clients reach");
    } else if url.query().is_some() || url.fragment().is_some() {
        scene.error(what, "has a query or a fragment: paths are put behind it");
    } else if url.scheme() == "http" && !is_local {
        scene.warn(what, "is not encrypted: https is what clients expect");
    } else {
        scene.ok(what, "makes sense");
    }
}

fn certificate(scene: &mut Scene<'_>) {
    let Some(certificate) = scene.config.certificate.clone() else { return };
    let what = format!("tls_cert {}", certificate.cert.display());
    // Of files that make no sense that was said.
    let Ok(validity) = certificate.validity() else { return };
    let Some(Validity { from, until }) = validity else {
        return scene.warn(what, "it does not say when it expires");
    };
    let (now, left) = (now(), until.nanos_since(now()));
    if now < from {
        scene.error(what, format!("does not do before {from}"));
    } else if left <= 0 {
        scene.error(what, format!("has expired at {until}"));
    } else if left < LITTLE_TIME_NANOS {
        scene.warn(what, format!("expires at {until}: who renews it should have done so"));
    } else {
        scene.ok(what, format!("does until {until}"));
    }
}

fn request_log(scene: &mut Scene<'_>) {
    let Some(path) = scene.config.request_log.clone() else { return };
    let what = format!("request_log {}", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).map_or(Path::new("."), |folder| folder);
    let opened = match fs::File::options().append(true).open(&path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && folder.is_dir() => may_write(folder),
        Err(error) => Err(error),
    };
    match opened {
        Ok(()) => scene.ok(what, "can be written"),
        Err(error) => scene.error(what, format!("cannot be written: {error}")),
    }
}

fn clock(scene: &mut Scene<'_>) {
    if now().as_nanos() / 1_000_000_000 < EARLIEST_S {
        scene.error("clock", format!("it says {}: tokens are refused, and certificates", now()));
    }
}

async fn storages(scene: &mut Scene<'_>) {
    let mut all = scene.storages.clone();
    all.retain(|(name, _)| !scene.config.storages.contains_key(name));
    all.extend(scene.config.storages.clone());
    let mut asked = tokio::task::JoinSet::new();
    for (name, config) in all {
        let is_configured = scene.config.storages.contains_key(&name);
        let bucket = match Bucket::open(&config, is_configured || scene.config.hooks_to_private_addresses) {
            Ok(bucket) => bucket,
            // Of the settings that was said.
            Err(_) if is_configured => continue,
            Err(why) => {
                scene.error(format!("storage {name}"), why);
                continue;
            }
        };
        let is_default = scene.config.default_storage.as_ref() == Some(&name);
        asked.spawn(async move {
            let tried = tokio::time::timeout(PATIENCE, try_bucket(&bucket, is_default)).await;
            let late = |_| Err(format!("does not answer within {} s", PATIENCE.as_secs()));
            (name, tried.unwrap_or_else(late))
        });
    }
    let mut answers = asked.join_all().await;
    answers.sort();
    for (name, answer) in answers {
        match answer {
            Ok(what) => scene.ok(format!("storage {name}"), what),
            Err(why) => scene.error(format!("storage {name}"), why),
        }
    }
}

/// Writes a test file, as the API's own check does. What is done with the default storage's files is tried too: they are fetched by
/// signed URLs, and deleted.
async fn try_bucket(bucket: &Bucket, is_default: bool) -> Result<String, String> {
    const TEXT: &[u8] = b"cuewire can write here.\n";
    let put = bucket.put(&format!("cuewire_check_{}.txt", new_id()), TEXT.to_vec(), "text/plain").await;
    let place = put.map_err(|why| format!("cannot be written: {why}"))?;
    if !is_default {
        return Ok(format!("took {}", place.url));
    }
    let fetched = match bucket.signed_url(&place, PATIENCE).await {
        Ok(url) => fetch(&url).await.map(|bytes| bytes == TEXT),
        Err(why) => Err(format!("no URL is signed: {why}")),
    };
    let deleted = bucket.delete(&place).await;
    if !fetched.map_err(|why| format!("cannot be read: {why}"))? {
        return Err("gave back something else than it took".into());
    }
    deleted.map_err(|why| format!("cannot be deleted from: {why}"))?;
    Ok(format!("took {}, gave it back and deleted it", place.url))
}

async fn fetch(url: &str) -> Result<Vec<u8>, String> {
    // Its URL would be told, and with it the signature.
    let why = |error: reqwest::Error| outward::chain(&error.without_url());
    let client = outward::client(true).build().map_err(why)?;
    let answer = client.get(url).send().await.and_then(reqwest::Response::error_for_status).map_err(why)?;
    Ok(answer.bytes().await.map_err(why)?.to_vec())
}

/// Hooks are not told anything: it is looked where their names lead.
async fn names_of_hooks(scene: &mut Scene<'_>) {
    let may_be_private = scene.config.hooks_to_private_addresses;
    let app = scene.app.take().unwrap_or_default();
    for hook in app.hooks.iter().filter(|hook| hook.enabled) {
        let what = format!("hook {}", hook.id);
        if let Some(why) = hook.target.refused() {
            scene.error(what, why);
            continue;
        }
        match tokio::time::timeout(PATIENCE, outward::leads_to(hook.target.url(), may_be_private)).await {
            Ok(Ok(address)) => scene.ok(what, format!("leads to {address}")),
            Ok(Err(why)) => scene.error(what, why),
            Err(_) => scene.error(what, format!("its name is not resolved within {} s", PATIENCE.as_secs())),
        }
    }
}
