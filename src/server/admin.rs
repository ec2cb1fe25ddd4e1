//! The socket for `peerpost admin`: for whoever runs the server, so that it works without any credential
//! of the network's. As an operator's listener it is served beside the accepting and not by the workers.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;
use tracing::{debug, info, warn};

use super::connections::Tracked;
use super::listen::{self, BoundUnix};
use super::{ADMIN_SOCKET_FILE, Options, StartError};
use crate::domain::limits::METADATA_BYTES_MAX;
use crate::grpc::admin::{AdminService, Administration, Operator};

/// Nobody else even connects: what comes over it is not asked for a token.
const SOCKET_MODE: u32 = 0o600;

/// The most connections at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 8;

/// The most calls that a connection has open at a time.
const CALLS_PER_CONNECTION_MAX: u32 = 8;

/// A silent connection is asked for a sign of life this often, and closed when none comes in time.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// How long to wait when the operating system refuses to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long the last answers may take on their way, when the store is closed.
const LAST_ANSWERS_DEADLINE: Duration = Duration::from_secs(1);

/// The most bytes of a Unix socket's path: the 108 of Linux's `sun_path`, less the zero at its end.
const PATH_BYTES_MAX: usize = 107;

/// The root user, who can read the folder anyway.
const ROOT: u32 = 0;

/// The socket, open.
pub(super) struct AdminSocket {
    socket: BoundUnix,
    service: AdminService,
    /// Who may connect, beside root.
    owner: u32,
}

impl AdminSocket {
    /// Opens the socket. `None`: it would stand where no socket can, and nobody asked for it there. One
    /// that a killed server left behind is replaced: the data folder is held, so that none is another's.
    pub(super) async fn bind(
        options: &Options,
        administration: Administration,
    ) -> Result<Option<Self>, StartError> {
        let path = match &options.admin_socket {
            Some(path) => path.clone(),
            None => options.data_dir.join(ADMIN_SOCKET_FILE),
        };
        if options.admin_socket.is_none() && path.as_os_str().len() > PATH_BYTES_MAX {
            warn!(
                path = %path.display(),
                "no admin socket: its path would be longer than {PATH_BYTES_MAX} bytes; \
                 --admin-socket names a shorter one"
            );
            return Ok(None);
        }
        let failed =
            |path: PathBuf| move |source: io::Error| StartError::AdminSocket { path, source };
        let socket = listen::bind_unix(&path, SOCKET_MODE).await.map_err(failed(path.clone()))?;
        info!(path = %path.display(), "admin socket");
        let owner = rustix::process::geteuid().as_raw();
        Ok(Some(Self { socket, service: administration.service(), owner }))
    }

    /// Serves until `drain`, lets the open calls end, and cuts what is left soon after `over`: the server
    /// is gone.
    pub(super) async fn run(self, drain: CancellationToken, over: CancellationToken) {
        let (tasks, mut connections) = (TaskTracker::new(), JoinSet::new());
        loop {
            let has_room = connections.len() < CONNECTIONS_MAX;
            tokio::select! {
                () = drain.cancelled() => break,
                Some(_) = connections.join_next() => {}
                accepted = self.socket.listener.accept(), if has_room => match accepted {
                    Ok((stream, _)) => {
                        if let Some(operator) = self.operator(&stream) {
                            let serving = serve(
                                stream,
                                (self.service.clone(), operator),
                                Tracked(tasks.clone()),
                                drain.clone(),
                            );
                            connections.spawn(serving);
                        }
                    }
                    Err(error) => {
                        warn!(%error, "cannot accept connections for administration");
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
        // Nobody connects any more, and the file is gone.
        drop(self.socket);
        let ended = async { while connections.join_next().await.is_some() {} };
        tokio::select! {
            () = ended => {}
            () = async {
                over.cancelled().await;
                sleep(LAST_ANSWERS_DEADLINE).await;
            } => {}
        }
        connections.shutdown().await;
        tasks.close();
        // They end with their connections.
        if timeout(LAST_ANSWERS_DEADLINE, tasks.wait()).await.is_err() {
            warn!("administrative calls went on without their connections");
        }
    }

    /// Who connected, as the operating system knows them; `None` for one who may not.
    fn operator(&self, stream: &UnixStream) -> Option<Operator> {
        match stream.peer_cred() {
            Ok(peer) if [ROOT, self.owner].contains(&peer.uid()) => {
                Some(Operator { uid: peer.uid() })
            }
            Ok(peer) => {
                warn!(uid = peer.uid(), "another user connected to the admin socket; refused");
                None
            }
            Err(error) => {
                warn!(%error, "it is not known who connected to the admin socket; refused");
                None
            }
        }
    }
}

async fn serve(
    stream: UnixStream,
    (service, operator): (AdminService, Operator),
    tasks: Tracked,
    drain: CancellationToken,
) {
    let service = service_fn(move |mut request| {
        request.extensions_mut().insert(operator);
        // Always ready, as gRPC services are.
        service.clone().call(request)
    });
    let connection = http2::Builder::new(tasks)
        .timer(TokioTimer::new())
        .max_concurrent_streams(CALLS_PER_CONNECTION_MAX)
        .max_header_list_size(METADATA_BYTES_MAX)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let outcome = tokio::select! {
        outcome = &mut connection => outcome,
        () = drain.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        debug!(%error, "a connection for administration ended");
    }
}
