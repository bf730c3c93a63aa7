//! `cuewire model pull`: a model from the Hugging Face hub into the hub's own cache.
//!
//! In: a name and a revision, the environment's variables, the hub's answers. Out: `snapshots/COMMIT/` in the layout
//! that `huggingface_hub` reads and writes, whole or not at all, and its path on standard output.
//!
//! This is a client of our own on `ureq`. The `hf-hub` crate would bring an asynchronous runtime and a TLS library that
//! wants a C toolchain, and what takes the work here (resuming, checksums, where the token goes, what a listing may name,
//! errors that say what to do) would have to be written around it all the same. TLS is rustls with `graviola`: it is
//! by rustls' author, its assembler is s2n-bignum's proven one, and it builds with the Rust compiler alone. It knows
//! x86-64 and AArch64; elsewhere `https` is refused in words.

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cuewire::asr::whisper::lack;
use indicatif::{ProgressBar, ProgressStyle};

use crate::args::PullArgs;
use crate::cache::{self, Cache, RepoId, Revision};
use crate::output::print;
use crate::{Failure, INTERRUPTED, complain};

mod checksum;
mod client;
mod download;
mod select;
mod settings;

use client::{Client, Problem};
use download::{Download, RemoteFile, disk};
use settings::Settings;

pub(crate) fn pull(args: &PullArgs) -> Result<ExitCode, Failure> {
    let cache = Cache::locate()?;
    let (id, revision) = (args.name.repository(), &args.revision);
    let settings = Settings::from_environment()?;
    let here = cache.find(id, Some(revision.as_str()));
    if settings.offline {
        let Some(path) = here else {
            return Err(Failure(format!(
                "HF_HUB_OFFLINE is set, and the cache {} has no whole {id} at revision {revision}: unset it to fetch it",
                cache.root.display()
            )));
        };
        return say(&path);
    }
    // A commit never changes.
    if let Some(path) = here.as_deref().filter(|_| cache::is_commit(revision.as_str())) {
        return say(path);
    }
    let screen = Screen::new();
    let bar = screen.bar.clone();
    ctrlc::set_handler(move || {
        bar.finish_and_clear();
        complain("interrupted: what is fetched is kept, and the same command goes on from there");
        std::process::exit(INTERRUPTED.into());
    })?;
    let client = Client::new(settings)?;
    let found = bring(&cache, &client, id, revision, here, &screen);
    screen.clear();
    say(&found?)
}

/// The snapshot of a revision, from the cache if it is the hub's newest, or if the hub cannot be asked.
fn bring(
    cache: &Cache,
    client: &Client,
    id: &RepoId,
    revision: &Revision,
    here: Option<PathBuf>,
    screen: &Screen,
) -> Result<PathBuf, Failure> {
    let listing = match (client.listing(id, revision, screen), here) {
        (Ok(listing), _) => listing,
        (Err(Problem::Passing { what, .. }), Some(path)) => {
            screen.clear();
            complain(&format!("{what}; what the cache has of {id} is taken"));
            return Ok(path);
        }
        (Err(problem), _) => return Err(problem.into_failure()),
    };
    let names = select::files(&listing.files).map_err(|error| Failure(format!("{id}: {error}")))?;
    let repository = cache.repository(id);
    let snapshot = repository.join("snapshots").join(&listing.commit);
    let is_here = names.iter().all(|name| snapshot.join(name).exists());
    if is_here && lack(&snapshot).is_none() {
        // The cache may be read-only, and all that is wanted is there.
        let _ = refer(&repository, revision, &listing.commit);
        return Ok(snapshot);
    }
    fetch(cache, client, id, &listing.commit, &names, screen)?;
    if let Some(lacking) = lack(&snapshot) {
        return Err(Failure(format!("{id} is not whole on the hub: it lacks {lacking}")));
    }
    refer(&repository, revision, &listing.commit).map_err(disk(&repository))?;
    Ok(snapshot)
}

/// Fetches the files and then links them, so that a snapshot is there as a whole.
fn fetch(
    cache: &Cache,
    client: &Client,
    id: &RepoId,
    commit: &str,
    names: &[String],
    screen: &Screen,
) -> Result<(), Failure> {
    let repository = cache.repository(id);
    let mut files = Vec::new();
    for name in names {
        let (checksum, size) = client.metadata(id, commit, name, screen).map_err(Problem::into_failure)?;
        select::check_size(name, size).map_err(|error| Failure(format!("{id}: {error}")))?;
        files.push(RemoteFile { id, commit, name, checksum, size });
    }
    tag(&cache.root).map_err(disk(&cache.root))?;
    screen.begin(&id.to_string(), files.iter().map(|file| file.size).sum());
    let locks = cache.root.join(".locks").join(repository.file_name().unwrap_or_default());
    let blobs = repository.join("blobs");
    let download = Download::new(client, blobs.clone(), locks, screen)?;
    for file in &files {
        download.blob(file)?;
    }
    screen.check();
    let snapshot = repository.join("snapshots").join(commit);
    fs::create_dir_all(&snapshot).map_err(disk(&snapshot))?;
    for file in &files {
        let pointer = snapshot.join(file.name);
        download::link(&blobs, file.checksum.as_str(), &pointer).map_err(disk(&pointer))?;
    }
    Ok(())
}

/// Notes which commit a branch or tag was at.
fn refer(repository: &Path, revision: &Revision, commit: &str) -> io::Result<()> {
    if revision.as_str() == commit {
        return Ok(());
    }
    let path = repository.join("refs").join(revision.as_str());
    if fs::read_to_string(&path).is_ok_and(|before| before == commit) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    // Whoever reads it meanwhile finds the old one or the new one.
    let part = path.with_file_name(format!("{}.{}.tmp", commit, std::process::id()));
    fs::write(&part, commit)?;
    fs::rename(part, path)
}

/// Tells backup programs that this is a cache, as the hub's own library does (<https://bford.info/cachedir/>).
fn tag(root: &Path) -> io::Result<()> {
    fs::create_dir_all(root)?;
    let path = root.join("CACHEDIR.TAG");
    match fs::OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(mut file) => file.write_all(b"Signature: 8a477f597d28d172789f06886806bc55\n"),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// The one line of standard output.
fn say(snapshot: &Path) -> Result<ExitCode, Failure> {
    print(&format!("{}\n", snapshot.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// A bar and notes on a terminal; in a pipe only why nothing happens for long.
struct Screen {
    bar: ProgressBar,
}

impl Screen {
    fn new() -> Self {
        let bar = if io::stderr().is_terminal() { ProgressBar::no_length() } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        bar.set_message("asking the hub");
        Self { bar }
    }

    fn begin(&self, name: &str, bytes: u64) {
        self.bar.set_length(bytes);
        if let Ok(style) = ProgressStyle::with_template(
            "{msg} {wide_bar} {decimal_bytes} of {decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left",
        ) {
            self.bar.set_style(style);
        }
        self.bar.reset();
        self.bar.set_message(name.to_string());
    }

    fn add(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn take_back(&self, bytes: u64) {
        self.bar.set_position(self.bar.position().saturating_sub(bytes));
    }

    /// Every byte was counted once, whatever was resumed, fetched anew or here before.
    fn check(&self) {
        debug_assert_eq!(Some(self.bar.position()), self.bar.length(), "bytes counted, and all bytes");
    }

    /// Says what is of interest to people.
    fn note(&self, message: &str) {
        if !self.bar.is_hidden() {
            self.say(message);
        }
    }

    /// Says it in a pipe too.
    fn say(&self, message: &str) {
        self.bar.suspend(|| complain(message));
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
