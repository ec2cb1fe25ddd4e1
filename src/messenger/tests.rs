//! The turn from history to live delivery, step by step: what is committed in between is neither lost
//! nor delivered twice. Over a network the moment cannot be chosen.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::domain::{
    Body, Content, ContentType, Epoch, Message, PeerAddress, Sequence, Timestamp, Token, User,
    Username,
};
use crate::store::{self, CommitListener, Draft, Options, StoreGuard};

struct Announcer(Hub);

impl CommitListener for Announcer {
    fn committed(&self, messages: &[Arc<Message>]) {
        self.0.publish(messages);
    }

    fn reset(&self) {
        self.0.reread();
    }
}

/// A messenger on a folder of its own, with alice.
struct Scene {
    messenger: Messenger,
    alice: User,
    guard: StoreGuard,
    _folder: TempDir,
}

impl Scene {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let hub = Hub::default();
        let announcer = Box::new(Announcer(hub.clone()));
        let (store, guard) = store::open(&Options::new(folder.path()), announcer).expect("opens");
        let messenger = Messenger::new(store, hub);
        let alice = register(&messenger, "alice").await;
        Self { messenger, alice, guard, _folder: folder }
    }

    /// A note to self.
    async fn note(&self) {
        self.send(&self.alice).await;
    }

    /// A message from alice.
    async fn send(&self, receiver: &User) {
        let content = Content {
            body: Body::text("a note".into(), usize::MAX).expect("short"),
            content_type: ContentType::default(),
        };
        let alice = &self.alice;
        let receiver = receiver.clone().into();
        let draft =
            Draft { sender: alice.clone(), receiver, content, request_id: None, expiry: None };
        let pending = self.messenger.store.append(draft).await.expect("a place");
        pending.committed().await.expect("stored");
    }

    async fn follow(&self, request: FollowRequest) -> Result<Follow, MessengerError> {
        self.messenger.follow(&self.alice, request).await
    }

    async fn close(self) {
        drop(self.messenger);
        self.guard.close().await;
    }
}

async fn register(messenger: &Messenger, name: &str) -> User {
    let name = Username::parse(name).expect("a name");
    let address = PeerAddress::parse("192.0.2.7").expect("an address");
    let registering = messenger.store.register(name, address, Token::mint().hash(), None);
    registering.await.expect("registers").profile.user
}

fn after(sequence: i64) -> FollowRequest {
    FollowRequest {
        start: FollowStart::After(Sequence::parse(sequence).expect("not negative")),
        epoch: None,
        received_only: false,
        heartbeat_interval: Duration::from_mins(1),
    }
}

/// The sequence of the message that comes next, and whether it comes from the store.
async fn message(follow: &mut Follow) -> (i64, bool) {
    match follow.next().await.expect("goes on") {
        FollowEvent::Message(delivery) => {
            let is_stored = matches!(delivery, Delivery::Stored(_));
            (delivery.receiver_sequence.get(), is_stored)
        }
        other => panic!("{other:?} where a message was expected"),
    }
}

#[tokio::test]
async fn what_is_committed_at_the_turn_to_live_delivery_is_delivered_once() {
    let scene = Scene::new().await;
    scene.note().await;
    scene.note().await;

    let mut follow = scene.follow(after(0)).await.expect("accepted");
    // Committed before the page is read: in the page, and announced.
    scene.note().await;
    assert!(matches!(follow.next().await, Ok(FollowEvent::Started { .. })));
    assert_eq!(message(&mut follow).await, (1, true));
    // Committed after the page was read: only announced.
    scene.note().await;
    assert_eq!([message(&mut follow).await, message(&mut follow).await], [(2, true), (3, true)]);
    let turn = follow.next().await;
    assert!(matches!(turn, Ok(FollowEvent::CaughtUp(through)) if through.get() == 3), "{turn:?}");
    assert_eq!(message(&mut follow).await, (4, false), "as it was announced");
    scene.note().await;
    assert_eq!(message(&mut follow).await, (5, false));

    drop(follow);
    scene.close().await;
}

#[tokio::test]
async fn a_hole_in_what_is_announced_is_filled_from_the_store() {
    let scene = Scene::new().await;
    let mut follow = scene.follow(after(0)).await.expect("accepted");
    assert!(matches!(follow.next().await, Ok(FollowEvent::Started { .. })));
    assert!(matches!(follow.next().await, Ok(FollowEvent::CaughtUp(_))));
    // More commits than the ring holds.
    for _ in 0..100 {
        scene.note().await;
    }
    for sequence in 1..=100 {
        assert_eq!(message(&mut follow).await.0, sequence);
    }
    drop(follow);
    scene.close().await;
}

#[tokio::test]
async fn who_wants_what_they_received_is_given_that_alone() {
    let scene = Scene::new().await;
    let bob = register(&scene.messenger, "bob").await;
    scene.send(&bob).await;
    scene.note().await;
    let request = FollowRequest { received_only: true, ..after(0) };
    let mut follow = scene.follow(request).await.expect("accepted");
    assert!(matches!(follow.next().await, Ok(FollowEvent::Started { .. })));
    assert_eq!(message(&mut follow).await, (2, true));
    assert!(matches!(follow.next().await, Ok(FollowEvent::CaughtUp(_))));
    scene.send(&bob).await;
    scene.note().await;
    assert_eq!(message(&mut follow).await, (4, false));
    drop(follow);
    scene.close().await;
}

/// One who only wants what they received may have to wait for long.
#[tokio::test]
async fn a_replay_that_delivers_nothing_gives_signs_of_life() {
    let scene = Scene::new().await;
    let at_once = FollowRequest { heartbeat_interval: Duration::ZERO, ..after(0) };
    let mut follow = scene.follow(at_once).await.expect("accepted");
    assert!(matches!(follow.next().await, Ok(FollowEvent::Started { .. })));
    let sign = follow.next().await;
    assert!(matches!(sign, Ok(FollowEvent::Heartbeat(Sequence::ZERO))), "{sign:?}");
    drop(follow);
    scene.close().await;
}

#[tokio::test]
async fn who_follows_is_seen_until_the_end() {
    let scene = Scene::new().await;
    let follow = scene.follow(after(0)).await.expect("accepted");
    let began = Timestamp::now();
    while Timestamp::now() <= began {}
    drop(follow);
    // Written after what the follower left to be written.
    scene.note().await;
    let alice = scene.messenger.user(scene.alice.name.clone()).await.expect("is there");
    assert!(alice.profile.last_seen_time > Some(began), "{:?}", alice.profile.last_seen_time);
    scene.close().await;
}

#[tokio::test]
async fn a_reader_whose_next_entry_was_removed_is_told_so() {
    let scene = Scene::new().await;
    for _ in 0..3 {
        scene.note().await;
    }
    let mut follow = scene.follow(after(1)).await.expect("accepted");
    scene.messenger.store.empty_mailbox(scene.alice.id).await.expect("stored");
    scene.note().await;
    assert!(matches!(follow.next().await, Ok(FollowEvent::Started { .. })));
    let refused = follow.next().await.expect_err("there is a gap");
    let is_told = matches!(
        refused,
        MessengerError::OutOfRange { asked, min, max, .. }
            if (asked.get(), min.get(), max.get()) == (1, 3, 4)
    );
    assert!(is_told, "{refused:?}");
    drop(follow);

    let refused = scene.follow(after(2)).await.err().expect("behind what is kept");
    assert!(matches!(refused, MessengerError::OutOfRange { .. }), "{refused:?}");
    let acknowledged = FollowRequest { start: FollowStart::Acknowledged, ..after(0) };
    let mut follow = scene.follow(acknowledged).await.expect("from what is kept");
    let started = follow.next().await;
    assert!(
        matches!(
            started,
            Ok(FollowEvent::Started { after, range, acknowledged_through, .. })
                if (after.get(), range.first.get(), acknowledged_through.get()) == (3, 4, 0)
        ),
        "{started:?}"
    );
    assert_eq!(message(&mut follow).await, (4, true));
    drop(follow);
    scene.close().await;
}

#[tokio::test]
async fn a_cursor_of_another_epoch_or_beyond_the_mailbox_is_refused() {
    let scene = Scene::new().await;
    scene.note().await;
    let refused = scene.follow(after(2)).await.err().expect("beyond the mailbox");
    assert!(matches!(refused, MessengerError::OutOfRange { .. }), "{refused:?}");
    scene.follow(after(1)).await.expect("the end");
    let epoch = |epoch| FollowRequest { epoch: Some(epoch), ..after(0) };
    let refused = scene.follow(epoch(Epoch::mint())).await.err().expect("another epoch");
    assert!(matches!(refused, MessengerError::EpochMismatch { .. }), "{refused:?}");
    scene.follow(epoch(scene.messenger.epoch().clone())).await.expect("this epoch");
    scene.close().await;
}
