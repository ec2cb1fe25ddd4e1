//! What callers do about their own tokens, and the end of their account.

use super::error::CallError;
use super::{decode, encode};
use crate::auth::{Authenticator, Credential, IssuedToken};
use crate::domain::User;
use crate::proto;
use crate::store::accounts::audit::Actor;
use crate::store::accounts::tokens::TokenInfo;
use crate::store::{Subject, Which};

pub(super) async fn create(
    authenticator: &Authenticator,
    caller: User,
    request: &proto::CreateTokenRequest,
) -> Result<proto::CreateTokenResponse, CallError> {
    let wanted = decode::create_token(request)?;
    let (subject, actor) = (Subject::Caller(caller.clone()), Actor::User(caller));
    let issued = authenticator.create_token(subject, wanted, false, actor).await?;
    let IssuedToken { info, secret } = issued;
    Ok(proto::CreateTokenResponse {
        token: Some(token(&info, Credential::Name)),
        secret: secret.reveal(),
    })
}

pub(super) async fn list(
    authenticator: &Authenticator,
    (caller, credential): (User, Credential),
    request: &proto::ListTokensRequest,
) -> Result<proto::ListTokensResponse, CallError> {
    let (page_size, after) = decode::page_of_ids(request.page_size, &request.page_token)?;
    // There are a few: each page is a part of all of them.
    let mut tokens = authenticator.tokens(caller.id).await?;
    tokens.retain(|it| after.is_none_or(|after| it.token.id > after));
    let has_more = tokens.len() > page_size;
    tokens.truncate(page_size);
    let last = tokens.last().filter(|_| has_more);
    Ok(proto::ListTokensResponse {
        next_page_token: last.map(|it| it.token.id.to_string()).unwrap_or_default(),
        tokens: tokens.iter().map(|it| token(it, credential)).collect(),
    })
}

pub(super) async fn revoke(
    authenticator: &Authenticator,
    caller: User,
    request: &proto::RevokeTokenRequest,
) -> Result<proto::RevokeTokenResponse, CallError> {
    let id = decode::id("token_id", &request.token_id)?;
    let (subject, actor) = (Subject::Caller(caller.clone()), Actor::User(caller));
    authenticator.revoke_tokens(subject, Which::One(id), actor).await?;
    Ok(proto::RevokeTokenResponse {})
}

pub(super) async fn delete(
    authenticator: &Authenticator,
    caller: User,
    request: &proto::DeleteUserRequest,
) -> Result<proto::DeleteUserResponse, CallError> {
    let confirmed = decode::username(&request.username)?;
    if confirmed.key() != caller.name.key() {
        let problem = "is not the caller's own name, which confirms that they are to be deleted";
        return Err(CallError::invalid_field("username", problem));
    }
    let (subject, actor) = (Subject::Caller(caller.clone()), Actor::User(caller));
    authenticator.delete_user(subject, actor).await?;
    Ok(proto::DeleteUserResponse {})
}

/// A token as it is listed.
fn token(info: &TokenInfo, credential: Credential) -> proto::Token {
    let TokenInfo { token, create_time } = info;
    proto::Token {
        token_id: token.id.to_string(),
        display_name: token.name.as_str().to_owned(),
        create_time: Some(encode::timestamp(*create_time)),
        expire_time: token.expire_time.map(encode::timestamp),
        current: credential == Credential::Token(token.hash),
    }
}
