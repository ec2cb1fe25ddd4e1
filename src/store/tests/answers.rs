//! Answers that are given on the event loop of those who wait for them.

use std::future::Future as _;
use std::task::{Context, Waker};

use super::*;

#[tokio::test]
async fn a_desk_that_is_closed_while_it_gives_answers_gives_all_of_them() {
    const MESSAGES: i64 = 100;
    let scene = Scene::new();
    let (alice, bob) = (scene.user("alice").await, scene.user("bob").await);
    let mut desk = Box::pin(give_answers_on_this_thread());
    let mut context = Context::from_waker(Waker::noop());
    assert!(desk.as_mut().poll(&mut context).is_pending(), "it opens");
    let mut pending = Vec::new();
    for _ in 0..MESSAGES {
        pending.push(scene.store.append(draft(&alice, &bob, "text")).await.expect("a place"));
    }
    // The writer puts down a group's answers before it takes the next: one more is a sign.
    tokio::task::spawn_blocking({
        let (store, bob) = (scene.store.clone(), bob.clone());
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let draft = draft(&bob, &bob, "a sign");
            let sign = async { store.append(draft).await.expect("a place").committed().await };
            runtime.expect("a runtime").block_on(sign).expect("stored")
        }
    })
    .await
    .expect("no panic");
    assert!(desk.as_mut().poll(&mut context).is_pending(), "some are given");
    let given = pending.iter_mut().filter_map(PendingMessage::if_committed).count();
    assert!(given > 0 && given < pending.len(), "{given} at a time");
    drop(desk);
    for mut pending in pending.into_iter().skip(given) {
        assert!(matches!(pending.if_committed(), Some(Ok(_))));
    }
    scene.close().await;
}

#[tokio::test]
async fn what_was_accepted_is_kept_when_its_caller_has_gone() {
    let scene = Scene::new();
    let (alice, bob) = (scene.user("alice").await, scene.user("bob").await);
    for number in 0..20 {
        let accepted = scene.store.append(draft(&alice, &bob, &number.to_string())).await;
        drop(accepted.expect("a place"));
    }
    scene.send(&alice, &bob, &["the last one"]).await;
    assert_eq!(scene.sequences(after(&bob, 0)).await, ((1..=21).collect(), false));
}
