//! The one table from errors to statuses, with their reasons and details.

use std::time::Duration;

use prost::Message as _;
use tonic::{Code, Status};

use super::refusal::Refusal;
use crate::auth::AuthError;
use crate::domain::{Sequence, Username};
use crate::messenger::{Cursor, MessengerError, Role};
use crate::proto::ErrorReason;
use crate::store::accounts::EndCause;
use crate::store::accounts::invites::InviteProblem;
use crate::store::{MailboxLimit, StoreError};

/// When to try again after a refusal by a full queue: its contents are written in less.
const RETRY_AFTER_OVERLOAD: Duration = Duration::from_millis(250);

/// When to try again after a limit that frees up as others end.
const RETRY_AFTER_LIMIT: Duration = Duration::from_secs(5);

/// When to try again after a refusal by something that is full until some of it is removed: a mailbox gets
/// room by a pass of retention, a user's tokens when one is revoked.
const RETRY_AFTER_FULL: Duration = Duration::from_mins(1);

/// When to try again while the storage is failing: it is opened again twice a second.
const RETRY_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Why a call ends without its answer.
#[derive(Debug, Clone)]
pub(super) enum CallError {
    /// Fields that are missing, malformed or out of their bounds.
    InvalidFields(Vec<FieldProblem>),
    /// A body over the limit; `actual_bytes` is unknown for one that was refused unread.
    BodyTooLarge {
        field: &'static str,
        limit_bytes: usize,
        actual_bytes: Option<usize>,
    },
    /// No `authorization` metadata.
    TokenMissing,
    /// An open server, and neither `authorization` nor `peerpost-user` metadata.
    NameMissing,
    /// Something else than a bearer token of this kind.
    TokenMalformed,
    /// The `grpc-timeout` ran out.
    DeadlineExceeded,
    /// Requests and answers in transit hold too much of the memory for this one too.
    MemoryFull {
        held_bytes_max: usize,
    },
    /// The server is draining.
    ShuttingDown,
    Auth(AuthError),
    Messenger(MessengerError),
    /// The caller of a stream is let in no more.
    Ended(EndCause),
}

/// A field and what is wrong with it, as a sentence without its subject.
#[derive(Debug, Clone)]
pub(super) struct FieldProblem {
    pub(super) field: String,
    pub(super) problem: String,
}

impl CallError {
    /// One field is wrong.
    pub(super) fn invalid_field(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::InvalidFields(vec![FieldProblem { field: field.into(), problem: problem.into() }])
    }

    /// The error as a message inside a response: the same code, text and details.
    pub(super) fn into_rpc_status(self) -> tonic_types::Status {
        let status = Status::from(self);
        // The details of a status are this very message, encoded.
        tonic_types::Status::decode(status.details()).unwrap_or_else(|_| tonic_types::Status {
            code: status.code().into(),
            message: status.message().to_owned(),
            details: Vec::new(),
        })
    }
}

impl From<AuthError> for CallError {
    fn from(error: AuthError) -> Self {
        Self::Auth(error)
    }
}

impl From<MessengerError> for CallError {
    fn from(error: MessengerError) -> Self {
        Self::Messenger(error)
    }
}

impl From<StoreError> for CallError {
    fn from(error: StoreError) -> Self {
        Self::Messenger(error.into())
    }
}

impl From<CallError> for Status {
    fn from(error: CallError) -> Self {
        Refusal::of(&error).into_status()
    }
}

/// What a request is refused with when all that is in transit holds nearly `held_bytes_max`.
pub fn over_held_bytes(held_bytes_max: usize) -> Status {
    CallError::MemoryFull { held_bytes_max }.into()
}

/// A number, or that it could not be found out.
fn known(number: Option<u64>) -> String {
    number.map_or_else(|| "unknown".to_owned(), |number| number.to_string())
}

impl Refusal {
    /// The table.
    fn of(error: &CallError) -> Self {
        match error {
            CallError::InvalidFields(fields) => Self::invalid_fields(fields),
            CallError::BodyTooLarge { field, limit_bytes, actual_bytes } => {
                Self::body_too_large(field, *limit_bytes, *actual_bytes)
            }
            CallError::TokenMissing => Self::new(
                Code::Unauthenticated,
                ErrorReason::TokenMissing,
                "the call carries no token; send the metadata `authorization: Bearer <token>` \
                 with the token that Register returned",
            ),
            CallError::NameMissing => Self::new(
                Code::Unauthenticated,
                ErrorReason::TokenMissing,
                "the call does not say whose it is; this server is open, so send the metadata \
                 `peerpost-user: <username>` with the name of a registered user",
            ),
            CallError::TokenMalformed => Self::new(
                Code::Unauthenticated,
                ErrorReason::TokenMalformed,
                "the metadata `authorization` is not `Bearer ` and a token of this service",
            ),
            CallError::Auth(AuthError::UnknownToken) => Self::new(
                Code::Unauthenticated,
                ErrorReason::TokenUnknown,
                "the token is not one of this server's",
            ),
            CallError::Auth(AuthError::ExpiredToken(time)) => Self::new(
                Code::Unauthenticated,
                ErrorReason::TokenExpired,
                format!("the token expired at {}", time.to_rfc3339()),
            )
            .with("expire_time", &time.to_rfc3339()),
            CallError::Auth(AuthError::Banned(name)) => Self::new(
                Code::PermissionDenied,
                ErrorReason::UserBanned,
                format!("{name} is banned from this server; its operator can lift that"),
            )
            .with("username", name),
            CallError::Auth(AuthError::AnotherUser(name)) => Self::new(
                Code::PermissionDenied,
                ErrorReason::UserMismatch,
                format!("the call names {name} in `peerpost-user`, and its token is not theirs"),
            )
            .with("username", name),
            CallError::Auth(AuthError::NoSuchUser(name)) => {
                Self::no_such_user("peerpost-user", name)
            }
            CallError::Auth(AuthError::RegistrationRate(exceeded)) => Self::over_rate(
                ErrorReason::RegistrationRateLimit,
                "registration_rate_per_address",
                "more names were registered from this address than may be",
                exceeded,
            ),
            CallError::DeadlineExceeded => Self::new(
                Code::DeadlineExceeded,
                ErrorReason::DeadlineExceeded,
                "the call's deadline passed before its answer; whether it took effect is unknown, \
                 so repeat a send with the same request_id",
            ),
            CallError::MemoryFull { held_bytes_max } => Self::new(
                Code::ResourceExhausted,
                ErrorReason::MemoryLimit,
                "requests and answers on their way hold too much of the server's memory, and many of \
                 them are of this connection; the request was not read to its end and nothing of it \
                 was done",
            )
            .limit("held_bytes_max", held_bytes_max, RETRY_AFTER_OVERLOAD),
            CallError::ShuttingDown => Self::new(
                Code::Unavailable,
                ErrorReason::ShuttingDown,
                "the server is shutting down; connect again",
            )
            .retry_after(RETRY_AFTER_FAILURE),
            CallError::Messenger(error) => Self::of_messenger(error),
            CallError::Auth(AuthError::Store(error)) => Self::of_store(error),
            CallError::Ended(cause) => Self::of_end(*cause),
        }
    }

    fn of_messenger(error: &MessengerError) -> Self {
        match error {
            MessengerError::NoSuchUser { name, role } => {
                let field = match role {
                    Role::Peer => "peer",
                    Role::Subject => "username",
                };
                Self::no_such_user(field, name)
            }
            MessengerError::OutOfRange { cursor, asked, min, max } => {
                let field = match cursor {
                    Cursor::After => "after_sequence",
                    Cursor::Before => "before_sequence",
                    Cursor::Through => "through_sequence",
                };
                let problem = format!("is {asked}, outside the mailbox: {min} to {max} are valid");
                Self::new(
                    Code::OutOfRange,
                    ErrorReason::SequenceOutOfRange,
                    format!("{field} {problem}"),
                )
                .with("field", &field)
                .with("sequence", &asked)
                .with("min_sequence", &min)
                .with("max_sequence", &max)
                .field(field, problem)
            }
            MessengerError::EpochMismatch { current } => Self::new(
                Code::FailedPrecondition,
                ErrorReason::EpochMismatch,
                "the cursor is of another epoch: the database was created anew or restored since",
            )
            .with("epoch", &current.as_str())
            .field("epoch", "is not the current one"),
            MessengerError::TooManyFollowers(error) => Self::new(
                Code::ResourceExhausted,
                ErrorReason::SubscriptionLimit,
                error.to_string(),
            )
            .limit("subscriptions_per_user", &error.limit, RETRY_AFTER_LIMIT),
            MessengerError::TooManyUsersWithLimits(error) => {
                let (field, problem) = ("username".to_owned(), error.to_string());
                Self::invalid_fields(&[FieldProblem { field, problem }])
            }
            MessengerError::SendRate(exceeded) => Self::over_rate(
                ErrorReason::SendRateLimit,
                "send_rate_per_user",
                "more messages than this user may send in the time",
                exceeded,
            ),
            MessengerError::Store(error) => Self::of_store(error),
        }
    }

    fn of_end(cause: EndCause) -> Self {
        match cause {
            EndCause::Revoked => {
                Self::new(Code::Unauthenticated, ErrorReason::TokenUnknown, "the token was revoked")
            }
            EndCause::Deleted => Self::new(
                Code::Unauthenticated,
                ErrorReason::TokenUnknown,
                "the token's user was deleted",
            ),
            EndCause::Banned => Self::new(
                Code::PermissionDenied,
                ErrorReason::UserBanned,
                "the token's user was banned from this server; its operator can lift that",
            ),
            EndCause::InDoubt => Self::of_store(&StoreError::Failing),
        }
    }

    fn no_such_user(field: &str, name: &Username) -> Self {
        let message = format!("{field}: no user {name} is registered");
        Self::new(Code::NotFound, ErrorReason::UserNotFound, message)
            .with("username", name)
            .with("field", &field)
    }

    fn of_store(error: &StoreError) -> Self {
        match error {
            StoreError::NoSuchReceiver(name) => Self::no_such_user("to_user", name),
            StoreError::UsernameTaken(name) => Self::new(
                Code::AlreadyExists,
                ErrorReason::UsernameTaken,
                format!("username: {name} is registered; its own token can update its address"),
            )
            .with("username", &name),
            StoreError::NoSuchUser(name) => Self::no_such_user("username", name),
            StoreError::RegistrationClosed => Self::new(
                Code::PermissionDenied,
                ErrorReason::RegistrationClosed,
                "username: nobody can register a new name on this server",
            ),
            StoreError::Invite(problem) => Self::new(
                Code::PermissionDenied,
                ErrorReason::InviteInvalid,
                format!("invite: {problem}; its operator gives out invites"),
            )
            .with("problem", &problem_name(*problem)),
            StoreError::TokenLimit { max } => Self::new(
                Code::ResourceExhausted,
                ErrorReason::TokenLimit,
                format!(
                    "there are {max} tokens already, the most that a user has; revoke one first"
                ),
            )
            .limit("tokens_per_user", max, RETRY_AFTER_FULL),
            StoreError::NoSuchToken(id) => Self::new(
                Code::NotFound,
                ErrorReason::TokenNotFound,
                format!("token_id: there is no token {id}"),
            )
            .with("token_id", id)
            .field("token_id", "names none of the user's tokens"),
            StoreError::NoSuchInvite(id) => Self::new(
                Code::NotFound,
                ErrorReason::InviteNotFound,
                format!("invite_id: there is no invite {id}"),
            )
            .with("invite_id", id)
            .field("invite_id", "names no invite"),
            StoreError::RequestIdReused(request_id) => Self::new(
                Code::AlreadyExists,
                ErrorReason::RequestIdReused,
                "request_id: was used before for a message with another recipient, body or \
                 content type; that one stands and nothing was stored",
            )
            .with("request_id", &request_id.as_str()),
            StoreError::MailboxFull { owner, limit, value } => {
                Self::mailbox_full(owner, *limit, *value)
            }
            StoreError::Expired => Self::new(
                Code::InvalidArgument,
                ErrorReason::MessageExpired,
                "expire_time: is not after the present; nothing was stored",
            )
            .field("expire_time", "is not after the present"),
            StoreError::WriteQueueFull { limit_bytes } => Self::new(
                Code::ResourceExhausted,
                ErrorReason::WriteQueueFull,
                "more waits to be written than the server queues; nothing was stored",
            )
            .limit("write_queue_bytes", limit_bytes, RETRY_AFTER_OVERLOAD),
            StoreError::ReadQueueFull { readers } => Self::new(
                Code::ResourceExhausted,
                ErrorReason::ReadQueueFull,
                "all of the server's readers are busy",
            )
            .limit("readers", readers, RETRY_AFTER_OVERLOAD),
            StoreError::DiskFull { disk_bytes } => Self::new(
                Code::ResourceExhausted,
                ErrorReason::DiskFull,
                "the disk that holds the server's data is full; nothing was stored",
            )
            .limit("disk", &known(*disk_bytes), RETRY_AFTER_LIMIT),
            StoreError::Failing => Self::new(
                Code::Unavailable,
                ErrorReason::StorageFailing,
                "the storage is failing; a message may or may not have been stored, so repeat the \
                 call with the same request_id",
            )
            .retry_after(RETRY_AFTER_FAILURE),
            StoreError::Closed => Self::of(&CallError::ShuttingDown),
            StoreError::Damaged { sequence } => Self::damaged(error, *sequence),
        }
    }

    fn mailbox_full(owner: &Username, limit: MailboxLimit, value: u64) -> Self {
        let unit = match limit {
            MailboxLimit::Messages => "messages",
            MailboxLimit::Bytes => "bytes",
        };
        Self::new(
            Code::ResourceExhausted,
            ErrorReason::MailboxFull,
            format!(
                "the mailbox of {owner} is full: it may hold {value} {unit}; nothing was stored"
            ),
        )
        .limit(limit.name(), &value, RETRY_AFTER_FULL)
        .with("username", owner)
    }

    fn damaged(error: &StoreError, sequence: Option<Sequence>) -> Self {
        let refusal = Self::new(
            Code::DataLoss,
            ErrorReason::StoredDataDamaged,
            format!("{error} and is not served; the server's operator should know"),
        );
        match sequence {
            Some(sequence) => refusal.with("sequence", &sequence),
            None => refusal,
        }
    }

    fn invalid_fields(fields: &[FieldProblem]) -> Self {
        let sentences: Vec<String> =
            fields.iter().map(|field| format!("{} {}", field.field, field.problem)).collect();
        let mut refusal =
            Self::new(Code::InvalidArgument, ErrorReason::InvalidField, sentences.join("; "));
        refusal.fields = fields.to_vec();
        refusal
    }

    fn body_too_large(field: &str, limit_bytes: usize, actual_bytes: Option<usize>) -> Self {
        let problem = match actual_bytes {
            Some(actual) => format!("has {actual} bytes, at most {limit_bytes} are accepted"),
            None => format!("was refused unread: at most {limit_bytes} bytes are accepted"),
        };
        let refusal = Self::new(
            Code::InvalidArgument,
            ErrorReason::BodyTooLarge,
            format!("{field} {problem}"),
        )
        .field(field, problem)
        .with("limit_bytes", &limit_bytes);
        match actual_bytes {
            Some(actual) => refusal.with("actual_bytes", &actual),
            None => refusal,
        }
    }
}

/// As the contract names it.
fn problem_name(problem: InviteProblem) -> &'static str {
    match problem {
        InviteProblem::Missing => "missing",
        InviteProblem::Unknown => "unknown",
        InviteProblem::UsedUp => "used_up",
        InviteProblem::Expired => "expired",
    }
}
