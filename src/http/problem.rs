//! Errors as `application/problem+json` (RFC 9457), with everything that they say over gRPC.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value, json};
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::answer;
use crate::proto::{ERROR_DOMAIN, ErrorReason};

/// What a field problem says of a text that a caller made up is cut to so many characters.
const QUOTED_CHARACTERS_MAX: usize = 200;

/// The most fields that one problem names.
const FIELDS_MAX: usize = 32;

/// Why a request got no answer.
#[derive(Debug, Clone)]
pub(super) struct Problem(Box<Said>);

/// What a problem says.
#[derive(Debug, Clone)]
struct Said {
    status: StatusCode,
    /// Empty for what only HTTP knows: an unknown path, a wrong method.
    reason: String,
    /// For people.
    detail: String,
    metadata: BTreeMap<String, String>,
    fields: Vec<FieldProblem>,
    retry_after: Option<Duration>,
    /// The methods that the path does take.
    allow: Option<HeaderValue>,
}

/// A field and what is wrong with it, as a sentence without its subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FieldProblem {
    field: String,
    problem: String,
}

impl FieldProblem {
    pub(super) fn new(field: &str, problem: &str) -> Self {
        Self { field: cut(field).into_owned(), problem: cut(problem).into_owned() }
    }
}

impl Problem {
    /// What a call ended with.
    pub(super) fn of(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info();
        let violations = details.bad_request().map(|bad| bad.field_violations.as_slice());
        let fields = violations.unwrap_or_default().iter().map(|violation| FieldProblem {
            field: violation.field.clone(),
            problem: violation.description.clone(),
        });
        let reason = info.map(|info| info.reason.clone()).unwrap_or_default();
        Self(Box::new(Said {
            status: http_status(status.code(), &reason),
            reason,
            detail: status.message().to_owned(),
            metadata: info.iter().flat_map(|info| info.metadata.clone()).collect(),
            fields: fields.collect(),
            retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
            allow: None,
        }))
    }

    /// Fields that are wrong as JSON, or as parameters: the problem that a call with fields of
    /// wrong values ends with.
    pub(super) fn invalid_fields(mut fields: Vec<FieldProblem>) -> Self {
        fields.truncate(FIELDS_MAX);
        let sentences: Vec<_> =
            fields.iter().map(|field| format!("{} {}", field.field, field.problem)).collect();
        let mut problem = Self::plain(StatusCode::BAD_REQUEST, sentences.join("; "));
        problem.0.reason = ErrorReason::InvalidField.as_reason().into();
        problem.0.fields = fields;
        problem
    }

    /// One that only HTTP knows.
    pub(super) fn plain(status: StatusCode, detail: impl Into<String>) -> Self {
        Self(Box::new(Said {
            status,
            reason: String::new(),
            detail: detail.into(),
            metadata: BTreeMap::new(),
            fields: Vec::new(),
            retry_after: None,
            allow: None,
        }))
    }

    /// A path that is not there for this method, but is for these.
    pub(super) fn wrong_method(allow: &str) -> Self {
        let detail = format!("this path takes {allow}");
        let mut problem = Self::plain(StatusCode::METHOD_NOT_ALLOWED, detail);
        problem.0.allow = HeaderValue::from_str(allow).ok();
        problem
    }

    /// The same, of a request that was refused before all of it was read.
    pub(super) fn unread(mut self) -> Self {
        if self.0.status == StatusCode::BAD_REQUEST {
            self.0.status = StatusCode::PAYLOAD_TOO_LARGE;
        }
        self
    }

    /// What it says to people.
    pub(super) fn detail(&self) -> &str {
        &self.0.detail
    }

    /// The user who is not there, if that is the problem.
    pub(super) fn unknown_user(&self) -> Option<&str> {
        let is_unknown = self.0.reason == ErrorReason::UserNotFound.as_reason();
        self.0.metadata.get("username").filter(|_| is_unknown).map(String::as_str)
    }

    /// The problem as JSON.
    pub(super) fn to_json(&self) -> Value {
        let mut members = Map::new();
        members.insert("type".to_owned(), self.type_uri().into());
        members.insert("title".to_owned(), self.title().into());
        members.insert("status".to_owned(), self.0.status.as_u16().into());
        members.insert("detail".to_owned(), self.0.detail.as_str().into());
        if !self.0.reason.is_empty() {
            members.insert("reason".to_owned(), self.0.reason.as_str().into());
            members.insert("domain".to_owned(), ERROR_DOMAIN.into());
            members.insert("metadata".to_owned(), json!(self.0.metadata));
        }
        if !self.0.fields.is_empty() {
            let violation =
                |it: &FieldProblem| json!({"field": it.field, "description": it.problem});
            let violations: Vec<_> = self.0.fields.iter().map(violation).collect();
            members.insert("fieldViolations".to_owned(), violations.into());
        }
        if let Some(delay) = self.0.retry_after {
            // As protobuf's JSON writes a Duration.
            members.insert("retryAfter".to_owned(), format!("{}s", delay.as_secs_f64()).into());
        }
        Value::Object(members)
    }

    /// Relative to the server: each reason has a page there.
    fn type_uri(&self) -> String {
        match self.0.reason.as_str() {
            "" => "about:blank".to_owned(),
            reason => format!("/v1/problems/{reason}"),
        }
    }

    /// The reason in words; for `about:blank` the status's own.
    fn title(&self) -> String {
        let reason = self.0.reason.replace('_', " ");
        match reason.split_at_checked(1) {
            Some((first, rest)) => format!("{first}{}", rest.to_ascii_lowercase()),
            None => self.0.status.canonical_reason().unwrap_or("Error").to_owned(),
        }
    }

    /// The answer under `/v1`.
    pub(super) fn into_response(self) -> Response<Body> {
        let json = format!("{}\n", self.to_json());
        self.answer("application/problem+json", json)
    }

    /// The answer as the ancestor's clients know it: `{"error": "text"}`.
    pub(super) fn into_ancestor_response(self) -> Response<Body> {
        let json = format!("{}\n", json!({"error": self.0.detail}));
        self.answer(answer::JSON, json)
    }

    fn answer(self, content_type: &'static str, json: String) -> Response<Body> {
        let mut response = answer::with(self.0.status, content_type, json);
        let headers = response.headers_mut();
        if let Some(delay) = self.0.retry_after {
            let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.0.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(allow) = self.0.allow {
            headers.insert(header::ALLOW, allow);
        }
        response
    }
}

/// The text, or its beginning.
fn cut(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(QUOTED_CHARACTERS_MAX) {
        None => text.into(),
        Some((end, _)) => format!("{}…", &text[..end]).into(),
    }
}

/// The mapping of `google.rpc.Code`, but for a body that is too large, for which HTTP has a word.
fn http_status(code: Code, reason: &str) -> StatusCode {
    if reason == ErrorReason::BodyTooLarge.as_reason() {
        return StatusCode::PAYLOAD_TOO_LARGE;
    }
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        // "Client Closed Request", which no standard names.
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn says_over_http_what_the_status_says() {
        let mut details = ErrorDetails::new();
        details.set_error_info("DISK_FULL", ERROR_DOMAIN, [("limit".into(), "disk".into())]);
        details.add_bad_request_violation("text", "is too much");
        details.set_retry_info(Some(Duration::from_millis(1250)));
        let status = Status::with_error_details(Code::ResourceExhausted, "no room", details);
        let problem = Problem::of(&status);
        assert_eq!(
            problem.to_json(),
            json!({
                "type": "/v1/problems/DISK_FULL",
                "title": "Disk full",
                "status": 429,
                "detail": "no room",
                "reason": "DISK_FULL",
                "domain": "peerpost.v1",
                "metadata": {"limit": "disk"},
                "fieldViolations": [{"field": "text", "description": "is too much"}],
                "retryAfter": "1.25s",
            })
        );
        let response = problem.into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2", "never too early");
    }

    #[test]
    fn what_only_http_knows_has_no_reason() {
        let problem = Problem::wrong_method("GET, HEAD");
        let json = problem.to_json();
        assert_eq!(json["type"], "about:blank");
        assert_eq!(json["title"], "Method Not Allowed");
        assert_eq!(json.get("reason"), None);
        assert_eq!(problem.into_response().headers()[header::ALLOW], "GET, HEAD");
    }

    #[test]
    fn quotes_no_more_than_a_little_of_what_a_caller_made_up() {
        let long = "é".repeat(1_000_000);
        let many = vec![FieldProblem::new(&long, &long); 1_000];
        let json = Problem::invalid_fields(many).into_response();
        let length = json.headers()[header::CONTENT_LENGTH].to_str().expect("a number");
        assert!(length.parse::<usize>().expect("a number") < 64 * 1024, "{length}");
    }
}
