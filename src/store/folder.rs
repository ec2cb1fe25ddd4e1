use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tracing::warn;

use super::OpenError;

const LOCK_FILE: &str = "peerpost.lock";
pub(super) const DATABASE_FILE: &str = "peerpost.db";

/// Only the server's own user reads what is in the folder.
pub(super) const FOLDER_MODE: u32 = 0o700;
pub(super) const FILE_MODE: u32 = 0o600;

/// What others may do with a folder.
const OTHERS_MODE: u32 = 0o077;

/// The folders above a new data folder are ordinary ones, as the process's umask makes them.
const PARENT_MODE: u32 = 0o777;

/// A data folder, held by this process for as long as this value lives.
///
/// The lock is the operating system's (`flock`), so that it ends with the process, however it ends.
#[derive(Debug)]
pub(super) struct DataFolder {
    path: PathBuf,
    lock: File,
}

impl Drop for DataFolder {
    /// Closing the file would not end the lock while another thread of this process starts a program, which
    /// has a copy of every open file until it is what it is to be; unlocking does (flock(2)).
    fn drop(&mut self) {
        if let Err(error) = self.lock.unlock() {
            warn!(%error, "cannot unlock the data folder");
        }
    }
}

impl DataFolder {
    /// Creates the folder if it is not there (mode 0700) and locks it.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Folder { path: path.to_owned(), source };

        let path = std::path::absolute(path).map_err(failed)?;
        if path.exists() {
            warn_if_open_to_others(&path).map_err(failed)?;
        } else {
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
        Ok(Self { path, lock })
    }

    /// Where the database stands.
    pub(super) fn database_path(&self) -> PathBuf {
        self.path.join(DATABASE_FILE)
    }

    /// The database file. A new one is created here, empty, which SQLite takes for a new database:
    /// its log and index files then get the same mode.
    pub(super) fn database(&self) -> Result<PathBuf, OpenError> {
        let path = self.database_path();
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(FILE_MODE)
            .open(&path)
            .map_err(|source| OpenError::Folder { path: self.path.clone(), source })?;
        Ok(path)
    }

    /// Makes durable what a process that was killed wrote to SQLite's log and had not synced yet:
    /// SQLite takes it for committed, and a repeated request would be answered without a commit of its
    /// own. Not to be called once the database is open, since closing one of its files ends its locks.
    pub(super) fn sync_log(&self) -> Result<(), OpenError> {
        match File::open(log_of(&self.database_path())).and_then(|log| log.sync_all()) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(OpenError::Folder { path: self.path.clone(), source })
            }
            _ => Ok(()),
        }
    }

    /// Makes the names of new files durable: SQLite syncs its files, but not the folder that a new
    /// database stands in.
    pub(super) fn sync(&self) -> Result<(), OpenError> {
        File::open(&self.path)
            .and_then(|folder| folder.sync_all())
            .map_err(|source| OpenError::Folder { path: self.path.clone(), source })
    }
}

/// The database file in the folder at `path`, which must be there.
pub(super) fn existing_database(path: &Path) -> Result<PathBuf, OpenError> {
    let database = path.join(DATABASE_FILE);
    match fs::metadata(&database) {
        Ok(_) => Ok(database),
        Err(source) => Err(OpenError::Folder { path: database, source }),
    }
}

/// SQLite's write-ahead log of a database.
pub(super) fn log_of(database: &Path) -> PathBuf {
    let mut log = database.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}

/// Makes the name of a file durable in the folder that it stands in.
pub(super) fn sync_folder(file: &Path) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Creates the folder and those above it that are not there. Each name is made durable in the folder
/// that it stands in.
fn create(path: &Path) -> io::Result<()> {
    let missing: Vec<_> = path.ancestors().take_while(|folder| !folder.exists()).collect();
    for folder in missing.into_iter().rev() {
        let mode = if folder == path { FOLDER_MODE } else { PARENT_MODE };
        // Recursive, so that one that another process made meanwhile is accepted.
        DirBuilder::new().mode(mode).recursive(true).create(folder)?;
        if let Some(parent) = folder.parent() {
            File::open(parent)?.sync_all()?;
        }
    }
    Ok(())
}

/// A folder of the operator's own making is used as it is.
fn warn_if_open_to_others(path: &Path) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode() & 0o777;
    if mode & OTHERS_MODE != 0 {
        let (path, mode) = (path.display(), format!("{mode:o}"));
        warn!(%path, mode, "other users have access to the data folder; 700 is advised");
    }
    Ok(())
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
    use super::*;

    #[test]
    fn creates_a_folder_for_its_own_user_only() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let path = parent.path().join("some/new/data");
        let _folder = DataFolder::open(&path).expect("opens");
        let mode = |path: &Path| fs::metadata(path).expect("is there").permissions().mode();
        assert_eq!(mode(&path) & 0o777, 0o700);
        fs::create_dir(parent.path().join("ordinary")).expect("can be made");
        let ordinary = mode(&parent.path().join("ordinary"));
        assert_eq!(mode(&parent.path().join("some/new")), ordinary, "only the data is private");
    }

    #[test]
    fn uses_a_folder_that_is_open_to_others_as_it_is() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let path = parent.path().join("shared");
        DirBuilder::new().mode(0o755).create(&path).expect("can be made");
        let before = fs::metadata(&path).expect("is there").permissions().mode();
        drop(DataFolder::open(&path).expect("opens"));
        assert_eq!(fs::metadata(&path).expect("is there").permissions().mode(), before);
    }

    #[test]
    fn a_second_holder_is_told_who_holds_it() {
        let path = tempfile::tempdir().expect("a temporary folder");
        let first = DataFolder::open(path.path()).expect("opens");
        let error = DataFolder::open(path.path()).expect_err("in use");
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");

        // What a program has that is being started meanwhile.
        let _copy = first.lock.try_clone().expect("another handle");
        drop(first);
        DataFolder::open(path.path()).expect("opens again");
    }
}
