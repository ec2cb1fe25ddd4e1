//! The JSON that a request carries.

use std::future::poll_fn;
use std::pin::pin;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};
use http_body::Body as _;
use tonic::body::Body;
use tonic::{Code, Status};

use super::call::Refused;
use super::problem::Problem;
use crate::domain::limits::REQUEST_BYTES_MAX;

/// The most bytes of JSON for one byte of a text: `\u001f`.
const ESCAPED_BYTES: usize = 6;

/// The most bytes of a request that carries a message's body, so that every body that is accepted
/// can be written in every way that JSON knows.
pub(super) fn send_bytes_max(body_bytes_max: usize) -> usize {
    ESCAPED_BYTES * body_bytes_max + REQUEST_BYTES_MAX
}

/// Whether the request's content can be taken for JSON.
///
/// What a program sends is, whatever it says: `curl -d` says that it is a form. What a page in a
/// browser sends has to say so. Then the browser asks the server before it sends anything for a page
/// from elsewhere, which it does not for a form or plain text.
pub(super) fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    let unsupported = |detail| Err(Problem::plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    let coding = headers.get(header::CONTENT_ENCODING);
    if coding.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return unsupported("compressed requests are not accepted");
    }
    let is_from_a_page = headers.contains_key(header::ORIGIN);
    if !is_from_a_page || headers.get(header::CONTENT_TYPE).is_some_and(is_json) {
        return Ok(());
    }
    unsupported("a request from a page says `content-type: application/json`")
}

fn is_json(content_type: &http::HeaderValue) -> bool {
    let text = content_type.to_str().unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json"
        || essence.starts_with("application/") && essence.ends_with("+json")
}

/// The whole of a request's content, unless that is more than `bytes_max`.
pub(super) async fn whole(body: Body, bytes_max: usize) -> Result<Bytes, Refused> {
    let is_larger = |bytes: usize| bytes > bytes_max;
    if usize::try_from(body.size_hint().lower()).map_or(true, is_larger) {
        return Err(Refused::TooLarge);
    }
    let mut body = pin!(body);
    let mut content = BytesMut::new();
    while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
        let broken = |error: Status| {
            if error.code() == Code::ResourceExhausted {
                return Problem::of(&error);
            }
            let detail = format!("the request ended before it was whole: {error}");
            Problem::plain(StatusCode::BAD_REQUEST, detail)
        };
        if let Ok(bytes) = frame.map_err(broken)?.into_data() {
            if is_larger(content.len() + bytes.len()) {
                return Err(Refused::TooLarge);
            }
            content.extend_from_slice(&bytes);
        }
    }
    Ok(content.freeze())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use http_body_util::Full;

    use super::*;

    fn accepts(headers: &[(HeaderName, &'static str)]) -> bool {
        let headers = headers.iter().cloned();
        let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
        check_type(&headers.collect()).is_ok()
    }

    #[test]
    fn a_page_has_to_say_that_it_sends_json() {
        use header::{CONTENT_ENCODING, CONTENT_TYPE, ORIGIN};
        const FORM: &str = "application/x-www-form-urlencoded";
        assert!(accepts(&[]));
        assert!(accepts(&[(CONTENT_TYPE, FORM)]));
        assert!(accepts(&[(CONTENT_TYPE, "Application/JSON; charset=utf-8"), (ORIGIN, "null")]));
        assert!(accepts(&[(CONTENT_TYPE, "application/merge+json"), (ORIGIN, "http://x")]));
        for not_json in [FORM, "text/plain", "text/json", "multipart/form-data", ""] {
            assert!(!accepts(&[(CONTENT_TYPE, not_json), (ORIGIN, "null")]), "{not_json}");
        }
        assert!(!accepts(&[(ORIGIN, "http://127.0.0.1:50051")]));
        assert!(!accepts(&[(CONTENT_ENCODING, "gzip")]));
    }

    #[tokio::test]
    async fn what_is_larger_is_not_read() {
        let read = |bytes_max| whole(Body::new(Full::new(Bytes::from_static(b"12345"))), bytes_max);
        assert_eq!(read(5).await.expect("read"), "12345");
        assert!(matches!(read(4).await, Err(Refused::TooLarge)));
        let pieces = || {
            let piece = || Ok::<_, Status>(http_body::Frame::data(Bytes::from_static(b"12")));
            let pieces = tokio_stream::iter([piece(), piece(), piece()]);
            Body::new(http_body_util::StreamBody::new(pieces))
        };
        assert_eq!(whole(pieces(), 6).await.expect("read"), "121212");
        assert!(matches!(whole(pieces(), 5).await, Err(Refused::TooLarge)));
    }
}
