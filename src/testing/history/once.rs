//! once: a `request_id` has one message, and nothing is stored more often than it was sent.

use std::collections::{HashMap, HashSet};

use super::facts::Facts;
use super::record::{Digest, Entry, SendNo, UserNo};
use super::verdict::{Promise, Verdict};
use crate::proto::ErrorReason;

pub(super) fn check(facts: &Facts<'_>) -> Verdict {
    let mut verdict = Verdict::on(Promise::Once);
    check_answers(facts, &mut verdict);
    check_mailboxes(facts, &mut verdict);
    verdict
}

/// What is stored once for all sends that have it in common: the `request_id`; without one, whom it
/// is for and what it says.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    from: UserNo,
    request: Digest,
    unrepeatable: Option<(UserNo, u64)>,
}

impl Key {
    fn of(from: UserNo, to: UserNo, content: u64, request: Digest) -> Self {
        let unrepeatable = request.is_none().then_some((to, content));
        Self { from, request, unrepeatable }
    }

    fn of_entry(entry: &Entry) -> Self {
        Self::of(entry.from, entry.to, entry.content, entry.request)
    }
}

/// All answers to one `request_id` name the same message, those without one name another each; and a
/// `request_id` is refused only for other content than before.
fn check_answers(facts: &Facts<'_>, verdict: &mut Verdict) {
    let mut first: HashMap<Key, (SendNo, &Entry)> = HashMap::new();
    let mut named: HashMap<_, SendNo> = HashMap::new();
    for (number, send) in (0..).map(SendNo).zip(&facts.history.sends) {
        let asked = &send.asked;
        let key = Key::of(asked.from, asked.to, asked.content, asked.request);
        if let Some(answer) = send.outcome.ok() {
            if key.request.is_some() {
                let (other, expected) = *first.entry(key).or_insert((number, answer));
                verdict.expect(answer == expected, || {
                    let (one, other) = (facts.tell_send(number), facts.tell_send(other));
                    format!("one request_id, two answers: {one}; and {other}")
                });
            } else if let Some(other) = named.insert(answer.id, number) {
                verdict.expect(false, || {
                    let (one, other) = (facts.tell_send(number), facts.tell_send(other));
                    format!("two sends without a request_id, one message: {one}; and {other}")
                });
            }
        }
        let is_reused = |refused: &super::record::Refused| {
            refused.reason == ErrorReason::RequestIdReused
        };
        if send.outcome.refused().is_some_and(is_reused) {
            let has_other = facts.history.sends.iter().any(|other| {
                let same_id = (other.asked.from, other.asked.request) == (asked.from, asked.request);
                let same = (other.asked.to, other.asked.content) == (asked.to, asked.content);
                same_id && !same && other.called < send.answered
            });
            verdict.expect(has_other, || {
                format!("never used for other content: {}", facts.tell_send(number))
            });
        }
    }
}

/// No mailbox has a message twice, nor more messages of a kind than were sent and not refused.
fn check_mailboxes(facts: &Facts<'_>, verdict: &mut Verdict) {
    let mut allowed: HashMap<Key, usize> = HashMap::new();
    for send in facts.history.sends.iter().filter(|send| !send.outcome.is_failed()) {
        let asked = &send.asked;
        let key = Key::of(asked.from, asked.to, asked.content, asked.request);
        let count = allowed.entry(key).or_default();
        *count = if key.request.is_some() { 1 } else { *count + 1 };
    }
    for (owner, log) in facts.whole_logs() {
        let mut ids = HashSet::new();
        let mut stored: HashMap<Key, usize> = HashMap::new();
        for entry in log.range(0, log.last()) {
            verdict.expect(ids.insert(entry.id), || {
                format!("stands there twice: {}", facts.tell_entry(owner, entry))
            });
            if entry.from != owner {
                continue;
            }
            let key = Key::of_entry(entry);
            let count = stored.entry(key).or_default();
            *count += 1;
            let allowed = allowed.get(&key).copied().unwrap_or(0);
            verdict.expect(*count <= allowed, || {
                let entry = facts.tell_entry(owner, entry);
                format!("stored {count} times, where {allowed} can be: {entry}")
            });
        }
    }
}
