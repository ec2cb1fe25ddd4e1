//! The turn from history to live delivery, step by step: what is committed in between is neither lost
//! nor delivered twice. Over a network the moment cannot be chosen.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::domain::{
    Body, Content, ContentType, Message, PeerAddress, Sequence, Token, User, Username,
};
use crate::store::{self, CommitListener, Draft, Options};

struct Announcer(Hub);

impl CommitListener for Announcer {
    fn committed(&self, messages: &[Arc<Message>]) {
        self.0.publish(messages);
    }

    fn reset(&self) {
        self.0.reread();
    }
}

async fn note(messenger: &Messenger, user: &User) {
    let content = Content {
        body: Body::text("a note".into(), usize::MAX).expect("short"),
        content_type: ContentType::default(),
    };
    let receiver = user.clone().into();
    let draft = Draft { sender: user.clone(), receiver, content, request_id: None };
    let pending = messenger.store.append(draft).await.expect("a place");
    pending.committed().await.expect("stored");
}

/// The sequence of the message that comes next.
async fn message(follow: &mut Follow) -> i64 {
    match follow.next().await.expect("goes on") {
        FollowEvent::Message(message) => message.receiver_sequence.get(),
        other => panic!("{other:?} where a message was expected"),
    }
}

#[tokio::test]
async fn what_is_committed_at_the_turn_to_live_delivery_is_delivered_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hub = Hub::default();
    let announcer = Box::new(Announcer(hub.clone()));
    let (store, guard) = store::open(&Options::new(folder.path()), announcer).expect("opens");
    let messenger = Messenger::new(store, hub);
    let name = Username::parse("alice").expect("a name");
    let address = PeerAddress::parse("192.0.2.7").expect("an address");
    let registering = messenger.store.register(name, address, Token::mint().hash(), None);
    let alice = registering.await.expect("registers").profile.user;
    note(&messenger, &alice).await;
    note(&messenger, &alice).await;

    let request = FollowRequest {
        start: FollowStart::After(Sequence::ZERO),
        epoch: None,
        received_only: false,
        heartbeat_interval: Duration::from_mins(1),
    };
    let mut follow = messenger.follow(&alice, request).await.expect("accepted");
    // Committed before the page is read: in the page, and announced.
    note(&messenger, &alice).await;
    assert!(matches!(follow.next().await, Ok(FollowEvent::Started { .. })));
    assert_eq!(message(&mut follow).await, 1);
    // Committed after the page was read: only announced.
    note(&messenger, &alice).await;
    assert_eq!([message(&mut follow).await, message(&mut follow).await], [2, 3]);
    let turn = follow.next().await;
    assert!(matches!(turn, Ok(FollowEvent::CaughtUp(through)) if through.get() == 3), "{turn:?}");
    assert_eq!(message(&mut follow).await, 4);
    note(&messenger, &alice).await;
    assert_eq!(message(&mut follow).await, 5);

    drop(follow);
    drop(messenger);
    guard.close().await;
}
