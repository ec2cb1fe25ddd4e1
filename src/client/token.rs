use std::fmt;

use thiserror::Error;
use tonic::metadata::{Ascii, MetadataValue};

/// A user's bearer token. Whoever holds it is that user.
///
/// To the client it is opaque, so that a server may change its form. It never shows itself in
/// `Debug` output and has no `Display`; [`Token::reveal`] is for storing it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// A text that cannot be a token. It does not show the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("is not a token: a token is visible ASCII without spaces")]
pub struct InvalidToken;

impl Token {
    /// A token as the server gave it out, without surrounding white space.
    ///
    /// # Errors
    /// [`InvalidToken`] for a text that is empty or has a character that no token has.
    pub fn parse(text: &str) -> Result<Self, InvalidToken> {
        let text = text.trim();
        if text.is_empty() || !text.chars().all(|c| c.is_ascii_graphic()) {
            return Err(InvalidToken);
        }
        Ok(Self(text.to_owned()))
    }

    /// The text. Only for the user it belongs to.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The value of the `authorization` metadata, marked so that nothing on the way prints it.
    pub(super) fn to_authorization(&self) -> MetadataValue<Ascii> {
        let mut value = MetadataValue::try_from(format!("Bearer {}", self.0))
            .expect("a token is visible ASCII, which metadata may hold");
        value.set_sensitive(true);
        value
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_visible_ascii_without_the_space_around_it() {
        assert_eq!(Token::parse(" pp_abc\n").map(|t| t.reveal().to_owned()), Ok("pp_abc".into()));
        for text in ["", " ", "a b", "a\nb", "é"] {
            assert_eq!(Token::parse(text), Err(InvalidToken), "{text:?}");
        }
    }

    #[test]
    fn does_not_show_itself() {
        let token = Token::parse("pp_secret").expect("a token");
        assert_eq!(format!("{token:?}"), "Token(…)");
        assert!(!format!("{:?}", token.to_authorization()).contains("secret"));
    }
}
