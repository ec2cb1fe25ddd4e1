//! private: nobody reads what they neither sent nor received, and messages are what was sent by whom.

use super::facts::{Facts, Place, Sighting, sightings};
use super::record::{Moment, SendNo};
use super::verdict::{Promise, Verdict};

pub(super) fn check(facts: &Facts<'_>) -> Verdict {
    let mut verdict = Verdict::on(Promise::Private);
    for (number, send) in (0..).map(SendNo).zip(&facts.history.sends) {
        if let Some(answer) = send.outcome.ok() {
            let asked = (send.asked.from, send.asked.to, send.asked.content, send.asked.request);
            let shown = (answer.from, answer.to, answer.content, answer.request);
            verdict.expect(shown == asked, || {
                let entry = facts.tell_entry(send.asked.from, answer);
                format!("the answer is not what was sent: {}; {entry}", facts.tell_send(number))
            });
        }
    }
    for sighting in sightings(facts.history) {
        check_sighting(facts, &sighting, &mut verdict);
    }
    for (owner, mailbox) in &facts.history.mailboxes {
        for entry in mailbox {
            let (owner, seen, place) = (*owner, Moment::NEVER, Place::AtEnd);
            check_sighting(facts, &Sighting { owner, entry, seen, place }, &mut verdict);
        }
    }
    verdict
}

fn check_sighting(facts: &Facts<'_>, sighting: &Sighting<'_>, verdict: &mut Verdict) {
    let Sighting { owner, entry, place, .. } = *sighting;
    let told = || format!("{} in {}", facts.tell_entry(owner, entry), facts.tell_place(place));
    verdict.expect(owner == entry.from || owner == entry.to, || {
        format!("shown to {}, who has no part in it: {}", facts.name(owner), told())
    });
    let attempts = facts.attempts(entry);
    verdict.expect(!attempts.is_empty(), || {
        let (from, to) = (facts.name(entry.from), facts.name(entry.to));
        format!("{from} never sent {to} what it says: {}", told())
    });
    if owner == entry.from {
        let is_theirs = |send: &SendNo| facts.send(*send).asked.request == entry.request;
        verdict.expect(attempts.iter().any(is_theirs), || {
            format!("does not carry the request_id with which it was sent: {}", told())
        });
    } else {
        verdict.expect(entry.request.is_none(), || {
            format!("shows the sender's request_id to the receiver: {}", told())
        });
    }
}
