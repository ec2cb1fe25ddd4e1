use super::{PeerAddress, Timestamp, Username};

/// A user's number in this database: never given out, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(pub i64);

/// Who a user is. Neither part ever changes, so it can be kept and shared.
#[derive(Debug, Clone)]
pub struct User {
    /// The number by which the store knows the user.
    pub id: UserId,
    /// The name as registered.
    pub name: Username,
}

/// A user and what is known of them at one moment.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Who it is.
    pub user: User,
    /// Where they can be reached.
    pub address: PeerAddress,
    /// When the name was registered.
    pub register_time: Timestamp,
    /// When a subscription of theirs last began or ended; `None` before the first.
    pub last_seen_time: Option<Timestamp>,
}

/// What a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Everything that is theirs to do.
    Active,
    /// Nothing, until an operator says otherwise. Others can write to them.
    Banned,
    /// Nothing any more: they are gone, and only the name stays taken.
    Deleted,
}
