//! What an operator does with a running server: `peerpost.admin.v1.AdminService`, over the use cases.
//!
//! One file for each group of RPCs: it extends [`Administration`] with a method for each, and the
//! service's own impl, below, names them. To add an RPC: `proto/peerpost/admin/v1/admin.proto`, a method
//! in its group's file, a line here, and a command in `src/cli/admin/`.

mod retention;
mod stats;

use std::sync::Arc;

use tokio::time::timeout;
use tonic::{Request, Response, Status};

use super::error::CallError;
use crate::domain::Timestamp;
use crate::domain::limits::{CALL_DEADLINE, REQUEST_BYTES_MAX};
use crate::hub::Hub;
use crate::proto::admin as proto;
use crate::proto::admin::admin_service_server::{self, AdminServiceServer};
use crate::store::Store;

/// The service, as the admin socket serves it.
pub type AdminService = AdminServiceServer<Administration>;

/// Who calls, as the operating system knows them: the socket puts it among the request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct Operator {
    /// The user of this machine.
    pub uid: u32,
}

/// What an operator can do. Cloning gives another handle.
#[derive(Clone)]
pub struct Administration {
    store: Store,
    hub: Hub,
    connections_open: Arc<dyn Fn() -> usize + Send + Sync>,
    start_time: Timestamp,
}

impl Administration {
    /// Over these parts of a server that starts now; `connections_open` says how many there are of users.
    pub fn new(
        store: Store,
        hub: Hub,
        connections_open: impl Fn() -> usize + Send + Sync + 'static,
    ) -> Self {
        let connections_open = Arc::new(connections_open);
        Self { store, hub, connections_open, start_time: Timestamp::now() }
    }

    /// The service.
    pub fn service(self) -> AdminService {
        AdminServiceServer::new(self).max_decoding_message_size(REQUEST_BYTES_MAX)
    }
}

/// What every call has: a deadline, and errors with the statuses of the one table.
async fn answer<T>(
    handling: impl Future<Output = Result<T, CallError>>,
) -> Result<Response<T>, Status> {
    match timeout(CALL_DEADLINE, handling).await {
        Ok(outcome) => Ok(Response::new(outcome?)),
        Err(_) => Err(CallError::DeadlineExceeded.into()),
    }
}

#[tonic::async_trait]
impl admin_service_server::AdminService for Administration {
    async fn get_server_stats(
        &self,
        _request: Request<proto::GetServerStatsRequest>,
    ) -> Result<Response<proto::GetServerStatsResponse>, Status> {
        answer(self.stats()).await
    }

    async fn get_user_retention(
        &self,
        request: Request<proto::GetUserRetentionRequest>,
    ) -> Result<Response<proto::GetUserRetentionResponse>, Status> {
        answer(self.user_retention(request.into_inner())).await
    }

    async fn set_user_retention(
        &self,
        request: Request<proto::SetUserRetentionRequest>,
    ) -> Result<Response<proto::SetUserRetentionResponse>, Status> {
        answer(Self::set_user_retention(self, request.into_inner())).await
    }
}
