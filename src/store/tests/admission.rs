//! What happens to those who find the write queue, or the connections that read, full.

use super::*;

const WAIT: Duration = Duration::from_millis(50);

/// A store whose queue holds three small writes, which callers wait for for so long, and whose writer
/// is held up for as long as the connection lives that is returned with it.
async fn stalled_scene(admission_wait: Duration) -> (Scene, User, SqliteConnection) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let scene = Scene::open_with(folder, |options| {
        options.write_queue_bytes = 4 * 1024 - 1;
        options.admission_wait = admission_wait;
    });
    let scene = scene.expect("opens");
    let alice = scene.user("alice").await;
    let mut lock = connect(&scene.folder);
    lock.batch_execute("BEGIN IMMEDIATE").expect("nobody else writes");
    (scene, alice, lock)
}

#[tokio::test]
async fn a_full_write_queue_refuses_and_keeps_what_it_took() {
    let (scene, alice, lock) = stalled_scene(WAIT).await;
    let mut accepted = Vec::new();
    for text in ["1", "2", "3"] {
        accepted.push(scene.store.append(draft(&alice, &alice, text)).await.expect("a place"));
    }
    // The fourth has waited in vain when it is refused; a place is held until its write's answer.
    let refused = scene.store.append(draft(&alice, &alice, "4")).await.err();
    assert!(
        matches!(refused, Some(StoreError::WriteQueueFull { limit_bytes: 4095 })),
        "{refused:?}"
    );
    let refused = scene.store.acknowledge(alice.id, Sequence::FIRST).await.err();
    assert!(matches!(refused, Some(StoreError::WriteQueueFull { .. })), "{refused:?}");
    scene.page(after(&alice, 0)).await.expect("reads go on");

    drop(lock);
    for (sequence, accepted) in (1..).zip(accepted) {
        let message = accepted.committed().await.expect("what was accepted is stored");
        assert_eq!(message.sender_sequence.get(), sequence);
    }
    let again = scene.append(draft(&alice, &alice, "4")).await.expect("there are places again");
    assert_eq!(again.sender_sequence.get(), 4, "nothing was stored of what was refused");
}

#[tokio::test]
async fn a_body_takes_its_size_in_the_queue() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let scene = Scene::open_with(folder, |options| {
        options.write_queue_bytes = 32 * 1024;
        options.admission_wait = WAIT;
    });
    let scene = scene.expect("opens");
    let alice = scene.user("alice").await;
    let mut lock = connect(&scene.folder);
    lock.batch_execute("BEGIN IMMEDIATE").expect("nobody else writes");
    let large = || draft(&alice, &alice, &"m".repeat(20 * 1024));
    let accepted = scene.store.append(large()).await.expect("a place");
    let refused = scene.store.append(large()).await.err();
    assert!(matches!(refused, Some(StoreError::WriteQueueFull { .. })), "{refused:?}");
    let small = scene.store.append(draft(&alice, &alice, "1")).await.expect("there is room for it");
    drop(lock);
    accepted.committed().await.expect("stored");
    small.committed().await.expect("stored");
}

#[tokio::test]
async fn one_that_waits_for_a_place_is_admitted_when_there_is_one() {
    let (scene, alice, lock) = stalled_scene(Duration::from_hours(1)).await;
    let mut accepted = Vec::new();
    for text in ["1", "2", "3"] {
        accepted.push(scene.store.append(draft(&alice, &alice, text)).await.expect("a place"));
    }
    let fourth = scene.append(draft(&alice, &alice, "4"));
    tokio::pin!(fourth);
    assert!(tokio::time::timeout(WAIT, &mut fourth).await.is_err(), "it waits");
    drop(lock);
    assert_eq!(fourth.await.expect("stored").sender_sequence.get(), 4, "in its turn");
    for accepted in accepted {
        accepted.committed().await.expect("stored");
    }
}

#[tokio::test]
async fn readers_that_are_all_busy_refuse() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let scene = Scene::open_with(folder, |options| {
        options.readers = 2;
        options.admission_wait = WAIT;
    });
    let scene = scene.expect("opens");
    let alice = scene.user("alice").await;
    let places = scene.store.0.readers.occupy().await;
    for refused in [
        scene.page(after(&alice, 0)).await.err(),
        scene.store.mailbox_state(alice.id).await.err(),
        scene.store.profile(alice.name.clone()).await.err(),
    ] {
        assert!(matches!(refused, Some(StoreError::ReadQueueFull { readers: 2 })), "{refused:?}");
    }
    scene.send(&alice, &alice, &["writes go on"]).await;

    let in_turn = scene.store.page_in_turn(after(&alice, 0));
    tokio::pin!(in_turn);
    assert!(tokio::time::timeout(4 * WAIT, &mut in_turn).await.is_err(), "a follower waits on");
    drop(places);
    assert_eq!(in_turn.await.expect("its turn came").messages.len(), 1);
    assert_eq!(scene.sequences(after(&alice, 0)).await, (vec![1], false));
}
