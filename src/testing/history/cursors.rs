//! honest cursors: those outside the log and of other epochs are refused with the valid range, those
//! inside never.

use tonic::Code;

use super::facts::Facts;
use super::record::{Cursor, Digest, FollowNo, Moment, Refused, Start, Told, UserNo};
use super::verdict::{Promise, Verdict};
use crate::proto::ErrorReason;

pub(super) fn check(facts: &Facts<'_>) -> Verdict {
    let mut verdict = Verdict::on(Promise::HonestCursors);
    for (user, epoch) in facts.epochs() {
        verdict.expect(epoch == facts.epoch, || {
            format!("{} was told of another epoch than others", facts.name(user))
        });
    }
    for use_of_cursor in uses(facts) {
        check_use(facts, &use_of_cursor, &mut verdict);
    }
    verdict
}

/// A cursor in a call that was answered or refused.
struct Use<'a> {
    user: UserNo,
    called: Moment,
    answered: Moment,
    /// How far it may lie beyond the mailbox's end.
    beyond_end: i64,
    sequence: i64,
    epoch: Digest,
    /// `None`: accepted.
    refused: Option<&'a Refused>,
    told: String,
}

fn uses<'a>(facts: &'a Facts<'a>) -> impl Iterator<Item = Use<'a>> {
    let reads = (0..).zip(&facts.history.reads).map(|(number, read)| {
        let (sequence, beyond_end) = match read.asked.cursor {
            Cursor::After(after) => (after, 0),
            Cursor::Before(before) => (before, 1),
        };
        let is_ok = read.outcome.ok().is_some();
        (
            is_ok,
            Use {
                user: read.asked.reader,
                called: read.called,
                answered: read.answered,
                beyond_end,
                sequence,
                epoch: read.asked.epoch,
                refused: read.outcome.refused(),
                told: facts.tell_read(number),
            },
        )
    });
    let acknowledges = facts.history.acknowledges.iter().map(|call| {
        let (user, through) = (facts.name(call.asked.user), call.asked.through);
        let is_ok = call.outcome.ok().is_some();
        (
            is_ok,
            Use {
                user: call.asked.user,
                called: call.called,
                answered: call.answered,
                beyond_end: 0,
                sequence: through,
                epoch: call.asked.epoch,
                refused: call.outcome.refused(),
                told: format!("acknowledgement by {user} through {through}"),
            },
        )
    });
    let follows = (0..).map(FollowNo).zip(&facts.history.follows).map(|(number, follow)| {
        let started = follow.told.first().filter(|(_, told)| matches!(told, Told::Started { .. }));
        let refused = follow.refused.as_ref().filter(|_| started.is_none());
        let ended = started.map(|(at, _)| *at).or(refused.map(|(at, _)| *at));
        let sequence = if let Start::After(after) = follow.start { after } else { 0 };
        (
            started.is_some(),
            Use {
                user: follow.reader,
                called: follow.called,
                answered: ended.unwrap_or(Moment::NEVER),
                beyond_end: 0,
                sequence,
                epoch: follow.epoch,
                refused: refused.map(|(_, refused)| &**refused),
                told: facts.tell_follow(number),
            },
        )
    });
    let uses = reads.chain(acknowledges).chain(follows);
    // Of a call that was never answered nothing can be said.
    uses.filter(|(is_ok, it)| *is_ok || it.refused.is_some()).map(|(_, it)| it)
}

fn check_use(facts: &Facts<'_>, it: &Use<'_>, verdict: &mut Verdict) {
    let log = facts.log(it.user);
    let at_least = log.had_before(it.called).saturating_add(it.beyond_end);
    let at_most = log.can_have_at(it.answered).saturating_add(it.beyond_end);
    let is_of_another_epoch = it.epoch.is_some() && it.epoch != facts.epoch;
    let told = &it.told;
    match it.refused.map(|refused| (refused.reason, refused)) {
        Some((ErrorReason::EpochMismatch, refused)) => {
            verdict.expect(is_of_another_epoch || facts.epoch.is_none(), || {
                format!("{told} was refused for its epoch, which is the current one")
            });
            let names_it = refused.epoch == facts.epoch || facts.epoch.is_none();
            verdict.expect(names_it && refused.code == Code::FailedPrecondition, || {
                let code = refused.code;
                format!("{told} was refused with {code:?}, or without the current epoch")
            });
        }
        Some((ErrorReason::SequenceOutOfRange, refused)) => {
            verdict.expect(it.sequence > at_least, || {
                format!("{told} was refused, but the mailbox had {at_least} entries or more before")
            });
            let is_honest = refused
                .range
                .is_some_and(|(min, max)| min == 0 && (at_least..=at_most).contains(&max));
            verdict.expect(is_honest && refused.code == Code::OutOfRange, || {
                let (code, range) = (refused.code, refused.range);
                format!(
                    "{told} was refused with {code:?} and the range {range:?}; expected OutOfRange \
                     and 0 to {at_least}..={at_most}"
                )
            });
        }
        // Refused for something else.
        Some(_) => {}
        None => {
            verdict.expect(!is_of_another_epoch, || {
                format!("{told} named another epoch, and was accepted")
            });
            verdict.expect(it.sequence <= at_most, || {
                format!(
                    "{told} lies beyond the mailbox, {at_most} entries at most; it was accepted"
                )
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use crate::proto::ErrorReason;
    use crate::testing::history::Promise;
    use crate::testing::history::record::{Cursor, Outcome, Refused};
    use crate::testing::history::sample::{BOB, EPOCH, OTHER_EPOCH, Sample, refusal};

    const HONEST: Promise = Promise::HonestCursors;

    /// Changes how the last read was refused.
    fn refused_otherwise(mut sample: Sample, change: impl FnOnce(&mut Refused)) -> Sample {
        match sample.history.reads.last_mut().map(|read| &mut read.outcome) {
            Some(Outcome::Failed(refused)) => change(refused),
            other => panic!("{other:?} is no refusal"),
        }
        sample
    }

    fn refused_as_ahead(cursor: Cursor) -> Sample {
        let mut sample = Sample::full();
        sample.refuse_read(BOB, cursor, ErrorReason::SequenceOutOfRange, None);
        sample
    }

    #[test]
    fn a_history_of_honest_refusals_is_honest() {
        Sample::full().keeps(HONEST);
        refused_as_ahead(Cursor::After(8)).keeps(HONEST);
        refused_otherwise(refused_as_ahead(Cursor::Before(9)), |it| it.range = Some((0, 8)))
            .keeps(HONEST);
    }

    #[test]
    fn a_cursor_ahead_is_accepted() {
        let mut sample = Sample::full();
        sample.history.reads[2].asked.cursor = Cursor::After(7);
        sample.breaks(HONEST, "lies beyond the mailbox, 6 entries at most; it was accepted");
        let mut sample = Sample::full();
        sample.history.acknowledges[0].asked.through = 4;
        sample.breaks(HONEST, "acknowledgement by bob through 4 lies beyond the mailbox");
        let mut sample = Sample::full();
        let start = crate::testing::history::record::Start::After(9);
        sample.history.follows[1].start = start;
        sample.breaks(HONEST, "lies beyond the mailbox, 7 entries at most");
    }

    #[test]
    fn a_cursor_inside_is_refused() {
        refused_as_ahead(Cursor::After(7)).breaks(HONEST, "the mailbox had 7 entries or more");
        let mut sample = Sample::full();
        sample.acknowledge(BOB, 3);
        sample.history.acknowledges[1].outcome =
            refusal(ErrorReason::SequenceOutOfRange, Some((0, 7)));
        sample.breaks(HONEST, "acknowledgement by bob through 3 was refused");
    }

    #[test]
    fn a_refusal_names_another_range_or_comes_with_another_status() {
        let ahead = || refused_as_ahead(Cursor::After(8));
        refused_otherwise(ahead(), |it| it.range = Some((0, 6)))
            .breaks(HONEST, "the range Some((0, 6))");
        refused_otherwise(ahead(), |it| it.range = Some((0, 8)))
            .breaks(HONEST, "the range Some((0, 8))");
        refused_otherwise(ahead(), |it| it.range = Some((1, 7)))
            .breaks(HONEST, "the range Some((1, 7))");
        refused_otherwise(ahead(), |it| it.range = None).breaks(HONEST, "the range None");
        refused_otherwise(ahead(), |it| it.code = Code::Internal).breaks(HONEST, "with Internal");
    }

    #[test]
    fn another_epoch_is_accepted() {
        let mut sample = Sample::full();
        sample.history.reads[0].asked.epoch = OTHER_EPOCH;
        sample.breaks(HONEST, "named another epoch, and was accepted");
    }

    #[test]
    fn the_current_epoch_is_refused() {
        let mut sample = Sample::full();
        sample.refuse_read(BOB, Cursor::After(1), ErrorReason::EpochMismatch, EPOCH);
        sample.breaks(HONEST, "was refused for its epoch, which is the current one");
    }

    #[test]
    fn a_refusal_does_not_say_which_epoch_is_current() {
        let of_another_epoch = || {
            let mut sample = Sample::full();
            sample.refuse_read(BOB, Cursor::After(1), ErrorReason::EpochMismatch, OTHER_EPOCH);
            sample
        };
        of_another_epoch().keeps(HONEST);
        refused_otherwise(of_another_epoch(), |it| it.epoch = OTHER_EPOCH)
            .breaks(HONEST, "without the current epoch");
        refused_otherwise(of_another_epoch(), |it| it.code = Code::OutOfRange)
            .breaks(HONEST, "was refused with OutOfRange");
    }

    #[test]
    fn readers_are_told_of_different_epochs() {
        let mut sample = Sample::full();
        if let Outcome::Ok(page) = &mut sample.history.reads[1].outcome {
            page.epoch = OTHER_EPOCH;
        }
        sample.breaks(HONEST, "bob was told of another epoch than others");
    }
}
