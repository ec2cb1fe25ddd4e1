//! The messages of a conversation in their order, each once: those that are stored by their sequence,
//! then those that are on their way.

use std::collections::{BTreeMap, VecDeque};

use crate::client::{Message, OutgoingMessage, Page};

/// What is kept in memory of a conversation. Older messages are left to `peerpost inbox`.
const MESSAGES_MAX: usize = 10_000;
const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The most messages that wait to be sent.
pub(super) const UNSENT_MAX: usize = 200;

/// A place in the conversation: a sequence of the mailbox, and behind the message that has it the texts
/// that were refused after it.
pub(super) type Place = (i64, u64);

/// What stands behind everything that is stored.
const UNSENT: i64 = i64::MAX;

#[derive(Debug)]
pub(super) enum Item {
    /// A message that stands in the mailbox.
    Stored(Message),
    /// A text that the server refused, and why.
    Refused { text: String, reason: String },
    /// A text on its way.
    Unsent(String),
}

/// What is on its way, in the order in which it was typed.
#[derive(Debug)]
struct Unsent {
    place: Place,
    message: OutgoingMessage,
}

#[derive(Debug, Default)]
pub(super) struct Conversation {
    items: BTreeMap<Place, Item>,
    unsent: VecDeque<Unsent>,
    body_bytes: usize,
    next_ordinal: u64,
    /// Whether the mailbox holds older messages of it.
    pub(super) has_older: bool,
}

impl Conversation {
    /// A page of what came before everything that is here.
    pub(super) fn add_page(&mut self, page: Page) {
        self.has_older = page.has_more;
        page.messages.into_iter().for_each(|message| self.add(message));
    }

    /// A stored message. One that is here already, under its sequence or as one's own text on its way,
    /// stays here once.
    pub(super) fn add(&mut self, message: Message) {
        if let Some(request_id) = message.request_id.as_deref() {
            let sent = self.unsent.iter().position(|it| it.message.request_id() == request_id);
            if let Some(sent) = sent.and_then(|at| self.unsent.remove(at)) {
                self.items.remove(&sent.place);
            }
        }
        let bytes = message.body.as_bytes().len();
        if self.items.insert((message.sequence, 0), Item::Stored(message)).is_none() {
            self.body_bytes += bytes;
        }
        self.forget_oldest();
    }

    /// Puts a text at the end, to be sent; false when too many wait already.
    pub(super) fn add_unsent(&mut self, to_user: &str, text: String) -> bool {
        if self.unsent.len() >= UNSENT_MAX {
            return false;
        }
        let place = (UNSENT, self.ordinal());
        let message = OutgoingMessage::new(to_user, text.as_str());
        self.items.insert(place, Item::Unsent(text));
        self.unsent.push_back(Unsent { place, message });
        true
    }

    /// The message to send next: one at a time, so that they keep their order.
    pub(super) fn next_unsent(&self) -> Option<&OutgoingMessage> {
        self.unsent.front().map(|unsent| &unsent.message)
    }

    /// The server refuses this message for good. Its text stays, with the reason.
    pub(super) fn refuse(&mut self, request_id: &str, reason: String) {
        let refused = self.unsent.iter().position(|it| it.message.request_id() == request_id);
        if let Some(refused) = refused.and_then(|at| self.unsent.remove(at))
            && let Some(Item::Unsent(text)) = self.items.remove(&refused.place)
        {
            let place = (self.last_sequence(), self.ordinal());
            self.items.insert(place, Item::Refused { text, reason });
        }
    }

    pub(super) fn unsent_count(&self) -> usize {
        self.unsent.len()
    }

    /// What is on its way, with the request ids under which it would be stored once.
    pub(super) fn unsent(&self) -> impl Iterator<Item = (&str, &str)> {
        self.unsent.iter().filter_map(|unsent| match self.items.get(&unsent.place) {
            Some(Item::Unsent(text)) => Some((unsent.message.request_id(), text.as_str())),
            _ => None,
        })
    }

    /// The sequence of the oldest message that is here.
    pub(super) fn first_sequence(&self) -> Option<i64> {
        self.items.iter().find_map(|((sequence, _), item)| match item {
            Item::Stored(_) => Some(*sequence),
            _ => None,
        })
    }

    /// Whether another page of older messages may be kept.
    pub(super) fn is_full(&self) -> bool {
        self.items.len() >= MESSAGES_MAX / 2 || self.body_bytes >= BODY_BYTES_MAX / 2
    }

    /// The items from the last towards the first, from this place on.
    pub(super) fn backwards(&self, from: Option<Place>) -> impl Iterator<Item = (Place, &Item)> {
        let end = from.unwrap_or((UNSENT, u64::MAX));
        self.items.range(..=end).rev().map(|(place, item)| (*place, item))
    }

    /// The place behind this one.
    pub(super) fn after(&self, place: Place) -> Option<Place> {
        self.items.range(place..).map(|(other, _)| *other).find(|other| *other != place)
    }

    /// The stored message before this place.
    pub(super) fn stored_before(&self, place: Place) -> Option<&Message> {
        self.items.range(..place).rev().find_map(|(_, item)| match item {
            Item::Stored(message) => Some(message),
            _ => None,
        })
    }

    fn last_sequence(&self) -> i64 {
        let stored = self.items.range(..(UNSENT, 0)).next_back();
        stored.map_or(0, |((sequence, _), _)| *sequence)
    }

    fn ordinal(&mut self) -> u64 {
        self.next_ordinal += 1;
        self.next_ordinal
    }

    fn forget_oldest(&mut self) {
        while self.items.len() > MESSAGES_MAX || self.body_bytes > BODY_BYTES_MAX {
            match self.items.pop_first() {
                Some((_, Item::Stored(message))) => {
                    self.body_bytes -= message.body.as_bytes().len();
                    self.has_older = true;
                }
                Some((_, Item::Refused { .. })) => {}
                // Those that are on their way are few, and stand behind all others.
                Some((place, item @ Item::Unsent(_))) => {
                    self.items.insert(place, item);
                    break;
                }
                None => break,
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::client::Body;

    /// A message under this sequence, sent so many minutes after midnight of a day in 2026.
    pub(in crate::cli::chat) fn message(sequence: i64, from: &str, text: &str) -> Message {
        let minutes = u64::try_from(sequence).expect("a sequence");
        Message {
            message_id: format!("id-{sequence}"),
            sequence,
            from_user: from.to_owned(),
            to_user: if from == "bob" { "alice" } else { "bob" }.to_owned(),
            send_time: UNIX_EPOCH + Duration::from_secs(1_795_305_600 + 60 * minutes),
            body: Body::from(text),
            content_type: String::new(),
            request_id: None,
            expire_time: None,
        }
    }

    fn own(sequence: i64, text: &str, request_id: &str) -> Message {
        Message { request_id: Some(request_id.to_owned()), ..message(sequence, "alice", text) }
    }

    /// The texts in their order, with a mark for those that are not stored.
    fn texts(conversation: &Conversation) -> Vec<String> {
        let mut texts: Vec<_> = conversation
            .backwards(None)
            .map(|(_, item)| match item {
                Item::Stored(message) => message.body.as_text().expect("text").to_owned(),
                Item::Refused { text, .. } => format!("!{text}"),
                Item::Unsent(text) => format!("?{text}"),
            })
            .collect();
        texts.reverse();
        texts
    }

    fn next_id(conversation: &Conversation) -> String {
        conversation.next_unsent().expect("one waits").request_id().to_owned()
    }

    #[test]
    fn messages_stand_in_the_order_of_their_sequences_each_once() {
        let mut conversation = Conversation::default();
        for sequence in [5, 3, 5, 4, 3] {
            conversation.add(message(sequence, "bob", &sequence.to_string()));
        }
        assert_eq!(texts(&conversation), ["3", "4", "5"]);
        assert_eq!(conversation.body_bytes, 3);
    }

    #[test]
    fn what_was_sent_takes_its_place_once_by_whichever_way_it_is_known_first() {
        let mut conversation = Conversation::default();
        conversation.add(message(1, "bob", "hi"));
        assert!(conversation.add_unsent("bob", "one".into()));
        assert!(conversation.add_unsent("bob", "two".into()));
        assert_eq!(texts(&conversation), ["hi", "?one", "?two"]);
        let id = next_id(&conversation);
        conversation.add(message(2, "bob", "meanwhile"));
        conversation.add(own(3, "one", &id));
        assert_eq!(texts(&conversation), ["hi", "meanwhile", "one", "?two"]);
        // Its answer after its delivery, or the other way round.
        conversation.add(own(3, "one", &id));
        assert_eq!(texts(&conversation), ["hi", "meanwhile", "one", "?two"]);
        assert_eq!(conversation.unsent().map(|(_, text)| text).collect::<Vec<_>>(), ["two"]);
    }

    #[test]
    fn a_refused_text_stays_where_it_was_refused() {
        let mut conversation = Conversation::default();
        conversation.add(message(1, "bob", "hi"));
        conversation.add_unsent("bob", "bad".into());
        conversation.add_unsent("bob", "good".into());
        conversation.refuse(&next_id(&conversation), "too large".into());
        assert_eq!(texts(&conversation), ["hi", "!bad", "?good"]);
        conversation.add(own(2, "good", &next_id(&conversation)));
        conversation.add(message(3, "bob", "bye"));
        assert_eq!(texts(&conversation), ["hi", "!bad", "good", "bye"]);
        conversation.refuse("of nobody", "never seen".into());
        assert_eq!(conversation.unsent_count(), 0);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut conversation = Conversation::default();
        for _ in 0..UNSENT_MAX {
            assert!(conversation.add_unsent("bob", "x".into()));
        }
        assert!(!conversation.add_unsent("bob", "one too many".into()));
        for sequence in 1..=12_000 {
            conversation.add(message(sequence, "bob", "x"));
        }
        assert_eq!(conversation.items.len(), MESSAGES_MAX);
        assert_eq!(conversation.unsent_count(), UNSENT_MAX);
        assert_eq!(conversation.first_sequence(), Some(12_001 - 10_000 + 200));
        assert!(conversation.has_older && conversation.is_full());
        let large = "x".repeat(1024 * 1024);
        for sequence in 12_001..12_101 {
            conversation.add(message(sequence, "bob", &large));
        }
        assert!(conversation.body_bytes <= BODY_BYTES_MAX);
    }
}
