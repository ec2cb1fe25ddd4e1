//! What is set for single users: kept, told in order, and not used when it is damaged.

use std::num::NonZero;
use std::sync::{Mutex, PoisonError};

use super::*;

fn limits(burst: u32) -> UserLimits {
    UserLimits {
        send_rate: Some("9/s".parse().expect("a rate")),
        send_burst: NonZero::new(burst),
        subscriptions: NonZero::new(7),
    }
}

#[tokio::test]
async fn what_is_set_is_there_after_a_restart() {
    let scene = Scene::merging();
    let (alice, bob) = (scene.user("alice").await, scene.user("bob").await);
    let only_unlimited =
        UserLimits { send_rate: Some(crate::domain::RateLimit::Unlimited), ..Default::default() };
    for (user, set) in [
        (&alice, limits(1)),
        (&bob, limits(1)),
        (&alice, only_unlimited),
        (&bob, UserLimits::default()),
    ] {
        scene.store.set_user_limits(user.clone(), set, OPERATOR, || {}).await.expect("stored");
    }
    let folder = scene.close().await;
    let scene = Scene::open(folder).expect("opens");
    let all = scene.store.user_limits().await.expect("can be read");
    assert_eq!(all, [(alice.id, only_unlimited)]);
    scene.close().await;
}

/// Whoever is told last is told what is on disk, however many are set at once.
#[tokio::test]
async fn it_is_told_in_the_order_of_writing() {
    let scene = Scene::merging();
    let alice = scene.user("alice").await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let mut setting = tokio::task::JoinSet::new();
    for burst in 1..=50 {
        let (store, told, user) = (scene.store.clone(), Arc::clone(&told), alice.clone());
        setting.spawn(async move {
            let tell = move || told.lock().unwrap_or_else(PoisonError::into_inner).push(burst);
            store.set_user_limits(user, limits(burst), OPERATOR, tell).await
        });
    }
    for set in setting.join_all().await {
        set.expect("stored");
    }
    let told = told.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert_eq!(told.len(), 50);
    let last = told.last().copied().expect("some");
    let all = scene.store.user_limits().await.expect("can be read");
    assert_eq!(all, [(alice.id, limits(last))]);
    scene.close().await;
}

#[tokio::test]
async fn what_is_damaged_does_not_hold_and_can_be_set_again() {
    let scene = Scene::merging();
    let (alice, bob) = (scene.user("alice").await, scene.user("bob").await);
    for user in [&alice, &bob] {
        scene
            .store
            .set_user_limits(user.clone(), limits(2), OPERATOR, || {})
            .await
            .expect("stored");
    }
    let folder = scene.close().await;
    connect(&folder)
        .batch_execute("UPDATE user_limits SET send_burst = 3 WHERE user_id = 1")
        .expect("executes");
    let scene = Scene::open(folder).expect("opens");
    let all = scene.store.user_limits().await.expect("can be read");
    assert_eq!(all, [(bob.id, limits(2))]);
    scene.store.set_user_limits(alice.clone(), limits(4), OPERATOR, || {}).await.expect("stored");
    let all = scene.store.user_limits().await.expect("can be read");
    assert_eq!(all, [(alice.id, limits(4)), (bob.id, limits(2))]);
    scene.close().await;
}
