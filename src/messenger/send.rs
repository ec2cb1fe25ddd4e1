use super::{Messenger, MessengerError};
use crate::domain::{Content, Expiry, RequestId, User, Username};
use crate::store::{Draft, PendingMessage, Receiver};

/// A message as its sender hands it in.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Whom it is for.
    pub to: Username,
    /// What it says.
    pub content: Content,
    /// The sender's idempotency key.
    pub request_id: Option<RequestId>,
    /// When its body goes, if it is to.
    pub expiry: Option<Expiry>,
}

impl Messenger {
    /// Accepts a message from `sender`. Those accepted one after the other keep their order. It is
    /// on disk when the returned message is [committed](PendingMessage::committed).
    ///
    /// # Errors
    /// [`MessengerError::SendRate`], or the store's. That there is no such recipient is found out when it
    /// is written.
    pub async fn accept(
        &self,
        sender: &User,
        outgoing: Outgoing,
    ) -> Result<PendingMessage, MessengerError> {
        self.limiter.admit_send(sender.id).map_err(MessengerError::SendRate)?;
        let Outgoing { to, content, request_id, expiry } = outgoing;
        let receiver = match self.store.remembered_user(&to) {
            Some(user) => Receiver::User(user),
            None => Receiver::Named(to),
        };
        let draft = Draft { sender: sender.clone(), receiver, content, request_id, expiry };
        Ok(self.store.append(draft).await?)
    }
}
