use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

use super::{Listen, STORE_CLOSE_DEADLINE, TlsError};
use crate::domain::limits::BODY_BYTES_CEILING;
use crate::store::OpenError;

/// Why a server did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A body limit of 0 or over the ceiling.
    #[error("the body limit is {0} bytes; it must be 1 to {BODY_BYTES_CEILING}")]
    BodyLimit(usize),
    /// An open server on an address that others reach.
    #[error(
        "an open server gives everybody who reaches {0} every mailbox; to do that beyond this machine, \
         set --open-beyond-loopback"
    )]
    OpenBeyondLoopback(SocketAddr),
    /// Without TLS, on an address that others reach.
    #[error(
        "on the way to {0} everybody could read every token and message; use TLS, with --tls-cert and \
         --tls-key, or set --plaintext-beyond-loopback when something in front of the server does"
    )]
    PlaintextBeyondLoopback(SocketAddr),
    /// Nowhere to listen.
    #[error("there is no address to listen on")]
    NoAddress,
    /// The certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The data folder.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The socket.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: Listen,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The socket for an operator's tools.
    #[error("cannot listen for metrics on {address}: {source}")]
    MetricsListen {
        /// Where.
        address: SocketAddr,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The socket for `peerpost admin`.
    #[error(
        "cannot make the admin socket {}: {source}; --admin-socket names another place for it",
        path.display()
    )]
    AdminSocket {
        /// Where.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The threads that serve connections.
    #[error("cannot start the threads that serve connections: {0}")]
    Workers(io::Error),
    /// The descriptors that reflection serves do not fit together.
    #[error("cannot set up reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Why a server did not stop cleanly.
#[derive(Debug, Error)]
pub enum RunError {
    /// The writing thread is gone, so that nothing can be stored any more.
    #[error("the store ended by itself; what was acknowledged is on disk")]
    StoreEnded,
    /// The store did not finish what it had accepted.
    #[error("the store did not close within {STORE_CLOSE_DEADLINE:?}")]
    StoreNotClosed,
}
