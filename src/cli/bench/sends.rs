//! Durable sends: a call each, pipelined on streams, and followed to the subscriber who receives.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use async_stream::stream;
use bytes::{Bytes, BytesMut};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::Streaming;

use super::fleet::{self, Author, Client, Fleet};
use super::meter::{Figures, Meter, Observer};
use super::options::{LIVE_BODY_BYTES_MIN, Load};
use super::progress;
use super::schedule::Schedule;
use crate::proto::send_messages_response::Result as SendResult;
use crate::proto::subscribe_response::Event;
use crate::proto::{SubscribeRequest, SubscribeResponse, message, subscribe_request};

/// Subscriptions that share a connection, below the most that a server allows.
pub(super) const SUBSCRIPTIONS_PER_CONNECTION: usize = 200;

/// How long what was acknowledged may take to be delivered, after the last send.
const DELIVERY_DEADLINE: Duration = Duration::from_secs(30);

const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A pause after a refused call, so that a server that is gone is not called in a busy loop.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(1);

/// What the workers of a run share.
struct Run {
    schedule: Arc<Schedule>,
    /// Counts the sends.
    meter: Meter,
    /// Messages carry the moment of their sending.
    is_stamped: bool,
}

/// Sends until the load's end: a call each, or pipelined.
pub(super) async fn send(label: &str, fleet: &Arc<Fleet>, load: &Load) -> anyhow::Result<Figures> {
    send_observed(label, fleet, load, None).await
}

/// The same; `observer` is told of each send that was acknowledged.
pub(super) async fn send_observed(
    label: &str,
    fleet: &Arc<Fleet>,
    load: &Load,
    observer: Option<Observer>,
) -> anyhow::Result<Figures> {
    let schedule = Arc::new(Schedule::begin(load)?);
    let meter = Meter::observed(Arc::clone(&schedule), observer);
    let run = Arc::new(Run { schedule, meter, is_stamped: false });
    let workers = start_senders(&run, fleet, load)?;
    progress::shown(label, load, &run.meter, finish(workers)).await?;
    Ok(run.meter.figures())
}

/// Sends, and measures what arrives at the subscribers, all of whom follow their mailboxes.
pub(super) async fn live(label: &str, fleet: &Arc<Fleet>, load: &Load) -> anyhow::Result<Figures> {
    ensure!(
        fleet.callable_receivers() >= load.users,
        "live delivery can be measured with at most {} --users",
        fleet.callable_receivers()
    );
    let subscriptions = follow_all(fleet, load.users).await?;
    let schedule = Arc::new(Schedule::begin(load)?);
    let sends = Meter::new(Arc::clone(&schedule));
    let run = Arc::new(Run { schedule: Arc::clone(&schedule), meter: sends, is_stamped: true });
    let arrivals = Arc::new(Arrivals { meter: Meter::new(schedule), count: AtomicU64::new(0) });
    let mut receivers = JoinSet::new();
    for subscription in subscriptions {
        receivers.spawn(receive(subscription, Arc::clone(&run), Arc::clone(&arrivals)));
    }
    let senders = start_senders(&run, fleet, load)?;
    let all = async {
        let acknowledged = finish(senders).await?;
        let delivered = async {
            while arrivals.count.load(Ordering::Relaxed) < acknowledged {
                sleep(POLL_INTERVAL).await;
            }
        };
        timeout(DELIVERY_DEADLINE, delivered).await.map_err(|_| {
            let count = arrivals.count.load(Ordering::Relaxed);
            anyhow!("of {acknowledged} acknowledged messages only {count} were delivered")
        })
    };
    progress::shown(label, load, &arrivals.meter, async {
        tokio::select! {
            sent = all => sent,
            // A subscription has no end of its own.
            Some(ended) = receivers.join_next() => Err(match ended {
                Ok(error) => error.context("a subscription ended"),
                Err(error) => error.into(),
            }),
        }
    })
    .await?;
    Ok(arrivals.meter.figures().after(&run.meter.figures()))
}

/// Starts the workers. Each returns how many of its messages were acknowledged.
fn start_senders(
    run: &Arc<Run>,
    fleet: &Arc<Fleet>,
    load: &Load,
) -> anyhow::Result<JoinSet<anyhow::Result<u64>>> {
    let mut workers = JoinSet::new();
    for worker in 0..load.workers() {
        let author = fleet.author(worker, load.body_bytes)?;
        let (run, client) = (Arc::clone(run), fleet.client(worker).clone());
        if load.pipelined {
            let stream = Pipeline { fleet: Arc::clone(fleet), sender: worker, run, client };
            workers.spawn(stream.run(author, load.in_flight));
        } else {
            workers.spawn(call_by_call(run, client, author));
        }
    }
    Ok(workers)
}

/// Waits for all workers; how many messages were acknowledged.
async fn finish(mut workers: JoinSet<anyhow::Result<u64>>) -> anyhow::Result<u64> {
    let mut acknowledged = 0;
    while let Some(worker) = workers.join_next().await {
        acknowledged += worker??;
    }
    Ok(acknowledged)
}

async fn call_by_call(
    run: Arc<Run>,
    mut client: Client,
    mut author: Author,
) -> anyhow::Result<u64> {
    let mut acknowledged = 0;
    while let Some(arrival) = run.schedule.next().await {
        let body = run.body(&author, arrival);
        match client.send_message(author.message(body)).await {
            Ok(_) => {
                acknowledged += 1;
                run.meter.done(arrival);
            }
            Err(status) => {
                run.meter.failed(&format!("{}: {}", status.code(), status.message()))?;
                sleep(PAUSE_AFTER_FAILURE).await;
            }
        }
    }
    Ok(acknowledged)
}

impl Run {
    /// The body of a message that was due at `arrival`.
    fn body(&self, author: &Author, arrival: Instant) -> Bytes {
        let body = author.body();
        if !self.is_stamped {
            return body;
        }
        let nanos = arrival.duration_since(self.schedule.start).as_nanos();
        let stamp = u64::try_from(nanos).unwrap_or(u64::MAX).to_be_bytes();
        let mut stamped = BytesMut::with_capacity(body.len());
        stamped.extend_from_slice(&stamp);
        stamped.extend_from_slice(&body[LIVE_BODY_BYTES_MIN..]);
        stamped.freeze()
    }
}

/// One stream of pipelined sends.
struct Pipeline {
    fleet: Arc<Fleet>,
    sender: usize,
    run: Arc<Run>,
    client: Client,
}

impl Pipeline {
    async fn run(self, mut author: Author, in_flight: usize) -> anyhow::Result<u64> {
        let Self { fleet, sender, run, mut client } = self;
        let window = Arc::new(Semaphore::new(in_flight));
        // When each message in flight was due, in order; at most `in_flight`.
        let due = Arc::new(Mutex::new(VecDeque::with_capacity(in_flight)));
        let requests = {
            let (run, window, due) = (Arc::clone(&run), Arc::clone(&window), Arc::clone(&due));
            stream! {
                while let Ok(place) = window.acquire().await {
                    place.forget();
                    let Some(arrival) = run.schedule.next().await else { break };
                    due.lock().unwrap_or_else(PoisonError::into_inner).push_back(arrival);
                    yield author.streamed(run.body(&author, arrival));
                }
            }
        };
        let responses = client.send_messages(fleet.as_sender(sender, requests)).await;
        let mut responses = responses.context("cannot open a stream")?.into_inner();
        let mut acknowledged = 0;
        while let Some(response) = responses.message().await.context("a stream broke")? {
            window.add_permits(1);
            let arrival = due.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let arrival = arrival.context("an answer to nothing")?;
            match response.result {
                Some(SendResult::Message(_)) => {
                    acknowledged += 1;
                    run.meter.done(arrival);
                }
                Some(SendResult::Error(error)) => run.meter.failed(&error.message)?,
                None => bail!("an answer without a result"),
            }
        }
        let unanswered = due.lock().unwrap_or_else(PoisonError::into_inner).len();
        ensure!(unanswered == 0, "a stream ended with {unanswered} messages unanswered");
        Ok(acknowledged)
    }
}

/// What the subscribers have received.
struct Arrivals {
    meter: Meter,
    count: AtomicU64,
}

/// Subscribes all receivers, on connections that carry nothing else, and waits until they are live.
async fn follow_all(
    fleet: &Fleet,
    receivers: usize,
) -> anyhow::Result<Vec<Streaming<SubscribeResponse>>> {
    let mut subscriptions = Vec::with_capacity(receivers);
    let mut client = fleet::connect(&fleet.uri).await?;
    for receiver in 0..receivers {
        if receiver > 0 && receiver % SUBSCRIPTIONS_PER_CONNECTION == 0 {
            client = fleet::connect(&fleet.uri).await?;
        }
        subscriptions.push(subscribe(&mut client, fleet, receiver).await?);
    }
    Ok(subscriptions)
}

/// A subscription to what comes from now on; returns when it is live.
pub(super) async fn subscribe(
    client: &mut Client,
    fleet: &Fleet,
    receiver: usize,
) -> anyhow::Result<Streaming<SubscribeResponse>> {
    let request = SubscribeRequest {
        start: Some(subscribe_request::Start::FromNow(true)),
        received_only: true,
        ..Default::default()
    };
    let response = client.subscribe(fleet.as_receiver(receiver, request)).await;
    let mut subscription = response.context("cannot subscribe")?.into_inner();
    loop {
        match subscription.message().await?.and_then(|response| response.event) {
            Some(Event::CaughtUp(_)) => return Ok(subscription),
            Some(_) => {}
            None => bail!("a subscription ended before it was live"),
        }
    }
}

/// Takes what arrives, until the subscription ends; why it did.
async fn receive(
    mut subscription: Streaming<SubscribeResponse>,
    run: Arc<Run>,
    arrivals: Arc<Arrivals>,
) -> anyhow::Error {
    loop {
        let event = match subscription.message().await {
            Ok(Some(response)) => response.event,
            Ok(None) => return anyhow!("the server closed it"),
            Err(status) => return status.into(),
        };
        if let Some(Event::Message(message)) = event {
            let Some(message::Body::Data(body)) = message.body else { continue };
            let Some(stamp) = body.first_chunk::<LIVE_BODY_BYTES_MIN>() else { continue };
            let sent = run.schedule.start + Duration::from_nanos(u64::from_be_bytes(*stamp));
            arrivals.count.fetch_add(1, Ordering::Relaxed);
            arrivals.meter.done(sent);
        }
    }
}
