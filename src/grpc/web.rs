//! gRPC-Web, which browsers speak: gRPC with its trailers in the body, as binary or as base64 text.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::{Body as HttpBody, Frame};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::StdError;

use super::error::CallError;

const GRPC: &str = "application/grpc";
const WEB: &str = "application/grpc-web+proto";
const WEB_TEXT: &str = "application/grpc-web-text+proto";

/// The first byte of the frame that holds the trailers (gRPC-Web, "Message framing").
const TRAILERS: u8 = 0x80;

/// Four characters of base64 are three bytes; they are decoded together.
const GROUP_CHARACTERS: usize = 4;

/// What a request speaks, by its content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoken {
    /// gRPC.
    Grpc,
    /// gRPC-Web.
    Web(Coding),
    /// Something else.
    Other,
}

/// How a body of gRPC-Web is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// As it is.
    Binary,
    /// As base64.
    Text,
}

impl Spoken {
    /// Finds out from the request's headers.
    pub fn by(headers: &HeaderMap) -> Self {
        let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        match content_type.and_then(|it| it.strip_prefix(GRPC.as_bytes())) {
            Some([] | [b'+' | b';', ..]) => Self::Grpc,
            Some(rest) => Coding::of(rest).map_or(Self::Other, Self::Web),
            None => Self::Other,
        }
    }
}

impl Coding {
    /// What stands after `application/grpc` in a content type.
    fn of(rest: &[u8]) -> Option<Self> {
        let rest = rest.strip_prefix(b"-web")?;
        match rest.strip_prefix(b"-text").unwrap_or(rest) {
            [] | [b'+' | b';', ..] if rest.starts_with(b"-text") => Some(Self::Text),
            [] | [b'+' | b';', ..] => Some(Self::Binary),
            _ => None,
        }
    }

    /// How the answer to a request in this coding is to be written: as the request accepts it.
    #[must_use]
    pub fn of_answer(self, headers: &HeaderMap) -> Self {
        let accepted = headers.get(header::ACCEPT).map(HeaderValue::as_bytes);
        let accepted = accepted.and_then(|it| it.strip_prefix(GRPC.as_bytes()));
        accepted.and_then(Self::of).unwrap_or(self)
    }
}

/// A request of gRPC-Web as one of gRPC; its body is decoded already.
pub fn request(mut request: Request<Body>) -> Request<Body> {
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(GRPC));
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::ACCEPT);
    request
}

/// The answer of gRPC as one of gRPC-Web.
pub fn answer(response: Response<Body>, coding: Coding) -> Response<Body> {
    let mut response = response.map(|body| Body::new(WebAnswer { body, coding, has_ended: false }));
    let content_type = match coding {
        Coding::Binary => WEB,
        Coding::Text => WEB_TEXT,
    };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A body of base64, decoded as it comes. It may be made of several pieces with padding each.
pub struct FromText<B> {
    body: B,
    /// The beginning of a group.
    left: BytesMut,
}

impl<B> FromText<B> {
    /// Decodes `body`.
    pub fn new(body: B) -> Self {
        Self { body, left: BytesMut::new() }
    }

    /// The bytes of the groups that are whole.
    fn decode(&mut self, text: &[u8]) -> Result<Bytes, CallError> {
        self.left.extend_from_slice(text);
        let whole = self.left.len() / GROUP_CHARACTERS * GROUP_CHARACTERS;
        let text = self.left.split_to(whole);
        let mut decoded = Vec::with_capacity(whole / GROUP_CHARACTERS * 3);
        // Padding ends a piece, and with it a group.
        for piece in text.chunk_by(|before, after| *before != b'=' || *after == b'=') {
            STANDARD.decode_vec(piece, &mut decoded).map_err(|_| not_base64())?;
        }
        Ok(decoded.into())
    }
}

fn not_base64() -> CallError {
    CallError::invalid_field("request", "is not base64, which its content type says it is")
}

impl<B> HttpBody for FromText<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<StdError>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(frame) => frame.map_err(|error| Status::from_error(error.into()))?,
                None if self.left.is_empty() => return Poll::Ready(None),
                None => {
                    self.left.clear();
                    return Poll::Ready(Some(Err(not_base64().into())));
                }
            };
            let Ok(text) = frame.into_data() else { continue };
            let bytes = self.decode(&text)?;
            if !bytes.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
        }
    }
}

/// A response's body with its trailers in a frame of its own.
struct WebAnswer {
    body: Body,
    coding: Coding,
    has_ended: bool,
}

impl HttpBody for WebAnswer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context)?);
        let bytes = match frame.map(Frame::into_data) {
            Some(Ok(bytes)) => Some(bytes),
            ended => {
                self.has_ended = true;
                let trailers = ended.and_then(Result::err).and_then(|it| it.into_trailers().ok());
                trailers.map(|trailers| trailers_frame(&trailers))
            }
        };
        let encoded = bytes.map(|bytes| match self.coding {
            Coding::Binary => bytes,
            Coding::Text => STANDARD.encode(bytes).into(),
        });
        Poll::Ready(encoded.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended || self.body.is_end_stream()
    }
}

fn trailers_frame(trailers: &HeaderMap) -> Bytes {
    let mut lines = BytesMut::new();
    for (name, value) in trailers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            lines.put_slice(part);
        }
    }
    let mut frame = BytesMut::with_capacity(5 + lines.len());
    frame.put_u8(TRAILERS);
    frame.put_u32(u32::try_from(lines.len()).unwrap_or(u32::MAX));
    frame.put(lines);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spoken(content_type: &'static str) -> Spoken {
        let value = HeaderValue::from_static(content_type);
        Spoken::by(&HeaderMap::from_iter([(header::CONTENT_TYPE, value)]))
    }

    #[test]
    fn the_content_type_says_what_is_spoken() {
        let (binary, text) = (Spoken::Web(Coding::Binary), Spoken::Web(Coding::Text));
        for (content_type, expected) in [
            ("application/grpc", Spoken::Grpc),
            ("application/grpc+proto", Spoken::Grpc),
            ("application/grpc;x=y", Spoken::Grpc),
            ("application/grpc-web", binary),
            ("application/grpc-web+proto", binary),
            ("application/grpc-web-text", text),
            ("application/grpc-web-text+proto", text),
            ("application/grpc-web-texts", Spoken::Other),
            ("application/grpcx", Spoken::Other),
            ("application/json", Spoken::Other),
            ("", Spoken::Other),
        ] {
            assert_eq!(spoken(content_type), expected, "{content_type}");
        }
        assert_eq!(Spoken::by(&HeaderMap::new()), Spoken::Other);
    }

    #[test]
    fn text_is_decoded_however_it_is_cut_and_padded() {
        let text = [STANDARD.encode(b"ab"), STANDARD.encode(b"c"), STANDARD.encode(b"defghi")];
        let text = text.concat();
        for size in 1..=text.len() {
            let mut body = FromText::new(());
            let mut decoded = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                decoded.extend(body.decode(piece).expect("it is base64"));
            }
            assert_eq!((decoded.as_slice(), body.left.len()), (&b"abcdefghi"[..], 0), "{size}");
        }
        for malformed in ["!AAA", "A===", "====", "AA=A", "\r\nAA"] {
            assert!(FromText::new(()).decode(malformed.as_bytes()).is_err(), "{malformed}");
        }
    }
}
