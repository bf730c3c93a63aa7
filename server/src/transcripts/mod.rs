//! From journal to finished file, and to whoever may fetch it.
//!
//! In: runs that are over. Out: one JSONL file each, `call.transcription_ready`, and URLs that are signed and expire.
//!
//! One thread, `cuewire-transcripts`, writes files: to the side, synced, renamed. What a crash left undone is done at the next
//! start. A file is deleted when its time is over.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use cuewire::time::Timestamp;
use cuewire::transcript::{jsonl, sort};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::api::error::{ApiError, Code};
use crate::call::Input;
use crate::host::{Host, now};
use crate::store::StoredTranscript;

/// What did not work is tried again after this.
const RETRY: Duration = Duration::from_secs(5);
/// How often files are looked for whose time is over.
const RETENTION: Duration = Duration::from_secs(60);
/// Nanoseconds that a URL does.
const URL_NANOS: i64 = 3600 * 1_000_000_000;

/// Where files are, and how they get there.
pub struct Transcripts {
    folder: PathBuf,
    kept_nanos: i64,
    wake: Mutex<Option<Sender<()>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Transcripts {
    /// In a folder, which is made where there is none; each file for `kept_nanos`.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn new(folder: PathBuf, kept_nanos: i64) -> io::Result<Self> {
        crate::keys::make_folder(&folder)?;
        Ok(Self { folder, kept_nanos, wake: Mutex::default(), thread: Mutex::default() })
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// Where the system starts no more threads.
    pub fn start(&self, host: &Arc<Host>) -> io::Result<()> {
        let (sender, wakes) = channel();
        let host = Arc::downgrade(host);
        let thread = std::thread::Builder::new().name("cuewire-transcripts".into());
        let thread = thread.spawn(move || work(&host, &wakes))?;
        *self.wake.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(())
    }

    /// There is something to finish.
    pub fn wake(&self) {
        if let Some(wake) = &*self.wake.lock().unwrap_or_else(PoisonError::into_inner) {
            // It is awake, or at its end.
            let _ = wake.send(());
        }
    }

    /// Finishes what there is, and ends.
    pub fn shutdown(&self) {
        drop(self.wake.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // A panic there was its own.
            let _ = thread.join();
        }
    }

    /// Where a file is. The name is cuewire's own: no client's text is ever part of a path.
    #[must_use]
    pub fn path(&self, filename: &str) -> PathBuf {
        self.folder.join(filename)
    }
}

fn work(host: &Weak<Host>, wakes: &Receiver<()>) {
    let mut next = Duration::ZERO;
    loop {
        let ended = matches!(wakes.recv_timeout(next), Err(RecvTimeoutError::Disconnected));
        while wakes.try_recv().is_ok() {}
        let Some(host) = host.upgrade() else { return };
        let finished = finish_all(&host).and_then(|()| delete_expired(&host));
        if let Err(error) = &finished {
            tracing::error!("transcripts: {error}; trying again in {RETRY:?}");
        }
        if ended {
            return;
        }
        next = if finished.is_ok() { RETENTION } else { RETRY };
    }
}

/// Does a job on the store's thread and waits for it.
fn wait<R: Send + 'static>(
    host: &Arc<Host>,
    job: impl FnOnce(&mut crate::host::Change<'_>) -> Result<R, ApiError> + Send + 'static,
) -> Result<R, ApiError> {
    let (sender, receiver) = channel();
    host.submit(job, move |result| drop(sender.send(result)));
    receiver.recv().unwrap_or_else(|_| Err(ApiError::new(Code::Internal, "a fault of the server's")))
}

fn finish_all(host: &Arc<Host>) -> Result<(), ApiError> {
    let mut all = Ok(());
    for transcript in wait(host, |change| Ok(change.store.unfinished_transcripts()?))? {
        // One that cannot be written holds up no other.
        all = all.and(finish(host, transcript));
    }
    all
}

fn finish(host: &Arc<Host>, transcript: StoredTranscript) -> Result<(), ApiError> {
    let egress_id = transcript.egress_id.clone();
    let lines = wait(host, move |change| Ok(change.store.fragments(&egress_id)?))?;
    let filename =
        format!("transcript_{}_{}_{}.jsonl", transcript.cid.call_type(), transcript.cid.id(), transcript.egress_id);
    let written = write(&host.transcripts.path(&filename), &lines.concat());
    written.map_err(|error| ApiError::new(Code::Internal, format!("{filename} cannot be written: {error}")))?;
    let expires_at = now().plus_nanos(host.transcripts.kept_nanos);
    let transcript = StoredTranscript { filename, ..transcript };
    let url = host.signer.url(&transcript, now());
    let (egress_id, cid) = (transcript.egress_id.clone(), transcript.cid.clone());
    wait(host, move |change| {
        change.store.file_written(&egress_id, &transcript.filename, expires_at)?;
        let transcript = transcript.with_url(url);
        change.tell(&cid, Input::TranscriptStored { egress_id, transcript })
    })
}

/// A whole file or none.
fn write(path: &Path, journal: &str) -> io::Result<()> {
    // A journal's lines are cuewire's own.
    let mut fragments: Vec<_> = jsonl::Reader::new(journal.as_bytes()).filter_map(Result::ok).collect();
    sort(&mut fragments);
    let part = path.with_extension("part");
    let mut file = File::create(&part)?;
    let mut text = Vec::new();
    fragments.iter().try_for_each(|fragment| jsonl::write_fragment(&mut text, fragment))?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&part, path)?;
    // The name is on disk when its folder is.
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn delete_expired(host: &Arc<Host>) -> Result<(), ApiError> {
    let expired = wait(host, |change| Ok(change.store.expired_files(change.now)?))?;
    let mut all = Ok(());
    for StoredTranscript { egress_id, filename, .. } in expired {
        let deleted = delete_file(host, &filename)
            .and_then(|()| wait(host, move |change| Ok(change.store.forget_file(&egress_id)?)));
        all = all.and(deleted);
    }
    all
}

/// Deletes a file; one that is gone already is no error.
pub(crate) fn delete_file(host: &Host, filename: &str) -> Result<(), ApiError> {
    match fs::remove_file(host.transcripts.path(filename)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::error!("{filename} cannot be deleted: {error}");
            Err(ApiError::new(Code::Internal, "the file cannot be deleted: the server's log says why"))
        }
        _ => Ok(()),
    }
}

/// Makes URLs that one file can be fetched with, for a while.
pub struct Signer {
    key: [u8; 64],
    public_url: String,
}

/// A URL does no longer do, or was never made here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadSignature;

impl Signer {
    /// With a key of its own; URLs begin with `public_url`.
    #[must_use]
    pub fn new(key: [u8; 64], public_url: &str) -> Self {
        Self { key, public_url: public_url.trim_end_matches('/').to_string() }
    }

    /// Where a file can be fetched from now on, for an hour.
    #[must_use]
    pub fn url(&self, transcript: &StoredTranscript, now: Timestamp) -> String {
        let StoredTranscript { egress_id, filename, .. } = transcript;
        let expires = now.plus_nanos(URL_NANOS).as_nanos() / 1_000_000_000;
        let signature = hex(&self.mac(egress_id, expires).finalize().into_bytes());
        format!("{}/transcripts/{egress_id}/{filename}?expires={expires}&signature={signature}", self.public_url)
    }

    /// Whether this URL's parts are what was signed, and still do.
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn check(&self, egress_id: &str, expires: &str, signature: &str, now: Timestamp) -> Result<(), BadSignature> {
        let expires: i64 = expires.parse().map_err(|_| BadSignature)?;
        let signature = unhex(signature).ok_or(BadSignature)?;
        // In constant time.
        self.mac(egress_id, expires).verify_slice(&signature).map_err(|_| BadSignature)?;
        if now.as_nanos() / 1_000_000_000 < expires { Ok(()) } else { Err(BadSignature) }
    }

    fn mac(&self, egress_id: &str, expires: i64) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new((&self.key).into());
        mac.update(format!("{egress_id}\n{expires}").as_bytes());
        mac
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
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

    use crate::call::Cid;

    fn transcript(egress_id: &str) -> StoredTranscript {
        StoredTranscript {
            cid: Cid::new("default", "c").unwrap(),
            egress_id: egress_id.into(),
            session_id: "s".into(),
            start_time: Timestamp::EPOCH,
            end_time: Timestamp::EPOCH,
            filename: "f.jsonl".into(),
        }
    }

    #[test]
    fn a_url_is_good_for_one_file_for_a_while() {
        let signer = Signer::new([7; 64], "https://captions.example/");
        let now = Timestamp::from_nanos(1_800_000_000_000_000_000);
        let url = signer.url(&transcript("one"), now);
        let (path, query) = url.split_once('?').unwrap();
        assert_eq!(path, "https://captions.example/transcripts/one/f.jsonl");
        let (expires, signature) = query.split_once('&').unwrap();
        let (expires, signature) = (expires.strip_prefix("expires=").unwrap(), signature.split_once('=').unwrap().1);
        let check = |egress_id: &str, expires: &str, signature: &str, now| {
            signer.check(egress_id, expires, signature, now).is_ok()
        };
        assert!(check("one", expires, signature, now));
        assert!(!check("two", expires, signature, now), "another file");
        assert!(!check("one", "1900000000", signature, now), "a later end");
        assert!(!check("one", expires, &signature.replace(|c: char| c.is_ascii_digit(), "0"), now));
        assert!(
            !check("one", expires, "", now) && !check("one", "", signature, now) && !check("one", expires, "zz", now)
        );
        assert!(!check("one", expires, signature, now.plus_nanos(URL_NANOS)), "too late");
        let other = Signer::new([8; 64], "https://captions.example");
        assert!(other.check("one", expires, signature, now).is_err(), "another key");
    }

    #[test]
    fn a_file_is_in_order_of_time_and_written_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.jsonl");
        let line = |at: u32, text: &str| {
            let fragment = cuewire::transcript::Fragment {
                start_time: Timestamp::from_nanos(at.into()),
                text: text.into(),
                ..Default::default()
            };
            let mut line = Vec::new();
            jsonl::write_fragment(&mut line, &fragment).unwrap();
            String::from_utf8(line).unwrap()
        };
        write(&path, &[line(2, "second"), line(1, "first")].concat()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), [line(1, "first"), line(2, "second")].concat());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
        write(&path, "").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "", "nobody spoke");
    }
}
