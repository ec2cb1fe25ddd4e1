//! The follow path: register with the hub, replay from the store, turn live; replay again after a
//! lag or a hole.
//!
//! Registering comes first, so that what is committed during the replay is in the channel when the
//! replay ends, or shows as a lag. Duplicates are dropped by sequence.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;
use std::vec;

use tokio::time::{Instant, timeout_at};

use super::{Cursor, Messenger, MessengerError};
use crate::domain::{Epoch, MailboxRange, Message, Sequence, Timestamp, User, UserId};
use crate::hub::{Batch, Follower, Signal};
use crate::store::{MailboxState, Page, PageAhead, PageQuery, PageStart, Store};

/// The most messages that a replay reads at a time.
const REPLAY_PAGE_MESSAGES: usize = 512;

/// The bytes of bodies at which a replay's page ends. Two such pages, one being delivered and one read
/// ahead, are what a slow reader holds of the server's memory beside a share of the hub's ring and
/// its connection's buffers.
const REPLAY_PAGE_BYTES: usize = 128 * 1024;

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
#[derive(Debug)]
pub enum FollowEvent {
    /// It stands. Always the first.
    Started {
        /// The current epoch.
        epoch: Epoch,
        /// The sequence after which it delivers.
        after: Sequence,
        /// What the mailbox holds.
        range: MailboxRange,
        /// What its owner acknowledged. With no start of its own it delivers after this, or from the
        /// mailbox's beginning, if that has moved further.
        acknowledged_through: Sequence,
    },
    /// The next entry.
    Message(Delivery),
    /// History is delivered up to here; from now on it is live. Once.
    CaughtUp(Sequence),
    /// Nothing for a while; everything up to here is delivered.
    Heartbeat(Sequence),
}

/// A message on its way to a follower: its own copy from the store, or shared with all whom it is
/// announced to.
#[derive(Debug)]
pub enum Delivery {
    /// From the store.
    Stored(Message),
    /// As it was committed.
    Live(Arc<Message>),
}

impl Deref for Delivery {
    type Target = Message;

    fn deref(&self) -> &Message {
        match self {
            Self::Stored(message) => message,
            Self::Live(message) => message,
        }
    }
}

/// A mailbox being followed. Dropping it ends it.
pub struct Follow {
    owner: UserId,
    store: Store,
    follower: Follower,
    received_only: bool,
    heartbeat_interval: Duration,
    next_heartbeat: Instant,
    /// Whether something was delivered since `next_heartbeat` was set, so that it is set again before
    /// the next wait: the clock is read once a wait, not once a message.
    has_delivered: bool,
    /// Everything up to here is delivered, or skipped by `received_only`.
    delivered: Sequence,
    phase: Phase,
    caught_up: bool,
}

enum Phase {
    Starting(MailboxState),
    Replaying {
        page: vec::IntoIter<Message>,
        page_is_last: bool,
        /// The page after it, if it is being read already.
        ahead: Option<PageAhead>,
    },
    Live {
        /// What is announced, and how much of it is taken.
        batch: Option<Arc<Batch>>,
        taken: usize,
    },
}

/// Notes in the store that the user was there until now. They stay online until the note is on disk,
/// so that nobody is shown an earlier one meanwhile.
impl Drop for Follow {
    fn drop(&mut self) {
        let departure = self.follower.depart();
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
        let follower = self.hub.register(owner.id, self.limiter.subscriptions(owner.id))?;
        let state = self.store.mailbox_state(owner.id).await?;
        let delivered = match request.start {
            // What is gone of what comes after it, `started` shows.
            FollowStart::Acknowledged => state.acknowledged_through.max(before_first(&state.range)),
            FollowStart::After(after) => after,
            FollowStart::Now => state.range.last,
        };
        MessengerError::check_after(Cursor::After, delivered, &state.range)?;
        self.store.mark_seen(owner.id, Timestamp::now(), ());
        Ok(Follow {
            owner: owner.id,
            store: self.store.clone(),
            follower,
            received_only: request.received_only,
            heartbeat_interval: request.heartbeat_interval,
            next_heartbeat: Instant::now(),
            // So that it is set at the first wait.
            has_delivered: true,
            delivered,
            phase: Phase::Starting(state),
            caught_up: false,
        })
    }
}

impl Follow {
    /// The next event. After an error the follower is at its end.
    ///
    /// # Errors
    /// The store's, and [`MessengerError::OutOfRange`] when what comes next was removed before it could be
    /// delivered.
    pub async fn next(&mut self) -> Result<FollowEvent, MessengerError> {
        loop {
            if let Some(event) = self.at_hand() {
                return Ok(event);
            }
            let heartbeat = self.heartbeat_due();
            match &mut self.phase {
                Phase::Live { .. } => match timeout_at(heartbeat, self.follower.next()).await {
                    Ok(Signal::Committed(batch)) => self.phase = Phase::live(Some(batch)),
                    Ok(Signal::Reread) => self.phase = Phase::replay(),
                    Err(_) => return Ok(self.heartbeat()),
                },
                // A long replay can have nothing to deliver to one who only wants what they received.
                _ if Instant::now() >= heartbeat => return Ok(self.heartbeat()),
                // In a box: one who is live does not hold the place that reading takes.
                _ => Box::pin(self.read_page()).await?,
            }
        }
    }

    /// The next event, if it takes no waiting.
    pub fn at_hand(&mut self) -> Option<FollowEvent> {
        let event = loop {
            let step = match &mut self.phase {
                Phase::Starting(state) => {
                    let state = *state;
                    self.phase = Phase::replay();
                    Some(self.started(state))
                }
                Phase::Replaying { page, page_is_last, .. } => match page.next() {
                    Some(message) => self.deliver(Delivery::Stored(message)),
                    None if *page_is_last => self.turn_live(),
                    None => return None,
                },
                Phase::Live { batch, taken } => {
                    let Some(message) = batch.as_ref()?.messages().get(*taken).cloned() else {
                        // One who waits holds nothing of what was delivered.
                        *batch = None;
                        return None;
                    };
                    *taken += 1;
                    self.take_live(message)
                }
            };
            if let Some(event) = step {
                break event;
            }
        };
        self.has_delivered = true;
        Some(event)
    }

    /// When the next heartbeat is due: an interval after the last event.
    fn heartbeat_due(&mut self) -> Instant {
        if std::mem::take(&mut self.has_delivered) {
            self.next_heartbeat = Instant::now() + self.heartbeat_interval;
        }
        self.next_heartbeat
    }

    fn heartbeat(&mut self) -> FollowEvent {
        self.has_delivered = true;
        FollowEvent::Heartbeat(self.delivered)
    }

    fn started(&self, state: MailboxState) -> FollowEvent {
        let MailboxState { range, acknowledged_through } = state;
        let (epoch, after) = (self.store.epoch().clone(), self.delivered);
        FollowEvent::Started { epoch, after, range, acknowledged_through }
    }

    fn turn_live(&mut self) -> Option<FollowEvent> {
        self.phase = Phase::live(None);
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
            return self.deliver(Delivery::Live(message));
        }
        self.phase = Phase::replay();
        None
    }

    fn deliver(&mut self, message: Delivery) -> Option<FollowEvent> {
        self.delivered = message.sequence_for(self.owner)?;
        let wanted = !self.received_only || message.is_received_by(self.owner);
        wanted.then_some(FollowEvent::Message(message))
    }

    /// Takes the next page, and lets the one after it be read while this one is delivered.
    async fn read_page(&mut self) -> Result<(), MessengerError> {
        let ahead = match &mut self.phase {
            Phase::Replaying { ahead, .. } => ahead.take(),
            _ => None,
        };
        let Page { messages, has_more, range } = match ahead {
            Some(ahead) => ahead.page().await?,
            None => self.store.page_in_turn(self.page_after(self.delivered)).await?,
        };
        // What comes next may have been removed meanwhile.
        if self.delivered < before_first(&range) {
            MessengerError::check_after(Cursor::After, self.delivered, &range)?;
        }
        let last = messages.last().and_then(|message| message.sequence_for(self.owner));
        let ahead = last.filter(|_| has_more).and_then(|last| {
            let query = self.page_after(last);
            self.store.page_ahead(query)
        });
        let page = messages.into_iter();
        self.phase = Phase::Replaying { page, page_is_last: !has_more, ahead };
        Ok(())
    }

    /// All entries, sent ones too, so that the page proves its density.
    fn page_after(&self, after: Sequence) -> PageQuery {
        PageQuery {
            owner: self.owner,
            start: PageStart::After(after),
            peer: None,
            received_only: false,
            messages_max: REPLAY_PAGE_MESSAGES,
            bytes_max: REPLAY_PAGE_BYTES,
        }
    }
}

/// The cursor from which the whole mailbox is delivered.
pub(super) fn before_first(range: &MailboxRange) -> Sequence {
    Sequence::parse(range.first.get() - 1).unwrap_or(Sequence::ZERO)
}

impl Phase {
    /// A replay whose first page is still to be read.
    fn replay() -> Self {
        Self::Replaying { page: Vec::new().into_iter(), page_is_last: false, ahead: None }
    }

    fn live(batch: Option<Arc<Batch>>) -> Self {
        Self::Live { batch, taken: 0 }
    }
}
