//! What users and operators do about access: tokens, bans, invites, the end of a user.

use super::{AuthError, Authenticator, RegistrationPolicy};
use crate::domain::{
    AccessId, Invite, InviteHash, Label, Timestamp, Token, User, UserId, Username,
};
use crate::store::accounts::audit::Actor;
use crate::store::accounts::invites::{InviteInfo, NewInvite};
use crate::store::accounts::tokens::{NewToken, TokenInfo};
use crate::store::accounts::{Account, NewNames};
use crate::store::{Subject, Which};

/// What a token is asked for.
#[derive(Debug, Clone)]
pub struct TokenRequest {
    /// What it is for.
    pub name: Label,
    /// From when on it is good no more; `None`: never.
    pub expire_time: Option<Timestamp>,
}

/// A token that was made.
#[derive(Debug)]
pub struct IssuedToken {
    /// What is listed of it.
    pub info: TokenInfo,
    /// To be shown once.
    pub secret: Token,
}

/// What an invite is asked for.
#[derive(Debug, Clone)]
pub struct InviteRequest {
    /// What it is for.
    pub note: Label,
    /// How many names it lets in.
    pub uses_max: u32,
    /// From when on it is good no more; `None`: never.
    pub expire_time: Option<Timestamp>,
}

impl Authenticator {
    /// What becomes of a new name, whoever brings this invite.
    pub(super) fn new_names(&self, invite: Option<InviteHash>) -> NewNames {
        match self.registration {
            RegistrationPolicy::Open => NewNames::All,
            RegistrationPolicy::Invite => NewNames::ByInvite(invite),
            RegistrationPolicy::Closed => NewNames::None,
        }
    }

    /// Gives a user one more token, in the place of all others if `revoke_others`.
    ///
    /// # Errors
    /// [`TokenLimit`](crate::store::StoreError::TokenLimit), [`NoSuchUser`](crate::store::StoreError::NoSuchUser); the storage's.
    pub async fn create_token(
        &self,
        subject: Subject,
        TokenRequest { name, expire_time }: TokenRequest,
        revoke_others: bool,
        actor: Actor,
    ) -> Result<IssuedToken, AuthError> {
        let secret = Token::mint();
        let token = NewToken { id: AccessId::mint(), hash: secret.hash(), name, expire_time };
        let create_time =
            self.store.create_token(subject, token.clone(), revoke_others, actor).await?;
        Ok(IssuedToken { info: TokenInfo { token, create_time }, secret })
    }

    /// A user's tokens, the oldest first; at most
    /// [`TOKENS_PER_USER_MAX`](crate::domain::limits::TOKENS_PER_USER_MAX).
    ///
    /// # Errors
    /// The storage's.
    pub async fn tokens(&self, user: UserId) -> Result<Vec<TokenInfo>, AuthError> {
        Ok(self.store.tokens(user).await?)
    }

    /// Ends tokens of a user, and says how many. Their calls are refused and their streams end from the
    /// moment at which it is on disk.
    ///
    /// # Errors
    /// [`NoSuchToken`](crate::store::StoreError::NoSuchToken), [`NoSuchUser`](crate::store::StoreError::NoSuchUser); the storage's.
    pub async fn revoke_tokens(
        &self,
        subject: Subject,
        which: Which,
        actor: Actor,
    ) -> Result<usize, AuthError> {
        Ok(self.store.revoke_tokens(subject, which, actor).await?)
    }

    /// Lets the user of this name do nothing any more for this reason; without one, everything again.
    ///
    /// # Errors
    /// [`NoSuchUser`](crate::store::StoreError::NoSuchUser); the storage's.
    pub async fn set_ban(
        &self,
        name: Username,
        reason: Option<Label>,
        actor: Actor,
    ) -> Result<Account, AuthError> {
        Ok(self.store.set_ban(name, reason, actor).await?)
    }

    /// Ends a user. Nobody can take the name again, the user included.
    ///
    /// # Errors
    /// [`NoSuchUser`](crate::store::StoreError::NoSuchUser); the storage's.
    pub async fn delete_user(&self, subject: Subject, actor: Actor) -> Result<User, AuthError> {
        Ok(self.store.delete_user(subject, actor).await?)
    }

    /// Makes an invite.
    ///
    /// # Errors
    /// The storage's.
    pub async fn create_invite(
        &self,
        InviteRequest { note, uses_max, expire_time }: InviteRequest,
        actor: Actor,
    ) -> Result<(InviteInfo, Invite), AuthError> {
        let secret = Invite::mint();
        let (id, hash) = (AccessId::mint(), secret.hash());
        let invite = NewInvite { id, hash, note: note.clone(), uses_max, expire_time };
        let create_time = self.store.create_invite(invite, actor).await?;
        Ok((InviteInfo { id, note, create_time, expire_time, uses_max, uses: 0 }, secret))
    }

    /// Ends an invite.
    ///
    /// # Errors
    /// [`NoSuchInvite`](crate::store::StoreError::NoSuchInvite); the storage's.
    pub async fn revoke_invite(&self, id: AccessId, actor: Actor) -> Result<(), AuthError> {
        Ok(self.store.revoke_invite(id, actor).await?)
    }
}
