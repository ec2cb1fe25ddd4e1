//! The handlers: decode, call, encode.

use std::net::IpAddr;

use tonic::{Extensions, Request, Response, Status, Streaming};

use super::error::CallError;
use super::sends::{self, Sends};
use super::stream_end::{Deadline, StreamEnd};
use super::subscription::{self, Subscription};
use super::{accounts, decode, encode};
use crate::auth::{Authenticator, Credential};
use crate::domain::{PeerAddress, User};
use crate::messenger::Messenger;
use crate::proto;
use crate::proto::messaging_service_server::MessagingService;

/// The contract's service over the use cases.
#[derive(Clone)]
pub struct Messaging {
    authenticator: Authenticator,
    messenger: Messenger,
    body_bytes_max: usize,
}

impl Messaging {
    /// A service that accepts bodies of at most `body_bytes_max` bytes.
    pub fn new(authenticator: Authenticator, messenger: Messenger, body_bytes_max: usize) -> Self {
        Self { authenticator, messenger, body_bytes_max }
    }

    /// What ends the stream that this request begins.
    async fn stream_end(
        &self,
        caller: &User,
        extensions: &Extensions,
    ) -> Result<StreamEnd, CallError> {
        let deadline = extensions.get::<Deadline>().copied();
        let opening = self.authenticator.open_session(caller, credential(extensions));
        let (session, expire_time) = opening.await?;
        Ok(StreamEnd::new(deadline, session, expire_time))
    }
}

/// By what the caller was recognised, as the layer before this service says for the methods that ask.
fn credential(extensions: &Extensions) -> Credential {
    extensions.get::<Credential>().copied().unwrap_or(Credential::Name)
}

/// The caller, as the layer before this service recognised them.
fn caller<T>(request: &Request<T>) -> Result<User, CallError> {
    request.extensions().get::<User>().cloned().ok_or(CallError::TokenMissing)
}

/// The address from which a call came: the listener puts it among the request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct SeenAddress(pub IpAddr);

fn seen_address(seen: Option<IpAddr>) -> Result<PeerAddress, CallError> {
    seen.map(PeerAddress::seen).ok_or_else(|| {
        CallError::invalid_field("ip_address", "is required where the server sees no address")
    })
}

#[tonic::async_trait]
impl MessagingService for Messaging {
    async fn register(
        &self,
        request: Request<proto::RegisterRequest>,
    ) -> Result<Response<proto::RegisterResponse>, Status> {
        let caller = request.extensions().get::<User>();
        let from = request.extensions().get::<SeenAddress>().map(|seen| seen.0);
        let (name, address, invite) = decode::register(request.get_ref())?;
        let address = match address {
            Some(address) => address,
            None => seen_address(from)?,
        };
        let registering = self.authenticator.register_from(from, name, address, invite, caller);
        let registration = registering.await.map_err(CallError::from)?;
        Ok(Response::new(proto::RegisterResponse {
            user: Some(encode::user(self.messenger.view(registration.profile))),
            token: registration.token.map(|token| token.reveal()).unwrap_or_default(),
        }))
    }

    async fn send_message(
        &self,
        request: Request<proto::SendMessageRequest>,
    ) -> Result<Response<proto::SendMessageResponse>, Status> {
        let caller = caller(&request)?;
        let outgoing = decode::send_message(request.into_inner(), self.body_bytes_max)?;
        let pending = self.messenger.accept(&caller, outgoing).await.map_err(CallError::from)?;
        let message = pending.committed().await.map_err(CallError::from)?;
        Ok(Response::new(proto::SendMessageResponse {
            message: Some(encode::message(&message, caller.id)),
        }))
    }

    type SendMessagesStream = Sends;

    async fn send_messages(
        &self,
        request: Request<Streaming<proto::SendMessagesRequest>>,
    ) -> Result<Response<Sends>, Status> {
        let caller = caller(&request)?;
        let end = self.stream_end(&caller, request.extensions()).await?;
        let (messenger, requests) = (self.messenger.clone(), request.into_inner());
        let responses = sends::stream(messenger, caller, requests, self.body_bytes_max, end);
        Ok(Response::new(responses))
    }

    async fn get_messages(
        &self,
        request: Request<proto::GetMessagesRequest>,
    ) -> Result<Response<proto::GetMessagesResponse>, Status> {
        let caller = caller(&request)?;
        let request = decode::get_messages(request.into_inner())?;
        let page = self.messenger.read(&caller, request).await.map_err(CallError::from)?;
        Ok(Response::new(proto::GetMessagesResponse {
            messages: page.messages.iter().map(|m| encode::message(m, caller.id)).collect(),
            has_more: page.has_more,
            epoch: self.messenger.epoch().as_str().to_owned(),
            first_sequence: page.range.first.get(),
            last_sequence: page.range.last.get(),
        }))
    }

    type SubscribeStream = Subscription;

    async fn subscribe(
        &self,
        request: Request<proto::SubscribeRequest>,
    ) -> Result<Response<Subscription>, Status> {
        let caller = caller(&request)?;
        let end = self.stream_end(&caller, request.extensions()).await?;
        let request = decode::subscribe(request.into_inner())?;
        let follow = self.messenger.follow(&caller, request).await.map_err(CallError::from)?;
        Ok(Response::new(subscription::stream(follow, caller.id, end)))
    }

    async fn acknowledge(
        &self,
        request: Request<proto::AcknowledgeRequest>,
    ) -> Result<Response<proto::AcknowledgeResponse>, Status> {
        let caller = caller(&request)?;
        let (through, epoch) = decode::acknowledge(request.into_inner())?;
        let acknowledged = self
            .messenger
            .acknowledge(&caller, through, epoch.as_ref())
            .await
            .map_err(CallError::from)?;
        Ok(Response::new(proto::AcknowledgeResponse { acknowledged_through: acknowledged.get() }))
    }

    async fn get_user(
        &self,
        request: Request<proto::GetUserRequest>,
    ) -> Result<Response<proto::GetUserResponse>, Status> {
        caller(&request)?;
        let name = decode::username(&request.get_ref().username)?;
        let view = self.messenger.user(name).await.map_err(CallError::from)?;
        Ok(Response::new(proto::GetUserResponse { user: Some(encode::user(view)) }))
    }

    async fn list_users(
        &self,
        request: Request<proto::ListUsersRequest>,
    ) -> Result<Response<proto::ListUsersResponse>, Status> {
        caller(&request)?;
        let (prefix, after, page_size) = decode::list_users(request.get_ref())?;
        let page = self.messenger.users(prefix, after, page_size).await.map_err(CallError::from)?;
        Ok(Response::new(proto::ListUsersResponse {
            users: page.users.into_iter().map(encode::user).collect(),
            next_page_token: page
                .next_after
                .map(|after| decode::encode_page_token(&after))
                .unwrap_or_default(),
        }))
    }

    async fn create_token(
        &self,
        request: Request<proto::CreateTokenRequest>,
    ) -> Result<Response<proto::CreateTokenResponse>, Status> {
        let caller = caller(&request)?;
        let response = accounts::create(&self.authenticator, caller, request.get_ref()).await?;
        Ok(Response::new(response))
    }

    async fn list_tokens(
        &self,
        request: Request<proto::ListTokensRequest>,
    ) -> Result<Response<proto::ListTokensResponse>, Status> {
        let caller = (caller(&request)?, credential(request.extensions()));
        let response = accounts::list(&self.authenticator, caller, request.get_ref()).await?;
        Ok(Response::new(response))
    }

    async fn revoke_token(
        &self,
        request: Request<proto::RevokeTokenRequest>,
    ) -> Result<Response<proto::RevokeTokenResponse>, Status> {
        let caller = caller(&request)?;
        let response = accounts::revoke(&self.authenticator, caller, request.get_ref()).await?;
        Ok(Response::new(response))
    }

    async fn delete_user(
        &self,
        request: Request<proto::DeleteUserRequest>,
    ) -> Result<Response<proto::DeleteUserResponse>, Status> {
        let caller = caller(&request)?;
        let response = accounts::delete(&self.authenticator, caller, request.get_ref()).await?;
        Ok(Response::new(response))
    }
}
