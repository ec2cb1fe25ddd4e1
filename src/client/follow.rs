use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_stream::stream;
use tokio::time::{sleep, timeout};
use tokio_stream::{Stream, StreamExt as _};
use tonic::Streaming;

use super::position::Position;
use super::{Client, Error, Message, MessageStream};
use crate::domain::limits::{
    HEARTBEAT_INTERVAL_DEFAULT, HEARTBEAT_INTERVAL_MAX, HEARTBEAT_INTERVAL_MIN,
};
use crate::proto;

/// How long a stream may bring nothing before it is taken for dead: 2.5 heartbeat intervals.
fn silence_max(heartbeat_interval: Duration) -> Duration {
    heartbeat_interval.saturating_mul(5) / 2
}

/// Where following begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// After what was acknowledged; from the beginning for those who never did.
    Acknowledged,
    /// After this sequence: 0 for the beginning.
    After(i64),
    /// Only what comes from now on: from when the server is first reached.
    FromNow,
}

/// How to follow a mailbox.
#[derive(Debug, Clone)]
pub struct FollowOptions {
    received_only: bool,
    epoch: Option<String>,
    heartbeat_interval: Duration,
}

impl Default for FollowOptions {
    fn default() -> Self {
        Self { received_only: false, epoch: None, heartbeat_interval: HEARTBEAT_INTERVAL_DEFAULT }
    }
}

impl FollowOptions {
    /// Only what was received, a message to oneself included. Default: sent messages too.
    #[must_use]
    pub fn received_only(mut self, received_only: bool) -> Self {
        self.received_only = received_only;
        self
    }

    /// The epoch in which the sequence of [`Start::After`] was obtained, to have it checked.
    #[must_use]
    pub fn epoch(mut self, epoch: impl Into<String>) -> Self {
        self.epoch = Some(epoch.into());
        self
    }

    /// How often a stream without news shows a sign of life: 1 second to 1 hour, and what lies
    /// outside is brought inside. After 2.5 times as long without one it is taken for dead.
    /// Default: 30 seconds.
    #[must_use]
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.heartbeat_interval = interval.clamp(HEARTBEAT_INTERVAL_MIN, HEARTBEAT_INTERVAL_MAX);
        self
    }
}

/// What happens while following a mailbox.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// Connected: the first time, and again after each [`Event::Reconnecting`].
    Started {
        /// The current epoch: keep it with the cursor.
        epoch: String,
        /// The sequence after which delivery goes on.
        after_sequence: i64,
        /// The first sequence that the mailbox still holds; `last_sequence` + 1 when it holds none.
        first_sequence: i64,
        /// The last sequence that the mailbox gave out; 0 when it gave out none.
        last_sequence: i64,
        /// What was acknowledged. With [`Start::Acknowledged`] delivery begins after this, or with
        /// `first_sequence` if that has moved further: what is between the two was removed.
        acknowledged_through: i64,
    },
    /// The next entry.
    Message(Message),
    /// Everything that was there when the connection started has been delivered; what follows is
    /// live. Once for each [`Event::Started`].
    CaughtUp {
        /// Everything up to this sequence was delivered, or skipped by `received_only`.
        through_sequence: i64,
    },
    /// Nothing new for a while.
    Heartbeat {
        /// Everything up to this sequence was delivered, or skipped by `received_only`.
        through_sequence: i64,
    },
    /// The connection broke, or could not be opened. Nothing is lost: delivery goes on where it
    /// ended.
    Reconnecting {
        /// What happened.
        error: Error,
        /// How long until the next attempt.
        delay: Duration,
    },
}

/// The stream of [`Client::follow`].
///
/// It reconnects for as long as it takes, and ends, after an `Err`, only on an error that connecting
/// again does not mend: a token that is not known, a cursor outside the mailbox (what comes next may have
/// been removed from it) or of another epoch,
/// damaged data, a server that keeps leaving out entries. Dropping it ends the subscription.
pub struct Follow(Pin<Box<dyn Stream<Item = Result<Event, Error>> + Send>>);

impl Follow {
    pub(super) fn new(client: Client, start: Start, options: FollowOptions) -> Self {
        Self(Box::pin(follow(client, start, options)))
    }

    /// The next event; `None` after the stream has ended with an error. Nothing is lost when this
    /// is cancelled.
    pub async fn next_event(&mut self) -> Option<Result<Event, Error>> {
        self.0.next().await
    }
}

impl Follow {
    /// The next message, passing over the other events; `None` after the stream has ended with an error.
    /// Nothing is lost when this is cancelled.
    pub async fn next_message(&mut self) -> Option<Result<Message, Error>> {
        loop {
            match self.next_event().await? {
                Ok(Event::Message(message)) => return Some(Ok(message)),
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// The messages alone, for those who need not know of broken connections.
    pub fn messages(mut self) -> MessageStream {
        Box::pin(stream! {
            while let Some(message) = self.next_message().await {
                yield message;
            }
        })
    }
}

impl Stream for Follow {
    type Item = Result<Event, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

impl fmt::Debug for Follow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follow").finish_non_exhaustive()
    }
}

fn follow(
    client: Client,
    start: Start,
    options: FollowOptions,
) -> impl Stream<Item = Result<Event, Error>> + Send {
    stream! {
        let mut backoff = client.options().new_backoff();
        let mut position = Position::new(start, options.epoch, options.received_only);
        loop {
            let error = match subscribe(&client, &mut position, options.heartbeat_interval).await {
                Err(error) => error,
                Ok(mut events) => loop {
                    match next(&client, &mut events, options.heartbeat_interval)
                        .await
                        .and_then(|response| position.accept(response))
                    {
                        Err(error) => break error,
                        Ok(None) => {}
                        Ok(Some(event)) => {
                            // A server that takes connections and then fails is left in peace: only
                            // what comes after `started` counts as progress.
                            if !matches!(event, Event::Started { .. }) {
                                backoff.reset();
                            }
                            yield Ok(event);
                        }
                    }
                },
            };
            if !error.is_retriable() || position.is_stuck() {
                yield Err(error);
                return;
            }
            let delay = backoff.next_delay(error.retry_delay());
            tracing::debug!(%error, ?delay, "following connects again");
            yield Ok(Event::Reconnecting { error, delay });
            sleep(delay).await;
        }
    }
}

/// Opens a subscription where the follower stands. Each has a new connection, closed with it: one
/// that went silent is not used again.
async fn subscribe(
    client: &Client,
    position: &mut Position,
    heartbeat_interval: Duration,
) -> Result<Streaming<proto::SubscribeResponse>, Error> {
    let heartbeat_interval = prost_types::Duration::try_from(heartbeat_interval).ok();
    let message = proto::SubscribeRequest { heartbeat_interval, ..position.subscribe() };
    let mut grpc = client.on_own_connection();
    // Bounded on this side only: a `grpc-timeout` would bound the whole stream.
    let deadline = client.options().call_deadline;
    match timeout(deadline, grpc.subscribe(client.request(message))).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(client.error(&status)),
        Err(_) => Err(Error::DeadlineExceeded { deadline }),
    }
}

/// The stream's next event. Only the wait for it counts as silence, not the reader's own pauses.
async fn next(
    client: &Client,
    events: &mut Streaming<proto::SubscribeResponse>,
    heartbeat_interval: Duration,
) -> Result<proto::SubscribeResponse, Error> {
    let silence = silence_max(heartbeat_interval);
    match timeout(silence, events.message()).await {
        Ok(Ok(Some(response))) => Ok(response),
        Ok(Ok(None)) => Err(Error::Disconnected { problem: "the server ended the stream".into() }),
        Ok(Err(status)) => Err(client.error(&status)),
        Err(_) => Err(Error::Silent { silence }),
    }
}
