//! Where the page of metrics comes from.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a page may take. A server whose disk hangs takes 2 seconds to say so.
const PAGE_DEADLINE: Duration = Duration::from_secs(5);

/// The largest page that is read; ours have some tens of kilobytes.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The path of a source that is named without one.
const PATH: &str = "/metrics";

/// A page's address: `[http://]HOST:PORT[/PATH]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    /// With the port, also where it is the usual one.
    authority: String,
    path: String,
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = full.parse().map_err(|error| format!("{error}"))?;
        if uri.scheme_str() != Some("http") {
            return Err("metrics are served over plain HTTP; give http://HOST:PORT".to_owned());
        }
        let authority = uri.authority().filter(|it| !it.host().is_empty());
        let authority =
            authority.filter(|it| !it.as_str().contains('@')).ok_or("it has no host")?;
        let port = authority.port_u16().unwrap_or(80);
        let path = match uri.path_and_query().map(http::uri::PathAndQuery::as_str) {
            None | Some("" | "/") => PATH,
            Some(path) => path,
        };
        Ok(Self { authority: format!("{}:{port}", authority.host()), path: path.to_owned() })
    }
}

impl Source {
    /// Host and port.
    pub(super) fn name(&self) -> &str {
        &self.authority
    }

    /// The page as it is now.
    pub(super) async fn page(&self) -> anyhow::Result<String> {
        let page = timeout(PAGE_DEADLINE, self.read()).await;
        page.with_context(|| format!("no answer within {PAGE_DEADLINE:?}"))?
    }

    async fn read(&self) -> anyhow::Result<String> {
        let stream = TcpStream::connect(&self.authority).await.context("cannot connect")?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.context("no HTTP is spoken there")?;
        let asking = async move {
            let request = Request::get(&self.path)
                .header(header::HOST, &self.authority)
                .header(header::CONNECTION, "close")
                .body(Empty::<Bytes>::new())?;
            let response = sender.send_request(request).await.context("no HTTP is spoken there")?;
            if !response.status().is_success() {
                bail!("{} answers {}", self.path, response.status());
            }
            let body = Limited::new(response.into_body(), PAGE_BYTES_MAX).collect().await;
            let body = body.map_err(|error| anyhow!(error)).context("the page broke off")?;
            Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
        };
        // The connection moves what is asked, and ends with it; what is wrong with it the asking tells.
        tokio::join!(asking, connection).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_named_with_or_without_scheme_and_path() {
        for (text, authority, path) in [
            ("127.0.0.1:9464", "127.0.0.1:9464", "/metrics"),
            ("http://chat.lan:9464/", "chat.lan:9464", "/metrics"),
            ("http://chat.lan/a/b?c=d", "chat.lan:80", "/a/b?c=d"),
            ("[::1]:9464", "[::1]:9464", "/metrics"),
        ] {
            let source = Source::from_str(text).expect(text);
            assert_eq!((source.authority.as_str(), source.path.as_str()), (authority, path));
        }
        for text in ["", "https://chat.lan", "ftp://x", "http://", "http://a@b:1", "a b"] {
            assert!(Source::from_str(text).is_err(), "{text}");
        }
    }
}
