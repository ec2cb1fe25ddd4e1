//! `GetMessages`: pages of one's own mailbox, either way, exact at their ends.

use peerpost::domain::limits::{BODY_BYTES_DEFAULT, PAGE_BYTES_MAX};
use peerpost::proto::{ErrorReason, GetMessagesRequest, Message};
use peerpost::testing::{TestServer, TestUser, after, before, body_bytes, data_to, refused};

use crate::support::{assert_dense_from, assert_same_view, sequences, texts};

#[tokio::test]
async fn an_empty_mailbox_is_an_empty_page() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    for request in [GetMessagesRequest::default(), after(0), before(0), before(1)] {
        let page = alice.get(request).await.expect("a page");
        assert!(page.messages.is_empty());
        assert!(!page.has_more);
        assert!(!page.epoch.is_empty());
        assert_eq!((page.first_sequence, page.last_sequence), (1, 0));
    }
}

#[tokio::test]
async fn a_page_starts_where_its_cursor_says() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    alice.send_many("alice", "note ", 5).await;
    let table: [(GetMessagesRequest, i32, &[i64], bool); 15] = [
        (GetMessagesRequest::default(), 0, &[1, 2, 3, 4, 5], false),
        (GetMessagesRequest::default(), 2, &[1, 2], true),
        (after(0), 5, &[1, 2, 3, 4, 5], false),
        (after(0), 4, &[1, 2, 3, 4], true),
        (after(2), 2, &[3, 4], true),
        (after(3), 2, &[4, 5], false),
        (after(4), 0, &[5], false),
        (after(5), 0, &[], false),
        (before(0), 0, &[1, 2, 3, 4, 5], false),
        (before(0), 2, &[4, 5], true),
        (before(6), 2, &[4, 5], true),
        (before(4), 2, &[2, 3], true),
        (before(3), 2, &[1, 2], false),
        (before(2), 0, &[1], false),
        (before(1), 0, &[], false),
    ];
    for (request, page_size, expected, has_more) in table {
        let request = GetMessagesRequest { page_size, ..request };
        let page = alice.get(request.clone()).await.expect("a page");
        assert_eq!(sequences(&page.messages), expected, "{request:?}");
        assert_eq!(page.has_more, has_more, "{request:?}");
        assert_eq!((page.first_sequence, page.last_sequence), (1, 5));
    }
}

#[tokio::test]
async fn a_cursor_outside_the_mailbox_is_refused_with_the_range() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    alice.send_many("alice", "note ", 5).await;
    let table = [
        (after(6), "after_sequence", 6, 5),
        (after(i64::MAX), "after_sequence", i64::MAX, 5),
        (before(7), "before_sequence", 7, 6),
        (before(i64::MAX), "before_sequence", i64::MAX, 6),
    ];
    for (request, field, sequence, max_sequence) in table {
        let refusal = refused(alice.get(request).await, ErrorReason::SequenceOutOfRange);
        refusal.with("field", field).with("sequence", sequence).with("max_sequence", max_sequence);
        let cursor = if field == "after_sequence" { after } else { before };
        for end in ["min_sequence", "max_sequence"] {
            let named = refusal.metadata[end].parse().expect("a number");
            alice.get(cursor(named)).await.expect("what the range names is accepted");
        }
    }
}

#[tokio::test]
async fn negative_numbers_are_refused() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let table = [
        (after(-1), "after_sequence"),
        (after(i64::MIN), "after_sequence"),
        (before(-1), "before_sequence"),
        (GetMessagesRequest { page_size: -1, ..after(0) }, "page_size"),
        (GetMessagesRequest { page_size: i32::MIN, ..after(0) }, "page_size"),
    ];
    for (request, field) in table {
        refused(alice.get(request).await, ErrorReason::InvalidField).names(field);
    }
}

#[tokio::test]
async fn a_page_holds_100_unless_said_otherwise_and_1000_at_most() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    alice.send_many("alice", "note ", 1_001).await;
    let sizes = [(0, 100), (1, 1), (999, 999), (1_000, 1_000), (1_001, 1_000), (i32::MAX, 1_000)];
    for (page_size, expected) in sizes {
        for cursor in [after(0), before(0)] {
            let page = alice.get(GetMessagesRequest { page_size, ..cursor }).await.expect("a page");
            assert_eq!(page.messages.len(), expected, "page_size {page_size}");
            assert!(page.has_more);
        }
    }
    let last = alice.get(GetMessagesRequest { page_size: 1_000, ..after(1) }).await;
    let last = last.expect("a page");
    assert_eq!((last.messages.len(), last.has_more), (1_000, false));
}

#[tokio::test]
async fn pages_of_every_size_add_up_to_the_mailbox_both_ways() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let sent = alice.send_many("alice", "note ", 12).await;
    for page_size in 1..=13 {
        let request = GetMessagesRequest { page_size, ..Default::default() };
        assert_same_view(&forwards(&alice, &request).await, &sent);
        assert_same_view(&backwards(&alice, &request).await, &sent);
    }
}

#[tokio::test]
async fn a_page_ends_when_its_bodies_reach_1_mib() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let large = (0..20).map(|_| data_to("alice", vec![7; BODY_BYTES_DEFAULT]));
    let answers = alice.send_all(large).await.expect("OK");
    let sent: Vec<_> = answers.into_iter().map(|answer| answer.expect("accepted")).collect();

    let forward = alice.get(after(0)).await.expect("a page");
    assert!(forward.has_more);
    assert_dense_from(1, &forward.messages);
    assert_page_of_1_mib(&forward.messages);
    let backward = alice.get(before(0)).await.expect("a page");
    assert!(backward.has_more);
    assert_eq!(backward.messages.last().map(|last| last.sequence), Some(20), "the newest");
    assert_page_of_1_mib(&backward.messages);

    let request = GetMessagesRequest::default();
    assert_same_view(&forwards(&alice, &request).await, &sent);
    assert_same_view(&backwards(&alice, &request).await, &sent);
}

#[tokio::test]
async fn a_peer_selects_the_conversation_of_the_two() {
    let server = TestServer::start().await;
    let alice = scene(&server).await;
    let table: [(&str, bool, &[&str]); 8] = [
        ("", false, &["a→b", "b→a", "c→a", "a→a", "a→B", "a→c"]),
        ("", true, &["b→a", "c→a", "a→a"]),
        ("Bob", false, &["a→b", "b→a", "a→B"]),
        ("bOB", false, &["a→b", "b→a", "a→B"]),
        ("bob", true, &["b→a"]),
        ("carol", false, &["c→a", "a→c"]),
        ("ALICE", false, &["a→a"]),
        ("alice", true, &["a→a"]),
    ];
    for (peer, received_only, expected) in table {
        let request = GetMessagesRequest { peer: peer.into(), received_only, ..Default::default() };
        for page_size in [1, 2, 100] {
            let request = GetMessagesRequest { page_size, ..request.clone() };
            assert_eq!(texts(&forwards(&alice, &request).await), expected, "{request:?}");
            assert_eq!(texts(&backwards(&alice, &request).await), expected, "{request:?}");
        }
    }
}

#[tokio::test]
async fn a_filtered_page_keeps_the_mailboxs_numbers_and_range() {
    let server = TestServer::start().await;
    let alice = scene(&server).await;
    let request = GetMessagesRequest { peer: "bob".into(), page_size: 2, ..after(1) };
    let page = alice.get(request).await.expect("a page");
    assert_eq!(sequences(&page.messages), [2, 5]);
    assert!(!page.has_more, "nothing more matches");
    assert_eq!((page.first_sequence, page.last_sequence), (1, 6));

    let request = GetMessagesRequest { peer: "bob".into(), page_size: 2, ..before(0) };
    let page = alice.get(request).await.expect("a page");
    assert_eq!((sequences(&page.messages), page.has_more), (vec![2, 5], true));
}

#[tokio::test]
async fn a_peer_without_messages_is_an_empty_conversation() {
    let server = TestServer::start().await;
    let alice = scene(&server).await;
    server.user("dave").await;
    let page = alice.get(GetMessagesRequest { peer: "dave".into(), ..after(0) }).await;
    let page = page.expect("a page");
    assert_eq!((page.messages.len(), page.has_more, page.last_sequence), (0, false, 6));
}

#[tokio::test]
async fn a_peer_is_a_registered_name() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let with = |peer: &str| GetMessagesRequest { peer: peer.into(), ..after(0) };
    refused(alice.get(with("bob")).await, ErrorReason::UserNotFound)
        .with("username", "bob")
        .with("field", "peer");
    for peer in [".", "b b", "böb", &"x".repeat(65)] {
        refused(alice.get(with(peer)).await, ErrorReason::InvalidField).names("peer");
    }
}

#[tokio::test]
async fn the_epoch_is_checked_when_it_is_named() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let epoch = alice.get(after(0)).await.expect("a page").epoch;
    assert_eq!(bob.get(after(0)).await.expect("a page").epoch, epoch, "one for the database");

    let within = |epoch: &str| GetMessagesRequest { epoch: epoch.into(), ..after(0) };
    assert_eq!(alice.get(within(&epoch)).await.expect("a page").epoch, epoch);
    for other in ["another", &epoch[1..], &"x".repeat(64)] {
        refused(alice.get(within(other)).await, ErrorReason::EpochMismatch).with("epoch", &epoch);
    }
    refused(alice.get(within(&"x".repeat(65))).await, ErrorReason::InvalidField).names("epoch");
}

#[tokio::test]
async fn every_database_has_another_epoch() {
    let (one, two) = (TestServer::start().await, TestServer::start().await);
    let (alice, bob) = (one.user("alice").await, two.user("bob").await);
    let epoch = alice.get(after(0)).await.expect("a page").epoch;
    assert_ne!(epoch, bob.get(after(0)).await.expect("a page").epoch);
}

#[tokio::test]
async fn only_its_owner_reads_a_mailbox() {
    let server = TestServer::start().await;
    let _alice = scene(&server).await;
    let mallory = server.user("mallory").await;
    for request in [after(0), before(0), GetMessagesRequest { peer: "bob".into(), ..after(0) }] {
        let page = mallory.get(request).await.expect("their own, empty one");
        assert_eq!((page.messages.len(), page.last_sequence), (0, 0));
    }
}

/// Alice's mailbox: six entries with Bob, carol and herself.
async fn scene(server: &TestServer) -> TestUser {
    let alice = server.user("Alice").await;
    let (bob, carol) = (server.user("Bob").await, server.user("carol").await);
    alice.send("bob", "a→b").await;
    bob.send("carol", "b→c").await;
    bob.send("alice", "b→a").await;
    carol.send("alice", "c→a").await;
    alice.send("alice", "a→a").await;
    alice.send("BOB", "a→B").await;
    alice.send("carol", "a→c").await;
    alice
}

async fn forwards(user: &TestUser, request: &GetMessagesRequest) -> Vec<Message> {
    let mut all: Vec<Message> = Vec::new();
    loop {
        let cursor = after(all.last().map_or(0, |last| last.sequence)).cursor;
        let page = user.get(GetMessagesRequest { cursor, ..request.clone() }).await;
        let page = page.expect("a page");
        assert!(!page.has_more || !page.messages.is_empty(), "a page that leads nowhere");
        all.extend(page.messages);
        if !page.has_more {
            return all;
        }
    }
}

async fn backwards(user: &TestUser, request: &GetMessagesRequest) -> Vec<Message> {
    let mut all: Vec<Message> = Vec::new();
    loop {
        let cursor = before(all.first().map_or(0, |first| first.sequence)).cursor;
        let page = user.get(GetMessagesRequest { cursor, ..request.clone() }).await;
        let page = page.expect("a page");
        assert!(!page.has_more || !page.messages.is_empty(), "a page that leads nowhere");
        all.splice(0..0, page.messages);
        if !page.has_more {
            return all;
        }
    }
}

/// Full to 1 MiB, and over it by less than one body.
#[track_caller]
fn assert_page_of_1_mib(messages: &[Message]) {
    let bytes: usize = messages.iter().map(|message| body_bytes(message).len()).sum();
    let full = PAGE_BYTES_MAX - BODY_BYTES_DEFAULT + 1..PAGE_BYTES_MAX + BODY_BYTES_DEFAULT;
    assert!(full.contains(&bytes), "{bytes} bytes");
}
