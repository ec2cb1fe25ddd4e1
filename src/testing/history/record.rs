//! What a history is made of: calls with what was asked, when, and what came of it. Compact, since a
//! history holds every message several times: names are numbers, and contents are digests.

use std::num::NonZero;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::proto::{ErrorReason, Message, SendMessageRequest, message, send_message_request};

/// A moment of a history: nanoseconds since its start, on a clock that never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(pub(super) u64);

impl Moment {
    /// After everything: the answer never came.
    pub const NEVER: Self = Self(u64::MAX);

    pub(super) fn after_start(elapsed: Duration) -> Self {
        Self(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// A user of a history, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserNo(pub(super) u32);

/// A stream of `SendMessages`, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamNo(pub(super) u32);

/// A send, by its place among the sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SendNo(pub(super) u32);

/// Another call with one answer, by its place among the calls of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallNo(pub(super) u32);

/// A subscription, by its place among the subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FollowNo(pub(super) u32);

/// The digest of a text that is only ever compared: a `request_id`, an epoch, an address. `None` for
/// an empty one.
pub(super) type Digest = Option<NonZero<u64>>;

pub(super) fn digest(text: &str) -> Digest {
    if text.is_empty() { None } else { Some(never_zero(xxh3_64(text.as_bytes()))) }
}

fn never_zero(number: u64) -> NonZero<u64> {
    NonZero::new(number).unwrap_or(NonZero::<u64>::MAX)
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome<T> {
    /// Done, with this answer.
    Ok(T),
    /// Refused: certainly not done.
    Failed(Box<Refused>),
    /// Done or not. What was never answered stays so.
    Unknown,
}

impl<T> Outcome<T> {
    /// The answer of a call that was done.
    pub(super) fn ok(&self) -> Option<&T> {
        match self {
            Self::Ok(answer) => Some(answer),
            Self::Failed(_) | Self::Unknown => None,
        }
    }

    /// Why it was refused.
    pub(super) fn refused(&self) -> Option<&Refused> {
        match self {
            Self::Failed(refused) => Some(refused),
            Self::Ok(_) | Self::Unknown => None,
        }
    }

    /// Whether it certainly was not done.
    pub(super) fn is_failed(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}

/// A refusal with the service's own reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) code: Code,
    pub(super) reason: ErrorReason,
    /// `min_sequence` and `max_sequence`.
    pub(super) range: Option<(i64, i64)>,
    pub(super) epoch: Digest,
}

impl Refused {
    /// What a status says for certain. `None`: the call was done or not, and nobody knows.
    pub(super) fn of(status: &Status) -> Option<Box<Self>> {
        let details = status.get_error_details();
        let info = details.error_info()?;
        let reason = ErrorReason::from_reason(&info.reason)?;
        match reason {
            ErrorReason::ShuttingDown
            | ErrorReason::StorageFailing
            | ErrorReason::DeadlineExceeded
            | ErrorReason::Unspecified => return None,
            _ => {}
        }
        let number = |key| info.metadata.get(key).and_then(|text: &String| text.parse().ok());
        let epoch = info.metadata.get("epoch").and_then(|epoch| digest(epoch));
        let range = number("min_sequence").zip(number("max_sequence"));
        Some(Box::new(Self { code: status.code(), reason, range, epoch }))
    }
}

/// A call with one answer.
#[derive(Debug, Clone)]
pub(super) struct Call<Q, A> {
    /// Before the request left.
    pub(super) called: Moment,
    /// After the answer came; [`Moment::NEVER`] when none did.
    pub(super) answered: Moment,
    pub(super) asked: Q,
    pub(super) outcome: Outcome<A>,
}

impl<Q, A> Call<Q, A> {
    pub(super) fn begun(called: Moment, asked: Q) -> Self {
        Self { called, answered: Moment::NEVER, asked, outcome: Outcome::Unknown }
    }
}

/// A message as one reader saw it in one mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: Uuid,
    pub(super) sequence: i64,
    pub(super) content: u64,
    pub(super) request: Digest,
    pub(super) from: UserNo,
    pub(super) to: UserNo,
}

/// The digest of what a message says: its body, of which kind it is, and its content type.
pub(super) fn content_of(message: &Message) -> u64 {
    let (kind, body): (u64, &[u8]) = match &message.body {
        Some(message::Body::Text(text)) => (1, text.as_bytes()),
        Some(message::Body::Data(data)) => (2, data),
        None => (0, &[]),
    };
    content(kind, body, &message.content_type)
}

/// The same of a request.
pub(super) fn content_asked(request: &SendMessageRequest) -> u64 {
    let (kind, body): (u64, &[u8]) = match &request.body {
        Some(send_message_request::Body::Text(text)) => (1, text.as_bytes()),
        Some(send_message_request::Body::Data(data)) => (2, data),
        None => (0, &[]),
    };
    content(kind, body, &request.content_type)
}

fn content(kind: u64, body: &[u8], content_type: &str) -> u64 {
    xxh3_64_with_seed(body, xxh3_64_with_seed(content_type.as_bytes(), kind))
}

/// A request to send.
#[derive(Debug, Clone, Copy)]
pub(super) struct SendAsked {
    pub(super) from: UserNo,
    pub(super) to: UserNo,
    pub(super) content: u64,
    pub(super) request: Digest,
    /// The stream on which it was sent, in the order of the sends.
    pub(super) stream: Option<StreamNo>,
}

/// The answer is the entry in the sender's mailbox.
pub(super) type Send = Call<SendAsked, Entry>;

/// Where a page starts, and which way it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cursor {
    After(i64),
    /// 0: from the end.
    Before(i64),
}

/// A request to read a page.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadAsked {
    pub(super) reader: UserNo,
    pub(super) cursor: Cursor,
    pub(super) epoch: Digest,
    pub(super) peer: Option<UserNo>,
    pub(super) received_only: bool,
}

/// A page.
#[derive(Debug, Clone)]
pub(super) struct Page {
    pub(super) entries: Vec<Entry>,
    pub(super) has_more: bool,
    pub(super) epoch: Digest,
    pub(super) last: i64,
}

pub(super) type Read = Call<ReadAsked, Page>;

/// A request to acknowledge.
#[derive(Debug, Clone, Copy)]
pub(super) struct AcknowledgeAsked {
    pub(super) user: UserNo,
    pub(super) through: i64,
    pub(super) epoch: Digest,
}

pub(super) type Acknowledge = Call<AcknowledgeAsked, i64>;

/// A request to register a name or update its address, or to look it up: `address` is `None` for a
/// look-up and where the server is to choose it.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProfileAsked {
    /// Who asks: the user themselves, or who looks them up.
    pub(super) by: UserNo,
    pub(super) user: UserNo,
    pub(super) address: Digest,
}

/// The answer is the address.
pub(super) type Profile = Call<ProfileAsked, Digest>;

/// Where a subscription starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    After(i64),
    FromNow,
    Acknowledged,
}

/// What a subscription told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Started { epoch: Digest, after: i64, last: i64 },
    Message(Entry),
    CaughtUp(i64),
    Heartbeat(i64),
}

/// A subscription.
#[derive(Debug, Clone)]
pub(super) struct Follow {
    pub(super) reader: UserNo,
    pub(super) called: Moment,
    pub(super) start: Start,
    pub(super) epoch: Digest,
    pub(super) received_only: bool,
    /// The one that this takes up again, after the highest sequence seen there.
    pub(super) continues: Option<FollowNo>,
    pub(super) told: Vec<(Moment, Told)>,
    pub(super) refused: Option<(Moment, Box<Refused>)>,
    /// Its reader waited for everything up to this sequence, longer than anyone should have to.
    pub(super) awaited: Option<i64>,
}
