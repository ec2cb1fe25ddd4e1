//! Calls of the gRPC service from within, by which a request over HTTP meets the same identity,
//! deadlines, limits and errors as one over gRPC.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use async_stream::stream;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::request::Parts;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use http::{Version, header};
use http_body::{Body as _, Frame};
use http_body_util::StreamBody;
use tonic::Status;
use tonic::body::Body;

use super::problem::Problem;

/// Who calls, according to the call itself (see `grpc::Edge`).
pub(super) const USER: HeaderName = HeaderName::from_static("peerpost-user");

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What stands before a message in a frame: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// A frame longer than any that is accepted, for a request that is too large to be read: it is
/// refused as one over gRPC is.
const TOO_LARGE: [u8; PREFIX_BYTES] = [0, 0xff, 0xff, 0xff, 0xff];

/// A gRPC service that a [`Gateway`](super::Gateway) can call: always ready, as gRPC services are.
pub trait Inner:
    tower::Service<
        Request<Body>,
        Response = Response<Body>,
        Error = Infallible,
        Future: Send + 'static,
    > + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Inner for S where
    S: tower::Service<
            Request<Body>,
            Response = Response<Body>,
            Error = Infallible,
            Future: Send + 'static,
        > + Clone
        + Send
        + Sync
        + 'static
{
}

/// What a call takes along from the request that it is made for: its identity, its deadline and its trace,
/// and what the server noted of it.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    headers: HeaderMap,
    extensions: Extensions,
}

impl Caller {
    pub(super) fn of(parts: &Parts) -> Self {
        let mut headers = HeaderMap::new();
        for name in [header::AUTHORIZATION, USER, GRPC_TIMEOUT, TRACEPARENT] {
            for value in parts.headers.get_all(&name) {
                headers.append(&name, value.clone());
            }
        }
        Self { headers, extensions: parts.extensions.clone() }
    }

    /// The same call, which says that it is by this user.
    pub(super) fn named(mut self, user: HeaderValue) -> Self {
        self.headers.insert(USER, user);
        self
    }
}

/// Why a request became no message.
#[derive(Debug, Clone)]
pub(super) enum Refused {
    /// It is larger than any that is accepted, and was not read.
    TooLarge,
    Problem(Problem),
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// Calls `rpc`. The request's message is only made when the service reads it, after it has
/// recognised the caller: what nobody may ask is not looked into.
pub(super) async fn call<S: Inner>(
    mut service: S,
    rpc: &str,
    caller: Caller,
    message: impl Future<Output = Result<Vec<u8>, Refused>> + Send + 'static,
) -> Result<Answers, Problem> {
    let refused = Arc::new(OnceLock::new());
    let body = request_body(message, Arc::clone(&refused));
    let request = request(rpc, caller, body);
    // Always ready, as gRPC services are.
    let Ok(response) = service.call(request).await;
    Answers::of(response).map_err(|status| match refused.get() {
        None => Problem::of(&status),
        Some(Refused::TooLarge) => Problem::of(&status).unread(),
        Some(Refused::Problem(problem)) => problem.clone(),
    })
}

/// Calls an `rpc` that has one answer, and returns its message.
pub(super) async fn unary<S: Inner>(
    service: S,
    rpc: &str,
    caller: Caller,
    message: impl Future<Output = Result<Vec<u8>, Refused>> + Send + 'static,
) -> Result<Bytes, Problem> {
    let mut answers = call(service, rpc, caller, message).await?;
    let only = answers.next().await.map_err(|status| Problem::of(&status))?;
    only.ok_or_else(|| Problem::of(&Status::internal("the call ended without its answer")))
}

fn request(rpc: &str, caller: Caller, body: Body) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    let path = format!("/peerpost.v1.MessagingService/{rpc}");
    *request.uri_mut() = Uri::try_from(path).unwrap_or_default();
    *request.headers_mut() = caller.headers;
    let grpc = HeaderValue::from_static("application/grpc");
    request.headers_mut().insert(header::CONTENT_TYPE, grpc);
    request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
    *request.extensions_mut() = caller.extensions;
    request
}

/// One frame with the message, or an error whose reason is in `refused`.
fn request_body(
    message: impl Future<Output = Result<Vec<u8>, Refused>> + Send + 'static,
    refused: Arc<OnceLock<Refused>>,
) -> Body {
    Body::new(StreamBody::new(stream! {
        yield match message.await {
            Ok(message) => Ok(Frame::data(framed(&message))),
            Err(reason) => {
                let frame = match &reason {
                    Refused::TooLarge => Ok(Frame::data(Bytes::from_static(&TOO_LARGE))),
                    Refused::Problem(problem) => {
                        Err(Status::invalid_argument(problem.detail()))
                    }
                };
                // Nobody else sets it.
                let _ = refused.set(reason);
                frame
            }
        };
    }))
}

/// A message as gRPC frames it.
pub(super) fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    frame.put_u8(0);
    // A request of more than 4 GiB was refused unread.
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}

/// The answers to a call, as they come.
pub(super) struct Answers {
    body: Pin<Box<Body>>,
    /// What was received and not taken: part of a message, or some.
    received: BytesMut,
    has_ended: bool,
}

impl Answers {
    /// Unless the call ended before its first answer.
    fn of(response: Response<Body>) -> Result<Self, Status> {
        if let Some(status) = Status::from_header_map(response.headers()) {
            ok(status)?;
        }
        let body = Box::pin(response.into_body());
        Ok(Self { body, received: BytesMut::new(), has_ended: false })
    }

    /// The next message, or `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.at_hand() {
                return Ok(Some(message));
            }
            if self.has_ended {
                return Ok(None);
            }
            let Some(frame) = poll_fn(|context| self.body.as_mut().poll_frame(context)).await
            else {
                self.has_ended = true;
                continue;
            };
            match frame?.into_data() {
                Ok(bytes) if self.received.is_empty() => self.received = bytes.into(),
                Ok(bytes) => self.received.extend_from_slice(&bytes),
                Err(frame) => {
                    self.has_ended = true;
                    let trailers = frame.into_trailers().unwrap_or_default();
                    if let Some(status) = Status::from_header_map(&trailers) {
                        ok(status)?;
                    }
                }
            }
        }
    }

    /// The next message, if all of it has come.
    pub(super) fn at_hand(&mut self) -> Option<Bytes> {
        let prefix = self.received.first_chunk::<PREFIX_BYTES>()?;
        let [_, length @ ..] = *prefix;
        let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
        if self.received.len() - PREFIX_BYTES < length {
            return None;
        }
        self.received.advance(PREFIX_BYTES);
        Some(self.received.split_to(length).freeze())
    }
}

fn ok(status: Status) -> Result<(), Status> {
    if status.code() == tonic::Code::Ok { Ok(()) } else { Err(status) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(pieces: Vec<Result<Frame<Bytes>, Status>>) -> Answers {
        let body = Body::new(StreamBody::new(tokio_stream::iter(pieces)));
        Answers::of(Response::new(body)).expect("the head is good")
    }

    #[tokio::test]
    async fn takes_messages_however_they_are_cut() {
        let whole = [framed(b"one"), framed(b""), framed(b"three")].concat();
        for size in 1..=whole.len() {
            let pieces = whole.chunks(size).map(Bytes::copy_from_slice).map(Frame::data).map(Ok);
            let mut answers = answers(pieces.collect());
            for expected in [&b"one"[..], b"", b"three"] {
                let next = answers.next().await.expect("goes on");
                assert_eq!(next.as_deref(), Some(expected), "in pieces of {size}");
            }
            assert_eq!(answers.next().await.expect("ends well"), None);
        }
    }

    #[tokio::test]
    async fn ends_with_the_status_in_the_trailers() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", 14.into());
        let pieces = vec![Ok(Frame::data(framed(b"one"))), Ok(Frame::trailers(trailers))];
        let mut answers = answers(pieces);
        assert!(answers.next().await.expect("goes on").is_some());
        let status = answers.next().await.expect_err("the end");
        assert_eq!(status.code(), tonic::Code::Unavailable);
    }
}
