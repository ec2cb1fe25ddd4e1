//! Bringing an existing database up to date: forwards only, and with a backup first.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use diesel::prelude::*;
use tracing::info;

use super::backup::{self, BackupError, BackupSummary};
use super::connection;
use super::error::OpenError;
use super::folder::{FOLDER_MODE, sync_folder};
use super::metrics::Sizes;
use crate::domain::Epoch;

/// The folder in the data folder in which what was there before a change of the whole file is kept.
const KEPT_FOLDER: &str = "backups";

/// How many are kept from before the same change. One comes with each time that it is tried, and none is
/// ever deleted here: a start that fails again and again must not fill the disk.
const KEPT_MAX: usize = 3;

/// What has to be left on the disk beside a copy: room for the migrations themselves.
const RESERVE_BYTES: u64 = 64 * 1024 * 1024;

/// Brings the tables of an open database up to date and returns its epoch. What an existing one held
/// before is written to a file beside it first, unless `without_backup`.
pub(super) fn migrate(
    connection: &mut SqliteConnection,
    database: &Path,
    without_backup: bool,
) -> Result<Epoch, OpenError> {
    connection::refuse_newer(connection)?;
    let pending = connection::pending_migrations(connection)?;
    let Some(first) = pending.first() else { return connection::migrate(connection, database) };
    if without_backup {
        info!(migrations = pending.len(), "bringing the database up to date without a backup");
    } else {
        back_up_before(first, database).map_err(|error| OpenError::Backup(Box::new(error)))?;
    }
    let epoch = connection::migrate(connection, database)?;
    info!(migrations = pending.len(), "the database is up to date");
    Ok(epoch)
}

fn back_up_before(migration: &str, database: &Path) -> Result<(), BackupError> {
    let target = kept_file(database, migration)?;
    require_room_for_copy(database)?;
    info!(migration, backup = %target.display(), "making a backup before the upgrade");
    let BackupSummary { bytes, messages, .. } = backup::copy(database, &target)?;
    info!(backup = %target.display(), bytes, messages, "the backup is on disk");
    Ok(())
}

/// A free name for what is kept from before `change`, in a folder of the data folder that is made for it.
pub(super) fn kept_file(database: &Path, change: &str) -> Result<PathBuf, OpenError> {
    let folder = database.with_file_name(KEPT_FOLDER);
    let failed = |source| OpenError::Folder { path: folder.clone(), source };
    DirBuilder::new().mode(FOLDER_MODE).recursive(true).create(&folder).map_err(failed)?;
    sync_folder(&folder).map_err(failed)?;
    // A copy that was cut off is of no use. Nobody else writes here: the data folder is locked.
    remove_unfinished(&folder, "before-").map_err(failed)?;
    for number in 1..=KEPT_MAX {
        let name = match number {
            1 => format!("before-{change}.db"),
            number => format!("before-{change}.{number}.db"),
        };
        let path = folder.join(name);
        if !path.try_exists().map_err(failed)? {
            return Ok(path);
        }
    }
    Err(OpenError::BackupsLeft { folder, change: change.to_owned() })
}

/// Removes what a copy that was cut off left in `folder`, of files whose names begin with `prefix`.
pub(super) fn remove_unfinished(folder: &Path, prefix: &str) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(prefix) && name.contains(backup::UNFINISHED_MARK) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Refuses when the disk has no room for a copy of the database.
pub(super) fn require_room_for_copy(database: &Path) -> Result<(), OpenError> {
    enough_room(&Sizes::of(database), database)
}

fn enough_room(sizes: &Sizes, database: &Path) -> Result<(), OpenError> {
    let needed_bytes = sizes.database + sizes.wal + RESERVE_BYTES;
    match sizes.free {
        Some(free_bytes) if free_bytes < needed_bytes => {
            let folder = database.parent().unwrap_or(database).to_owned();
            Err(OpenError::NoRoomForCopy { folder, needed_bytes, free_bytes })
        }
        // Where that cannot be known, the copy itself finds out.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_needs_room_for_all_that_is_there_and_a_reserve() {
        let database = Path::new("/data/peerpost.db");
        let sizes = |free| Sizes { database: 1000, wal: 24, free };
        let needed = 1024 + RESERVE_BYTES;
        for free in [None, Some(needed), Some(u64::MAX)] {
            enough_room(&sizes(free), database).expect("enough");
        }
        let error = enough_room(&sizes(Some(needed - 1)), database).expect_err("too little");
        let text = error.to_string();
        assert!(text.contains(&format!("{needed} bytes")), "{text}");
        assert!(text.contains(&format!("{} are free", needed - 1)), "{text}");
        assert!(text.contains("/data"), "{text}");
    }

    #[test]
    fn what_is_kept_has_a_name_of_its_own_and_there_are_few_of_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let database = folder.path().join("peerpost.db");
        let mut names = Vec::new();
        for _ in 0..KEPT_MAX {
            let path = kept_file(&database, "x").expect("a free name");
            let unfinished = path.with_extension("db.1.unfinished");
            fs::write(&unfinished, "cut off").expect("written");
            assert_eq!(kept_file(&database, "x").expect("the same").as_path(), path);
            assert!(!unfinished.exists(), "what was cut off is removed");
            fs::write(&path, "kept").expect("written");
            names.push(path.file_name().expect("a name").to_string_lossy().into_owned());
        }
        assert_eq!(names, ["before-x.db", "before-x.2.db", "before-x.3.db"]);
        let error = kept_file(&database, "x").expect_err("there are enough");
        assert!(matches!(error, OpenError::BackupsLeft { .. }), "{error}");
        assert!(names.iter().all(|name| folder.path().join("backups").join(name).exists()));
    }
}
