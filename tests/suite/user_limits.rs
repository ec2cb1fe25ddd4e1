//! Limits of single users, set over the admin socket: at once, for good, and for them alone.

use std::num::NonZero;

use peerpost::client::{AdminClient, Error};
use peerpost::proto::ErrorReason;
use peerpost::proto::admin::{
    GetUserLimitsRequest, GetUserLimitsResponse, SetUserLimitsRequest, SetUserLimitsResponse,
    UserLimits,
};
use peerpost::testing::{TestServer, TestUser, refused, text_to, within_patience};
use serde_json::json;

use crate::accounts_support::audit;
use crate::cli_support::Machine;
use crate::limits::rate;
use crate::support::subscribe_from_now;

async fn set(admin: &AdminClient, limits: UserLimits) -> Result<SetUserLimitsResponse, Error> {
    let request = SetUserLimitsRequest { limits: Some(limits) };
    let call = admin.call(|mut grpc| async move { grpc.set_user_limits(request).await });
    within_patience("SetUserLimits", call).await
}

async fn get(admin: &AdminClient, username: &str) -> Result<GetUserLimitsResponse, Error> {
    let request = GetUserLimitsRequest { username: username.into() };
    let call = admin.call(|mut grpc| async move { grpc.get_user_limits(request).await });
    within_patience("GetUserLimits", call).await
}

fn limits(username: &str, send_rate: &str, send_burst: i32, subscriptions: i32) -> UserLimits {
    let (username, send_rate) = (username.to_owned(), send_rate.to_owned());
    UserLimits { username, send_rate, send_burst, subscriptions }
}

/// How many of ten messages a user gets through.
async fn sends(user: &TestUser) -> usize {
    let answers = user.send_all((0..10).map(|_| text_to(&user.name, "x"))).await.expect("OK");
    let (stored, over): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    for refusal in over {
        refused(refusal, ErrorReason::SendRateLimit);
    }
    stored.len()
}

#[tokio::test]
async fn they_hold_at_once_for_one_user_and_after_a_restart() {
    let mut server = TestServer::start().await;
    let (alice, bob) = (server.user("Alice").await, server.user("bob").await);
    assert_eq!(sends(&alice).await, 10);
    let admin = server.admin().await;
    let answer = set(&admin, limits("ALICE", "1/d", 3, 1)).await.expect("set");
    assert_eq!(answer.own, Some(limits("Alice", "1/d", 3, 1)));
    assert_eq!(answer.effective, answer.own);
    let noted = audit(&server).await.pop().expect("an act");
    assert_eq!((noted.act.as_str(), noted.subject.as_str()), ("limits.set", "Alice"));
    assert_eq!(noted.details, "send-rate=1/d send-burst=3 subscriptions=1");
    assert_eq!((sends(&alice).await, sends(&bob).await), (3, 10));
    let _only = alice.follow(0).await;
    let over = alice.subscribe(subscribe_from_now()).await;
    refused(over, ErrorReason::SubscriptionLimit).with("value", 1);

    server.restart().await;
    let (alice, bob) = (alice.at(server.addr()), bob.at(server.addr()));
    assert_eq!((sends(&alice).await, sends(&bob).await), (3, 10));
    let admin = server.admin().await;
    let shown = get(&admin, "alice").await.expect("there");
    assert_eq!(shown.own, answer.own);
    let cleared = set(&admin, limits("alice", "", 0, 0)).await.expect("set");
    assert_eq!(cleared.own, Some(limits("Alice", "", 0, 0)));
    assert_eq!(cleared.effective, Some(limits("Alice", "unlimited", 0, 256)));
    assert_eq!(sends(&alice).await, 10);
    server.restart().await;
    assert_eq!(sends(&alice.at(server.addr())).await, 10);
}

#[tokio::test]
async fn one_can_be_let_off_what_holds_for_everybody() {
    let server = TestServer::start_with(|options| {
        options.limits.callers.send_rate_per_user = rate("1/d");
        options.limits.callers.send_burst_per_user = NonZero::new(2);
    })
    .await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    assert_eq!((sends(&alice).await, sends(&alice).await), (2, 0));
    let admin = server.admin().await;
    set(&admin, limits("alice", "unlimited", 0, 0)).await.expect("set");
    assert_eq!((sends(&alice).await, sends(&bob).await), (10, 2));
    set(&admin, limits("alice", "5/d", 0, 0)).await.expect("set");
    assert_eq!(sends(&alice).await, 5, "the burst of a rate of one's own is its count");
}

#[tokio::test]
async fn what_cannot_be_set_is_refused() {
    let server = TestServer::start().await;
    server.user("alice").await;
    let admin = server.admin().await;
    for (limits, reason, field) in [
        (limits("bob", "1/s", 0, 0), ErrorReason::UserNotFound, None),
        (limits("", "1/s", 0, 0), ErrorReason::InvalidField, Some("username")),
        (limits("alice", "0/s", 0, 0), ErrorReason::InvalidField, Some("send_rate")),
        (limits("alice", "", -1, 0), ErrorReason::InvalidField, Some("send_burst")),
        (limits("alice", "", 1_000_001, 0), ErrorReason::InvalidField, Some("send_burst")),
        (limits("alice", "", 0, 65_537), ErrorReason::InvalidField, Some("subscriptions")),
    ] {
        let Error::Refused(refusal) = set(&admin, limits).await.expect_err("refused") else {
            panic!("not by the server");
        };
        assert_eq!(refusal.reason, Some(reason));
        assert_eq!(refusal.violations.first().map(|it| it.field.as_str()), field);
    }
    assert_eq!(get(&admin, "alice").await.expect("there").own, Some(limits("alice", "", 0, 0)));
    assert_eq!(
        get(&admin, "bob").await.expect_err("none").reason(),
        Some(ErrorReason::UserNotFound)
    );
}

#[tokio::test]
async fn the_command_shows_sets_and_clears() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let machine = Machine::new("127.0.0.1:1");
    let folder = server.data_dir().to_str().expect("UTF-8");
    let command = async |args: &[&str]| {
        let args = [&["admin", "limits"], args, &["--data-dir", folder]].concat();
        machine.run(&args).await
    };
    let shown = command(&["show", "alice"]).await.ok();
    assert_eq!(shown.matches("as for everybody").count(), 3, "{shown}");
    assert!(shown.starts_with("send rate       unlimited"), "{shown}");
    command(&["set", "alice", "--send-rate", "4/d"]).await.ok();
    let shown = command(&["set", "alice", "--subscriptions", "7"]).await.ok();
    assert!(shown.contains("send rate       4/d             their own"), "{shown}");
    assert!(shown.contains("send burst      4               as for everybody"), "{shown}");
    assert!(shown.contains("subscriptions   7               their own"), "{shown}");
    assert_eq!(sends(&alice).await, 4);
    command(&["set", "alice", "--subscriptions", "default"]).await.ok();
    let shown = crate::cli_support::parse(&command(&["show", "alice", "--json"]).await.ok());
    let own = json!({"send_rate": "4/d", "send_burst": null, "subscriptions": null});
    assert_eq!(shown[0]["own"], own);
    assert_eq!((&shown[0]["send_burst"], &shown[0]["subscriptions"]), (&4.into(), &256.into()));
    command(&["clear", "alice"]).await.ok();
    assert_eq!(sends(&alice).await, 10);

    command(&["set", "alice"]).await.fails(2, &["--send-rate"]);
    command(&["set", "alice", "--send-burst", "0"]).await.fails(2, &["default"]);
    command(&["set", "alice", "--send-rate", "fast"]).await.fails(1, &["send_rate", "10/s"]);
    command(&["show", "bob"]).await.fails(1, &["bob"]);
}
