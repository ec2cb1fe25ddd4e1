//! Live delivery: a small broadcast channel for each user who is being followed, none for the rest.
//!
//! The channel is speed, the store is the truth: a follower that lags, or sees a hole in the
//! sequences, reads from the store. That is why the channel is small and never blocks the writer.

use std::collections::HashMap;
use std::num::NonZero;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use thiserror::Error;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::domain::{Message, Timestamp, UserId};
use crate::metrics::{Counter, Gauge, Page};

/// The batches that wait for a user's slowest follower before it has to read from the store. They are
/// shared with the user's other followers.
const RING_BATCHES: usize = 16;

/// The size at which a batch ends: bodies, and [`MESSAGE_OVERHEAD_BYTES`] for each message. Commits of
/// many messages to one user take few places of the ring, and a follower that stalls keeps no more
/// than 1 MiB, or a message a place where the messages are larger.
const BATCH_BYTES_MAX: usize = 64 * 1024;

/// What a message takes beside its body, generously.
const MESSAGE_OVERHEAD_BYTES: usize = 512;

/// Where committed messages are announced and followers registered. Cloning gives another handle.
#[derive(Clone, Default)]
pub struct Hub(Arc<Inner>);

#[derive(Default)]
struct Inner {
    channels: RwLock<Channels>,
    followers: Gauge,
    /// Times that a follower's ring had overflowed.
    lags: Counter,
    /// Followers that were one too many.
    refusals: Counter,
}

type Channels = HashMap<UserId, Channel>;

struct Channel {
    sender: broadcast::Sender<Signal>,
    /// Followers that went and whose [`Departure`] lives.
    departures: usize,
    /// When the last of them went.
    departed: Option<Timestamp>,
}

/// Messages that were committed to one mailbox, in its order; never empty.
#[derive(Debug)]
pub struct Batch(Vec<Arc<Message>>);

/// What a follower is told.
#[derive(Debug, Clone)]
pub enum Signal {
    /// These messages were committed to the mailbox.
    Committed(Arc<Batch>),
    /// Something was missed, or may have been: read from the store.
    Reread,
}

/// The user has as many followers as one may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the user has {limit} subscriptions, as many as one may have")]
pub struct TooManyFollowers {
    /// The limit.
    pub limit: usize,
}

/// A registered follower; dropping it unregisters.
pub struct Follower {
    hub: Hub,
    user: UserId,
    /// `None` after it departed.
    receiver: Option<broadcast::Receiver<Signal>>,
}

/// Keeps a user online whose follower went, as of the moment when it went; dropping it ends that.
pub struct Departure {
    hub: Hub,
    user: UserId,
    time: Timestamp,
}

impl Hub {
    /// Registers a follower: everything announced from now on reaches it, or shows as
    /// [`Signal::Reread`].
    ///
    /// # Errors
    /// [`TooManyFollowers`] where the user has `limit` of them.
    pub fn register(
        &self,
        user: UserId,
        limit: NonZero<usize>,
    ) -> Result<Follower, TooManyFollowers> {
        let (mut channels, limit) = (self.write(), limit.get());
        let channel = channels.entry(user).or_default();
        if channel.sender.receiver_count() >= limit {
            self.0.refusals.increment();
            return Err(TooManyFollowers { limit });
        }
        let receiver = Some(channel.sender.subscribe());
        self.0.followers.increment();
        Ok(Follower { hub: self.clone(), user, receiver })
    }

    /// Announces messages to those who follow a mailbox that they entered. Blocks for nobody.
    ///
    /// A mailbox's messages go out together: one place of its ring and one wake-up of its followers
    /// for all that a commit brought them, up to the size of a batch.
    pub fn publish(&self, messages: &[Arc<Message>]) {
        let channels = self.read();
        if channels.is_empty() {
            return;
        }
        let mut announcements: HashMap<UserId, Announcement<'_>> = HashMap::new();
        for message in messages {
            let (sender, receiver) = (message.sender.id, message.receiver.id);
            for user in [Some(receiver), (sender != receiver).then_some(sender)] {
                let followed = user.and_then(|user| Some((user, channels.get(&user)?)));
                if let Some((user, channel)) = followed {
                    let new = || Announcement { channel, batch: Vec::new(), bytes: 0 };
                    announcements.entry(user).or_insert_with(new).add(message);
                }
            }
        }
        announcements.into_values().for_each(Announcement::send);
    }

    /// Tells every follower to read from the store.
    pub fn reread(&self) {
        for channel in self.read().values() {
            // It fails only without receivers, and then there is nobody to tell.
            let _ = channel.sender.send(Signal::Reread);
        }
    }

    /// When a user was last there, if they are online: now, or when their last follower went for as
    /// long as its [`Departure`] lives.
    pub fn last_seen(&self, user: UserId) -> Option<Timestamp> {
        let channels = self.read();
        let channel = channels.get(&user)?;
        match channel.departed {
            Some(departed) if channel.sender.receiver_count() == 0 => Some(departed),
            _ => Some(Timestamp::now()),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Channels> {
        // No guarded section leaves the map half-changed, so a panic in one spoils nothing.
        self.0.channels.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Channels> {
        self.0.channels.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A follower goes, unless it went before.
    fn leave(&self, receiver: &mut Option<broadcast::Receiver<Signal>>) {
        if receiver.take().is_some() {
            self.0.followers.decrement();
        }
    }

    fn lagged(&self) -> Signal {
        self.0.lags.increment();
        Signal::Reread
    }

    /// How often a follower was one too many.
    pub fn refusals(&self) -> u64 {
        self.0.refusals.get()
    }

    /// The followers that there are.
    pub fn followers(&self) -> i64 {
        self.0.followers.get()
    }

    /// Writes what is counted here.
    pub fn write_metrics(&self, page: &mut Page) {
        let followers = self.followers();
        page.gauge("peerpost_subscribers", "Subscriptions that are open.", followers);
        let channels = self.read().len();
        page.gauge("peerpost_hub_channels", "Users whose mailbox is being followed.", channels);
        page.counter(
            "peerpost_subscriber_lags_total",
            "Times that a subscriber was too slow for live delivery and went back to the store.",
            self.0.lags.get(),
        );
    }
}

/// What is to be announced to the followers of one user.
struct Announcement<'a> {
    channel: &'a Channel,
    batch: Vec<Arc<Message>>,
    bytes: usize,
}

impl Announcement<'_> {
    fn add(&mut self, message: &Arc<Message>) {
        let bytes = message.content.body.as_bytes().len() + MESSAGE_OVERHEAD_BYTES;
        if !self.batch.is_empty() && self.bytes + bytes > BATCH_BYTES_MAX {
            let full = Self { batch: std::mem::take(&mut self.batch), ..*self };
            full.send();
            self.bytes = 0;
        }
        self.bytes += bytes;
        self.batch.push(Arc::clone(message));
    }

    fn send(self) {
        // It fails only without receivers, and then there is nobody to tell.
        let _ = self.channel.sender.send(Signal::Committed(Arc::new(Batch(self.batch))));
    }
}

impl Batch {
    /// The messages.
    pub fn messages(&self) -> &[Arc<Message>] {
        &self.0
    }
}

/// Removes a user's channel when nobody needs it any more.
fn tidy(channels: &mut Channels, user: UserId) {
    let is_needed =
        |channel: &Channel| channel.sender.receiver_count() > 0 || channel.departures > 0;
    if channels.get(&user).is_some_and(|channel| !is_needed(channel)) {
        channels.remove(&user);
    }
}

impl Default for Channel {
    fn default() -> Self {
        let sender = broadcast::Sender::new(RING_BATCHES);
        Self { sender, departures: 0, departed: None }
    }
}

impl Follower {
    /// The next signal. Cancel safe: a signal is taken only when it is returned.
    pub async fn next(&mut self) -> Signal {
        let Some(receiver) = self.receiver.as_mut() else {
            return std::future::pending().await;
        };
        match receiver.recv().await {
            Ok(signal) => signal,
            Err(RecvError::Lagged(_)) => self.hub.lagged(),
            // The hub keeps the sender for as long as a follower lives.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }

    /// Unregisters, and keeps the user online as of this moment for as long as the departure lives.
    pub fn depart(&mut self) -> Departure {
        let mut channels = self.hub.write();
        self.hub.leave(&mut self.receiver);
        // Under the lock, so that it is not before a present that anyone was shown.
        let time = Timestamp::now();
        let channel = channels.entry(self.user).or_default();
        channel.departures += 1;
        channel.departed = channel.departed.max(Some(time));
        Departure { hub: self.hub.clone(), user: self.user, time }
    }
}

impl Departure {
    /// When it was.
    pub fn time(&self) -> Timestamp {
        self.time
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut channels = self.hub.write();
        self.hub.leave(&mut self.receiver);
        tidy(&mut channels, self.user);
    }
}

impl Drop for Departure {
    fn drop(&mut self) {
        let mut channels = self.hub.write();
        if let Some(channel) = channels.get_mut(&self.user) {
            channel.departures -= 1;
        }
        tidy(&mut channels, self.user);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Body, Content, ContentType, MessageId, Sequence, User, Username};

    const MOST: NonZero<usize> = NonZero::new(256).expect("some");
    const ALICE: UserId = UserId(1);
    const BOB: UserId = UserId(2);

    fn message(sequence: i64) -> Arc<Message> {
        message_of(sequence, "hi")
    }

    fn message_of(sequence: i64, text: &str) -> Arc<Message> {
        let user = |id, name| User { id, name: Username::parse(name).expect("a name") };
        Arc::new(Message {
            id: MessageId::mint(),
            sender: user(ALICE, "alice"),
            receiver: user(BOB, "bob"),
            sender_sequence: Sequence::FIRST,
            receiver_sequence: Sequence::parse(sequence).expect("a sequence"),
            send_time: Timestamp::now(),
            content: Content {
                body: Body::text(text.to_owned(), 1024).expect("a body"),
                content_type: ContentType::default(),
            },
            request_id: None,
            expiry: None,
        })
    }

    /// The sequences of the next batch; none when it is to be read from the store.
    async fn next_sequences(follower: &mut Follower) -> Vec<i64> {
        match follower.next().await {
            Signal::Committed(batch) => {
                batch.messages().iter().map(|message| message.receiver_sequence.get()).collect()
            }
            Signal::Reread => Vec::new(),
        }
    }

    #[tokio::test]
    async fn every_follower_of_either_participant_hears_of_a_message() {
        let hub = Hub::default();
        let mut followers = [
            hub.register(BOB, MOST).expect("room"),
            hub.register(BOB, MOST).expect("room"),
            hub.register(ALICE, MOST).expect("room"),
        ];
        hub.publish(&[message(1), message(2)]);
        hub.publish(&[message(3)]);
        for follower in &mut followers {
            assert_eq!(next_sequences(follower).await, [1, 2], "one signal a commit");
            assert_eq!(next_sequences(follower).await, [3]);
        }
    }

    #[tokio::test]
    async fn a_batch_is_bounded() {
        let hub = Hub::default();
        let mut follower = hub.register(BOB, MOST).expect("room");
        // A KiB each with what they take beside their bodies: 64 fill a batch of 64 KiB to the byte.
        let text = "m".repeat(1024 - MESSAGE_OVERHEAD_BYTES);
        let messages: Vec<_> = (1..=130).map(|sequence| message_of(sequence, &text)).collect();
        hub.publish(&messages);
        for (first, last) in [(1, 64), (65, 128), (129, 130)] {
            let batch = next_sequences(&mut follower).await;
            assert!(batch.iter().copied().eq(first..=last), "{batch:?}");
        }
    }

    #[tokio::test]
    async fn a_follower_that_lags_is_told_to_read_and_then_goes_on() {
        let hub = Hub::default();
        let mut follower = hub.register(BOB, MOST).expect("room");
        (1..=40).for_each(|sequence| hub.publish(&[message(sequence)]));
        assert!(next_sequences(&mut follower).await.is_empty());
        assert_eq!(next_sequences(&mut follower).await, [25], "what the ring still holds");
    }

    #[tokio::test]
    async fn a_reset_reaches_everyone() {
        let hub = Hub::default();
        let mut follower = hub.register(BOB, MOST).expect("room");
        hub.reread();
        assert!(next_sequences(&mut follower).await.is_empty());
    }

    #[test]
    fn a_channel_exists_only_while_it_is_followed() {
        let hub = Hub::default();
        assert_eq!(hub.last_seen(BOB), None);
        let first = hub.register(BOB, MOST).expect("room");
        let second = hub.register(BOB, MOST).expect("room");
        drop(first);
        assert!(hub.last_seen(BOB).is_some());
        drop(second);
        assert_eq!(hub.last_seen(BOB), None);
        assert!(hub.read().is_empty());
    }

    #[test]
    fn one_who_departs_stays_online_as_of_that_moment_while_it_is_held() {
        let hub = Hub::default();
        let [mut first, mut second] = [(); 2].map(|()| hub.register(BOB, MOST).expect("room"));
        let shown = hub.last_seen(BOB).expect("online");
        let first = first.depart();
        while Timestamp::now() <= first.time() {}
        assert!(hub.last_seen(BOB) > Some(first.time()), "the second is there, now");
        let second = second.depart();
        assert!(second.time() >= shown);
        while Timestamp::now() <= second.time() {}
        assert_eq!(hub.last_seen(BOB), Some(second.time()));
        drop(second);
        assert!(hub.last_seen(BOB).is_some(), "the first is still held");
        drop(first);
        assert!(hub.read().is_empty());
    }

    #[test]
    fn a_user_has_a_bounded_number_of_followers() {
        let hub = Hub::default();
        let mut all: Vec<_> =
            (0..MOST.get()).map(|_| hub.register(BOB, MOST).expect("room")).collect();
        assert!(hub.register(BOB, MOST).is_err());
        all.pop();
        assert!(hub.register(BOB, MOST).is_ok());
    }
}
