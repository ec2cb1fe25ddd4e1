use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use super::content::is_ascii_of;
use super::limits::USERNAME_CHARACTERS_MAX;

/// A user's name: 1 to 64 characters out of `A-Z a-z 0-9 . _ -`, beginning with a letter or a
/// digit. Shown in the case in which it was registered; compared by [`Username::key`].
#[derive(Clone)]
pub struct Username(Arc<str>);

/// Why a text is not a username.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UsernameError {
    /// There is no text.
    #[error("is required: 1 to {USERNAME_CHARACTERS_MAX} characters")]
    Empty,
    /// There is too much.
    #[error("has {characters} characters, at most {USERNAME_CHARACTERS_MAX} are allowed")]
    TooLong {
        /// How many there are.
        characters: usize,
    },
    /// A character that names do not have.
    #[error("has the character {0:?}; only A-Z a-z 0-9 . _ - are allowed")]
    Character(char),
    /// The first character is punctuation.
    #[error("begins with {0:?}; the first character must be a letter or a digit")]
    Start(char),
}

impl Username {
    /// Parses a name as it is registered.
    ///
    /// # Errors
    /// [`UsernameError`] says which rule the text breaks.
    pub fn parse(text: &str) -> Result<Self, UsernameError> {
        let first = text.chars().next().ok_or(UsernameError::Empty)?;
        check_characters(text)?;
        if !first.is_ascii_alphanumeric() {
            return Err(UsernameError::Start(first));
        }
        Ok(Self(text.into()))
    }

    /// The name as registered.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form in which names are unique: ASCII lower case.
    pub fn key(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

impl fmt::Display for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The beginning of a username, in lower case; empty for all names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsernamePrefix(String);

impl UsernamePrefix {
    /// Parses a prefix. Unlike a name it may be empty; it may begin with punctuation, and then
    /// matches nothing.
    ///
    /// # Errors
    /// [`UsernameError`] for too many characters or one that names do not have.
    pub fn parse(text: &str) -> Result<Self, UsernameError> {
        check_characters(text)?;
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// The prefix in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check_characters(text: &str) -> Result<(), UsernameError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if is_ascii_of(text, USERNAME_CHARACTERS_MAX, allowed) {
        return Ok(());
    }
    let characters = text.chars().count();
    if characters > USERNAME_CHARACTERS_MAX {
        return Err(UsernameError::TooLong { characters });
    }
    match text.chars().find(|c| !allowed(*c)) {
        Some(c) => Err(UsernameError::Character(c)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_the_contract_names_and_keeps_its_case() {
        for text in ["a", "7", "Alice", "a.b_c-d", &"x".repeat(64)] {
            assert_eq!(Username::parse(text).expect("valid").as_str(), text);
        }
        assert_eq!(Username::parse("AlIce").expect("valid").key(), "alice");
    }

    #[test]
    fn refuses_everything_else() {
        use UsernameError as E;
        let refused = [
            ("", E::Empty),
            (&"x".repeat(65), E::TooLong { characters: 65 }),
            (".a", E::Start('.')),
            ("-a", E::Start('-')),
            ("_a", E::Start('_')),
            ("a b", E::Character(' ')),
            ("a\0", E::Character('\0')),
            ("älice", E::Character('ä')),
            ("a\u{202e}b", E::Character('\u{202e}')),
        ];
        for (text, error) in refused {
            assert_eq!(Username::parse(text).expect_err(text), error);
        }
    }
}
