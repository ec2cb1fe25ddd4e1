use bytes::Bytes;
use thiserror::Error;

use super::limits::{CONTENT_TYPE_CHARACTERS_MAX, REQUEST_ID_CHARACTERS_MAX};

/// What a message says: never empty, never over the limit with which it was made.
#[derive(Clone, PartialEq, Eq)]
pub enum Body {
    /// UTF-8 text.
    Text(String),
    /// Opaque bytes.
    Data(Bytes),
}

/// Which of the two a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    /// UTF-8 text.
    Text,
    /// Opaque bytes.
    Data,
}

/// Why something is not a body.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BodyError {
    /// Empty bodies say nothing.
    #[error("is empty; a body has 1 byte or more")]
    Empty,
    /// Larger than the server accepts.
    #[error("has {actual_bytes} bytes, at most {limit_bytes} are accepted")]
    TooLarge {
        /// The limit.
        limit_bytes: usize,
        /// The size.
        actual_bytes: usize,
    },
}

impl Body {
    /// A body of text, at most `limit_bytes` long.
    ///
    /// # Errors
    /// [`BodyError`] for an empty one or one over the limit.
    pub fn text(text: String, limit_bytes: usize) -> Result<Self, BodyError> {
        check_size(text.len(), limit_bytes)?;
        Ok(Self::Text(text))
    }

    /// A body of opaque bytes, at most `limit_bytes` long.
    ///
    /// # Errors
    /// [`BodyError`] for an empty one or one over the limit.
    pub fn data(data: Bytes, limit_bytes: usize) -> Result<Self, BodyError> {
        check_size(data.len(), limit_bytes)?;
        Ok(Self::Data(data))
    }

    /// Which of the two it is.
    pub fn kind(&self) -> BodyKind {
        match self {
            Self::Text(_) => BodyKind::Text,
            Self::Data(_) => BodyKind::Data,
        }
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Data(data) => data,
        }
    }
}

/// Bodies are private: only the kind and the size are shown.
impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}({} bytes)", self.kind(), self.as_bytes().len())
    }
}

fn check_size(actual_bytes: usize, limit_bytes: usize) -> Result<(), BodyError> {
    match actual_bytes {
        0 => Err(BodyError::Empty),
        n if n > limit_bytes => Err(BodyError::TooLarge { limit_bytes, actual_bytes }),
        _ => Ok(()),
    }
}

/// Whether a text has at most `characters_max` characters, all of them ASCII and `allowed`: the answer
/// for what is mostly right, without decoding it. What is wrong is for those to say who call it.
pub(super) fn is_ascii_of(
    text: &str,
    characters_max: usize,
    allowed: impl Fn(char) -> bool,
) -> bool {
    text.len() <= characters_max && text.bytes().all(|c| c.is_ascii() && allowed(c.into()))
}

/// What the sender said of the content's type: up to 128 characters of printable ASCII; empty when
/// nothing was said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContentType(String);

/// Why a text is not a content type.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ContentTypeError {
    /// There is too much.
    #[error("has {characters} characters, at most {CONTENT_TYPE_CHARACTERS_MAX} are allowed")]
    TooLong {
        /// How many there are.
        characters: usize,
    },
    /// Not printable ASCII.
    #[error("has the character {0:?}; only printable ASCII is allowed")]
    Character(char),
}

impl ContentType {
    /// Parses a content type. It is not interpreted.
    ///
    /// # Errors
    /// [`ContentTypeError`] says which rule the text breaks.
    pub fn parse(text: String) -> Result<Self, ContentTypeError> {
        let allowed = |c: char| matches!(c, ' '..='~');
        if is_ascii_of(&text, CONTENT_TYPE_CHARACTERS_MAX, allowed) {
            return Ok(Self(text));
        }
        let characters = text.chars().count();
        if characters > CONTENT_TYPE_CHARACTERS_MAX {
            return Err(ContentTypeError::TooLong { characters });
        }
        match text.chars().find(|c| !allowed(*c)) {
            Some(c) => Err(ContentTypeError::Character(c)),
            None => Ok(Self(text)),
        }
    }

    /// The text; empty when nothing was said.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text; empty when nothing was said.
    pub fn into_string(self) -> String {
        self.0
    }
}

/// A sender's idempotency key: 1 to 64 characters of visible ASCII.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestId(String);

/// Why a text is not a request id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RequestIdError {
    /// There is too much.
    #[error("has {characters} characters, at most {REQUEST_ID_CHARACTERS_MAX} are allowed")]
    TooLong {
        /// How many there are.
        characters: usize,
    },
    /// Not visible ASCII.
    #[error("has the character {0:?}; only visible ASCII without spaces is allowed")]
    Character(char),
}

impl RequestId {
    /// Parses a request id; an empty text is none.
    ///
    /// # Errors
    /// [`RequestIdError`] says which rule the text breaks.
    pub fn parse(text: String) -> Result<Option<Self>, RequestIdError> {
        let allowed = |c: char| c.is_ascii_graphic();
        if is_ascii_of(&text, REQUEST_ID_CHARACTERS_MAX, allowed) {
            return Ok((!text.is_empty()).then_some(Self(text)));
        }
        let characters = text.chars().count();
        if characters > REQUEST_ID_CHARACTERS_MAX {
            return Err(RequestIdError::TooLong { characters });
        }
        match text.chars().find(|c| !allowed(*c)) {
            Some(c) => Err(RequestIdError::Character(c)),
            None => Ok(Some(Self(text))),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is sent: the body and what was said of its type. Equal contents make a repeated
/// `request_id` the same message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The body.
    pub body: Body,
    /// What was said of its type.
    pub content_type: ContentType,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_bounded_on_both_sides() {
        assert_eq!(Body::text(String::new(), 4), Err(BodyError::Empty));
        assert_eq!(Body::data(Bytes::new(), 4), Err(BodyError::Empty));
        assert!(Body::text("abcd".into(), 4).is_ok());
        let over = BodyError::TooLarge { limit_bytes: 4, actual_bytes: 5 };
        assert_eq!(Body::text("abcde".into(), 4), Err(over));
        let multibyte = BodyError::TooLarge { limit_bytes: 4, actual_bytes: 6 };
        assert_eq!(Body::text("äöü".into(), 4), Err(multibyte));
    }

    #[test]
    fn a_body_does_not_show_itself_in_debug_output() {
        let body = Body::text("secret".into(), 64).expect("valid");
        assert_eq!(format!("{body:?}"), "Text(6 bytes)");
    }

    #[test]
    fn a_request_id_is_visible_ascii() {
        assert_eq!(RequestId::parse(String::new()), Ok(None));
        assert!(RequestId::parse("x".repeat(64)).is_ok());
        assert!(RequestId::parse("x".repeat(65)).is_err());
        assert_eq!(RequestId::parse("a b".into()), Err(RequestIdError::Character(' ')));
        assert_eq!(RequestId::parse("é".into()), Err(RequestIdError::Character('é')));
    }

    #[test]
    fn a_content_type_is_printable_ascii() {
        assert!(ContentType::parse("text/plain; charset=utf-8".into()).is_ok());
        assert!(ContentType::parse("x".repeat(129)).is_err());
        assert_eq!(ContentType::parse("a\n".into()), Err(ContentTypeError::Character('\n')));
    }
}
