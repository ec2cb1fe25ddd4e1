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
                let (later, earlier) =
                    (facts.tell_entry(owner, before), facts.tell_entry(owner, entry));
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

#[cfg(test)]
mod tests {
    use crate::testing::history::Promise;
    use crate::testing::history::record::{StreamNo, Told};
    use crate::testing::history::sample::{ALICE, BOB, CAROL, Sample};

    const ORDERED: Promise = Promise::Ordered;

    #[test]
    fn a_history_of_one_order_is_ordered() {
        Sample::full().keeps(ORDERED);
    }

    #[test]
    fn a_mailbox_has_a_hole() {
        let mut sample = Sample::full();
        sample.at_end(BOB).remove(3);
        sample.breaks(ORDERED, "stands where 4 was expected");
    }

    #[test]
    fn a_follower_and_a_page_saw_different_entries() {
        let mut sample = Sample::full();
        let Some((_, Told::Message(entry))) = sample.history.follows[0].told.get_mut(1) else {
            panic!("it is a message")
        };
        entry.sequence = 2;
        sample.breaks(ORDERED, "readers differ: entry 2 of bob's mailbox");
    }

    #[test]
    fn readers_differ_where_no_mailbox_was_read_to_the_end() {
        let mut sample = Sample::full();
        sample.history.mailboxes.clear();
        sample.keeps(ORDERED);
        let Some((_, Told::Message(entry))) = sample.history.follows[1].told.get_mut(1) else {
            panic!("it is a message")
        };
        entry.content = 99;
        sample.breaks(ORDERED, "readers differ: entry 3 of bob's mailbox");
    }

    #[test]
    fn a_message_stands_before_one_that_had_been_answered() {
        let mut sample = Sample::empty();
        sample.send(ALICE, BOB, 1, None, None);
        sample.send(CAROL, BOB, 2, None, None);
        sample.finish();
        sample.keeps(ORDERED);
        sample.at_end(BOB).swap(0, 1);
        for (sequence, entry) in (1..).zip(sample.at_end(BOB)) {
            entry.sequence = sequence;
        }
        sample.breaks(ORDERED, "was sent after entry 2");
    }

    #[test]
    fn a_streams_messages_change_places() {
        let mut sample = Sample::empty();
        for content in 1..=2 {
            sample.send(ALICE, BOB, content, None, Some(StreamNo(1)));
        }
        sample.finish();
        // Never answered, so that only their order on the stream says which is first.
        for send in &mut sample.history.sends {
            send.outcome = crate::testing::history::record::Outcome::Unknown;
            send.answered = crate::testing::history::Moment::NEVER;
        }
        sample.keeps(ORDERED);
        sample.at_end(BOB).swap(0, 1);
        for (sequence, entry) in (1..).zip(sample.at_end(BOB)) {
            entry.sequence = sequence;
        }
        sample.breaks(ORDERED, "out of order on stream 1");
    }
}
