//! Who calls: names and their tokens.

mod access;
mod accounts;

use std::net::IpAddr;
use std::sync::Arc;

use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::domain::{
    InviteHash, PeerAddress, Profile, Standing, Timestamp, Token, TokenHash, User, Username,
};
use crate::limiter::{Limiter, RateExceeded};
use crate::metrics::{Counter, Kind, Page};
use crate::store::accounts::tokens::TokenOwner;
use crate::store::{Store, StoreError};

pub use self::access::{Access, Credential, Session};
pub use self::accounts::{InviteRequest, IssuedToken, TokenRequest};

/// Whom a server lets register a new name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RegistrationPolicy {
    /// Everybody.
    #[default]
    Open,
    /// Whoever has an invite.
    Invite,
    /// Nobody.
    Closed,
}

/// Registers names and recognises tokens. Cloning gives another handle.
#[derive(Clone)]
pub struct Authenticator {
    store: Store,
    access: Access,
    lookups: Arc<Lookups>,
    limiter: Limiter,
    is_open: bool,
    registration: RegistrationPolicy,
}

/// How the owners of tokens were found.
#[derive(Default)]
struct Lookups {
    remembered: Counter,
    asked: Counter,
}

/// Why a caller was not recognised, or a name not registered.
#[derive(Debug, Clone, Error)]
pub enum AuthError {
    /// The token is nobody's.
    #[error("the token is not one of this server's")]
    UnknownToken,
    /// No user has the name under which somebody calls.
    #[error("no user {0} is registered")]
    NoSuchUser(Username),
    /// The token was good, until this time.
    #[error("the token has expired")]
    ExpiredToken(Timestamp),
    /// An operator does not let the user in.
    #[error("{0} is banned")]
    Banned(Username),
    /// The token is of another user than the one that the caller names.
    #[error("the token is not the one of {0}")]
    AnotherUser(Username),
    /// More new names from an address than may be.
    #[error("new names from an address {0}")]
    RegistrationRate(RateExceeded),
    /// What the store said, among it that the name is taken.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A registration, and the token if the name is new.
#[derive(Debug)]
pub struct Registration {
    /// The user.
    pub profile: Profile,
    /// To be shown once; `None` when a registered name was updated.
    pub token: Option<Token>,
}

impl Authenticator {
    /// Recognises callers against this store, by their tokens. `access` hears of the store's commits.
    pub fn new(store: Store, access: Access) -> Self {
        let (is_open, registration) = (false, RegistrationPolicy::Open);
        let (lookups, limiter) = (Arc::default(), Limiter::default());
        Self { store, access, lookups, limiter, is_open, registration }
    }

    /// The same, with nobody to hear of tokens that are revoked: for a store in which none are.
    pub fn alone(store: Store) -> Self {
        Self::new(store, Access::new(CancellationToken::new()))
    }

    /// Lets these register new names.
    #[must_use]
    pub fn registering(self, registration: RegistrationPolicy) -> Self {
        Self { registration, ..self }
    }

    /// Takes callers without a token for who they say they are, if `is_open`.
    #[must_use]
    pub fn open(self, is_open: bool) -> Self {
        Self { is_open, ..self }
    }

    /// Holds those who register to these limits.
    #[must_use]
    pub fn limited_by(self, limiter: Limiter) -> Self {
        Self { limiter, ..self }
    }

    /// Whether callers need no token.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// The user to whom the token belongs, if that is known without asking the store.
    pub fn remembered(&self, token: &Token) -> Option<User> {
        let owner = self.access.by_token(token.hash())?;
        self.lookups.remembered.increment();
        Some(owner)
    }

    /// Writes what is counted here.
    pub fn write_metrics(&self, page: &mut Page) {
        page.family(
            "peerpost_token_lookups_total",
            Kind::Counter,
            "Tokens recognised from memory (hit), or looked up in the store (miss).",
        )
        .sample(&[("result", "hit")], self.lookups.remembered.get())
        .sample(&[("result", "miss")], self.lookups.asked.get());
    }

    /// The user to whom the token belongs.
    ///
    /// # Errors
    /// [`AuthError`]: it is nobody's, it has expired, or they are banned.
    pub async fn authenticate(&self, token: &Token) -> Result<User, AuthError> {
        match self.remembered(token) {
            Some(user) => Ok(user),
            None => Ok(self.look_up(token.hash()).await?.user),
        }
    }

    /// The owner of a token as the store knows them, to be remembered.
    async fn look_up(&self, token: TokenHash) -> Result<TokenOwner, AuthError> {
        self.lookups.asked.increment();
        loop {
            let endings = self.access.endings();
            let owner = self.store.find_by_token(token).await?.ok_or(AuthError::UnknownToken)?;
            if let Some(time) = owner.expire_time.filter(|time| *time <= Timestamp::now()) {
                return Err(AuthError::ExpiredToken(time));
            }
            if owner.standing == Standing::Banned {
                return Err(AuthError::Banned(owner.user.name));
            }
            // Somebody's access ended meanwhile, perhaps this one's: that is a commit, so that it is not
            // again and again.
            if self.access.remember_token((token, owner.expire_time), &owner.user, endings) {
                return Ok(owner);
            }
        }
    }

    /// The user of this name, if they are known to be let in without asking the store.
    pub fn remembered_by_name(&self, name: &Username) -> Option<User> {
        self.access.by_name(name)
    }

    /// The user of this name.
    ///
    /// # Errors
    /// [`AuthError::NoSuchUser`] when there is none; [`AuthError::Banned`].
    pub async fn by_name(&self, name: &Username) -> Result<User, AuthError> {
        loop {
            let endings = self.access.endings();
            let account = self.store.account(name.clone()).await?.map(|(account, _)| account);
            let account = account.filter(|it| it.standing != Standing::Deleted);
            let account = account.ok_or_else(|| AuthError::NoSuchUser(name.clone()))?;
            if account.standing == Standing::Banned {
                return Err(AuthError::Banned(account.user.name));
            }
            if self.access.remember_name(&account.user, endings) {
                return Ok(account.user);
            }
        }
    }

    /// A stream of a caller who was recognised by `credential` begins: it is to end with the session, and
    /// when the credential expires.
    ///
    /// # Errors
    /// [`AuthError`] when they are let in no more.
    pub async fn open_session(
        &self,
        user: &User,
        credential: Credential,
    ) -> Result<(Session, Option<Timestamp>), AuthError> {
        let session = self.access.open(user.id, credential);
        // Only now, so that no end falls in between.
        let expire_time = match credential {
            Credential::Token(token) => match self.access.expiry(token) {
                (true, expire_time) => expire_time,
                (false, _) => self.look_up(token).await?.expire_time,
            },
            Credential::Name => {
                if self.access.by_name(&user.name).is_none() {
                    self.by_name(&user.name).await?;
                }
                None
            }
        };
        Ok((session, expire_time))
    }

    /// [`register`](Self::register) for a caller from this address, within the rate of new names.
    ///
    /// # Errors
    /// [`AuthError::RegistrationRate`], and those of [`register`](Self::register).
    pub async fn register_from(
        &self,
        from: Option<IpAddr>,
        name: Username,
        address: PeerAddress,
        invite: Option<InviteHash>,
        caller: Option<&User>,
    ) -> Result<Registration, AuthError> {
        let registering = match self.limiter.admit_registration(from) {
            Ok(registering) => Some(registering),
            // Only new names have a rate: what becomes of one that is there is another question.
            Err(_) if self.store.find_user(&name).await?.is_some() => None,
            Err(exceeded) => {
                self.limiter.registration_refused();
                return Err(AuthError::RegistrationRate(exceeded));
            }
        };
        let registered = self.register(name, address, invite, caller).await;
        let is_new = registered.as_ref().is_ok_and(|it| it.token.is_some());
        if let Some(registering) = registering.filter(|_| !is_new) {
            registering.give_back();
        }
        registered
    }

    /// Registers a name, or updates the address of the caller's own. Where it is open and nobody calls,
    /// every name is the caller's own. An invite is of use only where it is needed.
    ///
    /// # Errors
    /// [`StoreError::UsernameTaken`] when the name is not the caller's; [`StoreError::Invite`] and
    /// [`StoreError::RegistrationClosed`] for a new one.
    pub async fn register(
        &self,
        name: Username,
        address: PeerAddress,
        invite: Option<InviteHash>,
        caller: Option<&User>,
    ) -> Result<Registration, AuthError> {
        let (token, new_names) = (Token::mint(), self.new_names(invite));
        let (hash, id) = (token.hash(), caller.map(|user| user.id));
        let register = |name: &Username, owner| {
            self.store.register_if(new_names, name.clone(), address, hash, owner)
        };
        let mut registered = register(&name, id).await;
        if let (Err(StoreError::UsernameTaken(_)), true, None) = (&registered, self.is_open, caller)
        {
            let owner = Some(self.by_name(&name).await?.id);
            registered = register(&name, owner).await;
        }
        let registered = registered?;
        Ok(Registration { profile: registered.profile, token: registered.is_new.then_some(token) })
    }
}
