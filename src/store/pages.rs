//! Pages of messages, read from the index and the log, each row checked.

use diesel::prelude::*;
use tracing::error;

use super::StoreError;
use super::directory::Directory;
use super::error::{failed, is_damage};
use super::index::{Entry, Filter, Index, Listing, PageStart};
use super::log::{self, LogRow, Names};
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

/// Reads a page. The caller wraps it in a read transaction of its own.
///
/// A page ends before a damaged entry; a page that would begin with one is the error. One that would begin
/// before what the mailbox still has is empty: its range says so.
pub(super) fn read(
    connection: &mut SqliteConnection,
    directory: &Directory,
    index: &Index,
    query: &PageQuery,
) -> Result<Page, StoreError> {
    let filter = Filter { peer: query.peer, received_only: query.received_only };
    let limit = query.messages_max + 1;
    let listing = index.list(connection, query.owner, query.start, filter, limit);
    let Listing { range, entries, damaged_at } = listing.map_err(failed)?;
    if matches!(query.start, PageStart::After(after) if after.next() < range.first) {
        return Ok(Page { messages: Vec::new(), has_more: false, range });
    }
    let Rows { rows, end } = rows(connection, query, &entries, damaged_at)?;
    let mut has_more = !matches!(end, RowsEnd::Complete);
    let mut density = Density::new(query, &range);
    let mut names = Names::new(directory);
    let mut messages = Vec::with_capacity(rows.len());
    for (entry, row) in rows {
        let expected = density.every_entry().then_some(density.expected);
        let whole = match row {
            Some(row) => row.into_message(connection, &mut names).map_err(failed)?.ok(),
            None => None,
        };
        match whole.filter(|message| density.admits(&entry, message)) {
            Some(message) => messages.push(message),
            None if messages.is_empty() => {
                return Err(report(query.owner, Some(expected.unwrap_or(entry.sequence))));
            }
            None => {
                has_more = true;
                break;
            }
        }
    }
    if messages.is_empty() && density.expects_more() {
        return Err(report(query.owner, Some(density.expected)));
    }
    if let (true, RowsEnd::Unreadable { sequence }) = (messages.is_empty(), end) {
        return Err(report(query.owner, sequence));
    }
    if matches!(query.start, PageStart::Before(_)) {
        messages.reverse();
    }
    Ok(Page { messages, has_more, range })
}

/// The rows of a page, and what follows them.
struct Rows {
    /// Each with its entry; `None` for one that the log does not have.
    rows: Vec<(Entry, Option<LogRow>)>,
    end: RowsEnd,
}

/// What follows the rows of a page.
enum RowsEnd {
    /// Nothing.
    Complete,
    /// More, which did not fit.
    More,
    /// An entry that cannot be read; whether more of those that match follow is unknown.
    Unreadable { sequence: Option<i64> },
}

/// The log's rows of `entries`, up to the bounds of the page.
fn rows(
    connection: &mut SqliteConnection,
    query: &PageQuery,
    entries: &[Entry],
    damaged_at: Option<i64>,
) -> Result<Rows, StoreError> {
    let mut rows = Vec::with_capacity(entries.len());
    let mut bytes = 0;
    let mut is_full = false;
    let take = |entry: Entry, row: Option<LogRow>| {
        let size = row.as_ref().map_or(0, LogRow::body_bytes);
        is_full = rows.len() == query.messages_max || bytes + size > query.bytes_max;
        is_full &= !rows.is_empty();
        if !is_full {
            bytes += size;
            rows.push((entry, row));
        }
        !is_full
    };
    let visited = visit(connection, query, entries, take);
    let end = match visited {
        Ok(()) if is_full => RowsEnd::More,
        Ok(()) if damaged_at.is_some() => RowsEnd::Unreadable { sequence: damaged_at },
        Ok(()) => RowsEnd::Complete,
        Err(error) if is_damage(&error) => {
            error!(%error, owner = query.owner.0, "a stored message cannot be read");
            let unread = entries.get(rows.len());
            RowsEnd::Unreadable { sequence: unread.map(|entry| entry.sequence) }
        }
        Err(error) => return Err(failed(error)),
    };
    Ok(Rows { rows, end })
}

/// Hands the log's row of each entry to `take`, in order, until it says `false`. Rows that stand one
/// after the other in the log, as those of a busy mailbox do, are read in one go.
fn visit(
    connection: &mut SqliteConnection,
    query: &PageQuery,
    entries: &[Entry],
    mut take: impl FnMut(Entry, Option<LogRow>) -> bool,
) -> QueryResult<()> {
    let ascending = matches!(query.start, PageStart::After(_));
    let neighbours = |a: &Entry, b: &Entry| (b.position - a.position).abs() == 1;
    for stretch in entries.chunk_by(neighbours) {
        let (Some(first), Some(last)) = (stretch.first(), stretch.last()) else { continue };
        let ends = (first.position.min(last.position), first.position.max(last.position));
        let mut rows = log::rows_between(connection, ends, ascending)?;
        let mut row = rows.next().transpose()?;
        for entry in stretch {
            let is_there = row.as_ref().is_some_and(|row| row.position == entry.position);
            let found = if is_there { row.take() } else { None };
            if !take(*entry, found) {
                return Ok(());
            }
            if is_there {
                row = rows.next().transpose()?;
            }
        }
    }
    Ok(())
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

    /// Whether `message` is what `entry` says.
    fn admits(&mut self, entry: &Entry, message: &Message) -> bool {
        let PageQuery { owner, peer, received_only, .. } = *self.query;
        let Some(sequence) = message.sequence_for(owner).map(Sequence::get) else {
            return false;
        };
        let is_of_the_entry =
            sequence == entry.sequence && peer.is_none_or(|peer| message.is_between(owner, peer));
        let is_wanted = !received_only || message.is_received_by(owner);
        let is_next = !self.every_entry() || sequence == self.expected;
        self.expected = sequence.saturating_add(self.step);
        is_of_the_entry && is_wanted && is_next
    }

    fn expects_more(&self) -> bool {
        self.every_entry() && (self.end - self.expected) * self.step >= 0
    }
}

fn report(owner: UserId, sequence: Option<i64>) -> StoreError {
    error!(owner = owner.0, sequence, "a stored message is damaged; it is not served");
    StoreError::Damaged { sequence: sequence.and_then(|sequence| Sequence::parse(sequence).ok()) }
}
