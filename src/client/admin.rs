//! The admin socket, for `peerpost admin`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

use super::Error;
use crate::proto::admin::admin_service_client::AdminServiceClient;

/// Longer than the server takes for any call.
const CALL_DEADLINE: Duration = Duration::from_secs(35);

/// Every HTTP/2 request names a host; nobody looks at this one.
const HOST: &str = "http://admin.invalid";

/// A connection to the admin socket of a server on this machine.
#[derive(Debug, Clone)]
pub struct AdminClient {
    grpc: AdminServiceClient<Channel>,
    socket: PathBuf,
}

impl AdminClient {
    /// Connects to the socket at this path.
    ///
    /// # Errors
    /// [`Error::Connect`] when nobody answers there, or not to this user.
    pub async fn connect(socket: &Path) -> Result<Self, Error> {
        let failed = |problem: String| Error::Connect {
            server: format!("the admin socket {}", socket.display()),
            problem,
        };
        // By itself first: the reason for a failure is the operating system's, in its words.
        UnixStream::connect(socket).await.map_err(|error| failed(error.to_string()))?;
        let path = socket.to_owned();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static(HOST).timeout(CALL_DEADLINE);
        let channel = endpoint.connect_with_connector(connector).await;
        let channel = channel.map_err(|error| failed(error.to_string()))?;
        Ok(Self { grpc: AdminServiceClient::new(channel), socket: socket.to_owned() })
    }

    /// Makes one call: `call` is given what speaks `peerpost.admin.v1.AdminService`.
    ///
    /// # Errors
    /// Those of [`Client`](super::Client)'s calls.
    pub async fn call<T, F>(
        &self,
        call: impl FnOnce(AdminServiceClient<Channel>) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let answered = call(self.grpc.clone()).await;
        answered.map(Response::into_inner).map_err(|status| {
            Error::from_status(&status, &self.socket.display().to_string(), CALL_DEADLINE)
        })
    }
}
