//! A store on a temporary folder, and what is stored in it.

use std::sync::Arc;

use bytes::Bytes;
use peerpost::domain::limits::BODY_BYTES_CEILING;
use peerpost::domain::{
    Body, Content, ContentType, Message, MessageId, PeerAddress, RequestId, Sequence, Timestamp,
    Token, User, UserId, Username,
};
use peerpost::store::{self, CommitListener, Draft, Store, StoreGuard};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

/// The body of every message, in bytes: what the targets are measured with.
pub(crate) const BODY_BYTES: usize = 100;

/// Messages in flight while a mailbox is filled: full groups.
const FILLING_IN_FLIGHT: usize = 1024;

struct Unannounced;

impl CommitListener for Unannounced {
    fn committed(&self, _messages: &[Arc<Message>]) {}

    fn reset(&self) {}
}

/// An open store. It is closed, and its folder removed, at the end.
pub(crate) struct OpenStore {
    pub(crate) store: Store,
    pub(crate) runtime: Runtime,
    guard: Option<StoreGuard>,
    _folder: TempDir,
}

impl OpenStore {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let options = store::Options::new(folder.path().join("data"));
        let (store, guard) = store::open(&options, Box::new(Unannounced)).expect("it opens");
        Self { store, runtime: runtime(), guard: Some(guard), _folder: folder }
    }

    pub(crate) fn user(&self, name: &str) -> (User, Token) {
        let (name, token) = (Username::parse(name).expect("a name"), Token::mint());
        let address = PeerAddress::parse("127.0.0.1").expect("an address");
        let register = self.store.register(name, address, token.hash(), None);
        let registered = self.runtime.block_on(register).expect("it registers");
        (registered.profile.user, token)
    }

    /// Stores so many messages from one to the other.
    pub(crate) fn fill(&self, sender: &User, receiver: &User, messages: usize) {
        self.runtime.block_on(async {
            for begin in (0..messages).step_by(FILLING_IN_FLIGHT) {
                let count = FILLING_IN_FLIGHT.min(messages - begin);
                append(&self.store, (0..count).map(|_| draft(sender, receiver))).await;
            }
        });
    }
}

impl Drop for OpenStore {
    fn drop(&mut self) {
        if let Some(guard) = self.guard.take() {
            self.runtime.block_on(guard.close());
        }
    }
}

/// Appends all, and waits until all are on disk.
pub(crate) async fn append(store: &Store, drafts: impl Iterator<Item = Draft>) {
    let mut pending = Vec::new();
    for draft in drafts {
        pending.push(store.append(draft).await.expect("there is room"));
    }
    for message in pending {
        message.committed().await.expect("it is stored");
    }
}

pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime starts")
}

/// A message that is not stored yet, with a request id of its own.
pub(crate) fn draft(sender: &User, receiver: &User) -> Draft {
    Draft {
        sender: sender.clone(),
        receiver: receiver.clone().into(),
        content: content(),
        request_id: RequestId::parse(Uuid::new_v4().to_string()).expect("a request id"),
        expiry: None,
    }
}

pub(crate) fn user(id: i64) -> User {
    User { id: UserId(id), name: Username::parse(&format!("user-{id}")).expect("a name") }
}

/// A message as if it had been stored.
pub(crate) fn message(sender: User, receiver: User) -> Arc<Message> {
    Arc::new(Message {
        id: MessageId::mint(),
        sender,
        receiver,
        sender_sequence: Sequence::FIRST,
        receiver_sequence: Sequence::FIRST,
        send_time: Timestamp::now(),
        content: content(),
        request_id: None,
        expiry: None,
    })
}

fn content() -> Content {
    let body = Bytes::from_static(&[b'x'; BODY_BYTES]);
    let body = Body::data(body, BODY_BYTES_CEILING).expect("a body");
    Content { body, content_type: ContentType::default() }
}
