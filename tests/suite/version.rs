//! What says which version runs.

use peerpost::testing::{ServerProcess, TestServer};
use peerpost::version::{COMMIT, VERSION, VERSION_AND_COMMIT};

use crate::cli_support::Machine;
use crate::http_support::Web;
use crate::metrics::start;
use crate::support::binary;

#[tokio::test]
async fn the_command_the_log_and_the_metrics_say_the_same() {
    let machine = Machine::new("http://127.0.0.1:1");
    assert_eq!(machine.ok(&["--version"]).await, format!("peerpost {VERSION_AND_COMMIT}\n"));

    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = ServerProcess::start(binary(), folder.path()).await;
    let log = server.stderr();
    let first = log.lines().next().expect("a line");
    assert!(first.ends_with(&format!("peerpost {VERSION_AND_COMMIT} starts")), "{first}");
    server.kill();

    let server: TestServer = start().await;
    let page = Web::at(server.metrics_addr()).get("/metrics").await.body;
    let line = format!("peerpost_build_info{{version=\"{VERSION}\",commit=\"{COMMIT}\"}} 1");
    assert!(String::from_utf8_lossy(&page).lines().any(|it| it == line), "{line}");
}
