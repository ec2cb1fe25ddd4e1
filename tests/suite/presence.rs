//! Presence: online while a subscription is open, last seen when the last one ended.

use peerpost::proto::User;
use peerpost::testing::{ServerProcess, TestServer, TestUser, after, eventually};

use crate::support::{binary, list, micros, now_micros};

#[tokio::test]
async fn a_user_is_online_while_a_subscription_is_open() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    assert!(!bob.get_user("alice").await.expect("found").online);

    let following = alice.follow(0).await;
    let asked = now_micros();
    let shown = bob.get_user("alice").await.expect("found");
    assert!(shown.online);
    assert!(micros(shown.last_seen_time.as_ref()) >= asked, "the present for one who is online");

    drop(following);
    gone(&bob, "alice").await;
}

#[tokio::test]
async fn one_who_went_was_last_seen_when_they_went() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    for _again in 0..20 {
        let following = alice.follow(0).await;
        let present = bob.get_user("alice").await.expect("found").last_seen_time;
        drop(following);
        let left = gone(&bob, "alice").await.last_seen_time;
        assert!(micros(left.as_ref()) >= micros(present.as_ref()), "not before they were seen");
        let later = bob.get_user("alice").await.expect("found").last_seen_time;
        assert_eq!(later, left, "it stands still for one who is gone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn last_seen_never_goes_backwards() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    for _again in 0..20 {
        drop(alice.follow(0).await);
        let mut shown = 0;
        eventually("the user going offline", async || {
            let user = bob.get_user("alice").await.expect("found");
            let earlier = std::mem::replace(&mut shown, micros(user.last_seen_time.as_ref()));
            assert!(shown >= earlier, "{} microseconds back", earlier - shown);
            (!user.online).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn the_last_of_several_subscriptions_takes_a_user_offline() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let (first, second) = (alice.follow(0).await, alice.follow(0).await);
    drop(first);
    // The first is surely gone once a third one, opened and closed after it, is.
    drop(alice.follow(0).await);
    for _ in 0..20 {
        assert!(bob.get_user("alice").await.expect("found").online);
    }
    drop(second);
    gone(&bob, "alice").await;
}

#[tokio::test]
async fn other_calls_make_nobody_online() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    alice.send("alice", "note").await;
    alice.get(after(0)).await.expect("a page");
    alice.acknowledge(1).await.expect("accepted");
    let shown = alice.get_user("alice").await.expect("found");
    assert!(!shown.online);
    assert_eq!(shown.last_seen_time, None, "never subscribed");
}

#[tokio::test]
async fn lists_show_who_is_online() {
    let server = TestServer::start().await;
    let (alice, _bob) = (server.user("alice").await, server.user("bob").await);
    let _following = alice.follow(0).await;
    let page = alice.list_users(list("", 0, "")).await.expect("a page");
    let online: Vec<_> = page.users.iter().map(|user| user.online).collect();
    assert_eq!(online, [true, false]);
    assert!(page.users[0].last_seen_time.is_some());
    assert_eq!(page.users[1].last_seen_time, None);
}

#[tokio::test]
async fn last_seen_outlives_a_restart() {
    let mut server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    drop(alice.follow(0).await);
    let shown = gone(&bob, "alice").await;
    server.restart().await;
    let again = bob.at(server.addr()).get_user("alice").await.expect("found");
    assert_eq!(again, shown);
}

#[tokio::test]
async fn one_who_is_online_at_a_clean_stop_was_last_seen_then() {
    let mut server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let _following = alice.follow(0).await;
    let stopping = now_micros();
    server.restart().await;
    let shown = bob.at(server.addr()).get_user("alice").await.expect("found");
    assert!(!shown.online);
    assert!(micros(shown.last_seen_time.as_ref()) >= stopping);
}

#[tokio::test]
async fn after_a_crash_it_is_when_the_last_subscription_began() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let server = ServerProcess::start(binary(), &data_dir).await;
    let alice = server.user("alice").await;
    let before = now_micros();
    let _following = alice.follow(0).await;
    let began_by = now_micros();
    // A send that is answered is on disk, and so is what was written before it.
    alice.send("alice", "note").await;
    server.kill();

    let server = ServerProcess::start(binary(), &data_dir).await;
    let shown = alice.at(server.addr()).get_user("alice").await.expect("found");
    assert!(!shown.online);
    let last_seen = micros(shown.last_seen_time.as_ref());
    assert!((before..=began_by).contains(&last_seen), "{before} {last_seen} {began_by}");
}

/// The user once they are offline.
async fn gone(reader: &TestUser, name: &str) -> User {
    eventually("the user going offline", async || {
        let user = reader.get_user(name).await.expect("found");
        (!user.online).then_some(user)
    })
    .await
}
