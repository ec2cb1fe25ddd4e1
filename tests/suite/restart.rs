//! A server that stops and starts on the same folder goes on as if it had not.

use peerpost::proto::{ErrorReason, Message, SubscribeRequest};
use peerpost::testing::{Refusal, TestServer, after, refused, text_to};

use crate::support::{
    assert_dense_from, assert_same_view, last_sequence, sequences, subscribe_after, with_id,
};

#[tokio::test]
async fn everything_is_there_under_the_same_sequences_and_tokens() {
    let mut server = TestServer::start().await;
    let (alice, bob) = (server.user("Alice").await, server.user("bob").await);
    alice.try_register("alice", "192.0.2.7:9000").await.expect("updated");
    for i in 0..5 {
        alice.send_with_id("bob", "from alice", &format!("a{i}")).await;
        bob.send("alice", "from bob").await;
    }
    let (page, profile) = (alice.get(after(0)).await, alice.get_user("alice").await);
    let mailbox_of_bob = bob.mailbox().await;

    server.restart().await;

    let (alice, bob) = (alice.at(server.addr()), bob.at(server.addr()));
    let again = alice.get(after(0)).await.expect("the token is still good");
    assert_eq!(again, page.expect("a page"), "with its epoch and range");
    assert_same_view(&bob.mailbox().await, &mailbox_of_bob);
    assert_eq!(alice.get_user("alice").await.expect("found"), profile.expect("found"));
    refused(bob.try_register("ALICE", "").await, ErrorReason::UsernameTaken);
}

#[tokio::test]
async fn the_sequences_go_on() {
    let mut server = TestServer::start().await;
    let mut alice = server.user("alice").await;
    let mut bob = server.user("bob").await;
    for round in 0..4_i64 {
        assert_eq!(alice.send("bob", "hi").await.sequence, 3 * round + 1);
        assert_eq!(bob.send("alice", "hello").await.sequence, 3 * round + 2);
        assert_eq!(bob.send("bob", "note").await.sequence, 3 * round + 3);
        alice.send("alice", "note").await;
        server.restart().await;
        (alice, bob) = (alice.at(server.addr()), bob.at(server.addr()));
        assert_eq!(last_sequence(&alice).await, 3 * (round + 1));
        assert_dense_from(1, &alice.mailbox().await);
        assert_dense_from(1, &bob.mailbox().await);
    }
}

#[tokio::test]
async fn a_retry_after_a_restart_stores_nothing_new() {
    let mut server = TestServer::start().await;
    let alice = server.user("alice").await;
    let bob = server.user("bob").await;
    let request = with_id(text_to("bob", "once"), "r1");
    let first = alice.try_send(request.clone()).await.expect("accepted");
    alice.send("bob", "later").await;

    server.restart().await;

    let (alice, bob) = (alice.at(server.addr()), bob.at(server.addr()));
    assert_eq!(alice.try_send(request.clone()).await.expect("the first"), first);
    let streamed = alice.send_all([request]).await.expect("OK").remove(0);
    assert_eq!(streamed.expect("the first"), first);
    let other = with_id(text_to("bob", "other"), "r1");
    refused(alice.try_send(other).await, ErrorReason::RequestIdReused);
    assert_eq!(bob.mailbox().await.len(), 2);
}

#[tokio::test]
async fn what_was_acknowledged_stays_acknowledged() {
    let mut server = TestServer::start().await;
    let alice = server.user("alice").await;
    alice.send_many("alice", "note ", 5).await;
    alice.acknowledge(3).await.expect("accepted");

    server.restart().await;

    let alice = alice.at(server.addr());
    assert_eq!(alice.acknowledge(0).await.expect("accepted"), 3);
    let mut following = alice.subscribe(SubscribeRequest::default()).await.expect("accepted");
    assert_eq!(following.started().after_sequence, 3);
    assert_eq!(sequences(&following.history().await.0), [4, 5]);
}

#[tokio::test]
async fn a_follower_resumes_where_the_restart_cut_it_off() {
    let mut server = TestServer::start().await;
    let (mut alice, mut bob) = (server.user("alice").await, server.user("bob").await);
    let mut seen: Vec<Message> = Vec::new();
    let mut epoch = String::new();
    for _round in 0..4 {
        let cursor = seen.last().map_or(0, |last| last.sequence);
        let request = SubscribeRequest { epoch, ..subscribe_after(cursor) };
        let mut following = bob.subscribe(request).await.expect("the cursor is still good");
        epoch = following.started().epoch.clone();
        alice.send_many("bob", "m", 20).await;
        seen.extend(following.messages(10).await);
        server.begin_stop();
        let (rest, status) = following.drain().await;
        assert_eq!(Refusal::of(&status).reason, ErrorReason::ShuttingDown);
        seen.extend(rest);
        server.restart().await;
        (alice, bob) = (alice.at(server.addr()), bob.at(server.addr()));
    }
    let cursor = seen.last().map_or(0, |last| last.sequence);
    seen.extend(bob.follow(cursor).await.history().await.0);
    assert_eq!(seen.len(), 80);
    assert_dense_from(1, &seen);
    assert_same_view(&seen, &bob.mailbox().await);
}
