use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::coop;
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

/// A write this small waits for the next one or for the flush: room for the heads of some frames.
const HELD_BYTES_MAX: usize = 64;

/// What may be read for one unit of the 128 that a task has before it lets others run: 32 KiB at a
/// time. A connection takes in all that it can read before it does anything else, and HTTP/2 has frames
/// of 9 bytes; with a unit for each read of 8 KiB, those who flood it would hold up everyone on their
/// event loop.
const READ_BYTES_PER_UNIT: usize = 256;

/// A connection's socket. It knows whether its client has begun to speak HTTP/2, and it outlives
/// its connection until the client has hung up, or for a moment.
///
/// A socket that is closed while the client still sends is reset, and a reset makes the client lose
/// what it has not read: the last responses, and the status that tells why the stream ended.
///
/// It does not offer vectored writes: h2 would then end a write with each payload of 256 bytes or
/// more, to save its copy, and make a system call for every answer. Without, it gathers payloads of
/// up to 1 KiB. A larger one it writes after what it has gathered, such as the frame's head; so what
/// is small is held here for as long, and goes out together with the payload.
pub(super) struct Socket {
    /// There until the drop.
    stream: Option<TcpStream>,
    /// The first `held_bytes` of `held` are written and not yet sent.
    held: [u8; HELD_BYTES_MAX],
    held_bytes: usize,
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
        let (held, held_bytes) = ([0; HELD_BYTES_MAX], 0);
        Ok(Self { stream: Some(stream), held, held_bytes, received: Received::default(), tasks })
    }

    pub(super) fn received(&self) -> Received {
        self.received.clone()
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        let stream = self.stream.as_mut();
        stream.map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Sends what is held and then `bytes`, or as much of both as the socket takes. Returns how many
    /// of `bytes` it took: more than none, unless there are none.
    fn poll_send(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        while self.held_bytes > 0 {
            let held = self.held;
            let slices = [IoSlice::new(&held[..self.held_bytes]), IoSlice::new(bytes)];
            let sent = ready!(self.stream()?.poll_write_vectored(context, &slices))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_held = sent.min(self.held_bytes);
            self.held.copy_within(of_held..self.held_bytes, 0);
            self.held_bytes -= of_held;
            if sent > of_held {
                return Poll::Ready(Ok(sent - of_held));
            }
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.stream()?.poll_write(context, bytes)
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
        ready!(self.stream()?.poll_read(context, buffer))?;
        let read = buffer.filled().len() - before;
        self.received.0.fetch_add(read, Ordering::Relaxed);
        for _ in 0..read / READ_BYTES_PER_UNIT {
            match coop::poll_proceed(context) {
                Poll::Ready(unit) => unit.made_progress(),
                // The next read waits for the task's next turn.
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let end = self.held_bytes + bytes.len();
        if end > HELD_BYTES_MAX {
            return self.poll_send(context, bytes);
        }
        let begin = self.held_bytes;
        self.held[begin..end].copy_from_slice(bytes);
        self.held_bytes = end;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(context, &[]))?;
        self.stream()?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(context, &[]))?;
        self.stream()?.poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn what_is_held_goes_out_first_and_at_the_flush() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("an address"));
        let (accepted, client) = tokio::join!(listener.accept(), client);
        let mut client = client.expect("connects");
        let tasks = TaskTracker::new();
        let (stream, _) = accepted.expect("a connection");
        let mut socket = Socket::new(stream, tasks).expect("a socket");

        // Writes on either side of the limit, after each other in every way; some fill the socket.
        let sizes = [9, 40, 15, 1, 63, 64, 65, 9, 100_000, 1, 1, 3_000_000, 64, 64, 7];
        let sent: Vec<_> = sizes.iter().zip(1_u8..).map(|(n, byte)| vec![byte; *n]).collect();
        let all = sent.concat();
        let mut received = vec![0; all.len()];
        let (written, read) = tokio::join!(
            async {
                for bytes in &sent {
                    socket.write_all(bytes).await?;
                }
                socket.flush().await
            },
            client.read_exact(&mut received)
        );
        written.expect("written");
        read.expect("read");
        assert!(received == all, "other bytes arrived");
    }
}
