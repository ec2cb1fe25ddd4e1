use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::num::NonZero;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tracing::{debug, warn};

use super::held::RequestBody;
use super::held::{Answer, HELD_BYTES_MAX, Holdings, Share};
use super::listen::{Accepted, Listeners};
use super::socket::{Protocol, Socket};
use super::stream::Stream;
use super::tls;
use super::workers::Workers;
use crate::domain::limits::METADATA_BYTES_MAX;
use crate::grpc::SeenAddress;

/// The most calls that a connection has open at a time.
const STREAMS_PER_CONNECTION_MAX: u32 = 256;

/// The most bytes that a response waits with for a client that does not read.
const SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// What a call may send before the server reads it, and all calls of a connection together. h2 ends
/// a connection when small frames wait unread whose overhead (256 bytes less their size) comes to
/// half of the second, so a call's window must be too small for that.
const STREAM_WINDOW_BYTES: u32 = 128 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// How long a client may take to begin, to agree on TLS included.
const PREFACE_DEADLINE: Duration = Duration::from_secs(10);

/// How long the head of an HTTP/1.1 request may take, from the end of the answer before it: that is also
/// how long a connection may be idle.
const HEAD_DEADLINE: Duration = Duration::from_secs(20);

/// The most fields that an HTTP/1.1 request's head has; their bytes are bounded as well.
const HEAD_FIELDS_MAX: usize = 100;

/// What an HTTP/1.1 connection reads ahead, and what it gathers before it writes.
const HTTP1_BUFFER_BYTES_MAX: usize = 32 * 1024;

/// A silent connection is asked for a sign of life this often, and closed when none comes in time:
/// one that can be suspended for a minute and go on, since it costs little meanwhile.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(75);

/// Streams that a client opened and reset at once, before the connection is closed for it.
const PENDING_RESETS_MAX: usize = 20;

/// How long to wait when the operating system refuses to accept, for instance for want of file
/// descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long cut connections may take to end: they have nothing left to wait for.
const CUT_DEADLINE: Duration = Duration::from_secs(1);

/// The connections of a server and all tasks on them.
pub(super) struct Connections<S> {
    workers: Workers,
    services: S,
    places: Arc<Semaphore>,
    holdings: Arc<Holdings>,
    /// What is spoken over TCP, instead of what TLS would hide.
    tls: Option<tls::Current>,
    /// Cancelled: no new calls, end when the open ones have.
    drain: CancellationToken,
    /// Cancelled: end now.
    cut: CancellationToken,
}

/// What answers the calls.
pub trait Services:
    tower::Service<
        Request<RequestBody<Incoming>>,
        Response = Response<Body>,
        Error = Infallible,
        Future: Send + 'static,
    > + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Services for S where
    S: tower::Service<
            Request<RequestBody<Incoming>>,
            Response = Response<Body>,
            Error = Infallible,
            Future: Send + 'static,
        > + Clone
        + Send
        + Sync
        + 'static
{
}

/// The services, as they are called over one connection, from this address.
struct Seen<S> {
    services: S,
    /// `None` over a Unix socket.
    address: Option<SeenAddress>,
    share: Arc<Share>,
}

impl<S: Services> hyper::service::Service<Request<Incoming>> for Seen<S> {
    type Response = Response<Answer<Body>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let share = Arc::clone(&self.share);
        let mut request = request.map(|body| share.request(body));
        if let Some(address) = self.address {
            request.extensions_mut().insert(address);
        }
        // Always ready, as gRPC services are.
        let answer = self.services.clone().call(request);
        Box::pin(async move {
            let Ok(answer) = answer.await;
            Ok(answer.map(|body| share.answer(body)))
        })
    }
}

/// Runs hyper's tasks, a call each, so that they can be waited for. They end with their connection.
#[derive(Clone)]
pub(super) struct Tracked(pub(super) TaskTracker);

impl<F> Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

impl<S: Services> Connections<S> {
    pub(super) fn new(
        services: S,
        connections_max: usize,
        workers: NonZero<usize>,
        tls: Option<tls::Current>,
    ) -> io::Result<Self> {
        Ok(Self {
            workers: Workers::start(workers)?,
            services,
            places: Arc::new(Semaphore::new(connections_max)),
            holdings: Holdings::new(HELD_BYTES_MAX),
            tls,
            drain: CancellationToken::new(),
            cut: CancellationToken::new(),
        })
    }

    /// What the connections hold.
    pub(super) fn holdings(&self) -> Arc<Holdings> {
        Arc::clone(&self.holdings)
    }

    /// Accepts connections and has the workers serve them, for ever.
    pub(super) async fn accept(&self, mut listeners: Listeners) {
        loop {
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
                return;
            };
            match listeners.accept().await {
                Ok(accepted) => self.hand_over(accepted, place),
                Err(error) if is_of_one_connection(&error) => debug!(%error, "lost a connection"),
                Err(error) => {
                    warn!(%error, "cannot accept connections");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Gives a connection to a worker. What is under way has a place each, which bounds it.
    fn hand_over(&self, accepted: Accepted, place: OwnedSemaphorePermit) {
        let (drain, cut) = (self.drain.clone(), self.cut.child_token());
        let remote = accepted.remote();
        let services = Seen {
            services: self.services.clone(),
            address: remote.map(|remote| SeenAddress(remote.ip())),
            share: self.holdings.share(cut.clone()),
        };
        let tls = self.tls.as_ref().filter(|_| remote.is_some());
        let tls = tls.map(|current| Arc::clone(&current.borrow()));
        self.workers.spawn(move |tasks, connected| async move {
            let _held = (place, connected);
            if let Err(error) = serve(accepted, tls, services, tasks, Ends { drain, cut }).await {
                debug!(%error, ?remote, "a connection ended");
            }
        });
    }

    /// Lets the open calls end, and cuts what is left at `deadline`. Returns how many tasks it cut.
    pub(super) async fn drain(self, deadline: Instant) -> usize {
        self.drain.cancel();
        let left = match timeout_at(deadline, self.workers.idle()).await {
            Ok(()) => 0,
            Err(_) => self.workers.tasks(),
        };
        self.cut.cancel();
        let cut_deadline = Instant::now() + CUT_DEADLINE;
        if timeout_at(cut_deadline, self.workers.idle()).await.is_err() {
            warn!(tasks = self.workers.tasks(), "calls went on without their connections");
        }
        self.workers.stop(cut_deadline).await;
        left
    }
}

/// Serves a connection until it ends, or is told to.
async fn serve(
    accepted: Accepted,
    tls: Option<Arc<ServerConfig>>,
    services: Seen<impl Services>,
    tasks: TaskTracker,
    ends: Ends,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut socket = Socket::new(Stream::new(accepted)?, tasks.clone());
    let begins = timeout(PREFACE_DEADLINE, begin(&mut socket, tls));
    let begun = tokio::select! {
        begun = begins => begun.unwrap_or(Ok(None))?,
        // A client that has not begun has nothing to finish.
        () = ends.drain.cancelled() => None,
        () = ends.cut.cancelled() => None,
    };
    match begun {
        None => Ok(()),
        Some(Protocol::Http2) => {
            let connection = http2(tasks).serve_connection(TokioIo::new(socket), services);
            ends.of(connection, http2::Connection::graceful_shutdown).await
        }
        Some(Protocol::Http1) => {
            socket.probe()?;
            let connection = http1().serve_connection(TokioIo::new(socket), services);
            ends.of(connection, http1::Connection::graceful_shutdown).await
        }
    }
}

/// Waits until the client has said what it speaks. That goes by its first bytes within TLS as well,
/// where it may have named nothing, and is held to what it named by nobody.
async fn begin(
    socket: &mut Socket,
    tls: Option<Arc<ServerConfig>>,
) -> io::Result<Option<Protocol>> {
    if let Some(tls) = tls {
        // Apart, so that plain connections are not larger for it.
        Box::pin(socket.secure(tls)).await?;
    }
    socket.protocol().await
}

fn http2(tasks: TaskTracker) -> http2::Builder<Tracked> {
    let mut builder = http2::Builder::new(Tracked(tasks));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(METADATA_BYTES_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    builder
}

fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_headers(HEAD_FIELDS_MAX)
        .max_header_size(METADATA_BYTES_MAX as usize)
        .max_buf_size(HTTP1_BUFFER_BYTES_MAX)
        // Answers are sent from where they lie: a copy that waits in a buffer would not be counted.
        .writev(true);
    builder
}

/// What ends a connection.
struct Ends {
    /// Cancelled: when its calls have ended.
    drain: CancellationToken,
    /// Cancelled: at once.
    cut: CancellationToken,
}

impl Ends {
    /// Runs a connection to its end; `shut_down` has it take no new calls.
    async fn of<C, E>(
        self,
        connection: C,
        shut_down: impl FnOnce(Pin<&mut C>),
    ) -> Result<(), Box<dyn Error + Send + Sync>>
    where
        C: Future<Output = Result<(), E>>,
        E: Error + Send + Sync + 'static,
    {
        tokio::pin!(connection);
        tokio::select! {
            outcome = &mut connection => return Ok(outcome?),
            () = self.cut.cancelled() => return Ok(()),
            () = self.drain.cancelled() => {}
        }
        shut_down(connection.as_mut());
        tokio::select! {
            outcome = &mut connection => Ok(outcome?),
            () = self.cut.cancelled() => Ok(()),
        }
    }
}

/// Errors that say something about the connection that was to be accepted, not about the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted
            | Kind::ConnectionReset
            | Kind::ConnectionRefused
            | Kind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// HTTP/1.1 would copy answers to a buffer of its own, where nobody counts them.
    #[tokio::test]
    async fn an_answer_over_http1_counts_until_the_socket_has_taken_it() {
        const ANSWER_BYTES: usize = 1024 * 1024;
        const SOCKET_BYTES: usize = 4096;
        let holdings = Holdings::new(usize::MAX);
        let services = tower::service_fn(|_: Request<RequestBody<Incoming>>| async {
            Ok::<_, Infallible>(Response::new(Body::new("x".repeat(ANSWER_BYTES))))
        });
        let share = holdings.share(CancellationToken::new());
        let seen = Seen { services, address: Some(SeenAddress(Ipv4Addr::LOCALHOST.into())), share };
        let (mut client, server) = tokio::io::duplex(SOCKET_BYTES);
        let connection = http1().serve_connection(TokioIo::new(server), seen);
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.expect("taken");
        let mut answer = vec![0];
        let reads = async {
            client.read_exact(&mut answer).await.expect("an answer begins");
            let held_bytes = holdings.held_bytes();
            assert!(held_bytes > ANSWER_BYTES - 2 * SOCKET_BYTES, "{held_bytes}");
            client.read_to_end(&mut answer).await.expect("the answer goes on");
        };
        let (outcome, ()) = tokio::join!(connection, reads);
        outcome.expect("served");
        assert!(answer.ends_with(&vec![b'x'; ANSWER_BYTES]));
        assert_eq!(holdings.held_bytes(), 0);
    }
}
