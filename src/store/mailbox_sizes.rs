//! How large mailboxes are, where their sizes are bounded: the bytes of their messages' bodies.

use std::num::NonZero;

use diesel::connection::DefaultLoadingMode;
use diesel::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::error::unreadable;
use super::schema::mailbox_sizes;
use crate::domain::UserId;

/// What a mailbox may hold; a full one refuses whoever sends. By default anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MailboxLimits {
    /// The most messages.
    pub messages_max: Option<NonZero<u64>>,
    /// The most bytes of bodies.
    pub bytes_max: Option<NonZero<u64>>,
}

/// Which of its limits a mailbox has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailboxLimit {
    /// [`MailboxLimits::messages_max`].
    Messages,
    /// [`MailboxLimits::bytes_max`].
    Bytes,
}

impl MailboxLimit {
    /// As refusals and metrics name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Messages => "mailbox_messages_max",
            Self::Bytes => "mailbox_bytes_max",
        }
    }
}

/// The bytes of some consecutive entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) from: i64,
    pub(super) through: i64,
    pub(super) bytes: i64,
}

type Row = (i64, i64, i64, i64, i64);

const COLUMNS: (
    mailbox_sizes::owner_id,
    mailbox_sizes::from_sequence,
    mailbox_sizes::through_sequence,
    mailbox_sizes::bytes,
    mailbox_sizes::checksum,
) = (
    mailbox_sizes::owner_id,
    mailbox_sizes::from_sequence,
    mailbox_sizes::through_sequence,
    mailbox_sizes::bytes,
    mailbox_sizes::checksum,
);

/// What is known of a mailbox's size. A row that is not what was written is as good as none: it is counted
/// again.
pub(super) fn size(connection: &mut SqliteConnection, owner: UserId) -> QueryResult<Option<Size>> {
    let row = mailbox_sizes::table.find(owner.0).select(COLUMNS).first::<Row>(connection);
    Ok(row.optional()?.and_then(|row| whole(row).ok()).map(|(_, size)| size))
}

/// Notes a mailbox's size.
pub(super) fn put(connection: &mut SqliteConnection, owner: UserId, size: Size) -> QueryResult<()> {
    diesel::replace_into(mailbox_sizes::table)
        .values((
            mailbox_sizes::owner_id.eq(owner.0),
            mailbox_sizes::from_sequence.eq(size.from),
            mailbox_sizes::through_sequence.eq(size.through),
            mailbox_sizes::bytes.eq(size.bytes),
            mailbox_sizes::checksum.eq(checksum(owner.0, size)),
        ))
        .execute(connection)?;
    Ok(())
}

/// Hands over all of them; `None` for a row that is not what was written.
pub(super) fn visit(
    connection: &mut SqliteConnection,
    mut take: impl FnMut(UserId, Option<Size>),
) -> QueryResult<()> {
    let rows =
        mailbox_sizes::table.select(COLUMNS).load_iter::<Row, DefaultLoadingMode>(connection)?;
    for row in rows {
        let row = row?;
        take(UserId(row.0), whole(row).ok().map(|(_, size)| size));
    }
    Ok(())
}

fn whole((owner, from, through, bytes, stored): Row) -> QueryResult<(UserId, Size)> {
    let size = Size { from, through, bytes };
    if stored == checksum(owner, size) {
        Ok((UserId(owner), size))
    } else {
        Err(unreadable("mailbox_sizes"))
    }
}

/// XXH3-64 over the four numbers (little endian). This layout is part of the file format.
fn checksum(owner: i64, size: Size) -> i64 {
    let numbers = [owner, size.from, size.through, size.bytes];
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    xxh3_64(&bytes).cast_signed()
}
