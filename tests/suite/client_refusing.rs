//! A server that refuses one message of a stream for now, and takes those after it: the Rust client sends
//! from that one on again.

use std::num::NonZero;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_stream::stream;
use peerpost::client::OutgoingMessage;
use peerpost::proto::messaging_service_server::{MessagingService, MessagingServiceServer};
use peerpost::proto::{self, message, send_messages_request, send_messages_response};
use peerpost::server::serve_alone;
use peerpost::testing::within_patience;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::codegen::BoxStream;
use tonic::{Code, Request, Response, Result, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::client_support::{anonymous, patient};

/// The message that is refused the first time.
const REFUSED: &str = "r2";

/// Stores nothing; keeps what it was sent, a list for each stream.
#[derive(Clone, Default)]
struct Refusing(Arc<Mutex<Vec<Vec<String>>>>);

impl Refusing {
    fn streams(&self) -> Vec<Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn with<T>(&self, change: impl FnOnce(&mut Vec<Vec<String>>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn answer(&self, stream: usize, request: proto::SendMessagesRequest) -> Answer {
        self.with(|streams| streams[stream].push(request.request_id.clone()));
        if stream == 0 && request.request_id == REFUSED {
            let details = ErrorDetails::with_retry_info(Some(Duration::from_millis(1)));
            let status = Status::with_error_details(Code::ResourceExhausted, "full", details);
            let status = tonic_types::Status::decode(status.details()).expect("a status");
            return Answer::Error(status);
        }
        let body = request.body.map(|body| match body {
            send_messages_request::Body::Text(text) => message::Body::Text(text),
            send_messages_request::Body::Data(data) => message::Body::Data(data),
        });
        let (request_id, send_time) = (request.request_id, Some(<_>::default()));
        Answer::Message(proto::Message { request_id, body, send_time, ..Default::default() })
    }
}

type Answer = send_messages_response::Result;

/// For what nobody calls here.
fn nothing<T>() -> Result<Response<T>> {
    Err(Status::unimplemented(""))
}

#[tonic::async_trait]
impl MessagingService for Refusing {
    type SendMessagesStream = BoxStream<proto::SendMessagesResponse>;
    type SubscribeStream = BoxStream<proto::SubscribeResponse>;

    async fn send_messages(
        &self,
        request: Request<Streaming<proto::SendMessagesRequest>>,
    ) -> Result<Response<Self::SendMessagesStream>> {
        let (this, mut requests) = (self.clone(), request.into_inner());
        let number = self.with(|streams| {
            streams.push(Vec::new());
            streams.len() - 1
        });
        Ok(Response::new(Box::pin(stream! {
            while let Some(Ok(request)) = requests.next().await {
                let result = Some(this.answer(number, request));
                yield Ok(proto::SendMessagesResponse { result });
            }
        })))
    }

    async fn register(
        &self,
        _: Request<proto::RegisterRequest>,
    ) -> Result<Response<proto::RegisterResponse>> {
        nothing()
    }

    async fn send_message(
        &self,
        _: Request<proto::SendMessageRequest>,
    ) -> Result<Response<proto::SendMessageResponse>> {
        nothing()
    }

    async fn get_messages(
        &self,
        _: Request<proto::GetMessagesRequest>,
    ) -> Result<Response<proto::GetMessagesResponse>> {
        nothing()
    }

    async fn subscribe(
        &self,
        _: Request<proto::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>> {
        nothing()
    }

    async fn acknowledge(
        &self,
        _: Request<proto::AcknowledgeRequest>,
    ) -> Result<Response<proto::AcknowledgeResponse>> {
        nothing()
    }

    async fn get_user(
        &self,
        _: Request<proto::GetUserRequest>,
    ) -> Result<Response<proto::GetUserResponse>> {
        nothing()
    }

    async fn list_users(
        &self,
        _: Request<proto::ListUsersRequest>,
    ) -> Result<Response<proto::ListUsersResponse>> {
        nothing()
    }

    async fn create_token(
        &self,
        _: Request<proto::CreateTokenRequest>,
    ) -> Result<Response<proto::CreateTokenResponse>> {
        nothing()
    }

    async fn list_tokens(
        &self,
        _: Request<proto::ListTokensRequest>,
    ) -> Result<Response<proto::ListTokensResponse>> {
        nothing()
    }

    async fn revoke_token(
        &self,
        _: Request<proto::RevokeTokenRequest>,
    ) -> Result<Response<proto::RevokeTokenResponse>> {
        nothing()
    }

    async fn delete_user(
        &self,
        _: Request<proto::DeleteUserRequest>,
    ) -> Result<Response<proto::DeleteUserResponse>> {
        nothing()
    }
}

#[tokio::test]
async fn a_message_that_is_refused_for_now_is_sent_again_in_its_place() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let (refusing, stop) = (Refusing::default(), CancellationToken::new());
    let mut server = JoinSet::new();
    let service = MessagingServiceServer::new(refusing.clone());
    let serving =
        serve_alone(listener, service, NonZero::<usize>::MIN, stop.clone(), Duration::ZERO);
    server.spawn(serving);

    let ids: Vec<_> = (0..6).map(|i| format!("r{i}")).collect();
    let messages =
        ids.clone().into_iter().map(|id| OutgoingMessage::new("bob", "x").with_request_id(id));
    let mut sending = anonymous(addr, patient()).send_all(tokio_stream::iter(messages));
    let mut stored = Vec::new();
    while let Some(outcome) = within_patience("the next outcome", sending.next()).await {
        let message = outcome.expect("goes on").expect("stored in the end");
        stored.push(message.request_id.expect("its own"));
    }
    assert_eq!(stored, ids, "an outcome for each, in order");
    let streams = refusing.streams();
    assert_eq!(streams.len(), 2, "{streams:?}");
    assert_eq!(streams[1], ids[2..], "all from the one that was refused");
    stop.cancel();
    let ended = within_patience("the server's end", server.join_next()).await;
    ended.expect("one task").expect("does not panic").expect("serves");
}
