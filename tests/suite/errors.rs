//! Every reason of `error_reason.proto`, provoked once, and what never reaches a handler.

use std::num::NonZero;
use std::time::Duration;

use peerpost::auth::RegistrationPolicy;
use peerpost::domain::Token;
use peerpost::domain::limits::SUBSCRIPTIONS_PER_USER_DEFAULT;
use peerpost::proto::{
    ErrorReason, GetMessagesRequest, SendMessageRequest, send_message_request,
    send_messages_response,
};
use peerpost::testing::{
    TestServer, TestUser, after, data_to, refused, streamed, text_to, within_patience,
};
use prost::Message as _;
use tokio_stream::StreamExt as _;
use tonic::{Code, Status};

use crate::accounts_support::{ban, expired, over_the_token_limit, register, registering};
use crate::limits::{self, FULL_ADDRESS};
use crate::support::{last_sequence, subscribe_from_now, with_id};
use crate::{damage, faults, memory_limit, raw};

/// Reasons that need a fault, and the tests that bring it about.
const NEED_A_FAULT: [(ErrorReason, fn()); 3] = [
    (
        ErrorReason::WriteQueueFull,
        faults::a_full_write_queue_refuses_and_what_is_sent_again_is_stored_once,
    ),
    (ErrorReason::DiskFull, faults::a_full_disk_refuses_writes_until_there_is_room),
    (ErrorReason::StorageFailing, faults::a_storage_that_takes_no_writes_refuses_them_and_recovers),
];

/// Reasons that no test here provokes. Readers are all busy for two seconds only under a load that
/// depends on the machine: the store's own tests (`store/tests/admission.rs`) occupy them.
/// The other is answered to operators alone, over the admin socket (`accounts_admin`).
const NOT_FROM_OUTSIDE: [ErrorReason; 2] =
    [ErrorReason::ReadQueueFull, ErrorReason::InviteNotFound];

/// As ids of tokens are, and nobody's.
const NO_TOKEN: &str = "0190a1b2-c3d4-7e5f-8a6b-0123456789ab";

#[tokio::test]
async fn every_reason_comes_with_what_the_contract_promises() {
    let all: Vec<_> = (1..1_000).filter_map(|n| ErrorReason::try_from(n).ok()).collect();
    assert_eq!(all.len(), 31, "a new reason is named below");
    for reason in all {
        if let Some(status) = provoke(reason).await {
            refused(Err::<(), _>(status), reason);
            continue;
        }
        let by_a_fault = NEED_A_FAULT.iter().any(|(provoked, _)| *provoked == reason);
        let is_listed = by_a_fault || NOT_FROM_OUTSIDE.contains(&reason);
        assert!(is_listed, "{reason:?} is never provoked");
    }
}

/// A call that ends for this reason; `None` where it takes more than a call. A new reason does not compile
/// without its line.
async fn provoke(reason: ErrorReason) -> Option<Status> {
    use ErrorReason as R;
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let status = match reason {
        R::Unspecified
        | R::WriteQueueFull
        | R::ReadQueueFull
        | R::DiskFull
        | R::StorageFailing
        | R::InviteNotFound => return None,
        R::TokenExpired => expired(&alice).await.get_user("alice").await.expect_err("refused"),
        R::UserBanned => {
            ban(&server, "alice", "").await;
            alice.get_user("alice").await.expect_err("refused")
        }
        R::RegistrationClosed => {
            let closed = registering(RegistrationPolicy::Closed).await;
            register(&closed, "bob", "").await.expect_err("refused")
        }
        R::InviteInvalid => {
            let by_invite = registering(RegistrationPolicy::Invite).await;
            register(&by_invite, "bob", "").await.expect_err("refused")
        }
        R::TokenLimit => over_the_token_limit(&alice).await,
        R::TokenNotFound => alice.revoke_token(NO_TOKEN).await.expect_err("refused"),
        R::InvalidField => alice.get_user("").await.expect_err("refused"),
        R::BodyTooLarge => {
            alice.try_send(data_to("alice", vec![0; 65_537])).await.expect_err("refused")
        }
        R::TokenMissing => get_user(&server, None).await,
        R::TokenMalformed => get_user(&server, Some("x")).await,
        R::TokenUnknown => get_user(&server, Some(&Token::mint().reveal())).await,
        R::UserMismatch => {
            let headers = [headers(&alice, "10S"), vec![("peerpost-user", "bob".to_owned())]];
            let body = raw::whole(raw::frame(&text_to("alice", "x").encode_to_vec()));
            raw::call(server.addr(), SEND_MESSAGE, &headers.concat(), body).await
        }
        R::UsernameTaken => {
            let bob = server.user("bob").await;
            bob.try_register("alice", "").await.expect_err("refused")
        }
        R::RequestIdReused => {
            alice.send_with_id("alice", "one", "r").await;
            alice.try_send(with_id(text_to("alice", "two"), "r")).await.expect_err("refused")
        }
        R::MessageExpired => {
            let past = prost_types::Timestamp { seconds: 1, nanos: 0 };
            let expiry = Some(send_message_request::Expiry::ExpireTime(past));
            let request = SendMessageRequest { expiry, ..text_to("alice", "one") };
            alice.try_send(request).await.expect_err("refused")
        }
        R::MailboxFull => {
            let server = TestServer::start_with(|options| {
                options.mailbox_limits.messages_max = NonZero::new(1);
            })
            .await;
            let alice = server.user("alice").await;
            alice.send("alice", "one").await;
            alice.try_send(text_to("alice", "two")).await.expect_err("refused")
        }
        R::UserNotFound => alice.get_user("bob").await.expect_err("refused"),
        R::SequenceOutOfRange => alice.get(after(1)).await.expect_err("refused"),
        R::EpochMismatch => alice.acknowledge_in("another", 0).await.expect_err("refused"),
        R::SubscriptionLimit => over_the_subscription_limit(&alice).await,
        R::SendRateLimit => {
            let (_server, alice) = limits::over_the_send_rate().await;
            alice.try_send(text_to("alice", "x")).await.expect_err("refused")
        }
        R::MemoryLimit => memory_limit::over_the_memory_limit().await,
        R::RegistrationRateLimit => {
            let server = limits::over_the_registration_rate().await;
            limits::register_from(&server, FULL_ADDRESS, "carol", None).await.expect_err("refused")
        }
        R::ShuttingDown => {
            let following = alice.follow(0).await;
            server.begin_stop();
            following.drain().await.1
        }
        R::StoredDataDamaged => damage::read_a_damaged_message().await,
        R::DeadlineExceeded => {
            let headers = headers(&alice, "100m");
            let body = raw::unfinished(bytes::Bytes::new());
            raw::call(server.addr(), SEND_MESSAGE, &headers, body).await
        }
    };
    Some(status)
}

#[tokio::test]
async fn a_body_far_over_the_limit_is_refused_as_one_over_it() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let ten_mb = 10_000_000;
    refused(alice.try_send(data_to("alice", vec![0; ten_mb])).await, ErrorReason::BodyTooLarge)
        .names("body")
        .with("limit_bytes", 65_536);
    refused(alice.try_send(text_to("alice", "x".repeat(ten_mb))).await, ErrorReason::BodyTooLarge)
        .names("body")
        .with("limit_bytes", 65_536);
    assert_eq!(alice.send("alice", "the connection goes on").await.sequence, 1);
}

#[tokio::test]
async fn any_request_far_too_large_is_an_invalid_argument() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let epoch = "x".repeat(10_000_000);
    refused(alice.get(GetMessagesRequest { epoch, ..after(0) }).await, ErrorReason::InvalidField)
        .names("request");
    refused(alice.get_user(&"x".repeat(10_000_000)).await, ErrorReason::InvalidField)
        .names("request");
    assert_eq!(alice.send("alice", "the connection goes on").await.sequence, 1);
}

/// The caller never finishes its request: only the server's own clock can end the call.
#[tokio::test]
async fn a_deadline_ends_a_unary_call() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let whole = raw::frame(&text_to("alice", "half of it").encode_to_vec());
    let half = raw::unfinished(whole.slice(..whole.len() / 2));
    let headers = headers(&alice, "100m");
    let status = raw::call(server.addr(), SEND_MESSAGE, &headers, half).await;
    refused(Err::<(), _>(status), ErrorReason::DeadlineExceeded);
    assert_eq!(last_sequence(&alice).await, 0);
}

#[tokio::test]
async fn a_deadline_ends_a_subscription() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let headers = headers(&alice, "200m");
    let body = raw::whole(raw::frame(&subscribe_from_now().encode_to_vec()));
    let status = raw::call(server.addr(), SUBSCRIBE, &headers, body).await;
    refused(Err::<(), _>(status), ErrorReason::DeadlineExceeded);
}

#[tokio::test]
async fn a_deadline_ends_a_stream_of_sends_and_keeps_what_was_answered() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let requests = tokio_stream::once(streamed(text_to("alice", "one")));
    let mut call = alice.request(requests.chain(tokio_stream::pending()));
    // Long enough for one send on a busy machine. Only the server keeps it once its response began.
    call.set_timeout(Duration::from_secs(5));
    let mut client = alice.client();
    let answers = within_patience("SendMessages", client.send_messages(call)).await;
    let mut answers = answers.expect("accepted").into_inner();
    let answer = within_patience("an answer", answers.message()).await;
    let answer = answer.expect("goes on").expect("an answer").result.expect("one of the two");
    let send_messages_response::Result::Message(message) = answer else { panic!("{answer:?}") };
    assert_eq!(message.sequence, 1);
    let end = within_patience("the deadline", answers.message()).await;
    refused(end, ErrorReason::DeadlineExceeded);
    assert_eq!(last_sequence(&alice).await, 1);
    assert_eq!(alice.mailbox().await, [message]);
}

#[tokio::test]
async fn a_far_deadline_changes_nothing() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let headers = headers(&alice, "1H");
    let body = raw::whole(raw::frame(&text_to("alice", "x").encode_to_vec()));
    let status = raw::call(server.addr(), SEND_MESSAGE, &headers, body).await;
    assert_eq!(status.code(), Code::Ok, "{status:?}");
    assert_eq!(last_sequence(&alice).await, 1);
}

/// What becomes of bytes that are no request.
#[derive(Clone, Copy)]
enum Broken {
    /// The frame holds no message: the field at which it ends to make sense is named.
    Field(&'static str),
    /// There is no whole gRPC frame, which is INTERNAL by gRPC's own rules and never gets to the
    /// service.
    NoFrame,
    /// A stream without a request is a good one.
    EmptyStream,
}

#[tokio::test]
async fn broken_requests_are_refused_and_the_server_goes_on() {
    use Broken::{EmptyStream, Field, NoFrame};
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let headers = headers(&alice, "1M");
    let not_utf8 = [0x0a, 2, 0xff, 0xfe];
    let text_not_utf8 = [0x0a, 5, b'a', b'l', b'i', b'c', b'e', 0x12, 2, 0xff, 0xfe];
    // What is expected of SendMessage, SendMessages and Subscribe, whose field 1 is a number.
    let broken = [
        (raw::frame(&not_utf8), [Field("to_user"), Field("to_user"), Field("start")]),
        (raw::frame(&text_not_utf8), [Field("body"), Field("body"), Field("start")]),
        (raw::frame(&[0xff; 64]), [Field("request"); 3]),
        (raw::frame(&[0x0a, 100, b'x']), [Field("to_user"), Field("to_user"), Field("start")]),
        (raw::frame(b"alice").slice(..7), [NoFrame; 3]),
        (bytes::Bytes::from_static(&[7, 0, 0, 0, 1, 0]), [NoFrame; 3]),
        (bytes::Bytes::from_static(&[1, 0, 0, 0, 0]), [NoFrame; 3]),
        (bytes::Bytes::new(), [Field("request"), EmptyStream, Field("request")]),
    ];
    for (i, (bytes, expected)) in broken.into_iter().enumerate() {
        for (method, expected) in [SEND_MESSAGE, SEND_MESSAGES, SUBSCRIBE].iter().zip(expected) {
            let status = raw::call(server.addr(), method, &headers, raw::whole(bytes.clone()));
            let status = status.await;
            println!("{i} at {method}: {status:?}");
            match expected {
                Field(field) => {
                    refused(Err::<(), _>(status), ErrorReason::InvalidField).names(field);
                }
                NoFrame => {
                    assert_eq!(status.code(), Code::Internal);
                    assert!(status.details().is_empty(), "not the service's own answer");
                }
                EmptyStream => assert_eq!(status.code(), Code::Ok),
            }
        }
    }
    assert_eq!(alice.send("alice", "still here").await.sequence, 1, "nothing was stored");
}

#[tokio::test]
async fn a_method_that_does_not_exist_is_unimplemented() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let headers = headers(&alice, "1M");
    let method = "peerpost.v1.MessagingService/Nothing";
    let body = raw::whole(raw::frame(b""));
    let status = raw::call(server.addr(), method, &headers, body).await;
    assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
}

#[tokio::test]
async fn noise_on_the_socket_harms_nobody() {
    use tokio::io::AsyncWriteExt as _;
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    for noise in [&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], &[0xff; 4096], b"PRI * HTTP/2.0\r\n"] {
        let mut socket = tokio::net::TcpStream::connect(server.addr()).await.expect("connects");
        // The server may hang up in the middle, as it should.
        let _ = socket.write_all(noise).await;
    }
    assert_eq!(alice.send("alice", "still here").await.sequence, 1);
}

const SEND_MESSAGE: &str = "peerpost.v1.MessagingService/SendMessage";
const SEND_MESSAGES: &str = "peerpost.v1.MessagingService/SendMessages";
const SUBSCRIBE: &str = "peerpost.v1.MessagingService/Subscribe";

/// The headers of a call by this user that may take this long.
fn headers(user: &TestUser, timeout: &str) -> Vec<(&'static str, String)> {
    vec![("authorization", format!("Bearer {}", user.token)), ("grpc-timeout", timeout.to_owned())]
}

async fn get_user(server: &TestServer, token: Option<&str>) -> Status {
    let headers: Vec<_> =
        token.iter().map(|token| ("authorization", format!("Bearer {token}"))).collect();
    let body = raw::whole(raw::frame(b"\x0a\x05alice"));
    raw::call(server.addr(), "peerpost.v1.MessagingService/GetUser", &headers, body).await
}

async fn over_the_subscription_limit(alice: &TestUser) -> Status {
    let mut open = Vec::new();
    for _ in 0..SUBSCRIPTIONS_PER_USER_DEFAULT {
        open.push(alice.subscribe(subscribe_from_now()).await.expect("accepted"));
    }
    alice.subscribe(subscribe_from_now()).await.expect_err("refused")
}
