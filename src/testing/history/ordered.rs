//! ordered: mailboxes are dense, all readers see the same entries under the same sequences, and they
//! stand in the order in which they were sent.

use std::collections::HashMap;

use super::facts::{Facts, Log, sightings};
use super::record::{Entry, Moment, SendNo, StreamNo, UserNo};
use super::verdict::{Promise, Verdict};

pub(super) fn check(facts: &Facts<'_>) -> Verdict {
    let mut verdict = Verdict::on(Promise::Ordered);
    for (owner, mailbox) in &facts.history.mailboxes {
        for (expected, entry) in (1..).zip(mailbox) {
            verdict.expect(entry.sequence == expected, || {
                let entry = facts.tell_entry(*owner, entry);
                format!("not dense: {entry} stands where {expected} was expected")
            });
        }
    }
    for sighting in sightings(facts.history) {
        let known = facts.log(sighting.owner).get(sighting.entry.sequence);
        // One that is nowhere else is a lost one, which is told by another checker.
        verdict.expect(known.is_none_or(|known| known == sighting.entry), || {
            let seen = facts.tell_entry(sighting.owner, sighting.entry);
            let known = known.map(|known| facts.tell_entry(sighting.owner, known));
            let place = facts.tell_place(sighting.place);
            format!("readers differ: {seen} in {place}; others saw {}", known.unwrap_or_default())
        });
    }
    for (owner, log) in facts.whole_logs() {
        check_order_in_time(facts, owner, log, &mut verdict);
        check_order_on_streams(facts, owner, log, &mut verdict);
    }
    verdict
}

/// What was answered before another was sent stands before it. This holds for each sender's messages,
/// sent one after the other, and for those of all senders: a mailbox only grows at its end.
fn check_order_in_time(facts: &Facts<'_>, owner: UserNo, log: &Log, verdict: &mut Verdict) {
    let mut youngest: Option<(Moment, &Entry)> = None;
    for entry in log.range(0, log.last()) {
        let (born, answered) = (facts.born(entry), facts.answered(entry));
        if let Some((latest, before)) = youngest {
            verdict.expect(answered >= latest, || {
                let (later, earlier) = (facts.tell_entry(owner, before), facts.tell_entry(owner, entry));
                format!("out of order: {later} was sent after {earlier} had been answered")
            });
        }
        if youngest.is_none_or(|(latest, _)| born > latest) {
            youngest = Some((born, entry));
        }
    }
}

/// The messages of one stream stand in the order in which they were sent on it, except where one of
/// them was sent elsewhere too.
fn check_order_on_streams(facts: &Facts<'_>, owner: UserNo, log: &Log, verdict: &mut Verdict) {
    let mut last: HashMap<StreamNo, (SendNo, &Entry)> = HashMap::new();
    for entry in log.range(0, log.last()) {
        let &[send] = facts.attempts(entry) else { continue };
        let Some(stream) = facts.send(send).asked.stream else { continue };
        if let Some((before, other)) = last.insert(stream, (send, entry)) {
            verdict.expect(before < send, || {
                let (one, other) = (facts.tell_entry(owner, entry), facts.tell_entry(owner, other));
                format!("out of order on stream {}: {other} stands before {one}", stream.0)
            });
        }
    }
}
