use std::collections::HashMap;
use std::fmt::{Debug, Display};
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::proto::{ERROR_DOMAIN, ErrorReason};

/// What a refusal says to programs: its status and its `google.rpc` details.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The gRPC status.
    pub code: Code,
    /// `ErrorInfo.reason`.
    pub reason: ErrorReason,
    /// `ErrorInfo.metadata`.
    pub metadata: HashMap<String, String>,
    /// The fields that `BadRequest` names, in its order.
    pub fields: Vec<String>,
    /// The delay of `RetryInfo`.
    pub retry_delay: Option<Duration>,
}

/// What the contract promises of a reason.
struct Promise {
    code: Code,
    metadata: &'static [&'static str],
    names_fields: bool,
    says_when_to_retry: bool,
}

/// Asserts that a call was refused for `reason`, with everything that the contract promises of it:
/// the status, the domain, the metadata, the named fields, the time to retry.
#[track_caller]
pub fn refused<T: Debug>(result: Result<T, Status>, reason: ErrorReason) -> Refusal {
    let status = match result {
        Ok(answer) => panic!("expected {}, was answered with {answer:?}", reason.as_reason()),
        Err(status) => status,
    };
    let refusal = Refusal::of(&status);
    assert_eq!(refusal.reason, reason, "{status:?}");
    refusal.assert_keeps_promise();
    refusal
}

impl Refusal {
    /// Reads a status; panics on one without an `ErrorInfo` of this service.
    #[track_caller]
    pub fn of(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info();
        let info = info.unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
        assert_eq!(info.domain, ERROR_DOMAIN, "{status:?}");
        let reason = ErrorReason::from_reason(&info.reason);
        let violations = details.bad_request().map(|bad| bad.field_violations.clone());
        for violation in violations.iter().flatten() {
            assert!(
                !violation.description.is_empty(),
                "a field without an explanation: {status:?}"
            );
        }
        Self {
            code: status.code(),
            reason: reason.unwrap_or_else(|| panic!("an undocumented reason: {status:?}")),
            metadata: info.metadata.clone(),
            fields: violations.into_iter().flatten().map(|violation| violation.field).collect(),
            retry_delay: details.retry_info().and_then(|retry| retry.retry_delay),
        }
    }

    /// Asserts that `BadRequest` names this field and no other.
    #[track_caller]
    pub fn names(&self, field: &str) -> &Self {
        assert_eq!(self.fields, [field], "{self:?}");
        self
    }

    /// Asserts that the metadata holds this value.
    #[track_caller]
    pub fn with(&self, key: &str, value: impl Display) -> &Self {
        let value = format!("{value}");
        assert_eq!(self.metadata.get(key), Some(&value), "`{key}` of {self:?}");
        self
    }

    #[track_caller]
    fn assert_keeps_promise(&self) {
        let promise = promise_of(self.reason);
        assert_eq!(self.code, promise.code, "{self:?}");
        for key in promise.metadata {
            assert!(self.metadata.contains_key(*key), "no `{key}` in {self:?}");
        }
        if promise.names_fields {
            assert!(!self.fields.is_empty(), "names no field: {self:?}");
        }
        if promise.says_when_to_retry {
            assert!(self.retry_delay.is_some(), "no RetryInfo: {self:?}");
        }
    }
}

/// The comments of `error_reason.proto` as a table. A new reason does not compile without its row.
fn promise_of(reason: ErrorReason) -> Promise {
    use ErrorReason as R;
    const LIMIT: &[&str] = &["limit", "value"];
    const RATE: &[&str] = &["limit", "value", "burst"];
    const RANGE: &[&str] = &["field", "sequence", "min_sequence", "max_sequence"];
    match reason {
        R::Unspecified => panic!("ERROR_REASON_UNSPECIFIED is not used"),
        R::InvalidField | R::MessageExpired => about_fields(Code::InvalidArgument, &[]),
        R::BodyTooLarge => about_fields(Code::InvalidArgument, &["limit_bytes"]),
        R::TokenMissing | R::TokenMalformed | R::TokenUnknown => plain(Code::Unauthenticated, &[]),
        R::TokenExpired => plain(Code::Unauthenticated, &["expire_time"]),
        R::UserBanned | R::RegistrationClosed => plain(Code::PermissionDenied, &[]),
        R::InviteInvalid => plain(Code::PermissionDenied, &["problem"]),
        R::TokenNotFound => plain(Code::NotFound, &["token_id"]),
        R::InviteNotFound => plain(Code::NotFound, &["invite_id"]),
        R::UserMismatch => plain(Code::PermissionDenied, &["username"]),
        R::UsernameTaken => plain(Code::AlreadyExists, &["username"]),
        R::RequestIdReused => plain(Code::AlreadyExists, &["request_id"]),
        R::UserNotFound => plain(Code::NotFound, &["username", "field"]),
        R::SequenceOutOfRange => plain(Code::OutOfRange, RANGE),
        R::EpochMismatch => plain(Code::FailedPrecondition, &["epoch"]),
        R::WriteQueueFull
        | R::ReadQueueFull
        | R::SubscriptionLimit
        | R::TokenLimit
        | R::MemoryLimit
        | R::DiskFull => to_retry(Code::ResourceExhausted, LIMIT),
        R::SendRateLimit | R::RegistrationRateLimit => to_retry(Code::ResourceExhausted, RATE),
        R::MailboxFull => to_retry(Code::ResourceExhausted, &["limit", "value", "username"]),
        R::ShuttingDown | R::StorageFailing => to_retry(Code::Unavailable, &[]),
        R::StoredDataDamaged => plain(Code::DataLoss, &[]),
        R::DeadlineExceeded => plain(Code::DeadlineExceeded, &[]),
    }
}

fn plain(code: Code, metadata: &'static [&'static str]) -> Promise {
    Promise { code, metadata, names_fields: false, says_when_to_retry: false }
}

fn about_fields(code: Code, metadata: &'static [&'static str]) -> Promise {
    Promise { names_fields: true, ..plain(code, metadata) }
}

fn to_retry(code: Code, metadata: &'static [&'static str]) -> Promise {
    Promise { says_when_to_retry: true, ..plain(code, metadata) }
}
