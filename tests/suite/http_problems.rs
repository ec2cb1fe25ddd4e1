//! Bad input over JSON: the same reasons as over gRPC, as `application/problem+json`.

use std::num::NonZero;

use http::{Method, StatusCode, header};
use peerpost::auth::RegistrationPolicy;
use peerpost::domain::Token;
use peerpost::domain::limits::SUBSCRIPTIONS_PER_USER_DEFAULT;
use peerpost::proto::{ErrorReason, SendMessageRequest, send_message_request};
use peerpost::testing::{Refusal, TestServer, TestUser, after, data_to, text_to};
use prost_types::field_descriptor_proto::Type;
use serde_json::{Value, json};
use tonic::Status;

use crate::accounts_support::{ban, expired, over_the_token_limit, register, registering};
use crate::contract::rpcs;
use crate::http_support::{Web, assert_says_the_same};
use crate::limits::{self, FULL_ADDRESS};
use crate::memory_limit::over_the_memory_limit_in_json;
use crate::support::{subscribe_from_now, with_id};
use crate::{damage, raw};

/// Reasons that no request alone provokes; over gRPC they are provoked by faults (`errors.rs`), and
/// what is made of a status is the same for all.
const NEED_A_FAULT: [ErrorReason; 5] = [
    ErrorReason::WriteQueueFull,
    ErrorReason::ReadQueueFull,
    ErrorReason::DiskFull,
    ErrorReason::StorageFailing,
    ErrorReason::InviteNotFound,
];

#[tokio::test]
async fn every_reason_says_what_it_says_over_grpc() {
    let all: Vec<_> = (1..1_000).filter_map(|n| ErrorReason::try_from(n).ok()).collect();
    for reason in all {
        let Some((problem, status)) = provoke(reason).await else {
            assert!(NEED_A_FAULT.contains(&reason), "{reason:?} is never provoked");
            continue;
        };
        assert_eq!(problem["reason"], reason.as_reason());
        assert_eq!(problem["type"], format!("/v1/problems/{}", reason.as_reason()));
        assert_says_the_same(&problem, &status);
    }
}

/// The same mistake over JSON and over gRPC. A new reason does not compile without its line.
async fn provoke(reason: ErrorReason) -> Option<(Value, Status)> {
    use ErrorReason as R;
    if reason == R::StoredDataDamaged {
        let (server, bob) = damage::server_with_a_damaged_message().await;
        let web = Web::of(server.addr(), &bob);
        let problem = web.get("/v1/messages?after_sequence=3").await.problem();
        return Some((problem, bob.get(after(3)).await.expect_err("refused")));
    }
    let server = TestServer::start_with(|options| {
        if reason == R::MailboxFull {
            options.mailbox_limits.messages_max = NonZero::new(1);
        }
    })
    .await;
    let alice = server.user("alice").await;
    let web = Web::of(server.addr(), &alice);
    Some(match reason {
        R::Unspecified
        | R::WriteQueueFull
        | R::ReadQueueFull
        | R::DiskFull
        | R::StorageFailing
        | R::InviteNotFound => return None,
        R::TokenExpired
        | R::UserBanned
        | R::RegistrationClosed
        | R::InviteInvalid
        | R::TokenLimit
        | R::TokenNotFound => about_access(reason, &server, &alice).await,
        R::StoredDataDamaged => unreachable!("above"),
        R::InvalidField => (
            web.post("/v1/messages", &json!({"to_user": "no name", "request_id": " "}))
                .await
                .problem(),
            alice
                .try_send(SendMessageRequest {
                    to_user: "no name".into(),
                    request_id: " ".into(),
                    ..Default::default()
                })
                .await
                .expect_err("refused"),
        ),
        R::BodyTooLarge => (
            web.post("/v1/messages", &json!({"to_user": "alice", "text": "x".repeat(65_537)}))
                .await
                .problem(),
            alice.try_send(text_to("alice", "x".repeat(65_537))).await.expect_err("refused"),
        ),
        R::TokenMissing => (
            Web::at(server.addr()).get("/v1/users/alice").await.problem(),
            get_user(&server, &[]).await,
        ),
        R::UserMismatch => another_users_token(&server, &alice).await,
        R::TokenMalformed => with_headers(&server, "authorization", "Bearer x").await,
        R::TokenUnknown => {
            let token = format!("Bearer {}", Token::mint().reveal());
            with_headers(&server, "authorization", &token).await
        }
        R::UsernameTaken => {
            let bob = server.user("bob").await;
            (
                Web::of(server.addr(), &bob)
                    .post("/v1/users", &json!({"username": "ALICE"}))
                    .await
                    .problem(),
                bob.try_register("ALICE", "").await.expect_err("refused"),
            )
        }
        R::RequestIdReused => {
            alice.send_with_id("alice", "one", "r").await;
            let two = json!({"to_user": "alice", "text": "two", "request_id": "r"});
            (
                web.post("/v1/messages", &two).await.problem(),
                alice.try_send(with_id(text_to("alice", "two"), "r")).await.expect_err("refused"),
            )
        }
        R::MessageExpired => message_expired(&web, &alice).await,
        R::MailboxFull => mailbox_full(&web, &alice).await,
        R::UserNotFound => (
            web.get("/v1/users/bob").await.problem(),
            alice.get_user("bob").await.expect_err("refused"),
        ),
        R::SequenceOutOfRange => (
            web.get("/v1/messages?after_sequence=1").await.problem(),
            alice.get(after(1)).await.expect_err("refused"),
        ),
        R::EpochMismatch => (
            web.post("/v1/messages:acknowledge", &json!({"epoch": "another"})).await.problem(),
            alice.acknowledge_in("another", 0).await.expect_err("refused"),
        ),
        R::SubscriptionLimit => over_the_subscription_limit(&web, &alice).await,
        R::SendRateLimit => over_the_send_rate().await,
        R::RegistrationRateLimit => over_the_registration_rate().await,
        R::MemoryLimit => over_the_memory_limit_in_json().await,
        R::ShuttingDown => shutting_down(&server, &web, &alice).await,
        R::DeadlineExceeded => deadline_exceeded(&server, web, &alice).await,
    })
}

/// What users and operators do about who is let in.
async fn about_access(
    reason: ErrorReason,
    server: &TestServer,
    alice: &TestUser,
) -> (Value, Status) {
    use ErrorReason as R;
    let web = Web::of(server.addr(), alice);
    match reason {
        R::TokenExpired => {
            let token = format!("Bearer {}", expired(alice).await.token);
            with_headers(server, "authorization", &token).await
        }
        R::UserBanned => {
            ban(server, "alice", "").await;
            let token = format!("Bearer {}", alice.token);
            with_headers(server, "authorization", &token).await
        }
        R::RegistrationClosed => refused_to_register(RegistrationPolicy::Closed).await,
        R::InviteInvalid => refused_to_register(RegistrationPolicy::Invite).await,
        R::TokenLimit => {
            let status = over_the_token_limit(alice).await;
            (web.post("/v1/tokens", &json!({})).await.problem(), status)
        }
        R::TokenNotFound => {
            let id = "0190a1b2-c3d4-7e5f-8a6b-0123456789ab";
            (
                web.post("/v1/tokens:revoke", &json!({"token_id": id})).await.problem(),
                alice.revoke_token(id).await.expect_err("refused"),
            )
        }
        _ => unreachable!("{reason:?} is not about that"),
    }
}

async fn refused_to_register(policy: RegistrationPolicy) -> (Value, Status) {
    let server = registering(policy).await;
    let web = Web::at(server.addr());
    (
        web.post("/v1/users", &json!({"username": "bob"})).await.problem(),
        register(&server, "bob", "").await.expect_err("refused"),
    )
}

async fn another_users_token(server: &TestServer, alice: &TestUser) -> (Value, Status) {
    let web = Web::of(server.addr(), alice).with("peerpost-user", "bob");
    let token = ("authorization", format!("Bearer {}", alice.token));
    let headers = [token, ("peerpost-user", "bob".to_owned())];
    (web.get("/v1/users/alice").await.problem(), get_user(server, &headers).await)
}

async fn message_expired(web: &Web, alice: &TestUser) -> (Value, Status) {
    let json = json!({"to_user": "alice", "text": "one", "expire_time": "1970-01-01T00:00:01Z"});
    let past = prost_types::Timestamp { seconds: 1, nanos: 0 };
    let expiry = Some(send_message_request::Expiry::ExpireTime(past));
    let request = SendMessageRequest { expiry, ..text_to("alice", "one") };
    (
        web.post("/v1/messages", &json).await.problem(),
        alice.try_send(request).await.expect_err("refused"),
    )
}

async fn mailbox_full(web: &Web, alice: &TestUser) -> (Value, Status) {
    alice.send("alice", "one").await;
    let two = json!({"to_user": "alice", "text": "two"});
    (
        web.post("/v1/messages", &two).await.problem(),
        alice.try_send(text_to("alice", "two")).await.expect_err("refused"),
    )
}

/// At the end of a stream of events.
async fn shutting_down(server: &TestServer, web: &Web, alice: &TestUser) -> (Value, Status) {
    let mut events = web.events("after_sequence=0").await.expect("accepted");
    let following = alice.follow(0).await;
    assert_eq!(events.next().await.expect("the first").name, "started");
    assert_eq!(events.next().await.expect("the second").name, "caught_up");
    server.begin_stop();
    let last = events.next().await.expect("the error");
    assert_eq!((last.name.as_str(), last.id.as_str()), ("error", ""));
    assert_eq!(events.next().await, None, "it was the last");
    (last.data, following.drain().await.1)
}

/// Instead of a stream of events, or at its end: which of the two is the machine's choice.
async fn deadline_exceeded(server: &TestServer, web: Web, alice: &TestUser) -> (Value, Status) {
    let problem = match web.with("grpc-timeout", "1m").events("from_now=true").await {
        Err(reply) => reply.problem(),
        Ok(mut events) => loop {
            let event = events.next().await.expect("the error comes");
            if event.name == "error" {
                break event.data;
            }
        },
    };
    let token = format!("Bearer {}", alice.token);
    let headers = [("authorization", token), ("grpc-timeout", "1m".to_owned())];
    let body = raw::unfinished(bytes::Bytes::new());
    let method = "peerpost.v1.MessagingService/SendMessage";
    (problem, raw::call(server.addr(), method, &headers, body).await)
}

async fn with_headers(server: &TestServer, name: &'static str, value: &str) -> (Value, Status) {
    let web = Web::at(server.addr()).with(name, value);
    let status = get_user(server, &[(name, value.to_owned())]).await;
    (web.get("/v1/users/alice").await.problem(), status)
}

async fn get_user(server: &TestServer, headers: &[(&'static str, String)]) -> Status {
    let body = raw::whole(raw::frame(b"\x0a\x05alice"));
    raw::call(server.addr(), "peerpost.v1.MessagingService/GetUser", headers, body).await
}

async fn over_the_send_rate() -> (Value, Status) {
    let (server, alice) = limits::over_the_send_rate().await;
    let web = Web::of(server.addr(), &alice);
    let refused = web.post("/v1/messages", &json!({"to_user": "alice", "text": "x"})).await;
    assert!(refused.headers.contains_key(header::RETRY_AFTER));
    let status = alice.try_send(text_to("alice", "x")).await.expect_err("refused");
    as_if_at_one_moment(refused.problem(), status)
}

async fn over_the_registration_rate() -> (Value, Status) {
    let server = limits::over_the_registration_rate().await;
    let web = Web::at(server.addr()).with("x-forwarded-for", FULL_ADDRESS);
    let problem = web.post("/v1/users", &json!({"username": "carol"})).await.problem();
    let status = limits::register_from(&server, FULL_ADDRESS, "carol", None).await;
    as_if_at_one_moment(problem, status.expect_err("refused"))
}

/// Two refusals for a rate, one after the other: there is less time left at the second.
fn as_if_at_one_moment(mut problem: Value, status: Status) -> (Value, Status) {
    let seconds = |text: &str| text.trim_end_matches('s').parse::<f64>().expect("seconds");
    let later = Refusal::of(&status).retry_delay.expect("a time").as_secs_f64();
    let retry_after = &mut problem["retryAfter"];
    assert!(seconds(retry_after.as_str().expect("a text")) >= later);
    *retry_after = format!("{later}s").into();
    (problem, status)
}

async fn over_the_subscription_limit(web: &Web, alice: &TestUser) -> (Value, Status) {
    let mut open = Vec::new();
    for _ in 0..SUBSCRIPTIONS_PER_USER_DEFAULT {
        open.push(alice.subscribe(subscribe_from_now()).await.expect("accepted"));
    }
    let Err(refused) = web.events("from_now=true").await else { panic!("accepted") };
    assert_eq!(refused.headers[header::RETRY_AFTER], "5");
    (refused.problem(), alice.subscribe(subscribe_from_now()).await.expect_err("refused"))
}

/// Where the requests of each RPC are sent.
fn targets(rpc: &str) -> Option<(Method, &'static str)> {
    Some(match rpc {
        "Register" => (Method::POST, "/v1/users"),
        "SendMessage" => (Method::POST, "/v1/messages"),
        "GetMessages" => (Method::GET, "/v1/messages"),
        "Subscribe" => (Method::GET, "/v1/events"),
        "Acknowledge" => (Method::POST, "/v1/messages:acknowledge"),
        "ListUsers" => (Method::GET, "/v1/users"),
        "CreateToken" => (Method::POST, "/v1/tokens"),
        "ListTokens" => (Method::GET, "/v1/tokens"),
        "RevokeToken" => (Method::POST, "/v1/tokens:revoke"),
        "DeleteUser" => (Method::POST, "/v1/users:delete"),
        // Its one field is in the path, where everything is a text.
        // The stream of sends has no route.
        "GetUser" | "SendMessages" => return None,
        other => panic!("{other} has no route here"),
    })
}

/// Every field of every request, of a kind that it has not.
#[tokio::test]
async fn a_field_of_another_kind_is_named() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let web = Web::of(server.addr(), &alice);
    for rpc in rpcs() {
        let Some((method, target)) = targets(&rpc.name) else { continue };
        for field in &rpc.fields {
            let name = field.path.split('.').next().expect("a name");
            let reply = match (&method, field.kind) {
                // As parameters all are texts, and a text is anything.
                (&Method::GET, Type::String) => continue,
                (&Method::GET, _) => web.get(&format!("{target}?{name}=x%00")).await,
                _ => web.post(target, &json!({name: {"x": 1}})).await,
            };
            let problem = reply.problem();
            assert_eq!(problem["reason"], "INVALID_FIELD", "{name} of {}", rpc.name);
            assert_eq!(problem["fieldViolations"][0]["field"], name, "{}: {problem}", rpc.name);
        }
        // A name that no field has, beside whatever else is wrong.
        let reply = match method {
            Method::GET => web.get(&format!("{target}?colour=1")).await,
            _ => web.post(target, &json!({"colour": 1})).await,
        };
        assert_eq!(reply.problem()["fieldViolations"][0]["field"], "colour", "{}", rpc.name);
    }
    assert_eq!(alice.mailbox().await, []);
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_the_server_goes_on() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let web = Web::of(server.addr(), &alice);
    let deep = "[".repeat(100_000);
    let texts = ["", "{", "[]", "\"x\"", "null", "{\"text\": \"\\ud800\"}", "{}{}", &deep];
    for text in texts {
        let problem = web.post_text("/v1/messages", text.to_owned()).await.problem();
        assert_eq!(problem["reason"], "INVALID_FIELD");
        assert_eq!(problem["fieldViolations"][0]["field"], "request", "{problem}");
    }
    let not_utf8 = b"{\"to_user\": \"alice\", \"text\": \"\xff\"}".to_vec();
    assert_eq!(web.post_text("/v1/messages", not_utf8).await.problem()["status"], 400);
    let twice =
        "{\"to_user\": \"alice\", \"toUser\": \"bob\", \"text\": \"a\", \"data\": \"YQ==\"}";
    assert_eq!(
        web.post_text("/v1/messages", twice).await.problem()["fieldViolations"][0]["field"],
        "body"
    );
    for target in [
        "/v1/users/%ff",
        "/v1/messages?peer=%ff",
        "/v1/messages?peer=a&peer=b",
        "/v1/messages?page_size=1&pageSize=1",
        "/v1/messages?after_sequence=1&before_sequence=1",
    ] {
        assert_eq!(web.get(target).await.problem()["reason"], "INVALID_FIELD", "{target}");
    }
    let stray =
        web.post("/v1/messages?to_user=alice", &json!({"to_user": "alice", "text": "x"})).await;
    assert_eq!(stray.problem()["fieldViolations"][0]["field"], "to_user");
    assert_eq!(alice.mailbox().await, [], "nothing was stored");
    assert_eq!(alice.send("alice", "still here").await.sequence, 1);
}

/// What is far too large is refused unread, for the reason that it is over gRPC.
#[tokio::test]
async fn what_is_too_large_is_refused_unread() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let web = Web::of(server.addr(), &alice);
    let ten_mb = 10_000_000;
    let send = json!({"to_user": "alice", "text": "x".repeat(ten_mb)});
    let body = web.post("/v1/messages", &send).await.problem();
    let over_grpc = alice.try_send(data_to("alice", vec![0; ten_mb])).await.expect_err("refused");
    assert_says_the_same(&body, &over_grpc);

    let other = web.post("/v1/messages:acknowledge", &json!({"epoch": "x".repeat(ten_mb)})).await;
    let over_grpc = alice.acknowledge_in(&"x".repeat(ten_mb), 0).await.expect_err("refused");
    assert_eq!(other.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(other.problem()["detail"], over_grpc.message());
    assert_eq!(other.problem()["reason"], "INVALID_FIELD");
    // Whoever may not send at all is told so first.
    let nobody = Web::at(server.addr());
    let refused = nobody.post("/v1/messages", &json!({"text": "x".repeat(ten_mb)})).await;
    assert_eq!(refused.problem()["reason"], "TOKEN_MISSING");
}

#[tokio::test]
async fn who_calls_is_asked_before_what() {
    let server = TestServer::start().await;
    let nobody = Web::at(server.addr());
    for reply in [
        nobody.post("/v1/messages", &json!({"colour": 1})).await,
        nobody.post_text("/v1/messages:acknowledge", "{").await,
        nobody.get("/v1/users?colour=1").await,
        nobody.get("/v1/events?from_now=maybe").await,
    ] {
        assert_eq!(reply.problem()["reason"], "TOKEN_MISSING");
        assert_eq!(reply.headers[header::WWW_AUTHENTICATE], "Bearer");
    }
}

#[tokio::test]
async fn what_only_http_knows_is_a_problem_too() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let web = Web::of(server.addr(), &alice);
    for nowhere in ["/v1", "/v1/", "/nothing", "/v1/users/", "/v1/users/a/b", "/v2/users", "//"] {
        let problem = web.get(nowhere).await.problem();
        assert_eq!((&problem["status"], &problem["type"]), (&json!(404), &json!("about:blank")));
    }
    let wrong = web.send(Method::PATCH, "/v1/messages", bytes::Bytes::new()).await;
    assert_eq!(wrong.problem()["status"], 405);
    assert_eq!(wrong.headers[header::ALLOW], "POST, GET, HEAD");
    let send = json!({"to_user": "alice", "text": "x"});
    let zipped = web.clone().with("content-encoding", "gzip");
    assert_eq!(zipped.post("/v1/messages", &send).await.problem()["status"], 415);
    // A page from elsewhere sends this without asking first.
    let page =
        web.with("origin", format!("http://{}", server.addr())).with("content-type", "text/plain");
    assert_eq!(page.post("/v1/messages", &send).await.problem()["status"], 415);
    assert_eq!(alice.mailbox().await, []);
}

#[tokio::test]
async fn a_problems_type_explains_it() {
    let server = TestServer::start().await;
    let nobody = Web::at(server.addr());
    let problem = nobody.get("/v1/messages").await.problem();
    let page = nobody.get(problem["type"].as_str().expect("a path")).await;
    assert_eq!(page.status, 200);
    assert!(page.body.starts_with(b"TOKEN_MISSING"), "{:?}", page.body);
    assert_eq!(nobody.get("/v1/problems/NOTHING").await.problem()["status"], 404);
}
