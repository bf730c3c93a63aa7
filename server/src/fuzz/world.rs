//! A server in this process, over a decoder that says what it is told to, and whoever asks it.
//!
//! In: requests as bytes. Out: answers, within bounded time; and what has panicked on any thread.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::panic::PanicHookInfo;
use std::sync::{Arc, Mutex, MutexGuard, Once, OnceLock, PoisonError};
use std::time::Duration;

use cuewire::asr::{DecodeJob, Hypothesis, ScriptedDecoder};
use cuewire::engine::{Engine, EngineConfig, Idle, Model};
use serde_json::{Value, json};

use crate::api::token::sign;
use crate::clock::now;
use crate::limits::Limits;
use crate::store::Sync;
use crate::{Server, ServerConfig};

pub(super) const KEY: &str = "key";
const SECRET: &str = "a secret of the platform's";
pub(super) const USERS: [&str; 3] = ["ann", "bob", "eve"];
/// How long anything may take, on a machine with other targets.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Inputs behind which another server begins: what the first one keeps would grow without end.
const MOST_INPUTS: u32 = 5_000;
/// Longest body of an answer.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// What has panicked on another thread than the one that is told of it.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

pub(super) struct World {
    server: Option<Server>,
    pub(super) address: SocketAddr,
    /// What the server says that it takes and answers.
    pub(super) document: Value,
    _folder: tempfile::TempDir,
    /// A connection that is kept, as a client's pool would.
    kept: Option<TcpStream>,
    /// One on which the server is asked whether it is there.
    probe: Option<TcpStream>,
    inputs: u32,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
        lines.filter(|(of, _)| of.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }
}

/// Tells of panics of the server's threads, which tokio and the store's thread catch.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
            let thread = std::thread::current();
            if thread.name().is_some_and(|name| name.starts_with("cuewire")) {
                let mut panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
                panics.push(format!("{}: {info}", thread.name().unwrap_or_default()));
            }
            before(info);
        }));
    });
}

/// The server, which goes on from input to input.
pub(super) fn world() -> MutexGuard<'static, World> {
    static WORLD: OnceLock<Mutex<World>> = OnceLock::new();
    let world = WORLD.get_or_init(|| Mutex::new(World::start()));
    let mut world = world.lock().unwrap_or_else(PoisonError::into_inner);
    world.inputs += 1;
    if world.inputs > MOST_INPUTS {
        world.server.take().unwrap().shutdown(PATIENCE);
        *world = World::start();
    }
    world
}

/// A token of a user, or of a server's where there is none, which is good for so long.
pub(super) fn token(user_id: Option<&str>, seconds: i64) -> String {
    sign(user_id, now().plus_nanos(seconds * 1_000_000_000), SECRET).unwrap()
}

impl World {
    fn start() -> Self {
        watch_panics();
        let model: Arc<dyn Model> = Arc::new(|_: &Idle| {
            ScriptedDecoder::new(|job: &DecodeJob| Ok(Hypothesis::certain("heard something", job)))
        });
        let engine = Engine::start(EngineConfig::default(), vec![model.clone()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut config = ServerConfig::new(folder.path(), KEY, SECRET);
        config.listen = ([127, 0, 0, 1], 0).into();
        // Nothing here is to survive a loss of power.
        config.sync = Sync::Never;
        config.rtp.ports = [30_000, 30_999];
        config.limits = Limits {
            head_s: 5,
            body_s: 5,
            user_requests_per_min: 1_000_000,
            server_requests_per_min: 100_000_000,
            address_requests_per_min: 1_000_000,
            connects_per_min: 100_000,
            sockets_per_user: 100_000,
            max_tracks: 1_000_000,
            ..Limits::default()
        };
        let document = serde_json::from_str(&crate::api::document::document(&config.limits)).unwrap();
        let server = Server::start(config, engine, model).unwrap();
        let address = server.local_addr();
        let mut world =
            Self { server: Some(server), address, document, _folder: folder, kept: None, probe: None, inputs: 0 };
        let users: Value = USERS.iter().map(|id| ((*id).to_string(), json!({"id": id, "role": "user"}))).collect();
        world.made("/users", &json!({"users": users}));
        for call in ["default/a", "development/a", "livestream/a"] {
            let data = json!({"created_by_id": "ann", "members": [{"user_id": "bob", "role": "admin"}]});
            world.made(&format!("/video/call/{call}"), &json!({"data": data}));
        }
        world.made("/video/call/development/a/start_transcription", &json!({"enable_closed_captions": true}));
        world
    }

    /// Something that has to be there.
    fn made(&mut self, path: &str, body: &Value) {
        let (body, token) = (body.to_string(), token(None, 3600));
        let length = body.len();
        let request = format!(
            "POST /api/v2{path}?api_key={KEY} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let answer = self.ask(request.as_bytes(), false);
        assert_eq!(answer.status, 201, "{path}: {answer:?}");
    }

    pub(super) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect_timeout(&self.address, PATIENCE).expect("the server takes connections");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Sends a whole request on the connection that is kept, and reads its answer.
    pub(super) fn ask(&mut self, request: &[u8], has_no_body: bool) -> Answer {
        // One that was idle for too long is closed by now: a client tries again, once.
        if let Some(mut stream) = self.kept.take()
            && stream.write_all(request).is_ok()
            && let Some(answer) = read(&mut stream, has_no_body)
        {
            self.keep(stream, &answer);
            return answer;
        }
        let mut stream = self.connect();
        stream.write_all(request).expect("the server reads a request");
        let answer = read(&mut stream, has_no_body).expect("the server answers");
        self.keep(stream, &answer);
        answer
    }

    fn keep(&mut self, stream: TcpStream, answer: &Answer) {
        let is_closed = answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        self.kept = (!is_closed).then_some(stream);
    }

    /// Sends bytes that need be no request, and reads all that is said to them until the server closes.
    pub(super) fn say(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        // Who has had enough closes before all is written.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        read_all(&mut stream).0
    }

    /// The server is there for others, and nothing has panicked.
    pub(super) fn is_well(&mut self) {
        const PROBE: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
        let kept = self.probe.take().and_then(|mut stream| {
            stream.write_all(PROBE).ok()?;
            Some((read(&mut stream, false)?, stream))
        });
        let (answer, stream) = kept.unwrap_or_else(|| {
            let mut stream = self.connect();
            stream.write_all(PROBE).expect("the server reads a request");
            (read(&mut stream, false).expect("the server is well"), stream)
        });
        assert_eq!(answer.status, 200, "the server is not well: {answer:?}");
        self.probe = Some(stream);
        let panics = std::mem::take(&mut *PANICS.lock().unwrap_or_else(PoisonError::into_inner));
        assert!(panics.is_empty(), "the server has panicked: {panics:#?}");
    }
}

/// All that comes until the other side closes, and whether it closed and did not reset.
pub(super) fn read_all(stream: &mut TcpStream) -> (Vec<u8>, bool) {
    let (mut all, mut part) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut part) {
            Ok(0) => return (all, true),
            Ok(count) => all.extend_from_slice(&part[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("the server neither answers nor closes within {PATIENCE:?}: {:?}", String::from_utf8_lossy(&all))
            }
            // What the server has not read when it closes resets the connection.
            Err(_) => return (all, false),
        }
    }
}

/// One answer; `None` where the connection was closed instead.
fn read(stream: &mut TcpStream, has_no_body: bool) -> Option<Answer> {
    let (mut all, mut part) = (Vec::new(), [0; 16 * 1024]);
    let mut more = |all: &mut Vec<u8>| match stream.read(&mut part) {
        Ok(count) => {
            all.extend_from_slice(&part[..count]);
            count > 0
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            panic!("no answer within {PATIENCE:?}: {:?}", String::from_utf8_lossy(all))
        }
        Err(_) => false,
    };
    let head_bytes = loop {
        if let Some(end) = all.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if !more(&mut all) {
            assert!(all.is_empty(), "an answer breaks off: {:?}", String::from_utf8_lossy(&all));
            return None;
        }
    };
    let head = String::from_utf8(all[..head_bytes].to_vec()).expect("a head is a text");
    let status = head.get(9..12).and_then(|status| status.parse().ok()).expect("a status");
    let mut answer = Answer { status, head, body: all.split_off(head_bytes) };
    let length = answer.header("content-length").map_or(0, |length| length.parse().expect("a length"));
    assert!(answer.header("transfer-encoding").is_none(), "answers have a length: {answer:?}");
    if !has_no_body && !matches!(status, 101 | 204 | 304) {
        assert!(length <= MAX_ANSWER_BYTES, "{answer:?}");
        while answer.body.len() < length {
            assert!(more(&mut answer.body), "an answer breaks off: {answer:?}");
        }
    }
    assert!(answer.body.len() <= length || status == 101, "more is answered than was asked: {answer:?}");
    Some(answer)
}
