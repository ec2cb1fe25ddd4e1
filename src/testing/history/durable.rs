//! durable: what was answered with OK is there at the end, as it was answered.

use super::facts::{Facts, Place, sightings};
use super::profiles;
use super::record::SendNo;
use super::verdict::{Promise, Verdict};

pub(super) fn check(facts: &Facts<'_>) -> Verdict {
    let mut verdict = Verdict::on(Promise::Durable);
    check_answers(facts, &mut verdict);
    check_sightings(facts, &mut verdict);
    check_both_have_it(facts, &mut verdict);
    profiles::check(facts, &mut verdict);
    verdict
}

/// Every acknowledged message is in both mailboxes, in the sender's under the sequence it was told.
fn check_answers(facts: &Facts<'_>, verdict: &mut Verdict) {
    for (number, send) in (0..).map(SendNo).zip(&facts.history.sends) {
        let Some(answer) = send.outcome.ok() else { continue };
        let (from, to) = (facts.log(send.asked.from), facts.log(send.asked.to));
        if from.is_whole {
            let stored = from.get(answer.sequence);
            verdict.expect(stored.is_some_and(|stored| stored.id == answer.id), || {
                let found = stored.map_or_else(
                    || format!("the sender's mailbox ends at {}", from.last()),
                    |stored| format!("there stands message {}", stored.id),
                );
                format!("lost: {}; but {found}", facts.tell_send(number))
            });
        }
        if to.is_whole {
            verdict.expect(to.place(answer.id).is_some(), || {
                let receiver = facts.name(send.asked.to);
                format!("lost: {}; it is not in {receiver}'s mailbox", facts.tell_send(number))
            });
        }
    }
}

/// What anyone was shown is there at the end: nothing is shown before it is on disk.
fn check_sightings(facts: &Facts<'_>, verdict: &mut Verdict) {
    for sighting in sightings(facts.history) {
        let log = facts.log(sighting.owner);
        // Answers are held against more than this above.
        if log.is_whole && !matches!(sighting.place, Place::Answer(_)) {
            verdict.expect(log.get(sighting.entry.sequence).is_some(), || {
                let entry = facts.tell_entry(sighting.owner, sighting.entry);
                let place = facts.tell_place(sighting.place);
                format!("lost: {entry} was in {place}; the mailbox ends at {}", log.last())
            });
        }
    }
}

/// A message in one mailbox is in that of the other participant too.
fn check_both_have_it(facts: &Facts<'_>, verdict: &mut Verdict) {
    for (owner, log) in facts.whole_logs() {
        for entry in log.range(0, log.last()) {
            for participant in [entry.from, entry.to] {
                let other = facts.log(participant);
                if participant != owner && other.is_whole {
                    verdict.expect(other.place(entry.id).is_some(), || {
                        let entry = facts.tell_entry(owner, entry);
                        format!("{entry} is not in {}'s mailbox", facts.name(participant))
                    });
                }
            }
        }
    }
}
