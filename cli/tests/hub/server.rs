//! A hub-shaped server and a "CDN", on the loopback interface: what a hub answers, and how it may fail.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use sha2::Digest as _;

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub(crate) const TOKEN: &str = "hf_secret";

/// What was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) range: Option<String>,
    pub(crate) authorization: Option<String>,
}

/// How a request goes wrong.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// This status, with these headers.
    Status(&'static str, &'static str),
    /// The connection closes after so many bytes of the body.
    Cut(usize),
    /// After so many bytes of the body nothing more comes.
    Hold(usize),
    /// One bit of the body is another.
    Corrupt,
    /// This file, when it is fetched: one bit of it is another. What comes before goes well.
    CorruptFile(&'static str),
    /// So many bytes more than the file has.
    More(usize),
    /// All of the body, whatever range was asked for.
    NoRange,
    /// A byte is left out of the range that was asked for, and that is said.
    WrongRange,
}

#[derive(Default)]
struct State {
    seen: Mutex<Vec<Seen>>,
    faults: Mutex<VecDeque<Fault>>,
}

/// One listener.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) url: String,
    state: Arc<State>,
}

struct Reply {
    status: &'static str,
    headers: String,
    body: Vec<u8>,
}

fn reply(status: &'static str, headers: impl Into<String>, body: impl Into<Vec<u8>>) -> Reply {
    Reply { status, headers: headers.into(), body: body.into() }
}

impl Server {
    fn start(tls: Option<Arc<ServerConfig>>, answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let state = Arc::new(State::default());
        let (answer, shared) = (Arc::new(answer), state.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (answer, state, tls) = (answer.clone(), shared.clone(), tls.clone());
                std::thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    // A client that goes away in the middle is part of the tests.
                    match tls {
                        None => serve(&mut stream, &state, &*answer),
                        Some(tls) => {
                            let mut stream = StreamOwned::new(ServerConnection::new(tls).unwrap(), stream);
                            let served = serve(&mut stream, &state, &*answer);
                            stream.conn.send_close_notify();
                            let _ = stream.flush();
                            served
                        }
                    }
                });
            }
        });
        Self { url, state }
    }

    pub(crate) fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state.faults.lock().unwrap().extend(faults);
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }
}

/// What the server shows, signed by `tls/authority.pem`. The key is of no worth: it guards nothing but these tests.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn certificate() -> Arc<ServerConfig> {
    let chain = vec![CertificateDer::from_pem_slice(include_bytes!("tls/server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("tls/server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls_graviola::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    Arc::new(config.with_single_cert(chain, key).unwrap())
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn certificate() -> Arc<ServerConfig> {
    panic!("there is no TLS for this processor")
}

/// Serves one request.
fn serve<S: Read + Write>(stream: &mut S, state: &State, answer: &dyn Fn(&Seen) -> Reply) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let mut words = lines.next()?.split(' ');
    let mut seen = Seen { method: words.next()?.into(), path: words.next()?.into(), range: None, authorization: None };
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        match name.to_ascii_lowercase().as_str() {
            "range" => seen.range = Some(value.into()),
            "authorization" => seen.authorization = Some(value.into()),
            _ => {}
        }
    }
    state.seen.lock().unwrap().push(seen.clone());
    let fault = {
        let mut faults = state.faults.lock().unwrap();
        let is_later = matches!(faults.front(), Some(Fault::CorruptFile(name))
            if seen.method != "GET" || !seen.path.ends_with(name));
        if is_later { None } else { faults.pop_front() }
    };
    let Reply { mut status, mut headers, mut body } = answer(&seen);
    let length = body.len();
    match (&fault, &seen.range) {
        (Some(Fault::Status(other, with)), _) => (status, headers, body) = (other, with.to_string(), Vec::new()),
        (Some(Fault::NoRange), _) | (_, None) => {}
        (_, Some(range)) if status == "200 OK" => {
            let start: usize = range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().unwrap();
            let start = start + usize::from(matches!(fault, Some(Fault::WrongRange)));
            if start >= length {
                (status, body) = ("416 Range Not Satisfiable", Vec::new());
                headers += &format!("Content-Range: bytes */{length}\r\n");
            } else {
                (status, body) = ("206 Partial Content", body.split_off(start));
                headers += &format!("Content-Range: bytes {start}-{}/{length}\r\n", length - 1);
            }
        }
        _ => {}
    }
    match fault {
        Some(Fault::Corrupt | Fault::CorruptFile(_)) => *body.last_mut()? ^= 1,
        Some(Fault::More(count)) => body.resize(body.len() + count, 0),
        _ => {}
    }
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).ok()?;
    if seen.method == "HEAD" {
        return None;
    }
    let sent = match fault {
        Some(Fault::Cut(n) | Fault::Hold(n)) => n,
        _ => body.len(),
    };
    stream.write_all(&body[..sent]).ok()?;
    if let Some(Fault::Hold(_)) = fault {
        // Until the client goes away.
        let _ = stream.read(&mut [0]);
    }
    None
}

/// A hub with one repository, `org/random`, whose weights lie on another host.
pub(crate) struct Hub {
    pub(crate) hub: Server,
    pub(crate) cdn: Server,
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn git_sha1(bytes: &[u8]) -> String {
    let hash = sha1::Sha1::new_with_prefix(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Hub {
    pub(crate) fn start(files: BTreeMap<String, Vec<u8>>) -> Self {
        Self::start_with(files, false, false)
    }

    /// With TLS, or without.
    pub(crate) fn start_with(files: BTreeMap<String, Vec<u8>>, hub_tls: bool, cdn_tls: bool) -> Self {
        let files = Arc::new(files);
        let on_cdn = files.clone();
        let cdn = Server::start(cdn_tls.then(certificate), move |seen| {
            let name = seen.path.strip_prefix("/stored/").and_then(|rest| rest.strip_suffix("?signature=x"));
            match name.and_then(|name| on_cdn.get(name)) {
                Some(bytes) => reply("200 OK", "ETag: \"of-the-cdn\"\r\n", bytes.clone()),
                None => reply("404 Not Found", "", ""),
            }
        });
        let elsewhere = cdn.url.clone();
        let hub = Server::start(hub_tls.then(certificate), move |seen| answer(seen, &files, &elsewhere));
        Self { hub, cdn }
    }
}

fn answer(seen: &Seen, files: &BTreeMap<String, Vec<u8>>, cdn: &str) -> Reply {
    let path = seen.path.as_str();
    if path == "/api/models/org/random/revision/main" || path == "/api/models/org/random/revision/refs%2Fpr%2F1" {
        let siblings: Vec<_> = files.keys().map(|name| serde_json::json!({ "rfilename": name })).collect();
        return reply("200 OK", "", serde_json::json!({ "sha": COMMIT, "siblings": siblings }).to_string());
    }
    if path.starts_with("/api/models/org/circle/") {
        return reply("307 Temporary Redirect", format!("Location: {path}\r\n"), "");
    }
    if path == "/api/models/org/random/refs" {
        return reply("200 OK", "", r#"{"branches": [{"name": "main"}], "tags": [{"name": "v1"}]}"#);
    }
    if path.starts_with("/api/models/org/random/revision/") {
        return reply("404 Not Found", "X-Error-Code: RevisionNotFound\r\n", "");
    }
    if path.starts_with("/api/models/org/gated/") {
        return reply("403 Forbidden", "X-Error-Code: GatedRepo\r\n", "");
    }
    if path.starts_with("/api/models/org/private/") {
        return reply("401 Unauthorized", "X-Error-Code: RepoNotFound\r\n", "");
    }
    let file = |prefix: &str| path.strip_prefix(prefix).and_then(|name| Some((name, files.get(name)?)));
    if let Some((name, bytes)) = file(&format!("/org/random/resolve/{COMMIT}/")) {
        return if [".safetensors", ".bin", ".gguf"].iter().any(|ending| name.ends_with(ending)) {
            let headers = format!(
                "X-Repo-Commit: {COMMIT}\r\nX-Linked-Etag: \"{}\"\r\nX-Linked-Size: {}\r\nETag: \"other\"\r\n\
                 Location: {cdn}/stored/{name}?signature=x\r\n",
                sha256(bytes),
                bytes.len()
            );
            reply("302 Found", headers, "")
        } else if name == "config.json" {
            reply("307 Temporary Redirect", format!("Location: /api/resolve-cache/{name}\r\n"), "")
        } else {
            reply("200 OK", format!("ETag: \"{}\"\r\n", git_sha1(bytes)), bytes.clone())
        };
    }
    match file("/api/resolve-cache/") {
        Some((_, bytes)) => reply("200 OK", format!("ETag: W/\"{}\"\r\n", git_sha1(bytes)), bytes.clone()),
        None => reply("404 Not Found", "X-Error-Code: RepoNotFound\r\n", ""),
    }
}
