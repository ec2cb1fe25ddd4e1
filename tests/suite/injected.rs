//! System calls of a running server that fail, by `strace`: syncs and writes of its storage.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, SqliteConnection};
use peerpost::proto::ErrorReason;
use peerpost::proto::send_message_request::Body;
use peerpost::testing::{ServerProcess, eventually, refused, text_to};
use tonic_health::pb::health_check_response::ServingStatus;

use crate::faults::{
    Record, assert_stored_once, eventually_is, health, reads_go_on, send_until_refused,
};
use crate::support::{assert_same_view, binary, database_in, with_id};

/// Which calls fail, with what, and why a send is refused then.
const FAILURES: [(&str, &str, ErrorReason); 3] = [
    ("fsync,fdatasync", "EIO", ErrorReason::StorageFailing),
    ("pwrite64", "EIO", ErrorReason::StorageFailing),
    ("pwrite64", "ENOSPC", ErrorReason::DiskFull),
];

/// System calls of a process that fail for as long as this is held.
struct Injection {
    strace: Child,
    /// Held, so that `strace` can go on writing to it.
    _stderr: BufReader<ChildStderr>,
}

impl Injection {
    /// Lets `calls` of a process fail with `error`; says why it cannot.
    fn begin(process: u32, calls: &str, error: &str) -> Result<Self, String> {
        let mut strace = Command::new("strace")
            .args(["-f", "-o", "/dev/null", "-e", &format!("trace={calls}")])
            .args(["-e", &format!("inject={calls}:error={error}")])
            .args(["-p", &process.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("strace: {error}"))?;
        let mut stderr = BufReader::new(strace.stderr.take().expect("stderr is piped"));
        let mut line = String::new();
        stderr.read_line(&mut line).expect("stderr can be read");
        let this = Self { strace, _stderr: stderr };
        if line.contains("attached") { Ok(this) } else { Err(line.trim().to_owned()) }
    }

    /// The calls work again.
    fn end(mut self) {
        // Asked to end, it lets go of the process; killed, it might take it along.
        let pid = self.strace.id().to_string();
        let status = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(status.expect("`kill` can be run").success(), "`kill -TERM {pid}` failed");
        self.strace.wait().expect("a child can be waited for");
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        // Fails only for a child that has ended already.
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

/// Says on the terminal, even when tests are quiet, that a test did not run.
fn skipped(test: &str, missing: &str, untested: &str) {
    // Not `eprintln`, which the test harness would keep to itself.
    let _ = writeln!(
        std::io::stderr(),
        "\n\nSKIPPED injected::{test}: this system does not grant what it needs ({missing}); \
         {untested}\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
pub(crate) async fn syncs_and_writes_that_fail_lose_nothing_and_double_nothing() {
    for (calls, error, reason) in FAILURES {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data_dir = folder.path().join("data");
        let server = ServerProcess::start(binary(), &data_dir).await;
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let mut live = bob.follow(0).await;
        let mut health = health(server.addr());
        let sending = tokio::spawn(send_until_refused(alice.clone(), reason));
        let mut view = live.messages(5).await;
        let injection = match Injection::begin(server.id(), calls, error) {
            Ok(injection) => injection,
            Err(missing) => {
                sending.abort();
                skipped(
                    "syncs_and_writes_that_fail_lose_nothing_and_double_nothing",
                    &format!("`strace` that may attach to a process of its own user: {missing}"),
                    "NOTHING OF FAILING SYNCS WAS TESTED",
                );
                return;
            }
        };

        let record = sending.await.expect("a sender does not panic");
        eventually_is(&mut health, ServingStatus::NotServing).await;
        refused(bob.acknowledge(1).await, reason);
        refused(alice.try_register("carol", "").await, reason);
        let before = bob.mailbox().await;
        reads_go_on(&bob, &before).await;
        record.assert_stored(server.addr()).await;

        injection.end();
        eventually_is(&mut health, ServingStatus::Serving).await;
        if reason == ErrorReason::StorageFailing {
            assert_written_anew(&record, &data_dir);
        }
        record.send_again(server.addr()).await;
        let sent = record.answered.len() + 1;
        let mailbox = bob.mailbox().await;
        assert_stored_once(&mailbox, sent);
        assert_same_view(&before, &mailbox[..before.len()]);
        view.extend(live.messages(sent - view.len()).await);
        assert_same_view(&view, &mailbox);

        server.kill();
        let server = ServerProcess::start(binary(), &data_dir).await;
        assert_same_view(&bob.at(server.addr()).mailbox().await, &mailbox);
    }
}

/// A backup that takes long, or what replicates the database, keeps the write-ahead log from being
/// emptied for as long as it runs.
#[tokio::test(flavor = "multi_thread")]
pub(crate) async fn a_reader_that_stays_does_not_keep_the_storage_from_recovering() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let server = ServerProcess::start(binary(), &data_dir).await;
    let alice = server.user("alice").await;
    let mut health = health(server.addr());
    alice.send_many("alice", "before ", 3).await;
    let database = database_in(&data_dir);
    let mut reader = SqliteConnection::establish(database.to_str().expect("UTF-8")).expect("opens");
    reader.batch_execute("BEGIN; SELECT * FROM message_log").expect("reads");
    let kept = alice.send_many("alice", "beside ", 3).await;

    let injection = match Injection::begin(server.id(), "fsync,fdatasync", "EIO") {
        Ok(injection) => injection,
        Err(missing) => {
            return skipped(
                "a_reader_that_stays_does_not_keep_the_storage_from_recovering",
                &format!("`strace` that may attach to a process of its own user: {missing}"),
                "RECOVERING BESIDE A READER WAS NOT TESTED",
            );
        }
    };
    let unknown = with_id(text_to("alice", "unknown"), "unknown");
    refused(alice.try_send(unknown.clone()).await, ErrorReason::StorageFailing);
    eventually_is(&mut health, ServingStatus::NotServing).await;
    injection.end();
    eventually_is(&mut health, ServingStatus::Serving).await;
    reader.batch_execute("COMMIT").expect("it read until here");

    alice.try_send(unknown).await.expect("stored, now or then");
    let mailbox = alice.mailbox().await;
    assert_eq!(mailbox.len(), 7);
    assert_same_view(&mailbox[3..6], &kept);
    server.kill();
    let server = ServerProcess::start(binary(), &data_dir).await;
    assert_same_view(&alice.at(server.addr()).mailbox().await, &mailbox);
}

/// Asserts that everything that was answered is in the database file itself: after a failed sync the
/// write-ahead log may show what the disk does not have.
fn assert_written_anew(record: &Record, data_dir: &Path) {
    let database = std::fs::read(database_in(data_dir)).expect("it can be read");
    for (request, _) in &record.answered {
        let Some(Body::Text(text)) = &request.body else { panic!("no text in {request:?}") };
        // The beginning: the rest is on other pages.
        let begin = &text.as_bytes()[..16];
        assert!(
            database.windows(begin.len()).any(|it| it == begin),
            "{:?} is not there",
            &text[..16]
        );
    }
}

/// A killed server's last writes can be in the log without a sync. Who starts on them syncs them, before
/// anybody is answered out of them.
#[tokio::test(flavor = "multi_thread")]
pub(crate) async fn a_start_syncs_what_a_killed_server_left() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let server = ServerProcess::start(binary(), &data_dir).await;
    let alice = server.user("alice").await;
    alice.send("alice", "hi").await;
    server.kill();

    let trace = folder.path().join("trace");
    let trace_path = trace.to_str().expect("a temporary folder's path is UTF-8");
    // `-D`: the server itself is the child, and strace stands aside.
    let strace = ["strace", "-D", "-f", "-y", "-e", "trace=fsync,fdatasync", "-o", trace_path];
    let tried = Command::new(strace[0]).args(&strace[1..]).arg("true").output();
    if !tried.as_ref().is_ok_and(|output| output.status.success()) {
        let test = "a_start_syncs_what_a_killed_server_left";
        skipped(test, &format!("`strace`: {tried:?}"), "NOTHING OF SYNCS AT A START WAS TESTED");
        return;
    }
    let server = ServerProcess::start_with(&strace, binary(), &data_dir, &[]).await;
    assert_eq!(alice.at(server.addr()).mailbox().await.len(), 1);
    server.kill();
    let is_sync = |line: &str| line.contains("peerpost.db-wal>") && line.ends_with("= 0");
    eventually("a sync of the write-ahead log", async || {
        let trace = std::fs::read_to_string(&trace).expect("it can be read");
        trace.lines().any(is_sync).then_some(())
    })
    .await;
}
