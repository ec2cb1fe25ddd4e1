use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use prost::Message as _;
use thiserror::Error;
use tonic::{Code, ConnectError, Status, TimeoutExpired};
use tonic_types::StatusExt as _;

use crate::proto::{ERROR_DOMAIN, ErrorReason};

/// Why a call or a stream failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The text names no server.
    #[error("{server:?} is not the address of a server: {problem}")]
    InvalidServer {
        /// The text.
        server: String,
        /// What is wrong with it.
        problem: String,
    },
    /// No connection could be opened: nothing of the call reached the server.
    #[error("cannot connect to {server}: {problem}")]
    Connect {
        /// The server.
        server: String,
        /// What the operating system or the resolver said.
        problem: String,
    },
    /// The connection broke. Whether the call took effect is unknown.
    #[error("the connection broke: {problem}")]
    Disconnected {
        /// What was seen of it.
        problem: String,
    },
    /// No answer came in time. Whether the call took effect is unknown.
    #[error("no answer within {deadline:?}")]
    DeadlineExceeded {
        /// How long the answer was waited for.
        deadline: Duration,
    },
    /// The server answered with an error.
    #[error(transparent)]
    Refused(#[from] Box<Refusal>),
    /// A followed stream went silent: not even heartbeats came.
    #[error("the stream was silent for {silence:?}")]
    Silent {
        /// How long nothing came.
        silence: Duration,
    },
    /// A followed stream left out entries. None of what came after the hole was delivered.
    #[error("the stream skipped entries: {expected} was due, {received} came")]
    Hole {
        /// The sequence that was due.
        expected: i64,
        /// The sequence that came.
        received: i64,
    },
    /// The answer is not one that the contract allows, or is of a newer version of it.
    #[error("the server's answer is not understood: {0}")]
    Malformed(&'static str),
}

/// An error that the server answered with, its details decoded.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Refusal {
    /// The gRPC status code.
    pub code: Code,
    /// The machine-readable reason; `None` when there is none, or one that this version of the
    /// client does not know.
    pub reason: Option<ErrorReason>,
    /// The server's message, for people.
    pub message: String,
    /// The request's fields that the server refused.
    pub violations: Vec<FieldViolation>,
    /// When to try again, where the server said so.
    pub retry_delay: Option<Duration>,
    /// What the reason states, such as a limit and its value; documented at [`ErrorReason`].
    pub metadata: HashMap<String, String>,
}

/// A field that the server refused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FieldViolation {
    /// The field's name in the contract.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

impl Error {
    /// The gRPC status code, for errors that have one.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused(refusal) => Some(refusal.code),
            Self::DeadlineExceeded { .. } => Some(Code::DeadlineExceeded),
            Self::Connect { .. } | Self::Disconnected { .. } => Some(Code::Unavailable),
            _ => None,
        }
    }

    /// The server's reason, for an error that the server answered with.
    pub fn reason(&self) -> Option<ErrorReason> {
        match self {
            Self::Refused(refusal) => refusal.reason,
            _ => None,
        }
    }

    /// How long the server asked to wait before the next attempt.
    pub fn retry_delay(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_delay,
            _ => None,
        }
    }

    /// Whether the same call can succeed later without a change to it: the server cannot be reached,
    /// is restarting, or refused for now and said when to come back.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Disconnected { .. }
            | Self::DeadlineExceeded { .. }
            | Self::Silent { .. }
            | Self::Hole { .. } => true,
            Self::Refused(refusal) => refusal.is_retriable(),
            Self::InvalidServer { .. } | Self::Malformed(_) => false,
        }
    }

    /// What tonic reports, told apart: what the server said, and what kept the two from talking.
    pub(super) fn from_status(status: &Status, server: &str, deadline: Duration) -> Self {
        // A status that the server sent has no source; one that the transport made up has.
        let Some(source) = status.source() else {
            return Self::Refused(Box::new(Refusal::from_status(status)));
        };
        let problem = root_cause(source).to_string();
        if chain(source).any(<dyn StdError>::is::<TimeoutExpired>) {
            Self::DeadlineExceeded { deadline }
        } else if chain(source).any(<dyn StdError>::is::<ConnectError>) {
            Self::Connect { server: server.to_owned(), problem }
        } else {
            Self::Disconnected { problem }
        }
    }
}

impl Refusal {
    /// Whether the same call can succeed later without a change to it.
    pub fn is_retriable(&self) -> bool {
        match self.code {
            Code::Unavailable | Code::DeadlineExceeded => true,
            Code::ResourceExhausted => self.retry_delay.is_some(),
            _ => false,
        }
    }

    /// The refusal of one message of a stream, which goes on.
    pub(super) fn from_rpc_status(status: &tonic_types::Status) -> Self {
        let details = status.encode_to_vec().into();
        let code = Code::from(status.code);
        Self::from_status(&Status::with_details(code, status.message.clone(), details))
    }

    fn from_status(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == ERROR_DOMAIN);
        let violations = details.bad_request().map_or(&[][..], |bad| &bad.field_violations);
        Self {
            code: status.code(),
            reason: info.and_then(|info| ErrorReason::from_reason(&info.reason)),
            message: status.message().to_owned(),
            violations: violations
                .iter()
                .map(|violation| FieldViolation {
                    field: violation.field.clone(),
                    description: violation.description.clone(),
                })
                .collect(),
            retry_delay: details.retry_info().and_then(|info| info.retry_delay),
            metadata: info.map(|info| info.metadata.clone()).unwrap_or_default(),
        }
    }
}

/// The server's message, or the code's description where there is none.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message.is_empty() { self.code.fmt(f) } else { f.write_str(&self.message) }
    }
}

impl StdError for Refusal {}

fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

fn root_cause<'a>(error: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
    chain(error).last().unwrap_or(error)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tonic_types::ErrorDetails;

    use super::*;

    fn decode(status: &Status) -> Error {
        Error::from_status(status, "http://server", Duration::from_secs(1))
    }

    fn transport(source: impl StdError + Send + Sync + 'static) -> Error {
        let mut status = Status::new(Code::Unknown, "transport error");
        status.set_source(Arc::new(source));
        decode(&status)
    }

    #[test]
    fn decodes_the_details_of_a_refusal() {
        let mut details = ErrorDetails::new();
        let limit = HashMap::from([("limit".to_owned(), "write_queue".to_owned())]);
        details
            .set_error_info("WRITE_QUEUE_FULL", ERROR_DOMAIN, limit)
            .set_retry_info(Some(Duration::from_millis(250)))
            .add_bad_request_violation("to_user", "is required");
        let status = Status::with_error_details(Code::ResourceExhausted, "too much waits", details);

        let error = decode(&status);

        assert_eq!(error.code(), Some(Code::ResourceExhausted));
        assert_eq!(error.reason(), Some(ErrorReason::WriteQueueFull));
        assert_eq!(error.retry_delay(), Some(Duration::from_millis(250)));
        assert_eq!(error.to_string(), "too much waits");
        assert!(error.is_retriable());
        let Error::Refused(refusal) = error else { panic!("{error:?}") };
        assert_eq!(refusal.metadata["limit"], "write_queue");
        let violation =
            FieldViolation { field: "to_user".into(), description: "is required".into() };
        assert_eq!(refusal.violations, [violation]);
    }

    #[test]
    fn a_reason_of_another_domain_or_version_is_none() {
        for (reason, domain) in [("WRITE_QUEUE_FULL", "example.com"), ("NEW_REASON", ERROR_DOMAIN)]
        {
            let mut details = ErrorDetails::new();
            details.set_error_info(reason, domain, HashMap::new());
            let status = Status::with_error_details(Code::Unavailable, "", details);
            assert_eq!(decode(&status).reason(), None);
        }
    }

    #[test]
    fn only_what_may_pass_is_retriable() {
        use Code as C;
        for code in [C::Unavailable, C::DeadlineExceeded] {
            assert!(decode(&Status::new(code, "")).is_retriable(), "{code:?}");
        }
        // RESOURCE_EXHAUSTED without a time at which to come back is not known to pass.
        for code in [
            C::InvalidArgument,
            C::Unauthenticated,
            C::AlreadyExists,
            C::NotFound,
            C::OutOfRange,
            C::FailedPrecondition,
            C::DataLoss,
            C::ResourceExhausted,
            C::Internal,
        ] {
            assert!(!decode(&Status::new(code, "")).is_retriable(), "{code:?}");
        }
    }

    #[test]
    fn tells_a_connection_that_was_never_opened_from_one_that_broke() {
        let refused = || std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let error = transport(ConnectError(Box::new(refused())));
        assert!(matches!(error, Error::Connect { .. }), "{error:?}");
        assert_eq!(error.to_string(), "cannot connect to http://server: connection refused");
        assert!(matches!(transport(refused()), Error::Disconnected { .. }));
        assert!(matches!(transport(TimeoutExpired(())), Error::DeadlineExceeded { .. }));
    }
}
