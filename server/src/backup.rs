//! A copy of the data folder, also while a server runs over it.
//!
//! In: the folder. Out: another one, over which a server can be started: with all that was committed when it was begun.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, params};

use crate::keys::{make_folder, owned_file};

/// A copy could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// There is no database to copy.
    #[error("there is no database in {}: it is not a data folder of `cuewire serve`", .0.display())]
    NoData(PathBuf),
    /// Where it should go there is something.
    #[error("{} is there already and not empty: name another folder", .0.display())]
    NotEmpty(PathBuf),
    /// The database cannot be read, or its copy not be written.
    #[error("the database: {0}")]
    Database(#[from] rusqlite::Error),
    /// A file cannot be read, or its copy not be written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Transcripts.
    pub files: u64,
    /// Bytes of it all.
    pub bytes: u64,
}

/// Copies a data folder into a new one. First the database, as of one moment, then files: what was finished in between is in the
/// journal of the copy too, and is finished there once more.
///
/// # Errors
/// [`BackupError`]; what was written by then stays.
pub fn backup(data_dir: &Path, to: &Path) -> Result<Backup, BackupError> {
    let at = |path: &Path| {
        let path = path.to_path_buf();
        move |source| BackupError::File { path, source }
    };
    let database = data_dir.join("cuewire.db");
    if !database.is_file() {
        return Err(BackupError::NoData(data_dir.to_path_buf()));
    }
    make_folder(to).map_err(at(to))?;
    if fs::read_dir(to).map_err(at(to))?.next().is_some() {
        return Err(BackupError::NotEmpty(to.to_path_buf()));
    }
    let copy = to.join("cuewire.db");
    // SQLite takes an empty file for none, and leaves it its mode.
    owned_file().write(true).create_new(true).open(&copy).map_err(at(&copy))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&database, flags)?;
    connection.execute("VACUUM INTO ?1", params![copy.to_string_lossy()])?;
    let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all()).map_err(at(path));
    sync(&copy)?;
    let mut done = Backup { files: 0, bytes: copy.metadata().map_err(at(&copy))?.len() };

    let (from_files, to_files) = (data_dir.join("transcripts"), to.join("transcripts"));
    make_folder(&to_files).map_err(at(&to_files))?;
    let mut files: Vec<(PathBuf, PathBuf)> =
        ["api_key.json", "url_key"].iter().map(|name| (data_dir.join(name), to.join(name))).collect();
    if from_files.is_dir() {
        for entry in fs::read_dir(&from_files).map_err(at(&from_files))? {
            let path = entry.map_err(at(&from_files))?.path();
            if path.extension().is_some_and(|extension| extension == "jsonl") {
                files.push((path.clone(), to_files.join(path.file_name().unwrap_or_default())));
            }
        }
    }
    for (from, to) in files {
        let mut source = match File::open(&from) {
            Ok(source) => source,
            // It was deleted meanwhile, or was never there: a key that the environment gives.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(BackupError::File { path: from, source }),
        };
        let mut copy = owned_file().write(true).create_new(true).open(&to).map_err(at(&to))?;
        done.bytes +=
            io::copy(&mut source, &mut copy).and_then(|bytes| copy.sync_all().map(|()| bytes)).map_err(at(&to))?;
        done.files += u64::from(to.starts_with(&to_files));
    }
    sync(&to_files)?;
    sync(to)?;
    Ok(done)
}
