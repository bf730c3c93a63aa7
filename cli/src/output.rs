//! Where transcripts go: standard output, one file, or one file an input.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use cuewire::caption::cues::{CueCounts, Profile};
use cuewire::time::Timestamp;
use cuewire::transcript::{Finished, Format, Fragment, TranscriptWriter};

use crate::args::TranscribeArgs;
use crate::tracks::Input;

/// Decides where each input's transcript goes.
pub(crate) struct Destination {
    place: Place,
    format: Format,
    profile: Profile,
    origin: Timestamp,
    merged: bool,
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
}

impl Destination {
    /// Checks what can be known before anything is read.
    pub(crate) fn new(args: &TranscribeArgs, inputs: &[Input]) -> Result<Self, String> {
        let format = args.format;
        let place = match (&args.output, &args.output_dir) {
            (Some(file), _) => Place::File(file.clone()),
            (None, Some(dir)) => Place::Dir(dir.clone()),
            (None, None) => Place::Stdout,
        };
        let is_one_document = matches!(format, Format::Json | Format::Srt | Format::Vtt);
        match &place {
            Place::Stdout | Place::File(_) if inputs.len() > 1 && !args.merge => {
                let shared = match &place {
                    Place::File(file) => file.display().to_string(),
                    _ => "standard output".into(),
                };
                if is_one_document || matches!(place, Place::File(_)) {
                    return Err(format!(
                        "several files cannot share one {format} on {shared}: give --output-dir DIR, or --merge if they \
                         are one conversation, or one file at a time"
                    ));
                }
            }
            Place::Stdout | Place::File(_) => {}
            Place::Dir(dir) => {
                let mut stems = HashMap::new();
                for Input { path, .. } in inputs.iter().filter(|_| !args.merge) {
                    if let Some(other) = stems.insert(stem(path), path) {
                        return Err(format!(
                            "{} and {} would both be written to {}.{format}: caption them into different folders",
                            other.display(),
                            path.display(),
                            dir.join(stem(path)).display()
                        ));
                    }
                }
                fs::create_dir_all(dir)
                    .map_err(|error| format!("cannot make the folder {}: {error}", dir.display()))?;
            }
        }
        // Cues have no times before 0: a track that began before the others is where their file begins.
        let earliest_nanos = inputs.iter().map(|input| input.offset_nanos).min().unwrap_or(0).min(0);
        let origin = args.start_time.plus_nanos(earliest_nanos);
        Ok(Self { place, format, profile: args.profile, origin, merged: args.merge })
    }

    /// Whether every input shares standard output, so that one must wait for the other.
    pub(crate) fn is_shared(&self) -> bool {
        !matches!(self.place, Place::Dir(_))
    }

    pub(crate) fn open(&self, input: &Path) -> Result<Sink, String> {
        let create = |path: &Path| -> Result<(String, Box<dyn Write>), String> {
            let file = File::create(path).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
            Ok((path.display().to_string(), Box::new(file)))
        };
        let (name, writer) = match &self.place {
            Place::Stdout => ("standard output".into(), Box::new(io::stdout()) as Box<dyn Write>),
            Place::File(path) => create(path)?,
            Place::Dir(dir) => {
                let stem = if self.merged { "merged".into() } else { stem(input) };
                create(&dir.join(format!("{stem}.{}", self.format)))?
            }
        };
        Ok(Sink { name, writer: TranscriptWriter::new(writer, self.format, self.profile, self.origin) })
    }
}

impl Sink {
    pub(crate) fn write(&mut self, fragment: &Fragment) -> Result<(), String> {
        self.writer.write(fragment).map_err(|error| self.failure(&error))
    }

    /// Writes what is left; what became of the cues.
    pub(crate) fn finish(self) -> Result<Option<CueCounts>, String> {
        let Self { name, writer } = self;
        writer.finish().map(|Finished { cues, .. }| cues).map_err(|error| failure(&name, &error))
    }

    fn failure(&self, error: &io::Error) -> String {
        failure(&self.name, error)
    }
}

fn failure(name: &str, error: &io::Error) -> String {
    quit_quietly_if_nobody_reads(error);
    format!("cannot write {name}: {error}")
}

/// `cuewire … | head` closes the pipe when it has enough: that is no error.
pub(crate) fn quit_quietly_if_nobody_reads(error: &io::Error) {
    if error.kind() == io::ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
}

/// The file's name without its extension; `stdin` for standard input.
pub(crate) fn stem(input: &Path) -> String {
    if input == Path::new("-") {
        return "stdin".into();
    }
    input.file_stem().unwrap_or(input.as_os_str()).to_string_lossy().into_owned()
}
