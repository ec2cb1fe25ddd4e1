//! Revocations beside calls: once one is answered, nothing is let in that began after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use peerpost::proto::ErrorReason;
use peerpost::testing::{TestServer, refused, within_patience};
use tokio::task::JoinSet;

use crate::accounts_support::named;
use crate::support::subscribe_from_now;

/// As many calls with a token as there are, while it is revoked: those that look it up have read it before
/// and would remember it after.
#[tokio::test]
async fn a_token_that_is_looked_up_while_it_is_revoked_is_not_good_after_it() {
    const ROUNDS: usize = 50;
    const CALLERS: usize = 8;
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    for round in 0..ROUNDS {
        // A token that nobody remembers yet.
        let (lost, listed) = alice.create_token(named("lost")).await.expect("made");
        let is_revoked = Arc::new(AtomicBool::new(false));
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let (lost, is_revoked) = (lost.at(server.addr()), Arc::clone(&is_revoked));
            callers.spawn(async move {
                loop {
                    let began_after = is_revoked.load(Ordering::SeqCst);
                    let is_stream = caller % 2 == 0;
                    let answer = if is_stream {
                        lost.subscribe(subscribe_from_now()).await.map(Some)
                    } else {
                        lost.get_user("alice").await.map(|_| None)
                    };
                    match answer {
                        Err(_) if !began_after && !is_revoked.load(Ordering::SeqCst) => {
                            // Refused before the answer was seen: it is revoked already.
                        }
                        Err(status) => {
                            refused(Err::<(), _>(status), ErrorReason::TokenUnknown);
                            if began_after {
                                return;
                            }
                        }
                        Ok(_) if began_after => {
                            panic!("round {round}: let in after it was revoked")
                        }
                        // It was open when the token went, or it was opened before.
                        Ok(Some(subscription)) if is_revoked.load(Ordering::SeqCst) => {
                            let (_, status) = subscription.drain().await;
                            refused(Err::<(), _>(status), ErrorReason::TokenUnknown);
                        }
                        Ok(_) => {}
                    }
                }
            });
        }
        alice.revoke_token(&listed.token_id).await.expect("revoked");
        is_revoked.store(true, Ordering::SeqCst);
        within_patience("the callers", callers.join_all()).await;
    }
}

/// Messages to a user who goes: each is either stored before that, or refused; and after it all are.
#[tokio::test]
async fn nobody_writes_to_a_user_after_they_are_deleted() {
    let server = TestServer::start().await;
    let bob = server.user("bob").await;
    for round in 0..20 {
        let name = format!("user-{round}");
        let user = server.user(&name).await;
        bob.send(&name, "remembered").await;
        let is_deleted = Arc::new(AtomicBool::new(false));
        let mut senders = JoinSet::new();
        for _ in 0..4 {
            let (bob, name) = (bob.at(server.addr()), name.clone());
            let is_deleted = Arc::clone(&is_deleted);
            senders.spawn(async move {
                loop {
                    let began_after = is_deleted.load(Ordering::SeqCst);
                    match bob.try_send(peerpost::testing::text_to(&name, "hi")).await {
                        Ok(_) if began_after => panic!("stored after {name} was deleted"),
                        Ok(_) => {}
                        Err(status) => {
                            refused(Err::<(), _>(status), ErrorReason::UserNotFound);
                            return;
                        }
                    }
                }
            });
        }
        user.delete(&name).await.expect("deleted");
        is_deleted.store(true, Ordering::SeqCst);
        within_patience("the senders", senders.join_all()).await;
    }
}
