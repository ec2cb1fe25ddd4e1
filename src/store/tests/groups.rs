//! What one commit holds at most.

use std::sync::{Mutex, PoisonError};

use super::*;

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
