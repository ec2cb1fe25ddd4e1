//! What one commit holds at most, and what a group that is rolled back leaves behind.

use std::sync::{Mutex, PoisonError};

use super::accounts::{AccessEnded, EndCause};
use super::damage::break_last_page;
use super::*;
use crate::domain::{Label, Standing};

/// What each commit brought: messages, and bytes of their bodies.
#[derive(Clone, Default)]
struct Commits(Arc<Mutex<Vec<(usize, usize)>>>);

impl CommitListener for Commits {
    fn committed(&self, messages: &[Arc<Message>]) {
        let bytes = messages.iter().map(|message| message.content.body.as_bytes().len()).sum();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((messages.len(), bytes));
    }

    fn reset(&self) {}
}

/// The commits in which all of these texts are stored that wait for the writer together.
async fn commits_of(texts: impl IntoIterator<Item = String>) -> Vec<(usize, usize)> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let commits = Commits::default();
    let options = Options::new(folder.path());
    let (store, guard) = open(&options, Box::new(commits.clone())).expect("opens");
    let resets = Arc::default();
    let scene = Scene { folder, store, guard, resets };
    let alice = scene.user("alice").await;
    let mut lock = connect(&scene.folder);
    lock.batch_execute("BEGIN IMMEDIATE").expect("nobody else writes");
    let mut accepted = Vec::new();
    for text in texts {
        let accepting = scene.store.append(draft(&alice, &alice, &text));
        accepted.push(accepting.await.expect("a place"));
    }
    drop(lock);
    for accepted in accepted {
        accepted.committed().await.expect("stored");
    }
    scene.close().await;
    let commits = commits.0.lock().unwrap_or_else(PoisonError::into_inner);
    commits.iter().copied().filter(|(messages, _)| *messages > 0).collect()
}

#[tokio::test]
async fn a_commit_has_at_most_512_messages() {
    let commits = commits_of((0..1_300).map(|number| number.to_string())).await;
    let messages: Vec<_> = commits.iter().map(|(messages, _)| *messages).collect();
    assert_eq!(messages.iter().sum::<usize>(), 1_300);
    assert!(messages.iter().all(|messages| *messages <= 512), "{messages:?}");
    // What comes while the first waits for the lock fills the next.
    assert!(messages.contains(&512), "{messages:?}");
}

#[tokio::test]
async fn a_commit_ends_when_its_bodies_reach_4_mib() {
    const BODY_BYTES: usize = 1024 * 1024;
    let commits = commits_of((0..14).map(|_| "m".repeat(BODY_BYTES))).await;
    let messages: Vec<_> = commits.iter().map(|(messages, _)| *messages).collect();
    assert_eq!(messages.iter().sum::<usize>(), 14);
    assert!(commits.iter().all(|(_, bytes)| *bytes <= 4 * BODY_BYTES), "{messages:?}");
    assert!(messages.contains(&4), "{messages:?}");
}

/// Who is let in no more, by one commit.
type Ended = Vec<(UserId, EndCause)>;

/// As each commit told it.
#[derive(Clone, Default)]
struct Endings(Arc<Mutex<Vec<Ended>>>);

impl CommitListener for Endings {
    fn committed(&self, _: &[Arc<Message>]) {}

    fn access_ended(&self, ended: &[AccessEnded]) {
        let ended = ended.iter().map(|it| (it.user.id, it.cause)).collect();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(ended);
    }

    fn reset(&self) {}
}

#[tokio::test]
async fn what_a_group_did_to_who_is_let_in_is_told_once_though_it_was_rolled_back() {
    let scene = Scene::merging();
    let [alice, bob, zoe] =
        [scene.user("alice").await, scene.user("bob").await, scene.user("zoe").await];
    for _ in 0..600 {
        scene.send(&zoe, &zoe, &["note"]).await;
    }
    scene.send(&alice, &alice, &["note"]).await;
    let Scene { folder, guard, resets, .. } = scene;
    guard.close().await;
    break_last_page(&folder, "mailbox_runs");
    let endings = Endings::default();
    let options = Options::new(folder.path());
    let (store, guard) = open(&options, Box::new(endings.clone())).expect("opens");
    let scene = Scene { folder, store, guard, resets };

    let mut lock = connect(&scene.folder);
    lock.batch_execute("BEGIN IMMEDIATE").expect("nobody else writes");
    // The first group waits for the lock; what comes meanwhile is one group.
    let first = scene.store.append(draft(&alice, &alice, "x")).await.expect("a place");
    let reason = Label::parse("spam", 64).expect("a label");
    let ban = scene.store.set_ban(bob.name.clone(), Some(reason), OPERATOR);
    let bad = async {
        let bad = scene.store.append(draft(&alice, &zoe, "x")).await.expect("a place");
        drop(lock);
        bad.committed().await
    };
    let (ban, bad) = tokio::join!(ban, bad);
    first.committed().await.expect("stored");
    assert!(matches!(bad, Err(StoreError::Damaged { .. })), "{bad:?}");
    assert_eq!(ban.expect("banned").standing, Standing::Banned);
    scene.close().await;
    let endings = endings.0.lock().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(*endings, [vec![(bob.id, EndCause::Banned)]]);
}
