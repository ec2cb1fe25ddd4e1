//! What stands beside a secret: under which id it is named, and what people call it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use uuid::Uuid;

/// Names a token or an invite without giving it away: a `UUIDv7` (RFC 9562), so that they sort by when
/// they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccessId(Uuid);

/// A text that is no such id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("is not an id: 36 characters, as they are listed")]
pub struct AccessIdError;

impl AccessId {
    /// A new one.
    pub fn mint() -> Self {
        Self(Uuid::now_v7())
    }

    /// Parses the text form, the one with hyphens alone.
    ///
    /// # Errors
    /// [`AccessIdError`] for anything else.
    pub fn parse(text: &str) -> Result<Self, AccessIdError> {
        let id = Uuid::try_parse(text).map(Self).map_err(|_| AccessIdError)?;
        if id.to_string() == text.to_ascii_lowercase() { Ok(id) } else { Err(AccessIdError) }
    }
}

impl fmt::Display for AccessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// A line that people wrote for people: what a token is for, why somebody is banned. May be empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Label(String);

/// Why a text is no [`Label`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LabelError {
    /// There is too much.
    #[error("has {characters} characters, at most {max} are allowed")]
    TooLong {
        /// How many there are.
        characters: usize,
        /// How many there may be.
        max: usize,
    },
    /// It would not be shown as what it is.
    #[error("has the character {0:?}, which is not shown")]
    Character(char),
}

impl Label {
    /// Parses a text of at most `characters_max` characters, none of them a control character or one that
    /// turns the direction of writing.
    ///
    /// # Errors
    /// [`LabelError`] says which rule it breaks.
    pub fn parse(text: &str, characters_max: usize) -> Result<Self, LabelError> {
        let characters = text.chars().count();
        if characters > characters_max {
            return Err(LabelError::TooLong { characters, max: characters_max });
        }
        let is_hidden = |c: &char| {
            c.is_control()
                || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
                || matches!(c, '\u{2066}'..='\u{2069}' | '\u{feff}')
        };
        match text.chars().find(is_hidden) {
            Some(hidden) => Err(LabelError::Character(hidden)),
            None => Ok(Self(text.to_owned())),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const INVITE_BYTES: usize = 16;

/// Marks a text as a peerpost invite.
const INVITE_PREFIX: &str = "pi_";

/// What lets somebody register where not everybody may: 128 random bits, printed as `pi_` and 22
/// characters of URL-safe base64. Shown once; the server keeps only its [`InviteHash`].
#[derive(Clone, PartialEq, Eq)]
pub struct Invite([u8; INVITE_BYTES]);

/// The SHA-256 of an invite's bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct InviteHash([u8; 32]);

/// A text that is no invite. It does not show the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("is not an invite: `{INVITE_PREFIX}` and 22 characters of URL-safe base64")]
pub struct InviteError;

impl Invite {
    /// A new one from the operating system's random source.
    ///
    /// # Panics
    /// As [`Token::mint`](super::Token::mint).
    pub fn mint() -> Self {
        let mut secret = [0; INVITE_BYTES];
        getrandom::fill(&mut secret).expect("the operating system has random bits");
        Self(secret)
    }

    /// Parses the printed form.
    ///
    /// # Errors
    /// [`InviteError`] for anything else.
    pub fn parse(text: &str) -> Result<Self, InviteError> {
        let encoded = text.strip_prefix(INVITE_PREFIX).ok_or(InviteError)?;
        let secret = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| InviteError)?;
        secret.try_into().map(Self).map_err(|_| InviteError)
    }

    /// The printed form, for whoever is invited.
    pub fn reveal(&self) -> String {
        format!("{INVITE_PREFIX}{}", URL_SAFE_NO_PAD.encode(self.0))
    }

    /// What is stored of it.
    pub fn hash(&self) -> InviteHash {
        InviteHash(Sha256::digest(self.0).into())
    }
}

impl InviteHash {
    /// The hash's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Invite(…)")
    }
}

impl fmt::Debug for InviteHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InviteHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_text() {
        let id = AccessId::mint();
        assert_eq!(AccessId::parse(&id.to_string()), Ok(id));
        let simple = id.to_string().replace('-', "");
        for other in ["", "x", &simple, &format!("{{{id}}}"), &format!("{id} ")] {
            assert_eq!(AccessId::parse(other), Err(AccessIdError), "{other:?}");
        }
    }

    #[test]
    fn a_label_shows_what_it_holds() {
        for good in ["", "laptop", "Täglicher Bericht 📊", "a-b_c (2)"] {
            assert_eq!(Label::parse(good, 64).expect(good).as_str(), good);
        }
        assert_eq!(Label::parse("ää", 1), Err(LabelError::TooLong { characters: 2, max: 1 }));
        for bad in ["a\n", "\0", "a\u{202e}b", "\u{200b}", "\u{feff}"] {
            assert!(matches!(Label::parse(bad, 64), Err(LabelError::Character(_))), "{bad:?}");
        }
    }

    #[test]
    fn an_invite_prints_and_parses_back_and_does_not_show_itself() {
        let invite = Invite::mint();
        assert_eq!(invite.reveal().len(), 25);
        assert_eq!(Invite::parse(&invite.reveal()), Ok(invite.clone()));
        assert_eq!(format!("{invite:?}{:?}", invite.hash()), "Invite(…)InviteHash(…)");
        for other in ["", "pi_", &invite.reveal()[3..], &format!("{}A", invite.reveal())] {
            assert_eq!(Invite::parse(other), Err(InviteError), "{other:?}");
        }
    }
}
