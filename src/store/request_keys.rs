//! Reads the stored request keys into the index's filter, after the store was opened: it takes a second
//! or more for ten millions, and the store serves meanwhile.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use diesel::prelude::*;
use tracing::{debug, warn};

use super::OpenError;
use super::connection::open_reader;
use super::index::Index;

/// The thread that reads them; [`stop`](Self::stop) ends it.
pub(super) struct RequestKeysReader {
    thread: JoinHandle<()>,
    is_stopped: Arc<AtomicBool>,
}

impl RequestKeysReader {
    pub(super) fn start(database: &Path, index: Index) -> Result<Self, OpenError> {
        let mut connection = open_reader(database)?;
        let is_stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&is_stopped);
        let thread = std::thread::Builder::new()
            .name("store-keys".into())
            .spawn(move || match read(&mut connection, &index, &stop) {
                Ok(()) => debug!("the request keys are read"),
                Err(error) => warn!(%error, "cannot read the request keys: sends look each one up"),
            })
            .map_err(OpenError::Thread)?;
        Ok(Self { thread, is_stopped })
    }

    /// Stops reading, and waits until it has.
    pub(super) fn stop(self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        // It is logged where it fails, and a panic changes nothing for who closes.
        let _ = self.thread.join();
    }
}

/// Some at a time, so that no read transaction keeps the write-ahead log from being reused.
fn read(
    connection: &mut SqliteConnection,
    index: &Index,
    is_stopped: &AtomicBool,
) -> QueryResult<()> {
    let mut last = None;
    while !is_stopped.load(Ordering::Relaxed) {
        last = index.read_request_keys(connection, last)?;
        if last.is_none() {
            break;
        }
    }
    Ok(())
}
