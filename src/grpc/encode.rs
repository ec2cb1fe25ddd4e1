//! Domain terms into responses.

use crate::domain::{Body, Message, Timestamp, UserId};
use crate::messenger::{FollowEvent, UserView};
use crate::proto;
use crate::proto::subscribe_response::Event;

/// A message as `owner` sees it: under their own sequence, and with the request id only for its
/// sender.
pub(super) fn message(message: &Message, owner: UserId) -> proto::Message {
    let is_sender = message.sender.id == owner;
    proto::Message {
        message_id: message.id.to_string(),
        sequence: message.sequence_for(owner).unwrap_or_default().get(),
        from_user: message.sender.name.to_string(),
        to_user: message.receiver.name.to_string(),
        send_time: Some(timestamp(message.send_time)),
        body: Some(match &message.content.body {
            Body::Text(text) => proto::message::Body::Text(text.clone()),
            Body::Data(data) => proto::message::Body::Data(data.clone()),
        }),
        content_type: message.content.content_type.as_str().to_owned(),
        request_id: match &message.request_id {
            Some(request_id) if is_sender => request_id.as_str().to_owned(),
            _ => String::new(),
        },
    }
}

pub(super) fn user(view: UserView) -> proto::User {
    let UserView { profile, online } = view;
    proto::User {
        username: profile.user.name.to_string(),
        ip_address: profile.address.to_string(),
        register_time: Some(timestamp(profile.register_time)),
        online,
        last_seen_time: profile.last_seen_time.map(timestamp),
    }
}

pub(super) fn event(event: FollowEvent, owner: UserId) -> proto::SubscribeResponse {
    let event = match event {
        FollowEvent::Started { epoch, after, range } => {
            Event::Started(proto::SubscriptionStarted {
                epoch: epoch.as_str().to_owned(),
                after_sequence: after.get(),
                first_sequence: range.first.get(),
                last_sequence: range.last.get(),
            })
        }
        FollowEvent::Message(message) => Event::Message(self::message(&message, owner)),
        FollowEvent::CaughtUp(through) => {
            Event::CaughtUp(proto::CaughtUp { through_sequence: through.get() })
        }
        FollowEvent::Heartbeat(through) => {
            Event::Heartbeat(proto::Heartbeat { through_sequence: through.get() })
        }
    };
    proto::SubscribeResponse { event: Some(event) }
}

fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = time.as_seconds_and_nanos();
    prost_types::Timestamp { seconds, nanos }
}
