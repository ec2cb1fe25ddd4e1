//! Each limit driven over its edge: it is refused by its name, nothing is lost, the others are unaffected.

use std::num::NonZero;
use std::time::Duration;

use peerpost::client::OutgoingMessage;
use peerpost::domain::RateLimit;
use peerpost::proto::messaging_service_client::MessagingServiceClient;
use peerpost::proto::{ErrorReason, Message, RegisterRequest, RegisterResponse};
use peerpost::server::Options;
use peerpost::testing::{
    ServerProcess, TestServer, TestUser, eventually, refused, text_to, within_patience,
};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_stream::StreamExt as _;
use tonic::{Request, Status};

use crate::http_support::Web;
use crate::support::{ANY_PORT, binary, subscribe_from_now, texts, with_id};

/// An address from which as many names are registered as may be.
pub(crate) const FULL_ADDRESS: &str = "192.0.2.7";

const A_DAY: Duration = Duration::from_hours(24);

pub(crate) fn rate(text: &str) -> RateLimit {
    text.parse().expect("a rate")
}

/// So slow that nothing is made up for while a test runs.
fn a_day(burst: u32) -> impl Fn(&mut Options) {
    move |options| {
        let callers = &mut options.limits.callers;
        callers.send_rate_per_user = rate("1/d");
        callers.send_burst_per_user = NonZero::new(burst);
    }
}

/// A server on which alice has sent as fast as she may.
pub(crate) async fn over_the_send_rate() -> (TestServer, TestUser) {
    let server = TestServer::start_with(a_day(1)).await;
    let alice = server.user("alice").await;
    alice.send("alice", "the only one").await;
    (server, alice)
}

/// A server behind a proxy, at which an address has registered as many names as may be.
pub(crate) async fn over_the_registration_rate() -> TestServer {
    let server = TestServer::start_with(|options| {
        options.limits.callers.registration_rate_per_address = rate("2/d");
        options.proxies.trusted = vec!["127.0.0.1".parse().expect("a proxy")];
    })
    .await;
    for name in ["alice", "bob"] {
        register_from(&server, FULL_ADDRESS, name, None).await.expect("the rate is not reached");
    }
    server
}

/// Registers a name through the proxy, for a caller from this address.
pub(crate) async fn register_from(
    server: &TestServer,
    address: &str,
    name: &str,
    token: Option<&str>,
) -> Result<RegisterResponse, Status> {
    let uri = server.uri();
    let mut client = MessagingServiceClient::connect(uri).await.expect("the server is there");
    let mut call = Request::new(RegisterRequest { username: name.into(), ..Default::default() });
    call.metadata_mut().insert("x-forwarded-for", address.parse().expect("metadata"));
    if let Some(token) = token {
        let token = format!("Bearer {token}").parse().expect("metadata");
        call.metadata_mut().insert("authorization", token);
    }
    within_patience("Register", client.register(call)).await.map(tonic::Response::into_inner)
}

fn own_text(sequence: i64) -> String {
    format!("m{sequence}")
}

/// The value that a metric has now.
pub(crate) async fn metric(server: &TestServer, name: &str) -> String {
    let page = Web::at(server.metrics_addr()).get("/metrics").await.body;
    let page = String::from_utf8(page.to_vec()).expect("text");
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in\n{page}")).to_owned()
}

#[tokio::test]
async fn one_user_over_the_send_rate_is_refused_and_nobody_else_is() {
    let server = TestServer::start_with(a_day(3)).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    for sequence in 1..=3 {
        alice.send("bob", &own_text(sequence)).await;
    }
    for _ in 0..3 {
        let refusal =
            refused(alice.try_send(text_to("bob", "too fast")).await, ErrorReason::SendRateLimit);
        refusal.with("limit", "send_rate_per_user").with("value", "1/d").with("burst", 3);
        let delay = refusal.retry_delay.expect("a time");
        assert!(delay > Duration::from_hours(23) && delay <= A_DAY, "{delay:?}");
    }
    let sent: Vec<Message> = vec![
        bob.send("alice", "one").await,
        bob.send("alice", "two").await,
        bob.send("bob", "three").await,
    ];
    refused(bob.try_send(text_to("alice", "x")).await, ErrorReason::SendRateLimit);
    // Everything that was accepted is there, in order, and nothing else; reading has no rate.
    assert_eq!(texts(&alice.mailbox().await), ["m1", "m2", "m3", "one", "two"]);
    assert_eq!(texts(&bob.mailbox().await), ["m1", "m2", "m3", "one", "two", "three"]);
    assert_eq!(sent[2].sequence, 6);
}

#[tokio::test]
async fn every_way_in_has_the_same_rate() {
    let server = TestServer::start_with(a_day(4)).await;
    let alice = server.user("alice").await;
    let web = Web::of(server.addr(), &alice);
    alice.send("alice", "gRPC").await;
    web.post("/v1/messages", &json!({"to_user": "alice", "text": "JSON"})).await.json(200);
    let old = json!({"from_user": "alice", "to_user": "alice", "message": "the ancestor's"});
    assert_eq!(web.post("/send_message", &old).await.status, 201);
    let streamed = alice.send_all([text_to("alice", "stream"), text_to("alice", "x")]).await;
    let [stored, over] = streamed.expect("it ends with OK").try_into().expect("two answers");
    assert_eq!(stored.expect("the last one").sequence, 4);
    refused(over, ErrorReason::SendRateLimit);
    refused(alice.try_send(text_to("alice", "x")).await, ErrorReason::SendRateLimit);
    let refusal = web.post("/v1/messages", &json!({"to_user": "alice", "text": "x"})).await;
    assert_eq!(refusal.status, 429);
    assert_eq!(refusal.problem()["metadata"]["limit"], "send_rate_per_user");
    assert_eq!(web.post("/send_message", &old).await.status, 429);
    assert_eq!(alice.mailbox().await.len(), 4);
}

#[tokio::test]
async fn a_stream_goes_on_after_a_request_over_the_rate_and_keeps_its_order() {
    let server = TestServer::start_with(a_day(5)).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let mut requests: Vec<_> = (1..=9).map(|at| text_to("bob", own_text(at))).collect();
    // One that is malformed is not counted.
    requests[1] = text_to("no name", "x");
    let answers = alice.send_all(requests).await.expect("the stream ends with OK");
    assert_eq!(answers.len(), 9);
    for (at, answer) in (1..).zip(answers) {
        match at {
            2 => drop(refused(answer, ErrorReason::InvalidField)),
            1..=6 => assert_eq!(answer.expect("accepted").sequence, at - i64::from(at > 2)),
            _ => drop(refused(answer, ErrorReason::SendRateLimit)),
        }
    }
    assert_eq!(texts(&bob.mailbox().await), ["m1", "m3", "m4", "m5", "m6"]);
}

#[tokio::test]
async fn a_request_id_that_is_repeated_counts() {
    let server = TestServer::start_with(a_day(2)).await;
    let alice = server.user("alice").await;
    let first = alice.send_with_id("alice", "once", "r").await;
    assert_eq!(alice.send_with_id("alice", "once", "r").await, first);
    let again = alice.try_send(with_id(text_to("alice", "once"), "r")).await;
    refused(again, ErrorReason::SendRateLimit);
    assert_eq!(alice.mailbox().await, [first]);
}

#[tokio::test]
async fn there_is_room_again_at_the_time_that_was_said() {
    let server = TestServer::start_with(|options| {
        options.limits.callers.send_rate_per_user = rate("1/s");
    })
    .await;
    let alice = server.user("alice").await;
    // More than one in a second, on any machine.
    let answers = alice.send_all((0..100).map(|_| text_to("alice", "x"))).await.expect("OK");
    let stored = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!((1..100).contains(&stored), "{stored}");
    let Err(status) = alice.try_send(text_to("alice", "x")).await else { return };
    let refusal = refused(Err::<(), _>(status), ErrorReason::SendRateLimit);
    let delay = refusal.retry_delay.expect("a time");
    assert!(delay <= Duration::from_secs(1), "{delay:?}");
    sleep(delay).await;
    alice.send("alice", "as it was said").await;
}

/// It waits as long as it is told, and each message is stored once.
#[tokio::test]
async fn the_rust_client_gets_everything_through() {
    let server = TestServer::start_with(|options| {
        options.limits.callers.send_rate_per_user = rate("20/s");
        options.limits.callers.send_burst_per_user = NonZero::new(2);
    })
    .await;
    let alice = server.user("alice").await;
    let mut sending = JoinSet::new();
    for at in 0..10 {
        let client = alice.rust_client(&server.uri());
        sending.spawn(async move { client.send("alice", own_text(at)).await });
    }
    while let Some(sent) = within_patience("the sends", sending.join_next()).await {
        sent.expect("no panic").expect("it gets through");
    }
    let mut stored: Vec<_> = texts(&alice.mailbox().await).into_iter().map(str::to_owned).collect();
    stored.sort();
    assert_eq!(stored, (0..10).map(own_text).collect::<Vec<_>>());
}

/// After a refusal it sends one message, and one more with every answer: it does not send all of them again
/// where there is room for one.
#[tokio::test]
async fn the_rust_clients_stream_gets_everything_through() {
    const MESSAGES: usize = 100;
    let server = TestServer::start_with(|options| {
        options.limits.callers.send_rate_per_user = rate("100/s");
        options.limits.callers.send_burst_per_user = NonZero::new(5);
        options.metrics_listen = Some(ANY_PORT);
    })
    .await;
    let alice = server.user("alice").await;
    let client = alice.rust_client(&server.uri());
    let text = |at| own_text(i64::try_from(at).expect("few"));
    let messages: Vec<_> =
        (0..MESSAGES).map(|at| OutgoingMessage::new("alice", text(at))).collect();
    let mut sending = client.send_all(tokio_stream::iter(messages));
    for at in 0..MESSAGES {
        let outcome = within_patience("an outcome", sending.next()).await.expect("one for each");
        let stored = outcome.expect("it goes on").expect("nothing is refused for good");
        assert_eq!(stored.body.as_text(), Some(text(at).as_str()));
    }
    assert!(sending.next().await.is_none());
    assert_eq!(alice.mailbox().await.len(), MESSAGES, "each is stored once");
    // The first time all that are over the rate; then about an attempt a message, which has about as many
    // refused as it has stored. All of them again each time would be thousands.
    let refusals = metric(&server, "peerpost_refusals_total{limit=\"send_rate_per_user\"}").await;
    assert!(refusals.parse::<usize>().expect("a number") <= 5 * MESSAGES, "{refusals}");
}

#[tokio::test]
async fn an_address_over_the_registration_rate_is_refused_and_no_other_is() {
    let server = over_the_registration_rate().await;
    for _ in 0..2 {
        let refusal = refused(
            register_from(&server, FULL_ADDRESS, "carol", None).await,
            ErrorReason::RegistrationRateLimit,
        );
        refusal
            .with("limit", "registration_rate_per_address")
            .with("value", "2/d")
            .with("burst", 2);
        let delay = refusal.retry_delay.expect("a time");
        assert!(delay > Duration::from_hours(11) && delay <= A_DAY / 2, "{delay:?}");
    }
    let carol = register_from(&server, "192.0.2.8", "carol", None).await.expect("another address");
    assert_eq!(carol.user.expect("a user").ip_address, "192.0.2.8", "the proxy's word counts");
    // IPv6 by the network: the third of one is refused, wherever in it.
    for (name, address) in [("d1", "2001:db8::1"), ("d2", "2001:db8::ffff:2")] {
        register_from(&server, address, name, None).await.expect("the rate is not reached");
    }
    let third = register_from(&server, "[2001:db8::3]:4711", "d3", None).await;
    refused(third, ErrorReason::RegistrationRateLimit);
    register_from(&server, "2001:db8:0:1::1", "d3", None).await.expect("another network");
    // What a caller wrote before the proxy's own word is not believed.
    let spoofed = register_from(&server, &format!("192.0.2.99, {FULL_ADDRESS}"), "e", None).await;
    refused(spoofed, ErrorReason::RegistrationRateLimit);
}

#[tokio::test]
async fn only_new_names_have_a_rate() {
    let server = over_the_registration_rate().await;
    let dora = register_from(&server, "192.0.2.9", "dora", None).await.expect("the first");
    // An update of one's own, from where no new name may come.
    let again = register_from(&server, FULL_ADDRESS, "dora", Some(&dora.token)).await;
    let again = again.expect("an update").user.expect("a user");
    assert_eq!(again.ip_address, FULL_ADDRESS);
    for _ in 0..5 {
        let taken = register_from(&server, FULL_ADDRESS, "dora", None).await;
        refused(taken, ErrorReason::UsernameTaken);
        // Where there is room they do not take it.
        let taken = register_from(&server, "192.0.2.9", "dora", None).await;
        refused(taken, ErrorReason::UsernameTaken);
        register_from(&server, "192.0.2.9", "dora", Some(&dora.token)).await.expect("an update");
    }
    register_from(&server, "192.0.2.9", "emil", None).await.expect("the second");
    let third = register_from(&server, "192.0.2.9", "fred", None).await;
    refused(third, ErrorReason::RegistrationRateLimit);
}

/// Loopback is exempt, so that a proxy on this machine which is not trusted has no rate; and it is not
/// believed.
#[tokio::test]
async fn without_trust_no_header_is_believed() {
    let server = TestServer::start_with(|options| {
        options.limits.callers.registration_rate_per_address = rate("1/d");
    })
    .await;
    for name in ["alice", "bob", "carol"] {
        let registered = register_from(&server, FULL_ADDRESS, name, None).await.expect("exempt");
        assert_eq!(registered.user.expect("a user").ip_address, "127.0.0.1");
    }
}

#[tokio::test]
async fn a_user_has_as_many_subscriptions_as_the_operator_says() {
    let server = TestServer::start_with(|options| {
        options.limits.callers.subscriptions_per_user = NonZero::new(2).expect("some");
    })
    .await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let mut first = alice.follow(0).await;
    let second = alice.follow(0).await;
    let over = alice.subscribe(subscribe_from_now()).await;
    refused(over, ErrorReason::SubscriptionLimit)
        .with("limit", "subscriptions_per_user")
        .with("value", 2);
    let _other = bob.follow(0).await;
    bob.send("alice", "hello").await;
    assert_eq!(texts(&first.messages(1).await), ["hello"]);
    drop(second);
    eventually("a place", async || alice.subscribe(subscribe_from_now()).await.ok()).await;
}

#[tokio::test]
async fn connections_over_the_limit_wait_and_then_are_served() {
    let server = TestServer::start_with(|options| {
        options.limits.connections_max = 2;
        options.metrics_listen = Some(ANY_PORT);
    })
    .await;
    let alice = server.user("alice").await;
    let silent = TcpStream::connect(server.addr()).await.expect("connects");
    let open = async || metric(&server, "peerpost_connections").await;
    eventually("both", async || (open().await == "2").then_some(())).await;
    let mut waiting = JoinSet::new();
    let addr = server.addr();
    waiting.spawn(async move { TestUser::register(addr, "bob").await });
    // The one that there is goes on.
    alice.send("alice", "x").await;
    assert_eq!(open().await, "2");
    assert!(waiting.try_join_next().is_none(), "a third was served");
    drop(silent);
    let bob =
        within_patience("a place", waiting.join_next()).await.expect("one").expect("no panic");
    bob.send("alice", "y").await;
}

#[tokio::test]
async fn limits_out_of_their_bounds_keep_a_server_from_starting() {
    for (adjust, says) in [
        ((|options| options.limits.write_queue_bytes = 1) as fn(&mut Options), "write_queue_bytes"),
        (|options| options.limits.held_bytes_max = 1, "held_bytes_max"),
        (|options| options.limits.streams_per_connection = 0, "streams_per_connection"),
        (|options| options.limits.connections_max = 0, "connections_max"),
    ] {
        let error = TestServer::try_start_with(adjust).await.expect_err("out of bounds");
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[tokio::test]
async fn limits_are_set_by_flags_and_refusals_are_counted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let flags = [
        ["--send-rate-per-user", "3/d"],
        ["--send-burst-per-user", "2"],
        ["--registration-rate-per-address", "unlimited"],
        ["--subscriptions-per-user", "1"],
        ["--connections-max", "100"],
        ["--streams-per-connection", "10"],
        ["--write-queue-bytes", "8388608"],
        ["--held-bytes-max", "16777216"],
        ["--trusted-proxies", "127.0.0.1,unix"],
        ["--proxy-header", "forwarded"],
        ["--metrics-listen", "127.0.0.1:0"],
    ];
    let server =
        ServerProcess::start_with(&[], binary(), &folder.path().join("data"), &flags.concat())
            .await;
    let alice = server.user("alice").await;
    for text in ["one", "two"] {
        alice.send("alice", text).await;
    }
    refused(alice.try_send(text_to("alice", "x")).await, ErrorReason::SendRateLimit)
        .with("value", "3/d")
        .with("burst", 2);
    let _only = alice.follow(0).await;
    let over = alice.subscribe(subscribe_from_now()).await;
    refused(over, ErrorReason::SubscriptionLimit).with("value", 1);
    let tools = Web::at(crate::metrics::metrics_addr(&server).await);
    let page = String::from_utf8(tools.get("/metrics").await.body.to_vec()).expect("text");
    for line in [
        "peerpost_refusals_total{limit=\"send_rate_per_user\"} 1",
        "peerpost_refusals_total{limit=\"subscriptions_per_user\"} 1",
        "peerpost_refusals_total{limit=\"registration_rate_per_address\"} 0",
        "peerpost_refusals_total{limit=\"write_queue_bytes\"} 0",
        "peerpost_refusals_total{limit=\"disk\"} 0",
        "peerpost_refusals_total{limit=\"held_bytes_max\"} 0",
        "peerpost_refusals_total{limit=\"mailbox_messages_max\"} 0",
        "peerpost_refusals_total{limit=\"mailbox_bytes_max\"} 0",
        "peerpost_write_queue_limit_bytes 8388608",
        "peerpost_held_limit_bytes 16777216",
        "peerpost_connections_max 100",
    ] {
        assert!(page.lines().any(|it| it == line), "{line} is not in\n{page}");
    }
}

#[tokio::test]
async fn flags_that_are_no_limit_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (flag, value, says) in [
        ("--send-rate-per-user", "0", "is not a rate"),
        ("--send-rate-per-user", "0/s", "unlimited"),
        ("--send-rate-per-user", "off", "is not a rate"),
        ("--send-burst-per-user", "0", "1..=1000000"),
        ("--subscriptions-per-user", "0", "1..=65536"),
        ("--write-queue-bytes", "1000", "4194304"),
        ("--held-bytes-max", "0", "8388608"),
        ("--trusted-proxies", "proxy.example.org", "network"),
        ("--proxy-header", "x-real-ip", "x-forwarded-for"),
    ] {
        let mut command = std::process::Command::new(binary());
        command.args(["serve", "--listen", "127.0.0.1:0", flag, value, "--data-dir"]);
        let output = command.arg(folder.path()).output().expect("it runs");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{flag} {value}: {stderr}");
        assert!(stderr.contains(says), "{flag} {value}: {stderr}");
    }
}
