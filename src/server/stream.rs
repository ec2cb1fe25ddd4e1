//! What a connection's bytes go over.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

use super::listen::Accepted;

/// How long what was sent may stay unacknowledged, or unsent because the peer takes nothing, before
/// the operating system gives the connection up (RFC 5482). HTTP/2 pings notice a dead peer before;
/// this frees the socket whose last bytes nobody takes.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(100);

/// When nothing comes over HTTP/1.1 for so long, the operating system asks the peer for a sign of life,
/// again and again; [`UNACKNOWLEDGED_MAX`] says when it gives up. HTTP/2 has pings for this.
const PROBE_INTERVAL: Duration = Duration::from_secs(20);

/// What a connection holds encrypted until its socket takes it. Nobody counts this.
const ENCRYPTED_BYTES_MAX: usize = 32 * 1024;

/// How every TLS connection begins: with a record that holds a handshake (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;

/// What those get who speak plaintext where TLS is spoken. It is for people: also clients of HTTP/2
/// show it.
const TLS_ONLY: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\
    content-type: application/json\r\ncontent-length: 58\r\n\r\n\
    {\"error\": \"this address takes TLS only: begin with https\"}";

/// What a connection's bytes go over. The plain ones lie in it: they cost no more than one comparison.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Takes an accepted connection to this event loop.
    pub(super) fn new(accepted: Accepted) -> io::Result<Self> {
        match accepted {
            Accepted::Tcp(stream, _) => Self::tcp(TcpStream::from_std(stream)?),
            Accepted::Unix(stream) => UnixStream::from_std(stream).map(Self::Unix),
        }
    }

    pub(super) fn tcp(stream: TcpStream) -> io::Result<Self> {
        // Without it small responses wait for the client's acknowledgements.
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
        Ok(Self::Tcp(stream))
    }

    /// Agrees with the client on TLS. Gives the stream back when they cannot: the client has been told
    /// why.
    pub(super) async fn secure(self, config: Arc<ServerConfig>) -> Result<Self, (io::Error, Self)> {
        let Self::Tcp(mut stream) = self else { return Ok(self) };
        match refuse_plaintext(&mut stream).await {
            Ok(()) => {}
            Err(error) => return Err((error, Self::Tcp(stream))),
        }
        let bound = |tls: &mut tokio_rustls::rustls::ServerConnection| {
            tls.set_buffer_limit(Some(ENCRYPTED_BYTES_MAX));
        };
        match TlsAcceptor::from(config).accept_with(stream, bound).into_fallible().await {
            Ok(stream) => Ok(Self::Tls(Box::new(stream))),
            Err((error, stream)) => Err((error, Self::Tcp(stream))),
        }
    }

    /// What is below TLS, where there is TLS.
    pub(super) fn without_tls(self) -> Self {
        match self {
            Self::Tls(stream) => Self::Tcp(stream.into_inner().0),
            plain => plain,
        }
    }

    /// Has the operating system find out when the peer is gone while nothing is sent.
    pub(super) fn probe(&self) -> io::Result<()> {
        let stream = match self {
            Self::Tcp(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
            // It knows without asking.
            Self::Unix(_) => return Ok(()),
        };
        let probes = TcpKeepalive::new().with_time(PROBE_INTERVAL).with_interval(PROBE_INTERVAL);
        SockRef::from(stream).set_tcp_keepalive(&probes)
    }
}

async fn refuse_plaintext(stream: &mut TcpStream) -> io::Result<()> {
    let mut first = [0];
    if stream.peek(&mut first).await? > 0 && first != [HANDSHAKE] {
        stream.write_all(TLS_ONLY).await?;
        return Err(io::Error::new(io::ErrorKind::InvalidData, "plaintext instead of TLS"));
    }
    Ok(())
}

/// The same call of whichever it is.
macro_rules! of_each {
    ($stream:expr, $call:ident ( $($argument:expr),* )) => {
        match $stream.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).$call($($argument),*),
            Self::Unix(stream) => Pin::new(stream).$call($($argument),*),
            Self::Tls(stream) => Pin::new(&mut **stream).$call($($argument),*),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        of_each!(self, poll_read(context, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        of_each!(self, poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        of_each!(self, poll_write_vectored(context, pieces))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        of_each!(self, poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        of_each!(self, poll_shutdown(context))
    }
}
