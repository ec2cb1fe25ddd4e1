//! HTTP and JSON over the gRPC service: the calls of the app that this one descends from, a view of
//! every RPC under `/v1` in canonical protobuf JSON, and a mailbox as server-sent events.
//!
//! Nothing is decided here. A request becomes the same call that a gRPC client would make, of the
//! service that [`Gateway`] was given, and its answer or its status becomes JSON. So who may do what,
//! every limit and every reason are the same by construction.

mod ancestor;
mod answer;
mod call;
mod events;
mod json;
mod openapi;
mod problem;
mod request_body;
mod routes;
mod v1;

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use tonic::body::Body;
use tower::Service;

pub use self::call::Inner;
use self::problem::Problem;
use self::routes::{Does, Lost};

/// Serves HTTP and JSON by calling the gRPC service `S`.
#[derive(Debug, Clone)]
pub struct Gateway<S> {
    inner: S,
    body_bytes_max: usize,
    is_open: bool,
}

impl<S> Gateway<S> {
    /// Over `inner`, which accepts bodies of at most `body_bytes_max` bytes. When it `is_open`, so that
    /// callers need no token, the ancestor's calls take names that nobody registered, as the ancestor did.
    pub fn new(inner: S, body_bytes_max: usize, is_open: bool) -> Self {
        Self { inner, body_bytes_max, is_open }
    }
}

impl<S: Inner> Service<Request<Body>> for Gateway<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    /// As the service that it calls.
    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let gateway = self.clone();
        Box::pin(async move {
            let without_content = request.method() == Method::HEAD;
            let has_connection_of_its_own = request.version() < Version::HTTP_2;
            let mut response = gateway.answer(request).await;
            // The rest of it is not read, so the connection ends here. A client that is not told sends
            // its next request there (RFC 9112, 9.6).
            if has_connection_of_its_own && response.status() == StatusCode::PAYLOAD_TOO_LARGE {
                response.headers_mut().insert(header::CONNECTION, CLOSE);
            }
            Ok(if without_content { response.map(|_| Body::empty()) } else { response })
        })
    }
}

impl<S: Inner> Gateway<S> {
    async fn answer(self, request: Request<Body>) -> Response<Body> {
        let route = match routes::find(request.method(), request.uri().path()) {
            Ok(route) => route,
            Err(Lost::WrongMethod(allowed)) => {
                return Problem::wrong_method(&allowed).into_response();
            }
            Err(Lost::NoSuchPath) => {
                let detail = "there is nothing at this path; /v1/openapi.json says what there is";
                return Problem::plain(StatusCode::NOT_FOUND, detail).into_response();
            }
        };
        let of_ancestor = |problem: Problem| problem.into_ancestor_response();
        match route.does {
            Does::Welcome => answer::with(StatusCode::OK, answer::TEXT, WELCOME),
            Does::Register => ancestor::register(self, request).await.unwrap_or_else(of_ancestor),
            Does::Send => ancestor::send(self, request).await.unwrap_or_else(of_ancestor),
            Does::Read => ancestor::read(self, request).await.unwrap_or_else(of_ancestor),
            Does::Call(rpc) => {
                let answer = v1::call(self, route, rpc, request).await;
                answer.unwrap_or_else(Problem::into_response)
            }
            Does::Events => {
                events::follow(self, request).await.unwrap_or_else(Problem::into_response)
            }
            Does::OpenApi => openapi::answer(),
            Does::Explain => {
                let reason = route.variable(request.uri().path()).map(|(_, reason)| reason);
                openapi::explain(reason.unwrap_or_default())
            }
        }
    }
}

const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// What stands at `/`.
const WELCOME: &str = "\
peerpost: messages between registered users, each in a durable mailbox.

  HTTP and JSON  /v1/openapi.json describes every path
  gRPC           grpcurl -plaintext HOST:PORT describe peerpost.v1.MessagingService
";
