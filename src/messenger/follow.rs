//! The follow path: register with the hub, replay from the store, turn live; replay again after a
//! lag or a hole.
//!
//! Registering comes first, so that what is committed during the replay is in the channel when the
//! replay ends, or shows as a lag. Duplicates are dropped by sequence.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{Cursor, Messenger, MessengerError};
use crate::domain::{Epoch, MailboxRange, Message, Sequence, Timestamp, User, UserId};
use crate::hub::{Registration, Signal};
use crate::store::{PageQuery, PageStart, Store};

/// The most messages that a replay reads at a time.
const REPLAY_PAGE_MESSAGES: usize = 256;

/// The bytes of bodies at which a replay's page ends: with the ring of the hub, what a slow reader
/// holds of the server's memory beside its connection's buffers.
const REPLAY_PAGE_BYTES: usize = 256 * 1024;

/// Where a follower begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FollowStart {
    /// After what was acknowledged.
    Acknowledged,
    /// After this sequence.
    After(Sequence),
    /// With what comes from now on.
    Now,
}

/// What a follower asks for.
#[derive(Debug, Clone)]
pub struct FollowRequest {
    /// From where.
    pub start: FollowStart,
    /// The epoch of the cursor, if it is to be checked.
    pub epoch: Option<Epoch>,
    /// Only what the owner received.
    pub received_only: bool,
    /// How long it may be silent.
    pub heartbeat_interval: Duration,
}

/// What a follower is given.
#[derive(Debug, Clone)]
pub enum FollowEvent {
    /// It stands. Always the first.
    Started {
        /// The current epoch.
        epoch: Epoch,
        /// The sequence after which it delivers.
        after: Sequence,
        /// What the mailbox holds.
        range: MailboxRange,
    },
    /// The next entry.
    Message(Arc<Message>),
    /// History is delivered up to here; from now on it is live. Once.
    CaughtUp(Sequence),
    /// Nothing for a while; everything up to here is delivered.
    Heartbeat(Sequence),
}

/// A mailbox being followed. Dropping it ends it.
pub struct Follow {
    owner: UserId,
    store: Store,
    registration: Registration,
    received_only: bool,
    heartbeat_interval: Duration,
    next_heartbeat: Instant,
    /// Everything up to here is delivered, or skipped by `received_only`.
    delivered: Sequence,
    phase: Phase,
    caught_up: bool,
}

enum Phase {
    Starting(MailboxRange),
    Replaying { page: VecDeque<Arc<Message>>, page_is_last: bool },
    Live,
}

/// Notes in the store that the user was there until now. They stay online until the note is on disk,
/// so that nobody is shown an earlier one meanwhile.
impl Drop for Follow {
    fn drop(&mut self) {
        let departure = self.registration.depart();
        self.store.mark_seen(self.owner, departure.time(), departure);
    }
}

impl Messenger {
    /// Follows `owner`'s mailbox.
    ///
    /// # Errors
    /// [`MessengerError`]: the cursor, the epoch, too many subscriptions, or the store's.
    pub async fn follow(
        &self,
        owner: &User,
        request: FollowRequest,
    ) -> Result<Follow, MessengerError> {
        self.check_epoch(request.epoch.as_ref())?;
        let registration = self.hub.register(owner.id)?;
        let state = self.store.mailbox_state(owner.id).await?;
        let delivered = match request.start {
            FollowStart::Acknowledged => state.acknowledged_through,
            FollowStart::After(after) => after,
            FollowStart::Now => state.range.last,
        };
        MessengerError::check_after(Cursor::After, delivered, &state.range)?;
        self.store.mark_seen(owner.id, Timestamp::now(), ());
        Ok(Follow {
            owner: owner.id,
            store: self.store.clone(),
            registration,
            received_only: request.received_only,
            heartbeat_interval: request.heartbeat_interval,
            next_heartbeat: Instant::now() + request.heartbeat_interval,
            delivered,
            phase: Phase::Starting(state.range),
            caught_up: false,
        })
    }
}

impl Follow {
    /// The next event. After an error the follower is at its end.
    ///
    /// # Errors
    /// The store's.
    pub async fn next(&mut self) -> Result<FollowEvent, MessengerError> {
        let event = loop {
            let step = match &mut self.phase {
                Phase::Starting(range) => {
                    let range = *range;
                    self.phase = Phase::replay();
                    Some(self.started(range))
                }
                Phase::Replaying { page, page_is_last } => match page.pop_front() {
                    Some(message) => self.deliver(message),
                    None if *page_is_last => self.turn_live(),
                    None if Instant::now() >= self.next_heartbeat => {
                        Some(FollowEvent::Heartbeat(self.delivered))
                    }
                    None => {
                        self.read_page().await?;
                        None
                    }
                },
                Phase::Live => {
                    match timeout_at(self.next_heartbeat, self.registration.next()).await {
                        Ok(Signal::Committed(message)) => self.take_live(message),
                        Ok(Signal::Reread) => {
                            self.phase = Phase::replay();
                            None
                        }
                        Err(_) => Some(FollowEvent::Heartbeat(self.delivered)),
                    }
                }
            };
            if let Some(event) = step {
                break event;
            }
        };
        self.next_heartbeat = Instant::now() + self.heartbeat_interval;
        Ok(event)
    }

    fn started(&self, range: MailboxRange) -> FollowEvent {
        FollowEvent::Started { epoch: self.store.epoch().clone(), after: self.delivered, range }
    }

    fn turn_live(&mut self) -> Option<FollowEvent> {
        self.phase = Phase::Live;
        let first_time = !std::mem::replace(&mut self.caught_up, true);
        first_time.then_some(FollowEvent::CaughtUp(self.delivered))
    }

    /// A message from the channel: the next one, one that was delivered before, or one behind a
    /// hole.
    fn take_live(&mut self, message: Arc<Message>) -> Option<FollowEvent> {
        let sequence = message.sequence_for(self.owner)?;
        if sequence <= self.delivered {
            return None;
        }
        if sequence == self.delivered.next() {
            return self.deliver(message);
        }
        self.phase = Phase::replay();
        None
    }

    fn deliver(&mut self, message: Arc<Message>) -> Option<FollowEvent> {
        self.delivered = message.sequence_for(self.owner)?;
        let wanted = !self.received_only || message.is_received_by(self.owner);
        wanted.then_some(FollowEvent::Message(message))
    }

    /// Reads all entries, sent ones too, so that the page proves its density.
    async fn read_page(&mut self) -> Result<(), MessengerError> {
        let query = PageQuery {
            owner: self.owner,
            start: PageStart::After(self.delivered),
            peer: None,
            received_only: false,
            messages_max: REPLAY_PAGE_MESSAGES,
            bytes_max: REPLAY_PAGE_BYTES,
        };
        let page = self.store.page_in_turn(query).await?;
        self.phase = Phase::Replaying {
            page: page.messages.into_iter().map(Arc::new).collect(),
            page_is_last: !page.has_more,
        };
        Ok(())
    }
}

impl Phase {
    /// A replay whose first page is still to be read.
    fn replay() -> Self {
        Self::Replaying { page: VecDeque::new(), page_is_last: false }
    }
}
