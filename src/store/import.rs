//! Taking over what another database had: its names are remembered, and its messages keep their times.

use diesel::prelude::*;
use diesel::result::Error as DieselError;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::directory::Directory;
use super::error::failed;
use super::schema::imported_users;
use super::writer::{Accepted, ImportMessage};
use super::{Draft, ImportedUser, Store, StoreError, UserToImport};
use crate::domain::{Timestamp, User, UserId};

/// A message on its way in, whose place in the order is settled.
#[must_use]
pub struct PendingImport(Accepted<bool>);

impl PendingImport {
    /// Whether the message is new here; not, when its sender's `request_id` stands for it already.
    ///
    /// # Errors
    /// As of [`PendingMessage::committed`](super::PendingMessage::committed).
    pub async fn is_new(self) -> Result<bool, StoreError> {
        self.0.answer().await
    }
}

impl Store {
    /// Enters a user of another database, once: the same name of there is the same user from then on.
    ///
    /// # Errors
    /// [`StoreError::UsernameTaken`] when another user has the name here.
    pub async fn import_user(&self, user: UserToImport) -> Result<ImportedUser, StoreError> {
        self.0.writes.submit(user).await?.answer().await
    }

    /// The user as whom a name of another database was imported.
    ///
    /// # Errors
    /// Only the storage's.
    pub async fn imported_user(&self, source_name: Vec<u8>) -> Result<Option<User>, StoreError> {
        let directory = self.0.directory.clone();
        let find = move |c: &mut _| user_of(c, &directory, &source_name).map_err(failed);
        self.0.readers.read(find).await
    }

    /// [`append`](Self::append) for a message that was sent elsewhere, at `send_time` if that is known.
    ///
    /// # Errors
    /// As of `append`.
    pub async fn import_message(
        &self,
        draft: Draft,
        send_time: Option<Timestamp>,
    ) -> Result<PendingImport, StoreError> {
        let accepted = self.0.writes.submit(ImportMessage { draft, send_time }).await?;
        Ok(PendingImport(accepted))
    }
}

/// The user as whom this name was imported.
pub(super) fn user_of(
    connection: &mut SqliteConnection,
    directory: &Directory,
    source_name: &[u8],
) -> QueryResult<Option<User>> {
    let row = imported_users::table
        .find(source_name)
        .select((imported_users::user_id, imported_users::checksum))
        .first::<(i64, i64)>(connection)
        .optional()?;
    let Some((id, stored)) = row else { return Ok(None) };
    if stored != checksum(source_name, id) {
        return Err(damaged("imported_users.user_id is another user's"));
    }
    let user = directory.by_id(connection, UserId(id))?;
    user.map(Some).ok_or_else(|| damaged("imported_users.user_id is nobody's"))
}

/// Whether a name was imported as this user. It looks through all of them.
pub(super) fn is_imported(connection: &mut SqliteConnection, user: UserId) -> QueryResult<bool> {
    let names = imported_users::table.filter(imported_users::user_id.eq(user.0));
    diesel::select(diesel::dsl::exists(names)).get_result(connection)
}

/// Remembers as whom this name was imported.
pub(super) fn note_user(
    connection: &mut SqliteConnection,
    source_name: &[u8],
    user: UserId,
) -> QueryResult<()> {
    diesel::insert_into(imported_users::table)
        .values((
            imported_users::source_name.eq(source_name),
            imported_users::user_id.eq(user.0),
            imported_users::checksum.eq(checksum(source_name, user.0)),
        ))
        .execute(connection)?;
    Ok(())
}

/// This layout is part of the file format.
fn checksum(source_name: &[u8], user_id: i64) -> i64 {
    xxh3_64_with_seed(source_name, user_id.cast_unsigned()).cast_signed()
}

fn damaged(what: &str) -> DieselError {
    DieselError::DeserializationError(what.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_files_that_there_are() {
        assert_eq!(checksum(b"Alice", 1), -6_231_992_167_444_890_013);
    }
}
