use super::{Error, Event, Message, Start};
use crate::proto::subscribe_request::Start as ProtoStart;
use crate::proto::{self, subscribe_response};

/// Connections in a row that may show the same hole before it is taken to be the server's.
const HOLES_MAX: u32 = 3;

/// Where a follower stands in the mailbox: what to ask for next, and what of the answer to deliver.
///
/// It holds the promise of [`Client::follow`](super::Client::follow): every entry after the start,
/// once and in order. It knows no network and no time.
#[derive(Debug)]
pub(super) struct Position {
    start: Start,
    epoch: Option<String>,
    received_only: bool,
    /// Everything up to here was delivered, or skipped by `received_only`. `None` until the server
    /// has said where the start is.
    through: Option<i64>,
    /// Whether this connection's `started` has come.
    is_started: bool,
    /// Holes seen since the last progress.
    holes: u32,
}

impl Position {
    pub(super) fn new(start: Start, epoch: Option<String>, received_only: bool) -> Self {
        let through = match start {
            Start::After(sequence) => Some(sequence),
            Start::Acknowledged | Start::FromNow => None,
        };
        Self { start, epoch, received_only, through, is_started: false, holes: 0 }
    }

    /// What to ask a new connection for: the start, and after `started` of any connection has said
    /// which sequence that is, to go on from where delivery ended. Asking for "now" a second time
    /// would skip what came in between.
    pub(super) fn subscribe(&mut self) -> proto::SubscribeRequest {
        self.is_started = false;
        proto::SubscribeRequest {
            start: match (self.through, self.start) {
                (Some(sequence), _) => Some(ProtoStart::AfterSequence(sequence)),
                (None, Start::FromNow) => Some(ProtoStart::FromNow(true)),
                (None, _) => None,
            },
            epoch: self.epoch.clone().unwrap_or_default(),
            received_only: self.received_only,
            heartbeat_interval: None,
        }
    }

    /// Takes the server's next event, and gives what to deliver of it: nothing for a duplicate, an
    /// error for what cannot be delivered without a gap.
    pub(super) fn accept(
        &mut self,
        response: proto::SubscribeResponse,
    ) -> Result<Option<Event>, Error> {
        use subscribe_response::Event as Received;
        match response.event {
            Some(Received::Started(started)) => self.accept_started(started).map(Some),
            Some(_) if !self.is_started => {
                Err(Error::Malformed("a stream that does not begin with `started`"))
            }
            Some(Received::Message(message)) => self.accept_message(message),
            Some(Received::CaughtUp(caught_up)) => {
                let through_sequence = self.advance_through(caught_up.through_sequence)?;
                Ok(Some(Event::CaughtUp { through_sequence }))
            }
            Some(Received::Heartbeat(heartbeat)) => {
                let through_sequence = self.advance_through(heartbeat.through_sequence)?;
                Ok(Some(Event::Heartbeat { through_sequence }))
            }
            // An event of a newer contract, which asks to be ignored.
            None => Ok(None),
        }
    }

    /// Whether the server keeps leaving out the same entries, so that connecting again is no use.
    pub(super) fn is_stuck(&self) -> bool {
        self.holes >= HOLES_MAX
    }

    fn accept_started(&mut self, started: proto::SubscriptionStarted) -> Result<Event, Error> {
        if self.epoch.as_ref().is_some_and(|epoch| *epoch != started.epoch) {
            return Err(Error::Malformed("a subscription in another epoch than was asked for"));
        }
        match self.through {
            Some(through) if started.after_sequence > through => {
                return Err(self.hole(started.after_sequence + 1));
            }
            // From before where this follower stands: the duplicates are dropped as they come.
            Some(_) => {}
            None => self.through = Some(started.after_sequence),
        }
        self.epoch = Some(started.epoch.clone());
        self.is_started = true;
        Ok(Event::Started {
            epoch: started.epoch,
            after_sequence: self.through.unwrap_or(started.after_sequence),
            first_sequence: started.first_sequence,
            last_sequence: started.last_sequence,
            acknowledged_through: started.acknowledged_through,
        })
    }

    fn accept_message(&mut self, message: proto::Message) -> Result<Option<Event>, Error> {
        let through = self.through.unwrap_or_default();
        let sequence = message.sequence;
        if sequence <= through {
            return Ok(None);
        }
        if sequence > through + 1 && !self.received_only {
            return Err(self.hole(sequence));
        }
        let message = Message::try_from(message)?;
        self.advance(sequence);
        Ok(Some(Event::Message(message)))
    }

    /// Everything up to `sequence` has been delivered, says the server.
    fn advance_through(&mut self, sequence: i64) -> Result<i64, Error> {
        let through = self.through.unwrap_or_default();
        if sequence > through && !self.received_only {
            return Err(self.hole(sequence + 1));
        }
        self.advance(sequence.max(through));
        Ok(sequence.max(through))
    }

    fn advance(&mut self, through: i64) {
        if self.through < Some(through) {
            self.through = Some(through);
            self.holes = 0;
        }
    }

    fn hole(&mut self, received: i64) -> Error {
        self.holes += 1;
        Error::Hole { expected: self.through.unwrap_or_default() + 1, received }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::message::Body;
    use crate::proto::subscribe_response::Event as Received;

    fn position(start: Start) -> Position {
        Position::new(start, None, false)
    }

    fn response(event: Received) -> proto::SubscribeResponse {
        proto::SubscribeResponse { event: Some(event) }
    }

    fn started(after_sequence: i64) -> proto::SubscribeResponse {
        response(Received::Started(proto::SubscriptionStarted {
            epoch: "e1".into(),
            after_sequence,
            first_sequence: 1,
            last_sequence: 99,
            acknowledged_through: 0,
        }))
    }

    fn message(sequence: i64) -> proto::SubscribeResponse {
        response(Received::Message(proto::Message {
            sequence,
            send_time: Some(<_>::default()),
            body: Some(Body::Text("hi".into())),
            ..Default::default()
        }))
    }

    fn heartbeat(through_sequence: i64) -> proto::SubscribeResponse {
        response(Received::Heartbeat(proto::Heartbeat { through_sequence }))
    }

    fn caught_up(through_sequence: i64) -> proto::SubscribeResponse {
        response(Received::CaughtUp(proto::CaughtUp { through_sequence }))
    }

    /// The sequences of the messages delivered out of these.
    fn deliver(
        position: &mut Position,
        responses: impl IntoIterator<Item = proto::SubscribeResponse>,
    ) -> Vec<i64> {
        let mut delivered = Vec::new();
        for response in responses {
            if let Some(Event::Message(message)) = position.accept(response).expect("no gap") {
                delivered.push(message.sequence);
            }
        }
        delivered
    }

    #[test]
    fn a_duplicate_is_dropped() {
        let mut position = position(Start::After(0));
        let received = [started(0), message(1), message(1), message(2), message(1), message(3)];
        assert_eq!(deliver(&mut position, received), [1, 2, 3]);
    }

    #[test]
    fn a_hole_is_reported_and_the_next_connection_asks_for_what_it_hid() {
        let mut position = position(Start::After(0));
        deliver(&mut position, [started(0), message(1)]);
        let error = position.accept(message(3)).expect_err("a hole");
        assert!(matches!(error, Error::Hole { expected: 2, received: 3 }), "{error:?}");
        assert!(error.is_retriable());
        assert_eq!(position.subscribe().start, Some(ProtoStart::AfterSequence(1)));
        assert_eq!(deliver(&mut position, [started(1), message(2), message(3)]), [2, 3]);
    }

    #[test]
    fn a_cursor_past_what_came_is_a_hole_too() {
        for event in [heartbeat(5), caught_up(5)] {
            let mut position = position(Start::After(3));
            deliver(&mut position, [started(3), message(4)]);
            assert!(matches!(position.accept(event), Err(Error::Hole { expected: 5, .. })));
        }
        let mut position = position(Start::After(3));
        let error = position.accept(started(4)).expect_err("later than asked for");
        assert!(matches!(error, Error::Hole { expected: 4, received: 5 }));
    }

    #[test]
    fn a_hole_that_stays_ends_it_unless_there_is_progress() {
        let mut position = position(Start::After(0));
        for connection in 1..=HOLES_MAX {
            position.subscribe();
            deliver(&mut position, [started(0)]);
            assert!(position.accept(message(2)).is_err());
            assert_eq!(position.is_stuck(), connection == HOLES_MAX);
        }
        position.subscribe();
        deliver(&mut position, [started(0), message(1)]);
        assert!(!position.is_stuck());
    }

    #[test]
    fn received_only_skips_and_heartbeats_cover_what_was_skipped() {
        let mut position = Position::new(Start::After(0), None, true);
        let received = [started(0), message(2), message(5), heartbeat(9), message(8)];
        assert_eq!(deliver(&mut position, received), [2, 5]);
        assert_eq!(position.subscribe().start, Some(ProtoStart::AfterSequence(9)));
    }

    #[test]
    fn an_open_start_is_pinned_by_what_started_told() {
        for (start, first) in
            [(Start::FromNow, Some(ProtoStart::FromNow(true))), (Start::Acknowledged, None)]
        {
            let mut position = position(start);
            assert_eq!(position.subscribe().start, first);
            // Before `started` came nothing is known: the same is asked for again.
            assert_eq!(position.subscribe().start, first);
            deliver(&mut position, [started(7)]);
            let request = position.subscribe();
            assert_eq!(request.start, Some(ProtoStart::AfterSequence(7)));
            assert_eq!(request.epoch, "e1");
        }
    }

    #[test]
    fn a_stream_begins_with_started_on_every_connection() {
        let mut position = position(Start::After(0));
        assert!(matches!(position.accept(message(1)), Err(Error::Malformed(_))));
        deliver(&mut position, [started(0), message(1)]);
        position.subscribe();
        assert!(matches!(position.accept(message(2)), Err(Error::Malformed(_))));
    }

    #[test]
    fn another_epoch_is_never_followed_silently() {
        let mut position = Position::new(Start::After(0), Some("e0".into()), false);
        let error = position.accept(started(0)).expect_err("another epoch");
        assert!(!error.is_retriable());
    }

    #[test]
    fn an_unknown_event_is_ignored() {
        let mut position = position(Start::After(0));
        let unknown = proto::SubscribeResponse { event: None };
        assert_eq!(deliver(&mut position, [started(0), unknown, message(1)]), [1]);
    }
}
