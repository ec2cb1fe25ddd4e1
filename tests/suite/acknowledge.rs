//! `Acknowledge`: cumulative, only forward, deletes nothing.

use peerpost::proto::{ErrorReason, SubscribeRequest};
use peerpost::testing::{TestServer, after, refused};

use crate::support::sequences;

#[tokio::test]
async fn it_moves_only_forward() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    alice.send_many("alice", "note ", 5).await;
    for (through, acknowledged) in [(0, 0), (3, 3), (3, 3), (1, 3), (0, 3), (5, 5), (4, 5)] {
        assert_eq!(alice.acknowledge(through).await.expect("accepted"), acknowledged);
    }
}

#[tokio::test]
async fn a_sequence_beyond_the_mailbox_is_refused_with_the_range() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    refused(alice.acknowledge(1).await, ErrorReason::SequenceOutOfRange)
        .with("field", "through_sequence")
        .with("sequence", 1)
        .with("min_sequence", 0)
        .with("max_sequence", 0);
    alice.send_many("alice", "note ", 2).await;
    for sequence in [3, i64::MAX] {
        refused(alice.acknowledge(sequence).await, ErrorReason::SequenceOutOfRange)
            .with("sequence", sequence)
            .with("max_sequence", 2);
    }
    assert_eq!(alice.acknowledge(0).await.expect("accepted"), 0, "a refused one moves nothing");
}

#[tokio::test]
async fn a_negative_sequence_is_refused() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    for sequence in [-1, i64::MIN] {
        refused(alice.acknowledge(sequence).await, ErrorReason::InvalidField)
            .names("through_sequence");
    }
}

#[tokio::test]
async fn the_epoch_is_checked_when_it_is_named() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    alice.send_many("alice", "note ", 2).await;
    let epoch = alice.get(after(0)).await.expect("a page").epoch;

    assert_eq!(alice.acknowledge_in(&epoch, 1).await.expect("accepted"), 1);
    for other in ["another", &"x".repeat(64)] {
        refused(alice.acknowledge_in(other, 2).await, ErrorReason::EpochMismatch)
            .with("epoch", &epoch);
    }
    refused(alice.acknowledge_in(&"x".repeat(65), 2).await, ErrorReason::InvalidField)
        .names("epoch");
    assert_eq!(alice.acknowledge(0).await.expect("accepted"), 1);
}

#[tokio::test]
async fn it_deletes_nothing() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    alice.send_many("alice", "note ", 3).await;
    alice.acknowledge(3).await.expect("accepted");
    assert_eq!(sequences(&alice.mailbox().await), [1, 2, 3]);
    assert_eq!(alice.get(after(0)).await.expect("a page").first_sequence, 1);
}

#[tokio::test]
async fn it_is_where_a_subscription_without_a_start_begins() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    alice.send_many("alice", "note ", 3).await;
    alice.acknowledge(2).await.expect("accepted");

    let mut following = alice.subscribe(SubscribeRequest::default()).await.expect("accepted");
    assert_eq!(following.started().after_sequence, 2);
    assert_eq!(sequences(&following.history().await.0), [3]);
}

#[tokio::test]
async fn it_is_each_users_own() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    alice.send_many("bob", "hi ", 3).await;
    bob.acknowledge(3).await.expect("accepted");
    assert_eq!(alice.acknowledge(0).await.expect("accepted"), 0);
}
