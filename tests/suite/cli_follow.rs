//! `peerpost follow`: each message once, whatever happens to the server, the reader and itself.

use std::io::{BufRead as _, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use peerpost::proto::SubscribeRequest;
use peerpost::testing::{Proxy, ServerProcess, TestServer, TestUser};

use crate::cli_support::{Machine, Running, parse};
use crate::support::binary;

/// Alice, and a machine that has her token in its environment alone.
struct Scene {
    server: TestServer,
    machine: Machine,
    alice: TestUser,
}

impl Scene {
    async fn start() -> Self {
        let server = TestServer::start().await;
        let machine = Machine::new(server.uri());
        let alice = server.user("alice").await;
        Self { server, machine, alice }
    }

    fn follow(&self, args: &[&str]) -> Running {
        follow(&self.machine, &self.alice, args)
    }

    async fn acknowledged(&self) -> i64 {
        self.alice.acknowledge(0).await.expect("accepted")
    }

    async fn send(&self, texts: &[&str]) {
        for text in texts {
            self.alice.send("alice", text).await;
        }
    }
}

fn follow(machine: &Machine, user: &TestUser, args: &[&str]) -> Running {
    let mut command = machine.command(&[&["follow"], args].concat());
    command.env("PEERPOST_TOKEN", &user.token);
    Running::start(command)
}

/// The bodies of messages on lines for people.
fn bodies(lines: &[String]) -> Vec<&str> {
    lines.iter().map(|line| line.split_once("alice: ").expect(line).1).collect()
}

#[tokio::test]
async fn history_and_news_are_printed_as_they_come() {
    let scene = Scene::start().await;
    scene.send(&["one", "two"]).await;
    let following = scene.follow(&["--json"]);
    following.notes("caught up with #2, now live").await;
    scene.send(&["three"]).await;
    following.lines(3).await;
    let outcome = following.terminate().await;
    assert!(outcome.stderr.starts_with("following after #0\n"), "{outcome:?}");
    let messages = parse(&outcome.ok());
    let shown: Vec<_> =
        messages.iter().map(|it| (it["sequence"].as_i64(), it["text"].as_str())).collect();
    let expected = [(Some(1), Some("one")), (Some(2), Some("two")), (Some(3), Some("three"))];
    assert_eq!(shown, expected);
    assert_eq!(scene.acknowledged().await, 0, "nothing is acknowledged unless asked");
}

#[tokio::test]
async fn it_starts_where_it_is_told() {
    let scene = Scene::start().await;
    let bob = scene.server.user("bob").await;
    scene.send(&["1", "2", "3"]).await;
    scene.alice.acknowledge(1).await.expect("accepted");
    let acknowledged = scene.follow(&[]);
    assert_eq!(bodies(&acknowledged.lines(2).await), ["2", "3"]);
    let after = scene.follow(&["--after=2"]);
    assert_eq!(bodies(&after.lines(1).await), ["3"]);
    let from_now = scene.follow(&["--from-now"]);
    from_now.notes("now live").await;
    let received = scene.follow(&["--after=3", "--received-only"]);
    received.notes("now live").await;
    scene.alice.send("bob", "sent").await;
    bob.send("alice", "received").await;
    assert_eq!(bodies(&received.lines(1).await), ["received"]);
    let live = from_now.lines(2).await;
    assert!(live[0].ends_with("alice -> bob: sent"), "{live:?}");
    assert!(live[1].ends_with("bob -> alice: received"), "{live:?}");

    scene.follow(&["--after=9"]).end().await.fails(1, &["error: ", "hint: "]);
}

#[tokio::test]
async fn ack_goes_on_after_what_was_printed() {
    let scene = Scene::start().await;
    for round in 0..3_i64 {
        scene.send(&["a", "b"]).await;
        let following = scene.follow(&["--ack"]);
        assert_eq!(bodies(&following.lines(2).await), ["a", "b"]);
        scene.send(&["c"]).await;
        following.lines(3).await;
        // Stopped before it is due, it acknowledges on its way out.
        let outcome = following.terminate().await;
        assert_eq!(bodies(&outcome.ok().lines().map(str::to_owned).collect::<Vec<_>>()).len(), 3);
        assert_eq!(scene.acknowledged().await, 3 * (round + 1));
    }
    // While it runs it acknowledges too: killed, it would not print everything again.
    let following = scene.follow(&["--ack"]);
    scene.send(&["d"]).await;
    assert_eq!(bodies(&following.lines(1).await), ["d"]);
    peerpost::testing::eventually("the acknowledgement", async || {
        (scene.acknowledged().await == 10).then_some(())
    })
    .await;
}

#[tokio::test]
async fn ack_covers_what_was_skipped() {
    let scene = Scene::start().await;
    scene.send(&["a", "b", "c"]).await;
    let following = scene.follow(&["--ack", "--after=2"]);
    following.lines(1).await;
    following.terminate().await.ok();
    assert_eq!(scene.acknowledged().await, 3);
    let help = scene.machine.ok(&["follow", "--help"]).await;
    assert!(help.split_whitespace().collect::<Vec<_>>().join(" ").contains("what they skip"));
}

#[tokio::test]
async fn it_outlives_a_server_that_is_killed_and_prints_each_message_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let mut server = ServerProcess::start(binary(), &data_dir).await;
    let proxy = Proxy::start(server.addr()).await;
    let machine = Machine::new(proxy.uri());
    let mut alice = server.user("alice").await;
    let following = follow(&machine, &alice, &["--after=0", "--json"]);
    let mut sent = 0;
    for _kill in 0..3 {
        alice.send_many("alice", "m", 30).await;
        sent += 30;
        following.lines(sent).await;
        alice.send_many("alice", "perhaps printed before the kill ", 30).await;
        sent += 30;
        server.kill();
        server = ServerProcess::start(binary(), &data_dir).await;
        alice = alice.at(server.addr());
        proxy.retarget(server.addr());
        alice.send("alice", "after").await;
        sent += 1;
    }
    following.lines(sent).await;
    following.notes("connected again, going on after #").await;
    let outcome = following.terminate().await;
    let messages = parse(&outcome.ok());
    let printed: Vec<_> = messages.iter().map(|it| it["sequence"].as_i64()).collect();
    assert_eq!(printed, (1..).take(sent).map(Some).collect::<Vec<_>>());
}

#[tokio::test]
async fn it_can_be_stopped_while_the_server_is_away() {
    let mut scene = Scene::start().await;
    let following = scene.follow(&["--ack"]);
    following.notes("now live").await;
    scene.server.stop().await;
    following.notes("next attempt in").await;
    following.terminate().await.ok();
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_ends_it_quietly() {
    let scene = Scene::start().await;
    scene.send(&["one"]).await;
    // Closed while nothing is written: noticed at once. Then closed with more to write.
    for more in [false, true] {
        let mut command = scene.machine.command(&["follow", "--after=0"]);
        command.env("PEERPOST_TOKEN", &scene.alice.token);
        let (reader, writer) = std::io::pipe().expect("a pipe");
        command.stdout(writer);
        let following = Running::start(command);
        let first = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            BufReader::new(reader).read_line(&mut line).expect("a line");
            line
        });
        assert!(first.await.expect("a line").ends_with("one\n"));
        if more {
            scene.send(&["two", "three"]).await;
        }
        let outcome = following.end().await;
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        for word in ["error", "panic", "pipe"] {
            assert!(!outcome.stderr.contains(word), "{outcome:?}");
        }
    }
    // A command that ends by itself does so quietly too.
    let mut command = scene.machine.command(&["inbox"]);
    command.env("PEERPOST_TOKEN", &scene.alice.token);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    command.stdout(writer);
    let outcome = Running::start(command).end().await;
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn a_reader_that_does_not_read_cannot_keep_it_from_stopping() {
    let scene = Scene::start().await;
    scene.send(&["one", "two"]).await;
    let (_reader, mut full) = UnixStream::pair().expect("a pair of sockets");
    // Full to the brim: the first line blocks.
    full.set_nonblocking(true).expect("a socket's mode can be set");
    while std::io::Write::write(&mut full, &[b'x'; 4096]).is_ok() {}
    full.set_nonblocking(false).expect("a socket's mode can be set");
    let mut command = scene.machine.command(&["follow", "--after=0", "--ack"]);
    command.env("PEERPOST_TOKEN", &scene.alice.token).stdout(OwnedFd::from(full));
    let following = Running::start(command);
    following.notes("following after #0").await;
    let outcome = following.terminate().await;
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(scene.acknowledged().await, 0, "what was not printed is not acknowledged");
}

#[tokio::test]
async fn following_makes_one_online_until_it_ends() {
    let scene = Scene::start().await;
    let following = scene.follow(&[]);
    following.notes("now live").await;
    assert!(scene.alice.get_user("alice").await.expect("found").online);
    following.terminate().await.ok();
    peerpost::testing::eventually("going offline", async || {
        (!scene.alice.get_user("alice").await.expect("found").online).then_some(())
    })
    .await;
    let request = SubscribeRequest::default();
    assert_eq!(scene.alice.subscribe(request).await.expect("accepted").started().after_sequence, 0);
}
