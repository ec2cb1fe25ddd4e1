//! TLS: what is agreed on, who is turned away, and certificates that change while the server runs.

use std::sync::Arc;
use std::time::Duration;

use peerpost::client::{Client, Event, FollowOptions, Start};
use peerpost::server::{Options, StartError, bind};
use peerpost::testing::{PATIENCE, ServerProcess, TestServer, eventually, within_patience};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::rustls::HandshakeKind;

use crate::client_support::{caught_up, impatient, next_event};
use crate::support::{WITH_MANY_FILES, binary, raise_file_limit};
use crate::tls_support::{
    Authority, Files, client_config, connect, connect_with, register, shown, trusting,
};

/// A record that holds a handshake message, of which more is to come.
const BEGINNING: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";

async fn start(files: &Files) -> TestServer {
    TestServer::start_with(|options| options.tls = Some(files.options())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_drops_none_of_a_thousand_subscriptions_and_new_connections_see_it() {
    const USERS: usize = 4;
    const SUBSCRIPTIONS_EACH: usize = 250;
    raise_file_limit();
    let authority = Authority::new();
    let (old, new) = (authority.issue(), authority.issue());
    let files = Files::of(&old);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let flags = files.flags();
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let data_dir = folder.path().join("data");
    let server = ServerProcess::start_with(&WITH_MANY_FILES, binary(), &data_dir, &flags).await;
    let uri = format!("https://{}", server.addr());
    let mut users = Vec::new();
    let mut following = JoinSet::new();
    for number in 0..USERS {
        let name = format!("user{number}");
        let (client, _) = register(&uri, trusting(&authority), &name).await;
        for _ in 0..SUBSCRIPTIONS_EACH {
            // Each has a connection of its own.
            let mut follow = client.follow(Start::Acknowledged, FollowOptions::default());
            following.spawn(async move {
                caught_up(&mut follow).await;
                follow
            });
        }
        users.push((name, client));
    }
    let open = within_patience("all subscriptions", following.join_all()).await;
    assert_eq!(open.len(), USERS * SUBSCRIPTIONS_EACH);
    assert_eq!(shown(server.addr(), &authority).await, old.der());

    files.put(&new);
    server.reload();
    eventually("the new certificate", async || {
        (shown(server.addr(), &authority).await == new.der()).then_some(())
    })
    .await;
    for (name, client) in &users {
        client.send(name, "after the change").await.expect("stored");
    }
    for mut follow in open {
        loop {
            match next_event(&mut follow).await {
                Event::Message(message) => break assert_eq!(message.sequence, 1),
                Event::Heartbeat { .. } => {}
                other => panic!("a subscription did not simply go on: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_certificate_that_is_no_good_is_not_taken_and_a_good_one_is_noticed_without_a_signal() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (old, new, other) = (authority.issue(), authority.issue(), stranger.issue());
    let files = Files::of(&old);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let flags = files.flags();
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let data_dir = folder.path().join("data");
    let server = ServerProcess::start_with(&[], binary(), &data_dir, &flags).await;
    let refusals = || server.stderr().matches("kept the certificate that there was").count();
    let break_it: [&dyn Fn(); 4] = [
        &|| files.write("key.pem", &other.key),
        &|| files.write("certificate.pem", "no certificate"),
        &|| std::fs::remove_file(files.path("key.pem")).expect("it was there"),
        &|| files.write("certificate.pem", &"x".repeat(2_000_000)),
    ];
    for (number, break_it) in break_it.iter().enumerate() {
        files.put(&old);
        break_it();
        let before = refusals();
        server.reload();
        eventually("a complaint", async || (refusals() > before).then_some(())).await;
        assert_eq!(shown(server.addr(), &authority).await, old.der(), "case {number}");
    }
    files.put(&new);
    eventually("the new certificate", async || {
        (shown(server.addr(), &authority).await == new.der()).then_some(())
    })
    .await;
    for line in new.key.lines().chain(other.key.lines()).filter(|line| !line.starts_with('-')) {
        assert!(!server.stderr().contains(line), "a key in the log");
    }
}

#[tokio::test]
async fn no_session_is_resumed_after_the_certificate_changed() {
    let authority = Authority::new();
    let (old, new) = (authority.issue(), authority.issue());
    let files = Files::of(&old);
    let server = start(&files).await;
    // Comes again and again, with what it remembers.
    let config = client_config(&authority, &["http/1.1"], None);
    let visit = async || {
        let stream = connect_with(server.addr(), Arc::clone(&config)).await;
        let mut stream = stream.expect("agreed");
        let request = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.expect("sent");
        // Tickets come with the answer.
        let mut answer = Vec::new();
        within_patience("the answer", stream.read_to_end(&mut answer)).await.expect("an answer");
        let tls = stream.get_ref().1;
        let certificate = tls.peer_certificates().expect("a certificate")[0].clone().into_owned();
        (tls.handshake_kind(), certificate)
    };
    visit().await;
    assert_eq!(visit().await, (Some(HandshakeKind::Resumed), old.der()));
    files.put(&new);
    let (kind, certificate) = eventually("another certificate", async || {
        let visited = visit().await;
        (visited.1 != old.der()).then_some(visited)
    })
    .await;
    assert_eq!((kind, certificate), (Some(HandshakeKind::Full), new.der()));
}

#[tokio::test]
async fn a_server_does_not_start_with_files_that_are_no_good() {
    let authority = Authority::new();
    let files = Files::of(&authority.issue());
    files.write("key.pem", &authority.issue().key);
    for (name, text) in [
        ("key.pem", authority.issue().key.as_str()),
        ("key.pem", "no key"),
        ("certificate.pem", ""),
    ] {
        files.put(&authority.issue());
        files.write(name, text);
        let mut options = Options::new(files.path("data"));
        options.tls = Some(files.options());
        let Err(StartError::Tls(error)) = bind(options).await else { panic!("it started") };
        assert!(error.to_string().contains(name), "{error}");
        assert!(!files.path("data").exists(), "nothing was made for a server that does not start");
    }
}

#[tokio::test]
async fn both_versions_of_http_are_spoken_and_the_client_chooses() {
    let authority = Authority::new();
    let files = Files::of(&authority.issue());
    let server = start(&files).await;
    let cases: [(&[&str], Option<&str>); 4] = [
        (&["h2", "http/1.1"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&["h2"], Some("h2")),
        (&[], None),
    ];
    for (offered, chosen) in cases {
        let mut stream = connect(server.addr(), &authority, offered, None).await.expect("agreed");
        let alpn = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        assert_eq!(alpn.as_deref(), chosen.map(str::as_bytes));
        if chosen == Some("h2") {
            continue;
        }
        let request = b"GET /nowhere HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.expect("sent");
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        within_patience("the answer", read).await.expect("it ends as TLS does");
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    }
    assert!(connect(server.addr(), &authority, &["spdy/1"], None).await.is_err());
    // HTTP/2, large answers included.
    let (alice, _) = register(&server.uri(), trusting(&authority), "alice").await;
    for _ in 0..32 {
        alice.send("alice", vec![7; 60_000]).await.expect("stored");
    }
    let mut following = alice.follow(Start::After(0), FollowOptions::default());
    let mut received = 0;
    while received < 32 {
        if let Event::Message(message) = next_event(&mut following).await {
            assert_eq!(message.body.as_bytes(), vec![7; 60_000]);
            received += 1;
        }
    }
}

#[tokio::test]
async fn the_servers_certificate_is_checked_by_the_client() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let files = Files::of(&authority.issue());
    let server = start(&files).await;
    let client = Client::connect_with(&server.uri(), impatient().tls_ca(stranger.pem()));
    let error = client.expect("a server").users_page_error().await;
    assert!(error.contains("cannot connect"), "{error}");
    let invalid = Client::connect_with(&server.uri(), impatient().tls_ca("no certificate"));
    assert!(invalid.expect_err("refused").to_string().contains("no certificate in PEM"));
}

/// What a client is told that cannot connect.
trait Errs {
    async fn users_page_error(&self) -> String;
}

impl Errs for Client {
    async fn users_page_error(&self) -> String {
        let answer = within_patience("an answer", self.user_page("", None)).await;
        answer.expect_err("no server is reached").to_string()
    }
}

#[tokio::test]
async fn who_speaks_plaintext_to_tls_or_the_other_way_round_is_turned_away_at_once() {
    let authority = Authority::new();
    let files = Files::of(&authority.issue());
    let (secure, plain) = (start(&files).await, TestServer::start().await);
    for request in ["GET / HTTP/1.1\r\nhost: x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut stream = TcpStream::connect(secure.addr()).await.expect("connects");
        // More than the server looks at: unread, it would make a reset of the end.
        stream.write_all(request.repeat(100).as_bytes()).await.expect("sent");
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        within_patience("the end", read).await.expect("an end, not a reset");
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a whole head");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{answer}");
        assert!(body.contains("TLS only"), "{answer}");
    }
    let plaintext = format!("http://{}", secure.addr());
    let client = Client::connect_with(&plaintext, impatient()).expect("a server");
    client.users_page_error().await;
    let error = connect(plain.addr(), &authority, &["h2"], None).await.expect_err("no TLS there");
    assert_ne!(error.kind(), std::io::ErrorKind::ConnectionReset);
    register(&secure.uri(), trusting(&authority), "alice").await;
    plain.user("alice").await;
}

#[tokio::test]
async fn a_handshake_that_stalls_is_cut() {
    let authority = Authority::new();
    let files = Files::of(&authority.issue());
    let server = start(&files).await;
    let mut stalled = TcpStream::connect(server.addr()).await.expect("connects");
    stalled.write_all(BEGINNING).await.expect("sent");
    let mut silent = connect(server.addr(), &authority, &["h2"], None).await.expect("agreed");
    let mut unread = Vec::new();
    // However it is told.
    let _ = within_patience("the end", stalled.read_to_end(&mut unread)).await;
    let _ = within_patience("the end", silent.read_to_end(&mut unread)).await;
    assert!(unread.is_empty(), "{unread:?}");
    register(&server.uri(), trusting(&authority), "alice").await;
}

#[tokio::test]
async fn a_stop_tells_streams_over_tls_and_waits_for_no_handshake() {
    const FAR_DEADLINE: Duration = Duration::from_hours(1);
    let authority = Authority::new();
    let files = Files::of(&authority.issue());
    let mut server = TestServer::start_with(|options| {
        options.tls = Some(files.options());
        options.drain_deadline = FAR_DEADLINE;
    })
    .await;
    let (alice, _) = register(&server.uri(), trusting(&authority), "alice").await;
    let mut following = alice.follow(Start::Acknowledged, FollowOptions::default());
    caught_up(&mut following).await;
    let mut stalled = TcpStream::connect(server.addr()).await.expect("connects");
    stalled.write_all(BEGINNING).await.expect("sent");
    // It is accepted when one that came later is.
    shown(server.addr(), &authority).await;
    assert!(FAR_DEADLINE > PATIENCE);
    server.stop().await;
    let Event::Reconnecting { error, .. } = next_event(&mut following).await else {
        panic!("the stream went on");
    };
    assert_eq!(error.reason(), Some(peerpost::proto::ErrorReason::ShuttingDown), "{error}");
}
