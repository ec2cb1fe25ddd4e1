//! An order desk on peerpost: customers write it what they want, and it answers each order exactly once.
//!
//! Two habits make it so, whatever crashes and whenever:
//!
//! - It keeps a **cursor** in a file, moved on after an order was answered. What it had answered and not
//!   noted comes again after a restart; nothing is ever left out.
//! - The answer's **`request_id`** is made of the order's id. Answered again, the server finds the first
//!   answer and stores nothing.

mod cursor;

use std::collections::BTreeMap;
use std::io;

use peerpost::client::{Client, Error, Event, FollowOptions, Message, OutgoingMessage, Start};
use thiserror::Error as ThisError;

pub use cursor::{Cursor, CursorFile};

/// What is on the shelf, and what a piece costs in cents.
pub type Prices = BTreeMap<String, u64>;

/// Why the desk closed.
#[derive(Debug, ThisError)]
pub enum DeskError {
    /// The server refuses the desk, or its data was replaced: see the error's reason.
    #[error("the mailbox cannot be followed: {0}")]
    Follow(#[source] Error),
    /// An order could not be answered. It is answered at the next start.
    #[error("an order cannot be answered: {0}")]
    Answer(#[source] Error),
    /// The cursor could not be read or kept.
    #[error("the cursor's file: {0}")]
    Cursor(#[from] io::Error),
}

/// A desk where orders are taken.
pub struct Desk {
    client: Client,
    prices: Prices,
    cursor: CursorFile,
}

impl Desk {
    /// A desk that sells at these prices, as the user that `client` is.
    pub fn new(client: Client, prices: Prices, cursor: CursorFile) -> Self {
        Self { client, prices, cursor }
    }

    /// Answers orders for as long as it can; to be dropped to close the desk.
    ///
    /// # Errors
    /// What waiting does not mend.
    pub async fn run(&self) -> Result<(), DeskError> {
        let mut cursor = self.cursor.load()?;
        let mut options = FollowOptions::default().received_only(true);
        if !cursor.epoch.is_empty() {
            options = options.epoch(&cursor.epoch);
        }
        let mut events = self.client.follow(Start::After(cursor.sequence), options);
        while let Some(event) = events.next_event().await {
            match event.map_err(DeskError::Follow)? {
                Event::Started { epoch, .. } => cursor.epoch = epoch,
                Event::Message(order) => {
                    self.answer(&order).await?;
                    cursor.sequence = order.sequence;
                    self.cursor.save(&cursor)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Answers an order, once, however often it is called for the same one.
    async fn answer(&self, order: &Message) -> Result<(), DeskError> {
        let text = reply(order.body.as_text().unwrap_or_default(), &self.prices);
        let answer = OutgoingMessage::new(&order.from_user, text)
            .with_request_id(format!("answer-{}", order.message_id));
        self.client.send_message(answer).await.map(drop).map_err(DeskError::Answer)
    }
}

/// What is answered to an order such as `3 teapot`: it depends on nothing else, so that a second attempt
/// says the same.
pub fn reply(order: &str, prices: &Prices) -> String {
    let parsed = order.split_once(' ').and_then(|(count, thing)| {
        let count = count.parse::<u64>().ok().filter(|count| (1..=1000).contains(count))?;
        Some((count, thing, prices.get(thing)?))
    });
    match parsed {
        Some((count, thing, price)) => {
            let cents = count.saturating_mul(*price);
            format!("{count} {thing}: {}.{:02}, on its way", cents / 100, cents % 100)
        }
        None => format!("cannot sell {order:?}; write for instance `3 teapot`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_priced_and_others_are_declined() {
        let prices = Prices::from([("teapot".to_owned(), 1995)]);
        assert_eq!(reply("3 teapot", &prices), "3 teapot: 59.85, on its way");
        for order in ["", "teapot", "0 teapot", "1001 teapot", "1 cup", "-1 teapot"] {
            assert!(reply(order, &prices).starts_with("cannot sell"), "{order}");
        }
    }
}
