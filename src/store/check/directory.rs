//! Users and tokens.

use diesel::connection::DefaultLoadingMode;
use diesel::prelude::*;

use super::{CheckReport, Finding, Mailbox, Mailboxes, unless_unreadable};
use crate::domain::{PeerAddress, Username};
use crate::store::schema::{tokens, users};
use crate::store::{directory, user_limits};

pub(super) fn examine(
    connection: &mut SqliteConnection,
    mailboxes: &mut Mailboxes,
    report: &mut CheckReport,
) -> QueryResult<()> {
    users(connection, mailboxes, report)?;
    tokens(connection, mailboxes, report)?;
    let is_known = |user| mailboxes.contains_key(&user);
    user_limits::examine(connection, is_known, |id, problem| {
        report.add(Finding::User { id, problem });
    })
}

fn users(
    connection: &mut SqliteConnection,
    mailboxes: &mut Mailboxes,
    report: &mut CheckReport,
) -> QueryResult<()> {
    type Row = (i64, String, String, String, i64);
    let rows = users::table
        .select((
            users::id,
            users::name,
            users::name_key,
            users::ip_address,
            users::acknowledged_through,
        ))
        .order(users::id.asc())
        .load_iter::<Row, DefaultLoadingMode>(connection)?;
    for row in rows {
        let Some((id, name, key, address, acknowledged_through)) = unless_unreadable(row)? else {
            report.add(Finding::Unreadable {
                part: "a user's row",
                reason: "a value of another kind".to_owned(),
            });
            continue;
        };
        report.users += 1;
        mailboxes.insert(id, Mailbox { acknowledged_through, ..Mailbox::default() });
        let problem = match Username::parse(&name) {
            Err(_) => Some("the name is none"),
            Ok(name) if name.key() != key => Some("the name and the one it is found by differ"),
            Ok(_) if PeerAddress::parse(&address).is_err() => Some("the address is none"),
            Ok(_) => None,
        };
        if let Some(problem) = problem {
            report.add(Finding::User { id, problem });
        }
    }
    Ok(())
}

fn tokens(
    connection: &mut SqliteConnection,
    mailboxes: &Mailboxes,
    report: &mut CheckReport,
) -> QueryResult<()> {
    let rows = tokens::table
        .select((tokens::hash, tokens::user_id, tokens::checksum))
        .load_iter::<(Vec<u8>, i64, Option<i64>), DefaultLoadingMode>(connection)?;
    for row in rows {
        let (hash, user, stored) = row?;
        // An earlier version wrote no checksum.
        let is_of_user = stored.is_none_or(|it| it == directory::token_checksum(&hash, user));
        let problem = match (is_of_user, mailboxes.contains_key(&user)) {
            (false, _) => "its checksum does not hold",
            (true, false) => "there is no such user",
            (true, true) => continue,
        };
        report.add(Finding::Token { user, problem });
    }
    Ok(())
}
