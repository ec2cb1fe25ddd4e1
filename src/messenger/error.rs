use thiserror::Error;

use crate::domain::{Epoch, MailboxRange, Sequence, Username};
use crate::hub::TooManyFollowers;
use crate::limiter::{RateExceeded, TooManyUsersWithLimits};
use crate::store::StoreError;

/// Why a use case was not carried out.
#[derive(Debug, Clone, Error)]
pub enum MessengerError {
    /// No such user.
    #[error("no user {name}")]
    NoSuchUser {
        /// Whom the caller named.
        name: Username,
        /// As what.
        role: Role,
    },
    /// A sequence outside the mailbox.
    #[error("sequence {asked} is outside {min}..={max}")]
    OutOfRange {
        /// Which cursor.
        cursor: Cursor,
        /// What was asked.
        asked: Sequence,
        /// The lowest value that it may have.
        min: Sequence,
        /// The highest value that it may have at this moment.
        max: Sequence,
    },
    /// A cursor of another database.
    #[error("the epoch is {}", current.as_str())]
    EpochMismatch {
        /// The epoch of this one.
        current: Epoch,
    },
    /// Too many subscriptions.
    #[error(transparent)]
    TooManyFollowers(#[from] TooManyFollowers),
    /// Limits of their own for one more user than can be.
    #[error(transparent)]
    TooManyUsersWithLimits(#[from] TooManyUsersWithLimits),
    /// Messages faster than the sender may.
    #[error("sends {0}")]
    SendRate(RateExceeded),
    /// What the store said.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// As what a request names a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The other side of a conversation.
    Peer,
    /// Who is looked up.
    Subject,
}

/// The cursors that requests carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cursor {
    /// Of a page forwards, or of a subscription.
    After,
    /// Of a page backwards.
    Before,
    /// Of an acknowledgement.
    Through,
}

impl MessengerError {
    /// For a cursor that must lie in the mailbox or right before its first entry.
    pub(super) fn check_after(
        cursor: Cursor,
        asked: Sequence,
        range: &MailboxRange,
    ) -> Result<(), Self> {
        let min = Sequence::parse(range.first.get() - 1).unwrap_or(Sequence::ZERO);
        Self::check(cursor, asked, min, range.last)
    }

    /// For any cursor and its bounds.
    pub(super) fn check(
        cursor: Cursor,
        asked: Sequence,
        min: Sequence,
        max: Sequence,
    ) -> Result<(), Self> {
        if (min..=max).contains(&asked) {
            Ok(())
        } else {
            Err(Self::OutOfRange { cursor, asked, min, max })
        }
    }
}
