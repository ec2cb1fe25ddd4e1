//! Admission to what there is a bounded amount of: the write queue, the connections that read.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::metrics::Counter;

/// Places, given in the order in which they are asked for; who finds none free waits. How many wait
/// is bounded, and for how long.
pub(super) struct Admission {
    places: Arc<Semaphore>,
    places_max: usize,
    /// One for each caller that may wait at a time.
    waiting: Semaphore,
    waiting_max: usize,
    wait_max: Duration,
    /// Callers that were sent away.
    refused: Counter,
}

/// Some of the places, given back when it is dropped.
#[must_use]
pub(super) struct Place(#[expect(dead_code, reason = "held")] OwnedSemaphorePermit);

/// Why there was no admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotAdmitted {
    /// No place came free in time, or too many wait already.
    Full,
    /// It was closed.
    Closed,
}

impl Admission {
    /// For `places`, with at most `waiting_max` callers that wait for at most `wait_max`.
    pub(super) fn new(places: usize, waiting_max: usize, wait_max: Duration) -> Self {
        let (places, places_max) = (Arc::new(Semaphore::new(places)), places);
        let waiting = Semaphore::new(waiting_max);
        let refused = Counter::default();
        Self { places, places_max, waiting, waiting_max, wait_max, refused }
    }

    /// How many places are taken.
    pub(super) fn taken(&self) -> usize {
        self.places_max - self.places.available_permits().min(self.places_max)
    }

    /// How many wait that may not wait for long.
    pub(super) fn waiting(&self) -> usize {
        self.waiting_max - self.waiting.available_permits().min(self.waiting_max)
    }

    /// How many callers were sent away for want of a place.
    pub(super) fn refused(&self) -> u64 {
        self.refused.get()
    }

    /// `count` places, within the bounds on waiting.
    pub(super) async fn enter(&self, count: u32) -> Result<Place, NotAdmitted> {
        let entered = self.enter_or_wait(count).await;
        if let Err(NotAdmitted::Full) = entered {
            self.refused.increment();
        }
        entered
    }

    async fn enter_or_wait(&self, count: u32) -> Result<Place, NotAdmitted> {
        match self.try_enter(count) {
            Err(NotAdmitted::Full) => {}
            admitted_or_closed => return admitted_or_closed,
        }
        // Never closed, so that it fails only when as many wait as may.
        let _waiting = self.waiting.try_acquire().map_err(|_| NotAdmitted::Full)?;
        let places = timeout(self.wait_max, Arc::clone(&self.places).acquire_many_owned(count));
        places.await.map_err(|_| NotAdmitted::Full)?.map(Place).map_err(NotAdmitted::from)
    }

    /// `count` places, however long it takes: for those whose number is bounded elsewhere.
    pub(super) async fn enter_in_turn(&self, count: u32) -> Result<Place, NotAdmitted> {
        let places = Arc::clone(&self.places).acquire_many_owned(count);
        Ok(places.await.map(Place)?)
    }

    /// `count` places, if they are free.
    pub(super) fn try_enter(&self, count: u32) -> Result<Place, NotAdmitted> {
        if self.places.is_closed() {
            return Err(NotAdmitted::Closed);
        }
        let places = Arc::clone(&self.places).try_acquire_many_owned(count);
        places.map(Place).map_err(|_| NotAdmitted::Full)
    }

    /// Admits nobody from now on; those who wait are sent away.
    pub(super) fn close(&self) {
        self.places.close();
    }
}

impl From<AcquireError> for NotAdmitted {
    fn from(_: AcquireError) -> Self {
        Self::Closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission() -> Arc<Admission> {
        Arc::new(Admission::new(1, 1, Duration::from_millis(50)))
    }

    #[tokio::test]
    async fn one_who_waits_for_too_long_is_refused() {
        let admission = admission();
        let place = admission.enter(1).await.ok();
        assert_eq!(admission.enter(1).await.err(), Some(NotAdmitted::Full));
        drop(place);
        assert!(admission.enter(1).await.is_ok());
    }

    #[tokio::test]
    async fn one_too_many_to_wait_is_refused_at_once() {
        let admission = Arc::new(Admission::new(3, 2, Duration::from_hours(1)));
        let place = admission.enter(3).await.ok();
        let [waiting, also_waiting] = [(); 2].map(|()| {
            let admission = Arc::clone(&admission);
            spawn(async move { admission.enter(1).await.is_ok() })
        });
        while admission.waiting.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(admission.enter(1).await.err(), Some(NotAdmitted::Full));
        assert_eq!((admission.taken(), admission.waiting(), admission.refused()), (3, 2, 1));
        drop(place);
        assert!(waiting.await.expect("no panic"), "who waited gets the place");
        assert!(also_waiting.await.expect("no panic"));
        assert_eq!((admission.taken(), admission.waiting(), admission.refused()), (0, 0, 1));
    }

    #[tokio::test]
    async fn one_in_turn_waits_as_long_as_it_takes() {
        let admission = admission();
        let place = admission.enter(1).await.ok();
        let waiting = {
            let admission = Arc::clone(&admission);
            spawn(async move { admission.enter_in_turn(1).await.is_ok() })
        };
        assert_eq!(admission.enter(1).await.err(), Some(NotAdmitted::Full));
        assert!(!waiting.is_finished());
        drop(place);
        assert!(waiting.await.expect("no panic"));
    }

    #[tokio::test]
    async fn a_closed_one_sends_everyone_away() {
        let admission = admission();
        let _place = admission.enter(1).await.ok();
        let waiting = {
            let admission = Arc::clone(&admission);
            spawn(async move { admission.enter_in_turn(1).await.err() })
        };
        tokio::task::yield_now().await;
        admission.close();
        assert_eq!(waiting.await.expect("no panic"), Some(NotAdmitted::Closed));
        assert_eq!(admission.enter(1).await.err(), Some(NotAdmitted::Closed));
        assert_eq!(admission.try_enter(1).err(), Some(NotAdmitted::Closed));
    }

    #[expect(clippy::disallowed_methods, reason = "joined by the test")]
    fn spawn<T: Send + 'static>(
        task: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        tokio::spawn(task)
    }
}
