//! fresh: a read contains everything that was known to be stored before it began.

use super::facts::{Facts, Log};
use super::record::{Cursor, Entry, FollowNo, Moment, Page, Read, Told, UserNo};
use super::verdict::{Promise, Verdict};

pub(super) fn check(facts: &Facts<'_>) -> Verdict {
    let mut verdict = Verdict::on(Promise::Fresh);
    for (number, read) in (0..).zip(&facts.history.reads) {
        if let Some(page) = read.outcome.ok() {
            let told = || facts.tell_read(number);
            check_end(facts, read.asked.reader, read.called, page.last, told, &mut verdict);
            check_page(facts, number, read, page, &mut verdict);
        }
    }
    for (number, follow) in (0..).map(FollowNo).zip(&facts.history.follows) {
        for (_, told) in &follow.told {
            if let Told::Started { last: through, .. } | Told::CaughtUp(through) = told {
                let told = || facts.tell_follow(number);
                check_end(facts, follow.reader, follow.called, *through, told, &mut verdict);
            }
        }
    }
    verdict
}

/// What was answered before the call began is in the mailbox that the call was shown.
fn check_end(
    facts: &Facts<'_>,
    reader: UserNo,
    called: Moment,
    last: i64,
    who: impl Fn() -> String,
    verdict: &mut Verdict,
) {
    let log = facts.log(reader);
    let had = log.had_before(called);
    verdict.expect(last >= had, || {
        let entry = log.get(had).map(|entry| facts.tell_entry(reader, entry));
        let entry = entry.unwrap_or_else(|| format!("entry {had}"));
        format!("stale: {} was shown a mailbox that ends at {last}; {entry} was there", who())
    });
}

/// A page holds all that matches from its cursor to its end, and nothing else.
fn check_page(facts: &Facts<'_>, number: u32, read: &Read, page: &Page, verdict: &mut Verdict) {
    let log = facts.log(read.asked.reader);
    let (first, last) = (page.entries.first(), page.entries.last());
    let sequence = |entry: Option<&Entry>| entry.map(|entry| entry.sequence);
    // The page covers `after..=through`; beyond it, in its direction, lies what it left for the next.
    let (after, through, rest) = match read.asked.cursor {
        Cursor::After(after) => {
            let through = if page.has_more { sequence(last).unwrap_or(after) } else { page.last };
            (after, through, (through, page.last))
        }
        Cursor::Before(before) => {
            let through = if before == 0 { page.last } else { before - 1 };
            let after = if page.has_more { sequence(first).map_or(through, |it| it - 1) } else { 0 };
            (after, through, (0, after))
        }
    };
    let mut shown = page.entries.iter().map(|entry| entry.sequence);
    let mut expected = matching(log, read, after, through).map(|entry| entry.sequence);
    let differ = loop {
        match (shown.next(), expected.next()) {
            (None, None) => break None,
            (shown, expected) if shown == expected => {}
            differ => break Some(differ),
        }
    };
    verdict.expect(differ.is_none(), || {
        let (shown, expected) = differ.unwrap_or_default();
        let read = facts.tell_read(number);
        format!("{read} holds sequence {shown:?} where {expected:?} was expected (None: no more)")
    });
    let has_more = matching(log, read, rest.0, rest.1).next().is_some();
    verdict.expect(page.has_more == has_more || !log.is_whole, || {
        let read = facts.tell_read(number);
        format!("{read} says has_more={}; expected {has_more}", page.has_more)
    });
}

fn matching<'a>(
    log: &'a Log,
    read: &'a Read,
    after: i64,
    through: i64,
) -> impl Iterator<Item = &'a Entry> {
    let asked = &read.asked;
    log.range(after, through).filter(|entry| {
        let is_with = |peer: UserNo| {
            // With oneself: what was sent to oneself.
            let other = if entry.from == asked.reader { entry.to } else { entry.from };
            other == peer
        };
        asked.peer.is_none_or(is_with) && (!asked.received_only || entry.to == asked.reader)
    })
}
