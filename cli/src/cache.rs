//! Models by name: what a name means, and where the Hugging Face hub's cache on this machine has it.
//!
//! In: the value of `--model`, the environment's variables. Out: a folder that a model can be loaded from. The cache is
//! the one that `huggingface_hub` and what builds on it share, as
//! <https://huggingface.co/docs/huggingface_hub/guides/manage-cache> describes it:
//! `models--ORG--NAME/refs/REVISION` holds a commit, `models--ORG--NAME/snapshots/COMMIT/` that commit's files. Nothing
//! here goes to the network.

use std::cmp::Reverse;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::SystemTime;

use cuewire::asr::whisper::{Lack, lack};

use crate::Failure;

/// The revision that a repository has where none is named.
pub(crate) const MAIN: &str = "main";

/// Short names, with the repository of the Transformers checkpoint and that of the CTranslate2 one.
const SHORT_NAMES: [(&str, &str, &str); 19] = [
    ("tiny", "openai/whisper-tiny", "Systran/faster-whisper-tiny"),
    ("tiny.en", "openai/whisper-tiny.en", "Systran/faster-whisper-tiny.en"),
    ("base", "openai/whisper-base", "Systran/faster-whisper-base"),
    ("base.en", "openai/whisper-base.en", "Systran/faster-whisper-base.en"),
    ("small", "openai/whisper-small", "Systran/faster-whisper-small"),
    ("small.en", "openai/whisper-small.en", "Systran/faster-whisper-small.en"),
    ("medium", "openai/whisper-medium", "Systran/faster-whisper-medium"),
    ("medium.en", "openai/whisper-medium.en", "Systran/faster-whisper-medium.en"),
    ("large", "openai/whisper-large", "Systran/faster-whisper-large-v1"),
    ("large-v1", "openai/whisper-large", "Systran/faster-whisper-large-v1"),
    ("large-v2", "openai/whisper-large-v2", "Systran/faster-whisper-large-v2"),
    ("large-v3", "openai/whisper-large-v3", "Systran/faster-whisper-large-v3"),
    ("large-v3-turbo", "openai/whisper-large-v3-turbo", "mobiuslabsgmbh/faster-whisper-large-v3-turbo"),
    ("turbo", "openai/whisper-large-v3-turbo", "mobiuslabsgmbh/faster-whisper-large-v3-turbo"),
    ("distil-small.en", "distil-whisper/distil-small.en", "Systran/faster-distil-whisper-small.en"),
    ("distil-medium.en", "distil-whisper/distil-medium.en", "Systran/faster-distil-whisper-medium.en"),
    ("distil-large-v2", "distil-whisper/distil-large-v2", "Systran/faster-distil-whisper-large-v2"),
    ("distil-large-v3", "distil-whisper/distil-large-v3", "Systran/faster-distil-whisper-large-v3"),
    ("distil-large-v3.5", "distil-whisper/distil-large-v3.5", "distil-whisper/distil-large-v3.5-ct2"),
];

/// The short names, for messages.
pub(crate) fn short_names() -> String {
    SHORT_NAMES.map(|(name, ..)| name).join(", ")
}

/// A repository of the hub, `org/name`. Safe as a part of a URL and of a file's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RepoId(String);

impl FromStr for RepoId {
    type Err = String;

    fn from_str(id: &str) -> Result<Self, String> {
        let is_part = |part: &str| {
            !part.is_empty()
                && part.len() <= 96
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
                && !part.starts_with(['-', '.'])
                && !part.ends_with(['-', '.'])
                && !part.contains("--")
                && !part.contains("..")
        };
        match id.split_once('/') {
            Some((org, name)) if is_part(org) && is_part(name) => Ok(Self(id.to_string())),
            _ => Err(format!("`{id}` is no model's name: {}, or org/name as on the Hugging Face hub", short_names())),
        }
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A branch, a tag or a commit. Safe as a file's path below `refs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Revision(String);

impl FromStr for Revision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // What git takes (git-check-ref-format), and no more than letters, digits and a few signs of that.
        let is_part = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.+".contains(&b))
                && !part.starts_with('.')
                && !part.contains("..")
        };
        if text.len() <= 200 && text.split('/').all(is_part) {
            Ok(Self(text.to_string()))
        } else {
            Err(format!("`{text}` is no branch, tag or commit"))
        }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(feature = "hub")]
impl Revision {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// As one part of a URL's path.
    pub(crate) fn quoted(&self) -> String {
        self.0.replace('/', "%2F").replace('+', "%2B")
    }
}

/// A model as people name it: a short name, or `org/name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelName {
    name: String,
    /// Where it may come from, the best first.
    repositories: Vec<RepoId>,
}

impl FromStr for ModelName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let repositories = match SHORT_NAMES.iter().find(|(short, ..)| *short == name) {
            Some((_, transformers, ctranslate2)) => vec![transformers.parse()?, ctranslate2.parse()?],
            None if name.contains('@') => return Err(format!("`{name}`: a revision is given with --revision")),
            None => vec![name.parse()?],
        };
        Ok(Self { name: name.to_string(), repositories })
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl ModelName {
    /// Where it is fetched from.
    pub(crate) fn repository(&self) -> &RepoId {
        &self.repositories[0]
    }
}

/// The cache's folder. It need not exist.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    pub(crate) root: PathBuf,
}

impl Cache {
    pub(crate) fn locate() -> Result<Self, Failure> {
        Ok(Self { root: location(&environment, &["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"], "hub")? })
    }

    /// A repository's folder.
    pub(crate) fn repository(&self, id: &RepoId) -> PathBuf {
        self.root.join(folder_name(id))
    }

    /// The snapshots that a revision may mean, the best first: its own; where none is named that of `main`, and then the
    /// newest.
    fn snapshots(&self, id: &RepoId, revision: Option<&str>) -> Vec<PathBuf> {
        let repository = self.repository(id);
        let snapshots = repository.join("snapshots");
        let named = revision.unwrap_or(MAIN);
        let referred = || fs::read_to_string(repository.join("refs").join(named)).ok().map(|c| c.trim().to_string());
        let commit = if is_commit(named) { Some(named.to_string()) } else { referred().filter(|c| is_commit(c)) };
        let mut found: Vec<PathBuf> = commit.map(|commit| snapshots.join(commit)).into_iter().collect();
        if revision.is_none() {
            let dated = |path: &PathBuf| path.metadata().and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
            let all = fs::read_dir(snapshots).into_iter().flatten();
            let mut all: Vec<PathBuf> = all.filter_map(|entry| Some(entry.ok()?.path())).collect();
            all.sort_by_key(|path| Reverse(dated(path)));
            found.extend(all);
        }
        found
    }

    /// A whole model of this repository: of `revision`, or without one of `main`, or else the newest there is.
    pub(crate) fn find(&self, id: &RepoId, revision: Option<&str>) -> Option<PathBuf> {
        self.snapshots(id, revision).into_iter().find(|snapshot| lack(snapshot).is_none())
    }

    fn look_up(&self, model: &ModelName, revision: Option<&Revision>) -> Result<PathBuf, Failure> {
        let named = revision.map(|revision| revision.0.as_str());
        if let Some(found) = model.repositories.iter().find_map(|id| self.find(id, named)) {
            return Ok(found);
        }
        let (at, option) = match named {
            Some(named) => (format!(" at revision {named}"), format!(" --revision {named}")),
            None => Default::default(),
        };
        for snapshot in model.repositories.iter().flat_map(|id| self.snapshots(id, named)) {
            if let Some(Lack::Choice(names)) = lack(&snapshot) {
                let (snapshot, names) = (snapshot.display(), names.join(", "));
                return Err(Failure(format!(
                    "{model}{at}: {snapshot} holds several models, give the path of one: {names}"
                )));
            }
        }
        let partly = model.repositories.iter().find(|id| self.repository(id).is_dir());
        let ids: Vec<String> = model.repositories.iter().map(RepoId::to_string).collect();
        Err(Failure(format!(
            "{model}: there is no such file or folder, and the Hugging Face cache {root} has {state}{at}: \
             `cuewire model pull {model}{option}` asks the hub for it",
            root = self.root.display(),
            state = match partly {
                Some(id) => format!("only parts of {id}"),
                None => format!("no {}", ids.join(" and no ")),
            },
        )))
    }
}

/// The path of the model that a user means: what exists is taken as it is, `NAME` or `NAME@REVISION` is looked up in the
/// cache.
pub(crate) fn resolve(value: &Path) -> Result<PathBuf, Failure> {
    // What is neither is the loader's to describe.
    let as_it_is = Ok(value.to_path_buf());
    if value.exists() {
        return as_it_is;
    }
    let Some(text) = value.to_str() else { return as_it_is };
    let (name, revision) = match text.split_once('@') {
        Some((name, revision)) => (name, Some(revision)),
        None => (text, None),
    };
    match (name.parse(), revision.map(str::parse).transpose()) {
        (Ok(name), Ok(revision)) => Cache::locate()?.look_up(&name, revision.as_ref()),
        (Ok(_), Err(error)) => Err(Failure(format!("there is no file or folder {text}, and {error}"))),
        (Err(error), _) if !text.contains(['/', '\\']) && value.extension().is_none() => {
            Err(Failure(format!("there is no file or folder {text}, and {error}")))
        }
        (Err(_), _) => as_it_is,
    }
}

/// A commit's full name.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn folder_name(id: &RepoId) -> String {
    format!("models--{}", id.0.replace('/', "--"))
}

/// A variable that is set and not empty.
pub(crate) fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The first of these variables that is set, or `default` in the hub's home.
pub(crate) fn location(
    variable: &dyn Fn(&str) -> Option<OsString>,
    names: &[&str],
    default: &str,
) -> Result<PathBuf, Failure> {
    let home = || {
        variable("HOME").map(PathBuf::from).or_else(std::env::home_dir).ok_or_else(|| {
            Failure("the Hugging Face cache cannot be found: neither HF_HOME nor HOME is set".to_string())
        })
    };
    if let Some(path) = names.iter().copied().find_map(variable) {
        return expand(&path, variable, &home);
    }
    let hub = match (variable("HF_HOME"), variable("XDG_CACHE_HOME")) {
        (Some(path), _) => expand(&path, variable, &home)?,
        (None, Some(caches)) => PathBuf::from(caches).join("huggingface"),
        (None, None) => home()?.join(".cache").join("huggingface"),
    };
    Ok(hub.join(default))
}

/// `~`, `$NAME` and `${NAME}` as the hub's own library expands them; an unknown variable stays as it is written.
fn expand(
    path: &OsString,
    variable: &dyn Fn(&str) -> Option<OsString>,
    home: &dyn Fn() -> Result<PathBuf, Failure>,
) -> Result<PathBuf, Failure> {
    let Some(text) = path.to_str() else { return Ok(path.into()) };
    let (start, mut rest) = match text.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => (home()?.into_os_string(), rest),
        _ => (OsString::new(), text),
    };
    let mut out = start;
    while let Some((before, after)) = rest.split_once('$') {
        out.push(before);
        let (name, remainder) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some(braced) => braced,
            None => {
                let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
                after.split_at(end)
            }
        };
        match variable(name).filter(|_| !name.is_empty()) {
            Some(value) => out.push(value),
            None => out.push(&rest[before.len()..rest.len() - remainder.len()]),
        }
        rest = remainder;
    }
    out.push(rest);
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_lies_where_the_hub_documents_it() {
        let rows: [(&[(&str, &str)], &str); 8] = [
            (&[], "/home/me/.cache/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/h")], "/h/hub"),
            (&[("HF_HOME", "~/h")], "/home/me/h/hub"),
            (&[("HF_HOME", "/h"), ("HUGGINGFACE_HUB_CACHE", "/old")], "/old"),
            (&[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "/new")], "/new"),
            (&[("DISK", "/d"), ("HF_HUB_CACHE", "$DISK/${DISK}/a$")], "/d//d/a$"),
            (&[("HF_HUB_CACHE", "/a/$NOWHERE/b")], "/a/$NOWHERE/b"),
        ];
        for (set, expected) in rows {
            let variable = |name: &str| {
                let all = set.iter().chain(&[("HOME", "/home/me")]);
                all.clone().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
            };
            let found = location(&variable, &["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"], "hub").ok().unwrap();
            assert_eq!(found, Path::new(expected), "{set:?}");
        }
    }

    #[test]
    fn names_mean_repositories_and_nothing_that_leads_elsewhere() {
        let ids =
            |name: &str| name.parse::<ModelName>().map(|m| m.repositories.iter().map(RepoId::to_string).collect());
        let both = vec!["openai/whisper-tiny.en".to_string(), "Systran/faster-whisper-tiny.en".to_string()];
        assert_eq!(ids("tiny.en"), Ok(both));
        assert_eq!(ids("distil-whisper/x"), Ok(vec!["distil-whisper/x".to_string()]));
        for wrong in
            ["", "enormous", "a/b/c", "../x", "a/..", "/a", "a/", "a/b c", "a--b/c", ".a/b", "a/b?x=1", "a/b\\c"]
        {
            assert!(ids(wrong).is_err(), "{wrong}");
        }
        for right in ["main", "refs/pr/1", "v1.0+x"] {
            assert!(right.parse::<Revision>().is_ok(), "{right}");
        }
        for wrong in ["", "/main", "a/../b", "..", "a b", "a?b", "a\\b", "a//b"] {
            assert!(wrong.parse::<Revision>().is_err(), "{wrong}");
        }
        for (short, ..) in SHORT_NAMES {
            assert!(ids(short).is_ok(), "{short}");
        }
    }

    #[test]
    fn a_snapshot_is_found_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache { root: dir.path().to_path_buf() };
        let id: RepoId = "org/name".parse().unwrap();
        let commit = |digit: &str| digit.repeat(40);
        let write = |path: &str, text: &str| {
            let path = cache.repository(&id).join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let found = |revision: Option<&str>| {
            cache.find(&id, revision).map(|path| path.file_name().unwrap().to_str().unwrap()[..1].to_string())
        };
        let (a, b) = (commit("a"), commit("b"));
        assert_eq!(found(None), None);
        for name in ["config.json", "tokenizer.json"] {
            write(&format!("snapshots/{a}/{name}"), "{}");
        }
        write("refs/main", &a);
        assert_eq!(found(None), None);
        let index = "model.safetensors.index.json";
        write(&format!("snapshots/{a}/{index}"), r#"{"weight_map": {"x": "s1", "y": "s2", "z": "s2"}}"#);
        write(&format!("snapshots/{a}/s1"), "");
        assert_eq!(found(None), None);
        write(&format!("snapshots/{a}/s2"), "");
        assert_eq!(found(None), Some("a".to_string()));
        for name in ["config.json", "vocabulary.txt"] {
            write(&format!("snapshots/{b}/{name}"), "{}");
        }
        write(&format!("snapshots/{b}/model.bin"), "\u{6}\0\0\0\u{c}\0WhisperSpec\0");
        assert_eq!(found(None), Some("a".to_string()), "main comes first");
        assert_eq!(found(Some(&b)), Some("b".to_string()));
        write("refs/v1", &b);
        assert_eq!(found(Some("v1")), Some("b".to_string()));
        write("refs/main", &commit("c"));
        assert!(found(None).is_some(), "main is not here: another that is whole");
        assert_eq!(found(Some("main")), None);
        write("refs/main", "../../../etc");
        assert_eq!(found(Some("main")), None);
    }

    #[test]
    fn a_snapshot_with_one_model_in_one_file_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache { root: dir.path().to_path_buf() };
        let name: ModelName = "org/name".parse().unwrap();
        let look_up = || cache.look_up(&name, None).map_err(|Failure(error)| error);
        let snapshot = cache.repository(name.repository()).join("snapshots").join("a".repeat(40));
        fs::create_dir_all(&snapshot).unwrap();
        let write = |name: &str, text: &str| fs::write(snapshot.join(name), text).unwrap();
        write("README.md", "# GGUF");
        assert!(look_up().unwrap_err().contains("only parts of org/name"));
        write("ggml-tiny.bin", "lmgg");
        assert_eq!(look_up().unwrap(), snapshot);
        write("tiny.gguf", "GGUF");
        let error = look_up().unwrap_err();
        let both =
            format!("{} holds several models, give the path of one: ggml-tiny.bin, tiny.gguf", snapshot.display());
        assert!(error.contains(&both) && !error.contains("pull"), "{error}");
        // Transformers' files are one model, whatever lies beside them.
        for name in ["config.json", "model.safetensors", "vocab.json"] {
            write(name, "{}");
        }
        assert!(look_up().is_err());
        write("added_tokens.json", "{}");
        assert_eq!(look_up().unwrap(), snapshot);
    }
}
