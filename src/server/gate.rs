//! Which web pages may call the server: a browser runs pages of anybody on its user's machine, next to
//! servers that trust whoever reaches them.
//!
//! Held against everything but gRPC over HTTP/2, which no page can speak: browsers begin HTTP/2 only
//! within TLS, and ask before they send gRPC's content type elsewhere.

use std::fmt;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::str::FromStr;
use std::sync::Arc;

use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use thiserror::Error;
use tonic::body::Body;

use super::front::refusal;

/// What a page of another origin may use.
const METHODS: &str = "GET, POST, PUT, PATCH, DELETE";
const REQUEST_HEADERS: &str = "authorization, content-type, x-grpc-web, x-user-agent, grpc-timeout, \
                               peerpost-user, last-event-id";

/// What a page of another origin may see of an answer, beside what it always may.
const ANSWER_HEADERS: &str = "grpc-status, grpc-message, grpc-status-details-bin, retry-after";

/// How long a browser may remember that it was allowed to ask: two hours, the most that one heeds.
const PREFLIGHT_AGE_MAX_SECONDS: &str = "7200";

/// An origin whose pages may call the server: `scheme://host[:port]`, or `*` for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedOrigin(Allowed);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Allowed {
    All,
    /// As browsers write it: in lower case, without the scheme's own port.
    One(String),
}

/// A text is not an origin.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "is no origin: scheme://host[:port] without a path, such as https://chat.example.org, or *"
)]
pub struct OriginError;

impl FromStr for AllowedOrigin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        if text == "*" {
            return Ok(Self(Allowed::All));
        }
        let text = text.to_ascii_lowercase();
        let (scheme, rest) = text.split_once("://").ok_or(OriginError)?;
        let is_of_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        if !scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            || !scheme.chars().all(is_of_scheme)
        {
            return Err(OriginError);
        }
        let authority: Authority = rest.parse().map_err(|_| OriginError)?;
        let (host, port) = (authority.host(), authority.port_u16());
        let is_of_host = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let is_ipv6 = host.starts_with('[');
        if host.is_empty() || !(is_ipv6 || host.chars().all(is_of_host)) {
            return Err(OriginError);
        }
        // Beside host and port there may be nothing.
        if rest != port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")) {
            return Err(OriginError);
        }
        let origin = match (scheme, port) {
            ("http", Some(80)) | ("https", Some(443)) => format!("{scheme}://{host}"),
            _ => text,
        };
        Ok(Self(Allowed::One(origin)))
    }
}

impl fmt::Display for AllowedOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Allowed::All => "*",
            Allowed::One(origin) => origin,
        })
    }
}

/// Lets requests of web pages in, or not. Cloning gives another handle.
#[derive(Debug, Clone)]
pub(super) struct Gate(Arc<Rules>);

/// What a server is like, as far as web pages are concerned.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// Whose pages may call it, beside its own.
    pub(super) allowed: Vec<AllowedOrigin>,
    /// Calls need no token, so that a page that only sends does harm.
    pub(super) is_open: bool,
    /// It is only to be reached under the names of this machine. A page that is loaded under another name,
    /// which is then made to lead here, is of the server's own origin to its browser.
    pub(super) is_loopback_only: bool,
}

/// What the answer to a request that was let in has to say about its origin.
pub(super) struct Visit {
    allowed: Option<HeaderValue>,
    varies: bool,
}

impl Gate {
    pub(super) fn new(rules: Rules) -> Self {
        Self(Arc::new(rules))
    }

    /// Lets a request in, or answers it: when it is refused, and when it only asks whether it may come.
    pub(super) fn admit<B>(&self, request: &Request<B>) -> ControlFlow<Response<Body>, Visit> {
        let host = host(request);
        if self.0.is_loopback_only && !host.as_ref().is_none_or(is_of_this_machine) {
            return ControlFlow::Break(refusal(
                StatusCode::FORBIDDEN,
                "this server is open, and answers only to localhost and loopback addresses as Host",
            ));
        }
        let varies = !self.0.allowed.is_empty();
        let Some(origin) = request.headers().get(header::ORIGIN) else {
            return ControlFlow::Continue(Visit { allowed: None, varies });
        };
        let asks = request.method() == Method::OPTIONS
            && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        let allowed = self.0.allows(origin);
        if is_own(origin, host.as_ref()) {
            return ControlFlow::Continue(Visit { allowed: None, varies });
        }
        if allowed.is_none() && (asks || self.0.is_open) {
            let error = "pages of this origin may not call this server; see --allow-origin";
            return ControlFlow::Break(refusal(StatusCode::FORBIDDEN, error));
        }
        let visit = Visit { allowed, varies };
        if asks { ControlFlow::Break(visit.may_come()) } else { ControlFlow::Continue(visit) }
    }
}

impl Rules {
    /// How an answer says that this origin is allowed, if it is.
    fn allows(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        self.allowed.iter().find_map(|allowed| match &allowed.0 {
            Allowed::All => Some(HeaderValue::from_static("*")),
            Allowed::One(one) => (origin == one.as_str()).then(|| origin.clone()),
        })
    }
}

impl Visit {
    /// Tells the browser what the page may see of the answer.
    pub(super) fn mark(self, headers: &mut HeaderMap) {
        if self.varies {
            headers.append(header::VARY, HeaderValue::from_static("origin"));
        }
        if let Some(origin) = self.allowed {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            set(headers, header::ACCESS_CONTROL_EXPOSE_HEADERS, ANSWER_HEADERS);
        }
    }

    /// The answer to a page that asks before it comes.
    fn may_come(self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        self.mark(headers);
        set(headers, header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        set(headers, header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
        set(headers, header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_AGE_MAX_SECONDS);
        response
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &'static str) {
    headers.insert(name, HeaderValue::from_static(value));
}

/// Under which name the server was called. A `Host` that is none is as good as none: no browser sends it.
fn host<B>(request: &Request<B>) -> Option<Authority> {
    let of_uri = request.uri().authority().cloned();
    of_uri.or_else(|| request.headers().get(header::HOST)?.to_str().ok()?.parse().ok())
}

/// Whether the page comes from this server: its origin is the name that it calls. The scheme is left
/// out, which is another's when something in front of the server speaks TLS.
fn is_own(origin: &HeaderValue, host: Option<&Authority>) -> bool {
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    origin.zip(host).is_some_and(|((_, of_page), host)| host == of_page)
}

fn is_of_this_machine(host: &Authority) -> bool {
    let name = host.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    match name.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        // Browsers and resolvers give these to nobody else (RFC 6761, section 6.3).
        Err(_) => name == "localhost" || name.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_scheme_a_host_and_a_port() {
        for (text, shown) in [
            ("*", "*"),
            ("https://chat.example.org", "https://chat.example.org"),
            ("HTTP://LocalHost:3000", "http://localhost:3000"),
            ("http://localhost:80", "http://localhost"),
            ("https://localhost:443", "https://localhost"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("chrome-extension://abcdef", "chrome-extension://abcdef"),
        ] {
            let origin = text.parse::<AllowedOrigin>();
            assert_eq!(origin.map(|it| it.to_string()).as_deref(), Ok(shown), "{text}");
        }
        for text in [
            "",
            "null",
            "localhost",
            "localhost:3000",
            "://x",
            "http://",
            "http://x/",
            "http://x/path",
            "http://x:",
            "http://x:99999",
            "http://user@x",
            "http://x y",
            "http://*.x",
            "http://x?",
            "1://x",
        ] {
            assert_eq!(text.parse::<AllowedOrigin>(), Err(OriginError), "{text}");
        }
    }

    #[test]
    fn a_loopback_name_is_of_this_machine() {
        let is_own = |host: &str| is_of_this_machine(&host.parse().expect("an authority"));
        for host in
            ["localhost", "LOCALHOST:1", "a.localhost:1", "127.0.0.1:5", "127.9.9.9", "[::1]:5"]
        {
            assert!(is_own(host), "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example", "notlocalhost", "192.0.2.1:5", "[::2]"]
        {
            assert!(!is_own(host), "{host}");
        }
    }
}
