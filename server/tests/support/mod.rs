//! A server over a scripted decoder, and clients of it.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cuewire::asr::{DecodeJob, Hypothesis, ScriptedDecoder};
use cuewire::config::{LanguageSetting, Task};
use cuewire::engine::{Engine, EngineConfig, Idle, Model};
use cuewire::time::Timestamp;
use cuewire_server::api::token::sign;
use cuewire_server::{Server, ServerConfig, now};
use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest as _;
use tungstenite::{Message, WebSocket};

use document::Document;

pub(crate) mod bucket;
pub(crate) mod document;
pub(crate) mod receiver;
pub(crate) mod schemas;
#[path = "../../../tests/support/session.rs"]
pub(crate) mod sounds;

pub(crate) const KEY: &str = "key";
pub(crate) const SECRET: &str = "a secret of the platform's";
const PATIENCE: Duration = Duration::from_secs(10);

/// Says in which language it listened; `decodes` counts.
fn model(decodes: Arc<AtomicU64>) -> Arc<dyn Model> {
    Arc::new(move |_: &Idle| {
        let decodes = decodes.clone();
        ScriptedDecoder::new(move |job: &DecodeJob| {
            decodes.fetch_add(1, Ordering::Relaxed);
            let LanguageSetting::Fixed(language) = job.language else {
                return Ok(Hypothesis::certain("heard something", job));
            };
            let how = if job.task == Task::Translate { "translated" } else { "heard" };
            Ok(Hypothesis::certain(&format!("{how} {language}"), job))
        })
    })
}

/// One that nobody counts.
pub(crate) fn scripted_model() -> Arc<dyn Model> {
    model(Arc::default())
}

pub(crate) struct Service {
    server: Option<Server>,
    model: Arc<dyn Model>,
    pub(crate) folder: tempfile::TempDir,
    /// How often the model was asked.
    pub(crate) decodes: Arc<AtomicU64>,
    pub(crate) addr: String,
    agent: ureq::Agent,
    schemas: Option<Value>,
}

/// The clients' name of a request of either family.
fn operation(method: &str, path: &str) -> Option<&'static str> {
    let path = path.split('?').next().unwrap().replace("//", "/");
    let parts: Vec<_> = path.trim_start_matches("/api/v2").split('/').skip(1).collect();
    Some(match (method, &parts[..]) {
        ("POST" | "PATCH", ["users"]) => "update_users",
        ("GET", ["users"]) => "query_users",
        ("GET", ["roles"]) => "list_roles",
        ("POST", ["roles"]) => "create_role",
        ("GET", ["permissions"]) => "list_permissions",
        ("GET", ["app"]) => "get_app",
        ("GET", ["external_storage"]) => "list_external_storage",
        ("POST", ["external_storage"]) => "create_external_storage",
        ("PUT", ["external_storage", _]) => "update_external_storage",
        ("DELETE", ["external_storage", _]) => "delete_external_storage",
        ("GET", ["external_storage", _, "check"]) => "check_external_storage",
        ("GET", ["video", "calltypes"]) => "list_call_types",
        ("POST", ["video", "calltypes"]) => "create_call_type",
        ("GET", ["video", "calltypes", _]) => "get_call_type",
        ("PUT", ["video", "calltypes", _]) => "update_call_type",
        ("DELETE", ["video", "calltypes", _]) => "delete_call_type",
        ("POST", ["video", "calls"]) => "query_calls",
        ("POST", ["video", "call", "members"]) => "query_call_members",
        ("POST", ["video", "call", _, _]) => "get_or_create_call",
        ("GET", ["video", "call", _, _]) => "get_call",
        ("PATCH", ["video", "call", _, _]) => "update_call",
        ("POST", ["video", "call", _, _, verb]) => match *verb {
            "delete" => "delete_call",
            "mark_ended" => "end_call",
            "members" => "update_call_members",
            "user_permissions" => "update_user_permissions",
            "start_transcription" => "start_transcription",
            "stop_transcription" => "stop_transcription",
            "start_closed_captions" => "start_closed_captions",
            "stop_closed_captions" => "stop_closed_captions",
            "closed_captions" => "send_closed_caption",
            "rtp" => return None,
            verb => panic!("{verb}"),
        },
        ("GET", ["video", "call", _, _, "transcriptions"]) => "list_transcriptions",
        ("DELETE", ["video", "call", .., "transcriptions", _]) => "delete_transcription",
        _ => return None,
    })
}

fn start(folder: &std::path::Path, model: Arc<dyn Model>, change: impl FnOnce(&mut ServerConfig)) -> Server {
    // As few as are overloaded by what the tests say, on any machine.
    let mut of_engine = EngineConfig::default();
    of_engine.workers = NonZeroUsize::new(2).unwrap();
    let engine = Engine::start(of_engine, vec![model.clone()]).unwrap();
    let mut config = ServerConfig::new(folder, KEY, SECRET);
    config.listen = ([127, 0, 0, 1], 0).into();
    change(&mut config);
    Server::start(config, engine, model).unwrap()
}

fn agent() -> ureq::config::ConfigBuilder<ureq::typestate::AgentScope> {
    ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE))
}

/// A token of `user`, which does for so long; of a server where it is empty.
pub(crate) fn token_for(user: &str, seconds: i64) -> String {
    sign(Some(user).filter(|user| !user.is_empty()), now().plus_nanos(seconds * 1_000_000_000), SECRET).unwrap()
}

pub(crate) fn token(user: &str) -> String {
    token_for(user, 3600)
}

impl Service {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| ())
    }

    pub(crate) fn start_with(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let decodes: Arc<AtomicU64> = Arc::default();
        Self { decodes: decodes.clone(), ..Self::start_model(model(decodes), change) }
    }

    /// Over a model of one's own.
    pub(crate) fn start_model(model: Arc<dyn Model>, change: impl FnOnce(&mut ServerConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let decodes = Arc::default();
        let server = start(folder.path(), model.clone(), change);
        Self {
            addr: server.local_addr().to_string(),
            server: Some(server),
            model,
            folder,
            decodes,
            agent: agent().build().into(),
            schemas: schemas::schemas(),
        }
    }

    /// With a connection for each request: one that is kept may be given up just as the next request is written.
    pub(crate) fn keeping_no_connection(mut self) -> Self {
        self.agent = agent().max_idle_connections(0).build().into();
        self
    }

    /// Where its metrics are.
    pub(crate) fn metrics_addr(&self) -> SocketAddr {
        self.server.as_ref().unwrap().metrics_addr().unwrap()
    }

    /// Ends the server and starts another one over the same data.
    pub(crate) fn restart(&mut self) {
        self.restart_with(|_| ());
    }

    pub(crate) fn restart_with(&mut self, change: impl FnOnce(&mut ServerConfig)) {
        self.end();
        self.begin_with(change);
    }

    /// Over a copy of a folder.
    pub(crate) fn start_over(folder: &std::path::Path) -> Self {
        let mut service = Self::start();
        service.end();
        for name in ["", "transcripts"] {
            let (from, to) = (folder.join(name), service.folder.path().join(name));
            std::fs::remove_dir_all(&to).unwrap();
            std::fs::create_dir(&to).unwrap();
            for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
                std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
            if name.is_empty() {
                std::fs::create_dir(to.join("transcripts")).unwrap();
            }
        }
        service.begin();
        service
    }

    /// Starts the server that was ended.
    pub(crate) fn begin(&mut self) {
        self.begin_with(|_| ());
    }

    pub(crate) fn begin_with(&mut self, change: impl FnOnce(&mut ServerConfig)) {
        let server = start(self.folder.path(), self.model.clone(), change);
        self.addr = server.local_addr().to_string();
        self.server = Some(server);
    }

    /// Ends the server.
    pub(crate) fn end(&mut self) {
        self.server.take().unwrap().shutdown(PATIENCE);
    }

    pub(crate) fn url(&self, path: &str) -> String {
        let sign = if path.contains('?') { '&' } else { '?' };
        format!("http://{}{path}{sign}api_key={KEY}", self.addr)
    }

    /// What the server says of itself.
    pub(crate) fn document(&self) -> &'static Document {
        Document::of(|| {
            let answer = self.agent.get(format!("http://{}/openapi.json", self.addr)).call();
            serde_json::from_str(&answer.unwrap().body_mut().read_to_string().unwrap()).unwrap()
        })
    }

    /// Sends a request as it stands. Whatever is answered is as the document says.
    pub(crate) fn send(&self, request: ureq::http::request::Builder, body: Option<&str>) -> (u16, Value) {
        self.send_bytes(request, body.unwrap_or_default().as_bytes())
    }

    /// The same, of a body that need not be text.
    pub(crate) fn send_bytes(&self, request: ureq::http::request::Builder, body: &[u8]) -> (u16, Value) {
        let request = request.body(body.to_vec()).unwrap();
        let (method, path) = (request.method().to_string(), request.uri().path().to_string());
        let mut answer = self.agent.run(request).unwrap();
        let kind = answer.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_string());
        let status = answer.status().as_u16();
        let text = answer.body_mut().read_to_string().unwrap();
        assert_eq!(kind.as_deref(), Some("application/json"), "{status} {text}");
        let answer = serde_json::from_str(&text).unwrap();
        self.document().check(&method, &path, &String::from_utf8_lossy(body), status, "application/json", &answer);
        (status, answer)
    }

    /// A request of `user`; of a server where it is empty.
    pub(crate) fn request(&self, method: &str, path: &str, user: &str, body: &Value) -> (u16, Value) {
        let request = ureq::http::Request::builder().method(method).uri(self.url(path));
        let request = request.header("Authorization", token(user)).header("Content-Type", "application/json");
        self.send(request, Some(&body.to_string()))
    }

    /// A request that is to succeed.
    pub(crate) fn ok(&self, method: &str, path: &str, user: &str, body: &Value) -> Value {
        let (status, answer) = self.request(method, path, user, body);
        assert!((200..300).contains(&status), "{method} {path} {body}: {status} {answer:#}");
        if let (Some(schemas), Some(operation)) = (&self.schemas, operation(method, path)) {
            let is_browsers = !path.starts_with("/api/");
            let schema = &schemas["responses"][operation];
            schemas::check_for(is_browsers, schemas, schema, &answer, &format!("{method} {path}"));
        }
        answer
    }

    /// A request that is to be refused; its code and message.
    pub(crate) fn refused(&self, method: &str, path: &str, user: &str, body: &Value) -> (i64, String) {
        let (status, answer) = self.request(method, path, user, body);
        let is_refused = (400..500).contains(&status) || status == 503;
        assert!(is_refused, "{method} {path} {body}: {status} {answer:#}");
        check_error(status, &answer);
        (answer["code"].as_i64().unwrap(), answer["message"].as_str().unwrap().to_string())
    }

    /// Bytes and headers of a URL.
    pub(crate) fn fetch(&self, url: &str, range: Option<&str>) -> (u16, String, String) {
        self.fetch_as("GET", url, range, "")
    }

    pub(crate) fn fetch_as(&self, method: &str, url: &str, range: Option<&str>, token: &str) -> (u16, String, String) {
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        if let Some(range) = range {
            request = request.header("Range", range);
        }
        if !token.is_empty() {
            request = request.header("Authorization", token);
        }
        let request = request.body(String::new()).unwrap();
        let path = request.uri().path().to_string();
        let mut answer = self.agent.run(request).unwrap();
        let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_string());
        let (range, kind) = (header("content-range").unwrap_or_default(), header("content-type").unwrap_or_default());
        let (status, text) = (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap());
        if !kind.is_empty() {
            let value = if kind == "application/json" { serde_json::from_str(&text).unwrap() } else { json!(text) };
            self.document().check(method, &path, "", status, &kind, &value);
        }
        (status, text, range)
    }

    pub(crate) fn connect(&self, path: &str) -> Socket {
        let stream = TcpStream::connect(&self.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = self.url(path).replace("http://", "ws://").into_client_request().unwrap();
        let (socket, _) = tungstenite::client(request, stream).unwrap();
        Socket(socket)
    }

    /// A client that watches, and its connection's id.
    pub(crate) fn watch(&self, user: &str, query: &str) -> (Socket, String) {
        self.watch_with(&token(user), user, query)
    }

    pub(crate) fn watch_with(&self, token: &str, user: &str, query: &str) -> (Socket, String) {
        let mut socket = self.connect(&format!("/video/connect?stream-auth-type=jwt{query}"));
        socket.say(&json!({"token": token, "products": ["video"], "user_details": {"id": user, "name": "A name"}}));
        let greeting = socket.next().unwrap();
        assert_eq!(greeting["type"], "connection.ok", "{greeting}");
        assert_eq!(greeting["me"]["id"], user);
        (socket, greeting["connection_id"].as_str().unwrap().to_string())
    }

    /// A watcher of the call `default:c`, which is transcribed and captioned from now on.
    pub(crate) fn watched(&self) -> Socket {
        const CALL: &str = "/api/v2/video/call/default/c";
        self.ok("POST", CALL, "", &json!({"data": {"created_by_id": "alice"}}));
        let (watcher, connection) = self.watch("alice", "");
        self.ok("GET", &format!("/video/call/default/c?connection_id={connection}"), "alice", &json!({}));
        self.ok("POST", &format!("{CALL}/start_transcription"), "", &json!({"enable_closed_captions": true}));
        watcher
    }

    /// A participant's connection, before anything was said on it.
    pub(crate) fn audio(&self, path: &str, query: &str) -> Socket {
        self.connect(&format!("/video/call/{path}/audio?{query}"))
    }

    /// A participant who has joined.
    pub(crate) fn join(&self, path: &str, user: &str) -> Socket {
        let mut socket = self.audio(path, &format!("user_id={user}&encoding=linear16&sample_rate=16000&channels=1"));
        socket.say(&json!({"token": token(user)}));
        let joined = socket.next().unwrap();
        assert_eq!(joined["type"], "joined", "{joined}");
        socket
    }
}

/// What clients need of an error, lest they fail in their own way.
pub(crate) fn check_error(status: u16, answer: &Value) {
    assert_eq!(answer["StatusCode"], json!(status), "{answer}");
    for (field, is_right) in [
        ("code", answer["code"].is_i64()),
        ("message", answer["message"].as_str().is_some_and(|message| !message.is_empty())),
        ("duration", answer["duration"].is_string()),
        ("more_info", answer["more_info"].is_string()),
        ("details", answer["details"].is_array()),
    ] {
        assert!(is_right, "{field} of {answer}");
    }
}

pub(crate) struct Socket(pub(crate) WebSocket<TcpStream>);

impl Socket {
    pub(crate) fn say(&mut self, value: &Value) {
        self.0.send(Message::text(value.to_string())).unwrap();
    }

    /// The next object; the close code where there is none.
    pub(crate) fn next(&mut self) -> Result<Value, u16> {
        loop {
            match self.0.read() {
                Ok(Message::Text(text)) => return Ok(serde_json::from_str(&text).unwrap()),
                Ok(Message::Close(frame)) => return Err(frame.map_or(1005, |frame| frame.code.into())),
                Ok(_) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The close code, whatever comes before it.
    pub(crate) fn close_code(&mut self) -> u16 {
        loop {
            if let Err(code) = self.next() {
                return code;
            }
        }
    }

    /// Events up to and with the first of this type.
    pub(crate) fn until(&mut self, last: &str) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            let event = self.next().unwrap_or_else(|code| panic!("closed with {code} behind {events:#?}"));
            let is_last = event["type"] == last;
            events.push(event);
            if is_last {
                return events;
            }
        }
    }

    /// Nothing is said within this time.
    pub(crate) fn is_silent(&mut self, time: Duration) -> bool {
        self.0.get_ref().set_read_timeout(Some(time)).unwrap();
        let silent = matches!(self.0.read(), Err(tungstenite::Error::Io(_)));
        self.0.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
        silent
    }

    /// Sends 16 kHz audio in frames of 20 ms.
    pub(crate) fn speak(&mut self, samples: &[i16]) {
        for frame in samples.chunks(320) {
            let bytes: Vec<u8> = frame.iter().flat_map(|sample| sample.to_le_bytes()).collect();
            self.0.send(Message::binary(bytes)).unwrap();
        }
    }

    /// Waits until the server has read all that was said: it answers a ping in its turn.
    pub(crate) fn is_read(&mut self) {
        self.0.send(Message::Ping(b"so far".to_vec().into())).unwrap();
        while !matches!(self.0.read().unwrap(), Message::Pong(_)) {}
    }

    /// Waits until the server has nothing more to do with a connection that it has closed.
    pub(crate) fn until_gone(mut self) -> tungstenite::Error {
        loop {
            if let Err(error) = self.0.read() {
                return error;
            }
        }
    }

    /// Leaves, and waits until the server has closed.
    pub(crate) fn leave(mut self) {
        self.say(&json!({"type": "close"}));
        self.close_code();
    }
}

/// One utterance of a second, with the silence that ends it.
pub(crate) fn utterance() -> Vec<i16> {
    sounds::sound(16_000, 2_500, &[(300, 1_300)])
}

pub(crate) fn types(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

/// Waits for something that comes about on its own.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn time(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}
