//! Storage that fails while the server runs, and a queue that is full: writes are refused with a
//! reason, reads go on, and what was accepted is stored once.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, SqliteConnection};
use peerpost::proto::messaging_service_server::SERVICE_NAME;
use peerpost::proto::{ErrorReason, Message, SendMessageRequest};
use peerpost::testing::{
    Refusal, ServerProcess, TestUser, data_to, eventually, refused, text_to, within_patience,
};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::support::{
    assert_dense_from, assert_same_view, binary, copy_folder, database_in, list, texts, with_id,
};

/// The write lock on a running server's database: its writer waits for it in vain, and then takes
/// the storage for failing.
pub(crate) struct Lock(SqliteConnection);

impl Lock {
    pub(crate) fn take(data_dir: &Path) -> Self {
        let path = database_in(data_dir);
        let url = path.to_str().expect("a temporary folder's path is UTF-8");
        let mut connection = SqliteConnection::establish(url).expect("the database opens");
        let statements = "PRAGMA busy_timeout = 60000; BEGIN IMMEDIATE";
        connection.batch_execute(statements).expect("the lock comes free between commits");
        Self(connection)
    }

    pub(crate) fn release(mut self) {
        self.0.batch_execute("ROLLBACK").expect("nothing was written");
    }
}

#[tokio::test(flavor = "multi_thread")]
pub(crate) async fn a_storage_that_takes_no_writes_refuses_them_and_recovers() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let server = ServerProcess::start(binary(), &data_dir).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    alice.send("bob", "before").await;
    let mut live = bob.follow(0).await;
    let mut view = live.messages(1).await;
    let mut health = health(server.addr());
    let mut updates = watch(&mut health).await;
    assert_eq!(next_update(&mut updates).await, ServingStatus::Serving);

    let lock = Lock::take(&data_dir);
    let during = with_id(text_to("bob", "during"), "during");
    let status = alice.try_send(during.clone()).await.expect_err("cannot be written");
    assert_eq!(status.code(), Code::Unavailable);
    refused(Err::<(), _>(status), ErrorReason::StorageFailing);
    assert_eq!(next_update(&mut updates).await, ServingStatus::NotServing);
    assert_eq!(check(&mut health).await, [ServingStatus::NotServing; 2]);
    let streamed = [with_id(text_to("bob", "streamed"), "streamed")];
    let (acknowledged, registered, streamed_results, ()) = tokio::join!(
        bob.acknowledge(1),
        alice.try_register("carol", ""),
        alice.send_all(streamed.clone()),
        reads_go_on(&bob, &view),
    );
    refused(acknowledged, ErrorReason::StorageFailing);
    refused(registered, ErrorReason::StorageFailing);
    for result in streamed_results.expect("the stream itself is a good one") {
        refused(result, ErrorReason::StorageFailing);
    }
    assert_eq!(check(&mut health).await, [ServingStatus::NotServing; 2]);

    lock.release();
    assert_eq!(next_update(&mut updates).await, ServingStatus::Serving);
    assert_eq!(check(&mut health).await, [ServingStatus::Serving; 2]);
    let first = alice.try_send(during.clone()).await.expect("stored now");
    assert_eq!(alice.try_send(during).await.expect("found again"), first);
    for result in alice.send_all(streamed).await.expect("OK") {
        result.expect("stored now");
    }
    assert_eq!(bob.acknowledge(1).await.expect("acknowledged now"), 1);
    alice.try_register("carol", "").await.expect("registered now");
    alice.send("bob", "after").await;
    view.extend(live.messages(3).await);
    assert_eq!(texts(&view), ["before", "during", "streamed", "after"]);
    assert_dense_from(1, &view);
    assert_same_view(&view, &bob.mailbox().await);
}

/// The writer is held up by a lock; what is sent meanwhile fills the queue before it.
#[tokio::test(flavor = "multi_thread")]
pub(crate) async fn a_full_write_queue_refuses_and_what_is_sent_again_is_stored_once() {
    const QUEUE_BYTES: usize = 64 * 1024 * 1024;
    const BODY_BYTES: usize = 1024 * 1024;
    const SENDS: usize = QUEUE_BYTES / BODY_BYTES + 24;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let flags = ["--body-bytes-max", "1048576"];
    let server = ServerProcess::start_with(&[], binary(), &data_dir, &flags).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    alice.send("bob", "before").await;
    let request = |i: usize| {
        let number = u8::try_from(i).expect("few requests");
        with_id(data_to("bob", vec![number; BODY_BYTES]), &format!("{i}"))
    };

    let lock = Lock::take(&data_dir);
    let mut sends = JoinSet::new();
    for i in 0..SENDS {
        let (alice, request) = (alice.clone(), request(i));
        sends.spawn(async move { alice.try_send(request).await });
    }
    let mut lock = Some(lock);
    let mut queue_full = 0;
    while let Some(sent) = within_patience("an answer", sends.join_next()).await {
        let Err(status) = sent.expect("a send does not panic") else { continue };
        // The writer gave up on the first of them, if the lock was held for long enough.
        if Refusal::of(&status).reason == ErrorReason::StorageFailing {
            continue;
        }
        assert_eq!(status.code(), Code::ResourceExhausted);
        refused(Err::<(), _>(status), ErrorReason::WriteQueueFull)
            .with("limit", "write_queue_bytes")
            .with("value", QUEUE_BYTES);
        queue_full += 1;
        if let Some(lock) = lock.take() {
            assert_eq!(bob.mailbox().await.len(), 1, "reads go on");
            lock.release();
        }
    }
    assert!(queue_full > 0, "no send found the queue full");

    for i in 0..SENDS {
        eventually("a place in the queue", async || alice.try_send(request(i)).await.ok()).await;
    }
    let mailbox = bob.mailbox().await;
    assert_dense_from(1, &mailbox);
    assert_eq!(mailbox.len(), 1 + SENDS);
    assert_no_message_twice(&mailbox);
}

/// SIGXFSZ is ignored, so that a write beyond the limit fails with EFBIG instead of killing.
#[tokio::test(flavor = "multi_thread")]
pub(crate) async fn write_errors_lose_nothing_that_was_acknowledged() {
    const LIMITED: [&str; 4] = ["sh", "-c", "trap '' XFSZ; ulimit -f 2048; exec \"$@\"", "sh"];
    for is_killed in [true, false] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data_dir = folder.path().join("data");
        let server = ServerProcess::start_with(&LIMITED, binary(), &data_dir, &[]).await;
        let bob = server.user("bob").await;
        let mut senders = JoinSet::new();
        for name in ["alice", "carol", "dave"] {
            let user = server.user(name).await;
            senders.spawn(send_until_refused(user, ErrorReason::StorageFailing));
        }
        let mut records = Vec::new();
        while let Some(record) = within_patience("a refusal", senders.join_next()).await {
            records.push(record.expect("a sender does not panic"));
        }
        let before = bob.mailbox().await;
        for record in &records {
            record.assert_stored(server.addr()).await;
        }

        if is_killed {
            server.kill();
        } else {
            server.terminate();
            let exit = server.exit().await;
            assert_eq!(exit.code, Some(0), "{}", exit.stderr);
        }
        let server = ServerProcess::start(binary(), &data_dir).await;
        let bob = bob.at(server.addr());
        for record in &records {
            record.assert_stored(server.addr()).await;
            record.send_again(server.addr()).await;
        }
        let sent = records.iter().map(|record| record.answered.len() + 1).sum();
        let mailbox = bob.mailbox().await;
        assert_stored_once(&mailbox, sent);
        assert_same_view(&before, &mailbox[..before.len()]);
        assert_same_view(&bob.follow(0).await.messages(sent).await, &mailbox);
    }
}

#[tokio::test(flavor = "multi_thread")]
pub(crate) async fn a_full_disk_refuses_writes_until_there_is_room() {
    let Some(disk) = SmallDisk::new("a_full_disk_refuses_writes_until_there_is_room") else {
        return;
    };
    let (mount, data_dir) = (disk.mount(), disk.path.join("data"));
    let wrapper: Vec<&str> = mount.iter().map(String::as_str).collect();
    let server = ServerProcess::start_with(&wrapper, binary(), &data_dir, &[]).await;
    let seen = disk.seen_by(&server);
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let mut live = bob.follow(0).await;
    let mut health = health(server.addr());
    fill(&seen.join("filler"), SmallDisk::BYTES / 4);

    let record = send_until_refused(alice.clone(), ErrorReason::DiskFull).await;
    // What one message found no room in may hold a smaller write.
    fill(&seen.join("filler.2"), SmallDisk::BYTES);
    let last = with_id(text_to("bob", "the smallest"), "last");
    let refusals = eventually("every write being refused", async || {
        Some([
            alice.try_send(last.clone()).await.err()?,
            bob.try_register("bob", "192.0.2.7").await.err()?,
            alice.try_register("erin", "").await.err()?,
            bob.acknowledge(1).await.err()?,
        ])
    })
    .await;
    for status in refusals {
        assert_eq!(status.code(), Code::ResourceExhausted);
        refused(Err::<(), _>(status), ErrorReason::DiskFull).with("limit", "disk");
    }
    eventually_is(&mut health, ServingStatus::NotServing).await;
    let answered = record.answered.len();
    let view = live.messages(answered).await;
    let mailbox = bob.mailbox().await;
    assert_same_view(&view, &mailbox[..answered]);
    reads_go_on(&bob, &mailbox).await;
    record.assert_stored(server.addr()).await;

    fs::remove_file(seen.join("filler.2")).expect("the filler can be removed");
    fs::remove_file(seen.join("filler")).expect("the filler can be removed");
    eventually_is(&mut health, ServingStatus::Serving).await;
    record.send_again(server.addr()).await;
    let first = alice.try_send(last.clone()).await.expect("there is room");
    assert_eq!(alice.try_send(last).await.expect("found again"), first);
    alice.try_register("erin", "").await.expect("there is room");
    assert_eq!(bob.acknowledge(1).await.expect("there is room"), 1);
    let mailbox = bob.mailbox().await;
    assert_stored_once(&mailbox, answered + 2);
    let mut view = view;
    view.extend(live.messages(2).await);
    assert_same_view(&view, &mailbox);

    // The small disk goes with its server, whose files are copied as a crash would leave them.
    let copy = tempfile::tempdir().expect("a temporary folder");
    copy_folder(&seen.join("data"), copy.path());
    server.kill();
    let server = ServerProcess::start(binary(), copy.path()).await;
    assert_same_view(&bob.at(server.addr()).mailbox().await, &mailbox);
}

/// A disk of a few MiB in a mount namespace of its server's own; it goes when the server does.
struct SmallDisk {
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl SmallDisk {
    /// Small enough to be full before the first checkpoint, of which the write-ahead log takes
    /// little more than this.
    const BYTES: usize = 4 * 1024 * 1024;

    /// `None` where the system grants no such namespace, which is said on the terminal even when
    /// tests are quiet.
    fn new(test: &str) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("disk");
        fs::create_dir(&path).expect("the folder can be made");
        let disk = Self { path, _folder: folder };
        let mount = disk.mount();
        let missing = match Command::new(&mount[0]).args(&mount[1..]).arg("true").output() {
            Ok(output) if output.status.success() => return Some(disk),
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        let missing = missing.trim();
        // Not `eprintln`, which the test harness would keep to itself.
        let _ = writeln!(
            std::io::stderr(),
            "\n\nSKIPPED faults::{test}: it needs `unshare -rm` and a tmpfs mounted in it, which \
             this system does not grant ({missing}); NOTHING OF A FULL DISK WAS TESTED\n"
        );
        None
    }

    /// What runs a program with the disk mounted.
    fn mount(&self) -> [String; 7] {
        let path = self.path.to_str().expect("a temporary folder's path is UTF-8");
        let script = format!("mount -t tmpfs -o size={} none \"$0\" && exec \"$@\"", Self::BYTES);
        ["unshare", "-r", "-m", "sh", "-c", &script, path].map(str::to_owned)
    }

    /// The disk as its server sees it; for others its folder is empty.
    fn seen_by(&self, server: &ServerProcess) -> PathBuf {
        let path = self.path.strip_prefix("/").expect("a temporary folder's path is absolute");
        Path::new("/proc").join(server.id().to_string()).join("root").join(path)
    }
}

/// Makes a file of so many bytes, or of as many as there is room for.
fn fill(path: &Path, bytes: usize) {
    let mut file = File::create(path).expect("a file can be made in the server's namespace");
    let chunk = [0xff; 4096];
    for _ in 0..bytes / chunk.len() {
        match file.write_all(&chunk) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// What a sender knows when it was refused.
pub(crate) struct Record {
    user: TestUser,
    pub(crate) answered: Vec<(SendMessageRequest, Message)>,
    unanswered: SendMessageRequest,
}

/// Sends to bob, one message after the other, until a send is refused for `reason`.
pub(crate) async fn send_until_refused(user: TestUser, reason: ErrorReason) -> Record {
    const BODY_BYTES: usize = 12_000;
    let mut answered = Vec::new();
    for i in 0.. {
        let text = format!("{:BODY_BYTES$}", format!("{} {i}", user.name));
        let request = with_id(text_to("bob", text), &format!("{i}"));
        match user.try_send(request.clone()).await {
            Ok(message) => answered.push((request, message)),
            Err(status) => {
                refused(Err::<(), _>(status), reason);
                assert!(!answered.is_empty(), "the limit is too low to see anything");
                return Record { user, answered, unanswered: request };
            }
        }
    }
    unreachable!("there is always another number")
}

impl Record {
    /// Everything that was answered is in the sender's mailbox, as it was answered.
    pub(crate) async fn assert_stored(&self, addr: SocketAddr) {
        let mailbox = self.user.at(addr).mailbox().await;
        assert_dense_from(1, &mailbox);
        for (_, message) in &self.answered {
            let at = usize::try_from(message.sequence).expect("a sequence fits") - 1;
            assert_eq!(mailbox.get(at), Some(message), "acknowledged and not there");
        }
    }

    /// Repeats every request, twice.
    pub(crate) async fn send_again(&self, addr: SocketAddr) {
        let user = self.user.at(addr);
        for (request, message) in &self.answered {
            assert_eq!(&user.try_send(request.clone()).await.expect("found again"), message);
        }
        let first = user.try_send(self.unanswered.clone()).await.expect("stored now, if not then");
        let again = user.try_send(self.unanswered.clone()).await.expect("found again");
        assert_eq!(again, first);
    }
}

#[track_caller]
pub(crate) fn assert_stored_once(mailbox: &[Message], count: usize) {
    assert_dense_from(1, mailbox);
    assert_no_message_twice(mailbox);
    assert_eq!(mailbox.len(), count);
}

/// Asserts that each body, which the test sends once, is there once.
#[track_caller]
fn assert_no_message_twice(mailbox: &[Message]) {
    let mut seen = HashSet::new();
    for message in mailbox {
        let body = peerpost::testing::body_bytes(message);
        assert!(seen.insert(body), "stored twice: {}", message.sequence);
    }
}

/// Asserts that bob's mailbox is read and followed, and that users are looked up.
pub(crate) async fn reads_go_on(bob: &TestUser, mailbox: &[Message]) {
    assert_same_view(mailbox, &bob.mailbox().await);
    assert_eq!(bob.get_user("alice").await.expect("is read").username, "alice");
    let users = bob.list_users(list("", 10, "")).await.expect("is read").users;
    assert!(users.len() >= 2, "{users:?}");
    assert_same_view(mailbox, &bob.follow(0).await.messages(mailbox.len()).await);
}

pub(crate) fn health(addr: SocketAddr) -> HealthClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).expect("a URI");
    HealthClient::new(endpoint.connect_lazy())
}

fn health_of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

/// What is answered for the whole server, and for its service.
async fn check(health: &mut HealthClient<Channel>) -> [ServingStatus; 2] {
    let mut statuses = [ServingStatus::Unknown; 2];
    for (status, service) in statuses.iter_mut().zip(["", SERVICE_NAME]) {
        let answer = within_patience("Check", health.check(health_of(service))).await;
        *status = answer.expect("an answer").into_inner().status();
    }
    statuses
}

pub(crate) async fn eventually_is(health: &mut HealthClient<Channel>, wanted: ServingStatus) {
    eventually("health to change", async || (check(health).await == [wanted; 2]).then_some(()))
        .await;
}

type Updates = tonic::Streaming<tonic_health::pb::HealthCheckResponse>;

async fn watch(health: &mut HealthClient<Channel>) -> Updates {
    let answer = within_patience("Watch", health.watch(health_of(SERVICE_NAME))).await;
    answer.expect("an answer").into_inner()
}

async fn next_update(updates: &mut Updates) -> ServingStatus {
    let update: Result<_, Status> = within_patience("an update", updates.message()).await;
    update.expect("goes on").expect("an update").status()
}
