//! What a request is called, in the logs and in its answer.
//!
//! In: `x-client-request-id`, where it is fit for a log. Out: `x-request-id`, the span around all that is done for the request, and
//! the same id for who writes of it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::futures::TaskLocalFuture;
use tracing::instrument::Instrumented;
use tracing::{Instrument as _, Span, field};

use super::error::{ApiError, Code};
use crate::clock::new_id;

/// In which the id is given back.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id of a client's that is taken.
const MAX_ID_BYTES: usize = 64;

/// A request that is being served.
pub(crate) struct Current {
    id: String,
    began: Instant,
    /// What its body takes.
    room: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Current {
    fn new(id: String) -> Arc<Self> {
        Arc::new(Self { id, began: Instant::now(), room: Mutex::default() })
    }
}

tokio::task_local! {
    static CURRENT: Arc<Current>;
}

/// Serves a request under its id.
pub(crate) async fn identified(request: Request, next: Next) -> Response {
    let id = id_of(request.headers()).map_or_else(new_id, str::to_string);
    let header = HeaderValue::from_str(&id);
    // Enabled wherever anything is logged at all.
    let span = tracing::error_span!("request", request_id = id, operation = field::Empty);
    let mut response = CURRENT.scope(Current::new(id), next.run(request)).instrument(span).await;
    if let Ok(header) = header {
        response.headers_mut().insert(HEADER, header);
    }
    response
}

/// The id that a client gave, if it can do no harm.
fn id_of(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get("x-client-request-id")?.to_str().ok()?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    (1..=MAX_ID_BYTES).contains(&id.len()).then_some(id).filter(|id| id.chars().all(is_plain))
}

/// Takes a request along to what goes on behind its answer: a WebSocket.
pub(crate) fn carrier<F: Future>() -> impl FnOnce(F) -> Instrumented<TaskLocalFuture<Arc<Current>, F>> {
    // Without its body's room: it may go on for hours.
    let current =
        CURRENT.try_with(|of| Arc::new(Current { id: of.id.clone(), began: of.began, room: Mutex::default() }));
    let (current, span) = (current.unwrap_or_else(|_| Current::new(new_id())), Span::current());
    move |future| CURRENT.scope(current, future).instrument(span)
}

/// Keeps the room of the request's body until all that is done for it is done.
pub(crate) fn keep(room: Option<OwnedSemaphorePermit>) {
    // Where there is no request, nobody waits for room either.
    let _ = CURRENT.try_with(|current| *current.room.lock().unwrap_or_else(PoisonError::into_inner) = room);
}

/// What a job takes along that has to do with a body: it may wait for longer than who has asked.
pub(crate) fn kept() -> Option<Arc<Current>> {
    CURRENT.try_with(Arc::clone).ok()
}

/// The id of the request that is being served, and how long that takes by now.
pub(crate) fn current() -> (String, Duration) {
    CURRENT.try_with(|current| (current.id.clone(), current.began.elapsed())).unwrap_or_default()
}

/// What an error's answer says beside the error: of a fault of the server's, where to look for it.
pub(crate) fn more_info(code: Code) -> String {
    match code {
        Code::Internal => CURRENT.try_with(|current| format!("request {}", current.id)).unwrap_or_default(),
        _ => String::new(),
    }
}

/// A request is answered with an error: a fault of the server's is logged.
pub(crate) fn failed(error: &ApiError) {
    if error.code == Code::Internal {
        tracing::error!("a request failed: {error}");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_bodys_room_is_kept_until_the_job_is_done_that_its_request_has_left_behind() {
        let room = Arc::new(tokio::sync::Semaphore::new(1));
        let permit = room.clone().try_acquire_owned().unwrap();
        let job = CURRENT.scope(Current::new(new_id()), async {
            keep(Some(permit));
            (kept(), carrier::<std::future::Ready<()>>())
        });
        let (job, socket) = job.await;
        assert_eq!(room.available_permits(), 0);
        drop(job);
        // What goes on behind the answer has no body.
        assert_eq!((room.available_permits(), kept().is_none()), (1, true));
        drop(socket);
    }

    #[test]
    fn only_an_id_that_is_fit_for_a_log_is_taken() {
        for (said, is_taken) in [
            ("1f0a7c1e-8d5b-4f6e-9c51-0c2f6a8e5d11", true),
            ("node:17.3_a", true),
            ("", false),
            ("two words", false),
            ("{\"level\":\"ERROR\"}", false),
            (&"x".repeat(64), true),
            (&"x".repeat(65), false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("x-client-request-id", said.parse().unwrap());
            assert_eq!(id_of(&headers), Some(said).filter(|_| is_taken), "{said}");
        }
        let mut headers = HeaderMap::new();
        headers.insert("x-client-request-id", HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(id_of(&headers), None);
    }
}
