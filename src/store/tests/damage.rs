//! Damage is met where it stands: it is never served, and spoils nothing else.

use super::*;

#[tokio::test]
async fn a_request_id_that_leads_to_another_message_is_damage() {
    let scene = Scene::merging();
    let (alice, bob) = (scene.user("alice").await, scene.user("bob").await);
    let first = keyed(draft(&alice, &bob, "same"), "one");
    let second = keyed(draft(&alice, &bob, "same"), "two");
    let bobs = keyed(draft(&bob, &bob, "same"), "one");
    let mut ids = Vec::new();
    for draft in [&first, &second, &bobs] {
        ids.push(scene.append(draft.clone()).await.expect("stored").id);
    }
    assert_eq!(scene.append(first.clone()).await.expect("repeated").id, ids[0]);

    scene.send(&bob, &bob, &["so that all of these are in the tables"]).await;
    scene.sql("CREATE TABLE first AS SELECT request_key FROM request_keys WHERE position = 1");
    let key = "(SELECT request_key FROM first)";
    for (position, what) in [(2, "another key"), (3, "another sender"), (9, "no row")] {
        scene.sql(&format!(
            "UPDATE request_keys SET position = {position} WHERE request_key = {key}"
        ));
        let outcome = scene.append(first.clone()).await;
        assert!(matches!(outcome, Err(StoreError::Damaged { sequence: None })), "{what}");
    }
    assert_eq!(scene.append(second).await.expect("repeated").id, ids[1]);
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_ends_a_page_before_it() {
    let scene = Scene::new();
    let (alice, bob) = (scene.user("alice").await, scene.user("bob").await);
    scene.send(&alice, &bob, &["1", "2", "3", "4"]).await;
    scene.sql("UPDATE message_log SET content_type = CAST(x'ff' AS TEXT) WHERE position = 3");
    assert_eq!(scene.sequences(after(&bob, 0)).await, (vec![1, 2], true));
    assert_eq!(scene.sequences(before(&bob, 5)).await, (vec![4], true));
    assert_eq!(scene.sequences(after(&bob, 3)).await, (vec![4], false));
    assert_eq!(scene.sequences(received(after(&bob, 0))).await, (vec![1, 2], true));
    assert_eq!(scene.sequences(with(&alice, after(&bob, 0))).await, (vec![1, 2], true));
    assert_eq!(scene.damage(after(&bob, 2)).await, Some(3));
    assert_eq!(scene.damage(before(&bob, 4)).await, Some(3));
    assert_eq!(scene.damage(received(after(&bob, 2))).await, Some(3));
}

#[tokio::test]
async fn a_name_that_cannot_be_read_is_damage_of_its_messages() {
    let scene = Scene::new();
    let (alice, bob) = (scene.user("alice").await, scene.user("bob").await);
    scene.send(&bob, &bob, &["1"]).await;
    scene.send(&alice, &bob, &["2"]).await;
    scene.sql("UPDATE users SET name = CAST(x'ff' AS TEXT) WHERE id = 1");
    let scene = scene.reopened().await;
    assert_eq!(scene.sequences(after(&bob, 0)).await, (vec![1], true));
    assert_eq!(scene.damage(after(&bob, 1)).await, Some(2));
}

#[tokio::test]
async fn a_name_that_leads_to_another_user_is_damage() {
    let scene = Scene::new();
    let (alice, bob) = (scene.user("alice").await, scene.user("bob").await);
    // Their keys, and with them the places that the index of names has for them.
    scene.sql("UPDATE users SET name_key = 'x' WHERE id = 1");
    scene.sql("UPDATE users SET name_key = 'alice' WHERE id = 2");
    let scene = scene.reopened().await;
    let damaged = |outcome: &Result<_, StoreError>| {
        matches!(outcome, Err(StoreError::Damaged { sequence: None }))
    };
    let found = scene.store.find_user(&alice.name).await.map(drop);
    assert!(damaged(&found), "{found:?}");
    let found = scene.store.profile(alice.name.clone()).await.map(drop);
    assert!(damaged(&found), "{found:?}");
    let mut draft = draft(&bob, &alice, "for alice only");
    draft.receiver = Receiver::Named(alice.name.clone());
    let sent = scene.append(draft).await.map(drop);
    assert!(damaged(&sent), "{sent:?}");
}

#[tokio::test]
async fn a_page_of_the_file_that_is_malformed_ends_a_page_of_messages() {
    let scene = Scene::new();
    let alice = scene.user("alice").await;
    let body = "b".repeat(1000);
    for _ in 0..60 {
        scene.send(&alice, &alice, &[&body]).await;
    }
    let folder = scene.close().await;
    break_page(&folder, "message_log", 10);
    let scene = Scene::open(folder).expect("opens");
    let (sequences, has_more) = scene.sequences(after(&alice, 0)).await;
    let end = sequences.last().copied().expect("some");
    assert!(has_more && (10..50).contains(&end), "{end}");
    assert_eq!(scene.damage(after(&alice, end)).await, Some(end + 1));
    assert!(scene.sequences(after(&alice, 50)).await.0.ends_with(&[60]));
}

#[tokio::test]
async fn a_write_that_meets_a_malformed_page_fails_alone() {
    let scene = Scene::merging();
    let (alice, zoe) = (scene.user("alice").await, scene.user("zoe").await);
    // A run each.
    for _ in 0..600 {
        scene.send(&zoe, &zoe, &["note"]).await;
    }
    scene.send(&alice, &alice, &["note"]).await;
    let folder = scene.close().await;
    // The last page is where the mailbox with the highest number ends.
    break_last_page(&folder, "mailbox_runs");
    let scene = Scene::open(folder).expect("opens");
    let health = scene.store.health();

    let mut pending = Vec::new();
    for number in 0..300 {
        let receiver = if number % 100 == 50 { &zoe } else { &alice };
        pending.push(scene.store.append(draft(&alice, receiver, "x")).await.expect("a place"));
    }
    let mut expected = 2;
    for (number, pending) in pending.into_iter().enumerate() {
        let outcome = pending.committed().await;
        if number % 100 == 50 {
            assert!(matches!(outcome, Err(StoreError::Damaged { sequence: None })), "{outcome:?}");
        } else {
            assert_eq!(outcome.expect("stored").sender_sequence.get(), expected, "in order");
            expected += 1;
        }
    }
    assert!(!health.has_changed().expect("open") && *health.borrow());
    assert_eq!(scene.resets.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_conversation_shows_what_the_log_lost() {
    let scene = Scene::new();
    let (alice, bob) = (scene.user("alice").await, scene.user("bob").await);
    scene.send(&alice, &bob, &["1", "2", "3"]).await;
    scene.sql("DELETE FROM message_log WHERE position = 2");
    for query in [with(&alice, after(&bob, 0)), received(with(&alice, after(&bob, 0)))] {
        assert_eq!(scene.sequences(query).await, (vec![1], true));
    }
    assert_eq!(scene.damage(received(with(&alice, after(&bob, 1)))).await, Some(2));
}

#[tokio::test]
async fn a_conversation_shows_no_other_messages() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let scene = Scene::open_with(folder, |options| options.merge_messages = 3).expect("opens");
    let (alice, bob) = (scene.user("alice").await, scene.user("bob").await);
    scene.send(&alice, &bob, &["1"]).await;
    scene.send(&bob, &bob, &["2"]).await;
    scene.send(&bob, &alice, &["3"]).await;
    scene.send(&alice, &alice, &["so that these are in the tables"]).await;
    let bobs_run =
        |bytes: &str| format!("UPDATE mailbox_runs SET entries = x'{bytes}' WHERE owner_id = 2");
    // For each entry the step from the position before, received or not, and the peer.
    scene.sql(&bobs_run("030103020201"));
    assert_eq!(scene.sequences(with(&alice, after(&bob, 0))).await, (vec![1, 3], false));
    scene.sql(&bobs_run("030103010201"));
    assert_eq!(scene.sequences(with(&alice, after(&bob, 0))).await, (vec![1], true));
    assert_eq!(scene.damage(with(&alice, after(&bob, 1))).await, Some(2));
    scene.sql(&bobs_run("030103020301"));
    let query = received(with(&alice, after(&bob, 2)));
    assert_eq!(scene.damage(query).await, Some(3), "bob sent it");
}

#[tokio::test]
async fn an_entry_that_the_index_lost_is_missed_by_every_kind_of_page() {
    let scene = Scene::merging();
    let (alice, bob) = (scene.user("alice").await, scene.user("bob").await);
    scene.send(&alice, &bob, &["1", "2", "3", "4"]).await;
    for lost in [
        "DELETE FROM mailbox_runs WHERE owner_id = 2 AND first_sequence = 2",
        "INSERT INTO mailbox_runs VALUES (2, 2, x'ff')",
    ] {
        scene.sql(lost);
        for kind in [|query| query, received, |query| PageQuery { peer: Some(UserId(1)), ..query }]
        {
            assert_eq!(scene.sequences(kind(after(&bob, 0))).await, (vec![1], true));
            assert_eq!(scene.sequences(kind(before(&bob, 5))).await, (vec![3, 4], true));
            assert_eq!(scene.damage(kind(after(&bob, 1))).await, Some(2));
            assert_eq!(scene.damage(kind(before(&bob, 3))).await, Some(2));
            assert_eq!(scene.sequences(kind(after(&bob, 2))).await, (vec![3, 4], false));
        }
    }
}

#[tokio::test]
async fn a_token_that_leads_to_another_user_is_damage() {
    let scene = Scene::new();
    let alice = scene.user("alice").await;
    let token = Token::mint().hash();
    let (name, address) = (Username::parse("bob"), PeerAddress::parse("192.0.2.7"));
    let registering =
        scene.store.register(name.expect("a name"), address.expect("an address"), token, None);
    let bob = registering.await.expect("registers").profile.user;
    let owner =
        async || scene.store.find_by_token(token).await.expect("readable").map(|it| it.user.id);
    assert_eq!(owner().await, Some(bob.id));
    scene.sql(&format!("UPDATE tokens SET user_id = {}", alice.id.0));
    let found = scene.store.find_by_token(token).await;
    assert!(matches!(found, Err(StoreError::Damaged { sequence: None })), "{found:?}");
    // As a version wrote it that knew no checksum.
    scene.sql("UPDATE tokens SET checksum = NULL");
    assert_eq!(owner().await, Some(alice.id));
}

#[tokio::test]
async fn damage_of_what_a_start_reads_keeps_no_message_from_being_stored() {
    let scene = Scene::new();
    let (alice, bob) = (scene.user("alice").await, scene.user("bob").await);
    scene.send(&alice, &bob, &["1"]).await;
    let folder = scene.close().await;
    for verb in ["INSERT", "DELETE"] {
        let trigger = format!(
            "CREATE TRIGGER damage_of_{verb} BEFORE {verb} ON pending_entries
             BEGIN SELECT RAISE(ABORT, 'database disk image is malformed'); END"
        );
        connect(&folder).batch_execute(&trigger).expect("executes");
    }
    let merging = |options: &mut Options| options.merge_messages = 3;
    let scene = Scene::open_with(folder, merging).expect("opens");
    scene.send(&alice, &bob, &["2", "3", "4", "5", "6", "7", "8"]).await;
    assert_eq!(scene.sequences(after(&bob, 0)).await, ((1..=8).collect(), false));
    let scene = Scene::open_with(scene.close().await, merging).expect("opens again");
    scene.send(&alice, &bob, &["9"]).await;
    assert_eq!(scene.sequences(after(&bob, 0)).await, ((1..=9).collect(), false));
}

/// Makes the page malformed that is the child `number` of a table's root page.
fn break_page(folder: &TempDir, table: &str, number: usize) {
    break_child(folder, table, |root| {
        // The cells' places follow the header of 12 bytes; a cell begins with its child's number.
        usize::from(u16::from_be_bytes([root[12 + 2 * number], root[13 + 2 * number]]))
    });
}

/// Makes the last page below a table's root page malformed.
pub(super) fn break_last_page(folder: &TempDir, table: &str) {
    break_child(folder, table, |_| 8);
}

/// `place_of_child` says where in the root page the child's number stands.
/// (<https://sqlite.org/fileformat2.html#b_tree_pages>)
fn break_child(folder: &TempDir, table: &str, place_of_child: impl Fn(&[u8]) -> usize) {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        rootpage: i64,
    }
    const PAGE_BYTES: usize = 4096;
    let mut connection = connect(folder);
    connection.batch_execute("PRAGMA wal_checkpoint(TRUNCATE)").expect("a checkpoint");
    let query = format!("SELECT rootpage FROM sqlite_schema WHERE name = '{table}'");
    let row: Row = diesel::sql_query(query).get_result(&mut connection).expect("the table");
    drop(connection);

    let mut bytes = std::fs::read(database(folder)).expect("can be read");
    let at = (usize::try_from(row.rootpage).expect("positive") - 1) * PAGE_BYTES;
    let root = &bytes[at..at + PAGE_BYTES];
    assert!(matches!(root[0], 0x02 | 0x05), "a root page with children");
    let place = place_of_child(root);
    let child = u32::from_be_bytes(root[place..place + 4].try_into().expect("4 bytes"));
    let at = (child as usize - 1) * PAGE_BYTES;
    bytes[at..at + PAGE_BYTES].fill(0xaa);
    std::fs::write(database(folder), bytes).expect("can be written");
}
