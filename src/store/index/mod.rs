//! The indexes that are derived from the log: each mailbox's entries, and the request ids.
//!
//! A commit appends to the log and adds to the [tail](tail), in memory; the tables are written much
//! later, in the order of their keys. Who reads looks in the tables up to where they go, and in the
//! tail after that.
//!
//! A reader takes its view of the tail *before* its transaction sees the tables. Whatever is merged
//! between the two is then in both, and the view says from where on the tables are not to be asked:
//! so what is read is the state at the moment of the view, whole.

mod entry;
pub(in crate::store) mod examined;
mod filter;
mod fold;
mod merge;
mod packed;
#[cfg(feature = "testing")]
pub mod packed_checks;
mod pending;
mod request_runs;
mod tables;
mod tail;
mod writer;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use diesel::prelude::*;
use tracing::error;

pub(super) use self::entry::{Entry, Filter, Placement};
pub(super) use self::entry::{RequestKey, RequestKeys, SALT_BYTES};
use self::filter::RequestFilter;
pub(super) use self::tables::{delete_request, delete_runs, request_rows, salt};
use self::tail::{Tail, View};
pub(super) use self::writer::{IndexWriter, LoadError};
use super::error::is_damage;
use super::mailboxes;
use crate::domain::{MailboxRange, RequestId, Sequence, UserId};
use crate::metrics::Counter;

/// Where a page begins, and in which direction it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageStart {
    /// Higher sequences than this, ascending.
    After(Sequence),
    /// Lower sequences than this, descending.
    Before(Sequence),
}

/// Reads the indexes. Cloning gives another handle.
#[derive(Clone)]
pub(super) struct Index {
    tail: Arc<RwLock<Tail>>,
    keys: RequestKeys,
    filter: Arc<RequestFilter>,
    /// Merges that were finished.
    merges: Arc<Counter>,
}

/// Which request keys are to be read into the filter next.
#[derive(Debug, Clone, Copy)]
pub(super) enum KeysCursor {
    /// Those that are in no table.
    Tail,
    /// Those in runs, from this shard on.
    Runs { shard: usize },
    /// Those in their table, after this one.
    Table { after: RequestKey },
}

/// Shards of runs that are read in one go.
const SHARDS_AT_A_TIME: usize = 128;

/// A part of a mailbox.
#[derive(Debug)]
pub(super) struct Listing {
    /// What the mailbox holds.
    pub(super) range: MailboxRange,
    /// In the direction of reading.
    pub(super) entries: Vec<Entry>,
    /// It ends early, since the index does not tell where the entry with this sequence is.
    pub(super) damaged_at: Option<i64>,
}

impl Index {
    fn tail(&self) -> RwLockReadGuard<'_, Tail> {
        // A row is added whole or not at all, so a panic spoils nothing.
        self.tail.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn tail_mut(&self) -> RwLockWriteGuard<'_, Tail> {
        self.tail.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log's last position, the messages in the tail, and the merges that were finished.
    pub(super) fn progress(&self) -> (i64, usize, u64) {
        let tail = self.tail();
        (tail.last_position(), tail.rows(), self.merges.get())
    }

    /// The tables hold everything up to here.
    pub(super) fn merged_through(&self) -> i64 {
        self.tail().merged_through()
    }

    /// The first `limit` entries of `owner`'s mailbox from `start` that `filter` admits, as they were
    /// at one moment; none after a `start` that is before the mailbox's beginning. `connection` must not
    /// have read in its transaction before.
    pub(super) fn list(
        &self,
        connection: &mut SqliteConnection,
        owner: UserId,
        start: PageStart,
        filter: Filter,
        limit: usize,
    ) -> QueryResult<Listing> {
        let view = self.tail().view(owner, start, filter, limit);
        let range = range(connection, owner, &view)?;
        let mut listing = Listing { range, entries: Vec::new(), damaged_at: None };
        match start {
            // What comes after is not there any more, as the range says.
            PageStart::After(after) if after.next() < range.first => {}
            PageStart::After(after) => {
                let end = view.sequences.map_or(range.last.next().get(), |(first, _)| first);
                let merged = Merged { start, through: view.merged_through, end };
                if after.next().get() < end {
                    listing.add_merged(connection, owner, &merged, filter, limit)?;
                }
                if listing.damaged_at.is_none() {
                    let room = limit - listing.entries.len();
                    listing.entries.extend(view.entries.into_iter().take(room));
                }
            }
            PageStart::Before(before) => {
                let begin = view.sequences.map_or(range.last.next(), |(first, _)| sequence(first));
                let before = before.min(begin);
                let start = PageStart::Before(before);
                let end = range.first.get() - 1;
                let merged = Merged { start, through: view.merged_through, end };
                listing.entries = view.entries;
                listing.entries.retain(|entry| entry.sequence > end);
                if listing.entries.len() < limit && before > range.first {
                    listing.add_merged(connection, owner, &merged, filter, limit)?;
                }
            }
        }
        Ok(listing)
    }

    /// What `owner`'s mailbox holds. As [`list`](Self::list).
    pub(super) fn range(
        &self,
        connection: &mut SqliteConnection,
        owner: UserId,
    ) -> QueryResult<MailboxRange> {
        let view = self.nothing_of(owner);
        range(connection, owner, &view)
    }

    /// The last entry of `owner`'s mailbox.
    pub(super) fn last_entry(
        &self,
        connection: &mut SqliteConnection,
        owner: UserId,
    ) -> QueryResult<Option<Entry>> {
        self.first_from(connection, owner, PageStart::Before(Sequence::MAX))
    }

    /// Hands the entries of `owner`'s mailbox from sequence `first` on that are in the tables to `take`,
    /// those of which the mailbox has lost the beginning among them, until it says `false`.
    pub(super) fn visit_merged(
        &self,
        connection: &mut SqliteConnection,
        owner: UserId,
        first: i64,
        take: impl FnMut(Entry) -> bool,
    ) -> QueryResult<()> {
        let start = PageStart::After(sequence(first - 1));
        tables::visit(connection, owner, start, self.merged_through(), take)
    }

    /// `owner`'s entry `sequence`.
    pub(super) fn entry(
        &self,
        connection: &mut SqliteConnection,
        owner: UserId,
        sequence: Sequence,
    ) -> QueryResult<Option<Entry>> {
        let found = self.first_from(connection, owner, PageStart::Before(sequence.next()))?;
        Ok(found.filter(|entry| entry.sequence == sequence.get()))
    }

    fn first_from(
        &self,
        connection: &mut SqliteConnection,
        owner: UserId,
        start: PageStart,
    ) -> QueryResult<Option<Entry>> {
        let view = self.tail().view(owner, start, Filter::ALL, 1);
        if let Some(entry) = view.entries.first() {
            return Ok(Some(*entry));
        }
        let mut found = None;
        tables::visit(connection, owner, start, view.merged_through, |entry| {
            found = Some(entry);
            false
        })?;
        Ok(found)
    }

    /// What makes the request keys.
    pub(super) fn keys(&self) -> &RequestKeys {
        &self.keys
    }

    /// The key of `sender`'s `request_id`.
    pub(super) fn request_key(&self, sender: UserId, request_id: &RequestId) -> RequestKey {
        self.keys.key(sender, request_id)
    }

    /// Where messages with this key stand in the log.
    fn rows_of_request(
        &self,
        connection: &mut SqliteConnection,
        key: RequestKey,
    ) -> QueryResult<Vec<i64>> {
        let mut positions = self.tail().rows_of_request(key);
        positions.extend(request_runs::rows_of_request(connection, key)?);
        positions.extend(tables::rows_of_request(connection, key)?);
        // What is on its way from one of these to the next may be in both.
        positions.sort_unstable();
        positions.dedup();
        Ok(positions)
    }

    /// Reads some request keys into the filter, beginning where the last reading ended. Where to go on;
    /// `None` when all are read: until then every key is looked up.
    ///
    /// They are read where they are first, and then where they go: of the tail, of the runs, of the
    /// table. So none is missed that moves on meanwhile; what is appended is added by the writer.
    pub(super) fn read_request_keys(
        &self,
        connection: &mut SqliteConnection,
        from: KeysCursor,
    ) -> QueryResult<Option<KeysCursor>> {
        match from {
            KeysCursor::Tail => {
                // Copied, so that no commit waits for the lock meanwhile.
                let in_tail: Vec<_> = self.tail().request_keys().collect();
                for key in in_tail {
                    self.filter.insert(key);
                }
                Ok(Some(KeysCursor::Runs { shard: 0 }))
            }
            KeysCursor::Runs { shard } if shard < request_runs::SHARDS => {
                let end = shard + SHARDS_AT_A_TIME;
                request_runs::visit(connection, shard..end, |key, _| self.filter.insert(key))?;
                Ok(Some(KeysCursor::Runs { shard: end }))
            }
            KeysCursor::Runs { .. } => self.read_request_table(connection, None),
            KeysCursor::Table { after } => self.read_request_table(connection, Some(after)),
        }
    }

    fn read_request_table(
        &self,
        connection: &mut SqliteConnection,
        after: Option<RequestKey>,
    ) -> QueryResult<Option<KeysCursor>> {
        let mut last = None;
        tables::visit_request_keys(connection, after, |key| {
            self.filter.insert(key);
            last = Some(key);
        })?;
        if last.is_none() {
            self.filter.complete();
        }
        Ok(last.map(|after| KeysCursor::Table { after }))
    }

    fn nothing_of(&self, owner: UserId) -> View {
        self.tail().view(owner, PageStart::After(Sequence::MAX), Filter::ALL, 0)
    }
}

/// The part of a mailbox that is to be read from the tables.
struct Merged {
    start: PageStart,
    /// What the log holds after this is in the tail.
    through: i64,
    /// The sequence after the last one, in the direction of reading.
    end: i64,
}

impl Listing {
    /// Adds what the tables have. A mailbox is dense: a sequence that is skipped is one that they lost.
    fn add_merged(
        &mut self,
        connection: &mut SqliteConnection,
        owner: UserId,
        merged: &Merged,
        filter: Filter,
        limit: usize,
    ) -> QueryResult<()> {
        let (mut expected, step) = match merged.start {
            PageStart::After(after) => (after.next().get(), 1),
            PageStart::Before(before) => (before.get().saturating_sub(1), -1),
        };
        let visited = tables::visit(connection, owner, merged.start, merged.through, |entry| {
            if entry.sequence != expected {
                return false;
            }
            expected += step;
            if filter.admits(&entry) {
                self.entries.push(entry);
            }
            self.entries.len() < limit && expected != merged.end
        });
        if let Err(error) = visited {
            if !is_damage(&error) {
                return Err(error);
            }
            error!(%error, owner = owner.0, "the index of a mailbox cannot be read");
        }
        if self.entries.len() < limit && (merged.end - expected) * step > 0 {
            self.damaged_at = Some(expected);
        }
        Ok(())
    }
}

fn range(
    connection: &mut SqliteConnection,
    owner: UserId,
    view: &View,
) -> QueryResult<MailboxRange> {
    let mut last = view.sequences.map(|(_, last)| last);
    if last.is_none() && view.merged_through > 0 {
        let entry = tables::last(connection, owner, view.merged_through)?;
        last = entry.map(|entry| entry.sequence);
    }
    let first = mailboxes::first(connection, owner)?;
    let last = last.map_or(Sequence::ZERO, sequence);
    // The beginning may be of a later moment than the view, whose entries are all gone by then.
    let last = last.max(sequence(first.get() - 1));
    Ok(MailboxRange { first, last })
}

/// Every sequence is given out by this code, from 1 upwards.
fn sequence(number: i64) -> Sequence {
    Sequence::parse(number).unwrap_or(Sequence::ZERO)
}
