//! Tokens, as their owner makes and revokes them, and the end of a user: what was good is good no more at
//! once, on calls and on streams of every kind.

use peerpost::client::Client;
use peerpost::proto::{ErrorReason, SubscribeResponse, Token};
use peerpost::testing::{
    ServerProcess, TestServer, TestUser, eventually, refused, streamed, text_to, within_patience,
};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::accounts_support::{audit, expired, lasting, named, over_the_token_limit, register};
use crate::http_support::Web;
use crate::support::{binary, list, seconds, subscribe_from_now};
use crate::web::Browser;

/// One of each kind of stream, open with this user's token.
struct Streams {
    statuses: Vec<(&'static str, tokio::task::JoinHandle<Status>)>,
    /// Held: the caller does not end the stream of sends.
    _requests: mpsc::Sender<peerpost::proto::SendMessagesRequest>,
}

impl Streams {
    async fn open(server: &TestServer, user: &TestUser) -> Self {
        let mut subscription = user.subscribe(subscribe_from_now()).await.expect("accepted");
        subscription.next().await.expect("the turn to live delivery");
        let (requests, receiver) = mpsc::channel(4);
        let mut sends = user.send_stream(ReceiverStream::new(receiver)).await.expect("accepted");
        requests.send(streamed(text_to(&user.name, "one"))).await.expect("taken");
        within_patience("an answer", sends.next())
            .await
            .expect("one")
            .expect("goes on")
            .expect("stored");
        let web = Web::of(server.addr(), user);
        let mut events = web.events("from_now=true").await.expect("accepted");
        assert_eq!(events.next().await.expect("the first").name, "started");
        let authorization = format!("Bearer {}", user.token);
        let browser = Browser::http1(server.addr());
        let headers = [("authorization", &*authorization)];
        let request = subscribe_from_now();
        let mut grpc_web = browser.call("Subscribe", &headers, &request).await;
        grpc_web.next::<SubscribeResponse>().await.expect("the first");
        let statuses = vec![
            ("Subscribe", tokio::spawn(async { subscription.drain().await.1 })),
            (
                "SendMessages",
                tokio::spawn(async move {
                    loop {
                        match within_patience("the end", sends.next()).await {
                            Some(Ok(_)) => {}
                            Some(Err(status)) => return status,
                            None => return Status::new(Code::Ok, "ended by itself"),
                        }
                    }
                }),
            ),
            (
                "events",
                tokio::spawn(async move {
                    loop {
                        let event =
                            within_patience("an event", events.next()).await.expect("the error");
                        if event.name == "error" {
                            return status_of(&event.data);
                        }
                    }
                }),
            ),
            (
                "gRPC-Web",
                tokio::spawn(async move {
                    loop {
                        match within_patience("a frame", grpc_web.next::<SubscribeResponse>()).await
                        {
                            Ok(_) => {}
                            Err(status) => return status,
                        }
                    }
                }),
            ),
        ];
        Self { statuses, _requests: requests }
    }

    /// Each ends, for this reason.
    async fn end_with(self, reason: ErrorReason) {
        for (kind, status) in self.statuses {
            println!("{kind}");
            let status = within_patience("the end", status).await.expect("does not panic");
            refused(Err::<(), _>(status), reason);
        }
    }

    /// None has ended.
    fn go_on(&self) {
        for (kind, status) in &self.statuses {
            assert!(!status.is_finished(), "{kind} ended");
        }
    }
}

/// The problem at the end of a stream of events, as a status.
fn status_of(problem: &serde_json::Value) -> Status {
    use tonic_types::{ErrorDetails, StatusExt as _};
    let mut details = ErrorDetails::new();
    let metadata = problem["metadata"].as_object().expect("metadata");
    let metadata = metadata.iter().map(|(k, v)| (k.clone(), v.as_str().unwrap_or("").to_owned()));
    let reason = problem["reason"].as_str().expect("a reason");
    details.set_error_info(
        reason,
        "peerpost.v1",
        metadata.collect::<std::collections::HashMap<_, _>>(),
    );
    let code = match problem["status"].as_u64() {
        Some(401) => Code::Unauthenticated,
        Some(403) => Code::PermissionDenied,
        other => panic!("{other:?}"),
    };
    Status::with_error_details(code, problem["detail"].as_str().expect("a detail"), details)
}

fn ids(tokens: &[Token]) -> Vec<&str> {
    tokens.iter().map(|it| it.token_id.as_str()).collect()
}

#[tokio::test]
async fn a_user_has_several_tokens_which_are_listed_without_their_secrets() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let (laptop, listed) = alice.create_token(named("laptop")).await.expect("made");
    let (report, _) = alice.create_token(lasting(seconds(3_600))).await.expect("made");
    for user in [&alice, &laptop, &report] {
        user.send("alice", "a note").await;
    }
    let tokens = laptop.tokens().await.expect("listed");
    assert_eq!(
        tokens.iter().map(|it| it.display_name.as_str()).collect::<Vec<_>>(),
        ["", "laptop", ""]
    );
    assert_eq!(tokens.iter().map(|it| it.current).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(tokens[1].token_id, listed.token_id);
    assert!(tokens[0].expire_time.is_none() && tokens[2].expire_time.is_some());
    let shown = format!("{tokens:?}");
    for user in [&alice, &laptop, &report] {
        assert!(!shown.contains(&user.token[3..]), "a secret is listed");
    }
    // Page by page.
    let mut client = alice.client();
    let (mut paged, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = peerpost::proto::ListTokensRequest { page_size: 2, page_token };
        let page = client.list_tokens(alice.request(request)).await.expect("a page").into_inner();
        assert!(page.tokens.len() <= 2);
        paged.extend(page.tokens);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(ids(&paged), ids(&tokens));
    refused(Err::<(), _>(over_the_token_limit(&alice).await), ErrorReason::TokenLimit)
        .with("limit", "tokens_per_user")
        .with("value", 64);
}

#[tokio::test]
async fn a_revoked_tokens_calls_are_refused_and_its_streams_end_and_no_others() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let (lost, listed) = alice.create_token(named("lost")).await.expect("made");
    let (of_lost, of_alice) =
        (Streams::open(&server, &lost).await, Streams::open(&server, &alice).await);
    alice.revoke_token(&listed.token_id).await.expect("revoked");
    // At once, and not some time after.
    refused(lost.get_user("alice").await, ErrorReason::TokenUnknown);
    refused(lost.subscribe(subscribe_from_now()).await, ErrorReason::TokenUnknown);
    of_lost.end_with(ErrorReason::TokenUnknown).await;
    refused(alice.revoke_token(&listed.token_id).await, ErrorReason::TokenNotFound);
    alice.send("alice", "goes on").await;
    of_alice.go_on();
    // One's own, too.
    let own = alice.tokens().await.expect("listed")[0].token_id.clone();
    alice.revoke_token(&own).await.expect("revoked");
    of_alice.end_with(ErrorReason::TokenUnknown).await;
    refused(alice.revoke_token(&own).await, ErrorReason::TokenUnknown);
}

#[tokio::test]
async fn an_expired_tokens_calls_are_refused_and_its_streams_end() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let (brief, listed) = alice.create_token(lasting(seconds(2))).await.expect("made");
    let streams = Streams::open(&server, &brief).await;
    streams.end_with(ErrorReason::TokenExpired).await;
    refused(brief.get_user("alice").await, ErrorReason::TokenExpired);
    let tokens = alice.tokens().await.expect("listed");
    assert!(
        ids(&tokens).contains(&listed.token_id.as_str()),
        "it stays listed until it is revoked"
    );
    alice.revoke_token(&listed.token_id).await.expect("revoked");
    refused(brief.get_user("alice").await, ErrorReason::TokenUnknown);
    // It is none where none is needed.
    refused(expired(&alice).await.try_register("alice", "").await, ErrorReason::UsernameTaken);
}

#[tokio::test]
async fn a_deleted_user_is_gone_and_the_name_stays_taken() {
    let mut server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    alice.try_register("alice", "192.0.2.7").await.expect("updated");
    alice.send("bob", "from alice").await;
    // Their names are remembered as recipients.
    bob.send("alice", "to alice").await;
    let streams = Streams::open(&server, &alice).await;
    for other in ["", "bob"] {
        refused(alice.delete(other).await, ErrorReason::InvalidField).names("username");
    }
    alice.delete("ALICE").await.expect("deleted");
    streams.end_with(ErrorReason::TokenUnknown).await;
    for round in ["at once", "after a restart"] {
        println!("{round}");
        let (alice, bob) = (alice.at(server.addr()), bob.at(server.addr()));
        refused(alice.get_user("bob").await, ErrorReason::TokenUnknown);
        refused(alice.delete("alice").await, ErrorReason::TokenUnknown);
        refused(bob.get_user("alice").await, ErrorReason::UserNotFound);
        refused(bob.try_send(text_to("alice", "hello?")).await, ErrorReason::UserNotFound);
        let users = bob.list_users(list("", 0, "")).await.expect("listed").users;
        assert_eq!(users.iter().map(|it| it.username.as_str()).collect::<Vec<_>>(), ["bob"]);
        refused(register(&server, "Alice", "").await, ErrorReason::UsernameTaken);
        let mailbox = bob.mailbox().await;
        assert_eq!(mailbox.len(), 2, "what was sent stays");
        assert_eq!(mailbox[0].from_user, "alice");
        server.restart().await;
    }
    // The streams' ends note when she was last seen, after she was gone.
    server.stop().await;
    let rows =
        sqlite(server.data_dir(), "SELECT ip_address, last_seen_time_us FROM users WHERE id = 1");
    assert_eq!(rows, "|");
    let report = peerpost::store::check(server.data_dir()).expect("readable");
    assert_eq!(report.findings, []);
}

/// What the one row of this query holds, with `|` between.
fn sqlite(data_dir: &std::path::Path, query: &str) -> String {
    use diesel::prelude::*;
    use diesel::sql_types::{BigInt, Nullable, Text};
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Text)]
        ip_address: String,
        #[diesel(sql_type = Nullable<BigInt>)]
        last_seen_time_us: Option<i64>,
    }
    let path = crate::support::database_in(data_dir);
    let mut connection = SqliteConnection::establish(path.to_str().expect("UTF-8")).expect("opens");
    let row: Row = diesel::sql_query(query).get_result(&mut connection).expect("a row");
    format!(
        "{}|{}",
        row.ip_address,
        row.last_seen_time_us.map(|it| it.to_string()).unwrap_or_default()
    )
}

#[tokio::test]
async fn a_token_that_was_answered_survives_a_kill() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = ServerProcess::start(binary(), folder.path()).await;
    let alice = server.user("alice").await;
    let (laptop, _) = alice.create_token(named("laptop")).await.expect("made");
    let (lost, listed) = alice.create_token(named("lost")).await.expect("made");
    alice.revoke_token(&listed.token_id).await.expect("revoked");
    server.kill();
    let server = ServerProcess::start(binary(), folder.path()).await;
    laptop.at(server.addr()).send("alice", "still good").await;
    refused(lost.at(server.addr()).get_user("alice").await, ErrorReason::TokenUnknown);
    server.kill();
}

#[tokio::test]
async fn acts_are_noted_without_secrets() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let (laptop, listed) = alice.create_token(named("laptop")).await.expect("made");
    laptop.revoke_token(&listed.token_id).await.expect("revoked");
    refused(alice.revoke_token(&listed.token_id).await, ErrorReason::TokenNotFound);
    alice.delete("alice").await.expect("deleted");
    let log = audit(&server).await;
    let acts: Vec<_> =
        log.iter().map(|it| (it.actor.as_str(), it.act.as_str(), it.subject.as_str())).collect();
    assert_eq!(
        acts,
        [
            ("user:alice", "token.create", "alice"),
            ("user:alice", "token.revoke", "alice"),
            ("user:alice", "user.delete", "alice"),
        ]
    );
    assert!(
        log[0].details.contains(&listed.token_id) && log[0].details.contains("laptop"),
        "{log:?}"
    );
    let shown = format!("{log:?}");
    assert!(!shown.contains(&alice.token[3..]) && !shown.contains(&laptop.token[3..]));
}

#[tokio::test]
async fn the_rust_client_makes_lists_and_revokes_tokens_and_deletes() {
    let server = TestServer::start().await;
    let alice = server.client("alice").await;
    let (info, secret) =
        alice.create_token("laptop", Some(std::time::Duration::from_mins(1))).await.expect("made");
    assert!(info.expire_time.is_some_and(|time| time > info.create_time));
    let laptop = Client::connect(&server.uri()).expect("a server").with_token(&secret);
    let tokens = laptop.tokens().await.expect("listed");
    assert_eq!((tokens.len(), tokens[1].current, &tokens[1].display_name[..]), (2, true, "laptop"));
    alice.revoke_token(&info.token_id).await.expect("revoked");
    let error = laptop.tokens().await.expect_err("refused");
    assert_eq!(error.reason(), Some(ErrorReason::TokenUnknown));
    alice.delete_user("alice").await.expect("deleted");
    eventually("nobody", async || alice.user("alice").await.err()).await;
}
