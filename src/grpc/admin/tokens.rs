//! Users' tokens.

use super::{Administration, Operator};
use crate::auth::{IssuedToken, TokenRequest};
use crate::domain::limits::TOKEN_NAME_CHARACTERS_MAX;
use crate::grpc::error::CallError;
use crate::grpc::{decode, encode};
use crate::proto::admin as proto;
use crate::proto::admin::revoke_account_tokens_request as revoke;
use crate::store::accounts::tokens::TokenInfo;
use crate::store::{Subject, Which};

impl Administration {
    pub(super) async fn tokens(
        &self,
        request: &proto::ListAccountTokensRequest,
    ) -> Result<proto::ListAccountTokensResponse, CallError> {
        let (account, _) = self.find(decode::username(&request.username)?).await?;
        let tokens = self.authenticator.tokens(account.user.id).await?;
        Ok(proto::ListAccountTokensResponse { tokens: tokens.iter().map(token).collect() })
    }

    pub(super) async fn create_token(
        &self,
        operator: Operator,
        request: &proto::CreateAccountTokenRequest,
    ) -> Result<proto::CreateAccountTokenResponse, CallError> {
        let subject = Subject::Named(decode::username(&request.username)?);
        let name = &request.display_name;
        let wanted = TokenRequest {
            name: decode::label("display_name", name, TOKEN_NAME_CHARACTERS_MAX)?,
            expire_time: decode::ttl(request.ttl.as_ref())?,
        };
        let revoke_others = request.revoke_others;
        let creating =
            self.authenticator.create_token(subject, wanted, revoke_others, operator.into());
        let IssuedToken { info, secret } = creating.await?;
        let (token, secret) = (Some(token(&info)), secret.reveal());
        Ok(proto::CreateAccountTokenResponse { token, secret })
    }

    pub(super) async fn revoke_tokens(
        &self,
        operator: Operator,
        request: &proto::RevokeAccountTokensRequest,
    ) -> Result<proto::RevokeAccountTokensResponse, CallError> {
        let subject = Subject::Named(decode::username(&request.username)?);
        let which = match &request.which {
            Some(revoke::Which::TokenId(id)) => Which::One(decode::id("token_id", id)?),
            Some(revoke::Which::All(true)) => Which::All,
            Some(revoke::Which::All(false)) | None => {
                let problem = "is required: a token_id, or all";
                return Err(CallError::invalid_field("which", problem));
            }
        };
        let revoked = self.authenticator.revoke_tokens(subject, which, operator.into()).await?;
        let revoked = i32::try_from(revoked).unwrap_or(i32::MAX);
        Ok(proto::RevokeAccountTokensResponse { revoked })
    }
}

fn token(info: &TokenInfo) -> proto::AccountToken {
    let TokenInfo { token, create_time } = info;
    proto::AccountToken {
        token_id: token.id.to_string(),
        display_name: token.name.as_str().to_owned(),
        create_time: Some(encode::timestamp(*create_time)),
        expire_time: token.expire_time.map(encode::timestamp),
    }
}
