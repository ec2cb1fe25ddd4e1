//! Mailboxes that lose their beginnings, as clients see it.

use std::num::NonZero;
use std::time::Duration;

use peerpost::client::{Event, FollowOptions, Start};
use peerpost::proto::{ErrorReason, SubscribeRequest};
use peerpost::store::Retention;
use peerpost::testing::{
    TestServer, TestUser, after, before, eventually, refused, within_patience,
};

use crate::accounts_support::audit;
use crate::support::{assert_dense_from, sequences, subscribe_after};

const KEPT: i64 = 5;

/// A server that keeps the newest messages of each mailbox, and looks for the others all the time.
async fn server() -> TestServer {
    TestServer::start_with(|options| {
        let count = NonZero::new(KEPT.unsigned_abs());
        options.retention.keep = Retention { count, ..Retention::default() };
        options.retention.interval = Duration::from_millis(10);
        options.merge_messages = 8;
    })
    .await
}

/// Waits until a mailbox whose last entry is this one has lost what it is to lose.
async fn trimmed(user: &TestUser, last: i64) {
    eventually("the mailbox begins later", async || {
        let page = user.get(before(0)).await.expect("a page");
        assert_eq!(page.last_sequence, last);
        assert_dense_from(page.first_sequence, &page.messages);
        (page.first_sequence == last - KEPT + 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_cursor_behind_what_is_kept_is_refused_with_the_range() {
    let mut server = server().await;
    let mut alice = server.user("alice").await;
    alice.send_many("alice", "note ", 20).await;
    trimmed(&alice, 20).await;
    for round in 0..2 {
        for (request, field, asked) in [
            (after(0), "after_sequence", 0),
            (after(14), "after_sequence", 14),
            (before(1), "before_sequence", 1),
            (before(15), "before_sequence", 15),
        ] {
            let refusal = refused(alice.get(request).await, ErrorReason::SequenceOutOfRange);
            refusal.with("field", field).with("sequence", asked);
            let (min, max) = if field == "after_sequence" { (15, 20) } else { (16, 21) };
            refusal.with("min_sequence", min).with("max_sequence", max);
        }
        for start in [0, 14] {
            let refusal = alice.subscribe(subscribe_after(start)).await;
            refused(refusal, ErrorReason::SequenceOutOfRange)
                .with("sequence", start)
                .with("min_sequence", 15)
                .with("max_sequence", 20);
        }
        assert_eq!(
            sequences(&alice.get(after(15)).await.expect("a page").messages),
            [16, 17, 18, 19, 20]
        );
        assert_eq!(sequences(&alice.get(before(18)).await.expect("a page").messages), [16, 17]);
        if round == 0 {
            server.restart().await;
            alice = alice.at(server.addr());
        }
    }
}

#[tokio::test]
async fn without_a_start_a_subscription_says_what_is_gone() {
    let server = server().await;
    let alice = server.user("alice").await;
    alice.send_many("alice", "note ", 20).await;
    alice.acknowledge(3).await.expect("accepted");
    trimmed(&alice, 20).await;
    let mut subscription =
        alice.subscribe(SubscribeRequest::default()).await.expect("from what is kept");
    let started = subscription.started();
    assert_eq!(started.acknowledged_through, 3);
    assert_eq!((started.after_sequence, started.first_sequence), (15, 16));
    assert_eq!(started.last_sequence, 20);
    let messages = subscription.messages(5).await;
    assert_dense_from(16, &messages);
    alice.send_many("alice", "note ", 3).await;
    assert_dense_from(21, &subscription.messages(3).await);
}

#[tokio::test]
async fn a_client_that_follows_is_told_of_the_gap() {
    let server = server().await;
    let (alice, client) = (server.user("alice").await, server.client("bob").await);
    alice.send_many("bob", "m", 20).await;
    eventually("bob's mailbox begins later", async || {
        let state = client.follow(Start::Acknowledged, FollowOptions::default()).next_event().await;
        match state {
            Some(Ok(Event::Started { first_sequence: 16, .. })) => Some(()),
            _ => None,
        }
    })
    .await;
    let mut follow = client.follow(Start::After(7), FollowOptions::default());
    let told = within_patience("the error", follow.next_event()).await.expect("an event");
    let error = told.expect_err("there is a gap").to_string();
    assert!(error.contains("15 to 20"), "{error}");
    assert!(follow.next_event().await.is_none(), "it does not go on behind the gap");
}

#[tokio::test]
async fn a_follower_who_keeps_up_misses_nothing_of_what_is_removed() {
    let server = server().await;
    let alice = server.user("alice").await;
    let mut subscription = alice.subscribe(subscribe_after(0)).await.expect("accepted");
    for round in 0..20 {
        alice.send_many("alice", "note ", 4).await;
        assert_dense_from(4 * round + 1, &subscription.messages(4).await);
    }
    trimmed(&alice, 80).await;
}

#[tokio::test]
async fn an_operator_sets_what_is_kept_of_a_single_mailbox() {
    use peerpost::proto::admin::{
        GetUserRetentionRequest, Retention as Kept, SetUserRetentionRequest,
    };
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let admin = server.admin().await;
    let show = async |username: &str| {
        let request = GetUserRetentionRequest { username: username.to_owned() };
        admin.call(|mut grpc| async move { grpc.get_user_retention(request).await }).await
    };
    let set = async |username: &str, retention: Option<Kept>| {
        let request = SetUserRetentionRequest { username: username.to_owned(), retention };
        admin.call(|mut grpc| async move { grpc.set_user_retention(request).await }).await
    };
    set("BOB", Some(Kept::default())).await.expect("everything");
    alice.send_many("bob", "m", 20).await;
    trimmed(&alice, 20).await;
    let shown = show("bob").await.expect("an answer");
    assert!(shown.is_own);
    assert_eq!((shown.first_sequence, shown.last_sequence), (1, 20), "hers is bounded, his is not");
    let shown = show("alice").await.expect("an answer");
    assert!(!shown.is_own);
    assert_eq!(shown.retention.expect("always").messages_max, KEPT);
    assert_eq!(bob.mailbox().await.len(), 20);

    set("bob", None).await.expect("as the server");
    let acts = audit(&server).await;
    assert_eq!(
        acts.iter().filter(|it| it.act == "retention.set" && it.subject == "bob").count(),
        2
    );
    alice.send("bob", "one more").await;
    trimmed(&bob, 21).await;
    for retention in [
        Kept { messages_max: -1, ..Kept::default() },
        Kept { age: Some(prost_types::Duration::default()), ..Kept::default() },
        Kept {
            after_acknowledgement: Some(prost_types::Duration { seconds: -1, nanos: 0 }),
            ..Kept::default()
        },
    ] {
        set("bob", Some(retention)).await.expect_err("refused");
    }
    set("nobody", None).await.expect_err("there is no such user");
}
