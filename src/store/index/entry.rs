//! What the indexes are made of: where a message of the log stands in the mailboxes.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::domain::{Message, RequestId, UserId};

/// Where one message stands: under which sequences, in whose mailboxes, under which request key. A sequence
/// of 0: the mailbox has lost the entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Placement {
    pub(in crate::store) sender: UserId,
    pub(in crate::store) sender_sequence: i64,
    pub(in crate::store) receiver: UserId,
    pub(in crate::store) receiver_sequence: i64,
    pub(in crate::store) request_key: Option<RequestKey>,
}

/// An entry of one mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Entry {
    pub(in crate::store) sequence: i64,
    /// The message's place in the log.
    pub(in crate::store) position: i64,
    /// Whether the owner received it; a note to self is received.
    pub(in crate::store) received: bool,
    /// The other user; the owner for a note to self.
    pub(in crate::store) peer: UserId,
}

/// Which entries of a mailbox are wanted.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Filter {
    /// Only the conversation with this user.
    pub(in crate::store) peer: Option<UserId>,
    /// Only what the owner received.
    pub(in crate::store) received_only: bool,
}

/// Stands for a sender's request id in the index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::store) struct RequestKey(pub(in crate::store) i64);

/// Makes request keys of one database.
#[derive(Clone)]
pub(in crate::store) struct RequestKeys {
    salt: [u8; SALT_BYTES],
}

/// Enough that no two bodies have the same.
pub(super) const BODY_DIGEST_BYTES: usize = 16;

/// Enough that nobody guesses it.
pub(in crate::store) const SALT_BYTES: usize = 16;

impl Placement {
    /// Of a message that was removed: nobody's mailbox has it.
    pub(super) const REMOVED: Self = Self {
        sender: UserId(0),
        sender_sequence: 0,
        receiver: UserId(0),
        receiver_sequence: 0,
        request_key: None,
    };

    pub(in crate::store) fn of(message: &Message, request_key: Option<RequestKey>) -> Self {
        Self {
            sender: message.sender.id,
            sender_sequence: message.sender_sequence.get(),
            receiver: message.receiver.id,
            receiver_sequence: message.receiver_sequence.get(),
            request_key,
        }
    }

    /// The entry in each mailbox that the message enters and that has not lost it: two, or one for a note to
    /// self.
    pub(in crate::store) fn entries(
        &self,
        position: i64,
    ) -> impl Iterator<Item = (UserId, Entry)> + use<> {
        let entry = |sequence, received, peer| Entry { sequence, position, received, peer };
        let received = (self.receiver, entry(self.receiver_sequence, true, self.sender));
        let sent = (self.sender, entry(self.sender_sequence, false, self.receiver));
        let is_note = self.sender == self.receiver;
        let entries = std::iter::once(received).chain((!is_note).then_some(sent));
        entries.filter(|(_, entry)| entry.sequence != 0)
    }
}

impl Filter {
    /// Every entry.
    pub(in crate::store) const ALL: Self = Self { peer: None, received_only: false };

    pub(super) fn admits(self, entry: &Entry) -> bool {
        self.peer.is_none_or(|peer| entry.peer == peer) && (entry.received || !self.received_only)
    }
}

impl RequestKey {
    /// Which of `shards` equal parts of all keys it is in: by its high bits, so that the shards in turn
    /// are the keys in order.
    pub(super) fn shard(self, shards: usize) -> usize {
        let above_zero = self.0.cast_unsigned() ^ (1 << 63);
        let scaled = u128::from(above_zero) * shards as u128;
        usize::try_from(scaled >> u64::BITS).unwrap_or(0)
    }
}

impl RequestKeys {
    pub(super) fn new(salt: [u8; SALT_BYTES]) -> Self {
        Self { salt }
    }

    /// The key of `sender`'s `request_id`. Two may share one, by chance: who looks a key up compares
    /// the log's row.
    ///
    /// A cryptographic hash with a secret salt, so that no sender can choose ids that collide.
    pub(in crate::store) fn key(&self, sender: UserId, request_id: &RequestId) -> RequestKey {
        let mut hash = Sha256::new();
        hash.update(self.salt);
        hash.update(sender.0.to_le_bytes());
        hash.update(request_id.as_str());
        let mut first = [0; 8];
        first.copy_from_slice(&hash.finalize()[..8]);
        RequestKey(i64::from_le_bytes(first))
    }
}

impl RequestKeys {
    /// Stands for a body that is erased. With the secret salt, so that nobody who is given it could try which
    /// short body it is of.
    pub(in crate::store) fn body_digest(
        &self,
        position: i64,
        body: &[u8],
    ) -> [u8; BODY_DIGEST_BYTES] {
        let mut hash = Sha256::new();
        hash.update(self.salt);
        hash.update(position.to_le_bytes());
        hash.update(body);
        let mut first = [0; BODY_DIGEST_BYTES];
        first.copy_from_slice(&hash.finalize()[..BODY_DIGEST_BYTES]);
        first
    }
}

/// With its key a request id could be guessed by trying.
impl fmt::Debug for RequestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_key_is_of_one_database_one_sender_and_one_id() {
        let id = |text: &str| RequestId::parse(text.into()).expect("valid").expect("one");
        let (keys, others) = (RequestKeys::new([1; 16]), RequestKeys::new([2; 16]));
        let key = keys.key(UserId(1), &id("one"));
        assert_eq!(key, keys.key(UserId(1), &id("one")));
        assert_ne!(key, keys.key(UserId(2), &id("one")));
        assert_ne!(key, keys.key(UserId(1), &id("two")));
        assert_ne!(key, others.key(UserId(1), &id("one")));
        let stored = RequestKeys::new([0; 16]).key(UserId(7), &id("retry-1"));
        assert_eq!(stored.0, -2_852_376_502_004_922_071, "the file format");
    }

    #[test]
    fn a_note_to_self_is_one_entry_that_was_received() {
        let (alice, bob) = (UserId(1), UserId(2));
        let placement = |receiver| Placement {
            sender: alice,
            sender_sequence: 3,
            receiver,
            receiver_sequence: 3,
            request_key: None,
        };
        let note: Vec<_> = placement(alice).entries(9).collect();
        let entry = |received, peer| Entry { sequence: 3, position: 9, received, peer };
        assert_eq!(note, [(alice, entry(true, alice))]);
        let message: Vec<_> = placement(bob).entries(9).collect();
        assert_eq!(message, [(bob, entry(true, alice)), (alice, entry(false, bob))]);
    }
}
