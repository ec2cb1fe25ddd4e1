use std::fmt;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio_stream::Stream;
use uuid::Uuid;

use super::Error;
use crate::proto::{
    self, get_messages_request::Cursor, message, send_message_request, send_messages_request,
};

/// What a message says.
///
/// Unlike the server's own type it is not checked against a limit: which one holds is for the
/// server to say.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Body {
    /// UTF-8 text.
    Text(String),
    /// Opaque bytes, for instance ciphertext.
    Data(Bytes),
    /// None any more: its sender wanted it to be gone by now. Only of messages that come, not to be sent.
    Expired,
}

impl Body {
    /// Its bytes; none of one that is gone.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Data(data) => data,
            Self::Expired => &[],
        }
    }

    /// Its text, unless it is opaque bytes or gone.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Data(_) | Self::Expired => None,
        }
    }
}

/// Bodies are private: only the kind and the size are shown.
impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Text(_) => "Text",
            Self::Data(_) => "Data",
            Self::Expired => "Expired",
        };
        write!(f, "{kind}({} bytes)", self.as_bytes().len())
    }
}

impl From<&str> for Body {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Vec<u8>> for Body {
    fn from(data: Vec<u8>) -> Self {
        Self::Data(data.into())
    }
}

impl From<Bytes> for Body {
    fn from(data: Bytes) -> Self {
        Self::Data(data)
    }
}

/// A message as it stands in the caller's mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// The message's id, the same for both participants.
    pub message_id: String,
    /// The entry's number in the caller's own mailbox: 1 or more.
    pub sequence: i64,
    /// Who sent it.
    pub from_user: String,
    /// Whom it is for.
    pub to_user: String,
    /// When the server accepted it, by the server's clock; of a message that was imported, when it was
    /// sent where it came from. The sequence says the order, not this.
    pub send_time: SystemTime,
    /// What it says.
    pub body: Body,
    /// What the sender said of the body's type; empty when nothing was said.
    pub content_type: String,
    /// The `request_id` with which the caller sent it; `None` for a message of somebody else.
    pub request_id: Option<String>,
    /// When its body goes, as its sender wanted it; `None`: with the message.
    pub expire_time: Option<SystemTime>,
}

impl TryFrom<proto::Message> for Message {
    type Error = Error;

    fn try_from(message: proto::Message) -> Result<Self, Error> {
        let body = match message.body {
            Some(message::Body::Text(text)) => Body::Text(text),
            Some(message::Body::Data(data)) => Body::Data(data),
            None if message.expired => Body::Expired,
            None => return Err(Error::Malformed("a message without a body that it knows")),
        };
        Ok(Self {
            message_id: message.message_id,
            sequence: message.sequence,
            from_user: message.from_user,
            to_user: message.to_user,
            send_time: to_system_time(message.send_time)?,
            body,
            content_type: message.content_type,
            request_id: (!message.request_id.is_empty()).then_some(message.request_id),
            expire_time: message.expire_time.map(|time| to_system_time(Some(time))).transpose()?,
        })
    }
}

pub(super) fn to_system_time(time: Option<prost_types::Timestamp>) -> Result<SystemTime, Error> {
    let time = time.ok_or(Error::Malformed("a time that is not set"))?;
    SystemTime::try_from(time).map_err(|_| Error::Malformed("a time outside the calendar"))
}

/// Messages one after the other. Ends after an error.
pub type MessageStream = Pin<Box<dyn Stream<Item = Result<Message, Error>> + Send>>;

/// A message to send: one value is one message.
///
/// It holds the `request_id` that makes it so: sending the same value again, after an error or by
/// another process that kept the id, stores nothing new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingMessage {
    to_user: String,
    body: Body,
    content_type: String,
    request_id: String,
    expiry: Option<Expiry>,
}

/// When the body of a message is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expiry {
    At(prost_types::Timestamp),
    In(prost_types::Duration),
}

impl OutgoingMessage {
    /// A message for `to_user`, with a fresh UUID as its `request_id`.
    ///
    /// The body has 1 byte or more, and at most 65,536 unless the server's operator set another
    /// limit.
    pub fn new(to_user: impl Into<String>, body: impl Into<Body>) -> Self {
        Self {
            to_user: to_user.into(),
            body: body.into(),
            content_type: String::new(),
            request_id: Uuid::new_v4().to_string(),
            expiry: None,
        }
    }

    /// Lets the body be gone so long after the server took the message: 1 microsecond to ten years. A time
    /// beyond what can be said counts as the longest that can.
    #[must_use]
    pub fn expiring_after(mut self, ttl: Duration) -> Self {
        let longest = prost_types::Duration { seconds: i64::MAX, nanos: 0 };
        self.expiry = Some(Expiry::In(prost_types::Duration::try_from(ttl).unwrap_or(longest)));
        self
    }

    /// Lets the body be gone from this time on, by the server's clock.
    #[must_use]
    pub fn expiring_at(mut self, time: SystemTime) -> Self {
        self.expiry = Some(Expiry::At(time.into()));
        self
    }

    /// Says what the body is, for the recipient's program: up to 128 characters of printable ASCII.
    #[must_use]
    pub fn with_content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = content_type.into();
        self
    }

    /// Sets the `request_id`: 1 to 64 characters of visible ASCII, unique among all that this user
    /// sends.
    #[must_use]
    pub fn with_request_id(mut self, request_id: impl Into<String>) -> Self {
        self.request_id = request_id.into();
        self
    }

    /// The `request_id`, for those who keep it to send the message again later.
    pub fn request_id(&self) -> &str {
        &self.request_id
    }
}

impl OutgoingMessage {
    /// The bytes of its body.
    pub(super) fn body_bytes(&self) -> usize {
        self.body.as_bytes().len()
    }

    /// With a fresh `request_id`, if it has none.
    pub(super) fn identified(mut self) -> Self {
        if self.request_id.is_empty() {
            self.request_id = Uuid::new_v4().to_string();
        }
        self
    }
}

impl From<OutgoingMessage> for proto::SendMessagesRequest {
    fn from(message: OutgoingMessage) -> Self {
        Self {
            to_user: message.to_user,
            body: Some(match message.body {
                Body::Text(text) => send_messages_request::Body::Text(text),
                Body::Data(data) => send_messages_request::Body::Data(data),
                // Nothing: the server refuses it.
                Body::Expired => send_messages_request::Body::Data(Bytes::new()),
            }),
            content_type: message.content_type,
            request_id: message.request_id,
            expiry: message.expiry.map(|expiry| match expiry {
                Expiry::At(time) => send_messages_request::Expiry::ExpireTime(time),
                Expiry::In(ttl) => send_messages_request::Expiry::Ttl(ttl),
            }),
        }
    }
}

impl From<OutgoingMessage> for proto::SendMessageRequest {
    fn from(message: OutgoingMessage) -> Self {
        Self {
            to_user: message.to_user,
            body: Some(match message.body {
                Body::Text(text) => send_message_request::Body::Text(text),
                Body::Data(data) => send_message_request::Body::Data(data),
                // Nothing: the server refuses it.
                Body::Expired => send_message_request::Body::Data(Bytes::new()),
            }),
            content_type: message.content_type,
            request_id: message.request_id,
            expiry: message.expiry.map(|expiry| match expiry {
                Expiry::At(time) => send_message_request::Expiry::ExpireTime(time),
                Expiry::In(ttl) => send_message_request::Expiry::Ttl(ttl),
            }),
        }
    }
}

/// Which page of the mailbox to read.
#[derive(Debug, Clone, PartialEq)]
pub struct PageRequest(proto::GetMessagesRequest);

impl PageRequest {
    /// The oldest messages after `sequence`; 0 is the beginning of a mailbox that has lost nothing, and
    /// [`default`](Self::default) of any. The next page is after the last message of this one.
    pub fn after(sequence: i64) -> Self {
        Self::with_cursor(Cursor::AfterSequence(sequence))
    }

    /// The newest messages before `sequence`. The next page is before the first message of this one.
    pub fn before(sequence: i64) -> Self {
        Self::with_cursor(Cursor::BeforeSequence(sequence))
    }

    /// The newest messages of all.
    pub fn newest() -> Self {
        Self::before(0)
    }

    /// Only the conversation with `username`, in both directions.
    #[must_use]
    pub fn peer(mut self, username: impl Into<String>) -> Self {
        self.0.peer = username.into();
        self
    }

    /// Only what was received, a message to oneself included.
    #[must_use]
    pub fn received_only(mut self, received_only: bool) -> Self {
        self.0.received_only = received_only;
        self
    }

    /// The most messages to return: 1 to 1,000. Default: 100.
    #[must_use]
    pub fn page_size(mut self, messages: u16) -> Self {
        self.0.page_size = messages.into();
        self
    }

    /// The epoch in which the cursor was obtained, to have it checked.
    #[must_use]
    pub fn epoch(mut self, epoch: impl Into<String>) -> Self {
        self.0.epoch = epoch.into();
        self
    }

    /// The page after this one, which holds something, in the same direction and the same epoch.
    pub(super) fn next(mut self, page: &Page) -> Option<Self> {
        let first = page.messages.first()?.sequence;
        let last = page.messages.last()?.sequence;
        self.0.cursor = Some(if self.is_backwards() {
            Cursor::BeforeSequence(first)
        } else {
            Cursor::AfterSequence(last)
        });
        self.0.epoch.clone_from(&page.epoch);
        Some(self)
    }

    /// Whether it reads from the newest to the oldest.
    pub(super) fn is_backwards(&self) -> bool {
        matches!(self.0.cursor, Some(Cursor::BeforeSequence(_)))
    }

    fn with_cursor(cursor: Cursor) -> Self {
        Self(proto::GetMessagesRequest { cursor: Some(cursor), ..Default::default() })
    }
}

/// From the beginning of what the mailbox still has, forwards.
impl Default for PageRequest {
    fn default() -> Self {
        Self(proto::GetMessagesRequest::default())
    }
}

impl From<PageRequest> for proto::GetMessagesRequest {
    fn from(request: PageRequest) -> Self {
        request.0
    }
}

/// A page of the caller's mailbox.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Page {
    /// The messages, in ascending order of sequence, whichever way the page was read. Possibly
    /// fewer than asked for, with more to come: see `has_more`.
    pub messages: Vec<Message>,
    /// Whether more messages match in the direction of the page.
    pub has_more: bool,
    /// The current epoch: pass it with the cursor of the next page.
    pub epoch: String,
    /// The first sequence that the mailbox still holds; `last_sequence` + 1 when it holds none.
    pub first_sequence: i64,
    /// The last sequence that the mailbox gave out; 0 when it gave out none.
    pub last_sequence: i64,
}

impl TryFrom<proto::GetMessagesResponse> for Page {
    type Error = Error;

    fn try_from(page: proto::GetMessagesResponse) -> Result<Self, Error> {
        Ok(Self {
            messages: page.messages.into_iter().map(Message::try_from).collect::<Result<_, _>>()?,
            has_more: page.has_more,
            epoch: page.epoch,
            first_sequence: page.first_sequence,
            last_sequence: page.last_sequence,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_is_one_of_its_own_and_keeps_its_request_id() {
        let message = OutgoingMessage::new("bob", "hi");
        let again = proto::SendMessageRequest::from(message.clone());
        assert_eq!(again.request_id, message.request_id());
        assert_ne!(OutgoingMessage::new("bob", "hi").request_id(), message.request_id());
    }

    #[test]
    fn bodies_are_not_shown() {
        let message = OutgoingMessage::new("bob", "secret");
        assert!(!format!("{message:?}").contains("secret"));
    }

    #[test]
    fn an_incomplete_message_is_refused_and_not_guessed_at() {
        let message = proto::Message { send_time: Some(<_>::default()), ..Default::default() };
        assert!(matches!(Message::try_from(message), Err(Error::Malformed(_))));
        let body = Some(message::Body::Text("hi".into()));
        let message = proto::Message { body, ..Default::default() };
        assert!(matches!(Message::try_from(message), Err(Error::Malformed(_))));
    }
}
