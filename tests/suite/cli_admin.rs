//! `peerpost admin`, beside a server under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, SqliteConnection};
use peerpost::proto::ErrorReason;
use peerpost::testing::{ServerProcess, TestUser, after, refused, within_patience};

use crate::cli_support::Machine;
use crate::support::{assert_dense_from, binary, database_in, subscribe_after};

/// What was acknowledged before the backup began.
const BEFORE: usize = 50;

async fn send(alice: &TestUser, numbers: impl IntoIterator<Item = usize>) {
    for number in numbers {
        alice.send("bob", &format!("m{number}")).await;
    }
}

#[tokio::test]
async fn a_backup_under_load_restores_to_a_prefix_and_old_cursors_are_told() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let server = ServerProcess::start(binary(), &data).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    send(&alice, 0..BEFORE).await;

    let is_backed_up = Arc::new(AtomicBool::new(false));
    let sending = tokio::spawn({
        let (alice, is_backed_up) = (alice.clone(), Arc::clone(&is_backed_up));
        async move {
            let mut sent = BEFORE;
            while !is_backed_up.load(Ordering::Relaxed) {
                send(&alice, [sent]).await;
                sent += 1;
            }
            sent
        }
    });
    let machine = Machine::new("http://127.0.0.1:1");
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (data, copy, restored) = (path("data"), path("copy.db"), path("restored"));
    let told = machine.ok(&["admin", "backup", &copy, "--data-dir", &data]).await;
    assert!(told.contains("messages"), "{told}");
    is_backed_up.store(true, Ordering::Relaxed);
    let sent = within_patience("the sender", sending).await.expect("does not panic");
    let checked = machine.ok(&["admin", "check", "--data-dir", &data]).await;
    assert!(checked.contains("nothing is wrong"), "{checked}");
    let whole = bob.mailbox().await;
    let epoch = bob.get(after(0)).await.expect("a page").epoch;
    assert_eq!(whole.len(), sent);
    server.kill();

    machine.ok(&["admin", "check", "--file", &copy]).await;
    machine.ok(&["admin", "restore", &copy, "--data-dir", &restored]).await;
    let again = machine.run(&["admin", "restore", &copy, "--data-dir", &restored]).await;
    assert!(again.code == Some(1) && again.stderr.contains("is there already"), "{again:?}");

    let server = ServerProcess::start(binary(), restored.as_ref()).await;
    let bob = bob.at(server.addr());
    let kept = bob.mailbox().await;
    assert!(kept.len() >= BEFORE, "what was acknowledged before it is in it");
    assert_dense_from(1, &kept);
    assert_eq!(kept, whole[..kept.len()], "a prefix of what was acknowledged");
    let mut cursor = subscribe_after(1);
    cursor.epoch = epoch;
    refused(bob.subscribe(cursor).await, ErrorReason::EpochMismatch);
    server.kill();
}

#[tokio::test]
async fn a_check_says_what_is_wrong_with_exit_code_1() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = ServerProcess::start(binary(), folder.path()).await;
    let alice = server.user("alice").await;
    alice.send("alice", "a note").await;
    server.kill();
    let path = database_in(folder.path());
    SqliteConnection::establish(path.to_str().expect("UTF-8"))
        .expect("opens")
        .batch_execute("UPDATE message_log SET body = x'41'")
        .expect("executes");
    let machine = Machine::new("http://127.0.0.1:1");
    let data = folder.path().to_str().expect("UTF-8");
    let outcome = machine.run(&["admin", "check", "--data-dir", data]).await;
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stdout.contains("position 1 is not what was written"), "{outcome:?}");
    assert!(outcome.stderr.contains("1 findings"), "{outcome:?}");

    let absent = machine.run(&["admin", "check", "--data-dir", "absent"]).await;
    assert!(absent.code == Some(1) && absent.stderr.contains("absent"), "{absent:?}");
}
