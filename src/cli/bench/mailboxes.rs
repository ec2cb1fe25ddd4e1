//! Subscribers: one who reads a stored mailbox from its beginning, and many for whom nothing comes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tonic::Streaming;

use super::child::ServerProcess;
use super::fleet::{self, Client, Fleet};
use super::meter::{Figures, float};
use super::options::{Extent, Load};
use super::progress;
use super::sends::{self, SUBSCRIPTIONS_PER_CONNECTION};
use crate::domain::limits::{STREAM_SENDS_IN_WORK_MAX, SUBSCRIPTIONS_PER_USER_DEFAULT};
use crate::proto::subscribe_response::Event;
use crate::proto::{SubscribeRequest, SubscribeResponse, subscribe_request};

/// Subscriptions that are being opened at the same time.
const OPENING_MAX: usize = 64;

/// How long a server may take to settle before its memory is read.
const SETTLE: Duration = Duration::from_secs(1);

/// What idle subscribers take of a server's memory.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct IdleMemory {
    pub(super) before_bytes: u64,
    pub(super) after_bytes: u64,
    pub(super) bytes_each: f64,
}

/// The load that fills one mailbox.
pub(super) fn filling(load: &Load, messages: u64) -> Load {
    Load {
        connections: 1,
        in_flight: STREAM_SENDS_IN_WORK_MAX,
        users: 1,
        extent: Extent::Count(messages),
        rate: None,
        warm_up: Duration::ZERO,
        pipelined: true,
        ..load.clone()
    }
}

/// Fills the only receiver's mailbox.
pub(super) async fn fill(fleet: &Arc<Fleet>, load: &Load) -> anyhow::Result<()> {
    let figures = sends::send("storing", fleet, load).await?;
    match figures.first_failure {
        Some(failure) => bail!("cannot store the messages: {failure}"),
        None => Ok(()),
    }
}

/// Reads the only receiver's mailbox from its beginning, again and again, each time on a connection
/// of its own.
pub(super) async fn replay(fleet: &Fleet, messages: u64, times: u32) -> anyhow::Result<Figures> {
    let label = format!("catch-up of {messages}");
    let replays = async {
        let mut durations = Vec::new();
        for _ in 0..times {
            let mut client = fleet::connect(&fleet.uri).await?;
            let begin = Instant::now();
            let read = read_through(&mut client, fleet).await?;
            durations.push(begin.elapsed());
            ensure!(read == messages, "{read} of {messages} stored messages came");
        }
        Ok(Figures::of_durations(&durations, messages))
    };
    progress::waited(&label, replays).await
}

/// How many messages the only receiver's mailbox holds.
pub(super) async fn count(fleet: &Fleet) -> anyhow::Result<u64> {
    let mut client = fleet::connect(&fleet.uri).await?;
    read_through(&mut client, fleet).await
}

/// Subscribes from the beginning; how many messages came until the turn to live delivery.
async fn read_through(client: &mut Client, fleet: &Fleet) -> anyhow::Result<u64> {
    let start = Some(subscribe_request::Start::AfterSequence(0));
    let request = SubscribeRequest { start, ..Default::default() };
    let response = client.subscribe(fleet.as_receiver(0, request)).await;
    let mut subscription = response.context("cannot subscribe")?.into_inner();
    let mut messages = 0;
    loop {
        match subscription.message().await?.and_then(|response| response.event) {
            Some(Event::Message(_)) => messages += 1,
            Some(Event::CaughtUp(_)) => return Ok(messages),
            Some(_) => {}
            None => bail!("the subscription ended after {messages} messages"),
        }
    }
}

/// Opens subscriptions for which nothing comes. How long each took to be live, and what they take
/// of the server's memory, where it is a process of ours.
pub(super) async fn idle(
    fleet: &Arc<Fleet>,
    load: &Load,
    subscribers: u64,
    server: Option<&ServerProcess>,
) -> anyhow::Result<(Figures, Option<IdleMemory>)> {
    let subscribers = usize::try_from(subscribers)?;
    let places = fleet.callable_receivers() * SUBSCRIPTIONS_PER_USER_DEFAULT;
    ensure!(
        subscribers <= places,
        "{} users can have {places} subscriptions; more need more --users",
        fleet.callable_receivers()
    );
    sleep(SETTLE).await;
    let resident = || server.and_then(ServerProcess::resident_bytes);
    let before = resident();
    let begin = Instant::now();
    let label = format!("{subscribers} idle subscribers");
    let opened = progress::waited(&label, open_all(fleet, subscribers, load)).await?;
    let elapsed = begin.elapsed();
    sleep(SETTLE).await;
    let memory = before.zip(resident()).map(|(before_bytes, after_bytes)| IdleMemory {
        before_bytes,
        after_bytes,
        bytes_each: float(after_bytes.saturating_sub(before_bytes)) / float(opened.len() as u64),
    });
    let durations: Vec<Duration> = opened.iter().map(|idle| idle.opened_in).collect();
    let figures = Figures::of_durations(&durations, 1).within(elapsed);
    Ok((figures, memory))
}

struct Idle {
    opened_in: Duration,
    /// Open for as long as they are held.
    _subscription: Streaming<SubscribeResponse>,
    _client: Client,
}

async fn open_all(fleet: &Arc<Fleet>, count: usize, load: &Load) -> anyhow::Result<Vec<Idle>> {
    let mut shared = Vec::new();
    if !load.own_connections {
        let connections = count.div_ceil(SUBSCRIPTIONS_PER_CONNECTION).max(load.connections);
        for _ in 0..connections {
            shared.push(fleet::connect(&fleet.uri).await?);
        }
    }
    let mut workers = JoinSet::new();
    for worker in 0..OPENING_MAX.min(count) {
        let (fleet, shared) = (Arc::clone(fleet), shared.clone());
        workers.spawn(async move {
            let mut opened = Vec::new();
            for subscriber in (worker..count).step_by(OPENING_MAX) {
                let begin = Instant::now();
                let mut client = match shared.len() {
                    0 => fleet::connect(&fleet.uri).await?,
                    connections => shared[subscriber % connections].clone(),
                };
                let subscription = sends::subscribe(&mut client, &fleet, subscriber).await?;
                let opened_in = begin.elapsed();
                opened.push(Idle { opened_in, _subscription: subscription, _client: client });
            }
            anyhow::Ok(opened)
        });
    }
    let mut opened = Vec::with_capacity(count);
    while let Some(worker) = workers.join_next().await {
        opened.extend(worker??);
    }
    Ok(opened)
}
