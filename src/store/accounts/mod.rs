//! Who is let in: tokens, invites, bans, and the log of what was done about them.

pub mod audit;
pub mod invites;
mod reading;
pub mod tokens;

use std::mem;

use tracing::info;

use self::audit::Act;
use super::CommitListener;
use super::directory::Directory;
use crate::domain::{InviteHash, TokenHash, User};

pub(super) use self::reading::account;
pub use self::reading::{Account, AuditPage};

/// Whom a server lets register a new name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NewNames {
    /// Everybody.
    #[default]
    All,
    /// Whoever has an invite: this one.
    ByInvite(Option<InviteHash>),
    /// Nobody.
    None,
}

/// Who is let in no more, as of a commit.
#[derive(Debug, Clone)]
pub struct AccessEnded {
    /// Whose tokens they are.
    pub user: User,
    /// The tokens.
    pub tokens: Vec<TokenHash>,
    /// What was done.
    pub cause: EndCause,
}

/// Why somebody is let in no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndCause {
    /// These tokens were revoked. The user's others are good.
    Revoked,
    /// The user was banned.
    Banned,
    /// The user is gone.
    Deleted,
    /// One of the above may have happened: the commit failed, and it is not known with what outcome. What is
    /// stored tells.
    InDoubt,
}

/// What a group does to who is let in, to be told after its COMMIT.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) ended: Vec<AccessEnded>,
    pub(super) acts: Vec<Act>,
}

impl Changes {
    pub(super) fn clear(&mut self) {
        self.ended.clear();
        self.acts.clear();
    }

    /// They are on disk: everybody hears of them, before anyone is answered.
    pub(super) fn committed(&mut self, directory: &Directory, listener: &dyn CommitListener) {
        for ended in self.ended.iter().filter(|it| it.cause == EndCause::Deleted) {
            directory.forget(&ended.user);
        }
        if !self.ended.is_empty() {
            listener.access_ended(&mem::take(&mut self.ended));
        }
        for Act { actor, act, subject, details } in self.acts.drain(..) {
            info!(%actor, act, subject, details, "access");
        }
    }
}
