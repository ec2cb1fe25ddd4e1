//! The indexes made again from the log: the same mailboxes, the same request ids, the same epoch; and cut
//! off at any step, the database that was there.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::merging::count;
use super::retention::{new_scene, newest, open_at, range, retain};
use super::*;

const MERGE_MESSAGES: usize = 8;

fn options(folder: &TempDir) -> Options {
    let mut options = Options::new(folder.path());
    options.merge_messages = MERGE_MESSAGES;
    options
}

/// What a store held.
struct Held {
    messages: Vec<Arc<Message>>,
    epoch: Epoch,
}

/// Messages between three users, most of them with request ids, most of them merged.
async fn stored() -> (TempDir, Held) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let scene = Scene::open_with(folder, |it| it.merge_messages = MERGE_MESSAGES).expect("opens");
    let users = [scene.user("alice").await, scene.user("bob").await, scene.user("carol").await];
    let mut messages = Vec::new();
    for number in 0..100 {
        let (sender, receiver) = (&users[number % 3], &users[(number * number) % 3]);
        let draft = draft(sender, receiver, &number.to_string());
        let draft = if number % 5 == 0 { draft } else { keyed(draft, &number.to_string()) };
        messages.push(scene.append(draft).await.expect("stored"));
    }
    let epoch = scene.store.epoch().clone();
    (scene.close().await, Held { messages, epoch })
}

async fn assert_whole(folder: TempDir, held: &Held) {
    assert_no_findings(&folder);
    let scene = Scene::open(folder).expect("opens");
    assert_eq!(scene.store.epoch(), &held.epoch);
    for message in held.messages.iter().filter(|message| message.request_id.is_some()) {
        let receiver = message.receiver.clone().into();
        let (sender, content) = (message.sender.clone(), message.content.clone());
        let request_id = message.request_id.clone();
        let again =
            scene.append(Draft { sender, receiver, content, request_id, expiry: None }).await;
        assert_eq!(again.expect("the first one").id, message.id);
    }
    for owner in [&held.messages[0].sender, &held.messages[1].sender, &held.messages[2].sender] {
        let is_theirs = |it: &&Arc<Message>| it.sender.id == owner.id || it.receiver.id == owner.id;
        let expected: Vec<_> = held.messages.iter().filter(is_theirs).map(|it| it.id).collect();
        let page = scene.page(after(owner, 0)).await.expect("a page");
        assert!(page.messages.iter().map(|it| it.id).eq(expected), "{}", owner.name);
    }
    scene.close().await;
}

#[track_caller]
fn assert_no_findings(folder: &TempDir) {
    assert_eq!(check(folder.path()).expect("can be read").findings, []);
}

#[tokio::test]
async fn indexes_that_are_gone_are_made_again() {
    let (folder, held) = stored().await;
    let first_salt = salt(&folder);
    for damage in [
        "DELETE FROM mailbox_runs; DELETE FROM request_keys; DELETE FROM pending_entries",
        "UPDATE index_state SET merged_through = 9999, checksum = NULL",
        "UPDATE mailbox_runs SET entries = x'00'",
        "DELETE FROM request_keys",
        "UPDATE index_state SET merged_through = 9999",
        "DELETE FROM index_state",
    ] {
        let keeps_salt = !damage.ends_with("9999") && !damage.ends_with("index_state");
        connect(&folder).batch_execute(damage).expect("executes");
        let mut steps = Vec::new();
        let summary = rebuild_index(&options(&folder), |step| steps.push(step)).expect(damage);
        assert_eq!(summary.messages, 100);
        assert!(summary.kept.is_file());
        std::fs::remove_file(&summary.kept).expect("it can be removed");
        let (copied, indexed) = (
            RebuildProgress::Copied { through: 100, last: 100 },
            RebuildProgress::Indexed { through: 100, last: 100 },
        );
        assert!(steps.contains(&copied) && steps.contains(&indexed), "{steps:?}");
        assert_no_findings(&folder);
        assert_eq!(salt(&folder) == first_salt, keeps_salt, "{damage}");
    }
    assert_whole(folder, &held).await;
}

fn salt(folder: &TempDir) -> Vec<u8> {
    use super::schema::index_state::dsl::{index_state, request_salt};
    index_state.select(request_salt).first(&mut connect(folder)).expect("a state")
}

/// However it is cut off, the database that was there is there, and the next time it succeeds.
#[tokio::test]
async fn cut_off_at_any_step_it_has_changed_nothing() {
    let (folder, held) = stored().await;
    connect(&folder).batch_execute("PRAGMA wal_checkpoint(TRUNCATE)").expect("executes");
    let before = std::fs::read(database(&folder)).expect("the database");
    let mut count = 0;
    rebuild_steps(&folder, usize::MAX, &mut count);
    assert!(count >= 4, "only {count} steps");
    let kept = folder.path().join("backups/before-rebuild-index.db");
    for step in 1..=count {
        std::fs::remove_file(&kept).expect("kept each time");
        std::fs::write(database(&folder), &before).expect("written");
        let mut done = 0;
        rebuild_steps(&folder, step, &mut done);
        assert_eq!(done, step);
        assert!(std::fs::read(database(&folder)).expect("the database") == before);
        // What a kill leaves, which no destructor tidied.
        let left = folder.path().join("peerpost.db.0123.unfinished");
        std::fs::write(&left, "half of it").expect("written");
        rebuild_index(&options(&folder), |_| {}).expect("rebuilt");
        assert!(!left.exists(), "what was cut off is removed");
    }
    assert_whole(folder, &held).await;
}

#[tokio::test]
async fn what_was_removed_stays_removed_and_the_sequences_go_on() {
    let scene = new_scene();
    let (alice, bob) = (scene.user("alice").await, scene.user("bob").await);
    let carol = scene.user("carol").await;
    // A beginning that nobody has, holes that carol's own notes leave, and a mailbox that is empty.
    scene.send(&alice, &bob, &["1", "2", "3"]).await;
    for number in 1..=20 {
        scene.send(&carol, &carol, &[&format!("note {number}")]).await;
        scene.send(&bob, &bob, &[&format!("note {number}")]).await;
    }
    retain(&scene, newest(5)).await;
    scene.store.empty_mailbox(alice.id).await.expect("stored");
    retain(&scene, newest(5)).await;
    scene.send(&bob, &carol, &["last"]).await;
    let before =
        [range(&scene, &alice).await, range(&scene, &bob).await, range(&scene, &carol).await];
    assert_eq!(before, [(4, 3), (19, 24), (16, 21)]);
    let intervals = count(&scene.folder, "count(*) FROM removed_positions");
    assert!(intervals > 0, "rows were removed");
    let folder = scene.close().await;
    rebuild_index(&options(&folder), |_| {}).expect("rebuilt");
    for _ in 0..2 {
        assert_no_findings(&folder);
    }
    let scene = open_at(folder);
    let after_it =
        [range(&scene, &alice).await, range(&scene, &bob).await, range(&scene, &carol).await];
    assert_eq!(after_it, before);
    assert_eq!(scene.sequences(after(&bob, 18)).await.0, [19, 20, 21, 22, 23, 24]);
    assert_eq!(scene.sequences(after(&carol, 15)).await.0, [16, 17, 18, 19, 20, 21]);
    scene.send(&alice, &carol, &["again"]).await;
    assert_eq!(range(&scene, &alice).await, (4, 4), "no sequence is given out again");
    retain(&scene, newest(5)).await;
    assert_eq!(range(&scene, &carol).await, (18, 22));
    let scene = open_at(scene.close().await);
    assert_eq!(scene.sequences(after(&carol, 17)).await.0, [18, 19, 20, 21, 22]);
    assert_no_findings(&scene.folder);
    scene.close().await;
}

/// Rebuilds until the step of this number, and stops there.
fn rebuild_steps(folder: &TempDir, until: usize, count: &mut usize) {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        rebuild_index(&options(folder), |_| {
            *count += 1;
            assert!(*count < until, "cut off");
        })
    }));
    assert_eq!(outcome.is_err(), until <= *count);
}

#[tokio::test]
async fn what_cannot_be_indexed_is_left_as_it_is() {
    let (folder, _) = stored().await;
    let damage = "DELETE FROM message_log WHERE position = 50;
                  PRAGMA wal_checkpoint(TRUNCATE)";
    connect(&folder).batch_execute(damage).expect("executes");
    let before = std::fs::read(database(&folder)).expect("the database");
    let error = rebuild_index(&options(&folder), |_| {}).expect_err("the log lacks a row");
    let lost = matches!(&error, BackupError::Open(OpenError::LogDamaged { position: 50, .. }));
    assert!(lost, "{error}");
    assert!(std::fs::read(database(&folder)).expect("the database") == before);
    let scene = Scene::open(folder).expect("a server starts on it as before");
    let used = rebuild_index(&options(&scene.folder), |_| {}).expect_err("a server runs");
    assert!(matches!(used, BackupError::Open(OpenError::InUse { .. })), "{used}");
    scene.close().await;
}
