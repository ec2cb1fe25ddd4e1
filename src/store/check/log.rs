//! The log: every row, in order.

use diesel::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::index::State;
use super::{CheckReport, Finding, Mailboxes, Removed, Sum, unless_unreadable};
use crate::domain::UserId;
use crate::store::log::{self, LogRow};
use crate::store::mailbox_sizes::Size;

/// Reads all rows. What those up to the index's mark stand for is summed up, for the indexes to be
/// compared with: by mailbox, and in `requests`; and in `expirations`, which bodies are to go.
pub(super) fn examine(
    connection: &mut SqliteConnection,
    state: Option<&State>,
    (mailboxes, removed): (&mut Mailboxes, &Removed),
    (requests, expirations): (&mut Sum, &mut Sum),
    report: &mut CheckReport,
) -> QueryResult<()> {
    let mut expected = 1;
    for row in log::rows_between(connection, (1, i64::MAX), true)? {
        // Without its position: the next one shows what is absent.
        let Some(row) = unless_unreadable(row)? else { continue };
        if row.position > expected {
            for (first, last) in removed.lost((expected, row.position - 1)) {
                report.add(Finding::RowsAbsent { first, last });
            }
        }
        if removed.contains(row.position) {
            let problem = "its row is still there";
            report.add(Finding::Removed { position: row.position, problem });
        }
        expected = row.position + 1;
        if !row.is_whole() {
            report.add(Finding::Row { position: row.position });
            continue;
        }
        report.messages += 1;
        place(&row, state, mailboxes, report);
        if let Some(time) = row.expires() {
            expirations.add(hash(&[time, row.position]));
        }
        let merged = state.filter(|state| row.position <= state.merged_through);
        if let Some(key) = merged.and_then(|state| row.request_key(&state.keys)) {
            requests.add(hash(&[key.0, row.position]));
        }
    }
    removed.check_end(expected - 1, state.map(|state| state.merged_through), report);
    for (owner, mailbox) in mailboxes {
        // One that begins elsewhere is counted again before it is used.
        let is_of_now = |size: &Size| size.from == mailbox.first.max(1);
        if mailbox.sized.is_some_and(|(size, bytes)| is_of_now(&size) && size.bytes != bytes) {
            let problem = "its size is not that of its messages";
            report.add(Finding::Mailbox { owner: *owner, problem });
        }
        let acknowledged = mailbox.acknowledged_through;
        if acknowledged > mailbox.last {
            let (owner, last) = (*owner, mailbox.last);
            report.add(Finding::AcknowledgedBeyond { owner, acknowledged, last });
        }
    }
    Ok(())
}

/// Holds a row against the mailboxes that it enters.
fn place(row: &LogRow, state: Option<&State>, mailboxes: &mut Mailboxes, report: &mut CheckReport) {
    let position = row.position;
    for entry in row.mailbox_entries() {
        let (UserId(owner), entry) = entry;
        report.entries += 1;
        let Some(mailbox) = mailboxes.get_mut(&owner) else {
            report.add(Finding::NoSuchUser { position, user: owner });
            continue;
        };
        if entry.sequence < mailbox.first {
            // Only another mailbox has it, or it is about to be removed.
            continue;
        }
        let (expected, found) = (mailbox.last + 1, entry.sequence);
        if found != expected {
            report.add(Finding::NotDense { owner, expected, found, position });
        }
        mailbox.last = mailbox.last.max(found);
        if let Some((size, bytes)) = &mut mailbox.sized
            && (size.from..=size.through).contains(&found)
        {
            *bytes += i64::try_from(row.body_bytes()).unwrap_or(i64::MAX);
        }
        if state.is_some_and(|state| position <= state.merged_through) {
            mailbox.in_log.add(entry_hash(&entry));
        }
    }
}

/// Stands for an entry of a mailbox, in the log and in the index alike.
pub(super) fn entry_hash(entry: &crate::store::index::Entry) -> u64 {
    let received = i64::from(entry.received);
    hash(&[entry.sequence, entry.position, received, entry.peer.0])
}

pub(super) fn hash(numbers: &[i64]) -> u64 {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    xxh3_64(&bytes)
}
