//! What is kept of what was done to accounts, and what cannot be done for those who are gone.

use diesel::sql_types::BigInt;

use super::*;

/// The numbers of the acts that are kept, users' or operators'.
fn numbers(scene: &Scene, by_operator: bool) -> Vec<i64> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = BigInt)]
        number: i64,
    }
    let by_operator = i64::from(by_operator);
    let rows = format!("SELECT number FROM audit_log WHERE by_operator = {by_operator} ORDER BY 1");
    let rows = diesel::sql_query(rows).load::<Row>(&mut connect(&scene.folder)).expect("rows");
    rows.into_iter().map(|row| row.number).collect()
}

#[tokio::test]
async fn of_users_own_acts_the_newest_million_is_kept_and_of_operators_all() {
    let scene = Scene::new();
    let [alice, bob] = [scene.user("alice").await, scene.user("bob").await];
    for by_operator in [0, 1] {
        for number in [1, 2, 3, 1_000_000] {
            let values = format!("({by_operator}, {number}, 0, 'uid:0', 'x', 'y', '', 0)");
            scene.sql(&format!("INSERT INTO audit_log VALUES {values}"));
        }
    }
    scene
        .store
        .delete_user(Subject::Caller(alice.clone()), Actor::User(alice))
        .await
        .expect("deleted");
    assert_eq!(numbers(&scene, false), [2, 3, 1_000_000, 1_000_001]);
    scene.store.delete_user(Subject::Named(bob.name), OPERATOR).await.expect("deleted");
    assert_eq!(numbers(&scene, true), [1, 2, 3, 1_000_000, 1_000_001]);
}

#[tokio::test]
async fn whoever_was_found_before_they_were_deleted_gets_nothing_after_it() {
    let scene = Scene::new();
    let [alice, bob] = [scene.user("alice").await, scene.user("bob").await];
    scene.send(&alice, &bob, &["one"]).await;
    scene.store.delete_user(Subject::Named(bob.name.clone()), OPERATOR).await.expect("deleted");
    let refused = scene.append(draft(&alice, &bob, "two")).await;
    assert!(matches!(refused, Err(StoreError::NoSuchReceiver(_))), "{refused:?}");
}
