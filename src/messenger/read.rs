use super::follow::before_first;
use super::{Cursor, Messenger, MessengerError, Role};
use crate::domain::limits::PAGE_BYTES_MAX;
use crate::domain::{Epoch, MailboxRange, Message, Sequence, User, Username};
use crate::store::{BeyondMailbox, Page, PageQuery, PageStart};

/// A page that its owner asks for.
#[derive(Debug, Clone)]
pub struct PageRequest {
    /// From where, and in which direction. Before 0 is before the end; `None` is from the beginning of what
    /// the mailbox still has.
    pub start: Option<PageStart>,
    /// The epoch of the cursor, if it is to be checked.
    pub epoch: Option<Epoch>,
    /// Only the conversation with this user.
    pub peer: Option<Username>,
    /// Only what the owner received.
    pub received_only: bool,
    /// The most messages.
    pub page_size: usize,
}

/// A page of a mailbox.
#[derive(Debug)]
pub struct MessagePage {
    /// In ascending order of sequence.
    pub messages: Vec<Message>,
    /// Whether more match in the direction of the page.
    pub has_more: bool,
    /// What the mailbox held when the page was read.
    pub range: MailboxRange,
}

impl Messenger {
    /// Reads a page of `owner`'s mailbox.
    ///
    /// # Errors
    /// [`MessengerError`]: the cursor, the epoch, the peer, or the store's.
    pub async fn read(
        &self,
        owner: &User,
        request: PageRequest,
    ) -> Result<MessagePage, MessengerError> {
        self.check_epoch(request.epoch.as_ref())?;
        let peer = match request.peer {
            Some(name) => {
                let peer = self.store.find_user(&name).await?;
                Some(peer.ok_or(MessengerError::NoSuchUser { name, role: Role::Peer })?.id)
            }
            None => None,
        };
        let query = PageQuery {
            owner: owner.id,
            start: match request.start {
                None => PageStart::After(Sequence::ZERO),
                Some(PageStart::Before(Sequence::ZERO)) => PageStart::Before(Sequence::MAX),
                Some(start) => start,
            },
            peer,
            received_only: request.received_only,
            messages_max: request.page_size,
            bytes_max: PAGE_BYTES_MAX,
        };
        let page = match request.start {
            Some(start) => {
                let page = self.store.page(query).await?;
                check_cursor(start, &page.range)?;
                page
            }
            None => self.first_page(query).await?,
        };
        Ok(MessagePage { messages: page.messages, has_more: page.has_more, range: page.range })
    }

    /// The page at the mailbox's beginning, which may move meanwhile.
    async fn first_page(&self, mut query: PageQuery) -> Result<Page, MessengerError> {
        loop {
            let page = self.store.page(query).await?;
            let begin = before_first(&page.range);
            match query.start {
                PageStart::After(after) if after < begin => query.start = PageStart::After(begin),
                _ => return Ok(page),
            }
        }
    }

    /// Acknowledges everything up to `through`, and says where the acknowledgement stands.
    ///
    /// # Errors
    /// [`MessengerError`]: the sequence, the epoch, or the store's.
    pub async fn acknowledge(
        &self,
        owner: &User,
        through: Sequence,
        epoch: Option<&Epoch>,
    ) -> Result<Sequence, MessengerError> {
        self.check_epoch(epoch)?;
        let acknowledged = self.store.acknowledge(owner.id, through).await?;
        acknowledged.map_err(|BeyondMailbox { range }| MessengerError::OutOfRange {
            cursor: Cursor::Through,
            asked: through,
            min: Sequence::ZERO,
            max: range.last,
        })
    }
}

/// A cursor must lie in the mailbox as the page's snapshot saw it.
fn check_cursor(start: PageStart, range: &MailboxRange) -> Result<(), MessengerError> {
    match start {
        PageStart::After(after) => MessengerError::check_after(Cursor::After, after, range),
        // 0 is accepted: before the end.
        PageStart::Before(Sequence::ZERO) => Ok(()),
        PageStart::Before(before) => {
            let is_whole = range.first == Sequence::FIRST;
            let min = if is_whole { Sequence::ZERO } else { range.first };
            MessengerError::check(Cursor::Before, before, min, range.last.next())
        }
    }
}
