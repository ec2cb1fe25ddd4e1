//! What happens to every call before and after its handler: the deadline, the caller's identity,
//! and details for the statuses that the codec makes.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, Request, Response, header};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower::Service;

use super::error::CallError;
use crate::auth::{AuthError, Authenticator};
use crate::domain::Token;

const GRPC_TIMEOUT: &str = "grpc-timeout";
const REGISTER: &str = "Register";
const SENDS: [&str; 2] = ["SendMessage", "SendMessages"];

/// The scheme of RFC 6750, compared without regard to case (RFC 9110, section 11.1).
const BEARER: &str = "bearer";

/// Wraps the messaging service: recognises the caller, for whom the handler finds a
/// [`User`](crate::domain::User) among the request's extensions, and keeps the call's deadline.
#[derive(Clone)]
pub struct Edge<S> {
    inner: S,
    authenticator: Authenticator,
    body_bytes_max: usize,
}

impl<S> Edge<S> {
    /// Wraps `inner`, which accepts bodies of at most `body_bytes_max` bytes.
    pub fn new(inner: S, authenticator: Authenticator, body_bytes_max: usize) -> Self {
        Self { inner, authenticator, body_bytes_max }
    }
}

impl<S: NamedService> NamedService for Edge<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<Request<B>> for Edge<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The service that was polled ready is the one that must be called.
        let clone = self.clone();
        let edge = std::mem::replace(self, clone);
        Box::pin(async move {
            Ok(edge.handle(request).await.unwrap_or_else(|e| Status::from(e).into_http()))
        })
    }
}

impl<S> Edge<S> {
    async fn handle<B>(self, request: Request<B>) -> Result<Response<Body>, CallError>
    where
        S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    {
        match timeout(request.headers()) {
            None => self.call_as_caller(request).await,
            // It covers the time to the response's head; a stream's client keeps its own deadline.
            Some(deadline) => tokio::time::timeout(deadline, self.call_as_caller(request))
                .await
                .unwrap_or(Err(CallError::DeadlineExceeded)),
        }
    }

    async fn call_as_caller<B>(
        mut self,
        mut request: Request<B>,
    ) -> Result<Response<Body>, CallError>
    where
        S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let caller = match bearer(request.headers()) {
            Ok(token) => self.authenticator.authenticate(&token).await.map_err(CallError::from),
            Err(error) => Err(error),
        };
        match caller {
            Ok(user) => {
                request.extensions_mut().insert(user);
            }
            // A token that is no good is as none: what the name's own token may do is refused.
            Err(
                CallError::TokenMissing
                | CallError::TokenMalformed
                | CallError::Auth(AuthError::UnknownToken),
            ) if method == REGISTER => {}
            Err(error) => return Err(error),
        }
        let Ok(response) = self.inner.call(request).await;
        match undetailed(response.headers()) {
            Some(status) => self.detail(&method, &status).map_or(Ok(response), Err),
            None => Ok(response),
        }
    }

    /// The error for a request that the codec could not take, which it reports without details.
    fn detail(&self, method: &str, status: &Status) -> Option<CallError> {
        match status.code() {
            // The decoder's own limit.
            Code::OutOfRange if SENDS.contains(&method) => Some(CallError::BodyTooLarge {
                field: "body",
                limit_bytes: self.body_bytes_max,
                actual_bytes: None,
            }),
            Code::OutOfRange => Some(CallError::invalid_field(
                "request",
                "is larger than any request of this call needs to be",
            )),
            Code::Internal if status.message().contains(DECODE_FAILED) => {
                let (field, problem) = undecodable(status.message());
                Some(CallError::invalid_field(field, problem))
            }
            _ => None,
        }
    }
}

/// How prost begins its errors: `failed to decode Protobuf message: Type.field: what is wrong`.
const DECODE_FAILED: &str = "failed to decode Protobuf message";

/// The field that prost could not decode, and why.
fn undecodable(message: &str) -> (&str, String) {
    let rest = message.split_once(DECODE_FAILED).map_or(message, |(_, rest)| rest);
    let rest = rest.trim_start_matches(": ");
    let located = rest.split_once(": ").and_then(|(place, problem)| {
        let (_, field) = place.rsplit_once('.')?;
        Some((field, format!("cannot be decoded: {problem}")))
    });
    located.unwrap_or_else(|| ("request", format!("cannot be decoded: {rest}")))
}

/// The token among a call's metadata.
fn bearer(headers: &HeaderMap) -> Result<Token, CallError> {
    let value = headers.get(header::AUTHORIZATION).ok_or(CallError::TokenMissing)?;
    let text = value.to_str().map_err(|_| CallError::TokenMalformed)?;
    let (scheme, token) = text.trim().split_once(' ').ok_or(CallError::TokenMalformed)?;
    if !scheme.eq_ignore_ascii_case(BEARER) {
        return Err(CallError::TokenMalformed);
    }
    Token::parse(token.trim_start()).map_err(|_| CallError::TokenMalformed)
}

/// The call's `grpc-timeout`: up to 8 digits and a unit (gRPC over HTTP/2, "Requests"). One that
/// is malformed is as none.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    const DIGITS_MAX: usize = 8;
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
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
    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(
            header::HeaderName::from_static(name),
            header::HeaderValue::from_static(value),
        )])
    }

    #[test]
    fn reads_every_unit_of_a_timeout() {
        let parsed = |value| timeout(&headers(GRPC_TIMEOUT, value));
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

    #[test]
    fn finds_the_bearer_token() {
        let token = Token::mint().reveal();
        for scheme in ["Bearer", "bearer", "BEARER"] {
            let value = format!("{scheme} {token}").leak();
            assert!(bearer(&headers("authorization", value)).is_ok(), "{value}");
        }
        assert!(matches!(bearer(&HeaderMap::new()), Err(CallError::TokenMissing)));
        for malformed in ["", "Bearer", "Bearer ", "Basic YTpi", "pp_x"] {
            let found = bearer(&headers("authorization", malformed));
            assert!(matches!(found, Err(CallError::TokenMalformed)), "{malformed:?}");
        }
    }

    #[test]
    fn names_the_field_that_cannot_be_decoded() {
        let (field, problem) = undecodable(
            "failed to decode Protobuf message: RegisterRequest.username: invalid string value: \
             data is not UTF-8 encoded",
        );
        assert_eq!(field, "username");
        assert!(problem.ends_with("data is not UTF-8 encoded"), "{problem}");
    }
}
