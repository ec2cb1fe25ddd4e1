use std::path::PathBuf;

use diesel::result::{ConnectionError, Error as DieselError};
use thiserror::Error;

use crate::domain::{MailboxRange, RequestId, Sequence, Username};

/// Why the store did not do what it was asked. Nothing was stored, except where a variant says
/// that this is unknown.
#[derive(Debug, Clone, Error)]
pub enum StoreError {
    /// The name belongs to another user.
    #[error("the name {0} is registered")]
    UsernameTaken(Username),
    /// The sender used this key for another message.
    #[error("the request_id was used for another message")]
    RequestIdReused(RequestId),
    /// An acknowledgement of entries that do not exist.
    #[error("sequence {asked} is beyond the mailbox, which ends at {}", range.last)]
    BeyondMailbox {
        /// What was asked.
        asked: Sequence,
        /// What there is.
        range: MailboxRange,
    },
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
    DiskFull,
    /// The storage is failing. Whether a write was stored is unknown.
    #[error("the storage is failing")]
    Failing,
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
    /// A stored entry does not hold together: a checksum, a reference or the density of a mailbox.
    #[error("the stored entry {sequence} is damaged")]
    Damaged {
        /// The entry, in the mailbox that was read.
        sequence: Sequence,
    },
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
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// SQLite's texts for a full disk: diesel hands on the text but not the code.
/// (`sqlite3_errstr(SQLITE_FULL)`, sqlite.org/rescode.html#full)
const DISK_FULL_TEXT: &str = "database or disk is full";

/// What a failing statement means for those who wait for it.
pub(super) fn storage_error(error: &DieselError) -> StoreError {
    match error {
        DieselError::DatabaseError(_, info) if info.message() == DISK_FULL_TEXT => {
            StoreError::DiskFull
        }
        _ => StoreError::Failing,
    }
}
