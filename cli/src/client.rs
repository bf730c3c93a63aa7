//! A client of `cuewire serve`: what `cuewire call` and `cuewire bench calls` have in common.
//!
//! In: requests, and audio of a recording. Out: answers and events, as JSON.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use cuewire::audio::file::AudioFile;
use cuewire::time::Timestamp;
use cuewire_server::api::token::sign;
use cuewire_server::keys::ApiKey;
use cuewire_server::now;
use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest as _;
use tungstenite::{Message, WebSocket};

use crate::Failure;
use crate::args::ServerArgs;
use crate::serve::key_of;

/// A request that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A client that has heard nothing asks whether the server is there.
const HEALTH_CHECK: Duration = Duration::from_secs(25);
/// How long tokens of this client do.
const TOKEN_NANOS: i64 = 24 * 3600 * 1_000_000_000;
/// Length of an audio frame.
const FRAME: Duration = Duration::from_millis(20);

pub(crate) type Socket = WebSocket<TcpStream>;

#[derive(Clone)]
pub(crate) struct Client {
    /// As `127.0.0.1:8080`.
    host: String,
    key: ApiKey,
    agent: ureq::Agent,
}

impl Client {
    pub(crate) fn new(args: &ServerArgs) -> Result<Self, Failure> {
        let Some(host) = args.url.trim_end_matches('/').strip_prefix("http://") else {
            let why = format!("--url is `{}`: http://HOST:PORT is expected, behind whatever ends TLS", args.url);
            return Err(Failure(why));
        };
        let key = key_of(&args.key)?;
        let agent = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false).build();
        Ok(Self { host: host.to_string(), key, agent: agent.into() })
    }

    fn token(&self, user_id: Option<&str>) -> Result<String, Failure> {
        Ok(sign(user_id, now().plus_nanos(TOKEN_NANOS), &self.key.api_secret)?)
    }

    /// Posts to a path behind `/api/v2/video`, as the platform's server; gives the answer's fields.
    pub(crate) fn post(&self, path: &str, query: &str, user_id: Option<&str>, body: &Value) -> Result<Value, Failure> {
        let url = format!("http://{}/api/v2/video{path}?api_key={}{query}", self.host, self.key.api_key);
        let request = self.agent.post(&url).header("stream-auth-type", "jwt").header("x-stream-client", "cuewire");
        let answer = request.header("Authorization", self.token(user_id)?).send_json(body);
        let mut answer = answer.map_err(|error| Failure(format!("http://{}: {error}", self.host)))?;
        let fields: Value = answer.body_mut().read_json()?;
        if answer.status().is_success() {
            Ok(fields)
        } else {
            Err(Failure(format!("{path}: {}", fields["message"].as_str().unwrap_or("the server says no more"))))
        }
    }

    /// Where a participant's RTP is to go: L16 with the payload type 96, as the recording has it.
    pub(crate) fn rtp(&self, cid: &str, user_id: &str, file: &AudioFile) -> Result<SocketAddr, Failure> {
        let path = format!("/call/{}/rtp", cid.replacen(':', "/", 1));
        let (rate, channels) = (file.sample_rate(), file.channels());
        let body = json!({
            "user_id": user_id, "payload_type": 96, "codec": "L16", "clock_rate": rate, "channels": channels,
        });
        let answer = self.post(&path, "", None, &body)?;
        let port = answer["port"].as_u64().and_then(|port| u16::try_from(port).ok());
        let address = answer["address"].as_str().and_then(|address| address.parse::<IpAddr>().ok());
        let to = address.zip(port).ok_or_else(|| Failure(format!("{path}: the answer has no port: {answer}")))?;
        Ok(SocketAddr::from(to))
    }

    /// Closes a port of [`rtp`](Self::rtp): what came on it is heard then.
    pub(crate) fn close_rtp(&self, cid: &str, port: u16) -> Result<(), Failure> {
        let call = cid.replacen(':', "/", 1);
        let url = format!("http://{}/api/v2/video/call/{call}/rtp/{port}?api_key={}", self.host, self.key.api_key);
        self.agent.delete(&url).header("Authorization", self.token(None)?).call()?;
        Ok(())
    }

    /// What a URL of a transcript holds.
    pub(crate) fn fetch(&self, url: &str) -> Result<String, Failure> {
        let mut answer = self.agent.get(url).call()?;
        Ok(answer.body_mut().with_config().limit(1 << 30).read_to_string()?)
    }

    fn connect(&self, path: &str, query: &str) -> Result<Socket, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure(format!("http://{}: {error}", self.host));
        let url = format!("ws://{}{path}?api_key={}{query}", self.host, self.key.api_key);
        let request = url.into_client_request().map_err(|error| failed(&error))?;
        let address = if self.host.contains(':') { self.host.clone() } else { format!("{}:80", self.host) };
        let stream = TcpStream::connect(address).map_err(|error| failed(&error))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let (socket, _) = tungstenite::client(request, stream).map_err(|error| failed(&error))?;
        Ok(socket)
    }

    /// A connection that hears events, with its id.
    pub(crate) fn events(&self, user_id: &str) -> Result<(Socket, String), Failure> {
        let mut socket = self.connect("/video/connect", "&stream-auth-type=jwt&interim=1")?;
        let hello =
            json!({"token": self.token(Some(user_id))?, "products": ["video"], "user_details": {"id": user_id}});
        socket.send(Message::text(hello.to_string()))?;
        let greeting = next_json(&mut socket)?;
        match greeting["connection_id"].as_str() {
            Some(id) => Ok((socket, id.to_string())),
            None => Err(Failure(format!("the connection was refused: {}", greeting["error"]["message"]))),
        }
    }

    /// A participant's connection, once they have joined.
    pub(crate) fn speak(&self, cid: &str, user_id: &str, file: &AudioFile) -> Result<Socket, Failure> {
        let path = format!("/video/call/{}/audio", cid.replacen(':', "/", 1));
        let (rate, channels) = (file.sample_rate(), file.channels());
        let query = format!("&user_id={user_id}&encoding=float32&sample_rate={rate}&channels={channels}");
        let mut socket = self.connect(&path, &query)?;
        socket.send(Message::text(json!({"token": self.token(Some(user_id))?}).to_string()))?;
        let joined = next_json(&mut socket)?;
        match joined["type"].as_str() {
            Some("joined") => Ok(socket),
            _ => Err(Failure(format!("{user_id} cannot speak: {}", joined["error"]["message"]))),
        }
    }
}

fn next_json(socket: &mut Socket) -> Result<Value, Failure> {
    loop {
        if let Message::Text(text) = socket.read()? {
            return Ok(serde_json::from_str(&text)?);
        }
    }
}

/// Gives the text of every event to `heard`, with when it came, until that says `false` or the connection is gone.
pub(crate) fn hear(socket: &mut Socket, mut heard: impl FnMut(&str, Timestamp) -> bool) -> Result<(), Failure> {
    socket.get_ref().set_read_timeout(Some(HEALTH_CHECK))?;
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => {
                let at = now();
                if !heard(&text, at) {
                    return Ok(());
                }
            }
            Ok(Message::Close(_)) => return Ok(()),
            Ok(_) => {}
            Err(tungstenite::Error::Io(error)) if is_timeout(&error) => {
                socket.send(Message::text(r#"[{"type":"health.check"}]"#))?;
            }
            Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Sends a recording, in real time or as fast as it is taken, until it is over or is to stop; leaves the call.
pub(crate) fn send_recording(
    socket: &mut Socket,
    file: &mut AudioFile,
    fast: bool,
    is_to_stop: impl Fn() -> bool,
) -> Result<(), Failure> {
    send_frames(file, fast, is_to_stop, |samples| {
        let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        Ok(socket.send(Message::binary(bytes))?)
    })?;
    socket.send(Message::text(r#"{"type":"close"}"#))?;
    // Until the server has closed too: all is heard then.
    while socket.read().is_ok() {}
    Ok(())
}

/// Gives a recording to `send` in frames of 20 ms, interleaved, in real time or at once, until it is over or is to stop.
pub(crate) fn send_frames(
    file: &mut AudioFile,
    fast: bool,
    is_to_stop: impl Fn() -> bool,
    mut send: impl FnMut(&[f32]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (rate, channels) = (file.sample_rate(), file.channels());
    let frame = channels * (rate as usize * FRAME.as_millis() as usize / 1000).max(1);
    let (start, mut sent) = (Instant::now(), Duration::ZERO);
    let mut waiting: Vec<f32> = Vec::new();
    let mut is_over = false;
    while !is_over && !is_to_stop() {
        match file.next_block()? {
            Some(block) if (block.sample_rate, block.channels) != (rate, channels) => {
                return Err(Failure(format!("{}: its rate or its channels change on the way", file.name())));
            }
            Some(block) => waiting.extend_from_slice(block.samples),
            None => is_over = true,
        }
        let whole = if is_over { waiting.len() } else { waiting.len() / frame * frame };
        for samples in waiting[..whole].chunks(frame) {
            if is_to_stop() {
                break;
            }
            if !fast {
                std::thread::sleep((start + sent).saturating_duration_since(Instant::now()));
            }
            send(samples)?;
            sent += FRAME;
        }
        waiting.drain(..whole);
    }
    Ok(())
}

/// Somebody's id, of the name of a recording.
pub(crate) fn speaker_of(path: &Path) -> String {
    let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    if plain.is_empty() { "speaker".into() } else { plain }
}
