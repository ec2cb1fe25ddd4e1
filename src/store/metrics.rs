use std::path::Path;
use std::time::Duration;

use diesel::prelude::*;
use tokio::time::timeout;

use super::accounts::tokens;
use super::error::failed;
use super::folder::log_of;
use super::mailbox_sizes::MailboxLimit;
use super::readers::Readers;
use super::retention::state;
use super::{Store, StoreError, directory, log};
use crate::domain::Timestamp;
use crate::metrics::{Counter, Durations, Histogram, Kind, Page};

/// How long a page waits for what is read from the disk: on one that hangs, the rest is shown.
const DISK_WAIT: Duration = Duration::from_secs(2);

static GROUP_BOUNDS: [u64; 10] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];

/// What the store counts of itself as it goes.
pub(super) struct StoreMetrics {
    /// Writes in a commit.
    group_writes: Histogram<10>,
    /// COMMIT alone, with its sync.
    pub(super) commits: Durations,
    /// Times that the storage failed and was opened again.
    pub(super) failures: Counter,
    /// Pages read for subscribers.
    pub(super) replay_pages: Counter,
    /// Writes that were refused because the disk was full.
    disk_refusals: Counter,
    /// Messages that were refused because a mailbox had as many, or as many bytes, as it may.
    full_of_messages: Counter,
    full_of_bytes: Counter,
    /// The messages after which the indexes are merged.
    merge_messages: usize,
}

impl StoreMetrics {
    pub(super) fn new(merge_messages: usize) -> Self {
        Self {
            group_writes: Histogram::of_numbers(&GROUP_BOUNDS),
            commits: Durations::of_durations(),
            failures: Counter::default(),
            replay_pages: Counter::default(),
            disk_refusals: Counter::default(),
            full_of_messages: Counter::default(),
            full_of_bytes: Counter::default(),
            merge_messages,
        }
    }

    pub(super) fn group_failed(&self, error: &StoreError, writes: usize) {
        if let StoreError::DiskFull { .. } = error {
            self.disk_refusals.add(writes as u64);
        }
    }

    /// A group that is rolled back counts those of it again.
    pub(super) fn mailbox_full(&self, limit: MailboxLimit) {
        match limit {
            MailboxLimit::Messages => self.full_of_messages.increment(),
            MailboxLimit::Bytes => self.full_of_bytes.increment(),
        }
    }

    pub(super) fn group_committed(&self, writes: usize) {
        self.group_writes.record(writes as u64);
    }
}

/// What a store holds at a moment.
#[derive(Debug, Clone, Copy)]
pub struct StoreStats {
    /// The registered users.
    pub users: i64,
    /// The tokens that are stored.
    pub tokens: i64,
    /// The position of the newest message in the log.
    pub messages: i64,
    /// The messages that were removed from it.
    pub removed: i64,
    /// The size of the database's file.
    pub database_bytes: u64,
    /// The size of its write-ahead log.
    pub wal_bytes: u64,
}

impl Store {
    /// How often each of the store's limits was refused, by its name.
    pub fn refusals(&self) -> [(&'static str, u64); 5] {
        [
            ("write_queue_bytes", self.0.writes.refused()),
            ("readers", self.0.readers.refused() + self.0.token_readers.refused()),
            ("disk", self.0.metrics.disk_refusals.get()),
            (MailboxLimit::Messages.name(), self.0.metrics.full_of_messages.get()),
            (MailboxLimit::Bytes.name(), self.0.metrics.full_of_bytes.get()),
        ]
    }

    /// What it holds. Users and tokens are counted one by one.
    ///
    /// # Errors
    /// Only the storage's.
    pub async fn stats(&self) -> Result<StoreStats, StoreError> {
        let database = self.0.database.clone();
        let (messages, _, _) = self.0.index.progress();
        let read = move |c: &mut _| {
            let users = directory::count(c).map_err(failed)?;
            let tokens = tokens::count(c).map_err(failed)?;
            let sizes = Sizes::of(&database);
            let removed = state::read(c).map_err(failed)?.removed_total;
            let (database_bytes, wal_bytes) = (sizes.database, sizes.wal);
            Ok(StoreStats { users, tokens, messages, removed, database_bytes, wal_bytes })
        };
        self.0.readers.read(read).await
    }

    /// Writes what is counted here. What would have to be read from a disk that does not answer in time
    /// is left out.
    pub async fn write_metrics(&self, page: &mut Page) {
        self.write_commits(page);
        self.write_queues(page);
        self.write_index(page);
        self.write_disk(page).await;
        self.write_retention(page).await;
    }

    async fn write_retention(&self, page: &mut Page) {
        let read = self.0.readers.read(|c| retained(c).map_err(failed));
        let Ok(Ok((first, removed))) = timeout(DISK_WAIT, read).await else { return };
        page.counter(
            "peerpost_messages_removed_total",
            "Messages removed since the database was made.",
            removed,
        );
        let Some((position, send_time)) = first else { return };
        let help = "The position in the log of the oldest message that is kept.";
        page.gauge("peerpost_oldest_message_position", help, position);
        let age = Timestamp::now().as_micros().saturating_sub(send_time.as_micros());
        let help = "The age of the oldest message that is kept, in whole seconds.";
        page.gauge("peerpost_oldest_message_age_seconds", help, age.max(0) / 1_000_000);
    }

    fn write_commits(&self, page: &mut Page) {
        let metrics = &self.0.metrics;
        page.histogram(
            "peerpost_group_writes",
            "Writes that shared a commit.",
            &metrics.group_writes,
        );
        page.histogram(
            "peerpost_commit_duration_seconds",
            "COMMIT with its sync, failed ones included.",
            &metrics.commits,
        );
        let is_up = u8::from(*self.0.healthy.borrow());
        page.gauge("peerpost_storage_up", "1 while commits succeed, else 0.", is_up);
        page.counter(
            "peerpost_storage_failures_total",
            "Times that the storage failed and was opened again.",
            metrics.failures.get(),
        );
        page.counter(
            "peerpost_replay_pages_total",
            "Pages of messages read from the store for subscribers.",
            metrics.replay_pages.get(),
        );
    }

    fn write_queues(&self, page: &mut Page) {
        let (queued_bytes, limit_bytes, waiting) = self.0.writes.depth();
        page.gauge("peerpost_write_queue_bytes", "What the write queue holds.", queued_bytes);
        page.gauge("peerpost_write_queue_limit_bytes", "The write queue's size.", limit_bytes);
        let help = "Writes that wait for a place in the write queue.";
        page.gauge("peerpost_writes_waiting", help, waiting);
        let pools: [(_, &Readers); 2] =
            [("reads", &self.0.readers), ("tokens", &self.0.token_readers)];
        let help = "Connections that read at the moment.";
        let mut family = page.family("peerpost_readers_busy", Kind::Gauge, help);
        for (pool, readers) in pools {
            family.sample(&[("pool", pool)], readers.busy());
        }
        let help = "Reads that wait for a connection.";
        let mut family = page.family("peerpost_reads_waiting", Kind::Gauge, help);
        for (pool, readers) in pools {
            family.sample(&[("pool", pool)], readers.waiting());
        }
    }

    fn write_index(&self, page: &mut Page) {
        let (stored, tail, merges) = self.0.index.progress();
        page.counter(
            "peerpost_messages_stored_total",
            "Messages stored since the database was made.",
            stored,
        );
        page.gauge("peerpost_tail_messages", "Messages that no index table has yet.", tail);
        page.gauge(
            "peerpost_merge_messages",
            "Messages of the tail with which a merge begins.",
            self.0.metrics.merge_messages,
        );
        page.counter("peerpost_merges_total", "Merges that were finished.", merges);
    }

    async fn write_disk(&self, page: &mut Page) {
        let database = self.0.database.clone();
        let sizes = tokio::task::spawn_blocking(move || Sizes::of(&database));
        if let Ok(Ok(sizes)) = timeout(DISK_WAIT, sizes).await {
            page.family("peerpost_disk_bytes", Kind::Gauge, "Sizes of the data folder's files.")
                .sample(&[("file", "database")], sizes.database)
                .sample(&[("file", "wal")], sizes.wal);
            if let Some(free) = sizes.free {
                let help = "What the file system of the data folder has left.";
                page.gauge("peerpost_disk_free_bytes", help, free);
            }
        }
        let users = self.0.readers.read(|c| directory::last_user(c).map_err(failed));
        if let Ok(Ok(users)) = timeout(DISK_WAIT, users).await {
            let help = "Names registered since the database was made.";
            page.counter("peerpost_users_registered_total", help, users);
        }
    }
}

/// Position and time of the log's first row, and how many were removed.
fn retained(connection: &mut SqliteConnection) -> QueryResult<(Option<(i64, Timestamp)>, i64)> {
    let first = log::first(connection)?;
    Ok((first, state::read(connection)?.removed_total))
}

/// What lies on the disk, in bytes.
pub(super) struct Sizes {
    pub(super) database: u64,
    /// 0 while there is none.
    pub(super) wal: u64,
    pub(super) free: Option<u64>,
}

impl Sizes {
    pub(super) fn of(database: &Path) -> Self {
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        let free = rustix::fs::statvfs(database).ok();
        let free = free.map(|file_system| file_system.f_bavail * file_system.f_frsize);
        Self { database: size(database), wal: size(&log_of(database)), free }
    }
}
