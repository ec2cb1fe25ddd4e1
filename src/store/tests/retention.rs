//! Mailboxes lose their beginnings, and keep every promise about the rest.

use std::num::NonZero;

use super::merging::{
    Chatter, MERGE_MESSAGES, WAL_FRAME_BYTES, WAL_HEADER_BYTES, count, cut_off, read,
};
use super::*;

pub(super) const HOUR: Duration = Duration::from_hours(1);

pub(super) fn newest(count: u64) -> Retention {
    Retention { count: NonZero::new(count), ..Retention::default() }
}

pub(super) fn at_most(age: Duration) -> Retention {
    Retention { age: Some(age), ..Retention::default() }
}

/// Nothing is removed but by the passes of the test.
pub(super) fn open_at(folder: TempDir) -> Scene {
    let adjust = |options: &mut Options| {
        options.merge_messages = MERGE_MESSAGES;
        options.request_keys_delay = HOUR;
        options.retention.interval = HOUR;
    };
    Scene::open_with(folder, adjust).expect("opens")
}

pub(super) fn new_scene() -> Scene {
    open_at(tempfile::tempdir().expect("a temporary folder"))
}

/// A pass so long after the present, in steps of one item.
pub(super) async fn retain_after(scene: &Scene, keep: Retention, later: Duration) {
    let store = scene.store.clone();
    let options = RetentionOptions { keep, step_items: 1, ..RetentionOptions::default() };
    let later = i64::try_from(later.as_micros()).expect("short");
    let now = Timestamp::from_micros(Timestamp::now().as_micros() + later);
    let pass = move || crate::store::retention::pass(&store, options, MERGE_MESSAGES, now);
    tokio::task::spawn_blocking(pass).await.expect("no panic");
}

pub(super) async fn retain(scene: &Scene, keep: Retention) {
    retain_after(scene, keep, Duration::ZERO).await;
}

pub(super) async fn range(scene: &Scene, owner: &User) -> (i64, i64) {
    let range = scene.store.mailbox_state(owner.id).await.expect("readable").range;
    (range.first.get(), range.last.get())
}

pub(super) fn findings(scene: &Scene) -> Vec<Finding> {
    check(scene.folder.path()).expect("can be read").findings
}

/// Every mailbox holds the newest of what it must, from its beginning on, read either way. The beginnings.
async fn check_all(scene: &Scene, chatter: &Chatter) -> Vec<i64> {
    let mut firsts = Vec::new();
    for user in &chatter.users {
        let all = chatter.mailboxes.get(&user.id).cloned().unwrap_or_default();
        let (first, last) = range(scene, user).await;
        assert_eq!(last, all.len().cast_signed() as i64, "no sequence is forgotten");
        let kept: Vec<_> = all.into_iter().filter(|(sequence, _)| *sequence >= first).collect();
        for messages_max in [1, 3, 100] {
            assert_eq!(read(scene, user, messages_max, true).await, kept, "{}", user.name);
            assert_eq!(read(scene, user, messages_max, false).await, kept, "{}", user.name);
        }
        firsts.push(first);
    }
    assert_eq!(findings(scene), []);
    firsts
}

#[tokio::test]
async fn what_is_too_old_goes_and_the_sequences_go_on() {
    let scene = new_scene();
    let (alice, bob) = (scene.user("alice").await, scene.user("bob").await);
    scene.send(&alice, &bob, &["1", "2", "3", "4", "5"]).await;
    retain_after(&scene, at_most(2 * HOUR), HOUR).await;
    assert_eq!(range(&scene, &bob).await, (1, 5), "young enough");
    retain_after(&scene, at_most(HOUR), 2 * HOUR).await;
    // The log's last row says where it goes on.
    assert_eq!(range(&scene, &bob).await, (5, 5));
    assert_eq!(count(&scene.folder, "count(*) FROM message_log"), 1);
    assert_eq!(count(&scene.folder, "last_position FROM removed_positions"), 4);
    assert_eq!(findings(&scene), []);

    scene.send(&bob, &bob, &["6", "7"]).await;
    retain_after(&scene, at_most(HOUR), 2 * HOUR).await;
    assert_eq!(range(&scene, &alice).await, (6, 5), "it is empty");
    assert_eq!(range(&scene, &bob).await, (7, 7));
    let scene = open_at(scene.close().await);
    assert_eq!(range(&scene, &alice).await, (6, 5));
    scene.send(&bob, &alice, &["8"]).await;
    assert_eq!(range(&scene, &alice).await, (6, 6), "no sequence is given out again");
    assert_eq!(scene.sequences(after(&alice, 5)).await, (vec![6], false));
    assert_eq!(findings(&scene), []);
}

#[tokio::test]
async fn the_newest_entries_stay_and_a_message_while_one_mailbox_has_it() {
    let scene = new_scene();
    let (alice, bob) = (scene.user("alice").await, scene.user("bob").await);
    scene.send(&alice, &bob, &["1", "2"]).await;
    scene.send(&bob, &bob, &["3", "4", "5", "6", "7", "8", "9"]).await;
    retain(&scene, newest(3)).await;
    assert_eq!(range(&scene, &bob).await, (7, 9));
    assert_eq!(range(&scene, &alice).await, (1, 2));
    assert_eq!(scene.sequences(after(&alice, 0)).await.0, [1, 2], "hers are kept");
    // What is in memory only is merged no more often than once an hour, to be removed.
    assert_eq!(count(&scene.folder, "min(position) FROM message_log WHERE position > 2"), 7);
    assert_eq!(findings(&scene), []);
    let scene = open_at(scene.close().await);
    assert_eq!(range(&scene, &bob).await, (7, 9));
    // Each mailbox has a bound of its own.
    scene.send(&alice, &alice, &["3", "4", "5", "6", "7"]).await;
    retain(&scene, newest(3)).await;
    assert_eq!(range(&scene, &alice).await, (5, 7));
    assert_eq!(count(&scene.folder, "count(*) FROM message_log WHERE position < 7"), 0);
    assert_eq!(findings(&scene), []);
}

#[tokio::test]
async fn a_cursor_behind_the_beginning_reads_nothing_and_the_range_says_why() {
    let scene = new_scene();
    let bob = scene.user("bob").await;
    scene.send(&bob, &bob, &["1", "2", "3", "4", "5", "6", "7", "8", "9"]).await;
    retain(&scene, newest(4)).await;
    for query in [after(&bob, 0), after(&bob, 4), before(&bob, 6), before(&bob, 5), before(&bob, 1)]
    {
        for query in [query, received(query), with(&bob, query)] {
            let page = scene.page(query).await.expect("a page");
            assert!(page.messages.is_empty() && !page.has_more, "{page:?}");
            assert_eq!((page.range.first.get(), page.range.last.get()), (6, 9));
        }
    }
    for query in [after(&bob, 5), before(&bob, 10), before(&bob, i64::MAX)] {
        for query in [query, received(query), with(&bob, query)] {
            assert_eq!(scene.sequences(query).await, (vec![6, 7, 8, 9], false));
        }
    }
    assert_eq!(scene.sequences(before(&bob, 8)).await, (vec![6, 7], false));
}

#[tokio::test]
async fn a_request_id_is_remembered_as_long_as_its_message_is_kept() {
    let scene = new_scene();
    let (alice, bob) = (scene.user("alice").await, scene.user("bob").await);
    let text = |text: &str| keyed(draft(&alice, &bob, text), text);
    let first = scene.append(text("1")).await.expect("stored").id;
    for number in 2..=9 {
        scene.append(text(&number.to_string())).await.expect("stored");
    }
    retain(&scene, newest(4)).await;
    let kept = scene.append(text("6")).await.expect("the first one");
    assert_eq!(kept.receiver_sequence.get(), 6);
    let forgotten = scene.append(text("1")).await.expect("a new one");
    assert_ne!(forgotten.id, first);
    assert_eq!(forgotten.receiver_sequence.get(), 10);
    let again = scene.append(text("1")).await.expect("the new one");
    assert_eq!(again.id, forgotten.id);
    assert_eq!(findings(&scene), []);
    let keys = "count(*) FROM request_keys WHERE position IN (SELECT position FROM message_log)";
    let (leading, all) =
        (count(&scene.folder, keys), count(&scene.folder, "count(*) FROM request_keys"));
    assert_eq!(all, leading, "the rest was swept away");
}

#[tokio::test]
async fn a_row_that_was_lost_does_not_pass_for_removed() {
    let scene = new_scene();
    let (alice, bob) = (scene.user("alice").await, scene.user("bob").await);
    scene.send(&alice, &bob, &["1", "2", "3", "4", "5", "6", "7", "8", "9"]).await;
    retain(&scene, newest(6)).await;
    let folder = scene.close().await;
    for (damage, expected) in [
        ("DELETE FROM message_log WHERE position = 5", "the log has no row at position 5"),
        ("DELETE FROM removed_positions", "the log has no rows from position 1 to 3"),
        (
            "UPDATE removed_positions SET last_position = 4",
            "the removed position 0: the removed positions after it are not what was written",
        ),
        (
            "UPDATE mailboxes SET first_sequence = 5 WHERE owner_id = 2",
            "the mailbox of user 2: where it begins is not what was written",
        ),
        (
            "DELETE FROM mailboxes WHERE owner_id = 2",
            "the mailbox of user 2 goes on with 4 instead of 1 (log position 4)",
        ),
        (
            "UPDATE retention_state SET removed_total = 7",
            "the state of retention: it is not what was written",
        ),
        (
            "UPDATE message_log SET position = 2 WHERE position = 4",
            "the removed position 2: its row is still there",
        ),
        (
            "DELETE FROM mailbox_runs WHERE owner_id = 2 AND first_sequence > 4",
            "the index of the mailbox of user 2 differs from the log",
        ),
    ] {
        let copy = tempfile::tempdir().expect("a temporary folder");
        std::fs::copy(database(&folder), database(&copy)).expect("copied");
        connect(&copy).batch_execute(damage).expect("executes");
        let found = check(copy.path()).expect("can be read").findings;
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert!(found.iter().any(|line| line == expected), "{damage}: {found:#?}");
    }
    let scene = open_at(folder);
    scene.sql("DELETE FROM message_log WHERE position = 5");
    retain(&scene, newest(2)).await;
    assert_eq!(count(&scene.folder, "max(last_position) FROM removed_positions"), 4);
}

#[tokio::test]
async fn where_a_mailbox_begins_is_believed_only_as_it_was_written() {
    let scene = new_scene();
    let bob = scene.user("bob").await;
    scene.send(&bob, &bob, &["1", "2", "3", "4", "5", "6", "7", "8", "9"]).await;
    retain(&scene, newest(6)).await;
    let folder = scene.close().await;
    connect(&folder).batch_execute("UPDATE mailboxes SET first_sequence = 6").expect("executes");
    let adjust = |options: &mut Options| options.request_keys_delay = HOUR;
    let refused = Scene::open_with(folder, adjust).err();
    assert!(matches!(refused, Some(OpenError::Database { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_cut_anywhere_in_retention_loses_nothing_that_is_kept() {
    let scene = new_scene();
    let mut chatter = Chatter::new(&scene).await;
    chatter.send(&scene, 30).await;
    let wal = || std::fs::read(scene.folder.path().join("peerpost.db-wal")).expect("readable");
    let begin = wal().len();
    retain_after(&scene, newest(6), HOUR).await;
    retain_after(&scene, at_most(2 * HOUR), 3 * HOUR).await;
    let goal = check_all(&scene, &chatter).await;
    assert!(goal.iter().all(|first| *first > 6), "{goal:?}");
    let wal = wal();
    let frames = (begin - WAL_HEADER_BYTES) / WAL_FRAME_BYTES..wal.len() / WAL_FRAME_BYTES;
    assert!(frames.len() > 60, "all in one log: {frames:?}");

    let mut seen = Vec::new();
    for frame in frames {
        for torn in [0, WAL_FRAME_BYTES / 3] {
            let wal_bytes = WAL_HEADER_BYTES + frame * WAL_FRAME_BYTES + torn;
            let files = cut_off(&database(&scene.folder), &wal, wal_bytes.min(wal.len()));
            let cut = open_at(files);
            let firsts = check_all(&cut, &chatter).await;
            seen.push(firsts.clone());
            if torn == 0 {
                // It goes on where it was cut off.
                retain_after(&cut, newest(6), HOUR).await;
                retain_after(&cut, at_most(2 * HOUR), 3 * HOUR).await;
                assert_eq!(check_all(&cut, &chatter).await, goal);
                assert_eq!(
                    count(
                        &cut.folder,
                        "count(*) FROM mailboxes WHERE removed_through < first_sequence - 2"
                    ),
                    0
                );
            }
            drop(cut.close().await);
        }
    }
    assert!(seen.is_sorted(), "mailboxes only ever begin later");
    seen.dedup();
    assert!(seen.len() > 4, "there were cuts between the steps: {seen:?}");
}

#[tokio::test]
async fn what_was_acknowledged_goes_when_it_is_old_enough_and_nothing_else() {
    let scene = new_scene();
    let (alice, bob) = (scene.user("alice").await, scene.user("bob").await);
    scene.send(&alice, &bob, &["1", "2", "3", "4", "5", "6", "7", "8", "9"]).await;
    let through = Sequence::parse(4).expect("a sequence");
    scene.store.acknowledge(bob.id, through).await.expect("stored").expect("is there");
    let keep = Retention { after_acknowledgement: Some(HOUR), ..Retention::default() };
    retain(&scene, keep).await;
    assert_eq!(range(&scene, &bob).await, (1, 9), "too young");
    retain_after(&scene, keep, 2 * HOUR).await;
    assert_eq!((range(&scene, &bob).await, range(&scene, &alice).await), ((5, 9), (1, 9)));
    let state = scene.store.mailbox_state(bob.id).await.expect("readable");
    assert_eq!(state.acknowledged_through, through);
    scene.store.acknowledge(alice.id, through).await.expect("stored").expect("is there");
    retain_after(&scene, keep, 2 * HOUR).await;
    assert_eq!(count(&scene.folder, "min(position) FROM message_log"), 5);
    assert_eq!(findings(&scene), []);
}

#[tokio::test]
async fn for_single_users_something_else_holds() {
    let scene = new_scene();
    let (alice, bob) = (scene.user("alice").await, scene.user("bob").await);
    let carol = scene.user("carol").await;
    scene.send(&alice, &bob, &["1", "2", "3", "4"]).await;
    scene.send(&carol, &carol, &["1", "2", "3", "4", "5"]).await;
    let store = &scene.store;
    store
        .set_user_retention(bob.clone(), Some(Retention::default()), OPERATOR)
        .await
        .expect("stored");
    store.set_user_retention(carol.clone(), Some(newest(2)), OPERATOR).await.expect("stored");
    assert_eq!(store.user_retention(carol.id).await.expect("readable"), Some(newest(2)));
    assert_eq!(store.user_retention(alice.id).await.expect("readable"), None);
    retain_after(&scene, at_most(HOUR), 2 * HOUR).await;
    assert_eq!(range(&scene, &alice).await, (5, 4), "as the server keeps it");
    assert_eq!(range(&scene, &bob).await, (1, 4), "everything");
    assert_eq!(range(&scene, &carol).await, (4, 5), "her newest two");
    assert_eq!(scene.sequences(after(&bob, 0)).await.0, [1, 2, 3, 4]);
    assert_eq!(findings(&scene), []);

    scene.store.set_user_retention(bob.clone(), None, OPERATOR).await.expect("stored");
    retain_after(&scene, at_most(HOUR), 2 * HOUR).await;
    assert_eq!(range(&scene, &bob).await, (5, 4), "as the server keeps it again");
    assert_eq!(count(&scene.folder, "min(position) FROM message_log"), 8);
    assert_eq!(findings(&scene), []);
}

#[tokio::test]
async fn a_mailbox_that_is_emptied_goes_on_counting() {
    let scene = new_scene();
    let (alice, bob) = (scene.user("alice").await, scene.user("bob").await);
    scene.send(&alice, &bob, &["1", "2", "3", "4", "5", "6"]).await;
    let last = scene.store.empty_mailbox(bob.id).await.expect("stored");
    assert_eq!(last.get(), 6);
    assert_eq!(range(&scene, &bob).await, (7, 6));
    assert_eq!(range(&scene, &alice).await, (1, 6));
    retain(&scene, Retention::default()).await;
    scene.store.empty_mailbox(alice.id).await.expect("stored");
    retain(&scene, Retention::default()).await;
    assert_eq!(count(&scene.folder, "count(*) FROM message_log"), 1, "the log's last row");
    let scene = open_at(scene.close().await);
    scene.send(&alice, &bob, &["7"]).await;
    assert_eq!((range(&scene, &bob).await, range(&scene, &alice).await), ((7, 7), (7, 7)));
    assert_eq!(findings(&scene), []);
}

/// More rows, mailboxes and entries of one than are looked at together: 512, 128 and 512.
#[tokio::test]
async fn what_is_too_much_to_be_looked_at_together_goes_too() {
    const OTHERS: usize = 140;
    const NOTES: usize = 1_200;
    let scene = new_scene();
    let alice = scene.user("alice").await;
    let mut others = Vec::new();
    for number in 0..OTHERS {
        let other = scene.user(&format!("u{number}")).await;
        scene.send(&alice, &other, &["1", "2"]).await;
        others.push(other);
    }
    scene.send(&alice, &alice, &vec!["note"; NOTES]).await;
    let last = i64::try_from(2 * OTHERS + NOTES).expect("few");
    retain(&scene, newest(1)).await;
    assert_eq!(range(&scene, &alice).await, (last, last));
    for other in &others {
        assert_eq!(range(&scene, other).await, (2, 2), "{}", other.name);
    }
    let rows = |scene: &Scene| count(&scene.folder, "count(*) FROM message_log");
    assert_eq!(rows(&scene), i64::try_from(OTHERS + 1).expect("few"));
    assert_eq!(findings(&scene), []);
    retain_after(&scene, at_most(HOUR), 2 * HOUR).await;
    for other in &others {
        assert_eq!(range(&scene, other).await, (3, 2), "{}", other.name);
    }
    assert_eq!(rows(&scene), 1);
    assert_eq!(findings(&scene), []);
}
