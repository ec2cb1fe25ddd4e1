//! Requests into domain terms. Every problem of a request is reported at once.

use std::fmt::Display;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::error::{CallError, FieldProblem};
use crate::auth::TokenRequest;
use crate::domain::limits::{
    EPOCH_CHARACTERS_MAX, HEARTBEAT_INTERVAL_DEFAULT, HEARTBEAT_INTERVAL_MAX,
    HEARTBEAT_INTERVAL_MIN, MESSAGE_TTL_MAX, PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX,
    TOKEN_NAME_CHARACTERS_MAX, TTL_MAX,
};
use crate::domain::{
    AccessId, Body, BodyError, Content, ContentType, Epoch, Expiry, Invite, InviteHash, Label,
    PeerAddress, RequestId, Sequence, Timestamp, Username, UsernamePrefix,
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

/// A name to register, and the address and the invite if the request has them.
pub(super) fn register(
    request: &proto::RegisterRequest,
) -> Decoded<(Username, Option<PeerAddress>, Option<InviteHash>)> {
    let mut fields = Fields::default();
    let name = fields.check("username", Username::parse(&request.username));
    let address = match request.ip_address.as_str() {
        "" => Some(None),
        text => fields.check("ip_address", PeerAddress::parse(text)).map(Some),
    };
    let invite = match request.invite.as_str() {
        "" => Some(None),
        text => fields.check("invite", Invite::parse(text)).map(|it| Some(it.hash())),
    };
    let registered = name.zip(address).zip(invite);
    fields.finish(registered.map(|((name, address), invite)| (name, address, invite)))
}

/// What a token is asked for.
pub(super) fn create_token(request: &proto::CreateTokenRequest) -> Decoded<TokenRequest> {
    use proto::create_token_request::Expiration;
    let mut fields = Fields::default();
    let name = Label::parse(&request.display_name, TOKEN_NAME_CHARACTERS_MAX);
    let name = fields.check("display_name", name);
    let expire_time = match &request.expiration {
        None => Some(None),
        Some(Expiration::ExpireTime(time)) => {
            fields.check("expire_time", time_to_come(time)).map(Some)
        }
        Some(Expiration::Ttl(ttl)) => fields.check("ttl", after_ttl(ttl)).map(Some),
    };
    let wanted = name.zip(expire_time);
    fields.finish(wanted.map(|(name, expire_time)| TokenRequest { name, expire_time }))
}

/// The size of a page of tokens or invites, and after which the page begins.
pub(super) fn page_of_ids(asked: i32, page_token: &str) -> Decoded<(usize, Option<AccessId>)> {
    let mut fields = Fields::default();
    let page_size = page_size(&mut fields, asked);
    let after = match page_token {
        "" => Some(None),
        text => {
            let after = AccessId::parse(text).map_err(|_| FOREIGN);
            fields.check("page_token", after).map(Some)
        }
    };
    fields.finish(page_size.zip(after))
}

/// The id of a token or an invite.
pub(super) fn id(field: &str, text: &str) -> Decoded<AccessId> {
    AccessId::parse(text).map_err(|problem| CallError::invalid_field(field, problem.to_string()))
}

/// A line for people.
pub(super) fn label(field: &str, text: &str, characters_max: usize) -> Decoded<Label> {
    let label = Label::parse(text, characters_max);
    label.map_err(|problem| CallError::invalid_field(field, problem.to_string()))
}

/// When what is good for so long expires.
pub(super) fn ttl(ttl: Option<&prost_types::Duration>) -> Decoded<Option<Timestamp>> {
    let time = ttl.map(after_ttl).transpose();
    time.map_err(|problem| CallError::invalid_field("ttl", problem))
}

/// A time, any.
pub(super) fn time(field: &str, time: &prost_types::Timestamp) -> Decoded<Timestamp> {
    micros(time).ok_or_else(|| CallError::invalid_field(field, "is no time"))
}

/// The size of a page, of a request that has nothing else to check.
pub(super) fn page_size_alone(asked: i32) -> Decoded<usize> {
    let mut fields = Fields::default();
    let page_size = page_size(&mut fields, asked);
    fields.finish(page_size)
}

/// A time to come, within bounds.
fn time_to_come(time: &prost_types::Timestamp) -> Result<Timestamp, &'static str> {
    let now = Timestamp::now();
    let time = micros(time).ok_or(NOT_TO_COME)?;
    if time > now && time <= now.plus(TTL_MAX) { Ok(time) } else { Err(NOT_TO_COME) }
}

fn micros(time: &prost_types::Timestamp) -> Option<Timestamp> {
    const MICROS_PER_SECOND: i64 = 1_000_000;
    const NANOS_PER_MICRO: u32 = 1_000;
    let nanos = u32::try_from(time.nanos).ok().filter(|nanos| *nanos < NANOS_PER_SECOND)?;
    let micros = time.seconds.checked_mul(MICROS_PER_SECOND)?;
    micros.checked_add(i64::from(nanos / NANOS_PER_MICRO)).map(Timestamp::from_micros)
}

/// The time so long from now.
fn after_ttl(ttl: &prost_types::Duration) -> Result<Timestamp, &'static str> {
    const PROBLEM: &str = "must be more than zero, and 100 years at most";
    let nanos = u32::try_from(ttl.nanos).ok().filter(|nanos| *nanos < NANOS_PER_SECOND);
    let seconds = u64::try_from(ttl.seconds).ok();
    let ttl = seconds.zip(nanos).map(|(seconds, nanos)| Duration::new(seconds, nanos));
    let ttl = ttl.filter(|ttl| !ttl.is_zero() && *ttl <= TTL_MAX).ok_or(PROBLEM)?;
    Ok(Timestamp::now().plus(ttl))
}

const NOT_TO_COME: &str = "must be a time to come, in 100 years at most";

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
            let ttl = duration(&ttl).filter(|it| (TTL_MIN..=MESSAGE_TTL_MAX).contains(it));
            let days = MESSAGE_TTL_MAX.as_secs() / (24 * 60 * 60);
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

/// The user whom a request is about.
pub(super) fn username(text: &str) -> Decoded<Username> {
    let mut fields = Fields::default();
    let name = fields.check("username", Username::parse(text));
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

/// What is wrong with a page token.
const FOREIGN: &str = "is not a next_page_token of this list";

/// The token of the page after the key `after`: opaque to callers.
pub(super) fn encode_page_token(after: &str) -> String {
    URL_SAFE_NO_PAD.encode(after)
}

/// The key in a page token; of a list with this prefix, unless the prefix is no good itself.
fn page_token(text: &str, prefix: Option<&UsernamePrefix>) -> Result<String, &'static str> {
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
