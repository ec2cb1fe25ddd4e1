//! Messages and users as lines, for people and as JSON.

use std::time::SystemTime;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Serialize;

use super::escape::{printable, printable_json};
use super::style;
use crate::client::{Body, Message, TokenInfo, User};

#[derive(Serialize)]
struct MessageJson<'a> {
    sequence: i64,
    message_id: &'a str,
    from_user: &'a str,
    to_user: &'a str,
    send_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    content_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

#[derive(Serialize)]
struct UserJson<'a> {
    username: &'a str,
    ip_address: &'a str,
    register_time: String,
    online: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen_time: Option<String>,
}

/// A message as a line, for people or as JSON.
pub(super) fn message(message: &Message, json: bool) -> anyhow::Result<String> {
    if json { message_json(message) } else { Ok(message_line(message)) }
}

/// `#12 2026-01-31 12:34:56Z bob -> alice: hello`, safe to show on a terminal.
fn message_line(message: &Message) -> String {
    let body = match message.body.as_text() {
        Some(text) => printable(text).into_owned(),
        None => format!("({})", data_summary(message)),
    };
    format!(
        "{} {} -> {}: {body}",
        style::aside(&format!("#{} {}", message.sequence, short_time(message.send_time))),
        style::name(&printable(&message.from_user)),
        style::name(&printable(&message.to_user)),
    )
}

/// What can be said of a body that is no text: `4 bytes of image/png`.
pub(super) fn data_summary(message: &Message) -> String {
    if message.body == Body::Expired {
        return "expired".to_owned();
    }
    let kind = match message.content_type.as_str() {
        "" => "data",
        kind => kind,
    };
    format!("{} bytes of {}", message.body.as_bytes().len(), printable(kind))
}

/// A message that was just sent: its number in the sender's mailbox and its id.
pub(super) fn sent_line(message: &Message) -> String {
    format!(
        "#{} -> {}: {}",
        message.sequence,
        printable(&message.to_user),
        printable(&message.message_id)
    )
}

/// A message as one JSON object.
pub(super) fn message_json(message: &Message) -> anyhow::Result<String> {
    let (text, data_base64) = match &message.body {
        Body::Text(text) => (Some(text.as_str()), None),
        Body::Data(data) => (None, Some(STANDARD.encode(data))),
        Body::Expired => (None, None),
    };
    to_json(&MessageJson {
        sequence: message.sequence,
        message_id: &message.message_id,
        from_user: &message.from_user,
        to_user: &message.to_user,
        send_time: rfc3339(message.send_time)?,
        text,
        data_base64,
        content_type: &message.content_type,
        request_id: message.request_id.as_deref(),
    })
}

/// `alice  192.0.2.7:9000  online`, safe to show on a terminal.
pub(super) fn user_line(user: &User) -> String {
    let seen = match (user.online, user.last_seen_time) {
        (true, _) => "online".to_owned(),
        (false, Some(time)) => format!("last seen {}", short_time(time)),
        (false, None) => "never seen".to_owned(),
    };
    format!("{:<16}  {:<21}  {seen}", printable(&user.username), printable(&user.ip_address))
}

/// A user as one JSON object.
pub(super) fn user_json(user: &User) -> anyhow::Result<String> {
    to_json(&UserJson {
        username: &user.username,
        ip_address: &user.ip_address,
        register_time: rfc3339(user.register_time)?,
        online: user.online,
        last_seen_time: user.last_seen_time.map(rfc3339).transpose()?,
    })
}

#[derive(Serialize)]
struct TokenJson<'a> {
    token_id: &'a str,
    display_name: &'a str,
    create_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expire_time: Option<String>,
    current: bool,
}

/// A token of one's own, for people or as JSON.
pub(super) fn token(token: &TokenInfo, json: bool) -> anyhow::Result<String> {
    let TokenInfo { token_id, display_name, create_time, expire_time, current, .. } = token;
    if json {
        return to_json(&TokenJson {
            token_id,
            display_name,
            create_time: rfc3339(*create_time)?,
            expire_time: expire_time.map(rfc3339).transpose()?,
            current: *current,
        });
    }
    let expires = expire_time.map(|time| format!("  until {}", short_time(time)));
    Ok(format!(
        "{}  {}{}{}  {}",
        printable(token_id),
        short_time(*create_time),
        expires.unwrap_or_default(),
        if *current { "  (this one)" } else { "" },
        printable(display_name),
    )
    .trim_end()
    .to_owned())
}

/// As one JSON object.
pub(super) fn to_json(value: &impl Serialize) -> anyhow::Result<String> {
    let json = serde_json::to_string(value).context("cannot write JSON")?;
    Ok(printable_json(&json).into_owned())
}

/// A time of the admin contract, as RFC 3339.
pub(super) fn proto_time(time: Option<&prost_types::Timestamp>) -> anyhow::Result<String> {
    let time = time.context("the server left out a time")?;
    let time = Timestamp::new(time.seconds, time.nanos);
    Ok(time.context("the server sent a time out of bounds")?.to_string())
}

fn rfc3339(time: SystemTime) -> anyhow::Result<String> {
    let time = Timestamp::try_from(time).context("the server sent a time out of bounds")?;
    Ok(time.to_string())
}

/// To the second, in UTC.
fn short_time(time: SystemTime) -> String {
    match Timestamp::try_from(time) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        Err(_) => "(no time)".to_owned(),
    }
}
