//! From where a server can be reached that asks for no tokens, or speaks no TLS.

use tracing::warn;

use super::{Listen, Options, StartError};

/// Without tokens or without TLS a server is to be reached from its own machine only, unless the
/// operator insists.
pub(super) fn check(options: &Options, places: &[Listen]) -> Result<(), StartError> {
    if places.is_empty() {
        return Err(StartError::NoAddress);
    }
    match places.iter().find_map(Listen::beyond_loopback) {
        Some(address) if options.open && !options.open_beyond_loopback => {
            Err(StartError::OpenBeyondLoopback(address))
        }
        Some(address) if options.tls.is_none() && !options.plaintext_beyond_loopback => {
            Err(StartError::PlaintextBeyondLoopback(address))
        }
        _ => Ok(()),
    }
}

/// Says in the log what others can do to a server that is reached so.
pub(super) fn warn(options: &Options, places: &[Listen]) {
    if options.tls.is_none() {
        for address in places.iter().filter_map(Listen::beyond_loopback) {
            warn!(%address, "WITHOUT TLS: whoever is on the way can read every token and message");
        }
    }
    if !options.open {
        return;
    }
    warn!("this server is OPEN: no token is asked for, callers are who they say they are");
    if options.open_beyond_loopback {
        warn!("whoever reaches it over the network can read every mailbox and send as anybody");
    } else {
        warn!(
            "every program and every user of this machine can read every mailbox and send as anybody"
        );
    }
}
