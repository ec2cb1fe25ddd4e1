//! What the import says: a line for what is not as it was, and the totals.

use std::path::Path;

use crate::cli::output::{self, ReaderGone};

/// What came of the rows so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) users_new: u64,
    pub(super) users_known: u64,
    pub(super) users_skipped: u64,
    pub(super) messages_new: u64,
    pub(super) messages_known: u64,
    pub(super) messages_skipped: u64,
    /// New messages whose time is that of the import.
    pub(super) without_time: u64,
    /// Whoever read the output has seen enough. The import goes on.
    is_unread: bool,
}

impl Report {
    /// A row was not taken over.
    pub(super) fn skipped_user(&mut self, row: i64, problem: &str) -> anyhow::Result<()> {
        self.users_skipped += 1;
        self.line(&format!("not imported  row {row} of users: {problem}"))
    }

    /// A row was not taken over.
    pub(super) fn skipped_message(&mut self, id: i64, problem: &str) -> anyhow::Result<()> {
        self.messages_skipped += 1;
        self.line(&format!("not imported  message {id}: {problem}"))
    }

    /// Something was taken over, and is not as it was.
    pub(super) fn line(&mut self, text: &str) -> anyhow::Result<()> {
        if self.is_unread {
            return Ok(());
        }
        match output::line(text) {
            Err(error) if error.is::<ReaderGone>() => {
                self.is_unread = true;
                Ok(())
            }
            outcome => outcome,
        }
    }

    pub(super) fn has_begun(&self) -> bool {
        self.users_new + self.messages_new > 0
    }

    pub(super) fn not_imported(&self) -> u64 {
        self.users_skipped + self.messages_skipped
    }

    pub(super) fn print_totals(&mut self, tokens: &Path) -> anyhow::Result<()> {
        let (new, known, skipped) = (self.users_new, self.users_known, self.users_skipped);
        self.line(&format!("users     {new} new, {known} already there, {skipped} not imported"))?;
        let (new, known, skipped) = (self.messages_new, self.messages_known, self.messages_skipped);
        self.line(&format!(
            "messages  {new} imported, {known} already there, {skipped} not imported"
        ))?;
        if self.without_time > 0 {
            let count = self.without_time;
            self.line(&format!(
                "times     {count} messages have that of the import, for want of one"
            ))?;
        }
        if self.users_new > 0 {
            self.line(&format!("tokens    a file for each new user in {}", tokens.display()))?;
        }
        Ok(())
    }
}
