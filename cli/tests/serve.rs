//! The service as people run it: two processes, the built-in model, real recordings, real signals.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure is the report")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use support::{GREETING, UNREACHABLE, run, testdata};

mod support;

fn cuewire(home: &Path) -> Command {
    let mut command = support::cuewire();
    command.env_remove("CUEWIRE_API_KEY").env_remove("CUEWIRE_API_SECRET").env_remove("XDG_DATA_HOME");
    command.env("HOME", home).current_dir(home);
    command
}

/// A server that runs, and where.
struct Serving {
    process: Child,
    stderr: BufReader<std::process::ChildStderr>,
    url: String,
    /// What it said by then.
    said: String,
}

impl Serving {
    fn start(command: &mut Command) -> Self {
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(process.stderr.take().unwrap());
        let mut serving = Self { process, stderr, url: String::new(), said: String::new() };
        while serving.url.is_empty() {
            let mut line = String::new();
            assert!(serving.stderr.read_line(&mut line).unwrap() > 0, "it ended: {}", serving.said);
            serving.said.push_str(&line);
            let url = line.split_once("listening on ").and_then(|(_, rest)| rest.split(';').next());
            serving.url = url.unwrap_or_default().to_string();
        }
        serving
    }

    /// As service managers do; gives its exit code and what it said in all.
    fn terminate(mut self) -> (i32, String) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let code = self.process.wait().unwrap().code().unwrap();
        self.stderr.read_to_string(&mut self.said).unwrap();
        (code, std::mem::take(&mut self.said))
    }

    fn get(&self, path: &str) -> u16 {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        agent.get(format!("{}{path}", self.url)).call().unwrap().status().as_u16()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Where a test has failed; it has ended otherwise.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn nothing_needs_to_be_set() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join(".local/share/cuewire");
    let (code, _, err) = run(cuewire(home.path()).args(["key", "show"]));
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("`cuewire serve` makes one"), "{err}");

    let serving = Serving::start(cuewire(home.path()).args(["serve", "--listen", "127.0.0.1:0"]));
    assert_eq!((serving.get("/healthz"), serving.get("/readyz")), (200, 200));
    let (code, key, _) = run(cuewire(home.path()).args(["key", "show"]));
    assert_eq!(code, 0);
    let secret = key.lines().find_map(|line| line.strip_prefix("api_secret")).unwrap().trim();
    let recording = testdata(GREETING);
    let (code, shown, err) = run(cuewire(home.path()).args(["call", "--url", &serving.url]).arg(&recording));
    assert_eq!(code, 0, "{err}");
    let (_, offline, _) = run(cuewire(home.path()).arg("transcribe").arg(&recording));
    let texts = |transcript: &str| -> Vec<(String, String)> {
        let lines = transcript.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let field = |line: &serde_json::Value, name: &str| line[name].as_str().unwrap().to_string();
        lines.map(|line| (field(&line, "speaker_id"), field(&line, "text"))).collect()
    };
    assert_eq!(texts(&shown), texts(&offline), "the engine's offline text");
    assert!(texts(&shown).iter().all(|(_, text)| err.contains(text)), "shown as they came: {err}");
    let (code, said) = serving.terminate();
    assert_eq!(code, 0);
    assert!(!said.contains(secret), "no secret where no terminal is: {said}");
    assert!(!texts(&shown).iter().any(|(_, text)| said.contains(text)), "nothing that was said: {said}");

    use std::os::unix::fs::PermissionsExt as _;
    for file in ["api_key.json", "url_key"] {
        assert_eq!(data.join(file).metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }
    let mode = data.join("cuewire.db").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "what was said is its owner's");
    let again = Serving::start(cuewire(home.path()).args(["serve", "--listen", "127.0.0.1:0"]));
    assert_eq!(run(cuewire(home.path()).args(["key", "show"])).1, key, "the same key at the next start");
    let (code, _, err) = run(cuewire(home.path()).args(["serve", "--listen", "127.0.0.1:0"]));
    assert!(code == 2 && err.contains("another server"), "two over one folder: {err}");
    assert_eq!(again.terminate().0, 0);
}

#[test]
fn the_environment_wins_over_the_file_and_flags_over_both() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("cuewire.toml");
    let nowhere = "listen = \"203.0.113.1:1\"\napi_key = \"file\"\napi_secret = \"of the file\"\n";
    std::fs::write(&file, nowhere).unwrap();
    let serve = |home: &Path| {
        let mut command = cuewire(home);
        command.args(["serve", "--config", "cuewire.toml", "--listen", "127.0.0.1:0", "--data-dir", "data"]);
        command
    };
    let with_key = |command: &mut Command, key: &str, secret: &str| {
        run(command.env("CUEWIRE_API_KEY", key).env("CUEWIRE_API_SECRET", secret)).0
    };
    let call = |serving: &Serving, key: &str, secret: &str| {
        let mut command = cuewire(home.path());
        command.args(["call", "--fast", "--url", &serving.url]).arg(testdata(GREETING));
        with_key(&mut command, key, secret)
    };
    let of_file = Serving::start(&mut serve(home.path()));
    assert_eq!(call(&of_file, "file", "of the file"), 0);
    assert_eq!(call(&of_file, "file", "another"), 2);
    assert!(!home.path().join("data/api_key.json").exists(), "a key that is set is not kept");
    // What its clients are told where the key is.
    let told = |args: &[&str]| run(cuewire(home.path()).args(args));
    assert_eq!(told(&["key", "show", "--config", "cuewire.toml"]).1, "api_key     file\napi_secret  of the file\n");
    assert_eq!(told(&["key", "token", "--config", "cuewire.toml"]).0, 0);
    let recording = testdata(GREETING).display().to_string();
    let of_config = ["--config", "cuewire.toml", "--url", &of_file.url];
    let (code, _, err) = told(&[&["call", "--fast", &recording], &of_config[..]].concat());
    assert_eq!(code, 0, "{err}");
    let bench = ["bench", "calls", "--participants", "0", "--seconds", "1"];
    let (code, _, err) = told(&[&bench[..], &of_config].concat());
    assert_eq!(code, 0, "{err}");
    let mut command = cuewire(home.path());
    command.args(["key", "show", "--config", "cuewire.toml"]).env("CUEWIRE_API_KEY", "env");
    assert!(run(command.env("CUEWIRE_API_SECRET", "s")).1.contains("env"), "the environment wins here, too");
    // Where the data are, the file says too.
    std::fs::write(home.path().join("other.toml"), "data_dir = \"data\"\n").unwrap();
    let (code, _, err) = told(&["key", "show", "--config", "other.toml"]);
    assert!(code == 2 && err.contains("there is no key in data"), "{err}");
    drop(of_file);
    let mut command = serve(home.path());
    let of_environment =
        Serving::start(command.env("CUEWIRE_API_KEY", "env").env("CUEWIRE_API_SECRET", "of the environment"));
    assert_eq!(call(&of_environment, "env", "of the environment"), 0);
    assert_eq!(call(&of_environment, "file", "of the file"), 2);
}

#[test]
fn what_is_wrong_with_a_configuration_is_said_before_anything_is_made() {
    let home = tempfile::tempdir().unwrap();
    for (toml, parts) in [
        ("listen = \"127.0.0.1:0\"\nlisten_on = 1\n", &["cuewire.toml", "line 2", "listen_on"][..]),
        ("cors_origins = [\"example.org\"]\n", &["cors_origins", "`example.org`", "https://"]),
        ("public_url = \"example.org\"\n", &["public_url", "`example.org`", "https://"]),
        ("api_key = \"alone\"\n", &["api_secret", "both"]),
        ("api_key = \"\"\napi_secret = \"\"\n", &["api_secret", "empty"]),
        ("transcript_retention_days = -1\n", &["line 1", "-1"]),
        ("transcript_retention_days = 999999\n", &["transcript_retention_days", "999999", "36500"]),
        ("model = \"nowhere.gguf\"\n", &["nowhere.gguf"]),
        ("sync = \"often\"\n", &["line 1", "often", "each", "second", "never"]),
        ("default_storage = \"ours\"\n", &["default_storage", "`ours`", "storages.ours"]),
        ("[storages.ours]\nstorage_type = \"s3\"\nbucket = \"captions\"\n", &["storages.ours", "aws_s3 is missing"]),
        ("[storages.ours]\nstorage_type = \"s3\"\nbucket = \"b\"\nregion = 1\n", &["line 4", "region"]),
        ("tls_cert = \"cert.pem\"\n", &["tls_key", "both"]),
        ("tls_cert = \"cert.pem\"\ntls_key = \"key.pem\"\n", &["cert.pem: No such file"]),
        ("[limits]\nhead_s = 0\n", &["limits.head_s is 0", "1 – 300"]),
        ("[limits]\nheads = 1\n", &["line 2", "heads"]),
        ("listen = ", &["cuewire.toml", "line 1"]),
        ("\n[storages.ours]\naws_s3 = { s3_regio = \"r\", s3_secret = \"hush\" }\n", &["line 3", "s3_regio"]),
        ("stall_event_s = 0\n", &["stall_event_s is 0", "1 – "]),
        ("first_participant_timeout_s = 0\n", &["first_participant_timeout_s is 0", "1 – "]),
        (
            "rtp_ports_per_user = 40000\n",
            &["rtp_ports_per_user is 40000", "0 (only a server's token opens ports) – 32768"],
        ),
    ] {
        std::fs::write(home.path().join("cuewire.toml"), toml).unwrap();
        for check in [&["--check-config"][..], &[]] {
            let (code, out, err) = run(cuewire(home.path()).args(["serve", "--config", "cuewire.toml"]).args(check));
            assert_eq!((code, out.as_str()), (2, ""), "{toml}: {err}");
            assert!(parts.iter().all(|part| err.contains(part)), "{toml}: {err}");
            assert!(!err.contains("hush"), "a secret is shown: {err}");
        }
    }
    let good = "cors_origins = [\"https://example.org\"]\nlisten = \"127.0.0.1:0\"\n";
    std::fs::write(home.path().join("cuewire.toml"), good).unwrap();
    let check = ["serve", "--check-config", "--config", "cuewire.toml"];
    let (code, _, err) = run(cuewire(home.path()).args(check));
    assert_eq!(code, 0, "{err}");
    assert!(!home.path().join(".local").exists(), "nothing was made");
    let (code, _, err) = run(cuewire(home.path()).args(check).env("CUEWIRE_API_KEY", "alone"));
    assert_eq!(code, 2);
    assert!(err.contains("CUEWIRE_API_SECRET"), "{err}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, _, err) = run(cuewire(home.path()).args(["serve", "--listen", &address]));
    assert_eq!(code, 2);
    assert!(err.contains(&address), "{err}");
}

#[test]
fn all_that_would_fail_is_said_before_it_does_and_beside_a_server_that_runs() {
    let home = tempfile::tempdir().unwrap();
    let check = |toml: &str, args: &[&str]| {
        std::fs::write(home.path().join("cuewire.toml"), toml).unwrap();
        let (code, out, err) =
            run(cuewire(home.path()).args(["serve", "--check-config", "--config", "cuewire.toml"]).args(args));
        assert_eq!(out, "");
        (code, err)
    };
    let serve = |home: &Path| {
        let mut command = cuewire(home);
        command.args(["serve", "--data-dir", "data", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]);
        command
    };
    let mut serving = Serving::start(&mut serve(home.path()));
    let mut line = String::new();
    serving.stderr.read_line(&mut line).unwrap();
    let metrics = line.trim().split_once("metrics on ").unwrap().1.to_string();
    let text = ureq::get(&metrics).call().unwrap().body_mut().read_to_string().unwrap();
    assert!(text.contains("cuewire_build_info{version="), "{text}");
    let listen = format!("listen = \"{}\"\ndata_dir = \"data\"\n", serving.url.trim_start_matches("http://"));
    let (code, err) = check(&listen, &[]);
    assert!(code == 0 && err.contains("by the server that runs") && err.contains("the configuration is good"), "{err}");
    assert!(err.lines().all(|line| line.starts_with("cuewire: ")), "a line each: {err}");
    assert!(!err.contains("error "), "{err}");
    assert_eq!(serving.get("/readyz"), 200, "which goes on");
    assert_eq!(serving.terminate().0, 0);

    std::fs::write(
        home.path().join("data/cuewire.db"),
        "no database at all, for longer than a header of one".repeat(9),
    )
    .unwrap();
    std::fs::write(home.path().join("data/url_key"), "short").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let toml = format!(
        "data_dir = \"data\"\nlisten = \"{0}\"\nmetrics_listen = \"203.0.113.1:1\"\npublic_url = \"http://0.0.0.0:80\"\n\
         transcript_retention_days = 99999\nrequest_log = \"nowhere/log\"\nmodel = \"nowhere.gguf\"\n\
         [storages.ours]\nstorage_type = \"s3\"\nbucket = \"captions\"\n[storages.ours.aws_s3]\ns3_region = \"eu\"\n\
         s3_api_key = \"k\"\ns3_secret = \"never told\"\ns3_custom_endpoint_url = \"http://127.0.0.1:1\"\n",
        taken.local_addr().unwrap()
    );
    let (code, err) = check(&toml, &[]);
    let errors = [
        "settings: transcript_retention_days",
        "data/url_key",
        "database data/cuewire.db",
        "listen 127.0.0.1",
        "metrics_listen 203.0.113.1:1",
        "public_url http://0.0.0.0:80",
        "request_log nowhere/log",
        "model nowhere.gguf",
        "storage ours",
    ];
    for what in errors {
        assert!(err.contains(&format!("cuewire: error    {what}")), "{what}: {err}");
    }
    assert!(code == 2 && err.contains("9 of these would fail"), "{err}");
    assert!(err.contains("warning  cuewire.toml: mode 644") && !err.contains("never told"), "{err}");
    let (code, err) = check(&toml, &["--offline"]);
    assert!(
        code == 2 && err.contains("8 of these would fail") && !err.contains("storage ours"),
        "no other machine is asked: {err}"
    );
    // A disk of its own that is nearly full.
    let small = home.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let mount = format!("mount -t tmpfs -o size=32m none {} && exec \"$@\"", small.display());
    let isolated = |program: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", &mount, "sh"]).args(program);
        command.env("HOME", home.path()).current_dir(home.path()).output()
    };
    if isolated(&["true"]).is_ok_and(|output| output.status.success()) {
        let toml = "data_dir = \"small/data\"\nlisten = \"127.0.0.1:0\"\n";
        std::fs::write(home.path().join("cuewire.toml"), toml).unwrap();
        let check = ["serve", "--check-config", "--offline", "--config", "cuewire.toml"];
        let output = isolated(&[&[env!("CARGO_BIN_EXE_cuewire")][..], &check].concat()).unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(err.contains("error    data_dir small/data: 33 MB are free: it will be full"), "{err}");
    } else {
        eprintln!("!!!! SKIPPED: a disk that is nearly full, for want of a mount namespace");
    }
    std::fs::write(home.path().join("file"), "").unwrap();
    let (code, err) = check("data_dir = \"file\"\nlisten = \"127.0.0.1:0\"\n", &[]);
    assert!(code == 2 && err.contains("error    data_dir file: it is no folder"), "{err}");
}

#[test]
fn the_log_is_json_where_that_is_set_to_the_last_line() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("cuewire.toml"), "log_format = \"json\"\nlog_level = \"error\"\n").unwrap();
    let mut command = cuewire(home.path());
    command.args([
        "serve",
        "--config",
        "cuewire.toml",
        "--log-level",
        "debug",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        "data",
    ]);
    command.env("CUEWIRE_API_KEY", "key").env("CUEWIRE_API_SECRET", "never told");
    // A service manager, who is told too.
    let manager = std::os::unix::net::UnixDatagram::bind(home.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let told = || {
        let mut message = [0; 64];
        let bytes = manager.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..bytes]).trim().to_string()
    };
    let serving = Serving::start(command.env("NOTIFY_SOCKET", home.path().join("notify")));
    assert_eq!(told(), "READY=1");
    let (code, token, _) = run(cuewire(home.path())
        .args(["key", "token", "--user", "alice"])
        .env("CUEWIRE_API_KEY", "key")
        .env("CUEWIRE_API_SECRET", "never told"));
    assert_eq!(code, 0);
    let url = format!("{}/video/call/default/monday?api_key=key", serving.url);
    let ask = |token: &str| {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let request = agent.post(&url).header("Authorization", token).header("x-client-request-id", "mine-1");
        request.send("{}").unwrap().status().as_u16()
    };
    assert_eq!((ask(token.trim()), ask("none")), (201, 401), "the token does");
    let (code, said) = serving.terminate();
    assert_eq!((code, told().as_str()), (0, "STOPPING=1"));
    let lines: Vec<serde_json::Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines[0]["message"].as_str().unwrap().starts_with("listening on "), "{said}");
    let answered: Vec<_> = lines.iter().filter(|line| line["span"]["request_id"] == "mine-1").collect();
    let statuses: Vec<_> = answered.iter().map(|line| line["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [201, 401], "{said}");
    assert!(!said.contains("never told") && !said.contains(token.trim()), "{said}");
    // What ends it at once, too.
    let (code, out, err) =
        run(cuewire(home.path()).args(["serve", "--config", "cuewire.toml", "--listen", "203.0.113.1:1"]));
    let last: serde_json::Value = serde_json::from_str(err.lines().last().unwrap()).unwrap();
    assert!(code == 2 && out.is_empty() && last["level"] == "ERROR", "{err}");
}

#[test]
fn a_call_without_a_server_or_a_recording_says_so() {
    let home = tempfile::tempdir().unwrap();
    let call = |url: &str, file: &Path| {
        let mut command = cuewire(home.path());
        command.args(["call", "--url", url]).arg(file);
        run(command.env("CUEWIRE_API_KEY", "key").env("CUEWIRE_API_SECRET", "secret"))
    };
    for (url, file, part) in [
        (format!("http://{UNREACHABLE}"), testdata(GREETING), UNREACHABLE.to_string()),
        (format!("http://{UNREACHABLE}"), PathBuf::from("missing.wav"), "missing.wav".to_string()),
        ("https://example.org".into(), testdata(GREETING), "http://HOST:PORT".to_string()),
    ] {
        let (code, out, err) = call(&url, &file);
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        assert!(err.contains(&part), "{err}");
    }
    let mut command = cuewire(home.path());
    let (code, _, err) = run(command.arg("call").arg(testdata(GREETING)));
    assert_eq!(code, 2);
    assert!(err.contains("CUEWIRE_API_KEY") && err.contains("--data-dir"), "{err}");
}

#[test]
fn what_was_answered_is_there_after_kill_9() {
    let home = tempfile::tempdir().unwrap();
    let serve = || {
        let mut command = cuewire(home.path());
        command.args(["serve", "--data-dir", "data", "--listen", "127.0.0.1:0"]);
        Serving::start(command.env("CUEWIRE_API_KEY", "key").env("CUEWIRE_API_SECRET", "secret"))
    };
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let token = cuewire_server::api::token::sign(None, cuewire_server::now().plus_nanos(3_600_000_000_000), "secret");
    let token = token.unwrap();
    let ask = |serving: &Serving, method: &str, path: &str, body: serde_json::Value| -> serde_json::Value {
        let url = format!("{}/api/v2/video/call/default/monday{path}?api_key=key", serving.url);
        let request = ureq::http::Request::builder().method(method).uri(url).header("Authorization", &token);
        let mut answer = agent.run(request.body(body.to_string()).unwrap()).unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        assert!(answer.status().is_success(), "{method} {path}: {text}");
        serde_json::from_str(&text).unwrap()
    };
    let mut serving = serve();
    ask(&serving, "POST", "", serde_json::json!({"data": {"created_by_id": "carol"}}));
    ask(&serving, "POST", "/start_transcription", serde_json::json!({"enable_closed_captions": true}));
    for text in ["one", "two"] {
        let caption = serde_json::json!({"speaker_id": "bob", "text": text, "user_id": "carol"});
        ask(&serving, "POST", "/closed_captions", caption);
        // Where it stands, behind the answer.
        serving.process.kill().unwrap();
        serving.process.wait().unwrap();
        serving = serve();
    }
    let call = ask(&serving, "GET", "", serde_json::Value::Null);
    assert_eq!(call["call"]["transcribing"], true, "it goes on");
    ask(&serving, "POST", "/stop_transcription", serde_json::json!({"stop_closed_captions": true}));
    let listed = (0..1200).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        let listed = ask(&serving, "GET", "/transcriptions", serde_json::Value::Null);
        listed["transcriptions"][0]["url"].as_str().map(str::to_string)
    });
    let text = agent.get(listed.unwrap()).call().unwrap().body_mut().read_to_string().unwrap();
    let texts: Vec<_> = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()).collect();
    assert_eq!(texts.iter().map(|line| line["text"].as_str().unwrap()).collect::<Vec<_>>(), ["one", "two"]);
}

/// System calls of a server, from the first byte of a request to the first of its answer.
fn system_calls_of_a_request(home: &Path, sync: &str) -> Vec<String> {
    std::fs::write(home.join("cuewire.toml"), format!("sync = \"{sync}\"\nrequest_log = \"requests.jsonl\"\n"))
        .unwrap();
    let trace = home.join("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-y", "-s", "48", "-e", "trace=fdatasync,fsync,recvfrom,read,sendto,write,writev,pwrite64"]);
    command.arg("-o").arg(&trace).arg(env!("CARGO_BIN_EXE_cuewire"));
    command.args(["serve", "--data-dir", sync, "--listen", "127.0.0.1:0", "--config", "cuewire.toml"]);
    command.env("HOME", home).env("CUEWIRE_API_KEY", "key").env("CUEWIRE_API_SECRET", "secret").current_dir(home);
    let serving = Serving::start(&mut command);
    let token = cuewire_server::api::token::sign(None, cuewire_server::now().plus_nanos(3_600_000_000_000), "secret");
    let url = format!("{}/api/v2/video/call/default/monday?api_key=key", serving.url);
    let body = "{\"data\": {\"created_by_id\": \"carol\"}}";
    let answer = ureq::post(url).header("Authorization", &token.unwrap()).send(body).unwrap();
    assert_eq!(answer.status(), 201);
    // What traces it ends with it, once it is told.
    let of_server = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", serving.process.id())).unwrap();
    let status = Command::new("kill").args(["-TERM", of_server.trim()]).status().unwrap();
    assert!(status.success(), "{of_server}");
    let mut serving = serving;
    serving.process.wait().unwrap();
    let calls: Vec<String> = std::fs::read_to_string(&trace).unwrap().lines().map(str::to_string).collect();
    let asked = calls.iter().position(|call| call.contains("POST /api/v2")).unwrap();
    let answered = calls.iter().position(|call| call.contains("HTTP/1.1 201")).unwrap();
    calls[asked..answered].to_vec()
}

#[test]
fn what_is_answered_was_synced_before_where_that_is_the_policy() {
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("!!!! SKIPPED: `strace` is not installed, which shows what is synced before an answer");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    for (sync, is_synced) in [("each", true), ("never", false)] {
        let calls = system_calls_of_a_request(home.path(), sync);
        let of_journal =
            |name: &'static str| calls.iter().rposition(|call| call.contains(name) && call.contains("cuewire.db-wal>"));
        let (written, synced) = (of_journal("pwrite64("), of_journal("sync("));
        assert!(written.is_some(), "{calls:#?}");
        assert_eq!(synced > written, is_synced, "sync = {sync}: {calls:#?}");
        let to_log: Vec<_> = calls.iter().filter(|call| call.contains("requests.jsonl>")).collect();
        assert_eq!(to_log.len(), 1, "a line is written at once: {to_log:#?}");
    }
}

#[test]
fn a_data_folder_is_copied_while_a_server_runs_over_it() {
    let home = tempfile::tempdir().unwrap();
    let mut command = cuewire(home.path());
    let serving = Serving::start(command.args(["serve", "--listen", "127.0.0.1:0"]));
    let mut command = cuewire(home.path());
    let (code, out, err) = run(command.args(["call", "--fast", "--url", &serving.url]).arg(testdata(GREETING)));
    assert_eq!(code, 0, "{err}");
    assert!(!out.is_empty());
    let copied = |to: &str| run(cuewire(home.path()).args(["backup", to]));
    let (code, _, err) = copied("copy");
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("1 transcripts"), "{err}");
    let (code, _, err) = copied("copy");
    assert_eq!(code, 2);
    assert!(err.contains("not empty"), "{err}");
    drop(serving);
    let mut command = cuewire(home.path());
    let restored = Serving::start(command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir", "copy"]));
    assert_eq!(restored.get("/readyz"), 200);
    // With the key that clients have.
    let (of_copy, of_first) = (["--data-dir", "copy"], [] as [&str; 0]);
    let key = |args: &[&str]| run(cuewire(home.path()).args(["key", "show"]).args(args)).1;
    assert_eq!(key(&of_copy), key(&of_first));
}
