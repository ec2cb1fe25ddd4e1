//! `GetUser`: found in any case, shown as registered.

use peerpost::proto::ErrorReason;
use peerpost::testing::{TestServer, refused};

#[tokio::test]
async fn a_user_is_found_in_any_case_and_shown_as_registered() {
    let server = TestServer::start().await;
    let alice = server.user("Alice").await;
    let bob = server.user("bob").await;
    for name in ["Alice", "alice", "ALICE"] {
        let found = bob.get_user(name).await.expect(name);
        assert_eq!(found.username, "Alice");
        assert_eq!(found.ip_address, "127.0.0.1");
        assert!(found.register_time.is_some());
        assert!(!found.online);
        assert_eq!(found.last_seen_time, None);
    }
    assert_eq!(alice.get_user("BOB").await.expect("found").username, "bob");
}

#[tokio::test]
async fn a_reader_finds_themselves() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    assert_eq!(alice.get_user("alice").await.expect("found").username, "alice");
}

#[tokio::test]
async fn what_is_not_a_name_is_refused() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let long = "x".repeat(65);
    for name in ["", &long, ".a", "a b", "älice", "a\0"] {
        refused(alice.get_user(name).await, ErrorReason::InvalidField).names("username");
    }
}

#[tokio::test]
async fn a_name_that_nobody_has_is_not_found() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    for name in ["alic", "alice2", "bob", &"x".repeat(64)] {
        refused(alice.get_user(name).await, ErrorReason::UserNotFound)
            .with("username", name)
            .with("field", "username");
    }
}
