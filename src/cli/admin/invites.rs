use std::time::Duration;

use serde::Serialize;

use super::{Place, output, render};
use crate::cli::duration;
use crate::cli::escape::printable;
use crate::domain::limits::INVITE_USES_MAX;
use crate::proto::admin::{CreateInviteRequest, Invite, ListInvitesRequest, RevokeInviteRequest};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  peerpost admin invites create --note 'the new team' --uses 10 --ttl 7d
  peerpost admin invites list
  peerpost admin invites revoke 0190a1b2-…

An invite is printed once, on stdout, when it is made: `peerpost register NAME --invite INVITE`. It is needed
where the server was started with --registration invite.")]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make an invite.
    Create {
        /// What it is for: at most 256 characters.
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        note: String,
        /// How many names it lets in, up to 1000000.
        #[arg(
            long,
            value_name = "N",
            default_value = "1",
            value_parser = clap::value_parser!(i32).range(1..=i64::from(INVITE_USES_MAX))
        )]
        uses: i32,
        /// How long it is good, such as 12h or 30d, up to a hundred years [default: until it is used up or
        /// revoked].
        #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
        ttl: Option<Duration>,
    },
    /// List the invites, also those that let nobody in any more.
    List {
        /// Print a JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// End an invite. Who registered with it stays.
    Revoke {
        /// Its id, as it is listed.
        invite_id: String,
    },
}

#[derive(Serialize)]
struct InviteJson<'a> {
    invite_id: &'a str,
    note: &'a str,
    create_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expire_time: Option<String>,
    uses: i32,
    uses_max: i32,
}

pub(super) async fn run(place: &Place, args: &Args) -> anyhow::Result<()> {
    let admin = place.connect().await?;
    match &args.action {
        Action::Create { note, uses, ttl } => {
            let request = CreateInviteRequest {
                note: note.clone(),
                uses_max: *uses,
                ttl: ttl.map(prost_types::Duration::try_from).transpose()?,
            };
            let made =
                admin.call(|mut grpc| async move { grpc.create_invite(request).await }).await?;
            let id = made.invite.unwrap_or_default().invite_id;
            output::note(&format!("invite {id}, shown only now:"));
            output::line(&made.secret)
        }
        Action::List { json } => {
            let mut request = ListInvitesRequest::default();
            loop {
                let asked = request.clone();
                let page =
                    admin.call(|mut grpc| async move { grpc.list_invites(asked).await }).await?;
                for invite in &page.invites {
                    output::line(&shown(invite, *json)?)?;
                }
                request.page_token = page.next_page_token;
                if request.page_token.is_empty() {
                    return Ok(());
                }
            }
        }
        Action::Revoke { invite_id } => {
            let request = RevokeInviteRequest { invite_id: invite_id.clone() };
            admin.call(|mut grpc| async move { grpc.revoke_invite(request).await }).await?;
            output::note(&format!("invite {invite_id} is good no more"));
            Ok(())
        }
    }
}

fn shown(invite: &Invite, json: bool) -> anyhow::Result<String> {
    let create_time = render::proto_time(invite.create_time.as_ref())?;
    let expire_time = invite.expire_time.as_ref().map(|time| render::proto_time(Some(time)));
    let expire_time = expire_time.transpose()?;
    let Invite { invite_id, note, uses, uses_max, .. } = invite;
    if json {
        let (uses, uses_max) = (*uses, *uses_max);
        let json = InviteJson { invite_id, note, create_time, expire_time, uses, uses_max };
        return render::to_json(&json);
    }
    let expires = expire_time.map(|time| format!("  until {time}")).unwrap_or_default();
    let note = printable(note);
    let line = format!("{invite_id}  {create_time}{expires}  {uses} of {uses_max} used  {note}");
    Ok(line.trim_end().to_owned())
}
