//! Reading everything that a server on damaged files serves, and holding it against what was
//! acknowledged.

use std::net::SocketAddr;

use peerpost::proto::{ErrorReason, GetMessagesRequest, Message, SendMessageRequest};
use peerpost::testing::{Event, Refusal, TestUser, after, before};
use tonic::Status;

use crate::support::subscribe_after;

/// Damaged entries that one reader goes past before it leaves the rest.
const DAMAGES_PASSED_MAX: usize = 3;

/// A user and all that their mailbox holds.
pub(crate) struct Owner {
    pub(crate) user: TestUser,
    pub(crate) mailbox: Vec<Message>,
    /// For each entry of the mailbox how many messages were acknowledged before it, by anyone.
    pub(crate) places: Vec<usize>,
    /// Requests of all times, and what they were answered with.
    pub(crate) requests: Vec<(SendMessageRequest, Message)>,
}

/// What may differ from what was acknowledged.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Allowed {
    /// The last commits may be gone: what is served is as it was before them.
    pub(crate) prefix: bool,
    /// What `docs/GUARANTEES.md` says is not checked.
    pub(crate) gap: Option<Gap>,
}

/// Rows without a checksum, and what damage of them can do unseen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gap {
    /// A message is shown with another name.
    Names,
    /// A page with a peer leaves out messages.
    Peers,
    /// A repeated request is stored again.
    Requests,
}

/// What reading came to.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// Reads that were refused.
    pub(crate) refused: usize,
    /// What was served otherwise through the gap that is allowed.
    pub(crate) through_gap: usize,
    /// Messages that are gone, where that is allowed.
    pub(crate) gone: usize,
    /// What is served and wrong.
    pub(crate) wrong: Vec<String>,
}

/// Reads every mailbox in every way, and repeats requests.
pub(crate) async fn read_everything(
    owners: &[Owner],
    addr: SocketAddr,
    allowed: Allowed,
) -> Reading {
    let mut reading = Reading::default();
    let mut ends = Vec::new();
    for (number, owner) in owners.iter().enumerate() {
        let peer = &owners[(number + 1) % owners.len()].user.name;
        let user = owner.user.at(addr);
        let mut reader =
            Reader { owner, user, allowed, peer: "", end: None, reading: &mut reading };
        reader.pages(false).await;
        reader.pages(true).await;
        reader.stream().await;
        reader.peer = peer;
        reader.pages(false).await;
        reader.pages(true).await;
        ends.push(reader.end);
    }
    reading.judge_ends(owners, &ends);
    // Of those whose mailbox could be read at all.
    for (owner, end) in owners.iter().zip(&ends).filter(|(_, end)| end.is_some()) {
        let user = owner.user.at(addr);
        for (request, first) in &owner.requests {
            match user.try_send(request.clone()).await {
                Err(status) => reading.refusal(&status),
                Ok(message) if end.is_some_and(|end| first.sequence > end) => {
                    // It was among what is gone, and is stored now.
                    reading.stored_again(&message, *end);
                }
                Ok(message) if allowed.gap == Some(Gap::Requests) && message != *first => {
                    reading.stored_again(&message, *end);
                    reading.through_gap += 1;
                }
                Ok(message) => reading.compare(&message, first, allowed),
            }
        }
    }
    reading
}

/// Reads one mailbox.
struct Reader<'a> {
    owner: &'a Owner,
    user: TestUser,
    allowed: Allowed,
    /// Only the conversation with this user, unless empty.
    peer: &'a str,
    /// Where the mailbox ends, as the server says.
    end: Option<i64>,
    reading: &'a mut Reading,
}

impl Reader<'_> {
    /// Reads page after page, from either end, and goes on after a damaged entry.
    async fn pages(&mut self, backwards: bool) {
        let (mut cursor, mut passed) = (0, 0);
        while passed < DAMAGES_PASSED_MAX {
            let next = self.page(backwards, cursor).await;
            let is_ahead = |it: i64| cursor == 0 || it != cursor && (it < cursor) == backwards;
            match next {
                Ok(Some(next)) => cursor = next,
                Err(Some(sequence)) if is_ahead(sequence) => {
                    (cursor, passed) = (sequence, passed + 1);
                }
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Reads a page. The next cursor if there is more, or the damaged entry as far as it is known.
    async fn page(&mut self, backwards: bool, cursor: i64) -> Result<Option<i64>, Option<i64>> {
        let request = if backwards { before(cursor) } else { after(cursor) };
        let request = GetMessagesRequest { page_size: 1000, peer: self.peer.to_owned(), ..request };
        let is_of_page = |it: &Message| {
            if backwards { cursor == 0 || it.sequence < cursor } else { it.sequence > cursor }
        };
        let mut page = self.user.get(request).await.map_err(|status| self.refusal(&status))?;
        self.ends_at(page.last_sequence);
        let is_expected = |it: &&Message| {
            let is_of_peer = [&it.from_user, &it.to_user].iter().any(|name| **name == self.peer);
            is_of_page(it)
                && it.sequence <= page.last_sequence
                && (self.peer.is_empty() || is_of_peer)
        };
        let mut expected: Vec<_> = self.owner.mailbox.iter().filter(is_expected).collect();
        if self.allowed.gap == Some(Gap::Peers) && !self.peer.is_empty() {
            let before = expected.len();
            expected.retain(|it| page.messages.iter().any(|served| served.sequence == it.sequence));
            self.reading.through_gap += if page.has_more { 0 } else { before - expected.len() };
        }
        if backwards {
            expected.reverse();
            page.messages.reverse();
        }
        self.messages(&page.messages, &expected, page.has_more);
        Ok(page.messages.last().filter(|_| page.has_more).map(|last| last.sequence))
    }

    async fn stream(&mut self) {
        let mut stream = match self.user.subscribe(subscribe_after(0)).await {
            Ok(stream) => stream,
            Err(status) => {
                self.refusal(&status);
                return;
            }
        };
        self.ends_at(stream.started().last_sequence);
        let last = stream.started().last_sequence;
        let mut messages = Vec::new();
        let is_cut = loop {
            match stream.next().await {
                Ok(Event::Message(message)) => messages.push(message),
                Ok(_) => break false,
                Err(status) => {
                    self.refusal(&status);
                    break true;
                }
            }
        };
        let expected: Vec<_> = self.owner.mailbox.iter().filter(|it| it.sequence <= last).collect();
        self.messages(&messages, &expected, is_cut);
    }

    /// What was served must be the beginning of what is expected, and all of it unless it says that
    /// there is more.
    fn messages(&mut self, served: &[Message], expected: &[&Message], has_more: bool) {
        if served.len() > expected.len() || (served.len() < expected.len() && !has_more) {
            let (served, expected) = (served.len(), expected.len());
            self.wrong(&format!("{served} messages were served, {expected} expected"));
        }
        if has_more && served.is_empty() && !expected.is_empty() && self.reading.refused == 0 {
            self.wrong("an empty page says that there is more");
        }
        for (served, expected) in served.iter().zip(expected) {
            self.reading.compare(served, expected, self.allowed);
        }
    }

    /// The server says that the mailbox ends here.
    fn ends_at(&mut self, last: i64) {
        let whole = self.owner.mailbox.last().map_or(0, |last| last.sequence);
        if last != whole && !self.allowed.prefix || last > whole {
            self.wrong(&format!("it ends at {last}, not at {whole}"));
        }
        if self.end.is_some_and(|end| end != last) {
            self.wrong(&format!("it ends at {last}, and at {:?}", self.end));
        }
        self.end = Some(last);
    }

    fn refusal(&mut self, status: &Status) -> Option<i64> {
        self.reading.refusal(status);
        Refusal::of(status).metadata.get("sequence").and_then(|sequence| sequence.parse().ok())
    }

    fn wrong(&mut self, what: &str) {
        let (name, peer) = (&self.owner.user.name, self.peer);
        self.reading.wrong.push(format!("mailbox of {name}, peer {peer:?}: {what}"));
    }
}

impl Reading {
    fn compare(&mut self, served: &Message, expected: &Message, allowed: Allowed) {
        if served == expected {
            return;
        }
        let named = Message {
            from_user: expected.from_user.clone(),
            to_user: expected.to_user.clone(),
            ..served.clone()
        };
        if allowed.gap == Some(Gap::Names) && named == *expected {
            self.through_gap += 1;
        } else {
            self.wrong.push(format!("{served:?} was served for {expected:?}"));
        }
    }

    /// A request that was not found: its message takes nobody's place.
    fn stored_again(&mut self, message: &Message, end: Option<i64>) {
        if Some(message.sequence) <= end {
            self.wrong.push(format!("{message:?} took the place of another"));
        }
    }

    fn refusal(&mut self, status: &Status) {
        self.refused += 1;
        let refusal = Refusal::of(status);
        let is_clear = matches!(
            refusal.reason,
            ErrorReason::StoredDataDamaged
                | ErrorReason::StorageFailing
                | ErrorReason::TokenUnknown
                | ErrorReason::UserNotFound
        );
        if !is_clear {
            self.wrong.push(format!("refused with {refusal:?}"));
        }
    }

    /// What is gone must be what was acknowledged last: over all mailboxes together.
    fn judge_ends(&mut self, owners: &[Owner], ends: &[Option<i64>]) {
        let (mut last_there, mut first_gone) = (None, None);
        for (owner, end) in owners.iter().zip(ends) {
            let Some(end) = end.and_then(|end| usize::try_from(end).ok()) else { continue };
            let (there, gone) = owner.places.split_at(end.min(owner.places.len()));
            last_there = last_there.max(there.last());
            first_gone = [first_gone, gone.first()].into_iter().flatten().min();
            self.gone += gone.len();
        }
        if let (Some(there), Some(gone)) = (last_there, first_gone)
            && there > gone
        {
            self.wrong.push(format!("message {gone} is gone, and message {there} is there"));
        }
    }
}
