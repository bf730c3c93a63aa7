//! Metrics of the service and of its process: docs/service.md has the table.
//!
//! In: what happens, and every few seconds what there is. Out: to whatever recorder of the `metrics` facade is installed, the host's
//! or that of [`Metrics::install`], and by it `/metrics`.
//!
//! Labels take few values: neither calls nor people are among them, and nothing that was said.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cuewire::time::Timestamp;
use metrics::Unit::{Bytes, Count, Seconds};
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::clock::now;

const BUILD_INFO: &str = "cuewire_build_info";
const REQUESTS: &str = "cuewire_requests_total";
const REQUEST: &str = "cuewire_request_seconds";
const CONNECTIONS: &str = "cuewire_connections";
const CALLS: &str = "cuewire_calls_in_session";
const PARTICIPANTS: &str = "cuewire_participants";
const EVENTS: &str = "cuewire_events_total";
const EVENTS_SENT: &str = "cuewire_events_sent_total";
const SLOW_WATCHERS: &str = "cuewire_slow_watchers_total";
const DELIVERIES: &str = "cuewire_hook_deliveries_total";
const DELIVERIES_WAITING: &str = "cuewire_hook_deliveries_waiting";
const DELIVERY_AGE: &str = "cuewire_hook_oldest_waiting_seconds";
const DEAD_LETTERS: &str = "cuewire_dead_letters_total";
const UPLOADS: &str = "cuewire_uploads_total";
const UPLOADS_WAITING: &str = "cuewire_uploads_waiting";
const UPLOAD_AGE: &str = "cuewire_upload_oldest_waiting_seconds";
const COMMIT: &str = "cuewire_commit_seconds";
const COMMIT_FAILURES: &str = "cuewire_commit_failures_total";
const UNWRITTEN: &str = "cuewire_unwritten_captions";
const CERTIFICATE_EXPIRES: &str = "cuewire_certificate_expires_timestamp_seconds";
const DATABASE: &str = "cuewire_database_bytes";
const DISK_FREE: &str = "cuewire_disk_free_bytes";
const CPU: &str = "process_cpu_seconds_total";
const RESIDENT: &str = "process_resident_memory_bytes";
const VIRTUAL: &str = "process_virtual_memory_bytes";
const OPEN_FDS: &str = "process_open_fds";
const MAX_FDS: &str = "process_max_fds";
const THREADS: &str = "process_threads";
const START_TIME: &str = "process_start_time_seconds";

/// Upper bounds of what lasts, in seconds: from a commit to a decode of a long caption.
const BUCKETS: [f64; 15] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0];
/// How often it is looked what there is.
pub(crate) const EVERY: Duration = Duration::from_secs(5);
/// Scrapes at a time; a further one waits.
const MOST_SCRAPES: usize = 8;
/// A scrape has asked, and has its answer, within this.
const SCRAPE_TIME: Duration = Duration::from_secs(10);

/// Where `/metrics` is served, and what it says.
///
/// An address of its own: the API's is open to clients, whom load, errors and versions are no business of; this one is this machine's
/// or that of a network for such things, and needs no token that expires.
#[derive(Clone)]
#[non_exhaustive]
pub struct Metrics {
    /// Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Renders all metrics in Prometheus' text format.
    pub render: Arc<dyn Fn() -> String + Send + Sync>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("listen", &self.listen).finish_non_exhaustive()
    }
}

impl Metrics {
    /// Of a host that has installed a recorder of its own.
    pub fn new(listen: SocketAddr, render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self { listen, render: Arc::new(render) }
    }

    /// Installs a recorder, for the whole process and until it ends.
    ///
    /// # Errors
    /// Where there is one already.
    pub fn install(listen: SocketAddr) -> io::Result<Self> {
        let builder = PrometheusBuilder::new();
        let builder = builder.set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &BUCKETS);
        let recorder = builder.and_then(PrometheusBuilder::install_recorder).map_err(io::Error::other)?;
        let upkeep = recorder.clone();
        // Samples would pile up where nobody asks.
        std::thread::Builder::new().name("cuewire-metrics".into()).spawn(move || {
            loop {
                std::thread::sleep(EVERY);
                upkeep.run_upkeep();
            }
        })?;
        Ok(Self::new(listen, move || recorder.render()))
    }
}

/// Says once what the metrics mean, and has those there from the start whose first increase is news.
pub(crate) fn describe(operations: impl Iterator<Item = &'static str>) {
    describe_gauge!(BUILD_INFO, Count, "1; the label says which version runs");
    describe_counter!(REQUESTS, Count, "Requests that were answered, handshakes of WebSockets among them");
    describe_histogram!(REQUEST, Seconds, "From a request's head to its answer; of WebSockets to their greeting");
    describe_gauge!(CONNECTIONS, Count, "Connections that are open: http, watch and audio are WebSockets");
    describe_gauge!(CALLS, Count, "Calls in session");
    describe_gauge!(PARTICIPANTS, Count, "Participants with a connection for their audio");
    describe_counter!(EVENTS, Count, "Events that were committed");
    describe_counter!(EVENTS_SENT, Count, "Events that were put into a watcher's queue, interims apart");
    describe_counter!(SLOW_WATCHERS, Count, "Watchers whose connection was closed since they read too slowly");
    describe_counter!(DELIVERIES, Count, "Attempts to tell a hook of an event");
    describe_gauge!(DELIVERIES_WAITING, Count, "Deliveries that hooks have not had yet");
    describe_gauge!(DELIVERY_AGE, Seconds, "Age of the oldest event that a hook has not had yet");
    describe_counter!(DEAD_LETTERS, Count, "Deliveries that were given up, since the data folder was made");
    describe_counter!(UPLOADS, Count, "Attempts to store a transcript");
    describe_gauge!(UPLOADS_WAITING, Count, "Transcripts of runs that are over and that are not stored yet");
    describe_gauge!(UPLOAD_AGE, Seconds, "How long ago the run ended whose transcript has waited longest");
    describe_histogram!(COMMIT, Seconds, "How long a commit took");
    describe_counter!(COMMIT_FAILURES, Count, "Commits that failed: the disk is full, the database somebody else's");
    describe_gauge!(UNWRITTEN, Count, "Captions that wait in memory until they can be written");
    describe_gauge!(CERTIFICATE_EXPIRES, Seconds, "When the certificate expires that is in use, in Unix time");
    describe_gauge!(DATABASE, Bytes, "Size of the database and its journal");
    describe_gauge!(DISK_FREE, Bytes, "What is free on the disk of the data folder");
    describe_counter!(CPU, Seconds, "CPU time of the process, whole seconds");
    describe_gauge!(RESIDENT, Bytes, "Resident memory of the process");
    describe_gauge!(VIRTUAL, Bytes, "Virtual memory of the process");
    describe_gauge!(OPEN_FDS, Count, "Open file descriptors");
    describe_gauge!(MAX_FDS, Count, "Most open file descriptors");
    describe_gauge!(THREADS, Count, "Threads of the process");
    describe_gauge!(START_TIME, Seconds, "When the server was started, in Unix time");
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    gauge!(START_TIME).set(now().as_nanos() as f64 / 1e9);
    for name in [EVENTS_SENT, SLOW_WATCHERS, COMMIT_FAILURES] {
        counter!(name).increment(0);
    }
    for operation in operations {
        counter!(REQUESTS, "operation" => operation, "status" => "500").increment(0);
    }
    for kind in ["http", "watch", "audio"] {
        gauge!(CONNECTIONS, "kind" => kind).increment(0.0);
    }
    for outcome in ["delivered", "failed"] {
        counter!(DELIVERIES, "outcome" => outcome).increment(0);
    }
    for outcome in ["stored", "failed", "given_up"] {
        counter!(UPLOADS, "outcome" => outcome).increment(0);
    }
}

/// A request was answered.
pub(crate) fn answered(operation: &'static str, status: u16, took: Duration) {
    counter!(REQUESTS, "operation" => operation, "status" => status.to_string()).increment(1);
    histogram!(REQUEST, "operation" => operation).record(took);
}

/// A connection that is open as long as this is there.
pub(crate) struct Open(&'static str);

impl Open {
    pub(crate) fn new(kind: &'static str) -> Self {
        gauge!(CONNECTIONS, "kind" => kind).increment(1.0);
        Self(kind)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        gauge!(CONNECTIONS, "kind" => self.0).decrement(1.0);
    }
}

/// An event was committed.
pub(crate) fn committed_event(event_type: String) {
    counter!(EVENTS, "type" => event_type).increment(1);
}

/// So many watchers were told of something, and so many were too slow for it.
pub(crate) fn told(told: u64, slow: u64) {
    counter!(EVENTS_SENT).increment(told);
    counter!(SLOW_WATCHERS).increment(slow);
}

/// An attempt to tell a hook of an event was made.
pub(crate) fn delivered(is_delivered: bool) {
    counter!(DELIVERIES, "outcome" => if is_delivered { "delivered" } else { "failed" }).increment(1);
}

/// An attempt to store a transcript: `stored`, `failed`, or `given_up`.
pub(crate) fn uploaded(outcome: &'static str) {
    counter!(UPLOADS, "outcome" => outcome).increment(1);
}

/// A commit was tried.
pub(crate) fn committed(began: Instant, is_committed: bool) {
    if is_committed {
        histogram!(COMMIT).record(began.elapsed());
    } else {
        counter!(COMMIT_FAILURES).increment(1);
    }
}

/// So many deliveries were ever given up.
pub(crate) fn given_up(deliveries: i64) {
    counter!(DEAD_LETTERS).absolute(deliveries.unsigned_abs());
}

/// What there is at present.
pub(crate) struct Present {
    pub(crate) calls: usize,
    pub(crate) participants: usize,
    /// Captions that wait in memory.
    pub(crate) unwritten: usize,
    /// When the certificate expires that is in use.
    pub(crate) expires_at: Option<Timestamp>,
}

/// Tells what there is.
pub(crate) fn present(now: Present) {
    gauge!(CALLS).set(now.calls as f64);
    gauge!(PARTICIPANTS).set(now.participants as f64);
    gauge!(UNWRITTEN).set(now.unwritten as f64);
    if let Some(expires_at) = now.expires_at {
        gauge!(CERTIFICATE_EXPIRES).set(expires_at.as_nanos() as f64 / 1e9);
    }
}

/// So many deliveries and uploads wait, and the oldest of each since when.
pub(crate) fn waiting(deliveries: (i64, Option<Timestamp>), uploads: (i64, Option<Timestamp>)) {
    let age = |since: Option<Timestamp>| since.map_or(0.0, |since| now().nanos_since(since).max(0) as f64 / 1e9);
    gauge!(DELIVERIES_WAITING).set(deliveries.0 as f64);
    gauge!(DELIVERY_AGE).set(age(deliveries.1));
    gauge!(UPLOADS_WAITING).set(uploads.0 as f64);
    gauge!(UPLOAD_AGE).set(age(uploads.1));
}

/// Looks at the disk of a folder, and at this process; blocks.
pub(crate) fn look(data_dir: &Path) {
    look_at_disk(data_dir);
    look_at_process();
}

fn look_at_disk(data_dir: &Path) {
    let bytes = |name: &str| std::fs::metadata(data_dir.join(name)).map_or(0, |file| file.len());
    gauge!(DATABASE).set((bytes("cuewire.db") + bytes("cuewire.db-wal")) as f64);
    if let Some(free) = free_bytes(data_dir) {
        gauge!(DISK_FREE).set(free as f64);
    }
}

/// What may still be written to the file system of a folder.
pub(crate) fn free_bytes(folder: &Path) -> Option<u64> {
    #[cfg(unix)]
    return rustix::fs::statvfs(folder).ok().map(|fs| fs.f_bavail.saturating_mul(fs.f_frsize));
    #[cfg(not(unix))]
    return None;
}

#[cfg(target_os = "linux")]
fn look_at_process() {
    use procfs::process::{LimitValue, Process};
    let Ok(this) = Process::myself() else { return };
    if let Ok(stat) = this.stat() {
        counter!(CPU).absolute((stat.utime + stat.stime) / procfs::ticks_per_second());
        gauge!(RESIDENT).set(stat.rss as f64 * procfs::page_size() as f64);
        gauge!(VIRTUAL).set(stat.vsize as f64);
        gauge!(THREADS).set(stat.num_threads as f64);
    }
    if let Ok(count) = this.fd_count() {
        gauge!(OPEN_FDS).set(count as f64);
    }
    if let Ok(LimitValue::Value(most)) = this.limits().map(|limits| limits.max_open_files.soft_limit) {
        gauge!(MAX_FDS).set(most as f64);
    }
}

#[cfg(not(target_os = "linux"))]
fn look_at_process() {}

/// Serves `/metrics`, and nothing else.
pub(crate) async fn serve(listener: TcpListener, metrics: Metrics, stop: CancellationToken) {
    let room = Arc::new(tokio::sync::Semaphore::new(MOST_SCRAPES));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else {
            // Of too many open files, for one: it passes.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let render = metrics.render.clone();
        tokio::spawn(async move {
            // Who takes longer, or is gone, asks again.
            let _ = tokio::time::timeout(SCRAPE_TIME, scrape(stream, render)).await;
            drop(permit);
        });
    }
}

async fn scrape(stream: tokio::net::TcpStream, render: Arc<dyn Fn() -> String + Send + Sync>) {
    use axum::http::{Method, Response, StatusCode, header};
    let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let render = render.clone();
        async move {
            let is_asked = request.uri().path() == "/metrics" && request.method() == Method::GET;
            let mut answer = Response::new(if is_asked { render() } else { "GET /metrics\n".into() });
            if !is_asked {
                *answer.status_mut() = StatusCode::NOT_FOUND;
            }
            let kind = axum::http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            answer.headers_mut().insert(header::CONTENT_TYPE, kind);
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    // One connection a scrape: none that is idle takes the place of another.
    http.keep_alive(false).max_buf_size(16 * 1024);
    // A client that is gone is no news.
    let _ = http.serve_connection(hyper_util::rt::TokioIo::new(stream), service).await;
}
