use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::OpenError;

const LOCK_FILE: &str = "peerpost.lock";
const DATABASE_FILE: &str = "peerpost.db";

/// Only the server's own user reads what is in the folder.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// A data folder, held by this process for as long as this value lives.
///
/// The lock is the operating system's (`flock`), so that it ends with the process, however it ends.
#[derive(Debug)]
pub(super) struct DataFolder {
    path: PathBuf,
    _lock: File,
}

impl DataFolder {
    /// Creates the folder if it is not there (mode 0700) and locks it.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Folder { path: path.to_owned(), source };

        let path = std::path::absolute(path).map_err(failed)?;
        if !path.exists() {
            create(&path).map_err(failed)?;
        }
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(path.join(LOCK_FILE))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::InUse { holder: holder(&mut lock), path });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        record_holder(&mut lock).map_err(failed)?;
        Ok(Self { path, _lock: lock })
    }

    /// The database file. A new one is created here, empty, which SQLite takes for a new database:
    /// its log and index files then get the same mode.
    pub(super) fn database(&self) -> Result<PathBuf, OpenError> {
        let path = self.path.join(DATABASE_FILE);
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(FILE_MODE)
            .open(&path)
            .map_err(|source| OpenError::Folder { path: self.path.clone(), source })?;
        Ok(path)
    }

    /// Makes the names of new files durable: SQLite syncs its files, but not the folder that a new
    /// database stands in.
    pub(super) fn sync(&self) -> Result<(), OpenError> {
        File::open(&self.path)
            .and_then(|folder| folder.sync_all())
            .map_err(|source| OpenError::Folder { path: self.path.clone(), source })
    }
}

fn create(path: &Path) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent)?;
    DirBuilder::new().mode(FOLDER_MODE).recursive(true).create(path)?;
    File::open(parent)?.sync_all()
}

fn record_holder(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}

/// The process id in the lock file, for the message to the operator only.
fn holder(lock: &mut File) -> String {
    let mut text = String::new();
    match lock.read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => text.trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn creates_a_folder_for_its_own_user_only() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let path = parent.path().join("new/data");
        let _folder = DataFolder::open(&path).expect("opens");
        let mode = fs::metadata(&path).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_second_holder_is_told_who_holds_it() {
        let path = tempfile::tempdir().expect("a temporary folder");
        let first = DataFolder::open(path.path()).expect("opens");
        let error = DataFolder::open(path.path()).expect_err("in use");
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");

        drop(first);
        DataFolder::open(path.path()).expect("opens again");
    }
}
