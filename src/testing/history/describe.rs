//! The words in which violations are told.

use std::fmt::Display;

use super::facts::{Facts, Place};
use super::record::{Entry, FollowNo, Moment, Outcome, SendNo, UserNo};

impl Facts<'_> {
    pub(super) fn name(&self, user: UserNo) -> &str {
        self.history.name(user)
    }

    pub(super) fn tell_entry(&self, owner: UserNo, entry: &Entry) -> String {
        let Entry { id, sequence, from, to, .. } = *entry;
        let (owner, from, to) = (self.name(owner), self.name(from), self.name(to));
        format!("entry {sequence} of {owner}'s mailbox (from {from} to {to}, message {id})")
    }

    pub(super) fn tell_send(&self, number: SendNo) -> String {
        let send = self.send(number);
        let (from, to) = (self.name(send.asked.from), self.name(send.asked.to));
        let on = send.asked.stream.map(|stream| format!(" on stream {}", stream.0));
        let became = match &send.outcome {
            Outcome::Ok(entry) => {
                let Entry { id, sequence, .. } = entry;
                let at = tell_moment(send.answered);
                format!("answered at {at} with message {id} under {from}'s sequence {sequence}")
            }
            Outcome::Failed(refused) => format!("refused with {}", refused.reason.as_reason()),
            Outcome::Unknown => "never answered".to_owned(),
        };
        let (number, on, called) = (number.0, on.unwrap_or_default(), tell_moment(send.called));
        format!("send {number} from {from} to {to}{on}, called at {called} and {became}")
    }

    pub(super) fn tell_place(&self, place: Place) -> String {
        match place {
            Place::AtEnd => "the last reading".to_owned(),
            Place::Answer(send) => format!("the answer to send {}", send.0),
            Place::Page(read) => self.tell_read(read),
            Place::Event(follow) => self.tell_follow(follow),
        }
    }

    pub(super) fn tell_read(&self, number: u32) -> String {
        let read = &self.history.reads[number as usize];
        let (reader, cursor) = (self.name(read.asked.reader), read.asked.cursor);
        let (called, answered) = (tell_moment(read.called), tell_moment(read.answered));
        let peer = read.asked.peer.map(|peer| format!(" with {}", self.name(peer)));
        let received = if read.asked.received_only { ", received only" } else { "" };
        let peer = peer.unwrap_or_default();
        format!("read {number} by {reader} ({cursor:?}{peer}{received}; {called} to {answered})")
    }

    pub(super) fn tell_follow(&self, number: FollowNo) -> String {
        let follow = &self.history.follows[number.0 as usize];
        let (reader, start) = (self.name(follow.reader), follow.start);
        let received = if follow.received_only { ", received only" } else { "" };
        let called = tell_moment(follow.called);
        let number = number.0;
        format!("subscription {number} by {reader} ({start:?}{received}; called at {called})")
    }
}

/// Milliseconds since the history's start.
pub(super) fn tell_moment(moment: Moment) -> impl Display {
    let micros = moment.0 / 1_000;
    format!("{}.{:03} ms", micros / 1_000, micros % 1_000)
}
