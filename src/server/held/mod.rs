//! What connections hold of the server's memory for clients that do not finish or do not read, and
//! what becomes of those who hold much when it is too much.
//!
//! Each call has its bounds, but a connection has 256 calls and there are many connections. So the
//! bytes are counted over all of them: those of each call's latest request, while it is received and
//! until it is taken (of a request that is not gRPC: all that came), and those of answers on their way to
//! the socket. They may come to [`HELD_BYTES_DEFAULT`](super::HELD_BYTES_DEFAULT), or to what the operator
//! set (`held_bytes_max`).
//!
//! - Over three quarters of it there is a *crowd*. A request is refused by the limit's name when more of it
//!   comes, if its connection holds much; and a connection that holds much is cut if nothing has moved on it
//!   for [`STILL_MAX`], so that nobody keeps others out by standing still.
//! - Over all of it, the connection that holds much and on which nothing has moved for the longest time is
//!   cut: to its client the network has failed, which every client has to bear. Answers that are not read
//!   and those who come in great numbers lead there.
//!
//! Much is at least half of what the connections hold on average, and in a crowd at least
//! [`MODEST_BYTES`]. A small call that waits for its commit moves less than a flood does, and has to be spared.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::limits::Bounds;
use crate::metrics::{Counter, Page};

mod bodies;

pub(super) use self::bodies::Answer;
pub(super) use self::bodies::RequestBody;

/// A connection that holds less is refused nothing, and may stand still: some bodies of the size that is
/// the default.
const MODEST_BYTES: usize = 256 * 1024;

/// How long nothing may move, in a crowd, on a connection that holds much.
const STILL_MAX: Duration = Duration::from_secs(10);

/// How old the average may be by which requests are refused: finding it out takes a look at each connection.
const MEAN_AGE_MAX: Duration = Duration::from_millis(10);

/// What all connections of a server hold.
pub(super) struct Holdings {
    held_bytes: AtomicUsize,
    held_bytes_max: usize,
    started: Instant,
    connections: Mutex<Connections>,
    /// Connections that were cut.
    cuts: Counter,
    /// Requests that were refused.
    refusals: Counter,
}

#[derive(Default)]
struct Connections {
    shares: HashMap<u64, Weak<Share>>,
    next: u64,
    /// What is held on average, and when that was found out, in microseconds since the server started.
    mean: Option<(u64, usize)>,
}

/// What one connection holds.
pub(super) struct Share {
    of: Arc<Holdings>,
    number: u64,
    held_bytes: AtomicUsize,
    /// When a byte last came or went, in microseconds since the server started.
    moved_micros: AtomicU64,
    /// Cancelled: it ends now.
    cut: CancellationToken,
}

impl Holdings {
    pub(super) fn new(held_bytes_max: usize) -> Arc<Self> {
        let connections = Mutex::default();
        let held_bytes = AtomicUsize::new(0);
        let (cuts, refusals) = (Counter::default(), Counter::default());
        let started = Instant::now();
        Arc::new(Self { held_bytes, held_bytes_max, started, connections, cuts, refusals })
    }

    /// A new connection, which ends when `cut` is cancelled.
    pub(super) fn share(self: &Arc<Self>, cut: CancellationToken) -> Arc<Share> {
        let mut connections = self.connections();
        let number = connections.next;
        connections.next += 1;
        let share = Arc::new(Share {
            of: Arc::clone(self),
            number,
            held_bytes: AtomicUsize::new(0),
            moved_micros: AtomicU64::new(0),
            cut,
        });
        connections.shares.insert(number, Arc::downgrade(&share));
        share
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes.load(Ordering::Relaxed)
    }

    /// The connections that are open.
    pub(super) fn connections_open(&self) -> usize {
        self.connections().shares.len()
    }

    /// The limit that requests are refused by, and how many were.
    pub(super) fn refusals(&self) -> (&'static str, u64) {
        (Bounds::HELD_BYTES_MAX.name, self.refusals.get())
    }

    /// Writes what is counted here.
    pub(super) fn write_metrics(&self, page: &mut Page) {
        let (open, accepted) = {
            let connections = self.connections();
            (connections.shares.len(), connections.next)
        };
        page.gauge("peerpost_connections", "Connections that are open.", open);
        page.counter("peerpost_connections_total", "Connections that were accepted.", accepted);
        let help = "What requests and answers in transit hold of the memory.";
        page.gauge("peerpost_held_bytes", help, self.held_bytes());
        let help = "What they may hold: requests are refused over three quarters of it.";
        page.gauge("peerpost_held_limit_bytes", help, self.held_bytes_max);
        let help = "Connections that were cut to free memory.";
        page.counter("peerpost_connections_cut_total", help, self.cuts.get());
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn micros(&self) -> u64 {
        micros(self.started.elapsed())
    }

    /// What is more is a crowd.
    fn crowd_bytes(&self) -> usize {
        self.held_bytes_max - self.held_bytes_max / 4
    }

    /// The connections that hold anything, the one on which something moved least lately last.
    fn holders(&self) -> Vec<Arc<Share>> {
        let shares: Vec<_> = self.connections().shares.values().filter_map(Weak::upgrade).collect();
        let is_left = |share: &Arc<Share>| !share.cut.is_cancelled() && share.held_bytes() > 0;
        let mut left: Vec<_> = shares.into_iter().filter(is_left).collect();
        left.sort_by_key(|share| std::cmp::Reverse(share.moved_micros.load(Ordering::Relaxed)));
        left
    }

    /// Cuts connections until those that are left hold no more than they may.
    fn relieve(&self) {
        let mut left = self.holders();
        loop {
            let (held_bytes, mean_bytes) = sum_and_mean(&left);
            if held_bytes <= self.held_bytes_max {
                break;
            }
            let holds_much = |share: &Arc<Share>| share.held_bytes() >= mean_bytes / 2;
            let Some(place) = left.iter().rposition(holds_much) else { break };
            self.cut(&left.remove(place));
        }
    }

    /// What a connection holds on average in a crowd, as it was at `now` or shortly before, without those that
    /// stood still for too long: they are cut.
    fn mean_in_crowd(&self, now_micros: u64) -> usize {
        let known = self.connections().mean;
        let age_max = micros(MEAN_AGE_MAX);
        if let Some((_, mean_bytes)) = known.filter(|(then, _)| now_micros < then + age_max) {
            return mean_bytes;
        }
        let mut left = self.holders();
        let begins_still = now_micros.saturating_sub(micros(STILL_MAX));
        let mean_bytes = loop {
            let (held_bytes, mean_bytes) = sum_and_mean(&left);
            if held_bytes <= self.crowd_bytes() {
                break mean_bytes;
            }
            let is_to_go = |share: &Arc<Share>| {
                share.moved_micros.load(Ordering::Relaxed) < begins_still
                    && share.holds_much(mean_bytes)
            };
            let Some(place) = left.iter().rposition(is_to_go) else { break mean_bytes };
            self.cut(&left.remove(place));
        };
        self.connections().mean = Some((now_micros, mean_bytes));
        mean_bytes
    }

    fn cut(&self, share: &Share) {
        share.cut.cancel();
        self.cuts.increment();
        let (limit, value) = (Bounds::HELD_BYTES_MAX.name, self.held_bytes_max);
        let bytes = share.held_bytes();
        warn!(
            limit,
            value, bytes, "cut the connection that stood still for the longest, to free memory"
        );
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn sum_and_mean(shares: &[Arc<Share>]) -> (usize, usize) {
    let held_bytes: usize = shares.iter().map(|share| share.held_bytes()).sum();
    (held_bytes, held_bytes / shares.len().max(1))
}

impl Share {
    fn held_bytes(&self) -> usize {
        self.held_bytes.load(Ordering::Relaxed)
    }

    fn holds_much(&self, mean_bytes: usize) -> bool {
        self.held_bytes() >= MODEST_BYTES.max(mean_bytes / 2)
    }

    /// What is held is too much for a request of this connection that is to go on. What it may be at the most
    /// is in the error.
    fn has_room(&self) -> Result<(), usize> {
        if self.of.held_bytes() <= self.of.crowd_bytes() || self.held_bytes() < MODEST_BYTES {
            return Ok(());
        }
        let mean_bytes = self.of.mean_in_crowd(self.of.micros());
        if !self.holds_much(mean_bytes) {
            return Ok(());
        }
        self.of.refusals.increment();
        Err(self.of.held_bytes_max)
    }

    fn add(&self, bytes: usize) {
        self.moved_micros.store(self.of.micros(), Ordering::Relaxed);
        self.held_bytes.fetch_add(bytes, Ordering::Relaxed);
        let before = self.of.held_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > self.of.held_bytes_max {
            self.of.relieve();
        }
    }

    fn remove(&self, bytes: usize) {
        self.moved_micros.store(self.of.micros(), Ordering::Relaxed);
        self.held_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.of.held_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.connections().shares.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(of: &Arc<Holdings>) -> (Arc<Share>, CancellationToken) {
        let cut = CancellationToken::new();
        (of.share(cut.clone()), cut)
    }

    #[test]
    fn who_stood_still_for_the_longest_goes_first_and_who_holds_nothing_stays() {
        let holdings = Holdings::new(100);
        let [(idle, idle_cut), (stalled, stalled_cut), (slow, slow_cut)] =
            [share(&holdings), share(&holdings), share(&holdings)];
        idle.add(10);
        idle.remove(10);
        slow.add(40);
        stalled.add(50);
        slow.moved_micros.store(u64::MAX, Ordering::Relaxed);
        assert!(!stalled_cut.is_cancelled(), "90 of 100");
        idle.moved_micros.store(0, Ordering::Relaxed);
        let (new, new_cut) = share(&holdings);
        new.add(11);
        assert!(stalled_cut.is_cancelled());
        new.add(49);
        assert!(!slow_cut.is_cancelled(), "100 of 100 without the one that was cut");
        slow.moved_micros.store(1, Ordering::Relaxed);
        new.add(1);
        assert!(slow_cut.is_cancelled() && !new_cut.is_cancelled() && !idle_cut.is_cancelled());
    }

    #[test]
    fn who_holds_little_stays_however_still_and_the_next_one_goes() {
        let holdings = Holdings::new(100);
        let [(small, small_cut), (large, large_cut), (other, other_cut)] =
            [share(&holdings), share(&holdings), share(&holdings)];
        small.add(5);
        large.add(50);
        other.add(45);
        for (share, moved) in [(&small, 0), (&large, 1), (&other, 2)] {
            share.moved_micros.store(moved, Ordering::Relaxed);
        }
        let (new, new_cut) = share(&holdings);
        new.add(40);
        assert!(large_cut.is_cancelled());
        assert!(!small_cut.is_cancelled() && !other_cut.is_cancelled() && !new_cut.is_cancelled());
    }

    /// With room for `crowd_bytes` before anyone is refused.
    fn crowded_at(crowd_bytes: usize) -> Arc<Holdings> {
        let holdings = Holdings::new(crowd_bytes / 3 * 4);
        assert_eq!(holdings.crowd_bytes(), crowd_bytes);
        holdings
    }

    #[test]
    fn in_a_crowd_who_holds_much_is_refused_more() {
        let holdings = crowded_at(9 * MODEST_BYTES);
        let [(many, many_cut), (modest, modest_cut), (few, few_cut)] =
            [share(&holdings), share(&holdings), share(&holdings)];
        many.add(8 * MODEST_BYTES);
        modest.add(MODEST_BYTES);
        assert_eq!(many.has_room(), Ok(()), "no crowd yet");
        few.add(1);
        assert_eq!(many.has_room(), Err(holdings.held_bytes_max));
        assert_eq!(
            (modest.has_room(), few.has_room()),
            (Ok(()), Ok(())),
            "less than half of the mean"
        );
        assert_eq!(holdings.refusals().1, 1);
        few.remove(1);
        assert_eq!(many.has_room(), Ok(()));
        assert!(![many_cut, modest_cut, few_cut].iter().any(CancellationToken::is_cancelled));
    }

    #[test]
    fn in_a_crowd_of_many_who_hold_little_nobody_is_refused() {
        let holdings = crowded_at(3 * MODEST_BYTES);
        let shares: Vec<_> = (0..6).map(|_| share(&holdings)).collect();
        for (share, _) in &shares {
            share.add(MODEST_BYTES - 1);
            assert_eq!(share.has_room(), Ok(()));
        }
        assert!(shares.iter().any(|(_, cut)| cut.is_cancelled()), "it was over all of it");
    }

    #[test]
    fn in_a_crowd_who_holds_much_and_stands_still_is_cut() {
        let holdings = crowded_at(6 * MODEST_BYTES);
        let [(still, still_cut), (moving, moving_cut), (little, little_cut)] =
            [share(&holdings), share(&holdings), share(&holdings)];
        little.add(1);
        still.add(3 * MODEST_BYTES);
        moving.add(3 * MODEST_BYTES);
        let set = |share: &Arc<Share>, micros| share.moved_micros.store(micros, Ordering::Relaxed);
        let still_max = micros(STILL_MAX);
        set(&little, 0);
        set(&still, 1);
        set(&moving, 2);
        let mean_bytes = holdings.mean_in_crowd(1 + still_max);
        assert_eq!(mean_bytes, (6 * MODEST_BYTES + 1) / 3);
        assert!(!still_cut.is_cancelled(), "not for long enough");
        // Looked at anew when what is known is too old.
        assert_eq!(
            holdings.mean_in_crowd(1 + still_max + micros(MEAN_AGE_MAX)),
            usize::midpoint(little.held_bytes(), moving.held_bytes())
        );
        assert!(still_cut.is_cancelled());
        assert!(
            !moving_cut.is_cancelled() && !little_cut.is_cancelled(),
            "there is no crowd any more"
        );
    }
}
