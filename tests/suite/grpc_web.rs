//! gRPC-Web, as browsers speak it: over HTTP/1.1 and HTTP/2, binary and as text.

use http::{Method, StatusCode};
use peerpost::proto::{
    ErrorReason, GetMessagesRequest, GetMessagesResponse, GetUserRequest, GetUserResponse,
    RegisterRequest, RegisterResponse, SendMessageResponse, SendMessagesRequest,
    SendMessagesResponse, SubscribeResponse, send_messages_response,
};
use peerpost::testing::{Event, TestServer, TestUser, refused, streamed, text_to};
use prost::Message as _;
use tonic::{Code, Status};

use crate::support::{subscribe_after, texts};
use crate::web::{Browser, WebAnswer};

const SEND: &str = "/peerpost.v1.MessagingService/SendMessage";

fn bearer(user: &TestUser) -> String {
    format!("Bearer {}", user.token)
}

async fn next_event(answer: &mut WebAnswer) -> Result<Event, Status> {
    Ok(answer.next::<SubscribeResponse>().await?.event.expect("an event"))
}

#[tokio::test]
async fn a_call_is_answered_as_over_grpc() {
    let server = TestServer::start().await;
    for (number, (what, browser)) in Browser::all(server.addr()).into_iter().enumerate() {
        println!("{what}");
        let username = format!("user-{number}");
        let request = RegisterRequest { username: username.clone(), ..Default::default() };
        let answer = browser.unary::<RegisterResponse>("Register", &[], &request).await;
        let RegisterResponse { user, token } = answer.expect("registered");
        let user = user.expect("an answer always holds the user");
        assert_eq!((user.username, user.ip_address), (username.clone(), "127.0.0.1".to_owned()));
        let headers = [("authorization", &*format!("Bearer {token}"))];
        // Of every length that base64 pads, and one of many frames.
        for length in [1, 2, 3, 60_000] {
            let text = "x".repeat(length);
            let request = text_to(&username, text.clone());
            let sent =
                browser.unary::<SendMessageResponse>("SendMessage", &headers, &request).await;
            let sent = sent.expect("accepted").message.expect("an answer always holds the message");
            assert_eq!(texts(&[sent]), [text]);
        }
        let request = GetMessagesRequest::default();
        let page = browser.unary::<GetMessagesResponse>("GetMessages", &headers, &request).await;
        assert_eq!(page.expect("a page").last_sequence, 4);
    }
}

#[tokio::test]
async fn a_subscription_delivers_what_comes_while_it_is_open() {
    let mut server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    alice.send("bob", "before").await;
    let authorization = bearer(&bob);
    let headers = [("authorization", &*authorization)];
    let mut open = Vec::new();
    for (what, browser) in Browser::all(server.addr()) {
        let mut answer = browser.call("Subscribe", &headers, &subscribe_after(0)).await;
        assert!(matches!(next_event(&mut answer).await, Ok(Event::Started(_))), "{what}");
        let Ok(Event::Message(message)) = next_event(&mut answer).await else { panic!("{what}") };
        assert_eq!(texts(&[message]), ["before"]);
        assert!(matches!(next_event(&mut answer).await, Ok(Event::CaughtUp(_))), "{what}");
        open.push((what, answer));
    }
    for live in ["one", "two"] {
        alice.send("bob", live).await;
        for (what, answer) in &mut open {
            let Ok(Event::Message(message)) = next_event(answer).await else { panic!("{what}") };
            assert_eq!(texts(&[message]), [live], "{what}");
        }
    }
    server.begin_stop();
    for (what, answer) in &mut open {
        println!("{what}");
        refused(next_event(answer).await, ErrorReason::ShuttingDown);
    }
    server.stop().await;
}

#[tokio::test]
async fn errors_carry_their_details() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let authorization = bearer(&alice);
    let headers = [("authorization", &*authorization)];
    for (what, browser) in Browser::all(server.addr()) {
        println!("{what}");
        let request = GetUserRequest { username: "nobody".into() };
        // Without a message the status stands in the head.
        let refusal = browser.unary::<GetUserResponse>("GetUser", &headers, &request).await;
        refused(refusal, ErrorReason::UserNotFound).with("username", "nobody");
        let refusal = browser.unary::<GetUserResponse>("GetUser", &[], &request).await;
        refused(refusal, ErrorReason::TokenMissing);
        let refusal = browser.unary::<GetUserResponse>("Nothing", &headers, &request).await;
        assert_eq!(refusal.expect_err("refused").code(), Code::Unimplemented);
        // After one, in the trailers.
        let request: SendMessagesRequest = streamed(text_to("nobody", "x"));
        let mut answer = browser.call("SendMessages", &headers, &request).await;
        let response =
            answer.next::<SendMessagesResponse>().await.expect("an answer to the request");
        assert!(matches!(response.result, Some(send_messages_response::Result::Error(_))));
        let status = answer.next::<SendMessagesResponse>().await.expect_err("the end");
        assert_eq!(status.code(), Code::Ok);
    }
}

#[tokio::test]
async fn what_is_not_grpc_web_is_refused_and_the_connection_goes_on() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let authorization = bearer(&alice);
    for browser in [Browser::http1(server.addr()), Browser::http2(server.addr())] {
        let send = async |content_type: &str, body: &'static [u8]| {
            let headers = [("content-type", content_type), ("authorization", &authorization)];
            let answer = browser.fetch(Method::POST, SEND, &headers, body).await;
            (answer.status(), Status::from_header_map(answer.headers()))
        };
        for body in ["AAA", "AAAA!AAA", "AAAAAAE", "====", "\u{fffd}\u{fffd}"] {
            let (status, refusal) = send("application/grpc-web-text", body.as_bytes()).await;
            assert_eq!(status, StatusCode::OK);
            let refusal = Err::<(), _>(refusal.expect("a status"));
            refused(refusal, ErrorReason::InvalidField).names("request");
        }
        for body in [&b""[..], b"\0", b"\0\0\0\0\x09\x0a\x05alice", b"\0\xff\xff\xff\xff"] {
            let (status, refusal) = send("application/grpc-web", body).await;
            assert_eq!(status, StatusCode::OK);
            assert_ne!(refusal.expect("a status").code(), Code::Ok);
        }
        let headers = [("content-type", "application/grpc-web")];
        let get = browser.fetch(Method::GET, SEND, &headers, "").await;
        assert_eq!(get.status(), StatusCode::METHOD_NOT_ALLOWED);
        let (status, refusal) = send("application/grpc-webs", b"").await;
        assert_eq!((status, refusal.is_none()), (StatusCode::NOT_FOUND, true));
    }
    // Its trailers have no place in HTTP/1.1.
    let headers = [("content-type", "application/grpc")];
    let grpc = Browser::http1(server.addr()).fetch(Method::POST, SEND, &headers, "").await;
    assert_eq!(grpc.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(alice.mailbox().await, []);
}

#[tokio::test]
async fn the_answer_is_in_the_coding_that_the_request_accepts() {
    let server = TestServer::start().await;
    let request = RegisterRequest { username: "alice".into(), ..Default::default() };
    let body = crate::raw::frame(&request.encode_to_vec());
    let (content_type, text) = ("application/grpc-web+proto", "application/grpc-web-text+proto");
    for (accept, expected) in [("*/*", content_type), (text, text), (content_type, content_type)] {
        let headers = [("content-type", content_type), ("accept", accept)];
        let path = "/peerpost.v1.MessagingService/Register";
        let browser = Browser::http1(server.addr());
        let answer = browser.fetch(Method::POST, path, &headers, body.clone()).await;
        assert_eq!(answer.headers()["content-type"], expected, "{accept}");
    }
}
