use std::future::Future;
use tokio::time::{Instant, sleep};

use super::{Error, Options};

/// After which errors a call may be made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// After any that may pass: making the call twice has the effect of making it once.
    WhenRetriable,
    /// Only when nothing of the call reached the server: after an ambiguous failure the answer of
    /// the first attempt, and what it alone shows, would be lost.
    WhenNotSent,
}

impl Repeat {
    fn allows(self, error: &Error) -> bool {
        match self {
            Self::WhenRetriable => error.is_retriable(),
            Self::WhenNotSent => matches!(error, Error::Connect { .. }),
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
        let outcome = with_retries(&options(), repeat, || {
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
