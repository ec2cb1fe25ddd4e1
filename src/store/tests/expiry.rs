//! Bodies that go while their entries stay, and mailboxes that have bounds.

use std::num::NonZero;

use super::merging::{MERGE_MESSAGES, count};
use super::retention::{
    HOUR, at_most, findings, new_scene, newest, open_at, range, retain, retain_after,
};
use super::*;
use crate::domain::Expiry;

fn expiring(draft: Draft, ttl: Duration) -> Draft {
    Draft { expiry: Some(Expiry::After(ttl)), ..draft }
}

#[tokio::test]
async fn an_expired_message_keeps_its_place_and_loses_its_body() {
    let scene = new_scene();
    let (alice, bob) = (scene.user("alice").await, scene.user("bob").await);
    scene.send(&alice, &bob, &["stays"]).await;
    let short_lived = keyed(expiring(draft(&alice, &bob, "goes"), HOUR), "id");
    let sent = scene.append(short_lived.clone()).await.expect("stored");
    scene.send(&alice, &bob, &["stays too"]).await;
    retain(&scene, Retention::default()).await;
    assert_eq!(count(&scene.folder, "count(*) FROM message_log WHERE length(body) = 0"), 0);
    assert_eq!(findings(&scene), []);
    retain_after(&scene, Retention::default(), 2 * HOUR).await;
    assert_eq!(count(&scene.folder, "position FROM message_log WHERE length(body) = 0"), 2);
    assert_eq!(count(&scene.folder, "count(*) FROM expirations"), 0);
    assert_eq!(findings(&scene), []);

    let scene = open_at(scene.close().await);
    let page = scene.page(after(&bob, 0)).await.expect("a page");
    let expired: Vec<_> = page.messages.iter().map(Message::is_expired).collect();
    assert_eq!(expired, [false, true, false], "whatever the clock says");
    let gone = &page.messages[1];
    assert_eq!((gone.id, gone.send_time), (sent.id, sent.send_time));
    assert!(gone.content.body.as_bytes().is_empty());
    // It is still known by its request id, and told from another.
    assert_eq!(scene.append(short_lived.clone()).await.expect("the first").id, sent.id);
    for other in [
        draft(&alice, &bob, "goes"),
        expiring(draft(&alice, &bob, "gone"), HOUR),
        expiring(draft(&alice, &bob, "goes"), 2 * HOUR),
        expiring(draft(&alice, &alice, "goes"), HOUR),
    ] {
        let refused = scene.append(keyed(other, "id")).await.err();
        assert!(matches!(refused, Some(StoreError::RequestIdReused(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn a_message_that_would_be_expired_is_refused_unless_it_is_a_repeated_one() {
    let scene = new_scene();
    let alice = scene.user("alice").await;
    let at = |time| Draft { expiry: Some(Expiry::At(time)), ..draft(&alice, &alice, "text") };
    let past = Timestamp::now();
    let refused = scene.append(at(past)).await.err();
    assert!(matches!(refused, Some(StoreError::Expired)), "{refused:?}");
    assert_eq!(range(&scene, &alice).await, (1, 0));
    let soon = Timestamp::now().after(Duration::from_millis(300));
    let sent = scene.append(keyed(at(soon), "id")).await.expect("stored");
    while Timestamp::now() <= soon {}
    assert!(sent.is_expired());
    let again = scene.append(keyed(at(soon), "id")).await.expect("the first");
    assert_eq!(again.id, sent.id);
    retain(&scene, Retention::default()).await;
    let again = scene.append(keyed(at(soon), "id")).await.expect("the first");
    assert_eq!((again.id, again.content.body.as_bytes().len()), (sent.id, 0));
}

#[tokio::test]
async fn what_expires_is_not_forgotten_by_damage_nor_damage_by_what_expires() {
    let scene = new_scene();
    let bob = scene.user("bob").await;
    for text in ["1", "2", "3", "4", "5", "6", "7", "8", "9"] {
        scene.append(expiring(draft(&bob, &bob, text), HOUR)).await.expect("stored");
    }
    scene.sql("UPDATE message_log SET body = x'41' WHERE position = 8");
    // Their bodies go with them.
    retain(&scene, newest(5)).await;
    retain_after(&scene, Retention::default(), 2 * HOUR).await;
    assert_eq!(count(&scene.folder, "count(*) FROM expirations"), 0);
    assert_eq!(count(&scene.folder, "position FROM message_log WHERE length(body) > 0"), 8);
    assert!(findings(&scene).contains(&Finding::Row { position: 8 }));
    assert_eq!(scene.damage(after(&bob, 7)).await, Some(8));

    scene.append(expiring(draft(&bob, &bob, "10"), HOUR)).await.expect("stored");
    scene.sql("DELETE FROM expirations");
    let expected = Finding::Expirations { in_log: 1, noted: 0 };
    assert!(findings(&scene).contains(&expected));
}

fn bounded(messages_max: u64, bytes_max: u64) -> Scene {
    let folder = tempfile::tempdir().expect("a temporary folder");
    open_bounded(folder, messages_max, bytes_max)
}

fn open_bounded(folder: TempDir, messages_max: u64, bytes_max: u64) -> Scene {
    let adjust = |options: &mut Options| {
        options.merge_messages = MERGE_MESSAGES;
        options.request_keys_delay = HOUR;
        options.retention.interval = HOUR;
        options.mailbox_limits = MailboxLimits {
            messages_max: NonZero::new(messages_max),
            bytes_max: NonZero::new(bytes_max),
        };
    };
    Scene::open_with(folder, adjust).expect("opens")
}

#[track_caller]
fn assert_full(outcome: Result<Arc<Message>, StoreError>, whose: &User, which: MailboxLimit) {
    match outcome {
        Err(StoreError::MailboxFull { owner, limit, .. }) => {
            assert_eq!((owner.as_str(), limit), (whose.name.as_str(), which));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_full_mailbox_refuses_the_sender_until_it_has_room() {
    let scene = bounded(3, 0);
    let (alice, bob) = (scene.user("alice").await, scene.user("bob").await);
    let carol = scene.user("carol").await;
    // All in one group: each is decided in order.
    let mut pending = Vec::new();
    for text in ["1", "2", "3", "4"] {
        let draft = keyed(draft(&carol, &bob, text), text);
        pending.push(scene.store.append(draft).await.expect("a place"));
    }
    let mut outcomes = Vec::new();
    for pending in pending {
        outcomes.push(pending.committed().await);
    }
    assert_full(outcomes.pop().expect("the fourth"), &bob, MailboxLimit::Messages);
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_full(scene.append(draft(&alice, &bob, "5")).await, &bob, MailboxLimit::Messages);
    assert_full(scene.append(draft(&carol, &alice, "5")).await, &carol, MailboxLimit::Messages);
    assert_full(scene.append(draft(&bob, &bob, "5")).await, &bob, MailboxLimit::Messages);
    assert_eq!(range(&scene, &alice).await, (1, 0), "nothing was stored");
    let again = scene.append(keyed(draft(&carol, &bob, "3"), "3")).await.expect("the first");
    assert_eq!(again.receiver_sequence.get(), 3, "a repeated send takes no room");
    scene.append(draft(&alice, &alice, "others are not affected")).await.expect("stored");

    retain(&scene, newest(2)).await;
    scene.append(draft(&alice, &bob, "6")).await.expect("there is room");
    assert_full(scene.append(draft(&alice, &bob, "7")).await, &bob, MailboxLimit::Messages);
    assert_eq!(range(&scene, &bob).await, (2, 4));
    assert_eq!(findings(&scene), []);
}

#[tokio::test]
async fn the_bytes_of_a_mailbox_are_counted_over_everything_that_happens_to_it() {
    let scene = bounded(0, 30);
    let (alice, bob) = (scene.user("alice").await, scene.user("bob").await);
    let ten = "0123456789";
    let full = |scene: Scene| async {
        let text = |bytes: usize| ten.repeat(2)[..bytes].to_owned();
        assert_full(scene.append(draft(&bob, &bob, &text(6))).await, &bob, MailboxLimit::Bytes);
        assert_eq!(findings(&scene), []);
        scene
    };
    scene.send(&alice, &bob, &[ten, ten]).await;
    scene.append(expiring(draft(&bob, &bob, "01234"), HOUR)).await.expect("stored");
    let scene = full(scene).await;
    // It is the same after a restart, and when it was not counted for a while.
    let scene = open_bounded(scene.close().await, 0, 30);
    let scene = full(scene).await;
    let scene = open_at(scene.close().await);
    scene.send(&bob, &bob, &["01234"]).await;
    let scene = open_bounded(scene.close().await, 0, 35);
    let scene = full(scene).await;
    // A body that expired takes no room, nor does what is removed.
    retain_after(&scene, Retention::default(), 2 * HOUR).await;
    scene.append(draft(&bob, &bob, "01234567")).await.expect("there is room");
    let scene = full(scene).await;
    retain(&scene, newest(4)).await;
    scene.append(draft(&bob, &bob, "01234567")).await.expect("there is room");
    let scene = full(scene).await;
    retain_after(&scene, at_most(HOUR), 3 * HOUR).await;
    scene.append(draft(&bob, &bob, ten)).await.expect("there is room");
    assert_eq!(findings(&scene), []);
    scene.sql("UPDATE mailbox_sizes SET bytes = 0 WHERE owner_id = 2");
    let problem = "its size is not what was written";
    assert_eq!(findings(&scene), [Finding::Mailbox { owner: 2, problem }]);
    let scene = open_bounded(scene.close().await, 0, 19);
    assert_full(scene.append(draft(&bob, &bob, ten)).await, &bob, MailboxLimit::Bytes);
}
