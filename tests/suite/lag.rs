//! A reader that stops reading: it delays nobody, costs a bounded amount of memory, and gets
//! everything once it reads again.

use peerpost::domain::limits::BODY_BYTES_DEFAULT;
use peerpost::proto::Message;
use peerpost::testing::{
    ServerProcess, Subscription, TestServer, TestUser, body_bytes, data_to, text_to,
};

use crate::support::{assert_dense_from, assert_same_view, binary, subscribe_after};

/// A connection that takes so few unread bytes holds its server up at once.
const NARROW_WINDOW_BYTES: u32 = 16 * 1024;

const MEMORY_GROWTH_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Set to another count of messages, such as 1000000, to press harder.
const COUNT_VARIABLE: &str = "PEERPOST_TEST_LAG_MESSAGES";
const COUNT_DEFAULT: usize = 100_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_reader_delays_nobody_and_misses_nothing() {
    const COUNT: usize = 20_000;
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let mut stalled = stalled(&bob).await;
    let mut lively = bob.follow(0).await;
    let lively = tokio::spawn(async move { lively.messages(COUNT).await });
    let mut sender = alice.follow(0).await;
    let sender = tokio::spawn(async move { sender.messages(COUNT).await });

    let sent = alice.send_many("bob", "m", COUNT).await;
    let view = lively.await.expect("the reader does not panic");
    assert_dense_from(1, &view);
    assert_same_view(&sender.await.expect("the reader does not panic"), &sent);
    assert_eq!(bob.mailbox().await.len(), COUNT, "nor does it delay pages");

    // Only now, after everyone else has everything, does it read.
    assert_same_view(&stalled.messages(COUNT).await, &view);
}

#[tokio::test(flavor = "multi_thread")]
async fn bursts_of_bodies_of_all_sizes_reach_readers_of_all_speeds() {
    const COUNT: usize = 600;
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let mut stalled = stalled(&bob).await;
    let mut halting = stalled_by_turns(&bob).await;
    let halting = tokio::spawn(async move { halting.messages(COUNT).await });

    let bodies: Vec<_> = (0..COUNT).map(body_of_another_size).collect();
    let answers = alice.send_all(bodies.iter().map(|body| data_to("bob", body.clone()))).await;
    assert!(answers.expect("the stream ends with OK").iter().all(Result::is_ok));

    let view = stalled.messages(COUNT).await;
    assert_dense_from(1, &view);
    let received: Vec<_> = view.iter().map(body_bytes).collect();
    assert!(received == bodies, "every body as it was sent, in the order sent");
    assert_same_view(&halting.await.expect("the reader does not panic"), &view);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stalls_again_and_again_misses_nothing() {
    const BURSTS: usize = 10;
    const BURST: usize = 700;
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let mut following = stalled(&bob).await;
    let mut view: Vec<Message> = Vec::new();
    for burst in 0..BURSTS {
        alice.send_many("bob", &format!("{burst} "), BURST).await;
        // Ever less than what is there, so that it lags further and further.
        view.extend(following.messages(BURST / (burst + 1)).await);
    }
    view.extend(following.messages(BURSTS * BURST - view.len()).await);
    assert_dense_from(1, &view);
    assert_same_view(&view, &bob.mailbox().await);
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_reader_costs_a_bounded_amount_of_memory() {
    let count = count();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = ServerProcess::start(binary(), &folder.path().join("data")).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    // What any running server holds (caches, buffers, pools) is there before the measuring begins.
    send_bodies_of_100_bytes(&alice, 5_000).await;
    bob.follow(0).await.history().await;
    let mut stalled = stalled(&bob).await;

    let before = server.resident_bytes();
    send_bodies_of_100_bytes(&alice, count).await;
    let growth = server.resident_bytes().saturating_sub(before);
    println!("{count} messages at a stalled reader: {} KiB more", growth / 1024);
    assert!(growth < MEMORY_GROWTH_MAX_BYTES, "{growth} bytes more");

    for sequence in 1..=5_000 + i64::try_from(count).expect("a count fits") {
        assert_eq!(stalled.next_message().await.sequence, sequence);
    }
}

async fn send_bodies_of_100_bytes(alice: &TestUser, count: usize) {
    let bodies = (0..count).map(|i| text_to("bob", format!("{i:0100}")));
    let answers = alice.send_all(bodies).await.expect("the stream ends with OK");
    assert!(answers.iter().all(Result::is_ok));
}

async fn stalled(user: &TestUser) -> Subscription {
    user.subscribe_with_window(NARROW_WINDOW_BYTES, subscribe_after(0)).await.expect("accepted")
}

/// A window of one large body: it reads on, and holds the server up at every message.
async fn stalled_by_turns(user: &TestUser) -> Subscription {
    let window = u32::try_from(BODY_BYTES_DEFAULT).expect("64 KiB");
    user.subscribe_with_window(window, subscribe_after(0)).await.expect("accepted")
}

/// 1 byte to 64 KiB, small and large ones mixed, each with content of its own.
fn body_of_another_size(i: usize) -> Vec<u8> {
    let size = match i % 5 {
        0 => 1 + i % 50,
        1..=3 => 100 + i * 7 % 2_000,
        _ => BODY_BYTES_DEFAULT - i % 3 * 20_000,
    };
    (0..size).map(|at| u8::try_from((i + at) % 251).expect("below 251")).collect()
}

fn count() -> usize {
    match std::env::var(COUNT_VARIABLE) {
        Ok(text) => text.parse().expect("a count of messages"),
        Err(_) => COUNT_DEFAULT,
    }
}
