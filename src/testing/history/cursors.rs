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
        (is_ok, Use {
            user: read.asked.reader,
            called: read.called,
            answered: read.answered,
            beyond_end,
            sequence,
            epoch: read.asked.epoch,
            refused: read.outcome.refused(),
            told: facts.tell_read(number),
        })
    });
    let acknowledges = facts.history.acknowledges.iter().map(|call| {
        let (user, through) = (facts.name(call.asked.user), call.asked.through);
        let is_ok = call.outcome.ok().is_some();
        (is_ok, Use {
            user: call.asked.user,
            called: call.called,
            answered: call.answered,
            beyond_end: 0,
            sequence: through,
            epoch: call.asked.epoch,
            refused: call.outcome.refused(),
            told: format!("acknowledgement by {user} through {through}"),
        })
    });
    let follows = (0..).map(FollowNo).zip(&facts.history.follows).map(|(number, follow)| {
        let started = follow.told.first().filter(|(_, told)| matches!(told, Told::Started { .. }));
        let refused = follow.refused.as_ref().filter(|_| started.is_none());
        let ended = started.map(|(at, _)| *at).or(refused.map(|(at, _)| *at));
        let sequence = if let Start::After(after) = follow.start { after } else { 0 };
        (started.is_some(), Use {
            user: follow.reader,
            called: follow.called,
            answered: ended.unwrap_or(Moment::NEVER),
            beyond_end: 0,
            sequence,
            epoch: follow.epoch,
            refused: refused.map(|(_, refused)| &**refused),
            told: facts.tell_follow(number),
        })
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
                format!("{told} lies beyond the mailbox, {at_most} entries at most; it was accepted")
            });
        }
    }
}
