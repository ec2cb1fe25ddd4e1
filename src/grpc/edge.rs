//! What happens to every call before and after its handler: the deadline, the caller's identity,
//! details for the errors that the codec reports, and that it is counted.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, HeaderName, Request, Response};
use tokio::time::{Instant, timeout_at};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower::Service;

use super::calls::{Call, CallMetrics};
use super::codec;
use super::error::CallError;
use super::identity::Claim;
use super::method::Method;
use super::service::Messaging;
use super::stream_end::Deadline;
use crate::auth::{AuthError, Authenticator};
use crate::domain::User;
use crate::domain::limits::{CALL_DEADLINE, REQUEST_BYTES_MAX};
use crate::proto::messaging_service_server::MessagingServiceServer;

static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Wraps the messaging service: recognises the caller, for whom the handler finds a
/// [`User`] among the request's extensions, and keeps the call's deadline.
pub struct Edge<S>(Arc<Parts<S>>);

/// Shared, since every call takes them along.
struct Parts<S> {
    /// Takes requests that carry a body.
    sends: S,
    /// Takes all others, which are small.
    others: S,
    authenticator: Authenticator,
    body_bytes_max: usize,
    metrics: Arc<CallMetrics>,
}

impl<S> Clone for Edge<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl Edge<MessagingServiceServer<Messaging>> {
    /// Wraps `messaging`, which accepts bodies of at most `body_bytes_max` bytes.
    pub fn new(messaging: Messaging, authenticator: Authenticator, body_bytes_max: usize) -> Self {
        let server = MessagingServiceServer::new(messaging);
        // Decoded up to twice the limit, so that a body over it is told its size; beyond that a
        // request is refused unread.
        let send_bytes_max = 2 * body_bytes_max + REQUEST_BYTES_MAX;
        Self(Arc::new(Parts {
            sends: server.clone().max_decoding_message_size(send_bytes_max),
            others: server.max_decoding_message_size(REQUEST_BYTES_MAX),
            authenticator,
            body_bytes_max,
            metrics: Arc::default(),
        }))
    }

    /// How many calls there were, and how they went.
    pub fn metrics(&self) -> Arc<CallMetrics> {
        Arc::clone(&self.0.metrics)
    }
}

impl<S: NamedService> NamedService for Edge<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<Request<B>> for Edge<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
    B: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    /// The generated services are always ready.
    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let parts = Arc::clone(&self.0);
        let now = Instant::now();
        let deadline = head_deadline(&mut request, now);
        let method = Method::of(request.uri().path());
        let mut call = Call::begin(&parts.metrics, method, now, request.headers());
        let claim = match method {
            // Open to callers without a token.
            Method::Register => Claim::of_token(request.headers()),
            _ => Claim::of(request.headers()),
        };
        if method.needs_credential() {
            request.extensions_mut().insert(claim.credential());
        }
        // Nearly every caller is remembered. Their call is on its way at once, and what waits for it
        // does not hold a request besides.
        if let Some(user) = claim.remembered(&parts.authenticator) {
            call.is_by(&user);
            let calling = parts.start(request, Some(user), method);
            return Box::pin(async move {
                let outcome = timeout_at(deadline, calling).await;
                let outcome = outcome.map_err(|_| CallError::DeadlineExceeded);
                Ok(call.answered(parts.answer(outcome, method)))
            });
        }
        Box::pin(async move {
            let calling = async {
                let caller = parts.recognise(claim, method).await?;
                if let Some(user) = &caller {
                    call.is_by(user);
                }
                Ok(parts.start(request, caller, method).await)
            };
            let outcome = timeout_at(deadline, calling).await;
            let outcome = outcome.unwrap_or(Err(CallError::DeadlineExceeded));
            Ok(call.answered(parts.answer(outcome, method)))
        })
    }
}

impl<S: Clone> Parts<S> {
    /// Who calls, according to the store. `None`: nobody, and the method takes that.
    async fn recognise(&self, claim: Claim, method: Method) -> Result<Option<User>, CallError> {
        match claim.recognise(&self.authenticator).await {
            // A token that is no good is as none: what the name's own token may do is refused.
            Err(
                CallError::TokenMissing
                | CallError::TokenMalformed
                | CallError::NameMissing
                | CallError::Auth(AuthError::UnknownToken | AuthError::ExpiredToken(_)),
            ) if method == Method::Register => Ok(None),
            caller => caller.map(Some),
        }
    }

    /// Calls the handler.
    fn start<B>(&self, mut request: Request<B>, caller: Option<User>, method: Method) -> S::Future
    where
        S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    {
        if let Some(user) = caller {
            request.extensions_mut().insert(user);
        }
        let service = if method.is_send() { &self.sends } else { &self.others };
        service.clone().call(request)
    }

    /// What the caller gets: the handler's answer, with details if it is an error without.
    fn answer(
        &self,
        outcome: Result<Result<Response<Body>, Infallible>, CallError>,
        method: Method,
    ) -> Response<Body> {
        let answer = outcome.and_then(|answered| {
            let Ok(response) = answered;
            let error = undetailed(response.headers()).and_then(|status| {
                codec::request_error(&status, method.is_send(), self.body_bytes_max)
            });
            error.map_or(Ok(response), Err)
        });
        answer.unwrap_or_else(|error| Status::from(error).into_http())
    }
}

/// Until when a call's head must have come.
fn head_deadline<B>(request: &mut Request<B>, now: Instant) -> Instant {
    let Some(timeout) = timeout(request.headers()) else { return now + CALL_DEADLINE };
    let deadline = now + timeout;
    // Streams go on after their head, and keep it themselves.
    request.extensions_mut().insert(Deadline(deadline));
    deadline.min(now + CALL_DEADLINE)
}

/// The call's `grpc-timeout`: up to 8 digits and a unit (gRPC over HTTP/2, "Requests"). One that
/// is malformed is as none.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    const DIGITS_MAX: usize = 8;
    let text = headers.get(&GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > DIGITS_MAX {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// The error in a response's head, if it came without details.
fn undetailed(headers: &HeaderMap) -> Option<Status> {
    Status::from_header_map(headers)
        .filter(|status| status.code() != Code::Ok && status.details().is_empty())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn reads_every_unit_of_a_timeout() {
        let parsed = |value| {
            let value = HeaderValue::from_static(value);
            timeout(&HeaderMap::from_iter([(GRPC_TIMEOUT.clone(), value)]))
        };
        assert_eq!(parsed("2H"), Some(Duration::from_hours(2)));
        assert_eq!(parsed("3M"), Some(Duration::from_mins(3)));
        assert_eq!(parsed("4S"), Some(Duration::from_secs(4)));
        assert_eq!(parsed("5m"), Some(Duration::from_millis(5)));
        assert_eq!(parsed("6u"), Some(Duration::from_micros(6)));
        assert_eq!(parsed("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for malformed in ["", "S", "1", "1s", "-1S", "999999999S", "1 S"] {
            assert_eq!(parsed(malformed), None, "{malformed:?}");
        }
    }
}
