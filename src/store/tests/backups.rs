//! Copies of a store: whole, of one moment, and under a new epoch when they are put back.

use std::path::Path;

use super::*;

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("is there");
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_backup_of_a_store_under_load_restores_to_what_was_acknowledged_before_it() {
    let scene = Scene::open_with(tempfile::tempdir().expect("a folder"), |o| o.merge_messages = 8)
        .expect("opens");
    let (alice, bob) = (scene.user("alice").await, scene.user("bob").await);
    scene.send(&alice, &bob, &["before"; 20]).await;
    let backups = tempfile::tempdir().expect("a folder");
    let file = backups.path().join("one.db");
    let (data_dir, target) = (scene.folder.path().to_owned(), file.clone());
    let backing_up = tokio::task::spawn_blocking(move || back_up(&data_dir, &target));
    let sending = scene.send(&alice, &bob, &["meanwhile"; 200]);
    let (summary, ()) = tokio::join!(backing_up, sending);
    let summary = summary.expect("it does not panic").expect("copied");
    assert!((20..=220).contains(&summary.messages), "{summary:?}");
    assert_eq!(&summary.epoch, scene.store.epoch());
    assert_eq!(names_in(backups.path()), ["one.db"]);
    assert_eq!(check_file(&file).expect("can be read").findings, []);

    let again = back_up(scene.folder.path(), &file);
    assert!(matches!(again, Err(BackupError::Exists { .. })), "{again:?}");
    scene.close().await;

    let folder = tempfile::tempdir().expect("a folder");
    let restored = restore(&file, folder.path(), false).expect("restored");
    assert_eq!(restored.messages, summary.messages);
    assert_ne!(restored.epoch, summary.epoch);
    assert_eq!(check(folder.path()).expect("can be read").findings, []);
    let restored_again = restore(&file, folder.path(), false);
    assert!(matches!(restored_again, Err(BackupError::Exists { .. })), "{restored_again:?}");

    let scene = Scene::open(folder).expect("opens");
    assert_eq!(scene.store.epoch(), &restored.epoch);
    let last = i64::try_from(summary.messages).expect("few");
    assert!(scene.sequences(after(&bob, 0)).await.0.into_iter().eq(1..=last));
    scene.send(&alice, &bob, &["after"]).await;
    assert_eq!(scene.sequences(after(&bob, last)).await.0, [last + 1]);
}

#[tokio::test]
async fn a_backup_that_is_damaged_is_not_restored_unasked() {
    let scene = Scene::new();
    let alice = scene.user("alice").await;
    scene.send(&alice, &alice, &["1", "2", "3"]).await;
    let backups = tempfile::tempdir().expect("a folder");
    let file = backups.path().join("one.db");
    back_up(scene.folder.path(), &file).expect("copied");
    SqliteConnection::establish(file.to_str().expect("UTF-8"))
        .expect("opens")
        .batch_execute("UPDATE message_log SET body = x'41' WHERE position = 2")
        .expect("executes");
    let folder = backups.path().join("data");
    let refused = restore(&file, &folder, false).expect_err("damaged");
    assert!(refused.to_string().contains("position 2"), "{refused}");
    assert!(!folder.exists());
    assert_eq!(restore(&file, &folder, true).expect("restored").messages, 3);
}

#[tokio::test]
async fn a_backup_that_cannot_be_written_leaves_nothing() {
    let scene = Scene::new();
    let backups = tempfile::tempdir().expect("a folder");
    let nowhere = back_up(scene.folder.path(), &backups.path().join("absent/one.db"));
    assert!(matches!(nowhere, Err(BackupError::File { .. })), "{nowhere:?}");
    assert_eq!(names_in(backups.path()), [""; 0]);
    let absent = restore(&backups.path().join("absent.db"), &backups.path().join("data"), false);
    assert!(matches!(absent, Err(BackupError::File { .. })), "{absent:?}");
    let text = backups.path().join("text");
    std::fs::write(&text, "not a database, but long enough to be taken for one ".repeat(100))
        .expect("can be written");
    let refused = restore(&text, &backups.path().join("data"), false);
    assert!(matches!(refused, Err(BackupError::Open(_))), "{refused:?}");
    assert!(!backups.path().join("data").exists());
}
