//! Where transcripts go: standard output, one file, or one file an input.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cuewire::caption::cues::{CueCounts, Profile};
use cuewire::time::Timestamp;
use cuewire::transcript::{Finished, Format, Fragment, Sync, TranscriptWriter};

use crate::args::TranscribeArgs;
use crate::tracks::{Input, stem};

/// Decides where each input's transcript goes.
pub(crate) struct Destination {
    place: Place,
    format: Format,
    profile: Profile,
    origin: Timestamp,
    merged: bool,
    word_marks: bool,
    sync: Sync,
}

enum Place {
    Stdout,
    File(PathBuf),
    Dir(PathBuf),
}

/// One transcript.
pub(crate) struct Sink {
    name: String,
    writer: TranscriptWriter<Box<dyn Write>>,
    part: Option<Part>,
    sync: Sync,
    /// What is synced, where it is a file, and when it was.
    file: Option<(File, Instant)>,
}

/// Why a transcript cannot be written any further.
pub(crate) enum WriteError {
    /// `cuewire … | head` closes the pipe when it has enough: that is no failure, and the end of the work.
    NobodyReads,
    Failed(String),
}

impl Destination {
    /// What is written where; refuses what cannot be one file.
    pub(crate) fn new(args: &TranscribeArgs, inputs: &[Input]) -> Result<Self, String> {
        let format = args.format;
        let place = match (&args.output, &args.output_dir) {
            (Some(file), _) => Place::File(file.clone()),
            (None, Some(dir)) => Place::Dir(dir.clone()),
            (None, None) => Place::Stdout,
        };
        let is_one_document = format.is_document();
        let shared = match &place {
            Place::File(file) => Some(file.display().to_string()),
            Place::Stdout if is_one_document => Some("standard output".into()),
            Place::Stdout | Place::Dir(_) => None,
        };
        // Cues have no times before 0: a track that began before the others is where their file begins.
        let earliest_nanos = inputs.iter().map(|input| input.offset_nanos).min().unwrap_or(0).min(0);
        match shared {
            Some(shared) if inputs.len() > 1 && !args.merge => Err(format!(
                "several files cannot share one {format} on {shared}: give --output-dir DIR, or --merge if they are one \
                 conversation, or one file at a time"
            )),
            _ => Ok(Self {
                place,
                format,
                profile: args.profile,
                origin: args.start_time.plus_nanos(earliest_nanos),
                merged: args.merge,
                word_marks: args.word_times,
                sync: args.sync,
            }),
        }
    }

    /// Whether every input shares standard output, so that one must wait for the other.
    pub(crate) fn is_shared(&self) -> bool {
        !matches!(self.place, Place::Dir(_))
    }

    /// The folder of the transcripts, where one was named.
    pub(crate) fn folder(&self) -> Option<&Path> {
        match &self.place {
            Place::Dir(dir) => Some(dir),
            Place::Stdout | Place::File(_) => None,
        }
    }

    pub(crate) fn make_folder(&self) -> Result<(), String> {
        let Some(dir) = self.folder() else { return Ok(()) };
        fs::create_dir_all(dir).map_err(|error| format!("cannot make the folder {}: {error}", dir.display()))
    }

    /// The files that will be written, and what each is.
    pub(crate) fn targets(&self, inputs: &[Input]) -> Vec<(PathBuf, String)> {
        if self.merged || self.is_shared() {
            return self.target(Path::new("")).map(|path| (path, "the transcript".into())).into_iter().collect();
        }
        let target =
            |Input { path, .. }: &Input| Some((self.target(path)?, format!("the transcript of {}", path.display())));
        inputs.iter().filter_map(target).collect()
    }

    /// `None` is standard output.
    fn target(&self, input: &Path) -> Option<PathBuf> {
        match &self.place {
            Place::Stdout => None,
            Place::File(path) => Some(path.clone()),
            Place::Dir(dir) => {
                let stem = if self.merged { "merged".into() } else { stem(input) };
                Some(dir.join(format!("{stem}.{}", self.format)))
            }
        }
    }

    /// Begins the transcript of an input, or of all that are merged: that one takes its place when it is whole.
    pub(crate) fn open(&self, input: &Path) -> Result<Sink, WriteError> {
        let target = self.target(input);
        let name = target.as_ref().map_or_else(|| "standard output".into(), |path| path.display().to_string());
        let (part, file) = match target {
            None => (None, None),
            // Where no file can be made beside it, the file itself may still be written.
            Some(path) => match self.merged.then(|| Part::create(&path)).flatten() {
                Some((part, file)) => (Some(part), Some(file)),
                None => (None, Some(File::create(path).map_err(|error| failure(&name, &error))?)),
            },
        };
        // Pipes and devices are not synced.
        let is_file = |file: &&File| file.metadata().is_ok_and(|metadata| metadata.is_file());
        let synced = file.as_ref().filter(is_file).map(File::try_clone).transpose();
        let synced = synced.map_err(|error| failure(&name, &error))?.map(|file| (file, Instant::now()));
        let writer: Box<dyn Write> = file.map_or_else(|| Box::new(io::stdout()) as _, |file| Box::new(file) as _);
        let writer = TranscriptWriter::new(writer, self.format, self.profile, self.origin);
        let writer = if self.word_marks { writer } else { writer.without_word_marks() };
        Ok(Sink { name, writer, part, sync: self.sync, file: synced })
    }
}

impl Sink {
    pub(crate) fn write(&mut self, fragment: &Fragment) -> Result<(), WriteError> {
        self.writer.write(fragment).and_then(|()| self.sync()).map_err(|error| failure(&self.name, &error))
    }

    /// Syncs, where the policy says that it is time to.
    fn sync(&mut self) -> io::Result<()> {
        let Some((file, synced)) = &mut self.file else { return Ok(()) };
        let is_due = match self.sync {
            Sync::Each => true,
            Sync::Second => synced.elapsed() >= Duration::from_secs(1),
            Sync::Never => false,
        };
        if is_due {
            file.sync_data()?;
            *synced = Instant::now();
        }
        Ok(())
    }

    /// Writes what is left; what became of the cues.
    pub(crate) fn finish(self) -> Result<Option<CueCounts>, WriteError> {
        let Self { name, writer, part, sync, file } = self;
        let cues = writer.finish().map(|Finished { cues, .. }| cues).map_err(|error| failure(&name, &error))?;
        if let Some((file, _)) = file.filter(|_| sync != Sync::Never) {
            file.sync_all().map_err(|error| failure(&name, &error))?;
        }
        part.map_or(Ok(()), |part| part.replace()).map_err(|error| failure(&name, &error))?;
        Ok(cues)
    }
}

/// A file beside the one that it will replace; gone where it does not.
struct Part {
    path: PathBuf,
    target: PathBuf,
}

impl Part {
    /// `None` where there can be none: beside a pipe or a device, in a folder that may not be written.
    fn create(target: &Path) -> Option<(Self, File)> {
        // A link stays one.
        let target = fs::canonicalize(target).unwrap_or_else(|_| target.to_path_buf());
        let before = fs::metadata(&target).ok();
        if target.is_symlink() || before.as_ref().is_some_and(|metadata| !metadata.is_file()) {
            return None;
        }
        let mut path = target.clone().into_os_string();
        path.push(format!(".{}.part", std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).open(&path).ok()?;
        let part = Self { path: path.into(), target };
        before.map_or(Ok(()), |before| file.set_permissions(before.permissions())).ok()?;
        Some((part, file))
    }

    fn replace(&self) -> io::Result<()> {
        fs::rename(&self.path, &self.target)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Nothing is there any more where it replaced its target.
        let _ = fs::remove_file(&self.path);
    }
}

fn failure(name: &str, error: &io::Error) -> WriteError {
    match error.kind() {
        io::ErrorKind::BrokenPipe => WriteError::NobodyReads,
        _ => WriteError::Failed(format!("cannot write {name}: {error}")),
    }
}

/// Prints all that a command has to say; who reads may have enough sooner.
pub(crate) fn print(text: &str) -> io::Result<()> {
    io::stdout().write_all(text.as_bytes()).or_else(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(error),
    })
}
