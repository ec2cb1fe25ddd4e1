use tonic::{Code, Status, Streaming};

use super::within_patience;
use crate::proto::{Message, SubscribeResponse, SubscriptionStarted, subscribe_response};

pub use subscribe_response::Event;

/// An open subscription: what follows after its `started` event.
#[derive(Debug)]
pub struct Subscription {
    started: SubscriptionStarted,
    stream: Streaming<SubscribeResponse>,
}

impl Subscription {
    /// Reads the first event of a stream, which is always `started`.
    pub(super) async fn open(mut stream: Streaming<SubscribeResponse>) -> Result<Self, Status> {
        match next_event(&mut stream).await? {
            Event::Started(started) => Ok(Self { started, stream }),
            other => panic!("a subscription began with {other:?}"),
        }
    }

    /// Its first event.
    pub fn started(&self) -> &SubscriptionStarted {
        &self.started
    }

    /// The next event, or the status with which the stream ends; a stream that ends by itself gives
    /// the status OK.
    ///
    /// # Errors
    /// The status with which the stream ends.
    pub async fn next(&mut self) -> Result<Event, Status> {
        next_event(&mut self.stream).await
    }

    /// The next message. Other events before it are passed over.
    ///
    /// # Errors
    /// The status with which the stream ends.
    pub async fn try_next_message(&mut self) -> Result<Message, Status> {
        loop {
            match self.next().await? {
                Event::Message(message) => return Ok(message),
                Event::CaughtUp(_) | Event::Heartbeat(_) => {}
                Event::Started(started) => panic!("started twice: {started:?}"),
            }
        }
    }

    /// The next message, of a stream that goes on.
    pub async fn next_message(&mut self) -> Message {
        self.try_next_message().await.expect("the subscription goes on")
    }

    /// The next `count` messages.
    pub async fn messages(&mut self, count: usize) -> Vec<Message> {
        let mut messages = Vec::with_capacity(count);
        while messages.len() < count {
            messages.push(self.next_message().await);
        }
        messages
    }

    /// The messages before the turn to live delivery, and the sequence that `caught_up` names.
    pub async fn history(&mut self) -> (Vec<Message>, i64) {
        let mut messages = Vec::new();
        loop {
            match self.next().await.expect("the subscription goes on") {
                Event::Message(message) => messages.push(message),
                Event::CaughtUp(caught_up) => return (messages, caught_up.through_sequence),
                Event::Heartbeat(heartbeat) => panic!("{heartbeat:?} before caught_up"),
                Event::Started(started) => panic!("started twice: {started:?}"),
            }
        }
    }

    /// The sequence that the next heartbeat names. Nothing else may come before it.
    pub async fn heartbeat(&mut self) -> i64 {
        match self.next().await.expect("the subscription goes on") {
            Event::Heartbeat(heartbeat) => heartbeat.through_sequence,
            other => panic!("{other:?} where a heartbeat was expected"),
        }
    }

    /// Reads on to the end, and returns what came before it and how it ended.
    pub async fn drain(mut self) -> (Vec<Message>, Status) {
        let mut messages = Vec::new();
        loop {
            match self.try_next_message().await {
                Ok(message) => messages.push(message),
                Err(status) => return (messages, status),
            }
        }
    }
}

async fn next_event(stream: &mut Streaming<SubscribeResponse>) -> Result<Event, Status> {
    match within_patience("the next event", stream.message()).await? {
        Some(response) => Ok(response.event.expect("a response always holds an event")),
        None => Err(Status::new(Code::Ok, "the stream ended by itself")),
    }
}
