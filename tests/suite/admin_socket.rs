//! The admin socket: for the server's own user alone, on no address for users, and gone with the server.

use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;

use peerpost::client::{AdminClient, Client};
use peerpost::proto::admin::GetServerStatsRequest;
use peerpost::proto::admin::admin_service_client::AdminServiceClient;
use peerpost::server::{ADMIN_SOCKET_FILE, StartError};
use peerpost::testing::{ServerProcess, TestServer, within_patience};
use tonic::Code;
use tonic::transport::Endpoint;

use crate::cli_support::Machine;
use crate::support::{binary, subscribe_from_now};

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

#[tokio::test]
async fn stats_say_what_a_running_server_holds() {
    let server = TestServer::start().await;
    let (alice, _bob) = (server.user("alice").await, server.user("bob").await);
    alice.send("bob", "hello").await;
    let _subscription = alice.subscribe(subscribe_from_now()).await.expect("subscribes");
    let request = GetServerStatsRequest {};
    let admin = server.admin().await;
    let stats = admin.call(|mut grpc| async move { grpc.get_server_stats(request).await });
    let stats = within_patience("the answer", stats).await.expect("answered");
    assert_eq!((stats.users, stats.tokens, stats.messages), (2, 2, 1));
    assert_eq!(stats.subscriptions, 1);
    assert!(stats.connections >= 1, "{stats:?}");
    assert!(stats.database_bytes > 0 && stats.wal_bytes > 0, "{stats:?}");

    let machine = Machine::new("127.0.0.1:1");
    let folder = server.data_dir().to_str().expect("UTF-8");
    let shown = machine.json(&["admin", "stats", "--json", "--data-dir", folder]).await;
    assert_eq!((&shown[0]["users"], &shown[0]["messages"]), (&2.into(), &1.into()), "{shown:?}");
    let shown = machine.ok(&["admin", "stats", "--data-dir", folder]).await;
    assert!(shown.contains("users           2"), "{shown}");
}

#[tokio::test]
async fn without_a_server_its_commands_say_what_to_do() {
    let machine = Machine::new("127.0.0.1:1");
    let nobody = machine.run(&["admin", "stats", "--data-dir", "nobody"]).await;
    nobody.fails(1, &["nobody/admin.sock", "peerpost serve --data-dir nobody", "--admin-socket"]);
}

#[tokio::test]
async fn the_socket_is_its_owners_alone_and_goes_with_the_server() {
    let mut server = TestServer::start().await;
    let path = server.data_dir().join(ADMIN_SOCKET_FILE);
    let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    // One who is connected and idle holds up nothing.
    let admin = server.admin().await;
    server.stop().await;
    assert!(!path.exists());
    let request = GetServerStatsRequest {};
    let call = admin.call(|mut grpc| async move { grpc.get_server_stats(request).await });
    within_patience("the answer", call).await.expect_err("nobody is there");
    server.start_again().await;
    server.admin().await;
}

#[tokio::test]
async fn a_killed_servers_socket_is_replaced() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(ADMIN_SOCKET_FILE);
    ServerProcess::start(binary(), folder.path()).await.kill();
    assert!(is_socket(&path), "it was left behind");
    let server = ServerProcess::start(binary(), folder.path()).await;
    AdminClient::connect(&path).await.expect("answers");
    server.kill();
}

#[tokio::test]
async fn a_path_that_no_socket_can_have_is_told() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let long = folder.path().join("long".repeat(30));
    let server = ServerProcess::start(binary(), &long).await;
    assert!(server.stderr().contains("--admin-socket"), "{}", server.stderr());
    server.kill();

    let short = folder.path().join("short.sock");
    let place = ["--admin-socket", short.to_str().expect("UTF-8")];
    let server = ServerProcess::start_with(&[], binary(), &long, &place).await;
    let machine = Machine::new("127.0.0.1:1");
    machine.ok(&["admin", "stats", place[0], place[1]]).await;
    server.kill();

    let refused = TestServer::try_start_with(|options| {
        options.admin_socket = Some(long.join("admin.sock"));
    })
    .await;
    let Err(StartError::AdminSocket { .. }) = &refused else { panic!("{refused:?}") };
    assert!(refused.expect_err("refused").to_string().contains("--admin-socket"));
}

#[tokio::test]
async fn no_address_for_users_serves_it() {
    let server = TestServer::start().await;
    Client::connect(&server.uri()).expect("a server").register("alice", "").await.expect("serves");
    let channel = Endpoint::from_shared(server.uri()).expect("an address").connect_lazy();
    let mut admin = AdminServiceClient::new(channel);
    let answer = within_patience("answer", admin.get_server_stats(GetServerStatsRequest {})).await;
    assert_eq!(answer.expect_err("nobody serves it").code(), Code::Unimplemented);
}
