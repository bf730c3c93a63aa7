//! From a run's journal to its finished file.
//!
//! In: runs that are over. Out: one JSONL file each, in its storage, and `call.transcription_ready`.
//!
//! What a crash left undone is done at the next start. What a storage does not take is tried again, later and later; where it goes
//! on for too long, `call.transcription_failed` says so, and the file stays on the server's disk. Storages hold up no other.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use cuewire::transcript::{jsonl, sort};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::api::error::{ApiError, Code};
use crate::call::Input;
use crate::host::{Host, now};
use crate::retry::{backoff, jitter};
use crate::store::StoredTranscript;

/// How often files are looked for whose time is over.
const RETENTION: Duration = Duration::from_secs(60);
/// Files that go to one storage at a time.
const MOST_AT_ONCE: usize = 8;
/// The type of a file.
const CONTENT_TYPE: &str = "application/jsonl";

/// Finishes transcripts.
pub struct Transcripts {
    /// Nanoseconds that a file is kept on default storage.
    kept_nanos: i64,
    /// Nanoseconds behind a run's end after which its upload has failed.
    give_up_nanos: i64,
    wake: Notify,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Transcripts {
    /// Each file is kept for so many days, and is to be stored within so many seconds.
    #[must_use]
    pub fn new(kept_days: u32, give_up_s: u32) -> Self {
        Self {
            kept_nanos: i64::from(kept_days) * 24 * 3600 * 1_000_000_000,
            give_up_nanos: i64::from(give_up_s) * 1_000_000_000,
            wake: Notify::new(),
            stop: CancellationToken::new(),
            task: Mutex::default(),
        }
    }

    /// Starts finishing.
    pub(crate) fn start(&self, host: &Arc<Host>, runtime: &Handle) {
        let task = runtime.spawn(run(Arc::downgrade(host), self.stop.clone()));
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    /// There is something to finish.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Finishes what there is, and ends.
    pub(crate) async fn shutdown(&self) {
        self.stop.cancel();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            // A panic there was its own.
            let _ = task.await;
        }
    }
}

/// What is under way, and what is to be tried again.
#[derive(Default)]
struct Work {
    under_way: HashSet<String>,
    at_once: HashMap<Option<String>, usize>,
    /// How often each was tried, and when its turn comes.
    failed: HashMap<String, (u32, Instant)>,
    attempts: JoinSet<(StoredTranscript, bool)>,
}

impl Work {
    /// Begins what can be begun: what is due, or `all`.
    fn begin(&mut self, host: &Arc<Host>, unfinished: Vec<StoredTranscript>, all: bool) {
        for transcript in unfinished {
            let is_due = self.failed.get(&transcript.egress_id).is_none_or(|(_, at)| all || *at <= Instant::now());
            let at_once = self.at_once.entry(transcript.storage.clone()).or_default();
            if !is_due || *at_once >= MOST_AT_ONCE || !self.under_way.insert(transcript.egress_id.clone()) {
                continue;
            }
            *at_once += 1;
            let host = host.clone();
            self.attempts.spawn(async move {
                let finished = finish(&host, transcript.clone()).await;
                if let Err(error) = &finished {
                    tracing::error!("the transcript {} of {}: {error}", transcript.egress_id, transcript.cid);
                }
                (transcript, finished.is_ok())
            });
        }
    }

    fn ended(&mut self, transcript: &StoredTranscript, is_finished: bool) {
        let StoredTranscript { egress_id, storage, .. } = transcript;
        self.under_way.remove(egress_id);
        if let Some(at_once) = self.at_once.get_mut(storage) {
            *at_once -= 1;
        }
        let before = self.failed.remove(egress_id).map_or(0, |(attempts, _)| attempts);
        if !is_finished {
            self.failed.insert(egress_id.clone(), (before + 1, Instant::now() + backoff(before, jitter())));
        }
    }

    fn wake_up(&self) -> Instant {
        let retry = self.failed.values().map(|(_, at)| *at).min();
        let latest = Instant::now() + RETENTION;
        retry.map_or(latest, |at| at.min(latest))
    }
}

async fn run(host: Weak<Host>, stop: CancellationToken) {
    let mut work = Work::default();
    let mut deleting: Option<JoinHandle<()>> = None;
    loop {
        let Some(host) = host.upgrade() else { return };
        let is_over = stop.is_cancelled();
        match host.read(|change| Ok(change.store.unfinished_transcripts()?)).await {
            Ok(unfinished) => work.begin(&host, unfinished, is_over),
            Err(error) => tracing::error!("transcripts: {error}"),
        }
        if is_over {
            while work.attempts.join_next().await.is_some() {}
            return;
        }
        if deleting.as_ref().is_none_or(JoinHandle::is_finished) {
            // A storage that takes its time holds up no file that is to be written.
            let host = host.clone();
            deleting = Some(tokio::spawn(async move { delete_expired(&host).await }));
        }
        let wake_up = work.wake_up();
        tokio::select! {
            Some(ended) = work.attempts.join_next() => match ended {
                Ok((transcript, is_finished)) => work.ended(&transcript, is_finished),
                Err(error) => tracing::error!("finishing a transcript: {error}"),
            },
            () = host.transcripts.wake.notified() => {}
            () = tokio::time::sleep_until(wake_up.into()) => {}
            () = stop.cancelled() => {}
        }
    }
}

async fn finish(host: &Arc<Host>, mut transcript: StoredTranscript) -> Result<(), ApiError> {
    let egress_id = transcript.egress_id.clone();
    let lines = host.read(move |change| Ok(change.store.fragments(&egress_id)?)).await?;
    let (cid, egress_id) = (&transcript.cid, &transcript.egress_id);
    let bytes = file_of(&lines, egress_id);
    transcript.filename = format!("transcript_{}_{}_{egress_id}.jsonl", cid.call_type(), cid.id());
    let Err(error) = put(host, &transcript, bytes.clone()).await else {
        let (kept_nanos, is_external) = (host.transcripts.kept_nanos, transcript.is_external);
        let url = url(host, &transcript).await;
        return host
            .run(move |change| {
                let expires_at = (!is_external).then(|| change.now.plus_nanos(kept_nanos));
                change.store.file_written(&transcript, expires_at)?;
                let (cid, egress_id) = (transcript.cid.clone(), transcript.egress_id.clone());
                change.tell(&cid, Input::TranscriptStored { egress_id, transcript: transcript.with_url(url) })
            })
            .await;
    };
    if now().nanos_since(transcript.end_time) < host.transcripts.give_up_nanos {
        return Err(error);
    }
    give_up(host, transcript, bytes, &error.message).await.and(Err(error))
}

/// Says, once, that a file cannot be stored. One that should have gone elsewhere stays on the server's disk, for good.
async fn give_up(
    host: &Arc<Host>,
    mut transcript: StoredTranscript,
    bytes: Vec<u8>,
    error: &str,
) -> Result<(), ApiError> {
    let mut error = error.to_string();
    let is_elsewhere = transcript.storage.is_some();
    if is_elsewhere {
        (transcript.storage, transcript.is_external) = (None, false);
        put(host, &transcript, bytes).await?;
        error =
            format!("{error}; the file stays on the server, in {}", host.storages.path(&transcript.filename).display());
    }
    host.run(move |change| {
        if is_elsewhere {
            change.store.file_written(&transcript, None)?;
        }
        let (cid, egress_id) = (transcript.cid.clone(), transcript.egress_id.clone());
        if transcript.has_failed {
            return Ok(());
        }
        change.store.file_failed(&egress_id)?;
        change.tell(&cid, Input::TranscriptFailed { egress_id, error })
    })
    .await
}

/// A whole file, in order of time.
fn file_of(journal: &[String], egress_id: &str) -> Vec<u8> {
    let mut fragments = Vec::new();
    for line in journal {
        for fragment in jsonl::Reader::new(line.as_bytes()) {
            match fragment {
                Ok(fragment) => fragments.push(fragment),
                // Lines are cuewire's own: somebody else has written here.
                Err(error) => tracing::error!("a line in the journal of {egress_id} cannot be read: {error}"),
            }
        }
    }
    sort(&mut fragments);
    let mut file = Vec::new();
    for fragment in &fragments {
        // Writing into memory does not fail.
        let _ = jsonl::write_fragment(&mut file, fragment);
    }
    file
}

/// How a bucket is reached now.
async fn bucket(host: &Arc<Host>, name: &str) -> Result<crate::storage::Bucket, ApiError> {
    let of = name.to_string();
    let config = host.read(move |change| change.storage(&of)).await?;
    let failed = |why: String| ApiError::new(Code::Internal, format!("the storage {name}: {why}"));
    let config = config.ok_or_else(|| failed("it is not there any more".into()))?;
    host.storages.bucket(name, &config).map_err(failed)
}

async fn put(host: &Arc<Host>, transcript: &StoredTranscript, bytes: Vec<u8>) -> Result<(), ApiError> {
    let filename = transcript.filename.clone();
    if let Some(name) = &transcript.storage {
        let stored = bucket(host, name).await?.put(&filename, bytes, CONTENT_TYPE).await;
        return stored.map_err(|why| ApiError::new(Code::Internal, format!("the storage {name}: {why}")));
    }
    let disk = host.clone();
    let written = tokio::task::spawn_blocking(move || disk.storages.local.put(&filename, &bytes)).await;
    let failed =
        |why: String| ApiError::new(Code::Internal, format!("{} cannot be written: {why}", transcript.filename));
    written.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
}

/// Where a file can be fetched; empty where that cannot be said at present.
pub(crate) async fn url(host: &Arc<Host>, transcript: &StoredTranscript) -> String {
    let Some(name) = &transcript.storage else { return host.storages.local.url(transcript, now()) };
    let url = match bucket(host, name).await {
        Ok(bucket) if transcript.is_external => Ok(bucket.url(&transcript.filename)),
        Ok(bucket) => bucket.signed_url(&transcript.filename, crate::storage::URL_TIME).await,
        Err(error) => Err(error.message),
    };
    url.unwrap_or_else(|error| {
        tracing::error!("the URL of {}: {error}", transcript.filename);
        String::new()
    })
}

async fn delete_expired(host: &Arc<Host>) {
    let expired = host.read(|change| Ok(change.store.expired_files(change.now)?)).await;
    for transcript in expired.unwrap_or_default() {
        if let Err(error) = delete(host, &transcript).await {
            tracing::error!("{} cannot be deleted: {error}", transcript.filename);
        }
    }
}

/// Deletes a file of default storage, and its place in the list.
pub(crate) async fn delete(host: &Arc<Host>, transcript: &StoredTranscript) -> Result<(), ApiError> {
    let failed = |why: String| {
        tracing::error!("{}: {why}", transcript.filename);
        ApiError::new(Code::Internal, "the file cannot be deleted: the server's log says why")
    };
    match &transcript.storage {
        Some(name) => bucket(host, name).await?.delete(&transcript.filename).await.map_err(failed)?,
        None => host.storages.local.delete(&transcript.filename).map_err(|error| failed(error.to_string()))?,
    }
    let egress_id = transcript.egress_id.clone();
    host.run(move |change| Ok(change.store.forget_file(&egress_id)?)).await
}

/// A run's place in a URL or a list.
#[must_use]
pub fn find<'a>(files: &'a [StoredTranscript], session: &str, filename: &str) -> Option<&'a StoredTranscript> {
    files.iter().find(|file| file.session_id == session && file.filename == filename)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use cuewire::time::Timestamp;
    use cuewire::transcript::Fragment;

    #[test]
    fn a_file_is_in_order_of_time() {
        let line = |at: u32, text: &str| {
            let start_time = Timestamp::from_nanos(at.into());
            let mut line = Vec::new();
            let fragment = Fragment { start_time, text: text.into(), ..Default::default() };
            jsonl::write_fragment(&mut line, &fragment).unwrap();
            String::from_utf8(line).unwrap()
        };
        let file = file_of(&[line(2, "second"), "not one\n".into(), line(1, "first")], "egress");
        assert_eq!(String::from_utf8(file).unwrap(), [line(1, "first"), line(2, "second")].concat());
        assert!(file_of(&[], "egress").is_empty(), "nobody spoke");
    }
}
