//! What a server may answer: the client understands it or says that it does not.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use peerpost::{client, proto};
use prost::Message as _;

fuzz_target!(|bytes: &[u8]| {
    let Ok(received) = proto::Message::decode(bytes) else { return };
    if let Ok(message) = client::Message::try_from(received.clone()) {
        assert_eq!(message.sequence, received.sequence);
        let body = match received.body {
            Some(proto::message::Body::Text(text)) => Bytes::from(text),
            Some(proto::message::Body::Data(data)) => data,
            None => {
                assert!(received.expired, "understood without a body");
                assert_eq!(message.body, client::Body::Expired);
                return;
            }
        };
        assert_eq!(message.body.as_bytes(), body);
    }
});
