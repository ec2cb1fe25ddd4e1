//! Entries move from memory into the tables while messages come, are read and are cut off.

use std::collections::HashMap;
use std::path::Path;

use super::index::KeysCursor;
use super::*;

/// Merges go on all the time: every few messages another one begins.
pub(super) const MERGE_MESSAGES: usize = 4;

/// What a mailbox must hold: sequence and text, in order.
pub(super) type Mailbox = Vec<(i64, String)>;

/// Users who write to each other in an order that looks random and is always the same.
pub(super) struct Chatter {
    pub(super) users: Vec<User>,
    random: u64,
    sent: usize,
    pub(super) mailboxes: HashMap<UserId, Mailbox>,
}

impl Chatter {
    pub(super) async fn new(scene: &Scene) -> Self {
        let mut users = Vec::new();
        for name in ["alice", "bob", "carol", "dave"] {
            users.push(scene.user(name).await);
        }
        Self { users, random: 0x2545_f491_4f6c_dd1d, sent: 0, mailboxes: HashMap::new() }
    }

    fn below(&mut self, end: usize) -> usize {
        // Marsaglia's xorshift64.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random % end as u64).expect("below end")
    }

    /// The next message, and its entries into the mailboxes that must be.
    pub(super) fn next(&mut self) -> Draft {
        let users = self.users.len();
        let (sender, receiver) = (self.below(users), self.below(users));
        let (sender, receiver) = (self.users[sender].clone(), self.users[receiver].clone());
        let text = self.sent.to_string();
        self.sent += 1;
        let participants = if sender.id == receiver.id { 1 } else { 2 };
        for user in [&sender, &receiver].iter().take(participants) {
            let mailbox = self.mailboxes.entry(user.id).or_default();
            mailbox.push((mailbox.len().cast_signed() as i64 + 1, text.clone()));
        }
        keyed(draft(&sender, &receiver, &text), &text)
    }

    pub(super) async fn send(&mut self, scene: &Scene, count: usize) {
        for _ in 0..count {
            scene.append(self.next()).await.expect("stored");
        }
    }

    /// Every mailbox holds what it must, read in pages of all sizes either way.
    pub(super) async fn check(&mut self, scene: &Scene) {
        for user in self.users.clone() {
            let expected = self.mailboxes.get(&user.id).cloned().unwrap_or_default();
            let messages_max = 1 + self.below(7);
            let forward = read(scene, &user, messages_max, true).await;
            assert_eq!(forward, expected, "{}, {messages_max} at a time", user.name);
            let backward = read(scene, &user, messages_max, false).await;
            assert_eq!(backward, expected, "{}, {messages_max} at a time", user.name);
            let state = scene.store.mailbox_state(user.id).await.expect("readable");
            assert_eq!(state.range.last.get(), expected.len().cast_signed() as i64);
        }
    }
}

/// A whole mailbox, page by page.
pub(super) async fn read(
    scene: &Scene,
    owner: &User,
    messages_max: usize,
    ascending: bool,
) -> Mailbox {
    let mut all = Mailbox::new();
    let state = scene.store.mailbox_state(owner.id).await.expect("readable");
    let begin = state.range.first.get() - 1;
    loop {
        let query = match (all.first(), all.last()) {
            (_, last) if ascending => after(owner, last.map_or(begin, |(sequence, _)| *sequence)),
            (first, _) => before(owner, first.map_or(i64::MAX, |(sequence, _)| *sequence)),
        };
        let page = scene.page(PageQuery { messages_max, ..query }).await.expect("a page");
        let entry = |message: &Message| {
            let sequence = message.sequence_for(owner.id).expect("its own").get();
            let text = String::from_utf8(message.content.body.as_bytes().to_vec());
            (sequence, text.expect("text"))
        };
        let entries: Mailbox = page.messages.iter().map(entry).collect();
        if ascending {
            all.extend(entries);
        } else {
            all.splice(0..0, entries);
        }
        if !page.has_more {
            return all;
        }
    }
}

fn open_at(folder: TempDir) -> Scene {
    Scene::open_with(folder, |options| options.merge_messages = MERGE_MESSAGES).expect("opens")
}

fn new_scene() -> Scene {
    open_at(tempfile::tempdir().expect("a temporary folder"))
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    count: i64,
}

pub(super) fn count(folder: &TempDir, what: &str) -> i64 {
    let query = format!("SELECT (SELECT {what}) AS count");
    diesel::sql_query(query).get_result::<Count>(&mut connect(folder)).expect("a number").count
}

#[tokio::test]
async fn mailboxes_are_whole_at_every_step_of_a_merge_and_after_a_restart() {
    let mut scene = new_scene();
    let mut chatter = Chatter::new(&scene).await;
    for step in 0..80 {
        chatter.send(&scene, 1).await;
        chatter.check(&scene).await;
        if step % 9 == 8 {
            scene = open_at(scene.close().await);
            chatter.check(&scene).await;
        }
    }
    assert!(count(&scene.folder, "merged_through FROM index_state") > 60, "merges went on");
    let left = count(&scene.folder, "count(*) FROM pending_entries");
    assert!(left <= 20, "{left} rows of what is merged are left over");
}

/// Mailboxes that fill runs, and slices that end among the request keys of a shard.
#[tokio::test]
async fn a_large_segment_is_merged_whole_slice_by_slice() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let scene = Scene::open_with(folder, |options| options.merge_messages = 1_200).expect("opens");
    let mut chatter = Chatter::new(&scene).await;
    for _ in 0..125 {
        let mut accepted = Vec::new();
        for _ in 0..25 {
            accepted.push(scene.store.append(chatter.next()).await.expect("a place"));
        }
        for accepted in accepted {
            accepted.committed().await.expect("stored");
        }
    }
    chatter.check(&scene).await;
    assert_eq!(count(&scene.folder, "merged_through FROM index_state"), 2_400);
    let runs = count(&scene.folder, "max(first_sequence) FROM mailbox_runs");
    assert!(runs > 257, "a mailbox has several runs");
    let report = check(scene.folder.path()).expect("readable");
    assert_eq!(report.findings, [], "the indexes say what the log says");
}

#[tokio::test]
async fn a_repeated_request_is_found_wherever_its_entry_is() {
    let scene = new_scene();
    let mut chatter = Chatter::new(&scene).await;
    let mut drafts = Vec::new();
    for _ in 0..40 {
        let draft = chatter.next();
        let id = scene.append(draft.clone()).await.expect("stored").id;
        drafts.push((draft, id));
        for (draft, id) in &drafts {
            let repeated = scene.append(draft.clone()).await.expect("found");
            assert_eq!(repeated.id, *id);
        }
    }
    chatter.check(&scene).await;
}

/// What is done a second after a start.
pub(super) fn read_request_keys(scene: &Scene) {
    let mut connection = connect(&scene.folder);
    let mut next = Some(KeysCursor::Tail);
    while let Some(from) = next {
        next = scene.store.0.index.read_request_keys(&mut connection, from).expect("readable");
    }
}

#[tokio::test]
async fn a_repeated_request_is_found_when_the_filter_says_which_are_new() {
    let scene = new_scene();
    let mut chatter = Chatter::new(&scene).await;
    let mut drafts = Vec::new();
    for _ in 0..10 {
        let draft = chatter.next();
        drafts.push((draft.clone(), scene.append(draft).await.expect("stored").id));
    }
    let scene = open_at(scene.close().await);
    read_request_keys(&scene);
    for _ in 0..30 {
        let draft = chatter.next();
        let mut pending = Vec::new();
        for _ in 0..8 {
            pending.push(scene.store.append(draft.clone()).await.expect("a place"));
        }
        let mut ids = Vec::new();
        for pending in pending {
            ids.push(pending.committed().await.expect("stored or found").id);
        }
        assert!(ids.iter().all(|id| *id == ids[0]), "within a transaction and after it");
        drafts.push((draft, ids[0]));
        for (draft, id) in &drafts {
            let repeated = scene.append(draft.clone()).await.expect("found");
            assert_eq!(repeated.id, *id);
        }
    }
    chatter.check(&scene).await;
}

/// A write-ahead log is a header and then frames, each a header and a page.
/// (<https://sqlite.org/fileformat2.html#the_write_ahead_log>)
pub(super) const WAL_HEADER_BYTES: usize = 32;
pub(super) const WAL_FRAME_BYTES: usize = 24 + 4096;

/// The files of a store that is open, as a cut of power leaves them when nothing after `wal_bytes` of
/// the write-ahead log was written.
pub(super) fn cut_off(files: &Path, wal: &[u8], wal_bytes: usize) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::copy(files, database(&folder)).expect("copied");
    let path = folder.path().join("peerpost.db-wal");
    std::fs::write(path, &wal[..wal_bytes]).expect("written");
    folder
}

#[tokio::test]
async fn a_cut_anywhere_in_a_merge_loses_nothing_and_doubles_nothing() {
    let scene = new_scene();
    let mut chatter = Chatter::new(&scene).await;
    let wal = || std::fs::read(scene.folder.path().join("peerpost.db-wal")).expect("readable");
    let begin = wal().len();
    let mut sent = Vec::new();
    for _ in 0..24 {
        let draft = chatter.next();
        let id = scene.append(draft.clone()).await.expect("stored").id;
        // What is in the file when the answer comes is what must be enough.
        sent.push((draft, id, wal().len()));
    }
    let wal = wal();
    assert!(wal.len() - begin > 60 * WAL_FRAME_BYTES, "all in one log, and merges among it");

    let frames = (begin - WAL_HEADER_BYTES) / WAL_FRAME_BYTES..wal.len() / WAL_FRAME_BYTES;
    for frame in frames {
        // Between two frames, and within one.
        for torn in [0, WAL_FRAME_BYTES / 3] {
            let wal_bytes = WAL_HEADER_BYTES + frame * WAL_FRAME_BYTES + torn;
            let files = cut_off(&database(&scene.folder), &wal, wal_bytes.min(wal.len()));
            let cut = open_at(files);
            let acknowledged = sent.iter().filter(|(_, _, end)| *end <= wal_bytes).count();
            check_cut(&cut, &mut chatter, &sent, acknowledged).await;
            drop(cut.close().await);
        }
    }
}

/// What was acknowledged is there under its first id; what was not is stored when it is repeated; and
/// then everything is as if there had been no cut.
async fn check_cut(
    cut: &Scene,
    chatter: &mut Chatter,
    sent: &[(Draft, crate::domain::MessageId, usize)],
    acknowledged: usize,
) {
    let last = count(&cut.folder, "coalesce(max(position), 0) FROM message_log");
    let stored = usize::try_from(last).expect("positive");
    assert!(stored >= acknowledged, "{acknowledged} were acknowledged, {stored} are stored");
    for (number, (draft, id, _)) in sent.iter().enumerate() {
        let repeated = cut.append(draft.clone()).await.expect("stored").id;
        assert_eq!(repeated == *id, number < stored, "message {number} of {stored} stored");
    }
    chatter.check(cut).await;
}

#[tokio::test]
async fn what_the_commits_left_for_a_start_can_be_damaged() {
    for damage in [
        "UPDATE pending_entries SET checksum = checksum + 1 WHERE first_position % 3 = 0",
        "UPDATE pending_entries SET entries = x'00'",
        "DELETE FROM pending_entries WHERE first_position % 3 = 1",
        "DELETE FROM pending_entries",
    ] {
        let scene = new_scene();
        let mut chatter = Chatter::new(&scene).await;
        chatter.send(&scene, 15).await;
        let folder = scene.close().await;
        connect(&folder).batch_execute(damage).expect("executes");
        let scene = open_at(folder);
        chatter.check(&scene).await;
        chatter.send(&scene, 15).await;
        chatter.check(&scene).await;
    }
}

#[tokio::test]
async fn a_damaged_index_keeps_no_message_from_being_stored_until_memory_would_run_out() {
    let scene = new_scene();
    let mut chatter = Chatter::new(&scene).await;
    chatter.send(&scene, 8).await;
    let folder = scene.close().await;
    // What a merge would write cannot be written.
    connect(&folder)
        .batch_execute(
            "CREATE TRIGGER damage BEFORE INSERT ON request_keys
             BEGIN SELECT RAISE(ABORT, 'database disk image is malformed'); END",
        )
        .expect("executes");
    let scene = open_at(folder);
    // Eight segments in memory, and what a merge had begun with.
    chatter.send(&scene, 8 * MERGE_MESSAGES).await;
    chatter.check(&scene).await;
    let mut refused = chatter.next();
    for _ in 0..2 * MERGE_MESSAGES {
        let outcome = scene.append(refused.clone()).await;
        if let Err(error) = outcome {
            assert!(matches!(error, StoreError::Damaged { sequence: None }), "{error:?}");
            let scene = open_at(scene.close().await);
            let page = scene.page(after(&refused.sender, 0)).await.expect("readable");
            assert!(page.range.last.get() > 8, "what was taken is there");
            return;
        }
        refused = chatter.next();
    }
    panic!("nothing was refused");
}

#[tokio::test]
async fn a_damaged_index_bounds_memory_over_restarts_too() {
    let scene = new_scene();
    let mut chatter = Chatter::new(&scene).await;
    let folder = scene.close().await;
    // A merge fails with its first row, so that none is known to have begun.
    connect(&folder)
        .batch_execute(
            "CREATE TRIGGER damage BEFORE INSERT ON mailbox_runs
             BEGIN SELECT RAISE(ABORT, 'database disk image is malformed'); END",
        )
        .expect("executes");
    let mut scene = open_at(folder);
    for _ in 0..3 {
        for _ in 0..10 * MERGE_MESSAGES {
            // Some are refused.
            let _ = scene.append(chatter.next()).await;
        }
        scene = open_at(scene.close().await);
    }
    let stored = count(&scene.folder, "count(*) FROM message_log");
    let segments = 9 * MERGE_MESSAGES.cast_signed() as i64;
    // A start tries to merge again, along with one commit.
    assert!((segments..=segments + 4).contains(&stored), "{stored} are stored");
}

#[tokio::test]
async fn a_database_from_before_the_indexes_were_deferred_is_read_back() {
    let scene = new_scene();
    let mut chatter = Chatter::new(&scene).await;
    chatter.send(&scene, 50).await;
    let folder = scene.close().await;
    // As the migration leaves it: the log, and no index of it.
    connect(&folder)
        .batch_execute(
            "DELETE FROM index_state; DELETE FROM pending_entries;
             DELETE FROM mailbox_runs; DELETE FROM request_keys;",
        )
        .expect("executes");
    let scene = open_at(folder);
    chatter.check(&scene).await;
    let merged = count(&scene.folder, "merged_through FROM index_state");
    assert!(merged >= 40, "{merged} of 50 are merged: memory is bounded");
    let repeated = keyed(draft(&chatter.users[0], &chatter.users[0], "other"), "7");
    let senders = chatter.users.clone();
    let mut found = 0;
    for sender in senders {
        let outcome = scene.append(Draft { sender, ..repeated.clone() }).await;
        found += usize::from(matches!(outcome, Err(StoreError::RequestIdReused(_))));
    }
    assert_eq!(found, 1, "the request ids are known again");
}

#[tokio::test]
async fn a_merge_that_was_cut_off_goes_on_with_the_same_messages_whatever_is_left_for_the_start() {
    for (merge_messages, damage) in [
        (64, "SELECT 1"),
        (64, "DELETE FROM pending_entries"),
        (64, "DELETE FROM pending_entries WHERE first_position > 30"),
        (150, "DELETE FROM pending_entries"),
    ] {
        let open = |folder, merge_messages| {
            Scene::open_with(folder, |options| options.merge_messages = merge_messages)
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let scene = open(folder, 100).expect("opens");
        let mut chatter = Chatter::new(&scene).await;
        chatter.send(&scene, 101).await;
        let folder = scene.close().await;
        assert_eq!(count(&folder, "merged_through FROM index_state"), 0);
        assert_eq!(count(&folder, "merging_through FROM index_state"), 100, "cut off");
        connect(&folder).batch_execute(damage).expect("executes");
        let scene = open(folder, merge_messages).expect("opens");
        chatter.check(&scene).await;
        chatter.send(&scene, 300).await;
        chatter.check(&scene).await;
        let scene = open(scene.close().await, merge_messages).expect("opens again");
        chatter.check(&scene).await;
        assert!(count(&scene.folder, "merged_through FROM index_state") >= 100, "{damage}");
    }
}

#[tokio::test]
async fn a_damaged_index_takes_no_more_memory_at_every_start() {
    let scene = new_scene();
    let mut chatter = Chatter::new(&scene).await;
    chatter.send(&scene, 8).await;
    let mut folder = scene.close().await;
    connect(&folder)
        .batch_execute(
            "CREATE TRIGGER damage BEFORE INSERT ON request_keys
             BEGIN SELECT RAISE(ABORT, 'database disk image is malformed'); END",
        )
        .expect("executes");
    let mut stored = Vec::new();
    for _ in 0..4 {
        let scene = open_at(folder);
        while scene.append(chatter.next()).await.is_ok() {}
        folder = scene.close().await;
        stored.push(count(&folder, "count(*) FROM message_log"));
    }
    assert!(stored[3] - stored[0] <= 3, "a commit at each start, until it is known: {stored:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_is_acknowledged_than_the_mailbox_holds() {
    let scene = Scene::new();
    let (alice, bob) = (scene.user("alice").await, scene.user("bob").await);
    let states = async {
        for _ in 0..4_000 {
            let state = scene.store.mailbox_state(bob.id).await.expect("readable");
            assert!(state.acknowledged_through <= state.range.last, "{state:?}");
        }
    };
    let writes = async {
        loop {
            let message = scene.append(draft(&alice, &bob, "text")).await.expect("stored");
            let through = message.receiver_sequence;
            let acknowledged = scene.store.acknowledge(bob.id, through).await;
            acknowledged.expect("stored").expect("it is there");
        }
    };
    tokio::select! {
        () = states => {}
        () = writes => {}
    }
}
