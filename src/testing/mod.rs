//! The harness that tests start a real server with: the real listener on a free port of this
//! machine, a data folder of its own, clients that speak the contract and nothing more.
//!
//! ```no_run
//! # async fn example() {
//! use peerpost::testing::TestServer;
//!
//! let server = TestServer::start().await;
//! let alice = server.user("alice").await;
//! let bob = server.user("bob").await;
//! alice.send("bob", "hi").await;
//! assert_eq!(bob.mailbox().await.len(), 1);
//! # }
//! ```
//!
//! Nothing here waits longer than [`patience`]: what hangs fails. A failure inside the harness is
//! a failure of the test, so that it panics and says what it waited for.

// Whatever goes wrong in here fails the test that called; "# Panics" on each item would say only that.
#![allow(clippy::missing_panics_doc)]

mod clients;
pub mod history;
mod power_disk;
mod process;
mod proxy;
mod refusal;
mod requests;
mod server;
mod subscription;
pub mod torture;
mod user;

use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

pub use clients::{client_options, register};
pub use history::{RecordedAnswers, RecordedSubscription, RecordedUser, Recorder};
pub use power_disk::PowerDisk;
pub use process::{Exit, ServerProcess};
pub use proxy::{Loss, Proxy};
pub use refusal::{Refusal, refused};
pub use requests::{after, before, data_to, streamed, text_to};
pub use server::TestServer;
pub use subscription::{Event, Subscription};
pub use user::{Answers, TestUser, body_bytes, body_text};

/// How long anything may take before it counts as hanging, unless [`PATIENCE_VARIABLE`] says otherwise.
/// Far longer than anything should take on a slow and busy machine: no test passes or fails by it in
/// ordinary running.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// The environment variable that sets another patience, in seconds: for running tests that are meant to
/// fail.
pub const PATIENCE_VARIABLE: &str = "PEERPOST_TEST_PATIENCE_S";

/// How long anything may take before it counts as hanging.
#[must_use]
pub fn patience() -> Duration {
    static CHOSEN: OnceLock<Duration> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let chosen = std::env::var(PATIENCE_VARIABLE).ok().and_then(|text| text.parse().ok());
        chosen.map_or(PATIENCE, Duration::from_secs)
    })
}

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Awaits `future`, and panics with `what` when it hangs.
pub async fn within_patience<F: Future>(what: &str, future: F) -> F::Output {
    let output = tokio::time::timeout(patience(), future).await.ok();
    output.unwrap_or_else(|| panic!("hangs: {what}"))
}

/// Asks `check` again and again until it has an answer, and panics with `what` when it never has.
pub async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let poll = async {
        loop {
            if let Some(answer) = check().await {
                return answer;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    within_patience(what, poll).await
}
