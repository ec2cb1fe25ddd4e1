//! Who calls: every call but `Register` needs a token, and a token is kept as a hash alone.

use peerpost::domain::Token;
use peerpost::proto::{
    AcknowledgeRequest, ErrorReason, GetMessagesRequest, GetUserRequest, ListUsersRequest,
    SubscribeRequest,
};
use peerpost::testing::{
    ServerProcess, TestServer, TestUser, data_to, refused, streamed, text_to, within_patience,
};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Request, Status};

use crate::support::binary;

type Authorization = MetadataValue<Ascii>;

#[tokio::test]
async fn every_call_but_register_needs_a_token() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    assert_all_refused(&alice, None, ErrorReason::TokenMissing).await;
}

#[tokio::test]
async fn what_is_not_bearer_and_a_token_is_malformed() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let token = alice.token.as_str();
    let texts = [
        String::new(),
        "Bearer".into(),
        "Bearer ".into(),
        token.into(),
        format!("Basic {token}"),
        format!("Bearer{token}"),
        format!("Bearer {}", &token[3..]),
        format!("Bearer {}", &token[..token.len() - 1]),
        format!("Bearer {token}A"),
        format!("Bearer {token} {token}"),
        format!("Bearer PP_{}", &token[3..]),
        format!("Bearer pp_{}", "*".repeat(43)),
        format!("Bearer {}", "x".repeat(5_000)),
    ];
    for text in texts {
        let authorization = text.parse().expect("metadata");
        assert_all_refused(&alice, Some(authorization), ErrorReason::TokenMalformed).await;
    }
    let bytes = Authorization::try_from(&b"Bearer pp_\xff\xfe"[..]).expect("metadata");
    assert_all_refused(&alice, Some(bytes), ErrorReason::TokenMalformed).await;
}

#[tokio::test]
async fn a_token_that_was_never_given_out_is_unknown() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let stranger = Token::mint().reveal();
    let authorization = format!("Bearer {stranger}").parse().expect("metadata");
    assert_all_refused(&alice, Some(authorization), ErrorReason::TokenUnknown).await;
}

#[tokio::test]
async fn a_token_of_another_server_is_unknown() {
    let (here, there) = (TestServer::start().await, TestServer::start().await);
    let (alice, stranger) = (here.user("alice").await, there.user("alice").await);
    let authorization = format!("Bearer {}", stranger.token).parse().expect("metadata");
    assert_all_refused(&alice, Some(authorization), ErrorReason::TokenUnknown).await;
}

#[tokio::test]
async fn a_message_carries_the_name_of_whoever_sent_it() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let mallory = server.user("mallory").await;
    for (user, name) in [(&alice, "alice"), (&mallory, "mallory")] {
        assert_eq!(user.send("bob", "it is me").await.from_user, name);
        assert_eq!(bob.mailbox().await.pop().expect("an entry").from_user, name);
    }
}

#[tokio::test]
async fn neither_the_folder_nor_the_log_holds_a_token_and_the_log_no_body() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let server = ServerProcess::start(binary(), &data_dir).await;
    let alice = server.user("alice").await;
    let body = "a body that nobody else should see";
    alice.send("alice", body).await;
    refused(alice.try_send(text_to("nobody", body)).await, ErrorReason::UserNotFound);
    refused(alice.try_send(data_to("alice", "")).await, ErrorReason::InvalidField);
    refused(alice.try_register("alice", "nowhere").await, ErrorReason::InvalidField);
    alice.mailbox().await;
    server.terminate();
    let exit = server.exit().await;

    assert!(!exit.stderr.contains(body), "{}", exit.stderr);
    assert!(!exit.stderr.contains(&alice.token[3..]), "{}", exit.stderr);
    for file in std::fs::read_dir(&data_dir).expect("the folder can be read") {
        let path = file.expect("the folder can be read").path();
        let bytes = std::fs::read(&path).expect("the file can be read");
        let token = &alice.token.as_bytes()[3..];
        assert!(!bytes.windows(token.len()).any(|at| at == token), "{}", path.display());
    }
}

async fn assert_all_refused(
    user: &TestUser,
    authorization: Option<Authorization>,
    reason: ErrorReason,
) {
    for (rpc, result) in call_everything(user, authorization.as_ref()).await {
        println!("{rpc} with {authorization:?}");
        refused(result, reason);
    }
}

/// Calls every RPC that needs a token.
async fn call_everything(
    user: &TestUser,
    authorization: Option<&Authorization>,
) -> Vec<(&'static str, Result<(), Status>)> {
    let mut client = user.client();
    let calls = async {
        let send = with(authorization, text_to("alice", "x"));
        let stream = tokio_stream::iter([streamed(text_to("alice", "x"))]);
        let follow = with(authorization, SubscribeRequest::default());
        vec![
            ("SendMessage", client.send_message(send).await.map(drop)),
            ("SendMessages", first(client.send_messages(with(authorization, stream)).await).await),
            (
                "GetMessages",
                client
                    .get_messages(with(authorization, GetMessagesRequest::default()))
                    .await
                    .map(drop),
            ),
            ("Subscribe", first(client.subscribe(follow).await).await),
            (
                "Acknowledge",
                client
                    .acknowledge(with(authorization, AcknowledgeRequest::default()))
                    .await
                    .map(drop),
            ),
            (
                "GetUser",
                client.get_user(with(authorization, GetUserRequest::default())).await.map(drop),
            ),
            (
                "ListUsers",
                client.list_users(with(authorization, ListUsersRequest::default())).await.map(drop),
            ),
        ]
    };
    within_patience("the calls", calls).await
}

fn with<T>(authorization: Option<&Authorization>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(value) = authorization {
        request.metadata_mut().insert("authorization", value.clone());
    }
    request
}

/// What a stream begins with.
async fn first<T>(
    answer: Result<tonic::Response<tonic::Streaming<T>>, Status>,
) -> Result<(), Status> {
    answer?.into_inner().message().await.map(drop)
}
