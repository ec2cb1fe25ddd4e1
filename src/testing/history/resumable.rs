//! resumable: subscriptions deliver everything after their start, in order, once.

use super::facts::{Facts, Log};
use super::record::{Entry, Follow, FollowNo, Start, Told};
use super::verdict::{Promise, Verdict};

pub(super) fn check(facts: &Facts<'_>) -> Verdict {
    let mut verdict = Verdict::on(Promise::Resumable);
    // Up to where each subscription delivered.
    let mut cursors: Vec<Option<i64>> = Vec::with_capacity(facts.history.follows.len());
    for (number, follow) in (0..).map(FollowNo).zip(&facts.history.follows) {
        let before = follow.continues.and_then(|before| *cursors.get(before.0 as usize)?);
        let log = facts.log(follow.reader);
        let mut reading = Reading { facts, number, follow, log, cursor: before, is_live: false };
        for (at, (_, told)) in follow.told.iter().enumerate() {
            reading.take(at, told, &mut verdict);
        }
        if let Some(awaited) = follow.awaited {
            let reached = reading.cursor.unwrap_or(0);
            reading.expect(reached >= awaited, &mut verdict, || {
                format!("delivered only up to {reached} of what its reader waited for, {awaited}")
            });
        }
        cursors.push(reading.cursor);
    }
    verdict
}

/// One subscription, read event by event.
struct Reading<'a> {
    facts: &'a Facts<'a>,
    number: FollowNo,
    follow: &'a Follow,
    log: &'a Log,
    /// Everything up to here was delivered; before the beginning, in what this one takes up.
    cursor: Option<i64>,
    is_live: bool,
}

impl Reading<'_> {
    fn take(&mut self, at: usize, told: &Told, verdict: &mut Verdict) {
        let is_first = matches!(told, Told::Started { .. });
        self.expect(is_first == (at == 0), verdict, || {
            "`started` is not the first event, or not the only one of its kind".to_owned()
        });
        match *told {
            Told::Started { after, last, .. } => self.start(after, last, verdict),
            Told::Message(entry) => self.take_entry(&entry, verdict),
            Told::CaughtUp(through) => {
                let was_live = std::mem::replace(&mut self.is_live, true);
                self.expect(!was_live, verdict, || "`caught_up` came twice".to_owned());
                self.take_claim("caught_up", through, verdict);
            }
            Told::Heartbeat(through) => self.take_claim("heartbeat", through, verdict),
        }
    }

    fn start(&mut self, after: i64, last: i64, verdict: &mut Verdict) {
        let expected = match self.follow.start {
            Start::After(asked) => Some(asked),
            Start::FromNow => Some(last),
            // What was acknowledged is another checker's.
            Start::Acknowledged => None,
        };
        self.expect(expected.is_none_or(|expected| after == expected), verdict, || {
            format!("began after {after}, where it was to begin after {expected:?}")
        });
        if let Some(before) = self.cursor {
            self.expect(after == before, verdict, || {
                format!("takes up a subscription that delivered up to {before} after {after}")
            });
        }
        self.cursor = Some(after);
    }

    fn take_entry(&mut self, entry: &Entry, verdict: &mut Verdict) {
        let cursor = self.cursor.unwrap_or(0);
        let told = self.facts.tell_entry(self.follow.reader, entry);
        self.expect(entry.sequence > cursor, verdict, || {
            format!("delivered {told} when everything up to {cursor} had been")
        });
        self.expect(self.matches(entry), verdict, || format!("delivered {told}, which was sent"));
        self.expect_nothing_between(cursor, entry.sequence - 1, verdict, || format!("before {told}"));
        self.cursor = Some(entry.sequence.max(cursor));
    }

    /// "Everything up to `through` has been delivered, or skipped."
    fn take_claim(&mut self, what: &str, through: i64, verdict: &mut Verdict) {
        let cursor = self.cursor.unwrap_or(0);
        self.expect(through >= cursor, verdict, || {
            format!("`{what}` names {through} when everything up to {cursor} had been delivered")
        });
        self.expect(!self.log.is_whole || through <= self.log.last(), verdict, || {
            format!("`{what}` names {through}, beyond the mailbox's end, {}", self.log.last())
        });
        self.expect_nothing_between(cursor, through, verdict, || {
            format!("before `{what}` through {through}")
        });
        self.cursor = Some(through.max(cursor));
    }

    /// Nothing that was to be delivered stands after `cursor` and up to `through`.
    fn expect_nothing_between(
        &self,
        cursor: i64,
        through: i64,
        verdict: &mut Verdict,
        when: impl Fn() -> String,
    ) {
        // Without a filter the numbers alone show a gap, whatever is known of the mailbox.
        let is_gap = !self.follow.received_only && through > cursor;
        let missed = self.log.range(cursor, through).find(|entry| self.matches(entry));
        self.expect(missed.is_none() && !is_gap, verdict, || {
            let first = missed.map(|entry| self.facts.tell_entry(self.follow.reader, entry));
            let first = first.unwrap_or_else(|| format!("entry {}", cursor + 1));
            format!("did not deliver {first}, {}", when())
        });
    }

    fn matches(&self, entry: &Entry) -> bool {
        !self.follow.received_only || entry.to == self.follow.reader
    }

    fn expect(&self, is_kept: bool, verdict: &mut Verdict, what: impl FnOnce() -> String) {
        verdict.expect(is_kept, || format!("{} {}", self.facts.tell_follow(self.number), what()));
    }
}
