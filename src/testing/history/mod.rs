//! Histories: what clients asked and were told, and whether that keeps the promises.
//!
//! A [`Recorder`] writes down every call before its request leaves and again when its answer has
//! come, and every event of a subscription. [`History::check`] then holds the history against the
//! promises of `docs/GUARANTEES.md`, one checker for each, and gives a [`Verdict`] for each, which
//! says what was found wrong: which entry, which call, and what should have been.
//!
//! [`RecordedUser`] is a client that records itself:
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> Result<(), tonic::Status> {
//! use peerpost::testing::{Recorder, RecordedUser, TestServer, text_to};
//!
//! let server = TestServer::start().await;
//! let recorder = Recorder::default();
//! let alice = RecordedUser::new(&recorder, server.user("alice").await);
//! let bob = RecordedUser::new(&recorder, server.user("bob").await);
//! alice.send(text_to("bob", "hi")).await?;
//! for user in [&alice, &bob] {
//!     user.read_to_the_end().await?;
//! }
//! for verdict in recorder.take().check() {
//!     assert!(verdict.is_kept(), "{verdict}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! For other clients, call the recorder's methods around theirs. The checkers need two things of a
//! workload: bodies that differ (of messages with the same text between the same users they can tell
//! less), and a last reading of every mailbox ([`Recorder::mailbox_at_end`]), without which nothing
//! can be said of what is missing there. A history is of one database: one that is restored from a
//! copy has another epoch and begins another history.

mod client;
mod cursors;
mod describe;
mod durable;
mod facts;
mod fresh;
mod once;
mod ordered;
mod private;
mod profiles;
mod record;
mod recorder;
mod resumable;
#[cfg(test)]
mod sample;
mod verdict;

use std::collections::HashMap;

pub use client::{RecordedAnswers, RecordedSubscription, RecordedUser};
pub use record::{CallNo, FollowNo, Moment, SendNo, StreamNo, UserNo};
pub use recorder::Recorder;
pub use verdict::{Promise, Verdict};

use self::facts::Facts;
use self::record::{Acknowledge, Entry, Follow, Profile, Read, Send};

/// What all clients of a server asked and were told, from the beginning of its database.
#[derive(Debug, Clone, Default)]
pub struct History {
    names: Vec<String>,
    sends: Vec<Send>,
    reads: Vec<Read>,
    follows: Vec<Follow>,
    acknowledges: Vec<Acknowledge>,
    registers: Vec<Profile>,
    look_ups: Vec<Profile>,
    /// As read at the end.
    mailboxes: HashMap<UserNo, Vec<Entry>>,
}

/// How much a history holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that were answered with OK, each counted once however often it was sent.
    pub acknowledged: u64,
    /// Sends of which nobody knows whether they were stored.
    pub unknown: u64,
    /// Sends that repeated the `request_id` of an earlier one.
    pub retries: u64,
    /// Subscriptions that took up an earlier one.
    pub resumes: u64,
    /// Calls of all kinds, and subscriptions.
    pub calls: u64,
}

impl Counts {
    /// Adds those of another history.
    pub fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.retries += other.retries;
        self.resumes += other.resumes;
        self.calls += other.calls;
    }
}

impl History {
    /// A verdict on each promise.
    pub fn check(&self) -> Vec<Verdict> {
        let facts = Facts::of(self);
        vec![
            durable::check(&facts),
            once::check(&facts),
            ordered::check(&facts),
            resumable::check(&facts),
            fresh::check(&facts),
            private::check(&facts),
            cursors::check(&facts),
        ]
    }

    /// How much it holds.
    pub fn counts(&self) -> Counts {
        let mut ids: Vec<_> = self.sends.iter().filter_map(|send| send.outcome.ok()).collect();
        ids.sort_unstable_by_key(|entry| entry.id);
        ids.dedup_by_key(|entry| entry.id);
        let mut requests: Vec<_> = self
            .sends
            .iter()
            .filter_map(|send| Some((send.asked.from, send.asked.request?)))
            .collect();
        let with_request = requests.len();
        requests.sort_unstable();
        requests.dedup();
        let answered = |send: &&Send| send.outcome.ok().is_some() || send.outcome.is_failed();
        let calls = self.sends.len()
            + self.reads.len()
            + self.follows.len()
            + self.acknowledges.len()
            + self.registers.len()
            + self.look_ups.len();
        Counts {
            acknowledged: ids.len() as u64,
            unknown: (self.sends.len() - self.sends.iter().filter(answered).count()) as u64,
            retries: (with_request - requests.len()) as u64,
            resumes: self.follows.iter().filter(|it| it.continues.is_some()).count() as u64,
            calls: calls as u64,
        }
    }

    fn name(&self, user: UserNo) -> &str {
        &self.names[user.0 as usize]
    }
}
