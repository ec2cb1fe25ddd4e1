//! What an operator's tools see: metrics, health, and the log.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use http::{Method, StatusCode};
use peerpost::domain::Token;
use peerpost::proto::{ErrorReason, SendMessageRequest};
use peerpost::testing::{ServerProcess, TestServer, TestUser, eventually, refused, text_to};
use serde_json::{Value, json};
use tonic::{Code, Request};

use crate::cli_support::Machine;
use crate::faults::Lock;
use crate::http_support::Web;
use crate::support::{binary, subscribe_after};
use crate::tls_support::{Authority, Files};

const ANYWHERE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A page of metrics: each family's type, and each sample's value by its name with its labels.
#[derive(Debug)]
struct Metrics {
    families: BTreeMap<String, String>,
    labels: BTreeSet<String>,
    samples: BTreeMap<String, f64>,
}

impl Metrics {
    async fn of(addr: SocketAddr) -> Self {
        let reply = Web::at(addr).get("/metrics").await;
        assert_eq!(reply.status, StatusCode::OK);
        let content_type = reply.headers.get("content-type").expect("a type");
        assert_eq!(content_type, "text/plain; version=0.0.4; charset=utf-8");
        Self::parse(std::str::from_utf8(&reply.body).expect("UTF-8"))
    }

    /// Reads a page, and asserts that it keeps to the format's rules.
    fn parse(text: &str) -> Self {
        let (mut families, mut samples) = (BTreeMap::new(), BTreeMap::new());
        let mut labels = BTreeSet::new();
        let mut helped = String::new();
        let mut family = String::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').expect("a name and a text");
                assert!(!help.trim().is_empty(), "{name} has no help");
                name.clone_into(&mut helped);
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a name and a type");
                assert_eq!(name, helped, "its help comes before its type");
                name.clone_into(&mut family);
                let before = families.insert(name.to_owned(), kind.to_owned());
                assert!(before.is_none(), "{name} is there twice");
            } else {
                let (name, value) = line.rsplit_once(' ').expect("a name and a value");
                let (bare, named) = name.split_once('{').unwrap_or((name, ""));
                let suffix = bare.strip_prefix(&family).expect("samples stand below their type");
                let of_histogram = ["_bucket", "_sum", "_count"].contains(&suffix);
                assert_eq!(of_histogram, families[&family] == "histogram", "{line}");
                assert!(of_histogram || suffix.is_empty(), "{line}");
                labels.extend(named.split(',').filter_map(|it| Some(it.split_once('=')?.0.into())));
                let before = samples.insert(name.to_owned(), value.parse().expect("a number"));
                assert!(before.is_none(), "{name} is there twice");
            }
        }
        Self { families, labels, samples }
    }

    /// What another page has besides.
    fn add(&mut self, other: Self) {
        self.families.extend(other.families);
        self.labels.extend(other.labels);
        self.samples.extend(other.samples);
    }

    #[track_caller]
    fn get(&self, name: &str) -> f64 {
        *self.samples.get(name).unwrap_or_else(|| panic!("no {name} among {:#?}", self.samples))
    }

    /// How many calls of a method came to a status.
    fn calls(&self, method: &str, status: &str) -> f64 {
        let name = format!(
            "rpc_server_call_duration_seconds_count{{rpc_system_name=\"grpc\",\
             rpc_method=\"peerpost.v1.MessagingService/{method}\",\
             rpc_response_status_code=\"{status}\"}}"
        );
        self.samples.get(&name).copied().unwrap_or_default()
    }

    /// The names that samples have, without labels.
    fn names(&self) -> BTreeSet<&str> {
        self.samples.keys().map(|name| name.split('{').next().unwrap_or(name)).collect()
    }
}

pub(crate) async fn start() -> TestServer {
    TestServer::start_with(|options| options.metrics_listen = Some(ANYWHERE)).await
}

#[track_caller]
fn assert_number(actual: f64, expected: u32) {
    assert!((actual - f64::from(expected)).abs() < 1e-9, "{actual} is not {expected}");
}

#[tokio::test]
async fn calls_are_counted_by_method_and_status() {
    let server = start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    for text in ["one", "two", "three"] {
        alice.send("bob", text).await;
    }
    refused(alice.try_send(text_to("nobody", "x")).await, ErrorReason::UserNotFound);
    let stranger = bob.client().send_message(Request::new(text_to("bob", "x"))).await;
    refused(stranger.map(drop), ErrorReason::TokenMissing);
    alice
        .send_all([text_to("bob", "four"), text_to("nobody", "x")])
        .await
        .expect("it ends with OK");
    Web::of(server.addr(), &alice).get("/v1/users").await.json(200);
    let reader = bob.follow(0).await;

    let metrics = Metrics::of(server.metrics_addr()).await;
    assert_number(metrics.calls("Register", "OK"), 2);
    assert_number(metrics.calls("SendMessage", "OK"), 3);
    assert_number(metrics.calls("SendMessage", "NOT_FOUND"), 1);
    assert_number(metrics.calls("SendMessage", "UNAUTHENTICATED"), 1);
    assert_number(metrics.calls("SendMessages", "OK"), 1);
    assert_number(metrics.calls("ListUsers", "OK"), 1);
    for status in ["OK", "CANCELLED"] {
        assert_number(metrics.calls("Subscribe", status), 0);
    }
    drop(reader);
    eventually("the subscription's end", async || {
        let metrics = Metrics::of(server.metrics_addr()).await;
        (metrics.calls("Subscribe", "CANCELLED") > 0.5).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_parts_tell_what_they_hold_and_did() {
    let server = start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let mut first = bob.follow(0).await;
    let _second = bob.follow(0).await;
    alice.send_many("bob", "m", 20).await;
    first.messages(20).await;

    let metrics = Metrics::of(server.metrics_addr()).await;
    assert_number(metrics.get("peerpost_messages_stored_total"), 20);
    assert_number(metrics.get("peerpost_tail_messages"), 20);
    assert_number(metrics.get("peerpost_merges_total"), 0);
    assert_number(metrics.get("peerpost_users_registered_total"), 2);
    assert_number(metrics.get("peerpost_subscribers"), 2);
    assert_number(metrics.get("peerpost_hub_channels"), 1);
    assert_number(metrics.get("peerpost_storage_up"), 1);
    assert_number(metrics.get("peerpost_storage_failures_total"), 0);
    assert_number(metrics.get("peerpost_connections_cut_total"), 0);
    assert!(metrics.get("peerpost_replay_pages_total") >= 2.0);
    assert!(metrics.get("peerpost_connections") >= 2.0);
    assert!(metrics.get("peerpost_disk_bytes{file=\"database\"}") > 0.0);
    assert!(metrics.get("peerpost_disk_bytes{file=\"wal\"}") > 0.0);
    assert!(metrics.get("peerpost_disk_free_bytes") > 0.0);
    // Two registrations and 20 messages at least; the rest notes who was seen.
    let writes = metrics.get("peerpost_group_writes_sum");
    assert!(writes >= 22.0, "{writes}");
    let commits = metrics.get("peerpost_commit_duration_seconds_count");
    assert_number(commits - metrics.get("peerpost_group_writes_count"), 0);
    assert!(metrics.get("peerpost_commit_duration_seconds_sum") > 0.0);
    assert_number(metrics.get("peerpost_token_lookups_total{result=\"miss\"}"), 2);
    assert!(metrics.get("peerpost_token_lookups_total{result=\"hit\"}") >= 1.0);
}

#[tokio::test]
async fn two_servers_of_a_process_count_apart() {
    let (here, there) = (start().await, start().await);
    here.user("alice").await;
    let metrics = Metrics::of(there.metrics_addr()).await;
    assert_number(metrics.calls("Register", "OK"), 0);
    assert_number(metrics.get("peerpost_users_registered_total"), 0);
}

#[tokio::test]
async fn a_server_is_not_ready_while_it_drains() {
    let server = start().await;
    let tools = Web::at(server.metrics_addr());
    let ask = async |path| {
        let reply = tools.get(path).await;
        (reply.status.as_u16(), String::from_utf8(reply.body.to_vec()).expect("text"))
    };
    assert_eq!(ask("/healthz").await, (200, "alive\n".into()));
    assert_eq!(ask("/readyz").await, (200, "ready\n".into()));
    assert_eq!(ask("/other").await.0, 404);
    let posted = tools.send(Method::POST, "/metrics", "x".into()).await;
    assert_eq!(posted.status, StatusCode::METHOD_NOT_ALLOWED);

    // A subscription that is not read holds the drain.
    let alice = server.user("alice").await;
    let unread = alice.subscribe_with_window(1024, subscribe_after(0)).await.expect("accepted");
    alice.send_all((0..200).map(|_| text_to("alice", "x".repeat(1_000)))).await.expect("OK");
    server.begin_stop();
    eventually("the drain", async || {
        (ask("/readyz").await == (503, "draining\n".into())).then_some(())
    })
    .await;
    assert_eq!(ask("/healthz").await, (200, "alive\n".into()));
    drop(unread);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_not_ready_while_its_storage_fails() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let server = started(&[], &data_dir, &[]).await;
    let tools = metrics_addr(&server).await;
    let alice = server.user("alice").await;
    let lock = Lock::take(&data_dir);
    refused(alice.try_send(text_to("alice", "x")).await, ErrorReason::StorageFailing);
    let reply = Web::at(tools).get("/readyz").await;
    assert_eq!((reply.status.as_u16(), &reply.body[..]), (503, &b"storage failing\n"[..]));
    let machine = Machine::new(server.addr());
    machine.run(&["health"]).await.fails(1, &["takes no calls"]);
    let metrics = Metrics::of(tools).await;
    assert_number(metrics.get("peerpost_storage_up"), 0);
    assert_number(metrics.get("peerpost_storage_failures_total"), 1);
    lock.release();
    eventually("the storage", async || {
        (Web::at(tools).get("/readyz").await.status == StatusCode::OK).then_some(())
    })
    .await;
    assert_number(Metrics::of(tools).await.get("peerpost_storage_up"), 1);
    assert_eq!(machine.run(&["health"]).await.ok(), "serving\n");
    server.kill();
    machine.run(&["health"]).await.fails(1, &["cannot connect"]);
}

/// A binary that serves, with an address for metrics.
async fn started(wrapper: &[&str], data_dir: &Path, flags: &[&str]) -> ServerProcess {
    let flags = [&["--metrics-listen", "127.0.0.1:0"], flags].concat();
    ServerProcess::start_with(wrapper, binary(), data_dir, &flags).await
}

/// The address that the server logged for metrics.
pub(crate) async fn metrics_addr(server: &ServerProcess) -> SocketAddr {
    eventually("the address for metrics", async || {
        let stderr = server.stderr();
        let line = stderr.lines().find(|line| line.contains("metrics"))?;
        line.split(['=', '"', ' ']).find_map(|word| word.parse().ok())
    })
    .await
}

const BODY: &str = "a body that nobody else should see";

/// Calls of many kinds, good and bad, over each protocol. What errors said.
async fn busy_run(server: &ServerProcess, alice: &TestUser) -> Vec<String> {
    let mut reader = alice.follow(0).await;
    alice.send("alice", BODY).await;
    alice.send_all([text_to("alice", BODY), text_to("nobody", BODY)]).await.expect("OK");
    reader.messages(2).await;
    let too_long = format!("{BODY}{}", "x".repeat(70_000));
    let with_token = SendMessageRequest { request_id: alice.token.clone(), ..text_to("bob", BODY) };
    let mut errors = Vec::new();
    for request in [text_to("nobody", BODY), text_to("alice", too_long), with_token] {
        errors.push(alice.try_send(request).await.expect_err("refused").to_string());
    }
    let strange = Token::mint().reveal();
    for (name, value) in [
        ("authorization", format!("Basic {}", alice.token)),
        ("authorization", format!("Bearer {strange}")),
        ("x-request-id", alice.token.clone()),
    ] {
        let mut request = Request::new(text_to("alice", BODY));
        request.metadata_mut().insert(name, value.parse().expect("metadata"));
        errors.push(alice.client().send_message(request).await.expect_err("refused").to_string());
    }
    let web = Web::of(server.addr(), alice);
    let sent = json!({"toUser": "alice", "text": BODY});
    web.post("/v1/messages", &sent).await.json(200);
    web.get("/v1/messages?after_sequence=0").await.json(200);
    for body in [json!({"toUser": "nobody", "text": BODY}), json!({"to": "alice", "text": BODY})] {
        let reply = web.post("/v1/messages", &body).await;
        assert!(!reply.status.is_success());
        errors.push(String::from_utf8_lossy(&reply.body).into_owned());
    }
    assert!(!errors.iter().any(|error| error.contains(&strange[3..])), "{errors:#?}");
    errors
}

#[tokio::test]
async fn neither_logs_nor_metrics_nor_errors_show_a_token_or_a_body() {
    for format in ["text", "json"] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let wrapper = ["env", "PEERPOST_LOG=trace", &format!("PEERPOST_LOG_FORMAT={format}")];
        let server = started(&wrapper, &folder.path().join("data"), &[]).await;
        let alice = server.user("alice").await;
        let tools = metrics_addr(&server).await;
        let mut texts = busy_run(&server, &alice).await;
        let page = Web::at(tools).get("/metrics").await;
        texts.push(String::from_utf8(page.body.to_vec()).expect("text"));
        server.terminate();
        let log = server.exit().await.stderr;
        assert!(log.contains("SendMessage") && log.contains("NOT_FOUND"), "it logs calls: {log}");
        texts.push(log);
        for text in texts {
            for secret in [BODY, &alice.token[3..]] {
                let at = text.find(secret).map(|at| &text[at.saturating_sub(300)..at]);
                assert_eq!(at, None, "{secret:?} is shown");
            }
        }
    }
}

#[tokio::test]
async fn a_call_is_logged_with_its_id_and_the_id_comes_back() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let wrapper = ["env", "PEERPOST_LOG=debug"];
    let server = started(&wrapper, &folder.path().join("data"), &["--log-format", "json"]).await;
    let alice = server.user("alice").await;
    let mut given = alice.request(text_to("alice", "x"));
    given.metadata_mut().insert("x-request-id", "from-afar/7".parse().expect("metadata"));
    let answer = alice.client().send_message(given).await.expect("sent");
    assert_eq!(answer.metadata().get("x-request-id").expect("an id"), "from-afar/7");
    let without = alice.client().send_message(alice.request(text_to("nobody", "x"))).await;
    let refused = without.expect_err("nobody is there");
    assert_eq!(refused.code(), Code::NotFound);
    let made = refused.metadata().get("x-request-id").expect("an id").to_str().expect("text");
    server.terminate();
    let log = server.exit().await.stderr;

    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    for (id, status) in [("from-afar/7", "OK"), (made, "NOT_FOUND")] {
        let line = lines.iter().find(|line| line["request_id"] == id).expect("the call's line");
        assert_eq!(line["method"], "peerpost.v1.MessagingService/SendMessage");
        assert_eq!((&line["status"], &line["user"]), (&json!(status), &json!("alice")));
        assert_eq!(line["level"], "DEBUG");
        assert!(line["duration_us"].is_u64(), "{line}");
    }
}

#[tokio::test]
async fn without_a_debug_log_no_call_has_an_id() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = started(&[], &folder.path().join("data"), &[]).await;
    let alice = server.user("alice").await;
    let answer = alice.client().send_message(alice.request(text_to("alice", "x"))).await;
    assert!(answer.expect("sent").metadata().get("x-request-id").is_none());
    server.terminate();
    let log = server.exit().await.stderr;
    assert!(!log.contains("SendMessage"), "{log}");
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("it can be read")
}

/// The metrics that a text names.
fn named_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let is_metric =
        |word: &&str| ["peerpost_", "rpc_", "process_"].iter().any(|it| word.starts_with(it));
    words.filter(is_metric).collect()
}

#[tokio::test]
async fn the_dashboard_and_the_alerts_name_metrics_that_there_are() {
    let server = start().await;
    let alice = server.user("alice").await;
    alice.send("alice", "x").await;
    let mut metrics = Metrics::of(server.metrics_addr()).await;
    let files = Files::of(&Authority::new().issue());
    let secured = TestServer::start_with(|options| {
        options.metrics_listen = Some(ANYWHERE);
        options.tls = Some(files.options());
    });
    let secured = secured.await;
    metrics.add(Metrics::of(secured.metrics_addr()).await);
    let dashboard = read("docs/monitoring/dashboard.json");
    let dashboard: Value = serde_json::from_str(&dashboard).expect("it is JSON");
    let panels = dashboard["panels"].as_array().expect("a list").iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().expect("a list"));
    let mut asked: Vec<String> =
        targets.map(|target| target["expr"].as_str().expect("a text").to_owned()).collect();
    let variables = dashboard["templating"]["list"].as_array().expect("a list").iter();
    asked.extend(variables.filter_map(|it| it["query"].as_str()).map(str::to_owned));
    let alerts = read("docs/monitoring/alerts.yaml");
    // An alert's expression stands before its labels, what people read after.
    let (expressions, texts): (Vec<_>, Vec<_>) =
        alerts.split("- alert: ").skip(1).filter_map(|rule| rule.split_once("labels:")).unzip();
    asked.extend(expressions.into_iter().map(str::to_owned));
    assert!(asked.len() > 30, "only {asked:#?}");
    for text in &asked {
        for name in named_in(text) {
            let is_there = metrics.names().contains(name) || metrics.labels.contains(name);
            assert!(is_there, "{name} is no metric: {text}");
        }
    }
    for name in texts.into_iter().flat_map(named_in) {
        assert!(metrics.families.contains_key(name), "{name} is no metric");
    }
    let page = read("docs/OPERATIONS.md");
    let documented = named_in(&page);
    for family in metrics.families.keys() {
        assert!(documented.contains(family.as_str()), "docs/OPERATIONS.md does not name {family}");
    }
}

/// Each alert says when it matters and what to do.
#[test]
fn every_alert_has_a_runbook() {
    let alerts = read("docs/monitoring/alerts.yaml");
    let rules: Vec<_> = alerts.split("- alert: ").skip(1).collect();
    assert!(rules.len() >= 8, "only {} alerts", rules.len());
    for rule in rules {
        for part in ["expr: ", "severity: ", "summary: ", "runbook: "] {
            assert!(rule.contains(part), "no {part:?} in {rule}");
        }
    }
}
