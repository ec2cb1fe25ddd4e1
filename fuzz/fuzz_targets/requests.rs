//! Requests from their bytes: refused with what the contract promises, or within every bound and
//! meaning the same when they are written down again.
#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use peerpost::domain::Body;
use peerpost::domain::limits::{
    EPOCH_CHARACTERS_MAX, HEARTBEAT_INTERVAL_MAX, HEARTBEAT_INTERVAL_MIN, PAGE_SIZE_MAX,
};
use peerpost::grpc::from_bytes;
use peerpost::messenger::Outgoing;
use peerpost::proto;
use peerpost::proto::send_message_request::Body as Field;
use peerpost::testing::{Refusal, refused};
use prost::Message as _;
use tonic::Status;

/// Small, so that both sides of it are tried often.
const BODY_BYTES_MAX: usize = 64;

fuzz_target!(|input: (u8, &[u8])| {
    let (rpc, bytes) = input;
    match rpc % 7 {
        0 => register(bytes),
        1 => send_message(bytes),
        2 => {
            let Some(page) = decoded(from_bytes::get_messages(bytes)) else { return };
            assert!((1..=PAGE_SIZE_MAX).contains(&page.page_size));
            check_epoch(page.epoch.as_ref().map(|epoch| epoch.as_str()));
        }
        3 => {
            let Some(follow) = decoded(from_bytes::subscribe(bytes)) else { return };
            let bounds = HEARTBEAT_INTERVAL_MIN..=HEARTBEAT_INTERVAL_MAX;
            assert!(bounds.contains(&follow.heartbeat_interval));
            check_epoch(follow.epoch.as_ref().map(|epoch| epoch.as_str()));
        }
        4 => {
            let Some((through, epoch)) = decoded(from_bytes::acknowledge(bytes)) else { return };
            assert!(through.get() >= 0);
            check_epoch(epoch.as_ref().map(|epoch| epoch.as_str()));
        }
        5 => {
            let Some(name) = decoded(from_bytes::get_user(bytes)) else { return };
            let again = proto::GetUserRequest { username: name.to_string() }.encode_to_vec();
            let again = from_bytes::get_user(&again).expect("accepted before");
            assert_eq!(again.as_str(), name.as_str());
        }
        _ => list_users(bytes),
    }
});

/// What was accepted. A refusal keeps its promises, and names fields of the contract.
fn decoded<T: Debug>(result: Result<T, Status>) -> Option<T> {
    match result {
        Ok(request) => Some(request),
        Err(status) => {
            let reason = Refusal::of(&status).reason;
            let refusal = refused(Err::<(), _>(status), reason);
            let is_known = |field: &String| FIELDS.contains(&field.as_str());
            assert!(refusal.fields.iter().all(is_known), "{refusal:?}");
            None
        }
    }
}

/// Fields, and what stands for one that cannot be told.
const FIELDS: [&str; 26] = [
    "request",
    "body",
    "cursor",
    "start",
    "expiry",
    "username",
    "ip_address",
    "invite",
    "to_user",
    "text",
    "data",
    "content_type",
    "request_id",
    "expire_time",
    "ttl",
    "after_sequence",
    "before_sequence",
    "epoch",
    "peer",
    "received_only",
    "page_size",
    "from_now",
    "heartbeat_interval",
    "through_sequence",
    "prefix",
    "page_token",
];

fn register(bytes: &[u8]) {
    let Some((name, address)) = decoded(from_bytes::register(bytes)) else { return };
    let again = proto::RegisterRequest {
        username: name.to_string(),
        ip_address: address.map(|address| address.to_string()).unwrap_or_default(),
        ..Default::default()
    };
    let again = from_bytes::register(&again.encode_to_vec()).expect("accepted before");
    assert_eq!((again.0.as_str(), again.1), (name.as_str(), address));
}

fn send_message(bytes: &[u8]) {
    let accepted = decoded(from_bytes::send_message(bytes, BODY_BYTES_MAX));
    // The stream's request has the same fields under the same numbers.
    let streamed = proto::SendMessagesRequest::decode(bytes).map(proto::SendMessageRequest::from);
    assert_eq!(proto::SendMessageRequest::decode(bytes).ok(), streamed.ok());
    let Some(Outgoing { to, content, request_id, expiry }) = accepted else { return };
    assert!((1..=BODY_BYTES_MAX).contains(&content.body.as_bytes().len()));
    let again = proto::SendMessageRequest {
        to_user: to.to_string(),
        body: Some(match content.body.clone() {
            Body::Text(text) => Field::Text(text),
            Body::Data(data) => Field::Data(data),
        }),
        content_type: content.content_type.as_str().to_owned(),
        request_id: request_id.as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default(),
        expiry: proto::SendMessageRequest::decode(bytes).ok().and_then(|asked| asked.expiry),
    };
    let again = from_bytes::send_message(&again.encode_to_vec(), BODY_BYTES_MAX);
    let again = again.expect("accepted before");
    assert_eq!((again.to.as_str(), again.content), (to.as_str(), content));
    assert_eq!((again.request_id, again.expiry), (request_id, expiry));
}

fn list_users(bytes: &[u8]) {
    let Some((prefix, page_token, size)) = decoded(from_bytes::list_users(bytes)) else { return };
    assert!((1..=PAGE_SIZE_MAX).contains(&size));
    let again = proto::ListUsersRequest {
        prefix: prefix.as_str().to_owned(),
        page_size: i32::try_from(size).expect("at most 1,000"),
        page_token,
    };
    let page_token = again.page_token.clone();
    let again = from_bytes::list_users(&again.encode_to_vec()).expect("accepted before");
    assert_eq!(again, (prefix, page_token, size));
}

fn check_epoch(epoch: Option<&str>) {
    if let Some(epoch) = epoch {
        assert!((1..=EPOCH_CHARACTERS_MAX).contains(&epoch.chars().count()));
    }
}
