//! The RPCs as JSON under `/v1`.

use http::{Method, header};
use peerpost::proto::{GetMessagesRequest, message};
use peerpost::testing::{TestServer, TestUser, after, data_to, text_to};
use serde_json::{Value, json};

use crate::http_support::Web;
use crate::support::{texts, with_id};

async fn scene() -> (TestServer, TestUser, Web) {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let web = Web::of(server.addr(), &alice);
    (server, alice, web)
}

#[tokio::test]
async fn users_are_registered_found_and_listed() {
    let (server, _alice, web) = scene().await;
    let nobody = Web::at(server.addr());
    let carol = json!({"username": "Carol", "ipAddress": "192.0.2.7"});
    let carol = nobody.post("/v1/users", &carol).await.json(200);
    assert_eq!(carol["user"]["username"], "Carol");
    assert!(carol["token"].as_str().is_some_and(|token| token.starts_with("pp_")));

    let found = web.get("/v1/users/c%61rol").await.json(200);
    assert_eq!(found["user"], carol["user"]);
    assert_eq!(found["user"]["online"], false, "shown, though it is the default");
    let first = web.get("/v1/users?pageSize=1").await.json(200);
    assert_eq!(first["users"][0]["username"], "alice");
    let token = first["nextPageToken"].as_str().expect("a token");
    let second = web.get(&format!("/v1/users?page_size=1&page_token={token}")).await.json(200);
    assert_eq!(second["users"][0]["username"], "Carol");
    let none = web.get("/v1/users?prefix=zz").await.json(200);
    assert_eq!(none, json!({"users": [], "nextPageToken": ""}));
}

#[tokio::test]
async fn messages_are_sent_read_and_acknowledged() {
    let (_server, alice, web) = scene().await;
    let sent = web.post("/v1/messages", &json!({"toUser": "alice", "text": "é \"x\"\n"})).await;
    let sent = sent.json(200)["message"].clone();
    assert_eq!(sent["sequence"], "1", "as a string, as canonical JSON has it");
    let data =
        json!({"to_user": "alice", "data": "/+8=", "content_type": "image/x", "request_id": "r"});
    let data = web.post("/v1/messages", &data).await.json(200)["message"].clone();
    assert_eq!((&data["data"], &data["requestId"]), (&json!("/+8="), &json!("r")));

    let page = web.get("/v1/messages?after_sequence=0").await.json(200);
    assert_eq!(page["messages"], json!([sent, data]));
    assert_eq!((&page["hasMore"], &page["lastSequence"]), (&json!(false), &json!("2")));
    let newest = web.get("/v1/messages?beforeSequence=0&pageSize=1&receivedOnly=true").await;
    assert_eq!(newest.json(200)["messages"], json!([data]));
    let acknowledge = json!({"throughSequence": "2", "epoch": page["epoch"]});
    let acknowledged = web.post("/v1/messages:acknowledge", &acknowledge).await;
    assert_eq!(acknowledged.json(200), json!({"acknowledgedThrough": "2"}));

    // The same over gRPC.
    let mailbox = alice.mailbox().await;
    assert_eq!(mailbox[0].body, Some(message::Body::Text("é \"x\"\n".into())));
    assert_eq!(mailbox[1].body, Some(message::Body::Data(vec![0xff, 0xef].into())));
    assert_eq!(mailbox[1].content_type, "image/x");
    assert_eq!(alice.acknowledge(0).await.expect("accepted"), 2);
}

/// What is sent over one is the same over the other, whatever is in it.
#[tokio::test]
async fn every_body_survives_the_way_through_json() {
    let (_server, alice, web) = scene().await;
    let bound = "\u{1}".repeat(65_536);
    let odd = ["\u{feff}", "\u{202e}\u{0}\u{7f}\u{2028}", "👩‍👩‍👧‍👦\\u0041\"", "\r\n\t", &bound];
    for text in odd {
        let sent = web.post("/v1/messages", &json!({"to_user": "alice", "text": text})).await;
        assert_eq!(sent.json(200)["message"]["text"], text);
    }
    assert_eq!(texts(&alice.mailbox().await), odd);
    let bytes: Vec<u8> = (0..=255).cycle().take(65_536).collect();
    let sent = alice.try_send(data_to("alice", bytes.clone())).await.expect("accepted");
    let shown =
        web.get(&format!("/v1/messages?after_sequence={}", sent.sequence - 1)).await.json(200);
    let again = json!({"to_user": "alice", "data": shown["messages"][0]["data"]});
    web.post("/v1/messages", &again).await.json(200);
    let copy = alice.get(after(sent.sequence)).await.expect("a page");
    assert_eq!(copy.messages[0].body, Some(message::Body::Data(bytes.into())));
}

#[tokio::test]
async fn an_idempotency_key_is_a_request_id() {
    let (_server, alice, web) = scene().await;
    let body = json!({"to_user": "alice", "text": "x"});
    let keyed = web.clone().with("idempotency-key", "\"k\"");
    let first = keyed.post("/v1/messages", &body).await.json(200);
    assert_eq!(first["message"]["requestId"], "k");
    assert_eq!(keyed.post("/v1/messages", &body).await.json(200), first);
    let same = json!({"to_user": "alice", "text": "x", "request_id": "k"});
    assert_eq!(keyed.post("/v1/messages", &same).await.json(200), first);
    let other = json!({"to_user": "alice", "text": "x", "request_id": "l"});
    let refused = keyed.post("/v1/messages", &other).await.problem();
    assert_eq!(refused["fieldViolations"][0]["field"], "request_id");
    // The same over gRPC.
    let again = with_id(text_to("alice", "x"), "k");
    assert_eq!(alice.try_send(again).await.expect("found").sequence, 1);
    assert_eq!(alice.mailbox().await.len(), 1);
}

#[tokio::test]
async fn pages_are_the_same_as_over_grpc() {
    let (server, alice, web) = scene().await;
    let bob = server.user("bob").await;
    alice.send_many("bob", "to bob ", 7).await;
    bob.send_many("alice", "to alice ", 7).await;
    let requests = [
        ("", GetMessagesRequest::default()),
        ("after_sequence=3&page_size=4", GetMessagesRequest { page_size: 4, ..after(3) }),
        (
            "peer=bob&received_only=true",
            GetMessagesRequest { peer: "bob".into(), received_only: true, ..Default::default() },
        ),
    ];
    for (query, request) in requests {
        let page = web.get(&format!("/v1/messages?{query}")).await.json(200);
        let expected = alice.get(request).await.expect("a page");
        let shown = page["messages"].as_array().expect("messages");
        assert_eq!(shown.len(), expected.messages.len(), "{query}");
        for (shown, message) in shown.iter().zip(&expected.messages) {
            assert_eq!(shown["messageId"], message.message_id);
            assert_eq!(shown["sequence"], message.sequence.to_string());
            assert_eq!(shown["text"], peerpost::testing::body_text(message));
        }
        assert_eq!(page["hasMore"], expected.has_more);
        assert_eq!(page["epoch"], expected.epoch);
        assert_eq!(page["lastSequence"], expected.last_sequence.to_string());
    }
}

#[tokio::test]
async fn the_document_describes_itself() {
    let (_server, _alice, web) = scene().await;
    let document = web.get("/v1/openapi.json").await.json(200);
    assert_eq!(document["openapi"], "3.1.0");
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let path = path.replace("{username}", "alice").replace("{reason}", "DISK_FULL");
            let other = Method::DELETE;
            let refused = web.send(other, &path, bytes::Bytes::new()).await;
            assert_eq!(refused.status, 405, "{path} is there");
            let allowed = refused.headers[header::ALLOW].to_str().expect("text").to_lowercase();
            assert!(allowed.contains(method), "{method} {path}: {allowed}");
            assert!(operation["operationId"].is_string());
        }
    }
}

/// Every answer has exactly what its schema says that it always has.
#[tokio::test]
async fn answers_are_as_the_document_says() {
    let (_server, _alice, web) = scene().await;
    web.post("/v1/messages", &json!({"to_user": "alice", "text": "x"})).await.json(200);
    let document = web.get("/v1/openapi.json").await.json(200);
    let calls = [
        ("/v1/users", web.get("/v1/users").await),
        ("/v1/users/{username}", web.get("/v1/users/alice").await),
        ("/v1/messages", web.get("/v1/messages").await),
    ];
    for (path, reply) in calls {
        let schema = &document["paths"][path]["get"]["responses"]["200"]["content"];
        conforms(&document, &schema["application/json"]["schema"], &reply.json(200), path);
    }
}

fn conforms(document: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let schema = document.pointer(&reference[1..]).expect("it leads somewhere");
        return conforms(document, schema, value, at);
    }
    match schema["type"].as_str().expect("a type") {
        "object" => {
            let members = value.as_object().unwrap_or_else(|| panic!("{at}: {value}"));
            for required in schema["required"].as_array().into_iter().flatten() {
                assert!(
                    members.contains_key(required.as_str().expect("a name")),
                    "{at}: {required}"
                );
            }
            for (name, member) in members {
                let schema = &schema["properties"][name];
                assert!(schema.is_object(), "{at}: {name} is not described");
                conforms(document, schema, member, &format!("{at}.{name}"));
            }
        }
        "array" => {
            for item in value.as_array().unwrap_or_else(|| panic!("{at}: {value}")) {
                conforms(document, &schema["items"], item, at);
            }
        }
        "string" => assert!(value.is_string(), "{at}: {value}"),
        "boolean" => assert!(value.is_boolean(), "{at}: {value}"),
        "integer" => assert!(value.is_i64(), "{at}: {value}"),
        other => panic!("{at}: {other}"),
    }
}
