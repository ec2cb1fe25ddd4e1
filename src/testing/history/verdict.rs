use std::fmt::{self, Display};

/// What a verdict tells of at most; the rest it counts.
const VIOLATIONS_TOLD_MAX: usize = 10;

/// A promise that a history is held against, by its name in `docs/GUARANTEES.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Promise {
    /// What was answered with OK is there at the end, as it was answered.
    Durable,
    /// A `request_id` has one message, and nothing is stored more often than it was sent.
    Once,
    /// Mailboxes are dense, and all readers see the same entries under the same sequences, in the
    /// order in which they were sent.
    Ordered,
    /// Subscriptions deliver everything after their start, in order, once.
    Resumable,
    /// A read contains what was answered before it began.
    Fresh,
    /// Nobody reads what they neither sent nor received, and messages are what was sent by whom.
    Private,
    /// Cursors outside the log and of other epochs are refused with the valid range, others never.
    HonestCursors,
}

impl Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Durable => "durable",
            Self::Once => "once",
            Self::Ordered => "ordered",
            Self::Resumable => "resumable",
            Self::Fresh => "fresh",
            Self::Private => "private",
            Self::HonestCursors => "honest cursors",
        })
    }
}

/// What a history says about a promise.
#[derive(Debug, Clone)]
pub struct Verdict {
    promise: Promise,
    checked: u64,
    violations: Vec<String>,
    violations_untold: u64,
}

impl Verdict {
    pub(super) fn on(promise: Promise) -> Self {
        Self { promise, checked: 0, violations: Vec::new(), violations_untold: 0 }
    }

    /// Holds the history against the promise once: `violation` says what is wrong when it is not kept.
    pub(super) fn expect(&mut self, is_kept: bool, violation: impl FnOnce() -> String) {
        self.checked += 1;
        if is_kept {
            return;
        }
        if self.violations.len() < VIOLATIONS_TOLD_MAX {
            self.violations.push(violation());
        } else {
            self.violations_untold += 1;
        }
    }

    /// The promise.
    pub fn promise(&self) -> Promise {
        self.promise
    }

    /// Whether nothing in the history breaks the promise.
    pub fn is_kept(&self) -> bool {
        self.violations.is_empty()
    }

    /// How many things were held against the promise.
    pub fn checked(&self) -> u64 {
        self.checked
    }

    /// What breaks the promise, the first few: which entry, which call, and what was expected.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }
}

/// The verdict, and a line for each violation.
impl Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { promise, checked, violations, violations_untold } = self;
        let count = violations.len() as u64 + violations_untold;
        if count == 0 {
            return write!(f, "{promise:<14} kept ({checked} checks)");
        }
        write!(f, "{promise:<14} BROKEN {count} times in {checked} checks")?;
        violations.iter().try_for_each(|violation| write!(f, "\n    {violation}"))?;
        if *violations_untold > 0 {
            write!(f, "\n    and {violations_untold} more")?;
        }
        Ok(())
    }
}
