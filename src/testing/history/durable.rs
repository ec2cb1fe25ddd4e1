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

#[cfg(test)]
mod tests {
    use crate::proto::ErrorReason;
    use crate::testing::history::Promise;
    use crate::testing::history::record::{Outcome, Start};
    use crate::testing::history::sample::{ALICE, BOB, CAROL, Sample, refusal};

    const DURABLE: Promise = Promise::Durable;

    #[test]
    fn a_history_that_keeps_everything_is_durable() {
        Sample::full().keeps(DURABLE);
    }

    #[test]
    fn an_acknowledged_message_at_the_end_of_a_mailbox_is_lost() {
        let mut sample = Sample::full();
        sample.at_end(CAROL).pop();
        sample.breaks(DURABLE, "it is not in carol's mailbox");
        sample.at_end(BOB).pop();
        sample.breaks(DURABLE, "the sender's mailbox ends at 6");
    }

    #[test]
    fn another_message_stands_where_one_was_acknowledged() {
        let mut sample = Sample::full();
        sample.at_end(ALICE).swap(0, 1);
        sample.breaks(DURABLE, "there stands message");
    }

    #[test]
    fn what_a_reader_was_shown_is_gone() {
        let mut sample = Sample::full();
        // Nobody was told that they are stored, and followers saw them all the same.
        sample.history.sends.clear();
        sample.at_end(BOB).truncate(5);
        sample.breaks(DURABLE, "entry 6 of bob's mailbox");
    }

    #[test]
    fn a_message_is_in_one_mailbox_only() {
        let mut sample = Sample::full();
        sample.history.sends.clear();
        let removed = sample.at_end(ALICE).pop();
        assert!(removed.is_some());
        sample.breaks(DURABLE, "is not in alice's mailbox");
    }

    #[test]
    fn a_registered_name_or_its_token_is_forgotten() {
        for (reason, told) in [
            (ErrorReason::TokenUnknown, "refused with TOKEN_UNKNOWN; alice is registered"),
            (ErrorReason::UserNotFound, "refused with USER_NOT_FOUND; bob is registered"),
            (ErrorReason::StoredDataDamaged, "refused with STORED_DATA_DAMAGED"),
        ] {
            let mut sample = Sample::empty();
            sample.refuse_send(ALICE, BOB, 1, None, reason);
            sample.breaks(DURABLE, told);
        }
        let mut stranger = Sample::empty();
        stranger.history.registers.clear();
        stranger.refuse_send(ALICE, BOB, 1, None, ErrorReason::TokenUnknown);
        stranger.keeps(DURABLE);
    }

    #[test]
    fn an_update_of_an_address_is_lost() {
        let mut sample = Sample::full();
        sample.look_up(ALICE, BOB, 101);
        sample.breaks(DURABLE, "a look-up of bob");
        // Of an update that may come at any time nothing is known.
        let mut unknown = Sample::full();
        unknown.register(BOB, 888);
        let update = unknown.history.registers.last_mut().expect("it was recorded");
        (update.outcome, update.answered) =
            (Outcome::Unknown, crate::testing::history::Moment::NEVER);
        unknown.look_up(ALICE, BOB, 888);
        unknown.look_up(ALICE, BOB, 777);
        unknown.keeps(DURABLE);
    }

    #[test]
    fn an_acknowledgement_is_taken_back_or_was_never_asked_for() {
        let mut sample = Sample::full();
        sample.acknowledge(BOB, 1);
        sample.breaks(DURABLE, "was answered with 1; expected 2 to 2");
        let mut sample = Sample::full();
        sample.acknowledge(BOB, 5);
        sample.history.acknowledges[1].outcome = Outcome::Ok(6);
        sample.breaks(DURABLE, "was answered with 6; expected 5 to 5");
        let mut sample = Sample::full();
        sample.follow(BOB, Start::Acknowledged, false, None);
        sample.history.acknowledges[0].outcome = refusal(ErrorReason::EpochMismatch, None);
        sample.breaks(DURABLE, "began after 2; 0 to 0 was acknowledged");
    }
}
