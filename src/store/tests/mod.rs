//! The store on a real folder: what it does with damage, and at its edges.

mod admission;
mod answers;
mod audit;
mod backups;
mod checking;
mod damage;
mod expiry;
mod folding;
mod groups;
mod in_doubt;
mod mailboxes;
mod merging;
mod opening;
mod rebuilding;
mod retention;
mod user_limits;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use tempfile::TempDir;

use super::accounts::audit::Actor;
use super::*;
use crate::domain::{Body, Content, ContentType, RequestId, Token, UserLimits};

/// Who sets what operators set.
const OPERATOR: Actor = Actor::Operator { uid: 0 };

/// An open store in a folder of its own.
struct Scene {
    folder: TempDir,
    store: Store,
    guard: StoreGuard,
    resets: Arc<AtomicUsize>,
}

struct CountResets(Arc<AtomicUsize>);

impl CommitListener for CountResets {
    fn committed(&self, _: &[Arc<Message>]) {}

    fn reset(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Scene {
    fn new() -> Self {
        Self::open(tempfile::tempdir().expect("a temporary folder")).expect("opens")
    }

    fn open(folder: TempDir) -> Result<Self, OpenError> {
        Self::open_with(folder, |_| {})
    }

    fn open_with(folder: TempDir, adjust: impl FnOnce(&mut Options)) -> Result<Self, OpenError> {
        let resets = Arc::new(AtomicUsize::new(0));
        let mut options = Options::new(folder.path());
        adjust(&mut options);
        let (store, guard) = open(&options, Box::new(CountResets(Arc::clone(&resets))))?;
        Ok(Self { folder, store, guard, resets })
    }

    /// Everything but the last message is merged at once.
    fn merging() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::open_with(folder, |options| options.merge_messages = 1).expect("opens")
    }

    async fn close(self) -> TempDir {
        self.guard.close().await;
        self.folder
    }

    async fn reopened(self) -> Self {
        Self::open(self.close().await).expect("opens again")
    }

    async fn user(&self, name: &str) -> User {
        let address = PeerAddress::parse("192.0.2.7").expect("an address");
        let name = Username::parse(name).expect("a name");
        let registering = self.store.register(name, address, Token::mint().hash(), None);
        registering.await.expect("registers").profile.user
    }

    async fn append(&self, draft: Draft) -> Result<Arc<Message>, StoreError> {
        self.store.append(draft).await.expect("a place").committed().await
    }

    async fn send(&self, sender: &User, receiver: &User, texts: &[&str]) {
        for text in texts {
            self.append(draft(sender, receiver, text)).await.expect("stored");
        }
    }

    async fn page(&self, query: PageQuery) -> Result<Page, StoreError> {
        self.store.page(query).await
    }

    /// The sequences in `query.owner`'s mailbox, and whether there are more.
    async fn sequences(&self, query: PageQuery) -> (Vec<i64>, bool) {
        let owner = query.owner;
        let page = self.page(query).await.expect("a page");
        let sequence = |m: &Message| m.sequence_for(owner).expect("its own").get();
        (page.messages.iter().map(sequence).collect(), page.has_more)
    }

    /// The sequence at which a page is damaged.
    async fn damage(&self, query: PageQuery) -> Option<i64> {
        match self.page(query).await {
            Err(StoreError::Damaged { sequence }) => sequence.map(Sequence::get),
            other => panic!("{other:?}"),
        }
    }

    fn sql(&self, statements: &str) {
        connect(&self.folder).batch_execute(statements).expect("executes");
    }
}

fn database(folder: &TempDir) -> PathBuf {
    folder.path().join("peerpost.db")
}

fn connect(folder: &TempDir) -> SqliteConnection {
    let path = database(folder);
    SqliteConnection::establish(path.to_str().expect("UTF-8")).expect("opens")
}

fn draft(sender: &User, receiver: &User, text: &str) -> Draft {
    let body = Body::text(text.to_owned(), usize::MAX).expect("a body");
    let content = Content { body, content_type: ContentType::default() };
    Draft {
        sender: sender.clone(),
        receiver: receiver.clone().into(),
        content,
        request_id: None,
        expiry: None,
    }
}

fn keyed(draft: Draft, request_id: &str) -> Draft {
    let request_id = RequestId::parse(request_id.to_owned()).expect("a request id");
    Draft { request_id, ..draft }
}

fn after(owner: &User, sequence: i64) -> PageQuery {
    PageQuery {
        owner: owner.id,
        start: PageStart::After(Sequence::parse(sequence).expect("a sequence")),
        peer: None,
        received_only: false,
        messages_max: 100,
        bytes_max: 1 << 20,
    }
}

fn before(owner: &User, sequence: i64) -> PageQuery {
    let start = PageStart::Before(Sequence::parse(sequence).expect("a sequence"));
    PageQuery { start, ..after(owner, 0) }
}

fn with(peer: &User, query: PageQuery) -> PageQuery {
    PageQuery { peer: Some(peer.id), ..query }
}

fn received(query: PageQuery) -> PageQuery {
    PageQuery { received_only: true, ..query }
}

#[tokio::test]
async fn cursors_at_the_edges_of_the_numbers_are_the_edges_of_the_mailbox() {
    let scene = Scene::new();
    let (alice, bob) = (scene.user("alice").await, scene.user("bob").await);
    scene.send(&alice, &bob, &["1", "2", "3"]).await;
    for query in [after(&bob, i64::MAX), after(&bob, 3), before(&bob, 0), before(&bob, 1)] {
        assert_eq!(scene.sequences(query).await, (vec![], false));
        assert_eq!(scene.sequences(with(&alice, query)).await, (vec![], false));
    }
    for query in [after(&bob, 0), before(&bob, 4), before(&bob, i64::MAX)] {
        assert_eq!(scene.sequences(query).await, (vec![1, 2, 3], false));
        assert_eq!(scene.sequences(with(&alice, query)).await, (vec![1, 2, 3], false));
    }
}

#[tokio::test]
async fn a_conversation_is_read_by_direction() {
    let scene = Scene::new();
    let (alice, bob) = (scene.user("alice").await, scene.user("bob").await);
    scene.send(&alice, &bob, &["1"]).await;
    scene.send(&bob, &alice, &["2", "3"]).await;
    scene.send(&alice, &alice, &["4"]).await;
    for (owner, peer, both, theirs) in [
        (&alice, &bob, vec![1, 2, 3], vec![2, 3]),
        (&bob, &alice, vec![1, 2, 3], vec![1]),
        (&alice, &alice, vec![4], vec![4]),
    ] {
        let query = with(peer, after(owner, 0));
        assert_eq!(scene.sequences(query).await, (both, false));
        assert_eq!(scene.sequences(received(query)).await, (theirs, false));
    }
}

#[tokio::test]
async fn a_request_id_stands_for_one_receiver_and_one_content() {
    let scene = Scene::new();
    let (alice, bob) = (scene.user("alice").await, scene.user("bob").await);
    let first = scene.append(keyed(draft(&alice, &bob, "1"), "id")).await.expect("stored");
    let again = scene.append(keyed(draft(&alice, &bob, "1"), "id")).await.expect("the first one");
    assert_eq!(again.id, first.id);
    for other in [draft(&alice, &alice, "1"), draft(&alice, &bob, "2")] {
        let refused = scene.append(keyed(other, "id")).await.err();
        assert!(matches!(refused, Some(StoreError::RequestIdReused(_))), "{refused:?}");
    }
    assert_eq!(scene.sequences(after(&alice, 0)).await.0, [1]);
}

#[tokio::test]
async fn names_are_listed_from_their_prefix_or_the_cursor_within_it() {
    let scene = Scene::new();
    for name in ["ann", "bea", "bea.2", "beat", "bob"] {
        scene.user(name).await;
    }
    for (prefix, after, expected) in [
        ("", "", vec!["ann", "bea", "bea.2", "beat", "bob"]),
        ("", "bea", vec!["bea.2", "beat", "bob"]),
        ("bea", "", vec!["bea", "bea.2", "beat"]),
        ("bea", "ann", vec!["bea", "bea.2", "beat"]),
        ("bea", "bea", vec!["bea.2", "beat"]),
        ("bea", "bob", vec![]),
    ] {
        let prefix = UsernamePrefix::parse(prefix).expect("a prefix");
        let profiles = scene.store.profiles(prefix, after.to_owned(), 10).await.expect("a page");
        let names: Vec<_> = profiles.iter().map(|p| p.user.name.as_str().to_owned()).collect();
        assert_eq!(names, expected);
    }
}

#[tokio::test]
async fn what_a_note_holds_is_let_go_when_the_note_is_on_disk() {
    /// Reads what is on disk when it is dropped.
    struct OnDrop(SqliteConnection, Option<tokio::sync::oneshot::Sender<Option<i64>>>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            use super::schema::users::dsl::{last_seen_time_us, users};
            let seen = users.select(last_seen_time_us).first(&mut self.0).expect("a user");
            self.1.take().expect("dropped once").send(seen).expect("awaited");
        }
    }
    let scene = Scene::new();
    let alice = scene.user("alice").await;
    let (sender, on_drop) = tokio::sync::oneshot::channel();
    let held = OnDrop(connect(&scene.folder), Some(sender));
    scene.store.mark_seen(alice.id, Timestamp::from_micros(7), held);
    assert_eq!(on_drop.await.expect("dropped"), Some(7));
}

#[tokio::test]
async fn callers_with_unknown_tokens_keep_no_reader_busy() {
    let scene = Scene::new();
    let alice = scene.user("alice").await;
    let places = scene.store.0.token_readers.occupy().await;
    let finding = scene.store.find_by_token(Token::mint().hash());
    let waits = tokio::time::timeout(Duration::from_millis(50), finding).await;
    assert!(waits.is_err(), "it waits for a connection of its kind");
    scene.page(after(&alice, 0)).await.expect("others do not wait");
    drop(places);
    assert!(matches!(scene.store.find_by_token(Token::mint().hash()).await, Ok(None)));
}
