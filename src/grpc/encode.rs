//! Domain terms into responses.

use bytes::Bytes;

use crate::domain::{Body, Content, ContentType, Message, Timestamp, UserId};
use crate::messenger::{Delivery, FollowEvent, UserView};
use crate::proto;
use crate::proto::subscribe_response::Event;

/// A message as `owner` sees it: under their own sequence, and with the request id only for its
/// sender.
pub(super) fn message(message: &Message, owner: UserId) -> proto::Message {
    let Content { body, content_type } = &message.content;
    with_content(message, owner, body.clone(), content_type.clone())
}

/// [`message`] for a message that is needed no more: its content is not copied.
fn owned_message(mut message: Message, owner: UserId) -> proto::Message {
    let body = std::mem::replace(&mut message.content.body, Body::Data(Bytes::new()));
    let content_type = std::mem::take(&mut message.content.content_type);
    with_content(&message, owner, body, content_type)
}

fn with_content(
    message: &Message,
    owner: UserId,
    body: Body,
    content_type: ContentType,
) -> proto::Message {
    let is_sender = message.sender.id == owner;
    // At the last moment, so that nobody is given a body that has expired.
    let expired = message.is_expired();
    proto::Message {
        message_id: message.id.to_text(),
        sequence: message.sequence_for(owner).unwrap_or_default().get(),
        from_user: message.sender.name.as_str().to_owned(),
        to_user: message.receiver.name.as_str().to_owned(),
        send_time: Some(timestamp(message.send_time)),
        expire_time: message.expiry.map(|expiry| timestamp(expiry.time)),
        expired,
        body: (!expired).then(|| match body {
            Body::Text(text) => proto::message::Body::Text(text),
            Body::Data(data) => proto::message::Body::Data(data),
        }),
        content_type: content_type.into_string(),
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
        FollowEvent::Started { epoch, after, range, acknowledged_through } => {
            Event::Started(proto::SubscriptionStarted {
                epoch: epoch.as_str().to_owned(),
                after_sequence: after.get(),
                first_sequence: range.first.get(),
                last_sequence: range.last.get(),
                acknowledged_through: acknowledged_through.get(),
            })
        }
        FollowEvent::Message(delivery) => Event::Message(match delivery {
            Delivery::Stored(message) => owned_message(message, owner),
            Delivery::Live(message) => self::message(&message, owner),
        }),
        FollowEvent::CaughtUp(through) => {
            Event::CaughtUp(proto::CaughtUp { through_sequence: through.get() })
        }
        FollowEvent::Heartbeat(through) => {
            Event::Heartbeat(proto::Heartbeat { through_sequence: through.get() })
        }
    };
    proto::SubscribeResponse { event: Some(event) }
}

/// A time by the server's clock.
pub(super) fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = time.as_seconds_and_nanos();
    prost_types::Timestamp { seconds, nanos }
}
