//! Whole calls through the service as the server puts it together, without a socket and without
//! HTTP/2: from a request's bytes to the response's.

use std::future::Future;

use bytes::{BufMut as _, Bytes, BytesMut};
use criterion::{Criterion, Throughput};
use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use peerpost::auth::Authenticator;
use peerpost::domain::Token;
use peerpost::domain::limits::BODY_BYTES_DEFAULT;
use peerpost::grpc::{Edge, Messaging};
use peerpost::hub::Hub;
use peerpost::messenger::Messenger;
use peerpost::proto;
use peerpost::proto::messaging_service_server::MessagingServiceServer;
use prost::Message;
use tokio::task::JoinSet;
use tower::Service as _;

use crate::codec::request;
use crate::support::OpenStore;

type Edged = Edge<MessagingServiceServer<Messaging>>;

const PAGE: i32 = 256;
const IN_FLIGHT: usize = 64;

pub(crate) fn without_a_socket(criterion: &mut Criterion) {
    let open = OpenStore::new();
    let ((alice, _), (bob, token)) = (open.user("alice"), open.user("bob"));
    open.fill(&alice, &bob, 1_000);
    let service = service(&open);

    let mut group = criterion.benchmark_group("call");
    let query = proto::GetMessagesRequest { page_size: PAGE, ..Default::default() };
    group.throughput(Throughput::Elements(u64::from(PAGE.unsigned_abs())));
    group.bench_function("GetMessages, 256 messages", |bencher| {
        bencher.to_async(&open.runtime).iter(|| call(&service, &token, "GetMessages", &query));
    });
    group.sample_size(20);
    group.throughput(Throughput::Elements(IN_FLIGHT as u64));
    group.bench_function("SendMessage, 64 in flight", |bencher| {
        bencher.to_async(&open.runtime).iter(|| async {
            let mut calls = JoinSet::new();
            for _ in 0..IN_FLIGHT {
                calls.spawn(call(&service, &token, "SendMessage", &request()));
            }
            calls.join_all().await
        });
    });
    group.finish();
}

fn service(open: &OpenStore) -> Edged {
    let authenticator = Authenticator::alone(open.store.clone());
    let messaging = Messaging::new(
        authenticator.clone(),
        Messenger::new(open.store.clone(), Hub::default()),
        BODY_BYTES_DEFAULT,
    );
    Edge::new(messaging, authenticator, BODY_BYTES_DEFAULT)
}

/// Makes a unary call; the bytes of its response.
fn call(
    service: &Edged,
    token: &Token,
    method: &str,
    message: &impl Message,
) -> impl Future<Output = Bytes> + Send + 'static {
    let request = Request::post(format!("/peerpost.v1.MessagingService/{method}"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::AUTHORIZATION, format!("Bearer {}", token.reveal()))
        .body(Full::new(framed(message)))
        .expect("a request");
    let mut service = service.clone();
    async move {
        let Ok(response) = service.call(request).await;
        let body = response.into_body().collect().await.expect("a body");
        let status = body.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned();
        assert_eq!(status.expect("a status"), "0");
        body.to_bytes()
    }
}

/// gRPC's frame: no compression, the length, the message.
fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(5 + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).expect("small"));
    message.encode(&mut frame).expect("there is room");
    frame.freeze()
}
