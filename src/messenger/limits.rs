use std::num::NonZero;

use super::{Messenger, MessengerError, Role};
use crate::domain::{Rate, User, UserLimits, Username};
use crate::store::StoreError;
use crate::store::accounts::audit::Actor;

/// What limits a user, and where it comes from.
#[derive(Debug, Clone)]
pub struct LimitsOfUser {
    /// The user.
    pub user: User,
    /// What is set for them alone.
    pub own: UserLimits,
    /// How fast they may send, and how many messages at once; `None`: unlimited.
    pub send_rate: Option<(Rate, NonZero<u32>)>,
    /// How many subscriptions they may have open.
    pub subscriptions: NonZero<usize>,
}

impl Messenger {
    /// Takes over what is stored for single users. To be called once, before anybody is served.
    ///
    /// # Errors
    /// Only the storage's.
    pub async fn load_user_limits(&self) -> Result<(), StoreError> {
        for (user, own) in self.store.user_limits().await? {
            self.limiter.set(user, own);
        }
        Ok(())
    }

    /// The limits of a user.
    ///
    /// # Errors
    /// [`MessengerError::NoSuchUser`], or the store's.
    pub async fn user_limits(&self, name: Username) -> Result<LimitsOfUser, MessengerError> {
        match self.store.find_user(&name).await? {
            Some(user) => Ok(self.limits_of(user)),
            None => Err(MessengerError::NoSuchUser { name, role: Role::Subject }),
        }
    }

    /// Sets what holds for a user alone, in place of what was set before: from the moment on at which it
    /// is on disk.
    ///
    /// # Errors
    /// [`MessengerError::NoSuchUser`], [`MessengerError::TooManyUsersWithLimits`], or the store's.
    pub async fn set_user_limits(
        &self,
        name: Username,
        own: UserLimits,
        by: Actor,
    ) -> Result<LimitsOfUser, MessengerError> {
        let user = self.user_limits(name).await?.user;
        if !own.is_empty() {
            self.limiter.has_room_for(user.id)?;
        }
        let (limiter, id) = (self.limiter.clone(), user.id);
        self.store.set_user_limits(user.clone(), own, by, move || limiter.set(id, own)).await?;
        Ok(self.limits_of(user))
    }

    fn limits_of(&self, user: User) -> LimitsOfUser {
        let own = self.limiter.of_user(user.id);
        let send_rate = self.limiter.send_rate(&own);
        let subscriptions = self.limiter.subscriptions(user.id);
        LimitsOfUser { user, own, send_rate, subscriptions }
    }
}
