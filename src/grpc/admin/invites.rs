//! Invites.

use super::{Administration, Operator};
use crate::auth::InviteRequest;
use crate::domain::limits::{INVITE_USES_MAX, NOTE_CHARACTERS_MAX};
use crate::grpc::error::CallError;
use crate::grpc::{decode, encode};
use crate::proto::admin as proto;
use crate::store::accounts::invites::InviteInfo;

impl Administration {
    pub(super) async fn create_invite(
        &self,
        operator: Operator,
        request: &proto::CreateInviteRequest,
    ) -> Result<proto::CreateInviteResponse, CallError> {
        let uses_max = match u32::try_from(request.uses_max) {
            Ok(0) => 1,
            Ok(uses) if uses <= INVITE_USES_MAX => uses,
            _ => {
                let problem = format!("is {}; at most {INVITE_USES_MAX}", request.uses_max);
                return Err(CallError::invalid_field("uses_max", problem));
            }
        };
        let wanted = InviteRequest {
            note: decode::label("note", &request.note, NOTE_CHARACTERS_MAX)?,
            uses_max,
            expire_time: decode::ttl(request.ttl.as_ref())?,
        };
        let (info, secret) = self.authenticator.create_invite(wanted, operator.into()).await?;
        let (invite, secret) = (Some(invite(&info)), secret.reveal());
        Ok(proto::CreateInviteResponse { invite, secret })
    }

    pub(super) async fn invites(
        &self,
        request: &proto::ListInvitesRequest,
    ) -> Result<proto::ListInvitesResponse, CallError> {
        let (page_size, after) = decode::page_of_ids(request.page_size, &request.page_token)?;
        let mut invites = self.store.invites(after, page_size + 1).await?;
        let has_more = invites.len() > page_size;
        invites.truncate(page_size);
        let last = invites.last().filter(|_| has_more);
        Ok(proto::ListInvitesResponse {
            next_page_token: last.map(|it| it.id.to_string()).unwrap_or_default(),
            invites: invites.iter().map(invite).collect(),
        })
    }

    pub(super) async fn revoke_invite(
        &self,
        operator: Operator,
        request: &proto::RevokeInviteRequest,
    ) -> Result<proto::RevokeInviteResponse, CallError> {
        let id = decode::id("invite_id", &request.invite_id)?;
        self.authenticator.revoke_invite(id, operator.into()).await?;
        Ok(proto::RevokeInviteResponse {})
    }
}

fn invite(info: &InviteInfo) -> proto::Invite {
    let count = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
    proto::Invite {
        invite_id: info.id.to_string(),
        note: info.note.as_str().to_owned(),
        create_time: Some(encode::timestamp(info.create_time)),
        expire_time: info.expire_time.map(encode::timestamp),
        uses_max: count(info.uses_max),
        uses: count(info.uses),
    }
}
