//! `ListUsers`: in order of their lower-case names, by prefix, page by page.

use peerpost::proto::{ErrorReason, User};
use peerpost::testing::{TestServer, TestUser, refused};
use tokio::task::JoinSet;

use crate::support::list;

#[tokio::test]
async fn users_come_in_order_of_their_lower_case_names() {
    let server = TestServer::start().await;
    let reader = register_all(&server, &["Zoe", "adam", "Bob", "bea", "0x", "b.b", "b_b"]).await;
    let page = reader.list_users(list("", 0, "")).await.expect("a page");
    assert_eq!(names(&page.users), ["0x", "adam", "b.b", "b_b", "bea", "Bob", "Zoe"]);
    assert_eq!(page.next_page_token, "", "this was the last");
    let adam = &page.users[1];
    assert_eq!(adam, &reader.get_user("adam").await.expect("found"), "as GetUser shows them");
}

#[tokio::test]
async fn a_prefix_selects_without_regard_to_case() {
    let server = TestServer::start().await;
    let reader = register_all(&server, &["Anna", "anton", "ANT", "bob", "an"]).await;
    let table: [(&str, &[&str]); 7] = [
        ("an", &["an", "Anna", "ANT", "anton"]),
        ("AN", &["an", "Anna", "ANT", "anton"]),
        ("ant", &["ANT", "anton"]),
        ("bob", &["bob"]),
        ("bobb", &[]),
        ("z", &[]),
        (".", &[]),
    ];
    for (prefix, expected) in table {
        let page = reader.list_users(list(prefix, 0, "")).await.expect(prefix);
        assert_eq!(names(&page.users), expected, "{prefix}");
        assert_eq!(page.next_page_token, "");
    }
}

#[tokio::test]
async fn punctuation_in_a_prefix_stands_for_itself() {
    let server = TestServer::start().await;
    let reader = register_all(&server, &["a_b", "axb", "a.b", "a-b", "ab"]).await;
    for (prefix, expected) in [("a_", "a_b"), ("a.", "a.b"), ("a-", "a-b")] {
        let page = reader.list_users(list(prefix, 0, "")).await.expect(prefix);
        assert_eq!(names(&page.users), [expected]);
    }
}

#[tokio::test]
async fn what_is_not_a_prefix_is_refused() {
    let server = TestServer::start().await;
    let reader = server.user("reader").await;
    let long = "x".repeat(65);
    for prefix in [&long, "a b", "%", "*", "ä", "a\0"] {
        refused(reader.list_users(list(prefix, 0, "")).await, ErrorReason::InvalidField)
            .names("prefix");
    }
    let longest = "x".repeat(64);
    assert!(reader.list_users(list(&longest, 0, "")).await.is_ok());
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_overlap() {
    let server = TestServer::start().await;
    let all = ["a1", "a2", "a3", "a4", "a5", "a6", "b1"];
    let reader = register_all(&server, &all).await;
    for page_size in 1..=7 {
        assert_eq!(walk(&reader, "a", page_size).await, all[..6], "pages of {page_size}");
        assert_eq!(walk(&reader, "", page_size).await, all, "pages of {page_size}");
    }
}

#[tokio::test]
async fn a_full_last_page_has_no_next() {
    let server = TestServer::start().await;
    let reader = register_all(&server, &["a1", "a2", "a3", "a4"]).await;
    let first = reader.list_users(list("a", 2, "")).await.expect("a page");
    assert_eq!(names(&first.users), ["a1", "a2"]);
    let last = reader.list_users(list("a", 2, &first.next_page_token)).await.expect("a page");
    assert_eq!(names(&last.users), ["a3", "a4"]);
    assert_eq!(last.next_page_token, "");
}

#[tokio::test]
async fn a_name_registered_between_two_pages_appears_if_it_is_ahead() {
    let server = TestServer::start().await;
    let reader = register_all(&server, &["b", "d", "f"]).await;
    let first = reader.list_users(list("", 2, "")).await.expect("a page");
    assert_eq!(names(&first.users), ["b", "d"]);
    register_all(&server, &["a", "c", "e"]).await;
    let rest = reader.list_users(list("", 10, &first.next_page_token)).await.expect("a page");
    assert_eq!(names(&rest.users), ["e", "f"]);
}

#[tokio::test]
async fn a_page_holds_100_unless_said_otherwise_and_1000_at_most() {
    let server = TestServer::start().await;
    let reader = register_many(&server, 1_001).await;
    for (page_size, expected) in [(0, 100), (1, 1), (999, 999), (1_000, 1_000), (1_001, 1_000)] {
        let page = reader.list_users(list("", page_size, "")).await.expect("a page");
        assert_eq!(page.users.len(), expected, "page_size {page_size}");
        assert_ne!(page.next_page_token, "");
    }
    let page = reader.list_users(list("", i32::MAX, "")).await.expect("a page");
    assert_eq!(page.users.len(), 1_000);
    assert_eq!(walk(&reader, "", 1_000).await.len(), 1_001);
}

#[tokio::test]
async fn a_negative_page_size_is_refused() {
    let server = TestServer::start().await;
    let reader = server.user("reader").await;
    for page_size in [-1, i32::MIN] {
        refused(reader.list_users(list("", page_size, "")).await, ErrorReason::InvalidField)
            .names("page_size");
    }
}

#[tokio::test]
async fn what_is_not_a_page_token_is_refused() {
    let server = TestServer::start().await;
    let reader = server.user("reader").await;
    let long = "x".repeat(10_000);
    for token in ["?", "not a token", "ä", "\0", &long] {
        refused(reader.list_users(list("", 0, token)).await, ErrorReason::InvalidField)
            .names("page_token");
    }
}

fn names(users: &[User]) -> Vec<&str> {
    users.iter().map(|user| user.username.as_str()).collect()
}

/// Registers these names; the last of them reads.
async fn register_all(server: &TestServer, names: &[&str]) -> TestUser {
    let mut reader = None;
    for name in names {
        reader = Some(server.user(name).await);
    }
    reader.expect("at least one name")
}

async fn register_many(server: &TestServer, count: usize) -> TestUser {
    let mut tasks = JoinSet::new();
    let addr = server.addr();
    for worker in 0..32 {
        tasks.spawn(async move {
            for i in (worker..count - 1).step_by(32) {
                TestUser::register(addr, &format!("user{i:04}")).await;
            }
        });
    }
    tasks.join_all().await;
    server.user("reader").await
}

async fn walk(reader: &TestUser, prefix: &str, page_size: i32) -> Vec<String> {
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let page = reader.list_users(list(prefix, page_size, &token)).await.expect("a page");
        all.extend(page.users.into_iter().map(|user| user.username));
        if page.next_page_token.is_empty() {
            return all;
        }
        token = page.next_page_token;
    }
}
