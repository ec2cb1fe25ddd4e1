//! By count: the log is walked from where that ended the last time, and the mailboxes that got something are
//! held against the bound.

use std::collections::BTreeSet;

use diesel::prelude::*;

use super::{Outcome, Worker};
use crate::domain::UserId;
use crate::store::retention::state;
use crate::store::writer::{Note, Raise, RaiseFloors, bytes_of};
use crate::store::{Store, log};

/// Rows read in one snapshot.
const ROWS_AT_A_TIME: usize = 512;

/// The mailboxes that are held against the bound together.
const BATCH_OWNERS_MAX: usize = 1 << 16;

/// Mailboxes whose ends are looked up in one snapshot.
const MAILBOXES_AT_A_TIME: usize = 128;

/// What it takes to let a mailbox begin later. The bytes that it loses are counted only where sizes are
/// bounded.
pub(super) fn raise(
    connection: &mut SqliteConnection,
    store: &Store,
    owner: UserId,
    (from, first): (i64, i64),
) -> QueryResult<Raise> {
    let bytes = match store.0.mailbox_limits.bytes_max {
        Some(_) => bytes_of(connection, &store.0.index, owner, (from, first - 1))?,
        None => 0,
    };
    Ok(Raise { owner, from, first, bytes })
}

impl Worker {
    /// Lets mailboxes begin with the newest entries that the server keeps.
    pub(super) fn bound_counts(&mut self) -> Outcome<()> {
        let Some(count) = self.options.keep.count else { return Ok(()) };
        let count = i64::try_from(count.get()).unwrap_or(i64::MAX);
        loop {
            let state = self.read(|connection, _| state::read(connection))?;
            let is_same = state.scanned_count == count;
            let mut through = if is_same { state.scanned_through } else { 0 };
            let (end, ..) = self.store.0.index.progress();
            if through >= end {
                return Ok(());
            }
            let mut owners = BTreeSet::new();
            while through < end && owners.len() < BATCH_OWNERS_MAX {
                through = self.owners_after(through, end, &mut owners)?;
            }
            self.bound(owners, count)?;
            let scanned = (through, count);
            self.write(|| {
                Note(
                    |state, through, count| {
                        (state.scanned_through, state.scanned_count) = (through, count);
                    },
                    scanned,
                )
            })?;
        }
    }

    /// Adds the owners of some mailboxes that got a message after this position. The position up to which
    /// they are.
    fn owners_after(
        &mut self,
        position: i64,
        end: i64,
        owners: &mut BTreeSet<UserId>,
    ) -> Outcome<i64> {
        let rows = self
            .read(|connection, _| log::participants_after(connection, position, ROWS_AT_A_TIME))?;
        let last = rows.last().map(|(position, ..)| *position);
        for (_, sender, receiver) in rows {
            owners.extend([sender, receiver]);
        }
        Ok(last.unwrap_or(end))
    }

    fn bound(&mut self, owners: BTreeSet<UserId>, count: i64) -> Outcome<()> {
        let mut floors = Vec::new();
        let is_as_the_rest = |owner: &UserId| !self.overrides.contains_key(owner);
        let owners: Vec<_> = owners.into_iter().filter(is_as_the_rest).collect();
        for some in owners.chunks(MAILBOXES_AT_A_TIME) {
            floors.extend(self.read(|connection, store| {
                let mut floors = Vec::new();
                for owner in some {
                    let range = store.0.index.range(connection, *owner)?;
                    let (from, first) =
                        (range.first.get(), range.last.get().saturating_sub(count) + 1);
                    if first > from {
                        floors.push(raise(connection, store, *owner, (from, first))?);
                    }
                }
                Ok(floors)
            })?);
        }
        self.work(RaiseFloors(floors))
    }
}
