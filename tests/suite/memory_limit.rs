//! What requests and answers in transit hold of the memory: who holds much of it is refused by the limit's
//! name, their connection goes on, and nobody else notices.

use bytes::Bytes;
use http_body_util::BodyExt as _;
use peerpost::proto::ErrorReason;
use peerpost::testing::{Refusal, TestServer, TestUser, refused, text_to, within_patience};
use prost::Message as _;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::limits::metric;
use crate::raw;
use crate::support::{ANY_PORT, last_sequence};

const HELD_BYTES_MAX: usize = 8 * 1024 * 1024;

const SEND_MESSAGE: &str = "peerpost.v1.MessagingService/SendMessage";

/// The calls of one connection that do not finish their requests, and which of them are refused.
struct Crowd {
    server: TestServer,
    mallory: TestUser,
    client: raw::Client,
    calls: JoinSet<Status>,
    refusal: Status,
}

impl Crowd {
    /// As many calls as it takes until one is refused.
    async fn gather() -> Self {
        const CALLS: usize = 160;
        const BYTES_EACH: usize = 60_000;
        let server = TestServer::start_with(|options| {
            options.limits.held_bytes_max = HELD_BYTES_MAX;
            options.metrics_listen = Some(ANY_PORT);
        })
        .await;
        let mallory = server.user("mallory").await;
        let client = raw::client();
        let headers = headers(&mallory);
        send(&server, &client, &mallory).await.expect("the connection is open");
        let mut calls = JoinSet::new();
        for _ in 0..CALLS {
            let half = raw::frame(&vec![0; BYTES_EACH]).slice(..BYTES_EACH);
            let (addr, client, headers) = (server.addr(), client.clone(), headers.clone());
            calls.spawn(async move {
                let call =
                    raw::call_by(&client, addr, SEND_MESSAGE, &headers, raw::unfinished(half));
                call.await.expect("the connection is not cut")
            });
        }
        let refusal = within_patience("a refusal", calls.join_next()).await;
        let refusal = refusal.expect("calls").expect("no panic");
        Self { server, mallory, client, calls, refusal }
    }
}

fn headers(user: &TestUser) -> Vec<(&'static str, String)> {
    vec![("authorization", format!("Bearer {}", user.token))]
}

async fn send(server: &TestServer, client: &raw::Client, user: &TestUser) -> Result<(), Status> {
    let body = raw::whole(raw::frame(&text_to(&user.name, "x").encode_to_vec()));
    let answer = raw::call_by(client, server.addr(), SEND_MESSAGE, &headers(user), body).await;
    match answer.expect("the connection is not cut") {
        status if status.code() == Code::Ok => Ok(()),
        status => Err(status),
    }
}

/// A refusal for the memory, over gRPC.
pub(crate) async fn over_the_memory_limit() -> Status {
    Crowd::gather().await.refusal
}

/// A refusal for the memory over JSON, and over gRPC.
pub(crate) async fn over_the_memory_limit_in_json() -> (Value, Status) {
    let Crowd { server, mallory, client, calls: _calls, refusal } = Crowd::gather().await;
    let json = json!({"to_user": "mallory", "text": "\u{1f}".repeat(50_000)}).to_string();
    let request = http::Request::post(format!("http://{}/v1/messages", server.addr()))
        .header("content-type", "application/json")
        .header("authorization", format!("Bearer {}", mallory.token))
        .body(raw::whole(Bytes::from(json)));
    let answer = client.request(request.expect("a request as HTTP has it"));
    let answer = within_patience("an answer", answer).await.expect("the connection is not cut");
    let content = within_patience("its content", answer.into_body().collect()).await;
    let content = content.expect("a whole answer").to_bytes();
    (serde_json::from_slice(&content).expect("JSON"), refusal)
}

#[tokio::test]
async fn who_holds_much_is_refused_by_name_and_nobody_else() {
    let Crowd { server, mallory, client, mut calls, refusal } = Crowd::gather().await;
    let bob = server.user("bob").await;
    refused(Err::<(), _>(refusal), ErrorReason::MemoryLimit)
        .with("limit", "held_bytes_max")
        .with("value", HELD_BYTES_MAX);
    let refusals = metric(&server, "peerpost_refusals_total{limit=\"held_bytes_max\"}").await;
    assert!(refusals.parse::<usize>().expect("a number") > 0);
    // Others notice nothing, nor does the same user on another connection.
    let mut following = bob.follow(0).await;
    let sent = mallory.send("bob", "all the same").await;
    assert_eq!(following.messages(1).await[0].message_id, sent.message_id);

    // What it holds is let go with its calls, and the connection goes on.
    calls.abort_all();
    while calls.join_next().await.is_some() {}
    let stored = last_sequence(&mallory).await;
    let goes_on = async {
        while let Err(status) = send(&server, &client, &mallory).await {
            assert_eq!(Refusal::of(&status).reason, ErrorReason::MemoryLimit);
        }
    };
    within_patience("room", goes_on).await;
    assert_eq!(last_sequence(&mallory).await, stored + 1, "refused requests store nothing");
}
