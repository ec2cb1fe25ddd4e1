//! When the certificate ends: told before it does.

use std::net::SocketAddr;
use std::time::SystemTime;

use peerpost::testing::{ServerProcess, eventually};

use crate::http_support::Web;
use crate::metrics::metrics_addr;
use crate::support::binary;
use crate::tls_support::{Authority, Files};

const NAME: &str = "peerpost_tls_certificate_not_after_seconds";

/// A time so many days from now, in seconds since 1970.
fn in_days(days: i64) -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_secs()).expect("a few") + days * 24 * 3600
}

async fn told(metrics: SocketAddr) -> Option<i64> {
    let page = Web::at(metrics).get("/metrics").await.body;
    let page = std::str::from_utf8(&page).expect("UTF-8");
    page.lines().find_map(|line| line.strip_prefix(NAME)?.trim().parse().ok())
}

#[tokio::test]
async fn the_end_of_what_new_connections_get_is_told_and_warned_of() {
    let authority = Authority::new();
    let (late, soon, past) = (in_days(90), in_days(13), in_days(-1));
    let files = Files::of(&authority.issue_until(late));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let flags = files.flags();
    let mut flags: Vec<_> = flags.iter().map(String::as_str).collect();
    flags.extend(["--metrics-listen", "127.0.0.1:0"]);
    let server =
        ServerProcess::start_with(&[], binary(), &folder.path().join("data"), &flags).await;
    let metrics = metrics_addr(&server).await;
    assert_eq!(told(metrics).await, Some(late));
    assert!(!server.stderr().contains("certificate ends"), "{}", server.stderr());

    for (end, said) in [(soon, "the certificate ends soon"), (past, "the certificate has ended")] {
        files.put(&authority.issue_until(end));
        server.reload();
        eventually("the new end", async || (told(metrics).await == Some(end)).then_some(())).await;
        eventually(said, async || server.stderr().contains(said).then_some(())).await;
    }

    // The first of the chain to end counts.
    let (leaf, next) = (authority.issue_until(late), authority.issue_until(soon));
    files.put(&leaf);
    files.write("certificate.pem", &(leaf.certificate.clone() + &next.certificate));
    server.reload();
    eventually("the chain's end", async || (told(metrics).await == Some(soon)).then_some(())).await;

    // What is of no use changes nothing.
    files.write("certificate.pem", "no certificate");
    let refused = || server.stderr().contains("kept the certificate that there was");
    server.reload();
    eventually("a complaint", async || refused().then_some(())).await;
    assert_eq!(told(metrics).await, Some(soon));
    server.kill();
}
