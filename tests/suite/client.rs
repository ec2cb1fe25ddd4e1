//! The Rust client's calls: retried without doing anything twice, ended at their deadlines, and
//! failing with errors that programs can act on.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use peerpost::client::{Body, Error, ErrorReason, OutgoingMessage, PageRequest, Refusal};
use peerpost::domain::limits::BODY_BYTES_DEFAULT;
use peerpost::testing::{Loss, Proxy, TestServer, body_text, within_patience};
use tokio_stream::StreamExt as _;
use tonic::Code;

use crate::client_support::{anonymous, client_of, impatient, patient};
use crate::support::texts;

#[tokio::test]
async fn a_send_whose_answer_is_lost_is_tried_again_and_stored_once() {
    let server = TestServer::start().await;
    let proxy = Proxy::start(server.addr()).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let client = client_of(&alice, proxy.addr(), patient());
    let losses = [Loss::Whole, Loss::AfterHeaders, Loss::Whole, Loss::AfterHeaders];
    for (i, loss) in losses.into_iter().enumerate() {
        proxy.lose_answers(3, loss);
        let message = OutgoingMessage::new("bob", format!("m{i}"));
        let request_id = message.request_id().to_owned();
        let sent = within_patience("the send", client.send_message(message)).await;
        let sent = sent.expect("stored in the end");
        assert_eq!(proxy.answers_lost(), 3 * (i + 1));
        assert_eq!(sent.sequence, i64::try_from(i).expect("small") + 1);
        assert_eq!(sent.request_id, Some(request_id));
    }
    let mailbox = bob.mailbox().await;
    assert_eq!(texts(&mailbox), ["m0", "m1", "m2", "m3"]);
}

#[tokio::test]
async fn a_send_without_a_request_id_is_not_tried_again() {
    let server = TestServer::start().await;
    let proxy = Proxy::start(server.addr()).await;
    let alice = server.user("alice").await;
    let client = client_of(&alice, proxy.addr(), patient());
    proxy.lose_answers(1, Loss::Whole);
    let message = OutgoingMessage::new("alice", "once").with_request_id("");
    let error = within_patience("the send", client.send_message(message)).await;
    let error = error.expect_err("its answer was lost");
    assert!(matches!(error, Error::Disconnected { .. }), "{error:?}");
    assert_eq!(texts(&alice.mailbox().await), ["once"]);
}

#[tokio::test]
async fn a_message_that_is_sent_again_later_is_stored_once() {
    let mut server = TestServer::start().await;
    let proxy = Proxy::start(server.addr()).await;
    let alice = server.user("alice").await;
    let client = client_of(&alice, proxy.addr(), impatient());
    let message = OutgoingMessage::new("alice", vec![0, 159, 146, 150]).with_content_type("a/b");
    proxy.lose_answers(1, Loss::Whole);
    let error = client.send_message(message.clone()).await.expect_err("its answer was lost");
    assert!(error.is_retriable(), "{error:?}");

    server.restart().await;
    proxy.retarget(server.addr());

    let client = client_of(&alice, proxy.addr(), patient());
    let sent = client.send_message(message.clone()).await.expect("stored");
    assert_eq!(client.send_message(message).await.expect("stored"), sent);
    assert_eq!((sent.sequence, sent.content_type.as_str()), (1, "a/b"));
    assert_eq!(sent.body, Body::from(vec![0, 159, 146, 150]));
    assert_eq!(alice.at(server.addr()).mailbox().await.len(), 1);
}

#[tokio::test]
async fn a_registration_whose_answer_is_lost_is_not_tried_again() {
    let server = TestServer::start().await;
    let proxy = Proxy::start(server.addr()).await;
    let alice = server.user("alice").await;
    for (name, loss) in [("carol", Loss::Whole), ("dave", Loss::AfterHeaders)] {
        let client = anonymous(proxy.addr(), patient());
        let connections = proxy.connections();
        proxy.lose_answers(1, loss);
        let outcome = within_patience("the call", client.register(name, "")).await;
        let error = outcome.expect_err("its answer was lost");
        // Tried again it would be told that the name is taken: by itself.
        assert!(matches!(error, Error::Disconnected { .. }), "{error:?}");
        assert_eq!(proxy.connections(), connections + 1);
        assert_eq!(alice.get_user(name).await.expect("registered").username, name);
    }
}

#[tokio::test]
async fn an_address_is_updated_however_often_the_answer_is_lost() {
    let server = TestServer::start().await;
    let proxy = Proxy::start(server.addr()).await;
    let (user, token) =
        anonymous(proxy.addr(), patient()).register("Alice", "").await.expect("a free name");
    assert_eq!((user.username.as_str(), user.online), ("Alice", false));
    let client = anonymous(proxy.addr(), patient()).with_token(&token.expect("a new name"));
    proxy.lose_answers(2, Loss::Whole);
    let (user, token) = client.register("alice", "192.0.2.7:9000").await.expect("updated");
    assert_eq!(proxy.answers_lost(), 2);
    assert_eq!((user.username.as_str(), user.ip_address.as_str()), ("Alice", "192.0.2.7:9000"));
    assert!(token.is_none(), "it is shown only once");
}

#[tokio::test]
async fn retries_end_with_their_deadline() {
    let server = TestServer::start().await;
    let proxy = Proxy::start(server.addr()).await;
    let alice = server.user("alice").await;
    proxy.lose_answers(usize::MAX, Loss::Whole);
    let options = patient().retry_deadline(Duration::from_millis(500));
    let client = client_of(&alice, proxy.addr(), options);
    let sending = within_patience("the end of retries", client.send("alice", "once"));
    let error = sending.await.expect_err("no answer came through");
    assert!(matches!(error, Error::Disconnected { .. }), "{error:?}");
    assert!(proxy.answers_lost() > 1, "it was tried again before");
    assert_eq!(alice.mailbox().await.len(), 1);

    let lost_before = proxy.answers_lost();
    let client = client_of(&alice, proxy.addr(), impatient());
    client.send("alice", "once").await.expect_err("no answer came through");
    assert_eq!(proxy.answers_lost(), lost_before + 1, "no time to retry is one attempt");
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_at_the_deadline_of_the_call() {
    let server = TestServer::start().await;
    let proxy = Proxy::start(server.addr()).await;
    let alice = server.user("alice").await;
    let deadline = Duration::from_millis(200);
    let client = client_of(&alice, proxy.addr(), impatient().call_deadline(deadline));
    client.user("alice").await.expect("found");
    proxy.stall();
    let begun = Instant::now();
    let outcome = within_patience("the deadline", client.send("alice", "late")).await;
    let error = outcome.expect_err("nobody answers");
    assert!(matches!(error, Error::DeadlineExceeded { .. }), "{error:?}");
    assert!(error.is_retriable());
    assert!(begun.elapsed() >= deadline, "{:?}", begun.elapsed());

    // With time to retry it succeeds once the server answers, and the late first attempt is the same.
    let client = client_of(&alice, proxy.addr(), patient().call_deadline(deadline));
    let mut sending = Box::pin(client.send("alice", "patient"));
    let early = tokio::time::timeout(deadline * 3, &mut sending).await;
    assert!(early.is_err(), "gave up: {early:?}");
    proxy.resume();
    let sent = within_patience("the send", sending).await.expect("stored in the end");
    let mailbox = alice.mailbox().await;
    let stored = mailbox.iter().filter(|message| body_text(message) == "patient").count();
    assert_eq!(stored, 1);
    assert!(mailbox.iter().any(|message| message.message_id == sent.message_id));
}

#[tokio::test]
async fn a_server_that_is_not_there_yet_is_waited_for() {
    let server = TestServer::start().await;
    // A port that is taken and not listened on refuses connections, until it is.
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let addr = socket.local_addr().expect("bound");
    let error = anonymous(addr, impatient()).register("alice", "").await.expect_err("refused");
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    assert_eq!(error.code(), Some(Code::Unavailable));

    let client = anonymous(addr, patient());
    let mut registering = Box::pin(client.register("alice", ""));
    // At most 20 ms between attempts: many of them fail here.
    let early = tokio::time::timeout(Duration::from_millis(200), &mut registering).await;
    assert!(early.is_err(), "gave up: {early:?}");
    let listener = socket.listen(16).expect("the port is listened on");
    let pass_on = async {
        let (mut client, _) = listener.accept().await.expect("a connection");
        let mut server = tokio::net::TcpStream::connect(server.addr()).await.expect("connects");
        tokio::io::copy_bidirectional(&mut client, &mut server).await
    };
    let registered = tokio::select! {
        registered = within_patience("the registration", registering) => registered,
        ended = pass_on => panic!("the connection ended: {ended:?}"),
    };
    let (user, token) = registered.expect("a free name");
    assert_eq!((user.username.as_str(), token.is_some()), ("alice", true));
}

#[tokio::test]
async fn a_call_waits_for_a_restart() {
    let mut server = TestServer::start().await;
    let proxy = Proxy::start(server.addr()).await;
    let alice = server.user("alice").await;
    let client = client_of(&alice, proxy.addr(), patient());
    client.send("alice", "before").await.expect("stored");
    server.stop().await;
    let (sent, ()) =
        tokio::join!(within_patience("the send", client.send("alice", "after")), async {
            let connections = proxy.connections();
            peerpost::testing::eventually("attempts", async || {
                (proxy.connections() > connections + 2).then_some(())
            })
            .await;
            server.start_again().await;
            proxy.retarget(server.addr());
        });
    assert_eq!(sent.expect("stored").sequence, 2);
}

#[tokio::test]
async fn a_refusal_is_typed_with_its_reason_and_field() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let client = client_of(&alice, server.addr(), impatient());
    client.send("alice", "note").await.expect("stored");

    let refusal = refusal(client.send("nobody", "hi").await);
    assert_refused(&refusal, Code::NotFound, ErrorReason::UserNotFound);
    assert_eq!(refusal.metadata["username"], "nobody");
    assert_eq!(refusal.metadata["field"], "to_user");

    let refusal = self::refusal(client.send("alice", "x".repeat(BODY_BYTES_DEFAULT + 1)).await);
    assert_refused(&refusal, Code::InvalidArgument, ErrorReason::BodyTooLarge);
    assert_eq!(refusal.metadata["limit_bytes"], BODY_BYTES_DEFAULT.to_string());
    assert_eq!(refusal.violations[0].field, "text");

    let refusal = self::refusal(client.send("not a name", "").await);
    assert_refused(&refusal, Code::InvalidArgument, ErrorReason::InvalidField);
    let fields: HashSet<_> = refusal.violations.iter().map(|it| it.field.as_str()).collect();
    assert_eq!(fields, HashSet::from(["to_user", "text"]), "all at once");
    assert!(refusal.violations.iter().all(|violation| !violation.description.is_empty()));

    let refusal = self::refusal(client.acknowledge(2, None).await);
    assert_refused(&refusal, Code::OutOfRange, ErrorReason::SequenceOutOfRange);
    assert_eq!(refusal.metadata["max_sequence"], "1");
    let refusal = self::refusal(client.acknowledge(1, Some("another")).await);
    assert_refused(&refusal, Code::FailedPrecondition, ErrorReason::EpochMismatch);
    let refusal = self::refusal(client.messages(PageRequest::after(0).epoch("another")).await);
    assert_refused(&refusal, Code::FailedPrecondition, ErrorReason::EpochMismatch);

    let stranger = anonymous(server.addr(), impatient());
    let refusal = self::refusal(stranger.user("alice").await);
    assert_refused(&refusal, Code::Unauthenticated, ErrorReason::TokenMissing);
    let refusal = self::refusal(stranger.register("ALICE", "").await);
    assert_refused(&refusal, Code::AlreadyExists, ErrorReason::UsernameTaken);

    let once = OutgoingMessage::new("alice", "one").with_request_id("r1");
    client.send_message(once).await.expect("stored");
    let other = OutgoingMessage::new("alice", "other").with_request_id("r1");
    let refusal = self::refusal(client.send_message(other).await);
    assert_refused(&refusal, Code::AlreadyExists, ErrorReason::RequestIdReused);
}

#[tokio::test]
async fn pages_and_users_are_read_to_the_end() {
    const USERS: usize = 130;
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    for i in 0..USERS {
        server.user(&format!("user{i:03}")).await;
    }
    let client = client_of(&alice, server.addr(), patient());
    let mut users = client.users("USER");
    let mut names = Vec::new();
    while let Some(user) = within_patience("the next user", users.next()).await {
        names.push(user.expect("a user").username);
    }
    assert_eq!(names, (0..USERS).map(|i| format!("user{i:03}")).collect::<Vec<_>>());

    alice.send_many("alice", "m", 25).await;
    let newest = client.messages(PageRequest::newest().page_size(10)).await.expect("a page");
    assert_eq!(sequences(&newest.messages), (16..=25).collect::<Vec<_>>());
    assert_eq!((newest.has_more, newest.first_sequence, newest.last_sequence), (true, 1, 25));
    let mut sequence = 0;
    loop {
        let request = PageRequest::after(sequence).page_size(10).epoch(&newest.epoch);
        let page = client.messages(request).await.expect("a page");
        let expected: Vec<_> = (sequence + 1..=25.min(sequence + 10)).collect();
        assert_eq!(sequences(&page.messages), expected);
        sequence = page.messages.last().expect("not empty").sequence;
        if !page.has_more {
            break;
        }
    }
    assert_eq!(sequence, 25);
    assert_eq!(client.acknowledge(20, Some(&newest.epoch)).await.expect("accepted"), 20);
    assert_eq!(client.acknowledge(10, None).await.expect("accepted"), 20, "only forward");
}

fn sequences(messages: &[peerpost::client::Message]) -> Vec<i64> {
    messages.iter().map(|message| message.sequence).collect()
}

#[track_caller]
fn refusal<T: std::fmt::Debug>(outcome: Result<T, Error>) -> Refusal {
    match outcome.expect_err("a refusal") {
        Error::Refused(refusal) => *refusal,
        other => panic!("not a refusal: {other:?}"),
    }
}

#[track_caller]
fn assert_refused(refusal: &Refusal, code: Code, reason: ErrorReason) {
    assert_eq!((refusal.code, refusal.reason), (code, Some(reason)), "{refusal:?}");
    assert!(!refusal.message.is_empty());
}
