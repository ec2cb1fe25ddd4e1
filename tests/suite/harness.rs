//! What others test their programs with does what it says.

use peerpost::client::PageRequest;
use peerpost::testing::{CrashServer, ServerProcess, within_patience};

use crate::client_support::texts;

peerpost::server_process!();

#[tokio::test]
async fn a_crash_server_comes_back_with_what_it_had_at_the_same_address() {
    let mut server = CrashServer::start().await;
    let (uri, alice) = (server.uri(), server.client("alice").await);
    for round in 0..3 {
        alice.send("alice", round.to_string()).await.expect("stored");
        server.crash_and_start_again().await;
        assert_eq!(server.uri(), uri);
    }
    let page = alice.messages(PageRequest::default()).await.expect("a page");
    assert_eq!(texts(&page.messages), ["0", "1", "2"]);
}

#[tokio::test]
async fn a_crash_is_a_kill() {
    let mut server = CrashServer::start().await;
    let process = server.process().expect("it runs").id();
    let path = format!("/proc/{process}");
    assert!(std::path::Path::new(&path).exists(), "a process of its own");
    assert_ne!(process, std::process::id());
    server.crash();
    assert!(!std::path::Path::new(&path).exists(), "it is gone");
    assert!(server.process().is_none());
}

#[tokio::test]
async fn a_server_that_is_this_binary_stops_cleanly_when_it_is_asked_to() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = ServerProcess::start_here(&folder.path().join("data")).await;
    let user = server.user("alice").await;
    let mut following = user.follow(0).await;
    server.terminate();
    let exit = within_patience("the server's end", server.exit()).await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let ended = loop {
        if let Err(status) = following.next().await {
            break status;
        }
    };
    assert_eq!(ended.code(), tonic::Code::Unavailable, "{ended:?}");
}
