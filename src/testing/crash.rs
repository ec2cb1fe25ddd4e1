use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{Proxy, ServerProcess, TestUser};
use crate::client::Client;

/// The environment variable that names the binary of a [`CrashServer`]: `peerpost`, of this or another
/// version. Unset, the test binary is started again as the server, see
/// [`server_process!`](crate::server_process).
pub const BINARY_VARIABLE: &str = "PEERPOST_TEST_BINARY";

/// A server in a process of its own that a test can kill (SIGKILL), behind a [`Proxy`], so that its
/// address stays the same. It ends with the value, and its data folder too.
///
/// ```no_run
/// use peerpost::testing::CrashServer;
///
/// peerpost::server_process!(); // once in the test binary
///
/// #[tokio::test]
/// async fn what_was_sent_survives_a_crash() -> Result<(), peerpost::client::Error> {
///     let mut server = CrashServer::start().await;
///     let alice = server.client("alice").await;
///     alice.send("alice", "before").await?;
///     server.crash();
///     server.start_again().await;
///     let sent = alice.send("alice", "after").await?; // the client connects again by itself
///     assert_eq!(sent.sequence, 2);
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct CrashServer {
    folder: TempDir,
    process: Option<ServerProcess>,
    proxy: Proxy,
}

impl CrashServer {
    /// Starts a server on a new data folder.
    pub async fn start() -> Self {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let process = start(&folder.path().join("data")).await;
        let proxy = Proxy::start(process.addr()).await;
        Self { folder, process: Some(process), proxy }
    }

    /// Kills the server: what it had not answered may be stored or not, and its clients see their
    /// connections break.
    pub fn crash(&mut self) {
        self.process.take().expect("the server is running").kill();
    }

    /// Starts a server that crashed on the same folder, at the same address.
    pub async fn start_again(&mut self) {
        assert!(self.process.is_none(), "the server is running");
        let process = start(&self.data_dir()).await;
        self.proxy.retarget(process.addr());
        self.process = Some(process);
    }

    /// [`crash`](Self::crash), then [`start_again`](Self::start_again).
    pub async fn crash_and_start_again(&mut self) {
        self.crash();
        self.start_again().await;
    }

    /// The address for clients, which is the proxy's.
    pub fn uri(&self) -> String {
        self.proxy.uri()
    }

    /// The network before the server.
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// The server's process, if it runs.
    pub fn process(&self) -> Option<&ServerProcess> {
        self.process.as_ref()
    }

    /// The server's data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Registers a new user: the Rust client as that user, with [`client_options`](super::client_options).
    pub async fn client(&self, name: &str) -> Client {
        super::register(&self.uri(), name).await
    }

    /// Registers a new user: the generated client with the token attached, through the proxy.
    pub async fn user(&self, name: &str) -> TestUser {
        TestUser::register(self.proxy.addr(), name).await
    }
}

async fn start(data_dir: &Path) -> ServerProcess {
    match std::env::var_os(BINARY_VARIABLE) {
        Some(binary) => ServerProcess::start(Path::new(&binary), data_dir).await,
        None => ServerProcess::start_here(data_dir).await,
    }
}
