//! What an operator does to accounts, at the terminal and over the admin socket.

use peerpost::proto::ErrorReason;
use peerpost::proto::admin::CreateInviteRequest;
use peerpost::testing::{ServerProcess, TestServer, refused};
use serde_json::{Value, json};

use crate::accounts_support::{audit, ban, named, unban};
use crate::cli_support::{Machine, Outcome, parse};
use crate::support::{binary, subscribe_from_now};

/// A server process, and a terminal at its machine.
struct Scene {
    folder: tempfile::TempDir,
    server: ServerProcess,
    machine: Machine,
}

impl Scene {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let server = ServerProcess::start(binary(), folder.path()).await;
        let machine = Machine::new(server.addr());
        Self { folder, server, machine }
    }

    async fn run(&self, words: &[&str]) -> Outcome {
        let data = self.folder.path().to_str().expect("UTF-8");
        self.machine.run(&[&["admin"], words, &["--data-dir", data]].concat()).await
    }

    async fn ok(&self, words: &[&str]) -> String {
        self.run(words).await.ok()
    }

    async fn json(&self, words: &[&str]) -> Vec<Value> {
        parse(&self.ok(&[words, &["--json"]].concat()).await)
    }
}

#[tokio::test]
async fn a_banned_user_is_out_at_once_and_in_again_when_it_is_lifted() {
    let mut server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let following = alice.subscribe(subscribe_from_now()).await.expect("accepted");
    ban(&server, "Alice", "junk").await;
    let (_, status) = following.drain().await;
    refused(Err::<(), _>(status), ErrorReason::UserBanned);
    refused(alice.get_user("bob").await, ErrorReason::UserBanned).with("username", "alice");
    refused(alice.subscribe(subscribe_from_now()).await, ErrorReason::UserBanned);
    refused(alice.try_register("alice", "").await, ErrorReason::UserBanned);
    bob.send("alice", "the mailbox goes on").await;
    assert!(!bob.get_user("alice").await.expect("found").online);
    server.restart().await;
    let (alice, bob) = (alice.at(server.addr()), bob.at(server.addr()));
    refused(alice.get_user("bob").await, ErrorReason::UserBanned);
    bob.send("alice", "and on").await;
    unban(&server, "alice").await;
    assert_eq!(alice.mailbox().await.len(), 2);
    let acts: Vec<_> = audit(&server).await.into_iter().map(|it| (it.act, it.details)).collect();
    let act = |act: &str, details: &str| (act.to_owned(), details.to_owned());
    assert_eq!(acts, [act("user.ban", "junk"), act("user.unban", "")]);
}

/// There no token is asked for, and a name is enough.
#[tokio::test]
async fn who_is_banned_or_deleted_is_out_of_an_open_server_too() {
    let server = TestServer::start_with(|options| options.open = true).await;
    let web = |name: &str| crate::http_support::Web::at(server.addr()).with("peerpost-user", name);
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let mut events = web("alice").events("from_now=true").await.expect("accepted");
    assert_eq!(events.next().await.expect("the first").name, "started");
    ban(&server, "alice", "").await;
    let reason = loop {
        let event = events.next().await.expect("the error");
        if event.name == "error" {
            break event.data["reason"].clone();
        }
    };
    assert_eq!(reason, "USER_BANNED");
    assert_eq!(web("alice").get("/v1/users").await.problem()["reason"], "USER_BANNED");
    unban(&server, "alice").await;
    assert_eq!(web("alice").get("/v1/users").await.status, 200);
    drop(alice);
    bob.delete("bob").await.expect("deleted");
    assert_eq!(web("bob").get("/v1/users").await.problem()["reason"], "USER_NOT_FOUND");
}

#[tokio::test]
async fn users_are_listed_shown_banned_and_deleted() {
    let scene = Scene::new().await;
    let (alice, bob) = (scene.server.user("alice").await, scene.server.user("bob").await);
    let banned = scene.ok(&["users", "ban", "bob", "--reason", "sends junk"]).await;
    assert!(banned.contains("banned") && banned.contains("sends junk"), "{banned}");
    refused(bob.get_user("alice").await, ErrorReason::UserBanned);
    let shown = scene.json(&["users", "show", "bob"]).await;
    assert_eq!((&shown[0]["standing"], &shown[0]["tokens"]), (&json!("banned"), &json!(1)));
    scene.run(&["users", "delete", "alice"]).await.fails(2, &["--yes"]);
    scene.ok(&["users", "delete", "alice", "--yes"]).await;
    refused(alice.get_user("bob").await, ErrorReason::TokenUnknown);
    scene.run(&["users", "delete", "alice", "--yes"]).await.fails(1, &["no user alice"]);
    scene.run(&["users", "show", "carol"]).await.fails(1, &["no user carol"]);
    let listed = scene.json(&["users", "list"]).await;
    let standings: Vec<_> = listed.iter().map(|it| (&it["username"], &it["standing"])).collect();
    let expected = [(json!("alice"), json!("deleted")), (json!("bob"), json!("banned"))];
    assert_eq!(standings, expected.each_ref().map(|(name, standing)| (name, standing)));
    let unbanned = scene.ok(&["users", "unban", "bob"]).await;
    assert!(unbanned.contains("active"), "{unbanned}");
    bob.tokens().await.expect("good again");

    let log = scene.json(&["audit", "--since", "1h"]).await;
    let acts: Vec<_> = log.iter().map(|it| it["act"].as_str().expect("an act")).collect();
    assert_eq!(acts, ["user.ban", "user.delete", "user.unban"]);
    let uid = format!("uid:{}", rustix::process::geteuid().as_raw());
    assert!(log.iter().all(|it| it["actor"] == uid.as_str()), "{log:?}");
    assert!(scene.server.stderr().contains("user.ban"), "it is in the log as well");
    let stats = scene.json(&["stats"]).await;
    assert_eq!((&stats[0]["users"], &stats[0]["tokens"]), (&json!(1), &json!(1)));
    scene.server.kill();
}

#[tokio::test]
async fn a_lost_token_is_replaced_and_all_others_end() {
    let scene = Scene::new().await;
    let alice = scene.server.user("alice").await;
    let (laptop, listed) = alice.create_token(named("laptop")).await.expect("made");
    let following = laptop.subscribe(subscribe_from_now()).await.expect("accepted");
    let secret = scene.ok(&["tokens", "create", "alice", "--name", "new", "--revoke-others"]).await;
    refused(Err::<(), _>(following.drain().await.1), ErrorReason::TokenUnknown);
    refused(alice.get_user("alice").await, ErrorReason::TokenUnknown);
    let alice = alice.with_token(secret.trim());
    assert_eq!(alice.tokens().await.expect("good").len(), 1);
    let tokens = scene.json(&["tokens", "list", "alice"]).await;
    assert_eq!(tokens[0]["display_name"], "new");
    scene.run(&["tokens", "revoke", "alice", &listed.token_id]).await.fails(1, &["no token"]);
    scene.run(&["tokens", "revoke", "alice"]).await.fails(2, &["--all"]);
    scene.ok(&["tokens", "revoke", "alice", "--all"]).await;
    refused(alice.get_user("alice").await, ErrorReason::TokenUnknown);
    let log = scene.server.stderr();
    assert!(!log.contains(&secret.trim()[3..]), "{log}");
    let audit = scene.ok(&["audit"]).await;
    assert!(audit.contains("token.create") && !audit.contains(&secret.trim()[3..]), "{audit}");
    scene.server.kill();
}

#[tokio::test]
async fn a_user_manages_tokens_and_their_end_at_the_terminal() {
    let scene = Scene::new().await;
    let machine = &scene.machine;
    machine.ok(&["register", "alice"]).await;
    let secret = machine.ok(&["token", "create", "--name", "report", "--ttl", "30d"]).await;
    let listed = machine.json(&["token", "list", "--json"]).await;
    assert_eq!((listed.len(), &listed[1]["display_name"]), (2, &json!("report")));
    assert_eq!(listed[0]["current"], json!(true));
    let send = ["send", "alice", "by the report"];
    machine.run_with("PEERPOST_TOKEN", secret.trim(), &send).await.ok();
    let id = listed[1]["token_id"].as_str().expect("an id");
    machine.ok(&["token", "revoke", id]).await;
    machine.run_with("PEERPOST_TOKEN", secret.trim(), &send).await.fails(1, &["token"]);
    machine.run(&["token", "revoke", id]).await.fails(1, &["token list"]);
    machine.run(&["token", "create", "--ttl", "30"]).await.fails(2, &["30d"]);
    machine.run(&["delete-user", "bob"]).await.fails(1, &["not the caller's own name"]);
    machine.ok(&["delete-user", "alice"]).await;
    machine.run(&["users"]).await.fails(1, &["nobody is registered"]);
    scene.server.kill();
}

/// What decides who is let in is held against its checksum, by `check` and by every look-up.
#[tokio::test]
async fn what_is_not_what_was_written_is_found_and_lets_nobody_in() {
    use diesel::connection::SimpleConnection as _;
    use diesel::{Connection as _, SqliteConnection};
    let mut server = TestServer::start().await;
    let (alice, _bob) = (server.user("alice").await, server.user("bob").await);
    let lasting = crate::accounts_support::lasting(crate::support::seconds(1_000));
    let (brief, _) = alice.create_token(lasting).await.expect("made");
    ban(&server, "bob", "").await;
    crate::accounts_support::invite(&server, CreateInviteRequest::default()).await;
    server.stop().await;
    let path = crate::support::database_in(server.data_dir());
    let mut connection = SqliteConnection::establish(path.to_str().expect("UTF-8")).expect("opens");
    let whole = peerpost::store::check(server.data_dir()).expect("readable");
    assert_eq!(whole.findings, []);
    connection
        .batch_execute(
            "UPDATE tokens SET expire_time_us = NULL WHERE expire_time_us IS NOT NULL;
             UPDATE users SET standing = 0 WHERE name = 'bob';
             UPDATE invites SET uses_max = 100;
             UPDATE audit_log SET actor = 'uid:0' WHERE by_operator = 0;",
        )
        .expect("executes");
    drop(connection);
    let report = peerpost::store::check(server.data_dir()).expect("readable");
    let found: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
    for part in ["token", "what they may do", "invite", "audit log"] {
        assert!(found.iter().any(|it| it.contains(part)), "{part}: {found:?}");
    }
    server.start_again().await;
    refused(brief.at(server.addr()).get_user("alice").await, ErrorReason::StoredDataDamaged);
    alice.at(server.addr()).send("alice", "hers is whole").await;
}
