//! A client that speaks as browsers do: plain HTTP over either version, and gRPC-Web.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use peerpost::testing::within_patience;
use prost::Message;
use tonic::{Code, Status};

use crate::raw;

/// A browser's connections to a server.
#[derive(Clone)]
pub(crate) struct Browser {
    addr: SocketAddr,
    client: Client<HttpConnector, raw::Body>,
    is_text: bool,
}

impl Browser {
    pub(crate) fn http1(addr: SocketAddr) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { addr, client, is_text: false }
    }

    pub(crate) fn http2(addr: SocketAddr) -> Self {
        let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
        Self { addr, client, is_text: false }
    }

    /// gRPC-Web as base64.
    pub(crate) fn as_text(&self) -> Self {
        Self { is_text: true, ..self.clone() }
    }

    /// Every way to speak gRPC-Web.
    pub(crate) fn all(addr: SocketAddr) -> [(&'static str, Self); 4] {
        let (http1, http2) = (Self::http1(addr), Self::http2(addr));
        let texts = (http1.as_text(), http2.as_text());
        [
            ("HTTP/1.1", http1),
            ("HTTP/1.1, text", texts.0),
            ("HTTP/2", http2),
            ("HTTP/2, text", texts.1),
        ]
    }

    /// Any request.
    pub(crate) async fn fetch(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Response<Incoming> {
        let uri = format!("http://{}{path}", self.addr);
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(raw::whole(body.into())).expect("a request as HTTP has it");
        within_patience("an answer", self.client.request(request)).await.expect("an answer")
    }

    /// Begins a call of gRPC-Web.
    pub(crate) async fn call(
        &self,
        method: &str,
        headers: &[(&str, &str)],
        request: &impl Message,
    ) -> WebAnswer {
        let frame = raw::frame(&request.encode_to_vec());
        let (content_type, body) = if self.is_text {
            ("application/grpc-web-text", STANDARD.encode(frame).into())
        } else {
            ("application/grpc-web+proto", frame)
        };
        let headers = [headers, &[("content-type", content_type), ("x-grpc-web", "1")]].concat();
        let path = format!("/peerpost.v1.MessagingService/{method}");
        let (head, body) = self.fetch(Method::POST, &path, &headers, body).await.into_parts();
        assert_eq!(head.status, StatusCode::OK);
        let answered = head.headers.get("content-type").map(HeaderValue::as_bytes);
        let expected = if self.is_text {
            "application/grpc-web-text+proto"
        } else {
            "application/grpc-web+proto"
        };
        assert_eq!(answered, Some(expected.as_bytes()));
        let (text, received) = (BytesMut::new(), BytesMut::new());
        WebAnswer { headers: head.headers, body, is_text: self.is_text, text, received }
    }

    /// A call of gRPC-Web that has one answer.
    pub(crate) async fn unary<M: Message + Default>(
        &self,
        method: &str,
        headers: &[(&str, &str)],
        request: &impl Message,
    ) -> Result<M, Status> {
        let mut answer = self.call(method, headers, request).await;
        let message = answer.next().await?;
        let status = answer.next::<M>().await.err().expect("it has one answer");
        assert_eq!(status.code(), Code::Ok, "{status:?}");
        Ok(message)
    }
}

/// The answer to a call of gRPC-Web, as it comes.
#[derive(Debug)]
pub(crate) struct WebAnswer {
    pub(crate) headers: HeaderMap,
    body: Incoming,
    is_text: bool,
    /// Not decoded yet.
    text: BytesMut,
    received: BytesMut,
}

impl WebAnswer {
    /// The next message, or the status with which the call ends.
    pub(crate) async fn next<M: Message + Default>(&mut self) -> Result<M, Status> {
        if let Some(status) = Status::from_header_map(&self.headers) {
            return Err(status);
        }
        self.receive(5).await;
        let kind = self.received.get_u8();
        let length = usize::try_from(self.received.get_u32()).expect("32 bits");
        self.receive(length).await;
        let payload = self.received.split_to(length).freeze();
        match kind {
            0 => Ok(M::decode(payload).expect("a message")),
            0x80 => {
                let frame = within_patience("the end", self.body.frame()).await;
                assert!(frame.is_none() && self.received.is_empty(), "the trailers are the end");
                let lines = std::str::from_utf8(&payload).expect("headers are ASCII");
                Err(Status::from_header_map(&fields(lines)).expect("a status"))
            }
            other => panic!("a frame of kind {other}"),
        }
    }

    async fn receive(&mut self, length: usize) {
        while self.received.len() < length {
            let frame = within_patience("a frame", self.body.frame()).await;
            let frame = frame.expect("the answer ends with trailers").expect("the answer is whole");
            let bytes = frame.into_data().expect("the trailers are in the body");
            if self.is_text {
                self.text.extend_from_slice(&bytes);
                while self.text.len() >= 4 {
                    let group = STANDARD.decode(self.text.split_to(4)).expect("it is base64");
                    self.received.extend_from_slice(&group);
                }
            } else {
                self.received.extend_from_slice(&bytes);
            }
        }
    }
}

/// The fields that stand in these lines, a field each.
pub(crate) fn fields(lines: &str) -> HeaderMap {
    let header = |line: &str| {
        let (name, value) = line.split_once(':').expect("a name and a value");
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name in lower case");
        (name, HeaderValue::from_str(value.trim()).expect("a value"))
    };
    lines.lines().map(header).collect()
}
