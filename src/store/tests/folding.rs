//! Request keys on their way from the segments in memory through runs into their table.

use super::merging::{
    Chatter, WAL_FRAME_BYTES, WAL_HEADER_BYTES, count, cut_off, read_request_keys,
};
use super::*;
use crate::domain::MessageId;

/// Enough keys for runs, and few enough for many segments.
const SEGMENT_MESSAGES: usize = 12;

/// A shard is folded when it has eight runs: there are as many segments by then.
const FOLDED_FROM: usize = 8 * SEGMENT_MESSAGES;

fn open_at(folder: TempDir) -> Scene {
    open_with_segments(folder, SEGMENT_MESSAGES)
}

fn open_with_segments(folder: TempDir, messages: usize) -> Scene {
    let adjust = |options: &mut Options| {
        options.merge_messages = messages;
        options.request_keys_delay = Duration::from_hours(1);
    };
    Scene::open_with(folder, adjust).expect("opens")
}

fn new_scene() -> Scene {
    open_at(tempfile::tempdir().expect("a temporary folder"))
}

/// Messages that were sent, each with its id.
type Sent = Vec<(Draft, MessageId)>;

async fn send(scene: &Scene, chatter: &mut Chatter, count: usize) -> Sent {
    let mut sent = Sent::new();
    for _ in 0..count {
        let draft = chatter.next();
        let id = scene.append(draft.clone()).await.expect("stored").id;
        sent.push((draft, id));
    }
    sent
}

async fn assert_known(scene: &Scene, sent: &Sent) {
    for (draft, id) in sent {
        let repeated = scene.append(draft.clone()).await.expect("found");
        assert_eq!(repeated.id, *id, "{:?}", draft.request_id);
    }
}

fn runs(folder: &TempDir) -> i64 {
    count(folder, "count(*) FROM request_runs")
}

fn in_table(folder: &TempDir) -> i64 {
    count(folder, "count(*) FROM request_keys")
}

#[tokio::test]
async fn a_repeated_request_is_found_in_runs_in_the_table_and_between() {
    for is_filtered in [false, true] {
        let scene = new_scene();
        if is_filtered {
            read_request_keys(&scene);
        }
        let mut chatter = Chatter::new(&scene).await;
        let mut sent = Sent::new();
        let (mut was_in_runs_only, mut was_in_both) = (false, false);
        for _ in 0..4 * FOLDED_FROM / 16 {
            sent.extend(send(&scene, &mut chatter, 16).await);
            assert_known(&scene, &sent).await;
            let (runs, in_table) = (runs(&scene.folder), in_table(&scene.folder));
            was_in_runs_only |= runs > 0 && in_table == 0;
            was_in_both |= runs > 0 && in_table > 0;
            assert_eq!(check(scene.folder.path()).expect("readable").findings, []);
        }
        assert!(was_in_runs_only && was_in_both);
        chatter.check(&scene).await;

        let scene = open_at(scene.close().await);
        if is_filtered {
            read_request_keys(&scene);
        }
        assert_known(&scene, &sent).await;
    }
}

#[tokio::test]
async fn what_is_in_runs_stays_as_little_as_some_segments() {
    let scene = new_scene();
    let mut chatter = Chatter::new(&scene).await;
    for _ in 0..20 {
        chatter.send(&scene, FOLDED_FROM / 2).await;
        let merged = count(&scene.folder, "merged_through FROM index_state");
        let in_runs = merged - in_table(&scene.folder);
        let most = 2 * FOLDED_FROM.cast_signed() as i64;
        assert!(in_runs <= most, "{in_runs} of {merged} are in runs alone");
        let of_a_shard = count(
            &scene.folder,
            "coalesce(max(runs), 0) \
             FROM (SELECT count(*) AS runs FROM request_runs GROUP BY shard)",
        );
        assert!(of_a_shard <= 16, "what was folded is deleted: {of_a_shard} runs of a shard");
    }
}

#[tokio::test]
async fn no_commit_takes_more_than_a_slice_of_a_fold() {
    // Eight of these are 128 keys a shard: more than one commit's part.
    const SEGMENT: usize = 64;
    const SLICE_MAX: i64 = 64;
    let scene = open_with_segments(tempfile::tempdir().expect("a temporary folder"), SEGMENT);
    let mut chatter = Chatter::new(&scene).await;
    let mut before = 0;
    for _ in 0..12 * SEGMENT {
        chatter.send(&scene, 1).await;
        let after = in_table(&scene.folder);
        assert!(after - before <= SLICE_MAX, "{} keys in one commit", after - before);
        before = after;
    }
    assert!(before > 0, "a fold is among it");
}

#[tokio::test]
async fn a_cut_anywhere_in_a_fold_loses_no_request_id() {
    let scene = new_scene();
    let mut chatter = Chatter::new(&scene).await;
    let mut sent = send(&scene, &mut chatter, FOLDED_FROM).await;
    let wal = || std::fs::read(scene.folder.path().join("peerpost.db-wal")).expect("readable");
    let (begin, began_with) = (wal().len(), in_table(&scene.folder));
    let mut at_the_end = vec![begin; sent.len()];
    for _ in 0..3 * SEGMENT_MESSAGES {
        sent.extend(send(&scene, &mut chatter, 1).await);
        at_the_end.push(wal().len());
    }
    let wal = wal();
    assert_eq!(began_with, 0);
    assert!(in_table(&scene.folder) > 0, "a fold is among it");
    assert!(wal.len() > begin, "all in one log");

    for frame in (begin - WAL_HEADER_BYTES) / WAL_FRAME_BYTES..wal.len() / WAL_FRAME_BYTES {
        let wal_bytes = WAL_HEADER_BYTES + frame * WAL_FRAME_BYTES;
        let cut = open_at(cut_off(&database(&scene.folder), &wal, wal_bytes));
        let acknowledged = at_the_end.iter().filter(|end| **end <= wal_bytes).count();
        assert_known(&cut, &sent[..acknowledged].to_vec()).await;
        let folder = cut.close().await;
        assert_eq!(check(folder.path()).expect("readable").findings, [], "{frame}");
    }
}

#[tokio::test]
async fn a_run_that_is_not_what_was_written_fails_those_who_need_it_and_takes_no_id_for_new() {
    for damage in [
        "UPDATE request_runs SET checksum = checksum + 1",
        "UPDATE request_runs SET entries = substr(entries, 2)",
        "UPDATE request_runs SET entries = zeroblob(length(entries))",
        "UPDATE request_runs SET first_position = first_position + 1",
    ] {
        let scene = new_scene();
        let mut chatter = Chatter::new(&scene).await;
        let sent = send(&scene, &mut chatter, 2 * SEGMENT_MESSAGES).await;
        let folder = scene.close().await;
        assert!(runs(&folder) > 0);
        connect(&folder).batch_execute(damage).expect("executes");
        let scene = open_at(folder);
        let repeated = scene.append(sent[0].0.clone()).await;
        assert!(matches!(repeated, Err(StoreError::Damaged { .. })), "{damage}: {repeated:?}");
        let (sender, receiver) = (&chatter.users[0], &chatter.users[1]);
        scene.append(draft(sender, receiver, "without an id")).await.expect("stored");
        let findings = check(scene.folder.path()).expect("readable").findings;
        let part = "the indexes";
        let found = |it: &Finding| matches!(it, Finding::Unreadable { part: p, .. } if *p == part);
        assert!(findings.iter().any(found), "{damage}: {findings:#?}");
    }
}

#[tokio::test]
async fn what_a_run_lacks_or_has_too_much_is_found_by_the_check() {
    let scene = new_scene();
    let mut chatter = Chatter::new(&scene).await;
    chatter.send(&scene, 2 * SEGMENT_MESSAGES).await;
    let folder = scene.close().await;
    let before = runs(&folder);
    connect(&folder)
        .batch_execute(
            "DELETE FROM request_runs WHERE shard = (SELECT min(shard) FROM request_runs)",
        )
        .expect("executes");
    assert!(runs(&folder) < before);
    let findings = check(folder.path()).expect("readable").findings;
    let found = |it: &Finding| matches!(it, Finding::RequestIndex { .. });
    assert!(findings.iter().any(found), "{findings:#?}");
}

#[tokio::test]
async fn indexes_that_are_made_again_fold_on_the_way() {
    let scene = new_scene();
    let mut chatter = Chatter::new(&scene).await;
    let sent = send(&scene, &mut chatter, 5 * FOLDED_FROM).await;
    let folder = scene.close().await;
    let mut options = Options::new(folder.path());
    options.merge_messages = SEGMENT_MESSAGES;
    rebuild_index(&options, |_| {}).expect("made again");
    let in_runs = 5 * FOLDED_FROM.cast_signed() as i64 - in_table(&folder);
    assert!(in_runs <= 2 * FOLDED_FROM.cast_signed() as i64, "{in_runs}");
    let scene = open_at(folder);
    assert_known(&scene, &sent).await;
    chatter.check(&scene).await;
}
