//! The calls of the app that this service descends from, by clients written for it.

use http::{Method, header};
use peerpost::testing::{TestServer, data_to, text_to};
use serde_json::{Value, json};

use crate::http_support::Web;
use crate::support::texts;

#[tokio::test]
async fn a_name_is_registered_once_and_its_token_updates_it() {
    let server = TestServer::start().await;
    let web = Web::at(server.addr());
    let body = json!({"username": "Alice", "ip_address": "192.0.2.7"});
    let answer = web.post("/register", &body).await.json(200);
    let token = answer["token"].as_str().expect("a token").to_owned();
    assert!(answer["message"].is_string());

    let again = web.post("/register", &body).await;
    assert!(again.json(409)["error"].as_str().is_some_and(|it| it.contains("Alice")));
    let own = Web::at(server.addr()).with("authorization", format!("Bearer {token}"));
    let moved = json!({"username": "alice", "ip_address": "192.0.2.8:9000"});
    assert_eq!(own.post("/register", &moved).await.json(200).get("token"), None);
    let bob = server.user("bob").await;
    assert_eq!(bob.get_user("alice").await.expect("found").ip_address, "192.0.2.8:9000");
    assert_eq!(Web::of(server.addr(), &bob).post("/register", &body).await.status, 409);
}

#[tokio::test]
async fn what_is_sent_is_received_as_rows() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("Alice").await, server.user("Bob").await);
    let (of_alice, of_bob) = (Web::of(server.addr(), &alice), Web::of(server.addr(), &bob));
    let send = |text: &str| json!({"from_user": "Alice", "to_user": "Bob", "message": text});
    let answer = of_alice.post("/send_message", &send("Hello, Bob!")).await.json(201);
    assert!(answer["message"].is_string());
    of_bob
        .post("/send_message", &json!({"from_user": "bob", "to_user": "ALICE", "message": "é"}))
        .await
        .json(201);
    alice.try_send(data_to("bob", vec![0xff, 0])).await.expect("accepted");

    let received = of_bob.get("/get_messages?to_user=Bob").await;
    let received = received.json(200);
    let rows = received["messages"].as_array().expect("rows");
    assert_eq!(received.as_object().map(serde_json::Map::len), Some(1));
    let shown: Vec<_> = rows.iter().map(|row| (&row[0], &row[1], &row[2])).collect();
    assert_eq!(
        shown,
        [
            (&json!(1), &json!("Alice"), &json!("Hello, Bob!")),
            (&json!(3), &json!("Alice"), &json!("/wA="))
        ]
    );
    for row in rows {
        let time = row[3].as_str().expect("a time");
        let shape: String =
            time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "0000-00-00 00:00:00", "{time}");
    }
    let of_alices = of_alice.get("/get_messages?to_user=alice&x=1").await.json(200);
    assert_eq!(of_alices["messages"][0][2], "é");
}

#[tokio::test]
async fn what_is_missing_is_said() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let web = Web::of(server.addr(), &alice);
    let good = json!({"from_user": "alice", "to_user": "alice", "message": "x"});
    let wrong = |member: &str, value: Value| {
        let mut object = good.clone();
        object[member] = value;
        object
    };
    for member in ["from_user", "to_user", "message"] {
        let mut without = good.clone();
        without.as_object_mut().expect("an object").remove(member);
        for body in
            [without, wrong(member, json!("")), wrong(member, json!(null)), wrong(member, json!(1))]
        {
            let error = web.post("/send_message", &body).await.json(400);
            assert!(
                error["error"].as_str().is_some_and(|it| it.contains(member)),
                "{body}: {error}"
            );
            assert_eq!(error.as_object().map(serde_json::Map::len), Some(1));
        }
    }
    for body in [
        json!({"username": "x"}),
        json!({"ip_address": "192.0.2.7"}),
        json!([]),
        json!({"username": "no name", "ip_address": ""}),
    ] {
        assert!(web.post("/register", &body).await.json(400)["error"].is_string(), "{body}");
    }
    for text in ["", "{", "from_user=alice", "\u{0}"] {
        assert!(web.post_text("/send_message", text).await.json(400)["error"].is_string());
    }
    for target in ["/get_messages", "/get_messages?to_user=", "/get_messages?to_user=no%20name"] {
        assert!(web.get(target).await.json(400)["error"].is_string(), "{target}");
    }
    assert_eq!(alice.mailbox().await, [], "nothing was stored");
}

#[tokio::test]
async fn nobody_sends_or_reads_for_another() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    bob.send("bob", "private").await;
    let forged = json!({"from_user": "bob", "to_user": "bob", "message": "x"});
    let stolen = "/get_messages?to_user=bob";
    let of_alice = Web::of(server.addr(), &alice);
    assert!(of_alice.post("/send_message", &forged).await.json(403)["error"].is_string());
    assert!(of_alice.get(stolen).await.json(403)["error"].is_string());
    let nobody = Web::at(server.addr());
    let refused = nobody.get(stolen).await;
    assert!(refused.json(401)["error"].is_string());
    assert_eq!(refused.headers[header::WWW_AUTHENTICATE], "Bearer");
    assert_eq!(nobody.post("/send_message", &forged).await.status, 401);
    // Nor for two at a time.
    let both = of_alice.with("peerpost-user", "alice");
    assert_eq!(both.get(stolen).await.status, 403);
    assert_eq!(texts(&bob.mailbox().await), ["private"]);
}

#[tokio::test]
async fn refusals_have_the_status_that_says_why() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let web = Web::of(server.addr(), &alice);
    let send =
        |to: &str, text: String| json!({"from_user": "alice", "to_user": to, "message": text});
    assert_eq!(web.post("/send_message", &send("nobody", "x".into())).await.status, 404);
    let bound = "x".repeat(65_536);
    assert_eq!(web.post("/send_message", &send("alice", bound.clone())).await.status, 201);
    assert_eq!(web.post("/send_message", &send("alice", format!("{bound}x"))).await.status, 413);
    let unread = web.post("/send_message", &send("alice", "x".repeat(1_000_000))).await;
    assert_eq!(unread.status, 413);
    assert_eq!(unread.headers[header::CONNECTION], "close", "the rest of it is not read");
    let of_a_page = web.clone().with("origin", format!("http://{}", server.addr()));
    let form = of_a_page.with("content-type", "text/plain");
    assert_eq!(form.post("/send_message", &send("alice", "x".into())).await.status, 415);
    let wrong = web.get("/send_message").await;
    assert_eq!(wrong.status, 405);
    assert_eq!(wrong.headers[header::ALLOW], "POST");
    assert_eq!(alice.mailbox().await.len(), 1);
}

/// What `curl -d` says of its content when nobody tells it.
#[tokio::test]
async fn what_a_program_sends_is_taken_for_json() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let web = Web::of(server.addr(), &alice);
    let web = web.with("content-type", "application/x-www-form-urlencoded");
    let send = json!({"from_user": "alice", "to_user": "alice", "message": "x"});
    assert_eq!(web.post("/send_message", &send).await.status, 201);
}

#[tokio::test]
async fn an_idempotency_key_stores_once() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let send = |text: &str| json!({"from_user": "alice", "to_user": "alice", "message": text});
    for key in ["k-1", "\"k-1\"", "k-1"] {
        let web = Web::of(server.addr(), &alice).with("idempotency-key", key);
        assert_eq!(web.post("/send_message", &send("x")).await.status, 201);
        assert_eq!(web.post("/send_message", &send("other")).await.status, 409);
    }
    assert_eq!(texts(&alice.mailbox().await), ["x"]);
}

/// More than one page, and more than a page may have bytes.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_mailbox_is_read_whole_and_in_order() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    alice.send_many("bob", "m", 2_500).await;
    let large = (0..40).map(|_| text_to("bob", "x".repeat(60_000)));
    assert!(alice.send_all(large).await.expect("accepted").iter().all(Result::is_ok));
    bob.send_many("alice", "sent, not received ", 5).await;
    let received = Web::of(server.addr(), &bob).get("/get_messages?to_user=bob").await.json(200);
    let rows = received["messages"].as_array().expect("rows");
    let ids: Vec<_> = rows.iter().filter_map(|row| row[0].as_i64()).collect();
    assert!(ids.iter().copied().eq(1..=2_540), "{} rows", rows.len());
    assert_eq!(rows[2_499][2], "m2499");
}

/// An answer without the entry that cannot be served would look whole.
#[tokio::test]
async fn a_mailbox_that_cannot_be_read_whole_is_an_error() {
    let (server, bob) = crate::damage::server_with_a_damaged_message().await;
    let answer = Web::of(server.addr(), &bob).get("/get_messages?to_user=bob").await;
    assert!(answer.json(500)["error"].is_string());
}

/// Its calls in the order in which its page shows them: only one of the two is ever registered.
#[tokio::test]
async fn an_open_server_does_what_the_ancestor_did() {
    let server = TestServer::start_with(|options| options.open = true).await;
    let web = Web::at(server.addr());
    let nobody_yet = web.get("/get_messages?to_user=Bob").await.json(200);
    assert_eq!(nobody_yet, json!({"messages": []}));
    let register = json!({"username": "Alice", "ip_address": "10.1.1.1"});
    for _again in 0..2 {
        assert!(web.post("/register", &register).await.json(200)["message"].is_string());
    }
    let send = json!({"from_user": "Alice", "to_user": "Bob", "message": "Hello, Bob!"});
    assert!(web.post("/send_message", &send).await.json(201)["message"].is_string());
    let received = web.get("/get_messages?to_user=Bob").await.json(200);
    assert_eq!(
        received["messages"][0].as_array().expect("a row")[..3],
        [json!(1), json!("Alice"), json!("Hello, Bob!")]
    );
    assert_eq!(received["messages"].as_array().map(Vec::len), Some(1));
    // Registered at last, with what came before.
    let register = json!({"username": "Bob", "ip_address": "10.1.1.2"});
    web.post("/register", &register).await.json(200);
    assert_eq!(web.get("/get_messages?to_user=Bob").await.json(200), received);
    let strangers = json!({"from_user": "Carol", "to_user": "Dave", "message": "x"});
    web.post("/send_message", &strangers).await.json(201);
    assert_eq!(web.get("/get_messages?to_user=Dave").await.json(200)["messages"][0][1], "Carol");
    // Under /v1 a name that is not there is not made up.
    let of_alice = Web::at(server.addr()).with("peerpost-user", "alice");
    let problem = of_alice.post("/v1/messages", &json!({"to_user": "Eve", "text": "x"})).await;
    assert_eq!(problem.problem()["reason"], "USER_NOT_FOUND");
    assert_eq!(web.get("/v1/messages").await.problem()["reason"], "TOKEN_MISSING");
}

#[tokio::test]
async fn says_what_it_is() {
    let server = TestServer::start().await;
    let web = Web::at(server.addr());
    let page = web.get("/").await;
    assert_eq!(page.status, 200);
    assert!(page.body.starts_with(b"peerpost"));
    let head = web.send(Method::HEAD, "/", bytes::Bytes::new()).await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    assert_eq!(head.headers[header::CONTENT_LENGTH], page.headers[header::CONTENT_LENGTH]);
}
