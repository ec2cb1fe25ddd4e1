use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

const SECRET_BYTES: usize = 32;

/// Marks a text as a peerpost token, for people and for scanners of leaked secrets.
const PREFIX: &str = "pp_";

/// A bearer token: 256 random bits, printed as `pp_` and 43 characters of URL-safe base64.
///
/// It is shown once, to whom it belongs; the server keeps only its [`TokenHash`].
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; SECRET_BYTES]);

/// The SHA-256 of a token's bits: what the server stores. The bits are random and many, so that a
/// plain hash cannot be turned round by guessing.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

/// A text that is not a token. It does not show the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("is not a token of this kind: `{PREFIX}` and 43 characters of URL-safe base64")]
pub struct TokenError;

impl Token {
    /// A new one from the operating system's random source.
    ///
    /// # Panics
    /// Without a random source, which every supported system has: no token is better than one that
    /// can be guessed.
    pub fn mint() -> Self {
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut secret).expect("the operating system has random bits");
        Self(secret)
    }

    /// Parses the printed form.
    ///
    /// # Errors
    /// [`TokenError`] for anything else.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let encoded = text.strip_prefix(PREFIX).ok_or(TokenError)?;
        let secret = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| TokenError)?;
        secret.try_into().map(Self).map_err(|_| TokenError)
    }

    /// The printed form. Only for the user it belongs to.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(self.0))
    }

    /// What is stored of it.
    pub fn hash(&self) -> TokenHash {
        TokenHash(Sha256::digest(self.0).into())
    }
}

impl TokenHash {
    /// From the bytes that are stored.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The hash's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_parses_back() {
        let token = Token::mint();
        assert_eq!(token.reveal().len(), 46);
        assert_eq!(Token::parse(&token.reveal()), Ok(token.clone()));
        assert_ne!(token.hash(), Token::mint().hash());
    }

    #[test]
    fn refuses_other_texts() {
        let token = Token::mint().reveal();
        for text in ["", "pp_", "x", &token[3..], &token[..45], &format!("{token}A")] {
            assert_eq!(Token::parse(text), Err(TokenError), "{text:?}");
        }
    }

    #[test]
    fn does_not_show_itself_in_debug_output() {
        let token = Token::mint();
        assert_eq!(format!("{token:?}{:?}", token.hash()), "Token(…)TokenHash(…)");
    }
}
