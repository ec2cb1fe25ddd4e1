//! What a history says about the mailboxes, put together once for all checkers.

use std::collections::HashMap;

use uuid::Uuid;

use super::History;
use super::record::{Digest, Entry, FollowNo, Moment, Send, SendNo, Told, UserNo};

/// What a history says about the mailboxes.
pub(super) struct Facts<'a> {
    pub(super) history: &'a History,
    /// The current epoch: the first that was named.
    pub(super) epoch: Digest,
    /// By user.
    logs: Vec<Log>,
    /// The sends that can have made an entry: who, to whom, what.
    attempts: HashMap<(UserNo, UserNo, u64), Vec<SendNo>>,
    /// When the message was first answered with OK, by its id.
    answered: HashMap<Uuid, Moment>,
}

/// One mailbox.
#[derive(Default)]
pub(super) struct Log {
    /// What stands under each sequence from 1, as far as anyone saw it. Where readers differ it is
    /// what the mailbox holds at the end, else what was recorded first.
    entries: Vec<Option<Entry>>,
    /// Whether it was read whole at the end.
    pub(super) is_whole: bool,
    places: HashMap<Uuid, i64>,
    /// It had at least so many entries from that moment on; both rise.
    had: Vec<(Moment, i64)>,
    /// It can have had so many from that moment on; both rise.
    can_have: Vec<(Moment, i64)>,
}

/// Where a reader saw an entry.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    AtEnd,
    Answer(SendNo),
    Page(u32),
    Event(FollowNo),
}

/// An entry as someone saw it.
#[derive(Clone, Copy)]
pub(super) struct Sighting<'a> {
    /// Whose mailbox it was in.
    pub(super) owner: UserNo,
    pub(super) entry: &'a Entry,
    pub(super) seen: Moment,
    pub(super) place: Place,
}

impl<'a> Facts<'a> {
    pub(super) fn of(history: &'a History) -> Self {
        let mut facts = Self {
            history,
            epoch: None,
            logs: history.names.iter().map(|_| Log::default()).collect(),
            attempts: HashMap::with_capacity(history.sends.len()),
            answered: HashMap::with_capacity(history.sends.len()),
        };
        for (number, send) in (0..).zip(&history.sends) {
            let asked = &send.asked;
            let key = (asked.from, asked.to, asked.content);
            facts.attempts.entry(key).or_default().push(SendNo(number));
            if let Some(entry) = send.outcome.ok() {
                let answered = facts.answered.entry(entry.id).or_insert(send.answered);
                *answered = send.answered.min(*answered);
            }
        }
        facts.collect_entries();
        facts.collect_ends();
        let epoch = facts.epochs().find_map(|(_, epoch)| epoch);
        facts.epoch = epoch;
        facts
    }

    fn collect_entries(&mut self) {
        for (owner, mailbox) in &self.history.mailboxes {
            let log = &mut self.logs[owner.0 as usize];
            log.is_whole = true;
            mailbox.iter().for_each(|entry| log.put(entry));
        }
        for sighting in sightings(self.history) {
            let log = &mut self.logs[sighting.owner.0 as usize];
            if !log.is_whole {
                log.put(sighting.entry);
            }
        }
    }

    /// When each mailbox had, and can have had, how many entries.
    fn collect_ends(&mut self) {
        let mut logs = std::mem::take(&mut self.logs);
        for sighting in sightings(self.history) {
            let log = &mut logs[sighting.owner.0 as usize];
            log.had.push((sighting.seen, sighting.entry.sequence));
        }
        for read in &self.history.reads {
            if let Some(page) = read.outcome.ok() {
                logs[read.asked.reader.0 as usize].had.push((read.answered, page.last));
            }
        }
        for follow in &self.history.follows {
            let log = &mut logs[follow.reader.0 as usize];
            log.had.extend(follow.told.iter().filter_map(|(at, told)| match told {
                Told::Started { last: through, .. }
                | Told::CaughtUp(through)
                | Told::Heartbeat(through) => Some((*at, *through)),
                Told::Message(_) => None,
            }));
        }
        for (send, entry) in self.history.sends.iter().filter_map(|it| Some((it, it.outcome.ok()?)))
        {
            // The answer names the sender's entry only; the receiver's is found by the message.
            let log = &mut logs[send.asked.to.0 as usize];
            if let Some(sequence) = log.places.get(&entry.id) {
                log.had.push((send.answered, *sequence));
            }
        }
        for log in &mut logs {
            rise(&mut log.had);
            let born = log.entries.iter().flatten().map(|it| (self.born(it), it.sequence));
            log.can_have = born.collect();
            rise(&mut log.can_have);
        }
        self.logs = logs;
    }

    /// A user's mailbox.
    pub(super) fn log(&self, owner: UserNo) -> &Log {
        &self.logs[owner.0 as usize]
    }

    /// Every mailbox that was read whole at the end.
    pub(super) fn whole_logs(&self) -> impl Iterator<Item = (UserNo, &Log)> {
        (0..).map(UserNo).zip(&self.logs).filter(|(_, log)| log.is_whole)
    }

    /// The sends that can have made an entry.
    pub(super) fn attempts(&self, entry: &Entry) -> &[SendNo] {
        let key = (entry.from, entry.to, entry.content);
        self.attempts.get(&key).map_or(&[], Vec::as_slice)
    }

    /// Before this moment the entry cannot have been there: nobody had sent it.
    pub(super) fn born(&self, entry: &Entry) -> Moment {
        let called = self.attempts(entry).iter().map(|send| self.send(*send).called);
        called.min().unwrap_or_default()
    }

    /// When a sender was first told that the message is stored.
    pub(super) fn answered(&self, entry: &Entry) -> Moment {
        self.answered.get(&entry.id).copied().unwrap_or(Moment::NEVER)
    }

    pub(super) fn send(&self, send: SendNo) -> &'a Send {
        &self.history.sends[send.0 as usize]
    }

    /// Every epoch that an answer named, and whose.
    pub(super) fn epochs(&self) -> impl Iterator<Item = (UserNo, Digest)> {
        let read = self.history.reads.iter().filter_map(|read| {
            Some((read.asked.reader, read.outcome.ok()?.epoch))
        });
        let told = self.history.follows.iter().flat_map(|follow| {
            follow.told.iter().filter_map(|(_, told)| match told {
                Told::Started { epoch, .. } => Some((follow.reader, *epoch)),
                _ => None,
            })
        });
        read.chain(told)
    }
}

impl Log {
    fn put(&mut self, entry: &Entry) {
        // What has no place in any mailbox is told by the checkers, who look at the sightings.
        const SEQUENCE_MAX: i64 = 100_000_000;
        if !(1..=SEQUENCE_MAX).contains(&entry.sequence) {
            return;
        }
        let at = usize::try_from(entry.sequence - 1).unwrap_or_default();
        if self.entries.len() <= at {
            self.entries.resize(at + 1, None);
        }
        self.entries[at].get_or_insert(*entry);
        self.places.entry(entry.id).or_insert(entry.sequence);
    }

    /// What stands under a sequence, if anyone saw it.
    pub(super) fn get(&self, sequence: i64) -> Option<&Entry> {
        let at = usize::try_from(sequence.checked_sub(1)?).ok()?;
        self.entries.get(at)?.as_ref()
    }

    /// Where a message stands, if anyone saw it here.
    pub(super) fn place(&self, id: Uuid) -> Option<i64> {
        self.places.get(&id).copied()
    }

    /// The highest sequence that anyone saw.
    pub(super) fn last(&self) -> i64 {
        i64::try_from(self.entries.len()).unwrap_or(i64::MAX)
    }

    /// What is known to stand between two sequences, the second included.
    pub(super) fn range(&self, after: i64, through: i64) -> impl Iterator<Item = &Entry> {
        let at = |sequence: i64| {
            usize::try_from(sequence.max(0)).unwrap_or(usize::MAX).min(self.entries.len())
        };
        let (begin, end) = (at(after), at(through));
        self.entries[begin..end.max(begin)].iter().flatten()
    }

    /// The mailbox had at least so many entries when `moment` came.
    pub(super) fn had_before(&self, moment: Moment) -> i64 {
        last_before(&self.had, moment)
    }

    /// The mailbox can have had no more entries than this at `moment`.
    pub(super) fn can_have_at(&self, moment: Moment) -> i64 {
        if self.is_whole { last_before(&self.can_have, moment) } else { i64::MAX }
    }
}

/// Orders points by time and leaves those that rise.
fn rise(points: &mut Vec<(Moment, i64)>) {
    points.sort_unstable();
    let mut highest = 0;
    points.retain(|(_, sequence)| {
        let rises = *sequence > highest;
        highest = highest.max(*sequence);
        rises
    });
}

fn last_before(points: &[(Moment, i64)], moment: Moment) -> i64 {
    let count = points.partition_point(|(at, _)| *at < moment);
    count.checked_sub(1).map_or(0, |last| points[last].1)
}

/// Every entry that anyone saw, except in the last reading.
pub(super) fn sightings(history: &History) -> impl Iterator<Item = Sighting<'_>> {
    let answers = (0..).zip(&history.sends).filter_map(|(number, send)| {
        let place = Place::Answer(SendNo(number));
        Some(Sighting {
            owner: send.asked.from,
            entry: send.outcome.ok()?,
            seen: send.answered,
            place,
        })
    });
    let pages = (0..).zip(&history.reads).flat_map(|(number, read)| {
        let entries = read.outcome.ok().into_iter().flat_map(|page| &page.entries);
        let (owner, seen, place) = (read.asked.reader, read.answered, Place::Page(number));
        entries.map(move |entry| Sighting { owner, entry, seen, place })
    });
    let events = (0..).zip(&history.follows).flat_map(|(number, follow)| {
        let place = Place::Event(FollowNo(number));
        follow.told.iter().filter_map(move |(seen, told)| match told {
            Told::Message(entry) => {
                Some(Sighting { owner: follow.reader, entry, seen: *seen, place })
            }
            _ => None,
        })
    });
    answers.chain(pages).chain(events)
}
