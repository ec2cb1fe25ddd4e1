//! The command line, the real binary: what it prints where, what it keeps, and how it ends.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use peerpost::client::{Body, Client, OutgoingMessage, PageRequest, Token};
use peerpost::testing::{ServerProcess, TestServer, TestUser, body_text};

use crate::cli_support::{Machine, Outcome, parse};
use crate::support::{binary, texts};

/// What a terminal would act upon, or what would turn the text around it.
const NASTY: &str = "\u{1b}[2J \u{1b}]0;title\u{7} \u{9b}31m \u{7f} \u{202e} two\nlines\r ö 👋";

/// A server, and a machine from which alice and bob are registered at it.
async fn two_users() -> (TestServer, Machine) {
    let server = TestServer::start().await;
    let machine = Machine::new(server.uri());
    machine.ok(&["register", "alice"]).await;
    machine.ok(&["register", "bob"]).await;
    (server, machine)
}

#[tokio::test]
async fn register_keeps_the_token_for_its_owner_alone() {
    let server = TestServer::start().await;
    let machine = Machine::new(server.uri());
    let outcome = machine.run(&["register", "Alice", "--ip-address", "192.0.2.7:9000"]).await;
    assert_eq!(outcome.code, Some(0), "{outcome:?}");

    let folder = machine.config_dir().join(format!("127.0.0.1_{}", server.addr().port()));
    let file = folder.join("alice.token");
    assert_eq!(mode(&file), 0o600);
    for folder in [&folder, &machine.config_dir(), machine.config_dir().parent().expect("home")] {
        assert_eq!(mode(folder), 0o700, "{}", folder.display());
    }
    assert_eq!(fs::read_dir(&folder).expect("the folder").count(), 1, "and nothing else is left");

    let token = fs::read_to_string(&file).expect("the token");
    let token = Token::parse(&token).expect("a token");
    assert!(!format!("{outcome:?}").contains(token.reveal()), "it is not shown");
    assert!(outcome.stderr.contains(&file.display().to_string()), "{outcome:?}");
    let words: Vec<_> = outcome.stdout.split_whitespace().collect();
    assert_eq!(words, ["Alice", "192.0.2.7:9000", "never", "seen"]);
    let client = Client::connect(&server.uri()).expect("a server").with_token(&token);
    assert_eq!(client.user("alice").await.expect("found").username, "Alice");
}

#[tokio::test]
async fn registering_again_updates_the_address_and_keeps_the_token() {
    let (server, machine) = two_users().await;
    let file = machine.config_dir().join(format!("127.0.0.1_{}/alice.token", server.addr().port()));
    let token = fs::read_to_string(&file).expect("the token");
    let outcome = machine.run(&["register", "ALICE", "--ip-address", "192.0.2.8"]).await;
    assert!(outcome.stderr.contains("updated"), "{outcome:?}");
    assert!(outcome.ok().contains("192.0.2.8"));
    assert_eq!(fs::read_to_string(&file).expect("the token"), token);

    let elsewhere = Machine::new(server.uri());
    elsewhere
        .run(&["register", "alice"])
        .await
        .fails(1, &["is registered", "hint: choose another name"]);
    assert!(!elsewhere.config_dir().join("alice.token").exists());
    let with_bobs = fs::read_to_string(file.with_file_name("bob.token")).expect("the token");
    let outcome =
        elsewhere.run_with("PEERPOST_TOKEN", with_bobs.trim(), &["register", "alice"]).await;
    outcome.fails(1, &["is registered", "PEERPOST_TOKEN"]);
}

#[tokio::test]
async fn a_message_is_sent_and_read() {
    let (server, machine) = two_users().await;
    let sent = machine.run(&["--as", "alice", "send", "BOB", "hello, bob"]).await;
    assert_eq!(sent.stderr, "", "only data to tell");
    let line = sent.ok();
    assert!(line.starts_with("#1 -> bob: ") && line.ends_with('\n'), "{line:?}");
    let id = line.trim().rsplit(' ').next().expect("an id");

    let inbox = machine.run(&["--as", "bob", "inbox"]).await;
    assert_eq!(inbox.stderr, "");
    let line = inbox.ok();
    assert!(line.starts_with("#1 20") && line.ends_with("Z alice -> bob: hello, bob\n"), "{line}");
    assert_eq!(machine.ok(&["inbox", "--as", "alice"]).await, line, "the sender has it too");

    let json = machine.json(&["--as", "bob", "inbox", "--json"]).await;
    assert_eq!(json.len(), 1);
    assert_eq!(json[0]["message_id"], id);
    assert_eq!((&json[0]["sequence"], &json[0]["text"]), (&1.into(), &"hello, bob".into()));
    assert_eq!((&json[0]["from_user"], &json[0]["to_user"]), (&"alice".into(), &"bob".into()));
    let time = json[0]["send_time"].as_str().expect("a time");
    let stored = client_of(&server, &machine, "bob").messages(PageRequest::after(0)).await;
    let stored = stored.expect("a page").messages.remove(0);
    let parsed: jiff::Timestamp = time.parse().expect("RFC 3339");
    assert_eq!(std::time::SystemTime::from(parsed), stored.send_time);
    assert!(json[0].get("request_id").is_none() && json[0].get("content_type").is_none());
}

#[tokio::test]
async fn stdin_is_sent_byte_for_byte() {
    let (_server, machine) = two_users().await;
    let send = ["--as", "alice", "send", "bob", "-", "--json"];
    let text = "two\nlines, and no third\n";
    let stored = parse(&machine.run_with_stdin(text.as_bytes(), &send).await.ok());
    assert_eq!(stored[0]["text"], text);
    let data = [0xff, 0x00, 0x0a, 0x80];
    let stored = parse(&machine.run_with_stdin(&data, &send).await.ok());
    assert_eq!((&stored[0]["data_base64"], stored[0].get("text")), (&"/wAKgA==".into(), None));

    let inbox = machine.json(&["--as", "bob", "inbox", "--json"]).await;
    assert_eq!((&inbox[0]["text"], &inbox[1]["data_base64"]), (&text.into(), &"/wAKgA==".into()));
    let inbox = machine.ok(&["--as", "bob", "inbox"]).await;
    assert!(inbox.contains(r"bob: two\nlines, and no third\n"), "{inbox}");
    assert!(inbox.ends_with("alice -> bob: (4 bytes of data)\n"), "{inbox}");

    machine.run_with_stdin(b"", &send).await.fails(1, &["text"]);
    let too_large = vec![b'x'; 1024 * 1024 + 1];
    machine.run_with_stdin(&too_large, &send).await.fails(1, &["1048576"]);
}

#[tokio::test]
async fn the_same_request_id_is_the_same_message() {
    let (_server, machine) = two_users().await;
    let send = ["--as=alice", "send", "bob", "{}", "--content-type=application/json"];
    let with_id = [&send[..], &["--request-id", "order-17", "--json"]].concat();
    let first = machine.json(&with_id).await;
    assert_eq!(first[0]["request_id"], "order-17");
    assert_eq!(first[0]["content_type"], "application/json");
    assert_eq!(machine.json(&with_id).await, first);
    let other = ["--as=alice", "send", "bob", "other", "--request-id", "order-17"];
    machine.run(&other).await.fails(1, &["error: ", "hint: a --request-id belongs to one"]);
    machine.ok(&send).await;
    assert_eq!(machine.ok(&["--as=bob", "inbox"]).await.lines().count(), 2);
}

#[tokio::test]
async fn the_inbox_pages_both_ways_and_by_peer() {
    let (server, machine) = two_users().await;
    let alice = client_of(&server, &machine, "alice");
    for i in 1..=130 {
        let to = if i % 2 == 0 { "bob" } else { "alice" };
        alice.send(to, format!("m{i}")).await.expect("stored");
    }
    let inbox = async |args: &[&str]| {
        let outcome = machine.run(&[&["--as=alice", "inbox", "--json"], args].concat()).await;
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        let sequences = parse(&outcome.stdout).iter().map(|it| it["sequence"].as_i64()).collect();
        (sequences, outcome.stderr)
    };
    let expect = |range: std::ops::RangeInclusive<i64>| range.map(Some).collect::<Vec<_>>();
    let older = |before| format!("there are older ones: --before {before}\n");
    assert_eq!(inbox(&[]).await, (expect(31..=130), older(31)));
    assert_eq!(inbox(&["--before=31", "--limit=10"]).await, (expect(21..=30), older(21)));
    assert_eq!(inbox(&["--before=4"]).await, (expect(1..=3), String::new()));
    let newer = "there are newer ones: --after 5\n".to_owned();
    assert_eq!(inbox(&["--after=0", "--limit=5"]).await, (expect(1..=5), newer));
    assert_eq!(inbox(&["--after=0", "--limit=1000"]).await, (expect(1..=130), String::new()));
    assert_eq!(inbox(&["--after=130"]).await, (vec![], "no messages\n".to_owned()));
    let (with_bob, _) = inbox(&["--peer=bob", "--limit=3"]).await;
    assert_eq!(with_bob, [Some(126), Some(128), Some(130)]);
    let (received, _) = inbox(&["--received-only", "--limit=2"]).await;
    assert_eq!(received, [Some(127), Some(129)]);
    machine
        .run(&["--as=alice", "inbox", "--after=131"])
        .await
        .fails(1, &["hint: `peerpost inbox`"]);
}

#[tokio::test]
async fn users_are_listed() {
    let (server, machine) = two_users().await;
    server.user("alfred").await;
    let bob = TestUser::register(server.addr(), "dora").await;
    let _online = bob.follow(0).await;
    let outcome = machine.run(&["--as=bob", "users"]).await;
    assert_eq!(outcome.stderr, "");
    let first_words: Vec<_> = outcome.stdout.lines().map(|it| it.split(' ').next()).collect();
    assert_eq!(first_words, [Some("alfred"), Some("alice"), Some("bob"), Some("dora")]);
    let json = machine.json(&["--as=bob", "users", "--prefix=D", "--json"]).await;
    assert_eq!(json.len(), 1);
    assert_eq!((&json[0]["username"], &json[0]["online"]), (&"dora".into(), &true.into()));
    assert_eq!(json[0]["ip_address"], "127.0.0.1");
    let time = json[0]["register_time"].as_str().expect("a time");
    time.parse::<jiff::Timestamp>().expect("RFC 3339");
    assert_eq!(machine.ok(&["--as=bob", "users", "--prefix=nobody"]).await, "");
}

#[tokio::test]
async fn who_one_is_is_never_guessed() {
    let server = TestServer::start().await;
    let machine = Machine::new(server.uri());
    machine.run(&["inbox"]).await.fails(1, &["nobody is registered", "hint: `peerpost register"]);

    machine.ok(&["register", "alice"]).await;
    machine.ok(&["send", "alice", "the only one needs no name"]).await;

    machine.ok(&["register", "Bob"]).await;
    machine.run(&["inbox"]).await.fails(1, &["alice, bob", "hint: `--as NAME`"]);
    machine.run(&["inbox", "--as", "carol"]).await.fails(1, &["carol", "alice, bob"]);
    let from = async |outcome: Outcome| parse(&outcome.ok())[0]["from_user"].clone();
    let send = ["send", "alice", "hi", "--json"];
    assert_eq!(from(machine.run(&[&["--as=BOB"], &send[..]].concat()).await).await, "Bob");
    assert_eq!(from(machine.run_with("PEERPOST_USER", "bob", &send).await).await, "Bob");
    let both = [&["--as=alice"], &send[..]].concat();
    assert_eq!(from(machine.run_with("PEERPOST_USER", "bob", &both).await).await, "alice");
    let carol = server.user("carol").await;
    assert_eq!(from(machine.run_with("PEERPOST_TOKEN", &carol.token, &send).await).await, "carol");

    let unknown = machine.run_with("PEERPOST_TOKEN", "pp_unknown", &send).await;
    assert!(!unknown.stderr.contains("pp_unknown"), "{unknown:?}");
    unknown.fails(1, &["error: ", "hint: "]);
    machine.run_with("PEERPOST_TOKEN", "no token", &send).await.fails(1, &["PEERPOST_TOKEN"]);

    let other = TestServer::start().await;
    let at_other = machine.run_with("PEERPOST_SERVER", &other.uri(), &["inbox"]).await;
    at_other.fails(1, &["nobody is registered"]);
}

#[tokio::test]
async fn exit_codes_tell_a_failure_from_a_misuse() {
    let (server, machine) = two_users().await;
    for args in [&["--help"][..], &["--version"], &["help", "follow"], &["send", "--help"]] {
        let outcome = machine.run(args).await;
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{args:?}");
        assert!(!outcome.stdout.is_empty());
    }
    for args in [
        &[][..],
        &["shout"],
        &["send"],
        &["inbox", "--limit", "0"],
        &["inbox", "--after", "-1"],
        &["inbox", "--after", "1", "--before", "2"],
        &["follow", "--after", "1", "--from-now"],
        &["register", "not a name"],
        &["--as", "", "users"],
        &["serve", "--listen", "nowhere"],
        &["serve", "--body-bytes-max", "0"],
    ] {
        machine.run(args).await.fails(2, &["--help"]);
    }
    machine
        .run(&["--as=alice", "send", "nobody", "hi"])
        .await
        .fails(1, &["hint: `peerpost users`"]);
    machine.run(&["--as=alice", "send", "bob", ""]).await.fails(1, &["error: "]);
    let https = machine.run(&["--server", "https://127.0.0.1", "users"]).await;
    https.fails(1, &["https://127.0.0.1"]);
    drop(server);
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let nobody = free.local_addr().expect("an address").to_string();
    drop(free);
    let outcome = machine.run(&["--server", &nobody, "register", "carol"]).await;
    outcome.fails(1, &["cannot connect", &nobody, "hint: is the server running?"]);
}

#[tokio::test]
async fn a_message_cannot_drive_a_terminal() {
    let (server, machine) = two_users().await;
    let alice = client_of(&server, &machine, "alice");
    alice.send("bob", NASTY).await.expect("stored");
    let data =
        OutgoingMessage::new("bob", Body::from(vec![0xff])).with_content_type("a/b; c=\"d\"");
    alice.send_message(data).await.expect("stored");

    for args in [&["inbox"][..], &["follow", "--after=0"]] {
        for flags in [&["--as=bob"][..], &["--as=bob", "--json"]] {
            let following = machine.start(&[args, flags].concat());
            let lines = following.lines(2).await;
            let outcome = match args[0] {
                "follow" => following.terminate().await,
                _ => following.end().await,
            };
            assert_eq!(lines.len(), 2, "each on one line: {lines:?}");
            let is_plain = |c: char| c == '\n' || !c.is_control() && c != '\u{202e}';
            assert!(outcome.stdout.chars().all(is_plain), "{outcome:?}");
            assert!(outcome.stdout.contains("ö 👋"), "what is harmless stays");
            if flags.contains(&"--json") {
                assert_eq!(parse(&outcome.ok())[0]["text"], NASTY);
            }
        }
    }
    // Neither can what is said on stderr.
    let outcome = machine.run(&["--as=alice", "send", "\u{1b}[2J", "hi"]).await;
    assert!(!outcome.stderr.contains('\u{1b}'), "{outcome:?}");
    assert_eq!(outcome.code, Some(1));
}

#[tokio::test]
async fn serve_says_where_it_listens_and_ends_with_0_on_sigterm() {
    let machine = Machine::new("127.0.0.1:1");
    let serving = machine.start(&["serve", "--listen=127.0.0.1:0", "--data-dir=data"]);
    let lines = serving.lines(1).await;
    let addr = lines[0].strip_prefix("peerpost listens on http://").expect("the plain line");
    serving.notes(addr).await;
    let addr = addr.parse().expect("an address");
    let alice = TestUser::register(addr, "alice").await;
    alice.send("alice", "note").await;
    let _following = alice.follow(0).await;

    let second = machine.run(&["serve", "--listen=127.0.0.1:0", "--data-dir=data"]).await;
    second.fails(1, &["error: ", "in use by another peerpost server", "data"]);
    let taken = ["serve", "--listen", &addr.to_string(), "--data-dir=other"];
    machine.run(&taken).await.fails(1, &["error: ", &addr.to_string()]);
    assert_eq!(texts(&alice.mailbox().await), ["note"], "the first goes on");

    let outcome = serving.terminate().await;
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(outcome.stdout.lines().count(), 1, "{outcome:?}");
    assert!(!outcome.stderr.contains(&alice.token), "no token in the log");

    let again = ServerProcess::start(binary(), &machine.config_dir().join("../../data")).await;
    assert_eq!(body_text(&alice.at(again.addr()).mailbox().await[0]), "note");
}

#[tokio::test]
async fn a_log_filter_that_is_none_is_said() {
    let (_server, machine) = two_users().await;
    let outcome = machine.run_with("PEERPOST_LOG", "peerpost=loud", &["--as=bob", "inbox"]).await;
    outcome.fails(1, &["PEERPOST_LOG", "peerpost=loud"]);
}

/// A client as a user whose token the machine keeps.
fn client_of(server: &TestServer, machine: &Machine, name: &str) -> Client {
    let folder = format!("127.0.0.1_{}", server.addr().port());
    let path = machine.config_dir().join(folder).join(format!("{name}.token"));
    let token = Token::parse(&fs::read_to_string(path).expect("a token")).expect("a token");
    Client::connect(&server.uri()).expect("a server").with_token(&token)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it exists").permissions().mode() & 0o777
}
