//! Requests to the hub: where the token goes, which redirects are followed, what is worth trying again.
//!
//! In: repository, commit, file. Out: listings, checksums and sizes, bodies; or a [`Problem`] that says whether waiting
//! may help. The token goes to the endpoint's own origin and nowhere else.

use std::time::Duration;

use ureq::http::{Response, Uri};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::Screen;
use super::checksum::Checksum;
use super::settings::Settings;
use crate::Failure;
use crate::cache::{self, RepoId, Revision};

/// Attempts in a row that bring nothing.
const ATTEMPTS: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(300);
/// The hub counts requests over five minutes.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// Nobody wonders why nothing happens for so long.
const UNNOTICED_WAIT: Duration = Duration::from_secs(3);
const REDIRECTS: usize = 8;
const CONNECT: Duration = Duration::from_secs(15);
const LARGEST_LISTING: u64 = 16 << 20;

/// Why a request came to nothing.
pub(super) enum Problem {
    /// It may be different in a while: `wait` if the hub says how long.
    Passing {
        what: String,
        wait: Option<Duration>,
    },
    Lasting(Failure),
}

impl Problem {
    pub(super) fn passing(what: String) -> Self {
        Self::Passing { what, wait: None }
    }

    pub(super) fn into_failure(self) -> Failure {
        match self {
            Self::Passing { what, .. } => Failure(what),
            Self::Lasting(failure) => failure,
        }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self::Lasting(failure)
    }
}

/// How often something is tried again, and after how long.
#[derive(Default)]
pub(super) struct Patience {
    failures: u32,
}

impl Patience {
    /// Waits, or gives the problem back when it has lasted long enough.
    pub(super) fn bear(&mut self, problem: Problem, screen: &Screen) -> Result<(), Problem> {
        let Problem::Passing { what, wait } = problem else { return Err(problem) };
        self.failures += 1;
        if self.failures >= ATTEMPTS {
            return Err(Problem::passing(format!("{what}, {ATTEMPTS} times")));
        }
        let wait = wait.unwrap_or(FIRST_WAIT * 2u32.pow(self.failures - 1)).min(LONGEST_WAIT);
        let message = format!("{what}: trying again in {:.1} s", wait.as_secs_f64());
        if wait > UNNOTICED_WAIT {
            screen.say(&message)
        } else {
            screen.note(&message)
        }
        std::thread::sleep(wait);
        Ok(())
    }

    /// Something came through.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// What a revision holds.
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) files: Vec<String>,
}

#[derive(serde::Deserialize)]
struct RevisionInfo {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(serde::Deserialize)]
struct Sibling {
    rfilename: String,
}

#[derive(serde::Deserialize)]
struct Refs {
    #[serde(default)]
    branches: Vec<Ref>,
    #[serde(default)]
    tags: Vec<Ref>,
}

#[derive(serde::Deserialize)]
struct Ref {
    name: String,
}

pub(super) struct Client {
    agent: Agent,
    settings: Settings,
    /// Whether `https` can be spoken on this processor.
    has_tls: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    Get,
    /// Of a file that lies elsewhere the hub's own answer is wanted, not the other host's.
    HeadOfHub,
}

/// An answer, and whether it is the hub's own.
struct Answer {
    response: Response<Body>,
    of_hub: bool,
}

impl Client {
    pub(super) fn new(settings: Settings) -> Result<Self, Failure> {
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier);
        let (tls, has_tls) = match provider() {
            Some(provider) => (tls.unversioned_rustls_crypto_provider(provider), true),
            None => (tls, false),
        };
        origin(&settings.endpoint).map_err(|error| Failure(format!("HF_ENDPOINT: {error}")))?;
        let agent = Agent::config_builder()
            .tls_config(tls.build())
            .user_agent(concat!("cuewire/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            // Each hop is ours to decide, for the token's sake.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_per_read(Some(settings.silence))
            .timeout_per_write(Some(settings.silence))
            .build()
            .new_agent();
        Ok(Self { agent, settings, has_tls })
    }

    /// The files of a revision, and its commit.
    pub(super) fn listing(&self, id: &RepoId, revision: &Revision, screen: &Screen) -> Result<Listing, Problem> {
        let url = format!("{}/api/models/{id}/revision/{}", self.settings.endpoint, revision.quoted());
        let info: RevisionInfo = self.persist(screen, || {
            let Answer { response, of_hub } = self.request(Method::Get, &url, 0)?;
            if response.status() != 200 {
                return Err(self.refusal(id, Some(revision), &response, of_hub));
            }
            self.json(response)
        })?;
        if !cache::is_commit(&info.sha) {
            return Err(
                Failure(format!("{} names `{:.60}` as a commit of {id}", self.settings.endpoint, info.sha)).into()
            );
        }
        Ok(Listing { commit: info.sha, files: info.siblings.into_iter().map(|s| s.rfilename).collect() })
    }

    /// What a file must hash to, and its size in bytes.
    pub(super) fn metadata(
        &self,
        id: &RepoId,
        commit: &str,
        file: &str,
        screen: &Screen,
    ) -> Result<(Checksum, u64), Problem> {
        let url = self.file_url(id, commit, file);
        self.persist(screen, || {
            let Answer { response, of_hub } = self.request(Method::HeadOfHub, &url, 0)?;
            let status = response.status();
            if !status.is_success() && !status.is_redirection() {
                return Err(self.refusal(id, None, &response, of_hub));
            }
            let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
            let etag = header("x-linked-etag").or_else(|| header("etag"));
            let size = header("x-linked-size").or_else(|| header("content-length").filter(|_| status.is_success()));
            match (etag.and_then(Checksum::of_etag), size.and_then(|size| size.parse().ok())) {
                (Some(checksum), Some(size)) => Ok((checksum, size)),
                (None, _) => Err(Failure(format!("{url}: the hub gives no checksum, so it is not fetched")).into()),
                (_, None) => Err(Failure(format!("{url}: the hub does not say how large it is")).into()),
            }
        })
    }

    /// A file's bytes from `start` on: 200 where the other side cannot do that, 206, or 416 where there are none.
    pub(super) fn open(&self, id: &RepoId, commit: &str, file: &str, start: u64) -> Result<Response<Body>, Problem> {
        let Answer { response, of_hub } = self.request(Method::Get, &self.file_url(id, commit, file), start)?;
        match response.status().as_u16() {
            200 | 206 | 416 => Ok(response),
            _ => Err(self.refusal(id, None, &response, of_hub)),
        }
    }

    fn file_url(&self, id: &RepoId, commit: &str, file: &str) -> String {
        format!("{}/{id}/resolve/{commit}/{file}", self.settings.endpoint)
    }

    fn persist<T>(&self, screen: &Screen, mut attempt: impl FnMut() -> Result<T, Problem>) -> Result<T, Problem> {
        let mut patience = Patience::default();
        loop {
            match attempt() {
                Ok(done) => return Ok(done),
                Err(problem) => patience.bear(problem, screen)?,
            }
        }
    }

    fn request(&self, method: Method, url: &str, start: u64) -> Result<Answer, Problem> {
        let lasting = |error: String| Problem::Lasting(Failure(error));
        let home = origin(&self.settings.endpoint).map_err(lasting)?;
        let mut url = url.to_string();
        for _ in 0..=REDIRECTS {
            let here = origin(&url).map_err(lasting)?;
            if here.is_encrypted && !self.has_tls {
                return Err(lasting(format!(
                    "{url}: this build has no TLS for this processor; `hf download` puts a model where --model finds it"
                )));
            }
            let of_hub = here == home;
            let mut request = match method {
                Method::Get => self.agent.get(&url),
                Method::HeadOfHub => self.agent.head(&url),
            };
            // Sizes and ranges are those of the file as it is.
            request = request.header("accept-encoding", "identity");
            if start > 0 {
                request = request.header("range", format!("bytes={start}-"));
            }
            if let Some(token) = self.settings.token.as_ref().filter(|_| of_hub) {
                request = request.header("authorization", format!("Bearer {}", token.secret));
            }
            let response = request.call().map_err(|error| problem(&here, error))?;
            let location = match response.status().as_u16() {
                301 | 302 | 303 | 307 | 308 => response.headers().get("location"),
                _ => None,
            };
            let Some(location) = location else { return Ok(Answer { response, of_hub }) };
            let location = location.to_str().map_err(|_| lasting(format!("{url} leads to no URL")))?;
            let next = join(&url, location);
            let there = origin(&next).map_err(lasting)?;
            if here.is_encrypted && !there.is_encrypted {
                return Err(lasting(format!("{url} leads to {next}, which is not encrypted: not followed")));
            }
            if method == Method::HeadOfHub && there != home {
                return Ok(Answer { response, of_hub });
            }
            url = next;
        }
        Err(lasting(format!("{url}: more than {REDIRECTS} redirects")))
    }

    fn json<T: serde::de::DeserializeOwned>(&self, mut response: Response<Body>) -> Result<T, Problem> {
        let home = &self.settings.endpoint;
        let bytes = match response.body_mut().with_config().limit(LARGEST_LISTING).read_to_vec() {
            Ok(bytes) => bytes,
            Err(ureq::Error::BodyExceedsLimit(limit)) => {
                return Err(Failure(format!("{home} answers with more than {limit} bytes")).into());
            }
            Err(error) => return Err(Problem::passing(format!("the answer of {home} broke off ({error})"))),
        };
        serde_json::from_slice(&bytes)
            .map_err(|error| Failure(format!("{home} does not answer as a Hugging Face hub does: {error}")).into())
    }

    /// What an answer that is no success means for the user.
    fn refusal(&self, id: &RepoId, revision: Option<&Revision>, response: &Response<Body>, of_hub: bool) -> Problem {
        let home = &self.settings.endpoint;
        let status = response.status().as_u16();
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        // Another host's refusal is mostly a signed address that has run out: the hub gives a new one.
        if matches!(status, 408 | 425 | 429 | 500..=599) || (!of_hub && matches!(status, 401 | 403)) {
            let wait = header("retry-after").and_then(|seconds| seconds.trim().parse().ok()).map(Duration::from_secs);
            let who = if of_hub { home.as_str() } else { "the host of the file" };
            return Problem::Passing { what: format!("{who} answers {}", response.status()), wait };
        }
        let token = match &self.settings.token {
            Some(token) => format!("the token is that of {}", token.source),
            None => "set HF_TOKEN to an access token, or write one with `hf auth login`".to_string(),
        };
        Problem::Lasting(Failure(match (status, header("x-error-code")) {
            (_, Some("GatedRepo")) => {
                format!("{id} is gated: accept its terms at {home}/{id}, and then be known to the hub: {token}")
            }
            (404, Some("RevisionNotFound")) if revision.is_some() => {
                let revision = revision.map(ToString::to_string).unwrap_or_default();
                format!("{id} has no revision `{revision}`{}", self.revisions(id))
            }
            (401 | 403, _) if self.settings.token.is_some() => {
                format!(
                    "{home} does not let us read {id} ({status}): there is no such model, or the token may not: {token}"
                )
            }
            (401 | 403, _) => format!("{home} has no public model {id} ({status}): if it is private or gated, {token}"),
            (404, _) => {
                let revision = revision.map(|r| format!(" at revision {r}")).unwrap_or_default();
                format!("{home} has no model {id}{revision}; there are {}, or org/name", cache::short_names())
            }
            _ => format!("{home} answers {} for {id}", response.status()),
        }))
    }

    /// `: it has main, …`, as far as the hub says.
    fn revisions(&self, id: &RepoId) -> String {
        let url = format!("{}/api/models/{id}/refs", self.settings.endpoint);
        let refs = self.request(Method::Get, &url, 0).and_then(|answer| self.json::<Refs>(answer.response));
        match refs {
            Ok(refs) => {
                let names: Vec<String> = refs.branches.into_iter().chain(refs.tags).map(|r| r.name).take(20).collect();
                if names.is_empty() { String::new() } else { format!(": it has {}", names.join(", ")) }
            }
            Err(_) => String::new(),
        }
    }
}

/// Whom a URL talks to.
#[derive(Debug, PartialEq, Eq)]
struct Origin {
    is_encrypted: bool,
    host: String,
    port: u16,
}

fn origin(url: &str) -> Result<Origin, String> {
    let uri: Uri = url.parse().map_err(|error| format!("`{url}` is no URL: {error}"))?;
    let is_encrypted = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(format!("`{url}` is neither https nor http")),
    };
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| format!("`{url}` names no host"))?;
    let port = uri.port_u16().unwrap_or(if is_encrypted { 443 } else { 80 });
    Ok(Origin { is_encrypted, host: host.to_ascii_lowercase(), port })
}

/// Where `location` leads, seen from `url` (RFC 3986, section 5.2; dots in paths are the server's).
fn join(url: &str, location: &str) -> String {
    let authority = url.find("://").map_or(0, |i| i + 3);
    let path = url[authority..].find(['/', '?', '#']).map_or(url.len(), |i| authority + i);
    if location.contains("://") && location.find("://") < location.find(['/', '?', '#']) {
        location.to_string()
    } else if location.starts_with("//") {
        format!("{}{location}", &url[..authority - 2])
    } else if location.starts_with('/') {
        format!("{}{location}", &url[..path])
    } else {
        let end = url[path..].find(['?', '#']).map_or(url.len(), |i| path + i);
        match url[path..end].rfind('/') {
            Some(slash) => format!("{}{location}", &url[..=path + slash]),
            None => format!("{}/{location}", &url[..path]),
        }
    }
}

fn problem(origin: &Origin, error: ureq::Error) -> Problem {
    let host = &origin.host;
    let is_distrust = match &error {
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => true,
        ureq::Error::Io(error) => error.get_ref().is_some_and(|inner| inner.to_string().contains("certificate")),
        _ => false,
    };
    match error {
        error if is_distrust => {
            let hint = "are the system's certificates there (SSL_CERT_FILE names others)?";
            Failure(format!("no safe connection to {host}: {error}; {hint}")).into()
        }
        ureq::Error::Io(_)
        | ureq::Error::Timeout(_)
        | ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::Protocol(_) => Problem::passing(format!("cannot reach {host} ({error})")),
        error => Failure(format!("{host}: {error}")).into(),
    }
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn provider() -> Option<std::sync::Arc<CryptoProvider>> {
    // It would panic at its first use instead.
    graviola::util::is_cpu_supported().then(|| std::sync::Arc::new(rustls_graviola::default_provider()))
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn provider() -> Option<std::sync::Arc<CryptoProvider>> {
    None
}

use rustls::crypto::CryptoProvider;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_they_say() {
        let rows = [
            ("https://h/a/b?q", "https://c/x", "https://c/x"),
            ("https://h/a/b?q", "//c:8/x", "https://c:8/x"),
            ("https://h:1/a/b?q=/", "/x?u=http://y", "https://h:1/x?u=http://y"),
            ("https://h/a/b?q=/", "x", "https://h/a/x"),
            ("http://h", "x", "http://h/x"),
            ("http://h/", "?u=http://y", "http://h/?u=http://y"),
        ];
        for (url, location, expected) in rows {
            assert_eq!(join(url, location), expected);
        }
        let same = |a, b| origin(a).unwrap() == origin(b).unwrap();
        assert!(same("https://Hub.example/a", "https://hub.example:443/b"));
        for other in ["http://hub.example/", "https://hub.example:444/", "https://hub.example.evil/", "https://x@evil/"]
        {
            assert!(!same("https://hub.example/", other), "{other}");
        }
        assert!(origin("ftp://h/").is_err() && origin("/x").is_err());
    }
}
