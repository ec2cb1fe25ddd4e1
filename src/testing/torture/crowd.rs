//! Who there is, and how far the seed has come.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::random::Random;
use crate::testing::RecordedUser;

/// How far a seed has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Everyone does what they do, and anything can go wrong.
    Load,
    /// Nothing goes wrong any more. Senders repeat what is unknown, and end.
    LastSends,
    /// Followers read on to the end of what they follow, and end.
    LastReads,
}

/// What all who take part share.
#[derive(Debug)]
pub(super) struct Crowd {
    pub(super) phase: watch::Sender<Phase>,
    /// Up to where followers read in the last phase: the mailbox's last sequence, and the last that
    /// was received.
    pub(super) goals: Mutex<HashMap<String, (i64, i64)>>,
    calm: SocketAddr,
    rough: SocketAddr,
    /// Registered before anything went wrong.
    users: Vec<RecordedUser>,
    latecomers: Mutex<Vec<RecordedUser>>,
}

impl Crowd {
    pub(super) fn new(users: Vec<RecordedUser>, calm: SocketAddr, rough: SocketAddr) -> Self {
        Self {
            phase: watch::Sender::new(Phase::Load),
            goals: Mutex::default(),
            calm,
            rough,
            users,
            latecomers: Mutex::default(),
        }
    }

    /// One of the networks; the rough one for most.
    pub(super) fn network(&self, random: &mut Random) -> SocketAddr {
        if random.below(3) == 0 { self.calm } else { self.rough }
    }

    /// The n-th user, over one of the networks, on a new connection.
    pub(super) fn user(&self, number: usize, random: &mut Random) -> RecordedUser {
        self.users[number % self.users.len()].at(self.network(random))
    }

    /// The name of anyone who is known to be registered; a few are chosen more often than others.
    pub(super) fn anyone(&self, random: &mut Random) -> &str {
        let below = if random.below(2) == 0 { 2 } else { self.users.len() };
        self.users[random.below(below)].name()
    }

    /// One more was registered.
    pub(super) fn join(&self, user: RecordedUser) {
        self.latecomers().push(user);
    }

    /// Everyone who is registered, each over the calm network.
    pub(super) fn everyone(&self) -> Vec<RecordedUser> {
        let latecomers = self.latecomers();
        self.users.iter().chain(latecomers.iter()).map(|user| user.at(self.calm)).collect()
    }

    pub(super) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    pub(super) fn goal(&self, name: &str, received_only: bool) -> i64 {
        let goals = self.goals.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, last_received) = goals.get(name).copied().unwrap_or_default();
        if received_only { last_received } else { last }
    }

    fn latecomers(&self) -> MutexGuard<'_, Vec<RecordedUser>> {
        self.latecomers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
