//! From where a call comes that a proxy handed on: what the header of a trusted proxy says.
//!
//! Each proxy on the way adds the address of whom it got the call from, at the right. What stands left of
//! an address that is not trusted was written by whoever is there, and is not believed. One header is
//! read, the one that the operator names: a proxy hands others on as they came.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName};
use thiserror::Error;

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The most addresses of a header that are looked at, from the right.
const HOPS_MAX: usize = 32;

/// A proxy that is believed: an address, a network (`10.0.0.0/8`), or whoever calls over a Unix socket
/// (`unix`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustedProxy {
    /// Whose address begins with as many bits of this one.
    Network(IpAddr, u32),
    /// Over a Unix socket.
    Unix,
}

/// A text names no proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("give an IP address, a network such as 10.0.0.0/8, or unix")]
pub struct TrustedProxyError;

/// In which header proxies say from whom a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProxyHeader {
    /// `X-Forwarded-For: 192.0.2.7, 10.0.0.1`
    #[default]
    XForwardedFor,
    /// `Forwarded: for=192.0.2.7, for="[2001:db8::7]:4711"` (RFC 7239)
    Forwarded,
}

/// Which proxies are believed, and which of their headers.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    /// Default none.
    pub trusted: Vec<TrustedProxy>,
    /// Default [`ProxyHeader::XForwardedFor`].
    pub header: ProxyHeader,
}

impl Proxies {
    /// Whether this is a peer that is believed; `None`: one over a Unix socket.
    pub(super) fn trust(&self, peer: Option<IpAddr>) -> bool {
        self.trusted.iter().any(|trusted| match (trusted, peer) {
            (TrustedProxy::Unix, None) => true,
            (TrustedProxy::Network(network, bits), Some(peer)) => {
                is_within(peer.to_canonical(), *network, *bits)
            }
            _ => false,
        })
    }

    /// From where a call is that a trusted proxy at `peer` hands on: the rightmost address that is not a
    /// trusted proxy's. Where a proxy names none, the call is the proxy's own.
    pub(super) fn origin(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Option<IpAddr> {
        let mut origin = peer;
        for hop in self.hops(headers).into_iter().rev().take(HOPS_MAX) {
            let Some(address) = hop else { break };
            origin = Some(address);
            if !self.trust(origin) {
                break;
            }
        }
        origin
    }

    /// The addresses in the header, from the left; `None` for what is no address.
    fn hops(&self, headers: &HeaderMap) -> Vec<Option<IpAddr>> {
        let (name, hop): (_, fn(&str) -> Option<IpAddr>) = match self.header {
            ProxyHeader::XForwardedFor => (&X_FORWARDED_FOR, address),
            ProxyHeader::Forwarded => (&FORWARDED, forwarded_for),
        };
        let values = headers.get_all(name).into_iter();
        // What is not text is no address.
        values.flat_map(|value| value.to_str().unwrap_or_default().split(',').map(hop)).collect()
    }
}

/// An address as proxies write it: with a port or without, an IPv6 address in brackets or not.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return Some(address.ip().to_canonical());
    }
    let within = text.strip_prefix('[')?.strip_suffix(']')?;
    within.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// The address of the `for` of one element. An address has no comma or semicolon that a quoted text
/// could hold, so that to split at those finds it wherever it stands.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let mut node = pairs.filter(|(key, _)| key.trim().eq_ignore_ascii_case("for"));
    let (_, value) = node.next()?;
    address(value.trim().trim_matches('"'))
}

/// Whether the first `bits` of two addresses are the same.
fn is_within(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            let differing = address.to_bits() ^ network.to_bits();
            differing.leading_zeros() >= bits
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            let differing = address.to_bits() ^ network.to_bits();
            differing.leading_zeros() >= bits
        }
        _ => false,
    }
}

impl FromStr for TrustedProxy {
    type Err = TrustedProxyError;

    fn from_str(text: &str) -> Result<Self, TrustedProxyError> {
        if text == "unix" {
            return Ok(Self::Unix);
        }
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address = address.parse::<IpAddr>().map_err(|_| TrustedProxyError)?.to_canonical();
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), str::parse).map_err(|_| TrustedProxyError)?;
        if bits > most { Err(TrustedProxyError) } else { Ok(Self::Network(address, bits)) }
    }
}

impl fmt::Display for TrustedProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(address, bits) => write!(f, "{address}/{bits}"),
            Self::Unix => f.write_str("unix"),
        }
    }
}

impl ProxyHeader {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::XForwardedFor, Self::Forwarded];

    /// Its name, in small letters.
    pub fn name(self) -> &'static str {
        match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn proxies(trusted: &[&str], header: ProxyHeader) -> Proxies {
        let trusted = trusted.iter().map(|it| it.parse().expect("a proxy")).collect();
        Proxies { trusted, header }
    }

    /// From where a call is, according to the header's lines.
    fn origin(proxies: &Proxies, peer: Option<&str>, lines: &[&'static str]) -> Option<IpAddr> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(proxies.header.name(), HeaderValue::from_static(line));
        }
        // What the other header says is no matter.
        let other = ProxyHeader::ALL.into_iter().find(|it| *it != proxies.header);
        let other = other.expect("there are two").name();
        headers.append(other, HeaderValue::from_static("for=203.0.113.9, 203.0.113.9"));
        proxies.origin(peer.map(ip), &headers)
    }

    #[test]
    fn the_rightmost_address_that_is_not_trusted_counts() {
        let proxies = proxies(&["127.0.0.1", "10.0.0.0/8"], ProxyHeader::XForwardedFor);
        let cases: [(&[&str], &str); 9] = [
            (&["192.0.2.7"], "192.0.2.7"),
            (&["203.0.113.1, 192.0.2.7"], "192.0.2.7"),
            (&["203.0.113.1, 192.0.2.7, 10.1.2.3"], "192.0.2.7"),
            (&["203.0.113.1", "192.0.2.7,10.1.2.3"], "192.0.2.7"),
            (&["[2001:db8::7]:80"], "2001:db8::7"),
            (&["192.0.2.7:4711"], "192.0.2.7"),
            (&["::ffff:192.0.2.7"], "192.0.2.7"),
            // All of them are trusted: the first.
            (&["10.0.0.9, 10.0.0.8"], "10.0.0.9"),
            // The proxy names nobody: itself.
            (&[], "127.0.0.1"),
        ];
        for (lines, expected) in cases {
            assert_eq!(origin(&proxies, Some("127.0.0.1"), lines), Some(ip(expected)), "{lines:?}");
        }
    }

    #[test]
    fn what_is_no_address_ends_the_search() {
        let proxies = proxies(&["127.0.0.1", "10.0.0.0/8"], ProxyHeader::XForwardedFor);
        for lines in [&["192.0.2.7, unknown"][..], &["192.0.2.7, "], &["192.0.2.7", ""]] {
            let found = origin(&proxies, Some("127.0.0.1"), lines);
            assert_eq!(found, Some(ip("127.0.0.1")), "{lines:?}");
        }
        let found = origin(&proxies, Some("127.0.0.1"), &["192.0.2.7, x, 10.0.0.1"]);
        assert_eq!(found, Some(ip("10.0.0.1")));
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_writes_it() {
        let proxies = proxies(&["unix", "10.0.0.0/8"], ProxyHeader::Forwarded);
        let cases: [(&[&str], Option<&str>); 7] = [
            (&["for=192.0.2.7"], Some("192.0.2.7")),
            (&["For=\"[2001:db8:cafe::17]:4711\""], Some("2001:db8:cafe::17")),
            (&["for=192.0.2.60;proto=http;by=203.0.113.43"], Some("192.0.2.60")),
            (&["for=203.0.113.1, proto=https; for=192.0.2.7 , for=10.0.0.1"], Some("192.0.2.7")),
            (&["for=192.0.2.7, for=_hidden"], None),
            (&["for=192.0.2.7, for=unknown"], None),
            (&["by=192.0.2.7"], None),
        ];
        for (lines, expected) in cases {
            assert_eq!(origin(&proxies, None, lines), expected.map(ip), "{lines:?}");
        }
    }

    #[test]
    fn a_proxy_is_an_address_a_network_or_a_socket() {
        let trusts = |trusted: &str, peer: &str| {
            proxies(&[trusted], ProxyHeader::default()).trust(Some(ip(peer)))
        };
        for (trusted, peer) in [
            ("10.0.0.0/8", "10.255.0.1"),
            ("10.0.0.0/8", "::ffff:10.0.0.1"),
            ("192.0.2.7", "192.0.2.7"),
            ("0.0.0.0/0", "192.0.2.7"),
            ("2001:db8::/32", "2001:db8:ffff::1"),
            ("::1", "::1"),
        ] {
            assert!(trusts(trusted, peer), "{trusted} {peer}");
        }
        for (trusted, peer) in [
            ("10.0.0.0/8", "11.0.0.1"),
            ("192.0.2.7", "192.0.2.6"),
            ("0.0.0.0/0", "::1"),
            ("2001:db8::/32", "2001:db9::1"),
            ("unix", "127.0.0.1"),
        ] {
            assert!(!trusts(trusted, peer), "{trusted} {peer}");
        }
        assert!(proxies(&["unix"], ProxyHeader::default()).trust(None));
        assert!(!proxies(&["0.0.0.0/0", "::/0"], ProxyHeader::default()).trust(None));
        for text in ["", "/8", "10.0.0.0/", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "a.example"] {
            assert_eq!(text.parse::<TrustedProxy>(), Err(TrustedProxyError), "{text}");
        }
        assert_eq!("10.0.0.0/8".parse::<TrustedProxy>().expect("it is").to_string(), "10.0.0.0/8");
    }
}
