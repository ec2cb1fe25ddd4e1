use std::fmt;

/// Something that is wrong with what is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A line of SQLite's own check of the file.
    Sqlite(String),
    /// A part cannot be read to its end.
    Unreadable {
        /// Which.
        part: &'static str,
        /// SQLite's reason.
        reason: String,
    },
    /// A user's row is not what this program writes.
    User {
        /// Whose.
        id: i64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A token that is nobody's, or not of the user whom its row names.
    Token {
        /// The user whom it names.
        user: i64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An invite's row is not what was written.
    Invite {
        /// Its id.
        id: String,
    },
    /// An entry of the audit log is not what was written.
    AuditEntry {
        /// Its number.
        number: i64,
    },
    /// Rows of the log are absent.
    RowsAbsent {
        /// The position of the first.
        first: i64,
        /// The position of the last.
        last: i64,
    },
    /// A row of the log is not what was written: its message is not served.
    Row {
        /// Its position.
        position: i64,
    },
    /// A row of the log names a user who is not there.
    NoSuchUser {
        /// The row's position.
        position: i64,
        /// The user.
        user: i64,
    },
    /// Where a mailbox begins is not known, or nobody's.
    Mailbox {
        /// Whose mailbox.
        owner: i64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The record of the positions that were removed does not fit the log.
    Removed {
        /// The position.
        position: i64,
        /// What is wrong.
        problem: &'static str,
    },
    /// The record of the bodies that are to go does not say what the log says.
    Expirations {
        /// The bodies that the log has.
        in_log: u64,
        /// Those that are noted.
        noted: u64,
    },
    /// How far retention has come is not what was written.
    RetentionState,
    /// A mailbox does not go on where it ended.
    NotDense {
        /// Whose mailbox.
        owner: i64,
        /// The sequence that is due.
        expected: i64,
        /// The one that there is.
        found: i64,
        /// The position of its row.
        position: i64,
    },
    /// A user acknowledged more than their mailbox holds.
    AcknowledgedBeyond {
        /// Whose mailbox.
        owner: i64,
        /// What was acknowledged.
        acknowledged: i64,
        /// Where the mailbox ends.
        last: i64,
    },
    /// How far the indexes go is not known, or more than there is.
    IndexState {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The index of a mailbox does not say what the log says.
    MailboxIndex {
        /// Whose mailbox.
        owner: i64,
        /// The first sequence at which they differ, where it is known.
        sequence: Option<i64>,
    },
    /// The index of the request ids does not say what the log says.
    RequestIndex {
        /// The request ids that the log has.
        in_log: u64,
        /// Those that the index has.
        in_index: u64,
    },
    /// What a start reads back ends before the log does, or says otherwise: it is made again from the log.
    Pending {
        /// The position from which on.
        position: i64,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(line) => write!(f, "SQLite: {line}"),
            Self::Unreadable { part, reason } => write!(f, "{part} cannot be read on: {reason}"),
            Self::User { id, problem } => write!(f, "user {id}: {problem}"),
            Self::Token { user, problem } => write!(f, "a token of user {user}: {problem}"),
            Self::Invite { id } => write!(f, "the invite {id} is not what was written"),
            Self::AuditEntry { number } => {
                write!(f, "entry {number} of the audit log is not what was written")
            }
            Self::RowsAbsent { first, last } if first == last => {
                write!(f, "the log has no row at position {first}")
            }
            Self::RowsAbsent { first, last } => {
                write!(f, "the log has no rows from position {first} to {last}")
            }
            Self::Row { position } => {
                write!(f, "the log's row at position {position} is not what was written")
            }
            Self::NoSuchUser { position, user } => {
                write!(
                    f,
                    "the log's row at position {position} names user {user}, who is not there"
                )
            }
            Self::NotDense { owner, expected, found, position } => write!(
                f,
                "the mailbox of user {owner} goes on with {found} instead of {expected} \
                 (log position {position})"
            ),
            Self::Mailbox { owner, problem } => write!(f, "the mailbox of user {owner}: {problem}"),
            Self::Removed { position, problem } => {
                write!(f, "the removed position {position}: {problem}")
            }
            Self::Expirations { in_log, noted } => write!(
                f,
                "the record of what is to expire differs from the log: {noted} entries for {in_log}"
            ),
            Self::RetentionState => write!(f, "the state of retention: it is not what was written"),
            Self::AcknowledgedBeyond { owner, acknowledged, last } => write!(
                f,
                "user {owner} acknowledged {acknowledged} of a mailbox that ends at {last}"
            ),
            Self::IndexState { problem } => write!(f, "the state of the indexes: {problem}"),
            Self::MailboxIndex { owner, sequence: Some(sequence) } => write!(
                f,
                "the index of the mailbox of user {owner} differs from the log at sequence {sequence}"
            ),
            Self::MailboxIndex { owner, sequence: None } => {
                write!(f, "the index of the mailbox of user {owner} differs from the log")
            }
            Self::RequestIndex { in_log, in_index } => write!(
                f,
                "the index of the request ids differs from the log: {in_index} entries for {in_log}"
            ),
            Self::Pending { position } => write!(
                f,
                "what a start reads back differs from the log from position {position} on; a start \
                 makes it again"
            ),
        }
    }
}
