//! Details for the errors that the codec reports without them.

use tonic::{Code, Status};

use super::error::CallError;

/// How prost begins its errors: `failed to decode Protobuf message: Type.field: what is wrong`.
const DECODE_FAILED: &str = "failed to decode Protobuf message";

/// How tonic says that a call ended before its request.
const REQUEST_MISSING: &str = "Missing request message";

/// What the codec's `status` means for the caller, or `None` when it is not about the request. A
/// request `with_body` is over the decoder's limit because of its body.
pub(super) fn request_error(
    status: &Status,
    with_body: bool,
    body_bytes_max: usize,
) -> Option<CallError> {
    match status.code() {
        Code::OutOfRange if with_body => Some(CallError::BodyTooLarge {
            field: "body",
            limit_bytes: body_bytes_max,
            actual_bytes: None,
        }),
        Code::OutOfRange => Some(CallError::invalid_field(
            "request",
            "is larger than any request of this call needs to be",
        )),
        Code::Internal if status.message().contains(DECODE_FAILED) => {
            let (field, problem) = undecodable(status.message());
            Some(CallError::invalid_field(field, problem))
        }
        Code::Internal if status.message().contains(REQUEST_MISSING) => {
            Some(CallError::invalid_field("request", "is required"))
        }
        _ => None,
    }
}

/// The field of the request that prost could not decode, and why. Prost names where it was from the
/// inside outwards: `Duration.seconds: SubscribeRequest.heartbeat_interval: what is wrong`.
fn undecodable(message: &str) -> (&str, String) {
    let rest = message.split_once(DECODE_FAILED).map_or(message, |(_, rest)| rest);
    let mut problem = rest.trim_start_matches(": ");
    let mut field = None;
    while let Some((place, rest)) = problem.split_once(": ")
        && let Some((_, name)) = place.rsplit_once('.').filter(|_| !place.contains(' '))
    {
        (field, problem) = (Some(name), rest);
    }
    (field.unwrap_or("request"), format!("cannot be decoded: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_field_that_cannot_be_decoded() {
        let (field, problem) = undecodable(
            "failed to decode Protobuf message: RegisterRequest.username: invalid string value: \
             data is not UTF-8 encoded",
        );
        assert_eq!(field, "username");
        assert!(problem.ends_with("data is not UTF-8 encoded"), "{problem}");
    }

    #[test]
    fn names_the_requests_own_field_for_one_inside_it() {
        let (field, problem) = undecodable(
            "failed to decode Protobuf message: Duration.seconds: \
             SubscribeRequest.heartbeat_interval: invalid wire type: Varint (expected SixtyFourBit)",
        );
        assert_eq!(field, "heartbeat_interval");
        assert!(
            problem.ends_with(": invalid wire type: Varint (expected SixtyFourBit)"),
            "{problem}"
        );
        assert_eq!(
            undecodable("failed to decode Protobuf message: invalid tag value: 0").0,
            "request"
        );
    }

    #[test]
    fn leaves_other_statuses_alone() {
        for status in [Status::internal("something else"), Status::cancelled("gone")] {
            assert!(request_error(&status, true, 64).is_none());
        }
    }
}
