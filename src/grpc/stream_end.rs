use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::Request;

use super::error::CallError;

/// When the caller stops waiting, as they said with the call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline(pub(super) Instant);

/// What ends a stream from outside: its caller's deadline, or the server's drain.
pub(super) struct StreamEnd {
    deadline: Option<Deadline>,
    drain: CancellationToken,
}

impl StreamEnd {
    pub(super) fn of<T>(request: &Request<T>, drain: &CancellationToken) -> Self {
        let deadline = request.extensions().get::<Deadline>().copied();
        Self { deadline, drain: drain.clone() }
    }

    /// Resolves to the error with which the stream ends.
    pub(super) async fn reached(self) -> CallError {
        let deadline = async {
            match self.deadline {
                // In a box: most streams have no deadline, and then no place for its timer.
                Some(Deadline(deadline)) => Box::pin(sleep_until(deadline)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.drain.cancelled() => CallError::ShuttingDown,
            () = deadline => CallError::DeadlineExceeded,
        }
    }
}
