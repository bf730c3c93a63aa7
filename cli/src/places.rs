//! Where a run will write, checked before it begins: what it reads survives it, and no work is done for nothing.
//!
//! In: what is read, and what will be written. Out: an error, and the disk as it was.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::args::TranscribeArgs;
use crate::output::Destination;
use crate::tracks::Input;

/// Which file a path leads to.
#[derive(PartialEq, Eq, Hash)]
enum Identity {
    /// One that exists, by whatever name.
    #[cfg(unix)]
    File {
        device: u64,
        inode: u64,
    },
    Path(PathBuf),
}

/// Refuses a place that is read too, that two things would be written to, or that cannot be written.
pub(crate) fn check(args: &TranscribeArgs, inputs: &[Input], destination: &Destination) -> Result<(), String> {
    let mut taken = HashMap::new();
    let model = args.recognition.model.iter().filter(|path| path.is_file());
    for (path, what) in (inputs.iter().map(|input| (input.path.as_path(), "the input")))
        .chain(args.recognition.files().map(|path| (path, "the list")))
        .chain(model.map(|path| (path.as_path(), "the model")))
    {
        let real = if path == Path::new("-") { Path::new("/dev/stdin") } else { path };
        identity(real).map(|identity| taken.insert(identity, format!("{what} {}", path.display())));
    }
    let folder = destination.folder().filter(|folder| !folder.exists());
    if let Some(folder) = folder {
        probe_folder(folder).map_err(|error| format!("cannot make the folder {}: {error}", folder.display()))?;
    }
    let stats = args.stats.iter().map(|path| (path.clone(), "--stats".to_string()));
    for (path, what) in destination.targets(inputs).into_iter().chain(stats) {
        let shown = path.display();
        if let Some(identity) = identity(&path)
            && let Some(other) = taken.insert(identity, what.clone())
        {
            return Err(format!("{shown} cannot be both {other} and {what}: name another file"));
        }
        // What will be in a folder that is not there yet has been checked with it.
        if folder.is_none_or(|folder| canonical(&path).parent() != Some(&canonical(folder))) {
            probe(&path).map_err(|error| format!("cannot write {shown}: {error}"))?;
        }
    }
    Ok(())
}

/// `None` for pipes and devices, which no write destroys.
fn identity(path: &Path) -> Option<Identity> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => None,
        #[cfg(unix)]
        Ok(metadata) => {
            use std::os::unix::fs::MetadataExt as _;
            Some(Identity::File { device: metadata.dev(), inode: metadata.ino() })
        }
        _ => Some(Identity::Path(canonical(path))),
    }
}

/// The path without links, as far as it exists.
fn canonical(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let real = path.ancestors().find_map(|ancestor| {
        let rest = path.strip_prefix(ancestor).ok()?;
        fs::canonicalize(ancestor).ok().map(|real| real.join(rest))
    });
    real.unwrap_or(path)
}

/// Whether a file can be written. Only making one tells, where there is none: it is taken away again.
fn probe(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Err(ErrorKind::IsADirectory.into()),
        Ok(metadata) if metadata.is_file() => OpenOptions::new().write(true).open(path).map(drop),
        Ok(_) => Ok(()),
        // A link that leads to a file that is not there yet.
        Err(error) if error.kind() == ErrorKind::NotFound && path.is_symlink() => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            OpenOptions::new().write(true).create_new(true).open(path).and_then(|_| fs::remove_file(path))
        }
        Err(error) => Err(error),
    }
}

/// The same of a folder that is not there.
fn probe_folder(folder: &Path) -> io::Result<()> {
    let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let first = folder.ancestors().take_while(is_missing).last().unwrap_or(folder);
    fs::create_dir(first).and_then(|()| fs::remove_dir(first))
}
