//! How the server calls others: hooks, queues, storages.
//!
//! In: URLs that somebody has set. Out: a client that goes there, and nowhere else.
//!
//! No redirect is followed. Addresses that only this network has, and those where clouds hand out credentials, are refused once
//! the name is resolved, so that no name can lead there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, ClientBuilder, Url};

/// Longest URL.
const MAX_URL_BYTES: usize = 2048;

/// Names the one implementation of this process, unless the host of this library has named another.
pub(crate) fn install_tls() {
    // Somebody did it before.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A client that goes where a URL says and nowhere else; names that lead to private addresses it does not find.
pub(crate) fn client(may_be_private: bool) -> ClientBuilder {
    install_tls();
    let client = Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(5))
        // Through a proxy nobody knows where a name leads.
        .no_proxy()
        .referer(false)
        .user_agent(concat!("cuewire/", env!("CARGO_PKG_VERSION")));
    if may_be_private { client } else { client.dns_resolver(Arc::new(PublicOnly)) }
}

/// An error with all that it comes from.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}

/// A URL that events may be sent to, as far as it says itself; names are looked at when they are resolved.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_url(url: &str, may_be_private: bool) -> Result<Url, String> {
    if url.len() > MAX_URL_BYTES {
        return Err(format!("the URL is longer than {MAX_URL_BYTES} bytes"));
    }
    let parsed = Url::parse(url).map_err(|error| format!("not a URL: {error}"))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(format!("its scheme is {}: allowed are https, http", parsed.scheme()));
    }
    let host = parsed.host_str().unwrap_or_default();
    match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        Ok(address) if !may_be_private && !is_public(address) => Err(private(&address.to_string())),
        _ => Ok(parsed),
    }
}

fn private(address: &str) -> String {
    format!(
        "{address} is an address of private networks or of this machine: allowed only with hooks_to_private_addresses"
    )
}

/// The addresses of a name: such as the whole net has, or any.
pub(crate) async fn public_addresses(
    name: &str,
    may_be_private: bool,
) -> Result<Vec<SocketAddr>, Box<dyn std::error::Error + Send + Sync>> {
    let found: Vec<SocketAddr> = tokio::net::lookup_host((name, 0)).await?.collect();
    // One private address among them is a name that leads somewhere else at the next look.
    match found.iter().find(|address| !may_be_private && !is_public(address.ip())) {
        Some(address) => Err(private(&address.ip().to_string()).into()),
        None => Ok(found),
    }
}

/// Where a URL leads, if events may go there; not its path, which may be a secret.
///
/// # Errors
/// Why not.
pub(crate) async fn leads_to(url: &str, may_be_private: bool) -> Result<SocketAddr, String> {
    let url = check_url(url, may_be_private)?;
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_string();
    let found = public_addresses(&host, may_be_private).await.map_err(|error| format!("{host}: {error}"))?;
    let address = found.first().ok_or_else(|| format!("{host} has no address"))?;
    Ok(SocketAddr::new(address.ip(), url.port_or_known_default().unwrap_or_default()))
}

/// Names to addresses that the whole net has.
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = public_addresses(name.as_str(), false).await?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Whether the whole net has this address: not one of the special purpose registries of RFC 6890.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = address.is_private()
        || address.is_loopback()
        || address.is_link_local() // the metadata of clouds among them
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        || (a == 100 && (64..128).contains(&b)) // shared, RFC 6598
        || (a, b, c) == (192, 0, 0)
        || (a, b, c) == (192, 88, 99)
        || address == Ipv4Addr::new(168, 63, 129, 16) // the host of Azure's machines, their settings and certificates
        || (a == 198 && (b == 18 || b == 19)) // benchmarks, RFC 2544
        || a >= 240;
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let [a, b, ..] = segments;
    // An IPv4 address in other clothes.
    let v4 = |high: u16, low: u16| is_public_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match segments {
        [0, 0, 0, 0, 0, 0xffff, high, low] => return v4(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => return v4(high, low),
        [0x2002, high, low, ..] => return v4(high, low),
        _ => {}
    }
    // Global unicast is 2000::/3 so far; of it not Teredo and the like, and not documentation.
    (a & 0xe000) == 0x2000 && !(a == 0x2001 && (b < 0x200 || b == 0xdb8)) && a != 0x3fff
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_of_this_network_and_of_clouds_metadata_are_not_public() {
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.100.100.200",
            "168.63.129.16",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "198.18.0.1",
            "::1",
            "::",
            "fd00:ec2::254",
            "fe80::1",
            "::ffff:127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "2001:db8::1",
            "ff02::1",
            "::127.0.0.1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
            let host = if address.contains(':') { format!("[{address}]") } else { address.to_string() };
            assert!(check_url(&format!("http://{host}:8080/hook"), false).is_err(), "{address}");
            assert!(check_url(&format!("http://{host}:8080/hook"), true).is_ok(), "{address}");
        }
        for address in ["93.184.216.34", "100.63.0.1", "172.32.0.1", "2606:2800:220:1::1", "64:ff9b::5db8:d822"] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
        // Other ways to write an address are the same address.
        for url in [
            "http://2130706433/",
            "http://0x7f.1/",
            "http://127.1/",
            "http://[::ffff:7f00:1]/",
            "http://127.0.0.1./",
            "http://example.org@127.0.0.1/",
        ] {
            assert!(check_url(url, false).is_err(), "{url}");
        }
        for url in ["ftp://example.org/", "file:///etc/passwd", "example.org", "http://"] {
            assert!(check_url(url, true).is_err(), "{url}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_here_is_refused() {
        let name = "localhost".parse::<Name>().unwrap();
        let error = PublicOnly.resolve(name).await.err().unwrap().to_string();
        assert!(error.contains("hooks_to_private_addresses"), "{error}");
    }
}
