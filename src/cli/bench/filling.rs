//! Stores that are filled in this process, without a server and without gRPC.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use bytes::Bytes;
use tokio::task::JoinSet;

use super::fleet;
use super::meter::Figures;
use super::options::Extent;
use crate::domain::limits::BODY_BYTES_CEILING;
use crate::domain::{
    Body, Content, ContentType, Message, PeerAddress, RequestId, Token, User, Username,
};
use crate::random::Random;
use crate::store::{self, CommitListener, Draft, PendingMessage, Store, StoreGuard};

/// Messages handed to the store and not yet on disk: more than a group, so that groups are full.
const ROWS_IN_FLIGHT: usize = 2048;

/// Registrations in flight: full groups again.
const REGISTRATIONS_IN_FLIGHT: usize = 1024;

/// So many of the receivers the bench can call as.
const TOKENS_KEPT_MAX: usize = 256;

/// Nobody is told.
struct Unannounced;

impl CommitListener for Unannounced {
    fn committed(&self, _messages: &[Arc<Message>]) {}

    fn reset(&self) {}
}

/// Users who are registered in a store.
pub(super) struct Population {
    pub(super) prefix: String,
    pub(super) count: usize,
    /// Of the first of them.
    pub(super) tokens: Vec<Token>,
}

/// A store that is open here, with users who send and users who receive.
pub(super) struct Filling {
    store: Store,
    guard: StoreGuard,
    senders: Vec<User>,
    receivers: Vec<User>,
    population: Population,
    body: Body,
    random: Random,
}

impl Filling {
    /// Opens the store in this folder, and registers so many who send bodies of this size, and so many
    /// who receive them.
    pub(super) async fn open(
        folder: &Path,
        (senders, receivers): (usize, usize),
        body_bytes: usize,
    ) -> anyhow::Result<Self> {
        let options = store::Options::new(folder);
        let opening = move || store::open(&options, Box::new(Unannounced));
        let (store, guard) = tokio::task::spawn_blocking(opening).await??;
        let prefix = fleet::prefix()?;
        let (senders, _) = register(&store, &format!("{prefix}s"), senders).await?;
        let (registered, tokens) = register(&store, &prefix, receivers).await?;
        let population = Population { prefix, count: receivers, tokens };
        let body = Body::data(Bytes::from(vec![b'x'; body_bytes]), BODY_BYTES_CEILING)?;
        let random = Random::seeded()?;
        Ok(Self { store, guard, senders, receivers: registered, population, body, random })
    }

    /// Stores messages from anybody to anybody, each with a request id, in full groups.
    pub(super) async fn append(&mut self, extent: Extent) -> anyhow::Result<Figures> {
        let mut in_flight = VecDeque::with_capacity(ROWS_IN_FLIGHT);
        let (begin, mut taken, mut count) = (Instant::now(), 0_u64, 0_u64);
        loop {
            let is_over = match extent {
                Extent::Duration(duration) => begin.elapsed() >= duration,
                Extent::Count(messages) => taken >= messages,
            };
            if !is_over && in_flight.len() < ROWS_IN_FLIGHT {
                in_flight.push_back(self.append_one().await?);
                taken += 1;
            } else if let Some(first) = in_flight.pop_front() {
                first.committed().await?;
                count += 1;
            } else {
                return Ok(Figures::of_count(count, begin.elapsed()));
            }
        }
    }

    async fn append_one(&mut self) -> anyhow::Result<PendingMessage> {
        let content = Content { body: self.body.clone(), content_type: ContentType::default() };
        let draft = Draft {
            sender: self.senders[self.random.below(self.senders.len())].clone(),
            receiver: self.receivers[self.random.below(self.receivers.len())].clone().into(),
            content,
            request_id: RequestId::parse(self.random.request_id())?,
            expiry: None,
        };
        Ok(self.store.append(draft).await?)
    }

    /// Closes the store, for a server to open it. Who is registered in it.
    pub(super) async fn close(self) -> Population {
        self.guard.close().await;
        self.population
    }
}

/// Registers users; also the tokens of the first of them.
async fn register(
    store: &Store,
    prefix: &str,
    count: usize,
) -> anyhow::Result<(Vec<User>, Vec<Token>)> {
    let address = PeerAddress::parse("127.0.0.1")?;
    let mut workers = JoinSet::new();
    for worker in 0..REGISTRATIONS_IN_FLIGHT.min(count) {
        let (store, prefix) = (store.clone(), prefix.to_owned());
        workers.spawn(async move {
            let mut registered = Vec::new();
            for number in (worker..count).step_by(REGISTRATIONS_IN_FLIGHT) {
                let name = Username::parse(&fleet::name(&prefix, number))?;
                let token = Token::mint();
                let user = store.register(name, address, token.hash(), None).await?.profile.user;
                registered.push((number, user, (number < TOKENS_KEPT_MAX).then_some(token)));
            }
            anyhow::Ok(registered)
        });
    }
    let mut registered = Vec::with_capacity(count);
    while let Some(worker) = workers.join_next().await {
        registered.extend(worker?.context("cannot register the users")?);
    }
    registered.sort_unstable_by_key(|(number, ..)| *number);
    let (users, tokens): (Vec<_>, Vec<_>) =
        registered.into_iter().map(|(_, user, token)| (user, token)).unzip();
    Ok((users, tokens.into_iter().flatten().collect()))
}
