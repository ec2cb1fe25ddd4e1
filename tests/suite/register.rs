//! `Register`: a new name, the address of an old one, and everything that is not a name or address.

use peerpost::domain::Token;
use peerpost::proto::{ErrorReason, RegisterRequest, RegisterResponse};
use peerpost::testing::{TestServer, TestUser, refused, within_patience};
use tonic::metadata::MetadataValue;
use tonic::{Request, Status};

use crate::support::{micros, now_micros};

#[tokio::test]
async fn a_new_name_gets_a_token_and_is_shown_as_registered() {
    let server = TestServer::start().await;
    let nobody = server.user("nobody").await;

    let before = now_micros();
    let answer = register(&nobody, "Alice.B_c-7", "192.0.2.7:9000").await.expect("accepted");
    let after = now_micros();

    assert!(Token::parse(&answer.token).is_ok(), "a token as the manual describes it");
    let user = answer.user.expect("the user");
    assert_eq!(user.username, "Alice.B_c-7");
    assert_eq!(user.ip_address, "192.0.2.7:9000");
    assert!((before..=after).contains(&micros(user.register_time.as_ref())));
    assert!(!user.online);
    assert_eq!(user.last_seen_time, None, "never subscribed");
}

#[tokio::test]
async fn every_new_name_gets_another_token() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    assert_ne!(alice.token, bob.token);
}

#[tokio::test]
async fn an_empty_address_is_the_one_the_server_sees() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let shown = alice.get_user("alice").await.expect("found").ip_address;
    assert_eq!(shown, "127.0.0.1", "without its port");
}

#[tokio::test]
async fn addresses_are_shown_in_canonical_form() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let table = [
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7:1", "192.0.2.7:1"),
        ("192.0.2.7:65535", "192.0.2.7:65535"),
        ("2001:DB8:0:0:0:0:0:7", "2001:db8::7"),
        ("[2001:db8::0007]:9000", "[2001:db8::7]:9000"),
        ("::1", "::1"),
    ];
    for (given, shown) in table {
        let answer = alice.try_register("alice", given).await.expect(given);
        assert_eq!(answer.user.expect("the user").ip_address, shown);
    }
}

#[tokio::test]
async fn names_at_the_bounds_are_accepted() {
    let server = TestServer::start().await;
    let nobody = server.user("nobody").await;
    for name in ["a", "7", "Z9", "a.b_c-d", "0._-", &"x".repeat(64)] {
        let answer = register(&nobody, name, "").await.expect(name);
        assert_eq!(answer.user.expect("the user").username, name);
    }
}

#[tokio::test]
async fn what_is_not_a_name_is_refused() {
    let server = TestServer::start().await;
    let nobody = server.user("nobody").await;
    let long = "x".repeat(65);
    let table = [
        "", &long, ".a", "_a", "-a", "a b", " a", "a ", "a/b", "a\0", "a\n", "älice", "\u{430}",
        "a@b",
    ];
    for name in table {
        let answer = register(&nobody, name, "").await;
        refused(answer, ErrorReason::InvalidField).names("username");
    }
}

#[tokio::test]
async fn what_is_not_an_address_is_refused() {
    let server = TestServer::start().await;
    let nobody = server.user("nobody").await;
    let table = [
        "localhost",
        "256.0.0.1",
        "1.2.3",
        " 1.2.3.4",
        "1.2.3.4 ",
        "1.2.3.4:",
        "1.2.3.4:0",
        "1.2.3.4:65536",
        "1.2.3.4:-1",
        "[::1]",
        "[::1]:0",
        "fe80::1%eth0",
        "[fe80::1%eth0]:9000",
        "[fe80::1%1]:9000",
        "http://1.2.3.4",
        "1.2.3.4/24",
    ];
    for address in table {
        let answer = register(&nobody, "bob", address).await;
        refused(answer, ErrorReason::InvalidField).names("ip_address");
    }
    refused(nobody.get_user("bob").await, ErrorReason::UserNotFound);
}

#[tokio::test]
async fn a_refusal_names_every_wrong_field() {
    let server = TestServer::start().await;
    let nobody = server.user("nobody").await;
    let refusal = refused(register(&nobody, "", "here").await, ErrorReason::InvalidField);
    assert_eq!(refusal.fields, ["username", "ip_address"]);
}

#[tokio::test]
async fn a_taken_name_is_refused_without_its_token_in_any_case() {
    let server = TestServer::start().await;
    let alice = server.user("Alice").await;
    let mallory = server.user("mallory").await;
    let stranger = Token::mint().reveal();
    let tokens = [None, Some(mallory.token.as_str()), Some(&stranger), Some("not-a-token")];
    for name in ["Alice", "alice", "ALICE"] {
        for token in tokens {
            let answer = register_with(&mallory, token, name, "203.0.113.6").await;
            let refusal = refused(answer, ErrorReason::UsernameTaken);
            assert!(refusal.metadata["username"].eq_ignore_ascii_case("alice"), "{refusal:?}");
        }
    }
    assert_eq!(alice.get_user("alice").await.expect("found").ip_address, "127.0.0.1");
}

#[tokio::test]
async fn its_own_token_updates_the_address_and_nothing_else() {
    let server = TestServer::start().await;
    let alice = server.user("Alice").await;
    let registered = alice.get_user("alice").await.expect("found");

    for name in ["Alice", "aLICE"] {
        let answer = alice.try_register(name, "203.0.113.6").await.expect("updated");
        assert_eq!(answer.token, "", "a token is shown once");
        let user = answer.user.expect("the user");
        assert_eq!(user.username, "Alice", "as first registered");
        assert_eq!(user.ip_address, "203.0.113.6");
        assert_eq!(user.register_time, registered.register_time);
    }
    let found = alice.get_user("alice").await.expect("the token is still good");
    assert_eq!(found.ip_address, "203.0.113.6");
}

#[tokio::test]
async fn an_update_with_an_empty_address_takes_the_one_the_server_sees() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    alice.try_register("alice", "203.0.113.6").await.expect("updated");
    let answer = alice.try_register("alice", "").await.expect("updated");
    assert_eq!(answer.user.expect("the user").ip_address, "127.0.0.1");
}

#[tokio::test]
async fn a_refused_update_changes_nothing() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    refused(alice.try_register("alice", "nowhere").await, ErrorReason::InvalidField)
        .names("ip_address");
    assert_eq!(alice.get_user("alice").await.expect("found").ip_address, "127.0.0.1");
}

#[tokio::test]
async fn a_registered_user_can_register_another_name() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let answer = alice.try_register("alices-bot", "").await.expect("a new name");
    assert!(Token::parse(&answer.token).is_ok());
    assert_ne!(answer.token, alice.token);
}

async fn register(
    through: &TestUser,
    username: &str,
    ip_address: &str,
) -> Result<RegisterResponse, Status> {
    register_with(through, None, username, ip_address).await
}

async fn register_with(
    through: &TestUser,
    token: Option<&str>,
    username: &str,
    ip_address: &str,
) -> Result<RegisterResponse, Status> {
    let (username, ip_address) = (username.to_owned(), ip_address.to_owned());
    let mut request = Request::new(RegisterRequest { username, ip_address, ..Default::default() });
    if let Some(token) = token {
        let value = MetadataValue::try_from(format!("Bearer {token}")).expect("ASCII");
        request.metadata_mut().insert("authorization", value);
    }
    let mut client = through.client();
    let answer = within_patience("Register", client.register(request)).await;
    answer.map(tonic::Response::into_inner)
}
