use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use tokio::task::JoinHandle;
use tracing::error;

use super::admission::{Admission, NotAdmitted, Place};
use super::connection::open_reader;
use super::error::failed;
use super::{OpenError, StoreError};

/// The most reads that wait for a connection at a time. A read that waits holds a request of at
/// most a few KiB.
const READS_WAITING_MAX: usize = 16_384;

/// Connections that only read, used off the async threads. Each read takes one for itself; a read
/// that finds none free waits, within bounds.
pub(super) struct Readers {
    database: Arc<PathBuf>,
    /// At most one for each place; fewer after a read that panicked, until another takes its place.
    idle: Arc<Mutex<Vec<SqliteConnection>>>,
    admission: Admission,
    connections: usize,
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
            admission: Admission::new(connections, READS_WAITING_MAX, admission_wait),
            connections,
        })
    }

    /// Runs `read` in a transaction of its own, so that all it reads is one snapshot.
    pub(super) async fn read<T, F>(&self, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut SqliteConnection) -> Result<T, StoreError> + Send + 'static,
    {
        let place = self.admission.enter(1).await.map_err(|error| self.not_admitted(error))?;
        self.run(place, read).await
    }

    /// [`read`](Self::read), waiting for a connection however long it takes.
    pub(super) async fn read_in_turn<T, F>(&self, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut SqliteConnection) -> Result<T, StoreError> + Send + 'static,
    {
        let place =
            self.admission.enter_in_turn(1).await.map_err(|error| self.not_admitted(error))?;
        self.run(place, read).await
    }

    /// Begins [`read`](Self::read) at once, whether or not anyone waits for what it returns; `None`
    /// when no connection is free.
    pub(super) fn read_ahead<T, F>(&self, read: F) -> Option<JoinHandle<Result<T, StoreError>>>
    where
        T: Send + 'static,
        F: FnOnce(&mut SqliteConnection) -> Result<T, StoreError> + Send + 'static,
    {
        let place = self.admission.try_enter(1).ok()?;
        Some(self.start(place, read))
    }

    async fn run<T, F>(&self, place: Place, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut SqliteConnection) -> Result<T, StoreError> + Send + 'static,
    {
        finished(self.start(place, read)).await
    }

    fn start<T, F>(&self, place: Place, read: F) -> JoinHandle<Result<T, StoreError>>
    where
        T: Send + 'static,
        F: FnOnce(&mut SqliteConnection) -> Result<T, StoreError> + Send + 'static,
    {
        let (idle, database) = (Arc::clone(&self.idle), Arc::clone(&self.database));
        // The place goes along: a caller that gives up does not free a connection still in use.
        tokio::task::spawn_blocking(move || {
            let _place = place;
            // A read that panicked took its connection with it.
            let connection = lock(&idle).pop();
            let mut connection = connection.map_or_else(|| opened(&database), Ok)?;
            let outcome = snapshot(&mut connection, read);
            // Its transaction may be left open, or its cache hold what was read wrongly.
            if let Err(StoreError::Failing | StoreError::Damaged { sequence: None }) = outcome {
                connection = opened(&database).unwrap_or(connection);
            }
            lock(&idle).push(connection);
            outcome
        })
    }

    fn not_admitted(&self, error: NotAdmitted) -> StoreError {
        match error {
            NotAdmitted::Full => StoreError::ReadQueueFull { readers: self.connections },
            NotAdmitted::Closed => StoreError::Closed,
        }
    }

    /// How many reads run.
    pub(super) fn busy(&self) -> usize {
        self.admission.taken()
    }

    /// How many reads wait for a connection, beside those of subscribers.
    pub(super) fn waiting(&self) -> usize {
        self.admission.waiting()
    }

    /// How many reads were refused a connection.
    pub(super) fn refused(&self) -> u64 {
        self.admission.refused()
    }

    /// Takes every place, as reads that take long would.
    #[cfg(test)]
    pub(super) async fn occupy(&self) -> Result<Place, NotAdmitted> {
        self.admission.enter_in_turn(u32::try_from(self.connections).expect("few")).await
    }

    /// Waits for the reads that run and closes every connection. Later reads find the store closed.
    pub(super) async fn close(&self) {
        let all = u32::try_from(self.connections).unwrap_or(u32::MAX);
        let _all = self.admission.enter_in_turn(all).await;
        self.admission.close();
        lock(&self.idle).clear();
    }
}

/// What a read that was started came to.
pub(super) async fn finished<T>(read: JoinHandle<Result<T, StoreError>>) -> Result<T, StoreError> {
    read.await.unwrap_or_else(|error| {
        // Only a panic in the read or the end of the runtime fails a join.
        error!(%error, "a read was cut off");
        Err(StoreError::Failing)
    })
}

fn lock(idle: &Mutex<Vec<SqliteConnection>>) -> MutexGuard<'_, Vec<SqliteConnection>> {
    // Nothing in the guarded sections panics, and a list of connections has no half-way state.
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

fn opened(database: &Path) -> Result<SqliteConnection, StoreError> {
    open_reader(database).map_err(|error| {
        error!(%error, "cannot open a connection to read");
        StoreError::Failing
    })
}

/// Ends with ROLLBACK, since it only reads: a COMMIT would fail for damage that was met and dealt
/// with on the way.
pub(super) fn snapshot<T>(
    connection: &mut SqliteConnection,
    read: impl FnOnce(&mut SqliteConnection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    connection.batch_execute("BEGIN").map_err(failed)?;
    let outcome = read(connection);
    connection.batch_execute("ROLLBACK").map_err(failed)?;
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::connection::open_writer;

    #[tokio::test]
    async fn the_pool_heals_from_reads_that_panic() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let database = folder.path().join("database");
        open_writer(&database).expect("opens");
        let readers = Readers::open(&database, 2, Duration::from_secs(2)).expect("opens");
        for _ in 0..5 {
            let outcome = readers.read(|_| -> Result<(), _> { panic!("as a test") }).await;
            assert!(matches!(outcome, Err(StoreError::Failing)), "{outcome:?}");
        }
        for _ in 0..5 {
            assert!(matches!(readers.read(|_| Ok(7)).await, Ok(7)));
        }
        readers.close().await;
        assert!(matches!(readers.read(|_| Ok(7)).await, Err(StoreError::Closed)));
    }
}
