//! The server as a program sees it that knows HTTP/1.1 and JSON, and nothing of gRPC.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use peerpost::testing::{Refusal, TestUser, within_patience};
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::web::Browser;

/// A program, with a token or without.
#[derive(Clone)]
pub(crate) struct Web {
    browser: Browser,
    headers: Vec<(&'static str, String)>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Web {
    pub(crate) fn at(addr: SocketAddr) -> Self {
        Self { browser: Browser::http1(addr), headers: Vec::new() }
    }

    /// With the token of this user.
    pub(crate) fn of(addr: SocketAddr, user: &TestUser) -> Self {
        Self::at(addr).with("authorization", format!("Bearer {}", user.token))
    }

    /// With one more header in every request.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) async fn get(&self, target: &str) -> Reply {
        self.send(Method::GET, target, Bytes::new()).await
    }

    pub(crate) async fn post(&self, target: &str, json: &Value) -> Reply {
        self.post_text(target, json.to_string()).await
    }

    pub(crate) async fn post_text(&self, target: &str, text: impl Into<Bytes>) -> Reply {
        self.send(Method::POST, target, text.into()).await
    }

    pub(crate) async fn send(&self, method: Method, target: &str, content: Bytes) -> Reply {
        let response = self.open(method, target, content).await;
        let (parts, body) = response.into_parts();
        let body = within_patience("the answer's end", body.collect()).await;
        let body = body.expect("the answer is whole").to_bytes();
        Reply { status: parts.status, headers: parts.headers, body }
    }

    /// The head of an answer, with what follows still to be read.
    pub(crate) async fn open(
        &self,
        method: Method,
        target: &str,
        content: Bytes,
    ) -> http::Response<Incoming> {
        let mut headers: Vec<_> =
            self.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        if !content.is_empty() && headers.iter().all(|(name, _)| *name != "content-type") {
            headers.push(("content-type", "application/json"));
        }
        self.browser.fetch(method, target, &headers, content).await
    }

    /// The events of a mailbox.
    ///
    /// # Errors
    /// The answer, when it is none.
    pub(crate) async fn events(&self, query: &str) -> Result<Events, Reply> {
        let target = format!("/v1/events?{query}");
        let (parts, body) = self.open(Method::GET, &target, Bytes::new()).await.into_parts();
        if parts.status == StatusCode::OK {
            assert_eq!(parts.headers[header::CONTENT_TYPE], "text/event-stream");
            return Ok(Events { body, text: String::new(), whole: VecDeque::new(), retry: None });
        }
        let body = body.collect().await.expect("the answer is whole").to_bytes();
        Err(Reply { status: parts.status, headers: parts.headers, body })
    }
}

impl Reply {
    /// The content of an answer with this status.
    #[track_caller]
    pub(crate) fn json(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{:?}", self.body);
        let content_type = self.headers[header::CONTENT_TYPE].to_str().expect("text");
        assert!(content_type.starts_with("application/"), "{content_type}");
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// A problem.
    #[track_caller]
    pub(crate) fn problem(&self) -> Value {
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json", "{self:?}");
        let problem: Value = serde_json::from_slice(&self.body).expect("JSON");
        assert_eq!(problem["status"], self.status.as_u16());
        for member in ["type", "title", "detail"] {
            assert!(problem[member].as_str().is_some_and(|it| !it.is_empty()), "{problem}");
        }
        problem
    }
}

/// Asserts that a problem says what a status says over gRPC: the text for people, the reason, all that
/// comes with it, and the HTTP status that `google.rpc.Code` has for it.
#[track_caller]
pub(crate) fn assert_says_the_same(problem: &Value, status: &Status) {
    let refusal = Refusal::of(status);
    let http = match status.code() {
        _ if refusal.reason == peerpost::proto::ErrorReason::BodyTooLarge => 413,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::NotFound => 404,
        Code::AlreadyExists => 409,
        Code::ResourceExhausted => 429,
        Code::Unavailable => 503,
        Code::DeadlineExceeded => 504,
        Code::DataLoss => 500,
        code => panic!("a code that this service does not use: {code:?}"),
    };
    assert_eq!(problem["status"], http, "{problem}");
    assert_eq!(problem["reason"], refusal.reason.as_reason(), "{problem}");
    assert_eq!(problem["domain"], "peerpost.v1");
    assert_eq!(problem["detail"], status.message());
    let metadata: BTreeMap<_, _> = refusal.metadata.iter().collect();
    assert_eq!(problem["metadata"], json!(metadata));
    let violations = problem["fieldViolations"].as_array().into_iter().flatten();
    let fields: Vec<_> = violations.map(|it| it["field"].as_str().expect("a name")).collect();
    assert_eq!(fields, refusal.fields, "{problem}");
    let delay = refusal.retry_delay.map(|delay| format!("{}s", delay.as_secs_f64()));
    assert_eq!(problem.get("retryAfter").and_then(Value::as_str), delay.as_deref(), "{problem}");
}

/// An open stream of server-sent events, read as the HTML standard says.
pub(crate) struct Events {
    body: Incoming,
    /// What came and is no whole event yet.
    text: String,
    whole: VecDeque<Event>,
    pub(crate) retry: Option<u64>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) data: Value,
}

impl Events {
    /// The next event, or `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.whole.pop_front() {
                return Some(event);
            }
            let frame = within_patience("an event", self.body.frame()).await?;
            // A connection that is cut ends the events.
            let Ok(bytes) = frame.ok()?.into_data() else { continue };
            // The tests' events are ASCII, so no character is cut.
            self.text.push_str(std::str::from_utf8(&bytes).expect("whole characters"));
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                self.take(&block);
            }
        }
    }

    /// The next message; what else comes before it is passed over, heartbeats without an end excepted.
    pub(crate) async fn next_message(&mut self) -> Event {
        let next = async {
            loop {
                let event = self.next().await.expect("the stream goes on");
                match event.name.as_str() {
                    "message" => return event,
                    "error" => panic!("{event:?}"),
                    _ => {}
                }
            }
        };
        within_patience("a message", next).await
    }

    /// The next `count` messages.
    pub(crate) async fn messages(&mut self, count: usize) -> Vec<Event> {
        let mut messages = Vec::new();
        while messages.len() < count {
            messages.push(self.next_message().await);
        }
        messages
    }

    fn take(&mut self, block: &str) {
        let mut event = Event { name: String::new(), id: String::new(), data: Value::Null };
        for line in block.lines() {
            let (field, value) = line.split_once(": ").expect("a field and its value");
            match field {
                "event" => event.name = value.into(),
                "id" => event.id = value.into(),
                "data" => event.data = serde_json::from_str(value).expect("JSON on one line"),
                "retry" => self.retry = Some(value.parse().expect("milliseconds")),
                other => panic!("an unknown field {other}"),
            }
        }
        if !event.name.is_empty() {
            self.whole.push_back(event);
        }
    }
}
