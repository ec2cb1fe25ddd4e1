//! What a status says besides its code: the reason with its metadata, the fields, when to try again.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::error::FieldProblem;
use crate::limiter::RateExceeded;
use crate::proto::{ERROR_DOMAIN, ErrorReason};

/// A row of the table.
pub(super) struct Refusal {
    code: Code,
    reason: ErrorReason,
    message: String,
    metadata: Vec<(&'static str, String)>,
    pub(super) fields: Vec<FieldProblem>,
    retry_after: Option<Duration>,
}

impl Refusal {
    pub(super) fn new(code: Code, reason: ErrorReason, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            metadata: Vec::new(),
            fields: Vec::new(),
            retry_after: None,
        }
    }

    pub(super) fn with(mut self, key: &'static str, value: &dyn ToString) -> Self {
        self.metadata.push((key, value.to_string()));
        self
    }

    pub(super) fn field(mut self, field: &str, problem: impl Into<String>) -> Self {
        self.fields.push(FieldProblem { field: field.to_owned(), problem: problem.into() });
        self
    }

    /// Which limit was reached, what it is set to, and when to try again: every refusal by a limit says
    /// these three.
    pub(super) fn limit(
        self,
        name: &'static str,
        value: &dyn ToString,
        retry_after: Duration,
    ) -> Self {
        self.with("limit", &name).with("value", value).retry_after(retry_after)
    }

    pub(super) fn over_rate(
        reason: ErrorReason,
        name: &'static str,
        problem: &str,
        exceeded: &RateExceeded,
    ) -> Self {
        let RateExceeded { rate, burst, retry_after } = exceeded;
        let message = format!("{problem}: {rate}, and {burst} at once after a while without any");
        Self::new(Code::ResourceExhausted, reason, message)
            .limit(name, rate, *retry_after)
            .with("burst", burst)
    }

    pub(super) fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    pub(super) fn into_status(self) -> Status {
        let metadata: HashMap<String, String> =
            self.metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let mut details = ErrorDetails::new();
        details.set_error_info(self.reason.as_reason(), ERROR_DOMAIN, metadata);
        for FieldProblem { field, problem } in self.fields {
            details.add_bad_request_violation(field, problem);
        }
        if let Some(delay) = self.retry_after {
            details.set_retry_info(Some(delay));
        }
        Status::with_error_details(self.code, self.message, details)
    }
}
