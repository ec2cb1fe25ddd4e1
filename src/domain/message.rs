use std::fmt;
use std::time::Duration;

use uuid::Uuid;

use super::{Content, RequestId, Sequence, Timestamp, User, UserId};

/// A message's id, the same for both participants and unique across epochs: a `UUIDv7` (RFC 9562).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageId(Uuid);

impl MessageId {
    /// A new one.
    pub fn mint() -> Self {
        Self(Uuid::now_v7())
    }

    /// From the 16 bytes that are stored.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Its text form.
    pub fn to_text(&self) -> String {
        // At once, not through a formatter: every message delivered takes this way.
        self.0.hyphenated().encode_lower(&mut Uuid::encode_buffer()).to_owned()
    }

    /// The 16 bytes that are stored.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// A committed message: one row of the log, an entry in one or two mailboxes.
#[derive(Debug, Clone)]
pub struct Message {
    /// The id that both participants see.
    pub id: MessageId,
    /// Who sent it.
    pub sender: User,
    /// Whom it is for; the sender themselves for a note to self.
    pub receiver: User,
    /// Its number in the sender's mailbox.
    pub sender_sequence: Sequence,
    /// Its number in the receiver's mailbox; for a note to self the same as the sender's.
    pub receiver_sequence: Sequence,
    /// When the server accepted it; of an imported message, when it was sent where it came from.
    pub send_time: Timestamp,
    /// What it says.
    pub content: Content,
    /// The sender's idempotency key.
    pub request_id: Option<RequestId>,
    /// When its body goes, if it is to.
    pub expiry: Option<MessageExpiry>,
}

/// A message's end: its entry stays, and its body goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageExpiry {
    /// From this time on nobody is given the body.
    pub time: Timestamp,
    /// The body is gone, whatever the clock says; an empty one stands in its place.
    pub is_erased: bool,
}

/// When a sender wants a message's body to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// At this time.
    At(Timestamp),
    /// So long after it was sent.
    After(Duration),
}

impl Expiry {
    /// When that is for a message that is sent at this time.
    pub fn time(self, send_time: Timestamp) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::After(ttl) => send_time.after(ttl),
        }
    }
}

impl Message {
    /// Whether its body is not to be given to anyone at this moment.
    pub fn is_expired(&self) -> bool {
        self.expiry.is_some_and(|expiry| expiry.is_erased || expiry.time <= Timestamp::now())
    }

    /// Its number in `owner`'s mailbox, or `None` when it is not in there.
    pub fn sequence_for(&self, owner: UserId) -> Option<Sequence> {
        if self.receiver.id == owner {
            Some(self.receiver_sequence)
        } else if self.sender.id == owner {
            Some(self.sender_sequence)
        } else {
            None
        }
    }

    /// Whether one of the two sent it to the other.
    pub fn is_between(&self, one: UserId, other: UserId) -> bool {
        let pair = (self.sender.id, self.receiver.id);
        pair == (one, other) || pair == (other, one)
    }

    /// Whether `owner` received it; a note to self is received.
    pub fn is_received_by(&self, owner: UserId) -> bool {
        self.receiver.id == owner
    }
}
