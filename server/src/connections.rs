//! Connections: who has a place, and who gives theirs up.
//!
//! In: streams, in TLS or not. Out: requests for the router, each with its connection's [`Place`].
//!
//! There are so many places (`limits.connections`). A connection *serves* while a request of somebody known is answered, until
//! the answer is written, and from when a WebSocket's token was checked; all else is *waiting*: for a handshake, a head, a first
//! frame, the body of somebody unknown. Where all places are taken, the next connection gets that of the one which has waited for longest. So those that say
//! nothing, however many, keep nobody out: whoever asks before as many others have come is served.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::rates::network_of;

/// Longest head; of a longer one hyper says 431, without a body.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Connections that the system keeps until they are accepted; the system may allow fewer. Of those beyond, the client's tries again
/// after a second, which it would take for the service's slowness.
const BACKLOG: u32 = 4096;
/// One that gives its place up does so as soon as it is scheduled; where that takes longer, the next one is to.
const GIVES_UP_WITHIN: Duration = Duration::from_secs(1);
/// Where all serve, one that waits is looked for again after this.
const RETRY: Duration = Duration::from_millis(10);
const GIVEN_UP: &str = "cuewire_connections_given_up_total";

/// All places.
pub(crate) struct Places {
    room: Arc<Semaphore>,
    /// 0: as many as there may be.
    per_address: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    numbers: u64,
    /// Those that wait, in the order in which they began to.
    waiting: BTreeMap<u64, CancellationToken>,
    /// By [`network_of`].
    addresses: HashMap<IpAddr, u32>,
}

/// A connection's place, held by whoever serves it, also behind an upgrade.
#[derive(Clone)]
pub(crate) struct Place(Arc<Taken>);

struct Taken {
    places: Arc<Places>,
    address: IpAddr,
    is_counted: bool,
    given_up: CancellationToken,
    /// Under which it waits, or waited last.
    number: AtomicU64,
    has_asked: AtomicBool,
    /// Answers that are under way; changed while the places' state is held.
    serving: AtomicU32,
    _permit: OwnedSemaphorePermit,
}

/// While it is there, the place is not given up.
pub(crate) struct Serving(Place);

/// What is answered, and not written yet.
type Unwritten = Arc<Mutex<Vec<Arc<Serving>>>>;

impl Places {
    pub(crate) fn new(connections: u32, per_address: u32) -> Arc<Self> {
        metrics::describe_counter!(
            GIVEN_UP,
            "Connections that were closed as they waited when others came, and all places were taken"
        );
        metrics::counter!(GIVEN_UP).increment(0);
        let room = Arc::new(Semaphore::new(connections as usize));
        Arc::new(Self { room, per_address, state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, once there is one; `None` where the address has as many as it may have.
    pub(crate) async fn take(self: &Arc<Self>, address: IpAddr, is_proxy: bool) -> Option<Place> {
        let is_counted = self.per_address > 0 && !is_proxy;
        if is_counted {
            let mut state = self.lock();
            let count = state.addresses.entry(network_of(address)).or_default();
            if *count >= self.per_address {
                return None;
            }
            *count += 1;
        }
        let permit = loop {
            if let Ok(permit) = self.room.clone().try_acquire_owned() {
                break permit;
            }
            let longest = self.lock().waiting.pop_first();
            let within = if longest.is_some() { GIVES_UP_WITHIN } else { RETRY };
            if let Some((_, given_up)) = longest {
                given_up.cancel();
                metrics::counter!(GIVEN_UP).increment(1);
            }
            if let Ok(Ok(permit)) = tokio::time::timeout(within, self.room.clone().acquire_owned()).await {
                break permit;
            }
        };
        let place = Place(Arc::new(Taken {
            places: self.clone(),
            address,
            is_counted,
            given_up: CancellationToken::new(),
            number: AtomicU64::new(0),
            has_asked: AtomicBool::new(false),
            serving: AtomicU32::new(0),
            _permit: permit,
        }));
        place.wait(&mut self.lock());
        Some(place)
    }
}

impl Place {
    /// Who has connected.
    pub(crate) fn address(&self) -> IpAddr {
        self.0.address
    }

    /// From now on it serves; `None` where it was given up.
    pub(crate) fn serve(&self) -> Option<Serving> {
        let mut state = self.0.places.lock();
        let waited = state.waiting.remove(&self.0.number.load(Ordering::Relaxed)).is_some();
        // Who has not read one answer yet may have asked for the next.
        let serving = self.0.serving.load(Ordering::Relaxed);
        if !waited && serving == 0 {
            return None;
        }
        self.0.serving.store(serving + 1, Ordering::Relaxed);
        Some(Serving(self.clone()))
    }

    fn wait(&self, state: &mut State) {
        state.numbers += 1;
        self.0.number.store(state.numbers, Ordering::Relaxed);
        let number = state.numbers;
        state.waiting.insert(number, self.0.given_up.clone());
    }

    /// Does something until it is done, or the place is to be given up.
    pub(crate) async fn hold(&self, work: impl Future<Output = ()>) {
        tokio::select! {
            biased;
            () = self.0.given_up.cancelled() => {}
            () = work => {}
        }
    }
}

impl Serving {
    /// Goes on until an answer is written, and not only made.
    pub(crate) fn until_written(self, answer: &mut axum::response::Response) {
        answer.extensions_mut().insert(Arc::new(self));
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let mut state = self.0.0.places.lock();
        if self.0.0.serving.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.wait(&mut state);
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut state = self.places.lock();
        state.waiting.remove(&self.number.load(Ordering::Relaxed));
        if self.is_counted {
            let network = network_of(self.address);
            match state.addresses.get_mut(&network) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(state.addresses.remove(&network)),
            }
        }
    }
}

/// Begins to listen; inside a runtime.
pub(crate) fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restarted server takes its address again at once.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// How connections are taken.
pub(crate) struct Terms {
    pub(crate) places: Arc<Places>,
    /// Whether many clients come from an address.
    pub(crate) is_proxy: Box<dyn Fn(IpAddr) -> bool + Send + Sync>,
    /// What a head, and a handshake, may take.
    pub(crate) head: Duration,
    /// After how long a client is gone that takes nothing of what is written.
    pub(crate) write: Duration,
    pub(crate) shutdown: CancellationToken,
}

/// Takes connections until the server shuts down.
pub(crate) async fn accept(listener: TcpListener, terms: Terms, router: axum::Router, tls: Option<TlsAcceptor>) {
    let (head, write) = (terms.head, terms.write);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = terms.shutdown.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let address = peer.ip();
                if let Some(place) = terms.places.take(address, (terms.is_proxy)(address)).await {
                    tokio::spawn(serve(stream, place, (head, write), router.clone(), tls.clone()));
                }
            }
            // Of too many open files, for one: it passes.
            Err(error) => {
                tracing::error!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Serves a connection to its end.
async fn serve(
    stream: TcpStream,
    place: Place,
    (head, write): (Duration, Duration),
    router: axum::Router,
    tls: Option<TlsAcceptor>,
) {
    let _open = crate::telemetry::Open::new("http");
    // Small frames of captions are not held back.
    let _ = stream.set_nodelay(true);
    // What is written waits in buffers of a few hundred KiB at most; where none of it is taken for long, all of it is dropped.
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(write));
    let stream = Box::pin(stream);
    // Thousands of them wait: none holds room for what the other kind needs.
    let served: Pin<Box<dyn Future<Output = ()> + Send + '_>> = match &tls {
        None => Box::pin(serve_http(stream, &place, router, head)),
        Some(tls) => Box::pin(async {
            // A client that speaks something else is no news.
            if let Ok(stream) = tls.accept(stream).await {
                serve_http(Box::pin(stream), &place, router, head).await;
            }
        }),
    };
    let silent = async {
        tokio::time::sleep(head).await;
        if place.0.has_asked.load(Ordering::Relaxed) {
            std::future::pending().await
        }
    };
    let served = async {
        tokio::select! {
            () = served => {}
            () = silent => {}
        }
    };
    place.hold(served).await;
}

async fn serve_http<S>(stream: Pin<Box<S>>, place: &Place, router: axum::Router, head: Duration)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(head).max_buf_size(MAX_HEAD_BYTES);
    let unwritten = Unwritten::default();
    let service = hyper::service::service_fn(|mut request: hyper::Request<hyper::body::Incoming>| {
        place.0.has_asked.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(place.clone());
        let (answered, unwritten) = (router.clone().oneshot(request), unwritten.clone());
        async move {
            let mut answer = answered.await?;
            let serving = answer.extensions_mut().remove::<Arc<Serving>>();
            Ok::<_, Infallible>(answer.map(|body| Answer { body, serving, unwritten }))
        }
    });
    let stream = Writing { stream, unwritten: unwritten.clone() };
    // A client that is gone is no news.
    let _ = builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}

/// An answer's body. It is gone once hyper has all of it, which is before all of it is written.
struct Answer {
    body: Body,
    serving: Option<Arc<Serving>>,
    unwritten: Unwritten,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner).extend(self.serving.take());
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

/// A connection's stream: hyper flushes it when it has written all that it has.
struct Writing<S> {
    stream: S,
    unwritten: Unwritten,
}

impl<S: AsyncRead + Unpin> AsyncRead for Writing<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Writing<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    async fn take(places: &Arc<Places>) -> Place {
        places.take(HERE, false).await.unwrap()
    }

    fn is_given_up(place: &Place) -> bool {
        place.0.given_up.is_cancelled()
    }

    #[tokio::test]
    async fn who_has_waited_for_longest_gives_their_place_up_and_who_serves_does_not() {
        let places = Places::new(3, 0);
        let (serving, second, third) = (take(&places).await, take(&places).await, take(&places).await);
        let serves = serving.serve().unwrap();
        let fourth = tokio::spawn({
            let places = places.clone();
            async move { take(&places).await }
        });
        second.hold(std::future::pending()).await;
        assert!(is_given_up(&second) && second.serve().is_none() && !is_given_up(&third) && !is_given_up(&serving));
        drop(second);
        let fourth = fourth.await.unwrap();
        // Two answers at once are under way until both are written; who has served waits behind the others.
        drop(serving.serve().unwrap());
        assert!(!places.lock().waiting.contains_key(&serving.0.number.load(Ordering::Relaxed)));
        drop(serves);
        let fifth = tokio::spawn({
            let places = places.clone();
            async move { take(&places).await }
        });
        third.hold(std::future::pending()).await;
        assert!(!is_given_up(&serving) && !is_given_up(&fourth));
        drop(third);
        fifth.await.unwrap();
        drop((serving, fourth));
        assert!(places.lock().waiting.is_empty());
    }

    #[tokio::test]
    async fn one_that_takes_its_time_to_give_its_place_up_costs_no_other_theirs() {
        let places = Places::new(3, 0);
        let (first, second, third) = (take(&places).await, take(&places).await, take(&places).await);
        let next = tokio::spawn({
            let places = places.clone();
            async move { take(&places).await }
        });
        tokio::time::sleep(RETRY * 5).await;
        assert!(is_given_up(&first) && !is_given_up(&second) && !is_given_up(&third));
        drop(first);
        next.await.unwrap();
        assert!(!is_given_up(&second) && !is_given_up(&third));
    }

    #[tokio::test]
    async fn where_all_serve_the_next_one_waits() {
        let places = Places::new(1, 0);
        let only = take(&places).await;
        let serves = only.serve().unwrap();
        let next = tokio::time::timeout(Duration::from_millis(50), places.take(HERE, false)).await;
        assert!(next.is_err() && !is_given_up(&only));
        drop((serves, only));
        take(&places).await;
    }

    #[tokio::test]
    async fn an_address_has_as_many_as_it_may_have_unless_it_is_a_proxys() {
        let places = Places::new(8, 2);
        let both = (take(&places).await, take(&places).await);
        assert!(places.take(HERE, false).await.is_none());
        assert!(places.take(HERE, true).await.is_some());
        assert!(places.take("203.0.113.1".parse().unwrap(), false).await.is_some());
        drop(both);
        take(&places).await;
        // Of IPv6 a network is one.
        let from = |address: &str| places.take(address.parse().unwrap(), false);
        let both = (from("2001:db8::1").await.unwrap(), from("2001:db8::2").await.unwrap());
        assert!(from("2001:db8::3").await.is_none());
        assert!(from("2001:db8:0:1::1").await.is_some());
        drop(both);
        assert!(from("2001:db8::3").await.is_some());
        assert!(places.lock().addresses.is_empty());
    }
}
