//! The tokens that this machine keeps, a file for each user of each server:
//! `<config folder>/<host>_<port>/<name in lower case>.token`.
//!
//! One file for each, so that two commands that register at the same time cannot lose one another's.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use etcetera::BaseStrategy as _;
use uuid::Uuid;

use super::advice::advise;
use crate::client::Token;
use crate::domain::Username;

const EXTENSION: &str = "token";

/// The tokens kept for one server.
#[derive(Debug)]
pub(super) struct Identities {
    folder: PathBuf,
}

impl Identities {
    /// Those for the server at this URI, in the user's configuration folder.
    pub(super) fn of_server(server: &str) -> anyhow::Result<Self> {
        Ok(Self::in_folder(&config_folder()?, server))
    }

    /// Those in a folder of the caller's choice.
    pub(super) fn at(folder: &Path) -> anyhow::Result<Self> {
        // A folder named by itself alone has no parent by name, which is synced as well.
        let folder = std::path::absolute(folder).context("cannot find the working directory")?;
        Ok(Self { folder })
    }

    fn in_folder(config_folder: &Path, server: &str) -> Self {
        Self { folder: config_folder.join(folder_name(server)) }
    }

    /// The names with a token, in lower case and in order.
    pub(super) fn names(&self) -> anyhow::Result<Vec<String>> {
        let read = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(&self.folder)? {
                let path = PathBuf::from(entry?.file_name());
                let stem = path.file_stem().and_then(|stem| stem.to_str());
                if path.extension().is_some_and(|extension| extension == EXTENSION)
                    && let Some(name) = stem.filter(|stem| Username::parse(stem).is_ok())
                {
                    names.push(name.to_owned());
                }
            }
            names.sort();
            Ok(names)
        };
        match read() {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            names => names.with_context(|| format!("cannot read {}", self.folder.display())),
        }
    }

    /// The token kept for this name, if there is one.
    pub(super) fn token(&self, name: &Username) -> anyhow::Result<Option<Token>> {
        let path = self.path(name);
        match fs::read_to_string(&path) {
            Ok(text) => {
                let what = || format!("what {} holds", path.display());
                Token::parse(&text).map(Some).with_context(what).map_err(|error| {
                    advise(
                        error,
                        "put the token back from a copy; if there is none, move the file away and \
                         register another name",
                    )
                })
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Where they are.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the token of this name is kept.
    pub(super) fn path(&self, name: &Username) -> PathBuf {
        self.folder.join(format!("{}.{EXTENSION}", name.key()))
    }

    /// Removes the token of this name, if one is kept.
    pub(super) fn forget(&self, name: &Username) -> io::Result<()> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes sure that a token for this name can be kept, before it is asked for: it is shown once.
    pub(super) fn prepare(&self, name: &Username) -> anyhow::Result<PendingToken> {
        let context = || format!("cannot keep a token in {}", self.folder.display());
        create_folder(&self.folder).with_context(context)?;
        let temporary = self.folder.join(format!(".{}.tmp", Uuid::new_v4()));
        let file = create_private_file(&temporary).with_context(context)?;
        Ok(PendingToken { file, temporary, target: self.path(name) })
    }
}

/// A place for a token, not yet filled. Dropped without one, it leaves nothing behind.
#[derive(Debug)]
pub(super) struct PendingToken {
    file: File,
    temporary: PathBuf,
    target: PathBuf,
}

impl PendingToken {
    /// Writes the token to disk: whole and durable, or not at all.
    pub(super) fn keep(mut self, token: &Token) -> io::Result<PathBuf> {
        writeln!(self.file, "{}", token.reveal())?;
        self.file.sync_all()?;
        fs::rename(&self.temporary, &self.target)?;
        // The names of the file and of its folder have to reach the disk as well.
        for folder in self.target.ancestors().skip(1).take(2) {
            sync_folder(folder)?;
        }
        Ok(self.target.clone())
    }
}

impl Drop for PendingToken {
    fn drop(&mut self) {
        // After `keep` it is gone already. Left behind it would be an empty file that nobody reads.
        let _ = fs::remove_file(&self.temporary);
    }
}

pub(super) fn config_folder() -> anyhow::Result<PathBuf> {
    match std::env::var_os("PEERPOST_CONFIG_DIR") {
        Some(folder) if !folder.is_empty() => Ok(folder.into()),
        _ => {
            let strategy = etcetera::choose_base_strategy()
                .context("cannot find the home folder; set PEERPOST_CONFIG_DIR")?;
            Ok(strategy.config_dir().join("peerpost"))
        }
    }
}

/// `http://[::1]:50051` as `[--1]_50051`: a name that every file system takes, and no two servers
/// share, since no host name begins or ends with a bracket.
fn folder_name(server: &str) -> String {
    let authority = server.split_once("://").map_or(server, |(_, authority)| authority);
    // Of a Unix socket's path.
    let authority = authority.replace('/', "-");
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            format!("{}_{port}", host.replace(':', "-"))
        }
        _ => authority.replace(':', "-"),
    }
}

pub(super) fn create_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

pub(super) fn create_private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const SERVER: &str = "http://127.0.0.1:50051";

    fn name(text: &str) -> Username {
        Username::parse(text).expect("a name")
    }

    fn token(text: &str) -> Token {
        Token::parse(text).expect("a token")
    }

    fn keep(identities: &Identities, user: &str, text: &str) -> PathBuf {
        let pending = identities.prepare(&name(user)).expect("a folder");
        pending.keep(&token(text)).expect("written")
    }

    #[test]
    fn a_token_is_found_in_any_case_and_replaced_as_a_whole() {
        let folder = TempDir::new().expect("a folder");
        let identities = Identities::in_folder(folder.path(), SERVER);
        assert_eq!(identities.names().expect("none"), [""; 0]);
        assert_eq!(identities.token(&name("alice")).expect("none"), None);
        keep(&identities, "Alice", "pp_1");
        keep(&identities, "bob", "pp_2");
        keep(&identities, "aLICE", "pp_3");
        assert_eq!(identities.names().expect("two"), ["alice", "bob"]);
        assert_eq!(identities.token(&name("ALICE")).expect("kept"), Some(token("pp_3")));
    }

    #[test]
    fn servers_are_kept_apart() {
        let folder = TempDir::new().expect("a folder");
        keep(&Identities::in_folder(folder.path(), SERVER), "alice", "pp_1");
        let other = Identities::in_folder(folder.path(), "http://127.0.0.1:50052");
        assert_eq!(other.names().expect("none"), [""; 0]);
        assert_eq!(folder_name("http://[::1]:50051"), "[--1]_50051");
        assert_eq!(folder_name("http://[::1]"), "[--1]");
        assert_eq!(folder_name("http://example.org"), "example.org");
    }

    #[test]
    fn a_folder_of_ones_choice_may_be_named_by_itself_alone() {
        let identities = Identities::at(Path::new("tokens")).expect("a working directory");
        assert!(identities.path(&name("alice")).is_absolute());
    }

    #[test]
    fn a_place_that_was_not_used_leaves_nothing() {
        let folder = TempDir::new().expect("a folder");
        let identities = Identities::in_folder(folder.path(), SERVER);
        drop(identities.prepare(&name("alice")).expect("a folder"));
        assert_eq!(fs::read_dir(&identities.folder).expect("the folder").count(), 0);
    }

    #[test]
    fn only_the_user_can_read_them() {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = TempDir::new().expect("a folder");
        let identities = Identities::in_folder(&folder.path().join("new"), SERVER);
        let file = keep(&identities, "alice", "pp_1");
        let mode =
            |path: &Path| fs::metadata(path).expect("it exists").permissions().mode() & 0o777;
        assert_eq!(mode(&file), 0o600);
        assert_eq!(mode(&identities.folder), 0o700);
        assert_eq!(mode(&folder.path().join("new")), 0o700);
    }
}
