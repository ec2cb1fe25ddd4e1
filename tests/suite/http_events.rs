//! A mailbox as server-sent events.

use peerpost::testing::{ServerProcess, TestServer, TestUser, text_to};
use serde_json::json;

use crate::http_support::{Event, Web};
use crate::restored;
use crate::support::binary;

async fn scene() -> (TestServer, TestUser, TestUser, Web) {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let web = Web::of(server.addr(), &bob);
    (server, alice, bob, web)
}

/// Asserts that these are the messages `first`, `first` + 1, … without a hole or a duplicate.
#[track_caller]
fn assert_dense_from(first: i64, events: &[Event]) {
    for (expected, event) in (first..).zip(events) {
        assert_eq!(event.data["sequence"], expected.to_string(), "a hole or a duplicate");
    }
}

#[tokio::test]
async fn history_turns_into_live_delivery() {
    let (_server, alice, bob, web) = scene().await;
    alice.send("bob", "one").await;
    alice.send("bob", "two").await;
    let mut events = web.events("after_sequence=0").await.expect("accepted");
    let started = events.next().await.expect("the first");
    assert!(events.retry.is_some(), "says when to come again");
    let epoch = started.data["epoch"].as_str().expect("an epoch").to_owned();
    assert_eq!(
        (started.name.as_str(), started.id.as_str()),
        ("started", format!("{epoch}/0").as_str())
    );
    assert_eq!(started.data["lastSequence"], "2");
    for (sequence, text) in [(1, "one"), (2, "two")] {
        let event = events.next().await.expect("a message");
        assert_eq!((event.name, event.id), ("message".into(), format!("{epoch}/{sequence}")));
        assert_eq!(event.data["text"], text);
        assert_eq!(event.data["fromUser"], "alice");
    }
    let caught_up = events.next().await.expect("the turn");
    assert_eq!((caught_up.name, caught_up.id), ("caught_up".into(), format!("{epoch}/2")));
    assert_eq!(caught_up.data, json!({"throughSequence": "2"}));
    assert!(bob.get_user("bob").await.expect("found").online, "a subscription as any other");

    alice.send("bob", "three").await;
    assert_eq!(events.next().await.expect("live").data["text"], "three");
    drop(events);
    peerpost::testing::eventually("bob is gone", async || {
        (!bob.get_user("bob").await.expect("found").online).then_some(())
    })
    .await;
}

#[tokio::test]
async fn says_where_to_start_and_what_to_leave_out() {
    let (_server, alice, bob, web) = scene().await;
    alice.send("bob", "one").await;
    bob.send("alice", "two").await;
    bob.acknowledge(1).await.expect("accepted");
    let started = |query: &'static str| {
        let web = web.clone();
        async move { web.events(query).await.expect("accepted").next().await.expect("the first").data }
    };
    assert_eq!(started("").await["afterSequence"], "1", "after what was acknowledged");
    assert_eq!(started("from_now=true").await["afterSequence"], "2");
    assert_eq!(started("afterSequence=0&heartbeatInterval=10s").await["afterSequence"], "0");

    // What is left out is covered by the ids, so that it is not looked for again.
    let mut received = web.events("after_sequence=0&received_only=true").await.expect("accepted");
    assert_eq!(received.next_message().await.data["text"], "one");
    let caught_up = received.next().await.expect("the turn");
    assert!(caught_up.id.ends_with("/2"), "{caught_up:?}");
}

#[tokio::test]
async fn silence_is_filled_with_heartbeats() {
    let (_server, alice, _bob, web) = scene().await;
    alice.send("bob", "one").await;
    let mut events = web.events("from_now=true&heartbeat_interval=1s").await.expect("accepted");
    let heartbeat = loop {
        let event = events.next().await.expect("goes on");
        if event.name == "heartbeat" {
            break event;
        }
    };
    assert_eq!(heartbeat.data, json!({"throughSequence": "1"}));
    assert!(heartbeat.id.ends_with("/1"), "a cursor as any other: {heartbeat:?}");
}

/// As a browser does: the same address, with the id of the last event.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_id_goes_on_across_restarts_without_loss_or_repeat() {
    const ROUNDS: usize = 4;
    const SENT: usize = 50;
    let (mut server, mut alice, bob, _web) = scene().await;
    let (mut last_id, mut seen) = (String::new(), Vec::new());
    for round in 0..ROUNDS {
        alice.send_many("bob", &format!("{round} "), SENT).await;
        let web = Web::of(server.addr(), &bob).with("last-event-id", last_id.clone());
        // What the address says holds for the first time only.
        let mut events = web.events("after_sequence=0").await.expect("accepted");
        // Not all of them, so that some are left for the next round.
        for event in events.messages(SENT - 5).await {
            last_id.clone_from(&event.id);
            seen.push(event);
        }
        drop(events);
        server.restart().await;
        alice = alice.at(server.addr());
    }
    let web = Web::of(server.addr(), &bob).with("last-event-id", last_id);
    let mut events = web.events("from_now=true").await.expect("accepted");
    seen.extend(events.messages(ROUNDS * 5).await);
    assert_eq!(seen.len(), ROUNDS * SENT);
    assert_dense_from(1, &seen);
    assert_eq!(events.next().await.expect("the turn").name, "caught_up");
}

#[tokio::test]
async fn every_kind_of_event_is_a_good_cursor() {
    let (server, alice, bob, web) = scene().await;
    alice.send("bob", "one").await;
    let mut events = web.events("from_now=true").await.expect("accepted");
    let started = events.next().await.expect("the first");
    drop(events);
    alice.send("bob", "two").await;
    // It began, nothing came, and the connection broke: what came since is not lost.
    let again = Web::of(server.addr(), &bob).with("last-event-id", started.id);
    let mut events = again.events("from_now=true").await.expect("accepted");
    assert_eq!(events.next_message().await.data["text"], "two");
}

#[tokio::test]
async fn ids_that_are_no_cursor_are_refused() {
    let (server, alice, bob, web) = scene().await;
    alice.send("bob", "one").await;
    let started = web.events("").await.expect("accepted").next().await.expect("the first");
    let epoch = started.data["epoch"].as_str().expect("an epoch");
    let (ahead, negative) = (format!("{epoch}/2"), format!("{epoch}/-1"));
    let expected = [
        (ahead.as_str(), "SEQUENCE_OUT_OF_RANGE"),
        ("another/1", "EPOCH_MISMATCH"),
        ("1", "INVALID_FIELD"),
        ("é/1", "INVALID_FIELD"),
        (negative.as_str(), "INVALID_FIELD"),
    ];
    for (id, reason) in expected {
        let web = Web::of(server.addr(), &bob).with("last-event-id", id);
        let Err(refused) = web.events("after_sequence=0").await else { panic!("{id} is accepted") };
        assert_eq!(refused.problem()["reason"], reason, "{id}");
    }
    let Err(refused) = web.events("after_sequence=0&from_now=true").await else {
        panic!("accepted")
    };
    assert_eq!(refused.problem()["fieldViolations"][0]["field"], "start");
}

/// Under the sequences that the reader knows stand other messages now.
#[tokio::test]
async fn a_restored_copy_is_noticed() {
    let (server, bob, epoch) = restored::server_of_a_new_epoch().await;
    let web = Web::of(server.addr(), &bob).with("last-event-id", format!("{epoch}/3"));
    let Err(refused) = web.events("").await else { panic!("accepted") };
    let problem = refused.problem();
    assert_eq!(problem["reason"], "EPOCH_MISMATCH");
    assert_eq!(problem["metadata"]["epoch"], "restored");
}

#[tokio::test]
async fn damage_ends_the_stream_after_what_is_whole() {
    let (server, bob) = crate::damage::server_with_a_damaged_message().await;
    let mut events =
        Web::of(server.addr(), &bob).events("after_sequence=0").await.expect("accepted");
    let whole = events.messages(3).await;
    assert_dense_from(1, &whole);
    let error = events.next().await.expect("the error");
    assert_eq!(error.name, "error");
    assert_eq!(error.data["reason"], "STORED_DATA_DAMAGED");
    assert_eq!(error.data["metadata"]["sequence"], "4");
    assert_eq!(events.next().await, None);
}

/// The server keeps what a socket holds for a reader that does not read, and no more.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_reader_costs_a_bounded_amount_of_memory() {
    const COUNT: usize = 60_000;
    const MEMORY_GROWTH_MAX_BYTES: u64 = 16 * 1024 * 1024;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = ServerProcess::start(binary(), &folder.path().join("data")).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let send = async |count: usize| {
        let bodies = (0..count).map(|i| text_to("bob", format!("{i:0300}")));
        let answers = alice.send_all(bodies).await.expect("the stream ends with OK");
        assert!(answers.iter().all(Result::is_ok));
    };
    send(5_000).await;
    let web = Web::of(server.addr(), &bob);
    web.events("after_sequence=0").await.expect("accepted").messages(5_000).await;
    let mut stalled = web.events("after_sequence=0").await.expect("accepted");
    let before = server.resident_bytes();
    send(COUNT).await;
    let growth = server.resident_bytes().saturating_sub(before);
    println!("{COUNT} messages at a stalled reader: {} KiB more", growth / 1024);
    assert!(growth < MEMORY_GROWTH_MAX_BYTES, "{growth} bytes more");
    assert_dense_from(1, &stalled.messages(5_000 + COUNT).await);
}
