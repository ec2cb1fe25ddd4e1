//! Every field of every request, with everything that it can hold and should not: missing, empty, at
//! its bound, over it, huge, no UTF-8, odd Unicode, of another kind. What is refused stores nothing.
//!
//! RPCs and fields come from the descriptors: one that is new fails the test until it has its row.

use peerpost::proto::ErrorReason::InvalidField;
use peerpost::proto::{
    Message, SendMessageResponse, SendMessagesResponse, User, message::Body, send_messages_response,
};
use peerpost::testing::{Refusal, TestServer, TestUser, refused};
use prost::Message as _;
use tonic::transport::{Channel, Endpoint};

use crate::contract::{Field, Rpc, Value, rpcs};
use crate::hostile_rows::Outcome::{self, Accepted, Refused};
use crate::hostile_rows::{LONGEST_NAME, cells, good_request, row, undecodable};
use crate::support::list;

/// A server with a few users and messages, and what it can be seen to hold.
struct World {
    alice: TestUser,
    bob: TestUser,
    channel: Channel,
    _server: TestServer,
}

#[derive(PartialEq)]
struct Seen {
    alice: Vec<Message>,
    bob: Vec<Message>,
    users: Vec<User>,
    acknowledged: i64,
}

impl World {
    async fn start() -> Self {
        let server = TestServer::start().await;
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        server.user(LONGEST_NAME).await;
        alice.send("bob", "one").await;
        bob.send("alice", "two").await;
        let channel = Endpoint::from_shared(server.uri()).expect("a URI").connect_lazy();
        Self { alice, bob, channel, _server: server }
    }

    async fn seen(&self) -> Seen {
        let mut users = self.alice.list_users(list("", 0, "")).await.expect("the users").users;
        // Presence is no part of what a request stores: a subscription that ended shows there later.
        for user in &mut users {
            (user.online, user.last_seen_time) = (false, None);
        }
        Seen {
            alice: self.alice.mailbox().await,
            bob: self.bob.mailbox().await,
            users,
            acknowledged: self.alice.acknowledge(0).await.expect("nothing changes"),
        }
    }

    async fn try_cell(
        &self,
        rpc: &Rpc,
        field: &Field,
        value: Option<Value>,
        expected: Outcome<'_>,
    ) {
        let said = rpc.saying(&good_request(&rpc.name), field, value.clone());
        let shown = value.as_ref().map(shown);
        println!("{}.{} says {shown:?}: {expected:?}", rpc.name, field.path);
        let before = self.seen().await;
        let authorization = self.alice.request(()).metadata().get("authorization").cloned();
        let answer = rpc.call(&self.channel, authorization, rpc.encode(&said)).await;
        match expected {
            Refused(reason, named) => {
                assert_names(&refused(answer, reason), named);
                assert!(self.seen().await == before, "what is refused stores nothing");
            }
            Accepted => {
                let answer = answer.unwrap_or_else(|status| panic!("is refused: {status:?}"));
                if let Some(message) = message_sent(rpc, &answer) {
                    let mut grown = before.alice;
                    grown.push(message.clone());
                    assert!(self.seen().await.alice == grown, "one message more, and no other");
                    assert_holds(&message, field, value);
                }
            }
        }
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Bytes(bytes) if bytes.len() > 64 => format!("{} bytes", bytes.len()),
        Value::Bytes(bytes) => format!("{:?}", bytes.escape_ascii().to_string()),
        other => format!("{other:?}"),
    }
}

#[track_caller]
fn assert_names(refusal: &Refusal, field: &str) {
    // A refusal over what a field refers to says the field in its metadata.
    match refusal.metadata.get("field") {
        Some(named) => assert_eq!(named, field, "{refusal:?}"),
        None => drop(refusal.names(field)),
    }
}

/// The message in the answer to a send.
fn message_sent(rpc: &Rpc, answer: &[u8]) -> Option<Message> {
    match rpc.name.as_str() {
        "SendMessage" => SendMessageResponse::decode(answer).expect("a response").message,
        "SendMessages" => match SendMessagesResponse::decode(answer).expect("a response").result? {
            send_messages_response::Result::Message(message) => Some(message),
            send_messages_response::Result::Error(error) => panic!("{error:?}"),
        },
        _ => None,
    }
}

/// What was accepted is what was said, to the byte.
#[track_caller]
fn assert_holds(message: &Message, field: &Field, value: Option<Value>) {
    if field.path.starts_with("expire_time") || field.path.starts_with("ttl") {
        return assert_eq!(message.expire_time.is_some(), value.is_some(), "{}", field.path);
    }
    let said = match value {
        Some(Value::Bytes(said)) => said,
        None => Vec::new(),
        Some(other) => panic!("{other:?} in a message"),
    };
    let held = match (field.path.as_str(), &message.body) {
        ("to_user", _) => message.to_user.as_bytes(),
        ("content_type", _) => message.content_type.as_bytes(),
        ("request_id", _) => message.request_id.as_bytes(),
        ("text", Some(Body::Text(text))) => text.as_bytes(),
        ("data", Some(Body::Data(data))) => data,
        (field, body) => panic!("{field} became {body:?}"),
    };
    assert!(held == said, "{} does not hold what was said", field.path);
}

#[tokio::test]
async fn every_field_of_every_request_keeps_its_bounds() {
    let world = World::start().await;
    for rpc in rpcs() {
        for field in &rpc.fields {
            // An acknowledgement that is accepted moves on; the mailbox grows with what is sent.
            let last = world.seen().await.alice.len();
            let last = i64::try_from(last).expect("few");
            for (value, expected) in cells(row(&rpc.name, &field.path, last)) {
                world.try_cell(&rpc, field, value, expected).await;
            }
        }
    }
}

#[tokio::test]
async fn what_cannot_be_decoded_is_refused_with_the_fields_name() {
    let world = World::start().await;
    for rpc in rpcs() {
        for field in &rpc.fields {
            for value in undecodable(field) {
                let expected = Refused(InvalidField, &field.place);
                world.try_cell(&rpc, field, Some(value), expected).await;
            }
        }
    }
}

#[tokio::test]
async fn a_good_request_stays_one_with_fields_that_nobody_knows() {
    let world = World::start().await;
    let authorization = world.alice.request(()).metadata().get("authorization").cloned();
    for rpc in rpcs().iter().filter(|rpc| rpc.spares_its_caller()) {
        let good = rpc.encode(&good_request(&rpc.name));
        // Field 1000 as a number, field 1001 as bytes.
        let unknown = [&good[..], b"\xc0\x3e\x01", b"\xca\x3e\x03abc"].concat();
        for request in [good, unknown.into()] {
            let answer = rpc.call(&world.channel, authorization.clone(), request).await;
            rpc.let_in(answer);
        }
    }
    assert_eq!(world.alice.mailbox().await.len(), 2 + 4, "two sends, each twice");
}
