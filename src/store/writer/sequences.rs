use std::collections::HashMap;

use diesel::prelude::*;

use crate::domain::{MailboxRange, Sequence, UserId};
use crate::store::index::Index;
use crate::store::log;

/// The mailboxes whose last sequence is remembered; the rest are read when they are needed.
const MAILBOXES_REMEMBERED_MAX: usize = 1 << 20;

/// The ends of the log and of the mailboxes, as the transaction that is being written sees them.
///
/// After a rollback they are ahead of what is stored, and must be forgotten.
#[derive(Default)]
pub(super) struct Sequences {
    position: Option<i64>,
    last: HashMap<UserId, Sequence>,
}

impl Sequences {
    /// Gives out the log's next position.
    pub(super) fn next_position(&mut self, connection: &mut SqliteConnection) -> QueryResult<i64> {
        let last = match self.position {
            Some(position) => position,
            None => log::last_position(connection)?,
        };
        self.position = Some(last + 1);
        Ok(last + 1)
    }

    /// Gives out the next sequence of `owner`'s mailbox.
    pub(super) fn next(
        &mut self,
        connection: &mut SqliteConnection,
        index: &Index,
        owner: UserId,
    ) -> QueryResult<Sequence> {
        let next = self.range(connection, index, owner)?.last.next();
        self.last.insert(owner, next);
        Ok(next)
    }

    /// What `owner`'s mailbox holds.
    pub(super) fn range(
        &mut self,
        connection: &mut SqliteConnection,
        index: &Index,
        owner: UserId,
    ) -> QueryResult<MailboxRange> {
        if let Some(last) = self.last.get(&owner) {
            return Ok(MailboxRange { first: Sequence::FIRST, last: *last });
        }
        if self.last.len() >= MAILBOXES_REMEMBERED_MAX {
            self.last.clear();
        }
        let range = index.range(connection, owner)?;
        self.last.insert(owner, range.last);
        Ok(range)
    }

    /// Forgets everything: it is read again from what is stored.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}
