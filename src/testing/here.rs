//! A server as a process of its own without a binary of its own: the test binary, started again.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::server::{self, Options};

/// The name of the test that is the server where it is asked to be.
const TEST: &str = "peerpost_server_process";

/// Where it is asked to be: the data folder.
const FOLDER_VARIABLE: &str = "PEERPOST_TEST_SERVER_PROCESS";

/// Lets this test binary be started again as a server, for
/// [`CrashServer`](crate::testing::CrashServer): write it once in the binary, outside of functions.
///
/// ```
/// peerpost::server_process!();
/// ```
///
/// It makes a test, which does nothing where tests are run. It needs the ordinary harness of
/// `cargo test`, or `cargo nextest`.
#[macro_export]
macro_rules! server_process {
    () => {
        #[test]
        fn peerpost_server_process() {
            $crate::testing::here::serve_if_asked();
        }
    };
}

/// This binary, asked to be a server.
pub(super) fn command(data_dir: &Path) -> Command {
    let binary = std::env::current_exe().expect("a process knows its binary");
    let mut command = Command::new(binary);
    // A pipe that nobody writes to: it ends with the process that asked.
    command.args([TEST, "--nocapture"]).env(FOLDER_VARIABLE, data_dir).stdin(Stdio::piped());
    command
}

/// Serves, if this process was started for it.
pub fn serve_if_asked() {
    if let Some(data_dir) = std::env::var_os(FOLDER_VARIABLE) {
        let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
        runtime.block_on(serve(Path::new(&data_dir)));
    }
}

async fn serve(data_dir: &Path) {
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be listened for");
    let mut options = Options::new(data_dir);
    options.listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()];
    let server = server::bind(options).await.expect("the server starts");
    // Not `print`, which the harness of a test keeps to itself.
    for uri in server.uris() {
        let ready = format!("peerpost listens on {uri}\n");
        io::stdout().write_all(ready.as_bytes()).expect("stdout is read");
    }
    let shutdown = CancellationToken::new();
    let stop = async {
        tokio::select! {
            () = parent_gone() => {}
            _ = terminate.recv() => {}
        }
        shutdown.cancel();
    };
    let (ended, ()) = tokio::join!(server.run(shutdown.clone()), stop);
    ended.expect("the server stops without an error");
}

/// Returns when the process that started this one is gone.
async fn parent_gone() {
    let (gone, is_gone) = tokio::sync::oneshot::channel();
    // A thread of its own, which nobody waits for: on SIGTERM the pipe may stay open.
    let wait = move || {
        // Its end of the pipe is closed by then, and not before.
        let _ = io::stdin().read(&mut [0]);
        let _ = gone.send(());
    };
    std::thread::Builder::new().name("parent".into()).spawn(wait).expect("a thread can be started");
    let _ = is_gone.await;
}
