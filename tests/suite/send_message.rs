//! `SendMessage`: what is stored, for whom it is numbered, what is refused, what repeating means.

use peerpost::domain::limits::{BODY_BYTES_CEILING, BODY_BYTES_DEFAULT};
use peerpost::proto::{ErrorReason, Message, SendMessageRequest, message};
use peerpost::testing::{TestServer, body_bytes, data_to, refused, text_to};
use uuid::Uuid;

use crate::support::{
    assert_dense_from, last_sequence, micros, now_micros, sequences, texts, with_id, with_type,
};

#[tokio::test]
async fn both_participants_see_the_same_message() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("Alice").await, server.user("Bob").await);

    let before = now_micros();
    let request = with_id(with_type(text_to("BOB", "hi"), "text/plain; charset=utf-8"), "first");
    let sent = alice.try_send(request).await.expect("accepted");
    let after = now_micros();

    assert_eq!(Uuid::parse_str(&sent.message_id).expect("a UUID").to_string(), sent.message_id);
    assert_eq!((sent.from_user.as_str(), sent.to_user.as_str()), ("Alice", "Bob"));
    assert!((before..=after).contains(&micros(sent.send_time.as_ref())));
    assert_eq!(sent.body, Some(message::Body::Text("hi".into())));
    assert_eq!(sent.content_type, "text/plain; charset=utf-8");
    assert_eq!((sent.sequence, sent.request_id.as_str()), (1, "first"));

    assert_eq!(alice.mailbox().await, std::slice::from_ref(&sent));
    let received = Message { request_id: String::new(), ..sent };
    assert_eq!(bob.mailbox().await, [received], "the request_id is the sender's alone");
}

#[tokio::test]
async fn content_is_shown_in_the_field_in_which_it_was_sent() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let requests = [
        text_to("alice", "text"),
        data_to("alice", &b"text"[..]),
        data_to("alice", &b"\x00\xff\xfe"[..]),
        text_to("alice", "\0 ä \u{1f600}"),
    ];
    for request in requests {
        let sent = alice.try_send(request.clone()).await.expect("accepted");
        let stored = alice.mailbox().await.pop().expect("an entry");
        assert_eq!(stored, sent);
        assert_eq!(sent.content_type, "", "nothing was said");
        assert_eq!(sent.request_id, "");
        match (request.body, sent.body) {
            (Some(asked), Some(got)) => assert_eq!(format!("{asked:?}"), format!("{got:?}")),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn every_mailbox_counts_what_was_sent_and_received() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let carol = server.user("carol").await;

    assert_eq!(alice.send("bob", "1").await.sequence, 1);
    assert_eq!(carol.send("bob", "2").await.sequence, 1);
    assert_eq!(bob.send("alice", "3").await.sequence, 3, "after the two that bob received");
    assert_eq!(alice.send("carol", "4").await.sequence, 3);

    assert_eq!(texts(&alice.mailbox().await), ["1", "3", "4"]);
    assert_eq!(texts(&bob.mailbox().await), ["1", "2", "3"]);
    assert_eq!(texts(&carol.mailbox().await), ["2", "4"]);
    for user in [alice, bob, carol] {
        assert_dense_from(1, &user.mailbox().await);
    }
}

#[tokio::test]
async fn a_message_to_oneself_enters_once() {
    let server = TestServer::start().await;
    let alice = server.user("Alice").await;
    let sent = alice.send_with_id("alice", "note", "n1").await;
    assert_eq!((sent.from_user.as_str(), sent.to_user.as_str()), ("Alice", "Alice"));
    assert_eq!(sent.request_id, "n1", "the reader is the sender");
    assert_eq!(alice.mailbox().await, [sent]);
    assert_eq!(alice.send("Alice", "again").await.sequence, 2);
}

#[tokio::test]
async fn a_body_has_1_byte_to_64_kib() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let most = BODY_BYTES_DEFAULT;
    assert_eq!(most, 65_536);
    let accepted = [
        text_to("alice", "x"),
        data_to("alice", vec![0; 1]),
        text_to("alice", "x".repeat(most)),
        text_to("alice", "é".repeat(most / 2)),
        data_to("alice", vec![0xff; most]),
    ];
    for request in accepted {
        let sent = alice.try_send(request).await.expect("accepted");
        assert_eq!(body_bytes(&alice.mailbox().await.pop().expect("stored")), body_bytes(&sent));
    }
    let refused_sizes = [
        (text_to("alice", "x".repeat(most + 1)), "text", most + 1),
        (text_to("alice", "é".repeat(most / 2 + 1)), "text", most + 2),
        (data_to("alice", vec![0; most + 1]), "data", most + 1),
        (data_to("alice", vec![0; 2 * most]), "data", 2 * most),
    ];
    for (request, field, actual_bytes) in refused_sizes {
        refused(alice.try_send(request).await, ErrorReason::BodyTooLarge)
            .names(field)
            .with("limit_bytes", most)
            .with("actual_bytes", actual_bytes);
    }
    assert_eq!(last_sequence(&alice).await, 5, "a refused message is not stored");
}

#[tokio::test]
async fn the_operator_sets_the_limit_of_bodies() {
    for limit in [16, BODY_BYTES_CEILING] {
        let server = TestServer::start_with(|options| options.body_bytes_max = limit).await;
        let alice = server.user("alice").await;
        alice.try_send(data_to("alice", vec![7; limit])).await.expect("at the limit");
        refused(
            alice.try_send(data_to("alice", vec![7; limit + 1])).await,
            ErrorReason::BodyTooLarge,
        )
        .names("data")
        .with("limit_bytes", limit)
        .with("actual_bytes", limit + 1);
        assert_eq!(body_bytes(&alice.mailbox().await[0]).len(), limit);
    }
}

#[tokio::test]
async fn an_empty_body_is_refused() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    refused(alice.try_send(text_to("alice", "")).await, ErrorReason::InvalidField).names("text");
    refused(alice.try_send(data_to("alice", "")).await, ErrorReason::InvalidField).names("data");
    let none = SendMessageRequest { to_user: "alice".into(), ..Default::default() };
    refused(alice.try_send(none).await, ErrorReason::InvalidField).names("body");
}

#[tokio::test]
async fn a_content_type_is_printable_ascii_of_at_most_128_characters() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    for content_type in ["application/json", " ~", &"x".repeat(128)] {
        let request = with_type(text_to("alice", "x"), content_type);
        assert_eq!(alice.try_send(request).await.expect("accepted").content_type, content_type);
    }
    for content_type in [&"x".repeat(129), "a\n", "a\tb", "\0", "\u{7f}", "é"] {
        let request = with_type(text_to("alice", "x"), content_type);
        refused(alice.try_send(request).await, ErrorReason::InvalidField).names("content_type");
    }
}

#[tokio::test]
async fn a_request_id_is_visible_ascii_of_at_most_64_characters() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    for request_id in ["!", "~", "a/b:c", &"x".repeat(64)] {
        let sent = alice.send_with_id("alice", "x", request_id).await;
        assert_eq!(sent.request_id, request_id);
    }
    for request_id in [&"x".repeat(65), "a b", " ", "a\n", "\0", "\u{7f}", "é"] {
        let request = with_id(text_to("alice", "x"), request_id);
        refused(alice.try_send(request).await, ErrorReason::InvalidField).names("request_id");
    }
}

#[tokio::test]
async fn a_recipient_is_a_registered_name() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    for name in ["", ".bob", "b b", "böb", &"x".repeat(65)] {
        refused(alice.try_send(text_to(name, "x")).await, ErrorReason::InvalidField)
            .names("to_user");
    }
    refused(alice.try_send(text_to("bob", "x")).await, ErrorReason::UserNotFound)
        .with("username", "bob")
        .with("field", "to_user");
    assert_eq!(last_sequence(&alice).await, 0, "a refused message is not stored");
}

#[tokio::test]
async fn a_refusal_names_every_wrong_field() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let request = with_id(with_type(text_to("", ""), "\n"), " ");
    let mut refusal = refused(alice.try_send(request).await, ErrorReason::InvalidField);
    refusal.fields.sort();
    assert_eq!(refusal.fields, ["content_type", "request_id", "text", "to_user"]);
}

#[tokio::test]
async fn repeating_a_request_id_returns_the_first_message_and_stores_nothing() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let request = with_id(with_type(text_to("bob", "once"), "text/plain"), "r1");
    let first = alice.try_send(request.clone()).await.expect("accepted");
    alice.send("bob", "between").await;
    let other_case = SendMessageRequest { to_user: "BOB".into(), ..request.clone() };
    for again in [request.clone(), other_case, request] {
        assert_eq!(alice.try_send(again).await.expect("the first"), first);
    }
    assert_eq!(texts(&alice.mailbox().await), ["once", "between"]);
    assert_eq!(texts(&bob.mailbox().await), ["once", "between"]);
}

#[tokio::test]
async fn repeating_without_a_request_id_stores_a_second_message() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let (first, second) = (alice.send("alice", "x").await, alice.send("alice", "x").await);
    assert_ne!(first.message_id, second.message_id);
    assert_eq!(sequences(&alice.mailbox().await), [1, 2]);
}

#[tokio::test]
async fn a_request_id_used_for_other_content_is_refused() {
    let server = TestServer::start().await;
    let (alice, _bob) = (server.user("alice").await, server.user("bob").await);
    let first = with_id(with_type(text_to("bob", "body"), "text/plain"), "r1");
    let stored = alice.try_send(first.clone()).await.expect("accepted");
    let others = [
        SendMessageRequest { to_user: "alice".into(), ..first.clone() },
        SendMessageRequest { body: text_to("bob", "another").body, ..first.clone() },
        SendMessageRequest { body: data_to("bob", "body").body, ..first.clone() },
        SendMessageRequest { content_type: "text/html".into(), ..first.clone() },
        SendMessageRequest { content_type: String::new(), ..first.clone() },
    ];
    for other in others {
        refused(alice.try_send(other).await, ErrorReason::RequestIdReused).with("request_id", "r1");
    }
    assert_eq!(alice.mailbox().await, std::slice::from_ref(&stored), "the earlier one stands");
    assert_eq!(alice.try_send(first).await.expect("the first"), stored);
}

#[tokio::test]
async fn request_ids_are_each_senders_own() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let to_bob = alice.send_with_id("bob", "from alice", "r1").await;
    let to_alice = bob.send_with_id("alice", "from bob", "r1").await;
    assert_ne!(to_bob.message_id, to_alice.message_id);
    assert_eq!(texts(&bob.mailbox().await), ["from alice", "from bob"]);
    assert_eq!(bob.mailbox().await[0].request_id, "", "alice's is not shown to bob");
    assert_eq!(bob.mailbox().await[1].request_id, "r1");
}

#[tokio::test]
async fn a_request_ids_case_matters() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let (lower, upper) = (
        alice.send_with_id("alice", "x", "id").await,
        alice.send_with_id("alice", "x", "ID").await,
    );
    assert_ne!(lower.message_id, upper.message_id);
}

#[tokio::test]
async fn a_refused_message_does_not_use_its_request_id_up() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let early = with_id(text_to("bob", "hi"), "r1");
    refused(alice.try_send(early.clone()).await, ErrorReason::UserNotFound);
    let bob = server.user("bob").await;
    alice.try_send(early).await.expect("accepted now");
    assert_eq!(texts(&bob.mailbox().await), ["hi"]);
}

#[tokio::test]
async fn what_was_answered_is_in_the_next_read_of_both() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    for expected in 1..=50 {
        let sent = alice.send("bob", "fresh").await;
        assert_eq!(sent.sequence, expected);
        assert_eq!(last_sequence(&bob).await, expected);
        assert_eq!(last_sequence(&alice).await, expected);
    }
}
