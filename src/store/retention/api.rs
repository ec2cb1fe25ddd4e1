//! What is asked of retention from outside.

use super::{Retention, overrides};
#[cfg(test)]
use crate::domain::Sequence;
use crate::domain::{User, UserId};
use crate::store::accounts::audit::Actor;
use crate::store::error::failed;
#[cfg(test)]
use crate::store::writer::EmptyMailbox;
use crate::store::writer::SetRetention;
use crate::store::{Store, StoreError};

impl Store {
    /// What is kept of mailboxes for whose owners nothing else holds.
    pub fn retention(&self) -> Retention {
        self.0.retention
    }

    /// What is kept of a user's mailbox in place of what the server keeps, if there is something.
    ///
    /// # Errors
    /// Only the storage's.
    pub async fn user_retention(&self, user: UserId) -> Result<Option<Retention>, StoreError> {
        self.0.readers.read(move |c| overrides::of(c, user).map_err(failed)).await
    }

    /// Sets what is kept of a user's mailbox, in place of what the server keeps; `None`: what the server
    /// keeps. It holds from the next pass on.
    ///
    /// # Errors
    /// Only the storage's.
    pub async fn set_user_retention(
        &self,
        user: User,
        keep: Option<Retention>,
        by: Actor,
    ) -> Result<(), StoreError> {
        self.0.writes.submit(SetRetention { user, keep, by }).await?.answer().await
    }

    /// Removes all of a mailbox, and says which sequence it gave out last.
    #[cfg(test)]
    pub(crate) async fn empty_mailbox(&self, owner: UserId) -> Result<Sequence, StoreError> {
        self.0.writes.submit(EmptyMailbox(owner)).await?.answer().await
    }
}
