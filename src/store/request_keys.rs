//! Reads the stored request keys into the index's filter, after the store was opened: it takes a second
//! or more for ten millions, and the store serves meanwhile.

use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::Duration;

use diesel::prelude::*;
use tracing::{debug, warn};

use super::OpenError;
use super::connection::open_reader;
use super::index::{Index, KeysCursor};

/// The thread that reads them; [`stop`](Self::stop) ends it.
pub(super) struct RequestKeysReader {
    thread: JoinHandle<()>,
    /// Dropped to stop it.
    going_on: SyncSender<()>,
}

impl RequestKeysReader {
    /// Starts the thread, which begins to read after `delay`.
    pub(super) fn start(database: &Path, index: Index, delay: Duration) -> Result<Self, OpenError> {
        let mut connection = open_reader(database)?;
        let (going_on, stopped) = mpsc::sync_channel(0);
        let thread = std::thread::Builder::new()
            .name("store-keys".into())
            .spawn(move || match read(&mut connection, &index, &stopped, delay) {
                Ok(()) => debug!("the request keys are read"),
                Err(error) => warn!(%error, "cannot read the request keys: sends look each one up"),
            })
            .map_err(OpenError::Thread)?;
        Ok(Self { thread, going_on })
    }

    /// Stops reading, and waits until it has.
    pub(super) fn stop(self) {
        drop(self.going_on);
        // It is logged where it fails, and a panic changes nothing for who closes.
        let _ = self.thread.join();
    }
}

/// Some at a time, so that no read transaction keeps the write-ahead log from being reused.
fn read(
    connection: &mut SqliteConnection,
    index: &Index,
    stopped: &Receiver<()>,
    delay: Duration,
) -> QueryResult<()> {
    let mut next = Some(KeysCursor::Tail);
    let mut wait = delay;
    while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
        wait = Duration::ZERO;
        let Some(from) = next else { break };
        next = index.read_request_keys(connection, from)?;
    }
    Ok(())
}
