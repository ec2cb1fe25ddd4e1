//! An older copy of the data folder is put back while clients hold cursors of what came after it.

use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, SqliteConnection};
use peerpost::client::{Error, ErrorReason, Event, Follow, FollowOptions, Start};
use peerpost::proto::{GetMessagesRequest, Message, SubscribeRequest};
use peerpost::testing::{Proxy, TestServer, TestUser, after, refused, text_to, within_patience};

use crate::client_support::{client_of, find_event, messages, patient};
use crate::support::{
    assert_dense_from, assert_same_view, copy_folder, database_in, last_sequence, sequences,
    subscribe_after, texts, with_id,
};

/// What the copy holds of bob's mailbox, and what came after it was made.
const COPIED: i64 = 10;
const LOST: i64 = 7;

/// What mints the epoch that a restored copy must have.
const NEW_EPOCH: &str = "UPDATE database_state SET epoch = 'restored'";

/// Bob's mailbox as it was before the copy was put back, with a follower at its end.
struct Scene {
    server: TestServer,
    proxy: Proxy,
    alice: TestUser,
    bob: TestUser,
    before: Vec<Message>,
    epoch: String,
    following: Follow,
}

impl Scene {
    /// Puts the copy back, with `changes` to it, on the address where the clients look for it.
    async fn restored(changes: &str) -> Self {
        let mut server = TestServer::start().await;
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        send(&alice, 0..COPIED).await;
        bob.acknowledge(4).await.expect("accepted");
        server.stop().await;
        let copy = tempfile::tempdir().expect("a temporary folder");
        copy_folder(server.data_dir(), copy.path());

        server.start_again().await;
        let proxy = Proxy::start(server.addr()).await;
        let (alice, bob) = (alice.at(proxy.addr()), bob.at(proxy.addr()));
        send(&alice, COPIED..COPIED + LOST).await;
        let epoch = bob.get(after(0)).await.expect("a page").epoch;
        bob.acknowledge(COPIED + LOST).await.expect("accepted");
        let before = bob.mailbox().await;
        let client = client_of(&bob, proxy.addr(), patient());
        let mut following = client.follow(Start::After(0), FollowOptions::default());
        messages(&mut following, before.len()).await;

        server.stop().await;
        let data_dir = server.data_dir().to_owned();
        std::fs::remove_dir_all(&data_dir).expect("it can be removed");
        copy_folder(copy.path(), &data_dir);
        let database = database_in(&data_dir);
        let mut connection =
            SqliteConnection::establish(database.to_str().expect("a path in UTF-8"))
                .expect("the database opens");
        connection.batch_execute(changes).expect("changed");
        drop(connection);
        server.start_again().await;
        proxy.retarget(server.addr());
        Self { server, proxy, alice, bob, before, epoch, following }
    }

    /// The follower's end: reached without one message.
    async fn end_of_following(&mut self) -> Error {
        loop {
            match within_patience("the end", self.following.next_event()).await {
                Some(Ok(Event::Message(message))) => panic!("{message:?} was delivered"),
                Some(Ok(_)) => {}
                Some(Err(error)) => return error,
                None => panic!("it ended without an error"),
            }
        }
    }

    fn copied(&self) -> &[Message] {
        &self.before[..usize::try_from(COPIED).expect("a few")]
    }
}

/// A server on which a copy with an epoch of its own was put back; bob, and the epoch before.
pub(crate) async fn server_of_a_new_epoch() -> (TestServer, TestUser, String) {
    let scene = Scene::restored(NEW_EPOCH).await;
    let bob = scene.bob.at(scene.server.addr());
    (scene.server, bob, scene.epoch)
}

/// Sends bob a text for each of these numbers, with a `request_id`.
async fn send(alice: &TestUser, numbers: std::ops::Range<i64>) -> Vec<i64> {
    let requests = numbers.map(|i| with_id(text_to("bob", format!("m{i}")), &format!("r{i}")));
    let answers = alice.send_all(requests).await.expect("the stream ends with OK");
    answers.into_iter().map(|answer| answer.expect("accepted").sequence).collect()
}

#[tokio::test]
async fn without_a_new_epoch_a_cursor_ahead_is_refused_with_the_range() {
    let mut scene = Scene::restored("").await;
    let error = scene.end_of_following().await;
    assert_eq!(error.reason(), Some(ErrorReason::SequenceOutOfRange), "{error:?}");
    let Error::Refused(refusal) = error else { panic!("{error:?}") };
    assert_eq!(refusal.metadata["max_sequence"], COPIED.to_string());

    let bob = &scene.bob;
    for ahead in [COPIED + 1, COPIED + LOST] {
        let out_of_range = ErrorReason::SequenceOutOfRange;
        refused(bob.get(after(ahead)).await, out_of_range)
            .with("min_sequence", 0)
            .with("max_sequence", COPIED);
        for epoch in ["", &scene.epoch] {
            let request = SubscribeRequest { epoch: epoch.to_owned(), ..subscribe_after(ahead) };
            refused(bob.subscribe(request).await, out_of_range).with("max_sequence", COPIED);
            refused(bob.acknowledge_in(epoch, ahead).await, out_of_range)
                .with("max_sequence", COPIED);
        }
    }
    assert_eq!(bob.acknowledge(0).await.expect("accepted"), 4, "as it was in the copy");
    assert_same_view(&bob.mailbox().await, scene.copied());
}

#[tokio::test]
async fn without_a_new_epoch_the_sequences_go_on_from_the_copy() {
    let scene = Scene::restored("").await;
    let mut live = scene.bob.follow(COPIED).await;
    // What the copy has is found; what came after it is new.
    let again = send(&scene.alice, 0..COPIED + LOST).await;
    assert_eq!(again, (1..=COPIED + LOST).collect::<Vec<_>>());
    send(&scene.alice, 100..101).await;
    let delivered = live.messages(usize::try_from(LOST + 1).expect("a few")).await;
    assert_dense_from(COPIED + 1, &delivered);
    let mailbox = scene.bob.mailbox().await;
    assert_dense_from(1, &mailbox);
    let (copied, new) = mailbox.split_at(scene.copied().len());
    assert_same_view(copied, scene.copied());
    assert_same_view(new, &delivered);
    for (new, lost) in new.iter().zip(&scene.before[copied.len()..]) {
        assert_eq!(new.body, lost.body, "sent again");
        assert_ne!(new.message_id, lost.message_id, "stored anew");
    }
}

#[tokio::test]
async fn with_a_new_epoch_every_cursor_of_the_old_one_is_refused() {
    let mut scene = Scene::restored(NEW_EPOCH).await;
    let error = scene.end_of_following().await;
    assert_eq!(error.reason(), Some(ErrorReason::EpochMismatch), "{error:?}");
    assert!(!error.is_retriable());
    let Error::Refused(refusal) = error else { panic!("{error:?}") };
    assert_eq!(refusal.metadata["epoch"], "restored");

    // New entries under the sequences of those that were lost: to the old cursors they are a trap.
    send(&scene.alice, 100..100 + LOST).await;
    let (bob, epoch) = (&scene.bob, &scene.epoch);
    for cursor in [0, COPIED, COPIED + 1, COPIED + LOST, COPIED + LOST + 1] {
        let mismatch = ErrorReason::EpochMismatch;
        let page = GetMessagesRequest { epoch: epoch.clone(), ..after(cursor) };
        refused(bob.get(page).await, mismatch).with("epoch", "restored");
        let request = SubscribeRequest { epoch: epoch.clone(), ..subscribe_after(cursor) };
        refused(bob.subscribe(request).await, mismatch).with("epoch", "restored");
        refused(bob.acknowledge_in(epoch, cursor).await, mismatch).with("epoch", "restored");
    }
    assert_eq!(last_sequence(bob).await, COPIED + LOST);
}

#[tokio::test]
async fn with_a_new_epoch_starting_anew_gives_the_whole_mailbox() {
    let mut scene = Scene::restored(NEW_EPOCH).await;
    scene.end_of_following().await;
    let client = client_of(&scene.bob, scene.proxy.addr(), patient());
    let mut anew = client.follow(Start::After(0), FollowOptions::default());
    let started = find_event(&mut anew, |event| match event {
        Event::Started { epoch, last_sequence, .. } => Some((epoch, last_sequence)),
        _ => None,
    });
    assert_eq!(started.await, ("restored".to_owned(), COPIED));
    send(&scene.alice, 100..103).await;
    let followed = messages(&mut anew, scene.copied().len() + 3).await;
    let mailbox = scene.bob.at(scene.server.addr()).mailbox().await;
    assert_dense_from(1, &mailbox);
    assert_same_view(&mailbox[..scene.copied().len()], scene.copied());
    assert_eq!(texts(&mailbox[scene.copied().len()..]), ["m100", "m101", "m102"]);
    assert_eq!(crate::client_support::texts(&followed), texts(&mailbox));
    let followed: Vec<_> = followed.iter().map(|message| message.sequence).collect();
    assert_eq!(followed, sequences(&mailbox));
}
