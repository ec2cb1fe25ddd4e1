//! What is checked when a store is opened.

use super::*;

async fn refused(statements: &str) -> OpenError {
    let folder = conversation(statements).await;
    let Err(error) = Scene::open(folder) else { panic!("opened after {statements}") };
    error
}

async fn opens(statements: &str) -> Scene {
    Scene::open(conversation(statements).await).expect("opens")
}

/// Alice's three messages to bob and bob's note to himself, and then `statements`.
async fn conversation(statements: &str) -> TempDir {
    let scene = Scene::merging();
    let (alice, bob) = (scene.user("alice").await, scene.user("bob").await);
    scene.send(&alice, &bob, &["1", "2", "3"]).await;
    scene.send(&bob, &bob, &["4"]).await;
    let zoe = scene.user("zoe").await;
    scene.send(&zoe, &zoe, &["the only one that is not merged"]).await;
    let folder = scene.close().await;
    connect(&folder).batch_execute(statements).expect("executes");
    folder
}

#[tokio::test]
async fn a_mailbox_that_lost_its_end_is_refused() {
    let error = refused("DELETE FROM mailbox_runs WHERE owner_id = 1 AND first_sequence = 3").await;
    let OpenError::Damaged { damage, owner, sequence, position, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(damage, IndexDamage::EntryMissing);
    assert_eq!((owner, sequence, position), (UserId(1), 3, 3));
}

/// With a mark that is too far, what is in no table yet would be missed where nobody looks for it: in a
/// mailbox that ended before the newest rows. Its sequences would be given out a second time. With
/// another salt no request id would be found.
#[tokio::test]
async fn marks_and_a_salt_that_are_not_what_was_written_are_refused() {
    for change in
        ["merged_through = 2", "merging_through = 2", "request_salt = zeroblob(16)", "checksum = 1"]
    {
        let scene = Scene::new();
        let (zoe, alice) = (scene.user("zoe").await, scene.user("alice").await);
        scene.send(&zoe, &zoe, &["a note at position 1"]).await;
        for _ in 0..300 {
            scene.send(&alice, &alice, &["note"]).await;
        }
        scene.sql(&format!("UPDATE index_state SET {change}"));
        let opened = Scene::open(scene.close().await);
        let Err(error) = opened else {
            let sequences = opened.expect("it opened").sequences(after(&zoe, 0)).await;
            panic!("opened with {change}: zoe has {sequences:?}");
        };
        assert!(error.to_string().contains("index_state"), "{error}");
    }
}

#[tokio::test]
async fn a_state_of_the_version_before_gets_its_checksum() {
    let scene = opens("UPDATE index_state SET checksum = NULL").await;
    let folder = scene.close().await;
    let change = "UPDATE index_state SET merged_through = merged_through - 1";
    connect(&folder).batch_execute(change).expect("executes");
    let error = Scene::open(folder).err().expect("refused").to_string();
    assert!(error.contains("index_state"), "{error}");
}

#[tokio::test]
async fn an_entry_that_points_elsewhere_is_refused() {
    let error = refused(
        "UPDATE mailbox_runs SET entries = x'0301' WHERE owner_id = 2 AND first_sequence = 2",
    )
    .await;
    let text = error.to_string();
    assert!(text.contains("another message"), "{text}");
    assert!(text.contains("(user 2, sequence 2, log position 2)"), "{text}");
}

#[tokio::test]
async fn an_index_that_goes_on_beyond_the_log_is_refused() {
    for lost in [
        "INSERT INTO mailbox_runs VALUES (1, 4, x'0902')",
        "DELETE FROM message_log WHERE position = 4",
        "DELETE FROM message_log WHERE position = 5",
    ] {
        let error = refused(lost).await;
        assert!(
            matches!(error, OpenError::Damaged { damage: IndexDamage::EntryBeyondLog, .. }),
            "{error}"
        );
    }
}

#[tokio::test]
async fn damaged_messages_keep_no_store_from_opening() {
    for damage in [
        "UPDATE message_log SET body = x'00'",
        "UPDATE message_log SET content_type = CAST(x'ff' AS TEXT)",
        "UPDATE message_log SET sender_sequence = -7 WHERE position = 3",
        "UPDATE message_log SET receiver_id = 99 WHERE position = 4",
        "UPDATE users SET name = CAST(x'ff' AS TEXT)",
    ] {
        opens(damage).await.close().await;
    }
}

#[tokio::test]
async fn only_the_newest_rows_are_checked() {
    let scene = Scene::merging();
    let alice = scene.user("alice").await;
    for _ in 0..300 {
        scene.send(&alice, &alice, &["note"]).await;
    }
    let folder = scene.close().await;
    let delete = |folder: &TempDir, sequence| {
        let delete = format!("DELETE FROM mailbox_runs WHERE first_sequence = {sequence}");
        connect(folder).batch_execute(&delete).expect("executes");
    };
    delete(&folder, 44);
    let folder = Scene::open(folder).expect("it is the 257th").close().await;
    delete(&folder, 45);
    assert!(matches!(Scene::open(folder), Err(OpenError::Damaged { sequence: 45, .. })));
}

#[tokio::test]
async fn a_log_that_lacks_a_row_is_refused_with_its_position() {
    for (damage, expected) in [
        ("DELETE FROM pending_entries; DELETE FROM message_log WHERE position = 3", 3),
        (
            "DELETE FROM pending_entries;
             UPDATE message_log SET request_id = CAST(x'ff' AS TEXT) WHERE position = 2",
            2,
        ),
        (
            "DELETE FROM pending_entries; UPDATE index_state SET merged_through = 9, merging_through = 9, checksum = NULL",
            9,
        ),
    ] {
        let scene = Scene::new();
        let (alice, bob) = (scene.user("alice").await, scene.user("bob").await);
        scene.send(&alice, &bob, &["1", "2", "3", "4"]).await;
        let folder = scene.close().await;
        connect(&folder).batch_execute(damage).expect("executes");
        match Scene::open(folder) {
            Err(OpenError::LogDamaged { position, .. }) => {
                assert_eq!(position, expected, "{damage}");
            }
            other => panic!("{damage}: {:?}", other.err()),
        }
    }
}

#[test]
fn a_new_file_can_be_shortened_while_it_is_in_use() {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = diesel::sql_types::Integer)]
        auto_vacuum: i32,
    }
    let scene = Scene::new();
    let row = diesel::sql_query("PRAGMA auto_vacuum").get_result(&mut connect(&scene.folder));
    // 2 is INCREMENTAL (https://sqlite.org/pragma.html#pragma_auto_vacuum).
    assert_eq!(row.map(|Row { auto_vacuum }| auto_vacuum), Ok(2));
}
