//! What is checked when a store is opened: that the newest messages of the log have their places in
//! the mailboxes. The writer numbers from the mailboxes' ends, so one that ends too early would give
//! a sequence out twice.
//!
//! It looks at the newest rows only, which takes milliseconds however much is stored. Damage of
//! single rows is not its business: reading finds it, where it stands.

use std::collections::HashSet;
use std::path::Path;

use diesel::prelude::*;
use tracing::warn;

use super::OpenError;
use super::error::{IndexDamage, is_damage, unless_damaged};
use super::index::{Entry, Index};
use super::log::{self, Places};
use super::mailboxes;
use crate::domain::{Sequence, UserId};

/// How many of the log's newest rows are checked.
const ROWS_CHECKED_MAX: usize = 256;

/// A place in which the index of a mailbox and the log differ.
struct Difference {
    damage: IndexDamage,
    owner: UserId,
    sequence: i64,
    position: i64,
}

/// Checks the newest rows of the log against the index of the mailboxes that they entered.
pub(super) fn check(
    connection: &mut SqliteConnection,
    index: &Index,
    database: &Path,
) -> Result<(), OpenError> {
    let path = database.to_owned();
    match difference(connection, index) {
        Ok(None) => Ok(()),
        Ok(Some(Difference { damage, owner, sequence, position })) => {
            Err(OpenError::Damaged { path, damage, owner, sequence, position })
        }
        Err(source) => Err(OpenError::Database { path, source }),
    }
}

fn difference(connection: &mut SqliteConnection, index: &Index) -> QueryResult<Option<Difference>> {
    let mut owners = HashSet::new();
    for Places { position, entries } in newest_rows(connection)? {
        for (owner, sequence) in entries {
            owners.insert(owner);
            if sequence < mailboxes::first(connection, owner)?.get() {
                // The mailbox has lost it; only another one keeps the row.
                continue;
            }
            let found = Sequence::parse(sequence)
                .ok()
                .map(|sequence| unless_damaged(index.entry(connection, owner, sequence)));
            let damage = match found.transpose()?.flatten() {
                Some(Some(found)) if found.position == position => continue,
                Some(Some(_)) => IndexDamage::EntryElsewhere,
                Some(None) => IndexDamage::EntryMissing,
                // A sequence or an entry that cannot be read: no evidence.
                None => continue,
            };
            // A row that is not whole says nothing about the index.
            if is_whole(connection, position)? {
                return Ok(Some(Difference { damage, owner, sequence, position }));
            }
        }
    }
    for owner in owners {
        let last = unless_damaged(index.last_entry(connection, owner))?;
        let Some(Some(Entry { sequence, position, .. })) = last else { continue };
        if sequence < mailboxes::first(connection, owner)?.get() {
            continue;
        }
        if !log_may_have(connection, owner, sequence, position)? {
            let damage = IndexDamage::EntryBeyondLog;
            return Ok(Some(Difference { damage, owner, sequence, position }));
        }
    }
    Ok(None)
}

/// The places that the log's newest rows give their messages, the newest first; up to the first one
/// that cannot be read.
fn newest_rows(connection: &mut SqliteConnection) -> QueryResult<Vec<Places>> {
    let mut rows = Vec::new();
    for row in log::newest_places(connection, ROWS_CHECKED_MAX)? {
        match row {
            Ok(row) => rows.push(row),
            Err(error) if is_damage(&error) => {
                warn!(%error, "a row of the log cannot be read");
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(rows)
}

fn is_whole(connection: &mut SqliteConnection, position: i64) -> QueryResult<bool> {
    let row = unless_damaged(log::row(connection, position))?;
    Ok(row.flatten().is_some_and(|row| row.is_whole()))
}

/// Whether the log's row at `position` gives its message `sequence` in `owner`'s mailbox, or is
/// there and does not tell.
fn log_may_have(
    connection: &mut SqliteConnection,
    owner: UserId,
    sequence: i64,
    position: i64,
) -> QueryResult<bool> {
    Ok(match unless_damaged(log::row(connection, position))? {
        None => true,
        Some(None) => false,
        Some(Some(row)) => !row.is_whole() || row.places().entries.contains(&(owner, sequence)),
    })
}
