//! By age: the log is walked from its beginning while its rows are old enough, for all mailboxes at once.

use std::collections::BTreeMap;

use diesel::prelude::*;

use super::{Outcome, Worker};
use crate::domain::{Timestamp, UserId};
use crate::store::error::unless_damaged;
use crate::store::index::Index;
use crate::store::log::{self, LogRow};
use crate::store::mailboxes;
use crate::store::removed::Interval;
use crate::store::writer::{MergeEarly, Raise, RaiseFloors, RemoveRows, Settle};

/// Rows read in one snapshot.
const ROWS_AT_A_TIME: usize = 512;

/// The rows that are removed together. The mailboxes that they stand in are moved once for all of them, so
/// that what that costs is shared.
const BATCH_ROWS_MAX: usize = 1 << 20;

/// The mailboxes of a batch, in memory about 50 bytes each.
const BATCH_OWNERS_MAX: usize = 1 << 17;

/// The positions that one item of a step removes.
const ITEM_ROWS_MAX: i64 = 64;

/// What a walk met of a mailbox: its first and its last sequence, and the bytes of all bodies.
#[derive(Debug, Clone, Copy)]
struct Met {
    first: i64,
    last: i64,
    bytes: i64,
}

/// Rows of the log that go together.
#[derive(Debug, Default)]
struct Batch {
    /// What was met of each mailbox.
    entries: BTreeMap<UserId, Met>,
    rows: Vec<Interval>,
    rows_count: usize,
    /// The walk has come to here.
    through: i64,
    /// What comes next is too young, or may not be removed yet.
    is_last: bool,
}

impl Worker {
    /// Removes what is older than the server keeps.
    pub(super) fn remove_old(&mut self, now: Timestamp) -> Outcome<()> {
        let Some(age) = self.options.keep.age else { return Ok(()) };
        let cutoff = now.before(age);
        self.merge_old(cutoff)?;
        loop {
            let batch = self.old_rows(cutoff)?;
            let raise = |(owner, met): (&UserId, &Met)| Raise {
                owner: *owner,
                from: met.first,
                first: met.last + 1,
                bytes: met.bytes,
            };
            let floors = batch.entries.iter().map(raise).collect();
            self.work(RaiseFloors(floors))?;
            self.work(RemoveRows(batch.rows))?;
            let entries = batch.entries.into_iter();
            self.work(Settle(entries.map(|(owner, it)| (owner, (it.first, it.last))).collect()))?;
            self.walked_through = batch.through;
            if batch.is_last {
                return Ok(());
            }
        }
    }

    /// Reads the next rows that are old enough.
    fn old_rows(&mut self, cutoff: Timestamp) -> Outcome<Batch> {
        let mut batch = Batch { through: self.walked_through, ..Batch::default() };
        while !batch.is_last && !batch.is_full() {
            let from = batch.through + 1;
            let end = removable_through(&self.store.0.index);
            let (mut rows, is_end) = self.read(|connection, _| heads(connection, (from, end)))?;
            batch.is_last = is_end;
            self.note_overrides(&mut rows)?;
            for row in rows {
                if row.send_time >= cutoff {
                    batch.is_last = true;
                    break;
                }
                batch.add(&row);
            }
        }
        Ok(batch)
    }

    /// Of users for whom something else holds, this walk moves no mailbox: it removes what they have lost by
    /// that, and leaves what they have.
    fn note_overrides(&mut self, rows: &mut [Head]) -> Outcome<()> {
        if self.overrides.is_empty() {
            return Ok(());
        }
        let overrides = std::mem::take(&mut self.overrides);
        let noted = self.read(|connection, _| {
            for row in rows {
                for (owner, sequence) in &row.entries {
                    if overrides.contains_key(owner) {
                        row.is_kept |= *sequence >= mailboxes::first(connection, *owner)?.get();
                    }
                }
                row.entries.retain(|(owner, _)| !overrides.contains_key(owner));
            }
            Ok(())
        });
        self.overrides = overrides;
        noted
    }

    /// What is in memory cannot be removed: merges it, once it is too old. Since that takes all that has come
    /// meanwhile along, it happens once in the time that messages are kept for.
    fn merge_old(&mut self, cutoff: Timestamp) -> Outcome<()> {
        let merged = self.store.0.index.merged_through();
        let next = self.read(|connection, _| log::row(connection, merged + 1))?;
        let is_old = next.is_some_and(|row| row.is_whole() && row.send_time() < cutoff);
        if is_old { self.merge_early() } else { Ok(()) }
    }

    /// Merges what is in memory at this moment.
    pub(super) fn merge_early(&mut self) -> Outcome<()> {
        let (through, ..) = self.store.0.index.progress();
        while self.store.0.index.merged_through() < through && self.write(|| MergeEarly)? {}
        Ok(())
    }
}

/// The last position whose row may be removed: merged, since what is in memory is read back from consecutive
/// rows; and not the log's last, which says where it goes on.
pub(super) fn removable_through(index: &Index) -> i64 {
    let (last, ..) = index.progress();
    index.merged_through().min(last - 1)
}

/// What is needed of a row to remove it.
struct Head {
    position: i64,
    send_time: Timestamp,
    bytes: i64,
    /// In the mailboxes that are moved by it.
    entries: Vec<(UserId, i64)>,
    /// It stays: another mailbox has it, or it is not whole and left for those who may mend it.
    is_kept: bool,
}

/// The next rows, and whether there are no more, or none that can be read.
fn heads(connection: &mut SqliteConnection, ends: Interval) -> QueryResult<(Vec<Head>, bool)> {
    let mut heads = Vec::new();
    for row in log::rows_between(connection, ends, true)? {
        let Some(row) = unless_damaged(row)? else { return Ok((heads, true)) };
        heads.push(Head::of(&row));
        if heads.len() == ROWS_AT_A_TIME {
            return Ok((heads, false));
        }
    }
    Ok((heads, true))
}

impl Head {
    fn of(row: &LogRow) -> Self {
        let (position, send_time) = (row.position, row.send_time());
        let bytes = i64::try_from(row.body_bytes()).unwrap_or(i64::MAX);
        if row.is_whole() {
            Self { position, send_time, bytes, entries: row.places().entries, is_kept: false }
        } else {
            // Its time may be what is wrong with it.
            let send_time = Timestamp::from_micros(i64::MIN);
            Self { position, send_time, bytes, entries: Vec::new(), is_kept: true }
        }
    }
}

impl Batch {
    fn is_full(&self) -> bool {
        self.rows_count >= BATCH_ROWS_MAX || self.entries.len() >= BATCH_OWNERS_MAX
    }

    fn add(&mut self, row: &Head) {
        self.through = row.position;
        for (owner, sequence) in &row.entries {
            let first = Met { first: *sequence, last: *sequence, bytes: 0 };
            let met = self.entries.entry(*owner).or_insert(first);
            met.last = *sequence;
            met.bytes += row.bytes;
        }
        if !row.is_kept {
            self.rows_count += 1;
            add_position(&mut self.rows, row.position);
        }
    }
}

/// Adds a position that is higher than all before it.
pub(super) fn add_position(intervals: &mut Vec<Interval>, position: i64) {
    match intervals.last_mut() {
        Some((first, last)) if *last + 1 == position && position - *first < ITEM_ROWS_MAX => {
            *last = position;
        }
        _ => intervals.push((position, position)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_removed_together_as_many_as_an_item_holds() {
        let together = |positions: &mut dyn Iterator<Item = i64>| {
            let mut intervals = Vec::new();
            positions.for_each(|position| add_position(&mut intervals, position));
            intervals
        };
        assert_eq!(together(&mut [1, 2, 3, 5, 6, 9].into_iter()), [(1, 3), (5, 6), (9, 9)]);
        let (first, max) = (7, ITEM_ROWS_MAX);
        let more = together(&mut (first..=first + max));
        assert_eq!(more, [(first, first + max - 1), (first + max, first + max)]);
    }
}
