use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{TestUser, within_patience};
use crate::client::{AdminClient, Client};
use crate::server::{self, ADMIN_SOCKET_FILE, Options, RunError, StartError};

/// A real server in this process, on a port of its own and with a data folder of its own. It ends
/// with the value, and the folder with it.
#[derive(Debug)]
pub struct TestServer {
    options: Options,
    folder: Arc<TempDir>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    addr: SocketAddr,
    uris: Vec<String>,
    metrics_addr: Option<SocketAddr>,
    shutdown: CancellationToken,
    /// One task; dropping the set ends it.
    task: JoinSet<Result<(), RunError>>,
}

impl TestServer {
    /// Starts a server with the default options.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// Starts a server with options of the test's choice. The address and the folder are the
    /// harness's.
    pub async fn start_with(adjust: impl FnOnce(&mut Options)) -> Self {
        Self::try_start_with(adjust).await.expect("the server starts")
    }

    /// [`start_with`](Self::start_with) where the server may refuse to start.
    ///
    /// # Errors
    /// Why it does.
    pub async fn try_start_with(adjust: impl FnOnce(&mut Options)) -> Result<Self, StartError> {
        let folder = Arc::new(TempDir::new().expect("a temporary folder can be made"));
        let mut options = Options::new(folder.path().join("data"));
        options.listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()];
        adjust(&mut options);
        let mut server = Self { options, folder, running: None };
        server.try_start_again().await?;
        Ok(server)
    }

    /// Starts a stopped server on the same folder, on a new port.
    pub async fn start_again(&mut self) {
        self.try_start_again().await.expect("the server starts");
    }

    async fn try_start_again(&mut self) -> Result<(), StartError> {
        assert!(self.running.is_none(), "the server is running");
        let bind = server::bind(self.options.clone());
        let server = within_patience("bind", bind).await?;
        let addr = server.local_addr().expect("an address of IP");
        let uris = server.uris();
        let metrics_addr = server.metrics_addr();
        let shutdown = CancellationToken::new();
        let run = server.run(shutdown.clone());
        // The folder lives as long as the server does, even when the test drops its handle first.
        let folder = Arc::clone(&self.folder);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let result = run.await;
            drop(folder);
            result
        });
        self.running = Some(Running { addr, uris, metrics_addr, shutdown, task });
        Ok(())
    }

    /// Tells the server to stop, without waiting for it.
    pub fn begin_stop(&self) {
        self.running().shutdown.cancel();
    }

    /// Stops the server and waits until it is gone. Its folder stays.
    pub async fn stop(&mut self) {
        self.begin_stop();
        let mut running = self.running.take().expect("the server is running");
        let ended = within_patience("the server's end", running.task.join_next()).await;
        let result = ended.expect("it is one task").expect("the server does not panic");
        result.expect("the server stops without an error");
    }

    /// Stops the server and starts it on the same folder, on a new port.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.start_again().await;
    }

    /// The first address that the server listens on.
    pub fn addr(&self) -> SocketAddr {
        self.running().addr
    }

    /// The address at which the server answers an operator's tools: see
    /// [`Options::metrics_listen`](Options).
    ///
    /// # Panics
    /// If it was started without one.
    pub fn metrics_addr(&self) -> SocketAddr {
        self.running().metrics_addr.expect("the server was started with an address for metrics")
    }

    /// The address as a URI, for clients.
    pub fn uri(&self) -> String {
        self.uris()[0].clone()
    }

    /// All places where the server listens, as URIs, for clients.
    pub fn uris(&self) -> &[String] {
        &self.running().uris
    }

    /// The server's data folder.
    pub fn data_dir(&self) -> &Path {
        &self.options.data_dir
    }

    /// The options with which the server was started.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Registers a new user: the Rust client as that user, with [`client_options`](super::client_options).
    pub async fn client(&self, name: &str) -> Client {
        super::register(&self.uri(), name).await
    }

    /// Registers a new user: the generated client with the token attached, which shows every status and
    /// tries nothing again.
    pub async fn user(&self, name: &str) -> TestUser {
        TestUser::register(self.addr(), name).await
    }

    /// A client of its admin socket.
    pub async fn admin(&self) -> AdminClient {
        let socket = self.options.admin_socket.clone();
        let socket = socket.unwrap_or_else(|| self.data_dir().join(ADMIN_SOCKET_FILE));
        AdminClient::connect(&socket).await.expect("the admin socket answers")
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("the server was stopped")
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.shutdown.cancel();
        }
    }
}
