//! What is durable beside messages: names with their tokens, addresses, acknowledgements. And what
//! no caller may be told while nothing has damaged the disk: that stored data is.

use std::collections::HashMap;

use super::describe::tell_moment;
use super::facts::Facts;
use super::record::{Acknowledge, Digest, Moment, Profile, Refused, Start, Told, UserNo};
use super::verdict::Verdict;
use crate::proto::ErrorReason;

pub(super) fn check(facts: &Facts<'_>, verdict: &mut Verdict) {
    check_names(facts, verdict);
    check_addresses(facts, verdict);
    check_acknowledged(facts, verdict);
}

/// A name that was registered is found, and its token known, from then on.
fn check_names(facts: &Facts<'_>, verdict: &mut Verdict) {
    let mut registered: HashMap<UserNo, Moment> = HashMap::new();
    for call in facts.history.registers.iter().filter(|call| call.outcome.ok().is_some()) {
        let since = registered.entry(call.asked.user).or_insert(call.answered);
        *since = call.answered.min(*since);
    }
    let mut expect = |called: Moment, caller: UserNo, found: UserNo, refused: &Refused| {
        let was_registered =
            |user| registered.get(&user).is_some_and(|since: &Moment| *since < called);
        let (is_wrong, whom) = match refused.reason {
            ErrorReason::TokenUnknown => (was_registered(caller), caller),
            ErrorReason::UserNotFound => (was_registered(found), found),
            ErrorReason::StoredDataDamaged => (true, caller),
            _ => (false, caller),
        };
        verdict.expect(!is_wrong, || {
            let (reason, caller) = (refused.reason.as_reason(), facts.name(caller));
            let (called, whom) = (tell_moment(called), facts.name(whom));
            format!("a call of {caller} at {called} was refused with {reason}; {whom} is registered")
        });
    };
    let history = facts.history;
    for call in &history.sends {
        if let Some(refused) = call.outcome.refused() {
            expect(call.called, call.asked.from, call.asked.to, refused);
        }
    }
    for call in &history.reads {
        if let Some(refused) = call.outcome.refused() {
            let found = call.asked.peer.unwrap_or(call.asked.reader);
            expect(call.called, call.asked.reader, found, refused);
        }
    }
    for call in &history.acknowledges {
        if let Some(refused) = call.outcome.refused() {
            expect(call.called, call.asked.user, call.asked.user, refused);
        }
    }
    for call in history.registers.iter().chain(&history.look_ups) {
        if let Some(refused) = call.outcome.refused() {
            expect(call.called, call.asked.by, call.asked.user, refused);
        }
    }
    for follow in &history.follows {
        if let Some((_, refused)) = &follow.refused {
            expect(follow.called, follow.reader, follow.reader, refused);
        }
    }
}

/// A look-up shows the address of the last update before it, or of one that was under way.
fn check_addresses(facts: &Facts<'_>, verdict: &mut Verdict) {
    let mut updates: HashMap<UserNo, Vec<&Profile>> = HashMap::new();
    for update in facts.history.registers.iter().filter(|call| !call.outcome.is_failed()) {
        updates.entry(update.asked.user).or_default().push(update);
    }
    for look_up in &facts.history.look_ups {
        let Some(shown) = look_up.outcome.ok() else { continue };
        let Some(updates) = updates.get(&look_up.asked.user) else { continue };
        let can_be = |update: &&&Profile| {
            let is_later = |other: &&Profile| {
                other.called > update.answered && other.answered < look_up.called
            };
            update.called < look_up.answered && !updates.iter().any(is_later)
        };
        let is_one = updates.iter().filter(can_be).any(|update| address_of(update) == *shown);
        verdict.expect(is_one, || {
            let (user, called) = (facts.name(look_up.asked.user), tell_moment(look_up.called));
            format!("a look-up of {user} at {called} showed an address that was not the last")
        });
    }
}

fn address_of(update: &Profile) -> Digest {
    update.asked.address.or(update.outcome.ok().copied().flatten())
}

/// An acknowledgement is never taken back, and nothing is acknowledged that nobody asked for.
fn check_acknowledged(facts: &Facts<'_>, verdict: &mut Verdict) {
    for call in &facts.history.acknowledges {
        let Some(through) = call.outcome.ok().copied() else { continue };
        let user = call.asked.user;
        let at_least = acknowledged_before(facts, user, call.called).max(call.asked.through);
        let at_most = asked_before(facts, user, call.answered);
        verdict.expect((at_least..=at_most).contains(&through), || {
            let (user, called) = (facts.name(user), tell_moment(call.called));
            format!(
                "the acknowledgement of {user} at {called} was answered with {through}; expected \
                 {at_least} to {at_most}"
            )
        });
    }
    for follow in facts.history.follows.iter().filter(|it| it.start == Start::Acknowledged) {
        let Some((told, Told::Started { after, .. })) = follow.told.first() else { continue };
        let at_least = acknowledged_before(facts, follow.reader, follow.called);
        let at_most = asked_before(facts, follow.reader, *told);
        verdict.expect((at_least..=at_most).contains(after), || {
            let (reader, called) = (facts.name(follow.reader), tell_moment(follow.called));
            format!(
                "the subscription of {reader} at {called} began after {after}; {at_least} to \
                 {at_most} was acknowledged"
            )
        });
    }
}

fn of<'a>(facts: &'a Facts<'_>, user: UserNo) -> impl Iterator<Item = &'a Acknowledge> {
    facts.history.acknowledges.iter().filter(move |call| call.asked.user == user)
}

fn acknowledged_before(facts: &Facts<'_>, user: UserNo, moment: Moment) -> i64 {
    let before = of(facts, user).filter(|call| call.answered < moment);
    before.filter_map(|call| call.outcome.ok()).copied().max().unwrap_or(0)
}

fn asked_before(facts: &Facts<'_>, user: UserNo, moment: Moment) -> i64 {
    let before = of(facts, user).filter(|call| call.called < moment && !call.outcome.is_failed());
    before.map(|call| call.asked.through).max().unwrap_or(0)
}
