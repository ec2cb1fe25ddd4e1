use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;

use async_stream::try_stream;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_stream::Stream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use super::endpoint::{new_endpoint, parse_server};
use super::retry::{Repeat, with_retries};
use super::{
    Body, Error, Follow, FollowOptions, Message, MessageStream, Options, OutgoingMessage, Page,
    PageRequest, SendAll, Start, Token, User, UserPage, UserStream,
};
use crate::proto;
use crate::proto::messaging_service_client::MessagingServiceClient;

pub(super) type Grpc = MessagingServiceClient<Channel>;

/// Makes a channel, which opens its connection at the first call and again whenever it breaks.
type NewChannel = Arc<dyn Fn(&Endpoint) -> Channel + Send + Sync>;

/// A handle to a server, with or without a user's token. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    server: String,
    endpoint: Endpoint,
    new_channel: NewChannel,
    grpc: Grpc,
    authorization: Option<MetadataValue<Ascii>>,
    options: Options,
}

impl Client {
    /// A client of the server at `http://host:port`, or `host:port` for short, at `https://host:port`,
    /// or at the Unix socket `unix:/path`, with the default [`Options`]. The connection is opened by
    /// the first call.
    ///
    /// # Errors
    /// [`Error::InvalidServer`] for a text that names no server.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn connect(server: &str) -> Result<Self, Error> {
        Self::connect_with(server, Options::default())
    }

    /// As [`Client::connect`], with other [`Options`].
    ///
    /// # Errors
    /// [`Error::InvalidServer`] for a text that names no server.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn connect_with(server: &str, options: Options) -> Result<Self, Error> {
        Self::new(server, options, Arc::new(Endpoint::connect_lazy))
    }

    /// As [`Client::connect_with`], over connections that `connect` opens, such as a Unix socket, a
    /// tunnel, or a network that a test simulates. It is given the server's URI whenever a connection
    /// is needed: one for all calls, and one for each that follows. [`Options::connect_timeout`] bounds
    /// it; its errors are [`Error::Connect`].
    ///
    /// # Errors
    /// [`Error::InvalidServer`] for a text that names no server.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn connect_through<C, F, Io>(
        server: &str,
        options: Options,
        connect: C,
    ) -> Result<Self, Error>
    where
        C: Fn(Uri) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = io::Result<Io>> + Send + 'static,
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let new_channel = move |endpoint: &Endpoint| {
            let connect = connect.clone();
            endpoint.connect_with_connector_lazy(tower::service_fn(move |uri| {
                let connecting = connect(uri);
                async move { connecting.await.map(TokioIo::new) }
            }))
        };
        Self::new(server, options, Arc::new(new_channel))
    }

    fn new(server: &str, options: Options, new_channel: NewChannel) -> Result<Self, Error> {
        let server = parse_server(server)?;
        let endpoint = new_endpoint(&server, &options)?;
        let grpc = Grpc::new(new_channel(&endpoint));
        Ok(Self { server, endpoint, new_channel, grpc, authorization: None, options })
    }

    /// This client as the user whose token it is.
    #[must_use]
    pub fn with_token(&self, token: &Token) -> Self {
        Self { authorization: Some(token.to_authorization()), ..self.clone() }
    }

    /// The server's URI.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Registers `username`, reachable at `ip_address`: an IPv4 or IPv6 address with or without a
    /// port; empty for the address that the server sees.
    ///
    /// For a new name the answer holds its token, the only time that it is shown. With the name's
    /// own token this updates the address, and there is no token in the answer.
    ///
    /// Without a token it is retried only while no connection can be opened: a first attempt whose
    /// answer was lost has taken the name, and the token is lost with the answer.
    ///
    /// # Errors
    /// [`Error::Refused`] with `USERNAME_TAKEN` for a name that is somebody else's; the others of
    /// any call.
    pub async fn register(
        &self,
        username: &str,
        ip_address: &str,
    ) -> Result<(User, Option<Token>), Error> {
        self.register_invited(username, ip_address, "").await
    }

    /// [`register`](Self::register) with an invite, where a new name needs one; empty for none.
    ///
    /// # Errors
    /// [`Error::Refused`] with `INVITE_INVALID` or `REGISTRATION_CLOSED`; those of `register`.
    pub async fn register_invited(
        &self,
        username: &str,
        ip_address: &str,
        invite: &str,
    ) -> Result<(User, Option<Token>), Error> {
        let repeat = match self.authorization {
            Some(_) => Repeat::WhenRetriable,
            None => Repeat::WhenNotSent,
        };
        let request = proto::RegisterRequest {
            username: username.to_owned(),
            ip_address: ip_address.to_owned(),
            invite: invite.to_owned(),
        };
        let response = self
            .call(repeat, request, |mut grpc, request| async move { grpc.register(request).await })
            .await?;
        let user = response.user.ok_or(Error::Malformed("a registration without its user"))?;
        let token = match response.token.as_str() {
            "" => None,
            text => Some(Token::parse(text).map_err(|_| Error::Malformed("a token that is none"))?),
        };
        Ok((user.try_into()?, token))
    }

    /// Sends `body` to `to_user`; once, however often it is tried. When it returns `Ok`, the message
    /// is on the server's disk.
    ///
    /// # Errors
    /// [`Error::Refused`] with `USER_NOT_FOUND` or `BODY_TOO_LARGE`; the others of any call. After
    /// an error that is retriable it is unknown whether the message was stored: those who want to
    /// try again later make an [`OutgoingMessage`] and use [`Client::send_message`].
    pub async fn send(&self, to_user: &str, body: impl Into<Body>) -> Result<Message, Error> {
        self.send_message(OutgoingMessage::new(to_user, body)).await
    }

    /// As [`Client::send`], for a message that was prepared: with a content type or a `request_id`
    /// of one's own, or one that is sent again.
    ///
    /// # Errors
    /// As [`Client::send`], and `REQUEST_ID_REUSED` when the `request_id` was used for another
    /// message.
    pub async fn send_message(&self, message: OutgoingMessage) -> Result<Message, Error> {
        // An empty request_id is none: without it a second attempt would be a second message.
        let repeat = match message.request_id() {
            "" => Repeat::WhenNotSent,
            _ => Repeat::WhenRetriable,
        };
        let request = proto::SendMessageRequest::from(message);
        let response =
            self.call(repeat, request, |mut grpc, request| async move {
                grpc.send_message(request).await
            })
            .await?;
        response.message.ok_or(Error::Malformed("a send without its message"))?.try_into()
    }

    /// Sends many messages on one connection without waiting for each answer: what became of each, in
    /// the order of `messages`. It takes from `messages` as answers come, so that at most
    /// [`Options::sends_in_flight_max`] of them are under way.
    ///
    /// The outer error ends the stream: the server was not reached for [`Options::retry_deadline`], or
    /// refuses the caller. [`SendAll::into_unanswered`] then gives back what was taken and not answered,
    /// to be sent again. The inner one is about one message, and the stream goes on.
    ///
    /// A message is stored once, over broken connections and restarts of the server, since those without
    /// an answer are sent again with their `request_id`s; one that has none gets one. They are stored in
    /// order, except around one that the server refused for now (a full queue, a rate, a failing disk): it is
    /// sent again, and some of those after it may be stored by then. With one in flight at a time there
    /// are none.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = peerpost::testing::TestServer::start().await;
    /// # let (alice, _bob) = (server.client("alice").await, server.client("bob").await);
    /// use peerpost::client::OutgoingMessage;
    /// use tokio_stream::StreamExt as _;
    ///
    /// let messages = ["bob", "nobody", "bob"].map(|name| OutgoingMessage::new(name, "hi"));
    /// let mut sending = alice.send_all(tokio_stream::iter(messages));
    /// let mut stored = Vec::new();
    /// while let Some(outcome) = sending.next().await {
    ///     match outcome? {
    ///         Ok(message) => stored.push(message.sequence),
    ///         Err(refusal) => println!("not stored: {refusal}"), // there is no user nobody
    ///     }
    /// }
    /// assert_eq!(stored, [1, 2]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    /// The stream, when it is polled outside of a Tokio runtime.
    pub fn send_all(
        &self,
        messages: impl Stream<Item = OutgoingMessage> + Send + 'static,
    ) -> SendAll {
        SendAll::new(self.clone(), Box::pin(messages))
    }

    /// Reads a page of the caller's mailbox.
    ///
    /// # Errors
    /// [`Error::Refused`] with `USER_NOT_FOUND` for the peer, `SEQUENCE_OUT_OF_RANGE`,
    /// `EPOCH_MISMATCH` or `STORED_DATA_DAMAGED`; the others of any call.
    pub async fn messages(&self, page: PageRequest) -> Result<Page, Error> {
        self.call(Repeat::WhenRetriable, page.into(), |mut grpc, request| async move {
            grpc.get_messages(request).await
        })
        .await?
        .try_into()
    }

    /// All messages from where `page` begins, in its direction: from [`PageRequest::after`] in ascending
    /// order to the end of the mailbox, from [`PageRequest::before`] and [`PageRequest::newest`] in
    /// descending order to its beginning. Reads a page at a time, as the stream is polled, all of them
    /// in one epoch.
    ///
    /// What arrives meanwhile comes too, if it is in that direction. To go on with what arrives later,
    /// [`follow`](Self::follow) after the last sequence.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use peerpost::client::{Client, PageRequest};
    /// # let server = peerpost::testing::TestServer::start().await;
    /// # let alice = server.client("alice").await;
    /// # for text in ["one", "two", "three"] { alice.send("alice", text).await?; }
    /// use tokio_stream::StreamExt as _;
    ///
    /// let mut newest_first = alice.history(PageRequest::newest().page_size(2));
    /// let mut texts = Vec::new();
    /// while let Some(message) = newest_first.next().await {
    ///     texts.push(message?.body.as_text().unwrap_or("(bytes)").to_owned());
    /// }
    /// assert_eq!(texts, ["three", "two", "one"]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn history(&self, page: PageRequest) -> MessageStream {
        let client = self.clone();
        Box::pin(try_stream! {
            let mut request = Some(page);
            while let Some(next) = request.take() {
                let is_backwards = next.is_backwards();
                let page = client.messages(next.clone()).await?;
                if page.has_more {
                    let after = next.next(&page);
                    request = Some(after.ok_or(Error::Malformed("an empty page before others"))?);
                }
                let mut messages = page.messages;
                if is_backwards {
                    messages.reverse();
                }
                for message in messages {
                    yield message;
                }
            }
        })
    }

    /// Acknowledges everything up to `through_sequence`, and returns what is acknowledged now. It
    /// only moves forward. With an `epoch`, the sequence is checked to be of that one.
    ///
    /// # Errors
    /// [`Error::Refused`] with `SEQUENCE_OUT_OF_RANGE` or `EPOCH_MISMATCH`; the others of any call.
    pub async fn acknowledge(
        &self,
        through_sequence: i64,
        epoch: Option<&str>,
    ) -> Result<i64, Error> {
        let epoch = epoch.unwrap_or_default().to_owned();
        let request = proto::AcknowledgeRequest { through_sequence, epoch };
        let response = self
            .call(Repeat::WhenRetriable, request, |mut grpc, request| async move {
                grpc.acknowledge(request).await
            })
            .await?;
        Ok(response.acknowledged_through)
    }

    /// Looks up one user, by name in any case.
    ///
    /// # Errors
    /// [`Error::Refused`] with `USER_NOT_FOUND`; the others of any call.
    pub async fn user(&self, username: &str) -> Result<User, Error> {
        let request = proto::GetUserRequest { username: username.to_owned() };
        let response = self
            .call(Repeat::WhenRetriable, request, |mut grpc, request| async move {
                grpc.get_user(request).await
            })
            .await?;
        response.user.ok_or(Error::Malformed("a look-up without its user"))?.try_into()
    }

    /// Reads one page of the users whose names begin with `prefix`; the first without a
    /// `page_token`, the next with that of the page before.
    ///
    /// # Errors
    /// [`Error::Refused`] with `INVALID_FIELD` for a token of another prefix; the others of any
    /// call.
    pub async fn user_page(
        &self,
        prefix: &str,
        page_token: Option<String>,
    ) -> Result<UserPage, Error> {
        let request = proto::ListUsersRequest {
            prefix: prefix.to_owned(),
            page_size: 0,
            page_token: page_token.unwrap_or_default(),
        };
        self.call(Repeat::WhenRetriable, request, |mut grpc, request| async move {
            grpc.list_users(request).await
        })
        .await?
        .try_into()
    }

    /// All users whose names begin with `prefix`, without regard to case; an empty one for all. Reads
    /// a page at a time, as the stream is polled.
    pub fn users(&self, prefix: &str) -> UserStream {
        let (client, prefix) = (self.clone(), prefix.to_owned());
        Box::pin(try_stream! {
            let mut page_token = None;
            loop {
                let page = client.user_page(&prefix, page_token).await?;
                for user in page.users {
                    yield user;
                }
                page_token = page.next_page_token;
                if page_token.is_none() {
                    break;
                }
            }
        })
    }

    /// Follows the caller's mailbox: every entry after `start`, through history and into live
    /// delivery, without a gap and without a duplicate, across broken connections and restarts of
    /// the server. Drop the stream to stop; it acknowledges nothing by itself.
    ///
    /// # Panics
    /// The stream, when it is polled outside of a Tokio runtime.
    pub fn follow(&self, start: Start, options: FollowOptions) -> Follow {
        Follow::new(self.clone(), start, options)
    }

    /// A connection of its own to the same server.
    pub(super) fn own_channel(&self) -> Channel {
        (self.new_channel)(&self.endpoint)
    }

    /// A client of the same server and user on a connection of its own.
    pub(super) fn on_own_connection(&self) -> Grpc {
        Grpc::new(self.own_channel())
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    /// A request that says who calls.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        request
    }

    pub(super) fn error(&self, status: &Status) -> Error {
        Error::from_status(status, &self.server, self.options.call_deadline)
    }

    pub(super) async fn call<Req, Res, F>(
        &self,
        repeat: Repeat,
        message: Req,
        method: impl Fn(Grpc, Request<Req>) -> F,
    ) -> Result<Res, Error>
    where
        Req: Clone,
        F: Future<Output = Result<Response<Res>, Status>>,
    {
        let deadline = self.options.call_deadline;
        with_retries(&self.options, repeat, || async {
            let mut request = self.request(message.clone());
            // The server is told, and stops working on what nobody waits for any more; the wait on
            // this side also holds when the server is not there to keep it.
            request.set_timeout(deadline);
            match timeout(deadline, method(self.grpc.clone(), request)).await {
                Ok(Ok(response)) => Ok(response.into_inner()),
                Ok(Err(status)) => Err(self.error(&status)),
                Err(_) => Err(Error::DeadlineExceeded { deadline }),
            }
        })
        .await
    }
}

/// The token is not shown, only whether there is one.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("server", &self.server)
            .field("has_token", &self.authorization.is_some())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_does_not_show_its_token() {
        let token = Token::parse("pp_secret").expect("a token");
        let client = Client::connect("localhost:1").expect("a server").with_token(&token);
        let shown = format!("{client:?} {:?}", client.request(()));
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_told_apart() {
        let options = Options::default().retry_deadline(std::time::Duration::ZERO);
        // Port 1 needs privileges to listen on: nobody is there.
        let client = Client::connect_with("127.0.0.1:1", options).expect("a server");
        let error = client.user("alice").await.expect_err("nobody is there");
        assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    }
}
