//! Calls below the generated client, for what it would not send: broken requests, half a request,
//! a deadline that only the server keeps.

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use peerpost::testing::within_patience;
use tokio_stream::StreamExt as _;
use tonic::{Code, Status};

pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Makes its calls on one connection.
pub(crate) type Client = legacy::Client<HttpConnector, Body>;

pub(crate) fn client() -> Client {
    legacy::Client::builder(TokioExecutor::new()).http2_only(true).build_http()
}

/// A gRPC frame that holds these bytes.
pub(crate) fn frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("a test's message fits"));
    frame.put_slice(message);
    frame.freeze()
}

/// A request body that is all there.
pub(crate) fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).boxed_unsync()
}

/// A request body that is sent piece by piece, each in an HTTP/2 frame of its own.
pub(crate) fn in_frames(pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Body {
    StreamBody::new(tokio_stream::iter(pieces.map(|piece| Ok(Frame::data(piece))))).boxed_unsync()
}

/// A request body that begins with these bytes and never ends.
pub(crate) fn unfinished(bytes: Bytes) -> Body {
    let first = tokio_stream::once(Ok(Frame::data(bytes)));
    StreamBody::new(first.chain(tokio_stream::pending())).boxed_unsync()
}

/// Calls a method of the service and reads the answer to its end: the status that stands there.
pub(crate) async fn call(
    addr: SocketAddr,
    method: &str,
    headers: &[(&str, String)],
    body: Body,
) -> Status {
    try_call(addr, method, headers, body).await.expect("an answer")
}

/// A call that the server may cut off.
pub(crate) async fn try_call(
    addr: SocketAddr,
    method: &str,
    headers: &[(&str, String)],
    body: Body,
) -> Result<Status, Box<dyn Error + Send + Sync>> {
    call_by(&client(), addr, method, headers, body).await
}

/// The same, by a client that made others.
pub(crate) async fn call_by(
    client: &Client,
    addr: SocketAddr,
    method: &str,
    headers: &[(&str, String)],
    body: Body,
) -> Result<Status, Box<dyn Error + Send + Sync>> {
    let mut request = http::Request::post(format!("http://{addr}/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let request = request.body(body).expect("a request as HTTP has it");
    let answer = within_patience(method, client.request(request)).await?;
    if let Some(status) = Status::from_header_map(answer.headers()) {
        return Ok(status);
    }
    let body = within_patience(method, answer.into_body().collect()).await?;
    let status = body.trailers().and_then(Status::from_header_map);
    Ok(status.unwrap_or_else(|| Status::new(Code::Unknown, "the answer has no grpc-status")))
}
