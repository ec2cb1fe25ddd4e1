//! `peerpost top`, against a real server.

use peerpost::proto::ErrorReason;
use peerpost::testing::{TestServer, refused, text_to};

use crate::chat_terminal::Terminal;
use crate::cli_support::Machine;
use crate::metrics::start;

/// A server on which something was sent, read, followed and refused.
async fn used() -> TestServer {
    let server = start().await;
    let alice = server.user("alice").await;
    alice.send_many("alice", "m", 3).await;
    alice.mailbox().await;
    refused(alice.try_send(text_to("nobody", "x")).await, ErrorReason::UserNotFound);
    server
}

#[tokio::test]
async fn once_prints_the_figures_as_text() {
    let server = used().await;
    let machine = Machine::new(server.uri());
    let metrics = server.metrics_addr().to_string();
    let text = machine.ok(&["top", "--once", "--interval", "0.2", "--metrics", &metrics]).await;
    for expected in
        [env!("CARGO_PKG_VERSION"), "serving", "SendMessage", "3 in all", "commits", "connected"]
    {
        assert!(text.contains(expected), "no {expected:?} in\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "{text:?}");

    let absent = machine.run(&["top", "--once", "--metrics", "127.0.0.1:1"]).await;
    assert_eq!(absent.code, Some(1));
    assert!(absent.stderr.contains("--metrics-listen"), "{absent:?}");
    let wrong = machine.run(&["top", "--metrics", "https://127.0.0.1:1"]).await;
    assert!(wrong.code == Some(2) && wrong.stderr.contains("plain HTTP"), "{wrong:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_screen_follows_the_server_and_is_given_back() {
    let mut server = used().await;
    let machine = Machine::new(server.uri());
    let metrics = server.metrics_addr().to_string();
    let args = ["top", "--interval", "0.2", "--metrics", &metrics];
    let mut terminal = Terminal::start(&machine, &args, 80, 24);
    terminal.shows_text("3 in all").await;
    server.user("bob").await.send("alice", "one more").await;
    terminal.shows_text("4 in all").await;
    terminal.resize(120, 40);
    terminal.shows_text("messages stored a second").await;
    server.stop().await;
    terminal.shows_text("no answer, the figures are of before").await;
    terminal.press("q");
    assert_eq!(terminal.end().await, 0);
}
