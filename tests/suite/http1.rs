//! HTTP/1.1 on the server's port, written by hand: one request after the other, many at once, too much,
//! too slow, never to the end; and what a stop makes of it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use peerpost::proto::ErrorReason;
use peerpost::testing::{Refusal, TestServer, TestUser, text_to, within_patience};
use prost::Message as _;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tonic::{Code, Status};

use crate::raw;
use crate::support::{subscribe_after, texts};
use crate::web::fields;

/// A drain deadline that no server reaches whose clients do not hold it, and what such a server may
/// take on a busy machine.
const FAR_DEADLINE: Duration = Duration::from_mins(1);
const LONG_BEFORE_IT: Duration = Duration::from_secs(15);

/// A connection on which HTTP/1.1 is spoken.
struct Line(BufReader<TcpStream>);

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Line {
    async fn connect(addr: SocketAddr) -> Self {
        Self(BufReader::new(TcpStream::connect(addr).await.expect("connects")))
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.expect("taken");
    }

    /// The next line, without its end; `None` when the server has hung up.
    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = within_patience("a line", self.0.read_line(&mut line)).await;
        read.is_ok_and(|bytes| bytes > 0).then(|| line.trim_end().to_owned())
    }

    /// The head of the next answer; `None` when the server has hung up.
    async fn head(&mut self) -> Option<(u16, String)> {
        let first = self.line().await?;
        let status = first.strip_prefix("HTTP/1.1 ").expect("an answer")[..3].parse();
        let mut head = String::new();
        loop {
            let line = self.line().await.expect("the head is whole");
            if line.is_empty() {
                return Some((status.expect("a number"), head));
            }
            head += &(line + "\n");
        }
    }

    /// The next piece of a body that comes in pieces; the last one is empty.
    async fn piece(&mut self) -> Vec<u8> {
        let size = self.line().await.expect("the body goes on");
        let mut piece = vec![0; usize::from_str_radix(&size, 16).expect("a size") + 2];
        let read = within_patience("a piece", self.0.read_exact(&mut piece)).await;
        read.expect("the piece is whole");
        piece.truncate(piece.len() - 2);
        piece
    }

    /// The next answer; `None` when the server has hung up.
    async fn answer(&mut self) -> Option<Answer> {
        let (status, head) = self.head().await?;
        let mut body = Vec::new();
        if let Some((_, rest)) = head.split_once("content-length: ") {
            let length = rest.lines().next().expect("a line").parse().expect("a number");
            body.resize(length, 0);
            let read = within_patience("a body", self.0.read_exact(&mut body)).await;
            read.expect("the body is whole");
        } else {
            loop {
                let piece = self.piece().await;
                if piece.is_empty() {
                    break;
                }
                body.extend(piece);
            }
        }
        Some(Answer { status, head, body })
    }
}

/// A call of gRPC-Web, whole or without what `body` lacks.
fn call(method: &str, user: &TestUser, fields: &str, length: usize, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /peerpost.v1.MessagingService/{method} HTTP/1.1\r\nhost: localhost\r\n\
         content-type: application/grpc-web\r\nauthorization: Bearer {}\r\n{fields}\
         content-length: {length}\r\n\r\n",
        user.token
    );
    [head.as_bytes(), body].concat()
}

fn send(user: &TestUser, text: &str) -> Vec<u8> {
    let body = raw::frame(&text_to(&user.name, text).encode_to_vec());
    call("SendMessage", user, "", body.len(), &body)
}

/// What stands in a head or among trailers.
fn status(lines: &str) -> Status {
    Status::from_header_map(&fields(lines)).expect("a status")
}

#[tokio::test]
async fn a_connection_is_kept_for_the_next_request() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let mut line = Line::connect(server.addr()).await;
    for text in ["one", "two", "three"] {
        line.send(send(&alice, text)).await;
        let answer = line.answer().await.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.head);
        assert!(answer.body.ends_with(b"grpc-status: 0\r\n"));
    }
    line.send("GET /nothing HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
    let answer = line.answer().await.expect("an answer");
    assert_eq!(answer.status, 404);
    assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
    assert!(answer.body.starts_with(b"{\"error\": \""));
    assert!(line.answer().await.is_none(), "closed, as it was asked");
    assert_eq!(texts(&alice.mailbox().await), ["one", "two", "three"]);
}

#[tokio::test]
async fn requests_that_come_at_once_are_answered_in_order() {
    const COUNT: usize = 200;
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let mut line = Line::connect(server.addr()).await;
    let sent: Vec<_> = (0..COUNT).map(|i| format!("message {i}")).collect();
    line.send(sent.iter().flat_map(|text| send(&alice, text)).collect::<Vec<_>>()).await;
    for text in &sent {
        let answer = line.answer().await.expect("an answer");
        let holds = answer.body.windows(text.len()).any(|bytes| bytes == text.as_bytes());
        assert!(answer.status == 200 && holds, "{text}: {}", answer.head);
    }
    assert_eq!(texts(&alice.mailbox().await), sent);
}

#[tokio::test]
async fn a_request_comes_byte_by_byte_or_in_pieces_of_its_own() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let mut line = Line::connect(server.addr()).await;
    for byte in send(&alice, "slowly") {
        line.send([byte]).await;
    }
    assert_eq!(line.answer().await.expect("an answer").status, 200);
    let body = raw::frame(&text_to("alice", "in pieces").encode_to_vec());
    let whole = call("SendMessage", &alice, "", 0, b"");
    let head = String::from_utf8(whole).expect("it is text");
    line.send(head.replace("content-length: 0", "transfer-encoding: chunked")).await;
    for byte in &body {
        line.send([b"1\r\n", &[*byte][..], b"\r\n"].concat()).await;
    }
    line.send("0\r\n\r\n").await;
    assert_eq!(line.answer().await.expect("an answer").status, 200);
    assert_eq!(texts(&alice.mailbox().await), ["slowly", "in pieces"]);
}

#[tokio::test]
async fn a_head_over_its_limits_is_refused() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let begin = "GET / HTTP/1.1\r\nhost: localhost\r\n";
    let heads = [
        format!("{begin}x: {}\r\n\r\n", "y".repeat(40_000)),
        format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "y".repeat(40_000)),
        format!("{begin}{}\r\n", "x: y\r\n".repeat(100)),
    ];
    for head in heads {
        let mut line = Line::connect(server.addr()).await;
        // The server may hang up before it has all of it.
        let _ = line.0.write_all(head.as_bytes()).await;
        let answer = line.answer().await.expect("an answer");
        assert!([414, 431].contains(&answer.status), "{}", answer.status);
        assert!(line.answer().await.is_none(), "hung up");
    }
    // What is none at all.
    for noise in
        ["\r\n\r\n\0\0", "GET\r\n\r\n", "GET / HTTP/1.1\r\n: x\r\n\r\n", "PRI * HTTP/1\r\n\r\n"]
    {
        let mut line = Line::connect(server.addr()).await;
        line.send(noise).await;
        line.0.shutdown().await.expect("half closed");
        assert!(line.answer().await.is_none_or(|answer| answer.status == 400), "{noise:?}");
    }
    alice.send("alice", "still served").await;
}

/// Both wait for the same deadline.
#[tokio::test]
async fn who_stops_in_the_middle_of_a_head_or_stays_idle_is_cut() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let whole = send(&alice, "one");
    let mut half = Line::connect(server.addr()).await;
    half.send(&whole[..70]).await;
    let mut idle = Line::connect(server.addr()).await;
    idle.send(&whole).await;
    assert_eq!(idle.answer().await.expect("an answer").status, 200);
    let (half, idle) = tokio::join!(half.answer(), idle.answer());
    assert!(idle.is_none());
    assert!(half.is_none_or(|answer| answer.status == 408));
}

#[tokio::test]
async fn half_a_body_is_waited_for_until_the_calls_deadline() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let mut line = Line::connect(server.addr()).await;
    let deadline = "grpc-timeout: 200m\r\n";
    line.send(call("SendMessage", &alice, deadline, 50, b"\0\0\0")).await;
    let answer = line.answer().await.expect("an answer");
    assert_eq!(status(&answer.head).code(), Code::DeadlineExceeded);
    assert!(line.answer().await.is_none(), "the rest of the body cannot come any more");
    assert_eq!(alice.mailbox().await, []);
}

/// An open subscription, which has delivered everything.
async fn subscribe(user: &TestUser, addr: SocketAddr) -> Line {
    let body = raw::frame(&subscribe_after(0).encode_to_vec());
    let mut line = Line::connect(addr).await;
    line.send(call("Subscribe", user, "", body.len(), &body)).await;
    assert_eq!(line.head().await.expect("an answer").0, 200);
    assert_eq!(line.piece().await[0], 0, "a message");
    line
}

#[tokio::test]
async fn a_stop_ends_streams_with_their_status_and_waits_for_nobody_who_is_idle() {
    let mut server = TestServer::start_with(|options| options.drain_deadline = FAR_DEADLINE).await;
    let alice = server.user("alice").await;
    let mut idle = Line::connect(server.addr()).await;
    idle.send(send(&alice, "one")).await;
    assert_eq!(idle.answer().await.expect("an answer").status, 200);
    let mut subscribed = subscribe(&alice, server.addr()).await;
    let mut silent = Line::connect(server.addr()).await;

    let begun = Instant::now();
    server.stop().await;
    let took = begun.elapsed();
    assert!(took < LONG_BEFORE_IT, "took {took:?} with nobody to wait for");
    let mut last = Vec::new();
    loop {
        let piece = subscribed.piece().await;
        if piece.is_empty() {
            break;
        }
        last = piece;
    }
    assert_eq!(last[0], 0x80, "the trailers");
    let trailers = String::from_utf8(last.split_off(5)).expect("headers are ASCII");
    assert_eq!(Refusal::of(&status(&trailers)).reason, ErrorReason::ShuttingDown);
    assert!(subscribed.answer().await.is_none(), "hung up");
    assert!(idle.answer().await.is_none(), "hung up");
    assert!(silent.answer().await.is_none(), "hung up");
}

#[tokio::test]
async fn who_neither_goes_on_nor_reads_cannot_hold_a_stop() {
    let deadline = Duration::from_secs(1);
    let mut server = TestServer::start_with(|options| options.drain_deadline = deadline).await;
    let alice = server.user("alice").await;
    let whole = send(&alice, "one");
    let mut held = Vec::new();
    for bytes in [&whole[..70], &whole[..whole.len() - 1]] {
        let mut line = Line::connect(server.addr()).await;
        line.send(bytes).await;
        held.push(line);
    }
    // Answers that nobody takes: far more than sockets hold.
    let big = "x".repeat(60_000);
    alice.send_all((0..16).map(|_| text_to("alice", big.clone()))).await.expect("OK");
    let pages = call("GetMessages", &alice, "", 5, b"\0\0\0\0\0").repeat(50);
    let mut unread = Line::connect(server.addr()).await;
    unread.send(pages).await;
    assert_eq!(unread.head().await.expect("an answer").0, 200);
    held.push(unread);

    let begun = Instant::now();
    server.stop().await;
    let took = begun.elapsed();
    assert!(took < LONG_BEFORE_IT, "took {took:?}, may take {deadline:?} and a little");
    drop(held);
}
