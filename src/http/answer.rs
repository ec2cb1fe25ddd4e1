//! Answers that are whole when they are given.

use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use tonic::body::Body;

pub(super) const JSON: &str = "application/json";

pub(super) const TEXT: &str = "text/plain; charset=utf-8";

/// An answer of this type. Most are somebody's own, so none is stored on its way.
pub(super) fn with(
    status: StatusCode,
    content_type: &'static str,
    text: impl Into<bytes::Bytes>,
) -> Response<Body> {
    let text = text.into();
    let length = text.len();
    let mut response = headed(status, content_type, Body::new(Full::new(text)));
    response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    response
}

/// An answer whose end is not known yet.
pub(super) fn headed(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
