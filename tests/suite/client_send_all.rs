//! Many messages on one stream of the Rust client: each is stored once, in order, whatever happens to the
//! connection and the server, and its outcome is told in its place.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use peerpost::client::{
    Client, Error, ErrorReason, Message, OutgoingMessage, PageRequest, Refusal, SendAll, Token,
};
use peerpost::domain::limits::BODY_BYTES_DEFAULT;
use peerpost::testing::{Loss, Proxy, ServerProcess, TestServer, register, within_patience};
use tokio_stream::StreamExt as _;

use crate::client_support::{anonymous, assert_dense_from, client_of, impatient, patient, texts};
use crate::support::binary;

/// A server behind a network, a user who sends through it, and one who receives.
struct Scene {
    server: TestServer,
    proxy: Proxy,
    alice: Client,
}

impl Scene {
    async fn start() -> Self {
        let server = TestServer::start().await;
        let proxy = Proxy::start(server.addr()).await;
        let alice = register(&proxy.uri(), "alice").await;
        Self { server, proxy, alice }
    }
}

/// Messages to oneself, of which each says its number.
fn numbered(count: usize) -> impl Iterator<Item = OutgoingMessage> {
    (0..count).map(|i| OutgoingMessage::new("alice", i.to_string()))
}

/// [`numbered`], and how many of them were taken until now.
fn counted(
    count: usize,
) -> (impl tokio_stream::Stream<Item = OutgoingMessage> + Send, Arc<AtomicUsize>) {
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&taken);
    let messages = numbered(count).inspect(move |_| _ = counter.fetch_add(1, Ordering::SeqCst));
    (tokio_stream::iter(messages), taken)
}

async fn next(sending: &mut SendAll) -> Option<Result<Result<Message, Refusal>, Error>> {
    within_patience("the next outcome", sending.next()).await
}

/// The next messages, which are stored.
async fn stored(sending: &mut SendAll, count: usize) -> Vec<Message> {
    let mut messages = Vec::new();
    while messages.len() < count {
        let outcome = next(sending).await.expect("goes on").expect("goes on");
        messages.push(outcome.expect("stored"));
    }
    messages
}

/// Asserts that the mailbox holds these numbers, in their order, once.
async fn assert_holds(client: &Client, count: usize) {
    let messages: Result<Vec<_>, _> = client.history(PageRequest::after(0)).collect().await;
    let messages = messages.expect("can be read");
    assert_dense_from(1, &messages);
    assert_eq!(texts(&messages), (0..count).map(|i| i.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn outcomes_are_in_order_and_one_that_is_refused_does_not_end_it() {
    let scene = Scene::start().await;
    let again = OutgoingMessage::new("alice", "first").with_request_id("r1");
    let messages = vec![
        again.clone(),
        OutgoingMessage::new("nobody", "x"),
        OutgoingMessage::new("alice", "x".repeat(BODY_BYTES_DEFAULT + 1)),
        again,
        OutgoingMessage::new("alice", "another").with_request_id("r1"),
        OutgoingMessage::new("not a name", ""),
        OutgoingMessage::new("alice", vec![0, 255]).with_content_type("a/b").with_request_id(""),
    ];
    let mut sending = scene.alice.send_all(tokio_stream::iter(messages));
    let mut outcomes = Vec::new();
    while let Some(outcome) = next(&mut sending).await {
        let outcome = outcome.expect("goes on");
        outcomes.push(outcome.map(|it| it.sequence).map_err(|refusal| refusal.reason));
    }
    let expected = [
        Ok(1),
        Err(Some(ErrorReason::UserNotFound)),
        Err(Some(ErrorReason::BodyTooLarge)),
        Ok(1),
        Err(Some(ErrorReason::RequestIdReused)),
        Err(Some(ErrorReason::InvalidField)),
        Ok(2),
    ];
    assert_eq!(outcomes, expected);
    assert!(sending.into_unanswered().is_empty());
    let page = scene.alice.messages(PageRequest::after(1)).await.expect("a page");
    assert_eq!(page.messages[0].content_type, "a/b");
    assert!(page.messages[0].request_id.is_some(), "one that had none got one");
}

#[tokio::test]
async fn nothing_to_send_needs_no_server() {
    let client = anonymous("127.0.0.1:1".parse().expect("an address"), impatient());
    let mut sending = client.send_all(tokio_stream::empty());
    assert!(next(&mut sending).await.is_none());
}

#[tokio::test]
async fn an_outcome_comes_without_waiting_for_more_messages() {
    let scene = Scene::start().await;
    let (messages, receiver) = tokio::sync::mpsc::channel(1);
    let receiver = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut sending = scene.alice.send_all(receiver);
    for sequence in 1..=3 {
        messages.send(OutgoingMessage::new("alice", "x")).await.expect("it is taken");
        assert_eq!(stored(&mut sending, 1).await[0].sequence, sequence);
    }
    drop(messages);
    assert!(next(&mut sending).await.is_none());
}

#[tokio::test]
async fn connections_that_break_all_the_time_lose_and_repeat_nothing() {
    const ROUNDS: usize = 20;
    const COUNT: usize = ROUNDS * 100;
    let server = TestServer::start().await;
    let proxy = Proxy::start(server.addr()).await;
    let alice = server.user("alice").await;
    // So few that not all of a round can be answered before its cut.
    let client = client_of(&alice, proxy.addr(), patient().sends_in_flight_max(16));
    let mut sending = client.send_all(tokio_stream::iter(numbered(COUNT)));
    let mut outcomes = Vec::new();
    for round in 0..ROUNDS {
        let loss = if round % 2 == 0 { Loss::Whole } else { Loss::AfterHeaders };
        proxy.lose_answers(round % 3, loss);
        proxy.cut();
        outcomes.extend(stored(&mut sending, 100).await);
    }
    assert!(next(&mut sending).await.is_none());
    assert_dense_from(1, &outcomes);
    assert!(proxy.connections() >= ROUNDS, "a connection for each");
    assert!(proxy.answers_lost() > 0);
    assert_holds(&client, COUNT).await;
}

#[tokio::test]
async fn a_killed_server_is_waited_for_and_gets_what_it_has_not() {
    const COUNT: usize = 3000;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let mut server = ServerProcess::start(binary(), &data_dir).await;
    let proxy = Proxy::start(server.addr()).await;
    let alice = register(&proxy.uri(), "alice").await;
    let mut sending = alice.send_all(tokio_stream::iter(numbered(COUNT)));
    let mut outcomes = Vec::new();
    for answers in [1, 400, 900] {
        outcomes.extend(stored(&mut sending, answers).await);
        server.kill();
        server = ServerProcess::start(binary(), &data_dir).await;
        proxy.retarget(server.addr());
    }
    outcomes.extend(stored(&mut sending, COUNT - outcomes.len()).await);
    assert!(next(&mut sending).await.is_none());
    assert_dense_from(1, &outcomes);
    assert_holds(&alice, COUNT).await;
}

#[tokio::test]
async fn a_server_that_stops_cleanly_is_waited_for() {
    let mut scene = Scene::start().await;
    let mut sending = scene.alice.send_all(tokio_stream::iter(numbered(600)));
    let mut outcomes = stored(&mut sending, 10).await;
    scene.server.restart().await;
    scene.proxy.retarget(scene.server.addr());
    outcomes.extend(stored(&mut sending, 590).await);
    assert_dense_from(1, &outcomes);
    assert_holds(&scene.alice, 600).await;
}

#[tokio::test]
async fn no_more_are_taken_than_may_be_under_way() {
    let server = TestServer::start().await;
    let proxy = Proxy::start(server.addr()).await;
    let alice = server.user("alice").await;
    let client = client_of(&alice, proxy.addr(), patient().sends_in_flight_max(3));
    let (messages, taken) = counted(100);
    let mut sending = client.send_all(messages);
    stored(&mut sending, 1).await;
    proxy.stall();
    // Answers that came before the stall may be given; then nothing moves.
    while let Ok(outcome) = tokio::time::timeout(Duration::from_millis(200), sending.next()).await {
        outcome.expect("goes on").expect("goes on").expect("stored");
    }
    let before = taken.load(Ordering::SeqCst);
    assert!(before < 100, "all of them are under way");
    proxy.resume();
    let first = stored(&mut sending, 1).await.remove(0);
    let answered = usize::try_from(first.sequence).expect("small");
    assert!(before < answered + 3, "{before} were taken when {} were answered", answered - 1);
    stored(&mut sending, 100 - answered).await;
    assert_holds(&client, 100).await;
}

#[tokio::test]
async fn large_bodies_are_bounded_in_bytes() {
    const BODY_BYTES: usize = 60_000;
    let scene = Scene::start().await;
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&taken);
    let messages = (0..200).map(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        OutgoingMessage::new("alice", vec![7; BODY_BYTES])
    });
    let mut sending = scene.alice.send_all(tokio_stream::iter(messages));
    let mut answered = 0;
    while next(&mut sending).await.is_some() {
        let under_way = taken.load(Ordering::SeqCst) - answered;
        assert!(under_way <= 1 + (1 << 20) / BODY_BYTES + 1, "{under_way} are under way");
        answered += 1;
    }
    assert_eq!(answered, 200);
}

#[tokio::test]
async fn what_is_given_up_can_be_sent_again_and_is_stored_once() {
    let scene = Scene::start().await;
    let token = scene.server.user("bob").await.token;
    let token = Token::parse(&token).expect("a token");
    let options = patient().retry_deadline(Duration::from_millis(100)).sends_in_flight_max(20);
    let bob = anonymous(scene.proxy.addr(), options).with_token(&token);
    let numbered = |range: std::ops::Range<usize>| {
        tokio_stream::iter(range.map(|i| OutgoingMessage::new("bob", i.to_string())))
    };
    let mut sending = bob.send_all(numbered(0..50));
    let answered = stored(&mut sending, 10).await.len();
    scene.proxy.lose_answers(usize::MAX, Loss::Whole);
    scene.proxy.cut();
    let mut outcomes = answered;
    let error = loop {
        match next(&mut sending).await.expect("an error first") {
            Ok(outcome) => _ = (outcome.expect("stored"), outcomes += 1),
            Err(error) => break error,
        }
    };
    assert!(error.is_retriable(), "{error:?}");
    assert!(next(&mut sending).await.is_none(), "goes on after its end");
    let unanswered = sending.into_unanswered();
    assert!(!unanswered.is_empty() && unanswered.len() <= 20, "{}", unanswered.len());
    let handed_in = outcomes + unanswered.len();

    scene.proxy.lose_answers(0, Loss::Whole);
    let bob = anonymous(scene.server.addr(), patient()).with_token(&token);
    let rest = tokio_stream::iter(unanswered).chain(numbered(handed_in..50));
    stored(&mut bob.send_all(rest), 50 - outcomes).await;
    assert_holds(&bob, 50).await;
}

#[tokio::test]
async fn a_caller_who_is_not_known_is_told_so() {
    let scene = Scene::start().await;
    let token = Token::parse("pp_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").expect("a token");
    let stranger = anonymous(scene.server.addr(), patient()).with_token(&token);
    let mut sending = stranger.send_all(tokio_stream::iter(numbered(3)));
    let error = next(&mut sending).await.expect("an error").expect_err("an error");
    assert_eq!(error.reason(), Some(ErrorReason::TokenUnknown), "{error:?}");
    assert!(next(&mut sending).await.is_none());
}

#[tokio::test]
async fn a_server_that_goes_while_there_is_nothing_to_send_is_no_failure() {
    let mut scene = Scene::start().await;
    let (messages, receiver) = tokio::sync::mpsc::channel(1);
    let receiver = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut sending = scene.alice.send_all(receiver);
    messages.send(OutgoingMessage::new("alice", "0")).await.expect("it is taken");
    stored(&mut sending, 1).await;
    scene.server.stop().await;
    let connections = scene.proxy.connections();
    let quiet = tokio::time::timeout(Duration::from_millis(200), sending.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    assert!(scene.proxy.connections() <= connections, "it connects for nothing");
    scene.server.start_again().await;
    scene.proxy.retarget(scene.server.addr());
    messages.send(OutgoingMessage::new("alice", "1")).await.expect("it is taken");
    stored(&mut sending, 1).await;
    assert_holds(&scene.alice, 2).await;
}

#[tokio::test]
async fn the_history_is_read_in_either_direction_and_within_its_epoch() {
    let scene = Scene::start().await;
    stored(&mut scene.alice.send_all(tokio_stream::iter(numbered(25))), 25).await;
    let newest = scene.alice.history(PageRequest::newest().page_size(4));
    let newest: Result<Vec<_>, _> = newest.collect().await;
    let sequences: Vec<_> = newest.expect("read").iter().map(|it| it.sequence).collect();
    assert_eq!(sequences, (1..=25).rev().collect::<Vec<_>>());
    let mut after = scene.alice.history(PageRequest::after(20).page_size(2));
    assert_eq!(after.next().await.expect("a message").expect("a message").sequence, 21);
    // What comes while it reads comes too.
    scene.alice.send("alice", "25").await.expect("stored");
    let rest: Result<Vec<_>, _> = after.collect().await;
    let sequences: Vec<_> = rest.expect("read").iter().map(|it| it.sequence).collect();
    assert_eq!(sequences, [22, 23, 24, 25, 26]);
    let mut other = scene.alice.history(PageRequest::after(0).epoch("another"));
    let error = other.next().await.expect("an error").expect_err("an error");
    assert_eq!(error.reason(), Some(ErrorReason::EpochMismatch));
    assert!(other.next().await.is_none());
}

#[tokio::test]
async fn messages_alone_come_through_restarts() {
    use peerpost::client::{FollowOptions, Start};

    let mut scene = Scene::start().await;
    let mut messages = scene.alice.follow(Start::After(0), FollowOptions::default()).messages();
    for i in 0..4 {
        scene.alice.send("alice", i.to_string()).await.expect("stored");
        let message = within_patience("the message", messages.next()).await;
        assert_eq!(message.expect("goes on").expect("goes on").sequence, i + 1);
        scene.server.restart().await;
        scene.proxy.retarget(scene.server.addr());
    }
}
