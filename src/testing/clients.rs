use std::time::Duration;

use super::patience;
use crate::client::{Client, Options};

/// How soon a client tries again where a test waits for it.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

/// Options for the Rust client that suit tests: it tries again at once, and for as long as a test may
/// take.
pub fn client_options() -> Options {
    let (min, max) = BACKOFF;
    Options::default().backoff(min, max).retry_deadline(patience())
}

/// Registers a new user at the server, or the [`Proxy`](super::Proxy) before it, with this URI, and
/// returns the Rust client as that user, with [`client_options`].
pub async fn register(uri: &str, name: &str) -> Client {
    let client = Client::connect_with(uri, client_options()).expect("the URI of a server");
    let (_, token) = client.register(name, "").await.expect("the name is free");
    client.with_token(&token.expect("a new name has a token"))
}
