use std::net::SocketAddr;
use std::pin::Pin;

use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::{Subscription, after, requests, within_patience};
use crate::client;
use crate::proto::messaging_service_client::MessagingServiceClient;
use crate::proto::{
    AcknowledgeRequest, CreateTokenRequest, CreateTokenResponse, DeleteUserRequest,
    GetMessagesRequest, GetMessagesResponse, GetUserRequest, ListTokensRequest, ListUsersRequest,
    ListUsersResponse, Message, RegisterRequest, RegisterResponse, RevokeTokenRequest,
    SendMessageRequest, SendMessagesRequest, SubscribeRequest, Token, User, message,
    send_messages_response, subscribe_request,
};

/// A registered user and a connection to the server: the generated client with the token attached.
///
/// Calls with a plain answer are for what must succeed; those that return a `Result` show how the
/// server refuses. Each subscription has a connection of its own, so that one that is not read
/// slows no other call.
#[derive(Debug, Clone)]
pub struct TestUser {
    /// The name as registered.
    pub name: String,
    /// The bearer token.
    pub token: String,
    addr: SocketAddr,
    client: MessagingServiceClient<Channel>,
}

impl TestUser {
    /// Registers a new name at the server that listens on `addr`.
    pub async fn register(addr: SocketAddr, name: &str) -> Self {
        Self::try_register_new(addr, name).await.expect("the name is free").0
    }

    /// Registers a new name, where that may fail. The second is the user as the server shows them.
    ///
    /// # Errors
    /// The status with which the server refuses.
    pub async fn try_register_new(addr: SocketAddr, name: &str) -> Result<(Self, User), Status> {
        let mut client = MessagingServiceClient::new(endpoint(addr).connect_lazy());
        let request = RegisterRequest { username: name.to_owned(), ..Default::default() };
        let answer = within_patience("Register", client.register(request)).await?;
        let RegisterResponse { token, user } = answer.into_inner();
        let shown = user.expect("an answer always holds the user");
        Ok((Self { name: name.to_owned(), token, addr, client }, shown))
    }

    /// The same user with a new connection, for instance to a server that was started anew.
    #[must_use]
    pub fn at(&self, addr: SocketAddr) -> Self {
        let client = MessagingServiceClient::new(endpoint(addr).connect_lazy());
        Self { name: self.name.clone(), token: self.token.clone(), addr, client }
    }

    /// The Rust client as this user, at the server or proxy with this URI, with
    /// [`client_options`](super::client_options).
    pub fn rust_client(&self, uri: &str) -> client::Client {
        let token = client::Token::parse(&self.token).expect("a token");
        let client = client::Client::connect_with(uri, super::client_options());
        client.expect("the URI of a server").with_token(&token)
    }

    /// A request that carries the user's token.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let value = format!("Bearer {}", self.token).parse().expect("a token is ASCII");
        request.metadata_mut().insert("authorization", value);
        request
    }

    /// The generated client, without the token.
    pub fn client(&self) -> MessagingServiceClient<Channel> {
        self.client.clone()
    }

    /// Sends a text.
    pub async fn send(&self, to_user: &str, text: &str) -> Message {
        self.try_send(requests::text_to(to_user, text)).await.expect("the message is accepted")
    }

    /// Sends a text with a `request_id`.
    pub async fn send_with_id(&self, to_user: &str, text: &str, request_id: &str) -> Message {
        let mut request = requests::text_to(to_user, text);
        request.request_id = request_id.to_owned();
        self.try_send(request).await.expect("the message is accepted")
    }

    /// Sends a message.
    ///
    /// # Errors
    /// The status with which the server refuses.
    pub async fn try_send(&self, request: SendMessageRequest) -> Result<Message, Status> {
        let mut client = self.client();
        let call = client.send_message(self.request(request));
        let answer = within_patience("SendMessage", call).await?.into_inner();
        Ok(answer.message.expect("an answer always holds the message"))
    }

    /// Sends on one stream of `SendMessages` and returns what became of each request, in order.
    ///
    /// # Errors
    /// The status with which the stream as a whole ends, unless it is OK.
    pub async fn send_all(
        &self,
        requests: impl IntoIterator<Item = SendMessageRequest>,
    ) -> Result<Vec<Result<Message, Status>>, Status> {
        let requests: Vec<_> = requests.into_iter().map(requests::streamed).collect();
        let mut answers = self.send_stream(tokio_stream::iter(requests)).await?;
        let mut results = Vec::new();
        while let Some(answer) = within_patience("an answer", answers.next()).await {
            results.push(answer?);
        }
        Ok(results)
    }

    /// Opens a stream of `SendMessages` and returns its answers as they come. An outer error ends
    /// the stream.
    ///
    /// # Errors
    /// The status with which the stream is refused.
    pub async fn send_stream(
        &self,
        requests: impl Stream<Item = SendMessagesRequest> + Send + 'static,
    ) -> Result<Answers, Status> {
        let mut client = self.client();
        let call = client.send_messages(self.request(requests));
        let answers = within_patience("SendMessages", call).await?.into_inner();
        Ok(Box::pin(answers.map(|answer| {
            let result = answer?.result.expect("an answer always holds one of the two");
            Ok(match result {
                send_messages_response::Result::Message(message) => Ok(message),
                send_messages_response::Result::Error(status) => Err(from_rpc_status(&status)),
            })
        })))
    }

    /// Sends `count` texts `"{prefix}{i}"`, i from 0, on one stream.
    pub async fn send_many(&self, to_user: &str, prefix: &str, count: usize) -> Vec<Message> {
        let texts = (0..count).map(|i| requests::text_to(to_user, format!("{prefix}{i}")));
        let results = self.send_all(texts).await.expect("the stream ends with OK");
        results.into_iter().map(|result| result.expect("the message is accepted")).collect()
    }

    /// Reads a page of the mailbox.
    ///
    /// # Errors
    /// The status with which the server refuses.
    pub async fn get(&self, request: GetMessagesRequest) -> Result<GetMessagesResponse, Status> {
        let mut client = self.client();
        let call = client.get_messages(self.request(request));
        Ok(within_patience("GetMessages", call).await?.into_inner())
    }

    /// The whole mailbox, read page by page.
    pub async fn mailbox(&self) -> Vec<Message> {
        let mut messages: Vec<Message> = Vec::new();
        loop {
            let cursor = messages.last().map_or(0, |last| last.sequence);
            let request = GetMessagesRequest { page_size: 1000, ..after(cursor) };
            let page = self.get(request).await.expect("the mailbox can be read");
            messages.extend(page.messages);
            if !page.has_more {
                return messages;
            }
        }
    }

    /// Opens a subscription on a connection of its own.
    ///
    /// # Errors
    /// The status with which the server refuses, wherever on the stream it comes.
    pub async fn subscribe(&self, request: SubscribeRequest) -> Result<Subscription, Status> {
        self.subscribe_through(endpoint(self.addr), request).await
    }

    /// Opens a subscription that takes only `window_bytes` that are not read: a reader that stops
    /// reading soon holds the server up.
    ///
    /// # Errors
    /// The status with which the server refuses, wherever on the stream it comes.
    pub async fn subscribe_with_window(
        &self,
        window_bytes: u32,
        request: SubscribeRequest,
    ) -> Result<Subscription, Status> {
        let endpoint = endpoint(self.addr).initial_stream_window_size(window_bytes);
        self.subscribe_through(endpoint, request).await
    }

    /// Follows the mailbox after a sequence.
    pub async fn follow(&self, after_sequence: i64) -> Subscription {
        let start = Some(subscribe_request::Start::AfterSequence(after_sequence));
        let request = SubscribeRequest { start, ..Default::default() };
        self.subscribe(request).await.expect("the subscription is accepted")
    }

    /// Acknowledges, and returns what is acknowledged then.
    ///
    /// # Errors
    /// The status with which the server refuses.
    pub async fn acknowledge(&self, through_sequence: i64) -> Result<i64, Status> {
        self.acknowledge_in("", through_sequence).await
    }

    /// Acknowledges within an epoch.
    ///
    /// # Errors
    /// The status with which the server refuses.
    pub async fn acknowledge_in(&self, epoch: &str, through_sequence: i64) -> Result<i64, Status> {
        let request = AcknowledgeRequest { through_sequence, epoch: epoch.to_owned() };
        let mut client = self.client();
        let call = client.acknowledge(self.request(request));
        Ok(within_patience("Acknowledge", call).await?.into_inner().acknowledged_through)
    }

    /// Registers `username` with this user's token.
    ///
    /// # Errors
    /// The status with which the server refuses.
    pub async fn try_register(
        &self,
        username: &str,
        ip_address: &str,
    ) -> Result<RegisterResponse, Status> {
        let (username, ip_address) = (username.to_owned(), ip_address.to_owned());
        let mut client = self.client();
        let call = client.register(self.request(RegisterRequest {
            username,
            ip_address,
            ..Default::default()
        }));
        Ok(within_patience("Register", call).await?.into_inner())
    }

    /// Looks a user up.
    ///
    /// # Errors
    /// The status with which the server refuses.
    pub async fn get_user(&self, username: &str) -> Result<User, Status> {
        let mut client = self.client();
        let request = self.request(GetUserRequest { username: username.to_owned() });
        let answer = within_patience("GetUser", client.get_user(request)).await?.into_inner();
        Ok(answer.user.expect("an answer always holds the user"))
    }

    /// Lists users.
    ///
    /// # Errors
    /// The status with which the server refuses.
    pub async fn list_users(&self, request: ListUsersRequest) -> Result<ListUsersResponse, Status> {
        let mut client = self.client();
        let call = client.list_users(self.request(request));
        Ok(within_patience("ListUsers", call).await?.into_inner())
    }

    /// The same user with another of their tokens.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// Makes one more token for the user, who is then seen with it, and what is listed of it.
    ///
    /// # Errors
    /// The status with which the server refuses.
    pub async fn create_token(&self, request: CreateTokenRequest) -> Result<(Self, Token), Status> {
        let mut client = self.client();
        let call = client.create_token(self.request(request));
        let CreateTokenResponse { token, secret } =
            within_patience("CreateToken", call).await?.into_inner();
        Ok((self.with_token(&secret), token.expect("an answer always holds the token")))
    }

    /// The user's tokens, all on one page.
    ///
    /// # Errors
    /// The status with which the server refuses.
    pub async fn tokens(&self) -> Result<Vec<Token>, Status> {
        let mut client = self.client();
        let call = client.list_tokens(self.request(ListTokensRequest::default()));
        Ok(within_patience("ListTokens", call).await?.into_inner().tokens)
    }

    /// Ends one of the user's tokens.
    ///
    /// # Errors
    /// The status with which the server refuses.
    pub async fn revoke_token(&self, token_id: &str) -> Result<(), Status> {
        let mut client = self.client();
        let request = RevokeTokenRequest { token_id: token_id.to_owned() };
        within_patience("RevokeToken", client.revoke_token(self.request(request))).await?;
        Ok(())
    }

    /// Deletes the user, whom `username` is to name.
    ///
    /// # Errors
    /// The status with which the server refuses.
    pub async fn delete(&self, username: &str) -> Result<(), Status> {
        let mut client = self.client();
        let request = DeleteUserRequest { username: username.to_owned() };
        within_patience("DeleteUser", client.delete_user(self.request(request))).await?;
        Ok(())
    }

    async fn subscribe_through(
        &self,
        endpoint: Endpoint,
        request: SubscribeRequest,
    ) -> Result<Subscription, Status> {
        let mut client = MessagingServiceClient::new(endpoint.connect_lazy());
        let call = client.subscribe(self.request(request));
        let stream = within_patience("Subscribe", call).await?.into_inner();
        Subscription::open(stream).await
    }
}

/// The answers on a stream of `SendMessages`: what became of each request, or the status with which
/// the stream ends.
pub type Answers = Pin<Box<dyn Stream<Item = Result<Result<Message, Status>, Status>> + Send>>;

/// The text of a message that holds text.
#[track_caller]
pub fn body_text(message: &Message) -> &str {
    match &message.body {
        Some(message::Body::Text(text)) => text,
        _ => panic!("no text in {message:?}"),
    }
}

/// The bytes of a message's body, of either kind.
#[track_caller]
pub fn body_bytes(message: &Message) -> &[u8] {
    match &message.body {
        Some(message::Body::Text(text)) => text.as_bytes(),
        Some(message::Body::Data(data)) => data,
        None => panic!("no body in {message:?}"),
    }
}

fn endpoint(addr: SocketAddr) -> Endpoint {
    Endpoint::from_shared(format!("http://{addr}")).expect("an address makes a URI")
}

/// An item's error as the status with which the same unary call would have ended.
fn from_rpc_status(status: &tonic_types::Status) -> Status {
    use prost::Message as _;
    let details = status.encode_to_vec().into();
    Status::with_details(Code::from(status.code), status.message.clone(), details)
}
