//! One's own tokens, and the end of one's account.

use std::time::{Duration, SystemTime};

use super::message::to_system_time;
use super::retry::Repeat;
use super::{Client, Error, Token};
use crate::proto;

/// A token as its owner sees it listed: without the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenInfo {
    /// Names the token, without giving it away.
    pub token_id: String,
    /// What it is for; empty: not said.
    pub display_name: String,
    /// When it was made, by the server's clock.
    pub create_time: SystemTime,
    /// From when on it is good no more; `None`: never.
    pub expire_time: Option<SystemTime>,
    /// Whether it is the one that the client uses.
    pub current: bool,
}

impl TryFrom<proto::Token> for TokenInfo {
    type Error = Error;

    fn try_from(token: proto::Token) -> Result<Self, Error> {
        Ok(Self {
            token_id: token.token_id,
            display_name: token.display_name,
            create_time: to_system_time(token.create_time)?,
            expire_time: match token.expire_time {
                Some(time) => Some(to_system_time(Some(time))?),
                None => None,
            },
            current: token.current,
        })
    }
}

impl Client {
    /// Makes one more token for the caller, good for `ttl`, or until it is revoked. What is listed of it,
    /// and the token itself, which is shown only now.
    ///
    /// It is tried again only while no connection can be opened: a first attempt whose answer was lost may
    /// have made a token, which [`tokens`](Self::tokens) shows.
    ///
    /// # Errors
    /// [`Error::Refused`] with `TOKEN_LIMIT` or `INVALID_FIELD`; the others of any call.
    pub async fn create_token(
        &self,
        display_name: &str,
        ttl: Option<Duration>,
    ) -> Result<(TokenInfo, Token), Error> {
        use proto::create_token_request::Expiration;
        let ttl = ttl.map(prost_types::Duration::try_from).transpose();
        let ttl = ttl.map_err(|_| Error::Malformed("a time to live outside the calendar"))?;
        let request = proto::CreateTokenRequest {
            display_name: display_name.to_owned(),
            expiration: ttl.map(Expiration::Ttl),
        };
        let response = self
            .call(Repeat::WhenNotSent, request, |mut grpc, request| async move {
                grpc.create_token(request).await
            })
            .await?;
        let token = response.token.ok_or(Error::Malformed("a new token without its id"))?;
        let secret = Token::parse(&response.secret);
        let secret = secret.map_err(|_| Error::Malformed("a token that is none"))?;
        Ok((token.try_into()?, secret))
    }

    /// The caller's tokens, the oldest first.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn tokens(&self) -> Result<Vec<TokenInfo>, Error> {
        let (mut tokens, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = proto::ListTokensRequest { page_size: 0, page_token };
            let page = self
                .call(Repeat::WhenRetriable, request, |mut grpc, request| async move {
                    grpc.list_tokens(request).await
                })
                .await?;
            for token in page.tokens {
                tokens.push(token.try_into()?);
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(tokens);
            }
        }
    }

    /// Ends one of the caller's tokens: its calls are refused and its streams end.
    ///
    /// # Errors
    /// [`Error::Refused`] with `TOKEN_NOT_FOUND`, also for one that is revoked already; the others of any
    /// call.
    pub async fn revoke_token(&self, token_id: &str) -> Result<(), Error> {
        let request = proto::RevokeTokenRequest { token_id: token_id.to_owned() };
        self.call(Repeat::WhenRetriable, request, |mut grpc, request| async move {
            grpc.revoke_token(request).await
        })
        .await?;
        Ok(())
    }

    /// Deletes the caller, whose own name confirms it. It cannot be undone, and the name stays taken for
    /// ever.
    ///
    /// # Errors
    /// [`Error::Refused`] with `INVALID_FIELD` when it is another name, with `TOKEN_UNKNOWN` when it is done
    /// already; the others of any call.
    pub async fn delete_user(&self, own_name: &str) -> Result<(), Error> {
        let request = proto::DeleteUserRequest { username: own_name.to_owned() };
        self.call(Repeat::WhenRetriable, request, |mut grpc, request| async move {
            grpc.delete_user(request).await
        })
        .await?;
        Ok(())
    }
}
