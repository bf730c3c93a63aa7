//! HTTP: one handler for both families.
//!
//! In: requests. Out: JSON in the clients' format, whatever happens, within their patience.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{FromRequestParts as _, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header, request};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value, json};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::bodies::{object_of, read, taken_by};
use super::log::{Who, client_of};
use super::operations;
use super::route::{Operation, Path};
use super::shared::{App, Call, identify, text};
use super::socket;
use crate::clock::now;
use crate::connections::Place;
use crate::rates::{self, Standing};
use crate::wire::error::{ApiError, Code};
use crate::wire::render::for_browser;
use crate::wire::request as this_request;
use crate::wire::token::Token;

/// Longest report of a client about itself.
const MAX_REPORT_BYTES: usize = 64 * 1024;
/// Longest frame of a client that watches: it says who it is, and that it is there.
const MAX_WATCHER_FRAME_BYTES: usize = 64 * 1024;
/// Clients give up after three seconds.
const PATIENCE: Duration = Duration::from_millis(2500);

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
            app.log.answered(name, &who, response.status());
            return response;
        }
        Some((Operation::DownloadTranscript | Operation::ProbeTranscript, names)) => {
            let response = download(&app, &parts, names[0], &place).await;
            app.log.answered(name, &who, response.status());
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
    app.log.answered(name, &who, status);
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
            app.log.answered(operation.name(), &who, status_of(&error));
            return refused(&error);
        }
    };
    if let Err(error) = check_key(&app, &query, &parts.headers) {
        let error = app.rates.refused(who.address, error);
        app.log.answered(operation.name(), &who, status_of(&error));
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
