//! The command line around the commands: profiles, completions, man pages, help, colours, advice.

use std::fs;
use std::process::{Command, Stdio};

use peerpost::testing::TestServer;

use crate::cli_support::{Machine, Running, parse};

/// The commands that `peerpost --help` lists.
async fn commands(machine: &Machine) -> Vec<String> {
    let help = machine.ok(&["--help"]).await;
    let list = help.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next());
    let words = list.expect("a list").lines().filter_map(|line| line.split_whitespace().next());
    words.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[tokio::test]
async fn a_profile_is_a_server_and_a_user() {
    let (here, there) = (TestServer::start().await, TestServer::start().await);
    let machine = Machine::new("");
    for (server, name) in [(&here, "alice"), (&here, "bob"), (&there, "carol"), (&there, "dora")] {
        machine.ok(&["--server", &server.uri(), "register", name]).await;
    }
    machine.ok(&["profile", "add", "here", "--server", &here.uri(), "--as=alice"]).await;
    let server = there.uri();
    let without_scheme = server.strip_prefix("http://").expect("a URI");
    machine.ok(&["--as=carol", "--server", without_scheme, "profile", "add", "there"]).await;
    let list = machine.ok(&["profile", "list"]).await;
    let words: Vec<Vec<_>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words, [["here", &here.uri(), "alice"], ["there", &there.uri(), "carol"]]);

    let sender = async |name: &str, value: &str, args: &[&str]| {
        let send = [args, &["send", "alice", "hi", "--json"]].concat();
        let to_carol = [args, &["send", "carol", "hi", "--json"]].concat();
        let outcome = machine.run_with(name, value, &send).await;
        let outcome = match outcome.code {
            Some(0) => outcome,
            _ => machine.run_with(name, value, &to_carol).await,
        };
        parse(&outcome.ok())[0]["from_user"].as_str().expect("a name").to_owned()
    };
    assert_eq!(sender("NONE", "", &["--profile=here"]).await, "alice");
    assert_eq!(sender("PEERPOST_PROFILE", "there", &[]).await, "carol");
    assert_eq!(sender("PEERPOST_PROFILE", "there", &["--profile=here"]).await, "alice");
    assert_eq!(sender("PEERPOST_PROFILE", "there", &["--as=dora"]).await, "dora");
    machine.ok(&["profile", "use", "there"]).await;
    assert!(machine.ok(&["profile", "list"]).await.contains("* there"));
    assert_eq!(sender("NONE", "", &[]).await, "carol");
    assert_eq!(sender("PEERPOST_USER", "dora", &[]).await, "dora");
    assert_eq!(sender("PEERPOST_SERVER", &here.uri(), &["--as=bob"]).await, "bob");
    assert_eq!(sender("PEERPOST_SERVER", &there.uri(), &["--profile=here"]).await, "alice");
    // At another server its user is somebody else.
    let elsewhere = machine.run_with("PEERPOST_SERVER", &here.uri(), &["inbox"]).await;
    elsewhere.fails(1, &["alice, bob", "hint: "]);

    let shown = machine.ok(&["profile", "show"]).await;
    assert!(shown.contains(&format!("server   {}\nuser     carol\n", there.uri())), "{shown}");
    assert!(shown.contains("profile  there\n") && shown.contains("carol.token"), "{shown}");
    machine.ok(&["profile", "remove", "there"]).await;
    assert!(!machine.ok(&["profile", "list"]).await.contains("there"));
    assert_eq!(sender("NONE", "", &["--server", &there.uri(), "--as=carol"]).await, "carol");

    for args in
        [&["profile", "use", "there"][..], &["profile", "remove", "x"], &["--profile=x", "users"]]
    {
        machine.run(args).await.fails(1, &["there is no profile", "hint: there are: here"]);
    }
    machine.run(&["profile", "add", "x"]).await.fails(1, &["hint: `peerpost profile add x"]);
    machine.run(&["profile", "add", "x", "--server", "a b"]).await.fails(1, &["hint: --server"]);
    let file = machine.config_dir().join("config.toml");
    fs::write(&file, "[profiles.a]\nserver = 'x'\ntls = true\n").expect("written");
    machine.run(&["profile", "list"]).await.fails(1, &["config.toml", "tls", "hint: "]);
}

#[tokio::test]
async fn completions_are_scripts_of_their_shells() {
    let machine = Machine::new("");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = machine.ok(&["completions", shell]).await;
        for word in ["chat", "request-id", "profile"] {
            assert!(script.contains(word), "no {word} in that of {shell}");
        }
        let command = match shell {
            "bash" | "zsh" => [shell, "-n"],
            "fish" => ["fish", "--no-execute"],
            _ => continue,
        };
        let file = machine.config_dir().with_extension(shell);
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        fs::write(&file, script).expect("written");
        let Ok(checked) = Command::new(command[0]).arg(command[1]).arg(&file).output() else {
            println!("skipped: {shell} is not on this machine");
            continue;
        };
        assert!(checked.status.success(), "{checked:?}");
    }
    machine.run(&["completions", "basic"]).await.fails(2, &["bash", "--help"]);
}

#[tokio::test]
async fn man_pages_are_there_for_every_command() {
    let machine = Machine::new("");
    let page = machine.ok(&["man"]).await;
    assert!(page.contains(".TH peerpost 1"), "{page}");
    machine.ok(&["man", "--dir", "pages/man1"]).await;
    let folder = machine.config_dir().ancestors().nth(2).expect("the machine's").join("pages/man1");
    for command in commands(&machine).await {
        let page = folder.join(format!("peerpost-{command}.1"));
        let text = fs::read_to_string(&page).expect("the command's page");
        assert!(text.contains("Examples"), "{command}");
        let Ok(checked) = Command::new("man").args(["--warnings", "-l"]).arg(&page).output() else {
            println!("skipped: man is not on this machine");
            continue;
        };
        assert!(checked.status.success(), "{checked:?}");
        assert_eq!(String::from_utf8_lossy(&checked.stderr), "", "{command}");
    }
}

#[tokio::test]
async fn every_command_shows_examples() {
    let machine = Machine::new("");
    let commands = commands(&machine).await;
    assert!(commands.len() >= 10, "{commands:?}");
    for command in commands {
        let help = machine.ok(&["help", &command]).await;
        let examples = help.split("Examples:\n").nth(1).unwrap_or_else(|| panic!("none: {help}"));
        assert!(examples.contains(&command), "{examples}");
    }
}

#[tokio::test]
async fn colours_are_for_terminals_and_for_those_who_ask() {
    let server = TestServer::start().await;
    let machine = Machine::new(server.uri());
    machine.ok(&["register", "alice"]).await;
    machine.ok(&["send", "alice", "hi"]).await;
    assert!(!machine.ok(&["inbox"]).await.contains('\u{1b}'));
    assert!(machine.ok(&["inbox", "--color=always"]).await.contains("\u{1b}[1malice"));
    assert!(!machine.ok(&["inbox", "--color=always", "--json"]).await.contains('\u{1b}'));
    let failed = machine.run(&["--color=always", "send", "bob", "hi"]).await;
    assert!(failed.stderr.starts_with("\u{1b}[1;31merror:\u{1b}[0m "), "{failed:?}");
    let mut terminal = crate::chat_terminal::Terminal::start(&machine, &["inbox"], 80, 10);
    terminal.end().await;
    assert!(terminal.output().contains("\u{1b}[1malice"), "{}", terminal.output());
    let never = ["inbox", "--color=never"];
    let mut terminal = crate::chat_terminal::Terminal::start(&machine, &never, 80, 10);
    terminal.end().await;
    assert!(!terminal.output().contains('\u{1b}'), "{}", terminal.output());
}

#[tokio::test]
async fn errors_say_what_to_do_next() {
    let server = TestServer::start().await;
    let machine = Machine::new(server.uri());
    let hint = async |args: &[&str]| {
        let outcome = machine.run(args).await;
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.stderr.contains("\nhint: "), "{outcome:?}");
    };
    hint(&["inbox"]).await;
    machine.ok(&["register", "alice"]).await;
    let too_long = "x".repeat(65_537);
    for args in [
        &["send", "bob", "hi"][..],
        &["send", "alice", ""],
        &["send", "alice", &too_long],
        &["send", "alice", "hi", "--content-type", "ö"],
        &["send", "alice", "hi", "--request-id", "a b"],
        &["send", "no name!", "hi"],
        &["inbox", "--peer", "bob"],
        &["inbox", "--after", "9"],
        &["follow", "--after", "9"],
        &["chat", "alice"],
        &["users", "--as", "bob"],
        &["users", "--server", "https://127.0.0.1:1"],
        &["users", "--server", "127.0.0.1:1"],
        &["users", "--profile", "none"],
    ] {
        hint(args).await;
    }
    for (name, value) in
        [("PEERPOST_TOKEN", "no token"), ("PEERPOST_TOKEN", "pp_x"), ("PEERPOST_LOG", "a=b=c")]
    {
        let outcome = machine.run_with(name, value, &["users"]).await;
        outcome.fails(1, &["error: ", "\nhint: "]);
    }
    let elsewhere = Machine::new(server.uri());
    elsewhere.run(&["register", "alice"]).await.fails(1, &["hint: choose another name"]);
    let token =
        machine.config_dir().join(format!("127.0.0.1_{}/alice.token", server.addr().port()));
    fs::write(&token, "damaged token").expect("written");
    hint(&["users"]).await;
}

#[tokio::test]
async fn a_pipe_has_each_line_at_once_with_its_fields() {
    let server = TestServer::start().await;
    let machine = Machine::new(server.uri());
    machine.ok(&["register", "alice"]).await;
    let mut command = machine.command(&["follow", "--json"]);
    command.stdout(Stdio::piped());
    let following = Running::start(command);
    following.notes("now live").await;
    machine.ok(&["send", "alice", "hi", "--content-type=text/plain", "--request-id=r1"]).await;
    let line = following.lines(1).await.remove(0);
    following.terminate().await;
    let line = parse(&line).remove(0);
    let fields: Vec<_> = line.as_object().expect("an object").keys().cloned().collect();
    let mut expected =
        ["sequence", "message_id", "from_user", "to_user", "send_time", "text"].to_vec();
    expected.extend(["content_type", "request_id"]);
    expected.sort_unstable();
    let mut sorted = fields.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, expected);
    let help = machine.ok(&["help", "follow"]).await;
    for field in expected.into_iter().chain(["data_base64"]) {
        assert!(help.contains(field), "{field} is not in the help");
    }
}
