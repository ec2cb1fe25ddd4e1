use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;

use async_stream::try_stream;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use super::retry::{Repeat, with_retries};
use super::{
    Body, Error, Follow, FollowOptions, Message, Options, OutgoingMessage, Page, PageRequest,
    Start, Token, User, UserPage, UserStream,
};
use crate::proto;
use crate::proto::messaging_service_client::MessagingServiceClient;

pub(super) type Grpc = MessagingServiceClient<Channel>;

/// Makes a channel, which opens its connection at the first call and again whenever it breaks.
type NewChannel = Arc<dyn Fn(&Endpoint) -> Channel + Send + Sync>;

/// The port of a server that is named without a scheme and without a port.
const DEFAULT_PORT: u16 = 50051;

/// What a stream takes that is not read: a follower that pauses holds the server up beyond it.
///
/// It is small beside the connection's window on purpose. h2 ends a connection ("too many data
/// frames") on which small frames gather unread, each counted as 256 bytes less its size, up to half
/// of the connection's window of 5 MiB. A message delivered live is such a frame; of the smallest
/// ones this window is full long before, and an unread follower just waits.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;

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
        let repeat = match self.authorization {
            Some(_) => Repeat::WhenRetriable,
            None => Repeat::WhenNotSent,
        };
        let request = proto::RegisterRequest {
            username: username.to_owned(),
            ip_address: ip_address.to_owned(),
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

    /// A client of the same server and user on a connection of its own.
    pub(super) fn on_own_connection(&self) -> Grpc {
        Grpc::new((self.new_channel)(&self.endpoint))
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

    async fn call<Req, Res, F>(
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

/// The server's URI: `http[s]://host[:port]`, for a text that may leave out the scheme, or `unix:/path`.
fn parse_server(text: &str) -> Result<String, Error> {
    let invalid = |problem: &str| Error::InvalidServer {
        server: text.to_owned(),
        problem: format!("{problem}; give HOST:PORT, http[s]://HOST:PORT or unix:/PATH"),
    };
    if let Some(path) = text.strip_prefix("unix:") {
        let is_path = path.starts_with('/') && !path.starts_with("//");
        return if is_path {
            Ok(text.to_owned())
        } else {
            Err(invalid("its path is not absolute"))
        };
    }
    let has_scheme = text.contains("://");
    let full = if has_scheme { text.to_owned() } else { format!("http://{text}") };
    let uri = full.parse::<Uri>().map_err(|error| invalid(&error.to_string()))?;
    let scheme = uri.scheme_str().unwrap_or_default();
    if !matches!(scheme, "http" | "https") {
        return Err(invalid("only http and https are spoken here"));
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(invalid("it has a path, which no server has"));
    }
    match uri.authority() {
        Some(authority) if !authority.host().is_empty() && !authority.as_str().contains('@') => {
            let host = authority.host().to_ascii_lowercase();
            let default_port = (!has_scheme).then_some(DEFAULT_PORT);
            Ok(match authority.port_u16().or(default_port) {
                Some(port) => format!("{scheme}://{host}:{port}"),
                None => format!("{scheme}://{host}"),
            })
        }
        _ => Err(invalid("it has no host")),
    }
}

fn new_endpoint(server: &str, options: &Options) -> Result<Endpoint, Error> {
    let invalid = |error: tonic::transport::Error| Error::InvalidServer {
        server: server.to_owned(),
        problem: error.to_string(),
    };
    let mut endpoint = Endpoint::from_shared(server.to_owned()).map_err(invalid)?;
    if server.starts_with("https:") {
        endpoint = endpoint.tls_config(options.tls.config(server, options)?).map_err(invalid)?;
    }
    Ok(endpoint
        .user_agent(concat!("peerpost/", env!("CARGO_PKG_VERSION")))
        .map_err(invalid)?
        .connect_timeout(options.connect_timeout)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .http2_keep_alive_interval(options.keepalive_interval)
        .keep_alive_timeout(options.keepalive_timeout)
        // A followed stream that waits for its next message counts as idle.
        .keep_alive_while_idle(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_with_or_without_scheme_and_port() {
        let named = [
            ("http://127.0.0.1:50051", "http://127.0.0.1:50051"),
            ("http://Example.org/", "http://example.org"),
            ("localhost:7000", "http://localhost:7000"),
            ("example.org", "http://example.org:50051"),
            ("[::1]:50051", "http://[::1]:50051"),
            ("HTTPS://Example.org:7000", "https://example.org:7000"),
            ("unix:/run/Peer Post", "unix:/run/Peer Post"),
        ];
        for (text, uri) in named {
            assert_eq!(parse_server(text).expect(text), uri);
        }
    }

    #[test]
    fn what_names_no_server_is_refused() {
        let refused = [
            "",
            "http://",
            ":50051",
            "https://",
            "ftp://a",
            "a b",
            "a:1/x",
            "http://u@h:1",
            "unix:",
            "unix:a",
            "unix://a/b",
        ];
        for text in refused {
            assert!(matches!(parse_server(text), Err(Error::InvalidServer { .. })), "{text:?}");
        }
    }

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
