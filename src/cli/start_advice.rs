//! What to do about a server that does not start, or a command that cannot use its data folder. No advice
//! deletes anything.

use std::io;
use std::path::Path;

use crate::server::StartError;
use crate::store::{BackupError, OpenError};

/// SQLite's texts for what an operator can do something about (`sqlite3_errstr`, sqlite.org/rescode.html).
const NOT_A_DATABASE: &str = "file is not a database";
const READ_ONLY: &str = "attempt to write a readonly database";
const FULL: &str = "database or disk is full";

/// The next step, if the error is one of these.
pub(super) fn find(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        let start = cause.downcast_ref().and_then(for_start_error);
        let open = || cause.downcast_ref().and_then(for_open_error);
        start.or_else(open).or_else(|| cause.downcast_ref().and_then(for_backup_error))
    })
}

fn for_start_error(error: &StartError) -> Option<String> {
    match error {
        StartError::Store(error) => for_open_error(error),
        StartError::Listen { address, source } => for_address(&address.to_string(), source),
        StartError::MetricsListen { address, source } => for_address(&address.to_string(), source),
        StartError::Tls(_) => {
            Some("`peerpost config --check` tries the certificates without a start".to_owned())
        }
        // The rest say themselves what to set.
        _ => None,
    }
}

fn for_address(address: &str, source: &io::Error) -> Option<String> {
    match source.kind() {
        io::ErrorKind::AddrInUse => Some(format!(
            "something listens on {address} already: `ss -ltnp` shows what, and --listen names another \
             place"
        )),
        io::ErrorKind::AddrNotAvailable => Some(format!(
            "{address} is no address of this machine: `ip address` lists those that are"
        )),
        io::ErrorKind::PermissionDenied => Some(
            "ports below 1024 are for root, or for who has the capability CAP_NET_BIND_SERVICE; the \
             folder of a Unix socket has to be writable"
                .to_owned(),
        ),
        _ => None,
    }
}

fn for_open_error(error: &OpenError) -> Option<String> {
    match error {
        OpenError::Folder { path, source } => for_file(path, source),
        OpenError::InUse { holder, path } => Some(format!(
            "{}; stop that one first, or name another folder with --data-dir",
            match holder.parse::<u32>() {
                Ok(pid) => format!("`ps -p {pid}` shows it"),
                Err(_) => format!("`fuser {}/peerpost.lock` shows which", path.display()),
            }
        )),
        OpenError::Connect { path, .. } => Some(format!(
            "the server's user has to be able to read and write it: `ls -l {}`",
            path.display()
        )),
        OpenError::Database { path, source } => Some(for_database(path, &source.to_string())),
        OpenError::Setting { .. } => Some(
            "is the data folder on a network file system? it has to be on a local one, where files can \
             be locked and shared memory be mapped"
                .to_owned(),
        ),
        OpenError::Migration(_) => Some(
            "what was there before is in the folder `backups` of the data folder; the version before \
             goes on with it (`peerpost admin restore`)"
                .to_owned(),
        ),
        OpenError::Newer { .. } => Some(
            "`peerpost --version` says which this is; to go back for good, restore the backup from \
             before the upgrade, in the folder `backups` of the data folder (`peerpost admin restore`)"
                .to_owned(),
        ),
        OpenError::Older { .. } => Some(
            "that version can check it; this one brings it up to date first, when a server starts on \
             it (`peerpost serve`) or a backup is restored (`peerpost admin restore`)"
                .to_owned(),
        ),
        OpenError::NoRoomForCopy { folder, .. } => {
            Some(format!("`df -h {}` shows the disk: make room, and try again", folder.display()))
        }
        OpenError::Backup(_) => Some(
            "mend that and start again; or go on without a backup, with --upgrade-without-backup: then \
             nothing leads back to the version before"
                .to_owned(),
        ),
        OpenError::BackupsLeft { .. } => {
            Some("move away those that you do not need, and try again".to_owned())
        }
        OpenError::Damaged { path, .. } => Some(for_damage(path)),
        OpenError::LogDamaged { path, .. } => Some(for_lost_log(path)),
        OpenError::Thread(_) => {
            Some("does a limit of the system's hold (`ulimit -u`, memory)?".to_owned())
        }
    }
}

fn for_backup_error(error: &BackupError) -> Option<String> {
    match error {
        BackupError::Exists { .. } => None,
        BackupError::File { path, source } => for_file(path, source),
        BackupError::Open(error) => for_open_error(error),
        BackupError::Copy { path, source } => Some(for_database(path, &source.to_string())),
        BackupError::Damaged { path, .. } => Some(format!(
            "`peerpost admin check --file {}` lists all of it; an older backup may be whole; with \
             --even-if-damaged this one is restored as it is",
            path.display()
        )),
    }
}

fn for_file(path: &Path, source: &io::Error) -> Option<String> {
    let shown = path.display();
    match source.kind() {
        io::ErrorKind::PermissionDenied => Some(format!(
            "it has to belong to the user that runs this: `ls -ld {shown}` shows whose it is"
        )),
        io::ErrorKind::NotFound => {
            Some("is that the data folder? --data-dir names another".to_owned())
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Some(format!("the disk is full: `df -h {shown}`; make room, and try again"))
        }
        io::ErrorKind::ReadOnlyFilesystem => Some(
            "the file system is mounted read-only: `dmesg` says whether it was because of errors"
                .to_owned(),
        ),
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            Some("a file is where a folder has to be; --data-dir names another place".to_owned())
        }
        _ => None,
    }
}

fn for_database(path: &Path, text: &str) -> String {
    match text {
        NOT_A_DATABASE if is_in_use(path) => format!(
            "the file is not peerpost's, or its beginning is damaged, and was left as it is; {}",
            restoring(path)
        ),
        READ_ONLY => format!(
            "the server's user has to be able to write it and the folder: `ls -la {}`",
            folder_of(path)
        ),
        FULL => {
            format!("the disk is full: `df -h {}`; make room, and try again", folder_of(path))
        }
        // Pages that contradict each other, values that this program would not write.
        _ => for_damage(path),
    }
}

fn for_damage(path: &Path) -> String {
    if !is_in_use(path) {
        return format!(
            "{} is damaged, or no backup of peerpost's: an older one may be whole",
            path.display()
        );
    }
    let folder = folder_of(path);
    format!(
        "`peerpost admin check --data-dir {folder}` says all that is wrong; if that is the indexes, \
         `peerpost admin rebuild-index --data-dir {folder}` makes them again; else {}",
        restoring(path)
    )
}

fn for_lost_log(path: &Path) -> String {
    format!(
        "the log itself is damaged there, which nothing on this machine can mend; `peerpost admin check \
         --data-dir {}` says what else is; {}",
        folder_of(path),
        restoring(path)
    )
}

fn restoring(path: &Path) -> String {
    format!(
        "keep {} as it is, and make another folder of the last backup: `peerpost admin restore BACKUP \
         --data-dir NEW`",
        folder_of(path)
    )
}

/// Whether it is a data folder's database, and not a copy of one.
fn is_in_use(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "peerpost.db")
}

fn folder_of(path: &Path) -> String {
    path.parent().unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::path::PathBuf;

    use anyhow::Context as _;

    use super::*;

    fn advice(error: impl Into<anyhow::Error>) -> String {
        find(&error.into()).expect("there is a next step")
    }

    fn folder_error(kind: io::ErrorKind) -> OpenError {
        OpenError::Folder { path: "/data".into(), source: kind.into() }
    }

    #[test]
    fn each_reason_has_a_next_step_of_its_own() {
        let in_use = |holder: &str| OpenError::InUse {
            path: PathBuf::from("/data"),
            holder: holder.to_owned(),
        };
        assert!(advice(in_use("123")).contains("`ps -p 123`"));
        assert!(advice(in_use("unknown")).contains("fuser /data/peerpost.lock"));
        let lost = OpenError::LogDamaged { path: "/data/peerpost.db".into(), position: 7 };
        let lost = advice(lost);
        assert!(lost.contains("restore BACKUP") && !lost.contains("rebuild-index"), "{lost}");
        assert!(advice(OpenError::Newer { migration: "x".into() }).contains("--version"));
        for (kind, says) in [
            (io::ErrorKind::PermissionDenied, "`ls -ld /data`"),
            (io::ErrorKind::StorageFull, "`df -h /data`"),
            (io::ErrorKind::ReadOnlyFilesystem, "read-only"),
            (io::ErrorKind::NotADirectory, "a file is where a folder has to be"),
            (io::ErrorKind::NotFound, "--data-dir"),
        ] {
            assert!(advice(folder_error(kind)).contains(says), "{kind}");
        }
        for (text, says) in [
            (NOT_A_DATABASE, "restore BACKUP"),
            (READ_ONLY, "`ls -la /data`"),
            (FULL, "`df -h /data`"),
            ("database disk image is malformed", "rebuild-index --data-dir /data"),
            ("index_state cannot be read", "rebuild-index --data-dir /data"),
        ] {
            let advice = for_database(Path::new("/data/peerpost.db"), text);
            assert!(advice.contains(says), "{text}: {advice}");
        }
        let copy = for_database(Path::new("/backups/1.db"), NOT_A_DATABASE);
        assert!(copy.contains("an older one") && !copy.contains("--data-dir"), "{copy}");
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        let source = io::ErrorKind::AddrInUse.into();
        let listen = StartError::MetricsListen { address, source };
        assert!(advice(listen).contains("`ss -ltnp`"));
    }

    /// The flag that goes on without a backup is named where the backup was for an upgrade, only.
    #[test]
    fn a_full_disk_before_an_upgrade_names_the_flag() {
        let no_room =
            || OpenError::NoRoomForCopy { folder: "/data".into(), needed_bytes: 2, free_bytes: 1 };
        let upgrade = OpenError::Backup(Box::new(BackupError::Open(no_room())));
        let told = upgrade.to_string();
        assert!(told.contains("before the upgrade") && told.contains("up to 2 bytes"), "{told}");
        assert!(advice(upgrade).contains("--upgrade-without-backup"));
        let rebuild = advice(BackupError::Open(no_room()));
        assert!(rebuild.contains("df -h /data") && !rebuild.contains("--upgrade"), "{rebuild}");
    }

    #[test]
    fn it_is_found_under_what_was_said_on_the_way() {
        let error = StartError::Store(folder_error(io::ErrorKind::PermissionDenied));
        let error = Err::<(), _>(error).context("no server").expect_err("an error");
        assert!(advice(error).contains("ls -ld"));
        assert_eq!(find(&anyhow::anyhow!("something else")), None);
    }
}
