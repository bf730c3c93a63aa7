//! How often who may ask.
//!
//! In: who asks: a user, the platform's server, an address. Out: whether they may now, and what they have left, as clients read
//! it.
//!
//! A minute's requests may come at once; what was asked comes back evenly (the generic cell rate algorithm). Of who has all of
//! it back nothing is kept.

use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use governor::clock::{Clock as _, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

use crate::clock::now;
use crate::limits::Limits;
use crate::wire::error::{ApiError, Code};
use crate::wire::token::Token;

/// What clients read of their limit.
pub(crate) const HEADERS: [&str; 3] = ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"];
/// Of as many something is kept; those beyond share one budget.
const MOST_KEYS: usize = 100_000;
/// Of fewer nobody looks who could be forgotten.
const FIRST_SWEEP: usize = 1024;
/// Requests that were refused.
const LIMITED: &str = "cuewire_rate_limited_total";

/// Whose an address is, as limits have it: of IPv6 one machine has a whole network of them.
pub(crate) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

/// Something was refused because there was too much of it.
pub(crate) fn limited(whose: &'static str) {
    metrics::counter!(LIMITED, "whose" => whose).increment(1);
}

/// All limits.
pub(crate) struct Rates {
    users: Rate<String>,
    servers: Rate<()>,
    addresses: Rate<IpAddr>,
    connects: Rate<String>,
    trusted_proxies: Vec<IpAddr>,
}

impl Rates {
    pub(crate) fn new(limits: &Limits) -> Self {
        metrics::describe_counter!(LIMITED, "Requests and connections refused because there were too many, by whose");
        for whose in ["user", "server", "address", "connect", "sockets"] {
            metrics::counter!(LIMITED, "whose" => whose).increment(0);
        }
        Self {
            users: Rate::new("user", limits.user_requests_per_min, String::new()),
            servers: Rate::new("server", limits.server_requests_per_min, ()),
            addresses: Rate::new("address", limits.address_requests_per_min, Ipv4Addr::UNSPECIFIED.into()),
            connects: Rate::new("connect", limits.connects_per_min, String::new()),
            trusted_proxies: limits.trusted_proxies.clone(),
        }
    }

    /// Of a request with a good token.
    pub(crate) fn ask(&self, token: &Token) -> Standing {
        match token {
            Token::Server => self.servers.ask(&()),
            Token::User(token) => self.users.ask(&token.user_id),
        }
    }

    /// Of a request without one, from such an address; `None`: it is not limited.
    pub(crate) fn ask_from(&self, address: IpAddr) -> Option<Standing> {
        (!address.to_canonical().is_loopback()).then(|| self.addresses.ask(&network_of(address)))
    }

    /// A user opens a WebSocket.
    pub(crate) fn connect(&self, user_id: &str) -> Result<(), ApiError> {
        self.connects.ask(&user_id.to_string()).check()
    }

    /// Why a WebSocket from such an address is refused: for `error`, unless it happens too often.
    pub(crate) fn refused(&self, address: IpAddr, error: ApiError) -> ApiError {
        match self.ask_from(address).map_or(Ok(()), |standing| standing.check()) {
            Err(limited) if error.code.status() == 401 => limited,
            _ => error,
        }
    }

    /// Where a request comes from: what trusted proxies say, the nearest first, and else who has connected.
    pub(crate) fn address(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let is_trusted = |address: &IpAddr| self.trusted_proxies.contains(&address.to_canonical());
        if !is_trusted(&peer) {
            return peer;
        }
        let said: Vec<_> = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok()).collect();
        let mut address = peer;
        for said in said.iter().flat_map(|said| said.split(',')).rev() {
            // Of what is no address nobody knows who said it.
            let Ok(before) = said.trim().parse() else { break };
            address = before;
            if !is_trusted(&address) {
                break;
            }
        }
        address
    }

    /// Whether somebody at an address speaks for others.
    pub(crate) fn is_proxy(&self, address: IpAddr) -> bool {
        self.trusted_proxies.contains(&address.to_canonical())
    }
}

/// How often each of some may ask.
struct Rate<K: Hash + Eq + Clone> {
    whose: &'static str,
    per_min: u32,
    limiter: RateLimiter<K, HashMapStateStore<K>, DefaultClock, StateInformationMiddleware>,
    clock: DefaultClock,
    /// Whose budget those share of whom nothing can be kept.
    others: K,
    /// When so many are kept, those who have all of their budget are forgotten; and when that was last done.
    sweep_at: AtomicUsize,
    swept: Mutex<Instant>,
}

impl<K: Hash + Eq + Clone> Rate<K> {
    fn new(whose: &'static str, per_min: u32, others: K) -> Self {
        let quota = Quota::per_minute(NonZeroU32::new(per_min).unwrap_or(NonZeroU32::MIN));
        Self {
            whose,
            per_min,
            limiter: RateLimiter::hashmap(quota).with_middleware(),
            clock: DefaultClock::default(),
            others,
            sweep_at: AtomicUsize::new(FIRST_SWEEP),
            swept: Mutex::new(Instant::now()),
        }
    }

    fn ask(&self, key: &K) -> Standing {
        let key = if self.has_room() { key } else { &self.others };
        let (remaining, wait) = match self.limiter.check_key(key) {
            Ok(state) => (state.remaining_burst_capacity(), None),
            Err(until) => (0, Some(until.wait_time_from(self.clock.now()))),
        };
        if wait.is_some() {
            limited(self.whose);
        }
        let whole = Duration::from_secs(60).mul_f64(f64::from(self.per_min - remaining) / f64::from(self.per_min));
        Standing { per_min: self.per_min, remaining, whole_in: wait.map_or(whole, |wait| whole.max(wait)), wait }
    }

    /// Whether something can be kept of one more.
    fn has_room(&self) -> bool {
        let kept = self.limiter.len();
        if kept < self.sweep_at.load(Ordering::Relaxed) {
            return true;
        }
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept < MOST_KEYS || swept.elapsed() > Duration::from_secs(1) {
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
            *swept = Instant::now();
            self.sweep_at.store((self.limiter.len() * 2).clamp(FIRST_SWEEP, MOST_KEYS), Ordering::Relaxed);
        }
        self.limiter.len() < MOST_KEYS
    }
}

/// What somebody has left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    per_min: u32,
    remaining: u32,
    /// When all of it is back.
    whole_in: Duration,
    /// When they may ask again, where they may not now.
    wait: Option<Duration>,
}

impl Standing {
    /// Whether this request was one too many.
    ///
    /// # Errors
    /// [`Code::RateLimit`].
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        self.retry_after_s().map_or(Ok(()), |wait_s| {
            let per_min = self.per_min;
            let why = format!("too many requests: {per_min} a minute are allowed; ask again in {wait_s} s");
            Err(ApiError::new(Code::RateLimit, why))
        })
    }

    fn retry_after_s(&self) -> Option<u64> {
        self.wait.map(|wait| (wait.as_secs_f64().ceil() as u64).max(1))
    }

    /// Says it as clients read it.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        let reset = now().plus_nanos(i64::try_from(self.whole_in.as_nanos()).unwrap_or(i64::MAX)).as_nanos();
        let reset_s = u64::try_from(reset).unwrap_or_default().div_ceil(1_000_000_000);
        let values = [self.per_min.into(), self.remaining.into(), reset_s];
        for (name, value) in HEADERS.into_iter().zip(values) {
            headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
        }
        if let Some(seconds) = self.retry_after_s() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
    }
}

/// Counts the messages of one connection.
pub(crate) struct Messages {
    per_s: u32,
    second: Instant,
    count: u32,
}

impl Messages {
    pub(crate) fn new(per_s: u32) -> Self {
        Self { per_s, second: Instant::now(), count: 0 }
    }

    /// One more has come; whether that is too many.
    pub(crate) fn are_too_many(&mut self) -> bool {
        if self.second.elapsed() >= Duration::from_secs(1) {
            (self.second, self.count) = (Instant::now(), 0);
        }
        self.count += 1;
        self.count > self.per_s
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_minutes_requests_may_come_at_once_and_come_back_evenly() {
        // So few that none comes back meanwhile.
        let rate = Rate::new("user", 6, String::new());
        for left in (0..6).rev() {
            let standing = rate.ask(&"alice".into());
            standing.check().unwrap();
            assert_eq!(standing.remaining, left, "{standing:?}");
        }
        let standing = rate.ask(&"alice".into());
        let error = standing.check().unwrap_err();
        assert_eq!((error.code, standing.remaining), (Code::RateLimit, 0));
        let wait_s = standing.retry_after_s().unwrap();
        assert!((5..=10).contains(&wait_s), "the next one, and not all of them: {standing:?}");
        assert!(standing.whole_in > Duration::from_secs(55) && standing.whole_in <= Duration::from_secs(61));
        rate.ask(&"bob".into()).check().unwrap();
        let mut headers = HeaderMap::new();
        standing.write(&mut headers);
        let number = |name: &str| headers[name].to_str().unwrap().parse::<i64>().unwrap();
        let now_s = now().as_nanos() / 1_000_000_000;
        let expected = (6, 0, i64::try_from(wait_s).unwrap());
        assert_eq!((number("x-ratelimit-limit"), number("x-ratelimit-remaining"), number("retry-after")), expected);
        assert!((now_s + 55..now_s + 63).contains(&number("x-ratelimit-reset")), "{headers:?}");
        // So many that one is back soon, and few of the others.
        let rate = Rate::new("user", 600, String::new());
        while rate.ask(&"alice".into()).check().is_ok() {}
        std::thread::sleep(Duration::from_millis(120));
        let standing = rate.ask(&"alice".into());
        standing.check().unwrap();
        assert!(standing.remaining < 300, "{standing:?}");
    }

    #[test]
    fn of_no_more_is_anything_kept_than_there_is_room_for() {
        let rate = Rate::new("address", 1, u32::MAX);
        for key in 0..MOST_KEYS as u32 * 2 {
            rate.ask(&key);
        }
        assert!(rate.limiter.len() <= MOST_KEYS + 1, "{}", rate.limiter.len());
        assert!(rate.ask(&(MOST_KEYS as u32 * 3)).check().is_err(), "the others' budget is used up");
        // Those who have everything back are forgotten.
        let rate = Rate::new("address", 1_000_000, u32::MAX);
        for key in 0..100_000 {
            rate.ask(&key);
        }
        assert!(rate.limiter.len() <= FIRST_SWEEP * 2, "{}", rate.limiter.len());
    }

    #[test]
    fn addresses_are_those_that_trusted_proxies_say_and_no_others() {
        let limits = Limits {
            trusted_proxies: vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()],
            address_requests_per_min: 1,
            ..Limits::default()
        };
        let rates = Rates::new(&limits);
        for (peer, said, expected) in [
            ("10.0.0.1", &["203.0.113.7"][..], "203.0.113.7"),
            ("::ffff:10.0.0.1", &["203.0.113.7"], "203.0.113.7"),
            ("10.0.0.1", &["6.6.6.6, 203.0.113.7", "10.0.0.2"], "203.0.113.7"),
            ("10.0.0.1", &["6.6.6.6, rubbish"], "10.0.0.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("203.0.113.9", &["6.6.6.6"], "203.0.113.9"),
        ] {
            let mut headers = HeaderMap::new();
            for said in said {
                headers.append("x-forwarded-for", said.parse().unwrap());
            }
            assert_eq!(rates.address(peer.parse().unwrap(), &headers), expected.parse::<IpAddr>().unwrap(), "{said:?}");
        }
        let ask = |address: &str| rates.ask_from(address.parse().unwrap()).map(|standing| standing.check().is_ok());
        assert_eq!((ask("203.0.113.7"), ask("203.0.113.7"), ask("203.0.113.8")), (Some(true), Some(false), Some(true)));
        assert_eq!(
            (ask("2001:db8::1"), ask("2001:db8::2"), ask("2001:db8:0:1::1")),
            (Some(true), Some(false), Some(true))
        );
        assert_eq!((ask("127.0.0.1"), ask("::1"), ask("::ffff:127.0.0.1")), (None, None, None));
    }
}
