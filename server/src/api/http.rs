//! HTTP: one handler for both families.
//!
//! In: requests. Out: JSON in the clients' format, whatever happens, within their patience.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{FromRequestParts as _, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header, request};
use axum::response::{IntoResponse as _, Response};
use http_body_util::BodyExt as _;
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::error::{ApiError, Code};
use super::operations;
use super::render::for_browser;
use super::request as this_request;
use super::route::{Operation, Path};
use super::socket;
use super::token::{Token, verify};
use crate::connections::{Place, Places};
use crate::host::{Host, now};
use crate::rates::{self, Rates, Standing};
use crate::sockets::Sockets;

/// Characters of what a client says that it is, in the request log.
const MOST_OF_CLIENT: usize = 200;
/// Longest report of a client about itself.
const MAX_REPORT_BYTES: usize = 64 * 1024;
/// Of a body that is too long, or that nobody wants, so much is read all the same, within `limits.body_s`: a client that
/// still writes hears no answer.
const MAX_DISCARDED_BYTES: usize = 64 * 1024 * 1024;
/// Deepest nesting of what clients write: it is kept, and told of, within something else, and JSON is read 128 deep at most.
const MAX_NESTING: usize = 64;
/// Longest frame of a client that watches: it says who it is, and that it is there.
const MAX_WATCHER_FRAME_BYTES: usize = 64 * 1024;
/// What bodies take, with what they become as JSON, all of them that are read or waited for together: those that take little
/// each, and, apart, so that they keep none of these out, all others.
const SMALL_KIB: usize = 64;
const ALL_SMALL_KIB: usize = 64 * 1024;
const ALL_LARGE_KIB: usize = 384 * 1024;
/// Clients give up after three seconds.
const PATIENCE: Duration = Duration::from_millis(2500);

/// What handlers share.
pub(crate) struct App {
    pub(crate) host: Arc<Host>,
    pub(crate) api_key: String,
    pub(crate) api_secret: String,
    pub(crate) hooks_to_private_addresses: bool,
    pub(crate) places: Arc<Places>,
    /// Of sockets that may send frames of audio, and of which nobody knows yet whose they are.
    pub(crate) first_frames: Arc<Places>,
    pub(crate) rates: Rates,
    pub(crate) sockets_of_users: Arc<Sockets>,
    pub(crate) bodies: Bodies,
    /// What `/openapi.json` is.
    pub(crate) document: Bytes,
    /// Where a line a request goes; none in tests.
    pub(crate) log: RequestLog,
    /// Whether it was ready when somebody last asked.
    pub(crate) probed: tokio::sync::Mutex<Probed>,
    /// Where participants' RTP comes.
    pub(crate) rtp: Arc<crate::ingest::rtp::Ports>,
    /// Sockets are to be closed.
    pub(crate) shutdown: CancellationToken,
    /// Sockets that are open.
    pub(crate) sockets: tokio_util::task::TaskTracker,
}

impl App {
    /// Whether a request could be served, and what it changes written: looked at once a second at most.
    async fn is_ready(&self) -> Result<(), String> {
        if self.shutdown.is_cancelled() {
            return Err("the server is shutting down".into());
        }
        let mut probed = self.probed.lock().await;
        if let Some((_, known)) = probed.as_ref().filter(|(at, _)| at.elapsed() < Duration::from_secs(1)) {
            return known.clone();
        }
        let probe = self.host.run(|change| Ok(change.store.probe(change.now)?));
        let ready = match tokio::time::timeout(PATIENCE, probe).await {
            Ok(written) => written.map_err(|error| error.message),
            Err(_) => Err("the database does not answer".into()),
        };
        *probed = Some((Instant::now(), ready.clone()));
        ready
    }
}

/// What was found out when.
pub(crate) type Probed = Option<(Instant, Result<(), String>)>;

/// A line of JSON a request, without secrets and without anything that was said.
pub(crate) struct RequestLog(pub(crate) Option<std::sync::Mutex<std::fs::File>>);

impl RequestLog {
    fn write(&self, line: &Value) {
        use std::io::Write as _;
        if let Some(file) = &self.0 {
            // Whole: what writes a value as it goes asks the system once a word.
            let line = format!("{line}\n");
            let mut file = file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            // A log that cannot be written stops no request.
            let _ = file.write_all(line.as_bytes());
        }
    }
}

/// Who asks, as the request log has it.
pub(crate) struct Who {
    /// What they say that their client is.
    client: String,
    address: IpAddr,
    /// The kind of their token.
    token: &'static str,
    /// Of a user's token that was verified.
    user_id: Option<String>,
}

impl Who {
    fn new(client: String, address: IpAddr) -> Self {
        Self { client, address, token: "none", user_id: None }
    }

    pub(crate) fn address(&self) -> IpAddr {
        self.address
    }

    /// Their token was verified.
    pub(crate) fn is(&mut self, token: &Token) {
        match token {
            Token::Server => self.token = "server",
            Token::User(user) => (self.token, self.user_id) = ("user", Some(user.user_id.clone())),
        }
    }
}

/// A request's parameters, whoever sent it.
pub(crate) struct Call {
    /// Whose token it carries.
    pub(crate) token: Token,
    pub(crate) query: Map<String, Value>,
    pub(crate) body: Map<String, Value>,
}

/// All paths. `origins`: whose pages may call; empty: any.
pub(crate) fn router(app: Arc<App>, origins: &[HeaderValue]) -> axum::Router {
    let origins =
        if origins.is_empty() { AllowOrigin::mirror_request() } else { AllowOrigin::list(origins.iter().cloned()) };
    let names = ["authorization", "content-type", "stream-auth-type", "x-client-request-id", "x-stream-client"];
    let cors = CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::PUT, Method::DELETE])
        .allow_headers(names.map(header::HeaderName::from_static))
        .expose_headers(
            rates::HEADERS
                .into_iter()
                .map(header::HeaderName::from_static)
                .chain([header::RETRY_AFTER, this_request::HEADER])
                .collect::<Vec<_>>(),
        )
        .max_age(Duration::from_secs(3600));
    let identified = axum::middleware::from_fn(this_request::identified);
    axum::Router::new().fallback(handle).layer(cors).layer(identified).with_state(app)
}

/// The query's fields; of one that comes twice the last.
fn query_of(parts: &request::Parts) -> Map<String, Value> {
    let pairs = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
    pairs.map(|(name, value)| (name.into_owned(), Value::String(value.into_owned()))).collect()
}

pub(crate) fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    fields.get(name)?.as_str()
}

async fn handle(State(app): State<Arc<App>>, request: Request) -> Response {
    let started = Instant::now();
    let (mut parts, body) = request.into_parts();
    // Every connection has one.
    let Some(place) = parts.extensions.remove::<Place>() else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let address = app.rates.address(place.address(), &parts.headers);
    let path = parts.uri.path().to_string();
    let mut query = query_of(&parts);
    let mut who = Who::new(client_of(&parts.headers, &query), address);
    let parsed = Path::parse(&path);
    let is_browsers = parsed.as_ref().is_none_or(|path| path.is_browsers);
    let operation = parsed.as_ref().and_then(|path| path.operation(&parts.method));
    let name = operation.as_ref().map_or("unknown", |(operation, _)| operation.name());
    tracing::Span::current().record("operation", name);
    let within = Duration::from_secs(app.host.limits().body_s.into());
    let body = if takes_no_body(&operation) {
        // As of one that is too long: what is left unread when a connection is closed costs the answer.
        let _ = read(body, 0, within, None).await;
        Body::empty()
    } else {
        body
    };
    match &operation {
        Some((Operation::Health, _)) => return plain(StatusCode::OK, "ok\n"),
        Some((Operation::Readiness, _)) => {
            return match app.is_ready().await {
                Ok(()) => plain(StatusCode::OK, "ready\n"),
                Err(why) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
            };
        }
        Some((Operation::OpenApi, _)) => {
            let standing = app.rates.ask_from(address);
            let mut response = match standing.as_ref().map_or(Ok(()), Standing::check) {
                Ok(()) => ([(header::CONTENT_TYPE, "application/json")], app.document.clone()).into_response(),
                Err(error) => refused(&error),
            };
            if let Some(standing) = standing {
                standing.write(response.headers_mut());
            }
            log(&app, name, &who, response.status());
            return response;
        }
        Some((Operation::DownloadTranscript | Operation::ProbeTranscript, names)) => {
            let response = download(&app, &parts, names[0], &place).await;
            log(&app, name, &who, response.status());
            return response;
        }
        Some((Operation::Connect | Operation::Audio, _)) => {
            return upgrade(app, operation, &mut parts, query, who, place).await;
        }
        _ => {}
    }
    let admitted = admit(&app, operation, &parts, &path, &query, &mut who);
    let standing = match &admitted {
        Ok(Admitted::Caller(token, ..)) => Some(app.rates.ask(token)),
        Ok(Admitted::Reporter) | Err(_) => app.rates.ask_from(address),
    };
    let admitted = standing.as_ref().map_or(Ok(()), Standing::check).and(admitted);
    // While somebody known is answered, their connection is nobody else's.
    let serving = matches!(admitted, Ok(Admitted::Caller(..))).then(|| place.serve()).flatten();
    let limits = app.host.limits();
    let answered = async {
        let (most, bodies) = match &admitted {
            Ok(Admitted::Reporter) => (MAX_REPORT_BYTES, None),
            Ok(Admitted::Caller(..)) => (limits.body_bytes as usize, Some(&app.bodies)),
            Err(_) => (0, None),
        };
        let body = read(body, most, within, bodies).await;
        let (token, operation, names) = match admitted? {
            Admitted::Reporter => return body.map(|_| (Operation::CallClientEvent.row().status(), json!({}))),
            Admitted::Caller(token, operation, names) => (token, operation, names),
        };
        let mut kept = body?;
        kept.reserve(taken_by(&kept.bytes), &app.bodies)?;
        let body = object_of(&parts.headers, &kept.bytes)?;
        this_request::keep(kept.room);
        let call = Call { token, query: std::mem::take(&mut query), body };
        let answer = operations::answer(&app, operation, &names, call);
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        let answer = answer.unwrap_or_else(|_| Err(ApiError::new(Code::Internal, "the server is too busy: try again")));
        Ok((operation.row().status(), answer?))
    };
    let answered: Result<_, ApiError> = answered.await;
    let duration = format!("{:.2}ms", started.elapsed().as_secs_f64() * 1e3);
    let (status, mut body) = match answered {
        Ok((status, mut body)) => {
            if let Some(fields) = body.as_object_mut() {
                fields.insert("duration".into(), json!(duration));
            }
            (status, body)
        }
        Err(error) => {
            this_request::failed(&error);
            (status_of(&error), error.body(&duration))
        }
    };
    if is_browsers {
        for_browser(&mut body);
    }
    log(&app, name, &who, status);
    let mut response = (status, axum::Json(body)).into_response();
    if let Some(standing) = standing {
        standing.write(response.headers_mut());
    }
    if let Some(serving) = serving {
        serving.until_written(&mut response);
    }
    response
}

/// Whether nobody looks at a body: the request is answered before it is known who asks, or by a WebSocket.
fn takes_no_body(operation: &Option<(Operation, Vec<&str>)>) -> bool {
    use Operation::{Audio, Connect, DownloadTranscript, Health, OpenApi, ProbeTranscript, Readiness};
    let of = operation.as_ref().map(|(operation, _)| *operation);
    matches!(of, Some(Health | Readiness | OpenApi | DownloadTranscript | ProbeTranscript | Connect | Audio))
}

/// Room for bodies.
pub(crate) struct Bodies {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

impl Default for Bodies {
    fn default() -> Self {
        let of = |kib| Arc::new(Semaphore::new(kib));
        Self { small: of(ALL_SMALL_KIB), large: of(ALL_LARGE_KIB) }
    }
}

/// A body, in its room.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    kib: usize,
    room: Option<OwnedSemaphorePermit>,
}

impl Kept {
    /// Takes room for so much in all.
    fn reserve(&mut self, bytes: usize, bodies: &Bodies) -> Result<(), ApiError> {
        // What is larger than all room that there is has it alone.
        let kib = bytes.div_ceil(1024).min(ALL_LARGE_KIB);
        if kib <= self.kib {
            return Ok(());
        }
        let (is_small, was_small) = (kib <= SMALL_KIB, self.kib <= SMALL_KIB);
        let held = if is_small == was_small { self.kib } else { 0 };
        let of = if is_small { &bodies.small } else { &bodies.large };
        let busy = |_| ApiError::new(Code::Full, "the server reads too much at once: try again");
        let more = of.clone().try_acquire_many_owned((kib - held) as u32).map_err(busy)?;
        match &mut self.room {
            Some(room) if held > 0 => room.merge(more),
            room => *room = Some(more),
        }
        self.kib = kib;
        Ok(())
    }
}

/// What a body takes at most, with what it becomes as JSON: a list's first value has room for four, an object's first field for
/// eleven, and a list that grows has up to twice what it needs.
fn taken_by(body: &[u8]) -> usize {
    const VALUE: usize = size_of::<Value>();
    const FIELD: usize = size_of::<String>() + VALUE;
    let of = |byte: &u8| match byte {
        b'{' => 11 * FIELD + 32,
        b'[' => 4 * VALUE + 16,
        b':' => 2 * FIELD,
        b',' => 2 * VALUE,
        // Of a text's own memory, which is no less than this.
        b'"' => 16,
        _ => 0,
    };
    2 * body.len() + body.iter().map(of).sum::<usize>()
}

/// Who may ask.
enum Admitted<'a> {
    /// Somebody who reports about themselves, anonymously or not.
    Reporter,
    Caller(Token, Operation, Vec<&'a str>),
}

/// Whether they may, and who it is.
fn admit<'a>(
    app: &App,
    operation: Option<(Operation, Vec<&'a str>)>,
    parts: &request::Parts,
    path: &str,
    query: &Map<String, Value>,
    who: &mut Who,
) -> Result<Admitted<'a>, ApiError> {
    check_key(app, query, &parts.headers)?;
    if text(query, "stream-auth-type") == Some("anonymous")
        || parts.headers.get("stream-auth-type").is_some_and(|value| value == "anonymous")
    {
        who.token = "anonymous";
    }
    let is_report = matches!(operation, Some((Operation::CallClientEvent, _)));
    if is_report && who.token == "anonymous" {
        return Ok(Admitted::Reporter);
    }
    let token = authenticate(app, &parts.headers, text(query, "user_id"))?;
    who.is(&token);
    if is_report {
        return Ok(Admitted::Reporter);
    }
    let why = || ApiError::new(Code::DoesNotExist, format!("{} {path} is not offered here", parts.method));
    operation.ok_or_else(why).map(|(operation, names)| Admitted::Caller(token, operation, names))
}

/// A whole body, of no more than `most` bytes. A longer one is read to its end too; without room it is only read.
async fn read(mut body: Body, most: usize, within: Duration, bodies: Option<&Bodies>) -> Result<Kept, ApiError> {
    let (mut kept, mut total) = (Kept::default(), 0_usize);
    let reading = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| ApiError::new(Code::Input, "the body broke off"))?;
            let chunk = frame.into_data().unwrap_or_default();
            total = total.saturating_add(chunk.len());
            if let Some(bodies) = bodies.filter(|_| total <= most) {
                kept.reserve(total, bodies)?;
                kept.bytes.extend_from_slice(&chunk);
            } else if total > MAX_DISCARDED_BYTES {
                break;
            }
        }
        Ok(())
    };
    let late = |_| Err(ApiError::new(Code::Input, format!("the body did not come within {} s", within.as_secs())));
    tokio::time::timeout(within, reading).await.unwrap_or_else(late)?;
    if total > most {
        return Err(ApiError::new(Code::Input, format!("the body is longer than {} KiB", most / 1024)));
    }
    Ok(kept)
}

/// What a client says that it is. Browsers cannot set headers of a WebSocket's handshake.
fn client_of(headers: &HeaderMap, query: &Map<String, Value>) -> String {
    let said = query.iter().find(|(name, _)| name.eq_ignore_ascii_case("x-stream-client"));
    let header = headers.get("x-stream-client").or(headers.get(header::USER_AGENT));
    let header = header.and_then(|value| value.to_str().ok());
    said.and_then(|(_, value)| value.as_str()).or(header).unwrap_or_default().chars().take(MOST_OF_CLIENT).collect()
}

/// A request was answered, or a WebSocket greeted: for the request log, the log and the metrics.
pub(crate) fn log(app: &App, operation: &'static str, who: &Who, status: StatusCode) {
    let ((request_id, took), status) = (this_request::current(), status.as_u16());
    let duration_ms = took.as_micros() as f64 / 1e3;
    let Who { client, address, token, user_id } = who;
    crate::telemetry::answered(operation, status, took);
    tracing::info!(client, token, status, duration_ms, "answered");
    app.log.write(&json!({
        "at": now(), "request_id": request_id, "operation": operation, "client": client, "address": address.to_canonical(),
        "token": token, "user_id": user_id, "status": status, "duration_ms": duration_ms,
    }));
}

fn plain(status: StatusCode, text: impl Into<String>) -> Response {
    (status, text.into()).into_response()
}

fn status_of(error: &ApiError) -> StatusCode {
    StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn refused(error: &ApiError) -> Response {
    (status_of(error), axum::Json(error.body("0ms"))).into_response()
}

fn check_key(app: &App, query: &Map<String, Value>, headers: &HeaderMap) -> Result<(), ApiError> {
    let header = headers.get("api-key").and_then(|value| value.to_str().ok());
    let key = text(query, "api_key").or(header).unwrap_or_default();
    let is_ours: bool = subtle::ConstantTimeEq::ct_eq(key.as_bytes(), app.api_key.as_bytes()).into();
    if is_ours { Ok(()) } else { Err(ApiError::new(Code::AccessKey, "the api_key is not this server's")) }
}

fn authenticate(app: &App, headers: &HeaderMap, user_id: Option<&str>) -> Result<Token, ApiError> {
    let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    identify(app, token, user_id)
}

/// Whose token this is; where a `user_id` is said beside it, it must be theirs.
pub(crate) fn identify(app: &App, token: &str, user_id: Option<&str>) -> Result<Token, ApiError> {
    let token = verify(token, &app.api_secret, now())?;
    match (&token, user_id) {
        (Token::User(user), Some(said)) if user.user_id != said => {
            Err(ApiError::new(Code::Authentication, "the user_id is not the token's"))
        }
        _ => Ok(token),
    }
}

/// What is nested deeper than what is kept of it could be read again.
pub(crate) fn check_nesting(fields: &Map<String, Value>) -> Result<(), ApiError> {
    fn nesting(value: &Value) -> usize {
        match value {
            Value::Array(values) => 1 + values.iter().map(nesting).max().unwrap_or(0),
            Value::Object(fields) => 1 + fields.values().map(nesting).max().unwrap_or(0),
            _ => 0,
        }
    }
    match fields.iter().find(|(_, value)| nesting(value) >= MAX_NESTING) {
        None => Ok(()),
        Some((name, _)) => {
            let name: String = name.chars().take(100).collect();
            Err(ApiError::new(Code::Input, format!("{name} is nested deeper than {MAX_NESTING}")))
        }
    }
}

/// A body as an object: none at all, and an empty form, are one without fields.
fn object_of(headers: &HeaderMap, body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    let input = |why: String| ApiError::new(Code::Input, why);
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    let is_form = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => check_nesting(&fields).map(|()| fields),
        Ok(Value::Null) => Ok(Map::new()),
        Ok(_) => Err(input("the body should be a JSON object".into())),
        Err(_) if is_form => Err(input("the body is a form: it should be a JSON object".into())),
        Err(error) => Err(input(format!("the body is no JSON: {error}"))),
    }
}

/// Answers a WebSocket's handshake, or refuses it in the clients' format.
async fn upgrade(
    app: Arc<App>,
    operation: Option<(Operation, Vec<&str>)>,
    parts: &mut request::Parts,
    query: Map<String, Value>,
    who: Who,
    place: Place,
) -> Response {
    let Some((operation, names)) = operation else { return plain(StatusCode::NOT_FOUND, "") };
    let socket = match WebSocketUpgrade::from_request_parts(parts, &()).await {
        Ok(socket) => socket,
        Err(_) => {
            let error = ApiError::new(Code::Input, "this path is a WebSocket's");
            log(&app, operation.name(), &who, status_of(&error));
            return refused(&error);
        }
    };
    if let Err(error) = check_key(&app, &query, &parts.headers) {
        let error = app.rates.refused(who.address, error);
        log(&app, operation.name(), &who, status_of(&error));
        return refused(&error);
    }
    // Thousands of them are open at a time, and clients that watch say little.
    let (buffer, longest) = if operation == Operation::Connect {
        (1024, MAX_WATCHER_FRAME_BYTES)
    } else {
        (4 * 1024, app.host.limits().frame_bytes as usize)
    };
    let socket = socket.read_buffer_size(buffer).write_buffer_size(0).max_message_size(longest).max_frame_size(longest);
    let sockets = app.sockets.clone();
    if operation == Operation::Connect {
        let carried = this_request::carrier();
        return socket.on_upgrade(move |socket| {
            sockets.track_future(carried(Box::pin(async move {
                place.hold(socket::serve_client(&app, socket, query, who, &place)).await;
            })))
        });
    }
    let authorization = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let authorization = authorization.map(str::to_string);
    let (call_type, id) = (names[0].to_string(), names[1].to_string());
    let carried = this_request::carrier();
    socket.on_upgrade(move |socket| {
        sockets.track_future(carried(Box::pin(async move {
            let call = (&*call_type, &*id);
            place.hold(socket::serve_audio(&app, socket, call, &query, who, authorization, &place)).await;
        })))
    })
}

/// A transcript's file, or a range of it, to who has a signed URL.
async fn download(app: &App, parts: &request::Parts, egress_id: &str, place: &Place) -> Response {
    use tower::ServiceExt as _;
    let query = query_of(parts);
    let egress_id = egress_id.to_string();
    let field = |name| text(&query, name).unwrap_or_default();
    if app.host.storages.local.check(&egress_id, field("expires"), field("signature"), now()).is_err() {
        return refused(&ApiError::new(Code::NotAllowed, "the URL has expired, or was not made here: list again"));
    }
    let serving = place.serve();
    let found = app.host.read(move |change| Ok(change.store.file(&egress_id)?)).await;
    let file = match found {
        Ok(Some(file)) if file.storage.is_none() => file,
        Ok(_) => return refused(&ApiError::new(Code::DoesNotExist, "the transcript was deleted")),
        Err(error) => return refused(&error),
    };
    let mut request = Request::new(Body::empty());
    *request.method_mut() = parts.method.clone();
    *request.headers_mut() = parts.headers.clone();
    let path = app.host.storages.path(&file.filename);
    let mime = "application/jsonl".parse().unwrap_or(mime::APPLICATION_OCTET_STREAM);
    let mut response = match tower_http::services::ServeFile::new_with_mime(path, &mime).oneshot(request).await {
        Ok(response) if response.status() == StatusCode::NOT_FOUND => {
            refused(&ApiError::new(Code::DoesNotExist, "the transcript's file is gone from the server's disk"))
        }
        Ok(response) => response.map(Body::new),
        Err(error) => match error {},
    };
    if let Some(serving) = serving {
        serving.until_written(&mut response);
    }
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn large_bodies_share_their_room_and_keep_no_small_one_out() {
        let bodies = Bodies::default();
        let of = |kib: usize| Body::from(vec![b' '; kib * 1024]);
        let read = |kib| read(of(kib), 64 * 1024 * 1024, Duration::from_secs(5), Some(&bodies));
        let mut held = Vec::new();
        for _ in 0..ALL_LARGE_KIB / (64 * 1024) {
            held.push(read(64 * 1024).await.unwrap());
        }
        let error = read(SMALL_KIB + 1).await.err().unwrap();
        assert_eq!((error.code, error.code.status()), (Code::Full, 503));
        let mut small = Vec::new();
        for _ in 0..ALL_SMALL_KIB / SMALL_KIB {
            small.push(read(SMALL_KIB).await.unwrap());
        }
        assert!(read(1).await.is_err(), "they are counted too");
        held.pop();
        // One that grows moves, and leaves its place to another.
        small[0].reserve(1 << 40, &bodies).err().unwrap();
        small[0].reserve((SMALL_KIB + 1) * 1024, &bodies).unwrap();
        read(SMALL_KIB).await.unwrap();
        drop((held, small));
        assert_eq!(bodies.small.available_permits(), ALL_SMALL_KIB);
        Kept::default().reserve(1 << 40, &bodies).unwrap();
    }

    #[test]
    fn bodies_take_what_they_become() {
        const MIB: usize = 1024 * 1024;
        let filled = |with: &str| with.repeat(MIB / with.len());
        for (what, body, least, most) in [
            ("a text", filled("words, and more "), 2, 8),
            ("numbers", filled("0,"), 32, 64),
            ("lists", filled("[0],"), 44, 64),
            ("lists in lists", filled("[[[[0]]]],"), 58, 72),
            ("objects", filled("{\"\":0},"), 80, 128),
        ] {
            let taken = taken_by(body.as_bytes());
            assert!((least * MIB..=most * MIB).contains(&taken), "{what}: {} MiB", taken / MIB);
        }
    }
}
