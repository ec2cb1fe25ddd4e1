//! Mailbox by mailbox: what was acknowledged, and users for whom something else holds than for the rest.

use std::collections::BTreeMap;

use diesel::prelude::*;

use super::count::raise;
use super::{Outcome, Retention, Worker, overrides};
use crate::domain::{Sequence, Timestamp, UserId};
use crate::store::error::unless_damaged;
use crate::store::index::{Filter, PageStart};
use crate::store::writer::RaiseFloors;
use crate::store::{Store, directory, log};

/// Entries of one mailbox that are looked at in one snapshot.
const ENTRIES_AT_A_TIME: usize = 256;

/// Users who are looked for in one snapshot.
const USERS_AT_A_TIME: i64 = 1_024;

/// Where a mailbox is to begin, as far as it was looked at.
struct Due {
    first: i64,
    /// What was there when it was looked at.
    before: i64,
    /// There may be more.
    has_more: bool,
}

impl Worker {
    /// Reads for whom something else holds than for the rest, and removes what those mailboxes need not
    /// keep, and those that were among them before.
    pub(super) fn apply_overrides(&mut self, now: Timestamp) -> Outcome<()> {
        let overrides = self.read(|connection, _| overrides::all(connection))?;
        let before = std::mem::replace(&mut self.overrides, overrides);
        let mut all = self.overrides.clone();
        for user in before.into_keys() {
            all.entry(user).or_insert(self.options.keep);
        }
        for (user, keep) in all {
            self.trim(user, keep, now)?;
        }
        Ok(())
    }

    /// Removes what was acknowledged, where the server does not keep that.
    pub(super) fn remove_acknowledged(&mut self, now: Timestamp) -> Outcome<()> {
        let after_acknowledgement = self.options.keep.after_acknowledgement;
        if after_acknowledgement.is_none() {
            return Ok(());
        }
        let keep = Retention { after_acknowledgement, ..Retention::default() };
        let mut after = UserId(0);
        loop {
            let (users, last) = self.read(|connection, _| {
                directory::who_acknowledged(connection, after, USERS_AT_A_TIME)
            })?;
            for user in users {
                if !self.overrides.contains_key(&user) {
                    self.trim(user, keep, now)?;
                }
            }
            match last {
                Some(last) => after = last,
                None => return Ok(()),
            }
        }
    }

    /// Lets a mailbox begin with the first entry that is to be kept.
    fn trim(&mut self, owner: UserId, keep: Retention, now: Timestamp) -> Outcome<()> {
        if keep.is_everything() {
            return Ok(());
        }
        loop {
            let due = self.read(|connection, store| due(connection, store, owner, keep, now))?;
            if due.first > due.before {
                let ends = (due.before, due.first);
                let raise = self.read(|connection, store| raise(connection, store, owner, ends))?;
                self.work(RaiseFloors(vec![raise]))?;
            }
            if !due.has_more {
                return Ok(());
            }
        }
    }
}

/// Where a mailbox is to begin by what is to be kept of it.
fn due(
    connection: &mut SqliteConnection,
    store: &Store,
    owner: UserId,
    keep: Retention,
    now: Timestamp,
) -> QueryResult<Due> {
    let range = store.0.index.range(connection, owner)?;
    let count = keep.count.map_or(i64::MAX, |it| i64::try_from(it.get()).unwrap_or(i64::MAX));
    let before_it = range.first.get();
    let mut first = before_it.max(range.last.get().saturating_sub(count) + 1);
    if keep.age.is_none() && keep.after_acknowledgement.is_none() {
        return Ok(Due { first, before: before_it, has_more: false });
    }
    let acknowledged = directory::acknowledged_through(connection, owner)?;
    let start = PageStart::After(Sequence::parse(first - 1).unwrap_or(Sequence::ZERO));
    let listing = store.0.index.list(connection, owner, start, Filter::ALL, ENTRIES_AT_A_TIME)?;
    let is_full = listing.entries.len() == ENTRIES_AT_A_TIME;
    for entry in listing.entries {
        // What cannot be read stays, and all behind it.
        let row = unless_damaged(log::row(connection, entry.position))?.flatten();
        let Some(row) = row.filter(log::LogRow::is_whole) else {
            return Ok(Due { first, before: before_it, has_more: false });
        };
        let is_older = |age| row.send_time() < now.before(age);
        let is_acknowledged = entry.sequence <= acknowledged.get();
        let goes = keep.age.is_some_and(is_older)
            || keep.after_acknowledgement.is_some_and(|age| is_acknowledged && is_older(age));
        if !goes {
            return Ok(Due { first, before: before_it, has_more: false });
        }
        first = entry.sequence + 1;
    }
    Ok(Due { first, before: before_it, has_more: is_full })
}

/// The users for whom something else holds.
pub(super) type Overrides = BTreeMap<UserId, Retention>;
