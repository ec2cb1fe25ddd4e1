//! `SendMessages`: an answer for each request, in order; a bad one does not end the stream.

use peerpost::domain::limits::{BODY_BYTES_DEFAULT, STREAM_SENDS_IN_WORK_MAX};
use peerpost::proto::{ErrorReason, SendMessageRequest};
use peerpost::testing::{
    Refusal, TestServer, body_text, data_to, refused, streamed, text_to, within_patience,
};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::raw;
use crate::support::{assert_dense_from, sequences, texts, with_id, with_type};

#[tokio::test]
async fn an_empty_stream_ends_with_ok_and_no_answers() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    assert_eq!(alice.send_all([]).await.expect("OK").len(), 0);
}

#[tokio::test]
async fn the_nth_answer_belongs_to_the_nth_request() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let sent = alice.send_many("bob", "m", 300).await;
    assert_eq!(sent.len(), 300);
    for (i, message) in sent.iter().enumerate() {
        assert_eq!(body_text(message), format!("m{i}"));
    }
    assert_dense_from(1, &sent);
    assert_eq!(alice.mailbox().await, sent, "stored in the order sent");
    assert_eq!(texts(&bob.mailbox().await), texts(&sent));
}

#[tokio::test]
async fn an_answer_comes_without_waiting_for_more_requests() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let (requests, stream) = mpsc::channel(1);
    let mut answers = alice.send_stream(ReceiverStream::new(stream)).await.expect("accepted");
    for expected in 1..=3 {
        requests.send(streamed(text_to("alice", "x"))).await.expect("the stream is open");
        let answer = within_patience("an answer", answers.next()).await.expect("one answer");
        assert_eq!(answer.expect("goes on").expect("accepted").sequence, expected);
        assert_eq!(alice.mailbox().await.len(), usize::try_from(expected).expect("small"));
    }
    drop(requests);
    assert!(within_patience("the end", answers.next()).await.is_none(), "ends with OK");
}

#[tokio::test]
async fn a_bad_request_is_answered_and_the_stream_goes_on() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let no_body = SendMessageRequest { to_user: "alice".into(), ..Default::default() };
    let too_large = data_to("alice", vec![0; BODY_BYTES_DEFAULT + 1]);
    let table: [(SendMessageRequest, Option<ErrorReason>); 12] = [
        (with_id(text_to("alice", "good 1"), "r1"), None),
        (text_to("", "no recipient"), Some(ErrorReason::InvalidField)),
        (text_to("nobody", "unknown"), Some(ErrorReason::UserNotFound)),
        (text_to("alice", "good 2"), None),
        (no_body, Some(ErrorReason::InvalidField)),
        (text_to("alice", ""), Some(ErrorReason::InvalidField)),
        (too_large, Some(ErrorReason::BodyTooLarge)),
        (with_type(text_to("alice", "x"), "\n"), Some(ErrorReason::InvalidField)),
        (with_id(text_to("alice", "x"), "a b"), Some(ErrorReason::InvalidField)),
        (with_id(text_to("alice", "other"), "r1"), Some(ErrorReason::RequestIdReused)),
        (with_id(text_to("alice", "good 1"), "r1"), None),
        (text_to("alice", "good 3"), None),
    ];
    let (requests, expected): (Vec<_>, Vec<_>) = table.into_iter().unzip();
    let answers = alice.send_all(requests).await.expect("the stream ends with OK");

    assert_eq!(answers.len(), expected.len());
    for (answer, reason) in answers.into_iter().zip(expected) {
        match reason {
            Some(reason) => drop(refused(answer, reason)),
            None => drop(answer.expect("accepted")),
        }
    }
    assert_eq!(texts(&alice.mailbox().await), ["good 1", "good 2", "good 3"]);
}

#[tokio::test]
async fn an_items_error_says_what_the_unary_call_would() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    alice.send_with_id("alice", "first", "r1").await;
    let bad = [
        text_to("", "x"),
        text_to("nobody", "x"),
        text_to("alice", ""),
        data_to("alice", vec![0; BODY_BYTES_DEFAULT + 1]),
        with_id(text_to("alice", "other"), "r1"),
        with_id(with_type(text_to("", ""), "\n"), " "),
    ];
    for request in bad {
        let unary = alice.try_send(request.clone()).await.expect_err("refused");
        let item = alice.send_all([request]).await.expect("OK").remove(0).expect_err("refused");
        assert_eq!(item.message(), unary.message());
        assert_eq!(Refusal::of(&item), Refusal::of(&unary));
    }
}

#[tokio::test]
async fn a_request_so_large_that_it_is_not_read_ends_the_stream_after_the_answers_before_it() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let requests = [
        text_to("alice", "before"),
        data_to("alice", vec![0; 10_000_000]),
        text_to("alice", "after"),
    ];
    let requests = tokio_stream::iter(requests.map(streamed));
    let mut answers = alice.send_stream(requests).await.expect("accepted");
    let first = within_patience("an answer", answers.next()).await.expect("one answer");
    assert_eq!(body_text(&first.expect("goes on").expect("accepted")), "before");
    let end = within_patience("the end", answers.next()).await.expect("an end with a status");
    refused(end.map(drop), ErrorReason::BodyTooLarge).names("body").with("limit_bytes", 65_536);
    assert_eq!(texts(&alice.mailbox().await), ["before"]);
}

#[tokio::test]
async fn a_repeated_request_id_is_stored_once_within_and_across_streams() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let request = with_id(text_to("alice", "once"), "r1");
    let unary = alice.try_send(request.clone()).await.expect("accepted");
    let twice = [request.clone(), text_to("alice", "between"), request.clone()];
    for _stream in 0..2 {
        let answers = alice.send_all(twice.clone()).await.expect("OK");
        assert_eq!(*answers[0].as_ref().expect("the first"), unary);
        assert_eq!(*answers[2].as_ref().expect("the first"), unary);
    }
    assert_eq!(sequences(&alice.mailbox().await), [1, 2, 3]);

    let new = with_id(text_to("alice", "new"), "r2");
    let answers = alice.send_all([new.clone(), new]).await.expect("OK");
    let ids: Vec<_> =
        answers.into_iter().map(|answer| answer.expect("accepted").message_id).collect();
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test]
async fn one_stream_sends_to_many_recipients() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let carol = server.user("carol").await;
    let requests = (0..90).map(|i| text_to(["alice", "bob", "carol"][i % 3], i.to_string()));
    let answers = alice.send_all(requests).await.expect("OK");
    assert!(answers.iter().all(Result::is_ok));
    for (user, count) in [(&alice, 90), (&bob, 30), (&carol, 30)] {
        let mailbox = user.mailbox().await;
        assert_eq!(mailbox.len(), count);
        assert_dense_from(1, &mailbox);
    }
}

/// A caller may be far ahead with its requests: the server reads on as it answers.
#[tokio::test]
async fn a_caller_that_reads_late_gets_every_answer() {
    const COUNT: usize = 10 * STREAM_SENDS_IN_WORK_MAX;
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let (pulled, mut when_pulled) = mpsc::unbounded_channel();
    let requests = tokio_stream::iter(0..COUNT).map(move |i| {
        // The receiver is dropped once the reading begins.
        let _ = pulled.send(i);
        streamed(text_to("alice", i.to_string()))
    });
    let mut answers = alice.send_stream(requests).await.expect("accepted");
    let many = 2 * STREAM_SENDS_IN_WORK_MAX;
    while within_patience("requests being taken", when_pulled.recv()).await < Some(many) {}
    drop(when_pulled);

    for i in 0..COUNT {
        let answer = within_patience("an answer", answers.next()).await.expect("one each");
        assert_eq!(body_text(&answer.expect("goes on").expect("accepted")), i.to_string());
    }
    assert!(within_patience("the end", answers.next()).await.is_none());
}

/// Other languages' clients send every request in a small frame of its own, which libraries count
/// as a nuisance when they are not read at once: many of them wait, and none may end the connection.
#[tokio::test(flavor = "multi_thread")]
async fn many_small_frames_wait_their_turn() {
    const COUNT: usize = 20_000;
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let headers = [("authorization", format!("Bearer {}", alice.token))];
    let frames = (0..COUNT).map(|_| raw::frame(&text_to("alice", "x").encode_to_vec()));
    let method = "peerpost.v1.MessagingService/SendMessages";
    let status = raw::call(server.addr(), method, &headers, raw::in_frames(frames)).await;
    assert_eq!(status.code(), Code::Ok, "{status:?}");
    assert_eq!(alice.mailbox().await.len(), COUNT);
}

#[tokio::test]
async fn a_caller_that_leaves_stores_each_request_once_or_not_at_all() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let (requests, stream) = mpsc::channel(1);
    let mut answers = alice.send_stream(ReceiverStream::new(stream)).await.expect("accepted");
    for i in 0..20 {
        let request = with_id(text_to("bob", i.to_string()), &format!("r{i}"));
        requests.send(streamed(request)).await.expect("the stream is open");
    }
    let answered = within_patience("an answer", answers.next()).await.expect("one answer");
    assert_eq!(body_text(&answered.expect("goes on").expect("accepted")), "0");
    drop((answers, requests));

    let again = (0..20).map(|i| with_id(text_to("bob", i.to_string()), &format!("r{i}")));
    alice.send_all(again).await.expect("OK");
    let mailbox = bob.mailbox().await;
    let expected: Vec<_> = (0..20).map(|i| i.to_string()).collect();
    assert_eq!(texts(&mailbox), expected, "in the order sent");
    assert_dense_from(1, &mailbox);
}
