//! Profiles: a server and the user to act as there, under a name. One file for people to read and edit,
//! `config.toml` in the configuration folder. Tokens are not in it: they have files of their own.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::advice::advise;
use super::identity::{config_folder, create_folder, create_private_file, sync_folder};

const FILE: &str = "config.toml";
const HEADER: &str = "# Written by `peerpost profile`, which keeps no other comments.\n\n";

/// A server, and whom to act as there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Profile {
    pub(super) server: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<String>,
}

/// What the file holds. What it does not know it does not take, so that it cannot lose it either.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Profiles {
    /// The profile that is used when none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) profile: Option<String>,
    #[serde(default)]
    pub(super) profiles: BTreeMap<String, Profile>,
}

impl Profiles {
    /// Those of the user's configuration folder; none when there is no file.
    pub(super) fn load() -> anyhow::Result<Self> {
        Self::load_from(&Self::path()?)
    }

    /// Where the file is.
    pub(super) fn path() -> anyhow::Result<PathBuf> {
        Ok(config_folder()?.join(FILE))
    }

    fn load_from(path: &Path) -> anyhow::Result<Self> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            text => text.with_context(|| format!("cannot read {}", path.display()))?,
        };
        toml::from_str(&text).map_err(|error| {
            advise(
                anyhow!("{} is not understood: {}", path.display(), error.to_string().trim_end()),
                "mend the file, or move it away and add its profiles again with `peerpost profile \
                 add`",
            )
        })
    }

    /// Writes them: whole, or not at all.
    pub(super) fn save(&self) -> anyhow::Result<PathBuf> {
        let path = Self::path()?;
        self.save_to(&path)?;
        Ok(path)
    }

    fn save_to(&self, path: &Path) -> anyhow::Result<()> {
        let text = toml::to_string(self).context("cannot write TOML")?;
        let folder = path.parent().context("a file without a folder")?;
        let temporary = folder.join(format!(".{}.tmp", Uuid::new_v4()));
        let write = || {
            create_folder(folder)?;
            let mut file = create_private_file(&temporary)?;
            file.write_all(HEADER.as_bytes())?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, path)?;
            sync_folder(folder)
        };
        write().with_context(|| format!("cannot write {}", path.display())).inspect_err(|_| {
            // Not there when it could not be made.
            let _ = fs::remove_file(&temporary);
        })
    }

    /// The profile of this name.
    pub(super) fn get(&self, name: &str) -> anyhow::Result<&Profile> {
        self.profiles.get(name).ok_or_else(|| {
            let names: Vec<_> = self.profiles.keys().map(String::as_str).collect();
            advise(
                anyhow!("there is no profile {name:?}"),
                match names.as_slice() {
                    [] => {
                        format!("`peerpost profile add {name} --server SERVER --as NAME` adds it")
                    }
                    names => format!("there are: {}", names.join(", ")),
                },
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use tempfile::TempDir;

    use super::*;

    fn profile(server: &str, user: Option<&str>) -> Profile {
        Profile { server: server.to_owned(), user: user.map(str::to_owned) }
    }

    #[test]
    fn they_are_read_as_they_were_written() {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("new").join(FILE);
        assert_eq!(Profiles::load_from(&path).expect("none"), Profiles::default());
        let profiles = Profiles {
            profile: Some("work".into()),
            profiles: BTreeMap::from([
                ("work".into(), profile("http://chat.example.org:50051", Some("alice"))),
                ("home".into(), profile("http://127.0.0.1:50051", None)),
            ]),
        };
        profiles.save_to(&path).expect("written");
        assert_eq!(Profiles::load_from(&path).expect("read"), profiles);
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let files = fs::read_dir(folder.path().join("new")).expect("the folder");
        assert_eq!(files.count(), 1, "and nothing else is left");
        assert_eq!(profiles.get("work").expect("found").user.as_deref(), Some("alice"));
        assert!(profiles.get("none").is_err());
    }

    #[test]
    fn what_is_not_known_is_refused_and_not_dropped() {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join(FILE);
        for text in ["profile = 1", "[profiles.a]\nserver = 'x'\ncertificate = 'y'", "{"] {
            fs::write(&path, text).expect("written");
            let error = Profiles::load_from(&path).expect_err(text);
            assert!(error.to_string().contains("config.toml is not understood"), "{error}");
        }
    }
}
