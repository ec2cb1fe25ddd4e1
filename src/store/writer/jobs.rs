//! The writes that are not messages.

use std::sync::Arc;

use diesel::prelude::*;

use super::{AfterCommit, Transaction, Write};
use crate::domain::{
    InviteHash, PeerAddress, Profile, Sequence, Timestamp, User, UserId, UserLimits, Username,
};
use crate::store::accounts::NewNames;
use crate::store::accounts::audit::Actor;
use crate::store::accounts::invites::{self, InviteProblem};
use crate::store::accounts::tokens::NewToken;
use crate::store::directory::Holder;
use crate::store::{BeyondMailbox, StoreError, directory, user_limits};

/// Enters a new name with its first token, or updates the address of the caller's own.
pub(in crate::store) struct Register {
    pub(in crate::store) name: Username,
    pub(in crate::store) address: PeerAddress,
    /// The token of a new name; not used for an update.
    pub(in crate::store) token: NewToken,
    pub(in crate::store) caller: Option<UserId>,
    /// Whether a new name is let in.
    pub(in crate::store) new_names: NewNames,
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
        let mut profile = match directory::holder(transaction.connection, &self.name)? {
            Holder::User(profile) => profile,
            Holder::Gone(name) => return Ok(Err(StoreError::UsernameTaken(name))),
            Holder::Nobody => return self.enter(transaction),
        };
        if self.caller != Some(profile.user.id) {
            return Ok(Err(StoreError::UsernameTaken(profile.user.name)));
        }
        directory::set_address(transaction.connection, profile.user.id, &self.address)?;
        profile.address = self.address;
        Ok(Ok(Registered { profile, is_new: false }))
    }
}

impl Register {
    /// A name that nobody has, and nobody had.
    fn enter(
        &self,
        transaction: &mut Transaction<'_>,
    ) -> QueryResult<Result<Registered, StoreError>> {
        match self.new_names {
            NewNames::All => {}
            NewNames::None => return Ok(Err(StoreError::RegistrationClosed)),
            NewNames::ByInvite(invite) => {
                if let Err(problem) = self.let_in(transaction, invite.as_ref())? {
                    return Ok(Err(StoreError::Invite(problem)));
                }
            }
        }
        let Transaction { connection, now, .. } = transaction;
        let profile = directory::insert(connection, &self.name, &self.address, &self.token, *now)?;
        transaction.has_entered_users();
        Ok(Ok(Registered { profile, is_new: true }))
    }

    /// Takes a use of the invite, in the transaction that enters the name.
    fn let_in(
        &self,
        transaction: &mut Transaction<'_>,
        invite: Option<&InviteHash>,
    ) -> QueryResult<Result<(), InviteProblem>> {
        let Some(hash) = invite else { return Ok(Err(InviteProblem::Missing)) };
        let invite = match invites::good(transaction.connection, hash, transaction.now)? {
            Ok(invite) => invite,
            Err(problem) => return Ok(Err(problem)),
        };
        invites::take(transaction.connection, hash, &invite)?;
        let actor = Actor::Invited(self.name.clone());
        let details = format!("use {} of {}", invite.uses + 1, invite.uses_max);
        transaction.note((&actor, "invite.use"), &invite.id, details)?;
        Ok(Ok(()))
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
    pub(in crate::store) user: User,
    pub(in crate::store) limits: UserLimits,
    pub(in crate::store) by: Actor,
    pub(in crate::store) stored: AfterCommit,
}

impl Write for SetUserLimits {
    type Output = ();

    fn apply(&mut self, transaction: &mut Transaction<'_>) -> QueryResult<Result<(), StoreError>> {
        user_limits::put(transaction.connection, self.user.id, &self.limits)?;
        transaction.note((&self.by, "limits.set"), &self.user.name, described(&self.limits))?;
        transaction.after_commit.push(Arc::clone(&self.stored));
        Ok(Ok(()))
    }
}

/// For the audit log.
fn described(limits: &UserLimits) -> String {
    let UserLimits { send_rate, send_burst, subscriptions } = limits;
    let set = [
        send_rate.map(|rate| format!("send-rate={rate}")),
        send_burst.map(|burst| format!("send-burst={burst}")),
        subscriptions.map(|count| format!("subscriptions={count}")),
    ];
    set.into_iter().flatten().collect::<Vec<_>>().join(" ")
}
