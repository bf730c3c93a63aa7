//! `cuewire model pull` as people run it, against a hub on the loopback interface, and models by name.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure is the report")]

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use cuewire::asr::whisper::testing::RandomModel;

mod server;
#[path = "../support/mod.rs"]
mod support;

use server::{COMMIT, Fault, Hub, TOKEN, sha256};
use support::{UNREACHABLE, cuewire, run};

/// A small Whisper with random weights, as Transformers stores one, beside files that nobody needs.
static FILES: LazyLock<BTreeMap<String, Vec<u8>>> = LazyLock::new(|| {
    let random = RandomModel::default();
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape, mean) in random.tensors() {
        let start = data.len();
        data.extend(random.values(&name, &shape, mean).iter().flat_map(|v| v.to_le_bytes()));
        let entry = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
        header.insert(name, entry);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let weights = [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat();
    let file = |name: &str, bytes: Vec<u8>| (name.to_string(), bytes);
    BTreeMap::from([
        file("README.md", b"# Random".to_vec()),
        file("config.json", random.config().to_string().into()),
        file("generation_config.json", br#"{"is_multilingual": true}"#.to_vec()),
        file("model.safetensors", weights),
        file("pytorch_model.bin", b"the same once more".to_vec()),
        file("tokenizer.json", random.tokenizer().to_string().into()),
    ])
});
const FETCHED: [&str; 4] = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"];

fn weights() -> &'static [u8] {
    &FILES["model.safetensors"]
}

/// A hub, and a home of the cache.
struct World {
    server: Hub,
    home: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self::with(FILES.clone())
    }

    fn with(files: BTreeMap<String, Vec<u8>>) -> Self {
        Self { server: Hub::start(files), home: tempfile::tempdir().unwrap() }
    }

    /// The program, which knows this hub and this home only.
    fn cuewire(&self, args: &[&str]) -> Command {
        let mut command = cuewire();
        for (name, _) in std::env::vars() {
            let upper = name.to_uppercase();
            if upper.starts_with("HF_") || upper.starts_with("HUGGING") || upper.ends_with("_PROXY") {
                command.env_remove(name);
            }
        }
        command.env("HF_HOME", self.home.path()).env("HF_ENDPOINT", &self.server.hub.url).env("HF_TOKEN", TOKEN);
        command.args(args);
        command
    }

    fn pull(&self) -> Command {
        self.cuewire(&["model", "pull", "org/random"])
    }

    fn repository(&self) -> PathBuf {
        self.home.path().join("hub/models--org--random")
    }

    fn snapshot(&self) -> PathBuf {
        self.repository().join("snapshots").join(COMMIT)
    }

    fn part(&self) -> PathBuf {
        self.repository().join("blobs").join(format!("{}.incomplete", sha256(weights())))
    }

    /// Runs a pull that goes well, and looks at what it left.
    fn pull_well(&self) {
        let (code, out, err) = run(&mut self.pull());
        let path = format!("{}\n", self.snapshot().display());
        assert_eq!((code, out.as_str(), err.as_str()), (0, path.as_str(), ""));
        let names = |path: &Path| {
            let mut names: Vec<_> =
                path.read_dir().unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&self.snapshot()), FETCHED);
        for name in FETCHED {
            assert_eq!(std::fs::read(self.snapshot().join(name)).unwrap(), FILES[name], "{name}");
        }
        let blobs = names(&self.repository().join("blobs"));
        assert_eq!(blobs.len(), FETCHED.len(), "{blobs:?}");
        assert_eq!(std::fs::read_to_string(self.repository().join("refs/main")).unwrap(), COMMIT);
    }

    /// The ranges that the other host was asked for.
    fn ranges(&self) -> Vec<Option<String>> {
        self.server.cdn.seen().into_iter().map(|seen| seen.range).collect()
    }
}

/// Says so past the test runner's capture.
fn skipped(test: &str, why: &str) {
    use std::io::Write as _;
    std::io::stderr().write_all(format!("SKIPPED {test}: {why}\n").as_bytes()).unwrap();
}

fn range(start: usize) -> Option<String> {
    Some(format!("bytes={start}-"))
}

#[test]
fn a_model_is_pulled_into_the_cache_and_goes_by_its_name() {
    let world = World::new();
    world.pull_well();
    #[cfg(unix)]
    {
        let link = std::fs::read_link(world.snapshot().join("model.safetensors")).unwrap();
        assert_eq!(link, Path::new("../../blobs").join(sha256(weights())));
    }
    let (hub, cdn) = (world.server.hub.seen(), world.server.cdn.seen());
    let bearer = format!("Bearer {TOKEN}");
    assert!(hub.iter().all(|seen| seen.authorization.as_deref() == Some(&bearer)), "{hub:?}");
    assert_eq!(cdn.len(), 1, "{cdn:?}");
    assert_eq!((cdn[0].method.as_str(), &cdn[0].authorization), ("GET", &None), "the token went to another host");

    // It is here: the hub is asked for the commit, and for nothing more.
    world.pull_well();
    let more: Vec<String> = world.server.hub.seen()[hub.len()..].iter().map(|seen| seen.path.clone()).collect();
    assert_eq!(more, ["/api/models/org/random/revision/main"]);
    assert_eq!(world.server.cdn.seen().len(), 1);
    // A commit, and offline: nothing at all.
    for command in
        [world.pull().args(["--revision", COMMIT]).env("HF_TOKEN", ""), world.pull().env("HF_HUB_OFFLINE", "1")]
    {
        assert_eq!(run(command).1, format!("{}\n", world.snapshot().display()));
    }
    assert_eq!(world.server.hub.seen().len(), hub.len() + 1);
    // A hub that cannot be reached: what the cache has is taken, and that is said.
    let (code, out, err) = run(world.pull().env("HF_ENDPOINT", format!("http://{UNREACHABLE}")));
    assert_eq!((code, out), (0, format!("{}\n", world.snapshot().display())));
    assert!(err.contains("cannot reach") && err.contains("org/random is taken"), "{err}");
    // A reference with a folder, of the same commit.
    assert_eq!(run(world.pull().args(["--revision", "refs/pr/1"])).0, 0);
    assert_eq!(std::fs::read_to_string(world.repository().join("refs/refs/pr/1")).unwrap(), COMMIT);

    let (code, out, err) = run(&mut world.cuewire(&["model", "info", "org/random"]));
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("name          org/random\n"), "{out}");
    let gguf = world.home.path().join("random.gguf");
    let mut convert = world.cuewire(&["model", "convert", "org/random", gguf.to_str().unwrap(), "--quantize", "f16"]);
    assert_eq!(run(&mut convert).0, 0);
    assert!(gguf.is_file());
}

#[test]
fn the_hub_s_own_library_finds_what_was_pulled() {
    let Some(python) = std::env::var_os("CUEWIRE_TEST_PYTHON") else {
        let why = "CUEWIRE_TEST_PYTHON names no Python with huggingface_hub";
        return skipped("the_hub_s_own_library_finds_what_was_pulled", why);
    };
    let world = World::new();
    world.pull_well();
    let script = "from huggingface_hub import scan_cache_dir, snapshot_download, try_to_load_from_cache\n\
                  print(snapshot_download('org/random', local_files_only=True))\n\
                  print(try_to_load_from_cache('org/random', 'model.safetensors'))\n\
                  cache = scan_cache_dir()\n\
                  print([(r.repo_id, r.nb_files, list(r.refs)) for r in cache.repos], cache.warnings)";
    let mut command = Command::new(python);
    command.args(["-c", script]).env("HF_HOME", world.home.path()).env("HF_HUB_OFFLINE", "1");
    let (code, out, err) = run(command.env_remove("HF_HUB_CACHE").env_remove("HUGGINGFACE_HUB_CACHE"));
    assert_eq!(code, 0, "{err}");
    let snapshot = world.snapshot();
    let weights = snapshot.join("model.safetensors");
    let found = format!("{}\n{}\n[('org/random', 4, ['main'])] []\n", snapshot.display(), weights.display());
    assert_eq!(out, found, "{err}");
}

#[test]
fn what_passes_is_tried_again_and_what_broke_off_is_gone_on_with() {
    let size = weights().len();
    let busy = || Fault::Status("503 Service Unavailable", "");
    let asked = || Fault::Status("429 Too Many Requests", "Retry-After: 0\r\n");
    type Row = (&'static str, Vec<Fault>, Vec<Fault>, Vec<Option<String>>);
    let rows: [Row; 7] = [
        ("a busy hub", vec![busy(), asked(), busy()], vec![], vec![None]),
        (
            "broken off twice",
            vec![],
            vec![Fault::Cut(100_000), Fault::Cut(50_000)],
            vec![None, range(100_000), range(150_000)],
        ),
        (
            "a signed address that ran out",
            vec![],
            vec![Fault::Cut(9), Fault::Status("403 Forbidden", "")],
            vec![None, range(9), range(9)],
        ),
        ("no ranges", vec![], vec![Fault::Cut(100_000), Fault::NoRange], vec![None, range(100_000)]),
        ("another range", vec![], vec![Fault::Cut(100_000), Fault::WrongRange], vec![None, range(100_000), None]),
        ("silence", vec![], vec![Fault::Hold(size - 1)], vec![None, range(size - 1)]),
        ("more breaks than patience, but something came each time", vec![], vec![Fault::Cut(1); 7], {
            std::iter::once(None).chain((1..=7).map(range)).collect()
        }),
    ];
    for (case, hub, cdn, ranges) in rows {
        let world = World::new();
        world.server.hub.fail(hub);
        world.server.cdn.fail(cdn);
        let started = Instant::now();
        // A silence of so many seconds is tried again: only where one is meant they are few.
        let timeout = if case == "silence" { "3" } else { "60" };
        let (code, _, err) = run(world.pull().env("HF_HUB_DOWNLOAD_TIMEOUT", timeout));
        assert_eq!((code, err.as_str()), (0, ""), "{case}");
        assert!(started.elapsed() < Duration::from_secs(50), "{case}");
        assert_eq!(world.ranges(), ranges, "{case}");
        world.pull_well();
    }
}

#[test]
fn what_is_wrong_is_removed_and_nothing_of_it_is_in_the_snapshot() {
    let world = World::new();
    world.server.cdn.fail([Fault::Corrupt]);
    let (code, out, err) = run(&mut world.pull());
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("model.safetensors") && err.contains(&sha256(weights())), "{err}");
    assert!(!world.part().exists() && !world.repository().join("snapshots").exists());
    let (code, _, err) = run(&mut world.cuewire(&["model", "info", "org/random"]));
    assert_eq!(code, 2);
    assert!(err.contains("only parts of org/random") && err.contains("`cuewire model pull org/random`"), "{err}");
    // More than was promised: none of it is believed.
    world.server.cdn.fail([Fault::More(1 << 20)]);
    let (code, out, err) = run(&mut world.pull());
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains(&format!("model.safetensors: more comes than the {} bytes", weights().len())), "{err}");
    assert_eq!(std::fs::metadata(world.part()).unwrap().len(), 0);
    assert!(!world.repository().join("snapshots").exists());
    // A part that was here already and is wrong, or longer than the file.
    for part in [vec![7; 1000], vec![7; weights().len()], vec![7; weights().len() + 1]] {
        std::fs::write(world.part(), part).unwrap();
        world.pull_well();
        std::fs::remove_dir_all(world.repository().join("snapshots")).unwrap();
        std::fs::remove_file(world.repository().join("blobs").join(sha256(weights()))).unwrap();
    }
    // A part that another program left is gone on with.
    std::fs::write(world.part(), &weights()[..1234]).unwrap();
    world.pull_well();
    assert_eq!(world.ranges().last(), Some(&range(1234)));
}

/// Small files are checked by their git blob's SHA-1.
#[test]
fn a_small_file_that_is_wrong_is_removed() {
    let world = World::new();
    world.server.hub.fail([Fault::CorruptFile("tokenizer.json")]);
    let (code, out, err) = run(&mut world.pull());
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("org/random/tokenizer.json: what came is not what the hub promised"), "{err}");
    assert!(!world.repository().join("snapshots").exists());
    let blobs = world.repository().join("blobs").read_dir().unwrap().map(|e| std::fs::read(e.unwrap().path()).unwrap());
    assert_eq!(blobs.collect::<Vec<_>>(), [FILES["config.json"].clone()]);
    world.pull_well();
}

#[test]
fn redirects_end() {
    let world = World::new();
    let (code, _, err) = run(&mut world.cuewire(&["model", "pull", "org/circle"]));
    assert_eq!(code, 2);
    assert!(err.contains("more than 8 redirects"), "{err}");
    assert_eq!(world.server.hub.seen().len(), 9);
}

/// In a pipe too: nobody sees a bar there.
#[test]
fn a_long_wait_is_announced() {
    let world = World::new();
    world.server.hub.fail([Fault::Status("429 Too Many Requests", "Retry-After: 4\r\n")]);
    let mut child = world.pull().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("answers 429") && line.contains("trying again in 4.0 s"), "{line}");
    assert!(child.try_wait().unwrap().is_none(), "it says so before it waits");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_refusal_says_what_to_do() {
    let world = World::new();
    type Row = (&'static [&'static str], &'static [(&'static str, &'static str)], &'static [&'static str]);
    let rows: [Row; 12] = [
        (&["org/nothing"], &[], &["has no model org/nothing", "tiny.en", "org/name"]),
        (&["tiny"], &[], &["has no model openai/whisper-tiny"]),
        (&["org/random", "--revision", "v2"], &[], &["no revision `v2`", "it has main, v1"]),
        (&["org/gated"], &[("HF_TOKEN", "")], &["org/gated is gated", "/org/gated", "HF_TOKEN"]),
        (&["org/private"], &[("HF_TOKEN", "")], &["no public model org/private", "set HF_TOKEN"]),
        (&["org/private"], &[], &["org/private", "the token is that of HF_TOKEN"]),
        (&["org/random"], &[("HF_HUB_OFFLINE", "1")], &["HF_HUB_OFFLINE", "no whole org/random"]),
        (&["org/random"], &[("HF_ENDPOINT", "hub")], &["HF_ENDPOINT is `hub`"]),
        (&["org/random"], &[("HF_TOKEN", "a b")], &["HF_TOKEN holds is no access token"]),
        (&["enormous"], &[], &["`enormous`", "large-v3-turbo", "org/name"]),
        (&["org/random@v1"], &[], &["`org/random@v1`", "--revision"]),
        (&["org/random", "--revision", "../x"], &[], &["`../x` is no branch, tag or commit"]),
    ];
    for (args, variables, parts) in rows {
        let (code, out, err) = run(world.cuewire(&["model", "pull"]).args(args).envs(variables.iter().copied()));
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
        for part in parts {
            assert!(err.contains(part), "{args:?}: {part:?} is not in {err}");
        }
        assert!(!err.contains(TOKEN), "{err}");
    }
    let (code, _, err) = run(world.pull().env("HF_ENDPOINT", format!("http://{UNREACHABLE}")));
    assert_eq!(code, 2);
    assert!(err.contains("cannot reach 127.0.0.1") && err.contains("5 times"), "{err}");
    assert!(!world.repository().exists());
}

#[test]
fn a_listing_that_leads_out_of_the_folder_or_is_no_model_is_refused() {
    for (name, part) in [
        ("../x", "leads out of the folder"),
        ("/etc/cron.d/x", "leads out of the folder"),
        ("a/../../x", "leads out of the folder"),
    ] {
        let mut files = FILES.clone();
        files.insert(name.to_string(), b"hostile".to_vec());
        let world = World::with(files);
        let (code, out, err) = run(&mut world.pull());
        assert_eq!((code, out.as_str()), (2, ""), "{name}");
        assert!(err.contains(part), "{err}");
        assert!(!world.home.path().join("hub").exists());
    }
    let mut files = FILES.clone();
    files.remove("model.safetensors");
    let (code, _, err) = run(&mut World::with(files).pull());
    assert_eq!(code, 2);
    assert!(err.contains("it has pytorch_model.bin"), "{err}");
}

#[test]
fn files_of_ctranslate2_are_pulled_too() {
    let file = |name: &str| (name.to_string(), name.as_bytes().to_vec());
    let names = ["config.json", "tokenizer.json", "vocabulary.txt"];
    let weights = ("model.bin".to_string(), b"\x06\0\0\0\x0c\0WhisperSpec\0".to_vec());
    let world = World::with(BTreeMap::from_iter(names.map(file).into_iter().chain([file("README.md"), weights])));
    let (code, _, err) = run(&mut world.pull());
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(world.snapshot().read_dir().unwrap().count(), names.len() + 1);
}

#[test]
fn what_transformers_tokenizer_in_python_leaves_is_pulled_and_goes_by_its_name() {
    let mut files = FILES.clone();
    let tokenizer: serde_json::Value = serde_json::from_slice(&files.remove("tokenizer.json").unwrap()).unwrap();
    let added = tokenizer["added_tokens"].as_array().unwrap().iter();
    let added: serde_json::Map<_, _> =
        added.map(|token| (token["content"].as_str().unwrap().to_string(), token["id"].clone())).collect();
    files.insert("vocab.json".to_string(), tokenizer["model"]["vocab"].to_string().into());
    files.insert("added_tokens.json".to_string(), serde_json::Value::Object(added).to_string().into());
    files.insert("merges.txt".to_string(), b"#version: 0.2".to_vec());
    let world = World::with(files);
    let (code, _, err) = run(&mut world.pull());
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(world.snapshot().read_dir().unwrap().count(), 6);
    let (code, out, err) = run(&mut world.cuewire(&["model", "info", "org/random"]));
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("container     Hugging Face folder\n"), "{out}");
}

#[test]
fn a_model_in_one_file_is_pulled_and_goes_by_its_name() {
    let file = |name: &str, bytes: Vec<u8>| (name.to_string(), bytes);
    let gguf = RandomModel::default().gguf().unwrap();
    let world = World::with(BTreeMap::from([file("README.md", vec![]), file("tiny.gguf", gguf.clone())]));
    assert_eq!(run(&mut world.pull()).0, 0);
    let (code, out, err) = run(&mut world.cuewire(&["model", "info", "org/random"]));
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("container     GGUF\n"), "{out}");

    // As `hf download` leaves two of many: no pull would help.
    let world = World::with(BTreeMap::from([file("a.gguf", gguf.clone()), file("b.gguf", gguf.clone())]));
    let (code, _, err) = run(&mut world.pull());
    assert_eq!(code, 2);
    assert!(err.contains("it has a.gguf, b.gguf; `hf download`"), "{err}");
    std::fs::create_dir_all(world.snapshot()).unwrap();
    for name in ["a.gguf", "b.gguf"] {
        std::fs::write(world.snapshot().join(name), &gguf).unwrap();
    }
    let (code, _, err) = run(&mut world.cuewire(&["model", "info", "org/random"]));
    assert_eq!(code, 2);
    assert!(err.contains("give the path of one: a.gguf, b.gguf") && !err.contains("pull"), "{err}");
    assert_eq!(run(&mut world.cuewire(&["model", "info", world.snapshot().join("b.gguf").to_str().unwrap()])).0, 0);
}

#[test]
fn a_revision_goes_by_its_name() {
    let world = World::new();
    assert_eq!(run(world.pull().args(["--revision", "refs/pr/1"])).0, 0);
    for name in ["org/random@refs/pr/1".to_string(), format!("org/random@{COMMIT}"), "org/random".to_string()] {
        let (code, out, err) = run(&mut world.cuewire(&["model", "info", &name]));
        assert_eq!((code, err.as_str()), (0, ""), "{name}");
        assert!(out.contains("name          org/random\n"), "{out}");
    }
    let rows: [(&str, &[&str]); 4] = [
        ("org/random@v2", &["org/random at revision v2", "`cuewire model pull org/random --revision v2`"]),
        ("org/random@main", &["org/random at revision main"]),
        ("tiny@v1", &["no openai/whisper-tiny and no", "at revision v1", "pull tiny --revision v1`"]),
        ("org/random@../x", &["no file or folder org/random@../x", "`../x` is no branch, tag or commit"]),
    ];
    for (name, parts) in rows {
        let (code, _, err) = run(&mut world.cuewire(&["model", "info", name]));
        assert_eq!(code, 2);
        for part in parts {
            assert!(err.contains(part), "{name}: {part:?} is not in {err}");
        }
    }
    let help =
        run(&mut world.cuewire(&["model", "pull", "--help"])).1 + &run(&mut world.cuewire(&["live", "--help"])).1;
    assert!(help.contains("--model NAME@REV") && help.contains("org/name@REV"), "{help}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_what_came_and_the_same_command_goes_on() {
    let world = World::new();
    world.server.cdn.fail([Fault::Hold(100_000)]);
    let mut child = world.pull().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    while std::fs::metadata(world.part()).map_or(0, |m| m.len()) < 100_000 {
        assert!(started.elapsed() < Duration::from_secs(20), "nothing came");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!world.repository().join("snapshots").exists());
    world.pull_well();
    assert_eq!(world.ranges(), [None, range(100_000)]);
}

#[test]
fn several_at_once_fetch_once() {
    for _ in 0..5 {
        let world = World::new();
        let start = || world.pull().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let all = [start(), start(), start()].map(|child| child.wait_with_output().unwrap());
        for output in all {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        assert_eq!(world.ranges(), [None]);
        world.pull_well();
    }
}

/// Elsewhere the system's own certificates cannot be replaced by a variable.
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#[test]
fn over_tls_the_other_side_is_known_and_stays_encrypted() {
    if !graviola::util::is_cpu_supported() {
        return skipped("over_tls_the_other_side_is_known_and_stays_encrypted", "this processor lacks what TLS needs");
    }
    let authority = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hub/tls/authority.pem");
    let world =
        |cdn_tls| World { server: Hub::start_with(FILES.clone(), true, cdn_tls), home: tempfile::tempdir().unwrap() };
    let encrypted = world(true);
    encrypted.server.cdn.fail([Fault::Cut(100_000)]);
    let (code, _, err) = run(encrypted.pull().env("SSL_CERT_FILE", &authority));
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(encrypted.ranges(), [None, range(100_000)]);
    assert_eq!(std::fs::read(encrypted.snapshot().join("model.safetensors")).unwrap(), weights());

    let half = world(false);
    let (code, _, err) = run(half.pull().env("SSL_CERT_FILE", &authority));
    assert_eq!(code, 2);
    assert!(err.contains("not encrypted: not followed"), "{err}");
    assert!(half.ranges().is_empty());

    let unknown = world(true);
    let (code, _, err) = run(unknown.pull().env_remove("SSL_CERT_FILE"));
    assert_eq!(code, 2);
    assert!(err.contains("no safe connection to 127.0.0.1"), "{err}");
    assert!(unknown.server.hub.seen().is_empty());
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_named() {
    let world = World::new();
    std::fs::create_dir_all(world.part().parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/dev/full", world.part()).unwrap();
    let (code, _, err) = run(&mut world.pull());
    assert_eq!(code, 2);
    assert!(err.contains("make room") && err.contains(".incomplete"), "{err}");
}

#[test]
fn a_name_that_the_cache_does_not_have_says_where_it_was_looked_for() {
    let world = World::new();
    let rows: [(&str, &[&str]); 3] = [
        ("tiny", &["openai/whisper-tiny", "Systran/faster-whisper-tiny", "/hub", "`cuewire model pull tiny`"]),
        ("org/other", &["org/other", "`cuewire model pull org/other`"]),
        ("enormous", &["no file or folder enormous", "tiny.en"]),
    ];
    for (name, parts) in rows {
        let (code, _, err) = run(&mut world.cuewire(&["model", "info", name]));
        assert_eq!(code, 2);
        for part in parts {
            assert!(err.contains(part), "{name}: {part:?} is not in {err}");
        }
    }
    assert!(world.server.hub.seen().is_empty());
}
