//! The writes that are not messages.

use std::sync::Arc;

use diesel::prelude::*;

use super::{AfterCommit, Transaction, Write};
use crate::domain::{
    PeerAddress, Profile, Sequence, Timestamp, TokenHash, UserId, UserLimits, Username,
};
use crate::store::{BeyondMailbox, StoreError, directory, user_limits};

/// Enters a new name with its token, or updates the address of the caller's own.
pub(in crate::store) struct Register {
    pub(in crate::store) name: Username,
    pub(in crate::store) address: PeerAddress,
    /// The token of a new name; not used for an update.
    pub(in crate::store) token: TokenHash,
    pub(in crate::store) caller: Option<UserId>,
}

/// What a registration came to.
#[derive(Debug, Clone)]
pub struct Registered {
    /// The user.
    pub profile: Profile,
    /// Whether the name is new, so that the token is its.
    pub is_new: bool,
}

impl Write for Register {
    type Output = Registered;

    fn apply(
        &mut self,
        transaction: &mut Transaction<'_>,
    ) -> QueryResult<Result<Registered, StoreError>> {
        let Transaction { connection, now, .. } = transaction;
        let Some(mut profile) = directory::profile(connection, &self.name)? else {
            let profile =
                directory::insert(connection, &self.name, &self.address, &self.token, *now)?;
            return Ok(Ok(Registered { profile, is_new: true }));
        };
        if self.caller != Some(profile.user.id) {
            return Ok(Err(StoreError::UsernameTaken(profile.user.name)));
        }
        directory::set_address(connection, profile.user.id, &self.address)?;
        profile.address = self.address;
        Ok(Ok(Registered { profile, is_new: false }))
    }
}

/// Moves a user's acknowledgement forward.
pub(in crate::store) struct Acknowledge {
    pub(in crate::store) user: UserId,
    pub(in crate::store) through: Sequence,
}

impl Write for Acknowledge {
    type Output = Result<Sequence, BeyondMailbox>;

    fn apply(
        &mut self,
        transaction: &mut Transaction<'_>,
    ) -> QueryResult<Result<Self::Output, StoreError>> {
        let Transaction { connection, sequences, index, .. } = transaction;
        let range = sequences.range(connection, index.index(), self.user)?;
        if self.through > range.last {
            return Ok(Ok(Err(BeyondMailbox { range })));
        }
        directory::acknowledge(connection, self.user, self.through)?;
        directory::acknowledged_through(connection, self.user).map(|through| Ok(Ok(through)))
    }
}

/// Notes when a user was last known to be there.
pub(in crate::store) struct MarkSeen<T> {
    pub(in crate::store) user: UserId,
    pub(in crate::store) at: Timestamp,
    /// Dropped with the job: after its COMMIT, or when it failed.
    pub(in crate::store) _until_stored: T,
}

impl<T: Send + 'static> Write for MarkSeen<T> {
    type Output = ();

    fn apply(&mut self, transaction: &mut Transaction<'_>) -> QueryResult<Result<(), StoreError>> {
        directory::set_last_seen(transaction.connection, self.user, self.at).map(Ok)
    }
}

/// Sets what holds for a user alone.
pub(in crate::store) struct SetUserLimits {
    pub(in crate::store) user: UserId,
    pub(in crate::store) limits: UserLimits,
    pub(in crate::store) stored: AfterCommit,
}

impl Write for SetUserLimits {
    type Output = ();

    fn apply(&mut self, transaction: &mut Transaction<'_>) -> QueryResult<Result<(), StoreError>> {
        user_limits::put(transaction.connection, self.user, &self.limits)?;
        transaction.after_commit.push(Arc::clone(&self.stored));
        Ok(Ok(()))
    }
}
