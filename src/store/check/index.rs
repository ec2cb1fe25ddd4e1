//! The indexes, against what the log says.

use diesel::prelude::*;

use super::log::{entry_hash, hash};
use super::{CheckReport, Finding, Mailboxes, Removed, Sum};
use crate::domain::{Sequence, UserId};
use crate::store::error::is_damage;
use crate::store::index::{self, Entry, RequestKeys};
use crate::store::log;

/// How far the indexes go, and what makes the request keys.
pub(super) struct State {
    pub(super) merged_through: i64,
    pub(super) keys: RequestKeys,
}

/// Reads the state; `None`, with a finding, when it is not what was written.
pub(super) fn state(
    connection: &mut SqliteConnection,
    report: &mut CheckReport,
) -> QueryResult<Option<State>> {
    let problem = match index::examined::state(connection) {
        Ok(Some((merged_through, keys))) => return Ok(Some(State { merged_through, keys })),
        // Never opened by a version that has one: a start makes it.
        Ok(None) => return Ok(None),
        Err(error) if is_damage(&error) => "it is not what was written",
        Err(error) => return Err(error),
    };
    report.add(Finding::IndexState { problem });
    Ok(None)
}

pub(super) fn examine(
    connection: &mut SqliteConnection,
    state: &State,
    (mailboxes, removed): (&mut Mailboxes, &Removed),
    requests: Sum,
    report: &mut CheckReport,
) -> QueryResult<()> {
    let last_position = log::last_position(connection)?;
    if state.merged_through > last_position {
        report.add(Finding::IndexState { problem: "the indexes go on beyond the log" });
    }
    runs(connection, state, mailboxes, report)?;
    request_keys(connection, state, removed, requests, report)?;
    pending(connection, state, last_position, report)
}

fn runs(
    connection: &mut SqliteConnection,
    state: &State,
    mailboxes: &mut Mailboxes,
    report: &mut CheckReport,
) -> QueryResult<()> {
    let mut unreadable = Vec::new();
    index::examined::visit_runs(connection, |UserId(owner), entry| match entry {
        Some(entry) if entry.position <= state.merged_through => {
            // An owner who is not there: the log's rows tell.
            let mailbox = mailboxes.entry(owner).or_default();
            if entry.sequence >= mailbox.first {
                mailbox.in_tables.add(entry_hash(&entry));
            }
        }
        // Of the merge that is under way.
        Some(_) => {}
        None => unreadable.push(owner),
    })?;
    let mut differing: Vec<i64> = mailboxes
        .iter()
        .filter(|(_, mailbox)| mailbox.in_log != mailbox.in_tables)
        .map(|(owner, _)| *owner)
        .chain(unreadable)
        .collect();
    differing.sort_unstable();
    differing.dedup();
    for owner in differing {
        let first = mailboxes.get(&owner).map_or(0, |mailbox| mailbox.first);
        let first = first.max(Sequence::FIRST.get());
        let sequence = first_difference(connection, state, UserId(owner), first)?;
        report.add(Finding::MailboxIndex { owner, sequence });
    }
    Ok(())
}

/// The first sequence at which the tables do not say what the log says. `None` when every entry leads to
/// its row, so that the log has more than the tables.
fn first_difference(
    connection: &mut SqliteConnection,
    state: &State,
    owner: UserId,
    first: i64,
) -> QueryResult<Option<i64>> {
    let mut entries = Vec::new();
    let visited = index::examined::visit_mailbox(connection, owner, state.merged_through, |it| {
        if it.sequence >= first {
            entries.push(it);
        }
    });
    let is_whole = match visited {
        Ok(()) => true,
        Err(error) if is_damage(&error) => false,
        Err(error) => return Err(error),
    };
    let mut expected = first;
    for entry in entries {
        if entry.sequence != expected || !leads_to_its_row(connection, owner, &entry)? {
            return Ok(Some(expected));
        }
        expected += 1;
    }
    Ok((!is_whole).then_some(expected))
}

fn leads_to_its_row(
    connection: &mut SqliteConnection,
    owner: UserId,
    entry: &Entry,
) -> QueryResult<bool> {
    let row = match log::row(connection, entry.position) {
        Ok(row) => row,
        Err(error) if is_damage(&error) => None,
        Err(error) => return Err(error),
    };
    // A row that is not whole has a finding of its own.
    Ok(row.is_some_and(|row| {
        !row.is_whole() || row.mailbox_entries().any(|placed| placed == (owner, *entry))
    }))
}

fn request_keys(
    connection: &mut SqliteConnection,
    state: &State,
    removed: &Removed,
    in_log: Sum,
    report: &mut CheckReport,
) -> QueryResult<()> {
    let mut in_index = Sum::default();
    index::examined::visit_request_rows(connection, |key, position| {
        // Those of removed messages are deleted later.
        if position <= state.merged_through && !removed.contains(position) {
            in_index.add(hash(&[key.0, position]));
        }
    })?;
    if in_index != in_log {
        let (in_log, in_index) = (in_log.count, in_index.count);
        report.add(Finding::RequestIndex { in_log, in_index });
    }
    Ok(())
}

/// What is in no table must be in `pending_entries`, as the log says it.
fn pending(
    connection: &mut SqliteConnection,
    state: &State,
    last_position: i64,
    report: &mut CheckReport,
) -> QueryResult<()> {
    let mut placed = Vec::new();
    index::examined::visit_pending(connection, state.merged_through, |position, entries| {
        placed.push((position, entries));
    })?;
    let mut next = state.merged_through + 1;
    for (position, entries) in placed {
        let row = log::row(connection, position)?;
        let is_so = row.is_some_and(|row| !row.is_whole() || row.mailbox_entries().eq(entries));
        if !is_so {
            break;
        }
        next = position + 1;
    }
    if next <= last_position {
        report.add(Finding::Pending { position: next });
    }
    Ok(())
}
