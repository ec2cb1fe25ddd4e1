//! A real server under attack, and a well-behaved client that it goes on serving.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use peerpost::proto::{ErrorReason, GetMessagesResponse};
use peerpost::testing::{
    ServerProcess, TestUser, after, body_text, data_to, eventually, refused, within_patience,
};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::support::binary;

/// The calls that a well-behaved client makes, one after the other, while an attack goes on.
const CALLS_DURING: usize = 5;

/// How often an attacker comes again after the server hung up: each time costs a port for a while.
const ROUNDS_MAX: usize = 200;

/// A server's process and its well-behaved client, on a connection of its own.
pub(crate) struct Victim {
    pub(crate) server: ServerProcess,
    pub(crate) client: TestUser,
    bytes_before: u64,
    files_before: usize,
    sent: i64,
    refused: u64,
    _folder: TempDir,
}

impl Victim {
    pub(crate) async fn start() -> Self {
        Self::start_through(&[]).await
    }

    /// Through another program, which becomes the server.
    pub(crate) async fn start_through(wrapper: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data_dir = folder.path().join("data");
        let server = ServerProcess::start_with(wrapper, binary(), &data_dir, &[]).await;
        let client = server.user("client").await;
        let (bytes_before, files_before) = (0, 0);
        let mut victim = Self {
            server,
            client,
            bytes_before,
            files_before,
            sent: 0,
            refused: 0,
            _folder: folder,
        };
        // What any running server holds is there before anything is measured.
        victim.is_serving().await;
        victim.bytes_before = victim.server.resident_bytes();
        victim.files_before = victim.open_files();
        victim
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// A user whose mailbox fills a page: 16 messages of 64 KiB.
    pub(crate) async fn user_with_a_full_page(&self, name: &str) -> TestUser {
        let user = self.server.user(name).await;
        let messages = (0..16).map(|i| data_to(name, vec![i; 65_536]));
        let answers = user.send_all(messages).await.expect("the stream ends with OK");
        assert!(answers.iter().all(Result::is_ok));
        user
    }

    /// A message is taken, and is in the next read.
    pub(crate) async fn is_serving(&mut self) {
        let text = format!("message {}", self.sent + 1);
        let message = self.client.send("client", &text).await;
        assert_eq!(message.sequence, self.sent + 1);
        let page = self.page().await;
        assert_eq!(page.messages.iter().map(body_text).collect::<Vec<_>>(), [text]);
        self.sent += 1;
    }

    /// What came after what was sent before. A server that is overloaded may refuse it for now, and then
    /// a well-behaved client comes again.
    async fn page(&mut self) -> GetMessagesResponse {
        loop {
            match self.client.get(after(self.sent)).await {
                Ok(page) => return page,
                Err(status) => drop(refused(Err::<(), _>(status), ErrorReason::ReadQueueFull)),
            }
            self.refused += 1;
            tokio::task::yield_now().await;
        }
    }

    /// How much more memory the server holds than at rest.
    pub(crate) fn growth_bytes(&self) -> u64 {
        self.server.resident_bytes().saturating_sub(self.bytes_before)
    }

    /// The client is served while the attack goes on, until it has come to `enough`. Meanwhile the
    /// server's memory grows by less than `growth_bytes_max`; afterwards all connections are gone.
    pub(crate) async fn withstands(
        &mut self,
        what: &str,
        attack: Attack,
        enough: u64,
        growth_bytes_max: u64,
    ) {
        let (mut most, began) = (0, Instant::now());
        let under_attack = async {
            let mut calls = 0;
            while calls < CALLS_DURING || attack.done() < enough {
                self.is_serving().await;
                let growth = self.growth_bytes();
                assert!(growth < growth_bytes_max, "{what}: {growth} bytes more");
                most = most.max(growth);
                calls += 1;
            }
            calls
        };
        let calls = within_patience(what, under_attack).await;
        println!(
            "{what}: {} done, {calls} calls served, {} refused, {} KiB more, {:?}",
            attack.done(),
            self.refused,
            most / 1024,
            began.elapsed(),
        );
        attack.end().await;
        self.recovers(what).await;
    }

    /// All connections but the client's own are gone.
    pub(crate) async fn recovers(&mut self, what: &str) {
        eventually(&format!("the connections' end after: {what}"), async || {
            (self.open_files() <= self.files_before).then_some(())
        })
        .await;
        self.is_serving().await;
    }

    fn open_files(&self) -> usize {
        let path = format!("/proc/{}/fd", self.server.id());
        std::fs::read_dir(path).expect("the process runs").count()
    }
}

/// Attackers at work, until they are told to end.
pub(crate) struct Attack {
    tasks: JoinSet<()>,
    done: Arc<AtomicU64>,
}

impl Attack {
    /// So many attackers at the same time, each with a number. Each does its round again when the server has ended it, and
    /// counts what it has done.
    pub(crate) fn by<F>(attackers: usize, round: impl Fn(usize, Arc<AtomicU64>) -> F) -> Self
    where
        F: Future<Output = std::io::Result<()>> + Send + 'static,
    {
        let done = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for attacker in 0..attackers {
            let round = |_| round(attacker, Arc::clone(&done));
            let rounds: Vec<_> = (0..ROUNDS_MAX).map(round).collect();
            tasks.spawn(async move {
                for round in rounds {
                    // That the server hangs up is what it should do.
                    let _ = round.await;
                }
                std::future::pending::<()>().await;
            });
        }
        Self { tasks, done }
    }

    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Hangs up everywhere.
    pub(crate) async fn end(mut self) {
        self.tasks.shutdown().await;
    }
}
