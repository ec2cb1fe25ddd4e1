//! `peerpost send` from stdin, and `inbox --since`: what scripts and pipes do.

use std::io::Write as _;
use std::process::Stdio;

use peerpost::testing::{Proxy, ServerProcess, TestServer};

use crate::cli_support::{Machine, Running, parse};
use crate::support::binary;

async fn two_users() -> (TestServer, Machine) {
    let server = TestServer::start().await;
    let machine = Machine::new(server.uri());
    machine.ok(&["register", "alice"]).await;
    machine.ok(&["register", "bob"]).await;
    (server, machine)
}

async fn bobs_texts(machine: &Machine) -> Vec<String> {
    let messages = machine.json(&["--as=bob", "inbox", "--json", "--limit=1000"]).await;
    messages.iter().map(|it| it["text"].as_str().expect("a text").to_owned()).collect()
}

#[tokio::test]
async fn without_a_text_stdin_is_the_message_less_its_last_line_end() {
    let (_server, machine) = two_users().await;
    let command = ["--as=alice", "send", "bob", "--json"];
    for (stdin, text) in [("hello\n", "hello"), ("two\nlines\r\n", "two\nlines"), ("a\n\n", "a\n")]
    {
        let sent = parse(&machine.run_with_stdin(stdin.as_bytes(), &command).await.ok());
        assert_eq!(sent[0]["text"], text);
    }
    let sent = parse(&machine.run_with_stdin(b"\xff\x00\n", &command).await.ok());
    assert_eq!(sent[0]["data_base64"], "/wAK", "data is left as it is");
    for nothing in [&b""[..], b"\n"] {
        machine.run_with_stdin(nothing, &command).await.fails(1, &["nothing to send", "hint: "]);
    }
    let too_large = vec![b'x'; 1024 * 1024 + 1];
    machine.run_with_stdin(&too_large, &command).await.fails(1, &["1048576", "hint: "]);
    let over_the_limit = vec![b'x'; 65_537];
    machine.run_with_stdin(&over_the_limit, &command).await.fails(1, &["65536", "hint: "]);
}

#[tokio::test]
async fn lines_are_sent_as_they_come_and_in_order() {
    let (_server, machine) = two_users().await;
    let mut command = machine.command(&["--as=alice", "send", "bob", "--lines"]);
    command.stdin(Stdio::piped());
    let mut sending = Running::start(command);
    let mut pipe = sending.stdin().expect("stdin is piped");
    pipe.write_all(b"one\n").expect("the command reads");
    // The next comes only after the first was sent, as from `tail -f`.
    let first = sending.lines(1).await;
    assert!(first[0].starts_with("#1 -> bob: "), "{first:?}");
    pipe.write_all(b"two\r\n\n  three\nlast").expect("the command reads");
    drop(pipe);
    assert_eq!(sending.end().await.ok().lines().count(), 4);
    assert_eq!(bobs_texts(&machine).await, ["one", "two", "  three", "last"]);
}

#[tokio::test]
async fn the_first_line_that_is_refused_ends_it_and_the_same_input_can_be_sent_again() {
    let (_server, machine) = two_users().await;
    let command = ["--as=alice", "send", "bob", "--lines", "--request-id=run-1"];
    let too_long = "x".repeat(65_537);
    let input = format!("one\n\n{too_long}\nfour\n");
    let outcome = machine.run_with_stdin(input.as_bytes(), &command).await;
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert_eq!(outcome.stdout.lines().count(), 1);
    for text in ["line 3 is not sent", "1 were sent", "65536", "hint: "] {
        assert!(outcome.stderr.contains(text), "{outcome:?}");
    }
    let input = "one\n\nthree\nfour\n";
    machine.run_with_stdin(input.as_bytes(), &command).await.ok();
    machine.run_with_stdin(input.as_bytes(), &command).await.ok();
    assert_eq!(bobs_texts(&machine).await, ["one", "three", "four"]);
}

#[tokio::test]
async fn lines_outlive_a_server_that_is_killed_each_stored_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let mut server = ServerProcess::start(binary(), &data_dir).await;
    let proxy = Proxy::start(server.addr()).await;
    let machine = Machine::new(proxy.uri());
    machine.ok(&["register", "alice"]).await;
    machine.ok(&["register", "bob"]).await;
    let mut command = machine.command(&["--as=alice", "send", "bob", "--lines"]);
    command.stdin(Stdio::piped());
    let mut sending = Running::start(command);
    let mut pipe = sending.stdin().expect("stdin is piped");
    let (mut expected, mut sent) = (Vec::new(), 0);
    for round in 0..3 {
        for n in 0..40 {
            expected.push(format!("{round}.{n}"));
            writeln!(pipe, "{round}.{n}").expect("the command reads");
        }
        // Somewhere in the middle.
        sent += 20;
        sending.lines(sent).await;
        server.kill();
        server = ServerProcess::start(binary(), &data_dir).await;
        proxy.retarget(server.addr());
        sent += 20;
        sending.lines(sent).await;
    }
    drop(pipe);
    sending.end().await.ok();
    assert_eq!(bobs_texts(&machine).await, expected);
}

#[tokio::test]
async fn the_inbox_since_a_time_is_all_of_it() {
    let (_server, machine) = two_users().await;
    // More than are read at a time.
    let lines = (1..=1_200).map(|n| format!("m{n}")).collect::<Vec<_>>().join("\n");
    let command = ["--as=alice", "send", "bob", "--lines", "--json"];
    let sent = parse(&machine.run_with_stdin(lines.as_bytes(), &command).await.ok());
    let sequences = async |args: &[&str]| {
        let inbox = [&["--as=bob", "inbox", "--json"], args].concat();
        let messages = machine.json(&inbox).await;
        messages.iter().filter_map(|it| it["sequence"].as_i64()).collect::<Vec<_>>()
    };
    assert_eq!(sequences(&["--since=1h"]).await, (1..=1_200).collect::<Vec<_>>());
    let time = sent[100]["send_time"].as_str().expect("a time");
    let since = format!("--since={time}");
    let first = sent.iter().position(|it| it["send_time"].as_str() >= Some(time));
    let first = i64::try_from(first.expect("that one")).expect("a few") + 1;
    assert_eq!(sequences(&[&since]).await, (first..=1_200).collect::<Vec<_>>());
    assert_eq!(sequences(&[&since, "--peer=alice", "--limit=3"]).await, [1_198, 1_199, 1_200]);
    assert_eq!(sequences(&[&since, "--before=105"]).await, (first..=104).collect::<Vec<_>>());
    assert_eq!(
        sequences(&[&since, "--before=105", "--limit=1000"]).await,
        (first..=104).collect::<Vec<_>>()
    );
    let later = jiff::Timestamp::now() + jiff::Span::new().hours(1);
    let nothing = machine.run(&["--as=bob", "inbox", "--since", &later.to_string()]).await;
    assert_eq!((nothing.stderr.as_str(), nothing.stdout.as_str()), ("no messages\n", ""));
    machine.run(&["--as=bob", "inbox", "--since=soon"]).await.fails(2, &["yesterday", "--help"]);
}
