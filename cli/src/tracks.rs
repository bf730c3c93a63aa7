//! What `transcribe` is given to read: a file, who speaks in it, and when it began.
//!
//! In: arguments. Out: [`Input`]s.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::args::{TranscribeArgs, within_range};

/// One recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Input {
    pub(crate) path: PathBuf,
    pub(crate) speaker_id: String,
    /// From `--start-time` to its first sample.
    pub(crate) offset_nanos: i64,
}

/// The file's name without its extension; `stdin` for standard input.
pub(crate) fn stem(input: &Path) -> String {
    if input == Path::new("-") {
        return "stdin".into();
    }
    input.file_stem().unwrap_or(input.as_os_str()).to_string_lossy().into_owned()
}

/// The recordings in their order.
pub(crate) fn inputs(args: &TranscribeArgs) -> Result<Vec<Input>, String> {
    if !args.merge {
        let speaker_id = |path: &Path| args.speaker_id.clone().unwrap_or_else(|| stem(path));
        let input = |path: &PathBuf| Input { speaker_id: speaker_id(path), path: path.clone(), offset_nanos: 0 };
        return Ok(args.files.iter().map(input).collect());
    }
    let mut offsets = BTreeMap::new();
    for offset in &args.offset {
        if offsets.insert(offset.speaker_id.as_str(), offset.nanos).is_some() {
            return Err(format!("--offset is given twice for {}", offset.speaker_id));
        }
    }
    let mut inputs: Vec<Input> = Vec::new();
    for file in &args.files {
        let (speaker_id, path) = split(file)?;
        if let Some(other) = inputs.iter().find(|other| other.speaker_id == speaker_id) {
            return Err(format!(
                "{} and {} are both {speaker_id}: name each speaker once, SPEAKER=FILE",
                other.path.display(),
                path.display()
            ));
        }
        let offset_nanos = offsets.remove(speaker_id.as_str()).unwrap_or(0);
        within_range(args.start_time.plus_nanos(offset_nanos)).map_err(|error| format!("{speaker_id}: {error}"))?;
        inputs.push(Input { path, speaker_id, offset_nanos });
    }
    match offsets.keys().next() {
        Some(speaker_id) => Err(format!("--offset is given for {speaker_id}, who is in no recording")),
        None => Ok(inputs),
    }
}

/// Speaker and file of `SPEAKER=FILE` or `FILE`.
fn split(argument: &Path) -> Result<(String, PathBuf), String> {
    let bytes = argument.as_os_str().as_encoded_bytes();
    let Some(at) = bytes.iter().position(|&byte| byte == b'=') else {
        return Ok((stem(argument), argument.to_path_buf()));
    };
    let wrong = || format!("{}: SPEAKER=FILE is expected; SPEAKER is text", argument.display());
    let speaker_id = std::str::from_utf8(&bytes[..at]).map_err(|_| wrong())?;
    let path = path(&bytes[at + 1..]).filter(|path| !path.as_os_str().is_empty()).ok_or_else(wrong)?;
    if speaker_id.is_empty() {
        return Err(wrong());
    }
    Ok((speaker_id.to_string(), path))
}

/// A file's name that may be no text.
#[cfg(unix)]
fn path(bytes: &[u8]) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt as _;
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(bytes)))
}

#[cfg(not(unix))]
fn path(bytes: &[u8]) -> Option<PathBuf> {
    std::str::from_utf8(bytes).ok().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn parsed(arguments: &[&str]) -> Result<Vec<Input>, String> {
        let all = ["cuewire", "transcribe"].iter().chain(arguments);
        match Cli::try_parse_from(all).map_err(|error| error.to_string())?.command {
            Command::Transcribe(args) => inputs(&args),
            _ => unreachable!(),
        }
    }

    #[test]
    fn the_first_equals_sign_ends_the_speaker() {
        let offsets = ["--merge", "--offset", "bob=-0.25", "--offset", "c@d=+2s"];
        let files = ["alice=dir/a=b@+1.webm", "bob=-", "c@d=x", "calls/eve.wav"];
        let seen = parsed(&[&offsets[..], &files].concat()).unwrap();
        let expected = [
            ("dir/a=b@+1.webm", "alice", 0),
            ("-", "bob", -250_000_000),
            ("x", "c@d", 2_000_000_000),
            ("calls/eve.wav", "eve", 0),
        ];
        let expected = expected.map(|(path, speaker_id, offset_nanos)| Input {
            path: path.into(),
            speaker_id: speaker_id.into(),
            offset_nanos,
        });
        assert_eq!(seen, expected);
        assert_eq!(parsed(&["alice=a"]).unwrap()[0].path, Path::new("alice=a"), "only --merge splits");
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (arguments, part) in [
            (&["--merge", "=a"][..], "SPEAKER=FILE is expected"),
            (&["--merge", "a="], "SPEAKER=FILE is expected"),
            (&["--merge", "x/a.wav", "y/a.wav"], "are both a"),
            (&["--merge", "a=1", "a=2"], "1 and 2 are both a"),
            (&["--merge", "--offset", "b=1", "a=1"], "for b, who is in no recording"),
            (&["--merge", "--offset", "a=1", "--offset", "a=2", "a=1"], "twice for a"),
            (&["--merge", "--offset", "a=", "a=1"], "no number of seconds"),
            (&["--merge", "--offset", "a=1e3", "a=1"], "no number of seconds"),
            (&["--merge", "--offset", "a=9999999999", "a=1"], "no number of seconds"),
            (&["--merge", "--offset", "a=--1", "a=1"], "no number of seconds"),
            (&["--merge", "--offset", "a", "a=1"], "SPEAKER=SECONDS"),
            (
                &["--merge", "--start-time", "2261-01-01T00:00:00Z", "--offset", "a=999999999", "a=1"],
                "a: the start is 2262",
            ),
            (&["--offset", "a=1", "a"], "--merge"),
            (&["--merge", "--speaker-id", "x", "a"], "--speaker-id"),
        ] {
            let error = parsed(arguments).unwrap_err();
            assert!(error.contains(part), "{arguments:?}: {error}");
        }
    }
}
