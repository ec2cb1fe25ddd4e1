//! Merging a frozen segment into the tables, in the order of their keys, a slice at a time.
//!
//! In key order a page of a table is read and written once for all the entries that fall on it; at
//! every commit it would be once for each entry. Which runs and rows are written depends on the
//! segment alone, so a merge that was cut off begins again and writes the same.

use std::sync::Arc;

use diesel::prelude::*;

use super::entry::RequestKey;
use super::tail::{REQUEST_SHARDS, Segment};
use super::{request_runs, tables};
use crate::domain::UserId;

/// The most entries of a run: it stays within one page.
const RUN_ENTRIES_MAX: usize = 256;

/// What writing one row costs, in entries of a run: the unit of a slice's budget.
const ROW_COST: usize = 16;

/// A segment of which this part has request keys, and so many have, keeps them in runs at first. Fewer
/// are as well written to their table at once.
const KEYS_IN_RUNS_PART: usize = 4;
const KEYS_IN_RUNS_MIN: usize = 8;

/// A merge under way.
pub(super) struct Merge {
    segment: Arc<Segment>,
    owners: Vec<UserId>,
    /// Whether the request keys are written in runs, to be folded into their table later.
    keys_in_runs: bool,
    at: Cursor,
    /// The shard that the cursor is in, in order: kept from slice to slice.
    requests: Option<(usize, Vec<(RequestKey, i64)>)>,
}

/// What is to be written next. It moves when a slice is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cursor {
    /// The mailbox of the owner with this number, from this entry.
    Mailboxes { owner: usize, entry: usize },
    /// The shard of request keys, from this key.
    Requests { shard: usize, key: usize },
    /// Nothing.
    Done,
}

impl Merge {
    /// `segment_rows` is what a whole segment has.
    pub(super) fn of(segment: Arc<Segment>, segment_rows: usize) -> Self {
        let owners = segment.owners();
        let keys_min = KEYS_IN_RUNS_MIN.max(segment_rows / KEYS_IN_RUNS_PART);
        let keys_in_runs = segment.request_keys() >= keys_min;
        let at = Cursor::Mailboxes { owner: 0, entry: 0 };
        Self { segment, owners, keys_in_runs, at, requests: None }
    }

    /// Whether it writes runs of request keys.
    pub(super) fn has_keys_in_runs(&self) -> bool {
        self.keys_in_runs
    }

    /// The position up to which it goes.
    pub(super) fn through(&self) -> i64 {
        self.segment.last_position()
    }

    /// The budget that is enough for `messages` of the segment, if those are as its average.
    pub(super) fn budget(&self, messages: usize) -> usize {
        let requests = if self.keys_in_runs {
            request_runs::SHARDS * ROW_COST + self.segment.request_keys()
        } else {
            self.segment.request_keys() * ROW_COST
        };
        let total = self.owners.len() * ROW_COST + self.segment.rows() * 2 + requests;
        (total * messages).div_ceil(self.segment.rows().max(1))
    }

    /// Writes the next slice within the caller's transaction, and says what is next once that is
    /// committed. The last slice says in the database that the merge is done.
    pub(super) fn write_slice(
        &mut self,
        connection: &mut SqliteConnection,
        budget: usize,
    ) -> QueryResult<Cursor> {
        if self.at == (Cursor::Mailboxes { owner: 0, entry: 0 }) {
            tables::set_merging(connection, self.through())?;
        }
        let mut at = self.at;
        let mut cost = 0;
        while cost < budget {
            at = match at {
                Cursor::Mailboxes { owner, entry } => {
                    let (next, entries) = self.write_run(connection, owner, entry)?;
                    cost += ROW_COST + entries;
                    next
                }
                Cursor::Requests { shard, key } => {
                    let (next, written) =
                        self.write_requests(connection, (shard, key), budget - cost)?;
                    cost += written;
                    next
                }
                Cursor::Done => break,
            };
        }
        if at == Cursor::Done {
            tables::set_merged(connection, self.through())?;
        }
        Ok(at)
    }

    /// The slice is on disk.
    pub(super) fn committed(&mut self, next: Cursor) {
        self.at = next;
    }

    fn write_run(
        &self,
        connection: &mut SqliteConnection,
        owner: usize,
        entry: usize,
    ) -> QueryResult<(Cursor, usize)> {
        let Some(&id) = self.owners.get(owner) else {
            return Ok((Cursor::Requests { shard: 0, key: 0 }, 0));
        };
        let run = self.segment.entries(id, entry, RUN_ENTRIES_MAX);
        tables::put_run(connection, id, &run)?;
        let next = if run.len() == RUN_ENTRIES_MAX {
            Cursor::Mailboxes { owner, entry: entry + run.len() }
        } else {
            Cursor::Mailboxes { owner: owner + 1, entry: 0 }
        };
        Ok((next, run.len()))
    }

    /// Writes request keys from this one on, for about as much as `budget`: those of one shard at most.
    /// Also what it cost.
    fn write_requests(
        &mut self,
        connection: &mut SqliteConnection,
        (shard, key): (usize, usize),
        budget: usize,
    ) -> QueryResult<(Cursor, usize)> {
        if shard == REQUEST_SHARDS {
            return Ok((Cursor::Done, 0));
        }
        let keys = match &self.requests {
            Some((kept, keys)) if *kept == shard => keys,
            _ => &self.requests.insert((shard, self.segment.requests(shard))).1,
        };
        let rest = &keys[key.min(keys.len())..];
        let (written, cost) = if self.keys_in_runs {
            let part = rest.first().map(|(first, _)| request_runs::shard(*first));
            let run = rest.iter().take_while(|(key, _)| Some(request_runs::shard(*key)) == part);
            let run = &rest[..run.count()];
            if let Some(part) = part {
                request_runs::put(connection, part, self.segment.first_position(), run)?;
            }
            (run.len(), ROW_COST + run.len())
        } else {
            let slice = &rest[..budget.div_ceil(ROW_COST).min(rest.len())];
            for (key, position) in slice {
                tables::put_request(connection, *key, *position)?;
            }
            (slice.len(), ROW_COST * slice.len())
        };
        let next = key + written;
        let next = if next < keys.len() {
            Cursor::Requests { shard, key: next }
        } else {
            Cursor::Requests { shard: shard + 1, key: 0 }
        };
        Ok((next, cost))
    }
}
