//! Who calls: names and their tokens.

use std::net::IpAddr;
use std::sync::Arc;

use quick_cache::sync::Cache;
use thiserror::Error;

use crate::domain::{PeerAddress, Profile, Token, TokenHash, User, Username};
use crate::limiter::{Limiter, RateExceeded};
use crate::metrics::{Counter, Kind, Page};
use crate::store::{Store, StoreError};

/// The tokens whose owners are remembered: about 100 bytes each. The rest are looked up in the
/// store. A token's owner never changes; unknown tokens are not remembered.
const TOKENS_REMEMBERED_MAX: usize = 65_536;

/// Registers names and recognises tokens. Cloning gives another handle.
#[derive(Clone)]
pub struct Authenticator {
    store: Store,
    owners: Arc<Cache<TokenHash, User>>,
    lookups: Arc<Lookups>,
    limiter: Limiter,
    is_open: bool,
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
    /// Recognises callers against this store, by their tokens.
    pub fn new(store: Store) -> Self {
        let owners = Arc::new(Cache::new(TOKENS_REMEMBERED_MAX));
        Self { store, owners, lookups: Arc::default(), limiter: Limiter::default(), is_open: false }
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
        let owner = self.owners.get(&token.hash())?;
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
    /// [`AuthError::UnknownToken`] when it is nobody's.
    pub async fn authenticate(&self, token: &Token) -> Result<User, AuthError> {
        if let Some(user) = self.remembered(token) {
            return Ok(user);
        }
        self.lookups.asked.increment();
        let hash = token.hash();
        let user = self.store.find_by_token(hash).await?.ok_or(AuthError::UnknownToken)?;
        self.owners.insert(hash, user.clone());
        Ok(user)
    }

    /// The user of this name, if that is known without asking the store.
    pub fn remembered_by_name(&self, name: &Username) -> Option<User> {
        self.store.remembered_user(name)
    }

    /// The user of this name.
    ///
    /// # Errors
    /// [`AuthError::NoSuchUser`] when there is none.
    pub async fn by_name(&self, name: &Username) -> Result<User, AuthError> {
        let user = self.store.find_user(name).await?;
        user.ok_or_else(|| AuthError::NoSuchUser(name.clone()))
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
        caller: Option<&User>,
    ) -> Result<Registration, AuthError> {
        let registering = match self.limiter.admit_registration(from) {
            Ok(registering) => Some(registering),
            // Only new names have a rate: what becomes of one that is there is another question.
            Err(_) if self.by_name(&name).await.is_ok() => None,
            Err(exceeded) => {
                self.limiter.registration_refused();
                return Err(AuthError::RegistrationRate(exceeded));
            }
        };
        let registered = self.register(name, address, caller).await;
        let is_new = registered.as_ref().is_ok_and(|it| it.token.is_some());
        if let Some(registering) = registering.filter(|_| !is_new) {
            registering.give_back();
        }
        registered
    }

    /// Registers a name, or updates the address of the caller's own. Where it is open and nobody calls,
    /// every name is the caller's own.
    ///
    /// # Errors
    /// [`StoreError::UsernameTaken`] when the name is not the caller's.
    pub async fn register(
        &self,
        name: Username,
        address: PeerAddress,
        caller: Option<&User>,
    ) -> Result<Registration, AuthError> {
        let token = Token::mint();
        let id = caller.map(|user| user.id);
        let mut registered = self.store.register(name.clone(), address, token.hash(), id).await;
        if let (Err(StoreError::UsernameTaken(_)), true, None) = (&registered, self.is_open, caller)
        {
            let owner = Some(self.by_name(&name).await?.id);
            registered = self.store.register(name, address, token.hash(), owner).await;
        }
        let registered = registered?;
        Ok(Registration { profile: registered.profile, token: registered.is_new.then_some(token) })
    }
}
