use tokio::sync::watch;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use crate::proto::messaging_service_server::SERVICE_NAME;

/// The names under which health is asked for: the whole server, and the one service.
const REPORTED: [&str; 2] = ["", SERVICE_NAME];

/// What `grpc.health.v1` answers: SERVING while the store commits and nothing drains.
pub(super) struct Health(HealthReporter);

impl Health {
    pub(super) async fn new() -> Self {
        let health = Self(HealthReporter::new());
        health.report(ServingStatus::Serving).await;
        health
    }

    pub(super) fn service(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.0.clone()))
    }

    /// Reports the store's state as it changes. Returns when the store has ended by itself.
    pub(super) async fn follow(&self, mut store: watch::Receiver<bool>) {
        loop {
            let healthy = *store.borrow_and_update();
            let status = if healthy { ServingStatus::Serving } else { ServingStatus::NotServing };
            self.report(status).await;
            if store.changed().await.is_err() {
                return;
            }
        }
    }

    /// Reports `NOT_SERVING`, and ends the streams that watch: they would hold the drain.
    pub(super) async fn draining(&self) {
        self.report(ServingStatus::NotServing).await;
        let mut reporter = self.0.clone();
        for name in REPORTED {
            reporter.clear_service_status(name).await;
        }
    }

    async fn report(&self, status: ServingStatus) {
        for name in REPORTED {
            self.0.set_service_status(name, status).await;
        }
    }
}
