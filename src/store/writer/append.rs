use std::sync::Arc;

use diesel::prelude::*;
use tracing::error;

use super::{Transaction, Write};
use crate::domain::{
    Content, Expiry, Message, MessageExpiry, MessageId, RequestId, User, Username,
};
use crate::store::error::unless_damaged;
use crate::store::index::Placement;
use crate::store::{StoreError, log, removed};

/// A message to be appended.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Who sends it.
    pub sender: User,
    /// Whom it is for.
    pub receiver: Receiver,
    /// What it says.
    pub content: Content,
    /// The sender's idempotency key.
    pub request_id: Option<RequestId>,
    /// When its body goes, if it is to.
    pub expiry: Option<Expiry>,
}

/// Whom a message is for.
#[derive(Debug, Clone)]
pub enum Receiver {
    /// A user.
    User(User),
    /// Whoever has this name when the message is written: the writer looks them up along with all
    /// else, which costs less than a read of its own.
    Named(Username),
}

impl From<User> for Receiver {
    fn from(user: User) -> Self {
        Self::User(user)
    }
}

impl Write for Draft {
    type Output = Arc<Message>;

    fn body_bytes(&self) -> usize {
        self.content.body.as_bytes().len()
    }

    fn apply(
        &mut self,
        transaction: &mut Transaction<'_>,
    ) -> QueryResult<Result<Arc<Message>, StoreError>> {
        if transaction.index.is_full() {
            return Ok(Err(StoreError::Damaged { sequence: None }));
        }
        let receiver = match &self.receiver {
            Receiver::User(user) if transaction.directory.is_gone(user.id) => {
                return Ok(Err(StoreError::NoSuchReceiver(user.name.clone())));
            }
            Receiver::User(user) => user.clone(),
            Receiver::Named(name) => {
                match transaction.directory.by_name(transaction.connection, name)? {
                    Some(user) => user,
                    None => return Ok(Err(StoreError::NoSuchReceiver(name.clone()))),
                }
            }
        };
        let mut request_key = None;
        if let Some(request_id) = &self.request_id {
            let key = transaction.index.index().request_key(self.sender.id, request_id);
            request_key = Some(key);
            for position in transaction.index.rows_of_request(transaction.connection, key)? {
                if let Some(outcome) =
                    self.repeated(transaction, &receiver, request_id, position)?
                {
                    return Ok(outcome);
                }
            }
        }
        let expire_time = self.expiry.map(|expiry| expiry.time(transaction.now));
        if expire_time.is_some_and(|time| time <= transaction.now) {
            return Ok(Err(StoreError::Expired));
        }
        if transaction.sizes.are_bounded()
            && let Err(full) = self.admit(transaction, &receiver)?
        {
            return Ok(Err(full));
        }
        let message = Arc::new(self.number(transaction, receiver)?);
        transaction.sizes.add(message.receiver.id, message.receiver_sequence, self.body_bytes());
        if message.sender.id != message.receiver.id {
            transaction.sizes.add(message.sender.id, message.sender_sequence, self.body_bytes());
        }
        let position = transaction.sequences.next_position(transaction.connection)?;
        log::append(transaction.connection, position, &message)?;
        transaction.index.add(Placement::of(&message, request_key));
        transaction.appended.push(Arc::clone(&message));
        Ok(Ok(message))
    }
}

impl Draft {
    /// Whether both mailboxes have room.
    fn admit(
        &self,
        transaction: &mut Transaction<'_>,
        receiver: &User,
    ) -> QueryResult<Result<(), StoreError>> {
        let Transaction { connection, sequences, sizes, index, metrics, .. } = transaction;
        let owners = [receiver, &self.sender];
        let owners = if receiver.id == self.sender.id { &owners[..1] } else { &owners[..] };
        for owner in owners {
            let ends = (index.index(), &mut **sequences);
            let admitted = sizes.admit(connection, ends, owner, self.body_bytes())?;
            if let Err((limit, value)) = admitted {
                metrics.mailbox_full(limit);
                let owner = owner.name.clone();
                return Ok(Err(StoreError::MailboxFull { owner, limit, value }));
            }
        }
        Ok(Ok(()))
    }

    /// The message with its place in both mailboxes.
    fn number(&self, transaction: &mut Transaction<'_>, receiver: User) -> QueryResult<Message> {
        let Transaction { connection, sequences, index, .. } = transaction;
        let receiver_sequence = sequences.next(connection, index.index(), receiver.id)?;
        let sender_sequence = if self.sender.id == receiver.id {
            receiver_sequence
        } else {
            sequences.next(connection, index.index(), self.sender.id)?
        };
        Ok(Message {
            id: MessageId::mint(),
            sender: self.sender.clone(),
            receiver,
            sender_sequence,
            receiver_sequence,
            send_time: transaction.now,
            content: self.content.clone(),
            request_id: self.request_id.clone(),
            expiry: self.expiry.map(|expiry| MessageExpiry {
                time: expiry.time(transaction.now),
                is_erased: false,
            }),
        })
    }

    /// The index names the message at `position` for this request id's key: it is the answer, if it
    /// says the same. `None`: it has another request id, whose key is the same by chance, or was removed.
    fn repeated(
        &self,
        transaction: &mut Transaction<'_>,
        receiver: &User,
        request_id: &RequestId,
        position: i64,
    ) -> QueryResult<Option<Result<Arc<Message>, StoreError>>> {
        // A row that is not whole, or not the right one, does not tell the entry's sequence.
        let damaged = || {
            error!(position, sender = self.sender.id.0, "the message of a request_id is damaged");
            StoreError::Damaged { sequence: None }
        };
        let row = unless_damaged(log::row(transaction.connection, position))?;
        let Some(row) = row.flatten() else {
            // A request id is remembered for as long as its message is kept.
            let is_removed = unless_damaged(removed::contains(transaction.connection, position))?;
            return Ok(if is_removed == Some(true) { None } else { Some(Err(damaged())) });
        };
        let has_body = row.has_body(&self.content.body, transaction.index.index().keys());
        let mut names = log::Names::new(transaction.directory);
        let message = row.into_message(transaction.connection, &mut names)?;
        let Ok(earlier) = message else {
            return Ok(Some(Err(damaged())));
        };
        // The index is not checksummed; the row says whose message it is.
        let is_of_this_key =
            earlier.sender.id == self.sender.id && earlier.request_id.as_ref() == Some(request_id);
        if !is_of_this_key {
            let index = transaction.index.index();
            let key = |sender, id| index.request_key(sender, id);
            let earlier_key = earlier.request_id.as_ref().map(|id| key(earlier.sender.id, id));
            let is_by_chance = earlier_key == Some(key(self.sender.id, request_id));
            return Ok(if is_by_chance { None } else { Some(Err(damaged())) });
        }
        let expire_time = self.expiry.map(|expiry| expiry.time(earlier.send_time));
        let is_same = earlier.receiver.id == receiver.id
            && has_body
            && earlier.content.content_type == self.content.content_type
            && earlier.expiry.map(|expiry| expiry.time) == expire_time;
        Ok(Some(if is_same {
            Ok(Arc::new(earlier))
        } else {
            Err(StoreError::RequestIdReused(request_id.clone()))
        }))
    }
}
