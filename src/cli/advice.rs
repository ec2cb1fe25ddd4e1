//! What to do about an error.

use std::fmt;

use super::{output, start_advice};
use crate::client::{self, ErrorReason};

/// An error together with what to do about it.
#[derive(Debug)]
struct Advised {
    error: anyhow::Error,
    advice: String,
}

impl fmt::Display for Advised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&in_one_line(&self.error))
    }
}

impl std::error::Error for Advised {}

/// The error, reported with this advice.
pub(super) fn advise(error: impl Into<anyhow::Error>, advice: impl Into<String>) -> anyhow::Error {
    Advised { error: error.into(), advice: advice.into() }.into()
}

/// Says on stderr what went wrong, and what to do next where that is known.
pub(super) fn report(error: &anyhow::Error) {
    output::note(&format!("error: {}", in_one_line(error)));
    let advised = error.downcast_ref::<Advised>();
    let cause = advised.map_or(error, |advised| &advised.error);
    let refused = cause.downcast_ref::<client::Error>();
    if let Some(client::Error::Refused(refusal)) = refused {
        for violation in &refusal.violations {
            // Where the message says it already, once is enough.
            if !refusal.message.contains(&violation.description) {
                output::note(&format!("  {} {}", violation.field, violation.description));
            }
        }
    }
    match (advised, refused) {
        (Some(advised), _) => output::note(&format!("hint: {}", advised.advice)),
        (None, Some(error)) => {
            if let Some(advice) = for_client_error(error) {
                output::note(&format!("hint: {advice}"));
            }
        }
        (None, None) => {
            if let Some(advice) = start_advice::find(cause) {
                output::note(&format!("hint: {advice}"));
            }
        }
    }
}

/// The error and its causes, without a cause that the one above it has told already.
fn in_one_line(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |mut line, cause| {
        let cause = cause.to_string();
        if line.is_empty() {
            line = cause;
        } else if !line.ends_with(&cause) {
            line.push_str(": ");
            line.push_str(&cause);
        }
        line
    })
}

/// What the server says is wrong, with what it says of each field, on one line.
pub(super) fn in_a_sentence(error: &client::Error) -> String {
    let mut parts = vec![error.to_string()];
    if let client::Error::Refused(refusal) = error {
        for violation in &refusal.violations {
            if !refusal.message.contains(&violation.description) {
                parts.push(format!("{} {}", violation.field, violation.description));
            }
        }
    }
    parts.join("; ")
}

/// What to do about an error of any command.
pub(super) fn for_client_error(error: &client::Error) -> Option<&'static str> {
    use client::Error as E;
    match error {
        E::Connect { problem, .. } if problem.contains("certificate") => {
            Some("--tls-ca names the authority that the server's certificate is from")
        }
        E::Connect { problem, .. } if problem.contains("corrupt message") => {
            Some("does the server speak TLS there? without TLS it is at http://")
        }
        E::Connect { .. } => {
            Some("is the server running? `peerpost serve` starts one; --server names another")
        }
        E::InvalidServer { .. } => Some(
            "--server takes HOST:PORT, http[s]://HOST:PORT or unix:/PATH; `peerpost profile show` says which is used",
        ),
        E::Disconnected { .. } | E::DeadlineExceeded { .. } | E::Silent { .. } => {
            Some("the server may be restarting or busy: try again in a while")
        }
        E::Hole { .. } => Some(
            "the server left out entries of the mailbox: tell its operator; `--after` with the \
             sequence that came goes on behind them",
        ),
        E::Malformed(_) => Some(
            "is it a peerpost server, and not newer than this command? `peerpost --version` says \
             which this is",
        ),
        E::Refused(refusal) => match refusal.reason {
            Some(reason) => for_reason(reason),
            None => Some("is it a peerpost server? --server names another"),
        },
    }
}

fn for_reason(reason: ErrorReason) -> Option<&'static str> {
    use ErrorReason as R;
    match reason {
        R::TokenMissing | R::TokenMalformed | R::TokenUnknown => Some(
            "the token is not one of this server's: is it another server, or was its data folder \
             replaced? `peerpost register NAME` takes a name here",
        ),
        R::TokenExpired => Some(
            "`peerpost token create` makes another while one is good; then only the server's operator can: \
             `peerpost admin tokens create NAME`",
        ),
        R::UserBanned => {
            Some("the server's operator can lift that: `peerpost admin users unban NAME`")
        }
        R::RegistrationClosed => {
            Some("the server's operator lets nobody register; see `peerpost serve --registration`")
        }
        R::InviteInvalid => Some(
            "`--invite` takes an invite; the server's operator makes them: `peerpost admin invites create`",
        ),
        R::TokenLimit => Some("`peerpost token list` shows them, `peerpost token revoke` ends one"),
        R::TokenNotFound => Some("`peerpost token list` shows which there are"),
        R::InviteNotFound => Some("`peerpost admin invites list` shows which there are"),
        R::UserMismatch => Some(
            "the token is another user's than the one that the call names; --as chooses the user",
        ),
        R::UsernameTaken => {
            Some("choose another name; `peerpost users` lists those that are taken")
        }
        R::UserNotFound => Some("`peerpost users` lists who is registered"),
        R::RequestIdReused => {
            Some("a --request-id belongs to one message; leave it out for a new one")
        }
        R::InvalidField => Some("`peerpost help` and the command's name says what each may hold"),
        R::BodyTooLarge => Some(
            "send it in parts, or ask the server's operator for a higher limit (`serve \
             --body-bytes-max`)",
        ),
        R::MessageExpired => Some("give it more time, or none: the message would be gone already"),
        R::SequenceOutOfRange => Some("`peerpost inbox` shows which sequences there are"),
        R::EpochMismatch => Some(
            "the server's data was replaced or restored since, and the mailbox is another one: \
             `--after 0` starts from its beginning",
        ),
        R::StoredDataDamaged => Some(
            "the entry is damaged on the server's disk: tell its operator; `--after` with its \
             sequence goes on behind it",
        ),
        R::SubscriptionLimit => {
            Some("this user follows the mailbox too many times already: end some of them")
        }
        R::MemoryLimit => Some(
            "the server holds much for those who send and do not read: wait, and have less in flight at once",
        ),
        R::SendRateLimit => Some(
            "this user sends faster than they may: wait, or ask the server's operator for more \
             (`peerpost admin limits`)",
        ),
        R::RegistrationRateLimit => Some(
            "too many names were registered from this address: wait, or ask the server's operator \
             (`serve --registration-rate-per-address`)",
        ),
        R::MailboxFull => Some(
            "the mailbox takes messages again when some of what it holds is removed; its server's \
             operator can let it hold more (`serve --mailbox-messages-max`, `--mailbox-bytes-max`)",
        ),
        R::DiskFull => Some("the server's disk is full: tell its operator, and try again later"),
        R::WriteQueueFull
        | R::ReadQueueFull
        | R::ShuttingDown
        | R::StorageFailing
        | R::DeadlineExceeded => Some("try again in a while"),
        R::Unspecified => None,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    use super::*;

    #[test]
    fn each_cause_is_told_once() {
        let error = Err::<(), _>(anyhow!("in use")).context("cannot listen: in use");
        let error = error.context("no server").expect_err("an error");
        assert_eq!(in_one_line(&error), "no server: cannot listen: in use");
    }

    #[test]
    fn advice_is_found_under_what_was_said_on_the_way() {
        let error = Err::<(), _>(advise(anyhow!("no token"), "register")).context("no identity");
        let error = error.expect_err("an error");
        assert_eq!(in_one_line(&error), "no identity: no token");
        assert_eq!(error.downcast_ref::<Advised>().map(|a| a.advice.as_str()), Some("register"));
    }
}
