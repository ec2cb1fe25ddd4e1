//! What retention wrote: where mailboxes begin, and which positions of the log were removed.

use diesel::prelude::*;

use super::log::hash;
use super::{CheckReport, Finding, Mailboxes, Sum};
use crate::domain::UserId;
use crate::store::error::is_damage;
use crate::store::removed::{self, Interval};
use crate::store::{expirations, mailbox_sizes, mailboxes, retention};

/// The positions whose rows were removed, in order.
#[derive(Debug, Default)]
pub(super) struct Removed(Vec<Interval>);

impl Removed {
    pub(super) fn contains(&self, position: i64) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= position);
        after.checked_sub(1).is_some_and(|it| self.0[it].1 >= position)
    }

    /// The parts of an interval of absent rows that were not removed.
    pub(super) fn lost(&self, (mut first, last): Interval) -> Vec<Interval> {
        let mut absent = Vec::new();
        let from = self.0.partition_point(|(_, end)| *end < first);
        for (begin, end) in self.0[from..].iter().take_while(|(begin, _)| *begin <= last) {
            if *begin > first {
                absent.push((first, begin - 1));
            }
            first = end + 1;
        }
        if first <= last {
            absent.push((first, last));
        }
        absent
    }

    /// The last position of all.
    fn last(&self) -> i64 {
        self.0.last().map_or(0, |(_, last)| *last)
    }

    /// What was removed is neither at the log's end nor in no index yet.
    pub(super) fn check_end(
        &self,
        last_position: i64,
        merged_through: Option<i64>,
        report: &mut CheckReport,
    ) {
        let (position, last) = (self.last(), merged_through.unwrap_or(last_position));
        if position >= last_position && position > 0 {
            report.add(Finding::Removed { position, problem: "the log ends before it" });
        } else if position > last {
            report.add(Finding::Removed { position, problem: "the indexes do not go so far" });
        }
    }
}

/// Reads where mailboxes begin into `mailboxes`, and what was removed.
pub(super) fn examine(
    connection: &mut SqliteConnection,
    mailboxes: &mut Mailboxes,
    removed: &mut Removed,
    report: &mut CheckReport,
) -> QueryResult<()> {
    mailboxes::visit(connection, |UserId(owner), floor| {
        let problem = match (floor, mailboxes.get_mut(&owner)) {
            (None, _) => "where it begins is not what was written",
            (Some(_), None) => "there is no such user",
            (Some(floor), Some(mailbox)) => {
                mailbox.first = floor.first;
                // It gave out what it has lost.
                mailbox.last = floor.first - 1;
                return;
            }
        };
        report.add(Finding::Mailbox { owner, problem });
    })?;
    mailbox_sizes::visit(connection, |UserId(owner), size| {
        let problem = match (size, mailboxes.get_mut(&owner)) {
            (None, _) => "its size is not what was written",
            (Some(_), None) => "its size is noted, and there is no such user",
            (Some(size), Some(mailbox)) => {
                mailbox.sized = Some((size, 0));
                return;
            }
        };
        report.add(Finding::Mailbox { owner, problem });
    })?;
    removed::visit(connection, |interval| {
        let position = removed.last();
        match interval {
            None => {
                let problem = "the removed positions after it are not what was written";
                report.add(Finding::Removed { position, problem });
            }
            Some((first, _)) if first <= position + 1 && position > 0 => {
                let problem = "the removed positions after it overlap, or are not taken together";
                report.add(Finding::Removed { position, problem });
            }
            Some(interval) => removed.0.push(interval),
        }
    })?;
    retention::overrides::visit(connection, |UserId(owner), is_whole| {
        let problem = match (is_whole, mailboxes.contains_key(&owner)) {
            (false, _) => "what is kept of it is not what was written",
            (true, false) => "something else is kept of it, and there is no such user",
            (true, true) => return,
        };
        report.add(Finding::Mailbox { owner, problem });
    })?;
    match retention::state::read(connection) {
        Err(error) if is_damage(&error) => report.add(Finding::RetentionState),
        state => drop(state?),
    }
    Ok(())
}

/// Every body that is to go is noted.
pub(super) fn expirations(
    connection: &mut SqliteConnection,
    removed: &Removed,
    in_log: Sum,
    report: &mut CheckReport,
) -> QueryResult<()> {
    let mut noted = Sum::default();
    expirations::visit(connection, |(time, position)| {
        // Those of removed messages are deleted when their time comes.
        if !removed.contains(position) {
            noted.add(hash(&[time, position]));
        }
    })?;
    if noted != in_log {
        let (in_log, noted) = (in_log.count, noted.count);
        report.add(Finding::Expirations { in_log, noted });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_is_told_from_what_was_removed() {
        let removed = Removed(vec![(3, 4), (7, 7)]);
        assert_eq!(removed.lost((1, 9)), [(1, 2), (5, 6), (8, 9)]);
        assert_eq!(removed.lost((3, 4)), []);
        assert_eq!(removed.lost((4, 5)), [(5, 5)]);
        assert_eq!(removed.lost((8, 8)), [(8, 8)]);
        let contained: Vec<i64> = (1..=9).filter(|it| removed.contains(*it)).collect();
        assert_eq!(contained, [3, 4, 7]);
    }

    #[test]
    fn what_was_removed_is_neither_at_the_logs_end_nor_beyond_the_indexes() {
        let ahead = "the indexes do not go so far";
        let at_the_end = "the log ends before it";
        for (removed, last_position, merged_through, expected) in [
            (vec![(3, 4)], 4, Some(4), Some((4, at_the_end))),
            (vec![(1, 1), (3, 5)], 4, Some(4), Some((5, at_the_end))),
            (vec![(3, 4)], 5, Some(3), Some((4, ahead))),
            (vec![(3, 4)], 5, Some(4), None),
            (vec![(3, 4)], 5, None, None),
            (vec![], 0, Some(0), None),
        ] {
            let mut report = CheckReport::default();
            let case = format!("{removed:?} of {last_position}, merged: {merged_through:?}");
            Removed(removed).check_end(last_position, merged_through, &mut report);
            let expected =
                expected.map(|(position, problem)| Finding::Removed { position, problem });
            assert_eq!(report.findings, Vec::from_iter(expected), "{case}");
        }
    }
}
