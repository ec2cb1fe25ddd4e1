//! Live delivery: a small broadcast channel for each user who is being followed, none for the rest.
//!
//! The channel is speed, the store is the truth: a follower that lags, or sees a hole in the
//! sequences, reads from the store. That is why the channel is small and never blocks the writer.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use thiserror::Error;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::domain::limits::SUBSCRIPTIONS_PER_USER_MAX;
use crate::domain::{Message, Timestamp, UserId};

/// The messages that wait for a user's slowest follower before it has to read from the store. They
/// are shared with the other followers, and stay bounded at a body's limit each.
const RING_MESSAGES: usize = 16;

/// Where committed messages are announced and followers registered. Cloning gives another handle.
#[derive(Clone, Default)]
pub struct Hub(Arc<RwLock<Channels>>);

type Channels = HashMap<UserId, Channel>;

struct Channel {
    sender: broadcast::Sender<Signal>,
    /// Followers that went and whose [`Departure`] lives.
    departures: usize,
    /// When the last of them went.
    departed: Option<Timestamp>,
}

/// What a follower is told.
#[derive(Debug, Clone)]
pub enum Signal {
    /// A message was committed to the mailbox.
    Committed(Arc<Message>),
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
pub struct Registration {
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
    /// [`TooManyFollowers`] at [`SUBSCRIPTIONS_PER_USER_MAX`].
    pub fn register(&self, user: UserId) -> Result<Registration, TooManyFollowers> {
        let mut channels = self.write();
        let channel = channels.entry(user).or_default();
        if channel.sender.receiver_count() >= SUBSCRIPTIONS_PER_USER_MAX {
            return Err(TooManyFollowers { limit: SUBSCRIPTIONS_PER_USER_MAX });
        }
        let receiver = Some(channel.sender.subscribe());
        Ok(Registration { hub: self.clone(), user, receiver })
    }

    /// Announces messages to those who follow a mailbox that they entered. Blocks for nobody.
    pub fn publish(&self, messages: &[Arc<Message>]) {
        let channels = self.read();
        if channels.is_empty() {
            return;
        }
        for message in messages {
            let (sender, receiver) = (message.sender.id, message.receiver.id);
            announce(&channels, receiver, message);
            if sender != receiver {
                announce(&channels, sender, message);
            }
        }
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
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Channels> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn announce(channels: &Channels, user: UserId, message: &Arc<Message>) {
    if let Some(channel) = channels.get(&user) {
        // It fails only without receivers, and then there is nobody to tell.
        let _ = channel.sender.send(Signal::Committed(Arc::clone(message)));
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
        let sender = broadcast::Sender::new(RING_MESSAGES);
        Self { sender, departures: 0, departed: None }
    }
}

impl Registration {
    /// The next signal. Cancel safe: a signal is taken only when it is returned.
    pub async fn next(&mut self) -> Signal {
        let Some(receiver) = self.receiver.as_mut() else {
            return std::future::pending().await;
        };
        match receiver.recv().await {
            Ok(signal) => signal,
            Err(RecvError::Lagged(_)) => Signal::Reread,
            // The hub keeps the sender for as long as a registration lives.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }

    /// Unregisters, and keeps the user online as of this moment for as long as the departure lives.
    pub fn depart(&mut self) -> Departure {
        let mut channels = self.hub.write();
        self.receiver = None;
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

impl Drop for Registration {
    fn drop(&mut self) {
        let mut channels = self.hub.write();
        self.receiver = None;
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

    const ALICE: UserId = UserId(1);
    const BOB: UserId = UserId(2);

    fn message(sequence: i64) -> Arc<Message> {
        let user = |id, name| User { id, name: Username::parse(name).expect("a name") };
        Arc::new(Message {
            id: MessageId::mint(),
            sender: user(ALICE, "alice"),
            receiver: user(BOB, "bob"),
            sender_sequence: Sequence::FIRST,
            receiver_sequence: Sequence::parse(sequence).expect("a sequence"),
            send_time: Timestamp::now(),
            content: Content {
                body: Body::text("hi".into(), 64).expect("a body"),
                content_type: ContentType::default(),
            },
            request_id: None,
        })
    }

    async fn next_sequence(registration: &mut Registration) -> Option<i64> {
        match registration.next().await {
            Signal::Committed(message) => Some(message.receiver_sequence.get()),
            Signal::Reread => None,
        }
    }

    #[tokio::test]
    async fn every_follower_of_either_participant_hears_of_a_message() {
        let hub = Hub::default();
        let mut followers = [
            hub.register(BOB).expect("room"),
            hub.register(BOB).expect("room"),
            hub.register(ALICE).expect("room"),
        ];
        hub.publish(&[message(1), message(2)]);
        for follower in &mut followers {
            assert_eq!(next_sequence(follower).await, Some(1));
            assert_eq!(next_sequence(follower).await, Some(2));
        }
    }

    #[tokio::test]
    async fn a_follower_that_lags_is_told_to_read_and_then_goes_on() {
        let hub = Hub::default();
        let mut follower = hub.register(BOB).expect("room");
        let more_than_the_ring: Vec<_> = (1..=40).map(message).collect();
        hub.publish(&more_than_the_ring);
        assert_eq!(next_sequence(&mut follower).await, None);
        assert_eq!(next_sequence(&mut follower).await, Some(25), "what the ring still holds");
    }

    #[tokio::test]
    async fn a_reset_reaches_everyone() {
        let hub = Hub::default();
        let mut follower = hub.register(BOB).expect("room");
        hub.reread();
        assert_eq!(next_sequence(&mut follower).await, None);
    }

    #[test]
    fn a_channel_exists_only_while_it_is_followed() {
        let hub = Hub::default();
        assert_eq!(hub.last_seen(BOB), None);
        let first = hub.register(BOB).expect("room");
        let second = hub.register(BOB).expect("room");
        drop(first);
        assert!(hub.last_seen(BOB).is_some());
        drop(second);
        assert_eq!(hub.last_seen(BOB), None);
        assert!(hub.read().is_empty());
    }

    #[test]
    fn one_who_departs_stays_online_as_of_that_moment_while_it_is_held() {
        let hub = Hub::default();
        let [mut first, mut second] = [(); 2].map(|()| hub.register(BOB).expect("room"));
        let shown = hub.last_seen(BOB).expect("online");
        let first = first.depart();
        assert!(hub.last_seen(BOB) >= Some(first.time()), "the second is there");
        let second = second.depart();
        assert!(second.time() >= shown);
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
            (0..SUBSCRIPTIONS_PER_USER_MAX).map(|_| hub.register(BOB).expect("room")).collect();
        assert!(hub.register(BOB).is_err());
        all.pop();
        assert!(hub.register(BOB).is_ok());
    }
}
