use std::path::{Path, PathBuf};

use diesel::QueryResult;
use diesel::result::{ConnectionError, Error as DieselError};
use thiserror::Error;
use tracing::error;

use super::accounts::invites::InviteProblem;
use super::backup::BackupError;
use super::index::LoadError;
use super::mailbox_sizes::MailboxLimit;
use crate::domain::{AccessId, MailboxRange, RequestId, Sequence, UserId, Username};

/// Why the store did not do what it was asked. Nothing was stored, except where a variant says
/// that this is unknown.
#[derive(Debug, Clone, Error)]
pub enum StoreError {
    /// The name belongs to another user.
    #[error("the name {0} is registered")]
    UsernameTaken(Username),
    /// Nobody has the name that a message is for.
    #[error("no user {0}")]
    NoSuchReceiver(Username),
    /// There is no user of this name, or no more.
    #[error("no user {0}")]
    NoSuchUser(Username),
    /// Nobody may register a new name here.
    #[error("registration is closed")]
    RegistrationClosed,
    /// A new name needs an invite here, and this one is no good.
    #[error(transparent)]
    Invite(InviteProblem),
    /// The user has as many tokens as they may.
    #[error("there are {max} tokens already")]
    TokenLimit {
        /// How many.
        max: usize,
    },
    /// The user has no token of this id.
    #[error("no token {0}")]
    NoSuchToken(AccessId),
    /// There is no invite of this id.
    #[error("no invite {0}")]
    NoSuchInvite(AccessId),
    /// The sender used this key for another message.
    #[error("the request_id was used for another message")]
    RequestIdReused(RequestId),
    /// A mailbox that the message would enter is full. Nothing was stored.
    #[error("the mailbox of {owner} is full")]
    MailboxFull {
        /// Whose: the receiver's, or the sender's own.
        owner: Username,
        /// Which of its limits.
        limit: MailboxLimit,
        /// That limit.
        value: u64,
    },
    /// The message would have expired before it was stored.
    #[error("the message has expired")]
    Expired,
    /// No place in the write queue within [`super::Options::admission_wait`].
    #[error("the write queue is full")]
    WriteQueueFull {
        /// The queue's size.
        limit_bytes: usize,
    },
    /// No reader came free within [`super::Options::admission_wait`].
    #[error("all readers are busy")]
    ReadQueueFull {
        /// How many there are.
        readers: usize,
    },
    /// The disk is full.
    #[error("the disk is full")]
    DiskFull {
        /// The size of its file system, if the writer could find it out.
        disk_bytes: Option<u64>,
    },
    /// The storage is failing. Whether a write was stored is unknown.
    #[error("the storage is failing")]
    Failing,
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
    /// A stored entry does not hold together: a checksum, a reference or the density of a mailbox.
    #[error("{}", describe_damage(*sequence))]
    Damaged {
        /// The entry, in the mailbox that was read, if it is known.
        sequence: Option<Sequence>,
    },
}

/// An acknowledgement of entries that do not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the mailbox ends at {}", range.last)]
pub struct BeyondMailbox {
    /// What there is.
    pub range: MailboxRange,
}

/// Why a data folder could not be opened. Nothing in it was deleted.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The folder, or a file in it, could not be made or read.
    #[error("cannot use the data folder {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// Another server has the folder open.
    #[error(
        "the data folder {} is in use by another peerpost server (process {holder}); \
         only one server can run on a data folder",
        path.display()
    )]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The process id that the other server left in its lock file.
        holder: String,
    },
    /// SQLite could not open the database file.
    #[error("cannot open the database {}: {source}", path.display())]
    Connect {
        /// The file.
        path: PathBuf,
        /// SQLite's reason.
        source: ConnectionError,
    },
    /// The database file was opened and then failed, for instance because it is no database.
    #[error("cannot use the database {}: {source}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// SQLite's reason.
        source: DieselError,
    },
    /// SQLite did not accept a setting on which a promise rests.
    #[error("the database refuses `PRAGMA {pragma} = {wanted}`, it stays at {actual}")]
    Setting {
        /// The setting.
        pragma: &'static str,
        /// What it must be.
        wanted: &'static str,
        /// What it is.
        actual: String,
    },
    /// A migration failed.
    #[error("cannot bring the database up to date: {0}")]
    Migration(String),
    /// The database was written by a newer version.
    #[error(
        "the database was written by a newer version of peerpost \
         (it has the unknown migration {migration}); run that version"
    )]
    Newer {
        /// A migration that this version does not know.
        migration: String,
    },
    /// The database was written by an earlier version, whose tables are others.
    #[error(
        "the database was written by an earlier version of peerpost (it lacks the migration \
         {migration})"
    )]
    Older {
        /// The first migration that it lacks.
        migration: String,
    },
    /// There is no room for a copy of the database beside it.
    #[error(
        "a copy of the database needs up to {needed_bytes} bytes on the disk of {}, and {free_bytes} \
         are free",
        folder.display()
    )]
    NoRoomForCopy {
        /// The data folder.
        folder: PathBuf,
        /// What the copy may take, and some reserve.
        needed_bytes: u64,
        /// What there is.
        free_bytes: u64,
    },
    /// The backup before an upgrade could not be made.
    #[error("no backup could be made before the upgrade: {0}")]
    Backup(Box<BackupError>),
    /// The same was tried several times already, and what each time left is kept.
    #[error(
        "{} holds as many files from before {change} as are kept: none of them is replaced",
        folder.display()
    )]
    BackupsLeft {
        /// Where they are.
        folder: PathBuf,
        /// The change that they are from before, such as a migration's name.
        change: String,
    },
    /// The index of a mailbox and the log do not fit together, so that a sequence could be given out
    /// twice.
    #[error(
        "the database {} is damaged: {damage} \
         (user {}, sequence {sequence}, log position {position})",
        path.display(),
        owner.0
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        damage: IndexDamage,
        /// Whose mailbox.
        owner: UserId,
        /// The entry in that mailbox.
        sequence: i64,
        /// Where the entry's message stands in the log.
        position: i64,
    },
    /// The log lacks a row, so that what stands after it cannot be indexed.
    #[error(
        "the database {} is damaged: the row of the log at position {position} is absent or cannot be \
         read",
        path.display()
    )]
    LogDamaged {
        /// The file.
        path: PathBuf,
        /// The row's place in the log.
        position: i64,
    },
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

impl OpenError {
    /// The same of the file that the one it happened to is a copy of.
    pub(super) fn of_file(self, file: &Path) -> Self {
        let path = file.to_owned();
        match self {
            Self::Connect { source, .. } => Self::Connect { path, source },
            Self::Database { source, .. } => Self::Database { path, source },
            other => other,
        }
    }
}

/// In which way a mailbox's index does not fit the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum IndexDamage {
    /// The log has a message which the index does not have at its sequence.
    #[error("the mailbox's index lacks a message of the log")]
    EntryMissing,
    /// The index has another message at the sequence.
    #[error("the mailbox's index has another message in the place of one of the log")]
    EntryElsewhere,
    /// The index goes on where the log has nothing more for the mailbox.
    #[error("the mailbox's index ends with an entry that the log does not have")]
    EntryBeyondLog,
}

/// Why the indexes could not be read back when the store was opened.
pub(super) fn not_loaded(error: LoadError, database: &Path) -> OpenError {
    let path = database.to_owned();
    let (damage, owner, sequence, position) = match error {
        LoadError::Storage(source) => return OpenError::Database { path, source },
        LoadError::RowAbsent { position } => return OpenError::LogDamaged { path, position },
        LoadError::Discontinuity { owner, sequence, position } => {
            (IndexDamage::EntryElsewhere, owner, sequence, position)
        }
        LoadError::BeyondLog { owner, sequence, position } => {
            (IndexDamage::EntryBeyondLog, owner, sequence, position)
        }
    };
    OpenError::Damaged { path, damage, owner, sequence, position }
}

fn describe_damage(sequence: Option<Sequence>) -> String {
    match sequence {
        Some(sequence) => format!("the stored entry {sequence} is damaged"),
        None => "stored data is damaged".to_owned(),
    }
}

/// SQLite's texts for a full disk and for a file that contradicts itself: diesel hands on the text
/// but not the code. (`sqlite3_errstr`, sqlite.org/rescode.html#full and #corrupt)
const DISK_FULL_TEXT: &str = "database or disk is full";
const CORRUPT_TEXT: &str = "database disk image is malformed";

/// Whether an error is about what is stored in one place, rather than about the storage as a whole:
/// pages of the file that contradict each other, or a value that this code would not have written.
pub(super) fn is_damage(error: &DieselError) -> bool {
    match error {
        DieselError::DatabaseError(_, info) => info.message() == CORRUPT_TEXT,
        DieselError::DeserializationError(_) => true,
        _ => false,
    }
}

/// A value that this code would not have written, in this column.
pub(super) fn unreadable(column: &str) -> DieselError {
    DieselError::DeserializationError(format!("{column} cannot be read").into())
}

/// `None` for what is there and cannot be read because it is damaged.
pub(super) fn unless_damaged<T>(read: QueryResult<T>) -> QueryResult<Option<T>> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_damage(&error) => {
            error!(%error, "stored data is damaged");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// What a failing statement means for those who wait for it.
pub(super) fn storage_error(error: &DieselError) -> StoreError {
    match error {
        DieselError::DatabaseError(_, info) if info.message() == DISK_FULL_TEXT => {
            StoreError::DiskFull { disk_bytes: None }
        }
        error if is_damage(error) => StoreError::Damaged { sequence: None },
        _ => StoreError::Failing,
    }
}

/// Logs a failing read, here where its cause is known, and says what it means.
#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` hands over")]
pub(super) fn failed(error: DieselError) -> StoreError {
    error!(%error, "a read failed");
    storage_error(&error)
}

#[cfg(test)]
mod tests {
    use diesel::result::DatabaseErrorKind;

    use super::*;

    fn database_error(text: &str) -> DieselError {
        DieselError::DatabaseError(DatabaseErrorKind::Unknown, Box::new(text.to_owned()))
    }

    #[test]
    fn a_storage_that_fails_is_neither_damaged_nor_full() {
        let meant = |error: DieselError| storage_error(&error);
        assert!(matches!(meant(database_error("disk I/O error")), StoreError::Failing));
        assert!(matches!(meant(database_error(DISK_FULL_TEXT)), StoreError::DiskFull { .. }));
        for damage in
            [database_error("database disk image is malformed"), unreadable("message_log.body")]
        {
            assert!(matches!(meant(damage), StoreError::Damaged { sequence: None }));
        }
    }

    #[test]
    fn only_damage_counts_as_nothing() {
        assert_eq!(unless_damaged(Ok(1)), Ok(Some(1)));
        assert_eq!(unless_damaged::<i32>(Err(unreadable("message_log.body"))), Ok(None));
        let failing = || database_error("disk I/O error");
        assert_eq!(unless_damaged::<i32>(Err(failing())), Err(failing()));
    }
}
