//! `peerpost chat`, the real binary in a terminal: two people talk, whatever happens to the server.

use std::process::Command;

use peerpost::testing::{Proxy, ServerProcess, TestServer, TestUser};

use crate::chat_terminal::Terminal;
use crate::cli_support::Machine;
use crate::support::binary;

/// What becomes of a terminal that is given back: the first screen, with its cursor.
const GIVEN_BACK: [&str; 2] = ["\u{1b}[?1049l", "\u{1b}[?25h"];

/// A server and a machine from which alice and bob are registered at it.
async fn two_users(server: &TestServer) -> Machine {
    let machine = Machine::new(server.uri());
    machine.ok(&["register", "alice"]).await;
    machine.ok(&["register", "bob"]).await;
    machine
}

fn chat(machine: &Machine, as_user: &str, peer: &str) -> Terminal {
    Terminal::start(machine, &["--as", as_user, "chat", peer], 100, 40)
}

/// The texts of a conversation on the screen, in order, with who wrote each.
fn conversation(rows: &[String]) -> Vec<(String, String)> {
    let is_time = |word: &str| {
        word.len() == 5
            && word.char_indices().all(|(at, c)| (at == 2 && c == ':') || c.is_ascii_digit())
    };
    rows.iter()
        .filter_map(|row| {
            let (mark, rest) = row.trim_start().split_once(' ')?;
            let (name, text) = rest.trim_start().split_once(": ")?;
            (is_time(mark) || mark == "…").then(|| (name.to_owned(), text.to_owned()))
        })
        .collect()
}

fn signal(terminal: &Terminal, signal: &str) {
    let pid = terminal.process_id().to_string();
    let status = Command::new("kill").args([signal, &pid]).status();
    assert!(status.expect("`kill` can be run").success(), "`kill {signal} {pid}` failed");
}

#[tokio::test]
async fn two_people_talk_and_a_server_that_is_killed_in_between_loses_and_doubles_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let mut server = ServerProcess::start(binary(), &data_dir).await;
    let proxy = Proxy::start(server.addr()).await;
    let machine = Machine::new(proxy.uri());
    machine.ok(&["register", "alice"]).await;
    machine.ok(&["register", "bob"]).await;
    machine.ok(&["--as=alice", "send", "bob", "from before"]).await;
    let mut alice = chat(&machine, "alice", "bob");
    let mut bob = chat(&machine, "bob", "alice");
    alice.shows_text("live").await;
    bob.shows_text("live").await;
    bob.shows_text("alice: from before").await;

    for round in 0..3 {
        alice.type_line(&format!("{round}: is anybody there?"));
        bob.shows_text(&format!("alice: {round}: is anybody there?")).await;
        // Typed right before the kill: it may be stored, with an answer that never comes.
        alice.type_line(&format!("{round}: typed before"));
        server.kill();
        alice.shows_text("reconnecting in").await;
        bob.shows_text("reconnecting in").await;
        for n in 1..=3 {
            alice.type_line(&format!("{round}: alice while away {n}"));
            bob.type_line(&format!("{round}: bob while away {n}"));
        }
        alice.shows_text(&format!("…   you: {round}: alice while away 3")).await;
        bob.shows_text(&format!("…   you: {round}: bob while away 3")).await;
        server = ServerProcess::start(binary(), &data_dir).await;
        proxy.retarget(server.addr());
        for terminal in [&alice, &bob] {
            terminal
                .shows("all sent and live", |rows| {
                    rows.iter().any(|row| row.starts_with("live"))
                        && !rows.iter().any(|row| row.contains('…') || row.contains("not sent"))
                        && rows
                            .iter()
                            .any(|row| row.contains(&format!("{round}: bob while away 3")))
                        && rows
                            .iter()
                            .any(|row| row.contains(&format!("{round}: alice while away 3")))
                })
                .await;
        }
    }

    let mut alices = conversation(&alice.rows());
    let mut bobs = conversation(&bob.rows());
    assert_eq!(alices.len(), 1 + 3 * 8, "{:?}", alice.rows());
    // The same messages, the senders named from the other side.
    alices.iter_mut().filter(|(name, _)| name == "you").for_each(|it| it.0 = "alice".into());
    bobs.iter_mut().filter(|(name, _)| name == "you").for_each(|it| it.0 = "bob".into());
    for sender in ["alice", "bob"] {
        let of = |all: &[(String, String)]| -> Vec<String> {
            all.iter().filter(|(name, _)| name == sender).map(|(_, text)| text.clone()).collect()
        };
        assert_eq!(of(&alices), of(&bobs), "{sender}'s, in the order of typing");
    }
    alices.sort();
    bobs.sort();
    assert_eq!(alices, bobs);
    alices.dedup();
    assert_eq!(alices.len(), bobs.len(), "nothing twice");
    let stored = machine.json(&["--as=bob", "inbox", "--json"]).await;
    assert_eq!(stored.len(), bobs.len(), "and so it is stored");

    for mut terminal in [alice, bob] {
        terminal.press("\u{3}");
        assert_eq!(terminal.end().await, 0);
        let output = terminal.output();
        assert!(!output.contains("panicked") && !output.contains("backtrace"), "{output}");
    }
}

#[tokio::test]
async fn the_terminal_is_given_back_on_every_way_out() {
    let server = TestServer::start().await;
    let machine = two_users(&server).await;
    for way in ["ctrl-c", "ctrl-d", "-TERM", "-HUP", "-INT"] {
        let mut terminal = chat(&machine, "alice", "bob");
        terminal.shows_text("live").await;
        assert!(terminal.is_on_own_screen());
        match way {
            "ctrl-c" => terminal.press("\u{3}"),
            "ctrl-d" => terminal.press("\u{4}"),
            name => signal(&terminal, name),
        }
        assert_eq!(terminal.end().await, 0, "{way}");
        assert!(!terminal.is_on_own_screen(), "{way}");
        let output = terminal.output();
        for end in GIVEN_BACK {
            assert!(output.contains(end), "{way}: {output:?}");
        }
    }
    // An error that connecting again does not mend is said where it can be read.
    let mut terminal = chat(&machine, "alice", "nobody");
    assert_eq!(terminal.end().await, 1);
    assert!(!terminal.is_on_own_screen());
    terminal.shows_text("error: ").await;
    terminal.shows_text("hint: `peerpost users`").await;
}

#[tokio::test]
async fn what_is_not_sent_is_asked_about_and_printed_on_the_way_out() {
    let mut server = TestServer::start().await;
    let machine = two_users(&server).await;
    let mut terminal = chat(&machine, "alice", "bob");
    terminal.shows_text("live").await;
    server.stop().await;
    terminal.type_line("it's lost?");
    terminal.shows_text("…   you: it's lost?").await;
    terminal.press("\u{3}");
    terminal.shows_text("Ctrl-C again leaves").await;
    terminal.press("\u{3}");
    assert_eq!(terminal.end().await, 1);
    let output = terminal.output();
    assert!(output.contains(r"-- 'it'\''s lost?'"), "{output}");
    assert!(output.contains("peerpost send bob --request-id "), "{output}");
}

#[tokio::test]
async fn a_refusal_is_shown_beside_its_text() {
    let server = TestServer::start().await;
    let machine = two_users(&server).await;
    let mut terminal = chat(&machine, "alice", "bob");
    terminal.shows_text("live").await;
    // Pasted, as terminals mark it: many lines, more than the server takes, are one message.
    let lines = format!("{}\n", "x".repeat(99)).repeat(700);
    terminal.press(&format!("\u{1b}[200~{lines}\u{1b}[201~\r"));
    terminal.shows_text("not sent: ").await;
    terminal.shows_text("65536").await;
    terminal.type_line("but this");
    terminal.shows_text("you: but this").await;
    assert_eq!(machine.json(&["--as=bob", "inbox", "--json"]).await.len(), 1);
}

#[tokio::test]
async fn a_message_cannot_drive_the_terminal() {
    let server = TestServer::start().await;
    let machine = two_users(&server).await;
    let nasty = "\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}31m\u{7f}\u{202e}two\nlines 你好 👋";
    machine.ok(&["--as=bob", "send", "alice", "--", nasty]).await;
    let terminal = chat(&machine, "alice", "bob");
    terminal.shows_text(r"bob: \u{1b}[2J\u{1b}]0;title\u{7}\u{9b}31m\u{7f}\u{202e}two").await;
    terminal.shows_text("      lines 你好 👋").await;
    let output = terminal.output();
    for bad in ["\u{1b}[2J\u{1b}]0", "\u{7}", "\u{9b}", "\u{7f}", "\u{202e}"] {
        assert!(!output.contains(bad), "{bad:?} in {output:?}");
    }
}

#[tokio::test]
async fn history_is_scrolled_through_and_the_screen_changes_its_size() {
    let server = TestServer::start().await;
    let machine = two_users(&server).await;
    let lines = (1..=300).map(|n| format!("message {n}.")).collect::<Vec<_>>().join("\n");
    machine.run_with_stdin(lines.as_bytes(), &["--as=bob", "send", "alice", "--lines"]).await.ok();
    let mut terminal = chat(&machine, "alice", "bob");
    terminal.shows_text("bob: message 300.").await;
    for (columns, rows) in [(40, 10), (200, 50), (20, 5), (100, 40)] {
        terminal.resize(columns, rows);
        terminal
            .shows("the newest and the line to type at, anew", |shown| {
                shown.last().is_some_and(|row| row == ">")
                    && shown.iter().any(|row| row.contains("300."))
            })
            .await;
    }
    // Page up, until the beginning is there; read a page at a time.
    let is_first = |rows: &[String]| rows.iter().any(|row| row.ends_with("message 1."));
    let first = peerpost::testing::eventually("the first message", async || {
        terminal.press("\u{1b}[5~");
        is_first(&terminal.rows()).then_some(())
    });
    first.await;
    terminal.press("\u{1b}");
    terminal.shows_text("message 300.").await;
}

#[tokio::test]
async fn the_line_is_edited_as_in_a_shell() {
    let server = TestServer::start().await;
    let machine = two_users(&server).await;
    let mut terminal = chat(&machine, "alice", "bob");
    terminal.shows_text("live").await;
    // ctrl-a, ctrl-e, ctrl-w, ctrl-u, left, backspace over a wide character.
    terminal.press("world wide\u{1}hello \u{5}\u{17}x\u{1b}[D你\u{7f}!");
    terminal.shows_text("> hello world !x").await;
    terminal.press("\u{15}\u{b}bye");
    terminal.shows("the line", |rows| rows.last().is_some_and(|row| row == "> bye")).await;
    terminal.press("\r");
    terminal.shows_text("you: bye").await;
    terminal.press("\u{1b}[A");
    terminal.shows("the text before", |rows| rows.last().is_some_and(|row| row == "> bye")).await;
}

#[tokio::test]
async fn whether_the_peer_is_there_is_shown() {
    let server = TestServer::start().await;
    let machine = two_users(&server).await;
    let terminal = chat(&machine, "alice", "bob");
    terminal.shows_text("bob ○ never seen").await;
    let mut bob = chat(&machine, "bob", "alice");
    terminal.shows_text("bob ● online").await;
    bob.shows_text("alice ● online").await;
    bob.press("\u{3}");
    bob.end().await;
    terminal.shows_text("bob ○ last seen ").await;
}

#[tokio::test]
async fn without_a_terminal_it_names_what_to_use() {
    let server = TestServer::start().await;
    let machine = two_users(&server).await;
    let outcome = machine.run(&["--as=alice", "chat", "bob"]).await;
    outcome.fails(1, &["needs a terminal", "peerpost send bob", "follow --json"]);
    let user = TestUser::register(server.addr(), "carol").await;
    let outcome = machine.run_with("PEERPOST_TOKEN", &user.token, &["chat", "bob"]).await;
    outcome.fails(1, &["needs a terminal"]);
}
