//! Whom the load comes from: connections to a server, and users registered there.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use tokio::task::JoinSet;
use tonic::Request;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint};

use super::filling::Population;
use super::options::Load;
use crate::proto::messaging_service_client::MessagingServiceClient;
use crate::proto::{
    RegisterRequest, SendMessageRequest, SendMessagesRequest, send_message_request,
    send_messages_request,
};
use crate::random::Random;

pub(super) type Client = MessagingServiceClient<Channel>;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Registrations in flight.
const REGISTRATIONS_IN_FLIGHT: usize = 256;

/// So many users the bench can call as; it only sends to the others.
const TOKENS_MAX: usize = 4096;

/// Users registered at a server for one run, with random names that nobody else has: those who send,
/// and those who receive.
pub(super) struct Fleet {
    pub(super) uri: String,
    pub(super) clients: Vec<Client>,
    prefix: String,
    receivers: usize,
    /// The metadata with which senders call, and receivers as far as it is kept.
    sender_tokens: Vec<AsciiMetadataValue>,
    receiver_tokens: Vec<AsciiMetadataValue>,
}

/// One who sends: to receivers chosen at random, each message with a request id of its own.
pub(super) struct Author {
    fleet: Arc<Fleet>,
    token: AsciiMetadataValue,
    random: Random,
    body: Bytes,
}

impl Fleet {
    /// Connects to a server and registers the users of a load: its receivers, and one sender for
    /// each worker.
    pub(super) async fn raise(uri: &str, load: &Load) -> anyhow::Result<Arc<Self>> {
        let mut fleet = Self::connected(uri, load, prefix()?, load.users).await?;
        fleet.receiver_tokens = fleet.register(&fleet.prefix, load.users).await?;
        Ok(Arc::new(fleet))
    }

    /// The same with receivers who are registered already.
    pub(super) async fn raise_for(
        uri: &str,
        load: &Load,
        receivers: &Population,
    ) -> anyhow::Result<Arc<Self>> {
        let mut fleet =
            Self::connected(uri, load, receivers.prefix.clone(), receivers.count).await?;
        let tokens = receivers.tokens.iter();
        fleet.receiver_tokens =
            tokens.map(|token| bearer(&token.reveal())).collect::<Result<_, _>>()?;
        Ok(Arc::new(fleet))
    }

    /// Connects, and registers the senders.
    async fn connected(
        uri: &str,
        load: &Load,
        prefix_of_receivers: String,
        receivers: usize,
    ) -> anyhow::Result<Self> {
        let mut clients = Vec::with_capacity(load.connections);
        for _ in 0..load.connections {
            clients.push(connect(uri).await?);
        }
        let mut fleet = Self {
            uri: uri.to_owned(),
            clients,
            prefix: prefix_of_receivers,
            receivers,
            sender_tokens: Vec::new(),
            receiver_tokens: Vec::new(),
        };
        let senders = load.workers().min(TOKENS_MAX);
        fleet.sender_tokens = fleet.register(&format!("{}s", prefix()?), senders).await?;
        Ok(fleet)
    }

    async fn register(
        &self,
        prefix: &str,
        count: usize,
    ) -> anyhow::Result<Vec<AsciiMetadataValue>> {
        let mut workers = JoinSet::new();
        for worker in 0..REGISTRATIONS_IN_FLIGHT.min(count) {
            let (mut client, prefix) = (self.client(worker).clone(), prefix.to_owned());
            workers.spawn(async move {
                let mut tokens = Vec::new();
                for user in (worker..count).step_by(REGISTRATIONS_IN_FLIGHT) {
                    let username = name(&prefix, user);
                    let request = RegisterRequest { username, ..Default::default() };
                    let token = client.register(request).await?.into_inner().token;
                    if user < TOKENS_MAX {
                        tokens.push((user, bearer(&token)?));
                    }
                }
                anyhow::Ok(tokens)
            });
        }
        let mut tokens = Vec::new();
        while let Some(registered) = workers.join_next().await {
            tokens.extend(registered?.context("cannot register the users")?);
        }
        tokens.sort_by_key(|(user, _)| *user);
        Ok(tokens.into_iter().map(|(_, token)| token).collect())
    }

    /// The connection of the n-th worker.
    pub(super) fn client(&self, worker: usize) -> &Client {
        &self.clients[worker % self.clients.len()]
    }

    /// A request as the n-th sender's.
    pub(super) fn as_sender<T>(&self, sender: usize, message: T) -> Request<T> {
        signed(&self.sender_tokens[sender % self.sender_tokens.len()], message)
    }

    /// A request as the n-th receiver's.
    pub(super) fn as_receiver<T>(&self, receiver: usize, message: T) -> Request<T> {
        signed(&self.receiver_tokens[receiver % self.receiver_tokens.len()], message)
    }

    /// The n-th receiver's name.
    pub(super) fn name(&self, receiver: usize) -> String {
        name(&self.prefix, receiver)
    }

    /// How many receivers the bench can call as.
    pub(super) fn callable_receivers(&self) -> usize {
        self.receiver_tokens.len()
    }

    /// The n-th sender, with bodies of this size.
    pub(super) fn author(
        self: &Arc<Self>,
        sender: usize,
        body_bytes: usize,
    ) -> anyhow::Result<Author> {
        let mut random = Random::seeded()?;
        let body = (0..body_bytes).map(|_| random.next().to_le_bytes()[0]).collect();
        let token = self.sender_tokens[sender % self.sender_tokens.len()].clone();
        Ok(Author { fleet: Arc::clone(self), token, random, body })
    }
}

impl Author {
    /// The next message, for anybody, with this body.
    pub(super) fn message(&mut self, body: Bytes) -> Request<SendMessageRequest> {
        let message = SendMessageRequest {
            to_user: self.receiver(),
            body: Some(send_message_request::Body::Data(body)),
            content_type: String::new(),
            request_id: self.random.request_id(),
            expiry: None,
        };
        signed(&self.token, message)
    }

    /// The same for the stream, whose caller says once who they are.
    pub(super) fn streamed(&mut self, body: Bytes) -> SendMessagesRequest {
        SendMessagesRequest {
            to_user: self.receiver(),
            body: Some(send_messages_request::Body::Data(body)),
            content_type: String::new(),
            request_id: self.random.request_id(),
            expiry: None,
        }
    }

    /// A body of the load's size: random bytes, the same each time.
    pub(super) fn body(&self) -> Bytes {
        self.body.clone()
    }

    fn receiver(&mut self) -> String {
        self.fleet.name(self.random.below(self.fleet.receivers))
    }
}

/// Opens a connection.
pub(super) async fn connect(uri: &str) -> anyhow::Result<Client> {
    let endpoint = Endpoint::from_shared(uri.to_owned())
        .with_context(|| format!("{uri:?} is not the address of a server"))?
        .connect_timeout(CONNECT_TIMEOUT);
    let channel = endpoint
        .connect()
        .await
        .map_err(|error| anyhow!(error).context(format!("cannot connect to {uri}")))?;
    Ok(MessagingServiceClient::new(channel))
}

/// What the names of one run begin with, and no other name.
pub(super) fn prefix() -> anyhow::Result<String> {
    Ok(format!("bench-{:016x}-", getrandom::u64()?))
}

/// The metadata with which the owner of a token calls.
fn bearer(token: &str) -> anyhow::Result<AsciiMetadataValue> {
    format!("Bearer {token}").parse().context("a token is printable")
}

/// The n-th of those whose names begin so.
pub(super) fn name(prefix: &str, user: usize) -> String {
    let mut name = String::with_capacity(prefix.len() + 8);
    name.push_str(prefix);
    name.push_str(&user.to_string());
    name
}

fn signed<T>(token: &AsciiMetadataValue, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", token.clone());
    request
}
