//! Where transcripts go: standard output, or one file an input.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use cuewire::time::Timestamp;
use cuewire::transcript::{Format, Fragment, TranscriptWriter};

/// Decides where each input's transcript goes.
pub(crate) struct Destination {
    dir: Option<PathBuf>,
    format: Format,
    origin: Timestamp,
}

/// One input's transcript.
pub(crate) struct Sink {
    name: String,
    writer: TranscriptWriter<Box<dyn Write>>,
}

impl Destination {
    /// Checks what can be known before anything is read.
    pub(crate) fn new(
        dir: Option<PathBuf>,
        format: Format,
        origin: Timestamp,
        inputs: &[PathBuf],
    ) -> Result<Self, String> {
        match &dir {
            None if inputs.len() > 1 && matches!(format, Format::Srt | Format::Vtt) => {
                return Err(format!(
                    "several files cannot share one {format} on standard output: give --output-dir DIR, or one file at a time"
                ));
            }
            None => {}
            Some(dir) => {
                let mut stems = HashMap::new();
                for input in inputs {
                    if let Some(other) = stems.insert(stem(input), input) {
                        return Err(format!(
                            "{} and {} would both be written to {}.{format}: caption them into different folders",
                            other.display(),
                            input.display(),
                            dir.join(stem(input)).display()
                        ));
                    }
                }
                fs::create_dir_all(dir)
                    .map_err(|error| format!("cannot make the folder {}: {error}", dir.display()))?;
            }
        }
        Ok(Self { dir, format, origin })
    }

    /// Whether every input shares standard output, so that one must wait for the other.
    pub(crate) fn is_shared(&self) -> bool {
        self.dir.is_none()
    }

    pub(crate) fn open(&self, input: &Path) -> Result<Sink, String> {
        let (name, writer): (String, Box<dyn Write>) = match &self.dir {
            None => ("standard output".into(), Box::new(io::stdout())),
            Some(dir) => {
                let path = dir.join(format!("{}.{}", stem(input), self.format));
                let file = File::create(&path).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
                (path.display().to_string(), Box::new(file))
            }
        };
        Ok(Sink { name, writer: TranscriptWriter::new(writer, self.format, self.origin) })
    }
}

impl Sink {
    pub(crate) fn write(&mut self, fragment: &Fragment) -> Result<(), String> {
        self.writer.write(fragment).map_err(|error| self.failure(&error))
    }

    pub(crate) fn finish(self) -> Result<(), String> {
        let Self { name, writer } = self;
        writer.finish().and_then(|mut writer| writer.flush()).map_err(|error| failure(&name, &error))
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
