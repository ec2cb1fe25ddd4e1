use super::{Messenger, MessengerError, Role};
use crate::domain::{Profile, Timestamp, Username, UsernamePrefix};

/// A user as others see them at this moment.
#[derive(Debug, Clone)]
pub struct UserView {
    /// What is stored of them, with the hub's `last_seen_time` for one who is online: the present.
    pub profile: Profile,
    /// Whether they have an open subscription.
    pub online: bool,
}

/// A page of users.
#[derive(Debug)]
pub struct UserPage {
    /// In ascending order of their keys.
    pub users: Vec<UserView>,
    /// The key after which the next page begins; `None` after the last page.
    pub next_after: Option<String>,
}

impl Messenger {
    /// Looks up one user.
    ///
    /// # Errors
    /// [`MessengerError::NoSuchUser`], or the store's.
    pub async fn user(&self, name: Username) -> Result<UserView, MessengerError> {
        if let Some(user) = self.store.find_user(&name).await? {
            // Before the store is read: the hub forgets a user once the store knows when they went.
            let seen = self.hub.last_seen(user.id);
            if let Some(profile) = self.store.profile(name.clone()).await? {
                return Ok(UserView::new(profile, seen));
            }
        }
        Err(MessengerError::NoSuchUser { name, role: Role::Subject })
    }

    /// Lists users whose names begin with `prefix`, after the key `after`.
    ///
    /// # Errors
    /// Only the store's.
    pub async fn users(
        &self,
        prefix: UsernamePrefix,
        after: String,
        page_size: usize,
    ) -> Result<UserPage, MessengerError> {
        let mut profiles = self.store.profiles(prefix, after, page_size + 1).await?;
        let has_more = profiles.len() > page_size;
        profiles.truncate(page_size);
        let next_after =
            profiles.last().filter(|_| has_more).map(|profile| profile.user.name.key());
        let users = profiles.into_iter().map(|profile| self.view(profile)).collect();
        Ok(UserPage { users, next_after })
    }

    /// What is stored of a user, with their presence.
    pub fn view(&self, profile: Profile) -> UserView {
        let seen = self.hub.last_seen(profile.user.id);
        UserView::new(profile, seen)
    }
}

impl UserView {
    /// With when the hub saw them, if it knows them at this moment.
    fn new(mut profile: Profile, seen: Option<Timestamp>) -> Self {
        profile.last_seen_time = seen.max(profile.last_seen_time);
        Self { profile, online: seen.is_some() }
    }
}
