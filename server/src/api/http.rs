//! HTTP: one handler for both families.
//!
//! In: requests. Out: JSON in the clients' format, whatever happens, within their patience.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{FromRequestParts as _, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header, request};
use axum::response::{IntoResponse as _, Response};
use http_body_util::BodyExt as _;
use serde_json::{Map, Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::error::{ApiError, Code};
use super::operations;
use super::render::for_browser;
use super::request as this_request;
use super::route::{Operation, Path};
use super::socket;
use super::token::{Token, verify};
use crate::host::{Host, now};

/// Longest body.
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Longest report of a client about itself.
const MAX_REPORT_BYTES: usize = 64 * 1024;
/// Of a body that is too long, or that nobody wants, so much is read all the same, within [`BODY_TIME`]: a client that still
/// writes hears no answer.
const MAX_DISCARDED_BYTES: usize = 64 * 1024 * 1024;
/// Deepest nesting of what clients write: it is kept, and told of, within something else, and JSON is read 128 deep at most.
const MAX_NESTING: usize = 64;
/// Longest head; of a longer one hyper says 431, without a body.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// A body has come within this.
const BODY_TIME: Duration = Duration::from_secs(20);
/// Clients give up after three seconds.
const PATIENCE: Duration = Duration::from_millis(2500);

/// What handlers share.
pub(crate) struct App {
    pub(crate) host: Arc<Host>,
    pub(crate) api_key: String,
    pub(crate) api_secret: String,
    pub(crate) hooks_to_private_addresses: bool,
    /// Where a line a request goes; none in tests.
    pub(crate) log: RequestLog,
    /// Whether it was ready when somebody last asked.
    pub(crate) probed: tokio::sync::Mutex<Probed>,
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
            let mut file = file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            // A log that cannot be written stops no request.
            let _ = writeln!(file, "{line}");
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
        .expose_headers([this_request::HEADER])
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
    let path = parts.uri.path().to_string();
    let mut query = query_of(&parts);
    let client = client_of(&parts.headers, &query);
    match (parts.method.as_str(), path.as_str()) {
        ("GET", "/healthz") => return plain(StatusCode::OK, "ok\n"),
        ("GET", "/readyz") => {
            return match app.is_ready().await {
                Ok(()) => plain(StatusCode::OK, "ready\n"),
                Err(why) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
            };
        }
        ("GET" | "HEAD", path) if path.starts_with("/transcripts/") => {
            let response = download(&app, &parts, path).await;
            log(&app, "download_transcript", &client, "none", response.status());
            return response;
        }
        _ => {}
    }
    let parsed = Path::parse(&path);
    let is_browsers = parsed.as_ref().is_none_or(|path| path.is_browsers);
    let operation = parsed.as_ref().and_then(|path| path.operation(&parts.method));
    let name = operation.as_ref().map_or("unknown", |(operation, _)| operation.name());
    tracing::Span::current().record("operation", name);
    if matches!(operation, Some((Operation::Connect | Operation::Audio, _))) {
        return upgrade(app, operation, &mut parts, query, client).await;
    }
    let (kind, admitted) = admit(&app, operation, &parts, &path, &query);
    let answered = async {
        let most = match &admitted {
            Ok(Admitted::Reporter) => MAX_REPORT_BYTES,
            Ok(Admitted::Caller(..)) => MAX_BODY_BYTES,
            Err(_) => 0,
        };
        let body = read(body, most).await;
        let (token, operation, names) = match admitted? {
            Admitted::Reporter => return body.map(|_| (StatusCode::CREATED, json!({}))),
            Admitted::Caller(token, operation, names) => (token, operation, names),
        };
        let body = object_of(&parts.headers, &body?)?;
        let call = Call { token, query: std::mem::take(&mut query), body };
        let answer = operations::answer(&app, operation, &names, call);
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        let answer = answer.unwrap_or_else(|_| Err(ApiError::new(Code::Internal, "the server is too busy: try again")));
        let status = match operation {
            Operation::GetOrCreateCall
            | Operation::UpdateUsers
            | Operation::CreateCallType
            | Operation::CreateRole
            | Operation::StartTranscription
            | Operation::StartClosedCaptions => StatusCode::CREATED,
            _ => StatusCode::OK,
        };
        Ok((status, answer?))
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
    log(&app, name, &client, kind, status);
    (status, axum::Json(body)).into_response()
}

/// Who may ask.
enum Admitted<'a> {
    /// Somebody who reports about themselves, anonymously or not.
    Reporter,
    Caller(Token, Operation, Vec<&'a str>),
}

/// Who asks, and the kind of their token.
fn admit<'a>(
    app: &App,
    operation: Option<(Operation, Vec<&'a str>)>,
    parts: &request::Parts,
    path: &str,
    query: &Map<String, Value>,
) -> (&'static str, Result<Admitted<'a>, ApiError>) {
    let is_anonymous = text(query, "stream-auth-type") == Some("anonymous")
        || parts.headers.get("stream-auth-type").is_some_and(|value| value == "anonymous");
    if let Err(error) = check_key(app, query, &parts.headers) {
        return ("none", Err(error));
    }
    let is_report = matches!(operation, Some((Operation::CallClientEvent, _)));
    if is_report && is_anonymous {
        return ("anonymous", Ok(Admitted::Reporter));
    }
    let token = match authenticate(app, &parts.headers, text(query, "user_id")) {
        Ok(token) => token,
        Err(error) => return (if is_anonymous { "anonymous" } else { "none" }, Err(error)),
    };
    let kind = if token == Token::Server { "server" } else { "user" };
    if is_report {
        return (kind, Ok(Admitted::Reporter));
    }
    let why = || ApiError::new(Code::DoesNotExist, format!("{} {path} is not offered here", parts.method));
    (kind, operation.ok_or_else(why).map(|(operation, names)| Admitted::Caller(token, operation, names)))
}

/// A whole body, of no more than `most` bytes. A longer one is read to its end too.
async fn read(mut body: Body, most: usize) -> Result<Bytes, ApiError> {
    let (mut kept, mut total) = (Vec::new(), 0_usize);
    let reading = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| ApiError::new(Code::Input, "the body broke off"))?;
            let chunk = frame.into_data().unwrap_or_default();
            total = total.saturating_add(chunk.len());
            if total <= most {
                kept.extend_from_slice(&chunk);
            } else if total > MAX_DISCARDED_BYTES {
                break;
            }
        }
        Ok(())
    };
    let late = |_| Err(ApiError::new(Code::Input, format!("the body did not come within {} s", BODY_TIME.as_secs())));
    tokio::time::timeout(BODY_TIME, reading).await.unwrap_or_else(late)?;
    if total > most {
        return Err(ApiError::new(Code::Input, format!("the body is longer than {} KiB", most / 1024)));
    }
    Ok(kept.into())
}

/// What a client says that it is. Browsers cannot set headers of a WebSocket's handshake.
fn client_of(headers: &HeaderMap, query: &Map<String, Value>) -> String {
    let said = query.iter().find(|(name, _)| name.eq_ignore_ascii_case("x-stream-client"));
    let header = headers.get("x-stream-client").or(headers.get(header::USER_AGENT));
    let header = header.and_then(|value| value.to_str().ok());
    said.and_then(|(_, value)| value.as_str()).or(header).unwrap_or_default().to_string()
}

/// A request was answered, or a WebSocket greeted: for the request log, the log and the metrics.
pub(crate) fn log(app: &App, operation: &'static str, client: &str, token: &str, status: StatusCode) {
    let ((request_id, took), status) = (this_request::current(), status.as_u16());
    let duration_ms = took.as_micros() as f64 / 1e3;
    crate::telemetry::answered(operation, status, took);
    tracing::info!(client, token, status, duration_ms, "answered");
    app.log.write(&json!({
        "at": now(), "request_id": request_id, "operation": operation, "client": client, "token": token, "status": status,
        "duration_ms": duration_ms,
    }));
}

fn plain(status: StatusCode, text: impl Into<Body>) -> Response {
    (status, text.into()).into_response()
}

fn status_of(error: &ApiError) -> StatusCode {
    StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
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
fn object_of(headers: &HeaderMap, body: &Bytes) -> Result<Map<String, Value>, ApiError> {
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
    client: String,
) -> Response {
    let Some((operation, names)) = operation else { return plain(StatusCode::NOT_FOUND, "") };
    let refused = |error: &ApiError| (status_of(error), axum::Json(error.body("0ms"))).into_response();
    let socket = match WebSocketUpgrade::from_request_parts(parts, &()).await {
        Ok(socket) => socket,
        Err(_) => {
            let error = ApiError::new(Code::Input, "this path is a WebSocket's");
            log(&app, operation.name(), &client, "none", status_of(&error));
            return refused(&error);
        }
    };
    if let Err(error) = check_key(&app, &query, &parts.headers) {
        log(&app, operation.name(), &client, "none", status_of(&error));
        return refused(&error);
    }
    // Thousands of them are open at a time, and clients that watch say little.
    let socket = socket
        .read_buffer_size(if operation == Operation::Connect { 1024 } else { 4 * 1024 })
        .write_buffer_size(0)
        .max_message_size(crate::ingest::audio::MAX_FRAME_BYTES)
        .max_frame_size(crate::ingest::audio::MAX_FRAME_BYTES);
    let (sockets, place) = (app.sockets.clone(), parts.extensions.get::<Place>().cloned());
    if operation == Operation::Connect {
        let carried = this_request::carrier();
        return socket.on_upgrade(move |socket| {
            sockets.track_future(carried(Box::pin(async move {
                let _place = place;
                socket::serve_client(&app, socket, query, client).await;
            })))
        });
    }
    let authorization = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let authorization = authorization.map(str::to_string);
    let (call_type, id) = (names[0].to_string(), names[1].to_string());
    let carried = this_request::carrier();
    socket.on_upgrade(move |socket| {
        sockets.track_future(carried(Box::pin(async move {
            let _place = place;
            socket::serve_audio(&app, socket, &call_type, &id, &query, &client, authorization).await;
        })))
    })
}

/// A transcript's file, or a range of it, to who has a signed URL.
async fn download(app: &App, parts: &request::Parts, path: &str) -> Response {
    use tower::ServiceExt as _;
    let refused = |error: &ApiError| (status_of(error), axum::Json(error.body("0ms"))).into_response();
    let query = query_of(parts);
    let egress_id = path.split('/').nth(2).unwrap_or_default().to_string();
    let field = |name| text(&query, name).unwrap_or_default();
    if app.host.storages.local.check(&egress_id, field("expires"), field("signature"), now()).is_err() {
        return refused(&ApiError::new(Code::NotAllowed, "the URL has expired, or was not made here: list again"));
    }
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
    match tower_http::services::ServeFile::new_with_mime(path, &mime).oneshot(request).await {
        Ok(response) if response.status() == StatusCode::NOT_FOUND => {
            refused(&ApiError::new(Code::DoesNotExist, "the transcript's file is gone from the server's disk"))
        }
        Ok(response) => response.map(Body::new),
        Err(error) => match error {},
    }
}

/// The place of a connection among those that may be open: held by whoever serves it, also behind an upgrade.
#[derive(Clone)]
struct Place(#[expect(dead_code, reason = "it counts")] Arc<OwnedSemaphorePermit>);

/// Serves a connection that was accepted, to its end.
pub(crate) async fn serve_connection(
    stream: tokio::net::TcpStream,
    router: axum::Router,
    permit: OwnedSemaphorePermit,
) {
    use hyper_util::rt::{TokioIo, TokioTimer};
    use tower::ServiceExt as _;
    let place = Place(Arc::new(permit));
    let _open = crate::telemetry::Open::new("http");
    // Small frames of captions are not held back.
    let _ = stream.set_nodelay(true);
    // HTTP/1 alone, whatever else what this is built with can: the bounds are its.
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10)).max_buf_size(MAX_HEAD_BYTES);
    let service = hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(place.clone());
        router.clone().oneshot(request)
    });
    // A client that is gone is no news.
    let _ = builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}
