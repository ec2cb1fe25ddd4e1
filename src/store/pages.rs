//! Pages of messages, read from the index and the log, each row checked.

use diesel::prelude::*;
use tracing::error;

use super::StoreError;
use super::directory::Directory;
use super::error::{failed, is_damage};
use super::index::{self, EntryRow, PageStart, PositionStart};
use super::log::Names;
use crate::domain::{MailboxRange, Message, Sequence, UserId};

/// Which messages a page holds.
#[derive(Debug, Clone, Copy)]
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
    let Rows { rows, end } = rows(connection, query, &range)?;
    let mut has_more = !matches!(end, RowsEnd::Complete);
    let mut density = Density::new(query, &range);
    let mut names = Names::new(directory);
    let mut messages = Vec::with_capacity(rows.len());
    for (key, row) in rows {
        let expected = density.every_entry().then_some(density.expected);
        let whole = match row {
            Some(row) => row.into_message(connection, &mut names).map_err(failed)?.ok(),
            None => None,
        };
        match whole.filter(|message| density.admits(key, message)) {
            Some(message) => messages.push(message),
            None if messages.is_empty() => return Err(damaged(connection, query, expected, key)),
            None => {
                has_more = true;
                break;
            }
        }
    }
    if messages.is_empty() && density.expects_more() {
        return Err(report(query.owner, Some(density.expected)));
    }
    if messages.is_empty() && matches!(end, RowsEnd::Unreadable) {
        return Err(report(query.owner, None));
    }
    if matches!(query.start, PageStart::Before(_)) {
        messages.reverse();
    }
    Ok(Page { messages, has_more, range })
}

/// The rows of a page, and what follows them.
struct Rows {
    rows: Vec<EntryRow>,
    end: RowsEnd,
}

/// What follows the rows of a page.
enum RowsEnd {
    /// Nothing.
    Complete,
    /// More, which did not fit.
    More,
    /// An entry that cannot be read; whether there are more is unknown.
    Unreadable,
}

fn rows(
    connection: &mut SqliteConnection,
    query: &PageQuery,
    range: &MailboxRange,
) -> Result<Rows, StoreError> {
    let mut rows = Vec::new();
    let mut bytes = 0;
    let mut end = RowsEnd::Complete;
    let take = |entry: EntryRow| {
        let size = entry.1.as_ref().map_or(0, super::log::LogRow::body_bytes);
        let full = rows.len() == query.messages_max || bytes + size > query.bytes_max;
        if full && !rows.is_empty() {
            end = RowsEnd::More;
            return false;
        }
        bytes += size;
        rows.push(entry);
        true
    };
    let received_only = query.received_only;
    let limit = query.messages_max + 1;
    let scanned = match query.peer {
        None => index::mailbox(connection, query.owner, query.start, received_only, limit, take),
        Some(peer) => {
            let start = position_start(connection, query, range)?;
            let pair = (query.owner, peer);
            index::conversation(connection, pair, start, received_only, limit, take)
        }
    };
    match scanned {
        Ok(()) => Ok(Rows { rows, end }),
        Err(error) if is_damage(&error) => {
            error!(%error, owner = query.owner.0, "a stored message cannot be read");
            Ok(Rows { rows, end: RowsEnd::Unreadable })
        }
        Err(error) => Err(failed(error)),
    }
}

/// The place in the log of the sequence from which a conversation's page reads. Sequences beyond
/// the mailbox stand for its end.
fn position_start(
    connection: &mut SqliteConnection,
    query: &PageQuery,
    range: &MailboxRange,
) -> Result<PositionStart, StoreError> {
    let mut position_of = |sequence: Sequence| {
        if sequence < range.first {
            return Ok(0);
        }
        if sequence > range.last {
            return Ok(i64::MAX);
        }
        index::position_of_entry(connection, query.owner, sequence)
            .map_err(failed)?
            .ok_or_else(|| report(query.owner, Some(sequence.get())))
    };
    Ok(match query.start {
        PageStart::After(after) => PositionStart::After(position_of(after)?),
        PageStart::Before(before) => PositionStart::Before(position_of(before)?),
    })
}

/// What a page proves of its messages: each is what its place in the index says. A mailbox is
/// dense: a page of all its entries that skips a sequence, or is empty before the mailbox's end,
/// has lost an entry.
struct Density<'a> {
    query: &'a PageQuery,
    /// The sequence that comes next on a page of every entry.
    expected: i64,
    step: i64,
    /// The last sequence in the direction of the page.
    end: i64,
}

impl<'a> Density<'a> {
    fn new(query: &'a PageQuery, range: &MailboxRange) -> Self {
        let (expected, step, end) = match query.start {
            PageStart::After(after) => (after.next().get(), 1, range.last.get()),
            PageStart::Before(before) => {
                (before.min(range.last.next()).get() - 1, -1, range.first.get())
            }
        };
        Self { query, expected, step, end }
    }

    /// Whether every entry must be there.
    fn every_entry(&self) -> bool {
        self.query.peer.is_none() && !self.query.received_only
    }

    /// Whether `message` is what must stand under `key`.
    fn admits(&mut self, key: i64, message: &Message) -> bool {
        let PageQuery { owner, peer, received_only, .. } = *self.query;
        let Some(sequence) = message.sequence_for(owner).map(Sequence::get) else {
            return false;
        };
        let is_of_the_key = match peer {
            None => sequence == key,
            Some(peer) => message.is_between(owner, peer),
        };
        let is_wanted = !received_only || message.is_received_by(owner);
        let is_next = !self.every_entry() || sequence == self.expected;
        self.expected = sequence.saturating_add(self.step);
        is_of_the_key && is_wanted && is_next
    }

    fn expects_more(&self) -> bool {
        self.every_entry() && (self.end - self.expected) * self.step >= 0
    }
}

/// The damage at an index's key.
fn damaged(
    connection: &mut SqliteConnection,
    query: &PageQuery,
    expected: Option<i64>,
    key: i64,
) -> StoreError {
    let sequence = match (expected, query.peer) {
        (Some(expected), _) => Ok(Some(expected)),
        (None, None) => Ok(Some(key)),
        (None, Some(_)) => index::sequence_at(connection, query.owner, key),
    };
    match sequence {
        Ok(sequence) => report(query.owner, sequence),
        Err(error) => failed(error),
    }
}

fn report(owner: UserId, sequence: Option<i64>) -> StoreError {
    error!(owner = owner.0, sequence, "a stored message is damaged; it is not served");
    StoreError::Damaged { sequence: sequence.and_then(|sequence| Sequence::parse(sequence).ok()) }
}
