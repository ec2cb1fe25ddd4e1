//! Which server, and how it is connected to.

use http::Uri;
use tonic::transport::Endpoint;

use super::{Error, Options};

/// The port of a server that is named without a scheme and without a port.
const DEFAULT_PORT: u16 = 50051;

/// What a stream takes that is not read: a follower that pauses holds the server up beyond it.
///
/// It is small beside the connection's window on purpose. h2 ends a connection ("too many data
/// frames") on which small frames gather unread, each counted as 256 bytes less its size, up to half
/// of the connection's window of 5 MiB. A message delivered live is such a frame; of the smallest
/// ones this window is full long before, and an unread follower just waits.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;

/// The server's URI: `http[s]://host[:port]`, for a text that may leave out the scheme, or `unix:/path`.
pub(super) fn parse_server(text: &str) -> Result<String, Error> {
    let invalid = |problem: &str| Error::InvalidServer {
        server: text.to_owned(),
        problem: format!("{problem}; give HOST:PORT, http[s]://HOST:PORT or unix:/PATH"),
    };
    if let Some(path) = text.strip_prefix("unix:") {
        let is_path = path.starts_with('/') && !path.starts_with("//");
        return if is_path {
            Ok(text.to_owned())
        } else {
            Err(invalid("its path is not absolute"))
        };
    }
    let has_scheme = text.contains("://");
    let full = if has_scheme { text.to_owned() } else { format!("http://{text}") };
    let uri = full.parse::<Uri>().map_err(|error| invalid(&error.to_string()))?;
    let scheme = uri.scheme_str().unwrap_or_default();
    if !matches!(scheme, "http" | "https") {
        return Err(invalid("only http and https are spoken here"));
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(invalid("it has a path, which no server has"));
    }
    match uri.authority() {
        Some(authority) if !authority.host().is_empty() && !authority.as_str().contains('@') => {
            let host = authority.host().to_ascii_lowercase();
            let default_port = (!has_scheme).then_some(DEFAULT_PORT);
            Ok(match authority.port_u16().or(default_port) {
                Some(port) => format!("{scheme}://{host}:{port}"),
                None => format!("{scheme}://{host}"),
            })
        }
        _ => Err(invalid("it has no host")),
    }
}

/// How its connections are opened, and what they hold.
pub(super) fn new_endpoint(server: &str, options: &Options) -> Result<Endpoint, Error> {
    let invalid = |error: tonic::transport::Error| Error::InvalidServer {
        server: server.to_owned(),
        problem: error.to_string(),
    };
    let mut endpoint = Endpoint::from_shared(server.to_owned()).map_err(invalid)?;
    if server.starts_with("https:") {
        endpoint = endpoint.tls_config(options.tls.config(server, options)?).map_err(invalid)?;
    }
    Ok(endpoint
        .user_agent(concat!("peerpost/", env!("CARGO_PKG_VERSION")))
        .map_err(invalid)?
        .connect_timeout(options.connect_timeout)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .http2_keep_alive_interval(options.keepalive_interval)
        .keep_alive_timeout(options.keepalive_timeout)
        // A followed stream that waits for its next message counts as idle.
        .keep_alive_while_idle(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_with_or_without_scheme_and_port() {
        let named = [
            ("http://127.0.0.1:50051", "http://127.0.0.1:50051"),
            ("http://Example.org/", "http://example.org"),
            ("localhost:7000", "http://localhost:7000"),
            ("example.org", "http://example.org:50051"),
            ("[::1]:50051", "http://[::1]:50051"),
            ("HTTPS://Example.org:7000", "https://example.org:7000"),
            ("unix:/run/Peer Post", "unix:/run/Peer Post"),
        ];
        for (text, uri) in named {
            assert_eq!(parse_server(text).expect(text), uri);
        }
    }

    #[test]
    fn what_names_no_server_is_refused() {
        let refused = [
            "",
            "http://",
            ":50051",
            "https://",
            "ftp://a",
            "a b",
            "a:1/x",
            "http://u@h:1",
            "unix:",
            "unix:a",
            "unix://a/b",
        ];
        for text in refused {
            assert!(matches!(parse_server(text), Err(Error::InvalidServer { .. })), "{text:?}");
        }
    }
}
