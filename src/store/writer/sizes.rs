use std::collections::{HashMap, HashSet};

use diesel::prelude::*;

use super::sequences::Sequences;
use crate::domain::{Sequence, User, UserId};
use crate::store::index::{Filter, Index, PageStart};
use crate::store::mailbox_sizes::{self, MailboxLimit, MailboxLimits, Size};
use crate::store::{log, mailboxes};

/// The mailboxes whose sizes are remembered from one transaction to the next, beside those of the last one.
const MAILBOXES_REMEMBERED_MAX: usize = 1 << 18;

/// Entries that are counted at a time.
const ENTRIES_AT_A_TIME: usize = 1_024;

/// Whether mailboxes have room, as the transaction that is being written sees them. Nothing is counted where
/// nothing is bounded.
///
/// After a rollback it is ahead of what is stored, and must be forgotten.
pub(in crate::store) struct Sizes {
    limits: MailboxLimits,
    known: HashMap<UserId, Size>,
    /// Those that are to be written by the present transaction.
    changed: HashSet<UserId>,
}

impl Sizes {
    pub(in crate::store) fn new(limits: MailboxLimits) -> Self {
        Self { limits, known: HashMap::new(), changed: HashSet::new() }
    }

    /// A transaction begins.
    pub(super) fn begin(&mut self) {
        self.changed.clear();
        if self.known.len() >= MAILBOXES_REMEMBERED_MAX {
            self.known.clear();
        }
    }

    /// Forgets everything: it is read again from what is stored.
    pub(super) fn forget(&mut self) {
        *self = Self::new(self.limits);
    }

    /// Whether anything is bounded.
    pub(super) fn are_bounded(&self) -> bool {
        self.limits != MailboxLimits::default()
    }

    /// Whether a mailbox has room for one more message with so many bytes; if not, what it has enough of and
    /// how much it may have.
    pub(super) fn admit(
        &mut self,
        connection: &mut SqliteConnection,
        (index, sequences): (&Index, &mut Sequences),
        owner: &User,
        body_bytes: usize,
    ) -> QueryResult<Result<(), (MailboxLimit, u64)>> {
        let last = sequences.range(connection, index, owner.id)?.last.get();
        let first = mailboxes::first(connection, owner.id)?.get();
        if let Some(max) = self.limits.messages_max
            && (last - first + 1).unsigned_abs() >= max.get()
        {
            return Ok(Err((MailboxLimit::Messages, max.get())));
        }
        if let Some(max) = self.limits.bytes_max {
            let size = self.size(connection, index, owner.id, (first, last))?;
            if size.bytes.unsigned_abs().saturating_add(body_bytes as u64) > max.get() {
                return Ok(Err((MailboxLimit::Bytes, max.get())));
            }
        }
        Ok(Ok(()))
    }

    /// A message with so many bytes is in a mailbox that had room for it, under this sequence.
    pub(super) fn add(&mut self, owner: UserId, sequence: Sequence, body_bytes: usize) {
        if let Some(size) = self.known.get_mut(&owner) {
            size.through = sequence.get();
            size.bytes += i64::try_from(body_bytes).unwrap_or(i64::MAX);
            self.changed.insert(owner);
        }
    }

    /// A mailbox has lost the entries from `from` to before `first`, with so many bytes.
    pub(super) fn lose(
        &mut self,
        connection: &mut SqliteConnection,
        owner: UserId,
        (from, first): (i64, i64),
        bytes: i64,
    ) -> QueryResult<()> {
        if self.limits.bytes_max.is_none() {
            return Ok(());
        }
        let known = match self.known.get(&owner) {
            Some(size) => Some(*size),
            None => mailbox_sizes::size(connection, owner)?,
        };
        // One that begins elsewhere is counted again when it is needed.
        if let Some(size) = known.filter(|size| size.from == from && size.through >= first - 1) {
            let bytes = (size.bytes - bytes).max(0);
            self.known.insert(owner, Size { from: first, bytes, ..size });
            self.changed.insert(owner);
        }
        Ok(())
    }

    /// An entry's body of so many bytes is gone, and the entry stays.
    pub(super) fn shrink(
        &mut self,
        connection: &mut SqliteConnection,
        (owner, sequence): (UserId, i64),
        bytes: i64,
    ) -> QueryResult<()> {
        if self.limits.bytes_max.is_none() {
            return Ok(());
        }
        let known = match self.known.get(&owner) {
            Some(size) => Some(*size),
            None => mailbox_sizes::size(connection, owner)?,
        };
        if let Some(size) = known.filter(|it| (it.from..=it.through).contains(&sequence)) {
            self.known.insert(owner, Size { bytes: (size.bytes - bytes).max(0), ..size });
            self.changed.insert(owner);
        }
        Ok(())
    }

    /// Writes what the transaction changed.
    pub(super) fn write(&mut self, connection: &mut SqliteConnection) -> QueryResult<()> {
        for owner in self.changed.drain() {
            if let Some(size) = self.known.get(&owner) {
                mailbox_sizes::put(connection, owner, *size)?;
            }
        }
        Ok(())
    }

    /// The size of a mailbox that holds these entries: counted, unless it is known.
    fn size(
        &mut self,
        connection: &mut SqliteConnection,
        index: &Index,
        owner: UserId,
        (first, last): (i64, i64),
    ) -> QueryResult<Size> {
        let is_of_now = |size: &Size| size.from == first && size.through == last;
        if let Some(size) = self.known.get(&owner).filter(|size| is_of_now(size)) {
            return Ok(*size);
        }
        let stored = mailbox_sizes::size(connection, owner)?;
        let usable = stored.filter(|size| size.from == first && size.through <= last);
        let mut size = usable.unwrap_or(Size { from: first, through: first - 1, bytes: 0 });
        if size.through < last {
            size.bytes += bytes_of(connection, index, owner, (size.through + 1, last))?;
            size.through = last;
            self.changed.insert(owner);
        }
        self.known.insert(owner, size);
        Ok(size)
    }
}

/// The bytes of the bodies of a mailbox's entries from the first to the last of these. What cannot be read
/// counts nothing.
pub(in crate::store) fn bytes_of(
    connection: &mut SqliteConnection,
    index: &Index,
    owner: UserId,
    (mut next, last): (i64, i64),
) -> QueryResult<i64> {
    let mut bytes = 0;
    while next <= last {
        let start = PageStart::After(Sequence::parse(next - 1).unwrap_or(Sequence::ZERO));
        let listing = index.list(connection, owner, start, Filter::ALL, ENTRIES_AT_A_TIME)?;
        let Some(end) = listing.entries.last().map(|entry| entry.sequence) else { break };
        for entry in listing.entries.iter().take_while(|entry| entry.sequence <= last) {
            bytes += log::body_bytes(connection, entry.position)?;
        }
        next = end + 1;
    }
    Ok(bytes)
}
