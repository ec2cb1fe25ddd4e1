//! Messages whose bodies go, and mailboxes that are full, as clients see it.

use std::num::NonZero;
use std::time::Duration;

use peerpost::client::{Body, OutgoingMessage, PageRequest};
use peerpost::proto::{ErrorReason, Message, SendMessageRequest, send_message_request};
use peerpost::testing::{
    TestServer, TestUser, after, eventually, refused, text_to, within_patience,
};

use crate::limits::metric;
use crate::support::{ANY_PORT, sequences, with_id};

/// Long enough to be seen before, short enough to wait for.
const TTL_MS: i32 = 700;

fn expiring(request: SendMessageRequest, milliseconds: i32) -> SendMessageRequest {
    let ttl = prost_types::Duration { seconds: 0, nanos: milliseconds * 1_000_000 };
    SendMessageRequest { expiry: Some(send_message_request::Expiry::Ttl(ttl)), ..request }
}

async fn until_expired(user: &TestUser, sequence: i64) -> Message {
    eventually("the body is gone", async || {
        let page = user.get(after(sequence - 1)).await.expect("a page");
        page.messages.into_iter().next().filter(|message| message.expired)
    })
    .await
}

#[tokio::test]
async fn an_expired_message_keeps_its_sequence_and_is_given_to_nobody() {
    let mut server = TestServer::start().await;
    let (mut alice, mut bob) = (server.user("alice").await, server.user("bob").await);
    let mut following = bob.follow(0).await;
    alice.send("bob", "stays").await;
    let request = with_id(expiring(text_to("bob", "goes"), TTL_MS), "id");
    let sent = alice.try_send(request.clone()).await.expect("stored");
    assert!(sent.expire_time.is_some());
    let live = following.messages(2).await.pop().expect("two");
    assert_eq!((live.expire_time, live.sequence), (sent.expire_time, 2));
    for round in 0..2 {
        let gone = until_expired(&bob, 2).await;
        assert_eq!((gone.body, gone.sequence), (None, 2));
        assert_eq!((gone.message_id, gone.from_user.as_str()), (sent.message_id.clone(), "alice"));
        let replayed = bob.follow(0).await.messages(2).await;
        assert_eq!(sequences(&replayed), [1, 2]);
        assert!(replayed[1].expired && replayed[1].body.is_none());
        let again = alice.try_send(request.clone()).await.expect("the first");
        assert_eq!((again.message_id, again.body), (sent.message_id.clone(), None));
        let other = expiring(text_to("bob", "goes"), TTL_MS + 1);
        refused(alice.try_send(with_id(other, "id")).await, ErrorReason::RequestIdReused);
        if round == 0 {
            server.restart().await;
            (alice, bob) = (alice.at(server.addr()), bob.at(server.addr()));
        }
    }
}

#[tokio::test]
async fn the_rust_client_says_that_a_body_is_gone() {
    let server = TestServer::start().await;
    let client = server.client("alice").await;
    let message = OutgoingMessage::new("alice", "goes").expiring_after(Duration::from_micros(1));
    let sent = client.send_message(message).await.expect("stored");
    assert_eq!(sent.body, Body::Expired);
    let page = client.messages(PageRequest::default()).await.expect("a page");
    assert_eq!((&page.messages[0].body, page.messages[0].sequence), (&Body::Expired, 1));
    assert!(page.messages[0].expire_time.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_mailbox_refuses_senders_and_loses_nothing_however_many_send() {
    const LIMIT: usize = 50;
    const EACH: usize = 25;
    let server = TestServer::start_with(|options| {
        options.mailbox_limits.messages_max = NonZero::new(LIMIT as u64);
        options.metrics_listen = Some(ANY_PORT);
    })
    .await;
    let bob = server.user("bob").await;
    let mut senders = Vec::new();
    for name in ["s1", "s2", "s3", "s4"] {
        senders.push(server.user(name).await);
    }
    let sending = senders.iter().map(|sender| {
        let sender = sender.clone();
        tokio::spawn(async move {
            let requests = (0..EACH).map(|n| text_to("bob", format!("m{n}")));
            sender.send_all(requests.collect::<Vec<_>>()).await
        })
    });
    let mut stored = 0;
    for sending in sending.collect::<Vec<_>>() {
        let answers = within_patience("the sends", sending).await.expect("no panic");
        for answer in answers.expect("the stream ends well") {
            match answer {
                Ok(_) => stored += 1,
                Err(status) => {
                    refused(Err::<(), _>(status), ErrorReason::MailboxFull)
                        .with("limit", "mailbox_messages_max")
                        .with("value", LIMIT)
                        .with("username", "bob");
                }
            }
        }
    }
    assert_eq!(stored, LIMIT);
    assert_eq!(bob.mailbox().await.len(), LIMIT);
    let refusals = "peerpost_refusals_total{limit=\"mailbox_messages_max\"}";
    assert_eq!(metric(&server, refusals).await, (senders.len() * EACH - LIMIT).to_string());
    // The others are not affected.
    senders[0].send("s2", "there is room").await;
}
