//! Who may register a new name: everybody, whoever has an invite, or nobody.

use peerpost::auth::RegistrationPolicy;
use peerpost::proto::ErrorReason;
use peerpost::proto::admin::CreateInviteRequest;
use peerpost::testing::{ServerProcess, refused};
use serde_json::json;
use tokio::task::JoinSet;

use crate::accounts_support::{audit, invite, register, registering};
use crate::cli_support::Machine;
use crate::http_support::Web;
use crate::support::binary;

fn uses(uses_max: i32) -> CreateInviteRequest {
    CreateInviteRequest { uses_max, ..Default::default() }
}

#[tokio::test]
async fn where_registration_is_closed_nobody_takes_a_new_name_and_everybody_keeps_theirs() {
    let mut server = registering(RegistrationPolicy::Open).await;
    let alice = server.user("alice").await;
    // An invite that is not needed is not used.
    let secret = invite(&server, uses(1)).await;
    register(&server, "bob", &secret).await.expect("open to all");
    server.stop().await;
    let options = server.options().clone();
    let server = peerpost::testing::TestServer::start_with(|it| {
        it.data_dir = options.data_dir.clone();
        it.registration = RegistrationPolicy::Closed;
    })
    .await;
    for invite in ["", &secret] {
        refused(register(&server, "carol", invite).await, ErrorReason::RegistrationClosed);
    }
    refused(register(&server, "alice", "").await, ErrorReason::UsernameTaken);
    let alice = alice.at(server.addr());
    alice.try_register("alice", "192.0.2.9").await.expect("her own address");
    refused(alice.try_register("carol", "").await, ErrorReason::RegistrationClosed);
    let reply = Web::at(server.addr())
        .post("/register", &json!({"username": "dora", "ip_address": "192.0.2.7"}))
        .await;
    assert_eq!(reply.status, 403, "the ancestor's call too");
}

#[tokio::test]
async fn an_invite_lets_in_as_many_as_it_is_for() {
    let server = registering(RegistrationPolicy::Invite).await;
    let secret = invite(&server, uses(2)).await;
    refused(register(&server, "alice", "").await, ErrorReason::InviteInvalid)
        .with("problem", "missing");
    refused(register(&server, "alice", "junk").await, ErrorReason::InvalidField).names("invite");
    let unknown = format!("pi_{}", "A".repeat(22));
    refused(register(&server, "alice", &unknown).await, ErrorReason::InviteInvalid)
        .with("problem", "unknown");
    let alice = register(&server, "alice", &secret).await.expect("let in");
    // A name that is taken takes no use.
    refused(register(&server, "ALICE", &secret).await, ErrorReason::UsernameTaken);
    register(&server, "bob", &secret).await.expect("let in");
    refused(register(&server, "carol", &secret).await, ErrorReason::InviteInvalid)
        .with("problem", "used_up");
    assert!(!alice.token.is_empty());
    let ttl = Some(prost_types::Duration { seconds: 0, nanos: 1 });
    let brief = invite(&server, CreateInviteRequest { ttl, ..uses(1) }).await;
    refused(register(&server, "carol", &brief).await, ErrorReason::InviteInvalid)
        .with("problem", "expired");
    let acts: Vec<_> = audit(&server).await.into_iter().map(|it| (it.actor, it.act)).collect();
    let used = |name: &str| (format!("user:{name}"), "invite.use".to_owned());
    assert_eq!(acts[1..3], [used("alice"), used("bob")]);
}

#[tokio::test]
async fn of_twice_as_many_at_once_exactly_as_many_as_it_is_for_are_let_in() {
    const USES: usize = 16;
    let server = std::sync::Arc::new(registering(RegistrationPolicy::Invite).await);
    let secret = invite(&server, uses(16)).await;
    let mut calls = JoinSet::new();
    for number in 0..2 * USES {
        let (server, secret) = (std::sync::Arc::clone(&server), secret.clone());
        calls.spawn(async move { register(&server, &format!("user-{number}"), &secret).await });
    }
    let (let_in, refusals): (Vec<_>, Vec<_>) =
        calls.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!((let_in.len(), refusals.len()), (USES, USES));
    for refusal in refusals {
        refused(refusal, ErrorReason::InviteInvalid).with("problem", "used_up");
    }
}

#[tokio::test]
async fn invites_are_made_listed_and_revoked_at_the_terminal_and_registered_with() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().to_str().expect("UTF-8").to_owned();
    let flags = ["--registration", "invite"];
    let server = ServerProcess::start_with(&[], binary(), folder.path(), &flags).await;
    let machine = Machine::new(server.addr());
    let admin = async |words: &[&str]| {
        machine.ok(&[&["admin"], words, &["--data-dir", &data]].concat()).await
    };
    let secret =
        admin(&["invites", "create", "--uses", "2", "--ttl", "7d", "--note", "team"]).await;
    let refused = machine.run(&["register", "alice"]).await;
    refused.fails(1, &["invite", "--invite"]);
    machine.ok(&["register", "alice", "--invite", secret.trim()]).await;
    let listed = crate::cli_support::parse(&admin(&["invites", "list", "--json"]).await);
    assert_eq!((&listed[0]["uses"], &listed[0]["note"]), (&json!(1), &json!("team")), "{listed:?}");
    let id = listed[0]["invite_id"].as_str().expect("an id");
    assert!(admin(&["invites", "list"]).await.contains("1 of 2 used"));
    admin(&["invites", "revoke", id]).await;
    machine.run(&["register", "bob", "--invite", secret.trim()]).await.fails(1, &["invite"]);
    let again = machine.run(&["admin", "invites", "revoke", id, "--data-dir", &data]).await;
    again.fails(1, &["no invite", "invites list"]);
    let stored = std::fs::read(crate::support::database_in(folder.path())).expect("readable");
    let secret = secret.trim().as_bytes();
    assert!(!stored.windows(secret.len()).any(|at| at == secret));
    server.kill();
}
