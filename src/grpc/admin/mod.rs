//! What an operator does with a running server: `peerpost.admin.v1.AdminService`, over the use cases.
//!
//! One file for each group of RPCs: it extends [`Administration`] with a method for each, and the
//! service's own impl, below, names them. To add an RPC: `proto/peerpost/admin/v1/admin.proto`, a method
//! in its group's file, a line here, and a command in `src/cli/admin/`.

mod accounts;
mod audit;
mod invites;
mod limits;
mod retention;
mod stats;
mod tokens;

use std::sync::Arc;

use tokio::time::timeout;
use tonic::{Request, Response, Status};

use super::error::CallError;
use crate::auth::Authenticator;
use crate::domain::Timestamp;
use crate::domain::limits::{CALL_DEADLINE, REQUEST_BYTES_MAX};
use crate::hub::Hub;
use crate::messenger::Messenger;
use crate::proto::admin as proto;
use crate::proto::admin::admin_service_server::{self, AdminServiceServer};
use crate::store::Store;
use crate::store::accounts::audit::Actor;

/// The service, as the admin socket serves it.
pub type AdminService = AdminServiceServer<Administration>;

/// Who calls, as the operating system knows them: the socket puts it among the request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct Operator {
    /// The user of this machine.
    pub uid: u32,
}

impl From<Operator> for Actor {
    fn from(Operator { uid }: Operator) -> Self {
        Self::Operator { uid }
    }
}

/// Who makes this call.
fn operator<T>(request: &Request<T>) -> Result<Operator, Status> {
    let operator = request.extensions().get::<Operator>().copied();
    operator.ok_or_else(|| Status::permission_denied("it is not known who calls"))
}

/// What an operator can do. Cloning gives another handle.
#[derive(Clone)]
pub struct Administration {
    store: Store,
    hub: Hub,
    authenticator: Authenticator,
    messenger: Messenger,
    connections_open: Arc<dyn Fn() -> usize + Send + Sync>,
    start_time: Timestamp,
}

impl Administration {
    /// Over these parts of a server that starts now; `connections_open` says how many there are of users.
    pub fn new(
        store: Store,
        hub: Hub,
        authenticator: Authenticator,
        messenger: Messenger,
        connections_open: impl Fn() -> usize + Send + Sync + 'static,
    ) -> Self {
        let (connections_open, start_time) = (Arc::new(connections_open), Timestamp::now());
        Self { store, hub, authenticator, messenger, connections_open, start_time }
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

    async fn get_account(
        &self,
        request: Request<proto::GetAccountRequest>,
    ) -> Result<Response<proto::GetAccountResponse>, Status> {
        answer(self.account(request.get_ref())).await
    }

    async fn list_accounts(
        &self,
        request: Request<proto::ListAccountsRequest>,
    ) -> Result<Response<proto::ListAccountsResponse>, Status> {
        answer(self.accounts(request.into_inner())).await
    }

    async fn ban_account(
        &self,
        request: Request<proto::BanAccountRequest>,
    ) -> Result<Response<proto::BanAccountResponse>, Status> {
        answer(self.ban(operator(&request)?, request.get_ref())).await
    }

    async fn unban_account(
        &self,
        request: Request<proto::UnbanAccountRequest>,
    ) -> Result<Response<proto::UnbanAccountResponse>, Status> {
        answer(self.unban(operator(&request)?, request.get_ref())).await
    }

    async fn delete_account(
        &self,
        request: Request<proto::DeleteAccountRequest>,
    ) -> Result<Response<proto::DeleteAccountResponse>, Status> {
        answer(self.delete(operator(&request)?, request.get_ref())).await
    }

    async fn list_account_tokens(
        &self,
        request: Request<proto::ListAccountTokensRequest>,
    ) -> Result<Response<proto::ListAccountTokensResponse>, Status> {
        answer(self.tokens(request.get_ref())).await
    }

    async fn create_account_token(
        &self,
        request: Request<proto::CreateAccountTokenRequest>,
    ) -> Result<Response<proto::CreateAccountTokenResponse>, Status> {
        answer(self.create_token(operator(&request)?, request.get_ref())).await
    }

    async fn revoke_account_tokens(
        &self,
        request: Request<proto::RevokeAccountTokensRequest>,
    ) -> Result<Response<proto::RevokeAccountTokensResponse>, Status> {
        answer(self.revoke_tokens(operator(&request)?, request.get_ref())).await
    }

    async fn create_invite(
        &self,
        request: Request<proto::CreateInviteRequest>,
    ) -> Result<Response<proto::CreateInviteResponse>, Status> {
        answer(self.create_invite(operator(&request)?, request.get_ref())).await
    }

    async fn list_invites(
        &self,
        request: Request<proto::ListInvitesRequest>,
    ) -> Result<Response<proto::ListInvitesResponse>, Status> {
        answer(self.invites(request.get_ref())).await
    }

    async fn revoke_invite(
        &self,
        request: Request<proto::RevokeInviteRequest>,
    ) -> Result<Response<proto::RevokeInviteResponse>, Status> {
        answer(self.revoke_invite(operator(&request)?, request.get_ref())).await
    }

    async fn list_audit_entries(
        &self,
        request: Request<proto::ListAuditEntriesRequest>,
    ) -> Result<Response<proto::ListAuditEntriesResponse>, Status> {
        answer(self.audit(request.get_ref())).await
    }

    async fn get_user_limits(
        &self,
        request: Request<proto::GetUserLimitsRequest>,
    ) -> Result<Response<proto::GetUserLimitsResponse>, Status> {
        answer(self.get_limits(request.get_ref())).await
    }

    async fn set_user_limits(
        &self,
        request: Request<proto::SetUserLimitsRequest>,
    ) -> Result<Response<proto::SetUserLimitsResponse>, Status> {
        answer(self.set_limits(operator(&request)?, request.get_ref())).await
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
        answer(self.set_retention(operator(&request)?, request.get_ref())).await
    }
}
