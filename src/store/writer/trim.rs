//! The writes of retention: long works, a step at a time beside the messages.
//!
//! A step ends after a few items or a moment's time, whichever is first, so that the messages that share its
//! commit, and those behind it, hardly wait. Each is a transaction that leaves everything as it must be.

use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel::prelude::*;

use super::{Transaction, Write};
use crate::domain::{Sequence, User, UserId};
use crate::store::accounts::audit::Actor;
use crate::store::error::unreadable;
use crate::store::expirations::{self, Expiration};
use crate::store::index::{self, RequestKey};
use crate::store::removed::{self, Interval};
use crate::store::retention::state::{self, State};
use crate::store::retention::{Retention, overrides};
use crate::store::{StoreError, log, mailboxes};

/// How long a step may take before its commit. One item is done in any case.
const STEP_TIME: Duration = Duration::from_millis(1);

/// The messages of whose merge one step writes the share.
const MERGE_MESSAGES: usize = 256;

/// A work that is done item by item.
pub(in crate::store) trait Work: Send + Sync + 'static {
    /// How many items it has.
    fn items(&self) -> usize;

    /// Does one.
    fn item(&self, number: usize, transaction: &mut Transaction<'_>) -> QueryResult<()>;

    /// Ends a step that did these items.
    fn end_step(&self, _: std::ops::Range<usize>, _: &mut Transaction<'_>) -> QueryResult<()> {
        Ok(())
    }
}

/// A step of a work: its items from `from` on, as many as fit. Which is the next.
pub(in crate::store) struct Step<W> {
    pub(in crate::store) work: Arc<W>,
    pub(in crate::store) from: usize,
    pub(in crate::store) items_max: usize,
}

impl<W: Work> Write for Step<W> {
    type Output = usize;

    fn apply(
        &mut self,
        transaction: &mut Transaction<'_>,
    ) -> QueryResult<Result<usize, StoreError>> {
        let began = Instant::now();
        let end = self.work.items().min(self.from.saturating_add(self.items_max));
        let mut next = self.from;
        while next < end && (next == self.from || began.elapsed() < STEP_TIME) {
            self.work.item(next, transaction)?;
            next += 1;
        }
        self.work.end_step(self.from..next, transaction)?;
        Ok(Ok(next))
    }
}

/// Lets mailboxes begin later.
pub(in crate::store) struct RaiseFloors(pub(in crate::store) Vec<Raise>);

/// Where a mailbox is to begin, and what it loses by that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Raise {
    pub(in crate::store) owner: UserId,
    /// Where it begins as yet.
    pub(in crate::store) from: i64,
    pub(in crate::store) first: i64,
    /// The bytes of the bodies between the two; not counted where sizes are not bounded.
    pub(in crate::store) bytes: i64,
}

impl Work for RaiseFloors {
    fn items(&self) -> usize {
        self.0.len()
    }

    fn item(&self, number: usize, transaction: &mut Transaction<'_>) -> QueryResult<()> {
        let Raise { owner, from, first, bytes } = self.0[number];
        if mailboxes::raise(transaction.connection, owner, first)? {
            transaction.sizes.lose(transaction.connection, owner, (from, first), bytes)?;
        }
        Ok(())
    }
}

/// Removes rows of the log that no mailbox has any more: these positions, in order, all of which have a row.
pub(in crate::store) struct RemoveRows(pub(in crate::store) Vec<Interval>);

impl Work for RemoveRows {
    fn items(&self) -> usize {
        self.0.len()
    }

    fn item(&self, number: usize, transaction: &mut Transaction<'_>) -> QueryResult<()> {
        let (first, last) = self.0[number];
        let removed = log::remove(transaction.connection, (first, last))?;
        // One that was lost must not pass for removed.
        if i64::try_from(removed).ok() != Some(last - first + 1) {
            return Err(unreadable("message_log.position"));
        }
        removed::add(transaction.connection, (first, last))
    }

    fn end_step(
        &self,
        items: std::ops::Range<usize>,
        transaction: &mut Transaction<'_>,
    ) -> QueryResult<()> {
        let rows: i64 = self.0[items].iter().map(|(first, last)| last - first + 1).sum();
        state::change(transaction.connection, |state| {
            state.removed_unswept += rows;
            state.removed_total += rows;
        })
    }
}

/// Notes that these entries of mailboxes, all below their beginnings, are dealt with, and deletes the runs
/// that have no others.
pub(in crate::store) struct Settle(pub(in crate::store) Vec<(UserId, (i64, i64))>);

impl Work for Settle {
    fn items(&self) -> usize {
        self.0.len()
    }

    fn item(&self, number: usize, transaction: &mut Transaction<'_>) -> QueryResult<()> {
        let (owner, entries) = self.0[number];
        let through = mailboxes::settle(transaction.connection, owner, entries)?;
        index::delete_runs(transaction.connection, owner, through)
    }
}

/// Deletes rows of request keys whose messages are gone, and notes how far all were looked through.
pub(in crate::store) struct ForgetRequests {
    pub(in crate::store) rows: Vec<(RequestKey, i64)>,
    /// `None`: to the end.
    pub(in crate::store) through: Option<RequestKey>,
}

impl Work for ForgetRequests {
    /// The note is the last item.
    fn items(&self) -> usize {
        self.rows.len() + 1
    }

    fn item(&self, number: usize, transaction: &mut Transaction<'_>) -> QueryResult<()> {
        let connection = &mut *transaction.connection;
        match self.rows.get(number) {
            Some((key, position)) => index::delete_request(connection, *key, *position),
            None => state::change(connection, |state| {
                state.swept_key = self.through.map(|RequestKey(key)| key);
            }),
        }
    }
}

/// Erases bodies that are due.
pub(in crate::store) struct EraseBodies(pub(in crate::store) Vec<Expiration>);

impl Work for EraseBodies {
    fn items(&self) -> usize {
        self.0.len()
    }

    fn item(&self, number: usize, transaction: &mut Transaction<'_>) -> QueryResult<()> {
        let keys = transaction.index.index().keys();
        let erased = expirations::erase(transaction.connection, keys, self.0[number])?;
        for (entry, bytes) in erased {
            transaction.sizes.shrink(transaction.connection, entry, bytes)?;
        }
        Ok(())
    }
}

/// Changes the state by what retention knows: the whole of a work in one step.
pub(in crate::store) struct Note(
    pub(in crate::store) fn(&mut State, i64, i64),
    pub(in crate::store) (i64, i64),
);

impl Write for Note {
    type Output = ();

    fn apply(&mut self, transaction: &mut Transaction<'_>) -> QueryResult<Result<(), StoreError>> {
        let Self(change, (one, other)) = *self;
        state::change(transaction.connection, |state| change(state, one, other)).map(Ok)
    }
}

/// Merges a slice of what is in memory, although it is not much. Whether there is anything to merge, and it
/// can be.
pub(in crate::store) struct MergeEarly;

impl Write for MergeEarly {
    type Output = bool;

    fn apply(
        &mut self,
        transaction: &mut Transaction<'_>,
    ) -> QueryResult<Result<bool, StoreError>> {
        Ok(Ok(transaction.index.merge_early(MERGE_MESSAGES)))
    }
}

/// Moves some pages from the database file's end to free ones before them, so that it can be shortened.
pub(in crate::store) struct GiveBack {
    pub(in crate::store) pages: u32,
}

impl Write for GiveBack {
    type Output = ();

    fn apply(&mut self, transaction: &mut Transaction<'_>) -> QueryResult<Result<(), StoreError>> {
        use diesel::connection::SimpleConnection as _;
        let pragma = format!("PRAGMA incremental_vacuum({})", self.pages);
        transaction.connection.batch_execute(&pragma).map(Ok)
    }
}

impl Transaction<'_> {
    /// Removes all of a mailbox: it begins after its last entry. What that is. The next pass begins to remove
    /// the messages that the other mailbox has lost as well.
    pub(super) fn empty_mailbox(&mut self, owner: UserId) -> QueryResult<Sequence> {
        let Transaction { connection, sequences, index, .. } = self;
        let last = sequences.range(connection, index.index(), owner)?.last;
        mailboxes::raise(connection, owner, last.next().get())?;
        Ok(last)
    }
}

/// [`Transaction::empty_mailbox`] by itself.
#[cfg(test)]
pub(in crate::store) struct EmptyMailbox(pub(in crate::store) UserId);

#[cfg(test)]
impl Write for EmptyMailbox {
    type Output = Sequence;

    fn apply(
        &mut self,
        transaction: &mut Transaction<'_>,
    ) -> QueryResult<Result<Sequence, StoreError>> {
        transaction.empty_mailbox(self.0).map(Ok)
    }
}

/// Sets what is kept of a user's mailbox; `None`: what the server keeps.
pub(in crate::store) struct SetRetention {
    pub(in crate::store) user: User,
    pub(in crate::store) keep: Option<Retention>,
    pub(in crate::store) by: Actor,
}

impl Write for SetRetention {
    type Output = ();

    fn apply(&mut self, transaction: &mut Transaction<'_>) -> QueryResult<Result<(), StoreError>> {
        overrides::set(transaction.connection, self.user.id, self.keep.as_ref())?;
        let details = self.keep.as_ref().map_or_else(String::new, Retention::described);
        transaction.note((&self.by, "retention.set"), &self.user.name, details)?;
        Ok(Ok(()))
    }
}
