use std::pin::Pin;
use std::time::SystemTime;

use tokio_stream::Stream;

use super::Error;
use super::message::to_system_time;
use crate::proto;

/// A registered name and what the server knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct User {
    /// The name, in the case in which it was registered.
    pub username: String,
    /// The address at which the user can be reached, with or without a port.
    pub ip_address: String,
    /// When the name was first registered, by the server's clock.
    pub register_time: SystemTime,
    /// Whether the user follows their mailbox at this moment.
    pub online: bool,
    /// When the user was last known to follow their mailbox; `None`: never.
    pub last_seen_time: Option<SystemTime>,
}

/// A page of users, in ascending order of their lower-case names.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct UserPage {
    /// The users.
    pub users: Vec<User>,
    /// What the next page is asked for with; `None`: this was the last.
    pub next_page_token: Option<String>,
}

/// Users one after the other, read page by page as the stream is polled. Ends after an error.
pub type UserStream = Pin<Box<dyn Stream<Item = Result<User, Error>> + Send>>;

impl TryFrom<proto::User> for User {
    type Error = Error;

    fn try_from(user: proto::User) -> Result<Self, Error> {
        Ok(Self {
            username: user.username,
            ip_address: user.ip_address,
            register_time: to_system_time(user.register_time)?,
            online: user.online,
            last_seen_time: match user.last_seen_time {
                Some(time) => Some(to_system_time(Some(time))?),
                None => None,
            },
        })
    }
}

impl TryFrom<proto::ListUsersResponse> for UserPage {
    type Error = Error;

    fn try_from(response: proto::ListUsersResponse) -> Result<Self, Error> {
        let users = response.users.into_iter().map(User::try_from).collect::<Result<_, _>>()?;
        let token = response.next_page_token;
        Ok(Self { users, next_page_token: (!token.is_empty()).then_some(token) })
    }
}
