//! The indexes that are derived from the log: a mailbox's entries, the conversations and the
//! request ids.
//!
//! The boundary behind which it may change *when* they are written: the writer tells
//! [`add`] of each appended message, and all that reads goes through the functions here.

use diesel::prelude::*;

use super::log::LogRow;
use super::schema::{conversation_entries, mailbox_entries, message_log, request_ids};
use crate::domain::{MailboxRange, Message, RequestId, Sequence, UserId};

/// Enters the message that was appended at `position`.
pub(super) fn add(
    connection: &mut SqliteConnection,
    position: i64,
    message: &Message,
) -> QueryResult<()> {
    let (sender, receiver) = (message.sender.id, message.receiver.id);
    add_entry(connection, position, receiver, message.receiver_sequence, true)?;
    if sender != receiver {
        add_entry(connection, position, sender, message.sender_sequence, false)?;
    }
    let (low, high) = pair(sender, receiver);
    diesel::insert_into(conversation_entries::table)
        .values((
            conversation_entries::low_user_id.eq(low.0),
            conversation_entries::high_user_id.eq(high.0),
            conversation_entries::position.eq(position),
            conversation_entries::low_user_sent.eq(low == sender),
        ))
        .execute(connection)?;
    if let Some(request_id) = &message.request_id {
        diesel::insert_into(request_ids::table)
            .values((
                request_ids::sender_id.eq(sender.0),
                request_ids::request_id.eq(request_id.as_str()),
                request_ids::position.eq(position),
            ))
            .execute(connection)?;
    }
    Ok(())
}

fn add_entry(
    connection: &mut SqliteConnection,
    position: i64,
    owner: UserId,
    sequence: Sequence,
    received: bool,
) -> QueryResult<()> {
    diesel::insert_into(mailbox_entries::table)
        .values((
            mailbox_entries::owner_id.eq(owner.0),
            mailbox_entries::sequence.eq(sequence.get()),
            mailbox_entries::position.eq(position),
            mailbox_entries::received.eq(received),
        ))
        .execute(connection)?;
    Ok(())
}

fn pair(one: UserId, other: UserId) -> (UserId, UserId) {
    (one.min(other), one.max(other))
}

/// Where the message stands that `sender` sent with `request_id`.
pub(super) fn position_of_request(
    connection: &mut SqliteConnection,
    sender: UserId,
    request_id: &RequestId,
) -> QueryResult<Option<i64>> {
    request_ids::table
        .find((sender.0, request_id.as_str()))
        .select(request_ids::position)
        .first(connection)
        .optional()
}

/// What `owner`'s mailbox holds.
pub(super) fn range(connection: &mut SqliteConnection, owner: UserId) -> QueryResult<MailboxRange> {
    let last: Option<i64> = mailbox_entries::table
        .filter(mailbox_entries::owner_id.eq(owner.0))
        .select(diesel::dsl::max(mailbox_entries::sequence))
        .first(connection)?;
    // Every sequence is written by this code, from 1 upwards.
    let last = last.and_then(|last| Sequence::parse(last).ok()).unwrap_or(Sequence::ZERO);
    Ok(MailboxRange { first: Sequence::FIRST, last })
}

/// The last entry of `owner`'s mailbox: its sequence and its position in the log.
pub(super) fn last_entry(
    connection: &mut SqliteConnection,
    owner: UserId,
) -> QueryResult<Option<(i64, i64)>> {
    mailbox_entries::table
        .filter(mailbox_entries::owner_id.eq(owner.0))
        .order(mailbox_entries::sequence.desc())
        .select((mailbox_entries::sequence, mailbox_entries::position))
        .first(connection)
        .optional()
}

/// Where a page begins, and in which direction it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageStart {
    /// Higher sequences than this, ascending.
    After(Sequence),
    /// Lower sequences than this, descending.
    Before(Sequence),
}

/// A row of an index (its sequence or position) with the log's row; `None` when the log has none.
pub(super) type EntryRow = (i64, Option<LogRow>);

/// The entries of `owner` from `start`, keyed by sequence, handed one by one to `take` until it
/// says `false`; at most `limit`. An entry that cannot be read is an error, after those before it.
pub(super) fn mailbox(
    connection: &mut SqliteConnection,
    owner: UserId,
    start: PageStart,
    received_only: bool,
    limit: usize,
    take: impl FnMut(EntryRow) -> bool,
) -> QueryResult<()> {
    let mut query = mailbox_entries::table
        .left_join(message_log::table.on(message_log::position.eq(mailbox_entries::position)))
        .select((mailbox_entries::sequence, Option::<LogRow>::as_select()))
        .filter(mailbox_entries::owner_id.eq(owner.0))
        .limit(as_limit(limit))
        .into_boxed();
    query = match start {
        PageStart::After(after) => query
            .filter(mailbox_entries::sequence.gt(after.get()))
            .order(mailbox_entries::sequence.asc()),
        PageStart::Before(before) => query
            .filter(mailbox_entries::sequence.lt(before.get()))
            .order(mailbox_entries::sequence.desc()),
    };
    if received_only {
        query = query.filter(mailbox_entries::received);
    }
    visit(query.load_iter::<EntryRow, _>(connection)?, take)
}

/// Where a page of a conversation begins, by position in the log, and in which direction it reads.
#[derive(Debug, Clone, Copy)]
pub(super) enum PositionStart {
    /// Higher positions than this, ascending.
    After(i64),
    /// Lower positions than this, descending.
    Before(i64),
}

/// The entries of the conversation between `owner` and `peer`, keyed by position in the log, as
/// [`mailbox`].
pub(super) fn conversation(
    connection: &mut SqliteConnection,
    (owner, peer): (UserId, UserId),
    start: PositionStart,
    received_only: bool,
    limit: usize,
    take: impl FnMut(EntryRow) -> bool,
) -> QueryResult<()> {
    let (low, high) = pair(owner, peer);
    let mut query = conversation_entries::table
        .left_join(message_log::table.on(message_log::position.eq(conversation_entries::position)))
        .select((conversation_entries::position, Option::<LogRow>::as_select()))
        .filter(conversation_entries::low_user_id.eq(low.0))
        .filter(conversation_entries::high_user_id.eq(high.0))
        .limit(as_limit(limit))
        .into_boxed();
    query = match start {
        PositionStart::After(position) => query
            .filter(conversation_entries::position.gt(position))
            .order(conversation_entries::position.asc()),
        PositionStart::Before(position) => query
            .filter(conversation_entries::position.lt(position))
            .order(conversation_entries::position.desc()),
    };
    // All that one sends to oneself is received. The filter is on the index, not on the log, so
    // that an entry whose row is absent is found to be so.
    if received_only && owner != peer {
        query = query.filter(conversation_entries::low_user_sent.eq(owner == high));
    }
    visit(query.load_iter::<EntryRow, _>(connection)?, take)
}

/// The position in the log of `owner`'s entry `sequence`.
pub(super) fn position_of_entry(
    connection: &mut SqliteConnection,
    owner: UserId,
    sequence: Sequence,
) -> QueryResult<Option<i64>> {
    mailbox_entries::table
        .find((owner.0, sequence.get()))
        .select(mailbox_entries::position)
        .first(connection)
        .optional()
}

/// The owner's sequence of the message at `position`. For reporting damage: it reads the whole
/// mailbox's index.
pub(super) fn sequence_at(
    connection: &mut SqliteConnection,
    owner: UserId,
    position: i64,
) -> QueryResult<Option<i64>> {
    mailbox_entries::table
        .filter(mailbox_entries::owner_id.eq(owner.0))
        .filter(mailbox_entries::position.eq(position))
        .select(mailbox_entries::sequence)
        .first(connection)
        .optional()
}

fn as_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn visit<T>(
    rows: impl Iterator<Item = QueryResult<T>>,
    mut take: impl FnMut(T) -> bool,
) -> QueryResult<()> {
    for row in rows {
        if !take(row?) {
            break;
        }
    }
    Ok(())
}
