use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::task::coop;
use tokio::time::timeout;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::task::TaskTracker;

use super::stream::Stream;

/// How long a client may go on sending after the server has said its last word.
const LINGER_DEADLINE: Duration = Duration::from_millis(500);

/// With which an HTTP/2 client begins (RFC 9113, section 3.4).
const PREFACE: &[u8; PREFACE_BYTES] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PREFACE_BYTES: usize = 24;

/// The most pieces that one vectored write is made of; more wait for the next.
const PIECES_MAX: usize = 16;

/// A write this small waits for the next one or for the flush: room for the heads of some frames.
const HELD_BYTES_MAX: usize = 64;

/// What may be read for one unit of the 128 that a task has before it lets others run: 32 KiB at a
/// time. A connection takes in all that it can read before it does anything else, and HTTP/2 has frames
/// of 9 bytes; with a unit for each read of 8 KiB, those who flood it would hold up everyone on their
/// event loop.
const READ_BYTES_PER_UNIT: usize = 256;

/// A connection's socket. It finds out which protocol its client speaks, and it outlives its connection
/// until the client has hung up, or for a moment.
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
    stream: Option<Stream>,
    /// The first `held_bytes` of `held` are written and not yet sent.
    held: [u8; HELD_BYTES_MAX],
    held_bytes: usize,
    /// What was read to find out the protocol and is still to be given to it: from the first of these
    /// indexes up to the second.
    early: [u8; PREFACE_BYTES],
    early_given: usize,
    early_read: usize,
    tasks: TaskTracker,
}

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

impl Socket {
    /// Takes a connection; `tasks` tracks its last moments.
    pub(super) fn new(stream: Stream, tasks: TaskTracker) -> Self {
        let (held, early) = ([0; HELD_BYTES_MAX], [0; PREFACE_BYTES]);
        let stream = Some(stream);
        Self { stream, held, held_bytes: 0, early, early_given: 0, early_read: 0, tasks }
    }

    /// Agrees with the client on TLS, before anything is read.
    pub(super) async fn secure(&mut self, config: Arc<ServerConfig>) -> io::Result<()> {
        let stream = self.stream.take().ok_or(io::ErrorKind::NotConnected)?;
        match stream.secure(config).await {
            Ok(secured) => {
                self.stream = Some(secured);
                Ok(())
            }
            Err((error, stream)) => {
                // What told the client why is to arrive.
                self.stream = Some(stream);
                Err(error)
            }
        }
    }

    /// Waits until the first bytes tell what the client speaks: HTTP/2 when its whole preface has come,
    /// HTTP/1.1 at the first byte that is none of it. `None` when the client hangs up before. To be
    /// asked once, before anything is read.
    pub(super) async fn protocol(&mut self) -> io::Result<Option<Protocol>> {
        while PREFACE.starts_with(&self.early[..self.early_read]) {
            if self.early_read == PREFACE_BYTES {
                return Ok(Some(Protocol::Http2));
            }
            let Some(stream) = &mut self.stream else { return Ok(None) };
            match stream.read(&mut self.early[self.early_read..]).await? {
                0 => return Ok(None),
                read => self.early_read += read,
            }
        }
        Ok(Some(Protocol::Http1))
    }

    /// Has the operating system find out when the peer is gone while nothing is sent.
    pub(super) fn probe(&self) -> io::Result<()> {
        self.stream.as_ref().ok_or(io::ErrorKind::NotConnected)?.probe()
    }

    fn stream(&mut self) -> io::Result<Pin<&mut Stream>> {
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
            let sent_of_bytes = self.sent(sent)?;
            if sent_of_bytes > 0 {
                return Poll::Ready(Ok(sent_of_bytes));
            }
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.stream()?.poll_write(context, bytes)
    }

    /// The same for several pieces, of which one is not empty.
    fn poll_send_pieces(
        &mut self,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            let held = self.held;
            let mut slices = [IoSlice::new(&[]); PIECES_MAX + 1];
            slices[0] = IoSlice::new(&held[..self.held_bytes]);
            slices[1..=pieces.len()].copy_from_slice(pieces);
            let slices = &slices[..=pieces.len()];
            let sent = ready!(self.stream()?.poll_write_vectored(context, slices))?;
            let sent_of_pieces = self.sent(sent)?;
            if sent_of_pieces > 0 {
                return Poll::Ready(Ok(sent_of_pieces));
            }
        }
    }

    /// Takes what was sent off what is held; the rest is of what came after it.
    fn sent(&mut self, sent: usize) -> io::Result<usize> {
        if sent == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let of_held = sent.min(self.held_bytes);
        self.held.copy_within(of_held..self.held_bytes, 0);
        self.held_bytes -= of_held;
        Ok(sent - of_held)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            self.tasks.spawn(timeout(LINGER_DEADLINE, linger(stream)));
        }
    }
}

async fn linger(mut stream: Stream) -> io::Result<()> {
    stream.shutdown().await?;
    // Nobody reads what still comes, so nothing is decrypted for it.
    let mut stream = stream.without_tls();
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
        if self.early_given < self.early_read {
            let early = &self.early[self.early_given..self.early_read];
            let given = early.len().min(buffer.remaining());
            buffer.put_slice(&early[..given]);
            self.early_given += given;
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(self.stream()?.poll_read(context, buffer))?;
        let read = buffer.filled().len() - before;
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

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let pieces = &pieces[..pieces.len().min(PIECES_MAX)];
        if pieces.iter().all(|piece| piece.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        self.poll_send_pieces(context, pieces)
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
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn what_is_held_goes_out_first_and_at_the_flush() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("an address"));
        let (accepted, client) = tokio::join!(listener.accept(), client);
        let mut client = client.expect("connects");
        let tasks = TaskTracker::new();
        let (stream, _) = accepted.expect("a connection");
        let mut socket = Socket::new(Stream::tcp(stream).expect("a socket"), tasks);

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

        // All at once, after something that is held.
        let all = [&[9; 9], &all[..]].concat();
        let mut received = vec![0; all.len()];
        let (written, read) = tokio::join!(
            async {
                socket.write_all(&all[..9]).await?;
                let mut left: Vec<_> = sent.iter().map(|bytes| IoSlice::new(bytes)).collect();
                let mut left = &mut left[..];
                while !left.is_empty() {
                    let written = socket.write_vectored(left).await?;
                    IoSlice::advance_slices(&mut left, written);
                }
                socket.flush().await
            },
            client.read_exact(&mut received)
        );
        written.expect("written");
        read.expect("read");
        assert!(received == all, "other bytes arrived");
    }

    #[tokio::test]
    async fn the_first_bytes_tell_the_protocol_and_are_given_to_it() {
        let (http1, http2) = (Some(Protocol::Http1), Some(Protocol::Http2));
        let begun = [&PREFACE[..], b"\0\0\0\x04"].concat();
        let cases: [(&[u8], Option<Protocol>); 7] = [
            (b"", None),
            (b"PRI * HTTP/2.0\r\n", None),
            (b"GET / HTTP/1.1\r\n\r\n", http1),
            (b"POST / HTTP/1.1\r\n\r\n", http1),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r", http1),
            (b"\x16\x03\x01", http1),
            (&begun, http2),
        ];
        for (bytes, protocol) in cases {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let client = TcpStream::connect(listener.local_addr().expect("an address"));
            let (accepted, client) = tokio::join!(listener.accept(), client);
            let (stream, _) = accepted.expect("a connection");
            let mut client = client.expect("connects");
            let stream = Stream::tcp(stream).expect("a socket");
            let mut socket = Socket::new(stream, TaskTracker::new());
            let sends = async {
                for byte in bytes {
                    client.write_all(&[*byte]).await.expect("written");
                }
                drop(client);
            };
            let (found, ()) = tokio::join!(socket.protocol(), sends);
            assert_eq!(found.expect("read"), protocol, "{bytes:?}");
            if protocol.is_some() {
                let mut given = Vec::new();
                socket.read_to_end(&mut given).await.expect("read");
                assert_eq!(given, bytes);
            }
        }
    }
}
