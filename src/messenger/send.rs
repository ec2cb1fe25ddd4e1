use super::{Messenger, MessengerError, Role};
use crate::domain::{Content, RequestId, User, Username};
use crate::store::{Draft, PendingMessage};

/// A message as its sender hands it in.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Whom it is for.
    pub to: Username,
    /// What it says.
    pub content: Content,
    /// The sender's idempotency key.
    pub request_id: Option<RequestId>,
}

impl Messenger {
    /// Accepts a message from `sender`. Those accepted one after the other keep their order. It is
    /// on disk when the returned message is [committed](PendingMessage::committed).
    ///
    /// # Errors
    /// [`MessengerError::NoSuchUser`] for an unknown recipient, or the store's.
    pub async fn accept(
        &self,
        sender: &User,
        outgoing: Outgoing,
    ) -> Result<PendingMessage, MessengerError> {
        let Outgoing { to, content, request_id } = outgoing;
        let receiver = self.store.find_user(&to).await?;
        let receiver =
            receiver.ok_or(MessengerError::NoSuchUser { name: to, role: Role::Recipient })?;
        let draft = Draft { sender: sender.clone(), receiver, content, request_id };
        Ok(self.store.append(draft).await?)
    }
}
