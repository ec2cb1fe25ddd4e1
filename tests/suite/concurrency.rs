//! Many at once: one dense order that everyone sees, one winner of every race.

use std::collections::{HashMap, HashSet};

use peerpost::proto::{ErrorReason, Message};
use peerpost::testing::{TestServer, TestUser, body_text, eventually, refused, text_to};
use tokio::task::JoinSet;

use crate::support::{assert_dense_from, assert_same_view, with_id};

const SENDERS: usize = 64;
const MESSAGES_EACH: usize = 40;
const TOTAL: usize = SENDERS * MESSAGES_EACH;
const SUBSCRIBERS: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_senders_and_eight_readers_who_come_and_go_see_one_order() {
    let server = TestServer::start().await;
    let bob = server.user("bob").await;
    let mut readers = JoinSet::new();
    for reader in 0..SUBSCRIBERS {
        readers.spawn(come_and_go(bob.clone(), reader));
    }
    let mut senders = JoinSet::new();
    for sender in 0..SENDERS {
        let user = server.user(&format!("sender{sender}")).await;
        senders.spawn(async move {
            for i in 0..MESSAGES_EACH {
                user.send("bob", &format!("{sender} {i}")).await;
            }
        });
    }
    senders.join_all().await;

    let mailbox = bob.mailbox().await;
    assert_eq!(mailbox.len(), TOTAL);
    assert_dense_from(1, &mailbox);
    assert_each_senders_order(&mailbox);
    for view in readers.join_all().await {
        assert_same_view(&view, &mailbox);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_and_single_sends_into_one_mailbox_keep_each_senders_order() {
    let server = TestServer::start().await;
    let bob = server.user("bob").await;
    let mut live = bob.follow(0).await;
    let view = tokio::spawn(async move { live.messages(8 * MESSAGES_EACH).await });
    let mut senders = JoinSet::new();
    for sender in 0..8 {
        let user = server.user(&format!("sender{sender}")).await;
        senders.spawn(async move {
            let texts = (0..MESSAGES_EACH).map(|i| format!("{sender} {i}"));
            if sender % 2 == 0 {
                let requests = texts.map(|text| text_to("bob", text));
                user.send_all(requests).await.expect("the stream ends with OK");
            } else {
                for text in texts {
                    user.send("bob", &text).await;
                }
            }
        });
    }
    senders.join_all().await;
    let view = view.await.expect("the reader does not panic");
    assert_dense_from(1, &view);
    assert_each_senders_order(&view);
    assert_same_view(&view, &bob.mailbox().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn everyone_sending_to_everyone_keeps_every_mailbox_dense() {
    const USERS: usize = 12;
    const EACH: usize = 60;
    let server = TestServer::start().await;
    let mut users = Vec::new();
    for i in 0..USERS {
        users.push(server.user(&format!("user{i}")).await);
    }
    let mut senders = JoinSet::new();
    for (number, user) in users.iter().cloned().enumerate() {
        senders.spawn(async move {
            for i in 0..EACH {
                user.send(&format!("user{}", (number + i) % USERS), "hi").await;
            }
        });
    }
    senders.join_all().await;
    for user in &users {
        let mailbox = user.mailbox().await;
        assert_dense_from(1, &mailbox);
        // Each sends EACH, of which every USERS-th is to itself, and receives as many.
        assert_eq!(mailbox.len(), 2 * EACH - EACH / USERS);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_pages_sees_a_dense_prefix_at_every_moment() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let sender = tokio::spawn(async move { alice.send_many("bob", "m", 2_000).await });
    let mut longest = 0;
    eventually("the reader seeing everything", async || {
        let mailbox = bob.mailbox().await;
        assert_dense_from(1, &mailbox);
        assert!(mailbox.len() >= longest, "what was read once is there for good");
        longest = mailbox.len();
        (longest == 2_000).then_some(())
    })
    .await;
    sender.await.expect("the sender does not panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_id_sent_by_many_at_once_is_stored_once() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    for round in 0..10 {
        let request = with_id(text_to("bob", "once"), &format!("r{round}"));
        let mut racers = JoinSet::new();
        for racer in 0..24 {
            let device = if racer % 2 == 0 { alice.clone() } else { alice.at(server.addr()) };
            let request = request.clone();
            racers.spawn(async move {
                match racer % 3 {
                    0 => device.send_all([request]).await.expect("OK").remove(0),
                    _ => device.try_send(request).await,
                }
            });
        }
        let answers = racers.join_all().await;
        let ids: HashSet<_> =
            answers.into_iter().map(|answer| answer.expect("the one").message_id).collect();
        assert_eq!(ids.len(), 1, "all were answered with the one message");
    }
    assert_eq!(bob.mailbox().await.len(), 10);
    assert_eq!(alice.mailbox().await.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_id_with_different_contents_at_once_stores_one_of_them() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let mut racers = JoinSet::new();
    for racer in 0..24 {
        let alice = alice.clone();
        let request = with_id(text_to("alice", format!("content {racer}")), "r");
        racers.spawn(async move { alice.try_send(request).await });
    }
    let (stored, others): (Vec<_>, Vec<_>) =
        racers.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!(stored.len(), 1);
    for other in others {
        refused(other, ErrorReason::RequestIdReused);
    }
    assert_eq!(alice.mailbox().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_name_registered_by_many_at_once_has_one_owner() {
    let server = TestServer::start().await;
    let nobody = server.user("nobody").await;
    for round in 0..5 {
        let mut racers = JoinSet::new();
        for name in [format!("name{round}"), format!("NAME{round}"), format!("Name{round}")] {
            for _ in 0..6 {
                let (device, name) = (nobody.at(server.addr()), name.clone());
                racers.spawn(async move { device.try_register(&name, "").await });
            }
        }
        let (won, lost): (Vec<_>, Vec<_>) =
            racers.join_all().await.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1);
        for answer in lost {
            refused(answer, ErrorReason::UsernameTaken);
        }
        let winner = won.into_iter().flatten().next().expect("one");
        let shown = nobody.get_user(&format!("name{round}")).await.expect("found");
        assert_eq!(Some(shown.username), winner.user.map(|user| user.username));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledging_at_once_from_many_devices_ends_at_the_highest() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    alice.send_many("alice", "note ", 100).await;
    let mut devices = JoinSet::new();
    for through in 1..=100 {
        let alice = alice.clone();
        devices.spawn(async move { (through, alice.acknowledge(through).await) });
    }
    for (through, answer) in devices.join_all().await {
        assert!(answer.expect("accepted") >= through);
    }
    assert_eq!(alice.acknowledge(0).await.expect("accepted"), 100);
}

/// Follows until everything was seen, hanging up after ever another number of messages.
async fn come_and_go(user: TestUser, reader: usize) -> Vec<Message> {
    let mut view: Vec<Message> = Vec::new();
    let mut patience = reader + 1;
    while view.len() < TOTAL {
        let cursor = view.last().map_or(0, |last| last.sequence);
        let mut following = user.follow(cursor).await;
        let count = patience.min(TOTAL - view.len());
        view.extend(following.messages(count).await);
        patience = patience * 7 % 193 + 1;
    }
    view
}

/// The texts are "sender number"; each sender's numbers must count up from 0.
#[track_caller]
fn assert_each_senders_order(messages: &[Message]) {
    let mut next: HashMap<&str, usize> = HashMap::new();
    for message in messages {
        let (sender, number) = body_text(message).split_once(' ').expect("two words");
        let expected = next.entry(sender).or_default();
        assert_eq!(number.parse(), Ok(*expected), "of sender {sender}");
        *expected += 1;
    }
    assert!(next.values().all(|count| *count == MESSAGES_EACH), "all of everyone");
}
