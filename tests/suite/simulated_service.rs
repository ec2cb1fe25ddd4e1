//! What answers on the server host of a simulated network: the real store behind the real gRPC layer,
//! or the reference model behind the contract, which has no threads and so does the same every time.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::Ipv4Addr;
use std::pin::{Pin, pin};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_stream::try_stream;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use peerpost::auth::Authenticator;
use peerpost::domain::{self, PeerAddress, Username};
use peerpost::grpc::{Edge, Messaging};
use peerpost::hub::Hub;
use peerpost::messenger::Messenger;
use peerpost::proto::messaging_service_server::{MessagingService, MessagingServiceServer};
use peerpost::proto::{self, get_messages_request, message, send_message_request};
use peerpost::proto::{subscribe_request, subscribe_response};
use peerpost::store::{self, CommitListener, StoreGuard};
use tempfile::TempDir;
use tokio::sync::broadcast;
use tokio::time::timeout;
use tokio_stream::Stream;
use tonic::service::Routes;
use tonic::{Status, Streaming};
use tower::ServiceExt as _;

use crate::model_reference::{
    Body, Given, Model, NAMES, Number, Outgoing, PageOf, Person, REGISTERED_AT_THE_START, Start,
};

/// Where the service listens.
pub(crate) const PORT: u16 = 50051;

const BODY_BYTES_MAX: usize = 1024;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// What the server host runs. It outlives the host's crashes, as a disk does.
pub(crate) trait SimulatedService: 'static {
    /// The token of one who is registered at the start.
    fn token(&self, person: Person) -> String;

    /// The host starts.
    fn open(&self) -> Routes;

    /// The host has crashed.
    fn crashed(&self);
}

/// Serves every connection to this host, until the host crashes. They are one task, since the tasks of
/// a runtime end in no certain order, and with it the packets of a crash would be sent in none.
pub(crate) async fn serve(routes: Routes) -> turmoil::Result {
    let listener = turmoil::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
    let mut connections: Vec<Pin<Box<dyn Future<Output = ()>>>> = Vec::new();
    loop {
        let mut accepting = pin!(listener.accept());
        let accepted = poll_fn(|context| {
            connections.retain_mut(|it| it.as_mut().poll(context).is_pending());
            accepting.as_mut().poll(context)
        });
        let (stream, _) = accepted.await?;
        let routes = routes.clone();
        let service = service_fn(move |request| answer(routes.clone(), request));
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE_INTERVAL)
            .serve_connection(TokioIo::new(stream), service);
        // One that breaks is what this is about.
        connections.push(Box::pin(async move { drop(connection.await) }));
    }
}

/// Answers a call within one moment of simulated time, however long its threads take for it.
async fn answer(
    routes: Routes,
    request: Request<Incoming>,
) -> Result<Response<tonic::body::Body>, hyper::Error> {
    let (head, body) = request.into_parts();
    // First, since for the rest of a request simulated time must go on.
    let body = Full::new(body.collect().await?.to_bytes());
    let _standstill = Standstill::begin();
    let request = Request::from_parts(head, tonic::body::Body::new(body));
    Ok(routes.oneshot(request).await.unwrap_or_else(|never: Infallible| match never {}))
}

/// Simulated time stands still while this is held: a paused clock does not move on by itself as long
/// as a blocking task runs.
struct Standstill(#[expect(dead_code, reason = "dropping it ends the task")] mpsc::SyncSender<()>);

impl Standstill {
    fn begin() -> Self {
        let (held, until_dropped) = mpsc::sync_channel(0);
        tokio::task::spawn_blocking(move || until_dropped.recv());
        Self(held)
    }
}

/// The server's parts on a data folder.
pub(crate) struct RealService {
    folder: TempDir,
    tokens: Vec<String>,
    open: Mutex<Option<StoreGuard>>,
}

struct Announcer(Hub);

impl CommitListener for Announcer {
    fn committed(&self, messages: &[Arc<domain::Message>]) {
        self.0.publish(messages);
    }

    fn reset(&self) {
        self.0.reread();
    }
}

impl RealService {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut this = Self { folder, tokens: Vec::new(), open: Mutex::new(None) };
        let (store, _) = this.open_store();
        let authenticator = Authenticator::alone(store);
        for person in REGISTERED_AT_THE_START {
            let name = Username::parse(NAMES[person]).expect("a name");
            let address = PeerAddress::parse("192.0.2.1").expect("an address");
            let registering = authenticator.register(name, address, None, None);
            let registration = outside_of_the_simulation(registering).expect("the name is free");
            this.tokens.push(registration.token.expect("a new name").reveal());
        }
        drop(authenticator);
        this.crashed();
        this
    }

    fn open_store(&self) -> (store::Store, Hub) {
        let hub = Hub::default();
        let options = store::Options::new(self.folder.path());
        let opened = store::open(&options, Box::new(Announcer(hub.clone())));
        let (store, guard) = opened.expect("the store opens");
        let before = lock(&self.open).replace(guard);
        assert!(before.is_none(), "it was open");
        (store, hub)
    }
}

impl SimulatedService for RealService {
    fn token(&self, person: Person) -> String {
        self.tokens[person].clone()
    }

    fn open(&self) -> Routes {
        let (store, hub) = self.open_store();
        let authenticator = Authenticator::alone(store.clone());
        let messenger = Messenger::new(store, hub);
        let messaging = Messaging::new(authenticator.clone(), messenger, BODY_BYTES_MAX);
        Routes::new(Edge::new(messaging, authenticator, BODY_BYTES_MAX))
    }

    /// Between two moments nothing is half done, so that to end the store's threads is all that a crash
    /// of its process would do. What a crash leaves on the disk is for other tests.
    fn crashed(&self) {
        if let Some(guard) = lock(&self.open).take() {
            outside_of_the_simulation(guard.close());
        }
    }
}

impl Drop for RealService {
    fn drop(&mut self) {
        self.crashed();
    }
}

fn outside_of_the_simulation<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("an event loop").block_on(work)
}

/// The reference model behind the contract, as much of it as the client of the simulation calls.
#[derive(Clone)]
pub(crate) struct ModelService {
    state: Arc<Mutex<State>>,
    /// Wakes in the order of waiting, which `watch` does not.
    changes: broadcast::Sender<()>,
}

struct State {
    model: Model,
    stored: usize,
    repeated: usize,
}

const EPOCH: &str = "simulated";

impl ModelService {
    pub(crate) fn new() -> Self {
        let state = State { model: Model::at_the_start(), stored: 0, repeated: 0 };
        Self { state: Arc::new(Mutex::new(state)), changes: broadcast::channel(1).0 }
    }

    /// How many sends were of messages that were stored already.
    pub(crate) fn repeated(&self) -> usize {
        lock(&self.state).repeated
    }

    fn message(&self, owner: Person, number: Number) -> proto::Message {
        let given = Given { id: format!("message-{number}"), send_time_us: 0 };
        let sight = lock(&self.state).model.sight(owner, number, given);
        proto::Message {
            message_id: sight.given.id,
            sequence: sight.sequence,
            from_user: sight.from,
            to_user: sight.to,
            send_time: Some(prost_types::Timestamp::default()),
            body: Some(match sight.body {
                Body::Text(text) => message::Body::Text(text),
                Body::Data(data) => message::Body::Data(data.into()),
            }),
            content_type: sight.content_type,
            request_id: sight.request_id,
            expire_time: None,
            expired: false,
        }
    }

    fn messages(&self, owner: Person, numbers: &[Number]) -> Vec<proto::Message> {
        numbers.iter().map(|number| self.message(owner, *number)).collect()
    }
}

impl SimulatedService for ModelService {
    fn token(&self, person: Person) -> String {
        NAMES[person].to_owned()
    }

    fn open(&self) -> Routes {
        Routes::new(MessagingServiceServer::new(self.clone()))
    }

    fn crashed(&self) {}
}

/// The caller: their token is their name.
fn caller<T>(request: &tonic::Request<T>) -> Person {
    let authorization = request.metadata().get("authorization").expect("a token");
    let text = authorization.to_str().expect("ASCII");
    NAMES.iter().position(|name| text == format!("Bearer {name}")).expect("a name")
}

type Answer<T> = Result<tonic::Response<T>, Status>;
type Events = Pin<Box<dyn Stream<Item = Result<proto::SubscribeResponse, Status>> + Send>>;

#[tonic::async_trait]
impl MessagingService for ModelService {
    async fn send_message(
        &self,
        request: tonic::Request<proto::SendMessageRequest>,
    ) -> Answer<proto::SendMessageResponse> {
        let from = caller(&request);
        let request = request.into_inner();
        let outgoing = Outgoing {
            from,
            to: NAMES.iter().position(|name| *name == request.to_user).expect("a name"),
            body: match request.body.expect("a body") {
                send_message_request::Body::Text(text) => Body::Text(text),
                send_message_request::Body::Data(data) => Body::Data(data.into()),
            },
            content_type: "",
            request_id: request.request_id.strip_prefix("id-").and_then(|it| it.parse().ok()),
        };
        let number = {
            let mut state = lock(&self.state);
            let number = state.model.send(&outgoing).expect("a good message");
            if number == state.stored {
                state.stored += 1;
            } else {
                state.repeated += 1;
            }
            // Nobody may be following.
            let _ = self.changes.send(());
            number
        };
        let message = Some(self.message(from, number));
        Ok(tonic::Response::new(proto::SendMessageResponse { message }))
    }

    async fn get_messages(
        &self,
        request: tonic::Request<proto::GetMessagesRequest>,
    ) -> Answer<proto::GetMessagesResponse> {
        let owner = caller(&request);
        let Some(get_messages_request::Cursor::AfterSequence(after)) = request.get_ref().cursor
        else {
            return Err(Status::unimplemented("only forwards"));
        };
        let start = Start::After(after);
        let page = PageOf { start, peer: None, received_only: false, page_size: 100 };
        let page = lock(&self.state).model.page(owner, page, usize::MAX).expect("a good cursor");
        Ok(tonic::Response::new(proto::GetMessagesResponse {
            messages: self.messages(owner, &page.messages),
            has_more: page.has_more,
            epoch: EPOCH.to_owned(),
            first_sequence: page.first,
            last_sequence: page.last,
        }))
    }

    type SubscribeStream = Events;

    async fn subscribe(&self, request: tonic::Request<proto::SubscribeRequest>) -> Answer<Events> {
        use subscribe_response::Event;
        let owner = caller(&request);
        let request = request.into_inner();
        let Some(subscribe_request::Start::AfterSequence(after)) = request.start else {
            return Err(Status::unimplemented("only after a sequence"));
        };
        let interval = request.heartbeat_interval.map(Duration::try_from);
        let interval = interval.and_then(Result::ok).expect("an interval");
        let (this, mut changes) = (self.clone(), self.changes.subscribe());
        Ok(tonic::Response::new(Box::pin(try_stream! {
            let event = |event| proto::SubscribeResponse { event: Some(event) };
            let follow = |after| {
                let following = lock(&this.state).model.follow(owner, Some(after), false);
                following.expect("a good cursor")
            };
            let mut followed = follow(after);
            yield event(Event::Started(proto::SubscriptionStarted {
                epoch: EPOCH.to_owned(),
                after_sequence: after,
                first_sequence: 1,
                last_sequence: followed.last,
                acknowledged_through: 0,
            }));
            let mut has_caught_up = false;
            loop {
                for message in this.messages(owner, &followed.messages) {
                    yield event(Event::Message(message));
                }
                let through_sequence = followed.last;
                if !has_caught_up {
                    has_caught_up = true;
                    yield event(Event::CaughtUp(proto::CaughtUp { through_sequence }));
                }
                if timeout(interval, changes.recv()).await.is_err() {
                    yield event(Event::Heartbeat(proto::Heartbeat { through_sequence }));
                }
                followed = follow(through_sequence);
            }
        })))
    }

    type SendMessagesStream = tokio_stream::Empty<Result<proto::SendMessagesResponse, Status>>;

    async fn send_messages(
        &self,
        _: tonic::Request<Streaming<proto::SendMessagesRequest>>,
    ) -> Answer<Self::SendMessagesStream> {
        Err(not_called())
    }

    async fn register(
        &self,
        _: tonic::Request<proto::RegisterRequest>,
    ) -> Answer<proto::RegisterResponse> {
        Err(not_called())
    }

    async fn acknowledge(
        &self,
        _: tonic::Request<proto::AcknowledgeRequest>,
    ) -> Answer<proto::AcknowledgeResponse> {
        Err(not_called())
    }

    async fn get_user(
        &self,
        _: tonic::Request<proto::GetUserRequest>,
    ) -> Answer<proto::GetUserResponse> {
        Err(not_called())
    }

    async fn list_users(
        &self,
        _: tonic::Request<proto::ListUsersRequest>,
    ) -> Answer<proto::ListUsersResponse> {
        Err(not_called())
    }

    async fn create_token(
        &self,
        _: tonic::Request<proto::CreateTokenRequest>,
    ) -> Answer<proto::CreateTokenResponse> {
        Err(not_called())
    }

    async fn list_tokens(
        &self,
        _: tonic::Request<proto::ListTokensRequest>,
    ) -> Answer<proto::ListTokensResponse> {
        Err(not_called())
    }

    async fn revoke_token(
        &self,
        _: tonic::Request<proto::RevokeTokenRequest>,
    ) -> Answer<proto::RevokeTokenResponse> {
        Err(not_called())
    }

    async fn delete_user(
        &self,
        _: tonic::Request<proto::DeleteUserRequest>,
    ) -> Answer<proto::DeleteUserResponse> {
        Err(not_called())
    }
}

fn not_called() -> Status {
    Status::unimplemented("the simulation's clients do not call it")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
