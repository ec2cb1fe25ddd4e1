//! The check: content with what the store writes, and exact about what is wrong.

use super::*;

/// Alice's three messages to bob with request ids, bob's note to himself, and one that is not merged.
async fn conversation() -> TempDir {
    let scene = Scene::merging();
    let (alice, bob) = (scene.user("alice").await, scene.user("bob").await);
    for text in ["1", "2", "3"] {
        let mut draft = draft(&alice, &bob, text);
        draft.request_id = RequestId::parse(format!("id-{text}")).expect("valid");
        scene.append(draft).await.expect("stored");
    }
    scene.send(&bob, &bob, &["4"]).await;
    scene.store.acknowledge(bob.id, Sequence::FIRST).await.expect("stored").expect("is there");
    let limits =
        UserLimits { send_rate: Some("9/s".parse().expect("a rate")), ..Default::default() };
    scene.store.set_user_limits(bob.clone(), limits, OPERATOR, || {}).await.expect("stored");
    let zoe = scene.user("zoe").await;
    scene.send(&zoe, &zoe, &["the only one that is not merged"]).await;
    scene.close().await
}

fn findings(folder: &TempDir) -> Vec<String> {
    let report = check(folder.path()).expect("can be read");
    assert_eq!(report.findings_total, report.findings.len() as u64);
    report.findings.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn what_the_store_wrote_is_whole_and_stays_as_it_is() {
    let folder = conversation().await;
    let files = || {
        let mut files: Vec<_> = std::fs::read_dir(folder.path())
            .expect("is there")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| !path.to_string_lossy().ends_with(".lock"))
            .map(|path| (path.clone(), std::fs::read(path).expect("can be read")))
            .collect();
        files.sort();
        files
    };
    let before = files();
    let report = check(folder.path()).expect("can be read");
    assert_eq!(report.findings, []);
    assert_eq!((report.users, report.messages, report.entries), (3, 5, 8));
    let after = files();
    assert_eq!(
        before.iter().filter(|(path, _)| path.extension().is_some_and(|it| it == "db")).count(),
        1
    );
    for (path, bytes) in &before {
        let kept = after.iter().find(|(it, _)| it == path).map(|(_, bytes)| bytes);
        assert!(
            kept == Some(bytes) || path.to_string_lossy().ends_with("-shm"),
            "{path:?} changed"
        );
    }
}

#[tokio::test]
async fn it_says_exactly_what_is_wrong() {
    for (damage, expected) in [
        (
            "UPDATE users SET name_key = 'bo' WHERE id = 2",
            "user 2: the name and the one it is found by differ",
        ),
        ("UPDATE users SET name = 'b b' WHERE id = 2", "user 2: the name is none"),
        ("UPDATE users SET ip_address = 'here' WHERE id = 2", "user 2: the address is none"),
        (
            "UPDATE users SET acknowledged_through = 9 WHERE id = 2",
            "user 2 acknowledged 9 of a mailbox that ends at 4",
        ),
        (
            "UPDATE tokens SET user_id = 1 WHERE user_id = 2",
            "a token of user 1: its checksum does not hold",
        ),
        (
            "UPDATE user_limits SET send_rate = '8/s'",
            "user 2: the limits that are set for them are not what was written",
        ),
        (
            "UPDATE user_limits SET subscriptions = 9",
            "user 2: the limits that are set for them are not what was written",
        ),
        (
            "UPDATE user_limits SET user_id = 1",
            "user 1: the limits that are set for them are not what was written",
        ),
        (
            "UPDATE message_log SET body = x'41' WHERE position = 2",
            "the log's row at position 2 is not what was written",
        ),
        (
            "DELETE FROM message_log WHERE position IN (2, 3)",
            "the log has no rows from position 2 to 3",
        ),
        ("DELETE FROM message_log WHERE position = 2", "the log has no row at position 2"),
        (
            "DELETE FROM mailbox_runs WHERE owner_id = 1 AND first_sequence = 2",
            "the index of the mailbox of user 1 differs from the log at sequence 2",
        ),
        (
            "DELETE FROM mailbox_runs WHERE owner_id = 1 AND first_sequence = 3",
            "the index of the mailbox of user 1 differs from the log",
        ),
        (
            "UPDATE mailbox_runs SET entries = x'0901' WHERE owner_id = 1 AND first_sequence = 2",
            "the index of the mailbox of user 1 differs from the log at sequence 2",
        ),
        (
            "UPDATE mailbox_runs SET entries = x'ff' WHERE owner_id = 1 AND first_sequence = 2",
            "the index of the mailbox of user 1 differs from the log at sequence 2",
        ),
        (
            "DELETE FROM request_keys WHERE position = 2",
            "the index of the request ids differs from the log: 2 entries for 3",
        ),
        (
            "UPDATE request_keys SET position = 1 WHERE position = 2",
            "the index of the request ids differs from the log: 3 entries for 3",
        ),
        (
            "UPDATE index_state SET merged_through = 9",
            "the state of the indexes: it is not what was written",
        ),
        (
            "DELETE FROM pending_entries WHERE first_position = 5",
            "what a start reads back differs from the log from position 5 on; a start makes it again",
        ),
    ] {
        let folder = conversation().await;
        connect(&folder)
            .batch_execute(&format!("PRAGMA foreign_keys = OFF; {damage}"))
            .expect("executes");
        let found = findings(&folder);
        assert!(found.iter().any(|line| line == expected), "{damage}: {found:#?}");
    }
}

#[tokio::test]
async fn a_record_that_is_whole_and_says_what_is_not_so_is_found() {
    type Change = fn(&mut SqliteConnection) -> QueryResult<()>;
    let wrong_size: Change = |connection| {
        let size = mailbox_sizes::Size { from: 1, through: 2, bytes: 3 };
        mailbox_sizes::put(connection, UserId(2), size)
    };
    let right_size: Change = |connection| {
        let size = mailbox_sizes::Size { from: 1, through: 2, bytes: 2 };
        mailbox_sizes::put(connection, UserId(2), size)
    };
    let removed_at_the_end: Change = |connection| {
        connection.batch_execute("DELETE FROM message_log WHERE position = 5")?;
        removed::add(connection, (5, 5))
    };
    let overlapping: Change = |connection| {
        removed::add(connection, (1, 1))?;
        connection.batch_execute(
            "CREATE TEMP TABLE aside AS SELECT * FROM removed_positions; DELETE FROM removed_positions",
        )?;
        removed::add(connection, (0, 2))?;
        connection.batch_execute("INSERT INTO removed_positions SELECT * FROM aside")
    };
    let changes: [(Change, &[&str]); 4] = [
        (wrong_size, &["the mailbox of user 2: its size is not that of its messages"]),
        (right_size, &[]),
        (removed_at_the_end, &["the removed position 5: the log ends before it"]),
        (
            overlapping,
            &["the removed position 2: the removed positions after it overlap, or are not taken \
               together"],
        ),
    ];
    for (change, expected) in changes {
        let folder = conversation().await;
        change(&mut connect(&folder)).expect("executes");
        let found = findings(&folder);
        for line in expected {
            assert!(found.iter().any(|it| it == line), "{line}: {found:#?}");
        }
        assert!(!expected.is_empty() || found.is_empty(), "{found:#?}");
    }
}

#[tokio::test]
async fn what_a_start_reads_back_is_held_against_the_log() {
    let folder = conversation().await;
    let scene = Scene::merging();
    let (alice, bob) = (scene.user("alice").await, scene.user("bob").await);
    scene.send(&alice, &bob, &["1", "2", "3", "4", "another fifth"]).await;
    let other = scene.close().await;
    let other = database(&other).to_str().expect("UTF-8").to_owned();
    // Whole, and of another row than the log's fifth.
    connect(&folder)
        .batch_execute(&format!(
            "ATTACH '{other}' AS other;
             UPDATE pending_entries SET (entries, checksum) =
                 (SELECT entries, checksum FROM other.pending_entries WHERE first_position = 5)
             WHERE first_position = 5"
        ))
        .expect("executes");
    let expected =
        "what a start reads back differs from the log from position 5 on; a start makes it again";
    let found = findings(&folder);
    assert!(found.iter().any(|line| line == expected), "{found:#?}");
}

#[tokio::test]
async fn a_user_who_was_deleted_is_no_finding() {
    let scene = Scene::open(conversation().await).expect("opens");
    let name = Username::parse("bob").expect("a name");
    scene.store.delete_user(Subject::Named(name), OPERATOR).await.expect("deleted");
    let folder = scene.close().await;
    assert_eq!(findings(&folder), [""; 0]);
    connect(&folder)
        .batch_execute("UPDATE users SET ip_address = '192.0.2.7' WHERE id = 2")
        .expect("executes");
    assert_eq!(findings(&folder), ["user 2: the address of one who is gone"]);
}

#[tokio::test]
async fn a_user_who_is_gone_and_a_mailbox_with_a_gap_are_found() {
    let folder = conversation().await;
    connect(&folder)
        .batch_execute("PRAGMA foreign_keys = OFF; DELETE FROM users WHERE id = 1")
        .expect("executes");
    let found = findings(&folder);
    for expected in [
        "a token of user 1: there is no such user",
        "the log's row at position 1 names user 1, who is not there",
    ] {
        assert!(found.iter().any(|line| line == expected), "{expected}: {found:#?}");
    }

    let folder = conversation().await;
    connect(&folder).batch_execute("DELETE FROM message_log WHERE position = 2").expect("executes");
    let found = findings(&folder);
    let expected = "the mailbox of user 2 goes on with 3 instead of 2 (log position 3)";
    assert!(found.iter().any(|line| line == expected), "{found:#?}");
}

#[tokio::test]
async fn a_page_that_sqlite_cannot_read_is_found_and_the_rest_is_examined() {
    let folder = conversation().await;
    let root: i64 = {
        #[derive(QueryableByName)]
        struct Root {
            #[diesel(sql_type = diesel::sql_types::BigInt)]
            rootpage: i64,
        }
        diesel::sql_query("SELECT rootpage FROM sqlite_schema WHERE name = 'request_keys'")
            .get_result::<Root>(&mut connect(&folder))
            .expect("is there")
            .rootpage
    };
    let path = folder.path().join("peerpost.db");
    let mut bytes = std::fs::read(&path).expect("can be read");
    let page = usize::try_from(root - 1).expect("positive") * 4096;
    bytes[page..page + 8].fill(0xff);
    std::fs::write(&path, bytes).expect("can be written");
    let report = check(folder.path()).expect("can be read");
    assert_eq!(report.messages, 5, "the log is examined all the same");
    assert!(
        report.findings.iter().any(|finding| matches!(finding, Finding::Sqlite(_))),
        "{:#?}",
        report.findings
    );
    assert!(
        report
            .findings
            .iter()
            .any(|it| matches!(it, Finding::Unreadable { part: "the indexes", .. })),
        "{:#?}",
        report.findings
    );
}

#[tokio::test]
async fn a_store_is_checked_while_it_runs() {
    let scene = Scene::open_with(tempfile::tempdir().expect("a folder"), |o| o.merge_messages = 8)
        .expect("opens");
    let (alice, bob) = (scene.user("alice").await, scene.user("bob").await);
    for round in 1..=40 {
        scene.send(&alice, &bob, &["1", "2", "3"]).await;
        let report = check(scene.folder.path()).expect("can be read");
        assert_eq!((report.findings, report.messages), (Vec::new(), 3 * round));
    }
    scene.close().await;
}

#[test]
fn a_folder_without_a_database_is_refused() {
    let empty = tempfile::tempdir().expect("a temporary folder");
    let error = check(empty.path()).expect_err("nothing there");
    assert!(error.to_string().contains("peerpost.db"), "{error}");
}
