//! Traces (feature `otel`), as a collector gets them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use peerpost::testing::{ServerProcess, eventually, text_to};
use serde_json::json;
use tokio::net::TcpListener;
use tonic::metadata::MetadataValue;

use crate::http_support::Web;
use crate::support::binary;

const TRACE: [u8; 16] = *b"a trace of mine!";
const PARENT: [u8; 8] = *b"a parent";
const OTHER_TRACE: [u8; 16] = *b"another, by HTTP";
const BODY: &str = "a body that nobody else should see";
const STATE: &str = "a-secret-in-the-state";

/// What takes spans by OTLP over gRPC, and keeps what it was sent as it came.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<u8>>>);

impl Collector {
    async fn start(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let collector = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let collector = collector.clone();
                let service = service_fn(move |request| collector.clone().take(request));
                let connection = http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        addr
    }

    async fn take(
        self,
        request: Request<Incoming>,
    ) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>, Infallible>
    {
        let body = request.into_body().collect().await.expect("a whole request").to_bytes();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&body);
        // An empty message, and OK.
        let ok = HeaderMap::from_iter([("grpc-status".parse().expect("a name"), 0.into())]);
        let body =
            Full::new(Bytes::from_static(&[0; 5])).with_trailers(async move { Some(Ok(ok)) });
        let mut response = Response::new(body);
        let grpc = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert("content-type", grpc);
        Ok(response)
    }

    fn has(&self, bytes: &[u8]) -> bool {
        let got = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        got.windows(bytes.len()).any(|it| it == bytes)
    }
}

fn traceparent(trace: [u8; 16]) -> String {
    let (trace, parent) = (u128::from_be_bytes(trace), u64::from_be_bytes(PARENT));
    format!("00-{trace:032x}-{parent:016x}-01")
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_traced_below_their_callers_span_and_nothing_of_them_is_shown() {
    let collector = Collector::default();
    let endpoint = format!("http://{}", collector.start().await);
    let folder = tempfile::tempdir().expect("a temporary folder");
    // Only what a caller decides to trace is.
    let flags = ["--otlp-endpoint", &endpoint, "--otlp-share", "0"];
    let server =
        ServerProcess::start_with(&[], binary(), &folder.path().join("data"), &flags).await;
    let alice = server.user("alice").await;
    let mut request = alice.request(text_to("alice", BODY));
    let value = |text: &str| MetadataValue::try_from(text).expect("text");
    request.metadata_mut().insert("traceparent", value(&traceparent(TRACE)));
    request.metadata_mut().insert("tracestate", value(&format!("a={STATE}")));
    request.metadata_mut().insert("x-request-id", value("an-id-of-mine"));
    alice.client().send_message(request).await.expect("sent");
    let web = Web::of(server.addr(), &alice).with("traceparent", traceparent(OTHER_TRACE));
    let reply = web.post("/v1/messages", &json!({"to_user": "nobody", "text": BODY})).await;
    assert_eq!(reply.status, 404);
    alice.mailbox().await;
    server.terminate();
    assert_eq!(server.exit().await.code, Some(0));

    eventually("the spans", async || {
        [&TRACE[..], &OTHER_TRACE].iter().all(|trace| collector.has(trace)).then_some(())
    })
    .await;
    for expected in [
        &PARENT[..],
        b"peerpost.v1.MessagingService/SendMessage",
        b"rpc.response.status_code",
        b"NOT_FOUND",
        b"OK",
        b"service.version",
    ] {
        assert!(collector.has(expected), "no {}", String::from_utf8_lossy(expected));
    }
    let secrets = [BODY, &alice.token, STATE, "an-id-of-mine", "GetMessages", "Register"];
    for hidden in secrets {
        assert!(!collector.has(hidden.as_bytes()), "{hidden} is in the traces");
    }
}

#[tokio::test]
async fn a_server_without_its_collector_serves_and_stops() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let flags = ["--otlp-endpoint", "http://127.0.0.1:1"];
    let server =
        ServerProcess::start_with(&[], binary(), &folder.path().join("data"), &flags).await;
    server.user("alice").await.send("alice", "x").await;
    server.terminate();
    assert_eq!(server.exit().await.code, Some(0));
}
