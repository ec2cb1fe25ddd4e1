//! Requests into domain terms. Every problem of a request is reported at once.

use std::fmt::Display;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::error::{CallError, FieldProblem};
use crate::domain::limits::{
    EPOCH_CHARACTERS_MAX, HEARTBEAT_INTERVAL_DEFAULT, HEARTBEAT_INTERVAL_MAX,
    HEARTBEAT_INTERVAL_MIN, PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, TTL_MAX,
};
use crate::domain::{
    Body, BodyError, Content, ContentType, Epoch, Expiry, PeerAddress, RequestId, Sequence,
    Timestamp, Username, UsernamePrefix,
};
use crate::messenger::{FollowRequest, FollowStart, Outgoing, PageRequest};
use crate::proto;
use crate::store::PageStart;

type Decoded<T> = Result<T, CallError>;

const NANOS_PER_SECOND: u32 = 1_000_000_000;

/// What protobuf's Timestamp can say: from year 1 to year 9999.
const SECONDS_OF_TIMES: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// Times are kept to the microsecond.
const TTL_MIN: Duration = Duration::from_micros(1);

/// Collects what is wrong with a request's fields.
#[derive(Default)]
struct Fields(Vec<FieldProblem>);

impl Fields {
    /// The value, or `None` after noting the problem.
    fn check<T, E: Display>(&mut self, field: &str, parsed: Result<T, E>) -> Option<T> {
        parsed.map_err(|problem| self.refuse(field, &problem)).ok()
    }

    fn refuse(&mut self, field: &str, problem: &dyn Display) {
        self.0.push(FieldProblem { field: field.to_owned(), problem: problem.to_string() });
    }

    /// The request put together from its values, if all are there.
    fn finish<T>(self, value: Option<T>) -> Decoded<T> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(CallError::InvalidFields(self.0)),
        }
    }
}

/// A name to register, and the address if the request has one.
pub(super) fn register(
    request: &proto::RegisterRequest,
) -> Decoded<(Username, Option<PeerAddress>)> {
    let mut fields = Fields::default();
    let name = fields.check("username", Username::parse(&request.username));
    let address = match request.ip_address.as_str() {
        "" => Some(None),
        text => fields.check("ip_address", PeerAddress::parse(text)).map(Some),
    };
    fields.finish(name.zip(address))
}

/// The two requests are the same, field by field.
impl From<proto::SendMessagesRequest> for proto::SendMessageRequest {
    fn from(request: proto::SendMessagesRequest) -> Self {
        use proto::{send_message_request as one, send_messages_request as many};
        Self {
            to_user: request.to_user,
            body: request.body.map(|body| match body {
                many::Body::Text(text) => one::Body::Text(text),
                many::Body::Data(data) => one::Body::Data(data),
            }),
            content_type: request.content_type,
            request_id: request.request_id,
            expiry: request.expiry.map(|expiry| match expiry {
                many::Expiry::ExpireTime(time) => one::Expiry::ExpireTime(time),
                many::Expiry::Ttl(ttl) => one::Expiry::Ttl(ttl),
            }),
        }
    }
}

pub(super) fn send_message(
    request: proto::SendMessageRequest,
    body_bytes_max: usize,
) -> Decoded<Outgoing> {
    let mut fields = Fields::default();
    let to = fields.check("to_user", Username::parse(&request.to_user));
    let body = body(&mut fields, request.body, body_bytes_max)?;
    let content_type = fields.check("content_type", ContentType::parse(request.content_type));
    let request_id = fields.check("request_id", RequestId::parse(request.request_id));
    let expiry = expiry(request.expiry).map_err(|problem| fields.0.push(problem)).ok();
    let parts = to.zip(body).zip(content_type.zip(request_id)).zip(expiry);
    fields.finish(parts.map(|(((to, body), (content_type, request_id)), expiry)| Outgoing {
        to,
        content: Content { body, content_type },
        request_id,
        expiry,
    }))
}

/// When the message is to expire, if it is to. Whether that is past is for the store to say, since a send that
/// is repeated is answered all the same.
fn expiry(
    asked: Option<proto::send_message_request::Expiry>,
) -> Result<Option<Expiry>, FieldProblem> {
    use proto::send_message_request::Expiry as Field;
    let wrong = |field: &str, problem: String| FieldProblem { field: field.to_owned(), problem };
    match asked {
        None => Ok(None),
        Some(Field::ExpireTime(time)) => match timestamp(&time) {
            Ok(time) => Ok(Some(Expiry::At(time))),
            Err(problem) => Err(wrong("expire_time", problem.to_owned())),
        },
        Some(Field::Ttl(ttl)) => {
            let ttl = duration(&ttl).filter(|it| (TTL_MIN..=TTL_MAX).contains(it));
            let days = TTL_MAX.as_secs() / (24 * 60 * 60);
            let problem = || format!("is out of bounds: 1 microsecond to {days} days");
            ttl.map(|ttl| Some(Expiry::After(ttl))).ok_or_else(|| wrong("ttl", problem()))
        }
    }
}

/// A time, to the microsecond.
fn timestamp(time: &prost_types::Timestamp) -> Result<Timestamp, &'static str> {
    const NO_TIME: &str = "is no time from year 1 to year 9999";
    let nanos = u32::try_from(time.nanos).map_err(|_| NO_TIME)?;
    if nanos >= NANOS_PER_SECOND || !SECONDS_OF_TIMES.contains(&time.seconds) {
        return Err(NO_TIME);
    }
    Ok(Timestamp::from_micros(time.seconds * 1_000_000 + i64::from(nanos / 1_000)))
}

/// By hand: prost's own conversion overflows on parts that no duration has.
pub(super) fn duration(asked: &prost_types::Duration) -> Option<Duration> {
    match (u64::try_from(asked.seconds), u32::try_from(asked.nanos)) {
        (Ok(seconds), Ok(nanos)) if nanos < NANOS_PER_SECOND => Some(Duration::new(seconds, nanos)),
        _ => None,
    }
}

/// The body. One over the limit is an error of its own, with its own reason.
fn body(
    fields: &mut Fields,
    body: Option<proto::send_message_request::Body>,
    body_bytes_max: usize,
) -> Decoded<Option<Body>> {
    use proto::send_message_request::Body as Field;

    let (field, parsed) = match body {
        None => {
            fields.refuse("body", &"is required: `text` or `data`");
            return Ok(None);
        }
        Some(Field::Text(text)) => ("text", Body::text(text, body_bytes_max)),
        Some(Field::Data(data)) => ("data", Body::data(data, body_bytes_max)),
    };
    match parsed {
        Err(BodyError::TooLarge { limit_bytes, actual_bytes }) => {
            Err(CallError::BodyTooLarge { field, limit_bytes, actual_bytes: Some(actual_bytes) })
        }
        parsed => Ok(fields.check(field, parsed)),
    }
}

pub(super) fn get_messages(request: proto::GetMessagesRequest) -> Decoded<PageRequest> {
    use proto::get_messages_request::Cursor;

    let mut fields = Fields::default();
    let start = match request.cursor {
        None => Some(None),
        Some(Cursor::AfterSequence(n)) => {
            let after = fields.check("after_sequence", Sequence::parse(n));
            after.map(|after| Some(PageStart::After(after)))
        }
        Some(Cursor::BeforeSequence(n)) => {
            let before = fields.check("before_sequence", Sequence::parse(n));
            before.map(|before| Some(PageStart::Before(before)))
        }
    };
    let epoch = fields.check("epoch", epoch(request.epoch));
    let peer = match request.peer.as_str() {
        "" => Some(None),
        text => fields.check("peer", Username::parse(text)).map(Some),
    };
    let page_size = page_size(&mut fields, request.page_size);
    let parts = start.zip(epoch).zip(peer.zip(page_size));
    fields.finish(parts.map(|((start, epoch), (peer, page_size))| PageRequest {
        start,
        epoch,
        peer,
        received_only: request.received_only,
        page_size,
    }))
}

pub(super) fn subscribe(request: proto::SubscribeRequest) -> Decoded<FollowRequest> {
    use proto::subscribe_request::Start;

    let mut fields = Fields::default();
    let start = match request.start {
        None => Some(FollowStart::Acknowledged),
        Some(Start::AfterSequence(n)) => {
            fields.check("after_sequence", Sequence::parse(n)).map(FollowStart::After)
        }
        Some(Start::FromNow(true)) => Some(FollowStart::Now),
        Some(Start::FromNow(false)) => {
            fields.refuse("from_now", &"is false; it must be true when it is set");
            None
        }
    };
    let epoch = fields.check("epoch", epoch(request.epoch));
    let heartbeat_interval = heartbeat_interval(&mut fields, request.heartbeat_interval);
    let parts = start.zip(epoch).zip(heartbeat_interval);
    fields.finish(parts.map(|((start, epoch), heartbeat_interval)| FollowRequest {
        start,
        epoch,
        received_only: request.received_only,
        heartbeat_interval,
    }))
}

pub(super) fn acknowledge(
    request: proto::AcknowledgeRequest,
) -> Decoded<(Sequence, Option<Epoch>)> {
    let mut fields = Fields::default();
    let through = fields.check("through_sequence", Sequence::parse(request.through_sequence));
    let epoch = fields.check("epoch", epoch(request.epoch));
    fields.finish(through.zip(epoch))
}

pub(super) fn get_user(request: &proto::GetUserRequest) -> Decoded<Username> {
    let mut fields = Fields::default();
    let name = fields.check("username", Username::parse(&request.username));
    fields.finish(name)
}

/// The prefix, the key after which the page begins, and the page's size.
pub(super) fn list_users(
    request: &proto::ListUsersRequest,
) -> Decoded<(UsernamePrefix, String, usize)> {
    let mut fields = Fields::default();
    let prefix = fields.check("prefix", UsernamePrefix::parse(&request.prefix));
    let after = fields.check("page_token", page_token(&request.page_token, prefix.as_ref()));
    let page_size = page_size(&mut fields, request.page_size);
    let parts = prefix.zip(after).zip(page_size);
    fields.finish(parts.map(|((prefix, after), page_size)| (prefix, after, page_size)))
}

/// The token of the page after the key `after`: opaque to callers.
pub(super) fn encode_page_token(after: &str) -> String {
    URL_SAFE_NO_PAD.encode(after)
}

/// The key in a page token; of a list with this prefix, unless the prefix is no good itself.
fn page_token(text: &str, prefix: Option<&UsernamePrefix>) -> Result<String, &'static str> {
    const FOREIGN: &str = "is not a next_page_token of this list";
    if text.is_empty() {
        return Ok(String::new());
    }
    let key = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    match key {
        Some(key)
            if Username::parse(&key).is_ok()
                && prefix.is_none_or(|prefix| key.starts_with(prefix.as_str())) =>
        {
            Ok(key)
        }
        _ => Err(FOREIGN),
    }
}

/// The epoch, if there is one to check.
fn epoch(text: String) -> Result<Option<Epoch>, String> {
    match text.chars().count() {
        0 => Ok(None),
        1..=EPOCH_CHARACTERS_MAX => Ok(Some(Epoch::from_text(text))),
        n => Err(format!("has {n} characters, at most {EPOCH_CHARACTERS_MAX} are allowed")),
    }
}

fn page_size(fields: &mut Fields, asked: i32) -> Option<usize> {
    match usize::try_from(asked) {
        Ok(0) => Some(PAGE_SIZE_DEFAULT),
        Ok(size) => Some(size.min(PAGE_SIZE_MAX)),
        Err(_) => {
            fields.refuse("page_size", &format!("is {asked}; it is not negative"));
            None
        }
    }
}

fn heartbeat_interval(
    fields: &mut Fields,
    asked: Option<prost_types::Duration>,
) -> Option<Duration> {
    let asked = asked.filter(|duration| duration.seconds != 0 || duration.nanos != 0);
    let Some(asked) = asked else {
        return Some(HEARTBEAT_INTERVAL_DEFAULT);
    };
    let interval = duration(&asked);
    let bounds = HEARTBEAT_INTERVAL_MIN..=HEARTBEAT_INTERVAL_MAX;
    let interval = interval.filter(|interval| bounds.contains(interval));
    if interval.is_none() {
        let problem = format!(
            "is out of bounds: {} to {} seconds",
            HEARTBEAT_INTERVAL_MIN.as_secs(),
            HEARTBEAT_INTERVAL_MAX.as_secs()
        );
        fields.refuse("heartbeat_interval", &problem);
    }
    interval
}
