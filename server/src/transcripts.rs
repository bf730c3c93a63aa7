//! From a run's journal to its finished file.
//!
//! In: runs that are over. Out: one JSONL file each, in its storage, and `call.transcription_ready`.
//!
//! What a crash left undone is done at the next start. What a storage does not take is tried again, later and later; where it goes
//! on for too long, `call.transcription_failed` says so, and the file stays on the server's disk. Storages hold up no other.
//! Where a file was put is kept with it: a storage that is set anew, or is gone, leaves the files alone that are there.

use std::collections::HashSet;
use std::collections::hash_map::{Entry, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use cuewire::transcript::{jsonl, sort};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::{Id, JoinError, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::call::Cid;
use crate::clock::now;
use crate::host::Host;
use crate::retry::{Seldom, backoff, jitter};
use crate::storage::{Bucket, Place, URL_TIME};
use crate::store::StoredTranscript;
use crate::telemetry;
use crate::wire::error::{ApiError, Code};

/// How often it is looked for files whose time is over, and for what nobody said is to be finished.
const LOOKED_EVERY: Duration = Duration::from_secs(60);
/// Files that go to one storage at a time.
const MOST_AT_ONCE: usize = 8;
/// How long a process tries by itself before it gives a file up: the run may have been over for days when it starts, and the
/// network not be there yet.
const TRIED_FOR: Duration = Duration::from_secs(600);
/// What is due when the server ends has this long; the next start goes on with the rest.
const LAST_ATTEMPTS: Duration = Duration::from_secs(3);
/// Rows of files whose time is over that are read at a time.
const EXPIRED_AT_ONCE: u32 = 100;
/// URLs that are signed at a time: some storages are asked for each.
const SIGNED_AT_ONCE: usize = 16;
/// How long who lists waits for signed URLs, and who says that a file can be fetched.
pub(crate) const URLS_WITHIN: Duration = Duration::from_millis(1500);
const URL_WITHIN: Duration = Duration::from_secs(20);
/// The type of a file.
const CONTENT_TYPE: &str = "application/jsonl";

/// Finishes transcripts.
pub(crate) struct Transcripts {
    /// Nanoseconds that a file is kept on default storage.
    kept_nanos: i64,
    /// Behind a run's end its upload has failed after this.
    give_up: Duration,
    /// What cannot be signed or deleted is logged now and then.
    unsigned: Seldom,
    undeleted: Seldom,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Transcripts {
    /// Each file is kept for so many days, and is to be stored within so many seconds.
    #[must_use]
    pub(crate) fn new(kept_days: u32, give_up_s: u32) -> Self {
        Self {
            kept_nanos: i64::from(kept_days) * 24 * 3600 * 1_000_000_000,
            give_up: Duration::from_secs(give_up_s.into()),
            unsigned: Seldom::default(),
            undeleted: Seldom::default(),
            stop: CancellationToken::new(),
            task: Mutex::default(),
        }
    }

    /// Starts finishing.
    pub(crate) fn start(self: &Arc<Self>, host: &Arc<Host>, runtime: &Handle) {
        let task = runtime.spawn(run(self.clone(), Arc::downgrade(host)));
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    /// Finishes what is due, as far as it goes within [`LAST_ATTEMPTS`], and ends.
    pub(crate) async fn shutdown(&self) {
        self.stop.cancel();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            // A panic there was its own.
            let _ = task.await;
        }
    }
}

/// A run that is over and has no file yet.
struct Unfinished {
    cid: Cid,
    storage: Option<String>,
    /// How often it was tried, and since when.
    attempts: u32,
    since: Option<Instant>,
    /// When its turn comes.
    due: Instant,
    is_under_way: bool,
}

/// What is to be finished, by the runs' ids.
#[derive(Default)]
struct Work {
    unfinished: HashMap<String, Unfinished>,
    /// Whose attempts these are.
    under_way: HashMap<Id, String>,
    attempts: JoinSet<Result<(), ApiError>>,
    failures: Seldom,
}

impl Work {
    /// These are on disk. The first is due first.
    fn add(&mut self, found: Vec<StoredTranscript>) {
        for StoredTranscript { egress_id, cid, storage, .. } in found {
            let due = Instant::now();
            let unfinished = || Unfinished { cid, storage, attempts: 0, since: None, due, is_under_way: false };
            self.unfinished.entry(egress_id).or_insert_with(unfinished);
        }
    }

    /// Storages that take no more for now.
    fn full(&self) -> HashSet<Option<String>> {
        let mut at_once: HashMap<_, usize> = HashMap::new();
        for egress_id in self.under_way.values() {
            if let Some(unfinished) = self.unfinished.get(egress_id) {
                *at_once.entry(&unfinished.storage).or_default() += 1;
            }
        }
        at_once.into_iter().filter(|(_, count)| *count >= MOST_AT_ONCE).map(|(storage, _)| storage.clone()).collect()
    }

    /// What could be begun, and when its turn comes, in this order.
    fn turns(&self) -> Vec<(Instant, String)> {
        let full = self.full();
        let waiting = self.unfinished.iter().filter(|(_, of)| !of.is_under_way && !full.contains(&of.storage));
        let mut turns: Vec<_> = waiting.map(|(egress_id, of)| (of.due, egress_id.clone())).collect();
        turns.sort();
        turns
    }

    /// Begins what is due. Gives when the next one is due that there would be room for.
    fn begin(&mut self, transcripts: &Arc<Transcripts>, host: &Arc<Host>) -> Option<Instant> {
        let now = Instant::now();
        for (due, egress_id) in self.turns() {
            if due > now {
                return Some(due);
            }
            let full = self.full();
            let Some(unfinished) = self.unfinished.get_mut(&egress_id).filter(|of| !full.contains(&of.storage)) else {
                continue;
            };
            unfinished.is_under_way = true;
            let (transcripts, host, of) = (transcripts.clone(), host.clone(), egress_id.clone());
            let since = *unfinished.since.get_or_insert(now);
            let attempt = self.attempts.spawn(async move { finish(&transcripts, &host, of, since).await });
            self.under_way.insert(attempt.id(), egress_id);
        }
        None
    }

    /// The last attempts of this process: of what is due, and only so long. A storage that takes nothing is not to hold up the end.
    async fn end(mut self, transcripts: &Arc<Transcripts>, host: &Arc<Host>) {
        let deadline = tokio::time::Instant::now() + LAST_ATTEMPTS;
        while let Ok(Some(ended)) = tokio::time::timeout_at(deadline, self.attempts.join_next_with_id()).await {
            self.ended(ended);
            self.begin(transcripts, host);
        }
    }

    /// Whether it is finished.
    fn ended(&mut self, ended: Result<(Id, Result<(), ApiError>), JoinError>) -> bool {
        let (id, result) = match ended {
            Ok((id, result)) => (id, result.map_err(|error| error.to_string())),
            // A panic is a fault of the server's own: its turn comes again all the same.
            Err(error) => (error.id(), Err(error.to_string())),
        };
        let Some(egress_id) = self.under_way.remove(&id) else { return false };
        let Err(error) = result else { return self.unfinished.remove(&egress_id).is_some() };
        let Some(unfinished) = self.unfinished.get_mut(&egress_id) else { return false };
        unfinished.due = Instant::now() + backoff(unfinished.attempts, jitter());
        unfinished.attempts += 1;
        unfinished.is_under_way = false;
        if let Some(others) = self.failures.is_due(Instant::now()) {
            let cid = &unfinished.cid;
            tracing::error!(
                "the transcript {egress_id} of {cid}: {error}; {others} failures before it were not logged"
            );
        }
        false
    }
}

async fn run(transcripts: Arc<Transcripts>, host: Weak<Host>) {
    let (mut work, mut deleting) = (Work::default(), None::<JoinHandle<()>>);
    // When it is looked what else is to be done: at once where somebody says so.
    let (mut look, mut delete) = (Instant::now(), true);
    loop {
        let Some(host) = host.upgrade() else { return };
        let is_over = transcripts.stop.is_cancelled();
        if is_over || look <= Instant::now() {
            (look, delete) = (Instant::now() + LOOKED_EVERY, true);
            match host.read(|change| Ok(change.store.unfinished_transcripts()?)).await {
                Ok(found) => work.add(found),
                Err(error) => tracing::error!("transcripts: {error}"),
            }
        }
        if delete && deleting.as_ref().is_none_or(JoinHandle::is_finished) {
            // A storage that takes its time holds up no file that is to be written.
            let (transcripts, host) = (transcripts.clone(), host.clone());
            let deletion = async move { delete_expired(&transcripts, &host).await };
            (deleting, delete) = (Some(tokio::spawn(deletion)), false);
        }
        let due = work.begin(&transcripts, &host);
        if is_over {
            return work.end(&transcripts, &host).await;
        }
        tokio::select! {
            Some(ended) = work.attempts.join_next_with_id() => delete |= work.ended(ended),
            () = host.finished.notified() => look = Instant::now(),
            () = tokio::time::sleep_until(due.map_or(look, |due| due.min(look)).into()) => {}
            () = transcripts.stop.cancelled() => {}
        }
    }
}

async fn finish(
    transcripts: &Transcripts,
    host: &Arc<Host>,
    egress_id: String,
    since: Instant,
) -> Result<(), ApiError> {
    let found = host
        .read(move |change| {
            let found = change.store.unfinished_transcript(&egress_id)?;
            found.map(|transcript| Ok((change.store.fragments(&egress_id)?, transcript))).transpose()
        })
        .await?;
    // Else it was deleted meanwhile.
    let Some((lines, mut transcript)) = found else { return Ok(()) };
    let (cid, egress_id) = (&transcript.cid, &transcript.egress_id);
    let bytes = file_of(&lines, egress_id);
    transcript.filename = format!("transcript_{}_{}_{egress_id}.jsonl", cid.call_type(), cid.id());
    let stored = put(host, &transcript, bytes.clone()).await;
    telemetry::uploaded(if stored.is_ok() { "stored" } else { "failed" });
    let error = match stored {
        Ok(place) => {
            transcript.place = place;
            let kept_nanos = transcripts.kept_nanos;
            let url =
                urls(transcripts, host, std::slice::from_ref(&transcript), URL_WITHIN).await.pop().unwrap_or_default();
            return host
                .run(move |change| {
                    let expires_at = (!transcript.is_external).then(|| change.now.plus_nanos(kept_nanos));
                    change.store.file_written(&transcript, expires_at)?;
                    change.tell_of_file(&transcript, Ok(transcript.clone().with_url(url)))
                })
                .await;
        }
        Err(error) => error,
    };
    let limit = transcripts.give_up;
    let is_over_for =
        u64::try_from(now().nanos_since(transcript.end_time)).map_or(Duration::ZERO, Duration::from_nanos);
    if is_over_for < limit || since.elapsed() < limit.min(TRIED_FOR) {
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
    let (mut error, is_news) = (error.to_string(), !transcript.has_failed);
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
        if transcript.has_failed {
            return Ok(());
        }
        change.store.file_failed(&transcript.egress_id)?;
        change.tell_of_file(&transcript, Err(error))
    })
    .await
    .inspect(|()| {
        if is_news {
            telemetry::uploaded("given_up");
        }
    })
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

/// A storage's bucket; or another one that it had before, reached as it is now.
async fn bucket(host: &Arc<Host>, name: &str, before: Option<&Place>) -> Result<Bucket, String> {
    let of = name.to_string();
    let config = host.read(move |change| change.storage(&of)).await.map_err(|error| error.message)?;
    let mut config = config.ok_or_else(|| format!("the storage {name} is not there any more"))?;
    if let Some(place) = before {
        config.bucket.clone_from(&place.bucket);
    }
    host.storages.bucket(name, &config).map_err(|why| format!("the storage {name}: {why}"))
}

/// Writes a file, and gives where in its bucket, if it went to one.
async fn put(host: &Arc<Host>, transcript: &StoredTranscript, bytes: Vec<u8>) -> Result<Option<Place>, ApiError> {
    let internal = |why: String| ApiError::new(Code::Internal, why);
    let filename = transcript.filename.clone();
    if let Some(name) = &transcript.storage {
        let bucket = bucket(host, name, None).await.map_err(internal)?;
        let stored = bucket.put(&filename, bytes, CONTENT_TYPE).await;
        return stored.map(Some).map_err(|why| internal(format!("the storage {name}: {why}")));
    }
    let disk = host.clone();
    let written = tokio::task::spawn_blocking(move || disk.storages.local.put(&filename, &bytes)).await;
    let failed = |why: String| internal(format!("{} cannot be written: {why}", transcript.filename));
    written.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
    Ok(None)
}

/// Where files can be fetched; empty where that cannot be said at present, or not within this time.
pub(crate) async fn urls(
    transcripts: &Transcripts,
    host: &Arc<Host>,
    files: &[StoredTranscript],
    within: Duration,
) -> Vec<String> {
    let deadline = tokio::time::Instant::now() + within;
    let (mut urls, mut error) = (vec![String::new(); files.len()], None);
    let (mut buckets, mut signing) = (HashMap::new(), JoinSet::new());
    let turns = Arc::new(Semaphore::new(SIGNED_AT_ONCE));
    for (n, file) in files.iter().enumerate() {
        let (Some(name), Some(place)) = (&file.storage, &file.place) else {
            urls[n] = host.storages.local.url(&file.egress_id, &file.filename, now());
            continue;
        };
        if file.is_external {
            urls[n].clone_from(&place.url);
            continue;
        }
        let known = match buckets.entry((name, &place.bucket)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(free) => free.insert(bucket(host, name, Some(place)).await),
        };
        match known.clone() {
            Ok(bucket) => {
                let (name, place, turns) = (name.clone(), place.clone(), turns.clone());
                signing.spawn(async move {
                    let _turn = turns.acquire_owned().await;
                    let url = bucket.signed_url(&place, URL_TIME).await;
                    (n, url.map_err(|why| format!("the storage {name}: {why}")))
                });
            }
            Err(why) => error = Some(why),
        }
    }
    loop {
        match tokio::time::timeout_at(deadline, signing.join_next()).await {
            Ok(None) => break,
            Ok(Some(Ok((n, Ok(url))))) => urls[n] = url,
            Ok(Some(Ok((_, Err(why))))) => error = Some(why),
            Ok(Some(Err(panic))) => error = Some(panic.to_string()),
            Err(_) => {
                error = Some(format!("a storage does not sign within {} ms", within.as_millis()));
                break;
            }
        }
    }
    if let Some(error) = error
        && let Some(others) = transcripts.unsigned.is_due(Instant::now())
    {
        tracing::error!("URLs of transcripts: {error}; {others} failures before it were not logged");
    }
    urls
}

async fn delete_expired(transcripts: &Transcripts, host: &Arc<Host>) {
    // Those that cannot be deleted stay in front of the others.
    let mut left = 0;
    loop {
        let expired = host.read(move |change| Ok(change.store.expired_files(change.now, left, EXPIRED_AT_ONCE)?)).await;
        let expired = match expired {
            Ok(expired) if expired.is_empty() => return,
            Ok(expired) => expired,
            Err(error) => return tracing::error!("transcripts whose time is over: {error}"),
        };
        for transcript in expired {
            let Err(error) = delete(host, &transcript).await else { continue };
            left += 1;
            if let Some(others) = transcripts.undeleted.is_due(Instant::now()) {
                let name = transcript.filename;
                tracing::error!("{name}, whose time is over: {error}; {others} failures before it were not logged");
            }
        }
    }
}

/// Deletes a file of default storage, and its place in the list.
///
/// # Errors
/// Why it is still there.
pub(crate) async fn delete(host: &Arc<Host>, transcript: &StoredTranscript) -> Result<(), String> {
    match (&transcript.storage, &transcript.place) {
        (Some(name), Some(place)) => {
            let deleted = bucket(host, name, Some(place)).await?.delete(place).await;
            deleted.map_err(|why| format!("the storage {name}: {why}"))?;
        }
        _ => host.storages.local.delete(&transcript.filename).map_err(|error| error.to_string())?,
    }
    let egress_id = transcript.egress_id.clone();
    let forgotten = host.run(move |change| Ok(change.store.forget_file(&egress_id)?)).await;
    forgotten.map_err(|error| error.message)
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

    #[tokio::test]
    async fn what_is_under_way_or_waits_for_its_storage_has_no_turn_and_what_failed_has_a_later_one() {
        let storage = |n: usize| ["local", "lost"][n % 2].to_string();
        let found = |n: usize| StoredTranscript {
            egress_id: format!("{n:02}"),
            cid: Cid::new("default", "c").unwrap(),
            session_id: String::new(),
            start_time: Timestamp::EPOCH,
            end_time: Timestamp::EPOCH,
            filename: String::new(),
            storage: Some(storage(n)),
            is_external: true,
            place: None,
            has_failed: false,
        };
        let mut work = Work::default();
        work.add((0..30).map(found).collect());
        work.add((0..30).map(found).collect());
        let names = |work: &Work| -> Vec<String> { work.turns().into_iter().map(|(_, egress_id)| egress_id).collect() };
        assert_eq!(names(&work), (0..30).map(|n| format!("{n:02}")).collect::<Vec<_>>(), "in their order, each once");
        // A storage that takes no more has no turn: nobody wakes up for it.
        for n in (0..30).filter(|n| n % 2 == 1).take(MOST_AT_ONCE) {
            let of = work.unfinished.get_mut(&format!("{n:02}")).unwrap();
            of.is_under_way = true;
            let attempt = work.attempts.spawn(async move {
                assert!(n != 3, "a fault");
                if n == 1 { Ok(()) } else { Err(ApiError::new(Code::Internal, "lost")) }
            });
            work.under_way.insert(attempt.id(), format!("{n:02}"));
        }
        assert!(names(&work).iter().all(|name| name.parse::<usize>().unwrap() % 2 == 0));
        let before = Instant::now();
        while let Some(ended) = work.attempts.join_next_with_id().await {
            work.ended(ended);
        }
        assert!(work.under_way.is_empty());
        let turns = work.turns();
        assert_eq!(turns.len(), 29, "all but the one that is finished, also the one whose attempt panicked");
        assert_eq!(turns.iter().filter(|(due, _)| *due > before).count(), MOST_AT_ONCE - 1);
    }
}
