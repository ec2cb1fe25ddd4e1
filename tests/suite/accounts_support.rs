//! What an operator does to accounts, and what users do to their tokens, as the tests say it.

use peerpost::auth::RegistrationPolicy;
use peerpost::domain::limits::TOKENS_PER_USER_MAX;
use peerpost::proto::admin::{
    AuditEntry, BanAccountRequest, CreateInviteRequest, ListAuditEntriesRequest,
    UnbanAccountRequest,
};
use peerpost::proto::messaging_service_client::MessagingServiceClient;
use peerpost::proto::{
    CreateTokenRequest, RegisterRequest, RegisterResponse, create_token_request::Expiration,
};
use peerpost::testing::{TestServer, TestUser, eventually, within_patience};
use tonic::Status;

/// A server with this policy.
pub(crate) async fn registering(policy: RegistrationPolicy) -> TestServer {
    TestServer::start_with(|options| options.registration = policy).await
}

/// What an operator does: bans a user.
pub(crate) async fn ban(server: &TestServer, username: &str, reason: &str) {
    let (username, reason) = (username.to_owned(), reason.to_owned());
    let request = BanAccountRequest { username, reason };
    let admin = server.admin().await;
    admin.call(|mut grpc| async move { grpc.ban_account(request).await }).await.expect("banned");
}

/// What an operator does: lifts a ban.
pub(crate) async fn unban(server: &TestServer, username: &str) {
    let request = UnbanAccountRequest { username: username.to_owned() };
    let admin = server.admin().await;
    admin.call(|mut grpc| async move { grpc.unban_account(request).await }).await.expect("lifted");
}

/// What an operator does: makes an invite. Its secret.
pub(crate) async fn invite(server: &TestServer, request: CreateInviteRequest) -> String {
    let admin = server.admin().await;
    let made = admin.call(|mut grpc| async move { grpc.create_invite(request).await }).await;
    made.expect("made").secret
}

/// The whole audit log.
pub(crate) async fn audit(server: &TestServer) -> Vec<AuditEntry> {
    let admin = server.admin().await;
    let request = ListAuditEntriesRequest { page_size: 1000, ..Default::default() };
    let page = admin.call(|mut grpc| async move { grpc.list_audit_entries(request).await }).await;
    page.expect("listed").entries
}

/// Registers a name that is new, perhaps with an invite.
pub(crate) async fn register(
    server: &TestServer,
    username: &str,
    invite: &str,
) -> Result<RegisterResponse, Status> {
    let mut client = MessagingServiceClient::connect(server.uri()).await.expect("it listens");
    let (username, invite) = (username.to_owned(), invite.to_owned());
    let request = RegisterRequest { username, invite, ..Default::default() };
    let answer = within_patience("Register", client.register(request)).await?;
    Ok(answer.into_inner())
}

/// A request for a token that is good until it is revoked.
pub(crate) fn named(display_name: &str) -> CreateTokenRequest {
    CreateTokenRequest { display_name: display_name.to_owned(), expiration: None }
}

/// A request for a token that is good for so long.
pub(crate) fn lasting(ttl: prost_types::Duration) -> CreateTokenRequest {
    CreateTokenRequest { expiration: Some(Expiration::Ttl(ttl)), ..Default::default() }
}

/// The user with a token that was good and has expired.
pub(crate) async fn expired(user: &TestUser) -> TestUser {
    let ttl = prost_types::Duration { seconds: 0, nanos: 1_000_000 };
    let (expired, _) = user.create_token(lasting(ttl)).await.expect("made");
    eventually("the token expires", async || expired.tokens().await.err()).await;
    expired
}

/// The refusal of one token more than a user may have.
pub(crate) async fn over_the_token_limit(user: &TestUser) -> Status {
    let there = user.tokens().await.expect("listed").len();
    for _ in there..TOKENS_PER_USER_MAX {
        user.create_token(named("one more")).await.expect("made");
    }
    user.create_token(named("too many")).await.expect_err("refused")
}
