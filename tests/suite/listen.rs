//! Where a server listens: several places at once, Unix sockets, and not beyond its machine in the
//! clear unless it is told to.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use peerpost::client::{Client, Event, FollowOptions, Start};
use peerpost::proto::ErrorReason;
use peerpost::server::{Listen, StartError};
use peerpost::testing::{TestServer, within_patience};

use crate::cli_support::{Machine, Running};
use crate::client_support::{caught_up, next_event, patient};
use crate::support::binary;
use crate::tls_support::{Authority, Files, register, trusting};

fn loopback() -> Listen {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()
}

fn everywhere() -> Listen {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into()
}

/// The file of a Unix socket, and whether one is there.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn is_socket(&self) -> bool {
        let metadata = std::fs::symlink_metadata(self.path());
        metadata.is_ok_and(|metadata| metadata.file_type().is_socket())
    }

    async fn start(&self) -> Result<TestServer, StartError> {
        TestServer::try_start_with(|options| {
            options.listen = vec![loopback(), Listen::Unix(self.path())];
        })
        .await
    }
}

#[tokio::test]
async fn a_server_listens_in_several_places_at_once() {
    let place = Place::new();
    let server = TestServer::start_with(|options| {
        options.listen = vec![loopback(), Listen::Unix(place.path()), loopback()];
    })
    .await;
    let [first, unix, second] = server.uris() else { panic!("{:?}", server.uris()) };
    assert_ne!(first, second);
    assert!(unix.starts_with("unix:/"), "{unix}");
    let (alice, token) = register(first, patient(), "alice").await;
    let mut following = alice.follow(Start::Acknowledged, FollowOptions::default());
    caught_up(&mut following).await;
    for (number, uri) in (1..).zip([second, unix, first, unix]) {
        let client = Client::connect_with(uri, patient()).expect("a server").with_token(&token);
        client.send("alice", uri.as_str()).await.expect("stored");
        let Event::Message(message) = next_event(&mut following).await else {
            panic!("no message")
        };
        assert_eq!((message.sequence, message.body.as_bytes()), (number, uri.as_bytes()));
    }
}

#[tokio::test]
async fn a_unix_socket_is_its_owners_and_groups_and_goes_with_the_server() {
    let place = Place::new();
    let mut server = place.start().await.expect("starts");
    let mode = std::fs::metadata(place.path()).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o660);
    let unix = server.uris()[1].clone();
    let client = Client::connect_with(&unix, patient()).expect("a server");
    // Over it nobody has an address.
    let error = client.register("alice", "").await.expect_err("no address is seen");
    assert_eq!(error.reason(), Some(ErrorReason::InvalidField), "{error}");
    assert!(error.to_string().contains("ip_address"), "{error}");
    client.register("alice", "192.0.2.7").await.expect("a new name");
    server.stop().await;
    assert!(!place.path().exists());
    server.start_again().await;
    assert!(place.is_socket());
}

#[tokio::test]
async fn a_socket_is_replaced_only_when_nobody_answers_there() {
    let place = Place::new();
    let left_behind = UnixListener::bind(place.path()).expect("a socket");
    let refused = place.start().await.expect_err("somebody is there").to_string();
    assert!(refused.contains("another server answers there"), "{refused}");
    assert!(place.is_socket());
    drop(left_behind);
    assert!(place.is_socket());
    let mut server = place.start().await.expect("nobody is there");
    // What somebody else put there meanwhile is not removed.
    std::fs::remove_file(place.path()).expect("it was there");
    std::fs::write(place.path(), "precious").expect("written");
    server.stop().await;
    let refused = place.start().await.expect_err("something else is there").to_string();
    assert!(refused.contains("something else than a socket"), "{refused}");
    assert_eq!(std::fs::read_to_string(place.path()).expect("it is there"), "precious");
    let nowhere = Listen::Unix(Path::new("/nowhere/socket").into());
    let refused = TestServer::try_start_with(|options| options.listen = vec![nowhere]).await;
    let refused = refused.expect_err("no such folder").to_string();
    assert!(refused.contains("unix:/nowhere/socket"), "{refused}");
}

#[tokio::test]
async fn without_tls_a_server_leaves_its_machine_only_when_told_to() {
    let refused = TestServer::try_start_with(|options| {
        options.listen = vec![loopback(), everywhere()];
    })
    .await;
    assert!(matches!(refused, Err(StartError::PlaintextBeyondLoopback(_))), "{refused:?}");
    let nowhere = TestServer::try_start_with(|options| options.listen = Vec::new()).await;
    assert!(matches!(nowhere, Err(StartError::NoAddress)), "{nowhere:?}");
    let server = TestServer::start_with(|options| {
        options.listen = vec![everywhere()];
        options.plaintext_beyond_loopback = true;
    })
    .await;
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, server.addr().port()));
    register(&here.to_string(), patient(), "alice").await;

    let authority = Authority::new();
    let files = Files::of(&authority.issue());
    let server = TestServer::start_with(|options| {
        options.listen = vec![everywhere()];
        options.tls = Some(files.options());
    })
    .await;
    let here = format!("https://localhost:{}", server.addr().port());
    register(&here, trusting(&authority), "alice").await;
}

#[tokio::test]
async fn serve_says_both_ways_out_warns_and_names_every_place() {
    let machine = Machine::new("127.0.0.1:1");
    let refused = machine.run(&["serve", "--listen", "0.0.0.0:0"]).await;
    refused.fails(1, &["--tls-cert", "--tls-key", "--plaintext-beyond-loopback"]);
    for wrong in ["localhost:1", "unix:", "127.0.0.1", ""] {
        machine
            .run(&["serve", "--listen", wrong])
            .await
            .fails(2, &["127.0.0.1:50051", "unix:PATH"]);
    }
    let alone = machine.run(&["serve", "--tls-cert", "a.pem"]).await;
    alone.fails(2, &["--tls-key"]);
    let args =
        ["serve", "--plaintext-beyond-loopback", "--listen=0.0.0.0:0,unix:a", "--listen=unix:b"];
    let serving = machine.start(&args);
    let lines = serving.lines(3).await;
    let said: Vec<_> =
        lines.iter().filter_map(|it| it.strip_prefix("peerpost listens on ")).collect();
    assert!(said[0].starts_with("http://0.0.0.0:"), "{said:?}");
    assert_eq!(said[1..], ["unix:a", "unix:b"]);
    let outcome = serving.terminate().await;
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stderr.contains("WITHOUT TLS"), "{outcome:?}");
}

/// Becomes the server, with a listening socket as the one that systemd passes.
const PASS_A_SOCKET: &str = "\
import os, socket, sys
listener = socket.create_server(('127.0.0.1', 0))
os.dup2(listener.fileno(), 3, inheritable=True)
os.set_inheritable(3, True)
os.environ['LISTEN_FDS'] = '1'
os.environ['LISTEN_PID'] = str(os.getpid())
print(listener.getsockname()[1], file=sys.stderr, flush=True)
os.execv(sys.argv[1], sys.argv[1:])";

#[tokio::test]
async fn a_service_manager_passes_a_socket_and_is_told_of_ready_and_stopping() {
    let machine = Machine::new("127.0.0.1:1");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("notify");
    let manager = tokio::net::UnixDatagram::bind(&path).expect("a socket");
    let mut command = Command::new("python3");
    command
        .args(["-c", PASS_A_SOCKET])
        .arg(binary())
        .args(["serve", "--listen", "systemd", "--data-dir"])
        .arg(folder.path().join("data"))
        .env("NOTIFY_SOCKET", &path)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let told = async || {
        let mut bytes = [0; 64];
        let read = within_patience("news", manager.recv(&mut bytes)).await.expect("news");
        String::from_utf8_lossy(&bytes[..read]).trim().to_owned()
    };
    let serving = Running::start(command);
    assert_eq!(told().await, "READY=1");
    let lines = serving.lines(1).await;
    let addr = lines[0].strip_prefix("peerpost listens on http://").expect("an address");
    let port = addr.parse::<SocketAddr>().expect("an address").port();
    serving.notes(&format!("{port}\n")).await;
    // Asked to reload, it has no certificate to read again, and does not end as without a manager.
    serving.signal("-HUP");
    serving.notes("asked to reload").await;
    register(addr, patient(), "alice").await;
    let (outcome, stopping) = tokio::join!(serving.terminate(), told());
    assert_eq!(stopping, "STOPPING=1");
    assert_eq!(outcome.code, Some(0), "{outcome:?}");

    let none = machine.run(&["serve", "--listen", "systemd"]).await;
    none.fails(1, &["systemd", "LISTEN_FDS"]);
}
