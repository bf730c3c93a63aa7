//! Audio by RTP over UDP, as media servers send it.
//!
//! In: what a platform agrees with its media server ([`Agreed`]), and datagrams. Out: pushes into the participant's track.
//!
//! A port is a participant's connection, of which nobody knows before its first packet: that is the join. One task serves it, and
//! holds one buffer. What is lost, late or out of order is the engine's affair ([`cuewire::audio::rtp`]).

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cuewire::audio::rtp::RtpFormat;
use metrics::Counter;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::audio::{self, push};
use crate::call::Cid;
use crate::call::settings::DEFAULT_INACTIVITY_S;
use crate::clock::now;
use crate::host::Host;
use crate::stages::{Closed, Seated};
use crate::wire::error::{ApiError, Code};
use crate::wire::token::{UserToken, expiry};

mod clock;
mod gate;
#[cfg(test)]
mod tests;

pub(crate) use gate::Agreed;

pub(crate) use clock::Progress;
use gate::Dropped;
pub(crate) use gate::{Gate, MAX_DATAGRAM_BYTES, Taken};

/// Settings of the ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtpConfig {
    /// Where they are bound; default 127.0.0.1.
    pub address: IpAddr,
    /// The first and the last; default 20000 – 20999. Audio comes on the even ones, RTCP there or on the one behind.
    pub ports: [u16; 2],
    /// How many a user may have with tokens of their own; default 2, so that another can take over.
    pub per_user: u32,
    /// After how long without a packet one that was asked for is given back, in seconds; default 300.
    pub unused_s: u32,
}

impl Default for RtpConfig {
    fn default() -> Self {
        Self { address: IpAddr::from([127, 0, 0, 1]), ports: [20_000, 20_999], per_user: 2, unused_s: 300 }
    }
}

impl RtpConfig {
    /// Whether the values make sense.
    ///
    /// # Errors
    /// The first that does not.
    pub(crate) fn check(&self) -> Result<(), String> {
        let [first, last] = self.ports;
        if first < 1024 || self.even().is_empty() {
            return Err(format!(
                "rtp_ports is [{first}, {last}]: allowed is a range from 1024 on with an even port and the next"
            ));
        }
        if !(1..=3600).contains(&self.unused_s) {
            return Err(format!("rtp_unused_s is {}: allowed are 1 – 3600", self.unused_s));
        }
        Ok(())
    }

    /// Halves of the ports that audio comes on.
    fn even(&self) -> std::ops::Range<u16> {
        let [first, last] = self.ports;
        first.div_ceil(2)..last.div_ceil(2)
    }
}

/// Who is to speak on a port.
pub(crate) struct Speaker {
    pub(crate) cid: Cid,
    /// Theirs, or what a server vouches for.
    pub(crate) token: UserToken,
    /// Whether it is theirs: they have a quota then.
    pub(crate) is_theirs: bool,
}

/// Where nobody could join for a reason that passes, it is tried again after this.
const JOIN_AGAIN: Duration = Duration::from_secs(1);

/// The ports that are open.
pub(crate) struct Ports {
    config: RtpConfig,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    ports: BTreeMap<u16, Entry>,
    /// Half of the port that is tried next: one that was given back is not given out again at once, as its sender may not know.
    next: u16,
}

struct Entry {
    cid: Cid,
    user_id: String,
    is_theirs: bool,
    stop: CancellationToken,
    closed: CancellationToken,
}

/// A port that is bound.
pub(crate) struct Bound {
    pub(crate) port: u16,
    rtp: UdpSocket,
    rtcp: UdpSocket,
    stop: CancellationToken,
    /// Gives it back.
    place: Place,
}

struct Place {
    ports: Arc<Ports>,
    port: u16,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.ports.lock();
        if let Some(entry) = open.ports.remove(&self.port) {
            entry.closed.cancel();
        }
        count(&open);
    }
}

const PORTS: &str = "cuewire_rtp_ports";

fn count(open: &Open) {
    metrics::gauge!(PORTS).set(open.ports.len() as f64);
}

impl Ports {
    pub(crate) fn new(config: RtpConfig) -> Arc<Self> {
        metrics::describe_gauge!(PORTS, "Ports that participants' RTP may come on");
        metrics::describe_counter!(PACKETS, "RTP packets of participants that were taken");
        metrics::describe_counter!(DROPPED, "Datagrams on RTP ports that were dropped, by reason");
        // There from the start, so that the first one is an increase.
        Counters::new();
        metrics::gauge!(PORTS).set(0.0);
        let next = config.even().start;
        Arc::new(Self { config, open: Mutex::new(Open { next, ..Open::default() }) })
    }

    pub(crate) fn address(&self) -> IpAddr {
        self.config.address
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Binds a port for somebody.
    ///
    /// # Errors
    /// [`Code::NotAllowed`] where they have all that they may have, [`Code::Full`] where none is free.
    pub(crate) fn bind(self: &Arc<Self>, speaker: &Speaker) -> Result<Bound, ApiError> {
        let (user_id, even) = (&speaker.token.user_id, self.config.even());
        let mut open = self.lock();
        let theirs = open.ports.values().filter(|entry| entry.is_theirs && entry.user_id == *user_id).count();
        if speaker.is_theirs && theirs >= self.config.per_user as usize {
            let why = match self.config.per_user {
                0 => "users may open no RTP ports here: a server's token opens them".to_string(),
                most => format!("{user_id} has {theirs} RTP ports: allowed are {most}; close one"),
            };
            return Err(ApiError::new(Code::NotAllowed, why));
        }
        let mut failure = None;
        for _ in even.clone() {
            let half = open.next;
            open.next = if half + 1 < even.end { half + 1 } else { even.start };
            let port = half * 2;
            if open.ports.contains_key(&port) {
                continue;
            }
            let bind = |port| {
                let socket = std::net::UdpSocket::bind(SocketAddr::new(self.config.address, port))?;
                socket.set_nonblocking(true)?;
                UdpSocket::from_std(socket)
            };
            let (rtp, rtcp) = match bind(port).and_then(|rtp| Ok((rtp, bind(port + 1)?))) {
                Ok(both) => both,
                // Somebody else on this machine has one of them.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => continue,
                // Of an address that is not this machine's, or of too many open files: the next port has it as well.
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            };
            let (stop, closed) = (CancellationToken::new(), CancellationToken::new());
            let entry = Entry {
                cid: speaker.cid.clone(),
                user_id: user_id.clone(),
                is_theirs: speaker.is_theirs,
                stop: stop.clone(),
                closed,
            };
            open.ports.insert(port, entry);
            count(&open);
            return Ok(Bound { port, rtp, rtcp, stop, place: Place { ports: self.clone(), port } });
        }
        let [first, last] = self.config.ports;
        let why = match failure {
            Some(error) => format!("cannot bind an RTP port at {}: {error}", self.config.address),
            None => format!("none of the RTP ports {first} – {last} is free: {} are in use here", open.ports.len()),
        };
        Err(ApiError::new(Code::Full, why))
    }

    /// Closes a port of a call, and waits until it is; `user_id` closes only their own.
    ///
    /// # Errors
    /// [`Code::DoesNotExist`], [`Code::NotAllowed`].
    pub(crate) async fn close(&self, cid: &Cid, port: u16, user_id: Option<&str>) -> Result<(), ApiError> {
        let closed = {
            let open = self.lock();
            let Some(entry) = open.ports.get(&port).filter(|entry| entry.cid == *cid) else {
                return Err(ApiError::new(Code::DoesNotExist, format!("the call {cid} has no RTP port {port}")));
            };
            if user_id.is_some_and(|user_id| user_id != entry.user_id) {
                return Err(ApiError::new(Code::NotAllowed, format!("the RTP port {port} is another user's")));
            }
            entry.stop.cancel();
            entry.closed.clone()
        };
        closed.cancelled().await;
        Ok(())
    }
}

const PACKETS: &str = "cuewire_rtp_packets_total";
const DROPPED: &str = "cuewire_rtp_dropped_total";

/// What a port counts.
struct Counters {
    packets: Counter,
    dropped: [Counter; Dropped::ALL.len()],
}

impl Counters {
    fn new() -> Self {
        let dropped = Dropped::ALL.map(|reason| metrics::counter!(DROPPED, "reason" => reason.name()));
        Self { packets: metrics::counter!(PACKETS), dropped }
    }
}

/// Why a port is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Closed,
    Unused,
    Silent,
    TokenExpired,
    AccessLost,
    /// Another connection has the place, the call has ended, or the track.
    Replaced,
    Refused,
    ShuttingDown,
}

/// Serves a port until it is given back.
pub(crate) async fn serve(
    host: Arc<Host>,
    bound: Bound,
    agreed: Agreed,
    speaker: Speaker,
    shutdown: CancellationToken,
) {
    let unused = Duration::from_secs(bound.place.ports.config.unused_s.into());
    let mut port = Port {
        format: agreed.format,
        gate: Gate::new(agreed),
        counters: Counters::new(),
        buffer: vec![0; MAX_DATAGRAM_BYTES],
        seated: None,
        progress: Progress::default(),
        last: Instant::now(),
        refused: None,
    };
    let ended = port.hear(&host, &bound, &speaker, unused, &shutdown).await;
    if let Some(seated) = port.seated.filter(|_| ended != Ended::ShuttingDown) {
        host.stages.leave(&speaker.cid, &speaker.token.user_id, seated.connection);
    }
    tracing::info!(
        "the RTP port {} of {} in {} is given back: {ended:?}",
        bound.port,
        speaker.token.user_id,
        speaker.cid
    );
}

struct Port {
    format: RtpFormat,
    gate: Gate,
    counters: Counters,
    buffer: Vec<u8>,
    /// Once they have joined.
    seated: Option<Seated>,
    progress: Progress,
    /// When the last packet of theirs came.
    last: Instant,
    /// When they could not join.
    refused: Option<Instant>,
}

impl Port {
    async fn hear(
        &mut self,
        host: &Arc<Host>,
        bound: &Bound,
        speaker: &Speaker,
        unused: Duration,
        shutdown: &CancellationToken,
    ) -> Ended {
        let expires = expiry(speaker.token.expires_at);
        let silent = tokio::time::sleep(unused);
        tokio::pin!(expires, silent);
        loop {
            let received = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ended::ShuttingDown,
                () = bound.stop.cancelled() => return Ended::Closed,
                why = closed(&mut self.seated) => return why,
                () = &mut expires => return Ended::TokenExpired,
                () = &mut silent => {
                    let (patience, why) = match self.seated {
                        Some(_) => (patience(host, &speaker.cid).await, Ended::Silent),
                        None => (unused, Ended::Unused),
                    };
                    let left = patience.saturating_sub(self.last.elapsed());
                    if left.is_zero() {
                        return why;
                    }
                    silent.as_mut().reset(tokio::time::Instant::now() + left);
                    continue;
                }
                received = receive(bound, &mut self.buffer) => received,
            };
            let (bytes, from) = match received {
                Ok(received) => received,
                // Of memory, for one: it passes.
                Err(error) => {
                    tracing::error!("the RTP port {}: {error}", bound.port);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let clocks = (now(), Instant::now());
            let taken = self.gate.take(&self.buffer[..bytes], from, clocks, host.stages.is_overloaded());
            let (mut packet, nanos) = match taken {
                Ok(Taken::Control) => continue,
                Ok(Taken::Audio(packet, nanos)) => {
                    self.counters.packets.increment(1);
                    (packet, Some(nanos))
                }
                Ok(Taken::Other(packet)) => {
                    self.counters.dropped[Dropped::PayloadType as usize].increment(1);
                    (packet, None)
                }
                Err(why) => {
                    self.counters.dropped[why as usize].increment(1);
                    continue;
                }
            };
            self.last = Instant::now();
            if self.seated.is_none() {
                if self.refused.is_some_and(|refused| refused.elapsed() < JOIN_AGAIN) {
                    continue;
                }
                match join(host, speaker).await {
                    Ok(Some(seated)) => {
                        packet.at = seated.line.lock().unwrap_or_else(PoisonError::into_inner).not_before(packet.at);
                        self.seated = Some(seated);
                        silent.as_mut().reset(tokio::time::Instant::now() + patience(host, &speaker.cid).await);
                    }
                    Ok(None) => return Ended::ShuttingDown,
                    // The server is full, or its disk: that passes, and nobody would ask for the port again.
                    Err(error) if matches!(error.code, Code::Full | Code::Internal) => {
                        if self.refused.replace(Instant::now()).is_none() {
                            tracing::warn!(
                                "{} cannot join {} yet: {error}; tried again each second",
                                speaker.token.user_id,
                                speaker.cid
                            );
                        }
                        continue;
                    }
                    Err(error) => {
                        tracing::warn!("{} cannot join {}: {error}", speaker.token.user_id, speaker.cid);
                        return Ended::Refused;
                    }
                }
            }
            let Some(seated) = &self.seated else { continue };
            let rate = self.format.clock_rate();
            let end = nanos.map(|nanos| self.progress.end(&packet, rate, nanos));
            // What comes by another connection is another stream to the engine, whatever senders call theirs: neighbours, often.
            packet.ssrc ^= (seated.connection as u32).wrapping_mul(0x9e37_79b9);
            let line = || seated.line.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = push(|| line().push_rtp(self.format, packet, end)).await {
                tracing::warn!("the RTP port {}: {error}", bound.port);
                // It failed; or the server is shutting down, and may have it that nobody has left.
                return if shutdown.is_cancelled() { Ended::ShuttingDown } else { Ended::Replaced };
            }
        }
    }
}

/// For how long nothing may come of a participant, as the call has it now.
async fn patience(host: &Arc<Host>, cid: &Cid) -> Duration {
    let of = cid.clone();
    let set = host.read(move |change| {
        let settings = change.call(&of)?.settings_in(&change.call_type(of.call_type())?);
        Ok(settings.leaves().unwrap_or_default().inactivity_timeout_s)
    });
    // Where nothing can be read, nobody is sent away sooner for it.
    let seconds = set.await.ok().flatten().unwrap_or(DEFAULT_INACTIVITY_S);
    Duration::from_secs(seconds.into())
}

/// Until the participant's connection is closed; for ever, where they have not joined.
async fn closed(seated: &mut Option<Seated>) -> Ended {
    match seated {
        Some(seated) => match (&mut seated.closed).await {
            Ok(Closed::AccessLost) => Ended::AccessLost,
            Err(_) => Ended::Replaced,
        },
        None => std::future::pending().await,
    }
}

/// The next datagram on either port.
async fn receive(bound: &Bound, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    // A flood leaves the others their turn.
    tokio::task::coop::consume_budget().await;
    loop {
        for socket in [&bound.rtp, &bound.rtcp] {
            match socket.try_recv_from(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => return received,
            }
        }
        tokio::select! {
            ready = bound.rtp.readable() => ready?,
            ready = bound.rtcp.readable() => ready?,
        }
    }
}

async fn join(host: &Arc<Host>, speaker: &Speaker) -> Result<Option<Seated>, ApiError> {
    let (of, cid, token) = (host.clone(), speaker.cid.clone(), speaker.token.clone());
    host.run(move |change| audio::join(&of, change, &cid, &token)).await
}
