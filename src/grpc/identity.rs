//! Who calls, by what a call's metadata says.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::error::CallError;
use crate::auth::{AuthError, Authenticator, Credential};
use crate::domain::{Token, User, Username};

/// The scheme of RFC 6750, compared without regard to case (RFC 9110, section 11.1).
const BEARER: &str = "bearer";

/// In which a caller names themselves.
static PEERPOST_USER: HeaderName = HeaderName::from_static(PEERPOST_USER_NAME);
const PEERPOST_USER_NAME: &str = "peerpost-user";

/// What a call says of its caller. A name proves nothing: it is held against the token, and stands alone
/// only where the server is open.
pub(super) struct Claim {
    token: Result<Token, CallError>,
    name: Option<Result<Username, CallError>>,
}

impl Claim {
    /// Reads a call's metadata.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self { token: bearer(headers), name: headers.get(&PEERPOST_USER).map(name) }
    }

    /// The claim of a call that is open to all: there a name says nothing without a token.
    pub(super) fn of_token(headers: &HeaderMap) -> Self {
        let claim = Self::of(headers);
        let name = claim.name.filter(|_| claim.token.is_ok());
        Self { token: claim.token, name }
    }

    /// By what the caller is known, once they are.
    pub(super) fn credential(&self) -> Credential {
        match &self.token {
            Ok(token) => Credential::Token(token.hash()),
            Err(_) => Credential::Name,
        }
    }

    /// The caller, if that is known without asking the store and there is nothing to refuse.
    pub(super) fn remembered(&self, authenticator: &Authenticator) -> Option<User> {
        match (&self.token, &self.name) {
            (Ok(token), None) => authenticator.remembered(token),
            (Ok(token), Some(Ok(name))) => {
                authenticator.remembered(token).filter(|user| is_of(name, user))
            }
            (Err(CallError::TokenMissing), Some(Ok(name))) if authenticator.is_open() => {
                authenticator.remembered_by_name(name)
            }
            _ => None,
        }
    }

    /// The caller, according to the store.
    pub(super) async fn recognise(self, authenticator: &Authenticator) -> Result<User, CallError> {
        match (self.token, self.name) {
            (Ok(token), name) => {
                let user = authenticator.authenticate(&token).await?;
                match name.transpose()? {
                    Some(name) if !is_of(&name, &user) => Err(AuthError::AnotherUser(name).into()),
                    _ => Ok(user),
                }
            }
            (Err(CallError::TokenMissing), name) if authenticator.is_open() => {
                let name = name.unwrap_or(Err(CallError::NameMissing))?;
                Ok(authenticator.by_name(&name).await?)
            }
            (Err(error), _) => Err(error),
        }
    }
}

fn is_of(name: &Username, user: &User) -> bool {
    user.name.as_str().eq_ignore_ascii_case(name.as_str())
}

/// The token among a call's metadata.
fn bearer(headers: &HeaderMap) -> Result<Token, CallError> {
    let value = headers.get(header::AUTHORIZATION).ok_or(CallError::TokenMissing)?;
    let text = value.to_str().map_err(|_| CallError::TokenMalformed)?;
    let (scheme, token) = text.trim().split_once(' ').ok_or(CallError::TokenMalformed)?;
    if !scheme.eq_ignore_ascii_case(BEARER) {
        return Err(CallError::TokenMalformed);
    }
    Token::parse(token.trim_start()).map_err(|_| CallError::TokenMalformed)
}

fn name(value: &HeaderValue) -> Result<Username, CallError> {
    // What is no text has characters that no name has.
    let text = String::from_utf8_lossy(value.as_bytes());
    Username::parse(text.trim())
        .map_err(|problem| CallError::invalid_field(PEERPOST_USER_NAME, problem.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        let value = HeaderValue::from_str(value).expect("a header's value");
        HeaderMap::from_iter([(header::AUTHORIZATION, value)])
    }

    #[test]
    fn finds_the_bearer_token() {
        let token = Token::mint().reveal();
        for scheme in ["Bearer", "bearer", "BEARER"] {
            assert!(bearer(&headers(&format!("{scheme} {token}"))).is_ok(), "{scheme}");
        }
        assert!(matches!(bearer(&HeaderMap::new()), Err(CallError::TokenMissing)));
        for malformed in ["", "Bearer", "Bearer ", "Basic YTpi", "pp_x"] {
            let found = bearer(&headers(malformed));
            assert!(matches!(found, Err(CallError::TokenMalformed)), "{malformed:?}");
        }
    }
}
