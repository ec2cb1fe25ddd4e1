//! Between bytes and the contract's types. What is between those and the domain's is part of
//! [`calls`](crate::calls).

use bytes::Bytes;
use criterion::Criterion;
use peerpost::proto;
use prost::Message as _;
use uuid::Uuid;

use crate::support::BODY_BYTES;

pub(crate) fn decode_and_encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec");
    let request = Bytes::from(request().encode_to_vec());
    group.bench_function("decode SendMessageRequest", |bencher| {
        bencher.iter(|| proto::SendMessageRequest::decode(request.clone()).expect("it decodes"));
    });
    let response = response();
    let mut buffer = Vec::with_capacity(response.encoded_len());
    group.bench_function("encode SubscribeResponse", |bencher| {
        bencher.iter(|| {
            buffer.clear();
            response.encode(&mut buffer).expect("there is room");
            buffer.len()
        });
    });
    group.finish();
}

/// A send of the size that the targets are measured with.
pub(crate) fn request() -> proto::SendMessageRequest {
    proto::SendMessageRequest {
        to_user: "bob".into(),
        body: Some(proto::send_message_request::Body::Data(body())),
        content_type: String::new(),
        request_id: Uuid::new_v4().to_string(),
        expiry: None,
    }
}

fn response() -> proto::SubscribeResponse {
    let message = proto::Message {
        message_id: Uuid::now_v7().to_string(),
        sequence: 123_456,
        from_user: "alice".into(),
        to_user: "bob".into(),
        send_time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 123_456_000 }),
        body: Some(proto::message::Body::Data(body())),
        content_type: String::new(),
        request_id: String::new(),
        expire_time: None,
        expired: false,
    };
    proto::SubscribeResponse { event: Some(proto::subscribe_response::Event::Message(message)) }
}

fn body() -> Bytes {
    Bytes::from_static(&[b'x'; BODY_BYTES])
}
