use bytes::Bytes;

use crate::proto::{
    GetMessagesRequest, SendMessageRequest, SendMessagesRequest, get_messages_request,
    send_message_request, send_messages_request,
};

/// A message of text, with nothing else said.
pub fn text_to(to_user: &str, text: impl Into<String>) -> SendMessageRequest {
    let body = Some(send_message_request::Body::Text(text.into()));
    SendMessageRequest { to_user: to_user.to_owned(), body, ..Default::default() }
}

/// A message of opaque bytes, with nothing else said.
pub fn data_to(to_user: &str, data: impl Into<Bytes>) -> SendMessageRequest {
    let body = Some(send_message_request::Body::Data(data.into()));
    SendMessageRequest { to_user: to_user.to_owned(), body, ..Default::default() }
}

/// The same request for the stream of `SendMessages`.
pub fn streamed(request: SendMessageRequest) -> SendMessagesRequest {
    use send_message_request::Body as Unary;
    use send_messages_request::Body as Streamed;
    let body = request.body.map(|body| match body {
        Unary::Text(text) => Streamed::Text(text),
        Unary::Data(data) => Streamed::Data(data),
    });
    SendMessagesRequest {
        to_user: request.to_user,
        content_type: request.content_type,
        request_id: request.request_id,
        body,
        expiry: request.expiry.map(|expiry| match expiry {
            send_message_request::Expiry::ExpireTime(time) => {
                send_messages_request::Expiry::ExpireTime(time)
            }
            send_message_request::Expiry::Ttl(ttl) => send_messages_request::Expiry::Ttl(ttl),
        }),
    }
}

/// The page after a sequence, with nothing else said.
pub fn after(sequence: i64) -> GetMessagesRequest {
    let cursor = Some(get_messages_request::Cursor::AfterSequence(sequence));
    GetMessagesRequest { cursor, ..Default::default() }
}

/// The page before a sequence, with nothing else said.
pub fn before(sequence: i64) -> GetMessagesRequest {
    let cursor = Some(get_messages_request::Cursor::BeforeSequence(sequence));
    GetMessagesRequest { cursor, ..Default::default() }
}
