//! A small history in which every promise is kept, for the tests to break one at a time.

use std::num::NonZero;

use tonic::Code;
use uuid::Uuid;

use super::record::{
    Acknowledge, AcknowledgeAsked, Call, Cursor, Digest, Entry, Follow, FollowNo, Moment, Outcome,
    Page, Profile, ProfileAsked, Read, ReadAsked, Refused, Send, SendAsked, Start, StreamNo, Told,
    UserNo,
};
use super::{History, Promise, Verdict};
use crate::proto::ErrorReason;

pub(super) const ALICE: UserNo = UserNo(0);
pub(super) const BOB: UserNo = UserNo(1);
pub(super) const CAROL: UserNo = UserNo(2);

pub(super) const EPOCH: Digest = NonZero::new(1);
pub(super) const OTHER_EPOCH: Digest = NonZero::new(2);

pub(super) fn request(number: u64) -> Digest {
    NonZero::new(number)
}

/// A server that keeps its promises, and a recorder beside it.
#[derive(Default)]
pub(super) struct Sample {
    pub(super) history: History,
    mailboxes: [Vec<Entry>; 3],
    clock: u64,
    stored: u128,
}

impl Sample {
    pub(super) fn empty() -> Self {
        let mut sample = Self::default();
        sample.history.names = ["alice", "bob", "carol"].map(str::to_owned).to_vec();
        for user in [ALICE, BOB, CAROL] {
            sample.register(user, 100 + u64::from(user.0));
        }
        sample
    }

    /// Something of everything.
    pub(super) fn full() -> Self {
        let mut sample = Self::empty();
        sample.send(ALICE, BOB, 11, request(1), None); // alice 1, bob 1
        sample.send(BOB, ALICE, 12, None, None); // alice 2, bob 2
        sample.acknowledge(BOB, 2);
        let first = sample.follow(BOB, Start::After(0), false, None);
        sample.deliver(first, 2);
        sample.lose_answer(ALICE, BOB, 13, request(2)); // alice 3, bob 3
        sample.repeat(2, ALICE, BOB, 13);
        sample.lose_request(ALICE, BOB, 14);
        sample.refuse_send(ALICE, BOB, 15, request(1), ErrorReason::RequestIdReused);
        for content in 21..24 {
            sample.send(ALICE, BOB, content, request(content), Some(StreamNo(1))); // 4 to 6 of both
        }
        sample.send(CAROL, CAROL, 31, None, None); // carol 1
        sample.send(BOB, CAROL, 32, request(32), None); // bob 7, carol 2
        let second = sample.follow(BOB, Start::After(2), false, Some(first));
        sample.deliver(second, 7);
        let received = sample.follow(BOB, Start::Acknowledged, true, None);
        sample.deliver(received, 7);
        sample.follow(ALICE, Start::FromNow, false, None);
        sample.page(BOB, Cursor::After(0), 3);
        sample.page(BOB, Cursor::Before(0), 2);
        sample.page(ALICE, Cursor::After(0), 100);
        sample.refuse_read(BOB, Cursor::After(8), ErrorReason::SequenceOutOfRange, EPOCH);
        sample.refuse_read(BOB, Cursor::After(1), ErrorReason::EpochMismatch, OTHER_EPOCH);
        sample.register(BOB, 777);
        sample.look_up(ALICE, BOB, 777);
        sample.finish();
        sample
    }

    pub(super) fn finish(&mut self) {
        for user in [ALICE, BOB, CAROL] {
            let mailbox = self.mailboxes[user.0 as usize].clone();
            self.history.mailboxes.insert(user, mailbox);
        }
    }

    fn now(&mut self) -> Moment {
        self.clock += 1_000_000;
        Moment(self.clock)
    }

    fn record<Q, A>(&mut self, asked: Q, outcome: Outcome<A>) -> Call<Q, A> {
        let called = self.now();
        let is_known = !matches!(outcome, Outcome::Unknown);
        let answered = if is_known { self.now() } else { Moment::NEVER };
        Call { called, answered, asked, outcome }
    }

    /// Stores a message, and returns the sender's entry.
    fn store(&mut self, from: UserNo, to: UserNo, content: u64, request: Digest) -> Entry {
        self.stored += 1;
        let entry =
            Entry { id: Uuid::from_u128(self.stored), sequence: 0, content, request, from, to };
        let mut put = |owner: UserNo, request| {
            let mailbox = &mut self.mailboxes[owner.0 as usize];
            let sequence = end_of(mailbox) + 1;
            mailbox.push(Entry { sequence, request, ..entry });
            Entry { sequence, request, ..entry }
        };
        if to != from {
            put(to, None);
        }
        put(from, request)
    }

    pub(super) fn send(
        &mut self,
        from: UserNo,
        to: UserNo,
        content: u64,
        request: Digest,
        stream: Option<StreamNo>,
    ) {
        let entry = self.store(from, to, content, request);
        let asked = SendAsked { from, to, content, request, stream };
        let send: Send = self.record(asked, Outcome::Ok(entry));
        self.history.sends.push(send);
    }

    fn lose_answer(&mut self, from: UserNo, to: UserNo, content: u64, request: Digest) {
        self.store(from, to, content, request);
        let asked = SendAsked { from, to, content, request, stream: None };
        let send = self.record(asked, Outcome::Unknown);
        self.history.sends.push(send);
    }

    fn lose_request(&mut self, from: UserNo, to: UserNo, content: u64) {
        let asked = SendAsked { from, to, content, request: None, stream: None };
        let send = self.record(asked, Outcome::Unknown);
        self.history.sends.push(send);
    }

    /// Sends again what has this `request_id`.
    fn repeat(&mut self, request_id: u64, from: UserNo, to: UserNo, content: u64) {
        let request = request(request_id);
        let mailbox = &self.mailboxes[from.0 as usize];
        let entry = mailbox.iter().find(|entry| entry.request == request).copied();
        let asked = SendAsked { from, to, content, request, stream: None };
        let send = self.record(asked, Outcome::Ok(entry.expect("it was sent")));
        self.history.sends.push(send);
    }

    pub(super) fn refuse_send(
        &mut self,
        from: UserNo,
        to: UserNo,
        content: u64,
        request: Digest,
        reason: ErrorReason,
    ) {
        let asked = SendAsked { from, to, content, request, stream: None };
        let send = self.record(asked, refusal(reason, None));
        self.history.sends.push(send);
    }

    pub(super) fn page(&mut self, reader: UserNo, cursor: Cursor, size: usize) {
        let mailbox = &self.mailboxes[reader.0 as usize];
        let last = end_of(mailbox);
        let (entries, has_more): (Vec<Entry>, bool) = match cursor {
            Cursor::After(after) => {
                let rest = mailbox.iter().skip(count(after));
                (rest.clone().take(size).copied().collect(), rest.count() > size)
            }
            Cursor::Before(before) => {
                let end = if before == 0 { mailbox.len() } else { count(before) - 1 };
                (mailbox[end.saturating_sub(size)..end].to_vec(), end > size)
            }
        };
        let asked = ReadAsked { reader, cursor, epoch: None, peer: None, received_only: false };
        let page = Page { entries, has_more, epoch: EPOCH, last };
        let read: Read = self.record(asked, Outcome::Ok(page));
        self.history.reads.push(read);
    }

    pub(super) fn refuse_read(
        &mut self,
        reader: UserNo,
        cursor: Cursor,
        reason: ErrorReason,
        epoch: Digest,
    ) {
        let last = end_of(&self.mailboxes[reader.0 as usize]);
        let asked = ReadAsked { reader, cursor, epoch, peer: None, received_only: false };
        let read = self.record(asked, refusal(reason, Some((0, last))));
        self.history.reads.push(read);
    }

    pub(super) fn acknowledge(&mut self, user: UserNo, through: i64) {
        let asked = AcknowledgeAsked { user, through, epoch: None };
        let call: Acknowledge = self.record(asked, Outcome::Ok(through));
        self.history.acknowledges.push(call);
    }

    pub(super) fn register(&mut self, user: UserNo, address: u64) {
        let address = request(address);
        let call = self.record(ProfileAsked { by: user, user, address }, Outcome::Ok(address));
        self.history.registers.push(call);
    }

    pub(super) fn look_up(&mut self, by: UserNo, user: UserNo, address: u64) {
        let asked = ProfileAsked { by, user, address: None };
        let call: Profile = self.record(asked, Outcome::Ok(request(address)));
        self.history.look_ups.push(call);
    }

    pub(super) fn follow(
        &mut self,
        reader: UserNo,
        start: Start,
        received_only: bool,
        continues: Option<FollowNo>,
    ) -> FollowNo {
        let called = self.now();
        let last = end_of(&self.mailboxes[reader.0 as usize]);
        let acknowledged = self.history.acknowledges.iter();
        let acknowledged = acknowledged.filter(|call| call.asked.user == reader);
        let after = match start {
            Start::After(after) => after,
            Start::FromNow => last,
            Start::Acknowledged => acknowledged.map(|call| call.asked.through).max().unwrap_or(0),
        };
        let told = vec![(self.now(), Told::Started { epoch: EPOCH, after, last })];
        let (epoch, refused, awaited) = (None, None, None);
        self.history.follows.push(Follow {
            reader,
            called,
            start,
            epoch,
            received_only,
            continues,
            told,
            refused,
            awaited,
        });
        FollowNo(u32::try_from(self.history.follows.len() - 1).expect("a few"))
    }

    /// Delivers everything up to a sequence: it is live then, and silent for a while.
    pub(super) fn deliver(&mut self, follow: FollowNo, through: i64) {
        let mut it = self.history.follows[follow.0 as usize].clone();
        let Some((_, Told::Started { after, .. })) = it.told.first().copied() else { return };
        let mailbox = self.mailboxes[it.reader.0 as usize].clone();
        for entry in &mailbox[count(after)..count(through)] {
            if !it.received_only || entry.to == it.reader {
                it.told.push((self.now(), Told::Message(*entry)));
            }
        }
        it.told.push((self.now(), Told::CaughtUp(through)));
        it.told.push((self.now(), Told::Heartbeat(through)));
        self.history.follows[follow.0 as usize] = it;
    }

    /// The entries of a mailbox at the end.
    pub(super) fn at_end(&mut self, owner: UserNo) -> &mut Vec<Entry> {
        self.history.mailboxes.get_mut(&owner).expect("it was read")
    }

    /// The verdict on one promise.
    pub(super) fn verdict(&self, promise: Promise) -> Verdict {
        let verdicts = self.history.check();
        verdicts.into_iter().find(|verdict| verdict.promise() == promise).expect("each has one")
    }

    /// Asserts that this promise is seen to be broken, and that it is told so.
    #[track_caller]
    pub(super) fn breaks(&self, promise: Promise, told: &str) {
        let verdict = self.verdict(promise);
        assert!(!verdict.is_kept(), "not seen: {told}");
        let is_told = verdict.violations().iter().any(|violation| violation.contains(told));
        assert!(is_told, "expected {told:?} in {verdict}");
    }

    /// Asserts that this promise is kept.
    #[track_caller]
    pub(super) fn keeps(&self, promise: Promise) {
        let verdict = self.verdict(promise);
        assert!(verdict.is_kept() && verdict.checked() > 0, "{verdict}");
    }
}

pub(super) fn refusal<T>(reason: ErrorReason, range: Option<(i64, i64)>) -> Outcome<T> {
    let code = match reason {
        ErrorReason::SequenceOutOfRange => Code::OutOfRange,
        ErrorReason::EpochMismatch => Code::FailedPrecondition,
        ErrorReason::RequestIdReused => Code::AlreadyExists,
        ErrorReason::TokenUnknown => Code::Unauthenticated,
        ErrorReason::UserNotFound => Code::NotFound,
        _ => Code::DataLoss,
    };
    Outcome::Failed(Box::new(Refused { code, reason, range, epoch: EPOCH }))
}

fn end_of(mailbox: &[Entry]) -> i64 {
    i64::try_from(mailbox.len()).expect("a few")
}

fn count(sequence: i64) -> usize {
    usize::try_from(sequence).expect("not negative")
}
