//! Users and tokens.

use diesel::connection::DefaultLoadingMode;
use diesel::prelude::*;

use super::{CheckReport, Finding, Mailbox, Mailboxes, unless_unreadable};
use crate::domain::{PeerAddress, Standing, Username};
use crate::store::accounts::{audit, invites, tokens as token_rows};
use crate::store::schema::{tokens, users};
use crate::store::{directory, user_limits};

pub(super) fn examine(
    connection: &mut SqliteConnection,
    mailboxes: &mut Mailboxes,
    report: &mut CheckReport,
) -> QueryResult<()> {
    users(connection, mailboxes, report)?;
    tokens(connection, mailboxes, report)?;
    for id in invites::damaged_rows(connection)? {
        report.add(Finding::Invite { id });
    }
    for number in audit::damaged_rows(connection)? {
        report.add(Finding::AuditEntry { number });
    }
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
    type Row = (i64, String, String, String, i64, i64, Option<i64>);
    let rows = users::table
        .select((
            users::id,
            users::name,
            users::name_key,
            users::ip_address,
            users::acknowledged_through,
            users::standing,
            users::standing_checksum,
        ))
        .order(users::id.asc())
        .load_iter::<Row, DefaultLoadingMode>(connection)?;
    for row in rows {
        let Some(row) = unless_unreadable(row)? else {
            report.add(Finding::Unreadable {
                part: "a user's row",
                reason: "a value of another kind".to_owned(),
            });
            continue;
        };
        let (id, name, key, address, acknowledged_through, standing, standing_checksum) = row;
        report.users += 1;
        mailboxes.insert(id, Mailbox { acknowledged_through, ..Mailbox::default() });
        let problem = match Username::parse(&name) {
            Err(_) => Some("the name is none"),
            Ok(name) if name.key() != key => Some("the name and the one it is found by differ"),
            Ok(_) => match directory::standing_of(id, standing, standing_checksum) {
                Err(_) => Some("what they may do is not what was written"),
                Ok(Standing::Deleted) if !address.is_empty() => {
                    Some("the address of one who is gone")
                }
                Ok(Standing::Active | Standing::Banned)
                    if PeerAddress::parse(&address).is_err() =>
                {
                    Some("the address is none")
                }
                Ok(_) => None,
            },
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
        .select((tokens::hash, tokens::user_id, tokens::expire_time_us, tokens::checksum))
        .load_iter::<(Vec<u8>, i64, Option<i64>, Option<i64>), DefaultLoadingMode>(connection)?;
    for row in rows {
        let (hash, user, expire_time, stored) = row?;
        let is_of_user = token_rows::is_whole(&hash, user, expire_time, stored);
        let problem = match (is_of_user, mailboxes.contains_key(&user)) {
            (false, _) => "its checksum does not hold",
            (true, false) => "there is no such user",
            (true, true) => continue,
        };
        report.add(Finding::Token { user, problem });
    }
    Ok(())
}
