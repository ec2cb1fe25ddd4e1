//! Copies of a store: made while it runs, and put back under a new epoch.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use diesel::prelude::*;
use diesel::result::Error as DieselError;
use diesel::sql_types::Text;
use thiserror::Error;
use uuid::Uuid;

use super::check::{CheckReport, check_file};
use super::connection;
use super::error::OpenError;
use super::folder::{self, DataFolder, FILE_MODE, sync_folder};
use super::log;
use super::schema::database_state;
use crate::domain::Epoch;

/// What a backup holds, or what was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupSummary {
    /// The messages in it.
    pub messages: u64,
    /// The size of the file.
    pub bytes: u64,
    /// The epoch of its cursors; for what was restored the new one.
    pub epoch: Epoch,
}

/// Why there is no backup, or nothing was restored or rebuilt. What was there before is untouched.
#[derive(Debug, Error)]
pub enum BackupError {
    /// The file to be written is there already.
    #[error("{} is there already; choose another name, or move it away", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file could not be read or written.
    #[error("cannot use {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The data folder, or a database, could not be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// SQLite could not write the copy.
    #[error("cannot write {}: {source}", path.display())]
    Copy {
        /// The file.
        path: PathBuf,
        /// SQLite's reason.
        source: DieselError,
    },
    /// The backup is not whole.
    #[error("{} is damaged: {} findings, the first: {}", path.display(), report.findings_total,
        report.findings.first().map(ToString::to_string).unwrap_or_default())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        report: Box<CheckReport>,
    },
}

/// Writes what the data folder holds at this moment to the new file `target`: whole and on disk when this
/// returns, under another name until then. A server may be running on it, in this process or another; it
/// goes on meanwhile, but its write-ahead log cannot be emptied while this reads.
///
/// # Errors
/// [`BackupError`]; no file is left behind then.
pub fn back_up(data_dir: &Path, target: &Path) -> Result<BackupSummary, BackupError> {
    copy(&folder::existing_database(data_dir)?, target)
}

/// [`back_up`] of a database file.
pub(super) fn copy(database: &Path, target: &Path) -> Result<BackupSummary, BackupError> {
    let file_failed = |source| BackupError::File { path: target.to_owned(), source };
    if target.try_exists().map_err(file_failed)? {
        return Err(BackupError::Exists { path: target.to_owned() });
    }
    let unfinished = Unfinished::beside(target).map_err(file_failed)?;
    let copy_failed = |source| BackupError::Copy { path: target.to_owned(), source };
    let mut connection = connection::open_for_copy(database)?;
    diesel::sql_query("VACUUM INTO ?")
        .bind::<Text, _>(unfinished.name().map_err(file_failed)?)
        .execute(&mut connection)
        .map_err(copy_failed)?;
    drop(connection);
    let summary = summary(&unfinished.0)?;
    unfinished.finish(target).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => BackupError::Exists { path: target.to_owned() },
        _ => file_failed(source),
    })?;
    Ok(summary)
}

/// Makes `data_dir`, which must hold no database, from the backup `source`, of this version or an earlier
/// one. It gets a new epoch: what was acknowledged after the backup is gone, and a cursor of before would
/// skip what comes in its place.
///
/// # Errors
/// [`BackupError::Damaged`] for a backup with findings, unless `even_if_damaged`; nothing is restored then.
pub fn restore(
    source: &Path,
    data_dir: &Path,
    even_if_damaged: bool,
) -> Result<BackupSummary, BackupError> {
    let source_failed = |error| BackupError::File { path: source.to_owned(), source: error };
    fs::metadata(source).map_err(source_failed)?;
    let refuse_damaged = |report: CheckReport| {
        if report.findings_total == 0 || even_if_damaged {
            return Ok(());
        }
        Err(BackupError::Damaged { path: source.to_owned(), report: Box::new(report) })
    };
    let is_older = match check_file(source) {
        Err(OpenError::Older { .. }) => true,
        report => refuse_damaged(report?).map(|()| false)?,
    };
    let folder = DataFolder::open(data_dir)?;
    let target = folder.database_path();
    let target_failed = |error| BackupError::File { path: target.clone(), source: error };
    if target.try_exists().map_err(target_failed)? {
        return Err(BackupError::Exists { path: target });
    }
    let unfinished = Unfinished::beside(&target).map_err(target_failed)?;
    fs::copy(source, &unfinished.0).map_err(target_failed)?;
    renew_epoch(&unfinished.0, source)?;
    if is_older {
        // The check knows the tables of this version.
        refuse_damaged(check_file(&unfinished.0).map_err(|error| error.of_file(source))?)?;
    }
    let summary = summary(&unfinished.0)?;
    unfinished.finish(&target).map_err(target_failed)?;
    Ok(summary)
}

/// Brings a copy of `source` up to date and gives it another epoch.
fn renew_epoch(copy: &Path, source: &Path) -> Result<(), BackupError> {
    let failed = |error| BackupError::Copy { path: source.to_owned(), source: error };
    let mut connection = connection::open_writer(copy).map_err(|error| error.of_file(source))?;
    connection::refuse_newer(&mut connection)?;
    connection::migrate(&mut connection, source)?;
    diesel::update(database_state::table)
        .set(database_state::epoch.eq(Epoch::mint().as_str()))
        .execute(&mut connection)
        .map_err(failed)?;
    connection::empty_log(&mut connection).map_err(failed)
}

fn summary(database: &Path) -> Result<BackupSummary, BackupError> {
    let failed = |source| BackupError::Copy { path: database.to_owned(), source };
    let mut connection = connection::open_untouched(database)?;
    let epoch: String = database_state::table
        .select(database_state::epoch)
        .first(&mut connection)
        .map_err(failed)?;
    let messages = log::rows(&mut connection).map_err(failed)?;
    let size = fs::metadata(database);
    let bytes =
        size.map_err(|source| BackupError::File { path: database.to_owned(), source })?.len();
    Ok(BackupSummary { messages, bytes, epoch: Epoch::from_text(epoch) })
}

/// A file that is being written, under a name of its own; removed unless it is finished.
pub(super) struct Unfinished(PathBuf);

/// How the names of such files are known.
pub(super) const UNFINISHED_MARK: &str = ".unfinished";

impl Unfinished {
    /// An empty file in the folder of `target`, for its owner only.
    pub(super) fn beside(target: &Path) -> io::Result<Self> {
        let mut name = target.file_name().ok_or(io::ErrorKind::InvalidFilename)?.to_owned();
        name.push(format!(".{}{UNFINISHED_MARK}", Uuid::new_v4().simple()));
        let path = target.with_file_name(name);
        OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    fn name(&self) -> io::Result<&str> {
        self.0.to_str().ok_or_else(|| io::Error::other("the path is not UTF-8"))
    }

    /// Makes it durable under its name, which must still be free.
    fn finish(self, target: &Path) -> io::Result<()> {
        File::open(&self.0)?.sync_all()?;
        // A rename would replace what has come to be there meanwhile.
        fs::hard_link(&self.0, target)?;
        fs::remove_file(&self.0)?;
        sync_folder(target)
    }

    /// Makes it durable in the place of the file `target`.
    pub(super) fn replace(self, target: &Path) -> io::Result<()> {
        File::open(&self.0)?.sync_all()?;
        fs::rename(&self.0, target)?;
        sync_folder(target)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Gone when it was finished; what SQLite put beside it goes as well.
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let mut name = self.0.clone().into_os_string();
            name.push(suffix);
            let _ = fs::remove_file(name);
        }
    }
}
