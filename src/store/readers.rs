use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use diesel::prelude::*;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use tracing::error;

use super::connection::open_reader;
use super::pages::failed;
use super::{OpenError, StoreError};

/// Connections that only read, used off the async threads. Each read takes one for itself; a read
/// that finds none free waits, up to a limit.
pub(super) struct Readers {
    database: Arc<PathBuf>,
    idle: Arc<Mutex<Vec<SqliteConnection>>>,
    permits: Arc<Semaphore>,
    connections: usize,
    admission_wait: Duration,
}

impl Readers {
    pub(super) fn open(
        database: &Path,
        connections: usize,
        admission_wait: Duration,
    ) -> Result<Self, OpenError> {
        let idle = (0..connections).map(|_| open_reader(database)).collect::<Result<_, _>>()?;
        Ok(Self {
            database: Arc::new(database.to_owned()),
            idle: Arc::new(Mutex::new(idle)),
            permits: Arc::new(Semaphore::new(connections)),
            connections,
            admission_wait,
        })
    }

    /// Runs `read` in a transaction of its own, so that all it reads is one snapshot.
    pub(super) async fn read<T, F>(&self, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut SqliteConnection) -> Result<T, StoreError> + Send + 'static,
    {
        let permit = timeout(self.admission_wait, Arc::clone(&self.permits).acquire_owned())
            .await
            .map_err(|_| StoreError::ReadQueueFull { readers: self.connections })?
            .map_err(|_| StoreError::Closed)?;
        let (idle, database) = (Arc::clone(&self.idle), Arc::clone(&self.database));
        // The permit goes along: a caller that gives up does not free a connection still in use.
        let task = tokio::task::spawn_blocking(move || {
            let mut connection = lock(&idle).pop().ok_or(StoreError::Closed)?;
            let outcome = snapshot(&mut connection, read);
            if matches!(outcome, Err(StoreError::Failing)) {
                connection = reopened(connection, &database);
            }
            lock(&idle).push(connection);
            drop(permit);
            outcome
        });
        // Only a panic in `read` or the end of the runtime fails a join.
        task.await.unwrap_or(Err(StoreError::Failing))
    }

    /// Waits for the reads that run and closes every connection. Later reads find the store closed.
    pub(super) async fn close(&self) {
        let all = u32::try_from(self.connections).unwrap_or(u32::MAX);
        let _all = self.permits.acquire_many(all).await;
        self.permits.close();
        lock(&self.idle).clear();
    }
}

fn lock(idle: &Mutex<Vec<SqliteConnection>>) -> std::sync::MutexGuard<'_, Vec<SqliteConnection>> {
    // Nothing in the guarded sections panics, and a list of connections has no half-way state.
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection whose read failed may be left within a transaction, or with pages that it read
/// wrongly: it is replaced. Without another one to be had it stays, and is tried again.
fn reopened(connection: SqliteConnection, database: &Path) -> SqliteConnection {
    open_reader(database).unwrap_or_else(|error| {
        error!(%error, "cannot replace a reader");
        connection
    })
}

fn snapshot<T>(
    connection: &mut SqliteConnection,
    read: impl FnOnce(&mut SqliteConnection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    /// Carries the store's errors through diesel's transaction, which wants its own among them.
    struct Outcome(StoreError);
    impl From<diesel::result::Error> for Outcome {
        fn from(error: diesel::result::Error) -> Self {
            Self(failed(error))
        }
    }
    connection.transaction(|connection| read(connection).map_err(Outcome)).map_err(|e| e.0)
}
