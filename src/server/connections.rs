use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tower::ServiceExt as _;
use tracing::{debug, warn};

use super::socket::{Received, Socket};
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

/// How long a client may take to begin.
const PREFACE_DEADLINE: Duration = Duration::from_secs(10);

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
pub(super) struct Connections {
    routes: Routes,
    tasks: TaskTracker,
    places: Arc<Semaphore>,
    /// Cancelled: no new calls, end when the open ones have.
    drain: CancellationToken,
    /// Cancelled: end now.
    cut: CancellationToken,
}

/// Runs hyper's tasks, a call each, so that they can be waited for. They end with their connection.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F> Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

impl Connections {
    pub(super) fn new(routes: Routes, connections_max: usize) -> Self {
        Self {
            routes,
            tasks: TaskTracker::new(),
            places: Arc::new(Semaphore::new(connections_max)),
            drain: CancellationToken::new(),
            cut: CancellationToken::new(),
        }
    }

    /// Accepts connections and serves them in tasks of their own, for ever.
    pub(super) async fn accept(&self, listener: TcpListener) {
        loop {
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, remote)) => self.spawn(stream, remote, place),
                Err(error) if is_of_one_connection(&error) => debug!(%error, "lost a connection"),
                Err(error) => {
                    warn!(%error, "cannot accept connections");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn spawn(&self, stream: TcpStream, remote: SocketAddr, place: OwnedSemaphorePermit) {
        let socket = match Socket::new(stream, self.tasks.clone()) {
            Ok(socket) => socket,
            Err(error) => {
                debug!(%error, "lost a connection");
                return;
            }
        };
        let received = socket.received();
        let routes = self.routes.clone().map_request(move |mut request: http::Request<_>| {
            request.extensions_mut().insert(SeenAddress(remote.ip()));
            request
        });
        let connection = http2::Builder::new(Tracked(self.tasks.clone()))
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(METADATA_BYTES_MAX)
            .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
            .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
            .keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .serve_connection(TokioIo::new(socket), TowerToHyperService::new(routes));
        let (drain, cut) = (self.drain.clone(), self.cut.clone());
        self.tasks.spawn(async move {
            let _place = place;
            tokio::pin!(connection);
            let outcome = tokio::select! {
                outcome = &mut connection => outcome,
                () = silence(&received) => Ok(()),
                () = drain.cancelled() => {
                    if received.has_preface() {
                        connection.as_mut().graceful_shutdown();
                    } else {
                        // A client that has not begun has nothing to finish.
                        return;
                    }
                    tokio::select! {
                        outcome = &mut connection => outcome,
                        () = cut.cancelled() => Ok(()),
                    }
                }
            };
            if let Err(error) = outcome {
                debug!(%error, %remote, "a connection ended");
            }
        });
    }

    /// Lets the open calls end, and cuts what is left at `deadline`. Returns how many tasks it cut.
    pub(super) async fn drain(&self, deadline: Instant) -> usize {
        self.drain.cancel();
        self.tasks.close();
        if timeout_at(deadline, self.tasks.wait()).await.is_ok() {
            return 0;
        }
        let left = self.tasks.len();
        self.cut.cancel();
        if timeout(CUT_DEADLINE, self.tasks.wait()).await.is_err() {
            warn!(tasks = self.tasks.len(), "calls go on without their connections");
        }
        left
    }
}

/// Resolves if the client does not begin in time.
async fn silence(received: &Received) {
    sleep(PREFACE_DEADLINE).await;
    if received.has_preface() {
        std::future::pending::<()>().await;
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
