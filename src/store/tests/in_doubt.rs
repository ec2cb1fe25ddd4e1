//! Commits that fail, of which it is not known at once what they did.

use std::sync::{Mutex, PoisonError};

use super::accounts::{AccessEnded, EndCause};
use super::*;

/// Makes every commit fail that changes a user in one of these ways: what it owes by then is not there.
const FAILING_COMMITS: &str = "
    CREATE TABLE promised (id INTEGER PRIMARY KEY);
    CREATE TABLE debts (id INTEGER REFERENCES promised (id) DEFERRABLE INITIALLY DEFERRED);
    CREATE TRIGGER standing_fails AFTER UPDATE OF standing ON users
        BEGIN INSERT INTO debts VALUES (1); END;
    CREATE TRIGGER registering_fails AFTER INSERT ON users
        BEGIN INSERT INTO debts VALUES (1); END;
";

const WORKING_COMMITS: &str = "DROP TRIGGER standing_fails; DROP TRIGGER registering_fails;";

/// What is heard of each commit, or of its failure.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Reset,
    Ended(Vec<(UserId, EndCause)>),
}

#[derive(Clone, Default)]
struct Hearing(Arc<Mutex<Vec<Heard>>>);

impl Hearing {
    fn hear(&self, heard: Heard) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(heard);
    }

    fn taken(&self) -> Vec<Heard> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl CommitListener for Hearing {
    fn committed(&self, _: &[Arc<Message>]) {}

    fn access_ended(&self, ended: &[AccessEnded]) {
        self.hear(Heard::Ended(ended.iter().map(|it| (it.user.id, it.cause)).collect()));
    }

    fn reset(&self) {
        self.hear(Heard::Reset);
    }
}

fn scene() -> (Scene, Hearing) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hearing = Hearing::default();
    let opened = open(&Options::new(folder.path()), Box::new(hearing.clone()));
    let (store, guard) = opened.expect("opens");
    (Scene { folder, store, guard, resets: Arc::default() }, hearing)
}

fn to_name(sender: &User, receiver: &str) -> Draft {
    let name = Username::parse(receiver).expect("a name");
    Draft { receiver: Receiver::Named(name), ..draft(sender, sender, "hello") }
}

#[tokio::test]
async fn a_deletion_whose_commit_failed_is_in_doubt_and_then_as_it_is_stored() {
    let (scene, hearing) = scene();
    let (alice, bob) = (scene.user("alice").await, scene.user("bob").await);
    scene.append(to_name(&alice, "bob")).await.expect("he is there, and remembered");
    scene.send(&alice, &alice, &["m".repeat(1 << 20).as_str(); 3]).await;
    let deleting = || scene.store.delete_user(Subject::Named(bob.name.clone()), OPERATOR);

    scene.sql(FAILING_COMMITS);
    let log = scene.folder.path().join("peerpost.db-wal");
    let log_bytes = || std::fs::metadata(&log).expect("it is there").len();
    assert!(log_bytes() > 3 << 20, "{}", log_bytes());
    let failed = deleting().await;
    assert!(matches!(failed, Err(StoreError::Failing)), "{failed:?}");
    scene.append(to_name(&alice, "bob")).await.expect("he is there, and the storage is again");
    assert!(log_bytes() < 2 << 20, "what a sync may have lost was written anew: {}", log_bytes());
    let in_doubt = Heard::Ended(vec![(bob.id, EndCause::InDoubt)]);
    assert_eq!(hearing.taken(), [Heard::Reset, in_doubt]);

    scene.sql(WORKING_COMMITS);
    deleting().await.expect("deleted");
    assert_eq!(hearing.taken(), [Heard::Ended(vec![(bob.id, EndCause::Deleted)])]);
    for gone in [to_name(&alice, "bob"), draft(&alice, &bob, "hello")] {
        let refused = scene.append(gone).await;
        assert!(matches!(refused, Err(StoreError::NoSuchReceiver(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn a_failure_that_ended_nobodys_access_is_told_as_one() {
    let (scene, hearing) = scene();
    scene.user("alice").await;
    scene.sql(FAILING_COMMITS);
    let name = Username::parse("bob").expect("a name");
    let address = PeerAddress::parse("192.0.2.7").expect("an address");
    let registering = scene.store.register(name, address, Token::mint().hash(), None);
    let failed = registering.await;
    assert!(matches!(failed, Err(StoreError::Failing)), "{failed:?}");
    scene.sql(WORKING_COMMITS);
    scene.user("bob").await;
    assert_eq!(hearing.taken(), [Heard::Reset]);
}

#[tokio::test]
async fn whoever_came_to_nothing_with_their_group_is_not_remembered_under_anothers_number() {
    let (scene, _) = scene();
    let alice = scene.user("alice").await;
    scene.sql(FAILING_COMMITS);
    let mut greeted = register_and_greet(&scene, &alice).await;
    // They were in two groups, and he was looked for when he was gone again.
    while matches!(greeted, Err(StoreError::NoSuchReceiver(_))) {
        greeted = register_and_greet(&scene, &alice).await;
    }
    assert!(matches!(greeted, Err(StoreError::Failing)), "{greeted:?}");

    scene.sql(WORKING_COMMITS);
    let [carol, bob] = [scene.user("carol").await, scene.user("bob").await];
    let message = scene.append(to_name(&alice, "bob")).await.expect("stored");
    assert_eq!(message.receiver.id, bob.id);
    assert_eq!(scene.sequences(after(&carol, 0)).await.0, [0; 0], "she has another's number");
}

/// What a message to bob comes to that is written right after his registration, whose commit fails.
async fn register_and_greet(scene: &Scene, alice: &User) -> Result<Arc<Message>, StoreError> {
    let mut lock = connect(&scene.folder);
    lock.batch_execute("BEGIN IMMEDIATE").expect("nobody else writes");
    // The first group waits for the lock; what comes meanwhile is one group.
    let first = scene.store.append(draft(alice, alice, "x")).await.expect("a place");
    let address = PeerAddress::parse("192.0.2.7").expect("an address");
    let name = Username::parse("bob").expect("a name");
    let registering = scene.store.register(name, address, Token::mint().hash(), None);
    let greeting = async {
        let greeting = scene.store.append(to_name(alice, "bob")).await.expect("a place");
        drop(lock);
        greeting.committed().await
    };
    let (registered, greeted) = tokio::join!(registering, greeting);
    assert!(matches!(registered, Err(StoreError::Failing)), "{registered:?}");
    // It fails where it is in one group with them.
    let _ = first.committed().await;
    greeted
}
