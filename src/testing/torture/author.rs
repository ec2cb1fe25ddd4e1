//! Who writes messages: each says something that no other message says.

use bytes::Bytes;

use super::crowd::Crowd;
use crate::proto::{SendMessageRequest, send_message_request};
use crate::random::Random;

/// The bytes of most bodies, and of fewer and fewer.
const BODY_BYTES: [(usize, usize); 4] = [(70, 64), (25, 512), (4, 4 * 1024), (1, 60 * 1024)];

const FILLER: &str =
    "the quick brown fox jumps over the lazy dog and comes back for the other one; ";

/// Makes up messages.
#[derive(Debug, Clone)]
pub(super) struct Author {
    name: String,
    written: u64,
    pub(super) random: Random,
}

impl Author {
    /// `name` is one that no other author of the history has.
    pub(super) fn new(name: String, random: Random) -> Self {
        Self { name, written: 0, random }
    }

    /// A message to anyone, with a `request_id`.
    pub(super) fn message(&mut self, crowd: &Crowd) -> SendMessageRequest {
        let to_user = crowd.anyone(&mut self.random).to_owned();
        self.message_to(to_user)
    }

    /// A message with a `request_id`.
    pub(super) fn message_to(&mut self, to_user: String) -> SendMessageRequest {
        let body = self.body();
        let is_text = self.random.below(2) == 0;
        let content_type = if self.random.below(8) == 0 { "text/plain" } else { "" }.to_owned();
        SendMessageRequest {
            to_user,
            body: Some(if is_text {
                send_message_request::Body::Text(body)
            } else {
                send_message_request::Body::Data(Bytes::from(body))
            }),
            content_type,
            request_id: self.random.request_id(),
            expiry: None,
        }
    }

    fn body(&mut self) -> String {
        self.written += 1;
        let mut body = format!("{} {} ", self.name, self.written);
        let mut share = self.random.below(100);
        for (percent, most) in BODY_BYTES {
            if share < percent {
                let bytes = self.random.below(most);
                while body.len() < bytes {
                    body += &FILLER[..FILLER.len().min(bytes - body.len())];
                }
                break;
            }
            share -= percent;
        }
        body
    }
}
