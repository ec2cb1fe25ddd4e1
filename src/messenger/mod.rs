//! What peerpost does, in its own words: send, read, follow, acknowledge, look up.

mod directory;
mod error;
mod follow;
mod limits;
mod read;
mod send;
#[cfg(test)]
mod tests;

use crate::domain::Epoch;
use crate::hub::Hub;
use crate::limiter::Limiter;
use crate::store::Store;

pub use self::directory::{UserPage, UserView};
pub use self::error::{Cursor, MessengerError, Role};
pub use self::follow::{Delivery, Follow, FollowEvent, FollowRequest, FollowStart};
pub use self::limits::LimitsOfUser;
pub use self::read::{MessagePage, PageRequest};
pub use self::send::Outgoing;

/// The use cases over the store and the hub. Cloning gives another handle.
#[derive(Clone)]
pub struct Messenger {
    store: Store,
    hub: Hub,
    limiter: Limiter,
}

impl Messenger {
    /// The use cases over this store and the hub that its commits are announced to.
    pub fn new(store: Store, hub: Hub) -> Self {
        Self { store, hub, limiter: Limiter::default() }
    }

    /// Holds users to these limits.
    #[must_use]
    pub fn limited_by(self, limiter: Limiter) -> Self {
        Self { limiter, ..self }
    }

    /// The current epoch.
    pub fn epoch(&self) -> &Epoch {
        self.store.epoch()
    }

    /// A cursor is good only within its epoch.
    fn check_epoch(&self, epoch: Option<&Epoch>) -> Result<(), MessengerError> {
        match epoch {
            Some(epoch) if epoch != self.epoch() => {
                Err(MessengerError::EpochMismatch { current: self.epoch().clone() })
            }
            _ => Ok(()),
        }
    }
}
