//! The only place that writes to stdout and stderr, beside the screens of `chat` and `top`.

use std::io::{self, ErrorKind, Write as _};

use anyhow::Context as _;
use thiserror::Error;

use super::escape::printable;
use super::style;

/// Whoever read stdout has closed it: time to end, quietly.
#[derive(Debug, Error)]
#[error("nobody reads the output any more")]
pub(super) struct ReaderGone;

/// Writes one line of data to stdout.
pub(super) fn line(text: &str) -> anyhow::Result<()> {
    // Stdout is flushed at each line end, in a pipe too: whoever reads has the line at once.
    written(writeln!(io::stdout().lock(), "{text}"))
}

/// Writes these bytes to stdout, as they are.
pub(super) fn bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    written(stdout.write_all(bytes).and_then(|()| stdout.flush()))
}

fn written(outcome: io::Result<()>) -> anyhow::Result<()> {
    match outcome {
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
        let _ = writeln!(stderr, "{}", style::note(&printable(line)));
    }
}

/// Returns when the reader of stdout closes it, even while nothing is written; never where that
/// cannot be known, as for a file.
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
