//! Stopping: streams are told, what was accepted is finished, and no client can hold the server.

use std::time::{Duration, Instant};

use peerpost::proto::ErrorReason;
use peerpost::proto::messaging_service_server::SERVICE_NAME;
use peerpost::server::Options;
use peerpost::testing::{
    Refusal, ServerProcess, Subscription, TestServer, TestUser, eventually, text_to,
    within_patience,
};
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::raw;
use crate::support::{assert_dense_from, binary, subscribe_after};

/// What the server may take beyond its drain deadline: a second for what it cuts to end, and five
/// for the store to close. Less than the default deadline, so that one which is not heeded shows.
const MARGIN: Duration = Duration::from_secs(6);

/// A drain deadline that no server reaches whose clients do not hold it, and what such a server may
/// take on a busy machine.
const FAR_DEADLINE: Duration = Duration::from_mins(1);
const LONG_BEFORE_IT: Duration = Duration::from_secs(20);

/// A connection that takes so few unread bytes holds its server up at once.
const NARROW_WINDOW_BYTES: u32 = 16 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_with_100_subscriptions_half_of_them_not_reading_ends_in_time_with_code_0() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = ServerProcess::start(binary(), &folder.path().join("data")).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    alice.send_all((0..200).map(|_| text_to("bob", "x".repeat(1_000)))).await.expect("OK");
    let mut reading = JoinSet::new();
    let mut stalled = Vec::new();
    for _ in 0..50 {
        reading.spawn(bob.follow(0).await.drain());
        stalled.push(stalled_subscription(&bob).await);
    }

    let begun = Instant::now();
    server.terminate();
    let exit = server.exit().await;
    let took = begun.elapsed();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let deadline = Options::new(folder.path()).drain_deadline;
    assert!(took < deadline + MARGIN, "took {took:?}, may take {deadline:?}");
    for (messages, status) in within_patience("the readers' end", reading.join_all()).await {
        assert_dense_from(1, &messages);
        assert_eq!(Refusal::of(&status).reason, ErrorReason::ShuttingDown);
        assert_eq!(status.code(), Code::Unavailable);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_with_100_subscriptions_that_read_ends_long_before_the_deadline() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let deadline_ms = FAR_DEADLINE.as_millis().to_string();
    let flags = ["--drain-deadline-ms", &deadline_ms];
    let server = ServerProcess::start_with(&[], binary(), &data_dir, &flags).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    alice.send_all((0..200).map(|_| text_to("bob", "x".repeat(1_000)))).await.expect("OK");
    let mut reading = JoinSet::new();
    for _ in 0..100 {
        reading.spawn(bob.follow(0).await.drain());
    }
    let silent = tokio::net::TcpStream::connect(server.addr()).await.expect("connects");

    let begun = Instant::now();
    server.terminate();
    let exit = server.exit().await;
    let took = begun.elapsed();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(took < LONG_BEFORE_IT, "took {took:?} with nobody to wait for");
    for (messages, status) in within_patience("the readers' end", reading.join_all()).await {
        assert_dense_from(1, &messages);
        assert_eq!(Refusal::of(&status).reason, ErrorReason::ShuttingDown);
    }
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn stuck_clients_cannot_hold_the_server() {
    let deadline = Duration::from_secs(1);
    let mut server = TestServer::start_with(|options| options.drain_deadline = deadline).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    alice.send_all((0..200).map(|_| text_to("bob", "x".repeat(1_000)))).await.expect("OK");
    let _stalled = stalled_subscription(&bob).await;
    let headers = vec![("authorization", format!("Bearer {}", alice.token))];
    let addr = server.addr();
    let half_a_call = tokio::spawn(async move {
        let method = "peerpost.v1.MessagingService/SendMessage";
        raw::try_call(addr, method, &headers, raw::unfinished(raw::frame(b"x").slice(..3))).await
    });
    let silent = tokio::net::TcpStream::connect(addr).await.expect("connects");

    let begun = Instant::now();
    server.stop().await;
    let took = begun.elapsed();
    assert!(took < deadline + MARGIN, "took {took:?}, may take {deadline:?}");
    let cut_off = within_patience("the call's end", half_a_call).await.expect("no panic");
    assert!(cut_off.is_err(), "half a call has no answer: {cut_off:?}");
    drop(silent);
}

#[tokio::test]
async fn a_server_that_nobody_holds_does_not_wait_for_its_deadline() {
    let mut server = TestServer::start_with(|options| {
        options.drain_deadline = FAR_DEADLINE;
    })
    .await;
    let alice = server.user("alice").await;
    let reading = tokio::spawn(alice.follow(0).await.drain());
    let begun = Instant::now();
    server.stop().await;
    let took = begun.elapsed();
    assert!(took < LONG_BEFORE_IT, "took {took:?} with nobody to wait for");
    let (_, status) = reading.await.expect("the reader does not panic");
    assert_eq!(Refusal::of(&status).reason, ErrorReason::ShuttingDown);
}

#[tokio::test]
async fn an_idle_stream_of_sends_is_told() {
    let mut server = TestServer::start().await;
    let alice = server.user("alice").await;
    let requests = tokio_stream::once(peerpost::testing::streamed(text_to("alice", "one")));
    let open = requests.chain(tokio_stream::pending());
    let mut answers = alice.send_stream(open).await.expect("accepted");
    let first = within_patience("an answer", answers.next()).await.expect("one answer");
    first.expect("goes on").expect("accepted");

    server.stop().await;
    let end = within_patience("the end", answers.next()).await.expect("an end with a status");
    let status = end.expect_err("not another answer");
    assert_eq!(Refusal::of(&status).reason, ErrorReason::ShuttingDown);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_while_stopping_is_stored() {
    for round in 0..3 {
        let mut server = TestServer::start().await;
        let alice = server.user("alice").await;
        let mut senders = JoinSet::new();
        for sender in 0..8 {
            senders.spawn(send_until_refused(alice.at(server.addr()), sender));
        }
        let streaming = tokio::spawn(stream_until_refused(alice.at(server.addr())));
        eventually("messages under way", async || {
            let last = crate::support::last_sequence(&alice).await;
            (last > 50 * (round + 1)).then_some(())
        })
        .await;
        server.stop().await;
        let mut answered: Vec<_> = senders.join_all().await.into_iter().flatten().collect();
        answered.extend(streaming.await.expect("the sender does not panic"));

        server.start_again().await;
        let mailbox = alice.at(server.addr()).mailbox().await;
        assert_dense_from(1, &mailbox);
        for message in answered {
            let at = usize::try_from(message.sequence).expect("a sequence fits") - 1;
            assert_eq!(mailbox.get(at), Some(&message), "answered and not there");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_server_says_so_and_takes_no_new_connections() {
    let deadline = Duration::from_secs(5);
    let mut server = TestServer::start_with(|options| options.drain_deadline = deadline).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    alice.send_all((0..200).map(|_| text_to("bob", "x".repeat(1_000)))).await.expect("OK");
    let _holds_the_drain = stalled_subscription(&bob).await;
    let channel = Endpoint::from_shared(server.uri()).expect("a URI").connect_lazy();
    let request = HealthCheckRequest { service: SERVICE_NAME.into() };
    let mut health = HealthClient::new(channel);
    let answer = within_patience("Watch", health.watch(request)).await.expect("an answer");
    let mut updates = answer.into_inner();
    let first = within_patience("an update", updates.message()).await.expect("goes on");
    assert_eq!(first.expect("an update").status(), ServingStatus::Serving);

    let addr = server.addr();
    server.begin_stop();
    let next = within_patience("an update", updates.message()).await.expect("an update first");
    assert_eq!(next.expect("an update").status(), ServingStatus::NotServing);
    eventually("connections being refused", async || {
        tokio::net::TcpStream::connect(addr).await.is_err().then_some(())
    })
    .await;
    server.stop().await;
}

/// A subscription to more than its connection takes; only its first event is ever read.
pub(crate) async fn stalled_subscription(user: &TestUser) -> Subscription {
    user.subscribe_with_window(NARROW_WINDOW_BYTES, subscribe_after(0)).await.expect("accepted")
}

async fn send_until_refused(user: TestUser, sender: usize) -> Vec<peerpost::proto::Message> {
    let mut answered = Vec::new();
    for i in 0.. {
        match user.try_send(text_to("alice", format!("{sender} {i}"))).await {
            Ok(message) => answered.push(message),
            Err(_) => break,
        }
    }
    answered
}

/// Sends without end, and returns what was answered before the stream was told to end.
async fn stream_until_refused(user: TestUser) -> Vec<peerpost::proto::Message> {
    let requests = (0..).map(|i| peerpost::testing::streamed(text_to("alice", format!("s {i}"))));
    let answers = user.send_stream(tokio_stream::iter(requests)).await;
    let mut answers = answers.expect("accepted");
    let mut answered = Vec::new();
    while let Some(answer) = within_patience("an answer", answers.next()).await {
        match answer {
            Ok(result) => answered.push(result.expect("every request is a good one")),
            Err(status) => {
                assert_eq!(Refusal::of(&status).reason, ErrorReason::ShuttingDown);
                break;
            }
        }
    }
    answered
}
