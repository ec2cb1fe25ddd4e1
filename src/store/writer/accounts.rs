//! The writes that decide who is let in. Each is noted in the audit log along with what it does.

use diesel::prelude::*;

use super::{Transaction, Write};
use crate::domain::limits::TOKENS_PER_USER_MAX;
use crate::domain::{AccessId, Label, Standing, Timestamp, TokenHash, User, Username};
use crate::store::accounts::audit::{self, Act, Actor};
use crate::store::accounts::invites::{self, NewInvite};
use crate::store::accounts::tokens::{self, NewToken};
use crate::store::accounts::{self, AccessEnded, Account, EndCause};
use crate::store::{Store, StoreError, directory};

type Outcome<T> = QueryResult<Result<T, StoreError>>;

/// Whose account an act is about.
#[derive(Debug, Clone)]
pub enum Subject {
    /// Their own: the caller.
    Caller(User),
    /// The account of this name, as an operator says it.
    Named(Username),
}

/// Which of a user's tokens.
#[derive(Debug, Clone, Copy)]
pub enum Which {
    /// This one.
    One(AccessId),
    /// All.
    All,
}

impl Subject {
    /// The account, unless it is gone or never was.
    fn account(&self, transaction: &mut Transaction<'_>) -> Outcome<Account> {
        let name = match self {
            Self::Caller(user) => &user.name,
            Self::Named(name) => name,
        };
        let account = accounts::account(transaction.connection, name)?;
        let there = account.filter(|it| it.standing != Standing::Deleted);
        Ok(there.ok_or_else(|| StoreError::NoSuchUser(name.clone())))
    }
}

impl Transaction<'_> {
    /// Notes an act in the audit log.
    pub(super) fn note(
        &mut self,
        (actor, act): (&Actor, &'static str),
        subject: &dyn ToString,
        details: String,
    ) -> QueryResult<()> {
        let act = Act { actor: actor.clone(), act, subject: subject.to_string(), details };
        audit::note(self.connection, &act, self.now)?;
        self.changes.acts.push(act);
        Ok(())
    }

    /// Removes tokens, of whose end everybody hears after COMMIT.
    fn remove_tokens(
        &mut self,
        user: &User,
        tokens: Vec<TokenHash>,
        cause: EndCause,
    ) -> QueryResult<()> {
        tokens::remove(self.connection, &tokens)?;
        self.changes.ended.push(AccessEnded { user: user.clone(), tokens, cause });
        Ok(())
    }
}

/// Gives a user one more token.
pub(in crate::store) struct CreateToken {
    subject: Subject,
    token: NewToken,
    /// The others are good no more.
    revoke_others: bool,
    actor: Actor,
}

impl Write for CreateToken {
    /// When it was made.
    type Output = Timestamp;

    fn apply(&mut self, transaction: &mut Transaction<'_>) -> Outcome<Timestamp> {
        let user = match self.subject.account(transaction)? {
            Ok(account) => account.user,
            Err(error) => return Ok(Err(error)),
        };
        let there = tokens::of_user(transaction.connection, user.id)?;
        let others: Vec<_> = there.into_iter().map(|it| it.token.hash).collect();
        if self.revoke_others {
            let what = (&self.actor, "token.revoke");
            transaction.note(what, &user.name, format!("all {}", others.len()))?;
            transaction.remove_tokens(&user, others, EndCause::Revoked)?;
        } else if others.len() >= TOKENS_PER_USER_MAX {
            return Ok(Err(StoreError::TokenLimit { max: TOKENS_PER_USER_MAX }));
        }
        tokens::insert(transaction.connection, user.id, &self.token, transaction.now)?;
        let NewToken { id, name, expire_time, .. } = &self.token;
        let expires = expire_time.map(|time| format!(" expires={}", time.to_rfc3339()));
        let details = format!("token={id} name={:?}{}", name.as_str(), expires.unwrap_or_default());
        transaction.note((&self.actor, "token.create"), &user.name, details)?;
        Ok(Ok(transaction.now))
    }
}

/// Ends tokens of a user.
pub(in crate::store) struct RevokeTokens {
    subject: Subject,
    which: Which,
    actor: Actor,
}

impl Write for RevokeTokens {
    /// How many.
    type Output = usize;

    fn apply(&mut self, transaction: &mut Transaction<'_>) -> Outcome<usize> {
        let user = match self.subject.account(transaction)? {
            Ok(account) => account.user,
            Err(error) => return Ok(Err(error)),
        };
        let mut there = tokens::of_user(transaction.connection, user.id)?;
        if let Which::One(id) = self.which {
            there.retain(|it| it.token.id == id);
            if there.is_empty() {
                return Ok(Err(StoreError::NoSuchToken(id)));
            }
        }
        for token in &there {
            let details = format!("token={}", token.token.id);
            transaction.note((&self.actor, "token.revoke"), &user.name, details)?;
        }
        let hashes: Vec<_> = there.into_iter().map(|it| it.token.hash).collect();
        let count = hashes.len();
        transaction.remove_tokens(&user, hashes, EndCause::Revoked)?;
        Ok(Ok(count))
    }
}

/// Lets a user do nothing any more, for this reason, or everything again.
pub(in crate::store) struct SetBan {
    name: Username,
    reason: Option<Label>,
    actor: Actor,
}

impl Write for SetBan {
    type Output = Account;

    fn apply(&mut self, transaction: &mut Transaction<'_>) -> Outcome<Account> {
        let account = match Subject::Named(self.name.clone()).account(transaction)? {
            Ok(account) => account,
            Err(error) => return Ok(Err(error)),
        };
        let user = account.user.clone();
        let (standing, act, reason) = match &self.reason {
            Some(reason) => (Standing::Banned, "user.ban", reason.as_str()),
            None => (Standing::Active, "user.unban", ""),
        };
        if account.standing == standing && account.reason.as_str() == reason {
            return Ok(Ok(account));
        }
        let (connection, now) = (&mut *transaction.connection, transaction.now);
        directory::set_standing(connection, user.id, (standing, reason), now)?;
        if standing == Standing::Banned {
            let tokens = tokens::of_user(connection, user.id)?;
            let tokens = tokens.into_iter().map(|it| it.token.hash).collect();
            // They stay, and are good again when the ban is lifted.
            let ended = AccessEnded { user: user.clone(), tokens, cause: EndCause::Banned };
            transaction.changes.ended.push(ended);
        }
        transaction.note((&self.actor, act), &user.name, reason.to_owned())?;
        let account = accounts::account(transaction.connection, &user.name)?;
        Ok(account.ok_or(StoreError::NoSuchUser(user.name)))
    }
}

/// Ends a user. Their name stays taken, so that nobody can pass for them. What they sent stays in the
/// mailboxes of others, and their own can be read by nobody any more: its entries stay where they are.
pub(in crate::store) struct DeleteUser {
    subject: Subject,
    actor: Actor,
}

impl Write for DeleteUser {
    type Output = User;

    fn apply(&mut self, transaction: &mut Transaction<'_>) -> Outcome<User> {
        let user = match self.subject.account(transaction)? {
            Ok(account) => account.user,
            Err(error) => return Ok(Err(error)),
        };
        let (connection, now) = (&mut *transaction.connection, transaction.now);
        directory::set_standing(connection, user.id, (Standing::Deleted, ""), now)?;
        directory::erase(connection, user.id)?;
        transaction.empty_mailbox(user.id)?;
        let connection = &mut *transaction.connection;
        let tokens = tokens::of_user(connection, user.id)?;
        let tokens = tokens.into_iter().map(|it| it.token.hash).collect();
        transaction.remove_tokens(&user, tokens, EndCause::Deleted)?;
        transaction.note((&self.actor, "user.delete"), &user.name, String::new())?;
        Ok(Ok(user))
    }
}

/// Enters an invite.
pub(in crate::store) struct CreateInvite {
    invite: NewInvite,
    actor: Actor,
}

impl Write for CreateInvite {
    /// When it was made.
    type Output = Timestamp;

    fn apply(&mut self, transaction: &mut Transaction<'_>) -> Outcome<Timestamp> {
        invites::insert(transaction.connection, &self.invite, transaction.now)?;
        let NewInvite { id, note, uses_max, expire_time, .. } = &self.invite;
        let expires = expire_time.map(|time| format!(" expires={}", time.to_rfc3339()));
        let expires = expires.unwrap_or_default();
        let details = format!("uses={uses_max} note={:?}{expires}", note.as_str());
        transaction.note((&self.actor, "invite.create"), id, details)?;
        Ok(Ok(transaction.now))
    }
}

/// Ends an invite.
pub(in crate::store) struct RevokeInvite {
    id: AccessId,
    actor: Actor,
}

impl Write for RevokeInvite {
    type Output = ();

    fn apply(&mut self, transaction: &mut Transaction<'_>) -> Outcome<()> {
        if !invites::remove(transaction.connection, self.id)? {
            return Ok(Err(StoreError::NoSuchInvite(self.id)));
        }
        transaction.note((&self.actor, "invite.revoke"), &self.id, String::new())?;
        Ok(Ok(()))
    }
}

impl Store {
    /// Gives a user one more token, in the place of all others if `revoke_others`. When it was made.
    ///
    /// # Errors
    /// [`StoreError::TokenLimit`] when they have as many as they may; [`StoreError::NoSuchUser`].
    pub async fn create_token(
        &self,
        subject: Subject,
        token: NewToken,
        revoke_others: bool,
        actor: Actor,
    ) -> Result<Timestamp, StoreError> {
        let write = CreateToken { subject, token, revoke_others, actor };
        self.0.writes.submit(write).await?.answer().await
    }

    /// Ends tokens of a user, and says how many.
    ///
    /// # Errors
    /// [`StoreError::NoSuchToken`] when they have none of this id; [`StoreError::NoSuchUser`].
    pub async fn revoke_tokens(
        &self,
        subject: Subject,
        which: Which,
        actor: Actor,
    ) -> Result<usize, StoreError> {
        self.0.writes.submit(RevokeTokens { subject, which, actor }).await?.answer().await
    }

    /// Bans the user of this name for this reason; without one, lifts the ban. What is so already stays.
    ///
    /// # Errors
    /// [`StoreError::NoSuchUser`].
    pub async fn set_ban(
        &self,
        name: Username,
        reason: Option<Label>,
        actor: Actor,
    ) -> Result<Account, StoreError> {
        self.0.writes.submit(SetBan { name, reason, actor }).await?.answer().await
    }

    /// Ends a user. The name stays taken for ever.
    ///
    /// # Errors
    /// [`StoreError::NoSuchUser`] also for one who is gone.
    pub async fn delete_user(&self, subject: Subject, actor: Actor) -> Result<User, StoreError> {
        self.0.writes.submit(DeleteUser { subject, actor }).await?.answer().await
    }

    /// Enters an invite. When it was made.
    ///
    /// # Errors
    /// Only the storage's.
    pub async fn create_invite(
        &self,
        invite: NewInvite,
        actor: Actor,
    ) -> Result<Timestamp, StoreError> {
        self.0.writes.submit(CreateInvite { invite, actor }).await?.answer().await
    }

    /// Ends an invite.
    ///
    /// # Errors
    /// [`StoreError::NoSuchInvite`].
    pub async fn revoke_invite(&self, id: AccessId, actor: Actor) -> Result<(), StoreError> {
        self.0.writes.submit(RevokeInvite { id, actor }).await?.answer().await
    }
}
