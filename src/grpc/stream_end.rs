use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::error::CallError;
use crate::auth::{AuthError, Session};
use crate::domain::Timestamp;

/// When the caller stops waiting, as they said with the call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline(pub(super) Instant);

/// The server's clock can be set, and the timers do not follow it: it is looked at this often until a token
/// expires.
const EXPIRY_LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// What ends a stream from outside: its caller's deadline, that they are let in no more, or the server's
/// drain.
pub(super) struct StreamEnd {
    deadline: Option<Deadline>,
    session: Session,
    /// When the caller's token expires.
    expire_time: Option<Timestamp>,
}

impl StreamEnd {
    pub(super) fn new(
        deadline: Option<Deadline>,
        session: Session,
        expire_time: Option<Timestamp>,
    ) -> Self {
        Self { deadline, session, expire_time }
    }

    /// Whether the caller is let in no more: to be asked where nobody waits for the end.
    pub(super) fn session(&self) -> Session {
        self.session.clone()
    }

    /// Resolves to the error with which the stream ends.
    pub(super) async fn reached(self) -> CallError {
        let timers = async {
            match (self.deadline, self.expire_time) {
                // In a box: most streams have neither, and then no place for a timer.
                (None, None) => std::future::pending().await,
                (deadline, expire_time) => Box::pin(first_of(deadline, expire_time)).await,
            }
        };
        tokio::select! {
            biased;
            cause = self.session.ended() => match cause {
                Some(cause) => CallError::Ended(cause),
                None => CallError::ShuttingDown,
            },
            error = timers => error,
        }
    }
}

async fn first_of(deadline: Option<Deadline>, expire_time: Option<Timestamp>) -> CallError {
    let deadline = async {
        match deadline {
            Some(Deadline(deadline)) => sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    };
    let expiry = async {
        match expire_time {
            Some(time) => expired(time).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = deadline => CallError::DeadlineExceeded,
        error = expiry => error,
    }
}

async fn expired(time: Timestamp) -> CallError {
    while let Some(left) = time.until_then() {
        sleep(left.min(EXPIRY_LOOK_INTERVAL)).await;
    }
    AuthError::ExpiredToken(time).into()
}
