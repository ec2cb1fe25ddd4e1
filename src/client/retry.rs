use std::future::Future;
use tokio::time::{Instant, sleep};
use tonic::Code;

use super::{Error, Options};

/// After which errors a call may be made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// After any that may pass: making the call twice has the effect of making it once.
    WhenRetriable,
    /// Only when nothing of the call was done: it did not reach the server, or was refused for a limit.
    /// After an ambiguous failure the answer of the first attempt, and what it alone shows, would be lost.
    WhenNotSent,
}

impl Repeat {
    fn allows(self, error: &Error) -> bool {
        match self {
            Self::WhenRetriable => error.is_retriable(),
            Self::WhenNotSent => match error {
                Error::Connect { .. } => true,
                Error::Refused(refusal) => {
                    refusal.code == Code::ResourceExhausted && refusal.is_retriable()
                }
                _ => false,
            },
        }
    }
}

/// Makes attempts until one succeeds, one fails for good, or the next would begin after the retry
/// deadline.
pub(super) async fn with_retries<T, F>(
    options: &Options,
    repeat: Repeat,
    mut attempt: impl FnMut() -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let begun = Instant::now();
    let mut backoff = options.new_backoff();
    loop {
        let error = match attempt().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let delay = backoff.next_delay(error.retry_delay());
        let next_attempt = begun.elapsed().saturating_add(delay);
        if !repeat.allows(&error) || next_attempt > options.retry_deadline {
            return Err(error);
        }
        tracing::debug!(%error, ?delay, "the call is made again");
        sleep(delay).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use super::*;
    use crate::client::{ErrorReason, Refusal};

    fn options() -> Options {
        Options::default()
            .backoff(Duration::from_millis(1), Duration::from_millis(2))
            .retry_deadline(Duration::from_millis(200))
    }

    fn not_sent() -> Error {
        Error::Connect { server: String::new(), problem: String::new() }
    }

    fn unknown() -> Error {
        Error::Disconnected { problem: String::new() }
    }

    /// How many attempts are made when the first two fail as said.
    async fn attempts(repeat: Repeat, failure: fn() -> Error) -> (u32, bool) {
        let count = Cell::new(0);
        let options = options().retry_deadline(Duration::from_mins(1));
        let outcome = with_retries(&options, repeat, || {
            count.set(count.get() + 1);
            std::future::ready(if count.get() > 2 { Ok(()) } else { Err(failure()) })
        })
        .await;
        (count.get(), outcome.is_ok())
    }

    #[tokio::test]
    async fn repeats_what_may_be_repeated() {
        assert_eq!(attempts(Repeat::WhenRetriable, unknown).await, (3, true));
        assert_eq!(attempts(Repeat::WhenRetriable, || Error::Malformed("x")).await, (1, false));
    }

    #[tokio::test]
    async fn a_call_that_must_not_be_repeated_is_repeated_only_when_it_was_never_sent() {
        assert_eq!(attempts(Repeat::WhenNotSent, not_sent).await, (3, true));
        assert_eq!(attempts(Repeat::WhenNotSent, unknown).await, (1, false));
    }

    fn over_a_limit() -> Error {
        Error::Refused(Box::new(Refusal {
            code: Code::ResourceExhausted,
            reason: Some(ErrorReason::SendRateLimit),
            message: String::new(),
            violations: Vec::new(),
            retry_delay: Some(RETRY_DELAY),
            metadata: std::collections::HashMap::new(),
        }))
    }

    const RETRY_DELAY: Duration = Duration::from_millis(40);

    /// A refusal for a limit says that nothing was done.
    #[tokio::test]
    async fn after_a_limit_every_call_is_repeated_and_not_before_the_time_that_was_said() {
        for repeat in [Repeat::WhenRetriable, Repeat::WhenNotSent] {
            let begun = Instant::now();
            assert_eq!(attempts(repeat, over_a_limit).await, (3, true));
            assert!(begun.elapsed() >= 2 * RETRY_DELAY, "{:?}", begun.elapsed());
        }
    }

    #[tokio::test]
    async fn ends_with_the_retry_deadline() {
        let begun = Instant::now();
        let outcome: Result<(), _> =
            with_retries(&options(), Repeat::WhenRetriable, || std::future::ready(Err(unknown())))
                .await;
        assert!(matches!(outcome, Err(Error::Disconnected { .. })));
        assert!(begun.elapsed() < Duration::from_secs(2));
    }
}
