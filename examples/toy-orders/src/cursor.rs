//! How far the orders are dealt with, in a file.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

/// Everything up to a sequence of one epoch of the server's database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The epoch; empty before the server was first reached.
    pub epoch: String,
    /// The sequence.
    pub sequence: i64,
}

/// The file that keeps a cursor: its epoch and its sequence on one line.
#[derive(Debug, Clone)]
pub struct CursorFile(PathBuf);

impl CursorFile {
    /// The file at this path, which need not be there yet.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// What it keeps; the beginning when there is no file.
    ///
    /// # Errors
    /// When it cannot be read, or holds something else: to begin anew is not for the desk to decide.
    pub fn load(&self) -> io::Result<Cursor> {
        let text = match fs::read_to_string(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Cursor::default()),
            text => text?,
        };
        let parsed = text.trim_end().split_once(' ').and_then(|(epoch, sequence)| {
            Some(Cursor { epoch: epoch.to_owned(), sequence: sequence.parse().ok()? })
        });
        parsed.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "the file holds no cursor"))
    }

    /// Replaces what it keeps: after a crash it is the old or the new, and never half of it.
    ///
    /// # Errors
    /// When it cannot be written; then it keeps what it did.
    pub fn save(&self, cursor: &Cursor) -> io::Result<()> {
        let temporary = self.0.with_extension("new");
        let mut file = File::create(&temporary)?;
        writeln!(file, "{} {}", cursor.epoch, cursor.sequence)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.0)?;
        File::open(self.0.parent().filter(|it| *it != Path::new("")).unwrap_or(Path::new(".")))?
            .sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_nothing_else_is_made_of_other_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("cursor");
        let file = CursorFile::at(&path);
        assert_eq!(file.load().expect("the beginning"), Cursor::default());
        let cursor = Cursor { epoch: "e1".into(), sequence: 7 };
        file.save(&cursor).expect("saved");
        assert_eq!(file.load().expect("loaded"), cursor);
        fs::write(&path, "seven").expect("written");
        assert!(file.load().is_err());
    }
}
