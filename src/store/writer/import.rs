//! Users and messages that another database had.

use diesel::prelude::*;

use super::{Draft, Transaction, Write};
use crate::domain::{PeerAddress, Profile, Timestamp, TokenHash, User, Username};
use crate::store::accounts::tokens::NewToken;
use crate::store::directory::Holder;
use crate::store::{StoreError, directory, import};

/// A user of another database, to be entered here.
#[derive(Debug, Clone)]
pub struct UserToImport {
    /// The name's bytes, as they stand there: under these the user is found again.
    pub source_name: Vec<u8>,
    /// The name here.
    pub name: Username,
    /// Where they can be reached.
    pub address: PeerAddress,
    /// The token of a new user; not used for one who is there.
    pub token: TokenHash,
    /// Whether a user who has this name here is the same, unless another name of there is theirs.
    pub is_who_has_the_name: bool,
}

/// What the import of a user came to.
#[derive(Debug, Clone)]
pub enum ImportedUser {
    /// Entered now, with the token.
    New(User),
    /// Registered here before, and taken for the same from now on.
    Joined(User),
    /// Imported before.
    Known(User),
}

impl Write for UserToImport {
    type Output = ImportedUser;

    fn apply(
        &mut self,
        transaction: &mut Transaction<'_>,
    ) -> QueryResult<Result<ImportedUser, StoreError>> {
        let Transaction { connection, directory, now, .. } = transaction;
        if let Some(user) = import::user_of(connection, directory, &self.source_name)? {
            return Ok(Ok(ImportedUser::Known(user)));
        }
        let imported = match directory::holder(connection, &self.name)? {
            Holder::Nobody => {
                let token = NewToken::first(self.token);
                let profile =
                    directory::insert(connection, &self.name, &self.address, &token, *now)?;
                ImportedUser::New(profile.user)
            }
            Holder::User(profile)
                if self.is_who_has_the_name
                    && !import::is_imported(connection, profile.user.id)? =>
            {
                ImportedUser::Joined(profile.user)
            }
            Holder::User(Profile { user: User { name, .. }, .. }) | Holder::Gone(name) => {
                return Ok(Err(StoreError::UsernameTaken(name)));
            }
        };
        import::note_user(connection, &self.source_name, imported.user().id)?;
        if matches!(imported, ImportedUser::New(_)) {
            transaction.has_entered_users();
        }
        Ok(Ok(imported))
    }
}

impl ImportedUser {
    /// Who it is here.
    pub fn user(&self) -> &User {
        let (Self::New(user) | Self::Joined(user) | Self::Known(user)) = self;
        user
    }
}

/// Appends a message with the time at which it was sent elsewhere. Like any other it stands where it
/// was appended: times order nothing.
pub(in crate::store) struct ImportMessage {
    pub(in crate::store) draft: Draft,
    /// `None`: it is not known, and the present stands for it.
    pub(in crate::store) send_time: Option<Timestamp>,
}

impl Write for ImportMessage {
    /// Whether the message is new here.
    type Output = bool;

    fn body_bytes(&self) -> usize {
        self.draft.body_bytes()
    }

    fn apply(
        &mut self,
        transaction: &mut Transaction<'_>,
    ) -> QueryResult<Result<bool, StoreError>> {
        let (now, appended) = (transaction.now, transaction.appended.len());
        transaction.now = self.send_time.unwrap_or(now);
        let outcome = self.draft.apply(transaction);
        transaction.now = now;
        Ok(outcome?.map(|_| transaction.appended.len() > appended))
    }
}
