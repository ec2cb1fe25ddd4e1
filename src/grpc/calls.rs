//! Calls as they are counted, traced and logged: when they began, and what they came to.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tracing::{Level, debug, enabled};
use uuid::Uuid;

use super::method::Method;
use crate::domain::{User, Username};
use crate::metrics::{Durations, Kind, Page};
use crate::telemetry::CallSpan;

static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest `x-request-id` that is taken over.
const REQUEST_ID_BYTES_MAX: usize = 64;

/// The statuses of gRPC, by their numbers.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// How long calls took, by their methods and what they came to. A stream's call takes until its end.
pub struct CallMetrics {
    durations: [[Durations; CODES.len()]; Method::ALL.len()],
}

impl Default for CallMetrics {
    fn default() -> Self {
        let of_method = |_| std::array::from_fn(|_| Durations::of_durations());
        Self { durations: std::array::from_fn(of_method) }
    }
}

impl CallMetrics {
    /// Writes what was counted, of each method and status that there was.
    pub fn write(&self, page: &mut Page) {
        let mut family = page.family(
            "rpc_server_call_duration_seconds",
            Kind::Histogram,
            "Calls: how long they took, by method and status. A stream counts when it ends.",
        );
        for (method, by_code) in Method::ALL.iter().zip(&self.durations) {
            for (code, durations) in CODES.iter().zip(by_code) {
                if durations.count() > 0 {
                    let labels = [
                        ("rpc_system_name", "grpc"),
                        ("rpc_method", method.name()),
                        ("rpc_response_status_code", *code),
                    ];
                    family.histogram(&labels, durations);
                }
            }
        }
    }
}

/// A call under way. It is counted when it is dropped: as CANCELLED, unless something else is known.
pub(super) struct Call {
    metrics: Arc<CallMetrics>,
    method: Method,
    began: Instant,
    code: Code,
    span: CallSpan,
    /// `None` where calls are not logged.
    log: Option<Box<Log>>,
}

/// What is logged of a call.
struct Log {
    request_id: HeaderValue,
    user: Option<Username>,
}

impl Call {
    pub(super) fn begin(
        metrics: &Arc<CallMetrics>,
        method: Method,
        began: Instant,
        headers: &HeaderMap,
    ) -> Self {
        let new_log = || Box::new(Log { request_id: request_id(headers), user: None });
        let log = enabled!(Level::DEBUG).then(new_log);
        let span = CallSpan::begin(method.name(), headers);
        Self { metrics: Arc::clone(metrics), method, began, code: Code::Cancelled, span, log }
    }

    /// Who calls is known.
    pub(super) fn is_by(&mut self, user: &User) {
        if let Some(log) = &mut self.log {
            log.user = Some(user.name.clone());
        }
    }

    /// The call has its answer: it ends with it, or with the stream that it begins.
    pub(super) fn answered(mut self, mut answer: Response<Body>) -> Response<Body> {
        if let Some(log) = &self.log {
            answer.headers_mut().insert(&REQUEST_ID, log.request_id.clone());
        }
        match status(answer.headers()) {
            Some(code) => self.code = code,
            None if self.method.is_stream() => {
                return answer.map(|body| Body::new(Counted { body, call: Some(self) }));
            }
            None => self.code = Code::Ok,
        }
        answer
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        let code = self.code as usize;
        self.metrics.durations[self.method.index()][code].record_duration(took);
        self.span.end(CODES[code]);
        if let Some(log) = &self.log {
            debug!(
                request_id = log.request_id.to_str().unwrap_or_default(),
                method = self.method.name(),
                status = CODES[code],
                duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
                user = log.user.as_ref().map(Username::as_str),
                "call"
            );
        }
    }
}

/// The status in a head or in trailers.
fn status(headers: &HeaderMap) -> Option<Code> {
    headers.get(&GRPC_STATUS).map(|value| Code::from_bytes(value.as_bytes()))
}

/// The id by which the caller knows the call, or a new one. One that may hold a token is not taken over.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(&REQUEST_ID).filter(|value| {
        let is_short = (1..=REQUEST_ID_BYTES_MAX).contains(&value.len());
        is_short
            && value.as_bytes().iter().all(u8::is_ascii_graphic)
            && !value.as_bytes().windows(3).any(|part| part == b"pp_")
    });
    // What a UUID is printed as is a header's value.
    let new = || HeaderValue::from_str(&Uuid::now_v7().to_string());
    given.cloned().map_or_else(new, Ok).unwrap_or(HeaderValue::from_static(""))
}

/// The body of a stream's answer; its call ends when it does.
struct Counted {
    body: Body,
    call: Option<Call>,
}

impl HttpBody for Counted {
    type Data = <Body as HttpBody>::Data;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let trailers = match &frame {
            Some(Ok(frame)) => frame.trailers_ref(),
            _ => None,
        };
        if let Some(trailers) = trailers
            && let Some(mut call) = self.call.take()
        {
            call.code = status(trailers).unwrap_or(Code::Unknown);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_name() {
        for (number, name) in CODES.iter().enumerate() {
            let code = Code::from_i32(i32::try_from(number).expect("small"));
            let named = format!("{code:?}").to_uppercase();
            assert_eq!(named, name.replace('_', ""));
        }
    }

    #[test]
    fn an_id_is_taken_over_if_it_is_short_and_plain() {
        let of = |id: &str| {
            let value = HeaderValue::from_str(id).expect("a header's value");
            let headers = HeaderMap::from_iter([(REQUEST_ID.clone(), value)]);
            request_id(&headers).to_str().expect("text").to_owned()
        };
        for given in ["a", "01-Zz/{}~", &"x".repeat(REQUEST_ID_BYTES_MAX)] {
            assert_eq!(of(given), given);
        }
        let token = format!("pp_{}", "A".repeat(43));
        for refused in ["", "two words", &"x".repeat(REQUEST_ID_BYTES_MAX + 1), "é", &token] {
            let made = of(refused);
            assert!(Uuid::try_parse(&made).is_ok(), "{refused:?} became {made:?}");
        }
    }
}
