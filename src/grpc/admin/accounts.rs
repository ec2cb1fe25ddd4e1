//! Users: looking at them, banning them, ending them.

use super::{Administration, Operator};
use crate::domain::limits::NOTE_CHARACTERS_MAX;
use crate::domain::{Label, Standing, Username};
use crate::grpc::error::CallError;
use crate::grpc::{decode, encode};
use crate::messenger::{MessengerError, Role};
use crate::proto::admin as proto;
use crate::store::Subject;
use crate::store::accounts::Account;

impl Administration {
    pub(super) async fn account(
        &self,
        request: &proto::GetAccountRequest,
    ) -> Result<proto::GetAccountResponse, CallError> {
        let (account, tokens) = self.find(decode::username(&request.username)?).await?;
        Ok(proto::GetAccountResponse {
            account: Some(self.shown(&account)),
            tokens: i32::try_from(tokens).unwrap_or(i32::MAX),
        })
    }

    /// The account of this name, gone or not, and how many tokens it has.
    pub(super) async fn find(&self, name: Username) -> Result<(Account, usize), CallError> {
        let found = self.store.account(name.clone()).await?;
        let absent = || MessengerError::NoSuchUser { name, role: Role::Subject };
        Ok(found.ok_or_else(absent)?)
    }

    pub(super) async fn accounts(
        &self,
        request: proto::ListAccountsRequest,
    ) -> Result<proto::ListAccountsResponse, CallError> {
        let proto::ListAccountsRequest { prefix, page_size, page_token } = request;
        let request = crate::proto::ListUsersRequest { prefix, page_size, page_token };
        let (prefix, after, page_size) = decode::list_users(&request)?;
        let mut accounts = self.store.accounts(prefix, after, page_size + 1).await?;
        let has_more = accounts.len() > page_size;
        accounts.truncate(page_size);
        let next_after = accounts.last().filter(|_| has_more).map(|last| last.user.name.key());
        Ok(proto::ListAccountsResponse {
            accounts: accounts.iter().map(|account| self.shown(account)).collect(),
            next_page_token: next_after
                .map(|after| decode::encode_page_token(&after))
                .unwrap_or_default(),
        })
    }

    pub(super) async fn ban(
        &self,
        operator: Operator,
        request: &proto::BanAccountRequest,
    ) -> Result<proto::BanAccountResponse, CallError> {
        let name = decode::username(&request.username)?;
        let reason = decode::label("reason", &request.reason, NOTE_CHARACTERS_MAX)?;
        let account = self.set_ban(operator, name, Some(reason)).await?;
        Ok(proto::BanAccountResponse { account: Some(account) })
    }

    pub(super) async fn unban(
        &self,
        operator: Operator,
        request: &proto::UnbanAccountRequest,
    ) -> Result<proto::UnbanAccountResponse, CallError> {
        let name = decode::username(&request.username)?;
        let account = self.set_ban(operator, name, None).await?;
        Ok(proto::UnbanAccountResponse { account: Some(account) })
    }

    async fn set_ban(
        &self,
        operator: Operator,
        name: Username,
        reason: Option<Label>,
    ) -> Result<proto::Account, CallError> {
        let account = self.authenticator.set_ban(name, reason, operator.into()).await?;
        Ok(self.shown(&account))
    }

    pub(super) async fn delete(
        &self,
        operator: Operator,
        request: &proto::DeleteAccountRequest,
    ) -> Result<proto::DeleteAccountResponse, CallError> {
        let subject = Subject::Named(decode::username(&request.username)?);
        self.authenticator.delete_user(subject, operator.into()).await?;
        Ok(proto::DeleteAccountResponse {})
    }

    fn shown(&self, account: &Account) -> proto::Account {
        let seen = self.hub.last_seen(account.user.id);
        let is_there = account.standing != Standing::Deleted;
        let last_seen_time = seen.max(account.last_seen_time).filter(|_| is_there);
        proto::Account {
            username: account.user.name.as_str().to_owned(),
            standing: match account.standing {
                Standing::Active => proto::AccountStanding::Active,
                Standing::Banned => proto::AccountStanding::Banned,
                Standing::Deleted => proto::AccountStanding::Deleted,
            }
            .into(),
            standing_time: account.standing_time.map(encode::timestamp),
            reason: account.reason.as_str().to_owned(),
            ip_address: account.address.map(|address| address.to_string()).unwrap_or_default(),
            register_time: Some(encode::timestamp(account.register_time)),
            last_seen_time: last_seen_time.map(encode::timestamp),
            online: seen.is_some() && is_there,
        }
    }
}
