//! Pages of messages, read from the index and the log, each row checked.

use diesel::prelude::*;
use tracing::error;

use super::StoreError;
use super::directory::Directory;
use super::error::storage_error;
use super::index::{self, EntryRow, PageStart};
use crate::domain::{MailboxRange, Message, Sequence, UserId};

/// Which messages a page holds.
#[derive(Debug, Clone)]
pub struct PageQuery {
    /// Whose mailbox.
    pub owner: UserId,
    /// From where, and in which direction.
    pub start: PageStart,
    /// Only the conversation with this user.
    pub peer: Option<UserId>,
    /// Only what the owner received.
    pub received_only: bool,
    /// The most messages.
    pub messages_max: usize,
    /// The page ends when its bodies reach this size. One message fits always.
    pub bytes_max: usize,
}

/// A page, and the mailbox as it was when the page was read: one snapshot.
#[derive(Debug)]
pub struct Page {
    /// The messages in ascending order of sequence.
    pub messages: Vec<Message>,
    /// Whether more match in the direction of the page.
    pub has_more: bool,
    /// What the mailbox held.
    pub range: MailboxRange,
}

/// Reads a page. The caller wraps it in a read transaction.
///
/// A page ends before a damaged entry; a page that would begin with one is the error.
pub(super) fn read(
    connection: &mut SqliteConnection,
    directory: &Directory,
    query: &PageQuery,
) -> Result<Page, StoreError> {
    let range = index::range(connection, query.owner).map_err(failed)?;
    let (rows, mut has_more) = rows(connection, query).map_err(failed)?;
    let mut density = Density::new(query, &range);
    let mut messages = Vec::with_capacity(rows.len());
    for (key, row) in rows {
        let whole = match row {
            Some(row) => row.into_message(connection, directory).map_err(failed)?.ok(),
            None => None,
        };
        match whole.filter(|message| density.admits(key, message)) {
            Some(message) => messages.push(message),
            None if messages.is_empty() => return Err(damaged(connection, query, &density, key)),
            None => {
                has_more = true;
                break;
            }
        }
    }
    if messages.is_empty() && density.expects_more() {
        return Err(report(query.owner, density.expected));
    }
    if matches!(query.start, PageStart::Before(_)) {
        messages.reverse();
    }
    Ok(Page { messages, has_more, range })
}

/// The rows of a page, and whether there are more.
fn rows(
    connection: &mut SqliteConnection,
    query: &PageQuery,
) -> QueryResult<(Vec<EntryRow>, bool)> {
    let mut rows = Vec::new();
    let mut bytes = 0;
    let mut has_more = false;
    let take = |entry: EntryRow| {
        let size = entry.1.as_ref().map_or(0, super::log::LogRow::body_bytes);
        let full = rows.len() == query.messages_max || bytes + size > query.bytes_max;
        if full && !rows.is_empty() {
            has_more = true;
            return false;
        }
        bytes += size;
        rows.push(entry);
        true
    };
    let (start, received_only) = (query.start, query.received_only);
    let limit = query.messages_max + 1;
    match query.peer {
        None => index::mailbox(connection, query.owner, start, received_only, limit, take)?,
        Some(peer) => {
            let pair = (query.owner, peer);
            index::conversation(connection, pair, start, received_only, limit, take)?;
        }
    }
    Ok((rows, has_more))
}

/// A mailbox is dense: a page of all its entries that skips a sequence, or is empty before the
/// mailbox's end, has lost an entry.
struct Density {
    owner: UserId,
    /// Whether the page's keys are sequences, and whether every one of them must be there.
    keys_are_sequences: bool,
    every_entry: bool,
    expected: i64,
    step: i64,
    /// The last sequence in the direction of the page.
    end: i64,
}

impl Density {
    fn new(query: &PageQuery, range: &MailboxRange) -> Self {
        let (first, last) = (range.first.get(), range.last.get());
        let (expected, step, end) = match query.start {
            PageStart::After(after) => (after.get() + 1, 1, last),
            PageStart::Before(before) => (before.get().min(last + 1) - 1, -1, first),
        };
        Self {
            owner: query.owner,
            keys_are_sequences: query.peer.is_none(),
            every_entry: query.peer.is_none() && !query.received_only,
            expected,
            step,
            end,
        }
    }

    /// Whether `message` is what must stand under `key`.
    fn admits(&mut self, key: i64, message: &Message) -> bool {
        let Some(sequence) = message.sequence_for(self.owner).map(Sequence::get) else {
            return false;
        };
        if self.keys_are_sequences && sequence != key {
            return false;
        }
        if self.every_entry && sequence != self.expected {
            return false;
        }
        self.expected = sequence + self.step;
        true
    }

    fn expects_more(&self) -> bool {
        self.every_entry && (self.end - self.expected) * self.step >= 0
    }
}

/// The damage at an index's key.
fn damaged(
    connection: &mut SqliteConnection,
    query: &PageQuery,
    density: &Density,
    key: i64,
) -> StoreError {
    if density.every_entry {
        return report(query.owner, density.expected);
    }
    if density.keys_are_sequences {
        return report(query.owner, key);
    }
    match index::sequence_at(connection, query.owner, key) {
        Ok(sequence) => report(query.owner, sequence.unwrap_or(0)),
        Err(error) => failed(error),
    }
}

fn report(owner: UserId, sequence: i64) -> StoreError {
    error!(owner = owner.0, sequence, "a stored message is damaged; it is not served");
    StoreError::Damaged { sequence: Sequence::parse(sequence).unwrap_or(Sequence::ZERO) }
}

/// Logs a failing read, here where its cause is known, and says what it means.
#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` hands over")]
pub(super) fn failed(error: diesel::result::Error) -> StoreError {
    error!(%error, "a read failed");
    storage_error(&error)
}
