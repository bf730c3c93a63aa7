//! A transcript's journal: a file that outlives its writer, wherever that was interrupted.
//!
//! In: [`Fragment`]s, one after the other. Out: a [`jsonl`] file of them, each line whole, and at the end the finished file.
//! This is the one part of [`transcript`](super) that knows files.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use super::lines::Lines;
use super::{Fragment, MAX_LINE_BYTES, ReadError, jsonl, sort};

/// When what was written is on disk, so that it survives a loss of power. The end of the process it survives in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Sync {
    /// With each fragment, before it is acknowledged: nothing that was acknowledged is lost.
    #[default]
    Each,
    /// About once a second: what was acknowledged in the last second may be lost.
    Second,
    /// When the system likes: no promise.
    Never,
}

/// How long [`Sync::Second`] leaves something unsynced.
const SECOND: Duration = Duration::from_secs(1);

impl Sync {
    /// All policies, from the safest to the fastest.
    pub const ALL: [Self; 3] = [Self::Each, Self::Second, Self::Never];

    const fn name(self) -> &'static str {
        match self {
            Self::Each => "each",
            Self::Second => "second",
            Self::Never => "never",
        }
    }
}

impl fmt::Display for Sync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A policy is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sync is `{name}`: allowed are {}", Sync::ALL.map(Sync::name).join(", "))]
pub struct UnknownSync {
    name: String,
}

impl FromStr for Sync {
    type Err = UnknownSync;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|sync| sync.name() == text);
        found.ok_or_else(|| UnknownSync { name: text.chars().take(40).collect() })
    }
}

/// A journal cannot be opened, written or finished. What was acknowledged is still there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The file holds something else. It was left as it is.
    #[error("{} is no journal: it begins with something else; give another name, or move the file away", path.display())]
    NotAJournal {
        /// The file.
        path: PathBuf,
    },
    /// Another one is open on it, perhaps in another process.
    #[error("{} is written by somebody else: give another name, or end the other one", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The fragment has no place in a journal: readers would leave its line out. Nothing was written.
    #[error("a line of {} would have {bytes} bytes: allowed are {MAX_LINE_BYTES}", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Of the line.
        bytes: usize,
    },
    /// The system says no.
    #[error("cannot {doing} {}: {source}{}", path.display(), advice(source))]
    Io {
        /// What was tried: open, read, write, …
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// What to do about it.
fn advice(error: &io::Error) -> &'static str {
    use io::ErrorKind::{
        FileTooLarge, NotADirectory, NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
    };
    match error.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => {
            "; make room: what was acknowledged is kept, and it goes on once there is room"
        }
        ReadOnlyFilesystem | PermissionDenied => "; give a folder that may be written",
        NotFound | NotADirectory => "; give a folder that is there",
        _ => "",
    }
}

/// What a journal held when it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovered {
    /// Fragments that are there.
    pub fragments: u64,
    /// Bytes behind the last whole line, which were cut off: of a line whose writer was interrupted, and so never acknowledged.
    pub cut_bytes: u64,
    /// Lines between whole ones that cannot be read: a loss of power under another policy than [`Sync::Each`], or somebody
    /// else. They are left where they are, and left out of the finished file.
    pub unreadable: u64,
}

/// A transcript that grows. A fragment is acknowledged when [`append`](Self::append) has returned `Ok`.
///
/// ```
/// use cuewire::transcript::{Fragment, Journal, Sync};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = std::env::temp_dir().join(format!("cuewire-journal-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// # let path = folder.join("monday.journal");
/// let (mut journal, recovered) = Journal::open(&path, Sync::Each)?; // goes on behind what is there
/// # assert_eq!(recovered.fragments, 0);
/// journal.append(&Fragment { speaker_id: "alice".into(), text: "hello".into(), ..Fragment::default() })?;
/// journal.finish(&path.with_extension("jsonl"))?; // in order of time; the journal is gone
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok(())
/// # }
/// ```
///
/// After an error the file holds what was acknowledged and perhaps more, which the next append cuts off first: whoever tries
/// the same fragment again has it once. Where the process ended inside an append, its fragment is there or it is not;
/// [`Recovered::fragments`] says which.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    sync: Sync,
    /// Length of what was acknowledged.
    whole_bytes: u64,
    /// Whether there may be more in the file.
    is_torn: bool,
    fragments: u64,
    /// Since when something has not been synced that is to be.
    unsynced: Option<Instant>,
}

impl Journal {
    /// Opens the journal in this file, or begins one. What a crash left behind the last whole line is cut off.
    ///
    /// # Errors
    /// [`JournalError`]; a file that is no journal is not touched.
    pub fn open(path: &Path, sync: Sync) -> Result<(Self, Recovered), JournalError> {
        let path = path.to_path_buf();
        let file = open_alone(&path)?;
        let length = file.metadata().map_err(failed("read", &path))?.len();
        let found = scan(&file).map_err(failed("read", &path))?;
        // Of lines of other types alone it is somebody else's.
        if found.fragments == 0 && !is_torn_line(&file).map_err(failed("read", &path))? {
            return Err(JournalError::NotAJournal { path });
        }
        let mut journal = Self {
            file,
            path,
            sync,
            whole_bytes: found.whole_bytes,
            is_torn: length > found.whole_bytes,
            fragments: found.fragments,
            unsynced: None,
        };
        journal.mend()?;
        if found.is_unended {
            journal.is_torn = true;
            journal.file.write_all(b"\n").map_err(failed("write", &journal.path))?;
            (journal.is_torn, journal.whole_bytes) = (false, journal.whole_bytes + 1);
        }
        if sync != Sync::Never {
            // Also what its last writer had not synced, and its name.
            journal.file.sync_all().and_then(|()| sync_folder(&journal.path)).map_err(failed("sync", &journal.path))?;
        }
        let Found { fragments, unreadable, .. } = found;
        Ok((journal, Recovered { fragments, cut_bytes: length - found.whole_bytes, unreadable }))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many fragments it holds.
    #[must_use]
    pub fn fragments(&self) -> u64 {
        self.fragments
    }

    /// Adds a fragment, and returns when it is as safe as the policy says.
    ///
    /// # Errors
    /// [`JournalError::TooLong`]; [`JournalError::Io`]: then the fragment is not acknowledged, and may be tried again.
    pub fn append(&mut self, fragment: &Fragment) -> Result<(), JournalError> {
        self.mend()?;
        // Before anything is written: a failure is that of fragments before this one, which are not tried again.
        self.sync_if_due()?;
        let line = jsonl::line(fragment).map_err(failed("write", &self.path))?;
        if line.len() > MAX_LINE_BYTES + 1 {
            return Err(JournalError::TooLong { path: self.path.clone(), bytes: line.len() - 1 });
        }
        self.is_torn = true;
        let written = self.file.write_all(&line);
        let safe = written.and_then(|()| if self.sync == Sync::Each { self.file.sync_data() } else { Ok(()) });
        if let Err(source) = safe {
            // Where that fails too, the next append does it.
            let _ = self.mend();
            return Err(failed("write", &self.path)(source));
        }
        self.is_torn = false;
        self.whole_bytes += line.len() as u64;
        self.fragments += 1;
        if self.sync == Sync::Second {
            self.unsynced.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    /// When [`sync_if_due`](Self::sync_if_due) has something to do; `None` where all is as safe as the policy says.
    #[must_use]
    pub fn sync_due(&self) -> Option<Instant> {
        self.unsynced.map(|since| since + SECOND)
    }

    /// Under [`Sync::Second`], syncs what has waited for a second. Each append does it too: call this at
    /// [`sync_due`](Self::sync_due) where nothing may be said for long.
    ///
    /// # Errors
    /// [`JournalError::Io`]: it is tried again.
    pub fn sync_if_due(&mut self) -> Result<(), JournalError> {
        match self.unsynced {
            Some(since) if since.elapsed() >= SECOND => self.sync(),
            _ => Ok(()),
        }
    }

    /// Syncs all that was acknowledged, whatever the policy.
    ///
    /// # Errors
    /// [`JournalError::Io`]: it is tried again.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        self.file.sync_data().map_err(failed("sync", &self.path))?;
        self.unsynced = None;
        Ok(())
    }

    /// All that was acknowledged, in the order in which it came.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn read(&self) -> Result<Vec<Fragment>, JournalError> {
        let mut file = &self.file;
        file.rewind().map_err(failed("read", &self.path))?;
        let mut fragments = Vec::new();
        for fragment in jsonl::Reader::new(BufReader::new(file.take(self.whole_bytes))) {
            match fragment {
                Ok(fragment) => fragments.push(fragment),
                Err(ReadError::Io { source, .. }) => return Err(failed("read", &self.path)(source)),
                // Counted when it was opened.
                Err(_) => {}
            }
        }
        Ok(fragments)
    }

    /// Writes the finished file, in [`Fragment::transcript_order`], and removes the journal. `target` is replaced at once: it is
    /// what it was, or whole, wherever this is interrupted; the journal goes after that. `target` may be the journal itself.
    ///
    /// # Errors
    /// [`JournalError::Io`]: the journal is there, unless it is what could not be removed. Where the error is of writing,
    /// `target` is what it was: open the journal again to go on, or to try again. Where it is of syncing or removing,
    /// `target` is whole.
    pub fn finish(mut self, target: &Path) -> Result<(), JournalError> {
        self.mend()?;
        let mut fragments = self.read()?;
        sort(&mut fragments);
        // A name that the next try finds again: what is killed leaves one such file, not many.
        let mut part = target.as_os_str().to_os_string();
        part.push(".part");
        let part = PathBuf::from(part);
        let written = self.write_part(&part, &fragments).and_then(|()| fs::rename(&part, target));
        if let Err(source) = written {
            let _ = fs::remove_file(&part);
            return Err(failed("write", target)(source));
        }
        let sync = self.sync;
        if sync != Sync::Never {
            sync_folder(target).map_err(failed("sync", target))?;
        }
        if !is_same(&self.path, target) {
            fs::remove_file(&self.path).map_err(failed("remove", &self.path))?;
        }
        self.unsynced = None;
        Ok(())
    }

    fn write_part(&self, part: &Path, fragments: &[Fragment]) -> io::Result<()> {
        let file = File::create(part)?;
        file.set_permissions(self.file.metadata()?.permissions())?;
        let mut writer = BufWriter::new(file);
        fragments.iter().try_for_each(|fragment| jsonl::write_fragment(&mut writer, fragment))?;
        let file = writer.into_inner()?;
        if self.sync == Sync::Never { Ok(()) } else { file.sync_all() }
    }

    /// Cuts off what was not acknowledged.
    fn mend(&mut self) -> Result<(), JournalError> {
        if self.is_torn {
            self.file.set_len(self.whole_bytes).map_err(failed("mend", &self.path))?;
            self.is_torn = false;
        }
        Ok(())
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if self.unsynced.is_some() {
            // Nobody is left to be told.
            let _ = self.file.sync_data();
        }
        // Else it would be in use for as long as a process has the file that is being started at this moment.
        let _ = self.file.unlock();
    }
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    let path = path.to_path_buf();
    move |source| JournalError::Io { doing, path, source }
}

/// The file of this name, or a new one, which nobody else writes from now on.
fn open_alone(path: &Path) -> Result<File, JournalError> {
    // As often as somebody else finishes in between.
    const TRIES: u32 = 25;
    for _ in 0..TRIES {
        let opened = OpenOptions::new().read(true).append(true).create(true).open(path);
        let file = opened.map_err(failed("open", path))?;
        if !is_free(&file) {
            break;
        }
        if has_name(&file, path).map_err(failed("open", path))? {
            return Ok(file);
        }
    }
    Err(JournalError::InUse { path: path.to_path_buf() })
}

/// Whether this is still the file of that name. Who had it when it was opened may have finished before it was free: what is
/// written to a file without a name is lost.
#[cfg(unix)]
fn has_name(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let opened = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (opened.dev(), opened.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Elsewhere a file that is open keeps its name.
#[cfg(not(unix))]
fn has_name(_: &File, _: &Path) -> io::Result<bool> {
    Ok(true)
}

/// Whether nobody else writes the file, who does not from now on either.
fn is_free(file: &File) -> bool {
    // Who was killed while it started a process: that one has its files for a moment.
    const TRIES: u32 = 25;
    const BETWEEN: Duration = Duration::from_millis(20);
    for _ in 0..TRIES {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(BETWEEN),
            // Some file systems have no locks.
            Ok(()) | Err(TryLockError::Error(_)) => return true,
        }
    }
    false
}

/// A file's name is on disk when its folder is.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Elsewhere folders cannot be opened, and need not be.
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

fn is_same(one: &Path, other: &Path) -> bool {
    one == other || matches!((fs::canonicalize(one), fs::canonicalize(other)), (Ok(one), Ok(other)) if one == other)
}

/// What a file holds.
#[derive(Default)]
struct Found {
    /// Up to the end of the last whole line.
    whole_bytes: u64,
    /// Whether that line is whole but for its end.
    is_unended: bool,
    fragments: u64,
    unreadable: u64,
}

fn scan(file: &File) -> io::Result<Found> {
    let mut lines = Lines::new(BufReader::new(file));
    let mut found = Found::default();
    // Behind the last whole line.
    let mut unreadable = 0;
    loop {
        let fragments = match lines.read() {
            Ok(None) => return Ok(found),
            Ok(Some(line)) => {
                let (is_unended, content) = (!line.ended, line.without_zeros().len() as u64);
                let is_blank = line.without_zeros().trim_ascii().is_empty();
                let end = line.offset + content;
                match jsonl::fragment(&line) {
                    Ok(fragment) if !is_blank => {
                        (found.is_unended, found.whole_bytes) = (is_unended, end);
                        Some(u64::from(fragment.is_some()))
                    }
                    _ => None,
                }
            }
            Err(ReadError::Io { source, .. }) => return Err(source),
            Err(_) => None,
        };
        match fragments {
            Some(fragments) => {
                if !found.is_unended {
                    found.whole_bytes = lines.offset();
                }
                found.fragments += fragments;
                found.unreadable += std::mem::take(&mut unreadable);
            }
            None => unreadable += 1,
        }
    }
}

/// Whether a file without a fragment is one of which the first was not written to its end, and no other file.
fn is_torn_line(mut file: &File) -> io::Result<bool> {
    const BEGIN: &[u8] = br#"{"type":"speech""#;
    file.rewind()?;
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    reader.by_ref().take(MAX_LINE_BYTES as u64 + 1).read_until(0, &mut line)?;
    // Room that was given and never written to. Text has no zeros, and with an end it would be a line.
    line.pop_if(|byte| *byte == 0);
    loop {
        let rest = reader.fill_buf()?;
        if rest.is_empty() {
            return Ok((BEGIN.starts_with(&line) || line.starts_with(BEGIN)) && !line.contains(&b'\n'));
        }
        if rest.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        let read = rest.len();
        reader.consume(read);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caption::testing::fragment;

    #[test]
    fn a_policy_is_known_by_its_name() {
        for sync in Sync::ALL {
            assert_eq!(sync.to_string().parse::<Sync>().unwrap(), sync);
        }
        let error = "always".parse::<Sync>().unwrap_err().to_string();
        assert_eq!(error, "sync is `always`: allowed are each, second, never");
    }

    #[test]
    fn an_append_that_failed_half_way_is_cut_off_before_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("call.journal");
        let (mut journal, _) = Journal::open(&path, Sync::Never).unwrap();
        journal.append(&fragment(0, 1, "alice", "one")).unwrap();
        // As a full disk leaves it, where not even cutting went.
        journal.file.write_all(b"{\"type\":\"spe").unwrap();
        journal.is_torn = true;
        assert_eq!(journal.read().unwrap().len(), 1);
        journal.append(&fragment(1, 2, "alice", "two")).unwrap();
        drop(journal);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(jsonl::Reader::new(text.as_bytes()).map(Result::unwrap).count(), 2, "{text}");
    }

    #[test]
    fn what_waits_for_its_second_is_synced_then_and_not_sooner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("call.journal");
        let (mut journal, _) = Journal::open(&path, Sync::Second).unwrap();
        journal.append(&fragment(0, 1, "alice", "one")).unwrap();
        journal.sync_if_due().unwrap();
        assert!(journal.sync_due().is_some());
        journal.unsynced = Instant::now().checked_sub(SECOND);
        journal.sync_if_due().unwrap();
        assert!(journal.unsynced.is_none() && journal.sync_due().is_none());
    }
}
