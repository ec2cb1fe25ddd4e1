//! The data folder: made private, used by one server, never repaired by deleting.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use peerpost::server::{Options, bind};
use peerpost::testing::{ServerProcess, TestServer, within_patience};

use crate::support::{binary, database_in};

#[tokio::test]
async fn a_second_server_on_a_folder_is_refused_at_once() {
    let mut server = TestServer::start().await;
    let alice = server.user("alice").await;
    let message = refusal_to_start(server.data_dir()).await;
    assert!(says_it_is_in_use(&message), "{message}");
    assert_eq!(alice.send("alice", "the first goes on").await.sequence, 1);

    server.stop().await;
    server.start_again().await;
}

#[tokio::test]
async fn a_second_process_on_a_folder_is_refused_with_exit_code_1() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let server = ServerProcess::start(binary(), &data_dir).await;
    let alice = server.user("alice").await;

    let exit = ServerProcess::fail_to_start(binary(), &data_dir).await;
    assert_eq!(exit.code, Some(1), "{}", exit.stderr);
    assert!(says_it_is_in_use(&exit.stderr), "{}", exit.stderr);
    assert_eq!(alice.send("alice", "the first goes on").await.sequence, 1);

    server.kill();
    let next = ServerProcess::start(binary(), &data_dir).await;
    assert_eq!(alice.at(next.addr()).mailbox().await.len(), 1, "a lock dies with its server");
}

#[tokio::test]
async fn a_new_folder_is_the_owners_alone() {
    let server = TestServer::start().await;
    server.user("alice").await.send("alice", "private").await;
    assert_eq!(mode(server.data_dir()), 0o700);
}

#[tokio::test]
async fn a_folder_that_exists_is_used() {
    let mut server = TestServer::start_with(|options| {
        fs::create_dir(&options.data_dir).expect("the folder can be made");
    })
    .await;
    server.user("alice").await.send("alice", "note").await;
    server.restart().await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("file");
    fs::write(&file, "not a folder").expect("the file can be written");
    refusal_to_start(&file).await;
    refusal_to_start(&file.join("below")).await;
    assert_eq!(fs::read(&file).expect("the file is there"), b"not a folder");
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    fs::create_dir(&data_dir).expect("the folder can be made");
    fs::set_permissions(&data_dir, fs::Permissions::from_mode(0o500)).expect("a new mode");
    if fs::write(data_dir.join("probe"), "").is_ok() {
        println!("permissions do not bind this user, who is root: nothing to see");
        return;
    }
    refusal_to_start(&data_dir).await;
}

#[tokio::test]
async fn a_file_that_is_not_a_database_is_refused_and_kept() {
    let mut server = TestServer::start().await;
    server.user("alice").await.send("alice", "note").await;
    server.stop().await;
    let database = database_in(server.data_dir());
    let good = fs::read(&database).expect("the database can be read");
    let mut broken_header = good.clone();
    broken_header[..16].fill(0xaa);
    let bad =
        [b"this is not a database, and long enough to be seen as none".to_vec(), broken_header];
    for bytes in bad {
        fs::write(&database, &bytes).expect("the database can be written");
        refusal_to_start(server.data_dir()).await;
        assert_eq!(fs::read(&database).expect("it is there"), bytes, "nothing was changed");
    }
    fs::write(&database, &good).expect("the database can be written");
    server.start_again().await;
}

/// Why a server does not start on a folder.
async fn refusal_to_start(data_dir: &Path) -> String {
    let mut options = Options::new(data_dir);
    options.listen = vec![std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()];
    match within_patience("bind", bind(options)).await {
        Ok(_) => panic!("a server started on {}", data_dir.display()),
        Err(error) => error.to_string(),
    }
}

fn says_it_is_in_use(message: &str) -> bool {
    message.contains("in use") || message.contains("another server")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}
