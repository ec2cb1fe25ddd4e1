use diesel::prelude::*;

use crate::domain::{MailboxRange, Sequence, UserId};
use crate::store::by_user::ByUser;
use crate::store::index::Index;
use crate::store::log;

/// The mailboxes whose last sequence is remembered from one transaction to the next, beside those of
/// the last one; the rest are read when they are needed.
const MAILBOXES_REMEMBERED_MAX: usize = 1 << 20;

/// The ends of the log and of the mailboxes, as the transaction that is being written sees them.
///
/// After a rollback they are ahead of what is stored, and must be forgotten.
#[derive(Default)]
pub(super) struct Sequences {
    position: Option<i64>,
    last: ByUser<Sequence>,
}

impl Sequences {
    /// A transaction begins. What one gave out is in no index before its COMMIT, so that only here
    /// mailboxes may be forgotten.
    pub(super) fn begin(&mut self) {
        if self.last.len() >= MAILBOXES_REMEMBERED_MAX {
            self.last.clear();
        }
    }

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
        let range = index.range(connection, owner)?;
        self.last.insert(owner, range.last);
        Ok(range)
    }

    /// Forgets everything: it is read again from what is stored.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::connection::{migrate, open_writer};
    use crate::store::index::IndexWriter;

    #[test]
    fn what_a_transaction_gave_out_is_remembered_however_many_mailboxes_there_are() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let database = folder.path().join("database");
        let mut connection = open_writer(&database).expect("opens");
        migrate(&mut connection, &database).expect("up to date");
        let writer = IndexWriter::load(&mut connection, 4).expect("loads");
        let mut sequences = Sequences::default();
        let mut next = |owner| {
            let next = sequences.next(&mut connection, writer.index(), UserId(owner));
            next.expect("readable").get()
        };
        assert_eq!(next(0), 1);
        for owner in 1..=MAILBOXES_REMEMBERED_MAX.cast_signed() as i64 {
            next(owner);
        }
        assert_eq!(next(0), 2, "its first entry is in no index before COMMIT");
        sequences.begin();
        assert!(sequences.last.is_empty(), "it is bounded from one to the next");
    }
}
