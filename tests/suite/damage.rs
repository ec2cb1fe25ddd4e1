//! A bit that turns over on disk: reported where it stands, read past, never served, never deleted.

use std::path::{Path, PathBuf};

use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, SqliteConnection};
use peerpost::proto::ErrorReason;
use peerpost::testing::{TestServer, TestUser, after, before, refused, text_to};
use tonic::Status;

use crate::support::{database_in, sequences, texts, with_type};

const MARK: &str = "the message that a flipped bit will damage";

/// Alice's and bob's mailboxes with five messages of alice's, the third of them damaged; bob's
/// begins with a note of his own, so that the sequences differ.
struct Scene {
    server: TestServer,
    alice: TestUser,
    bob: TestUser,
}

#[tokio::test]
async fn a_page_ends_before_a_damaged_entry_and_none_begins_with_it() {
    let Scene { alice, bob, server: _server } = damaged_scene(MARK).await;
    for (user, damaged) in [(&alice, 3), (&bob, 4)] {
        for request in [after(damaged - 1), before(damaged + 1)] {
            refused(user.get(request).await, ErrorReason::StoredDataDamaged)
                .with("sequence", damaged);
        }
        let earlier: Vec<_> = (1..damaged).collect();
        let later = [damaged + 1, damaged + 2];
        for (request, expected, has_more) in [
            (after(0), earlier.as_slice(), true),
            (before(damaged), &earlier, false),
            (before(0), &later, true),
            (after(damaged), &later, false),
        ] {
            let page = user.get(request).await.expect("what is whole is served");
            assert_eq!(sequences(&page.messages), expected);
            assert_eq!((page.has_more, page.last_sequence), (has_more, damaged + 2));
        }
    }
}

#[tokio::test]
async fn a_subscription_ends_at_a_damaged_entry_and_goes_on_after_it() {
    let Scene { alice, bob, server: _server } = damaged_scene(MARK).await;
    let (delivered, status) = bob.follow(0).await.drain().await;
    assert_eq!(sequences(&delivered), [1, 2, 3], "what stands before it is delivered");
    refused(Err::<(), _>(status), ErrorReason::StoredDataDamaged).with("sequence", 4);

    let mut following = bob.follow(4).await;
    assert_eq!(texts(&following.history().await.0), ["4", "5"]);
    alice.send("bob", "6").await;
    assert_eq!(texts(&following.messages(1).await), ["6"]);
}

#[tokio::test]
async fn the_checksum_covers_more_than_the_body() {
    let Scene { bob, server: _server, .. } = damaged_scene("x-mark/of-the-content-type").await;
    refused(bob.get(after(3)).await, ErrorReason::StoredDataDamaged).with("sequence", 4);
}

#[tokio::test]
async fn nothing_is_deleted_to_make_the_error_go_away() {
    let Scene { mut server, bob, .. } = damaged_scene(MARK).await;
    for _restart in 0..2 {
        let bob = bob.at(server.addr());
        assert_eq!(bob.get(after(6)).await.expect("an empty page").last_sequence, 6);
        refused(bob.get(after(3)).await, ErrorReason::StoredDataDamaged).with("sequence", 4);
        let (_, status) = bob.follow(3).await.drain().await;
        refused(Err::<(), _>(status), ErrorReason::StoredDataDamaged).with("sequence", 4);
        server.restart().await;
    }
    server.stop().await;
    let damaged = String::from_utf8(flipped(MARK)).expect("still ASCII");
    assert_eq!(occurrences(&closed_database_in(server.data_dir()), damaged.as_bytes()), 1);
}

#[tokio::test]
async fn a_mailbox_with_a_damaged_entry_takes_new_messages() {
    let Scene { alice, bob, server: _server } = damaged_scene(MARK).await;
    let sent = alice.send("bob", "after the damage").await;
    assert_eq!(sent.sequence, 6);
    let page = bob.get(after(6)).await.expect("a page");
    assert_eq!(texts(&page.messages), ["after the damage"]);
}

/// The status with which reading a damaged message ends.
pub(crate) async fn read_a_damaged_message() -> Status {
    let scene = damaged_scene(MARK).await;
    scene.bob.get(after(3)).await.expect_err("refused")
}

/// A server on which the fourth entry of this user's mailbox is damaged.
pub(crate) async fn server_with_a_damaged_message() -> (TestServer, TestUser) {
    let scene = damaged_scene(MARK).await;
    (scene.server, scene.bob)
}

async fn damaged_scene(mark: &str) -> Scene {
    let mut server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    bob.send("bob", "note").await;
    for text in ["1", "2", MARK, "4", "5"] {
        let request = text_to("bob", text);
        let request = match text {
            MARK => with_type(request, "x-mark/of-the-content-type"),
            _ => request,
        };
        alice.try_send(request).await.expect("accepted");
    }
    server.stop().await;
    flip_a_bit(server.data_dir(), mark);
    server.start_again().await;
    let (alice, bob) = (alice.at(server.addr()), bob.at(server.addr()));
    Scene { server, alice, bob }
}

/// Flips one bit of the only place in the database where `mark` stands.
fn flip_a_bit(data_dir: &Path, mark: &str) {
    let path = closed_database_in(data_dir);
    let mut bytes = std::fs::read(&path).expect("the database can be read");
    assert_eq!(occurrences(&path, mark.as_bytes()), 1, "a message is stored once");
    let at = bytes.windows(mark.len()).position(|window| window == mark.as_bytes());
    let at = at.expect("counted above");
    bytes[at..at + mark.len()].copy_from_slice(&flipped(mark));
    std::fs::write(&path, bytes).expect("the database can be written");
}

fn flipped(mark: &str) -> Vec<u8> {
    let mut bytes = mark.as_bytes().to_vec();
    bytes[7] ^= 1;
    bytes
}

/// The SQLite file of a stopped server, with everything in it.
fn closed_database_in(data_dir: &Path) -> PathBuf {
    let path = database_in(data_dir);
    let url = path.to_str().expect("a temporary folder's path is UTF-8");
    let mut connection = SqliteConnection::establish(url).expect("the database opens");
    connection.batch_execute("PRAGMA wal_checkpoint(TRUNCATE)").expect("a checkpoint");
    path
}

fn occurrences(path: &Path, needle: &[u8]) -> usize {
    let bytes = std::fs::read(path).expect("the database can be read");
    bytes.windows(needle.len()).filter(|window| *window == needle).count()
}
