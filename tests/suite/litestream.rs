//! Litestream beside the server, as docs/OPERATIONS.md has it: what it replicated while messages came is
//! restored to a prefix of what was acknowledged.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use peerpost::proto::{ErrorReason, Message};
use peerpost::testing::{
    ServerProcess, TestUser, after, eventually, refused, text_to, within_patience,
};

use crate::cli_support::Machine;
use crate::support::{assert_dense_from, assert_same_view, binary, database_in, subscribe_after};

/// What has to be in the replica before the end comes.
const REPLICATED: usize = 200;

/// Litestream, replicating. It ends with the value.
struct Litestream(Child);

impl Litestream {
    /// `None` where it is not installed.
    fn replicate(database: &Path, url: &str) -> Option<Self> {
        let child = Command::new("litestream")
            .args(["replicate", database.to_str().expect("UTF-8"), url])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        child.ok().map(Self)
    }
}

impl Drop for Litestream {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Writes the replica's newest state to a new file. Not, while there is none.
fn restored(url: &str, file: &Path) -> bool {
    let arguments = ["restore", "-o", file.to_str().expect("UTF-8"), url];
    let output = Command::new("litestream").args(arguments).output().expect("it was there before");
    output.status.success()
}

/// Sends until the server is gone; what was answered.
async fn send_until_the_end(alice: TestUser) -> Vec<Message> {
    let mut answered = Vec::new();
    while let Ok(message) = alice.try_send(text_to("bob", format!("m{}", answered.len()))).await {
        answered.push(message);
    }
    answered
}

#[tokio::test(flavor = "multi_thread")]
async fn what_litestream_replicated_is_restored_to_a_prefix_of_what_was_acknowledged() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    let data = path("data");
    let server = ServerProcess::start(binary(), &data).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let url = format!("file://{}", path("replica").display());
    let Some(replicating) = Litestream::replicate(&database_in(&data), &url) else {
        // Not `eprintln`, which the test harness would keep to itself.
        let _ = writeln!(
            std::io::stderr(),
            "\n\nSKIPPED litestream: there is no `litestream` on the PATH; \
             NOTHING OF REPLICATION WAS TESTED\n"
        );
        return;
    };
    let sending = tokio::spawn(send_until_the_end(alice.clone()));

    let machine = Machine::new("http://127.0.0.1:1");
    let mut looks = 0;
    eventually("a replica that follows", async || {
        looks += 1;
        let look = path(&format!("look{looks}.db"));
        if !restored(&url, &look) {
            return None;
        }
        let file = look.to_str().expect("UTF-8");
        let checked = machine.ok(&["admin", "check", "--file", file]).await;
        let messages = checked.split(", ").find_map(|part| part.strip_suffix(" messages"))?;
        (messages.parse::<usize>().expect("a number") >= REPLICATED).then_some(())
    })
    .await;
    let epoch = bob.get(after(0)).await.expect("a page").epoch;
    // In the midst of sends, both at once.
    server.kill();
    drop(replicating);
    let answered = within_patience("the sender", sending).await.expect("does not panic");

    let copy = path("copy.db");
    assert!(restored(&url, &copy), "nothing was restored");
    let text = |name: &str| path(name).to_str().expect("UTF-8").to_owned();
    machine.ok(&["admin", "restore", &text("copy.db"), "--data-dir", &text("restored")]).await;
    let checked = machine.ok(&["admin", "check", "--data-dir", &text("restored")]).await;
    assert!(checked.contains("nothing is wrong"), "{checked}");

    let server = ServerProcess::start(binary(), &data).await;
    let whole = bob.at(server.addr()).mailbox().await;
    let sent = alice.at(server.addr()).mailbox().await;
    server.kill();
    assert_same_view(&sent[..answered.len()], &answered);

    let server = ServerProcess::start(binary(), &path("restored")).await;
    let bob = bob.at(server.addr());
    let kept = bob.mailbox().await;
    assert!(kept.len() >= REPLICATED, "only {}", kept.len());
    assert_dense_from(1, &kept);
    // The last one of all may have been replicated from a commit that had not come to its end.
    let known = kept.len().min(whole.len());
    assert!(kept.len() <= whole.len() + 1, "{} of {}", kept.len(), whole.len());
    assert_same_view(&kept[..known], &whole[..known]);
    let mut cursor = subscribe_after(1);
    cursor.epoch = epoch;
    refused(bob.subscribe(cursor).await, ErrorReason::EpochMismatch);
    server.kill();
}
