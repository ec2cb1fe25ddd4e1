//! What the app's users are called here.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::domain::Username;
use crate::store::flask::Value;

/// So much of a name that is none here can be recognised in the one that stands for it.
const RECOGNISABLE_CHARACTERS_MAX: usize = 40;

/// What tells the names apart of which the same can be recognised.
const DIGEST_BYTES: usize = 6;

/// So much of a name is shown.
const SHOWN_CHARACTERS_MAX: usize = 80;

/// A name's bytes in the app's database, or what it has instead of a name.
pub(super) fn bytes(value: &Value) -> Result<&[u8], &'static str> {
    let bytes = match value {
        Value::Null => return Err("is NULL"),
        Value::TooLong => return Err("is longer than a message can be"),
        Value::Text(text) => text.as_bytes(),
        Value::Bytes(bytes) => bytes,
    };
    if bytes.is_empty() { Err("is empty") } else { Ok(bytes) }
}

/// The same name here, or why it cannot be one.
pub(super) fn same(source_name: &[u8]) -> Result<Username, String> {
    let text = std::str::from_utf8(source_name).map_err(|_| "is not UTF-8".to_owned())?;
    Username::parse(text).map_err(|error| error.to_string())
}

/// A name here that stands for one of there: the same for the same, another for any other.
pub(super) fn stand_in(source_name: &[u8]) -> Username {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let text = String::from_utf8_lossy(source_name);
    let recognisable: String = text
        .trim()
        .chars()
        .map(|c| if allowed(c) { c } else { '_' })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(RECOGNISABLE_CHARACTERS_MAX)
        .collect();
    let mut name = if recognisable.is_empty() { "user".to_owned() } else { recognisable };
    name.push('-');
    for byte in &Sha256::digest(source_name)[..DIGEST_BYTES] {
        // Writing to a String does not fail.
        let _ = write!(name, "{byte:02x}");
    }
    Username::parse(&name).expect("it is made of what names are made of")
}

/// A name as it is shown: in quotes, on one line, and not without end.
pub(super) fn shown(source_name: &[u8]) -> String {
    let text = String::from_utf8_lossy(source_name);
    match text.char_indices().nth(SHOWN_CHARACTERS_MAX) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stand_in_is_a_name_that_can_be_recognised() {
        for (source_name, begins) in [
            ("bob smith", "bob_smith-"),
            (" -bob", "bob-"),
            ("李", "user-"),
            ("", "user-"),
            (&"x".repeat(200), &format!("{}-", "x".repeat(40))),
            ("bob\u{202e}\n", "bob_"),
        ] {
            let name = stand_in(source_name.as_bytes());
            assert!(name.as_str().starts_with(begins), "{name} for {source_name:?}");
            assert_eq!(name.key(), stand_in(source_name.as_bytes()).key());
        }
        assert_ne!(stand_in("李".as_bytes()).key(), stand_in("王".as_bytes()).key());
        assert_ne!(stand_in(b"Bob").key(), stand_in(b"bob").key());
    }

    #[test]
    fn a_name_is_shown_on_one_line() {
        assert_eq!(shown(b"a\n\x1b\xff"), "\"a\\n\\u{1b}\u{fffd}\"");
        assert!(shown("é".repeat(1000).as_bytes()).chars().count() < 90);
    }
}
