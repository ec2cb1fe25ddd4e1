//! The metadata `peerpost-user`: all there is of an identity on an open server, and an assertion beside
//! the token on every other.

use std::net::SocketAddr;

use http::{Method, StatusCode};
use peerpost::domain::Token;
use peerpost::proto::messaging_service_client::MessagingServiceClient;
use peerpost::proto::{
    ErrorReason, GetMessagesResponse, GetUserRequest, GetUserResponse, RegisterRequest,
    RegisterResponse, SendMessageResponse, SubscribeResponse, subscribe_response,
};
use peerpost::server::StartError;
use peerpost::testing::{ServerProcess, TestServer, TestUser, after, eventually, refused, text_to};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::cli_support::Machine;
use crate::contract::rpcs;
use crate::hostile_rows::good_request;
use crate::support::{binary, sequences, subscribe_after, texts};
use crate::web::Browser;

const USER: &str = "peerpost-user";

async fn open_server() -> TestServer {
    TestServer::start_with(|options| options.open = true).await
}

fn channel(server: &TestServer) -> Channel {
    Endpoint::from_shared(server.uri()).expect("a URI").connect_lazy()
}

fn value(text: &str) -> MetadataValue<Ascii> {
    MetadataValue::try_from(text.as_bytes()).expect("metadata")
}

/// A request that says whose it is, and has no token.
fn of<T>(name: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(USER, value(name));
    request
}

fn bearer(user: &TestUser) -> MetadataValue<Ascii> {
    value(&format!("Bearer {}", user.token))
}

async fn register(
    client: &mut MessagingServiceClient<Channel>,
    name: &str,
    ip_address: &str,
) -> Result<RegisterResponse, Status> {
    let request = RegisterRequest {
        username: name.into(),
        ip_address: ip_address.into(),
        ..Default::default()
    };
    client.register(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn on_an_open_server_a_name_is_enough() {
    let server = open_server().await;
    let mut client = MessagingServiceClient::new(channel(&server));
    for name in ["Alice", "Bob"] {
        register(&mut client, name, "").await.expect("registered");
    }
    // In any case, and shown as registered.
    let sent = client.send_message(of("alice", text_to("Bob", "hi"))).await.expect("accepted");
    let message = sent.into_inner().message.expect("an answer always holds the message");
    assert_eq!(message.from_user, "Alice");
    let page = client.get_messages(of("BOB", after(0))).await.expect("a page").into_inner();
    assert_eq!(texts(&page.messages), ["hi"]);
    let mut following = client.subscribe(of("Bob", subscribe_after(0))).await.expect("a stream");
    let mut sequences_seen = Vec::new();
    while sequences_seen.is_empty() {
        use subscribe_response::Event;
        let event = following.get_mut().message().await.expect("it goes on").expect("an event");
        if let SubscribeResponse { event: Some(Event::Message(message)) } = event {
            sequences_seen = sequences(&[message]);
        }
    }
    assert_eq!(sequences_seen, [1]);
    for (what, browser) in Browser::all(server.addr()) {
        let headers = [(USER, "alice")];
        let request = text_to("bob", what);
        let sent = browser.unary::<SendMessageResponse>("SendMessage", &headers, &request).await;
        assert_eq!(sent.expect("accepted").message.expect("a message").from_user, "Alice");
    }
}

#[tokio::test]
async fn the_same_holds_after_a_restart_when_nobody_is_remembered() {
    let mut server = open_server().await;
    server.user("alice").await;
    server.restart().await;
    let mut client = MessagingServiceClient::new(channel(&server));
    client.send_message(of("alice", text_to("alice", "hi"))).await.expect("accepted");
    let unknown = client.get_messages(of("bob", after(0))).await;
    refused(unknown, ErrorReason::UserNotFound);
}

#[tokio::test]
async fn on_an_open_server_every_call_says_whose_it_is() {
    let server = open_server().await;
    let alice = server.user("alice").await;
    let bob = server.user("bob").await;
    let channel = channel(&server);
    for rpc in rpcs().iter().filter(|rpc| rpc.name != "Register") {
        println!("{}", rpc.name);
        let request = || rpc.encode(&good_request(&rpc.name));
        let call = async |metadata: &[(&'static str, MetadataValue<Ascii>)]| {
            rpc.call_with(&channel, metadata, request()).await
        };
        let nobody = call(&[]).await;
        assert!(nobody.as_ref().is_err_and(|status| status.message().contains(USER)), "{nobody:?}");
        refused(nobody, ErrorReason::TokenMissing);
        refused(call(&[(USER, value("carol"))]).await, ErrorReason::UserNotFound)
            .with("username", "carol")
            .with("field", USER);
        for malformed in ["", "a b", "-a", "caf\u{e9}", &"x".repeat(65)] {
            let malformed = MetadataValue::try_from(malformed.as_bytes()).expect("metadata");
            refused(call(&[(USER, malformed)]).await, ErrorReason::InvalidField).names(USER);
        }
        // A token still says who calls, and one that is no good is not replaced by a name.
        if rpc.spares_its_caller() {
            rpc.let_in(call(&[("authorization", bearer(&alice))]).await);
            rpc.let_in(call(&[("authorization", bearer(&alice)), (USER, value("ALICE"))]).await);
        }
        let another = call(&[("authorization", bearer(&bob)), (USER, value("alice"))]).await;
        refused(another, ErrorReason::UserMismatch).with("username", "alice");
        let stranger = value(&format!("Bearer {}", Token::mint().reveal()));
        let stranger = call(&[("authorization", stranger), (USER, value("alice"))]).await;
        refused(stranger, ErrorReason::TokenUnknown);
        let malformed = call(&[("authorization", value("x")), (USER, value("alice"))]).await;
        refused(malformed, ErrorReason::TokenMalformed);
        if rpc.spares_its_caller() {
            rpc.let_in(call(&[(USER, value("alice"))]).await);
        }
    }
    let sent = alice.mailbox().await;
    assert!(sent.iter().all(|message| message.from_user == "alice"), "{sent:?}");
}

#[tokio::test]
async fn on_an_open_server_registering_again_updates_the_address() {
    let server = open_server().await;
    let bob = server.user("bob").await;
    let mut client = MessagingServiceClient::new(channel(&server));
    let first = register(&mut client, "Alice", "192.0.2.1").await.expect("registered");
    assert!(!first.token.is_empty());
    let again = register(&mut client, "alice", "192.0.2.2").await.expect("updated");
    let (first, user) = (first.user.expect("a user"), again.user.expect("a user"));
    assert_eq!(again.token, "", "the first one stays");
    assert_eq!((user.username.as_str(), user.ip_address.as_str()), ("Alice", "192.0.2.2"));
    assert_eq!(user.register_time, first.register_time);
    // Whoever carries a token is its user, here too.
    refused(bob.try_register("alice", "192.0.2.3").await, ErrorReason::UsernameTaken);
    // The name of a caller says nothing of whom they register.
    let request = RegisterRequest {
        username: "alice".into(),
        ip_address: "192.0.2.4".into(),
        ..Default::default()
    };
    client.register(of("bob", request)).await.expect("updated");
    let shown = bob.get_user("alice").await.expect("registered");
    assert_eq!(shown.ip_address, "192.0.2.4");
}

#[tokio::test]
async fn many_who_register_one_name_at_once_all_get_it_on_an_open_server() {
    let server = open_server().await;
    let client = MessagingServiceClient::new(channel(&server));
    let mut registering = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let mut client = client.clone();
        registering.spawn(async move { register(&mut client, "alice", "").await });
    }
    let answers = registering.join_all().await;
    let tokens = answers.into_iter().filter(|it| !it.as_ref().expect("OK").token.is_empty());
    assert_eq!(tokens.count(), 1);
}

#[tokio::test]
async fn without_open_a_name_gives_nobody_anothers_mailbox() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    server.user("bob").await;
    let mallory = server.user("mallory").await;
    alice.send("bob", "a secret").await;
    let channel = channel(&server);
    let before = (alice.mailbox().await, mallory.mailbox().await);
    for rpc in rpcs() {
        println!("{}", rpc.name);
        let call = async |metadata: &[(&'static str, MetadataValue<Ascii>)]| {
            rpc.call_with(&channel, metadata, rpc.encode(&good_request(&rpc.name))).await
        };
        let token = || ("authorization", bearer(&mallory));
        let is_register = rpc.name == "Register";
        let alone = call(&[(USER, value("alice"))]).await;
        let reason =
            if is_register { ErrorReason::UsernameTaken } else { ErrorReason::TokenMissing };
        refused(alone, reason);
        for name in ["alice", "nobody"] {
            let another = call(&[token(), (USER, value(name))]).await;
            refused(another, ErrorReason::UserMismatch).with("username", name);
        }
        refused(call(&[token(), (USER, value("a b"))]).await, ErrorReason::InvalidField)
            .names(USER);
    }
    assert_eq!((alice.mailbox().await, mallory.mailbox().await), before);
    // Their own name changes nothing.
    for rpc in rpcs().iter().filter(|rpc| rpc.name != "Register" && rpc.spares_its_caller()) {
        let metadata = [("authorization", bearer(&mallory)), (USER, value("Mallory"))];
        let request = rpc.encode(&good_request(&rpc.name));
        rpc.let_in(rpc.call_with(&channel, &metadata, request).await);
    }
    // Nor is the assertion weaker before the token is remembered.
    let mut server = server;
    server.restart().await;
    let mut client = MessagingServiceClient::new(self::channel(&server));
    let mut request = of("alice", after(0));
    request.metadata_mut().insert("authorization", bearer(&mallory));
    refused(client.get_messages(request).await, ErrorReason::UserMismatch);
}

/// As a page of somebody else's makes its visitor's browser send it.
async fn post(browser: &Browser, headers: &[(&str, &str)]) -> Result<GetUserResponse, StatusCode> {
    let path = "/peerpost.v1.MessagingService/GetUser";
    let content_type = [("content-type", "application/grpc-web"), (USER, "alice")];
    let headers = [headers, &content_type].concat();
    let request = GetUserRequest { username: "alice".into() };
    let body = crate::raw::frame(&prost::Message::encode_to_vec(&request));
    let answer = browser.fetch(Method::POST, path, &headers, body).await;
    match answer.status() {
        StatusCode::OK => Ok(GetUserResponse::default()),
        refused => Err(refused),
    }
}

#[tokio::test]
async fn an_open_server_refuses_pages_of_others() {
    let allowed = "https://chat.example.org";
    let server = TestServer::start_with(|options| {
        options.open = true;
        options.allow_origins = vec![allowed.parse().expect("an origin")];
    })
    .await;
    server.user("alice").await;
    let port = server.addr().port();
    for browser in [Browser::http1(server.addr()), Browser::http1(server.addr()).as_text()] {
        let own = server.uri();
        for origin in [allowed, &own] {
            post(&browser, &[("origin", origin)]).await.expect("let in");
        }
        for origin in ["https://evil.example.org", "null", "http://localhost:1", "http://127.0.0.1"]
        {
            let refused = post(&browser, &[("origin", origin)]).await;
            assert_eq!(refused, Err(StatusCode::FORBIDDEN), "{origin}");
            // Whatever the request is: a form needs no leave.
            let headers = [("origin", origin), ("content-type", "text/plain")];
            let form = browser.fetch(Method::POST, "/send_message", &headers, "{}").await;
            assert_eq!(form.status(), StatusCode::FORBIDDEN, "{origin}");
        }
        // A name that was made to lead here: the page is of the server's own origin to its browser.
        let rebound = format!("evil.example.org:{port}");
        let origin = format!("http://{rebound}");
        let refused = post(&browser, &[("host", &rebound), ("origin", &origin)]).await;
        assert_eq!(refused, Err(StatusCode::FORBIDDEN));
        assert_eq!(post(&browser, &[("host", &rebound)]).await, Err(StatusCode::FORBIDDEN));
        for host in ["localhost", "[::1]", "127.0.0.1", "peerpost.localhost"] {
            let host = format!("{host}:{port}");
            let origin = format!("http://{host}");
            post(&browser, &[("host", &host), ("origin", &origin)]).await.expect("let in");
        }
    }
    // HTTP/2 has the name elsewhere.
    let http2 = Browser::http2(server.addr());
    post(&http2, &[]).await.expect("let in");
    let refused = post(&http2, &[("origin", "https://evil.example.org")]).await;
    assert_eq!(refused, Err(StatusCode::FORBIDDEN));
}

#[tokio::test]
async fn an_open_server_listens_beyond_its_machine_only_when_told_twice() {
    let everywhere = || vec![SocketAddr::from(([0, 0, 0, 0], 0)).into()];
    let refused = TestServer::try_start_with(|options| {
        (options.open, options.listen) = (true, everywhere());
    })
    .await;
    assert!(matches!(refused, Err(StartError::OpenBeyondLoopback(_))), "{refused:?}");
    let server = TestServer::start_with(|options| {
        (options.open, options.listen) = (true, everywhere());
        options.plaintext_beyond_loopback = true;
        options.open_beyond_loopback = true;
    })
    .await;
    let addr = ([127, 0, 0, 1], server.addr().port()).into();
    TestUser::register(addr, "alice").await;
    let browser = Browser::http1(addr);
    post(&browser, &[("host", "peerpost.example.org")]).await.expect("let in");
    let refused = post(&browser, &[("origin", "https://evil.example.org")]).await;
    assert_eq!(refused, Err(StatusCode::FORBIDDEN));
}

#[tokio::test]
async fn the_command_refuses_and_warns() {
    let machine = Machine::new("http://127.0.0.1:1");
    let beyond = machine.run(&["serve", "--open", "--listen", "0.0.0.0:0"]).await;
    assert_ne!(beyond.code, Some(0));
    assert!(beyond.stderr.contains("--open-beyond-loopback"), "{}", beyond.stderr);
    let alone = machine.run(&["serve", "--open-beyond-loopback"]).await;
    assert_eq!(alone.code, Some(2), "{}", alone.stderr);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let server = ServerProcess::start_with(&[], binary(), &data_dir, &["--open"]).await;
    eventually("the warning", async || {
        let stderr = server.stderr();
        (stderr.contains("WARN") && stderr.contains("OPEN")).then_some(())
    })
    .await;
    let endpoint = Endpoint::from_shared(format!("http://{}", server.addr())).expect("a URI");
    let mut client = MessagingServiceClient::new(endpoint.connect_lazy());
    register(&mut client, "alice", "").await.expect("registered");
    let page: GetMessagesResponse =
        client.get_messages(of("alice", after(0))).await.expect("a page").into_inner();
    assert_eq!(page.last_sequence, 0);
    let nobody = client.get_messages(after(0)).await.expect_err("refused");
    assert_eq!(nobody.code(), Code::Unauthenticated);
}
