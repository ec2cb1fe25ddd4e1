//! `Subscribe`: where it starts, the turn to live, heartbeats, how many, what is refused.

use std::time::{Duration, Instant};

use peerpost::domain::limits::SUBSCRIPTIONS_PER_USER_DEFAULT;
use peerpost::proto::{ErrorReason, Message, SubscribeRequest, subscribe_request};
use peerpost::testing::{Event, TestServer, after, eventually, refused};
use tokio::task::JoinSet;

use crate::support::{
    assert_dense_from, seconds, sequences, subscribe_after, subscribe_from_now, texts,
};

#[tokio::test]
async fn it_starts_where_it_is_told() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    alice.send_many("alice", "note ", 4).await;
    let table: [(SubscribeRequest, i64, &[i64]); 5] = [
        (SubscribeRequest::default(), 0, &[1, 2, 3, 4]),
        (subscribe_after(0), 0, &[1, 2, 3, 4]),
        (subscribe_after(2), 2, &[3, 4]),
        (subscribe_after(4), 4, &[]),
        (subscribe_from_now(), 4, &[]),
    ];
    for (request, start, expected) in table {
        let mut following = alice.subscribe(request.clone()).await.expect("accepted");
        let started = following.started().clone();
        assert_eq!(started.after_sequence, start, "{request:?}");
        assert_eq!((started.first_sequence, started.last_sequence), (1, 4));
        assert_eq!(started.epoch, alice.get(after(0)).await.expect("a page").epoch);
        let (history, through) = following.history().await;
        assert_eq!(sequences(&history), expected, "{request:?}");
        assert_eq!(through, 4);
    }
}

#[tokio::test]
async fn an_empty_mailbox_is_followed_from_its_first_entry() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    for request in [SubscribeRequest::default(), subscribe_after(0), subscribe_from_now()] {
        let mut following = alice.subscribe(request).await.expect("accepted");
        let started = following.started();
        assert_eq!((started.after_sequence, started.first_sequence), (0, 1));
        assert_eq!(started.last_sequence, 0);
        assert_eq!(following.history().await, (vec![], 0));
    }
}

#[tokio::test]
async fn history_turns_to_live_delivery_once() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    alice.send_many("bob", "early ", 3).await;
    let mut following = bob.follow(0).await;
    assert_eq!(following.history().await.0.len(), 3);
    for i in 0..3 {
        let sent = alice.send("bob", &format!("live {i}")).await;
        match following.next().await.expect("goes on") {
            Event::Message(received) => assert_eq!(received.message_id, sent.message_id),
            other => panic!("{other:?} where a message was expected"),
        }
    }
    assert_eq!(sequences(&bob.mailbox().await), [1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn history_of_many_pages_comes_whole_before_the_turn_to_live_delivery() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    // A replay reads up to 512 messages at a time.
    alice.send_many("alice", "note ", 1_200).await;
    let (history, through) = alice.follow(0).await.history().await;
    assert_eq!((history.len(), through), (1_200, 1_200));
    assert_dense_from(1, &history);
}

#[tokio::test]
async fn it_shows_what_get_messages_shows() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let mut live = alice.follow(0).await;
    live.history().await;
    alice.send_with_id("bob", "from alice", "r1").await;
    bob.send_with_id("alice", "from bob", "r2").await;
    alice.send_with_id("alice", "to herself", "r3").await;

    let mailbox = alice.mailbox().await;
    let request_ids: Vec<_> = mailbox.iter().map(|m| m.request_id.as_str()).collect();
    assert_eq!(request_ids, ["r1", "", "r3"], "only her own");
    assert_eq!(live.messages(3).await, mailbox, "live");
    assert_eq!(alice.follow(0).await.history().await.0, mailbox, "history");
}

#[tokio::test]
async fn received_only_skips_what_was_sent() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let request = SubscribeRequest { received_only: true, ..subscribe_after(0) };
    let mut live = alice.subscribe(request.clone()).await.expect("accepted");
    live.history().await;
    alice.send("bob", "sent").await;
    bob.send("alice", "received").await;
    alice.send("alice", "to herself").await;
    alice.send("bob", "sent too").await;

    assert_eq!(texts(&live.messages(2).await), ["received", "to herself"]);
    let mut replayed = alice.subscribe(request).await.expect("accepted");
    let (history, through) = replayed.history().await;
    assert_eq!(sequences(&history), [2, 3]);
    assert_eq!(through, 4, "what was skipped is covered");
}

#[tokio::test]
async fn a_silent_stream_shows_signs_of_life_with_a_good_cursor() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let bob = server.user("bob").await;
    let request = SubscribeRequest {
        heartbeat_interval: Some(seconds(1)),
        received_only: true,
        ..subscribe_after(0)
    };
    let begun = Instant::now();
    let mut following = alice.subscribe(request).await.expect("accepted");
    following.history().await;
    assert_eq!(following.heartbeat().await, 0);
    assert!(begun.elapsed() >= Duration::from_millis(990), "not before a second of silence");

    bob.send("alice", "received").await;
    assert_eq!(following.next_message().await.sequence, 1);
    assert_eq!(following.heartbeat().await, 1);
    alice.send("bob", "skipped").await;
    eventually("a heartbeat that covers what was skipped", async || {
        (following.heartbeat().await == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_heartbeat_interval_is_a_second_to_an_hour() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let with = |seconds, nanos| SubscribeRequest {
        heartbeat_interval: Some(prost_types::Duration { seconds, nanos }),
        ..subscribe_after(0)
    };
    for accepted in [(0, 0), (1, 0), (1, 1), (30, 0), (3_600, 0)] {
        alice.subscribe(with(accepted.0, accepted.1)).await.expect("accepted");
    }
    let refused_intervals = [
        (0, 1),
        (0, 999_999_999),
        (3_600, 1),
        (3_601, 0),
        (-1, 0),
        (0, -1),
        (i64::MAX, 0),
        (i64::MIN, 0),
        (1, 1_000_000_000),
        (1, -1),
    ];
    for (seconds, nanos) in refused_intervals {
        refused(alice.subscribe(with(seconds, nanos)).await, ErrorReason::InvalidField)
            .names("heartbeat_interval");
    }
}

#[tokio::test]
async fn what_is_not_a_start_is_refused() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    alice.send_many("alice", "note ", 2).await;
    for sequence in [-1, i64::MIN] {
        refused(alice.subscribe(subscribe_after(sequence)).await, ErrorReason::InvalidField)
            .names("after_sequence");
    }
    let start = Some(subscribe_request::Start::FromNow(false));
    let not_now = SubscribeRequest { start, ..Default::default() };
    refused(alice.subscribe(not_now).await, ErrorReason::InvalidField).names("from_now");
}

#[tokio::test]
async fn a_start_ahead_of_the_mailbox_is_refused_with_the_range() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    alice.send_many("alice", "note ", 2).await;
    for sequence in [3, i64::MAX] {
        refused(alice.subscribe(subscribe_after(sequence)).await, ErrorReason::SequenceOutOfRange)
            .with("field", "after_sequence")
            .with("sequence", sequence)
            .with("min_sequence", 0)
            .with("max_sequence", 2);
    }
}

#[tokio::test]
async fn the_epoch_is_checked_when_it_is_named() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let epoch = alice.get(after(0)).await.expect("a page").epoch;
    for request in [subscribe_after(0), subscribe_from_now(), SubscribeRequest::default()] {
        let within = |epoch: &str| SubscribeRequest { epoch: epoch.into(), ..request.clone() };
        alice.subscribe(within(&epoch)).await.expect("accepted");
        for other in ["another", &"x".repeat(64)] {
            refused(alice.subscribe(within(other)).await, ErrorReason::EpochMismatch)
                .with("epoch", &epoch);
        }
        refused(alice.subscribe(within(&"x".repeat(65))).await, ErrorReason::InvalidField)
            .names("epoch");
    }
}

#[tokio::test]
async fn following_acknowledges_nothing() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    alice.send_many("alice", "note ", 3).await;
    for _again in 0..2 {
        let mut following = alice.subscribe(SubscribeRequest::default()).await.expect("accepted");
        assert_eq!(sequences(&following.history().await.0), [1, 2, 3]);
    }
    assert_eq!(alice.acknowledge(0).await.expect("accepted"), 0);
}

#[tokio::test]
async fn every_subscription_receives_everything() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let mut all = JoinSet::new();
    for _device in 0..5 {
        let mut following = bob.follow(0).await;
        all.spawn(async move { following.messages(100).await });
    }
    alice.send_many("bob", "m", 100).await;
    for view in all.join_all().await {
        assert_dense_from(1, &view);
        assert_eq!(view, bob.mailbox().await);
    }
}

#[tokio::test]
async fn only_its_owner_follows_a_mailbox() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let mallory = server.user("mallory").await;
    let mut following = mallory.follow(0).await;
    following.history().await;
    alice.send("bob", "private").await;
    bob.send("mallory", "for mallory").await;
    assert_eq!(texts(&following.messages(1).await), ["for mallory"]);
}

#[tokio::test]
async fn a_broken_stream_goes_on_after_the_highest_sequence_seen() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let mut seen: Vec<Message> = Vec::new();
    for _connection in 0..10 {
        let cursor = seen.last().map_or(0, |last| last.sequence);
        let mut following = bob.follow(cursor).await;
        alice.send_many("bob", "m", 7).await;
        seen.extend(following.messages(5).await);
    }
    assert_eq!(seen.len(), 50);
    assert_dense_from(1, &seen);
}

#[tokio::test]
async fn a_user_has_at_most_256_subscriptions() {
    const MOST: usize = SUBSCRIPTIONS_PER_USER_DEFAULT;
    assert_eq!(MOST, 256);
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let mut open = Vec::new();
    for _ in 0..MOST {
        open.push(alice.subscribe(subscribe_from_now()).await.expect("accepted"));
    }
    refused(alice.subscribe(subscribe_from_now()).await, ErrorReason::SubscriptionLimit)
        .with("value", MOST);
    bob.subscribe(subscribe_from_now()).await.expect("the limit is each user's own");

    open.pop();
    let one_more =
        eventually("room for another", async || alice.subscribe(subscribe_from_now()).await.ok());
    open.push(one_more.await);
    bob.send("alice", "for all").await;
    for following in &mut open {
        assert_eq!(following.next_message().await.sequence, 1, "each receives everything");
    }
}
