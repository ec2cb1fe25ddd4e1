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
use crate::domain::{Message, UserId};

/// The messages that wait for a user's slowest follower before it has to read from the store. They
/// are shared with the other followers, and stay bounded at a body's limit each.
const RING_MESSAGES: usize = 16;

/// Where committed messages are announced and followers registered. Cloning gives another handle.
#[derive(Clone, Default)]
pub struct Hub(Arc<RwLock<Channels>>);

type Channels = HashMap<UserId, broadcast::Sender<Signal>>;

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
    /// `None` only while it is being dropped.
    receiver: Option<broadcast::Receiver<Signal>>,
}

impl Hub {
    /// Registers a follower: everything announced from now on reaches it, or shows as
    /// [`Signal::Reread`].
    ///
    /// # Errors
    /// [`TooManyFollowers`] at [`SUBSCRIPTIONS_PER_USER_MAX`].
    pub fn register(&self, user: UserId) -> Result<Registration, TooManyFollowers> {
        let mut channels = self.write();
        let sender = channels.entry(user).or_insert_with(|| broadcast::Sender::new(RING_MESSAGES));
        if sender.receiver_count() >= SUBSCRIPTIONS_PER_USER_MAX {
            return Err(TooManyFollowers { limit: SUBSCRIPTIONS_PER_USER_MAX });
        }
        let receiver = Some(sender.subscribe());
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
            let _ = channel.send(Signal::Reread);
        }
    }

    /// Whether a user has a follower at this moment.
    pub fn is_online(&self, user: UserId) -> bool {
        self.read().contains_key(&user)
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
        let _ = channel.send(Signal::Committed(Arc::clone(message)));
    }
}

impl Registration {
    /// The next signal. Cancel safe: a signal is taken only when it is returned.
    pub async fn next(&mut self) -> Signal {
        let Some(receiver) = self.receiver.as_mut() else {
            return Signal::Reread;
        };
        match receiver.recv().await {
            Ok(signal) => signal,
            Err(RecvError::Lagged(_)) => Signal::Reread,
            // The hub keeps the sender for as long as a registration lives.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut channels = self.hub.write();
        self.receiver = None;
        if channels.get(&self.user).is_some_and(|sender| sender.receiver_count() == 0) {
            channels.remove(&self.user);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        Body, Content, ContentType, MessageId, Sequence, Timestamp, User, Username,
    };

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
        assert!(!hub.is_online(BOB));
        let first = hub.register(BOB).expect("room");
        let second = hub.register(BOB).expect("room");
        drop(first);
        assert!(hub.is_online(BOB));
        drop(second);
        assert!(!hub.is_online(BOB));
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
