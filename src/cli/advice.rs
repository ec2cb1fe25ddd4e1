//! What to do about an error.

use std::fmt;

use super::output;
use crate::client::{self, ErrorReason};

/// An error together with what to do about it.
#[derive(Debug)]
struct Advised {
    error: anyhow::Error,
    advice: String,
}

impl fmt::Display for Advised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}

impl std::error::Error for Advised {}

/// The error, reported with this advice.
pub(super) fn advise(error: impl Into<anyhow::Error>, advice: impl Into<String>) -> anyhow::Error {
    Advised { error: error.into(), advice: advice.into() }.into()
}

/// Says on stderr what went wrong, and what to do next where that is known.
pub(super) fn report(error: &anyhow::Error) {
    output::note(&format!("error: {error:#}"));
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
        (None, None) => {}
    }
}

/// What to do about an error of any command.
pub(super) fn for_client_error(error: &client::Error) -> Option<&'static str> {
    use ErrorReason as R;
    if let client::Error::Connect { .. } = error {
        return Some("is the server running? `peerpost serve` starts one; --server names another");
    }
    match error.reason()? {
        R::TokenMissing | R::TokenMalformed | R::TokenUnknown => Some(
            "the token is not one of this server's: is it another server, or was its data folder \
             replaced? `peerpost register NAME` takes a name here",
        ),
        R::UserNotFound => Some("`peerpost users` lists who is registered"),
        R::RequestIdReused => {
            Some("a --request-id belongs to one message; leave it out for a new one")
        }
        R::SequenceOutOfRange => Some("`peerpost inbox` shows which sequences there are"),
        R::StoredDataDamaged => Some(
            "the entry is damaged on the server's disk: tell its operator; `--after` with its \
             sequence goes on behind it",
        ),
        R::WriteQueueFull
        | R::ReadQueueFull
        | R::SubscriptionLimit
        | R::DiskFull
        | R::ShuttingDown
        | R::StorageFailing => Some("try again in a while"),
        _ => None,
    }
}
