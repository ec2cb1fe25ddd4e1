//! The threads that serve connections: each runs an event loop of its own.
//!
//! A connection, its calls and their streams stay on the thread that was given it, so that a call
//! wakes no other thread and is never taken by one. A runtime that steals work was measured to take
//! 20 us of the processor's time for an empty call where this takes 16, on two cores.

use std::io;
use std::num::NonZero;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::store;

/// A server's worker threads. Dropping them ends them, with whatever they serve.
pub(super) struct Workers {
    workers: Vec<Worker>,
    stop: DropGuard,
}

struct Worker {
    event_loop: Handle,
    tasks: TaskTracker,
    /// Held by each of its connections as well: that is how they are counted.
    connections: Arc<Connected>,
    thread: JoinHandle<()>,
    /// Resolves, with an error, when the thread ends.
    ended: oneshot::Receiver<()>,
}

/// One connection of a worker, for as long as it is held.
pub(super) struct Connected;

/// How many workers a server has by default: one for each core but one, which is left to the thread
/// that writes the store. Measured on two cores that are shared with the client: two workers answer up
/// to a tenth fewer empty calls than one, and store as many messages.
pub fn workers_default() -> NonZero<usize> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    NonZero::new(cores - 1).unwrap_or(NonZero::<usize>::MIN)
}

impl Workers {
    /// Starts the threads.
    pub(super) fn start(count: NonZero<usize>) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let start = |number| Worker::start(number, stop.clone());
        let workers = (0..count.get()).map(start).collect::<io::Result<_>>();
        // Made before the `?`: when a thread cannot be started, those before it end.
        let stop = stop.drop_guard();
        Ok(Self { workers: workers?, stop })
    }

    /// Has the worker with the fewest connections serve one more. `serve` gets what it tracks its
    /// tasks with, and what it holds while it is connected.
    pub(super) fn spawn<F>(&self, serve: impl FnOnce(TaskTracker, Arc<Connected>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // By the count of connections, since they are long-lived: those accepted first may be gone.
        let least = self.workers.iter().min_by_key(|worker| Arc::strong_count(&worker.connections));
        if let Some(worker) = least {
            let connection = serve(worker.tasks.clone(), Arc::clone(&worker.connections));
            worker.tasks.spawn_on(connection, &worker.event_loop);
        }
    }

    /// How many tasks there are.
    pub(super) fn tasks(&self) -> usize {
        self.workers.iter().map(|worker| worker.tasks.len()).sum()
    }

    /// Waits until no task is left. None may be added any more, but by those there are.
    pub(super) async fn idle(&self) {
        for worker in &self.workers {
            worker.tasks.close();
        }
        // A task adds others only on its own worker, so that the first stay without any.
        for worker in &self.workers {
            worker.tasks.wait().await;
        }
    }

    /// Ends the threads, with the tasks that are left, and waits for them until `deadline`. One that
    /// hangs is left behind.
    pub(super) async fn stop(self, deadline: Instant) {
        drop(self.stop);
        for worker in self.workers {
            if timeout_at(deadline, worker.ended).await.is_ok() {
                // It has nothing left to do. A panic has been reported on its way.
                let _ = worker.thread.join();
            }
        }
    }
}

impl Worker {
    fn start(number: usize, stop: CancellationToken) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let event_loop = runtime.handle().clone();
        let (ends, ended) = oneshot::channel();
        let thread = thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            let _ends: oneshot::Sender<()> = ends;
            run(runtime, &stop);
        })?;
        let connections = Arc::new(Connected);
        Ok(Self { event_loop, tasks: TaskTracker::new(), connections, thread, ended })
    }
}

fn run(runtime: Runtime, stop: &CancellationToken) {
    runtime.block_on(async {
        tokio::select! {
            () = stop.cancelled() => {}
            () = store::give_answers_on_this_thread() => {}
        }
    });
    // Reads of the store that still run are waited for where the store is closed.
    runtime.shutdown_background();
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const TWO: NonZero<usize> = NonZero::new(2).expect("not zero");

    /// A connection that lives until the returned end of it is dropped; says which worker has it.
    async fn connect(workers: &Workers) -> (String, CancellationToken) {
        let hung_up = CancellationToken::new();
        let (says, said) = oneshot::channel();
        let until = hung_up.clone();
        workers.spawn(|_, connected| async move {
            let _ = says.send(thread::current().name().expect("it is a worker").to_owned());
            until.cancelled().await;
            drop(connected);
        });
        (said.await.expect("it runs"), hung_up)
    }

    #[tokio::test]
    async fn a_connection_goes_to_the_worker_with_the_fewest() {
        let workers = Workers::start(TWO).expect("threads");
        let mut open = Vec::new();
        for _ in 0..6 {
            open.push(connect(&workers).await);
        }
        let (gone, staying): (Vec<_>, Vec<_>) =
            open.into_iter().partition(|(worker, _)| worker == "worker-1");
        assert_eq!((gone.len(), staying.len()), (3, 3));
        for (_, hung_up) in &gone {
            hung_up.cancel();
        }
        while workers.tasks() > 3 {
            tokio::task::yield_now().await;
        }
        let mut open = Vec::new();
        for _ in 0..3 {
            open.push(connect(&workers).await);
        }
        assert!(open.iter().all(|(worker, _)| worker == "worker-1"), "{open:?}");
        for (_, hung_up) in staying.iter().chain(&open) {
            hung_up.cancel();
        }
        workers.idle().await;
        workers.stop(Instant::now() + Duration::from_mins(1)).await;
    }

    #[tokio::test]
    async fn stopping_ends_the_tasks_that_are_left_and_leaves_a_thread_that_hangs() {
        let workers = Workers::start(TWO).expect("threads");
        let (release, hangs) = mpsc::sync_channel::<()>(0);
        let (begins, begun) = oneshot::channel();
        workers.spawn(|_, connected| async move {
            let _ = begins.send(());
            let _ = hangs.recv();
            drop(connected);
        });
        begun.await.expect("it runs");
        let (ends, ended) = oneshot::channel::<()>();
        workers.spawn(|_, connected| async move {
            let _held = (connected, ends);
            std::future::pending::<()>().await;
        });
        workers.stop(Instant::now() + Duration::from_millis(100)).await;
        assert!(ended.await.is_err(), "it was dropped");
        drop(release);
    }
}
