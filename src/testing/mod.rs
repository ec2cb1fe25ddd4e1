//! The harness that tests start a real server with: the real listener on a free port of this
//! machine, a data folder of its own, clients that speak the contract and nothing more.
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use peerpost::testing::TestServer;
//!
//! let mut server = TestServer::start().await;
//! let (alice, bob) = (server.client("alice").await, server.client("bob").await);
//! alice.send("bob", "hi").await?;
//! assert_eq!(bob.messages(Default::default()).await?.messages.len(), 1);
//! server.restart().await; // the same folder, another port
//! # Ok(())
//! # }
//! ```
//!
//! | to | there is |
//! | --- | --- |
//! | test against a server | [`TestServer`]: in this process, a line to start, ends with the test |
//! | let it crash | [`CrashServer`]: a process of its own that is killed and started again at the same address |
//! | let the network fail | [`Proxy`]: cuts and stalls connections, loses answers |
//! | have users | [`TestServer::client`]: the Rust client; [`TestServer::user`]: the generated one, with every status |
//! | know that a refusal is the right one | [`refused`] |
//! | know that no promise was broken | [`history`]: records what clients asked and were told, and checks it |
//!
//! The repository's `docs/TESTING.md` is the guide, and its `examples/toy-orders` a program whose tests
//! use all of it.
//!
//! Nothing here waits longer than [`patience`]: what hangs fails. A failure inside the harness is
//! a failure of the test, so that it panics and says what it waited for.

// Whatever goes wrong in here fails the test that called; "# Panics" on each item would say only that.
#![allow(clippy::missing_panics_doc)]

mod clients;
mod crash;
#[doc(hidden)]
pub mod here;
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
pub use crash::{BINARY_VARIABLE, CrashServer};
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
