//! What the transport costs alone: a server that answers in the contract's shapes and does nothing.
//!
//! It serves over connections set up as the real server's, on a runtime started the same way. No
//! token is looked at, nothing is stored, nothing is delivered.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZero;
use std::time::Duration;

use anyhow::Context as _;
use async_stream::stream;
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Streaming};

use crate::cli::output;
use crate::cli::serve::workers;
use crate::cli::signals::StopSignals;
use crate::proto;
use crate::proto::messaging_service_server::{MessagingService, MessagingServiceServer};
use crate::proto::subscribe_response::Event;
use crate::server::workers_default;

/// The hidden command that runs it.
pub(in crate::cli) const COMMAND: &str = "bench-noop-server";

/// Nothing is lost with what is cut.
const DRAIN_DEADLINE: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// How many messages every mailbox holds.
    #[arg(long, default_value_t = 0)]
    mailbox_messages: u64,

    /// The size of their bodies.
    #[arg(long, default_value_t = 100)]
    body_bytes: usize,

    /// As the real server's.
    #[arg(long, env = "PEERPOST_WORKERS", value_parser = workers, default_value_t = workers_default())]
    workers: NonZero<usize>,
}

/// Serves until it is told to stop.
pub(in crate::cli) async fn run(args: &Args) -> anyhow::Result<()> {
    let mut stop = StopSignals::listen().context("cannot listen for signals")?;
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .await
        .context("cannot listen")?;
    output::line(&format!("peerpost listens on http://{}", listener.local_addr()?))?;
    let service =
        Noop { message: message(args.body_bytes), mailbox_messages: args.mailbox_messages };
    let service = MessagingServiceServer::new(service);
    let shutdown = CancellationToken::new();
    let on_stop = shutdown.clone();
    let serve =
        crate::server::serve_alone(listener, service, args.workers, shutdown, DRAIN_DEADLINE);
    let (served, ()) = tokio::join!(serve, async move {
        stop.next().await;
        on_stop.cancel();
    });
    served.context("cannot serve")
}

/// A message in the shape that the real server answers with.
fn message(body_bytes: usize) -> proto::Message {
    proto::Message {
        message_id: uuid::Uuid::now_v7().to_string(),
        sequence: 123_456,
        from_user: "bench-0123456789abcdef-12".into(),
        to_user: "bench-0123456789abcdef-34".into(),
        send_time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 123_456_000 }),
        body: Some(proto::message::Body::Data(Bytes::from(vec![b'x'; body_bytes]))),
        content_type: String::new(),
        request_id: String::new(),
        expire_time: None,
        expired: false,
    }
}

struct Noop {
    message: proto::Message,
    mailbox_messages: u64,
}

impl Noop {
    /// The answer to a send: the sender's own view, which shows the request id.
    fn sent(&self, request: proto::SendMessageRequest) -> proto::Message {
        use proto::send_message_request::Body;
        let body = request.body.map(|body| match body {
            Body::Text(text) => proto::message::Body::Text(text),
            Body::Data(data) => proto::message::Body::Data(data),
        });
        proto::Message {
            message_id: self.message.message_id.clone(),
            sequence: self.message.sequence,
            from_user: self.message.from_user.clone(),
            to_user: request.to_user,
            send_time: self.message.send_time,
            body,
            content_type: request.content_type,
            request_id: request.request_id,
            expire_time: None,
            expired: false,
        }
    }
}

fn event(event: Event) -> proto::SubscribeResponse {
    proto::SubscribeResponse { event: Some(event) }
}

#[tonic::async_trait]
impl MessagingService for Noop {
    async fn register(
        &self,
        _request: Request<proto::RegisterRequest>,
    ) -> tonic::Result<Response<proto::RegisterResponse>> {
        // As long as a real one.
        let token = format!("pp_{}", "x".repeat(43));
        Ok(Response::new(proto::RegisterResponse { user: None, token }))
    }

    async fn send_message(
        &self,
        request: Request<proto::SendMessageRequest>,
    ) -> tonic::Result<Response<proto::SendMessageResponse>> {
        let message = self.sent(request.into_inner());
        Ok(Response::new(proto::SendMessageResponse { message: Some(message) }))
    }

    type SendMessagesStream = BoxStream<proto::SendMessagesResponse>;

    async fn send_messages(
        &self,
        request: Request<Streaming<proto::SendMessagesRequest>>,
    ) -> tonic::Result<Response<Self::SendMessagesStream>> {
        let noop = Self { message: self.message.clone(), mailbox_messages: 0 };
        let mut requests = request.into_inner();
        Ok(Response::new(Box::pin(stream! {
            while let Some(request) = requests.next().await {
                yield request.map(|request| {
                    let message = noop.sent(unstreamed(request));
                    let result = proto::send_messages_response::Result::Message(message);
                    proto::SendMessagesResponse { result: Some(result) }
                });
            }
        })))
    }

    type SubscribeStream = BoxStream<proto::SubscribeResponse>;

    /// The whole mailbox, unless the subscriber asks for what comes from now on; then silence.
    async fn subscribe(
        &self,
        request: Request<proto::SubscribeRequest>,
    ) -> tonic::Result<Response<Self::SubscribeStream>> {
        let from_now = proto::subscribe_request::Start::FromNow(true);
        let count =
            if request.get_ref().start == Some(from_now) { 0 } else { self.mailbox_messages };
        let message = (count > 0).then(|| self.message.clone());
        Ok(Response::new(Box::pin(stream! {
            yield Ok(event(Event::Started(proto::SubscriptionStarted::default())));
            for _ in 0..count {
                if let Some(message) = &message {
                    yield Ok(event(Event::Message(message.clone())));
                }
            }
            yield Ok(event(Event::CaughtUp(proto::CaughtUp::default())));
            std::future::pending::<()>().await;
        })))
    }

    async fn get_messages(
        &self,
        _request: Request<proto::GetMessagesRequest>,
    ) -> tonic::Result<Response<proto::GetMessagesResponse>> {
        Ok(Response::new(proto::GetMessagesResponse::default()))
    }

    async fn acknowledge(
        &self,
        _request: Request<proto::AcknowledgeRequest>,
    ) -> tonic::Result<Response<proto::AcknowledgeResponse>> {
        Ok(Response::new(proto::AcknowledgeResponse::default()))
    }

    async fn get_user(
        &self,
        _request: Request<proto::GetUserRequest>,
    ) -> tonic::Result<Response<proto::GetUserResponse>> {
        Ok(Response::new(proto::GetUserResponse::default()))
    }

    async fn list_users(
        &self,
        _request: Request<proto::ListUsersRequest>,
    ) -> tonic::Result<Response<proto::ListUsersResponse>> {
        Ok(Response::new(proto::ListUsersResponse::default()))
    }

    async fn create_token(
        &self,
        _request: Request<proto::CreateTokenRequest>,
    ) -> tonic::Result<Response<proto::CreateTokenResponse>> {
        Ok(Response::new(proto::CreateTokenResponse::default()))
    }

    async fn list_tokens(
        &self,
        _request: Request<proto::ListTokensRequest>,
    ) -> tonic::Result<Response<proto::ListTokensResponse>> {
        Ok(Response::new(proto::ListTokensResponse::default()))
    }

    async fn revoke_token(
        &self,
        _request: Request<proto::RevokeTokenRequest>,
    ) -> tonic::Result<Response<proto::RevokeTokenResponse>> {
        Ok(Response::new(proto::RevokeTokenResponse::default()))
    }

    async fn delete_user(
        &self,
        _request: Request<proto::DeleteUserRequest>,
    ) -> tonic::Result<Response<proto::DeleteUserResponse>> {
        Ok(Response::new(proto::DeleteUserResponse::default()))
    }
}

fn unstreamed(request: proto::SendMessagesRequest) -> proto::SendMessageRequest {
    use proto::send_message_request::Body as To;
    use proto::send_messages_request::Body as From;
    let proto::SendMessagesRequest { to_user, body, content_type, request_id, .. } = request;
    let body = body.map(|body| match body {
        From::Text(text) => To::Text(text),
        From::Data(data) => To::Data(data),
    });
    proto::SendMessageRequest { to_user, body, content_type, request_id, expiry: None }
}
