//! What an operator sees: metrics that are those of the manual, logs in which a request is found, and nothing that was said in either.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use cuewire_server::Metrics;
use serde_json::{Value, json};
use tracing_subscriber::layer::SubscriberExt as _;

mod support;

use support::receiver::Receiver;
use support::{SECRET, Service, eventually, token, utterance};

const CALL: &str = "/api/v2/video/call/default/monday";
/// What the scripted model hears.
const SAID: &str = "heard en";

/// What was logged, a JSON object a line.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// What was logged of a request.
    fn of(&self, id: &str) -> Vec<Value> {
        let lines = self.text().lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>();
        lines.into_iter().filter(|line| line["span"]["request_id"] == id).collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Names with their kinds, of the manual's tables.
fn documented(prefix: &str) -> BTreeMap<String, String> {
    let rows = include_str!("../../docs/service.md").lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|');
        let (name, kind) = (cells.next()?.trim().trim_end_matches('`'), cells.next()?.trim());
        let is_one = name.starts_with(prefix) && ["gauge", "counter", "histogram"].contains(&kind);
        is_one.then(|| (name.to_string(), kind.to_string()))
    });
    rows.collect()
}

/// An answer's status, its `x-request-id`, its body.
fn ask(service: &Service, method: &str, path: &str, id: &str) -> (u16, String, Value) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut request = ureq::http::Request::builder().method(method).uri(service.url(path));
    request = request.header("Authorization", token("")).header("Origin", "https://meet.example.org");
    if !id.is_empty() {
        request = request.header("x-client-request-id", id);
    }
    let mut answer = agent.run(request.body("{}").unwrap()).unwrap();
    let header = |name: &str| answer.headers().get(name).unwrap().to_str().unwrap().to_string();
    assert!(header("access-control-expose-headers").contains("x-request-id"), "pages may read it");
    let id = header("x-request-id");
    let text = answer.body_mut().read_to_string().unwrap();
    (answer.status().as_u16(), id, serde_json::from_str(&text).unwrap())
}

#[test]
fn what_an_operator_sees_is_what_the_manual_says_and_nothing_that_was_said() {
    let (log, of_requests) = (Log::default(), tempfile::NamedTempFile::new().unwrap());
    let writer = log.clone();
    let layer = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(move || writer.clone());
    let debug = tracing_subscriber::filter::Targets::new().with_target("cuewire", tracing::Level::DEBUG);
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(debug).with(layer)).unwrap();
    let any = ([127, 0, 0, 1], 0).into();
    let metrics = Metrics::install(any).unwrap();
    assert!(Metrics::install(any).is_err(), "one recorder a process");
    let again = metrics.clone();
    let mut service = Service::start_with(|config| {
        (config.metrics, config.hooks_to_private_addresses) = (Some(metrics), true);
        config.request_log = Some(of_requests.path().to_path_buf());
    });
    let listen = service.metrics_addr();
    let scrape = |listen: SocketAddr| {
        let text = ureq::get(format!("http://{listen}/metrics")).call().unwrap().body_mut().read_to_string().unwrap();
        let value = |line: &str| -> f64 {
            let found = text.lines().find_map(|told| told.strip_prefix(line)?.strip_prefix(' ')?.parse().ok());
            found.unwrap_or(f64::NAN)
        };
        let all: BTreeMap<String, f64> = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
            .map(|line| line.rsplit_once(' ').map(|(name, _)| (name.to_string(), value(name))).unwrap())
            .collect();
        (text, all)
    };
    // What is an alarm's is there before the first time.
    let (_, begun) = scrape(listen);
    for (name, labels) in counters_of_alarms() {
        let is_it = |series: &&String| series.split('{').next() == Some(&*name) && series.contains(&labels);
        let found: Vec<_> = begun.keys().filter(is_it).collect();
        assert!(!found.is_empty() && found.iter().all(|series| begun[*series] == 0.0), "{name} {labels}: {begun:#?}");
    }
    let elsewhere = ureq::get(format!("http://{listen}/api/v2/app")).call();
    assert!(matches!(elsewhere, Err(ureq::Error::StatusCode(404))), "nothing but metrics is there");
    assert_eq!(service.refused("GET", "/metrics", "", &json!({})).0, 16, "and they are nowhere else");

    // A call with all that there is.
    let receiver = Receiver::start();
    let hook = json!({"id": "one", "hook_type": "webhook", "enabled": true, "webhook_url": receiver.url});
    service.ok("PATCH", "/api/v2/app", "", &json!({"event_hooks": [hook]}));
    service.ok("POST", CALL, "", &json!({"data": {"created_by_id": "carol"}}));
    let (mut watcher, connection) = service.watch("carol", "");
    service.ok("GET", &format!("/video/call/default/monday?connection_id={connection}"), "carol", &json!({}));
    service.ok("POST", &format!("{CALL}/start_transcription"), "", &json!({"enable_closed_captions": true}));
    let mut alice = service.join("default/monday", "alice");
    alice.speak(&utterance());
    watcher.until("call.closed_caption");
    eventually("what there is, is told", || {
        let all = scrape(listen).1;
        let is = |name: &str, value: f64| all.get(name) == Some(&value);
        is("cuewire_calls_in_session", 1.0)
            && is("cuewire_participants", 1.0)
            && is("cuewire_connections{kind=\"audio\"}", 1.0)
            && is("cuewire_connections{kind=\"watch\"}", 1.0)
    });
    alice.leave();
    service.ok("POST", &format!("{CALL}/mark_ended"), "", &json!({}));
    watcher.until("call.transcription_ready");
    drop(watcher);
    eventually("what is over, too", || {
        let all = scrape(listen).1;
        all["cuewire_calls_in_session"] == 0.0
            && all["cuewire_participants"] == 0.0
            && all["cuewire_connections{kind=\"watch\"}"] == 0.0
            && all["cuewire_hook_deliveries_waiting"] == 0.0
    });

    // A request's id is the client's, where that does no harm.
    let (status, id, _) = ask(&service, "GET", CALL, "mine-1");
    assert_eq!((status, id.as_str()), (200, "mine-1"));
    let (_, id, _) = ask(&service, "GET", CALL, "two words");
    assert!(id.len() == 36 && id != ask(&service, "GET", CALL, "").1, "{id}");
    // A fault of the server's: somebody else has the database.
    let other = rusqlite::Connection::open(service.folder.path().join("cuewire.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    // The server's patience may be over before it is this request's turn: then another one is told why.
    let tried = (2..12).map(|n| format!("mine-{n}")).find(|mine| {
        let (status, id, answer) = ask(&service, "PATCH", CALL, mine);
        let info = json!(format!("request {mine}"));
        assert_eq!((status, &id, &answer["more_info"]), (500, mine, &info), "{answer}");
        let is_why = |line: &Value| line["message"].as_str().unwrap().contains("journal cannot be written");
        log.of(mine).iter().any(|line| line["level"] == "ERROR" && is_why(line))
    });
    let mine = tried.unwrap_or_else(|| panic!("no request is told that the journal cannot be written: {}", log.text()));
    other.execute_batch("COMMIT").unwrap();
    drop(other);
    eventually("it can be written again", || service.fetch(&service.url("/readyz"), None).0 == 200);
    let failed = log.of(&mine);
    let errors: Vec<_> = failed.iter().filter(|line| line["level"] == "ERROR").collect();
    assert!(errors.iter().all(|line| line["span"]["operation"] == "update_call"), "{failed:#?}");
    assert_eq!(log.of("mine-1").len(), 1, "the line of its answer");
    let requests = std::fs::read_to_string(of_requests.path()).unwrap();
    let requests: Vec<Value> = requests.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_it: Vec<_> = requests.iter().filter(|line| line["request_id"] == *mine).collect();
    assert_eq!(of_it.len(), 1, "{requests:#?}");
    assert!(of_it[0]["status"] == 500 && of_it[0]["duration_ms"].as_f64().unwrap() > 100.0, "{}", of_it[0]);
    for operation in ["connect", "audio"] {
        let greeted = requests.iter().find(|line| line["operation"] == operation).unwrap();
        assert_eq!((greeted["status"].as_u64(), greeted["request_id"].as_str().unwrap().len()), (Some(101), 36));
        assert_eq!(log.of(greeted["request_id"].as_str().unwrap()).len(), 1, "{operation}");
    }

    // Who it was: what they say of their client is cut, and whom they say that they are is not believed.
    let of = |operation: &str| requests.iter().find(|line| line["operation"] == operation).unwrap();
    assert_eq!((&of("connect")["user_id"], &of("connect")["token"]), (&json!("carol"), &json!("user")));
    assert_eq!((&of("audio")["user_id"], &of("audio")["address"]), (&json!("alice"), &json!("127.0.0.1")));
    assert_eq!((&of("update_call")["user_id"], &of("update_call")["token"]), (&Value::Null, &json!("server")));
    let long = format!("/api/v2/app?user_id=mallory&x-stream-client={}", "x".repeat(5000));
    service.fetch(&service.url(&long), None);
    let requests = std::fs::read_to_string(of_requests.path()).unwrap();
    let last: Value = serde_json::from_str(requests.lines().last().unwrap()).unwrap();
    assert_eq!((&last["status"], &last["user_id"], &last["token"]), (&json!(401), &Value::Null, &json!("none")));
    assert_eq!(last["client"], "x".repeat(200));

    let (text, all) = scrape(listen);
    check_format(&text);
    check_names(&text);
    for (name, least) in [
        ("cuewire_requests_total{operation=\"update_call\",status=\"500\"}", 1.0),
        ("cuewire_requests_total{operation=\"connect\",status=\"101\"}", 1.0),
        ("cuewire_request_seconds_count{operation=\"mark_ended\"}", 1.0),
        ("cuewire_events_total{type=\"call.closed_caption\"}", 1.0),
        ("cuewire_hook_deliveries_total{outcome=\"delivered\"}", 8.0),
        ("cuewire_uploads_total{outcome=\"stored\"}", 1.0),
        ("cuewire_events_sent_total", 5.0),
        ("cuewire_commit_seconds_count", 10.0),
        ("cuewire_commit_failures_total", 1.0),
        ("cuewire_database_bytes", 4096.0),
        ("cuewire_disk_free_bytes", 1.0),
        ("cuewire_captions_total{outcome=\"final\"}", 1.0),
        ("process_open_fds", 10.0),
        ("process_resident_memory_bytes", 1e6),
    ] {
        assert!(all.get(name).is_some_and(|value| *value >= least), "{name}: {:?}\n{text}", all.get(name));
    }

    // Neither what was said, nor by whom and where, nor secrets.
    let file = std::fs::read_to_string(of_requests.path()).unwrap();
    let labels: String = text.lines().filter(|line| !line.starts_with('#')).collect();
    for unsaid in ["alice", "carol", "monday"] {
        assert!(!labels.contains(unsaid), "{unsaid} is a label");
    }
    for secret in [SECRET, SAID, "eyJ"] {
        for (what, text) in [("metrics", &labels), ("the log", &log.text()), ("the request log", &file)] {
            assert!(!text.contains(secret), "{what} has {secret}");
        }
    }

    // What was given up before a start is no increase behind it.
    service.end();
    let database = rusqlite::Connection::open(service.folder.path().join("cuewire.db")).unwrap();
    database.execute("INSERT OR REPLACE INTO sqlite_sequence (name, seq) VALUES ('dead_letters', 7)", ()).unwrap();
    drop(database);
    service.begin_with(|config| config.metrics = Some(again));
    assert_eq!(scrape(service.metrics_addr()).1["cuewire_dead_letters_total"], 7.0, "at the first scrape");
}

/// Counters of the manual's alarms, each with what its series have in their labels.
fn counters_of_alarms() -> Vec<(String, String)> {
    let alarms = include_str!("../../docs/service.md").lines().filter(|line| line.contains("{alert: "));
    let words = alarms.flat_map(|line| line.split("cuewire_").skip(1));
    let counters = words.filter_map(|word| word.split_once("_total"));
    let counters: Vec<_> = counters
        .map(|(name, rest)| {
            let labels = rest.strip_prefix('{').and_then(|rest| rest.split('}').next()).unwrap_or_default();
            // By a pattern of theirs: the first of those that it takes.
            (format!("cuewire_{name}_total"), labels.replace("=~\"5..\"", "=\"500\""))
        })
        .collect();
    assert!(counters.len() >= 4, "{counters:?}");
    counters
}

/// As `promtool check metrics` wants it.
fn check_format(text: &str) {
    let comment = |kind: &str| -> BTreeMap<&str, &str> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(kind)?.split_once(' ')).collect::<Vec<_>>();
        let all: BTreeMap<_, _> = lines.iter().copied().collect();
        assert_eq!(all.len(), lines.len(), "{kind}once each");
        all
    };
    let (helps, types) = (comment("# HELP "), comment("# TYPE "));
    assert_eq!(helps.keys().collect::<Vec<_>>(), types.keys().collect::<Vec<_>>(), "both of each");
    for (name, kind) in &types {
        assert!(!helps[name].is_empty(), "{name}");
        assert_eq!(name.ends_with("_total"), *kind == "counter", "{name} {kind}");
        assert!(*kind != "histogram" || name.ends_with("_seconds"), "{name}");
    }
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let name = line.split(['{', ' ']).next().unwrap();
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        assert!(types.contains_key(name) || base.is_some_and(|base| types[base] == "histogram"), "{line}");
        assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
    }
}

/// Every name that is documented is there, and the other way round.
fn check_names(text: &str) {
    let told: BTreeMap<_, _> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| (name.to_string(), kind.to_string()))
        .collect();
    let documented: BTreeMap<_, _> = documented("cuewire_").into_iter().chain(documented("process_")).collect();
    for (name, kind) in &told {
        assert_eq!(documented.get(name), Some(kind), "{name} is told and not documented so");
    }
    let of_engine = include_str!("../../src/engine/mod.rs").lines();
    let of_engine: BTreeSet<_> = of_engine
        .filter_map(|line| line.strip_prefix("//! | `")?.split('`').next())
        .filter(|name| name.starts_with("cuewire_"))
        .collect();
    assert!(of_engine.iter().all(|name| documented.contains_key(*name)), "the manual has all of the engine's");
    // The engine's own are told where there is something to tell; that they are is its own test.
    // And the certificate's where there is one: `tls.rs`.
    let others =
        of_engine.iter().copied().chain(["cuewire_certificate_expires_timestamp_seconds"]).collect::<BTreeSet<_>>();
    for name in documented.keys().filter(|name| !others.contains(name.as_str())) {
        let is_here = cfg!(target_os = "linux") || !name.starts_with("process_");
        assert!(told.contains_key(name) || !is_here, "{name} is documented and not told");
    }
}
