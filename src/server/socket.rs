use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// How long a client may go on sending after the server has said its last word.
const LINGER_DEADLINE: Duration = Duration::from_millis(500);

/// How long what was sent may stay unacknowledged, or unsent because the peer takes nothing, before
/// the operating system gives the connection up (RFC 5482). HTTP/2 pings notice a dead peer before;
/// this frees the socket whose last bytes nobody takes.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(100);

/// The bytes with which an HTTP/2 client begins (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;

/// A connection's socket. It knows whether its client has begun to speak HTTP/2, and it outlives
/// its connection until the client has hung up, or for a moment.
///
/// A socket that is closed while the client still sends is reset, and a reset makes the client lose
/// what it has not read: the last responses, and the status that tells why the stream ended.
pub(super) struct Socket {
    /// There until the drop.
    stream: Option<TcpStream>,
    received: Received,
    tasks: TaskTracker,
}

/// How much a socket has received.
#[derive(Clone, Default)]
pub(super) struct Received(Arc<AtomicUsize>);

impl Received {
    /// Whether the client's preface has come.
    pub(super) fn has_preface(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= PREFACE_BYTES
    }
}

impl Socket {
    /// Takes an accepted connection; `tasks` tracks its last moments.
    pub(super) fn new(stream: TcpStream, tasks: TaskTracker) -> io::Result<Self> {
        // Without it small responses wait for the client's acknowledgements.
        stream.set_nodelay(true)?;
        socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
        Ok(Self { stream: Some(stream), received: Received::default(), tasks })
    }

    pub(super) fn received(&self) -> Received {
        self.received.clone()
    }

    fn stream(self: Pin<&mut Self>) -> io::Result<Pin<&mut TcpStream>> {
        let stream = self.get_mut().stream.as_mut();
        stream.map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            self.tasks.spawn(timeout(LINGER_DEADLINE, linger(stream)));
        }
    }
}

async fn linger(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut unread = [0; 4096];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(self.as_mut().stream()?.poll_read(context, buffer))?;
        self.received.0.fetch_add(buffer.filled().len() - before, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write_vectored(context, slices)
    }
}
