use std::pin::Pin;

use async_stream::stream;
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{self, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::error::CallError;
use crate::proto::messaging_service_server::SERVICE_NAME;

/// The names under which health is asked for: the whole server, and the one service.
const KNOWN: [&str; 2] = ["", SERVICE_NAME];

/// Whether calls are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// They are.
    Serving,
    /// The store fails: reads may be served, writes are not.
    Failing,
    /// The server is about to end.
    Draining,
}

/// `grpc.health.v1`, answered from the server's own state.
pub struct Health(watch::Receiver<Availability>);

impl Health {
    /// The service that reports `availability` as it changes.
    pub fn service(availability: watch::Receiver<Availability>) -> HealthServer<Self> {
        HealthServer::new(Self(availability))
    }
}

fn response(availability: Availability) -> HealthCheckResponse {
    let status = match availability {
        Availability::Serving => ServingStatus::Serving,
        Availability::Failing | Availability::Draining => ServingStatus::NotServing,
    };
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let name = &request.get_ref().service;
        if !KNOWN.contains(&name.as_str()) {
            return Err(Status::not_found(format!("service: no service {name:?} is served here")));
        }
        Ok(Response::new(response(*self.0.borrow())))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = KNOWN.contains(&request.get_ref().service.as_str());
        let mut availability = self.0.clone();
        Ok(Response::new(Box::pin(stream! {
            loop {
                let now = *availability.borrow_and_update();
                if known {
                    yield Ok(response(now));
                } else {
                    yield Ok(HealthCheckResponse { status: ServingStatus::ServiceUnknown.into() });
                }
                // A stream that watched on would hold the drain.
                if now == Availability::Draining || availability.changed().await.is_err() {
                    yield Err(CallError::ShuttingDown.into());
                    return;
                }
            }
        })))
    }
}
