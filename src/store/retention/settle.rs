//! What mailboxes have lost, one mailbox after the other: the rows that no mailbox has any more go.

use std::time::Duration;

use diesel::prelude::*;
use tracing::error;

use super::age::{add_position, removable_through};
use super::{Outcome, Worker};
use crate::domain::UserId;
use crate::store::index::Entry;
use crate::store::mailboxes::Floor;
use crate::store::removed::Interval;
use crate::store::writer::{RemoveRows, Settle};
use crate::store::{Store, log, mailboxes, removed};

/// Mailboxes that are looked at together, so that rows of theirs that stand near each other go together.
const MAILBOXES_AT_A_TIME: i64 = 64;

/// Entries that are looked at in one snapshot.
const ENTRIES_AT_A_TIME: usize = 512;

/// What is in memory is merged, so that it can be removed, no more often than this.
const MERGE_EARLY_INTERVAL: Duration = Duration::from_hours(1);

/// What some mailboxes have lost.
#[derive(Debug, Default)]
struct Lost {
    /// How many entries were looked at.
    looked_at: usize,
    /// The positions whose rows no mailbox has any more.
    positions: Vec<i64>,
    /// The entries that are dealt with, by mailbox.
    entries: Vec<(UserId, (i64, i64))>,
    /// Where to go on: in this mailbox again, or after it.
    next: Option<UserId>,
    /// Some cannot be removed before they are merged.
    wait_for_merge: bool,
}

impl Worker {
    /// Removes what mailboxes have lost.
    pub(super) fn settle(&mut self) -> Outcome<()> {
        let (mut after, mut wait_for_merge) = (UserId(0), false);
        loop {
            let mut lost = self.read(|connection, store| lost(connection, store, after))?;
            wait_for_merge |= lost.wait_for_merge;
            lost.positions.sort_unstable();
            lost.positions.dedup();
            let mut rows: Vec<Interval> = Vec::new();
            for position in lost.positions {
                add_position(&mut rows, position);
            }
            self.work(RemoveRows(rows))?;
            self.work(Settle(lost.entries))?;
            match lost.next {
                Some(next) => after = next,
                None => break,
            }
        }
        let is_due = |at: std::time::Instant| at.elapsed() >= MERGE_EARLY_INTERVAL;
        if wait_for_merge && self.merged_early.is_none_or(is_due) {
            self.merged_early = Some(std::time::Instant::now());
            self.merge_early()?;
            return self.settle();
        }
        Ok(())
    }
}

/// What the next mailboxes after `after` have lost.
fn lost(connection: &mut SqliteConnection, store: &Store, after: UserId) -> QueryResult<Lost> {
    let end = removable_through(&store.0.index);
    let mut lost = Lost::default();
    let mailboxes = mailboxes::unsettled(connection, after, MAILBOXES_AT_A_TIME)?;
    for (owner, floor) in &mailboxes {
        let room = ENTRIES_AT_A_TIME.saturating_sub(lost.looked_at);
        if room == 0 {
            break;
        }
        let is_whole = lost.add(connection, store, (*owner, *floor), end, room)?;
        lost.next = Some(if is_whole { *owner } else { UserId(owner.0 - 1) });
    }
    Ok(lost)
}

impl Lost {
    /// Adds what a mailbox has lost, at most `limit` entries. Whether that is all that can be removed.
    fn add(
        &mut self,
        connection: &mut SqliteConnection,
        store: &Store,
        (owner, floor): (UserId, Floor),
        end: i64,
        limit: usize,
    ) -> QueryResult<bool> {
        let from = floor.removed_through + 1;
        let entries = entries(connection, store, (owner, floor), limit)?;
        let is_full = entries.len() == limit;
        self.looked_at += entries.len();
        let (mut through, mut is_cut) = (floor.removed_through, false);
        for entry in entries {
            if entry.position > end {
                is_cut = true;
                break;
            }
            match may_go(connection, owner, &entry)? {
                Verdict::Goes => self.positions.push(entry.position),
                Verdict::Stays => {}
                Verdict::Lost => {
                    error!(owner = owner.0, position = entry.position, "a row of the log is lost");
                    is_cut = true;
                    break;
                }
            }
            through = entry.sequence;
        }
        if through >= from {
            self.entries.push((owner, (from, through)));
        }
        let is_all = through >= floor.first - 1;
        self.wait_for_merge |= !is_all && !is_full;
        Ok(is_cut || !is_full)
    }
}

/// The entries below the mailbox's beginning that are still to be looked at, as far as they are merged.
fn entries(
    connection: &mut SqliteConnection,
    store: &Store,
    (owner, floor): (UserId, Floor),
    limit: usize,
) -> QueryResult<Vec<Entry>> {
    let mut entries = Vec::new();
    store.0.index.visit_merged(connection, owner, floor.removed_through + 1, |entry| {
        let is_below = entry.sequence < floor.first;
        if is_below {
            entries.push(entry);
        }
        is_below && entries.len() < limit
    })?;
    Ok(entries)
}

enum Verdict {
    /// No mailbox has it any more.
    Goes,
    /// The other mailbox has it, or it is gone already, or it is damaged and left where it is.
    Stays,
    /// It is absent, and was not removed.
    Lost,
}

/// Whether the row of an entry that `owner`'s mailbox has lost may go.
fn may_go(connection: &mut SqliteConnection, owner: UserId, entry: &Entry) -> QueryResult<Verdict> {
    let Some(row) = log::row(connection, entry.position)? else {
        let is_removed = removed::contains(connection, entry.position)?;
        return Ok(if is_removed { Verdict::Stays } else { Verdict::Lost });
    };
    if !row.is_whole() {
        return Ok(Verdict::Stays);
    }
    for (participant, sequence) in row.places().entries {
        let is_lost = participant == owner && sequence == entry.sequence;
        if !is_lost && sequence >= mailboxes::first(connection, participant)?.get() {
            return Ok(Verdict::Stays);
        }
    }
    Ok(Verdict::Goes)
}
