//! Texts from outside: what parses shows itself as a text that means the same, within its bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use peerpost::client;
use peerpost::domain::limits::{
    CONTENT_TYPE_CHARACTERS_MAX, REQUEST_ID_CHARACTERS_MAX, USERNAME_CHARACTERS_MAX,
};
use peerpost::domain::{
    Body, ContentType, PeerAddress, RequestId, Sequence, Token, Username, UsernamePrefix,
};

/// Small, so that both sides of it are tried often.
const BODY_BYTES_MAX: usize = 16;

fuzz_target!(|text: &str| {
    if let Ok(name) = Username::parse(text) {
        assert_eq!(name.as_str(), text);
        assert_eq!(name.to_string(), text);
        assert!(text.len() <= USERNAME_CHARACTERS_MAX && text.is_ascii());
        let key = Username::parse(&name.key()).expect("a key is a name");
        assert_eq!(key.key(), name.key());
        assert!(UsernamePrefix::parse(text).is_ok(), "a name is a prefix of itself");
    }
    if let Ok(prefix) = UsernamePrefix::parse(text) {
        assert_eq!(prefix.as_str(), text.to_ascii_lowercase());
        assert_eq!(UsernamePrefix::parse(prefix.as_str()), Ok(prefix.clone()));
    }
    if let Ok(address) = PeerAddress::parse(text) {
        let shown = address.to_string();
        assert_eq!(PeerAddress::parse(&shown), Ok(address), "{text:?} is shown as {shown:?}");
        assert!(shown.len() <= "[1111:2222:3333:4444:5555:6666:7777:8888]:65535".len());
    }
    if let Ok(content_type) = ContentType::parse(text.to_owned()) {
        assert_eq!(content_type.as_str(), text);
        assert!(text.len() <= CONTENT_TYPE_CHARACTERS_MAX);
    }
    if let Ok(Some(request_id)) = RequestId::parse(text.to_owned()) {
        assert_eq!(request_id.as_str(), text);
        assert!((1..=REQUEST_ID_CHARACTERS_MAX).contains(&text.len()));
    }
    if let Ok(token) = Token::parse(text) {
        assert_eq!(token.reveal(), text, "two texts for one token");
    }
    let body = Body::text(text.to_owned(), BODY_BYTES_MAX);
    assert_eq!(body.is_ok(), (1..=BODY_BYTES_MAX).contains(&text.len()));
    if let Ok(number) = text.parse() {
        assert_eq!(Sequence::parse(number).is_ok(), number >= 0);
    }
    // What stands in a token file. The metadata that it becomes is made without an error.
    if let Ok(token) = client::Token::parse(text) {
        assert_eq!(token.reveal(), text.trim());
        assert_eq!(client::Token::parse(&format!("{}\n", token.reveal())), Ok(token));
    }
});
