//! The only place that writes to stdout and stderr.

use std::io::{self, ErrorKind, Write as _};

use anyhow::Context as _;
use thiserror::Error;

use super::escape::printable;

/// Whoever read stdout has closed it: time to end, quietly.
#[derive(Debug, Error)]
#[error("nobody reads the output any more")]
pub(super) struct ReaderGone;

/// Writes one line of data to stdout.
pub(super) fn line(text: &str) -> anyhow::Result<()> {
    match writeln!(io::stdout().lock(), "{text}") {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        Err(error) => Err(anyhow::Error::new(error).context("cannot write to stdout")),
    }
}

/// As [`line`], for commands with something else to attend to: a reader that does not read blocks a
/// thread of its own.
pub(super) async fn line_unblocked(text: String) -> anyhow::Result<()> {
    let writing = tokio::task::spawn_blocking(move || line(&text));
    writing.await.context("the writing thread failed")?
}

/// Tells the person at the terminal something on stderr. What a server said may be in it, so it is
/// made printable; should stderr be closed, there is nobody to tell.
pub(super) fn note(text: &str) {
    let mut stderr = io::stderr().lock();
    for line in text.lines() {
        let _ = writeln!(stderr, "{}", printable(line));
    }
}

/// Returns when the reader of stdout closes it, even while nothing is written; never where that
/// cannot be known, as for a file.
#[cfg(unix)]
pub(super) async fn reader_gone() {
    use std::os::fd::AsFd as _;
    use tokio::io::{Interest, Ready};
    use tokio::net::unix::pipe::Sender;

    // Only its state is watched. Unlike its checking sibling this constructor leaves the blocking
    // mode alone, which whoever else writes to the same pipe relies on.
    let watched =
        io::stdout().as_fd().try_clone_to_owned().and_then(Sender::from_owned_fd_unchecked);
    if let Ok(stdout) = watched
        && stdout.ready(Interest::ERROR).await.is_ok_and(Ready::is_error)
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// Where a closed pipe is not announced, it is noticed at the next write.
#[cfg(not(unix))]
pub(super) async fn reader_gone() {
    std::future::pending::<()>().await;
}
