use std::fmt;

use thiserror::Error;
use uuid::Uuid;

/// An entry's number in its owner's mailbox, dense from 1; 0 stands before the first entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Sequence(i64);

/// Why a number is not a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("is {0}; a sequence is not negative")]
pub struct SequenceError(i64);

impl Sequence {
    /// Before the first entry.
    pub const ZERO: Self = Self(0);

    /// After every entry that can ever be.
    pub const MAX: Self = Self(i64::MAX);

    /// The first entry.
    pub const FIRST: Self = Self(1);

    /// Parses a sequence.
    ///
    /// # Errors
    /// [`SequenceError`] for a negative number.
    pub fn parse(number: i64) -> Result<Self, SequenceError> {
        if number < 0 { Err(SequenceError(number)) } else { Ok(Self(number)) }
    }

    /// The number.
    pub fn get(self) -> i64 {
        self.0
    }

    /// The entry after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a mailbox holds: the sequences `first..=last`, with `last` = `first` - 1 when it is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailboxRange {
    /// The first sequence held; 1 for a mailbox that was always empty.
    pub first: Sequence,
    /// The last sequence given out; 0 for a mailbox that was always empty.
    pub last: Sequence,
}

/// The random name of a database, minted when it is created or restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch(String);

impl Epoch {
    /// A new one: 122 random bits.
    pub fn mint() -> Self {
        Self(Uuid::new_v4().simple().to_string())
    }

    /// An epoch as stored or as named in a request.
    pub fn from_text(text: String) -> Self {
        Self(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
