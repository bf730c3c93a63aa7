//! One file into the cache: fetched under a lock into `blobs/HASH.incomplete`, gone on with where it broke off, checked,
//! renamed.
//!
//! In: what the hub says of a file. Out: `blobs/HASH`, and later a link to it. What is broken off stays for the next
//! time; what is wrong is removed.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use super::Screen;
use super::checksum::{Checksum, Hasher};
use super::client::{Client, Patience, Problem};
use crate::Failure;
use crate::cache::RepoId;

const BLOCK_BYTES: usize = 128 * 1024;

pub(super) struct RemoteFile<'a> {
    pub(super) id: &'a RepoId,
    pub(super) commit: &'a str,
    pub(super) name: &'a str,
    pub(super) checksum: Checksum,
    pub(super) size: u64,
}

pub(super) struct Download<'a> {
    client: &'a Client,
    blobs: PathBuf,
    locks: PathBuf,
    screen: &'a Screen,
}

/// The part that is here, and the hash of it.
struct Part {
    file: File,
    path: PathBuf,
    hasher: Hasher,
    bytes: u64,
}

impl<'a> Download<'a> {
    pub(super) fn new(client: &'a Client, blobs: PathBuf, locks: PathBuf, screen: &'a Screen) -> Result<Self, Failure> {
        for folder in [&blobs, &locks] {
            fs::create_dir_all(folder).map_err(disk(folder))?;
        }
        Ok(Self { client, blobs, locks, screen })
    }

    /// Fetches a file unless it is here.
    pub(super) fn blob(&self, remote: &RemoteFile<'_>) -> Result<(), Failure> {
        let hash = remote.checksum.as_str();
        let blob = self.blobs.join(hash);
        // Held to the end: another program that fetches the same file waits, as this one does.
        let _lock = self.lock(&self.locks.join(format!("{hash}.lock")), remote.name)?;
        if fs::metadata(&blob).is_ok_and(|found| found.is_file() && found.len() == remote.size) {
            self.screen.add(remote.size);
            return Ok(());
        }
        let part = self.blobs.join(format!("{hash}.incomplete"));
        let (mut right, resumed) = self.transfer(remote, &part)?;
        if !right && resumed {
            self.screen.note(&format!("{}: the part that was here was damaged, it is fetched anew", remote.name));
            (right, _) = self.transfer(remote, &part)?;
        }
        if !right {
            return Err(Failure(format!(
                "{}/{}: what came is not what the hub promised (checksum {hash}); it was removed",
                remote.id, remote.name
            )));
        }
        fs::rename(&part, &blob).map_err(disk(&blob))
    }

    fn lock(&self, path: &Path, name: &str) -> Result<File, Failure> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(disk(path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                self.screen.note(&format!("{name}: another program is fetching it; waiting for it"));
                file.lock().map_err(disk(path))?;
            }
            // Some network drives have no locks. The checksum guards what is written without.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(disk(path)(error)),
        }
        Ok(file)
    }

    /// Brings the part to its full size. Whether its checksum is right (else it is removed), and whether some of it was
    /// here before.
    fn transfer(&self, remote: &RemoteFile<'_>, path: &Path) -> Result<(bool, bool), Failure> {
        let mut part = Part::open(path, remote).map_err(disk(path))?;
        let resumed = part.bytes > 0;
        self.screen.add(part.bytes);
        let mut patience = Patience::default();
        while part.bytes < remote.size {
            let before = part.bytes;
            if let Err(problem) = self.stream(remote, &mut part) {
                if part.bytes > before {
                    patience.reset();
                }
                patience.bear(problem, self.screen).map_err(|problem| match problem {
                    Problem::Lasting(failure) => failure,
                    Problem::Passing { what, .. } => Failure(format!(
                        "{}/{}: {what}. {} of {} bytes are here; the same command goes on from there",
                        remote.id, remote.name, part.bytes, remote.size
                    )),
                })?;
            }
        }
        part.file.sync_all().map_err(disk(path))?;
        let is_right = part.hasher.finish() == remote.checksum.as_str();
        if !is_right {
            self.screen.take_back(part.bytes);
            fs::remove_file(path).map_err(disk(path))?;
        }
        Ok((is_right, resumed))
    }

    /// One request's worth of a file.
    fn stream(&self, remote: &RemoteFile<'_>, part: &mut Part) -> Result<(), Problem> {
        let response = self.client.open(remote.id, remote.commit, remote.name, part.bytes)?;
        let range = response.headers().get("content-range").and_then(|value| value.to_str().ok()).unwrap_or("");
        let is_next = range.starts_with(&format!("bytes {}-", part.bytes));
        match response.status().as_u16() {
            206 if is_next => {}
            200 => self.restart(remote, part)?,
            status => {
                self.restart(remote, part)?;
                return Err(Problem::passing(format!(
                    "the host of the file does not go on where it broke off ({status})"
                )));
            }
        }
        let mut body = response.into_body().into_reader();
        let mut block = vec![0; BLOCK_BYTES];
        while part.bytes < remote.size {
            let n = match body.read(&mut block) {
                Ok(0) => return Err(Problem::passing("the transfer ended early".to_string())),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Problem::passing(format!("the transfer broke off ({error})"))),
            };
            if n as u64 > remote.size - part.bytes {
                let _ = self.restart(remote, part);
                let (id, name, size) = (remote.id, remote.name, remote.size);
                return Err(
                    Failure(format!("{id}/{name}: more comes than the {size} bytes that the hub promised")).into()
                );
            }
            part.file.write_all(&block[..n]).map_err(disk(&part.path))?;
            part.hasher.update(&block[..n]);
            part.bytes += n as u64;
            self.screen.add(n as u64);
        }
        Ok(())
    }

    fn restart(&self, remote: &RemoteFile<'_>, part: &mut Part) -> Result<(), Failure> {
        self.screen.take_back(part.bytes);
        part.restart(remote).map_err(disk(&part.path))
    }
}

impl Part {
    fn open(path: &Path, remote: &RemoteFile<'_>) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let hasher = remote.checksum.hasher(remote.size);
        let mut part = Self { file, path: path.to_path_buf(), hasher, bytes: 0 };
        let here = part.file.metadata()?.len();
        if here > remote.size {
            part.restart(remote)?;
            return Ok(part);
        }
        let mut block = vec![0; BLOCK_BYTES];
        while part.bytes < here {
            match part.file.read(&mut block)? {
                0 => break,
                n => {
                    part.hasher.update(&block[..n]);
                    part.bytes += n as u64;
                }
            }
        }
        Ok(part)
    }

    fn restart(&mut self, remote: &RemoteFile<'_>) -> io::Result<()> {
        // What is no ordinary file cannot be cut, and has no length.
        if self.file.metadata()?.len() > 0 {
            self.file.set_len(0)?;
        }
        self.file.seek(SeekFrom::Start(0))?;
        self.hasher = remote.checksum.hasher(remote.size);
        self.bytes = 0;
        Ok(())
    }
}

/// Makes `pointer`, in a snapshot's folder, stand for the blob of this hash.
pub(super) fn link(blobs: &Path, hash: &str, pointer: &Path) -> io::Result<()> {
    // Made beside the blob and renamed: whoever does the same at the same time finds nothing in the way.
    let part = blobs.join(format!("{hash}.{}.tmp", std::process::id()));
    let _ = fs::remove_file(&part);
    // snapshots/COMMIT/name → blobs/HASH: relative, so that the cache can be moved.
    let target: PathBuf = ["..", "..", "blobs", hash].iter().collect();
    #[cfg(unix)]
    let linked = std::os::unix::fs::symlink(&target, &part);
    #[cfg(windows)]
    let linked = std::os::windows::fs::symlink_file(&target, &part);
    #[cfg(not(any(unix, windows)))]
    let linked: io::Result<()> = Err(io::ErrorKind::Unsupported.into());
    // Windows lets few users make links, and some drives have none: then the file is there twice, or in name.
    let blob = blobs.join(hash);
    linked.or_else(|_| fs::hard_link(&blob, &part)).or_else(|_| fs::copy(&blob, &part).map(drop))?;
    let placed = fs::rename(&part, pointer);
    // Between two names of one file a rename does nothing.
    let _ = fs::remove_file(&part);
    placed
}

/// Says what could not be written, and what to do about a full disk.
pub(super) fn disk(path: &Path) -> impl Fn(io::Error) -> Failure {
    let path = path.display().to_string();
    move |error| {
        let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let hint = if full {
            "; make room, or set HF_HUB_CACHE to another disk: what is fetched is kept, and the same command goes on \
             from there"
        } else {
            ""
        };
        Failure(format!("cannot write {path}: {error}{hint}"))
    }
}
